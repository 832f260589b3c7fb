"""A checkpoint's folder: shards, their index, names that lead elsewhere, links, pipes, and tensors that do not fit.

Whatever an index names, nothing is opened but what lies in the folder, or what a link in it leads to.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from safetensors.numpy import save

from ernie_rt.modeling.graphs import build_graphs, weights_of
from ernie_rt.weights.checkpoint import INDEX, INDEX_LIMIT, MAX_SHARDS, SINGLE, Checkpoint, has_weights
from ernie_rt.weights.source import CheckpointSource
from fuzz.mutations import TEXTS, changed, damaged, json_bytes, value
from fuzz.target import Attempt, Target
from support.configs import small
from support.untrained import weights

Tensors = dict[str, np.ndarray[Any, Any]]
SECRET = "secret.safetensors"
ELSEWHERE = (
    f"../{SECRET}", f"./../{SECRET}", "..", ".", "/", "", "a/b", "a\\b", SECRET, "x" * 256, "é", "a\0b", "/dev/zero",
    "/etc/passwd", "model.safetensors/x", "CON", "-rf", *TEXTS[:30],
)  # fmt: skip
OTHERS = (
    "pytorch_model.bin", "training_args.bin", "model.pdparams", "adapter_model.safetensors", "adapter_config.json",
    "model.safetensors.index.fp16.json", "model-00001-of-00003.safetensors", "model-00001-of-00600.safetensors",
    "other.safetensors", "pytorch_model.bin.index.json", "model.onnx", "x.safetensors", "optimizer.pt", "a.gguf",
    "model_state.pdparams", "params.json", "consolidated.00.pth", "mp_rank_00_model_states.pt", "__0_0.distcp",
)  # fmt: skip
NAMES = (
    "lm_head.weight", "model.x", "base_model.model.lora_A.weight", "model.layers.0.mlp.qweight", "module.x",
    "model.layers.1.mlp.experts.0.up_proj.bias", "ernie.embed_tokens.weight", "score.weight", "vision_model.x",
    "model.layers.1.mlp.experts.gate_up_proj", "model.mtp_block.0.x", "transformer.x",
    "model.layers.9.mlp.gate.weight",
)  # fmt: skip
LEADS = ("/dev/zero", "/proc/self/mem", "/sys/kernel/mm/transparent_hugepage/enabled", "nowhere", "x" * 255, "/")
"""Where links lead: to a device, to files that cannot be read or mapped, and nowhere."""
DTYPES = (np.float32, np.float16, np.int8, np.uint16, np.float64, np.bool_)


def broken_tensors(rng: Random, tensors: Tensors) -> Tensors:
    """Some of them of other names, shapes and dtypes."""
    made = dict(tensors)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        name = rng.choice(sorted(made))
        match rng.randrange(6):
            case 0:
                del made[name]
            case 1:
                made[rng.choice(NAMES)] = made[name] if rng.random() < 0.5 else made.pop(name)
            case 2:
                made[name] = made[name].reshape(rng.choice(((-1,), (*made[name].shape, 1), made[name].shape[::-1])))
            case 3:
                made[name] = np.zeros(made[name].shape, rng.choice(DTYPES))
            case 4:
                prefix = rng.choice(("", "ernie.", "module.model."))
                made = {each.replace("model.", prefix, 1): tensor for each, tensor in made.items()}
            case _:
                made["lm_head.weight"] = made.get("model.embed_tokens.weight", made[name])
                if rng.random() < 0.5:
                    made["lm_head.weight"] = made["lm_head.weight"][::-1].copy()
        if not made:
            return tensors
    return made


def write(rng: Random, folder: Path, tensors: Tensors) -> None:
    """A folder of one file or some, with an index; then one or two things in it become others."""
    names = sorted(tensors)
    count = rng.choice((1, 2, 2, 3))
    shards = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)] if count > 1 else [SINGLE]
    homes = {name: shards[number % count] for number, name in enumerate(names)}
    for shard in shards:
        held = {name: tensors[name] for name in names if homes[name] == shard}
        if rng.random() < 0.05:
            held[names[0]] = tensors[names[0]]
        (folder / shard).write_bytes(save(held))
    if count > 1 and rng.random() < 0.9:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": homes}
        if rng.random() < 0.6:
            index = broken_index(rng, index)
        (folder / INDEX).write_bytes(json_bytes(rng, index))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        place(rng, folder, rng.choice((rng.choice(shards), rng.choice(shards), INDEX, rng.choice(OTHERS))))
    if rng.random() < 0.1:
        for shard in rng.sample(shards, rng.randrange(1, count + 1)):
            if not (folder / shard).is_dir():
                (folder / shard).unlink(missing_ok=True)


def broken_index(rng: Random, index: dict[str, Any]) -> dict[str, Any]:
    homes = index["weight_map"]
    match rng.randrange(9):
        case 0 | 1 | 2:
            for name in rng.sample(sorted(homes), rng.choice((1, 1, len(homes)))):
                homes[name] = rng.choice(ELSEWHERE)
        case 3:
            homes[rng.choice(sorted(homes))] = value(rng)
        case 4:
            del homes[rng.choice(sorted(homes))]
        case 5:
            homes[rng.choice(NAMES)] = rng.choice((SINGLE, *homes.values(), "model-00009-of-00009.safetensors"))
        case 6 if rng.random() < 0.2:
            homes |= {f"x{n}": f"s{n}.safetensors" for n in range(MAX_SHARDS + 1)}
        case 7:
            index["metadata"] = rng.choice((value(rng), {"total_size": value(rng)}))
        case _:
            return changed(rng, index)  # type: ignore[no-any-return]
    return index


def place(rng: Random, folder: Path, name: str) -> None:
    """Something else under a name."""
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        return
    old = path.read_bytes() if path.is_file() and not path.is_symlink() else b"x"
    path.unlink(missing_ok=True)
    match rng.randrange(12):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(rng.choice((*LEADS, name)))
        case 3:
            linked = folder.parent / "linked" / name
            linked.write_bytes(old)
            path.symlink_to(linked)
        case 4:
            path.write_bytes(damaged(rng, old))
        case 5:
            path.write_bytes(rng.choice((b"", old[:-1], old + b"\0", b"PK\x03\x04", b"\x80\x02}q\x00.")))
        case 6:
            pass
        case 7:
            path.write_bytes(b" " * rng.choice((1, INDEX_LIMIT + 1)) + b"[]")
        case _:
            path.write_bytes(old)


class Opened:
    """What this process opens under a folder, while it is watched."""

    def __init__(self, root: Path) -> None:
        self._root, self._watching = str(root), False
        self.paths: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._watching and event in ("open", "os.listdir", "os.scandir"):
            path = os.path.realpath(os.fsdecode(arguments[0])) if isinstance(arguments[0], str | bytes | Path) else ""
            harmless = event != "open" and not Path(path).is_dir()  # which opens nothing but a folder
            if path.startswith((self._root, "/etc", "/dev")) and not harmless:
                self.paths.append(path)

    @contextmanager
    def watched(self) -> Iterator[None]:
        self.paths.clear()
        self._watching = True
        try:
            yield
        finally:
            self._watching = False


def start(scratch: Path) -> Attempt:
    config = small(num_hidden_layers=2, moe_num_experts=2, vocab_size=61)
    tensors = weights(config)
    wanted = list(weights_of(build_graphs(config, "float32")).values())
    buffers = {weight.name: np.empty(weight.parts["data"].shape({"P": 8}), np.float32) for weight in wanted}
    folder, linked = scratch / "model", scratch / "linked"
    (scratch / SECRET).write_bytes(save(tensors))
    opened = Opened(scratch)

    def attempt(rng: Random) -> None:
        for each in (folder, linked):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir()
        write(rng, folder, broken_tensors(rng, tensors))
        try:
            with opened.watched():
                has_weights(rng.choice((folder, folder, folder, folder / SINGLE)) if rng.random() < 0.1 else folder)
                if rng.random() < 0.01:
                    Checkpoint.open(folder / "nothing")
                source = CheckpointSource(Checkpoint.open(folder), config)
                try:
                    for weight in wanted:
                        source.fill(weight, "data", buffers[weight.name])
                finally:
                    source.close()
        finally:
            inside = (str(folder), str(linked))
            strange = [path for path in opened.paths if not path.startswith(inside)]
            assert not strange, f"opened outside of the folder: {strange}"

    return attempt


TARGET = Target(
    "checkpoint",
    ("ernie_rt.weights.checkpoint", "ernie_rt.weights.recipes", "ernie_rt.files"),
    start,
    share=1_200,
    excused={
        "a link that leaves its folder": "what is read here may be a link; `quantized` asks for own files",
    },
)
