"""What the suite runs: ops and micro-models from data files, with numbers that any language can make again.

docs/conformance.md describes the files and the rule of their numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.graph.builder import Builder
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import FLOATS, DType, Operand, Plain, TensorType, Weight
from ernie_rt.modeling.config import ModelConfig, parse_config
from ernie_rt.modeling.ernie45 import INDEX_INPUTS
from ernie_rt.sampling.philox import words_of
from ernie_rt.storage.rope import RopeTable
from ernie_rt.weights.source import computed

Array = npt.NDArray[Any]

GIVEN: Final = "given."
"""What the names of an op case's own inputs begin with, so that none is taken for one of a step's."""
OUTPUT: Final = "output."


def words(key: str, count: int) -> npt.NDArray[np.uint32]:
    """The first `count` random words of a stream: Philox, keyed by the first 8 bytes of its name's SHA-256."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    return words_of(np.arange(-(-count // 4)), seed, 0).reshape(-1)[:count]


def numbers(key: str, shape: Sequence[int], mean: float = 0.0, scale: float = 1.0) -> npt.NDArray[np.float64]:
    """Numbers like normal ones, made of sums of four random bytes, which every language adds up alike."""
    random = words(key, int(np.prod(shape, dtype=np.int64)))
    total = random.view(np.uint8).reshape(-1, 4).astype(np.float64).sum(-1)
    result: npt.NDArray[np.float64] = (mean + scale * ((total - 510) / 148)).reshape(tuple(shape))
    return result


def rounded(values: Array, dtype: DType) -> Array:
    """`values` as a dtype holds them, in float64; integers and masks as themselves."""
    result: Array = values.astype(dtype)
    return result.astype(np.float64) if dtype in FLOATS else result


@dataclass(frozen=True, slots=True)
class OpCase:
    """One op on operands of fixed shapes.

    `steps` say how many tokens each sequence brings to each step in turn, `rows` of which of each step's tokens logits
    are wanted; None of every second one.
    """

    op: str
    name: str
    operands: Mapping[str, Mapping[str, Any] | None]
    attrs: Mapping[str, Any]
    steps: tuple[tuple[int, ...], ...] = ((5,),)
    needs: tuple[str, ...] = ()
    rows: tuple[tuple[int, ...], ...] | None = None

    @property
    def key(self) -> str:
        return f"{self.op}/{self.name}"

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many tokens each sequence has in the end."""
        return tuple(map(sum, zip(*self.steps, strict=True)))

    def graph(self, dtype: DType) -> Graph:
        """A graph of this one node, for activations of a dtype; its outputs are called output.0, output.1, …"""
        b = Builder()
        with b.scope(self.op):
            inputs = [self._operand(b, param, dtype) for param in OPS[self.op].params]
            attrs = {name: self._attr(value, dtype) for name, value in self.attrs.items()}
            values = b.multi(self.op, *inputs, **attrs)
        return b.finish("main", {f"{OUTPUT}{i}": value for i, value in enumerate(values)})

    def given(self, dtype: DType, start: int, stop: int) -> dict[str, Array]:
        """The case's own inputs by name, those of tokens for the tokens `start:stop` of all steps: float64, int32 or
        bool."""
        found = {}
        for param, spec in self.operands.items():
            if spec is not None and "input" in spec:
                values = self.values(param, _dtype(spec, dtype))
                found[GIVEN + param] = values[start:stop] if spec["input"][0] == "N" else values
        return found

    def ids(self) -> npt.NDArray[np.int32]:
        """Token ids of all steps; they matter where an operand is `{"step": "ids", "below": V}`."""
        below = next((s["below"] for s in self.operands.values() if s is not None and s.get("step") == "ids"), 1)
        return (words(f"{self.key}/ids", sum(self.lengths)) % np.uint32(below)).astype(np.int32)

    def values(self, param: str, dtype: DType) -> Array:
        """The numbers of an input or a weight, rounded to its dtype and held in float64."""
        spec = self.operands[param]
        assert spec is not None
        shape = [sum(self.lengths) if d == "N" else int(d) for d in spec.get("input") or spec["weight"]]
        key = f"{self.key}/{param}"
        if "values" in spec:
            # What is listed is repeated until the shape is full.
            return rounded(np.resize(np.array(spec["values"], np.float64), shape), dtype)
        if "below" in spec:
            return (words(key, int(np.prod(shape))) % np.uint32(spec["below"])).astype(dtype).reshape(shape)
        return rounded(numbers(key, shape, spec.get("mean", 0.0), spec.get("scale", 1.0)), dtype)

    def param(self, weight: Weight) -> str:
        """The operand that a weight of the graph is."""
        return next(p for p, spec in self.operands.items() if spec is not None and spec.get("name", p) == weight.name)

    def _operand(self, b: Builder, param: str, dtype: DType) -> Operand:
        spec = self.operands.get(param)
        if spec is None:
            return None
        kind = _dtype(spec, dtype)
        if "step" in spec:
            return b.input(spec["step"], TensorType("int32", dict(INDEX_INPUTS)[spec["step"]]))
        if "input" in spec:
            return b.input(GIVEN + param, TensorType(kind, tuple(spec["input"])))
        if "rope" in spec:
            table = RopeTable(spec["rope"], spec["theta"])
            return Weight(f"rope.{spec['rope']}", TensorType("float32", ("P", spec["columns"])), table)
        if "state" in spec:
            return b.state("kv", TensorType(dtype, ("R", 2, *spec["state"])))
        type, paired = TensorType(kind, tuple(spec["weight"])), spec.get("paired", False)
        return Weight(spec.get("name", param), type, Plain(kind), paired)

    def _attr(self, value: Any, dtype: DType) -> Any:
        if isinstance(value, list):
            return tuple(value)
        return dtype if value == "activation" else value


@dataclass(frozen=True, slots=True)
class ModelCase:
    """A micro-model: its config, prompts, and how its weights are drawn.

    It is compiled for so many `sequences` at once, and steps of so many tokens.
    """

    name: str
    config: ModelConfig
    lengths: tuple[int, ...]
    more: tuple[int, int]
    new_tokens: int
    sequences: int
    batch_tokens: int
    weights: tuple[tuple[str, float, float | None], ...]
    needs: tuple[str, ...]
    pictures: tuple[tuple[int, int, int], ...] = ()
    """Which prompts have placeholders, from which place on, and how many."""

    def prompts(self, full: bool) -> tuple[tuple[int, ...], ...]:
        """Prompts of random ids; with `full`, so many more of so many tokens as `more` says."""
        lengths = self.lengths + ((self.more[1],) * self.more[0] if full else ())
        vocabulary = np.uint32(self.config.vocab_size)
        prompts = [words(f"{self.name}/prompt.{i}", n) % vocabulary for i, n in enumerate(lengths)]
        for prompt, start, count in self.pictures:
            assert self.config.sees is not None
            prompts[prompt][start : start + count] = self.config.sees.image_token_id
        return tuple(tuple(prompt.tolist()) for prompt in prompts)

    def values(self, weight: Weight) -> Array:
        """A weight's numbers as its storage holds them, in float64."""
        shape = weight.type.shape()
        mean, scale = next((mean, scale) for pattern, mean, scale in self.weights if fnmatchcase(weight.name, pattern))
        if scale is None:
            scale = float(shape[-1]) ** -0.5
        return rounded(numbers(f"{self.name}/{weight.name}", shape, mean, scale), weight.parts["data"].dtype)


class CaseWeights:
    """The weights of a case, as a WeightSource."""

    def __init__(self, case: OpCase | ModelCase) -> None:
        self._case = case
        self._made: dict[str, Array] = {}

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        if computed(weight, part, out, index):
            return
        if weight.name not in self._made:
            case = self._case
            if isinstance(case, ModelCase):
                self._made[weight.name] = case.values(weight)
            else:
                self._made[weight.name] = case.values(case.param(weight), weight.type.dtype)
        np.copyto(out, self._made[weight.name][index], casting="unsafe")

    def close(self) -> None:
        pass


def op_cases() -> tuple[OpCase, ...]:
    return tuple(
        OpCase(
            entry["op"],
            entry["case"],
            entry["operands"],
            entry.get("attrs", {}),
            tuple(map(tuple, entry.get("steps", [[5]]))),
            tuple(entry.get("needs", ())),
            tuple(map(tuple, entry["rows"])) if "rows" in entry else None,
        )
        for entry in _read("ops.json")["cases"]
    )


def model_cases() -> tuple[ModelCase, ...]:
    read = _read("models.json")
    weights = [(pattern, mean, scale) for pattern, mean, scale in read["weights"]]
    return tuple(
        ModelCase(
            entry["name"],
            parse_config(read["config"] | entry["config"], f"cases/models.json, {entry['name']}"),
            tuple(entry.get("lengths", read["lengths"])),
            tuple(entry.get("more", read["more"])),
            read["new_tokens"],
            entry.get("sequences", read["sequences"]),
            entry.get("batch_tokens", read["batch_tokens"]),
            tuple(weights),
            tuple(entry.get("needs", ())),
            tuple(map(tuple, entry.get("pictures", ()))),
        )
        for entry in read["models"]
    )


def digest(arrays: Mapping[str, Array]) -> str:
    """The first 16 digits of the SHA-256 of names and numbers (little-endian float64): the same in any language."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(name.encode() + b"\0" + np.ascontiguousarray(arrays[name], "<f8").tobytes())
    return total.hexdigest()[:16]


def _dtype(spec: Mapping[str, Any], activation: DType) -> DType:
    """An operand's dtype: the activation's, `wide` (float32, float64 beside float64), or another that it names."""
    kind = spec.get("dtype", "activation")
    if kind == "wide":
        return "float64" if activation == "float64" else "float32"
    return activation if kind == "activation" else kind


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((files(__package__) / "cases" / name).read_text("utf-8"))
    return read
