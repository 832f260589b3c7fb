"""Level 0 sees a backend that says what is not true."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from ernie_rt.conformance import Suite
from ernie_rt.conformance.metadata import light_import
from ernie_rt.contract import Accept, MemoryReport, Numerics, OpNumerics, Reject, StepLimits
from ernie_rt.discovery.installed import Plugin
from support.mutants import Executable, NumpyBackend, host_of

count = itertools.count()
chance = random.Random(7)


def numerics(default: OpNumerics, **ops: OpNumerics) -> Callable[..., Numerics]:
    return lambda self, target: Numerics(default, ops)


FLOAT32 = OpNumerics("float32", "float32")


class Liar(Executable):
    """Says that it needs no memory."""

    def memory(self) -> MemoryReport:
        return MemoryReport(0, 0)


class Greedy(Executable):
    """Has a limit that nobody keeps."""


class Fragile(Executable):
    """Can be closed once."""

    closed = False

    def close(self) -> None:
        assert not self.closed, "closed already"
        self.closed = True


class Small(Executable):
    """Admits nothing."""

    admits = property(lambda self: StepLimits(0, 1), lambda self, value: None)  # type: ignore[assignment]


def compiling(kind: type[Executable], **limits: Any) -> Callable[..., Executable]:
    def compile(self: Any, lowerings: Any, weights: Any, target: Any, given: Any) -> Executable:
        from dataclasses import replace

        executable = kind(lowerings, weights, replace(given, **limits), self.functions, self.dtype)
        executable.spoil, executable.choose = self.spoil, self.choose
        return executable

    return compile


LIES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "a summary that is empty": ("announcement", {}, {"summary": ""}, "the summary is empty"),
    "requirements without a hint": ("announcement", {}, {"requires": ("numpy>=2",)}, "has no hint"),
    "a device without dtypes": ("devices", {"devices": lambda self: ("cpu", "npu:0")}, {}, "for its device 'npu:0'"),
    "devices come and go": (
        "devices",
        {"devices": lambda self: ("cpu",) * (1 + next(count) % 2)},
        {},
        "other devices the second time",
    ),
    "claims at random": (
        "claims",
        {"claims": lambda self, node, target: Accept() if chance.random() < 0.7 else Reject("not today")},
        {},
        "and then",
    ),
    "no reason": ("claims", {"claims": lambda self, node, target: Reject(" ")}, {}, "rejected without a reason"),
    "an op that there is not": (
        "numerics",
        {"numerics": numerics(FLOAT32, rmsnorm=FLOAT32)},
        {},
        "'rmsnorm', which is",
    ),
    "sums coarser than products": (
        "numerics",
        {"numerics": numerics(OpNumerics("float32", "bfloat16"))},
        {},
        "coarser than products",
    ),
    "coarser than asked for": (
        "numerics",
        {"numerics": numerics(OpNumerics("bfloat16", "float32"))},
        {},
        "coarser than the float32 asked for",
    ),
    "no memory": ("memory", {"compile": compiling(Liar)}, {}, "0 bytes of weights, which have"),
    "a bill that is too small": (
        "memory",
        {"bill": lambda self, *given: MemoryReport(1, 1)},
        {},
        "its bill says 1 bytes",
    ),
    "no limit": ("memory", {"compile": compiling(Greedy, memory_bytes=None)}, {}, "larger than the limit"),
    "nothing admitted": ("shape", {"compile": compiling(Small)}, {}, "it admits StepLimits"),
    "closed once": ("close", {"compile": compiling(Fragile)}, {}, "closed already"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_seen(name: str) -> None:
    level, changes, info, told = LIES[name]
    suite = Suite("mutant", host_of(type("Backend", (NumpyBackend,), changes), **info), device="cpu", dtype="float32")
    (check,) = (check for check in suite.checks(["L0"]) if str(check) == f"L0/{level}")
    result = check.run()
    assert result.status == "failed" and told in result.reason, result


def test_a_heavy_import_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = Suite("mutant", host_of(NumpyBackend))
    plugin = Plugin("mutant", "ernie_rt.reference.backend")
    monkeypatch.setattr("ernie_rt.conformance.metadata.discover", lambda: (plugin,))
    assert light_import(suite.subject).problem == "importing ernie_rt.reference.backend imports numpy"


@pytest.mark.parametrize("storage", ["plain", "int8", "int4/64"])
@pytest.mark.parametrize("backend", ["onnx", "eager"])
def test_metadata_do_not_depend_on_how_weights_are_stored(backend: str, storage: str) -> None:
    report = Suite(backend, dtype="float32", storage=storage).run(["L0"])
    assert report.ok and report.count("L0", "passed") == 8, report.table()
