"""Requests that show pictures and videos: in each protocol, with broken files, wrong types, too many, in odd base64."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from random import Random
from typing import Any, Final

from ernie_rt.vision import decoding
from ernie_rt_serve.attachments import STEP
from ernie_rt_serve.decoding import THREADS
from ernie_rt_serve.settings import Settings
from fuzz.mutations import changed, dumped
from fuzz.served import ALLOWED, LEAK, Server
from fuzz.target import Attempt, Target
from support.picture_bodies import Pictures
from support.pictures import KeptWorkers, blank, uri
from support.serving import ask
from support.vision_checkpoint import write_vision_checkpoint

SETTINGS: Final = Settings("demo", most_attachments=3, held_bytes=4 << 20)
URIS: Final = (
    "https://example.com/a.png", "/etc/passwd", "file:///etc/passwd", "data:", "data:,x", "data:image/png,x",
    "data:image/png;base64",
    "data:image/bmp;base64,AAAA", "data:image/png;base64,", "data:image/png;base64,A", "data:image/png;base64,AA==AA==",
    "data:image/png;base64,\u0441AAA", "DATA:image/png;charset=x;base64,AAAA", "data:image/jpeg;base64,iVBORw0KGgo=",
    "data:image/webp;base64,iVBORw0KGgo=", "data:image/gif;base64,iVBORw0KGgo=",
    "data:image/png;base64,iVBORw0KGgo=", "data:text/html;base64,AAAA", " data:image/png;base64,AAAA", "x" * 3000, "",
    "data:video/mp4;base64,AAAAGGZ0eXBtcDQy", "data:image/png;base64," + "AAAA" * 300_000 + "A===", uri(blank(9000,
    9000)),
    *(3 * ["data:image/png;base64," + "A" * (STEP - 1) + "=" + "AAAA"]),
)  # fmt: skip
PATHS: Final = ("/v1/chat/completions", "/tokenize", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens")


def start(folder: Path) -> Attempt:
    decoding.Worker = KeptWorkers()  # type: ignore[assignment, misc]
    server = Server(write_vision_checkpoint(folder / "seeing"), settings=SETTINGS)
    app = server.apps[1]
    together = threading.Barrier(THREADS)
    pool = app.state.service.dispatcher._decoders._pool
    assert len([*pool.map(lambda _: together.wait(), range(THREADS))]) == THREADS
    bodies = Pictures(Random(0))
    server.run(ask(app, "POST", PATHS[0], bodies.body(PATHS[0])))

    def attempt(rng: Random) -> None:
        bodies.random, path = rng, rng.choice(PATHS)
        data = bodies.body(path) if rng.random() < 0.3 else shown(path, rng)
        reply = server.run(ask(app, "POST", path, data))
        assert reply.status in ALLOWED, (path, reply.body)
        if reply.status >= 400:
            assert reply.json["error"]["message"] and not LEAK.search(reply.body), reply.body
        server.check()
        if reply.status >= 400:
            server.refuse(rng)

    return attempt


def shown(path: str, rng: Random) -> bytes:
    """A request with one picture or several, each in a way of its own."""
    given = [rng.choice(URIS) for _ in range(rng.choice((1, 1, 1, 1, 2, 4)))]
    parts: list[Any]
    if path == "/v1/responses":
        parts = [{"type": "input_image", "image_url": each} for each in given]
        body: Any = {"input": [{"role": rng.choice(("user", "user", "system")), "content": parts}]}
    elif path.startswith("/v1/messages"):
        sources = [
            (head.removeprefix("data:").removesuffix(";base64"), data)
            for head, _, data in (each.partition(",") for each in given)
        ]
        parts = [
            {"type": "image", "source": {"type": "base64", "media_type": type, "data": data}} for type, data in sources
        ]
        body = {"max_tokens": 5, "messages": [{"role": "user", "content": parts}]}
    else:
        kind = rng.choice(("image_url", "image_url", "video_url"))
        parts = [{"type": kind, kind: {"url": each}} for each in given]
        body = {"messages": [{"role": rng.choice(("user", "user", "assistant")), "content": parts}]}
    if rng.random() < 0.3:
        return dumped(changed(rng, body)).encode(errors="surrogatepass")
    return json.dumps(body).encode()


TARGET = Target(
    "http_pictures",
    ("ernie_rt_serve.attachments", "ernie_rt_serve.decoding"),
    start,
    share=200,
)
