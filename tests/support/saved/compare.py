"""What ernie-rt makes of a saved folder, beside what transformers made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

import ernie_rt
from ernie_rt.errors import ErnieRtError
from ernie_rt.location import Located, locate
from ernie_rt.text.tokenizer import Tokenizer
from support.saved.refusals import REFUSALS, Stage
from support.saved.told import Judged, Told
from support.saved.variation import TAGS

Measure = Callable[[str, float, float], None]

LIMITS: Final = (("reference", "float64", 1e-12), ("eager", "float32", 2e-5))
"""The largest difference of logits over their rms, as in the other tests of parity."""
SAMPLING: Final = ("temperature", "top_k", "top_p", "min_p")
NEUTRAL: Final = {"repetition_penalty": 1.0, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""What sampling options are where nobody says anything."""


def differences(where: Path, told: Told, measured: Measure) -> Iterator[str]:
    """Everything in which ernie-rt and transformers disagree about the folder `where/model`, a line each."""
    folder = where / "model"
    try:
        located = locate(folder)
    except ErnieRtError as error:
        yield from _refused("config", told, error)
        return
    yield from _owed("config", told)
    yield from _compare_logits(located, np.load(where / "logits.npy"), told, measured)
    yield from _compare_defaults(located, folder, told)
    try:
        tokenizer = located.tokenizer
    except ErnieRtError as error:
        yield from _refused("tokenizer", told, error)
        return
    yield from _owed("tokenizer", told)
    yield from _compare_tokenizer(tokenizer, told.judged)
    yield from _compare_chats(located, told.judged)


def _refused(stage: Stage, told: Told, error: ErnieRtError) -> Iterator[str]:
    kinds = [refusal for refusal in REFUSALS if refusal.stage == stage and refusal.applies(told)]
    if not any(refusal.fits(error) for refusal in kinds):
        yield f"{stage} refused: {type(error).__name__}: {error}"


def _owed(stage: Stage, told: Told) -> Iterator[str]:
    for refusal in REFUSALS:
        if refusal.stage == stage and refusal.applies(told):
            yield f"{stage} not refused, although {refusal.why}"


def _compare_logits(located: Located, expected: np.ndarray[Any, Any], told: Told, measured: Measure) -> Iterator[str]:
    scale = np.sqrt(np.mean(expected**2))
    for backend, dtype, limit in LIMITS:
        try:
            with ernie_rt.load(located, backend=backend, device="cpu", dtype=dtype, max_context=64, threads=1) as model:
                found = model.logits(told.ids)
        except ErnieRtError as error:
            yield from _refused("weights", told, error)
            return
        if found.shape != expected.shape:
            yield f"logits of {backend}: {found.shape} instead of {expected.shape}"
            continue
        try:
            measured(f"saved folders, {backend} {dtype}", float(np.abs(found - expected).max() / scale), limit)
        except AssertionError as failure:
            yield f"logits: {failure}"
    yield from _owed("weights", told)


def _compare_defaults(located: Located, folder: Path, told: Told) -> Iterator[str]:
    """What the file says, and the ends of the config too; what transformers takes where it says nothing does not."""
    file = folder / "generation_config.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    sampled = {"temperature": 1.0} | said if said.get("do_sample") else {}
    expected = {name: sampled[name] for name in SAMPLING if sampled.get(name) is not None}
    expected |= {name: said[name] for name in ("repetition_penalty", "max_new_tokens") if said.get(name) is not None}
    try:
        found = dict(located.defaults.options)
    except ErnieRtError as error:
        yield f"generation config refused: {type(error).__name__}: {error}"
        return
    ends = {*located.config.eos_token_id, *found.pop("stop_ids", ())}
    if ends != _ids(told.eos) | _ids(said.get("eos_token_id")):
        yield f"ends of an answer: {sorted(ends)} instead of {told.eos} and {said.get('eos_token_id')}"
    if NEUTRAL | found != NEUTRAL | expected:
        yield f"defaults: {found} instead of {expected}"


def _ids(value: int | list[int] | None) -> set[int]:
    return set() if value is None else set(value) if isinstance(value, list) else {value}


def _compare_tokenizer(tokenizer: Tokenizer, judged: Judged) -> Iterator[str]:
    if tokenizer.vocab_size != judged.tokens:
        yield f"number of tokens: {tokenizer.vocab_size} instead of {judged.tokens}"
    for text, ids in judged.texts:
        found = tokenizer.encode(text)
        if found != ids:
            yield f"ids of {text!r}: {found} instead of {ids}"
    shown = {id for tag, id in tokenizer.reserved.items() if tag in TAGS}
    for ids, text in judged.decoded:
        found_text = tokenizer.decode(id for id in ids if id not in shown)
        if found_text != text:
            yield f"text of {ids}: {found_text!r} instead of {text!r}"


def _compare_chats(located: Located, judged: Judged) -> Iterator[str]:
    try:
        if (located.template is None) != (not judged.chats):
            yield f"a chat template: {located.template is not None} instead of {bool(judged.chats)}"
        for messages, ids in judged.chats if located.template is not None else ():
            found = list(located.template.prompt(messages, located.tokenizer).ids)
            if found != ids:
                yield f"ids of {messages}: {found} instead of {ids}"
    except ErnieRtError as error:
        yield f"conversation refused: {type(error).__name__}: {error}"
