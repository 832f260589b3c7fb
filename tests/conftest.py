"""What tests of several folders need."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# Before anything imports them: `python -O` would leave their asserts out, and with them what tests hold.
pytest.register_assert_rewrite("faults", "fuzz", "support")

from safetensors.numpy import load_file, save_file

import ernie_rt
from browser import Browser, browser, chromium
from ernie_rt import Model
from ernie_rt.planning.machine import this_machine
from ernie_rt.text import sandbox
from ernie_rt_serve.access import Keys
from ernie_rt_serve.settings import Settings
from support.figures import worst
from support.serving import KEY, Served, serving
from support.untrained import write_untrained

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # for the tests that import onnxruntime themselves
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of tests that a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither believe nor change what ernie-rt has kept for whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def log() -> None:
    """The log begins each test as it is imported: `ernie-rt serve` in this process sets it up, and so do libraries."""
    for name, each in list(logging.root.manager.loggerDict.items()):
        if isinstance(each, logging.Logger) and name.startswith(("ernie_rt", "uvicorn")):
            each.handlers, each.propagate, each.disabled = [], True, False
            each.setLevel(logging.NOTSET)


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """This machine is measured again, and what a test lets be measured is forgotten after it."""
    this_machine.cache_clear()
    yield
    this_machine.cache_clear()


@pytest.fixture(scope="session")
def program() -> Iterator[Browser]:
    """A Chromium without a window, for tests that `needs_browser` lets run."""
    path = chromium()
    assert path is not None
    with browser(path) as running:
        yield running


@pytest.fixture(scope="session")
def demo() -> Iterator[Model]:
    """The demo model, for servers."""
    with ernie_rt.load("demo", backend="onnx", max_sequences=4, max_context=512, threads=1) as model:
        yield model


@pytest.fixture(scope="session")
def locked(demo: Model) -> Iterator[Served]:
    """A server of the demo model, for who has one of two keys."""
    with serving(demo, Settings("demo", keys=Keys.of([KEY, "sk-second"]))) as served:
        yield served


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random checkpoint with a tokenizer. Tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("untrained") / "model"
    write_untrained(folder)
    return folder


@pytest.fixture
def with_own_head(untrained: Path, tmp_path: Path) -> Path:
    """The same with a head of its own, although its config ties it to the embedding: a merged adapter leaves that."""
    folder = shutil.copytree(untrained, tmp_path / "own head")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = np.ascontiguousarray(tensors["model.embed_tokens.weight"][::-1])
    save_file(tensors, folder / "model.safetensors")
    return folder


class KeptRenderer(sandbox.Renderer):
    """One that whoever has no more use for it leaves to others."""

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def one_renderer() -> Iterator[None]:
    """One child process is asked about all templates: to start one is most of what loading a model costs."""
    renderer = KeptRenderer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "Renderer", lambda: renderer)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """The worst figures: they come with the reports, whichever process the tests ran in."""
    reports = itertools.chain(*(terminalreporter.stats.get(outcome, []) for outcome in ("passed", "failed")))
    if figures := worst(reports):
        terminalreporter.section("worst figures")
        for figure, (value, limit, test) in sorted(figures.items()):
            terminalreporter.write_line(f"{figure:58} {value:9.2e}  limit {limit:8.1e}  {test}")
    return (yield)
