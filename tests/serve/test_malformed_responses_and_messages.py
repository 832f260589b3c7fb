"""Bodies of `/v1/responses` and `/v1/messages` that are wrong somewhere: a 400 in the protocol's shape, and no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from copy import deepcopy
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.bodies import RIGHT
from support.scripted import write_chat_checkpoint
from support.scripted_server import serving, spell
from support.templates import THINKING

BODIES = {path: RIGHT[path] for path in ("/v1/responses", "/v1/messages", "/v1/messages/count_tokens")}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([10**30, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "name"]), inner),
    max_leaves=5,
)


class Endless(list[list[int]]):
    """Answers that never run out."""

    def pop(self, index: Any = -1) -> list[int]:
        return list(self[0])


class Client:
    """Sends bodies to one server, from tests that are not asynchronous."""

    def __init__(self, runner: asyncio.Runner, http: httpx2.AsyncClient) -> None:
        self._runner = runner
        self._http = http

    def post(self, path: str, body: bytes) -> httpx2.Response:
        headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
        return self._runner.run(self._http.post(path, content=body, headers=headers))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = write_chat_checkpoint(tmp_path_factory.mktemp("thinking"), THINKING)
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        served = runner.run(stack.enter_async_context(serving(folder)))
        backend: Any = served.async_model.model._executable._backend  # type: ignore[attr-defined]
        backend.answers = Endless([spell(folder, "Hm.</think>\nSo it is.", "<|im_end|>")])
        yield Client(runner, served.http)
        runner.run(stack.aclose())


def check(path: str, response: httpx2.Response) -> None:
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        told = response.json()
        assert told["error"]["type"] == "invalid_request_error" and told["error"]["message"]
        assert ("type" in told) == path.startswith("/v1/messages")


@pytest.mark.parametrize("path", BODIES)
def test_bodies_that_are_right(client: Client, path: str) -> None:
    response = client.post(path, json.dumps(BODIES[path]).encode())
    assert response.status_code == 200 and "x-ernie-rt-ignored" not in response.headers, response.text


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_bodies_that_are_wrong_somewhere(client: Client, data: st.DataObject) -> None:
    send_wrong(client, data)


@pytest.mark.long
@settings(deadline=None, max_examples=3000)
@given(st.data())
def test_many_bodies_that_are_wrong_somewhere(client: Client, data: st.DataObject) -> None:
    send_wrong(client, data)


def send_wrong(client: Client, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(BODIES)))
    body = deepcopy(BODIES[path])
    for _ in range(data.draw(st.integers(1, 2))):
        _change(body, data)
    check(path, client.post(path, json.dumps(body).encode()))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(BODIES)), st.binary() | st.integers(0, 300), st.sampled_from(sorted(BODIES)))
def test_bytes_that_are_no_body(client: Client, path: str, data: bytes | int, other: str) -> None:
    body = data if isinstance(data, bytes) else json.dumps(BODIES[other]).encode()[:data]
    response = client.post(path, body)
    assert response.status_code == 400
    check(path, response)


def _change(body: Any, data: st.DataObject) -> None:
    """Replace something within a body, or leave it out."""
    keys: list[Any] = list(body) if isinstance(body, dict) else list(range(len(body)))
    if not keys:
        return
    key = data.draw(st.sampled_from(keys))
    if isinstance(body[key], dict | list) and data.draw(st.booleans()):
        _change(body[key], data)
    elif data.draw(st.integers(0, 4)):
        body[key] = data.draw(VALUES)
    else:
        del body[key]
