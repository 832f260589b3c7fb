"""`ernie-rt quantize`: write a model with int4 or int8 weights."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from ernie_rt.cli.options import Json, Ref, TextOnly, Threads, Weights
from ernie_rt.cli.output import say
from ernie_rt.display import printable

if TYPE_CHECKING:
    from ernie_rt.modeling.config import ModelConfig
    from ernie_rt.weights.manifest import Manifest

KEPT = "left as stored: they are few, and what they lose every token of a picture loses"
"""Why the vision tower and its resampler are not quantised."""


class Block(StrEnum):
    small = "32"
    middle = "64"
    large = "128"


class Layout(StrEnum):
    raw = "raw"
    tiled = "tiled"


ClipSearch = Annotated[
    bool, typer.Option("--clip-search/--no-clip-search", help="Try several ranges for each block, keep the best.")
]


def _named(out: Path) -> Path:
    if not out.name:
        raise typer.BadParameter(f"{str(out)!r} does not name a new folder")
    return out


Out = Annotated[
    Path, typer.Argument(metavar="OUT", callback=_named, help="The new folder; one that exists is never touched.")
]


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Ctrl-C in the block leaves what is whole, and says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        partial = out.with_name(f"{out.name}.partial")
        if partial.exists():
            say(f"stopped; the same command goes on where it was, in {printable(str(partial))}")
        raise


def quantize(
    model: Ref,
    out: Out,
    weights: Annotated[Weights, typer.Option(help="What linears and experts become; embedding and head become int8.")],
    block: Annotated[Block, typer.Option(help="How many weights share a scale.")] = Block.small,
    layout: Annotated[
        Layout, typer.Option(help="raw: the order of ONNX Runtime. tiled: in tiles of 16 rows.")
    ] = Layout.raw,
    clip_search: ClipSearch = True,
    text_only: TextOnly = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write a model with int4 or int8 weights into a new folder.

    Says what error that makes. Of a vision-language model both pools of experts are quantised, and the tower stays as
    it is. Memory stays small. Interrupted, the same command goes on where it stopped, in OUT.partial.
    """
    from ernie_rt.cli.loaded import progress_bar
    from ernie_rt.location import locate
    from ernie_rt.weights.quantize import Quantization, quantize_model

    located = locate(model)
    located = located.text_alone if text_only else located
    assert located.folder is not None
    how = Quantization(weights.bits, cast(Literal[32, 64, 128], int(block)), layout.value, clip_search)
    began = time.perf_counter()
    with resumable(out), progress_bar("hashing") as hashing, progress_bar("quantising") as progress:
        manifest = quantize_model(
            located.folder,
            located.config,
            out,
            how,
            threads=threads or os.cpu_count() or 1,
            progress=progress,
            hashing=hashing,
            note=say,
        )
    say(f"{time.perf_counter() - began:.1f} s")
    report(out, located.config, manifest, as_json)


def report(out: Path, config: ModelConfig, manifest: Manifest, as_json: bool) -> None:
    """Print the error of each kind of weight in each layer, what was not quantised, and a folder's size and digest."""
    from ernie_rt.cli.output import write
    from ernie_rt.display import columns
    from ernie_rt.weights.integrity import digest_of
    from ernie_rt.weights.manifest import MANIFEST

    nbytes = sum(shard.nbytes for shard in manifest.shards.values())
    errors, kept = manifest.errors, kept_bytes(config, manifest)
    kinds = by_kind(errors)
    digest = digest_of(out / MANIFEST)
    if as_json:
        found = {"out": str(out), "plan": dict(manifest.plan), "nbytes": nbytes, "kinds": kinds, "errors": errors}
        found |= {"kept": {"bytes": kept, "why": KEPT} if kept else None}
        write(json.dumps(found | {"sha256": {MANIFEST: digest}}) + "\n")
        return
    layers: dict[str, dict[str, float]] = {}
    for name, error in errors.items():
        layer, kind = split(name)
        layers.setdefault(layer, {})[kind] = error
    rows = [["", *kinds], *([layer, *(_percent(found.get(kind)) for kind in kinds)] for layer, found in layers.items())]
    rows.append(["all", *map(_percent, kinds.values())])
    write(f"relative rms error of the weights\n{columns(rows)}\n")
    if kept:
        sizes = ", ".join(f"{part} {size:,} bytes" for part, size in kept.items())
        write(f"{sizes} {KEPT}\n")
    write(f"{out}: {nbytes:,} bytes\n")
    write(f"{MANIFEST}: sha256 {digest}\n")


def kept_bytes(config: ModelConfig, manifest: Manifest) -> dict[str, int]:
    """The bytes of the vision tower and of its resampler, which are not quantised; nothing of a model without them."""
    from ernie_rt.modeling.graphs import VISION, build_graphs
    from ernie_rt.planning.forms import part_of

    storages = {name: storage for shard in manifest.shards.values() for name, storage in shard.storages.items()}
    vision = build_graphs(config, storages=storages).get(VISION)
    found: dict[str, int] = {}
    for weight in () if vision is None else vision.weights:
        if weight.storage.stored:
            found[part_of(weight)] = found.get(part_of(weight), 0) + weight.nbytes()
    return found


def split(name: str) -> tuple[str, str]:
    """A weight's layer and kind: `layers.3` and `mlp.down`, `head` and `weight`."""
    parts = name.split(".")
    depth = 2 if parts[0] == "layers" else 1
    return ".".join(parts[:depth]), ".".join(parts[depth:])


def by_kind(errors: Mapping[str, float]) -> dict[str, float]:
    """The root mean square over the layers of each kind of weight."""
    found: dict[str, list[float]] = {}
    for name, error in errors.items():
        found.setdefault(split(name)[1], []).append(error)
    return {kind: math.sqrt(sum(e * e for e in each) / len(each)) for kind, each in found.items()}


def _percent(error: float | None) -> str:
    return "" if error is None else f"{100 * error:.2f} %"
