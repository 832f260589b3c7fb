"""Receipts of strangers: whatever is wrong with one, its field is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ernie_rt.errors import FileFormatError, InputError
from ernie_rt.receipts.reading import read_receipt
from support.commands import command
from support.receipts import GOOD, ITEM, SHOWING, changed


def written(folder: Path, value: object) -> Path:
    path = folder / "r.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_one_with_a_picture_and_a_video(tmp_path: Path) -> None:
    film = ITEM | {"kind": "video", "start": 4, "frames": 4, "file": None, "asked": {"fps": 2.0, "max_frames": 9}}
    read = read_receipt(written(tmp_path, SHOWING | {"items": [ITEM, film]}))
    assert [(each.tokens, each.grid) for each in read.items] == [(2, (1, 1, 2)), (4, (2, 1, 2))]
    assert read.to_json() == SHOWING | {"items": [ITEM, film]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("kind", "sound", "items.kind is not possible; expected one of image, video"),
        ("start", 7, "items.start is not possible; expected 0 to 6; found 7"),
        ("start", -1, "items.start is not possible"),
        ("file", "../secret.png", "items.file is not possible"),
        ("given", [0, 5], "items.given is not possible; expected a width and a height"),
        ("given", [1, 2, 3], "items.given is not possible"),
        ("asked", {"path": 1}, "items.asked is not possible; expected an object of fps, max_frames, "),
        ("asked", {"max_pixels": "x"}, "items.asked is not possible"),
        ("by", "pillow", "items.by is not possible"),
        ("frames", 2, "items.frames is not possible; expected 1 of a picture; found 2"),
        ("frames", 0, "items.frames is not possible"),
        ("size", [57, 28], "items.size is not possible; expected a width and a height, multiples of 28"),
        ("pixels", None, "items.pixels is not possible"),
        ("data", "iVBORw0KGgo", "fields that no receipt has; found 'items.data'"),
    ],
)
def test_whatever_is_wrong_with_a_picture_is_named(tmp_path: Path, name: str, value: object, said: str) -> None:
    ran = command("replay", written(tmp_path, SHOWING | {"items": [ITEM | {name: value}]}))
    assert (ran.code, ran.out) == (2, "") and said in ran.err and len(ran.err.splitlines()) == 1


def test_pictures_do_not_lie_over_each_other(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"items.start is not possible; expected 3 to 6; found 2"):
        read_receipt(written(tmp_path, SHOWING | {"items": [ITEM, ITEM | {"start": 2}]}))


def test_a_good_one(tmp_path: Path) -> None:
    read = read_receipt(written(tmp_path, GOOD))
    assert read.ids == (7,) and read.answer[0].runner_up == (8, 0.5) and read.options["logit_bias"] == {3: 1.5}
    assert read.to_json() == GOOD


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("receipt", 3, "a receipt of a newer format; expected 2 at most; found 3. It was written by ernie-rt '0.1.0'"),
        ("receipt", 10**400, "beyond float64"),
        ("receipt", True, "not a receipt"),
        ("receipt", ..., "not a receipt"),
        ("model", [], "model is not possible; expected an object"),
        ("model.name", "", "model.name is not possible"),
        ("model.name", "a\x1b[2J", "model.name is not possible"),
        ("model.weights", "A" * 64, "model.weights is not possible"),
        ("model.made_from", {"a": 1.5}, "model.made_from is not possible"),
        ("model.path", "/etc/passwd", "fields that no receipt has; found 'model.path'"),
        ("ran.backend", "../x", "ran.backend is not possible"),
        ("ran.device", "cpu; rm", "ran.device is not possible"),
        ("ran.dtype", "int8", "ran.dtype is not possible; expected one of "),
        ("ran.threads", -1, "ran.threads is not possible"),
        ("ran.versions", ["x"] * 33, "ran.versions is not possible"),
        ("options.temperature", 1e9, "options: temperature is out of range; expected a number from 0 to 100"),
        ("options.temperature", 0.5, "expected a `seed` where there is a temperature"),
        ("options.seed", 1 << 70, "options: seed is out of range"),
        ("options.seed", -1, "options: seed is out of range"),
        ("options.logit_bias", {"3": 1}, "options is not possible"),
        ("options.constraint", "x", "options is not possible; expected an object of allowed_ids, "),
        ("options.stop", "x", "options is not possible"),
        ("options.ignore_eos", False, "`ignore_eos` true"),
        ("prompt", [], "prompt is not possible; expected a list of 1 to "),
        ("prompt", [5, -1], "prompt is not possible; expected a list, each entry a whole number from 0 to "),
        ("prompt", [True], "prompt is not possible"),
        ("finish", "error", "finish is not possible"),
        ("answer", [], "answer is not possible"),
        ("answer.0.id", 1.5, "answer.id is not possible"),
        ("answer.0.logprob", "x", "answer.logprob is not possible; expected a number"),
        ("answer.0.top", [[1, 2]] * 6, "answer.top is not possible"),
        ("answer.0.runner_up", [1], "answer.runner_up is not possible"),
        ("answer.0.more", 1, "fields that no receipt has; found 'answer.more'"),
        ("text", {"prompt": 1}, "text is not possible"),
        ("more", 1, "fields that no receipt has; found 'more'"),
    ],
)
def test_whatever_is_wrong_is_named(tmp_path: Path, place: str, value: object, said: str) -> None:
    if value == 10**400:
        text: object = json.dumps(GOOD).replace('"receipt": 1', f'"receipt": {"9" * 400}')
    else:
        text = changed(place, value)
    ran = command("replay", written(tmp_path, text))
    assert (ran.code, ran.out) == (2, "") and said in ran.err and len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[]", "{" * 100, '{"receipt": 1, "receipt": 1}', '{"receipt": NaN}', "\ufeff"])
def test_what_is_no_json(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"r\.json: "):
        read_receipt(written(tmp_path, text))
