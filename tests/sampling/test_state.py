"""What a sequence's tokens so far rule out and count."""

from __future__ import annotations

from ernie_rt.sampling.params import SamplingParams
from support.sampling import state_of


def test_bad_words_look_at_the_last_tokens() -> None:
    params = SamplingParams(bad_words=((9,), (4, 5), (3, 4, 6), (1, 3, 4, 7)))
    assert state_of(params, [1, 3], [4]).masked() == [9, 5, 6, 7]  # across the end of the prompt
    assert state_of(params, [2, 3, 4]).masked() == [9, 5, 6]
    assert state_of(params, [4, 3]).masked() == [9]
    assert state_of(params, [4]).masked() == [9, 5]
    assert state_of(params, [1, 3, 4], [0]).masked() == [9]


def test_stop_ids_are_ruled_out_for_so_many_tokens() -> None:
    params = SamplingParams(min_new_tokens=2)
    told = [state_of(params, [1, 2], [3] * count, stop_ids=(8, 5)).masked() for count in range(4)]
    assert told == [[5, 8], [5, 8], [], []]


def test_counts_tell_the_prompt_from_what_was_generated() -> None:
    ids, counts = state_of(SamplingParams(repetition_penalty=2), [7, 7, 1], [7, 4, 4, 4]).counted()
    assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == {7: 1, 1: 0, 4: 3}


def test_without_a_constraint_the_text_may_end_and_go_on() -> None:
    state = state_of(SamplingParams())
    assert state.may_end and not state.complete and not state.constrained


def test_a_state_knows_its_place() -> None:
    assert state_of(SamplingParams(), [5, 6, 7]).position == 3
    assert state_of(SamplingParams(), [5, 6, 7], [1, 2]).position == 5
