"""Routes for those who run a server: whether it lives, whether it is ready, how it fares, what it serves."""

from __future__ import annotations

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from ernie_rt_serve.routing import Entry, json
from ernie_rt_serve.service import Service


async def health(request: Request, service: Service) -> Response:
    """200 as long as the process answers."""
    return json({"status": "ok"})


async def ready(request: Request, service: Service) -> Response:
    """200 when requests are welcome, else 503 with the reason."""
    reason = service.unready
    return json({"status": reason or "ready"}, 200 if reason is None else 503)


async def metrics(request: Request, service: Service) -> Response:
    """How the server fares, for Prometheus."""
    return Response(service.metrics.prometheus(), media_type=CONTENT_TYPE_LATEST)


async def stats(request: Request, service: Service) -> Response:
    """How the server fares, for the page."""
    return json(service.metrics.summary(service.served))


async def models(request: Request, service: Service) -> Response:
    """The one model that is served."""
    return json({"object": "list", "data": [_card(service)]})


async def model(request: Request, service: Service) -> Response:
    """The model of that name."""
    service.check_model(request.path_params["name"])
    return json(_card(service))


SAMPLING: Final = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""What a checkpoint may say and a model's card repeats, by the names that requests have for it."""


def _card(service: Service) -> dict[str, object]:
    defaults = service.served.model.defaults.options
    return {
        "id": service.settings.model,
        "object": "model",
        "created": service.began,
        "owned_by": "ernie-rt",
        "max_model_len": service.served.model.capacity,
        "architecture": {
            "input_modalities": ["text", *(("image", "video") if service.sees else ())],
            "output_modalities": ["text"],
        },
        "max_body_bytes": service.body_bytes,
        "defaults": {name: value for name, value in defaults.items() if name in SAMPLING},
    }


ENTRIES = (
    Entry("GET", "/health", "public", health),
    Entry("GET", "/ready", "public", ready),
    Entry("GET", "/metrics", "key", metrics),
    Entry("GET", "/stats", "key", stats),
    Entry("GET", "/v1/models", "key", models),
    Entry("GET", "/v1/models/{name:path}", "key", model),
)
