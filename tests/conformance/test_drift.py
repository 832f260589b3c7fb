"""`compare` names the piece that is wrong, in the layer where it is; and calls a tie a tie."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ernie_rt
import ernie_rt_eager.backend
from ernie_rt.conformance.drift import Contender, Drift, compare
from ernie_rt.conformance.metrics import OP_LIMIT
from ernie_rt.conformance.models import MAX_LOGITS
from ernie_rt.conformance.trace import MAX_TOKENS, most_tokens, trace
from ernie_rt.contract import Interpreter, Node, Weight
from ernie_rt.errors import BackendError, OptionError, PromptError
from ernie_rt.host import PluginHost
from ernie_rt.location import Located, locate
from ernie_rt.modeling.config import read_config
from ernie_rt.reference.ops import MEANINGS
from ernie_rt.storage.rope import inverse_frequencies
from ernie_rt.weights.quantize import Quantization, quantize_model
from ernie_rt.weights.synthetic import Synthetic
from support import capture_backend, grains, sighted
from support.capture_backend import CaptureExecutable
from support.drawn import DENSE, write_drawn
from support.rehearsal import MODELS, PROMPTS, Weights

Mutate = Callable[[Callable[..., Any]], Callable[..., Any]]
EAGER, REFERENCE = Contender("eager"), Contender("reference")
PROMPT = PROMPTS[3]
WEIGHTS = Weights()
HOST = PluginHost(extra=[grains, capture_backend])


def run(
    model: str = "moe",
    a: Contender = EAGER,
    b: Contender = REFERENCE,
    prompt: tuple[int, ...] = PROMPT,
    **options: Any,
) -> Drift:
    return compare(MODELS[model], a, b, prompt, weights=WEIGHTS, **{"max_new_tokens": 6, "host": HOST} | options)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Mutate], None]:
    """Make eager run the nodes of one scope with another function."""

    def begin(scope: str, mutate: Mutate) -> None:
        class Broken(Interpreter):
            def _call(self, node: Node, function: Callable[..., Any], live: set[int]) -> Any:
                return super()._call(node, mutate(function) if node.scope == scope else function, live)

        monkeypatch.setattr(ernie_rt_eager.backend, "Interpreter", Broken)

    return begin


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model", ["dense", "moe"])
def test_a_sound_backend_is_far_from_the_limit(model: str, dtype: str) -> None:
    drift = run(model, Contender("eager", dtype=dtype))
    assert drift.verdict in ("same", "tie") and drift.compared > len(PROMPT)
    for side in drift.sides:
        assert max(piece.own for piece in side.pieces) < 0.7 * OP_LIMIT
        assert side.wrong is None and not side.sampling
    assert len(drift.sides[0].pieces) > 20


def first(change: Callable[[torch.Tensor], torch.Tensor]) -> Mutate:
    """Change the first argument."""
    return lambda function: lambda x, *rest, **attrs: function(change(x), *rest, **attrs)


def after(change: Callable[[torch.Tensor], torch.Tensor]) -> Mutate:
    """Change the result."""
    return lambda function: lambda *args, **attrs: change(function(*args, **attrs))


def attrs(**changed: Any) -> Mutate:
    return lambda function: lambda *args, **given: function(*args, **given | changed)


def rotated_by(theta: float = 500000.0, shift: int = 0) -> Mutate:
    """Attention whose rotation has another theta, or other positions, than that of the other layers."""

    def mutate(function: Callable[..., Any]) -> Callable[..., Any]:
        def attend(qkv: Any, cos: Any, sin: Any, state: Any, places: Any, *rest: Any, **given: Any) -> Any:
            angles = torch.arange(len(cos))[:, None] * torch.from_numpy(inverse_frequencies(16, theta))
            context = rest[3]
            kept, context._rotation = context._rotation, None  # made once for all layers
            places = (places + shift).clamp(0, len(cos) - 1)
            result = function(qkv, angles.cos(), angles.sin(), state, places, *rest, **given)
            context._rotation = kept
            return result

        return attend

    return mutate


def route(
    *, bias: bool = True, weigh_biased: bool = False, normalise: bool = True, dtype: torch.dtype = torch.float32
) -> Mutate:
    """The router with one thing wrong."""

    def routed(x: Any, gate: Any, correction: Any = None, *, top_k: int, norm_min: float) -> Any:
        probabilities = F.linear(x.to(dtype), gate.to(dtype)).float().softmax(-1)
        scores = probabilities + correction if bias else probabilities
        ids = scores.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
        chosen = (scores if weigh_biased else probabilities).gather(-1, ids)
        total = chosen.sum(-1, keepdim=True).clamp_min(norm_min)
        return ids, (chosen / total if normalise else chosen).to(x.dtype)

    return lambda _: routed


def at_one_token(change: Callable[[torch.Tensor], torch.Tensor]) -> Mutate:
    def change_one(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        if len(x) > 7:
            x[7] = change(x[7])
        return x

    return after(change_one)


def when_decoding(mutate: Mutate) -> Mutate:
    """Broken for steps of one token alone."""

    def both(function: Callable[..., Any]) -> Callable[..., Any]:
        other = mutate(function)
        return lambda x, *rest, **given: (other if len(x) == 1 else function)(x, *rest, **given)

    return both


def neighbours(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, ids, *rest, **given: function(x, (ids + 1) % len(rest[1]), *rest, **given)


MUTANTS: Mapping[str, tuple[str, str, Mutate]] = {
    "embed one row off": ("float32", "embed", lambda f: lambda table, ids: f(table, (ids + 1) % len(table))),
    "norm with eps 1e-2": ("float32", "layers.1.attention.norm", attrs(eps=1e-2)),
    "norm without weight": (
        "bfloat16",
        "layers.2.attention.norm",
        lambda f: lambda x, w, **a: f(x, w * 0 + 1, **a),
    ),
    "qkv rolled": ("bfloat16", "layers.1.attention.qkv", after(lambda y: y.roll(1, -1))),
    "position one late": ("bfloat16", "layers.2.attention.attend", rotated_by(shift=-1)),
    "theta 1 % off": ("float32", "layers.1.attention.attend", rotated_by(theta=505000.0)),
    "scale missing": ("float16", "layers.1.attention.attend", attrs(scale=1.0)),
    "attend wrong while decoding": ("bfloat16", "layers.1.attention.attend", when_decoding(attrs(scale=0.2))),
    "one token not attended to": ("bfloat16", "layers.0.attention.attend", at_one_token(lambda row: row * 0.9)),
    "out twice": ("float32", "layers.0.attention.out", after(lambda y: y * 1.01)),
    "attention residual dropped": ("bfloat16", "layers.1.attention.residual", lambda f: lambda x, y: y),
    "gate and up swapped": ("bfloat16", "layers.0.mlp.swiglu", first(lambda x: x.flip(-1))),
    "gelu": ("float32", "layers.0.mlp.swiglu", lambda f: lambda x: F.gelu(x[..., 0]) * x[..., 1]),
    "down rounded twice": ("float32", "layers.0.mlp.down", after(lambda y: y.bfloat16().float())),
    "router without bias": ("bfloat16", "layers.1.mlp.route", route(bias=False)),
    "router weighs with bias": ("bfloat16", "layers.2.mlp.route.weights", route(weigh_biased=True)),
    "router does not normalise": ("float32", "layers.1.mlp.route.weights", route(normalise=False)),
    "router in bfloat16": ("float32", "layers.1.mlp.route.weights", route(dtype=torch.bfloat16)),
    "the neighbour's experts": ("bfloat16", "layers.2.mlp.experts", neighbours),
    "experts without gate": ("float32", "layers.1.mlp.experts", after(lambda y: y.clamp_min(0))),
    "shared experts wrong": ("bfloat16", "layers.1.mlp.shared.down", after(lambda y: y * 1.1)),
    "shared experts dropped": ("bfloat16", "layers.2.mlp.combine", lambda f: lambda x, y: x),
    "residual dropped": ("float16", "layers.2.mlp.residual", lambda f: lambda x, y: y),
    "head norm": ("bfloat16", "head.norm", attrs(eps=0.1)),
    "head of the wrong row": ("bfloat16", "head.rows", first(lambda x: x.roll(1, 0))),
    "head off by a column": ("bfloat16", "head", after(lambda y: y.roll(1, -1))),
    "a NaN": ("bfloat16", "layers.1.mlp.shared.swiglu", at_one_token(lambda row: row * torch.nan)),
    "an infinity": ("float32", "layers.2.attention.qkv", at_one_token(lambda row: row + torch.inf)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_names_the_piece_that_is_wrong(name: str, broken: Callable[[str, Mutate], None]) -> None:
    dtype, scope, mutate = MUTANTS[name]
    broken(scope.removesuffix(".weights"), mutate)
    drift = run(a=Contender("eager", dtype=dtype))
    wrong = [piece for piece in drift.sides[0].pieces if piece.wrong]
    assert drift.verdict == "bug" and drift.sides[1].wrong is None
    assert [piece.scope for piece in wrong] == [scope]
    assert drift.reason == f"A (eager@cpu:{dtype}): {scope}: {wrong[0].finding}"
    json.dumps(drift.to_json(), allow_nan=False)


def test_says_how_a_piece_is_wrong(broken: Callable[[str, Mutate], None]) -> None:
    broken("layers.2.mlp.route", lambda f: lambda *args, **given: (f(*args, **given)[0] * 0, f(*args, **given)[1]))
    assert "goes to experts [0, 0, 0]; expected different ones of 0 to 7" in run().reason
    broken("layers.0.attention.out", after(lambda y: y[:, :-1]))
    with pytest.raises(BackendError, match="backend 'eager' failed: RuntimeError"):  # the residual cannot be added
        run()
    broken("layers.2.mlp.shared.swiglu", at_one_token(lambda row: row * 2))
    assert "times its noise, most at token 7" in run().reason


def test_both_sides_are_judged(broken: Callable[[str, Mutate], None]) -> None:
    broken("layers.1.mlp.norm", attrs(eps=0.1))
    drift = run(a=REFERENCE, b=EAGER)
    assert drift.reason.startswith("B (eager@cpu:float32): layers.1.mlp.norm: off by ")
    drift = run(a=EAGER, b=Contender("eager", dtype="bfloat16"))
    assert drift.reason.count("layers.1.mlp.norm: off by ") == 2


@pytest.mark.parametrize(
    ("name", "pieces", "deepest"),
    [
        ("primitives", 60, "layers.1.attention.attend.rope_q"),
        ("fused", 38, "layers.1.mlp.shared.down"),
        ("blocks", 8, "layers.1.mlp"),
        ("capture", 1, "head"),  # hands back no taps
    ],
)
def test_looks_as_deep_as_a_backend_has_pieces(name: str, pieces: int, deepest: str) -> None:
    drift = run(a=Contender(name))
    side = drift.sides[0]
    assert (drift.verdict, len(side.pieces)) == ("same", pieces)
    assert deepest in [piece.scope for piece in side.pieces]
    assert max(piece.own for piece in side.pieces) < 0.5 * OP_LIMIT


@pytest.mark.parametrize(
    ("name", "op", "finding"),
    [
        (grains.Primitives, "top_k", "layers.1.mlp.route: token "),
        (grains.Fused, "moe", "layers.1.mlp.moe: off by "),
        (grains.Blocks, "moe_block", "layers.1.mlp: off by "),
    ],
)
def test_names_a_large_piece_where_the_backend_has_no_smaller_ones(
    name: type[grains.Primitives], op: str, finding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = name.functions[op]
    monkeypatch.setattr(
        name, "functions", {**name.functions, op: lambda *args, **given: right(-args[0], *args[1:], **given)}
    )
    drift = run(a=Contender(name.__name__.lower()))
    assert drift.verdict == "bug" and finding in drift.reason


class Tied(Weights):
    """Two experts that the router can hardly tell apart."""

    def fill(self, weight: Weight, part: str, out: np.ndarray, index: tuple[int, ...] = ()) -> None:
        super().fill(weight, part, out, index)
        if weight.name.endswith("mlp.gate"):
            out[1] = out[0] * (1 + 1e-7)
        elif weight.name.endswith("correction_bias"):
            out[:] = 0


def test_a_router_tie_inside_a_piece_is_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding chooses another of two experts that are as good, and no tap shows which."""
    drift = compare(MODELS["moe"], Contender("blocks"), Contender("eager"), PROMPT, weights=Tied(), host=HOST)
    blocks, eager = drift.sides
    assert drift.verdict != "bug" and blocks.wrong is None
    first = [
        flip for flip in eager.flips if flip.scope == eager.flips[0].scope
    ]  # those of later layers may follow from it
    assert all(flip.gap < 1e-6 for flip in first)
    jumped = [piece for piece in blocks.pieces if piece.drift and piece.noise and piece.drift > 100 * piece.noise]
    assert jumped, "no expert was flipped"
    right = grains.Blocks.functions["head"]
    wrong = {**grains.Blocks.functions, "head": lambda *args, **given: right(*args, **given) * 1.01}
    monkeypatch.setattr(grains.Blocks, "functions", wrong)  # what comes after is judged again
    drift = compare(MODELS["moe"], Contender("blocks"), Contender("eager"), PROMPT, weights=Tied(), host=HOST)
    assert drift.verdict == "bug" and "(blocks@cpu:float32): head: off by " in drift.reason


def test_without_taps_the_whole_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        capture_backend, "MEANINGS", {**MEANINGS, "head": lambda *a, **k: MEANINGS["head"](*a, **k) * 1.1}
    )
    drift = run(a=Contender("capture"))
    assert "head: off by " in drift.reason and "no tap of its own: embed … layers.2.mlp, 7 in all" in drift.reason


def test_a_token_that_the_logits_do_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CaptureExecutable._run

    def run_and_choose_another(*args: Any, **given: Any) -> tuple[np.ndarray, ...]:
        logits, tokens, counts = right(*args, **given)
        return logits, (tokens + 1) % 60, counts

    monkeypatch.setattr(CaptureExecutable, "_run", run_and_choose_another)
    drift = run(a=Contender("capture"))
    assert drift.verdict == "bug" and "): sampling: token 0 of the answer is " in drift.reason


def test_the_answer_is_what_a_user_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that chooses well as long as somebody looks at all of its logits."""
    right = CaptureExecutable.catch_up

    def catch_up(self: CaptureExecutable) -> None:
        late = self._late
        right(self)
        if late is not None and late.value is not None and late.value.tokens is not None and late.value.logits is None:
            late.value.tokens[:] = (late.value.tokens + 1) % 60

    monkeypatch.setattr(CaptureExecutable, "catch_up", catch_up)
    drift = run(a=Contender("capture"))
    assert drift.verdict == "bug" and "): sampling: token 0 of the answer is " in drift.reason


def test_how_many_tokens_can_be_compared() -> None:
    config = MODELS["moe"].config
    long = dataclasses.replace(config, max_position_embeddings=131072)
    assert most_tokens(config) == 256 and most_tokens(long) == MAX_TOKENS
    assert most_tokens(dataclasses.replace(long, vocab_size=103424)) == MAX_LOGITS // 103424 > 600


def test_the_same_in_a_coarse_dtype_is_no_proof() -> None:
    drift = run(a=Contender("eager", dtype="bfloat16"), max_new_tokens=1)
    assert drift.verdict == "same"
    assert drift.reason.endswith("(bfloat16 tells 1 from 1.00781: a smaller mistake may show in eager:float32)")


TIED = {"a": Contender("eager", dtype="bfloat16"), "b": Contender("eager"), "prompt": PROMPTS[4], "max_new_tokens": 12}


def test_a_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    drift = run(**TIED)
    split = drift.split
    assert split is not None and drift.verdict == "tie"
    assert drift.compared == len(drift.prompt) + split.index
    a, b = (side.tokens for side in drift.sides)
    assert a[: split.index] == b[: split.index] and (a[split.index], b[split.index]) == split.tokens
    assert set(split.best) == set(split.tokens) and split.margin == max(split.behind) > min(split.behind) == 0
    assert split.margin < 2 * split.noise[0] and split.noise[1] < 1e-4 * split.noise[0]
    with ernie_rt.load(MODELS["moe"], backend="reference", dtype="float64", weights=WEIGHTS) as model:
        logits = model.logits((*drift.prompt, *a[: split.index]))[-1]
    best = np.sort(logits)[::-1]
    assert split.margin == pytest.approx(best[0] - best[1]) and int(logits.argmax()) == split.best[0]
    monkeypatch.setattr("ernie_rt.conformance.drift.TIE_LIMIT", 1.0)  # then the noise does not excuse it
    assert "no piece is wrong by itself, and " in run(**TIED).reason and run(**TIED).verdict == "bug"


def test_a_router_tie(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    located = locate(untrained)
    ids = located.tokenizer.encode("老师 says that the morning train is late, and the others know it")
    monkeypatch.setattr("ernie_rt.conformance.drift.TIE_LIMIT", 0.1)
    drift = compare(located, Contender("eager", dtype="bfloat16"), Contender("eager", dtype="float32"), ids)
    assert drift.verdict == "tie" and "a router tie came before: layers.2.mlp.route, token " in drift.reason
    flip = drift.sides[0].flips[0]
    (router,) = (piece for piece in drift.sides[0].pieces if piece.scope == "layers.2.mlp.route")
    assert 0 < flip.gap < 2 * flip.noise < 0.1
    flipped = {each.token for each in drift.sides[0].flips if each.scope == router.scope}
    assert router.agreement == 1 - len(flipped) / drift.compared >= 0.9 and not router.wrong
    (jump,) = (piece for piece in drift.sides[0].pieces if piece.scope == "layers.2.mlp.experts")
    assert jump.drift is not None and jump.noise is not None and jump.drift > 5 * jump.noise and jump.own < OP_LIMIT


def test_the_same_backend_twice_is_the_same() -> None:
    drift = run(b=EAGER)
    assert drift.verdict == "same" and drift.split is None and drift.sides[0] == drift.sides[1]
    assert drift.compared == len(PROMPT) + 5  # the last token never entered the model


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("eager", ("eager", "auto", "auto")),
        ("eager:float32", ("eager", "auto", "float32")),
        ("eager@cuda", ("eager", "cuda", "auto")),
        ("eager@cuda:1", ("eager", "cuda:1", "auto")),
        ("my-backend@cuda:1:bfloat16", ("my-backend", "cuda:1", "bfloat16")),
        ("eager@cuda:bfloat16", ("eager", "cuda", "bfloat16")),
    ],
)
def test_spelling(text: str, read: tuple[str, str, str]) -> None:
    assert Contender.parse(text) == Contender(*read)


@pytest.mark.parametrize(
    "text", ["", "eager@", "eager:", ":float32", "eager@cuda:1:", "eager:1", "a b", "eager@@cpu", "é", "eager\n"]
)
def test_no_spelling(text: str) -> None:
    with pytest.raises(OptionError, match="names no backend; expected BACKEND"):
        Contender.parse(text)


def test_wrong_inputs() -> None:
    with pytest.raises(OptionError, match="no backend 'nope'"):
        run(a=Contender("nope"))
    with pytest.raises(OptionError, match="unknown dtype 'fp8'"):
        run(b=Contender("eager", dtype="fp8"))
    with pytest.raises(OptionError, match="has no device 'cuda:77'"):
        run(b=Contender("eager", "cuda:77"))
    with pytest.raises(PromptError, match="the prompt is empty"):
        run(prompt=())
    with pytest.raises(
        PromptError, match=r"too long to compare.*at most 256 tokens; found 251 of prompt and 6"
    ):  # what the model has positions for
        run(prompt=(1,) * 251)
    with pytest.raises(OptionError, match="needs `weights`"):
        compare(MODELS["moe"], EAGER, EAGER, PROMPT)


def test_a_backend_that_fails(broken: Callable[[str, Mutate], None]) -> None:
    def fail(*args: object, **attrs: object) -> None:
        raise RuntimeError("out of order")

    broken("layers.1.mlp.norm", lambda function: fail)
    with pytest.raises(BackendError, match="backend 'eager' failed: RuntimeError: out of order"):
        run()


def test_a_quantised_model_runs_as_it_is_stored(tmp_path: Path) -> None:
    """onnx takes its weights as they are, and its activations are int8 then: that is judged, and not another model."""
    folder = write_drawn(tmp_path / "model", DENSE)
    quantize_model(folder, read_config(folder), tmp_path / "q", Quantization(4))
    located, graphs = locate(tmp_path / "q"), {}

    def traced(config: Any, choice: Any, *rest: Any) -> Any:
        run = trace(config, choice, *rest)
        graphs[choice.backend] = run.graph
        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ernie_rt.conformance.drift.trace", traced)
        drift = compare(located, Contender("onnx"), REFERENCE, [5, 9, 2, 200, 17], max_new_tokens=3)
    assert drift.verdict != "bug" and all(side.wrong is None for side in drift.sides)
    packed = {name: {w.name for w in graph.weights if w.storage.packed} for name, graph in graphs.items()}
    assert "layers.0.mlp.down" in packed["onnx"] and not packed["reference"]


PICTURE, FILM = sighted.picture(2, 3), sighted.film(4)
SHOWING = (5, 61, *[sighted.PLACEHOLDER] * 6, 62, 9, 63, *[sighted.PLACEHOLDER] * FILM.tokens, 64, 40)
ITEMS = ((2, PICTURE), (11, FILM))


def seen(a: Contender = EAGER, b: Contender = REFERENCE, **options: Any) -> Drift:
    located, given = Located(sighted.config()), {"items": ITEMS, "max_new_tokens": 4, "host": HOST}
    return compare(located, a, b, SHOWING, weights=Synthetic(3), **given | options)


@pytest.mark.parametrize("a", [EAGER, Contender("eager", dtype="bfloat16"), Contender("onnx")], ids=str)
def test_the_tower_is_judged_where_something_is_shown(a: Contender) -> None:
    drift = seen(a)
    assert drift.verdict in ("same", "tie"), drift.reason
    for side in drift.sides:
        scopes = [piece.scope for piece in side.pieces]
        assert scopes.index("vision.layers.1.mlp.residual") < scopes.index("vision.features") < scopes.index("embed")
        assert len(set(scopes)) == len(scopes) and all(piece.own <= OP_LIMIT for piece in side.pieces)


@pytest.mark.parametrize(
    "scope", ["vision.layers.1.mlp.gelu", "vision.spatial.fc1", "vision.features", "layers.2.mlp.vision.experts"]
)
def test_names_the_piece_of_the_tower_that_is_wrong(scope: str, broken: Callable[[str, Mutate], None]) -> None:
    broken(scope, lambda function: lambda *operands, **attrs: function(*operands, **attrs) * 1.5)
    drift = seen()
    assert drift.verdict == "bug" and drift.sides[0].wrong is not None
    assert drift.sides[0].wrong.scope == scope and drift.sides[1].wrong is None


def test_features_of_a_wrong_tower_are_no_fault_of_what_takes_them(broken: Callable[[str, Mutate], None]) -> None:
    broken("vision.patch", lambda function: lambda *operands, **attrs: function(*operands, **attrs) + 0.1)
    pieces = seen().sides[0].pieces
    assert [piece.scope for piece in pieces if piece.wrong] == ["vision.patch"]
    drifts = {piece.scope: piece.drift for piece in pieces if piece.drift is not None}
    assert drifts["vision.features"] > 1e-3 and drifts["embed"] > 1e-3


def test_a_text_for_a_model_that_sees() -> None:
    located = Located(sighted.config())
    drift = compare(located, EAGER, REFERENCE, [5, 9, 40, 2], max_new_tokens=4, weights=Synthetic(3), host=HOST)
    assert drift.verdict == "same" and not any(piece.scope.startswith("vision.") for piece in drift.sides[0].pieces)
