"""What is continued or answered: ids, and the pictures and videos that they show."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from ernie_rt.errors import PromptError
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.runtime.inputs import POSITIONS, PerToken
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.sequence import Request
from ernie_rt.text.media import Media
from ernie_rt.text.media_reader import Placed
from ernie_rt.vision.positions import rope_positions

Prompt: TypeAlias = str | Iterable[int] | Sequence[str | Mapping[str, Any] | Media]
"""A text, token ids, or the parts of a text with pictures and videos."""


def check_ids(config: ModelConfig, ids: Iterable[int], items: Sequence[Placed] = ()) -> tuple[int, ...]:
    """The ids as Python ints, each within the vocabulary; those that stand for parts of pictures are of `items`."""
    if isinstance(ids, bytes | bytearray):
        raise PromptError("bytes are no token ids", hint="Decode them into text")
    try:
        numbers = tuple(-1 if isinstance(id, bool) else operator.index(id) for id in ids)
    except TypeError as error:
        raise PromptError("token ids must be integers", found=str(error)) from None
    sees = config.sees
    for number in numbers:
        if not 0 <= number < config.vocab_size:
            raise PromptError(
                "a token id outside the vocabulary", expected=f"0 to {config.vocab_size - 1}", found=number
            )
        if number >= config.text_vocab_size and sees is None:
            raise PromptError(
                "a token of pictures, and of the model the text alone is run",
                expected=f"0 to {config.text_vocab_size - 1}",
                found=number,
                hint="Load it without text_only",
            )
    if sees is not None:
        placeholders = {sees.image_token_id, sees.video_token_id}
        written = [place for place, number in enumerate(numbers) if number in placeholders]
        if written != [place for start, item in items for place in range(start, start + item.tokens)]:
            raise PromptError(
                "ids that stand for parts of a picture, without it",
                found=f"{len(written)} of {numbers[written[0]]}" if written else None,
                hint="Give the picture as a part of a message, or of the prompt",
            )
    return numbers


def has_parts(prompt: Prompt) -> bool:
    """Whether a prompt has parts, and is neither text nor ids, of which there may be many."""
    return isinstance(prompt, list | tuple) and any(
        type(part) is not int and isinstance(part, Mapping | Media) for part in prompt
    )


def showing(request: Request, items: Sequence[Placed]) -> Request:
    """A request that shows pictures and videos at these places, and whose positions follow from that."""
    if not items:
        return request
    places = rope_positions(len(request.ids), [(start, item.merged) for start, item in items])
    shown = tuple(PlacedItem(start, item) for start, item in items)
    return replace(request, items=shown, inputs={POSITIONS: PerToken(places, "count")})
