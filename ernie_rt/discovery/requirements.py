"""What a backend requires, beside what is installed: by package metadata, so that nothing heavy is imported."""

from __future__ import annotations

import csv
import importlib.metadata
import re
import shlex
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ernie_rt.discovery.announcement import alternatives
from ernie_rt.errors import JsonError
from ernie_rt.hooks import BackendInfo
from ernie_rt.untrusted_json import parse_json


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
        if (gone := _gone(text)) is not None:
            return f"needs {text}: {gone}; first `{_uninstall(text)}`"
    return None


def overlap(info: BackendInfo) -> str | None:
    """Which distributions are installed over each other of what a backend requires, and what helps; or None."""
    for text in info.requires:
        if (shared := _shared(text)) is not None:
            return f"{shared}: keep one (`{_uninstall(text)}`, then install it)"
    return None


def overwritten(info: BackendInfo) -> tuple[str, str] | None:
    """Which distributions are installed over each other, or were, of what a backend requires, and the command that
    leaves the one that it names first; or None."""
    for text in info.requires:
        if (seen := _gone(text) or _shared(text)) is not None:
            return seen, f"{_uninstall(text)} && pip install {shlex.quote(str(alternatives(text)[0]))}"
    return None


def damaged(found: Distribution) -> list[str]:
    """The files of a distribution that are gone, or have another size than when it was installed, by its own list.

    Scripts are left out, which whoever moves an environment writes anew.
    """
    sizes = {
        line[0]: int(line[2])
        for line in csv.reader((found.read_text("RECORD") or "").splitlines())
        if len(line) == 3 and line[2].isdecimal() and not line[0].startswith("..")
    }
    return [path for path, size in sizes.items() if _size(Path(str(found.locate_file(path)))) != size]


def reinstall(*distributions: Distribution) -> str:
    """The command that installs distributions anew, each from where it came, and nothing else."""
    return f"pip install --force-reinstall --no-deps {' '.join(map(_source, distributions))}"


def needed(name: str) -> list[Distribution]:
    """What a distribution says that it needs in any case, as far as it is installed."""
    needs = [Requirement(text) for text in importlib.metadata.requires(name) or ()]
    always = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return [found for need in always for found in _installed(need.name)]


def outdated(name: str) -> list[str]:
    """What a distribution, or an extra of it, says that it needs, in another version than the one that is installed;
    and what it needs in any case and is not installed."""
    found = []
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        extras = importlib.metadata.metadata(name).get_all("Provides-Extra") or ()
        marker = requirement.marker
        needed = marker is None or marker.evaluate({"extra": ""})
        asked = needed or any(marker is not None and marker.evaluate({"extra": extra}) for extra in extras)
        if asked and not _present(requirement) and (needed or _version(requirement.name) is not None):
            found.append(f"{requirement.name}{requirement.specifier}")
    return list(dict.fromkeys(found))


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


def required(info: BackendInfo) -> list[Distribution]:
    """What is installed of that which a backend requires."""
    return [found for text in info.requires for found in _installed(text)]


def versions(info: BackendInfo) -> list[str]:
    """The same, each with its version."""
    return [_spoken(found) for found in required(info)]


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


def _shared(text: str) -> str | None:
    """That several alternatives are installed over each other, in words."""
    found = list(_installed(text))
    if len(found) < 2 or not set.intersection(*map(_packages, found)):
        return None
    return f"{' and '.join(map(_spoken, found))} share their files, so that removing one breaks the other"


def _gone(text: str) -> str | None:
    """That an alternative has lost its files, in words."""
    gone = [_spoken(found) for found in _installed(text) if _files_gone(found)] if "|" in text else []
    if not gone:
        return None
    return f"the files of {' and '.join(gone)} are gone, removed with a distribution that shared them"


def _uninstall(text: str) -> str:
    return f"pip uninstall -y {' '.join(each.name for each in alternatives(text))}"


def _source(found: Distribution) -> str:
    """Where a distribution came from, as an argument of `pip install`: a folder or a file, or a version of an index."""
    try:
        origin = parse_json((found.read_text("direct_url.json") or "{}").encode(), where="direct_url.json")
        url, editable = origin.get("url", ""), origin.get("dir_info", {}).get("editable", False)
    except (JsonError, ValueError, AttributeError):
        url, editable = "", False
    public = found.version.partition("+")[0]  # what follows is of one index, and no other has it
    source = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
    return ("--editable " if editable else "") + shlex.quote(source or f"{found.name}=={public}")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _files_gone(found: Distribution) -> bool:
    return any(not Path(str(found.locate_file(package)), "__init__.py").exists() for package in _packages(found))


def _satisfied(requirement: Requirement) -> bool:
    return (requirement.marker is not None and not requirement.marker.evaluate()) or _present(requirement)


def _present(requirement: Requirement) -> bool:
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _version(name: str) -> str | None:
    """That of an installed distribution; None where there is none, or none that can be compared."""
    try:
        found: str | None = importlib.metadata.version(name)  # None is what a package with broken metadata has
        return None if found is None else str(Version(found))
    except (PackageNotFoundError, ValueError):
        return None
