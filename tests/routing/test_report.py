"""The JSON of a routing says what its arrays say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ernie_rt.routing.data import Balance
from support.routings import PIECES, made


@pytest.mark.parametrize("biased", [True, False])
def test_json_of_a_text(biased: bool) -> None:
    report = made(biased=biased)
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert told["schema"] == 1 and told["model"] == "a model" and told["backend"] == "eager"
    assert (told["texts"], told["token_count"]) == (1, 6)
    assert report.routing is not None
    for place, load in enumerate(report.load.routers):
        row, routes = told["routers"][place], report.routing.routers[place]
        assert row["layer"] == routes.layer and row["scope"] == routes.scope and row["experts"] == 8
        assert row["counts"] == load.counts.tolist() and row["unused"] == load.unused.tolist()
        assert 7 in row["unused"] and sum(row["counts"]) == 12
        assert row["entropy"] == load.balance.entropy and row["largest_share"] == load.shares.max()
        assert (row["bias"] is None) == (not biased)
        if load.unbiased is not None:
            assert row["bias"]["moved"] == load.moved > 0 and row["bias"]["moved_share"] == load.moved / 6
            assert row["bias"]["counts_without"] == load.unbiased.tolist()
            assert row["bias"]["variation_without"] == Balance.of(load.unbiased).variation
        for token, told_token in enumerate(told["tokens"]):
            route = told_token["routes"][place]
            assert told_token["id"] == token and told_token["text"] == PIECES[token]
            assert route["experts"] == routes.ids[token].tolist()
            assert np.allclose(route["weights"], routes.weights[token], rtol=0, atol=1e-7)
            without = None if routes.unbiased is None else routes.unbiased[token].tolist()
            assert route["experts_without_bias"] == without


def test_about() -> None:
    assert made(1).about == "a model on eager, cpu, float32: 1 token"
    assert made(1000, summed=True).about == "a model on eager, cpu, float32: 2 texts, 2,000 tokens"


def test_json_of_several_texts_has_no_tokens() -> None:
    told = made(summed=True).to_json()
    assert told["tokens"] is None and told["texts"] == 2 and told["token_count"] == 12
    assert sum(told["routers"][0]["counts"]) == 24


def test_json_of_a_router_that_was_given_nothing() -> None:
    report = made()
    assert report.routing is not None
    routes = report.routing.routers[0]
    routes.ids[:] = -1
    assert routes.unbiased is not None
    routes.unbiased[:] = -1
    told = made().to_json()["routers"][0]
    empty = type(report)("m", "b", "d", "t", report.routing.load).to_json()["routers"][0]
    assert empty["tokens"] == 0 and empty["entropy"] is None and empty["peak"] is None and told["entropy"] is not None
    assert empty["unused"] == list(range(8))
