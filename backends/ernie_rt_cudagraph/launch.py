"""How kernels are started, or only listed, to be compiled ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

_receiver: ContextVar[Callable[[Launch], None] | None] = ContextVar("_receiver", default=None)


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel, its grid, and its arguments by name: tensors, numbers, and what it is compiled for.

    Every kernel has an argument `PDL`: whether it may begin before the one in front of it has ended (`language.wait`).
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    num_warps: int
    num_stages: int

    def start(self) -> None:
        """On the current stream."""
        options = {"launch_pdl": True} if self.arguments["PDL"] else {}
        self.kernel[self.grid](**self.arguments, num_warps=self.num_warps, num_stages=self.num_stages, **options)


def launch(kernel: Any, grid: tuple[int, ...], *, num_warps: int = 4, num_stages: int = 3, **arguments: Any) -> None:
    """Start a kernel, or hand it to who receives launches instead."""
    asked = Launch(kernel, grid, arguments, num_warps, num_stages)
    receive = _receiver.get()
    if receive is None:
        asked.start()
    else:
        receive(asked)


def current(device: torch.device) -> AbstractContextManager[object]:
    """Kernels start on this GPU while the block runs, whichever the thread works on otherwise."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def received(by: Callable[[Launch], None]) -> Iterator[None]:
    """While the block runs no launch is started: each is handed over."""
    token = _receiver.set(by)
    try:
        yield
    finally:
        _receiver.reset(token)


@contextmanager
def listed() -> Iterator[list[Launch]]:
    """The launches that are asked for while the block runs, none of which is started: tensors may be `meta` ones."""
    launches: list[Launch] = []
    with received(launches.append):
        yield launches
