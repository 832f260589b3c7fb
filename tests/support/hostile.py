"""Hostile folders: a small model that is changed, and the doors through which people give it to ernie-rt."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ernie_rt import load
from ernie_rt.export import export, verify
from ernie_rt.location import locate
from ernie_rt.modeling.config import read_config
from ernie_rt.planning.described import describe
from ernie_rt.weights.quantize import Quantization, quantize_model
from support.environments import link_or_copy

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
Break = Callable[[Path], object]
"""What makes a good folder a hostile one."""


def run(folder: Path) -> None:
    with load(folder, backend="reference", max_context=64) as model:
        model.generate("hello", max_new_tokens=2)


def encode(folder: Path) -> None:
    located = locate(folder)
    located.tokenizer.encode("hello")
    _ = located.defaults, located.reader("cpu")


def quantize(folder: Path) -> None:
    quantize_model(folder, read_config(folder), folder / ".." / "quantized", Quantization(4))


def export_onnx(folder: Path) -> None:
    export(folder, folder / ".." / "exported")


def plan(folder: Path) -> None:
    describe(str(folder))


DOORS: Final[Mapping[str, Break]] = {
    "run": run,
    "encode": encode,
    "plan": plan,
    "quantize": quantize,
    "export": export_onnx,
    "verify": verify,
}


def copied(folder: Path, to: Path) -> Path:
    """A copy by hard links where that can be: a file in it is replaced, never written to."""
    return shutil.copytree(folder, to, copy_function=link_or_copy)


def put(name: str, content: bytes | str | Mapping[str, Any]) -> Break:
    """Put these bytes, this text or this JSON in the place of a file."""
    if isinstance(content, Mapping):
        content = json.dumps(content)
    data = content.encode() if isinstance(content, str) else content

    def replace(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)

    return replace


def changed(name: str, **fields: Any) -> Break:
    """Change fields of a JSON object, which is made where there is none."""

    def change(folder: Path) -> None:
        path = folder / name
        put(name, (json.loads(path.read_text()) if path.exists() else {}) | fields)(folder)

    return change


def linked(name: str, target: str | Path) -> Break:
    """Put a link in the place of a file."""

    def link(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return link


def vast(name: str, length: int = 1 << 40) -> Break:
    """A terabyte that takes nothing on the disk; its first bytes are those of the file that it replaces."""

    def extend(folder: Path) -> None:
        path = folder / name
        put(name, path.read_bytes() if path.exists() else b"")(folder)
        os.truncate(path, length)

    return extend


def both(*breaks: Break) -> Break:
    return lambda folder: [each(folder) for each in breaks]


def image(header: str | bytes | Mapping[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a safetensors file with any header whatever, and perhaps another length of it than it has."""
    text = json.dumps(header) if isinstance(header, Mapping) else header
    raw = text.encode() if isinstance(text, str) else text
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a good file, and its numbers."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:start])
    return header, data[start:]
