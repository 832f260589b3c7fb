"""A model whose steps wait until they are let through."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ernie_rt import AsyncModel, Model
from ernie_rt.contract import Step

MOST_SECONDS = 20


class Gate:
    """Holds up the steps of a model: each waits until it is let through, or fails. The end of its block opens it."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.once = threading.Semaphore(0)
        self.error: BaseException | None = None
        submit = model.engine._executable.submit

        def gated(step: Step) -> Any:
            until = time.monotonic() + MOST_SECONDS
            while not (self.open.is_set() or self.once.acquire(timeout=0.01)):
                assert time.monotonic() < until, "nobody opened the gate"
            error, self.error = self.error, None
            if error is not None:
                raise error
            return submit(step)

        monkeypatch.setattr(model.engine._executable, "submit", gated)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()


@asynccontextmanager
async def held_up(
    model: Model, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> AsyncIterator[tuple[AsyncModel, Gate]]:
    with monkeypatch.context() as patch:
        async with AsyncModel(model, **options) as served:
            with Gate(model, patch) as gate:
                yield served, gate


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def free(model: Model) -> bool:
    stats = model.engine.stats()
    return (stats.running, stats.waiting, stats.held_rows) == (0, 0, 0)
