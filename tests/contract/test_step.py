from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.contract import Step
from ernie_rt.contract.step import INDEX_ARRAYS
from ernie_rt.modeling.ernie45 import INDEX_INPUTS


def array(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_arrays_of_a_mixed_step() -> None:
    """Sequence 0 brings two tokens after three, sequence 1 its first one; pages of two rows."""
    step = Step(
        ids=array(10, 11, 20),
        query_start=array(0, 2, 3),
        past=array(3, 0),
        tables=np.array([[5, 1, 3], [2, -1, -1]], np.int32),
        page_size=2,
        seats=array(0, 1),
        rows=array(1, 2),
    )
    arrays = {name: step.input(name).tolist() for name in INDEX_ARRAYS}
    assert arrays == {
        "ids": [10, 11, 20],
        "positions": [[3], [4], [0]],
        "sequence": [0, 0, 1],
        "seat": [0, 0, 1],
        "index": [3, 4, 0],
        "write": [3, 6, 4],
        "context": [10, 11, 2, 3, 6, 4],
        "context_sequence": [0, 0, 0, 0, 0, 1],
        "context_index": [0, 1, 2, 3, 4, 0],
        "rows": [1, 2],
    }
    assert {name for name, _ in INDEX_INPUTS} <= set(arrays)
    assert all(step.input(name).dtype == np.int32 for name in INDEX_ARRAYS)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=5), st.integers(1, 7))
def test_every_token_sees_its_own_past_and_itself(parts: list[tuple[int, int]], page_size: int) -> None:
    """By the index arrays alone, as a backend of primitives reads them."""
    lengths = [past + new for past, new in parts]
    pages = [-(-length // page_size) for length in lengths]
    order = iter(np.random.default_rng(0).permutation(sum(pages)).tolist())
    tables = np.full((len(parts), max(pages)), -1, np.int32)
    for row, count in zip(tables, pages, strict=True):
        row[:count] = [next(order) for _ in range(count)]
    new = [count for _, count in parts]
    step = Step(
        ids=np.zeros(sum(new), np.int32),
        query_start=np.array([0, *np.cumsum(new)], np.int32),
        past=np.array([past for past, _ in parts], np.int32),
        tables=tables,
        page_size=page_size,
        seats=np.arange(len(parts), dtype=np.int32),
        rows=array(0),
    )
    same = step.context_sequence[None] == step.sequence[:, None]
    visible = same & (step.context_index[None] <= step.index[:, None])
    assert visible.sum(1).tolist() == [past + i + 1 for past, count in parts for i in range(count)]
    assert len(set(step.context.tolist())) == sum(lengths)  # no row belongs to two tokens
    own = visible & (step.context_index[None] == step.index[:, None])
    assert step.context[own.argmax(1)].tolist() == step.write.tolist()
