"""The application: every route in one table, and what each request passes on its way there."""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from ernie_rt import AsyncModel
from ernie_rt_serve import management, page
from ernie_rt_serve.faults import Fault, openai_error
from ernie_rt_serve.gate import Gate
from ernie_rt_serve.openapi import describe
from ernie_rt_serve.protocols import anthropic_messages, openai_chat, openai_completions, openai_responses, tokens
from ernie_rt_serve.request_log import ID_HEADER, RequestLog
from ernie_rt_serve.routing import Entry, failure, json
from ernie_rt_serve.service import Service
from ernie_rt_serve.settings import Settings


async def _openapi(request: Request, service: Service) -> Response:
    """This description."""
    return json(describe(ENTRIES))


ENTRIES: Final[tuple[Entry, ...]] = (
    *page.ENTRIES,
    *management.ENTRIES,
    *openai_chat.ENTRIES,
    *openai_completions.ENTRIES,
    *openai_responses.ENTRIES,
    *anthropic_messages.ENTRIES,
    *tokens.ENTRIES,
    Entry("GET", "/openapi.json", "key", _openapi),
)
"""Every route there is."""


def make_app(served: AsyncModel | None, settings: Settings) -> Starlette:
    """An ASGI application for a model that runs; without one it is loading until `app.state.service.open` is called."""
    service = Service(served, settings)
    middleware = [Middleware(RequestLog), Middleware(Gate, entries=ENTRIES, service=service)]
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[ID_HEADER, "Retry-After"],
        )
        middleware.insert(1, cors)  # before a key is asked for: browsers send none with their first question
    app = Starlette(
        routes=[entry.route(service) for entry in ENTRIES],
        middleware=middleware,
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


async def _no_route(request: Request, error: Exception) -> Response:
    """There is no such path, or none with that method."""
    assert isinstance(error, HTTPException)
    shape = next((entry.shape for entry in ENTRIES if entry.path == request.scope["path"]), openai_error)
    path = ascii(request.scope["path"])[1:-1][:200]
    message = f"There is nothing at {path}"
    if error.status_code == 405:
        message = f"{path} cannot be asked with {request.method[:20]}; the header Allow says with what it can"
    return failure(Fault(error.status_code, message, headers=error.headers or {}), shape)
