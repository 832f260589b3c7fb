"""An application answers a batch as it would answer over HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ernie_rt_serve.batch.in_process import respond_by
from support.pictures import picture, seeing_app, seeing_model, uri
from support.serving import said


async def answer(request: Request) -> Response:
    # As a server does that ends its work when a client leaves.
    body = await request.json()
    left = asyncio.ensure_future(request.receive())
    await asyncio.wait({left}, timeout=0.02)
    told = {"id": request.headers["x-request-id"], "body": body, "left": left.done(), "path": request.url.path}
    left.cancel()
    return JSONResponse(told, 201)


def test_requests_arrive_whole() -> None:
    respond = respond_by(Starlette(routes=[Route("/v1/completions", answer, methods=["POST"])]))
    status, body = asyncio.run(respond("/v1/completions", '{"prompt":"你好"}'.encode(), "req_7"))
    assert status == 201
    assert body.decode() == '{"id":"req_7","body":{"prompt":"你好"},"left":false,"path":"/v1/completions"}'
    assert asyncio.run(respond("/v1/other", b"{}", "req_8"))[0] == 404


def test_pictures_are_shown(tmp_path: Path) -> None:
    def line(url: str) -> bytes:
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]
        return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()

    async def body(app: Starlette) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
        respond = respond_by(app)
        path = "/v1/chat/completions"
        return await respond(path, line(uri(picture())), "a"), await respond(path, line("file:///etc/passwd"), "b")

    with seeing_model(tmp_path) as model:
        app, served = seeing_app(model, said("A cat."))
        (status, answered), (refused, why) = asyncio.run(body(app))
    assert status == 200 and b"A cat." in answered and [item.tokens for _, item in served.asked[0].prompt.items] == [4]
    assert refused == 400 and b"nothing is fetched" in why
