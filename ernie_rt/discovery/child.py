"""Call a function in a child process that can be stopped: how a stranger's code is tried before it is trusted."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from ernie_rt.display import printable
from ernie_rt.errors import ErnieRtError, PluginError
from ernie_rt.writing import temporary_file

ANSWER_BYTES: Final = 1 << 20
NOISE_BYTES: Final = 200
LINE: Final = 400
"""Characters of a cause, or of what was printed, at most."""
ADOPTING: Final = 36
"""PR_SET_CHILD_SUBREAPER of Linux: whose parent has ended becomes a child of the process that asked for it."""
PROGRAM: Final = """
import json, sys
request = json.loads(sys.argv[1])
sys.path[:] = request["path"]
from ernie_rt.discovery.child import serve
serve(request["target"], request["arguments"])
"""


def call(target: str, *arguments: str, seconds: float, doing: str) -> tuple[Any, str]:
    """What a function ("package.module:function") of `arguments` returns, which is JSON, and what it printed.

    PluginError when it raises anything, ends its process, takes longer than `seconds`, or no process can be started;
    `doing` is what it does, in words. The child has this process's import path; its standard input is empty, and its
    standard error goes nowhere. Whatever it began ends with it, where the system has process groups; daemons too, which
    leave theirs, on Linux.
    """
    request = json.dumps({"path": sys.path, "target": target, "arguments": arguments})
    with _unnamed() as answer:  # not a pipe, which a grandchild could keep open
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, request],  # -P: the folder it runs in may be anybody's
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise PluginError(f"{doing} needs a process of its own, and none can be started: {error}") from error
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise PluginError(f"{doing} takes longer than {seconds:g} s") from None
        finally:
            _end(child)
        answer.seek(0)
        data = answer.read(ANSWER_BYTES + 1)
    if len(data) > ANSWER_BYTES:
        raise PluginError(f"{doing} is answered with more than {ANSWER_BYTES >> 20} MiB")
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        end = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise PluginError(f"{doing} ends the process with {end}") from None
    match told:  # what ran there can have written it
        case {"error": str(cause), "noise": str()}:
            raise PluginError(printable(cause)[:LINE])
        case {"value": value, "noise": str(noise)}:
            return value, printable(noise)[:LINE]
    raise PluginError(f"{doing} is answered by something else")


def _unnamed() -> IO[bytes]:
    """A file without a name: in memory where the system has such, since a container may have no folder to write to."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("answer"), "w+b")
    return temporary_file()


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child with all that it began; on Windows, which has no process groups, the child alone."""
    _end_below(child.pid)
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.wait()


def _end_below(process: int) -> None:
    """End the children of a process, theirs first, as far as the system lists them."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for each in map(int, children.read_text().split()):
                _end_below(each)
                os.kill(each, signal.SIGKILL)


def _adopt() -> None:
    """Have what begins here, and leaves its parent to live on, stay below this process, where the system can."""
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(ADOPTING, 1, 0, 0, 0)


def modules_of(module: str) -> list[str]:
    """What importing a module brings into the process."""
    before = set(sys.modules)
    importlib.import_module(module)
    return sorted(set(sys.modules) - before)


def one_line(error: BaseException) -> str:
    """An exception of a stranger's code, in one printable line."""
    text = str(error) if isinstance(error, ErnieRtError) else f"{type(error).__name__}: {error}"
    return printable(text)[:LINE]


def serve(target: str, arguments: list[str]) -> None:
    """The child's part: answer on standard output, to which nothing else can write meanwhile, and end at once."""
    _adopt()
    answer = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    noise = _Noise()
    sys.stdout = io.TextIOWrapper(noise, "utf-8", "replace", write_through=True)
    told: dict[str, object]
    try:
        module, _, name = target.partition(":")
        told = {"value": getattr(importlib.import_module(module), name)(*arguments)}
    except BaseException as error:
        told = {"error": one_line(error)}
    json.dump(told | {"noise": printable(noise.head.decode("utf-8", "replace").strip())}, answer)
    answer.flush()
    _end_below(os.getpid())
    os._exit(0)  # a stranger's threads and exit handlers cannot delay it


class _Noise(io.RawIOBase):
    """Keeps the first bytes of what is written."""

    def __init__(self) -> None:
        self.head = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def write(self, data: Any) -> int:
        self.head += bytes(data)[: NOISE_BYTES - len(self.head)]
        return len(data)
