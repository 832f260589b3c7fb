"""The page: complete in itself, safe whatever the text says, and used as a person would use it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from browser import Browser
from ernie_rt.errors import WriteError
from ernie_rt.routing.page import MOST_TOKENS, routing_html, write_html
from ernie_rt.routing.report import Report
from support.browsing import needs_browser
from support.routings import HOSTILE, large, made


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.raw: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("script", "style"):
            self.raw.append(data)


@pytest.mark.parametrize(
    "report", [made(), made(summed=True), made(biased=False), made(model=HOSTILE, pieces=(HOSTILE,))]
)
def test_alone_and_strict(report: Report) -> None:
    text = routing_html(report)
    parsed = Parsed(text)
    assert parsed.tags.count("script") == 2 and not {"link", "img", "iframe", "object", "base"} & {*parsed.tags}
    names = {name for name, _ in parsed.attributes}
    assert not {"src", "href", "style", "srcset"} & names and not any(name.startswith("on") for name in names)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None and policy[1].startswith("default-src 'none'; ") and "unsafe" not in policy[1]
    for tag, source in (("style", "style-src-elem"), ("script", "script-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy[1]


def test_a_text_is_no_markup() -> None:
    parsed = Parsed(routing_html(made(pieces=(HOSTILE,))))
    assert parsed.attributes.count(("data-text", HOSTILE)) == 6


def test_a_long_text_is_cut_and_that_is_said() -> None:
    text = routing_html(made(MOST_TOKENS + 5))
    assert text.count('role="button"') == MOST_TOKENS and "The map counts 5 more tokens, which are not shown" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert (
        len(data["routers"][0]["experts"]) == MOST_TOKENS and sum(data["routers"][0]["counts"]) == 2 * MOST_TOKENS + 10
    )


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        write_html(tmp_path / "absent" / "page.html", made())


@needs_browser
@pytest.mark.parametrize("phone", [False, True])
def test_pointing(program: Browser, tmp_path: Path, phone: bool) -> None:
    report = made(pieces=("老师", " <b>", "\n"))
    write_html(tmp_path / "page.html", report)
    width = 390 if phone else 1000
    page = program.open((tmp_path / "page.html").as_uri(), width=width, phone=phone, scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click(".strip span:nth-child(2)")
    assert page.text("#said") == 'token 1: " <b>"'
    assert report.routing is not None
    routes = report.routing.routers[1]
    shown = page.text(".routes tr:nth-child(2)").split()
    assert shown[:2] == ["layer", "2"]
    ids = routes.ids[1].tolist()
    expected = []
    for id, weight in zip(ids, routes.weights[1].tolist(), strict=True):
        other = routes.displaced(1).get(id)
        expected += [str(id), *(["for", str(other)] if other is not None else []), f"{round(100 * weight)}%"]
    assert shown[2:] == expected
    assert page.evaluate("document.querySelector('.marks').getAttribute('d').split('M').length - 1") == 4
    page.press("ArrowRight")
    assert page.text("#said").startswith("token 2: ")
    assert page.evaluate("document.querySelector('.chosen').dataset.text") == "\n"
    x, y = page.evaluate(
        "(() => { const box = document.querySelector('.map-scroll svg').getBoundingClientRect();"
        " return [box.x, box.y]; })()"
    )
    expert = int(report.load.routers[0].counts.argmax())
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 62 + expert * 24 + 10, y=y + 22 + 10)
    count = int(report.load.routers[0].counts[expert])
    page.wait("document.querySelector('#said').textContent.startsWith('layer 1')")
    assert page.text("#said").startswith(f"layer 1, expert {expert}: {count} of 6 tokens")
    assert page.evaluate("document.querySelectorAll('.goes').length") == count
    assert page.problems == []
    page.close()


@needs_browser
def test_a_sum_points_as_well(program: Browser, tmp_path: Path) -> None:
    write_html(tmp_path / "page.html", made(summed=True))
    page = program.open((tmp_path / "page.html").as_uri())
    page.click(".map-scroll svg")
    assert page.text("#said").startswith("layer ") and " of 12 tokens" in page.text("#said")
    assert page.problems == []
    page.close()


def test_a_large_model_is_not_too_large() -> None:
    assert len(routing_html(large())) < 400_000
