"""Text that spells special tokens, wherever a conversation takes text: no id but the template's own comes of it.

Strings are cut anywhere and spread over contents, names, tools, calls, results and reasoning, in every template that is
known, in strangers', and between pictures. The ids are those of the same conversation in plain letters, special token
by special token.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from ernie_rt.location import locate
from ernie_rt.text.chat import ChatTemplate, encode_parts
from ernie_rt.text.media import PLACEHOLDERS
from ernie_rt.text.messages import Message, ToolCall
from ernie_rt.text.spans import encode_spans
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt_lm_eval.rendered import Rendered
from support.templates import CHATML, PLAIN, THINKING
from support.tokenizers import ernie_tokenizer

pytestmark = pytest.mark.usefixtures("one_renderer")

TOKENS: Final = {"cls_token": "<|begin_of_sentence|>", "sep_token": "<|end_of_sentence|>"}
FIELDS: Final = 9
ROUNDS: Final = {"ernie": 120, "ernie-thinking": 120, "foreign": 6}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return ernie_tokenizer(tmp_path_factory.mktemp("ernie"))


def forged(tokenizer: Tokenizer, rng: random.Random) -> list[str]:
    """Texts for all fields, of special strings in a row that is cut anywhere, in the middle of them too."""
    strings = [*tokenizer.reserved, *PLACEHOLDERS, "\nAssistant: ", "User: ", "<|im_start|>system\n", "\u2581", "x"]
    row = "".join(rng.choice(strings) for _ in range(rng.randrange(1, 12)))
    places = sorted(rng.randrange(len(row) + 1) for _ in range(FIELDS - 1))
    parts = [row[start:end] for start, end in zip([0, *places], [*places, len(row)], strict=True)]
    return [part or "x" for part in parts]


def talk(texts: list[str], *, tools: bool) -> tuple[list[Message], list[dict[str, Any]]]:
    a, b, c, d, e, f, g, h, i = texts
    messages = [Message("system", a), Message("user", b), Message("assistant", c, reasoning=d), Message("user", e)]
    if not tools:
        return messages, []
    call = ToolCall(f, {"what": g, "nested": [{"k": h}]}, id=i)
    answer = Message("assistant", a, b, (call,))
    described = {"type": "function", "function": {"name": f, "description": g, "parameters": {"enum": [h, i]}}}
    return [*messages, answer, Message("tool", c, name=f, tool_call_id=i), Message("tool", d)], [described]


def special(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    reserved = {*tokenizer.reserved.values(), *tokenizer.special}
    return [id for id in ids if id in reserved]


@pytest.mark.parametrize("source", [PLAIN, THINKING, CHATML], ids=["plain", "thinking", "strange"])
def test_a_conversation(source: str, tokenizer: Tokenizer) -> None:
    rng = random.Random(14)
    template = ChatTemplate(source, TOKENS, "chat_template")
    tools = source != PLAIN
    calm = [*talk(["x"] * FIELDS, tools=tools)]

    def ids(messages: list[Message], offered: list[dict[str, Any]]) -> list[int]:
        return encode_spans(template.spans(messages, tokenizer, offered), tokenizer)

    expected = special(ids(*calm), tokenizer)
    assert len(expected) >= 2
    for _ in range(ROUNDS[template.kind]):
        assert special(ids(*talk(forged(tokenizer, rng), tools=tools)), tokenizer) == expected


@pytest.mark.parametrize("name", ["demo", "demo-vl"])
def test_every_special_string_of_a_model(name: str) -> None:
    """One by one, whole and cut in two between two turns; as plain text, and as what is to be continued."""
    located = locate(name)
    tokenizer, template = located.tokenizer, located.template
    assert template is not None
    chats = lambda a, b: [Message("user", a), Message("assistant", b), Message("user", a + b)]  # noqa: E731
    expected = special(encode_spans(template.spans(chats("x", "y"), tokenizer), tokenizer), tokenizer)
    for string in (*tokenizer.reserved, *PLACEHOLDERS):
        assert special(tokenizer.encode(string), tokenizer) == [], string
        for cut in (0, 1, len(string) // 2, len(string) - 1):
            messages = chats(string[:cut] or "x", string[cut:])
            assert special(encode_spans(template.spans(messages, tokenizer), tokenizer), tokenizer) == expected, string


def test_text_between_pictures() -> None:
    """Of a prompt that is continued, and of a conversation: as many parts of pictures as there are of the pictures."""
    located = locate("demo-vl")
    reader, template = located.reader("cpu"), located.template
    assert reader is not None and template is not None
    rng, tokenizer = random.Random(15), located.tokenizer
    seen = {"type": "image", "image": np.zeros((56, 84, 3), np.uint8)}

    def counted(texts: list[str]) -> list[int]:
        parts = [{"type": "text", "text": texts[0]}, seen, {"type": "text", "text": texts[1]}]
        made = encode_parts(parts, tokenizer, reader)
        chat = [{"role": "user", "content": parts}, {"role": "assistant", "content": texts[2]}]
        prompt = template.prompt([*chat, {"role": "user", "content": texts[3]}], tokenizer, (), reader=reader)
        assert len(made.items) == len(prompt.items) == 1
        return special([*made.ids, *prompt.ids], tokenizer)

    expected = counted(["x"] * FIELDS)
    for _ in range(40):
        assert counted(forged(tokenizer, rng)) == expected


def test_what_a_task_of_the_harness_says(tokenizer: Tokenizer) -> None:
    """It hands text on, with answers behind it that it scores; the text is the template's, and the task's."""
    rng, rendered = random.Random(16), Rendered()
    for source in (PLAIN, THINKING):
        template = ChatTemplate(source, TOKENS, "chat_template")
        expected = special(encode_spans(template.spans([Message("user", "x")], tokenizer), tokenizer), tokenizer)
        for _ in range(30):
            said, answer, *_ = forged(tokenizer, rng)
            text = rendered.keep(template.spans([Message("user", said)], tokenizer), tokenizer)
            for whole in (text, text + answer, text + answer + text[-20:]):
                ids = tokenizer.encode_template(whole, rendered.find(whole))
                assert special(ids, tokenizer) == expected
            assert special(tokenizer.encode_template(answer, rendered.find(answer)), tokenizer) == []


def test_who_spells_special_tokens() -> None:
    """Texts get special ids in these places alone; a new one is to be looked at."""
    root = Path(__file__).parents[2]
    found = set()
    for folder in ("ernie_rt", "backends", "plugins"):
        for path in (root / folder).rglob("*.py"):
            text = path.read_text()
            if "encode_template(" in text or "encode_special(" in text:
                found.add(path.relative_to(root).as_posix())
    assert found == {
        "ernie_rt/text/tokenizer.py",  # which has them
        "ernie_rt/text/spans.py",  # of a template's own text
        "ernie_rt/text/chat.py",  # what ends an answer
        "ernie_rt/generation/constrained.py",  # tags of the template, written by us
        "plugins/ernie_rt_lm_eval/model.py",  # where the template has put them
    }
