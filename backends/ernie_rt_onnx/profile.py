"""What ONNX Runtime's profiler writes: how long each of its nodes took, and for which of ours it ran."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

import onnx

from ernie_rt.contract import StepTimes

KERNEL: Final = "_kernel_time"
RUN: Final = "model_run"
MICROSECOND: Final = 1e-6
INLINED: Final = re.compile(r"_inlfunc_[A-Za-z]+(_token_\d+)?_")
"""What the names of nodes begin with that are the body of a call of a function."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The last run of a session: its seconds, and those of each node, by name and in order."""

    seconds: float
    nodes: Sequence[tuple[str, float]]

    def times(self, seconds: float, made_for: Mapping[str, str]) -> StepTimes:
        """Those of nodes of ours, of a step that took so many seconds in all.

        `made_for` says for which node of ours each was written, `inlined` calls of functions included. ONNX Runtime
        fuses nodes, which it then names `Mul_12/QuickGeluFusion`, and adds some: what runs between two that were
        written for the same node of ours is counted with them.
        """
        owners = [made_for.get(_written(name)) for name, _ in self.nodes]
        before = accumulate(owners, _last)
        after = reversed([*accumulate(reversed(owners), _last)])
        found: dict[str, float] = {}
        added = 0.0
        for (_, taken), last, next in zip(self.nodes, before, after, strict=True):
            if last is not None and last == next:
                found[last] = found.get(last, 0.0) + taken
            else:
                added += taken
        within = self.seconds - added - sum(found.values())
        others = {
            "nodes that ONNX Runtime added": added,
            "ONNX Runtime between nodes": within,
            "before and after ONNX Runtime": seconds - self.seconds,
        }
        return StepTimes(seconds, found, others)


def _last(known: str | None, owner: str | None) -> str | None:
    return owner or known


def _written(name: str) -> str:
    """What a node is named after, that was written: a call of a function, the last of some that were fused, itself."""
    call = INLINED.match(name)
    return name.partition("/")[0] if call is None else call[0]


def inlined(nodes: Iterable[onnx.NodeProto], functions: Collection[str]) -> dict[str, str]:
    """How the names of nodes begin into which ONNX Runtime turns each call of `functions`, with the call's name."""
    found: dict[str, str] = {}
    calls: dict[str, int] = {}
    for node in nodes:
        if node.op_type in functions:
            number = calls.setdefault(node.op_type, 0)
            calls[node.op_type] += 1
            found[f"_inlfunc_{node.op_type}_token_{number - 1}_" if number else f"_inlfunc_{node.op_type}_"] = node.name
    return found


def read_profile(path: Path) -> Profile:
    """The last run in a file of the profiler, whose events come in the order in which they ended."""
    events = json.loads(path.read_text(encoding="utf-8"))
    runs = [event for event in events if event["name"] == RUN]
    last = runs[-1]
    nodes = [
        (event["name"].removesuffix(KERNEL), event["dur"] * MICROSECOND)
        for event in sorted(events, key=lambda event: event["ts"])
        if event.get("cat") == "Node"
        and event["name"].endswith(KERNEL)
        and event["ts"] >= last["ts"]
        and event.get("args", {}).get("op_name") != "Loop"  # whose nodes are there themselves
    ]
    return Profile(last["dur"] * MICROSECOND, nodes)
