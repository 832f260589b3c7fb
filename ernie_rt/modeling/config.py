"""config.json as a typed allow-list: every field that is read is checked, every other one is ignored.

No field ever leads to code (`auto_map` and its kin are not looked at), and a field that would change the
computation in a way that is not implemented is refused by name. What an absent field means is what it means to
transformers' Ernie4_5Config and Ernie4_5_MoeConfig. One consequence: a MoE config without `moe_num_shared_experts`
has two shared experts, although Baidu's own runtime reads none into it; a model without any writes 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ernie_rt.errors import ConfigError
from ernie_rt.files import member, read_json
from ernie_rt.graph.types import DType
from ernie_rt.modeling.fields import Fields
from ernie_rt.modeling.rotary import rotary_in
from ernie_rt.modeling.spellings import (
    ALIASES,
    DEFAULTS,
    MAX_VOCAB,
    MOE_NEUTRAL,
    NEUTRAL,
    NULL_IS_ABSENT,
    TextModelType,
    dtype_in,
    model_type_of,
    refuse_quantization,
    refuse_window,
    token_id_in,
    token_ids_in,
)

if TYPE_CHECKING:
    from ernie_rt.modeling.vision_language import VisionLanguageConfig

MAX_PARAMETERS: Final = 1 << 42
"""15 times the largest ERNIE 4.5: what a config may describe before anything is allocated for it."""
MAX_EXPERTS: Final = 1 << 14
"""Layers times experts, each an entry of a checkpoint's header: nearly five times the largest ERNIE 4.5."""


@dataclass(frozen=True, slots=True)
class MoeConfig:
    """The text experts of a mixture-of-experts model; layer indices are resolved, the end is inclusive."""

    moe_num_experts: int
    moe_k: int
    moe_intermediate_size: int
    moe_num_shared_experts: int
    moe_layer_start_index: int
    moe_layer_end_index: int
    moe_layer_interval: int
    moe_norm_min: float
    moe_use_aux_free: bool
    """A correction bias exists and takes part in selecting experts."""

    @property
    def shared_intermediate_size(self) -> int:
        """Width of the one MLP that all shared experts form; 0 without shared experts."""
        return self.moe_num_shared_experts * self.moe_intermediate_size


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What config.json says about the computation, checked and with every default resolved."""

    model_type: TextModelType
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    compression_ratio: float
    use_bias: bool
    tie_word_embeddings: bool
    dtype: DType
    bos_token_id: int | None
    eos_token_id: tuple[int, ...]
    pad_token_id: int | None
    num_nextn_predict_layers: int
    moe: MoeConfig | None
    vision: VisionLanguageConfig | None = None
    """What a vision-language model has beside its text."""
    text_only: bool = False
    """Of a vision-language model the text alone is run: neither its tower nor its second pool of experts is read."""

    @property
    def sees(self) -> VisionLanguageConfig | None:
        """How pictures are taken in; None for a model, or a use of one, that takes none."""
        return None if self.text_only else self.vision

    @property
    def text_alone(self) -> ModelConfig:
        """The same without pictures; itself where it is a text model."""
        return self if self.sees is None else replace(self, text_only=True)

    @property
    def text_vocab_size(self) -> int:
        """The ids below this one are text: all, or those in front of what stands for pictures."""
        return self.vocab_size if self.vision is None else self.vision.image_token_id

    def is_moe_layer(self, index: int) -> bool:
        """Whether layer `index` has experts; the others have a dense MLP of `intermediate_size`."""
        moe = self.moe
        return (
            moe is not None
            and (index + 1) % moe.moe_layer_interval == 0
            and moe.moe_layer_start_index <= index <= moe.moe_layer_end_index
        )


def read_config(folder: Path) -> ModelConfig:
    """Read `folder`/config.json; raises ConfigError, or what `ernie_rt.files` raises for an unusable file."""
    return parse_config(read_json(member(folder, "config.json")), "config.json")


def parse_config(fields: Mapping[str, object], where: str) -> ModelConfig:
    """Check `fields` and resolve defaults; `where` names their source in a ConfigError."""
    model_type = model_type_of(fields, where)
    if model_type == "ernie4_5_vl_moe":
        from ernie_rt.modeling.vision_language import parse_vision_language  # which is made of this module

        return parse_vision_language(fields, where)
    return parse_text(fields_of(fields, where, DEFAULTS[model_type]), model_type)


def fields_of(fields: Mapping[str, object], where: str, defaults: Mapping[str, object]) -> Fields:
    """The fields of a text model over what they mean when they are absent."""
    given = {name: value for name, value in fields.items() if value is not None or name not in NULL_IS_ABSENT}
    return Fields(given, where, defaults, ALIASES)


def parse_text(read: Fields, model_type: TextModelType, *, sections: bool = False) -> ModelConfig:
    """A text model, or the text's share of a vision-language one, whose positions come in `sections`."""
    read.refuse_unless(NEUTRAL)
    refuse_quantization(read)
    if model_type == "ernie4_5":
        _refuse_experts(read)
    heads = read.integer("num_attention_heads", 1, 1024)
    hidden_size = read.integer("hidden_size", 1, 1 << 16)
    kv_heads = heads if read.absent("num_key_value_heads") else read.integer("num_key_value_heads", 1, 1024)
    mtp_layers = 0 if read.absent("num_nextn_predict_layers") else read.integer("num_nextn_predict_layers", 0, 16)
    config = ModelConfig(
        model_type=model_type,
        vocab_size=read.integer("vocab_size", 1, MAX_VOCAB),
        hidden_size=hidden_size,
        intermediate_size=read.integer("intermediate_size", 1, 1 << 20),
        num_hidden_layers=read.integer("num_hidden_layers", 1, 1024),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=_head_dim(read, hidden_size, heads),
        max_position_embeddings=read.integer("max_position_embeddings", 1, 1 << 24),
        rms_norm_eps=read.number("rms_norm_eps", 1e-20, 0.5),
        rope_theta=rotary_in(read, sections=sections).theta,
        compression_ratio=1.0 if read.absent("compression_ratio") else read.number("compression_ratio", 2**-16, 2**16),
        use_bias=read.boolean("use_bias"),
        tie_word_embeddings=read.boolean("tie_word_embeddings"),
        dtype=dtype_in(read),
        bos_token_id=token_id_in(read, "bos_token_id"),
        eos_token_id=token_ids_in(read, "eos_token_id"),
        pad_token_id=token_id_in(read, "pad_token_id"),
        num_nextn_predict_layers=mtp_layers,
        moe=_moe(read) if model_type == "ernie4_5_moe" else None,
    )
    refuse_window(read, config.max_position_embeddings)
    _check_together(config, read.where)
    return config


def _head_dim(read: Fields, hidden_size: int, heads: int) -> int:
    if read.absent("head_dim"):
        head_dim, rest = divmod(hidden_size, heads)
        source = "head_dim (hidden_size / num_attention_heads)"
        if rest or not 2 <= head_dim <= 1024:
            raise read.refusal(source, "impossible value", "an integer from 2 to 1024", hidden_size / heads)
    else:
        head_dim, source = read.integer("head_dim", 2, 1024), "head_dim"
    if head_dim % 2:
        raise read.refusal(source, "impossible value", "an even number", head_dim)
    return head_dim


def _refuse_experts(read: Fields) -> None:
    if not read.absent("moe_num_experts") and read.one_of("moe_num_experts", 0, 1024, _first) > 0:
        hint = "A mixture-of-experts model has model_type ernie4_5_moe"
        raise read.refusal("moe_num_experts", "a dense model with experts", "0", read.value("moe_num_experts"), hint)


def _moe(read: Fields) -> MoeConfig:
    """The text's share of what vision-language configs list by modality: the first entry, the widest layer range."""
    read.refuse_unless(MOE_NEUTRAL)
    last = read.integer("num_hidden_layers", 1, 1024) - 1
    # Vision-language configs count further than the text layers, so the end may lie beyond the last one.
    end = -1 if read.absent("moe_layer_end_index") else read.one_of("moe_layer_end_index", -1, 1 << 16, max)
    return MoeConfig(
        moe_num_experts=read.one_of("moe_num_experts", 1, 1024, _first),
        moe_k=read.integer("moe_k", 1, 1024),
        moe_intermediate_size=read.one_of("moe_intermediate_size", 1, 1 << 16, _first),
        moe_num_shared_experts=read.integer("moe_num_shared_experts", 0, 64),
        moe_layer_start_index=read.one_of("moe_layer_start_index", 0, 1023, min),
        moe_layer_end_index=last if end == -1 else min(end, last),
        moe_layer_interval=read.integer("moe_layer_interval", 1, 1024),
        moe_norm_min=read.number("moe_norm_min", 1e-30, 1.0),
        moe_use_aux_free=True if read.absent("moe_use_aux_free") else read.boolean("moe_use_aux_free"),
    )


def _first(entries: tuple[int, ...]) -> int:
    return entries[0]


def _check_together(config: ModelConfig, where: str) -> None:
    """What fields must satisfy with one another."""

    def demand(holds: bool, fields: str, what: str, expected: object, found: object) -> None:
        if not holds:
            raise ConfigError(what, where=f"{where}: {fields}", expected=expected, found=found)

    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    demand(
        heads % kv_heads == 0,
        "num_attention_heads, num_key_value_heads",
        "query heads cannot be shared out among kv heads",
        "the first to be a multiple of the second",
        f"{heads} and {kv_heads}",
    )
    ids = [i for i in (config.bos_token_id, *config.eos_token_id, config.pad_token_id) if i is not None]
    demand(
        max(ids, default=0) < config.vocab_size,
        "vocab_size, bos_token_id, eos_token_id, pad_token_id",
        "a special token lies outside the vocabulary",
        f"ids below {config.vocab_size}",
        max(ids, default=0),
    )
    layers, hidden, moe = config.num_hidden_layers, config.hidden_size, config.moe
    mlp = 3 * hidden * config.intermediate_size
    names = "num_hidden_layers, hidden_size, intermediate_size, num_attention_heads, head_dim, vocab_size"
    if moe is not None:
        demand(
            moe.moe_k <= moe.moe_num_experts,
            "moe_k (num_experts_per_tok), moe_num_experts (num_experts)",
            "more experts are active than exist",
            f"moe_k of at most {moe.moe_num_experts}",
            moe.moe_k,
        )
        demand(
            any(map(config.is_moe_layer, range(layers))),
            "moe_layer_start_index, moe_layer_end_index, moe_layer_interval, num_hidden_layers",
            "no layer has experts",
            f"a layer i < {layers} with start <= i <= end and (i + 1) % interval == 0",
            f"start {moe.moe_layer_start_index}, end {moe.moe_layer_end_index}, interval {moe.moe_layer_interval}",
        )
        demand(
            layers * moe.moe_num_experts <= MAX_EXPERTS,
            "num_hidden_layers, moe_num_experts (num_experts)",
            "the model is impossibly large",
            f"a product of at most {MAX_EXPERTS}",
            layers * moe.moe_num_experts,
        )
        experts = moe.moe_num_experts + moe.moe_num_shared_experts
        mlp = max(mlp, 3 * hidden * moe.moe_intermediate_size * experts)
        names += ", moe_intermediate_size, moe_num_experts, moe_num_shared_experts"
    attention = 2 * hidden * config.head_dim * (heads + kv_heads)
    parameters = layers * (attention + mlp) + 2 * config.vocab_size * hidden
    demand(
        parameters <= MAX_PARAMETERS,
        names,
        "the model is impossibly large",
        f"at most {MAX_PARAMETERS} parameters",
        f"about {parameters}",
    )
