"""ernie-rt itself, in the process that is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ernie_rt.cli.loaded import loaded, quantization, quantized
from ernie_rt.cli.options import Weights
from ernie_rt.graph.cost import graph_cost
from ernie_rt.planning.speed import held
from ernie_rt_bench.models import find_model, random_folder
from ernie_rt_bench.ops import steps_by_op


class Ours:
    """A model on one backend, quantised to `weights`; random ones are written into the folder `work`."""

    def __init__(
        self,
        model: str,
        layers: int | None,
        work: str,
        weights: str | None,
        contexts: Sequence[int],
        max_context: int,
        **options: Any,
    ) -> None:
        """`options` are those of `ernie_rt.load`."""
        from ernie_rt.weights.synthetic import Synthetic

        located, bits, began = find_model(model, layers), None if weights is None else Weights(weights), time.time()
        drawn = located.folder is None
        placing = {name: options[name] for name in ("backend", "device", "dtype")}
        source = Synthetic() if drawn and bits is None else quantized(located, bits, options["threads"], **placing)
        if drawn and bits is not None:
            located = random_folder(Path(work), model, layers, quantization(bits, located, **placing))
        preparing = time.time() - began
        self._stack = ExitStack()
        self._rest: Iterator[int] = iter(())
        ready = self._model = self._stack.enter_context(
            loaded(located, weights=source, max_context=max_context, reuse=False, quiet=True, **options)
        )
        self.vocabulary = located.known_ids or located.config.vocab_size
        choice, report = ready.choice, ready.memory()
        self.facts: dict[str, Any] = {
            "name": f"ernie-rt {choice.backend} {choice.dtype if weights is None else weights}",
            "backend": choice.backend,
            "device": choice.device,
            "dtype": choice.dtype,
            "reason": choice.reason,
            "weights": weights or choice.dtype,
            "random": drawn,
            "preparing": preparing,
            "weight_bytes": report.weight_bytes,
            "mapped_bytes": report.mapped_bytes,
            "cache_bytes": report.cache_bytes,
            "workspace_bytes": report.workspace_bytes,
        }
        if drawn and bits is None:
            self.facts["first"] = None  # drawing weights is no loading
        graph = ready.graph.with_weights(held)
        if choice.device == "cpu":  # whose memory is what this machine's bandwidth was measured of
            costs = {str(c): graph_cost(graph, {"N": 1, "C": c + 1, "L": 1}) for c in contexts}
            self.facts["decode_bytes"] = {c: cost.weight_bytes + cost.cache_bytes for c, cost in costs.items()}
        self.facts["prompt_flops"] = {str(c): graph_cost(ready.graph, {"N": c, "C": c, "L": 1}).flops for c in contexts}

    def prefill(self, ids: Sequence[int], new: int) -> None:
        self._rest = self._model.stream_ids(ids, max_new_tokens=new + 1, ignore_eos=True)
        next(self._rest)

    def decode(self) -> None:
        for _ in self._rest:
            pass

    def by_op(self, ids: Sequence[int]) -> Sequence[Mapping[str, Any]]:
        return [asdict(step) for step in steps_by_op(self._model, ids)]

    def close(self) -> None:
        self._stack.close()
