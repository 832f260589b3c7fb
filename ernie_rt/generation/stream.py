"""An answer: as it comes, and when it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn

from ernie_rt.errors import OptionError
from ernie_rt.generation.asked import Asked
from ernie_rt.runtime.sequence import Event, Finish, SequenceState
from ernie_rt.sampling.sampler import Logprobs
from ernie_rt.text.messages import Message, ToolCall
from ernie_rt.text.parsers import OutputParser, Part
from ernie_rt.text.stops import TextStream


@dataclass(frozen=True, slots=True)
class Piece:
    """What one more token adds: its id (None in a last piece that only ends), text, reasoning and tool calls.

    The text lags behind where it may be the beginning of a stop string or of a tag. `finish` says why the last piece is
    the last; `stopped` is the stop string that came, in the last piece. `logprobs` are there when asked for.
    """

    id: int | None
    text: str
    finish: Finish | None
    logprobs: Logprobs | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    faults: tuple[str, ...] = ()
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer: text, ids, why it ended, and how long its parts took.

    The text ends before a stop string, which is `stopped`, the ids with the token that completes it. Reasoning and
    tool calls are told apart in answers of `chat`; `faults` say of what looks like a tool call, and is in the text, why
    it is none. `cached_tokens` of the prompt were in the cache already, from an earlier one that began likewise, and
    `reused_after_change` more, behind a change, for who asked for that; `not_cached` says in words why the rest of the
    prompt was computed, and is empty where nothing but its last token was. `prefill_seconds` run up to the first token,
    the time in a queue included, `decode_seconds` from there to the last. `asked` is what it answers, None where
    nothing came.
    """

    text: str
    ids: tuple[int, ...]
    finish: Finish
    prompt_tokens: int
    prefill_seconds: float
    decode_seconds: float
    logprobs: tuple[Logprobs, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    cached_tokens: int = 0
    reused_after_change: int = 0
    not_cached: str = ""
    faults: tuple[str, ...] = ()
    stopped: str = ""
    asked: Asked | None = field(default=None, repr=False)

    @property
    def message(self) -> Message:
        """The answer as the assistant's turn of a conversation."""
        return Message("assistant", self.text, self.reasoning or None, self.tool_calls)


class Answer:
    """An answer as it comes about: it takes events in and gives pieces out."""

    def __init__(self, text: TextStream, prompt_tokens: int, parser: OutputParser | None = None) -> None:
        """Tokens are pushed into `text` as they come; `parser` tells the parts of the answer apart."""
        self._text = text
        self._parser = parser
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = self._reused_after_change = 0
        self._not_cached = ""
        self._pieces: list[Piece] = []
        self._sequence: SequenceState | None = None
        self.begin()

    def begin(self) -> None:
        """Time counts from now."""
        self._began = self._first = self._last = time.perf_counter()

    def take(self, event: Event) -> Piece:
        """The piece that an event adds."""
        self._last = time.perf_counter()
        if not self._pieces:
            self._first = self._last
            self._cached_tokens = event.sequence.cached or 0
            self._reused_after_change = event.sequence.cached_after_change
            self._not_cached = event.sequence.not_cached
            self._sequence = event.sequence
        self._pieces.append(_piece(event, self._text, self._parser))
        return self._pieces[-1]

    @property
    def generation(self) -> Generation:
        """What has come so far; its `finish` is "cancelled" where the end has not."""
        pieces = self._pieces
        return Generation(
            text="".join(piece.text for piece in pieces),
            ids=tuple(piece.id for piece in pieces if piece.id is not None),
            finish=(pieces[-1].finish if pieces else None) or "cancelled",
            prompt_tokens=self._prompt_tokens,
            prefill_seconds=self._first - self._began,
            decode_seconds=self._last - self._first,
            logprobs=tuple(piece.logprobs for piece in pieces if piece.logprobs is not None),
            reasoning="".join(piece.reasoning for piece in pieces),
            tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
            cached_tokens=self._cached_tokens,
            reused_after_change=self._reused_after_change,
            not_cached=self._not_cached,
            faults=tuple(fault for piece in pieces for fault in piece.faults),
            stopped=pieces[-1].stopped if pieces else "",
            asked=None if self._sequence is None else Asked.of(self._sequence, self._text.stops),
        )


class Stream(Iterator[Piece]):
    """Yields a Piece for every token. Nothing is computed until the first is asked for.

    Closing it early (`close`, or the end of its `with` block) frees its cache; `generation` is what came until then.
    """

    def __init__(self, events: Callable[[], Generator[Event, None, None]], answer: Answer) -> None:
        """`events` begins the generation."""
        self._answer = answer
        # The generator knows nothing of this object: a stream that is dropped, read or not, is closed at once.
        self._pieces = _run(events, answer)

    def __next__(self) -> Piece:
        return next(self._pieces)

    def __reduce__(self) -> NoReturn:
        raise OptionError(
            "a stream cannot be copied or sent to another process",
            hint="What has come of it can be sent: its pieces, and `generation`",
        )

    def close(self) -> None:
        self._pieces.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def generation(self) -> Generation:
        """What has come so far; its `finish` is "cancelled" where the end has not."""
        return self._answer.generation


def _run(events: Callable[[], Generator[Event, None, None]], answer: Answer) -> Generator[Piece, None, None]:
    answer.begin()
    with closing(events()) as source:
        for event in source:
            yield answer.take(event)


def _piece(event: Event, text: TextStream, parser: OutputParser | None) -> Piece:
    shown = "" if event.token is None else text.take()
    if event.finish:
        shown += text.flush()
    stopped = text.stopped if event.finish else ""
    if parser is None:
        return Piece(event.token, shown, event.finish, event.logprobs, stopped=stopped)
    parts = parser.push(shown)
    if event.finish:
        parts += parser.flush()
    return Piece(
        event.token,
        _joined(parts, "text"),
        event.finish,
        event.logprobs,
        _joined(parts, "reasoning"),
        tuple(part.call for part in parts if part.call is not None),
        tuple(part.fault for part in parts if part.fault),
        stopped,
    )


def _joined(parts: list[Part], kind: str) -> str:
    return "".join(part.text for part in parts if part.kind == kind)
