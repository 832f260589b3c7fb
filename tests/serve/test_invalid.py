"""What is wrong with a body is told in words that help, and without what its sender wrote."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from ernie_rt_serve.invalid import explain
from ernie_rt_serve.protocols.openai_chat import ChatBody


class Choice(Struct):
    kind: Literal["a", "b"] | int | None = None


class Sample(Struct):
    several: Annotated[list[Choice], Meta(max_length=4)] | None = None
    renamed: Literal["c"] | None = msgspec.field(name="other", default=None)


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        (Sample, {"several": [{}, {"kind": "secret"}]}, ("several[1].kind", "Not one of 'a', 'b'")),
        (Sample, {"other": "secret"}, ("other", "Not one of 'c'")),
        (Sample, {"several": 3}, ("several", "Expected `array | null`, got `int`")),
        (Sample, [], ("", "Expected `object`, got `array`")),
        (
            ChatBody,
            {"messages": [{"role": "secret"}]},
            ("messages[0].role", "Not one of 'assistant', 'developer', 'system', 'tool', 'user'"),
        ),
        (
            ChatBody,
            {"messages": [{"role": "user"}], "tool_choice": "secret"},
            ("tool_choice", "Not one of 'auto', 'none', 'required'"),
        ),
    ],
)
def test_what_there_is_to_choose_from_is_named(kind: type[Struct], body: object, told: tuple[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(body, kind)
    assert explain(caught.value, kind) == told
