"""`ernie-rt conform`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.commands import command


def test_a_table_of_levels() -> None:
    done = command("conform", "reference", "--level", "L0", "--level", "L1", "--dtype", "float64")
    assert done.code == 0
    header, *rows = (line.split() for line in done.out.splitlines())
    assert header[:6] == ["LEVEL", "passed", "failed", "skipped", "xfailed", "xpassed"]
    assert [row[0] for row in rows] == ["L0", "L1"]
    assert all(int(row[1]) > 0 and row[2] == "0" for row in rows)
    assert rows[1][6].startswith("L1/") and 0 <= float(rows[1][7]) < 1
    assert done.err.endswith("reference on cpu in float64\n")  # before it, on a slow machine, that it is being imported


def test_json_and_every_check() -> None:
    done = command("conform", "reference", "--level", "L1", "--json", "-v")
    assert done.code == 0
    told = json.loads(done.out)
    assert told["ok"] and told["subject"]["backend"] == "reference" and told["subject"]["dtype"] == "float32"
    assert set(told["ops"].values()) == {"native"}
    assert told["levels"]["L1"]["passed"] == len(told["results"])
    assert "passed L1/linear/plain: native: error " in done.err


def test_a_checkpoint_in_place_of_the_micro_models(untrained: Path) -> None:
    done = command("conform", "reference", "--model", untrained, "--level", "L2", "--json")
    assert done.code == 0
    told = json.loads(done.out)
    assert {result["check"].split("/")[1] for result in told["results"]} == {untrained.name}
    assert told["subject"]["model"] == untrained.name


def test_quantised_weights() -> None:
    done = command("conform", "reference", "--storage", "int4/64", "--level", "L1")
    assert done.code == 0 and done.out.splitlines()[1].startswith("L1")
    assert (
        ", weights int4/64\n" in done.err and "int4/64 is not accepted: the backend was given the numbers" in done.err
    )


def test_what_fails_is_named(tmp_path: Path) -> None:
    expect = tmp_path / "expect.json"
    expect.write_text('{"features": ["ops"], "xfails": [{"check": "L1/add/row", "reason": "once upon a time"}]}')
    page = tmp_path / "report.html"
    done = command("conform", "reference", "--level", "L1", "--expect", expect, "--html", page)
    assert done.code == 1
    assert "xpassed L1/add/row: it passes, though it was declared to fail: once upon a time" in done.out
    assert "L1/add/row" in page.read_text()


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nobody"], "no backend 'nobody'"),
        (["reference", "--level", "L9"], "no level 'L9'; expected some of L0, L1, L2, L3, L4, L5"),
        (["reference", "--dtype", "float16"], "does not compute in float16"),
        (["reference", "--device", "cuda"], "has no device 'cuda'"),
        (["reference", "--storage", "int5"], "no storage 'int5'"),
        (["reference", "--expect", "/nowhere.json"], "there is no such file"),
        (["reference", "--model", "/nowhere"], "/nowhere"),
    ],
)
def test_wishes_that_cannot_be_met(arguments: list[str], told: str) -> None:
    done = command("conform", *arguments)
    assert done.code == 2 and told in done.err and done.out == ""


def test_a_report_of_nothing_fails(tmp_path: Path) -> None:
    expect = tmp_path / "expect.json"
    expect.write_text('{"features": []}')
    done = command("conform", "reference", "--level", "L1", "--expect", expect)
    assert done.code == 1 and "\nnothing passed in L1\nnot promised: ops (" in done.out
    expect.write_text('{"features": ["ops"], "skips": [{"check": "L1/*", "reason": "too slow"}]}')
    done = command("conform", "reference", "--level", "L1", "--expect", expect)
    assert done.code == 1 and "\nskipped, as declared: L1/*: too slow (" in done.out
