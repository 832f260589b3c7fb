"""What the largest step has in hand, of models that see."""

from __future__ import annotations

from dataclasses import replace

from ernie_rt.contract.planner import activation_bytes
from ernie_rt.contract.protocols import Limits
from ernie_rt.modeling.families import find
from ernie_rt.modeling.graphs import MAIN, VISION, build_graphs


def test_a_vision_step_is_as_large_as_max_patches() -> None:
    family = find("VL-28B-A3B")
    assert family is not None and family.config.vision is not None
    vision = family.config.vision
    shallow = replace(family.config, vision=replace(vision, tower=replace(vision.tower, depth=2)))
    graphs, limits = build_graphs(shallow), Limits(32_768)
    main = activation_bytes({MAIN: graphs[MAIN]}, limits)
    largest = activation_bytes(graphs, limits)
    assert largest == activation_bytes({VISION: graphs[VISION]}, limits) > main
    assert 20_000 < largest / limits.max_patches < 25_000  # q, k and v or what an MLP widens to, in 16 bits
    assert activation_bytes(graphs, replace(limits, max_patches=limits.max_patches // 4)) == largest / 4
    assert activation_bytes(graphs, replace(limits, max_patches=4)) == main
