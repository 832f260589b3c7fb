"""Hugging Face transformers on the CPU or a GPU, in the process that is measured: bare forwards, without `generate`.

Attention is sdpa. Of the implementations that it has for experts a trial takes the fastest of each phase.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Final

import torch
import transformers

from ernie_rt.location import Located
from ernie_rt.modeling.config import ModelConfig
from ernie_rt_bench.models import find_model

EXPERTS: Final = ("grouped_mm", "eager", "batched_mm")
COPIED_BYTES: Final = 4 << 30
"""batched_mm copies the experts of every token: it is tried only while that stays below this."""
TRIAL: Final = 8
"""Tokens that a trial decodes."""
POOL: Final = 33_554_393
"""Random numbers that weights repeat, at changing places: drawing billions would take minutes."""


class Transformers:
    """The same weights, or random ones in the same shapes."""

    def __init__(
        self, model: str, layers: int | None, device: str, dtype: str, threads: int | None, contexts: Sequence[int]
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        located = find_model(model, layers)
        config = located.config
        self._device = torch.device("cpu" if device == "auto" else device)
        kept = getattr(torch, config.dtype if dtype == "auto" else dtype)
        self.vocabulary = config.vocab_size
        self._model = (random_network(config, kept) if located.folder is None else _opened(located, kept)).to(
            self._device
        )
        self._experts: dict[str, str] = {}
        self._given: tuple[torch.Tensor, Any, int] | None = None
        self.facts: dict[str, Any] = {
            "name": f"transformers {str(kept).removeprefix('torch.')}",
            "backend": f"transformers {version('transformers')}, torch {version('torch')}",
            "device": str(self._device),
            "random": located.folder is None,
        }
        if located.folder is None:
            self.facts["first"] = None
        if config.moe is not None:
            self._experts = self._fastest(config, max(contexts))
            self.facts["experts"] = self._experts

    def prefill(self, ids: Sequence[int], new: int) -> None:
        self._use("prefill")
        self._given = (*self._forward(torch.tensor([list(ids)], device=self._device), None), new)

    @torch.inference_mode()
    def decode(self) -> None:
        assert self._given is not None
        self._use("decode")
        token, past, new = self._given
        for _ in range(new):
            token, past = self._forward(token, past)
        token.item()
        self._given = None

    def by_op(self, ids: Sequence[int]) -> Sequence[Mapping[str, Any]]:
        return ()

    def close(self) -> None:
        pass

    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
        out = self._model(ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(dim=-1, keepdim=True)
        if self._device.type != "cpu" and past is None:
            token.item()  # or the time of a prompt would be that of starting it
        return token, out.past_key_values

    def _use(self, phase: str) -> None:
        if phase in self._experts:
            self._model.set_experts_implementation(self._experts[phase])

    def _fastest(self, config: ModelConfig, context: int) -> dict[str, str]:
        """The implementation of experts that took the least time of each phase."""
        moe = config.moe
        assert moe is not None
        copied = context * moe.moe_k * 3 * moe.moe_intermediate_size * config.hidden_size * 2
        ids, taken = list(range(3, 3 + context)), dict[tuple[str, str], float]()
        self.prefill(ids[:16], 1)
        for experts in EXPERTS:
            for phase in ("prefill", "decode"):
                usable = phase == "decode" or experts != "batched_mm" or copied < COPIED_BYTES
                self._experts[phase] = experts if usable else EXPERTS[0]
                began = time.perf_counter()
                self.prefill(ids, TRIAL) if phase == "prefill" else self.decode()
                if usable:
                    taken[phase, experts] = time.perf_counter() - began
        return {
            phase: min((e for e in EXPERTS if (phase, e) in taken), key=lambda e: taken[phase, e])
            for phase in ("prefill", "decode")
        }


def _opened(located: Located, dtype: torch.dtype) -> Any:
    auto: Any = transformers.AutoModelForCausalLM
    return auto.from_pretrained(located.folder, dtype=dtype, attn_implementation="sdpa").eval()


def random_network(config: ModelConfig, dtype: torch.dtype) -> Any:
    """A network of these shapes; its tables of positions are made anew, since those on no device hold no numbers."""
    fields = asdict(config)
    fields |= fields.pop("moe") or {}
    known = transformers.AutoConfig.for_model(
        fields.pop("model_type"), **{**fields, "dtype": dtype, "eos_token_id": list(config.eos_token_id)}
    )
    auto: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):
        network = auto.from_config(known, dtype=dtype, attn_implementation="sdpa").eval()
    network.to_empty(device="cpu")
    network.tie_weights()
    network.model.rotary_emb = type(network.model.rotary_emb)(known)
    pool = (torch.randn(POOL, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
    offset = 0
    for name, parameter in network.named_parameters():
        flat = parameter.data.view(-1)
        if "norm" in name or name.endswith("e_score_correction_bias"):
            flat.fill_(1.0 if "norm" in name else 0.0)
            continue
        for start in range(0, len(flat), len(pool)):
            piece = flat[start : start + len(pool)]
            offset = (offset + 7_919) % len(pool)
            piece.copy_(pool.roll(-offset)[: len(piece)])
    return network
