"""The graphs of a model that sees: what they take in, what may change what, and where they can be tapped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ernie_rt.build import Build, build
from ernie_rt.contract.protocols import Limits, Target
from ernie_rt.contract.step import Step
from ernie_rt.errors import OptionError
from ernie_rt.host import PluginHost
from ernie_rt.modeling.ernie45 import as_stored, columns_of
from ernie_rt.modeling.graphs import build_graphs, weights_of
from ernie_rt.vision.patches import vision_inputs
from ernie_rt.weights.synthetic import Synthetic
from support.configs import small
from support.sighted import PLACEHOLDER, config

CONFIG = config()
HOST = PluginHost()


def built(**options: Any) -> Build:
    return build(CONFIG, HOST.backend("reference"), Target(("cpu",), "float64"), **options)


def frames(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 56, 3), np.uint8)


def see(*videos: Any, **options: Any) -> dict[str, Any]:
    """What one step of the graph `vision` gives for each of some videos, by the tap's name."""
    executable = built(**options).compile(Synthetic(), Limits(16, 1))
    steps = [executable.submit(Step.without_tokens("vision", vision_inputs(video))) for video in videos]
    return {name: [step.result().taps[name] for step in steps] for name in steps[0].result().taps}


def test_inputs() -> None:
    graphs = build_graphs(CONFIG)
    assert graphs.keys() == {"main", "vision"}
    assert [str(value.type) for value in graphs["main"].inputs if value.name in ("positions", "features")] == [
        "i32[N, 3]", "bf16[F, 32]",
    ]  # fmt: skip
    assert [str(value.type) for value in graphs["vision"].inputs] == [
        "f32[S, 588]", "i32[S, 2]", "i32[S]", "i32[M, 4]", "i32[F, 2]",
    ]  # fmt: skip
    weights = weights_of(graphs)
    assert str(weights["vision.patch.weight"].type) == "bf16[32, 588]"
    assert str(weights["layers.1.mlp.vision.experts.gate_up"].type) == "bf16[6, 8, 2, 32]"


def test_height_and_width_take_turns_and_time_comes_last() -> None:
    assert CONFIG.vision is not None
    assert columns_of(CONFIG.vision) == (1, 2, 1, 2, 1, 2, 0, 0)
    assert columns_of(replace(CONFIG.vision, mrope_section=(22, 22, 20))) == (1, 2) * 22 + (0,) * 20


def test_without_a_tower_among_the_stored_weights_a_model_does_not_see() -> None:
    weights = weights_of(build_graphs(CONFIG))
    stored = {name: weight.storage for name, weight in weights.items() if weight.storage.stored}
    text = {name: storage for name, storage in stored.items() if "vision" not in name}
    assert as_stored(CONFIG, stored) == as_stored(CONFIG, {}) == CONFIG
    assert as_stored(CONFIG, text) == CONFIG.text_alone and build_graphs(CONFIG, storages=text).keys() == {"main"}
    assert small().text_alone == small()


def test_a_frame_is_seen_by_itself() -> None:
    """What is in a frame changes the features of its pair alone, and a picture is a video of it twice."""
    video = frames(4)
    other = video.copy()
    other[0] = frames(1, seed=1)[0]
    one, changed, halves, picture, twice = see(
        video, other, video[2:], video[:1], np.repeat(video[:1], 2, axis=0)
    )["features"]  # fmt: skip
    assert one.shape == (4, 32) and np.isfinite(one).all() and 0.1 < one.std() < 10
    np.testing.assert_array_equal(one[2:], changed[2:])
    assert (one[:2] != changed[:2]).any(axis=1).all()
    np.testing.assert_allclose(one[2:], halves, rtol=1e-12)
    np.testing.assert_allclose(picture, twice, rtol=1e-12)


def test_taps_lie_in_both_graphs() -> None:
    taps = ("vision.layers.0.mlp.fc1", "layers.1.mlp.vision.route", "vision.norm")
    made = built(taps=taps)
    assert [name for name, _ in made.lowerings["vision"].taps] == [taps[0], taps[2], "features"]
    assert [name for name, _ in made.lowering.taps] == [taps[1]]
    found = see(frames(1), taps=taps)
    assert found["vision.layers.0.mlp.fc1"][0].shape == (8, 64) and found["features"][0].shape == (2, 32)
    with pytest.raises(OptionError, match=r"no scope 'vision\.nowhere' to tap"):
        built(taps=("vision.nowhere",))


def test_each_pool_tells_which_tokens_it_served() -> None:
    made = built(routing=True)
    assert [router.scope for router in made.routers] == [
        f"layers.{layer}.mlp.{pool}route" for layer in (1, 2) for pool in ("", "vision.")
    ]
    step = Step.whole([[5, PLACEHOLDER, 6]])
    given = {
        "positions": np.repeat(step.positions, 3, axis=1),
        "features": np.zeros((1, 32)),
        "features_row": np.zeros(3, np.int32),
    }
    taps = made.compile(Synthetic(), Limits(16, 1)).submit(replace(step, extra=given)).result().taps
    for router, served in zip(made.routers, ([True, False, True], [False, True, False]) * 2, strict=True):
        assert (taps[router.ids] >= 0).all(axis=1).tolist() == served
        assert (taps[router.ids] < 0).all(axis=1).tolist() == [not each for each in served]
