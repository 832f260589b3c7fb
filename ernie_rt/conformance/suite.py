"""The suite: checks by level, each of which any backend can be put through."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from ernie_rt.conformance import trained
from ernie_rt.conformance.cases import OpCase, model_cases, op_cases
from ernie_rt.conformance.declared import Deviation, Expectations
from ernie_rt.conformance.drift import Contender, Drift, compare
from ernie_rt.conformance.goldens import KINDS, Text, noise_of
from ernie_rt.conformance.invariants import INVARIANTS, Setting
from ernie_rt.conformance.judge import Judge, Verdict
from ernie_rt.conformance.metadata import METADATA
from ernie_rt.conformance.models import Specimen
from ernie_rt.conformance.ops import measure_op
from ernie_rt.conformance.report import BAD, UNPROMISED, Report, Result, Status
from ernie_rt.conformance.sampler import ROWS, SamplerCase, measure_sampler, sampler_cases
from ernie_rt.conformance.seeing import SEEING
from ernie_rt.conformance.storage import Quantized, parse_storage, planned
from ernie_rt.conformance.subject import Outcome, Skip, Subject
from ernie_rt.conformance.trained import MORE, Trained
from ernie_rt.errors import ConformanceError, OptionError
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import DType
from ernie_rt.host import PluginHost
from ernie_rt.location import locate
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import as_stored
from ernie_rt.modeling.graphs import build_graphs, weights_of
from ernie_rt.weights.source import WeightSource

LEVELS: Final = ("L0", "L1", "L2", "L3", "L4", "L5")
"""Metadata; each op; micro-models; invariants; logits and tokens of trained weights."""
ABOUT_DEMO: Final = ("L4", "L5")
DRIFT_PROMPT: Final = "Once there was a white cat. One day it"
Measure = Callable[[Setting, Sequence[Text], DType | None], Outcome]
INVARIANT_MODELS: Final[Mapping[str, Collection[str]]] = {
    "dense": INVARIANTS,
    "moe": INVARIANTS,
    "vl": (*INVARIANTS, *SEEING),
    "large-dense": ("chunks", "lean"),
    "large-moe": ("chunks", "lean"),
}
"""The micro-models of level 3, each with its invariants."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to check; `str(check)` is its name, such as `L1/rope/heads-of-4`."""

    name: str
    needs: tuple[str, ...]
    suite: Suite
    measure: Callable[[float], Outcome]

    def __str__(self) -> str:
        return self.name

    def run(self) -> Result:
        """Check it; whatever the backend raises is a failure."""
        return self.suite.settle(self)

    def verify(self) -> Result:
        """Check it and raise ConformanceError when it fails; what is skipped, or fails as expected, is returned."""
        result = self.run()
        if result.status in BAD:
            raise ConformanceError(
                result.reason or "it failed",
                where=self.name,
                expected="a failure, as declared" if result.status == "xpassed" else None,
                hint=f"`ernie-rt conform {self.suite.backend} --level {result.level}` shows the figures",
            )
        return result


class Suite:
    """The checks of one backend, on one device, in one dtype.

    With `model`, a checkpoint takes the place of the micro-models, and there are no L4 and L5. `storage` says how
    weights are stored, as `ernie-rt conform --storage` does. `full` has at least 16,000 positions teacher-forced, in
    place of several hundred. `expectations` take the place of what the backend declares in its own file.
    """

    def __init__(
        self,
        backend: str,
        host: PluginHost | None = None,
        device: str = "auto",
        dtype: str = "auto",
        storage: str = "plain",
        full: bool = False,
        expectations: Expectations | Path | None = None,
        model: str | Path | None = None,
    ) -> None:
        """Imports no backend. OptionError for what there is not, FileFormatError for impossible expectations."""
        self._quantization = parse_storage(storage)
        self.backend = backend
        self.device = device
        self.dtype = dtype
        self.storage = storage
        self.full = full
        self._host = host or PluginHost()
        self.info = self._host.info(backend)
        if isinstance(expectations, Path):
            expectations = Expectations.read(expectations)
        self.expectations = Expectations.of(self.info) if expectations is None else expectations
        self._located = None if model is None else locate(model)
        self._name = "" if model is None else Path(model).name or str(model)
        self._judges: dict[str, Judge] = {}
        self._verdicts: dict[tuple[str, float], Verdict] = {}
        self._sources: dict[str, Quantized] = {}
        self._models_made: dict[bool, list[Specimen]] = {}

    @cached_property
    def subject(self) -> Subject:
        """The backend itself, imported on first use; raises what keeps it from being used."""
        return Subject.of(self._host, self.backend, self.device, self.dtype, self._quantization)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that there are: with `model`, those that are about it."""
        return LEVELS if self._located is None else tuple(level for level in LEVELS if level not in ABOUT_DEMO)

    def checks(self, levels: Iterable[str] | None = None) -> tuple[Check, ...]:
        """The checks of these levels, in order; of all when not given. Imports no backend."""
        wanted = tuple(self.levels if levels is None else levels)
        unknown = [level for level in wanted if level not in self.levels]
        if unknown:
            hint = "L4 and L5 are about the demo model: leave `model` out" if unknown[0] in ABOUT_DEMO else None
            raise OptionError(f"no level {unknown[0]!r}", expected=f"some of {', '.join(self.levels)}", hint=hint)
        makers: dict[str, Callable[[], list[Check]]] = {
            "L0": self._metadata, "L1": self._ops, "L2": self._models, "L3": self._invariants,
            "L4": lambda: self._golden("L4", ("logits", "router"), trained.logits),
            "L5": lambda: self._golden("L5", ("greedy",), trained.greedy),
        }  # fmt: skip
        return tuple(check for level in LEVELS if level in wanted for check in makers[level]())

    def run(
        self, levels: Iterable[str] | None = None, progress: Callable[[Result, int, int], None] | None = None
    ) -> Report:
        """Run all checks of these levels; `progress` is told each result, its number, and how many there are."""
        checks = self.checks(levels)
        results: list[Result] = []
        for check in checks:
            results.append(check.run())
            if progress is not None:
                progress(results[-1], len(results), len(checks))
        subject = self.subject
        about = {
            "backend": self.backend,
            "summary": self.info.summary,
            "versions": list(self._host.versions(self.backend)),
            "device": subject.target.device,
            "dtype": subject.target.dtype,
            "storage": self.storage,
            "accepts": self._accepted(),
            "setting": "full" if self.full else "quick",
            "model": self._name or None,
            "numerics": asdict(subject.numerics.default)
            | {"ops": {name: asdict(op) for name, op in subject.numerics.ops.items()}},
            "features": asdict(self.expectations.features),
            "declared": {
                kind: [asdict(entry) for entry in getattr(self.expectations, kind)]
                for kind in ("quirks", "xfails", "skips")
            },
        }
        return Report(about, tuple(results))

    def drift(self, prompt: str = DRIFT_PROMPT) -> Drift:
        """How far each piece of the backend lies from float64 as the checkpoint, or the demo model, continues a prompt.

        Raises what keeps the backend from it, such as that it promises no models of this kind.
        """
        located = self._located or self._trained.located
        target, stored = self.subject.target, located.weights()
        weights: WeightSource = stored
        if self._quantization is not None:
            config = as_stored(located.config, stored.storages)
            stored.close()
            weights = Quantized(located.weights, self._quantization, weights_of(build_graphs(config)).values())
        sides = Contender(self.backend, target.device, target.dtype), Contender("reference")
        ids = located.tokenizer.encode(prompt)
        return compare(located, *sides, ids, max_new_tokens=8, weights=weights, host=self._host)

    def _accepted(self) -> dict[str, bool]:
        """Of the storages that weights have, whether the backend takes them as they are."""
        if self._quantization is None:
            return {}
        models = [build_graphs(specimen.config) for specimen in self._specimens(False)]
        storages = (planned(self._quantization, weight) for model in models for weight in weights_of(model).values())
        return {str(storage): self.subject.accepts(storage) for storage in storages if storage.packed}

    def settle(self, check: Check) -> Result:
        """Run one check and hold its outcome to what is declared."""
        began = time.perf_counter()

        def result(status: Status, reason: str = "", outcome: Outcome | None = None, because: str = "") -> Result:
            told = outcome or Outcome()
            figures = dict(told.figures)
            if status == "failed" and figures.get("margin", 0) <= 1:
                figures["margin"] = math.inf
            return Result(check.name, status, figures, reason, told.route, because, time.perf_counter() - began)

        lacking = self._lacking(check.needs)
        if lacking:
            reason = f"the backend does not promise {lacking}"
            return result("skipped", reason, because=UNPROMISED + lacking)
        target = self.subject.target

        def declared(entries: tuple[Deviation, ...]) -> Deviation | None:
            return next((e for e in entries if e.covers(check.name, target.dtype, target.device)), None)

        skip, xfail, quirk = (
            declared(e) for e in (self.expectations.skips, self.expectations.xfails, self.expectations.quirks)
        )
        if skip is not None:
            return result("skipped", skip.reason, because=f"declared: {skip.check}")
        try:
            outcome = check.measure(1.0 if quirk is None else quirk.factor)
        except Skip as reason:
            return result("skipped", str(reason))
        except Exception as error:
            outcome = Outcome(problem=f"{type(error).__name__}: {error}"[:400])
        if xfail is not None:
            if outcome.problem:
                return result("xfailed", f"{xfail.reason} ({outcome.problem})", outcome)
            return result("xpassed", f"it passes, though it was declared to fail: {xfail.reason}", outcome)
        return result("failed" if outcome.problem else "passed", outcome.problem, outcome)

    def _check(self, name: str, needs: tuple[str, ...], measure: Callable[[float], Outcome]) -> Check:
        return Check(name, tuple(dict.fromkeys(needs)), self, measure)

    def _metadata(self) -> list[Check]:
        return [self._check(f"L0/{name}", (), lambda _, f=f: f(self.subject)) for name, f in METADATA.items()]  # type: ignore[misc]

    def _ops(self) -> list[Check]:
        def measure(case: OpCase) -> Callable[[float], Outcome]:
            return lambda factor: measure_op(self.subject, case, factor)

        cases = [case for case in op_cases() if self._quantization is None or self._quantizes(case.graph("float32"))]
        checks = [self._check(f"L1/{case.key}", ("ops", *case.needs), measure(case)) for case in cases]
        return checks + self._sampler()

    def _sampler(self) -> list[Check]:
        """The checks of the sampler that the backend declares to have, if any."""
        declared, cases = self.expectations.sampler, sampler_cases()
        if not declared or self._quantization is not None:
            return []
        rows = -(-ROWS[self.full] // len(cases))

        def measure(case: SamplerCase) -> Callable[[float], Outcome]:
            return lambda _: measure_sampler(self.subject, declared, case, rows)

        return [self._check(f"L1/sampler/{case.name}", (), measure(case)) for case in cases]

    def _quantizes(self, graph: Graph) -> bool:
        """Whether any weight of a graph is stored in another way than plainly."""
        return any(planned(self._quantization, weight).packed for weight in graph.weights)

    def _models(self) -> list[Check]:
        def measure(specimen: Specimen, part: str) -> Callable[[float], Outcome]:
            def judged(factor: float) -> Outcome:
                self._check_lowers(specimen)
                outcome: Outcome = getattr(self._verdict(specimen, factor), part)
                return outcome

            return judged

        return [
            self._check(f"L2/{specimen.name}/{part}", (*specimen.needs, *needs), measure(specimen, part))
            for specimen in self._specimens(self.full)
            for part, needs in (("logits", ()), ("router", ("taps",)), ("greedy", ()))
            if part != "router" or specimen.routers
        ]

    def _invariants(self) -> list[Check]:
        def measure(specimen: Specimen, invariant: Callable[[Setting], Outcome]) -> Callable[[float], Outcome]:
            def judged(factor: float) -> Outcome:
                self._check_lowers(specimen)
                return invariant(self._setting(specimen, factor))

            return judged

        return [
            self._check(f"L3/{specimen.name}/{name}", (*specimen.needs, *needs), measure(specimen, invariant))
            for specimen in self._specimens(False)
            for name, (invariant, needs) in {**INVARIANTS, **(SEEING if specimen.config.sees else {})}.items()
            if self._located is not None or name in INVARIANT_MODELS.get(specimen.name, ())
        ]

    def _golden(self, level: str, parts: tuple[str, ...], measure: Measure) -> list[Check]:
        """The first of `parts`, of texts of each kind; with `full` all of them, of more texts beside the oracle."""

        def stored(kind: str) -> Callable[[float], Outcome]:
            def judged(factor: float) -> Outcome:
                specimen = self._stored(self._trained.specimen(kind))
                self._check_lowers(specimen)
                subject, texts = self.subject, self._trained.goldens.of(kind)
                known = None if self._quantization else noise_of(subject.target.dtype, subject.numerics)
                return measure(self._setting(specimen, factor), texts, known)

            return judged

        def live(part: str) -> Callable[[float], Outcome]:
            def judged(factor: float) -> Outcome:
                specimen = self._stored(self._trained.specimen(MORE))
                self._check_lowers(specimen)
                outcome: Outcome = getattr(self._verdict(specimen, factor), part)
                return outcome

            return judged

        checks = [self._check(f"{level}/{kind}/{parts[0]}", ("moe",), stored(kind)) for kind in KINDS]
        for part in parts if self.full else ():
            needs = ("moe", "taps") if part == "router" else ("moe",)
            checks.append(self._check(f"{level}/{MORE}/{part}", needs, live(part)))
        return checks

    @cached_property
    def _trained(self) -> Trained:
        return Trained.find()

    def _specimens(self, full: bool) -> list[Specimen]:
        """The models, made once, so that their weights are drawn once."""
        if full not in self._models_made:
            self._models_made[full] = self._made(full)
        return self._models_made[full]

    def _made(self, full: bool) -> list[Specimen]:
        located = self._located
        if located is None:
            return [self._stored(Specimen.of_case(case, full)) for case in model_cases()]
        return [self._stored(Specimen.of_checkpoint(self._name, self._config, located.weights, full))]

    @cached_property
    def _config(self) -> ModelConfig:
        """That of the checkpoint, as its weights are stored."""
        assert self._located is not None
        with closing(self._located.weights()) as source:
            return as_stored(self._located.config, source.storages)

    def _stored(self, specimen: Specimen) -> Specimen:
        """A model with its weights quantised, if they are to be; the same for all of its specimens."""
        if self._quantization is None:
            return specimen
        weights = weights_of(build_graphs(specimen.config)).values()
        source = self._sources.setdefault(specimen.name, Quantized(specimen.open, self._quantization, weights))
        return replace(specimen, open=lambda: source)

    def _lacking(self, needs: Iterable[str]) -> str:
        """Those features that are not promised, in words."""
        return ", ".join(need for need in needs if not getattr(self.expectations.features, need))

    def _check_lowers(self, specimen: Specimen) -> None:
        """Raise Skip for a model that the backend refuses, when it runs others of each kind that it promises."""
        refusal = self._refusal(specimen)
        if not refusal:
            return
        promised = [other for other in self._specimens(False) if not self._lacking(other.needs)]
        if all(
            any(kind in _kinds(other) and not self._refusal(other) for other in promised) for kind in _kinds(specimen)
        ):
            raise Skip(f"it does not run this model: {refusal}")

    def _refusal(self, specimen: Specimen) -> str:
        graphs = build_graphs(specimen.config, self.subject.target.dtype).values()
        return self.subject.refusal(node for graph in graphs for node in self.subject.stored(graph).nodes)

    def _setting(self, specimen: Specimen, factor: float) -> Setting:
        features = self.expectations.features
        judge = self._judges.setdefault(specimen.name, Judge(self.subject, specimen))
        taps = features.taps and bool(specimen.routers)
        return Setting(self.subject, specimen, judge, features.batches, taps, factor, self.full)

    def _verdict(self, specimen: Specimen, factor: float) -> Verdict:
        """A model's verdict, which several checks read."""
        key = specimen.name, factor
        if key not in self._verdicts:
            self._verdicts[key] = self._setting(specimen, factor).verdict()
        return self._verdicts[key]


def _kinds(specimen: Specimen) -> set[str]:
    return {"moe" if specimen.routers else "dense", *specimen.needs}
