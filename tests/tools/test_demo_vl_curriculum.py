"""The pictures and questions of demo-vl: what is held out is in nothing that is taught, and answers are right."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from demo.curriculum import LANGUAGES
from demo_vl.batches import COVERED, HUES, WHATS, Encoder, prepared_size, show, training_batch, training_sights
from demo_vl.curriculum import NO_PICTURE, SHARES, draw_any, draw_talk
from demo_vl.drawing import COLOURS, Picture, Thing, draw, labels
from demo_vl.examination import EXAMINED, held_out_items
from demo_vl.model import demo_config
from demo_vl.questions import CHINESE, PHRASINGS, PLURALS, Question, questions
from demo_vl.samples import SAMPLES
from demo_vl.scenes import COMBINATIONS, RARE, draw_pictures, held_out
from demo_vl.tokenizer import write_tokenizer
from ernie_rt.vision.grid import TOKEN

RED, BLUE = Thing("square", "red", 0.2, 0.5, 0.12), Thing("star", "blue", 0.75, 0.55, 0.15)
GREEN = Thing("square", "green", 0.5, 0.15, 0.1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return Encoder(folder, demo_config())


def asked(things: tuple[Thing, ...], language: str = "en") -> Iterator[Question]:
    """Questions about things on white, as they come by chance."""
    rng = random.Random(3)
    for _ in range(300):
        yield from questions(rng, (Picture(things, "white"),), "zh" if language == "zh" else "en")


def test_nothing_held_out_is_drawn_in_training() -> None:
    rng = random.Random(1)
    for _ in range(500):
        for thing in (thing for picture in draw_any(rng, 1.0).pictures for thing in picture.things):
            assert not held_out(thing)
    assert 0.05 < len(RARE) / len(COMBINATIONS) < 0.2
    places = [Thing(shape, colour, (i + 0.5) / 3, (j + 0.5) / 3, 0.1)
              for shape, colour in COMBINATIONS for i in range(3) for j in range(3)]  # fmt: skip
    assert 0.3 < sum(map(held_out, places)) / (9 * len(RARE)) < 0.7
    numbers = [Thing(str(number), "red", 0.5, 0.5, 0.3) for number in range(1000)]
    assert 0.1 < sum(map(held_out, numbers)) / 1000 < 0.15


def test_examinations_show_nothing_else() -> None:
    for task in EXAMINED:
        items = held_out_items(task, 8)
        assert items == held_out_items(task, 8) and items != held_out_items(task, 8, seed=1)
        assert Counter(item.language for item in items) == Counter({"en": 4, "zh": 4})
        assert all(item.new_phrasing != item.turn.prompt for item in items)
        for thing in (thing for item in items for picture in item.talk.pictures for thing in picture.things):
            assert held_out(thing)


def test_the_last_phrasing_of_each_list_is_kept_from_training() -> None:
    rng = random.Random(2)
    taught = {re.sub(r"[?？.。]", "", turn.prompt).lower() for _ in range(800) for turn in draw_any(rng, 1.0).turns}
    assert "what color is it" in taught
    for ways in PHRASINGS.values():
        for language in range(2):
            assert len(set(ways[language])) == len(ways[language]) >= 3
            if "{" not in ways[language][-1]:
                assert re.sub(r"[?？.。]", "", ways[language][-1]).lower() not in taught


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_are_right(language: str) -> None:
    zh = language == "zh"
    counts, colours, relations = {}, {}, {}
    for question in asked((RED, BLUE, GREEN), language):
        if question.form == "count of some":
            counts[question.fields["things"]] = question.answer
        if question.form == "colour":
            colours[question.fields["shape"]] = question.answer
    for question in asked((RED, BLUE), language):
        if question.form == "relation":
            relations[tuple(question.fields.values())] = question.answer
    square, star = (CHINESE["square"], CHINESE["star"]) if zh else ("square", "star")
    assert counts["正方形" if zh else PLURALS["square"]] == ("有2个。" if zh else "There are 2.")
    assert counts["红色正方形" if zh else "red squares"] == ("有1个。" if zh else "There is 1.")
    assert counts["蓝色图形" if zh else "blue shapes"] == ("有1个。" if zh else "There is 1.")
    assert counts["爱心" if zh else "hearts"] == ("没有。" if zh else "There are none.")
    assert colours[star] == ("蓝色。" if zh else "It is blue.") and square not in colours
    left, right = ("左边", "右边") if zh else ("to the left of", "to the right of")
    yes, no = ("是。", "不是。") if zh else ("Yes.", "No.")
    assert relations == {
        (square, left, star): yes, (square, right, star): no, (star, left, square): no, (star, right, square): yes,
    }  # fmt: skip


def test_of_two_pictures_it_is_asked_what_they_share() -> None:
    rng = random.Random(4)
    pictures = tuple(Picture((thing,), "white") for thing in (RED, GREEN))
    answers = {each.form: each.answer for each in questions(rng, pictures, "en")}
    assert answers == {"same colour": "No, red and green.", "same shape": "Yes, both are squares."}


def test_pictures_show_what_they_say() -> None:
    rng = random.Random(5)
    for kind in SHARES:
        for picture in draw_pictures(rng, kind, "train", 1.0):
            image, places = draw(picture, 224, 224, rng)
            pixels, numbers = np.asarray(image), np.asarray(places)
            for number, (what, colour) in enumerate(labels(picture), 1):
                assert (numbers == number).sum() > 40, f"{what} is too small, or outside"
                near = [np.abs(pixels[numbers == number].astype(int) - shade).max(1).min() for shade in COLOURS[colour]]
                assert min(near) <= 10, f"no {colour} in the {what}"
            assert max(thing.radius for thing in picture.things) < 0.5
            assert all(0 < thing.x < 1 and 0 < thing.y < 1 for thing in picture.things)


def test_the_tower_is_told_what_lies_in_a_patch() -> None:
    whole = Thing("square", "red", 0.5, 0.5, 0.5)
    shown = show(Picture((whole,), "white"), 112, 112, random.Random(0), noise=False)
    assert shown.patches.shape == (64, 588) and COVERED < 0.5
    square, red, white = WHATS.index("square"), HUES.index("red"), HUES.index("white")
    assert (shown.whats == square).sum() >= 49 and (shown.hues[shown.whats == square] == red).all()
    right = show(Picture((Thing("square", "red", 0.8, 0.5, 0.15),), "white"), 112, 112, random.Random(0), noise=False)
    blocks = (right.whats == square).reshape(4, 4, 2, 2)
    assert blocks[:, 2:].any() and not blocks[:, :2].any()
    assert set(right.hues.tolist()) == {red, white}


def test_batches_depend_on_nothing_but_their_step(encoder: Encoder) -> None:
    first, again, other = (training_batch(encoder, 0, step, 6, 112) for step in (1, 1, 2))
    assert torch.equal(first.ids, again.ids) and torch.equal(first.sights.patches, again.sights.patches)
    assert first.ids.shape != other.ids.shape or not torch.equal(first.ids, other.ids)
    tokens = first.sights.grid[0] * first.sights.grid[1]
    assert 10 <= tokens <= 17
    assert (first.ids == encoder.placeholder).sum() == tokens * len(first.sights.patches)
    ends = first.targets != first.ids
    assert (first.targets[ends] == encoder.end).all() and (first.ids[ends] == encoder.separator).all()
    sights = training_sights(0, 1, 6)
    assert sights.patches.shape[:2] == sights.whats.shape == sights.hues.shape and len(sights.whats) == 6


@pytest.mark.parametrize("size", [(200, 150), (640, 480), (1920, 1080), (100, 100), (60, 45), (300, 100)])
def test_pictures_of_any_size_become_as_many_tokens_as_training_saw(size: tuple[int, int]) -> None:
    width, height = prepared_size(size)
    assert 10 <= width * height // TOKEN**2 <= 17


def test_every_name_is_one_token(encoder: Encoder) -> None:
    whats, hues = encoder.names()
    assert whats[0].sum() == 0 and set(whats[1:].sum(1).tolist()) == {1.0, 2.0} and set(hues.sum(1).tolist()) == {2.0}
    assert (torch.cat((whats[1:], hues)).sum(0) <= 1).all(), "nor do two things share one"
    red = hues[HUES.index("red")].nonzero().flatten().tolist()
    assert [encoder.tokenizer.decode([id]) for id in red] in ([" red", "红色"], ["红色", " red"])


def test_sides_are_those_of_the_picture(encoder: Encoder) -> None:
    sides = encoder.sides((3, 4)).view(3, 4, -1)
    for word, there in ((" top", sides[0]), (" bottom", sides[2]), (" left", sides[:, 0]), (" right", sides[:, 3])):
        (id,) = encoder.text(word)
        assert there[..., id].all() and sides[..., id].sum() == len(there)


def test_a_question_without_a_picture_is_answered_by_saying_so() -> None:
    rng = random.Random(6)
    blind = [talk for talk in (draw_any(rng, 1.0) for _ in range(400)) if not talk.pictures]
    assert 2 <= len(blind) <= 20 and all(talk.turns[0].answer in NO_PICTURE.values() for talk in blind)
    assert len(draw_talk(rng, "two", "en", 1.0).pictures) == 2


def test_samples_are_held_out() -> None:
    for picture, _, answers in SAMPLES.values():
        assert all(map(held_out, picture.things)) and answers
