"""Quantise a model, and bring a quantised one into another layout."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

import numpy as np

from ernie_rt.errors import CheckpointError, OptionError
from ernie_rt.files import Progress
from ernie_rt.graph.types import Plain, Storage, Weight
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import OF_VISION
from ernie_rt.modeling.graphs import build_graphs, weights_of
from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt.weights.folder import PROGRESS, Put, write_quantized
from ernie_rt.weights.manifest import MANIFEST, Manifest
from ernie_rt.weights.opening import SOURCES, Sources, open_weights
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.source import Array, StoredSource, WeightSource

LINEAR: Final = frozenset({"qkv", "out", "gate_up", "down"})
"""What the names of weights end in that take the bits asked for; the embedding and the head take eight. A vision tower
and its resampler, a fortieth of a model's weights, stay as they are."""

ALGORITHM: Final = 1
"""Raised whenever the same weights and options would give other bytes, and never else: a cache goes by it."""

PIECE: Final = 1 << 22
"""Numbers that a thread takes at once of a weight without experts."""

Layout = Literal["raw", "tiled"]
Parts = Mapping[str, Array]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a model is to be quantised."""

    bits: Literal[4, 8]
    block: Literal[32, 64, 128] = 32
    layout: Layout = "raw"
    clip_search: bool = True

    @property
    def linears(self) -> BlockQuantized:
        """The storage of linears and experts."""
        return BlockQuantized(self.bits, self.block, self.layout)

    def storage(self, weight: Weight) -> Storage:
        """Linears in `bits`, the embedding and the head in 8; norms, biases, routers and the tower as they are."""
        if weight.name in ("embed.weight", "head.weight"):
            return BlockQuantized(8, self.block, self.layout)
        return self.linears if is_linear(weight) else weight.storage

    def taken(self, accepts: Callable[[Storage], bool]) -> Quantization:
        """The same in a layout that a backend takes as it is, if there is one: in tiles, if it has kernels for them."""
        layouts: tuple[Layout, ...] = ("tiled", "raw")
        return next((how for how in (replace(self, layout=each) for each in layouts) if accepts(how.linears)), self)

    def plan(self, source: str) -> dict[str, object]:
        """What decides every byte of the result, of a model with this fingerprint."""
        return {
            "source": source,
            "weights": f"int{self.bits}",
            "block": self.block,
            "layout": self.layout,
            "clip_search": self.clip_search,
            "algorithm": ALGORITHM,
        }

    def weights(self, config: ModelConfig, stored: Mapping[str, Storage] | None = None) -> list[Weight]:
        """The weights of a model with their storages; OptionError when one of them cannot be stored so.

        What is not quantised stays as it is `stored`.
        """
        weights = weights_of(build_graphs(config, storages=stored)).values()
        return _checked(replace(each, storage=self.storage(each)) for each in weights if each.storage.stored)


def is_linear(weight: Weight) -> bool:
    """Whether quantising a model changes a weight that is neither the embedding nor the head."""
    return weight.name.rpartition(".")[2] in LINEAR and not weight.name.startswith(OF_VISION)


def quantize_model(
    folder: Path,
    config: ModelConfig,
    out: Path,
    how: Quantization,
    *,
    threads: int = 1,
    progress: Progress | None = None,
    hashing: Progress | None = None,
    note: Callable[[str], None] = lambda text: None,
    sources: Sources = SOURCES,
) -> Manifest:
    """Write the checkpoint in `folder`, quantised, into the new folder `out`; `note` is told what it says of itself.

    The checkpoint's files are hashed first, which `hashing` is told of, and then written, which `progress` is. Weights
    pass through memory one by one as float32, those of experts expert by expert. Raises OptionError when the model
    cannot be quantised so, CheckpointError for numbers that cannot be, WriteError, and what opening a checkpoint
    raises.
    """
    source = open_weights(folder, config, sources)
    try:
        if any(storage.packed for storage in source.storages.values()):
            raise OptionError("the model is quantised already", where=str(folder), hint="Quantise what it was made of")
        for text in source.notes:
            note(text)
        plan = how.plan(source.fingerprint(hashing))
        if config.vision is not config.sees:
            plan |= {"text_only": True}  # by which whoever reads the manifest knows that vision was left out
        return quantize_source(source, plan, folder, config, out, how, threads=threads, progress=progress)
    finally:
        source.close()


def quantize_source(
    source: StoredSource,
    plan: Mapping[str, object],
    beside: Path,
    config: ModelConfig,
    out: Path,
    how: Quantization,
    *,
    threads: int = 1,
    progress: Progress | None = None,
    model: str | None = None,
    links: bool = False,
) -> Manifest:
    """`quantize_model` of an open source, whose `plan` says what it is; it may have a name that people know.

    `links` are as `write_quantized` has them.
    """
    weights = how.weights(config, source.storages)

    def check(folder: Path, manifest: Manifest) -> None:
        if not source.is_still(str(plan["source"])):
            (folder / PROGRESS).unlink()  # or a later run would go on with what is a mixture
            raise CheckpointError("it was changed while it was read", where=str(beside), hint="Quantise it again")

    quantizer = Quantizer(source, how.clip_search, threads)
    return write_quantized(out, beside, weights, plan, quantizer, progress, check, model, links)


def convert_model(
    folder: Path, config: ModelConfig, out: Path, layout: Layout, *, progress: Progress | None = None
) -> Manifest:
    """Write the quantised model in `folder` in another layout into the new folder `out`.

    The bytes are those that quantising into that layout gives. Raises OptionError when it is no quantised model, has
    that layout or cannot have it, CheckpointError, WriteError.
    """
    if not (folder / MANIFEST).exists():
        raise OptionError("the model is not quantised", where=str(folder), hint="See `ernie-rt quantize --help`")
    source = QuantizedSource(folder, config, reread=True)
    try:
        if source.manifest.plan.get("layout") == layout:
            raise OptionError(f"the model has the layout {layout} already", where=str(folder))
        weights = _checked(replace(weight, storage=weight.storage.laid_out(layout)) for weight in source.weights)
        plan = {**source.manifest.plan, "layout": layout}
        return write_quantized(out, folder, weights, plan, Converter(source), progress)
    finally:
        source.close()


class Quantizer:
    """Puts weights of a source, quantised as their storages say."""

    def __init__(self, source: WeightSource, search: bool, threads: int = 1) -> None:
        self._source = source
        self._search = search
        self._threads = threads

    def __call__(self, weight: Weight, put: Put) -> float | None:
        if not weight.storage.packed:
            put(_numbers(self._source, weight))
            return None
        error = energy = 0.0

        def packed() -> Iterator[Parts]:
            nonlocal error, energy
            work = partial(self._quantize, storage=weight.storage, name=weight.name)
            for parts, lost, total in in_order(work, self._slices(weight), self._threads):
                error += lost
                energy += total
                yield parts

        _put_parts(packed(), put)
        return float(f"{math.sqrt(error / energy):.6g}") if energy else 0.0

    def _slices(self, weight: Weight) -> Iterator[Callable[[], Array]]:
        """What reads each piece of a weight, of rows that are whole tiles."""
        shape, wide = weight.type.shape(), replace(weight, storage=Plain("float32"))
        experts = shape[: len(shape) - len(weight.row) - 1]
        if experts:
            for index in np.ndindex(*experts):
                yield partial(_numbers, self._source, wide, index)
            return
        whole, step = _numbers(self._source, wide), _rows_at_once(weight)
        for start in range(0, shape[0], step):
            yield partial(whole.__getitem__, slice(start, start + step))

    def _quantize(self, read: Callable[[], Array], storage: Storage, name: str) -> tuple[Parts, float, float]:
        parts, error, energy = storage.quantize(read(), search=self._search, where=name)
        return storage.pack(parts), error, energy


class Converter:
    """Puts weights of a quantised folder in the layout, and plain ones in the dtype, that their storages say."""

    def __init__(self, source: QuantizedSource) -> None:
        self._source = source

    def __call__(self, weight: Weight, put: Put) -> float | None:
        name, stored = weight.name, weight.storage
        if not stored.packed:
            put(_numbers(self._source, weight))
            return None
        total, step = math.prod(weight.type.shape()) // math.prod(weight.row), _rows_at_once(weight)
        starts = range(0, total, step)
        _put_parts((stored.pack(self._source.rows(name, at, min(at + step, total))) for at in starts), put)
        self._source.release(name)
        return self._source.manifest.errors.get(name)


def _numbers(source: WeightSource, weight: Weight, index: tuple[int, ...] = ()) -> Array:
    """A weight that is not packed, or its slice at `index`."""
    out = np.empty(weight.type.shape()[len(index) :], weight.parts["data"].dtype)
    source.fill(weight, "data", out, index)
    return out


def _put_parts(pieces: Iterable[Parts], put: Put) -> None:
    """Put the first part of a weight piece by piece, then the others, which are held meanwhile."""
    held = []
    for parts in pieces:
        first, *others = parts.values()
        put(first)
        held.append(others)
    for part in zip(*held, strict=True):
        for piece in part:
            put(piece)


def _rows_at_once(weight: Weight) -> int:
    """How many rows make a piece: whole tiles."""
    tile = weight.storage.tile
    return max(1, PIECE // math.prod(weight.row) // tile) * tile


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """What `work` makes of each item, in their order, by so many threads and few items ahead."""
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _checked(weights: Iterable[Weight]) -> list[Weight]:
    """The weights; OptionError for one that cannot be stored as it is to be."""
    checked = []
    for weight in weights:
        if weight.problem is not None:
            raise OptionError(
                f"{weight.name} {list(weight.type.dims)} cannot be stored as {weight.storage}: {weight.problem}",
                hint="Choose a smaller block, or the layout raw",
            )
        checked.append(weight)
    return checked
