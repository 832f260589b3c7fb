"""What a file of a tokenizer holds, whichever its format: pieces, and a function that encodes text with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

SPACE: Final = "\u2581"
"""How a piece spells a space."""
CONTROL_FORM: Final = r"<[^<>\s]+>"
"""What a control token looks like where its file does not say that it is one."""

TAGS: Final = ("think", "response", "tool_call", "tool_output", "tool_list", "system_setting", "global_setting")
TURNS: Final = ("<|begin_of_sentence|>", "<|end_of_sentence|>", "<|im_start|>", "<|im_end|>")
MEDIA: Final = tuple(f"<|{kind}_{part}|>" for kind in ("IMAGE", "VIDEO") for part in ("PLACEHOLDER", "START", "END"))
CONTROLS: Final = frozenset({*TURNS, *MEDIA, *(f"<{tag}>" for tag in TAGS), *(f"</{tag}>" for tag in TAGS)})
"""The tokens of ERNIE's templates: no text gives them, even where a file calls them not special."""

Encoder: TypeAlias = Callable[[Sequence[str]], list[list[int]]]
"""Gives the ids of each text. No text gives a reserved id, and no bos, eos or space is added."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """The names of all pieces by id; a piece of `byte_ids` stands for the byte that its name, `<0x0A>`, says.

    `reserved` are the pieces that `encode` never gives, `matched` those that it finds in text before it merges any.
    `dummy_prefix` says whether the file asks for a space in front of text, which `encode` never adds.
    """

    names: Mapping[int, str]
    byte_ids: frozenset[int]
    reserved: frozenset[int]
    encode: Encoder
    matched: frozenset[int] = frozenset()
    dummy_prefix: bool = False
