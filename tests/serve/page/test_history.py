"""What the browser keeps."""

from __future__ import annotations

import json

import pytest

from browser import CTRL
from page_server import Answer, ScriptedServer
from support.browsing import Open, ask, kept, needs_browser, send

pytestmark = needs_browser


@pytest.mark.long
def test_conversations_stay_in_the_browser(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    ask(page, server, "First question\nwith two lines", Answer(["First answer"]))
    page.press("k", CTRL)
    ask(page, server, "Second question", Answer(["Second answer"]))
    page.reload()
    page.wait("document.querySelector('.answer')")
    assert page.text(".answer .markdown") == "Second answer"
    assert page.text("#conversations").split("\n") == ["Second question", "First question"]
    file = page.evaluate("import('/page/store.js').then((store) => store.exported())")
    page.click("#conversations li:last-child .quiet")
    page.click("#question [value=yes]")
    page.wait("document.querySelectorAll('#conversations li').length === 1")
    page.click("#remove-all")
    page.click("#question [value=no]")
    assert len(kept(page)) == 1
    page.click("#remove-all")
    page.click("#question [value=yes]")
    page.wait("!document.querySelector('#conversations li')")
    assert kept(page) == []
    for content, number in ((file, 2), (file, 0), ("{}", None), ("[", None), (file.replace('"role"', '"rule"'), 0)):
        done = f"import('/page/store.js').then((store) => store.imported({json.dumps(content)}))"
        assert page.evaluate(done) == number
    page.reload()
    page.wait("document.querySelectorAll('#conversations li').length === 2")
    page.click("#conversations li:last-child button")
    assert page.text(".answer .markdown") == "First answer"
    # Formerly broken entries are passed over.
    page.evaluate("localStorage['ernie-rt/chat/x'] = '{'; localStorage['ernie-rt/options'] = '['")
    page.reload()
    page.wait("document.querySelectorAll('#conversations li').length === 2")


@pytest.mark.long
def test_an_answer_that_a_reload_cuts_is_kept_as_far_as_it_came(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    server.script.append(Answer(["One, two"], endless=True))
    send(page, "Count")
    page.wait("document.querySelector('.answer .markdown').innerText === 'One, two'")
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    assert kept(page)[0]["messages"][-1]["content"] == "One, two"
    page.reload()
    page.wait("document.querySelector('.answer .markdown')?.innerText === 'One, two'")
    assert "ended before the answer did" in page.text(".trouble")


@pytest.mark.long
def test_a_browser_that_keeps_nothing(opened: Open, server: ScriptedServer) -> None:
    throw = "{get() { throw new DOMException('blocked', 'SecurityError'); }}"
    page = opened(
        script=f"for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, {throw})"
    )
    ask(page, server, "Hi", Answer(["Hello"]))
    page.click("#language")
    assert page.text("#conversations") == "Hi"


@pytest.mark.long
def test_a_browser_without_room(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    page.evaluate(
        "localStorage.setItem('x', 'x'.repeat(5 * 2 ** 20 - 1000)); try { for (;;) localStorage.y += 'y'; } catch {}"
    )
    ask(page, server, "Hi", Answer(["Hello"]))
    assert "no more room" in page.text("#notice")
    page.click("#language")
    assert page.text(".answer .markdown") == "Hello"
