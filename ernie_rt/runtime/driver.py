"""A thread that steps an engine for as long as there is anything to do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from ernie_rt.errors import BackendError
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Event


class Driver:
    """Steps an engine in a thread of its own.

    Events that sequences tell by `post` are handed on by `deliver`, all of a step at once, in that thread. Other
    threads may step the engine as well.
    """

    def __init__(self, engine: Engine, deliver: Callable[[list[Event]], None]) -> None:
        self._engine = engine
        self._deliver = deliver
        self._events: deque[Event] = deque()
        self._news: SimpleQueue[None] = SimpleQueue()  # no Event: finalizers wake the thread too, wherever they run
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="ernie-rt engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, event: Event) -> None:
        """The listener of sequences."""
        self._events.append(event)
        if threading.current_thread() is not self._thread:
            self.wake()

    def wake(self) -> None:
        """There is something to do: a sequence came, or one is to go."""
        self._news.put(None)

    def end(self) -> None:
        """Finish the step that is being made, and end the thread; returns when it has ended."""
        self._ending = True
        self.wake()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending:
            while not self._news.empty():  # what comes from here on is news
                self._news.get()
            if self._engine.busy:
                try:
                    self._engine.step()
                except BaseException as error:  # what a step does not account for ends what it was made for, no more
                    failure = BackendError(f"the engine failed: {type(error).__name__}: {error}")
                    failure.__cause__ = error
                    self._engine.fail(failure)
            self._hand_on()
            if not self._engine.busy:
                self._news.get()
        self._engine.let_go()
        self._hand_on()

    def _hand_on(self) -> None:
        if self._events:
            events = [self._events.popleft() for _ in range(len(self._events))]
            self._deliver(events)
