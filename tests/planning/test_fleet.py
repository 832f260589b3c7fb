"""Which devices hold a model, and how several share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.contract import MemoryReport
from ernie_rt.planning.device import GIB, MIB, Device, find_device, known_devices, room
from ernie_rt.planning.fleet import MOST, counts, holders, on_each

CARDS = [find_device(name) for name in ("T4", "L4", "RTX 4090", "A100 40GB", "H100 SXM", "H200")]
MODEL_300B = MemoryReport(597 * 10**9, 29 * 10**9, 2 * GIB)


def names(bill: MemoryReport, devices: list[Device], query_heads: int = 64, kv_heads: int = 8) -> list[str]:
    return [f"{held.count} x {held.device.name}" for held in holders(bill, query_heads, kv_heads, devices)]


def test_the_smallest_that_holds_it_comes_first() -> None:
    bill = MemoryReport(20 * GIB, 2 * GIB, GIB // 4)
    assert names(bill, CARDS) == [
        "1 x NVIDIA GeForce RTX 4090",
        "1 x NVIDIA A100 40GB",
        "1 x NVIDIA H100 SXM",
        "1 x NVIDIA H200 SXM",
        "2 x NVIDIA T4",
        "2 x NVIDIA L4",
    ]


def test_of_equal_memory_the_faster_comes_first() -> None:
    pcie, sxm = find_device("H100 PCIe"), find_device("H100 SXM")
    assert [held.device for held in holders(MemoryReport(GIB, 0), 8, 8, [pcie, sxm])] == [sxm, pcie]


def test_a_large_model_on_as_many_as_it_takes() -> None:
    quantised = MemoryReport(160 * 10**9, 29 * 10**9, 2 * GIB)
    assert names(MODEL_300B, CARDS) == ["8 x NVIDIA H100 SXM", "8 x NVIDIA H200 SXM"]
    assert names(quantised, CARDS) == [
        "2 x NVIDIA H200 SXM",
        "4 x NVIDIA H100 SXM",
        "8 x NVIDIA A100 40GB",
        "16 x NVIDIA L4",
        "16 x NVIDIA GeForce RTX 4090",
    ]


def test_heads_bound_how_many_share_a_model() -> None:
    assert list(counts(20)) == [1, 2, 4]
    assert list(counts(64)) == [1, 2, 4, 8, 16]
    assert list(counts(128))[-1] == MOST
    assert list(counts(5)) == [1]
    assert names(MODEL_300B, CARDS, query_heads=20) == []


def test_only_cards_are_several() -> None:
    assert names(MemoryReport(100 * GIB, 0), [find_device("M4 24GB"), find_device("9950X 64GB")]) == []
    assert names(MemoryReport(17 * GIB, 0), [find_device("M4 24GB"), find_device("M4 32GB")]) == ["1 x Apple M4 32GB"]


def test_what_each_holds() -> None:
    bill = MemoryReport(800, 80, 7, mapped_bytes=100)  # what a CPU would map, a card holds
    assert [on_each(bill, 4, count) for count in (1, 2, 4, 8)] == [887, 447, 227, 127]
    assert on_each(MemoryReport(9, 0), 1, 2) == 5


def test_all_but_the_context_may_be_filled() -> None:
    card = find_device("L4")
    assert len(holders(MemoryReport(room(card), 0), 1, 1, [card])) == 1
    assert holders(MemoryReport(room(card) + 1, 0), 1, 1, [card]) == ()


@given(
    weights=st.integers(0, 1 << 40), cache=st.integers(0, 1 << 38), workspace=st.integers(0, 1 << 33),
    query=st.integers(1, 64), kv=st.integers(1, 16),
)  # fmt: skip
def test_who_is_named_holds_it_and_half_as_many_do_not(
    weights: int, cache: int, workspace: int, query: int, kv: int
) -> None:
    bill = MemoryReport(weights, cache, workspace)
    found = holders(bill, query, kv, CARDS)
    for held in found:
        assert held.nbytes == on_each(bill, kv, held.count) <= held.room == room(held.device)
        assert query % held.count == 0
        assert held.count == 1 or on_each(bill, kv, held.count // 2) > held.room
    assert len({held.device.name for held in found}) == len(found)


def test_a_small_model_fits_nearly_all() -> None:
    bill = MemoryReport(722 * 10**6, 76 * 10**6, 100 * MIB)
    found = holders(bill, 16, 2, [device for device in known_devices() if device.kind != "cpu"])
    assert all(held.count == 1 for held in found)
    assert found[0].device.name == "Apple M2 8GB"


@pytest.mark.parametrize("heads", [(1, 1), (20, 4)])
def test_nothing_holds_what_is_too_large(heads: tuple[int, int]) -> None:
    assert holders(MemoryReport(1 << 50, 0), *heads, CARDS) == ()
