"""ernie-rt runs Baidu's ERNIE 4.5 models on whatever hardware a person has.

with ernie_rt.load("baidu/ERNIE-4.5-0.3B-PT") as model:
    print(model.chat([{"role": "user", "content": "What is the capital of France?"}]).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ernie_rt.errors import ErnieRtError

if TYPE_CHECKING:
    from ernie_rt.generation import Generation, Piece, Stream
    from ernie_rt.loading import load
    from ernie_rt.location import Located, locate
    from ernie_rt.session import Model
    from ernie_rt.text.messages import Message, ToolCall

__all__ = ["ErnieRtError", "Generation", "Located", "Message", "Model", "Piece", "Stream", "ToolCall", "load", "locate"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `import ernie_rt` stays light: NumPy and the rest come with the first use of one of these.
    if name in __all__:
        from ernie_rt import generation, loading, location, session
        from ernie_rt.text import messages

        return next(getattr(m, name) for m in (generation, loading, location, session, messages) if hasattr(m, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
