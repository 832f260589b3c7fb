"""What a backend declares about itself: features that it promises, and what is known to deviate, with the reason.

The file is JSON: `features` (a list of names), `sampler` (the name of a function), `quirks`, `xfails` and `skips`
(lists of `{"check": PATTERN, "reason": …}`, where `dtype` and `device` narrow an entry down and a quirk has a
`factor`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import FileFormatError, InputError, PluginError
from ernie_rt.files import read_json
from ernie_rt.hooks import BackendInfo

MAX_FACTOR: Final = 4.0
"""By how much a quirk may widen a derived tolerance; the fixed backstops stay where they are."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a backend promises beyond dense models without biases, one sequence at a time. A check of something that is
    not promised is skipped."""

    ops: bool = False
    """Graphs of a single op, with inputs of their own (`Step.extra`)."""
    moe: bool = False
    """Mixture-of-experts models."""
    vision: bool = False
    """Models that see pictures and videos."""
    biases: bool = False
    """Models with `use_bias`."""
    batches: bool = False
    """Several sequences at once."""
    taps: bool = False
    """Values of inner scopes, those of the routers among them."""
    deterministic: bool = False
    """The same steps give the same bits."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Checks that are not held to the rule, and why; on one dtype or kind of device alone, if it says so."""

    check: str
    reason: str
    dtype: str = "*"
    device: str = "*"
    factor: float = 1.0

    def covers(self, check: str, dtype: str, device: str) -> bool:
        return (
            fnmatchcase(check, self.check)
            and fnmatchcase(dtype, self.dtype)
            and fnmatchcase(device.partition(":")[0], self.device)
        )


@dataclass(frozen=True, slots=True)
class Expectations:
    """All that is declared. A quirk widens a tolerance by its factor; an xfail that passes fails the run."""

    features: Features = Features()
    quirks: tuple[Deviation, ...] = ()
    xfails: tuple[Deviation, ...] = ()
    skips: tuple[Deviation, ...] = ()
    sampler: str = ""
    """`pkg.mod:function` of a sampler on a device, which `sampler.py` says how to call."""

    @classmethod
    def read(cls, path: Path) -> Expectations:
        """Read a file; FileFormatError for a name or a value that means nothing."""
        return cls._parse(read_json(path, strict=True), path.name)

    @classmethod
    def of(cls, info: BackendInfo) -> Expectations:
        """Those that come with a backend; without a file it promises nothing."""
        if not info.conformance:
            return cls()
        package, _, name = info.conformance.partition(":")
        try:
            # A package is imported to be asked for its files, and may print.
            with redirect_stdout(sys.stderr), as_file(files(package) / name) as path:
                return cls.read(path)
        except (ImportError, OSError, TypeError, InputError) as error:  # TypeError: a module that is no package
            raise PluginError(
                f"backend {info.name!r} declares what cannot be read", where=info.conformance, found=str(error)
            ) from error

    @classmethod
    def _parse(cls, read: Mapping[str, Any], where: str) -> Expectations:
        unknown = sorted(read.keys() - {"features", "quirks", "xfails", "skips", "sampler"})
        if unknown:
            raise FileFormatError(f"unknown field {unknown[0]!r}", where=where)
        known = {field.name for field in fields(Features)}
        promised = read.get("features", [])
        if not isinstance(promised, list) or not all(isinstance(name, str) and name in known for name in promised):
            raise FileFormatError(
                "features is no list of features", where=where, expected=f"some of {', '.join(sorted(known))}",
                found=str(promised)[:80],
            )  # fmt: skip

        def each(name: str) -> tuple[Deviation, ...]:
            entries = read.get(name, [])
            if not isinstance(entries, list):
                raise FileFormatError(f"{name} is no list", where=where)
            return tuple(_deviation(entry, f"{where}: {name}", name == "quirks") for entry in entries)

        sampler = read.get("sampler", "")
        if not isinstance(sampler, str) or (sampler and not re.fullmatch(r"[\w.]+:\w+", sampler)):
            raise FileFormatError(
                "sampler names no function", where=where, expected="pkg.mod:function", found=str(sampler)[:80]
            )
        features = Features(**dict.fromkeys(promised, True))
        return cls(features, each("quirks"), each("xfails"), each("skips"), sampler)


def _deviation(entry: Any, where: str, factor: bool) -> Deviation:
    text: Callable[[object], bool] = lambda value: isinstance(value, str) and bool(value)  # noqa: E731
    needed = {"check", "reason", "factor"} if factor else {"check", "reason"}
    if not isinstance(entry, dict) or not needed <= entry.keys() <= needed | {"dtype", "device"}:
        raise FileFormatError(
            "an entry lacks a field or has one too many", where=where,
            expected=f"{', '.join(sorted(needed))}, and perhaps dtype, device", found=str(entry)[:80],
        )  # fmt: skip
    if not all(text(entry[name]) for name in entry.keys() - {"factor"}):
        raise FileFormatError("check, reason, dtype and device are texts", where=where, found=str(entry)[:80])
    if factor and not (isinstance(entry["factor"], int | float) and 1 <= entry["factor"] <= MAX_FACTOR):
        raise FileFormatError(
            "a factor widens a tolerance", where=where, expected=f"1 to {MAX_FACTOR:g}", found=str(entry["factor"])[:40]
        )
    return Deviation(**entry)
