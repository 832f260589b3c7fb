"""The published models: totals from plain arithmetic, and names people use for them."""

from __future__ import annotations

import pytest

from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.families import FAMILIES, find
from ernie_rt.modeling.vision_language import VisionConfig


def parameters(c: ModelConfig) -> int:
    """Every number a checkpoint holds, the multi-token-prediction block aside."""
    hidden = c.hidden_size
    q_width, kv_width = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    total = c.vocab_size * hidden * (1 if c.tie_word_embeddings else 2) + hidden
    for layer in range(c.num_hidden_layers):
        total += 2 * hidden + hidden * (q_width + 2 * kv_width) + q_width * hidden
        if c.moe is None or not c.is_moe_layer(layer):
            total += 3 * hidden * c.intermediate_size
            continue
        experts = c.moe.moe_num_experts
        total += experts * hidden + experts
        total += 3 * hidden * (experts * c.moe.moe_intermediate_size + c.moe.shared_intermediate_size)
        if c.vision is not None:
            total += experts * hidden + experts + 3 * hidden * experts * c.vision.moe_intermediate_size
    return total if c.vision is None else total + of_tower(c.vision.tower, hidden)


def of_tower(tower: VisionConfig, hidden: int) -> int:
    """With the resampler, whose features are `hidden` wide."""
    width, inside, four = tower.hidden_size, tower.intermediate_size, 4 * tower.hidden_size
    block = 4 * width * width + 4 * width + 2 * width * inside + inside + width + 4 * width
    steps = (four * four + four) + (2 * four * four + four) + 2 * (four * four + four) + 2 * 2 * four
    return tower.depth * block + 588 * width + 2 * width + steps + four * hidden + hidden + hidden


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("0.3B", 360_748_032),
        ("0.3B-Base", 360_748_032),
        ("21B-A3B", 21_825_437_888),
        ("21B-A3B-Base", 21_825_437_888),
        ("21B-A3B-Thinking", 21_825_437_888),
        ("300B-A47B", 299_484_163_264),
        ("300B-A47B-Base", 299_484_163_264),
        ("VL-28B-A3B", 29_399_294_336),
        ("VL-28B-A3B-Base", 29_399_294_336),
        ("VL-28B-A3B-Thinking", 29_399_294_336),
        ("VL-424B-A47B", 423_526_285_184),
        ("VL-424B-A47B-Base", 423_526_285_184),
    ],
)
def test_parameter_totals(name: str, total: int) -> None:
    family = find(name)
    assert family is not None and family.name == name
    assert parameters(family.config) == total


def test_names() -> None:
    assert [find(family.name) for family in FAMILIES] == list(FAMILIES)
    for name in ("21b-a3b", "ERNIE-4.5-21B-A3B", "ERNIE-4.5-21B-A3B-PT", "baidu/ernie-4.5-21b-a3b-pt"):
        assert find(name) is find("21B-A3B")
    assert find("baidu/ERNIE-4.5-300B-A47B-Base-Paddle") is find("300B-A47B-Base")
    assert find("ERNIE-4.5-21B-A3B-Thinking") is find("21B-A3B-Thinking")
    assert find("ERNIE-4.5-VL-28B-A3B-PT") is find("VL-28B-A3B")
    for stranger in ("", "21B", "VL-28B", "0.3B-PT", "meta/21B-A3B"):
        assert find(stranger) is None


def test_every_name_means_one_model() -> None:
    names = [name for family in FAMILIES for name in {family.name, family.hub_id, *family.aliases}]
    assert len({name.casefold() for name in names}) == len(names)


def test_hub_ids() -> None:
    assert [family.hub_id for family in FAMILIES] == [
        "baidu/ERNIE-4.5-0.3B-PT",
        "baidu/ERNIE-4.5-0.3B-Base-PT",
        "baidu/ERNIE-4.5-21B-A3B-PT",
        "baidu/ERNIE-4.5-21B-A3B-Base-PT",
        "baidu/ERNIE-4.5-21B-A3B-Thinking",
        "baidu/ERNIE-4.5-300B-A47B-PT",
        "baidu/ERNIE-4.5-300B-A47B-Base-PT",
        "baidu/ERNIE-4.5-VL-28B-A3B-PT",
        "baidu/ERNIE-4.5-VL-28B-A3B-Base-PT",
        "baidu/ERNIE-4.5-VL-28B-A3B-Thinking",
        "baidu/ERNIE-4.5-VL-424B-A47B-PT",
        "baidu/ERNIE-4.5-VL-424B-A47B-Base-PT",
    ]
