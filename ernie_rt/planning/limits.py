"""What a model is loaded with when nobody says."""

from __future__ import annotations

from typing import Final

DEFAULT_CONTEXT: Final = 32768
"""What `max_context` is, if the model has as much: a cache of 131,072 tokens is seldom needed."""

BATCH_TOKENS: Final = 512
CUDA_BATCH_TOKENS: Final = 4096
"""A GPU reads a mixture of experts' weights anew for each step, so few tokens a step leave it waiting for memory."""


def batch_tokens(device: str) -> int:
    """How many tokens of prompts enter a step on this device, or kind of device."""
    return CUDA_BATCH_TOKENS if device.partition(":")[0] == "cuda" else BATCH_TOKENS
