"""What a card can do at best: bytes read and copied a second, products a second, and the gap between kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from gpu_parts.card import Card
from gpu_parts.report import Cell, Measured, Report

PROGRAMS_AHEAD = 8
"""Programs of the reading kernel for each multiprocessor."""
BLOCK = 4096
KERNELS = 200
"""Empty kernels in the graph whose gap is measured."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Measured: bytes a second, and bfloat16 operations a second."""

    read: float
    flops: float


@triton.jit
def read_kernel(numbers, sums, blocks, BLOCK: tl.constexpr):
    """Each program sums every blocks-th block, so that all is read once and next to nothing is written."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    places = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.int32)
    for block in range(program, blocks, programs):
        total ^= tl.load(numbers + block * BLOCK + places)
    tl.store(sums + program * BLOCK + places, total)


@triton.jit
def nothing_kernel(numbers):
    pass


def measure(card: Card, report: Report) -> Ceilings:
    table = report.table("What the card does at best", "ceiling".ljust(44), "figure", "unit", "of data sheet, %")
    nbytes = 1 << 12 if card.dry else 1 << 32
    read, copied = read_speed(card, nbytes), copy_speed(card, nbytes)
    flops = product_speed(card)
    bandwidth, peak = (card.sheet.bandwidth, card.sheet.flops.get("bfloat16")) if card.sheet else (None, None)
    table.row("read", Measured(read / 1e12), "TB/s", share_of(read, bandwidth))
    table.row("copy, bytes read and written", Measured(copied / 1e12), "TB/s", share_of(copied, bandwidth))
    table.row("bfloat16 product, 8192 x 8192 x 8192", Measured(flops / 1e12), "TFLOP/s", share_of(flops, peak))
    table.row("from one empty kernel to the next in a graph", Measured(1e6 * gap(card)), "us", "")
    return Ceilings(read, flops)


def share_of(figure: float, promised: float | None) -> Cell:
    """In percent; nothing where there is no data sheet."""
    return Measured(100 * figure / promised) if promised else ""


def read_speed(card: Card, nbytes: int) -> float:
    """Bytes a second."""
    numbers = torch.ones(nbytes // 4, dtype=torch.int32, device=card.device)
    programs = 2 if card.dry else PROGRAMS_AHEAD * torch.cuda.get_device_properties(card.device).multi_processor_count
    block = 128 if card.dry else BLOCK
    sums = torch.empty(programs * block, dtype=torch.int32, device=card.device)
    seconds = card.seconds(lambda: read_kernel[(programs,)](numbers, sums, len(numbers) // block, BLOCK=block))
    return nbytes / seconds


def copy_speed(card: Card, nbytes: int) -> float:
    """Bytes read and written a second."""
    source = torch.ones(nbytes // 4, dtype=torch.int32, device=card.device)
    target = torch.empty_like(source)
    return 2 * nbytes / card.seconds(lambda: target.copy_(source))


def product_speed(card: Card) -> float:
    """Operations a second of a large product of random numbers (zeros are multiplied faster)."""
    size = 32 if card.dry else 8192
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=card.device) for _ in range(2))
    return 2 * size**3 / card.seconds(lambda: a @ b, runs=10)


def gap(card: Card) -> float:
    """Seconds that an empty kernel takes among others in a graph."""
    numbers = torch.zeros(1, device=card.device)

    def work() -> None:
        for _ in range(KERNELS):
            nothing_kernel[(1,)](numbers)

    return card.seconds(card.recorder().record(work)) / KERNELS
