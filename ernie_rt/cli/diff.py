"""`ernie-rt diff`: which piece of which backend is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli import completion
from ernie_rt.cli import options as opt
from ernie_rt.cli.output import answers_alone, status, write
from ernie_rt.cli.prompts import read_prompt

if TYPE_CHECKING:
    from ernie_rt.conformance.drift import Drift

SPELLING = "A backend, such as eager, eager:float32 or eager@cuda:1:bfloat16."


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=SPELLING, autocompletion=completion.backends)],
    b: Annotated[
        str,
        typer.Argument(metavar="B", help="Another one; reference is float64.", autocompletion=completion.backends),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A folder, a known name such as demo, or a hub id.", autocompletion=completion.models
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Plain text to continue; - or nothing reads standard input.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from a file.")] = None,
    images: opt.Images = None,
    videos: opt.Videos = None,
    max_pixels: opt.MaxPixels = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", min=1, help="At most so many new tokens.")
    ] = 16,
    threads: opt.Threads = None,
    html: Annotated[Path | None, typer.Option(help="Write the drift, piece by piece, as a page.")] = None,
    as_json: opt.Json = False,
) -> None:
    """Find out which piece of which backend is wrong, if any is.

    Continues a prompt greedily on both, and judges every piece of both against float64. Says where the paths part and
    whether that is a tie or a bug; of a bug, which layer and part is wrong, on which backend. With pictures or videos
    the tower that looks at them is judged as well. DRIFT is the distance
    from float64 after a layer, over the rms of its values; NOISE what rounding alone brings there; OWN what the layer's
    worst piece adds by itself, in multiples of its noise: beyond 4 it is wrong. Exit code 1: a bug.
    """
    from ernie_rt.cli.pictures import Sight
    from ernie_rt.conformance.drift import Contender, compare
    from ernie_rt.conformance.plot import drift_text
    from ernie_rt.conformance.trace import most_tokens
    from ernie_rt.contract.protocols import MAX_PATCHES
    from ernie_rt.location import locate
    from ernie_rt.text.chat import ChatPrompt, encode_parts
    from ernie_rt.writing import check_targets

    check_targets(html)
    contenders = Contender.parse(a), Contender.parse(b)
    media = Sight(max_pixels, fps, max_frames).media(images, videos)
    text = read_prompt(prompt, file)
    with answers_alone(), status() as tell:
        tell(f"reading {model}")
        located = locate(model)
        tokenizer = located.tokenizer
        asked = ChatPrompt(tuple(tokenizer.encode(text)))
        if media:
            asked = encode_parts(
                [*media, text], tokenizer, located.reader("cpu", MAX_PATCHES), most_tokens(located.config)
            )
        tell(f"importing {contenders[0].backend} and {contenders[1].backend}")
        drift = compare(
            located, *contenders, asked.ids, items=asked.items,
            max_new_tokens=max_new_tokens, threads=threads, progress=tell,
        )  # fmt: skip

    def show(token: int) -> str:
        return json.dumps(tokenizer.decode([token], skip_special=False), ensure_ascii=False)

    if html is not None:
        from ernie_rt.conformance.drift_page import drift_html
        from ernie_rt.html import write_page

        title = f"{drift.sides[0].name} and {drift.sides[1].name}"
        write_page(html, title, drift_html(drift, show, _about(model, text, drift)))
    if as_json:
        write(json.dumps(drift.to_json()) + "\n")
    else:
        write(drift_text(drift, show, bars=sys.stdout.isatty()))
    if drift.verdict == "bug":
        raise typer.Exit(1)


def _about(model: str, prompt: str, drift: Drift) -> list[tuple[str, str]]:
    """What a page says of a comparison: what was compared, by which programs, where and when."""
    from ernie_rt import __version__
    from ernie_rt.conformance.report import machine, today
    from ernie_rt.host import PluginHost

    host, here = PluginHost(), machine()
    sides = [
        (label, f"{side.backend} on {side.device} in {side.dtype}: {', '.join(host.versions(side.backend))}")
        for label, side in zip("AB", drift.sides, strict=True)
    ]
    return [
        ("model", model), ("prompt", prompt), *sides, ("ernie-rt", __version__),
        ("machine", f"{here['processor']}, {here['system']}, Python {here['python']}"), ("date", today()),
    ]  # fmt: skip
