"""Addresses and paths in the place of pictures: nothing is fetched, opened or even resolved."""

from __future__ import annotations

import builtins
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_rt import Model
from support.pictures import seeing_app, seeing_model
from support.serving import ask, run

LOCAL = (
    "127.0.0.1", "localhost", "[::1]", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.1",
    "[::ffff:127.0.0.1]",
    "ok@127.0.0.1", r"ok\@127.0.0.1", "127.0.0.1#", "127。0。0。1", "①②⑦.⓪.⓪.①", "user:pass@127.0.0.1", "0",
)  # fmt: skip
"""Spellings of this machine."""
SCHEMES = (
    "http://",
    "https://",
    "HTTP://",
    " http://",
    "//",
    "ftp://",
    "gopher://",
    "dict://",
    "http:/",
    r"http:\\",
    "data://",
)
PATHS = (
    "file:///etc/passwd", "FILE:///etc/passwd", "file:/etc/passwd", "file://localhost/etc/passwd", "/etc/passwd",
    "../../../etc/passwd", "C:\\Windows\\win.ini", r"\\127.0.0.1\share\a.png", "/dev/zero", "/proc/self/environ",
    "data:file:///etc/passwd", "data:image/png;base64,file:///etc/passwd", "data:text/plain,hi", "data:,",
    "data:image/png,hi",
    "data:image/png;base64", "data:image/svg+xml;base64,PHN2Zz4=", "\0data:image/png;base64,AAAA", "blob:http://x/1",
    "jar:file:///x!/y", "concat:/etc/passwd|/etc/hosts", "subfile,,start,0,end,0,,:/etc/passwd", "fd:0", "pipe:0",
    "http://169.254.169.254/latest/meta-data/", "s3://bucket/key", "hf://model/file", "", " ", "x" * 100_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with seeing_model(tmp_path_factory.mktemp("seeing")) as model:
        yield model


@pytest.fixture
def canary() -> Iterator[tuple[int, list[Any]]]:
    """A port that listens, and who has knocked."""
    knocked: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        done = threading.Event()

        def listen() -> None:
            while not done.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                knocked.append(connection.recv(100))
                connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        yield listener.getsockname()[1], knocked
        done.set()
        thread.join()


def asked(url: str) -> dict[str, tuple[dict[str, Any], str]]:
    """Requests that show what is at an address, by their paths, each with the place that is wrong."""

    def chat(part: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]}

    def block(source: dict[str, Any]) -> dict[str, Any]:
        return {**chat({"type": "image", "source": source}), "max_tokens": 3}

    picture = {"type": "image_url", "image_url": {"url": url}}
    film = {"type": "video_url", "video_url": {"url": url}}
    text = {"type": "input_text", "text": "x"}
    shown = {"input": [{"role": "user", "content": [text, {"type": "input_image", "image_url": url}]}]}
    place = "messages[0].content[1]"
    return {
        "/v1/chat/completions": (chat(picture), place),
        "/v1/chat/completions#video": (chat(film), place),
        "/tokenize": (chat(picture), place),
        "/v1/responses": (shown, "input[0].content[1]"),
        "/v1/messages": (block({"type": "url", "url": url}), place),
        "/v1/messages/count_tokens": (block({"type": "url", "url": url}), place),
        "/v1/messages#base64": (block({"type": "base64", "media_type": "image/png", "data": url}), place),
    }


def test_nothing_is_fetched_opened_or_resolved(
    model: Model, canary: tuple[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, knocked = canary
    urls = [f"{scheme}{host}:{port}/a.png" for scheme in SCHEMES for host in LOCAL]
    reached: list[Any] = []

    def forbid(owner: Any, name: str) -> None:
        before = getattr(owner, name)

        def noted(*given: Any, **options: Any) -> Any:
            reached.append((name, *given))
            return before(*given, **options)

        monkeypatch.setattr(owner, name, noted)

    async def body() -> None:
        app, served = seeing_app(model)
        for owner, name in ((socket, "getaddrinfo"), (socket, "create_connection"), (builtins, "open"), (os, "open")):
            forbid(owner, name)
        for number, url in enumerate([*PATHS, *urls]):
            requests = asked(url)
            ways = list(requests) if number < len(PATHS) else [list(requests)[number % len(requests)]]
            for way in ways:
                content, place = requests[way]
                path = way.partition("#")[0]
                reply = await ask(app, "POST", path, content)
                assert reply.status == 400, (way, url)
                assert reply.error["type"] == "invalid_request_error"
                told = reply.error.get("param") or reply.error["message"]
                assert told.startswith(place), (way, url, told)
                assert b"root:" not in reply.body and len(reply.body) < 600
        assert not served.asked and app.state.service.held == 0

    run(body)
    assert not knocked and not reached


def test_a_file_that_is_there_is_not_looked_at(model: Model, tmp_path: Path) -> None:
    """No answer tells whether there is such a file."""
    there = tmp_path / "there.png"
    there.write_bytes(b"\x89PNG\r\n\x1a\n")

    async def body() -> None:
        app, _ = seeing_app(model)
        for form in ("{}", "file://{}"):
            replies = [
                await ask(app, "POST", path, asked(form.format(file))[path][0])
                for path in ("/v1/chat/completions", "/v1/responses")
                for file in (there, there.with_name("not.png"))
            ]
            assert replies[0].body == replies[1].body and replies[2].body == replies[3].body

    run(body)
