"""Which stored tensors make the weights of a vision tower, and of the resampler behind it."""

from __future__ import annotations

from ernie_rt.modeling.vision_language import VisionConfig
from ernie_rt.weights.expressions import Concat, Expression, Interleaved, Rows, Stored, View
from ernie_rt.weights.names import Names


def vision_weights(tower: VisionConfig, hidden: int, names: Names, at: str) -> dict[str, Expression]:
    """Of the graph `vision`, whose features are `hidden` wide; the names of the tower's tensors begin with `at`."""
    width, inner = tower.hidden_size, tower.intermediate_size

    def linear(to: str, name: str, rows: int, columns: int) -> dict[str, Expression]:
        return {to: names.linear(name, rows, columns), f"{to}_bias": Stored(f"{name}.bias", (rows,))}

    def norm(to: str, name: str, size: int) -> dict[str, Expression]:
        return {f"{to}norm": Stored(f"{name}.weight", (size,)), f"{to}norm_bias": Stored(f"{name}.bias", (size,))}

    weights: dict[str, Expression] = {
        "vision.patch.weight": names.linear(f"{at}patch_embed.proj", width, tower.in_channels * tower.patch_size**2)
    }
    for layer in range(tower.depth):
        block, to = f"{at}blocks.{layer}.", f"vision.layers.{layer}."
        qkv = f"{block}attn.qkv"
        weights |= norm(f"{to}attention.", f"{block}norm1", width)
        weights[f"{to}attention.qkv"] = _neighbours(names.linear(qkv, 3 * width, width), tower)
        weights[f"{to}attention.qkv_bias"] = _neighbours(Stored(f"{qkv}.bias", (3 * width,)), tower)
        weights |= linear(f"{to}attention.out", f"{block}attn.proj", width, width)
        weights |= norm(f"{to}mlp.", f"{block}norm2", width)
        weights |= linear(f"{to}mlp.fc1", f"{block}mlp.fc1", inner, width)
        weights |= linear(f"{to}mlp.fc2", f"{block}mlp.fc2", width, inner)
    weights |= norm("vision.", f"{at}ln", width)
    four = 4 * width  # two by two patches side by side
    for step, columns in (("spatial", four), ("temporal", 2 * four)):
        first, second, last = (f"{names.resampler}{step}_linear.{name}" for name in names.joint)
        weights |= linear(f"vision.{step}.fc1", first, four, columns)
        weights |= linear(f"vision.{step}.fc2", second, four, four)
        weights |= norm(f"vision.{step}.", last, four)
    weights |= linear("vision.features.linear", f"{names.resampler}mlp", hidden, four)
    weights["vision.features.norm"] = Stored(f"{names.resampler}after_norm.weight", (hidden,))
    return weights


def _neighbours(qkv: View, tower: VisionConfig) -> Expression:
    """q, k and v with the rows of each head of q and k reordered: stored, the elements i and i + D/2 turn together; in
    a graph, as everywhere there, 2i and 2i + 1. Scores stay as they are, since q and k are reordered alike."""
    width = tower.hidden_size
    turned = Interleaved(Rows(qkv, 0, 2 * width), 2 * tower.num_heads)
    return Concat((turned, Rows(qkv, 2 * width, 3 * width)))
