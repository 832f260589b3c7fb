"""`ernie-rt plan`, `ernie-rt explain`, and `--why`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import ernie_rt
from ernie_rt.cli.loaded import _reasons as reasons
from ernie_rt.contract import Device
from ernie_rt.host import PluginHost
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.hub import DEMO
from ernie_rt.weights.quantize import Quantization, quantize_model
from support.commands import command
from support.terminal import Terminal

HERE = Device(
    "this CPU", "cpu", 1 << 34, 40e9, {"float32": 3e11, "bfloat16": 6e11, "int8": 12e11}, "made up",
    frozenset({"avx512_bf16"}),
)  # fmt: skip


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ernie_rt.planning.machine", "ernie_rt.explanation"):
        monkeypatch.setattr(f"{module}.this_machine", lambda: HERE)
    monkeypatch.setattr("ernie_rt.planning.machine.these_gpus", lambda: ())


def test_a_plan_of_a_model_that_nobody_has_here() -> None:
    ran = command("plan", "300B-A47B")
    assert (ran.code, ran.err) == (0, "")
    assert "cache: 221,184 bytes a token in bfloat16" in ran.out
    for name in ("bfloat16", "fp8", "int8", "int4", "int3", "2-bit"):
        (line,) = [line for line in ran.out.splitlines() if line.startswith(f"{name} ")]
        assert ("not yet runnable" in line) == (name in ("fp8", "int3", "2-bit"))
    assert "65,536 tokens: nothing that runs here fits" in ran.out and "\n131,072 tokens: " in ran.out


def test_a_plan_ends_with_a_command_that_runs() -> None:
    ran = command("plan", "demo", "--context", "512")
    *_, line = ran.out.splitlines()
    assert line.strip() == "ernie-rt run demo --backend onnx --device cpu --max-context 512"
    ran = command(*line.split()[1:], "How many grams are in 5 kilograms?")
    assert (ran.code, ran.out) == (0, "5 kilograms = 5000 grams\n")


def test_a_plan_with_pictures_in_the_prompt(tmp_path: Path) -> None:
    shown = ("--image", "1920x1080", "--image", "640x480", "--video", "60x1280x720")
    card = ("--device", "H100 SXM", "--storage", "bfloat16")
    ran = command("plan", "VL-28B-A3B", *shown, *card)
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines()]
    said = [" ".join(row) for row in rows]
    assert "image 1920x1080 1932x1092 10,764 2,691 33.34 TFLOPs 147.2 MiB 13.1 MiB" in said
    assert [row[3:5] for row in rows if row[:1] == ["video"]] == [["287,040", "35,880"]]
    assert "TOWER s  FIRST TOKEN s\n65,536 " in ran.out and "\n1,024 " not in ran.out  # which has no room for them
    here = json.loads(command("plan", "VL-28B-A3B", *shown[:2], "--context", "4k", "--storage", "int4", "--json").out)
    assert [each["tokens"] for each in here["vision"]["shown"]] == [1008]  # on a CPU
    small = ("--image", "640x480", "--image", "20x20", "--html", tmp_path / "plan.html", "--json")
    own = command("plan", "demo-vl", *small).out  # by a file of its own
    assert [each["tokens"] for each in json.loads(own)["vision"]["shown"]] == [12, 16]
    assert "<td>112x84</td>" in (tmp_path / "plan.html").read_text("utf-8")
    page = (Path(__file__).parents[2] / "docs/planning.md").read_text("utf-8")
    written = [*here["vision"], *here["vision"]["shown"][0]]
    assert [key for key in written if f"`{key}`" not in page] == []
    for arguments, message in (
        (("VL-28B-A3B", *shown, "--context", "4k"), "--context is not possible; expected 37281, to have room for"),
        (("VL-28B-A3B", "--image", "receipt.jpg"), "--image is not a size; expected WIDTHxHEIGHT"),
        (("0.3B", *shown), "the model takes in text alone, no pictures and no videos; found 3 of them"),
        (("VL-28B-A3B", "--text-only", *shown), "the model takes in text alone"),
    ):
        wrong = command("plan", *arguments)
        assert wrong.code == 2 and message in wrong.err, wrong.err


def test_explain_tells_of_the_tower_too() -> None:
    told = json.loads(command("explain", "VL-28B-A3B", "--weights", "int4", "--backend", "onnx", "--json").out)
    counts = {each["op"]: each["count"] for each in told["ops"] if each["kept"]}
    assert counts["layer_norm"] == 32 * 2 + 1 + 2 and counts["gelu"] == 32 + 2


def test_a_plan_says_that_what_fits_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PluginHost, "missing", lambda self, name: f"needs {name}")
    assert "\n512 tokens: what fits is not installed: " in command("plan", "demo", "--context", "512").out


def test_a_plan_as_json_and_for_a_named_device() -> None:
    told = json.loads(command("plan", "0.3B", "--context", "1k,4k", "--sequences", 2, "--json").out)
    assert [each["context"] for each in told["choices"]] == [1024, 4096] and told["sequences"] == 2
    assert told["device"]["name"] == "this CPU"
    page = (Path(__file__).parents[2] / "docs/planning.md").read_text("utf-8")
    written = [*told, *told["weights"]["int4"], *told["device"], *told["candidates"][0], *told["choices"][0]]
    assert [key for key in written if f"`{key}`" not in page] == []
    told = json.loads(command("plan", "0.3B", "--device", "rtx 4090", "--storage", "int8,fp8", "--json").out)
    assert "4090" in told["device"]["name"] and list(told["weights"]) == ["int8", "fp8"]
    assert command("plan", "0.3B", "--device", "list").out.startswith("DEVICE ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "no such model"),
        (("",), "no such model"),
        (("~no-such-user",), "no such model"),
        (("demo", "--context", "4k"), "--context is not possible; expected 2 to 2048, .*; found 4096"),
        (("demo", "--context", "a"), "not a size"),
        (("demo", "--storage", "int5"), "no storage 'int5' is known; expected all, or some of"),
        (("demo", "--storage", "Int4"), "Did you mean 'int4'"),
        (("demo", "--device", "RTX 9999"), "no device 'RTX 9999' is known"),
        (("demo", "--dtype", "fp32"), "unknown dtype 'fp32'"),
    ],
)
def test_what_is_not_possible(arguments: tuple[str, ...], message: str) -> None:
    ran = command("plan", *arguments)
    assert ran.code == 2 and re.search(message, ran.err) and ran.out == ""


BUDGET = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "ernie_rt", "plan", "300B-A47B", "--device", "H100 SXM"], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processor time is read as Unix tells it")
def test_a_plan_takes_less_than_a_second() -> None:
    """Of processor time, which a core that is shared stretches: what takes longer is tried again."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    took: list[float] = []
    while len(took) < 4 and min(took, default=1.0) >= 1.0:
        ran = subprocess.run([sys.executable, "-c", BUDGET], capture_output=True, text=True, env=environment)
        assert ran.returncode == 0 and "300B-A47B: 299,484,163,264 parameters" in ran.stdout
        took.append(float(ran.stderr))
    assert min(took) < 1.0, took


def test_explain_says_every_decision() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    ran = command("explain", "demo")
    lines = ran.out.splitlines()
    assert ran.code == 0 and lines[0].startswith("onnx on cpu in float32: ")
    assert "not cudagraph: it runs on cuda alone" in ran.out or "not cudagraph: needs " in ran.out
    assert "\nnot eager: predicted to take " in ran.out
    assert "\n5 moe run as they are\n" in ran.out and "\n1 cast runs as it is\n" in ran.out
    assert "\n5 moe_block decomposed: no operator does it whole" in ran.out
    assert "19.0 MiB of weights converted from bfloat16 to float32" in ran.out


def test_explain_of_a_backend_and_a_form() -> None:
    pytest.importorskip("torch")
    told = json.loads(command("explain", "0.3B", "--backend", "eager", "--weights", "int4", "--json").out)
    assert (told["backend"], told["reason"]) == ("eager", "asked for")
    assert told["passed_over"]["reference"].startswith("eager was asked for; predicted to take ")
    assert any("dequantised from int4" in note for note in told["fallbacks"])
    assert {"op": "linear", "count": 73, "kept": True, "reason": None} in told["ops"]
    assert command("explain", "0.3B", "--backend", "egaer").code == 2


@pytest.mark.parametrize("context", ["0", "9k"])
def test_explain_cuts_no_context(context: str) -> None:
    ran = command("explain", "demo", "--max-context", context)
    assert ran.code == 2 and "max_context is not possible; expected 1 to 2048" in ran.err


def test_explain_of_what_is_quantised_already(tmp_path: Path) -> None:
    quantize_model(DEMO, read_config(DEMO), tmp_path / "int8", Quantization(8))
    ran = command("explain", tmp_path / "int8", "--weights", "int4")
    assert ran.code == 2 and "the model is quantised already" in ran.err
    told = json.loads(command("plan", tmp_path / "int8", "--json").out)
    assert list(told["weights"]) == ["as stored"]


def test_why_is_what_explain_says() -> None:
    pytest.importorskip("onnxruntime")
    ran, explained = command("run", DEMO, "5 + 5 =", "-n", "2", "--why"), command("explain", DEMO)
    said = ran.err.splitlines()
    settled = [line for line in explained.out.splitlines() if "predicted" not in line and "faster" not in line]
    assert ran.code == 0 and len(settled) > 10 and all(line in said for line in settled)


def test_what_a_loaded_model_has_taken_is_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--why` speaks once the model is there, and would otherwise count it twice."""
    pytest.importorskip("onnxruntime")
    with ernie_rt.load("demo", backend="reference") as model:
        free = replace(HERE, memory_bytes=model.memory().workspace_bytes)
        monkeypatch.setattr("ernie_rt.explanation.this_machine", lambda: free)
        assert not [line for line in reasons(model) if "does not fit" in line]


def test_cards_that_hold_it() -> None:
    ran = command("plan", "21B-A3B", "--context", "32k", "--storage", "int4", "--gpus")
    assert (ran.code, ran.err) == (0, "")
    first, _, header, smallest, *rest = ran.out.splitlines()
    assert re.fullmatch(r"21B-A3B, int4, 32,768 tokens: 1\d\.\d GiB", first) and header.startswith("HELD BY ")
    assert re.match(r"NVIDIA \S.* 1\d\.\d GiB +1\d\.\d GiB +\d+% ", smallest)
    assert any(line.startswith("2 x NVIDIA ") for line in rest)
    assert "ernie-rt itself runs a model on one device" in rest[-1]


def test_cards_for_each_form_and_context() -> None:
    ran = command("plan", "300B-A47B", "--gpus", "--storage", "bfloat16,2-bit", "--context", "1k,64k")
    _, *rows = [re.split(r"  +", line) for line in ran.out.split("\n\n")[0].splitlines()]
    assert [row[:2] for row in rows] == [
        ["1,024", "bfloat16"], ["1,024", "2-bit"], ["65,536", "bfloat16"], ["65,536", "2-bit"],
    ]  # fmt: skip
    assert rows[0][3:5] == ["-", "-"] and rows[0][5] == "8 x NVIDIA H100 SXM"
    assert rows[1][3].startswith("NVIDIA ") and rows[1][4].startswith("Apple ")
    told = json.loads(command("plan", "0.3B", "--gpus", "--context", "1k", "--storage", "int8", "--json").out)
    ((each,)) = told["holders"]
    assert (each["weights"], each["context"]) == ("int8", 1024)
    assert all(device["count"] == 1 and device["bytes"] <= device["room_bytes"] for device in each["devices"])


def test_a_plan_is_drawn(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    ran = command("plan", "demo", "--html", page, "--device", "M4 24GB")
    assert (ran.code, ran.err) == (0, "") and ran.out.startswith("demo: ")
    text = page.read_text("utf-8")
    assert "<title>What demo takes</title>" in text
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["devices"][data["chosen"]["device"]]["name"] == "Apple M4 24GB"
    assert data["devices"][0]["name"] == HERE.name and data["devices"][0]["here"]


def test_where_no_page_can_be_is_said_before_anything_else(tmp_path: Path) -> None:
    ran = command("plan", "nothing", "--html", tmp_path / "absent" / "plan.html")
    assert ran.code == 1 and "absent" in ran.err and "Make its folder first" in ran.err


def test_on_a_terminal_it_says_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    page = tmp_path / "plan.html"
    with Terminal("plan", "demo", "--html", page, "--storage", "int4", "--context", "1k") as terminal:
        terminal.wait("planning demo …")
        terminal.wait("drawing ")
        terminal.wait("ernie-rt run demo --weights int4")


def test_each_form_once() -> None:
    made = json.loads(command("plan", "demo", "--storage", "int4,int8,int4", "--json").out)
    assert len(made["candidates"]) == len({(e["weights"], e["backend"], e["context"]) for e in made["candidates"]})


def test_a_choice_that_reads_from_disk_says_so() -> None:
    out = command("plan", "300B-A47B", "--device", "9950X 16GB", "--context", "1k").out
    assert "\n1,024 tokens: int4 on onnx in float32, its weights read from disk again and again (" in out
