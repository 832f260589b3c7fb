"""How many cache pages an engine has to give."""

from __future__ import annotations

from ernie_rt.runtime.engine import Engine


def free_pages(engine: Engine) -> int:
    return len(engine._scheduler._pages)
