"""A lock whose waiters get it in the order of their coming, so that no thread goes on at the cost of another."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from ernie_rt.errors import ErnieRtError


class Turns:
    """Use it in a `with` block. A thread that has the lock must not take it again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._owner: int | None = None

    def taken_if_free(self) -> bool:
        """Take the lock if nobody has it, and never wait: finalizers may ask at any place. Then `release` it."""
        if not self._guard.acquire(blocking=False):
            return False
        try:
            if self._owner is not None:
                return False
            self._owner = threading.get_ident()
            return True
        finally:
            self._guard.release()

    def __enter__(self) -> None:
        if self._owner == threading.get_ident():
            raise ErnieRtError("an engine is not used from within its own step", hint="Ask it when the step has ended")
        with self._guard:
            if self._owner is None:
                self._owner = threading.get_ident()
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()  # until whoever has the lock hands it over
        except BaseException:  # interrupted while it waited
            with self._guard:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    raise
            self.release()
            raise
        self._owner = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Hand the lock to whoever has waited longest."""
        with self._guard:
            self._owner = None
            if self._waiting:
                self._owner = 0  # taken, by whoever wakes up now
                self._waiting.popleft().release()
