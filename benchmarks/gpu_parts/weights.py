"""Models of the published shapes with random weights, which are drawn where they are to lie."""

from __future__ import annotations

import zlib
from dataclasses import replace

import torch
from torch import Tensor

from ernie_rt.graph.types import Weight
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.families import find
from ernie_rt.modeling.vision_language import VisionLanguageConfig
from ernie_rt.weights.synthetic import Synthetic, distribution
from gpu_parts.card import Card


class Drawn(Synthetic):
    """Synthetic weights of the same distributions and other numbers: a GPU draws 20 billion of them in seconds.

    They depend on the seed, each weight's name, and the kind of device, and on the dtype that they are drawn in: their
    own, or `drawn`.
    """

    def __init__(self, seed: int = 0, *, drawn: torch.dtype | None = None) -> None:
        super().__init__(seed)
        self._number, self._drawn = seed, drawn
        self.weights: dict[int, Weight] = {}
        """Those that were filled, by the address where their memory begins."""

    def fill_tensor(self, weight: Weight, out: Tensor) -> None:
        mean, std = distribution(weight)
        seed = zlib.crc32(f"{self._number}:{weight.name}".encode())
        numbers = out if self._drawn in (None, out.dtype) else torch.empty_like(out, dtype=self._drawn)
        numbers.normal_(mean, std, generator=torch.Generator(out.device).manual_seed(seed))
        if numbers is not out:
            out.copy_(numbers)
        self.weights[out.untyped_storage().data_ptr()] = weight


def published(name: str, card: Card) -> ModelConfig:
    """The config of a published model; or a small one of its kind."""
    family = find(name)
    assert family is not None
    return small(family.config) if card.small else family.config


def small(config: ModelConfig) -> ModelConfig:
    """Two layers of a few numbers, the second with experts if the model has some."""
    moe = config.moe
    if moe is not None:
        shared = min(1, moe.moe_num_shared_experts)
        moe = replace(moe, moe_num_experts=8, moe_k=2, moe_intermediate_size=16, moe_num_shared_experts=shared)
    config = replace(
        config,
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        moe=moe,
        vision=config.vision and small_vision(config.vision),
    )
    return two_layers(config)


def small_vision(vision: VisionLanguageConfig) -> VisionLanguageConfig:
    tower = replace(vision.tower, hidden_size=32, intermediate_size=64, num_heads=2)
    return replace(vision, tower=tower, moe_intermediate_size=8, mrope_section=(3, 3, 2))


def two_layers(config: ModelConfig) -> ModelConfig:
    """One layer with a dense MLP, then one with experts if the model has some; and two of a tower."""
    moe = config.moe and replace(config.moe, moe_layer_start_index=1, moe_layer_end_index=1)
    vision = config.vision and replace(config.vision, tower=replace(config.vision.tower, depth=2))
    return replace(config, num_hidden_layers=2, moe=moe, vision=vision)


def seeing(card: Card) -> ModelConfig:
    """Two layers of a model that sees; half of its ids are vision's, so that decodes ask both pools of experts."""
    config = two_layers(published("VL-28B-A3B", card))
    assert config.vision is not None
    return replace(config, vision=replace(config.vision, image_token_id=config.vocab_size // 2))
