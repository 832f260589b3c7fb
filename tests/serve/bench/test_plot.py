"""Charts: well formed, complete in themselves, and nothing that they quote can become markup."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from ernie_rt_serve.bench.ceiling import Ceiling
from ernie_rt_serve.bench.figures import summarise
from ernie_rt_serve.bench.load import Extent, Load
from ernie_rt_serve.bench.plot import HEIGHT, WIDTH, _step, report_svg
from ernie_rt_serve.bench.prompts import Length
from ernie_rt_serve.bench.record import Record
from ernie_rt_serve.bench.report import report_text
from ernie_rt_serve.bench.run import Phase, Report, Settings


def made(*, failed: bool = False) -> Report:
    loads = Load(concurrency=1), Load(concurrency=8)
    settings = Settings(
        base_url="http://a/v1", endpoint="chat", model="</title><script>", loads=loads, extent=Extent(requests=1),
        warmup=None, prompt=Length(8, 8), answer=Length(2, 4), dataset=None, shared_prefix=16, seed=1, timeout=1.0,
        body={}, slo={},
    )  # fmt: skip
    arrivals = [] if failed else [0.25, 0.5]
    fields = {"prompt_tokens": 8, "output_tokens": 2}
    record = Record(sent=0.0, arrivals=arrivals, ended=0.5, status="200", error="bad" if failed else None, **fields)
    phases = [Phase(load, summarise([record]), None, [record]) for load in loads]
    ceiling = Ceiling(1.0, 1.0, 1, 1)
    return Report(settings=settings, versions={}, ceiling=ceiling, scale=None, phases=phases, notes=["<b>"])


def test_lines_lie_where_they_should() -> None:
    svg = report_svg(made())
    root = ElementTree.fromstring(svg)
    assert not re.search(r"<script|url\(|@import|https?:(?!//www.w3.org/2000/svg)", svg)
    points = [line.get("points", "").split() for line in root.findall(".//{*}polyline")]
    assert [len(line) for line in points] == [2] * 6
    for x, y in (map(float, point.split(",")) for line in points for point in line):
        assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT
    texts = ["".join(text.itertext()) for text in root.findall(".//{*}text")]
    assert {"concurrency 8", "100.0 ms", "Tokens per second: output and prompt"} <= set(texts)


def test_marks_are_round_numbers() -> None:
    assert [_step(most) for most in (0.04, 0.041, 7.0, 8.5, 10.5, 31, 4e-6)] == [0.01, 0.02, 2.0, 2.5, 5.0, 10.0, 1e-6]


def test_nothing_but_failures() -> None:
    root = ElementTree.fromstring(report_svg(made(failed=True)))
    assert not list(root.findall(".//{*}circle"))
    text = report_text(made(failed=True))
    assert "1 failed (1 × 200)" in text and "tokens not counted" in text


def test_the_same_as_text() -> None:
    text = report_text(made())
    assert "each unlike any other, after 16 that all share; answers of 2 to 4 tokens" in text
    assert "time to first token    250.0 ms" in text and text.endswith("note: <b>\n")
