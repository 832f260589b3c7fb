"""Judge each piece of a run by itself: what it made of its own inputs, beside what float64 makes of the same inputs.

Errors travel: whatever comes after a wrong piece is wrong as well. So every piece is given what the backend itself fed
it, read from the taps, and only what it adds counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.metrics import OP_LIMIT, choice_noise
from ernie_rt.conformance.oracle import Route, bad_choice
from ernie_rt.conformance.rounding import EPSILON, Rounding, evaluate, multiples, rms, rows_rms, summary
from ernie_rt.contract.protocols import OpNumerics
from ernie_rt.contract.step import Step
from ernie_rt.files import Progress
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.legalize import decompose
from ernie_rt.graph.routers import ROUTERS
from ernie_rt.graph.types import DType, Operand, State, Value, Weight
from ernie_rt.runtime.items import FEATURES
from ernie_rt.weights.source import WeightSource

Array = npt.NDArray[Any]

LANES: Final = ("oracle", "drifting", "exact", "rounded")


@dataclass(frozen=True, slots=True)
class Flip:
    """A token that a backend sent to other experts than the oracle did.

    `gap` is by how much the oracle's choice scored better for the oracle, `noise` how far its scores were off there.
    """

    scope: str
    token: int
    gap: float
    noise: float


@dataclass(frozen=True, slots=True)
class Piece:
    """One tapped scope of one backend.

    `drift` is its distance from the oracle, which ran by itself, and `noise` what rounding alone brings there; both
    rms, over the rms of the oracle's values. `own` is what the piece adds to the error of its inputs, in multiples of
    the noise of its own rounding: beyond OP_LIMIT it is wrong, and `finding` says how. A router's choice has no drift
    and no noise, but `agreement`: the share of tokens that it sent where the oracle did.
    """

    scope: str
    drift: float | None
    noise: float | None
    own: float
    finding: str = ""
    agreement: float | None = None

    @property
    def wrong(self) -> bool:
        return not self.own <= OP_LIMIT


@dataclass(slots=True)
class Replay:
    """What a replay leaves: the pieces in the order in which they run, the flips, the choices that may have flipped and
    that no tap shows, and the last row of logits by the oracle `[V]` with the rms of what rounding alone does to the
    best of them. `from_last_tap` are the logits that follow from the last tap on, exactly and rounded, each `[V]`.

    A graph without logits, such as `vision`, has its output in place of these, of each lane whole: `lanes`.
    """

    pieces: list[Piece] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)
    hidden: list[Flip] = field(default_factory=list)
    logits: Array = field(default_factory=lambda: np.empty(0))
    noise: float = 0.0
    from_last_tap: tuple[Array, Array] = field(default_factory=lambda: (np.empty(0), np.empty(0)))
    lanes: dict[str, Array] = field(default_factory=dict)


def replay(
    graph: Graph,
    found: Mapping[str, tuple[str, Array]],
    source: WeightSource,
    numerics: Callable[[str], OpNumerics],
    activation: DType,
    step: Step,
    progress: Progress | None = None,
    features: Mapping[str, Array] | None = None,
) -> Replay:
    """Run a lowered graph once more and judge what a backend found.

    `found` are its taps by the name of the value: the scope and the array `[N, ..]`. The `step` brings all N tokens of
    one sequence and wants the logits of each, or is one of the graph `vision`. Weights are read when a node needs them,
    and let go after it. `progress` is told of nodes. `features` are what each lane takes in of pictures, where it is
    not the same.
    """
    return _Replayer(graph, found, source, numerics, activation, step, features or {}).run(progress)


class _Replayer:
    """Runs every node in four lanes.

    `oracle` is float64 and goes by itself; `drifting` rounds as the backend declares and goes by itself, but by the
    oracle's experts, since a flip is no rounding. `exact` and `rounded` do the same, starting at every tap anew from
    what the backend found.
    """

    def __init__(
        self,
        graph: Graph,
        found: Mapping[str, tuple[str, Array]],
        source: WeightSource,
        numerics: Callable[[str], OpNumerics],
        activation: DType,
        step: Step,
        features: Mapping[str, Array],
    ) -> None:
        self.graph = graph
        self.found = dict(found)
        self.source = source
        self.numerics = numerics
        self.activation = activation
        self.tokens = len(step.ids)
        self.bindings = step.bindings(graph)
        inputs = step.inputs(graph)
        self.lanes: dict[str, dict[str, Array]] = {
            lane: inputs | ({FEATURES: features[lane]} if lane in features else {}) for lane in LANES
        }
        self.weights: dict[str, dict[str, Array]] = {}  # by lane
        self.excused = np.zeros(self.tokens, bool)
        self.inside: dict[str, None] = {}  # an ordered set of scopes
        self.result = Replay()

    def run(self, progress: Progress | None) -> Replay:
        output = self.graph.outputs[0][1].name
        last_use = {o.name: i for i, node in enumerate(self.graph.nodes) for o in node.inputs if isinstance(o, Value)}
        last_use[output] = len(self.graph.nodes)
        hidden: dict[str, dict[str, None]] = {}  # scopes without a tap that a value is made of
        for i, node in enumerate(self.graph.nodes):
            rounding = Rounding(self.numerics(node.op), self.activation)
            self.weights = {}  # let go before the next ones come
            self.weights = {w.name: self.load(w, rounding) for w in node.inputs if isinstance(w, Weight)}
            self.inside = {s: None for o in node.inputs if isinstance(o, Value) for s in hidden.get(o.name, ())}
            self.step(node, rounding)
            if not any(value.name in self.found for value in node.outputs):
                hidden.update((value.name, {**self.inside, node.scope: None}) for value in node.outputs)
            for lane, values in self.lanes.items():
                self.lanes[lane] = {name: value for name, value in values.items() if last_use.get(name, -1) > i}
            if progress is not None:
                progress(i + 1, len(self.graph.nodes))
        self.result.lanes = {lane: values[output] for lane, values in self.lanes.items()}
        if not self.tokens:
            return self.result
        oracle, drifting, exact, rounded = (self.result.lanes.pop(lane) for lane in LANES)
        self.result.from_last_tap = exact[-1], rounded[-1]
        self.result.logits = oracle[-1]
        self.result.noise = float(choice_noise(oracle[-1:], drifting[-1:])[0])
        return self.result

    def load(self, weight: Weight, rounding: Rounding) -> dict[str, Array]:
        """A weight for each lane: as it is stored, as the backend was given it, and as that rounds."""
        shape = weight.type.shape({"P": self.tokens})
        given = np.empty(shape, weight.type.dtype)
        weight = weight.plain  # what codes stand for is what was stored
        self.source.fill(weight, "data", given)
        exact = stored = given.astype(np.float64)
        if not _holds(weight.type.dtype, weight.parts["data"].dtype):
            self.source.fill(weight, "data", stored := np.empty(shape))
        rounded = rounding.round(given, weight.type)
        return {"oracle": stored, "exact": exact, "drifting": rounded, "rounded": rounded}

    def read(self, operand: Operand, lane: str, dtype: str) -> Array | None:
        match operand:
            case Value(name):
                return self.lanes[lane][name]
            case Weight(name):
                return self.weights[name][lane]
            case State(_, type):  # one node reads it, and all tokens are new
                return np.zeros(type.shape({"R": self.tokens, "S": 1}), dtype)
        return None

    def step(self, node: Node, rounding: Rounding) -> None:
        """Run a node in every lane, judge what the backend found for its outputs, and go on from that."""
        if node.op in ROUTERS:  # in parts, to see the scores that were chosen from
            inner, results = decompose(node)
            for outer, result in zip(node.outputs, results, strict=True):
                if outer.name in self.found:
                    self.found[result.name] = self.found[outer.name]
            for child in inner:
                self.step(child, rounding)
            for values in self.lanes.values():
                for outer, result in zip(node.outputs, results, strict=True):
                    values[outer.name] = values[result.name]
            return
        for lane in LANES:
            rounds = lane in ("drifting", "rounded")
            dtype = rounding.numerics.accumulate if rounds else "float64"
            operands = [self.read(operand, lane, dtype) for operand in node.inputs]
            run = rounding.evaluate if rounds else evaluate
            computed = run(node, operands, self.bindings)
            self.lanes[lane].update(zip((output.name for output in node.outputs), computed, strict=True))
        if node.op == "top_k":
            self.choose(node)
            return
        for value in node.outputs:
            if value.name in self.found:
                self.judge(value, rounding.of(value.type))

    def choose(self, node: Node) -> None:
        """The choice of experts: judged where it is tapped; where not, tokens whose choice is a tie are excused."""
        (scored,), name = node.inputs, node.outputs[0].name
        assert isinstance(scored, Value)
        routes = {lane: Route(values[scored.name], values[name]) for lane, values in self.lanes.items()}
        exact, oracle = routes["exact"], routes["oracle"]
        noise = exact.noise(routes["rounded"])  # [N]
        self.lanes["drifting"][name] = oracle.ids
        self.lanes["rounded"][name] = exact.ids
        if name not in self.found:
            gap = exact.distance()
            ties = gap <= OP_LIMIT * noise
            self.excused |= ties
            self.result.hidden += [
                Flip(node.scope, int(token), float(gap[token]), float(noise[token])) for token in np.flatnonzero(ties)
            ]
            return
        scope, ids = self.found[name]
        problem = bad_choice(ids, exact.ids.shape, exact.scores.shape[1])
        if problem:
            self.add(Piece(scope, None, None, np.inf, problem, 0.0))
            return
        behind, gaps = exact.gap(ids), oracle.gap(ids)
        own = np.where(np.isfinite(noise), behind / noise, 0.0)
        worst = int(own.argmax())
        finding = ""
        if own[worst] > OP_LIMIT:
            finding = (
                f"token {worst} goes to experts {ids[worst].tolist()}, but {exact.ids[worst].tolist()} score better, "
                f"by {behind[worst]:.2g} with a noise of {noise[worst]:.1g}"
            )
        others = np.nonzero((np.sort(ids) != np.sort(oracle.ids)).any(-1))[0]
        drift = np.abs(exact.scores - oracle.scores).max(-1) + noise
        self.result.flips += [Flip(scope, int(token), float(gaps[token]), float(drift[token])) for token in others]
        self.add(Piece(scope, None, None, float(own[worst]), finding, 1 - len(others) / self.tokens))
        self.lanes["exact"][name] = self.lanes["rounded"][name] = ids

    def judge(self, value: Value, dtype: DType) -> None:
        scope, array = self.found[value.name]
        oracle, drifting, exact, rounded = (self.lanes[lane][value.name] for lane in LANES)
        if array.shape != exact.shape:
            problem = f"its shape is {list(array.shape)}, not {list(exact.shape)}"
            self.add(Piece(scope, None, None, np.inf, problem))
            return
        array = array.astype(np.float64)
        error = multiples(array, exact, rounded, EPSILON[dtype])
        error[~np.isfinite(rows_rms(exact))] = 0.0  # what was not finite before is not its fault
        if self.tokens:
            error[self.excused] = 0.0
        self.excused[:] = False
        own, worst = summary(error), int(error.argmax())
        finding = ""
        if not own <= OP_LIMIT:
            finding = f"off by {own:.3g} times its noise, most at token {worst}"
            if not np.isfinite(array[worst]).all():
                finding = f"NaN or infinity at token {worst}"
            elif inside := [hidden for hidden in self.inside if hidden != scope]:
                finding += f"; it takes in what has no tap of its own: {_some(inside)}"
        self.add(Piece(scope, _relative(array, oracle), _relative(drifting, oracle), own, finding))
        self.lanes["exact"][value.name] = self.lanes["rounded"][value.name] = array

    def add(self, piece: Piece) -> None:
        self.result.pieces.append(piece)


def _relative(x: Array, oracle: Array) -> float:
    with np.errstate(all="ignore"):
        error, scale = rms(x - oracle), rms(oracle)
    return 0.0 if error == 0 else error / scale if scale > 0 else np.inf


def _some(scopes: Sequence[str]) -> str:
    return ", ".join(scopes) if len(scopes) <= 3 else f"{scopes[0]} … {scopes[-1]}, {len(scopes)} in all"


def _holds(dtype: DType, stored: DType) -> bool:
    """Whether every number of dtype `stored` is one of `dtype`."""
    return dtype == stored or (dtype != "float16" and EPSILON[dtype] < EPSILON[stored])
