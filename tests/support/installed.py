"""What this environment has of what is not needed everywhere."""

from __future__ import annotations

from importlib.util import find_spec

TRITON = find_spec("triton") is not None
CUDAGRAPH = "ok" if TRITON else "unmet"
"""The status of the plugin that needs it."""
