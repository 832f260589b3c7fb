"""OpenAI's own client, on the demo model, whose answers mean something."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Literal

import openai
import pytest
from pydantic import BaseModel

from ernie_rt import Model
from support.serving import Served

GRAMS = [{"role": "user", "content": "How many grams are in 5 kilograms?"}]
ANSWER = "5 kilograms = 5000 grams"


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_conversation(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=GRAMS)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", ANSWER)
    assert choice.finish_reason == "stop" and choice.logprobs is None and choice.message.tool_calls is None
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion" and answer.model == "demo"
    assert answer.system_fingerprint and abs(answer.created - time.time()) < 60
    assert answer._request_id
    again = client.chat.completions.create(model="demo", messages=GRAMS)
    assert again.system_fingerprint == answer.system_fingerprint and again.id != answer.id
    used = again.usage
    assert used is not None and used.total_tokens == used.prompt_tokens + used.completion_tokens
    assert used.prompt_tokens_details is not None and used.completion_tokens_details is not None
    assert 0 < used.prompt_tokens_details.cached_tokens < used.prompt_tokens
    assert used.completion_tokens_details.reasoning_tokens == 0


def test_a_stream_says_what_the_whole_says(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=GRAMS, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert last.choices == [] and last.usage is not None
    whole = client.chat.completions.create(model="demo", messages=GRAMS).usage
    assert whole is not None and last.usage.completion_tokens == whole.completion_tokens
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_a_stream_without_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="demo", messages=GRAMS, stream=True, max_completion_tokens=3))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_several_answers_share_a_prompt_and_differ(client: openai.OpenAI) -> None:
    ask = {"model": "demo", "messages": GRAMS, "n": 4, "temperature": 3.0, "seed": 5, "max_tokens": 8}
    answer = client.chat.completions.create(**ask)  # type: ignore[call-overload]
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3] and len(set(texts)) == 4
    one = client.chat.completions.create(**ask | {"n": 1})
    assert one.choices[0].message.content == texts[0] and answer.usage.prompt_tokens == one.usage.prompt_tokens
    streamed = ["", "", "", ""]
    for chunk in client.chat.completions.create(**ask, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_a_seed_gives_the_same_answer_again(client: openai.OpenAI) -> None:
    def answer(seed: int) -> str | None:
        asked = client.chat.completions.create(model="demo", messages=GRAMS, temperature=2.0, seed=seed, max_tokens=12)
        return asked.choices[0].message.content

    assert answer(-3) == answer(-3) != answer(4)


def test_log_probabilities(client: openai.OpenAI, demo: Model) -> None:
    ask = {"model": "demo", "messages": GRAMS, "logprobs": True, "top_logprobs": 3}
    (choice,) = client.chat.completions.create(**ask).choices  # type: ignore[call-overload]
    content = choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in content).decode().startswith(ANSWER)
    for token in content:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        assert token.top_logprobs[0].token == token.token and token.top_logprobs[0].logprob == token.logprob
    streamed = [
        token
        for chunk in client.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert [token.token for token in streamed] == [token.token for token in content]


def test_a_stop_string_ends_an_answer(client: openai.OpenAI) -> None:
    (choice,) = client.chat.completions.create(model="demo", messages=GRAMS, stop="= 5").choices
    assert (choice.message.content, choice.finish_reason) == ("5 kilograms ", "stop")
    (choice,) = client.chat.completions.create(model="demo", messages=GRAMS, stop=["grams", "kilo"]).choices
    assert choice.message.content == "5 "


def test_biases_change_the_answer(client: openai.OpenAI, demo: Model) -> None:
    (banned,) = demo.tokenizer.encode("5")
    (choice,) = client.chat.completions.create(
        model="demo", messages=GRAMS, logit_bias={str(banned): -100}, max_tokens=8
    ).choices
    assert "5" not in (choice.message.content or "5")


def test_texts_and_ids_are_continued(client: openai.OpenAI, demo: Model) -> None:
    prompt = "User: How many grams are in 5 kilograms?\nAssistant:"
    ids = demo.tokenizer.encode(prompt)
    one = client.completions.create(model="demo", prompt=prompt, max_tokens=12)
    assert one.id.startswith("cmpl-") and one.choices[0].text.strip().startswith("5 kilo")
    assert client.completions.create(model="demo", prompt=ids, max_tokens=12).choices[0].text == one.choices[0].text
    assert one.usage is not None and one.usage.prompt_tokens == len(ids)
    several = client.completions.create(model="demo", prompt=[prompt, "5 kg"], max_tokens=12, n=2, echo=True)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == prompt + one.choices[0].text
    assert several.choices[2].text.startswith("5 kg")
    chunks = client.completions.create(model="demo", prompt=prompt, max_tokens=12, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == prompt + one.choices[0].text
    assert len(client.completions.create(model="demo", prompt="5 kg").choices[0].text) > 0
    batch = client.completions.create(model="demo", prompt=[ids, ids[:3]], max_tokens=2)
    assert len(batch.choices) == 2


def test_log_probabilities_of_a_continuation(client: openai.OpenAI) -> None:
    (choice,) = client.completions.create(model="demo", prompt="5 kilograms =", logprobs=2, max_tokens=6).choices
    told = choice.logprobs
    assert told is not None and told.tokens is not None and told.text_offset is not None
    assert "".join(told.tokens) == choice.text and len(told.top_logprobs or ()) == 6
    assert [choice.text[at:][: len(token)] for at, token in zip(told.text_offset, told.tokens, strict=True)] == (
        told.tokens
    )


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").owned_by == "ernie-rt"
    with pytest.raises(openai.NotFoundError, match="ask for 'demo'"):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"n": 10**6}, "n"),
        ({"n": -1}, "n"),
        ({"n": 2.5}, "n"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 10**12}, None),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["x"] * 10**4}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": "x" * 257}, "stop"),
        ({"logit_bias": {str(n): 1 for n in range(10**4)}}, "logit_bias"),
        ({"logit_bias": {"1000000000": 1}}, "logit_bias"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 1e308}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**64}, "seed"),
        ({"extra_body": {"min_p": 2}}, "min_p"),
        ({"extra_body": {"chat_template": "{{ 1 }}"}}, "chat_template"),
        ({"extra_body": {"guided_choice": ["a"]}}, "guided_choice"),
        ({"extra_body": {"grammar": "root ::= x"}}, "grammar"),
        ({"extra_body": {"chat_template_kwargs": {"a": 1}}}, "chat_template_kwargs"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": [{"role": "user", "content": "long " * 1000}]}, None),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),  # the demo model's template has none
        ({"tool_choice": "required"}, "tool_choice"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named(client: openai.OpenAI, wrong: dict[str, object], param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "demo", "messages": GRAMS} | wrong)  # type: ignore[call-overload]
    error = caught.value
    assert (error.type, error.param) == ("invalid_request_error", param) and len(str(error)) < 2500


@pytest.mark.parametrize(
    "prompt", ["", [], [[]], [-1], [10**6], [2**63], ["a"] * 65, ["a", [1]], [1, "a"], [True], {"a": 1}, None], ids=str
)
def test_impossible_prompts(client: openai.OpenAI, prompt: object) -> None:
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="demo", prompt=prompt)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "wrong", [{"echo": True, "logprobs": 1}, {"suffix": "x"}, {"best_of": 3}, {"logprobs": 21}, {"n": 16}], ids=str
)
def test_what_continuations_have_not(client: openai.OpenAI, wrong: dict[str, object]) -> None:
    with pytest.raises(openai.BadRequestError):
        client.completions.create(**{"model": "demo", "prompt": ["a"] * 5} | wrong)  # type: ignore[call-overload]


@pytest.mark.parametrize("tokens", [{"max_tokens": 513}, {"max_completion_tokens": 10**12}], ids=str)
def test_what_the_context_cannot_hold_has_a_code(client: openai.OpenAI, tokens: dict[str, int]) -> None:
    with pytest.raises(openai.BadRequestError, match="at most 512 tokens") as caught:
        client.chat.completions.create(model="demo", messages=GRAMS, **tokens)  # type: ignore[call-overload]
    assert caught.value.code == "context_length_exceeded" and "max_new_tokens" not in str(caught.value)


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=GRAMS)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_client_that_leaves_takes_its_request_with_it(client: openai.OpenAI, server: Served) -> None:
    stats = server.service.served.stats
    for _ in range(5):
        with client.chat.completions.create(
            model="demo", messages=GRAMS, stream=True, max_tokens=400, extra_body={"ignore_eos": True}
        ) as stream:
            next(stream)
    deadline = time.monotonic() + 5
    while stats().running and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not stats().running and stats().held_rows == 0
    assert stats().finished["cancelled"] >= 5


def test_fields_that_nobody_reads_are_named(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="demo", messages=GRAMS, user="me", extra_body={"shape": 1, "a\nb": 2}
    )
    assert answer.headers["x-ernie-rt-ignored"] == "?, shape, user"


SCHEMA = {
    "type": "object",
    "properties": {"grams": {"type": "integer"}, "unit": {"enum": ["kg", "lb"]}},
    "required": ["grams", "unit"],
    "additionalProperties": False,
}


def test_an_answer_follows_a_schema(client: openai.OpenAI) -> None:
    wish = {"type": "json_schema", "json_schema": {"name": "weight", "schema": SCHEMA, "strict": True}}
    ask = {"model": "demo", "messages": GRAMS, "max_tokens": 100, "response_format": wish}
    (choice,) = client.chat.completions.create(**ask).choices  # type: ignore[call-overload]
    answer = json.loads(choice.message.content)
    assert isinstance(answer["grams"], int) and answer["unit"] in ("kg", "lb") and choice.finish_reason == "stop"
    chunks = client.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content
    (choice,) = client.chat.completions.create(**ask | {"response_format": {"type": "text"}}).choices
    assert choice.message.content == ANSWER


class Weight(BaseModel):
    grams: int
    unit: Literal["kg", "lb"]


def test_answers_are_objects_of_a_class(client: openai.OpenAI) -> None:
    ask = {"model": "demo", "messages": GRAMS, "max_tokens": 100, "response_format": Weight}
    whole = client.chat.completions.parse(**ask).choices[0].message.parsed  # type: ignore[arg-type]
    with client.chat.completions.stream(**ask) as stream:  # type: ignore[arg-type]
        assert "content.done" in [event.type for event in stream]
        assert isinstance(whole, Weight) and stream.get_final_completion().choices[0].message.parsed == whole
    beside = {"type": "json_object", "schema": SCHEMA}  # as llama-server has it
    (choice,) = client.chat.completions.create(**ask | {"response_format": beside}).choices
    assert Weight.model_validate_json(choice.message.content)


@pytest.mark.parametrize(
    ("structured", "pattern"),
    [({"regex": "[0-9]{4} g"}, "[0-9]{4} g"), ({"choice": ["50.0", "50+0"]}, r"50\.0|50\+0"),
     ({"grammar": 'start: "a" "b"+ "c"'}, "ab+c"), ({"json": {"enum": [7]}}, "7")],
    ids=str,
)  # fmt: skip
def test_answers_follow_what_vllm_has_too(client: openai.OpenAI, structured: dict[str, object], pattern: str) -> None:
    import re

    fields = {"structured_outputs": structured}
    (choice,) = client.completions.create(model="demo", prompt="5 kg =", max_tokens=40, extra_body=fields).choices
    assert re.fullmatch(pattern, choice.text) or choice.finish_reason == "length"


@pytest.mark.parametrize(
    "wrong",
    [
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wrong"}}}},
        {"extra_body": {"structured_outputs": {"regex": "("}}},
        {"extra_body": {"structured_outputs": {"grammar": "start"}}},
        {"extra_body": {"structured_outputs": {"regex": "a", "grammar": "b"}}},
        {"extra_body": {"thinking_budget": 5}},
    ],
    ids=str,
)
def test_impossible_formats(client: openai.OpenAI, wrong: dict[str, object]) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**{"model": "demo", "messages": GRAMS} | wrong)  # type: ignore[call-overload]
