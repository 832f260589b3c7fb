"""The op table: every op that a graph may contain, at three levels.

A model is written in *blocks*; blocks decompose into *composites*, composites into *primitives*. A backend claims the
largest pieces that it runs in one go, so one that knows the primitives alone is complete. What an op *means* is its
float64 function in `ernie_rt.reference`; a test holds both tables to the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ernie_rt.graph.blocks import BLOCKS
from ernie_rt.graph.composites import COMPOSITES
from ernie_rt.graph.op import Op
from ernie_rt.graph.primitives import PRIMITIVES

OPS: Final[Mapping[str, Op]] = MappingProxyType({op.name: op for op in (*BLOCKS, *COMPOSITES, *PRIMITIVES)})
