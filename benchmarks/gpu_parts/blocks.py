"""Each block at real shapes, beside its meaning in float64 and beside eager, which rounds as the block may."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ernie_rt.build import build
from ernie_rt.contract import Draws, Node, State, Step, Target, Weight
from ernie_rt.graph.types import DType
from ernie_rt.modeling.config import ModelConfig
from ernie_rt_cudagraph.backend import CudaGraphBackend
from ernie_rt_cudagraph.blocks import functions
from ernie_rt_cudagraph.blocks.head import HeadOutput
from ernie_rt_cudagraph.inputs import DecodeInputs, Tables
from ernie_rt_eager.attention import Context, LayerCache
from ernie_rt_eager.backend import empty_weight
from ernie_rt_eager.ops import DTYPES, FUNCTIONS
from ernie_rt_eager.products import exact_sums
from gpu_parts.card import Card
from gpu_parts.meaning import Meaning, evaluate
from gpu_parts.report import Measured, Report, Table
from gpu_parts.weights import Drawn, two_layers

PAGE = 16
PASTS = (0, 1, 15, 16, 17, 63, 100, 255, 500, 900)
"""How much context rows have, in turn."""
POSITIONS = 1024
TIMES_EAGER = 2.0
"""How much farther from the meaning than eager a block may be, in the root of the mean square."""
EXACT = 1e-6
"""So near it may always be."""


@dataclass(frozen=True, slots=True)
class Case:
    """Steps of `rows` rows, a quarter of them padding; or a prompt, whose rows are all new tokens of two sequences."""

    rows: int
    prompt: bool = False

    @property
    def live(self) -> int:
        return self.rows if self.prompt else self.rows - self.rows // 4

    def __str__(self) -> str:
        return f"prompt {self.rows}" if self.prompt else str(self.rows)


def check_blocks(
    card: Card, report: Report, name: str, config: ModelConfig, cases: Sequence[Case], dtype: DType = "bfloat16"
) -> None:
    """A row for each block and case: how far from its meaning it is, and eager, and whether graphs change a bit."""
    table = report.table(
        f"Blocks of {name} in {dtype}: distance from float64, root mean square of a number",
        f"{'block':18}", "rows", "ours", "eager", "ours/eager", "left out", "bits",
    )  # fmt: skip
    lowering = build(two_layers(config), CudaGraphBackend(), Target((str(card.device),), dtype)).lowering
    nodes = {node.op: node for node in lowering.graph.nodes}
    for op, node in nodes.items():
        with report.attempt(f"{op} of {name}"), torch.inference_mode(), exact_sums(card.device):
            block = Block(card, node, config, dtype)
            for case in cases:
                if report.has(3, f"{op} of {name}, {case} rows"):
                    with report.attempt(f"{op} of {name}, {case} rows"):
                        block.check(case, report, table)
            del block
        card.empty()


class Block:
    """One block with random weights on the device."""

    def __init__(self, card: Card, node: Node, config: ModelConfig, dtype: DType) -> None:
        self.card, self.node, self.config, self.dtype = card, node, config, DTYPES[dtype]
        source = Drawn()
        self.weights: dict[str, Tensor] = {}
        for weight in (operand for operand in node.inputs if isinstance(operand, Weight)):
            tensor = empty_weight(weight, {"P": POSITIONS}, card.device)
            if weight.storage.stored:
                source.fill_tensor(weight, tensor)
            else:
                computed = np.empty(tuple(tensor.shape), np.float32)
                source.fill(weight, "data", computed)
                tensor.copy_(torch.from_numpy(computed))
            self.weights[str(weight)] = tensor

    def check(self, case: Case, report: Report, table: Table) -> None:
        card, live = self.card, case.live
        setting = Setting(card, self.node, self.config, self.dtype, case)
        meaning = Meaning(self.dtype)
        expected = self._run(meaning.functions, setting.plain(live, torch.float64))
        eager = self._run(FUNCTIONS, setting.plain(live, self.dtype))
        with poisoned_memory():
            ours = self._ours(setting, pdl=False)
        kept = ~meaning.ties if meaning.ties is not None else slice(None)
        mine, theirs = (distance(given[:live][kept], expected[:live][kept]) for given in (ours, eager))
        what = f"{self.node.op}, {case} rows"
        if not mine <= max(TIMES_EAGER * theirs, EXACT):
            report.fail(f"{what}: {mine:.2e} from its meaning, eager {theirs:.2e}")
        problem = setting.cache_problem()
        if problem:
            report.fail(f"{what}: {problem}")
        different = [name for name, output in self._again(setting) if not same_bits(output[:live], ours[:live])]
        if different:
            report.fail(f"{what}: other bits {', '.join(different)}")
        left_out = 0 if meaning.ties is None else int(meaning.ties.sum())
        ratio = Measured(mine / theirs) if theirs else ""
        verdict = "differ" if different else "the same"
        table.row(self.node.op, str(case), Measured(mine), Measured(theirs), ratio, left_out, verdict)

    def _again(self, setting: Setting) -> Iterator[tuple[str, Tensor]]:
        """The same block once more in each other way that there is."""
        yield "a second time", self._ours(setting, pdl=False)
        for pdl in (False, True) if self.card.pdl else (False,):
            if pdl:
                yield "with PDL", self._ours(setting, pdl=True)
            if not setting.case.prompt:
                setting.begin()
                replay = self.card.recorder().record(lambda pdl=pdl: self._call(setting, pdl=pdl))  # type: ignore[misc]
                setting.begin()
                yield f"in a graph{' with PDL' if pdl else ''}", replay().clone()

    def _ours(self, setting: Setting, *, pdl: bool) -> Tensor:
        setting.begin()
        return self._call(setting, pdl=pdl)

    def _call(self, setting: Setting, *, pdl: bool) -> Tensor:
        return self._run(functions(setting.inputs.live, HeadOutput(), pdl=pdl), setting.padded)

    def _run(self, table: Mapping[str, Callable[..., Any]], operands: Mapping[str, Any]) -> Tensor:
        output: Tensor = evaluate(self.node, table, {**self.weights, **operands})
        return output


class Setting:
    """What goes into a block beside its weights, with NaN wherever nobody may look."""

    def __init__(self, card: Card, node: Node, config: ModelConfig, dtype: torch.dtype, case: Case) -> None:
        self.case, self.card, self.node, self.dtype = case, card, node, dtype
        random, device = np.random.default_rng(case.rows), card.device
        new = [case.rows - case.rows // 3, case.rows // 3] if case.prompt else [1] * case.live
        past = [0, 37] if case.prompt else [PASTS[place % len(PASTS)] for place in range(case.live)]
        width = POSITIONS // PAGE
        pages = random.permutation(len(new) * width).astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(new)]).astype(np.int32)
        self.step = Step(
            ids=random.integers(0, config.vocab_size, case.live, np.int32),
            query_start=starts,
            past=np.array(past, np.int32),
            tables=pages.reshape(len(new), width),
            page_size=PAGE,
            seats=random.permutation(len(new)).astype(np.int32),
            rows=np.arange(case.live, dtype=np.int32),
            draws=Draws.greedy(len(new), config.vocab_size),
        )
        self.inputs = DecodeInputs(case.rows, len(new), device)
        self.tables = Tables(len(new), width, device)
        self.tables.update(self.step)
        if case.prompt:
            self.inputs.all_live()
        else:
            self.inputs.fill(self.step)
        generator = card.generator(case.rows)
        self.x = torch.randn(case.rows, config.hidden_size, generator=generator, device=device).to(dtype)
        self.x[case.live :] = torch.nan
        self.context = Context(self.step, device)
        self.first: LayerCache | None = None
        if any(isinstance(operand, State) for operand in node.inputs):
            shape = (len(pages) * PAGE, config.num_key_value_heads, config.head_dim)
            self.first = LayerCache(*(torch.full(shape, torch.nan, dtype=dtype, device=device) for _ in range(2)))
            context = self.step.context
            rows = torch.from_numpy(np.setdiff1d(context, self.step.write).astype(np.int64)).to(device)
            for tensor in (self.first.k, self.first.v):
                tensor[rows] = torch.randn(len(rows), *shape[1:], generator=generator, device=device).to(dtype)
            self.cache = LayerCache(self.first.k.clone(), self.first.v.clone())
        said = self.context if case.prompt else self.inputs.decodes(case.rows, self.tables.device, PAGE)
        self.padded = self._named(self.x, said, self.cache if self.first else None, case.rows)
        """Operands by name for the blocks, padding and all."""

    def begin(self) -> None:
        """The cache as it was at first."""
        if self.first is not None:
            self.cache.k.copy_(self.first.k)
            self.cache.v.copy_(self.first.v)

    def plain(self, live: int, dtype: torch.dtype) -> dict[str, Any]:
        """Operands by name for functions of a step without padding, in another dtype."""
        first = self.first
        cache = None if first is None else LayerCache(first.k.to(dtype, copy=True), first.v.to(dtype, copy=True))
        return self._named(self.x[:live].to(dtype), self.context, cache, live)

    def cache_problem(self) -> str | None:
        """What is wrong with the cache after the block, in words."""
        if self.first is None:
            return None
        write = torch.from_numpy(self.step.write.astype(np.int64)).to(self.card.device)
        for name, first, now in (("K", self.first.k, self.cache.k), ("V", self.first.v, self.cache.v)):
            if not now[write].isfinite().all():
                return f"a row of {name} was not written"
            others = torch.ones(len(now), dtype=torch.bool, device=now.device).index_fill_(0, write, False)
            if not same_bits(now[others], first[others]):
                return f"a row of {name} was written that is no new token's"
        return None

    def _named(self, x: Tensor, context: object, cache: LayerCache | None, rows: int) -> dict[str, Any]:
        device = self.card.device
        ids = np.zeros(rows, np.int32)
        ids[: self.case.live] = self.step.ids
        positions = np.zeros((rows, 1), np.int32)
        positions[: self.case.live] = self.step.positions
        said = {"ids": ids, "positions": positions, "rows": np.arange(rows, dtype=np.int32)}
        named: dict[str, Any] = {f"%{name}": torch.from_numpy(array).to(device) for name, array in said.items()}
        named["%context"] = context
        first = self.node.inputs[0]
        assert first is not None
        named.setdefault(str(first), x)
        return named | {str(operand): cache for operand in self.node.inputs if isinstance(operand, State)}


def distance(found: Tensor, expected: Tensor) -> float:
    """The root of the mean square of the difference, as a share of that of what is expected."""
    difference = found.double() - expected
    return float((difference.square().mean() / expected.square().mean()).sqrt())


def same_bits(a: Tensor, b: Tensor) -> bool:
    """NaN where the other has NaN, too."""
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Have tensors that PyTorch makes without contents be full of NaN, or of the largest integers.

    It does so among the rest when algorithms are to be deterministic (`fill_uninitialized_memory`).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations that are never deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)
