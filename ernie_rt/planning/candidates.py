"""Every way to run a model on a device: backend by form of weights by context, with its bill and its speed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ernie_rt.build import accepted
from ernie_rt.contract.planner import Device, Planner
from ernie_rt.contract.protocols import Limits, MemoryReport, Target
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import DType, Storage, Weight
from ernie_rt.hooks import BackendInfo
from ernie_rt.host import PluginHost
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.graphs import MAIN, VISION, build_graphs, weights_of
from ernie_rt.planning.forms import Form
from ernie_rt.planning.limits import batch_tokens
from ernie_rt.planning.seeing import Shown
from ernie_rt.planning.speed import Predictor, Speed

Fit = Literal["yes", "from disk", "no"]
"""Whether a device has room. "from disk": for all but the pages of files with weights, read again and again then."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a model.

    `dtype` is that of activations and of the cache. `dequantised` says that the backend does not take weights of this
    form as they are; `lacking` what the backend lacks here, None when it is usable. `speed` is None where nothing
    predicts it: of devices whose peaks are not known, and of weights that come from disk. `basis` says
    where the rates are from, and `has_run` whether the backend has run on such a device.
    """

    backend: str
    dtype: DType
    form: str
    limits: Limits
    bill: MemoryReport
    fit: Fit
    speed: Speed | None
    basis: str
    has_run: bool
    dequantised: bool = False
    lacking: str | None = None


class Planned:
    """A model as planners see it: its graphs for a dtype of activations, built once, with weights in any form."""

    def __init__(self, config: ModelConfig, stored: Mapping[str, Storage] | None = None) -> None:
        self.config = config
        self._stored = stored
        self._graphs: dict[DType, dict[str, Graph]] = {}

    def graphs(self, dtype: DType | None = None) -> dict[str, Graph]:
        """Their weights as they are stored, or published; for activations of a dtype (None: the config's)."""
        dtype = dtype or self.config.dtype
        if dtype not in self._graphs:
            self._graphs[dtype] = build_graphs(self.config, dtype, self._stored)
        return self._graphs[dtype]

    def in_form(self, form: Form, dtype: DType | None = None, layout: str | None = None) -> dict[str, Graph]:
        """The graphs with weights in a form, and in a layout where the form has a choice."""

        def formed(weight: Weight) -> Weight:
            if not weight.storage.stored:
                return weight
            storage = form.storage(weight)
            return replace(weight, storage=storage if layout is None else storage.laid_out(layout))

        return {name: graph.with_weights(formed) for name, graph in self.graphs(dtype).items()}


@dataclass(frozen=True, slots=True)
class Way:
    """A model with weights in a form as a backend holds it on a kind of device, which need not be here."""

    backend: str
    target: Target
    form: Form
    planner: Planner
    graphs: Mapping[str, Graph]
    dequantised: bool

    def bill(self, limits: Limits) -> MemoryReport:
        return self.planner.bill(self.graphs, self.target, limits)

    def predictor(self, device: Device) -> Predictor:
        rates = self.planner.rates(self.target, device)
        return Predictor(self.graphs[MAIN], device, rates, self.graphs.get(VISION))


def ways(model: Planned, host: PluginHost, kind: str, forms: Sequence[Form], dtype: str = "auto") -> Iterator[Way]:
    """Of each backend with a planner that knows the kind of device and computes in `dtype`, each form that runs."""
    for backend, info in host.backends.items():
        planner = host.planner(backend) if kind in info.dtypes else None
        settled = settled_dtype(info, kind, dtype, model.config.dtype) if planner is not None else None
        if planner is None or settled is None:
            continue
        target = Target((kind,), settled)
        for form in (form for form in forms if form.is_runnable):
            given = model.in_form(form, settled, _layout(form, planner, target))
            packed = {weight.storage for weight in weights_of(given).values() if weight.storage.packed}
            dequantised = not all(planner.accepts(storage, target) for storage in packed)
            taken = {name: accepted(graph, planner, target) for name, graph in given.items()}
            yield Way(backend, target, form, planner, taken, dequantised)


def candidates(
    model: Planned,
    host: PluginHost,
    device: Device,
    room: int,
    forms: Sequence[Form],
    contexts: Sequence[int],
    *,
    sequences: int = 1,
    dtype: str = "auto",
    batch: int | None = None,
    shown: Sequence[Shown] = (),
) -> tuple[Candidate, ...]:
    """The ways to run a model on a device that has `room` bytes, of all backends with a planner that know its kind.

    `shown` are pictures and videos of the request whose times are predicted.

    They come by context, form and backend, in the order of each; a backend that does not compute in `dtype` has none.
    """
    found = []
    for way in ways(model, host, device.kind, forms, dtype):
        missing = host.missing(way.backend)
        rates, predictor = way.planner.rates(way.target, device), way.predictor(device)
        for context in contexts:
            limits = Limits(context, sequences, batch or batch_tokens(device.kind))
            bill = way.bill(limits)
            fit = fitting(bill, room)
            found.append(
                Candidate(
                    way.backend,
                    way.target.dtype,
                    way.form.name,
                    limits,
                    bill,
                    fit,
                    predictor.speed(context, limits.max_batch_tokens, shown=shown) if fit != "from disk" else None,
                    rates.source,
                    rates.has_run,
                    dequantised=way.dequantised,
                    lacking=None if missing is None else f"{missing}: {host.info(way.backend).hint}",
                )
            )
    order = [form.name for form in forms]
    return tuple(sorted(found, key=lambda each: (each.limits.max_context, order.index(each.form))))


def fitting(bill: MemoryReport, room: int) -> Fit:
    """Whether there is room for what a bill says."""
    if bill.nbytes > room:
        return "no"
    return "yes" if bill.nbytes + bill.mapped_bytes <= room else "from disk"


def settled_dtype(info: BackendInfo, kind: str, dtype: str, stored: DType) -> DType | None:
    """The dtype that a backend computes in on a kind of device: the one that is asked for, the checkpoint's, or the one
    that it prefers. None: it does not compute in what is asked for."""
    computed = info.dtypes[kind]
    preferred = stored if dtype == "auto" else dtype
    return next((each for each in computed if each == preferred), computed[0] if dtype == "auto" else None)


def _layout(form: Form, planner: Planner, target: Target) -> str | None:
    """The layout in which `--weights` would quantise for a backend."""
    if form.quantization is None:
        return None
    return form.quantization.taken(lambda storage: planner.accepts(storage, target)).layout
