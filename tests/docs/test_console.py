"""What the pages show of a terminal happens: their commands run, one after the other, in an empty folder.

`<!-- tests: NAME is the demo -->` in a page puts the demo in the place of a model. A file that is shown by `cat` before
there is one is an input. What is printed has to be what is shown; `…` stands for anything, and figures of time, memory
and noise may differ.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import ernie_rt
import ernie_rt_eager.backend
from ernie_rt.contract import Interpreter, Node
from support.commands import command
from support.shown import PAGES, ROOT, Shown, blocks, commands, pattern

OWN_TESTS = {
    "commands.md": "tests/cli/test_commands_page.py",
    "routing.md": "tests/routing/test_docs.py",
    "tutorial.md": "tests/test_tutorial.py",
}
"""Pages that are followed elsewhere, word by word."""
NOT_RUN = {
    r"make (demo|test|wheels)\b": "each sets up an environment: whoever runs the tests has run one",
    r"\. \.venv/bin/activate": "an environment for a shell",
    r"pip ": "needs an index of packages; tests/test_tutorial.py installs the wheel",
    r"ls dist": "what `make wheels` leaves; tests/tools/test_wheels.py",
    r"docker |openssl ": "needs Docker; tests/test_container.py reads the Dockerfile",
    r".*--device (cuda|mps)": "needs a GPU",
    r"ernie-rt serve |curl |ask|rules=": "needs a server; tests/serve/test_serving_page.py asks one what pages ask",
    r"ernie-rt bench serve": "needs a server; tests/serve/test_cli_bench.py",
    r"ernie-rt bench 0.3B": "takes minutes, and llama.cpp; tests/bench/test_cli.py",
    r"ernie-rt cache": "what somebody's cache holds; tests/cli/test_cache.py",
    r"ernie-rt doctor": "what it finds is of a machine; tests/cli/test_doctor.py has one with faults",
    r"ernie-rt lm-eval": "needs the extra lm-eval; tests/harness/test_model.py asks where it is installed",
}
"""Commands that cannot be run here, and why."""
PYTHON = {
    "README.md": "tests/docs/test_console.py",
    "architecture.md": "the protocols, in outline",
    "backends.md": "a piece of a backend; tests/test_tutorial.py makes a whole one",
    "chat.md": "tests/test_chat_api.py",
    "commands.md": "tests/cli/test_commands_page.py",
    "conformance.md": "the test that `backends new` writes; tests/test_tutorial.py runs it",
    "determinism.md": "a line of Python; tests/test_python_page.py runs the same",
    "eval.md": "needs the extra lm-eval and the hub; tests/harness/test_model.py does without the hub",
    "onnx.md": "tests/onnx_export/test_export.py",
    "prefix-cache.md": "a line of Python; tests/test_python_page.py runs the same",
    "python.md": "tests/test_python_page.py",
    "receipts.md": "tests/receipts/test_page.py",
    "responses-and-messages.md": "needs a server; tests/serve/test_openai_client.py has one for such clients",
    "routing.md": "tests/routing/test_docs.py",
    "serving.md": "tests/serve/test_serving_page.py",
    "structured-output.md": "tests/test_python_page.py",
    "tutorial.md": "tests/test_tutorial.py",
}
"""Where the Python of each page runs, or why it does not."""
OTHERS = {
    "caddyfile": "tests/serve/test_serving_page.py reads it",
    "ini": "tests/serve/test_serving_page.py has systemd read it",
    "json": "a backend's file; tests/conformance/test_declared.py reads such",
    "nginx": "tests/serve/test_serving_page.py reads it",
    "powershell": "needs Windows",
    "sh": "needs a GPU; tests/tools/test_gpu_benchmark.py runs the same without one",
    "toml": "tests/cli/test_commands_page.py reads it",
    "yaml": "tests/serve/test_serving_page.py reads it",
}
"""Blocks in other languages."""
FIGURES = ("batch", "conform", "diff", "eval", "plan", "plugins", "replay", "verify")
"""Commands whose figures are of a machine or of a moment."""
LONG = ("conformance.md", "onnx.md")


def runs() -> list[Any]:
    pages = [page for page in PAGES if page.name not in OWN_TESTS and commands(page)]
    return [pytest.param(page, id=page.name, marks=[pytest.mark.long] * (page.name in LONG)) for page in pages]


def reason(shown: Shown) -> str | None:
    return next((why for what, why in NOT_RUN.items() if re.match(what, shown.command)), None)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "here" / "tests").mkdir(parents=True)
    (tmp_path / "here" / "tests" / "data").symlink_to(ROOT / "tests" / "data")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("page", runs())
def test_what_is_shown_is_what_happens(page: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"^<!-- tests: (\S+) is the demo -->$", page.read_text("utf-8"), re.MULTILINE):
        (sandbox / name).parent.mkdir(parents=True, exist_ok=True)
        (sandbox / name).symlink_to(ernie_rt.locate("demo").folder or "")
    if page.name == "diagnosing.md":
        monkeypatch.setattr(ernie_rt_eager.backend, "Interpreter", Swapped)
    for shown in commands(page):
        if reason(shown) is None:
            run(shown, sandbox)


def run(shown: Shown, folder: Path) -> None:
    """Run a command, and compare what it prints with what is shown, if anything is."""
    words = shlex.split(shown.command, comments=True)
    if words[0] == "cat" and not (folder / words[1]).exists():
        (folder / words[1]).write_text(shown.expected)
        return
    if words[0] != "ernie-rt":
        ran = subprocess.run(["bash", "-c", shown.command], cwd=folder, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        printed = (ran.stdout,)
    else:
        *arguments, file = [*words[1:], ""] if "<" not in words else [w for w in words[1:] if w != "<"]
        done = command(*arguments, stdin=(folder / file).read_bytes() if file else b"")
        failed = re.search(r"^bug: |^\d+ requests, [1-9]\d* with errors", shown.expected, re.MULTILINE) is not None
        assert done.code == failed, f"{shown.command}\n{done.err}"
        printed = done.out, done.err + done.out, done.err
    if shown.expected:
        told = pattern(unnamed(shown.expected), figures=words[0] == "cat" or words[1] in FIGURES)
        assert any(re.fullmatch(told, unnamed(text)) for text in printed), "\n".join([shown.command, *printed])


def unnamed(text: str) -> str:
    """A drift without the names of sound pieces, and levels without those of checks: which is the worst of several that
    are alike, rounding decides."""
    text = re.sub(r"^(layers\.\d+ .* [01]\.\d +)[\w.]+", r"\1piece", text, flags=re.MULTILINE)
    return re.sub(r"^(L\d(?: +\d+){5} +)L\d/\S+", r"\1check", text, flags=re.MULTILINE)


class Swapped(Interpreter):
    """docs/diagnosing.md: gate and up change places in layer 2 of eager's shared experts."""

    def _call(self, node: Node, function: Callable[..., Any], live: set[int]) -> Any:
        swapped = node.scope == "layers.2.mlp.shared.swiglu"
        return super()._call(node, (lambda x: function(x.flip(-2))) if swapped else function, live)


def test_the_lists_speak_of_what_is_there() -> None:
    everything = [shown for page in PAGES for shown in commands(page)]
    for what in NOT_RUN:
        assert any(re.match(what, shown.command) for shown in everything), f"no page shows {what}"
    for name in FIGURES:
        assert any(re.match(rf"ernie-rt {name}\b", shown.command) and shown.expected for shown in everything), name
    assert set(OWN_TESTS) | set(LONG) <= {page.name for page in PAGES}
    reasons = " ".join(why for each in (OWN_TESTS, NOT_RUN, PYTHON, OTHERS) for why in each.values())
    assert all((ROOT / path).exists() for path in re.findall(r"tests/[\w/]+\.py", reasons))
    assert {page.name for page in PAGES if blocks(page, "python")} == PYTHON.keys()
    assert {language for page in PAGES for language, _ in blocks(page)} == {"", "console", "python", *OTHERS}
    prompts = {language for page in PAGES for language, text in blocks(page) if re.search(r"^\$ ", text, re.MULTILINE)}
    assert prompts == {"console"}, "a block with a prompt is one of `console`"


def test_the_python_of_the_readme() -> None:
    (source, expected), *more = re.findall(
        r"^```python\n(.*?)^```\n\n```\n(.*?)^```$", PAGES[0].read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(source, "README.md", "exec"), {})
    assert printed.getvalue() == expected and not more
