"""Levels 4 and 5: goldens that are current, and backends beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from ernie_rt.conformance import Suite, goldens
from ernie_rt.conformance.declared import Expectations, Features
from ernie_rt.conformance.goldens import (
    KINDS,
    NOISES,
    TOP,
    Goldens,
    divergence,
    noise_of,
    sketch,
    usual,
    weights_digest,
)
from ernie_rt.conformance.metrics import kl
from ernie_rt.contract import Numerics, OpNumerics, Step, Target
from ernie_rt.location import locate
from ernie_rt.reference.ops import MEANINGS
from ernie_rt.weights.hub import resolve
from support.mutants import COMPOSITES, NumpyBackend, eager, host_of

GOLDENS = Goldens.read()
RANDOM = np.random.default_rng(0)


def test_the_goldens_are_those_of_the_demo_model() -> None:
    """When this fails the demo model has changed: `python tools/goldens.py`."""
    assert weights_digest(resolve(GOLDENS.model)) == GOLDENS.digest
    GOLDENS.check(resolve(GOLDENS.model))


def test_they_are_small_and_many() -> None:
    kept = files("ernie_rt.conformance") / "cases" / "goldens.json"
    assert len(kept.read_bytes()) < 1_000_000
    positions = [len(text.positions) for text in GOLDENS.texts]
    assert sum(positions) >= 500 and {text.kind for text in GOLDENS.texts} == set(KINDS)
    assert max(len(text.ids) for text in GOLDENS.texts) > 1800
    assert sum(map(len, GOLDENS.more)) >= 16_000
    longest = locate(GOLDENS.model).config.max_position_embeddings
    assert all(len(text.ids) <= longest for text in GOLDENS.texts)


def test_they_agree_with_themselves() -> None:
    for text in GOLDENS.texts:
        after = text.positions[text.positions >= text.prompt - 1]
        assert list(after) == list(range(text.prompt - 1, len(text.ids)))  # every token of the answer can be judged
        answered = dict(zip(text.positions.tolist(), text.top[:, 0].tolist(), strict=True))
        assert [answered[text.prompt - 1 + i] for i in range(len(text.answer))] == list(text.answer)
        assert (np.diff(text.exact[:, :TOP]) <= 0).all() and set(text.noise) == set(NOISES)
        for finer, coarser in ("float32", "float16"), ("float16", "bfloat16"):
            assert np.median(text.noise[finer]) < np.median(text.noise[coarser])


def test_float32_decides_no_choice_of_experts_in_them() -> None:
    """After a choice that fell otherwise, whatever follows in the text is off: sums in another order would fail."""
    assert all(text.clear["float32"] == len(text.ids) for text in GOLDENS.texts)


def test_a_sketch_shows_what_whole_logits_show() -> None:
    logits = 3 * RANDOM.standard_normal((20, 400))
    found = logits + 0.01 * RANDOM.standard_normal(logits.shape)
    top = np.argsort(-logits)[:, :TOP]
    exact, seen = sketch(logits, top), sketch(found, top)
    np.testing.assert_allclose(np.logaddexp.reduce(exact[:, : TOP + 1], -1), np.logaddexp.reduce(logits, -1))
    assert divergence(exact, exact) == pytest.approx(0)
    part, whole = divergence(exact, seen), kl(logits, found)
    assert (part <= whole + 1e-12).all() and part.mean() > whole.mean() / 2
    low = np.argsort(logits)[:, :200]
    np.put_along_axis(found, low, 0, -1)  # what is unlikely all the same counts
    assert (np.abs(sketch(found, top) - exact)[:, -2:] > 0.3).all()


def test_goldens_of_other_weights_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = Goldens(GOLDENS.model, "0" * 64, GOLDENS.texts, GOLDENS.more)
    monkeypatch.setattr(goldens.Goldens, "read", classmethod(lambda cls: stale))
    report = Suite("mutant", host_of(NumpyBackend)).run(["L4"])
    assert not report.ok
    assert all("the goldens are of other weights" in r.reason for r in report.results)
    assert all("`python tools/goldens.py` makes them anew" in r.reason for r in report.results)


def test_arithmetic_that_is_coarser_than_the_usual_is_not_held_to_its_noise() -> None:
    assert noise_of("bfloat16", usual("bfloat16")) == "bfloat16"
    assert noise_of("bfloat16", Numerics(OpNumerics("float32", "float32"))) == "bfloat16"
    assert noise_of("float64", Numerics(OpNumerics("float64", "float64"))) == "float32"
    assert noise_of("float16", Numerics(OpNumerics("float16", "float16"))) is None
    assert noise_of("bfloat16", Numerics(OpNumerics("bfloat16", "float32"))) is None  # its router as well


def coarse() -> type:
    """One that declares less than the usual, so that the oracle itself judges it."""

    def numerics(self: object, target: Target) -> Numerics:
        return Numerics(OpNumerics("float32", "float32"), {"moe_route": OpNumerics("bfloat16", "bfloat16")})

    return type("Coarse", (NumpyBackend,), {"numerics": numerics})


SOUND: dict[str, tuple[Callable[[], type], str]] = {
    "eager bfloat16": (eager, "bfloat16"),
    "eager float32": (eager, "float32"),
    "eager float16": (eager, "float16"),
    "beside the oracle": (coarse, "float32"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name != "eager float32" else ()) for name in SOUND]
)
def test_a_sound_backend_passes(name: str) -> None:
    backend, dtype = SOUND[name]
    report = Suite("mutant", host_of(backend()), dtype=dtype).run(["L4", "L5"])
    print(report.table())
    assert report.ok and report.count("L4", "passed") == report.count("L5", "passed") == len(KINDS)
    for level in report.levels:
        worst = report.worst(level)
        # No margin at all is right where every token is the oracle's.
        assert level == "L5" if worst is None else worst.figures["margin"] < 0.8, worst


def test_experts_that_rounding_chose_are_judged_by_the_oracle() -> None:
    """In 16 bits some are sent elsewhere. Taps show which, so that nothing has to be excused unseen."""
    (check,) = (c for c in Suite("eager", dtype="bfloat16").checks(["L4"]) if str(c) == "L4/plain/logits")
    result = check.run()
    assert result.status == "passed", result
    assert result.figures["router_flips"] > 0 == result.figures["excused"]


def misrouted(marked: int) -> type:
    """One that sends a token to other experts than its scores say, for no reason."""

    def top_k(x: Any, k: int) -> Any:
        ids = MEANINGS["top_k"](x, k=k)
        if len(ids) > marked:
            ids[marked] = np.argsort(-x[marked], kind="stable")[-k:]
        return ids

    functions = {name: function for name, function in COMPOSITES.items() if name != "moe_route"}
    return type("Misrouted", (NumpyBackend,), {"functions": {**functions, "top_k": top_k}})


@pytest.mark.parametrize(
    "check, taps, message",
    [
        ("L4/plain/logits", True, "score better by"),
        ("L5/plain/greedy", True, "score better by"),
        ("L4/plain/logits", False, "promise `taps` to be judged by the experts that were chosen"),
    ],
)
def test_a_wrong_choice_of_experts_is_none_of_these(
    check: str, taps: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though every choice were close for all that the goldens know."""
    unclear = tuple(replace(text, clear=dict.fromkeys(NOISES, 0)) for text in GOLDENS.texts)
    known = Goldens(GOLDENS.model, GOLDENS.digest, unclear, GOLDENS.more)
    monkeypatch.setattr(goldens.Goldens, "read", classmethod(lambda cls: known))
    promised = Expectations(Features(ops=True, moe=True, biases=True, batches=True, taps=taps))
    suite = Suite("mutant", host_of(misrouted(3)), expectations=promised)
    (found,) = (each for each in suite.checks([check[:2]]) if str(each) == check)
    result = found.run()
    assert result.status == "failed" and message in result.reason, result
    assert ("promise" in result.reason) != taps


def test_answers_are_continued_where_they_part() -> None:
    """What comes after a token that differs is judged as well."""

    def once(step: Step, logits: Any) -> Any:
        return np.where((step.index[step.rows] == 45)[:, None], -logits, logits)

    wrong = type("Wrong", (NumpyBackend,), {"spoil": staticmethod(once)})
    (check,) = (c for c in Suite("mutant", host_of(wrong)).checks(["L5"]) if str(c) == "L5/plain/greedy")
    result = check.run()
    assert result.status == "failed" and result.reason.startswith("answer ")
    assert result.figures["tokens"] == sum(len(text.answer) for text in GOLDENS.of("plain"))
    assert result.figures["match"] < result.figures["length"]


def test_the_file_says_how_it_is_written() -> None:
    read = json.loads((files("ernie_rt.conformance") / "cases" / "goldens.json").read_text("utf-8"))
    assert read["format"] == goldens.FORMAT and read["model"] == "demo"


@pytest.mark.long
def test_the_full_setting() -> None:
    report = Suite("eager", dtype="bfloat16", full=True).run(["L4", "L5"])
    print(report.table())
    assert report.ok
    (logits,) = (r for r in report.results if r.check == "L4/more/logits")
    assert logits.figures["positions"] >= 16_000
