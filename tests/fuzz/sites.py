"""Where our packages raise named errors: found in their source, and told from a traceback."""

from __future__ import annotations

import ast
import builtins
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]
OTHERS = frozenset(dir(builtins)) | {"Exit", "Abort", "BadParameter", "UsageError"}
"""Names of exceptions that are none of ours."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """A line that raises a named error."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class _Module:
    sites: dict[int, str]
    """The line of each check, and its source."""
    passing: frozenset[int]
    """Lines of `raise` in functions that are told what is wrong: the checks are the calls of these functions."""


def checks(module: str) -> dict[Site, str]:
    """Every check of a module, and its source in one line."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return {Site(_short(spec.origin), line): text for line, text in _analysed(spec.origin).sites.items()}


def raised_at(traceback: TracebackType | None) -> Site:
    """The check that an error came from: its innermost `raise`, or whoever told that what is wrong."""
    frames = []
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    innermost = frames[-1]
    for file, line in reversed(frames):
        if not file.startswith(str(ROOT)):
            continue
        module = _analysed(file)
        if line not in module.passing:
            innermost = (file, line) if line in module.sites or (file, line) == frames[-1] else innermost
            break
    return Site(_short(innermost[0]), innermost[1])


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else file


@functools.cache
def _analysed(file: str) -> _Module:
    source = Path(file).read_text()
    tree = ast.parse(source)
    sites: dict[int, str] = {}
    passing: dict[int, str] = {}
    others = OTHERS | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(_name(base) in OTHERS for base in node.bases)
    }
    for raising, function, caught in _raises(tree, None, frozenset()):
        if raising.exc is None or _name(raising.exc) in others | caught:
            continue
        if function is not None and _is_told(raising.exc, function):
            passing[raising.lineno] = function.name
        sites[raising.lineno] = _said(raising, source)
    for line, name in list(passing.items()):
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node) == name]
        if calls:
            del sites[line]
            sites |= {call.lineno: _said(call, source) for call in calls if call.lineno not in passing}
        else:
            del passing[line]
    return _Module(sites, frozenset(passing))


def _raises(
    node: ast.AST, function: Function | None, caught: frozenset[str]
) -> Iterator[tuple[ast.Raise, Function | None, frozenset[str]]]:
    """Every `raise`, with its function and the names of exceptions that were caught around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise):
            yield child, function, caught
        elif isinstance(child, Function):
            yield from _raises(child, child, caught)
        elif isinstance(child, ast.ExceptHandler) and child.name is not None:
            yield from _raises(child, function, caught | {child.name})
        else:
            yield from _raises(child, function, caught)


def _is_told(error: ast.expr, function: Function) -> bool:
    """Whether what an error says is an argument of the function that raises it."""
    if not isinstance(error, ast.Call) or not error.args or not isinstance(error.args[0], ast.Name):
        return False
    return error.args[0].id == "what" and "what" in {each.arg for each in function.args.args}


def _name(node: ast.expr) -> str:
    match node:
        case ast.Call(func=called):
            return _name(called)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _said(node: ast.AST, source: str) -> str:
    return " ".join((ast.get_source_segment(source, node) or "").split())[:240]
