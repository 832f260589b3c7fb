"""A source of weights that fills tensors where they lie: eager asks it for every stored weight, and for no other."""

from __future__ import annotations

import torch
from torch import Tensor

import ernie_rt
from ernie_rt.contract import Weight
from ernie_rt.location import Located
from ernie_rt.weights.synthetic import Synthetic
from support.configs import small


class Filled(Synthetic):
    def __init__(self) -> None:
        super().__init__()
        self.filled: dict[str, Tensor] = {}

    def fill_tensor(self, weight: Weight, out: Tensor) -> None:
        assert out.shape == torch.Size(weight.type.shape())
        self.filled[weight.name] = out.fill_(0.5)


def test_stored_weights_are_filled_in_place() -> None:
    source = Filled()
    with ernie_rt.load(Located(small()), backend="eager", device="cpu", dtype="float32", weights=source) as model:
        stored = {weight.name for weight in model.graph.weights if weight.storage.stored}
        logits = model.logits([3, 1, 4])
    assert source.filled.keys() == stored
    assert (logits == logits[:, :1]).all(), "every row of the head is the same"
