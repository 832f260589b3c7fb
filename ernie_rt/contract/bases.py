"""What a backend and its executable need not say themselves."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from ernie_rt.contract.contents import PagedContents
from ernie_rt.contract.findings import Executed, Finding
from ernie_rt.contract.protocols import (
    CacheShape,
    Executable,
    Limits,
    MemoryReport,
    Numerics,
    StepLimits,
    Target,
)
from ernie_rt.contract.step import Int32, Pending, Step, StepResult
from ernie_rt.contract.timing import StepTimes
from ernie_rt.files import Progress
from ernie_rt.graph.graph import Node
from ernie_rt.graph.legalize import Accept, Lowering, Reject
from ernie_rt.graph.types import Storage
from ernie_rt.weights.source import WeightSource


class ExecutableBase(ABC):
    """What an executable need not say: inherit from it, and a contract that grows finds a default here."""

    cache: CacheShape
    admits: StepLimits
    ahead: int = 0

    def prepare(self, progress: Progress | None = None) -> None:
        """Do what can be done before the first step, such as recording steps, and tell `progress` how many parts of it
        are done, of how many. `load` calls it once; where nobody does, the first step sees to it."""
        return

    @abstractmethod
    def submit(self, step: Step) -> Pending: ...

    def timed(self, step: Step) -> tuple[StepResult, StepTimes]:
        """Run a step as `submit` does, and measure it and, as far as that can be told, each node of its lowered graph.

        It may take longer than `submit` does, and may run the step several times, which changes nothing.
        """
        began = time.perf_counter()
        result = self.submit(step).result()
        return result, StepTimes(time.perf_counter() - began)

    @abstractmethod
    def copy(self, source: int, destination: int, length: int) -> None: ...

    def read_rows(self, rows: Int32) -> npt.NDArray[np.uint8] | None:
        """What these rows of the cache hold, in every state that has a row for each token: `[n, bytes of a row]`, the
        caller's. None: this executable hands none out, so nothing of its cache can be kept on disk.

        The core asks first for no row at all, which says how many bytes a row has. How they are laid out in it is the
        executable's own affair, as long as another one of the same lowerings, target and version takes them in.
        """
        return None

    def write_rows(self, rows: Int32, data: npt.NDArray[np.uint8]) -> None:
        """Write to these rows of the cache what `read_rows` gave of others, perhaps in another process; `data` may be
        read-only. It takes effect in the order of the calls, as `copy` does."""
        raise NotImplementedError

    def executed(self) -> Executed | None:
        """What ran where so far, of an executable that was compiled for a `watched` target; None: it does not say.

        `ernie-rt doctor` asks once, after the last step."""
        return None

    @abstractmethod
    def memory(self) -> MemoryReport: ...

    def close(self) -> None:
        """Python gives back what there is."""
        return


class BackendBase(ABC):
    """What a backend need not say: inherit from it, and a contract that grows finds a default here."""

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def lacking(self, kind: str) -> str | None:
        """Why `devices` has none of a kind that is announced, and what helps; None: there is no more to say."""
        return None

    def not_deterministic(self, target: Target) -> str | None:
        """Why it cannot keep what `Target.deterministic` asks for, on the device and in the dtype of this target; None:
        it can."""
        return "it does not say that a token's numbers depend on nothing that comes beside it"

    def examine(self, target: Target) -> Iterable[Finding]:
        """What keeps it from its best on this machine and target, such as a library that is missing, or instructions
        that the processor lacks. Nothing need be compiled; `ernie-rt doctor` asks, in a child process."""
        return ()

    def accepts(self, storage: Storage, target: Target) -> bool:
        return False

    def bill(self, lowerings: Mapping[str, Lowering], target: Target, limits: Limits) -> MemoryReport:
        """Weights and a cache of pages, each in the dtype that the graphs say."""
        return PagedContents.of(lowerings, limits).report()

    @abstractmethod
    def claims(self, node: Node, target: Target) -> Accept | Reject: ...

    @abstractmethod
    def numerics(self, target: Target) -> Numerics: ...

    @abstractmethod
    def compile(
        self, lowerings: Mapping[str, Lowering], weights: WeightSource, target: Target, limits: Limits
    ) -> Executable: ...
