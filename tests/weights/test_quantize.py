from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ernie_rt import writing
from ernie_rt.display import human_bytes
from ernie_rt.errors import CheckpointError, ErnieRtError, OptionError, WriteError
from ernie_rt.graph.types import Plain, Storage
from ernie_rt.modeling.config import read_config
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.modeling.families import FAMILIES
from ernie_rt.modeling.graphs import build_graphs, weights_of
from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt.weights.folder import PROGRESS, write_quantized
from ernie_rt.weights.manifest import MANIFEST, file_bytes, read_manifest, shard_weights
from ernie_rt.weights.opening import open_weights
from ernie_rt.weights.quantize import Quantization, Quantizer, convert_model, quantize_model
from ernie_rt.weights.synthetic import Synthetic
from support.drawn import DENSE, MOE, write_drawn


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("quantize") / "dense", DENSE)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("quantize") / "moe", MOE)


def run(source: Path, out: Path, **options: Any) -> None:
    quantize_model(source, read_config(source), out, Quantization(**({"bits": 4} | options)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_becomes_what(moe: Path, tmp_path: Path) -> None:
    run(moe, tmp_path / "q", block=32)
    manifest = read_manifest(tmp_path / "q" / MANIFEST)
    kinds: dict[str, set[str]] = {}
    for name, storage in manifest.storages.items():
        kinds.setdefault(str(storage), set()).add(name.split(".", 2)[-1] if name.startswith("layers") else name)
    linears = {"attention.qkv", "attention.out", "mlp.gate_up", "mlp.down", "mlp.experts.gate_up", "mlp.experts.down"}
    assert kinds.pop("int4/32") == linears | {"mlp.shared.gate_up", "mlp.shared.down"}
    assert kinds.pop("int8/32") == {"embed.weight", "head.weight"}
    assert kinds.pop("f32") == {"mlp.gate", "mlp.correction_bias"}
    assert (
        kinds.pop("bf16") >= {"attention.norm", "attention.qkv_bias", "mlp.shared.down_bias", "head.norm"} and not kinds
    )
    assert manifest.errors.keys() == {n for n, s in manifest.storages.items() if s.packed}
    assert all(0.07 < error < 0.1 for name, error in manifest.errors.items() if name.startswith("layers"))
    assert 0.004 < manifest.errors["embed.weight"] < 0.006
    assert manifest.plan["weights"] == "int4" and len(str(manifest.plan["source"])) == 64
    assert (tmp_path / "q" / "config.json").read_bytes() == (moe / "config.json").read_bytes()


def test_a_tied_embedding_is_one_tensor(dense: Path, tmp_path: Path) -> None:
    run(dense, tmp_path / "q")
    storages = read_manifest(tmp_path / "q" / MANIFEST).storages
    assert storages["embed.weight"] == BlockQuantized(8, 32) and "head.weight" not in storages


def test_what_stays_is_kept_as_it_is_stored(dense: Path, tmp_path: Path) -> None:
    """Also where config.json names a narrower dtype."""
    shutil.copytree(dense, tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    name = "model.layers.1.input_layernorm.weight"
    tensors[name] = tensors[name].astype(np.float32) + np.float32(1e-4)
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    run(tmp_path / "m", tmp_path / "q")
    assert read_manifest(tmp_path / "q" / MANIFEST).storages["layers.1.attention.norm"] == Plain("float32")
    source = open_weights(tmp_path / "q", read_config(tmp_path / "q"))
    norm = next(w for w in build_graph(read_config(dense)).weights if w.name == "layers.1.attention.norm")
    source.fill(norm, "data", out := np.zeros(64, np.float32))
    source.close()
    assert (out == tensors[name]).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_layouts_convert_into_one_another(moe: Path, tmp_path: Path, bits: int) -> None:
    run(moe, tmp_path / "raw", bits=bits)
    run(moe, tmp_path / "tiled", bits=bits, layout="tiled")
    convert_model(tmp_path / "raw", read_config(moe), tmp_path / "to tiled", "tiled")
    convert_model(tmp_path / "tiled", read_config(moe), tmp_path / "to raw", "raw")
    assert contents(tmp_path / "raw") == contents(tmp_path / "to raw")
    assert contents(tmp_path / "tiled") == contents(tmp_path / "to tiled")
    assert contents(tmp_path / "tiled") != contents(tmp_path / "raw")


def test_threads_change_nothing(moe: Path, tmp_path: Path) -> None:
    run(moe, tmp_path / "one")
    quantize_model(moe, read_config(moe), tmp_path / "four", Quantization(4), threads=4)
    assert contents(tmp_path / "one") == contents(tmp_path / "four")


def dies(work: Callable[[], object], at: int) -> int:
    """Run `work` in a child process that ends abruptly at its `at`-th change of a file; how many it has come to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def change(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event in ("os.mkdir", "os.rename", "os.remove", "os.link", "ernie_rt.weight") or (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            ):
                count += 1
                if count == at:
                    os._exit(9)

        try:
            sys.addaudithook(change)
            work()
            os.write(writing, count.to_bytes(4, "little"))
        finally:
            os._exit(9)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return int.from_bytes(pipe.read(), "little")


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
def test_a_run_killed_anywhere_is_resumed(
    every: int, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each change leaves of files is in tests/faults; here is what a run does not write again."""
    produce = Quantizer.__call__

    def announced(self: Quantizer, *arguments: Any) -> float | None:
        sys.audit("ernie_rt.weight")
        return produce(self, *arguments)

    monkeypatch.setattr(Quantizer, "__call__", announced)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    run(dense, tmp_path / "whole", clip_search=False)
    expected = contents(tmp_path / "whole")
    out, part = tmp_path / "out", tmp_path / "out.partial"
    changes = dies(lambda: run(dense, out, clip_search=False), 0)
    assert changes > 30 and contents(out) == expected
    shutil.rmtree(out)
    kept = 0
    for at in range(1, changes + 1, every):
        dies(lambda: run(dense, out, clip_search=False), at)
        assert not out.exists() or contents(out) == expected
        if (part / MANIFEST).exists():
            assert contents(part) == expected
        if not out.exists():
            whole = set(read_manifest(part / PROGRESS).shards) if (part / PROGRESS).exists() else set()
            written: list[str] = []
            monkeypatch.setattr(Quantizer, "__call__", lambda *a, w=written: (w.append(a[1].name), announced(*a))[1])
            run(dense, out, clip_search=False)
            monkeypatch.setattr(Quantizer, "__call__", announced)
            assert not whole or len(written) < 15
            kept += bool(whole)
        assert contents(out) == expected and not part.exists()
        shutil.rmtree(out)
    assert kept > 15 // every


def test_a_damaged_part_is_written_again(dense: Path, tmp_path: Path) -> None:
    run(dense, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "out.partial")
    for path in (tmp_path / "out.partial").glob("*00002*"):
        path.write_bytes(b"short")
    (tmp_path / "out.partial" / f".{MANIFEST}.0123456789abcdef.tmp").write_bytes(b"left")
    run(dense, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_part_with_a_flipped_bit_is_written_again(dense: Path, tmp_path: Path) -> None:
    """Its size says nothing."""
    run(dense, tmp_path / "whole")
    partial = Path(shutil.copytree(tmp_path / "whole", tmp_path / "out.partial"))
    (partial / MANIFEST).rename(partial / PROGRESS)
    (path,) = partial.glob("*00002*")
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1
    path.write_bytes(data)
    run(dense, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_part_that_is_said_to_be_stored_otherwise_is_written_again(dense: Path, tmp_path: Path) -> None:
    run(dense, tmp_path / "whole")
    partial = Path(shutil.copytree(tmp_path / "whole", tmp_path / "out.partial"))
    manifest = json.loads((partial / MANIFEST).read_text())
    name = next(name for name, shard in manifest["shards"].items() if "layers.0.mlp.down" in shard["weights"])
    manifest["shards"][name]["weights"]["layers.0.mlp.down"] = {"storage": {"kind": "plain", "dtype": "bfloat16"}}
    (partial / MANIFEST).write_text(json.dumps(manifest))
    run(dense, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["evil.py", "notes.txt", "model-00009-of-00009.safetensors", "model.onnx"])
def test_what_was_put_into_an_interrupted_run_is_not_published(
    name: str, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(dense, tmp_path / "out", monkeypatch)
    (tmp_path / "out.partial" / name).write_text("x")
    with pytest.raises(WriteError, match=f"{name}: this does not belong to the run that was interrupted here"):
        run(dense, tmp_path / "out")
    assert (tmp_path / "out.partial" / name).read_text() == "x" and not (tmp_path / "out").exists()


def test_settings_in_an_interrupted_run_are_taken_anew(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a template that the model does not have, or a link in the place of a file, nothing is left."""
    interrupted(dense, tmp_path / "out", monkeypatch)
    partial = tmp_path / "out.partial"
    (partial / "chat_template.jinja").write_text("{{ evil }}")
    (partial / "config.json").symlink_to(tmp_path / "elsewhere")
    (weights,) = partial.glob("*00001*")
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    run(dense, tmp_path / "out")
    run(dense, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="owners and modes")
@pytest.mark.parametrize("what", ["the folder", "a file", "another's file"])
def test_an_interrupted_run_that_others_can_write_to(
    what: str, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(dense, tmp_path / "out", monkeypatch)
    partial = tmp_path / "out.partial"
    (weights,) = partial.glob("*00001*")
    if what == "another's file":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    else:
        (partial if what == "the folder" else weights).chmod(0o777)
    with pytest.raises(WriteError, match="cannot be trusted that others can write to"):
        run(dense, tmp_path / "out")


def interrupted(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ernie_rt.weights.folder._take_along", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(source, out, **options)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"bits": 8}, "expected weights int8; found weights int4."),
        ({"block": 64, "layout": "tiled"}, "expected block 64, layout tiled; found block 32, layout raw."),
        ({"clip_search": False}, "expected clip-search off; found clip-search on."),
    ],
    ids=str,
)
def test_another_run_does_not_go_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], difference: str
) -> None:
    config = DENSE | {"intermediate_size": 64}
    write_drawn(tmp_path / "m", config)
    interrupted(tmp_path / "m", tmp_path / "out", monkeypatch)
    before = contents(tmp_path / "out.partial")
    with pytest.raises(WriteError) as caught:
        run(tmp_path / "m", tmp_path / "out", **other)
    assert f"out.partial: a run with other options was interrupted here; {difference} Give what" in str(caught.value)
    assert contents(tmp_path / "out.partial") == before and not (tmp_path / "out").exists()
    run(tmp_path / "m", tmp_path / "out")


def test_nor_does_one_of_a_finetune(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(dense, tmp_path / "out", monkeypatch)
    shutil.copytree(dense, tmp_path / "finetune")
    tensors = load_file(dense / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "finetune" / "model.safetensors")
    with pytest.raises(WriteError, match="a run of another model was interrupted here"):
        run(tmp_path / "finetune", tmp_path / "out")


def make(kind: str, path: Path) -> None:
    match kind:
        case "file":
            path.write_text("mine")
        case "folder":
            path.mkdir()
            (path / "mine").write_text("mine")
        case "empty folder":
            path.mkdir()
        case "link to nothing":
            path.symlink_to(path.with_name("nothing"))


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder", "link to nothing"])
def test_what_exists_is_never_touched(dense: Path, tmp_path: Path, kind: str) -> None:
    make(kind, tmp_path / "out")
    with pytest.raises(WriteError, match="out: cannot be written; found File exists"):
        run(dense, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    shutil.move(tmp_path / "out", tmp_path / "out.partial")
    if kind != "empty folder":
        with pytest.raises(WriteError):
            run(dense, tmp_path / "out")
        assert not (tmp_path / "out").exists() and os.path.lexists(tmp_path / "out.partial")
        assert not (tmp_path / "nothing").exists()


def test_a_place_that_cannot_be(dense: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, message in ((tmp_path / "no" / "out", "No such file"), (tmp_path / "file" / "out", "Not a directory")):
        with pytest.raises(WriteError, match=message):
            run(dense, out)
    with pytest.raises(WriteError, match="File exists"):
        run(dense, dense)


def test_two_at_once(dense: Path, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="another process is writing it"), writing.build_folder(tmp_path / "out"):
        run(dense, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_too_little_room_is_said_first(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = shard_weights(Quantization(4).weights(read_config(dense)))
    needed = sum(map(file_bytes, shards.values()))
    monkeypatch.setattr(writing, "free_bytes", lambda folder: needed - 1)
    with pytest.raises(WriteError, match=f"too little room; expected {human_bytes(needed)}; found "):
        run(dense, tmp_path / "out")
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(writing, "free_bytes", lambda folder: needed)
    run(dense, tmp_path / "out")
    assert sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")) == needed


def test_a_disk_that_fills_up(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def full(self: Quantizer, *arguments: Any) -> float | None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return produce(self, *arguments)

    produce = Quantizer.__call__
    monkeypatch.setattr(Quantizer, "__call__", full)
    with pytest.raises(WriteError, match="No space left"):
        run(dense, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out.partial").iterdir()} == {
        PROGRESS,
        "model-00001-of-00004.safetensors",
    }
    run(dense, tmp_path / "out")
    run(dense, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number(moe: Path, tmp_path: Path, number: float) -> None:
    shutil.copytree(moe, tmp_path / "m")
    tensors = load_file(moe / "model.safetensors")
    tensors["model.layers.1.mlp.experts.2.up_proj.weight"][31, 63] = ml_dtypes.bfloat16(number)
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.experts\.gate_up: numbers that are NaN or infinite"):
        run(tmp_path / "m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [np.nan, -np.inf])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.embed_tokens.weight"])
def test_what_is_no_number_is_not_kept_either(name: str, number: float, dense: Path, tmp_path: Path) -> None:
    shutil.copytree(dense, tmp_path / "m")
    tensors = load_file(dense / "model.safetensors")
    tensors[name].reshape(-1)[-1] = ml_dtypes.bfloat16(number)
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    with pytest.raises(CheckpointError, match="NaN or infinite") as caught:
        run(tmp_path / "m", tmp_path / "out")
    assert caught.value.where is not None and not (tmp_path / "out").exists()


def test_models_that_cannot_be(dense: Path, tmp_path: Path) -> None:
    config = read_config(dense)
    with pytest.raises(OptionError, match=r"layers.0.mlp.down \[64, 96\] cannot be stored as int4/64: blocks of 64"):
        run(dense, tmp_path / "out", block=64)
    with pytest.raises(OptionError, match="the model is not quantised"):
        convert_model(dense, config, tmp_path / "out", "tiled")
    run(dense, tmp_path / "q")
    with pytest.raises(OptionError, match="the model is quantised already"):
        run(tmp_path / "q", tmp_path / "out")
    with pytest.raises(OptionError, match="the model has the layout raw already"):
        convert_model(tmp_path / "q", config, tmp_path / "out", "raw")
    (dense_copy := tmp_path / "broken").mkdir()
    shutil.copy(dense / "config.json", dense_copy)
    with pytest.raises(ErnieRtError, match="there are no weights"):
        run(dense_copy, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("how", [Quantization(4, 128, "tiled"), Quantization(8, 32)], ids=str)
def test_every_known_model_can_be_quantised(family: Any, how: Quantization) -> None:
    """And its parts lie as CPU kernels like them."""
    weights = how.weights(family.config)
    stored = sum(weight.nbytes() for weight in weights)
    plain = sum(w.nbytes() for w in weights_of(build_graphs(family.config)).values() if w.storage.stored)
    assert stored < plain * (0.34 if how.bits == 4 else 0.55)
    for weight in weights:
        assert not (weight.storage.packed and weight.name.startswith("vision."))
        if weight.storage.packed:
            for part in weight.parts.values():
                assert part.nbytes() % 64 == 0


def test_synthetic_weights_without_a_folder(tmp_path: Path) -> None:
    config = read_config(write_drawn(tmp_path / "m", DENSE))
    weights = Quantization(4).weights(config)
    done: list[tuple[int, int]] = []
    manifest = write_quantized(
        tmp_path / "out", None, weights, {"seed": 3}, Quantizer(Synthetic(3), search=True), lambda *at: done.append(at)
    )
    assert done[-1][0] == done[-1][1] == sum(shard.nbytes for shard in manifest.shards.values())
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["plan"] == {"seed": 3}


def test_the_layout_is_one_that_a_backend_takes() -> None:
    how, asked = Quantization(4), []

    def none(storage: Storage) -> bool:
        asked.append(storage)
        return False

    assert how.taken(lambda storage: storage == BlockQuantized(4, 32, "tiled")) == Quantization(4, layout="tiled")
    assert how.taken(lambda storage: True).layout == "tiled"  # whoever takes tiles has kernels for them
    assert how.taken(none) == how
    assert set(asked) == {BlockQuantized(4, 32), BlockQuantized(4, 32, "tiled")}
    assert Quantization(8, layout="tiled").taken(lambda storage: storage == BlockQuantized(8, 32)).layout == "raw"
