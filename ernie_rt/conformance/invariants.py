"""Level 3: what must not change an answer. However tokens come in, beside whom, and after what, each run is held to the
oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from ernie_rt.conformance.cases import words
from ernie_rt.conformance.judge import Judge, Verdict, worse
from ernie_rt.conformance.models import NEW_TOKENS, Prompt, Run, Specimen, drive, run_model
from ernie_rt.conformance.sampler import ROWS, Watched
from ernie_rt.conformance.subject import Around, Outcome, Skip, Subject
from ernie_rt.contract.bases import BackendBase, ExecutableBase
from ernie_rt.contract.protocols import CacheShape, Executable
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.kept_rows import KeptRows, bytes_of_row
from ernie_rt.runtime.row_store import RowStore
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.sampling.params import GREEDY, SamplingParams
from ernie_rt.writing import temporary_folder

STEPS_BEFORE_CANCEL: Final = 4
PREEMPTED: Final = 3
PAGE: Final = 128
PROMPT: Final = 8
DRAWN: Final = 120
"""How long a prompt is from which so many tokens are drawn."""
END: Final = 120
"""How long a prompt is that ends with the context."""
CHUNK: Final = 8
"""How many rows are kept on disk together."""
DISK: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Setting:
    """What an invariant is tried on; `batches` and `taps` as far as the backend promises them. `full` asks for more."""

    subject: Subject
    specimen: Specimen
    judge: Judge
    batches: bool
    taps: bool
    factor: float
    full: bool = False

    @property
    def chunk(self) -> int:
        """Of how many tokens a chunk is: the longest prompt has at least eight."""
        return max(map(len, self.specimen.prompts)) // 8

    def run(self, **options: object) -> Run:
        given: dict[str, object] = {"batches": self.batches, "taps": self.taps} | options
        return run_model(self.subject, self.specimen, **given)  # type: ignore[arg-type]

    def changed(self, request: Request, ids: Prompt) -> Request:
        """The same with other ids, and what these show."""
        return replace(request, ids=ids, **self.specimen.shown(ids))

    def verdict(self, **options: object) -> Verdict:
        """Run it, tapped where that is promised, and judge it. Where taps split pieces, these are also run whole, and
        judged by the experts that the tapped run has shown, if those are right."""
        run = self.run(**options)
        verdict = self.judge.verdict(run, self.factor)
        if self.taps and run.lowering.graph != self.subject.build(self.judge.graph).lowering.graph:
            shown = None if verdict.router.problem else run
            whole = self.judge.verdict(self.run(**options, taps=False), self.factor, shown)
            return Verdict(worse(verdict.logits, whole.logits), verdict.router, worse(verdict.greedy, whole.greedy))
        return verdict

    def judged(self, **options: object) -> Outcome:
        verdict = self.verdict(**options)
        figures = dict(verdict.logits.figures) | {f"router_{k}": v for k, v in verdict.router.figures.items()}
        return Outcome(figures, verdict.problems)


def steps(setting: Setting) -> Outcome:
    """A prompt token by token is the prompt at once."""
    return setting.judged(chunk=1)


def chunks(setting: Setting) -> Outcome:
    """A prompt in chunks is the prompt at once."""
    return setting.judged(chunk=setting.chunk, drive=_longest_first)


def lean(setting: Setting) -> Outcome:
    """What generating asks for: prompts in chunks that end with no logits, then those of the last token alone; or none
    at all of an executable that samples."""
    return setting.judged(chunk=setting.chunk, all_logits=False, drive=_longest_first)


def alone(setting: Setting) -> Outcome:
    """One sequence after another, the longest first, in the rows that the one before has left."""
    prompts = sorted(setting.specimen.prompts, key=len, reverse=True)
    return setting.judged(batches=False, prompts=prompts)


def neighbours(setting: Setting) -> Outcome:
    """A sequence beside others, in another order than that of their coming before."""
    return setting.judged(prompts=setting.specimen.prompts[::-1])


def cancel(setting: Setting) -> Outcome:
    """Sequences that were cancelled halfway leave nothing behind in their rows."""

    def interrupted(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        longest = max(requests, key=lambda request: len(request.ids))
        others = [setting.changed(longest, longest.ids[::-1]) for _ in range(executable.admits.max_sequences)]
        cancelled = [engine.submit(request) for request in others]
        for _ in range(STEPS_BEFORE_CANCEL):
            engine.step()
        for sequence in cancelled:
            engine.cancel(sequence)
        return drive(engine, executable, requests)

    return setting.judged(drive=interrupted)


def preempt(setting: Setting) -> Outcome:
    """Sequences that had to give up their rows, and came back, say what they would have said."""

    def small(executable: Executable) -> Executable:
        if executable.cache.kind == "slots":
            raise Skip("a slot holds a whole sequence: nothing is ever preempted")
        if executable.cache.page_size > PAGE:
            raise Skip(f"pages of {executable.cache.page_size} rows are too large to run out of them soon")
        return _Smaller(executable, PREEMPTED + 1)

    def crowded(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        # Each fills a page but for a few rows, and needs another soon; one page is left for all of them.
        size, vocabulary = executable.cache.page_size, np.uint32(setting.specimen.config.vocab_size)
        prompts = [words(f"{setting.specimen.name}/crowded.{i}", max(1, size - i)) for i in range(PREEMPTED)]
        ids = [tuple((prompt % vocabulary).tolist()) for prompt in prompts]
        return drive(engine, executable, [setting.changed(requests[0], prompt) for prompt in ids])

    return setting.judged(wrap=small, drive=crowded, context=PAGE + NEW_TOKENS)


def reuse(setting: Setting) -> Outcome:
    """A sequence that finds its beginning in rows that an earlier one has left says what it says by itself."""

    def again(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        # The longest prompt goes on from its half, which has ended another way; it comes again while it is answered.
        longest = max(requests, key=lambda request: len(request.ids))
        half = setting.changed(longest, longest.ids[: len(longest.ids) // 2])
        drive(engine, executable, [replace(half, max_new_tokens=3)])
        running = engine.submit(longest)
        while not running.generated and running.finish is None:
            engine.step()
        sequences = [running, *drive(engine, executable, requests)]
        for _ in engine.run(running):
            pass
        if not any(sequence.reused for sequence in sequences):
            raise Skip("it keeps no rows that another sequence could use")
        return sequences

    run = setting.run(all_logits=False, taps=False, drive=again, reuse=True)
    verdict = setting.judge.verdict(run, setting.factor, setting.run() if setting.taps else None)
    return Outcome(verdict.greedy.figures, verdict.problems)


def restart(setting: Setting) -> Outcome:
    """Rows that one executable has computed, and another one takes in from disk, are as good as its own."""
    longest = max(setting.specimen.prompts, key=len)
    found: list[int] = []

    def count(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        sequences = drive(engine, executable, requests)
        found.extend(sequence.reused for sequence in sequences)
        return sequences

    with temporary_folder() as folder:

        def kept(executable: Executable) -> KeptRows:
            row_bytes = bytes_of_row(executable)
            if row_bytes is None or not isinstance(executable, ExecutableBase):
                raise Skip("it hands out no rows of its cache")
            return KeptRows(RowStore(Path(folder), DISK), b"", executable, row_bytes, chunk=CHUNK)

        asked: dict[str, object] = {"all_logits": False, "taps": False, "reuse": True, "kept": kept}
        setting.run(prompts=(longest[: len(longest) * 2 // 3],), **asked)
        run = setting.run(drive=count, **asked)
    verdict = setting.judge.verdict(run, setting.factor, setting.run() if setting.taps else None)
    problems = verdict.problems if max(found) >= CHUNK else "no row was found again"
    return Outcome(verdict.greedy.figures, problems)


def context_end(setting: Setting) -> Outcome:
    """The last positions of the context are as good as the others."""
    specimen = setting.specimen
    length = min(END, specimen.config.max_position_embeddings - specimen.new_tokens)
    ids = tuple((words(f"{specimen.name}/end", length) % np.uint32(specimen.config.vocab_size)).tolist())
    return setting.judged(prompts=(ids,), context=length + specimen.new_tokens - 1)


def reopen(setting: Setting) -> Outcome:
    """An executable goes on when another of the same backend is compiled, run and closed beside it."""

    def beside(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        setting.run()
        return drive(engine, executable, requests)

    return setting.judged(drive=beside)


def tokens(setting: Setting) -> Outcome:
    """What an executable draws by itself, after prompts and word by word, follows from the logits that the same step
    gives: the largest, or with a temperature and a seed what these say."""
    specimen, seen = setting.specimen, []

    def watch(executable: Executable) -> Executable:
        if not executable.ahead:
            raise Skip("it leaves the choice of tokens to the core")
        seen.append(Watched(executable))
        return seen[-1]

    new = min(DRAWN, specimen.config.max_position_embeddings - PROMPT)
    rows = ROWS[setting.full] // 2  # and as many of the other model
    vocabulary = np.uint32(specimen.config.vocab_size)
    prompts = [
        tuple((words(f"{specimen.name}/tokens.{i}", PROMPT) % vocabulary).tolist()) for i in range(-(-rows // new))
    ]
    setting = replace(setting, specimen=replace(specimen, new_tokens=new))
    for half, sampling in enumerate((GREEDY, SamplingParams(temperature=1.0, seed=7))):
        setting.run(prompts=prompts[half::2], taps=False, wrap=watch, sampling=sampling)
    problem = next((watched.problem for watched in seen if watched.problem), "")
    return Outcome({"rows": float(sum(watched.rows for watched in seen))}, problem)


def repeat(setting: Setting) -> Outcome:
    """The same steps twice give the same bits."""

    def twice(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        return drive(engine, executable, requests) + drive(engine, executable, requests)

    told = setting.run(drive=twice, taps=False).told
    half = len(told) // 2
    for place, (first, second) in enumerate(zip(told[:half], told[half:], strict=True)):
        assert first.logits is not None and second.logits is not None
        if first.generated != second.generated or not np.array_equal(first.logits, second.logits):
            off = np.abs(first.logits.astype(np.float64) - second.logits).max()
            return Outcome({"max": float(off)}, f"prompt {place} gives other bits the second time, by {off:.2g}")
    return Outcome()


def bits(setting: Setting) -> Outcome:
    """In deterministic mode a token gives the same, bit by bit, whatever enters with it, in one step or many."""
    subject = setting.subject
    target = replace(subject.target, deterministic=True)
    if not isinstance(subject.backend, BackendBase) or subject.backend.not_deterministic(target) is not None:
        raise Skip("it has no deterministic mode")
    setting = replace(setting, subject=replace(subject, target=target), taps=False)
    expected = {told.ids: told for told in setting.run(batches=False).told}
    runs = setting.run(), setting.run(chunk=setting.chunk), setting.run(prompts=setting.specimen.prompts[::-1], chunk=1)
    for told in (each for run in runs for each in run.told):
        same = expected.get(told.ids)
        if same is None or told.generated != same.generated or not np.array_equal(told.logits, same.logits):  # type: ignore[arg-type]
            return Outcome({}, f"a prompt of {len(told.ids)} tokens gives other bits than it does alone")
    return Outcome()


INVARIANTS: Final[Mapping[str, tuple[Callable[[Setting], Outcome], tuple[str, ...]]]] = {
    "steps": (steps, ()),
    "chunks": (chunks, ()),
    "lean": (lean, ()),
    "alone": (alone, ()),
    "neighbours": (neighbours, ("batches",)),
    "cancel": (cancel, ()),
    "preempt": (preempt, ("batches",)),
    "reuse": (reuse, ()),
    "restart": (restart, ()),
    "context-end": (context_end, ()),
    "reopen": (reopen, ()),
    "tokens": (tokens, ()),
    "repeat": (repeat, ("deterministic",)),
    "bits": (bits, ()),
}
"""Each with the features that it needs."""


def _longest_first(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
    """The longest by itself, so that its chunks are all that a step has; then all of them."""
    longest = max(requests, key=lambda request: len(request.ids))
    return drive(engine, executable, [longest]) + drive(engine, executable, requests)


class _Smaller(Around):
    """An executable that says it has fewer pages than it has."""

    def __init__(self, inner: Executable, pages: int) -> None:
        super().__init__(inner)
        self._pages = pages

    @property
    def cache(self) -> CacheShape:
        return replace(self.inner.cache, pages=self._pages)
