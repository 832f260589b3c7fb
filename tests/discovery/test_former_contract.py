"""Backends that were written for an earlier contract are told what changed, by name."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

import ernie_rt
from ernie_rt.contract import (
    Accept,
    CacheShape,
    Done,
    MemoryReport,
    Numerics,
    OpNumerics,
    SimpleBackend,
    StepLimits,
    StepResult,
)
from ernie_rt.errors import BackendError
from support.mutants import host_of
from support.rehearsal import MODELS, Weights


class FormerExecutable:
    """By docs/backends.md of plugin API 1."""

    samples = True
    cache = CacheShape("paged", 16, 4)
    admits = StepLimits(16, 1)

    def submit(self, step: Any) -> Done:
        return Done(StepResult(logits=step.inputs() if step.want_logits else None))

    def copy(self, source: int, destination: int, length: int) -> None:
        raise AssertionError

    def memory(self) -> MemoryReport:
        return MemoryReport(1, 1)

    def close(self) -> None:
        pass


class FormerBackend:
    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def claims(self, node: Any, target: Any) -> Accept:
        return Accept()

    def accepts(self, storage: Any, target: Any) -> bool:
        return False

    def numerics(self, target: Any) -> Numerics:
        return Numerics(OpNumerics("float32", "float32"))

    def compile(self, lowerings: Any, weights: Any, target: Any, limits: Any) -> FormerExecutable:
        return FormerExecutable()


class FormerExecutableOfABase(SimpleBackend):
    def claims(self, node: Any, target: Any) -> Accept:
        return Accept()

    def compile(self, lowerings: Any, weights: Any, target: Any, limits: Any) -> Any:
        return FormerExecutable()


@pytest.mark.parametrize(
    ("backend", "lacking"), [(FormerBackend, "FormerBackend has no bill"), (FormerExecutableOfABase, "has no ahead")]
)
def test_what_a_former_backend_lacks_is_named(backend: type, lacking: str) -> None:
    with pytest.raises(BackendError, match=lacking) as caught:
        ernie_rt.load(MODELS["dense"], backend="mutant", host=host_of(backend), weights=Weights(), max_context=16)
    assert "of plugin API 2" in str(caught.value) and "read `What changed` in docs/backends.md" in str(caught.value)


def test_an_import_that_has_another_name_now_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_of(FormerBackend)
    module = sys.modules["ernie_rt_test_mutant"]

    def former() -> object:
        return importlib.import_module("ernie_rt.backend")

    monkeypatch.setattr(module, "Backend", former)
    with pytest.raises(BackendError, match=r"No module named 'ernie_rt\.backend'\. It was not written for"):
        host.backend("mutant")
