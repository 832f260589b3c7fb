"""Kernels of cudagraph on a CPU, by Triton's interpreter, which is chosen where a kernel is defined."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]  # tests/backends/test_cudagraph_absent.py says so
else:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        kernels = importlib.import_module("ernie_rt_cudagraph.kernels")
        for found in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
            importlib.import_module(found.name)


@pytest.fixture(scope="module", autouse=True)
def interpreted() -> Iterator[None]:
    from support.interpreted import compute_nothing_in_vain, replace_once_a_launch, watch_bounds

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        replace_once_a_launch(patch)
        compute_nothing_in_vain(patch)
        watch_bounds(patch)
        yield


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Whatever PyTorch allocates is full of NaN until somebody writes it."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def coarse() -> Iterator[None]:
    """Whole models in a few large programs: the interpreter takes its time for each one, whatever it computes."""
    from ernie_rt_cudagraph.kernels import attention, experts, head, linear, routing

    with pytest.MonkeyPatch.context() as patch:

        def enlarge(where: object, name: str, **sizes: int) -> None:
            of = getattr(where, name)

            def enlarged(*shape: object, **options: object) -> object:
                found = of(*shape, **options)
                return found._replace(**{size: max(number, getattr(found, size)) for size, number in sizes.items()})

            patch.setattr(where, name, enlarged)

        enlarge(linear.Tiles, "of", ROWS=128)
        enlarge(experts, "gate_up_sizes", ROWS=128)
        enlarge(experts, "down_sizes", ROWS=128)
        enlarge(head, "tiles", ROWS=1024)
        enlarge(routing, "begin_sizes", PAIRS=64, GATES=64)
        patch.setattr(attention, "MAX_SPLITS", 2)
        yield
