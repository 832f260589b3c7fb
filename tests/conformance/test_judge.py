"""Limits at work on rows made by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.judge import judge_rows
from ernie_rt.conformance.metrics import CANDIDATES, TIE_LIMIT, Rows, choice_noise, ties
from ernie_rt.conformance.subject import Outcome

ROWS, VOCABULARY = 400, 1000
BEST, SECOND = 7, 9


def logits(margin: float) -> npt.NDArray[np.float64]:
    """Rows whose best tokens are BEST and, `margin` behind, SECOND."""
    rows = np.random.default_rng(0).normal(0, 1, (ROWS, VOCABULARY))
    rows[:, BEST], rows[:, SECOND] = 10, 10 - margin
    return rows


def test_a_choice_has_the_noise_of_the_best_logits() -> None:
    exact = logits(1.0)
    noisy = exact + 0.01
    best = np.argsort(-exact)[:, :CANDIDATES]
    np.put_along_axis(noisy, best, np.take_along_axis(exact, best, -1) - 0.2, -1)
    np.testing.assert_allclose(choice_noise(exact, noisy), 0.2)
    chosen = np.full(ROWS, SECOND)
    assert TIE_LIMIT * 0.2 > 1.0 and ties(exact, noisy, chosen).all()
    others = np.where(noisy < exact, exact + 0.01, exact + 0.2)  # the same, the other way round
    assert not ties(exact, others, chosen).any()
    few = exact[:, : CANDIDATES // 2]  # a vocabulary of fewer
    np.testing.assert_allclose(choice_noise(few, few + 0.3), 0.3)


def judged(unclear: bool) -> Outcome:
    """One row of many, within the noise but for its best token."""
    exact = logits(1.0)
    noise = np.random.default_rng(1).normal(0, 0.02, exact.shape)
    found = exact - noise
    found[5, BEST], found[5, SECOND] = 9.4, 9.5
    where = np.zeros(ROWS, bool)
    where[5:] = unclear
    outcome, _ = judge_rows(Rows.of(found, exact, exact + noise), where, "float32", "bfloat16", 1.0)
    return outcome


def test_a_token_that_other_experts_may_explain_is_excused() -> None:
    clear, unclear = judged(False), judged(True)
    assert clear.problem == "position 5: its best token is 9, the oracle's 7"
    assert clear.figures["times"] < clear.figures["limit"]  # the rms of the row hides it
    assert not unclear.problem and unclear.figures["excused"] == 1
    assert unclear.figures["positions"] == ROWS - 1
