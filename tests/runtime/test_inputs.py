"""What a graph takes in for each token beside its id: cut to the chunks of a step, and read by a micro-graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ernie_rt.contract import Limits, Lowering, Target
from ernie_rt.errors import BackendError, PromptError
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.legalize import legalize
from ernie_rt.graph.types import Plain, TensorType, Weight
from ernie_rt.modeling.ernie45 import INDEX_INPUTS
from ernie_rt.reference.backend import ReferenceBackend
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.inputs import PerPlace, PerToken, gather
from ernie_rt.runtime.sequence import Request
from ernie_rt.storage.rope import RopeTable
from ernie_rt.weights.synthetic import Synthetic

HIDDEN, HEADS, SIZE, VOCAB = 12, 3, 4, 17
WIDE = ("float32", "float64")


def micro(dtype: Any = "float64") -> Graph:
    """Tokens, of which some are features, attended to with positions of three columns, and a state for each seat.

    Features first look at those of their own group alone, without a cache. The last feature of a sequence is kept in
    its seat and added to every row of logits.
    """
    b = Builder()
    inputs = {name: b.input(name, TensorType("int32", dims)) for name, dims in INDEX_INPUTS if name != "positions"}
    positions = b.input("positions", TensorType("int32", ("N", 3)))
    seat = b.input("seat", TensorType("int32", ("N",)))
    row = b.input("features_row", TensorType("int32", ("N",)))
    group = b.input("group", TensorType("int32", ("F",)))
    features = b.input("features", TensorType(dtype, ("F", HIDDEN)))

    def weight(name: str, *dims: int) -> Weight:
        return Weight(name, TensorType(dtype, dims), Plain(dtype))

    seen = b("reshape", features, dims=("F", HEADS, SIZE))
    seen = b("attention", seen, seen, seen, None, group, scale=0.5)  # [F, H]
    x = b("add", b("take_rows", weight("embed", VOCAB, HIDDEN), inputs["ids"]), b("take_rows", seen, row))
    tables = [
        b(
            "rope_rows", Weight(f"rope.{name}", TensorType("float32", ("P", SIZE // 2)), RopeTable(name, 100.0)),
            positions, columns=(1, 2),
        )
        for name in ("cos", "sin")
    ]  # fmt: skip
    qkv = b("linear", x, weight("qkv", 3 * HIDDEN, HIDDEN))
    kv = b.state("kv", TensorType(dtype, ("R", 2, HEADS, SIZE)))
    indices = [inputs[name] for name in ("sequence", "index", "write", "context", "context_sequence", "context_index")]
    y = b(
        "rope_attention", qkv, *tables, kv, None, *indices,
        num_heads=HEADS, num_kv_heads=HEADS, head_dim=SIZE, scale=0.5,
    )  # fmt: skip
    own = b("reshape", y, dims=("N", 1, HIDDEN))
    last = b.state("last", TensorType(dtype, ("S", 2, 1, HIDDEN)))
    kept, _ = b.multi("cache_update", own, own, last, seat, seat)  # of several rows of a seat the last one stays
    y = b("add", b("add", x, y), b("reshape", kept, dims=("N", HIDDEN)))
    logits = b("linear", b("take_rows", y, inputs["rows"]), weight("head", VOCAB, HIDDEN))
    return b.finish("main", {"logits": b("cast", logits, dtype="float64")})


class Positions:
    """A prompt of a few words, a picture of two rows and three columns, and words again."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        before, after = random.integers(1, 4, 2).tolist()
        kinds = [0] * before + [1] * 6 + [0] * after
        rows = [(p, p, p) for p in range(before)]
        rows += [(before, before + i, before + j) for i in range(2) for j in range(3)]
        rows += [(p, p, p) for p in range(before + 3, before + 3 + after)]
        self.ids = tuple(random.integers(0, VOCAB, len(kinds)).tolist())
        self.places = np.flatnonzero(kinds)
        self.features = random.standard_normal((6, HIDDEN))
        self.positions = np.array(rows, np.int32)
        self.groups = np.array([1, 1, 1, 2, 2, 2], np.int32) + 2 * seed  # no other prompt's

    def request(self, new: int, chunk: int | None = None) -> Request:
        return Request(
            self.ids, new, chunk=chunk,
            inputs={
                "positions": PerToken(self.positions, then="count"),
                "features": PerPlace(self.features, self.places),
                "group": PerPlace(self.groups, self.places),
            },
        )  # fmt: skip


class Executable:
    """The reference's, whose graph reads `group` by feature: the row of zeros in front has a group of its own."""

    def __init__(self, sequences: int) -> None:
        backend, target = ReferenceBackend(), Target(("cpu",), "float64")
        lowering: Lowering = legalize(micro(), lambda node: backend.claims(node, target))
        self.inner = backend.compile({"main": lowering}, Synthetic(1), target, Limits(40, sequences, 16))
        self.steps: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def submit(self, step: Any) -> Any:
        self.steps.append(step)
        assert "features" not in step.extra or step.bindings(micro())["F"] == len(step.extra["features"])
        return self.inner.submit(step)


NAMES = ("positions", "features", "group")
INPUTS = {value.name: value.type for value in micro().inputs if value.name in NAMES}


def tokens_of(chunk: int | None, *prompts: Positions, sequences: int = 1) -> list[list[int]]:
    engine = Engine(Executable(sequences), 40, inputs=INPUTS)
    run = [engine.submit(prompt.request(6, chunk)) for prompt in prompts]
    list(engine.run(*run))
    return [sequence.generated for sequence in run]


@pytest.mark.parametrize("seed", range(4))
def test_chunks_and_company_change_nothing(seed: int) -> None:
    prompts = [Positions(seed), Positions(seed + 10), Positions(seed + 20)]
    alone = [tokens_of(None, prompt)[0] for prompt in prompts]
    assert len({tuple(tokens) for tokens in alone}) > 1
    assert tokens_of(None, *prompts, sequences=3) == alone
    # A chunk cuts groups of features, which look at one another: whole groups alone give the same.
    text = [replace_features(prompt) for prompt in prompts]
    assert tokens_of(4, *text, sequences=3) == [tokens_of(None, prompt)[0] for prompt in text]
    assert tokens_of(1, *text, sequences=2) == tokens_of(None, *text, sequences=3)


def replace_features(prompt: Positions) -> Positions:
    """The same with features that come out of attention as they went in, whatever stands beside them."""
    prompt.features = np.repeat(prompt.features[:1], 6, axis=0)
    return prompt


@pytest.mark.parametrize("differing", ["features", "positions"])
def test_prompts_alike_in_their_ids_alone_share_no_rows(differing: str) -> None:
    engine = Engine(Executable(1), 40, inputs=INPUTS)
    first, second = Positions(0), Positions(0)
    if differing == "features":
        second.features = -second.features
    else:
        second.positions[second.places[0] :] += 1
    told = []
    for prompt in (first, second, first):
        sequence = engine.submit(prompt.request(6))
        list(engine.run(sequence))
        told.append((sequence.reused, sequence.generated))
    assert [reused for reused, _ in told] == [0, int(first.places[0]), len(first.ids) - 1]
    assert told[0][1] == told[2][1] == tokens_of(None, first)[0]
    assert told[1][1] == tokens_of(None, second)[0]


def test_cuts() -> None:
    positions = PerToken(np.array([[0, 0], [1, 1], [1, 2]], np.int32), then="count")
    assert positions.cut(1, 5).tolist() == [[1, 1], [1, 2], [3, 3], [4, 4]]
    assert positions.cut(4, 6).tolist() == [[4, 4], [5, 5]]
    kinds = PerToken(np.array([1, 0, 1], np.int32))
    assert kinds.cut(2, 4).tolist() == [1, 0]
    features = PerPlace(np.array([[1.0], [2.0], [3.0]]), np.array([0, 2, 3]))
    joined = gather([{"f": features}, {"f": features}], [(2, 4), (0, 3)])
    assert joined["f"].tolist() == [[0], [2], [3], [1], [2]]
    assert joined["f_row"].tolist() == [1, 2, 3, 0, 4]


def test_every_request_brings_what_the_graph_takes_in() -> None:
    engine = Engine(Executable(1), 40, inputs=INPUTS)
    with pytest.raises(PromptError, match="expected features, group, positions; found ids alone"):
        engine.submit(Request((1, 2), 3))


def test_a_step_says_what_it_lacks_and_what_does_not_fit() -> None:
    executable = Executable(1)
    engine = Engine(executable, 40, inputs={"positions": INPUTS["positions"]})
    sequence = engine.submit(Request((1, 2), 3, inputs={"positions": PerToken(np.zeros((2, 3), np.int32))}))
    with pytest.raises(BackendError, match="the step has no input 'features_row'; expected ids, "):
        list(engine.run(sequence))
    step = executable.steps[0]
    executable.steps[0].extra["features"] = np.zeros((3, HIDDEN + 1))
    with pytest.raises(BackendError, match=r"input %features is not f64\[F, 12\]; found \[3, 13\]"):
        step.bindings(micro())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PerToken(np.zeros((3, 3), np.int32), "count"), "has 3 rows for a prompt of 2 tokens"),
        (
            PerToken(np.zeros((2, 2), np.int32)),
            r"has int32 \[2, 2\], where the graph takes i32\[N, 3\], rows for each token",
        ),
        (PerToken(np.zeros((2, 3), np.float32)), r"has float32 \[2, 3\], where the graph takes i32\[N, 3\]"),
        (PerPlace(np.zeros((1, 3), np.int32), np.array([1])), r"has int32 \[1, 3\], where .* rows for each token"),
        (PerPlace(np.zeros((1, 3)), np.array([2])), "has places that do not ascend within a prompt of 2 tokens"),
        (PerPlace(np.zeros((2, 3)), np.array([1, 0])), "has places that do not ascend"),
        (PerPlace(np.zeros((2, 3)), np.array([0])), "has 1 places for 2 rows"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_at_once(given: Any, message: str) -> None:
    engine = Engine(Executable(1), 40, inputs={"positions": INPUTS["positions"]})
    with pytest.raises(PromptError, match=f"the input 'positions' {message}"):
        engine.submit(Request((1, 2), 3, inputs={"positions": given}))
