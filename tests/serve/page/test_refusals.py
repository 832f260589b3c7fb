"""What the page says when the server does not answer."""

from __future__ import annotations

import pytest

from browser import Browser
from page_server import Answer, Refused, ScriptedServer
from support.browsing import Open, ask, needs_browser, send

pytestmark = needs_browser


@pytest.mark.long
def test_a_key_is_asked_for_and_kept_in_the_tab_alone(program: Browser) -> None:
    with ScriptedServer(key="secret") as server:
        page = program.open(server.url)
        send(page, "Hi")
        page.wait("document.querySelector('#thread .key')")
        assert "asks for a key" in page.text("#thread .error")
        page.click("#thread .key input")
        page.type("wrong")
        page.press("Enter")
        page.wait("document.querySelector('#thread .error')?.innerText.includes('does not know this key')")
        server.script.append(Answer(["Welcome"]))
        page.click("#thread .key input")
        page.type("secret")
        page.press("Enter")
        page.wait("document.querySelector('.answer .markdown')?.innerText === 'Welcome'")
        page.wait("document.querySelector('#model').innerText === 'scripted'")
        assert [request["messages"] for request in server.requests] == [[{"role": "user", "content": "Hi"}]]
        assert "secret" not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
        page.click("#server-tab")
        page.wait("document.querySelector('.tiles')?.innerText.includes('Running')")
        assert page.problems == []
        page.close()


@pytest.mark.long
def test_a_busy_server_is_waited_for(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    server.script.append(Refused(429, "the queue is full", {"retry-after": "2"}))
    send(page, "Hi")
    page.wait("document.querySelector('.error button')?.innerText === 'Try again in 1 s'")
    assert page.evaluate("document.querySelector('.error button').disabled")
    assert "as many requests as it takes" in page.text(".error")
    server.script.append(Answer(["Here"]))
    page.wait("!document.querySelector('.error button').disabled")
    page.click(".error button")
    page.wait("document.querySelector('.answer .markdown').innerText === 'Here'")
    assert page.text(".error") == ""
    assert len(server.requests) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Refused(400, "top_k must be a whole number"), "did not take this request"),
        (Refused(403, "no"), "does not let this key"),
        (Refused(404, "no model x"), "no model of that name"),
        (Refused(413, "too long"), "more than the server takes"),
        (Refused(500, "a failure"), "went wrong within the server"),
        (Refused(503, "draining"), "starting or stopping"),
        (Answer(["half"], broken=True), "ended before the answer did"),
        (Answer(["half"], error="NaN in the logits"), "went wrong within the server"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_errors_are_told_in_words(opened: Open, server: ScriptedServer, answer: Answer | Refused, words: str) -> None:
    page = opened()
    ask(page, server, "Hi", answer)
    assert words in page.text(".error")
    if isinstance(answer, Refused):
        assert answer.message in page.text(".error")
    else:
        assert page.text(".answer .markdown") == "half"
    page.reload()
    page.wait("document.querySelector('.error')")
    assert words in page.text(".error")


@pytest.mark.long
def test_a_server_that_is_gone(program: Browser) -> None:
    with ScriptedServer() as server:
        page = program.open(server.url)
    send(page, "Hi")
    page.wait("document.querySelector('.error')?.innerText.includes('cannot be reached')")
    page.close()
