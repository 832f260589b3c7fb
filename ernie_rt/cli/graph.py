"""`ernie-rt graph`: print a model as a graph."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli import completion
from ernie_rt.cli.options import Json, Ref, TextOnly

if TYPE_CHECKING:
    from ernie_rt.graph.cost import Cost
    from ernie_rt.graph.graph import Graph
    from ernie_rt.graph.legalize import Lowering
    from ernie_rt.modeling.config import ModelConfig

PICTURE = "640x480"


class Name(StrEnum):
    """Which graph of a model."""

    main = "main"
    vision = "vision"


class Level(StrEnum):
    """How far to decompose."""

    block = "block"
    composite = "composite"
    primitive = "primitive"


def graph(
    model: Ref,
    name: Annotated[
        Name, typer.Option("--graph", help="main makes tokens; vision, of a model that sees, what stands for pictures.")
    ] = Name.main,
    level: Annotated[
        Level | None, typer.Option(help="Decompose down to this level; block when not given.", show_default=False)
    ] = None,
    lowered: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND",
            help="Lower it to what this backend claims; -v says why.",
            autocompletion=completion.backends,
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Activation dtype: auto (the model's), float32, bfloat16, float16.", autocompletion=completion.dtypes
        ),
    ] = "auto",
    context: Annotated[str, typer.Option(help="Context length of the token whose cost is printed.")] = "1k",
    image: Annotated[
        str | None,
        typer.Option(metavar="WxH", help=f"The picture whose cost --graph vision prints; {PICTURE} if not given."),
    ] = None,
    text_only: TextOnly = False,
    full: Annotated[bool, typer.Option("--full", help="Print every layer, also those that repeat.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="With --lowered, print every decision.")] = False,
    as_json: Json = False,
) -> None:
    """Print a model as a graph, with its parameters and costs.

    The cost is that of one token or, of the graph `vision`, of a picture, block by block. A known name needs no
    checkpoint.
    """
    from ernie_rt.choice import unknown_dtype
    from ernie_rt.cli.output import parse_size, say, write
    from ernie_rt.errors import OptionError
    from ernie_rt.graph.graph import graph_text
    from ernie_rt.graph.json import graph_to_json
    from ernie_rt.graph.types import FLOATS
    from ernie_rt.modeling.families import find

    if dtype != "auto" and dtype not in FLOATS:
        raise unknown_dtype(dtype)
    if level is not None and lowered is not None:
        raise OptionError("--level and --lowered exclude one another", hint="Leave one out")
    tokens = parse_size(context)
    if tokens < 1:
        raise OptionError("--context must be positive", found=context)
    family = None if Path(model).is_dir() else find(model)
    if family is None:
        from ernie_rt.location import locate

        located = locate(model)
        config, folder = located.config, located.folder
    else:
        config, folder = family.config, None
    config = config.text_alone if text_only else config
    if name == Name.vision and config.sees is None:
        raise OptionError("the model takes in text alone: it has no graph `vision`", where=model, hint="Leave it out")
    if image is not None and name == Name.main:
        raise OptionError("--image is of the graph `vision`", hint="Add --graph vision, or leave it out")
    lowering = (
        _lowered(config, name, dtype, lowered) if lowered is not None else _decomposed(config, name, dtype, level)
    )
    shown = lowering.graph
    if as_json:
        write(json.dumps(graph_to_json(shown)) + "\n")
        return
    write(f"{graph_text(shown, fold=not full)}\n")
    if name == Name.main:
        _say_token(config, shown, tokens)
    else:
        _say_picture(shown, image or PICTURE, folder)
    if verbose and lowered is not None:
        for decision in lowering.decisions:
            verdict = "native" if decision.kept else f"decomposed: {decision.reason}"
            say(f"{decision.scope}: {decision.op}: {verdict}")


def _say_token(config: ModelConfig, shown: Graph, context: int) -> None:
    """The parameters of the text, and what a token costs."""
    from ernie_rt.cli.output import write
    from ernie_rt.display import human_count
    from ernie_rt.graph.cost import active_parameters, graph_cost, parameters
    from ernie_rt.modeling.ernie45 import build_graph

    built = build_graph(config)
    total, active = parameters(built), active_parameters(built)
    cost = graph_cost(shown, {"N": 1, "C": context, "L": 1, "F": 1})
    write(
        f"parameters {total:,} ({human_count(total)}), active {active:,} ({human_count(active)})\n"
        f"one token after {context - 1:,}: {cost.flops:,} FLOPs, {cost.weight_bytes:,} bytes of weights, "
        f"{cost.cache_bytes:,} of cache\n"
    )


def _say_picture(shown: Graph, size: str, folder: Path | None) -> None:
    """The parameters of tower and resampler, and what a picture costs, block by block, resized as `folder` has it."""
    from ernie_rt.cli.output import table, write
    from ernie_rt.display import human_count
    from ernie_rt.graph.cost import Cost, parameters
    from ernie_rt.modeling.vision_language import PreprocessorConfig, read_preprocessor
    from ernie_rt.planning.seeing import Shown, block_costs

    limits = PreprocessorConfig() if folder is None else read_preprocessor(folder)
    picture = Shown.of("image", size, limits.max_pixels, limits.min_pixels)
    costs = block_costs(shown, picture.grid)
    rows = [["BLOCK", "NUMBER", "FLOPS", "WEIGHT BYTES"]]
    rows += [_cost_row(block, number, cost) for block, (number, cost) in costs.items()]
    rows.append(_cost_row("all", 1, sum((cost for _, cost in costs.values()), Cost())))
    write(
        f"parameters {parameters(shown):,} ({human_count(parameters(shown))})\n"
        f"a picture of {size}, resized to {picture.made}: {picture.patches:,} patches, {picture.tokens:,} tokens\n"
    )
    table(rows)


def _cost_row(block: str, number: int, cost: Cost) -> list[str]:
    return [block, str(number), f"{cost.flops:,}", f"{cost.weight_bytes:,}"]


def _lowered(config: ModelConfig, name: Name, dtype: str, backend: str) -> Lowering:
    """The graph as a backend would run it here, in the dtype that it would choose."""
    from ernie_rt.build import build
    from ernie_rt.choice import choose
    from ernie_rt.contract.protocols import Target
    from ernie_rt.host import PluginHost, blame

    host = PluginHost()
    choice = choose(host, backend=backend, dtype=dtype, stored=config.dtype, model=config)
    with blame(backend):
        return build(config, host.backend(backend), Target((choice.device,), choice.dtype)).lowerings[name]


def _decomposed(config: ModelConfig, name: Name, dtype: str, level: Level | None) -> Lowering:
    from ernie_rt.graph.legalize import Accept, Reject, legalize
    from ernie_rt.graph.ops import OPS
    from ernie_rt.graph.types import dtype_of
    from ernie_rt.modeling.graphs import build_graphs

    built = build_graphs(config, None if dtype == "auto" else dtype_of(dtype))[name]
    levels = list(Level)
    wanted = {str(lower) for lower in levels[levels.index(level or Level.block) :]}
    return legalize(built, lambda node: Accept() if OPS[node.op].level in wanted else Reject(f"above level {level}"))
