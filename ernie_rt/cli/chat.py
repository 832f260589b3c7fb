"""`ernie-rt chat`: talk with a model."""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ernie_rt.cli import options as opt
from ernie_rt.cli.output import AnswerWriter, one_line, safe, say
from ernie_rt.errors import ErnieRtError, OptionError, PromptError

if TYPE_CHECKING:
    from ernie_rt.runtime.options import GenerateOptions
    from ernie_rt.session import Model
    from ernie_rt.text.messages import Message

HELP: Final = '''\
/system TEXT   set the system prompt; without TEXT, remove it
/reset         forget the conversation; the system prompt stays
/retry         answer the last message anew
/save NAME     keep the conversation under a name, or in a file (a path ending in .json)
/load NAME     take up a conversation; without NAME, the latest one
/help          this
/exit          leave, as Ctrl-D does
"""            begins a text of several lines, and ends it
Ctrl-C         stops an answer; what there is of it stays in the conversation'''
QUOTES: Final = '"""'


def chat(
    model: opt.Ref,
    system: opt.System = None,
    resume: Annotated[
        str | None, typer.Option("--load", metavar="NAME", help="Take up a saved conversation: a name or a .json file.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep/--forget", help="Keep what is typed and said on disk, or write nothing.")
    ] = True,
    max_new_tokens: opt.NewTokens = None,
    temperature: opt.Temperature = None,
    top_p: opt.TopP = None,
    top_k: opt.TopK = None,
    min_p: opt.MinP = None,
    seed: opt.Seed = None,
    repetition_penalty: opt.Repetition = None,
    stop: opt.Stop = None,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    max_context: Annotated[
        str | None, typer.Option(help="How many tokens the conversation may have, such as 8k.")
    ] = None,
    max_batch_tokens: opt.BatchTokens = 512,
    threads: opt.Threads = None,
    memory: opt.Memory = None,
    verbose: opt.Verbose = False,
) -> None:
    """Talk with a model; /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.

    Each conversation is kept in a file of its own, in ~/.local/state/ernie-rt/chat or where XDG_STATE_HOME says.
    """
    from ernie_rt.cli.loaded import loaded
    from ernie_rt.cli.output import parse_size
    from ernie_rt.location import locate
    from ernie_rt.runtime.options import plan

    if sys.stdin is None:
        raise PromptError("standard input is closed, so there is nobody to talk with", hint="`ernie-rt run` needs none")
    options = opt.given_options(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed,
        repetition_penalty=repetition_penalty, stop=stop,
    )  # fmt: skip
    located = locate(model)
    settled = located.defaults().options | options
    plan(located.config.eos_token_id, located.config.vocab_size, **settled)
    if located.template() is None:
        raise PromptError("the model has no chat template", where=model, hint="`ernie-rt run` continues plain text")
    talk = Talk(model, options, Store(_state_folder() if keep else None), verbose)
    if resume is not None:
        talk.load(resume)
    if system is not None:
        talk.system(system)
    with loaded(
        located, backend=backend, device=device, dtype=dtype,
        max_context=None if max_context is None else parse_size(max_context),
        max_batch_tokens=max_batch_tokens, threads=threads, memory=memory,
    ) as ready:  # fmt: skip
        if verbose:
            say(f"options: {opt.describe(settled)}")
        if sys.stdin.isatty() and sys.stdout.isatty():
            say("/help lists the commands")
            with _line_editing(talk.store.folder):
                _typed(talk, ready)
        else:
            while (text := next_text(_piped)) is not None and talk.take(text, ready):
                pass


class Talk:
    """A conversation with a model, and the commands that change it."""

    def __init__(self, ref: str, options: GenerateOptions, store: Store, verbose: bool = False) -> None:
        self.messages: list[Message] = []
        self._ref = ref
        self._options = options
        self.store = store
        self._verbose = verbose
        self._answers = 0

    def take(self, text: str, model: Model) -> bool:
        """Obey a command or answer a message; False when it was to leave."""
        command, _, argument = text.partition(" ")
        argument = argument.strip()
        match command:
            case "/exit" | "/quit" | "/bye":
                return False
            case "/help" | "/?":
                say(HELP)
            case "/system":
                self.system(argument)
            case "/reset":
                self.messages = self.messages[:1] if self._has_system() else []
                self.store.begin()
                say("a new conversation")
            case "/retry":
                self._retry(model)
            case "/save":
                say(f"saved in {self.store.save(argument, self._ref, self.messages)}")
            case "/load":
                self.load(argument)
            case _ if command.startswith("/") and "\n" not in text:
                raise OptionError(
                    f"no command {command[:40]!r}",
                    hint=f"/help lists them; a message that begins with / goes in {QUOTES}",
                )
            case _:
                self._say(text, model)
        return True

    def system(self, text: str) -> None:
        from ernie_rt.text.messages import Message

        rest = self.messages[1:] if self._has_system() else self.messages
        self.messages = [Message("system", text), *rest] if text else rest
        say("system prompt set" if text else "no system prompt")

    def load(self, name: str) -> None:
        path, messages = self.store.load(name)
        self.messages = list(messages)
        turns = sum(message.role == "user" for message in messages)
        say(f"{path}: {turns} messages of yours")
        for message in messages[-2:]:
            say(safe(f"{message.role}: {message.content}", sys.stderr))

    def _has_system(self) -> bool:
        return bool(self.messages) and self.messages[0].role == "system"

    def _retry(self, model: Model) -> None:
        asked = max((n for n, message in enumerate(self.messages) if message.role == "user"), default=None)
        if asked is None:
            raise OptionError("nothing to answer anew", hint="Say something first")
        if (model.defaults.options | self._options).get("temperature", 0) == 0:
            say("the temperature is 0, so the same message gets the same answer; --temperature 0.8 varies it")
        self._answer(self.messages[: asked + 1], model)

    def _say(self, text: str, model: Model) -> None:
        from ernie_rt.text.messages import Message

        if text.startswith(QUOTES):
            text = text.removeprefix(QUOTES).rstrip().removesuffix(QUOTES).strip("\n")
        if text.strip():
            self._answer([*self.messages, Message("user", text)], model)

    def _answer(self, messages: list[Message], model: Model) -> None:
        """Answer `messages` and, if something came, take them and the answer for the conversation."""
        options = self._options
        if options.get("seed") is not None:
            # Each answer of a conversation has a seed of its own, or a retry could change nothing.
            options = options | {"seed": (options["seed"] or 0) + self._answers}
        stream = model.chat(messages, stream=True, **options)
        writer = AnswerWriter()
        interrupted = False
        with stream:
            try:
                for piece in stream:
                    writer.show(piece)
            except KeyboardInterrupt:
                interrupted = True
        writer.end()
        answer = stream.generation
        if interrupted and not answer.ids:
            say("stopped before an answer; your message is not part of the conversation")
            return
        if interrupted:
            say("stopped; what there is of the answer is part of the conversation")
        elif answer.finish == "length":
            say(f"the answer was cut after {len(answer.ids)} tokens; --max-new-tokens and --max-context lengthen it")
        if self._verbose:
            rate = f"{(len(answer.ids) - 1) / answer.decode_seconds:.1f} tokens/s" if len(answer.ids) > 1 else "-"
            say(f"{answer.prompt_tokens} tokens in {answer.prefill_seconds:.1f} s · {len(answer.ids)} new, {rate}")
        self._answers += 1
        self.messages = [*messages, answer.message]
        self.store.keep(self._ref, self.messages)
        if interrupted and not sys.stdin.isatty():
            raise typer.Exit(130)


class Store:
    """Conversations on disk: each kept as it grows, in a file named by when it began, or saved under a name.

    `folder` is made when it is first needed; None keeps nothing by itself.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._mine: set[Path] = set()
        self._complained = False
        self.begin()

    def begin(self) -> None:
        """From now on it is another conversation."""
        self._name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{secrets.token_hex(2)}"

    def keep(self, model: str, messages: list[Message]) -> None:
        """Write the conversation as it stands; a disk that does not take it is mentioned once."""
        from ernie_rt.text.transcript import write_transcript

        if self.folder is None:
            return
        try:
            write_transcript(self._make() / f"{self._name}.json", model, messages, overwrite=True)
        except ErnieRtError as error:
            if not self._complained:
                say(f"the conversation is not kept: {error}")
            self._complained = True

    def save(self, name: str, model: str, messages: list[Message]) -> Path:
        """Write the conversation under a name; a file that was there before it is left alone."""
        from ernie_rt.text.transcript import write_transcript

        if not messages:
            raise OptionError("nothing to save", hint="Say something first")
        path = self._path(name, make=True)
        write_transcript(path, model, messages, overwrite=path in self._mine)
        self._mine.add(path)
        return path

    def load(self, name: str) -> tuple[Path, tuple[Message, ...]]:
        """Read a conversation; it goes on in a file of its own, so the one that was read stays as it is."""
        from ernie_rt.text.transcript import read_transcript

        path = self._path(name) if name else self._latest()
        messages = read_transcript(path)
        self.begin()
        return path, messages

    def _path(self, name: str, make: bool = False) -> Path:
        if name.endswith(".json"):
            return Path(name).expanduser()
        if not re.fullmatch(r"[\w][\w. -]{0,99}", name):
            raise OptionError("not a name for a conversation", expected="letters and digits, or a path ending in .json",
                              found=repr(name[:40]))  # fmt: skip
        if self.folder is None:
            raise OptionError("names need the folder that --forget does without", hint="Give a path ending in .json")
        return (self._make() if make else self.folder) / f"{name}.json"

    def _latest(self) -> Path:
        found = [] if self.folder is None else sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise OptionError("no conversation is kept here", where=str(self.folder), hint="/load takes a name or path")
        return found[-1]

    def _make(self) -> Path:
        from ernie_rt.errors import WriteError

        assert self.folder is not None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError("cannot be made", where=str(self.folder), found=error.strerror) from error
        return self.folder


def _typed(talk: Talk, model: Model) -> None:
    """Take what a person types until it ends; errors are said, and the talk goes on."""
    while True:
        try:
            text = next_text(_type)
            if text is None or not talk.take(text, model):
                return
        except KeyboardInterrupt:
            say("")
        except ErnieRtError as error:
            say(one_line(error))


def _type(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        say("")
        return None


def _piped(prompt: str) -> str | None:
    line = sys.stdin.readline()
    return line.removesuffix("\n") if line else None


def next_text(read: Callable[[str], str | None]) -> str | None:
    """The next message or command: a line, or all from three quotes to the next three. None at the end of input.

    `read` is given a prompt to show and returns a line without its end, None when there is no more.
    """
    while True:
        text = read(">>> ")
        if text is None:
            return None
        while text.startswith(QUOTES) and (len(text) < 2 * len(QUOTES) or not text.rstrip().endswith(QUOTES)):
            more = read("... ")
            if more is None:
                break
            text = f"{text}\n{more}"
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PromptError("what was typed is not UTF-8", hint="Set the terminal to UTF-8") from None
        if text.strip():
            return text


@contextmanager
def _line_editing(folder: Path | None) -> Iterator[None]:
    """Arrow keys, and the lines of former talks behind them, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    readline.set_history_length(1000)
    if folder is not None:
        with suppress(OSError):
            readline.read_history_file(folder / "typed")
    try:
        yield
    finally:
        if folder is not None and folder.is_dir():
            with suppress(OSError):
                readline.write_history_file(folder / "typed")


def _state_folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "ernie-rt" / "chat"
