"""A stranger's code in a child process: whatever it does, the answer comes, or one line that says why not."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ernie_rt.discovery import child
from ernie_rt.errors import PluginError

SOURCE = """
import atexit, os, subprocess, sys, threading, time

def value(*words): return {"words": words, "path": sys.path[0]}
def loud():
    print("h\\x1b[31mi")
    os.system("echo from a grandchild")
    os.write(1, b"from C")
    sys.stderr.write("x" * 100_000)
    return [1]
def endless_output():
    for _ in range(200): print("y" * 10_000)
def raises(): raise OSError("no disk\\nat all \\x1b[2J" + "z" * 1000)
def leaves(): sys.exit(0)
def ends(): os._exit(7)
def crashes(): os.kill(os.getpid(), 9)
def interrupts(): raise KeyboardInterrupt
def answers(text):
    for descriptor in range(3, 9):  # one of them is where its answer goes
        try: os.write(descriptor, text.encode())
        except OSError: pass
    os._exit(0)
def endless():
    while True: pass
def reads(): return sys.stdin.read()
def lingers():
    atexit.register(time.sleep, 60)
    threading.Thread(target=time.sleep, args=(60,)).start()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(8)"])
    return "done"
def forges(text):
    for name in os.listdir("/proc/self/fd"):
        if "answer" in os.readlink(f"/proc/self/fd/{name}"):
            os.write(int(name), text.encode())
    os._exit(0)
def daemon(note, stays):
    if os.fork():
        os.wait()
        while stays: time.sleep(1)
        return
    os.setsid()
    if os.fork(): os._exit(0)
    with open(note, "w") as file: file.write(str(os.getpid()))
    os.rename(note, note + ".there")
    time.sleep(60)
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (tmp_path / "stranger.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)

    def call(name: str, *arguments: str, seconds: float = 30) -> object:
        return child.call(f"stranger:{name}", *arguments, seconds=seconds, doing="trying it")

    return call


def test_the_answer_and_what_was_printed(call, tmp_path: Path) -> None:
    assert call("value", "a", "ü\n") == ({"words": ["a", "ü\n"], "path": str(tmp_path)}, "")
    assert call("loud") == ([1], "h\\x1b[31mi")
    assert call("reads") == ("", "")
    answer, noise = call("endless_output")
    assert answer is None and noise == "y" * child.NOISE_BYTES


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("raises", "OSError: no disk\\nat all \\x1b[2Jzzz"),
        ("leaves", "SystemExit: 0"),
        ("ends", "trying it ends the process with exit code 7"),
        ("crashes", "trying it ends the process with signal SIGKILL"),
        ("interrupts", "KeyboardInterrupt: "),
        ("absent", "AttributeError: module 'stranger' has no attribute 'absent'"),
    ],
)
def test_failures_in_one_line(name: str, cause: str, call) -> None:
    with pytest.raises(PluginError) as caught:
        call(name)
    assert caught.value.what.startswith(cause) and len(caught.value.what) <= 400


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("1", "is answered by something else"),
        ('{"value": 1, "noise": 2}', "is answered by something else"),
        ('{"error": ["a"]}', "is answered by something else"),
        ('{"error": "\\u001b[2J", "noise": ""}', "\\x1b[2J"),
        ("[" * 99_999, "ends the process"),
    ],
)
def test_an_answer_that_a_stranger_wrote(answer: str, cause: str, call) -> None:
    with pytest.raises(PluginError) as caught:
        call("answers", answer)
    assert cause in caught.value.what


def test_an_answer_that_is_too_long(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "ANSWER_BYTES", 8)
    with pytest.raises(PluginError, match=r"^trying it is answered with more than 0 MiB$"):
        call("loud")


def test_where_no_process_can_be_started(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(PluginError, match="trying it needs a process of its own, and none can be started: "):
        call("loud")


@pytest.mark.parametrize("memory", [True, False])
def test_where_the_answer_lies(memory: bool, call, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, so that no folder need be there to write to; in a temporary file where the system has no such."""
    if memory:
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    else:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    assert call("loud") == ([1], "h\\x1b[31mi")


def test_what_has_no_end_is_ended(call) -> None:
    began = time.monotonic()
    with pytest.raises(PluginError, match=r"^trying it takes longer than 0\.5 s$"):
        call("endless", seconds=0.5)
    assert time.monotonic() - began < 30


def test_without_process_groups(call, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.delattr(os, "killpg")
    assert call("loud") == ([1], "h\\x1b[31mi")
    test_what_has_no_end_is_ended(call)


def test_nothing_is_imported_from_the_folder_it_runs_in(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(elsewhere)
    assert call("reads") == ("", "")


def test_what_it_leaves_behind_delays_nobody(call) -> None:
    began = time.monotonic()
    assert call("lingers") == ("done", "")
    assert time.monotonic() - began < 7


FORGED = ["[]", "7", "{}", '{"value": 1}', '{"value": 1, "noise": 2}', '{"error": 1, "noise": ""}', "[" * 100_000]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the answer's descriptor in /proc")
@pytest.mark.parametrize("text", FORGED, ids=lambda text: text[:20])
def test_an_answer_that_it_wrote_itself(text: str, call) -> None:
    with pytest.raises(
        PluginError, match=r"^trying it (is answered by something else|ends the process with exit code 0)$"
    ):
        call("forges", text)


@pytest.mark.skipif(sys.platform != "linux", reason="daemons are found on Linux")
@pytest.mark.parametrize("stays", ["", "yes"])
def test_a_daemon_that_it_started_ends_with_it(stays: str, call, tmp_path: Path) -> None:
    note = tmp_path / "daemon"
    if stays:
        with pytest.raises(PluginError, match="takes longer than"):
            call("daemon", str(note), stays, seconds=3)
    else:
        call("daemon", str(note), stays)
    started = note.with_name("daemon.there")
    deadline = time.monotonic() + 10
    while started.exists() and Path(f"/proc/{started.read_text()}").exists():
        state = Path(f"/proc/{started.read_text()}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert started.exists() or not stays
