"""`ernie-rt graph`: print a model as a graph."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli import completion
from ernie_rt.cli.options import Json, Ref

if TYPE_CHECKING:
    from ernie_rt.graph.legalize import Lowering
    from ernie_rt.modeling.config import ModelConfig


class Level(StrEnum):
    """How far to decompose."""

    block = "block"
    composite = "composite"
    primitive = "primitive"


def graph(
    model: Ref,
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
    full: Annotated[bool, typer.Option("--full", help="Print every layer, also those that repeat.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="With --lowered, print every decision.")] = False,
    as_json: Json = False,
) -> None:
    """Print a model as a graph, with its parameters and costs.

    The cost is that of one token. A known name needs no checkpoint.
    """
    from ernie_rt.choice import unknown_dtype
    from ernie_rt.cli.output import parse_size, say, write
    from ernie_rt.display import human_count
    from ernie_rt.errors import OptionError
    from ernie_rt.graph.cost import active_parameters, graph_cost, parameters
    from ernie_rt.graph.graph import graph_text
    from ernie_rt.graph.json import graph_to_json
    from ernie_rt.graph.types import FLOATS
    from ernie_rt.modeling.ernie45 import build_graph
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

        config = locate(model).config
    else:
        config = family.config
    lowering = _lowered(config, dtype, lowered) if lowered is not None else _decomposed(config, dtype, level)
    built = build_graph(config)
    bindings = {"N": 1, "C": tokens, "L": 1}
    shown = lowering.graph
    if as_json:
        write(json.dumps(graph_to_json(shown)) + "\n")
        return
    cost = graph_cost(shown, bindings)
    write(
        f"{graph_text(shown, fold=not full)}\n"
        f"parameters {parameters(built):,} ({human_count(parameters(built))}), "
        f"active {active_parameters(built):,} ({human_count(active_parameters(built))})\n"
        f"one token after {bindings['C'] - 1:,}: {cost.flops:,} FLOPs, {cost.weight_bytes:,} bytes of weights, "
        f"{cost.cache_bytes:,} of cache\n"
    )
    if verbose and lowered is not None:
        for decision in lowering.decisions:
            verdict = "native" if decision.kept else f"decomposed: {decision.reason}"
            say(f"{decision.scope}: {decision.op}: {verdict}")


def _lowered(config: ModelConfig, dtype: str, backend: str) -> Lowering:
    """The graph as a backend would run it here, in the dtype that it would choose."""
    from ernie_rt.build import build
    from ernie_rt.choice import choose
    from ernie_rt.contract.protocols import Target
    from ernie_rt.host import PluginHost, blame

    host = PluginHost()
    choice = choose(host, backend=backend, dtype=dtype, stored=config.dtype, model=config)
    with blame(backend):
        return build(config, host.backend(backend), Target((choice.device,), choice.dtype)).lowering


def _decomposed(config: ModelConfig, dtype: str, level: Level | None) -> Lowering:
    from ernie_rt.graph.legalize import Accept, Reject, legalize
    from ernie_rt.graph.ops import OPS
    from ernie_rt.graph.types import dtype_of
    from ernie_rt.modeling.ernie45 import build_graph

    built = build_graph(config, None if dtype == "auto" else dtype_of(dtype))
    levels = list(Level)
    wanted = {str(lower) for lower in levels[levels.index(level or Level.block) :]}
    return legalize(built, lambda node: Accept() if OPS[node.op].level in wanted else Reject(f"above level {level}"))
