"""The clock of a device that works behind the host, with marks that say what they are told."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch

from ernie_rt_eager.timing import Event, Events, stopwatch


class Mark:
    """Comes by when the device has done what it was given before: its time is known once it was waited for."""

    made: list[Mark]

    def __init__(self) -> None:
        self.place = len(self.made)
        self.made.append(self)
        self.recorded = self.waited = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        self.waited = True

    def elapsed_time(self, end_event: Event, /) -> float:
        assert isinstance(end_event, Mark) and self.recorded and end_event.recorded
        assert self.made[-1].waited, "the device has not come so far"
        return 2.0**end_event.place - 2.0**self.place


def test_time_is_what_passed_on_the_device_since_the_mark_before() -> None:
    Mark.made = []
    watch = Events(Mark)
    watch.other("inputs")
    watch.node("1")
    watch.node("2")
    times = watch.times()
    assert times.others == {"inputs": pytest.approx(1e-3)}
    assert times.nodes == {"1": pytest.approx(2e-3), "2": pytest.approx(4e-3)}


def test_only_a_device_beside_the_cpu_needs_marks() -> None:
    assert not isinstance(stopwatch(torch.device("cpu")), Events)
