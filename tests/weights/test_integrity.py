"""`ernie-rt verify` of a quantised folder: every byte, beside the weights too, and nothing else that is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ernie_rt
from ernie_rt.errors import CheckpointError, InputError, IntegrityError, OptionError
from ernie_rt.export import verify
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.manifest import MANIFEST, OWN
from ernie_rt.weights.quantize import Quantization, quantize_model
from support.commands import command

WEIGHTS = "model-00002-of-00006.safetensors"
SETTINGS = "tokenizer_config.json"


@pytest.fixture(scope="module")
def quantized(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(shutil.copytree(untrained, tmp_path_factory.mktemp("whole") / "checkpoint"))
    (source / SETTINGS).write_text(json.dumps({"bos_token": "<s>", "add_bos_token": False}))
    quantize_model(source, read_config(source), source.parent / "q", Quantization(8))
    return source.parent / "q"


@pytest.fixture
def folder(quantized: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quantized, tmp_path / "q"))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest[OWN]
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_whole_folder(folder: Path) -> None:
    done = command("verify", folder)
    assert done.code == 0 and f"all {len(list(folder.iterdir()))} files are as they were written" in done.out
    told = json.loads(command("verify", folder, "--json").out)
    assert next(iter(told["sha256"])) == MANIFEST and told["unchecked"] == []
    assert told["sha256"].keys() == {path.name for path in folder.iterdir()}
    with pytest.raises(OptionError, match="no graph whose numbers could be compared"):
        verify(folder, numbers=True)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", SETTINGS, "tokenizer.model"])
def test_a_flipped_bit(name: str, folder: Path) -> None:
    flip(folder / name)
    with pytest.raises(IntegrityError, match=f"{name}: the file is not the one that was written"):
        verify(folder)
    assert command("verify", folder).code == 2


def test_what_lies_beside_is_checked_when_it_is_loaded(folder: Path) -> None:
    """One flipped bit would change answers in silence."""
    path = folder / SETTINGS
    path.write_text(path.read_text().replace('"add_bos_token": false', '"add_bos_token": true '))
    with pytest.raises(CheckpointError, match=f"{SETTINGS}: the file is not the one that was written") as caught:
        ernie_rt.load(folder, backend="reference")
    assert caught.value.hint is not None and "take its line out of ernie_rt.json" in caught.value.hint
    edit(folder, lambda manifest: manifest["beside"].pop(SETTINGS))
    with ernie_rt.load(folder, backend="reference") as model:
        assert model.generate_ids([1, 2, 3], max_new_tokens=1)


def test_what_other_programs_read_is_checked_by_verify_alone(folder: Path) -> None:
    """As genai_config.json of an export, which people edit."""
    (folder / "genai_config.json").write_text("{}")
    digest = hashlib.sha256(b"{ }").hexdigest()
    edit(folder, lambda manifest: manifest["beside"].update({"genai_config.json": digest}))
    with ernie_rt.load(folder, backend="reference") as model:
        assert model.generate_ids([1, 2, 3], max_new_tokens=1)
    with pytest.raises(IntegrityError, match=r"genai_config\.json: the file is not the one that was written"):
        verify(folder)


def test_of_a_version_that_made_no_digests_of_them(folder: Path) -> None:
    """It loads; what cannot be checked is said, and is no success."""
    edit(folder, lambda manifest: manifest.pop("beside"))
    assert verify(folder).unchecked == ("config.json", "tokenizer.model", SETTINGS)
    done = command("verify", folder)
    assert done.code == 1 and "7 files are as they were written" in done.out and "all" not in done.out
    assert f"not checked, since nothing says what was written: config.json, tokenizer.model, {SETTINGS}" in done.err
    with ernie_rt.load(folder, backend="reference") as model:
        assert model.generate_ids([1, 2, 3], max_new_tokens=1)
    flip(folder / WEIGHTS)
    with pytest.raises(IntegrityError, match="its digest differs"):
        verify(folder)


@pytest.mark.parametrize("found, bit", [('"clip_search"', '"clip_searcj"'), ('"sha256": "', '"sha252": "')])
def test_a_damaged_manifest(folder: Path, found: str, bit: str) -> None:
    """Where nothing that it says can be held to anything else; who changes it on purpose says so."""
    whole = (folder / MANIFEST).read_text()
    head, _, tail = whole.rpartition(found)
    (folder / MANIFEST).write_text(head + bit + tail)
    with pytest.raises(IntegrityError, match=r'its own digest differs.*take the line "sha256" out of it'):
        verify(folder)
    (folder / MANIFEST).write_text(whole)
    edit(folder, lambda manifest: manifest["plan"].update(clip_search=False))
    verify(folder)


@pytest.mark.parametrize("name", ["chat_template.jinja", "modeling.py", "model-00009-of-00009.safetensors"])
def test_what_was_added(name: str, folder: Path) -> None:
    (folder / name).write_text("1")
    with pytest.raises(IntegrityError, match=f"{name}: .* may be read as a part of it"):
        verify(folder)


def test_what_leads_elsewhere(folder: Path) -> None:
    os.link(folder / WEIGHTS, folder.parent / "linked")
    with pytest.raises(IntegrityError, match="a hard link"):
        verify(folder)
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../linked")
    with pytest.raises(InputError, match="a link that leaves its folder"):
        verify(folder)


def test_a_manifest_of_other_weights(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["shards"][WEIGHTS]["weights"].popitem())
    with pytest.raises(InputError, match=r"ernie_rt\.json does not fit config\.json"):
        verify(folder)


def test_a_folder_that_was_not_written_by_this(untrained: Path) -> None:
    with pytest.raises(IntegrityError, match=r"was exported or quantised: no ernie_rt\.json in it"):
        verify(untrained)
