"""The model that comes along and sees: small enough, laid out like VL-28B-A3B, the same to transformers, and right."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ernie_rt
from demo_vl.batches import MAX_PIXELS, MIN_PIXELS, Encoder, training_batch
from demo_vl.curriculum import draw_any
from demo_vl.export import CARD, FILES, MAX_BYTES, load, stored_tensors
from demo_vl.model import ErnieVL
from demo_vl.tokenizer import TEMPLATE
from ernie_rt.conformance.goldens import weights_digest
from ernie_rt.modeling.families import VL_28B_A3B
from ernie_rt.modeling.vision_language import read_preprocessor
from ernie_rt.weights.hub import DEMO_VL
from marked import marks

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "tests" / "data" / "pictures"
ANSWERS: dict[str, dict[str, str]] = json.loads((PICTURES / "answers.json").read_text("utf-8"))
QUALITY = runpy.run_path(str(ROOT / "benchmarks" / "demo_vl_quality.py"))


def test_the_folder_is_small_and_whole() -> None:
    sizes = {path.name: path.stat().st_size for path in DEMO_VL.iterdir()}
    assert sorted(sizes) == sorted(FILES)
    assert sum(sizes.values()) <= MAX_BYTES == 8_000_000
    assert (DEMO_VL / "README.md").read_bytes() == CARD.read_bytes()
    settings = json.loads((DEMO_VL / "tokenizer_config.json").read_text("utf-8"))
    assert settings["chat_template"] == TEMPLATE.read_text("utf-8")
    limits = read_preprocessor(DEMO_VL)
    assert (limits.min_pixels, limits.max_pixels) == (MIN_PIXELS, MAX_PIXELS)


def test_the_config_is_that_of_vl_28b_made_small() -> None:
    config = ernie_rt.locate("demo-vl").config
    assert config.moe is not None and config.vision is not None
    assert VL_28B_A3B.moe is not None and VL_28B_A3B.vision is not None
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "head_dim", "max_position_embeddings", "rope_theta")  # fmt: skip
    moe_sizes = ("moe_num_experts", "moe_k", "moe_intermediate_size", "moe_layer_end_index")
    moe = dataclasses.replace(VL_28B_A3B.moe, **{name: getattr(config.moe, name) for name in moe_sizes})
    tower_sizes = ("depth", "hidden_size", "intermediate_size", "num_heads")
    tower = dataclasses.replace(
        VL_28B_A3B.vision.tower, **{name: getattr(config.vision.tower, name) for name in tower_sizes}
    )
    tokens = [name for name in dir(config.vision) if "token" in name]
    vision_sizes = ("moe_intermediate_size", "moe_capacity", "mrope_section", *tokens)
    vision = dataclasses.replace(
        VL_28B_A3B.vision, tower=tower, **{name: getattr(config.vision, name) for name in vision_sizes}
    )
    small = {name: getattr(config, name) for name in sizes}
    assert config == dataclasses.replace(VL_28B_A3B, **small, moe=moe, vision=vision)
    assert config.moe.moe_intermediate_size == 3 * config.vision.moe_intermediate_size


def test_the_tensors_are_read_back_as_they_were_written() -> None:
    stored = load_file(DEMO_VL / "model.safetensors")
    written = stored_tensors(load(DEMO_VL))
    assert stored.keys() == written.keys()
    for name, tensor in stored.items():
        assert tensor.dtype == written[name].dtype and torch.equal(tensor, written[name]), name
    routers = [name for name, tensor in stored.items() if tensor.dtype == torch.float32]
    assert len(routers) == 3 * 4 and all("mlp.gate" in name or "correction_bias" in name for name in routers)
    biases = [tensor for name, tensor in stored.items() if name.endswith("correction_bias")]
    assert all((bias.amax(1) > bias.amin(1)).all() for bias in biases), "a bias that is all alike selects nothing"


def transformers_twin(folder: Path) -> Any:
    """The model as transformers has it, which reads its own spelling of the config."""
    from transformers import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeForConditionalGeneration

    flat = json.loads((DEMO_VL / "config.json").read_text())
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "moe_intermediate_size", "moe_k",
            "moe_num_shared_experts")  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": flat["rope_theta"], "mrope_section": [5, 5, 6]}
    text = {name: flat[name] for name in same} | {"moe_num_experts": 8, "rope_parameters": rope}
    tower = {"depth": 4, "hidden_size": 96, "num_heads": 4, "intermediate_size": 384, "patch_size": 14}
    markers = {name: flat[name] for name in flat if re.fullmatch("(image|video)_(start|end)_token_id", name)}
    config = Ernie4_5_VLMoeConfig(
        text_config=text, vision_config=tower, image_token_id=flat["im_patch_id"], video_token_id=1010,
        tie_word_embeddings=True, **markers,
    )  # fmt: skip
    config.save_pretrained(folder)
    stored = load_file(DEMO_VL / "model.safetensors")
    named = {re.sub("^vision_model", "model.vision_model", name): tensor.float() for name, tensor in stored.items()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    model, told = Ernie4_5_VLMoeForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(told.values()), told
    return model.eval()


def test_transformers_agrees_on_the_logits(tmp_path: Path) -> None:
    model, theirs = load(DEMO_VL), transformers_twin(tmp_path)
    config = model.config
    assert config.vision is not None
    batch = training_batch(Encoder(DEMO_VL, config), 1, 0, 4, 112)
    with torch.no_grad():
        ours = model.logits(model(batch.ids, batch.positions, model.see(batch.sights)[1])[0])
    rows, columns = batch.sights.grid
    shown = iter(batch.sights.patches)
    for row, ids in enumerate(batch.ids):
        length = int((ids != 0).sum())
        starts = int((ids == config.vision.image_start_token_id).sum())
        patches = torch.cat([next(shown) for _ in range(starts)])
        with torch.no_grad():
            expected = theirs(
                input_ids=ids[None, :length],
                pixel_values=patches,
                image_grid_thw=torch.tensor([[1, 2 * rows, 2 * columns]] * starts),
                position_ids=batch.positions[row, :length].T[:, None],
                moe_mm_token_type_ids=(ids[None, :length] >= config.vision.image_token_id).int(),
            ).logits[0]
        scale = expected.square().mean().sqrt()
        assert (ours[row, :length] - expected).abs().max() / scale < 1e-4


@pytest.fixture(scope="module")
def model() -> Iterator[ernie_rt.Model]:
    with ernie_rt.load("demo-vl", backend="eager", device="cpu", dtype="float32", threads=1, max_context=512) as model:
        yield model


def message(picture: str, question: str) -> list[dict[str, Any]]:
    image = {"type": "image", "image": PICTURES / picture}
    return [{"role": "user", "content": [image, {"type": "text", "text": question}]}]


@pytest.mark.parametrize("picture", ANSWERS)
def test_it_answers_about_pictures_that_training_never_saw(picture: str, model: ernie_rt.Model) -> None:
    for question, answer in ANSWERS[picture].items():
        assert model.chat(message(picture, question), temperature=0.0, max_new_tokens=32).text == answer, question


def test_a_runtime_writes_talks_as_training_does(model: ernie_rt.Model) -> None:
    located = ernie_rt.locate("demo-vl")
    encoder = Encoder(DEMO_VL, located.config)
    rng = random.Random(7)
    for _ in range(20):
        talk = draw_any(rng, 1.0)
        parts: list[dict[str, Any]] = [{"type": "image", "image": PICTURES / "circle.png"}] * len(talk.pictures)
        text = {"type": "text", "text": talk.turns[0].prompt}
        content = [*parts, text] if talk.pictures_first else [text, *parts]
        ids = model.prompt([{"role": "user", "content": content}]).ids
        assert list(ids) == encoder.opening(talk, 16)


def test_the_table_of_what_it_knows_is_of_these_weights() -> None:
    shown = marks("demo_vl_quality.py").search((ROOT / "docs/demo.md").read_text("utf-8"))
    assert shown is not None
    assert shown[1] == weights_digest(DEMO_VL), "run `python benchmarks/demo_vl_quality.py --page docs/demo.md`"


def test_the_yardstick_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("demo_vl.examination.EXAMINED", ("colour", "number"))
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- by benchmarks/demo_vl_quality.py, of 0 -->\nold\n<!-- end -->\n")
    options = ("--backend", "eager", "--dtype", "float32", "--items", "4", "--page", str(page))
    monkeypatch.setattr("sys.argv", ["demo_vl_quality.py", *options])
    QUALITY["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "eager on cpu in float32" and [line.split()[0] for line in lines[2:]] == [
        "colour",
        "number",
        "macro",
    ]
    assert page.read_text().startswith(f"a\n<!-- by benchmarks/demo_vl_quality.py, of {weights_digest(DEMO_VL)} -->\n")
    monkeypatch.setattr("sys.argv", ["demo_vl_quality.py", "--items", "0"])
    with pytest.raises(SystemExit, match="error: --items: "):
        QUALITY["main"]()


def test_an_untaught_model_has_all_that_is_stored() -> None:
    config = ernie_rt.locate("demo-vl").config
    named = ErnieVL(config).named_parameters()
    parameters = sum(each.numel() for name, each in named if not name.startswith(("says.", "reads.")))
    biases = 4 * 2 * 8
    assert sum(tensor.numel() for tensor in stored_tensors(ErnieVL(config)).values()) == parameters + biases
