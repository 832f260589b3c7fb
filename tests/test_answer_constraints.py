"""Answers that must be something, of a small model that thinks: reasoning ends, then come text or calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ernie_rt
from ernie_rt.errors import OptionError
from ernie_rt.generation.constrained import Reasoning, ToolCalls, spelled
from ernie_rt.sampling.phases import Fixed
from ernie_rt.session import Model
from ernie_rt.text.spans import encode_spans
from support.commands import command
from support.scripted import write_chat_checkpoint
from support.templates import PLAIN, THINKING

ASKED = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_checkpoint(tmp_path_factory.mktemp("thinking") / "model", THINKING)


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    with ernie_rt.load(folder, backend="reference", dtype="float32", max_context=512) as model:
        yield model


@pytest.mark.parametrize("budget", [0, 1, 7])
@pytest.mark.parametrize("temperature", [0, 1])
def test_reasoning_ends_after_its_budget(model: Model, budget: int, temperature: float) -> None:
    """With the ids of the template's own text; what came before them and comes after is as it would have been."""
    options = {"temperature": temperature, "seed": 3, "max_new_tokens": budget + 12, "ignore_eos": True}
    answer = model.chat(ASKED, thinking_budget=budget, **options)
    free = model.chat(ASKED, **options)
    closing = spelled(model.tokenizer, "<think>\nx", "\n</think>\n")
    while answer.ids[budget] != closing[0]:  # the rest of a character
        budget += 1
    assert answer.ids[:budget] == free.ids[:budget]
    assert answer.ids[budget : budget + len(closing)] == closing
    assert len(answer.ids) == options["max_new_tokens"]
    prompt = model.template.prompt(ASKED, model.tokenizer).ids  # type: ignore[union-attr]
    begun = (*prompt, *answer.ids[: budget + len(closing)])
    after = model.generate(begun, **options | {"max_new_tokens": len(answer.ids) - budget - len(closing)})
    assert answer.ids[budget + len(closing) :] == after.ids


def test_no_reasoning_is_spelt_as_the_template_spells_it(model: Model) -> None:
    answer = model.chat(ASKED, thinking_budget=0, max_new_tokens=8)
    assert answer.reasoning == "" and model.template is not None
    said = [*ASKED, {"role": "assistant", "content": "x"}]
    whole = encode_spans(model.template.spans(said, model.tokenizer, (), False), model.tokenizer)
    begun = model.template.prompt(ASKED, model.tokenizer).ids
    closing = spelled(model.tokenizer, "<think>\nx", "\n</think>\n")
    assert tuple(whole[: len(begun) + len(closing)]) == (*begun, *closing)


def test_reasoning_that_ends_by_itself_is_left_alone(model: Model) -> None:
    end = model.tokenizer.encode_special("</think>")
    for seed in range(20):
        options = {"temperature": 1, "seed": seed, "max_new_tokens": 20, "logit_bias": {end: 9.0}, "ignore_eos": True}
        free = model.chat(ASKED, **options)
        if end in free.ids[:8]:
            assert model.chat(ASKED, thinking_budget=8, **options).ids == free.ids
            return
    raise AssertionError("no reasoning has come to an end")


def test_a_character_is_completed_before_reasoning_ends(model: Model) -> None:
    smile = model.tokenizer.encode("🙂")
    assert len(smile) == 4
    for tokens, budget, length in [(smile, 1, 4), (smile, 3, 4), (smile, 4, 4), ([smile[0]] * 9, 2, 2)]:
        state = Reasoning(model.tokenizer, budget, Fixed((7,))).start()
        for token in tokens[:length]:
            assert state.mask() is None
            state.accept(token)
        mask = state.mask()
        assert mask is not None and np.flatnonzero(mask).tolist() == [7]


def test_text_stands_in_its_tags_behind_reasoning(model: Model) -> None:
    """And the sequence ends with them, whatever end tokens there are."""
    said = tuple(model.tokenizer.encode("the water"))
    answer = model.chat(ASKED, thinking_budget=4, constraint=Fixed(said), ignore_eos=True, temperature=1, seed=1)
    assert answer.text == "the water" and answer.finish == "stop"
    whole = model.tokenizer.decode(answer.ids, False)
    assert whole.endswith("\n</think>\n<response>\nthe water\n</response>")


def test_calls_stand_in_theirs(model: Model) -> None:
    call = tuple(model.tokenizer.encode('{"name": "look_up", "arguments": {}}'))
    one = model.chat(ASKED, thinking_budget=2, constraint=ToolCalls(Fixed(call), parallel=False))
    assert [call.name for call in one.tool_calls] == ["look_up"] and one.finish == "stop" and one.text == ""
    end = model.tokenizer.encode_special("<|im_end|>")
    several = model.chat(
        ASKED, thinking_budget=0, constraint=ToolCalls(Fixed(call)), max_new_tokens=90, logit_bias={end: -100.0}
    )
    assert len(several.tool_calls) > 1 and several.finish == "length"
    ended = model.chat(ASKED, thinking_budget=0, constraint=ToolCalls(Fixed(call)), logit_bias={end: 100.0})
    assert len(ended.tool_calls) == 1 and ended.ids[-1] == end
    text = tuple(model.tokenizer.encode("no"))
    response = model.tokenizer.encode_special("<response>")
    either = ToolCalls(Fixed(call), False, Fixed(text))
    assert model.chat(ASKED, thinking_budget=0, constraint=either, logit_bias={response: 100.0}).text == "no"


def test_prompts_that_have_no_place_for_it(model: Model, tmp_path: Path) -> None:
    plain = write_chat_checkpoint(tmp_path / "plain", PLAIN)
    with ernie_rt.load(plain, backend="reference", dtype="float32", max_context=128) as other:
        with pytest.raises(OptionError, match="thinking_budget is for models that think"):
            other.chat(ASKED, thinking_budget=3)
        with pytest.raises(OptionError, match="no place for tool calls"):
            other.chat(ASKED, constraint=ToolCalls(Fixed((5,))))
        said = tuple(other.tokenizer.encode("the water"))
        assert other.chat(ASKED, constraint=Fixed(said)).ids == said
        assert other.generate_batch(["a", "the"], constraint=Fixed(said)) == [list(said), list(said)]
    with pytest.raises(OptionError, match="thinking_budget is for conversations"):
        model.generate("the", thinking_budget=3)
    with pytest.raises(OptionError, match="ToolCalls is for conversations"):
        model.generate("the", constraint=ToolCalls(Fixed((5,))))
    for wrong in (-1, 1.5, True, "3"):
        with pytest.raises(OptionError, match="thinking_budget"):
            model.chat(ASKED, thinking_budget=wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="constraint is none"):
        model.chat(ASKED, constraint="json")  # type: ignore[arg-type]


def test_commands_take_a_budget(folder: Path) -> None:
    options = ("--backend", "reference", "--dtype", "float32", "-n", "9", "--thinking-budget", "0", "-q")
    ran = command("run", folder, "Hello", *options, "--json")
    assert ran.code == 0 and json.loads(ran.out)["reasoning"] == ""
    refused = command("run", "demo", "Hello", *options)
    assert refused.code == 2 and "thinking_budget is for models that think" in refused.err
    refused = command("chat", "demo", *options, stdin=b"Hello\n")
    assert refused.code == 2 and "thinking_budget is for models that think" in refused.err
