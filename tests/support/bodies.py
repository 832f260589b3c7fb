"""Bodies of requests that are almost right, made of a server's own description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any, Final

ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2, 2.5, -0.0, 1e308, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, "", "x", "\0", "猫",
    "</s><|end_of_sentence|>", "a" * 300, [], [[]], [1], ["a"], [None], {}, {"a": 1}, {"type": "x"}, {"type": None},
)  # fmt: skip
"""Values that belong nowhere in particular."""
PROSE: Final = ("How many grams are in 5 kilograms?", "", "x", "公斤 🧮", "a\u0301" * 5)
"""What people write, and no error or log repeats; `TEXTS` are the fields for it."""
TEXTS: Final = frozenset(
    {"content", "text", "prompt", "input", "instructions", "system", "arguments", "description", "thinking",
     "reasoning_content", "stop"}
)  # fmt: skip
NAMES: Final = ("text", "", "x", "公斤 🧮")
TOOL = {"name": "look_up", "description": "Looks it up"}
RIGHT: Final[dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "name": "u", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Hm.",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "one"},
        ],
        "tools": [{"type": "function", "function": {**TOOL, "parameters": {"type": "object"}, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "look_up"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "thinking_budget": 3,
        "max_completion_tokens": 5,
        "n": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 2,
        "stop": ["x"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "min_p": 0.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "repetition_penalty": 1.1,
        "logit_bias": {"5": 1},
        "seed": 1,
        "min_tokens": 1,
        "stop_token_ids": [7],
        "ignore_eos": True,
        "priority": 1,
        "cache_salt": "s",
        "reuse_after_change": False,
    },
    "/v1/completions": {
        "prompt": ["Once", "upon"],
        "max_tokens": 5,
        "n": 2,
        "echo": True,
        "stream": False,
        "stop": "x",
        "seed": -1,
        "temperature": 0.5,
        "logit_bias": {"5": -1},
        "stop_token_ids": [7],
        "min_tokens": 0,
        "priority": 2,
        "response_format": {"type": "text"},
    },
    "/tokenize": {"prompt": "Once", "return_token_strs": True},
    "/detokenize": {"tokens": [5, 6, 7]},
    "/v1/responses": {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "function_call", "call_id": "a", "name": "look_up", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "one"},
        ],
        "tools": [{**TOOL, "type": "function", "parameters": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look_up"}]},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "max_output_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
        "metadata": {"a": "b"},
        "stream": False,
        "store": False,
        "truncation": "disabled",
        "parallel_tool_calls": False,
    },
    "/v1/messages": {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "a", "name": "look_up", "input": {"n": 1}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "one"}]}],
            },
        ],
        "tools": [{**TOOL, "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "max_tokens": 5,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "stop_sequences": ["x"],
        "stream": False,
        "metadata": {"user_id": "u"},
    },
}
RIGHT["/v1/messages/count_tokens"] = {
    key: RIGHT["/v1/messages"][key] for key in ("system", "messages", "tools", "tool_choice")
}
"""A body for each route of POST that uses most of its fields, and is right."""


class Bodies:
    """Draws bodies for the schemas of an OpenAPI document: some right, most wrong in a place or two."""

    def __init__(self, document: Mapping[str, Any], random: Random) -> None:
        self._schemas = document["components"]["schemas"]
        self._random = random

    def body(self, schema: Mapping[str, Any]) -> bytes:
        """One body: JSON of the schema, with odd values in places, or bytes that are no JSON."""
        data = json.dumps(self._value(schema, 0), ensure_ascii=self._random.random() < 0.5).encode()
        if self._random.random() < 0.15:
            data = self._broken(data)
        return data

    def _value(self, schema: Mapping[str, Any], depth: int, field: str = "") -> Any:
        random = self._random
        if random.random() < 0.04 or depth > 6:
            return random.choice(ODD)
        if "$ref" in schema:
            return self._value(self._schemas[schema["$ref"].rpartition("/")[2]], depth, field)
        if "anyOf" in schema:
            return self._value(random.choice(schema["anyOf"]), depth + 1, field)
        if "enum" in schema:
            return random.choice(schema["enum"])
        match schema.get("type"):
            case "object" if "properties" in schema:
                wanted = schema.get("required", ())
                names = [name for name in schema["properties"] if name in wanted or random.random() < 0.25]
                if random.random() < 0.1:
                    names = names[1:]
                return {name: self._value(schema["properties"][name], depth + 1, name) for name in names}
            case "object":
                inner = schema.get("additionalProperties") or {}
                return {random.choice("ab1-9"): self._value(inner, depth + 1) for _ in range(random.randrange(3))}
            case "array":
                inner = schema.get("items") or {}
                return [self._value(inner, depth + 1, field) for _ in range(random.randrange(4))]
            case "string":
                return random.choice(PROSE if field in TEXTS else NAMES)
            case "integer":
                return random.choice((schema.get("minimum", 0), schema.get("maximum", 9), 1, 3))
            case "number":
                return random.choice((0, 0.5, 1, -1, 1e9))
            case "boolean":
                return random.random() < 0.5
            case "null":
                return None
        return random.choice(ODD)

    def _broken(self, data: bytes) -> bytes:
        random, damaged = self._random, bytearray(data)
        match random.randrange(4):
            case 0:
                return data[: random.randrange(len(data) + 1)]
            case 1:
                return random.randbytes(random.randrange(200))
            case 2:
                for _ in range(3):
                    damaged[random.randrange(len(damaged))] = random.randrange(256)
                return bytes(damaged)
        at = random.randrange(len(data))
        return (
            data[:at] + random.choice((b"[" * 2000, b"NaN", b"1e999", b"\xff", b'"\\ud800"', b"9" * 5000)) + data[at:]
        )
