"""Machines, users and moments that nobody has in mind: an exit code and a line, never a traceback.

Folders of one's own that cannot be are in tests/test_home.py and tests/doctor/test_folders.py, streams that end in
tests/cli/test_streams.py.
"""

from __future__ import annotations

import ctypes
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import ernie_rt
from ernie_rt import cli
from ernie_rt.errors import OptionError
from support.commands import START, command

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a fork of this process")

NEW_USER = 0x10000000
NOBODY = 65534


def run(arguments: list[str], variables: Mapping[str, str | None], before: Callable[[], None] = lambda: None) -> str:
    """What `ernie-rt ARGUMENTS` says in a fork with these variables, None for one that is not there; it must end well
    or by a line of ours."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            code: object = 99
            try:
                os.environ.update({name: value for name, value in variables.items() if value is not None})
                for name, value in variables.items():
                    if value is None:
                        os.environ.pop(name, None)
                for stream in (1, 2):
                    os.dup2(said.fileno(), stream)
                sys.stdin = io.TextIOWrapper(io.BytesIO(b"Hello.\n"), "utf-8")
                sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))  # noqa: SIM115
                sys.argv = ["ernie-rt", *arguments]
                before()
                cli.main()
            except SystemExit as exit:
                code = exit.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 98)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().decode(errors="replace")
    assert "Traceback" not in text and os.WIFEXITED(status), text
    assert os.WEXITSTATUS(status) in (0, 1, 2), text
    return text


def become_somebody() -> None:
    """A user without an entry in the list of users, and without root's rights, in a namespace of its own."""
    if ctypes.CDLL(None).unshare(NEW_USER):
        raise SystemExit(0)  # the system grants none
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text("12345 0 1")


LONG = "/" + "a" * 300
VERY_LONG = "/" + "a/" * 3000
OWN = ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME", "HF_HUB_CACHE")


def own(value: str) -> dict[str, str | None]:
    return dict.fromkeys(OWN, value)


UNREACHABLE = "http://127.0.0.1:1"
ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "no home": dict.fromkeys(OWN),
    "an empty home": own(""),
    "a relative home": own("here"),
    "a home of nobody": own("~nobody0/x"),
    "an overlong home": own(LONG),
    "a home beyond all paths": own(VERY_LONG),
    "a home that is a device": own("/dev/null"),
    "a home that cannot be written": own("/proc"),
    "a home of no text": own(os.fsdecode(b"/nowhere/\xff\xfe")),
    "an address that is none": {"HF_ENDPOINT": "http://[", "HF_HUB_OFFLINE": "0"},
    "an address of another kind": {"HF_ENDPOINT": "ftp://a b\n", "HF_HUB_OFFLINE": "0"},
    "a port that is none": {"HF_ENDPOINT": "http://127.0.0.1:99999999", "HF_HUB_OFFLINE": "0"},
    "a time that is none": {"HF_HUB_ETAG_TIMEOUT": "abc"},
    "another time that is none": {"HF_HUB_DOWNLOAD_TIMEOUT": "-"},
    "a token that no header can carry": {"HF_TOKEN": "中\n", "HF_ENDPOINT": UNREACHABLE, "HF_HUB_OFFLINE": "0"},
    "a proxy that is none": {"HTTP_PROXY": "http://[", "HF_ENDPOINT": UNREACHABLE, "HF_HUB_OFFLINE": "0"},
    "a proxy of another kind": {"ALL_PROXY": "socks9://x", "HF_ENDPOINT": UNREACHABLE, "HF_HUB_OFFLINE": "0"},
    "certificates that are not there": {"SSL_CERT_FILE": "/nowhere", "HF_ENDPOINT": UNREACHABLE, "HF_HUB_OFFLINE": "0"},
    "no terminal": {"TERM": None, "COLUMNS": "abc", "LINES": "-1"},
    "no width": {"COLUMNS": "0"},
    "threads that are none": {"OMP_NUM_THREADS": "abc", "MKL_NUM_THREADS": "-1"},
    "no folder for what is temporary": {"TMPDIR": "/nowhere"},
    "plugins that are none": {"ERNIE_RT_PLUGINS": "\x01,no:,:,no:no:"},
    "no path": {"PATH": None},
    "cards that are none": {"CUDA_VISIBLE_DEVICES": "abc,-5"},
}
TOKENIZE = ["tokenize", "demo", "Hello."]
COMMANDS = (["run", "no/such", "Hello."], ["cache"], TOKENIZE)


ALIKE = {
    "a home beyond all paths",
    "a home of nobody", "an overlong home", "a home that is a device", "a home of no text", "no width", "no path",
    "a home that cannot be written", "an address of another kind", "a port that is none", "another time that is none",
    "a proxy of another kind", "certificates that are not there", "cards that are none",
}  # fmt: skip
"""Those that another one stands for where time is short."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in ALIKE else ()) for name in ENVIRONMENTS]
)
def test_no_traceback(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    variables = ENVIRONMENTS[name]
    kind = slice(0, 1) if any(each.startswith("HF_HUB_") for each in variables) else slice(2, 3)
    for arguments in COMMANDS[:2] if "HOME" in variables else COMMANDS[kind]:
        run(arguments, variables)
    assert list(tmp_path.iterdir()) == [], "a path that is not absolute makes no folder here"


@pytest.mark.skipif(sys.platform != "linux", reason="users' own namespaces are Linux's")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_user_whom_nobody_knows(arguments: list[str], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    variables = own(str(closed)) if arguments == TOKENIZE else dict.fromkeys(OWN)
    run(arguments, variables, become_somebody)


@pytest.mark.skipif(sys.platform != "linux", reason="root is above this limit, and lowers itself by a system call")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (TOKENIZE, '"Hello"|"H"'),
        (["quantize", "demo", "OUT", "--weights", "int8"], "the system gives no more threads"),
        (["run", "demo", "Hello.", "-n", "1", "--backend", "reference"], "the system gives no more threads"),
    ],
    ids=lambda value: value[0],
)
def test_threads_that_cannot_start(arguments: list[str], says: str, tmp_path: Path) -> None:
    """Of a user who has as many processes as the system allows."""

    def lower() -> None:
        command(*sys.argv[1:])  # so that all modules are there, which the other user may not read
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if os.geteuid() == 0:
            ctypes.CDLL(None).setresuid(NOBODY, NOBODY, NOBODY)

    arguments = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    tmp_path.chmod(0o777)
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)  # pytest's own, which are the user's alone
    assert re.search(says, run(arguments, {"XDG_CACHE_HOME": str(tmp_path / "caches")}, lower))


OUT = ("", ".", "..", "/", "/proc/none", "a" * 300, "a\0b", "/dev/null")


@pytest.mark.parametrize("out", OUT, ids=ascii)
@pytest.mark.parametrize(
    "begin",
    [
        ["quantize", "demo", "OUT", "--weights", "int8"],
        ["convert", "demo", "OUT"],
        ["plan", "demo", "--html", "OUT"],
        ["routing", "demo", "Hello.", "--backend", "reference", "--svg", "OUT"],
        ["bench", "serve", "--base-url", UNREACHABLE, "--json", "OUT"],
        ["batch", "/etc/hostname", "-o", "OUT"],
        ["backends", "new", "OUT"],
        ["verify", "OUT"],
        ["replay", "OUT"],
    ],
    ids=lambda begin: begin[0],
)
def test_outputs_that_cannot_be(begin: list[str], out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = command(*(out if word == "OUT" else word for word in begin))
    assert ran.code in (1, 2) and "Traceback" not in ran.err and len(ran.err) < 2000
    assert ran.err.startswith(("ernie-rt: ", "Usage: ")) or "\nernie-rt: " in ran.err, ran.err
    assert list(tmp_path.iterdir()) == []


ADDRESSES = (
    "http://[", "http://x:99999999", "http://127.0.0.1:1/\x01", "http://127.0.0.1:1/a b", "http://é", "http://a..b",
    f"http://{'a' * 300}", "ftp://x", "http://\udcff", "", "x" * 10_000,
)  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: ascii(address)[:30])
def test_addresses_that_are_none(address: str) -> None:
    ran = command("bench", "serve", "--requests", "1", "--base-url", address)
    assert ran.code == 2 and ran.err.startswith("ernie-rt: --base-url is no address") and len(ran.err) < 300
    ran = command("serve", "demo", "--backend", "reference", "--insecure", "--host", address)
    assert ran.code == 2 and ran.err.count("\n") == 1 and ran.err.startswith("ernie-rt: "), ran.err


VAST = "1" + "0" * 400
NUMBERS = (VAST, f"-{VAST}", "1e999", "nan", "99999999", "-1", "")


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:8])
@pytest.mark.parametrize(
    "option",
    [
        "--temperature", "--top-p", "--top-k", "--min-p", "--seed", "--repetition-penalty", "--max-new-tokens",
        "--threads", "--max-context", "--memory", "--max-batch-tokens", "--max-patches", "--thinking-budget", "--fps",
        "--max-pixels", "--max-frames", "--cache-size",
    ],
)  # fmt: skip
def test_numbers_of_any_size(option: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are judged before a model is loaded, or fit one."""

    def loaded(*_: object, **options: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("ernie_rt.cli.loaded.loaded", loaded)
    ran = command("run", "demo", "Hello.", f"{option}={number}")
    assert ran.code in (0, 1, 2) and "Traceback" not in ran.err and len(ran.err) < 1000


@pytest.mark.parametrize(
    "begin",
    [["quantize", "demo", "OUT", "--weights", "int8"], ["run", "demo", "Hello."], ["export", "onnx", "demo", "OUT"]],
)
def test_more_threads_than_a_machine_has(begin: list[str], tmp_path: Path) -> None:
    ran = command(*(tmp_path / "out" if word == "OUT" else word for word in begin), "--threads", "99999999")
    assert (ran.code, list(tmp_path.iterdir())) == (2, [])
    assert ran.err == "ernie-rt: threads is not possible; expected 1 to 1024; found 99999999\n"


def test_as_many_sequences_as_nobody_has() -> None:
    ran = command("plan", "demo", "--sequences", VAST)
    assert ran.code == 2 and "less than or equal to 1048576" in ran.err


@pytest.mark.parametrize(
    "number", [0, -1, 1 << 31, 1 << 63, 10**400, 1.5, "1", True], ids=lambda number: str(number)[:9]
)
@pytest.mark.parametrize("option", ["max_batch_tokens", "max_sequences"])
def test_limits_that_are_none(option: str, number: object) -> None:
    with pytest.raises(OptionError, match=option) as caught:
        ernie_rt.load("demo", backend="reference", **{option: number})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("closed", ["0", "1 2", "0 1 2"])
def test_streams_that_are_closed(closed: str) -> None:
    close = f"import os, sys; [os.close(int(each)) for each in {closed!r}.split()]"
    arguments = f"[sys.executable, '-c', {START[-1]!r}, 'tokenize', 'demo', '-']"
    start = [sys.executable, "-c", f"{close}; os.execv(sys.executable, {arguments})"]
    ran = subprocess.run(start, input="Hello.", capture_output=True, text=True, timeout=60)
    assert ran.returncode in (0, 1, 2) and "Traceback" not in ran.stderr


INTERRUPTED = """
import signal
signal.signal(signal.SIGALRM, signal.default_int_handler)
from ernie_rt.__main__ import main
signal.setitimer(signal.ITIMER_REAL, SECONDS)
main()
"""


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.1, 0.15])
def test_an_interrupt_at_any_moment(seconds: float) -> None:
    """From the first instruction of ours on."""
    program = INTERRUPTED.replace("SECONDS", str(seconds))
    ran = subprocess.run([sys.executable, "-c", program, "models"], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ran.stderr and ran.returncode in (0, 130), ran.stderr


def test_an_interrupt_where_nothing_can_be_raised() -> None:
    """Python writes such a one down and goes on; here it comes again."""
    program = """
import signal, sys, time, weakref
signal.signal(signal.SIGINT, signal.default_int_handler)
import ernie_rt
from ernie_rt import cli
from ernie_rt.errors import OptionError
class Thing: pass
def interrupt(_): signal.default_int_handler(2, None)
def commands():
    thing = Thing()
    kept = weakref.ref(thing, interrupt)
    del thing
    time.sleep(20)
    print("went on")
cli.app = lambda **_: commands()
from ernie_rt.__main__ import main
main()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "ernie-rt: interrupted\n")


def test_what_lies_in_the_folder_is_not_imported(tmp_path: Path) -> None:
    """A model's folder may hold modules with names of ours and of Python's: `cd` there, and nothing of it is run.

    A `python -m ernie_rt` with an `ernie_rt.py` beside it is lost: Python itself looks there first.
    """
    for name in ("torch", "numpy", "typer", "json", "signal", "threading", "sitecustomize", "usercustomize", "onnx"):
        (tmp_path / f"{name}.py").write_text("from pathlib import Path\nPath('ran').touch()\nraise SystemExit(77)\n")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for start in ([str(Path(sys.executable).with_name("ernie-rt"))], [sys.executable, "-m", "ernie_rt"]):
        ran = subprocess.run([*start, "tokenize", "demo", "Hello."], cwd=tmp_path, env=variables, capture_output=True)
        assert ran.returncode == 0 and ran.stdout and not (tmp_path / "ran").exists(), ran.stderr.decode()
