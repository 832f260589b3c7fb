"""What ends an answer is read off the template, whatever it makes of an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ernie_rt.errors import TemplateError, TemplateLimitError, TokenizerError
from ernie_rt.text.chat import ChatTemplate
from ernie_rt.text.sandbox import Renderer
from ernie_rt.text.stops import TextStream
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt.text.turn_ends import ANSWER
from support.templates import CHATML, CUTTING, PLAIN, THINKING
from support.tokenizers import ernie_config, ernie_tokenizer, write_ernie_tokenizer

pytestmark = pytest.mark.usefixtures("one_renderer")

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"} | {
    "cls_token": "<|begin_of_sentence|>",
    "sep_token": "<|end_of_sentence|>",
}


def each(turn: str) -> str:
    return "{% for m in messages %}" + turn + "{% endfor %}"


def turns(content: str = "m.content") -> str:
    return each("<mask:6>{{ m.role }}\n{{ " + content + " }}<mask:7>\n")


def by_role(before: str, after: str, others_before: str, others_after: str) -> str:
    answer, other = before + "{{ m.content }}" + after, others_before + "{{ m.content }}" + others_after
    return each("{% if m.role == 'assistant' %}" + answer + "{% else %}" + other + "{% endif %}")


def where(condition: str, otherwise: str = "") -> str:
    return each("{{ m.role }}: {{ m.content }}{{ '<mask:7>' if " + condition + " else '" + otherwise + "' }}\n")


def refuses(condition: str) -> str:
    return "{% if " + condition + " %}{{ raise_exception('no') }}{% endif %}" + turns()


CALLS_AS_TURNS = each(
    "<mask:6>{{ m.role }}\n{{ m.content }}<mask:7>\n"
    "{% for c in m.tool_calls or [] %}<mask:6>call\n{{ c.function | tojson }}<mask:7>\n{% endfor %}"
)
CALLS_WITHIN = each(
    "<mask:6>{{ m.role }}\n{{ m.content }}<mask:4>"
    "{% for c in m.tool_calls or [] %}<mask:5>{{ c.function.arguments.what }}<mask:1>{% endfor %}<mask:7>\n"
)
CALLS_END_OTHERWISE = each(
    "{{ '<mask:6>' if m.role == 'tool' else m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<mask:5>{{ c.function | tojson }}{% endfor %}"
    "{{ '<mask:7>' if m.role == 'assistant' and not m.tool_calls }}\n"
)
ONE_CALL = each(
    "{% if (m.tool_calls or []) | length > 1 %}{{ raise_exception('one call at most') }}{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}<mask:5>{% endfor %}<mask:7>"
)

CASES = {
    "plain": (PLAIN, ["<|end_of_sentence|>"]),
    "plain, with a default system turn": (
        PLAIN.replace("{{- bos -}}", "{{- bos -}}{{- 'Be kind.\n' if messages[0].role != 'system' -}}"),
        ["<|end_of_sentence|>"],
    ),
    "plain, trimmed": (PLAIN.replace("content ~ sep", "content | trim ~ sep"), ["<|end_of_sentence|>"]),
    "plain, other names": (PLAIN.replace("Assistant: ", "Bot: "), ["<|end_of_sentence|>"]),
    "plain, with eos": (PLAIN.replace("sep_token", "eos_token"), ["</s>"]),
    "thinking": (THINKING, ["<|im_end|>"]),
    "thinking, changed": (THINKING.replace("<global_setting>", "<settings>"), ["<|im_end|>"]),
    "thinking, always asking": (THINKING.replace("if add_generation_prompt", "if true") + " ", ["<|im_end|>"]),
    "chatml": (CHATML, ["<|im_end|>"]),
    "cutting": (CUTTING, ["<|im_end|>"]),
    "as it is": (turns(), ["<mask:7>"]),
    "trim": (turns("m.content | trim"), ["<mask:7>"]),
    "upper": (turns("m.content | upper"), ["<mask:7>"]),
    "title": (turns("m.content | title"), ["<mask:7>"]),
    "escaped": (turns("m.content | e"), ["<mask:7>"]),
    "as JSON": (turns("m.content | tojson"), ["<mask:7>"]),
    "in a tag": (by_role("<response>", "</response><mask:7>", "", "\n"), ["<mask:7>"]),
    "with a trace of it before": ("{{ messages | map(attribute='content') | list }}<mask:4>" + turns(), ["<mask:7>"]),
    "with a trace of it later": (turns() + "{{ messages[0].content }}", ["<mask:7>"]),
    "the end after a line and text": (turns("m.content ~ '\n[end of turn]\n'"), ["<mask:7>"]),
    "an end of each role's own": (by_role("<mask:4>", "<mask:5>", "<mask:6>", "<mask:7>"), ["<mask:5>"]),
    "only what comes next begins with one": (by_role("<mask:4>", "", "<mask:6>", ""), ["<mask:6>"]),
    "none": (by_role("Assistant: ", "\n", "User: ", "\n"), []),
    "none, but in what others say": (by_role("Assistant: ", "\n", "User: ", "<mask:7>\n"), []),
    "a token that the tokenizer lacks": (by_role("A: ", "<|unheard_of|>", "U: ", "\n"), []),
    "in the last turn": (where("loop.last"), ["<mask:7>"]),
    "in all turns but the last": (where("not loop.last"), ["<mask:7>"]),
    "two": (where("not loop.last", "</s>"), ["<mask:7>", "</s>"]),
    "demands a system turn": (refuses("messages[0].role != 'system'"), ["<mask:7>"]),
    "refuses a system turn": (refuses("messages[0].role == 'system'"), ["<mask:7>"]),
    "refuses what was said before": (refuses("messages | length > 2"), ["<mask:7>"]),
    "refuses to end with an answer": (refuses("messages[-1].role == 'assistant'"), ["<mask:7>"]),
    "refuses tools": (refuses("tools"), ["<mask:7>"]),
    "refuses an answer": (refuses("messages | length > 1"), []),
    "leaves out answers": (each("{% if m.role == 'user' %}<mask:6>{{ m.content }}<mask:7>{% endif %}"), []),
    "calls as turns": (CALLS_AS_TURNS, ["<mask:7>"]),
    "calls within": (CALLS_WITHIN, ["<mask:7>"]),
    "calls end otherwise": (CALLS_END_OTHERWISE, ["<mask:7>", "<mask:6>"]),
    "one call at most": (ONE_CALL, ["<mask:7>", "<mask:5>"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return ernie_tokenizer(tmp_path_factory.mktemp("ernie"))


@pytest.mark.parametrize("name", CASES)
def test_the_token_after_an_answer_ends_it(tokenizer: Tokenizer, name: str) -> None:
    source, ends = CASES[name]
    template = ChatTemplate(source, TOKENS, "chat_template")
    ids = tuple(tokenizer.encode_special(end) for end in ends)
    assert template.stop_ids(tokenizer) == ids
    if name != "refuses an answer":
        turn = [{"role": "system", "content": "s"}] if "demands" in name else []
        assert template.prompt([*turn, {"role": "user", "content": "u"}], tokenizer).stop_ids == ids


@pytest.mark.parametrize("source", ["{% broken", "{{ raise_exception('never') }}"])
def test_a_template_that_never_renders_puts_nothing(tokenizer: Tokenizer, source: str) -> None:
    template = ChatTemplate(source, TOKENS, "chat_template")
    assert template.stop_ids(tokenizer) == ()
    with pytest.raises(TemplateError):
        template.prompt([{"role": "user", "content": "u"}], tokenizer)


@pytest.mark.parametrize("at", ["m.tool_calls", f"m.content == '{ANSWER}'"])
def test_a_template_that_exceeds_its_limits_says_so(tokenizer: Tokenizer, at: str) -> None:
    """Whether the conversations that tell its kind bring that about, or those with an answer alone."""
    endless = each("{% if " + at + " %}{{ 'x' * 9999999 }}{% endif %}")
    with pytest.raises(TemplateLimitError):
        ChatTemplate(endless, TOKENS, "chat_template").stop_ids(tokenizer)


def test_a_native_template_needs_its_token(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(PLAIN, TOKENS | {"sep_token": "<|unheard_of|>"}, "chat_template")
    assert template.kind == "ernie"
    with pytest.raises(TokenizerError, match="no such special token"):
        template.stop_ids(tokenizer)


def test_the_template_is_asked_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    render = Renderer.render
    monkeypatch.setattr(Renderer, "render", lambda *given: asked.append(given) or render(*given))
    template = ChatTemplate(turns(), TOKENS, "chat_template")
    for _ in range(5):
        template.stop_ids(tokenizer)
    assert len(asked) == 2, "what kind it is, and what it makes of an answer"


def with_added(name: str, folder: Path) -> Tokenizer:
    """ERNIE's tokenizer with a token that is added as text."""
    write_ernie_tokenizer(folder, turns())
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["added_tokens_decoder"]["100297"] = {"content": name, "special": False}
    path.write_text(json.dumps(settings))
    return Tokenizer.load(folder, ernie_config())


@pytest.mark.parametrize("name", ["User", "***", "<a", "[]"])
def test_a_word_that_was_added_as_text_ends_no_answer(name: str, tmp_path: Path) -> None:
    tokenizer = with_added(name, tmp_path)
    assert 100297 in tokenizer.encode(f"x {name}")
    ends = ChatTemplate(turns().replace("<mask:7>", name), TOKENS, "x").stop_ids(tokenizer)
    assert ends == (tokenizer.encode_special("<mask:6>"),)  # what begins the next turn


@pytest.mark.parametrize("name", ["<|LOC_0|>", "[/INST]", "<end of turn>"])
def test_a_token_that_decodes_to_text_is_not_shown_where_it_ends_an_answer(name: str, tmp_path: Path) -> None:
    tokenizer = with_added(name, tmp_path)
    (end,) = ChatTemplate(turns().replace("<mask:7>", name), TOKENS, "x").stop_ids(tokenizer)
    assert end == 100297 and tokenizer.decode([end]) == name
    text = TextStream(tokenizer, (), [end])
    for id in (*tokenizer.encode("the"), end):
        text.push(id)
    assert "".join(text.take() for _ in range(len(tokenizer.encode("the")) + 1)) + text.flush() == "the"
