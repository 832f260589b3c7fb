"""The answers of `/v1/chat/completions`: whole, and as events."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ernie_rt import Generation, Piece, ToolCall
from ernie_rt.sampling.sampler import Logprobs
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt_serve.answers import Answers
from ernie_rt_serve.events import DONE, event
from ernie_rt_serve.protocols import openai


class ChatAnswer:
    """Writes the answers to one request."""

    def __init__(self, head: Mapping[str, Any], tokenizer: Tokenizer, parallel_tool_calls: bool) -> None:
        """`head` begins every body and event. Without `parallel_tool_calls` only the first of several is passed on."""
        self._head = head
        self._tokenizer = tokenizer
        self._most_calls = None if parallel_tool_calls else 1

    def whole(self, answers: Answers) -> dict[str, Any]:
        choices = [self._choice(index, generation) for index, generation in enumerate(answers.generations)]
        usage = openai.usage(answers.usage)
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    async def events(self, answers: Answers, wants_usage: bool) -> AsyncIterator[bytes]:
        called: Counter[int] = Counter()
        begun: set[int] = set()
        async for index, pieces in answers:
            if index not in begun:
                begun.add(index)
                yield self._chunk(index, {"role": "assistant", "content": ""})
            for delta, logprobs in self._deltas(pieces, called[index]):
                called[index] += len(delta.get("tool_calls", ()))
                yield self._chunk(index, delta, logprobs)
            finish = pieces[-1].finish
            if finish is not None:
                yield self._chunk(index, {}, finish=_finish(finish, called[index]))
        if wants_usage:
            usage = openai.usage(answers.usage)
            yield event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        yield DONE

    def _choice(self, index: int, generation: Generation) -> dict[str, Any]:
        calls = [_call(call) for call in generation.tool_calls[: self._most_calls]]
        message: dict[str, Any] = {"role": "assistant", "content": generation.text or (None if calls else "")}
        if generation.reasoning:
            message["reasoning_content"] = generation.reasoning
        if calls:
            message["tool_calls"] = calls
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(zip(generation.ids, generation.logprobs, strict=False)),
            "finish_reason": _finish(generation.finish, len(calls)),
        }

    def _deltas(self, pieces: Sequence[Piece], called: int) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        """What pieces add, each kind by itself, as clients expect it; log probabilities go with the text."""
        reasoning = "".join(piece.reasoning for piece in pieces)
        if reasoning:
            yield {"reasoning_content": reasoning}, None
        text = "".join(piece.text for piece in pieces)
        logprobs = self._logprobs((piece.id, piece.logprobs) for piece in pieces)
        if text or logprobs:
            yield {"content": text}, logprobs
        calls = [call for piece in pieces for call in piece.tool_calls]
        if self._most_calls is not None:
            calls = calls[: self._most_calls - called]
        if calls:
            yield {"tool_calls": [{"index": called + n, **_call(call)} for n, call in enumerate(calls)]}, None

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return event({**self._head, "object": "chat.completion.chunk", "choices": [choice]})

    def _logprobs(self, tokens: Iterable[tuple[int | None, Logprobs | None]]) -> dict[str, Any] | None:
        content = openai.logprobs(self._tokenizer, tokens)
        return {"content": content} if content else None


def _call(call: ToolCall) -> dict[str, Any]:
    """The call with an id of our own: what a model writes may be no id, or that of another call."""
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _finish(finish: str, calls: int) -> str:
    return "tool_calls" if calls and finish == "stop" else finish
