"""The forms that weights may have: those that ernie-rt holds, and some that it does not hold yet, sized by rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ernie_rt.display import did_you_mean
from ernie_rt.errors import OptionError
from ernie_rt.graph.types import FLOATS, DType, Plain, Storage, TensorType, Weight
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import OF_VISION
from ernie_rt.modeling.graphs import build_graphs, weights_of
from ernie_rt.weights.quantize import Quantization, is_linear

STORED: Final = "as stored"
"""The form of a model that is quantised already: no other can be made of it."""

ENDS: Final = frozenset({"embed.weight", "head.weight"})


@dataclass(frozen=True, slots=True)
class Sized(Storage):
    """Numbers of so many bits, with a scale for each `per_scale` of them: a size, and nothing to compute with."""

    kind = "sized"

    name: str
    bits: int
    per_scale: int
    scale: DType

    def __str__(self) -> str:
        return self.name

    def parts(self, type: TensorType, paired: bool = False) -> dict[str, TensorType]:
        numbers = type.elements()
        return {
            "codes": TensorType("uint8", (-(-numbers * self.bits // 8),)),
            "scales": TensorType(self.scale, (-(-numbers // self.per_scale),)),
        }


@dataclass(frozen=True, slots=True)
class Form:
    """How the weights of a model are held. `rule` says what a form consists of that ernie-rt cannot hold yet."""

    name: str
    storage: Callable[[Weight], Storage]
    quantization: Quantization | None = None
    rule: str = ""

    @property
    def is_runnable(self) -> bool:
        return not self.rule

    def storages(self, config: ModelConfig) -> dict[str, Storage]:
        """The storage of each weight of a model by its name."""
        weights = weights_of(build_graphs(config))
        return {name: self.storage(weight) for name, weight in weights.items() if weight.storage.stored}


def _plain(dtype: DType) -> Callable[[Weight], Storage]:
    return lambda weight: weight.storage if part_of(weight) == "router" else Plain(dtype)


def _sized(linears: Sized, ends: Storage | None) -> Callable[[Weight], Storage]:
    def storage(weight: Weight) -> Storage:
        if weight.name in ENDS:
            return ends or weight.storage
        return linears if is_linear(weight) else weight.storage

    return storage


INT8, INT4 = Quantization(8), Quantization(4)
FP8: Final = Sized("fp8", 8, 128 * 128, "float32")
INT3: Final = Sized("int3", 3, 32, "float16")
TWO_BITS: Final = Sized("2-bit", 2, 32, "float16")
FORMS: Final[Mapping[str, Form]] = {
    form.name: form
    for form in (
        Form("float32", _plain("float32")),
        Form("bfloat16", _plain("bfloat16")),
        Form("float16", _plain("float16")),
        Form("int8", INT8.storage, INT8),
        Form("fp8", _sized(FP8, None), rule="a float32 scale for each 128 by 128, embedding and head in 16 bits"),
        Form("int4", INT4.storage, INT4),
        Form("int3", _sized(INT3, INT8.linears), rule="a float16 scale for each 32, embedding and head in int8"),
        Form("2-bit", _sized(TWO_BITS, INT8.linears), rule="a float16 scale for each 32, embedding and head in int8"),
    )
}
"""By name, the widest first. Norms, biases and the router stay as they are."""


def forms_of(config: ModelConfig, stored: Mapping[str, Storage] | None, wanted: str) -> tuple[Form, ...]:
    """The forms to plan for, the widest first: those in `wanted`, with commas between them, or for "all" that of the
    config's dtype and those that are narrower. Of a model that is quantised already there is one.

    OptionError for a form that nobody knows.
    """
    names = {name.strip() for name in wanted.split(",")}
    for name in sorted(names - {*FORMS, "all"}):
        raise OptionError(
            f"no storage {name[:40]!r} is known",
            expected=f"all, or some of {', '.join(FORMS)}",
            hint=did_you_mean(name, FORMS).strip() or None,
        )
    if stored is not None and any(storage.packed for storage in stored.values()):
        return (Form(STORED, lambda weight: stored[weight.name]),)
    if "all" in names:
        names |= {config.dtype, *(name for name in FORMS if name not in FLOATS)}
    return tuple(form for form in FORMS.values() if form.name in names)


PARTS: Final = (
    "embedding", "attention", "routed experts", "vision experts", "shared experts", "MLP", "head", "tower", "resampler",
    "norms", "router",
)  # fmt: skip
RESAMPLER: Final = tuple(f"{OF_VISION}{step}." for step in ("spatial", "temporal", "features"))
"""What the names of the weights begin with that make features of what the tower says; its others are the tower's."""


def part_of(weight: Weight) -> str:
    """Which part of a model a weight belongs to: one of PARTS."""
    if weight.name.startswith(OF_VISION):
        return "resampler" if weight.name.startswith(RESAMPLER) else "tower"
    scope, _, last = weight.name.rpartition(".")
    if last == "norm":
        return "norms"
    if scope in ("embed", "head"):
        return "embedding" if scope == "embed" else "head"
    if scope.endswith(".experts"):
        return "vision experts" if scope.endswith(".vision.experts") else "routed experts"
    if scope.endswith(".shared"):
        return "shared experts"
    if scope.endswith(".attention"):
        return "attention"
    return "router" if last in ("gate", "correction_bias") else "MLP"


def sizes(weights: Iterable[Weight], form: Form) -> dict[str, int]:
    """Bytes of weights in a form, by part; what is computed counts in none."""
    found = dict.fromkeys(PARTS, 0)
    for weight in weights:
        if weight.storage.stored:
            found[part_of(weight)] += replace(weight, storage=form.storage(weight)).nbytes()
    return found
