"""An application answers a batch as it would answer over HTTP."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ernie_rt_serve.batch.in_process import respond_by


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
