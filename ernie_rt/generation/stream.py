"""An answer: as it comes, and when it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn

from ernie_rt.errors import OptionError
from ernie_rt.runtime.sequence import Event, Finish
from ernie_rt.sampling.sampler import Logprobs
from ernie_rt.text.messages import Message, ToolCall
from ernie_rt.text.parsers import OutputParser, Part
from ernie_rt.text.stops import TextStream


@dataclass(frozen=True, slots=True)
class Piece:
    """What one more token adds: its id (None in a last piece that only ends), text, reasoning and tool calls.

    The text lags behind where it may be the beginning of a stop string or of a tag. `finish` says why the last piece is
    the last. `logprobs` are there when asked for.
    """

    id: int | None
    text: str
    finish: Finish | None
    logprobs: Logprobs | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer: text, ids, why it ended, and how long its parts took.

    The text ends before a stop string, the ids with the token that completes it. Reasoning and tool calls are told
    apart in answers of `chat`; `faults` say of what looks like a tool call, and is in the text, why it is none.
    `cached_tokens` of the prompt were in the cache already, from an earlier one that began likewise. `prefill_seconds`
    run up to the first token, `decode_seconds` from there to the last.
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
    faults: tuple[str, ...] = ()

    @property
    def message(self) -> Message:
        """The answer as the assistant's turn of a conversation."""
        return Message("assistant", self.text, self.reasoning or None, self.tool_calls)


class Stream(Iterator[Piece]):
    """Yields a Piece for every token. Nothing is computed until the first is asked for.

    Closing it early (`close`, or the end of its `with` block) frees its cache; `generation` is what came until then.
    """

    def __init__(
        self,
        events: Callable[[], Generator[Event, None, None]],
        text: TextStream,
        prompt_tokens: int,
        parser: OutputParser | None = None,
    ) -> None:
        """`events` begins the generation, whose tokens are pushed into `text`; `parser` tells its parts apart."""
        self._record = _Record(prompt_tokens)
        # The generator knows nothing of this object: a stream that is dropped, read or not, is closed at once.
        self._pieces = _run(events, text, parser, self._record)

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
        record = self._record
        pieces = record.pieces
        return Generation(
            text="".join(piece.text for piece in pieces),
            ids=tuple(piece.id for piece in pieces if piece.id is not None),
            finish=(pieces[-1].finish if pieces else None) or "cancelled",
            prompt_tokens=record.prompt_tokens,
            prefill_seconds=record.first - record.began,
            decode_seconds=record.last - record.first,
            logprobs=tuple(piece.logprobs for piece in pieces if piece.logprobs is not None),
            reasoning="".join(piece.reasoning for piece in pieces),
            tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
            cached_tokens=record.cached_tokens,
            faults=tuple(fault for piece in pieces for fault in piece.faults),
        )


@dataclass(slots=True)
class _Record:
    """What has come, and when: the beginning, the first piece, the last."""

    prompt_tokens: int
    cached_tokens: int = 0
    pieces: list[Piece] = field(default_factory=list)
    began: float = 0.0
    first: float = 0.0
    last: float = 0.0


def _run(
    events: Callable[[], Generator[Event, None, None]], text: TextStream, parser: OutputParser | None, record: _Record
) -> Generator[Piece, None, None]:
    record.began = record.first = record.last = time.perf_counter()
    with closing(events()) as source:
        for event in source:
            record.last = time.perf_counter()
            if not record.pieces:
                record.first = record.last
                record.cached_tokens = event.sequence.cached or 0
            record.pieces.append(_piece(event, text, parser))
            yield record.pieces[-1]


def _piece(event: Event, text: TextStream, parser: OutputParser | None) -> Piece:
    shown = "" if event.token is None else text.take()
    if event.finish:
        shown += text.flush()
    if parser is None:
        return Piece(event.token, shown, event.finish, event.logprobs)
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
    )


def _joined(parts: list[Part], kind: str) -> str:
    return "".join(part.text for part in parts if part.kind == kind)
