"""Who takes turns when, what is measured around each of them, and what comes of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from ernie_rt_bench.others import Others, busy_seconds, process_seconds
from ernie_rt_bench.plot import report_svg
from ernie_rt_bench.report import floor_table, ratio_table, report_json, report_markdown, report_text, speed_table
from ernie_rt_bench.rounds import measure
from ernie_rt_bench.workload import Report, Result, Workload

WORK = Workload((512, 4096), new=128, rounds=3, threads=2)


class Scripted:
    """A program that takes a second for every so many tokens, and tells what it was asked."""

    def __init__(self, name: str, speed: float, log: list[str], **facts: Any) -> None:
        self.name = name
        self.peak_bytes, self.cpu_seconds = 3 << 20, 0.0
        self._speed, self._log, self._facts = speed, log, facts
        self._new = 0

    def start(self) -> Mapping[str, Any]:
        self._log.append(f"start {self.name}")
        return self._facts

    def prefill(self, context: int, new: int, seed: int) -> float:
        self._log.append(f"{self.name} reads {context}, round {seed}")
        self._new = new
        return context / (10 * self._speed)

    def decode(self) -> float:
        self._log.append(f"{self.name} writes {self._new}")
        return self._new / self._speed

    def by_op(self, context: int) -> Sequence[Mapping[str, Any]]:
        parts = [{"op": "linear", "where": "head", "count": 1, "seconds": 0.5}]
        parts += [{"op": "", "where": "not accounted for", "count": 1, "seconds": 0.5}]
        return [{"kind": f"a token after {context}", "seconds": 1.0, "parts": parts}]

    def close(self) -> None:
        self._log.append(f"close {self.name}")


def measured(log: list[str], **options: Any) -> tuple[Result, ...]:
    reads = count(1)
    first = Scripted("a", 100, log, decode_bytes={"512": 10, "4096": 20}, first=0.5)
    return measure([first, Scripted("b", 50, log)], WORK, bandwidth=lambda: 1000.0 * next(reads), **options)


def test_turns_begin_with_another_one_each_round() -> None:
    log: list[str] = []
    measured(log)
    assert log[:2] == ["start a", "start b"] and log[-2:] == ["close b", "close a"]
    assert log[2:6] == ["a reads 512, round 0", "a writes 128", "a reads 4096, round 0", "a writes 128"]
    assert [line[0] for line in log if "reads 512" in line] == ["a", "b", "b", "a", "a", "b"]


def test_bandwidth_is_read_right_before_and_after() -> None:
    first, second = measured([])
    assert [(m.before, m.after) for m in first.measurements[:4]] == [
        (1000, 2000), (2000, 3000), (4000, 5000), (5000, 6000)
    ]  # fmt: skip
    assert first.of("decode", 512)[0].bandwidth == 2500
    assert first.shares(512)[0] == pytest.approx(10 * 100 / 2500)
    assert second.shares(512) == [], "of who does not say what a token reads no share is known"


def test_whoever_fails_the_others_are_ended() -> None:
    class Failing(Scripted):
        def decode(self) -> float:
            raise RuntimeError("broken")

    log: list[str] = []
    with pytest.raises(RuntimeError, match="broken"):
        measure([Scripted("a", 1, log), Failing("b", 1, log)], WORK, bandwidth=lambda: 1.0)
    assert log[-2:] == ["close b", "close a"]


def report(by_op: bool = True) -> Report:
    return Report("0.3B", "a machine", {"python": "3.11"}, WORK, measured([], by_op=by_op))


def test_tables() -> None:
    found = report()
    head, first, second = speed_table(found)
    assert head[:3] == ["TOKENS/S", "PREFILL 512", "DECODE 128 AFTER 512"] and head[-1] == "PRIVATE MEMORY"
    assert first == ["a", *["1000 (1000 to 1000)", "100 (100 to 100)"] * 2, "0.5 s", "3.0 MiB"]
    assert second[1:3] == ["500 (500 to 500)", "50.0 (50.0 to 50.0)"] and second[-2] == ""
    assert [row[0] for row in floor_table(found)[1:]] == ["a, after 512", "a, after 4096"]
    assert ratio_table(found)[1][:3] == ["b", "2.00 (2.00 to 2.00)", "2.00 (2.00 to 2.00)"]


def test_text_markdown_json_and_plot_tell_the_same() -> None:
    import json
    from xml.etree import ElementTree

    found = report()
    text, markdown = report_text(found), report_markdown(found)
    assert "memory read at 0.0 to 0.0 GB/s" in text and "a: a token after 512, 1000.00 ms" in text
    assert "linear  head               1      500.000  50.0%" in text
    assert "| linear | head | 1 | 500.000 | 50.0% |" in markdown and markdown.startswith("# 0.3B\n")
    told = json.loads(report_json(found))
    assert told["results"][0]["tokens_per_second"]["decode 512"] == {"median": 100, "least": 100, "most": 100}
    assert told["results"][0]["share_of_floor"].keys() == {"512", "4096"}
    assert told["results"][1]["share_of_floor"] == {}
    assert len(told["results"][0]["measurements"]) == 12
    root = ElementTree.fromstring(report_svg(found))
    charts = root.findall("{*}g")
    assert len(charts) == 4 and [len(chart.findall("{*}rect")) for chart in charts] == [2] * 4
    floors = [len(chart.findall("{*}line[@class='floor']")) for chart in charts]
    assert floors == [0, 1, 0, 1], "decoding has a floor, and only that of who says what it reads is known"


def test_other_work_is_said() -> None:
    found = report()
    for each in found.results:
        each.measurements = [replace(m, others=None) for m in each.measurements]
    assert "Other work" not in report_text(found)
    for each in found.results:
        each.measurements = [replace(m, others=0.5) for m in each.measurements]
    assert "Other work kept up to 0.5 cores busy" in report_text(found) and "0.5 cores" in report_markdown(found)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say")
def test_who_takes_time_beside_what_is_measured() -> None:
    def spin() -> None:
        until = time.perf_counter() + 0.2
        while time.perf_counter() < until:
            pass

    before = busy_seconds()
    mine = Others(0.0)
    spin()
    theirs = mine.cores(-0.2)  # as if what was just done had been done by others
    assert theirs is not None and theirs > 0.5
    after = busy_seconds()
    assert before is not None and after is not None and after - before > 0.1
    assert process_seconds(os.getpid()) > 0.1 and process_seconds(1 << 30) == 0.0
