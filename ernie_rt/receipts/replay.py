"""Make the answer of a receipt again, and say whether it is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ernie_rt.conformance.metrics import agreed
from ernie_rt.errors import FileFormatError
from ernie_rt.files import Progress
from ernie_rt.generation.options import check_options
from ernie_rt.generation.stream import Generation
from ernie_rt.host import PluginHost
from ernie_rt.receipts.receipt import TOP, Chosen, Ran, Receipt
from ernie_rt.receipts.ties import Noise, noise_after, within
from ernie_rt.sampling.phases import Fixed
from ernie_rt.sampling.state import SamplerState
from ernie_rt.session import Model
from ernie_rt.text.chat import ChatPrompt
from ernie_rt.text.media_reader import Placed
from ernie_rt.weights.source import StoredSource

Verdict = Literal["identical", "tie", "different", "not comparable"]


@dataclass(frozen=True, slots=True)
class Parting:
    """The first token that differs: its `place` in the answer, and what each side chose there, the receipt's first.

    `margins` say by how much each side preferred its token to which other. `noise` is what rounding does to each side's
    logits there (rms), and `near` how far apart two that are compared may be for that to be a tie, in the same units as
    the margins; None where it was not judged.
    """

    place: int
    chosen: tuple[Chosen, Chosen | None]
    noise: tuple[float, float] | None = None
    near: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Apart:
    """How far the log probabilities of the receipt's own tokens are from the receipt's, over the whole answer.

    That is the mean and the largest distance, and the `place` of that; `top1` is at what share of the places both have
    the same likeliest token.
    """

    tokens: int
    mean: float
    largest: float
    place: int
    top1: float


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a receipt: the verdict and why, who answered, and what it chose."""

    verdict: Verdict
    reason: str
    ran: Ran
    ids: tuple[int, ...] = ()
    parting: Parting | None = None
    apart: Apart | None = None

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = asdict(self)
        return plain


def check_model(receipt: Receipt, model: Model) -> None:
    """FileFormatError where the receipt names ids that the model does not have."""
    beside = [id for chosen in receipt.answer for id, _ in (*chosen.top, chosen.runner_up or (0, 0.0))]
    for ids, size in (
        ((*receipt.prompt, *beside), model.config.vocab_size),
        (receipt.ids, model.tokenizer.vocab_size),  # others are never chosen
    ):
        if max(ids) >= size:
            raise FileFormatError(
                "a receipt with ids that the model does not have", expected=f"below {size}", found=max(ids)
            )


def replay(
    receipt: Receipt,
    model: Model,
    ran: Ran,
    open_weights: Callable[[], StoredSource],
    *,
    items: Sequence[Placed] = (),
    host: PluginHost | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Replayed:
    """Answer a receipt's prompt by its options on `model`, whose identity is the receipt's, and compare.

    `ran` says what the model runs on. Where a token differs, `open_weights` gives the weights for the float64 oracle,
    and the receipt's answer is forced on the model, token by token. `progress` is told of tokens of the answer, `note`
    what is done after it. `items` are the receipt's pictures and videos, as `find_again` gives them.
    """
    check_model(receipt, model)
    options = receipt.options | {"max_new_tokens": len(receipt.ids)}
    options |= {"logprobs": TOP, "margins": True}
    stream = model.chat(ChatPrompt(receipt.prompt, items=tuple(items)), stream=True, **options)
    for number, _ in enumerate(stream, 1):
        if progress is not None:
            progress(number, len(receipt.ids))
    answer = stream.generation
    place = agreed(receipt.ids, answer.ids)
    if place == len(receipt.ids):
        apart = _apart(receipt, model, items, answer, place)
        if untrue := _untrue(receipt, answer):
            return Replayed("different", f"the same {place} tokens, but {untrue}", ran, answer.ids, None, apart)
        return Replayed("identical", f"the same {place} tokens", ran, answer.ids, None, apart)
    note(f"token {place} differs: judging it in float64")
    source = open_weights()
    try:
        sides, before = (receipt.ran, ran), (*receipt.prompt, *receipt.ids[:place])
        noises = noise_after(model.config, source, sides, before, host or PluginHost(), items)
    finally:
        source.close()
    note("forcing the receipt's answer")
    apart = _apart(receipt, model, items, answer, place)
    chosen = receipt.answer[place], _chosen(answer, place)
    if noises is None:
        reason = "the tokens before it are too many to judge whether that is a tie"
        return Replayed("different", reason, ran, answer.ids, Parting(place, chosen), apart)
    scale = receipt.options["temperature"] or 1.0
    rms, near = ((a / scale, b / scale) for a, b in ((n.rms for n in noises), (n.near for n in noises)))
    verdict, reason = _verdict(receipt, model, place, chosen, noises)
    return Replayed(verdict, reason, ran, answer.ids, Parting(place, chosen, rms, near), apart)


def _untrue(receipt: Receipt, answer: Generation) -> str:
    """What a receipt says of its tokens that they do not bear out: how they end, and what they read."""
    full = len(receipt.ids) == receipt.options["max_new_tokens"]
    if receipt.finish == "length" and not full:
        return f"the receipt says that they are as many as were asked for, {receipt.options['max_new_tokens']}"
    if receipt.finish != "cancelled" and receipt.finish != answer.finish:
        return f"the receipt says that they end by {receipt.finish!r}, which is {answer.finish!r} here"
    if receipt.text is not None and receipt.text.get("answer", "") not in answer.text:
        return "the receipt's text is not theirs"
    return ""


def _verdict(
    receipt: Receipt, model: Model, place: int, chosen: tuple[Chosen, Chosen | None], noises: Sequence[Noise]
) -> tuple[Verdict, str]:
    names = "the receipt's", "this run's"
    if chosen[1] is None:
        return "different", f"this run ended after {place} tokens"
    state = _state(receipt, model, place)

    def beyond(noises: Sequence[Noise]) -> list[int]:
        return [
            side
            for side, (noise, one) in enumerate(zip(noises, chosen, strict=True))
            if one is not None and not within(noise, state, one.id)
        ]

    sides = beyond(noises)
    if not sides:
        return "tie", "both tokens are within what rounding decides"
    if farther := beyond([noise.behind_router for noise in noises]):
        return "different", f"{names[farther[0]]} token is farther from the oracle's than rounding explains"
    router = noises[sides[0]].router
    return "tie", f"a router tie came before, behind which logits may differ by more: {router}"


def _state(receipt: Receipt, model: Model, place: int) -> SamplerState:
    """The sampler's state where the paths part, which is the same on both sides."""
    checked = check_options((), model.config.vocab_size, **receipt.options)
    state = SamplerState(checked.sampling, receipt.prompt, checked.stop_ids, model.located.known_ids)
    for id in receipt.ids[:place]:
        state.accept(id)
    return state


def _chosen(answer: Generation, place: int) -> Chosen | None:
    if place >= len(answer.ids):
        return None
    told = answer.logprobs[place]
    return Chosen(answer.ids[place], told.chosen, told.top, told.runner_up)


def _apart(receipt: Receipt, model: Model, items: Sequence[Placed], answer: Generation, common: int) -> Apart:
    """Beside the answer as far as it is the same, and from there on beside the receipt's tokens, forced."""
    told = list(answer.logprobs[:common])
    if common < len(receipt.ids):
        rest = ChatPrompt((*receipt.prompt, *receipt.ids[:common]), items=tuple(items))
        told += model.chat(
            rest, constraint=Fixed(receipt.ids[common:]), ignore_eos=True, stop_ids=(), stop=(), temperature=0.0,
            logprobs=1, max_new_tokens=len(receipt.ids) - common,
        ).logprobs  # fmt: skip
    distances = np.abs([one.chosen - other.logprob for one, other in zip(told, receipt.answer, strict=True)])
    same = [
        one.top[:1] and one.top[0][0] == other.top[0][0]
        for one, other in zip(told, receipt.answer, strict=True)
        if other.top
    ]
    place = int(distances.argmax())
    return Apart(
        len(distances), float(distances.mean()), float(distances[place]), place, float(np.mean(same)) if same else 1.0
    )
