"""Work that is recorded once and done again and again: CUDA graphs, and what stands in for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class Recorder(Protocol):
    """What makes a function of work on the device that can be done again."""

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        """`work` as something to call again. It reads and writes buffers that keep their places, and waits for nothing.

        Until the next call the result holds what the last one made, in the same tensors perhaps.
        """
        ...


class Directly:
    """Records nothing: work is done kernel by kernel, each time."""

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        return work


class CudaGraphs:
    """Records CUDA graphs, which share one pool of memory: they are replayed one after the other.

    Its GPU must be the current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        with torch.cuda.stream(usual):  # which is the current one again, however the capture ends
            self._stream.wait_stream(usual)
            with torch.cuda.stream(self._stream):
                work()  # compiles kernels and makes libraries ready, which a capture does not allow
            usual.wait_stream(self._stream)
            # What other threads do on this GPU meanwhile, for another model perhaps, is no business of the capture's.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                result = work()

        def replay() -> T:
            graph.replay()
            return result

        return replay
