"""Several threads at one engine or model, and processes that were forked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

import ernie_rt
from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.errors import ErnieRtError, ForkError, OptionError
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request
from ernie_rt.runtime.turns import Turns
from support.toy import ToyExecutable, answer


def together(*tasks: Callable[[], None]) -> None:
    """Run each in a thread of its own; whatever one raises is raised here."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def test_turns_are_taken_in_the_order_of_coming() -> None:
    turns, order = Turns(), list[int]()

    def wait(number: int) -> None:
        with turns:
            order.append(number)

    threads = []
    with turns:
        assert not turns.taken_if_free()
        with pytest.raises(ErnieRtError, match="from within its own step"), turns:
            pass
        for number in range(5):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            deadline = time.monotonic() + 10
            while len(turns._waiting) <= number and time.monotonic() < deadline:
                time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]
    assert turns.taken_if_free()
    turns.release()


def test_a_thread_that_asks_again_and_again_does_not_keep_others_out() -> None:
    turns, counts = Turns(), [0, 0]

    def ask(number: int) -> None:
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            with turns:
                counts[number] += 1

    together(lambda: ask(0), lambda: ask(1))
    assert min(counts) > max(counts) / 4


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_threads_share_the_steps(kind: str, ahead: int) -> None:
    cache = CacheShape("paged", 4, 60) if kind == "paged" else CacheShape("slots", 40, 4)
    executable = ToyExecutable(cache, StepLimits(16, 4, kind == "paged"), ahead=ahead)
    engine = Engine(executable, 40)

    def ask(number: int) -> None:
        for turn in range(8):
            ids = (number, turn, 3)
            events = engine.run(engine.submit(Request(ids, 9)))
            if turn % 4 == 3:
                assert next(events).token == answer(ids, 1)[0]
                events.close()  # type: ignore[attr-defined]
            else:
                assert [event.token for event in events] == answer(ids, 9)

    together(*(lambda number=number: ask(number) for number in range(6)))  # type: ignore[misc]
    assert max(len(step.past) for step in executable.steps) > 1, "no step was shared"
    assert not engine._scheduler.busy


@pytest.mark.parametrize("backend", ["eager", "onnx"])
def test_threads_ask_one_model(backend: str) -> None:
    with ernie_rt.load("demo", backend=backend, max_sequences=3, max_context=256) as model:

        def ask(number: int) -> None:
            for _ in range(3):
                question = [{"role": "user", "content": f"How many grams are in {number} kilograms?"}]
                assert model.chat(question).text == f"{number} kilograms = {number}000 grams"

        together(*(lambda number=number: ask(number) for number in (2, 3, 4)))  # type: ignore[misc]


def test_one_that_is_closed_by_another_thread_says_so() -> None:
    model = ernie_rt.load("demo", backend="reference", max_context=64)
    stream = model.generate("Once", stream=True, max_new_tokens=40)
    next(stream)
    together(model.close)
    assert [piece.finish for piece in stream][-1] == "cancelled"
    with pytest.raises(OptionError, match="the model is closed"):
        model.generate("Once")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("backend", ["eager", "onnx"])
def test_a_child_that_was_forked_is_told_at_once(backend: str) -> None:
    with ernie_rt.load("demo", backend=backend, max_context=64) as model:
        model.generate("Once", max_new_tokens=2)
        child = os.fork()
        if child == 0:
            try:
                model.generate("Once", max_new_tokens=2)
            except ForkError:
                model.close()
                os._exit(7)
            finally:
                os._exit(1)
        deadline = time.monotonic() + 20
        done, status = os.waitpid(child, os.WNOHANG)
        while not done and time.monotonic() < deadline:
            time.sleep(0.02)
            done, status = os.waitpid(child, os.WNOHANG)
        if not done:
            os.kill(child, 9)
            os.waitpid(child, 0)
        assert done and os.waitstatus_to_exitcode(status) == 7
        assert model.generate("Once", max_new_tokens=2).ids
