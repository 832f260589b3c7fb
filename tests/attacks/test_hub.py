"""A hub, or a mirror of one, that answers to write outside the cache: whatever it says, nothing lies elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from ernie_rt.weights.hub import DEMO
from ernie_rt.weights.hub_answers import Judged, judge_answers

COMMIT = "a" * 40
OUT = "../../../../out/"
FETCH = """
import json, sys
from ernie_rt.errors import ErnieRtError
from ernie_rt.weights.hub import resolve
told = {}
for case in sys.argv[1:]:
    try:
        told[case] = ["fetched", str(resolve(f"org/{case}"))]
    except ErnieRtError as error:
        told[case] = [type(error).__name__, str(error)]
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Answers:
    """What a hub says of the demo's files, and what is to become of it."""

    error: str = "UnsafePathError"
    says: str = "could lead out of its folder"
    repository: dict[str, Any] = field(default_factory=dict)
    entry: dict[str, Any] = field(default_factory=dict)  # of each file, in the listing
    headers: dict[str, str] = field(default_factory=dict)
    listing: bytes | None = None
    status: int = 200


def listing(path: str) -> bytes:
    return json.dumps([{"type": "file", "path": path, "size": 1, "oid": "b" * 40}]).encode()


CASES: dict[str, Answers] = {
    "honest": Answers("fetched", ""),
    "an-etag": Answers(headers={"ETag": f'"{OUT}x"'}),
    "a-weak-etag": Answers(headers={"ETag": f'W/"{OUT}x"'}),
    "an-absolute-etag": Answers(headers={"X-Linked-ETag": '"OUTSIDE/x"'}),
    "an-etag-of-dots": Answers(headers={"ETag": '".."'}),
    "an-etag-of-windows": Answers(headers={"ETag": '"..\\\\..\\\\x"'}),
    "a-commit": Answers(repository={"sha": f"{OUT}x"}),
    "a-commit-that-is-none": Answers(repository={"sha": "main"}),
    "a-commit-that-is-no-text": Answers(repository={"sha": [COMMIT]}),
    "a-commit-of-a-file": Answers(headers={"X-Repo-Commit": f"{OUT}x"}),
    "a-commit-of-what-is-absent": Answers(headers={"X-Repo-Commit": f"{OUT}x"}, status=404),
    "a-digest": Answers(entry={"lfs": {"oid": f"{OUT}x", "size": 4, "pointerSize": 3}, "xetHash": "c" * 64}),
    "a-path": Answers(listing=listing(f"{OUT}x.safetensors")),
    "a-path-further-in": Answers(listing=listing(f"a/{OUT}x.safetensors")),
    "an-absolute-path": Answers(listing=listing("/OUTSIDE/x.safetensors")),
    "a-path-of-windows": Answers(listing=listing("..\\x.safetensors")),
    "a-size-below-nothing": Answers("FileFormatError", "an impossible size", entry={"size": -5}),
    "a-size-that-is-text": Answers("FileFormatError", "an impossible size", entry={"size": "1"}),
    "a-listing-without-end": Answers("FileFormatError", "a listing that is too large", listing=b"[" + bytes(70 << 20)),
    "a-listing-that-is-deep": Answers("JsonError", "nested too deeply", listing=b"[" * 100_000),
    "a-listing-in-another-encoding": Answers("JsonError", "not UTF-8", listing="[]".encode("utf-16")),
    "a-page-of-the-network": Answers("JsonError", "malformed JSON.*Check the network", listing=b"<html>log in</html>"),
}  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """Answers as the repository's name says: /org/CASE."""

    outside: str

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].split("/")
        case = CASES[parts[parts.index("org") + 1]]
        files = {path.name: path for path in DEMO.iterdir() if path.is_file()}
        if "tree" in parts:
            entries = [{"type": "file", "path": n, "size": p.stat().st_size, "oid": "b" * 40} for n, p in files.items()]
            self.say(case.listing or json.dumps([entry | case.entry for entry in entries]).encode())
        elif "api" in parts:
            self.say(json.dumps({"id": "org/x", "sha": COMMIT, "siblings": []} | case.repository).encode())
        else:
            data = files[parts[-1]].read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT} | case.headers
            self.say(data, headers | ({"X-Error-Code": "EntryNotFound"} if case.status == 404 else {}), case.status)

    do_HEAD = do_GET

    def say(self, data: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        data = data.replace(b"/OUTSIDE", self.outside.encode())
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value.replace("OUTSIDE", self.outside))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """What became of each case, all of them asked for by one process."""
    root = tmp_path_factory.mktemp("hub")
    cache = root / "a" / "b" / "c" / "hub"
    outside = root / "absolute"
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Mirror", (Hub,), {"outside": str(outside)})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
        settings = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(root / "home"),
            "HF_HUB_CACHE": str(cache),
            "HOME": str(root / "home"),
        }
        done = subprocess.run(
            [sys.executable, "-c", FETCH, *CASES], env=kept | settings, capture_output=True, text=True, timeout=120
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    places = [*(f"models--org--{case}" for case in CASES), ".locks", "CACHEDIR.TAG"]
    assert {path.name for path in cache.iterdir()} <= {*places}
    assert [path for path in root.iterdir() if path.name not in ("a", "home")] == []
    assert [path for path in root.rglob("*") if path.is_file() and not path.is_relative_to(cache)] == []
    assert {path.name for path in (cache / ".locks").iterdir()} <= {*places}
    yield json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_what_a_hub_answers(case: str, told: dict[str, list[str]]) -> None:
    """Nothing lies outside the cache after any of them, as the fixture has looked."""
    error, text = told[case]
    assert error == CASES[case].error, text
    assert re.search(CASES[case].says, text) and len(text) < 1000


def test_clients_that_an_embedder_makes_are_judged() -> None:
    """Its own settings for them, such as a proxy, stay."""
    made: list[Any] = []

    def factory() -> Any:
        made.append(SimpleNamespace(send=lambda request, **_: None))
        return made[-1]

    factories: list[Any] = []
    http = SimpleNamespace(_GLOBAL_CLIENT_FACTORY=factory)
    hub = SimpleNamespace(utils=SimpleNamespace(_http=http), set_client_factory=factories.append)
    judge_answers(hub)
    (judged,) = factories
    assert isinstance(judged, Judged) and judged() is made[0]
    http._GLOBAL_CLIENT_FACTORY = judged
    judge_answers(hub)
    assert factories == [judged], "once is enough"
