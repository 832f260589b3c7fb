"""The map as text: within the width of a terminal, readable without colour, nothing left out without a word."""

from __future__ import annotations

import re

import pytest

from ernie_rt.cli.output import heat
from ernie_rt.routing.terminal import BARS, routing_text
from support.routings import HOSTILE, large, made


def columns_of(line: str) -> int:
    """Chinese characters take two."""
    return sum(2 if "\u4e00" <= c <= "\u9fff" else 1 for c in line)


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("report", [made(), large(), made(experts=200, summed=True)], ids=["small", "large", "summed"])
def test_lines_fit_the_terminal(report: object, width: int) -> None:
    text = routing_text(report, width=width)  # type: ignore[arg-type]
    assert max(map(columns_of, text.splitlines())) <= width


def test_every_expert_has_a_bar_by_its_share() -> None:
    report = large()
    lines = routing_text(report, width=80).splitlines()
    rows = [line.split(maxsplit=2)[2] for line in lines if re.match(r"layer \d+ +[·▁-█]", line)]
    assert len(rows) == 27
    for row, load in zip(rows, report.load.routers, strict=True):
        assert len(row) == 64
        assert [bar == "·" for bar in row] == [count == 0 for count in load.counts.tolist()]
        order = [BARS.index(bar) for bar in row]
        assert all((order[a] <= order[b]) for a in range(64) for b in range(64) if load.counts[a] < load.counts[b])
    assert any("█" in row for row in rows)


def test_experts_that_do_not_fit_come_below() -> None:
    lines = routing_text(large(), width=50).splitlines()
    assert [line[10:].split()[0] for line in lines if line.startswith("expert")] == ["0", "40"]


def test_figures() -> None:
    report = made()
    text = routing_text(report)
    load = report.load.routers[0]
    line = next(line for line in text.splitlines() if line.startswith("layer 1") and "%" in line)
    assert f"{load.balance.entropy:.2f}" in line and f"{load.balance.variation:.2f}" in line
    assert f"{load.shares.max():.0%} ({load.balance.peak:.1f}x) to {load.counts.argmax()}" in line
    assert f"{load.moved / 6:.0%}" in line and line.endswith(", ".join(map(str, load.unused.tolist())))
    without = routing_text(made(biased=False))
    assert "correction bias" not in without and "/" not in without and " -  " in without


def test_each_token_with_its_experts_and_weights() -> None:
    report = made()
    assert report.routing is not None
    lines = routing_text(report).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("token"))
    assert lines[start].split() == ["token", "layer", "1", "layer", "2"]
    rows = lines[start + 1 : start + 7]
    for shown in ('0 "老师"', '1 " the"', '2 "\\n"', '4 "<0xE4>"', '5 ""'):
        assert any(row.startswith(shown) for row in rows)
    for place, row in enumerate(rows):
        entries = re.findall(r"(\d+)(?:/(\d+))? +(1?\.\d\d)(?: |$)", row.partition('"  ')[2])
        expected = []
        for routes in report.routing.routers:
            for id, weight in zip(routes.ids[place].tolist(), routes.weights[place].tolist(), strict=True):
                other = routes.displaced(place).get(id, "")
                expected.append((str(id), str(other), f"{weight:.2f}".removeprefix("0")))
        assert entries == expected


def test_what_is_left_out_is_said() -> None:
    text = routing_text(large(), width=80)
    shown = re.search(r"^token .*$", text, re.M)
    assert shown is not None and shown[0].split() == ["token", "layer", "1"]
    assert "not shown: 20 more tokens, layers 2 to 27; --layer, --html and --json show them" in text
    assert "not shown" not in routing_text(large())
    named = routing_text(large(), width=80, layers=[3, 26])
    assert "not shown" not in named and named.count('"<0xE4>"') == 10
    shown = re.search(r"^token .*$", named, re.M)
    assert shown is not None and shown[0].split() == ["token", "layer", "3", "layer", "26"]


def test_colour_adds_nothing_but_colour() -> None:
    plain, painted = routing_text(made(), width=80), routing_text(made(), width=80, paint=heat)
    assert painted != plain and re.sub(r"\x1b\[[\d;]*m", "", painted) == plain


def test_no_token_steers_the_terminal() -> None:
    assert "\x1b" not in routing_text(made(pieces=(HOSTILE,)), width=80)
