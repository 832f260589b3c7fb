"""The time that each node takes, by the clock of the device that it runs on."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch

from ernie_rt.contract import StepTimes, Stopwatch


class Event(Protocol):
    """A mark among the work that a device was given, in which it notes when it comes by."""

    def record(self) -> None: ...
    def synchronize(self) -> None: ...
    def elapsed_time(self, end_event: Any, /) -> float: ...  # milliseconds


class Events(Stopwatch):
    """A stopwatch of a device that works behind the host: it marks its work, and reads the marks at the end.

    What the device waited for the host before some work counts with that work.
    """

    def __init__(self, event: Callable[[], Event]) -> None:
        super().__init__()
        self._event = event
        self._marks = [(dict[str, float](), "", self._marked())]

    def node(self, name: str) -> None:
        self._marks.append((self._nodes, name, self._marked()))

    def other(self, what: str) -> None:
        self._marks.append((self._others, what, self._marked()))

    def times(self) -> StepTimes:
        self._marks[-1][2].synchronize()
        seconds = time.perf_counter() - self._began
        for (_, _, before), (kind, name, mark) in zip(self._marks, self._marks[1:], strict=False):
            kind[name] = before.elapsed_time(mark) / 1000
        return StepTimes(seconds, self._nodes, self._others)

    def _marked(self) -> Event:
        event = self._event()
        event.record()
        return event


def stopwatch(device: torch.device) -> Stopwatch:
    if device.type == "cpu":
        return Stopwatch()
    return Events(partial(torch.Event, device, enable_timing=True))
