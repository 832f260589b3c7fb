"""Suites on quantised weights: what a backend is handed, and what judges it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ernie_rt.conformance import Suite
from ernie_rt.conformance.cases import CaseWeights, model_cases, op_cases
from ernie_rt.conformance.storage import Quantized, numbers_of, parse_storage, planned
from ernie_rt.errors import OptionError
from ernie_rt.graph.types import Blocks, Plain
from ernie_rt.model.ernie45 import build_graph
from ernie_rt.weights.blocks import dequantize, from_tiles
from support.mutants import BlocksBackend, NumpyBackend, eager, host_of


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
        if not isinstance(storage, Blocks):
            continue
        stored += 1
        held = replace(weight, storage=storage)
        parts = {}
        for name, part in storage.parts(weight.type).items():
            parts[name] = np.empty(part.shape(), part.dtype)
            source.fill(held, name, parts[name])
        exact = numbers_of(source, held, {})
        plain = np.empty(weight.type.shape(), np.float32)
        source.fill(replace(weight, storage=Plain("float32")), "data", plain)
        np.testing.assert_array_equal(exact, plain)
        codes, scales = parts["codes"], parts["scales"]
        if storage.layout == "tiled":
            experts = weight.type.shape()[0] if "experts" in weight.name else 0
            pairs = [from_tiles(codes[i], scales[i], storage) for i in (range(experts) if experts else [...])]
            codes, scales = (np.stack(each) for each in zip(*pairs, strict=True))
        read = dequantize(codes, scales, storage).reshape(-1, weight.type.shape()[-1])
        np.testing.assert_array_equal(read[: exact.size // exact.shape[-1]], exact.reshape(-1, exact.shape[-1]))
        drawn_numbers = numbers_of(drawn, weight, {})
        error = np.sqrt(np.mean((exact - drawn_numbers) ** 2) / np.mean(drawn_numbers**2))
        assert error < (0.12 if storage.bits == 4 else 0.01)
    assert stored >= 8


def test_one_that_takes_blocks_is_handed_them() -> None:
    BlocksBackend.seen.clear()
    report = Suite("mutant", host_of(BlocksBackend), storage="int4").run(["L1"])
    assert report.ok and report.subject["storage"] == "int4"
    assert report.subject["accepts"] == {"int4/32": True, "int8/32": True}
    assert {Blocks(4, 32), Blocks(8, 32)} <= set(BlocksBackend.seen)
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
    assert len(changed) == 3 and all(1e-4 < value < 2 for value in changed.values())
    assert not any("kl_plain" in r.figures for r in Suite("mutant", host_of(NumpyBackend)).run(["L4"]).results)
