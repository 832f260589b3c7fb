"""Servers of the same model, one after the other, under the same load: which of them writes more tokens a second.

    python benchmarks/serving.py \\
        ernie-rt='ernie-rt serve FOLDER --port {port} --max-sequences 32' \\
        llama-server='llama-server -m FILE.gguf --port {port} -np 32 -c 16384'

Each round starts every server, measures it with `ernie-rt bench serve` (closed loop, unique prompts, tokens as the
server counts them) and stops it; the order turns round by round. Before each server it is measured how fast memory can
be read at that moment. Ratios are those of the first server named to each other one, of medians over the rounds.

`--write FOLDER` writes a model to serve and ends: the shapes of ERNIE-4.5-0.3B, random weights, the demo's tokenizer.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import torch

from ernie_rt.planning.machine import usable_cores
from ernie_rt.planning.measuring import read_bandwidth
from ernie_rt_bench.models import find_model
from ernie_rt_bench.peers.transformers import random_network

READ_BYTES: Final = 1 << 30
SECONDS_TO_START: Final = 300
SECONDS_TO_END: Final = 20
TOKENIZER: Final = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def write(folder: Path) -> None:
    """A checkpoint that every server reads."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as workdir:
        written = Path(workdir, "model")
        random_network(find_model("0.3B").config, torch.bfloat16).save_pretrained(written)
        for name in TOKENIZER:
            (written / name).write_bytes((files("ernie_rt") / "demo" / name).read_bytes())
        shutil.move(written, folder)


@contextmanager
def running(command: str, log: Path) -> Iterator[str]:
    """A server while it runs, by its URL; what it says goes to `log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("ab") as out:
        process = subprocess.Popen(shlex.split(command.format(port=port)), stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not _ready(f"{url}/models"):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"this server does not answer, see {log}: {command}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(url: str) -> bool:
    """Whether a server answers, and not that it is still loading; an error may be its answer to this request."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code != 503
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def measure(url: str, model: str | None, given: argparse.Namespace) -> dict[int, Mapping[str, Any]]:
    """What `ernie-rt bench serve` says of a server, by the number of requests at once."""
    figures = {}
    for streams in given.streams:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.json")
            command = [
                sys.executable, "-m", "ernie_rt", "bench", "serve", "--base-url", url, "--json", str(report),
                "--endpoint", "completions", "--concurrency", str(streams),
                "--requests", str(max(given.requests, 2 * streams)), "--prompt-tokens", given.prompt_tokens,
                "--answer-tokens", given.answer_tokens, "--body", '{"temperature": 0}',
                "--seed", str(time.time_ns() % 2**31), *([] if model is None else ["--model", model]),
            ]  # fmt: skip
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            (phase,) = json.loads(report.read_text())["phases"]
        figures[streams] = phase["summary"]
    return figures


def table(rounds: Sequence[Mapping[str, Any]], names: Sequence[str], streams: Sequence[int]) -> str:
    """Medians over the rounds, and ratios of the first server to the others."""
    lines = ["| streams | server | tokens/s | to the first token, s | between tokens, ms | failed | first / this |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for count in streams:
        speeds = {name: _median(rounds, name, count, "output_tokens_per_second") for name in names}
        for name in names:
            first = _median(rounds, name, count, "latencies", "ttft", "p50")
            between = 1e3 * _median(rounds, name, count, "latencies", "tpot", "p50")
            failed = sum(round["servers"][name][count]["failed"] for round in rounds)
            ratio = "" if name == names[0] else f"{speeds[names[0]] / speeds[name]:.2f}"
            lines.append(
                f"| {count} | {name} | {speeds[name]:.1f} | {first:.2f} | {between:.1f} | {failed} | {ratio} |"
            )
    reads = [value for round in rounds for value in round["read_gbps"].values()]
    return "\n".join([*lines, "", f"memory was read at {min(reads):.0f} to {max(reads):.0f} GB/s"])


def _median(rounds: Sequence[Mapping[str, Any]], name: str, count: int, *path: str) -> float:
    values = []
    for round in rounds:
        value = round["servers"][name][count]
        for key in path:
            value = value[key]
        values.append(value)
    return float(statistics.median(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", metavar="NAME=COMMAND")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=MODEL", help="what a server calls it")
    parser.add_argument("--streams", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=8, help="at least, and two for each stream")
    parser.add_argument("--prompt-tokens", default="128")
    parser.add_argument("--answer-tokens", default="64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir(), "serving.log"))
    given = parser.parse_args()
    if given.write is not None:
        write(given.write)
        return
    commands = dict(server.split("=", 1) for server in given.servers)
    models = dict(model.split("=", 1) for model in given.model)
    rounds: list[dict[str, Any]] = []
    for number in range(given.rounds):
        order = list(commands)[number % len(commands) :] + list(commands)[: number % len(commands)]
        rounds.append({"order": order, "read_gbps": {}, "servers": {}})
        for name in order:
            rounds[-1]["read_gbps"][name] = read_bandwidth(usable_cores(), READ_BYTES) / 1e9
            with running(commands[name], given.log) as url:
                rounds[-1]["servers"][name] = measure(url, models.get(name), given)
        print(f"round {number + 1}\n{table(rounds, list(commands), given.streams)}\n", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps({"commands": commands, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
