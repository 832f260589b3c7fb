"""The server, on a model that says what it is told to say, and clients that reach it without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from ernie_rt import AsyncModel
from ernie_rt.host import PluginHost
from ernie_rt.loading import load
from ernie_rt.location import locate
from ernie_rt.text.spans import Span, encode_spans
from ernie_rt_serve.app import make_app
from ernie_rt_serve.settings import Settings
from support.pages import free_pages
from support.scripted import scripted

URL = "http://server"


def spell(folder: Path, text: str, *ends: str) -> list[int]:
    """The ids of an answer, tags and `ends` as the special tokens that they are."""
    tokenizer = locate(folder).tokenizer
    return [*encode_spans([Span(text, True)], tokenizer), *map(tokenizer.encode_special, ends)]


class Served:
    """A server under test: `http` reaches it, and `prompts` is what its model was asked."""

    def __init__(self, served: AsyncModel, http: httpx2.AsyncClient) -> None:
        self.async_model = served
        self.http = http

    @property
    def prompts(self) -> list[str]:
        model = self.async_model.model
        backend: Any = model._executable._backend  # type: ignore[attr-defined]
        return [model.tokenizer.decode(ids, skip_special=False) for ids in backend.prompts]


@asynccontextmanager
async def serving(folder: Path, *answers: list[int], **options: Any) -> AsyncIterator[Served]:
    """A server whose model gives these answers; it leaves no row of the cache taken."""
    host: PluginHost = scripted(*answers)
    with load(folder, backend="scripted", host=host, max_context=512) as model:
        async with AsyncModel(model, **options) as served:
            transport = httpx2.ASGITransport(make_app(served, Settings("scripted")))
            async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
                yield Served(served, http)
        assert free_pages(model._engine) == model._executable.cache.pages
