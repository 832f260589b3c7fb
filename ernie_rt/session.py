"""A loaded model and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Literal, NoReturn, Unpack, cast, overload

import numpy as np
import numpy.typing as npt

from ernie_rt.build import Build
from ernie_rt.choice import Choice
from ernie_rt.contract.protocols import Executable, Limits, MemoryReport
from ernie_rt.errors import BackendError, OptionError, PromptError
from ernie_rt.generation.defaults import Defaults
from ernie_rt.generation.options import (
    NEW_CHAT_TOKENS,
    NEW_TOKENS,
    CheckedOptions,
    GenerateOptions,
    check_options,
    positive,
)
from ernie_rt.generation.prompt import Prompt, check_ids, has_parts, showing
from ernie_rt.generation.stream import Answer, Generation, Stream
from ernie_rt.host import blame
from ernie_rt.location import Located
from ernie_rt.routing.data import Routing
from ernie_rt.routing.taps import read_routing
from ernie_rt.runtime.encoder import FEATURE_BYTES
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.kept_rows import KeptRows
from ernie_rt.runtime.sequence import Event, Finish, Request, SequenceState
from ernie_rt.text.chat import ChatPrompt, ChatTemplate, encode_parts
from ernie_rt.text.media_reader import MediaReader, Placed
from ernie_rt.text.messages import Message
from ernie_rt.text.stops import TextStream
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt.weights.source import StoredSource


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was checked, the text that its tokens are pushed into, and the answer that will come of it."""

    request: Request
    text: TextStream
    answer: Answer


class Model:
    """A loaded model. Several threads may use it: what they ask for runs in the same steps, as far as there is room.

    A process that is forked from one that has it cannot use it, and is told so by a ForkError.

    `lowering` is the graph as the backend runs it, with its decisions, `lowerings` all graphs by name; `stored` is how
    each weight is stored; `unused` are stored tensors that no graph reads, each with the reason.
    """

    def __init__(
        self,
        located: Located,
        build: Build,
        choice: Choice,
        limits: Limits,
        executable: Executable,
        unused: tuple[tuple[str, str], ...] = (),
        notes: tuple[str, ...] = (),
        *,
        reuse: bool = True,
        kept: KeptRows | None = None,
        open_weights: Callable[[], StoredSource] | None = None,
        feature_bytes: int = FEATURE_BYTES,
    ) -> None:
        self.config = located.config
        self._located = located
        self.graph = build.graph
        self.lowering = build.lowering
        self.lowerings = build.lowerings
        self.stored = build.stored
        self.choice = choice
        self.limits = limits
        self.unused = unused
        self._disagreements = notes
        self._conversions = build.notes
        self._executable = executable
        self._routers = build.routers
        with blame(choice.backend):
            self._engine = Engine(
                executable, limits.max_context, reuse=reuse, kept=kept, graphs=build.graphs,
                max_patches=limits.max_patches, feature_bytes=feature_bytes,
            )  # fmt: skip
        self._kept = kept
        self._open_weights = open_weights
        self.target = build.target
        self._closed = False

    def __repr__(self) -> str:
        choice = self.choice
        closed = ", closed" if self._closed else ""
        return f"<Model {self._located.name} on {choice.backend}, {choice.device}, {choice.dtype}{closed}>"

    def __reduce__(self) -> NoReturn:
        raise OptionError(
            "a model cannot be copied or sent to another process",
            found=repr(self),
            hint="Its weights are memory of this process: load it in each one. Its tokenizer and answers can be sent",
        )

    @property
    def engine(self) -> Engine:
        """What runs its requests; OptionError once it is closed."""
        if self._closed:
            raise OptionError("the model is closed", hint="Load it again, or use it inside its `with` block")
        return self._engine

    @property
    def executable(self) -> Executable:
        """What runs its steps: for who measures them while the model has no requests; it must not be closed."""
        return self._executable

    @property
    def notes(self) -> tuple[str, ...]:
        """In what the files of the checkpoint disagree, or what the backend needs is installed twice, without harm; and
        why rows could not be kept on disk."""
        failure = None if self._kept is None else self._kept.failure
        lost = () if failure is None else (f"rows of the cache were not kept on disk: {failure}",)
        return (*self._disagreements, *self._located.notes, *lost)

    @property
    def located(self) -> Located:
        """Where the model is, and what its folder says."""
        return self._located

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer; TokenizerError when it has none."""
        return self._located.tokenizer

    @property
    def template(self) -> ChatTemplate | None:
        """The checkpoint's chat template, or None."""
        return self._located.template

    @cached_property
    def reader(self) -> MediaReader | None:
        """What reads pictures and videos for it; None where it reads text alone."""
        return self._located.reader(self.choice.device, self.limits.max_patches)

    @property
    def defaults(self) -> Defaults:
        """What `generate` and `chat` take where their options say nothing: the checkpoint's generation_config.json."""
        return self._located.defaults

    @property
    def capacity(self) -> int:
        """The most tokens that a prompt and its answer can have, the answer's last one aside."""
        return self._engine.capacity

    def open_weights(self) -> StoredSource:
        """The weights that it was loaded from, opened anew; the caller closes them. OptionError where `load` was given
        a source."""
        if self._open_weights is None:
            raise OptionError("the model was loaded from weights that were handed over", hint="Open those anew")
        return self._open_weights()

    def memory(self) -> MemoryReport:
        """What the model holds, and what was converted for its backend."""
        with blame(self.choice.backend):
            report = self._executable.memory()
        return replace(report, notes=(*self._conversions, *report.notes))

    def logits(self, ids: Iterable[int] | ChatPrompt, *, chunk: int | None = None) -> npt.NDArray[Any]:
        """The logits after every token of `ids`, or of what `prompt` gave: float32 `[N, V]` (float64 from a model
        loaded in float64).

        `chunk` bounds how many tokens enter a step: 1 feeds them one by one.
        """
        chunk = None if chunk is None else positive("chunk", chunk)
        (sequence,) = self._run([self._request(ids, all_logits=True, chunk=chunk)])
        return np.concatenate(sequence.logits)

    def logits_batch(
        self, prompts: Iterable[str | Iterable[int]], *, chunk: int | None = None
    ) -> list[npt.NDArray[Any]]:
        """`logits` of several texts or ids, run in the same steps as far as `max_sequences` lets them."""
        chunk = None if chunk is None else positive("chunk", chunk)
        requests = [Request(ids, 0, all_logits=True, chunk=chunk) for ids in self._batch(prompts)]
        return [np.concatenate(sequence.logits) for sequence in self._run(requests)]

    def visit_logits(
        self, prompts: Iterable[str | Iterable[int]], visit: Callable[[int, int, npt.NDArray[Any]], None]
    ) -> None:
        """`logits_batch`, handed over step by step and not kept: so what they take is a step's, however long a text is.

        `visit` is told which of the prompts it is, the place of the token that the first row follows, and the rows. It
        may be told of the same place twice, where a sequence had to be computed anew.
        """
        self._run(
            Request(ids, 0, all_logits=True, visit=partial(visit, number))
            for number, ids in enumerate(self._batch(prompts))
        )

    def tapped(self, ids: Iterable[int]) -> dict[str, npt.NDArray[Any]]:
        """The values of the scopes that `load` was given as `taps`, for every token of `ids`, by scope."""
        return self._taps(Request(check_ids(self.config, ids), 0, all_logits=True, taps=True))

    def routing(self, prompt: str | Iterable[int] | ChatPrompt) -> Routing:
        """Which experts each token of a text, of ids or of what `prompt` gave is sent to, and whom it would be without
        the correction bias.

        The model has to be loaded with `routing=True`. A long prompt enters in steps; what is kept of a token are 12
        bytes for each choice of an expert.
        """
        if not self._routers:
            raise OptionError("the model does not tell what its routers choose", hint="Load it with routing=True")
        request = self._request(self._ids(prompt) if isinstance(prompt, str) else prompt, taps=True)
        return read_routing(self.choice.backend, request.ids, self._routers, self._taps(request))

    @overload
    def chat(
        self,
        messages: ChatPrompt | Iterable[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        stream: Literal[False] = False,
        **options: Unpack[GenerateOptions],
    ) -> Generation: ...
    @overload
    def chat(
        self,
        messages: ChatPrompt | Iterable[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        stream: Literal[True],
        **options: Unpack[GenerateOptions],
    ) -> Stream: ...
    @overload
    def chat(
        self,
        messages: ChatPrompt | Iterable[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        stream: bool,
        **options: Unpack[GenerateOptions],
    ) -> Generation | Stream: ...
    def chat(
        self,
        messages: ChatPrompt | Iterable[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        stream: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> Generation | Stream:
        """Answer a conversation, by the checkpoint's chat template; with `stream`, piece by piece.

        `messages` are Message or OpenAI-style objects (`{"role": "user", "content": "…"}`), or the ChatPrompt that
        `prompt` made of them; `tools` are JSON schemas of functions, in the same style. A content is text or a list of
        parts, `{"type": "text", "text": "…"}` and, for a model that sees, `{"type": "image", "image": Path("a.png")}`
        and `{"type": "video", "video": Path("b.mp4")}` (or the bytes of a file, an array, a Pillow image). Reasoning
        and tool calls come apart from the text. PromptError where the model has no chat template, or the template no
        place for such messages; MediaError for a picture that cannot be used.
        """
        answer = self._start(self.prepare_chat(messages, tools, options))
        return answer if stream else _whole(answer)

    @overload
    def generate(
        self, prompt: Prompt, *, stream: Literal[False] = False, **options: Unpack[GenerateOptions]
    ) -> Generation: ...
    @overload
    def generate(self, prompt: Prompt, *, stream: Literal[True], **options: Unpack[GenerateOptions]) -> Stream: ...
    @overload
    def generate(self, prompt: Prompt, *, stream: bool, **options: Unpack[GenerateOptions]) -> Generation | Stream: ...
    def generate(
        self, prompt: Prompt, *, stream: bool = False, **options: Unpack[GenerateOptions]
    ) -> Generation | Stream:
        """Continue a text, or token ids, as they are; with `stream`, piece by piece.

        A list of parts, as a message of `chat` has them, is a text with pictures and videos.
        """
        continuation = self._start(self.prepare(prompt, options))
        return continuation if stream else _whole(continuation)

    def prompt(
        self,
        messages: Iterable[Message | Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        thinking: bool | None = None,
    ) -> ChatPrompt:
        """What `chat` makes of a conversation before it asks the model: its pictures are read here, which takes a while
        and may be done in any thread."""
        if self.template is None:
            raise PromptError("the model has no chat template", hint="`generate` completes plain text")
        return self.template.prompt(
            messages, self.tokenizer, tools, thinking=thinking, reader=self.reader, most=self.capacity
        )

    def prepare(self, prompt: Prompt, options: GenerateOptions) -> Prepared:
        """What `generate` runs: for whoever runs it otherwise."""
        if has_parts(prompt):
            made = encode_parts(prompt, self.tokenizer, self.reader, self.capacity)
            return self._prepared(made.ids, options, NEW_TOKENS, items=made.items)
        return self._prepared(self._ids(cast("str | Iterable[int]", prompt)), options, NEW_TOKENS)

    def prepare_chat(
        self,
        messages: ChatPrompt | Iterable[Message | Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        options: GenerateOptions,
    ) -> Prepared:
        """What `chat` runs: for whoever runs it otherwise."""
        if isinstance(messages, ChatPrompt):
            if tools:
                raise OptionError("a prompt that is rendered takes no more tools", hint="Give them to the template")
            prompt = messages
        else:
            options = options.copy()
            prompt = self.prompt(messages, tools, thinking=options.pop("thinking", None))
        return self._prepared(prompt.ids, options, NEW_CHAT_TOKENS, prompt, prompt.items)

    def generate_ids(self, ids: Iterable[int], **options: Unpack[GenerateOptions]) -> list[int]:
        """Continue `ids` by what the options say, greedily without any, and by no defaults of the checkpoint.

        The new ids, up to and with a token that ends them; of the end-of-sequence tokens those of `config` alone do.
        Ids that the tokenizer lacks are never chosen; where there is none, all but `stop` works.
        """
        return self.generate_batch([check_ids(self.config, ids)], **options)[0]

    def generate_batch(
        self, prompts: Iterable[str | Iterable[int]], **options: Unpack[GenerateOptions]
    ) -> list[list[int]]:
        """`generate_ids` of several texts or ids at once; with a `seed`, each gets the tokens that it gets alone."""
        chosen = self._checked(options)
        requests = [chosen.request(ids, self._located.known_ids) for ids in self._batch(prompts)]
        return [sequence.generated for sequence in self._run(requests, chosen.stop)]

    def stream_ids(self, ids: Iterable[int], **options: Unpack[GenerateOptions]) -> Iterator[int]:
        """`generate_ids`, the new ids as they come; leaving the loop early frees their cache."""
        chosen = self._checked(options)
        text = TextStream(self.tokenizer, chosen.stop) if chosen.stop else None
        for event in self._events(chosen.request(check_ids(self.config, ids), self._located.known_ids), text):
            if event.token is not None:
                yield event.token

    def close(self) -> None:
        """Free the weights and the cache; calling it twice is harmless."""
        self._closed = True
        with blame(self.choice.backend):
            self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BackendError as failure:
            if error is None:
                raise
            error.add_note(str(failure))  # what ended the block matters more

    def _run(self, requests: Iterable[Request], stop: Sequence[str] = ()) -> list[SequenceState]:
        """Run requests to their ends; when one is refused, none stays queued."""
        sequences: list[SequenceState] = []
        with ExitStack() as cleanup:
            for request in requests:
                text = TextStream(self.tokenizer, stop) if stop else None
                sequences.append(self._submit(request, text))
                cleanup.callback(self._engine.cancel, sequences[-1])
            with blame(self.choice.backend):
                for _ in self._engine.run(*sequences):
                    pass
        for sequence in sequences:
            _check_whole(sequence.finish)
        return sequences

    def _taps(self, request: Request) -> dict[str, npt.NDArray[Any]]:
        """The tapped values of every token of a request, by name."""
        (sequence,) = self._run([request])
        return {name: np.concatenate([step[name] for step in sequence.taps]) for name in sequence.taps[0]}

    def _request(self, prompt: Iterable[int] | ChatPrompt, **wanted: Any) -> Request:
        """What is asked of a prompt beside new tokens."""
        ids, items = (prompt.ids, prompt.items) if isinstance(prompt, ChatPrompt) else (prompt, ())
        return showing(Request(check_ids(self.config, ids, items), 0, **wanted), items)

    def _submit(self, request: Request, text: TextStream | None) -> SequenceState:
        return self.engine.submit(request, None if text is None else text.push)

    def _events(self, request: Request, text: TextStream | None) -> Generator[Event, None, None]:
        sequence = self._submit(request, text)
        with blame(self.choice.backend):
            yield from self._engine.run(sequence)

    def _start(self, prepared: Prepared) -> Stream:
        return Stream(lambda: self._events(prepared.request, prepared.text), prepared.answer)

    def _prepared(
        self,
        ids: Iterable[int],
        options: GenerateOptions,
        new_tokens: int,
        prompt: ChatPrompt | None = None,
        items: tuple[Placed, ...] = (),
    ) -> Prepared:
        """A generation by the given options over the checkpoint's (Defaults.settle); the stop ids of a conversation's
        `prompt` are no text. `items` are what the ids show, and where."""
        numbers = check_ids(self.config, ids, items)
        parser, stop_ids = (None, ()) if prompt is None else (prompt.parser(), prompt.stop_ids)
        room = self.capacity + 1 - len(numbers)
        chosen = self.defaults.settle(options, room=room, new_tokens=new_tokens, stop_ids=stop_ids)
        settled = self._checked(chosen)
        text = TextStream(self.tokenizer, settled.stop, stop_ids)
        chat = None if prompt is None else (prompt, self.tokenizer)
        request = settled.request(numbers, self._located.known_ids, chat)
        return Prepared(showing(request, items), text, Answer(text, len(numbers), parser))

    def _checked(self, options: GenerateOptions) -> CheckedOptions:
        checked = check_options(self.config.eos_token_id, self.config.vocab_size, **options)
        if checked.reuse_after_change and self.target.deterministic:
            raise OptionError(
                "reuse_after_change makes an answer follow from what was asked before, and the model is deterministic",
                hint="Leave it out, or load the model without `deterministic`",
            )
        return checked

    def _ids(self, prompt: str | Iterable[int]) -> Iterable[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt

    def _batch(self, prompts: Iterable[str | Iterable[int]]) -> list[tuple[int, ...]]:
        """The ids of several prompts; PromptError for a text in place of several."""
        if isinstance(prompts, str):
            raise PromptError("one text in place of several", hint="Put it into a list, or use `generate`")
        return [check_ids(self.config, self._ids(prompt)) for prompt in prompts]


def _check_whole(finish: Finish | None) -> None:
    """OptionError when somebody else has ended a generation, whose caller is told nothing else."""
    if finish == "cancelled":
        raise OptionError(
            "another thread has ended this generation",
            hint="It closed the model, or was interrupted while it made a step for both",
        )


def _whole(stream: Stream) -> Generation:
    for _ in stream:
        pass
    return stream.generation
