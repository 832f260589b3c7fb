"""A builder of graphs that knows in which dtype a model computes, and how its weights are stored."""

from __future__ import annotations

from collections.abc import Mapping

from ernie_rt.graph.builder import Builder
from ernie_rt.graph.types import DType, Plain, Storage, TensorType, Weight


class WeightedBuilder(Builder):
    """Names weights under the scope in which they are asked for.

    They take part in computations in `dtype`, and are stored as `storages` say by their names, the others in the dtype
    `stored`.
    """

    def __init__(self, dtype: DType, stored: DType, storages: Mapping[str, Storage]) -> None:
        super().__init__()
        self.dtype = dtype
        self._stored = stored
        self._storages = storages

    def weight(self, name: str, *dims: int, router: bool = False, paired: bool = False) -> Weight:
        """One of these dims; a router's are float32 in every model, and float64 where nothing is narrower."""
        scope = self.current_scope
        type = TensorType(self.dtype, dims)
        full = f"{scope}.{name}" if scope else name
        storage = self._storages.get(full) or Plain("float32" if router else self._stored)
        return Weight(full, type.with_dtype(type.wide) if router else type, storage, paired)
