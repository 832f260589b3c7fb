"""Backends without fault pass the whole suite, far from its limits; and what the suite is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

import ernie_rt_eager.backend
from ernie_rt.backend import Numerics, OpNumerics
from ernie_rt.conformance import LEVELS, Deviation, Expectations, Features, Report, Suite
from ernie_rt.conformance.cases import OpCase, digest, model_cases, op_cases
from ernie_rt.errors import BackendError, ConformanceError, OptionError
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import Plain
from ernie_rt.host import PluginHost
from ernie_rt.model.ernie45 import build_graph
from ernie_rt.runtime.scheduler import Scheduler
from ernie_rt.runtime.sequence import Sequence
from support.mutants import NumpyBackend, blocks, eager, host_of, sampling

CLEAN: dict[str, tuple[Callable[[], type], str]] = {
    "eager float32": (eager, "float32"),
    "eager bfloat16": (eager, "bfloat16"),
    "eager float16": (eager, "float16"),
    "composites": (lambda: NumpyBackend, "float32"),
    "blocks": (blocks, "float32"),
    "sampling": (sampling, "float32"),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_sound_backend_passes(name: str) -> None:
    backend, dtype = CLEAN[name]
    report = Suite("mutant", host_of(backend()), dtype=dtype).run()
    print(report.table())
    assert report.ok and report.levels == LEVELS
    for level in LEVELS[1:]:
        worst = report.worst(level)
        assert worst is not None and worst.figures["margin"] < 0.8, worst


@pytest.mark.parametrize("backend, dtype", [("reference", "float64"), ("eager", "bfloat16")])
def test_what_is_installed_is_examined_from_its_metadata_on(backend: str, dtype: str) -> None:
    report = Suite(backend, dtype=dtype).run(["L0"])
    assert report.ok and report.count("L0", "passed") == 8


def test_one_that_has_slots_and_runs_no_single_op() -> None:
    pytest.importorskip("onnxruntime")
    from support import onnx_backend

    promised = Features(moe=True, batches=True, deterministic=True)
    defect = Deviation("L2/moe-no-shared/logits", "its operator for experts has no norm_min")
    suite = Suite("onnx-slots", PluginHost(extra=[onnx_backend]), expectations=Expectations(promised, xfails=(defect,)))
    report = suite.run()
    assert report.ok, report.table()
    assert report.count("L2", "xfailed") == 1
    reasons = {r.check: r.reason for r in report.results if r.status == "skipped"}
    assert reasons["L3/moe/preempt"] == "a slot holds a whole sequence: nothing is ever preempted"


def test_one_that_samples_ahead_and_runs_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from support import capture_backend

    preempted: list[Sequence] = []
    preempt = Scheduler._preempt

    def counted(self: Scheduler, sequence: Sequence) -> None:
        preempted.append(sequence)
        preempt(self, sequence)

    monkeypatch.setattr(Scheduler, "_preempt", counted)
    expectations = Expectations(Features(moe=True, batches=True, deterministic=True))
    report = Suite("capture", PluginHost(extra=[capture_backend]), expectations=expectations).run(["L2", "L3"])
    assert report.ok and report.count("L3", "passed") == 18, report.table()
    assert len(preempted) >= 2  # or L3/*/preempt shows nothing


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_full_setting(dtype: str) -> None:
    report = Suite("eager", dtype=dtype, full=True).run(["L2"])
    print(report.table())
    assert report.ok and positions(report) >= 16_000


def positions(report: Report) -> float:
    return sum(r.figures.get("positions", 0) for r in report.results if r.check.startswith("L2"))


def test_hundreds_of_positions_are_teacher_forced() -> None:
    assert positions(Suite("eager", dtype="float32").run(["L2"])) >= 500
    full = sum(len(ids) + case.new_tokens - 1 for case in model_cases() for ids in case.prompts(full=True))
    assert full >= 16_000


def test_every_op_has_a_case() -> None:
    assert {case.op for case in op_cases()} == set(OPS)
    names = [case.key for case in op_cases()]
    assert len(set(names)) == len(names)


def test_numbers_are_those_of_every_language() -> None:
    """The digests of all inputs and weights, which docs/conformance.md lets others compare theirs with."""
    made: dict[str, str] = {}
    for case in op_cases():
        made[f"ops.json {case.key}"] = digest(_operands(case))
    for model in model_cases():
        weights = build_graph(model.config).weights
        made[f"models.json {model.name}"] = digest(
            {w.name: model.values(w) for w in weights if isinstance(w.storage, Plain)}
        )
    assert made == json.loads(DIGESTS.read_text())


DIGESTS = Path(__file__).with_name("digests.json")


def _operands(case: OpCase) -> dict[str, Any]:
    numbers = [param for param, spec in case.operands.items() if spec is not None and {"input", "weight"} & spec.keys()]
    return {"ids": case.ids()} | {
        param: case.values(param, "float64" if spec.get("dtype", "wide") in ("activation", "wide") else spec["dtype"])
        for param in numbers
        if (spec := case.operands[param]) is not None
    }


def test_listing_imports_no_backend() -> None:
    program = """
import sys
from ernie_rt.conformance import Suite
checks = Suite("eager").checks()
assert str(checks[0]) == "L0/announcement" and len(checks) > 100
assert "torch" not in sys.modules and "ernie_rt_eager.backend" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_check_can_be_verified_by_itself() -> None:
    class Broken(NumpyBackend):
        functions: ClassVar = {**NumpyBackend.functions, "swiglu": lambda x: x[..., 0]}

    checks = {str(check): check for check in Suite("mutant", host_of(Broken)).checks(["L1"])}
    assert checks["L1/rope/heads-of-4"].verify().status == "passed"
    with pytest.raises(ConformanceError, match=r"L1/swiglu/plain: off by .* its rms, .* times its noise; allowed"):
        checks["L1/swiglu/plain"].verify()


def test_what_is_not_promised_is_skipped() -> None:
    report = Suite("mutant", host_of(NumpyBackend), expectations=Expectations()).run()
    assert report.ok
    skipped = {r.check: r.reason for r in report.results if r.status == "skipped"}
    assert skipped["L1/linear/plain"] == "the backend does not promise ops"
    assert skipped["L2/moe/logits"] == "the backend does not promise moe"
    assert not any(name.startswith("L2/dense/") for name in skipped)


@pytest.mark.parametrize("promised", [["moe"], ["moe", "batches"], ["moe", "taps"]])
def test_experts_are_judged_without_being_seen(promised: list[str]) -> None:
    """A backend that shows no taps is held to the oracle wherever rounding cannot have changed an expert."""
    expectations = Expectations(Features(**dict.fromkeys(promised, True)))
    report = Suite("mutant", host_of(eager()), dtype="bfloat16", expectations=expectations).run(["L2", "L3"])
    assert report.ok, report.table()
    (logits,) = (r for r in report.results if r.check == "L2/moe/logits")
    assert (logits.figures["excused"] > 0) == ("taps" not in promised)
    assert logits.figures["positions"] > 100


def test_a_sloppy_declaration_excuses_nothing() -> None:
    class Sloppy(ernie_rt_eager.backend.EagerBackend):
        functions: ClassVar = {
            **ernie_rt_eager.backend.FUNCTIONS,
            "linear": lambda *a: ernie_rt_eager.backend.FUNCTIONS["linear"](
                *(None if x is None else x.bfloat16() for x in a)
            ).float(),
        }

        def numerics(self, target: Any) -> Numerics:
            return Numerics(OpNumerics("bfloat16", "bfloat16"))

    report = Suite("mutant", host_of(Sloppy), dtype="float32").run(["L0", "L1", "L2"])
    failed = {r.check for r in report.results if r.status == "failed"}
    assert {"L0/numerics", "L1/linear/plain", "L2/dense/logits", "L2/moe/logits"} <= failed
    (linear,) = (r for r in report.results if r.check == "L1/linear/plain")
    assert linear.figures["times"] < linear.figures["limit"]  # it keeps what it promises, and that is not enough


def test_impossible_wishes() -> None:
    with pytest.raises(OptionError, match="no backend 'nobody'"):
        Suite("nobody")
    with pytest.raises(OptionError, match="no level 'L9'"):
        Suite("reference").checks(["L9"])
    with pytest.raises(OptionError, match="no storage 'int4'"):
        Suite("reference", storage="int4")
    with pytest.raises(OptionError, match="has no device 'cuda'"):
        Suite("reference", device="cuda").run(["L0"])
    with pytest.raises(BackendError, match="needs nothing-like-this"):
        Suite("mutant", host_of(NumpyBackend, requires=("nothing-like-this>=9",), hint="pip")).run(["L0"])
