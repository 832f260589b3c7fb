"""`ernie-rt chat`: talk with a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ernie_rt.cli import options as opt
from ernie_rt.cli.output import PROMPT_LIMIT, decode_prompt, one_line, parse_size, say
from ernie_rt.cli.talk import QUOTES
from ernie_rt.errors import ErnieRtError, PromptError

if TYPE_CHECKING:
    from ernie_rt.cli.talk import Talk
    from ernie_rt.session import Model


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
    from ernie_rt.cli.loaded import explain, loaded
    from ernie_rt.cli.store import Store
    from ernie_rt.cli.talk import Talk
    from ernie_rt.location import locate
    from ernie_rt.runtime.options import NEW_CHAT_TOKENS, plan

    if sys.stdin is None:
        raise PromptError("standard input is closed, so there is nobody to talk with", hint="`ernie-rt run` needs none")
    options = opt.given_options(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed,
        repetition_penalty=repetition_penalty, stop=stop,
    )  # fmt: skip
    # What is wrong is said before the weights are read.
    located = locate(model)
    settled = located.defaults().settle(options, room=NEW_CHAT_TOKENS, new_tokens=NEW_CHAT_TOKENS)
    plan(located.config.eos_token_id, located.config.vocab_size, **settled)
    template = located.template()
    if template is None:
        raise PromptError("the model has no chat template", where=model, hint="`ernie-rt run` continues plain text")
    template.prompt([{"role": "user", "content": "Hello"}], located.tokenizer())
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
            explain(located, template, settled)
        if sys.stdin.isatty():
            say("/help lists the commands")
            with _keyboard(talk.store.folder) as read:
                _typed(talk, ready, read)
        else:
            while (text := next_text(_piped)) is not None and talk.take(text, ready):
                pass


def _typed(talk: Talk, model: Model, read: Callable[[str], str | None]) -> None:
    """Take what a person types until it ends; errors are said, and the talk goes on."""
    while True:
        try:
            text = next_text(read)
            if text is None or not talk.take(text, model):
                return
        except KeyboardInterrupt:
            say("")
        except ErnieRtError as error:
            say(one_line(error))


def next_text(read: Callable[[str], str | None]) -> str | None:
    """The next message or command: a line, or all from three quotes to the next three. None at the end of input.

    `read` is given a prompt to show and returns a line without its end, None when there is no more.
    """
    while True:
        text = read(">>> ")
        if text is None:
            return None
        while text.startswith(QUOTES) and (len(text.rstrip()) < 2 * len(QUOTES) or not text.rstrip().endswith(QUOTES)):
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


def _piped(prompt: str) -> str | None:
    line = sys.stdin.buffer.readline(PROMPT_LIMIT + 1)
    if len(line) > PROMPT_LIMIT:
        raise PromptError("a line is too long for a message", expected=f"at most {PROMPT_LIMIT} bytes")
    return decode_prompt(line).removesuffix("\n") if line else None


@contextmanager
def _keyboard(folder: Path | None) -> Iterator[Callable[[str], str | None]]:
    """Reads lines from a terminal: with arrow keys, and the lines of former talks behind them, where there is readline.

    Each line is added to those on disk at once, so that talks side by side keep one another's.
    """
    history = None if folder is None else folder / "typed"
    readline: Any = None
    if sys.stdout.isatty():
        with suppress(ImportError):
            import readline
    if readline is not None and history is not None:
        with suppress(OSError):
            history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            history.touch(mode=0o600)
            readline.read_history_file(history)

    def read(prompt: str) -> str | None:
        try:
            if not sys.stdout.isatty():
                print(prompt, end="", file=sys.stderr, flush=True)
            line = input(prompt if sys.stdout.isatty() else "")
        except EOFError:
            say("")
            return None
        if readline is not None and history is not None and line.strip():
            with suppress(OSError):
                readline.append_history_file(1, history)
        return line

    yield read


def _state_folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "ernie-rt" / "chat"
