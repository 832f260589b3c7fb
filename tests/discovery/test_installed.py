"""Plugins by their metadata: what counts, what is refused before anything is imported, and what is switched off."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_rt.discovery.installed import SWITCH, Plugin, discover, switch
from ernie_rt.errors import OptionError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the metadata of a distribution, found before all others."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(SWITCH, raising=False)

    def write(distribution: str, points: str, *, metadata: str | bytes | None = "", folder: str = "") -> Path:
        info = tmp_path / folder / f"{distribution.replace('-', '_')}-2.0.dist-info"
        info.mkdir(parents=True)
        entry_points = points if points.startswith("[") else f"[ernie_rt]\n{points}\n"
        (info / "entry_points.txt").write_bytes(entry_points.encode("latin-1"))
        if metadata == "":
            metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.0\n"
        if metadata is not None:
            (info / "METADATA").write_bytes(metadata if isinstance(metadata, bytes) else metadata.encode())
        importlib.invalidate_caches()
        return info

    return write


def strangers() -> list[Plugin]:
    found = discover()
    built_in = [plugin for plugin in found if plugin.built_in]
    assert {"eager", "reference"} <= {plugin.name for plugin in built_in} and found[: len(built_in)] == (*built_in,)
    return [plugin for plugin in found if not plugin.built_in]


def test_a_plugin_and_where_it_is_from(write: Write) -> None:
    write("quick-chip", "chip = quick_chip\nchip-2 = quick_chip.two:plugin")
    one, two = strangers()
    assert (one.name, one.module, one.status, one.cause) == ("chip", "quick_chip", "found", None)
    assert (one.distribution, one.version) == ("quick-chip", "2.0")
    assert (two.name, two.module) == ("chip-2", "quick_chip.two:plugin")


def test_other_groups_are_no_business_of_ours(write: Write) -> None:
    write("other", "[console_scripts]\nother = other:main\nnonsense\n")
    write("latin", "[x]\nstra\xdfe = y\n")
    assert strangers() == []


@pytest.mark.parametrize("name", ["Chip", "2chip", "a" * 33, "auto", "ch.ip", "ch ip", "-p", "ch\xeep", "\x1b[31m"])
def test_names_that_are_none(name: str, write: Write) -> None:
    write("odd-names", f"[ernie_rt]\n{name} = odd\n".encode().decode("latin-1"))
    (plugin,) = strangers()
    assert plugin.status == "broken" and plugin.cause is not None
    assert "is no name for a plugin" in plugin.cause and (plugin.name + plugin.cause).isprintable()
    assert plugin.fix == "pip uninstall odd-names"


@pytest.mark.parametrize("value", ["not a module!", "", "pkg:", "pkg:a b", "pkg [x", "../etc/passwd"])
def test_entry_points_that_lead_nowhere(value: str, write: Write) -> None:
    write("lost", f"lost = {value}")
    (plugin,) = strangers()
    assert (plugin.status, plugin.fix) == ("broken", "pip uninstall lost")
    assert plugin.cause and ("which is no module" in plugin.cause or "cannot be read" in plugin.cause)


@pytest.mark.parametrize("points", ["[ernie_rt]\njunk\n", "[ernie_rt]\nstra\xdfe = y\n", "[ernie_rt]\n= \n"])
def test_entry_points_that_cannot_be_read(points: str, write: Write) -> None:
    write("junk", points)
    (plugin,) = strangers()
    assert (plugin.status, plugin.distribution, plugin.fix) == ("broken", "junk", "pip uninstall junk")


@pytest.mark.parametrize(
    "metadata", [None, "Metadata-Version: 2.1\n", b"Name: \xff\xfe\n", "Name: x; rm -rf /\n", "Name: -r y\n"]
)
def test_metadata_without_a_name(metadata: str | bytes | None, write: Write, tmp_path: Path) -> None:
    write("nameless", "nameless = nameless", metadata=metadata)
    (plugin,) = strangers()
    assert (plugin.status, plugin.distribution, plugin.cause) == ("broken", None, "its METADATA cannot be read")
    assert plugin.fix == f"delete its folder in {tmp_path}"


@pytest.mark.parametrize("shadowing", ["eager", "reference"])
def test_a_built_in_plugin_cannot_be_shadowed(shadowing: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("shadow", f"{shadowing} = shadow")
    for order in (1, -1):
        found = list(importlib.metadata.distributions())[::order]
        monkeypatch.setattr(importlib.metadata, "distributions", lambda found=found: found)
        (plugin,) = strangers()
        assert plugin.status == "shadows a built-in" and plugin.fix == "pip uninstall shadow"
        built_in = next(plugin for plugin in discover() if plugin.built_in and plugin.name == shadowing)
        assert built_in.status == "found" and built_in.distribution == "ernie-rt"


def test_of_two_with_one_name_neither_is_used(write: Write) -> None:
    write("one", "chip = one")
    write("two", "chip = two")
    first, second = strangers()
    assert [first.status, second.status] == ["duplicate", "duplicate"]
    assert [first.fix, second.fix] == ["pip uninstall one", "pip uninstall two"]


def test_a_distribution_counts_where_it_is_found_first(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("Quick.Chip", "chip = second", folder="older")
    write("quick-chip", "chip = first")
    monkeypatch.syspath_prepend(tmp_path / "older")
    monkeypatch.syspath_prepend(tmp_path)
    (plugin,) = strangers()
    assert (plugin.module, plugin.status) == ("first", "found")


@pytest.mark.parametrize(
    ("value", "off"),
    [
        (None, set()),
        ("", {"a", "b", "c"}),
        ("a", {"b", "c"}),
        (" a , b ", {"c"}),
        ("a,nobody", {"b", "c"}),
        ("no:a", {"a"}),
        ("no:a,no:eager,no:nobody", {"a", "eager"}),
        ("a,b,no:b", {"b", "c"}),
        (",no:a", {"a", "b", "c"}),
        ("eager", {"a", "b", "c"}),
    ],
)
def test_switches(value: str | None, off: set[str], write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("abc", "a = abc\nb = abc\nc = abc")
    if value is not None:
        monkeypatch.setenv(SWITCH, value)
    assert {plugin.name for plugin in discover() if plugin.status == "off"} == off


def test_what_is_switched_off_makes_no_duplicate_of_a_built_in(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving out a built-in plugin lets no other take its name."""
    write("shadow", "eager = shadow")
    monkeypatch.setenv(SWITCH, "no:eager")
    assert {plugin.status for plugin in discover() if plugin.name == "eager"} == {"off"}


def test_switching_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    switch("no:a")
    assert os.environ[SWITCH] == "no:a"
    monkeypatch.setenv(SWITCH, "")
    switch("no:b")
    switch("no:c")
    assert os.environ[SWITCH] == ",no:b,no:c"


@pytest.mark.parametrize("text", ["a", "", "no:", "no:a,b", "no:A", "yes:a"])
def test_switches_that_are_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    with pytest.raises(OptionError, match="expected no:NAME"):
        switch(text)
    assert SWITCH not in os.environ
