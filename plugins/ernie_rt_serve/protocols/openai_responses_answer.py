"""OpenAI's `/v1/responses`: an answer as its events, and as a whole."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from ernie_rt import Piece
from ernie_rt_serve.answers import Usage
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.protocols.blocks import Block, Blocks, Change
from ernie_rt_serve.protocols.typed_events import Event

Logprobs = Callable[[Iterable[Piece]], list[dict[str, Any]]]
"""The log probabilities of tokens as OpenAI spells them."""

CODES: Final[Mapping[int, str]] = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
"""The code of a failed response by the status of its fault; others are the server's."""


class ResponseAnswer:
    """One response, as a TypedAnswer."""

    def __init__(self, head: Mapping[str, Any], blocks: Blocks, usage: Callable[[], Usage], logprobs: Logprobs) -> None:
        """`head` is what the response has beside its answer."""
        self._id = uuid.uuid4().hex
        self._head = {"id": f"resp_{self._id}", **head}
        self._blocks = blocks
        self._usage = usage
        self._logprobs = logprobs
        self._finish: str | None = None
        self._sent = 0

    def begin(self) -> Iterator[Event]:
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", response=self._response("in_progress", output=[]))

    def push(self, piece: Piece) -> Iterator[Event]:
        self._finish = piece.finish
        for change in self._blocks.push(piece):
            match change.what:
                case "begun":
                    yield from self._begun(change.block)
                case "grown":
                    yield self._grown(change)
                case "ended":
                    yield from self._ended(change.block)

    def end(self) -> Iterator[Event]:
        body = self.body()
        yield self._event(f"response.{body['status']}", response=body)

    def fail(self, fault: Fault) -> Iterator[Event]:
        list(self._blocks.end(cut=True))
        error = {"code": CODES.get(fault.status, "server_error"), "message": fault.message}
        response = self._response("failed", error=error, output=self._output())
        yield self._event("response.failed", response=response)

    def body(self) -> dict[str, Any]:
        usage, whole = self._usage(), self._finish == "stop"
        return self._response(
            "completed" if whole else "incomplete",
            incomplete_details=None if whole else {"reason": "max_output_tokens"},
            output=self._output(),
            usage={
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0, **usage.cache},
                "output_tokens": usage.answer_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                "total_tokens": usage.prompt_tokens + usage.answer_tokens,
            },
        )

    def _begun(self, block: Block) -> Iterator[Event]:
        yield self._event("response.output_item.added", output_index=block.index, item=self._item(block, begun=True))
        if block.call is None:
            yield self._event("response.content_part.added", **self._place(block), part=self._part(block, ""))

    def _grown(self, change: Change) -> Event:
        place = self._place(change.block)
        match change.block.kind:
            case "reasoning":
                return self._event("response.reasoning_text.delta", **place, delta=change.text)
            case "text":
                logprobs = self._logprobs(change.tokens)
                return self._event("response.output_text.delta", **place, delta=change.text, logprobs=logprobs)
            case "tool_call":
                return self._event("response.function_call_arguments.delta", **place, delta=change.text)

    def _ended(self, block: Block) -> Iterator[Event]:
        place, text = self._place(block), block.text
        match block.kind:
            case "reasoning":
                yield self._event("response.reasoning_text.done", **place, text=text)
            case "text":
                logprobs = self._logprobs(block.tokens)
                yield self._event("response.output_text.done", **place, text=text, logprobs=logprobs)
            case "tool_call":
                yield self._event("response.function_call_arguments.done", **place, arguments=text)
        if block.call is None:
            yield self._event("response.content_part.done", **place, part=self._part(block, text))
        yield self._event("response.output_item.done", output_index=block.index, item=self._item(block))

    def _event(self, type: str, **fields: Any) -> Event:
        self._sent += 1
        return {"type": type, "sequence_number": self._sent - 1, **fields}

    def _place(self, block: Block) -> dict[str, Any]:
        """Where an event about a block belongs."""
        place = {"item_id": self._item_id(block), "output_index": block.index}
        return place if block.call is not None else place | {"content_index": 0}

    def _item_id(self, block: Block) -> str:
        prefix = {"reasoning": "rs", "text": "msg", "tool_call": "fc"}[block.kind]
        return f"{prefix}_{self._id}_{block.index}"

    def _output(self) -> list[dict[str, Any]]:
        return [self._item(block) for block in self._blocks.all]

    def _item(self, block: Block, *, begun: bool = False) -> dict[str, Any]:
        """A block as an item of the output; one that has only `begun` holds nothing yet."""
        status = "in_progress" if begun else "incomplete" if block.cut else "completed"
        item = {"id": self._item_id(block), "status": status}
        content = [] if begun else [self._part(block, block.text)]
        if block.kind == "reasoning":
            return item | {"type": "reasoning", "summary": [], "content": content}
        if block.call is None:
            return item | {"type": "message", "role": "assistant", "content": content}
        return item | {
            "type": "function_call",
            "call_id": f"call_{self._id}_{block.index}",
            "name": block.call.name,
            "arguments": "" if begun else block.text,
        }

    def _part(self, block: Block, text: str) -> dict[str, Any]:
        if block.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        logprobs = self._logprobs(block.tokens) if text else []
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _response(
        self,
        status: str,
        *,
        output: list[dict[str, Any]],
        error: dict[str, Any] | None = None,
        incomplete_details: dict[str, Any] | None = None,
        usage: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {
            **self._head,
            "status": status,
            "error": error,
            "incomplete_details": incomplete_details,
            "output": output,
            "usage": usage,
        }
