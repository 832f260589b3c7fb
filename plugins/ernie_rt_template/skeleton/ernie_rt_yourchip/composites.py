"""Larger ops that run in one go: each takes the place of its decomposition. Begin here to make the backend fast.

Their meaning is in `ernie_rt.graph.composites` and `ernie_rt.graph.blocks`.
"""

from collections.abc import Callable, Mapping
from typing import Any

COMPOSITES: Mapping[str, Callable[..., Any]] = {}
