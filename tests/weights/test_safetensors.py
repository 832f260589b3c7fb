from __future__ import annotations

import io
import json
import math
import mmap
import os
import pickle
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ernie_rt.errors import FileFormatError, UnsafeCheckpointError, UnsafePathError
from ernie_rt.weights.safetensors import BITS, SafetensorsFile, StoredTensor
from support.hostile import entry, image


class Canary:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("canary",)


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Canary()))
    return data.getvalue()


GOOD = image({"a": entry(0, 8, [2]), "b": entry(8, 12, [1, 2], "BF16")}, bytes(12))

BAD: dict[str, tuple[bytes, type[FileFormatError], str]] = {
    "empty": (b"", FileFormatError, "empty"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", FileFormatError, "cut short"),
    "header cut": (GOOD[:40], FileFormatError, "cut short"),
    "payload cut": (GOOD[:-1], FileFormatError, "do not fill the file"),
    "trailing bytes": (GOOD + b"\0", FileFormatError, "do not fill the file"),
    "huge header": (image("{}", length=2**63), FileFormatError, "header of at most"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid", FileFormatError, "git lfs pull"),
    "error page": (b"<!doctype html><title>404</title>", FileFormatError, "an HTML page"),
    "zip": (zipped(), UnsafeCheckpointError, "a zip archive"),
    "pickle": (pickle.dumps(Canary()), UnsafeCheckpointError, "a pickle"),
    "leading space": (image(b' {"a":' + json.dumps(entry(0, 4, [1])).encode() + b"}", bytes(4)), FileFormatError, "{"),
    "duplicate tensor": (
        image('{"a":%s,"a":%s}' % ((json.dumps(entry(0, 4, [1])),) * 2), bytes(4)),
        FileFormatError,
        "'a' occurs twice",
    ),
    "duplicate field": (
        image('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"shape":[1]}}', bytes(4)),
        FileFormatError,
        "'shape' occurs twice",
    ),
    "unknown field": (image({"a": entry(0, 4, [1]) | {"x": 1}}, bytes(4)), FileFormatError, "impossible entry"),
    "rank 65": (image({"a": entry(0, 4, [1] * 65)}, bytes(4)), FileFormatError, "at most 64 axes"),
    "null in name": (image({"a\0b": entry(0, 4, [1])}, bytes(4)), FileFormatError, "impossible tensor name"),
    "empty name": (image({"": entry(0, 4, [1])}, bytes(4)), FileFormatError, "impossible tensor name"),
    "escape in name": (image({"\x1b[2J": entry(0, 4, [1])}, bytes(4)), FileFormatError, "impossible tensor name"),
    "surrogate in name": (image('{"\\ud800": 1}'), FileFormatError, "impossible tensor name"),
    "overlap": (image({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, bytes(4)), FileFormatError, "'b' does not begin"),
    "hole": (image({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)), FileFormatError, "expected 4; found 8"),
    "hole at the start": (image({"a": entry(4, 8, [1])}, bytes(8)), FileFormatError, "expected 0; found 4"),
    "shape too large": (image({"a": entry(0, 4, [2])}, bytes(4)), FileFormatError, "impossible entry"),
    "shape wraps": (
        image({"a": entry(0, 16, [4194305, 4194305, 211106198978564])}, bytes(16)),
        FileFormatError,
        "impossible entry",
    ),
    "beyond the file": (image({"a": entry(0, 1 << 62, [1 << 60])}, bytes(4)), FileFormatError, "do not fill"),
    "negative": (image({"a": entry(0, 4, [-1])}, bytes(4)), FileFormatError, "impossible entry"),
    "backwards": (image({"a": entry(4, 0, [0], "strange")}, bytes(4)), FileFormatError, "impossible entry"),
    "half a byte": (image({"a": entry(0, 1, [1], "F4")}, bytes(1)), FileFormatError, "impossible entry"),
    "an entry of another type": (image({"a": 5}), FileFormatError, "impossible entry.*found 5"),
    "an entry of null": (image({"a": None}), FileFormatError, "impossible entry"),
    "a shape of texts": (image({"a": entry(0, 4, ["1"])}, bytes(4)), FileFormatError, "impossible entry"),  # type: ignore[list-item]
    "a size beyond 64 bits": (image({"a": entry(0, 4, [10**30])}, bytes(4)), FileFormatError, "impossible entry"),
    "no numbers, sizes that overflow": (
        image({"a": entry(0, 0, [1 << 32, 1 << 32, 0])}),
        FileFormatError,
        "impossible entry",
    ),
    "a size beyond float64": (image({"a": entry(0, 4, [10**400])}, bytes(4)), FileFormatError, "beyond float64"),
    "three offsets": (
        image({"a": entry(0, 4, [1]) | {"data_offsets": [0, 4, 8]}}, bytes(4)),
        FileFormatError,
        "impossible entry",
    ),
    "a true offset": (image({"a": entry(False, True, [1], "U8")}, bytes(1)), FileFormatError, "impossible entry"),
    "deep": (image('{"a":' + "[" * 50_000 + "]" * 50_000 + "}"), FileFormatError, "nested"),
    "array": (image("[1]"), FileFormatError, "does not start with"),
    "not UTF-8": (image(b'{"\xff":1}'), FileFormatError, "not UTF-8"),
}


def test_what_nobody_reads_of_a_header_may_be_anything(tmp_path: Path) -> None:
    metadata = '"__metadata__": {"format": NaN, "x": 1e999, "x": "\\ud800"}'
    entries = {"conv": entry(0, 2, [1, 1, 1, 2, 1], "U8"), "strange": entry(2, 5, [7], "I3"), "a": entry(5, 9, [1])}
    header = f"{{{metadata}, {json.dumps(entries)[1:]}"
    path = tmp_path / "model.safetensors"
    path.write_bytes(image(header, bytes(5) + np.float32(7).tobytes()))
    file = SafetensorsFile(path)
    assert file.array("a") == 7 and file.tensors["conv"].shape == (1, 1, 1, 2, 1)
    with pytest.raises(FileFormatError, match="found I3"):
        file.array("strange")


@given(st.data())
def test_our_reader_and_the_library_agree(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    numbers = st.integers(-1, 9) | st.sampled_from([2**32, 2**63, 2**64, 10**30])
    entries = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "BF16", "U8", "I64", "BOOL", "F4", "F6_E2M3", "F8_E4M3", "C64"]),
            "shape": st.lists(numbers, max_size=3),
            "data_offsets": st.lists(numbers, min_size=1, max_size=3),
        }
    )
    header = data.draw(st.dictionaries(st.sampled_from("abc"), entries, max_size=3))
    nbytes = data.draw(st.integers(0, 20))
    if data.draw(st.booleans()):  # laid out as the sizes ask for
        nbytes = 0
        for one in header.values():
            bits = BITS[one["dtype"]] * math.prod(one["shape"])
            one["data_offsets"] = [nbytes, nbytes := nbytes + min(max(bits // 8, 0), 1 << 20)]
    path = tmp_path_factory.getbasetemp() / "drawn.safetensors"
    path.write_bytes(image(header, bytes(nbytes)))
    try:
        with safe_open(path, "np"):
            valid = True
    except SafetensorError:
        valid = False
    if valid:
        SafetensorsFile(path).close()
    else:
        with pytest.raises(FileFormatError):
            SafetensorsFile(path)


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_errors_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data, error, reason = BAD[name]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(error, match=reason) as caught:
            SafetensorsFile(path)
        assert time.process_time() - started < 0.5
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and len(str(caught.value)) < 500
    assert list(tmp_path.iterdir()) == [path]


def test_special_files_are_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zero", tmp_path):
        with pytest.raises(UnsafePathError, match="not a regular file"):
            SafetensorsFile(path)


PLACES = st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([0, 0, 0, 0, 1]))


@settings(max_examples=300)
@given(drawn=st.lists(PLACES, max_size=3), nbytes=st.integers(0, 4))
def test_tensors_fill_the_file_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int, int]], nbytes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "placed.safetensors"
    places = [(begin, begin + size + wrong, [size]) for begin, size, wrong in drawn]
    path.write_bytes(image({f"t{i}": entry(*place, "U8") for i, place in enumerate(places)}, bytes(nbytes)))
    covered = sorted(byte for begin, end, _ in places for byte in range(begin, end))
    sound = (
        covered == list(range(nbytes))
        and all(end - begin == size for begin, end, (size,) in places)
        and {begin for begin, _, _ in places} <= {0, *(end for begin, end, _ in places if end > begin)}
    )
    try:
        SafetensorsFile(path).close()
    except FileFormatError:
        assert not sound
    else:
        assert sound


def test_header_only_and_views(tmp_path: Path) -> None:
    tensors = {
        "bf16": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3),
        "f16": np.arange(5, dtype=np.float16),
        "f32": np.arange(3, dtype=np.float32).reshape(3, 1),
        "f64": np.arange(2, dtype=np.float64),
        "u16": np.arange(3, dtype=np.uint16),
        "u8": np.arange(3, dtype=np.uint8),
        "scalar": np.array(7, np.float32),
        "signed": np.arange(3, dtype=np.int8),
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(tensors, metadata={"format": "np"}))
    file = SafetensorsFile(path)
    assert set(file.tensors) == set(tensors)
    stored = file.tensors["bf16"]
    assert stored == StoredTensor("bf16", "BF16", (2, 3), stored.offset, 12)
    for name, expected in tensors.items():
        if name == "signed":
            with pytest.raises(FileFormatError, match="found I8"):
                file.array(name)
            continue
        array = file.array(name)
        assert array.dtype == expected.dtype and array.shape == expected.shape and not array.flags.writeable
        np.testing.assert_array_equal(array, expected)
        file.release(name)
        np.testing.assert_array_equal(array, expected)
    file.close()
    file.close()
    assert array == 7  # a view outlives its file


def test_unaligned_tensors_are_read(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.float32)
    raw = json.dumps({"a": entry(0, 16, [4])})
    raw += " " * (-(len(raw) + 8) % 4 + 1)
    path = tmp_path / "model.safetensors"
    path.write_bytes(image(raw, values.tobytes()))
    np.testing.assert_array_equal(SafetensorsFile(path).array("a"), values)


def test_opening_and_releasing_keep_memory_free(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = json.dumps({"a": entry(0, 1 << 36, [1 << 34])})
    with path.open("wb") as file:
        file.write(image(header))
        file.truncate(8 + len(header) + (1 << 36))  # 64 GiB of hole
    before = resident()
    opened = SafetensorsFile(path)
    assert resident() - before < 8 << 20
    window = opened.array("a")[: 1 << 24]
    assert not window.any()
    touched = resident()
    opened.release("a")
    assert touched - before > 56 << 20
    assert resident() - before < 16 << 20


def test_what_fills_no_page_of_its_own_stays(tmp_path: Path) -> None:
    """Least of all beyond the last page, where there is nothing to drop."""
    path = tmp_path / "model.safetensors"
    header = json.dumps({"a": entry(0, 4, [1])})
    path.write_bytes(image(header + " " * (mmap.PAGESIZE - 12 - len(header)), np.float32(3).tobytes()))
    assert path.stat().st_size == mmap.PAGESIZE
    opened = SafetensorsFile(path)
    opened.release("a")
    assert opened.array("a") == 3


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
