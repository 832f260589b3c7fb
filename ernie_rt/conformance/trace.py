"""Run a backend on a prompt and keep what each of its own pieces gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.build import build
from ernie_rt.choice import Choice
from ernie_rt.conformance.models import MAX_LOGITS
from ernie_rt.conformance.subject import Around
from ernie_rt.contract.protocols import Executable, Limits, Numerics, Target
from ernie_rt.contract.step import Done, Pending, Step, StepResult
from ernie_rt.errors import BackendError
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import Value
from ernie_rt.host import PluginHost, blame
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import OF_VISION
from ernie_rt.modeling.graphs import VISION
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.items import FEATURES
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.weights.source import WeightSource, storages_of

Array = npt.NDArray[Any]

MAX_TOKENS: Final = 2048


def most_tokens(config: ModelConfig) -> int:
    """How many tokens prompt and answer may have together, since every value of every token is kept: most of that are
    the logits, of which MAX_LOGITS fit."""
    return min(MAX_TOKENS, MAX_LOGITS // config.vocab_size, config.max_position_embeddings)


@dataclass(frozen=True, slots=True)
class Seen:
    """A step of the graph `vision`: what it took in, and what was tapped, by the name of the value with its scope."""

    inputs: Mapping[str, Array]
    found: Mapping[str, tuple[str, Array]]


@dataclass(frozen=True, slots=True)
class Trace:
    """A run: the graph as the backend runs it, the greedy tokens as it says them to a user, who asks for no other
    logits, and what was tapped while it was given these, by the name of the value its scope and `[N, ..]`, the logits
    of every token among it. `failure` kept it from continuing the prompt.

    Of a model that sees `vision` is the graph that encodes pictures, and `seen` what was tapped there, step by step.
    """

    choice: Choice
    graph: Graph
    numerics: Numerics
    tokens: tuple[int, ...]
    found: Mapping[str, tuple[str, Array]]
    failure: BackendError | None
    vision: Graph | None = None
    seen: tuple[Seen, ...] = ()

    @property
    def logits(self) -> Array:
        return self.found[self.graph.output("logits").name][1]


def trace(
    config: ModelConfig, choice: Choice, request: Request, source: WeightSource, host: PluginHost, threads: int | None
) -> Trace:
    """Run a request of one sequence on the backend that was chosen, twice: as it is, for the answer, and with
    `all_logits` and `taps` for the values, along that same answer.

    Taps that it does not hand back are missing among what was found. What keeps the backend from continuing the prompt,
    such as NaN among its logits, is kept as well: the prompt alone then shows where that comes from.
    """
    target, backend = Target((choice.device,), choice.dtype, threads), host.backend(choice.backend)
    limits = Limits(request.most_entered, max_batch_tokens=len(request.ids))
    with blame(choice.backend):
        numerics = backend.numerics(target)
        built = build(config, backend, target, storages_of(source))
        built = built.with_taps(_leaving(built.lowering.graph, config.vocab_size))
        lowering, vision = built.lowering, built.lowerings.get(VISION)
        if vision is not None:
            built = built.with_taps((*_leaving(vision.graph, config.vocab_size), *vision.graph.outputs), VISION)
        executable = built.compile(source, limits)
        failure: BackendError | None = None
        answer: tuple[int, ...] = ()
        try:
            try:
                answer = tuple(_run(executable, request, built.graphs).generated)
            except BackendError as error:
                failure = error
            seen = replace(request, max_new_tokens=len(answer), all_logits=True, taps=True, stop_ids=frozenset())
            prompted = _Prompted(executable, (*request.ids, *answer))
            sequence = _run(prompted, seen, built.graphs)
        finally:
            executable.close()
        logits = lowering.graph.output("logits").name
        found = {logits: ("head", np.concatenate(sequence.logits))}
        for scope, value in lowering.taps:
            if all(scope in step for step in sequence.taps):
                found[value.name] = (scope, np.concatenate([step[scope] for step in sequence.taps]))
    if vision is None:
        return Trace(choice, lowering.graph, numerics, answer, found, failure)
    taps = built.lowerings[VISION].taps
    steps = tuple(
        Seen(
            step.extra,
            {value.name: (value_scope(scope), result.taps[scope]) for scope, value in taps if scope in result.taps},
        )
        for step, result in prompted.seen
    )
    return Trace(choice, lowering.graph, numerics, answer, found, failure, vision.graph, steps)


def value_scope(tap: str) -> str:
    """Where a tap is: that of the output `features` where they are made."""
    return f"{OF_VISION}{FEATURES}" if tap == FEATURES else tap


def _leaving(graph: Graph, vocab_size: int) -> Iterator[tuple[str, Value]]:
    """A tap for every value of a lowered graph that goes from one scope into another."""
    readers = {(operand.name, node.scope) for node in graph.nodes for operand in node.inputs if operand}
    leaving: dict[str, list[tuple[str, Value]]] = {}  # by scope, with the op that gave it
    for node in graph.nodes:
        for value in node.outputs:
            wide = node.scope.startswith("head") and vocab_size in value.type.dims  # the logits come anyway
            told = wide or value.type.dtype == "bool" or node.op == "where"  # whose a token is follows from its id
            if not told and any(name == value.name and scope != node.scope for name, scope in readers):
                leaving.setdefault(node.scope, []).append((node.op, value))
    for scope, values in leaving.items():
        yield from _names(scope, values)


def _names(scope: str, values: Sequence[tuple[str, Value]]) -> Iterator[tuple[str, Value]]:
    """Names for the values that leave a scope: its own for the last one or, of a router, for the experts' ids."""
    ids = next((value for _, value in values if value.type.dtype == "int32"), None)
    own = ids or values[-1][1]
    for place, (op, value) in enumerate(values):
        if value is own:
            # `moe` stands in the scope of the block that it is a part of.
            yield (f"{scope}.moe" if op == "moe" else scope), value
        else:
            yield (f"{scope}.weights" if ids else f"{scope}.{op}{place}"), value


class _Prompted(Around):
    """An executable that draws the tokens of a text, whatever its logits say. One sequence runs on it."""

    def __init__(self, inner: Executable, text: Sequence[int]) -> None:
        super().__init__(inner)
        self._text = np.array((*text, 0), np.int32)
        self.seen: list[tuple[Step, StepResult]] = []

    @property
    def ahead(self) -> int:
        return 1

    def submit(self, step: Step) -> Pending:
        result = self.inner.submit(replace(step, ids=self._text[step.index])).result()
        if step.graph == VISION:
            self.seen.append((step, result))
            return Done(result)
        return Done(replace(result, tokens=self._text[step.lengths][:, None], counts=None))


def _run(executable: Executable, request: Request, graphs: Mapping[str, Graph]) -> SequenceState:
    engine = Engine(executable, request.most_entered, reuse=False, graphs=graphs)
    sequence = engine.submit(request)
    for _ in engine.run(sequence):
        pass
    return sequence
