"""OpenAI's `/v1/completions`: texts or token ids, continued."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from ernie_rt import Piece
from ernie_rt.sampling.sampler import Logprobs
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt_serve import body, events, routing
from ernie_rt_serve.access import caller
from ernie_rt_serve.answers import Answers
from ernie_rt_serve.events import DONE, event
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.protocols import openai
from ernie_rt_serve.service import Service
from ernie_rt_serve.task import Task

MAX_PROMPTS: Final = 64
"""Of a request, and of its answers all together."""
NEW_TOKENS: Final = 16
"""What the protocol has for `max_tokens` where a request has none."""
UNDONE: Final = openai.UNDONE | {
    "suffix": "The model only continues text",
    "prompt_embeds": "Prompts are text or token ids",
    "prompt_logprobs": "Log probabilities are of new tokens",
}


class CompletionBody(openai.Body, kw_only=True):
    prompt: str | list[str | int | list[int]]
    logprobs: openai.TopLogprobs | None = None
    echo: bool | None = None

    def tasks(self) -> list[Task]:
        if self.echo and self.logprobs is not None:
            raise Fault(400, "echo and logprobs exclude each other: log probabilities are of new tokens", "logprobs")
        n, prompts = self.n or 1, self._prompts()
        if len(prompts) * n > MAX_PROMPTS:
            raise Fault(400, f"a request gets at most {MAX_PROMPTS} answers, to all of its prompts together", "prompt")
        options = self.options(self.max_tokens or NEW_TOKENS, self.logprobs)
        return [
            Task(prompt, format=self.format, options=options, n=n, priority=self.priority or 0) for prompt in prompts
        ]

    def _prompts(self) -> list[str | tuple[int, ...]]:
        """A text, several, token ids, or several of those."""
        given = self.prompt
        if isinstance(given, str):
            return [given]
        kinds = {type(prompt) for prompt in given}
        if kinds == {int}:
            return [tuple(id for id in given if isinstance(id, int))]
        if len(kinds) != 1 or len(given) > MAX_PROMPTS:
            message = f"prompt is neither text nor token ids, nor a list of up to {MAX_PROMPTS} of one of them"
            raise Fault(400, message, "prompt")
        return [prompt if isinstance(prompt, str) else tuple(prompt) for prompt in given if not isinstance(prompt, int)]


async def complete(request: Request, service: Service) -> Response:
    """Continue texts, or token ids."""
    completion, headers = await body.read(request, CompletionBody, service, UNDONE)
    service.check_model(completion.model)
    tasks = completion.tasks()
    tokenizer = service.served.model.tokenizer
    who = caller(request, tasks[0].priority, completion.cache_salt)
    answers = await service.start(request, *tasks, who=who)
    echoes = [_text(task, tokenizer) if completion.echo else "" for task in tasks for _ in range(task.n)]
    answer = CompletionAnswer(openai.head(service, "cmpl"), tokenizer, echoes)
    if completion.stream:
        written = answer.events(answers, completion.wants_usage)
        return await events.stream(request, answers, written, openai.failed, headers)
    await events.whole(request, answers)
    return routing.json(answer.whole(answers), headers=headers)


def _text(task: Task, tokenizer: Tokenizer) -> str:
    if isinstance(task.prompt, str):
        return task.prompt
    return tokenizer.decode(id for id in task.prompt if isinstance(id, int))


class CompletionAnswer:
    """Writes the answers to one request. `echoes` is what each begins with, "" for nothing."""

    def __init__(self, head: dict[str, Any], tokenizer: Tokenizer, echoes: Sequence[str]) -> None:
        self._head = {**head, "object": "text_completion"}
        self._tokenizer = tokenizer
        self._echoes = echoes
        self._offsets = [0] * len(echoes)

    def whole(self, answers: Answers) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "text": self._echoes[index] + answer.text,
                "logprobs": self._logprobs(index, list(zip(answer.ids, answer.logprobs, strict=False))),
                "finish_reason": answer.finish,
            }
            for index, answer in enumerate(answers.generations)
        ]
        return {**self._head, "choices": choices, "usage": openai.usage(answers.usage)}

    async def events(self, answers: Answers, wants_usage: bool) -> AsyncIterator[bytes]:
        begun: set[int] = set()
        async for index, pieces in answers:
            text = "".join(piece.text for piece in pieces)
            if index not in begun:
                begun.add(index)
                text = self._echoes[index] + text
            logprobs = self._logprobs(index, _scored(pieces))
            finish = pieces[-1].finish
            if text or logprobs or finish:
                choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
                yield event({**self._head, "choices": [choice]})
        if wants_usage:
            yield event({**self._head, "choices": [], "usage": openai.usage(answers.usage)})
        yield DONE

    def _logprobs(self, index: int, tokens: Sequence[tuple[int, Logprobs]]) -> dict[str, Any] | None:
        if not tokens:
            return None
        texts = [self._token(id) for id, _ in tokens]
        offsets = []
        for text in texts:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [openai.finite(logprobs.chosen) for _, logprobs in tokens],
            "top_logprobs": [
                {self._token(id): openai.finite(logprob) for id, logprob in logprobs.top} for _, logprobs in tokens
            ],
            "text_offset": offsets,
        }

    def _token(self, id: int) -> str:
        return openai.token_text(self._tokenizer, id)[0]


def _scored(pieces: Sequence[Piece]) -> list[tuple[int, Logprobs]]:
    return [(piece.id, piece.logprobs) for piece in pieces if piece.id is not None and piece.logprobs is not None]


ENTRIES = (routing.Entry("POST", "/v1/completions", "key", complete, body=CompletionBody, queued=True),)
