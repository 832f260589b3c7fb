"""Is an exported folder whole, is it safe to open, and does its graph say what its weights and config do?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ernie_rt import files
from ernie_rt.contract import DType, Target
from ernie_rt.errors import IntegrityError, OptionError
from ernie_rt.export import Verified
from ernie_rt.files import Progress
from ernie_rt.location import Located
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.hub import FILES
from ernie_rt.weights.manifest import MANIFEST, Manifest, padding, read_manifest
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt_onnx.backend import OnnxBackend
from ernie_rt_onnx.numbers import compare
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
from ernie_rt_onnx.runtime import check_runtime
from ernie_rt_onnx.static import GENAI_CONFIG, check_genai_config, own_file, read_model, walk


def verify(folder: Path, numbers: bool = False, progress: Progress | None = None) -> Verified:
    """Check a folder that `export` wrote. See `ernie_rt.export.Verifier`."""
    return verify_with(folder, MANIFEST, numbers, progress)


def verify_with(folder: Path, manifest_name: str, numbers: bool, progress: Progress | None = None) -> Verified:
    """Check a folder whose manifest has this name so far.

    First model.onnx by itself, then every digest, then the graph is built anew and compared. Last, with `numbers`,
    ONNX Runtime runs it, and each layer is compared with the float64 reference.
    """
    model, digest = read_model(folder)
    card = read_card(model)
    notes = _check_files(folder, manifest_name, model, card, progress)
    manifest = read_manifest(own_file(folder, manifest_name))
    if any(card["files"].get(name) != shard.sha256 for name, shard in manifest.shards.items()):
        raise IntegrityError("the card and the manifest differ in the digests of weights", where=MANIFEST, hint=AGAIN)
    located, dtype = Located(read_config(folder), folder), _dtype(manifest)
    figures: dict[str, float] = {}
    source = QuantizedSource(folder, located.config, manifest, reread=True)
    try:
        portable = build(located, dtype, manifest, folder)
        theirs, ours = manifest.origin.get("version"), version("ernie-rt")
        if theirs == ours:
            _check_rebuilt(model, card, portable, manifest, folder)
        else:
            notes.append(f"written by ernie-rt {ascii(theirs)[:40]}, this is {ours!r}: the graph was not compared")
        if numbers:
            check_runnable(dtype)
            check_runtime(card["minimum_onnxruntime"])
            rounds = OnnxBackend().numerics(Target(("cpu",), dtype))
            known = located.known_ids or located.config.vocab_size
            figures = compare(model, folder, portable.graph, source, rounds, dtype, known)
    finally:
        source.close()
    return Verified({MODEL: digest, **card["files"]}, figures, tuple(notes))


def check_runnable(dtype: DType) -> None:
    """OptionError for a dtype in which ONNX Runtime cannot run a model here."""
    if dtype == "bfloat16":
        raise OptionError(
            "numbers cannot be verified in bfloat16: ONNX Runtime computes in it on GPUs alone",
            expected="float32 or float16",
            hint="Leave them out, or export the model in float32 as well and verify that",
        )


def sha256(path: Path, report: Callable[[int], None] = lambda count: None) -> str:
    """The digest of a file, in hexadecimal; `report` is told the bytes read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(files.MIB):
                digest.update(piece)
                report(len(piece))
    except OSError as error:
        raise IntegrityError("cannot be read", where=str(path), found=error.strerror) from error
    return digest.hexdigest()


def _check_files(
    folder: Path, manifest_name: str, model: onnx.ModelProto, card: dict[str, Any], progress: Progress | None
) -> list[str]:
    """The graph and each file are what the card says, and nothing else is there to be read; remarks."""
    found = graph_digest(model)
    if card["graph"] != found:
        raise IntegrityError(
            "the graph is not the one that was written: its digest differs", where=MODEL, expected=card["graph"],
            found=found, hint=AGAIN,
        )  # fmt: skip
    named = {entry.value for each in model.graph.initializer for entry in each.external_data if entry.key == "location"}
    if not named <= card["files"].keys():
        raise IntegrityError("the card has no digest of a file of weights", where=MODEL, found=str(sorted(named))[:200])
    paths = {name: own_file(folder, manifest_name if name == MANIFEST else name) for name in card["files"]}
    notes = _strangers(folder, {MODEL, *(path.name for path in paths.values())})
    done, total = 0, sum(path.stat().st_size for path in paths.values())

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    for name, path in paths.items():
        found = sha256(path, report)
        if found != card["files"][name]:
            raise IntegrityError(
                "the file is not the one that was written: its digest differs",
                where=str(path),
                expected=f"sha256 {card['files'][name]}",
                found=found,
                hint=AGAIN,
            )
    if GENAI_CONFIG in paths:
        check_genai_config(paths[GENAI_CONFIG])
    return notes


def _strangers(folder: Path, known: set[str]) -> list[str]:
    """Remarks on what else lies in the folder; IntegrityError for a file that would be read as a part of the model."""
    strange = sorted(entry.name for entry in folder.iterdir() if entry.name not in known)
    for name in strange:
        if any(fnmatch(name, pattern) for pattern in (*FILES, GENAI_CONFIG)):
            raise IntegrityError(
                "this file was not exported with the model, and would be read as a part of it",
                where=str(folder / name),
                hint="Move it away",
            )
    return [f"not checked, since it was not exported with the model: {ascii(name)[1:-1]}" for name in strange]


def _dtype(manifest: Manifest) -> DType:
    for dtype in DTYPES:
        if dtype == manifest.plan.get("dtype"):
            return dtype
    raise IntegrityError("the manifest names no dtype of activations", where=MANIFEST, expected=f"one of {DTYPES}")


def _check_rebuilt(
    model: onnx.ModelProto, card: dict[str, Any], portable: Portable, manifest: Manifest, folder: Path
) -> None:
    """The folder's graph, card and tables are those that the exporter writes for this config and these weights."""
    written, wanted = bare(model), portable.model
    if written != wanted:
        raise IntegrityError(
            "not the graph that ernie-rt makes of this config and these weights",
            where=f"{MODEL}, {_difference(written, wanted)}",
            hint=AGAIN,
        )
    for key, value in facts(manifest).items():
        if card.get(key) != value:
            raise IntegrityError(f"the card says something else of the model in {key!r}", where=MODEL, hint=AGAIN)
    data = np.fromfile(folder / TABLES, np.uint8)
    end = 0
    for start, table in portable.tables.items():
        end = start + table.nbytes + padding(table.nbytes)
        found = data[start : start + table.nbytes].view(table.dtype).reshape(table.shape).astype(np.float32)
        # Machines whose cosine differs in the last bit of float64 may round a number of the table to its neighbour.
        if not np.abs(found - table.astype(np.float32)).max() <= 2.0 ** -{2: 7, 4: 22}[table.itemsize]:
            raise IntegrityError("not the tables of rope that this config asks for", where=TABLES, hint=AGAIN)
    if end != len(data):
        raise IntegrityError("the tables of rope have another size", where=TABLES, expected=end, found=len(data))


def _difference(model: onnx.ModelProto, wanted: onnx.ModelProto) -> str:
    """The innermost message in which two models first differ."""
    first = ""
    for (place, found), (other, expected) in zip(walk(model), walk(wanted), strict=False):
        if not place.startswith(first):
            break
        if place != other or found != expected:
            first = place
    return first or "model"
