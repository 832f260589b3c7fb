"""Levels 4 and 5: the demo model, beside what is stored of it, or beside the oracle where that does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ernie_rt.conformance.goldens import Answers, Goldens, Text, divergence_of, judge_texts
from ernie_rt.conformance.invariants import Setting
from ernie_rt.conformance.models import NEW_TOKENS, Specimen
from ernie_rt.conformance.subject import Outcome
from ernie_rt.graph.types import DType
from ernie_rt.location import Located, locate

BATCH_TOKENS: Final = 256
"""How many tokens a step has: longer texts take several."""
MORE: Final = "more"


@dataclass(frozen=True, slots=True)
class Trained:
    """The demo model and its goldens."""

    goldens: Goldens
    located: Located

    @classmethod
    def find(cls) -> Trained:
        """Raises what keeps the demo model from being found, or from being what the goldens are about."""
        goldens = Goldens.read()
        located = locate(goldens.model)
        assert located.folder is not None
        goldens.check(located.folder)
        return cls(goldens, located)

    def specimen(self, kind: str) -> Specimen:
        """The model with the texts of a kind to be teacher-forced, or with MORE of them, which it also continues."""
        prompts = self.goldens.more if kind == MORE else tuple(text.ids for text in self.goldens.of(kind))
        new = NEW_TOKENS if kind == MORE else 0
        config, weights = self.located.config, self.located.weights
        return Specimen(kind, config, prompts, new, weights, ("moe",), batch_tokens=BATCH_TOKENS)


def logits(setting: Setting, texts: Sequence[Text], noise: DType | None) -> Outcome:
    """The logits of whole texts. The oracle itself judges them where no `noise` is known, and where something would
    have to be excused by experts that the backend can show."""
    run = setting.run(taps=False)
    if noise is not None:
        outcome = judge_texts(texts, run, noise, setting.factor)
        return setting.judged() if setting.taps and outcome.figures["excused"] else outcome
    outcome = setting.judged()
    if setting.subject.quantization is None:
        return outcome
    # What quantising itself has changed is no matter of the backend's arithmetic: a figure, and no verdict.
    return replace(outcome, figures={**outcome.figures, "kl_plain": divergence_of(texts, run)})


def greedy(setting: Setting, texts: Sequence[Text], noise: DType | None) -> Outcome:
    """The greedy answers to texts; what the oracle itself judges is as for `logits`."""
    prompts = tuple(text.ids[: text.prompt] for text in texts)
    new = max(len(text.answer) for text in texts)
    setting = replace(setting, specimen=replace(setting.specimen, prompts=prompts, new_tokens=new))
    if noise is not None:
        answers, longest = Answers(texts), max(len(text.ids) for text in texts)
        run = setting.run(taps=False, all_logits=False, drive=answers.drive, context=longest)
        outcome = answers.judge(run, noise, setting.factor)
        if not (setting.taps and outcome.figures["excused"]):
            return outcome
    verdict = setting.verdict(all_logits=False)
    return Outcome(verdict.greedy.figures, "; ".join(filter(None, (verdict.router.problem, verdict.greedy.problem))))
