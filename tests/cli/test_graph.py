"""`ernie-rt graph`: the printed graph, its levels and lowerings, and its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ernie_rt.graph.json import graph_from_json
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import dtype_of
from ernie_rt.graph.verify import verify
from ernie_rt.modeling.config import read_config
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.modeling.families import find
from ernie_rt.weights.manifest import STORAGES
from support.commands import command

TOTALS = {
    "0.3B": (360_748_032, 360_748_032),
    "21B-A3B": (21_825_437_888, 3_352_150_208),
    "300B-A47B": (299_484_163_264, 47_926_586_560),
}


@pytest.mark.parametrize("name", TOTALS)
def test_a_known_name_needs_no_checkpoint(name: str) -> None:
    ran = command("graph", name)
    total, active = TOTALS[name]
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("graph main\n  input  %ids: i32[N]\n")
    assert f"parameters {total:,} (" in ran.out and f"active {active:,} (" in ran.out
    assert "more alike, up to layers." in ran.out
    same = command("graph", f"baidu/ERNIE-4.5-{name}-Paddle").out
    assert same == ran.out


def test_the_graph_of_a_tower_costs_what_a_picture_does() -> None:
    ran = command("graph", "VL-28B-A3B", "--graph", "vision", "--image", "1920x1080")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("graph vision\n  input  %patches: f32[S, 588]\n")
    assert "… and 31 more alike, up to vision.layers.31\n" in ran.out
    assert "parameters 774,658,560 (775 M)\na picture of 1920x1080, resized to 1932x1092: 10,764 patches" in ran.out
    rows = [line.split() for line in ran.out.partition("BLOCK")[2].splitlines()[1:]]
    costs = {block: (int(number), int(flops.replace(",", ""))) for block, number, flops, _ in rows}
    assert costs["attention"][0] == costs["mlp"][0] == 32 and costs["spatial"][0] == 1
    assert sum(flops for _, flops in costs.values()) == 2 * costs["all"][1]
    assert 33.3e12 < costs["all"][1] < 33.4e12
    assert "1,564 patches, 391 tokens" in command("graph", "VL-28B-A3B", "--graph", "vision").out
    assert "640x480, resized to 112x84: 48 patches, 12" in command("graph", "demo-vl", "--graph", "vision").out


def test_the_text_of_a_model_that_sees() -> None:
    whole, text = command("graph", "VL-28B-A3B"), command("graph", "VL-28B-A3B", "--text-only")
    assert "parameters 28,624,635,776 (28.6 B), active 3,352,150,208 (3.35 B)\n" in whole.out
    assert text.out == command("graph", "21B-A3B").out
    for arguments in (("VL-28B-A3B", "--text-only", "--graph", "vision"), ("0.3B", "--graph", "vision")):
        assert "takes in text alone: it has no graph `vision`" in command("graph", *arguments).err
    assert "--image is of the graph `vision`" in command("graph", "VL-28B-A3B", "--image", "28x28").err


def test_a_folder(untrained: Path) -> None:
    ran = command("graph", untrained)
    assert ran.code == 0 and "moe_block" in ran.out and "one token after 1,023: " in ran.out
    (totals,) = [line for line in ran.out.splitlines() if line.startswith("parameters ")]
    assert totals == "parameters 1,213,592 (1.21 M), active 771,224 (771 k)"


def test_full_prints_every_layer() -> None:
    folded, full = command("graph", "21B-A3B").out, command("graph", "21B-A3B", "--full").out
    assert "more alike" not in full and len(full) > 5 * len(folded)
    assert all(f"  layers.{i}.mlp\n" in full for i in range(28))


@pytest.mark.parametrize("level", ["block", "composite", "primitive"])
def test_levels(level: str, untrained: Path) -> None:
    printed = command("graph", untrained, "--level", level)
    shown = graph_from_json(json.loads(command("graph", untrained, "--level", level, "--json").out), STORAGES)
    order = ["primitive", "composite", "block"]
    levels = {OPS[node.op].level for node in shown.nodes}
    assert printed.code == 0 and level in levels
    assert all(order.index(found) <= order.index(level) for found in levels)
    assert (command("graph", untrained).out == printed.out) == (level == "block")


@pytest.mark.parametrize("dtype", ["auto", "float32", "float16", "float64"])
def test_json_reads_back_as_the_same_graph(dtype: str, untrained: Path) -> None:
    ran = command("graph", untrained, "--json", "--dtype", dtype)
    built = build_graph(read_config(untrained), None if dtype == "auto" else dtype_of(dtype))
    read = graph_from_json(json.loads(ran.out), STORAGES)
    verify(read)
    assert ran.code == 0 and ran.out.count("\n") == 1 and str(read) == str(built)


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_lowered_to_a_backend(backend: str, untrained: Path) -> None:
    ran = command("graph", untrained, "--lowered", backend, "-v")
    assert ran.code == 0
    decisions = ran.err.splitlines()
    if backend == "reference":
        assert ran.out.splitlines()[:-2] == command("graph", untrained, "--dtype", "float32").out.splitlines()[:-2]
        assert "layers.1.mlp: moe_block: native" in decisions
    else:
        assert "moe_experts(" in ran.out and "moe_block(" not in ran.out
        assert "layers.1.mlp: moe_block: decomposed: eager runs the composites one by one" in decisions
        assert "layers.1.mlp.experts: moe_experts: native" in decisions
    assert command("graph", untrained, "--lowered", backend).err == ""
    lowered = graph_from_json(json.loads(command("graph", untrained, "--lowered", backend, "--json").out), STORAGES)
    verify(lowered)


def test_the_context_is_that_of_the_cost() -> None:
    found = find("0.3B")
    assert found is not None
    short, long = (command("graph", "0.3B", "--context", size).out.splitlines()[-1] for size in ("1", "128k"))
    assert short.startswith("one token after 0: ") and long.startswith("one token after 131,071: ")

    def cache(line: str) -> int:
        return int(line.split(", ")[-1].split()[0].replace(",", ""))

    assert cache(long) > 60_000 * cache(short)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0.3B", "--level", "atom"), "Invalid value for '--level'"),
        (("0.3B", "--lowered", "nope"), "no backend 'nope'; expected one of cudagraph, eager, onnx, reference"),
        (
            ("0.3B", "--lowered", "eager", "--level", "block"),
            "--level and --lowered exclude one another. Leave one out",
        ),
        (("0.3B", "--dtype", "bool"), "unknown dtype 'bool'; expected auto or one of float64, float32"),
        (("0.3B", "--context", "0"), "--context must be positive; found 0"),
        (("0.3B", "--context", "-1"), "not a size"),
        (("0.4B",), "'0.4B': no such model; expected a folder, demo, demo-vl, 0.3B, 0.3B-Base"),
    ],
)
def test_bad_options(arguments: tuple[str, ...], message: str) -> None:
    ran = command("graph", *arguments)
    assert (ran.code, ran.out) == (2, "") and message in ran.err and "Traceback" not in ran.err
