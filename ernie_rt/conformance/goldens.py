"""Levels 4 and 5: trained weights, beside what the oracle once said of them. No oracle runs here.

docs/conformance.md describes the file; `python tools/goldens.py` writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.judge import MAX_EXCUSED, judge_rows
from ernie_rt.conformance.metrics import CANDIDATES, TIE_LIMIT, Rows, agreed, kl
from ernie_rt.conformance.models import Prompt, Run, drive
from ernie_rt.conformance.rounding import EPSILON
from ernie_rt.conformance.subject import Outcome
from ernie_rt.contract.protocols import Executable, Numerics, OpNumerics
from ernie_rt.errors import ConformanceError
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import DType
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.weights.integrity import digest_of

Array = npt.NDArray[Any]

FORMAT: Final = 1
TOP: Final = CANDIDATES
"""How many of a position's logits are kept, the best ones."""
NOISES: Final[tuple[DType, ...]] = ("float32", "bfloat16", "float16")
"""The dtypes whose noise is known. Logits are kept in float32, so that nothing finer can be judged by them."""
PARTINGS: Final = 4
"""How often a text is taken up again: by then it has failed, or shown that it is full of ties."""
KINDS: Final = ("chat", "plain", "long")
"""Questions through the chat template, text without it, and contexts as long as the model has."""
COMMAND: Final = "python tools/goldens.py"


def usual(dtype: DType) -> Numerics:
    """The arithmetic whose noise the goldens hold: products in a dtype, sums and the router in float32."""
    return Numerics(OpNumerics(dtype, "float32"), {"moe_route": OpNumerics("float32", "float32")})


def noise_of(dtype: DType, numerics: Numerics) -> DType | None:
    """The dtype whose noise a backend is held to; None when it declares something coarser than the usual."""
    held: DType = "float32" if dtype == "float64" else dtype
    for op in OPS:
        own, known = numerics.of(op), usual(held).of(op)
        if EPSILON[own.compute] > EPSILON[known.compute] or EPSILON[own.accumulate] > EPSILON[known.accumulate]:
            return None
    return held


@dataclass(frozen=True, slots=True)
class Text:
    """A text and what the oracle says of it. The first `prompt` ids are given; the others are its greedy answer.

    At each of P `positions` are known the ids `top [P, TOP]` of the best logits, best first, and a sketch
    `exact [P, TOP + 3]` of all logits: those, the logarithm of the sum of the exponentials of the others, the mean of
    all and their rms. By dtype, `noise [P]` is the rms of what rounding does to the sketch, `kl [P]` the divergence
    that it makes, and `clear` how many tokens enter before rounding may send one to other experts.
    """

    kind: str
    ids: Prompt
    prompt: int
    positions: Array
    top: Array
    exact: Array
    noise: Mapping[str, Array]
    kl: Mapping[str, Array]
    clear: Mapping[str, int]

    @property
    def answer(self) -> Prompt:
        return self.ids[self.prompt :]

    def rows(self, logits: Array, dtype: DType) -> Rows:
        """Its positions, beside the logits `[T, V]` that a backend gave after each token."""
        logits = logits[self.positions].astype(np.float64)
        found, noise = sketch(logits, self.top), self.noise[dtype]
        chosen = logits.argmax(-1)
        near = self.behind(np.arange(len(chosen)), chosen) <= TIE_LIMIT * np.maximum(noise, np.median(noise))
        noisy = self.exact + noise[:, None]  # that far off, in no matter what direction
        return Rows(
            found, self.exact, noisy, divergence(self.exact, found), self.kl[dtype], chosen, self.top[:, 0], near
        )

    def behind(self, rows: Array, tokens: Array) -> Array:
        """By how much the best logit beats that of a token `[n]`; infinitely when the token is none of the best."""
        places = self.top[rows] == tokens[:, None]
        gap = self.exact[rows, 0] - self.exact[rows, places.argmax(-1)]
        return np.where(places.any(-1), gap, np.inf)

    def unclear(self, dtype: DType) -> Array:
        """At which positions rounding may have chosen other experts `[P]`."""
        return np.asarray(self.positions >= self.clear[dtype])


@dataclass(frozen=True, slots=True)
class Goldens:
    """Texts of all kinds, further ones to be teacher-forced, and the digest of the weights that all of it is about."""

    model: str
    digest: str
    texts: tuple[Text, ...]
    more: tuple[Prompt, ...]

    @classmethod
    def read(cls) -> Goldens:
        read = json.loads((files(__package__) / "cases" / "goldens.json").read_text("utf-8"))
        texts = (
            Text(
                text["kind"],
                tuple(text["ids"]),
                text["prompt"],
                np.array(text["positions"]),
                np.array(text["top"]),
                np.array(text["exact"]),
                {dtype: np.array(noise) for dtype, noise in text["noise"].items()},
                {dtype: np.array(each) for dtype, each in text["kl"].items()},
                text["clear"],
            )
            for text in read["texts"]
        )
        return cls(read["model"], read["digest"], tuple(texts), tuple(map(tuple, read["more"])))

    def of(self, kind: str) -> list[Text]:
        return [text for text in self.texts if text.kind == kind]

    def check(self, folder: Path) -> None:
        """ConformanceError unless they are about the weights in this folder."""
        found = weights_digest(folder)
        if found != self.digest:
            raise ConformanceError(
                "the goldens are of other weights",
                where=str(folder),
                expected=self.digest,
                found=found,
                hint=f"`{COMMAND}` makes them anew",
            )


def weights_digest(folder: Path) -> str:
    """The SHA-256 of a checkpoint's config and weights."""
    total = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        total.update(bytes.fromhex(digest_of(path)))
    return total.hexdigest()


def sketch(logits: Array, top: Array) -> Array:
    """What is kept of logits `[P, V]`, with the logits of the ids `top [P, TOP]`."""
    best = np.take_along_axis(logits, top, -1)
    others = logits.copy()
    np.put_along_axis(others, top, -np.inf, -1)
    with np.errstate(all="ignore"):  # a backend may have given anything
        high = others.max(-1, keepdims=True)
        rest = high + np.log(np.exp(others - high).sum(-1, keepdims=True))
        mean = logits.mean(-1, keepdims=True)
        rms = np.sqrt(np.square(logits).mean(-1, keepdims=True))
    return np.concatenate([best, rest, mean, rms], -1)


def divergence(exact: Array, found: Array) -> Array:
    """The Kullback-Leibler divergence of two sketches `[P]`: of the best tokens, and all others as one."""
    return kl(exact[:, : TOP + 1], found[:, : TOP + 1])


def divergence_of(texts: Sequence[Text], run: Run) -> float:
    """How far a run diverges from the oracle on the goldens' own weights, in the mean of all positions."""
    found = [
        divergence(text.exact, sketch(one.logits[text.positions].astype(np.float64), text.top))
        for text, one in zip(texts, run.told, strict=True)
        if one.logits is not None
    ]
    return float(np.concatenate(found).mean())


def judge_texts(texts: Sequence[Text], run: Run, noise: DType, factor: float) -> Outcome:
    """Judge logits of whole texts; the model's logits are of the activations' dtype."""
    found = [text.rows(one.logits, noise) for text, one in zip(texts, run.told, strict=True) if one.logits is not None]
    rows = Rows(*(np.concatenate([getattr(part, name) for part in found]) for name in Rows.__slots__))
    unclear = np.concatenate([text.unclear(noise) for text in texts])
    return judge_rows(rows, unclear, noise, noise, factor)[0]


class Answers:
    """Continues the prompts of texts greedily, and judges each token by the oracle's answer.

    Where a token differs, the answer goes on after the oracle's own one, so that the others count as well.
    """

    def __init__(self, texts: Sequence[Text]) -> None:
        self._texts = texts
        self._begun: list[tuple[int, int]] = []  # of each sequence its text, and how much of the answer was given

    def drive(self, engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        ended: list[SequenceState] = []
        todo = [(place, 0) for place in range(len(self._texts))]
        for _ in range(PARTINGS + 1):
            if not todo:
                break
            continued = [
                replace(
                    requests[place],
                    ids=self._texts[place].ids[: self._texts[place].prompt + given],
                    max_new_tokens=len(self._texts[place].answer) - given,
                )
                for place, given in todo
            ]
            sequences = drive(engine, executable, continued)
            self._begun += todo
            ended += sequences
            parted = [
                (place, given + agreed(sequence.generated, self._texts[place].answer[given:]) + 1)
                for (place, given), sequence in zip(todo, sequences, strict=True)
            ]
            todo = [(place, given) for place, given in parted if given < len(self._texts[place].answer)]
        return ended

    def judge(self, run: Run, noise: DType, factor: float) -> Outcome:
        """A differing token has to be one that the noise of the logits decides. Where other experts may have been
        chosen it need not, in a quarter of all answers."""
        usual = np.median(np.concatenate([text.noise[noise] for text in self._texts]))
        matches, judged, ties, excused, worst, problem = [], 0, 0, set(), 0.0, ""
        for (place, given), one in zip(self._begun, run.told, strict=True):
            text = self._texts[place]
            same = agreed(one.generated, text.answer[given:])
            if given == 0:
                matches.append(same)
            judged += same
            if given + same == len(text.answer):
                continue
            judged += 1
            position = text.prompt + given + same - 1
            (row,) = np.nonzero(text.positions == position)
            behind = float(text.behind(row, np.array([one.generated[same]]))[0])
            share = behind / (TIE_LIMIT * factor * max(float(text.noise[noise][row[0]]), float(usual)))
            if share > 1 and position >= text.clear[noise]:
                excused.add(place)
            else:
                ties += share <= 1
                worst = max(worst, share)
            told = (
                f"answer {place}, token {given + same} is {one.generated[same]}; the oracle's best is "
                f"{text.ids[position + 1]}, by {behind:.3g}"
            )
            if share > 1 and not problem and position < text.clear[noise]:
                problem = told
        if len(excused) > MAX_EXCUSED * len(self._texts) and not problem:
            problem = f"{len(excused)} of {len(self._texts)} answers differ, too many for flipped experts"
            worst = np.inf
        figures = {
            "match": float(np.mean(matches)),
            "match_min": float(min(matches)),
            "length": float(np.mean([len(text.answer) for text in self._texts])),
            "tokens": float(judged),
            "ties": float(ties),
            "excused": float(len(excused)),
            "margin": worst,
        }
        return Outcome(figures, problem)
