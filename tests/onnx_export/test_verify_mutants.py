"""Random changes of an exported folder are found, or change nothing that the graph says."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
import onnx

from ernie_rt.errors import InputError
from ernie_rt.export import verify
from ernie_rt_onnx.portable import MODEL, bare, graph_digest
from ernie_rt_onnx.static import walk
from ernie_rt_onnx.verify import verify as verify_onnx
from support.exports import WEIGHTS, card, read

COUNTS = [100, pytest.param(3000, marks=pytest.mark.long)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("forged", [False, True], ids=["edited", "and the card rewritten"])
def test_mutants_of_the_graph(forged: bool, count: int, exported: Path, folder: Path) -> None:
    """Fields of the protobuf messages changed at random: found, or the same graph under another encoding."""
    rng = random.Random(7)
    found = 0
    for _ in range(count):
        model = read(exported)
        mutate(rng, model)
        (folder / MODEL).write_bytes(model.SerializeToString())
        if forged and len(model.metadata_props) == 1:
            reseal(folder, model)
        found += is_found(folder, exported)
    assert found > 0.9 * count


@pytest.mark.parametrize("count", COUNTS)
def test_flipped_bits(count: int, exported: Path, folder: Path) -> None:
    """Of the graph, found or harmless; of all other files of the model, found."""
    rng = random.Random(11)
    (folder / "README.md").unlink()
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for _ in range(count if path.name == MODEL else count // 20):
            place, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
            path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
            assert is_found(folder, exported) or path.name == MODEL, (path.name, place, bit)
        for cut in {0, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:cut])
            assert is_found(folder, exported), (path.name, cut)
        path.write_bytes(data)
    verify(folder)


def reseal(folder: Path, model: onnx.ModelProto) -> None:
    """Put the right digest of a changed graph into its card, if that can be read."""
    try:
        said = json.loads(card(model)) | {"graph": graph_digest(model)}
    except (ValueError, TypeError, StopIteration):
        return
    model.metadata_props[0].value = json.dumps(said)
    (folder / MODEL).write_bytes(model.SerializeToString())


def is_found(folder: Path, whole: Path) -> bool:
    """Whether a folder is refused, by a named error; if not, its graph and card say what they said."""
    try:
        verify_onnx(folder)
    except InputError:
        return True
    model, wanted = read(folder), read(whole)
    assert bare(model) == bare(wanted)
    assert json.loads(card(model)) == json.loads(card(wanted))
    return False


def mutate(rng: random.Random, model: onnx.ModelProto) -> None:
    """Change one field of one message, wherever it is."""
    message = rng.choice([message for _, message in walk(model)])
    field = rng.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if field.type == field.TYPE_MESSAGE:
        if not hasattr(value, "append"):
            message.ClearField(field.name) if message.HasField(field.name) else value.SetInParent()
        elif value and rng.random() < 0.7:
            del value[rng.randrange(len(value))]
        else:
            value.add().MergeFrom(rng.choice(value) if value else value.add())
    elif hasattr(value, "append"):
        if value and rng.random() < 0.5:
            del value[rng.randrange(len(value))]
        else:
            value.append(other(rng, field, value[0] if value else None))
    else:
        setattr(message, field.name, other(rng, field, value))


def other(rng: random.Random, field: Any, value: Any) -> Any:
    """Another value of a field that holds this one."""
    match field.cpp_type:
        case field.CPPTYPE_STRING if field.type == field.TYPE_BYTES:
            return (value or b"")[:-1] + b"x"
        case field.CPPTYPE_STRING:
            return rng.choice([(value or "") + "x", "", "../x", "/etc/passwd", "com.microsoft", WEIGHTS])
        case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
            return rng.choice([(value or 0.0) + 1, float("nan"), float("inf")])
        case field.CPPTYPE_ENUM:
            return rng.choice([entry.number for entry in field.enum_type.values if entry.number != value])
        case field.CPPTYPE_UINT64:
            return 2**64 - 1
        case field.CPPTYPE_INT32:
            return rng.choice([(value or 0) + 1, -1, 2**31 - 1])
    return rng.choice([(value or 0) + 1, -1, 2**63 - 1])
