"""Which test files are nearest to a module: those named after it, those that import it, those of its folder."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path


class Nearness:
    """The imports of a tree. `sources` are files of its packages, each with the folder that it is imported from."""

    def __init__(self, root: Path, sources: Mapping[str, str], tests: Path) -> None:
        self._modules = {_dotted(path, base): path for path, base in sources.items()}
        helpers = {_dotted(path, "tests"): path for path in _relative(root, tests.rglob("*.py"))}
        files = _relative(root, tests.rglob("test_*.py"))
        self.tests = [path for path in files if "/data/" not in path]
        known = self._modules | helpers
        self._imports = {
            path: _imported((root / path).read_bytes(), module, known)
            for module, path in (known | {path: path for path in self.tests}).items()
        }

    def of(self, path: str, seconds: Mapping[str, float]) -> tuple[list[str], list[str]]:
        """Test files, those that are likely to tell first, and the others with any bearing; quick ones first."""
        scores = {test: self._score(path, test) for test in self.tests}
        ordered = sorted((test for test in self.tests if scores[test]), key=lambda t: (-scores[t], seconds.get(t, 2)))
        best = scores[ordered[0]] if ordered else 0
        near = [test for test in ordered if scores[test] >= max(4, best - 1)][:4] or ordered[:2]
        return near, [test for test in ordered if test not in near]

    def _score(self, path: str, test: str) -> int:
        module, words = Path(path), {word for part in Path(path).with_suffix("").parts for word in part.split("_")}
        folders = {word for part in Path(test).parts[1:-1] for word in part.split("_")}
        named = set(Path(test).stem.removeprefix("test_").split("_"))
        direct = self._imports[test]
        helped = {path for name in direct for path in self._imports.get(name, ()) if name.startswith("tests/")}
        imports = 3 if path in direct else 2 if path in helped else 0
        if not imports and any(path in self._imports.get(name, ()) for name in direct | helped):
            imports = 1
        same_name = set(module.stem.split("_")) <= named and bool(
            (named | folders) & (words - {module.stem}) or not folders
        )
        return imports + (4 if same_name else 0) + (2 if folders and folders & words and _beside(path, test) else 0)


def _beside(path: str, test: str) -> bool:
    """Whether the test's folder has the name of the module's, as tests/serve/batch that of ernie_rt_serve/batch."""
    folders = Path(test).parts[1:-1]
    parents = [part.rpartition("ernie_rt_")[2] for part in Path(path).parts[:-1]]
    return all(any(parent in folder.split("_") or parent == folder for parent in parents) for folder in folders)


def _relative(root: Path, paths: Iterable[Path]) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in paths)


def _dotted(path: str, base: str) -> str:
    return Path(path).relative_to(base).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def _imported(source: bytes, module: str, known: Mapping[str, str]) -> set[str]:
    """The files of the modules that a source names in its imports, wherever they stand."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {known[name] for name in names if name in known and name != module}
