"""A quantised folder: its manifest `ernie_rt.json`, and how weights lie in its files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ernie_rt import files, writing
from ernie_rt.errors import ErnieRtError, IntegrityError, JsonError
from ernie_rt.graph.json import Storages, storage_from_json
from ernie_rt.graph.types import DTYPES, Plain, Storage, TensorType, Weight
from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt.storage.rope import RopeTable

MANIFEST: Final = "ernie_rt.json"
FORMAT: Final = 1
LIMIT: Final = 4 * files.MIB

OWN: Final = "sha256"
"""The field with a digest of all others."""

FIELDS: Final = frozenset({"format", "origin", "plan", "shards", "beside"})

ALIGNMENT: Final = 4096
"""Where a tensor may begin in a file, so that it can be mapped by itself: a multiple of a page."""

PADDING: Final = "padding."
"""Begins the names of tensors that hold nothing: safetensors leaves no gaps otherwise."""

STORAGES: Final[Storages] = {storage.kind: storage for storage in (Plain, BlockQuantized, RopeTable)}
"""The storages that come along. Whoever reads a manifest, or a graph in JSON, may hand over others."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A file: its size and digest, how each of its weights is stored, and the relative rms error that this made."""

    nbytes: int
    sha256: str
    storages: Mapping[str, Storage]
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder was made of and how, and its files.

    The `plan` decides every byte of them. The `origin` is told to people: the `version` of ernie-rt that wrote them,
    and what the `model` was called. `beside` are the digests of what lies beside the weights: config, tokenizer and the
    like; None in a folder of a version that made none.
    """

    plan: Mapping[str, object]
    shards: Mapping[str, Shard] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] | None = None

    @property
    def storages(self) -> dict[str, Storage]:
        return {name: storage for shard in self.shards.values() for name, storage in shard.storages.items()}

    @property
    def errors(self) -> dict[str, float]:
        return {name: error for shard in self.shards.values() for name, error in shard.errors.items()}

    @property
    def digests(self) -> dict[str, str]:
        """Of all files that it has one of."""
        return {**{name: shard.sha256 for name, shard in self.shards.items()}, **(self.beside or {})}

    @property
    def sizes(self) -> dict[str, int]:
        """Of the files of weights, in bytes."""
        return {name: shard.nbytes for name, shard in self.shards.items()}

    def to_json(self) -> dict[str, Any]:
        shards = {
            name: {
                "nbytes": shard.nbytes,
                "sha256": shard.sha256,
                "weights": {
                    weight: {"storage": storage.to_json()}
                    | ({"error": shard.errors[weight]} if weight in shard.errors else {})
                    for weight, storage in shard.storages.items()
                },
            }
            for name, shard in self.shards.items()
        }
        beside = {} if self.beside is None else {"beside": dict(self.beside)}
        return {"format": FORMAT, "origin": dict(self.origin), "plan": dict(self.plan), "shards": shards, **beside}

    def write(self, path: Path) -> None:
        content = self.to_json()
        with writing.write_atomic(path) as file:
            file.write(json.dumps(content | {OWN: _own_digest(content)}, indent=1).encode() + b"\n")


def check_undamaged(path: Path) -> None:
    """IntegrityError for a manifest that is not what its own digest is of; earlier versions wrote none.

    That tells of damage. Whoever changes the manifest on purpose can change the digest too, or take it out.
    """
    data = files.read_json(path, limit=LIMIT, strict=True)
    said = data.pop(OWN, None)
    if not data.keys() <= FIELDS or said not in (None, _own_digest(data)):
        raise IntegrityError(
            "the manifest is not the one that was written: its own digest differs",
            where=str(path),
            hint=f'Fetch the folder again; if you have changed it on purpose, take the line "{OWN}" out of it',
        )


def _own_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path, storages: Storages = STORAGES) -> Manifest:
    """The manifest in a file, which names these storages alone; JsonError for anything else."""
    data = files.read_json(path, limit=LIMIT, strict=True)
    if data.get("format") != FORMAT:
        raise JsonError(
            "a manifest of another format",
            where=str(path),
            expected=FORMAT,
            found=repr(data.get("format"))[:40],
            hint="Quantise the model again, or use the ernie-rt that wrote it",
        )
    try:
        shards = {name: _shard(entry, storages) for name, entry in data["shards"].items()}
        origin = {key: text for key, text in data.get("origin", {}).items() if isinstance(text, str)}
        beside = None if data.get("beside") is None else {name: _digest(it) for name, it in data["beside"].items()}
        return Manifest(dict(data["plan"]), shards, origin, beside)
    except (KeyError, TypeError, ValueError, AttributeError, ErnieRtError) as error:
        raise JsonError(
            "not a manifest of a quantised folder", where=str(path), found=f"{type(error).__name__}: {error}"[:200]
        ) from None


def _shard(entry: Mapping[str, Any], known: Storages) -> Shard:
    nbytes, sha256 = entry["nbytes"], _digest(entry["sha256"])
    if not (type(nbytes) is int and nbytes > 0):
        raise ValueError("an impossible size")
    storages = {name: storage_from_json(weight["storage"], known) for name, weight in entry["weights"].items()}
    if not all(storage.stored for storage in storages.values()):
        raise ValueError("tables are not stored")
    errors = {name: weight["error"] for name, weight in entry["weights"].items() if "error" in weight}
    if not all(type(error) in (int, float) and error >= 0 for error in errors.values()):
        raise ValueError("an impossible error")
    return Shard(nbytes, sha256, storages, {name: float(error) for name, error in errors.items()})


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("an impossible digest")
    return text


def shard_weights(weights: Sequence[Weight]) -> dict[str, tuple[Weight, ...]]:
    """Which weights each file holds, by its name: a layer a file, the embedding and the head in others."""
    groups: dict[str, list[Weight]] = {}
    for weight in weights:
        if weight.storage.stored:
            match = re.match(r"layers\.\d+", weight.name)
            groups.setdefault(match[0] if match else weight.name.split(".")[0], []).append(weight)
    count = len(groups)
    return {
        f"model-{number:05}-of-{count:05}.safetensors": tuple(group)
        for number, group in enumerate(groups.values(), start=1)
    }


def parts_of(weights: Sequence[Weight]) -> dict[str, TensorType]:
    """The tensors of a file in their order, by name."""
    return {f"{weight.name}.{part}": type for weight in weights for part, type in weight.parts.items()}


def header_of(weights: Sequence[Weight]) -> bytes:
    """The first bytes of a file, up to where the first tensor begins; each begins at a multiple of ALIGNMENT."""
    entries: dict[str, object] = {}
    end = 0
    for name, type in parts_of(weights).items():
        start, end = end, end + type.nbytes()
        entries[name] = {"dtype": DTYPES[type.dtype].stored, "shape": list(type.shape()), "data_offsets": [start, end]}
        if end % ALIGNMENT:
            start, end = end, end + padding(end)
            entries[f"{PADDING}{len(entries)}"] = {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * padding(8 + len(text))
    return len(text).to_bytes(8, "little") + text


def padding(offset: int) -> int:
    """Bytes up to the next place where a tensor may begin."""
    return -offset % ALIGNMENT


def file_bytes(weights: Sequence[Weight]) -> int:
    """The size of a file."""
    return len(header_of(weights)) + sum(type.nbytes() + padding(type.nbytes()) for type in parts_of(weights).values())
