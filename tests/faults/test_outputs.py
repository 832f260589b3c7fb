"""What is there is left alone; what is written has the same bytes everywhere, and the modes of its place."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.trials import Bench
from faults.writers import WRITERS, Writer, contents, prepare
from support.commands import Outcome, command

FOLDERS = [
    pytest.param(each, marks=[pytest.mark.long] if each.slow else [], id=each.name) for each in WRITERS if each.folder
]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are forked")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("outputs")
    prepare(base / "given")
    return base


@pytest.fixture
def home() -> Iterator[None]:
    """A command may change into another folder."""
    before = Path.cwd()
    yield
    os.chdir(before)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_text("mine")


def read_only(path: Path) -> None:
    folder(path)
    path.chmod(0o555)


KINDS: dict[str, Callable[[Path], object]] = {
    "an empty folder": Path.mkdir,
    "a folder": folder,
    "a file": lambda path: path.write_text("mine"),
    "a link to a folder": lambda path: (folder(path.with_name("elsewhere")), path.symlink_to("elsewhere")),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a folder that is read alone": read_only,
}


def everything(folder: Path) -> dict[str, object]:
    """All that lies in a folder: links by where they lead, files by their bytes, folders by their modes."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        what = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else path.stat().st_mode
        found[str(path.relative_to(folder))] = what
    return found


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("writer", FOLDERS)
def test_what_is_there_is_left_alone(writer: Writer, kind: str, base: Path, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / writer.out)
    before = everything(tmp_path), everything(base / "given")
    done = writer.run(base / "given", tmp_path)
    assert isinstance(done, Outcome) and done.code == 1 and "cannot be written; found File exists" in done.err
    assert (everything(tmp_path), everything(base / "given")) == before


@pytest.mark.parametrize("out", ["given/dense", "given", "given/int4", "given/dense/config.json"])
@pytest.mark.parametrize("arguments", [
    ("quantize", "given/dense", "OUT", "--weights", "int4"),
    ("convert", "given/int4", "OUT", "--layout", "tiled"),
    ("export", "onnx", "given/dense", "OUT"),
], ids=lambda arguments: arguments[0])  # fmt: skip
def test_nor_is_what_is_read_written_to(arguments: tuple[str, ...], out: str, base: Path) -> None:
    """The model itself, what it lies in, a file of it."""
    before = everything(base / "given")
    done = command(
        *(base / (out if each == "OUT" else each) if each[:5] in ("given", "OUT") else each for each in arguments)
    )
    assert done.code == 1 and "cannot be written; found File exists" in done.err
    assert everything(base / "given") == before


@pytest.mark.parametrize(
    "writer", [each for each in WRITERS if each.replaces and not each.slow], ids=lambda each: each.name
)
def test_a_link_is_replaced_and_what_it_leads_to_is_not(writer: Writer, base: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / writer.out).symlink_to("elsewhere")
    writer.run(base / "given", tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "mine" and not (tmp_path / writer.out).is_symlink()


@pytest.mark.parametrize("arguments", [
    ("plan", "demo", "--html"), ("conform", "reference", "--html"), ("diff", "eager", "onnx", "-m", "demo", "--html"),
    ("routing", "demo", "x", "--html"), ("routing", "demo", "x", "--svg"), ("run", "demo", "x", "--receipt"),
    ("bench", "demo", "--markdown"), ("bench", "demo", "--plot"), ("bench", "serve", "--plot"),
    ("bench", "serve", "--json"),
], ids=" ".join)  # fmt: skip
def test_a_report_that_cannot_be_written_is_refused_before_it_is_made(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was begun")

    for begins in ("location.locate", "conformance.suite.Suite", "planning.described.describe"):
        monkeypatch.setattr(f"ernie_rt.{begins}", never)
    for path, reason in (("absent/out.svg", "Make its folder first"), ("folder.svg", "found a folder. Name a file")):
        (tmp_path / "folder.svg").mkdir(exist_ok=True)
        done = command(*arguments, tmp_path / path)
        assert done.code == 1 and reason in done.err and not done.out
    assert [path.name for path in tmp_path.iterdir()] == ["folder.svg"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("writer", FOLDERS)
def test_the_same_bytes_elsewhere_and_on_another_day(
    writer: Writer, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(writer, base)
    os.chdir(tmp_path)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86400 * 400)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    (tmp_path / "another").mkdir()
    writer.run(base / "given", tmp_path / "another")
    assert contents(tmp_path / "another" / writer.out) == bench.new


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
@pytest.mark.parametrize("writer", [
    pytest.param(each, marks=[pytest.mark.long] if each.slow else [], id=each.name) for each in WRITERS
])  # fmt: skip
def test_modes(writer: Writer, umask: int, mode: int, base: Path) -> None:
    """Those of the umask; what is kept, and talks, are their user's alone whatever that says."""
    bench = Bench(writer, base)
    bench.clear()
    assert bench.run(lambda: os.umask(umask)).code == 0
    mine = 0o600 if writer.kept or writer.name == "a saved chat" else mode
    for path in (bench.out, *bench.out.rglob("*")):
        found = stat.S_IMODE(path.stat().st_mode)
        if writer.name != "run --weights int4":  # whose folder, made for its user alone, keeps others out
            assert found == (mine | (mine >> 2 & 0o111) if path.is_dir() else mine), path
    if writer.kept:
        assert stat.S_IMODE(bench.out.stat().st_mode) == 0o700
