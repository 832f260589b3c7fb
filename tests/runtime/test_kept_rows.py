"""What one process computed the next one finds on disk; whatever goes wrong there harms no request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.errors import WriteError
from ernie_rt.runtime import kept_rows, rows, slots
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.inputs import PerToken
from ernie_rt.runtime.kept_rows import KeptRows
from ernie_rt.runtime.row_store import RowStore
from ernie_rt.runtime.sequence import Request, SequenceState
from support.toy import VOCAB, DeepToyExecutable, answer

SIZE = 4
IDS = tuple(number * 5 % 13 for number in range(30))


@pytest.fixture(autouse=True)
def little_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows, slots):
        monkeypatch.setattr(module, "LEAST_ANYWHERE", SIZE)


Open = Callable[..., Engine]


@pytest.fixture(params=["paged", "slots"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Engines with rows on disk, one process after the other."""
    engines: list[Engine] = []

    def opened(model: bytes = b"a", nbytes: int = 1 << 20, ahead: int = 0) -> Engine:
        paged = request.param == "paged"
        cache = CacheShape("paged", SIZE, 60) if paged else CacheShape("slots", 64, 3)
        admits = StepLimits(16, 3) if paged else StepLimits(16, 3, mixed=False, max_prefills=1)
        executable = DeepToyExecutable(cache, admits, ahead=ahead)
        kept = KeptRows(RowStore(tmp_path / "cache", nbytes), model, executable, 8, chunk=8)
        engines.append(Engine(executable, 64, kept=kept))
        return engines[-1]

    yield opened
    for engine in engines:
        engine.close()


def ask(engine: Engine, ids: tuple[int, ...] = IDS, new: int = 3, **options: object) -> SequenceState:
    sequence = engine.submit(Request(ids, new, **options))  # type: ignore[arg-type]
    list(engine.run(sequence))
    assert sequence.error is None
    if not sequence.holes:
        assert sequence.generated == answer(ids, new)
        found = engine._scheduler.rows.where(sequence.request.namespace, sequence.identity(len(ids)))
        assert found is not None
        held = engine._executable._rows[found].tolist()  # type: ignore[attr-defined]
        assert [row % VOCAB for row in held] == [answer(ids[:count], 1)[0] for count in range(1, len(ids) + 1)]
    return sequence


def records(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.rows"), key=lambda each: -each.stat().st_mtime_ns)


@pytest.mark.parametrize("ahead", [0, 1])
def test_the_next_process_finds_whole_chunks(opened: Open, tmp_path: Path, ahead: int) -> None:
    first = opened(ahead=ahead)
    assert ask(first).cached == 0
    first.close()
    assert len(records(tmp_path)) == 3  # of 30 tokens
    second = opened(ahead=ahead)
    assert ask(second).cached == 24
    assert ask(second, (*IDS[:20], 1, 1)).cached == 20  # by what is in memory now
    assert ask(opened(ahead=ahead), IDS[:24]).cached == 16  # the last token has to enter
    assert ask(opened(ahead=ahead), (*IDS[:16], *IDS)).cached == 16


def test_memory_and_disk_together(opened: Open) -> None:
    first = opened()
    ask(first)
    first.close()
    second = opened()
    ask(second, (*IDS[:11], 0, 0))
    assert ask(second).cached == 24
    assert ask(second, (*IDS, 4)).cached == 30


def test_several_that_begin_alike_at_once(opened: Open) -> None:
    first = opened()
    ask(first)
    first.close()
    second = opened()
    texts = [IDS, (*IDS, 3), (*IDS[:17], 0, 0)]
    sequences = [second.submit(Request(ids, 4)) for ids in texts]
    list(second.run(*sequences))
    assert [each.generated for each in sequences] == [answer(ids, 4) for ids in texts]
    assert all((each.cached or 0) >= 16 for each in sequences)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("together", [False, True])
def test_damage_costs_what_lies_behind_it(opened: Open, tmp_path: Path, which: int, together: bool) -> None:
    first = opened()
    ask(first)
    first.close()
    broken = records(tmp_path)[which]
    *rest, last = broken.read_bytes()
    broken.write_bytes(bytes((*rest, last ^ 1)))  # the digest follows from a secret: any byte put there may be its own
    second = opened()
    sequences = [second.submit(Request(IDS, 3)) for _ in range(1 + together)]
    list(second.run(*sequences))
    assert all(each.generated == answer(IDS, 3) for each in sequences)
    assert sequences[0].cached == sequences[0].reused == 8 * which
    assert second.stats().cached_tokens == sum(each.cached or 0 for each in sequences)
    second.close()
    assert len(records(tmp_path)) == 3, "what was damaged is not kept anew"


def test_who_wants_all_logits_computes_them(opened: Open) -> None:
    first = opened()
    ask(first)
    first.close()
    second = opened()
    sequence = second.submit(Request(IDS, 0, all_logits=True, reuse_after_change=True))
    list(second.run(sequence))
    assert sequence.reused == 0 and sum(map(len, sequence.logits)) == len(IDS)


def test_rows_belong_to_model_namespace_and_inputs(opened: Open, tmp_path: Path) -> None:
    first = opened()
    ask(first, namespace=b"mine")
    first.close()
    assert ask(opened(), namespace=b"").cached == 0
    assert ask(opened(), namespace=b"mind").cached == 0
    assert ask(opened(model=b"b"), namespace=b"mine").cached == 0
    assert ask(opened(), namespace=b"mine").cached == 24
    written = b"".join(each.read_bytes() + each.name.encode() for each in records(tmp_path))
    assert b"mine" not in written


def test_inputs_of_tokens_are_compared(opened: Open) -> None:
    engine = opened()
    kept = engine._kept
    assert kept is not None
    kinds = np.zeros((30,), np.int32)
    other = kinds.copy()
    other[9] = 1
    plain, first, second = (
        SequenceState(Request(IDS, 1, inputs={} if kind is None else {"kind": PerToken(kind)})).identity(30)
        for kind in (None, kinds, other)
    )
    names = [[chunk.name for chunk in kept._chunks(b"", each)] for each in (plain, first, second)]
    assert names[1][0] == names[2][0] and not {*names[1][1:]} & {*names[2][1:]} and not {*names[0]} & {*names[1]}


def test_short_prompts_are_not_kept(opened: Open, tmp_path: Path) -> None:
    engine = opened()
    ask(engine, IDS[:7], new=20)
    engine.close()
    assert records(tmp_path) == []


def test_what_is_kept_is_written_while_the_engine_works(opened: Open, tmp_path: Path) -> None:
    engine = opened()
    ask(engine, new=1)
    assert engine.busy  # chunks are due
    while engine.busy:
        engine.step()
    engine.close()
    assert len(records(tmp_path)) == 3


def test_what_comes_faster_than_it_is_written_is_not_kept(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_rows, "MOST_DUE", 4)
    engine = opened()
    kept = engine._kept
    assert kept is not None
    for start in range(20):
        kept.keep(b"", SequenceState(Request((start, *IDS), 1)).identity(31))
    assert [chunk.stop for _, _, chunk in kept._due] == [8, 16, 24, 8] and len(kept._names) == 4
    while engine.busy:
        engine.step()
    assert not kept._names
    ask(engine)
    engine.close()
    assert len(records(tmp_path)) == 3


@pytest.mark.parametrize("new", [(1, 9), (9, 1), (4, 9), (3, 3)])
def test_rows_that_move_meanwhile_are_kept_as_they_are(opened: Open, new: tuple[int, int]) -> None:
    """Where one ends, others move to its slot, and what it leaves to another one."""
    engine = opened()
    prompts = [(start, *IDS) for start in range(2)]
    list(engine.run(*(engine.submit(Request(ids, count)) for ids, count in zip(prompts, new, strict=True))))
    engine.close()
    again = opened()
    assert [ask(again, ids).cached for ids in prompts] == [24, 24]


def test_rows_that_follow_from_a_former_text_are_not_kept(opened: Open, tmp_path: Path) -> None:
    engine = opened()
    ask(engine)
    other = (9, *IDS[1:], 5, 6, 7)
    assert ask(engine, other, reuse_after_change=True).cached_after_change
    engine.close()
    assert len(records(tmp_path)) <= 4
    assert (ask(opened(), other).cached or 0) <= 8


def test_behind_rows_from_disk_may_be_a_change(opened: Open) -> None:
    first = opened()
    ask(first)
    first.close()
    second = opened()
    ask(second, (1, *IDS[1:], *IDS))
    sequence = ask(second, (*IDS, *IDS), reuse_after_change=True)
    assert sequence.cached == 24 and sequence.cached_after_change >= 24


@pytest.mark.parametrize("place", range(3))
def test_damage_before_a_hole(opened: Open, tmp_path: Path, place: int) -> None:
    """The hole may begin where the rows from disk were to end."""
    first = opened()
    ask(first)
    first.close()
    records(tmp_path)[place].write_bytes(b"")
    second = opened()
    former = (1, *IDS[1:], *IDS)
    ask(second, former)
    sequence = ask(second, (*IDS, *IDS), reuse_after_change=True)
    assert sequence.cached == 8 * place and sequence.generated == answer(former, 3)


def test_a_full_disk_harms_no_request(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()

    def fail(*_: object) -> None:
        raise WriteError("cannot be written", where="there", found="No space left on device")

    monkeypatch.setattr(RowStore, "write", fail)
    for turn in range(3):
        ask(engine, (turn, *IDS))
    engine.close()
    assert engine._kept is not None
    assert engine._kept.failure == "there: cannot be written; found No space left on device"


def test_rows_that_cannot_be_read_harm_no_request(opened: Open, tmp_path: Path) -> None:
    engine = opened()
    engine._executable.errors["read_rows"] = RuntimeError("gone")  # type: ignore[attr-defined]
    ask(engine, new=9)
    engine.close()
    assert engine._kept is not None and engine._kept.failure == "RuntimeError: gone"
    assert len(records(tmp_path)) == 2


def test_rows_that_cannot_be_taken_in_are_an_error_of_the_step(opened: Open) -> None:
    first = opened()
    ask(first)
    first.close()
    second = opened()
    second._executable.errors["write_rows"] = RuntimeError("gone")  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="gone"):
        list(second.run(second.submit(Request(IDS, 3))))
    assert ask(second).cached == 24


def test_the_end_of_a_text_gives_way_first(opened: Open, tmp_path: Path) -> None:
    engine = opened()
    ask(engine)
    engine.close()
    store = RowStore(tmp_path / "cache", sum(each.stat().st_size for each in records(tmp_path)))
    store.write("f" * 64, b"", b"", 1 << 62)
    assert ask(opened()).cached == 16


def test_it_stays_within_its_bound(opened: Open, tmp_path: Path) -> None:
    engine = opened(nbytes=2000)
    for start in range(9):
        ask(engine, (start, *IDS), new=6)
    engine.close()
    assert 0 < sum(each.stat().st_size for each in records(tmp_path)) <= 2000
    assert ask(opened(), (8, *IDS)).cached == 24


def test_a_chunk_that_is_there_is_used_and_not_written_again(opened: Open, tmp_path: Path) -> None:
    first = opened()
    ask(first)
    first.close()
    for each in records(tmp_path):
        os.utime(each, (1, 1))
    inodes = {each.stat().st_ino for each in records(tmp_path)}
    second = opened()
    ask(second, new=6)
    second.close()
    assert {each.stat().st_ino for each in records(tmp_path)} == inodes
    assert all(each.stat().st_mtime > 2 for each in records(tmp_path))
