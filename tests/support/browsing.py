"""What tests do with the page, and see of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from browser import Page, chromium
from page_server import Answer, Refused, ScriptedServer

needs_browser = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
Open = Callable[..., Page]
"""Opens the page in a profile of its own; the options are those of `Browser.open`."""


def send(page: Page, text: str) -> None:
    page.click("#message")
    page.type(text)
    page.press("Enter")


def ask(page: Page, server: ScriptedServer, text: str, answer: Answer | Refused) -> None:
    """Send a message, and wait until its answer has ended."""
    server.script.append(answer)
    send(page, text)
    ended(page)


def ended(page: Page) -> None:
    page.wait(
        "document.querySelector('#thread .answer:last-child footer button') && !document.querySelector('#send').hidden"
    )


def kept(page: Page) -> list[dict[str, Any]]:
    """The conversations that the browser keeps."""
    texts: list[str] = page.evaluate(
        "Object.keys(localStorage).filter((k) => k.includes('/chat/')).map((k) => localStorage[k])"
    )
    return [json.loads(text) for text in texts]
