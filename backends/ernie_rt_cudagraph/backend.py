"""The backend: which devices, which blocks, and how a model is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from ernie_rt.contract import Accept, Limits, Lowering, Node, Planner, Reject, Target, WeightSource
from ernie_rt_cudagraph.blocks import REFUSALS
from ernie_rt_cudagraph.executable import CudaGraphExecutable
from ernie_rt_cudagraph.kernels.language import INTERPRETED
from ernie_rt_cudagraph.planner import CudaGraphPlanner
from ernie_rt_cudagraph.replay import CudaGraphs, Directly, Recorder
from ernie_rt_eager.backend import EagerBackend

OLDEST = (8, 0)
"""The compute capability that Triton and bfloat16 want: Ampere."""
PROGRAMMATIC = (9, 0)
"""From which on a kernel may begin before the one in front of it has ended: Hopper."""


class CudaGraphBackend(EagerBackend):
    """Claims blocks; what it refuses decomposes into eager's composites, with the reason recorded."""

    planner: ClassVar[Planner] = CudaGraphPlanner()
    recorder: ClassVar[Recorder | None] = None
    """What records steps (None: CUDA graphs, if the target wants graphs and has them)."""
    pdl: ClassVar[bool] = True
    """Whether a kernel may begin before the one in front of it has ended, on GPUs that can do that."""

    def devices(self) -> tuple[str, ...]:
        found = [f"cuda:{i}" for i in range(torch.cuda.device_count()) if _capability(f"cuda:{i}") >= OLDEST]
        return (*found, "cpu") if INTERPRETED else tuple(found)

    def lacking(self, kind: str) -> str | None:
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{' and '.join(names)}: older than Ampere, which its kernels need" if kind == "cuda" and names else None

    def not_deterministic(self, target: Target) -> str | None:
        return "its kernels for few tokens sum in another order than those for many"

    def claims(self, node: Node, target: Target) -> Accept | Reject:
        if node.op not in REFUSALS:
            return super().claims(node, target)
        refusal = REFUSALS[node.op](node)
        return Accept() if refusal is None else Reject(refusal)

    def compile(
        self,
        lowerings: Mapping[str, Lowering],
        weights: WeightSource,
        target: Target,
        limits: Limits,
    ) -> CudaGraphExecutable:
        on_gpu = target.device != "cpu"
        recorder = CudaGraphs(torch.device(target.device)) if on_gpu and target.graphs else Directly()
        pdl = self.pdl and on_gpu and _capability(target.device) >= PROGRAMMATIC
        report = self.bill(lowerings, target, limits)
        return CudaGraphExecutable(lowerings, weights, target, limits, self.recorder or recorder, report, pdl=pdl)


def _capability(device: str) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
