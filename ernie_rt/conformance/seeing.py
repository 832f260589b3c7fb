"""Level 3 of models that see: what must not change what they see, nor what they say without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.invariants import Setting
from ernie_rt.conformance.judge import Judge
from ernie_rt.conformance.metrics import graph_figures
from ernie_rt.conformance.models import Run, drive
from ernie_rt.conformance.pictures import drawn
from ernie_rt.conformance.subject import Outcome, Skip
from ernie_rt.contract.protocols import MAX_PATCHES, Executable
from ernie_rt.contract.step import Step
from ernie_rt.modeling.graphs import VISION
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.items import FEATURES
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.vision.item import Item


def pieces(setting: Setting) -> Outcome:
    """A picture gives what the video gives that shows it twice; a video gives in one step what its pairs of frames give
    one by one."""
    picture, film = drawn("pieces/picture", 1, 2, 3), drawn("pieces/film", 6, 3, 2)
    still = Item.of("video", np.repeat(picture.frames, 2, axis=0))
    pair = 2 * film.grid[1] * film.grid[2]
    found: list[npt.NDArray[Any]] = []

    def encode(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        for item, most in ((picture, MAX_PATCHES), (still, MAX_PATCHES), (film, MAX_PATCHES), (film, pair)):
            for piece in item.pieces(most):
                result = executable.submit(Step.without_tokens(VISION, piece)).result()
                found.append(np.asarray(result.taps[FEATURES], np.float64))
        return drive(engine, executable, requests[:1])

    setting.run(taps=False, drive=encode)
    exact, noisy = (
        np.concatenate(setting.judge.seen([picture, picture, film, film], rounded)) for rounded in (False, True)
    )
    graph = setting.judge.graphs[VISION]
    output, grain = dict(graph.outputs)[FEATURES].type.dtype, setting.subject.grain(graph)
    figures = graph_figures(np.concatenate(found), exact, noisy, output, grain, setting.factor)
    problem = f"features are off by {figures['error']:.3g} of their rms" if not figures["margin"] <= 1 else ""
    return Outcome(figures, problem)


def pictures(setting: Setting) -> Outcome:
    """A picture whose rows are there is not encoded again, and rows of another in its place are not taken for its."""
    longest = max(setting.specimen.prompts, key=len)
    others = replace(setting.specimen, pictures="others")
    problems: list[str] = []

    def again(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
        (first,) = drive(engine, executable, requests)
        steps = engine.stats().vision_steps
        (second,) = drive(engine, executable, requests)
        if not second.reused:
            raise Skip("it keeps no rows that another sequence could use")
        if engine.stats().vision_steps > steps:
            problems.append("a picture is encoded whose rows are in the cache")
        (third,) = drive(engine, executable, [replace(requests[0], **others.shown(longest))])
        if third.reused > requests[0].items[0].start:
            problems.append("rows of another picture are taken")
        return [first, second, third]

    run = setting.run(prompts=(longest,), all_logits=False, taps=False, reuse=True, drive=again)
    same = setting.judge.verdict(Run(run.lowering, run.told[:2]), setting.factor)
    other = Judge(setting.subject, others).verdict(Run(run.lowering, run.told[2:]), setting.factor)
    return Outcome(same.greedy.figures, "; ".join((*problems, *filter(None, (same.problems, other.problems)))))


def text(setting: Setting) -> Outcome:
    """Of text it says what the model says that is left of it without its tower and second pool."""
    specimen = setting.specimen
    assert specimen.config.sees is not None
    first = specimen.config.sees.image_token_id
    prompts = [tuple(id % first for id in ids) for ids in specimen.prompts]
    run = replace(setting, specimen=replace(specimen, new_tokens=1)).run(prompts=prompts, taps=False)
    blind = Judge(setting.subject, replace(specimen, config=specimen.config.text_alone))
    verdict = blind.verdict(run, setting.factor)
    return Outcome(verdict.logits.figures, verdict.problems)


SEEING: Final[Mapping[str, tuple[Callable[[Setting], Outcome], tuple[str, ...]]]] = {
    "pieces": (pieces, ()),
    "pictures": (pictures, ()),
    "text": (text, ()),
}
"""Each with the features that it needs, beside those of the model."""
