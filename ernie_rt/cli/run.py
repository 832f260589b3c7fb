"""`ernie-rt run`: continue a prompt."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli.options import Backend, Device, Dtype, Json, Ref
from ernie_rt.cli.output import PeakMemory, parse_size, read_prompt, write
from ernie_rt.errors import PromptError

if TYPE_CHECKING:
    from ernie_rt.loading import Progress
    from ernie_rt.runtime.options import GenerateOptions
    from ernie_rt.session import Piece


def run(
    model: Ref,
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; - or nothing reads standard input.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from a file.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", min=1, help="At most so many new tokens.")
    ] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token; higher is more varied.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample among the likeliest tokens of this probability in all.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample among so many of the likeliest tokens; 0: all.")] = 0,
    min_p: Annotated[float, typer.Option(help="Sample among tokens at least so likely beside the likeliest.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 makes tokens seen before less likely.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    ignore_eos: Annotated[bool, typer.Option(help="Go on past an end-of-sequence token.")] = False,
    backend: Backend = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    max_batch_tokens: Annotated[int, typer.Option(min=1, help="Prompt tokens that enter one step.")] = 512,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores when not given.")] = None,
    memory: Annotated[str | None, typer.Option(help="Refuse to load more than this, such as 12GiB.")] = None,
    as_json: Json = False,
) -> None:
    """Continue a prompt; the continuation streams to standard output, everything else goes to standard error."""
    from ernie_rt.loading import load, locate
    from ernie_rt.runtime.options import plan

    text = read_prompt(prompt, file)
    if temperature > 0 and seed is None:
        seed = secrets.randbits(32)
    options: GenerateOptions = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "seed": seed,
        "repetition_penalty": repetition_penalty,
        "stop": stop or [],
        "ignore_eos": ignore_eos,
    }
    located = locate(model)
    plan(located.config.eos_token_id, located.config.vocab_size, **options)  # wrong options are said before loading
    ids = located.tokenizer().encode(text)
    _check_length(len(ids), max_new_tokens, located.config.max_position_embeddings)
    with PeakMemory() as peak, _progress() as progress:
        loaded = load(
            located,
            backend=backend,
            device=device,
            dtype=dtype,
            max_context=len(ids) + max_new_tokens,
            max_batch_tokens=max_batch_tokens,
            threads=threads,
            memory_bytes=None if memory is None else parse_size(memory),
            progress=progress,
        )
        with loaded:
            choice = loaded.choice
            _say(f"backend {choice.backend} ({choice.reason})")
            if temperature > 0:
                _say(f"seed {seed}")
            for note in (*loaded.memory().notes, *_set_aside(loaded.unused)):
                _say(note)
            began = time.perf_counter()
            times: list[float] = []
            pieces: list[Piece] = []
            interrupted = False
            try:
                for piece in loaded.stream(ids, **options):
                    times.append(time.perf_counter())
                    pieces.append(piece)
                    if not as_json:
                        write(piece.text)
            except KeyboardInterrupt:
                interrupted = True
            report = {
                "prompt_tokens": len(ids),
                "new_tokens": len(pieces),
                "finish": "interrupted" if interrupted else pieces[-1].finish,
                "prefill_tokens_per_second": len(ids) / (times[0] - began) if times else None,
                "decode_tokens_per_second": (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else None,
                "peak_private_bytes": peak.look(),
                "device_bytes": loaded.memory().nbytes,
                "backend": choice.backend,
                "device": choice.device,
                "dtype": choice.dtype,
                "seed": seed,
            }
    if as_json:
        answer = {"text": "".join(piece.text for piece in pieces), "ids": [piece.id for piece in pieces]}
        write(json.dumps(answer | report) + "\n")
    elif pieces:
        write("\n")
    _say(_summary(report))
    if interrupted:
        raise typer.Exit(130)


def _check_length(prompt: int, new: int, longest: int) -> None:
    """Refuse what can never run before any weight is read."""
    if prompt == 0:
        raise PromptError("the prompt is empty", hint="Give at least one token")
    if prompt + new > longest:
        raise PromptError(
            "prompt and answer are longer than the model's context",
            expected=f"at most {longest} tokens",
            found=f"{prompt} of prompt and {new} new",
            hint="Shorten the prompt, or lower --max-new-tokens",
        )


def _set_aside(unused: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each reason why stored tensors are not used."""
    counts = Counter(reason for _, reason in unused)
    return [f"{count} stored tensors set aside: {reason}" for reason, count in counts.items()]


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error while weights load, when that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("loading"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    task = bar.add_task("loading")

    def report(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if done >= total:
            bar.stop()

    bar.start()
    try:
        yield report
    finally:
        bar.stop()


def _summary(report: Mapping[str, object]) -> str:
    from ernie_rt.backend.memory import human_bytes

    parts = [
        f"{name} {rate:.1f} tokens/s" if isinstance(rate, float) else f"{name} -"
        for name, rate in (
            ("prefill", report["prefill_tokens_per_second"]),
            ("decode", report["decode_tokens_per_second"]),
        )
    ]
    peak = report["peak_private_bytes"]
    assert isinstance(peak, int)
    parts.append(f"peak {human_bytes(peak)}")
    return " · ".join([*parts, *(str(report[key]) for key in ("backend", "device", "dtype"))])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
