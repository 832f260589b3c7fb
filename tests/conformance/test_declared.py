"""Features, quirks, xfails and skips: read strictly, and applied to the checks that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.conformance import Deviation, Expectations, Features, Suite
from ernie_rt.errors import FileFormatError, PluginError
from ernie_rt.host import PluginHost
from support.mutants import Mutant, NumpyBackend, host_of


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "expect.json"
    entry = {"check": "L1/rope/*", "reason": "its rope is its own", "dtype": "float16", "device": "cuda"}
    path.write_text(json.dumps({"features": ["moe", "taps"], "xfails": [entry], "quirks": [entry | {"factor": 2}]}))
    read = Expectations.read(path)
    assert read.features == Features(moe=True, taps=True)
    assert read.xfails == (Deviation("L1/rope/*", "its rope is its own", "float16", "cuda"),)
    assert read.quirks[0].factor == 2
    assert read.xfails[0].covers("L1/rope/heads-of-4", "float16", "cuda:1")
    assert not read.xfails[0].covers("L1/rope/heads-of-4", "float16", "cpu")
    assert not read.xfails[0].covers("L1/rope/heads-of-4", "float32", "cuda:1")


WRONG: dict[str, Any] = {
    "a feature that there is not": {"features": ["flying"]},
    "features that are no list": {"features": "moe"},
    "a sampler that is no function": {"sampler": "os.system"},
    "an unknown field": {"feature": ["moe"]},
    "no reason": {"xfails": [{"check": "L1/*"}]},
    "an empty reason": {"skips": [{"check": "L1/*", "reason": ""}]},
    "a quirk without a factor": {"quirks": [{"check": "L1/*", "reason": "so"}]},
    "a factor that excuses all": {"quirks": [{"check": "L1/*", "reason": "so", "factor": 1000}]},
    "a factor of an xfail": {"xfails": [{"check": "L1/*", "reason": "so", "factor": 2}]},
    "a number for a text": {"skips": [{"check": 1, "reason": "so"}]},
    "no object": {"skips": ["L1/*"]},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_means_nothing_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "expect.json"
    path.write_text(json.dumps(WRONG[name]))
    with pytest.raises(FileFormatError, match=r"expect\.json"):
        Expectations.read(path)


def test_a_backend_may_name_its_file() -> None:
    host = PluginHost()
    assert Expectations.of(host.info("reference")).features.moe
    assert Expectations.of(host.info("eager")).features.taps and Expectations.of(host.info("eager")).sampler
    assert Suite("mutant", host_of(NumpyBackend, conformance="")).expectations == Expectations()
    with pytest.raises(PluginError, match=r"declares what cannot be read; found .*there is no such file"):
        Suite("mutant", host_of(NumpyBackend, conformance="ernie_rt:nothing.json"))


def broken(**expectations: Any) -> dict[str, tuple[str, str]]:
    """A backend whose swiglu is off by a part in 300,000: what becomes of the checks of swiglu."""
    mutant = Mutant("", {"swiglu": lambda f: lambda x: f(x) * (1 + 3e-6)})
    known = Expectations(Features(ops=True), **expectations)
    suite = Suite("mutant", host_of(mutant.backend()), expectations=known)
    checks = [check for check in suite.checks(["L1"]) if "/swiglu/" in str(check)]
    assert len(checks) == 2
    return {str(check): (result.status, result.reason) for check in checks if (result := check.run())}


def test_what_is_expected_to_fail() -> None:
    assert {status for status, _ in broken().values()} == {"failed"}
    entry = Deviation("L1/swiglu/plain", "a known defect")
    told = broken(xfails=(entry,))
    assert told["L1/swiglu/plain"][0] == "xfailed" and told["L1/swiglu/plain"][1].startswith("a known defect (off by")
    assert told["L1/swiglu/large-values"][0] == "failed"
    assert broken(skips=(entry,))["L1/swiglu/plain"] == ("skipped", "a known defect")


def test_what_passes_though_it_was_declared_to_fail_is_told() -> None:
    known = Expectations(Features(ops=True), xfails=(Deviation("L1/add/*", "a defect that was mended"),))
    report = Suite("mutant", host_of(NumpyBackend), expectations=known).run(["L1"])
    assert not report.ok and report.count("L1", "xpassed") == 2
    assert "xpassed L1/add/row: it passes, though it was declared to fail: a defect that was mended" in report.table()


def test_a_quirk_widens_the_derived_limit_and_no_backstop() -> None:
    mutant = Mutant("", {"swiglu": lambda f: lambda x: f(x) * (1 + 4.5e-7)})
    quirk = Deviation("L1/swiglu/*", "an approximate sigmoid", factor=4.0)

    def margin(**declared: Any) -> float:
        known = Expectations(Features(ops=True), **declared)
        suite = Suite("mutant", host_of(mutant.backend()), expectations=known)
        (check,) = (check for check in suite.checks(["L1"]) if str(check) == "L1/swiglu/plain")
        return check.run().figures["margin"]

    assert margin() > 1 > margin(quirks=(quirk,))
    assert {status for status, _ in broken(quirks=(quirk,)).values()} == {"failed"}
