"""The process that renders strangers' templates: one for many, replaced when it dies, and gone when it should be."""

from __future__ import annotations

import ast
import copy
import gc
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ernie_rt import worker
from ernie_rt.errors import ErnieRtError, TemplateError, TemplateLimitError
from ernie_rt.text import sandbox
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
    for _ in range(3):
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


def test_a_pipe_that_takes_a_part_at_a_time(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a signal comes while it is full."""
    renderer.render(GREETING, [CONTEXT], "x")
    assert renderer._worker is not None
    child = renderer._worker._child
    pipe = child.stdin
    assert pipe is not None
    first = process(renderer)
    monkeypatch.setattr(child, "stdin", SimpleNamespace(write=lambda data: pipe.write(data[:7]), close=pipe.close))
    assert renderer.render("{{ n }}", [{"n": 12}], "x") == ["12"]
    assert process(renderer) == first


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


@pytest.mark.parametrize("executable", ["/bin/true", "/bin/cat", "", None, "/nowhere/python3", "/nowhere/app.exe"])
def test_an_embedded_python(monkeypatch: pytest.MonkeyPatch, executable: str | None) -> None:
    """sys.executable is another program, or nothing: Python lies beside its library."""
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "_base_executable", executable, raising=False)
    ours = Renderer()
    assert ours.render(GREETING, [CONTEXT], "x") == ["hello"]
    assert Path(f"/proc/{process(ours)}/exe").readlink().name.startswith("python")


def test_no_other_program_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where Python is embedded, starting sys.executable would start the application anew."""
    application = tmp_path / "application"
    application.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    application.chmod(0o755)
    for name in ("executable", "_base_executable"):
        monkeypatch.setattr(sys, name, str(application), raising=False)
    assert Renderer().render(GREETING, [CONTEXT], "x") == ["hello"]
    assert not (tmp_path / "started").exists()
    assert str(application) not in worker.interpreters()


def test_it_is_looked_for_beside_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where Python is embedded and its build is silent about programs; what cannot be run is none."""
    for name in ("executable", "_base_executable"):
        monkeypatch.setattr(sys, name, str(tmp_path / "application"), raising=False)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    monkeypatch.setattr(os, "__file__", str(tmp_path / "lib" / "python3.11" / "os.py"))
    monkeypatch.setattr(sys, "base_exec_prefix", str(tmp_path / "elsewhere"))
    assert worker.interpreters() == []
    expected = [tmp_path / "elsewhere" / "bin" / "python3", tmp_path / "bin" / "python", tmp_path / "python.exe"]
    for path in (*expected, tmp_path / "bin" / "python3"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)
    (tmp_path / "bin" / "python3").chmod(0o644)
    (tmp_path / "lib" / "python").mkdir(parents=True)
    assert worker.interpreters() == [str(path) for path in expected]


@pytest.mark.parametrize(
    ("name", "python"),
    [
        ("python", True), ("python3.11", True), ("Python.exe", True), ("pythonw.exe", True), ("python3.13t", True),
        ("python_d.exe", True), (".python3.11-wrapped", True), ("pypy3", True), ("hython", True),
        ("uwsgi", False), ("maya.exe", False), ("blender", False), ("python-app", False), ("python.sh", False),
    ],
)  # fmt: skip
def test_names_of_interpreters(monkeypatch: pytest.MonkeyPatch, name: str, python: bool) -> None:
    monkeypatch.setattr(sys, "executable", f"/nowhere/{name}")
    assert (f"/nowhere/{name}" in worker.interpreters()) == python


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([], "none, nor any beside Python's library"),
        (["/bin/true"], "/bin/true: exit code 0"),
        (["/bin/cat"], "/bin/cat: exit code 1: .*cat --help"),
        (["/nowhere"], "/nowhere: No such file or directory"),
        (["/bin/false", "/nowhere"], "/bin/false: exit code 1; /nowhere: No such file"),
    ],
)
def test_no_python_to_start(monkeypatch: pytest.MonkeyPatch, found: list[str], why: str) -> None:
    monkeypatch.setattr(worker, "interpreters", lambda: found)
    with pytest.raises(ErnieRtError, match="no process could be started") as caught:
        Renderer().render(GREETING, [CONTEXT], "x")
    assert not isinstance(caught.value, TemplateError)
    assert re.search(why, str(caught.value.found))
    assert repr(sys.executable) in str(caught.value)


def test_a_python_that_has_lost_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says why in the first of many lines."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setattr(worker, "interpreters", lambda: [sys.executable])
    with pytest.raises(ErnieRtError, match="exit code 1: Fatal Python error"):
        Renderer().render(GREETING, [CONTEXT], "x")


def test_the_first_that_starts_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "interpreters", lambda: ["/bin/false", "/nowhere", sys.executable])
    ours = Renderer()
    assert ours.render(GREETING, [CONTEXT], "x") == ["hello"]
    with pytest.raises(TemplateLimitError):
        ours.render("{{ 'a' * 10000000000 }}", [CONTEXT], "x")


def test_a_python_that_cannot_import_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "folders_of", lambda *packages: ["/nowhere"])
    with pytest.raises(ErnieRtError, match=r"exit code 1: ModuleNotFoundError: No module named 'jinja2'"):
        Renderer().render(GREETING, [CONTEXT], "x")


def test_a_python_that_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waits = tmp_path / "waits.py"
    waits.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(sandbox, "SCRIPT", waits)
    monkeypatch.setattr(worker, "interpreters", lambda: [sys.executable, "/bin/false"])
    monkeypatch.setattr(worker, "START_SECONDS", 0.5)
    with pytest.raises(ErnieRtError, match=r": nothing for 0.5 s; /bin/false: exit code 1"):
        Renderer().render(GREETING, [CONTEXT], "x")


def test_no_thread_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    started = []
    start = subprocess.Popen.__init__
    ours = Renderer()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", lambda self, *a, **k: started.append(self) or start(self, *a, **k))
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ErnieRtError, match=r"no thread could be started .* can't start new thread"):
            ours.render(GREETING, [CONTEXT], "x")
    assert [child.poll() for child in started] == [-signal.SIGKILL]
    assert ours.render(GREETING, [CONTEXT], "x") == ["hello"]


def from_packages(place: Path, python: str = sys.executable, *, cwd: Path | None = None, **env: str) -> Any:
    """What a process says that has Jinja from a place alone: its words, and what its child was started with."""
    text = SCRIPT + "from ernie_rt import worker; say(); tell(worker.folders_of('jinja2', 'markupsafe'))\n"
    text += "tell(ours._worker._child.args)"
    others = [path for path in sys.path if path and not (Path(path) / "jinja2").exists()]
    others.append(str(Path(sandbox.__file__).parents[2]))
    run = subprocess.run(
        [python, "-S", "-c", text], capture_output=True, text=True, cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(place), *others]), **env},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return [ast.literal_eval(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("name", ["packages", "包 with blanks", "archive.zip", "relative"])
def test_jinja_is_found_where_this_process_has_it(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    for package in ("jinja2", "markupsafe"):
        shutil.copytree(Path(*worker.folders_of(package)) / package, tmp_path / "packages" / package)
    if name.endswith(".zip"):
        shutil.make_archive(str(place.with_suffix("")), "zip", tmp_path / "packages")
    elif name != "packages":
        (tmp_path / "packages").rename(place)
    given = Path("relative") if name == "relative" else place
    folders, _ = from_packages(given, cwd=tmp_path)
    assert folders == [str(place)]


def test_a_python_that_needs_to_be_told_where_its_library_is(tmp_path: Path) -> None:
    copied = tmp_path / "python3"
    shutil.copy(Path(sys.executable).resolve(), copied)
    (folder,) = worker.folders_of("jinja2", "markupsafe")
    _, started = from_packages(Path(folder), str(copied), PYTHONHOME=sys.base_prefix)
    assert started[0] == str(copied)


def test_ernie_rt_in_an_archive(tmp_path: Path) -> None:
    package = Path(sandbox.__file__).parents[1]
    ignored = shutil.ignore_patterns("__pycache__", "demo", "conformance", "*.safetensors")
    shutil.copytree(package, tmp_path / "all" / "ernie_rt", ignore=ignored)
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "all")
    text = "import sys; sys.path.insert(0, sys.argv[1])\n" + SCRIPT + "import ernie_rt; say(); tell(ernie_rt.__file__)"
    run = subprocess.run([sys.executable, "-c", text, archive], capture_output=True, text=True)
    assert run.stdout.strip().startswith(archive), run.stderr


def test_without_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "SCRIPT", tmp_path / "absent.py")
    with pytest.raises(ErnieRtError, match="the program that renders chat templates is not there"):
        Renderer().render(GREETING, [CONTEXT], "x")


def test_jinja_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "find_spec", lambda name: None)
    with pytest.raises(ErnieRtError, match="pip install jinja2"):
        Renderer().render(GREETING, [CONTEXT], "x")


@pytest.mark.parametrize(
    "refused",
    [
        "if kind == resource.RLIMIT_AS: raise ValueError('current limit exceeds maximum limit')",
        "raise OSError(1, 'Operation not permitted')",
    ],
)
@pytest.mark.parametrize("absent", ["", "del resource.RLIMIT_AS, signal.ITIMER_PROF\n"])
def test_a_system_without_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refused: str, absent: str) -> None:
    other = tmp_path / "worker.py"
    other.write_text(
        "import resource, runpy, signal\n"
        "def refuse(kind, limits):\n"
        f"    {refused}\n"
        "    real(kind, limits)\n"
        f"real, resource.setrlimit = resource.setrlimit, refuse\n{absent}"
        f"runpy.run_path({str(sandbox.SCRIPT)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(sandbox, "SCRIPT", other)
    assert Renderer().render(GREETING, [CONTEXT], "x") == ["hello"]
