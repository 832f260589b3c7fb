"""Pictures and videos on their way to a model: decoded within limits, resized by ERNIE's rule, cut into patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ernie_rt.vision.image import load_image
    from ernie_rt.vision.item import Item
    from ernie_rt.vision.video import load_video

__all__ = ["Item", "load_image", "load_video"]

_HOMES = {"Item": "item", "load_image": "image", "load_video": "video"}


def __getattr__(name: str) -> object:
    # The process that decodes imports this package without NumPy.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"ernie_rt.vision.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
