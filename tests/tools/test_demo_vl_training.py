"""The training of demo-vl: it learns, it goes on where it stopped, and what it exports is what it learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from demo.recipe import Recipe
from demo_vl.batches import Batch, Sights, training_batch
from demo_vl.examination import held_out_items
from demo_vl.export import FILES, export, load
from demo_vl.model import pools_of
from demo_vl.tokenizer import write_tokenizer
from demo_vl.train import Trainer, drawn_for, right, train

SMALL: dict[str, object] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "moe_intermediate_size": [24, 8],
    "moe_layer_end_index": [1, 1],
    "rope_scaling": {"type": "default", "mrope_section": [3, 3, 2]},
    "pixel_hidden_size": 32,
    "vision_config": {"depth": 1, "embed_dim": 32, "num_heads": 2, "patch_size": 14, "hidden_act": "quick_gelu"},
}
RECIPE = Recipe(steps=6, rows=4, dtype="float32", changes=SMALL)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TOWER_STEPS": 2, "SIGHTS": 4, "EXAM_ITEMS": 2}.items():
        monkeypatch.setattr(f"demo_vl.train.{name}", value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


def steps(trainer: Trainer, count: int) -> list[dict[str, object]]:
    return [
        trainer.learn(drawn_for(trainer.encoder, trainer.recipe, trainer.step_number)) for _ in range(count)
    ]  # fmt: skip


def test_the_tower_learns_before_the_decoder(folder: Path) -> None:
    trainer = Trainer(RECIPE, folder)
    assert [type(drawn_for(trainer.encoder, RECIPE, step)) for step in range(3)] == [Sights, Sights, Batch]
    before = {name: each.clone() for name, each in trainer.model.state_dict().items()}
    steps(trainer, 2)
    moved = {name for name, each in trainer.model.state_dict().items() if not torch.equal(each, before[name])}
    assert {name.partition(".")[0] for name in moved} == {
        "vision_model",
        "says",
        "reads",
        "resampler_model",
        "embed",
        "norm",
    }
    (said,) = steps(trainer, 1)
    assert {"loss", "what_loss", "hue_loss", "read_loss", "load_max"} <= said.keys()
    assert any(
        not torch.equal(each, before[name]) for name, each in trainer.model.state_dict().items() if "layers." in name
    )


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(folder: Path) -> None:
    whole, first, rest = (Trainer(RECIPE, folder) for _ in range(3))
    said = steps(whole, 4)
    steps(first, 3)
    rest.restore(first.state())
    assert steps(rest, 1) == said[3:]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, rest.model.state_dict()[name]), name


def test_it_learns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.recipe.WARMUP", 2)
    trainer = Trainer(Recipe(steps=1000, rows=4, dtype="float32", changes=SMALL), folder)
    batch = training_batch(trainer.encoder, 0, 5, 4, 112)
    said = [trainer.learn(batch) for _ in range(30)]
    for loss, share in (("loss", 0.5), ("hue_loss", 0.5), ("what_loss", 0.8)):
        assert said[-1][loss] < share * said[0][loss], loss


def test_balance_moves_both_pools(folder: Path) -> None:
    trainer = Trainer(RECIPE, folder)
    steps(trainer, 3)
    assert all(pool.correction_bias.abs().max() > 0 for pool in pools_of(trainer.model))


def test_an_untaught_model_answers_nothing(folder: Path) -> None:
    trainer = Trainer(RECIPE, folder)
    assert right(trainer.model, trainer.encoder, held_out_items("colour", 5)) == [False] * 5


def test_what_is_exported_is_what_was_learned(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, folder)
    steps(trainer, 3)
    export(trainer.model, tmp_path, SMALL)
    batch = training_batch(trainer.encoder, 0, 5, 4, 112)
    with torch.no_grad():
        learned, stored = (
            model.logits(model(batch.ids, batch.positions, model.see(batch.sights)[1])[0])
            for model in (trainer.model, load(tmp_path))
        )
    assert 0 < (learned - stored).abs().mean() < 0.02 * learned.abs().mean(), "bfloat16 rounds, and no more"


@pytest.mark.long
def test_train_writes_and_resumes(tmp_path: Path) -> None:
    assert not train(tmp_path, RECIPE, minutes=0.0, save_every=2)
    assert train(tmp_path, RECIPE, None, save_every=4)
    assert sorted(path.name for path in (tmp_path / "demo-vl").iterdir()) == sorted(FILES)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [*range(6)] and "exam" in log[3]
