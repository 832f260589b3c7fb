"""From what a request asks for to the answers of a model."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from ernie_rt import AsyncModel, AsyncStream, Caller
from ernie_rt.errors import PromptError
from ernie_rt.generation.options import GenerateOptions
from ernie_rt.text.chat import ChatPrompt
from ernie_rt_serve.answers import Answer, Answers, Observer
from ernie_rt_serve.task import Task

if TYPE_CHECKING:
    from ernie_rt_serve.grammars import Grammars

Prompt = ChatPrompt | tuple[int, ...]
"""What a model answers, or continues: token ids, and for a conversation how to read the answer."""


class Dispatcher:
    """Starts what requests ask for. All of its work that takes time is done in threads, beside the event loop."""

    def __init__(self, served: AsyncModel, observer: Observer | None = None) -> None:
        self._served = served
        self._observer = observer
        self._lock = threading.Lock()
        self._made: Grammars | None = None

    def close(self) -> None:
        """End what compiles grammars."""
        if self._made is not None:
            self._made.close()

    async def prompt(self, task: Task) -> Prompt:
        """The prompt of a task as a model takes it. PromptError, or what a chat template raises."""
        return await asyncio.to_thread(self._prompt, task)

    async def start(self, *tasks: Task, caller: Caller) -> Answers:
        """Queue tasks: `n` answers to each, in order. Use what it gives in a `with` block.

        Raises what `AsyncModel.chat` does; nothing of the request stays queued then.
        """
        self._served.check_room()
        answers: list[Answer] = []
        try:
            for task in tasks:
                prompt, options = await asyncio.to_thread(self._prepare, task)
                first: AsyncStream | None = None
                for number in range(task.n):
                    stream = self._queue(prompt, _nth(options, number), caller, first)
                    answers.append(Answer(stream, leads=first is None, observer=self._observer))
                    first = first or stream
        except BaseException:
            for answer in answers:
                answer.end()
            raise
        return Answers(answers)

    def _prepare(self, task: Task) -> tuple[Prompt, GenerateOptions]:
        options = GenerateOptions(**task.options)
        if task.format is not None or task.tool_choice not in ("auto", "none"):
            from ernie_rt_serve.structured import constraint

            options["constraint"] = constraint(task, self._grammars())
        return self._prompt(task), options

    def _grammars(self) -> Grammars:
        """Made when first needed: most servers never need it."""
        from ernie_rt_serve.grammars import Grammars

        with self._lock:
            if self._made is None:
                self._made = Grammars(self._served.model.tokenizer)
            return self._made

    def _prompt(self, task: Task) -> Prompt:
        model, prompt = self._served.model, task.prompt
        if isinstance(prompt, str):
            return tuple(model.tokenizer.encode(prompt))
        if not prompt or isinstance(prompt[0], int):
            return prompt
        if model.template is None:
            raise PromptError("the model has no chat template", hint="/v1/completions continues plain text")
        tools = () if task.tool_choice == "none" else task.tools
        return model.template.prompt(prompt, model.tokenizer, tools)

    def _queue(self, prompt: Prompt, options: GenerateOptions, caller: Caller, like: AsyncStream | None) -> AsyncStream:
        if isinstance(prompt, ChatPrompt):
            return self._served.chat(prompt, caller=caller, like=like, **options)
        return self._served.generate(prompt, caller=caller, like=like, **options)


def _nth(options: GenerateOptions, number: int) -> GenerateOptions:
    """The options of one of several answers: they differ in what they draw, by seeds that follow one another."""
    seed = options.get("seed")
    return options if seed is None else options | {"seed": (seed + number) % 2**64}
