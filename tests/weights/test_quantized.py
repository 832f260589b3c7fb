from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import ernie_rt
from ernie_rt.contract import Limits, Lowering, SimpleExecutable, Storage, Target, WeightSource
from ernie_rt.errors import BackendError, CapacityError, CheckpointError, ErnieRtError, GraphError, JsonError
from ernie_rt.graph.types import Plain, Weight
from ernie_rt.modeling.config import read_config
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt.weights import stamps
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.manifest import MANIFEST, read_manifest
from ernie_rt.weights.opening import open_weights
from ernie_rt.weights.quantize import Quantization, convert_model, quantize_model
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.safetensors import SafetensorsFile
from ernie_rt.weights.source import CheckpointSource, PlacedSource
from support.drawn import DENSE, MOE, write_drawn
from support.mutants import NumpyBackend, host_of

Array = np.ndarray[Any, Any]
IDS = [5, 9, 2, 200, 17, 63, 41]


@pytest.fixture(scope="module", params=[DENSE, MOE], ids=["dense", "moe"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("quantized") / "model", request.param)


@pytest.fixture(scope="module", params=["int4 raw", "int8 raw", "int4 tiled", "int8 tiled"])
def quantized(request: pytest.FixtureRequest, checkpoint: Path) -> Path:
    """The checkpoint quantised; its raw twin lies in the same folder."""
    bits, layout = request.param.split()
    for each in {"raw", layout}:
        out = checkpoint.with_name(f"{bits} {each}")
        if not out.exists():
            how = Quantization(4 if bits == "int4" else 8, layout=each)  # type: ignore[arg-type]
            quantize_model(checkpoint, read_config(checkpoint), out, how)
    return checkpoint.with_name(request.param)


def by_hand(folder: Path) -> dict[str, Array]:
    """The numbers of every weight of a raw folder, from its files as the safetensors library reads them."""
    stored: dict[str, Array] = {}
    for file in folder.glob("*.safetensors"):
        stored |= {name: array for name, array in load_file(file).items() if not name.startswith("padding.")}
    found = {name.removesuffix(".data"): array for name, array in stored.items() if name.endswith(".data")}
    for name in [name.removesuffix(".codes") for name in stored if name.endswith(".codes")]:
        codes, scales = stored[f"{name}.codes"].astype(np.int64), stored[f"{name}.scales"].astype(np.float64)
        if read_manifest(folder / MANIFEST).storages[name].bits == 4:  # type: ignore[union-attr]
            codes = np.stack((codes & 15, codes >> 4), axis=-1).reshape(*codes.shape[:-1], -1) - 8
        else:
            codes = codes - 128
        blocks = codes.reshape(*scales.shape, -1) * scales[..., None]
        found[name] = blocks.reshape(codes.shape)
    return found


class ByHand:
    """A WeightSource of arrays; rope tables come from a checkpoint."""

    def __init__(self, arrays: Mapping[str, Array], checkpoint: Path) -> None:
        self.arrays = arrays
        self.tables = open_weights(checkpoint, read_config(checkpoint))

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        if not weight.storage.stored:
            self.tables.fill(weight, part, out, index)
        else:
            out[...] = self.arrays[weight.name][index]

    def close(self) -> None:
        self.tables.close()


def test_every_weight_and_slice(quantized: Path) -> None:
    config = read_config(quantized)
    expected = by_hand(quantized.with_name(quantized.name.replace("tiled", "raw")))
    weights = [w for w in build_graph(config).weights if w.storage.stored]
    assert {w.name for w in weights} == expected.keys()
    source = open_weights(quantized, config)
    assert isinstance(source, QuantizedSource)
    kept = [name for name, storage in source.storages.items() if isinstance(storage, Plain)]
    assert {name.split(".")[-1].split("_")[-1] for name in kept} <= {"norm", "bias", "gate"}
    for weight in weights:
        plain = Weight(weight.name, weight.type, Plain("float32"))
        shape, numbers = weight.type.shape(), expected[weight.name].astype(np.float64)
        for depth in range(len(shape) + 1):
            index = tuple(n * 2 // 3 for n in shape[:depth])
            for dtype in ("float32", "float64", "bfloat16"):
                out = np.full(shape[depth:], 7, dtype)
                source.fill(plain, "data", out, index)
                np.testing.assert_array_equal(out, numbers[index].astype(np.float32).astype(dtype), weight.name)
        strided = np.full((*shape[::-1], 2), np.nan, np.float32)[..., 0].T
        source.fill(plain, "data", strided)
        np.testing.assert_array_equal(strided, numbers)
    source.close()


def test_pieces_begin_and_end_anywhere(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for layout in ("raw", "tiled"):
        how = Quantization(4, layout=layout)  # type: ignore[arg-type]
        monkeypatch.setattr("ernie_rt.weights.quantize.PIECE", 1 << 22)
        quantize_model(checkpoint, read_config(checkpoint), tmp_path / layout, how)
        monkeypatch.setattr("ernie_rt.weights.quantize.PIECE", 3000)
        monkeypatch.setattr("ernie_rt.storage.block_quantized.CHUNK", 700)
        quantize_model(checkpoint, read_config(checkpoint), tmp_path / f"{layout} in pieces", how, threads=3)
        monkeypatch.undo()
        numbers = []
        for folder in (tmp_path / layout, tmp_path / f"{layout} in pieces"):
            monkeypatch.setattr("ernie_rt.weights.quantized.CHUNK", 3000)
            source = open_weights(folder, read_config(folder))
            weight = next(w for w in build_graph(read_config(folder)).weights if w.name == "embed.weight")
            source.fill(weight, "data", out := np.empty(weight.type.shape(), np.float32))
            numbers.append(out)
            source.close()
        assert (numbers[0] == numbers[1]).all()
        a, b = (read_manifest(tmp_path / name / MANIFEST) for name in (layout, f"{layout} in pieces"))
        assert [shard.sha256 for shard in a.shards.values()] == [shard.sha256 for shard in b.shards.values()]


def test_logits_are_those_of_the_numbers(quantized: Path, checkpoint: Path) -> None:
    raw = quantized.with_name(quantized.name.replace("tiled", "raw"))
    for backend in ("reference", "eager"):
        with ernie_rt.load(quantized, backend=backend, dtype="float32", max_context=64) as model:
            found, notes = model.logits(IDS), model.memory().notes
        with ernie_rt.load(
            checkpoint, backend=backend, dtype="float32", max_context=64, weights=ByHand(by_hand(raw), checkpoint)
        ) as model:
            np.testing.assert_array_equal(found, model.logits(IDS))
        with ernie_rt.load(checkpoint, backend=backend, dtype="float32", max_context=64) as model:
            assert not np.array_equal(found, model.logits(IDS))
            assert not any("dequantised" in note for note in model.memory().notes)
        assert any(note.endswith("iB of weights dequantised from int8/32 to float32") for note in notes) == (
            quantized.name.endswith("raw")
        )


class Keeping(NumpyBackend):
    """Takes int4 as it is stored, and says what it was given."""

    given: dict[str, Storage]
    asked: set[Storage]

    def __init__(self) -> None:
        type(self).given, type(self).asked = {}, set()

    def accepts(self, storage: Storage, target: Target) -> bool:
        self.asked.add(storage)
        return isinstance(storage, BlockQuantized) and storage.bits == 4

    def compile(
        self, lowerings: Mapping[str, Lowering], weights: WeightSource, target: Target, limits: Limits
    ) -> SimpleExecutable:
        self.given.update((w.name, w.storage) for w in lowerings["main"].graph.weights)
        return super().compile(lowerings, Expanding(weights), target, limits)


class Expanding:
    """Makes numbers of the codes and scales that a source gives."""

    def __init__(self, source: WeightSource) -> None:
        self.source = source

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        if not weight.storage.packed:
            self.source.fill(weight, part, out, index)
            return
        parts = {name: np.zeros(t.shape(), t.dtype) for name, t in weight.parts.items()}
        for name, array in parts.items():
            self.source.fill(weight, name, array)
        out[...] = weight.storage.dequantize(parts).reshape(out.shape)

    def close(self) -> None:
        pass


def test_a_backend_gets_what_it_accepts(checkpoint: Path, tmp_path: Path) -> None:
    quantize_model(checkpoint, read_config(checkpoint), tmp_path / "q", Quantization(4))
    steps: list[tuple[int, int]] = []
    with ernie_rt.load(
        tmp_path / "q", backend="mutant", max_context=64, dtype="float32", host=host_of(Keeping),
        progress=lambda done, total: steps.append((done, total)),
    ) as model:  # fmt: skip
        found = model.logits(IDS)
        (note,) = (note for note in model.memory().notes if "dequantised" in note)
    assert note.endswith("dequantised from int8/32 to float32")
    assert Keeping.asked == {BlockQuantized(4, 32), BlockQuantized(8, 32)}
    assert Keeping.given["layers.0.mlp.down"] == BlockQuantized(4, 32)
    assert Keeping.given["embed.weight"] == Plain("float32")
    assert steps[-1][0] == steps[-1][1]
    with ernie_rt.load(tmp_path / "q", backend="reference", dtype="float32", max_context=64) as model:
        np.testing.assert_allclose(found, model.logits(IDS), atol=2e-4)


def test_what_is_dequantised_counts_against_the_limit(quantized: Path) -> None:
    stored = sum(shard.nbytes for shard in read_manifest(quantized / MANIFEST).shards.values())
    with pytest.raises(CapacityError):
        ernie_rt.load(quantized, backend="eager", max_context=16, dtype="float32", memory_bytes=stored)


def test_wrong_requests(quantized: Path) -> None:
    source = open_weights(quantized, read_config(quantized))
    graph = build_graph(read_config(quantized))
    down = next(w for w in graph.weights if w.name == "layers.0.mlp.down")
    stored = source.storages[down.name]  # type: ignore[union-attr]
    kept = Weight(down.name, down.type, stored)
    codes = stored.parts(down.type)["codes"]
    source.fill(kept, "codes", np.empty(codes.shape(), np.uint8))
    with pytest.raises(BackendError, match="no part 'data'"):
        source.fill(kept, "data", np.empty(down.type.shape(), np.float32))
    with pytest.raises(BackendError, match="does not fit"):
        source.fill(kept, "codes", np.empty((3, 3), np.uint8))
    other = BlockQuantized(12 - stored.bits, stored.block, stored.layout)  # type: ignore[union-attr, arg-type]
    with pytest.raises(GraphError, match="in another way"):
        source.fill(
            Weight(down.name, down.type, other),
            "scales",
            np.empty(other.parts(down.type)["scales"].shape(), np.float16),
        )
    with pytest.raises(GraphError, match="no weight 'x'"):
        source.fill(Weight("x", down.type, down.storage), "data", np.empty(down.type.shape(), np.float32))
    source.close()


@pytest.fixture
def folder(untrained: Path, tmp_path: Path) -> Iterator[Path]:
    """A quantised folder to spoil."""
    quantize_model(untrained, read_config(untrained), tmp_path / "q", Quantization(4))
    yield tmp_path / "q"
    shutil.rmtree(tmp_path)


def test_files_are_whole_pages_and_the_safetensors_library_reads_them(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        load_file(path)
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        assert (8 + length) % 4096 == 0
        for name, entry in header.items():
            assert name.startswith("padding.") or entry["data_offsets"][0] % 4096 == 0
    assert {path.name for path in folder.iterdir() if path.suffix != ".safetensors"} == {
        "config.json", "ernie_rt.json", "tokenizer.model",
    }  # fmt: skip


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = json.loads((folder / MANIFEST).read_text())
        change(data)
        (folder / MANIFEST).write_text(json.dumps(data))

    return edit


def first(data: dict[str, Any]) -> dict[str, Any]:
    shard: dict[str, Any] = data["shards"]["model-00001-of-00006.safetensors"]
    return shard


def in_config(**fields: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return edit


SHARD = "model-00002-of-00006.safetensors"
BAD: list[tuple[str, Callable[[Path], object], type[ErnieRtError], str]] = [
    ("no JSON", lambda f: (f / MANIFEST).write_bytes(b"{"), JsonError, "malformed"),
    ("another format", edited(lambda d: d.update(format=2)), JsonError, "another format; expected 1; found 2"),
    ("no shards", edited(lambda d: d.pop("shards")), JsonError, "not a manifest"),
    ("shards of another kind", edited(lambda d: d.update(shards=[1])), JsonError, "not a manifest"),
    ("an impossible size", edited(lambda d: first(d).update(nbytes=-1)), JsonError, "impossible size"),
    ("a digest of another kind", edited(lambda d: first(d).update(sha256=5)), JsonError, "not a manifest"),
    ("a short digest", edited(lambda d: first(d).update(sha256="ab")), JsonError, "impossible digest"),
    (
        "an unknown storage",
        edited(lambda d: first(d)["weights"]["embed.weight"]["storage"].update(bits=3)),
        JsonError,
        "no storage of 3 bits",
    ),
    (
        "a table",
        edited(
            lambda d: first(d)["weights"]["embed.weight"].update(
                storage={"kind": "rope", "function": "cos", "theta": 1.0, "compression_ratio": 1.0}
            )
        ),
        JsonError,
        "tables are not stored",
    ),
    ("a file left out", edited(lambda d: d["shards"].pop(SHARD)), CheckpointError, "weights missing, 6"),
    (
        "a path for a name",
        edited(lambda d: d["shards"].update({"../x.safetensors": d["shards"].pop(SHARD)})),
        CheckpointError,
        "has no file",
    ),
    (
        "an unknown weight",
        edited(lambda d: first(d)["weights"].update(x={"storage": {"kind": "plain", "dtype": "float32"}})),
        CheckpointError,
        "weights left over, 1: 'x'",
    ),
    (
        "a block that does not fit",
        edited(
            lambda d: d["shards"]["model-00003-of-00006.safetensors"]["weights"]["layers.1.mlp.experts.down"][
                "storage"
            ].update(block=128)
        ),
        CheckpointError,
        "cannot be stored so, 1: 'layers.1.mlp.experts.down: blocks of 128 do not divide",
    ),
    (
        "another storage than the file's",
        edited(lambda d: first(d)["weights"]["embed.weight"]["storage"].update(bits=4)),
        CheckpointError,
        "other tensors than ernie_rt.json says",
    ),
    ("another vocabulary", in_config(vocab_size=1008), CheckpointError, "other tensors than ernie_rt.json says"),
    ("another depth", in_config(num_hidden_layers=5), CheckpointError, "weights missing, 10"),
    ("a missing file", lambda f: (f / SHARD).unlink(), CheckpointError, "no such file"),
    ("a short file", lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes()[:-1]), CheckpointError, "another size"),
    ("an empty file", lambda f: (f / SHARD).write_bytes(b""), CheckpointError, "another size"),
    ("another layer's file", lambda f: shutil.copy(f / SHARD.replace("2-", "4-"), f / SHARD), CheckpointError, "size"),
]


@pytest.mark.parametrize(("spoil", "error", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_does_not_fit_together(
    folder: Path, spoil: Callable[[Path], object], error: type[ErnieRtError], message: str
) -> None:
    spoil(folder)
    with pytest.raises(error) as raised:
        open_weights(folder, read_config(folder))
    assert message in str(raised.value)


def test_an_edited_file_is_never_computed_with(folder: Path) -> None:
    path = folder / SHARD
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"00002-of-00006\.safetensors: the file is not the one that was written"):
        ernie_rt.load(folder, backend="reference", max_context=16)
    config = read_config(folder)
    with pytest.raises(CheckpointError, match="not the one that was written"):
        convert_model(folder, config, folder.with_name("out"), "tiled")
    assert not folder.with_name("out").exists()


def flip(path: Path, at: int) -> None:
    """Change a byte behind the system's back as far as programs can: size and modification time stay."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("remembered", [False, True])
def test_a_flipped_byte_in_any_file_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, remembered: bool
) -> None:
    """Whether or not the file was hashed before, and the error names it; the others stay as good as they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(stamps, "SETTLED_NS", 0)
    config, rng = read_config(folder), np.random.default_rng(5)
    shards = read_manifest(folder / MANIFEST).shards
    homes = {weight: shard for shard, each in shards.items() for weight in each.storages}
    if remembered:
        read_all(QuantizedSource(folder, config))
        assert len([*(tmp_path / "caches" / "ernie-rt" / "stamps").iterdir()]) == 6
    for path in sorted(folder.glob("*.safetensors")):
        time.sleep(0.02)
        data = path.read_bytes()
        header = 8 + int.from_bytes(data[:8], "little")
        at = int(rng.integers(header, len(data)))
        flip(path, at)
        with closing(QuantizedSource(folder, config)) as source:
            for name in source.storages:
                weight = next(weight for weight in source.weights if weight.name == name)
                for part in weight.parts:
                    if homes[name] == path.name:
                        with pytest.raises(CheckpointError, match=rf"{path.name}: the file is not .* digest differs"):
                            source.place(weight, part)
                    else:
                        source.place(weight, part)
        flip(path, at)
    read_all(QuantizedSource(folder, config))


def read_all(source: QuantizedSource) -> None:
    with closing(source):
        for weight in source.weights:
            for part in weight.parts:
                source.array(weight.name, part)


def test_closing_ends_what_is_hashed_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = SafetensorsFile.sha256

    def endless(self: SafetensorsFile, report: Callable[[int], None]) -> str:
        while "00001" not in self.path.name:
            report(0)
            time.sleep(0.001)
        return sha256(self, report)

    monkeypatch.setattr(SafetensorsFile, "sha256", endless)
    source = QuantizedSource(folder, read_config(folder))
    source.array("embed.weight", "codes")
    hashing = [thread for thread in threading.enumerate() if thread.name.startswith("hashing")]
    assert hashing
    source.close()
    assert not any(thread.is_alive() for thread in hashing)


def test_a_wrong_stamp_spoils_no_good_file(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    own, status = stamps.Stamps.of_user(), (folder / SHARD).stat()
    assert own is not None
    own.remember(folder / SHARD, stamps.Stamp.of(status), "0" * 64, status.st_ctime_ns + stamps.SETTLED_NS)
    assert own.recall(folder / SHARD, stamps.Stamp.of(status)) == "0" * 64
    read_all(QuantizedSource(folder, read_config(folder)))


def test_who_writes_what_it_reads_believes_no_stamp(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A disk that rots changes no stamp: here one is made up for the changed file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    config, shard = read_config(folder), read_manifest(folder / MANIFEST).shards[SHARD]
    flip(folder / SHARD, -1 % shard.nbytes)
    own, status = stamps.Stamps.of_user(), (folder / SHARD).stat()
    assert own is not None
    own.remember(folder / SHARD, stamps.Stamp.of(status), shard.sha256, status.st_ctime_ns + stamps.SETTLED_NS)
    read_all(QuantizedSource(folder, config))  # or the next lines would show nothing
    with pytest.raises(CheckpointError, match="digest differs"):
        read_all(QuantizedSource(folder, config, reread=True))
    with pytest.raises(CheckpointError, match="digest differs"):
        convert_model(folder, config, folder.with_name("out"), "tiled")
    monkeypatch.setenv("ERNIE_RT_STAMPS", "0")
    with pytest.raises(CheckpointError, match="digest differs"):
        read_all(QuantizedSource(folder, config))


def test_a_checkpoint_is_a_checkpoint(untrained: Path) -> None:
    source = open_weights(untrained, read_config(untrained))
    assert isinstance(source, CheckpointSource)
    source.close()


def test_places_are_where_the_bytes_lie(quantized: Path, checkpoint: Path) -> None:
    config = read_config(quantized)
    with closing(QuantizedSource(quantized, config)) as source:
        for weight in source.weights:
            for part, type in weight.parts.items():
                place = source.place(weight, part)
                assert place is not None and place.offset % 4096 == 0
                with place.path.open("rb") as file:
                    file.seek(place.offset)
                    assert file.read(place.nbytes) == source.array(weight.name, part).tobytes()
                assert place.nbytes == type.nbytes()
            assert source.place(replace(weight, storage=Plain("float64")), "data") is None
    assert not isinstance(CheckpointSource(Checkpoint.open(checkpoint), read_config(checkpoint)), PlacedSource)


def test_an_edited_file_has_no_places(quantized: Path, tmp_path: Path) -> None:
    shutil.copytree(quantized, tmp_path / "edited")
    victim = sorted((tmp_path / "edited").glob("*.safetensors"))[1]
    data = bytearray(victim.read_bytes())
    data[-4097] ^= 1
    victim.write_bytes(data)
    with closing(QuantizedSource(tmp_path / "edited", read_config(quantized))) as source:
        weight = next(weight for weight in source.weights if weight.name.startswith("layers.0"))
        with pytest.raises(CheckpointError, match="its digest differs"):
            source.place(weight, next(iter(weight.parts)))
