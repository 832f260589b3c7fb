"""Level 1: each op by itself, as a graph of one node, beside its float64 meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.cases import CaseWeights, OpCase
from ernie_rt.conformance.metrics import OP_LIMIT, op_figures
from ernie_rt.conformance.oracle import Route, Walk, bad_choice
from ernie_rt.conformance.rounding import EPSILON
from ernie_rt.conformance.storage import Quantized, numbers_of
from ernie_rt.conformance.subject import Outcome, Skip, Subject
from ernie_rt.contract.protocols import CacheShape, Executable, Limits, StepLimits
from ernie_rt.contract.step import Step
from ernie_rt.errors import LoweringError
from ernie_rt.graph.legalize import Lowering
from ernie_rt.graph.types import DType, Weight
from ernie_rt.weights.source import WeightSource

Array = npt.NDArray[Any]


def measure_op(subject: Subject, case: OpCase, factor: float) -> Outcome:
    """Run a case through the backend, the oracle and the yardstick. Raises Skip where the backend runs no such op."""
    plain = case.graph(subject.target.dtype)
    try:
        built = subject.build(plain)
    except LoweringError as error:
        raise Skip(f"not claimed, nor all that it decomposes into: {error.what}") from None
    graph, lowering = built.graph, built.lowering
    route = "native" if lowering.decisions[0].kept else "decomposed"
    limits = Limits(max(case.lengths), len(case.lengths), max(map(sum, case.steps)))
    source: WeightSource = CaseWeights(case)
    if subject.quantization is not None:
        drawn = source
        source = Quantized(lambda: drawn, subject.quantization, plain.weights)
    with subject.compiled(built.with_taps(lowering.graph.outputs), source, limits) as executable:
        steps = make_steps(case, executable, subject.target.dtype)
        found = [executable.submit(step).result().taps for step in steps]
    rows = executable.cache.page_size * executable.cache.pages

    def load(weight: Weight) -> Array:
        return numbers_of(source, weight, {"P": limits.max_context})

    dtype = subject.target.dtype
    oracle = Walk(graph, load, rows, dtype, None)
    yardstick = Walk(graph, load, rows, dtype, subject.numerics.of)
    exact, noisy, routes = [], [], []
    for step, taps in zip(steps, found, strict=True):
        bindings = step.bindings(graph)
        # The numbers are those that the backend was given; what is computed of them is float64 all the same.
        inputs = {
            name: array.astype(np.float64) if array.dtype.kind == "f" else array
            for name, array in step.inputs(graph).items()
        }
        walked = oracle.run(inputs, bindings)
        chosen = {scope: done.ids for scope, done in walked.routes.items()}
        if case.op == "moe_route":
            ids = taps.get("output.0")
            problem = _bad_ids(ids, walked.routes[case.op])
            if problem or ids is None:
                return Outcome({}, problem, route)
            chosen = {case.op: ids}
            walked.outputs = oracle.run(inputs, bindings, chosen).outputs
        rough = yardstick.run(inputs, bindings, chosen)
        exact.append(walked.outputs)
        noisy.append(rough.outputs)
        routes.append([(done, rough.routes[scope]) for scope, done in walked.routes.items()])
    return _judge(case, lowering, found, exact, noisy, routes, route, subject.grain(graph), factor)


def make_steps(case: OpCase, executable: Executable, dtype: DType) -> list[Step]:
    """The steps of a case, in whatever cache the executable has; its pages are handed out in a disorder."""
    ids = case.ids()
    wide = np.float64 if dtype == "float64" else np.float32
    tables = _tables(executable.cache, case.lengths)
    steps, start = [], 0
    past = np.zeros(len(case.lengths), np.int32)
    for place, counts in enumerate(case.steps):
        new = np.array(counts, np.int32)
        there = np.nonzero(new)[0].astype(np.int32)
        _check_admitted(executable.admits, new[there])
        stop = start + int(new.sum())
        given = case.given(dtype, start, stop)
        rows = range(0, stop - start, 2) if case.rows is None else case.rows[place]
        steps.append(
            Step(
                ids=ids[start:stop],
                query_start=np.concatenate([[0], np.cumsum(new[there])]).astype(np.int32),
                past=past[there],
                tables=tables[there],
                page_size=executable.cache.page_size,
                seats=there,
                rows=np.array(rows, np.int32),
                extra={name: a.astype(wide) if a.dtype.kind == "f" else a for name, a in given.items()},
            )
        )
        past, start = past + new, stop
    return steps


def _tables(cache: CacheShape, lengths: tuple[int, ...]) -> npt.NDArray[np.int32]:
    if cache.kind == "slots":
        return np.arange(len(lengths), dtype=np.int32)[:, None]
    pages = -(-max(lengths) // cache.page_size)
    if pages * len(lengths) > cache.pages:
        raise Skip(f"its cache has {cache.pages} pages of {cache.page_size} rows for {list(lengths)} tokens")
    # The last pages first, those of different sequences in turn.
    order = np.arange(cache.pages - 1, cache.pages - 1 - pages * len(lengths), -1, dtype=np.int32)
    return np.ascontiguousarray(order.reshape(pages, len(lengths)).T)


def _check_admitted(admits: StepLimits, new: npt.NDArray[np.int32]) -> None:
    prefills = int((new > 1).sum())
    if (
        new.sum() > admits.max_tokens
        or len(new) > admits.max_sequences
        or (not admits.mixed and 0 < prefills < len(new))
        or (admits.max_prefills is not None and prefills > admits.max_prefills)
    ):
        raise Skip(f"it admits no step of {new.tolist()} tokens")


def _judge(
    case: OpCase,
    lowering: Lowering,
    found: list[Any],
    exact: list[dict[str, Array]],
    noisy: list[dict[str, Array]],
    routes: list[list[tuple[Route, Route]]],
    route: str,
    activation: DType,
    factor: float,
) -> Outcome:
    figures: dict[str, float] = {}
    for name, value in lowering.graph.outputs:
        if any(name not in taps for taps in found):
            return Outcome({}, f"the tap {name} is not handed back", route)
        actual = np.concatenate([np.asarray(taps[name]) for taps in found])
        right = np.concatenate([outputs[name] for outputs in exact])
        if actual.shape != right.shape:
            return Outcome({}, f"{name} has the shape {list(actual.shape)}, not {list(right.shape)}", route)
        if value.type.dtype not in EPSILON:
            wrong = (actual != right).reshape(len(actual), -1).any(-1)
            if wrong.any() and case.op != "moe_route":
                row = int(wrong.argmax())
                return Outcome({}, f"{name}, row {row}: {actual[row].tolist()}, not {right[row].tolist()}", route)
            continue
        rough = np.concatenate([outputs[name] for outputs in noisy])
        actual = actual.astype(np.float64)
        if routes[0] and case.op != "moe_route":
            # Where experts are nearly as good as one another either choice is right, and only one can be compared.
            clear = np.concatenate(
                [
                    np.all([done.distance() > OP_LIMIT * done.noise(rough) for done, rough in pools], axis=0)
                    for pools in routes
                ]
            )
            actual, right, rough = actual[clear], right[clear], rough[clear]
        new = op_figures(actual, right, rough, value.type.dtype, activation, factor)
        if not figures or not new["margin"] <= figures["margin"]:
            figures = new
    problem = ""
    if figures and not figures["margin"] <= 1:
        problem = (
            f"off by {figures['error']:.3g} of its rms, {figures['times']:.3g} times its noise; "
            f"allowed are {figures['limit']:g} times, and {figures['backstop']:.2g}"
        )
    return Outcome(figures, problem, route)


def _bad_ids(ids: Array | None, route: Route) -> str:
    """What is wrong with the experts that a router chose, whose scores are known to float64."""
    if ids is None:
        return "the tap output.0 is not handed back"
    problem = bad_choice(ids, route.ids.shape, route.scores.shape[-1])
    if problem:
        return problem
    # Not even in float32 are scores that are equal in float64 told apart; of those the lowest ids are to be taken.
    noise = OP_LIMIT * EPSILON["float32"] * np.abs(route.scores).max(-1)
    gap = route.gap(ids)
    others = (np.sort(ids) != np.sort(route.ids)).any(-1)
    wrong = others & ((gap > noise) | (gap == 0))
    if not wrong.any():
        return ""
    row = int(wrong.argmax())
    return f"row {row} goes to experts {ids[row].tolist()}, not {route.ids[row].tolist()}"
