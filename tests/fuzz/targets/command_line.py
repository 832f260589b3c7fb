"""Commands with options and arguments of any kind. No backend runs, nobody is reached, nothing is written outside."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from random import Random
from typing import Any, Final, NoReturn
from unittest.mock import patch

from ernie_rt.cli.lazy import load
from ernie_rt.discovery.installed import discover
from ernie_rt.errors import BackendError, ErnieRtError
from ernie_rt.hooks import COMMANDS
from ernie_rt.host import PluginHost
from ernie_rt.planning import measuring
from ernie_rt_bench.process import Process
from fuzz.chains import one_of
from fuzz.mutations import TEXTS, changed_text
from fuzz.target import Attempt, Target
from support.commands import built, command

for module in (
    "ernie_rt_serve.cli.serve", "ernie_rt_serve.running", "ernie_rt_bench.contenders", "ernie_rt.cli.loaded",
    "ernie_rt.conformance.suite", "ernie_rt.export", "ernie_rt.planning.described", "ernie_rt.receipts.replay",
):  # fmt: skip
    importlib.import_module(module)  # once, before there are children
MODELS: Final = (
    "demo", "demo", "demo", "demo", "demo-vl", "nowhere", "", ".", "/", "..", "a/b", "a/b/c", "~nobody/x", "broken",
    "empty",
    "text.txt", "DEMO", "0.3B", "-", "https://example.com/x", "file:///etc/passwd", "demo\n",
)  # fmt: skip
FILES: Final = (
    "text.txt", "keys", "requests.jsonl", "receipt.json", "nothing", "folder", "", "-", "/dev/null", "/dev/zero",
    "~/x", "out",
    "new/x.json", "wide.txt", "empty.txt", "x.svg", "text.txt/x", "a" * 300, "picture.png", "/proc/self/mem",
)  # fmt: skip
NUMBERS: Final = (
    "0",
    "1",
    "2",
    "-1",
    "5",
    "0.5",
    "1e999",
    "nan",
    "-inf",
    "10" * 200,
    "99999999",
    "1k",
    "8k",
    "0x10",
    "1_0",
    "٣",
)
SIZES: Final = ("12GiB", "1", "0", "-5k", "5kk", "1e9GiB", "9" * 30 + "TiB", "infGiB", "1.5MiB", "", " 4k ", "nan")
WORDS: Final = (
    "auto", "cpu", "cuda", "cuda:99", "float32", "bfloat16", "int4", "int8", "onnx", "eager", "reference", "text",
    "main",
    "vision", "raw", "12h", "30d", "no:serve", "1920x1080", "0x0", "light", "a:b", "127.0.0.1", "256.1.1.1", "::1", "*",
    "http://x", "{}", '{"temperature": 0}', "[", "tiled", "0.0.0.0", "3,5", "1-", "q4",
)  # fmt: skip
UNKNOWN: Final = ("--nope", "--", "-", "--help=x", "-qvz", "--json=5", "---", "-\u2013json", "--max-context", "\0")
NEVER: Final = {"--install-completion", "--show-completion", "--measure", "--help"}
"""Options that change a shell, or take a while by themselves."""
INPUTS: Final = (
    b"",
    b"hi\n",
    b"/help\n/save x\n/load x\n/nope\n\n",
    b"\xff\xfeh\0",
    b"a\0b",
    b"1 2 3",
    b"\xff",
    b'"""\nx',
    b"x" * 70_000,
)


LIKELY: Final = tuple(
    line.split()
    for line in (
        "graph demo --dtype q4", "graph demo --level block --lowered onnx", "graph demo --context 0",
        "graph demo --image 1x1",
        "graph demo --graph vision", "graph demo-vl --graph vision --image 1x1", "plan demo --dtype q4",
        "plan demo --context 0",
        "plan demo --context 8k,1", "run demo --max-pixels 5", "run demo x --receipt out --thinking-budget 3",
        "run demo",
        "run demo x --receipt-text", "run demo x -n 99999", "run demo x --max-context 0", "run demo x --raw --system y",
        "run demo --raw --file empty.txt", "run demo x --file text.txt", "run demo --file wide.txt",
        "run demo --file zeros.txt",
        "run demo --file binary.txt", "cache remove --older-than 5y", "cache remove", "cache remove x",
        "backends new onnx",
        "backends new -x", "backends new auto", "tokenize demo --ids x", "serve demo --host 0.0.0.0 --port 0",
        "serve demo --port 0 --cors-origin x", "serve demo --port 0 --api-key-file keys", "bench demo --plot x.txt",
        "bench demo --image 1x1 --vs transformers", "bench demo --model demo", "bench", "serve demo --host 256.1.1.1",
        "tokenize demo --file /dev/zero",
    )
)  # fmt: skip
"""Commands that ask for what cannot be, each in a way of its own."""


def start(folder: Path) -> Attempt:
    sys.dont_write_bytecode = True
    os.environ |= {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    for name in ("HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "ERNIE_RT_API_KEY"):
        os.environ.pop(name, None)
    os.chdir(folder)
    measuring.read_bandwidth = lambda threads, nbytes: 1e10  # which takes memory and time by itself
    measuring.product_flops = lambda: 1e11
    commands = tree()
    written = watched(folder.parent)
    nobody()
    Process.start = no_backend  # type: ignore[assignment, method-assign]

    def attempt(rng: Random) -> None:
        lay_out(folder)
        written.clear()
        arguments, stdin = drawn(commands, rng), rng.choice(INPUTS)
        with patch.object(PluginHost, "backend", no_backend):
            outcome = command(*arguments, stdin=stdin)
        assert outcome.code in (0, 1, 2, 130), (arguments, outcome)
        assert "Traceback" not in outcome.err, (arguments, outcome.err)
        assert outcome.code == 0 or outcome.err or outcome.out, (arguments, "it says nothing")
        assert not written, (arguments, written)
        if isinstance(outcome.error, MemoryError):
            raise outcome.error
        if isinstance(outcome.error, ErnieRtError):
            raise one_of(outcome.error, rng) or outcome.error

    return attempt


def tree() -> dict[tuple[str, ...], list[Any]]:
    """The parameters of every command, by its words."""
    found: dict[tuple[str, ...], list[Any]] = {}

    def enter(words: tuple[str, ...], given: Any) -> None:
        inner = getattr(given, "commands", {})
        for name, each in inner.items():
            enter((*words, name), each)
        if not inner or words in (("backends",), ("cache",), ("bench",)):
            found[words] = given.params

    enter((), built())
    for plugin in discover(COMMANDS, set()):
        if plugin.name != "lm-eval":
            enter((plugin.name,), load(plugin))
    return found


def drawn(commands: dict[tuple[str, ...], list[Any]], rng: Random) -> list[str]:
    if rng.random() < 0.75:
        likely = list(rng.choice(LIKELY))
        if rng.random() < 0.15:
            likely.insert(rng.randrange(1, len(likely) + 1), rng.choice((*UNKNOWN, argument("", rng))))
        return likely
    words = rng.choice(list(commands))
    arguments: list[str] = []
    often = min(0.5, rng.choice((0, 1, 3, 5)) / len(commands[words]))
    for parameter in commands[words]:
        if parameter.param_type_name == "argument":
            if rng.random() < 0.9:
                arguments.append(argument(parameter.name, rng))
        elif not NEVER & {*parameter.opts} and rng.random() < (0.8 if parameter.required else often):
            name = rng.choice((*parameter.opts, *parameter.secondary_opts))
            arguments.append(name)
            if not parameter.is_flag:
                arguments.append(argument(parameter.name, rng))
    if rng.random() < 0.1 or words == ("doctor",):  # whose examination takes seconds
        arguments.insert(rng.randrange(len(arguments) + 1), rng.choice((*UNKNOWN, argument("", rng))))
    if words == ("doctor",):
        arguments.append("--nope")
    made = [*words, *arguments] if rng.random() < 0.97 else [changed_text(rng, each) for each in (*words, *arguments)]
    return [each.replace("--install-completion", "").replace("--show-completion", "") for each in made]


def argument(name: str, rng: Random) -> str:
    """A word for a parameter of this name."""
    kinds: dict[str, tuple[str, ...]] = {"model": MODELS, "ref": MODELS, "refs": MODELS, "a": MODELS, "b": MODELS}
    likely = kinds.get(
        name, FILES if any(each in name for each in ("file", "path", "out", "receipt", "plot", "image")) else ()
    )
    if likely and rng.random() < 0.85:
        return rng.choice(likely)
    text = rng.choice((*NUMBERS, *SIZES, *WORDS, *WORDS, *FILES, *TEXTS))
    return os.fsdecode(text.encode("utf-8", "replace"))[:5000]


def lay_out(folder: Path) -> None:
    """The same few files for each input, whatever the one before has left."""
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    for name in ("folder", "empty", "broken"):
        (folder / name).mkdir()
    (folder / "broken" / "config.json").write_text('{"model_type": "ernie4_5"')
    request = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}
    contents = {
        "text.txt": b"How many grams?\n", "empty.txt": b"", "keys": b"sk-one\n",
        "requests.jsonl": json.dumps(request).encode(),
        "receipt.json": b'{"format": "ernie-rt receipt 1"}', "picture.png": b"\x89PNG\r\n\x1a\n",
        "wide.txt": "猫".encode("utf-16") + b"\xd8", "zeros.txt": b"a\0b\0", "binary.txt": b"\x80\xff",
    }  # fmt: skip
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def no_backend(*_: object) -> NoReturn:
    raise BackendError("no backend runs here")


def nobody() -> None:
    """Nobody is reached, and nobody listens but to this machine."""

    def refused(self: Any, address: Any) -> NoReturn:
        raise ConnectionRefusedError(111, "Connection refused")

    resolve = socket.getaddrinfo

    def unknown(host: Any, port: Any, *rest: Any, **given: Any) -> Any:
        if host not in (None, "localhost", "127.0.0.1", "::1"):
            raise socket.gaierror(-2, "Name or service not known")
        return resolve(host, port, *rest, **given)

    socket.socket.connect = refused  # type: ignore[method-assign]
    socket.socket.connect_ex = refused  # type: ignore[method-assign]
    socket.getaddrinfo = unknown


def watched(inside: Path) -> list[str]:
    """What is written outside of a folder from now on, by how Python does it."""
    seen: list[str] = []
    names = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")

    def outside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        text = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
        return not text.startswith((str(inside), "/dev/"))

    def look(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            paths: tuple[Any, ...] = given[:1]
        else:
            paths = given[:2] if event in names else ()
        seen.extend(f"{event} {path!r}" for path in paths if outside(path))

    sys.addaudithook(look)
    return seen


TARGET = Target(
    "command_line",
    (
        "ernie_rt.cli.cache",
        "ernie_rt.cli.graph",
        "ernie_rt.cli.pictures",
        "ernie_rt.cli.plan",
        "ernie_rt.cli.prompts",
        "ernie_rt.cli.run",
        "ernie_rt.cli.skeleton",
        "ernie_rt.cli.tokenize",
        "ernie_rt_serve.cli.serve",
        "ernie_rt_bench.cli",
    ),
    start,
    share=160,
    excused={
        "standard input is too long": "64 MiB are much for an input; tests/cli/test_run.py has it",
        '"no prompt"': "standard input is always there; tests/cli/test_run.py has it",
    },
)
