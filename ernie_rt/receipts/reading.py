"""Read a receipt that a stranger wrote: bounded, and every field judged by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from ernie_rt import files
from ernie_rt.display import shown
from ernie_rt.errors import FileFormatError, OptionError
from ernie_rt.generation.options import GenerateOptions, check_options
from ernie_rt.graph.types import FLOATS
from ernie_rt.receipts.receipt import FORMAT, TOP, Chosen, Identity, Ran, Receipt
from ernie_rt.receipts.shown import Shown
from ernie_rt.vision.grid import TOKEN

LIMIT: Final = 64 * files.MIB
"""An answer of 131,072 tokens takes 25 MiB."""
DEPTH: Final = 6
MOST_TOKENS: Final = 1 << 20
MOST_IDS: Final = 1 << 31
FINISHES: Final = ("stop", "length", "cancelled")
MOST_ITEMS: Final = 64
MOST_FRAMES: Final = 1 << 16
ASKED: Final = frozenset({"min_pixels", "max_pixels", "fps", "min_frames", "max_frames"})
"""What `load_image` and `load_video` are told."""
DIGEST: Final = re.compile("[0-9a-f]{64}")
BACKEND: Final = re.compile("[a-z][a-z0-9_-]{0,31}")
DEVICE: Final = re.compile(r"[a-z]{1,16}(:\d{1,3})?", re.ASCII)
TEXT: Final = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
NOT_SAID: Final = frozenset({"logprobs", "margins", "constraint", "thinking", "thinking_budget", "reuse_after_change"})
"""Options that no receipt has: they change nothing, or there is no receipt of what they make."""

T = TypeVar("T")
U = TypeVar("U")
S = TypeVar("S", bound=str)


def read_receipt(path: str | Path) -> Receipt:
    """The receipt in a file. JsonError or FileFormatError, which names the field, for anything else."""
    data = files.read_json(Path(path), limit=LIMIT, depth=DEPTH, strict=True, signs=None)
    number = data.get("receipt")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise FileFormatError("not a receipt", where=str(path), hint="`ernie-rt run … --receipt FILE` writes one")
    if number > FORMAT:
        raise FileFormatError(
            "a receipt of a newer format",
            where=str(path),
            expected=f"{FORMAT} at most",
            found=shown(number),
            hint=f"It was written by ernie-rt {shown(data.get('ernie_rt'))}: use that or a later one",
        )
    return _receipt(_Object(data, str(path), ""))


def _receipt(top: _Object) -> Receipt:
    top.take("receipt", _whole(FORMAT))
    model, ran = top.inner("model"), top.inner("ran")
    identity = Identity(
        name=model.take("name", _matching(TEXT)),
        weights=model.take("weights", _matching(DIGEST)),
        graph=model.take("graph", _matching(DIGEST)),
        tokenizer=model.take("tokenizer", _matching(DIGEST)),
        made_from=model.take("made_from", _plan),
    )
    model.end()
    by = Ran(
        backend=ran.take("backend", _matching(BACKEND)),
        device=ran.take("device", _matching(DEVICE)),
        dtype=ran.take("dtype", _one_of(*FLOATS)),
        deterministic=ran.take("deterministic", _true_or_false),
        threads=ran.take("threads", _or(_whole(1 << 16), None)),
        versions=ran.take("versions", _tuple(_matching(TEXT), 32)),
    )
    ran.end()
    receipt = Receipt(
        model=identity,
        ran=by,
        options=top.take("options", _options),
        prompt=top.take("prompt", _tuple(_whole(MOST_IDS - 1), MOST_TOKENS, least=1)),
        items=top.take("items", _or(_tuple(lambda value: _shown(value, top.where), MOST_ITEMS), ())),
        answer=top.take("answer", _tuple(lambda value: _chosen(value, top.where), MOST_TOKENS, least=1)),
        finish=top.take("finish", _one_of(*FINISHES)),
        date=top.take("date", _matching(TEXT)),
        ernie_rt=top.take("ernie_rt", _matching(TEXT)),
        text=top.take("text", _or(_text, None)),
    )
    top.end()
    _check_places(receipt, top.where)
    return receipt


def _check_places(receipt: Receipt, where: str) -> None:
    """FileFormatError unless items come one after the other, within the prompt."""
    free = 0
    for each in receipt.items:
        last = len(receipt.prompt) - each.tokens
        if not free <= each.start <= last:
            raise FileFormatError(
                "items.start is not possible", where=where, expected=f"{free} to {last}", found=each.start
            )
        free = each.start + each.tokens


class _Wrong(Exception):
    """What a value should have been."""


class _Object:
    """The fields of an object, each taken once; the errors name them."""

    def __init__(self, fields: Mapping[str, Any], where: str, name: str) -> None:
        self.where = where
        self._fields = dict(fields)
        self._name = name

    def take(self, name: str, judge: Callable[[Any], T]) -> T:
        value = self._fields.pop(name, None)
        try:
            return judge(value)
        except _Wrong as wrong:
            raise self._error(f"{self._name}{name} is not possible", wrong, value) from None
        except OptionError as error:
            raise FileFormatError(
                f"{self._name}{name}: {error.what}", where=self.where, expected=error.expected, found=error.found
            ) from None

    def inner(self, name: str) -> _Object:
        return _Object(self.take(name, _object), self.where, f"{self._name}{name}.")

    def end(self) -> None:
        if self._fields:
            names = ", ".join(f"{self._name}{name}"[:80] for name in sorted(self._fields)[:4])
            raise FileFormatError("fields that no receipt has", where=self.where, found=ascii(names))

    def _error(self, what: str, wrong: _Wrong, value: Any) -> FileFormatError:
        return FileFormatError(what, where=self.where, expected=str(wrong), found=shown(value))


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong("an object")
    return value


def _matching(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    def judge(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _Wrong(f"a text like {pattern.pattern}")
        return value

    return judge


def _one_of(*values: S) -> Callable[[Any], S]:
    def judge(value: Any) -> S:
        if not isinstance(value, str) or value not in values:
            raise _Wrong(f"one of {', '.join(values)}")
        return value

    return judge


def _whole(most: int) -> Callable[[Any], int]:
    def judge(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise _Wrong(f"a whole number from 0 to {most}")
        return value

    return judge


def _real(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _Wrong("a number")
    return float(value)


def _true_or_false(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("true or false")
    return value


def _or(judge: Callable[[Any], T], absent: U) -> Callable[[Any], T | U]:
    return lambda value: absent if value is None else judge(value)


def _tuple(judge: Callable[[Any], T], most: int, least: int = 0) -> Callable[[Any], tuple[T, ...]]:
    def judge_all(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise _Wrong(f"a list of {least} to {most} entries")
        try:
            return tuple(map(judge, value))
        except _Wrong as wrong:
            raise _Wrong(f"a list, each entry {wrong}") from None

    return judge_all


def _shown(value: Any, where: str) -> Shown:
    entry = _Object(_object(value), where, "items.")
    found = Shown(
        kind=entry.take("kind", _one_of("image", "video")),
        start=entry.take("start", _whole(MOST_TOKENS)),
        file=entry.take("file", _or(_matching(DIGEST), None)),
        given=entry.take("given", _size(1)),
        asked=entry.take("asked", _asked),
        by=entry.take("by", _tuple(_matching(TEXT), 8)),
        frames=entry.take("frames", _whole(MOST_FRAMES)),
        size=entry.take("size", _size(TOKEN)),
        pixels=entry.take("pixels", _matching(DIGEST)),
    )
    entry.end()
    image = found.kind == "image"
    if found.frames != 1 if image else found.frames < 2 or found.frames % 2:
        expected = "1 of a picture" if image else "an even number of a video"
        raise FileFormatError("items.frames is not possible", where=where, expected=expected, found=found.frames)
    return found


def _size(multiple: int) -> Callable[[Any], tuple[int, int]]:
    def judge(value: Any) -> tuple[int, int]:
        width, height = value if isinstance(value, list) and len(value) == 2 else (0, 0)
        sides = [_whole(1 << 24)(side) for side in (width, height)]
        if not all(side and side % multiple == 0 for side in sides):
            raise _Wrong(f"a width and a height, multiples of {multiple}")
        return sides[0], sides[1]

    return judge


def _asked(value: Any) -> Mapping[str, int | float]:
    asked = _object(value)
    if not asked.keys() <= ASKED:
        raise _Wrong(f"an object of {', '.join(sorted(ASKED))}")
    return {name: _real(each) if name == "fps" else _whole(1 << 26)(each) for name, each in asked.items()}


def _pair(value: Any) -> tuple[int, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise _Wrong("an id and a number")
    return _whole(MOST_IDS - 1)(value[0]), _real(value[1])


def _chosen(value: Any, where: str) -> Chosen:
    entry = _Object(_object(value), where, "answer.")
    chosen = Chosen(
        id=entry.take("id", _whole(MOST_IDS - 1)),
        logprob=entry.take("logprob", _real),
        top=entry.take("top", _tuple(_pair, TOP)),
        runner_up=entry.take("runner_up", _or(_pair, None)),
    )
    entry.end()
    return chosen


def _plan(value: Any) -> Mapping[str, str | int | bool] | None:
    if value is None:
        return None
    plan = _object(value)
    if len(plan) > 16 or not all(
        isinstance(each, str | int) and len(f"{name}{each}") < 200 for name, each in plan.items()
    ):
        raise _Wrong("a plan of at most 16 short values, or null")
    return plan


def _text(value: Any) -> Mapping[str, str]:
    text = _object(value)
    if not all(isinstance(each, str) for each in text.values()) or not text.keys() <= {"prompt", "answer"}:
        raise _Wrong("the texts of prompt and answer")
    return text


def _options(value: Any) -> GenerateOptions:
    options = dict(_object(value))
    expected = GenerateOptions.__annotations__.keys() - NOT_SAID
    if options.keys() != expected:
        raise _Wrong(f"an object of {', '.join(sorted(expected))}")
    biases = _tuple(_pair, 4096)(options["logit_bias"])
    options["logit_bias"] = dict(biases)
    for name in ("stop", "stop_ids", "bad_words"):
        _tuple(lambda each: each, 4096)(options[name])
    if options["ignore_eos"] is not True:
        raise _Wrong("`ignore_eos` true: what ends an answer is among `stop_ids`")
    check_options((), MOST_IDS, **cast(GenerateOptions, options))
    if options["temperature"] and options["seed"] is None:
        raise _Wrong("a `seed` where there is a temperature")
    return cast(GenerateOptions, options)
