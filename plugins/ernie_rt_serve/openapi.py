"""The server's description of itself, in OpenAPI's format: made of its routes and of the Structs that they read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ernie_rt import __version__
from ernie_rt_serve.routing import Entry


def describe(entries: Iterable[Entry]) -> dict[str, Any]:
    """An OpenAPI document. Bodies may have further fields, which are ignored."""
    entries = tuple(entries)
    bodies = [entry.body for entry in entries if entry.body is not None]
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(bodies, schemas, strict=True))
    paths: dict[str, Any] = {}
    for entry in entries:
        told: dict[str, Any] = {"responses": {"200": {"description": "The answer"}}}
        if entry.answer.__doc__:
            told["summary"] = entry.answer.__doc__.partition("\n")[0]
        if entry.body is not None:
            told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema_of[entry.body]}}}
        if entry.access == "public":
            told["security"] = []
        path = entry.path.replace(":path}", "}")
        paths.setdefault(path, {})[entry.method.lower()] = told
    return {
        "openapi": "3.1.0",
        "info": {"title": "ernie-rt", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }
