"""Who is let in: every route, with every way to knock."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from starlette.routing import Route

from ernie_rt.errors import OptionError
from ernie_rt_serve.access import NO_KEYS, Keys
from ernie_rt_serve.app import ENTRIES, make_app
from ernie_rt_serve.settings import Settings
from support.serving import KEY, Served, ask, run

PUBLIC = {"/health", "/ready", "/"}
LOCKED = [entry for entry in ENTRIES if entry.path not in PUBLIC and not entry.path.startswith("/page/")]


def knock(served: Served, request: bytes) -> int:
    """The status of a request, as it is written."""
    with served.connect() as connection:
        connection.sendall(request)
        line = connection.makefile("rb").readline()
    return int(line.split()[1])


def request(method: str, path: str, *headers: str, host: str = "x") -> bytes:
    body = b"{}" if method == "POST" else b""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode("latin-1") + body


def test_every_route_says_who_may_use_it() -> None:
    routes = make_app(None, Settings("m")).routes
    assert all(isinstance(route, Route) for route in routes)
    paths = [route.path for route in routes if isinstance(route, Route)]
    assert paths == [entry.path for entry in ENTRIES], "a route that stands in no table has no policy"
    for entry in ENTRIES:
        public = entry.path in PUBLIC or entry.path.startswith("/page/")
        assert entry.access == ("public" if public else "key"), entry.path


@pytest.mark.parametrize("entry", LOCKED, ids=lambda entry: entry.path)
def test_nobody_gets_in_without_a_key(locked: Served, entry: object) -> None:
    method, path = entry.method, entry.path.replace("{name:path}", "demo")  # type: ignore[attr-defined]
    statuses = {
        name: knock(locked, request(*parts[:2], *parts[2:], host=host))
        for name, (parts, host) in {
            "none": ((method, path), "x"),
            "wrong": ((method, path, "Authorization: Bearer sk-other"), "x"),
            "empty": ((method, path, "Authorization:"), "x"),
            "scheme": ((method, path, "Authorization: Bearer"), "x"),
            "basic": ((method, path, f"Authorization: Basic {KEY}"), "x"),
            "beginning": ((method, path, f"Authorization: Bearer {KEY[:-1]}"), "x"),
            "other header": ((method, path, "x-api-key: sk-other"), "x"),
            "not ascii": ((method, path, "Authorization: Bearer ÿ"), "x"),
            "long": ((method, path, f"Authorization: Bearer {'k' * 20000}"), "x"),
            "host query": ((method, path), "x/?"),
            "host fragment": ((method, path), "x/health#"),
            "slashes": ((method, f"/{path}"), "x"),
            "encoded": ((method, f"{path[:-1]}%{ord(path[-1]):02x}"), "x"),
            "dots": ((method, f"/health/..{path}"), "x"),
            "trailing": ((method, f"{path}/"), "x"),
            "query": ((method, f"{path}?api_key={KEY}"), "x"),
            "upper": ((method, path.upper()), "x"),
            "head": (("HEAD", path), "x"),
            "options": (("OPTIONS", path, "Origin: http://a", "Access-Control-Request-Method: POST"), "x"),
            "put": (("PUT", path), "x"),
        }.items()
    }
    assert set(statuses.values()) == {401}, statuses


def test_a_key_opens(locked: Served) -> None:
    for header in (f"Authorization: Bearer {KEY}", f"authorization: bearer  {KEY}", f"X-API-Key: {KEY}"):
        assert knock(locked, request("GET", "/v1/models", header)) == 200
    assert knock(locked, request("GET", "/v1/models", "Authorization: Bearer sk-second")) == 200
    assert knock(locked, request("GET", "/health")) == knock(locked, request("GET", "/ready")) == 200
    assert knock(locked, request("GET", "/nothing", f"x-api-key: {KEY}")) == 404
    assert knock(locked, request("GET", "/v1/models/", f"x-api-key: {KEY}")) == 404
    assert knock(locked, request("POST", "/tokenize/", f"x-api-key: {KEY}")) == 404, "and leads nowhere else"
    assert knock(locked, request("PUT", "/v1/models", f"x-api-key: {KEY}")) == 405
    reply = httpx2.put(f"{locked.url}/v1/models", headers={"x-api-key": KEY})
    assert "/v1/models cannot be asked with PUT" in reply.text and "GET" in reply.headers["allow"]


def test_a_refusal_tells_what_to_send_and_no_key(locked: Served) -> None:
    async def body() -> None:
        app = make_app(None, Settings("m", keys=Keys.of([KEY])))
        reply = await ask(app, "GET", "/v1/models", headers={"authorization": "Bearer sk-secret"})
        assert reply.status == 401 and reply.headers["www-authenticate"] == "Bearer"
        assert reply.error["code"] == "invalid_api_key" and b"sk-" not in reply.body

    run(body)


def test_prompts_are_shared_within_one_key_or_salt(locked: Served) -> None:
    messages = [{"role": "user", "content": "How many metres are in 7 kilometres, and how many in 12?"}]

    def cached(key: str, **fields: str) -> int:
        reply = httpx2.post(
            f"{locked.url}/v1/chat/completions", json={"messages": messages, "max_tokens": 1, **fields},
            headers={"x-api-key": key},
        )  # fmt: skip
        count: int = reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        return count

    assert cached(KEY) == 0 < cached(KEY)
    assert cached("sk-second") == 0 < cached("sk-second")
    assert cached(KEY, cache_salt="ours") == 0 < cached("sk-second", cache_salt="ours")
    tenant = Keys.of([KEY]).tenant({"x-api-key": KEY})
    assert cached("sk-second", cache_salt=f"key {tenant}") == 0, "nobody gets at what another key has by a salt"


def test_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsk-a\n\n  sk-b  \nsk-a\n")
    keys = Keys.read(file)
    assert keys == Keys.of(["sk-a", "sk-b"]) and keys.tenant({"x-api-key": "sk-b"}) not in (None, "")
    assert "sk-a" not in repr(keys)
    assert NO_KEYS.tenant({}) == "" and not NO_KEYS
    for content in (b"", b"# none\n", b"\xff", "schlüssel\n".encode(), b"a b\n", b"a\x00b\n"):
        file.write_bytes(content)
        with pytest.raises(OptionError, match=str(file)):
            Keys.read(file)


def test_pages_of_other_origins_may_ask_only_where_that_was_said() -> None:
    async def body() -> None:
        question = {"origin": "http://a", "access-control-request-method": "POST"}
        for origins, allowed in (((), None), (("http://a",), "http://a"), (("http://b",), None), (("*",), "*")):
            app = make_app(None, Settings("m", keys=Keys.of([KEY]), cors_origins=origins))
            asked = await ask(app, "OPTIONS", "/v1/chat/completions", headers=question)
            assert asked.headers.get("access-control-allow-origin") == allowed
            told = await ask(app, "GET", "/health", headers={"origin": "http://a"})
            assert told.headers.get("access-control-allow-origin") == allowed
            assert "access-control-allow-credentials" not in asked.headers

    run(body)
