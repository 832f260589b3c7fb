"""What tokens may come next, where single ids do not say it: a grammar, a format, a text that must stand there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import ErnieRtError, OptionError

Mask = npt.NDArray[np.bool_]


class ConstraintState(Protocol):
    """What the tokens of one sequence so far let come next. A state belongs to one sequence, and one thread at a time
    asks it."""

    @property
    def may_end(self) -> bool:
        """Whether the text may end here, so that a token that ends it may come."""

    @property
    def complete(self) -> bool:
        """Whether the text may end here and nothing can follow, so that the sequence ends."""

    def mask(self) -> Mask | None:
        """Which tokens may come next, by id; ids beyond the end of the array may not. None: all may.

        It says nothing of tokens that end an answer (`may_end` does), unless they may be a part of the text. The array
        is only read, and is the same one until a token is accepted.
        """

    def accept(self, token: int) -> None:
        """Take a token that the mask allows; of a token that ends the answer nothing is told.

        A state may begin here to compute the next mask in another thread, for which `mask` then waits: until then the
        device computes the next logits.
        """


@runtime_checkable
class Constraint(Protocol):
    """What the text of an answer must be. Immutable: any number of sequences start from one, in any thread."""

    def start(self) -> ConstraintState:
        """The state of a sequence that has no token yet."""


@contextmanager
def named_errors() -> Iterator[None]:
    """What anybody's constraint raises, as an error with a name."""
    try:
        yield
    except (ErnieRtError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # the panics of libraries in Rust are no Exceptions
        raise OptionError("the constraint fails", found=f"{type(error).__name__}: {error}") from error


def checked_mask(mask: object) -> Mask | None:
    """A mask, if it is one; raises OptionError."""
    if mask is None or (isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.ndim == 1):
        return mask
    found = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, np.ndarray) else type(mask).__name__
    raise OptionError("the constraint gives no mask", expected="an array of bool [V], or None", found=found)
