"""Receipts: what is in one, and what becomes of it elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ernie_rt
from ernie_rt import Generation, Model
from ernie_rt.conformance.metrics import choice_noise
from ernie_rt.contract import Backend
from ernie_rt.errors import BackendError, FileFormatError, OptionError, WriteError
from ernie_rt.host import PluginHost
from ernie_rt.receipts import ties
from ernie_rt.receipts.making import identify, make_receipt
from ernie_rt.receipts.reading import read_receipt
from ernie_rt.receipts.receipt import Chosen, Ran, Receipt
from ernie_rt.receipts.replay import replay
from ernie_rt.sampling.constraint import Constraint
from ernie_rt.sampling.phases import Fixed
from support.commands import Outcome, command

QUESTION = [{"role": "user", "content": "How many grams are in 5 kilograms?"}]
STORY = [{"role": "user", "content": "Tell me a story about a cat."}]
WILD: dict[str, Any] = {"temperature": 1.3, "ignore_eos": True, "margins": True, "logprobs": 5}
FLOAT32 = {"device": "cpu", "dtype": "float32", "threads": 1}


@pytest.fixture(scope="module")
def eager() -> Iterator[Model]:
    with ernie_rt.load("demo", backend="eager", **FLOAT32) as model:  # type: ignore[arg-type]
        yield model


@pytest.fixture(scope="module")
def onnx() -> Iterator[Model]:
    with ernie_rt.load("demo", backend="onnx", **FLOAT32) as model:  # type: ignore[arg-type]
        yield model


@pytest.fixture(scope="module")
def coarse() -> Iterator[Model]:
    with ernie_rt.load("demo", backend="eager", device="cpu", dtype="bfloat16", threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def receipt(eager: Model) -> Receipt:
    return make_receipt(eager, eager.chat(QUESTION, margins=True, logprobs=5))


@pytest.fixture(scope="module")
def story(coarse: Model) -> Receipt:
    return make_receipt(coarse, coarse.chat(STORY, seed=10, max_new_tokens=20, **WILD))


def ran_on(model: Model) -> Ran:
    return Ran(model.choice.backend, model.choice.device, model.choice.dtype)


def through_a_file(receipt: Receipt, folder: Path) -> Receipt:
    receipt.write(folder / "r.json")
    read = read_receipt(folder / "r.json")
    assert read == receipt
    return read


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.9, "top_p": 0.95, "seed": 5, "repetition_penalty": 1.1},
        {"logit_bias": {7: -2.0}, "bad_words": [[5, 6]], "stop": ["grams"]},
    ],
    ids=["sampled", "greedy"],
)
def test_float32_replays_identical_both_ways(
    eager: Model, onnx: Model, options: dict[str, Any], tmp_path: Path
) -> None:
    for number, (one, other) in enumerate(((eager, onnx), (onnx, eager))):
        answer = one.chat(QUESTION, margins=True, logprobs=5, **options)
        (folder := tmp_path / str(number)).mkdir()
        receipt = through_a_file(make_receipt(one, answer), folder)
        assert receipt.ids == answer.ids and receipt.finish == answer.finish == "stop"
        assert (receipt.ran.backend, receipt.ran.dtype) == (one.choice.backend, "float32")
        done = replay(receipt, other, ran_on(other), other.open_weights)
        assert (done.verdict, done.ids, done.parting) == ("identical", answer.ids, None)
        assert done.apart is not None and done.apart.largest < 1e-4 and done.apart.top1 == 1
        assert done.apart.tokens == len(answer.ids)


def test_a_seed_that_nobody_gave_is_in_the_receipt(eager: Model) -> None:
    answer = eager.chat(STORY, max_new_tokens=12, **WILD)
    receipt = make_receipt(eager, answer)
    assert receipt.options["seed"] is not None
    assert replay(receipt, eager, ran_on(eager), eager.open_weights).verdict == "identical"
    assert answer.asked is not None and eager.generate(answer.asked.ids, **answer.asked.options).ids == answer.ids


def test_bfloat16_parts_where_rounding_decides(eager: Model, story: Receipt) -> None:
    done = replay(story, eager, ran_on(eager), eager.open_weights)
    assert done.verdict == "tie" and done.parting is not None and done.apart is not None
    first, second = done.parting.chosen
    assert second is not None and first.id != second.id and done.parting.near is not None
    for mine, theirs in ((first, second), (second, first)):
        assert mine.runner_up is not None and mine.runner_up[0] == theirs.id
        assert 0 < mine.runner_up[1] < done.parting.near[0]
    assert done.apart.tokens == 20 and 0 < done.apart.mean < 0.05
    assert list(done.ids[: done.parting.place]) == list(story.ids[: done.parting.place])


def test_what_rounding_does_not_explain_is_different(eager: Model, story: Receipt) -> None:
    """The receipt says float32, and the noise of that explains nothing of what bfloat16 did."""
    done = replay(replace(story, ran=ran_on(eager)), eager, ran_on(eager), eager.open_weights)
    assert done.verdict == "different" and done.reason.startswith("the receipt's token is farther")


def test_noise_is_no_less_than_usual_in_the_last_rows(eager: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    source, judged = eager.open_weights(), []

    def noted(exact: np.ndarray, noisy: np.ndarray) -> np.ndarray:
        judged.append(choice_noise(exact, noisy))
        return judged[-1]

    monkeypatch.setattr(ties, "choice_noise", noted)
    monkeypatch.setattr(ties, "ROWS", 3)
    for ids in ((5, 90), (5, 90, 700, 41, 8)):
        noises = ties.noise_after(eager.config, source, [ran_on(eager)], ids, PluginHost())
        assert noises is not None and len(judged[-1]) == min(len(ids), 3)
        assert noises[0].rms == max(judged[-1][-1], np.median(judged[-1]))
    source.close()


def test_a_forged_token_is_different(eager: Model, receipt: Receipt) -> None:
    forged = list(receipt.answer)
    forged[3] = Chosen(500, forged[3].logprob, forged[3].top, forged[3].runner_up)
    done = replay(replace(receipt, answer=tuple(forged)), eager, ran_on(eager), eager.open_weights)
    assert done.verdict == "different" and done.parting is not None and done.parting.place == 3
    assert done.apart is not None and done.apart.place >= 3 and done.apart.largest > 3


def test_a_receipt_of_a_backend_that_cannot_be_loaded_here(
    eager: Model, receipt: Receipt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a GPU is, where there is no PyTorch: it is judged by what is usual in its dtype."""
    forged = (*receipt.answer[:3], replace(receipt.answer[3], id=500), *receipt.answer[4:])
    host, load = PluginHost(), PluginHost.backend

    def backend(self: PluginHost, name: str) -> Backend:
        if name == "cudagraph":
            raise BackendError("backend 'cudagraph' cannot be used: it needs torch")
        return load(self, name)

    monkeypatch.setattr(PluginHost, "backend", backend)
    elsewhere = replace(receipt, answer=forged, ran=Ran("cudagraph", "cuda:0", "bfloat16"))
    done = replay(elsewhere, eager, ran_on(eager), eager.open_weights, host=host)
    assert done.verdict == "different" and done.parting is not None and done.parting.near is not None
    assert done.parting.near[0] > 100 * done.parting.near[1]


def test_a_router_tie_excuses_no_forged_token(coarse: Model, story: Receipt) -> None:
    """In bfloat16 some choice of experts is always open; a token that no such choice brings about stays forged."""
    for place in (5, 15):
        forged = list(story.answer)
        forged[place] = replace(forged[place], id=700)
        done = replay(replace(story, answer=tuple(forged)), coarse, ran_on(coarse), coarse.open_weights)
        assert (done.verdict, done.parting and done.parting.place) == ("different", place), done.reason


def test_a_router_tie_excuses_what_other_experts_bring_about(eager: Model, coarse: Model) -> None:
    question = [{"role": "user", "content": "Write about the sea."}]
    receipt = make_receipt(coarse, coarse.chat(question, seed=13, max_new_tokens=24, **WILD))
    done = replay(receipt, eager, ran_on(eager), eager.open_weights)
    assert done.verdict == "tie" and done.reason.startswith("a router tie came before"), done.reason


def test_an_answer_that_was_cut_or_ends_otherwise_is_different(eager: Model, receipt: Receipt) -> None:
    assert receipt.finish == "stop"
    short = make_receipt(eager, eager.chat(QUESTION, margins=True, logprobs=5, max_new_tokens=4))
    assert short.finish == "length"
    spoken = replace(receipt, text={"answer": "5 kilograms = 5000 grams"})
    cut = replace(receipt, answer=receipt.answer[:4], finish="cancelled")
    for honest in (receipt, short, spoken, cut):
        assert replay(honest, eager, ran_on(eager), eager.open_weights).verdict == "identical"
    for forged, why in (
        (replace(cut, finish="stop"), "the same 4 tokens, but the receipt says that they end by 'stop', which is "),
        (replace(cut, finish="length"), "the same 4 tokens, but the receipt says that they are as many as "),
        (replace(short, finish="stop"), "the same 4 tokens, but the receipt says that they end by 'stop', which is "),
        (replace(spoken, text={"answer": "5 kilograms = 7000 grams"}), "but the receipt's text is not theirs"),
    ):
        done = replay(forged, eager, ran_on(eager), eager.open_weights)
        assert done.verdict == "different" and why in done.reason


def test_what_no_receipt_can_say(eager: Model) -> None:
    ids = eager.tokenizer.encode("Once")
    constrained: Constraint = Fixed((5, 6))
    for answer, why in (
        (eager.generate(ids, max_new_tokens=2), "how its tokens were chosen; .* margins=True, logprobs=5"),
        (
            eager.generate(ids, max_new_tokens=2, margins=True, constraint=constrained),
            "a constraint, such as a grammar",
        ),
        (eager.generate(ids, max_new_tokens=2, margins=True, reuse_after_change=True), "behind other text"),
        (Generation("", (), "cancelled", 1, 0.0, 0.0), "without a token"),
    ):
        with pytest.raises(OptionError, match=why):
            make_receipt(eager, answer)


def test_ids_of_another_vocabulary(eager: Model, receipt: Receipt) -> None:
    known, first = eager.tokenizer.vocab_size, receipt.answer[0]
    for forged, said in (
        (replace(receipt, prompt=(4032,)), "below 4032; found 4032"),
        (replace(receipt, answer=(replace(first, runner_up=(4032, 1.0)),)), "below 4032; found 4032"),
        (replace(receipt, answer=(replace(first, id=known),)), f"below {known}; found {known}"),
    ):
        with pytest.raises(FileFormatError, match=said):
            replay(forged, eager, ran_on(eager), eager.open_weights)


def test_it_replaces_no_file(eager: Model, receipt: Receipt, tmp_path: Path) -> None:
    receipt.write(tmp_path / "r.json")
    with pytest.raises(WriteError, match="File exists"):
        receipt.write(tmp_path / "r.json")
    receipt.write(tmp_path / "r.json", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def run(path: Path, *arguments: object) -> Outcome:
    return command("run", *arguments, "--receipt", path, "--threads", 1, "-q", "--backend", "eager")


def test_the_commands(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    asked = ("demo", "How many grams are in 5 kilograms?", "--dtype", "float32")
    ran = run(path, *asked)
    assert ran == Outcome(0, "5 kilograms = 5000 grams\n", "")
    assert "kilogram" not in path.read_text()
    done = command("replay", path, "--backend", "onnx", "--threads", 1, "-q")
    *_, figures, verdict = done.out.splitlines()
    assert (done.code, done.err, verdict) == (0, "", "identical: the same 14 tokens")
    assert figures.startswith("log probabilities of the receipt's 14 tokens: ") and figures.endswith(" at 100.0%")
    told = json.loads(command("replay", path, "demo", "--backend", "eager", "--threads", 1, "-q", "--json").out)
    assert told["verdict"] == "identical" and told["receipt"] == "eager@cpu:float32" and len(told["ids"]) == 14
    again = run(path, *asked)
    assert (
        again.code == 1 and again.out == "" and "something is there. Choose another path, or --overwrite" in again.err
    )
    ran = run(path, *asked, "--overwrite", "--receipt-text")
    text = read_receipt(path).text
    assert ran.code == 0 and text == {"prompt": asked[1], "answer": "5 kilograms = 5000 grams"}
    for extra, why in ((("--thinking-budget", 3), "reasoning has a budget"), (("--overwrite",), "about a receipt")):
        given = () if extra == ("--overwrite",) else ("--receipt", tmp_path / "new.json")
        refused = command("run", *asked, *extra, *given)
        assert refused.code == 2 and why in refused.err and not (tmp_path / "new.json").exists()


def test_another_model_is_named(untrained: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert run(path, untrained, "老师 says", "-n", 4, "--dtype", "float32").code == 0
    unknown = command("replay", path)
    assert unknown.code == 2 and "the receipt names no known model" in unknown.err and "'model'" in unknown.err
    mutated = shutil.copytree(untrained, tmp_path / "mutated")
    tensors = load_file(mutated / "model.safetensors")
    tensors["model.layers.2.mlp.gate.weight"][3, 5] *= np.float32(1.001)
    save_file(tensors, mutated / "model.safetensors")
    done = command("replay", path, mutated, "--backend", "eager", "--threads", 1)
    assert done.code == 2 and "not comparable: the receipt is of another model, with other weights: " in done.out
    assert "graph" not in done.out and "tokenizer" not in done.out
    config = json.loads((mutated / "config.json").read_text())
    (mutated / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-6}))
    done = command("replay", path, mutated, "--backend", "eager", "--threads", 1, "--json")
    assert done.code == 2 and "other weights: " in done.out and "other graph: " in done.out
    done = command("replay", path, "demo", "--backend", "eager", "--threads", 1)
    assert done.code == 2 and "other tokenizer: " in done.out


def test_a_tokenizer_that_spells_one_token_otherwise_is_another(untrained: Path) -> None:
    located = ernie_rt.locate(untrained)
    source = located.weights()
    before, tokenizer = identify(located, source), located.tokenizer
    for changed in (
        replace(tokenizer, pieces=(*tokenizer.pieces[:-1], b"!")), replace(tokenizer, special=frozenset({1})),
    ):  # fmt: skip
        located.__dict__["tokenizer"] = changed
        assert before.differences(identify(located, source)) == ["tokenizer"]
    source.close()


@pytest.mark.long
def test_int4_is_judged_by_the_noise_of_each_side(tmp_path: Path) -> None:
    """onnx rounds activations to int8, eager widens the weights: two layouts of the same numbers, one model."""
    path = tmp_path / "r.json"
    story = ("demo", STORY[0]["content"], "--weights", "int4", "--temperature", 1.3, "--seed", 3, "-n", 20)
    assert command("run", *story, "--ignore-eos", "--receipt", path, "--backend", "onnx", "--threads", 1).code == 0
    done = command("replay", path, "--backend", "eager", "--threads", 1, "-q", "--json")
    told = json.loads(done.out)
    assert (done.code, told["verdict"], told["parting"]["place"]) == (0, "tie", 2)
    assert told["parting"]["noise"][0] > 1000 * told["parting"]["noise"][1]


def test_the_layout_of_quantised_weights_is_none_of_its_identity(untrained: Path, tmp_path: Path) -> None:
    found = []
    for layout in ("raw", "tiled"):
        out = tmp_path / layout
        assert command("quantize", untrained, out, "--weights", "int8", "--layout", layout).code == 0
        located = ernie_rt.locate(out)
        source = located.weights()
        found.append(identify(located, source))
        source.close()
    raw, tiled = found
    assert raw.weights != tiled.weights and raw.differences(tiled) == [] and raw.made_from is not None
    other = replace(tiled, made_from={**raw.made_from, "source": "another"})
    assert raw.differences(other) == ["weights"]
