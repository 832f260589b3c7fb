"""Runs of a model beside the oracle: logits given the experts that the run chose, and its choices by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.features import features_of, fed
from ernie_rt.conformance.metrics import MODEL_LIMIT, TIE_LIMIT, Rows, ties
from ernie_rt.conformance.models import MAX_LOGITS, Prompt, Run, Specimen, Told
from ernie_rt.conformance.oracle import Load, Route, Walk, Walked, bad_choice
from ernie_rt.conformance.rounding import EPSILON, growth, multiples
from ernie_rt.conformance.storage import numbers_of
from ernie_rt.conformance.subject import Outcome, Subject
from ernie_rt.contract.step import Step
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import DType, Weight
from ernie_rt.modeling.graphs import MAIN, VISION, build_graphs
from ernie_rt.runtime.inputs import POSITIONS
from ernie_rt.runtime.items import Encodable

Array = npt.NDArray[Any]

TOKENS_AT_ONCE: Final = 512
"""How many tokens the oracle takes at once: its attention looks from each to every other."""
MAX_EXCUSED: Final = 0.25
"""The share of positions that may be off because experts flipped, when a backend does not show them."""


@dataclass(slots=True)
class Verdict:
    """The figures and problems of a run, by subject: logits, router, greedy."""

    logits: Outcome = field(default_factory=Outcome)
    router: Outcome = field(default_factory=Outcome)
    greedy: Outcome = field(default_factory=Outcome)

    @property
    def problems(self) -> str:
        return "; ".join(o.problem for o in (self.logits, self.router, self.greedy) if o.problem)


class Judge:
    """The oracle and the yardstick of one model; what they said once of the same tokens they need not say again."""

    def __init__(self, subject: Subject, specimen: Specimen) -> None:
        self._subject = subject
        self._specimen = specimen
        graphs = build_graphs(specimen.config, subject.target.dtype)
        self.graphs = {name: subject.stored(graph) for name, graph in graphs.items()}
        self._said: dict[tuple[Any, ...], tuple[Walked, Walked, Walked]] = {}

    @property
    def graph(self) -> Graph:
        return self.graphs[MAIN]

    def verdict(self, run: Run, factor: float = 1.0, shown: Run | None = None) -> Verdict:
        """Judge a run: logits beside those of the oracle with the run's own experts, experts beside the free oracle's
        scores, and greedy tokens beside the oracle's best.

        Of a run that does not tell its experts those count that the backend has `shown` on the same tokens: all that
        may differ are close choices.
        """
        likely = {one.ids: one.experts for one in shown.told} if shown is not None else {}
        parts = [self._consult(group, likely) for group in _groups(run.told)]
        told = [one for group in _groups(run.told) for one in group]
        kept = [one.logits for one in told if one.logits is not None]
        exact, noisy = (np.concatenate([p[i].outputs["logits"] for p in parts]) for i in (1, 2))
        router, unclear = self._router(told, parts)
        lengths = [len(one.ids) for one in told]
        activation = self._subject.grain(self.graph)
        output: Any = self.graph.output("logits").type.dtype
        if not kept:
            clear = ~_from_there_on(unclear, lengths)
            return Verdict(Outcome(), router, self._greedy(told, exact, noisy, clear, None))
        found = np.concatenate(kept).astype(np.float64)
        if found.shape != exact.shape:
            return Verdict(Outcome({}, f"logits have the shape {list(found.shape)}, not {list(exact.shape)}"))
        rows, unclear = Rows.of(found, exact, noisy), _from_there_on(unclear, lengths)
        outcome, counted = judge_rows(rows, unclear, output, activation, factor, shown is not None)
        if counted is None:
            return Verdict(outcome)
        return Verdict(outcome, router, self._greedy(told, exact, noisy, counted, found))

    def _consult(
        self, group: list[Told], likely: Mapping[Prompt, Mapping[str, Array]]
    ) -> tuple[Walked, Walked, Walked]:
        """The free oracle, the oracle with the experts that the run tells or, by ids, is `likely` to have chosen, and
        the yardstick with those, on some sequences."""
        experts = [one.experts or likely.get(one.ids, {}) for one in group]
        scopes = self._specimen.routers if all(experts) else ()
        forced = {scope: np.concatenate([each[scope] for each in experts]) for scope in scopes}
        key = (tuple(one.ids for one in group), *(ids.tobytes() for ids in forced.values()))
        if key not in self._said:
            step = Step.whole([one.ids for one in group])
            source = self._specimen.open()
            rows = len(group) * step.page_size
            shown = [self._specimen.shown(one.prompt) for one in group]
            dtype, numerics = self._subject.target.dtype, self._subject.numerics.of

            def load(weight: Weight) -> Array:
                return numbers_of(source, weight, {"P": step.page_size})

            def walk(noisy: bool, choice: Mapping[str, Array]) -> Walked:
                given = replace(step, extra=self._beside(step, shown, load, noisy))
                graph = Walk(self.graph, load, rows, dtype, numerics if noisy else None)
                return graph.run(given.inputs(self.graph), given.bindings(self.graph), choice)

            try:
                free = walk(False, {})
                choice = {scope: route.ids for scope, route in free.routes.items()}
                bad = any(
                    bad_choice(forced[scope], ids.shape, free.routes[scope].scores.shape[-1])
                    for scope, ids in choice.items() if scope in forced
                )  # fmt: skip
                if not bad:
                    choice |= forced
                if sum(one[0].outputs["logits"].size for one in self._said.values()) > MAX_LOGITS // 3:
                    self._said.clear()
                same = all(np.array_equal(ids, free.routes[scope].ids) for scope, ids in choice.items())
                self._said[key] = free, free if same else walk(False, choice), walk(True, choice)
            finally:
                source.close()
        return self._said[key]

    def seen(self, items: Sequence[Encodable], rounded: bool) -> list[Array]:
        """The features of items, of the oracle or, `rounded`, of the yardstick."""
        source = self._specimen.open()
        try:
            return self._seen(items, lambda weight: numbers_of(source, weight, {}), rounded)
        finally:
            source.close()

    def _seen(self, items: Sequence[Encodable], load: Load, rounded: bool) -> list[Array]:
        graph, numerics = self.graphs[VISION], self._subject.numerics.of if rounded else None
        return features_of(graph, items, load, self._subject.target.dtype, numerics)

    def _beside(self, step: Step, shown: Sequence[Mapping[str, Any]], load: Load, rounded: bool) -> dict[str, Array]:
        """What the graph takes in beside ids, of whole sequences that bring what is `shown`."""
        if VISION not in self.graphs:
            return {}
        items = [one["items"] for one in shown]
        features = self._seen([placed.item for each in items for placed in each], load, rounded)
        positions = [one["inputs"][POSITIONS].cut(0, new) for one, new in zip(shown, step.new.tolist(), strict=True)]
        return {POSITIONS: np.concatenate(positions)} | fed(step, items, features, self._specimen.config.hidden_size)

    def _router(self, told: list[Told], parts: list[tuple[Walked, Walked, Walked]]) -> tuple[Outcome, Array]:
        """How the experts agree, and at which tokens a choice was too close to know it when the run does not tell."""
        tokens = sum(len(one.ids) for one in told)
        unclear = np.zeros(tokens, bool)
        agreed, flips, worst, problem = [], 0, 0.0, ""
        allowed = growth(tokens)
        for scope in self._specimen.routers:
            free, exact, noisy = (_joined([p[i].routes[scope] for p in parts]) for i in range(3))
            noise = TIE_LIMIT * exact.noise(noisy)
            if not told[0].experts:
                unclear |= exact.distance() <= noise
                continue
            ids = np.concatenate([one.experts[scope] for one in told])
            problem = problem or bad_choice(ids, free.ids.shape, free.scores.shape[-1])
            if problem:
                break
            agreed.append((np.sort(ids) == np.sort(free.ids)).all(-1))
            gap = exact.gap(ids)
            flips += int((gap > 0).sum())
            token = int((gap / noise).argmax())
            worst = max(worst, float(gap[token] / noise[token]) / allowed)
            if gap[token] > allowed * noise[token] and not problem:
                best = np.argsort(-exact.scores[token], kind="stable")[: ids.shape[1]]
                problem = (
                    f"{scope}, token {token}: experts {ids[token].tolist()}, but {best.tolist()} score better by "
                    f"{gap[token]:.2g}, {TIE_LIMIT * gap[token] / noise[token]:.3g} times the noise"
                )
        if not agreed:
            return Outcome({}, problem), unclear
        figures = {"agreement": float(np.mean(agreed)), "flips": float(flips), "margin": worst}
        return Outcome(figures, problem), unclear

    def _greedy(self, told: list[Told], exact: Array, noisy: Array, clear: Array, found: Array | None) -> Outcome:
        """Whether each token that was chosen is the oracle's best, or nearly; and that of its own logits, if they were
        kept."""
        matches, wrong, start, ties_met, excused = [], "", 0, 0, 0
        for one in told:
            first = start + len(one.ids) - max(len(one.generated) - 1, 0) - 1
            rows = np.arange(first, first + len(one.generated))
            start += len(one.ids)
            if not len(rows):
                continue
            chosen = np.array(one.generated)
            best = exact[rows].argmax(-1) == chosen
            matches.append(len(rows) if best.all() else int((~best).argmax()))
            near = best | ties(exact[rows], noisy[rows], chosen)
            ties_met += int((~best).sum())
            excused += int((~near & ~clear[rows]).sum())
            bad = ~near & clear[rows]
            if found is not None:
                # Logits that were made again, after a sequence had been preempted, may round otherwise.
                bad |= ~ties(found[rows], found[rows] + (noisy - exact)[rows], chosen)
            if bad.any() and not wrong:
                place = int(bad.argmax())
                wrong = (
                    f"after {len(one.ids)} tokens, number {place} of the answer is {chosen[place]}; "
                    f"the oracle's best is {exact[rows[place]].argmax()}"
                ) + ("" if found is None else f", its own {found[rows[place]].argmax()}")
        if not matches:
            return Outcome()
        lengths = [len(one.generated) for one in told]
        if excused > MAX_EXCUSED * sum(lengths) and not wrong:
            wrong = f"{excused} of {sum(lengths)} tokens are not the oracle's best, too many for flipped experts"
        figures = {
            "match": float(np.mean(matches)),
            "match_min": float(min(matches)),
            "length": float(max(lengths)),
            "ties": float(ties_met),
            "excused": float(excused),
        }
        return Outcome(figures, wrong)


def judge_rows(
    rows: Rows, unclear: Array, output: DType, activation: DType, factor: float, shown: bool = False
) -> tuple[Outcome, Array | None]:
    """Judge logits of the dtype `output`, and say which rows of them count; None when too many are off.

    At the rows that are `unclear` other experts may have been chosen, than the oracle's or than those that were
    `shown`: of these, such as need it are excused.
    """
    within = multiples(rows.found, rows.exact, rows.noisy, EPSILON[output]) <= MODEL_LIMIT * factor
    clear = (within & rows.near) | ~unclear
    if clear.mean() < 1 - MAX_EXCUSED:
        off = rows.figures(np.ones_like(clear), output, activation, factor)
        problem = (
            f"{(~clear).mean():.0%} of the positions are off, too many for flipped experts: by {off['error']:.3g} of "
            f"their rms, {off['times']:.3g} times the noise; "
        ) + ("with taps it chose others" if shown else "promise `taps` to be judged by the experts that were chosen")
        return Outcome(off | {"margin": np.inf, "excused": float((~clear).sum())}, problem), None
    figures = rows.figures(clear, output, activation, factor)
    figures["excused"] = float((~clear).sum())
    problem = ""
    if not figures["margin"] <= 1:
        problem = (
            f"logits are off by {figures['error']:.3g} of their rms, {figures['times']:.3g} times the noise "
            f"(allowed {figures['limit']:g} times, and {figures['backstop']:.2g}); "
            f"divergence {figures['kl']:.2g} (allowed {figures['kl_limit']:.2g})"
        )
    near = rows.near | ~clear
    if not near.all() and not problem:
        row = int((~near).argmax())
        problem = f"position {row}: its best token is {rows.chosen[row]}, the oracle's {rows.best[row]}"
    return Outcome(figures, problem), clear


def worse(a: Outcome, b: Outcome) -> Outcome:
    """The one of two outcomes that has the problem or, if both or neither have, that is nearer to its limit."""
    return max(a, b, key=lambda outcome: (bool(outcome.problem), outcome.figures.get("margin", 0.0)))


def _groups(told: Sequence[Told]) -> list[list[Told]]:
    """Sequences that the oracle takes together, in order."""
    groups: list[list[Told]] = []
    tokens = TOKENS_AT_ONCE + 1
    for one in told:
        if tokens + len(one.ids) > TOKENS_AT_ONCE:
            groups.append([])
            tokens = 0
        groups[-1].append(one)
        tokens += len(one.ids)
    return groups


def _joined(routes: list[Route]) -> Route:
    return Route(np.concatenate([r.scores for r in routes]), np.concatenate([r.ids for r in routes]))


def _from_there_on(marked: Array, lengths: list[int]) -> Array:
    """Each sequence's tokens from the first that is marked on: attention carries what it did further."""
    ends = np.cumsum(lengths)
    return np.concatenate([np.logical_or.accumulate(marked[e - n : e]) for e, n in zip(ends, lengths, strict=True)])
