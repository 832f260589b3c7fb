"""Put a backend to a small model whose answers are known, on one device: what the child process of a trial does.

A backend of mixtures of experts runs the demo model, beside what is stored of the float64 reference; another one a
dense micro-model of the conformance suite, beside the reference itself. Weights in blocks, where they are taken as they
are, are those of a micro-model too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import EntryPoint
from typing import Any, Final

from ernie_rt import hooks
from ernie_rt.conformance.cases import model_cases
from ernie_rt.conformance.declared import Expectations
from ernie_rt.conformance.goldens import Answers, judge_texts, noise_of
from ernie_rt.conformance.judge import Judge
from ernie_rt.conformance.models import Run, Specimen, drive, run_model
from ernie_rt.conformance.storage import Quantized, parse_storage
from ernie_rt.conformance.subject import Outcome, Subject
from ernie_rt.conformance.trained import Trained
from ernie_rt.contract.bases import BackendBase, ExecutableBase
from ernie_rt.contract.findings import Executed, Finding
from ernie_rt.contract.protocols import Executable, Target
from ernie_rt.discovery.child import one_line
from ernie_rt.errors import PluginError
from ernie_rt.graph.types import DType
from ernie_rt.host import PluginHost, blame
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request, SequenceState

QUESTIONS: Final = 3
"""How many of the demo model's questions are asked."""
BLOCKS: Final = ("int4/tiled", "int4")
"""Storages of weights in blocks, of which the first that a backend takes is tried."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A model on a device, in one dtype, its weights stored in one way.

    `wrong` says in words what is wrong with its answers, `error` how far its logits are off the reference's, relative
    to their rms, and `noise` by how much rounding alone would have them off. `executed` is what the executable says.
    """

    dtype: DType
    storage: str
    wrong: str = ""
    error: float | None = None
    noise: float | None = None
    seconds: float = 0.0
    executed: Executed | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """A backend on a device, the first that it names when none was asked for; what it says of each kind of device that
    it announces and has none of."""

    device: str
    devices: tuple[str, ...]
    lacking: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    trials: tuple[Trial, ...] = ()


def run(name: str, module: str, device: str) -> dict[str, Any]:
    """What the child answers: a `Tried` as JSON."""
    host = PluginHost(entry_points=False, extra=[EntryPoint(name, module, hooks.NAMESPACE).load()])
    return asdict(attempt(host, name, device))


def unpack(told: dict[str, Any]) -> Tried:
    """A `Tried` out of what the child answered; PluginError for what is none, since a stranger's code ran there."""
    try:
        trials = [Trial(**{**trial, "executed": _executed(trial["executed"])}) for trial in told["trials"]]
        findings = tuple(Finding(**finding) for finding in told["findings"])
        return Tried(told["device"], tuple(told["devices"]), told["lacking"], findings, tuple(trials))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise PluginError("running a small model is answered by something else") from None


def attempt(host: PluginHost, name: str, device: str) -> Tried:
    """Run a backend on a device, or, where `device` is empty, on its first; whatever it raises at first is raised."""
    info, backend = host.info(name), host.backend(name)
    with blame(name):
        devices = tuple(each for each in backend.devices() if each.partition(":")[0] in info.dtypes)
    lacking: dict[str, str] = {}
    if isinstance(backend, BackendBase):
        kinds = info.dtypes.keys() - {each.partition(":")[0] for each in devices}
        lacking = {kind: reason for kind in sorted(kinds) if (reason := backend.lacking(kind)) is not None}
    if device == "" and not devices:
        return Tried("", (), lacking)
    device = device or devices[0]
    offered = info.dtypes[device.partition(":")[0]]
    # The dtype in which the answers are held to most, and that of published checkpoints, or what stands in for it.
    usual: DType = "bfloat16" if "bfloat16" in offered else offered[0]
    dtypes: list[DType] = ["float32", usual] if "float32" in offered else [usual]
    targets = [Target((device,), dtype, watched=True) for dtype in dict.fromkeys(dtypes)]
    findings: list[Finding] = []
    if isinstance(backend, BackendBase):
        with blame(name):
            findings += (finding for target in targets for finding in backend.examine(target))
    trials = [trial for target in targets for trial in _trials(host, name, target)]
    return Tried(device, devices, lacking, tuple(dict.fromkeys(findings)), tuple(trials))


def _trials(host: PluginHost, name: str, target: Target) -> Iterator[Trial]:
    info, backend = host.info(name), host.backend(name)
    with blame(name):
        subject = Subject(info, backend, target, backend.numerics(target))
    if Expectations.of(info).features.moe:
        yield _timed(subject, "plain", _demo)
    else:
        yield _timed(subject, "plain", _dense)
        return
    for storage in BLOCKS:
        quantization = parse_storage(storage)
        planned = replace(subject, quantization=quantization).planned(build_graph(_micro("moe").config, target.dtype))
        packed = {weight.storage for weight in planned.weights if weight.storage.packed}
        if packed and all(map(subject.accepts, packed)):
            yield _timed(replace(subject, quantization=quantization), storage, _blocks)
            return


class _Ran:
    """Requests run to their end on an executable, and what that says of it."""

    def __init__(self) -> None:
        self.executed: Executed | None = None

    def drive(self, engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        sequences = self.run(engine, executable, requests)
        if isinstance(executable, ExecutableBase):
            told = executable.executed()
            self.executed = told and replace(told, pieces=dict(told.pieces))  # whatever mapping a backend hands over
        return sequences

    def run(self, engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        return drive(engine, executable, requests)


class _Asked(_Ran):
    """First whole texts with all their logits; then their prompts alone, to be answered."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def run(self, engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        whole = drive(engine, executable, requests)
        lean = [replace(request, all_logits=False) for request in requests]
        return [*whole, *self._answers.drive(engine, executable, lean)]


def _timed(subject: Subject, storage: str, measure: Any) -> Trial:
    """A trial, whatever becomes of it."""
    began = time.perf_counter()
    try:
        outcome, executed = measure(subject)
        wrong, figures = outcome.problem, outcome.figures
    except Exception as problem:
        wrong, figures, executed = one_line(problem), {}, None
    seconds = time.perf_counter() - began
    return Trial(subject.target.dtype, storage, wrong, figures.get("error"), figures.get("noise"), seconds, executed)


def _demo(subject: Subject) -> tuple[Outcome, Executed | None]:
    trained = Trained.find()
    texts = trained.goldens.of("chat")[:QUESTIONS]
    specimen = replace(trained.specimen("chat"), prompts=tuple(text.ids for text in texts))
    noise = noise_of(subject.target.dtype, subject.numerics)
    if noise is None:
        return _judged(subject, replace(specimen, new_tokens=8))
    answers = Answers(texts)
    asked = _Asked(answers)
    run = run_model(subject, specimen, batches=False, taps=False, drive=asked.drive)
    whole, answered = (Run(run.lowering, told) for told in (run.told[: len(texts)], run.told[len(texts) :]))
    outcome, factor = judge_texts(texts, whole, noise, 1.0), 1.0
    problems = (outcome.problem, answers.judge(answered, noise, factor).problem)
    return replace(outcome, problem="; ".join(filter(None, problems))), asked.executed


def _dense(subject: Subject) -> tuple[Outcome, Executed | None]:
    return _judged(subject, _micro("dense"))


def _blocks(subject: Subject) -> tuple[Outcome, Executed | None]:
    specimen = _micro("moe")
    assert subject.quantization is not None
    source = Quantized(specimen.open, subject.quantization, build_graph(specimen.config).weights)
    return _judged(subject, replace(specimen, open=lambda: source))


def _judged(subject: Subject, specimen: Specimen) -> tuple[Outcome, Executed | None]:
    """Beside the reference itself, by its own experts."""
    ran = _Ran()
    run = run_model(subject, specimen, batches=False, taps=False, drive=ran.drive)
    verdict = Judge(subject, specimen).verdict(run, 1.0)
    return Outcome(verdict.logits.figures, verdict.problems), ran.executed


def _micro(name: str) -> Specimen:
    case = next(case for case in model_cases() if case.name == name)
    return Specimen.of_case(case, False)


def _executed(told: dict[str, Any] | None) -> Executed | None:
    if told is None:
        return None
    return Executed(told["pieces"], tuple(told["notes"]), tuple(Finding(**finding) for finding in told["findings"]))
