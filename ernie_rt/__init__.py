"""ernie-rt runs Baidu's ERNIE 4.5 models on whatever hardware a person has.

with ernie_rt.load("baidu/ERNIE-4.5-0.3B-PT") as model:
    print(model.generate("The capital of France is").text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ernie_rt.errors import ErnieRtError

if TYPE_CHECKING:
    from ernie_rt.loading import Located, load, locate
    from ernie_rt.session import Generation, Model, Piece

__all__ = ["ErnieRtError", "Generation", "Located", "Model", "Piece", "load", "locate"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `import ernie_rt` stays light: NumPy and the rest come with the first use of one of these.
    if name in __all__:
        from ernie_rt import loading, session

        return getattr(loading if hasattr(loading, name) else session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
