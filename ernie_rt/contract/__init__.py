"""What a backend author imports."""

from ernie_rt.contract.bases import BackendBase, ExecutableBase
from ernie_rt.contract.contents import PagedContents, graphs_of
from ernie_rt.contract.findings import Executed, Finding
from ernie_rt.contract.interpreter import Interpreter
from ernie_rt.contract.memory import available_memory, check_memory
from ernie_rt.contract.planner import Device, Planner, Rate, Rates, activation_bytes, reading
from ernie_rt.contract.protocols import (
    Backend,
    CacheShape,
    Executable,
    Limits,
    MemoryReport,
    Numerics,
    OpNumerics,
    StepLimits,
    Target,
)
from ernie_rt.contract.simple import SimpleBackend, SimpleExecutable
from ernie_rt.contract.step import LAST_DRAWN, NO_NUMBER, Done, Pending, Step, StepResult
from ernie_rt.contract.timing import StepTimes, Stopwatch
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.legalize import Accept, Lowering, Reject
from ernie_rt.graph.types import DType, Operand, Plain, State, Storage, TensorType, Value, Weight
from ernie_rt.sampling.draws import Draws, draw
from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt.storage.rope import RopeTable
from ernie_rt.weights.source import Place, PlacedSource, WeightSource

__all__ = [
    "LAST_DRAWN",
    "NO_NUMBER",
    "Accept",
    "Backend",
    "BackendBase",
    "BlockQuantized",
    "CacheShape",
    "DType",
    "Device",
    "Done",
    "Draws",
    "Executable",
    "ExecutableBase",
    "Executed",
    "Finding",
    "Graph",
    "Interpreter",
    "Limits",
    "Lowering",
    "MemoryReport",
    "Node",
    "Numerics",
    "OpNumerics",
    "Operand",
    "PagedContents",
    "Pending",
    "Place",
    "PlacedSource",
    "Plain",
    "Planner",
    "Rate",
    "Rates",
    "Reject",
    "RopeTable",
    "SimpleBackend",
    "SimpleExecutable",
    "State",
    "Step",
    "StepLimits",
    "StepResult",
    "StepTimes",
    "Stopwatch",
    "Storage",
    "Target",
    "TensorType",
    "Value",
    "Weight",
    "WeightSource",
    "activation_bytes",
    "available_memory",
    "check_memory",
    "draw",
    "graphs_of",
    "reading",
]
