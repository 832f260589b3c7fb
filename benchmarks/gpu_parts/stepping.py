"""Executables of the cudagraph backend driven step by step, as an engine does, and looked into."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ernie_rt.build import Build, build
from ernie_rt.contract import Draws, Executable, Interpreter, Limits, Pending, Step, Target
from ernie_rt.contract.step import Int32
from ernie_rt.graph.types import DType
from ernie_rt.modeling.config import ModelConfig
from ernie_rt_cudagraph.backend import CudaGraphBackend
from ernie_rt_cudagraph.blocks import functions
from ernie_rt_cudagraph.executable import MAIN, CudaGraphExecutable
from ernie_rt_cudagraph.launch import Launch, received
from ernie_rt_eager.ops import FUNCTIONS, moe_route, rms_norm
from gpu_parts.card import Card
from gpu_parts.weights import Drawn

NO_ROWS = np.zeros(0, np.int32)


class Loaded:
    """An executable with weights drawn on the device, and the cache full of numbers, or of NaN."""

    def __init__(
        self,
        card: Card,
        config: ModelConfig,
        limits: Limits,
        *,
        dtype: DType = "bfloat16",
        graphs: bool = True,
        pdl: bool | None = None,
        cache: float | None = None,
        drawn: torch.dtype | None = None,
    ) -> None:
        """`pdl` None is what the card can do; `cache` fills the cache, None with random numbers; weights are drawn in
        the dtype `drawn`, None in their own."""
        self.card, self.source = card, Drawn(drawn=drawn)
        target = Target((str(card.device),), dtype, graphs=graphs)
        backend = CudaGraphBackend()
        self.build: Build = build(config, backend, target)
        self.executable = CudaGraphExecutable(
            self.build.lowerings,
            self.source,
            target,
            limits,
            card.recorder(graphs=graphs),
            backend.bill(self.build.lowerings, target, limits),
            pdl=card.pdl if pdl is None else pdl,
        )
        for tensor in self.cache_tensors():
            if cache is None:
                tensor.normal_()
            else:
                tensor.fill_(cache)

    def close(self) -> None:
        self.executable.close()
        self.card.empty()

    def cache_tensors(self) -> list[Tensor]:
        return [tensor for layer in self.executable._caches.values() for tensor in (layer.k, layer.v)]

    def bucket(self, count: int) -> int:
        """The rows of the graph that a step of so many decodes takes."""
        return next(rows for rows in self.executable._buckets if rows >= count)

    def replay(self, count: int) -> Callable[[], object]:
        """The recorded greedy step of so many decodes, on whatever the last step brought."""
        return self.executable._replays[self.bucket(count), True]

    @torch.inference_mode()
    def launches(self, count: int) -> list[Launch]:
        """What is started for a step of so many decodes, in order, as it is done once without a graph."""
        launches: list[Launch] = []

        def start(launch: Launch) -> None:
            launch.start()
            launches.append(launch)

        with received(start):
            self.executable._decodes(self.bucket(count), True)
        return launches

    @torch.inference_mode()
    def chosen(self, step: Step) -> list[int]:
        """How many different experts each layer that has some chooses for a step of decodes, which is done."""
        count, seen = len(step.ids), []

        def moe_block(x: Tensor, norm: Tensor, gate: Tensor, bias: Tensor | None, *others: Any, **attrs: Any) -> Tensor:
            normed = rms_norm(x[:count], norm, eps=attrs["eps"])
            ids, _ = moe_route(normed, gate, bias, top_k=attrs["top_k"], norm_min=attrs["norm_min"])
            seen.append(torch.zeros(len(gate), device=x.device).index_fill_(0, ids.flatten(), 1).sum())
            output: Tensor = block(x, norm, gate, bias, *others, **attrs)
            return output

        executable = self.executable
        blocks = functions(executable._inputs.live, executable._output, pdl=executable._pdl)
        block = blocks["moe_block"]
        with self._interpreter({**FUNCTIONS, **blocks, "moe_block": moe_block}):
            executable._tables.update(step)
            executable._inputs.fill(step)
            executable._decodes(self.bucket(count), True)
        return [int(number) for number in seen]

    @contextmanager
    def _interpreter(self, table: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
        """Have `main` be run by other functions while the block runs."""
        kept, lowering = self.executable._interpreters, self.build.lowering
        bound, places = kept[MAIN]._bound, kept[MAIN]._places
        weights = {weight.name: bound[places[str(weight)]] for weight in lowering.graph.weights}
        changed = Interpreter(lowering, table, weights, self.executable._caches)
        self.executable._interpreters = {**kept, MAIN: changed}
        try:
            yield
        finally:
            self.executable._interpreters = kept


class Sequences:
    """B sequences of random tokens, whose pages lie in disorder: the steps that prolong them, greedily drawn."""

    def __init__(self, executable: Executable, config: ModelConfig, past: list[int], *, fetch: bool = False) -> None:
        """`past` tokens of each are in the cache already. With `fetch` steps hand back all logits they compute."""
        self._random = np.random.default_rng(0)
        self._cache, self._fetch, self._config = executable.cache, fetch, config
        width = self._cache.pages // executable.admits.max_sequences
        pages = self._random.permutation(self._cache.pages)[: len(past) * width]
        self._tables = pages.reshape(len(past), width).astype(np.int32)
        self.past = np.array(past, np.int32)

    def step(self, new: list[int], ids: Int32 | None = None) -> Step:
        """A step that brings each sequence so many tokens, fresh random ones unless they are given."""
        starts = np.concatenate([[0], np.cumsum(new)]).astype(np.int32)
        count, rows = len(new), starts[1:] - np.int32(1)
        step = Step(
            ids=self._random.integers(0, self._config.vocab_size, int(starts[-1]), np.int32) if ids is None else ids,
            query_start=starts,
            past=self.past.copy(),
            tables=self._tables,
            page_size=self._cache.page_size,
            seats=np.arange(count, dtype=np.int32),
            rows=rows,
            fetch=None if self._fetch else NO_ROWS,
            draws=Draws.greedy(count, self._config.vocab_size),
        )
        self.past += np.array(new, np.int32)
        return step if self._config.sees is None else replace(step, extra=self._seen(step))

    def _seen(self, step: Step) -> dict[str, Any]:
        """What a model that sees takes in as well: positions whose columns go on at different speeds, and, in place of
        every third token of prompts, random features, which 16 bits hold."""
        shown = (step.index % 3 == 1) & (step.new[step.sequence] > 1)
        features = np.zeros((1 + shown.sum(), self._config.hidden_size), np.float32)
        features[1:] = self._random.integers(-16, 17, features[1:].shape) / 8
        return {
            "positions": step.index[:, None] // np.array([1, 2, 3], np.int32),
            "features": features,
            "features_row": np.where(shown, shown.cumsum(), 0).astype(np.int32),
        }

    def decode(self, ids: Int32 | None = None) -> Step:
        return self.step([1] * len(self.past), ids)


def run_ahead(loaded: Loaded, steps: list[Step]) -> None:
    """Submit steps as an engine does, which reads the result of one after it has submitted the next."""
    waiting: deque[Pending] = deque()
    for step in steps:
        waiting.append(loaded.executable.submit(step))
        if len(waiting) > loaded.executable.ahead:
            waiting.popleft().result()
    for pending in waiting:
        pending.result()
    loaded.card.wait()
