"""Items: the rows of a tower in their order, pieces that give the whole, and digests that tell them apart."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ernie_rt.errors import MediaError
from ernie_rt.vision.item import Item
from ernie_rt.vision.patches import MEAN, STD, vision_inputs
from support.media import noise


def test_a_patch_is_its_pixels_where_its_place_says() -> None:
    frames = np.stack([noise(56, 84, seed=n) for n in range(2)])
    inputs = vision_inputs(frames)
    normal = (frames / 255 - np.array(MEAN)) / np.array(STD)
    assert inputs["patches"].dtype == np.float32 and inputs["patches"].shape == (2 * 4 * 6, 588)
    for row, patch in enumerate(inputs["patches"]):
        (y, x), frame = inputs["places"][row] * 14, inputs["frame"][row]
        expected = normal[frame, y : y + 14, x : x + 14].transpose(2, 0, 1).ravel()
        np.testing.assert_allclose(patch, expected, atol=1e-6)


def test_rows_come_block_by_block() -> None:
    inputs = vision_inputs(noise(56, 84)[None])
    assert inputs["places"].tolist() == [
        [y + dy, x + dx] for y in (0, 2) for x in (0, 2, 4) for dy in (0, 1) for dx in (0, 1)
    ]
    assert inputs["blocks"].tolist() == [[4 * n + k for k in range(4)] for n in range(6)]
    assert inputs["pairs"].tolist() == [[n, n] for n in range(6)]
    assert inputs["frame"].tolist() == [0] * 24


def test_features_of_a_video_pair_one_place_in_two_frames() -> None:
    inputs = vision_inputs(np.zeros((4, 28, 56, 3), np.uint8))
    assert inputs["pairs"].tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert inputs["frame"].tolist() == [n for n in range(4) for _ in range(8)]
    assert {name: str(array.dtype) for name, array in inputs.items()} == {
        "patches": "float32", "places": "int32", "frame": "int32", "blocks": "int32", "pairs": "int32",
    }  # fmt: skip


@pytest.mark.parametrize(("most", "pieces"), [(16, [2, 2, 2]), (31, [2, 2, 2]), (47, [4, 2]), (48, [6]), (10**6, [6])])
def test_pieces_are_whole_pairs_and_give_the_whole(most: int, pieces: list[int]) -> None:
    item = Item.of("video", np.stack([noise(28, 56, seed=n) for n in range(6)]))
    cut = list(item.pieces(most))
    assert [len(piece["patches"]) // 8 for piece in cut] == pieces
    whole = vision_inputs(item.frames)
    np.testing.assert_array_equal(np.concatenate([piece["patches"] for piece in cut]), whole["patches"])
    assert sum(len(piece["pairs"]) for piece in cut) == item.tokens == 6
    for piece in cut:
        for name, array in vision_inputs(item.frames[: len(piece["patches"]) // 8]).items():
            assert name == "patches" or np.array_equal(array, piece[name])


def test_what_attends_to_itself_is_not_cut() -> None:
    for item, patches in (
        (Item.of("image", noise(56, 84)[None]), 24),
        (Item.of("video", noise(56, 84)[None].repeat(4, 0)), 48),
    ):
        assert [len(piece["patches"]) for piece in item.pieces(patches)] == [patches] * (len(item.frames) // 2 or 1)
        with pytest.raises(MediaError, match=f"more patches .* at most {patches - 1} of a picture.*; found {patches}"):
            item.pieces(patches - 1)


def test_sizes_in_patches_and_tokens() -> None:
    picture = Item.of("image", noise(56, 84)[None])
    assert (picture.grid, picture.merged, picture.tokens) == ((1, 4, 6), (1, 2, 3), 6)
    video = Item.of("video", np.zeros((4, 56, 84, 3), np.uint8))
    assert (video.grid, video.merged, video.tokens) == ((4, 4, 6), (2, 2, 3), 12)


def test_a_digest_is_of_kind_shape_and_pixels() -> None:
    pixels = noise(56, 112)
    others = [pixels.reshape(112, 56, 3), pixels + np.uint8(1)]
    digests = {Item.of("image", each[None]).digest for each in [pixels, *others]}
    digests |= {
        Item.of("video", np.stack([pixels, pixels])).digest,
        Item.of("image", np.zeros((1, 28, 28, 3), np.uint8)).digest,
    }
    assert len(digests) == 5 and all(len(digest) == hashlib.sha256().digest_size for digest in digests)
    assert Item.of("image", pixels[None].copy(), "a note").digest == Item.of("image", pixels[None]).digest
    assert Item.of("image", np.asfortranarray(pixels[None])).digest == Item.of("image", pixels[None]).digest
