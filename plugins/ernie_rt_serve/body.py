"""The body of a request: JSON within limits of size, depth and time, as a msgspec Struct."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.types import Receive

from ernie_rt.untrusted_json import parse_json
from ernie_rt_serve.events import ClientGone
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.invalid import explain
from ernie_rt_serve.service import Service

S = TypeVar("S", bound=msgspec.Struct)

LONG: Final = 64 << 10
"""Longer bodies are parsed in a thread, one after another: several threads would leave the event loop no time."""
IGNORED: Final = "x-ernie-rt-ignored"
NAME: Final = re.compile(r"\w[\w.-]{0,63}", re.ASCII)
"""What a header can say of a field's name."""
DROPPED: Final = 32 << 20
"""So much of a body that is too large is read and dropped. A connection that is closed before loses what was written:
the client would not hear why."""
CLOSE: Final = {"Connection": "close"}
"""Of a connection on which the rest of a body would come."""


async def read(
    request: Request, kind: type[S], service: Service, undone: Mapping[str, str] | None = None
) -> tuple[S, dict[str, str]]:
    """The body as a `kind`, and headers that name the fields of it that nobody reads, if there are any.

    `undone` are fields that the protocol has and this server does not do, each with what to do instead; one that asks
    for something is a Fault, as is everything else that is wrong with a body.
    """
    undone = undone or {}
    data = await _bytes(request, service)
    if len(data) > LONG:
        async with service.parsing:
            tree, body = await asyncio.to_thread(_parse, data, kind, service.settings.json_depth)
    else:
        tree, body = _parse(data, kind, service.settings.json_depth)
    for name, instead in undone.items():
        if tree.get(name) not in (None, False, "", [], {}):
            raise Fault(400, f"{name} is not supported. {instead}", name, "unsupported_parameter")
    return body, _ignored(tree.keys() - set(kind.__struct_encode_fields__) - undone.keys())


async def _bytes(request: Request, service: Service) -> bytes:
    settings = service.settings
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" or "content-encoding" in request.headers:
        raise Fault(415, "A body must be JSON, not compressed, and say Content-Type: application/json", headers=CLOSE)
    try:
        async with asyncio.timeout(settings.body_seconds) as patience:
            return await _received(request, service, patience)
    except TimeoutError:
        message = f"The body came slowly, or not at all for {settings.body_seconds:g} s"
        raise Fault(408, message, code="body_timeout", headers=CLOSE) from None


async def _received(request: Request, service: Service, patience: asyncio.Timeout) -> bytes:
    settings, most = service.settings, service.body_bytes
    large = Fault(413, f"The body is longer than {most:,} bytes", code="body_too_large", headers=CLOSE)
    length = request.headers.get("content-length", "0")
    if len(length) > 19 or int(length) > most + DROPPED:  # digits: any other is refused before a request gets here
        raise large
    data, signs, more = bytearray(), 0, True
    while more:
        part, more = await _part(request.receive)
        signs += sum(part.count(sign) for sign in (b",", b"[", b"{"))
        try:
            if len(data) + len(part) > most:
                raise large
            if signs > settings.json_signs:
                what = f"The body has more than {settings.json_signs:,} commas and brackets"
                raise Fault(413, what, code="body_too_large", headers=CLOSE)
            service.hold(request, len(part))
        except Fault:
            service.let_go(request)
            data.clear()
            if more:
                await drop(request.receive)
            raise
        data += part
        _be_patient(patience, len(part) / settings.body_rate, settings.body_seconds)
    return bytes(data)


def _be_patient(patience: asyncio.Timeout, earned: float, most: float) -> None:
    """Wait for so many seconds longer, and for no more than `most` from now on."""
    ends, now = patience.when(), asyncio.get_running_loop().time()
    assert ends is not None
    patience.reschedule(min(ends + earned, now + most))


async def drop(receive: Receive) -> bool:
    """Read a body away, or what is left of it, so that its client hears what is answered; whether that was all."""
    dropped, more = 0, True
    while more and dropped <= DROPPED:
        part, more = await _part(receive)
        dropped += len(part)
    return not more


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """What has come of a body, and whether there will be more."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


def _parse(data: bytes, kind: type[S], depth: int) -> tuple[dict[str, Any], S]:
    tree = parse_json(data, where="the body", depth=depth)
    try:
        return tree, msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        place, message = explain(error, kind)
        raise Fault(400, f"{place}: {message}" if place else message, place or None) from None


def _ignored(names: Iterable[str]) -> dict[str, str]:
    shown = [name if NAME.fullmatch(name) else "?" for name in sorted(names)[:32]]
    return {IGNORED: ", ".join(dict.fromkeys(shown))} if shown else {}
