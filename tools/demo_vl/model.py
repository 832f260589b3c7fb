"""ERNIE 4.5-VL for training: plain PyTorch, float32, a talk in each row.

The computation is that of transformers' Ernie4_5_VLMoeForConditionalGeneration, with Baidu's rule for routing: every
id from the placeholder on goes to the experts of vision.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.model import Attention, Mlp, Pool, Routing, initialise
from demo_vl.batches import HUES, WHATS, Sights
from ernie_rt.modeling.config import ModelConfig, MoeConfig, parse_config
from ernie_rt.storage.rope import RopeTable, rope_table

CONFIG: Final[dict[str, object]] = {
    "architectures": ["Ernie4_5_VLMoeForConditionalGeneration"],
    "model_type": "ernie4_5_moe_vl",
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 384,
    "im_patch_id": 1000,
    "image_start_token_id": 1002,
    "image_end_token_id": 1003,
    "video_start_token_id": 1004,
    "video_end_token_id": 1005,
    "max_position_embeddings": 2048,
    "moe_capacity": [128, 128, 128],
    "moe_gate": "topk",
    "moe_intermediate_size": [96, 32],
    "moe_k": 2,
    "moe_layer_start_index": [1, 1],
    "moe_layer_end_index": [4, 4],
    "moe_layer_interval": 1,
    "moe_num_experts": [8, 8],
    "moe_num_shared_experts": 2,
    "moe_use_aux_free": True,
    "num_attention_heads": 4,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "pixel_hidden_size": 96,
    "rms_norm_eps": 1e-05,
    "rope_3d": True,
    "rope_theta": 100,
    "rope_scaling": {"type": "default", "mrope_section": [5, 5, 6]},
    "spatial_conv_size": 2,
    "temporal_conv_size": 2,
    "tie_word_embeddings": True,
    "use_rmsnorm": True,
    "use_bias": False,
    "vision_config": {
        "depth": 4,
        "embed_dim": 96,
        "hidden_size": 96,
        "hidden_act": "quick_gelu",
        "mlp_ratio": 4,
        "num_heads": 4,
        "patch_size": 14,
        "spatial_patch_size": 14,
        "spatial_merge_size": 2,
        "in_channels": 3,
        "in_chans": 3,
    },
}
"""VL-28B-A3B's config.json, made small."""


def demo_config(**changes: object) -> ModelConfig:
    return parse_config(CONFIG | changes, "demo-vl's config")


class TowerAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        P, S, W = x.shape
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = F.linear(x.float(), self.qkv.weight, self.qkv.bias).view(P, S, 3, self.heads, -1).unbind(2)
            q, k = (rotate_halves(each, cos, sin) for each in (q, k))
            q, k, v = (each.transpose(1, 2) for each in (q, k, v))
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(P, S, W))  # type: ignore[no-any-return]


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + D/2) of `[P, S, heads, D]` by the tables `[S, 1, D/2]`."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class TowerMlp(nn.Module):
    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inside)
        self.fc2 = nn.Linear(inside, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc1(x)
        return self.fc2(y * torch.sigmoid(1.702 * y))  # type: ignore[no-any-return]


class TowerBlock(nn.Module):
    def __init__(self, width: int, inside: int, heads: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = TowerAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = TowerMlp(width, inside)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Tower(nn.Module):
    """Patches `[P, S, 588]` of pictures of one size to `[P, S, W]`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.vision is not None
        tower = config.vision.tower
        width, eps = tower.hidden_size, tower.layer_norm_eps
        self.patch_embed = nn.ModuleDict({"proj": nn.Linear(3 * tower.patch_size**2, width, bias=False)})
        self.blocks = nn.ModuleList(
            TowerBlock(width, tower.intermediate_size, tower.num_heads, eps) for _ in range(tower.depth)
        )
        self.ln = nn.LayerNorm(width, eps)
        columns = width // tower.num_heads // 4
        cos, sin = (torch.from_numpy(rope_table(RopeTable(f, 10000.0), 64, columns)) for f in ("cos", "sin"))
        self.cos, self.sin = nn.Buffer(cos, persistent=False), nn.Buffer(sin, persistent=False)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """`grid` are the rows and columns of blocks."""
        rows, columns = (torch.arange(2 * side) for side in grid)
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        places = places.view(grid[0], 2, grid[1], 2, 2).transpose(1, 2).reshape(-1, 2)
        cos, sin = (table[places].flatten(1)[:, None] for table in (self.cos, self.sin))  # [S, 1, D/2]: rows, columns
        x = self.patch_embed["proj"](patches)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.ln(x)  # type: ignore[no-any-return]


class Resampler(nn.Module):
    """Blocks of 2x2 patches to features; a picture takes the place of both frames of a video."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.vision is not None
        tower = config.vision.tower
        inside, eps = 4 * tower.hidden_size, tower.layer_norm_eps

        def mlp(width: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(width, inside), nn.GELU(), nn.Linear(inside, inside), nn.LayerNorm(inside, eps)
            )

        self.spatial_linear = mlp(inside)
        self.temporal_linear = mlp(2 * inside)
        self.mlp = nn.Linear(inside, config.hidden_size)
        self.after_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spatial_linear(x.reshape(x.shape[0], x.shape[1] // 4, -1))
        return self.after_norm(self.mlp(self.temporal_linear(torch.cat((x, x), dim=-1))))  # type: ignore[no-any-return]


class TwoPools(nn.Module):
    """Experts of text and experts of vision, and shared ones that serve both."""

    def __init__(self, hidden: int, moe: MoeConfig, vision_width: int) -> None:
        super().__init__()
        self.text = Pool(hidden, moe, moe.moe_intermediate_size)
        self.vision = Pool(hidden, moe, vision_width)
        self.shared_experts = Mlp(hidden, moe.shared_intermediate_size)

    def forward(self, x: Tensor, rows: tuple[Tensor, Tensor]) -> tuple[Tensor, list[Routing]]:
        """`rows` are the places of text and of vision among all tokens."""
        flat = x.flatten(0, 1)
        out, routings = self.shared_experts(flat), []
        for pool, at in zip((self.text, self.vision), rows, strict=True):
            tokens, added, routing = pool.routed(flat[at])
            out = out.index_add(0, at[tokens], added)
            routings.append(routing)
        return out.view_as(x), routings


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, sparse: bool) -> None:
        super().__init__()
        H, eps = config.hidden_size, config.rms_norm_eps
        assert config.moe is not None and config.vision is not None
        self.input_layernorm = nn.RMSNorm(H, eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(H, eps)
        self.mlp = (
            TwoPools(H, config.moe, config.vision.moe_intermediate_size) if sparse else Mlp(H, config.intermediate_size)
        )

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], rows: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, list[Routing]]:
        x = x + self.self_attn(self.input_layernorm(x), rope, None)
        y = self.post_attention_layernorm(x)
        if isinstance(self.mlp, Mlp):
            return x + self.mlp(y), []
        added, routings = self.mlp(y, rows)
        return x + added, routings


class ErnieVL(nn.Module):
    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        assert config.vision is not None
        self.config, self.vision = config, config.vision
        width = self.vision.tower.hidden_size
        self.vision_model = Tower(config)
        self.resampler_model = Resampler(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, config.is_moe_layer(i)) for i in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.says = nn.ModuleDict({"what": nn.Linear(width, len(WHATS)), "hue": nn.Linear(width, len(HUES))})
        """What the tower says of each patch, in training alone."""
        self.reads = nn.Linear(config.hidden_size, 4 * len(WHATS))
        """What a feature says of the four patches that it is made of, in training alone."""
        columns = config.head_dim // 2
        cos, sin = (
            torch.from_numpy(rope_table(RopeTable(f, config.rope_theta), config.max_position_embeddings, columns))
            for f in ("cos", "sin")
        )
        self.cos, self.sin = nn.Buffer(cos, persistent=False), nn.Buffer(sin, persistent=False)
        high = sum(self.vision.mrope_section[:2])
        self.axis = [1 + i % 2 if i < high else 0 for i in range(columns)]  # of each frequency: t, h or w
        initialise(self, config.num_hidden_layers, seed)

    def see(self, sights: Sights) -> tuple[Tensor, Tensor]:
        """What the tower makes of each patch `[P, S, W]`, and the resampler of each block `[P, S/4, H]`."""
        seen = self.vision_model(sights.patches, sights.grid)
        return seen, self.resampler_model(seen)

    def forward(self, ids: Tensor, positions: Tensor, features: Tensor) -> tuple[Tensor, list[Routing]]:
        """Hidden states before the last norm `[B, T, H]`, and what the routers did.

        `features` take the place of the placeholders among `ids [B, T]`, in their order; positions are `[B, T, 3]`.
        """
        x = self.embed(ids)
        at = (ids == self.vision.image_token_id).flatten().nonzero()[:, 0]
        x = x.flatten(0, 1).index_copy(0, at, features.flatten(0, 1).to(x.dtype)).view_as(x)
        place = positions[..., self.axis]  # [B, T, D/2]
        rope = tuple(
            table.gather(0, place.flatten(0, 1)).view(*place.shape[:2], 1, -1) for table in (self.cos, self.sin)
        )
        flat = ids.flatten()
        text = ((flat < self.vision.image_token_id) & (flat != 0)).nonzero()[:, 0]
        vision = (flat >= self.vision.image_token_id).nonzero()[:, 0]
        routings: list[Routing] = []
        for layer in self.layers:
            x, found = layer(x, rope, (text, vision))
            routings += found
        return x, routings

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(self.norm(hidden), self.embed.weight)


def pools_of(model: ErnieVL) -> list[Pool]:
    """In the order of a forward's routings."""
    found = [layer.mlp for layer in model.layers if isinstance(layer.mlp, TwoPools)]
    return [pool for each in found for pool in (each.text, each.vision)]
