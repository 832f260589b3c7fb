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
from ernie_rt.files import check_target

if TYPE_CHECKING:
    from ernie_rt.location import Located
    from ernie_rt.routing.data import Int32
    from ernie_rt.routing.report import Report
    from ernie_rt.session import Model


def routing(
    model: opt.Ref,
    text: Annotated[str | None, typer.Argument(help="The text; - or nothing reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the text from a file.")] = None,
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
    changes; then each token's experts with their weights. A dense model has no experts.
    """
    from ernie_rt.cli.loaded import loaded
    from ernie_rt.location import locate

    for drawing in (html, svg):
        if drawing is not None:
            check_target(drawing)
    given = read_prompt(text, file)
    located = locate(model)
    texts = _texts(located, given.splitlines() if lines else [given], chat=chat)
    shown = _layers(located, layer or [], lines=lines)
    with loaded(
        located, backend=backend, device=device, dtype=dtype, max_batch_tokens=max_batch_tokens, threads=threads,
        memory=memory, max_context=max(map(len, texts)), routing=True, verbose=verbose, quiet=quiet,
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


def _texts(located: Located, given: list[str], *, chat: bool) -> list[Int32]:
    """The ids of each text that is not empty; PromptError when none is, ContextError for one that is too long."""
    import numpy as np

    tokenizer, template = located.tokenizer, located.template
    if chat and template is None:
        raise OptionError("--chat needs a chat template, and the model has none", hint="Leave it out")
    texts = []
    for text in given:
        if not text.strip():
            continue
        ids = tokenizer.encode(text)
        if chat and template is not None:
            ids = list(template.prompt([{"role": "user", "content": text.removesuffix("\n")}], tokenizer).ids)
        texts.append(np.array(ids, np.int32))
    if not texts:
        raise PromptError("the text is empty", hint="Give it as an argument, by --file, or on standard input")
    longest, most = max(map(len, texts)), located.config.max_position_embeddings
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


def _report(located: Located, model: Model, texts: list[Int32], *, summed: bool) -> Report:
    from ernie_rt.cli.loaded import progress_bar
    from ernie_rt.routing.report import Report
    from ernie_rt.text.tokenizer import shown_piece

    choice = model.choice
    about = located.name, choice.backend, choice.device, choice.dtype
    if not summed:
        routing = model.routing(texts[0])
        pieces = model.tokenizer.pieces
        return Report(*about, routing.load, routing, tuple(shown_piece(pieces[id]) for id in routing.ids.tolist()))
    total, done = sum(map(len, texts)), len(texts[0])
    load = model.routing(texts[0]).load
    with progress_bar("routing") as progress:
        for ids in texts[1:]:
            load += model.routing(ids).load
            done += len(ids)
            if progress is not None:
                progress(done, total)
    return Report(*about, load)
