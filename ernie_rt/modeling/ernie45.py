"""ERNIE 4.5 text models, dense and mixture-of-experts, as graphs of blocks."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Final

from ernie_rt.graph.builder import Builder
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import Attr, Dim, DType, Plain, Storage, TensorType, Value, Weight
from ernie_rt.modeling.config import ModelConfig, MoeConfig
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

HEAD: Final = "head.weight"
"""The head's weight, in a graph in which it is not the embedding."""


def build_graph(
    config: ModelConfig, dtype: DType | None = None, storages: Mapping[str, Storage] | None = None
) -> Graph:
    """The `main` graph: token ids and index arrays to the output `logits` `[L, V]`.

    `dtype` is what activations are computed in (the config's own when None); weights are stored as `storages` says by
    their names, the others in the config's dtype. They outrank the config as `as_stored` says.
    """
    known = storages or {}
    return _Model(as_stored(config, known), dtype or config.dtype, known).build()


def as_stored(config: ModelConfig, names: Container[str]) -> ModelConfig:
    """The config of a model whose stored weights have these names: a head of its own is tied to nothing."""
    return replace(config, tie_word_embeddings=False) if HEAD in names else config


class _Model:
    def __init__(self, config: ModelConfig, dtype: DType, storages: Mapping[str, Storage]) -> None:
        self.config = config
        self.dtype = dtype
        self.storages = storages
        # transformers keeps the router in float32; in a float64 graph nothing is narrower than float64.
        self.router_dtype: DType = "float64" if dtype == "float64" else "float32"
        self.b = Builder()

    def build(self) -> Graph:
        b, config = self.b, self.config
        inputs = {name: b.input(name, TensorType("int32", dims)) for name, dims in INDEX_INPUTS}
        ids, rows = inputs.pop("ids"), inputs.pop("rows")
        embedding = self.weight("embed.weight", config.vocab_size, config.hidden_size)
        with b.scope("embed"):
            x = b("embed", ids, embedding)
        for layer in range(config.num_hidden_layers):
            with b.scope(f"layers.{layer}.attention"):
                x = self.attention(x, tuple(inputs.values()))
            with b.scope(f"layers.{layer}.mlp"):
                if config.moe is not None and config.is_moe_layer(layer):
                    x = self.moe(x, config.moe)
                else:
                    x = self.mlp(x, config.intermediate_size)
        with b.scope("head"):
            tied = config.tie_word_embeddings
            weight = embedding if tied else self.weight("weight", config.vocab_size, config.hidden_size)
            # transformers gives the MoE class a head bias with use_bias, the dense class never.
            bias = self.bias("bias", config.vocab_size) if config.moe is not None else None
            logits = b("head", x, self.weight("norm", config.hidden_size), weight, bias, rows, eps=config.rms_norm_eps)
        return b.finish("main", {"logits": logits})

    def weight(self, name: str, *dims: int, router: bool = False, paired: bool = False) -> Weight:
        """A weight named under the current scope; the router's are float32 in every model."""
        scope = self.b.current_scope
        type = TensorType(self.router_dtype if router else self.dtype, dims)
        full = f"{scope}.{name}" if scope else name
        storage = self.storages.get(full) or Plain("float32" if router else self.config.dtype)
        return Weight(full, type, storage, paired)

    def bias(self, name: str, *dims: int) -> Weight | None:
        return self.weight(name, *dims) if self.config.use_bias else None

    def table(self, function: str) -> Weight:
        config = self.config
        storage = RopeTable("cos" if function == "cos" else "sin", config.rope_theta, config.compression_ratio)
        return Weight(f"rope.{function}", TensorType("float32", ("P", config.head_dim // 2)), storage)

    def attention(self, x: Value, indices: tuple[Value, ...]) -> Value:
        config = self.config
        heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        packed = (heads + 2 * kv_heads) * head_dim
        hidden = config.hidden_size
        layer = self.b.current_scope.removesuffix(".attention")
        state = self.b.state(f"{layer}.kv", TensorType(self.dtype, ("R", 2, kv_heads, head_dim)))
        attrs: dict[str, Attr] = {
            "eps": config.rms_norm_eps,
            "num_heads": heads,
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "scale": head_dim**-0.5,
        }
        return self.b(
            "attention_block",
            x,
            self.weight("norm", hidden),
            self.weight("qkv", packed, hidden),
            self.bias("qkv_bias", packed),
            self.weight("out", hidden, heads * head_dim),
            self.bias("out_bias", hidden),
            self.table("cos"),
            self.table("sin"),
            state,
            *indices,
            **attrs,
        )

    def mlp(self, x: Value, width: int) -> Value:
        hidden = self.config.hidden_size
        return self.b(
            "mlp_block",
            x,
            self.weight("norm", hidden),
            self.weight("gate_up", width, 2, hidden, paired=True),
            self.bias("gate_up_bias", width, 2),
            self.weight("down", hidden, width),
            self.bias("down_bias", hidden),
            eps=self.config.rms_norm_eps,
        )

    def moe(self, x: Value, moe: MoeConfig) -> Value:
        hidden, experts, width = self.config.hidden_size, moe.moe_num_experts, moe.moe_intermediate_size
        shared = moe.shared_intermediate_size
        return self.b(
            "moe_block",
            x,
            self.weight("norm", hidden),
            self.weight("gate", experts, hidden, router=True),
            self.weight("correction_bias", experts, router=True) if moe.moe_use_aux_free else None,
            self.weight("experts.gate_up", experts, width, 2, hidden, paired=True),
            self.weight("experts.down", experts, hidden, width),
            self.weight("shared.gate_up", shared, 2, hidden, paired=True) if shared else None,
            self.bias("shared.gate_up_bias", shared, 2) if shared else None,
            self.weight("shared.down", hidden, shared) if shared else None,
            self.bias("shared.down_bias", hidden) if shared else None,
            top_k=moe.moe_k,
            norm_min=moe.moe_norm_min,
            eps=self.config.rms_norm_eps,
        )
