"""Commands of plugins: named without an import, run as our own are, and what is said of those that do not work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.discovery import announcement
from support.broken_plugins import Stranger, forget, install
from support.commands import START, Outcome, command

GREET = '''
from typing import Annotated

import typer

from ernie_rt.cli.output import say, write
from ernie_rt.errors import OptionError


def main(name: Annotated[str, typer.Argument(help="Whom to greet.")], loud: bool = False) -> None:
    """Greet somebody.

    A line of its own.
    """
    if name == "nobody":
        raise OptionError("there is nobody to greet", expected="a name")
    if name == "absent":
        import absent_library.part
    if name == "Ctrl-C":
        raise KeyboardInterrupt
    say("greeting")
    write(f"Hello, {name.upper() if loud else name}\\n")
'''
GROUP = '''
import typer

app = typer.Typer()


@app.command()
def one(count: int = 1) -> None:
    """The first."""
    print("one", count)


@app.command()
def two() -> None:
    """The second."""
    raise typer.BadParameter("no two")
'''
NEEDS = "Provides-Extra: none\nProvides-Extra: all\nRequires-Dist: absent-library>=2; extra == 'all'\n"

Install = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("ERNIE_RT_PLUGINS", raising=False)
    yield tmp_path
    forget(tmp_path)


@pytest.fixture
def add(site: Path) -> Install:
    """Install a command as a distribution of its own."""

    def add(
        name: str,
        source: str | None = GREET,
        distribution: str = "",
        *,
        entry: str = "NAME = NAME:main",
        needs: str = "",
    ) -> None:
        install(site, name, Stranger(source, "ok", None, "", entry, "ernie_rt.commands", needs), distribution)

    return add


def imported(site: Path) -> list[str]:
    note = site / "imported"
    return note.read_text().split() if note.exists() else []


def rows() -> dict[str, dict[str, Any]]:
    """What `ernie-rt plugins` says of commands, by their distributions."""
    ran = command("plugins", "--json")
    assert ran.code == 0
    return {row["distribution"]: row for row in json.loads(ran.out) if row["kind"] == "command"}


def completed(words: str, place: int) -> list[str]:
    asks = {"_ERNIE_RT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    ran = subprocess.run(START, env=os.environ | asks, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


def test_a_command_is_named_without_an_import_and_run(site: Path, add: Install) -> None:
    add("greet")
    ran = command("--help")
    assert (ran.code, ran.err) == (0, "") and "  greet     From greet-plugin.\n" in ran.out
    assert command("models").code == 0 and completed("ernie-rt gr", 1) == ["greet", "graph"][::-1]
    assert imported(site) == []
    assert command("greet", "Ada", "--loud") == Outcome(0, "Hello, ADA\n", "greeting\n")
    assert imported(site) == ["greet"]
    ran = command("help", "greet")
    assert ran == command("greet", "-h") and ran.code == 0
    assert ran.out.startswith("Usage: ernie-rt greet [OPTIONS] {name}\n\n  Greet somebody.\n") and "─" not in ran.out
    assert completed("ernie-rt greet --l", 2) == ["--loud"]


def test_a_group_of_commands(add: Install) -> None:
    add("figures", GROUP, entry="NAME = NAME:app")
    assert command("figures", "one", "--count", "3") == Outcome(0, "one 3\n", "")
    ran = command("figures", "--help")
    assert ran.code == 0 and "The first." in ran.out and "--install-completion" not in ran.out
    ran = command("figures", "two")
    assert ran.code == 2 and "Error: Invalid value: no two" in ran.err
    assert "No such command 'three'" in command("figures", "three").err


def test_errors_of_ours_end_as_ours(add: Install) -> None:
    add("greet", needs=NEEDS)
    assert command("greet", "nobody") == Outcome(2, "", "ernie-rt: there is nobody to greet; expected a name\n")
    assert command("greet", "Ctrl-C") == Outcome(130, "", "ernie-rt: interrupted\n")
    ran = command("greet", "absent")
    assert (ran.code, ran.out) == (1, "") and ran.err == (
        "ernie-rt: greet-plugin: command 'greet' cannot be used: ModuleNotFoundError: No module named 'absent_library'."
        " pip install 'greet-plugin[all]'\n"
    )


def test_an_import_that_fails_elsewhere_is_not_a_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ernie_rt.modeling.families", None)
    with pytest.raises(ImportError, match="families"):
        command("models")


@pytest.mark.parametrize(
    ("source", "entry", "cause", "fix"),
    [
        (None, "NAME = NAME:main", "ModuleNotFoundError: No module named 'odd'", None),
        (
            "import absent_library",
            "NAME = NAME:main",
            "No module named 'absent_library'",
            "pip install 'odd-plugin[all]'",
        ),
        ("def (", "NAME = NAME:main", "SyntaxError: ", None),
        ("import sys; sys.exit(3)", "NAME = NAME:main", "SystemExit: 3", None),
        (GREET, "NAME = NAME:other", "module 'odd' has no attribute 'other'", None),
        (GREET, "NAME = NAME", "leads to no command; expected a function or a typer.Typer; found module", None),
        ("def main(x: 'Unknown'): ...", "NAME = NAME:main", "NameError: name 'Unknown' is not defined", None),
    ],
    ids=["no module", "missing", "syntax", "exit", "attribute", "no command", "unknown type"],
)
def test_commands_that_cannot_be_imported(
    source: str | None, entry: str, cause: str, fix: str | None, add: Install
) -> None:
    add("odd", source, entry=entry, needs=NEEDS)
    assert command("--help").code == 0
    ran = command("odd", "--help")
    assert (ran.code, ran.out) == (1, "") and len(ran.err.splitlines()) == 1
    assert ran.err.startswith("ernie-rt: odd-plugin: command 'odd' cannot be used: ") and cause in ran.err
    assert ran.err.endswith(f". {fix or 'pip uninstall odd-plugin'}\n")
    row = rows()["odd-plugin"]
    assert (row["status"], row["fix"]) == ("unmet", fix) if fix else ("broken", "pip uninstall odd-plugin")
    assert cause in row["failure"]


def test_a_shell_is_offered_next_to_nothing_of_a_broken_one(add: Install) -> None:
    add("odd", None)
    assert completed("ernie-rt odd --", 2) == ["--help"]


def test_what_is_printed_at_import_is_no_answer(add: Install) -> None:
    add("greet", "print('[[')" + GREET)
    assert command("greet", "Ada") == Outcome(0, "Hello, Ada\n", "[[\ngreeting\n")
    row = rows()["greet-plugin"]
    assert (row["status"], row["failure"], row["fix"]) == ("ok", "prints when it is imported: [[", None)
    assert row["import_seconds"] > 0


def test_an_import_without_end_is_stopped(add: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcement, "SECONDS", 1.0)
    add("endless", "import threading; threading.Event().wait()")
    row = rows()["endless-plugin"]
    assert (row["status"], row["failure"]) == ("broken", "importing it takes longer than 1 s")


def test_names_that_are_taken(site: Path, add: Install) -> None:
    for name in ("run", "help", "version", "cache"):
        add(f"a_{name}", entry=f"{name} = NAME:main")
    add("one", entry="twice = NAME:main")
    add("two", entry="twice = NAME:main")
    add("odd", entry="Odd = NAME:main")
    found = rows()
    for name in ("run", "help", "version", "cache"):
        row = found[f"a_{name}-plugin"]
        assert (row["status"], row["fix"]) == ("shadows a built-in", f"pip uninstall a_{name}-plugin")
        assert row["failure"] == f"'{name}' is a built-in command, which stays"
    assert {found[f"{name}-plugin"]["status"] for name in ("one", "two")} == {"duplicate"}
    assert found["odd-plugin"]["status"] == "broken" and "no name for a plugin" in found["odd-plugin"]["failure"]
    assert "Answer a prompt" in command("run", "--help").out and command("version").out.startswith("ernie-rt ")
    ran = command("twice")
    assert (ran.code, ran.out) == (1, "") and "neither is used. `ernie-rt plugins` says more" in ran.err
    listed = command("--help").out
    assert listed.count("  run  ") == 1 and "twice" not in listed and "Odd" not in listed
    assert imported(site) == []


def test_leaving_commands_out(site: Path, add: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    add("greet")
    off = "greet-plugin: command 'greet' cannot be used: switched off by -p or ERNIE_RT_PLUGINS"
    ran = command("-p", "no:greet", "greet", "Ada")
    assert (ran.code, ran.out) == (1, "") and off in ran.err
    assert "greet" not in command("-p", "no:greet", "--help").out
    monkeypatch.setenv("ERNIE_RT_PLUGINS", "")
    assert off in command("greet", "Ada").err and rows()["greet-plugin"]["status"] == "off"
    assert imported(site) == []
    monkeypatch.setenv("ERNIE_RT_PLUGINS", "greet")
    assert command("greet", "Ada").code == 0


def test_names_that_come_near(add: Install) -> None:
    add("greet")
    assert "No such command 'gret'. Did you mean 'greet'?" in command("gret").err
    add("pull")
    assert command("pull", "Ada").out == "Hello, Ada\n", "what other programs call so gives way to a command"


def test_our_own_say_in_help_what_they_do(add: Install) -> None:
    add("greet", distribution="ernie-rt")
    add("odd", None)
    ran = command("--help")
    assert "  greet     Greet somebody.\n" in ran.out and "  odd       From odd-plugin.\n" in ran.out
    row = rows()["ernie-rt"]
    assert (row["built_in"], row["status"], row["module"]) == (True, "ok", "greet:main")


def test_our_own_without_what_an_extra_brings(add: Install) -> None:
    add("greet", "import absent_library", "ernie-rt", needs=NEEDS)
    assert "  greet     From ernie-rt.\n" in command("--help").out
    ran = command("greet", "Ada")
    assert (ran.code, ran.err) == (
        1,
        "ernie-rt: command 'greet' cannot be used: ModuleNotFoundError: No module named 'absent_library'."
        " pip install 'ernie-rt[all]'\n",
    )


@pytest.mark.parametrize("distribution", ["", "ernie-rt"])
def test_extras_that_a_command_needs(add: Install, distribution: str) -> None:
    """They stand behind the entry point; what lacks is known without an import."""
    add("greet", GREET, distribution, entry="NAME = NAME:main [all]", needs=NEEDS)
    name = distribution or "greet-plugin"
    row = rows()[name]
    assert (row["status"], row["module"]) == ("unmet", "greet:main")
    assert (row["failure"], row["fix"]) == ("needs absent-library>=2", f"pip install '{name}[all]'")
    assert command("greet", "Ada").code == 0, "it may do without what it needs for something else"


def test_our_own_without_their_modules(add: Install) -> None:
    add("greet", None, "ernie-rt")
    assert command("greet").err.endswith("No module named 'greet'. pip install --force-reinstall ernie-rt\n")


def test_plugins_are_not_looked_for_when_a_command_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ernie_rt.discovery.installed.discover", lambda *arguments: pytest.fail("looked for plugins"))
    assert command("models").code == 0
