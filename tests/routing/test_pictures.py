"""Two pools of experts: which tokens each served, and pictures behind the tokens that they became."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import Browser
from ernie_rt.routing.page import routing_html, write_html
from ernie_rt.routing.pictures import LONGEST_SIDE, MOST_FRAMES, Picture
from ernie_rt.routing.report import Report
from ernie_rt.routing.svg import svg
from ernie_rt.routing.terminal import routing_text
from ernie_rt.text.chat import ChatPrompt
from ernie_rt.vision.item import Item
from support import sighted
from support.browsing import needs_browser
from support.routings import seeing


def asked(*parts: int | Item) -> ChatPrompt:
    ids: list[int] = []
    placed: list[tuple[int, Item]] = []
    for part in parts:
        if isinstance(part, int):
            ids.append(part)
        else:
            placed.append((len(ids), part))
            ids += [sighted.PLACEHOLDER] * part.tokens
    return ChatPrompt(tuple(ids), items=tuple(placed))


@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_each_token_counts_for_the_pool_that_serves_it(backend: str) -> None:
    """By its id: a marker is vision too, and text that stands between."""
    prompt = asked(5, 61, sighted.picture(2, 3), 62, 9, 40)
    with sighted.load(backend=backend, routing=True, dtype="float32") as model:
        routing = model.routing(prompt)
    seen = np.array(prompt.ids) >= sighted.PLACEHOLDER
    assert [routes.name for routes in routing.routers] == ["layer 1", "layer 2", "vision 1", "vision 2"]
    for routes in routing.routers:
        served = seen if routes.pool == "vision" else ~seen
        assert [routes.serves(token) for token in range(len(seen))] == served.tolist()
        assert routes.load.tokens == served.sum() and routes.load.counts.sum() == 2 * served.sum()
        assert routes.weights[~served].sum() == 0 and np.allclose(routes.weights[served].sum(-1), 1)
        assert routes.unbiased is not None and (routes.unbiased[~served] == -1).all()
        assert not routes.by_bias[~served].any()


def test_what_served_no_token_says_so() -> None:
    with sighted.load(routing=True) as model:
        routing = model.routing([5, 9, 40])
    assert [load.tokens for load in routing.load.routers] == [3, 3, 0, 0]
    report = Report("m", "reference", "cpu", "float64", routing.load, routing, ("a", "b", "c"))
    text, page, drawn = routing_text(report), routing_html(report), svg(report)
    assert all("no token" in shown and "nan" not in shown for shown in (text, page, drawn))
    assert "v3" not in text and report.to_json()["tokens"][0]["routes"][2:] == [None, None]
    assert report.to_json()["routers"][3]["entropy"] is None
    summed = replace(report, load=routing.load + routing.load, routing=None, pieces=())
    assert [router["tokens"] for router in summed.to_json()["routers"]] == [6, 6, 0, 0]


def test_in_a_terminal_experts_for_pictures_are_marked() -> None:
    text = routing_text(seeing())
    lines = [line.split() for line in text.splitlines()]
    assert {line[0] for line in lines if line} >= {"layer", "vision", "token"}
    of_tokens = {int(line[0]): line[2:] for line in lines if line and line[0].isdigit()}
    assert all(("v" in entries[0]) == (4 <= token < 10) for token, entries in of_tokens.items())
    assert "v3: expert 3 of those for pictures and videos" in text


def test_json_says_which_tokens_show_what() -> None:
    told = seeing().to_json()
    assert told["items"] == [{"kind": "image", "start": 4, "grid": [1, 2, 3]}]
    assert [router["pool"] for router in told["routers"]] == ["text", "text", "vision", "vision"]
    for place, token in enumerate(told["tokens"]):
        served = [route is not None for route in token["routes"]]
        assert served == ([False, False, True, True] if 4 <= place < 10 else [True, True, False, False])


def test_pictures_are_small_and_in_the_page() -> None:
    item = sighted.picture(40, 60)
    shown = Picture.of(7, item)
    assert (shown.frames, shown.rows, shown.columns) == (1, 40, 60)
    with Image.open(io.BytesIO(shown.shown[0])) as image:
        assert image.format == "JPEG" and max(image.size) == LONGEST_SIDE
    page = routing_html(seeing())
    (encoded,) = re.findall(r'<image [^>]*href="data:image/jpeg;base64,([^"]+)"', page)
    assert base64.b64decode(encoded) == seeing().pictures[0].shown[0]
    assert "img-src data:" in page and 'data-start="4" data-count="6" data-columns="3"' in page
    assert "a picture of 84x56, resized: tokens 4 to 9" in page
    assert "img-src" not in routing_html(replace(seeing(), pictures=()))


def test_of_a_video_the_first_frames_are_shown() -> None:
    shown = Picture.of(3, sighted.film(2 * MOST_FRAMES + 4))
    assert len(shown.shown) == MOST_FRAMES and "2 pairs of frames are not shown" in shown.caption
    starts = [int(found) for svg in shown.svgs() for found in re.findall(r'data-start="(\d+)"', svg)]
    assert starts == [3 + 2 * pair for pair in range(MOST_FRAMES)]


@needs_browser
def test_squares_of_a_picture_are_its_tokens(program: Browser, tmp_path: Path) -> None:
    report = seeing()
    write_html(tmp_path / "page.html", report)
    page = program.open((tmp_path / "page.html").as_uri(), width=1000, scheme="dark")
    assert report.routing is not None
    routes = report.routing.routers[2]
    colours = page.evaluate("[...document.querySelectorAll('.patches rect')].map((r) => r.getAttribute('fill'))")
    first = [int(ids[weights.argmax()]) for ids, weights in zip(routes.ids[4:10], routes.weights[4:10], strict=True)]
    assert len(colours) == 6
    assert all((a == b) == (one == other) for a, one in zip(colours, first, strict=True)
               for b, other in zip(colours, first, strict=True))  # fmt: skip
    assert page.evaluate("[...document.querySelectorAll('#shown-router option')].map((o) => o.text)") == [
        "vision 1", "vision 2",
    ]  # fmt: skip
    page.click(".patches rect:nth-child(3)")
    assert page.text("#said") == 'token 6: "t6"'
    rows = page.evaluate("[...document.querySelectorAll('.routes tr')].map((r) => r.firstChild.textContent)")
    assert rows == ["vision 1", "vision 2"]
    assert page.evaluate("document.querySelectorAll('.patches .chosen').length") == 1
    page.evaluate(
        "(() => { const by = document.getElementById('shown-by'); by.value = 'entropy';"
        " by.dispatchEvent(new Event('input')); })()"
    )
    weights = routes.weights[4:10].astype(float)
    spread = -(weights * np.log(weights)).sum(-1) / np.log(2)
    opacity = page.evaluate(
        "[...document.querySelectorAll('.patches rect')].map((r) => +r.getAttribute('fill-opacity'))"
    )
    assert np.allclose(opacity, 0.9 * spread, atol=0.01)
    assert page.evaluate("document.querySelector('.pictures image').getBBox().width") == 84
    assert page.problems == []
    page.close()
