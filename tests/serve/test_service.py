"""A server's phases, its ids and its log, and what it tells of itself."""

from __future__ import annotations

import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ernie_rt import Model
from ernie_rt.errors import BackendError
from ernie_rt.generation.defaults import Defaults
from ernie_rt.generation.options import GenerateOptions
from ernie_rt_serve.app import ENTRIES, make_app
from ernie_rt_serve.service import FAILURES
from support.serving import SETTINGS, Served, ask, run, said, scripted_app

CHAT = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "secret words"}]}


def test_while_the_model_loads() -> None:
    async def body() -> None:
        app = make_app(None, SETTINGS)
        assert (await ask(app, "GET", "/health")).json == {"status": "ok"}
        ready = await ask(app, "GET", "/ready")
        assert (ready.status, ready.json) == (503, {"status": "loading"})
        for path in (CHAT, "/tokenize", "/v1/completions"):
            reply = await ask(app, "POST", path, ASK if path == CHAT else {"prompt": "x"})
            assert (reply.status, reply.error["code"]) == (503, "loading") and int(reply.headers["retry-after"]) >= 1
        for path in ("/v1/models", "/stats"):
            assert (await ask(app, "GET", path)).status == 503
        assert (await ask(app, "GET", "/metrics")).status == 200

    run(body)


def test_failures_in_a_row_are_told_to_who_sends_requests(demo: Model, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        app, _ = scripted_app(demo, *[[BackendError("out of memory")]] * FAILURES, said("a"))
        for _ in range(FAILURES):
            assert (await ask(app, "GET", "/ready")).status == 200
            assert (await ask(app, "POST", CHAT, ASK)).status == 500
        assert (await ask(app, "GET", "/ready")).json == {"status": "failing"}
        assert (await ask(app, "POST", CHAT, ASK)).status == 200, "and who asks is served"

    run(body)
    assert caplog.text.count("out of memory") >= FAILURES


def test_ids_of_requests_go_in_and_out(demo: Model, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def body() -> None:
        app, _ = scripted_app(demo, said("an answer"))
        reply = await ask(app, "POST", CHAT, ASK, {"x-request-id": "mine-1"})
        assert reply.headers["x-request-id"] == "mine-1"
        for wrong in ("", "a b", "x" * 129, "a\nb", "é"):
            drawn = (await ask(app, "GET", "/health", headers={"x-request-id": wrong})).headers["x-request-id"]
            assert drawn != wrong and len(drawn) == 32
        assert (await ask(app, "GET", "/a\nb\x1b[0m")).status == 404

    run(body)
    lines = [record.getMessage() for record in caplog.records if record.name == "ernie_rt_serve.requests"]
    assert lines[0].startswith("mine-1 POST /v1/chat/completions 200 ") and lines[0].endswith("key none")
    assert "/a\\nb\\x1b[0m 404" in lines[-1]
    assert "secret" not in caplog.text and "an answer" not in caplog.text


def test_metrics(demo: Model, server: Served) -> None:
    async def body() -> None:
        app, served = scripted_app(demo, said("a", "b", "c"), said("d", finish="length"), [BackendError("x")])
        served.stats = demo.engine.stats  # type: ignore[attr-defined]
        for _ in range(3):
            await ask(app, "POST", CHAT, ASK)
        told = (await ask(app, "GET", "/metrics")).body.decode()
        values = {
            (sample.name, sample.labels.get("finished_reason")): sample.value
            for family in text_string_to_metric_families(told)
            for sample in family.samples
        }
        ends = {reason: values["ernie_rt:request_success_total", reason] for reason in ("stop", "length", "error")}
        assert ends == {"stop": 1, "length": 1, "error": 1}
        assert values["ernie_rt:time_to_first_token_seconds_count", None] == 2
        assert values["ernie_rt:request_queue_time_seconds_sum", None] == 0.5
        assert values["ernie_rt:inter_token_latency_seconds_count", None] == 2
        assert values["ernie_rt:time_per_output_token_seconds_count", None] == 1
        assert values["ernie_rt:request_generation_tokens_sum", None] == 4
        for name in (
            "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prompt_tokens_total",
            "generation_tokens_total", "prefix_cache_queries_total", "prefix_cache_hits_total",
            "num_preemptions_total", "e2e_request_latency_seconds_count", "request_prompt_tokens_count",
        ):  # fmt: skip
            assert (f"ernie_rt:{name}", None) in values, name
        stats = (await ask(app, "GET", "/stats")).json
        assert stats["model"] == "demo" and stats["max_context"] == demo.capacity
        assert set(stats["time_to_first_token_seconds"]) == {"p50", "p95"}
        assert stats["generation_tokens_total"] == demo.engine.stats().generated_tokens

    run(body)


def test_it_describes_itself(demo: Model) -> None:
    async def body() -> None:
        app, _ = scripted_app(demo)
        told = (await ask(app, "GET", "/openapi.json")).json
        assert told["openapi"].startswith("3.")
        assert set(told["paths"]) == {entry.path.replace(":path", "") for entry in ENTRIES}
        chat = told["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert chat["$ref"].removeprefix("#/components/schemas/") in told["components"]["schemas"]
        assert told["paths"]["/health"]["get"]["security"] == [] and "security" not in told["paths"][CHAT]["post"]

    run(body)


def test_texts_to_tokens_and_back(demo: Model) -> None:
    async def body() -> None:
        app, _ = scripted_app(demo)
        text = "5 kilograms 公斤"
        told = (await ask(app, "POST", "/tokenize", {"prompt": text, "return_token_strs": True})).json
        assert told["tokens"] == demo.tokenizer.encode(text) and told["count"] == len(told["tokens"])
        assert told["max_model_len"] == demo.capacity and len(told["token_strs"]) == told["count"]
        back = (await ask(app, "POST", "/detokenize", {"tokens": told["tokens"]})).json
        assert back == {"prompt": text}
        talk = (await ask(app, "POST", "/tokenize", ASK)).json
        assert demo.template is not None
        assert talk["tokens"] == list(demo.template.prompt(ASK["messages"], demo.tokenizer).ids)
        for wrong in ({}, {"prompt": "x", **ASK}, {"messages": []}, {"prompt": 1}, {"prompt": "x", "model": "y"}):
            assert (await ask(app, "POST", "/tokenize", wrong)).status in (400, 404)
        for tokens in ([-1], [10**9], ["a"], None):
            assert (await ask(app, "POST", "/detokenize", {"tokens": tokens})).status == 400

    run(body)


def test_a_card_says_how_a_model_samples_by_default(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    options = GenerateOptions(temperature=0.8, top_p=0.9, stop_ids=(2,))
    monkeypatch.setattr(type(demo), "defaults", property(lambda self: Defaults(options)))

    async def body() -> None:
        app, _ = scripted_app(demo)
        (card,) = (await ask(app, "GET", "/v1/models")).json["data"]
        assert card["defaults"] == {"temperature": 0.8, "top_p": 0.9}

    run(body)
