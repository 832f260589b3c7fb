"""Do eager and cudagraph conform on this device? The suite, and the tests that take a device."""

from __future__ import annotations

import argparse
from typing import Final

from gpu_parts.card import Card
from gpu_parts.commands import conform, run_all, tests
from gpu_parts.report import Report

TESTS: Final = ("tests/backends/test_eager_sampler.py", "tests/parity/test_eager_parity.py")


def run(card: Card, report: Report, given: argparse.Namespace) -> None:
    device, dry = card.device.type, card.dry
    commands = [
        conform("cudagraph", device, "bfloat16", dry=dry),
        conform("eager", device, "float32", dry=dry),
        conform("eager", device, "bfloat16", dry=dry),
        conform("cudagraph", device, "float32", dry=dry),
        conform("eager", device, "float16", dry=dry),
        conform("eager", device, "bfloat16", "--storage", "int4", dry=dry),
        conform("eager", device, "bfloat16", "--storage", "int8", dry=dry),
        *(tests(path, device, dry=dry) for path in TESTS),
    ]
    run_all(report, f"Conformance and tests on {device}", commands)
