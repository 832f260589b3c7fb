"""From a message with pictures to logits, every step beside transformers': its image processor, its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ernie_rt
from support import vision_language
from support.templates import VISION_LANGUAGE
from support.tokenizers import ROWS, write_ernie_tokenizer

PATCH = 100295
WITHIN = 2e-6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of transformers with ERNIE's vocabulary, and its folder with ERNIE's tokenizer."""
    from transformers import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeForConditionalGeneration

    torch.manual_seed(0)
    config = Ernie4_5_VLMoeConfig(
        text_config=vision_language.TEXT | {"vocab_size": ROWS},
        vision_config=vision_language.TOWER | {"patch_size": 14},
        image_token_id=PATCH,
        video_token_id=PATCH,
    )
    model = Ernie4_5_VLMoeForConditionalGeneration(config).eval()
    folder = tmp_path_factory.mktemp("messages")
    model.save_pretrained(folder)
    write_ernie_tokenizer(folder, VISION_LANGUAGE, visible=90000)
    model.set_experts_implementation("eager")
    return model.double(), folder


@pytest.mark.long
@torch.no_grad()
def test_a_message_with_pictures(made: tuple[Any, Path]) -> None:
    from transformers.models.ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe import Ernie4_5_VLMoeImageProcessorPil

    judge, folder = made
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, size, np.uint8)) for size in ((98, 120, 3), (200, 90, 3))]
    first, second = ({"type": "image", "image": picture} for picture in pictures)
    asked = [first, {"type": "text", "text": "What is it, and"}, second, {"type": "text", "text": "?"}]
    with ernie_rt.load(folder, backend="reference", dtype="float64", max_context=256) as model:
        prompt = model.prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}])
        ours = model.logits(prompt)
    ids = torch.tensor([prompt.ids])
    theirs = Ernie4_5_VLMoeImageProcessorPil()(pictures, return_tensors="pt")
    assert int((ids == PATCH).sum()) * 4 == len(theirs["pixel_values"])
    expected = judge(
        input_ids=ids,
        pixel_values=theirs["pixel_values"].double(),
        image_grid_thw=theirs["image_grid_thw"],
        mm_token_type_ids=(ids == PATCH).int(),
        moe_mm_token_type_ids=(ids >= PATCH).int(),
    ).logits[0].numpy()  # fmt: skip
    assert np.abs(ours - expected).max() < WITHIN * np.sqrt(np.mean(expected**2))
