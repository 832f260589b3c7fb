from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ernie_rt.errors import (
    CheckpointError,
    FileFormatError,
    InputError,
    JsonError,
    ModelNotFoundError,
    UnsafeCheckpointError,
    UnsafePathError,
)
from ernie_rt.weights.checkpoint import Checkpoint

A, B, C = (np.full((2, i), i, np.float32) for i in (1, 2, 3))
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"a": A, "b": B}, tmp_path / ONE)
    save_file({"c": C}, tmp_path / TWO)
    index(tmp_path, {"a": ONE, "b": ONE, "c": TWO}, {"total_size": 48})
    return tmp_path


def index(folder: Path, weight_map: Any, metadata: Any = None) -> None:
    text = json.dumps({"metadata": metadata, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


def test_shards_are_one_collection(folder: Path) -> None:
    with Checkpoint.open(folder) as checkpoint:
        assert set(checkpoint.tensors) == {"a", "b", "c"}
        for name, expected in {"a": A, "b": B, "c": C}.items():
            np.testing.assert_array_equal(checkpoint.array(name), expected)
            checkpoint.release(name)


@pytest.mark.parametrize("metadata", [None, {}, [], {"format": "pt"}, {"total_size": 48.0}, {"total_size": "48 B"}])
def test_metadata_may_lack_the_size(folder: Path, metadata: Any) -> None:
    index(folder, {"a": ONE, "b": ONE, "c": TWO}, metadata)
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.notes == ()


def test_a_single_file_wins_over_an_index(folder: Path) -> None:
    save_file({"x": A}, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        assert set(checkpoint.tensors) == {"x"}


def test_what_is_stored_counts_and_the_notes_say_where_the_index_is_wrong(folder: Path) -> None:
    save_file({"c": C, "b": B, "a": A + 1, "stray": A}, folder / TWO)
    save_file({"a": A, "d": A}, folder / ONE)
    index(
        folder, {"a": ONE, "b": ONE, "c": TWO, "d": ONE, "gone": ONE, "far": "model-3.safetensors"}, {"total_size": 4}
    )
    with Checkpoint.open(folder) as checkpoint:
        assert set(checkpoint.tensors) == {"a", "b", "c", "d", "stray"}
        np.testing.assert_array_equal(checkpoint.array("a"), A)
        np.testing.assert_array_equal(checkpoint.array("b"), B)
        assert checkpoint.notes == (
            "model.safetensors.index.json has tensors that no shard has, 2: 'far', 'gone'",
            "model.safetensors.index.json lacks tensors that a shard has, 1: 'stray'",
            "model.safetensors.index.json has tensors in another shard than they are, 1: 'b'",
            "model.safetensors.index.json chooses among tensors that several shards have, 1: 'a'",
            "model.safetensors.index.json says a total_size of 4, the tensors have 64 bytes",
        )
        checkpoint.check_shards(["a", "b", "gone"])
        with pytest.raises(CheckpointError, match=r"shards are missing, 1: 'model-3.safetensors'. The download is inc"):
            checkpoint.check_shards(["a", "far"])


@pytest.mark.parametrize("weight_map", [{"c": TWO}, {"a": TWO, "b": TWO, "c": TWO}, {}])
def test_a_shard_that_the_index_has_forgotten(folder: Path, weight_map: dict[str, str]) -> None:
    index(folder, weight_map)
    with Checkpoint.open(folder) as checkpoint:
        assert set(checkpoint.tensors) == {"a", "b", "c"} and len(checkpoint.notes) == 1


def test_shards_that_an_earlier_save_has_left_are_not_read(folder: Path) -> None:
    for name in ("model-00001-of-00003.safetensors", "model-00007-of-00007.safetensors"):
        save_file({"a": A + 1, "old": A}, folder / name)
    with Checkpoint.open(folder) as checkpoint:
        assert set(checkpoint.tensors) == {"a", "b", "c"} and checkpoint.notes == ()


@pytest.mark.parametrize("other", [{}, {"a": "model-3.safetensors"}])
def test_a_tensor_in_several_shards_that_the_index_does_not_choose_among(folder: Path, other: dict[str, str]) -> None:
    save_file({"c": C, "a": A}, folder / TWO)
    index(folder, {"b": ONE, "c": TWO} | other)
    with pytest.raises(CheckpointError, match=r"in several shards, and .* does not say which counts, 1: 'a'"):
        Checkpoint.open(folder)


def test_missing_shards_are_counted(tmp_path: Path) -> None:
    index(tmp_path, {str(i): f"s{i}.safetensors" for i in range(100)})
    with pytest.raises(CheckpointError, match=r"shards are missing, 100: 's0.safetensors', .* …") as caught:
        Checkpoint.open(tmp_path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "shard",
    ["../outside.safetensors", "/etc/passwd", "a/b", "C:\\x", "x\0y", "fifo", "folder", "zero", "..", ""],
)
def test_unsafe_shards_are_refused_at_once(folder: Path, shard: str) -> None:
    outside = folder.parent / "outside.safetensors"
    save_file({"c": C}, outside)
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "zero").symlink_to("/dev/zero")
    index(folder, {"a": ONE, "b": ONE, "c": shard})
    started = time.process_time()
    with pytest.raises(UnsafePathError):
        Checkpoint.open(folder)
    assert time.process_time() - started < 0.5


def test_weights_may_lie_on_another_disk(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    (folder / ONE).rename(elsewhere)
    (folder / ONE).symlink_to(elsewhere)
    with Checkpoint.open(folder) as checkpoint:
        np.testing.assert_array_equal(checkpoint.array("a"), A)


@pytest.mark.parametrize("weight_map", [None, [], {"a": 1}, {"a": None}, "x"])
def test_an_index_without_a_map_is_malformed(folder: Path, weight_map: Any) -> None:
    index(folder, weight_map)
    with pytest.raises(JsonError, match="weight_map"):
        Checkpoint.open(folder)


def test_broken_members(folder: Path) -> None:
    (folder / TWO).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FileFormatError, match="git lfs pull"):
        Checkpoint.open(folder)
    (folder / TWO).write_bytes(b"\x80\x04\x95 pickle")
    with pytest.raises(UnsafeCheckpointError, match="a pickle"):
        Checkpoint.open(folder)
    (folder / "model.safetensors.index.json").write_bytes(b"<html>")
    with pytest.raises(JsonError, match="HTML"):
        Checkpoint.open(folder)
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(UnsafePathError, match="named pipe"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model_state.pdparams", "model.pt", "last.ckpt"])
def test_pickles_alone_are_refused_with_a_hint(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(UnsafeCheckpointError, match=f"'{name}'.*safetensors"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["model.fp16.safetensors"], "If 'model.fp16.safetensors' has them all"),
        (["model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"], "as variant 'fp16'"),
        ([], "Fetch the whole repository"),
    ],
)
def test_what_a_trainer_leaves_is_not_taken_for_the_weights(tmp_path: Path, names: list[str], hint: str) -> None:
    for name in (*names, "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "scaler.pt"):
        (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match=f"there are no weights.*{hint}"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(("name", "error"), [("absent", ModelNotFoundError), ("", CheckpointError)])
def test_no_folder_and_no_weights(tmp_path: Path, name: str, error: type[InputError]) -> None:
    with pytest.raises(error):
        Checkpoint.open(tmp_path / name)
