"""A conversation as a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import FileFormatError, PromptError
from ernie_rt.files import MIB, read_json
from ernie_rt.text.media import OPTIONS
from ernie_rt.text.messages import Message, message_context, parse_messages
from ernie_rt.writing import write_atomic

FORMAT: Final = "ernie-rt chat 1"
MAX_BYTES: Final = 64 * MIB
DEPTH: Final = 80
"""Tool calls are nested up to 64 levels deep, and lie a few levels down."""


def write_transcript(path: Path, model: str, messages: Iterable[Message], *, overwrite: bool) -> None:
    """Write a conversation, whole or not at all, readable for its owner alone; `model` names who answered. Of pictures
    and videos, which are files, the paths are written.

    WriteError when that is not possible, or the file exists and may not be overwritten.
    """
    content: dict[str, Any] = {"format": FORMAT, "model": model, "messages": [_written(m) for m in messages]}
    with write_atomic(path, overwrite=overwrite, mode=0o600) as out:
        out.write(json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n")


def read_transcript(path: Path) -> tuple[Message, ...]:
    """The messages of a conversation; FileFormatError for a file that holds none."""
    content = read_json(path, limit=MAX_BYTES, depth=DEPTH, strict=True, signs=None)
    if content.get("format") != FORMAT:
        raise FileFormatError(
            "not a saved conversation",
            where=str(path),
            expected=f'"format": "{FORMAT}"',
            found=repr(content.get("format"))[:40],
        )
    messages = content.get("messages")
    if not isinstance(messages, list):
        raise FileFormatError("not a saved conversation", where=str(path), expected="a list of messages")
    try:
        return parse_messages(map(_read, messages)) if messages else ()
    except PromptError as error:
        raise FileFormatError(
            f"not a saved conversation: {error.what}", where=f"{path}: {error.where}", found=error.found
        ) from None


def _written(message: Message) -> dict[str, Any]:
    context = message_context(message)
    seen = [part for part in context["content"] if part["type"] != "text"] if message.media else []
    for media, part in zip(message.media, seen, strict=True):
        part[media.kind] = str(Path(media.source).absolute())
        part |= {name: getattr(media, name) for name in OPTIONS[media.kind] if getattr(media, name) is not None}
    return context


def _read(message: Any) -> Any:
    """A message with paths in place of their texts, which mean nothing elsewhere."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    parts = []
    for part in message["content"]:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind in OPTIONS and isinstance(part.get(kind), str):
            part = {**part, kind: Path(part[kind])}
        parts.append(part)
    return {**message, "content": parts}
