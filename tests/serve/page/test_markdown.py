"""Markdown as elements."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from browser import Browser, Page
from page_server import ScriptedServer
from support.browsing import needs_browser

pytestmark = needs_browser


CODE = '<code translate="no">{}</code>'
MATH = '<{0} class="math" translate="no">{1}</{0}>'
TABLE = '<div class="table" tabindex="0"><table><thead>{}</thead><tbody>{}</tbody></table></div>'
MARKDOWN = {
    "*a* **b** ***c***": "<p><em>a</em> <strong>b</strong> <strong><em>c</em></strong></p>",
    "_d_ __e__ ~~f~~": "<p><em>d</em> <strong>e</strong> <del>f</del></p>",
    "a_b_c 2*3*4 2 * 3 * 4": "<p>a_b_c 2<em>3</em>4 2 * 3 * 4</p>",
    "*a **b** c* **d": "<p><em>a <strong>b</strong> c</em> **d</p>",
    "**重点**在此": "<p><strong>重点</strong>在此</p>",
    "a\nb": "<p>a<br>b</p>",
    "a <br> b & <i>c</i>": "<p>a <br> b &amp; &lt;i&gt;c&lt;/i&gt;</p>",
    r"\*a\* \# 1\. \\": "<p>*a* # 1. \\</p>",
    "`a*b*` ``c`d``": f"<p>{CODE.format('a*b*')} {CODE.format('c`d')}</p>",
    "# a\n## b #\n####### c": "<h3>a</h3><h4>b</h4><p>####### c</p>",
    "- a\n- b\n  - c\n\n    d\n- e": (
        "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p><p>d</p></li></ul></li><li><p>e</p></li></ul>"
    ),
    "3. a\n4. b\n\nc": '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol><p>c</p>',
    "> a\n> > b": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "$a_1 * b_1 * c$ costs $5 and $6": f"<p>{MATH.format('span', '$a_1 * b_1 * c$')} costs $5 and $6</p>",
    r"\(a*b*c\)": "<p>" + MATH.format("span", r"\(a*b*c\)") + "</p>",
    "$$\na*b*\n$$\nc": MATH.format("p", "$$\na*b*\n$$") + "<p>c</p>",
    "| a | b |\n|:-:|--:|\n| 1 |\n\nc": TABLE.format(
        '<tr><th class="center">a</th><th class="right">b</th></tr>',
        '<tr><td class="center">1</td><td class="right"></td></tr>',
    )
    + "<p>c</p>",
    "a | b": "<p>a | b</p>",
}


@pytest.fixture(scope="module")
def blank(program: Browser) -> Iterator[Page]:
    with ScriptedServer() as server:
        page = program.open(server.url)
        yield page
        page.close()


def rendered(page: Page, text: str) -> str:
    return str(
        page.evaluate(
            "import('/page/markdown.js').then(({show}) => { const element = document.createElement('div');"
            f" show(element, {json.dumps(text)}); return element.innerHTML; }})"
        )
    )


@pytest.mark.long
@pytest.mark.parametrize("text", MARKDOWN)
def test_markdown(blank: Page, text: str) -> None:
    assert rendered(blank, text) == MARKDOWN[text]


@pytest.mark.long
def test_code_within_a_list(blank: Page) -> None:
    for text in ("1. a\n   ```\n   x\n   ```\n2. b", "1. a\n    ~~~\n    x\n    ~~~\n2. b"):
        code = CODE.format("x")
        html = rendered(blank, text)
        assert re.fullmatch(rf'<ol start="1"><li><p>a</p><div class="code">.*{code}.*</li><li><p>b</p></li></ol>', html)
    assert CODE.format("x\n\n- y") in rendered(blank, "```py\nx\n\n- y"), "code that has not ended yet"


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "href"),
    [
        ('[a](https://a.b/c_(d) "t")', "https://a.b/c_(d)"),
        ("see https://a.b/c_d.", "https://a.b/c_d"),
        ("<https://a.b>", "https://a.b/"),
        ("[https://a.b](https://a.b)", "https://a.b/"),
        ("[m](mailto:a@b.c)", "mailto:a@b.c"),
        ("看https://a.b/c\u3002", "https://a.b/c"),
    ],
)
def test_links(blank: Page, text: str, href: str) -> None:
    assert re.findall(r'<a href="([^"]*)"', rendered(blank, text)) == [href]


SLOW = ("[", "*a ", "**a ", "`", "``a ", "$a ", "[a](", "> ", "- ", "  - a\n", "|a", "![", "_a", r"\(", "~~a", "#", "<")


@pytest.mark.long
@pytest.mark.parametrize("text", SLOW)
def test_no_text_is_slow(blank: Page, text: str) -> None:
    """Quadratic time would be minutes, and the browser is asked for seconds."""
    assert rendered(blank, text * 50_000)
