"""What a model is called, and what is read of it: headers at most."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ernie_rt.errors import ErnieRtError, ModelNotFoundError
from ernie_rt.modeling.families import MOE_300B_A47B, find
from ernie_rt.modeling.vision_language import PreprocessorConfig
from ernie_rt.planning.described import describe
from ernie_rt.weights.hub import DEMO


def headers_alone(folder: Path, tensors: dict[str, list[int]]) -> None:
    """A checkpoint whose numbers nobody could read: a header, and a hole of the size that it speaks of."""
    described: dict[str, object] = {}
    end = 0
    for name, shape in tensors.items():
        nbytes = 2
        for size in shape:
            nbytes *= size
        described[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(described).encode()
    folder.mkdir(exist_ok=True)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def tensors_of_0_3b() -> dict[str, list[int]]:
    found = {"model.embed_tokens.weight": [103424, 1024], "model.norm.weight": [1024]}
    for layer in range(18):
        name = f"model.layers.{layer}"
        found |= {
            f"{name}.self_attn.q_proj.weight": [2048, 1024],
            f"{name}.self_attn.k_proj.weight": [256, 1024],
            f"{name}.self_attn.v_proj.weight": [256, 1024],
            f"{name}.self_attn.o_proj.weight": [1024, 2048],
            f"{name}.mlp.gate_proj.weight": [3072, 1024],
            f"{name}.mlp.up_proj.weight": [3072, 1024],
            f"{name}.mlp.down_proj.weight": [1024, 3072],
            f"{name}.input_layernorm.weight": [1024],
            f"{name}.post_attention_layernorm.weight": [1024],
        }
    return found


@pytest.mark.parametrize("ref", ["300B-A47B", "ERNIE-4.5-300B-A47B", "baidu/ERNIE-4.5-300B-A47B-PT"])
def test_a_known_model_is_described_without_a_download(ref: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ernie_rt.weights.hub._library", lambda: pytest.fail("the hub was asked"))
    described = describe(ref)
    assert (described.config, described.stored, described.name) == (MOE_300B_A47B, None, "300B-A47B")


def test_a_folder_with_weights() -> None:
    for ref in ("demo", str(DEMO)):
        described = describe(ref)
        assert described.stored is not None and "embed.weight" in described.stored


def test_how_large_a_picture_may_be() -> None:
    assert describe("VL-28B-A3B").pixels == PreprocessorConfig()
    assert describe("demo-vl").pixels == PreprocessorConfig(9_408, 13_328)


def test_a_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((DEMO / "config.json").read_bytes())
    described = describe(str(tmp_path))
    assert described.stored is None and described.config.hidden_size == 192


def test_headers_alone(tmp_path: Path) -> None:
    headers_alone(tmp_path / "mine", tensors_of_0_3b())
    described = describe(str(tmp_path / "mine"))
    family = find("0.3B")
    assert family is not None and described.config == family.config and described.name == "mine"
    assert described.stored is not None and str(described.stored["embed.weight"]) == "bf16"


def test_what_cannot_be_described_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ernie_rt.weights.hub._cached", lambda repo, revision: None)
    with pytest.raises(ModelNotFoundError, match="and nothing is downloaded for a plan"):
        describe("somebody/something")
    with pytest.raises(ModelNotFoundError, match="no such model"):
        describe("not a model")
    for ref in ("~nobody/of this name", "x" * 5000):
        with pytest.raises(ModelNotFoundError):
            describe(ref)
    headers_alone(tmp_path / "strange", {"model.embed_tokens.weight": [10, 10]})
    with pytest.raises(ErnieRtError, match="this is weights without their config"):
        describe(str(tmp_path / "strange"))
