"""What a caller sees of the engine: events, their order, ends, refusals, failures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ernie_rt.contract import LAST_DRAWN, CacheShape, Step, StepLimits, StepResult
from ernie_rt.errors import BackendError, PromptError
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request
from support.pages import free_pages
from support.toy import VOCAB, ToyExecutable, ToyPending, answer

PROMPTS = [(1, 2, 3), (4,), (5, 6, 7, 8, 9, 10, 11), (12, 0)]
CONTEXT = 40


def toy(kind: Any = "paged", *, ahead: int = 0, max_sequences: int = 4, mixed: bool = True) -> ToyExecutable:
    cache = CacheShape("paged", 4, 40) if kind == "paged" else CacheShape("slots", CONTEXT, max_sequences)
    return ToyExecutable(cache, StepLimits(16, max_sequences, mixed), ahead=ahead)


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_events_of_several_sequences(kind: str, ahead: int) -> None:
    executable = toy(kind, ahead=ahead, mixed=kind == "paged")
    engine = Engine(executable, CONTEXT)
    lengths = [9, 1, 4, 30]
    sequences = [engine.submit(Request(ids, new)) for ids, new in zip(PROMPTS, lengths, strict=True)]
    events = list(engine.run(*sequences))
    for sequence, ids, new in zip(sequences, PROMPTS, lengths, strict=True):
        own = [event for event in events if event.sequence is sequence]
        assert [event.token for event in own] == sequence.generated == answer(ids, new)
        assert [event.finish for event in own] == [None] * (new - 1) + ["length"]
    assert free_pages(engine) == executable.cache.pages


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.zeros((2, VOCAB), np.float32)}, "other rows of logits .* expected 0; found 2"),
        ({"tokens": None}, "gives no tokens"),
        ({"tokens": np.zeros(2, np.int32)}, r"expected tokens \[2, 1\]; found tokens \[2\]"),
        ({"tokens": np.zeros((1, 1), np.int32)}, r"found tokens \[1, 1\]"),
    ],
)
def test_a_result_that_is_not_what_a_step_asks_for(change: dict[str, Any], message: str) -> None:
    class Another(ToyExecutable):
        def submit(self, step: Step) -> ToyPending:
            pending = super().submit(step)
            return replace(pending, value=replace(pending.value, **change))

    engine = Engine(Another(CacheShape("paged", 4, 40), StepLimits(16, 4), ahead=1), CONTEXT)
    with pytest.raises(BackendError, match=message):
        list(engine.run(*(engine.submit(Request(ids, 3)) for ids in PROMPTS[:2])))


def test_a_stop_token_ends_a_sequence_and_is_its_last() -> None:
    expected = answer(PROMPTS[0], 12)
    stop = expected[5]
    engine = Engine(toy(ahead=1), CONTEXT)
    sequence = engine.submit(Request(PROMPTS[0], 12, frozenset({stop})))
    events = list(engine.run(sequence))
    first = expected.index(stop)
    assert [event.token for event in events] == expected[: first + 1]
    assert [event.finish for event in events] == [None] * first + ["stop"]


def test_who_lost_its_rows_keeps_logits_and_values_once() -> None:
    """What it has kept of tokens that are computed anew goes first."""

    class Tapped(ToyExecutable):
        def submit(self, step: Step) -> ToyPending:
            pending = super().submit(step)
            return replace(pending, value=replace(pending.value, taps={"ids": step.ids}))

    engine = Engine(Tapped(CacheShape("paged", 4, 8), StepLimits(16, 4)), CONTEXT)
    sequences = [engine.submit(Request(ids, 12, all_logits=True, taps=True)) for ids in PROMPTS]
    list(engine.run(*sequences))
    assert engine.stats().preemptions
    for sequence, ids in zip(sequences, PROMPTS, strict=True):
        entered = [*ids, *answer(ids, 11)]
        assert np.concatenate([taps["ids"] for taps in sequence.taps]).tolist() == entered
        assert np.concatenate(sequence.logits).argmax(1)[len(ids) - 1 :].tolist() == answer(ids, 12)
        assert sum(map(len, sequence.logits)) == len(entered)


@pytest.mark.parametrize("ahead", [0, 1])
def test_runs_take_turns(ahead: int) -> None:
    """Whoever makes the step, each run yields the events of its own sequences."""
    engine = Engine(toy(ahead=ahead, max_sequences=2), CONTEXT)
    runs = [engine.run(engine.submit(Request(ids, 8))) for ids in PROMPTS]
    told: list[list[int | None]] = [[] for _ in runs]
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(runs)), 8)).tolist()
    for which in order:
        told[which].append(next(runs[which]).token)
    assert told == [answer(ids, 8) for ids in PROMPTS]
    assert all(next(run, None) is None for run in runs)


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_run_that_is_left_early_gives_back_its_rows(ahead: int) -> None:
    executable = toy(ahead=ahead)
    engine = Engine(executable, CONTEXT)
    stays = engine.submit(Request(PROMPTS[0], 10))
    leaves = [engine.submit(Request(ids, 20)) for ids in PROMPTS[1:]]
    run = engine.run(*leaves)
    for _ in range(5):
        next(run)
    run.close()  # type: ignore[attr-defined]
    assert [sequence.finish for sequence in leaves] == ["cancelled"] * 3
    assert free_pages(engine) == executable.cache.pages - engine._scheduler.rows.held[stays.seat]
    assert [event.token for event in engine.run(stays)] == answer(PROMPTS[0], 10)


def test_a_sequence_cancelled_by_another_hand_ends_its_run() -> None:
    engine = Engine(toy(max_sequences=1), CONTEXT)
    running, waiting = (engine.submit(Request(ids, 20)) for ids in PROMPTS[:2])
    runs = [engine.run(running), engine.run(waiting)]
    assert next(runs[0]).token == answer(PROMPTS[0], 1)[0]
    for sequence in (running, waiting, running):
        engine.cancel(sequence)
    for run in runs:
        assert [(event.token, event.finish) for event in run] == [(None, "cancelled")]


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("chunk", [None, 1, 2, 5])
def test_all_logits_in_chunks(ahead: int, chunk: int | None) -> None:
    engine = Engine(toy(ahead=ahead), CONTEXT)
    sequences = [engine.submit(Request(ids, 0, all_logits=True, chunk=chunk)) for ids in PROMPTS]
    also = engine.submit(Request(PROMPTS[2], 6))
    events = list(engine.run(*sequences, also))
    for sequence, ids in zip(sequences, PROMPTS, strict=True):
        assert [(e.token, e.finish) for e in events if e.sequence is sequence] == [(None, "length")]
        logits = np.concatenate(sequence.logits)
        assert logits.argmax(-1).tolist() == [answer(ids[: i + 1], 1)[0] for i in range(len(ids))]
    assert also.generated == answer(PROMPTS[2], 6)


class Recording(ToyExecutable):
    """Notes how many steps had been submitted whenever a result was read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.submitted_at_read: list[int] = []

    def submit(self, step: Step) -> ToyPending:
        pending = super().submit(step)
        noted, steps = self.submitted_at_read, self.steps

        class Noting(ToyPending):
            def result(self) -> StepResult:
                noted.append(len(steps))
                return super().result()

        return Noting(self, pending.number, pending.value)


@pytest.mark.parametrize("ahead", [0, 1])
def test_one_that_samples_is_kept_a_step_ahead(ahead: int) -> None:
    executable = Recording(CacheShape("paged", 4, 40), StepLimits(16, 4), ahead=ahead)
    engine = Engine(executable, CONTEXT)
    sequence = engine.submit(Request(PROMPTS[2], 10))
    assert [event.token for event in engine.run(sequence)] == answer(PROMPTS[2], 10)
    by = [seen - number - 1 for number, seen in enumerate(executable.submitted_at_read)]
    assert by == ([1] * 9 + [0] if ahead else [0] * 10)
    assert [LAST_DRAWN in step.ids for step in executable.steps] == [False] + [bool(ahead)] * 9


class Failing(ToyExecutable):
    """Step number `fails_at` fails, when it is submitted or when it is read."""

    fails_at = -1
    on_submit = False
    error: BaseException = RuntimeError("the device is gone")

    def submit(self, step: Step) -> ToyPending:
        number = len(self.steps)
        if number == self.fails_at and self.on_submit:
            self.fails_at = -1
            raise self.error
        pending = super().submit(step)
        if number != self.fails_at:
            return pending
        error = self.error

        class Broken(ToyPending):
            def result(self) -> StepResult:
                raise error

        return Broken(self, number, pending.value)


@pytest.mark.parametrize("error", [RuntimeError("the device is gone"), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("on_submit", [False, True])
@pytest.mark.parametrize("ahead", [0, 1])
def test_a_step_that_fails_ends_its_sequences_and_leaves_an_engine_that_works(
    ahead: int, on_submit: bool, error: BaseException
) -> None:
    executable = Failing(CacheShape("paged", 4, 40), StepLimits(16, 2), ahead=ahead)
    executable.fails_at, executable.on_submit, executable.error = 3, on_submit, error
    engine = Engine(executable, CONTEXT)
    sequences = [engine.submit(Request(ids, 12)) for ids in PROMPTS[:2]]
    waiting = engine.submit(Request(PROMPTS[3], 4))
    one, two = map(engine.run, sequences)
    next(two)
    with pytest.raises(type(error)) as caught:
        list(one)
    assert caught.value is error
    rest: list[int | None] = []
    if isinstance(error, KeyboardInterrupt):  # of whoever made the step
        rest.extend(event.token for event in two)
        assert [each.finish for each in sequences] == ["cancelled"] * 2 and rest.pop() is None
    else:
        with pytest.raises(type(error)) as caught:
            rest.extend(event.token for event in two)
        assert [(each.finish, each.error) for each in sequences] == [("error", error)] * 2
        assert caught.value is error
    assert rest == answer(PROMPTS[1], 12)[1 : len(rest) + 1]
    assert [event.token for event in engine.run(waiting)] == answer(PROMPTS[3], 4)
    assert free_pages(engine) == executable.cache.pages


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_a_copy_that_fails_ends_those_that_run(kind: str) -> None:
    class NoCopy(ToyExecutable):
        def copy(self, source: int, destination: int, length: int) -> None:
            raise RuntimeError("no copy")

    whole = toy(kind)
    executable = NoCopy(whole.cache, whole.admits)
    engine = Engine(executable, CONTEXT)
    long = tuple(range(6))
    first = engine.submit(Request(long, 20))
    run = engine.run(first)
    next(run)
    second = engine.submit(Request((*long, 1, 2), 20))  # which begins like the first, whose rows are to be copied
    for sequence in (second, first):
        with pytest.raises(RuntimeError, match="no copy"):
            list(engine.run(sequence))
        assert sequence.finish == "error"
    again = engine.submit(Request(PROMPTS[2], 5))
    assert [event.token for event in engine.run(again)] == answer(PROMPTS[2], 5)
    assert free_pages(engine) == executable.cache.pages


def test_nan_logits_are_an_error() -> None:
    class Nan(ToyExecutable):
        def submit(self, step: Step) -> ToyPending:
            pending = super().submit(step)
            assert pending.value.logits is not None
            pending.value.logits[:, 3] = np.nan
            return pending

    executable = Nan(CacheShape("paged", 4, 40), StepLimits(16, 4))
    engine = Engine(executable, CONTEXT)
    sequence = engine.submit(Request(PROMPTS[0], 12))
    with pytest.raises(BackendError, match="NaN"):
        list(engine.run(sequence))
    assert free_pages(engine) == executable.cache.pages


def test_requests_that_could_never_fit_are_refused() -> None:
    engine = Engine(toy(), CONTEXT)
    assert engine.capacity == CONTEXT  # the pages would hold more than the tables of positions cover
    ids = (1,) * 30
    with pytest.raises(PromptError, match="empty"):
        engine.submit(Request((), 4))
    with pytest.raises(PromptError, match="nothing is asked for"):
        engine.submit(Request(ids, 0))
    with pytest.raises(PromptError, match="at most 40 tokens; found 30 of prompt and 12 new"):
        engine.submit(Request(ids, 12))
    with pytest.raises(PromptError, match="at most 40 tokens; found 41 of prompt"):
        engine.submit(Request((1,) * 41, 0, all_logits=True))
    sequence = engine.submit(Request(ids, 11))
    assert [event.token for event in engine.run(sequence)] == answer(ids, 11)
    few = Engine(ToyExecutable(CacheShape("paged", 4, 2), StepLimits(16, 4)), CONTEXT)
    assert few.capacity == 8
    with pytest.raises(PromptError, match="at most 8 tokens"):
        few.submit(Request(PROMPTS[0], 7))


def test_vocabulary_of_the_toy_is_used() -> None:
    """The oracle tells contexts apart, or the tests here would prove little."""
    answers = {tuple(answer((first, second), 6)) for first in range(VOCAB) for second in range(VOCAB)}
    assert len(answers) > 0.9 * VOCAB**2
