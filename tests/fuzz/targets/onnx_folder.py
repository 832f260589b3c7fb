"""An exported folder, by `verify` up to where its numbers would be compared: the graph, its card, data and settings.

Many inputs are made as somebody makes them who knows the format: what was changed has its right digest wherever one is
written down, so that the checks behind the first are reached.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from ernie_rt.export import ExportOptions, export
from ernie_rt.weights.manifest import MANIFEST
from ernie_rt.weights.quantize import Quantization
from ernie_rt_onnx.portable import CARD, MODEL, TABLES, bare
from ernie_rt_onnx.static import LIMIT
from ernie_rt_onnx.verify import verify
from fuzz.mutations import BORDERS, TEXTS, changed, changed_message, damaged, json_bytes, value
from fuzz.target import Attempt, Target
from support.drawn import MOE, write_drawn
from support.exports import forge, graph, node
from support.templates import PLAIN
from support.toy_tokenizers import FIRST, toy_model

SETTINGS = {"chat_template": PLAIN, "bos_token": "<s>", "tokenizer_class": "LlamaTokenizer"}
PLACES = ("../secret", "/etc/passwd", "", ".", "model.onnx", "config.json", "x" * 300, "a/b", *TEXTS[:20])
ADDED = ("README.md", "model.py", "LICENSE", "genai_config.json", "extra.onnx.data", "vocab.json", "\x1b[2J")
JSONS = ("config.json", "genai_config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json")
DTYPES = (*range(24), 1 << 30)


def made(folder: Path) -> dict[str, bytes]:
    """The files of a whole one."""
    checkpoint = write_drawn(folder / "checkpoint", MOE | {"vocab_size": FIRST, "max_position_embeddings": 250})
    (checkpoint / "tokenizer.model").write_bytes(toy_model())
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    (checkpoint / "generation_config.json").write_text('{"do_sample": false}')
    export(checkpoint, folder / "out", options=ExportOptions(Quantization(4)))
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


def evil_edit(rng: Random) -> Callable[[onnx.ModelProto], Any]:
    """What somebody might put into a graph."""
    text = rng.choice(PLACES).encode(errors="replace").decode()
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=text)

    def external(model: onnx.ModelProto) -> None:
        """A tensor of the graph lies elsewhere, or has another size."""
        stored = rng.choice([each for each in model.graph.initializer if each.external_data])
        entry = rng.choice(stored.external_data)
        match rng.randrange(9):
            case 0 | 1 | 2:
                entry.value = rng.choice((text, str(rng.choice(BORDERS)), "-1", "1e3", "٣", " 1", entry.value + "0"))
            case 8:
                for each in stored.external_data:
                    if each.key == "offset":
                        each.value = str(1 << rng.randrange(20, 50))
            case 3:
                entry.key = rng.choice(("checksum", "basepath", text))
            case 4:
                stored.external_data.add(key=rng.choice(("location", "checksum", "offset")), value=text)
            case 5:
                stored.dims.append(rng.choice((0, 2, -1, 1 << 62)))
            case 6:
                stored.data_type = rng.choice(DTYPES)
            case _:
                stored.raw_data = b"\0\0\0\0"

    def deep(model: onnx.ModelProto) -> None:
        inner = graph()
        for _ in range(rng.choice((5, 20, 30))):  # of 34 protobuf would make none
            inner = graph(node(g=inner))
        model.graph.node.append(node(g=inner))

    def foreign_node(model: onnx.ModelProto) -> None:
        kind = rng.choice(("EPContext", "PyOp", "MatMul", "If", "Loop", text))
        domain = rng.choice(("", "com.microsoft", "ai.onnx.contrib", "ernie_rt", text))
        model.graph.node.add(op_type=kind, domain=domain, output=["x"])

    return rng.choice((
        external, external, external, external, external, foreign_node, foreign_node, deep, deep,
        lambda model: model.graph.node.append(node(t=tensor)),
        lambda model: model.graph.node.append(node(g=graph(node(t=tensor), initializer=[tensor]))),
        lambda model: model.graph.sparse_initializer.add(),
        lambda model: model.functions.add(name=text, domain=rng.choice(("x", "com.microsoft", text))),
        lambda model: model.opset_import.add(domain=rng.choice(("x", "ai.onnx.contrib", text)), version=1),
        lambda model: model.metadata_props.add(key=rng.choice(("x", "ep_context")), value=text),
        lambda model: model.graph.node[0].attribute.append(onnx.AttributeProto(name="x", i=1)),
        lambda model: model.graph.initializer[0].dims.append(1),
        lambda model: model.graph.quantization_annotation.add(),
    ))  # fmt: skip


class Folder:
    """A folder that is whole before each input."""

    def __init__(self, scratch: Path) -> None:
        self.whole = made(scratch)
        self.path = scratch / "place" / "folder"

    def restore(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
        self.path.mkdir(parents=True)
        for name, data in self.whole.items():
            (self.path / name).write_bytes(data)

    def model(self) -> onnx.ModelProto:
        return onnx.ModelProto.FromString(self.whole[MODEL])

    def change(self, rng: Random) -> None:
        """One thing, in one of the ways in which somebody might."""
        kind = rng.randrange(20)
        name = rng.choice(sorted(self.whole))
        path = self.path / name
        match kind:
            case 0 | 1:
                (self.path / MODEL).write_bytes(changed_message(rng, self.whole[MODEL]))
            case 2:
                (self.path / MODEL).write_bytes(damaged(rng, self.whole[MODEL]))
            case 3 | 4:
                self.forge_message(rng)
            case 5 | 6 | 16 | 17:
                forge(self.path, evil_edit(rng))
            case 7 | 18:
                self.card(rng)
            case 8 | 14:
                self.manifest(rng)
            case 9 | 10:
                name = rng.choice([each for each in JSONS if each in self.whole])
                tree = json.loads(self.whole[name])
                tree = tree | {"auto_map": value(rng)} if rng.random() < 0.2 else changed(rng, tree)
                (self.path / name).write_bytes(json_bytes(rng, tree))
                forge(self.path)
            case 13:
                self.tables(rng)
            case 15:
                path = self.path / "tokenizer.model"
                path.write_bytes(damaged(rng, self.whole[path.name])) if rng.random() < 0.7 else path.unlink()
                forge(self.path)
            case 11:
                path.write_bytes(damaged(rng, self.whole[name]))
                if name not in (MODEL, MANIFEST) and rng.random() < 0.5:
                    forge(self.path)
            case 12:
                (self.path / rng.choice(ADDED)).write_bytes(b"{}")
                if rng.random() < 0.5:
                    forge(self.path)
            case _:
                path.unlink()
                other = self.path.parent / "elsewhere"
                other.write_bytes(self.whole[name])
                rng.choice((
                    lambda: None, path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(other),
                    lambda: os.link(other, path), lambda: path.symlink_to("/dev/zero"),
                    lambda: path.write_bytes(bytes(LIMIT + 1)),
                ))()  # fmt: skip

    def forge_message(self, rng: Random) -> None:
        """The graph changed somewhere, and all digests made right."""
        try:
            model = onnx.ModelProto.FromString(changed_message(rng, self.whole[MODEL]))
        except DecodeError:
            return
        (self.path / MODEL).write_bytes(model.SerializeToString())
        forge(self.path)

    def manifest(self, rng: Random) -> None:
        """The manifest says something else, and the card knows its digest."""
        manifest = json.loads(self.whole[MANIFEST])
        match rng.randrange(4):
            case 0:
                manifest["plan"]["dtype"] = rng.choice(("float16", "float64", value(rng)))
            case 1:
                beside = manifest["beside"]
                beside[rng.choice(sorted(beside))] = "0" * 64
            case 2:
                manifest["shards"][rng.choice(sorted(manifest["shards"]))]["sha256"] = "0" * 64
            case _:
                manifest = changed(rng, manifest)
        data = json_bytes(rng, manifest)
        (self.path / MANIFEST).write_bytes(data)
        model = self.model()
        (entry,) = (each for each in model.metadata_props if each.key == CARD)
        said = json.loads(entry.value)
        said["files"][MANIFEST] = hashlib.sha256(data).hexdigest()
        entry.value = json.dumps(said)
        (self.path / MODEL).write_bytes(model.SerializeToString())

    def tables(self, rng: Random) -> None:
        """The tables of rope are longer, or have other numbers in them or between them."""
        data = bytearray(self.whole[TABLES])
        match rng.randrange(3):
            case 0:
                data += bytes(rng.choice((1, 4096)))
            case 1:
                data[rng.randrange(512)] ^= 0x40
            case _:
                zeros = [place for place in range(len(data) - 64, len(data)) if not data[place]]
                data[rng.choice(zeros or [0])] = 1
        (self.path / TABLES).write_bytes(data)
        forge(self.path)

    def card(self, rng: Random) -> None:
        """The card says something else, or there are none or two."""
        model = self.model()
        (entry,) = (each for each in model.metadata_props if each.key == CARD)
        said = json.loads(entry.value)
        match rng.randrange(8):
            case 0:
                entry.key = rng.choice(("x", CARD.upper()))
            case 1:
                model.metadata_props.add(key=CARD, value=entry.value)
            case 2:
                said["files"][rng.choice((*PLACES, TABLES, MANIFEST))] = rng.choice(("0" * 64, value(rng)))
            case 3:
                weights = [name for name in sorted(said["files"]) if name.endswith(".safetensors")]
                del said["files"][rng.choice((*weights, *weights, TABLES, MANIFEST))]
            case 4 | 5:
                facts = sorted(said.keys() - {"files", "graph", "format", "minimum_onnxruntime"})
                said[rng.choice(facts)] = value(rng)
            case 6:
                said[rng.choice(("format", "graph"))] = rng.choice((2, "x", "0" * 63, "G" * 64))
            case _:
                said = changed(rng, said)
        if rng.random() < 0.9:
            entry.value = json_bytes(rng, said).decode(errors="replace")
        (self.path / MODEL).write_bytes(model.SerializeToString())


def start(scratch: Path) -> Attempt:
    folder = Folder(scratch)
    written = bare(folder.model())

    def attempt(rng: Random) -> None:
        folder.restore()
        folder.change(rng)
        verify(folder.path)
        model = onnx.ModelProto.FromString((folder.path / MODEL).read_bytes())
        assert bare(model) == written, "another graph has passed"

    return attempt


TARGET = Target(
    "onnx_folder",
    ("ernie_rt_onnx.static", "ernie_rt_onnx.verify", "ernie_rt_onnx.beside", "ernie_rt_onnx.portable"),
    start,
    share=250,
    excused={
        "numbers cannot be verified in bfloat16": "numbers are not asked for",
        "become others each time they are made of themselves": "that is of the exporter, which is not asked here",
    },
)
