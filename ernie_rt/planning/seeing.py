"""What seeing takes: pictures and videos of a request by their sizes alone, what they become, and what that costs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ernie_rt.display import human_bytes, human_count
from ernie_rt.errors import OptionError
from ernie_rt.graph.cost import Bindings, Cost, active_parameters, graph_cost, live_bytes, node_cost, parameters
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import DTYPES
from ernie_rt.modeling.graphs import MAIN, VISION
from ernie_rt.planning.forms import part_of
from ernie_rt.vision.grid import (
    MAX_PIXELS,
    MERGE,
    MIN_PIXELS,
    PATCH,
    VIDEO_MAX_PIXELS,
    VIDEO_MIN_PIXELS,
    Grid,
    grid_of,
    tokens_of,
)

Kind = Literal["image", "video"]
SPELLING: Final[Mapping[Kind, tuple[str, str]]] = {
    "image": (r"(\d{1,6})x(\d{1,6})", "WIDTHxHEIGHT, such as 1920x1080"),
    "video": (r"(\d{1,4})x(\d{1,6})x(\d{1,6})", "FRAMESxWIDTHxHEIGHT, such as 60x1280x720"),
}
SHARES: Final = {"vision experts": "vision experts", "tower": "tower", "resampler": "resampler"}
"""The parts of a model that are there for pictures; the others are text's."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture or a video, as it was given (`60x1280x720`), and its grid in patches once it is resized."""

    kind: Kind
    given: str
    grid: Grid

    @classmethod
    def of(cls, kind: Kind, given: str, max_pixels: int = MAX_PIXELS, min_pixels: int = MIN_PIXELS) -> Shown:
        """One of a size, resized by the size rule where need be; the limits are of pictures. OptionError for what is no
        size, MediaError for one that no model takes."""
        pattern, expected = SPELLING[kind]
        match = re.fullmatch(pattern, given.strip().lower(), re.ASCII)
        if match is None or "0" in (sizes := match.groups()):
            raise OptionError(f"--{kind} is not a size", expected=expected, found=repr(given[:40]))
        *frames, width, height = map(int, sizes)
        if kind == "image":
            return cls(kind, given, grid_of(width, height, min_pixels=min_pixels, max_pixels=max_pixels))
        limits = {"min_pixels": VIDEO_MIN_PIXELS, "max_pixels": VIDEO_MAX_PIXELS}
        return cls(kind, given, grid_of(width, height, max(2, *frames), **limits))

    @property
    def made(self) -> str:
        """The size that it is resized to, and a video's frames, in the same spelling."""
        frames, rows, columns = self.grid
        size = f"{columns * PATCH}x{rows * PATCH}"
        return size if self.kind == "image" else f"{frames}x{size}"

    @property
    def patches(self) -> int:
        return math.prod(self.grid)

    @property
    def tokens(self) -> int:
        return tokens_of(self.grid)

    def pieces(self, max_patches: int) -> Iterator[Grid]:
        """The grids of the steps of the tower that encode it: whole pictures, or pairs of frames."""
        frames, rows, columns = self.grid
        least = min(frames, 2)
        step = max(1, max_patches // (least * rows * columns)) * least
        return ((min(step, frames - start), rows, columns) for start in range(0, frames, step))


def encoding(grid: Grid) -> tuple[tuple[int, Bindings], ...]:
    """Bindings whose costs, so many times, make those of encoding a grid of patches: each frame attends to itself, and
    features are made once."""
    frames, rows, columns = grid
    patches = rows * columns
    return (
        (frames, {"N": patches, "S": patches, "M": patches // MERGE**2, "F": 0}),
        (1, {"N": 0, "S": 0, "M": 0, "F": tokens_of(grid)}),
    )


def encoding_flops(vision: Graph, grid: Grid) -> int:
    """FLOPs of tower and resampler for a grid of patches."""
    return sum(times * graph_cost(vision, bindings).flops for times, bindings in encoding(grid))


def block_costs(vision: Graph, grid: Grid) -> dict[str, tuple[int, Cost]]:
    """What the blocks of tower and resampler cost together for one picture, and how many of each there are.

    A block is what a layer, or a step of the resampler, has: `attention`, `mlp`, `spatial`, `temporal`, `features`.
    """
    bindings = {"N": grid[1] * grid[2], "S": grid[1] * grid[2], "M": tokens_of(grid), "F": tokens_of(grid)}
    costs: dict[str, Cost] = {}
    numbers: dict[str, set[str]] = {}
    for node in vision.nodes:
        layer, block = _block(node.scope)
        numbers.setdefault(block, set()).add(layer)
        costs[block] = costs.get(block, Cost()) + node_cost(node, bindings)
    return {block: (len(numbers[block]), cost) for block, cost in costs.items()}


def _block(scope: str) -> tuple[str, str]:
    """The layer, and the block, of a scope: `3` and `attention` of `vision.layers.3.attention.qkv`."""
    parts = scope.split(".")
    return (parts[2], parts[3]) if parts[1] == "layers" else ("", parts[1])


@dataclass(frozen=True, slots=True)
class Sight:
    """What a model that sees has and takes for it.

    `parameters` are by share: text, vision experts, tower and resampler. `active_parameters` take part in a token of a
    picture, whose features are `feature_bytes`. A picture of at most `max_pixels` becomes `largest_tokens`, and the
    tower has `activation_bytes` alive for it. `shown` are those of a request, with the FLOPs that encode each.
    """

    parameters: Mapping[str, int]
    active_parameters: int
    feature_bytes: int
    max_pixels: int
    largest_tokens: int
    activation_bytes: int
    shown: tuple[tuple[Shown, int], ...]

    @classmethod
    def of(cls, graphs: Mapping[str, Graph], shown: Sequence[Shown], max_pixels: int) -> Sight:
        main, vision = graphs[MAIN], graphs[VISION]
        shares = dict.fromkeys(("text", *SHARES), 0)
        for weight in {weight.name: weight for graph in graphs.values() for weight in graph.weights}.values():
            if weight.storage.stored:
                shares[SHARES.get(part_of(weight), "text")] += weight.type.elements()
        features = vision.output("features").type
        tokens = max_pixels // (PATCH * MERGE) ** 2
        patches = tokens * MERGE**2
        assert sum(shares.values()) == parameters(main, vision)
        return cls(
            parameters=shares,
            active_parameters=active_parameters(main, vision=True),
            feature_bytes=features.elements({"F": 1}) * DTYPES["bfloat16"].size,
            max_pixels=max_pixels,
            largest_tokens=tokens,
            activation_bytes=live_bytes(vision, {"N": patches, "S": patches, "M": tokens, "F": tokens}),
            shown=tuple((each, encoding_flops(vision, each.grid)) for each in shown),
        )

    def lines(self, kv_bytes: int) -> list[str]:
        """For people; a token takes `kv_bytes` of the cache."""
        shares = ", ".join(f"{share} {human_count(count)}" for share, count in self.parameters.items())
        return [
            f"sees: {shares}; {human_count(self.active_parameters)} active in a token of a picture",
            f"a picture of {self.max_pixels / 1e6:.2g} megapixels, the largest that is taken in: "
            f"{self.largest_tokens:,} tokens, cache {human_bytes(self.largest_tokens * kv_bytes)}, features "
            f"{human_bytes(self.largest_tokens * self.feature_bytes)}, activations of the tower "
            f"{human_bytes(self.activation_bytes)}",
        ]

    def table(self, kv_bytes: int) -> list[list[str]]:
        """What becomes of the pictures and videos of the request, a line each under a header."""
        header = ["SHOWN", "SIZE", "RESIZED", "PATCHES", "TOKENS", "TOWER, RESAMPLER", "CACHE", "FEATURES"]
        return [header] + [
            [
                each.kind,
                each.given,
                each.made,
                f"{each.patches:,}",
                f"{each.tokens:,}",
                f"{flops / 1e12:,.2f} TFLOPs",
                human_bytes(each.tokens * kv_bytes),
                human_bytes(each.tokens * self.feature_bytes),
            ]
            for each, flops in self.shown
        ]

    def to_json(self, kv_bytes: int) -> dict[str, Any]:
        """For programs; a token takes `kv_bytes` of the cache."""
        return {
            "parameters": dict(self.parameters),
            "active_parameters": self.active_parameters,
            "max_pixels": self.max_pixels,
            "largest_tokens": self.largest_tokens,
            "largest_kv_bytes": self.largest_tokens * kv_bytes,
            "largest_feature_bytes": self.largest_tokens * self.feature_bytes,
            "largest_activation_bytes": self.activation_bytes,
            "shown": [
                {
                    "kind": each.kind,
                    "given": each.given,
                    "made": each.made,
                    "patches": each.patches,
                    "tokens": each.tokens,
                    "flops": flops,
                    "kv_bytes": each.tokens * kv_bytes,
                    "feature_bytes": each.tokens * self.feature_bytes,
                }
                for each, flops in self.shown
            ],
        }
