"""Manifests of quantised folders that say what none says: sizes, places, storages, digests and names."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.modeling.config import read_config
from ernie_rt.weights.quantize import Quantization, quantize_model
from support.attempts import accepted, refused, refused_each
from support.hostile import DOORS, put, vast

MANIFEST = "ernie_rt.json"
NONE = "not a manifest of a quantised folder"


@pytest.fixture(scope="module")
def quantized(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("manifests") / "quantized"
    quantize_model(untrained, read_config(untrained), out, Quantization(4))
    return out


@pytest.fixture
def folder(quantized: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quantized, tmp_path / "folder"))


def first(manifest: dict[str, Any]) -> dict[str, Any]:
    """Of the shards, the one that begins."""
    found: dict[str, Any] = next(iter(manifest["shards"].values()))
    return found


def stored(**fields: Any) -> Callable[[dict[str, Any]], object]:
    """Say something else of how the first weight is stored."""

    def change(manifest: dict[str, Any]) -> None:
        weight = next(iter(first(manifest)["weights"].values()))
        weight["storage"] = {**weight["storage"], **fields}

    return change


def set_to(place: str, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(manifest: dict[str, Any]) -> None:
        within = first(manifest) if place in ("nbytes", "sha256", "weights") else manifest
        within[place] = value

    return change


def error(value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: next(iter(first(manifest)["weights"].values())).update(error=value)


CASES: Mapping[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    **{
        f"{field} {value!r:.30}": (stored(**{field: value}), NONE)
        for field, values in {
            "bits": (3, 0, -4, 8.0, 4.0, "4", [4], True, None, 2**64),
            "block": (0, -32, 32.0, 64.0, "32", [32], True, None, 10**30),
            "layout": ("x", 1, ["raw"], None, "../raw"),
            "kind": ("os.system", "", None, 1, "rope", "Plain", "__class__"),
            "another": (1, None),
        }.items()
        for value in values
    },
    **{f"error {value!r:.30}": (error(value), NONE) for value in ("nan", "0.1", "1e999", -1, True, [], {}, None)},
    **{f"nbytes {value!r:.30}": (set_to("nbytes", value), NONE) for value in (0, -1, 1.5, 1e3, "1", True, None, [1])},
    **{f"sha256 {value!r:.30}": (set_to("sha256", value), NONE) for value in (None, 5, "", "0" * 63, "G" * 64, ["0"])},
    **{f"weights {value!r:.30}": (set_to("weights", value), NONE) for value in (None, [], "x", {"w": None}, {"w": []})},
    **{f"shards {value!r:.30}": (set_to("shards", value), NONE) for value in (None, [], "x", {"a": None}, {"a": []})},
    **{f"plan {value!r:.30}": (set_to("plan", value), NONE) for value in (None, 1, "x", ["x"])},
    **{f"origin {value!r:.30}": (set_to("origin", value), NONE) for value in (None, 1, "x", ["x"])},
    **{f"beside {value!r:.30}": (set_to("beside", value), NONE) for value in (1, "x", ["x"], {"x": 1}, {"x": "0"})},
    **{f"format {value!r:.30}": (set_to("format", value), "of another format") for value in (None, 2, "1", [1], 1e300)},
    "a size beyond any": (set_to("nbytes", 10**30), "another size than when it was written"),
    "no shards": (set_to("shards", {}), "does not fit config.json: weights missing"),
    "no weights": (set_to("weights", {}), "does not fit config.json: weights missing"),
    "a weight of nothing": (
        lambda m: first(m)["weights"].update(x={"storage": {"kind": "plain", "dtype": "float32"}}), "weights left over",
    ),
    "another storage": (stored(bits=4), "other tensors than ernie_rt.json says"),
    "another layout": (stored(layout="tiled"), "ernie_rt.json"),
}  # fmt: skip


def said(quantized: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    manifest = copy.deepcopy(json.loads((quantized / MANIFEST).read_text()))
    change(manifest)
    return dict(manifest)


def test_manifests(quantized: Path, folder: Path) -> None:
    cases = [(put(MANIFEST, said(quantized, change)), "InputError", words) for change, words in CASES.values()]
    refused_each(DOORS["plan"], folder, cases)


@pytest.mark.parametrize("door", ["run", "verify"])
def test_every_door_reads_manifests_alike(door: str, quantized: Path, folder: Path) -> None:
    for name in ("bits 8.0", "block 32.0", "error 'nan'", "no weights", "a size beyond any"):
        change, _ = CASES[name]
        put(MANIFEST, said(quantized, change))(folder)
        refused(DOORS[door], folder, "InputError")


NAMES = (
    "../secret",
    "/etc/passwd",
    "tokenizer/../../secret",
    "tokenizer.\0",
    "config.json/",
    "tokenizer\u202e.model",
    "x" * 300,
)


def test_digests_of_files_elsewhere(quantized: Path, folder: Path, tmp_path: Path) -> None:
    """Of a name that leads out of the folder nothing is opened, though somebody knows its digest."""
    (tmp_path / "secret").write_text("s")
    for name in NAMES:
        beside = json.loads((quantized / MANIFEST).read_text())["beside"] | {name: "0" * 64}
        put(MANIFEST, said(quantized, set_to("beside", beside)))(folder)
        refused(DOORS["verify"], folder, "UnsafePathError", "could lead out of its folder")
        if name.startswith("tokenizer"):  # which loading reads too
            refused(DOORS["run"], folder, "UnsafePathError", "could lead out of its folder")


def test_shards_elsewhere(quantized: Path, folder: Path) -> None:
    """Which file holds a weight, its place in the model says, and no manifest."""
    for name in NAMES:
        put(MANIFEST, said(quantized, lambda m, name=name: m["shards"].update({name: first(m)})))(folder)  # type: ignore[misc]
        refused(DOORS["verify"], folder, "UnsafePathError", "could lead out of its folder")
        accepted(DOORS["plan"], folder)


@pytest.mark.parametrize("door", ["run", "verify"])
def test_a_terabyte_of_nothing(door: str, quantized: Path, folder: Path) -> None:
    """Whatever a manifest has a digest of is measured before it is read."""
    beside = json.loads((quantized / MANIFEST).read_text())["beside"]
    put(MANIFEST, said(quantized, set_to("beside", beside | {"tokenizer.bin": "0" * 64})))(folder)
    vast("tokenizer.bin")(folder)
    refused(DOORS[door], folder, "IntegrityError", "tokenizer.bin", "at most 67108864 bytes; found 1099511627776")
    (folder / "tokenizer.bin").unlink()
    put(MANIFEST, (quantized / MANIFEST).read_bytes())(folder)
    for name in ("tokenizer.model", "config.json", "model-00001-of-00006.safetensors", MANIFEST):
        whole = (folder / name).read_bytes()
        vast(name)(folder)
        refused(DOORS[door], folder, "InputError", f"/{name}: ", "found 1099511627776")
        put(name, whole)(folder)
    accepted(DOORS[door], folder)


def test_a_hard_link_is_another_name(folder: Path, tmp_path: Path) -> None:
    os.link(folder / "config.json", tmp_path / "elsewhere")
    refused(DOORS["verify"], folder, "IntegrityError", "a hard link: by its other name")
