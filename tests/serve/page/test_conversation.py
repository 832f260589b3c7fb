"""A conversation on the page: what is sent, how answers come, and what can be done with them."""

from __future__ import annotations

import re

import pytest

from browser import CTRL, Browser
from page_server import Answer, ScriptedServer
from support.browsing import Open, ask, ended, needs_browser, send

pytestmark = needs_browser


def test_a_question_is_answered(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    ask(page, server, "How many grams?", Answer(["5 kilograms ", "= **50", "00** grams"], pause=0.07, cached=8))
    assert page.text(".bubble") == "How many grams?"
    assert page.text(".answer .markdown") == "5 kilograms = 5000 grams"
    assert page.text(".answer strong") == "5000"
    figures = page.text(".figures")
    assert re.search(
        r"\d tokens/s\s+first token \d.*3 tokens\s+8 of 12 prompt tokens from the cache", figures, re.DOTALL
    )
    assert server.requests == [
        {
            "model": "scripted",
            "messages": [{"role": "user", "content": "How many grams?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


@pytest.mark.long
def test_what_is_set_is_sent(opened: Open, server: ScriptedServer) -> None:
    server.defaults = {"temperature": 0.8, "max_tokens": 2048}
    page = opened()
    page.wait("document.querySelector('[name=temperature]').placeholder === '0.8'")
    assert page.evaluate("document.querySelector('[name=top_k]').placeholder") == "default"
    page.click("#open-settings")
    page.type("Be brief.")
    for name, value in {"temperature": "0.25", "seed": "7", "thinking_budget": "64"}.items():
        page.click(f"[name={name}]")
        page.type(value)
    ask(page, server, "Hi", Answer(["Hello"]))
    page.reload()
    ask(page, server, "Again", Answer(["Hello"], headers={"x-ernie-rt-ignored": "seed"}))
    body = server.requests[-1]
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "Hi", "Hello", "Again"]
    assert (body["temperature"], body["seed"], body["thinking_budget"]) == (0.25, 7, 64)
    assert not body.keys() & {"top_p", "top_k", "min_p", "max_tokens", "repetition_penalty"}
    assert "does not know seed" in page.text(".answer:last-child .trouble")


@pytest.mark.long
def test_a_value_that_cannot_be_is_not_sent(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    page.click("#open-settings")
    page.click("[name=top_p]")
    page.type("7")
    page.click("#close-settings")
    send(page, "Hi")
    page.wait("document.activeElement.name === 'top_p'")
    assert server.requests == []


@pytest.mark.long
def test_an_answer_can_be_stopped_and_asked_for_again(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    server.script.append(Answer(["One, two"], endless=True))
    send(page, "Count")
    page.wait("document.querySelector('.answer .markdown').innerText === 'One, two'")
    page.press("Escape")
    assert server.left.wait(5)
    ended(page)
    assert "Stopped" in page.text(".trouble")
    server.script.append(Answer(["One, two, three"]))
    page.click(".answer [aria-label='Answer again']")
    page.wait("document.querySelector('.answer .markdown').innerText === 'One, two, three'")
    assert page.evaluate("document.querySelectorAll('.answer').length") == 1
    assert server.requests[0] == server.requests[1]


@pytest.mark.long
def test_an_answer_goes_on_while_another_conversation_is_looked_at(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    server.script.append(Answer(["a", "b", "c"], pause=0.3))
    send(page, "first")
    page.wait("document.querySelector('.answer .markdown').innerText")
    page.press("k", CTRL)
    page.wait("!document.querySelector('.answer')")
    ask(page, server, "second", Answer(["other"]))
    page.click("#conversations li:last-child button")
    page.wait("document.querySelector('.answer .markdown').innerText === 'abc'")
    ended(page)
    page.click("#conversations li:first-child button")
    page.wait("document.querySelector('.answer .markdown').innerText === 'other'")


@pytest.mark.long
def test_the_last_message_can_be_changed(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    ask(page, server, "First", Answer(["1"]))
    ask(page, server, "Secnd", Answer(["?"]))
    assert page.evaluate("document.querySelectorAll('[aria-label=\"Edit and send again\"]').length") == 1
    page.click(".user:nth-last-child(2) [aria-label='Edit and send again']")
    page.evaluate("document.querySelector('.edit textarea').select()")
    page.type("Second")
    server.script.append(Answer(["2"]))
    page.press("Enter")
    page.wait("document.querySelector('.answer:last-child .markdown').innerText === '2'")
    assert [message["content"] for message in server.requests[-1]["messages"]] == ["First", "1", "Second"]


@pytest.mark.long
def test_thoughts_open_while_they_come_and_fold_away(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    server.script.append(Answer([{"reasoning_content": "Let me "}, {"reasoning_content": "see."}], endless=True))
    send(page, "Think")
    page.wait("document.querySelector('.thoughts')?.innerText === 'Let me see.'")
    assert page.evaluate("document.querySelector('.thinking').open")
    page.click("#stop")
    ended(page)
    call = {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"city": '}}
    more = {"index": 0, "function": {"arguments": '"Paris"}'}}
    pieces = [{"reasoning_content": "Weather."}, "One moment.", {"tool_calls": [call]}, {"tool_calls": [more]}]
    ask(page, server, "And?", Answer(pieces, finish="tool_calls"))
    assert not page.evaluate("document.querySelector('.answer:last-child .thinking').open")
    assert page.text(".answer:last-child .call") == "weather"
    assert page.text(".answer:last-child .calls pre") == '{\n  "city": "Paris"\n}'
    ask(page, server, "Well?", Answer(["Sunny"]))
    assert server.requests[-1]["messages"][-2] == {"role": "assistant", "content": "One moment."}


HOSTILE = """<img src=x onerror="window.hacked = 1"><script>window.hacked = 2</script>

[a](javascript:window.hacked=3) [b](data:text/html,x) ![c](https://example.com/pixel.png) <javascript:x>

| <b>x</b> |
| --- |
| [d](vbscript:x) |

```"><img src=x onerror=window.hacked=4>
</code></pre><img src=x onerror=window.hacked=5>
```
"""


@pytest.mark.long
def test_a_hostile_answer_stays_text(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    thoughts = {"reasoning_content": HOSTILE}
    call = {"index": 0, "id": "a", "function": {"name": HOSTILE, "arguments": HOSTILE}}
    ask(page, server, HOSTILE, Answer([thoughts, HOSTILE, {"tool_calls": [call]}]))
    page.reload()
    page.wait("document.querySelector('.answer')")
    assert page.evaluate("window.hacked ?? null") is None
    inside = "#thread, #conversations"
    assert (
        page.evaluate(f"document.querySelector('{inside}').querySelectorAll('img, script, iframe, style, b').length")
        == 0
    )
    links = page.evaluate("Array.from(document.querySelectorAll('.answer a'), (a) => [a.href, a.target, a.rel])")
    assert set(map(tuple, links)) == {("https://example.com/pixel.png", "_blank", "noopener noreferrer nofollow")}
    assert '<img src=x onerror="window.hacked = 1">' in page.text(".answer .markdown")


@pytest.mark.long
def test_copying(opened: Open, server: ScriptedServer, program: Browser) -> None:
    program.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page = opened()
    ask(page, server, "Code?", Answer(["So:\n```py\nx = 1\n```"]))
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }; 0")
    page.click(".code button")
    page.wait("window.copied === 'x = 1'")
    page.click(".answer footer button")
    page.wait("window.copied === 'So:\\n```py\\nx = 1\\n```'")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.evaluate("document.execCommand = (name) => { window.old = [name, document.activeElement.value]; }; 0")
    page.click(".code button")
    assert page.evaluate("window.old") == ["copy", "x = 1"]


@pytest.mark.long
def test_the_view_follows_an_answer_unless_somebody_reads_above(opened: Open, server: ScriptedServer) -> None:
    page = opened(height=400)
    server.script.append(Answer([f"line {number}\n\n" for number in range(60)], pause=0.02))
    send(page, "Write")
    scroller = "document.querySelector('#scroller')"
    below = f"({scroller}.scrollHeight - {scroller}.scrollTop - {scroller}.clientHeight)"
    page.wait(f"document.querySelectorAll('.markdown p').length > 20 && {below} < 2")
    page.evaluate("document.querySelector('#scroller').scrollTop = 40")
    ended(page)
    assert page.evaluate("document.querySelector('#scroller').scrollTop") == 40
    page.click("#to-end")
    page.wait(f"{below} < 2 && document.querySelector('#to-end').hidden")
