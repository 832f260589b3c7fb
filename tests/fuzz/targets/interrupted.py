"""A quantisation that was interrupted, in a folder that was changed since: it is finished as usual, or refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.modeling.config import read_config
from ernie_rt.weights.folder import PROGRESS
from ernie_rt.weights.manifest import MANIFEST
from ernie_rt.weights.quantize import Quantization, quantize_model
from fuzz.mutations import changed, damaged, json_bytes, value
from fuzz.target import Attempt, Target
from support.drawn import DENSE, write_drawn

CONFIG = DENSE | {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 40, "head_dim": 8}
OTHERS = ("code.py", "tokenizer.json", "chat_template.jinja", "README.md", "model-00009-of-00009.safetensors", ".x.tmp",
          "generation_config.json", "config.json", MANIFEST, "pytorch_model.bin", "\x1b[2J")  # fmt: skip


def begun(rng: Random, whole: dict[str, bytes], manifest: dict[str, Any]) -> dict[str, bytes]:
    """The files of a run that ended somewhere: those of weights that are written, and what says so."""
    shards = sorted(manifest["shards"])
    written = shards[: rng.randrange(len(shards) + 1)]
    known = {name: manifest["shards"][name] for name in written[: rng.choice((len(written), rng.randrange(4)))]}
    progress = {key: said for key, said in manifest.items() if key != "beside"} | {"shards": known}
    return {name: whole[name] for name in written} | {PROGRESS: json.dumps(progress).encode()}


def disturb(rng: Random, folder: Path) -> None:
    """Something in it becomes something else, or comes to it."""
    names = sorted(path.name for path in folder.iterdir())
    path = folder / rng.choice((*names, rng.choice(OTHERS)))
    old = path.read_bytes() if path.is_file() and not path.is_symlink() else b"{}"
    match rng.randrange(10):
        case 0 | 1:
            put(path, damaged(rng, old))
        case 2 | 3:
            progress = json.loads((folder / PROGRESS).read_bytes()) if rng.random() < 0.9 else {}
            if rng.random() < 0.3:
                progress["plan"] = {**progress.get("plan", {}), rng.choice(("source", "bits", "x")): value(rng)}
            put(folder / PROGRESS, json_bytes(rng, changed(rng, progress)))
        case 4:
            path.unlink(missing_ok=True)
            other = folder.parent / "elsewhere"
            other.write_bytes(old)
            rng.choice(
                (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(other), lambda: os.link(other, path))
            )()
        case 5:
            put(path, old)
            path.chmod(rng.choice((0o666, 0o622, 0o444)))
        case 6:
            folder.chmod(0o777)
        case 7:
            path.unlink(missing_ok=True)
        case 8:
            put(path, old + bytes(rng.choice((1, 4096))))
        case _:
            put(folder / rng.choice(OTHERS), b"{}")


def put(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def said(files: dict[str, bytes]) -> dict[str, Any]:
    """What files say, but for the rounding errors of those that were written before, which are told and not checked,
    and the manifest's digest, which goes by them."""
    manifest = json.loads(files[MANIFEST])
    del manifest["sha256"]
    for shard in manifest["shards"].values():
        for weight in shard["weights"].values():
            weight.pop("error", None)
    return {**files, MANIFEST: manifest}


def start(scratch: Path) -> Attempt:
    checkpoint = write_drawn(scratch / "checkpoint", CONFIG)
    (checkpoint / "generation_config.json").write_text("{}")
    config, how = read_config(checkpoint), Quantization(8)
    quantize_model(checkpoint, config, scratch / "whole", how)
    whole = {path.name: path.read_bytes() for path in (scratch / "whole").iterdir()}
    manifest, usual = json.loads(whole[MANIFEST]), said(whole)
    place = scratch / "place"

    def attempt(rng: Random) -> None:
        shutil.rmtree(place, ignore_errors=True)
        partial = place / "out.partial"
        partial.mkdir(parents=True)
        for name, data in begun(rng, whole, manifest).items():
            (partial / name).write_bytes(data)
        if rng.random() < 0.9:
            disturb(rng, partial)
        quantize_model(checkpoint, config, place / "out", how)
        made = {path.name: path.read_bytes() for path in (place / "out").iterdir()}
        assert said(made) == usual, "other files than usual"

    return attempt


TARGET = Target(
    "interrupted",
    ("ernie_rt.weights.folder",),
    start,
    share=300,
    excused={"numbers that are NaN or infinite": "the checkpoint is whole; tests/weights has others"},
)
