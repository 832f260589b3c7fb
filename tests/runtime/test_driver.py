"""The thread that steps an engine."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.runtime.driver import Driver
from ernie_rt.runtime.engine import Engine
from support.toy import ToyExecutable


def test_waking_it_may_be_interrupted_anywhere_by_waking_it() -> None:
    """Python may collect a stream at any place, which is then cancelled: a lock would be taken twice."""
    driver = Driver(Engine(ToyExecutable(CacheShape("paged", 4, 4), StepLimits(16, 4)), 16), lambda events: None)
    woken = threading.Event()
    interrupted = []

    def interrupt(frame: FrameType, what: str, argument: Any) -> Any:
        sys.settrace(None)
        interrupted.append(what)
        driver.wake()
        sys.settrace(interrupt)
        return interrupt

    def wake() -> None:
        sys.settrace(interrupt)
        driver.wake()
        sys.settrace(None)
        woken.set()

    threading.Thread(target=wake, daemon=True).start()
    assert woken.wait(5) and interrupted
    driver.start()
    driver.end()
