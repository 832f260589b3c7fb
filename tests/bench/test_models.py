"""Which model is measured when only its name is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from ernie_rt.errors import OptionError
from ernie_rt.modeling.families import find
from ernie_rt.weights import hub
from ernie_rt.weights.quantize import Quantization
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt_bench import models
from ernie_rt_bench.models import find_model, first_layers, write_random
from support.untrained import CONFIG


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_cached", lambda repo, revision: None)


def test_a_known_name_without_a_checkpoint_is_its_config_alone() -> None:
    family = find("0.3B")
    assert family is not None
    found = find_model("0.3B")
    assert found.folder is None and found.config == family.config
    assert find_model("demo").folder is not None


def test_a_slice_keeps_the_first_layers_and_their_experts() -> None:
    family = find("21B-A3B")
    assert family is not None and family.config.moe is not None
    config = find_model("21B-A3B", 4).config
    assert config.num_hidden_layers == 4 and config.moe is not None
    assert [config.is_moe_layer(i) for i in range(4)] == [family.config.is_moe_layer(i) for i in range(4)]
    assert first_layers(family.config, 28) == family.config
    with pytest.raises(OptionError, match="--layers is not possible"):
        first_layers(family.config, 29)
    with pytest.raises(OptionError, match="--layers is for known models"):
        find_model("demo", 2)


def test_random_weights_are_a_quantised_folder(tmp_path: Path) -> None:
    from ernie_rt.modeling.config import parse_config

    config, how = parse_config(CONFIG, "here"), Quantization(4, layout="tiled")
    write_random(tmp_path / "out", config, how)
    source = QuantizedSource(tmp_path / "out", config)
    assert source.storages["layers.0.mlp.gate_up"] == how.linears
    source.close()


def test_a_folder_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr(models, "write_random", lambda out, config, how: written.append(out))
    found = models.random_folder(tmp_path, "0.3B", 2, Quantization(8, layout="tiled"))
    assert found.folder == tmp_path / "0.3B-2-int8-tiled" and written == [found.folder]
    assert found.config.num_hidden_layers == 2
    (tmp_path / "0.3B-int4-raw").mkdir()
    models.random_folder(tmp_path, "0.3B", None, Quantization(4))
    assert len(written) == 1
