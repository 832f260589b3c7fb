"""A whole measurement: what the server takes, warm-up, and one phase after another."""

from __future__ import annotations

import platform
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import h11
import msgspec

from ernie_rt import __version__
from ernie_rt.display import listed, printable
from ernie_rt.errors import OptionError
from ernie_rt_serve.bench import ceiling as own
from ernie_rt_serve.bench.connection import Client
from ernie_rt_serve.bench.figures import Spread, Summary, summarise
from ernie_rt_serve.bench.load import Extent, Load, closed_loop, open_loop
from ernie_rt_serve.bench.prompts import Length, Line, Scale, Shape, dataset_bodies, every_word, unique_bodies, words
from ernie_rt_serve.bench.record import Record
from ernie_rt_serve.bench.request import Asker
from ernie_rt_serve.structs import decode

MODELS_LIMIT: Final = 1 << 20
MOST_EVENTS: Final = 256
"""Of an answer, when the client's ceiling is measured: longer ones take longer, and tell nothing more."""
OPTIONAL: Final = ("ignore_eos", "stream_options")
"""Fields that a server may not take, the least common first."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured. `body` goes over the fields of every request; limits and times are in seconds."""

    base_url: str
    endpoint: str
    model: str
    loads: tuple[Load, ...]
    extent: Extent
    warmup: int | None
    prompt: Length
    answer: Length
    dataset: str | None
    shared_prefix: int
    seed: int
    timeout: float
    body: Mapping[str, Any]
    slo: Mapping[str, float]


class Phase(msgspec.Struct, frozen=True):
    """One load, what it came to, every request of it, and how late the client's own timers were meanwhile."""

    load: Load
    summary: Summary
    late: Spread | None
    requests: list[Record]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    settings: Settings
    versions: Mapping[str, str | None]
    ceiling: own.Ceiling
    scale: Scale | None
    """How the server counted words; None where nothing was fitted."""
    phases: list[Phase]
    notes: list[str]
    """What a reader of the figures must know."""


class _Named(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Named]


Progress = Callable[[str, int], None]
"""Told of the phase, and how many of its requests have ended."""


async def only_model(client: Client) -> str:
    """The model of a server that has one; OptionError otherwise."""
    hint = "Name one by --model"
    try:
        async with client.request("GET", "/models") as response:
            if response.status in (401, 403):
                raise OptionError(
                    "the server refuses the key, or that there is none", where=client.url,
                    found=f"HTTP {response.status}", hint="Give it with --api-key-file, or in OPENAI_API_KEY",
                )  # fmt: skip
            names = decode(await response.read(MODELS_LIMIT), _Models).data
    except (OSError, h11.RemoteProtocolError) as error:
        raise OptionError(
            "no server answers", where=client.url, found=str(error), hint="Start one, or give another --base-url"
        ) from None
    except msgspec.MsgspecError:
        raise OptionError(
            "the server lists no models", where=f"{client.url}/models", found=f"HTTP {response.status}", hint=hint
        ) from None
    if len(names) != 1:
        found = listed([model.id for model in names])
        raise OptionError("the server has not one model", where=client.url, found=found, hint=hint)
    return names[0].id


async def bench(settings: Settings, client: Client, lines: list[Line] | None, progress: Progress) -> Report:
    """Measure one load after another. OptionError when the server takes no request at all."""
    rng = random.Random(settings.seed)
    shape = Shape(settings.endpoint, settings.model, settings.body)
    notes: list[str] = []
    scale = await _fit(settings, client, shape, rng, notes)
    if lines is None:
        bodies = unique_bodies(shape, rng, scale or Scale(), settings.prompt, settings.answer, settings.shared_prefix)
    else:
        bodies = dataset_bodies(shape, rng, lines, settings.answer)
    most = max(load.concurrency or 32 for load in settings.loads)
    ceiling = await own.measure(min(settings.answer.high, MOST_EVENTS), most)
    phases: list[Phase] = []
    server = None
    for load in settings.loads:
        warmer = Asker(client, shape.path, settings.timeout)
        warmup = Extent(requests=(load.concurrency or 4) if settings.warmup is None else settings.warmup)
        await closed_loop(warmer, bodies, load.concurrency or 4, warmup, lambda _: progress("warm-up", 0))
        asker = Asker(client, shape.path, settings.timeout)
        phase = await _phase(settings, load, asker, bodies, rng, progress)
        notes += (f"{load}: {text}" for text in _remarks(phase, ceiling))
        phases.append(phase)
        server = asker.server
    asked = sum(len(phase.requests) for phase in phases)
    if lines is not None and asked > len(lines):
        notes.append(f"the dataset's {len(lines)} prompts were asked again and again: caches know them")
    versions = {
        "ernie-rt": __version__, "python": platform.python_version(), "platform": platform.platform(), "server": server,
    }  # fmt: skip
    return Report(settings=settings, versions=versions, ceiling=ceiling, scale=scale, phases=phases, notes=notes)


async def _phase(
    settings: Settings, load: Load, asker: Asker, bodies: Iterator[bytes], rng: random.Random, progress: Progress
) -> Phase:
    records: list[Record] = []

    def done(record: Record) -> None:
        records.append(record)
        progress(str(load), len(records))

    async with own.lateness() as late:
        if load.rate is not None:
            await open_loop(asker, bodies, load.rate, rng, settings.extent, done)
        else:
            assert load.concurrency is not None
            await closed_loop(asker, bodies, load.concurrency, settings.extent, done)
    records.sort(key=lambda record: record.origin)
    return Phase(load, summarise(records, settings.slo), Spread.of(late), records)


async def _fit(settings: Settings, client: Client, shape: Shape, rng: random.Random, notes: list[str]) -> Scale | None:
    """Find out which fields the server takes, and how many tokens a word has there; None where it does not count."""
    asker = Asker(client, shape.path, settings.timeout)
    all_words = every_word(rng)
    few = await asker.ask(shape.body(words(rng, 1), 1))
    for field in OPTIONAL:
        if few.status not in ("400", "422"):
            break
        shape.without(field)
        notes.append(f"the server refuses {field}: requests went without")
        few = await asker.ask(shape.body(words(rng, 1), 1))
    many = await asker.ask(shape.body(" ".join(all_words), 1)) if few.ok else few
    if many.error is not None:
        raise OptionError(
            "the server answers no request",
            where=f"{settings.base_url}{shape.path}",
            found=f"{many.status}: {printable(many.error)[:400]}",
            hint="Check --base-url, --model and the key, or see what the server says of it",
        )
    if few.prompt_tokens is None or many.prompt_tokens is None:
        notes.append("the server reports no `usage`: a word was taken for a token, and no token was counted")
        return None
    return Scale.fitted((1, few.prompt_tokens), (len(all_words), many.prompt_tokens))


def _remarks(phase: Phase, ceiling: own.Ceiling) -> Iterator[str]:
    summary = phase.summary
    yield from own.warnings(ceiling, summary, phase.late)
    if summary.uncounted:
        yield f"{summary.uncounted} answers came without `usage`: their tokens are not counted"
    example = next((record for record in phase.requests if not record.ok), None)
    if example is not None:
        yield f"a request failed with {example.status}: {printable(example.error or '')[:200]}"
