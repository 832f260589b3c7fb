"""What a server allows, and by what name it serves its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ernie_rt.display import printable, shown
from ernie_rt.errors import OptionError
from ernie_rt_serve.access import NO_KEYS, Keys

TEXT_BODY_BYTES: Final = 4 << 20
MEDIA_BODY_BYTES: Final = 32 << 20
"""The longest bodies where nobody says otherwise: of text alone, and for a model that takes in pictures."""
HELD_BODIES: Final = 8
LEAST_HELD_BYTES: Final = 64 << 20
"""All requests together may hold so many of the longest bodies, and so much at least."""


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
    own_hosts: bool = False
    """Refuse what asks for this server by a name other than localhost. Where no keys are needed because this machine
    alone can ask, a page of the web could else have a name of its own lead here, and read what is answered."""

    header_bytes: int = 32 << 10
    body_bytes: int | None = None
    """None: as the constants above have it."""
    held_bytes: int | None = None
    """Of all requests together that are not answered yet: of their bodies, and of what pictures in them become."""
    most_attachments: int = 64
    """Pictures and videos in a request."""
    json_depth: int = 64
    json_signs: int = 1 << 18
    """Commas and brackets in a body, which bound how many values it holds: small ones take 50 times their length."""

    header_seconds: float = 10
    """From the first byte of a request, or the beginning of its connection, to the end of its headers."""
    body_seconds: float = 10
    """How long a body may keep a server waiting; what comes of it counts as time at `body_rate`."""
    body_rate: int = 256 << 10
    """Bytes a second at which a body may take as long as it is long."""
    stall_seconds: float = 30
    """How long a client may take next to nothing of its answer before its connection is closed."""
    drain_seconds: float = 30
    """How long answers that are under way may take when the server is told to end."""

    def __post_init__(self) -> None:
        """OptionError for a name that no answer can hold, or that steers the terminal of who asks for it."""
        if self.model != printable(self.model):
            raise OptionError(
                "a name that cannot be served", expected="letters, digits and other signs", found=shown(self.model),
                hint="Give another with --served-model-name",
            )  # fmt: skip

    def longest_body(self, sees: bool) -> int:
        """In bytes, for a model that takes in pictures or does not."""
        if self.body_bytes is not None:
            return self.body_bytes
        return MEDIA_BODY_BYTES if sees else TEXT_BODY_BYTES

    def most_held(self, sees: bool) -> int:
        """In bytes, as `held_bytes`."""
        if self.held_bytes is not None:
            return self.held_bytes
        return max(LEAST_HELD_BYTES, HELD_BODIES * self.longest_body(sees))
