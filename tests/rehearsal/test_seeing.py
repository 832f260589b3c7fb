"""A small model that sees, on real backends: whatever the engine does with pictures, logits are those of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
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
    requests = [replace(request, chunk=chunk) for request in PROMPTS]
    before = model.engine.stats().vision_steps
    for company in ([[each] for each in requests], [requests]):
        for together in company:
            check(model, together, ask(model.engine, *together))
    assert model.engine.stats().vision_steps - before == (0 if before else 5)  # three of the film, and two pictures


def test_beginnings_are_reused(model: Model) -> None:
    for request in PROMPTS:
        request = replace(request, all_logits=False)
        for _ in range(2):
            sequences = ask(model.engine, request)
            check(model, [request], sequences)
        assert sequences[0].reused == len(request.ids) - 1
    request = replace(PROMPTS[0], all_logits=False)
    ask(model.engine, request)
    (other,) = ask(model.engine, replace(request, items=(PlacedItem(2, OTHER),)))
    assert other.reused == 2


def test_features_outlive_preemption() -> None:
    requests = [replace(request, max_new_tokens=30) for request in PROMPTS]
    with load("eager", "float32", max_sequences=4, cache_tokens=CONTEXT, feature_bytes=1) as model:
        alone = [ask(model.engine, request)[0].generated for request in requests]
        before = model.engine.stats()
        assert [sequence.generated for sequence in ask(model.engine, *requests)] == alone
        after = model.engine.stats()
    assert after.preemptions > before.preemptions and after.vision_steps - before.vision_steps == 3


def check(model: Model, requests: Sequence[Request], sequences: Sequence[SequenceState]) -> None:
    for request, sequence in zip(requests, sequences, strict=True):
        logits, generated = whole([each.ids for each in PROMPTS].index(request.ids))
        assert sequence.generated == generated
        if request.all_logits:
            assert error(np.concatenate(sequence.logits), logits) < WITHIN[model.choice.backend]
