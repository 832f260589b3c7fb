"""Other programs that run the same models."""

from __future__ import annotations

from enum import StrEnum


class Peer(StrEnum):
    """Those that there are, as they are called."""

    transformers = "transformers"
    llama = "llama.cpp"
    genai = "onnxruntime-genai"
