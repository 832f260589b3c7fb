"""OpenAI's `/v1/chat/completions`, with what vLLM and its clients have added to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from ernie_rt_serve import attachments, body, events, routing
from ernie_rt_serve.access import caller
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.protocols import openai, tools
from ernie_rt_serve.protocols.openai_chat_answer import ChatAnswer
from ernie_rt_serve.service import Service
from ernie_rt_serve.task import Task

UNDONE: Final = openai.UNDONE | {
    "functions": "Use tools",
    "function_call": "Use tool_choice",
    "audio": "Answers are text",
    "prediction": "Leave it out",
    "web_search_options": "Give a tool that searches",
    "chat_template": "The model's own is used",
    "chat_template_kwargs": "reasoning_effort and thinking_budget say how long to think",
    "documents": "Put them into messages",
    "continue_final_message": "/v1/completions continues text",
    "prompt_embeds": "Prompts are text",
    "echo": "/v1/completions has it",
}


class Function(Struct, kw_only=True):
    name: tools.Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, kw_only=True):
    type: Literal["function"]
    function: Function


class FunctionName(Struct, kw_only=True):
    name: str


class ToolChoice(Struct, kw_only=True):
    type: Literal["function"]
    function: FunctionName


class CalledFunction(Struct, kw_only=True):
    name: str
    arguments: str | dict[str, Any] = "{}"


class Called(Struct, kw_only=True):
    function: CalledFunction
    id: str | None = None
    type: Literal["function"] = "function"


class ImageUrl(Struct, kw_only=True):
    """A picture as a data URI; of a `low` detail the model sees at most 256 tokens."""

    url: str
    detail: attachments.Detail | None = None


class VideoUrl(Struct, kw_only=True):
    """A video as a data URI."""

    url: str


class Part(Struct, kw_only=True):
    """A part of a message, of any type: the field of the same name must be there."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None
    video_url: VideoUrl | None = None


class ChatMessage(Struct, kw_only=True, omit_defaults=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Called] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class ChatBody(openai.Body, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: openai.Positive | None = None
    logprobs: bool | None = None
    top_logprobs: openai.TopLogprobs | None = None
    tools: Annotated[list[Tool], Meta(max_length=tools.MAX_TOOLS)] | None = None
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    thinking_budget: Annotated[int, Meta(ge=0)] | None = None

    def task(self) -> Task:
        if self.top_logprobs and not self.logprobs:
            raise Fault(400, "top_logprobs needs logprobs to be true", "top_logprobs")
        options = self.options(
            self.max_completion_tokens or self.max_tokens, (self.top_logprobs or 0) if self.logprobs else None
        )
        if self.thinking_budget is not None:
            options["thinking_budget"] = self.thinking_budget
        return Task(
            prompt=plain_messages(self.messages),
            tools=plain_tools(self.tools),
            tool_choice=_chosen(self),
            parallel_tool_calls=self.parallel_tool_calls is not False,
            format=self.format,
            options=options,
            effort=openai.EFFORTS.get(self.reasoning_effort or "") if self.thinking_budget is None else None,
            thinking=openai.thinking(self.reasoning_effort, self.thinking_budget),
            n=self.n or 1,
            priority=self.priority or 0,
        )


def _chosen(chat: ChatBody) -> tools.Choice:
    choice = chat.tool_choice or "auto"
    wanted = (choice.function.name,) if isinstance(choice, ToolChoice) else choice
    return tools.chosen(wanted, [tool.function.name for tool in chat.tools or ()])


def plain_messages(messages: Sequence[ChatMessage]) -> tuple[Mapping[str, Any], ...]:
    """As the core takes them, which knows no developers: they are the system."""
    return tuple(_plain(message, f"messages[{number}]") for number, message in enumerate(messages))


def _plain(message: ChatMessage, where: str) -> Mapping[str, Any]:
    content = message.content
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(message, content=None))
    if content is not None:
        parts = content if isinstance(content, str) else _parts(message.role, content, f"{where}.content")
        plain["content"] = parts
    return plain | {"role": "system"} if message.role == "developer" else plain


def _parts(role: str, parts: Sequence[Part], where: str) -> list[Any]:
    plain: list[Any] = []
    for number, part in enumerate(parts):
        if part.type == "text" and part.text is not None:  # of which there may be many
            plain.append({"type": "text", "text": part.text})
        else:
            plain.append(_medium(role, part, f"{where}[{number}]"))
    return plain


def _medium(role: str, part: Part, where: str) -> attachments.Attachment:
    if part.type in ("image_url", "video_url") and role != "user":
        raise Fault(400, f"{where}: pictures and videos are for messages of the user", where)
    match part:
        case Part(type="image_url", image_url=ImageUrl(url=url, detail=detail)):
            return attachments.from_url("image", url, where, detail)
        case Part(type="video_url", video_url=VideoUrl(url=url)):
            return attachments.from_url("video", url, where)
        case Part(type="text" | "image_url" | "video_url" as name):
            raise Fault(400, f"{where}: a part of type {name} without {name}", f"{where}.{name}")
    what = f"parts of type {part.type!a:.80} are not done here, only text, image_url and video_url"
    raise Fault(400, f"{where}: {what}", f"{where}.type")


def plain_tools(given: Sequence[Tool] | None) -> tuple[Mapping[str, Any], ...]:
    functions = [tool.function for tool in given or ()]
    return tuple(tools.function(each.name, each.description, each.parameters) for each in functions)


async def complete(request: Request, service: Service) -> Response:
    """Answer a conversation."""
    chat, headers = await body.read(request, ChatBody, service, UNDONE)
    service.check_model(chat.model)
    task = chat.task()
    who = caller(request, task.priority, chat.cache_salt)
    answers = await service.start(request, task, who=who)
    answer = ChatAnswer(openai.head(service, "chatcmpl"), service.served.model.tokenizer, task.parallel_tool_calls)
    if chat.stream:
        return await events.stream(request, answers, answer.events(answers, chat.wants_usage), openai.failed, headers)
    await events.whole(request, answers)
    return routing.json(answer.whole(answers), headers=headers)


ENTRIES = (routing.Entry("POST", "/v1/chat/completions", "key", complete, body=ChatBody, queued=True),)
