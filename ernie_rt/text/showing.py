"""From rendered spans to ids, with pictures and videos where a template has put them."""

from __future__ import annotations

from collections.abc import Sequence

from ernie_rt.errors import PromptError, TemplateError
from ernie_rt.modeling.families import FAMILIES
from ernie_rt.text.media import Kind, Media
from ernie_rt.text.media_reader import MediaReader, Placed
from ernie_rt.text.spans import Span, encode_spans, split_media
from ernie_rt.text.tokenizer import Tokenizer


def encode_showing(
    spans: Sequence[Span],
    media: Sequence[Media],
    tokenizer: Tokenizer,
    reader: MediaReader | None,
    most: int | None,
    where: str,
) -> tuple[tuple[int, ...], tuple[Placed, ...]]:
    """The ids of spans, with as many for each picture as it has tokens, and the pictures with their places.

    TemplateError where the spans show other pictures than `media`, or in another order; else raises as
    `MediaReader.expand` does. Where there are some, there is a `reader`.
    """
    parts = list(split_media(spans))
    written = [part for part in parts if isinstance(part, str)]
    wanted: list[Kind] = [part.kind for part in media]
    if written != wanted:
        raise TemplateError(
            "the chat template does not write the pictures and videos that the messages have",
            where=where,
            expected=_counted(wanted),
            found=_counted(written) + (", in another order" if sorted(written) == sorted(wanted) else ""),
            hint="Leave them out, or use the template that came with the model",
        )
    if reader is None or not media:
        return tuple(encode_spans(spans, tokenizer)), ()
    names = {kind: reader.placeholder(kind, tokenizer) for kind in set(wanted)}
    marked = [Span(names[part], True, token=True) if isinstance(part, str) else part for part in parts]
    return reader.expand(encode_spans(marked, tokenizer), media, most)


def check_reader(media: Sequence[Media], reader: MediaReader | None) -> None:
    """PromptError for pictures and videos where nothing reads them."""
    if media and reader is None:
        with_vision = ", ".join(family.name for family in FAMILIES if family.config.vision is not None)
        raise PromptError(
            "the model reads text alone",
            found=_counted([part.kind for part in media]),
            hint=f"Use a vision-language model (demo-vl, {with_vision}), and not text_only",
        )


def _counted(kinds: Sequence[Kind]) -> str:
    images, videos = kinds.count("image"), kinds.count("video")
    return f"{images} image{'s' * (images != 1)} and {videos} video{'s' * (videos != 1)}"
