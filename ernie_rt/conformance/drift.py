"""Two backends on one prompt: where their paths part, which piece is wrong, and whether it is a tie or a bug."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ernie_rt.choice import choose
from ernie_rt.conformance.features import fed
from ernie_rt.conformance.metrics import TIE_LIMIT, agreed
from ernie_rt.conformance.replay import LANES, Flip, Piece, Replay, replay
from ernie_rt.conformance.rounding import EPSILON
from ernie_rt.conformance.trace import Trace, most_tokens, trace
from ernie_rt.contract.protocols import MAX_PATCHES
from ernie_rt.contract.step import Step
from ernie_rt.errors import OptionError, PromptError
from ernie_rt.files import Progress
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import DType
from ernie_rt.host import PluginHost
from ernie_rt.location import Located
from ernie_rt.modeling.graphs import VISION
from ernie_rt.runtime.inputs import POSITIONS, PerToken
from ernie_rt.runtime.items import FEATURES, PATCHES, PlacedItem
from ernie_rt.runtime.sequence import Request
from ernie_rt.vision.item import Item
from ernie_rt.vision.positions import rope_positions
from ernie_rt.weights.source import WeightSource

Array = npt.NDArray[Any]

Verdict = Literal["same", "tie", "bug"]
Placed = tuple[int, Item]


@dataclass(frozen=True, slots=True)
class Contender:
    """A backend to compare, with its device and dtype, or "auto"."""

    backend: str
    device: str = "auto"
    dtype: str = "auto"

    @classmethod
    def parse(cls, text: str) -> Contender:
        """Read `BACKEND[@DEVICE][:DTYPE]`, such as `eager@cuda:1:bfloat16`; OptionError for anything else."""
        match = re.fullmatch(r"([\w.-]+)(?:@([a-z]+(?::\d+)?))?(?::([a-z]\w*))?", text, re.ASCII)
        if match is None:
            raise OptionError(
                f"{text[:80]!a} names no backend",
                expected="BACKEND[@DEVICE][:DTYPE], such as eager, eager:float32 or eager@cuda:bfloat16",
            )
        return cls(match[1], match[2] or "auto", match[3] or "auto")


@dataclass(frozen=True, slots=True)
class Side:
    """What one backend did: its greedy tokens, its pieces in the order in which they run, the experts that flipped, and
    the `hidden` ones, which no tap shows and which may have.

    `sampling` says which token it chose against its own logits; empty when it chose none such.
    """

    backend: str
    device: str
    dtype: DType
    tokens: tuple[int, ...]
    pieces: tuple[Piece, ...]
    flips: tuple[Flip, ...]
    sampling: str
    hidden: tuple[Flip, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.backend}@{self.device}:{self.dtype}"

    @property
    def wrong(self) -> Piece | None:
        """The first piece that is wrong by itself."""
        return next((piece for piece in self.pieces if piece.wrong), None)


@dataclass(frozen=True, slots=True)
class Split:
    """Where the greedy paths part: the place in the answer, and what A and B chose there.

    `best` are the oracle's best two, `margin` apart. For each side, `behind` is how far below its best the oracle has
    that side's choice, `noise` what rounding does to its best logits there (rms), and `excused` whether that, or an
    expert flipped before, explains the choice.
    """

    index: int
    tokens: tuple[int, int]
    best: tuple[int, int]
    margin: float
    behind: tuple[float, float]
    noise: tuple[float, float]
    excused: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class Drift:
    """Two backends compared on one prompt, over `compared` tokens: the prompt, and the answer while they agree."""

    prompt: tuple[int, ...]
    compared: int
    sides: tuple[Side, Side]
    split: Split | None
    verdict: Verdict
    reason: str

    def to_json(self) -> dict[str, Any]:
        """All of it as what JSON has; what is not finite becomes null."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def compare(
    located: Located,
    a: Contender,
    b: Contender,
    prompt: Sequence[int],
    *,
    items: Sequence[Placed] = (),
    max_new_tokens: int = 16,
    threads: int | None = None,
    weights: WeightSource | None = None,
    host: PluginHost | None = None,
    progress: Callable[[str], None] | None = None,
) -> Drift:
    """Continue a prompt greedily on both backends and judge every piece of each against float64.

    Each is looked into as deep as its own pieces, none of which is split for it. The values are those of the run
    itself, the prompt in one step and every further token in its own. `items` are the prompt's pictures and videos,
    each behind the place where it begins: of these the tower is judged as well. `weights` take the place of the
    checkpoint's.
    Raises PromptError for more tokens than `most_tokens`, and what `load` raises for a backend that cannot run.
    """
    config = located.config
    _check_length(len(prompt), max_new_tokens, most_tokens(config))
    host = host or PluginHost()
    choices = [
        choose(host, backend=x.backend, device=x.device, dtype=x.dtype, stored=config.dtype, model=config)
        for x in (a, b)
    ]
    request = Request(
        tuple(prompt), max_new_tokens, frozenset(config.eos_token_id), known_ids=located.known_ids,
        items=tuple(PlacedItem(*placed) for placed in items), inputs=_positions(len(prompt), items),
    )  # fmt: skip
    source = located.weights() if weights is None else weights
    try:
        traces = []
        for choice in choices:
            if progress is not None:
                progress(f"running {choice.backend} on {choice.device} in {choice.dtype}")
            traces.append(trace(config, choice, request, source, host, threads))
        answers = [each.tokens for each in traces]
        common = agreed(*answers)
        compared = len(prompt) + min(common, *(max(len(answer) - 1, 0) for answer in answers))
        ids = (*prompt, *answers[0])[:compared]
        replays = [_replay(each, ids, request, source, progress) for each in traces]
    finally:
        source.close()
    first, second = (_side(each, done, request) for each, done in zip(traces, replays, strict=True))
    split = None
    if common < min(map(len, answers)):
        split = _split(common, first, second, replays, request.known_ids)
    verdict, reason = _judge(first, second, split)
    failure = next((each.failure for each in traces if each.failure is not None), None)
    if failure is not None and verdict != "bug":
        raise failure
    return Drift(tuple(prompt), compared, (first, second), split, verdict, reason)


def _positions(length: int, items: Sequence[Placed]) -> dict[str, PerToken]:
    """What a request brings where it shows something."""
    if not items:
        return {}
    places = rope_positions(length, [(start, item.merged) for start, item in items])
    return {POSITIONS: PerToken(places, "count")}


def _replay(
    run: Trace, ids: Sequence[int], request: Request, source: WeightSource, progress: Callable[[str], None] | None
) -> Replay:
    def told(what: str) -> Progress:
        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(f"judging {what} of {run.choice.backend} in float64: {done} of {total} pieces")

        return tell

    found = {name: (scope, array[: len(ids)]) for name, (scope, array) in run.found.items()}
    step = Step.whole([ids])
    pieces: list[Piece] = []
    features: dict[str, Array] = {}
    if run.vision is not None:
        pieces, lanes = _replay_vision(run, run.vision, request, source, told("what is shown"))
        (hidden,) = run.vision.outputs[0][1].type.shape({"F": 1})[1:]
        given = {lane: fed(step, [request.items], parts, hidden) for lane, parts in lanes.items()}
        features = {lane: each[FEATURES] for lane, each in given.items()}
        grids = [(placed.start, placed.item.merged) for placed in request.items if isinstance(placed.item, Item)]
        places = PerToken(rope_positions(len(request.ids), grids), "count").cut(0, len(ids))
        step = replace(step, extra={POSITIONS: places, **given[LANES[0]]})
    done = replay(
        run.graph, found, source, run.numerics.of, run.choice.dtype, step, told(f"{len(ids)} tokens"), features
    )
    done.pieces[:0] = pieces
    return done


def _replay_vision(
    run: Trace, vision: Graph, request: Request, source: WeightSource, progress: Progress
) -> tuple[list[Piece], dict[str, list[Array]]]:
    """The pieces of tower and resampler, of each the worst of all steps, and what each lane makes of every item."""
    seen = {each.inputs[PATCHES].tobytes(): each for each in run.seen}
    done: dict[bytes, Replay] = {}
    lanes: dict[str, list[Array]] = {lane: [] for lane in LANES}
    for placed in request.items:
        parts: list[Replay] = []
        for piece in placed.item.pieces(MAX_PATCHES):
            key = piece[PATCHES].tobytes()
            if key not in done:
                step = Step.without_tokens(VISION, piece)
                found = seen[key].found if key in seen else {}
                done[key] = replay(vision, found, source, run.numerics.of, run.choice.dtype, step, progress)
            parts.append(done[key])
        for lane, features in lanes.items():
            features.append(np.concatenate([part.lanes[lane] for part in parts]))
    worst: dict[str, Piece] = {}
    for each in (piece for replayed in done.values() for piece in replayed.pieces):
        if each.scope not in worst or not each.own <= worst[each.scope].own:
            worst[each.scope] = each
    return list(worst.values()), lanes


def _side(run: Trace, done: Replay, request: Request) -> Side:
    choice = run.choice
    sampling = ""
    for place, token in enumerate(run.tokens):
        row = run.logits[len(request.ids) - 1 + place]
        best = int(row[: request.known_ids].argmax())
        # The head may round otherwise when it is asked for one row.
        if row[best] - row[token] > TIE_LIMIT * done.noise and not sampling:
            sampling = f"token {place} of the answer is {token}, but its own logits are largest at {best}"
    return Side(
        choice.backend, choice.device, choice.dtype, run.tokens, tuple(done.pieces), tuple(done.flips),
        sampling, tuple(done.hidden),
    )  # fmt: skip


def _split(index: int, a: Side, b: Side, replays: Sequence[Replay], known: int | None) -> Split:
    logits = replays[0].logits
    first, second = (int(id) for id in np.argsort(-logits[:known], kind="stable")[:2])
    tokens = (a.tokens[index], b.tokens[index])
    behind = [float(logits[first] - logits[token]) for token in tokens]
    excused = [
        below <= TIE_LIMIT * done.noise or bool(done.flips or done.hidden)
        for below, done in zip(behind, replays, strict=True)
    ]
    return Split(
        index=index,
        tokens=tokens,
        best=(first, second),
        margin=float(logits[first] - logits[second]),
        behind=(behind[0], behind[1]),
        noise=(replays[0].noise, replays[1].noise),
        excused=(excused[0], excused[1]),
    )


def _judge(a: Side, b: Side, split: Split | None) -> tuple[Verdict, str]:
    sides = {f"A ({a.name})": a, f"B ({b.name})": b}
    bugs = [f"{name}: {side.wrong.scope}: {side.wrong.finding}" for name, side in sides.items() if side.wrong]
    bugs = bugs or [f"{name}: sampling: {side.sampling}" for name, side in sides.items() if side.sampling]
    if bugs:
        return "bug", "; ".join(bugs)
    if split is None:
        coarse = max(a.dtype, b.dtype, key=lambda dtype: EPSILON[dtype])
        reason = "the same tokens, and every piece of both is within the noise of its own rounding"
        if EPSILON[coarse] > EPSILON["float32"]:
            backend = next(side.backend for side in (a, b) if side.dtype == coarse)
            reason += (
                f" ({coarse} tells 1 from {1 + EPSILON[coarse]:g}: a smaller mistake may show in {backend}:float32)"
            )
        return "same", reason
    for (name, side), behind, noise, excused in zip(
        sides.items(), split.behind, split.noise, split.excused, strict=True
    ):
        if not excused:
            worst = max(side.pieces, key=lambda piece: piece.own)
            return "bug", (
                f"{name}: its choice is {behind:.2g} below the oracle's best, {behind / noise:.2g} times the noise of "
                f"its logits; no piece is wrong by itself, and {worst.scope} adds most, {worst.own:.2g} times its noise"
            )
    near = f"the oracle's best two lie {split.margin:.2g} apart"
    for side, behind, noise in zip((a, b), split.behind, split.noise, strict=True):
        if behind > TIE_LIMIT * noise:
            flip = (*side.flips, *side.hidden)[0]
            return "tie", (
                f"{near}; a router tie came before: {flip.scope}, token {flip.token}, a gap of {flip.gap:.2g} between "
                f"experts where the scores had drifted by {flip.noise:.2g}"
            )
    return "tie", f"{near}, and rounding moves the logits by {max(split.noise):.2g}"


def _check_length(prompt: int, new: int, limit: int) -> None:
    if prompt == 0:
        raise PromptError("the prompt is empty", hint="Give at least one token")
    if prompt + new > limit:
        raise PromptError(
            "prompt and answer are too long to compare, since every value of every token is kept",
            expected=f"at most {limit} tokens",
            found=f"{prompt} of prompt and {new} new",
            hint="Shorten the prompt, or lower --max-new-tokens",
        )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
