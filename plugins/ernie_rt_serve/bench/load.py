"""Closed and open loop: so many requests at once, or so many a second whatever becomes of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from ernie_rt.display import shown
from ernie_rt.errors import OptionError
from ernie_rt_serve.bench.figures import poisson
from ernie_rt_serve.bench.record import Record
from ernie_rt_serve.bench.request import Asker

MOST: Final = 100_000
"""Requests at once, or a second."""
Number = TypeVar("Number", int, float)
Done = Callable[[Record], None]
"""Told of each request when it has ended."""


@dataclass(frozen=True, slots=True)
class Load:
    """Closed loop: `concurrency` requests at once. Open loop: `rate` requests a second."""

    concurrency: int | None = None
    rate: float | None = None

    def __str__(self) -> str:
        return f"concurrency {self.concurrency}" if self.rate is None else f"{self.rate:g} requests/s"


def parse_loads(concurrency: str | None, rate: str | None) -> tuple[Load, ...]:
    """The loads of `--concurrency 1,8,32` or of `--rate 0.5,1`; OptionError for both, or what is no number."""
    if concurrency is not None and rate is not None:
        raise OptionError("--concurrency and --rate exclude each other", hint="Give one, and the other in a second run")
    if rate is not None:
        return tuple(Load(rate=_number("--rate", text, float)) for text in rate.split(","))
    return tuple(Load(concurrency=_number("--concurrency", text, int)) for text in (concurrency or "1").split(","))


def _number(option: str, text: str, kind: Callable[[str], Number]) -> Number:
    try:
        number = kind(text)
    except ValueError:
        number = kind("0")
    if not 0 < number <= MOST:
        raise OptionError(
            f"{option} is not possible", expected=f"numbers above 0, up to {MOST:,}, such as 1,8,32", found=shown(text)
        )
    return number


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a phase lasts: until so many requests have begun, or for so many seconds; those that run then end."""

    requests: int | None = None
    seconds: float | None = None

    def over(self, begun: int, at: float) -> bool:
        return (self.requests is not None and begun >= self.requests) or (
            self.seconds is not None and at >= self.seconds
        )


async def closed_loop(asker: Asker, bodies: Iterator[bytes], concurrency: int, extent: Extent, done: Done) -> None:
    """Keep so many requests running: each that ends is followed by the next."""
    begun = 0

    async def one_after_another() -> None:
        nonlocal begun
        while not extent.over(begun, asker.now()):
            begun += 1
            done(await asker.ask(next(bodies)))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(one_after_another())


async def open_loop(
    asker: Asker, bodies: Iterator[bytes], rate: float, rng: random.Random, extent: Extent, done: Done
) -> None:
    """Send requests at times that are settled beforehand, and count latencies from then.

    A server that is late makes no later request wait, nor is it forgiven that one was sent late.
    """

    async def ask(body: bytes, at: float) -> None:
        done(await asker.ask(body, at))

    async with asyncio.TaskGroup() as tasks:
        for begun, at in enumerate(poisson(rate, rng)):
            if extent.over(begun, at):
                break
            body = next(bodies)
            await asyncio.sleep(max(0.0, at - asker.now()))
            tasks.create_task(ask(body, at))
