"""`Model.chat`: a conversation through the template, its answer taken apart, what ends it, and the defaults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ernie_rt
from ernie_rt.errors import ConfigError, OptionError, PromptError
from ernie_rt.host import PluginHost
from ernie_rt.loading import load
from ernie_rt.location import locate
from ernie_rt.session import Model
from ernie_rt.text.messages import Message, ToolCall
from support.pages import free_pages
from support.scripted import scripted, write_chat_checkpoint
from support.templates import CHATML, PLAIN, THINKING
from support.tokenizers import ROWS

pytestmark = pytest.mark.usefixtures("one_renderer")

TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks it up", "parameters": {}}}
CALL = '<tool_call>\n{"name": "look_up", "arguments": {"what": "猫"}}\n</tool_call>'
FOLDERS = {"plain": PLAIN, "thinking": THINKING, "chatml": CHATML, "base": None}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("chat")
    return {name: write_chat_checkpoint(root / name, template) for name, template in FOLDERS.items()}


Loader = Callable[..., Model]


@pytest.fixture
def loader(folders: dict[str, Path]) -> Iterator[Loader]:
    """`loader(name, *answers)`: a model of that template that answers so; every test leaves its cache free."""
    models: list[Model] = []

    def open_model(name: str, *answers: list[int], **options: Any) -> Model:
        models.append(load(folders[name], backend="scripted", host=scripted(*answers), max_context=512, **options))
        return models[-1]

    yield open_model
    for model in models:
        assert free_pages(model._engine) == model._executable.cache.pages
        model.close()


def spell(folder: Path, text: str, *ends: str) -> list[int]:
    """The ids of an answer, tags and `ends` as the special tokens that they are."""
    tokenizer = locate(folder).tokenizer
    ids: list[int] = []
    from ernie_rt.text.spans import Span, encode_spans

    ids = encode_spans([Span(text, True)], tokenizer)
    return ids + [tokenizer.encode_special(end) for end in ends]


def prompts(model: Model) -> list[str]:
    """What the backend was asked, as text with its special tokens."""
    backend = model._executable._backend  # type: ignore[attr-defined]
    return [model.tokenizer.decode(ids, skip_special=False) for ids in backend.prompts]


@pytest.mark.parametrize("end", ["</s>", "<|end_of_sentence|>"])
def test_a_plain_answer(loader: Loader, folders: dict[str, Path], end: str) -> None:
    model = loader("plain", spell(folders["plain"], "It is <b>Paris</b>. 巴黎", end))
    answer = model.chat([{"role": "system", "content": "Be brief."}, Message("user", "Capital? <|im_end|>")])
    assert prompts(model) == ["<|begin_of_sentence|>Be brief.\nUser: Capital? <|im_end|>\nAssistant: "]
    assert (answer.text, answer.reasoning, answer.tool_calls) == ("It is <b>Paris</b>. 巴黎", "", ())
    assert answer.finish == "stop" and answer.ids[-1] == model.tokenizer.encode_special(end)
    assert answer.prompt_tokens == len(model._executable._backend.prompts[0])  # type: ignore[attr-defined]
    assert answer.message == Message("assistant", answer.text)


def test_reasoning_text_and_calls_come_apart(loader: Loader, folders: dict[str, Path]) -> None:
    said = f"Let me see.\nA cat.\n</think>\n\n\n{CALL}\n"
    script = spell(folders["thinking"], said, "<|im_end|>")
    model = loader("thinking", script, script)
    messages = [{"role": "user", "content": "What is a 猫?"}]
    answer = model.chat(messages, tools=[TOOL])
    assert "<tool_list>\n[{" in prompts(model)[0] and prompts(model)[0].endswith("<|im_start|>assistant\n<think>\n")
    assert (answer.text, answer.reasoning) == ("", "Let me see.\nA cat.")
    assert answer.tool_calls == (ToolCall("look_up", {"what": "猫"}),)
    assert answer.finish == "stop" and list(answer.ids) == script

    stream = model.chat(messages, tools=[TOOL], stream=True)
    pieces = list(stream)
    assert stream.generation.message == answer.message and [piece.id for piece in pieces] == script
    assert "".join(piece.reasoning for piece in pieces) == answer.reasoning
    assert sum(bool(piece.reasoning) for piece in pieces) > 3, "reasoning comes as it is written"
    assert [call for piece in pieces for call in piece.tool_calls] == list(answer.tool_calls)

    # The answer goes back into the conversation, and what the tool found behind it.
    model._executable._backend.answers.append(
        spell(folders["thinking"], "x</think>\n<response>\nA cat.\n</response>\n", "<|im_end|>")
    )  # type: ignore[attr-defined]
    final = model.chat([*messages, answer.message, {"role": "tool", "content": "猫 is a cat"}], tools=[TOOL])
    assert final.text == "A cat." and final.reasoning == "x"
    assert f"<think>\nLet me see.\nA cat.\n</think>\n\n{CALL}\n<|im_end|>" in prompts(model)[-1]


def test_tags_in_a_foreign_template_without_them_are_text(loader: Loader, folders: dict[str, Path]) -> None:
    model = loader("chatml", spell(folders["chatml"], "<think>a</think>b", "</s>"))
    assert model.chat([{"role": "user", "content": "x"}]).text == "<think>a</think>b"


def test_a_stop_string_and_a_cut_answer(loader: Loader, folders: dict[str, Path]) -> None:
    script = spell(folders["thinking"], "So.</think>\n<response>\nOne two three", "<|im_end|>")
    model = loader("thinking", script, script, script)
    ask = [{"role": "user", "content": "Count"}]
    stopped = model.chat(ask, stop=["two"])
    assert (stopped.text, stopped.finish) == ("One ", "stop")
    cut = model.chat(ask, max_new_tokens=len(script) - 1)
    assert (cut.text, cut.reasoning, cut.finish) == ("One two three", "So.", "length")
    half = spell(folders["thinking"], f"So.</think>\n{CALL.removesuffix('</tool_call>')}", "<|im_end|>")
    model._executable._backend.answers.insert(0, half)  # type: ignore[attr-defined]
    assert model.chat(ask).tool_calls == (ToolCall("look_up", {"what": "猫"}),), "the end closes a call that is whole"
    early = model.chat(ask, max_new_tokens=2)
    assert early.text == "" and early.finish == "length" and "So".startswith(early.reasoning[:2])


def test_what_is_no_call_is_text_with_a_reason(loader: Loader, folders: dict[str, Path]) -> None:
    broken = '<tool_call>\n{"name": "look_up", "input": {}}\n</tool_call>'
    model = loader("thinking", spell(folders["thinking"], f"So.</think>\n{broken}\n{CALL}", "<|im_end|>"))
    answer = model.chat([{"role": "user", "content": "x"}], tools=[TOOL])
    assert (answer.text, answer.tool_calls) == (broken, (ToolCall("look_up", {"what": "猫"}),))
    assert answer.faults == ("a tool call: a key that calls do not have; found 'input'",)


def test_leaving_a_stream_keeps_what_came(loader: Loader, folders: dict[str, Path]) -> None:
    model = loader("plain", spell(folders["plain"], "one two three four five six", "</s>"))
    with model.chat([{"role": "user", "content": "Count"}], stream=True) as stream:
        shown = [next(stream).text for _ in range(3)]
    kept = stream.generation
    assert kept.text == "".join(shown) and len(kept.ids) == 3 and kept.finish == "cancelled"
    assert list(stream) == []
    never = model.chat([{"role": "user", "content": "Count"}], stream=True)
    assert never.generation.text == "" and never.generation.finish == "cancelled"


def test_the_end_of_sequence_can_be_ignored(loader: Loader, folders: dict[str, Path]) -> None:
    folder = folders["plain"]
    script = [*spell(folder, "a", "<|end_of_sentence|>", "</s>"), *spell(folder, "b", "</s>"), 77]
    model = loader("plain", script)
    answer = model.chat([{"role": "user", "content": "x"}], ignore_eos=True, stop_ids=[77])
    assert list(answer.ids) == script and answer.text.startswith("ab")


def test_what_has_no_place(loader: Loader) -> None:
    user = {"role": "user", "content": "x"}
    with pytest.raises(PromptError, match=r"no chat template. `generate` completes"):
        loader("base").chat([user])
    with pytest.raises(PromptError, match="has no tools"):
        loader("plain").chat([user], tools=[TOOL])
    with pytest.raises(PromptError, match="without messages"):
        loader("plain").chat([])
    with pytest.raises(PromptError, match="not a list of messages"):
        loader("plain").chat(None)
    with pytest.raises(PromptError, match="message 1: content is not Unicode text"):
        loader("chatml").chat([Message("user", "\ud800")])
    with pytest.raises(PromptError, match="tool 1: not a tool"):
        loader("chatml").chat([user], tools="weather")
    with pytest.raises(PromptError, match="message 2: unknown role"):
        loader("plain").chat([user, {"role": "judge", "content": "x"}])
    with pytest.raises(PromptError, match="longer than the context"):
        loader("plain").chat([{"role": "user", "content": "x " * 600}])
    with pytest.raises(OptionError, match="temperature"):
        loader("plain").chat([user], temperature=-1, stream=True)


def test_an_answer_may_fill_the_context(loader: Loader, folders: dict[str, Path]) -> None:
    script = spell(folders["plain"], "a") * 600
    model = loader("plain", script)
    answer = model.chat([{"role": "user", "content": "x"}])
    assert answer.finish == "length"
    assert answer.prompt_tokens + len(answer.ids) == 513, "the last token never enters the cache"


def with_defaults(folder: Path, **fields: object) -> Path:
    write_chat_checkpoint(folder, PLAIN)
    (folder / "generation_config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(
    ("fields", "options", "ignored"),
    [
        ({"do_sample": True, "temperature": 0.8, "top_p": 0.8}, {"temperature": 0.8, "top_p": 0.8}, ()),
        ({"temperature": 0.5, "top_k": 3, "bos_token_id": 1}, {"temperature": 0.5, "top_k": 3}, ()),
        ({"do_sample": False, "temperature": 0.8, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}, ()),
        ({"do_sample": True, "top_p": 0.9}, {"temperature": 1.0, "top_p": 0.9}, ()),
        ({"top_p": 0.9, "max_new_tokens": 5}, {"max_new_tokens": 5}, ()),
        ({"eos_token_id": [2, 9], "num_beams": 4, "min_p": None}, {"stop_ids": [9]}, ("num_beams",)),
        ({"eos_token_id": 2, "transformers_version": "5.0"}, {}, ()),
        (
            {"do_sample": True, "top_k": 50.0, "max_new_tokens": 8.0},
            {"temperature": 1, "top_k": 50, "max_new_tokens": 8},
            (),
        ),
        ({"do_sample": True, "top_k": -1, "eos_token_id": -1}, {"temperature": 1.0, "top_k": 0}, ()),
        ({"eos_token_id": [9.0, -1], "pad_token_id": -1, "do_sample": None}, {"stop_ids": [9]}, ()),
    ],
    ids=str,
)
def test_defaults_of_a_checkpoint(
    tmp_path: Path, fields: dict[str, object], options: dict[str, object], ignored: tuple[str, ...]
) -> None:
    defaults = locate(with_defaults(tmp_path, **fields)).defaults
    assert dict(defaults.options) == options and defaults.ignored == ignored


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -1}, r"generation_config.json: temperature is out of range; .*Correct the file"),
        ({"do_sample": True, "top_p": "high"}, "top_p is out of range"),
        ({"eos_token_id": "</s>"}, "a token id in eos_token_id is out of range"),
        ({"max_new_tokens": 8.5}, "max_new_tokens must be a whole number above 0"),
        ({"temperature": float("nan")}, "temperature is out of range.*found NaN is not a JSON number"),
        ({"temperature": 10**400}, "temperature is out of range"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number above 0"),
        ({"repetition_penalty": True}, "repetition_penalty is out of range"),
        ({"do_sample": "false"}, "do_sample is neither true nor false"),
        ({"eos_token_id": [2, 999_999]}, f"outside the vocabulary; expected 0 to {ROWS - 1}; found 999999"),
    ],
)
def test_impossible_defaults_are_named(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _ = locate(with_defaults(tmp_path, **fields)).defaults


def test_defaults_give_way_to_options(tmp_path: Path) -> None:
    folder = with_defaults(tmp_path, eos_token_id=[2, 9], max_new_tokens=4, do_sample=True, temperature=50.0, top_k=1)
    host = scripted(*[[5, 9, 7, 8, 5, 5, 2]] * 4)
    with load(folder, backend="scripted", host=host) as model:
        assert model.generate([5]).ids == (5, 9), "9 ends an answer"
        assert model.generate([5], ignore_eos=True).ids == (5, 9, 7, 8)
        assert model.generate([5], ignore_eos=True, max_new_tokens=6).ids == (5, 9, 7, 8, 5, 5)
        # By ids nothing is taken from the checkpoint.
        assert model.generate_ids([5], max_new_tokens=9) == [5, 9, 7, 8, 5, 5, 2]


def test_the_host_is_the_callers(folders: dict[str, Path]) -> None:
    assert "scripted" not in PluginHost().backends


@pytest.mark.parametrize("where", ["before", "after", "result"])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_an_interrupt_anywhere_leaves_the_model_usable(
    loader: Loader, folders: dict[str, Path], step: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = spell(folders["plain"], "one two three four five six", "</s>")
    model = loader("plain", script, script, max_batch_tokens=8)  # the prompt takes more than one step
    steps = 0
    submit = model._executable.submit

    class Interrupted:
        def result(self) -> Any:
            raise KeyboardInterrupt

    def interrupted(given: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == step and where == "before":
            raise KeyboardInterrupt
        pending = submit(given)
        if steps == step and where == "after":
            raise KeyboardInterrupt
        return Interrupted() if steps == step else pending

    monkeypatch.setattr(model._executable, "submit", interrupted)
    ask = [{"role": "user", "content": "Count from one to six"}]
    stream = model.chat(ask, stream=True)
    with pytest.raises(KeyboardInterrupt), stream:
        for _ in stream:
            pass
    kept = stream.generation
    assert kept.finish == "cancelled" and "one two three four five six".startswith(kept.text)
    assert free_pages(model._engine) == model._executable.cache.pages
    monkeypatch.undo()
    model._executable._backend.answers[:] = [script]  # type: ignore[attr-defined]
    assert model.chat(ask).text == "one two three four five six"


def test_the_documentation_runs(
    loader: Loader, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every Python block of docs/chat.md, one after the other, with a model that answers as told; but for the one with
    a picture, which tests/test_pictures.py runs."""
    text = (Path(__file__).parents[1] / "docs" / "chat.md").read_text()
    said = ["A sum.</think>51", "x</think>204", f"x</think>{CALL}{CALL}", "x</think>Sunny"]
    model = loader("thinking", *[spell(folders["thinking"], answer, "<|im_end|>") for answer in said])
    asked: list[str] = []
    close = model.close
    monkeypatch.setattr(ernie_rt, "load", lambda ref: model)
    monkeypatch.setattr(model, "close", lambda: None)  # the blocks go on with the model of the first
    namespace = {"look_up": lambda name, arguments: asked.append(name) or "sunny"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        if '"image"' not in block:
            exec(block, namespace)
    close()
    shown = capsys.readouterr().out
    assert shown.startswith("51\nA sum.\nstop ") and "204" in shown and asked == ["look_up", "look_up"]
    assert namespace["answer"].text == "Sunny"  # type: ignore[attr-defined]
    last = prompts(model)[-1]
    assert last.count("<tool_call>") == 2 and last.count('<tool_output>"sunny"</tool_output>') == 2


QUESTIONS = [
    "How many grams are in 5 kilograms?", "What is 12 + 30?", "Hello!", "How many grams are in 2 kilograms?",
    "Spell train backwards.", "What is 7 + 8?", "How many metres are in 3 kilometres?", "Thank you!",
]  # fmt: skip


@pytest.mark.parametrize("backend", ["eager", "onnx"])
def test_a_conversation_of_eight_turns_enters_what_is_new(backend: str) -> None:
    with ernie_rt.load("demo", backend=backend, dtype="float32", max_context=512) as model:
        assert model.template is not None
        messages: list[Message] = []
        answers, before = [], (0,) * 0
        for question in QUESTIONS:
            messages.append(Message("user", question))
            prompt = model.template.prompt(messages, model.tokenizer)
            answers.append(model.chat(prompt))
            common = next(i for i, (a, b) in enumerate(zip((*before, -1), (*prompt.ids, -2), strict=False)) if a != b)
            assert answers[-1].cached_tokens == common >= 0.8 * len(before)
            before = (*prompt.ids, *answers[-1].ids[:-1])
            messages.append(answers[-1].message)
    with ernie_rt.load("demo", backend=backend, dtype="float32", max_context=512, reuse=False) as model:
        for turn, answer in enumerate(answers):
            again = model.chat(messages[: 2 * turn + 1])
            assert (again.ids, again.cached_tokens) == (answer.ids, 0)
