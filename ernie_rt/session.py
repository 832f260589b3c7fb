"""A loaded model and what can be done with it."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ernie_rt.backend.protocols import Executable, Limits, MemoryReport
from ernie_rt.choice import Choice
from ernie_rt.errors import ErnieRtError, OptionError, PromptError
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.legalize import Lowering
from ernie_rt.host import blame
from ernie_rt.model.config import ModelConfig
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.options import GenerateOptions, Plan, plan, positive
from ernie_rt.runtime.sequence import Event, Finish, Request
from ernie_rt.runtime.sequence import Sequence as Running
from ernie_rt.sampling.sampler import Logprobs
from ernie_rt.text.stops import TextStream
from ernie_rt.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """What one more token adds: its id (None in a last piece that only ends), its text, and why it was the last.

    The text lags behind where it may be the beginning of a stop string. `logprobs` are there when asked for.
    """

    id: int | None
    text: str
    finish: Finish | None
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer: text, ids, why it ended, and how long its parts took.

    The text ends before a stop string, the ids with the token that completes it. `prefill_seconds` run up to the first
    token, `decode_seconds` from there to the last.
    """

    text: str
    ids: tuple[int, ...]
    finish: Finish
    prompt_tokens: int
    prefill_seconds: float
    decode_seconds: float
    logprobs: tuple[Logprobs, ...] = ()


class Model:
    """A loaded model. One thread uses it at a time.

    `lowering` is the graph as the backend runs it, with its decisions; `unused` are stored tensors that no graph
    reads, each with the reason.
    """

    def __init__(
        self,
        config: ModelConfig,
        load_tokenizer: Callable[[], Tokenizer],
        graph: Graph,
        lowering: Lowering,
        choice: Choice,
        limits: Limits,
        executable: Executable,
        unused: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.config = config
        self._load_tokenizer = load_tokenizer
        self.graph = graph
        self.lowering = lowering
        self.choice = choice
        self.limits = limits
        self.unused = unused
        self._executable = executable
        self._engine = Engine(executable, limits.max_context)
        self._closed = False

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer; TokenizerError when it has none."""
        return self._load_tokenizer()

    def memory(self) -> MemoryReport:
        return self._executable.memory()

    def logits(self, ids: Iterable[int], *, chunk: int | None = None) -> npt.NDArray[Any]:
        """The logits after every token of `ids`: float32 `[N, V]` (float64 from a model loaded in float64).

        `chunk` bounds how many tokens enter a step: 1 feeds them one by one.
        """
        return self.logits_batch([ids], chunk=chunk)[0]

    def logits_batch(self, prompts: Iterable[Iterable[int]], *, chunk: int | None = None) -> list[npt.NDArray[Any]]:
        """`logits` of several prompts, run in the same steps as far as `max_sequences` lets them."""
        chunk = None if chunk is None else positive("chunk", chunk)
        requests = [Request(self._check(ids), 0, all_logits=True, chunk=chunk) for ids in prompts]
        return [np.concatenate(sequence.logits) for sequence in self._run(requests)]

    def tapped(self, ids: Iterable[int]) -> dict[str, npt.NDArray[Any]]:
        """The values of the scopes that `load` was given as `taps`, for every token of `ids`, by scope."""
        (sequence,) = self._run([Request(self._check(ids), 0, all_logits=True, taps=True)])
        return {name: np.concatenate([step[name] for step in sequence.taps]) for name in sequence.taps[0]}

    def generate_ids(self, ids: Iterable[int], **options: Unpack[GenerateOptions]) -> list[int]:
        """Continue `ids`; the new ids, up to and with a token that ends them. Greedy, unless options say otherwise."""
        return self.generate_batch([ids], **options)[0]

    def generate_batch(self, prompts: Iterable[Iterable[int]], **options: Unpack[GenerateOptions]) -> list[list[int]]:
        """`generate_ids` of several prompts at once; with a `seed`, each gets the tokens that it gets alone."""
        chosen = self._plan(options)
        requests = [chosen.request(self._check(ids), self._known_ids) for ids in prompts]
        return [sequence.generated for sequence in self._run(requests, chosen.stop)]

    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> Generation:
        """Continue a text; see `stream` to read the continuation as it comes."""
        ids = self.tokenizer.encode(prompt)
        began = time.perf_counter()
        first = began
        pieces: list[Piece] = []
        for piece in self._stream(ids, options):
            if not pieces:
                first = time.perf_counter()
            pieces.append(piece)
        finish = pieces[-1].finish
        assert finish is not None
        return Generation(
            text="".join(piece.text for piece in pieces),
            ids=tuple(piece.id for piece in pieces if piece.id is not None),
            finish=finish,
            prompt_tokens=len(ids),
            prefill_seconds=first - began,
            decode_seconds=time.perf_counter() - first,
            logprobs=tuple(piece.logprobs for piece in pieces if piece.logprobs is not None),
        )

    def stream(self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]) -> Iterator[Piece]:
        """Continue a text, or ids, yielding a Piece for every token; leaving the loop early frees its cache."""
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        yield from self._stream(ids, options)

    def stream_ids(self, ids: Iterable[int], **options: Unpack[GenerateOptions]) -> Iterator[int]:
        """`stream` without text, for a model without a tokenizer: the new ids as they come."""
        chosen = self._plan(options)
        text = TextStream(self.tokenizer, chosen.stop) if chosen.stop else None
        for event in self._events(chosen.request(self._check(ids), self._known_ids), text):
            if event.token is not None:
                yield event.token

    def close(self) -> None:
        """Free the weights and the cache; calling it twice is harmless."""
        if not self._closed:
            self._closed = True
            self._engine.close()
        self._executable.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, requests: Iterable[Request], stop: Sequence[str] = ()) -> list[Running]:
        """Run requests to their ends; when one is refused, none stays queued."""
        sequences: list[Running] = []
        with ExitStack() as cleanup:
            for request in requests:
                text = TextStream(self.tokenizer, stop) if stop else None
                sequences.append(self._submit(request, text))
                cleanup.callback(self._engine.cancel, sequences[-1])
            with blame(self.choice.backend):
                for _ in self._engine.run(*sequences):
                    pass
        return sequences

    def _submit(self, request: Request, text: TextStream | None) -> Running:
        if self._closed:
            raise OptionError("the model is closed", hint="Load it again, or use it inside its `with` block")
        return self._engine.submit(request, None if text is None else text.push)

    def _events(self, request: Request, text: TextStream | None) -> Iterator[Event]:
        sequence = self._submit(request, text)
        with blame(self.choice.backend):
            yield from self._engine.run(sequence)

    def _stream(self, ids: Iterable[int], options: GenerateOptions) -> Iterator[Piece]:
        chosen = self._plan(options)
        text = TextStream(self.tokenizer, chosen.stop)
        for event in self._events(chosen.request(self._check(ids), self._known_ids), text):
            shown = "" if event.token is None else text.take()
            yield Piece(event.token, shown + text.flush() if event.finish else shown, event.finish, event.logprobs)

    def _plan(self, options: GenerateOptions) -> Plan:
        return plan(self.config.eos_token_id, self.config.vocab_size, **options)

    @cached_property
    def _known_ids(self) -> int | None:
        """How many ids stand for something: those beyond the tokenizer's are never chosen. None without a tokenizer."""
        try:
            return self.tokenizer.vocab_size
        except ErnieRtError:
            return None

    def _check(self, ids: Iterable[int]) -> tuple[int, ...]:
        """The ids as Python ints, each within the vocabulary."""
        try:
            numbers = tuple(-1 if isinstance(id, bool) else operator.index(id) for id in ids)
        except TypeError as error:
            raise PromptError("token ids must be integers", found=str(error)) from None
        for number in numbers:
            if not 0 <= number < self.config.vocab_size:
                raise PromptError(
                    "a token id outside the vocabulary", expected=f"0 to {self.config.vocab_size - 1}", found=number
                )
        return numbers
