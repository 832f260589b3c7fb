"""benchmarks/gpu.py: what it counts and prints, and that each part runs where there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton")

import gpu
from ernie_rt.graph.cost import distinct_experts, graph_cost
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.modeling.families import DENSE_0_3B, MOE_21B_A3B
from gpu_parts.commands import read, so_far
from gpu_parts.report import Measured, Report, shown
from gpu_parts.traffic import decode_bytes, expert_bytes, moe_nodes, prompt_flops

ROOT = Path(__file__).parents[2]


def test_bytes_of_the_experts_seen() -> None:
    graph = build_graph(MOE_21B_A3B, "bfloat16")
    one = 3 * 2560 * 1536 * 2
    assert [expert_bytes(node) for node in moe_nodes(graph)] == [one] * 27
    counted = decode_bytes(graph, 8, 1, [20.0] * 27)
    assert decode_bytes(graph, 8, 1, [21.0] * 27) - counted == pytest.approx(27 * one)
    expected = graph_cost(graph, {"N": 8, "C": 8, "L": 8})
    as_expected = decode_bytes(graph, 8, 1, [distinct_experts(64, 6, 8)] * 27)
    assert as_expected == pytest.approx(expected.weight_bytes + expected.cache_bytes, rel=1e-6)


def test_bytes_of_one_token() -> None:
    """6.71 GB: attention, dense layer, router, six experts and the shared ones of each layer, head."""
    graph = build_graph(MOE_21B_A3B, "bfloat16")
    weights = 28 * (3584 + 2560) * 2560 + 3 * 12288 * 2560 + 27 * (6 * 3 * 1536 + 3 * 3072) * 2560 + 103424 * 2560
    router = 27 * 64 * 2560 * 4
    assert decode_bytes(graph, 1, 1, [6.0] * 27) == pytest.approx(2 * weights + router, rel=1e-4)
    longer = decode_bytes(graph, 1, 4096, [6.0] * 27) - decode_bytes(graph, 1, 1, [6.0] * 27)
    assert longer == pytest.approx(4095 * 28 * 2 * 4 * 128 * 2)


def test_a_dense_model_has_no_experts() -> None:
    graph = build_graph(DENSE_0_3B, "bfloat16")
    assert decode_bytes(graph, 1, 1, []) == pytest.approx(0.721e9, rel=0.01)


@pytest.mark.parametrize("at_once", [512, 100])
def test_flops_of_a_prompt(at_once: int) -> None:
    """However it is cut, but for the logits of each step's last token."""
    graph = build_graph(replace(DENSE_0_3B, num_hidden_layers=2), "bfloat16")
    whole = graph_cost(graph, {"N": 512, "C": 512, "L": 1}).flops
    head = 2 * 1024 * 103424
    steps = -(-512 // at_once)
    assert prompt_flops(graph, 512, at_once) - (steps - 1) * head == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(
    ("cell", "text"), [("x", "x"), (6712, "6,712"), (0.04131, "0.0413"), (385.23, "385"), (12607.4, "12,607"), (0, "0")]
)
def test_cells(cell: str | int | float, text: str) -> None:
    assert shown(cell) == text


@pytest.mark.parametrize(("dry", "time"), [(False, "2.5"), (True, "?")])
def test_a_dry_run_hides_what_it_cannot_measure(
    dry: bool, time: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = Report({"card": "none"}, dry=dry, limit=100)
    report.table("Speed", "rows  ", "ms", "GB").row("4", Measured(2.5), 0.25)
    report.write(tmp_path / "r.json")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "rows            ms          GB",
        f"4     {time:>12}        0.25",
    ]
    (table,) = json.loads((tmp_path / "r.json").read_text())["tables"]
    assert table == {"title": "Speed", "columns": ["rows", "ms", "GB"], "rows": [["4", None if dry else 2.5, 0.25]]}


def test_what_fails_is_told_and_the_rest_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report({}, dry=False, limit=100)
    with report.attempt("a product"):
        raise ValueError("of nothing")
    assert not report.ok
    assert "FAILED: a product: ValueError: of nothing" in capsys.readouterr().out


def test_what_does_not_fit_in_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report({}, dry=False, limit=10)
    assert report.has(5, "little") and not report.has(60, "much")
    assert report.ok
    assert capsys.readouterr().out.rstrip().endswith("s are left: much")


def test_what_commands_say() -> None:
    results = [{"check": "L1 rope", "status": "failed", "reason": "far off"}, {"check": "L1 add", "status": "passed"}]
    suite = json.dumps({"levels": {"L1": {"passed": 1, "failed": 1}}, "results": results})
    assert read(suite) == ("1 passed, 1 failed", ["L1 rope: far off"])
    assert read("....\n==== 4 passed in 1.2s ====\n") == ("4 passed in 1.2s", [])
    assert read("") == ("", [])
    lines = "eager on cuda:0 in float32\npassed L0 a\nfailed L1 rope: far off\nskipped L1 add\n"
    assert so_far(lines) == ("1 passed, 1 failed", ["L1 rope: far off"])


@pytest.mark.parametrize(
    "given", [[], ["--part", "other"], ["--part", "decode", "--model", "7B"], ["--part", "check", "--limit", "soon"]]
)
def test_arguments_that_are_not_possible(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.arguments(given)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("part", gpu.PARTS)
def test_a_dry_run(part: str, tmp_path: Path) -> None:
    """Every part to its end, and no figure in it."""
    command = [sys.executable, "benchmarks/gpu.py", "--part", part, "--dry-run", "--json", str(tmp_path / "r.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["dry_run"] and not report["failures"]
    assert all(table["rows"] for table in report["tables"]) and report["tables"]
