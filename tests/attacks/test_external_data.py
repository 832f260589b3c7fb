"""An exported graph whose tensors lie elsewhere: three kinds of tensors at every place that readers were talked into
opening. CVE-2022-25882, CVE-2024-27318 and CVE-2026-34446 each missed what the next one found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
import onnx
from onnx import TensorProto

from ernie_rt_onnx.portable import MODEL
from support.attempts import refused, refused_each
from support.exports import WEIGHTS, node
from support.hostile import DOORS

LENGTH = 64


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """An exported folder, beside which lies a secret."""
    (tmp_path / "secret").write_bytes(b"s" * 4096)
    return Path(shutil.copytree(exported, tmp_path / "folder"))


def external(location: str, **said: str) -> TensorProto:
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": location, "offset": "0", "length": str(LENGTH)} | said).items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def sparse_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, dims=[64]))


def sparse_constant(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(node(sparse_tensor=onnx.SparseTensorProto(values=tensor, dims=[64])))
    model.graph.node[-1].attribute[0].name = "sparse_value"


KINDS: dict[str, Callable[[onnx.ModelProto, TensorProto], None]] = {
    "an initializer": initializer,
    "a sparse initializer": sparse_initializer,
    "a constant of a sparse value": sparse_constant,
}


def link(target: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "planted").symlink_to(target)


def linked_folder(folder: Path) -> None:
    (folder / "planted").symlink_to("..")


LOCATIONS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "above": ("../secret", lambda folder: None),
    "absolute": ("/etc/passwd", lambda folder: None),
    "by a link": ("planted", link("../secret")),
    "by an absolute link": ("planted", link("/etc/passwd")),
    "by a linked folder": ("planted/secret", linked_folder),
    "by a hard link": ("planted", lambda folder: os.link(folder.parent / "secret", folder / "planted")),
    "in a folder below": ("below/data", lambda folder: ((folder / "below").mkdir(), os.link(
        folder.parent / "secret", folder / "below" / "data"))),
    "by an open file": ("/proc/self/fd/0", lambda folder: None),
    "by a link to an open file": ("planted", link("/proc/self/fd/0")),
    "in a pipe": ("planted", lambda folder: os.mkfifo(folder / "planted")),
    "in a device": ("planted", link("/dev/zero")),
    "in memory": ("planted", link("/proc/self/mem")),
    "in itself": ("planted", link("planted")),
    "in a folder": ("planted", lambda folder: (folder / "planted").mkdir()),
    "on another machine": ("\\\\host\\share\\x", lambda folder: None),
    "by a drive": ("C:secret", lambda folder: None),
    "by an address": ("https://example.com/x", lambda folder: None),
    "behind a null": (f"{WEIGHTS}\0../secret", lambda folder: None),
    "of letters that look alike": (WEIGHTS.replace("o", "\u043e"), lambda folder: None),
    "in upper case": (WEIGHTS.upper(), lambda folder: None),
    "with a point behind": (f"{WEIGHTS}.", lambda folder: None),
    "here, the long way": (f"./{WEIGHTS}", lambda folder: None),
    "in no file": ("", lambda folder: None),
    "where ONNX Runtime looks in memory": ("*/_ORT_MEM_ADDR_/*", lambda folder: None),
}  # fmt: skip


def edit(folder: Path, hide: Callable[[onnx.ModelProto], object], good: bytes) -> None:
    """Change the graph, and no digest: where tensors lie is judged before any is looked at."""
    model = onnx.ModelProto.FromString(good)
    hide(model)
    (folder / MODEL).unlink()
    (folder / MODEL).write_bytes(model.SerializeToString())


@pytest.mark.parametrize("place", LOCATIONS)
def test_places(place: str, folder: Path) -> None:
    location, plant = LOCATIONS[place]
    plant(folder)
    good = (folder / MODEL).read_bytes()
    cases = [
        (
            partial(edit, hide=partial(hide, tensor=external(location)), good=good),
            "IntegrityError",
            "external data: " if hide is initializer else "a sparse tensor",
        )
        for hide in KINDS.values()
    ]
    refused_each(DOORS["verify"], folder, cases)


SAID: dict[str, dict[str, str]] = {
    f"{key} {value!r:.24}": {key: value}
    for key in ("offset", "length")
    for value in (
        "-1", "-9223372036854775808", "9223372036854775807", "18446744073709551616", "9" * 5000, "", " 64", "64 ",
        "+64", "6_4", "64.0", "6.4e1", "0x40", "nan", "inf", "\u0666\u0664", "\uff16\uff14", "64\0", "__import__('os')",
    )
}  # fmt: skip


@pytest.mark.parametrize("key", ["offset", "length"])
def test_lengths_and_offsets(key: str, folder: Path) -> None:
    good = (folder / MODEL).read_bytes()
    tensors = [external(WEIGHTS, **said) for said in SAID.values() if key in said]
    cases = [
        (partial(edit, hide=partial(initializer, tensor=tensor), good=good), "IntegrityError", "place")
        for tensor in tensors
    ]
    refused_each(DOORS["verify"], folder, cases, "model.onnx, graph.initializer")


DIMS: tuple[tuple[list[int], int], ...] = (
    ([2**62, 4], 1), ([2**63 - 1], 1), ([-16], 1), ([-4, -4], 1), ([2**32, 2**32], 1), ([16], 8), ([16], 0),
    ([16], 999),
)  # fmt: skip


def test_dims_that_overflow(folder: Path) -> None:
    good = (folder / MODEL).read_bytes()
    for dims, data_type in DIMS:
        tensor = external(WEIGHTS)
        del tensor.dims[:]
        tensor.dims.extend(dims)
        if data_type == 999:  # which protobuf has no name for, and a file may say
            tensor.MergeFromString(b"\x10\xe7\x07")
        else:
            tensor.data_type = data_type
        edit(folder, partial(initializer, tensor=tensor), good)
        refused(DOORS["verify"], folder, "IntegrityError", "another length than its dims and dtype say")


def test_a_terabyte_of_nothing(folder: Path) -> None:
    """Files are measured before they are hashed, whatever a card says of them."""
    for name, words in (
        (WEIGHTS, "another size than when it was written"),
        ("model.onnx.data", "the tables of rope have another size"),
        ("config.json", "another size than when it was written"),
        ("model.onnx", "too large"),
        ("ernie_rt.json", "too large"),
        ("README.md", "too large"),
    ):
        size = (folder / name).stat().st_size
        os.truncate(folder / name, 1 << 40)
        refused(DOORS["verify"], folder, "InputError", f"{name}: ", words)
        os.truncate(folder / name, size)
    DOORS["verify"](folder)
