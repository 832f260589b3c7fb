"""Every decision on the way from a model to what runs it, with its reason, and what would be faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ernie_rt.build import Build, build
from ernie_rt.choice import Choice, choose
from ernie_rt.contract.memory import check_memory
from ernie_rt.contract.planner import Device
from ernie_rt.contract.protocols import Limits, MemoryReport, Target
from ernie_rt.errors import OptionError
from ernie_rt.graph.legalize import Lowering
from ernie_rt.graph.types import Storage
from ernie_rt.host import PluginHost, blame
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.planning.candidates import Candidate
from ernie_rt.planning.forms import STORED, Form
from ernie_rt.planning.limits import DEFAULT_CONTEXT, batch_tokens
from ernie_rt.planning.machine import these_gpus, this_machine
from ernie_rt.planning.plan import make_plan, passed_over
from ernie_rt.planning.usual import usual_device


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of `count` nodes of an op: run as they are (`kept`), or decomposed, for this reason."""

    op: str
    count: int
    kept: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a model runs as it does. `others` says of each other backend why it was passed over; `fallbacks` what weights
    were not taken as they are; `faster` how to get more."""

    choice: Choice
    others: Mapping[str, str]
    verdicts: tuple[Verdict, ...]
    fallbacks: tuple[str, ...]
    memory: MemoryReport
    decode_tokens_per_second: float | None
    faster: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        choice, speed = self.choice, self.decode_tokens_per_second
        predicted = "" if speed is None else f"; predicted to write {speed:.1f} tokens a second"
        found = [f"{choice.backend} on {choice.device} in {choice.dtype}: {choice.reason}{predicted}"]
        found += [f"not {name}: {reason}" for name, reason in self.others.items()]
        for verdict in self.verdicts:
            kept = "runs as it is" if verdict.count == 1 else "run as they are"
            became = kept if verdict.kept else f"decomposed: {verdict.reason}"
            found.append(f"{verdict.count} {verdict.op} {became}")
        found += self.fallbacks or ["all weights are taken as they are stored"]
        return found + [f"faster: {text}" for text in self.faster]

    def to_json(self) -> dict[str, Any]:
        choice, memory = self.choice, self.memory
        return {
            "backend": choice.backend,
            "device": choice.device,
            "dtype": choice.dtype,
            "reason": choice.reason,
            "passed_over": dict(self.others),
            "ops": [
                {"op": each.op, "count": each.count, "kept": each.kept, "reason": each.reason or None}
                for each in self.verdicts
            ],
            "fallbacks": list(self.fallbacks),
            "weight_bytes": memory.held_weight_bytes,
            "mapped_bytes": memory.mapped_bytes,
            "cache_bytes": memory.cache_bytes,
            "workspace_bytes": memory.workspace_bytes,
            "decode_tokens_per_second": self.decode_tokens_per_second,
            "faster": list(self.faster),
        }


def explain(
    choice: Choice,
    config: ModelConfig,
    lowerings: Iterable[Lowering],
    memory: MemoryReport,
    limits: Limits,
    host: PluginHost,
    *,
    stored: Mapping[str, Storage] | None = None,
    name: str = "MODEL",
    taken: int = 0,
) -> Explanation:
    """Explain how a model was made ready, whose weights are `stored` so; `name` is what commands would call it.

    One that is loaded has `taken` bytes of its device already, which other ways to run it would have in its place.
    """
    device = _device(choice)
    made = make_plan(
        name, config, host, device, device.memory_bytes + taken, [limits.max_context], stored=stored,
        sequences=limits.max_sequences,
    )  # fmt: skip
    packed = any(form.name == STORED for form in made.forms)
    mine = [each for each in made.candidates if each.form == (STORED if packed else config.dtype)]
    chosen = next((each for each in mine if each.backend == choice.backend), None)
    counts = Counter((each.op, each.kept, each.reason) for lowering in lowerings for each in lowering.decisions)
    return Explanation(
        choice,
        {other: _why_not(other, choice, chosen, mine, host) for other in host.backends if other != choice.backend},
        tuple(Verdict(op, count, kept, reason) for (op, kept, reason), count in counts.items()),
        memory.notes,
        memory,
        None if chosen is None or chosen.speed is None else chosen.speed.decode_tokens_per_second,
        () if chosen is None else made.faster(chosen),
    )


def explain_unloaded(
    name: str,
    config: ModelConfig,
    host: PluginHost,
    *,
    stored: Mapping[str, Storage] | None = None,
    form: Form | None = None,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    context: int | None = None,
) -> Explanation:
    """What `load` would decide of a model, its weights `stored` so or in another `form`, without one of them.

    Raises OptionError for a form that cannot be made of what is stored, or a context that is too long, and what
    `choose` and a backend do that cannot be used.
    """
    if form is not None and any(storage.packed for storage in (stored or {}).values()):
        raise OptionError("the model is quantised already", where=name, hint="Leave out --weights")
    longest = config.max_position_embeddings
    context = min(DEFAULT_CONTEXT, longest) if context is None else context
    if not 1 <= context <= longest:
        raise OptionError(
            "max_context is not possible", expected=f"1 to {longest}, the model's longest context", found=context
        )
    storages = stored if form is None else form.storages(config)
    builds: dict[Choice, tuple[Build, Limits]] = {}

    def attempt(choice: Choice) -> None:
        target, limits = Target((choice.device,), choice.dtype), Limits(context, 1, batch_tokens(choice.device))
        with blame(choice.backend):
            chosen = host.backend(choice.backend)
            held = storages
            if form is not None and form.quantization is not None:
                layout = form.quantization.taken(lambda storage: chosen.accepts(storage, target)).layout
                held = {key: storage.laid_out(layout) for key, storage in form.storages(config).items()}
            built = build(config, chosen, target, held)
            check_memory(built.bill(limits), None)
        builds[choice] = built, limits

    choice = choose(
        host, backend=backend, device=device, dtype=dtype, stored=config.dtype, attempt=attempt, model=config,
        storages=storages,
    )  # fmt: skip
    built, limits = builds[choice]
    bill = built.bill(limits)
    return explain(choice, config, built.lowerings.values(), bill, limits, host, stored=storages, name=name)


def _device(choice: Choice) -> Device:
    kind, _, index = choice.device.partition(":")
    if kind == "cpu":
        return this_machine()
    cards = [card for card in these_gpus() if card.kind == kind]
    return cards[int(index or 0)] if int(index or 0) < len(cards) else usual_device(kind)


def _why_not(name: str, choice: Choice, chosen: Candidate | None, mine: list[Candidate], host: PluginHost) -> str:
    """Why a backend was not chosen: what was said when it was tried, or what its planner predicts."""
    for text in choice.passed_over:
        for start in (f"{name}: ", f"{name} "):
            if text.startswith(start):
                return text.removeprefix(start)
    if (missing := host.missing(name)) is not None:
        return f"{missing}: {host.info(name).hint}"
    kinds = host.info(name).dtypes
    if choice.device.partition(":")[0] not in kinds:
        return f"it runs on {' and '.join(kinds)} alone"
    other = next((each for each in mine if each.backend == name), None)
    if other is None or chosen is None:
        return "it is used when it is asked for"
    reason = passed_over(other, chosen)
    return f"{choice.backend} was asked for; {reason}" if choice.reason == "asked for" else reason
