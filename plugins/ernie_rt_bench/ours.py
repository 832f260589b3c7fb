"""ernie-rt itself, in the process that is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rt.cli.loaded import loaded, quantization, quantized
from ernie_rt.cli.options import Weights
from ernie_rt.contract.step import Step
from ernie_rt.errors import OptionError
from ernie_rt.graph.cost import graph_cost
from ernie_rt.modeling.graphs import VISION
from ernie_rt.planning.speed import held
from ernie_rt.text.chat import ChatPrompt
from ernie_rt.vision.item import Item
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
        max_patches: int,
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
        limits: dict[str, Any] = {"max_context": max_context, "max_patches": max_patches}
        ready = self._model = self._stack.enter_context(
            loaded(located, weights=source, reuse=False, quiet=True, **limits, **options)
        )
        self.vocabulary = min(located.known_ids or located.config.vocab_size, located.config.text_vocab_size)
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
            costs = {str(c): graph_cost(graph, {"N": 1, "C": c + 1, "L": 1, "F": 1}) for c in contexts}
            self.facts["decode_bytes"] = {c: cost.weight_bytes + cost.cache_bytes for c, cost in costs.items()}
        prompts = {str(c): {"N": c, "C": c, "L": 1, "F": 1} for c in contexts}
        self.facts["prompt_flops"] = {c: graph_cost(ready.graph, sizes).flops for c, sizes in prompts.items()}

    def prefill(self, ids: Sequence[int], new: int) -> None:
        self._rest = self._model.stream_ids(ids, max_new_tokens=new + 1, ignore_eos=True)
        next(self._rest)

    def decode(self) -> None:
        for _ in self._rest:
            pass

    def look(self, size: Sequence[int], ids: Sequence[int], seed: int) -> tuple[float, float]:
        sees, model = self._model.config.sees, self._model
        if sees is None:
            raise OptionError("the model takes in text alone", hint="Leave --image out, or name one of the family VL")
        rng, width, height = np.random.default_rng(seed), *size
        first, second = (Item.of("image", rng.integers(0, 256, (1, height, width, 3), np.uint8)) for _ in range(2))
        (piece,) = first.pieces(model.limits.max_patches)
        began = time.perf_counter()
        model.executable.submit(Step.without_tokens(VISION, piece)).result()
        between = time.perf_counter()
        prompt = ChatPrompt((*[sees.image_token_id] * second.tokens, *ids), items=((0, second),))
        with model.chat(prompt, stream=True, max_new_tokens=1, ignore_eos=True, temperature=0.0) as answer:
            next(iter(answer))
        return between - began, time.perf_counter() - between

    def by_op(self, ids: Sequence[int]) -> Sequence[Mapping[str, Any]]:
        return [asdict(step) for step in steps_by_op(self._model, ids)]

    def close(self) -> None:
        self._stack.close()
