"""What OpenAI's chat completions and completions have in common."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, cast

from msgspec import Meta, Struct

from ernie_rt.generation.options import GenerateOptions
from ernie_rt.sampling.sampler import Logprobs
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt_serve.answers import Usage
from ernie_rt_serve.events import DONE, event
from ernie_rt_serve.faults import Fault, openai_error
from ernie_rt_serve.service import Service
from ernie_rt_serve.task import Format

MAX_ANSWERS: Final = 16
MAX_STOPS: Final = 16
MAX_STOP_LENGTH: Final = 256
MAX_TOP_LOGPROBS: Final = 20
MAX_BIASES: Final = 1024
LEAST_LOGPROB: Final = -9999.0
"""Stands for minus infinity, which JSON has no number for."""

EFFORTS: Final[Mapping[str, int]] = {"none": 0, "minimal": 128, "low": 512, "medium": 2048}
"""Efforts of reasoning as budgets in tokens; with more effort, as long as the model likes."""

STRUCTURED: Final = "structured_outputs has it"
UNDONE: Final = {
    "best_of": "Use n, and choose",
    "use_beam_search": "Leave it out",
    "guided_json": STRUCTURED,
    "guided_regex": STRUCTURED,
    "guided_choice": STRUCTURED,
    "guided_grammar": STRUCTURED,
    "grammar": STRUCTURED,
    "json_schema": "response_format has it",
}
"""Fields that are not done here, and what to do instead; guided_json and what follows are other servers' names."""

Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]
TopLogprobs = Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)]
Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""Of tokens, or a token's id: as large as they are taken within, so that what is larger is named by its field here."""


class StreamOptions(Struct, kw_only=True):
    include_usage: bool | None = None


class JsonSchema(Struct, kw_only=True, rename={"schema_": "schema"}):
    schema_: dict[str, Any]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, kw_only=True):
    """OpenAI's three types; a `schema` beside json_object is llama-server's."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None

    def format(self) -> Format | None:
        if self.type == "text":
            return None
        if self.type == "json_object":
            return Format("json") if self.schema is None else Format("json_schema", self.schema)
        if self.json_schema is None:
            raise Fault(400, "a response_format of type json_schema brings no json_schema", "response_format")
        return Format("json_schema", self.json_schema.schema_)


class StructuredOutputs(Struct, kw_only=True):
    """vLLM's further ways to say what an answer must be: one of them."""

    json: dict[str, Any] | None = None
    json_object: bool | None = None
    regex: str | None = None
    grammar: str | None = None
    choice: Annotated[list[str], Meta(min_length=1, max_length=MAX_BIASES)] | None = None

    def format(self) -> Format | None:
        formats = [
            None if self.json is None else Format("json_schema", self.json),
            Format("json") if self.json_object else None,
            None if self.regex is None else Format("regex", self.regex),
            None if self.grammar is None else Format("grammar", self.grammar),
            None if self.choice is None else Format("regex", "|".join(map(re.escape, self.choice))),
        ]
        given = [format for format in formats if format is not None]
        if len(given) > 1:
            raise Fault(400, "structured_outputs asks for several things at once", "structured_outputs")
        return given[0] if given else None


class Body(Struct, kw_only=True):
    """The fields of both. From min_p on they are vLLM's, the last is our own. What is null or left out is up to the
    model."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_ANSWERS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Annotated[dict[str, float], Meta(max_length=MAX_BIASES)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    response_format: ResponseFormat | None = None
    min_p: float | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    repetition_penalty: float | None = None
    min_tokens: Count | None = None
    stop_token_ids: Annotated[list[Count], Meta(max_length=MAX_BIASES)] | None = None
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    reuse_after_change: bool | None = None

    def options(self, max_new_tokens: int | None, logprobs: int | None) -> GenerateOptions:
        given = {
            "max_new_tokens": max_new_tokens,
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop,
            "stop_ids": self.stop_token_ids,
            "ignore_eos": self.ignore_eos,
            "temperature": self.temperature,
            "top_k": None if self.top_k is None else max(self.top_k, 0),  # -1 is vLLM's word for all
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": None if self.logit_bias is None else _biases(self.logit_bias),
            "min_new_tokens": self.min_tokens,
            "seed": None if self.seed is None else self.seed % 2**64,
            "logprobs": logprobs,
            "reuse_after_change": self.reuse_after_change,
        }
        return cast(GenerateOptions, {name: value for name, value in given.items() if value is not None})

    @property
    def format(self) -> Format | None:
        """What the answer must be."""
        if self.structured_outputs is not None:
            return self.structured_outputs.format()
        return None if self.response_format is None else self.response_format.format()

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def _biases(given: Mapping[str, float]) -> dict[int, float]:
    for id in given:
        if not id.isdecimal() or not id.isascii() or len(id) > 9:
            raise Fault(400, "logit_bias has a key that is no token id", "logit_bias")
    return {int(id): bias for id, bias in given.items()}


def thinking(effort: str | None, budget: int | None) -> bool | None:
    """Whether reasoning is wanted, by a word or a budget in tokens; None where neither is there."""
    if budget is not None:
        return budget > 0
    return None if effort is None else effort != "none"


def head(service: Service, prefix: str) -> dict[str, Any]:
    """What every body and event of an answer begins with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": service.settings.model,
        "system_fingerprint": service.fingerprint,
    }


def usage(used: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.answer_tokens,
        "total_tokens": used.prompt_tokens + used.answer_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens, **used.cache},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
    }


def token_text(tokenizer: Tokenizer, id: int) -> tuple[str, bytes]:
    """What a token adds to the text, and its bytes, which may be a part of a character."""
    data = tokenizer.pieces[id]
    return data.decode("utf-8", "replace"), data


def logprobs(tokenizer: Tokenizer, tokens: Iterable[tuple[int | None, Logprobs | None]]) -> list[dict[str, Any]]:
    """The log probabilities of tokens as chat completions and responses spell them; those of tokens that have none
    are left out."""

    def entry(id: int, logprob: float) -> dict[str, Any]:
        text, data = token_text(tokenizer, id)
        return {"token": text, "logprob": finite(logprob), "bytes": list(data)}

    return [
        {**entry(id, told.chosen), "top_logprobs": [entry(*likely) for likely in told.top]}
        for id, told in tokens
        if id is not None and told is not None
    ]


def finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


def failed(fault: Fault) -> bytes:
    """How a stream ends that goes wrong: clients look for its last line, whatever comes before it."""
    return event(openai_error(fault)) + DONE
