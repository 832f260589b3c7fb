"""What the tensors of each dialect are called, how they are laid out, and which of them no graph reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ernie_rt.modeling.config import ModelConfig, MoeConfig
from ernie_rt.weights.expressions import Concat, Expression, Item, Rows, Stack, Stored, Transposed, View


@dataclass(frozen=True, slots=True)
class Unused:
    """Stored tensors that no graph reads: a regular expression for their whole names, and why."""

    pattern: str
    reason: str


VISION: Final = r"(model\.|ernie\.)?(vision_model|vision_tower|resampler_model)\..*"
"""The tower and the resampler of vision-language models, whose names have a prefix in some files."""
FOR_PICTURES: Final = "used for pictures and videos, and the text alone is loaded"
COMPUTED: Final = Unused(r".*\brotary_emb\.(inv_freq|cos_cached|sin_cached)", "rotary tables, which are computed")


class Names:
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


class PackedNames(Names):
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


class PaddleNames(Names):
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
