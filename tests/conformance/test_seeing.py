"""An engine that mixes pictures up is seen by the suite, whatever the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ernie_rt.conformance.suite import Suite
from ernie_rt.runtime.encoder import Encoder
from ernie_rt.runtime.sequence import SequenceState


def failed(name: str) -> str:
    (check,) = (each for each in Suite("reference").checks(["L3"]) if str(each) == name)
    result = check.run()
    return result.reason if result.status == "failed" else ""


def test_rows_found_by_ids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SequenceState, "_shown", lambda self, count: np.zeros((count, 20), np.uint8))
    assert "rows of another picture are taken" in failed("L3/vl/pictures")


def test_pictures_encoded_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SequenceState, "has_rows", lambda self, start, stop: False)
    assert "a picture is encoded whose rows are in the cache" in failed("L3/vl/pictures")


def test_a_checkpoint_is_shown_pictures_too() -> None:
    found = {str(each): each for each in Suite("reference", model="demo-vl").checks(["L3"])}
    for name in ("pictures", "text"):
        result = found[f"L3/demo-vl/{name}"].run()
        assert result.status == "passed", result.reason


@pytest.mark.parametrize("name", ["L3/vl/chunks", "L3/vl/steps"])
def test_features_cut_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: Callable[..., dict[str, Any]] = Encoder.cut

    def from_the_first(self: Encoder, sequences: Any, spans: Any) -> dict[str, Any]:
        """Those of the beginning of an item, whatever part of it a chunk has."""
        found = cut(self, sequences, spans)
        for sequence in sequences:
            for placed in sequence.request.items:
                rows = sequence.features[placed.item.digest].rows
                if len(found["features"]) == 1 + placed.item.tokens:
                    return found
                found["features"][1:2] = rows[:1]
        return found

    monkeypatch.setattr(Encoder, "cut", from_the_first)
    assert "logits are off" in failed(name)
