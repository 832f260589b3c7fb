"""`ernie-rt explain`: every decision that loading a model takes, and why."""

from __future__ import annotations

import json

from ernie_rt.cli import options as opt


def explain(
    model: opt.Ref,
    weights: opt.Quantize = None,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    max_context: opt.MaxContext = None,
    as_json: opt.Json = False,
) -> None:
    """Say why a model runs as it does, and what would be faster.

    Which backend it gets, why no other, which pieces run as they are, and what weights do not. No weight is read, and
    nothing is downloaded.
    """
    from ernie_rt.cli.output import answers_alone, parse_size, write
    from ernie_rt.explanation import explain_unloaded
    from ernie_rt.host import PluginHost
    from ernie_rt.planning.described import describe
    from ernie_rt.planning.forms import FORMS

    described = describe(model)
    with answers_alone():
        explanation = explain_unloaded(
            described.name, described.config, PluginHost(), stored=described.stored,
            form=None if weights is None else FORMS[weights], backend=backend, device=device, dtype=dtype,
            context=None if max_context is None else parse_size(max_context),
        )  # fmt: skip
        write(json.dumps(explanation.to_json()) + "\n" if as_json else "\n".join(explanation.lines()) + "\n")
