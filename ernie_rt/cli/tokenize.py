"""`ernie-rt tokenize`: text to token ids, and back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from ernie_rt.cli.options import Json, Ref
from ernie_rt.errors import PromptError


def tokenize(
    model: Ref,
    text: Annotated[str | None, typer.Argument(help="The text; - or nothing reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the text from a file.")] = None,
    ids: Annotated[
        bool, typer.Option("--ids", help="The text is token ids, apart by spaces or commas: print what they say.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the tokens of a text, an id and its piece on each line. The text is content: it has no special tokens."""
    from ernie_rt.cli.output import say, write
    from ernie_rt.cli.prompts import read_prompt
    from ernie_rt.location import locate
    from ernie_rt.text.tokenizer import shown_piece

    given = read_prompt(text, file)
    tokenizer = locate(model).tokenizer
    for note in tokenizer.notes:
        say(note)
    numbers = _parse_ids(given) if ids else tokenizer.encode(given)
    said = tokenizer.decode(numbers, skip_special=False)
    if as_json:
        pieces = [shown_piece(tokenizer.pieces[number]) for number in numbers]
        write(json.dumps({"count": len(numbers), "ids": numbers, "pieces": pieces, "text": said}) + "\n")
    elif ids:
        write(f"{said}\n")
    else:
        shown = [json.dumps(shown_piece(tokenizer.pieces[number]), ensure_ascii=False) for number in numbers]
        write("".join(f"{number}\t{piece}\n" for number, piece in zip(numbers, shown, strict=True)))


def _parse_ids(text: str) -> list[int]:
    words = re.sub(r"[\s,\[\]]+", " ", text).split()
    for word in words:
        if not re.fullmatch(r"[0-9]{1,9}", word):
            raise PromptError(
                "not token ids", expected="whole numbers apart by spaces or commas", found=ascii(word[:40])
            )
    return [int(word) for word in words]
