"""The errors that an error was made of: each of them was a check that an input has reached."""

from __future__ import annotations

from random import Random

from ernie_rt.errors import ErnieRtError
from ernie_rt_serve.faults import Fault


def one_of(error: BaseException | None, rng: Random) -> ErnieRtError | None:
    """A named error, or one of those that led to it; None where there is none. A server's fault stands as one."""
    chain: list[ErnieRtError | Fault] = []
    while error is not None:
        if isinstance(error, Fault | ErnieRtError):
            chain.append(error)
        error = error.__context__
    if not chain:
        return None
    chosen = rng.choice(chain)
    told = ErnieRtError(chosen.message) if isinstance(chosen, Fault) else chosen
    return told.with_traceback(chosen.__traceback__)
