"""Perplexity beside transformers' loss, divergence beside a direct computation, both in windows."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

import ernie_rt
from ernie_rt import Model
from ernie_rt.errors import OptionError, PromptError
from ernie_rt.evaluation.logprobs import continuations
from ernie_rt.evaluation.measure import Evaluation, Perplexity, evaluate
from ernie_rt.evaluation.windows import windows
from support.untrained import sentences

TEXT = " ".join(sentence for sentence, _ in zip(sentences(), range(5), strict=False))


@pytest.fixture(scope="module")
def model(untrained: Path) -> Iterator[Model]:
    with ernie_rt.load(
        untrained, backend="eager", device="cpu", dtype="float32", threads=1, max_batch_tokens=7, max_sequences=3,
        max_context=64,
    ) as loaded:  # fmt: skip
        yield loaded


@pytest.fixture(scope="module")
def coarse(untrained: Path) -> Iterator[Model]:
    with ernie_rt.load(untrained, backend="eager", device="cpu", dtype="bfloat16", threads=1, max_context=64) as loaded:
        yield loaded


def losses(folder: Path, ids: list[int], context: int, stride: int) -> tuple[float, int]:
    """The strided loop of transformers' page on perplexity, with what its loss is a mean of counted exactly."""
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total, count, before = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids))
        given = torch.tensor([ids[begin:end]])
        labels = given.clone()
        labels[:, : -(end - before)] = -100
        predicted = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            loss = theirs(given, labels=labels).loss
        total += float(loss) * predicted if predicted else 0.0
        count += predicted
        before = end
        if end == len(ids):
            break
    return total, count


@pytest.mark.parametrize(("context", "stride"), [(32, 16), (24, 24), (64, 5)])
def test_perplexity_is_that_of_transformers(model: Model, untrained: Path, context: int, stride: int) -> None:
    ids = model.tokenizer.encode(TEXT)
    total, count = losses(untrained, ids, context, stride)
    told: list[tuple[int, int]] = []
    found = evaluate(
        model, TEXT, context=context, stride=stride, progress=lambda done, whole: told.append((done, whole))
    ).perplexity
    assert found.tokens == count and found.nll / count == pytest.approx(total / count, rel=1e-5)
    assert found.per_token == pytest.approx(math.exp(total / count), rel=1e-5)
    assert told[-1] == (len(ids), len(ids)) and len(told) == len(list(windows(len(ids), context, stride)))


def direct(model: Model, ids: list[int], context: int, stride: int) -> npt.NDArray[np.float64]:
    """Log probabilities of all tokens at each place that is predicted, in float64 `[n, V]`."""
    rows = []
    for window in windows(len(ids), context, stride):
        logits = model.logits(ids[window.begin : window.stop - 1]).astype(np.float64)
        rows.append(logits[window.first - window.begin - 1 :])
    x = np.concatenate(rows)
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))


def test_divergence_is_what_it_is_by_hand(model: Model, coarse: Model) -> None:
    ids = model.tokenizer.encode(TEXT)
    found = evaluate(model, TEXT, context=32, stride=16, against=coarse)
    p, q = (direct(each, ids, 32, 16) for each in (model, coarse))
    by_hand = (np.exp(p) * (p - q)).sum(-1)
    apart, other = found.divergence, found.other
    assert apart is not None and other is not None and apart.tokens == len(by_hand) == len(ids) - 1
    assert apart.mean == pytest.approx(by_hand.mean(), rel=1e-9) and apart.mean > 1e-7
    assert apart.median == pytest.approx(np.median(by_hand), rel=1e-9)
    assert apart.percentile99 == pytest.approx(np.quantile(by_hand, 0.99), rel=1e-9)
    assert apart.largest == pytest.approx(by_hand.max(), rel=1e-9)
    assert apart.error == pytest.approx(by_hand.std(ddof=1) / math.sqrt(len(by_hand)), rel=1e-9)
    assert apart.top1 == (p.argmax(-1) == q.argmax(-1)).mean()
    nll = [-each[np.arange(len(ids) - 1), ids[1:]].sum() for each in (p, q)]
    assert (found.perplexity.nll, other.nll) == pytest.approx(nll, rel=1e-9)
    assert apart.ratio == pytest.approx(math.exp((nll[1] - nll[0]) / len(by_hand)), rel=1e-9)


def test_nothing_diverges_from_itself(model: Model) -> None:
    found = evaluate(model, TEXT, context=48, stride=20, against=model)
    assert found.divergence is not None and found.divergence.largest == 0 and found.divergence.top1 == 1
    assert found.divergence.ratio == 1 and found.perplexity == found.other


def test_bytes_and_words(model: Model) -> None:
    found: Evaluation = evaluate(model, TEXT, context=64, stride=32)
    first = model.tokenizer.decode(model.tokenizer.encode(TEXT)[:1])
    figures = found.perplexity
    assert figures.bytes == len(TEXT.encode()) - len(first.encode()) and figures.words == len(TEXT.split())
    assert figures.per_byte == pytest.approx(figures.per_token ** (figures.tokens / figures.bytes))
    assert 2**figures.bits_per_byte == pytest.approx(figures.per_byte)
    assert figures.per_word == pytest.approx(figures.per_token ** (figures.tokens / figures.words))
    told = found.to_json()
    assert told["perplexity"]["per_token"] == figures.per_token and told["divergence"] is None


def test_what_cannot_be_compared(model: Model) -> None:
    with ernie_rt.load("demo", backend="eager", device="cpu", dtype="float32", threads=1, max_context=64) as other:
        with pytest.raises(OptionError, match="other tokens"):
            evaluate(model, TEXT, context=32, stride=16, against=other)
        with pytest.raises(PromptError, match="too short"):
            evaluate(other, "", context=32, stride=16)


def test_logits_are_handed_over_step_by_step(model: Model) -> None:
    ids, seen = model.tokenizer.encode(TEXT)[:40], np.zeros((2, 40), int)

    def visit(prompt: int, place: int, logits: npt.NDArray[np.float32]) -> None:
        assert len(logits) <= 7
        seen[prompt, place : place + len(logits)] += 1
        assert np.allclose(logits, whole[prompt][place : place + len(logits)], atol=1e-5)

    whole = [model.logits(ids), model.logits(ids[::-1])]
    model.visit_logits([ids, ids[::-1]], visit)
    assert (seen == 1).all()


def test_continuations_together_and_alone(model: Model) -> None:
    ids = model.tokenizer.encode(TEXT)[:40]
    pairs = [(ids[:9], ids[9:12]), (ids[:1], ids[1:30]), (ids[:20], ids[20:21]), (ids[:5], []), (ids[3:7], ids[7:40])]
    pairs.append((ids[:9], model.generate_ids(ids[:9], max_new_tokens=4, ignore_eos=True)))
    found = continuations(model, pairs)
    for (context, continuation), one in zip(pairs, found, strict=True):
        x = model.logits([*context, *continuation]).astype(np.float64)[len(context) - 1 : -1]
        p = x - np.log(np.exp(x).sum(-1, keepdims=True))
        assert one.logprob == pytest.approx(p[np.arange(len(continuation)), continuation].sum(), abs=1e-4)
        assert one.greedy == (p.argmax(-1) == continuation).all()
    assert found[-1].greedy and not found[1].greedy and found[3].logprob == 0


def scripted(*row: float) -> Model:
    """A model of single letters that predicts the same after each."""

    def visit_logits(prompts: list[list[int]], visit: Any) -> None:
        visit(0, 0, np.tile(np.array(row, np.float32), (len(prompts[0]), 1)))

    tokenizer = SimpleNamespace(encode=lambda text: ["abc".index(c) for c in text], pieces=[b"a", b"b", b"c"])
    config = SimpleNamespace(vocab_size=len(row))
    return cast(Model, SimpleNamespace(tokenizer=tokenizer, config=config, visit_logits=visit_logits))


@pytest.mark.parametrize(
    ("first", "second", "mean"),
    [
        ((0.0, 0.0, -2000.0), (0.0, 0.0, -np.inf), 0.0),
        ((0.0, 0.0, -np.inf), (0.0, 0.0, -np.inf), 0.0),
        ((0.0, 0.0, 0.0), (0.0, 0.0, -np.inf), math.inf),
        ((0.0, 0.0, -np.inf), (0.0, 0.0, 0.0), math.log(1.5)),
    ],
)
def test_what_is_impossible(first: tuple[float, ...], second: tuple[float, ...], mean: float) -> None:
    found = evaluate(scripted(*first), "abab", context=4, stride=2, against=scripted(*second))
    assert found.divergence is not None and found.divergence.mean == pytest.approx(mean)
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))["divergence"]
    assert told["mean"] == (None if math.isinf(mean) else pytest.approx(mean))


def test_a_model_that_gives_no_number_is_named() -> None:
    sound, broken = scripted(0.0, 0.0, 0.0), scripted(math.nan, 0.0, 0.0)
    with pytest.raises(PromptError, match="the model gives a token"):
        evaluate(broken, "abab", context=4, stride=2)
    with pytest.raises(PromptError, match="the model that is compared gives a token"):
        evaluate(sound, "abab", context=4, stride=2, against=broken)


def test_what_is_beyond_all_numbers_is_said_in_json() -> None:
    beyond = Perplexity(tokens=2, bytes=1, words=0, nll=4000.0, error=math.nan)
    assert beyond.per_token == beyond.per_byte == beyond.per_word == math.inf
    told = json.loads(json.dumps(beyond.to_json(), allow_nan=False))
    assert told["per_token"] is None and told["error"] is None and told["nll"] == 4000
