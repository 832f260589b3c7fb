"""Vision-language checkpoints in the four layouts that there are: their text alone against transformers, and pictures
in one against the same in the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ernie_rt
from ernie_rt.errors import PromptError
from ernie_rt.export import export, verify
from ernie_rt.location import TEXT_ALONE, locate
from ernie_rt.weights.quantize import Quantization, quantize_model
from support.judge import float64_throughout, noise, worst
from support.vision_judge import answer, prompts
from support.vision_language import IMAGE, make_model, write_paddle_twin, write_published_twin

WITHIN = 1e-12
PROMPT = np.random.default_rng(5).integers(3, IMAGE, 60).tolist()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def layouts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Path]]:
    """A model of transformers, and the folders that are the same model."""
    folder = tmp_path_factory.mktemp("vision-language")
    model = make_model(tied=request.param)
    model.save_pretrained(folder / "saved")
    model.save_pretrained(folder / "packed", save_original_format=False)
    write_published_twin(folder / "saved", folder / "published")
    write_paddle_twin(folder / "saved", folder / "paddle")
    return model.double(), {name: folder / name for name in ("saved", "packed", "published", "paddle")}


@torch.no_grad()
def test_text_alone(layouts: tuple[Any, dict[str, Path]]) -> None:
    judge, folders = layouts
    judge.set_experts_implementation("eager")
    with float64_throughout(judge):
        expected = judge(torch.tensor([PROMPT])).logits[0].numpy()
    found = {}
    for name, folder in folders.items():
        with ernie_rt.load(folder, backend="reference", dtype="float64", text_only=True) as model:
            found[name] = model.logits(PROMPT)
            assert TEXT_ALONE in model.notes
    assert worst(found["saved"], expected) < WITHIN
    for name, logits in found.items():
        np.testing.assert_array_equal(logits, found["saved"], name)


def test_what_stands_for_pictures_is_neither_read_nor_written(layouts: tuple[Any, dict[str, Path]]) -> None:
    _, folders = layouts
    for name, folder in folders.items():
        with ernie_rt.load(folder, backend="eager", text_only=True) as model:
            reasons = {reason for _, reason in model.unused}
            assert "used for pictures and videos, and the text alone is loaded" in reasons, name
            with pytest.raises(PromptError, match="a token of pictures"):
                model.logits([*PROMPT, IMAGE])
            answers = model.generate_batch([PROMPT] * 4, max_new_tokens=40, temperature=3.0, seed=1, ignore_eos=True)
            assert max(map(max, answers)) < IMAGE


def test_pictures_in_every_layout(layouts: tuple[Any, dict[str, Path]]) -> None:
    _, folders = layouts
    found = {}
    for name, folder in folders.items():
        with ernie_rt.load(folder, backend="reference", dtype="float64", max_context=128) as model:
            assert TEXT_ALONE not in model.notes
            found[name], _ = answer(model, prompts()["images"], 2)
    for name, logits in found.items():
        np.testing.assert_array_equal(logits, found["saved"], name)


def test_a_quantised_folder_has_its_tower_as_it_was(tmp_path: Path) -> None:
    make_model(tied=True, text={"moe_intermediate_size": [64, 32]}).save_pretrained(tmp_path / "saved")
    folder, out, located = tmp_path / "saved", tmp_path / "int8", locate(tmp_path / "saved")
    storages = quantize_model(folder, located.config, out, Quantization(8)).storages
    assert {str(storage) for name, storage in storages.items() if name.startswith("vision.")} == {"f32"}
    assert str(storages["layers.1.mlp.vision.experts.gate_up"]) == "int8/32"
    assert str(storages["layers.1.mlp.vision.gate"]) == "f32"
    exact, codes, on_eager = (
        answer_of(path, backend=backend, dtype=dtype)
        for path, backend, dtype in (
            (folder, "reference", "float64"), (out, "reference", "float64"), (out, "eager", "float32"),
        )
    )  # fmt: skip
    assert 1e-4 < noise(codes, exact) < 0.1 and worst(on_eager, codes) < 2e-5

    quantize_model(folder, located.text_alone.config, tmp_path / "text", Quantization(8))
    with ernie_rt.load(tmp_path / "text", backend="reference", dtype="float64") as model:
        assert model.config.sees is None and TEXT_ALONE in model.notes and not model.unused
        without = model.logits(PROMPT)
        with pytest.raises(PromptError, match="expected ids alone; found positions"):
            answer(model, prompts()["image"], 0)
    for text_only in (False, True):
        with ernie_rt.load(out, backend="reference", dtype="float64", text_only=text_only) as model:
            np.testing.assert_array_equal(model.logits(PROMPT), without)
            assert bool(model.unused) == (TEXT_ALONE in model.notes) == text_only


def test_what_is_exported_is_the_text_alone(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    make_model(tied=True).save_pretrained(tmp_path / "saved")
    exported = export(tmp_path / "saved", tmp_path / "out", "onnx")
    assert TEXT_ALONE in exported.notes
    verify(tmp_path / "out")
    with (
        ernie_rt.load(tmp_path / "out", backend="onnx") as model,
        ernie_rt.load(tmp_path / "saved", backend="reference", dtype="float64", text_only=True) as reference,
    ):
        assert TEXT_ALONE in model.notes
        assert worst(model.logits(PROMPT), reference.logits(PROMPT)) < 2e-5


def answer_of(folder: Path, **how: Any) -> Any:
    with ernie_rt.load(folder, max_context=128, **how) as model:
        return answer(model, prompts()["image"], 0)[0]
