"""Exported graphs that run what they should not, or cost more than they weigh: refused before ONNX Runtime sees them.
Operators and places are in tests/onnx_export/test_verify*.py; here are files that no tool for ONNX would write."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
import onnx
from onnx import helper

from ernie_rt.errors import InputError
from ernie_rt.export import verify
from ernie_rt_onnx.portable import MODEL
from ernie_rt_onnx.static import DEEPEST, LIMIT, MOST_MESSAGES, walk
from support.attempts import attempt, refused, refused_each
from support.exports import forge, graph, node, read
from support.hostile import DOORS, put
from support.protobuf import field, varint


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "folder"))


def nested(levels: int, inner: bytes = b"") -> bytes:
    """Graphs, each in an attribute of a node of the one around it."""
    for _ in range(levels):
        inner = field(1, field(5, field(6, inner)))
    return field(7, inner)


LARGER, NO_CARD, NO_MODEL, UNKNOWN = (
    "larger, or deeper, than any exported model", "no card, or several", "not an ONNX model", "a field that the format"
)  # fmt: skip
FILES: dict[str, tuple[bytes, str]] = {
    "nodes of nothing": (field(7, b"\x0a\x00" * 250_000), LARGER),
    "nodes of nothing, thirty graphs down": (nested(30, b"\x0a\x00" * 240_000), LARGER),
    "attributes of nothing": (field(7, field(1, b"\x2a\x00" * 250_000)), LARGER),
    "initializers of nothing": (field(7, b"\x2a\x00" * 250_000), LARGER),
    "inputs of nothing": (field(7, b"\x5a\x00" * 250_000), LARGER),
    "functions of nothing": (b"\xca\x01\x00" * 160_000, LARGER),
    "metadata of nothing": (b"\x72\x00" * 250_000, LARGER),
    "twelve graphs deep": (nested(12), LARGER),
    "thirty graphs deep": (nested(30), LARGER),
    "a thousand graphs deep": (nested(1000), NO_MODEL),
    "a hundred thousand graphs deep": (b"\x3a\xff\xff\x3f" + b"\x0a\xff\xff\x3f" * 100_000, NO_MODEL),
    "a number again and again": (b"\x08\x08" * 250_000, NO_CARD),
    "one name of a megabyte": (field(7, field(2, b"x" * 500_000)), NO_CARD),
    "dims of one tensor": (field(7, field(5, field(1, b"\x01" * 500_000))), NO_CARD),
    "fields from the future": (field(100, b"") * 160_000, UNKNOWN),
    "groups that never end": (b"\x0b" * 250_000, NO_MODEL),
    "a length beyond the file": (b"\x3a" + varint(1 << 40), NO_MODEL),
    "a length below zero": (b"\x3a" + varint((1 << 64) - 1), NO_MODEL),
    "a number that never ends": (b"\x80" * 250_000, NO_MODEL),
    "a length of more than 32 bits": (b"\x3a" + varint((1 << 32) + 4) + b"\x0a\x02\x0a\x00", NO_MODEL),
    "larger than any": (bytes(LIMIT + 1), "too large"),
    "no bytes": (b"", NO_CARD),
    "a pickle": (b"\x80\x04\x95", NO_MODEL),
    "text": (b"ir_version: 8", NO_MODEL),
}


def test_files(folder: Path) -> None:
    cases = [(put(MODEL, data), "InputError", words) for data, words in FILES.values()]
    refused_each(DOORS["verify"], folder, cases, MODEL, size=LIMIT)


def test_an_exported_model_is_far_from_the_limits(exported: Path) -> None:
    """This one has two layers; with 54, the most that an ERNIE has, it would be well within them too."""
    places = [place for place, _ in walk(read(exported))]
    assert len(places) * 54 / 2 < MOST_MESSAGES / 3
    assert max(place.count(".") for place in places) < DEEPEST / 4


LIBRARIES = ("custom_ops.so", "libonnxruntime_providers_evil.so", "model.onnx.so", "_ops.so", "ortextensions.so")


@pytest.mark.parametrize(
    "domain", ["com.evil", "ai.onnx.contrib", "ai.onnx.ml", "com.microsoft.nchwc", "ernie_rt\0", " "]
)
def test_operators_of_other_domains_load_no_library(domain: str, folder: Path) -> None:
    """Not even one that lies beside the graph."""
    for name in LIBRARIES:
        (folder / name).write_bytes(b"\x7fELF")

    def add(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Run", [], ["x"], domain=domain, library="custom_ops.so"))

    forge(folder, add)
    refused(DOORS["verify"], folder, "IntegrityError", f"operator 'Run' of domain {domain!r} is none of an exported")


def test_libraries_beside_a_good_graph_are_strangers(folder: Path) -> None:
    for name in LIBRARIES:
        (folder / name).write_bytes(b"\x7fELF")
        refused(DOORS["verify"], folder, "IntegrityError", f"{name}: this was not exported with the model")
        (folder / name).unlink()


def test_a_graph_in_a_graph_in_a_graph(folder: Path) -> None:
    """What hides it is looked through."""

    def hide(model: onnx.ModelProto) -> None:
        inner = graph(onnx.NodeProto(op_type="Run", domain="evil"))
        for op_type in ("If", "Loop", "Scan", "SequenceMap"):
            outer = node(g=inner)
            outer.op_type = op_type
            inner = graph(outer)
        model.functions[0].node.append(node(graphs=[graph(), inner]))

    forge(folder, hide)
    refused(DOORS["verify"], folder, "IntegrityError", "operator 'Run' of domain 'evil'")


@pytest.mark.parametrize("count", [40, pytest.param(10_000, marks=pytest.mark.long)])
def test_bytes_cut_and_changed(count: int, folder: Path) -> None:
    """No parser is brought down, and nothing but an error of ours comes out."""
    good = (folder / MODEL).read_bytes()
    rng = random.Random(count)

    def verify_many(folder: Path) -> None:
        for number in range(count):
            data = bytearray(good)
            if number % 3 == 0:
                del data[rng.randrange(len(data)) :]
            for _ in range(rng.randrange(1, 8)):
                if data:
                    place = rng.randrange(len(data))
                    data[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            (folder / MODEL).unlink()
            (folder / MODEL).write_bytes(data)
            try:
                verify(folder)
            except InputError:
                continue
            assert onnx.ModelProto.FromString(bytes(data)) == onnx.ModelProto.FromString(good)

    fate = attempt(verify_many, folder, patience=20 + count // 10)
    assert fate.kinds == () and not fate.acts, fate
    assert not fate.strays(folder, Path(tempfile.gettempdir())), "settings are made anew in a folder of their own"
