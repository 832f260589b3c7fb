"""A prompt whose beginning changes: what of it is reused on demand, what `usage` says of it, and to whom."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

import ernie_rt
from support.serving import KEY, Served, serving

PAGE = (Path(__file__).parents[2] / "docs" / "prefix-cache.md").read_text("utf-8")
OTHER_KEY = "sk-second"


class Told(NamedTuple):
    """What `usage` says of a prompt."""

    tokens: int
    cached: int
    after_change: int
    why: str


class Clients(NamedTuple):
    """Of who has one key."""

    openai: openai.OpenAI
    anthropic: anthropic.Anthropic


@pytest.fixture(scope="module")
def clients(locked: Served) -> Iterator[dict[str, Clients]]:
    """By key."""
    opened = {
        key: Clients(
            openai.OpenAI(base_url=f"{locked.url}/v1", api_key=key, max_retries=0),
            anthropic.Anthropic(base_url=locked.url, api_key=key, max_retries=0),
        )
        for key in (KEY, OTHER_KEY)
    }
    yield opened
    for each in opened.values():
        each.openai.close()
        each.anthropic.close()


def chat(clients: Clients, prompt: str, extra: dict[str, Any]) -> Told:
    answer = clients.openai.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": prompt}],
        max_tokens=2,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=extra,
    )
    return of_openai([chunk.usage for chunk in answer][-1])


def completion(clients: Clients, prompt: str, extra: dict[str, Any]) -> Told:
    return of_openai(
        clients.openai.completions.create(model="demo", prompt=prompt, max_tokens=2, extra_body=extra).usage
    )


def of_openai(used: openai.types.CompletionUsage | None) -> Told:
    assert used is not None and used.prompt_tokens_details is not None
    details = used.prompt_tokens_details
    assert details.cached_tokens is not None
    return Told(used.prompt_tokens, details.cached_tokens, *ours(details))


def response(clients: Clients, prompt: str, extra: dict[str, Any]) -> Told:
    used = clients.openai.responses.create(model="demo", input=prompt, max_output_tokens=2, extra_body=extra).usage
    assert used is not None
    return Told(used.input_tokens, used.input_tokens_details.cached_tokens, *ours(used.input_tokens_details))


def message(clients: Clients, prompt: str, extra: dict[str, Any]) -> Told:
    with clients.anthropic.messages.stream(
        model="demo", messages=[{"role": "user", "content": prompt}], max_tokens=2, extra_body=extra
    ) as stream:
        used = stream.get_final_message().usage
    assert used.cache_read_input_tokens is not None
    return Told(used.input_tokens + used.cache_read_input_tokens, used.cache_read_input_tokens, *ours(used))


def ours(used: Any) -> tuple[int, str]:
    """The fields that the protocols do not have."""
    extra = used.model_extra
    return extra["reused_after_change"], extra["not_cached"]


PROTOCOLS = pytest.mark.parametrize("asked", [chat, completion, response, message])
REUSE = {"reuse_after_change": True}
BEGINNING = 24
"""A bound of the tokens before the change."""


def prompt(asked: Callable[..., Told], day: str, about: str) -> str:
    return f"A {asked.__name__}. Today is {day}. About {about}." + " Answer in one word." * 16


@PROTOCOLS
def test_a_prompt_whose_header_changes(
    asked: Callable[[Clients, str, dict[str, Any]], Told], clients: dict[str, Clients]
) -> None:
    def told(day: str, extra: dict[str, Any]) -> Told:
        return asked(clients[KEY], prompt(asked, day, "birds"), extra)

    first = told("Monday", {})
    assert first.cached < BEGINNING and first.after_change == 0 and first.tokens > 100
    assert told("Monday", REUSE) == (first.tokens, first.tokens - 1, 0, "")
    without = told("Friday", {})
    where = f"the first difference from what is in the cache is at token {without.cached + 1} of {first.tokens}"
    assert without == (first.tokens, without.cached, 0, where) and without.cached < BEGINNING
    assert told("Sunday", {"reuse_after_change": None}) == without
    reused = told("Thu.", REUSE)
    assert reused == without._replace(after_change=reused.after_change)
    assert 64 <= reused.after_change < first.tokens - first.cached
    longer = told("Wednesday", REUSE)
    assert longer.after_change == 0 and longer.tokens > first.tokens
    assert re.search("and too little of what comes after it stands where it stood$", longer.why)


@PROTOCOLS
def test_keys_share_nothing(asked: Callable[[Clients, str, dict[str, Any]], Told], clients: dict[str, Clients]) -> None:
    def told(key: str, day: str) -> Told:
        return asked(clients[key], prompt(asked, day, "a secret"), REUSE)

    told(KEY, "Monday")
    assert told(KEY, "Friday").after_change >= 64
    other = told(OTHER_KEY, "Sunday")
    assert (other.cached < BEGINNING, other.after_change) == (True, 0)
    assert told(OTHER_KEY, "Friday").after_change >= 64, "each key has its own"


def test_what_is_no_truth_value_is_refused(clients: dict[str, Clients]) -> None:
    for asked in (chat, completion, response, message):
        with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match="reuse_after_change: Expected"):
            asked(clients[KEY], "A", {"reuse_after_change": "yes"})


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page uses curl")
def test_what_the_page_shows() -> None:
    (shown,) = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    with ernie_rt.load("demo", backend="onnx", max_sequences=4, threads=1) as model, serving(model) as server:
        commands = re.sub(r"^(?!\$ ).*\n|^\$ ", "", shown, flags=re.MULTILINE)
        script = commands.replace("http://127.0.0.1:8000", server.url)
        told = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert told.stdout == re.sub(r"^\$ .*\n", "", shown, flags=re.MULTILINE)
