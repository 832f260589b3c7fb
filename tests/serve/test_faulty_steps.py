"""Steps that fail, at any time: what was in them is told so, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from starlette.applications import Starlette

from ernie_rt import AsyncModel, Model
from ernie_rt.contract import Done, Pending, Step, StepResult
from ernie_rt_serve.app import make_app
from support.held_up import free
from support.serving import SETTINGS, ask, run

CHAT = "/v1/chat/completions"
WISHES, CLIENTS = 8, 6


def wish(number: int) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": f"How many grams are in {number} kilograms?"}],
        "max_tokens": 5 + number, "ignore_eos": True, "temperature": 0.5, "seed": number,
    }  # fmt: skip


Submit = Callable[[Step], Pending]


class Fault:
    """Something that goes wrong with one step, the last of `countdown`; `concerned` sequences are to fail of it."""

    def __init__(self, countdown: int) -> None:
        self.countdown = countdown
        self.concerned = 0

    def over(self, submit: Submit) -> Submit:
        def faulty(step: Step) -> Pending:
            self.countdown -= 1
            return submit(step) if self.countdown else self.happen(submit, step)

        return faulty

    def happen(self, submit: Submit, step: Step) -> Pending:
        raise NotImplementedError


class NotSubmitted(Fault):
    def happen(self, submit: Submit, step: Step) -> Pending:
        self.concerned = len(step.seats)
        raise RuntimeError("a kernel failed")


class NoMemory(Fault):
    def happen(self, submit: Submit, step: Step) -> Pending:
        self.concerned = len(step.seats)
        raise MemoryError


class NoResult(Fault):
    """The rows of the step are written, and its result never comes."""

    def happen(self, submit: Submit, step: Step) -> Pending:
        self.concerned = len(step.seats)
        submit(step).result()
        return self

    def result(self) -> StepResult:
        raise RuntimeError("a kernel failed")


class NotANumber(Fault):
    """One row of logits has a NaN in it."""

    def happen(self, submit: Submit, step: Step) -> Pending:
        result = submit(step).result()
        assert result.logits is not None
        if not len(result.logits):  # of prompts that are not whole
            self.countdown = 1
            return Done(result)
        self.concerned = 1
        logits = np.array(result.logits)
        logits[-1, 5] = np.nan
        return Done(replace(result, logits=logits))


@pytest.mark.parametrize(("steps", "later"), [(4, 6), pytest.param(200, 100, marks=pytest.mark.long)], ids=["4", "200"])
@pytest.mark.parametrize("kind", [NotSubmitted, NoMemory, NoResult, NotANumber])
def test_a_step_that_fails_ends_what_is_in_it_alone(
    demo: Model, monkeypatch: pytest.MonkeyPatch, kind: type[Fault], steps: int, later: int
) -> None:
    """The step fails that is the first, the second, … of a crowd that keeps on asking until it has failed."""
    executable = demo.engine._executable
    submit = executable.submit

    async def told(app: Starlette, number: int) -> str | None:
        reply = await ask(app, "POST", CHAT, wish(number))
        if reply.status == 200:
            text: str = reply.json["choices"][0]["message"]["content"]
            return text
        assert reply.status == 500 and reply.error["code"] == "internal_error"
        return None

    async def crowd(app: Starlette, alone: list[str | None], fault: Fault) -> int:
        """How many requests failed."""
        numbers, failed = count(), 0

        async def client() -> None:
            nonlocal failed
            while fault.countdown > 0:
                number = next(numbers) % WISHES
                text = await told(app, number)
                failed += text is None
                assert text in (alone[number], None)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return failed

    async def body() -> None:
        async with AsyncModel(demo) as served:
            app = make_app(served, SETTINGS)
            alone = [await told(app, number) for number in range(WISHES)]
            assert None not in alone
            for step in range(1, steps + 1):
                fault = kind(step)
                monkeypatch.setattr(executable, "submit", fault.over(submit))
                assert await crowd(app, alone, fault) == fault.concerned > 0
                assert free(demo)
            after = await asyncio.gather(*(told(app, number % WISHES) for number in range(later)))
            assert after == [alone[number % WISHES] for number in range(later)] and free(demo)

    run(body, 300)
