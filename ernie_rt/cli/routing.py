"""`ernie-rt routing`: which experts the tokens of a text go to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli import options as opt
from ernie_rt.cli.output import colourful, heat, screen_width, write
from ernie_rt.cli.prompts import read_prompt
from ernie_rt.errors import ContextError, OptionError, PromptError
from ernie_rt.writing import check_targets

if TYPE_CHECKING:
    from ernie_rt.location import Located
    from ernie_rt.routing.report import Report
    from ernie_rt.session import Model
    from ernie_rt.text.chat import ChatPrompt
    from ernie_rt.text.media import Media
    from ernie_rt.text.media_reader import MediaReader


def routing(
    model: opt.Ref,
    text: Annotated[str | None, typer.Argument(help="The text; - or nothing reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the text from a file.")] = None,
    images: opt.Images = None,
    videos: opt.Videos = None,
    max_pixels: opt.MaxPixels = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line is a text of its own; loads are summed.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Ask it as a question, by the model's chat template.")] = False,
    layer: Annotated[
        list[int] | None,
        typer.Option(
            "--layer", metavar="N", help="Show each token's experts in this layer; may be given several times."
        ),
    ] = None,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    max_batch_tokens: opt.BatchTokens = None,
    threads: opt.Threads = None,
    memory: opt.Memory = None,
    html: Annotated[Path | None, typer.Option(help="Write the map as a page; its tokens point to experts.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the map as a picture.")] = None,
    verbose: opt.Verbose = False,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
) -> None:
    """Show which experts the tokens of a text go to.

    For each layer a bar for each expert, how evenly they are loaded, which are never used, and what the correction bias
    changes; then each token's experts with their weights. A dense model has no experts, a vision-language model two
    pools of them, for text and for pictures and videos, which come before the text.
    """
    from ernie_rt.choice import first_kind
    from ernie_rt.cli.loaded import loaded
    from ernie_rt.cli.pictures import Sight, most_patches
    from ernie_rt.location import locate

    check_targets(html, svg)
    media = Sight(max_pixels, fps, max_frames).media(images, videos)
    if media and lines:
        raise OptionError("--lines are texts, and pictures belong to one", hint="Leave one out")
    given = read_prompt(text, file)
    located = locate(model)
    reader = located.reader(first_kind(device)) if media else None
    texts = _texts(located, given.splitlines() if lines else [given], media, reader, chat=chat)
    shown = _layers(located, layer or [], lines=lines)
    with loaded(
        located, backend=backend, device=device, dtype=dtype, max_batch_tokens=max_batch_tokens, threads=threads,
        memory=memory, max_context=max(len(each.ids) for each in texts), routing=True, verbose=verbose, quiet=quiet,
        max_patches=most_patches([item for each in texts for _, item in each.items]),
    ) as ready:  # fmt: skip
        report = _report(located, ready, texts, summed=lines)
        if html is not None:
            from ernie_rt.routing.page import write_html

            write_html(html, report)
        if svg is not None:
            from ernie_rt.routing.svg import write_svg

            write_svg(svg, report)
        if as_json:
            write(json.dumps(report.to_json()) + "\n")
            return
        from ernie_rt.routing.terminal import routing_text

        if colourful():
            write(routing_text(report, width=screen_width(), paint=heat, layers=shown), painted=True)
        else:
            write(routing_text(report, width=screen_width(), layers=shown))


def _texts(
    located: Located, given: list[str], media: list[Media], reader: MediaReader | None, *, chat: bool
) -> list[ChatPrompt]:
    """Each text that is not empty, behind what is shown; PromptError when none is, ContextError for one that is too
    long."""
    from ernie_rt.text.chat import ChatPrompt, encode_parts

    tokenizer, template = located.tokenizer, located.template
    if chat and template is None:
        raise OptionError("--chat needs a chat template, and the model has none", hint="Leave it out")
    texts = []
    for text in given:
        if not text.strip():
            continue
        if chat and template is not None:
            asked = {"role": "user", "content": [*media, text.removesuffix("\n")]}
            texts.append(template.prompt([asked], tokenizer, reader=reader))
        elif media:
            texts.append(encode_parts([*media, text], tokenizer, reader))
        else:
            texts.append(ChatPrompt(tuple(tokenizer.encode(text))))
    if not texts:
        raise PromptError("the text is empty", hint="Give it as an argument, by --file, or on standard input")
    longest, most = max(len(each.ids) for each in texts), located.config.max_position_embeddings
    if longest > most:
        raise ContextError(
            "the text is longer than the context", expected=f"at most {most} tokens", found=longest,
            hint="Shorten it, or cut it into several, a line each, and add --lines",
        )  # fmt: skip
    return texts


def _layers(located: Located, wanted: list[int], *, lines: bool) -> list[int]:
    """The layers whose experts are to be shown; OptionError for one that has none."""
    config = located.config
    if wanted and lines:
        raise OptionError("--layer shows tokens, and --lines sums over them", hint="Leave one out")
    for layer in wanted:
        if config.moe is not None and not (0 <= layer < config.num_hidden_layers and config.is_moe_layer(layer)):
            known = [str(i) for i in range(config.num_hidden_layers) if config.is_moe_layer(i)]
            raise OptionError("the layer has no router", expected=f"--layer of {', '.join(known)}", found=layer)
    return wanted


def _report(located: Located, model: Model, texts: list[ChatPrompt], *, summed: bool) -> Report:
    from ernie_rt.cli.loaded import progress_bar
    from ernie_rt.routing.pictures import pictures_of
    from ernie_rt.routing.report import Report
    from ernie_rt.text.tokenizer import shown_piece

    choice = model.choice
    about = located.name, choice.backend, choice.device, choice.dtype
    if not summed:
        routing = model.routing(texts[0])
        pieces = model.tokenizer.pieces
        shown = tuple(shown_piece(pieces[id]) for id in routing.ids.tolist())
        return Report(*about, routing.load, routing, shown, pictures_of(texts[0].items))
    total, done = sum(len(each.ids) for each in texts), len(texts[0].ids)
    load = model.routing(texts[0]).load
    with progress_bar("routing") as progress:
        for each in texts[1:]:
            load += model.routing(each).load
            done += len(each.ids)
            if progress is not None:
                progress(done, total)
    return Report(*about, load)
