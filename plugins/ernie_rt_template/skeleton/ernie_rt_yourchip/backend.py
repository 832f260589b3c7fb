"""The backend: weights and cache in NumPy arrays, and a function for each op that it runs."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ernie_rt.contract import SimpleBackend
from ernie_rt_yourchip.composites import COMPOSITES
from ernie_rt_yourchip.primitives import PRIMITIVES


class Backend(SimpleBackend):
    functions: ClassVar[Mapping[str, Callable[..., Any]]] = {**PRIMITIVES, **COMPOSITES}
