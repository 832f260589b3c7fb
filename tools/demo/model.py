"""ERNIE 4.5's mixture of experts for training: plain PyTorch, float32, documents packed in rows.

The computation is that of transformers' Ernie4_5_MoeForCausalLM, with ERNIE's layer for predicting one token further
(multi-token prediction, MTP), which transformers has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernie_rt.modeling.config import ModelConfig, MoeConfig, parse_config
from ernie_rt.storage.rope import RopeTable, rope_table

CONFIG: Final[dict[str, object]] = {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "model_type": "ernie4_5_moe",
    "vocab_size": 4032,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "use_bias": False,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "moe_num_experts": 16,
    "moe_k": 4,
    "moe_intermediate_size": 64,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": -1,
    "moe_layer_interval": 1,
    "moe_use_aux_free": True,
    "num_nextn_predict_layers": 1,
}
"""21B-A3B's config.json, made small."""


STRETCH: Final = 64
"""An expert gets a multiple of so many rows: PyTorch prepares a product in bfloat16 anew for each new shape."""

ADDED_TO_STREAM: Final = ("o_proj.weight", "down_proj.weight", ".down", "attn.proj.weight", "fc2.weight")


def demo_config(**changes: object) -> ModelConfig:
    return parse_config(CONFIG | changes, "the demo's config")


@dataclass(frozen=True, slots=True)
class Routing:
    """What one layer's router did: tokens sent to each expert `[E]`, and its logits `[N, E]`."""

    load: Tensor
    logits: Tensor


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        H, D = config.hidden_size, config.head_dim
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = D
        self.q_proj = nn.Linear(H, self.heads * D, bias=False)
        self.k_proj = nn.Linear(H, self.kv_heads * D, bias=False)
        self.v_proj = nn.Linear(H, self.kv_heads * D, bias=False)
        self.o_proj = nn.Linear(self.heads * D, H, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        B, T, _ = x.shape
        fused = F.linear(x, torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)))
        parts = torch.split(fused.view(B, T, -1, self.head_dim), [self.heads, self.kv_heads, self.kv_heads], dim=2)
        with torch.autocast(x.device.type, enabled=False):  # PyTorch's attention is slower on a CPU in bfloat16
            q, k, v = (part.float() for part in parts)
            q, k = rotate(q, rope), rotate(k, rope)
            k, v = (each.repeat_interleave(self.heads // self.kv_heads, dim=2) for each in (k, v))
            q, k, v = (each.transpose(1, 2) for each in (q, k, v))
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(out.transpose(1, 2).reshape(B, T, -1))  # type: ignore[no-any-return]


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate adjacent pairs of `[B, T, heads, D]` by the tables `[T, 1, D/2]`, or by a row of them for each token."""
    even, odd = x[..., ::2], x[..., 1::2]
    cos, sin = rope
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


class Mlp(nn.Module):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Pool(nn.Module):
    """Experts of which each token uses `moe_k`, chosen by a router whose correction bias does nothing else."""

    def __init__(self, hidden: int, moe: MoeConfig, width: int) -> None:
        super().__init__()
        E = moe.moe_num_experts
        self.top_k, self.norm_min = moe.moe_k, moe.moe_norm_min
        self.gate = nn.Linear(hidden, E, bias=False)
        self.correction_bias = nn.Buffer(torch.zeros(E))
        self.gate_up = nn.Parameter(torch.empty(E, 2 * width, hidden))
        self.down = nn.Parameter(torch.empty(E, hidden, width))

    def routed(self, flat: Tensor) -> tuple[Tensor, Tensor, Routing]:
        """What experts add to rows `[N, H]`: the rows that it is added to `[M]`, each of them several times, and what
        is added `[M, H]`."""
        with torch.autocast(flat.device.type, enabled=False):
            logits = self.gate(flat)
        probabilities = logits.softmax(-1)
        chosen = (probabilities + self.correction_bias).topk(self.top_k).indices  # [N, A]
        weights = probabilities.gather(1, chosen)
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(self.norm_min)
        # Sorted by expert, so that each works on one stretch of rows, the last of which count for nothing.
        order = chosen.flatten().argsort(stable=True)
        load = torch.bincount(chosen.flatten(), minlength=len(self.correction_bias))
        room = (load + STRETCH - 1) // STRETCH * STRETCH
        moved = (room - load).cumsum(0) - (room - load)
        at = torch.arange(len(order), device=flat.device) + moved[chosen.flatten()[order]]
        tokens = order.new_zeros(int(room.sum())).scatter(0, at, order // self.top_k)
        share = weights.new_zeros(len(tokens), 1).scatter(0, at[:, None], weights.flatten()[order, None])
        sizes = room.tolist()
        rows, shares = torch.split(flat[tokens], sizes), torch.split(share, sizes)
        parts = []
        for x_e, share_e, gate_up, down in zip(rows, shares, self.gate_up, self.down, strict=True):
            gate, up = F.linear(x_e, gate_up).chunk(2, dim=-1)
            parts.append(F.linear(F.silu(gate) * up * share_e, down))
        return tokens, torch.cat(parts), Routing(load, logits)


class Experts(Pool):
    """A pool, and shared experts that every token uses."""

    def __init__(self, hidden: int, moe: MoeConfig) -> None:
        super().__init__(hidden, moe, moe.moe_intermediate_size)
        self.shared_experts = Mlp(hidden, moe.shared_intermediate_size)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        flat = x.flatten(0, 1)
        tokens, added, routing = self.routed(flat)
        return self.shared_experts(flat).index_add(0, tokens, added).view_as(x), routing


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, moe: MoeConfig | None) -> None:
        super().__init__()
        H, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = nn.RMSNorm(H, eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(H, eps)
        self.mlp = Mlp(H, config.intermediate_size) if moe is None else Experts(H, moe)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None) -> tuple[Tensor, Routing | None]:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask)
        out = self.mlp(self.post_attention_layernorm(x))
        added, routing = out if isinstance(out, tuple) else (out, None)
        return x + added, routing


class Mtp(nn.Module):
    """From a token's last hidden state and the token after it, the hidden state that predicts the one after that."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        H, eps = config.hidden_size, config.rms_norm_eps
        self.emb_norm = nn.RMSNorm(H, eps)
        self.hidden_norm = nn.RMSNorm(H, eps)
        self.linear_proj = nn.Linear(2 * H, H, bias=False)
        self.block = Layer(config, None)

    def forward(self, hidden: Tensor, embedded: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        x = self.linear_proj(torch.cat((self.emb_norm(embedded), self.hidden_norm(hidden)), dim=-1))
        return self.block(x.to(hidden.dtype), rope, mask)[0]  # type: ignore[no-any-return]


class Ernie(nn.Module):
    """The model; `documents` of a batch tells which tokens may see each other."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Layer(config, config.moe if config.is_moe_layer(index) else None)
            for index in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mtp = Mtp(config)
        columns = config.head_dim // 2
        tables = (RopeTable(f, config.rope_theta, config.compression_ratio) for f in ("cos", "sin"))
        cos, sin = (torch.from_numpy(rope_table(t, config.max_position_embeddings, columns)) for t in tables)
        self.cos = nn.Buffer(cos[:, None], persistent=False)
        self.sin = nn.Buffer(sin[:, None], persistent=False)
        initialise(self, config.num_hidden_layers, seed)

    def forward(self, ids: Tensor, documents: Tensor) -> tuple[Tensor, list[Routing]]:
        """Hidden states before the last norm `[B, T, H]`, and what the routers did; ids and documents are `[B, T]`."""
        rope, mask = self._surroundings(documents)
        x, routings = self.embed(ids), []
        for layer in self.layers:
            x, routing = layer(x, rope, mask)
            if routing is not None:
                routings.append(routing)
        return x, routings

    def further(self, hidden: Tensor, ids: Tensor, documents: Tensor) -> Tensor:
        """Hidden states `[B, T - 1, H]` that predict the token after the next, by the MTP layer."""
        rope, mask = self._surroundings(documents[:, :-1])
        out: Tensor = self.mtp(hidden[:, :-1], self.embed(ids[:, 1:]), rope, mask)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(self.norm(hidden), self.embed.weight)

    def _surroundings(self, documents: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """Rotary tables, and the mask `[B, 1, T, T]`: none where each row is one document."""
        T = documents.shape[1]
        rope = self.cos[:T], self.sin[:T]
        if bool((documents == documents[:, :1]).all()):
            return rope, None
        return rope, (documents[:, :, None] == documents[:, None, :]).tril()[:, None]


def initialise(model: nn.Module, layers: int, seed: int) -> None:
    """Random weights by one rule; what adds to the stream of a token begins smaller the more `layers` do so."""
    generator = torch.Generator().manual_seed(seed)
    depth = (2 * layers) ** -0.5
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
        if parameter.ndim == 1:
            continue
        fan_in = parameter.shape[-1]
        scale = 0.02 if name == "embed.weight" else fan_in**-0.5
        if name.endswith(".gate.weight"):  # almost no preference yet, which a small bias can balance
            scale *= 0.1
        if name.endswith(ADDED_TO_STREAM):
            scale *= depth
        parameter.data.normal_(0.0, scale, generator=generator)


def experts_of(model: Ernie) -> list[Experts]:
    return [layer.mlp for layer in model.layers if isinstance(layer.mlp, Experts)]


def stored_tensors(model: Ernie) -> dict[str, Tensor]:
    """The model under the tensor names of a -PT release: bfloat16, the router float32."""
    state: dict[str, Any] = dict(model.state_dict())
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith("mlp.correction_bias"):
            tensors[name.replace("correction_bias", "moe_statics.e_score_correction_bias")] = tensor[None]
        elif name.endswith("mlp.gate_up"):
            for expert, (gate, up) in enumerate(each.chunk(2) for each in tensor):
                at = name.replace("gate_up", f"experts.{expert}")
                tensors |= {f"{at}.gate_proj.weight": gate, f"{at}.up_proj.weight": up}
        elif name.endswith("mlp.down"):
            for expert, down in enumerate(tensor):
                tensors[name.replace("mlp.down", f"mlp.experts.{expert}.down_proj.weight")] = down
        elif name.startswith("mtp."):
            part, _, rest = name.removeprefix("mtp.").partition(".")
            tensors[f"mtp_{part}.0.{rest}"] = tensor
        else:
            tensors[name.replace("embed.weight", "embed_tokens.weight")] = tensor
    router = ("mlp.gate.weight", "e_score_correction_bias")
    return {
        f"model.{name}": tensor.detach()
        .to("cpu", torch.float32 if name.endswith(router) else torch.bfloat16)
        .contiguous()
        for name, tensor in tensors.items()
    }


def load_tensors(model: Ernie, stored: dict[str, Tensor]) -> None:
    """Read back what `stored_tensors` gave."""
    state: dict[str, Any] = model.state_dict()
    own = {name: tensor.detach().float() for name, tensor in stored.items()}

    def experts(at: str, part: str, count: int) -> Tensor:
        return torch.stack([own[f"model.{at}experts.{expert}.{part}_proj.weight"] for expert in range(count)])

    for name, tensor in state.items():
        at = name.rpartition("mlp.")[0] + "mlp."
        if name.endswith("mlp.correction_bias"):
            value = own[f"model.{at}moe_statics.e_score_correction_bias"][0]
        elif name.endswith("mlp.gate_up"):
            value = torch.cat((experts(at, "gate", len(tensor)), experts(at, "up", len(tensor))), dim=1)
        elif name.endswith("mlp.down"):
            value = experts(at, "down", len(tensor))
        elif name.startswith("mtp."):
            part, _, rest = name.removeprefix("mtp.").partition(".")
            value = own[f"model.mtp_{part}.0.{rest}"]
        else:
            value = own["model." + name.replace("embed.weight", "embed_tokens.weight")]
        tensor.copy_(value)
