"""What a folder or file is that people name and that is no model here, and what to do about it: for errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ernie_rt import files
from ernie_rt.errors import InputError

MANY: Final = 2000
"""Entries of a folder that are looked at."""
CONFIG: Final = "config.json"
ADAPTER: Final = "adapter_config.json"
MERGE: Final = (
    "Merge it into its model first (`merge_and_unload` of PEFT, then `save_pretrained`), and name that folder"
)
TAKE_BASE: Final = "Take the checkpoint that it was made of, as .safetensors; `ernie-rt quantize` makes that small"


@dataclass(frozen=True, slots=True)
class Stranger:
    """What it is, as in `this is WHAT`, and the next step."""

    what: str
    hint: str


BY_NAME: Final[tuple[tuple[str, Stranger], ...]] = (
    (r".*\.gguf", Stranger("a GGUF model, for llama.cpp", TAKE_BASE)),
    (r"ernie_rt\.partial\.json", Stranger(
        "a folder that was interrupted while it was written", "Run the command that writes it again; it goes on")),
    (r".*\.onnx|onnx", Stranger(
        "an ONNX model that ernie-rt did not write", "Take the checkpoint that it was made of; see `ernie-rt export`")),
    (r".*\.(pdmodel|pdiparams)", Stranger("a static graph of Paddle", TAKE_BASE)),
    (r"weights.*\.npz", Stranger("weights of MLX", TAKE_BASE)),
    (r".*\.mlmodelc?|.*\.mlpackage", Stranger("a Core ML model", TAKE_BASE)),
    (r".*\.engine|.*\.plan", Stranger("a TensorRT engine", TAKE_BASE)),
    (r"openvino_model\.(xml|bin)", Stranger("an OpenVINO model", TAKE_BASE)),
    (r".*\.distcp|global_step\d+|zero_pp_rank_.*|pytorch_model_fsdp.*|.*optim_states\.pt", Stranger(
        "a trainer's own state, in parts", "Have the trainer save the whole model (`save_pretrained`)")),
    (r".*\.(zip|tar(\.\w+)?|t[gbx]z2?|7z(\.\d+)?|rar)", Stranger("an archive", "Unpack it, and name that folder")),
)  # fmt: skip
"""By a file in the folder, the first that fits; also of a file that is named itself."""

WEIGHTS: Final = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
LISTED: Final = re.compile(r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt")


def stranger_folder(folder: Path) -> Stranger | None:
    """What a folder is that has no config.json, or none with weights; None when nothing tells."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry, _ in zip(entries, range(MANY), strict=False)]
    except OSError:
        return None
    looks: tuple[Callable[[], Stranger | None], ...] = (
        lambda: _adapter(folder, names),
        lambda: _hub_cache(folder, names),
        lambda: _by_name(names),
        lambda: _above(folder, names),
        lambda: _below(folder),
        lambda: _scraps(names),
    )
    return next((found for look in looks if (found := look()) is not None), None)


def stranger_file(path: Path) -> Stranger:
    """What a file is that is named in the place of a folder."""
    if _has(path.parent, CONFIG) and not path.name.endswith(".gguf"):
        return Stranger("a file of a model", f"Name the folder it lies in: {_shown(path.parent)}")
    found = _by_name([path.name])
    if found is not None:
        return found
    if path.suffix == ".safetensors":
        return Stranger(
            "weights alone", f"Put {CONFIG} and tokenizer.model of the model beside them, and name the folder"
        )
    return Stranger("a file", "Name the folder of a model")


def stranger_repository(names: Collection[str]) -> Stranger:
    """What a repository of files of these names is, which is no model."""
    if ADAPTER in names:
        return Stranger("an adapter (LoRA), not a whole model", MERGE)
    hint = f"It needs {CONFIG} and weights as .safetensors"
    return _by_name(list(names)) or Stranger("a repository without a model that ernie-rt reads", hint)


def adapter_beside(names: Collection[str]) -> str | None:
    """A remark on an adapter that lies beside weights: other libraries apply it by themselves."""
    return f"{ADAPTER} lies beside the weights: its adapter is not applied" if ADAPTER in names else None


def cached_id(name: str) -> str:
    """The Hub id of the repository whose folder in the Hugging Face cache has this name."""
    return name.removeprefix("models--").replace("--", "/")


def _adapter(folder: Path, names: list[str]) -> Stranger | None:
    if not {ADAPTER, "adapter_model.safetensors", "adapter_model.bin", "lora_config.json"} & {*names}:
        return None
    base = None
    for name in (ADAPTER, "lora_config.json"):
        try:
            base = base or files.read_json(files.member(folder, name)).get("base_model_name_or_path")
        except InputError:
            continue
    of = f" of {_shown(base)}" if isinstance(base, str) and base else ""
    return Stranger(f"an adapter (LoRA){of}, not a whole model", MERGE)


def _hub_cache(folder: Path, names: list[str]) -> Stranger | None:
    home = folder.resolve()
    home = next((each for each in (home, *home.parents[:2]) if each.name.startswith("models--")), home)
    if home.name.startswith("models--") and _has_folder(home, "snapshots", "blobs", "refs"):
        name = cached_id(home.name)
        whole = [path for path in _folders(home / "snapshots") if _has(path, CONFIG)]
        step = f"the folder {_shown(whole[-1])}" if whole else "let ernie-rt fetch it by that id"
        return Stranger(f"the Hugging Face cache of {_shown(name)}", f"Name it by its id, {_shown(name)}, or {step}")
    cached = sorted(name for name in names if name.startswith("models--"))
    if not cached:
        return None
    ids = [_shown(cached_id(name)) for name in cached]
    return Stranger("a Hugging Face cache of models", f"Name one by its id: {_some(ids)}")


def _by_name(names: list[str]) -> Stranger | None:
    for pattern, stranger in BY_NAME:
        if any(re.fullmatch(pattern, name, re.IGNORECASE) for name in names):
            return stranger
    return None


def _above(folder: Path, names: list[str]) -> Stranger | None:
    inside = sorted(name for name in names if _has(folder / name, CONFIG))
    if not inside or CONFIG in names:
        return None
    return Stranger(
        "a folder of models", f"Name one of those in it: {_some([_shown(folder / name) for name in inside])}"
    )


def _below(folder: Path) -> Stranger | None:
    above = folder.resolve().parent
    if not _has(above, CONFIG):
        return None
    return Stranger("a folder inside a model's", f"Name the model's own: {_shown(above)}")


def _scraps(names: list[str]) -> Stranger | None:
    if not names:
        return Stranger("an empty folder", "Fetch the model into it, or name another")
    if CONFIG in names:
        return None
    if any(WEIGHTS.fullmatch(name) for name in names):
        return Stranger(f"weights without their {CONFIG}", "Fetch it from the repository that they are of")
    if any(LISTED.fullmatch(name) for name in names):
        return Stranger("a tokenizer without its model", "Fetch the whole repository")
    return None


def _folders(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    except OSError:
        return


def _has_folder(home: Path, *names: str) -> bool:
    return any((home / name).is_dir() for name in names)


def _has(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):
        return False


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _shown(name: str | Path) -> str:
    text = str(name)
    return text if len(text) <= 200 and text.isprintable() else ascii(text[:200])
