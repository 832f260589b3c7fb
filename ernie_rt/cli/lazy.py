"""Commands that are imported when one is run or asked for its help: the core's, and those that metadata name."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from ernie_rt.errors import PluginError

if TYPE_CHECKING:
    from ernie_rt.discovery.installed import Plugin, Status


class Lazy(TyperCommand):
    """A command that is not made yet: it has a name, and a line in the help of its group."""

    def __init__(self, plugin: Plugin) -> None:
        super().__init__(plugin.name)
        self._plugin = plugin

    @classmethod
    def of_core(cls, name: str, module: str) -> Lazy:
        """One that no plugin brings."""
        from ernie_rt.discovery.installed import OWN, Plugin

        return cls(Plugin(name, module, OWN, built_in=True))

    def get_short_help_str(self, limit: int = 45) -> str:
        if self._plugin.built_in:
            try:
                self.help = _about(self._plugin)
            except PluginError:
                pass  # its cause is told when the command is run
            else:
                return super().get_short_help_str(limit)
        return f"From {self._plugin.distribution}."

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself, whose arguments these are."""
        try:
            command = load(self._plugin)
        except PluginError:
            if not extra.get("resilient_parsing"):
                raise
            return super().make_context(info_name, args, parent, **extra)  # the shell gets nothing to offer
        return command.make_context(info_name, args, parent=parent, **extra)


def load(plugin: Plugin) -> Any:
    """Import a command and make it; PluginError when it cannot be used. What it prints goes to standard error."""
    return _guarded(plugin, _made)


def _about(plugin: Plugin) -> str | None:
    """What a command says of itself; its parameters, which take most of the time, are not read for that."""
    target = _guarded(plugin, _imported)
    return inspect.getdoc(target) if inspect.isfunction(target) else load(plugin).help


def _guarded(plugin: Plugin, work: Callable[[str, str], Any]) -> Any:
    try:
        with redirect_stdout(sys.stderr):
            return work(plugin.name, plugin.module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may raise SystemExit at import
        raise failure(plugin, error) from error


def failure(plugin: Plugin, error: BaseException) -> PluginError:
    """What keeps a command from working, as an error that says what helps."""
    from ernie_rt.discovery.child import one_line

    return PluginError(
        f"command {plugin.name!r} cannot be used: {one_line(error)}",
        where=None if plugin.built_in else plugin.distribution,
        hint=_remedy(plugin.distribution, error) or plugin.fix,
    )


def examine(plugin: Plugin) -> Plugin:
    """Import a command that metadata do not rule out: a built-in one here, a stranger's in a child process.

    Whatever goes wrong is told by the status and the cause of what is returned.
    """
    if plugin.status != "found":
        return plugin
    from ernie_rt.discovery import child
    from ernie_rt.discovery.announcement import SECONDS
    from ernie_rt.discovery.requirements import lack_of_extras

    if plugin.distribution and (lacking := lack_of_extras(plugin.distribution, plugin.extras)) is not None:
        fix = f"pip install '{plugin.distribution}[{','.join(plugin.extras)}]'"
        return replace(plugin, status="unmet", cause=lacking, fix=fix)
    about, noise = (plugin.name, plugin.module, plugin.distribution or ""), ""
    try:
        if plugin.built_in:
            told = tell(*about)
        else:
            told, noise = child.call("ernie_rt.cli.lazy:tell", *about, seconds=SECONDS, doing="importing it")
    except PluginError as error:
        return replace(plugin, status="broken", cause=error.what)
    if told["cause"] is not None:
        status: Status = "unmet" if told["fix"] else "broken"
        return replace(plugin, status=status, cause=told["cause"], fix=told["fix"] or plugin.fix)
    cause = f"prints when it is imported: {noise}" if noise else None
    return replace(plugin, status="ok", cause=cause, fix=None, seconds=told["seconds"])


def tell(name: str, module: str, distribution: str) -> dict[str, Any]:
    """What importing a command took, or why it cannot be imported, and what helps: the child's answer."""
    from ernie_rt.discovery.child import one_line

    began = time.perf_counter()
    cause = fix = None
    try:
        _made(name, module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        cause, fix = one_line(error), _remedy(distribution, error)
    return {"seconds": time.perf_counter() - began, "cause": cause, "fix": fix}


def _imported(name: str, module: str) -> Any:
    """What the entry point of a command leads to."""
    from importlib.metadata import EntryPoint

    from ernie_rt.hooks import COMMANDS

    return EntryPoint(name, module, COMMANDS).load()


def _made(name: str, module: str) -> Any:
    target = _imported(name, module)
    app = typer.Typer(rich_markup_mode=None)
    if isinstance(target, typer.Typer):
        app.add_typer(target, name=name)
    elif callable(target):
        app.command(name)(target)
    else:
        raise PluginError("leads to no command", expected="a function or a typer.Typer", found=type(target).__name__)
    return typer.main.get_group(app).commands[name]


def _remedy(distribution: str | None, error: BaseException) -> str | None:
    """What installs the module that is missing, if that is what an error is about."""
    from ernie_rt.discovery.requirements import bringing

    missing = error.name if isinstance(error, ImportError) else None
    return bringing(distribution, missing) if distribution and missing else None
