"""Pictures in prompts: when they are encoded, and for whom; no cut, company or earlier request changes an answer."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.errors import BackendError, PromptError
from ernie_rt.runtime import rows, slots
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.kept_rows import KeptRows
from ernie_rt.runtime.row_store import RowStore
from ernie_rt.runtime.sequence import Request, SequenceState
from support.seeing import FRAME, PLACEHOLDER, SeeingToyExecutable, Sketch, graphs, said, shown

PAGE = 4
CONTEXT = 60
CAT = Sketch([3, 5, 7, 1, 2, 9])
DOG = Sketch([4, 4, 1, 8, 6, 2])
FILM = Sketch(range(1, 1 + 6 * FRAME))


def toy(
    kind: Literal["paged", "slots"] = "paged", *, ahead: int = 0, pages: int = 40, sequences: int = 3, most: int = 16
) -> SeeingToyExecutable:
    if kind == "slots":
        cache, admits = CacheShape("slots", 64, sequences), StepLimits(most, sequences, mixed=False, max_prefills=1)
    else:
        cache, admits = CacheShape("paged", PAGE, pages), StepLimits(most, sequences)
    return SeeingToyExecutable(cache, admits, ahead=ahead)


def engine_of(executable: SeeingToyExecutable, **options: Any) -> Engine:
    return Engine(executable, CONTEXT, graphs=graphs(), **({"max_patches": 2 * FRAME} | options))


def ask(engine: Engine, *requests: Request) -> list[SequenceState]:
    """All at once; each says what it must."""
    sequences = [engine.submit(request) for request in requests]
    list(engine.run(*sequences))
    for request, sequence in zip(requests, sequences, strict=True):
        assert sequence.generated == said(request, request.max_new_tokens)
    return sequences


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_chunks_and_company_change_nothing(kind: Literal["paged", "slots"], ahead: int) -> None:
    requests = [shown(CAT, 1, FILM), shown(1, 2, CAT, 5), shown(DOG, CAT), shown(7, 8), shown(3, DOG, new=1)]
    for chunk in (None, 1, 2, 5):
        for company in ([[each] for each in requests], [requests]):
            engine = engine_of(toy(kind, ahead=ahead), reuse=False)
            for together in company:
                ask(engine, *(replace(request, chunk=chunk) for request in together))


def test_the_same_picture_is_encoded_once() -> None:
    executable = toy()
    engine = engine_of(executable)
    ask(engine, shown(1, CAT, 2, CAT))
    assert executable.encoded == [6]
    ask(engine, shown(CAT, 3))  # nothing of it is in the cache
    ask(engine, shown(CAT, 4), shown(DOG, 4), shown(DOG, 5))  # two that come at once
    assert executable.encoded == [6, 6]
    stats = engine.stats()
    assert (stats.vision_steps, stats.patches, stats.features_found) == (2, 12, 1)


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_a_picture_found_in_the_cache_is_not_encoded(kind: Literal["paged", "slots"]) -> None:
    executable = toy(kind)
    engine = engine_of(executable, feature_bytes=0)
    ask(engine, shown(1, CAT, 2))
    (again,) = ask(engine, shown(1, CAT, 3))
    assert again.reused == 7 and executable.encoded == [6]
    (cut,) = ask(engine, shown(1, CAT))  # its last token has to enter in any case
    assert cut.reused == 6 and executable.encoded == [6, 6]


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_rows_of_another_picture_are_never_taken(kind: Literal["paged", "slots"]) -> None:
    engine = engine_of(toy(kind))
    first, second, third = shown(1, 2, CAT, 3), shown(1, 2, DOG, 3), shown(1, 2, CAT, 3)
    assert first.ids == second.ids
    reused = [ask(engine, request)[0].reused for request in (first, second, third)]
    assert reused == [0, 2, len(first.ids) - 1]
    text = replace(first, items=())
    assert ask(engine, text)[0].reused == 2


def test_a_conversation_goes_on_from_its_answer() -> None:
    engine = engine_of(toy())
    request = shown(1, CAT, 3)
    (first,) = ask(engine, request)
    (second,) = ask(engine, shown(1, CAT, 3, *first.generated, 5))
    assert second.reused == len(request.ids) + len(first.generated) - 1
    (third,) = ask(engine, shown(1, 2, 3))  # text begins like what had a picture behind it
    assert third.reused == 1


def test_features_outlive_preemption() -> None:
    executable = toy(pages=7, sequences=2)
    engine = engine_of(executable, feature_bytes=0)
    ask(engine, shown(CAT, 1, new=14), shown(DOG, 2, new=14))
    assert engine.stats().preemptions and executable.encoded == [6, 6]


def test_the_features_that_were_asked_for_longest_ago_give_way() -> None:
    executable = toy()
    two = 2 * CAT.tokens * 2 * 2  # of two numbers a token, in bfloat16
    engine = engine_of(executable, reuse=False, feature_bytes=two)
    for sketch in (CAT, DOG, CAT, Sketch([1, 2, 3, 4, 5, 6]), CAT, DOG):
        ask(engine, shown(sketch))
    assert len(executable.encoded) == 4  # the second one had gone when it came again
    ask(engine, shown(FILM))  # has no room
    ask(engine, shown(DOG))
    assert len(executable.encoded) == 4 + 3


def test_features_are_kept_without_the_picture() -> None:
    executable = toy()
    engine = engine_of(executable, max_patches=FRAME)
    for _ in range(2):
        sketch = Sketch(CAT.numbers)
        pixels = weakref.ref(sketch)
        ask(engine, shown(sketch, 1))
        del sketch
        gc.collect()
        assert pixels() is None
    assert executable.encoded == [3, 3]


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_others_wait_for_one_piece_of_a_long_video(kind: Literal["paged", "slots"], ahead: int) -> None:
    executable = toy(kind, ahead=ahead)
    engine = engine_of(executable, max_patches=FRAME)
    talking = engine.submit(shown(1, 2, new=20))
    for _ in range(3):
        engine.step()
    film, picture = engine.submit(shown(FILM, 1)), engine.submit(shown(CAT, 2))
    late = engine.submit(shown(5, 6))  # text that came after them passes by
    list(engine.run(talking, film, picture, late))
    steps = [step.graph for step in executable.steps[3:]]
    assert steps[: 2 * 8] == ["vision", "main"] * 8  # six pieces and two
    order = [step.extra["patches"][0, 0] for step in executable.steps if step.graph == "vision"]
    assert order[:5] == [1, 3, 4, 1, 7]  # they take turns
    for sequence in (talking, film, picture, late):
        assert sequence.generated == said(sequence.request, sequence.request.max_new_tokens)


def test_who_has_its_features_comes_before_those_that_came_later() -> None:
    engine = engine_of(toy(sequences=1))
    picture, passes, later = (engine.submit(request) for request in (shown(CAT), shown(1, 2), shown(3, 4)))
    list(engine.run(picture, passes, later))
    assert passes.admitted < picture.admitted < later.admitted


def test_what_comes_first_is_encoded_first() -> None:
    executable = toy()
    engine = engine_of(executable, max_patches=FRAME)
    film, picture = engine.submit(shown(FILM)), engine.submit(shown(CAT, priority=-1))
    list(engine.run(film, picture))
    assert [step.extra["patches"][0, 0] for step in executable.steps if step.graph == "vision"][:3] == [3, 1, 1]


def test_no_more_are_put_aside_than_there_are_seats() -> None:
    executable = toy("slots", sequences=2)
    engine = engine_of(executable)
    first, *others = (engine.submit(shown(sketch, new=20)) for sketch in (CAT, DOG, Sketch([9, 8, 7, 6, 5, 4])))
    engine.step()
    assert len(engine._scheduler.waiting.aside) == 2 and engine.stats().waiting == 3
    while len(executable.encoded) < 3:
        engine.step()
    assert first.finish is None  # the third is encoded as soon as the first is
    list(engine.run(first, *others))


def test_who_gives_up_makes_room_beside_the_seats() -> None:
    engine = engine_of(toy(sequences=1))
    film, picture = engine.submit(shown(FILM)), engine.submit(shown(CAT))
    engine.step()
    engine.cancel(film)
    for _ in range(20):
        engine.step()
    assert picture.generated == said(picture.request, picture.request.max_new_tokens)


@pytest.mark.parametrize("where", ["submit", "result", "pieces"])
@pytest.mark.parametrize("ahead", [0, 1])
def test_what_goes_wrong_with_a_picture_ends_who_shows_it(ahead: int, where: str) -> None:
    executable, cat = toy(ahead=ahead), Sketch(CAT.numbers)
    engine = engine_of(executable)
    other = engine.submit(shown(1, 2, new=12))
    engine.step()
    failure = RuntimeError("no eyes")
    if where == "pieces":
        cat.broken = failure
    else:
        executable.errors[where] = failure
    sequence, same, third = engine.submit(shown(cat)), engine.submit(shown(1, cat)), engine.submit(shown(DOG))
    list(engine.run(other, third))
    assert sequence.error is same.error is failure and not sequence.features
    assert other.generated == said(other.request, 12)
    cat.broken = None
    ask(engine, shown(cat))


@pytest.mark.parametrize("ahead", [0, 1])
def test_nobody_encodes_for_who_has_gone(ahead: int) -> None:
    executable = toy(ahead=ahead)
    engine = engine_of(executable, max_patches=FRAME)
    film = engine.submit(shown(FILM))
    engine.step()
    engine.step()
    engine.cancel(film)
    assert film.finish == "cancelled" and not film.features
    while engine.busy:
        engine.step()
    assert len(executable.encoded) == 2 - ahead
    ask(engine, shown(FILM))  # what was begun is nobody's
    assert len(executable.encoded) == 2 - ahead + 6


def test_a_picture_that_cannot_be_cut_has_to_fit() -> None:
    engine = engine_of(toy(), max_patches=FRAME - 1)
    sequence = engine.submit(shown(CAT))
    with pytest.raises(PromptError, match="frames of 3 patches; expected at most 2"):
        list(engine.run(sequence))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda features: features[:, :1], r"expected bf16\[F, 2\]; found float32 \[6, 1\]"),
        (lambda features: None, r"expected bf16\[F, 2\]; found none"),
        (lambda features: features[:5], "not as many features as tokens; expected 6; found 5"),
        (lambda features: features.repeat(2, 0), "not as many features as tokens; expected 6; found 12"),
    ],
)
def test_features_that_are_none(spoil: Callable[[Any], Any], found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = toy()
    engine = engine_of(executable)
    submit = executable.submit

    def spoiled(step: Any) -> Any:
        pending = submit(step)
        features = spoil(pending.value.taps["features"])
        taps = {} if features is None else {"features": features}
        return replace(pending, value=replace(pending.value, taps=taps))

    monkeypatch.setattr(executable, "submit", spoiled)
    with pytest.raises(BackendError, match=found):
        list(engine.run(engine.submit(shown(CAT))))


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([-1], "item 1 of 1 does not lie behind .* expected some of the tokens 0 to 19; found -1 to 4"),
        ([15], "item 1 of 1 does not lie behind .* expected some of the tokens 0 to 19; found 15 to 20"),
        ([2, 7], "item 2 of 2 does not lie behind .* expected some of the tokens 8 to 19; found 7 to 12"),
        ([8, 1], "item 2 of 2 does not lie behind .* expected some of the tokens 14 to 19; found 1 to 6"),
    ],
)
def test_items_lie_one_behind_the_other_in_the_prompt(places: list[int], message: str) -> None:
    request = Request((PLACEHOLDER,) * 20, 3, items=tuple(PlacedItem(place, CAT) for place in places))
    with pytest.raises(PromptError, match=message):
        engine_of(toy()).submit(request)


def test_a_model_of_text_takes_no_pictures() -> None:
    with pytest.raises(PromptError, match="the model takes in text alone; found 1 pictures or videos"):
        Engine(toy(), CONTEXT).submit(replace(shown(CAT), inputs={}))


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_a_picture_in_rows_behind_a_change_is_not_encoded(
    kind: Literal["paged", "slots"], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rows, slots):
        monkeypatch.setattr(module, "LEAST_ANYWHERE", PAGE)
    executable = toy(kind)
    engine = engine_of(executable, feature_bytes=0)
    ask(engine, shown(1, 2, 3, 4, CAT, 5, 6, 7, 8, 9))
    sequence = engine.submit(shown(2, 2, 3, 4, CAT, 5, 6, 7, 8, 0, reuse_after_change=True))
    list(engine.run(sequence))
    assert sequence.holes == ((4 if kind == "paged" else 1, 12 if kind == "paged" else 14),)
    assert executable.encoded == [6]
    sequence = engine.submit(shown(2, 2, 3, 4, DOG, 5, 6, 7, 8, 0, reuse_after_change=True))
    list(engine.run(sequence))
    assert executable.encoded == [6, 6]


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_other_places_of_the_same_picture_are_others(
    kind: Literal["paged", "slots"], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rows, slots):
        monkeypatch.setattr(module, "LEAST_ANYWHERE", PAGE)
    engine = engine_of(toy(kind))
    moved = [replace(shown(*ids, FILM, 1), inputs={}, reuse_after_change=True) for ids in ((1, 2), (1, 2, 3))]
    for request in moved:
        sequence = engine.submit(request)
        list(engine.run(sequence))
        assert not sequence.holes


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_rows_of_pictures_are_kept_on_disk(kind: Literal["paged", "slots"], tmp_path: Path) -> None:
    def opened() -> tuple[Engine, SeeingToyExecutable]:
        executable = toy(kind)
        kept = KeptRows(RowStore(tmp_path / "rows", 1 << 20), b"", executable, 8, chunk=4)
        return engine_of(executable, kept=kept), executable

    request, other = shown(1, CAT, 2, 3), shown(1, DOG, 2, 3)
    first, _ = opened()
    ask(first, request)
    first.close()
    second, executable = opened()
    assert ask(second, other)[0].reused == 0
    assert ask(second, request)[0].reused == 8 and executable.encoded == [6]
    second.close()

    damaged = sorted((tmp_path / "rows").glob("*.rows"))
    for record in damaged:
        record.write_bytes(record.read_bytes()[:-1])
    third, executable = opened()
    (sequence,) = ask(third, request)
    assert sequence.cached == 0 and executable.encoded == [6]  # seated in vain, and put aside
    third.close()


def test_who_was_seated_in_vain_lets_no_more_be_put_aside(tmp_path: Path) -> None:
    def opened() -> Engine:
        executable = toy(sequences=1)
        kept = KeptRows(RowStore(tmp_path / "rows", 1 << 20), b"", executable, 8, chunk=4)
        return engine_of(executable, kept=kept, max_patches=FRAME)

    first = opened()
    ask(first, shown(1, CAT, 2, 3))
    first.close()
    for record in (tmp_path / "rows").glob("*.rows"):
        record.write_bytes(record.read_bytes()[:-1])
    second = opened()
    sequences = [second.submit(each) for each in (shown(DOG), shown(1, CAT, 2, 3), shown(FILM), shown(FILM, 1))]
    for _ in range(2):
        second.step()
    assert len(second._scheduler.waiting.aside) == 2
    list(second.run(*sequences))
    second.close()


def test_features_are_shared_within_a_namespace_alone() -> None:
    executable = toy()
    engine = engine_of(executable)
    for namespace, steps in ((b"a", 1), (b"a", 1), (b"b", 2), (b"", 3), (b"b", 3)):
        ask(engine, shown(steps, CAT, namespace=namespace))
        assert len(executable.encoded) == steps
