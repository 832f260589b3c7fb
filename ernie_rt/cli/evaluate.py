"""`ernie-rt eval`: how well a model predicts a text, and how far another configuration is from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli import completion
from ernie_rt.cli import options as opt
from ernie_rt.cli.output import parse_size, say, write
from ernie_rt.cli.prompts import read_prompt
from ernie_rt.errors import OptionError

if TYPE_CHECKING:
    from ernie_rt.evaluation.measure import Evaluation, Perplexity
    from ernie_rt.session import Model

CONTEXT = 512
"""When nobody says: what llama.cpp takes."""


def evaluate(
    model: opt.Ref,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The text, in UTF-8; standard input when not given.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Another model, with the same tokens, to compare.", autocompletion=completion.models),
    ] = None,
    against_backend: Annotated[
        str | None, typer.Option(help="Compare with this backend.", autocompletion=completion.backends)
    ] = None,
    against_device: Annotated[str | None, typer.Option(help="Compare with this device.")] = None,
    against_dtype: Annotated[str | None, typer.Option(help="Compare with this dtype.")] = None,
    against_weights: Annotated[
        opt.Weights | None, typer.Option(help="Compare with weights that are quantised so.")
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(help=f"Tokens of a window, such as 2k; {CONTEXT}, or what the model has, when not given."),
    ] = None,
    stride: Annotated[
        str | None, typer.Option(help="A window begins every so many tokens; half the context when not given.")
    ] = None,
    weights: opt.Quantize = None,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    max_batch_tokens: opt.BatchTokens = None,
    threads: opt.Threads = None,
    deterministic: opt.Deterministic = False,
    memory: opt.Memory = None,
    verbose: opt.Verbose = False,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
) -> None:
    """Measure how well a model predicts a text.

    That is its perplexity, for a token, a byte and a word. With one of the --against options it is also how far another
    configuration is from this one: the Kullback-Leibler divergence at each token, and how often both have the same
    likeliest token. What they do not say is as in this one.
    """
    from ernie_rt.cli.loaded import loaded, progress_bar, quantized
    from ernie_rt.evaluation.measure import evaluate as measure
    from ernie_rt.location import locate

    text = read_prompt(None, file)
    located = locate(model)
    longest = located.config.max_position_embeddings
    size = min(CONTEXT, longest) if context is None else parse_size(context)
    if not 2 <= size <= longest:
        raise OptionError(
            "--context is not possible", expected=f"2 to {longest}, the model's longest context", found=size
        )
    step = max(1, size // 2) if stride is None else parse_size(stride)

    @contextmanager
    def one(ref: str, backend: str, device: str, dtype: str, weights: opt.Weights | None) -> Iterator[Model]:
        where = locate(ref)
        source = quantized(
            where, weights, threads, backend=backend, device=device, dtype=dtype, deterministic=deterministic
        )
        with loaded(
            where, backend=backend, device=device, dtype=dtype, threads=threads, weights=source, max_context=size,
            max_batch_tokens=max_batch_tokens, deterministic=deterministic, memory=memory, reuse=False,
            verbose=verbose, quiet=quiet,
        ) as ready:  # fmt: skip
            yield ready

    compared = (against, against_backend, against_device, against_dtype, against_weights)
    with ExitStack() as held:
        models = [held.enter_context(one(model, backend, device, dtype, weights))]
        if any(each is not None for each in compared):
            other = one(
                against or model, against_backend or backend, against_device or device, against_dtype or dtype,
                against_weights or (weights if against is None else None),
            )  # fmt: skip
            models.append(held.enter_context(other))
        with progress_bar("evaluating") as progress:
            found = measure(
                models[0], text, context=size, stride=step, against=models[1] if len(models) > 1 else None,
                progress=progress,
            )  # fmt: skip
        names = [_name(each, how) for each, how in zip(models, (weights, compared[4] or weights), strict=False)]
    if as_json:
        write(json.dumps({"models": names} | found.to_json()) + "\n")
        return
    if not quiet:
        say(f"{found.perplexity.tokens:,} tokens predicted, in windows of {size} every {step}")
    write(_text(found, names))


def _name(model: Model, weights: opt.Weights | None) -> str:
    choice = model.choice
    return f"{model.located.name} {choice.backend}@{choice.device}:{choice.dtype}" + (
        "" if weights is None else f" {weights}"
    )


def _text(found: Evaluation, names: list[str]) -> str:
    from ernie_rt.display import columns

    rows = [["PERPLEXITY", "TOKEN", "BYTE", "WORD", "BITS A BYTE"], [names[0], *_figures(found.perplexity)]]
    if found.other is None or found.divergence is None:
        return columns(rows) + "\n"
    rows.append([names[1], *_figures(found.other)])
    apart = found.divergence
    more = [
        ["KL DIVERGENCE", f"{apart.mean:.3g} ± {apart.error:.1g} nats a token"],
        ["median", f"{apart.median:.3g}"],
        ["99th percentile", f"{apart.percentile99:.3g}"],
        ["largest", f"{apart.largest:.3g}"],
        ["same likeliest token", f"{apart.top1:.2%} ± {apart.top1_error:.2%}"],
        ["ratio of perplexities", f"{apart.ratio:.5f}"],
    ]
    return f"{columns(rows)}\n\n{columns(more)}\n"


def _figures(found: Perplexity) -> list[str]:
    return [
        f"{found.per_token:.4f} ± {found.error:.4f}", f"{found.per_byte:.4f}", f"{found.per_word:.5g}",
        f"{found.bits_per_byte:.4f}",
    ]  # fmt: skip
