"""The page in two languages, in light and dark, on a phone, by keyboard and by ear; and its view of the server."""

from __future__ import annotations

import re

import pytest

from browser import CTRL, SHIFT
from page_server import Answer, ScriptedServer
from support.browsing import Open, ask, ended, needs_browser

pytestmark = needs_browser


@pytest.mark.long
def test_it_speaks_two_languages(opened: Open, server: ScriptedServer) -> None:
    page = opened(language="zh-CN,en")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    ask(page, server, "你好", Answer(["您好"]))
    assert page.text("#chat-tab") == "对话"
    assert "12 个 token" in page.text(".figures")
    page.click("#language")
    assert page.text("#chat-tab") == "Chat"
    assert "12 prompt tokens" in page.text(".figures")
    assert page.evaluate("document.querySelector('#message').placeholder") == "Write a message"
    assert page.evaluate("document.querySelector('#send').title") == "Send"
    page.reload()
    assert page.text("#chat-tab") == "Chat"
    visible = page.text("body").replace("你好", "").replace("您好", "").replace("中文", "")
    assert not re.search(r"[\u3000-\u9fff]", visible)


@pytest.mark.long
def test_light_and_dark(opened: Open) -> None:
    page = opened(scheme="dark")
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(paper)
    page.click("#theme")
    light = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == light
    page.click("#theme")
    assert page.evaluate(paper) == dark


@pytest.mark.long
def test_on_a_phone(opened: Open, server: ScriptedServer) -> None:
    page = opened(width=360, height=720, phone=True)
    hidden = "getComputedStyle(document.querySelector('#sidebar')).visibility === 'hidden'"
    assert page.evaluate(hidden)
    ask(
        page,
        server,
        "Hi",
        Answer(["| a | b |\n| - | - |\n| " + "wide " * 40 + "| x |\n\n```\n" + "long " * 40 + "\n```"]),
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate(
        "document.querySelector('#scroller').scrollWidth <= document.querySelector('#scroller').clientWidth"
    )
    page.click("#open-sidebar")
    page.wait("document.querySelector('#sidebar').getBoundingClientRect().x === 0")
    page.click("#new-chat")
    page.wait(hidden)
    page.click("#open-settings")
    page.click("#close-settings")
    page.click("#server-tab")
    page.wait("document.querySelector('.chart svg path') || document.querySelector('.tiles dd')")
    assert page.evaluate("document.querySelector('#server').scrollWidth") == 360


@pytest.mark.long
def test_keys_of_the_keyboard(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    page.click("#message")
    page.type("two")
    page.press("Enter", SHIFT)
    page.type("lines")
    assert page.evaluate("document.querySelector('#message').value") == "two\nlines"
    # An input method takes Enter to end a word: the key comes with the code 229.
    page.call("Input.imeSetComposition", text="ni", selectionStart=2, selectionEnd=2)
    page.call("Input.dispatchKeyEvent", type="rawKeyDown", key="Enter", code="Enter", windowsVirtualKeyCode=229)
    page.call("Input.insertText", text="你")
    assert server.requests == []
    server.script.append(Answer(["yes"]))
    page.press("Enter")
    ended(page)
    assert server.requests[-1]["messages"][-1]["content"] == "two\nlines你"
    page.press("k", CTRL)
    assert page.evaluate("document.activeElement.id") == "message"
    assert page.evaluate("document.querySelectorAll('.answer').length") == 0
    page.evaluate("document.querySelector('#chat-tab').focus()")
    page.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "server-tab"
    assert page.evaluate("document.querySelector('#chat').hidden")


@pytest.mark.long
def test_who_listens_hears_the_answer_once(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    page.evaluate(
        "window.heard = []; new MutationObserver(() => heard.push(document.querySelector('#announcer').innerText))"
        ".observe(document.querySelector('#announcer'), {childList: true}); 0"
    )
    ask(page, server, "Hi", Answer(["One ", "**two** ", "three"], pause=0.03))
    assert page.evaluate("heard") == ["The model is answering.", "Answer: One two three"]
    named = "Array.from(document.querySelectorAll('button, textarea, input')).filter((e) => e.checkVisibility())"
    nameless = f"{named}.filter((e) => !(e.ariaLabel || e.innerText || e.labels?.length)).map((e) => e.outerHTML)"
    page.click("#open-settings")
    assert page.evaluate(nameless) == []


@pytest.mark.long
def test_the_state_of_the_server(opened: Open, server: ScriptedServer) -> None:
    page = opened()
    server.stats |= {
        "requests_running": 3, "requests_waiting": 21, "cache_usage": 0.5, "prefix_cache_hit_rate": 0.25,
        "generation_tokens_total": 9000, "uptime_seconds": 7260.0,
        "time_to_first_token_seconds": {"p50": 0.125, "p95": 2.5},
    }  # fmt: skip
    page.click("#server-tab")
    page.wait("document.querySelector('.chart path')")
    assert page.text("#server h1") == "scripted"
    assert page.text(".facts").split("\n") == ["eager · cpu · float32", "context of 2,048 tokens", "up 2 h 1 min"]
    tiles = page.text(".tiles").replace("\n", " ")
    for words in (
        "Running 3",
        "Waiting 21",
        "50.0 %",
        "25.0 %",
        "125 ms median · 95 % within 2.50 s",
        "Time per token –",
        "9,000",
    ):
        assert words in tiles
    assert page.evaluate("document.querySelectorAll('.chart').length") == 3
    page.click("#language")
    assert "排队中" in page.text(".tiles")
