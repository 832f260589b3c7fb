"""Perplexity over a text, and the divergence of one configuration of a model from another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import OptionError, PromptError
from ernie_rt.evaluation.logprobs import Floats, log_softmax, pieces
from ernie_rt.evaluation.windows import Window, windows
from ernie_rt.files import Progress
from ernie_rt.session import Model

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How well a model predicts a text: `exp` of the mean of `nll`, the negative log probability of its tokens in nats.

    `tokens` were predicted, of so many `bytes` in UTF-8 together; `words` (between white space) are those of the whole
    text. `error` is the standard error of the perplexity of a token, as if tokens were independent.
    """

    tokens: int
    bytes: int
    words: int
    nll: float
    error: float

    @property
    def per_token(self) -> float:
        return _exp(self.nll / self.tokens)

    @property
    def per_byte(self) -> float:
        return _exp(self.nll / self.bytes) if self.bytes else math.inf

    @property
    def per_word(self) -> float:
        return _exp(self.nll / self.words) if self.words else math.inf

    @property
    def bits_per_byte(self) -> float:
        return self.nll / self.bytes / math.log(2) if self.bytes else math.inf

    def to_json(self) -> dict[str, Any]:
        names = ("per_token", "per_byte", "per_word", "bits_per_byte")
        return _plain(asdict(self) | {name: getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far the second distribution is from the first at each of so many `tokens`: Kullback-Leibler, in nats.

    `error` is the standard error of the mean. `top1` is at what share of the places both have the same likeliest token,
    `ratio` the perplexity of the second over that of the first.
    """

    tokens: int
    mean: float
    error: float
    median: float
    percentile99: float
    largest: float
    top1: float
    top1_error: float
    ratio: float

    def to_json(self) -> dict[str, Any]:
        return _plain(asdict(self))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A text evaluated in windows of `context` tokens, every `stride` tokens: by a model and, where there is one, by
    another, with the divergence of that."""

    context: int
    stride: int
    perplexity: Perplexity
    other: Perplexity | None = None
    divergence: Divergence | None = None

    def to_json(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("perplexity", "other", "divergence")}
        told = {name: None if part is None else part.to_json() for name, part in parts.items()}
        return {"context": self.context, "stride": self.stride} | told


def evaluate(
    model: Model,
    text: str,
    *,
    context: int,
    stride: int,
    against: Model | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Let a model predict a text, and another one as well.

    Memory holds a step's logits and, with `against`, those of what one window predicts; of the text a number for each
    token. `progress` is told of tokens. OptionError where the two read other tokens, PromptError for a text of one, or
    one of which a model says no number.
    """
    ids = model.tokenizer.encode(text)
    if against is not None and (
        against.config.vocab_size != model.config.vocab_size or against.tokenizer.encode(text) != ids
    ):
        raise OptionError("the two models have other tokens, so that their predictions cannot be compared")
    planned = list(windows(len(ids), context, stride))
    measured = _Measured(model, against, ids)
    for window in planned:
        measured.take(window)
        if progress is not None:
            progress(window.stop, len(ids))
    places = np.concatenate([np.arange(window.first, window.stop) for window in planned])
    for name, nll in zip(("the model", "the model that is compared"), measured.nll, strict=False):
        if not np.isfinite(nll[places]).all():
            raise PromptError(
                f"{name} gives a token of the text no probability that is a number",
                hint="Run the same text with `--backend reference` to compare",
            )
    nbytes = sum(len(model.tokenizer.pieces[ids[place]]) for place in places.tolist())
    first, *others = (_perplexity(nll[places], nbytes, len(text.split())) for nll in measured.nll)
    if not others:
        return Evaluation(context, stride, first)
    divergence = _divergence(measured.divergence[places], measured.same[places], others[0], first)
    return Evaluation(context, stride, first, others[0], divergence)


class _Measured:
    """What is known of each token of a text: `nll [n]` by one model or two, and how the two compare there."""

    def __init__(self, model: Model, against: Model | None, ids: Sequence[int]) -> None:
        self._models = (model,) if against is None else (model, against)
        self._ids = np.array(ids, np.int64)
        self.nll: list[Floats] = [np.zeros(len(ids)) for _ in self._models]
        self.divergence = np.zeros(len(ids))
        self.same = np.zeros(len(ids), bool)

    def take(self, window: Window) -> None:
        given = self._ids[window.begin : window.stop - 1].tolist()
        kept: dict[int, Array] = {}

        def visit(second: bool, _: int, place: int, logits: Array) -> None:
            after = window.begin + place + 1  # the token that the first row predicts
            skipped = max(window.first - after, 0)
            for start, rows in pieces(logits[skipped:]):
                predicted = slice(after + skipped + start, after + skipped + start + len(rows))
                p = log_softmax(rows)
                self.nll[second][predicted] = -np.take_along_axis(p, self._ids[predicted, None], -1)[:, 0]
                if second:
                    base = np.stack([kept[each] for each in range(predicted.start, predicted.stop)])
                    self._compare(predicted, log_softmax(base), p)
                elif len(self._models) == 2:
                    # A copy: what is a view of a step's logits would keep them all.
                    kept.update(zip(range(predicted.start, predicted.stop), rows.copy(), strict=True))

        for number, model in enumerate(self._models):
            model.visit_logits([given], partial(visit, bool(number)))

    def _compare(self, predicted: slice, p: Floats, q: Floats) -> None:
        weights = np.exp(p)
        with np.errstate(invalid="ignore"):
            terms = weights * (p - q)
        # What is too unlikely for a float64 adds nothing, be it impossible for the other: 0 ln 0 = 0.
        self.divergence[predicted] = np.maximum(np.where(weights == 0, 0, terms).sum(-1), 0)
        self.same[predicted] = p.argmax(-1) == q.argmax(-1)


def _perplexity(nll: Floats, nbytes: int, words: int) -> Perplexity:
    mean = float(nll.mean())
    return Perplexity(len(nll), nbytes, words, float(nll.sum()), _exp(mean) * _standard_error(nll))


def _divergence(found: Floats, same: npt.NDArray[np.bool_], other: Perplexity, first: Perplexity) -> Divergence:
    share = float(same.mean())
    with np.errstate(invalid="ignore"):  # between two that are infinite
        median, percentile99 = (float(np.percentile(found, q)) for q in (50, 99))
    return Divergence(
        tokens=len(found),
        mean=float(found.mean()),
        error=_standard_error(found),
        median=median,
        percentile99=percentile99,
        largest=float(found.max()),
        top1=share,
        top1_error=_standard_error(same.astype(np.float64)),
        ratio=_exp((other.nll - first.nll) / first.tokens),
    )


def _standard_error(values: Floats) -> float:
    if not np.isfinite(values).all():
        return math.inf
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """For JSON, which has no number that is infinite, or none."""
    return {name: value if math.isfinite(value) else None for name, value in fields.items()}


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
