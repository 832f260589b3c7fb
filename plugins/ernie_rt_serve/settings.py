"""What a server allows, and by what name it serves its model."""

from __future__ import annotations

from dataclasses import dataclass

from ernie_rt_serve.access import NO_KEYS, Keys


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person who serves a model may choose; what a protocol allows in its fields stands with its fields.

    Who may ask is in `keys`; without any, everybody may. Browsers let pages of `cors_origins` ask, of all origins where
    "*" stands among them.
    """

    model: str
    """The name in `/v1/models` and in answers. A request may leave it out; another one is not found."""
    keys: Keys = NO_KEYS
    cors_origins: tuple[str, ...] = ()

    header_bytes: int = 32 << 10
    body_bytes: int = 4 << 20
    bodies_bytes: int = 64 << 20
    """Of all requests together that are not answered yet."""
    json_depth: int = 64
    json_signs: int = 1 << 18
    """Commas and brackets in a body, which bound how many values it holds: small ones take 50 times their length."""

    header_seconds: float = 10
    """From the first byte of a request, or the beginning of its connection, to the end of its headers."""
    body_seconds: float = 10
    stall_seconds: float = 30
    """How long a client may take next to nothing of its answer before its connection is closed."""
    drain_seconds: float = 30
    """How long answers that are under way may take when the server is told to end."""
