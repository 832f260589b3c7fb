"""The map as a picture: a cell for each expert of each layer, darker for a larger share."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from ernie_rt.routing.page import routing_html
from ernie_rt.routing.report import Report
from ernie_rt.routing.svg import LEVELS, grid_of, svg
from ernie_rt.routing.terminal import routing_text
from support.routings import HOSTILE, large, made

NAMES = {"svg": "http://www.w3.org/2000/svg"}


def squares(text: str, kind: str) -> set[tuple[int, int]]:
    """Columns and rows of the cells of a shade; of the first path of that kind, since others belong to the legend."""
    root = ElementTree.fromstring(text)
    path = root.find(f".//svg:g/svg:path[@class='{kind}']", NAMES)
    grid = grid_of(REPORTS["small"]())
    starts = [] if path is None else re.findall(r"M(\d+) (\d+)", path.attrib["d"])
    return {((int(x) - grid.x(0)) // grid.pitch, (int(y) - grid.y(0)) // grid.pitch) for x, y in starts}


REPORTS = {"small": made, "large": large, "summed": lambda: made(summed=True), "no bias": lambda: made(biased=False)}


def test_shades() -> None:
    report = made()
    text = svg(report)
    found = {kind: squares(text, kind) for kind in ("never", *(f"l{i}" for i in range(1, LEVELS + 1)))}
    for row, load in enumerate(report.load.routers):
        for expert, share in enumerate(load.shares.tolist()):
            (kind,) = [kind for kind, cells in found.items() if (expert, row) in cells][:1]
            if share == 0:
                assert kind == "never"
            else:
                assert int(kind[1:]) - 1 < share / report.largest * LEVELS <= int(kind[1:]) + 1e-6


@pytest.mark.parametrize("report", [each() for each in REPORTS.values()], ids=[*REPORTS])
def test_well_formed_and_alone(report: Report) -> None:
    text = svg(report)
    root = ElementTree.fromstring(text)
    assert {element.tag.partition("}")[2] for element in root.iter()} == {"svg", "style", "rect", "g", "path", "text"}
    assert "url(" not in text and "@import" not in text and "href" not in text
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        assert left <= float(element.attrib["x"]) <= left + width and top <= float(element.attrib["y"]) <= top + height
    assert ("bias" in "".join(root.itertext())) == (report.load.routers[0].unbiased is not None)
    assert len(text) < 60_000


def test_a_name_is_no_markup() -> None:
    root = ElementTree.fromstring(svg(made(model='<script>&"')))
    assert '<script>&"' in "".join(root.itertext())


def test_a_name_breaks_neither_the_picture_nor_a_terminal() -> None:
    report = made(model="a\x1b[2J\x00\u202eb")
    assert r"a\x1b[2J\x00\u202eb on eager" in "".join(ElementTree.fromstring(svg(report)).itertext())
    for text in (routing_text(report, width=80), routing_html(report)):
        assert not {"\x1b", "\x00", "\u202e"} & set(text)


def test_hostile_pieces_are_not_in_it() -> None:
    assert "alert" not in svg(made(pieces=(HOSTILE,)))
