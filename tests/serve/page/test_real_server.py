"""The page before a real server, of the demo model, with a key."""

from __future__ import annotations

import pytest

from browser import Browser
from support.browsing import needs_browser, send
from support.serving import Served

pytestmark = needs_browser


@pytest.mark.long
def test_the_demo_model_answers(program: Browser, locked: Served) -> None:
    page = program.open(f"{locked.url}/")
    send(page, "How many grams are in 5 kilograms?")
    page.click("#thread .key input")
    page.type("sk-first")
    page.press("Enter")
    page.wait("document.querySelector('.answer .markdown')?.innerText === '5 kilograms = 5000 grams'")
    page.wait("document.querySelector('.figures').innerText.includes('prompt tokens')")
    page.click("#server-tab")
    page.wait("document.querySelector('.facts')?.innerText.includes('onnx · cpu')")
    assert page.problems == []
    page.close()
