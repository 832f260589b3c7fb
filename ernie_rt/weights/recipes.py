"""Recipes: which stored tensors make each graph weight, in every dialect of ERNIE 4.5 checkpoints.

- `pt`: the `-PT` repositories and what transformers writes: `model.` names, linears `[out, in]`, one tensor an expert.
- `packed`: what transformers writes with `save_original_format=False`: as `pt`, the experts of a pool packed in two.
- `paddle`: the `-Paddle` repositories: `ernie.` names, linears `[in, out]`, q, k and v fused, gate and up fused
  (`up_gate_proj` holds the gate first, despite its name), bfloat16 possibly stored as uint16.

Sources: the loaders of transformers (`conversion_mapping.py`), FastDeploy (`ernie4_5_moe.py`) and vLLM.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from ernie_rt.display import listed
from ernie_rt.errors import CheckpointError
from ernie_rt.graph.types import DTYPES, FLOATS
from ernie_rt.modeling.config import ModelConfig, MoeConfig
from ernie_rt.weights.expressions import Concat, Expression, Item, Rows, Stack, Stored, Transposed, View, stored_in
from ernie_rt.weights.safetensors import StoredTensor
from ernie_rt.weights.strangers import MERGE
from ernie_rt.weights.vision import vision_weights

Dialect = Literal["pt", "packed", "paddle"]

STORED_HEAD: Final = "lm_head.weight"
"""The head, in every dialect."""

FLOAT_DTYPES: Final = frozenset(DTYPES[dtype].stored for dtype in FLOATS)


@dataclass(frozen=True, slots=True)
class Unused:
    """Stored tensors that no graph reads: a regular expression for their whole names, and why."""

    pattern: str
    reason: str


NO_HEAD: Final = (
    "If the embedding is its head, set tie_word_embeddings to true in config.json; else fetch the file that has it"
)
SAME: Final = "Take config.json and the weights from the same repository"
TELLING: Final[tuple[tuple[str, str], ...]] = (
    (r"\.lora_[AB]\b|^base_model\.model\.", f"An adapter is not merged. {MERGE}"),
    (
        r"\.(qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|absmax|quant_state.*|quant_weight|in_scale)$",
        "Another tool quantised them: take the model that they were made of, and see `ernie-rt quantize`",
    ),
    (r"^(module|_orig_mod|_fsdp_wrapped_module)\.", "A trainer's wrapper is in the names: save the model inside it"),
    (r"^(score|classifier|v_head)\.", "It is not a language model: its head gives scores"),
    (r"\.experts\.\d+\.\w+_proj\.bias$", "transformers before 5 gave experts biases, which ERNIE's do not have"),
)
"""What tensors' names tell beside their model, by regular expressions, and what to do."""
VISION: Final = r"(model\.|ernie\.)?(vision_model|vision_tower|resampler_model)\..*"
"""The tower and the resampler of vision-language models, whose names have a prefix in some files."""
FOR_PICTURES: Final = "used for pictures and videos, and the text alone is loaded"
COMPUTED: Final = Unused(r".*\brotary_emb\.(inv_freq|cos_cached|sin_cached)", "rotary tables, which are computed")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Each graph weight's expression over stored tensors, and the stored tensors that are left out on purpose."""

    dialect: Dialect
    weights: Mapping[str, Expression]
    unused: tuple[Unused, ...]

    def check(self, tensors: Mapping[str, StoredTensor], where: str) -> list[tuple[str, str]]:
        """Return the unused tensors with the reason for each.

        Raises one CheckpointError that names every gap, leftover, wrong shape and wrong dtype.
        """
        wanted = {stored.name: stored.shape for weight in self.weights.values() for stored in stored_in(weight)}
        dtypes = FLOAT_DTYPES | {"U16"} if self.dialect == "paddle" else FLOAT_DTYPES
        unused, leftover, shapes, kinds = [], [], [], []
        for name, tensor in tensors.items():
            if name in wanted:
                if tensor.shape != wanted[name]:
                    shapes.append(f"{name} {list(tensor.shape)} instead of {list(wanted[name])}")
                if tensor.dtype not in dtypes:
                    kinds.append(f"{name} {tensor.dtype}")
                continue
            reason = next((each.reason for each in self.unused if re.fullmatch(each.pattern, name)), None)
            if reason is None:
                leftover.append(name)
            else:
                unused.append((name, reason))
        troubles = {
            "missing": [name for name in wanted if name not in tensors],
            "left over": leftover,
            "of a wrong shape": shapes,
            f"of a dtype other than {', '.join(sorted(dtypes))}": kinds,
        }
        found = "; ".join(f"tensors {what}, {listed(names)}" for what, names in troubles.items() if names)
        if found:
            raise CheckpointError(
                f"the weights do not fit config.json: {found}",
                where=where,
                hint=NO_HEAD if troubles["missing"] == [STORED_HEAD] else hint_for(leftover),
            )
        return unused


def dialect_of(names: Collection[str], where: str) -> Dialect:
    """Tell the dialect by the names of the stored tensors; CheckpointError for tensors of another model."""
    if any(name.startswith("ernie.") for name in names):
        return "paddle"
    if any(name.endswith((".mlp.experts.gate_up_proj", ".mlp.text_moe.experts.gate_up_proj")) for name in names):
        return "packed"
    if any(name.startswith("model.") for name in names):
        return "pt"
    raise CheckpointError(
        "these are not the tensors of an ERNIE 4.5 model",
        where=where,
        found=listed(names),
        hint=hint_for(names, otherwise=None),
    )


def hint_for(names: Collection[str], otherwise: str | None = SAME) -> str | None:
    """What tensors that no recipe has tell about whoever wrote them."""
    for pattern, hint in TELLING:
        if any(re.search(pattern, name) for name in names):
            return hint
    return otherwise


def tower_in(names: Iterable[str]) -> str | None:
    """What the names of the vision tower's tensors begin with; None where there are none."""
    matches = (re.match(r"((model|ernie)\.)?vision_(model|tower)\.", name) for name in names)
    return next((match[0] for match in matches if match), None)


def recipe(config: ModelConfig, dialect: Dialect, head_alone: bool = False, tower: str | None = None) -> Recipe:
    """The recipe for a model in a dialect; looks at no file.

    `head_alone`: of a tied pair the head is what is stored, as `save_model` of safetensors keeps the first by name.
    `tower` is what the names of the tower's tensors begin with (None: what transformers writes, or Baidu).
    """
    names: _Names = {"pt": _Names, "packed": _PackedNames, "paddle": _PaddleNames}[dialect](config)
    H, V = config.hidden_size, config.vocab_size
    weights: dict[str, Expression] = {
        "embed.weight": Stored(f"{names.prefix}embed_tokens.weight", (V, H)),
        "head.norm": Stored(f"{names.prefix}norm.weight", (H,)),
    }
    unused = list(names.unused)
    if head_alone:
        weights["embed.weight"] = names.linear(STORED_HEAD.removesuffix(".weight"), V, H)
    elif config.tie_word_embeddings:
        unused.append(Unused(re.escape(STORED_HEAD), "the same as the embedding, to which the model ties its head"))
    else:
        weights["head.weight"] = names.linear(STORED_HEAD.removesuffix(".weight"), V, H)
    if config.use_bias and config.moe is not None:
        weights["head.bias"] = Stored("lm_head.bias", (V,))
    for i in range(config.num_hidden_layers):
        layer = _layer(config, names, f"{names.prefix}layers.{i}.", config.moe if config.is_moe_layer(i) else None)
        weights |= {f"layers.{i}.{name}": expression for name, expression in layer.items()}
    if config.sees is not None:
        weights |= vision_weights(config.sees.tower, H, names, tower or names.tower)
    return Recipe(dialect, MappingProxyType(weights), tuple(unused))


def _layer(config: ModelConfig, names: _Names, at: str, moe: MoeConfig | None) -> dict[str, Expression]:
    H = config.hidden_size
    weights: dict[str, Expression] = {
        "attention.norm": Stored(f"{at}input_layernorm.weight", (H,)),
        "attention.qkv": names.qkv(f"{at}self_attn."),
        "attention.out": names.linear(f"{at}self_attn.o_proj", H, config.num_attention_heads * config.head_dim),
        "mlp.norm": Stored(f"{at}post_attention_layernorm.weight", (H,)),
    }
    if config.use_bias:
        weights["attention.qkv_bias"] = names.qkv_bias(f"{at}self_attn.")
        weights["attention.out_bias"] = Stored(f"{at}self_attn.o_proj.bias", (H,))
    if moe is None:
        return weights | _mlp(config, names, f"{at}mlp.", "mlp", config.intermediate_size)
    text = names.pool(f"{at}mlp.", moe, 0, moe.moe_intermediate_size)
    weights |= {f"mlp.{name}": expression for name, expression in text.items()}
    if config.sees is not None:
        vision = names.pool(f"{at}mlp.", moe, 1, config.sees.moe_intermediate_size)
        weights |= {f"mlp.vision.{name}": expression for name, expression in vision.items()}
    if moe.moe_num_shared_experts:
        weights |= _mlp(config, names, f"{at}mlp.shared_experts.", "mlp.shared", moe.shared_intermediate_size)
    return weights


def _mlp(config: ModelConfig, names: _Names, at: str, to: str, width: int) -> dict[str, Expression]:
    H = config.hidden_size
    weights: dict[str, Expression] = {
        f"{to}.gate_up": names.gate_up(at, width),
        f"{to}.down": names.linear(f"{at}down_proj", H, width),
    }
    if config.use_bias:
        weights[f"{to}.gate_up_bias"] = names.gate_up_bias(at, width)
        weights[f"{to}.down_bias"] = Stored(f"{at}down_proj.bias", (H,))
    return weights


class _Names:
    """Names and layouts of the `pt` dialect; the others override what they do differently."""

    prefix = "model."
    tower = "model.vision_model."
    resampler = "model.resampler_model."
    joint = ("0", "2", "3")
    """What the two linears and the norm of a step of the resampler are called."""
    correction_bias = "moe_statics.e_score_correction_bias"
    unused: tuple[Unused, ...] = (Unused(r"model\.mtp_.*", "speculative head, not used by the main graph"), COMPUTED)

    def __init__(self, config: ModelConfig) -> None:
        self.hidden = config.hidden_size
        self.q_rows = config.num_attention_heads * config.head_dim
        self.kv_rows = config.num_key_value_heads * config.head_dim
        self.with_vision = config.vision is not None
        if config.moe is not None and self.with_vision and config.sees is None:
            aside = (VISION, *self.second_pool(config.moe.moe_num_experts))
            self.unused = (*self.unused, *(Unused(pattern, FOR_PICTURES) for pattern in aside))

    def second_pool(self, experts: int) -> tuple[str, ...]:
        """The tensors of a vision-language model that serve pictures beside those that serve text, as expressions."""
        others = "|".join(map(str, range(experts, 2 * experts)))
        return rf".*\.mlp\.experts\.({others})\..*", r".*\.mlp\.gate\.weight_1"

    def pool(self, at: str, moe: MoeConfig, number: int, width: int) -> dict[str, Expression]:
        """A router and its experts: number 0 serves text, 1 vision, whose experts are counted on from text's."""
        E, pools = moe.moe_num_experts, 2 if self.with_vision else 1
        weights: dict[str, Expression] = {"gate": self.gate(f"{at}gate", E, number)}
        if moe.moe_use_aux_free:
            weights["correction_bias"] = Item(Stored(f"{at}{self.correction_bias}", (pools, E)), number)
        experts = range(number * E, (number + 1) * E)
        weights["experts.gate_up"], weights["experts.down"] = self.experts(f"{at}experts.", experts, width)
        return weights

    def gate(self, name: str, experts: int, number: int) -> View:
        """A router's weight `[E, H]`, which vision-language models store as `[H, E]`."""
        if self.with_vision:
            return Transposed(Stored(f"{name}.weight{'_1' * number}", (self.hidden, experts)))
        return self.linear(name, experts, self.hidden)

    def linear(self, name: str, rows: int, columns: int) -> View:
        """A linear's weight as `[rows, columns]`, that is `[out, in]`."""
        return Stored(f"{name}.weight", (rows, columns))

    def qkv(self, at: str) -> Expression:
        rows = {"q": self.q_rows, "k": self.kv_rows, "v": self.kv_rows}
        return Concat(tuple(self.linear(f"{at}{x}_proj", n, self.hidden) for x, n in rows.items()))

    def qkv_bias(self, at: str) -> Expression:
        rows = {"q": self.q_rows, "k": self.kv_rows, "v": self.kv_rows}
        return Concat(tuple(Stored(f"{at}{x}_proj.bias", (n,)) for x, n in rows.items()))

    def gate_up(self, at: str, width: int) -> Expression:
        """`[width, 2, H]`."""
        return Stack(tuple(self.linear(f"{at}{x}_proj", width, self.hidden) for x in ("gate", "up")), axis=1)

    def gate_up_bias(self, at: str, width: int) -> Expression:
        """`[width, 2]`."""
        return Stack(tuple(Stored(f"{at}{x}_proj.bias", (width,)) for x in ("gate", "up")), axis=1)

    def experts(self, at: str, experts: range, width: int) -> tuple[Expression, Expression]:
        """Gate and up `[E, I, 2, H]`, down `[E, H, I]`."""
        gate_up = tuple(self.gate_up(f"{at}{e}.", width) for e in experts)
        down = tuple(self.linear(f"{at}{e}.down_proj", self.hidden, width) for e in experts)
        return Stack(gate_up, axis=0), Stack(down, axis=0)


class _PackedNames(_Names):
    tower = "model.vision_tower."
    joint = ("fc1", "fc2", "ln")
    correction_bias = "gate.moe_statics.e_score_correction_bias"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pools = ("text_moe.", "vision_moe.") if self.with_vision else ("",)
        self.prefix = "model.language_model." if self.with_vision else "model."
        self.with_vision = False  # for each pool stands by itself, as in a text model

    def second_pool(self, experts: int) -> tuple[str, ...]:
        return (r".*\.mlp\.vision_moe\..*",)

    def pool(self, at: str, moe: MoeConfig, number: int, width: int) -> dict[str, Expression]:
        return super().pool(f"{at}{self.pools[number]}", moe, 0, width)

    def experts(self, at: str, experts: range, width: int) -> tuple[Expression, Expression]:
        E = len(experts)
        packed = Stored(f"{at}gate_up_proj", (E, 2 * width, self.hidden))
        gate_up = tuple(_halves(Item(packed, e), width) for e in experts)
        return Stack(gate_up, axis=0), Stored(f"{at}down_proj", (E, self.hidden, width))


class _PaddleNames(_Names):
    prefix = "ernie."
    tower = "vision_model."
    resampler = "ernie.resampler_model."
    unused: tuple[Unused, ...] = (
        Unused(r"ernie\.mtp_.*", "speculative head, not used by the main graph"),
        Unused(r".*(resampler_model.*|weight_1)", "left over from a vision-language model"),
        COMPUTED,
    )

    def linear(self, name: str, rows: int, columns: int) -> View:
        return Transposed(Stored(f"{name}.weight", (columns, rows)))

    def qkv(self, at: str) -> Expression:
        return self.linear(f"{at}qkv_proj", self.q_rows + 2 * self.kv_rows, self.hidden)

    def qkv_bias(self, at: str) -> Expression:
        return Stored(f"{at}qkv_proj.bias", (self.q_rows + 2 * self.kv_rows,))

    def gate_up(self, at: str, width: int) -> Expression:
        return _halves(self.linear(f"{at}up_gate_proj", 2 * width, self.hidden), width)

    def gate_up_bias(self, at: str, width: int) -> Expression:
        return _halves(Stored(f"{at}up_gate_proj.bias", (2 * width,)), width)


def _halves(fused: View, width: int) -> Expression:
    """All gate rows, then all up rows, as `[width, 2, …]`."""
    return Stack((Rows(fused, 0, width), Rows(fused, width, 2 * width)), axis=1)
