"""`ernie-rt replay`: make the answer of a receipt again, and say whether it is the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli import completion
from ernie_rt.cli import options as opt
from ernie_rt.cli.output import say, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from ernie_rt.location import Located
    from ernie_rt.receipts.receipt import Identity, Receipt
    from ernie_rt.receipts.replay import Replayed
    from ernie_rt.weights.source import StoredSource


def replay(
    receipt: Annotated[Path, typer.Argument(metavar="RECEIPT", help="What `ernie-rt run --receipt` wrote.")],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A folder, a known name, or a hub id; when not given, the known model that the receipt names.",
            autocompletion=completion.models,
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", help="A picture or video of the prompt, known by its digest; may be given several times."
        ),
    ] = None,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16; auto: the receipt's, where the backend computes in it.")
    ] = "auto",
    threads: opt.Threads = None,
    deterministic: opt.Deterministic = False,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
) -> None:
    """Make a receipt's answer again, and compare.

    identical: the same tokens. tie: a token differs where rounding decides. different: one differs by more. The first
    that does is judged in float64, as `ernie-rt diff` does; then the receipt's answer is forced on the model, to say
    how far the log probabilities are apart over all of it. Exit code 1: different; 2: another model, or no receipt.
    """
    from ernie_rt.choice import choose
    from ernie_rt.cli.loaded import loaded, progress_bar
    from ernie_rt.cli.pictures import most_patches
    from ernie_rt.host import PluginHost
    from ernie_rt.receipts.making import identify
    from ernie_rt.receipts.reading import read_receipt
    from ernie_rt.receipts.receipt import Ran
    from ernie_rt.receipts.replay import Replayed
    from ernie_rt.receipts.replay import replay as run_again
    from ernie_rt.receipts.shown import find_again

    read = read_receipt(receipt)
    located = _located(read, model)
    items = find_again(read.items, file or ())
    host = PluginHost()
    choice = choose(
        host, backend=backend, device=device, dtype=dtype, stored=read.ran.dtype, deterministic=deterministic
    )

    def weights() -> StoredSource:
        return _weights(located, read, choice.backend, choice.device, choice.dtype, threads)

    source = weights()
    with progress_bar("hashing") as hashing:
        identity = identify(located, source, hashing)
    ran = Ran(choice.backend, choice.device, choice.dtype, deterministic, threads, host.versions(choice.backend))
    if differing := read.model.differences(identity):
        source.close()
        done = Replayed("not comparable", _other(read, identity, differing), ran)
    else:
        with progress_bar("answering") as progress, loaded(
            located, backend=choice.backend, device=choice.device, dtype=choice.dtype, threads=threads, weights=source,
            max_context=min(len(read.prompt) + len(read.answer), located.config.max_position_embeddings),
            max_patches=most_patches([item for _, item in items]),
            deterministic=deterministic, quiet=quiet, host=host,
        ) as ready:  # fmt: skip
            done = run_again(
                read, ready, ran, weights, items=items, host=host, progress=progress,
                note=say if sys.stderr.isatty() else lambda text: None,
            )  # fmt: skip

    def show(token: int) -> str:
        return json.dumps(located.tokenizer.decode([token], skip_special=False), ensure_ascii=False)

    if as_json:
        write(json.dumps({"receipt": str(read.ran)} | done.to_json()) + "\n")
    else:
        write(_text(read, done, show))
    if done.verdict in ("different", "not comparable"):
        raise typer.Exit(1 if done.verdict == "different" else 2)


def _located(receipt: Receipt, model: str | None) -> Located:
    """The model: what was named or, of those that come from nowhere but Baidu or ernie-rt, what the receipt names."""
    from ernie_rt.errors import OptionError
    from ernie_rt.location import locate
    from ernie_rt.modeling.families import find
    from ernie_rt.weights.hub import DEMOS

    if model is None and receipt.model.name not in DEMOS and find(receipt.model.name) is None:
        raise OptionError(
            "the receipt names no known model, and a file that somebody wrote says nothing of where one lies",
            found=repr(receipt.model.name),
            hint="Name the model: `ernie-rt replay RECEIPT MODEL`",
        )
    return locate(model or receipt.model.name)


def _weights(
    located: Located, receipt: Receipt, backend: str, device: str, dtype: str, threads: int | None
) -> StoredSource:
    """The model's weights, quantised as the receipt's were where these are what those were made from."""
    from ernie_rt.cli.loaded import quantized

    source = located.weights()
    plan = receipt.model.made_from or {}
    whole = not any(storage.packed for storage in source.storages.values())
    names = [each for each in opt.Weights if each.value == plan.get("weights")]
    if not (whole and names and source.fingerprint() == plan.get("source")):
        return source
    source.close()
    twin = quantized(located, names[0], threads, backend=backend, device=device, dtype=dtype)
    assert twin is not None
    return twin


def _other(receipt: Receipt, identity: Identity, differing: list[str]) -> str:
    told = [
        f"other {what}: {getattr(receipt.model, what)[:12]} in the receipt, {getattr(identity, what)[:12]} here"
        for what in differing
    ]
    return f"the receipt is of another model, with {'; '.join(told)}"


def _text(receipt: Receipt, done: Replayed, show: Callable[[int], str]) -> str:
    lines = [f"receipt   {receipt.ran}, {receipt.date}", f"this run  {done.ran}"]
    if (parting := done.parting) is not None:
        lines.append(f"token {parting.place} of the answer is the first that differs:")
        for who, chosen in zip(("the receipt", "this run"), parting.chosen, strict=True):
            if chosen is None:
                lines.append(f"  {who} has ended")
                continue
            over = ""
            if chosen.runner_up is not None:
                over = f", by {chosen.runner_up[1]:.2g} over {show(chosen.runner_up[0])} ({chosen.runner_up[0]})"
            lines.append(f"  {who} has {show(chosen.id)} ({chosen.id}){over}")
        if parting.noise is not None and parting.near is not None:
            both = [f"{noise:.2g} ({near:.2g})" for noise, near in zip(parting.noise, parting.near, strict=True)]
            lines.append(
                f"  rounding moves what is compared by {both[0]} and {both[1]}; in brackets, how near is a tie"
            )
    if (apart := done.apart) is not None:
        lines.append(
            f"log probabilities of the receipt's {apart.tokens} tokens: {apart.mean:.2g} apart in the mean, "
            f"{apart.largest:.2g} at most, at token {apart.place}; the likeliest is the same at {apart.top1:.1%}"
        )
    if done.verdict == "different" and done.parting is not None:
        lines.append(f"`ernie-rt diff {receipt.ran} {done.ran} --model …` says which piece of which is wrong")
    return "\n".join([*lines, f"{done.verdict}: {done.reason}"]) + "\n"
