"""What a server's routes share: the model once it is loaded, how the server fares, what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Final

from starlette.requests import Request

from ernie_rt import AsyncModel, Caller, __version__
from ernie_rt.errors import OverloadError
from ernie_rt_serve.access import caller
from ernie_rt_serve.answers import Answers
from ernie_rt_serve.dispatch import Dispatcher, Prompt
from ernie_rt_serve.events import unless_gone
from ernie_rt_serve.faults import Fault, fault_of
from ernie_rt_serve.metrics import Metrics
from ernie_rt_serve.settings import Settings
from ernie_rt_serve.task import Task

FAILURES: Final = 3
FAILURE_SECONDS: Final = 10.0
"""After so many failures within so many seconds the server is not ready, until they have passed."""

log = logging.getLogger("ernie_rt_serve")


class Service:
    """One model on its way through loading, serving and draining."""

    def __init__(self, served: AsyncModel | None, settings: Settings) -> None:
        """Without `served` it is loading until `open` is called."""
        self.settings = settings
        self.metrics = Metrics(settings.model)
        self.began = int(time.time())
        self.draining = False
        self.parsing = asyncio.Lock()
        """Held by who parses a long body."""
        self.held = 0
        """Bytes that requests hold which are not answered yet: of their bodies, and of what these were decoded into."""
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._model: tuple[AsyncModel, Dispatcher] | None = None
        if served is not None:
            self.open(served)

    def open(self, served: AsyncModel) -> None:
        """The model is loaded, and running."""
        self._model = served, Dispatcher(served, self.metrics)
        self.metrics.observe(served)

    def close(self) -> None:
        """The model is about to end."""
        if self._model is not None:
            self._model[1].close()

    @property
    def served(self) -> AsyncModel:
        """The model; a Fault while it loads."""
        return self._loaded()[0]

    @property
    def dispatcher(self) -> Dispatcher:
        """What starts tasks; a Fault while the model loads."""
        return self._loaded()[1]

    @property
    def sees(self) -> bool:
        """Whether the model takes in pictures and videos."""
        return self._model is not None and self.served.model.reader is not None

    @property
    def body_bytes(self) -> int:
        """How long a body may be."""
        return self.settings.longest_body(self.sees)

    @property
    def fingerprint(self) -> str:
        """Differs where the same request may be answered otherwise."""
        choice = self.served.model.choice
        told = f"{__version__} {self.settings.model} {choice.backend} {choice.device} {choice.dtype}"
        return f"fp_{hashlib.sha256(told.encode()).hexdigest()[:10]}"

    @property
    def unready(self) -> str | None:
        """Why no requests should be sent here now, if they should not."""
        if self._model is None:
            return "loading"
        if self.draining:
            return "draining"
        if len(self._failures) == FAILURES and time.monotonic() - self._failures[0] < FAILURE_SECONDS:
            return "failing"
        return None

    def check_model(self, name: str | None) -> None:
        """A Fault for a name that is not the model's."""
        if name is not None and name != self.settings.model:
            message = f"There is no such model here: ask for {self.settings.model!r}, or leave the name out"
            raise Fault(404, message, "model", "model_not_found")

    async def start(self, request: Request, *tasks: Task, who: Caller) -> Answers:
        """Queue what a request asks for, as `Dispatcher.start` has it; ClientGone where nobody waits for it."""
        self._check_attachments(tasks)
        started = self.dispatcher.start(*tasks, caller=who, hold=partial(self.hold, request))
        return await unless_gone(request.receive, started)

    async def prompt(self, request: Request, task: Task) -> Prompt:
        """The prompt of a task, as `Dispatcher.prompt` has it; ClientGone where nobody waits for it."""
        self._check_attachments([task])
        prompt = self.dispatcher.prompt(task, caller(request), partial(self.hold, request))
        return await unless_gone(request.receive, prompt)

    def hold(self, request: Request, size: int) -> None:
        """Count what a request brings, until `let_go`; a Fault where it, or all of them together, bring too much."""
        most, before = self.settings.most_held(self.sees), getattr(request.state, "held", 0)
        if before + size > most:
            message = f"The request, and what the pictures and videos in it become, is longer than {most:,} bytes"
            raise Fault(413, message, code="body_too_large", headers={"Connection": "close"})
        if self.held + size > most:
            message = f"All requests here together hold more than {most:,} bytes"
            raise Fault(429, message, code="bodies_too_large", headers={"Retry-After": "1", "Connection": "close"})
        self.held += size
        request.state.held = before + size

    def let_go(self, request: Request) -> None:
        """What a request has brought is no longer needed."""
        self.held -= getattr(request.state, "held", 0)
        request.state.held = 0

    def fault(self, id: str, error: Exception, prompt: str | None = None) -> Fault:
        """The fault that an error is to the request of that id, whose prompt is in the field `prompt`; what is the
        server's own is written to its log."""
        fault = fault_of(error, prompt)
        if isinstance(error, OverloadError):
            self.metrics.refused(error.reason)
        if fault.status == 500:
            self._failures.append(time.monotonic())
            log.error("request %s failed", id, exc_info=error)
        return fault

    def _check_attachments(self, tasks: Iterable[Task]) -> None:
        """A Fault for pictures and videos that a model does not take in, or not so many."""
        given, most = [each for task in tasks for each in task.attachments], self.settings.most_attachments
        if given and not self.sees:
            what = f"the model {self.settings.model!r} takes in text alone"
            raise given[0].fault(f"{what}; pictures are for a vision-language model, such as ERNIE-4.5-VL-28B-A3B")
        if len(given) > most:
            raise given[most].fault(f"a request has at most {most} pictures and videos")

    def _loaded(self) -> tuple[AsyncModel, Dispatcher]:
        if self._model is None:
            raise Fault(503, "The model is still loading", code="loading", headers={"Retry-After": "5"})
        return self._model
