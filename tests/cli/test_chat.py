"""`ernie-rt chat`, and `run` through a chat template."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_rt import loading
from ernie_rt.cli import store
from ernie_rt.cli.output import AnswerWriter
from ernie_rt.generation.stream import Stream
from support.commands import Outcome, command
from support.says import Says
from support.scripted import ScriptedExecutable, write_chat_checkpoint
from support.templates import PLAIN, THINKING
from support.terminal import Terminal

pytestmark = pytest.mark.usefixtures("one_renderer")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_checkpoint(tmp_path_factory.mktemp("plain") / "model", PLAIN)


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_checkpoint(tmp_path_factory.mktemp("thinking") / "model", THINKING)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "ernie-rt" / "chat"


def chat(folder: Path, typed: str, *options: object) -> Outcome:
    return command("chat", folder, "--backend", "scripted", *options, stdin=typed.encode())


def kept(state: Path) -> list[list[dict[str, str]]]:
    files = sorted(state.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text())["messages"] for path in files]


def test_a_conversation(plain: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(plain, monkeypatch, "Hello 🙂</s>", "Two lines.<|end_of_sentence|>", "Again</s>")
    typed = 'Hi there\n\n   \n"""First\n  second"""\n/system Be brief.\n/retry\n/exit\nnever read\n'
    ran = chat(plain, typed)
    assert (ran.code, ran.out) == (0, "Hello 🙂\nTwo lines.\nAgain\n")
    begin = "<|begin_of_sentence|>"
    second = "User: Hi there\nAssistant: Hello 🙂<|end_of_sentence|>User: First\n  second\nAssistant: "
    assert says.asked == [f"{begin}User: Hi there\nAssistant: ", begin + second, f"{begin}Be brief.\n{second}"]
    assert "system prompt set" in ran.err and "the temperature is 0" in ran.err
    before, messages = kept(state)  # a retry leaves what was there
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[3]["content"] == "First\n  second" and messages[4]["content"] == "Again"
    assert before[3]["content"] == "Two lines."
    assert all(path.stat().st_mode & 0o077 == 0 for path in (state, *state.iterdir()))


def test_reset_begins_another_file(plain: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(plain, monkeypatch, "one</s>", "two</s>", "three</s>")
    assert chat(plain, "a\n/reset\nb\n/system\nc\n", "--system", "S").out == "one\ntwo\nthree\n"
    assert says.asked[1] == "<|begin_of_sentence|>S\nUser: b\nAssistant: "
    assert says.asked[2].startswith("<|begin_of_sentence|>User: b\nAssistant: two")
    assert [len(messages) for messages in kept(state)] == [3, 4]


def test_save_and_load(plain: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "talk.json"
    Says(plain, monkeypatch, "one</s>", "two</s>")
    ran = chat(plain, f"a\n/save first\n/save {file}\nb\n/save first\n")
    assert ran.code == 0 and ran.out == "one\ntwo\n"
    assert len(json.loads(file.read_text())["messages"]) == 2
    assert len(json.loads((state / "first.json").read_text())["messages"]) == 4
    says = Says(plain, monkeypatch, "three</s>", "four</s>")
    ran = chat(plain, f"c\n/load {file}\nd\n", "--load", "first")
    assert ran.out == "three\nfour\n" and "user: b\nassistant: two\n" in ran.err
    assert says.asked[0].endswith("Assistant: two<|end_of_sentence|>User: c\nAssistant: ")
    assert says.asked[1].endswith("User: a\nAssistant: one<|end_of_sentence|>User: d\nAssistant: ")
    assert len(json.loads(file.read_text())["messages"]) == 2, "a loaded conversation goes on elsewhere"
    assert len(kept(state)) == 4
    # What another talk saved is not overwritten, and the latest one is at hand.
    Says(plain, monkeypatch, "five</s>")
    ran = chat(plain, "/load\ne\n/save first\n")
    assert ran.code == 1 and "first.json: exists, and holds another conversation. Choose another name" in ran.err
    assert len(kept(state)[-1]) == 6


def test_forget_writes_nothing(plain: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Says(plain, monkeypatch, "one</s>")
    assert chat(plain, "a\n", "--forget").out == "one\n"
    assert not state.exists()
    Says(plain, monkeypatch, "one</s>")
    ran = chat(plain, "a\n/save x\n", "--forget")
    assert ran.code == 2 and "Give a path ending in .json" in ran.err


def test_a_disk_that_takes_nothing(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    Says(plain, monkeypatch, "one</s>", "two</s>")
    ran = chat(plain, "a\nb\n")
    assert (ran.code, ran.out) == (0, "one\ntwo\n") and ran.err.count("the conversation is not kept") == 1
    assert "Set XDG_STATE_HOME to a folder with room that can be written, or begin with --forget" in ran.err


def test_without_a_home(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The talk goes on, and only what needs the folder is refused."""
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    said = "the conversation is not kept: this user has no home folder. Set XDG_STATE_HOME to the absolute path of"
    Says(plain, monkeypatch, "one</s>", "two</s>")
    ran = chat(plain, f"a\nb\n/save {tmp_path / 'talk.json'}\n")
    assert (ran.code, ran.out, ran.err.count(said)) == (0, "one\ntwo\n", 1)
    assert (tmp_path / "talk.json").exists()
    for given, options in (("a\n/save talk\n", ()), ("/load\n", ()), ("a\n", ("--load", "talk"))):
        Says(plain, monkeypatch, "one</s>")
        ran = chat(plain, given, *options)
        assert ran.code == 1 and ran.err.count("no home folder. Set XDG_STATE_HOME to") == 2
    Says(plain, monkeypatch, "one</s>")
    ran = chat(plain, "a\n", "--forget")
    assert (ran.out, "home" in ran.err) == ("one\n", False)


def test_reasoning_goes_to_standard_error(thinking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        'Well.\n</think>\n\n<response>\nYes.\n</response>\n<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
    )
    says = Says(thinking, monkeypatch, said + "<|im_end|>", "So.</think><response>No.</response><|im_end|>")
    ran = chat(thinking, "Really?\nReally\n")
    assert ran.out == 'Yes.\ntool call: f {"x": 1}\nNo.\n'
    assert "Well.\nSo.\n" in ran.err
    assert "Well." not in says.asked[1] and '<tool_call>\n{"name": "f"' in says.asked[1]


def test_seeds_differ_from_answer_to_answer(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    original = loading.Model.chat

    def watched(self: loading.Model, messages: Any, **options: Any) -> Any:
        seeds.append(options["seed"])
        return original(self, messages, **options)

    monkeypatch.setattr(loading.Model, "chat", watched)
    Says(plain, monkeypatch, *["one</s>"] * 3)
    assert chat(plain, "a\n/retry\n/retry\n", "--temperature", "0.8", "--seed", "7").code == 0
    assert seeds == [7, 8, 9]


@pytest.mark.parametrize(
    ("typed", "options", "code", "message"),
    [
        ("/nope\n", (), 2, "no command '/nope'. /help lists them"),
        ("/retry\n", (), 2, "nothing to answer anew"),
        ("/save x\n", (), 2, "nothing to save"),
        ("/load\n", (), 2, "no other conversation is kept here"),
        ("/load ../x\n", (), 2, "not a name for a conversation"),
        (
            "/load gone\n",
            (),
            2,
            "no conversation 'gone' is kept here; expected a path ending in .json. /list lists them",
        ),
        ("", ("--load", "/etc/hostname"), 2, "not a name for a conversation"),
        ("a\n", ("--max-context", "20"), 2, "the message is longer than the context; expected at most 20 tokens"),
        ("a\n", ("--max-context", "1M"), 2, "max_context is not possible"),
        ("a\n", ("--temperature", "-1"), 2, "temperature is out of range"),
    ],
)
def test_what_cannot_be_done(
    typed: str, options: tuple[str, ...], code: int, message: str, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Says(plain, monkeypatch, "one</s>")
    ran = chat(plain, typed.replace("a\n", "word " * 30 + "\n"), *options)
    assert ran.code == code and message in ran.err and "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", 'expected "format": "ernie-rt chat 1"; found None'),
        ('{"format": "ernie-rt chat 1", "messages": [{"role": "judge", "content": ""}]}', "unknown role"),
        ('{"format": "ernie-rt chat 1", "messages": 3}', "expected a list of messages"),
        ("[", "malformed JSON"),
    ],
)
def test_files_that_are_no_conversation(content: str, message: str, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    ran = command("chat", plain, "--load", tmp_path / "x.json")
    assert ran.code == 2 and message in ran.err and "x.json" in ran.err


def test_a_model_without_a_template(untrained: Path) -> None:
    ran = command("chat", untrained, stdin=b"a\n")
    assert ran.code == 2 and "the model has no chat template. `ernie-rt run` continues plain text" in ran.err
    assert command("chat", untrained, closed="stdin").code == 2


def test_run_answers_through_the_template(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(plain, monkeypatch, "Paris.</s>", "Paris.</s>", " and so on</s>")
    ran = command("run", plain, "Capital?", "--backend", "scripted")
    assert (ran.code, ran.out) == (0, "Paris.\n")
    assert command("run", plain, "Capital?", "--backend", "scripted", "--system", "Be brief.").code == 0
    assert command("run", plain, "Capital?", "--backend", "scripted", "--raw").out == " and so on\n"
    begin = "<|begin_of_sentence|>"
    assert says.asked == [
        f"{begin}User: Capital?\nAssistant: ", f"{begin}Be brief.\nUser: Capital?\nAssistant: ", "Capital?"
    ]  # fmt: skip


def test_run_leaves_out_the_end_of_a_line(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `echo` and editors write it; an argument is taken as it is, and so is text to continue."""
    says = Says(plain, monkeypatch, *["x</s>"] * 5)
    (tmp_path / "prompt").write_text("Capital?\n")
    for arguments in (
        ["Capital?", "--system", ""],
        ["--file", tmp_path / "prompt"],
        ["--file", tmp_path / "prompt", "--raw"],
    ):
        assert command("run", plain, *arguments, "--backend", "scripted").code == 0
    assert command("run", plain, "--backend", "scripted", stdin=b"Capital?\n").code == 0
    assert command("run", plain, "-", "--backend", "scripted", stdin=b"Capital?\n").code == 0
    rendered = "<|begin_of_sentence|>User: Capital?\nAssistant: "
    assert says.asked == [rendered, rendered, "Capital?\n", rendered, rendered]


@pytest.mark.parametrize("options", [(), ("--raw",)])
def test_an_answer_fills_what_the_prompt_leaves(
    options: tuple[str, ...], plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `-n`, near the end of the context; the last token needs no room."""
    Says(plain, monkeypatch, "a " * 40)
    ran = command("run", plain, "word " * 8, "--backend", "scripted", "--json", "--max-context", "32", *options)
    answer = json.loads(ran.out)
    assert answer["finish"] == "length" and answer["prompt_tokens"] + answer["new_tokens"] == 32 + 1


def test_run_tells_reasoning_apart(thinking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Hm.</think>\n<response>\nYes.\n</response>\n<|im_end|>"
    Says(thinking, monkeypatch, said, said)
    ran = command("run", thinking, "?", "--backend", "scripted")
    assert ran.out == "Yes.\n" and "Hm.\n" in ran.err
    ran = command("run", thinking, "?", "--backend", "scripted", "--json")
    answer = json.loads(ran.out)
    assert (answer["text"], answer["reasoning"], answer["tool_calls"]) == ("Yes.", "Hm.", []) and "Hm." not in ran.err


def test_run_says_what_it_took_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_chat_checkpoint(tmp_path / "model", PLAIN)
    fields = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "num_beams": 2}
    (folder / "generation_config.json").write_text(json.dumps(fields))
    Says(folder, monkeypatch, "x</s>", "x</s>")
    ran = command("run", folder, "?", "--backend", "scripted", "-v", "--top-p", "0.5", "--seed", "3")
    assert "chat template ernie\n" in ran.err
    assert "generation_config.json: temperature 0.8, top_p 0.9\n" in ran.err
    assert "generation_config.json: ignored num_beams\n" in ran.err
    assert re.search(r"options: temperature 0.8, top_p 0.5, .*seed 3", ran.err)
    ran = command("run", folder, "?", "--backend", "scripted")
    assert re.search(r" · seed \d+$", ran.err, re.MULTILINE), "it samples, so the seed is said"


def test_a_backend_that_prints_does_not_spoil_the_answer(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(plain, monkeypatch, "Paris.</s>", "Paris.</s>")
    submit = ScriptedExecutable.submit

    def loud(self: ScriptedExecutable, step: Any) -> Any:
        print("banner")
        return submit(self, step)

    monkeypatch.setattr(ScriptedExecutable, "submit", loud)
    ran = command("run", plain, "?", "--backend", "scripted", "--json")
    assert json.loads(ran.out)["text"] == "Paris." and "banner\n" in ran.err
    assert chat(plain, "a\n").out == "Paris.\n" and len(says.asked) == 2


def test_run_refuses_what_has_no_place(untrained: Path, plain: Path) -> None:
    for folder, options in ((untrained, ()), (plain, ("--raw",))):
        ran = command("run", folder, "x", "--system", "y", *options)
        assert ran.code == 2 and "--system needs a chat template" in ran.err
    for given in ("", " \n"):
        ran = command("run", plain, given)
        assert ran.code == 2 and "the prompt is empty" in ran.err


def test_a_saved_conversation_is_not_overwritten_by_the_next(
    plain: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Says(plain, monkeypatch, "one</s>", "two</s>")
    ran = chat(plain, f"a\n/save {tmp_path}/x.json\n/reset\nb\n/save {tmp_path}/x.json\n")
    assert ran.code == 1 and "holds another conversation" in ran.err
    assert json.loads((tmp_path / "x.json").read_text())["messages"][1]["content"] == "one"


def test_the_latest_conversation_is_not_the_present_one(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Says(plain, monkeypatch, "one</s>")
    assert "no other conversation" in chat(plain, "a\n/load\n").err
    Says(plain, monkeypatch, "two</s>")
    assert "assistant: one" in chat(plain, "b\n/load\n").err


def test_names_that_lead_nowhere(plain: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Says(plain, monkeypatch, "one</s>")
    ran = chat(plain, "a\n/save ~nobody/x.json\n")
    assert ran.code == 1 and "cannot be written" in ran.err
    (state / "gone.json").symlink_to(state / "nowhere")
    Says(plain, monkeypatch, "one</s>")
    assert chat(plain, "/load\nb\n").code == 0


@pytest.mark.parametrize("tokens", [(), ("-n", "9999")])
def test_an_answer_that_cannot_fit_is_cut_to_what_does(
    tokens: tuple[str, ...], plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer's last token needs no room."""
    says = Says(plain, monkeypatch, "a " * 40)
    ran = chat(plain, "word word\n", "--max-context", "32", *tokens)
    room = 32 + 1 - len(says.backend.prompts[0])
    assert ran.code == 0
    assert f"the conversation is full, so the answer was cut after {room} tokens. /reset begins a new one" in ran.err
    Says(plain, monkeypatch, "a " * 40)
    ran = chat(plain, "word word\n", "--max-context", "32", "-n", room - 1)
    assert f"the answer was cut after {room - 1} tokens; --max-new-tokens lengthens it\n" in ran.err


def test_a_full_conversation_says_the_way_on(plain: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Says(plain, monkeypatch, "one two three</s>")
    ran = chat(plain, "word word word\nword word word\nand this\n", "--max-context", "40")
    assert (ran.code, ran.out) == (1, "one two three\n")
    last = ran.err.splitlines()
    assert last[-2] == "stopped at message 2 of standard input; what comes after it is not answered"
    assert last[-1].startswith("ernie-rt: the conversation is full; expected at most 40 tokens; found ")
    assert last[-1].endswith(
        "/reset begins a new one, and this one stays on disk; --max-context makes longer ones, up to 8192 tokens"
    )
    assert [message["content"] for message in kept(state)[-1]] == ["word word word", "one two three"]
    says = Says(plain, monkeypatch, "one two three</s>", "four</s>")
    ran = chat(plain, "word word word\n/clear\nword word word\n", "--max-context", "40")
    assert ran.code == 0 and "User: word word word\nAssistant: " in says.asked[1]


@pytest.mark.parametrize("word", ["exit", "quit", " Bye "])
def test_a_farewell_is_no_message(word: str, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(plain, monkeypatch, "one</s>")
    ran = chat(plain, f'{word}\n"""{word}"""\n/quit\nnever\n')
    assert (ran.code, ran.out) == (0, "one\n") and "/exit leaves, as Ctrl-D does\n" in ran.err
    assert len(says.asked) == 1


def test_which_conversations_there_are(plain: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Says(plain, monkeypatch, "one</s>", "two</s>")
    assert "no conversation is kept here" in chat(plain, "/list\n", "--forget").err
    assert chat(plain, "first \x1b[2J\n/save ducks\n/reset\n" + "long " * 30 + "\n/save geese\n").code == 0
    (state / "broken.json").write_text("{")
    shown = chat(plain, "/list\n").err
    assert re.search(r"^ducks +first \\x1b\[2J$", shown, re.MULTILINE)
    assert re.search(r"^geese +(long )+…$", shown, re.MULTILINE)
    assert re.search(r"^broken +\(no conversation\)$", shown, re.MULTILINE)
    assert "Did you mean 'ducks'? /list lists" in chat(plain, "/load duck\n").err
    nope = chat(plain, "/load nope\n").err
    assert "ducks" in nope and "geese" in nope
    for number in range(20):
        (state / f"x{number}.json").write_text("{}")
    assert "… and 5 older ones in " in chat(plain, "/list\n").err


def test_every_answer_ends_its_line(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Says(plain, monkeypatch, "</s>", "two</s>")
    assert chat(plain, "a\nb\n").out == "\ntwo\n"


def test_quotes_of_several_lines(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(plain, monkeypatch, "x</s>", "y</s>")
    assert chat(plain, '"""   \none\ntwo\n"""\n"""three"""\n').out == "x\ny\n"
    assert says.asked[0].endswith("User: one\ntwo\nAssistant: ") and says.asked[1].endswith("User: three\nAssistant: ")


def test_the_largest_seed_has_a_next(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Says(plain, monkeypatch, "x</s>", "y</s>")
    assert chat(plain, "a\nb\n", "--seed", str(2**64 - 1), "--temperature", "1").out == "x\ny\n"


def test_text_around_tool_calls_has_lines_of_its_own(thinking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    Says(thinking, monkeypatch, f"x</think>before{call}{call}after<|im_end|>")
    assert chat(thinking, "a\n").out == "before\ntool call: f {}\ntool call: f {}\nafter\n"


def test_bytes_that_are_no_text(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Says(plain, monkeypatch, "x</s>")
    ran = command("chat", plain, "--backend", "scripted", stdin=b"a\n\xff\xfe\n")
    assert (ran.code, ran.out) == (2, "x\n") and "the prompt is not UTF-8" in ran.err


def test_a_broken_template_is_said_before_loading(plain: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    ran = command("chat", folder, stdin=b"a\n")
    assert ran.code == 2 and "division by zero" in ran.err and "backend" not in ran.err


def test_a_nested_call_can_be_loaded_again(thinking: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nested = "[" * 60 + "]" * 60
    call = f'x</think><tool_call>{{"name": "f", "arguments": {{"x": {nested}}}}}</tool_call><|im_end|>'
    Says(thinking, monkeypatch, call)
    assert chat(thinking, "a\n/save deep\n").code == 0
    Says(thinking, monkeypatch)
    assert chat(thinking, "/load deep\n").code == 0


@pytest.mark.parametrize("anew", [False, True])
def test_an_interrupt_keeps_what_is_worth_it(
    anew: bool, plain: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C cuts nothing off, and a retry that is stopped leaves the former answer."""
    Says(plain, monkeypatch, "one</s>", "two three four</s>")
    shown = AnswerWriter.show
    answers = 0

    def interrupted(self: AnswerWriter, piece: Any) -> None:
        nonlocal answers
        shown(self, piece)
        answers += piece.id is not None
        if answers == 4:
            signal.raise_signal(signal.SIGINT)

    def again(*arguments: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)  # nobody listens any more
        written(*arguments, **options)

    written = store.write_transcript
    monkeypatch.setattr(AnswerWriter, "show", interrupted)
    monkeypatch.setattr(store, "write_transcript", again)
    ran = chat(plain, "a\n/retry\n" if anew else "a\nb\n")
    assert ran.code == 130 and "stopped; " in ran.err
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    messages = kept(state)[-1]
    if anew:
        assert "the former answer stays" in ran.err and [m["content"] for m in messages] == ["a", "one"]
    else:
        assert (
            messages[1]["content"] == "one"
            and "two three".startswith(messages[3]["content"])
            and messages[3]["content"]
        )


def test_nothing_else_is_asked_after_an_interrupt(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first token, in a pipe."""
    says = Says(plain, monkeypatch, "one</s>", "two</s>")

    def interrupted(self: Stream) -> Any:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Stream, "__next__", interrupted)
    ran = chat(plain, "a\nb\n")
    assert ran.code == 130 and "stopped before an answer" in ran.err and says.asked == []


@pytest.fixture
def terminal(untrained: Path, tmp_path: Path) -> Iterator[Terminal]:
    folder = shutil.copytree(untrained, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(PLAIN)
    with Terminal("chat", folder, "--backend", "reference", "-n", "3000") as running:
        yield running


def test_a_talk_on_a_terminal(terminal: Terminal, state: Path) -> None:
    terminal.wait(">>> ")
    terminal.type("hello\n")
    terminal.wait("hello")
    terminal.wait(" ")  # the answer has begun: random words, with spaces between them
    terminal.type("\x03")
    terminal.wait("stopped; what there is of the answer is part of the conversation")
    terminal.wait(">>> ")
    terminal.type("/nope\n")
    terminal.wait("no command '/nope'")
    terminal.wait(">>> ")
    terminal.type('"""two\n')
    terminal.wait("... ")
    time.sleep(0.5)  # readline shows its prompt before it listens to signals
    terminal.type("\x03")  # what was begun is dropped
    terminal.wait(">>> ")
    terminal.type("/save mine\n")
    terminal.wait("saved in")
    terminal.wait(">>> ")
    terminal.type("\x04")
    assert terminal.process.wait(20) == 0
    messages = json.loads((state / "mine.json").read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert "hello\n" in (state / "typed").read_text()
