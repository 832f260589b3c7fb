"""Load a model: its weights into a backend that was chosen for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from ernie_rt.build import Build, build
from ernie_rt.choice import Choice, choose
from ernie_rt.contract.bases import ExecutableBase
from ernie_rt.contract.memory import check_memory
from ernie_rt.contract.protocols import MAX_PATCHES, Limits, Target
from ernie_rt.display import shown
from ernie_rt.errors import OptionError
from ernie_rt.files import Progress
from ernie_rt.generation.options import positive
from ernie_rt.graph.types import DTYPES, Weight
from ernie_rt.host import PluginHost, blame
from ernie_rt.location import Located, locate
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import as_stored
from ernie_rt.modeling.families import find
from ernie_rt.modeling.graphs import weights_of
from ernie_rt.planning.limits import BATCH_TOKENS, DEFAULT_CONTEXT, batch_tokens
from ernie_rt.runtime.encoder import FEATURE_BYTES
from ernie_rt.runtime.kept_rows import keep_rows
from ernie_rt.runtime.row_store import RowStore
from ernie_rt.session import Model
from ernie_rt.weights.opening import SOURCES, Sources
from ernie_rt.weights.source import Place, PlacedSource, StoredSource, WeightSource, storages_of

KEPT_BYTES: Final = 8 << 30
"""What a cache on disk may take when nobody says."""

MOST_THREADS: Final = 1024
MOST_AT_ONCE: Final = 1 << 20
"""Tokens of a step, and sequences: a step's places are counted in 32 bits, and bills are made of what is asked for."""


def load(
    ref: str | Path | Located,
    *,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    max_context: int | None = None,
    max_sequences: int = 1,
    max_batch_tokens: int | None = None,
    threads: int | None = None,
    memory_bytes: int | None = None,
    cache_tokens: int | None = None,
    max_patches: int | None = None,
    feature_bytes: int | None = None,
    reuse: bool = True,
    cache_dir: str | Path | None = None,
    cache_bytes: int | None = None,
    graphs: bool = True,
    deterministic: bool = False,
    text_only: bool = False,
    taps: Collection[str] = (),
    routing: bool = False,
    weights: WeightSource | None = None,
    sources: Sources = SOURCES,
    host: PluginHost | None = None,
    progress: Progress | None = None,
    preparing: Progress | None = None,
) -> Model:
    """Load a model, ready to run; use it in a `with` block, or call `close`.

    `ref` is a folder, a known name ("demo", "21B-A3B"), a hub id ("baidu/ERNIE-4.5-0.3B-PT") or what `locate`
    returned. With `weights` (such as `Synthetic`), which are closed when they are read, the name of a published model
    needs no checkpoint; without, the folder's are opened by the first of the `sources` that they fit. `taps` are scopes
    whose values `Model.tapped` returns; with `routing`, `Model.routing` says to which experts tokens are sent. `host`
    has the plugins (None: those that are installed). `progress` is told of bytes of weights, as the graph stores them,
    `preparing` of what is done after that, such as recording graphs, or hashing the weights for a `cache_dir`.

    `max_context` counts the tokens of prompt and answer together; it is at most the model's own, and 32,768 when not
    given. The cache has room for `max_sequences` of that length; further ones wait. `max_batch_tokens` enter one step,
    so a longer prompt takes several (None: 512, on CUDA 4,096). `cache_tokens` gives the cache room for so many tokens
    of all sequences together, in place of the worst case: sequences that find none wait, or are computed anew.
    Of a model that sees, `max_patches` of 14 by 14 pixels are encoded in one step (None: 24,708, the largest picture):
    fewer take less memory, and make larger pictures smaller; one whose own `max_pixels` allows more is refused. What
    pictures and videos became is kept for the next request, in `feature_bytes` of main memory (None: 512 MiB).
    `memory_bytes` bounds weights and cache together (None: what the device has free); `threads` are the backend's on
    the CPU (None: as many as it likes). With `reuse` a prompt that begins like an earlier one goes on from the rows
    that are left of it; without, it is computed anew, which gives the same bits each time. What is worth it
    outlives the process in `cache_dir`, a folder that is made for it, in files of at most `cache_bytes` together (None:
    8 GiB); docs/prefix-cache.md says what lies there, and who can read it. Without `graphs` a backend that would record
    steps and replay them, as CUDA graphs, runs each one kernel by kernel. With `deterministic` what a request
    gets depends, bit by bit, on that request alone, at some cost (docs/determinism.md). A vision-language model is run
    as the text model inside it with `text_only`: what serves pictures is not read, and takes no memory; so is one whose
    folder was written without that.

    Raises OptionError for an argument that is impossible, what `locate` raises, and CheckpointError or FileFormatError
    for weights that are broken or of another model; PluginError or BackendError for a backend that cannot be used, or
    fails; WriteError or UnsafePathError for a `cache_dir` that cannot be used; LoweringError when
    it cannot run the model; CapacityError, before anything large is allocated, when model and cache do not fit.
    `backend` "auto" goes on to the next one then, before it raises that.
    """
    if not isinstance(weights, WeightSource | None):
        raise OptionError(
            "weights is not possible",
            expected="a WeightSource, such as ernie_rt.weights.synthetic.Synthetic",
            found=repr(weights),
            hint="For a quantised model, write one with `ernie-rt quantize` and load its folder",
        )
    switches = {
        "reuse": reuse, "graphs": graphs, "deterministic": deterministic, "routing": routing, "text_only": text_only,
    }  # fmt: skip
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise OptionError(f"{name} is not possible", expected="True or False", found=repr(value))
    located = ref if isinstance(ref, Located) else _locate_for(str(ref), weights, sources)
    located = located.text_alone if text_only else located
    config = located.config
    if routing and config.moe is None:
        raise OptionError(
            "a dense model has no router: each token goes through all of its weights",
            expected="a mixture of experts, such as demo, 21B-A3B or 300B-A47B",
            found=f"model_type {config.model_type}",
        )
    limits = _limits(config, max_context, max_sequences, max_batch_tokens, memory_bytes, cache_tokens, max_patches)
    feature_bytes = FEATURE_BYTES if feature_bytes is None else positive("feature_bytes", feature_bytes)
    threads = None if threads is None else check_threads(threads)
    store = _store(cache_dir, cache_bytes, reuse)
    # First the headers of the weights: whatever is wrong with a folder is said before a backend is imported.
    source = weights if weights is not None else located.weights()
    if as_stored(config, storages_of(source)).sees is None:
        located = located.text_alone
        config = located.config
    try:
        plugins = host or PluginHost()
        builds: dict[Choice, tuple[Build, Limits]] = {}

        def attempt(choice: Choice) -> None:
            target = Target((choice.device,), choice.dtype, threads, graphs, deterministic)
            bounds = limits
            if max_batch_tokens is None:
                bounds = replace(limits, max_batch_tokens=batch_tokens(choice.device))
            with blame(choice.backend):
                built = build(config, plugins.backend(choice.backend), target, storages_of(source), taps, routing)
                check_memory(built.bill(bounds), bounds.memory_bytes)
            builds[choice] = built, bounds

        choice = choose(
            plugins,
            backend=backend,
            device=device,
            dtype=dtype,
            stored=config.dtype,
            deterministic=deterministic,
            attempt=attempt,
            model=config,
            storages=storages_of(source),
        )
        built, limits = builds[choice]
        with blame(choice.backend):
            reported = source if progress is None else _Reported(source, progress, weights_of(built.graphs))
            executable = built.compile(reported, limits)
            if isinstance(executable, ExecutableBase):
                executable.prepare(preparing)
            kept = None
            if store is not None:
                kept = keep_rows(store, executable, built, limits, source, plugins.versions(choice.backend), preparing)
    finally:
        source.close()
    unused, notes = (tuple(source.unused), tuple(source.notes)) if isinstance(source, StoredSource) else ((), ())
    overlap = plugins.overlap(choice.backend)
    notes = notes if overlap is None else (*notes, f"backend {choice.backend}: {overlap}")
    reopen = located.weights if weights is None else None
    return Model(
        located, built, choice, limits, executable, unused, notes, reuse=reuse, kept=kept, open_weights=reopen,
        feature_bytes=feature_bytes,
    )  # fmt: skip


def _store(folder: str | Path | None, nbytes: int | None, reuse: bool) -> RowStore | None:
    """Where rows are kept; None where they are not."""
    if folder is None:
        if nbytes is not None:
            raise OptionError("cache_bytes bounds a cache on disk, and there is none", hint="Give cache_dir as well")
        return None
    if not reuse:
        raise OptionError("a cache on disk is there to be reused", hint="Leave out cache_dir, or reuse=False")
    return RowStore(Path(folder), KEPT_BYTES if nbytes is None else positive("cache_bytes", nbytes))


def check_threads(threads: object) -> int:
    """The number of threads as an int; OptionError for one that is impossible, or that no machine has a use for."""
    number = positive("threads", threads)
    if number > MOST_THREADS:
        raise OptionError("threads is not possible", expected=f"1 to {MOST_THREADS}", found=shown(number))
    return number


class _Reported:
    """A WeightSource that says how far it has come."""

    def __init__(self, source: WeightSource, progress: Progress, weights: Mapping[str, Weight]) -> None:
        self._source = source
        self._progress = progress
        self._done = 0
        self._total = sum(weight.nbytes() for weight in weights.values() if weight.storage.stored)

    def fill(self, weight: Weight, part: str, out: npt.NDArray[Any], index: tuple[int, ...] = ()) -> None:
        self._source.fill(weight, part, out, index)
        self._count(weight, part, out.size)

    def place(self, weight: Weight, part: str) -> Place | None:
        place = self._source.place(weight, part) if isinstance(self._source, PlacedSource) else None
        if place is not None:
            self._count(weight, part, weight.parts[part].elements())
        return place

    def close(self) -> None:
        self._source.close()

    def _count(self, weight: Weight, part: str, numbers: int) -> None:
        if weight.storage.stored:
            self._done += numbers * DTYPES[weight.parts[part].dtype].size
            self._progress(self._done, self._total)


def _locate_for(ref: str, weights: WeightSource | None, sources: Sources) -> Located:
    family = find(ref) if weights is not None else None
    return locate(ref, sources) if family is None else Located(family.config)


def _limits(
    config: ModelConfig,
    max_context: int | None,
    max_sequences: int,
    max_batch_tokens: int | None,
    memory_bytes: int | None,
    cache_tokens: int | None,
    max_patches: int | None,
) -> Limits:
    longest = config.max_position_embeddings
    context = min(longest, DEFAULT_CONTEXT) if max_context is None else positive("max_context", max_context)
    if context > longest:
        raise OptionError(
            "max_context is not possible", expected=f"1 to {longest}, the model's longest context", found=context
        )
    sequences = positive("max_sequences", max_sequences)
    tokens = BATCH_TOKENS if max_batch_tokens is None else positive("max_batch_tokens", max_batch_tokens)
    for name, number in (("max_batch_tokens", tokens), ("max_sequences", sequences)):
        if number > MOST_AT_ONCE:
            raise OptionError(f"{name} is not possible", expected=f"1 to {MOST_AT_ONCE}", found=shown(number))
    memory = None if memory_bytes is None else positive("memory_bytes", memory_bytes)
    if cache_tokens is not None and positive("cache_tokens", cache_tokens) < context:
        raise OptionError(
            "cache_tokens has no room for one sequence", expected=f"at least max_context, {context}", found=cache_tokens
        )
    patches = MAX_PATCHES if max_patches is None else positive("max_patches", max_patches)
    return Limits(context, sequences, tokens, memory, cache_tokens, patches)
