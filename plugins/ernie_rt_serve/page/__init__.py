"""The page at `/`: files for the browser, and the routes of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ernie_rt_serve.routing import Entry
from ernie_rt_serve.service import Service

INDEX: Final = "index.html"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}
"""`no-cache` lets a browser keep a file and ask each time whether it is still the same."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    content: bytes
    headers: dict[str, str]

    @classmethod
    def read(cls, file: Traversable) -> Asset:
        content = file.read_bytes()
        suffix = file.name[file.name.rindex(".") :]
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return cls(content, HEADERS | {"content-type": TYPES[suffix], "etag": tag})

    async def answer(self, request: Request, service: Service) -> Response:
        """A file of the page."""
        known = request.headers.get("if-none-match", "")
        if self.headers["etag"] in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=self.headers)
        return Response(self.content, headers=self.headers)


def _entries() -> tuple[Entry, ...]:
    assets = {file.name: Asset.read(file) for file in files(__name__).joinpath("assets").iterdir()}
    paths = {"/": assets.pop(INDEX)} | {f"/page/{name}": assets[name] for name in sorted(assets)}
    return tuple(Entry("GET", path, "public", asset.answer) for path, asset in paths.items())


ENTRIES: Final = _entries()
"""`/`, and below `/page/` the files that it names. Nothing in them is anybody's, so they need no key."""
