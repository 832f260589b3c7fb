"""Runs tests on mutants, in a copy of the tree that nobody else sees: a program, asked and answering on pipes.

It wants namespaces of its own (`ALONE`) for mounts and processes. The copy lies in memory and is mounted in the place
of the tree, so that every path and every child process finds it; all else that is mounted becomes read-only; as the
first process of its namespace this one ends, by one call, whatever a test has left. A mutant of code that removes files
or kills processes does no harm, and however this ends, nothing remains.

What takes long to import is imported once. Each run is a fork of that.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import IO, Any, Final

ALONE: Final = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
WARM: Final = (
    "pytest", "_pytest.assertion.rewrite", "hypothesis", "hypothesis.strategies", "numpy", "numpy.testing", "ml_dtypes",
    "torch", "onnx", "onnxruntime", "safetensors.numpy", "transformers", "starlette.applications", "uvicorn", "msgspec",
    "openai", "anthropic", "jinja2", "typer", "huggingface_hub", "anyio.pytest_plugin",
)  # fmt: skip
OPTIONS: Final = (
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-p",
    "no:faulthandler",
    "--tb=line",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)
MEMORY: Final = 8 << 30
PARENT_DIED: Final = 1


class Tree:
    """The copy, and what is to be put back in it."""

    def __init__(self, root: Path, scratch: Path, files: list[str]) -> None:
        self.root, self.scratch = root, scratch
        _mount("-t", "tmpfs", "-o", "size=6g", "mutants", scratch)
        kept = scratch / "tree"
        for name in files:
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, kept / name, follow_symlinks=False)
        self._kept = shutil.copytree(kept, scratch / "kept", symlinks=True)
        self._files = {name: _look(kept / name) for name in files}
        self._folders = {parent.as_posix() for name in files for parent in Path(name).parents}
        self._others: set[str] = set()
        environment = Path(sys.prefix)
        if environment.is_relative_to(root):
            inside = environment.relative_to(root)
            self._others = {inside.as_posix()}
            (kept / inside).mkdir(parents=True)
            _mount("--bind", environment, kept / inside)
        self._seal()
        _mount("--rbind", kept, root)
        self._count = 0

    def _seal(self) -> None:
        """Make everything read-only but the scratch folder and what is no file."""
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            place = line.split()[4]
            if place.split("/")[1] not in ("proc", "sys", "dev") and place != str(self.scratch):
                with contextlib.suppress(subprocess.CalledProcessError):
                    _mount("-o", "remount,bind,ro", place)

    def restore(self) -> None:
        """Leave nothing of what a test has written or removed, but bytecode."""
        for name in ("home", "tmp"):
            shutil.rmtree(self.scratch / name, ignore_errors=True)
            (self.scratch / name).mkdir(exist_ok=True)
        for parent, folders, names in os.walk(self.root):
            here = Path(parent).relative_to(self.root)
            for folder in list(folders):
                inside = (here / folder).as_posix()
                if folder == "__pycache__" or inside in self._others:
                    folders.remove(folder)
                elif inside not in self._folders:
                    folders.remove(folder)
                    shutil.rmtree(self.root / inside)
            for name in names:
                if (here / name).as_posix() not in self._files:
                    (self.root / here / name).unlink()
        for name, told in self._files.items():
            if _look(self.root / name) != told:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / name).unlink(missing_ok=True)
                shutil.copy2(self._kept / name, self.root / name, follow_symlinks=False)

    def put(self, path: str, before: str, after: str) -> None:
        """Replace the text of a file. Its time is another one too, lest bytecode of one is taken for the other's."""
        file = self.root / path
        told = file.stat()
        if file.read_bytes() != before.encode():
            raise ValueError(f"{path} has changed since the mutants were made")
        self._count += 1
        file.write_bytes(after.encode())
        os.utime(file, (told.st_atime, told.st_mtime + self._count))


class Teller:
    """A plugin of pytest that tells what happens, a line of JSON each."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._seconds: dict[str, float] = {}
        self._begun = 0.0

    def tell(self, **told: Any) -> None:
        os.write(self._out, json.dumps(told).encode() + b"\n")

    def done(self, code: int) -> None:
        self.tell(done=code, seconds=self._seconds)

    def pytest_collectreport(self, report: Any) -> None:
        self.tell(failed=report.nodeid) if report.failed else self.tell(collected=report.nodeid)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._begun = sum(os.times()[:4])
        self.tell(started=nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Its time on processors, its children's with it: a clock would tell how busy the machine is."""
        file = nodeid.partition("::")[0]
        self._seconds[file] = self._seconds.get(file, 0) + sum(os.times()[:4]) - self._begun

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.tell(failed=report.nodeid)


def test(tests: list[str], left_out: list[str], out: int, said: int) -> None:
    """Run tests, in a process of its own that ends here; what they print goes to a file."""
    code = 3
    teller = Teller(out)
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)  # which stays: tests set limits of their own
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, hard))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        import hypothesis
        import pytest

        # The first failure is enough: it need not be made small.
        quick = hypothesis.settings(phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate], database=None)
        hypothesis.settings.register_profile("mutants", quick)
        hypothesis.settings.load_profile("mutants")
        skipped = [f"--deselect={name}" for name in left_out]
        code = int(pytest.main([*OPTIONS, "--hypothesis-seed=0", *skipped, *tests], plugins=[teller]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        teller.done(code)
        os._exit(0)


def worked() -> float:
    """Seconds that processors have spent on what runs here, but for this process."""
    total = 0
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if place.parent.name != "1":
                total += sum(map(int, place.read_text().rpartition(")")[2].split()[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def busy() -> bool:
    """Whether a process here runs, waits for a disk, or would run if a processor were free."""
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if place.parent.name != "1" and place.read_text().rpartition(")")[2].split()[0] in "RD":
                return True
    return False


def watched(tests: list[str], left_out: list[str], patience: float, budget: float, orders: IO[bytes]) -> dict[str, Any]:
    """Run tests until one fails, the budget of work is spent, or nothing has happened for `patience` seconds, in which
    they worked for as long or sleep: who waits for a processor does not hang. What became of it."""
    running, failed = "", None
    heard, work, then = time.monotonic(), 0.0, 0.0
    end, out = os.pipe()
    said = os.memfd_create("said")
    if not os.fork():
        os.close(end)
        test(tests, left_out, out, said)
    os.close(out)
    told: dict[str, Any] = {"outcome": "crash", "test": ""}
    waiting = b""
    while True:
        ready, _, _ = select.select([end, orders.fileno()], [], [], 1)
        if orders.fileno() in ready:  # nobody asks while this runs: whoever asked is gone
            sys.exit(PARENT_DIED)
        work = max(work, worked())
        if not ready:
            if time.monotonic() - heard > patience and (work - then > patience or not busy()):
                told = {"outcome": "hang", "test": running}
                break
            continue
        if work > budget:
            told = {"outcome": "over budget", "test": ""}
            break
        heard, then = time.monotonic(), work
        data = os.read(end, 65536)
        if not data:
            break
        *lines, waiting = (waiting + data).split(b"\n")
        for event in map(json.loads, lines):
            running = event.get("started") or event.get("collected") or running
            failed = failed or event.get("failed")
            if "done" in event:
                fine = event["done"] in (0, 5) and failed is None
                outcome = "passed" if fine else "failed" if event["done"] == 1 else "broken"
                told = {"outcome": outcome, "test": failed or ("" if fine else tests[0]), "files": event["seconds"]}
        if "files" in told:
            break
    if told["outcome"] == "crash":
        told["test"] = running
    os.close(end)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    with os.fdopen(said, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
        return told | {"work": work, "said": file.read().decode(errors="replace")}


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        told = path.lstat()
    except OSError:
        return None
    return told.st_mode, told.st_size, told.st_mtime_ns


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    assert os.getpid() == 1, "this is run in a namespace of its own"
    orders, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "w")
    told = json.loads(orders.readline())
    tree = Tree(Path(told["root"]), Path(told["scratch"]), told["files"])
    os.chdir(tree.root)
    os.environ |= {"HOME": str(tree.scratch / "home"), "TMPDIR": str(tree.scratch / "tmp"), "OMP_NUM_THREADS": "1"}
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    tree.restore()
    for name in told["warm"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # or each run would look through all of it for garbage
    print(json.dumps({"ready": True}), file=answers, flush=True)
    while line := orders.readline():
        asked = json.loads(line)
        if "path" in asked:
            tree.put(asked["path"], asked["before"], asked["after"])
        told = watched(asked["tests"], asked["left_out"], asked["patience"], asked["budget"], orders)
        tree.restore()
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
