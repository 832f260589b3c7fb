"""A conversation with a model, and the commands that change it."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ernie_rt.cli.output import AnswerWriter, say
from ernie_rt.cli.pictures import Sight, say_items, shown, typed_path
from ernie_rt.cli.store import Store
from ernie_rt.errors import CapacityError, ContextError, ErnieRtError, OptionError
from ernie_rt.text.media import Media
from ernie_rt.text.media_reader import names
from ernie_rt.text.messages import Message
from ernie_rt.text.showing import check_reader

if TYPE_CHECKING:
    from ernie_rt.generation.options import GenerateOptions
    from ernie_rt.generation.stream import Generation
    from ernie_rt.session import Model

HELP: Final = '''\
/system TEXT   set the system prompt; without TEXT, remove it
/reset         forget the conversation; the system prompt stays (also /clear)
/retry         answer the last message anew
/save NAME     keep the conversation under a name, or in a file (a path ending in .json)
/load NAME     take up a conversation; without NAME, the latest one
/list          the conversations that /load finds
/image FILE    show a picture with the next message, /video FILE a video; without FILE, none after all
/help          this
/exit          leave, as Ctrl-D does (also /quit)
"""            begins a text of several lines, and ends it; what is pasted needs none
Ctrl-C         stops an answer; what there is of it stays in the conversation'''
QUOTES: Final = '"""'
FAREWELLS: Final = ("exit", "quit", "bye")
"""Messages that nobody means for the model."""


class Talk:
    """What was said so far; `ref` names the model, `options` are those of every answer, `sight` is how pictures are
    looked at, and `thinking` whether answers begin with reasoning."""

    def __init__(
        self,
        ref: str,
        options: GenerateOptions,
        store: Store,
        verbose: bool = False,
        *,
        sight: Sight,
        thinking: bool | None = None,
    ) -> None:
        self.messages: list[Message] = []
        self.store = store
        self._ref = ref
        self._options = options
        self._verbose = verbose
        self._sight = sight
        self._thinking = thinking
        self._answers = 0
        self._waiting: list[Media] = []
        """Pictures and videos that go with the next message."""

    def take(self, text: str, model: Model) -> bool:
        """Obey a command or answer a message; False when it was to leave."""
        command, _, argument = text.partition(" ")
        argument = argument.strip()
        match command:
            case "/exit" | "/quit":
                return False
            case "/help":
                say(HELP)
            case "/list":
                say("\n".join(self.store.kept()) or "no conversation is kept here")
            case "/system":
                self.system(argument)
            case "/reset" | "/clear":
                self.messages = self.messages[:1] if self._has_system() else []
                self._waiting.clear()
                self.store.begin()
                say("a new conversation")
            case "/retry":
                self._retry(model)
            case "/image":
                self._show([self._sight.image(typed_path(argument))] if argument else [], model)
            case "/video":
                self._show([self._sight.video(typed_path(argument))] if argument else [], model)
            case "/save":
                say(f"saved in {self.store.save(argument, self._ref, self.messages)}")
            case "/load":
                self.load(argument)
            case _ if command.startswith("/") and "\n" not in text:
                raise OptionError(
                    f"no command {command[:40]!r}", hint=f"/help lists them; {QUOTES} goes around a message with a /"
                )
            case _ if text.strip().casefold() in FAREWELLS:
                say("/exit leaves, as Ctrl-D does")
            case _:
                if text.startswith(QUOTES):
                    text = text.removeprefix(QUOTES).rstrip().removesuffix(QUOTES).rstrip("\n")
                    text = re.sub(r"\A[ \t]*\n", "", text)
                if text.strip():
                    message = Message("user", (*self._waiting, text) if self._waiting else text)
                    self._answer([*self.messages, message], model)
                    if any(each is message for each in self.messages):
                        self._waiting.clear()
        return True

    def system(self, text: str) -> None:
        """Set the system prompt, or remove it when the text is empty."""
        rest = self.messages[1:] if self._has_system() else self.messages
        self.messages = [Message("system", text), *rest] if text else rest
        say("system prompt set" if text else "no system prompt")

    def load(self, name: str) -> None:
        """Take up a conversation, and show how it ended."""
        path, messages = self.store.load(name)
        self.messages = list(messages)
        turns = sum(message.role == "user" for message in messages)
        say(f"{path}: {turns} messages of yours")
        for message in messages[-2:]:
            say(f"{message.role}: {message.text}")

    def _show(self, media: list[Media], model: Model) -> None:
        """Read a picture or video that goes with the next message; where there is none, let go of those that wait."""
        check_reader(media, model.reader)
        if not media:
            self._waiting.clear()
            say("nothing goes with your next message")
            return
        assert model.reader is not None
        item = model.reader.item(media[0])
        self._waiting += media
        before = [part for message in self.messages for part in message.media]
        name = names([*before, *self._waiting])[-1]
        say(f"{name}, which goes with your next message: {shown(item)}")
        say_items([(name, item)], verbose=False)

    def _has_system(self) -> bool:
        return bool(self.messages) and self.messages[0].role == "system"

    def _retry(self, model: Model) -> None:
        asked = max((n for n, message in enumerate(self.messages) if message.role == "user"), default=None)
        if asked is None:
            raise OptionError("nothing to answer anew", hint="Say something first")
        if (model.defaults.options | self._options).get("temperature", 0) == 0:
            say("the temperature is 0, so the same message gets the same answer; --temperature 0.8 varies it")
        self._answer(self.messages[: asked + 1], model, anew=True)

    def _answer(self, messages: list[Message], model: Model, anew: bool = False) -> None:
        """Answer `messages` and, if something came, take them and the answer for the conversation.

        One that is answered `anew` goes on in another file, so the former answer stays on disk; when it is interrupted,
        the former one stays in the conversation too.
        """
        prompt = model.prompt(messages, thinking=self._thinking)
        if len(prompt.ids) > model.capacity:
            raise _too_long(messages, len(prompt.ids), model)
        stream = model.chat(prompt, stream=True, **self._options_now(model, len(prompt.ids)))
        interrupted = False
        with one_interrupt():
            try:
                with stream, AnswerWriter() as writer:
                    for piece in stream:
                        writer.show(piece)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                answer = stream.generation
                if answer.ids and not (interrupted and anew):
                    if anew:
                        self.store.begin()
                    self._answers += 1
                    self.messages = [*messages, answer.message]
                    self.store.keep(self._ref, self.messages)
            self._remark(answer, interrupted, anew, model)
        if interrupted and not sys.stdin.isatty():
            raise KeyboardInterrupt

    def _options_now(self, model: Model, prompt_tokens: int) -> GenerateOptions:
        options = self._options.copy()
        if "max_new_tokens" in options:
            options["max_new_tokens"] = max(1, min(options["max_new_tokens"], model.capacity + 1 - prompt_tokens))
        if (seed := options.get("seed")) is not None:
            # Each answer of a conversation has a seed of its own, or a retry could change nothing.
            options["seed"] = (seed + self._answers) % 2**64
        return options

    def _remark(self, answer: Generation, interrupted: bool, anew: bool, model: Model) -> None:
        if interrupted and anew:
            say("stopped; the former answer stays part of the conversation")
        elif interrupted and not answer.ids:
            say("stopped before an answer; your message is not part of the conversation")
        elif interrupted:
            say("stopped; what there is of the answer is part of the conversation")
        elif answer.finish == "length" and answer.prompt_tokens + len(answer.ids) > model.capacity:
            say(f"the conversation is full, so the answer was cut after {len(answer.ids)} tokens. {_way_on(model)}")
        elif answer.finish == "length":
            say(f"the answer was cut after {len(answer.ids)} tokens; --max-new-tokens lengthens it")
        if self._verbose:
            rate = f"{(len(answer.ids) - 1) / answer.decode_seconds:.1f} tokens/s" if len(answer.ids) > 1 else "-"
            cached = f", {answer.cached_tokens} of them in the cache," if answer.cached_tokens else ""
            took = f"{answer.prompt_tokens} tokens{cached} in {answer.prefill_seconds:.1f} s"
            say(f"{took} · {len(answer.ids)} new, {rate}")


def _too_long(messages: Sequence[Message], tokens: int, model: Model) -> ErnieRtError:
    """A conversation that has become too long, or a message that is too long by itself."""
    limits = {"expected": f"at most {model.capacity} tokens", "found": f"{tokens}"}
    if sum(message.role == "user" for message in messages) > 1:
        return CapacityError("the conversation is full", **limits, hint=_way_on(model))
    longest = model.config.max_position_embeddings
    wider = f", or begin with --max-context, up to {longest}" if model.capacity < longest else ""
    return ContextError("the message is longer than the context", **limits, hint=f"Shorten it{wider}")


def _way_on(model: Model) -> str:
    longest = model.config.max_position_embeddings
    wider = f"; --max-context makes longer ones, up to {longest} tokens" if model.capacity < longest else ""
    return f"/reset begins a new one, and this one stays on disk{wider}"


@contextmanager
def one_interrupt() -> Iterator[None]:
    """The first Ctrl-C in the block raises KeyboardInterrupt; a second one, out of impatience, cuts nothing off."""
    before = signal.getsignal(signal.SIGINT)

    def first(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
