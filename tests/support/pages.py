"""What an engine has given out, and has to give."""

from __future__ import annotations

from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.rows import PagedRows
from ernie_rt.runtime.slots import SlotRows


def admitted(engine: Engine) -> int:
    """How often a sequence was given a seat, of sequences that have all ended."""
    return int(engine._scheduler.seats.tenancy.sum()) // 2


def free_pages(engine: Engine) -> int:
    rows = engine._scheduler.rows
    if isinstance(rows, SlotRows):
        return len(rows._slots) - rows._working
    assert isinstance(rows, PagedRows)
    return rows.pool.free + rows.pool.idle
