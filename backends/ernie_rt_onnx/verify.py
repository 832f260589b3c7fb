"""Is an exported folder whole, is it safe to open, and does its graph say what its weights and config do?"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ernie_rt import files
from ernie_rt.contract import DType
from ernie_rt.errors import IntegrityError, OptionError
from ernie_rt.export import Verified
from ernie_rt.files import Progress
from ernie_rt.location import Located
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.integrity import check_digests, check_others, own_file
from ernie_rt.weights.manifest import MANIFEST, Manifest, padding, read_manifest
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt_onnx.apart import compare_apart
from ernie_rt_onnx.beside import README, check_beside, check_names, readme
from ernie_rt_onnx.portable import (
    AGAIN,
    DTYPES,
    MODEL,
    TABLES,
    Portable,
    bare,
    build,
    facts,
    graph_digest,
    read_card,
)
from ernie_rt_onnx.static import read_model, walk


def verify(folder: Path, numbers: bool = False, progress: Progress | None = None) -> Verified:
    """Check a folder that `export` wrote. See `ernie_rt.export.Verifier`."""
    return verify_with(folder, MANIFEST, numbers, progress)


def verify_with(folder: Path, manifest_name: str, numbers: bool, progress: Progress | None = None) -> Verified:
    """Check a folder whose manifest has this name so far.

    First model.onnx by itself, then every digest, then the graph and the files for its runtimes are made anew and
    compared: the tables of rope, as long as a config says, are not read before. Last, with `numbers`, a child process
    lets ONNX Runtime run it, and compares each layer with the float64 reference.
    """
    model, digest = read_model(folder)
    card = read_card(model)
    _check_graph(model, card)
    manifest = read_manifest(own_file(folder, manifest_name))
    check_names(card["files"], manifest, folder)
    notes = check_others(folder, {MODEL, manifest_name, *card["files"], *_our_readme(folder, manifest)})
    stored = {name: sha256 for name, sha256 in card["files"].items() if name != MANIFEST}
    tables = {name: sha256 for name, sha256 in stored.items() if name == TABLES}
    digests = {name: sha256 for name, sha256 in stored.items() if name != TABLES}
    sealed = {manifest_name: card["files"].get(MANIFEST, "")}
    check_digests(folder, digests | sealed, manifest.sizes, AGAIN, progress)
    known = manifest.digests
    if any(card["files"].get(name) != sha256 for name, sha256 in known.items()):
        raise IntegrityError("the card and the manifest differ in the digests of files", where=MANIFEST, hint=AGAIN)
    located, dtype, again = Located(read_config(folder), folder).text_alone, _dtype(manifest), _again(manifest)
    if numbers:
        check_runnable(dtype)
    source = QuantizedSource(folder, located.config, manifest, reread=True)
    try:
        portable = build(located, dtype, manifest, folder)
        _check_rebuilt(model, card, portable, manifest, folder, again)
        check_digests(folder, tables, {TABLES: portable.table_bytes}, AGAIN, progress)
        source.check_finite()
    finally:
        source.close()
    check_beside(located, stored, again)
    figures = compare_apart(folder, manifest_name, dtype, card["minimum_onnxruntime"]) if numbers else {}
    return Verified({MODEL: digest, **card["files"]}, figures, notes)


def _check_graph(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    """The graph is what the card says, and what it reads has a digest there."""
    found = graph_digest(model)
    if card["graph"] != found:
        raise IntegrityError(
            "the graph is not the one that was written: its digest differs", where=MODEL, expected=card["graph"],
            found=found, hint=AGAIN,
        )  # fmt: skip
    named = {entry.value for each in model.graph.initializer for entry in each.external_data if entry.key == "location"}
    if not named <= card["files"].keys():
        raise IntegrityError("the card has no digest of a file of weights", where=MODEL, found=str(sorted(named))[:200])


def _our_readme(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """The exporter's own README, which others may replace: no digest speaks of it."""
    if (folder / README).is_file():
        text = files.read_bytes(own_file(folder, README), files.MIB).decode("utf-8", "replace")
        if text == readme(_dtype(manifest)):
            return (README,)
    return ()


def _again(manifest: Manifest) -> str:
    """What helps when a folder is not what this version would have written."""
    theirs, ours = manifest.origin.get("version", ""), version("ernie-rt")
    if theirs == ours:
        return AGAIN
    return (
        f"It says that ernie-rt {ascii(theirs)[1:-1][:40]} wrote it, and this is {ours}: "
        "verify it with that version, or export the model again"
    )


def check_runnable(dtype: DType) -> None:
    """OptionError for a dtype in which ONNX Runtime cannot run a model here."""
    if dtype == "bfloat16":
        raise OptionError(
            "numbers cannot be verified in bfloat16: ONNX Runtime computes in it on GPUs alone",
            expected="float32 or float16",
            hint="Leave them out, or export the model in float32 as well and verify that",
        )


def _dtype(manifest: Manifest) -> DType:
    for dtype in DTYPES:
        if dtype == manifest.plan.get("dtype"):
            return dtype
    raise IntegrityError("the manifest names no dtype of activations", where=MANIFEST, expected=f"one of {DTYPES}")


def _check_rebuilt(
    model: onnx.ModelProto, card: dict[str, Any], portable: Portable, manifest: Manifest, folder: Path, again: str
) -> None:
    """The folder's graph, card and tables are those that the exporter writes for this config and these weights."""
    written, wanted = bare(model), portable.model
    if written != wanted:
        raise IntegrityError(
            "not the graph that ernie-rt makes of this config and these weights",
            where=f"{MODEL}, {_difference(written, wanted)}",
            hint=again,
        )
    for key, value in facts(manifest).items():
        if card.get(key) != value:
            raise IntegrityError(f"the card says something else of the model in {key!r}", where=MODEL, hint=again)
    size = own_file(folder, TABLES).stat().st_size
    if size != portable.table_bytes:  # before any is made: how long they are, the config says, who may say anything
        raise IntegrityError(
            "the tables of rope have another size", where=TABLES, expected=portable.table_bytes, found=size, hint=again
        )
    with files.open_readonly(folder / TABLES) as file:
        for table in portable.tables:
            # Machines whose cosine differs in the last bit of float64 may round a number of the table to its neighbour.
            near = 2.0 ** -{2: 7, 4: 22}[np.dtype(table.dtype).itemsize]
            for piece in table.pieces():
                found = np.frombuffer(file.read(piece.nbytes), piece.dtype).reshape(piece.shape)
                if not np.abs(found.astype(np.float32) - piece.astype(np.float32)).max() <= near:
                    raise IntegrityError("not the tables of rope that this config asks for", where=TABLES, hint=again)
            if any(file.read(padding(table.nbytes))):
                raise IntegrityError("what lies between the tables of rope is not zero", where=TABLES, hint=again)


def _difference(model: onnx.ModelProto, wanted: onnx.ModelProto) -> str:
    """The innermost message in which two models first differ."""
    first = ""
    for (place, found), (other, expected) in zip(walk(model), walk(wanted), strict=False):
        if not place.startswith(first):
            break
        if place != other or found != expected:
            first = place
    return first or "model"
