"""Lower a graph to what a backend claims, and keep a record of every decision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ernie_rt.errors import LoweringError, OptionError
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.op import Op
from ernie_rt.graph.types import Operand, Value


@dataclass(frozen=True, slots=True)
class Accept:
    """The backend runs this node in one go."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The backend does not run this node as it is, and why."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason:
            raise LoweringError("a node was rejected without a reason", hint="Reject(…) takes one, in words")


Claim = Callable[[Node], Accept | Reject]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one node: kept (reason empty) or decomposed, for this reason."""

    scope: str
    op: str
    kept: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lowering:
    """A graph made only of nodes that a backend claims, the decisions that led there, and where each tap is read."""

    graph: Graph
    decisions: tuple[Decision, ...]
    taps: tuple[tuple[str, Value], ...] = ()


def legalize(graph: Graph, claims: Claim, taps: Collection[str] = ()) -> Lowering:
    """Keep what `claims` accepts, decompose the rest, recursively; only ever from a larger op to smaller ones.

    A tap is a scope whose first output is to be readable, or `scope:1` for the second; a claimed node that holds the
    scope inside is decomposed too. Raises LoweringError listing what stays unaccepted, OptionError for a tap that names
    no scope.
    """
    lowerer = _Lowerer(claims, frozenset(tap.partition(":")[0] for tap in taps))
    lowered = lowerer.run(graph)
    found = {
        f"{scope}:{place}" if place else scope: value
        for scope, outputs in lowerer.scopes.items()
        for place, value in enumerate(outputs)
    }
    unknown = sorted(set(taps) - set(found))
    if unknown:
        raise OptionError(
            f"no scope {unknown[0]!r} to tap",
            where=graph.name,
            hint="`ernie-rt graph MODEL --level composite --full` lists them",
        )
    if lowerer.refused:
        listed = "; ".join(f"{node.op} ({node.scope}): {reason}" for node, reason in lowerer.refused.values())
        hint = "A tap reaches as deep as the backend's own pieces; the reference has them all" if taps else None
        raise LoweringError(
            f"ops that the backend does not run and that do not decompose: {listed}", where=graph.name, hint=hint
        )
    return Lowering(lowered, tuple(lowerer.decisions), tuple((tap, found[tap]) for tap in sorted(set(taps))))


class _Lowerer:
    def __init__(self, claims: Claim, taps: frozenset[str]) -> None:
        self.claims = claims
        self.taps = taps
        self.builder = Builder()
        self.decisions: list[Decision] = []
        self.refused: dict[tuple[str, str], tuple[Node, str]] = {}
        self.scopes: dict[str, tuple[Value, ...]] = {}

    def run(self, graph: Graph) -> Graph:
        renamed: dict[str, Value] = {}
        for value in graph.inputs:
            renamed[value.name] = self.builder.input(value.name, value.type)
        for state in graph.states:
            self.builder.state(state.name, state.type, state.storage)
        for node in graph.nodes:
            outputs = self.lower(node, tuple(_rename(operand, renamed) for operand in node.inputs))
            renamed.update(zip((value.name for value in node.outputs), outputs, strict=True))
        return self.builder.finish(graph.name, {name: renamed[value.name] for name, value in graph.outputs})

    def lower(self, node: Node, inputs: tuple[Operand, ...]) -> tuple[Value, ...]:
        outputs = self.keep_or_decompose(node, inputs)
        self.scopes[node.scope] = outputs
        return outputs

    def keep_or_decompose(self, node: Node, inputs: tuple[Operand, ...]) -> tuple[Value, ...]:
        verdict = self.claims(node)
        if not isinstance(verdict, Accept | Reject):
            raise LoweringError("a claim is neither Accept nor Reject", where=node.scope, found=repr(verdict))
        reason = verdict.reason if isinstance(verdict, Reject) else self.tapped(node)
        if reason and node.spec.decompose is not None:
            self.decisions.append(Decision(node.scope, node.op, kept=False, reason=reason))
            inner, results = decompose(node)
            renamed = {
                old.name: new
                for old, new in zip(node.inputs, inputs, strict=True)
                if isinstance(old, Value) and isinstance(new, Value)
            }
            for child in inner:
                outputs = self.lower(child, tuple(_rename(operand, renamed) for operand in child.inputs))
                renamed.update(zip((value.name for value in child.outputs), outputs, strict=True))
            return tuple(renamed[value.name] for value in results)
        if reason:
            self.refused.setdefault((node.op, reason), (node, reason))
        self.decisions.append(Decision(node.scope, node.op, kept=not reason, reason=reason))
        with self.builder.scope(node.scope):
            return self.builder.multi(node.op, *inputs, **node.attributes)

    def tapped(self, node: Node) -> str:
        """Why a claimed node must be split for a tap, or an empty string."""
        inside = self.taps & inner_scopes(node) if self.taps else frozenset()
        return f"the tap {min(inside)} lies inside" if inside else ""


def decompose(node: Node) -> tuple[tuple[Node, ...], tuple[Value, ...]]:
    """The nodes that one node decomposes into, and which of their values stand for its outputs.

    The new nodes read the node's own inputs; their values are named after its first output, `<name>.0`, `<name>.1`, ….
    """
    return _decomposed(node, node.spec)


@lru_cache(maxsize=1024)
def _decomposed(node: Node, spec: Op) -> tuple[tuple[Node, ...], tuple[Value, ...]]:
    """Worked out once: who lowers a graph, plans it and judges it asks for the same nodes again and again."""
    assert spec.decompose is not None
    builder = Builder(prefix=f"{node.outputs[0].name}.")
    with builder.scope(node.scope):
        result = spec.decompose(builder, *node.inputs, **node.attributes)
    return tuple(builder.nodes), result if isinstance(result, tuple) else (result,)


def inner_scopes(node: Node) -> frozenset[str]:
    """Every scope that appears when the node is decomposed all the way, other than its own."""
    if node.spec.decompose is None:
        return frozenset()
    inner, _ = decompose(node)
    found = {child.scope for child in inner}.union(*(inner_scopes(child) for child in inner))
    return frozenset(found - {node.scope})


def _rename(operand: Operand, names: Mapping[str, Value]) -> Operand:
    return names[operand.name] if isinstance(operand, Value) else operand
