"""The page: well formed, complete in itself, and nothing that it quotes can become markup."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from browser import browser, chromium
from ernie_rt.conformance.chart import SIZE, drift_chart
from ernie_rt.conformance.drift import Drift, Side, Split
from ernie_rt.conformance.drift_page import drift_html
from ernie_rt.conformance.plot import drift_text
from ernie_rt.conformance.replay import Flip, Piece
from ernie_rt.conformance.report import Report, Result
from ernie_rt.conformance.report_page import report_html
from ernie_rt.errors import WriteError
from ernie_rt.html import figure, page, write_page
from support.browsing import needs_browser

HOSTILE = "</title><script>alert('x')</script><img src=x onerror=y>&amp;\"'"
VOID = {"meta", "link", "img", "br", "hr", "input"}


def side(backend: str, pieces: tuple[Piece, ...], flips: tuple[Flip, ...] = ()) -> Side:
    return Side(backend, "cpu", "bfloat16", (5, 6), pieces, flips, "")


def made(hostile: str = "") -> Drift:
    """Everything that can be there, with numbers that have no place on a logarithmic axis."""
    pieces = (
        Piece("embed", 0.0, 0.0, 0.0),
        Piece(f"layers.0.attention{hostile}", 1e-3, 1.1e-3, 0.9),
        Piece("layers.0.mlp.route", None, None, 0.0, "", 0.75),
        Piece("layers.0.mlp", math.inf, 2e-3, math.inf, f"NaN or infinity at token 7{hostile}"),
        Piece("layers.1.mlp", math.nan, 2e-3, 12.5, f"off by 12.5 times its noise{hostile}"),
        Piece("head", 0.5, 3e-3, 1.0),
    )
    split = Split(1, (6, 7), (7, 6), 0.25, (0.25, 0.0), (0.1, 1e-9), (True, True))
    flips = (Flip(f"layers.0.mlp.route{hostile}", 3, 1e-4, 2e-4),)
    sides = (side(f"mine{hostile}", pieces, flips), side("reference", pieces[:2] + pieces[-1:]))
    return Drift((1, 2, 3), 4, sides, split, "bug", f"A: layers.0.mlp{hostile}")


class Checker(HTMLParser):
    """Every tag that is opened is closed; tags and attributes are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert not checker.open
    return checker


def test_well_formed_and_alone() -> None:
    text = page("mine and reference", drift_html(made()))
    checker = check(text)
    assert not checker.tags & {"script", "link", "img", "iframe", "object", "embed", "style:import"}
    assert not {name for name in checker.attributes if name in ("src", "href", "srcset") or name.startswith("on")}
    assert not re.search(r"url\(|@import|https?:", text)
    assert "prefers-color-scheme: dark" in text and 'charset="utf-8"' in text


def test_what_it_quotes_stays_text() -> None:
    plain, hostile = (
        check(page("x", drift_html(made()))),
        page(HOSTILE, drift_html(made(HOSTILE), lambda token: HOSTILE)),
    )
    assert check(hostile).tags == plain.tags and check(hostile).attributes == plain.attributes
    assert "<script" not in hostile and "&lt;script&gt;" in hostile


def test_the_chart() -> None:
    text = drift_chart(made().sides)
    (svg,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    root = ElementTree.fromstring(svg)
    lines = root.findall("polyline")
    assert [line.get("class") for line in lines] == ["line noise a", "line drift a", "line noise b", "line drift b"]
    assert [len((line.get("points") or "").split()) for line in lines] == [
        4,
        2,
        2,
        2,
    ]  # 0, NaN and infinity have no place
    for line in lines:
        for point in (line.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= SIZE and 0 <= y <= SIZE
    dots = {dot.get("class"): "".join(dot.itertext()) for dot in root.findall("path")}
    assert "NaN or infinity" in "".join("".join(dot.itertext()) for dot in root.findall("path"))
    assert sum(dot.get("class") == "dot bad" for dot in root.findall("path")) == 2 and "dot b" in dots
    assert {"embed", "0", "1", "head", "1e-3", "1e0", "layer"} <= set(re.findall(r"<span[^>]*>([^<]*)</span>", text))
    assert "A mine@cpu:bfloat16" in text and "A mine@" not in drift_chart(made().sides[:1]).partition("figcaption")[2]


def test_a_phone_names_fewer_layers() -> None:
    pieces = tuple(Piece(f"layers.{i}.mlp", 1e-3, 1e-3, 1.0) for i in range(54))
    text = drift_chart([side("deep", pieces)])
    few, wide = (re.findall(rf'<span class="{kind}"[^>]*>(\d+)<', text) for kind in ("x", "x wide"))
    assert len(few) <= 7 and len(few) + len(wide) <= 18 and few[-1] == "53"


def test_the_same_as_text() -> None:
    text = drift_text(made(), lambda token: f"<{token}>", bars=True)
    assert "A  mine@cpu:bfloat16\n" in text and "layers.0  inf" in text and "75.0%" in text and "█" in text
    assert "  A says <6> (6), 0.25 below the oracle's best; rounding moves its logits by 0.1" in text
    assert "  B says <7> (7), the oracle's best; rounding moves its logits by 1e-09" in text
    assert text.endswith("bug: A: layers.0.mlp\n")


def test_one_mistake_in_many_layers_is_named_three_times() -> None:
    drift = made()
    wrong = tuple(Piece(f"layers.{i}.mlp", 0.1, 0.1, 9.0, "off by 9 times its noise") for i in range(13))
    side = dataclasses.replace(drift.sides[0], pieces=wrong)
    lines = drift_text(dataclasses.replace(drift, sides=(side, drift.sides[1]))).splitlines()
    assert len([line for line in lines if "off by 9 times" in line]) == 3 and "… and 10 more" in lines


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(path, "first", drift_html(made("老师")))
    assert "老师" in path.read_text("utf-8")
    with pytest.raises(WriteError, match="cannot be written"):
        write_page(tmp_path / "absent" / "page.html", "second")
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


def test_a_report() -> None:
    results = (
        Result("L1/rope/heads-of-4", "passed", {"margin": 0.25, "error": 1e-7}, route="native"),
        Result(f"L2/micro{HOSTILE}", "failed", {"margin": math.inf}, f"off{HOSTILE}"),
        Result("L3/cancel", "skipped", reason="not promised"),
    )
    text = page("eager", report_html(Report({"backend": "eager", HOSTILE: HOSTILE}, results).to_json()))
    assert not check(text).tags & {"script", "img"} and "<script" not in text
    assert "<b>does not conform</b>: 1 passed, 1 failed, 1 skipped</p>" in text and text.count('<tr class="bad"') == 1
    checks = re.findall(r"<td>(L\d/[^<]*)</td>", text)
    assert [name[:2] for name in checks] == ["L2", "L3", "L1"]
    assert "<td>0.25</td><td>native</td>" in text
    assert "<b>conforms</b>: 1 passed</p>" in report_html(Report({}, results[:1]).to_json())
    assert check(report_html(Report({}, ()).to_json()))


SUBJECT = {
    "backend": "mine", "summary": "A chip", "versions": ["ernie-rt-mine 2.1"], "device": "npu:0", "dtype": "bfloat16",
    "storage": "int4", "accepts": {"int4/32": True}, "setting": "quick", "model": None,
    "numerics": {"compute": "bfloat16", "accumulate": "float32", "activations": None,
                 "ops": {"moe_route": {"compute": "float32", "accumulate": "float32", "activations": None}}},
    "features": {"ops": True, "moe": False},
    "declared": {"quirks": [{"check": "L1/swiglu/*", "reason": "a table", "factor": 2.0}], "xfails": [], "skips": []},
}  # fmt: skip


def test_a_report_is_for_people() -> None:
    report = Report(SUBJECT, (Result("L1/rope/heads-of-4", "passed", {"margin": 0.25}, route="native"),)).to_json()
    text = page("mine", report_html(report, made(), [("prompt of the plot", "Once")]))
    assert check(text) and not re.search(r"\{|\}|None|True|False", text.partition("</style>")[2])
    for told in (
        "ernie-rt-mine 2.1", "npu:0", "int4; int4/32 is taken as it is", report["date"], report["machine"]["processor"],
        "products in bfloat16, sums in float32; moe_route: products and sums in float32", "Once",
        "<td>mixtures of experts</td><td>not promised</td>", "<td>wider limit, 2 times</td><td>L1/swiglu/*</td>",
        "L1 · Single operations", "reached 25% of it", "1 of 1 run natively",
    ):  # fmt: skip
        assert told in text, told
    assert text.index('<figure class="chart">') < text.index("<h2>Levels</h2>") < text.index("What was tested")


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_fits_the_screen(width: int, tmp_path: Path) -> None:
    path, program = tmp_path / "page.html", chromium()
    write_page(path, "mine and reference", drift_html(made(), about=[("prompt", "word " * 200 + "x" * 500)]))
    assert program is not None
    with browser(program) as running:
        shown = running.open(path.as_uri(), width=width, height=800, phone=width < 500, scheme="dark")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        sizes = (
            "[...document.querySelectorAll('.plot span')].map((each) => parseFloat(getComputedStyle(each).fontSize))"
        )
        assert min(shown.evaluate(sizes)) >= 12 and shown.evaluate("document.querySelector('.plot').clientWidth") > 250
        assert not shown.problems


def test_a_report_shows_what_trained_weights_say() -> None:
    result = Result("L4/chat/logits", "passed", {"margin": 0.5, "kl": 0.0125})
    text = report_html(Report({}, (result,)).to_json())
    assert "<h2>Trained weights</h2>" in text and "divergence, nats" in text and "<td>0.0125</td>" in text


def test_figures_of_what_is_no_number() -> None:
    told = [figure(value) for value in (None, math.inf, -math.inf, math.nan, 2.0, 0.12345, 3)]
    assert told == ["-", "inf", "-inf", "nan", "2", "0.123", "3"]
