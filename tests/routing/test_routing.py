"""Model.routing: the same map on every backend and however a text enters; and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ernie_rt
from ernie_rt.contract.step import Pending, Step, StepResult
from ernie_rt.errors import BackendError, OptionError, PromptError
from ernie_rt.loading import Located
from ernie_rt.reference.backend import ReferenceBackend
from ernie_rt.routing.data import Routing
from ernie_rt.weights.synthetic import Synthetic
from support.configs import small

IDS = [5, 9, 2, 40, 17, 33, 8, 8, 1, 60, 24]
TEXT = "Once there was a white cat. One day it found 5公里 of wool"


def synthetic(**options: Any) -> ernie_rt.Model:
    fields = {"head_dim": 16} | options.pop("fields", {})
    given: dict[str, Any] = {"weights": Synthetic(3), "backend": "reference", "threads": 1, "routing": True}
    return ernie_rt.load(Located(small(**fields)), **given | options)


def map_of(**options: Any) -> Routing:
    with synthetic(**options) as model:
        return model.routing(IDS)


def assert_same(found: Routing, expected: Routing) -> None:
    """The same experts with the same weights; of two that are as good as equal either may come first."""
    assert np.array_equal(found.ids, expected.ids)
    for ours, theirs in zip(found.routers, expected.routers, strict=True):
        assert ours.scope == theirs.scope and ours.experts == theirs.experts
        assert np.array_equal(np.sort(ours.ids), np.sort(theirs.ids))
        weights = [np.take_along_axis(each.weights, np.argsort(each.ids), -1) for each in (ours, theirs)]
        assert np.allclose(*weights, rtol=0, atol=1e-6)
        assert (ours.unbiased is None) == (theirs.unbiased is None)
        if ours.unbiased is not None and theirs.unbiased is not None:
            assert np.array_equal(np.sort(ours.unbiased), np.sort(theirs.unbiased))


@pytest.mark.parametrize("fields", [{}, {"moe_use_aux_free": False}], ids=["bias", "no bias"])
@pytest.mark.parametrize("backend", ["eager", "onnx"])
def test_backends_agree(backend: str, fields: dict[str, object]) -> None:
    assert_same(map_of(backend=backend, dtype="float32", fields=fields), map_of(fields=fields))


@pytest.mark.parametrize("backend", ["reference", "eager", "onnx"])
def test_a_prompt_in_steps_is_the_prompt_at_once(backend: str) -> None:
    assert_same(map_of(backend=backend, dtype="float32", max_batch_tokens=3), map_of(backend=backend, dtype="float32"))


def test_choices_follow_from_the_router_alone() -> None:
    """Its input, tapped, through the definition of a router written out here."""
    weights = {}

    class Watched(Synthetic):
        def fill(self, weight: Any, part: str, out: Any, index: tuple[int, ...] = ()) -> None:
            super().fill(weight, part, out, index)
            weights.setdefault(weight.name, np.array(out, np.float64))

    scopes = ["layers.1.mlp", "layers.2.mlp"]
    with synthetic(weights=Watched(3), taps=[f"{scope}.norm" for scope in scopes]) as model:
        routing, tapped = model.routing(IDS), model.tapped(IDS)
    for scope, routes in zip(scopes, routing.routers, strict=True):
        scores = tapped[f"{scope}.norm"].astype(np.float64) @ weights[f"{scope}.gate"].T
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        chosen = np.argsort(-(p + weights[f"{scope}.correction_bias"]), kind="stable")[:, :2]
        of_chosen = np.take_along_axis(p, chosen, -1)
        assert routes.scope == f"{scope}.route" and np.array_equal(routes.ids, chosen)
        assert np.allclose(routes.weights, of_chosen / of_chosen.sum(-1, keepdims=True), rtol=0, atol=1e-6)
        assert routes.unbiased is not None
        assert np.array_equal(routes.unbiased, np.argsort(-p, kind="stable")[:, :2])


def test_the_demo_on_every_backend() -> None:
    """No choice here is a tie: the last expert taken is 3e-5 ahead of the first one left, where float32 moves scores
    by about 1e-7."""
    maps = []
    for backend in ("reference", "eager", "onnx"):
        with ernie_rt.load(
            "demo", backend=backend, device="cpu", dtype="float32", threads=1, max_context=64, routing=True
        ) as model:
            maps.append(model.routing(TEXT))
    assert len(maps[0].routers) == 5 and maps[0].load.routers[0].moved > 0
    for each in maps[1:]:
        assert_same(each, maps[0])


def test_other_answers_are_as_ever() -> None:
    with synthetic(backend="eager", dtype="float32") as model:
        logits, tokens = model.logits(IDS), model.generate_ids(IDS, max_new_tokens=5)
    with synthetic(backend="eager", dtype="float32", routing=False) as model:
        assert np.allclose(model.logits(IDS), logits, atol=1e-5)
        assert model.generate_ids(IDS, max_new_tokens=5) == tokens


def test_a_dense_model_is_refused() -> None:
    with pytest.raises(OptionError, match=r"a dense model has no router.*found model_type ernie4_5"):
        synthetic(fields={"model_type": "ernie4_5"})


def test_a_model_that_was_not_asked_to_tell() -> None:
    with synthetic(routing=False) as model, pytest.raises(OptionError, match="Load it with routing=True"):
        model.routing(IDS)


def test_prompts_that_are_none() -> None:
    with synthetic() as model:
        for ids, problem in (([], "empty"), ([61], "outside the vocabulary"), ([-1], "outside the vocabulary")):
            with pytest.raises(PromptError, match=problem):
                model.routing(ids)


class Changed:
    """A backend's executable that hands back other taps."""

    def __init__(self, inner: Any, change: Any) -> None:
        self.inner = inner
        self.change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def submit(self, step: Step) -> Pending:
        result = self.inner.submit(step).result()
        taps = {name: value for name, value in self.change(dict(result.taps)).items() if value is not None}

        class Done:
            def result(self) -> StepResult:
                return StepResult(result.logits, result.tokens, result.counts, taps)

        return Done()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda taps: {}, "hands back no taps"),
        (lambda taps: taps | {"layers.2.mlp.route:1": None}, "layers.2.mlp.route:1: backend 'reference' hands back no"),
        (lambda taps: taps | {"layers.1.mlp.route": taps["layers.1.mlp.route"] + 5}, "experts that are not there"),
        (lambda taps: taps | {"layers.1.mlp.route.unbiased": taps["layers.1.mlp.route"][:, :1]}, r"\[11, 2\] ids"),
        (lambda taps: taps | {"layers.1.mlp.route:1": taps["layers.1.mlp.route:1"][:, :1]}, "that it did not choose"),
        (lambda taps: taps | {"layers.1.mlp.route:1": taps["layers.1.mlp.route:1"] * np.nan}, "by what is no number"),
        (lambda taps: taps | {"layers.1.mlp.route": taps["layers.1.mlp.route"][:0]}, r"\[0, 2\] ids"),
    ],
)
def test_a_backend_that_tells_nonsense(monkeypatch: pytest.MonkeyPatch, change: Any, problem: str) -> None:
    compiled = ReferenceBackend.compile
    monkeypatch.setattr(ReferenceBackend, "compile", lambda *given: Changed(compiled(*given), change))
    with synthetic() as model, pytest.raises(BackendError, match=problem):
        model.routing(IDS)
