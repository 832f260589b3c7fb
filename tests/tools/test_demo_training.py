"""The demo's trainer: it goes on where it stopped, keeps experts busy, and exports what transformers agrees with."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ernie_rt
from demo.batches import COLUMNS, Encoder, pack, training_batch
from demo.curriculum import EXAMINED, held_out_items
from demo.export import FILES, MAX_BYTES, MAX_PARAMETERS, load
from demo.model import CONFIG, STRETCH, Ernie, Experts, demo_config, stored_tensors
from demo.optimizer import orthogonal
from demo.quality import (
    Answered,
    ask,
    balance,
    exact_match,
    foreseen,
    history,
    measure,
    perplexity,
    routers,
    wrongly_refused,
)
from demo.train import Recipe, Trainer, main, orthogonal_loss, train, z_loss
from demo.train import balance as move_bias
from ernie_rt.errors import FileFormatError, OptionError
from support.demo import SMALL, write_untaught_demo

RECIPE = Recipe(steps=6, rows=2, changes=SMALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_files: Path) -> Path:
    torch.set_num_threads(1)
    return write_untaught_demo(tmp_path_factory.mktemp("demo") / "model", tokenizer_files)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(folder, demo_config(**SMALL))


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """Several trainings here are of the same batches, and to draw one takes longer than to learn from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("demo.train.training_batch", cache(training_batch))
        yield


def numbers(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def test_it_goes_on_where_it_stopped(encoder: Encoder) -> None:
    whole = Trainer(RECIPE, encoder)
    said = [whole.step() for _ in range(RECIPE.steps)]
    assert [entry["step"] for entry in said] == list(range(RECIPE.steps))
    assert ["mtp_loss" in entry for entry in said] == [False] * 4 + [True] * 2
    half = Trainer(RECIPE, encoder)
    for _ in range(3):
        half.step()
    file = io.BytesIO()
    torch.save(half.state(), file)
    file.seek(0)
    rest = Trainer(RECIPE, encoder)
    rest.restore(torch.load(file, weights_only=True))
    assert [rest.step() for _ in range(3)] == said[3:]
    for name, tensor in numbers(whole).items():
        assert torch.equal(tensor, numbers(rest)[name]), name
    other = Trainer(dataclasses.replace(RECIPE, seed=1), encoder)
    assert other.step()["loss"] != said[0]["loss"]


def copies(tokenizer: Path) -> Callable[[Path], None]:
    """What writes a tokenizer, without training it."""
    return partial(shutil.copytree, tokenizer, dirs_exist_ok=True)


def test_train_writes_and_resumes(tmp_path: Path, tokenizer_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.train.EXAM_ITEMS", 4)
    recipe = dataclasses.replace(RECIPE, steps=4)
    (tmp_path / "a" / "demo").mkdir(parents=True)
    (tmp_path / "a" / "demo" / "tokenizer.model").write_bytes(b"of a training that was stopped at once")
    assert not train(tmp_path / "a", recipe, "cpu", minutes=0.0, save_every=2)
    assert (tmp_path / "a" / "training.pt").exists()
    assert train(tmp_path / "a", recipe, "cpu", None, save_every=2)
    monkeypatch.setattr("demo.train.write_tokenizer", copies(tokenizer_files))  # the same bytes
    assert train(tmp_path / "b", recipe, "cpu", None, save_every=3)
    assert sorted(path.name for path in (tmp_path / "a" / "demo").iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / "a" / "demo" / name).read_bytes() == (tmp_path / "b" / "demo" / name).read_bytes()
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [0, 1, 2, 3] and set(log[1]["exam"]) == set(EXAMINED)
    plot = (tmp_path / "a" / "plot.svg").read_text()
    assert plot.startswith("<svg") and plot.count("<polyline") == 6 and "nan" not in plot


@pytest.fixture
def begun(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("demo.train.EXAM_ITEMS", 4)
    monkeypatch.setattr("demo.train.write_tokenizer", copies(folder))
    train(tmp_path, RECIPE, "cpu", minutes=0.0, save_every=2)
    return tmp_path


def test_a_training_goes_on_by_its_own_recipe_alone(begun: Path) -> None:
    saved = (begun / "training.pt").read_bytes()
    other = dataclasses.replace(RECIPE, seed=7, steps=9)
    with pytest.raises(
        OptionError, match=r"training.pt: a training by another recipe; expected .*'seed': 7.*found"
    ) as e:
        train(begun, other, "cpu", None, save_every=2)
    assert "another folder" in str(e.value) and (begun / "training.pt").read_bytes() == saved
    dtype = dataclasses.replace(RECIPE, dtype="float32")
    with pytest.raises(OptionError, match="by another recipe"):
        train(begun, dtype, "cpu", None, save_every=2)
    (begun / "training.pt").write_bytes(saved[:1000])
    with pytest.raises(FileFormatError, match=r"training.pt: no saved training; .*delete this file"):
        train(begun, RECIPE, "cpu", None, save_every=2)


def test_a_log_holds_the_steps_of_the_saved_training(begun: Path) -> None:
    (begun / "log.jsonl").write_text('{"step": 0, "of": "a training that was stopped before it was saved"}\n')
    (begun / "training.pt").unlink()
    train(begun, dataclasses.replace(RECIPE, steps=1), "cpu", None, save_every=2)
    (line,) = (begun / "log.jsonl").read_text().splitlines()
    assert "of" not in json.loads(line)


def test_impossible_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for arguments, told in {
        ("a", "--steps", "0"): "error: --steps: a training has steps, and rows in its batches; expected >= 1; found 0",
        ("a", "--rows", "-1"): "error: --rows: ",
        ("a", "--save-every", "0"): "error: --save-every: ",
        ("a", "--device", "nowhere"): "error: --device: PyTorch has no such device here; found nowhere",
        ("file",): "file: no folder to write into; found ",
    }.items():
        monkeypatch.setattr("sys.argv", ["train_demo.py", str(tmp_path / arguments[0]), *arguments[1:]])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert told in str(stopped.value)
    assert not list(tmp_path.glob("a/*.pt"))


def test_a_training_may_get_other_steps_until_it_cools(tmp_path: Path, begun: Path) -> None:
    """Up to there it is the same; the rest of it is not."""
    longer = dataclasses.replace(RECIPE, steps=10)  # which cools from step 6 on
    trainer = Trainer(longer, Encoder(begun / "demo", demo_config(**SMALL)))
    for _ in range(3):
        trainer.step()
    torch.save(trainer.state(), begun / "training.pt")
    assert train(begun, RECIPE, "cpu", None, save_every=100), "of six steps, it cools from step 3.6 on"
    whole = Trainer(RECIPE, trainer.encoder)
    for _ in range(RECIPE.steps):
        whole.step()
    for name, tensor in torch.load(begun / "training.pt", weights_only=True)["model"].items():
        assert torch.equal(tensor, whole.model.state_dict()[name]), name
    with pytest.raises(OptionError, match="by another recipe"):
        train(begun, longer, "cpu", None, save_every=100)


def test_an_untaught_model_answers_nothing(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.train.EXAM_ITEMS", 4)
    monkeypatch.setattr("demo.train.EXAMINED", ("count",))
    assert Trainer(RECIPE, encoder).examine() == {"exam": {"count": 0}, "exam_new_ways": {"count": 0}}


def test_it_learns(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.recipe.WARMUP", 4)
    trainer = Trainer(Recipe(steps=40, rows=4, changes=SMALL), encoder)
    losses = [trainer.step()["loss"] for _ in range(16)]
    assert losses[0] == pytest.approx(math.log(4032), rel=0.05)
    assert losses[-1] < losses[0] - 1


def test_dtypes_learn_alike(encoder: Encoder) -> None:
    losses = {}
    for dtype in ("bfloat16", "float32"):
        trainer = Trainer(Recipe(steps=9, rows=4, changes=SMALL, dtype=dtype), encoder)
        losses[dtype] = [trainer.step()["loss"] for _ in range(9)]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_rates() -> None:
    recipe = Recipe(steps=1000)
    rates = [recipe.rate(step) for step in range(1000)]
    assert (
        rates[0] == 0.02
        and rates[300] == 1 / math.sqrt(2.5)
        and rates[-1] == pytest.approx(1 / math.sqrt(1 + 999 / 200) / 400)
    )
    assert all(a > b for a, b in itertools.pairwise(rates[50:]))
    assert rates[599] == 1 / math.sqrt(1 + 599 / 200) and rates[800] == pytest.approx(0.5 / math.sqrt(5))


def test_balance_moves_the_load() -> None:
    moe = demo_config().moe
    assert moe is not None
    experts = Experts(32, moe)
    generator = torch.Generator().manual_seed(0)
    for parameter in experts.parameters():
        parameter.data.normal_(0, 0.1, generator=generator)
    experts.gate.weight.data[:4] += 0.2
    x = torch.randn(8, 64, 32, generator=generator) + 0.5

    def spread() -> float:
        load = experts(x)[1].load.float()
        assert load.sum() == 8 * 64 * moe.moe_k
        return float(load.max() / load.mean())

    before = spread()
    weights = {name: parameter.clone() for name, parameter in experts.named_parameters()}
    for _ in range(200):
        move_bias(experts, experts(x)[1].load, 2e-3)
    assert before > 3 and spread() < 1.6
    assert abs(experts.correction_bias.mean()) < 1e-6
    assert all(torch.equal(weights[name], parameter) for name, parameter in experts.named_parameters())


def test_losses_of_the_router() -> None:
    moe = demo_config().moe
    assert moe is not None
    experts = Experts(32, moe)
    experts.gate.weight.data = torch.eye(16, 32)
    assert orthogonal_loss([experts]).item() == 0
    experts.gate.weight.data[1] = experts.gate.weight.data[0]
    assert orthogonal_loss([experts]).item() == pytest.approx(2 / 16**2)
    for parameter in (experts.gate_up, experts.down):
        parameter.data.zero_()
    _, routing = experts(torch.zeros(1, 3, 32))
    assert z_loss([routing]).item() == pytest.approx(math.log(16) ** 2)


def test_orthogonal() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 10), (10, 6), (3, 8, 8)):
        matrix = torch.randn(shape, generator=generator)
        for dtype in (torch.float32, torch.bfloat16):
            found = orthogonal(matrix, dtype)
            assert found.dtype == torch.float32
            values = torch.linalg.svdvals(found)
            assert values.min() > 0.3 and values.max() < 1.3


def test_packed_documents_do_not_see_each_other(encoder: Encoder) -> None:
    model = Ernie(demo_config(**SMALL))
    documents = [encoder.chat(item) for item in held_out_items("json", 4)]
    batch = pack(documents, 1, 300)
    packed, _ = model(batch.ids, batch.documents)
    further = model.further(packed, batch.ids, batch.documents)
    start = 0
    for document in documents:
        ids = torch.tensor([document.ids])
        alone, _ = model(ids, torch.zeros_like(ids))
        size = len(document.ids)
        torch.testing.assert_close(packed[:, start : start + size], alone, rtol=1e-4, atol=1e-4)
        drafts = model.further(alone, ids, torch.zeros_like(ids))
        torch.testing.assert_close(further[:, start : start + size - 1], drafts, rtol=1e-4, atol=1e-4)
        start += size


def test_size() -> None:
    model = Ernie(demo_config())
    stored = stored_tensors(model)
    assert sum(tensor.numel() for tensor in stored.values()) <= MAX_PARAMETERS
    assert sum(tensor.nbytes for tensor in stored.values()) < MAX_BYTES - 200_000
    assert CONFIG["moe_k"] == 4 and CONFIG["moe_num_experts"] == 16 and not model.config.is_moe_layer(0)
    assert stored["model.mtp_linear_proj.0.weight"].shape == (192, 384)
    assert stored["model.layers.1.mlp.moe_statics.e_score_correction_bias"].shape == (1, 16)


@torch.no_grad()
def test_everybody_agrees_on_the_export(folder: Path, encoder: Encoder) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    network = load(folder)
    biases = [experts.correction_bias for experts in network.modules() if isinstance(experts, Experts)]
    assert len(biases) == 2
    ids = [id for item in held_out_items("passage", 4) for id in encoder.chat(item).ids][:150]
    tensor = torch.tensor([ids])
    hidden, _ = network(tensor, torch.zeros_like(tensor))
    ours = network.logits(hidden)[0].numpy()
    judge: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    np.testing.assert_allclose(judge(tensor).logits[0].numpy(), ours, rtol=0, atol=2e-5 * float(np.abs(ours).max()))
    with ernie_rt.load(folder, backend="eager", dtype="float32", max_context=512) as model:
        np.testing.assert_allclose(model.logits(ids), ours, rtol=0, atol=2e-5 * float(np.abs(ours).max()))
        assert {name.split(".")[1] for name, _ in model.unused} == {
            "mtp_emb_norm",
            "mtp_hidden_norm",
            "mtp_linear_proj",
            "mtp_block",
        }
        assert {reason for _, reason in model.unused} == {"speculative head, not used by the main graph"}


def test_quality(folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.quality.MAX_ANSWER", 8)
    monkeypatch.setattr("demo.quality.BIGRAM_DOCUMENTS", 20)
    items = held_out_items("count", 4)
    right = [Answered(item, (1,), (2,), item.answer) for item in items]
    wrong = [dataclasses.replace(each, text=each.text + " ") for each in right]
    assert exact_match({"as phrased": right}) == {
        "items": 4, "all": 1, "en": 1, "zh": 1, "known phrasing": 1, "new phrasing": 1
    }  # fmt: skip
    found = exact_match({"as phrased": [*right[:3], wrong[3]], "new ways": [*wrong[:3], right[3]]})
    assert found["all"] == 0.75 and found["new ways"] == 0.25
    refused = [dataclasses.replace(each, text="我不知道。") for each in right]
    tasks = {"count": [*refused[:1], *right[1:]], "unknown": refused}
    assert wrongly_refused({"as phrased": tasks}) == {"as phrased": 0.25}
    options = {"backend": "eager", "dtype": "float32", "max_context": 512}
    with ernie_rt.load(folder, **options, taps=routers(demo_config(**SMALL))) as model:
        answered = ask(model, encoder, items)
        document = encoder.chat(items[0])
        tensor = torch.tensor([document.ids])
        network = load(folder)
        with torch.no_grad():
            logits = network.logits(network(tensor, torch.zeros_like(tensor))[0])[0]
        taught = torch.tensor(document.learned[1:])
        expected = F.cross_entropy(logits[:-1][taught], tensor[0, 1:][taught]).exp().item()
        assert perplexity(model, [document]) == pytest.approx(expected, rel=1e-3)
        loads = balance(model, [document])
        assert list(loads) == ["layers.1.mlp.route", "layers.2.mlp.route"]
        assert all(len(load) == 16 and sum(load) == pytest.approx(16) for load in loads.values())
    found = foreseen(folder, encoder, answered)
    assert found["tokens"] == sum(len(each.ids) - 1 for each in answered)


class Drafting:
    """A network whose MTP layer says what it was given."""

    def __init__(self, drafts: list[int]) -> None:
        self.drafts = drafts

    def __call__(self, ids: torch.Tensor, documents: torch.Tensor) -> tuple[torch.Tensor, None]:
        assert ids.shape == documents.shape == (1, len(self.drafts))
        return torch.zeros(1), None

    def further(self, hidden: torch.Tensor, ids: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        return F.one_hot(torch.tensor([self.drafts]), 10)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def test_a_draft_is_of_the_token_after_the_next(
    folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.quality.load", lambda folder: Drafting([0, 8, 9, 4, 0, 0]))
    monkeypatch.setattr("demo.quality._successors", lambda encoder: {7: 8, 8: 1})
    (item,) = held_out_items("count", 1)
    found = foreseen(folder, encoder, [Answered(item, (5, 6), (7, 8, 9, 2), "")])  # to foresee: 8, 9, 2
    assert found == {"tokens": 3, "mtp": 2 / 3, "bigram": 1 / 3}


def test_measure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.quality.STORIES", 2)
    monkeypatch.setattr("demo.quality.MAX_ANSWER", 3)
    monkeypatch.setattr("demo.quality.BIGRAM_DOCUMENTS", 20)
    report = measure(folder, 2, 0, {"backend": "eager", "dtype": "float32"})
    assert set(report["exact_match"]) == set(EXAMINED)
    columns = ("known ways", "new ways", "turn 10", "turn 20")
    assert report["macro_average"] == dict.fromkeys(("all", *columns), 0)
    assert report["wrongly_refused"] == dict.fromkeys(("as phrased", *columns), 0)
    assert json.loads(json.dumps(report)) == report
    assert report["perplexity"]["answers"] > 100
    layers = report["expert_load"]["layers"].values()
    assert (
        report["expert_load"]["least"] == min(map(min, layers)) < max(map(max, layers)) == report["expert_load"]["most"]
    )


def test_a_later_turn(encoder: Encoder) -> None:
    (item,) = held_out_items("count", 1)
    assert not history(item, 1) and len(history(item, 10)) == 9 and history(item, 10) == history(item, 10)
    assert len(history(item, 20)) == 19 and history(item, 20)[:9] != history(item, 10)


def test_batches_are_full_and_repeatable(encoder: Encoder) -> None:
    batch = training_batch(encoder, 0, 5, 8)
    again = training_batch(encoder, 0, 5, 8)
    assert torch.equal(batch.ids, again.ids) and torch.equal(batch.learned, again.learned)
    assert not torch.equal(batch.ids, training_batch(encoder, 0, 6, 8).ids)
    assert batch.ids.shape == (8, COLUMNS)
    assert (batch.documents >= 0).float().mean() > 0.9
    assert 0.15 < batch.learned.float().mean() < 0.5


def test_experts_work_on_what_they_are_sent_alone() -> None:
    """Rows that only make up the number change nothing."""
    moe = demo_config().moe
    assert moe is not None
    experts = Experts(32, moe)
    generator = torch.Generator().manual_seed(0)
    for parameter in experts.parameters():
        parameter.data.normal_(0, 0.1, generator=generator)
    x = torch.randn(1, STRETCH // 4 + 3, 32, generator=generator, requires_grad=True)
    out, routing = experts(x)
    assert routing.load.sum() == x.shape[1] * moe.moe_k
    expected = experts.shared_experts(x[0])
    probabilities = experts.gate(x[0]).softmax(-1)
    for row, chosen in enumerate(probabilities.topk(moe.moe_k).indices):
        weights = probabilities[row, chosen] / probabilities[row, chosen].sum()
        for expert, weight in zip(chosen, weights, strict=True):
            gate, up = (experts.gate_up[expert] @ x[0, row]).chunk(2)
            expected[row] = expected[row] + weight * (experts.down[expert] @ (F.silu(gate) * up))
    torch.testing.assert_close(out[0], expected, rtol=1e-4, atol=1e-5)
    (ours,), (theirs,) = (torch.autograd.grad(each.square().sum(), x, retain_graph=True) for each in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
