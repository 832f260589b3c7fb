"""What a server's routes share: the model once it is loaded, how the server fares, what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from typing import Final

from starlette.requests import Request

from ernie_rt import AsyncModel, __version__
from ernie_rt.errors import OverloadError
from ernie_rt_serve.dispatch import Dispatcher
from ernie_rt_serve.faults import Fault, fault_of
from ernie_rt_serve.metrics import Metrics
from ernie_rt_serve.settings import Settings

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
        """Bytes of the bodies that are not answered yet."""
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

    def hold(self, request: Request, size: int) -> None:
        """Count what a request brings, until `let_go`; a Fault where all of them together bring too much."""
        most = self.settings.bodies_bytes
        if self.held + size > most:
            message = f"The bodies of all requests here have more than {most:,} bytes together"
            raise Fault(429, message, code="bodies_too_large", headers={"Retry-After": "1", "Connection": "close"})
        self.held += size
        request.state.held = getattr(request.state, "held", 0) + size

    def let_go(self, request: Request) -> None:
        """What a request has brought is no longer needed."""
        self.held -= getattr(request.state, "held", 0)

    def fault(self, id: str, error: Exception) -> Fault:
        """The fault that an error is to the request of that id; what is the server's own is written to its log."""
        fault = fault_of(error)
        if isinstance(error, OverloadError):
            self.metrics.refused(error.reason)
        if fault.status == 500:
            self._failures.append(time.monotonic())
            log.error("request %s failed", id, exc_info=error)
        return fault

    def _loaded(self) -> tuple[AsyncModel, Dispatcher]:
        if self._model is None:
            raise Fault(503, "The model is still loading", code="loading", headers={"Retry-After": "5"})
        return self._model
