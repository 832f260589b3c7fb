"""Hugging Face transformers as the judge: logits, greedy continuations and router gaps of a checkpoint folder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from support.checkpoints import Spec, write_checkpoint

GREEDY_TOKENS = 48
MIN_RMS = 1.0
MIN_ROUTER_GAP = 2e-6
"""Between the last expert taken and the first one left; float32 moves it by about 1e-7."""
MIN_MARGIN = 1e-4
"""Between the best two logits of a greedy step, over their rms: five times the error that float32 is allowed."""
MIN_VARIETY = 8
"""Distinct tokens among all greedy ones of a checkpoint: a loop of two would prove little."""
MAX_FLOAT32_PARTS = 9e-7
"""What transformers' own float32 norms, rotation and router may contribute to its float64 logits."""

Floats = NDArray[np.float64]


class Float64Throughout(TorchFunctionMode):
    """Turn the casts to float32 in transformers' norms, rotation and router into casts to float64.

    While `in_rope`, angles and tables stay float32, which is the model's definition, but cos and sin are correctly
    rounded: torch's own float32 functions miss the last bit in one of twenty places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.in_rope = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.in_rope:
            if func in (torch.Tensor.cos, torch.Tensor.sin):
                return func(args[0].to(torch.float64)).to(torch.float32)
            return func(*args, **kwargs)
        if func is torch.Tensor.float:
            return args[0].double()
        if torch.float32 in args:
            args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        if kwargs.get("dtype") is torch.float32:
            kwargs = kwargs | {"dtype": torch.float64}
        return func(*args, **kwargs)


class Judge:
    """A checkpoint in transformers, in one dtype; `sdpa`, since its eager attention takes the softmax in float32."""

    def __init__(self, folder: Path, dtype: Literal["float64", "float32", "bfloat16"] = "float64") -> None:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", experts_implementation="eager"
        )
        self.model = model.eval()
        self.model.generation_config.eos_token_id = None
        self.router_gap = math.inf
        self.router_choices = self.router_choices_by_bias = 0
        for name, module in model.named_modules():
            if name.endswith("mlp.gate"):
                module.register_forward_hook(self._watch)

    def _watch(self, gate: Any, inputs: Any, outputs: Any) -> None:
        logits, _, chosen = outputs
        probabilities = torch.softmax(logits.double(), dim=-1)
        biased = probabilities + gate.moe_statics.e_score_correction_bias.double().squeeze()
        ranked = biased.sort(dim=-1, descending=True).values
        self.router_gap = min(self.router_gap, (ranked[:, gate.top_k - 1] - ranked[:, gate.top_k]).min().item())
        unbiased = probabilities.topk(gate.top_k).indices.sort().values
        self.router_choices += len(chosen)
        self.router_choices_by_bias += int((unbiased != chosen.sort().values).any(dim=-1).sum())

    @torch.no_grad()
    def logits(self, ids: Sequence[int], *, float64_throughout: bool = False) -> Floats:
        """Logits after every token, as float64."""
        if float64_throughout:
            return exact_logits(self.model, ids)
        return _numpy(self.model(torch.tensor([list(ids)]), use_cache=False).logits[0])

    @torch.no_grad()
    def greedy(self, ids: Sequence[int], tokens: int = GREEDY_TOKENS) -> tuple[list[int], float]:
        """`tokens` greedy tokens by `generate`, and the smallest margin between the best two logits, over their rms."""
        prompt = torch.tensor([list(ids)])
        result = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        logits = torch.cat(result.logits).double()  # [tokens, V]
        best, second = logits.topk(2).values.unbind(dim=-1)
        margin = (best - second).min() / logits.square().mean().sqrt()
        return result.sequences[0, len(ids) :].tolist(), margin.item()


@torch.no_grad()
def exact_logits(model: Any, ids: Sequence[int]) -> Floats:
    """The logits after every token, of a model of transformers whose weights are float64, float64 throughout."""
    with float64_throughout(model):
        return _numpy(model(torch.tensor([list(ids)]), use_cache=False).logits[0])


@contextmanager
def float64_throughout(model: Any) -> Iterator[None]:
    """Whatever a model of transformers whose weights are float64 computes meanwhile, it computes in float64."""
    mode = Float64Throughout()
    hooks = []
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            hooks.append(module.register_forward_pre_hook(lambda *_: setattr(mode, "in_rope", True)))
            hooks.append(module.register_forward_hook(lambda *_: setattr(mode, "in_rope", False)))
    with mode:
        yield
    for hook in hooks:
        hook.remove()


@dataclass(slots=True)
class Oracle:
    """A calibrated checkpoint and what transformers in float64 makes of it, per prompt length."""

    spec: Spec
    folder: Path
    seed: int
    prompts: dict[int, list[int]] = field(default_factory=dict)
    logits: dict[int, Floats] = field(default_factory=dict)  # [N, V]
    exact: dict[int, Floats] = field(default_factory=dict)  # [N, V], float64 throughout
    greedy: dict[int, list[int]] = field(default_factory=dict)
    margin: float = math.inf
    router_gap: float = math.inf
    bias_share: float = 0.0

    @property
    def rms(self) -> float:
        return min(rms(logits) for length, logits in self.logits.items() if length >= 100)

    @property
    def float32_parts(self) -> float:
        return max(worst(logits, self.exact[length]) for length, logits in self.logits.items())

    @property
    def variety(self) -> int:
        return len({token for tokens in self.greedy.values() for token in tokens})

    def flaws(self) -> list[str]:
        """Why float32 noise could change a token or an expert here, or a part of the model go unnoticed."""
        found = []
        if self.rms < MIN_RMS:
            found.append(f"logits rms {self.rms:.2f} < {MIN_RMS}")
        if self.router_gap < MIN_ROUTER_GAP:
            found.append(f"router gap {self.router_gap:.1e} < {MIN_ROUTER_GAP:.0e}")
        if self.margin < MIN_MARGIN:
            found.append(f"greedy margin {self.margin:.1e} < {MIN_MARGIN:.0e}")
        if self.variety < MIN_VARIETY:
            found.append(f"{self.variety} distinct greedy tokens < {MIN_VARIETY}")
        if self.float32_parts > MAX_FLOAT32_PARTS:
            found.append(f"float32 parts of transformers {self.float32_parts:.1e} > {MAX_FLOAT32_PARTS:.0e}")
        if self.spec.is_moe and not 0.2 <= self.bias_share <= 0.95:
            found.append(f"the correction bias changes {self.bias_share:.0%} of the choices")
        return found


def calibrate(spec: Spec, folder: Path, attempts: int = 20) -> Oracle:
    """Write `spec` with the first seed from `spec.seed` on that has no flaws, and judge it."""
    tried = []
    for seed in range(spec.seed, spec.seed + attempts):
        judge = Judge(write_checkpoint(spec, folder, seed))
        oracle = Oracle(spec, folder, seed)
        for length in spec.prompts:
            ids = prompt(spec, length)
            oracle.prompts[length], oracle.logits[length] = ids, judge.logits(ids)
            oracle.exact[length] = judge.logits(ids, float64_throughout=True)
            oracle.greedy[length], margin = judge.greedy(ids)
            oracle.margin = min(oracle.margin, margin)
        oracle.router_gap = judge.router_gap
        oracle.bias_share = judge.router_choices_by_bias / max(judge.router_choices, 1)
        flaws = oracle.flaws()
        if not flaws:
            return oracle
        tried.append(f"seed {seed}: {', '.join(flaws)}")
    raise AssertionError(f"{spec.name}: no seed is calibrated\n" + "\n".join(tried))


def prompt(spec: Spec, length: int) -> list[int]:
    """`length` random ids, the same for every checkpoint of one vocabulary."""
    return np.random.default_rng(length).integers(spec.config["vocab_size"], size=length).tolist()


def rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def worst(actual: NDArray[Any], expected: Floats) -> float:
    """The largest difference, over the rms of the expected values."""
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    return float(np.abs(actual - expected).max()) / rms(expected)


def noise(actual: NDArray[Any], expected: Floats) -> float:
    """The rms of the difference, over the rms of the expected values."""
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    return rms(actual - expected) / rms(expected)


def _numpy(tensor: torch.Tensor) -> Floats:
    return tensor.double().numpy()
