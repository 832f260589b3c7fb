"""How kernels are started, or only listed, to be compiled ahead of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

_listed: ContextVar[list[Launch] | None] = ContextVar("_listed", default=None)


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel, its grid, and its arguments by name: tensors, numbers, and what it is compiled for."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    num_warps: int
    num_stages: int


def launch(kernel: Any, grid: tuple[int, ...], *, num_warps: int = 4, num_stages: int = 3, **arguments: Any) -> None:
    """Start a kernel on the current stream; within `listed` it is only noted down, and tensors may be `meta` ones.

    Every kernel has an argument `PDL`: whether it may begin before the one in front of it has ended (language.wait).
    """
    noted = _listed.get()
    if noted is not None:
        noted.append(Launch(kernel, grid, arguments, num_warps, num_stages))
        return
    options = {"launch_pdl": True} if arguments["PDL"] else {}
    kernel[grid](**arguments, num_warps=num_warps, num_stages=num_stages, **options)


@contextmanager
def listed() -> Iterator[list[Launch]]:
    """The launches that are asked for while the block runs, none of which is done."""
    launches: list[Launch] = []
    token = _listed.set(launches)
    try:
        yield launches
    finally:
        _listed.reset(token)
