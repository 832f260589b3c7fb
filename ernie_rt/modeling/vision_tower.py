"""What turns patches of pictures and videos into features, of which each takes the place of a token.

A tower of transformer blocks looks at each frame by itself. A resampler joins what it says of four patches that lie
together, and of two frames that follow each other; a picture is both frames of a pair. Sources: transformers'
`Ernie4_5_VLMoeVisionTransformerPretrainedModel` and `Ernie4_5_VLMoeVariableResolutionResamplerModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import DType, Storage, TensorType, Value, Weight
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.vision_language import VisionConfig, VisionLanguageConfig
from ernie_rt.modeling.weighted import WeightedBuilder
from ernie_rt.storage.rope import RopeTable

THETA: Final = 10000.0
LONGEST_SIDE: Final = 8400
"""How many rows and columns of patches there are tables for: more than a picture has of 67 million pixels, which is the
most that may be allowed, where one side is 200 times the other."""


def build_vision_graph(
    config: ModelConfig,
    vision: VisionLanguageConfig,
    dtype: DType | None = None,
    storages: Mapping[str, Storage] | None = None,
) -> Graph:
    """The `vision` graph: S patches to the output `features [F, H]`.

    `patches [S, C·p·p]` are normalised pixels, a patch a row; a frame's lie together, in blocks of two by two, and
    `frame [S]` counts frames. `places [S, 2]` are a patch's row and column in its frame, `blocks [M, 4]` the patches of
    each block, and `pairs [F, 2]` the two blocks, of two frames or twice the same, that become a feature.
    """
    return _Tower(config, vision.tower, dtype or config.dtype, storages or {}).build()


class _Tower:
    def __init__(self, config: ModelConfig, tower: VisionConfig, dtype: DType, storages: Mapping[str, Storage]) -> None:
        self.config = config
        self.tower = tower
        self.b = WeightedBuilder(dtype, config.dtype, storages)

    def build(self) -> Graph:
        b, tower, width = self.b, self.tower, self.tower.hidden_size
        pixels = tower.in_channels * tower.patch_size**2
        patches = b.input("patches", TensorType("float32", ("S", pixels)))
        places = b.input("places", TensorType("int32", ("S", 2)))
        frame = b.input("frame", TensorType("int32", ("S",)))
        blocks = b.input("blocks", TensorType("int32", ("M", 4)))
        pairs = b.input("pairs", TensorType("int32", ("F", 2)))
        with b.scope("vision"):
            cos, sin = self.rows("cos", places), self.rows("sin", places)
            with b.scope("patch"):
                x = b("linear", b("cast", patches, dtype=b.dtype), b.weight("weight", width, pixels))  # [S, W]
            for layer in range(tower.depth):
                with b.scope(f"layers.{layer}.attention"):
                    x = self.attention(x, cos, sin, frame)
                with b.scope(f"layers.{layer}.mlp"):
                    x = self.mlp(x)
            x = self.layer_norm(x, width)
            with b.scope("spatial"):
                x = self.joined(x, blocks, 4 * width)  # [M, 4W]
            with b.scope("temporal"):
                x = self.joined(x, pairs, 4 * width)  # [F, 4W]
            hidden = self.config.hidden_size
            with b.scope("features"):
                norm = b.weight("norm", hidden)
                x = self.linear(x, "linear", hidden)
                x = b("rms_norm", x, norm, eps=self.config.rms_norm_eps)  # [F, H]
        return b.finish("vision", {"features": x})

    def rows(self, function: Literal["cos", "sin"], places: Value) -> Value:
        """By what each patch is rotated: the first half of the frequencies by its row, the second by its column."""
        frequencies = self.tower.hidden_size // self.tower.num_heads // 4
        type = TensorType("float32", (LONGEST_SIDE, frequencies))
        table = Weight(f"vision.rope.{function}", type, RopeTable(function, THETA))
        with self.b.scope(f"rope.{function}"):
            halves = (self.b("rope_rows", table, places, columns=(column,) * frequencies) for column in (0, 1))
            return self.b("concat", *halves, axis=1)  # [S, D/2]

    def attention(self, x: Value, cos: Value, sin: Value, frame: Value) -> Value:
        b, width, heads = self.b, self.tower.hidden_size, self.tower.num_heads
        y = self.linear(self.layer_norm(x, width), "qkv", 3 * width)
        with b.scope("attend"):
            y = b(
                "rope_attention", y, cos, sin, None, None, frame,
                num_heads=heads, num_kv_heads=heads, head_dim=width // heads, scale=(width // heads) ** -0.5,
            )  # fmt: skip
        return self.residual(x, self.linear(y, "out", width))

    def mlp(self, x: Value) -> Value:
        y = self.linear(self.layer_norm(x, self.tower.hidden_size), "fc1", self.tower.intermediate_size)
        return self.residual(x, self.linear(self.gelu(y, "quick"), "fc2", self.tower.hidden_size))

    def joined(self, x: Value, rows: Value, width: int) -> Value:
        """An MLP of the rows of `x` that `rows [n, k]` names, side by side."""
        count, each = rows.type.dims
        assert isinstance(each, int) and isinstance(x.type.dims[1], int)
        with self.b.scope("join"):
            taken = self.b("take_rows", x, rows)
            y = self.b("reshape", taken, dims=(count, each * x.type.dims[1]))
        y = self.linear(self.gelu(self.linear(y, "fc1", width), "erf"), "fc2", width)
        return self.layer_norm(y, width)

    def linear(self, x: Value, name: str, rows: int) -> Value:
        columns = x.type.dims[1]
        assert isinstance(columns, int)
        weight, bias = self.b.weight(name, rows, columns), self.b.weight(f"{name}_bias", rows)
        with self.b.scope(name):
            return self.b("linear", x, weight, bias)

    def layer_norm(self, x: Value, width: int) -> Value:
        weight, bias = self.b.weight("norm", width), self.b.weight("norm_bias", width)
        with self.b.scope("norm"):
            return self.b("layer_norm", x, weight, bias, eps=self.tower.layer_norm_eps)

    def gelu(self, x: Value, form: str) -> Value:
        with self.b.scope("gelu"):
            return self.b("gelu", x, form=form)

    def residual(self, x: Value, y: Value) -> Value:
        with self.b.scope("residual"):
            return self.b("add", x, y)
