"""A browser, and a server whose answers are written down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from browser import Browser, Page
from page_server import ScriptedServer
from support.browsing import Open


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def opened(program: Browser, server: ScriptedServer) -> Iterator[Open]:
    """Opens the page; when the test is over, it has broken no policy and logged no error."""
    pages = []

    def open_page(**options: Any) -> Page:
        pages.append(program.open(server.url, **options))
        return pages[-1]

    yield open_page
    for page in pages:
        assert page.problems == []
        page.close()
