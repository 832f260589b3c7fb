"""Where the time of a step goes: its nodes by op and place in the model, and what else is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ernie_rt.contract import Done, ExecutableBase, MemoryReport, Node, Step, StepTimes
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request
from ernie_rt.session import Model

TIMED_DECODES: Final = 5
LAYER: Final = re.compile(r"(?<=^layers\.)\d+")
UNEXPLAINED: Final = "not accounted for"


@dataclass(frozen=True, slots=True)
class OpTime:
    """So many nodes of an op that have a place in the model in common, such as `layers.*.mlp`, and their seconds in a
    step; None: the backend does not tell. What is no node has no op, and `where` says what it is."""

    op: str
    where: str
    count: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class StepByOp:
    """One step: `seconds` of all of it, and its parts, which are these seconds together; the longest first."""

    kind: str
    seconds: float
    parts: tuple[OpTime, ...]


class Timed:
    """An executable of which every step is timed."""

    def __init__(self, executable: ExecutableBase) -> None:
        self._executable = executable
        self.cache, self.admits, self.ahead = executable.cache, executable.admits, executable.ahead
        self.steps: list[StepTimes] = []

    def submit(self, step: Step) -> Done:
        result, times = self._executable.timed(step)
        self.steps.append(times)
        return Done(result)

    def copy(self, source: int, destination: int, length: int) -> None:
        self._executable.copy(source, destination, length)

    def memory(self) -> MemoryReport:
        return self._executable.memory()

    def close(self) -> None:
        """It is another's."""


def steps_by_op(model: Model, ids: Sequence[int]) -> tuple[StepByOp, ...]:
    """The steps that read a prompt, together, and the median of a few decodes after it."""
    executable = model.executable
    if not isinstance(executable, ExecutableBase):
        return ()
    timed = Timed(executable)
    engine = Engine(timed, model.limits.max_context, reuse=False)
    decodes = TIMED_DECODES
    for _ in engine.run(engine.submit(Request(tuple(ids), 1 + decodes))):
        pass
    nodes = model.lowering.graph.nodes
    return (
        by_op(f"prompt of {len(ids)}", _together(timed.steps[:-decodes]), nodes),
        by_op(f"a token after {len(ids)}", _median(timed.steps[-decodes:]), nodes),
    )


def by_op(kind: str, times: StepTimes, nodes: Iterable[Node]) -> StepByOp:
    """Nodes that are not known, beside others that are, are part of these: ONNX Runtime fuses some."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        grouped.setdefault((node.op, LAYER.sub("*", node.scope)), []).append(node.outputs[0].name)
    parts = []
    for (op, where), names in grouped.items():
        known = [times.nodes[name] for name in names if name in times.nodes]
        parts.append(OpTime(op, where, len(names), sum(known) if known else None))
    parts += [OpTime("", what, 1, seconds) for what, seconds in times.others.items()]
    parts.append(OpTime("", UNEXPLAINED, 1, times.unexplained))
    return StepByOp(kind, times.seconds, tuple(sorted(parts, key=lambda part: -(part.seconds or 0.0))))


def _together(steps: Sequence[StepTimes]) -> StepTimes:
    return StepTimes(
        sum(step.seconds for step in steps),
        {name: sum(step.nodes[name] for step in steps) for name in steps[0].nodes},
        {what: sum(step.others[what] for step in steps) for what in steps[0].others},
    )


def _median(steps: Sequence[StepTimes]) -> StepTimes:
    """The step that took the median time, whole, so that its parts are its own."""
    return sorted(steps, key=lambda step: step.seconds)[len(steps) // 2]
