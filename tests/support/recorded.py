"""What stands in for CUDA graphs on a CPU: work is recorded once, and replayed on the very same tensors.

Python runs at the recording alone, so whatever it decided then, and every tensor it saw, is frozen, as in a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ernie_rt_cudagraph.launch import received

T = TypeVar("T")
WAITING = {
    torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default, torch.ops.aten.repeat_interleave.Tensor,
}  # fmt: skip
"""Operations whose result, or whose shape, the host has to know."""


class Recording(TorchDispatchMode):
    """Does PyTorch's operations and notes them down, as things to do again into the same results."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Callable[[], None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func not in WAITING, f"{func}: the host waits for the device"
        results = func(*args, **kwargs)

        def again() -> None:
            for kept, new in zip(tree_leaves(results), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(kept, Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)

        self.done.append(again)
        return results


@dataclass
class Recorder:
    """Records, and counts what is replayed: `replayed[i]` times the i-th recording."""

    replayed: list[int] = field(default_factory=list)

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        def staged(array: object, device: object) -> None:
            raise AssertionError("the host sends something to the device")

        with pytest.MonkeyPatch.context() as patch, Recording() as recording:
            patch.setattr("ernie_rt_cudagraph.inputs.staged", staged)
            with received(lambda launch: recording.done.append(launch.start)):
                result = work()
        place = len(self.replayed)
        self.replayed.append(0)

        def replay() -> T:
            self.replayed[place] += 1
            for do in recording.done:
                do()
            return result

        return replay
