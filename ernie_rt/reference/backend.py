"""The reference as a backend: always float64 inside; the dtype asked for is that of the logits."""

from __future__ import annotations

from ernie_rt.contract.simple import SimpleBackend
from ernie_rt.reference.ops import MEANINGS


class ReferenceBackend(SimpleBackend):
    """Runs every op, at every level, by its definition."""

    functions = MEANINGS
    dtype = "float64"
