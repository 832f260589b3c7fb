"""Backends with one thing wrong, and the plugin that announces one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from ernie_rt.contract import (
    Limits,
    Lowering,
    Numerics,
    OpNumerics,
    SimpleBackend,
    SimpleExecutable,
    Step,
    Target,
    WeightSource,
    draw,
)
from ernie_rt.contract.step import Done
from ernie_rt.graph.types import DType, Storage, Weight
from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl
from ernie_rt.host import PluginHost
from ernie_rt.reference.ops import MEANINGS
from ernie_rt.storage.block_quantized import BlockQuantized

Table = Mapping[str, Callable[..., Any]]
BLOCKS = frozenset({"embed", "attention_block", "mlp_block", "moe_block", "head"})
COMPOSITES: Table = {name: function for name, function in MEANINGS.items() if name not in BLOCKS | {"moe"}}
DTYPES: dict[str, tuple[DType, ...]] = {"cpu": ("float32", "bfloat16", "float16")}


class Executable(SimpleExecutable):
    """A NumPy executable whose logits, and choice of tokens, a mutant may change."""

    spoil: Callable[[Step, np.ndarray], np.ndarray]
    choose: Callable[[Step, np.ndarray], np.ndarray] | None

    def submit(self, step: Step) -> Done:
        if self.choose is not None:
            if not hasattr(self, "_last"):
                self._last = np.zeros(self.admits.max_sequences, np.int32)
            step = replace(step, ids=np.where(step.ids < 0, self._last[step.seats[step.sequence]], step.ids))
        result = super().submit(step).value
        if result.logits is None:
            return Done(result)
        result = replace(result, logits=self.spoil(step, result.logits))
        assert result.logits is not None
        if self.choose is not None:
            where, _, _ = step.drawn_rows
            tokens, counts = step.verified(self.choose(step, result.logits)[where].astype(np.int32))
            drawn = np.flatnonzero(counts)
            self._last[step.seats[drawn]] = tokens[drawn, counts[drawn] - 1]
            result = replace(result, tokens=tokens, counts=counts, logits=result.logits[step.fetch])
        return Done(result)

    @property
    def ahead(self) -> int:  # type: ignore[override]
        return int(self.choose is not None)


class NumpyBackend(SimpleBackend):
    """The reference's functions in float32: composites, so that each one is seen."""

    functions: ClassVar[Table] = COMPOSITES
    spoil = staticmethod(lambda step, logits: logits)
    choose: Any = None

    def compile(
        self, lowerings: Mapping[str, Lowering], weights: WeightSource, target: Target, limits: Limits
    ) -> Executable:
        executable = Executable(lowerings, weights, limits, self.functions, self.dtype)
        executable.spoil, executable.choose = self.spoil, self.choose
        return executable


@dataclass(frozen=True)
class Mutant:
    """What is wrong with a backend, the checks one of which has to see it, and the dtype and storage to run them in."""

    caught_by: str
    changes: Mapping[str, Any]
    base: Callable[[], type] = lambda: NumpyBackend
    dtype: str = "float32"
    storage: str = "plain"

    def backend(self) -> type:
        base = self.base()
        functions = {name: value for name, value in self.changes.items() if name in MEANINGS}
        others = {name: value for name, value in self.changes.items() if name not in MEANINGS}
        made = {name: change(base.functions[name]) for name, change in functions.items()}
        return type("Backend", (base,), others | {"functions": {**base.functions, **made}})


def eager() -> type:
    from ernie_rt_eager.backend import EagerBackend

    return EagerBackend


def drawn(step: Step, logits: np.ndarray, later: int = 0) -> np.ndarray:
    """As the step says; of rows from which nothing is drawn anything."""
    assert step.draws is not None
    where, sequence, ahead = step.drawn_rows
    tokens = np.zeros(len(logits), np.int32)
    tokens[where] = draw(logits[where], step.draws.rows(sequence, ahead + later))
    return tokens


def sampling() -> type:
    return type("Sampling", (NumpyBackend,), {"choose": staticmethod(drawn)})


def blocks() -> type:
    return type("Blocks", (NumpyBackend,), {"functions": MEANINGS})


def host_of(backend: type, **info: Any) -> PluginHost:
    """A host that knows this one backend, as `mutant`."""
    module = ModuleType("ernie_rt_test_mutant")
    module.Backend = backend  # type: ignore[attr-defined]
    module.PLUGIN_API = PLUGIN_API  # type: ignore[attr-defined]
    fields: dict[str, Any] = {"summary": "one thing is wrong", "dtypes": DTYPES}
    fields |= {"conformance": "ernie_rt.reference:conformance.json"} | info

    @hookimpl
    def ernie_rt_backends() -> list[BackendInfo]:
        return [BackendInfo("mutant", f"{module.__name__}:Backend", **fields)]

    module.ernie_rt_backends = ernie_rt_backends  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return PluginHost(entry_points=False, extra=[module])


class Packed:
    """A WeightSource that fetches codes and scales, as they are stored, and turns them into numbers by `read`."""

    def __init__(self, inner: WeightSource, read: Callable[..., np.ndarray]) -> None:
        self.inner, self.read = inner, read

    def fill(self, weight: Weight, part: str, out: np.ndarray, index: tuple[int, ...] = ()) -> None:
        storage = weight.storage
        if not isinstance(storage, BlockQuantized):
            self.inner.fill(weight, part, out, index)
            return
        parts = weight.parts
        codes, scales = (np.empty(p.shape(), p.dtype) for p in (parts["codes"], parts["scales"]))
        self.inner.fill(weight, "codes", codes)
        self.inner.fill(weight, "scales", scales)
        out[...] = self.read(codes, scales, storage).reshape(weight.type.shape())[index]

    def close(self) -> None:
        self.inner.close()


def unpacked(codes: np.ndarray, scales: np.ndarray, storage: BlockQuantized) -> np.ndarray:
    """What raw codes and scales say, number by number."""
    pairs = codes if storage.bits == 8 else np.stack((codes % 16, codes // 16), -1)
    numbers = pairs.reshape(-1, storage.block).astype(np.float32) - 2 ** (storage.bits - 1)
    return numbers * scales.reshape(-1, 1).astype(np.float32)


class BlocksBackend(NumpyBackend):
    """Takes weights in raw blocks as they are."""

    read = staticmethod(unpacked)
    seen: ClassVar[list[Storage]] = []

    def accepts(self, storage: Storage, target: Target) -> bool:
        return isinstance(storage, BlockQuantized) and storage.layout == "raw"

    def compile(
        self, lowerings: Mapping[str, Lowering], weights: WeightSource, target: Target, limits: Limits
    ) -> Executable:
        self.seen += [weight.storage for lowering in lowerings.values() for weight in lowering.graph.weights]
        return super().compile(lowerings, Packed(weights, self.read), target, limits)


def in_int8(x: np.ndarray) -> np.ndarray:
    """Activations, rounded in blocks of 32."""
    rows = x.reshape(-1, 32)
    scale = np.abs(rows).max(-1, keepdims=True) / np.float32(127)
    return (np.rint(rows / np.where(scale == 0, 1, scale)) * scale).reshape(x.shape)


def rounded_linear(x: np.ndarray, *rest: Any) -> Any:
    return MEANINGS["linear"](in_int8(x), *rest)


def rounded_experts(
    x: np.ndarray, ids: np.ndarray, weights: np.ndarray, gate_up: np.ndarray, down: np.ndarray, *, top_k: int
) -> np.ndarray:
    x, out = in_int8(x), np.zeros_like(x)
    for expert in np.unique(ids[ids >= 0]):
        token, place = np.nonzero(ids == expert)
        inner = MEANINGS["swiglu"](MEANINGS["linear"](x[token], gate_up[expert]))
        out[token] += weights[token, place, None] * (in_int8(inner) @ down[expert].T)
    return out


def rounded_moe(
    x: np.ndarray,
    gate: np.ndarray,
    bias: np.ndarray,
    gate_up: np.ndarray,
    down: np.ndarray,
    mask: np.ndarray | None,
    *,
    top_k: int,
    norm_min: float,
) -> np.ndarray:
    ids, weights = MEANINGS["moe_route"](x, gate, bias, top_k=top_k, norm_min=norm_min)
    if mask is not None:
        ids = np.where(mask[:, None], ids, -1)
    return rounded_experts(x, ids, weights, gate_up, down, top_k=top_k)


class RoundedBackend(BlocksBackend):
    """Rounds activations to int8 as well; every weight that they meet is to be in blocks of 32. Taps split `moe`."""

    functions: ClassVar[Table] = {
        **COMPOSITES,
        "linear": rounded_linear,
        "moe_experts": rounded_experts,
        "moe": rounded_moe,
    }

    def numerics(self, target: Target) -> Numerics:
        return Numerics(OpNumerics("float32", "float32", "int8"))
