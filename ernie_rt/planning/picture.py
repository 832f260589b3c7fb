"""The ways to hold a model on every kind of device, for the page of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from typing import Final

from ernie_rt.contract.planner import Device
from ernie_rt.contract.protocols import Limits, MemoryReport
from ernie_rt.display import human_count
from ernie_rt.graph.graph import Graph
from ernie_rt.host import PluginHost
from ernie_rt.html import table
from ernie_rt.modeling.graphs import weights_of
from ernie_rt.planning.candidates import Planned, Way, ways
from ernie_rt.planning.device import known_devices
from ernie_rt.planning.forms import Form, part_of
from ernie_rt.planning.limits import batch_tokens
from ernie_rt.planning.page import SEQUENCES, Bar, Picture, context_stops
from ernie_rt.planning.plan import Plan, card_bill, seeing_seconds
from ernie_rt.planning.seeing import Sight
from ernie_rt.planning.speed import Decode
from ernie_rt.planning.usual import usual_device

KINDS: Final = ("cpu", "cuda", "mps")
FOR_COMPARISON: Final = "reference"
"""A backend that is there for others to be compared with, in float64."""
SHOWN_AS: Final[Mapping[str, str]] = {
    "embedding": "embedding and head", "head": "embedding and head", "norms": "norms and router",
    "router": "norms and router", "tower": "tower and resampler", "resampler": "tower and resampler",
}  # fmt: skip

Bill = Callable[[int, int], MemoryReport]
"""By context and sequences."""


def picture_of(plan: Plan, host: PluginHost, here: Sequence[Device]) -> Picture:
    """What the page of a plan shows; `here` are devices of this machine, with the memory that is free of them.

    A backend has a bar for each form of weights that it takes as they are; forms that no backend holds yet have one for
    cards.
    """
    model, contexts = Planned(plan.config), context_stops(plan.config.max_position_embeddings)
    mine = {device.name: device for device in here}
    others = {device.name: device for device in (*known_devices(), plan.device) if device.name not in mine}
    return Picture(
        model=plan.model,
        about=f"{human_count(plan.parameters)} parameters, of which {human_count(plan.active_parameters)} take part in "
        "each token. A bar is a way to hold it: weights, and a backend that takes them so.",
        contexts=contexts,
        bars=tuple(bar for kind in KINDS for bar in _bars(plan.forms, model, host, kind, contexts)),
        here=tuple(mine.values()),
        others=tuple(others.values()),
        context=plan.contexts[0],
        sequences=plan.sequences,
        device=plan.device.name,
        seen="" if plan.sight is None else _seen(plan, plan.sight),
    )


def _seen(plan: Plan, sight: Sight) -> str:
    """What seeing takes, as HTML; with what is shown, and how long that takes each way to run the model."""
    kv = plan.kv_bytes["bfloat16"]
    parts = ["<h2>Pictures and videos</h2>", *(f"<p>{escape(line)}</p>" for line in sight.lines(kv))]
    if sight.shown:
        header, *rows = sight.table(kv)
        parts.append(table(header, rows))
        times = [
            [f"{each.limits.max_context:,}", each.form, each.backend, each.fit, *seeing_seconds(each)]
            for each in plan.candidates
        ]
        parts.append(f"<p>With them in the prompt, on {escape(plan.device.name)}:</p>")
        parts.append(table(["CONTEXT", "WEIGHTS", "BACKEND", "FITS", "TOWER s", "FIRST TOKEN s"], times))
    return "\n".join(parts)


def _bars(forms: Sequence[Form], model: Planned, host: PluginHost, kind: str, contexts: Sequence[int]) -> Iterator[Bar]:
    usual = usual_device(kind)
    for way in ways(model, host, kind, forms):
        if way.backend != FOR_COMPARISON and not way.dequantised:
            decode = way.predictor(usual).decode(SEQUENCES)
            bill = partial(_way_bill, way, batch_tokens(kind))
            yield _bar(f"{way.form.name}, {way.backend}", kind, way.graphs, contexts, bill, decode)
    if kind == "cuda":
        for form in (form for form in forms if not form.is_runnable):
            bill = partial(card_bill, model, form)
            yield _bar(f"{form.name}, no backend yet", kind, model.in_form(form), contexts, bill)


def _way_bill(way: Way, batch: int, context: int, sequences: int) -> MemoryReport:
    return way.bill(Limits(context, sequences, batch))


def _bar(
    name: str,
    kind: str,
    graphs: Mapping[str, Graph],
    contexts: Sequence[int],
    bill: Bill,
    decode: Decode | None = None,
) -> Bar:
    """Weights by part; what a bill counts beside them and the cache is workspace, tables that grow with the context
    too."""
    weights: dict[str, int] = {}
    for weight in weights_of(graphs).values():
        if weight.storage.stored:
            part = SHOWN_AS.get(part_of(weight), part_of(weight))
            weights[part] = weights.get(part, 0) + (weight if weight.storage.packed else weight.type).nbytes()
    all_weights = sum(weights.values())
    bills = [[bill(context, sequences) for sequences in SEQUENCES] for context in contexts]
    return Bar(
        name=name,
        kind=kind,
        weights=weights,
        cache=tuple(tuple(each.cache_bytes for each in row) for row in bills),
        workspace=tuple(
            tuple(each.nbytes + each.mapped_bytes - each.cache_bytes - all_weights for each in row) for row in bills
        ),
        mapped_bytes=bills[0][0].mapped_bytes,
        decode=decode,
    )
