"""A model, loaded for a command: progress on a terminal, and on standard error what was chosen and why."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_rt.cli.options import Weights, describe
from ernie_rt.cli.output import animated, answers_alone, parse_size, say

if TYPE_CHECKING:
    from ernie_rt.files import Progress
    from ernie_rt.generation.options import GenerateOptions
    from ernie_rt.location import Located
    from ernie_rt.session import Model
    from ernie_rt.text.chat import ChatTemplate
    from ernie_rt.weights.quantize import Quantization
    from ernie_rt.weights.source import StoredSource


@contextmanager
def loaded(
    ref: str | Path | Located,
    *,
    memory: str | None = None,
    cache_size: str | None = None,
    verbose: bool = False,
    quiet: bool = False,
    why: bool = False,
    **options: Any,
) -> Iterator[Model]:
    """`ernie_rt.load` with its `options`, `memory` and `cache_size` as sizes in words; the model is closed at the end
    of the block.

    Said is where `auto` passed a backend over, or a backend does not take weights as they are; all, when `verbose`;
    every decision, when somebody asks `why`.
    """
    from ernie_rt.loading import load

    memory_bytes, cache_bytes = (None if size is None else parse_size(size) for size in (memory, cache_size))
    with answers_alone():
        with progress_bar("loading") as progress, progress_bar("preparing") as preparing:
            model = load(
                ref, memory_bytes=memory_bytes, cache_bytes=cache_bytes, progress=progress, preparing=preparing,
                **options,
            )  # fmt: skip
        with model:
            if verbose or (model.choice.passed_over and not quiet):
                say(f"backend {model.choice.backend} ({model.choice.reason})")
            notes = model.notes
            for note in () if quiet else notes:
                say(note)
            held = model.memory()
            for note in held.notes:
                if verbose or (" dequantised from " in note and not quiet):
                    say(note)
            _say_mapped(held.mapped_bytes, verbose=verbose, quiet=quiet)
            for note in _skipped(model.unused) if verbose else ():
                say(note)
            for line in _reasons(model) if why else ():
                say(line)
            yield model
        for note in () if quiet else model.notes[len(notes) :]:  # what was found when the last rows were written
            say(note)


def quantized(
    located: Located,
    weights: Weights | None,
    threads: int | None,
    *,
    backend: str,
    device: str,
    dtype: str,
    deterministic: bool = False,
) -> StoredSource | None:
    """The model's weights made so, from the cache, as the backend takes them; None when none are asked for."""
    if weights is None or located.folder is None:
        return None
    from ernie_rt.display import human_bytes
    from ernie_rt.weights.cache import cached_weights

    def announce(nbytes: int, seconds: float) -> None:
        say(f"quantising to {weights}: {human_bytes(nbytes)}, about {max(seconds, 1):.0f} s, once")

    def waiting() -> None:
        say("another process is quantising it: waiting for that one")

    how = quantization(weights, located, backend=backend, device=device, dtype=dtype, deterministic=deterministic)
    with progress_bar("hashing") as hashing, progress_bar("quantising") as quantizing:
        return cached_weights(
            located.folder, located.config, how, threads=threads or os.cpu_count() or 1, announce=announce,
            waiting=waiting, hashing=hashing, quantizing=quantizing, sources=located.sources,
        )  # fmt: skip


def quantization(
    weights: Weights, located: Located, *, backend: str, device: str, dtype: str, deterministic: bool = False
) -> Quantization:
    """How a model is quantised, in the layout that the backend takes as it is."""
    from ernie_rt.choice import choose
    from ernie_rt.contract.protocols import Target
    from ernie_rt.host import PluginHost, blame
    from ernie_rt.planning.forms import FORMS
    from ernie_rt.weights.quantize import Quantization

    host = PluginHost()
    choice = choose(
        host, backend=backend, device=device, dtype=dtype, stored=located.config.dtype, deterministic=deterministic,
        model=located.config, storages=FORMS[weights].storages(located.config),
    )  # fmt: skip
    chosen, target = host.backend(choice.backend), Target((choice.device,), choice.dtype)
    with blame(choice.backend):
        return Quantization(weights.bits).taken(lambda storage: chosen.accepts(storage, target))


def explain(located: Located, template: ChatTemplate | None, settled: GenerateOptions) -> None:
    """Say what was settled, given or not."""
    say("the prompt is continued as plain text" if template is None else f"chat template {template.kind}")
    defaults = located.defaults
    if defaults.options:
        say(f"generation_config.json: {describe(defaults.options)}")
    if defaults.ignored:
        say(f"generation_config.json: ignored {', '.join(defaults.ignored)}")
    greedy: GenerateOptions = {"temperature": 0.0}
    say(f"options: {describe({**greedy, **settled})}")


def _reasons(model: Model) -> list[str]:
    from ernie_rt.explanation import explain
    from ernie_rt.host import PluginHost

    held, limits, host = model.memory(), model.limits, PluginHost()
    return explain(
        model.choice, model.config, model.lowerings.values(), held, limits, host, stored=model.stored,
        taken=held.kept_bytes,
    ).lines()  # fmt: skip


def _say_mapped(nbytes: int, *, verbose: bool, quiet: bool) -> None:
    """Say that weights are read where they lie in files, when `verbose`, or when memory has no room for them."""
    from ernie_rt.contract.memory import available_memory
    from ernie_rt.display import human_bytes

    room = available_memory()
    where = f"{human_bytes(nbytes)} of weights are read where they lie in files"
    if room is not None and nbytes > room and not quiet:
        say(f"{where}, more than the {human_bytes(room)} of memory that are free: from disk, again and again")
    elif verbose and nbytes:
        say(where)


def _skipped(unused: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each reason why stored tensors are not used."""
    counts = Counter(reason for _, reason in unused)
    return [f"{count} stored tensors skipped: {reason}" for reason, count in counts.items()]


@contextmanager
def progress_bar(label: str, then: str | None = None) -> Iterator[Progress | None]:
    """A bar on standard error, when that is a terminal: what is given is told how much is done, and of how much.

    `then` says what goes on in the block when all of that is done, and nobody knows how long.
    """
    if not animated(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    task = bar.add_task(label)

    def report(done: int, total: int) -> None:
        if done < total:
            bar.start()  # once there is something to show: a line has room for one
        bar.update(task, completed=done, total=total)
        if done >= total and then is not None:
            bar.start()
            bar.reset(task, total=None, description=then)
        elif done >= total:
            bar.stop()

    try:
        yield report
    finally:
        bar.stop()
