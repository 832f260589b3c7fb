"""ernie-rt runs Baidu's ERNIE 4.5 models on whatever hardware a person has.

with ernie_rt.load("baidu/ERNIE-4.5-0.3B-PT") as model:
    print(model.chat([{"role": "user", "content": "What is the capital of France?"}]).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ernie_rt.errors import ErnieRtError

if TYPE_CHECKING:
    from ernie_rt.async_model import AsyncModel, Caller
    from ernie_rt.async_stream import AsyncStream
    from ernie_rt.generation.stream import Generation, Piece, Stream
    from ernie_rt.loading import load
    from ernie_rt.location import Located, locate
    from ernie_rt.routing.data import Routing
    from ernie_rt.runtime.statistics import Stats
    from ernie_rt.session import Model
    from ernie_rt.text.messages import Message, ToolCall

__all__ = [
    "AsyncModel", "AsyncStream", "Caller", "ErnieRtError", "Generation", "Located", "Message", "Model", "Piece",
    "Routing", "Stats", "Stream", "ToolCall", "load", "locate",
]  # fmt: skip
__version__ = "0.1.0"

_HOMES = {
    "AsyncModel": "async_model", "AsyncStream": "async_stream", "Caller": "async_model", "Stats": "runtime.statistics",
    "Generation": "generation.stream", "Piece": "generation.stream", "Stream": "generation.stream", "load": "loading",
    "Located": "location", "locate": "location", "Model": "session", "Routing": "routing.data",
    "Message": "text.messages", "ToolCall": "text.messages",
}  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    # `import ernie_rt` stays light: NumPy and the rest come with the first use of one of these.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"ernie_rt.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
