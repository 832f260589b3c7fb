"""Rotary tables against torch and transformers."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from transformers import Ernie4_5Config
from transformers.models.ernie4_5.modeling_ernie4_5 import Ernie4_5RotaryEmbedding

from ernie_rt.storage.rope import RopeTable, inverse_frequencies, rope_table


@pytest.mark.parametrize("theta", [1e4, 5e5])
@pytest.mark.parametrize("head_dim", [16, 32, 64, 128])
def test_frequencies_are_torchs_to_the_bit(head_dim: int, theta: float) -> None:
    expected = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    got = inverse_frequencies(head_dim, theta)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected.numpy())


@pytest.mark.parametrize(("head_dim", "theta"), [(6, 1e4), (96, 5e5), (256, 1e6), (128, 10000.7), (80, 1.0)])
def test_frequencies_are_torchs_to_an_ulp(head_dim: int, theta: float) -> None:
    expected = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    np.testing.assert_array_max_ulp(inverse_frequencies(head_dim, theta), expected.numpy(), maxulp=2)


@pytest.mark.parametrize(("head_dim", "theta", "rows"), [(128, 5e5, 10_000), (32, 1e4, 5000)])
def test_tables_are_those_of_transformers(head_dim: int, theta: float, rows: int) -> None:
    embedding = Ernie4_5RotaryEmbedding(
        Ernie4_5Config(head_dim=head_dim, rope_parameters={"rope_type": "default", "rope_theta": theta})
    )
    expected = embedding(torch.zeros(1), torch.arange(rows)[None])  # cos and sin, each [1, rows, D]: two equal halves
    for function, theirs in zip(("cos", "sin"), expected, strict=True):
        got = rope_table(RopeTable(function, theta), rows, head_dim // 2)
        assert got.dtype == np.float32 and got.shape == (rows, head_dim // 2)
        np.testing.assert_allclose(got, theirs[0, :, : head_dim // 2].numpy(), rtol=0, atol=6e-8)


def test_angles_are_rounded_to_float32_before_their_cosine() -> None:
    """At position 131,071 the rounding of the angle, not that of the cosine, is what shows."""
    frequencies = inverse_frequencies(128, 5e5)
    rows = 131_072
    table = rope_table(RopeTable("cos", 5e5), rows, 64)
    last = np.float32(rows - 1)
    np.testing.assert_array_equal(table[-1], np.cos((last * frequencies).astype(np.float64)).astype(np.float32))
    assert np.abs(table[-1] - np.cos(float(last) * frequencies.astype(np.float64))).max() > 1e-4


def test_compression_divides_positions() -> None:
    np.testing.assert_array_equal(
        rope_table(RopeTable("sin", 5e5, 4.0), 41, 8)[::4], rope_table(RopeTable("sin", 5e5), 11, 8)
    )
    third = rope_table(RopeTable("cos", 5e5, 3.0), 6, 8)[5]
    angle = np.float32(5 / 3) * inverse_frequencies(16, 5e5)
    np.testing.assert_array_equal(third, np.cos(angle.astype(np.float64)).astype(np.float32))


def test_temporaries_are_bounded() -> None:
    rows, columns = 32_768, 64
    tracemalloc.start()
    table = rope_table(RopeTable("cos", 5e5), rows, columns)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < table.nbytes + 8 * 2**20
