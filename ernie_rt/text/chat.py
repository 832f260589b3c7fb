"""Conversations to token ids, by a checkpoint's chat template.

A rendered conversation is a list of spans: scaffold, which the template wrote, and content, which people, tools and
models wrote. Special tokens, and what stands for pictures, are recognised in scaffold alone, so no content can forge
one.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ernie_rt.display import shown
from ernie_rt.errors import OptionError, PromptError, TemplateError, TemplateLimitError
from ernie_rt.files import member, read_bytes
from ernie_rt.text import sandbox
from ernie_rt.text.added_files import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, read_optional
from ernie_rt.text.finding import TokenFinder
from ernie_rt.text.foreign import SWITCHES, render_foreign, template_context
from ernie_rt.text.media import Media
from ernie_rt.text.media_reader import MediaReader, Placed
from ernie_rt.text.messages import Conversation, Message, check_tools, parse_messages, parse_parts
from ernie_rt.text.native import NATIVE, PROBES, Render, write_parts
from ernie_rt.text.parsers import TAGS, OutputParser
from ernie_rt.text.showing import check_reader, encode_showing
from ernie_rt.text.spans import Span, find_media, spans_text
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt.text.turn_ends import TALKS, turn_ends

KNOWN: Final[Mapping[str, str]] = {
    "471fb571976770318fe6f27749e37940be8d29c0a7770558140f141f5906f2a2": "ernie",
}
"""Native templates by the SHA-256 of their text: the plain one as several public copies have it."""
BRACKETED: Final = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")
"""What tokens look like that templates write around turns: `<|end|>`, `[/INST]`, `<end of turn>`."""


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation as a model takes it: token ids, and what to do with the answer.

    `stop_ids` end the answer besides eos. `tags` are those of `<think>` and the like that the template has a use for,
    `thinking` says whether the answer begins inside `<think>`. `items` are its pictures and videos, each behind the
    place at which the ids that stand for it begin.
    """

    ids: tuple[int, ...]
    stop_ids: tuple[int, ...] = ()
    tags: frozenset[str] = frozenset()
    thinking: bool = False
    items: tuple[Placed, ...] = ()

    def parser(self) -> OutputParser | None:
        """A fresh parser of the answer; None where all of it is text."""
        return OutputParser(self.thinking) if self.tags or self.thinking else None


class ChatTemplate:
    """A checkpoint's chat template. Reading one runs nothing; what it says is first executed when it is used."""

    def __init__(self, source: str, tokens: Mapping[str, str], where: str, kind: str | None = None) -> None:
        """`tokens` are the named tokens that a template refers to (cls_token, …); `where` is named in errors; `kind` is
        there where it is known.

        A byte order mark is left out, and lines end as on Unix, which Jinja makes of them anyway.
        """
        self.source = re.sub("\r\n?", "\n", source.removeprefix("\ufeff"))
        self.tokens = tokens
        self._where = where
        self._known = kind
        self._renderer = sandbox.Renderer()

    @classmethod
    def load(cls, folder: Path, default: str | None = None) -> ChatTemplate | None:
        """From chat_template.jinja, chat_template.json or tokenizer_config.json, the first that has one; else a native
        one of the kind `default`, or None."""
        settings: dict[str, Any] = {}
        for name in (SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG):
            settings |= read_optional(folder, name)
        tokens: dict[str, str] = {}
        for key, value in settings.items():
            content = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(content, str) and content:
                tokens[key] = content
        for name in ("chat_template.jinja", "chat_template.json", TOKENIZER_CONFIG):
            source = _source(folder, name)
            if source:
                return cls(source, tokens, str(folder / name))
        return None if default is None else cls("", tokens, str(folder), default)

    @cached_property
    def kind(self) -> str:
        """Who renders it: "ernie", "ernie-thinking" or "ernie-vl" natively, "foreign" Jinja in a child process.

        Told by its digest or, of an unknown template, by what it makes of some conversations: TemplateLimitError
        when it exceeds its limits already there.
        """
        return self._known or KNOWN.get(hashlib.sha256(self.source.encode()).hexdigest()) or self._probe()

    def spans(
        self,
        messages: Iterable[Message | Mapping[str, Any]],
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]] | None = (),
        add_generation_prompt: bool = True,
        thinking: bool | None = None,
    ) -> list[Span]:
        """Render a conversation; PromptError for one that the template has no place for, or TemplateError.

        `thinking` says whether the answer is to begin with reasoning: OptionError where the template has no switch.
        """
        chat = Conversation(parse_messages(messages), check_tools(tools), add_generation_prompt, thinking)
        return self._render(chat, tokenizer)

    def prompt(
        self,
        messages: Iterable[Message | Mapping[str, Any]],
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]] | None = (),
        *,
        thinking: bool | None = None,
        reader: MediaReader | None = None,
        most: int | None = None,
    ) -> ChatPrompt:
        """The prompt that asks for an answer to a conversation; raises as `spans` does.

        `reader` reads pictures and videos: PromptError where there are some and it is None, or one cannot be used, and
        ContextError where the prompt has more than `most` tokens with them; TemplateError where the template leaves one
        out. TokenizerError where the tokenizer lacks a token of a native template, or of pictures.
        """
        chat = Conversation(parse_messages(messages), check_tools(tools), True, thinking)
        check_reader(chat.media, reader)
        spans = self._render(chat, tokenizer)
        ending = [*itertools.takewhile(lambda span: span.scaffold, reversed(spans))]
        thinks = spans_text(reversed(ending)).rstrip("\n").endswith("<think>")
        ids, items = encode_showing(spans, chat.media, tokenizer, reader, most, self._where)
        return ChatPrompt(ids, self.stop_ids(tokenizer), self._tags, thinks, items)

    def stop_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """What ends an answer besides eos: the special tokens that the template puts after one, if it puts any.

        Raises as `kind` does; TokenizerError where the tokenizer lacks one of a native template.
        """
        texts, needed = self._answered
        # A token of a turn's end may be text by its flags.
        text = {token.content: token.id for token in tokenizer.added if BRACKETED.fullmatch(token.content)}
        ends = turn_ends(texts, TokenFinder({*tokenizer.reserved, *text, *needed}))
        return tuple(text[token] if token in text else tokenizer.encode_special(token) for token in ends)

    @property
    def switches(self) -> bool:
        """Whether the template can be told if the answer is to begin with reasoning."""
        return self.kind == "ernie-vl" if self.kind in NATIVE else any(word in self.source for word in SWITCHES)

    @property
    def _tags(self) -> frozenset[str]:
        match self.kind:
            case "ernie":
                return frozenset()
            case "ernie-vl":
                return frozenset({"<think>"})
        return frozenset(tag for tag in TAGS[""] if tag in self.source)

    def _render(self, chat: Conversation, tokenizer: Tokenizer) -> list[Span]:
        native = NATIVE.get(self.kind)
        if not isinstance(chat.thinking, bool | None):
            raise OptionError("thinking is not possible", expected="True or False", found=shown(chat.thinking))
        if chat.thinking is not None and not self.switches:
            raise OptionError("the model's chat template has no switch for thinking", hint="Leave it out")
        if native is not None:
            return native(chat, self.tokens)
        return render_foreign(self._renderer, self.source, chat, self.tokens, tokenizer, self._where)

    @cached_property
    def _answered(self) -> tuple[list[str], frozenset[str]]:
        """What it makes of those of `TALKS` that it has a place for, and the tokens that it cannot do without."""
        native = NATIVE.get(self.kind)
        if native is not None:
            rendered: list[list[Span]] = []
            for talk in TALKS:
                with suppress(PromptError):
                    rendered.append(native(talk, self.tokens))
            needed = frozenset(span.text for spans in rendered for span in spans if span.token)
            return [spans_text(spans) for spans in rendered], needed
        contexts = [template_context(talk, self.tokens) for talk in TALKS]
        for first in range(len(contexts)):
            try:
                texts = self._renderer.render(self.source, contexts[first:], self._where)
            except TemplateLimitError:
                raise
            except TemplateError:  # none for the first of them
                continue
            return [text for text in texts if text is not None], frozenset()
        return [], frozenset()

    def _probe(self) -> str:
        probes = [template_context(probe, self.tokens) for probe in itertools.chain(*PROBES.values())]
        try:
            texts = iter(self._renderer.render(self.source, probes, self._where))
        except TemplateLimitError:
            raise
        except TemplateError:  # it may have a use for other conversations
            return "foreign"
        theirs = {kind: [*itertools.islice(texts, len(asked))] for kind, asked in PROBES.items()}
        sees = any(any(find_media(text or "")) for text in theirs["ernie-vl"])
        for kind, render in NATIVE.items():
            ours = [_makes(render, probe, self.tokens) for probe in PROBES[kind]]
            if ours == theirs[kind] and sees == (kind == "ernie-vl"):
                self._renderer.close()
                return kind
        return "foreign"


def encode_parts(
    parts: Iterable[object], tokenizer: Tokenizer, reader: MediaReader | None, most: int | None = None
) -> ChatPrompt:
    """A text with pictures and videos, to be continued: each is written as ERNIE's own template writes it.

    Raises as `ChatTemplate.prompt` does.
    """
    checked = parse_parts(parts, "the prompt")
    media = tuple(part for part in checked if isinstance(part, Media))
    check_reader(media, reader)
    ids, items = encode_showing(list(write_parts(checked, {})), media, tokenizer, reader, most, "the prompt")
    return ChatPrompt(ids, items=items)


def _makes(render: Render, probe: Conversation, tokens: Mapping[str, str]) -> str:
    """What a native template makes of a probe; tools, where it has no place for them, must be left out."""
    try:
        return spans_text(render(probe, tokens))
    except PromptError:
        return spans_text(render(replace(probe, tools=()), tokens))


def _source(folder: Path, name: str) -> str:
    """The template that a file has; "" for none."""
    where = str(folder / name)
    if name.endswith(".jinja"):
        data = read_bytes(member(folder, name), sandbox.TEMPLATE_BYTES) if os.path.lexists(where) else b""
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise TemplateError(
                "the chat template is not UTF-8", where=where, found=str(error), hint="Save it as UTF-8"
            ) from None
    source = read_optional(folder, name).get("chat_template")
    if isinstance(source, dict):
        source = [{"name": name, "template": template} for name, template in source.items()]
    if isinstance(source, list):  # several, by name
        named = [item for item in source if isinstance(item, dict) and item.get("name") == "default"]
        if not named:
            raise TemplateError("no template named default", where=where, found=ascii(source)[:80])
        source = named[-1].get("template")
    if not isinstance(source, str | None):
        raise TemplateError("chat_template is not text", where=where, found=repr(source)[:40])
    return source or ""
