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
from itertools import islice
from types import MappingProxyType
from typing import Final, Literal

from ernie_rt.display import listed
from ernie_rt.errors import CheckpointError
from ernie_rt.graph.types import DTYPES, FLOATS
from ernie_rt.modeling.config import ModelConfig, MoeConfig
from ernie_rt.weights.expressions import Expression, Stored, stored_in
from ernie_rt.weights.names import Names, PackedNames, PaddleNames, Unused
from ernie_rt.weights.safetensors import StoredTensor
from ernie_rt.weights.strangers import MERGE
from ernie_rt.weights.vision import vision_weights

Dialect = Literal["pt", "packed", "paddle"]

STORED_HEAD: Final = "lm_head.weight"
"""The head, in every dialect."""

FLOAT_DTYPES: Final = frozenset(DTYPES[dtype].stored for dtype in FLOATS)


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
        reasons = [(re.compile(each.pattern).fullmatch, each.reason) for each in self.unused]
        unused, leftover, shapes, kinds = [], [], [], []
        for name, tensor in tensors.items():
            if name in wanted:
                if tensor.shape != wanted[name]:
                    shapes.append(f"{name} {list(tensor.shape)} instead of {list(wanted[name])}")
                if tensor.dtype not in dtypes:
                    kinds.append(f"{name} {tensor.dtype}")
                continue
            reason = next((reason for fits, reason in reasons if fits(name)), None)
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


LOOKED_AT: Final = 1000
"""Names of tensors: one tells as much as the next."""


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
    some = [*islice(names, LOOKED_AT)]
    for pattern, hint in TELLING:
        if any(re.search(pattern, name) for name in some):
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
    names: Names = {"pt": Names, "packed": PackedNames, "paddle": PaddleNames}[dialect](config)
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


def _layer(config: ModelConfig, names: Names, at: str, moe: MoeConfig | None) -> dict[str, Expression]:
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


def _mlp(config: ModelConfig, names: Names, at: str, to: str, width: int) -> dict[str, Expression]:
    H = config.hidden_size
    weights: dict[str, Expression] = {
        f"{to}.gate_up": names.gate_up(at, width),
        f"{to}.down": names.linear(f"{at}down_proj", H, width),
    }
    if config.use_bias:
        weights[f"{to}.gate_up_bias"] = names.gate_up_bias(at, width)
        weights[f"{to}.down_bias"] = Stored(f"{at}down_proj.bias", (H,))
    return weights
