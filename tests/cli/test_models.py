"""`ernie-rt models`, and what all listings share: a reader that leaves, and a version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ernie_rt
from ernie_rt.modeling.families import FAMILIES, STANDINGS
from support.commands import command, start


def test_json() -> None:
    ran = command("models", "--json")
    found = {row["name"]: row for row in json.loads(ran.out)}
    assert (ran.code, ran.err) == (0, "")
    assert list(found) == ["demo", "demo-vl", *(family.name for family in FAMILIES)]
    assert found["demo"]["verified"] is None and found["21B-A3B"]["verified"] == {
        "config": "unseen", "tokenizer_config": "digest", "tokens": "digest", "template": "digest",
        "tokenizer": "unseen", "weights": "unseen",
    }  # fmt: skip
    assert found["demo"]["hub_id"] is None and found["demo"]["parameters"] < 7_500_000
    small, large = found["0.3B"], found["300B-A47B"]
    assert small["parameters"] == small["active_parameters"] == 360_748_032
    assert (large["parameters"], large["active_parameters"]) == (299_484_163_264, 47_926_586_560)
    assert found["21B-A3B-Thinking"]["parameters"] == 21_825_437_888
    sees = found["VL-28B-A3B"]
    seeing = [family.name for family in FAMILIES if family.name[:2] == "VL"]
    assert [name for name, row in found.items() if row["sees"]] == ["demo-vl", *seeing]
    assert sees["parameters"] == 29_399_294_336 and sees["active_parameters"] == found["21B-A3B"]["active_parameters"]
    assert small["kv_bytes_per_token"] == 18 * 2 * 2 * 128 * 2
    assert large["hub_id"] == "baidu/ERNIE-4.5-300B-A47B-PT" and large["max_position_embeddings"] == 131072


def test_table() -> None:
    ran = command("models")
    figures, evidence, legend = ran.out.split("\n\n")
    lines = figures.splitlines()
    assert ran.code == 0 and lines[0].split()[:3] == ["NAME", "PARAMETERS", "ACTIVE"]
    assert [line.split()[0] for line in lines[1:]] == ["demo", "demo-vl", *(family.name for family in FAMILIES)]
    assert all(line.endswith("comes with ernie-rt)") for line in lines[1:3])
    assert figures in (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
    standing = {line.split()[0]: line.split()[1:] for line in evidence.splitlines()[1:]}
    assert list(standing) == [*(family.name for family in FAMILIES)]
    assert standing["0.3B"] == ["copy", "digest", "digest", "digest", "unseen", "unseen"]
    assert standing["21B-A3B-Thinking"] == ["unseen"] * 3 + ["renders"] + ["unseen"] * 2
    assert standing["VL-28B-A3B-Thinking"][:3] == ["copy", "unseen", "digest"]
    assert standing["VL-424B-A47B"] == ["copy"] + ["unseen"] * 5
    assert {line.split()[0] for line in legend.splitlines()} == {*STANDINGS}
    assert max(map(len, ran.out.splitlines())) <= 120
    assert "21.8 B" in ran.out and "3.35 B" in ran.out and "299 B" in ran.out


def test_version_and_no_arguments() -> None:
    assert command("--version").out == f"ernie-rt {ernie_rt.__version__}\n"
    bare = command()
    assert bare.code == 2 and all(name in bare.out + bare.err for name in ("run", "graph", "models", "backends"))
    assert command("nonsense").code == 2


@pytest.mark.parametrize("arguments", [("models",), ("models", "--json"), ("graph", "300B-A47B", "--full")])
def test_a_reader_that_leaves_ends_it_quietly(arguments: tuple[str, ...]) -> None:
    process = start(*arguments)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(20) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_named_error() -> None:
    with Path("/dev/full").open("wb") as full:
        process = start("models", stdout=full)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == b"ernie-rt: standard output cannot be written; found No space left on device\n"
