"""What the process that decodes a video holds to, and the one that asks it believes no more than."""

from __future__ import annotations

from typing import Final

MAX_SECONDS: Final = 4 * 3600
"""How long a video may be."""
