"""What a backend requires, beside what is installed: by package metadata, so that nothing heavy is imported."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ernie_rt.discovery.announcement import alternatives
from ernie_rt.hooks import BackendInfo


def requirements(info: BackendInfo) -> list[Requirement]:
    """All that a backend names, alternatives side by side."""
    return [requirement for text in info.requires for requirement in alternatives(text)]


def lack(info: BackendInfo) -> str | None:
    """What a backend needs and this machine has not, in words that follow its name; or None.

    Alternatives may bring the same package. When one of them is removed its files are, those of the others included,
    and the metadata of these say nothing of it.
    """
    absent = [text for text in info.requires if not any(_satisfied(each) for each in alternatives(text))]
    if absent:
        return f"needs {', '.join(absent)}"
    for text in info.requires:
        if "|" in text and (gone := [_spoken(found) for found in _installed(text) if _files_gone(found)]):
            names = " ".join(each.name for each in alternatives(text))
            gone_with = f"the files of {' and '.join(gone)} are gone, removed with a distribution that shared them"
            return f"needs {text}: {gone_with}; first `pip uninstall -y {names}`"
    return None


def overlap(info: BackendInfo) -> str | None:
    """Which distributions are installed over each other of what a backend requires, and what helps; or None."""
    for text in info.requires:
        found = list(_installed(text))
        shared = set.intersection(*map(_packages, found)) if len(found) > 1 else set()
        if shared:
            names = " ".join(each.name for each in alternatives(text))
            fault = f"{' and '.join(map(_spoken, found))} share their files, so that removing one breaks the other"
            return f"{fault}: keep one (`pip uninstall -y {names}`, then install it)"
    return None


def bringing(name: str, module: str) -> str | None:
    """The command that installs what a distribution says that it, or an extra of it, needs of this module; or None.

    A module is taken for the distribution of its name.
    """
    wanted = canonicalize_name(module.partition(".")[0])
    metadata = importlib.metadata.metadata(name)
    needs = [Requirement(text) for text in metadata.get_all("Requires-Dist") or ()]
    markers = [each.marker for each in needs if canonicalize_name(each.name) == wanted]
    if any(marker is None or marker.evaluate() for marker in markers):
        return f"pip install {name}"
    for extra in metadata.get_all("Provides-Extra") or ():
        if any(marker is not None and marker.evaluate({"extra": extra}) for marker in markers):
            return f"pip install '{name}[{extra}]'"
    return None


def lack_of_extras(name: str, extras: Iterable[str]) -> str | None:
    """What a distribution says that these extras of it need, and this machine has not, in words; or None."""
    needs = [Requirement(text) for text in importlib.metadata.metadata(name).get_all("Requires-Dist") or ()]
    absent = [
        need
        for extra in extras
        for need in needs
        if need.marker is not None
        and need.marker.evaluate({"extra": extra})
        and not need.marker.evaluate({"extra": ""})
        and not _present(need)
    ]
    return f"needs {', '.join(f'{need.name}{need.specifier}' for need in absent)}" if absent else None


def versions(info: BackendInfo) -> list[str]:
    """What is installed of that which a backend requires, each with its version."""
    return [_spoken(found) for text in info.requires for found in _installed(text)]


def _installed(text: str) -> Iterator[Distribution]:
    """Those of some alternatives that are installed, in whatever version."""
    for requirement in alternatives(text):
        try:
            yield distribution(requirement.name)
        except (PackageNotFoundError, ValueError):
            continue


def _spoken(found: Distribution) -> str:
    return f"{found.name} {found.version}"


def _packages(found: Distribution) -> set[str]:
    """The import packages whose files a distribution has, by its own list of them."""
    return set(re.findall(r"^(\w+)/__init__\.py,", found.read_text("RECORD") or "", re.MULTILINE))


def _files_gone(found: Distribution) -> bool:
    return any(not Path(str(found.locate_file(package)), "__init__.py").exists() for package in _packages(found))


def _satisfied(requirement: Requirement) -> bool:
    return (requirement.marker is not None and not requirement.marker.evaluate()) or _present(requirement)


def _present(requirement: Requirement) -> bool:
    try:
        version = importlib.metadata.version(requirement.name)
        # None is what a package with broken metadata has.
        return version is not None and requirement.specifier.contains(version, prereleases=True)
    except (PackageNotFoundError, ValueError):  # ValueError: an invalid version
        return False
