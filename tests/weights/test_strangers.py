"""Folders and files that people name by mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ernie_rt.errors import CheckpointError, ErnieRtError, ModelNotFoundError, TokenizerError
from ernie_rt.location import locate
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.strangers import stranger_folder
from support.commands import command
from support.drawn import DENSE, write_drawn


def touch(*names: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return folder

    return make


def adapter(folder: Path) -> Path:
    fields = {"peft_type": "LORA", "base_model_name_or_path": "baidu/ERNIE-4.5-0.3B-PT", "lora_alpha": float("nan")}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return touch("adapter_model.safetensors", "tokenizer.json")(folder)


def two_adapters(folder: Path) -> Path:
    (folder / "lora_config.json").write_text(json.dumps({"base_model_name_or_path": "baidu/x"}))
    return touch("adapter_config.json")(folder)


def cached(part: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        touch("models--a--b/snapshots/c0ffee/config.json", "models--a--b/blobs/b10b", "models--a--b/refs/main")(folder)
        return folder / part

    return make


STRANGERS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "adapter": (adapter, "an adapter (LoRA) of baidu/ERNIE-4.5-0.3B-PT, not a whole model", "Merge it into its model"),
    "adapter without its config": (touch("adapter_model.safetensors"), "an adapter (LoRA), not a whole model", "Merge"),
    "a broken config and a good one": (two_adapters, "an adapter (LoRA) of baidu/x, not a whole", "Merge"),
    "Paddle's adapter": (touch("lora_config.json", "lora_model_state.pdparams"), "an adapter (LoRA)", "Merge it"),
    "GGUF": (touch("model-Q4_K_M.gguf"), "a GGUF model, for llama.cpp", "Take the checkpoint that it was made of"),
    "ONNX": (touch("model.onnx", "model.onnx.data"), "an ONNX model that ernie-rt did not write", "ernie-rt export"),
    "ONNX in a folder of its own": (touch("onnx/model.onnx", "tokenizer.json"), "an ONNX model", "ernie-rt export"),
    "Paddle's graph": (touch("model.pdmodel", "model.pdiparams"), "a static graph of Paddle", "Take the checkpoint"),
    "MLX of old": (touch("weights.npz"), "weights of MLX", "Take the checkpoint"),
    "Core ML": (touch("model.mlpackage/Manifest.json"), "a Core ML model", "Take the checkpoint"),
    "TensorRT": (touch("rank0.engine", "config.txt"), "a TensorRT engine", "Take the checkpoint"),
    "OpenVINO": (touch("openvino_model.xml"), "an OpenVINO model", "Take the checkpoint"),
    "a trainer's parts": (touch("global_step500/x.pt", "latest"), "a trainer's own state, in parts", "save_pretrained"),
    "a trainer's shards": (touch("__0_0.distcp", ".metadata"), "a trainer's own state, in parts", "save_pretrained"),
    "an archive": (touch("model.tar.gz"), "an archive", "Unpack it"),
    "part of one": (touch("model.7z.001"), "an archive", "Unpack it"),
    "weights": (touch("model.safetensors", "tokenizer.model"), "weights without their config.json", "Fetch it"),
    "interrupted": (touch("ernie_rt.partial.json"), "a folder that was interrupted", "Run the command that writes it"),
    "hub cache": (cached("models--a--b"), "the Hugging Face cache of a/b", "Name it by its id, a/b, or the folder "),
    "its snapshots": (cached("models--a--b/snapshots"), "the Hugging Face cache of a/b", "--b/snapshots/c0ffee"),
    "its blobs": (cached("models--a--b/blobs"), "the Hugging Face cache of a/b", "Name it by its id, a/b"),
    "its unfinished snapshot": (
        lambda folder: touch("snapshots/x/y")(cached("models--a--b")(folder)) / "snapshots/x",
        "the Hugging Face cache of a/b",
        "Name it by its id, a/b",
    ),
    "all caches": (cached(""), "a Hugging Face cache of models", "Name one by its id: a/b"),
    "folder above": (touch("one/config.json", "two/config.json"), "a folder of models", "in it: "),
    "folder below": (lambda f: touch("config.json", "original/x")(f) / "original", "a folder inside a model's", ": "),
    "tokenizer": (touch("tokenizer.model", "tokenizer_config.json"), "a tokenizer without its model", "repository"),
    "empty": (lambda folder: folder, "an empty folder", "Fetch the model into it, or name another"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_a_folder_is_named_for_what_it_is(name: str, tmp_path: Path) -> None:
    make, what, hint = STRANGERS[name]
    folder = make(tmp_path)
    with pytest.raises(ModelNotFoundError) as caught:
        locate(folder)
    assert f"{folder}: this is {what}" in str(caught.value) and hint in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("file", "beside", "what", "hint"),
    [
        ("model.safetensors", "config.json", "a file of a model", "Name the folder it lies in"),
        ("config.json", "model.safetensors", "a file of a model", "Name the folder it lies in"),
        ("model.safetensors", None, "weights alone", "Put config.json and tokenizer.model of the model beside them"),
        ("model.gguf", "config.json", "a GGUF model", "Take the checkpoint"),
        ("model.onnx", None, "an ONNX model", "see `ernie-rt export`"),
        ("ernie.ZIP", None, "an archive", "Unpack it"),
        ("ernie.tar.xz", None, "an archive", "Unpack it"),
        ("notes.txt", None, "a file", "Name the folder of a model"),
    ],
)
def test_a_file_is_named_for_what_it_is(file: str, beside: str | None, what: str, hint: str, tmp_path: Path) -> None:
    touch(file, *([beside] if beside else []))(tmp_path)
    with pytest.raises(ModelNotFoundError, match=f"this is {what}.*expected a folder.*{hint}"):
        locate(tmp_path / file)


def test_a_link_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    for name in ("model", "config.json"):
        (tmp_path / name).symlink_to(tmp_path / "gone")
    for path in (tmp_path / "model", tmp_path):
        with pytest.raises(ErnieRtError, match=r"found a link to '.*gone', which is not there"):
            locate(path)


def test_an_address_is_no_name() -> None:
    ran = command("run", "https://huggingface.co/baidu/ERNIE-4.5-0.3B-PT/tree/main", "hello")
    assert ran.code == 2 and "this is an address. Name it by its id: baidu/ERNIE-4.5-0.3B-PT" in ran.err


def test_a_folder_with_a_config_and_no_weights(tmp_path: Path) -> None:
    folder = write_drawn(tmp_path / "model", DENSE)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(CheckpointError, match=r"no weights; .*'model.fp16.safetensors' has them all, name it model.sa"):
        Checkpoint.open(folder)
    (folder / "model.fp16.safetensors").rename(folder / "model.Q8_0.gguf")
    with pytest.raises(CheckpointError, match="no weights that ernie-rt reads: this is a GGUF model"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("name", "what"),
    [("x.gguf", "this is a GGUF model"), ("adapter_config.json", "an adapter"), ("pytorch_model.bin", "are pickles")],
)
def test_what_the_folder_is_comes_before_a_missing_tokenizer(name: str, what: str, tmp_path: Path) -> None:
    folder = touch(name)(write_drawn(tmp_path / "model", DENSE))
    with pytest.raises(TokenizerError, match=r"no tokenizer; expected tokenizer.model or tokenizer.json. Fetch"):
        _ = locate(folder).tokenizer
    (folder / "model.safetensors").unlink()
    with pytest.raises(ErnieRtError, match=what):
        _ = locate(folder).tokenizer


def test_an_adapter_beside_weights_is_said_not_to_be_applied(tmp_path: Path) -> None:
    folder = adapter(write_drawn(tmp_path / "model", DENSE))
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.notes == ("adapter_config.json lies beside the weights: its adapter is not applied",)


def test_shards_without_an_index(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        save_file({f"t{n}": np.zeros(n, np.float32)}, tmp_path / f"model-0000{n}-of-00003.safetensors")
    with Checkpoint.open(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == {"t1", "t2", "t3"}
        assert checkpoint.notes == ("there is no model.safetensors.index.json: all 3 shards were read",)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shards are missing, 1: 'model-00002-of-00003.safetensors'"):
        Checkpoint.open(tmp_path)
    save_file({"t": np.zeros(1, np.float32)}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="there are no weights"):
        Checkpoint.open(tmp_path)


def test_hostile_names_and_contents_are_shown_safely(tmp_path: Path) -> None:
    home = tmp_path / "models--a--\x1b[2J"
    touch("snapshots/x")(home)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "\x1b[2J" * 1000}))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for folder in (home, tmp_path, tmp_path / "adapter"):
        found = stranger_folder(folder)
        assert found is not None and f"{found.what}{found.hint}".isprintable() and len(found.what) < 400
    assert stranger_folder(tmp_path / "loop") is None and stranger_folder(tmp_path / "absent") is None
    (tmp_path / "adapter" / "adapter_config.json").write_text("[")
    with pytest.raises(ErnieRtError, match="an adapter"):
        locate(tmp_path / "adapter")
