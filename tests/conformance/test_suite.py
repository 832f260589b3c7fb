"""Backends without fault pass the whole suite, far from its limits; and what the suite is made of."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F

import ernie_rt_eager.backend
from ernie_rt.conformance import Deviation, Expectations, Features, Report, Suite
from ernie_rt.conformance.cases import OpCase, digest, model_cases, op_cases
from ernie_rt.conformance.subject import Skip
from ernie_rt.contract import Accept, Node, Numerics, OpNumerics, Reject, Target
from ernie_rt.errors import BackendError, ConformanceError, OptionError
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import Plain
from ernie_rt.host import PluginHost, blame
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.modeling.graphs import build_graphs, weights_of
from ernie_rt.runtime.scheduler import Scheduler
from support.mutants import NumpyBackend, blocks, eager, host_of, sampling


def experts_weighed_before_down() -> type:
    """The weight of an expert can as well go into what `down` is given."""

    def experts(x: Any, ids: Any, weights: Any, gate_up: Any, down: Any, *, top_k: int) -> Any:
        out = torch.zeros_like(x)
        for expert in ids[ids >= 0].unique().tolist():
            token, place = (ids == expert).nonzero(as_tuple=True)
            halves = F.linear(x[token], gate_up[expert].flatten(0, 1)).unflatten(-1, (-1, 2))
            y = F.silu(halves[..., 0]) * halves[..., 1] * weights[token, place, None].to(x.dtype)
            out.index_add_(0, token, F.linear(y, down[expert]))
        return out

    functions = {**ernie_rt_eager.backend.FUNCTIONS, "moe_experts": experts}
    return type("Backend", (eager(),), {"functions": functions})


def summed_in_four() -> type:
    """Products whose sums are made of four parts, each rounded."""
    linear = ernie_rt_eager.backend.FUNCTIONS["linear"]

    def parts(x: Any, weight: Any, bias: Any = None) -> Any:
        y = sum(linear(a, b) for a, b in zip(x.tensor_split(4, -1), weight.tensor_split(4, -1), strict=True))
        return y if bias is None else y + bias

    return type("Backend", (eager(),), {"functions": {**ernie_rt_eager.backend.FUNCTIONS, "linear": parts}})


CLEAN: dict[str, tuple[Callable[[], type], str, tuple[str, ...]]] = {
    "eager float32": (eager, "float32", ("L1", "L2")),
    "eager bfloat16": (eager, "bfloat16", ("L1", "L2", "L3")),
    "eager float16": (eager, "float16", ("L1", "L2")),
    "composites": (lambda: NumpyBackend, "float32", ("L1",)),
    "blocks": (blocks, "float32", ("L1", "L3")),
    "sampling": (sampling, "float32", ("L3",)),
    "experts weighed before down": (experts_weighed_before_down, "bfloat16", ("L1", "L2")),
    "summed in four": (summed_in_four, "bfloat16", ("L1", "L2")),
}


SLOW = {"eager float16", "blocks", "sampling", "experts weighed before down", "summed in four"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in SLOW else ()) for name in CLEAN])
def test_a_sound_backend_passes(name: str) -> None:
    backend, dtype, levels = CLEAN[name]
    report = Suite("mutant", host_of(backend()), dtype=dtype).run(levels)
    print(report.table())
    assert report.ok and report.levels == levels
    for level in report.levels:
        worst = report.worst(level)
        assert worst is not None and worst.figures["margin"] < 0.8, worst
    assert "L2" not in levels or positions(report) >= 500


@pytest.mark.parametrize("backend, dtype", [("reference", "float64"), ("eager", "bfloat16")])
def test_what_is_installed_is_examined_from_its_metadata_on(backend: str, dtype: str) -> None:
    report = Suite(backend, dtype=dtype).run(["L0"])
    assert report.ok and report.count("L0", "passed") == 8


def test_one_that_samples_ahead_and_runs_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from support import capture_backend

    preempted: list[int] = []
    preempt = Scheduler._preempt

    def counted(self: Scheduler, seat: int) -> None:
        preempted.append(seat)
        preempt(self, seat)

    monkeypatch.setattr(Scheduler, "_preempt", counted)
    expectations = Expectations(Features(moe=True, batches=True, deterministic=True))
    report = Suite("capture", PluginHost(extra=[capture_backend]), expectations=expectations).run(["L3"])
    assert report.ok and report.count("L3", "passed") == 28, report.table()
    assert len(preempted) >= 2  # or L3/*/preempt shows nothing


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_full_setting(dtype: str) -> None:
    report = Suite("eager", dtype=dtype, full=True).run(["L2"])
    print(report.table())
    assert report.ok and positions(report) >= 16_000


def positions(report: Report) -> float:
    return sum(r.figures.get("positions", 0) for r in report.results if r.check.startswith("L2"))


def test_thousands_of_positions_are_teacher_forced_at_the_full_setting() -> None:
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
        weights = weights_of(build_graphs(model.config)).values()
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
    report = Suite("mutant", host_of(NumpyBackend), expectations=Expectations()).run(["L1", "L2"])
    assert report.ok
    skipped = {r.check: r.reason for r in report.results if r.status == "skipped"}
    assert skipped["L1/linear/plain"] == "the backend does not promise ops"
    assert skipped["L2/moe/logits"] == "the backend does not promise moe"
    assert not any(name.startswith("L2/dense/") for name in skipped)


@pytest.mark.parametrize("promised", [["moe"], ["moe", "batches"], ["moe", "taps"]])
def test_experts_are_judged_without_being_seen(promised: list[str]) -> None:
    """A backend that shows no taps is held to the oracle wherever rounding cannot have changed an expert."""
    expectations = Expectations(Features(**dict.fromkeys(promised, True)))
    suite = Suite("mutant", host_of(eager()), dtype="bfloat16", expectations=expectations)
    results = [check.run() for check in suite.checks(["L2"]) if str(check).startswith(("L2/moe", "L2/large-moe"))]
    assert {r.status for r in results} <= {"passed", "skipped"}, results
    (logits,) = (r for r in results if r.check == "L2/moe/logits")
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

    wanted = {"L0/numerics", "L1/linear/plain", "L2/dense/logits", "L2/moe/logits"}
    checks = Suite("mutant", host_of(Sloppy), dtype="float32").checks(["L0", "L1", "L2"])
    results = {str(check): check.run() for check in checks if str(check) in wanted}
    assert {result.status for result in results.values()} == {"failed"}, results
    linear = results["L1/linear/plain"]
    assert linear.figures["times"] < linear.figures["limit"]  # it keeps what it promises, and that is not enough


class Particular(NumpyBackend):
    """Whole models with heads of a multiple of `heads`, and no primitives but what comes between its larger ops."""

    heads: ClassVar = 32

    def claims(self, node: Node, target: Target) -> Accept | Reject:
        if node.op == "rope_attention" and node.attributes["head_dim"] % self.heads:
            return Reject(f"head_dim is no multiple of {self.heads}")
        primitive = node.spec.level == "primitive" and node.op not in ("add", "cast", "take_rows")
        if primitive or node.op in ("attention", "rope"):
            return Reject("no kernel")
        return super().claims(node, target)


def test_a_skip_is_no_fault_of_a_backend() -> None:
    with pytest.raises(Skip, match=r"^it admits no such step$"), blame("mutant"):
        raise Skip("it admits no such step")


def test_a_model_that_a_backend_does_not_run_is_skipped() -> None:
    promised = Features(ops=True, moe=True, biases=True, batches=True, taps=True, deterministic=True)
    suite = Suite("mutant", host_of(Particular), expectations=Expectations(promised))
    report = suite.run(["L2"])
    assert report.ok, report.table()
    (cancel,) = (check.run() for check in suite.checks(["L3"]) if str(check) == "L3/moe/cancel")
    reasons = {r.check: r.reason for r in (*report.results, cancel) if r.status == "skipped"}
    assert (
        reasons["L2/dense/logits"]
        == reasons["L3/moe/cancel"]
        == (
            "it does not run this model: attention_block: no function of this name; "
            "rope_attention: head_dim is no multiple of 32; slice: no kernel"
        )
    )
    assert not any("/large-" in name or "/moe-interval-biases/" in name for name in reasons)


def test_a_kind_of_model_of_which_none_runs_fails() -> None:
    wide = type("Wide", (Particular,), {"heads": 256})
    failed = {r.check: r.reason for r in Suite("mutant", host_of(wide)).run(["L2"]).results if r.status == "failed"}
    assert {"L2/large-dense/logits", "L2/large-moe/logits", "L2/dense/logits"} <= failed.keys()
    assert "slice (layers.0.attention.attend): no kernel" in failed["L2/dense/logits"]


def test_a_report_of_nothing_is_not_ok() -> None:
    suite = Suite("mutant", host_of(NumpyBackend), expectations=Expectations())
    nothing = suite.run(["L1"])
    assert not nothing.ok and nothing.untried == ("L1",)
    alone = sum(not case.needs for case in op_cases())
    assert f"\nnothing passed in L1\nnot promised: ops ({alone})\n" in nothing.table()
    some = suite.run(["L0", "L1"])
    assert some.ok and f"\nnot promised: ops ({alone})\n" in some.table()


def test_a_level_that_is_declared_away_is_not_ok() -> None:
    expectations = Expectations(Features(ops=True), skips=(Deviation("L1/*", "once upon a time"),))
    report = Suite("mutant", host_of(NumpyBackend), expectations=expectations).run(["L0", "L1"])
    assert not report.ok and report.untried == ("L1",)
    declared = sum(r.because.startswith("declared") for r in report.results)
    assert declared > 0 and f"\nskipped, as declared: L1/*: once upon a time ({declared})" in report.table()


def test_a_failure_without_figures_is_the_worst() -> None:
    wrong = type("Wrong", (sampling(),), {"choose": staticmethod(lambda step, logits: logits.argmin(-1))})
    report = Suite("mutant", host_of(wrong), expectations=Expectations()).run(["L2"])
    worst = report.worst("L2")
    assert worst is not None and worst.status == "failed" and worst.figures["margin"] == math.inf
    assert " inf\n" in report.table() and report.to_json()["levels"]["L2"]["margin"] is None


def test_impossible_wishes() -> None:
    with pytest.raises(OptionError, match="no backend 'nobody'"):
        Suite("nobody")
    with pytest.raises(OptionError, match="no level 'L9'"):
        Suite("reference").checks(["L9"])
    with pytest.raises(OptionError, match="no storage 'int3'"):
        Suite("reference", storage="int3")
    with pytest.raises(OptionError, match="has no device 'cuda'"):
        Suite("reference", device="cuda").run(["L0"])
    with pytest.raises(BackendError, match="needs nothing-like-this"):
        Suite("mutant", host_of(NumpyBackend, requires=("nothing-like-this>=9",), hint="pip")).run(["L0"])


def test_a_checkpoint_is_judged_with_the_head_that_it_stores(with_own_head: Path) -> None:
    """Whatever its config says of ties."""
    suite = Suite("reference", dtype="float32", model=with_own_head)
    (specimen,) = suite._specimens(False)
    assert "head.weight" in {weight.name for weight in build_graph(specimen.config).weights}
    assert suite.run(["L2"]).ok
