"""What a module uses: names of other modules however they were imported, built-in functions, and methods by name."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("ernie_rt", "backends", "plugins")
PATTERNS = frozenset({"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"})


def modules() -> Iterator[Path]:
    """Every module of the core, the backends and the plugins."""
    for folder in PRODUCT:
        yield from sorted((ROOT / folder).rglob("*.py"))


@cache
def all_uses() -> Mapping[str, Sequence[tuple[int, str]]]:
    """What each of them uses, by its path from the root."""
    return {path.relative_to(ROOT).as_posix(): list(uses(path.read_text("utf-8"))) for path in modules()}


def uses(source: str) -> Iterator[tuple[int, str]]:
    """Lines, and what stands there: `os.open`, `builtins.eval`, `.write_text` of what is no module, and as well

    - `re(a pattern)` for a pattern that is not written there,
    - `assert` for one that does more than tell a type checker what is known: that something is not None, or of a type.
    """
    tree = ast.parse(source)
    imported = _imported(tree)

    def dotted(node: ast.expr) -> str | None:
        """The full name of what an import has brought, or of what is built in."""
        if isinstance(node, ast.Name):
            known = imported.get(node.id)
            return known or (f"builtins.{node.id}" if hasattr(builtins, node.id) else None)
        if isinstance(node, ast.Attribute) and (base := dotted(node.value)) is not None:
            return f"{base}.{node.attr}"
        return None

    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case ast.Name() | ast.Attribute():
                name = dotted(node)
                if name is not None:
                    yield node.lineno, name
                if isinstance(node, ast.Attribute) and (name is None or name.startswith(("pathlib.", "builtins."))):
                    yield node.lineno, f".{node.attr}"
            case ast.Assert(test=test) if not _narrows(test):
                yield node.lineno, "assert"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = dotted(node.func)
            if name in {f"re.{each}" for each in PATTERNS} and not isinstance(node.args[0], ast.Constant):
                yield node.lineno, "re(a pattern)"
            elif name is None and node.func.attr == "open" and (not node.args or _text(node.args[0])):
                yield node.lineno, ".open(a mode)"
            elif name is None and node.func.attr == "replace" and len(node.args) == 1 and not node.keywords:
                yield node.lineno, ".replace(a path)"


def _imported(tree: ast.Module) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _narrows(test: ast.expr) -> bool:
    match test:
        case ast.BoolOp(op=ast.And() | ast.Or(), values=values):
            return all(map(_narrows, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _narrows(operand)
        case ast.Compare(ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant(value=None)]):
            return True
        case ast.Call(func=ast.Name(id="isinstance")):
            return True
    return False
