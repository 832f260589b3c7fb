"""Anthropic's `/v1/messages`: an answer as its events, and as a whole; and errors."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ernie_rt import Piece
from ernie_rt_serve.answers import Usage
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.protocols.blocks import Block, Blocks, Kind
from ernie_rt_serve.protocols.typed_events import Event

SIGNATURE: Final = "unsigned"
"""Clients send thinking back with its signature, and some drop it where that is empty. Nobody checks it here."""
DELTAS: Final[Mapping[Kind, tuple[str, str]]] = {
    "reasoning": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "tool_call": ("input_json_delta", "partial_json"),
}
"""What more of a block is called, and the field that has it."""
ERRORS: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "overloaded_error",
    503: "overloaded_error",
}
"""The types of errors by their status; of others below 500 the request is to blame, and above it the server."""


class MessageAnswer:
    """One message, as a TypedAnswer."""

    def __init__(self, model: str, max_tokens: int, blocks: Blocks, usage: Callable[[], Usage]) -> None:
        self._id = uuid.uuid4().hex
        self._model = model
        self._max_tokens = max_tokens
        self._blocks = blocks
        self._usage = usage
        self._last: Piece | None = None

    def begin(self) -> Iterator[Event]:
        yield {"type": "message_start", "message": self._message()}
        yield {"type": "ping"}

    def push(self, piece: Piece) -> Iterator[Event]:
        self._last = piece
        for change in self._blocks.push(piece):
            block = change.block
            match change.what:
                case "begun":
                    content = self._content(block, whole=False)
                    yield {"type": "content_block_start", "index": block.index, "content_block": content}
                case "grown":
                    name, field = DELTAS[block.kind]
                    yield _delta(block, {"type": name, field: change.text})
                case "ended":
                    if block.kind == "reasoning":
                        yield _delta(block, {"type": "signature_delta", "signature": SIGNATURE})
                    yield {"type": "content_block_stop", "index": block.index}

    def end(self) -> Iterator[Event]:
        yield {"type": "message_delta", "delta": self._stop(), "usage": _usage(self._usage())}
        yield {"type": "message_stop"}

    def fail(self, fault: Fault) -> Iterator[Event]:
        yield anthropic_error(fault)

    def body(self) -> dict[str, Any]:
        content = [self._content(block, whole=True) for block in self._blocks.all]
        return self._message() | {"content": content} | self._stop()

    def _stop(self) -> dict[str, Any]:
        """Why the message ends."""
        last = self._last
        if last is not None and last.stopped:
            return {"stop_reason": "stop_sequence", "stop_sequence": last.stopped}
        if last is not None and last.finish == "stop":
            return {"stop_reason": "tool_use" if self._blocks.calls else "end_turn", "stop_sequence": None}
        full = self._usage().answer_tokens < self._max_tokens
        return {"stop_reason": "model_context_window_exceeded" if full else "max_tokens", "stop_sequence": None}

    def _message(self) -> dict[str, Any]:
        """The message before anything is in it."""
        return {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(self._usage()),
        }

    def _content(self, block: Block, *, whole: bool) -> dict[str, Any]:
        """A block as it is once it is `whole`, or when it begins."""
        text = block.text if whole else ""
        if block.kind == "reasoning":
            return {"type": "thinking", "thinking": text, "signature": SIGNATURE if whole else ""}
        if block.call is None:
            return {"type": "text", "text": text}
        input = dict(block.call.arguments) if whole else {}
        return {"type": "tool_use", "id": f"toolu_{self._id}_{block.index}", "name": block.call.name, "input": input}


def anthropic_error(fault: Fault) -> dict[str, Any]:
    """`{"type": "error", "error": {"type", "message"}}`."""
    kind = ERRORS.get(fault.status, "invalid_request_error" if fault.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": fault.message}}


def _delta(block: Block, delta: dict[str, Any]) -> Event:
    return {"type": "content_block_delta", "index": block.index, "delta": delta}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        **usage.cache,
        "output_tokens": usage.answer_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
