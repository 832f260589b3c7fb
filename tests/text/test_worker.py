"""The process that renders strangers' templates: one for many, replaced when it dies, and gone when it should be."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ernie_rt.errors import ErnieRtError, TemplateError, TemplateLimitError
from ernie_rt.text import sandbox, worker
from ernie_rt.text.sandbox import Renderer
from support.templates import CONTEXT, GREETING, process

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    line = Path(f"/proc/{pid}/cmdline")  # of a dead process that nobody waits for it is empty
    return not line.exists() or bool(line.read_bytes())


def test_one_process_serves_all(renderer: Renderer) -> None:
    pids = set()
    for n in range(100):
        template = "{% if n % 10 == 9 %}{{ raise_exception('no') }}{% endif %}{{ n }}" if n % 3 else "{{ n }}"
        if n % 3 and n % 10 == 9:
            with pytest.raises(TemplateError, match="no"):
                renderer.render(template, [{"n": n}], "x")
        else:
            assert renderer.render(template, [{"n": n}], "x") == [str(n)]
        pids.add(process(renderer))
    assert len(pids) == 1


def test_a_killed_process_is_replaced(renderer: Renderer) -> None:
    for _ in range(10):
        renderer.render(GREETING, [CONTEXT], "x")
        killed = process(renderer)
        os.kill(killed, signal.SIGKILL)
        assert renderer.render(GREETING, [CONTEXT], "x") == ["hello"]
        assert process(renderer) != killed


def test_a_process_that_hangs_is_replaced(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 1.0)
    renderer.render(GREETING, [CONTEXT], "x")
    stopped = process(renderer)
    os.kill(stopped, signal.SIGSTOP)
    assert renderer.render(GREETING, [CONTEXT], "x") == ["hello"]
    assert process(renderer) != stopped


@pytest.mark.parametrize(("sent", "why"), [(signal.SIGSTOP, "more than 0.5 s"), (signal.SIGKILL, "signal 9")])
def test_a_process_that_waits_or_is_killed_at_work(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals, why: str
) -> None:
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 0.5)
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 60.0)
    renderer.render(GREETING, [CONTEXT], "x")
    timer = threading.Timer(0.1, os.kill, (process(renderer), sent))
    timer.start()
    with pytest.raises(TemplateLimitError, match=why):
        renderer.render(ENDLESS, [CONTEXT], "x")
    timer.join()
    assert process(renderer) == 0
    monkeypatch.undo()
    assert renderer.render(GREETING, [CONTEXT], "x") == ["hello"]


def test_an_answer_that_comes_as_time_is_up(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = worker.Worker.ask

    def late(self: worker.Worker, request: bytes, seconds: float, most: int) -> tuple[bool, bytes | None]:
        answer = ask(self, request, seconds, most)
        self._expire()
        return answer

    monkeypatch.setattr(worker.Worker, "ask", late)
    assert [renderer.render("{{ n }}", [{"n": n}], "x") for n in range(3)] == [["0"], ["1"], ["2"]]


def test_an_interrupted_rendering_does_not_answer_the_next(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: worker.Worker, most: int) -> bytes:
        raise KeyboardInterrupt

    renderer.render(GREETING, [CONTEXT], "x")
    monkeypatch.setattr(worker.Worker, "_receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        renderer.render("late", [CONTEXT], "x")
    monkeypatch.undo()
    assert renderer.render(GREETING, [CONTEXT], "x") == ["hello"]


def test_ctrl_c_in_the_terminal_is_not_for_the_child(renderer: Renderer) -> None:
    renderer.render(GREETING, [CONTEXT], "x")
    first = process(renderer)
    os.kill(first, signal.SIGINT)
    assert renderer.render(GREETING, [CONTEXT], "x") == ["hello"]
    assert process(renderer) == first


def test_threads_take_turns(renderer: Renderer) -> None:
    renderer.render(GREETING, [CONTEXT], "x")
    first = process(renderer)
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda n: renderer.render("{{ n }}" * (n % 7 + 1), [{"n": n}], "x"), range(200)))
    assert texts == [[str(n) * (n % 7 + 1)] for n in range(200)]
    assert process(renderer) == first


def test_copies_have_a_process_of_their_own(renderer: Renderer) -> None:
    renderer.render(GREETING, [CONTEXT], "x")
    for other in (copy.deepcopy(renderer), pickle.loads(pickle.dumps(renderer))):
        assert other.render(GREETING, [CONTEXT], "x") == ["hello"]
        assert process(other) != process(renderer)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_the_process_ends_with_its_renderer() -> None:
    gc.collect()
    files = len(list(Path("/proc/self/fd").iterdir()))
    ours = Renderer()
    pids = []
    for template in (GREETING, "{{ 'a' * 10000000000 }}", GREETING):
        try:
            ours.render(template, [CONTEXT], "x")
            pids.append(process(ours))
        except TemplateLimitError:
            pass
    assert len(set(pids)) == 2
    del ours
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


SCRIPT = """
import os, sys, time
from ernie_rt.text.sandbox import Renderer
ours = Renderer()
def say(): return ours.render("{{ n }}", [{"n": 1}], "x"), ours._worker._child.pid
def tell(what): os.write(1, f"{what}\\n".encode())
"""
LINGERS = SCRIPT + "tell(say()[1])\nif os.fork() == 0: tell('forked')\ntime.sleep(60)"
FORKS = """
first = say()
child = os.fork()
if child == 0:
    theirs = say()
    tell(theirs[0] == first[0] and theirs[1] != first[1] and say() == theirs)
    sys.exit()  # what is done at the end of a process must leave the parent's be
os.waitpid(child, 0)
tell(say() == first)
"""


def said(text: str) -> list[str]:
    """What a script says, in words."""
    return subprocess.run(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    ).stdout.split()


def test_a_fork_has_a_process_of_its_own() -> None:
    assert said(SCRIPT + FORKS) == ["True", "True"]


def test_a_fork_while_another_thread_renders() -> None:
    text = """
import threading
first = say()
threading.Thread(target=lambda: [say() for _ in range(300)], daemon=True).start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        tell(say()[1] != first[1])
        os._exit(0)
    os.waitpid(child, 0)
"""
    assert said("import warnings; warnings.simplefilter('ignore')" + SCRIPT + text) == ["True"] * 5


def test_the_process_ends_when_its_parent_is_killed() -> None:
    """Also while a fork of it lives on."""
    with subprocess.Popen([sys.executable, "-c", LINGERS], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid, forked = int(run.stdout.readline()), run.stdout.readline()
        assert forked == "forked\n"
        assert alive(pid)
        run.kill()
        began = time.monotonic()
        while alive(pid):
            assert time.monotonic() - began < 10
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("executable", "why"),
    [
        ("/bin/true", "exit code 0"),
        ("/bin/cat", "cat --help"),
        ("", "none"),
        (None, "none"),
        ("/nowhere", "No such file"),
    ],
)
def test_no_python_to_start(monkeypatch: pytest.MonkeyPatch, executable: str | None, why: str) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(ErnieRtError, match="no process could be started") as caught:
        Renderer().render(GREETING, [CONTEXT], "x")
    assert not isinstance(caught.value, TemplateError)
    assert why in str(caught.value.found)
    assert repr(executable) in str(caught.value)


def test_a_python_that_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waits = tmp_path / "waits.py"
    waits.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(sandbox, "SCRIPT", waits)
    monkeypatch.setattr(worker, "START_SECONDS", 0.5)
    with pytest.raises(ErnieRtError, match=r"found nothing for 0.5 s"):
        Renderer().render(GREETING, [CONTEXT], "x")


def test_jinja_is_found_where_this_process_has_it(tmp_path: Path) -> None:
    for name in ("jinja2", "markupsafe"):
        shutil.copytree(Path(*sandbox._folders(name)) / name, tmp_path / name)
    text = SCRIPT + "from ernie_rt.text import sandbox; say(); tell(sandbox._folders('jinja2', 'markupsafe'))"
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-S", "-c", text], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert run.stdout.strip() == str([str(tmp_path)])


def test_jinja_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "find_spec", lambda name: None)
    with pytest.raises(ErnieRtError, match="pip install jinja2"):
        Renderer().render(GREETING, [CONTEXT], "x")


def test_a_system_without_a_limit_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "worker.py"
    other.write_text(
        "import resource, runpy\n"
        "def refuse(kind, limits):\n"
        "    if kind == resource.RLIMIT_AS: raise ValueError('current limit exceeds maximum limit')\n"
        "    real(kind, limits)\n"
        "real, resource.setrlimit = resource.setrlimit, refuse\n"
        f"runpy.run_path({str(sandbox.SCRIPT)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(sandbox, "SCRIPT", other)
    assert Renderer().render(GREETING, [CONTEXT], "x") == ["hello"]
