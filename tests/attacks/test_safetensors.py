"""Weights that are broken on purpose: what the format forbids, what its own library lets pass, and what lies about its
size. What a header alone decides is in tests/weights/test_safetensors.py; here is what follows through the doors."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ernie_rt.errors import ModelNotFoundError
from ernie_rt.export import ExportOptions, export, verify
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.quantize import Quantization, quantize_model
from ernie_rt.weights.safetensors import HEADER_LIMIT, SafetensorsFile
from support.attempts import refused, refused_each
from support.exports import forge
from support.hostile import DOORS, SINGLE, Break, both, copied, entry, header_of, image, put, vast

NORM = "model.norm.weight"
ONE = json.dumps(entry(0, 4, [1])).encode()


def edited(edit: Callable[[dict[str, Any]], object]) -> Break:
    """The good file under a header that somebody changed."""

    def change(folder: Path) -> None:
        header, data = header_of(folder / SINGLE)
        edit(header)
        put(SINGLE, image(header, data))(folder)

    return change


def spelt(rewrite: Callable[[bytes], bytes]) -> Break:
    """The good file, its header's text rewritten."""

    def change(folder: Path) -> None:
        header, data = header_of(folder / SINGLE)
        put(SINGLE, image(rewrite(json.dumps(header).encode()), data))(folder)

    return change


def also(name: str, said: object) -> Break:
    """One tensor more, without a byte of its own."""

    def add(header: dict[str, Any]) -> None:
        end = max(one["data_offsets"][1] for key, one in header.items() if key != "__metadata__")
        header[name] = said if said is not None else entry(end, end, [0])

    return edited(add)


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return data.getvalue()


IMPOSSIBLE = "an impossible entry for tensor"
FILES: dict[str, tuple[Break, str, str]] = {
    # What the format's own library lets pass, most of it against the format.
    "a tensor twice": (
        spelt(lambda text: text[:-1] + b', "model.norm.weight": ' + ONE + b"}"), "FileFormatError",
        "'model.norm.weight' occurs twice",
    ),
    "spaces in front": (spelt(lambda text: b"  " + text), "FileFormatError", "does not start with '{'"),
    "a tab in front": (spelt(lambda text: b"\t" + text), "FileFormatError", "does not start with '{'"),
    "an unknown field": (
        edited(lambda header: header[NORM].update(device="cuda:0")), "FileFormatError", f"{IMPOSSIBLE} '{NORM}'",
    ),
    "no tensors": (put(SINGLE, image({})), "CheckpointError", "not the tensors of an ERNIE 4.5 model"),
    "no tensors, metadata": (
        put(SINGLE, image({"__metadata__": {"format": "pt"}})), "CheckpointError", "not the tensors of an ERNIE 4.5",
    ),
    "a tensor without numbers": (also("empty", None), "CheckpointError", "tensors left over, 1: 'empty'"),
    "no name": (also("", None), "FileFormatError", "an impossible tensor name"),
    "a path for a name": (also("../../x", None), "CheckpointError", "tensors left over, 1: '../../x'"),
    "a null in a name": (also("a\0b", None), "FileFormatError", "an impossible tensor name"),
    "a long name": (also("x" * 257, None), "FileFormatError", "an impossible tensor name"),
    "a name that turns text around": (also("\u202ex", None), "FileFormatError", "an impossible tensor name"),
    "a name that looks like another": (
        also("model.n\u043erm.weight", None), "CheckpointError", "left over, 1: 'model.n",
    ),
    "a thousand axes": (
        edited(lambda header: header[NORM].update(shape=[128] + [1] * 999)), "FileFormatError", "at most 64 axes",
    ),
    "axes of nothing": (
        edited(lambda header: header[NORM].update(shape=[128, 1, 1])), "CheckpointError",
        f"{NORM} [128, 1, 1] instead of [128]",
    ),
    "another dtype of the same size": (
        edited(lambda header: header[NORM].update(dtype="I16")), "CheckpointError", f"{NORM} I16",
    ),
    "a dtype of no library": (
        edited(lambda header: header[NORM].update(dtype="__import__('os')")), "CheckpointError",
        f"{NORM} __import__('os')",
    ),
    # Entries of other types, and numbers that overflow somewhere.
    **{
        f"an entry of {said!r:.20}": (also("x", said), "FileFormatError", f"{IMPOSSIBLE} 'x'")
        for said in (1, "F32", [], [1, 2], True, {}, {"dtype": "F32"}, [[]] * 1000)
    },
    **{
        f"{field} {said!r:.30}": (
            edited(lambda header, field=field, said=said: header[NORM].update({field: said})),  # type: ignore[misc]
            "FileFormatError", f"{IMPOSSIBLE} '{NORM}'",
        )
        for field, values in {
            "dtype": (None, 1, ["BF16"], "bf16 "),
            "shape": (None, 128, "128", [[128]], [128.0], [True] * 7, [-128], [2**64], [10**400], [2**32, 2**32, 0]),
            "data_offsets": (None, 0, [0], [0, 256, 512], ["0", "256"], [0.0, 256.0], [256, 0], [-256, 0], [0, 2**64]),
        }.items()
        for said in values
        if (field, said) != ("dtype", "bf16 ")
    },
    "a place that wraps around": (
        edited(lambda header: header[NORM].update(data_offsets=[2**64 - 256, 2**64])), "FileFormatError", IMPOSSIBLE,
    ),
    # Headers that cost more than they weigh.
    "a header of lists": (put(SINGLE, image(b'{"a":[' + b"[]," * 1_300_000 + b"[]]}")), "JsonError", "too many values"),
    "a header of pairs": (
        put(SINGLE, image(b"{" + b",".join(b'"%d":0' % n for n in range(300_000)) + b"}")), "JsonError",
        "too many values",
    ),
    "metadata of objects": (
        put(SINGLE, image(b'{"__metadata__":{' + b",".join(b'"%d":{}' % n for n in range(300_000)) + b"}}")),
        "JsonError", "too many values",
    ),
    "many tensors of nothing": (
        put(SINGLE, image({f"model.x{n}": entry(0, 0, [0], "U8") for n in range(25_000)})), "CheckpointError",
        "tensors left over, 25000",
    ),
    "a number of four million digits": (
        put(SINGLE, image(b'{"a":' + b"9" * 4_000_000 + b"}")), "FileFormatError", "is beyond float64",
    ),
    "text of four million escapes": (
        put(SINGLE, image(b'{"a":"' + b"\\n" * 1_900_000 + b'"}')), "FileFormatError", IMPOSSIBLE,
    ),
    "a header longer than any": (
        put(SINGLE, image(b"{" + b" " * HEADER_LIMIT + b"}")), "FileFormatError", "a header of at most 4194304 bytes",
    ),
    "a deep header": (put(SINGLE, image(b'{"a":' * 200_000)), "JsonError", "nested"),
    # Files that are no weights, and files that say they are large.
    "a pointer": (put(SINGLE, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), "FileFormatError",
                  "a Git LFS pointer"),
    "a page": (put(SINGLE, "<!DOCTYPE html><title>404</title>"), "FileFormatError", "an HTML page"),
    "an archive": (put(SINGLE, zipped()), "UnsafeCheckpointError", "a zip archive"),
    "a pickle": (put(SINGLE, pickle.dumps({})), "UnsafeCheckpointError", "a pickle"),
    "a terabyte of nothing": (vast(SINGLE), "FileFormatError", "do not fill the file"),
    "a terabyte from the start": (
        lambda folder: (put(SINGLE, b"")(folder), os.truncate(folder / SINGLE, 1 << 40)), "FileFormatError", "with '{'",
    ),
    "as long as it says, without a byte": (
        lambda folder: (
            put(SINGLE, image({NORM: entry(0, 1 << 39, [1 << 38], "BF16")}))(folder),
            os.truncate(folder / SINGLE, (folder / SINGLE).stat().st_size + (1 << 39)),
        ),
        "CheckpointError", f"{NORM} [274877906944] instead of [128]",
    ),
}  # fmt: skip


def test_weights(untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    whole = put(SINGLE, (folder / SINGLE).read_bytes())
    cases = [(both(whole, damage), kind, words) for damage, kind, words in FILES.values()]
    refused_each(DOORS["plan"], folder, cases, size=4 << 20)


@pytest.mark.parametrize("door", ["run", "quantize", "export"])
@pytest.mark.parametrize("name", ["a tensor twice", "an entry of 1", "a header of lists", "a terabyte of nothing"])
def test_every_door_reads_weights_alike(door: str, name: str, untrained: Path, tmp_path: Path) -> None:
    damage, kind, words = FILES[name]
    folder = copied(untrained, tmp_path / "model")
    damage(folder)
    refused(DOORS[door], folder, kind, words, size=8 << 20, home=tmp_path)


def test_a_header_that_fits_no_model_is_read_once(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a config it is compared with every model that is known."""
    folder = copied(untrained, tmp_path / "model")
    put(SINGLE, image({f"model.x{n}": entry(0, 0, [0], "U8") for n in range(5000)}))(folder)
    (folder / "config.json").unlink()
    refused(DOORS["plan"], folder, "ModelNotFoundError", "weights without their config.json")
    read, begin = [], SafetensorsFile.__init__
    monkeypatch.setattr(SafetensorsFile, "__init__", lambda self, path: (read.append(path), begin(self, path))[1])
    with pytest.raises(ModelNotFoundError):
        DOORS["plan"](folder)
    assert read == [folder / SINGLE]


@pytest.mark.parametrize(
    ("name", "number"),
    [(NORM, np.nan), ("model.layers.1.mlp.gate.weight", -np.inf), ("model.layers.0.self_attn.q_proj.weight", np.inf)],
)
def test_what_is_no_number_is_written_into_no_folder(name: str, number: float, untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    tensors = load_file(folder / SINGLE)
    tensors[name].reshape(-1)[5] = number
    (folder / SINGLE).unlink()
    save_file(tensors, folder / SINGLE)
    checked = ExportOptions(Quantization(8), verify=True)
    for door in (DOORS["quantize"], DOORS["export"], lambda f: export(f, tmp_path / "checked", options=checked)):
        refused(door, folder, "CheckpointError", "numbers that are NaN or infinite", home=tmp_path)
    assert not {"quantized", "exported", "checked"} & {path.name for path in tmp_path.iterdir()}


def test_what_is_too_large_for_another_dtype(untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    tensors = load_file(folder / SINGLE)
    tensors[NORM][5] = ml_dtypes.bfloat16(1e30)
    (folder / SINGLE).unlink()
    save_file(tensors, folder / SINGLE)
    small = ExportOptions(dtype="float16")
    refused(
        lambda path: export(path, tmp_path / "out", options=small), folder, "CheckpointError", "too large for float16",
        home=tmp_path,
    )  # fmt: skip


def poison(path: Path, part: str) -> None:
    """NaN in the place of the first number of a tensor, digests left alone."""
    tensor = SafetensorsFile(path).tensors[part]
    nan = np.array(np.nan, {"F16": np.float16, "F32": np.float32, "BF16": ml_dtypes.bfloat16}[tensor.dtype]).tobytes()
    data = bytearray(path.read_bytes())
    data[tensor.offset : tensor.offset + len(nan)] = nan
    path.write_bytes(data)


@pytest.mark.parametrize("part", ["layers.0.attention.qkv.scales", "layers.0.attention.norm.data"])
@pytest.mark.parametrize("exported", [False, True])
def test_what_is_no_number_is_found_by_verify(exported: bool, part: str, untrained: Path, tmp_path: Path) -> None:
    """Somebody put it there who rewrote every digest."""
    out = tmp_path / "out"
    if exported:
        export(untrained, out, options=ExportOptions(Quantization(4)))
    else:
        quantize_model(untrained, read_config(untrained), out, Quantization(4))
    name = next(path.name for path in sorted(out.glob("model-*")) if part in SafetensorsFile(path).tensors)
    poison(out / name, part)
    if exported:
        reseal(out, name)
        forge(out)
    else:
        reseal(out, name)
    weight = part.rpartition(".")[0]
    refused(verify, out, "CheckpointError", "numbers that are NaN or infinite", weight)


def reseal(folder: Path, name: str) -> None:
    """Put the digest of a file of weights into the manifest."""
    manifest = json.loads((folder / "ernie_rt.json").read_text())
    manifest["shards"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "ernie_rt.json").write_text(json.dumps(manifest))


def test_a_file_that_is_cut_while_it_is_mapped(untrained: Path, tmp_path: Path) -> None:
    """Who reads beyond its end would be killed by the system, with the process that it is part of."""
    path = Path(copied(untrained, tmp_path / "model")) / SINGLE
    put(SINGLE, path.read_bytes())(path.parent)
    file = SafetensorsFile(path)
    os.truncate(path, 4096)
    for read in (lambda path: file.array(NORM), lambda path: file.sha256()):
        refused(read, path, "FileFormatError", "became shorter while it was read")


def test_a_file_that_grows_while_it_is_mapped(untrained: Path, tmp_path: Path) -> None:
    path = Path(copied(untrained, tmp_path / "model")) / SINGLE
    put(SINGLE, path.read_bytes())(path.parent)
    file = SafetensorsFile(path)
    before = file.sha256(), file.array(NORM).tobytes()
    with path.open("ab") as more:
        more.write(b"x" * (1 << 20))
    assert (file.sha256(), file.array(NORM).tobytes()) == before and not file.is_untouched()
