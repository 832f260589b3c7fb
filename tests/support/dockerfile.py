"""Dockerfiles and .dockerignore, as far as ours go: no heredocs, no flags but those of COPY and FROM."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """`COPY --from=a b c` is the word `COPY`, and `arguments` in exec form (JSON) or apart by spaces."""

    word: str
    text: str
    flags: Mapping[str, str]

    @property
    def arguments(self) -> list[str]:
        """Words, or the strings of the exec form."""
        return list(json.loads(self.text)) if self.is_exec else self.text.split()

    @property
    def is_exec(self) -> bool:
        return self.text.startswith("[")


@dataclass(slots=True)
class Stage:
    """What is built from one FROM to the next; `base` is an image, or another stage."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        return [each for each in self.instructions if each.word == word]


def parse(text: str, **given: str) -> list[Stage]:
    """The stages that lead to the last one, it last, with the `given` build arguments in the names of stages."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    settings: dict[str, str] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        flags = dict(re.findall(r"--([a-z-]+)=(\S+)", re.match(r"(--\S+\s+)*", rest)[0]))  # type: ignore[index]
        each = Instruction(word, re.sub(r"^(--\S+\s+)*", "", rest), flags)
        if word == "FROM":
            base, *name = re.sub(r"\$\{(\w+)\}", lambda found: settings[found[1]], each.text).split(" AS ")
            stages[name[0] if name else ""] = last = Stage(name[0] if name else "", base)
        elif not stages:
            assert word == "ARG"
            key, _, value = rest.partition("=")
            settings[key] = given.get(key, value)
        else:
            last.instructions.append(each)
    return list(_wanted(last, stages))


def _wanted(stage: Stage, stages: Mapping[str, Stage]) -> Iterator[Stage]:
    sources = [stage.base, *(each.flags["from"] for each in stage.all("COPY") if "from" in each.flags)]
    for source in sources:
        if source in stages:
            yield from _wanted(stages[source], stages)
    yield stage


def ignored(path: str, rules: str) -> bool:
    """Whether a file is left out by a .dockerignore: the last rule that names it, or a folder of it, says so."""
    out = False
    parents = [path, *map(str, Path(path).parents)][:-1]
    for line in rules.splitlines():
        rule = line.strip()
        if rule and not rule.startswith("#"):
            keep, pattern = rule.startswith("!"), rule.removeprefix("!").strip("/")
            parts = pattern.split("**/")
            found = "(?:.*/)?".join(translate(part)[4:-3].replace(".*", "[^/]*") for part in parts)
            if any(re.fullmatch(found, each) for each in parents):
                out = not keep
    return out
