"""Writes an ONNX graph: nodes, constants, and what it needs of the model's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ernie_rt.contract import DType, Operand, State, Value, Weight
from ernie_rt_onnx.functions import DOMAIN, FUNCTIONS
from ernie_rt_onnx.planner import is_tiled

OPSETS: Final[Mapping[str, int]] = {"": 23, "com.microsoft": 1, DOMAIN: 1}
"""23 brought RMSNormalization."""
IR_VERSION: Final = 11

ELEMENT_TYPES: Final[Mapping[DType, int]] = {
    "float64": TensorProto.DOUBLE,
    "float32": TensorProto.FLOAT,
    "bfloat16": TensorProto.BFLOAT16,
    "float16": TensorProto.FLOAT16,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of a weight as the graph reads it: in this dtype, under these dims, which keep the order of the bytes.

    Those of a weight in blocks have to be constants: ONNX Runtime packs them when it loads, and is wrong or slow where
    it cannot. Tiles are read where they lie.
    """

    weight: Weight
    part: str
    dtype: DType
    dims: tuple[int, ...]

    @property
    def constant(self) -> bool:
        return self.weight.storage.packed and not is_tiled(self.weight)


@dataclass(frozen=True, slots=True)
class Masked:
    """What a mask means for attention: positions of the new tokens, int64 `[B, S]`; a bias of scores `[B, 1, S, T]`."""

    positions: str
    bias: str


class Emitter:
    """Collects the nodes of one graph. `dtype` is that of its activations, `bindings` sizes the axis P of tables.

    `accuracy_level` is that of MatMulNBits and QMoE: 0 multiplies by what the codes stand for, 4 rounds the activations
    to int8 in the same blocks, which is several times as fast. `with_library` says that the session has the library's
    operators, which compute in float32; `scarce`, that memory has no room for all weights in files.
    """

    def __init__(
        self,
        dtype: DType,
        bindings: Mapping[str, int],
        accuracy_level: int,
        with_library: bool = False,
        scarce: bool = False,
    ) -> None:
        self.dtype = dtype
        self.scarce = scarce
        self.with_library = with_library and dtype == "float32"
        self.bindings = bindings
        self.accuracy_level = accuracy_level
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.parameters: dict[str, Parameter] = {}
        self.functions: set[str] = set()
        self.made_for: dict[str, str] = {}
        """For which node of the lowered graph, by the name of its first value, each node here was written."""
        self.masked: Masked | None = None
        """What all attention is told, where a mask decides."""
        self._written: set[str] = set()

    def __call__(self, op: str, *inputs: str, out: str | None = None, domain: str = "", **attrs: Any) -> str:
        """Append a node of one output and return the output's name, which is also the node's.

        Operators that ONNX lacks are Microsoft's, where no domain is given.
        """
        out = out or f"{op}_{len(self.nodes)}"
        self.multi(op, *inputs, outputs=(out,), domain=domain, **attrs)
        return out

    def multi(self, op: str, *inputs: str, outputs: tuple[str, ...], domain: str = "", **attrs: Any) -> None:
        """Append a node with these outputs, named after the first."""
        domain = domain or ("" if onnx.defs.has(op) else "com.microsoft")
        if domain == DOMAIN and op in FUNCTIONS:
            self.functions.add(op)
        self.nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attrs))

    def name(self, operand: Operand) -> str:
        """What the graph calls a value or a plain weight; an operand that is absent has no name."""
        match operand:
            case None:
                return ""
            case Weight():
                return self.weight(operand)
            case Value(name):
                return name
            case State():
                raise AssertionError("a state is named part by part")

    def weight(self, weight: Weight, *dims: int) -> str:
        """A plain weight or a table, under other dims if given."""
        return self._parameter(weight, "data", weight.type.dtype, dims or weight.type.shape(self.bindings))

    def rotation(self, table: Operand) -> str:
        """A table of cos or sin in the dtype of the activations, as GroupQueryAttention takes it."""
        assert isinstance(table, Weight)
        return self._parameter(table, "data", self.dtype, table.type.shape(self.bindings))

    def codes(self, weight: Weight, *dims: int) -> str:
        """The codes of a weight in blocks, under these dims."""
        return self._parameter(weight, "codes", "uint8", dims)

    def stored_scales(self, weight: Weight, *dims: int) -> str:
        """The scales of a weight in blocks, in float16."""
        return self._parameter(weight, "scales", "float16", dims)

    def scales(self, weight: Weight, *dims: int) -> str:
        """The scales of a weight in blocks, in the dtype of the activations."""
        name = self.stored_scales(weight, *dims)
        if self.dtype == "float16":
            return name
        # Which ONNX Runtime does once, when it loads.
        return self.once(f"{name}.cast", lambda out: self("Cast", name, to=ELEMENT_TYPES[self.dtype], out=out))

    def once(self, name: str, write: Callable[[str], str]) -> str:
        """The value of this name, which `write` is asked to write where nobody has yet."""
        if name not in self._written:
            self._written.add(name)
            write(name)
        return name

    def body(self) -> Emitter:
        """For the nodes of a graph within this one, which sees its values and constants."""
        inner = copy(self)
        inner.nodes = []
        return inner

    def constant(self, value: Any, dtype: Any) -> str:
        array = np.array(value, dtype)
        name = f"constant.{array.dtype.name}{array.tolist()}".replace(" ", "")
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def integers(self, *values: int) -> str:
        """The constant vector int64 of these."""
        return self.constant(values, np.int64)

    def function_protos(self) -> list[onnx.FunctionProto]:
        return [FUNCTIONS[name]() for name in sorted(self.functions)]

    def _parameter(self, weight: Weight, part: str, dtype: DType, dims: tuple[int, ...]) -> str:
        name = weight.name if part == "data" else f"{weight.name}.{part}"
        wanted = Parameter(weight, part, dtype, dims)
        known = self.parameters.setdefault(name, wanted)
        if known != wanted:  # the same bytes under other dims: a tied embedding and head
            name = f"{name}{list(dims)}".replace(" ", "")
            self.parameters[name] = wanted
        return name
