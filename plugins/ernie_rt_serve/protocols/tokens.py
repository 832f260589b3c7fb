"""`/tokenize` and `/detokenize`, in the shapes of vLLM."""

from __future__ import annotations

import asyncio
from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from ernie_rt.text.chat import ChatPrompt
from ernie_rt_serve import body, routing
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.protocols.openai_chat import ChatMessage, Tool, plain_messages, plain_tools
from ernie_rt_serve.service import Service
from ernie_rt_serve.task import Task

UNDONE = {
    "chat_template": "The model's own is used",
    "chat_template_kwargs": "Leave it out",
    "continue_final_message": "Leave it out",
}


class TokenizeBody(Struct, kw_only=True):
    """A text, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1)] | None = None
    tools: list[Tool] | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Struct, kw_only=True):
    model: str | None = None
    tokens: list[int]


async def tokenize(request: Request, service: Service) -> Response:
    """The token ids of a text, or of a conversation."""
    asked, headers = await body.read(request, TokenizeBody, service, UNDONE)
    service.check_model(asked.model)
    if (asked.prompt is None) == (asked.messages is None):
        raise Fault(400, "a prompt is wanted, or messages, and not both", "prompt")
    if asked.messages is None:
        task = Task(asked.prompt or "")
    else:
        task = Task(plain_messages(asked.messages), tools=plain_tools(asked.tools))
    prompt = await service.prompt(request, task)
    ids = prompt.ids if isinstance(prompt, ChatPrompt) else prompt
    model = service.served.model
    told: dict[str, object] = {"count": len(ids), "max_model_len": model.capacity, "tokens": ids}
    if asked.return_token_strs:
        told["token_strs"] = [model.tokenizer.pieces[id].decode("utf-8", "replace") for id in ids]
    return routing.json(told, headers=headers)


async def detokenize(request: Request, service: Service) -> Response:
    """The text of token ids."""
    asked, headers = await body.read(request, DetokenizeBody, service)
    service.check_model(asked.model)
    tokenizer = service.served.model.tokenizer
    most = len(tokenizer.pieces) - 1
    if any(not 0 <= id <= most for id in asked.tokens):
        raise Fault(400, f"a token id outside the vocabulary; expected 0 to {most}", "tokens")
    return routing.json({"prompt": await asyncio.to_thread(tokenizer.decode, asked.tokens, False)}, headers=headers)


ENTRIES = (
    routing.Entry("POST", "/tokenize", "key", tokenize, body=TokenizeBody),
    routing.Entry("POST", "/detokenize", "key", detokenize, body=DetokenizeBody),
)
