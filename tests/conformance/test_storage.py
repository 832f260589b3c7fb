"""Suites on quantised weights: what a backend is handed, and what judges it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ernie_rt.conformance import Expectations, Features, Result, Suite
from ernie_rt.conformance.cases import CaseWeights, model_cases, op_cases
from ernie_rt.conformance.storage import Quantized, numbers_of, parse_storage, planned
from ernie_rt.errors import OptionError
from ernie_rt.graph.types import Plain
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.storage.block_quantized import BlockQuantized
from support.mutants import BlocksBackend, NumpyBackend, RoundedBackend, eager, host_of


@pytest.mark.parametrize("text", ["int4", "int8/64", "int4/128/tiled", "int8/tiled"])
def test_spellings(text: str) -> None:
    how = parse_storage(text)
    assert how is not None and text.startswith(f"int{how.bits}")
    assert (how.layout == "tiled") == text.endswith("tiled")


@pytest.mark.parametrize("text", ["int3", "int4/16", "int4/32/raw", "INT4", "", "int4 tiled"])
def test_what_is_no_storage(text: str) -> None:
    with pytest.raises(OptionError, match="no storage"):
        Suite("reference", storage=text)


@pytest.mark.parametrize("text", ["int4", "int8/64", "int4/32/tiled"])
def test_parts_stand_for_the_numbers_that_the_oracle_has(text: str) -> None:
    how = parse_storage(text)
    assert how is not None
    case = next(case for case in model_cases() if case.name == "large-moe")
    graph, drawn = build_graph(case.config), CaseWeights(case)
    source, stored = Quantized(lambda: drawn, how, graph.weights), 0
    for weight in graph.weights:
        storage = planned(how, weight)
        if not isinstance(storage, BlockQuantized):
            continue
        stored += 1
        held = replace(weight, storage=storage)
        parts = {}
        for name, part in held.parts.items():
            parts[name] = np.empty(part.shape(), part.dtype)
            source.fill(held, name, parts[name])
        exact = numbers_of(source, held, {})
        plain = np.empty(weight.type.shape(), np.float32)
        source.fill(replace(weight, storage=Plain("float32")), "data", plain)
        np.testing.assert_array_equal(exact, plain)
        rows = exact.reshape(-1, *weight.row)
        read = storage.dequantize(storage.rows(parts, len(weight.row), 0, len(rows)))
        np.testing.assert_array_equal(read, rows)
        drawn_numbers = numbers_of(drawn, weight, {})
        error = np.sqrt(np.mean((exact - drawn_numbers) ** 2) / np.mean(drawn_numbers**2))
        assert error < (0.12 if storage.bits == 4 else 0.01)
    assert stored >= 8


def test_one_that_takes_blocks_is_handed_them() -> None:
    BlocksBackend.seen.clear()
    report = Suite("mutant", host_of(BlocksBackend), storage="int4").run(["L1"])
    assert report.ok and report.subject["storage"] == "int4"
    assert report.subject["accepts"] == {"int4/32": True, "int8/32": True}
    assert {BlockQuantized(4, 32), BlockQuantized(8, 32)} <= set(BlocksBackend.seen)
    quantised = {r.check.split("/")[1] for r in report.results}
    assert quantised == {case.op for case in op_cases() if case.name == "blocks"}


def test_one_that_does_not_is_handed_numbers() -> None:
    suite = Suite("mutant", host_of(eager()), dtype="bfloat16", storage="int4/64/tiled")
    report = suite.run(["L1"])
    assert report.ok and set(report.subject["accepts"].values()) == {False}


def test_whole_models() -> None:
    suite = Suite("mutant", host_of(BlocksBackend), storage="int8/32")
    (check,) = (check for check in suite.checks(["L2"]) if str(check) == "L2/moe/logits")
    assert check.run().status == "passed"


@pytest.mark.long
@pytest.mark.parametrize("storage", ["int4", "int8"])
def test_trained_weights(storage: str) -> None:
    report = Suite("mutant", host_of(BlocksBackend), storage=storage).run(["L2", "L3", "L4", "L5"])
    assert report.ok, report.table()
    changed = {r.check: r.figures["kl_plain"] for r in report.results if "kl_plain" in r.figures}
    assert len(changed) == 3 and all(1e-5 < value < 2 for value in changed.values()), "weights were quantised, not lost"
    assert not any("kl_plain" in r.figures for r in Suite("mutant", host_of(NumpyBackend)).run(["L4"]).results)


def rounded(name: str, backend: type = RoundedBackend, taps: bool = True) -> Result:
    """One check of a backend whose activations are int8, on weights in int4."""
    expectations = Expectations(Features(ops=True, moe=True, biases=True, batches=True, taps=taps))
    suite = Suite("mutant", host_of(backend), storage="int4", expectations=expectations)
    (check,) = (check for check in suite.checks([name[:2]]) if str(check) == name)
    return check.run()


def test_activations_in_int8_flip_experts_which_are_excused_where_they_are_not_shown() -> None:
    shown, hidden = rounded("L4/plain/logits"), rounded("L4/plain/logits", taps=False)
    assert shown.status == hidden.status == "passed", (shown, hidden)
    assert shown.figures["router_flips"] > 10
    # Its `moe` runs whole as well: judged by the experts that it shows in parts, nothing is left to excuse.
    assert shown.figures["excused"] == 0 < hidden.figures["excused"]
    assert shown.figures["margin"] < 0.5 and hidden.figures["margin"] < 0.8


def test_not_every_token_is_excused_where_every_choice_of_experts_is_close() -> None:
    wrong = type("Wrong", (RoundedBackend,), {"spoil": staticmethod(lambda step, logits: -logits)})
    result = rounded("L5/plain/greedy", wrong, taps=False)
    assert result.status == "failed" and result.reason.endswith("too many for flipped experts"), result


@pytest.mark.long
@pytest.mark.parametrize("taps", [True, False])
def test_activations_in_int8_on_trained_weights(taps: bool) -> None:
    for name in (f"L{level}/{kind}" for kind in ("chat", "plain", "long") for level in ("4", "5")):
        result = rounded(f"{name}/{'logits' if '4' in name[:2] else 'greedy'}", taps=taps)
        assert result.status == "passed", result
