"""A storage of a file of its own goes everywhere that those of the core go."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ernie_rt
from ernie_rt.conformance.storage import Quantized
from ernie_rt.errors import JsonError
from ernie_rt.graph.cost import graph_cost, parameters
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.json import graph_from_json, graph_to_json
from ernie_rt.modeling.config import read_config
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.weights.manifest import MANIFEST, STORAGES, read_manifest
from ernie_rt.weights.opening import open_weights
from ernie_rt.weights.quantize import quantize_model
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.synthetic import Synthetic, distribution
from support.configs import small
from support.drawn import MOE, write_drawn
from support.two_bits import InTwoBits, TwoBits

KNOWN = STORAGES | {TwoBits.kind: TwoBits}
IDS = [5, 9, 2, 200, 17, 63, 41]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("two-bits") / "model", MOE)


CONFIG = small(hidden_size=32, moe_intermediate_size=16, intermediate_size=32)


def stored_graph() -> Graph:
    plain = build_graph(CONFIG).weights
    return build_graph(CONFIG, storages={w.name: InTwoBits(4).storage(w) for w in plain if w.storage.stored})


def test_json_and_bytes() -> None:
    plain, graph = build_graph(CONFIG), stored_graph()
    assert graph_from_json(json.loads(json.dumps(graph_to_json(graph))), KNOWN) == graph
    weight = next(w for w in graph.weights if w.name == "layers.1.mlp.experts.gate_up")
    assert str(weight.storage) == "two bits" and weight.paired
    assert weight.nbytes() == 6 * 16 * 2 * (32 // 4 + 2 * 32 // 16)
    assert parameters(graph) == parameters(plain)
    step = {"N": 1, "C": 1, "L": 1}
    assert graph_cost(graph, step).weight_bytes < 0.2 * graph_cost(plain, step).weight_bytes


def test_synthetic_weights() -> None:
    weight = next(w for w in stored_graph().weights if w.name == "embed.weight")
    parts = {}
    for name, type in weight.parts.items():
        Synthetic().fill(weight, name, parts.setdefault(name, np.empty(type.shape(), type.dtype)))
    numbers = weight.storage.dequantize(parts)
    assert numbers.shape == weight.type.shape()
    assert numbers.std() == pytest.approx(distribution(weight)[1], rel=0.05)


def test_a_folder_is_written_and_read(checkpoint: Path, tmp_path: Path) -> None:
    config, out = read_config(checkpoint), tmp_path / "q"
    written = quantize_model(checkpoint, config, out, InTwoBits(4), threads=2)
    with pytest.raises(JsonError, match="unknown storage 'two-bits'"):
        read_manifest(out / MANIFEST)
    manifest = read_manifest(out / MANIFEST, KNOWN)
    assert manifest == written
    kept = {name for name, storage in manifest.storages.items() if not storage.packed}
    assert kept and all(name.rpartition(".")[2].endswith(("norm", "bias", "gate")) for name in kept)
    assert all(0.3 < error < 0.45 for error in manifest.errors.values()), manifest.errors

    # The reference accepts no such thing, and gets the numbers: those that conformance makes of the checkpoint as well.
    drawn = Quantized(lambda: open_weights(checkpoint, config), InTwoBits(4), build_graph(config).weights)
    source = QuantizedSource(out, config, manifest)
    for weight in (weight.plain for weight in source.weights if weight.storage.packed):
        found, expected = (np.empty(weight.type.shape(), np.float32) for _ in range(2))
        source.fill(weight, "data", found)
        drawn.fill(weight, "data", expected)
        np.testing.assert_array_equal(found, expected)
        source.fill(weight, "data", row := np.empty(weight.type.shape()[1:], np.float32), (2,))
        np.testing.assert_array_equal(row, expected[2])
    options = {"backend": "reference", "dtype": "float32", "max_context": 64}
    with ernie_rt.load(out, weights=source, **options) as model:  # type: ignore[arg-type]
        logits, notes = model.logits(IDS), model.memory().notes
    assert any("dequantised from two bits to float32" in note for note in notes)
    with ernie_rt.load(checkpoint, weights=drawn, **options) as model:  # type: ignore[arg-type]
        np.testing.assert_array_equal(logits, model.logits(IDS))
    with ernie_rt.load(checkpoint, **options) as model:  # type: ignore[arg-type]
        assert not np.array_equal(logits, model.logits(IDS))


def test_writing_goes_on_where_it_was_interrupted(checkpoint: Path, tmp_path: Path) -> None:
    config, how = read_config(checkpoint), InTwoBits(4)
    whole = quantize_model(checkpoint, config, tmp_path / "whole", how)
    told: list[int] = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_model(checkpoint, config, tmp_path / "q", how, progress=stop)
    assert quantize_model(checkpoint, config, tmp_path / "q", how) == whole
