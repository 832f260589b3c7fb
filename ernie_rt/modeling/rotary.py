"""What a config says about rotary positions, in its several spellings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ernie_rt.modeling.fields import Fields, is_one_of

SCALES_BY_FACTOR: Final = frozenset({"linear", "dynamic"})
"""Kinds of scaling that a factor of 1 makes none at all."""
NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "factor": (None, 1),
    "attention_factor": (None, 1),
    "partial_rotary_factor": (None, 1),
}
UNUSED: Final = frozenset({"original_max_position_embeddings"})
"""What is read for kinds of scaling that are not supported, and for nothing else."""


@dataclass(frozen=True, slots=True)
class Rotary:
    """The base of the frequencies, and how many of them each of three positions turns; None where one turns all."""

    theta: float
    sections: tuple[int, int, int] | None = None


def rotary_in(read: Fields, *, sections: bool = False) -> Rotary:
    """In `rope_scaling`, else `rope_parameters`, else at the top level: transformers' order.

    No kind of scaling is implemented, and `sections` only where they are asked for.
    """
    name = "rope_parameters" if read.value("rope_scaling") in (None, {}) else "rope_scaling"
    nested = read.section(name)
    inner = Fields(nested, f"{read.where}: {name}")
    spelt = next((key for key in ("rope_type", "type") if nested.get(key) is not None), "rope_type")
    kind = "default" if inner.absent(spelt) else nested[spelt]
    none = isinstance(kind, str) and kind in SCALES_BY_FACTOR and is_one_of(nested.get("factor"), (1,))
    if not none and not is_one_of(kind, ("default",)):
        hint = "Remove the scaling to run the model at the context length that it was trained for"
        raise read.refusal(f"{name}.{spelt}", "not supported", "default", kind, hint)
    inner.refuse_unless(NEUTRAL)
    known = {"rope_type", "type", "rope_theta", *NEUTRAL, *UNUSED} | ({"mrope_section"} if sections else set())
    for key, value in nested.items():
        if key not in known and value is not None:
            raise read.refusal(name, "not supported", "rope_theta and rope_type alone", key)
    theta = (read if inner.absent("rope_theta") else inner).number("rope_theta", 1.0, 1e12)
    return Rotary(theta, None if inner.absent("mrope_section") or not sections else _sections(inner))


def _sections(read: Fields) -> tuple[int, int, int]:
    match read.integers("mrope_section", 0, 1024):
        case (height, width, time) if height == width:
            return height, width, time
    raise read.refusal(
        "mrope_section", "not supported", "three numbers, the first two equal", read.value("mrope_section")
    )
