"""Pictures and videos of a prompt, read for one model: how many tokens each takes, and where they go."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from weakref import WeakKeyDictionary

from ernie_rt.errors import ContextError, MediaError, PromptError, TokenizerError
from ernie_rt.modeling.vision_language import PreprocessorConfig, VisionLanguageConfig
from ernie_rt.text.media import Kind, Media
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt.vision.grid import MERGE, PATCH, TOKEN, VIDEO_MAX_PIXELS, check_patches, patches_of, usual_pixels
from ernie_rt.vision.image import load_image
from ernie_rt.vision.item import Item
from ernie_rt.vision.video import load_video

MOST_MEDIA: Final = 64
"""Pictures and videos of one prompt."""

Announce = Callable[[int], object]
"""Is told how many tokens a picture or video has before it is decoded, and may raise."""
Placed = tuple[int, Item]
"""A picture or video, behind the place in a prompt's ids at which its tokens begin."""


class MediaReader:
    """Reads pictures and videos as one model takes them. What was read of a Media object is kept as long as that is, so
    that a conversation that goes on reads none twice.

    A picture without a limit of its own is made smaller where it has more pixels than `limits`, the checkpoint's, say,
    or more than a step of the model takes in, as the frames of a video are. One whose own limit allows more than that
    is refused where it has more.
    """

    def __init__(
        self,
        vision: VisionLanguageConfig,
        limits: PreprocessorConfig,
        *,
        on_cpu: bool,
        max_patches: int | None = None,
    ) -> None:
        """A step takes in at most `max_patches` (None: as many as there are). On a CPU a picture gets at most 1,024
        tokens: more would take longer than most want to wait."""
        self._ids: Mapping[Kind, int] = {"image": vision.image_token_id, "video": vision.video_token_id}
        self._limits = limits
        self._max_patches = sys.maxsize if max_patches is None else max_patches
        self.max_pixels = self._fitting(usual_pixels(limits.min_pixels, limits.max_pixels, on_cpu=on_cpu), 1)
        """Of a picture without a limit of its own."""
        self._read: WeakKeyDictionary[Media, Item] = WeakKeyDictionary()

    def placeholder(self, kind: Kind, tokenizer: Tokenizer) -> str:
        """The token that stands for a part of a picture, or of a video; TokenizerError where there is none."""
        name = next((name for name, id in tokenizer.reserved.items() if id == self._ids[kind]), None)
        if name is None:
            raise TokenizerError(
                f"the tokenizer has no token for a part of {'an image' if kind == 'image' else 'a video'}",
                expected=f"a special token of id {self._ids[kind]}, as config.json says",
                hint="Download the checkpoint's added_tokens.json and tokenizer_config.json anew, or its "
                "tokenizer.json: one is missing or of another model",
            )
        return name

    def item(self, media: Media, announce: Announce = lambda tokens: None) -> Item:
        """What the model gets of a picture or video; MediaError where it cannot be used."""
        item = self._read.get(media)
        if item is None:
            item = self._read[media] = self._load(media, announce)
        else:
            announce(item.tokens)
        return item

    def expand(
        self, ids: Sequence[int], media: Sequence[Media], most: int | None = None
    ) -> tuple[tuple[int, ...], tuple[Placed, ...]]:
        """Ids with as many placeholders for each picture as it has tokens, in place of the one that stands there.

        ContextError where they come to more than `most`, before the picture that is too much is decoded.
        """
        if len(media) > MOST_MEDIA:
            raise PromptError(
                "too many pictures and videos", expected=f"at most {MOST_MEDIA} in a prompt", found=len(media)
            )
        placeholders = set(self._ids.values())
        found = sum(id in placeholders for id in ids)
        if found != len(media):
            raise TokenizerError(
                "the tokenizer encodes text as what stands for a picture",
                expected=f"{len(media)} such tokens",
                found=found,
                hint="Use the tokenizer that came with the model",
            )
        items = iter(self._all(media, len(ids) - len(media), most))
        expanded: list[int] = []
        placed: list[Placed] = []
        for id in ids:
            count = 1
            if id in placeholders:
                placed.append((len(expanded), next(items)))
                count = placed[-1][1].tokens
            expanded += [id] * count
        return tuple(expanded), tuple(placed)

    def _all(self, media: Sequence[Media], others: int, most: int | None) -> list[Item]:
        """The items of a prompt that has so many `others` beside their tokens."""
        called = names(media)
        taken: list[str] = []
        total = others

        def count(tokens: int) -> None:
            nonlocal total
            total += tokens
            taken.append(f"{called[len(taken)]} {tokens:,}")
            if most is not None and total > most:
                raise ContextError(
                    "the prompt with its pictures is longer than the context",
                    expected=f"at most {most:,} tokens",
                    found=f"{others:,} of text, {', '.join(taken)}",
                    hint="Leave some out, lower max_pixels or max_frames, or raise max_context",
                )

        items: list[Item] = []
        for name, part in zip(called, media, strict=True):
            try:
                items.append(self.item(part, count))
            except MediaError as error:
                error.where = error.where or name
                raise
        return items

    def _load(self, media: Media, announce: Announce) -> Item:
        source = media.source
        if isinstance(source, Item):
            if source.kind != media.kind:
                raise PromptError(f"an item of another kind in a part of type {media.kind}", found=source.kind)
            check_patches(patches_of(source.grid), self._max_patches)
            announce(source.tokens)
            return source
        if media.kind == "image":

            def fits(tokens: int) -> None:
                check_patches(tokens * MERGE**2, self._max_patches)
                announce(tokens)

            limit = media.max_pixels or self.max_pixels
            item = load_image(source, min_pixels=self._limits.min_pixels, max_pixels=limit, announce=fits)
            return item if limit < self._limits.max_pixels else replace(item, note="")  # as the model was made to see
        check_patches(2 * MERGE**2, self._max_patches)  # those of a token, the fewest
        given: dict[str, Any] = {"fps": media.fps, "max_frames": media.max_frames}
        given = {name: value for name, value in given.items() if value is not None}
        return load_video(source, max_pixels=self._fitting(VIDEO_MAX_PIXELS, 2), announce=announce, **given)

    def _fitting(self, pixels: int, frames: int) -> int:
        """So many pixels of a frame, or those of which a step takes in so many frames; at least a token's."""
        return max(TOKEN**2, min(pixels, self._max_patches * PATCH**2 // frames))


def names(media: Sequence[Media]) -> list[str]:
    """What each is called: `image 1`, `video 1`, `image 2`."""
    counts: Counter[Kind] = Counter()
    called = []
    for part in media:
        counts[part.kind] += 1
        called.append(f"{part.kind} {counts[part.kind]}")
    return called
