"""Level 0: a backend says of itself what is true, and importing what announces it costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from ernie_rt.build import Build
from ernie_rt.conformance.cases import CaseWeights, ModelCase, model_cases
from ernie_rt.conformance.rounding import EPSILON
from ernie_rt.conformance.subject import Outcome, Skip, Subject
from ernie_rt.contract.protocols import Executable, Limits
from ernie_rt.discovery import child
from ernie_rt.discovery.announcement import SECONDS, check
from ernie_rt.discovery.installed import discover
from ernie_rt.discovery.requirements import requirements
from ernie_rt.errors import CapacityError, PluginError
from ernie_rt.graph.graph import Node
from ernie_rt.graph.legalize import Reject, decompose
from ernie_rt.graph.ops import OPS
from ernie_rt.modeling.ernie45 import build_graph

HEAVY: Final = ("torch", "numpy", "onnx", "onnxruntime", "tensorflow", "jax", "triton", "cupy", "scipy", "transformers")
LIMITS: Final = Limits(64, 2, 16)


def announcement(subject: Subject) -> Outcome:
    """Every field of the BackendInfo is what it should be; what needs packages says how to get them."""
    info = subject.info
    try:
        check(info)
    except PluginError as error:
        return Outcome(problem=str(error))
    if not info.summary:
        return Outcome(problem="the summary is empty")
    if info.requires and not info.hint:
        return Outcome(problem="it requires packages, and has no hint that says how to get them")
    return Outcome()


def light_import(subject: Subject) -> Outcome:
    """The module that announces the backend imports no large library, nor the backend itself."""
    plugin = next((p for p in discover() if p.name == subject.info.name), None)
    if plugin is None:
        raise Skip("not installed: it was handed over as a module")
    module = plugin.module.partition(":")[0]
    loaded, _ = child.call("ernie_rt.discovery.child:modules_of", module, seconds=SECONDS, doing=f"importing {module}")
    required = {requirement.name.replace("-", "_") for requirement in requirements(subject.info)}
    heavy = sorted({*HEAVY, *required, subject.info.target.partition(":")[0]} & set(loaded))
    return Outcome({"modules": float(len(loaded))}, f"importing {module} imports {', '.join(heavy)}" if heavy else "")


def devices(subject: Subject) -> Outcome:
    """It names its devices, each of a kind for which it announces dtypes."""
    named = subject.backend.devices()
    strange = [d for d in named if not isinstance(d, str) or d.partition(":")[0] not in subject.info.dtypes]
    if strange:
        return Outcome(problem=f"it announces no dtypes for its device {strange[0]!r}")
    if subject.backend.devices() != named:
        return Outcome(problem="it names other devices the second time")
    return Outcome({"devices": float(len(named))})


def claims(subject: Subject) -> Outcome:
    """Asked twice about a node, in whatever order, it says the same, and a reason where it does not claim it."""
    nodes = [node for case in model_cases() for node in _every(build_graph(case.config, subject.target.dtype).nodes)]
    first = [subject.claims(node) for node in nodes]
    second = [subject.claims(node) for node in reversed(nodes)][::-1]
    for node, verdict, again in zip(nodes, first, second, strict=True):
        if verdict != again:
            return Outcome(problem=f"{node.op} ({node.scope}): it says {verdict} first, and then {again}")
        if isinstance(verdict, Reject) and not verdict.reason.strip():
            return Outcome(problem=f"{node.op} ({node.scope}): it is rejected without a reason")
    claimed = {node.op for node, verdict in zip(nodes, first, strict=True) if not isinstance(verdict, Reject)}
    return Outcome({"ops": float(len(claimed))})


def numerics(subject: Subject) -> Outcome:
    """The arithmetic that it promises is made of float dtypes, sums are no coarser than products, and no op's name is
    misspelt."""
    promised = subject.numerics
    strange = sorted(promised.ops.keys() - OPS.keys())
    if strange:
        return Outcome(problem=f"it promises something for {strange[0]!r}, which is no op")
    for name, op in {"default": promised.default, **promised.ops}.items():
        if op.compute not in EPSILON or op.accumulate not in EPSILON:
            return Outcome(problem=f"{name}: {op.compute} and {op.accumulate} are not both float dtypes")
        if EPSILON[op.accumulate] > EPSILON[op.compute]:
            return Outcome(problem=f"{name}: sums in {op.accumulate} are coarser than products in {op.compute}")
        if EPSILON[op.compute] > EPSILON[subject.target.dtype]:
            return Outcome(
                problem=f"{name}: computes in {op.compute}, coarser than the {subject.target.dtype} asked for"
            )
    return Outcome()


def memory(subject: Subject) -> Outcome:
    """It reports at least the bytes of weights and cache, its bill says the same before that, and it refuses, by
    CapacityError, what exceeds a limit."""
    case, built = _model(subject)
    with subject.compiled(built, CaseWeights(case), LIMITS) as executable:
        bill, report = built.bill(LIMITS), executable.memory()
    # No backend stores a weight in less than its dtype says, as long as storages are plain.
    least = sum(w.type.nbytes({"P": 1}) for w in built.graph.weights)
    cells = LIMITS.max_context * 2 * case.config.num_key_value_heads * case.config.head_dim
    figures = {"weight_bytes": float(report.weight_bytes), "cache_bytes": float(report.cache_bytes)}
    if report.weight_bytes < least:
        return Outcome(figures, f"it reports {report.weight_bytes} bytes of weights, which have {least}")
    if report.cache_bytes < cells * case.config.num_hidden_layers:
        return Outcome(figures, f"it reports {report.cache_bytes} bytes of cache for {LIMITS.max_context} tokens")
    if (bill.weight_bytes, bill.cache_bytes) != (report.weight_bytes, report.cache_bytes):
        return Outcome(figures, f"its bill says {bill.weight_bytes} bytes of weights and {bill.cache_bytes} of cache")
    small = Limits(LIMITS.max_context, LIMITS.max_sequences, LIMITS.max_batch_tokens, memory_bytes=1000)
    try:
        with subject.compiled(built, CaseWeights(case), small):
            return Outcome(figures, "it loads a model that is larger than the limit it was given")
    except CapacityError:
        return Outcome(figures)


def shape(subject: Subject) -> Outcome:
    """The cache has room for what was asked for, and some step is admitted."""
    case, built = _model(subject)
    with subject.compiled(built, CaseWeights(case), LIMITS) as executable:
        return Outcome(problem=_shape(executable))


def close(subject: Subject) -> Outcome:
    """Closing twice is harmless."""
    case, built = _model(subject)
    with subject.compiled(built, CaseWeights(case), LIMITS) as executable:
        executable.close()
    return Outcome()


METADATA: Final[Mapping[str, Callable[[Subject], Outcome]]] = {
    "announcement": announcement,
    "light-import": light_import,
    "devices": devices,
    "claims": claims,
    "numerics": numerics,
    "memory": memory,
    "shape": shape,
    "close": close,
}


def _shape(executable: Executable) -> str:
    cache, admits = executable.cache, executable.admits
    if cache.kind not in ("paged", "slots"):
        return f"its cache is {cache.kind!r}, neither paged nor slots"
    rows = cache.page_size if cache.kind == "slots" else cache.page_size * cache.pages
    if rows < LIMITS.max_context or cache.pages < 1:
        return f"its cache has {rows} rows for a sequence of {LIMITS.max_context} tokens"
    if admits.max_tokens < 1 or admits.max_sequences < 1 or admits.max_prefills == 0:
        return f"it admits {admits}"
    if type(executable.ahead) is not int or executable.ahead < 0:
        return f"ahead is {executable.ahead!r}, no number of steps"
    return ""


def _model(subject: Subject) -> tuple[ModelCase, Build]:
    """A model with its weights as they are, whatever the suite stores them as."""
    case = model_cases()[0]
    return case, replace(subject, quantization=None).build(build_graph(case.config, subject.target.dtype))


def _every(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """Nodes with all that they decompose into."""
    for node in nodes:
        yield node
        if node.spec.decompose is not None:
            yield from _every(decompose(node)[0])
