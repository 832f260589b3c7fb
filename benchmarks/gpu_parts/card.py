"""The device that is measured, how long work takes on it, and what its maker says of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress

import torch

from ernie_rt.errors import OptionError
from ernie_rt.planning.device import Device, find_device
from ernie_rt_cudagraph.backend import PROGRAMMATIC
from ernie_rt_cudagraph.replay import CudaGraphs, Directly, Recorder


class Card:
    """The first CUDA device; in a dry run the CPU, where work is done once and its time means nothing.

    `small` says that models are to be small ones, and nothing is recorded: for dry runs, and under the sanitizer.
    """

    def __init__(self, *, dry: bool, small: bool = False) -> None:
        self.dry, self.small = dry, dry or small
        self.device = torch.device("cpu" if dry else "cuda:0")
        self.name = "no card" if dry else torch.cuda.get_device_name(self.device)
        self.pdl = not dry and torch.cuda.get_device_capability(self.device) >= PROGRAMMATIC

    @property
    def sheet(self) -> Device | None:
        """What its maker promises, where ernie-rt knows that."""
        with suppress(OptionError):
            return find_device(self.name)
        return None

    def recorder(self, *, graphs: bool = True) -> Recorder:
        return CudaGraphs(self.device) if graphs and not self.small else Directly()

    def wait(self) -> None:
        """Until the device has done all that it was asked."""
        if not self.dry:
            torch.cuda.synchronize(self.device)

    def empty(self) -> None:
        """Give memory back that nobody holds any more."""
        if not self.dry:
            torch.cuda.empty_cache()

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def seconds(self, work: Callable[[], object], *, runs: int = 20, rounds: int = 5) -> float:
        """Of one call on the device: the median of rounds of so many calls, one after the other, and one before."""
        began = time.perf_counter()
        work()
        if self.dry:
            return time.perf_counter() - began
        found = []
        for _ in range(rounds):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(runs):
                work()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end) / 1e3 / runs)
        return statistics.median(found)
