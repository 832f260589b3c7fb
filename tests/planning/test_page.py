"""A plan as a page: what is written into it, and what a browser makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from browser import Browser, Page
from ernie_rt.planning.device import GIB, Device, find_device, known_devices, room
from ernie_rt.planning.page import SEQUENCES, Bar, Picture, context_stops, plan_html, write_html
from ernie_rt.planning.speed import Decode
from support.browsing import needs_browser

CONTEXTS = context_stops(32768)
ROW = 57344
"""Bytes of KV of a token."""


def workspace(context: int) -> int:
    return 41 * context + (64 << 20)


def bar(name: str, kind: str, scale: int, mapped_bytes: int = 0) -> Bar:
    weights = {"experts": 40 * GIB // scale, "attention": GIB // scale, "embedding": GIB // 4}
    reads = tuple(6.7e9 / scale * min(count, 8) for count in SEQUENCES)
    flops = {"bfloat16": (6e9 if scale == 1 else 6e12, 1e6), "float32": (1e8, 0.0)}
    return Bar(
        name,
        kind,
        weights,
        cache=tuple(tuple(context * count * ROW for count in SEQUENCES) for context in CONTEXTS),
        workspace=tuple((workspace(context),) * len(SEQUENCES) for context in CONTEXTS),
        mapped_bytes=mapped_bytes,
        decode=Decode(reads, ROW / 0.5, flops, 0.0005),
    )


BARS = (bar("bf16, cudagraph", "cuda", 1), bar("int4, onnx", "cuda", 4), bar("int4, onnx", "cpu", 4, 9 * GIB))
HERE = Device("This </script><b>CPU", "cpu", 20 * GIB, 30e9, {}, "measured")
CARD_HERE = replace(find_device("T4"), name="This card", memory_bytes=10 * GIB)
PICTURE = Picture(
    "ERNIE-4.5-21B-A3B", "21.8 B parameters & <more>", CONTEXTS, BARS, (HERE, CARD_HERE), known_devices(), 8192, 4,
    "NVIDIA GeForce RTX 4090",
)  # fmt: skip


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    read: dict[str, Any] = json.loads(found[1])
    return read


def test_stops_of_the_slider() -> None:
    assert context_stops(8192) == (1024, 2048, 4096, 8192)
    assert context_stops(131072)[-2:] == (65536, 131072)
    assert context_stops(5000) == (1024, 2048, 4096, 5000)
    assert context_stops(512) == (512,)


def test_what_is_written_into_the_page(tmp_path: Path) -> None:
    write_html(tmp_path / "plan.html", PICTURE)
    text = (tmp_path / "plan.html").read_text("utf-8")
    assert text == plan_html(PICTURE)
    data = data_of(text)
    assert data["contexts"] == list(CONTEXTS)
    devices = {device["name"]: device for device in data["devices"]}
    assert len(devices) == 2 + len(known_devices())
    assert (devices["This card"]["room"], devices["This card"]["here"]) == (10 * GIB, True)  # what is free, all of it
    assert devices[HERE.name] | {"room": 20 * GIB, "here": True} == devices[HERE.name]
    assert devices["NVIDIA L4"]["room"] == room(find_device("L4"))
    assert CONTEXTS[data["chosen"]["context"]] == 8192
    assert SEQUENCES[data["chosen"]["sequences"]] == 4
    assert data["devices"][data["chosen"]["device"]]["name"] == "NVIDIA GeForce RTX 4090"


def test_the_first_place_holds_what_was_asked_for() -> None:
    for context, sequences, places in ((1, 1, (0, 0)), (4097, 3, (3, 2)), (10**6, 999, (len(CONTEXTS) - 1, 6))):
        chosen = data_of(plan_html(replace(PICTURE, context=context, sequences=sequences)))["chosen"]
        assert (chosen["context"], chosen["sequences"]) == places


def test_nothing_is_loaded_and_nothing_else_runs() -> None:
    text = plan_html(PICTURE)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]
    assert not re.search(r'\b(src|href|style|on\w+)\s*=\s*"', text[text.index("<body>") : text.index("<script")])
    assert "</script><b>" not in text
    assert "&amp; &lt;more&gt;" in text


@pytest.fixture
def opened(program: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page; when the test is over, it has broken no policy and logged no error."""
    write_html(tmp_path / "plan.html", PICTURE)
    page = program.open((tmp_path / "plan.html").as_uri(), **getattr(request, "param", {}))
    page.wait("document.querySelector('.bar')")
    yield page
    assert page.problems == []
    page.close()


def put(page: Page, control: str, place: int) -> None:
    page.evaluate(
        f"(() => {{ const it = document.getElementById('{control}'); it.value = '{place}';"
        " it.dispatchEvent(new Event('input')); })()"
    )


def numbers(page: Page) -> list[list[str]]:
    rows: list[list[str]] = page.evaluate(
        "[...document.querySelectorAll('#numbers tr')].map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    return rows


def device_place(name: str) -> int:
    return [device["name"] for device in data_of(plan_html(PICTURE))["devices"]].index(name)


@needs_browser
@pytest.mark.long
def test_bars_are_those_of_the_place_of_the_sliders(opened: Page) -> None:
    assert numbers(opened)[0] == [
        "", "experts", "attention", "embedding", "KV cache", "workspace", "all", "", "",
    ]  # fmt: skip
    assert [row[0] for row in numbers(opened)[1:]] == ["bf16, cudagraph", "int4, onnx"]
    for context in (0, 3, len(CONTEXTS) - 1):
        for sequences in (0, 2, 6):
            put(opened, "context", context)
            put(opened, "sequences", sequences)
            tokens, count = CONTEXTS[context], SEQUENCES[sequences]
            cache = tokens * count * ROW
            for row, each in zip(numbers(opened)[1:], BARS, strict=False):
                total = sum(each.weights.values()) + cache + workspace(tokens)
                assert (row[4], row[5], row[6]) == (gib(cache), gib(workspace(tokens)), gib(total))
                space = room(find_device("4090")) - total
                assert row[7] == (f"fits, {gib(space)} to spare" if space >= 0 else f"{gib(-space)} too much")
                assert each.decode is not None
                reading = (each.decode.weight_bytes[sequences] + count * tokens * ROW / 0.5) / 1008e9
                (token, per_row), (other, _) = each.decode.flops.values()
                computing = count * ((token + tokens * per_row) / 165.15e12 + other / 82.6e12)
                assert (computing > reading) == (each.name == "int4, onnx")
                rate = count / (max(reading, computing) + 0.0005)
                assert row[8] == "" if space < 0 else float(row[8].split()[0]) == pytest.approx(rate, rel=0.05)
    assert opened.text("#context-said") == "32k tokens"
    assert opened.text("#sequences-said") == "64"


@needs_browser
@pytest.mark.long
def test_the_line_is_what_the_device_has(opened: Page) -> None:
    assert opened.text("#said") == "1 of 2 fit into the 23.4 GiB of NVIDIA GeForce RTX 4090"
    fits = "[...document.querySelectorAll('.bar')].map((bar) => [!!bar.querySelector('.fits'), place(bar)])"
    place = (
        "const place = (bar) => { const line = bar.querySelector('.line').getBoundingClientRect().x;"
        " return line > [...bar.querySelectorAll('.stack div')].at(-2).getBoundingClientRect().right; };"
    )
    assert opened.evaluate(f"(() => {{ {place} return {fits}; }})()") == [[False, False], [True, True]]
    place = (
        "(() => { const at = (each) => each.getBoundingClientRect();"
        " const stack = document.querySelector('.stack'); const pieces = [...stack.querySelectorAll('div:not(.line)')];"
        " return (at(stack.querySelector('.line')).x - at(stack).x) / (at(pieces.at(-1)).right - at(stack).x); })()"
    )
    total = sum(BARS[0].weights.values()) + BARS[0].cache[3][2] + BARS[0].workspace[3][2]
    assert opened.evaluate(place) == pytest.approx(room(find_device("4090")) / total, rel=0.02)
    put(opened, "device", device_place("NVIDIA H100 SXM"))
    assert opened.text("#said") == "2 of 2 fit into the 79.0 GiB of NVIDIA H100 SXM"
    put(opened, "device", 0)
    assert opened.text("#said") == "1 of 1 fit into the 20.0 GiB of This </script><b>CPU"
    assert [row[0] for row in numbers(opened)[1:]] == ["int4, onnx"]
    assert opened.text(".bar .fits").endswith(" to spare")
    assert "tokens/s" not in opened.text(".bar")  # nobody knows what it multiplies
    put(opened, "sequences", 6)
    put(opened, "context", 2)
    assert re.fullmatch(r"fits, but reads .* GiB from disk again and again", opened.text(".bar .reads"))
    options = opened.evaluate("[...document.querySelectorAll('option')].map((each) => each.textContent)")
    assert options[0] == "This </script><b>CPU (this machine)"
    assert "Apple M4 32GB" not in options  # no bar is for it


@needs_browser
@pytest.mark.long
@pytest.mark.parametrize(
    "opened", [{"width": 360, "height": 720, "phone": True}, {"scheme": "dark"}], indirect=True, ids=["phone", "dark"]
)
def test_on_a_phone_and_in_the_dark(opened: Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    small = "[...document.querySelectorAll('input, select')].filter((each) => each.getBoundingClientRect().height < 24)"
    assert opened.evaluate(f"{small}.length") == 0
    ink, paper = opened.evaluate(
        "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    assert ink != paper
    pieces = "[...document.querySelectorAll('.stack:first-of-type div:not(.line)')]"
    colours = opened.evaluate(f"{pieces}.slice(0, 4).map((each) => getComputedStyle(each).backgroundColor)")
    assert len(set(colours)) == 4


@needs_browser
@pytest.mark.long
def test_sliders_obey_the_keyboard(opened: Page) -> None:
    opened.evaluate("document.getElementById('context').focus()")
    before = opened.text("#context-said")
    opened.press("ArrowRight")
    assert opened.text("#context-said") != before
    assert opened.evaluate("document.getElementById('context').getAttribute('aria-valuetext')") == "16k tokens"


def gib(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
