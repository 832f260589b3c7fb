"""What one request saw: when its tokens came, and what the server said of it."""

from __future__ import annotations

from itertools import pairwise

import msgspec


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request, in seconds since its phase began.

    `status` is HTTP's, or what happened before there was one: "unreachable", "timeout". Token counts are the server's,
    None where it gave none; they are never guessed.
    """

    sent: float
    scheduled: float | None = None
    """When it was to be sent, in open loop: latencies count from here, however late the client was."""
    arrivals: list[float] = []
    """Of the events that bear tokens. A server may put several tokens into one."""
    ended: float = 0.0
    status: str = ""
    error: str | None = None
    finish: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def origin(self) -> float:
        return self.sent if self.scheduled is None else self.scheduled

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def ttft(self) -> float | None:
        """Time to first token."""
        return self.arrivals[0] - self.origin if self.arrivals else None

    @property
    def tpot(self) -> float | None:
        """Time per output token, the first left out; None where the server did not count them."""
        if self.output_tokens is None or self.output_tokens < 2 or not self.arrivals:
            return None
        return (self.arrivals[-1] - self.arrivals[0]) / (self.output_tokens - 1)

    @property
    def gaps(self) -> list[float]:
        """Inter-token latencies, as far as tokens come in events of their own."""
        return [later - earlier for earlier, later in pairwise(self.arrivals)]

    @property
    def e2e(self) -> float:
        return self.ended - self.origin
