"""Load a model and use it: the Python API behind `import ernie_rt`."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.backend.protocols import Executable, Limits, MemoryReport, Target
from ernie_rt.choice import Choice, choose
from ernie_rt.errors import OptionError, PromptError, TokenizerError
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.legalize import Lowering, legalize
from ernie_rt.graph.types import Plain, Weight
from ernie_rt.host import PluginHost
from ernie_rt.model.config import ModelConfig, read_config
from ernie_rt.model.ernie45 import build_graph
from ernie_rt.model.families import find
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Finish, Request
from ernie_rt.runtime.sequence import Sequence as Running
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.hub import resolve
from ernie_rt.weights.source import CheckpointSource, WeightSource

DEFAULT_CONTEXT = 32768
"""What `max_context` is when nobody says, if the model has as much: a cache of 131,072 tokens is seldom needed."""

Progress = Callable[[int, int], None]
"""Called while weights are read, with the parameters read so far and in all."""


@dataclass(frozen=True, slots=True)
class Located:
    """A model on disk: its folder and its config, read and checked; no weights yet. Of a family alone, no folder."""

    config: ModelConfig
    folder: Path | None = None

    def tokenizer(self) -> Tokenizer:
        if self.folder is None:
            raise TokenizerError("a model without a folder has no tokenizer", hint="Use generate_ids, or load a folder")
        return Tokenizer.load(self.folder, self.config)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one more token adds: its id (None in a last piece that only ends), its text, and why it was the last."""

    id: int | None
    text: str
    finish: Finish | None


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer: text, ids, why it ended, and how long its parts took.

    `prefill_seconds` run up to the first token, `decode_seconds` from there to the last.
    """

    text: str
    ids: tuple[int, ...]
    finish: Finish
    prompt_tokens: int
    prefill_seconds: float
    decode_seconds: float


def locate(ref: str | Path) -> Located:
    """Find a model by folder, family name or hub id, and read its config."""
    folder = resolve(str(ref))
    return Located(read_config(folder), folder)


def load(
    ref: str | Path | Located,
    *,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    max_context: int | None = None,
    max_sequences: int = 1,
    max_batch_tokens: int = 512,
    threads: int | None = None,
    memory_bytes: int | None = None,
    taps: Collection[str] = (),
    weights: WeightSource | None = None,
    host: PluginHost | None = None,
    progress: Progress | None = None,
) -> Model:
    """Load a model, ready to run; use it in a `with` block, or call `close`.

    `ref` is a folder, a family name ("21B-A3B"), a hub id ("baidu/ERNIE-4.5-0.3B-PT") or what `locate` returned. With
    `weights` (such as `Synthetic`) a family name needs no checkpoint. `max_context` counts prompt and answer together;
    it is at most the model's own, and 32,768 when not given. `taps` are scopes whose values steps should return.
    """
    located = ref if isinstance(ref, Located) else _locate_for(str(ref), weights)
    config = located.config
    limits = _limits(config, max_context, max_sequences, max_batch_tokens, memory_bytes)
    # First the headers of the weights: whatever is wrong with a folder is said before a backend is imported.
    source = weights if weights is not None else _open(located)
    try:
        host = host or PluginHost()
        choice = choose(host, backend=backend, device=device, dtype=dtype, stored=config.dtype)
        target = Target((choice.device,), choice.dtype, threads)
        implementation = host.backend(choice.backend)
        graph = build_graph(config, choice.dtype)
        lowering = legalize(graph, lambda node: implementation.claims(node, target), taps)
        reported = source if progress is None else _Reported(source, progress, graph)
        executable = implementation.compile({graph.name: lowering}, reported, target, limits, taps)
    finally:
        source.close()
    unused = source.unused if isinstance(source, CheckpointSource) else ()
    return Model(located, graph, lowering, choice, limits, executable, tuple(unused))


class Model:
    """A loaded model. One thread uses it at a time.

    `lowering` is the graph as the backend runs it, with its decisions; `unused` are stored tensors that no graph
    reads, each with the reason.
    """

    def __init__(
        self,
        located: Located,
        graph: Graph,
        lowering: Lowering,
        choice: Choice,
        limits: Limits,
        executable: Executable,
        unused: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.located = located
        self.graph = graph
        self.lowering = lowering
        self.choice = choice
        self.limits = limits
        self.unused = unused
        self._executable = executable
        self._engine = Engine(executable, limits.max_context)

    @property
    def config(self) -> ModelConfig:
        return self.located.config

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer; TokenizerError when it has none."""
        return self.located.tokenizer()

    def memory(self) -> MemoryReport:
        return self._executable.memory()

    def logits(self, ids: Iterable[int], *, chunk: int | None = None) -> npt.NDArray[Any]:
        """The logits after every token of `ids`: float32 `[N, V]` (float64 from a model loaded in float64).

        `chunk` bounds how many tokens enter a step: 1 feeds them one by one.
        """
        return self.logits_batch([ids], chunk=chunk)[0]

    def logits_batch(self, prompts: Iterable[Iterable[int]], *, chunk: int | None = None) -> list[npt.NDArray[Any]]:
        """`logits` of several prompts, run in the same steps as far as `max_sequences` lets them."""
        if chunk is not None and chunk < 1:
            raise OptionError("chunk must be positive", found=chunk)
        requests = [Request(self._check(ids), 0, all_logits=True, chunk=chunk) for ids in prompts]
        return [np.concatenate(sequence.logits) for sequence in self._run(requests)]

    def generate_ids(
        self,
        ids: Iterable[int],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0,
        ignore_eos: bool = False,
    ) -> list[int]:
        """Continue `ids` greedily; the new ids, up to and with an end-of-sequence token unless that is ignored."""
        return self.generate_batch(
            [ids], max_new_tokens=max_new_tokens, temperature=temperature, ignore_eos=ignore_eos
        )[0]

    def generate_batch(
        self,
        prompts: Iterable[Iterable[int]],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0,
        ignore_eos: bool = False,
    ) -> list[list[int]]:
        """`generate_ids` of several prompts at once."""
        _check_temperature(temperature)
        requests = [self._request(ids, max_new_tokens, ignore_eos) for ids in prompts]
        return [sequence.generated for sequence in self._run(requests)]

    def generate(
        self, prompt: str, *, max_new_tokens: int = 128, temperature: float = 0, ignore_eos: bool = False
    ) -> Generation:
        """Continue a text; see `stream` to read the continuation as it comes."""
        ids = self.tokenizer.encode(prompt)
        began = time.perf_counter()
        first = began
        pieces: list[Piece] = []
        for piece in self._stream(ids, max_new_tokens, temperature, ignore_eos):
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
        )

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0,
        ignore_eos: bool = False,
    ) -> Iterator[Piece]:
        """Continue a text, or ids, yielding a Piece for every token; leaving the loop early frees its cache."""
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        yield from self._stream(ids, max_new_tokens, temperature, ignore_eos)

    def close(self) -> None:
        """Free the weights and the cache; calling it twice is harmless."""
        self._executable.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, requests: Iterable[Request]) -> list[Running]:
        """Run requests to their ends; when one is refused, none stays queued."""
        sequences: list[Running] = []
        with ExitStack() as cleanup:
            for request in requests:
                sequences.append(self._engine.submit(request))
                cleanup.callback(self._engine.cancel, sequences[-1])
            for _ in self._engine.run(*sequences):
                pass
        return sequences

    def _stream(self, ids: Iterable[int], max_new_tokens: int, temperature: float, ignore_eos: bool) -> Iterator[Piece]:
        _check_temperature(temperature)
        detokenizer = Detokenizer(self.tokenizer)
        sequence = self._engine.submit(self._request(ids, max_new_tokens, ignore_eos))
        for event in self._engine.run(sequence):
            text = "" if event.token is None else detokenizer.push(event.token)
            yield Piece(event.token, text + detokenizer.flush() if event.finish else text, event.finish)

    def _request(self, ids: Iterable[int], max_new_tokens: int, ignore_eos: bool) -> Request:
        if max_new_tokens < 1:
            raise OptionError("max_new_tokens must be positive", found=max_new_tokens)
        stop = frozenset() if ignore_eos else frozenset(self.config.eos_token_id)
        return Request(self._check(ids), max_new_tokens, stop)

    def _check(self, ids: Iterable[int]) -> tuple[int, ...]:
        """The ids as Python ints, each within the vocabulary."""
        try:
            numbers = tuple(operator.index(id) for id in ids)
        except TypeError as error:
            raise PromptError("token ids must be integers", found=str(error)) from None
        for number in numbers:
            if not 0 <= number < self.config.vocab_size:
                raise PromptError(
                    "a token id outside the vocabulary", expected=f"0 to {self.config.vocab_size - 1}", found=number
                )
        return numbers


class _Reported:
    """A WeightSource that says how far it has come."""

    def __init__(self, source: WeightSource, progress: Progress, graph: Graph) -> None:
        self._source = source
        self._progress = progress
        self._done = 0
        self._total = sum(w.type.elements() for w in graph.weights if isinstance(w.storage, Plain))

    def fill(self, weight: Weight, part: str, out: npt.NDArray[Any], index: tuple[int, ...] = ()) -> None:
        self._source.fill(weight, part, out, index)
        if isinstance(weight.storage, Plain):
            self._done += out.size
            self._progress(self._done, self._total)

    def close(self) -> None:
        self._source.close()


def _locate_for(ref: str, weights: WeightSource | None) -> Located:
    family = find(ref) if weights is not None else None
    return locate(ref) if family is None else Located(family.config)


def _open(located: Located) -> WeightSource:
    if located.folder is None:
        raise OptionError("a model without a folder needs `weights`")
    return CheckpointSource(Checkpoint.open(located.folder), located.config)


def _limits(
    config: ModelConfig, max_context: int | None, max_sequences: int, max_batch_tokens: int, memory_bytes: int | None
) -> Limits:
    longest = config.max_position_embeddings
    context = min(longest, DEFAULT_CONTEXT) if max_context is None else max_context
    if not 1 <= context <= longest:
        raise OptionError(
            "max_context is not possible", expected=f"1 to {longest}, the model's longest context", found=context
        )
    for name, value in (("max_sequences", max_sequences), ("max_batch_tokens", max_batch_tokens)):
        if value < 1:
            raise OptionError(f"{name} must be positive", found=value)
    return Limits(context, max_sequences, max_batch_tokens, memory_bytes)


def _check_temperature(temperature: float) -> None:
    if temperature != 0:
        raise OptionError(
            "only greedy decoding is available", expected="temperature 0", found=temperature, hint="Leave it out"
        )
