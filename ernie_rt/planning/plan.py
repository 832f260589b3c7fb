"""A plan: what a model needs in every form, how it runs on a device, which way is chosen and why."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ernie_rt.contract.contents import PagedContents
from ernie_rt.contract.planner import Device, activation_bytes
from ernie_rt.contract.protocols import Limits, MemoryReport
from ernie_rt.errors import OptionError
from ernie_rt.graph.cost import active_parameters, parameters
from ernie_rt.graph.types import DTYPES, DType, Storage
from ernie_rt.host import PluginHost
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.families import FAMILIES
from ernie_rt.modeling.graphs import MAIN, VISION, weights_of
from ernie_rt.planning.candidates import Candidate, Planned, candidates
from ernie_rt.planning.forms import Form, forms_of, sizes
from ernie_rt.planning.limits import batch_tokens
from ernie_rt.planning.seeing import Shown, Sight
from ernie_rt.vision.grid import usual_pixels

FASTER: Final = 1.2
"""How many times as fast another way has to be predicted before a plan speaks of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model needs, and the ways to run it on `device`, which has `room` bytes for it.

    `kv_bytes` are those of a token in the cache, by its dtype; `sizes` the bytes of stored weights by form and part. Of
    the `candidates` one for each context is chosen, None where none fits: `choices` are in the order of `contexts`.
    `dtype` is the one that was asked for, or "auto".
    """

    model: str
    config: ModelConfig
    parameters: int
    active_parameters: int
    kv_bytes: Mapping[DType, int]
    forms: tuple[Form, ...]
    sizes: Mapping[str, Mapping[str, int]]
    device: Device
    room: int
    contexts: tuple[int, ...]
    sequences: int
    dtype: str
    candidates: tuple[Candidate, ...]
    sight: Sight | None = None
    """Of a model that sees: what that takes, and the pictures and videos of the request whose times are predicted."""

    @property
    def choices(self) -> tuple[Candidate | None, ...]:
        """By context, of the widest form that fits what is predicted to be the fastest here: narrower ones are for who
        asks for them. Where weights have to come from disk, of the narrowest one."""
        return tuple(self._choice(context) for context in self.contexts)

    def _choice(self, context: int) -> Candidate | None:
        fitting = [c for c in self.candidates if c.limits.max_context == context and c.fit != "no" and not c.lacking]
        for fit, forms in (("yes", self.forms), ("from disk", self.forms[::-1])):
            for form in forms:
                of_form = [each for each in fitting if each.form == form.name and each.fit == fit]
                if of_form:
                    return min(of_form, key=rank)
        return None

    def obstacle(self, context: int) -> str:
        """Why no way is chosen for a context: there is no room, or what has room is not installed."""
        fitting = [each for each in self.candidates if each.limits.max_context == context and each.fit != "no"]
        if not fitting:
            return "nothing that runs here fits"
        lacking = dict.fromkeys(f"{each.backend} {each.lacking}" for each in fitting)
        return f"what fits is not installed: {'; '.join(lacking)}"

    def faster(self, chosen: Candidate) -> tuple[str, ...]:
        """What would be faster than what was chosen, and how to get it."""
        found: list[str] = []
        for other in sorted(self.candidates, key=rank):
            if other.limits != chosen.limits or other.fit != "yes" or other.speed is None or chosen.speed is None:
                continue
            times = chosen.speed.token_seconds / other.speed.token_seconds
            if times < FASTER or (other.backend, other.form) == (chosen.backend, chosen.form):
                continue
            steps = [] if other.form == chosen.form else [f"--weights {other.form}, which rounds the weights"]
            if other.lacking is not None:
                steps.append(f"install what {other.backend} {other.lacking}")
            elif other.backend != chosen.backend and not other.has_run:
                steps.append(f"--backend {other.backend}, which nobody has run on such a device")
            if steps and not any(step in text for text in found for step in steps):
                found.append(f"{times:.1f} times as fast: {' and '.join(steps)}")
        return tuple(found)

    def command(self, chosen: Candidate) -> str:
        """What runs it so, on a machine that has such a device; several sequences at once are for a server."""
        words = ["ernie-rt", "run" if self.sequences == 1 else "serve", self.model]
        if self.config.vision is not self.config.sees:
            words.append("--text-only")
        if self._form(chosen.form).quantization is not None:
            words += ["--weights", chosen.form]
        words += ["--backend", chosen.backend, "--device", self.device.kind]
        if self.dtype != "auto":
            words += ["--dtype", self.dtype]
        words += ["--max-context", str(chosen.limits.max_context)]
        if self.sequences > 1:
            words += ["--max-sequences", str(self.sequences)]
        return shlex.join(words)

    def why(self, chosen: Candidate) -> tuple[str, ...]:
        """The reasons of a choice, and why each other way in its context is none, one a line."""
        reasons = []
        for form in self.forms:
            if form.name == chosen.form:
                break
            if not form.is_runnable:
                reasons.append(f"{form.name}: ernie-rt does not hold such weights yet")
            else:
                alike = [c for c in self.candidates if c.form == form.name and c.limits == chosen.limits]
                fits = {each.fit for each in alike if each.lacking is None}
                what = "would be read from disk, more of it" if chosen.fit == "from disk" else "would be read from disk"
                what = f"{what}, again and again" if "from disk" in fits else "does not fit"
                if absent := [each for each in alike if each.lacking is not None and each.fit == "yes"]:
                    what = f"fits {absent[0].backend} alone, which {absent[0].lacking}"
                reasons.append(f"{form.name}: {what}")
        for other in self.candidates:
            if other.limits != chosen.limits or other.form != chosen.form or other.backend == chosen.backend:
                continue
            reasons.append(f"{other.backend}: {passed_over(other, chosen)}")
        return tuple(reasons)

    def bill(self, form: Form, context: int, sequences: int = 1) -> MemoryReport:
        """What a model takes of a card whatever runs it: weights in a form, a cache and a workspace in 16 bits."""
        return card_bill(Planned(self.config), form, context, sequences)

    def _form(self, name: str) -> Form:
        return next(form for form in self.forms if form.name == name)

    def to_json(self) -> dict[str, Any]:
        """The plan for programs: bytes, seconds and tokens a second."""
        return {
            "model": self.model,
            "parameters": self.parameters,
            "active_parameters": self.active_parameters,
            "vision": None if self.sight is None else self.sight.to_json(self.kv_bytes["bfloat16"]),
            "max_position_embeddings": self.config.max_position_embeddings,
            "kv_bytes_per_token": dict(self.kv_bytes),
            "weights": {
                form.name: {
                    "bytes": sum(self.sizes[form.name].values()),
                    "parts": dict(self.sizes[form.name]),
                    "runnable": form.is_runnable,
                    "rule": form.rule or None,
                }
                for form in self.forms
            },
            "device": asdict(replace(self.device, flops=dict(self.device.flops)))
            | {"features": sorted(self.device.features), "room_bytes": self.room},
            "sequences": self.sequences,
            "candidates": [candidate_json(each) for each in self.candidates],
            "choices": [
                None
                if each is None
                else candidate_json(each)
                | {"why": self.why(each), "faster": self.faster(each), "command": self.command(each)}
                for each in self.choices
            ],
        }


def make_plan(
    name: str,
    config: ModelConfig,
    host: PluginHost,
    device: Device,
    room: int,
    contexts: Sequence[int],
    *,
    stored: Mapping[str, Storage] | None = None,
    storage: str = "all",
    sequences: int = 1,
    dtype: str = "auto",
    shown: Sequence[Shown] = (),
    max_pixels: int | None = None,
) -> Plan:
    """Plan a model called `name`, whose weights are `stored` so where it is known, for a device with so much room.

    `shown` are pictures and videos of the request whose times are predicted, and `max_pixels` is the most that a
    picture has (None: as on such a device). OptionError for a `storage` that nobody knows, and for pictures that the
    model does not take.
    """
    model, forms = Planned(config, stored), forms_of(config, stored, storage)
    graphs = model.graphs()
    if shown and VISION not in graphs:
        raise OptionError(
            "the model takes in text alone, no pictures and no videos",
            where=name,
            found=f"{len(shown)} of them",
            hint=f"Leave them out, or plan one of {', '.join(f.name for f in FAMILIES if f.config.sees)}",
        )
    most = max_pixels or usual_pixels(on_cpu=device.kind == "cpu")
    graph = graphs[MAIN]
    row = sum(state.type.elements({"R": 1, "S": 1}) for state in graph.states)
    return Plan(
        model=name,
        config=config,
        parameters=parameters(*graphs.values()),
        active_parameters=active_parameters(graph),
        kv_bytes={dtype: row * DTYPES[dtype].size for dtype in ("bfloat16", "float32")},
        forms=forms,
        sizes={form.name: sizes(weights_of(graphs).values(), form) for form in forms},
        device=device,
        room=room,
        contexts=tuple(contexts),
        sequences=sequences,
        dtype=dtype,
        candidates=candidates(
            model, host, device, room, forms, contexts, sequences=sequences, dtype=dtype, shown=shown
        ),
        sight=Sight.of(graphs, shown, most) if VISION in graphs else None,
    )


def card_bill(model: Planned, form: Form, context: int, sequences: int = 1) -> MemoryReport:
    """What a model takes of a card: weights in a form, and a cache and a workspace in the config's dtype."""
    graphs = model.in_form(form)
    limits = Limits(context, sequences, batch_tokens("cuda"))
    report = PagedContents.of_graphs(graphs, limits).report()
    return replace(report, workspace_bytes=2 * activation_bytes(graphs, limits))


def rank(candidate: Candidate) -> tuple[bool, bool, float]:
    """What `auto` prefers is smaller: what has run on such a device, and of that the fastest."""
    speed = candidate.speed
    return not candidate.has_run, speed is None, 0.0 if speed is None else speed.request_seconds


def passed_over(other: Candidate, chosen: Candidate) -> str:
    """Why one way of the same form and context was not chosen."""
    if other.lacking is not None:
        return other.lacking
    if other.fit == "no":
        return "does not fit"
    if other.has_run < chosen.has_run:
        return "nobody has run it on such a device"
    if other.fit != chosen.fit:
        return "reads its weights from disk, again and again"
    if other.speed is None or chosen.speed is None:
        return "nothing predicts how fast it is"
    times = other.speed.request_seconds / chosen.speed.request_seconds
    return "predicted to be about as fast" if 0.8 < times < 1.25 else f"predicted to take {times:.1f} times as long"


def seeing_seconds(candidate: Candidate) -> list[str]:
    """For people: seconds of tower and resampler for what is shown, and until the first token."""
    speed = candidate.speed
    return ["-", "-"] if speed is None else [f"{speed.vision_seconds:,.2f}", f"{speed.first_token_seconds:,.2f}"]


def candidate_json(candidate: Candidate) -> dict[str, Any]:
    bill, speed = candidate.bill, candidate.speed
    return {
        "backend": candidate.backend,
        "dtype": candidate.dtype,
        "kv_dtype": candidate.dtype,
        "weights": candidate.form,
        "context": candidate.limits.max_context,
        "weight_bytes": bill.held_weight_bytes,
        "mapped_bytes": bill.mapped_bytes,
        "cache_bytes": bill.cache_bytes,
        "workspace_bytes": bill.workspace_bytes,
        "bytes": bill.nbytes,
        "fits": candidate.fit,
        "prefill_tokens_per_second": None if speed is None else speed.prefill_tokens_per_second,
        "decode_tokens_per_second": None if speed is None else speed.decode_tokens_per_second,
        "full_context_tokens_per_second": None if speed is None else 1 / speed.full_seconds,
        "vision_seconds": None if speed is None else speed.vision_seconds,
        "first_token_seconds": None if speed is None else speed.first_token_seconds,
        "rates_from": candidate.basis,
        "has_run": candidate.has_run,
        "dequantised": candidate.dequantised,
        "lacking": candidate.lacking,
    }
