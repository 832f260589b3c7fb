"""A quantised folder: its manifest, its files and what lies beside them; as it is loaded, and by `verify`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from ernie_rt.export import verify
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.integrity import BESIDE_LIMIT
from ernie_rt.weights.manifest import ALIGNMENT, MANIFEST, read_manifest
from ernie_rt.weights.quantize import Quantization, quantize_model
from ernie_rt.weights.quantized import QuantizedSource
from fuzz.mutations import NUMBERS, TEXTS, changed, damaged, json_bytes, value
from fuzz.target import Attempt, Target
from support.drawn import DENSE, write_drawn

CONFIG = DENSE | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 40}
STORAGES = (
    {"kind": "block_quantized"}, {"kind": "plain", "dtype": "float32"}, {"kind": "rope_table"}, {"kind": "x"}, {}, "x",
)  # fmt: skip
BESIDE = (
    "README.md",
    "tokenizer.json",
    "model.py",
    "pytorch_model.bin",
    "LICENSE",
    "\x1b[2J",
    "generation_config.json",
)


def made(folder: Path) -> dict[str, bytes]:
    """The files of a whole one."""
    write_drawn(folder / "checkpoint", CONFIG)
    (folder / "checkpoint" / "generation_config.json").write_text('{"do_sample": false}')
    out = folder / "out"
    quantize_model(folder / "checkpoint", read_config(folder / "checkpoint"), out, Quantization(4))
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def broken_manifest(rng: Random, manifest: Any) -> Any:
    """The manifest with something else in it that it might have."""
    shards = manifest["shards"]
    shard = shards[rng.choice(sorted(shards))]
    weight = rng.choice(sorted(shard["weights"]))
    match rng.randrange(11):
        case 0:
            shard["nbytes"] = rng.choice((*NUMBERS, shard["nbytes"] + 1, str(shard["nbytes"])))
        case 1:
            shard["sha256"] = rng.choice(("0" * 64, "x" * 64, value(rng), shard["sha256"].upper()))
        case 2:
            storage = shard["weights"][weight]["storage"]
            shard["weights"][weight]["storage"] = rng.choice((value(rng), *STORAGES, changed(rng, storage)))
        case 3:
            shard["weights"][rng.choice((*TEXTS, "layers.9.mlp.down"))] = shard["weights"].pop(weight)
        case 4:
            shards[rng.choice((*TEXTS, "../x", "model-00009-of-00009.safetensors"))] = shards.pop(sorted(shards)[0])
        case 5:
            manifest["beside"] = rng.choice((None, value(rng), {}, dict.fromkeys(BESIDE, "0" * 64)))
        case 6:
            manifest["plan"] = rng.choice((value(rng), {"format": rng.choice(("onnx", "x", 3))}, {}))
        case 7:
            manifest["format"] = rng.choice((2, "1", 1.0, True, value(rng)))
        case 8:
            shard["weights"][weight]["error"] = value(rng)
        case _:
            return changed(rng, manifest, rng.choice((1, 1, 2)))
    return manifest


def change(rng: Random, folder: Path, whole: dict[str, bytes]) -> None:
    """One thing of a folder becomes another, now and then with its digest put right."""
    name = rng.choice(sorted(whole))
    path = folder / name
    match rng.randrange(11):
        case 9:
            place = ALIGNMENT * rng.randrange(1 + len(whole[name]) // ALIGNMENT)
            data = whole[name][:place] + b"\xff" * 64 + whole[name][place + 64 :]
            put(path, data[: len(whole[name])])
            reseal(folder, name, data[: len(whole[name])], whole)
        case 10 if rng.random() < 0.1:
            os.truncate(folder / rng.choice(("config.json", "generation_config.json")), BESIDE_LIMIT + 1)
        case 8:
            data = whole[name].replace(b"F32", b"I32").replace(b"BF16", b"F16 ")
            put(path, data)
            reseal(folder, name, data, whole)
        case 0 | 1 | 2:
            manifest = json.loads(whole[MANIFEST])
            put(folder / MANIFEST, json_bytes(rng, broken_manifest(rng, manifest)))
        case 3:
            put(path, damaged(rng, whole[name]))
        case 4:
            data = damaged(rng, whole[name])
            put(path, data)
            reseal(folder, name, data, whole)
        case 5:
            path.unlink()
            rng.choice(
                (lambda: None, path.mkdir, lambda: os.mkfifo(path), lambda: lead(rng, path), lambda: lead(rng, path))
            )()
        case 6:
            (folder / rng.choice(BESIDE)).write_bytes(b"{}")
        case _:
            os.link(path, folder.parent / f"another {rng.random()}")


def put(path: Path, data: bytes) -> None:
    """A file of its own: what a link there leads to is left alone."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def lead(rng: Random, path: Path) -> None:
    other = path.parent.parent / "elsewhere"
    other.write_bytes(b"{}")
    path.symlink_to(rng.choice((other, "/dev/zero", "/proc/self/mem", "/proc/self/mem", path.name, "nowhere")))


def reseal(folder: Path, name: str, data: bytes, whole: dict[str, bytes]) -> None:
    """The manifest with the digest of a file as it is now."""
    manifest = json.loads(whole[MANIFEST])
    digest = hashlib.sha256(data).hexdigest()
    if name in manifest["shards"]:
        manifest["shards"][name] |= {"sha256": digest, "nbytes": len(data)}
    elif name in (manifest["beside"] or {}):
        manifest["beside"][name] = digest
    put(folder / MANIFEST, json.dumps(manifest).encode())


def start(scratch: Path) -> Attempt:
    whole = made(scratch)
    place = scratch / "place"
    folder = place / "folder"
    config = read_config(scratch / "out")

    def attempt(rng: Random) -> None:
        shutil.rmtree(place, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        for _ in range(rng.choice((1, 1, 1, 2))):
            if all((folder / name).is_file() for name in whole):
                change(rng, folder, whole)
        match rng.randrange(4):
            case 0 | 3:
                verify(folder, numbers=rng.random() < 0.05)
            case 1:
                read_manifest(folder / MANIFEST)
            case _:
                source = QuantizedSource(folder, config, reread=True)
                try:
                    for weight in source.weights:
                        out = np.empty(weight.type.shape(), np.float32)
                        source.fill(weight.plain, "data", out)
                finally:
                    source.close()

    return attempt


TARGET = Target(
    "quantized",
    ("ernie_rt.weights.manifest", "ernie_rt.weights.quantized", "ernie_rt.weights.integrity"),
    start,
    share=1_000,
    excused={
        'raise IntegrityError("cannot be read"': "a disk that fails, which tests/faults has",
        "raise GraphError(": "what asks for a weight is the graph that the folder was held to",
    },
)
