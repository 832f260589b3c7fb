"""From what a request asks for to the answers of a model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from ernie_rt import AsyncModel, AsyncStream, Caller
from ernie_rt.errors import ContextError, PromptError
from ernie_rt.generation.options import GenerateOptions
from ernie_rt.text.chat import ChatPrompt
from ernie_rt.text.media import Media
from ernie_rt_serve.answers import Answer, Answers, Observer
from ernie_rt_serve.decoding import Decoders
from ernie_rt_serve.task import Task
from ernie_rt_serve.turns import Turns

if TYPE_CHECKING:
    from ernie_rt.generation.constrained import ToolCalls
    from ernie_rt.sampling.constraint import Constraint
    from ernie_rt_serve.grammars import Grammars

Prompt = ChatPrompt | tuple[int, ...]
"""What a model answers, or continues: token ids, and for a conversation how to read the answer."""
Hold = Callable[[int], None]
"""Told how many bytes a request has come to take besides its body; raises a Fault where that is too much."""

COMPILERS: Final = 2
"""Threads that compile grammars: what a stranger's takes holds up others, and no request without one."""
COMPILED_OF_EACH: Final = 1
PREPARED_OF_EACH: Final = 2
"""Grammars that are compiled, and prompts that are encoded, at once of one tenant."""
SPARE: Final = 4
"""What so many times the context could not hold is not encoded to find that out. A template may leave out some text."""


class Dispatcher:
    """Starts what requests ask for. All of its work that takes time is done in threads, beside the event loop."""

    def __init__(self, served: AsyncModel, observer: Observer | None = None) -> None:
        self._served = served
        self._observer = observer
        self._coming = 0  # answers that were asked for, and are not queued yet
        self._compilers = ThreadPoolExecutor(COMPILERS, "grammars")
        self._decoders = Decoders(served.model.reader)
        self._compiling, self._preparing = Turns(COMPILED_OF_EACH), Turns(PREPARED_OF_EACH)
        self._longest_piece = max(map(len, served.model.tokenizer.pieces))
        self._lock = threading.Lock()
        self._made: Grammars | None = None

    def close(self) -> None:
        """End what compiles grammars and decodes pictures."""
        self._compilers.shutdown(cancel_futures=True)
        self._decoders.close()
        if self._made is not None:
            self._made.close()

    def check_room(self) -> None:
        """Raise the OverloadError that a request would meet now, behind all that are on their way."""
        self._served.check_room(self._coming)

    async def prompt(self, task: Task, caller: Caller, hold: Hold) -> Prompt:
        """The prompt of a task as a model takes it. PromptError, or what a chat template raises."""
        task = await self._decoded(task, caller, hold)
        async with self._preparing.of(caller.tenant):
            return await asyncio.to_thread(self._prompt, task)

    async def start(self, *tasks: Task, caller: Caller, hold: Hold) -> Answers:
        """Queue tasks: `n` answers to each, in order. Use what it gives in a `with` block.

        Raises what `AsyncModel.chat` does; nothing of the request stays queued then.
        """
        self.check_room()
        answers: list[Answer] = []
        coming = sum(task.n for task in tasks)
        self._coming += coming
        try:
            for task in tasks:
                task = await self._decoded(task, caller, hold)
                async with self._preparing.of(caller.tenant):
                    prompt, options = await asyncio.to_thread(self._prepare, task)
                if task.format is not None or task.tool_choice not in ("auto", "none"):
                    loop = asyncio.get_running_loop()
                    async with self._compiling.of(caller.tenant):
                        options["constraint"] = await loop.run_in_executor(self._compilers, self._constraint, task)
                first: AsyncStream | None = None
                for number in range(task.n):
                    stream = self._queue(prompt, _nth(options, number), caller, first)
                    self._coming, coming = self._coming - 1, coming - 1
                    answers.append(Answer(stream, leads=first is None, observer=self._observer))
                    first = first or stream
        except BaseException:
            for answer in answers:
                answer.end()
            raise
        finally:
            self._coming -= coming
        return Answers(answers)

    async def _decoded(self, task: Task, caller: Caller, hold: Hold) -> Task:
        """The task with pictures and videos in place of their files, if it has any.

        They are decoded one by one, so that none is from the one on that is too long for the context.
        """
        parts, tokens = [], 0
        for each in task.attachments:
            item = await self._decoders.decode(each, caller, partial(self._check_fits, each.where, tokens))
            hold(item.frames.nbytes)
            if self._observer is not None:
                self._observer.decoded(item.kind)
            parts.append(Media(item.kind, item))
            tokens += item.tokens
        return task.with_media(parts) if parts else task

    def _check_fits(self, where: str, before: int, tokens: int) -> None:
        room = self._served.model.capacity
        if before + tokens > room:
            raise ContextError(
                "the pictures and videos alone are longer than the context", where=where,
                expected=f"at most {room:,} tokens", found=f"{before + tokens:,} up to this one",
                hint="Send fewer, or smaller ones",
            )  # fmt: skip

    def _check_length(self, task: Task) -> None:
        """Long text takes seconds to encode: what is hopeless is refused before."""
        room, characters = self._served.model.capacity, task.characters
        if max(characters / self._longest_piece, len(task.messages)) > SPARE * room:
            raise ContextError(
                "the prompt is far longer than the context", expected=f"at most {room:,} tokens",
                found=f"{characters:,} characters", hint="Shorten the prompt, or raise max_context",
            )  # fmt: skip

    def _prepare(self, task: Task) -> tuple[Prompt, GenerateOptions]:
        self._check_length(task)
        options, prompt = GenerateOptions(**task.options), self._prompt(task)
        if task.up_to is not None:
            ids = prompt.ids if isinstance(prompt, ChatPrompt) else prompt
            options["max_new_tokens"] = max(1, min(task.up_to, self._served.model.capacity + 1 - len(ids)))
        if isinstance(prompt, ChatPrompt) and prompt.thinking and task.effort is not None:
            options["thinking_budget"] = task.effort
        if options.get("thinking_budget") == 0 and self._switches:  # and so the prompt has it
            del options["thinking_budget"]
        return prompt, options

    def _constraint(self, task: Task) -> Constraint | ToolCalls | None:
        from ernie_rt_serve.structured import constraint

        return constraint(task, self._grammars())

    def _grammars(self) -> Grammars:
        """Made when first needed: most servers never need it."""
        from ernie_rt_serve.grammars import Grammars

        with self._lock:
            if self._made is None:
                self._made = Grammars(self._served.model.tokenizer)
            return self._made

    def _prompt(self, task: Task) -> Prompt:
        model = self._served.model
        if isinstance(task.prompt, str):
            return tuple(model.tokenizer.encode(task.prompt))
        messages = task.messages
        if not messages:
            return tuple(id for id in task.prompt if isinstance(id, int))
        if model.template is None:
            raise PromptError("the model has no chat template", hint="/v1/completions continues plain text")
        tools = () if task.tool_choice == "none" else task.tools
        return model.prompt(messages, tools, thinking=task.thinking if self._switches else None)

    @property
    def _switches(self) -> bool:
        """Whether a prompt can say if the answer begins with reasoning."""
        template = self._served.model.template
        return template is not None and template.switches

    def _queue(self, prompt: Prompt, options: GenerateOptions, caller: Caller, like: AsyncStream | None) -> AsyncStream:
        if isinstance(prompt, ChatPrompt):
            return self._served.chat(prompt, caller=caller, like=like, **options)
        return self._served.generate(prompt, caller=caller, like=like, **options)


def _nth(options: GenerateOptions, number: int) -> GenerateOptions:
    """The options of one of several answers: they differ in what they draw, by seeds that follow one another."""
    seed = options.get("seed")
    return options if seed is None else options | {"seed": (seed + number) % 2**64}
