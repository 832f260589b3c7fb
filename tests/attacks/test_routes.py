"""Who gets at a route: by names that lead elsewhere, from pages of the web, with keys that are none."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from ernie_rt_serve.access import Keys
from ernie_rt_serve.app import ENTRIES
from ernie_rt_serve.routing import Entry
from support import serving
from support.serving import Served
from support.wire import head, statuses, told

KEY = serving.KEY.encode()
CLOSE = b"Connection: close"
READ = [entry for entry in ENTRIES if entry.method == "POST"]


def path(entry: Entry) -> bytes:
    return entry.path.replace("{name:path}", "demo").encode()


def request(path: bytes, *lines: bytes, method: bytes = b"GET", host: bytes = b"localhost", body: bytes = b"") -> bytes:
    start = b"%s %s HTTP/1.1" % (method, path)
    return head(*lines, CLOSE, b"Content-Length: %d" % len(body), start=start, host=host) + body


STRANGE_HOSTS = (
    b"evil.example", b"evil.example:8000", b"localhost.evil.example", b"127.0.0.1.evil.example",
    b"evil.example:localhost",
    b"localhost@evil.example", b"evil.example#localhost", b"[::1].evil.example", b"localhost,evil.example",
    b"x/?localhost",
    b"xn--lcalhost-0cb", b"localhost.", b"1.2.3.4x", b"[evil]", b"localhost:80:80", b"evil-localhost", b" localhost x",
)  # fmt: skip
OWN_HOSTS = (
    b"localhost", b"LocalHost:8000", b"page.localhost:1", b"127.0.0.1", b"127.0.0.1:8000", b"[::1]:8000",
    b"192.168.1.2",
    b"",
)  # fmt: skip


@pytest.mark.parametrize("host", STRANGE_HOSTS)
def test_a_page_whose_name_leads_here_gets_nothing(server: Served, host: bytes) -> None:
    """A server without keys: a page may have its own name lead to this machine, and is then of one origin with it."""
    for asked in (b"/", b"/health", b"/v1/models", b"/nothing"):
        answer = told(server, request(asked, host=host))
        assert statuses(answer) == [403] and b'"code":"wrong_host"' in answer, answer
    body = b'{"prompt": "x"}'
    assert statuses(told(server, request(b"/tokenize", method=b"POST", host=host, body=body))) == [403]


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_this_machine_s_own_names_are_taken(server: Served, host: bytes) -> None:
    assert statuses(told(server, request(b"/v1/models", host=host))) == [200]


def test_no_host_at_all_comes_from_no_browser(server: Served) -> None:
    assert statuses(told(server, b"GET /v1/models HTTP/1.0\r\n\r\n")) == [200]


def test_with_keys_any_name_will_do(locked: Served) -> None:
    answer = told(locked, request(b"/v1/models", b"x-api-key: " + KEY, host=b"ernie.example.org"))
    assert statuses(answer) == [200]


FORMS = (
    b"text/plain", b"text/plain;charset=UTF-8", b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=a",
    b"text/plain; application/json", b"application/json, text/plain", b"application/json-patch+json", b"",
)  # fmt: skip
"""Types of bodies that a page may send to another origin without asking, and some that look like ours."""


@pytest.mark.parametrize("entry", READ, ids=lambda entry: entry.path)
def test_a_page_of_another_origin_sends_no_request_that_is_read(server: Served, entry: Entry) -> None:
    body = (
        b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "prompt": "x", "input": "x", "tokens": [5]}'
    )
    origin = b"Origin: https://evil.example", b"Sec-Fetch-Site: cross-site"
    for type in FORMS:
        sent = request(path(entry), *origin, method=b"POST", body=body)
        answer = told(server, sent.replace(b"Content-Type: application/json", b"Content-Type: " + type))
        assert statuses(answer) == [415] and b"access-control" not in answer.lower(), type
    asked = b"Access-Control-Request-Method: POST", b"Access-Control-Request-Headers: content-type"
    answer = told(server, request(path(entry), *origin, *asked, method=b"OPTIONS"))
    assert statuses(answer) == [405] and b"access-control" not in answer.lower()


METHODS = (
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"PROPFIND",
    b"get",
    b"A" * 5000,
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path)
def test_a_route_has_one_method(locked: Served, entry: Entry) -> None:
    own = {entry.method.encode(), *([b"HEAD"] if entry.method == "GET" else [])}
    for method in METHODS:
        if method in own:
            continue
        answer = told(locked, request(path(entry), b"x-api-key: " + KEY, b"X-Secret: s3cret", method=method))
        assert statuses(answer) == [405] and len(answer) < 600 and b"s3cret" not in answer, method


SPELLINGS: dict[bytes, int] = {
    b"//v1/models": 404, b"/v1//models": 404, b"/v1/./models": 404, b"/health/../v1/models": 404, b"/v1/models/": 404,
    b"/v1/models%2f": 404, b"/V1/MODELS": 404, b"/v1/models%00": 404, b"/v1/models%20": 404, b"/v1/models;a=b": 404,
    b"/v1%5cmodels": 404, b"\\v1\\models": 404, b"/%76%31/models": 200, b"/v1/models?x": 200, b"/v1/models#x": 404,
    b"http://localhost/v1/models": 404, b"http://localhost/health": 404, b"/health/%2e%2e/v1/models": 404,
    b"/page/..%2fv1/models": 404, b"/page/%2e%2e/__init__.py": 404, b"/page/....//main.js": 404, b"*": 404,
    b"/v1/%c0%ae%c0%ae/models": 404, b"/%0d%0aSet-Cookie:a": 404,
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_paths_are_taken_as_they_are_and_need_a_key_however_they_are_spelled(locked: Served, spelling: bytes) -> None:
    assert statuses(told(locked, request(spelling))) == [401]
    answer = told(locked, request(spelling, b"x-api-key: " + KEY))
    assert statuses(answer) == [SPELLINGS[spelling]] and b"\r\nset-cookie" not in answer.lower()


KEYS: dict[str, tuple[list[bytes], int]] = {
    "in the query": ([], 401),
    "in a cookie": ([b"Cookie: api_key=" + KEY + b"; x-api-key=" + KEY], 401),
    "as a password": ([b"Authorization: Basic OnNrLWZpcnN0"], 401),
    "of a proxy": ([b"Proxy-Authorization: Bearer " + KEY, b"X-Forwarded-Authorization: Bearer " + KEY], 401),
    "with a line": ([b"x_api_key: " + KEY], 401),
    "a tab behind the scheme": ([b"Authorization: Bearer\t" + KEY], 401),
    "two schemes": ([b"Authorization: Bearer Bearer " + KEY], 401),
    "several at once": ([b"Authorization: Bearer " + KEY + b"," + KEY], 401),
    "wrong before right": ([b"Authorization: Bearer x", b"Authorization: Bearer " + KEY], 401),
    "right before wrong": ([b"Authorization: Bearer " + KEY, b"Authorization: Bearer x"], 401),
    "right before wrong, by itself": ([b"x-api-key: " + KEY, b"X-API-Key: x"], 401),
    "bearer counts": ([b"Authorization: Bearer x", b"x-api-key: " + KEY], 401),
    "its digest": ([b"Authorization: Bearer " + Keys.of([KEY.decode()]).digests[0].hex().encode()], 401),
    "every byte": ([b"Authorization: Bearer " + bytes(range(0x80, 0x100))], 401),
    "a megabyte": ([b"Authorization: Bearer " + b"k" * (1 << 20)], 400),
    "other letters": ([b"Authorization: Bearer SK-FIRST"], 401),
    "spaces around": ([b"Authorization:   bearer   " + KEY + b"   "], 200),
}


@pytest.mark.parametrize("name", KEYS)
def test_what_is_taken_for_a_key(locked: Served, name: str) -> None:
    lines, status = KEYS[name]
    answer = told(locked, request(b"/v1/models?api_key=sk-first&key=sk-first", *lines))
    assert (statuses(answer) or [400]) == [status]
    assert KEY not in answer


def test_how_long_a_key_is_looked_at_says_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of it are compared in constant time, and all of them."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noted(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return compare(one, other)

    keys = Keys.of(["sk-first", "sk-second", "sk-third"])
    monkeypatch.setattr(hmac, "compare_digest", noted)
    for key in ("sk-first", "sk-third", "sk-f", "", "x" * 10_000):
        compared.clear()
        keys.tenant({"x-api-key": key})
        assert len(compared) == 3 and all(len(one) == len(other) == 32 for one, other in compared)
