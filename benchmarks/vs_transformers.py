"""ernie-rt eager against Hugging Face transformers: same weights, bfloat16, same threads, alternating rounds.

Both sides load one folder of random weights in one process and take turns; which of them begins changes with every
round. Each round also measures how fast memory can be read at that moment, twice: a plain sum over 1 GiB by all
threads, and `torch.nn.functional.linear` on one bfloat16 row. transformers runs sdpa attention and, for prefill and
decode each, the experts implementation that a trial found fastest; its loop is bare forwards, without `generate`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import ernie_rt

MODELS: dict[str, dict[str, Any]] = {
    "0.3B": {"model_type": "ernie4_5"},
    "21B-slice": {"model_type": "ernie4_5_moe", "num_hidden_layers": 4},
}
"""Departures from transformers' default configs, which are those of 0.3B and 21B-A3B."""
EXPERTS = ("grouped_mm", "eager", "batched_mm")
COPIED_BYTES = 4 << 30
"""batched_mm copies the experts of every token: it is tried only while that stays below 4 GiB."""
READ_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds of one prefill, and per token decoded after it."""

    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class Round:
    read_gbps: float
    linear_gbps: float
    ours: Turn
    theirs: Turn


def write_model(model: str, workdir: Path) -> Path:
    """Write a checkpoint of the right shapes with weights of standard deviation 0.02, once per workdir.

    The weights repeat 33 million random numbers at changing offsets: drawing billions would take minutes.
    """
    import transformers

    folder = workdir / f"ernie-4.5-{model}"
    if (folder / "config.json").exists():
        return folder
    settings = dict(MODELS[model])
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    auto: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):
        network = auto.from_config(config, dtype=torch.bfloat16)
    network.to_empty(device="cpu")
    network.tie_weights()
    pool = torch.randn(33_554_393, generator=torch.Generator().manual_seed(0)) * 0.02
    offset = 0
    for name, parameter in network.named_parameters():
        if "norm" in name:
            parameter.data.fill_(1.0)
            continue
        if name.endswith("e_score_correction_bias"):
            parameter.data.zero_()
            continue
        flat = parameter.data.view(-1)
        for start in range(0, len(flat), len(pool)):
            piece = flat[start : start + len(pool)]
            offset = (offset + 7_919) % len(pool)
            piece.copy_(pool.roll(-offset)[: len(piece)])
    unfinished = workdir / f"{folder.name}.unfinished"
    network.save_pretrained(unfinished)
    unfinished.rename(folder)
    return folder


class Transformers:
    """The peer; `prefill` and `decode` name the experts implementations, None for a dense model."""

    def __init__(self, folder: Path) -> None:
        import transformers

        auto: Any = transformers.AutoModelForCausalLM
        self.model = auto.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
        self.prefill_experts: str | None = None
        self.decode_experts: str | None = None

    def choose_experts(self, ids: Sequence[int], decode: int) -> dict[str, dict[str, float | None]]:
        """Try each experts implementation and keep the fastest of each phase; return the seconds of all."""
        config = self.model.config
        if config.model_type != "ernie4_5_moe":
            return {}
        copied = len(ids) * config.moe_k * 2 * config.moe_intermediate_size * config.hidden_size * 2
        usable = {"prefill": [e for e in EXPERTS if e != "batched_mm" or copied < COPIED_BYTES], "decode": [*EXPERTS]}
        trials: dict[str, dict[str, float | None]] = {"prefill": {}, "decode": {}}
        for experts in EXPERTS:
            self.decode_experts = experts
            self.prefill_experts = experts if experts in usable["prefill"] else EXPERTS[0]
            turn = self.turn(ids, decode)
            trials["prefill"][experts] = turn.prefill if experts in usable["prefill"] else None
            trials["decode"][experts] = turn.decode
        self.prefill_experts = min(usable["prefill"], key=lambda experts: trials["prefill"][experts] or 0.0)
        self.decode_experts = min(usable["decode"], key=lambda experts: trials["decode"][experts] or 0.0)
        return trials

    @torch.no_grad()
    def turn(self, ids: Sequence[int], decode: int) -> Turn:
        start = time.perf_counter()
        self._use(self.prefill_experts)
        out = self.model(torch.tensor([list(ids)]), use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(dim=-1, keepdim=True)
        middle = time.perf_counter()
        self._use(self.decode_experts)
        for _ in range(decode):
            out = self.model(token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(dim=-1, keepdim=True)
        token.item()
        return Turn(middle - start, (time.perf_counter() - middle) / decode)

    def _use(self, experts: str | None) -> None:
        if experts is not None:
            self.model.set_experts_implementation(experts)

    def decode_bytes(self, context: int) -> int:
        """Bytes that one token must read: active weights once, a tied embedding as the head only, K and V rows."""
        config = self.model.config
        heads, head_dim = config.num_attention_heads, getattr(config, "head_dim", None)
        kv_width = config.num_key_value_heads * (head_dim or config.hidden_size // heads)
        total: int = context * config.num_hidden_layers * 2 * kv_width * 2
        for name, parameter in self.model.named_parameters():
            nbytes = parameter.numel() * parameter.element_size()
            if "mlp.experts." in name:
                nbytes = nbytes * config.moe_k // config.moe_num_experts
            if "embed_tokens" in name and not config.tie_word_embeddings:
                continue
            total += nbytes
        return total


class Ours:
    """ernie-rt, token by token."""

    def __init__(self, model: ernie_rt.Model) -> None:
        self.model = model

    def turn(self, ids: Sequence[int], decode: int) -> Turn:
        start = time.perf_counter()
        tokens = self.model.stream_ids(ids, max_new_tokens=1 + decode, ignore_eos=True)
        next(tokens)
        middle = time.perf_counter()
        assert len(list(tokens)) == decode
        return Turn(middle - start, (time.perf_counter() - middle) / decode)


class Memory:
    """How fast memory is read now, in GB/s: the best of three passes over 1 GiB each."""

    def __init__(self) -> None:
        self.buffer = torch.ones(READ_BYTES // 8, dtype=torch.int64)
        self.weight = torch.ones(READ_BYTES // 2 // 2560, 2560, dtype=torch.bfloat16)
        self.row = torch.ones(1, 2560, dtype=torch.bfloat16)

    def read(self) -> float:
        return self._best(self.buffer, lambda: self.buffer.sum())

    def linear(self) -> float:
        return self._best(self.weight, lambda: F.linear(self.row, self.weight))

    @staticmethod
    def _best(tensor: torch.Tensor, run: Callable[[], torch.Tensor]) -> float:
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return tensor.nbytes / min(seconds) / 1e9


@contextmanager
def workdir_of(path: Path | None) -> Iterator[Path]:
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def compare(folder: Path, prompt: int, decode: int, rounds: int, threads: int) -> dict[str, Any]:
    """Run the rounds and return every figure."""
    theirs = Transformers(folder)
    ids = np.random.default_rng(0).integers(3, theirs.model.config.vocab_size, size=prompt).tolist()
    memory = Memory()
    with ernie_rt.load(
        folder, backend="eager", device="cpu", dtype="bfloat16", max_context=prompt + decode + 1
    ) as model:
        ours = Ours(model)
        theirs.turn(ids[:16], 2)
        trials = theirs.choose_experts(ids, decode=8)
        ours.turn(ids, 2)
        done = []
        for number in range(rounds):
            read, linear = memory.read(), memory.linear()
            if number % 2:
                first = ours.turn(ids, decode)
                done.append(Round(read, linear, first, theirs.turn(ids, decode)))
            else:
                second = theirs.turn(ids, decode)
                done.append(Round(read, linear, ours.turn(ids, decode), second))
    return {
        "prompt": prompt,
        "decode": decode,
        "threads": threads,
        "torch": torch.__version__,
        "experts": {"prefill": theirs.prefill_experts, "decode": theirs.decode_experts, "trials_s": trials},
        "decode_bytes": theirs.decode_bytes(prompt + decode // 2),
        "rounds": [asdict(each) for each in done],
        "figures": figures(done, prompt, theirs.decode_bytes(prompt + decode // 2)),
    }


def figures(rounds: Sequence[Round], prompt: int, decode_bytes: int) -> dict[str, dict[str, float]]:
    """Each figure's median, smallest and largest over the rounds; ratios and shares are taken within a round."""
    series: dict[str, list[float]] = {
        "plain read, GB/s": [r.read_gbps for r in rounds],
        "F.linear on one row, GB/s": [r.linear_gbps for r in rounds],
        "prefill, ernie-rt, tokens/s": [prompt / r.ours.prefill for r in rounds],
        "prefill, transformers, tokens/s": [prompt / r.theirs.prefill for r in rounds],
        "prefill, ernie-rt over transformers": [r.theirs.prefill / r.ours.prefill for r in rounds],
        "decode, ernie-rt, tokens/s": [1 / r.ours.decode for r in rounds],
        "decode, transformers, tokens/s": [1 / r.theirs.decode for r in rounds],
        "decode, ernie-rt over transformers": [r.theirs.decode / r.ours.decode for r in rounds],
        "decode, ernie-rt, GB/s": [decode_bytes / r.ours.decode / 1e9 for r in rounds],
        "decode, transformers, GB/s": [decode_bytes / r.theirs.decode / 1e9 for r in rounds],
        "decode, ernie-rt, share of F.linear": [decode_bytes / r.ours.decode / 1e9 / r.linear_gbps for r in rounds],
        "decode, transformers, share of F.linear": [
            decode_bytes / r.theirs.decode / 1e9 / r.linear_gbps for r in rounds
        ],
    }
    return {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in series.items()
    }


def table(model: str, report: dict[str, Any]) -> str:
    experts = report["experts"]
    lines = [
        f"{model}: prompt {report['prompt']}, decode {report['decode']}, bfloat16, {report['threads']} threads, "
        f"torch {report['torch']}, {len(report['rounds'])} rounds",
        f"a decoded token reads {report['decode_bytes'] / 1e9:.3f} GB",
    ]
    if experts["trials_s"]:
        lines.append(f"transformers' experts: {experts['prefill']} for prefill, {experts['decode']} for decode")
    lines.append(f"{'':42}{'median':>10}{'min':>10}{'max':>10}")
    for name, figure in report["figures"].items():
        lines.append(f"{name:42}" + "".join(f"{figure[key]:10.3g}" for key in ("median", "min", "max")))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="0.3B")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--decode", type=int, default=64, help="tokens decoded after it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workdir", type=Path, help="where the checkpoint is kept; else in a temporary folder")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with workdir_of(args.workdir) as workdir:
        report = compare(write_model(args.model, workdir), args.prompt, args.decode, args.rounds, args.threads)
    print(json.dumps({"model": args.model, **report}, indent=2) if args.json else table(args.model, report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
