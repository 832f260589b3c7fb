"""The text of vision-language checkpoints, in the four layouts that there are, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ernie_rt
from ernie_rt.errors import PromptError
from support.vision_language import IMAGE, make_model, write_paddle_twin, write_published_twin

WITHIN = 1e-6
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
def test_text(layouts: tuple[Any, dict[str, Path]]) -> None:
    judge, folders = layouts
    judge.set_experts_implementation("eager")
    expected = judge(torch.tensor([PROMPT])).logits[0].numpy()
    rms = np.sqrt(np.mean(expected**2))
    found = {}
    for name, folder in folders.items():
        with ernie_rt.load(folder, backend="reference", dtype="float64", text_only=True) as model:
            found[name] = model.logits(PROMPT)
            assert any("the text alone is run" in note for note in model.notes)
    assert np.abs(found["saved"] - expected).max() / rms < WITHIN
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
