"""Quantised models in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ernie_rt import writing
from ernie_rt.errors import CheckpointError, OptionError, UnsafePathError, WriteError
from ernie_rt.location import locate
from ernie_rt.weights import cache, stamps
from ernie_rt.weights.cache import CachedSource, Entry, cache_folder, cached_weights, entries, remove
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.folder import PROGRESS
from ernie_rt.weights.manifest import MANIFEST, read_manifest
from ernie_rt.weights.quantize import ALGORITHM, Quantization, quantize_model
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.source import CheckpointSource
from support.drawn import DENSE, MOE, write_drawn


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("cache") / "model", MOE)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "ernie-rt" / "quantized"


def opened(folder: Path, bits: int = 4, told: list[tuple[int, float]] | None = None, **options: Any) -> QuantizedSource:
    made = [] if told is None else told
    how = Quantization(bits, clip_search=False)  # type: ignore[arg-type]
    return cached_weights(folder, locate(folder).config, how, announce=lambda *each: made.append(each), **options)


def twin(folder: Path, bits: int = 4, told: list[tuple[int, float]] | None = None, **options: Any) -> Path:
    """Where the weights come from."""
    with closing(opened(folder, bits, told, **options)) as source:
        weight = source.weights[0]
        place = source.place(weight, next(iter(weight.parts)))
        assert place is not None
        return place.path.parent


def test_once_for_each_model_and_kind(checkpoint: Path, own_folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    first = twin(checkpoint, 4, told)
    assert first.parent == cache_folder() == own_folder
    ((nbytes, seconds),) = told
    assert nbytes == sum(path.stat().st_size for path in first.glob("*.safetensors")) and 0 < seconds < 60
    assert twin(checkpoint, 4, told) == first and len(told) == 1
    assert twin(checkpoint, 8, told) != first and len(told) == 2
    assert twin(first) == first  # what is quantised so already is its own twin
    with pytest.raises(OptionError, match="the model is quantised otherwise"):
        twin(first, 8)
    other = write_drawn(tmp_path / "other", MOE | {"rms_norm_eps": 1e-6, "hidden_size": 96})
    assert twin(other) != first
    renamed = shutil.copytree(checkpoint, tmp_path / "renamed")
    (renamed / "config.json").write_text(json.dumps(MOE | {"rope_theta": 10000.0, "torch_dtype": "float32"}))
    assert twin(renamed) == first  # what a config says beside the weights is not read in the twin
    (renamed / "config.json").write_text(json.dumps(MOE | {"tie_word_embeddings": True}))
    assert twin(renamed) == first  # the head, which differs from the embedding, is used all the same
    tensors = load_file(renamed / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, renamed / "model.safetensors")
    tied = twin(renamed)
    (renamed / "config.json").write_text(json.dumps(MOE | {"tie_word_embeddings": False}))
    assert twin(renamed) != tied  # which leaves the head out


def write_shards(folder: Path) -> list[Path]:
    """A checkpoint of several files."""
    write_drawn(folder, MOE)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    homes = {name: f"model-{n * 4 // len(names) + 1:05}-of-00004.safetensors" for n, name in enumerate(names)}
    for shard in sorted(set(homes.values())):
        save_file({name: tensors[name] for name in names if homes[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    return sorted(folder.glob("*.safetensors"))


def fingerprint(folder: Path) -> str:
    with closing(CheckpointSource(Checkpoint.open(folder), locate(folder).config)) as source:
        return source.fingerprint()


@pytest.mark.parametrize("kept", [True, False], ids=["time kept", "time moved"])
def test_one_number_changed_anywhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    """In each file: the first and the last number, and some between; all are remembered before."""
    monkeypatch.setattr(stamps, "SETTLED_NS", 0)
    shards = write_shards(tmp_path / "model")
    seen = {first := fingerprint(tmp_path / "model")}
    rng = np.random.default_rng(1)
    changes = 0
    for path in shards:
        size = path.stat().st_size
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        for at in (header, size - 1, *rng.integers(header, size, 3)):
            assert fingerprint(tmp_path / "model") == first and len([*own_stamps()]) == 4
            flip(path, int(at), kept)
            seen.add(fingerprint(tmp_path / "model"))
            flip(path, int(at), kept)
            changes += 1
    assert len(seen) == changes + 1


def own_stamps() -> Iterator[Path]:
    return (cache_folder().parent / "stamps").iterdir()


def flip(path: Path, at: int, kept: bool = False) -> None:
    time.sleep(0.02)
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    if kept:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_finetune_is_another_model(checkpoint: Path, tmp_path: Path) -> None:
    """Whose last number alone is another."""
    first = twin(checkpoint)
    shutil.copytree(checkpoint, tmp_path / "finetune")
    path = tmp_path / "finetune" / "model.safetensors"
    flip(path, path.stat().st_size - 1)
    assert twin(tmp_path / "finetune") != first


def test_another_version_of_ernie_rt_finds_it(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, float]] = []
    first = twin(checkpoint, 4, told)
    wrote = read_manifest(first / MANIFEST).origin["version"]
    monkeypatch.setattr("ernie_rt.weights.folder.version", lambda name: "99.0")
    assert twin(checkpoint, 4, told) == first and len(told) == 1
    assert read_manifest(first / MANIFEST).origin == {"version": wrote, "model": "model"}
    monkeypatch.setattr("ernie_rt.weights.quantize.ALGORITHM", ALGORITHM + 1)
    other = twin(checkpoint, 4, told)
    assert other != first and len(told) == 2
    assert read_manifest(other / MANIFEST).origin["version"] == "99.0"


PINNED = {
    1: {
        "dense int4": "060449f87f060831",
        "dense int8": "51ea9d507b54c077",
        "moe int4": "ab33d8443461a426",
        "moe int8": "cd6a20e5e007cb78",
    },
}
"""What each ALGORITHM makes of the same weights: the digest of the files' digests."""


@pytest.mark.parametrize("kind", PINNED[1])
def test_other_bytes_need_another_algorithm(tmp_path: Path, kind: str) -> None:
    """When this fails, raise ALGORITHM and add what it makes now: old caches would be taken for new ones otherwise."""
    model, weights = kind.split()
    config = DENSE if model == "dense" else MOE
    how = Quantization(4 if weights == "int4" else 8, layout="raw" if model == "dense" else "tiled")
    folder = write_drawn(tmp_path / "model", config)
    manifest = quantize_model(folder, locate(folder).config, tmp_path / "out", how)
    digests = "".join(shard.sha256 for shard in manifest.shards.values())
    assert hashlib.sha256(digests.encode()).hexdigest()[:16] == PINNED[ALGORITHM][kind]


def test_the_hub_names_a_model(checkpoint: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--baidu--ERNIE-4.5-0.3B-PT" / "snapshots" / "0123abc"
    shutil.copytree(checkpoint, snapshot)
    assert read_manifest(twin(snapshot) / MANIFEST).origin["model"] == "baidu/ERNIE-4.5-0.3B-PT"


def test_a_cache_that_cannot_be_written(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WriteError, match=r"the cache cannot be written; found Not a directory\. .*set XDG_CACHE_HOME"):
        twin(checkpoint)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(
        WriteError,
        match=r"no home folder\. Set XDG_CACHE_HOME to .*, or .* \(`ernie-rt quantize",
    ):
        twin(checkpoint)


def test_a_cache_that_is_full(checkpoint: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(writing, "free_bytes", lambda folder: 1000)
        with pytest.raises(WriteError, match=r"too little room; .* Make room with `ernie-rt cache remove`, or set XDG"):
            twin(checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_atomic", full)
        with pytest.raises(WriteError, match=r"cannot be written; found No space left on device\. Make room with"):
            twin(checkpoint)
    twin(checkpoint)
    assert len([*own_folder.iterdir()]) == 1


def full(path: Path) -> Any:
    raise OSError(28, "No space left on device")


def test_a_checkpoint_that_changes_while_it_is_read(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept of the mixture, also not for who brings the old weights back. To touch a file changes nothing."""
    model = shutil.copytree(checkpoint, tmp_path / "model")
    path = model / "model.safetensors"
    take_along = "ernie_rt.weights.folder._take_along"
    with monkeypatch.context() as patch:
        patch.setattr(take_along, lambda *_: flip(path, path.stat().st_size - 1))
        with pytest.raises(CheckpointError, match="it was changed while it was read"):
            twin(model)
    assert [entry.whole for entry in entries()] == [False]
    flip(path, path.stat().st_size - 1)
    with pytest.raises(WriteError, match=r"this folder is in the way\. Make room with `ernie-rt cache remove`"):
        twin(model)
    remove(*entries())
    with monkeypatch.context() as patch:
        patch.setattr(take_along, lambda *_: (time.sleep(0.02), path.touch()))
        assert [entry.path for entry in entries()] == [] and twin(model) == entries()[0].path


def test_another_process_makes_it_meanwhile(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = cache.quantize_source

    def twice(*arguments: Any, **options: Any) -> None:
        make(*arguments, **options)
        make(*arguments, **options)  # File exists

    monkeypatch.setattr(cache, "quantize_source", twice)
    assert twin(checkpoint) == entries()[0].path


def test_another_process_is_making_it(checkpoint: Path) -> None:
    """It is waited for; should it be killed, what it began is finished."""
    first = twin(checkpoint)
    for ends_well in (True, False):
        moved = first.rename(first.with_name("moved"))
        partial = writing.partial_of(first)
        partial.mkdir()
        told, waits = [], threading.Event()
        with ThreadPoolExecutor() as pool:
            with writing.locked(partial):
                found = pool.submit(lambda: twin(checkpoint, told=told, waiting=waits.set))  # noqa: B023
                assert waits.wait(30) and not found.done()
                if ends_well:
                    moved.rename(first)
            assert found.result(30) == first and (told == []) is ends_well
        shutil.rmtree(partial, ignore_errors=True)


@pytest.fixture
def entry(checkpoint: Path) -> Entry:
    twin(checkpoint)
    (entry,) = entries()
    return entry


def test_what_is_listed(checkpoint: Path, own_folder: Path, entry: Entry, tmp_path: Path) -> None:
    assert (entry.model, entry.weights, entry.whole) == ("model", "int4/32", True)
    assert entry.nbytes == sum(path.stat().st_size for path in entry.path.iterdir())
    assert own_folder / entry.path.name == entry.path and re.fullmatch("[0-9a-f]{12}", entry.id)
    assert abs(entry.used - time.time()) < 60
    for n, name in enumerate(("stranger", "0" * 31, "0" * 32 + ".other", "A" * 32)):
        (own_folder / name).mkdir()
        (own_folder / name / str(n)).touch()
    (own_folder / ("1" * 32)).touch()
    (own_folder / ("2" * 32)).symlink_to(entry.path)
    assert entries() == [entry]
    (own_folder / ("3" * 32)).mkdir()
    shutil.copytree(entry.path, own_folder / ("4" * 32 + ".partial"))
    shutil.copytree(entry.path, own_folder / ("5" * 32))
    (own_folder / ("5" * 32) / MANIFEST).write_text("{")
    found = {each.path.name[0]: each for each in entries() if each != entry}
    assert found["3"] == Entry(own_folder / ("3" * 32), "", "", 0, found["3"].used, False)
    assert (found["4"].model, found["4"].whole) == ("model", False)
    assert (found["5"].model, found["5"].weights, found["5"].whole) == ("", "", True)


def test_somebody_elses_are_left_alone(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert entries() == []


def test_no_cache_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert entries() == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert entries() == []


def test_the_last_used_comes_first(checkpoint: Path, entry: Entry) -> None:
    other = twin(checkpoint, 8)
    os.utime(other / MANIFEST, (1000, 1000))
    os.utime(entry.path / MANIFEST, (2000, 2000))
    assert [(each.path, each.used) for each in entries()] == [(entry.path, 2000), (other, 1000)]
    twin(checkpoint, 8)
    assert [each.path for each in entries()] == [other, entry.path]


def test_one_in_use_stays(checkpoint: Path, entry: Entry) -> None:
    with closing(opened(checkpoint)), closing(opened(checkpoint)):
        with pytest.raises(WriteError, match="another process is writing it or using it"):
            remove(entry)
        assert entries()[0].path == entry.path
    with closing(QuantizedSource(entry.path, locate(checkpoint).config)) as source:  # without a lock
        remove(entry)
        assert not entries() and not entry.path.exists()
        for weight in source.weights:
            for part in weight.parts:
                source.array(weight.name, part)
    told: list[tuple[int, float]] = []
    assert twin(checkpoint, 4, told) == entry.path and len(told) == 1


def test_one_in_use_by_another_process_stays(checkpoint: Path, entry: Entry) -> None:
    program = (
        "import sys; from pathlib import Path; from ernie_rt.location import locate; "
        "from ernie_rt.weights.cache import CachedSource; "
        "source = CachedSource(Path(sys.argv[1]), locate(sys.argv[2]).config); "
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, entry.path, checkpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(WriteError, match="another process"):
            remove(entry)
        assert twin(checkpoint) == entry.path
        process.kill()
    remove(entry)
    assert not entries()


def test_one_being_written_stays(checkpoint: Path, entry: Entry) -> None:
    entry.path.rename(entry.path.with_name(f"{entry.path.name}.partial"))
    with writing.build_folder(entry.path) as partial:
        (unfinished,) = entries()
        assert unfinished.path == partial and not unfinished.whole
        with pytest.raises(WriteError, match="another process is writing it"):
            remove(unfinished)
        (partial / PROGRESS).touch()
    (whole,) = entries()
    assert whole.whole


@pytest.mark.parametrize(
    "make",
    [
        lambda path: (path / "notes.txt").write_text("mine"),
        lambda path: (path / "folder").mkdir(),
        lambda path: (path / "tokenizer.json").symlink_to(path / MANIFEST),
    ],
    ids=["a file", "a folder", "a link"],
)
def test_what_somebody_else_put_there_stays(entry: Entry, make: Callable[[Path], object]) -> None:
    make(entry.path)
    before = sorted(entry.path.iterdir())
    with pytest.raises(WriteError, match=r"not removed, since something else lies in it; found 1: .*Move that away"):
        remove(entry)
    assert sorted(entry.path.iterdir()) == before


def test_a_removal_that_is_killed(checkpoint: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves is nobody's twin, and the next removal takes it."""
    unlink, count = Path.unlink, 0

    def killed(self: Path, missing_ok: bool = False) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(entry)
    assert not entry.path.exists()
    (left,) = entries()
    assert not left.whole
    told: list[tuple[int, float]] = []
    assert twin(checkpoint, 4, told) == entry.path and len(told) == 1
    remove(left)
    remove(left)  # gone already
    assert [each.path for each in entries()] == [entry.path]


def test_what_is_removed_while_it_is_opened_is_made_again(
    checkpoint: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, told = writing.locked, []

    def late(folder: Path, *, shared: bool = False) -> Any:
        if shared and not told:
            shutil.rmtree(folder)
        return locked(folder, shared=shared)

    monkeypatch.setattr(writing, "locked", late)
    assert twin(checkpoint, 4, told) == entry.path and len(told) == 1


def test_a_damaged_entry_says_what_helps(checkpoint: Path, entry: Entry) -> None:
    path = max(entry.path.glob("*.safetensors"))
    flip(path, path.stat().st_size - 1)
    hint = f"Remove it with `ernie-rt cache remove {entry.id}`, and it is made again"
    with closing(opened(checkpoint)) as source, pytest.raises(CheckpointError, match=f"digest differs; .*{hint}"):
        for weight in source.weights:
            for part in weight.parts:
                source.array(weight.name, part)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"no such file. {hint}"):
        CachedSource(entry.path, locate(checkpoint).config)
    remove(entry)
    twin(checkpoint)


@pytest.mark.skipif(os.name != "posix", reason="owners and modes")
@pytest.mark.parametrize("what", ["the cache", "the entry", "its manifest", "a link", "another user"])
def test_an_entry_that_others_can_write_to(
    what: str, checkpoint: Path, own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = twin(checkpoint)
    assert own_folder.stat().st_mode & 0o777 == 0o700
    weights = next(entry.glob("*.safetensors"))
    match what:
        case "the cache":
            own_folder.chmod(0o777)
        case "the entry":
            entry.chmod(0o777)
        case "its manifest":
            (entry / MANIFEST).chmod(0o666)
        case "a link":
            weights.symlink_to(weights.rename(tmp_path / "elsewhere"))
        case "another user":
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UnsafePathError, match="the cache cannot be trusted that others can write to"):
        opened(checkpoint)


def test_an_entry_that_is_stored_otherwise(checkpoint: Path, tmp_path: Path) -> None:
    """As somebody puts one in the place of another."""
    entry = twin(checkpoint)
    shutil.rmtree(entry)
    quantize_model(checkpoint, locate(checkpoint).config, entry, Quantization(4, 32, layout="tiled"))
    with pytest.raises(CheckpointError, match="is stored in another way; expected int8/32; found int8/32 tiled"):
        opened(checkpoint)
