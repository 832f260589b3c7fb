"""A lock whose waiters get it in the order of their coming, so that no thread goes on at the cost of another."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """Use it in a `with` block. A thread that has the lock must not take it again: `mine` says whether it has."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._owner: int | None = None

    @property
    def mine(self) -> bool:
        return self._owner == threading.get_ident()

    def __enter__(self) -> None:
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
            self._pass_on()
            raise
        self._owner = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        with self._guard:
            self._owner = None
            if self._waiting:
                self._owner = 0  # taken, by whoever wakes up now
                self._waiting.popleft().release()
