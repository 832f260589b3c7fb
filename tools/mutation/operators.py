"""Small mistakes that a line of Python can have: every place in a module where one can be made.

A mutant is a replacement of some bytes of a source. What no test can tell is left out: docstrings, types, texts of
errors and logs, `assert`, decorators, and arguments that change no result (`strict` of zip, names of threads).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

BORDERS: Final[Mapping[type[ast.cmpop], tuple[str, str, str]]] = {
    ast.Lt: ("border", "<", "<="), ast.LtE: ("border", "<=", "<"),
    ast.Gt: ("border", ">", ">="), ast.GtE: ("border", ">=", ">"),
    ast.Eq: ("equality", "==", "!="), ast.NotEq: ("equality", "!=", "=="),
    ast.Is: ("is", "is", "is not"), ast.IsNot: ("is", r"is\s+not", "is"),
    ast.In: ("membership", "in", "not in"), ast.NotIn: ("membership", r"not\s+in", "in"),
}  # fmt: skip
ARITHMETIC: Final[Mapping[type[ast.operator], tuple[str, str]]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "//"), ast.FloorDiv: ("//", "*"), ast.Div: ("/", "*"),
    ast.Mod: ("%", "//"), ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.BitAnd: ("&", "|"),
}  # fmt: skip
OPPOSITES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
SAYING: Final = re.compile(
    r"(.*(Error|Warning|Exit)|log\w*|logging|_?logger|warnings?|warn|print|Option|Argument|TypeVar)"
)
"""Who is called to say something, or to describe an option: of the arguments no test has to know."""
NO_MATTER: Final = {
    "strict", "encoding", "stacklevel", "name", "daemon", "copy", "flush", "maxsize", "help", "hint", "expected",
    "found", "num_warps", "num_stages",
}  # fmt: skip
"""Keywords that change no result, or nothing but a message."""
Parameters = tuple[tuple[str, str, bool], ...]
"""Of a function, or of a dataclass: the name of each positional parameter, its type, whether it may be left out."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """`source[start:end]` of a file becomes `text`."""

    path: str
    operator: str
    line: int
    start: int
    end: int
    text: str

    def of(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]

    def differs(self, source: bytes) -> bool:
        """Whether it is Python, and another program than `source`."""
        try:
            return ast.dump(ast.parse(self.of(source))) != ast.dump(ast.parse(source))
        except SyntaxError:
            return False


def signatures(trees: Iterable[ast.Module]) -> dict[str, Parameters]:
    """What can be called by a name that belongs to one function or dataclass alone."""
    found: dict[str, list[Parameters]] = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [*node.args.posonlyargs, *node.args.args]
            given = len(names) - len(node.args.defaults)
            told = [(a.arg, ast.unparse(a.annotation) if a.annotation else "", i >= given) for i, a in enumerate(names)]
            told = told[1:] if told and told[0][0] in ("self", "cls") else told
            only = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            told += [(a.arg, "", default is not None) for a, default in only]
            found.setdefault(node.name, []).append(tuple(told))
        elif isinstance(node, ast.ClassDef):
            fields = [
                each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            ]
            if fields:
                told = [(ast.unparse(f.target), ast.unparse(f.annotation), f.value is not None) for f in fields]
                found.setdefault(node.name, []).append(tuple(told))
    return {name: told[0] for name, told in found.items() if len(told) == 1}


def mutants(path: str, source: bytes, known: Mapping[str, Parameters]) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines; a few of them may be no other program (`differs`)."""
    return sorted(set(_Finder(path, source, known).module()), key=lambda mutant: (mutant.start, mutant.text))


class _Finder:
    def __init__(self, path: str, source: bytes, known: Mapping[str, Parameters]) -> None:
        self.path, self.source, self.known = path, source, known
        self.lines = [0, *(match.end() for match in re.finditer(rb"\n", source))]

    def module(self) -> Iterator[Mutant]:
        for statement in ast.parse(self.source).body:
            yield from self.visit(statement)

    # Places

    def start(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self.lines[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.lines[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr) -> str:
        return self.source[self.start(node) : self.end(node)].decode()

    def mutant(self, operator: str, start: int, end: int, text: str) -> Mutant:
        return Mutant(self.path, operator, self.source.count(b"\n", 0, start) + 1, start, end, text)

    def instead(self, operator: str, node: ast.expr | ast.stmt, text: str) -> Mutant:
        return self.mutant(operator, self.start(node), self.end(node), text)

    def between(self, operator: str, left: ast.expr, token: str, right: ast.expr, text: str) -> Iterator[Mutant]:
        """The token that stands between two expressions, beside their parentheses."""
        first, last = self.end(left), self.start(right)
        if found := re.search(rb"(?<![\w<>=!*/])" + token.encode() + rb"(?![\w<>=*/])", self.source[first:last]):
            yield self.mutant(operator, first + found.start(), first + found.end(), text)

    # Statements

    def visit(self, node: ast.AST) -> Iterator[Mutant]:
        method: Callable[[ast.AST], Iterator[Mutant]] | None = getattr(self, f"visit_{type(node).__name__}", None)
        yield from method(node) if method else self.inside(node)

    def inside(self, node: ast.AST) -> Iterator[Mutant]:
        for child in ast.iter_child_nodes(node):
            yield from self.visit(child)

    def nothing(self, node: ast.AST) -> Iterator[Mutant]:
        yield from ()

    visit_Assert = visit_JoinedStr = visit_Import = visit_ImportFrom = visit_Delete = nothing

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Mutant]:
        if node.name == "__repr__":
            return
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                yield from self.default(default)
        for statement in node.body:
            yield from self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> Iterator[Mutant]:
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and statement.value is not None:
                yield from self.default(statement.value)
            else:
                yield from self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Iterator[Mutant]:
        if node.value is not None:
            yield from self.visit(node.value)
        if node.value is not None and not isinstance(node.target, ast.Name):
            yield self.instead("statement", node, "pass")

    def visit_Assign(self, node: ast.Assign) -> Iterator[Mutant]:
        if any(isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets):
            return
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            yield self.instead("statement", node, "pass")
        yield from self.inside(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> Iterator[Mutant]:
        yield self.instead("statement", node, "pass")
        if isinstance(node.op, ast.Add | ast.Sub) and not _is_text(node.value):
            sign, other = ARITHMETIC[type(node.op)]
            yield from self.between("arithmetic", node.target, re.escape(sign) + "=", node.value, other + "=")
        yield from self.inside(node)

    def visit_Expr(self, node: ast.Expr) -> Iterator[Mutant]:
        called = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(called, ast.Call) and not _says(called):
            yield self.instead("statement", node, "pass")
            yield from self.visit(called)

    def visit_If(self, node: ast.If) -> Iterator[Mutant]:
        told = ast.unparse(node.test)
        if "TYPE_CHECKING" in told or "__name__" in told:
            return
        leaves = isinstance(node.body[-1], ast.Raise | ast.Return | ast.Continue | ast.Break)
        if leaves and len(node.body) <= 2 and not node.orelse:
            yield self.instead("guard", node.test, "False")
            yield from self.visit(node.test)
            for statement in node.body:
                if not isinstance(statement, ast.Raise):  # the same as the guard
                    yield from self.visit(statement)
            return
        yield from self.inside(node)

    def visit_Raise(self, node: ast.Raise) -> Iterator[Mutant]:
        yield self.instead("raise", node, "pass")

    def visit_Break(self, node: ast.Break) -> Iterator[Mutant]:
        yield self.instead("loop", node, "continue")

    def visit_Continue(self, node: ast.Continue) -> Iterator[Mutant]:
        yield self.instead("loop", node, "break")

    # Expressions

    def default(self, node: ast.expr) -> Iterator[Mutant]:
        value = node.value if isinstance(node, ast.Constant) else ...
        if isinstance(value, bool):
            yield self.instead("default", node, str(not value))
        elif isinstance(value, int):
            yield self.instead("default", node, str(value + 1))
        elif isinstance(value, float):
            yield self.instead("default", node, repr(value * 2 + 1))
        else:
            yield from self.visit(node)

    def visit_Constant(self, node: ast.Constant) -> Iterator[Mutant]:
        if isinstance(node.value, bool):
            yield self.instead("flag", node, str(not node.value))
        elif isinstance(node.value, int):
            yield self.instead("constant", node, str(node.value + 1))
            yield self.instead("constant", node, str(node.value - 1))
        elif isinstance(node.value, float):
            yield self.instead("constant", node, repr(node.value * 2 + 1))

    def visit_Compare(self, node: ast.Compare) -> Iterator[Mutant]:
        for left, op, right in zip((node.left, *node.comparators), node.ops, node.comparators, strict=False):
            operator, token, other = BORDERS[type(op)]
            yield from self.between(operator, left, token, right, other)
        yield from self.inside(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> Iterator[Mutant]:
        token, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from self.between("logic", left, token, right, other)
        yield from self.inside(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Iterator[Mutant]:
        if isinstance(node.op, ast.Not):
            yield self.mutant("not", self.start(node), self.start(node) + len("not"), "")
        yield from self.inside(node)

    def visit_BinOp(self, node: ast.BinOp) -> Iterator[Mutant]:
        if type(node.op) in ARITHMETIC and not _is_text(node.left) and not _is_text(node.right):
            token, other = ARITHMETIC[type(node.op)]
            yield from self.between("arithmetic", node.left, re.escape(token), node.right, other)
        yield from self.inside(node)

    def visit_comprehension(self, node: ast.comprehension) -> Iterator[Mutant]:
        for condition in node.ifs:
            yield self.instead("guard", condition, "True")
        yield from self.inside(node)

    def visit_Subscript(self, node: ast.Subscript) -> Iterator[Mutant]:
        yield from self.visit(node.value)
        for each in node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
            yield from self.index(each)

    def index(self, node: ast.expr) -> Iterator[Mutant]:
        bounds = [node.lower, node.upper] if isinstance(node, ast.Slice) else []
        for bound in bounds:
            if isinstance(bound, ast.Name | ast.Attribute | ast.Call):
                yield self.instead("index", bound, f"({self.text(bound)} + 1)")
        for mutant in self.visit(node):
            constant = mutant.operator == "constant"
            yield self.mutant("index", mutant.start, mutant.end, mutant.text) if constant else mutant

    def visit_Call(self, node: ast.Call) -> Iterator[Mutant]:
        if _says(node):
            return
        name = _last_name(node.func)
        if isinstance(node.func, ast.Name) and name in OPPOSITES:
            yield self.instead("extreme", node.func, OPPOSITES[name])
        yield from self.swapped(node, self.known.get(name, ()))
        yield from self.dropped(node, {told[0]: told[2] for told in self.known.get(name, ())})
        yield from self.visit(node.func)
        for argument in node.args:
            yield from self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg not in NO_MATTER:
                yield from self.visit(keyword.value)

    def swapped(self, node: ast.Call, told: Parameters) -> Iterator[Mutant]:
        """Two arguments in each other's place, of parameters whose types have the same name."""
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return
        pairs = zip(node.args, node.args[1:], told, told[1:], strict=False)
        for left, right, (_, kind, _), (_, other, _) in pairs:
            if kind and kind == other and self.text(left) != self.text(right):
                between = self.source[self.end(left) : self.start(right)].decode()
                text = self.text(right) + between + self.text(left)
                yield self.mutant("swapped", self.start(left), self.end(right), text)

    def dropped(self, node: ast.Call, optional: Mapping[str, bool]) -> Iterator[Mutant]:
        """A keyword left out: where the function is known, one that may be."""
        before: ast.expr | ast.keyword | None = node.args[-1] if node.args else None
        for keyword in node.keywords:
            if keyword.arg is not None and keyword.arg not in NO_MATTER and optional.get(keyword.arg, not optional):
                after = self.end(keyword)
                if before is not None:
                    yield self.mutant("keyword", self.end(before), after, "")
                elif comma := re.match(rb",\s*", self.source[after:]):
                    yield self.mutant("keyword", self.start(keyword), after + comma.end(), "")
                else:
                    yield self.mutant("keyword", self.start(keyword), after, "")
            before = keyword


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _says(node: ast.Call) -> bool:
    names = (_last_name(node.func), _last_name(node.func.value) if isinstance(node.func, ast.Attribute) else "")
    return any(SAYING.fullmatch(name) for name in names)


def _is_text(node: ast.expr) -> bool:
    """Text or a list, with which nothing but `+` or `*` can be done: any other operator fails at once."""
    listed = isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp)
    return listed or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))
