"""Pictures and videos of a prompt, read for one model: how many tokens each takes, and where they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from ernie_rt.errors import ContextError, PromptError, TokenizerError
from ernie_rt.modeling.vision_language import PreprocessorConfig, VisionLanguageConfig
from ernie_rt.text.media import Kind, Media
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt.vision.grid import CPU_PIXELS, grid_of, tokens_of
from ernie_rt.vision.image import image_size, load_image
from ernie_rt.vision.item import Item
from ernie_rt.vision.video import load_video

MOST_MEDIA: Final = 64
"""Pictures and videos of one prompt."""

Placed = tuple[int, Item]
"""A picture or video, behind the place in a prompt's ids at which its tokens begin."""


class MediaReader:
    """Reads pictures and videos as one model takes them. What was read of a Media object is kept as long as that is, so
    that a conversation that goes on reads none twice.

    `limits` are the checkpoint's. A picture without a limit of its own is made smaller where it has more than
    `max_pixels`.
    """

    def __init__(self, vision: VisionLanguageConfig, limits: PreprocessorConfig, *, on_cpu: bool) -> None:
        """On a CPU a picture gets no more than 1,024 tokens: more would take longer than most want to wait."""
        self._ids: Mapping[Kind, int] = {"image": vision.image_token_id, "video": vision.video_token_id}
        self._min_pixels = limits.min_pixels
        self.max_pixels = max(limits.min_pixels, min(limits.max_pixels, CPU_PIXELS)) if on_cpu else limits.max_pixels
        self._read: WeakKeyDictionary[Media, Item] = WeakKeyDictionary()

    def placeholders(self, tokenizer: Tokenizer) -> Mapping[Kind, str]:
        """The tokens that stand for parts of a picture, and of a video; TokenizerError where there are none."""
        names = {id: name for name, id in tokenizer.reserved.items()}
        for kind, id in self._ids.items():
            if id not in names:
                raise TokenizerError(
                    f"the tokenizer has no token for parts of {kind}s",
                    expected=f"a special token of id {id}, as config.json says",
                    hint="Download the checkpoint's added_tokens.json and tokenizer_config.json anew, or its "
                    "tokenizer.json: one is missing or of another model",
                )
        return {kind: names[id] for kind, id in self._ids.items()}

    def item(self, media: Media) -> Item:
        """What the model gets of a picture or video; MediaError where it cannot be used."""
        item = self._read.get(media)
        if item is None:
            item = self._read[media] = self._load(media)
        return item

    def expand(
        self, ids: Sequence[int], media: Sequence[Media], most: int | None = None
    ) -> tuple[tuple[int, ...], tuple[Placed, ...]]:
        """Ids with as many placeholders for each picture as it has tokens, in place of the one that stands there.

        ContextError where they come to more than `most`, before a picture is decoded where its header tells.
        """
        if len(media) > MOST_MEDIA:
            raise PromptError(
                "too many pictures and videos", expected=f"at most {MOST_MEDIA} in a prompt", found=len(media)
            )
        lengths = [self._tokens_ahead(part) for part in media]
        for number, part in enumerate(media):
            self._check_room(len(ids) - len(media), media, lengths, most)
            if lengths[number] is None:
                lengths[number] = self.item(part).tokens
        self._check_room(len(ids) - len(media), media, lengths, most)
        items = iter([self.item(part) for part in media])
        expanded: list[int] = []
        placed: list[Placed] = []
        placeholders = set(self._ids.values())
        for id in ids:
            count = 1
            if id in placeholders:
                placed.append((len(expanded), next(items)))
                count = placed[-1][1].tokens
            expanded += [id] * count
        assert len(placed) == len(media), "no text is encoded to a placeholder"
        return tuple(expanded), tuple(placed)

    def _load(self, media: Media) -> Item:
        source, limit = media.source, media.max_pixels or self.max_pixels
        if isinstance(source, Item):
            if source.kind != media.kind:
                raise PromptError(f"an item of another kind in a part of type {media.kind}", found=source.kind)
            return source
        if media.kind == "image":
            return load_image(source, min_pixels=self._min_pixels, max_pixels=limit)
        given: dict[str, Any] = {"fps": media.fps, "max_frames": media.max_frames}
        return load_video(source, **{name: value for name, value in given.items() if value is not None})

    def _tokens_ahead(self, media: Media) -> int | None:
        """How many tokens it has, if that is known or a header tells; None for a video that was not read."""
        if media in self._read or isinstance(media.source, Item):
            return self.item(media).tokens
        if media.kind == "video":
            return None
        limit = media.max_pixels or self.max_pixels
        return tokens_of(grid_of(*image_size(media.source), min_pixels=self._min_pixels, max_pixels=limit))

    def _check_room(self, others: int, media: Sequence[Media], lengths: Sequence[int | None], most: int | None) -> None:
        known = sum(length for length in lengths if length is not None)
        if most is None or others + known <= most:
            return
        shown = [f"{name} {length:,}" for name, length in zip(names(media), lengths, strict=True) if length is not None]
        raise ContextError(
            "the prompt with its pictures is longer than the context",
            expected=f"at most {most:,} tokens",
            found=f"{others:,} of text, {', '.join(shown)}",
            hint="Leave some out, lower max_pixels or max_frames, or raise max_context",
        )


def names(media: Sequence[Media]) -> list[str]:
    """What each is called: `image 1`, `video 1`, `image 2`."""
    counts: Counter[Kind] = Counter()
    called = []
    for part in media:
        counts[part.kind] += 1
        called.append(f"{part.kind} {counts[part.kind]}")
    return called
