"""Applications of the server for targets, and the errors behind what they answer."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, Final

import ernie_rt
from ernie_rt.host import PluginHost
from ernie_rt_serve.access import Keys
from ernie_rt_serve.app import make_app
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.settings import Settings
from fuzz.chains import one_of
from support import scripted
from support.serving import said, scripted_app

KEY: Final = "sk-right"
SETTINGS: Final = Settings(
    "demo", keys=Keys.of([KEY]), header_bytes=2048, body_bytes=1 << 14, held_bytes=15_000, json_signs=4000
)
"""Limits so low that small inputs reach them."""
ALLOWED: Final = frozenset({200, 304, 400, 401, 404, 405, 408, 413, 415, 429, 431, 503, 505})
LEAK: Final = re.compile(rb"0x[0-9a-f]{8,}|/[a-z_]+/[a-z_]+\.py|Traceback|grams are in")
"""What no answer says: addresses, files of ours, and what was asked."""
THREADS: Final = 2


class Server:
    """Applications, asked in one event loop: the first has no model yet, the others serve what is given.

    Their models say a few words to whatever they would take.
    """

    def __init__(self, *models: str | Path, settings: Settings = SETTINGS) -> None:
        logging.getLogger("ernie_rt_serve").setLevel(logging.CRITICAL + 1)
        self.loop = asyncio.new_event_loop()
        threads = ThreadPoolExecutor(THREADS)
        self.loop.set_default_executor(threads)
        together = threading.Barrier(THREADS)  # all begin now: what is limited is what inputs take
        assert len([*threads.map(lambda _: together.wait(), range(THREADS))]) == THREADS
        self.apps = [make_app(None, settings)]
        self.models = []
        host = PluginHost(extra=[scripted])
        for ref in models:
            model = ernie_rt.load(ref, backend="scripted", host=host, max_context=512)
            app, served = scripted_app(model, settings=settings)
            served.otherwise = said("a", "b")
            served.stats = model.engine.stats  # type: ignore[attr-defined]
            self.apps.append(app)
            self.models.append(served)
        self._faults: list[Exception] = []
        for app in self.apps:
            app.state.service.fault = self._noting(app.state.service.fault)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        """End it; what a child process asks need not be."""
        for app in self.apps:
            app.state.service.close()
        for served in self.models:
            served.model.close()
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()

    def check(self) -> None:
        """Nothing of a request is left."""
        for app in self.apps:
            assert app.state.service.held == 0
            if app.state.service.unready != "loading":
                assert app.state.service.dispatcher._coming == 0
        for model in self.models:
            assert all(stream.cancelled or stream.ended for stream in model.streams)
            model.streams.clear()
            model.asked.clear()

    def refuse(self, rng: Random) -> None:
        """Raise what the last request was refused with, or what that was made of; nothing if it was not."""
        error = one_of(self._faults[-1] if self._faults else None, rng)
        self._faults.clear()
        if error is not None:
            raise error

    def _noting(self, fault: Any) -> Any:
        def noted(id: str, error: Exception, prompt: str | None = None) -> Fault:
            self._faults.append(error)
            made: Fault = fault(id, error, prompt)
            return made

        return noted
