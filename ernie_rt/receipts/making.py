"""Make the receipt of an answer."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from ernie_rt import __version__
from ernie_rt.display import printable
from ernie_rt.errors import OptionError
from ernie_rt.files import Progress
from ernie_rt.generation.stream import Generation
from ernie_rt.graph.json import graph_to_json
from ernie_rt.host import PluginHost
from ernie_rt.location import Located
from ernie_rt.modeling.ernie45 import as_stored
from ernie_rt.modeling.graphs import build_graphs
from ernie_rt.receipts.receipt import TOP, Chosen, Identity, Ran, Receipt
from ernie_rt.receipts.shown import Shown
from ernie_rt.session import Model
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.source import StoredSource

NAME_LENGTH: Final = 200


def make_receipt(
    model: Model, answer: Generation, *, identity: Identity | None = None, host: PluginHost | None = None
) -> Receipt:
    """The receipt of an answer that `model` gave with the option `margins`.

    Without an `identity` the model's weights are opened and hashed, unless their digests are remembered; it has to be
    given where `load` was given a source of weights. OptionError for an answer that no receipt can say all of.
    """
    asked, logprobs = answer.asked, answer.logprobs
    if asked is None or not answer.ids:
        raise OptionError("there is no receipt of an answer without a token")
    if asked.beyond:
        raise OptionError(
            "there is no receipt of such an answer, since it depends on more than a receipt has", found=asked.beyond
        )
    if len(logprobs) != len(answer.ids) or not all(math.isfinite(each.chosen) for each in logprobs):
        raise OptionError(
            "the answer does not say how its tokens were chosen",
            expected="a log probability for each",
            hint=f"Generate it with margins=True, logprobs={TOP}",
        )
    if identity is None:
        source = model.open_weights()
        try:
            identity = identify(model.located, source)
        finally:
            source.close()
    choice, target = model.choice, model.target
    return Receipt(
        model=identity,
        ran=Ran(
            choice.backend, choice.device, choice.dtype, target.deterministic, target.threads,
            (host or PluginHost()).versions(choice.backend),
        ),
        options=asked.options,
        prompt=asked.ids,
        answer=tuple(
            Chosen(id, told.chosen, tuple(pair for pair in told.top[:TOP] if math.isfinite(pair[1])), told.runner_up)
            for id, told in zip(answer.ids, logprobs, strict=True)
        ),
        items=tuple(Shown.of(start, item) for start, item in asked.items),
        finish=answer.finish,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        ernie_rt=__version__,
    )  # fmt: skip


def identify(located: Located, source: StoredSource, progress: Progress | None = None) -> Identity:
    """What a model is, with these weights; `progress` is told of bytes that are hashed."""
    config = located.config
    graphs = build_graphs(as_stored(config, source.storages))
    made_from = None
    if isinstance(source, QuantizedSource):
        plan = source.manifest.plan
        made_from = {key: value for key, value in plan.items() if key != "layout" and isinstance(value, str | int)}
    return Identity(
        name=printable(located.name)[:NAME_LENGTH],
        weights=source.fingerprint(progress),
        graph=_digest(json.dumps(graph_to_json(graph), sort_keys=True) for graph in graphs.values()),
        tokenizer=_digest(_said(located.tokenizer)),
        made_from=made_from,
    )


def _said(tokenizer: Tokenizer) -> Iterable[Any]:
    """What decides the text of ids, and so where a stop string is found."""
    yield tokenizer.vocab_size
    yield sorted(tokenizer.special)
    yield from (piece.hex() for piece in tokenizer.pieces)


def _digest(parts: Iterable[Any]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(f"{part}\n".encode())
    return total.hexdigest()
