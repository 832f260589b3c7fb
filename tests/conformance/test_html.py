"""The page: well formed, complete in itself, and nothing that it quotes can become markup."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ernie_rt.conformance.drift import Drift, Side, Split
from ernie_rt.conformance.html import HEIGHT, WIDTH, drift_html, report_html
from ernie_rt.conformance.plot import drift_text
from ernie_rt.conformance.replay import Flip, Piece
from ernie_rt.conformance.report import Report, Result
from ernie_rt.errors import WriteError
from ernie_rt.html import page, write_page

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
    (svg,) = re.findall(r"<svg.*?</svg>", drift_html(made()), re.DOTALL)
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
            assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT
    told = {dot.get("class"): "".join(dot.itertext()) for dot in root.findall("circle")}
    assert "NaN or infinity" in "".join("".join(dot.itertext()) for dot in root.findall("circle"))
    assert sum(dot.get("class") == "dot bad" for dot in root.findall("circle")) == 2 and "dot b" in told
    labels = [text.text for text in root.findall("text")]
    assert {"embed", "0", "1", "head", "1e-3", "1e0", "layer"} <= set(labels)


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
    assert '<p class="verdict bug">failed</p>' in text and text.count('class="bad"') == 1
    checks = re.findall(r"<td>(L\d/[^<]*)</td>", text)
    assert [name[:2] for name in checks] == ["L2", "L3", "L1"]
    assert "<td>0.25</td><td>native</td>" in text
    assert '<p class="verdict same">passed</p>' in report_html(Report({}, results[:1]).to_json())
    assert check(report_html(Report({}, ()).to_json()))


def test_a_report_shows_what_trained_weights_say() -> None:
    result = Result("L4/chat/logits", "passed", {"margin": 0.5, "kl": 0.0125})
    text = report_html(Report({}, (result,)).to_json())
    assert "<h2>Trained weights</h2>" in text and "<td>0.0125</td>" in text
