"""ERNIE 4.5, dense and mixture-of-experts, as a graph of blocks; of a vision-language model what follows its tower."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final, Literal

from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import Attr, Dim, DType, Operand, Storage, TensorType, Value, Weight
from ernie_rt.modeling.config import ModelConfig, MoeConfig
from ernie_rt.modeling.vision_language import VisionLanguageConfig
from ernie_rt.modeling.weighted import WeightedBuilder
from ernie_rt.storage.rope import RopeTable

INDEX_INPUTS: tuple[tuple[str, tuple[Dim, ...]], ...] = (
    ("ids", ("N",)),
    ("positions", ("N", 1)),
    ("sequence", ("N",)),
    ("index", ("N",)),
    ("write", ("N",)),
    ("context", ("C",)),
    ("context_sequence", ("C",)),
    ("context_index", ("C",)),
    ("rows", ("L",)),
)
"""The graph's int32 inputs: N new tokens, C context rows, L rows whose logits are wanted."""

TIME, HEIGHT, WIDTH = range(3)
"""The columns of positions, where a model sees."""

HEAD: Final = "head.weight"
"""The head's weight, in a graph in which it is not the embedding."""

OF_VISION: Final = "vision."
"""What the names of the weights of a vision tower begin with."""


def build_graph(
    config: ModelConfig, dtype: DType | None = None, storages: Mapping[str, Storage] | None = None
) -> Graph:
    """The `main` graph: token ids and index arrays to the output `logits` `[L, V]`.

    Where the model sees, a position is three, `[N, 3]`, and further inputs are `features [F, H]`, of which row 0 is
    zeros, and `features_row [N]`, the row that takes a token's place, or 0.

    `dtype` is what activations are computed in (the config's own when None); weights are stored as `storages` says by
    their names, the others in the config's dtype. They outrank the config as `as_stored` says.
    """
    known = storages or {}
    return _Model(as_stored(config, known), dtype or config.dtype, known).build()


def as_stored(config: ModelConfig, names: Collection[str]) -> ModelConfig:
    """The config of a model whose stored weights have these names: a head of its own is tied to nothing, and without a
    tower it does not see. Of no names nothing follows."""
    if names and not any(name.startswith(OF_VISION) for name in names):
        config = config.text_alone
    return replace(config, tie_word_embeddings=False) if HEAD in names else config


class _Model:
    def __init__(self, config: ModelConfig, dtype: DType, storages: Mapping[str, Storage]) -> None:
        self.config = config
        self.b = WeightedBuilder(dtype, config.dtype, storages)

    def build(self) -> Graph:
        b, config, vision = self.b, self.config, self.config.sees
        columns = 1 if vision is None else len((TIME, HEIGHT, WIDTH))
        given = {**dict(INDEX_INPUTS), "positions": ("N", columns)}
        inputs: dict[str, Operand] = {name: b.input(name, TensorType("int32", dims)) for name, dims in given.items()}
        ids, rows = inputs.pop("ids"), inputs.pop("rows")
        features: tuple[Value, ...] = ()
        cos: Operand = self.table("cos")
        sin: Operand = self.table("sin")
        masks: tuple[Operand, ...] = ()
        if vision is not None:
            features = (
                b.input("features", TensorType(b.dtype, ("F", config.hidden_size))),
                b.input("features_row", TensorType("int32", ("N",))),
            )
            cos, sin = self.rows(cos, sin, inputs["positions"], columns_of(vision))
            inputs["positions"] = None
            masks = self.masks(ids, vision)
        embedding = b.weight("embed.weight", config.vocab_size, config.hidden_size)
        with b.scope("embed"):
            x = b("embed", ids, embedding, *features)
        for layer in range(config.num_hidden_layers):
            with b.scope(f"layers.{layer}.attention"):
                x = self.attention(x, cos, sin, tuple(inputs.values()))
            with b.scope(f"layers.{layer}.mlp"):
                if config.moe is not None and config.is_moe_layer(layer):
                    x = self.moe(x, config.moe, masks)
                else:
                    x = self.mlp(x, config.intermediate_size)
        with b.scope("head"):
            tied = config.tie_word_embeddings
            weight = embedding if tied else b.weight("weight", config.vocab_size, config.hidden_size)
            # transformers gives the MoE class a head bias with use_bias, the dense class never.
            bias = self.bias("bias", config.vocab_size) if config.moe is not None else None
            logits = b("head", x, b.weight("norm", config.hidden_size), weight, bias, rows, eps=config.rms_norm_eps)
        return b.finish("main", {"logits": logits})

    def bias(self, name: str, *dims: int) -> Weight | None:
        return self.b.weight(name, *dims) if self.config.use_bias else None

    def table(self, function: Literal["cos", "sin"]) -> Weight:
        config = self.config
        storage = RopeTable(function, config.rope_theta, config.compression_ratio)
        return Weight(f"rope.{function}", TensorType("float32", ("P", config.head_dim // 2)), storage)

    def rows(self, cos: Operand, sin: Operand, positions: Operand, columns: tuple[int, ...]) -> tuple[Value, Value]:
        """The rows of the tables that all layers rotate by, a row for each new token."""
        with self.b.scope("rope.cos"):
            of_cos = self.b("rope_rows", cos, positions, columns=columns)
        with self.b.scope("rope.sin"):
            return of_cos, self.b("rope_rows", sin, positions, columns=columns)

    def masks(self, ids: Operand, vision: VisionLanguageConfig) -> tuple[Value, Value]:
        """Which tokens are text and which are vision, `[N]` each: Baidu's rule goes by the id, in answers too."""
        first = vision.image_token_id
        with self.b.scope("pools.text"):
            text = self.b("in_range", ids, start=0, stop=first)
        with self.b.scope("pools.vision"):
            return text, self.b("in_range", ids, start=first, stop=self.config.vocab_size)

    def attention(self, x: Value, cos: Operand, sin: Operand, indices: tuple[Operand, ...]) -> Value:
        b, config = self.b, self.config
        heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        packed = (heads + 2 * kv_heads) * head_dim
        hidden = config.hidden_size
        layer = b.current_scope.removesuffix(".attention")
        state = b.state(f"{layer}.kv", TensorType(b.dtype, ("R", 2, kv_heads, head_dim)))
        attrs: dict[str, Attr] = {
            "eps": config.rms_norm_eps,
            "num_heads": heads,
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "scale": head_dim**-0.5,
        }
        return b(
            "attention_block",
            x,
            b.weight("norm", hidden),
            b.weight("qkv", packed, hidden),
            self.bias("qkv_bias", packed),
            b.weight("out", hidden, heads * head_dim),
            self.bias("out_bias", hidden),
            cos,
            sin,
            state,
            *indices,
            **attrs,
        )

    def mlp(self, x: Value, width: int) -> Value:
        b, hidden = self.b, self.config.hidden_size
        return b(
            "mlp_block",
            x,
            b.weight("norm", hidden),
            b.weight("gate_up", width, 2, hidden, paired=True),
            self.bias("gate_up_bias", width, 2),
            b.weight("down", hidden, width),
            self.bias("down_bias", hidden),
            eps=self.config.rms_norm_eps,
        )

    def moe(self, x: Value, moe: MoeConfig, masks: tuple[Operand, ...]) -> Value:
        b, hidden, shared = self.b, self.config.hidden_size, moe.shared_intermediate_size
        operands: list[Operand] = [
            b.weight("norm", hidden),
            *self.pool(moe, moe.moe_intermediate_size),
            b.weight("shared.gate_up", shared, 2, hidden, paired=True) if shared else None,
            self.bias("shared.gate_up_bias", shared, 2) if shared else None,
            b.weight("shared.down", hidden, shared) if shared else None,
            self.bias("shared.down_bias", hidden) if shared else None,
        ]
        if (vision := self.config.sees) is not None:
            with b.scope("vision"):
                operands += [*masks, *self.pool(moe, vision.moe_intermediate_size)]
        attrs: dict[str, Attr] = {"top_k": moe.moe_k, "norm_min": moe.moe_norm_min, "eps": self.config.rms_norm_eps}
        return b("moe_block", x, *operands, **attrs)

    def pool(self, moe: MoeConfig, width: int) -> tuple[Operand, ...]:
        """A router and the experts that it chooses among."""
        b, hidden, experts = self.b, self.config.hidden_size, moe.moe_num_experts
        return (
            b.weight("gate", experts, hidden, router=True),
            b.weight("correction_bias", experts, router=True) if moe.moe_use_aux_free else None,
            b.weight("experts.gate_up", experts, width, 2, hidden, paired=True),
            b.weight("experts.down", experts, hidden, width),
        )


def columns_of(vision: VisionLanguageConfig) -> tuple[int, ...]:
    """Which column of positions each frequency reads: height and width by turns, and the last ones time."""
    height, width, time = vision.mrope_section
    return (HEIGHT, WIDTH) * ((height + width) // 2) + (TIME,) * time
