"""Routing maps beside what the routers of transformers choose in float32: the same experts, their weights to 1e-6."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import ernie_rt
from support.checkpoints import SPECS, write_checkpoint
from support.judge import MIN_ROUTER_GAP, Judge, prompt

WITHIN = 1e-6
LENGTH = 200


class Watcher:
    """What each router of transformers gives for a prompt, by the scope that it has in a graph: the ids and weights
    that it chose, the ids without its correction bias, and the smallest gap before the first expert that is left."""

    def __init__(self, folder: Path, ids: list[int]) -> None:
        self.found: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self.gap = np.inf
        judge = Judge(folder, "float32")
        for name, module in judge.model.named_modules():
            if name.endswith("mlp.gate"):
                scope = name.removeprefix("model.").replace("mlp.gate", "mlp.route")
                module.register_forward_hook(lambda gate, inputs, outputs, scope=scope: self.hear(scope, gate, outputs))
        judge.logits(ids)

    def hear(self, scope: str, gate: Any, outputs: Any) -> None:
        logits, weights, chosen = outputs
        p = torch.softmax(logits.double(), dim=-1)
        for scores in (p, p + gate.moe_statics.e_score_correction_bias.double().squeeze()):
            ranked = scores.sort(dim=-1, descending=True).values
            self.gap = min(self.gap, (ranked[:, gate.top_k - 1] - ranked[:, gate.top_k]).min().item())
        unbiased = p.topk(gate.top_k).indices
        self.found[scope] = tuple(each.numpy() for each in (chosen, weights, unbiased))  # type: ignore[assignment]


Judged = tuple[Path, Watcher]
FOUR_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}  # onnx takes no heads of 8
MADE = {name: SPECS[name] for name in ("moe", "moe-interval")}
MADE["moe-many-experts"] = replace(many := SPECS["moe-many-experts"], config=many.config | FOUR_HEADS)


def judged(name: str, folder: Path, zeros: bool = False) -> Watcher:
    """Write the checkpoint of a name with the first seed that leaves no expert close to another, and judge it."""
    for seed in range(20):
        write_checkpoint(MADE[name], folder, seed)
        if zeros:
            rewrite(folder, lambda tensor: np.zeros_like(tensor))
        watcher = Watcher(folder, prompt(MADE[name], LENGTH))
        if watcher.gap > MIN_ROUTER_GAP:
            return watcher
    raise AssertionError(f"{name}: every seed has experts that are as good as equal")


def rewrite(folder: Path, change: Callable[[Any], Any]) -> None:
    """Change the correction biases, or leave out those that become None."""
    tensors = load_file(folder / "model.safetensors")
    changed = {name: change(value) if "moe_statics" in name else value for name, value in tensors.items()}
    kept = {name: value for name, value in changed.items() if value is not None}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module", params=[*MADE, "no bias"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A checkpoint, and what transformers makes of it; one without a correction bias was judged with one of zeros."""
    folder = tmp_path_factory.mktemp("routing") / "model"
    if request.param != "no bias":
        return folder, judged(request.param, folder)
    watcher = judged("moe", folder, zeros=True)
    rewrite(folder, lambda tensor: None)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"moe_use_aux_free": False}))
    return folder, watcher


@pytest.mark.parametrize("backend", ["eager", "onnx", "reference"])
def test_the_same_experts_and_weights(
    backend: str, case: Judged, measured: Callable[[str, float, float], None]
) -> None:
    folder, watcher = case
    with ernie_rt.load(
        folder, backend=backend, device="cpu", dtype="float32", threads=1, max_context=LENGTH, routing=True
    ) as model:
        routing = model.routing(prompt(MADE["moe"], LENGTH))
        biased = model.config.moe is not None and model.config.moe.moe_use_aux_free
    assert [routes.scope for routes in routing.routers] == [*watcher.found]
    for routes in routing.routers:
        chosen, weights, unbiased = watcher.found[routes.scope]
        ours, theirs = np.argsort(routes.ids), np.argsort(chosen)
        assert np.array_equal(np.sort(routes.ids), np.sort(chosen))
        error = np.take_along_axis(routes.weights, ours, -1) - np.take_along_axis(weights, theirs, -1)
        measured(f"weights of experts, {backend}", float(np.abs(error).max()), WITHIN)
        moved = (np.sort(chosen) != np.sort(unbiased)).any(-1)
        assert routes.load.moved == moved.sum() and moved.any() == biased
        assert np.array_equal(routes.by_bias.any(-1), moved)
        assert (routes.unbiased is not None) == biased
        if routes.unbiased is not None:
            assert np.array_equal(np.sort(routes.unbiased), np.sort(unbiased))
