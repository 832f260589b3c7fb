"""The rule for samplers on a device: from the same logits the token that the core chooses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.cases import numbers, words
from ernie_rt.conformance.subject import Around, Outcome, Subject
from ernie_rt.contract.protocols import Executable
from ernie_rt.contract.step import Pending, Step, StepResult
from ernie_rt.host import blame
from ernie_rt.sampling.draws import draw
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.philox import noise_at
from ernie_rt.sampling.sampler import penalise, sample
from ernie_rt.sampling.state import SamplerState

Array = npt.NDArray[Any]
Sampler = Callable[[npt.NDArray[np.float32], Sequence[SamplerState], str], npt.NDArray[np.int32]]

TIE: Final = 1e-5
"""So near to each other may the best two scores lie when another token is drawn: libraries disagree in the last bit of
a logarithm."""
ROWS: Final = {False: 2_000, True: 100_000}
"""Rows of shared logits in all, at the quick and at the full setting."""
BLOCK: Final = 50


@dataclass(frozen=True, slots=True)
class SamplerCase:
    """Rows of so many logits, of which so many ids are known, and what is asked of the sampler."""

    name: str
    options: Mapping[str, Any]
    vocabulary: int
    known: int
    scale: float

    def block(self, number: int, rows: int) -> tuple[npt.NDArray[np.float32], list[SamplerState]]:
        key = f"sampling/{self.name}/{number}"
        logits = numbers(f"{key}/logits", (rows, self.vocabulary), scale=self.scale)
        if number % 2:
            logits = np.round(logits * 8) / 8  # many ties
        drawn = words(f"{key}/states", rows * 12).reshape(rows, 12)
        return logits.astype(np.float32), [self._state(row.tolist()) for row in drawn]

    def _state(self, drawn: list[int]) -> SamplerState:
        """A sequence of five tokens and four generated ones; its seed has 64 bits."""
        prompt, generated = ([word % self.known for word in part] for part in (drawn[2:7], drawn[7:11]))
        stops = (2 % self.known, 5 % self.known)
        biases = dict(self.options.get("logit_bias", ()))
        params = SamplingParams(seed=drawn[0] | drawn[1] << 32, **{**self.options, "logit_bias": biases})
        state = SamplerState(params, prompt, stops, self.known)
        for token in generated:
            state.accept(token)
        return state


def sampler_cases() -> tuple[SamplerCase, ...]:
    read = json.loads((files(__package__) / "cases" / "sampling.json").read_text("utf-8"))
    return tuple(
        SamplerCase(
            case["name"], case["options"], case.get("vocabulary", read["vocabulary"]), case.get("known", read["known"]),
            case.get("scale", read["scale"]),
        )
        for case in read["cases"]
    )  # fmt: skip


def measure_sampler(subject: Subject, target: str, case: SamplerCase, rows: int) -> Outcome:
    """Give a backend's sampler, `pkg.mod:function`, rows of logits, and hold its tokens to the core's."""
    module, _, name = target.partition(":")
    with blame(subject.info.name):
        choose: Sampler = getattr(import_module(module), name)
    differing = 0
    for number in range(-(-rows // BLOCK)):
        logits, states = case.block(number, min(BLOCK, rows - number * BLOCK))
        with blame(subject.info.name):
            tokens = choose(logits.copy(), states, subject.target.device).tolist()
        for place, (row, state, token) in enumerate(zip(logits, states, tokens, strict=True)):
            right = sample(row, state).token
            if token != right:
                differing += 1
                behind = _behind(row, state, token, right)
                if not (state.params.temperature and behind <= TIE):
                    where = number * BLOCK + place
                    return Outcome(
                        {"rows": float(rows), "differing": float(differing)},
                        f"row {where}: it chooses {token}, not {right}, whose score is better by {behind:.3g}",
                    )
    return Outcome({"rows": float(rows), "differing": float(differing)})


def _behind(row: Array, state: SamplerState, token: int, right: int) -> float:
    if not 0 <= token < len(row):
        return np.inf
    scores = penalise(row, state) / np.float32(state.params.temperature or 1)
    if state.params.temperature:
        scores += noise_at(np.arange(len(scores)), state.seed, state.position)
    return abs(float(scores[right]) - float(scores[token]))


class Watched(Around):
    """An executable whose own choice of tokens is held, in every step, to the logits that the same step gives."""

    def __init__(self, inner: Executable) -> None:
        super().__init__(inner)
        self.rows = 0
        self.problem = ""

    def submit(self, step: Step) -> Pending:
        return _Watching(self, step, self.inner.submit(step))

    def look(self, step: Step, result: StepResult) -> None:
        if result.tokens is None or result.logits is None:
            self.problem = "it says that it draws tokens, and gives none, or none beside logits that were wanted"
            return
        assert step.draws is not None
        rows, sequence, ahead = step.drawn_rows
        logits, tokens, draws = result.logits[rows], result.tokens[sequence, ahead], step.draws.rows(sequence, ahead)
        self.rows += len(logits)
        right = draw(logits, draws)
        for row in np.flatnonzero(tokens != right).tolist():
            token, seed, position = int(tokens[row]), int(draws.seed[row]), int(draws.position[row])
            behind = np.inf
            if 0 <= token < logits.shape[1]:
                behind = float(logits[row, right[row]] - logits[row, token]) / float(draws.temperature[row] or 1)
                if draws.temperature[row]:
                    noise = noise_at(np.array([right[row], token]), seed, position)
                    behind += float(noise[0] - noise[1])
            if behind > TIE and not self.problem:
                self.problem = (
                    f"of {len(logits)} rows, in row {row} it chooses {token}, {behind:.3g} below {right[row]}, which "
                    "has the largest of the logits that it gives, or of the scores that they make with the noise"
                )


class _Watching:
    def __init__(self, watched: Watched, step: Step, pending: Pending) -> None:
        self._watched, self._step, self._pending = watched, step, pending

    def result(self) -> StepResult:
        result = self._pending.result()
        self._watched.look(self._step, result)
        return result
