"""The onnx backend with its own operators on a CPU, beside llama.cpp: whole processes that take turns.

    python benchmarks/cpu.py --model 0.3B --weights int4
    python benchmarks/cpu.py --model 21B-A3B --weights int4 --llama-bench ./llama-bench --gguf 21B-Q4_0.gguf

Weights are random, in the exact shapes. Each round runs every contender once, in a process of its own that warms up
first, and reads memory before and after with as many threads. With --gguf a file (several times) llama.cpp joins, each
file with and without its repacking; build it natively, and use files of no fewer bits a weight. With --memory each run
has so much memory, its page cache included, and starts with nothing of its files in it.

    python benchmarks/cpu.py --model 21B-A3B --memory 6.5 --prompt 256 --decode 32 --depth 0
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np

import ernie_rt
from ernie_rt.display import human_bytes
from ernie_rt.graph.types import Weight
from ernie_rt.location import Located
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.families import find
from ernie_rt.weights.folder import Put, write_quantized
from ernie_rt.weights.quantize import Quantization
from ernie_rt.weights.synthetic import Synthetic

READ_BYTES = 1 << 30
PIECE = 1 << 26


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of a contender gives; None where it does not tell."""

    prefill: float | None = None
    """Tokens a second of the prompt."""
    decode: float | None = None
    """Tokens a second, after a short prompt."""
    deep: float | None = None
    """Tokens a second, after a prompt as long as `--depth`."""
    first: float | None = None
    """Seconds from the start of the process to its first token."""
    disk: float | None = None
    """Of what the chosen experts have, the percentage that memory lacked."""
    private: float | None = None
    """Bytes of memory that are no other process's and no file's."""


def config_of(name: str) -> ModelConfig:
    family = find(name)
    assert family is not None
    return family.config


def write_model(out: Path, config: ModelConfig, how: Quantization) -> None:
    """A quantised folder whose codes and scales are drawn, not rounded: it takes no float32 weights."""
    source = Synthetic()

    def produce(weight: Weight, put: Put) -> None:
        for part, type in weight.parts.items():
            shape = type.shape()
            flat = (int(np.prod(shape)),)
            array = np.empty(shape, type.dtype)
            source.fill(weight, part, array)
            put(array.reshape(flat))

    write_quantized(out, None, how.weights(config), how.plan("synthetic"), produce)


def read_speed(threads: int) -> float:
    """GB/s at which threads sum memory, each its own."""
    blocks = [np.ones(READ_BYTES // 8 // threads, np.int64) for _ in range(threads)]
    best = 0.0
    for _ in range(3):
        workers = [threading.Thread(target=block.sum) for block in blocks]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, sum(block.nbytes for block in blocks) / (time.perf_counter() - began) / 1e9)
    return best


def private_bytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def run_ours(folder: Path, name: str, prompt: int, decode: int, depth: int, threads: int, began: float) -> Figures:
    """In a process of its own: the model is loaded, warmed up and measured."""
    context = max(prompt, depth) + decode + 16
    located = Located(config_of(name), folder)
    with ernie_rt.load(located, backend="onnx", dtype="float32", max_context=context, threads=threads) as model:
        ids = np.random.default_rng(0).integers(5, 1000, context).tolist()
        model.generate_ids(ids[:8], max_new_tokens=1, ignore_eos=True)
        first = time.time() - began
        model.generate_ids(ids[1:65], max_new_tokens=8, ignore_eos=True)  # the rest of the weights, once

        def tokens_per_second(ids: list[int]) -> float:
            stream: Iterator[int] = model.stream_ids(ids, max_new_tokens=decode + 1, ignore_eos=True)
            next(stream)
            start = time.perf_counter()
            count = sum(1 for _ in stream)
            return count / (time.perf_counter() - start)

        start = time.perf_counter()
        model.generate_ids(ids[2 : 2 + prompt], max_new_tokens=1, ignore_eos=True)
        prefill = prompt / (time.perf_counter() - start)
        short = tokens_per_second(ids[3:11])
        deep = tokens_per_second(ids[4 : 4 + depth]) if depth else None
        share = model.memory().experts_from_disk
        return Figures(prefill, short, deep, first, None if share is None else 100 * share, private_bytes())


@contextmanager
def memory_group(limit: int | None) -> Iterator[Path | None]:
    """A control group whose processes have `limit` bytes together. Linux lets root make one."""
    if limit is None:
        yield None
        return
    root, name = Path("/sys/fs/cgroup"), f"ernie-rt-{os.getpid()}"
    unified = (root / "cgroup.controllers").exists()
    group = root / name if unified else root / "memory" / name
    try:
        group.mkdir()
        (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(limit))
    except OSError as problem:
        raise SystemExit(f"--memory needs a control group for memory, which root may make: {problem}") from None
    try:
        yield group
    finally:
        group.rmdir()


def finish(command: list[str], files: Path, group: Path | None) -> str:
    """What a command prints; in a group it begins with nothing of the model's files in memory."""
    if group is not None:
        os.sync()  # what was not written yet cannot leave memory
        for file in [files] if files.is_file() else list(files.iterdir()):
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        join = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
        command = ["sh", "-c", join, "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def ours(folder: Path, given: argparse.Namespace, group: Path | None) -> Figures:
    sizes = [str(value) for value in (given.prompt, given.decode, given.depth, given.threads, time.time())]
    command = [sys.executable, __file__, "--child", str(folder), given.model, *sizes]
    return Figures(**json.loads(finish(command, folder, group)))


def llama(gguf: Path, repack: bool, given: argparse.Namespace, group: Path | None) -> Figures:
    common = [str(given.llama_bench), "-m", str(gguf), "-t", str(given.threads), "-r", "1", "-o", "jsonl"]
    common += ["--repack", str(int(repack))]

    def tokens_per_second(*test: str) -> float:
        return float(json.loads(finish([*common, *test], gguf, group).splitlines()[-1])["avg_ts"])

    return Figures(
        tokens_per_second("-p", str(given.prompt), "-n", "0"),
        tokens_per_second("-p", "0", "-n", str(given.decode)),
        tokens_per_second("-p", "0", "-n", str(given.decode), "-d", str(given.depth)) if given.depth else None,
    )


@contextmanager
def work_folder(path: Path | None) -> Iterator[Path]:
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def median(rounds: list[Figures], name: str) -> float | None:
    found = [value for value in (getattr(each, name) for each in rounds) if value is not None]
    return statistics.median(found) if found else None


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        path, name, prompt, decode, depth, threads, began = sys.argv[2:]
        sizes = (int(prompt), int(decode), int(depth), int(threads))
        print(json.dumps(asdict(run_ours(Path(path), name, *sizes, float(began)))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("0.3B", "21B-A3B"), default="0.3B")
    parser.add_argument("--weights", choices=("int4", "int8"), default="int4")
    parser.add_argument("--layout", choices=("raw", "tiled"), default="tiled", help="raw is for stock operators")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4096, help="of the context of a second decode; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-bench", type=Path, help="llama.cpp's program of this name")
    parser.add_argument("--gguf", type=Path, action="append", default=[], help="a file for it; may be given again")
    parser.add_argument("--memory", type=float, metavar="GB", help="of a run, page cache included; needs root")
    parser.add_argument("--work", type=Path, help="where the model is written, and kept")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    how = Quantization(4 if given.weights == "int4" else 8, layout=given.layout)
    with work_folder(given.work) as work, memory_group(given.memory and int(given.memory * 1e9)) as group:
        folder = work / f"{given.model}-{given.weights}-{given.layout}"
        if not folder.exists():
            write_model(folder, config_of(given.model), how)
        contenders = {f"ernie-rt {given.weights} {given.layout}": partial(ours, folder, given, group)}
        for gguf in given.gguf:
            for repack in (True, False) if group is None else (False,):  # repacked weights are a private copy
                name = f"llama.cpp {gguf.stem}{'' if repack else ', no repacking'}"
                contenders[name] = partial(llama, gguf, repack, given, group)
        rounds: dict[str, list[Figures]] = {name: [] for name in contenders}
        read: list[float] = []
        for number in range(given.rounds):
            order = list(contenders)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                read.append(read_speed(given.threads))
                rounds[name].append(contenders[name]())
        read.append(read_speed(given.threads))
    names = [field.name for field in fields(Figures)]
    if given.json:
        every = {name: [asdict(each) for each in found] for name, found in rounds.items()}
        print(json.dumps({"model": given.model, "threads": given.threads, "read": read, "rounds": every}))
        return
    print(f"{given.model}, {given.threads} threads, memory read at {min(read):.1f} to {max(read):.1f} GB/s")
    print(f"{'':40}{''.join(f'{name:>12}' for name in names)}")
    for contender, found in rounds.items():
        values = {name: median(found, name) for name in names}
        private = values.pop("private")
        cells = [f"{value:12.1f}" if value is not None else f"{'':12}" for value in values.values()]
        print(f"{contender:40}{''.join(cells)}{human_bytes(int(private)) if private else '':>12}")


if __name__ == "__main__":
    main()
