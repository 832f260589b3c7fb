"""Which test files are nearest to a module: those named after it, that import it, that speak of what it says."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

RARE: Final = 6
"""What so many tests speak of at most says which they are about."""


class Nearness:
    """The imports of a tree. `sources` are files of its packages, each with the folder that it is imported from."""

    def __init__(self, root: Path, sources: Mapping[str, str], tests: Path) -> None:
        self._root = root
        modules = {_dotted(path, base): path for path, base in sources.items()}
        helpers = {_dotted(path, "tests"): path for path in _relative(root, tests.rglob("*.py"))}
        self.tests = [path for path in _relative(root, tests.rglob("test_*.py")) if "/data/" not in path]
        known = modules | helpers
        texts = {path: (root / path).read_text() for path in {*known.values(), *self.tests}}
        self._imports = {path: _imported(text, known) - {path} for path, text in texts.items()}
        self._said = {path: _said(texts[path]) for path in self.tests}
        self._often = Counter(said for each in self._said.values() for said in each)

    def of(self, path: str, seconds: Mapping[str, float]) -> tuple[list[str], list[str]]:
        """Test files, those that are likely to tell first, and the others with any bearing; quick ones first."""
        said = {each for each in _said((self._root / path).read_text(), own=True) if self._often[each] <= RARE}
        scores = {test: self._score(path, said, test) for test in self.tests}
        ordered = sorted((test for test in self.tests if scores[test]), key=lambda t: (-scores[t], seconds.get(t, 2)))
        best = scores[ordered[0]] if ordered else 0
        near = [test for test in ordered if scores[test] >= max(4, best - 1)][:4] or ordered[:2]
        return near, [test for test in ordered if test not in near]

    def _score(self, path: str, said: set[str], test: str) -> float:
        module, words = Path(path), {word for part in Path(path).with_suffix("").parts for word in part.split("_")}
        folders = {word for part in Path(test).parts[1:-1] for word in part.split("_")}
        named = set(Path(test).stem.removeprefix("test_").split("_"))
        direct = self._imports[test]
        helped = {path for name in direct if name.startswith("tests/") for path in self._imports[name]}
        imports = 3 if path in direct else 2 if path in helped else 0
        if not imports and any(path in self._imports[name] for name in direct | helped):
            imports = 1
        elsewhere = bool(folders) and not (named | folders) & (words - {module.stem})
        same_name = set(module.stem.split("_")) <= named and not elsewhere
        beside = bool(folders) and _beside(path, test)
        return imports + 4 * same_name + 2 * beside + min(3, len(said & self._said[test]) / 2)


def _beside(path: str, test: str) -> bool:
    """Whether the test's folder has the name of the module's, as tests/serve/batch that of ernie_rt_serve/batch."""
    parents = [part.rpartition("ernie_rt_")[2] for part in Path(path).parts[:-1]]
    return all(
        any(name == folder or name in folder.split("_") for name in parents) for folder in Path(test).parts[1:-1]
    )


def _relative(root: Path, paths: Iterable[Path]) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in paths)


def _dotted(path: str, base: str) -> str:
    return Path(path).relative_to(base).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def _imported(text: str, known: Mapping[str, str]) -> set[str]:
    """The files of the modules that a source names in its imports, wherever they stand."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {known[name] for name in names if name in known}


def _said(text: str, own: bool = False) -> set[str]:
    """Names in a source, of its `own` those that it defines; and any three words in a row of its strings."""
    names = re.findall(r"(?:def|class) ([a-zA-Z]\w{3,})" if own else r"[a-zA-Z]\w{3,}", text)
    lines = (re.findall(r"\w+", each) for each in re.findall(r'"([^"\n]{12,})"', text))
    threes = (" ".join(three) for words in lines for three in zip(words, words[1:], words[2:], strict=False))
    return {*names, *threes}
