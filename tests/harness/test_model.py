"""The model of lm-evaluation-harness, where that is installed: `pip install 'ernie-rt[lm-eval]'`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

import typer
import typer.testing
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

import ernie_rt
from ernie_rt.errors import OptionError
from ernie_rt_lm_eval.command import lm_eval
from ernie_rt_lm_eval.model import ErnieRtLM, _last

SUMS = [(12, 7), (40, 9), (23, 5), (71, 3)]


@pytest.fixture(scope="module")
def model() -> Iterator[ErnieRtLM]:
    with ernie_rt.load(
        "demo", backend="eager", device="cpu", dtype="float32", threads=1, max_sequences=2, max_context=64
    ) as loaded:
        yield ErnieRtLM(loaded)


def asked(kind: Any, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_it_is_registered() -> None:
    assert get_model("ernie-rt") is ErnieRtLM


def test_loglikelihood(model: ErnieRtLM) -> None:
    pairs = [(f"Question: What is {a} plus {b}?\nAnswer:", f" {a} + {b} = {a + b}") for a, b in SUMS]
    wrong = [(question, answer[:-1] + "x") for question, answer in pairs]
    found = model.loglikelihood([asked("loglikelihood", *pair) for pair in [*pairs, *wrong, ("", "Once")]], True)
    for (right, greedy), (other, neither) in zip(found[:4], found[4:8], strict=True):
        assert greedy and not neither and -1 < right < 0 and other < right - 5
    ids = model.tok_encode("Once")
    first = model.model.logits([model.prefix_token_id, *ids[:-1]]).astype(float)
    assert found[8][0] == pytest.approx(
        sum(row[id] - math.log(sum(map(math.exp, row))) for row, id in zip(first, ids, strict=True))
    )


def test_rolling_is_the_whole_text(model: ErnieRtLM) -> None:
    text = "Once there was a white cat. One day it walked to the river. There it found a red ball. " * 4
    begin = [model.prefix_token_id]
    (total,) = model.loglikelihood_rolling([asked("loglikelihood_rolling", text)], True)
    ids = model.tok_encode(text)
    assert len(ids) > model.max_length and total < 0
    short = text[:80]
    (whole,) = model.loglikelihood_rolling([asked("loglikelihood_rolling", short)], True)
    x = model.model.logits([*begin, *model.tok_encode(short)[:-1]]).astype(float)
    said = [row[id] - math.log(sum(map(math.exp, row))) for row, id in zip(x, model.tok_encode(short), strict=True)]
    assert whole == pytest.approx(sum(said), abs=1e-3)


def test_of_a_continuation_that_is_too_long_the_end_is_predicted_from_what_is_before_it() -> None:
    assert _last([1, 2], [3, 4], 8) == ([1, 2], [3, 4])
    assert _last([1, 2, 3], [4, 5], 3) == ([2, 3], [4, 5])
    assert _last([1, 2], [3, 4, 5, 6], 3) == ([3], [4, 5, 6])
    assert _last([1, 2], [], 1) == ([1, 2], [])


def test_generate_until(model: ErnieRtLM) -> None:
    until = {"until": ["="], "max_gen_toks": 24}
    requests = [
        asked("generate_until", "Question: What is 12 plus 7?\nAnswer:", until),
        asked("generate_until", "Question: What is 12 plus 7?\nAnswer:", {"until": [], "max_gen_toks": 12}),
        asked("generate_until", "Question: What is 40 plus 9?\nAnswer:", until),
    ]
    assert model.generate_until(requests, True) == [" 12 + 7 ", " 12 + 7 = 19", " 40 + 9 "]


def test_conversations(model: ErnieRtLM) -> None:
    fresh = ErnieRtLM(model.model)
    text = fresh.apply_chat_template([{"role": "user", "content": "How many grams are in 5 kilograms?"}])
    request = asked("generate_until", text, {"until": [], "max_gen_toks": 30})
    assert fresh.generate_until([request], True) == ["5 kilograms = 5000 grams"]
    prompt = model.model.template.prompt([{"role": "user", "content": "Hello"}], model.model.tokenizer)
    assert tuple(fresh.tok_encode(fresh.apply_chat_template([{"role": "user", "content": "Hello"}]))) == prompt.ids


def test_a_task_of_theirs_on_local_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    docs = [{"context": f"Q: What is {a} plus {b}?\nA:", "completion": f" {a} + {b} = {a + b}"} for a, b in SUMS]
    docs[0]["completion"] = " 12 + 7 = 20"
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    app = typer.Typer()
    app.command()(lm_eval)
    given = ["demo", "-t", "arithmetic_2da", "--backend", "eager", "--threads", "1", "--max-context", "64", "-q"]
    ran = typer.testing.CliRunner().invoke(app, [*given, "--json", "--data", f"validation={tmp_path / 'sums.jsonl'}"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout.splitlines()[-1])["results"]["arithmetic_2da"]["acc,none"] == 0.75
    for extra, said in ((["-t", "none_such"], "no such task"), (["--data", "validation=nowhere"], "--data is not")):
        refused = typer.testing.CliRunner().invoke(app, [*given, *extra])
        assert isinstance(refused.exception, OptionError) and said in str(refused.exception)
