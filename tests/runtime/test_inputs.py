"""What a graph takes in beside ids, positions and features: cut to the chunks of a step, and read by a micro-graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from ernie_rt.contract import Limits, Step, Target
from ernie_rt.errors import BackendError, PromptError
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.legalize import legalize
from ernie_rt.graph.types import Plain, TensorType, Value, Weight
from ernie_rt.modeling.ernie45 import INDEX_INPUTS
from ernie_rt.reference.backend import ReferenceBackend
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.inputs import Array, PerToken, gather
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.sequence import Request
from ernie_rt.storage.rope import RopeTable
from ernie_rt.weights.synthetic import Synthetic

HIDDEN, HEADS, SIZE, VOCAB, PIXELS = 12, 3, 4, 17, 5


def micro() -> dict[str, Graph]:
    """Tokens, of which some are features, attended to with positions of three columns, and a state for each seat.

    Features look at those of their own frame alone, without a cache. The last feature of a sequence is kept in its seat
    and added to every row of logits.
    """
    b = Builder()
    inputs = {name: b.input(name, TensorType("int32", dims)) for name, dims in INDEX_INPUTS if name != "positions"}
    positions = b.input("positions", TensorType("int32", ("N", 3)))
    seat = b.input("seat", TensorType("int32", ("N",)))
    row = b.input("features_row", TensorType("int32", ("N",)))
    features = b.input("features", TensorType("float64", ("F", HIDDEN)))
    x = b("add", b("take_rows", weight("embed", VOCAB, HIDDEN), inputs["ids"]), b("take_rows", features, row))
    tables = [
        b(
            "rope_rows", Weight(f"rope.{name}", TensorType("float32", ("P", SIZE // 2)), RopeTable(name, 100.0)),
            positions, columns=(1, 2),
        )
        for name in ("cos", "sin")
    ]  # fmt: skip
    qkv = b("linear", x, weight("qkv", 3 * HIDDEN, HIDDEN))
    kv = b.state("kv", TensorType("float64", ("R", 2, HEADS, SIZE)))
    indices = [inputs[name] for name in ("sequence", "index", "write", "context", "context_sequence", "context_index")]
    y = b(
        "rope_attention", qkv, *tables, kv, None, *indices,
        num_heads=HEADS, num_kv_heads=HEADS, head_dim=SIZE, scale=0.5,
    )  # fmt: skip
    own = b("reshape", y, dims=("N", 1, HIDDEN))
    last = b.state("last", TensorType("float64", ("S", 2, 1, HIDDEN)))
    kept, _ = b.multi("cache_update", own, own, last, seat, seat)  # of several rows of a seat the last one stays
    y = b("add", b("add", x, y), b("reshape", kept, dims=("N", HIDDEN)))
    logits = b("linear", b("take_rows", y, inputs["rows"]), weight("head", VOCAB, HIDDEN))
    main = b.finish("main", {"logits": b("cast", logits, dtype="float64")})

    b = Builder()
    patches = b.input("patches", TensorType("float32", ("S", PIXELS)))
    frame = b.input("frame", TensorType("int32", ("S",)))
    y = b("linear", b("cast", patches, dtype="float64"), weight("patch", HIDDEN, PIXELS))
    heads = b("reshape", y, dims=("S", HEADS, SIZE))
    y = b("add", y, b("attention", heads, heads, heads, None, frame, scale=0.5))
    return {"main": main, "vision": b.finish("vision", {"features": y})}


def weight(name: str, *dims: int) -> Weight:
    return Weight(name, TensorType("float64", dims), Plain("float64"))


class Picture:
    """Two frames of three patches: a token each."""

    tokens = 6

    def __init__(self, seed: int) -> None:
        self.digest = bytes([seed])
        self.patches = np.random.default_rng(seed).standard_normal((6, PIXELS)).astype(np.float32)

    def pieces(self, max_patches: int) -> Iterator[dict[str, Array]]:
        for start in range(0, 6, 3 if max_patches < 6 else 6):
            patches = self.patches[start : start + max(3, max_patches)]
            yield {"patches": patches, "frame": np.arange(len(patches), dtype=np.int32) // 3}


class Prompt:
    """A few words, a picture of two rows and three columns, and words again."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        before, after = random.integers(1, 4, 2).tolist()
        rows = [(p, p, p) for p in range(before)]
        rows += [(before, before + i, before + j) for i in range(2) for j in range(3)]
        rows += [(p, p, p) for p in range(before + 3, before + 3 + after)]
        self.ids = tuple(random.integers(0, VOCAB, len(rows)).tolist())
        self.placed = PlacedItem(before, Picture(seed))
        self.positions = np.array(rows, np.int32)

    def request(self, new: int, chunk: int | None = None) -> Request:
        return Request(
            self.ids, new, chunk=chunk, inputs={"positions": PerToken(self.positions, then="count")},
            items=(self.placed,),
        )  # fmt: skip


def engine_of(sequences: int, graphs: Mapping[str, Graph] | None = None, max_patches: int = 6) -> Engine:
    """The reference's."""
    backend, target = ReferenceBackend(), Target(("cpu",), "float64")
    graphs = micro() if graphs is None else graphs
    lowerings = {}
    for name, graph in graphs.items():
        lowering = legalize(graph, lambda node: backend.claims(node, target))
        lowerings[name] = lowering if name == "main" else replace(lowering, taps=lowering.graph.outputs)
    executable = backend.compile(lowerings, Synthetic(1), target, Limits(40, sequences, 16))
    return Engine(executable, 40, graphs=graphs, max_patches=max_patches)


def tokens_of(chunk: int | None, *prompts: Prompt, sequences: int = 1, max_patches: int = 6) -> list[list[int]]:
    engine = engine_of(sequences, max_patches=max_patches)
    run = [engine.submit(prompt.request(6, chunk)) for prompt in prompts]
    list(engine.run(*run))
    return [sequence.generated for sequence in run]


@pytest.mark.parametrize("seed", range(4))
def test_chunks_pieces_and_company_change_nothing(seed: int) -> None:
    prompts = [Prompt(seed), Prompt(seed + 10), Prompt(seed + 20)]
    alone = [tokens_of(None, prompt)[0] for prompt in prompts]
    assert len({tuple(tokens) for tokens in alone}) > 1
    assert tokens_of(None, *prompts, sequences=3) == alone
    assert tokens_of(4, *prompts, sequences=3, max_patches=3) == alone
    assert tokens_of(1, *prompts, sequences=2) == alone


@pytest.mark.parametrize("differing", ["features", "positions"])
def test_prompts_alike_in_their_ids_alone_share_no_rows(differing: str) -> None:
    engine = engine_of(1)
    first, second = Prompt(0), Prompt(0)
    start = first.placed.start
    if differing == "features":
        second.placed = PlacedItem(start, Picture(1))
    else:
        second.positions[start:] += 1
    told = []
    for prompt in (first, second, first):
        sequence = engine.submit(prompt.request(6))
        list(engine.run(sequence))
        told.append((sequence.reused, sequence.generated))
    assert [reused for reused, _ in told] == [0, start, len(first.ids) - 1]
    assert told[0][1] == told[2][1] == tokens_of(None, first)[0]
    assert told[1][1] == tokens_of(None, second)[0]


def test_text_has_the_positions_of_text() -> None:
    ids = Prompt(0).ids
    places = PerToken(np.repeat(np.arange(len(ids), dtype=np.int32)[:, None], 3, axis=1), "count")
    engine = engine_of(1)
    said = []
    for inputs in ({}, {"positions": places}):
        sequence = engine.submit(Request(ids, 6, inputs=inputs))
        list(engine.run(sequence))
        said.append(sequence.generated)
        assert sequence.reused == (len(ids) - 1 if inputs else 0)
    assert said[0] == said[1]


def test_cuts() -> None:
    positions = PerToken(np.array([[0, 0], [1, 1], [1, 2]], np.int32), then="count")
    assert positions.cut(1, 5).tolist() == [[1, 1], [1, 2], [3, 3], [4, 4]]
    assert positions.cut(4, 6).tolist() == [[4, 4], [5, 5]]
    kinds = PerToken(np.array([1, 0, 1], np.int32))
    assert kinds.cut(2, 4).tolist() == [1, 0]
    joined = gather([{"kind": kinds}, {"kind": kinds}], [(2, 4), (0, 3)])
    assert joined["kind"].tolist() == [1, 0, 1, 0, 1]


def with_kinds() -> dict[str, Graph]:
    """A graph that takes in the kind of each token, which nobody can know but who asks."""
    main = micro()["main"]
    kind = Value("kind", TensorType("int32", ("N",)))
    return {"main": replace(main, inputs=(*main.inputs, kind))}


def test_every_request_brings_what_the_graph_takes_in() -> None:
    engine = Engine(engine_of(1)._executable, 40, graphs=with_kinds() | {"vision": micro()["vision"]})
    with pytest.raises(PromptError, match="expected kind, positions; found positions"):
        engine.submit(Request((1, 2), 3))


def test_a_step_says_what_it_lacks_and_what_does_not_fit() -> None:
    executable, graph = engine_of(1)._executable, micro()["main"]
    step = Step.whole([[1, 2]])
    with pytest.raises(BackendError, match="the step has no input 'features_row'; expected ids, "):
        executable.submit(step)
    step = replace(step, extra={"features": np.zeros((3, HIDDEN + 1))})
    with pytest.raises(BackendError, match=r"input %features is not f64\[F, 12\]; found \[3, 13\]"):
        step.bindings(graph)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PerToken(np.zeros((3, 3), np.int32), "count"), "has 3 rows for a prompt of 2 tokens"),
        (PerToken(np.zeros((2, 2), np.int32)), r"has int32 \[2, 2\], where the graph takes i32\[N, 3\]"),
        (PerToken(np.zeros((2, 3), np.float32)), r"has float32 \[2, 3\], where the graph takes i32\[N, 3\]"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_at_once(given: PerToken, message: str) -> None:
    with pytest.raises(PromptError, match=f"the input 'positions' {message}"):
        engine_of(1).submit(Request((1, 2), 3, inputs={"positions": given}))
