"""A small model that sees, on real backends: whatever the engine does with pictures, logits are those of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pytest

import ernie_rt
from ernie_rt.location import Located
from ernie_rt.modeling.config import parse_config
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.inputs import PerToken
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.session import Model
from ernie_rt.vision.item import Item
from ernie_rt.vision.positions import rope_positions
from support.rehearsal import Weights, error
from support.vision_language import IMAGE, MARKERS, TEXT, TOWER

CONTEXT = 96
CONFIG = parse_config(
    {
        "model_type": "ernie4_5_vl_moe",
        "text_config": TEXT | {"model_type": "ernie4_5_vl_moe_text", "dtype": "float32"},
        "vision_config": TOWER | {"patch_size": 14},
        "image_token_id": IMAGE,
        "video_token_id": 194,
        "tie_word_embeddings": False,
        **MARKERS,
    },
    "config.json",
)
WITHIN = {"reference": 1e-12, "eager": 2e-5, "onnx": 2e-5}

Part = Sequence[int] | Item


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


PICTURE = Item.of("image", pixels(0, 1, 56, 84, 3))
OTHER = Item.of("image", pixels(1, 1, 56, 84, 3))
FILM = Item.of("video", pixels(2, 6, 28, 56, 3))


def shown(*parts: Part, **fields: object) -> Request:
    ids: list[int] = []
    items: list[PlacedItem] = []
    for part in parts:
        if isinstance(part, Item):
            items.append(PlacedItem(len(ids), part))
            ids += [IMAGE] * part.tokens
        else:
            ids += part
    grids = [(placed.start, placed.item.merged) for placed in items]  # type: ignore[attr-defined]
    positions = PerToken(rope_positions(len(ids), grids), "count")
    asked = {"max_new_tokens": 4, "all_logits": True} | fields
    return Request(tuple(ids), inputs={"positions": positions}, items=tuple(items), **asked)  # type: ignore[arg-type]


PROMPTS = (
    shown([3, 190], PICTURE, [191, 7]),
    shown(FILM, [5, 6], OTHER),
    shown([9, 2, 4]),
    shown([1], OTHER, PICTURE, [8, 195]),  # an id of vision that is of no picture
)


@cache
def whole(number: int) -> tuple[np.ndarray, list[int]]:
    """What the reference says on a prompt that enters at once."""
    with load("reference", "float64") as model:
        (sequence,) = ask(model.engine, PROMPTS[number])
        return np.concatenate(sequence.logits), sequence.generated


def load(backend: str, dtype: str, **options: object) -> Model:
    return ernie_rt.load(
        Located(CONFIG), backend=backend, device="cpu", dtype=dtype, weights=Weights(), max_context=CONTEXT, threads=1,
        **options,
    )  # type: ignore[arg-type]  # fmt: skip


def ask(engine: Engine, *requests: Request) -> list[SequenceState]:
    sequences = [engine.submit(request) for request in requests]
    list(engine.run(*sequences))
    return sequences


@pytest.fixture(scope="module", params=["reference", "eager", "onnx"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    pytest.importorskip({"eager": "torch", "onnx": "onnxruntime"}.get(request.param, "numpy"))
    dtype = "float64" if request.param == "reference" else "float32"
    with load(request.param, dtype, max_sequences=4, max_batch_tokens=24, max_patches=24) as loaded:
        yield loaded


@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_chunks_pieces_and_company(model: Model, chunk: int | None) -> None:
    requests = [ernie_rt_replace(request, chunk) for request in PROMPTS]
    steps = model.engine.stats().vision_steps
    for company in ([[each] for each in requests], [requests]):
        for together in company:
            for request, sequence in zip(together, ask(model.engine, *together), strict=True):
                logits, generated = whole(requests.index(request))
                assert sequence.generated == generated
                assert error(np.concatenate(sequence.logits), logits) < WITHIN[model.choice.backend]
    assert model.engine.stats().vision_steps - steps == (4 if steps == 0 else 0)


def ernie_rt_replace(request: Request, chunk: int | None) -> Request:
    from dataclasses import replace

    return replace(request, chunk=chunk)
