"""Pictures as transformers' own processor prepares them with Pillow, bit by bit; and where Baidu's rule is another."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.image_utils import load_image as load_as_transformers
from transformers.models.ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe import (
    Ernie4_5_VLMoeImageProcessorPil,
    smart_resize,
)

from ernie_rt.vision.grid import MAX_PIXELS, MIN_PIXELS, size_of
from ernie_rt.vision.image import load_image
from ernie_rt.vision.patches import vision_inputs
from support.media import noise, picture

SIZES = [(1, 1), (27, 29), (42, 70), (98, 70), (33, 711), (640, 480), (1023, 767), (1920, 1080)]


@pytest.mark.parametrize(("width", "height"), [*SIZES, pytest.param(4000, 3000, marks=pytest.mark.long)])
def test_pixel_values_are_equal(width: int, height: int) -> None:
    pixels = noise(height, width)
    theirs = Ernie4_5_VLMoeImageProcessorPil()(images=[Image.fromarray(pixels)], return_tensors="np")
    item = load_image(pixels)
    assert item.grid == tuple(theirs["image_grid_thw"][0])
    np.testing.assert_array_equal(vision_inputs(item.frames)["patches"], theirs["pixel_values"])


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_files_are_opened_alike(mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = picture(Image.fromarray(noise(60, 90)).convert(mode), "PNG", exif=exif)
    opened = load_as_transformers(Image.open(io.BytesIO(data)))
    theirs = Ernie4_5_VLMoeImageProcessorPil()(images=[opened], return_tensors="np")
    np.testing.assert_array_equal(vision_inputs(load_image(data).frames)["patches"], theirs["pixel_values"])


sides = st.integers(14, 9000)


@given(sides, sides)
def test_sizes_are_equal_but_for_slivers(width: int, height: int) -> None:
    if max(width, height) <= 200 * min(width, height):
        theirs = smart_resize(height, width, 28, MIN_PIXELS, MAX_PIXELS)
        assert size_of(width, height) == theirs[::-1] or min(theirs) == 28


def test_where_baidu_and_transformers_differ() -> None:
    """transformers takes 10 pixels for 0 tokens, and makes the picture larger for it."""
    assert smart_resize(1900, 10, 28, MIN_PIXELS, MAX_PIXELS) == (784, 28)
    assert size_of(10, 1900) == (28, 1904)
