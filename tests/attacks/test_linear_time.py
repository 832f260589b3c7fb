"""Time that grows with a stranger's text and no faster: four times the text takes less than six times as long.

For each function of text, of whatever a model, a file or a request may say; what is quadratic takes sixteen times as
long. Encoding and decoding by each format of tokenizer, stop strings and the parser of answers are measured where they
are tested (tests/text).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest

from ernie_rt.cli.output import STEERING
from ernie_rt.cli.typed import next_text
from ernie_rt.display import columns, did_you_mean, listed, printable, shown
from ernie_rt.errors import ErnieRtError
from ernie_rt.location import locate
from ernie_rt.text.chat import ChatTemplate
from ernie_rt.text.finding import TokenFinder
from ernie_rt.text.messages import check_tools, parse_messages
from ernie_rt.text.parsers import OutputParser
from ernie_rt.text.spans import Span, encode_spans, find_media, split_media
from ernie_rt.text.stops import StopMatcher
from ernie_rt.text.tokenizer import Detokenizer
from ernie_rt.text.tool_calls import read_calls
from ernie_rt.text.turn_ends import ANSWER, NEXT, turn_ends
from ernie_rt.untrusted_json import parse_json
from support.templates import CHATML, PLAIN, THINKING

UNITS: Final = (
    "a", "<", "<|", " ", "\n", "\u0301", "的", "\\", '"', '\\"', "{", "[", "}", "1,", '"a":', '{"name":"a"},', "</s>",
    "<|im_start|>", "<|IMAGE_PLACEHOLDER|>", "<|image@placeholder|>", "<tool_call>", "</tool_call>", "<think>",
    "\r\n", "\u202e", "\u2581", "ab 的\u0301<",
)  # fmt: skip
TOKENS: Final = {"cls_token": "<s>", "sep_token": "</s>"}
TOKENIZER: Final = locate("demo").tokenizer
MANY: Final = TokenFinder([*(f"<{'a' * n}>" for n in range(500)), *("a" * n for n in range(1, 500))])
PLAINLY, THINKINGLY, STRANGELY = (ChatTemplate(source, TOKENS, "x") for source in (PLAIN, THINKING, CHATML))


def by_letters(begin: str) -> Callable[[str], None]:
    def parse(text: str) -> None:
        parser = OutputParser()
        for letter in begin + text:
            parser.push(letter)
        parser.flush()

    return parse


def streamed(text: str) -> None:
    stream = Detokenizer(TOKENIZER)
    for id in TOKENIZER.encode(text):
        stream.push(id)
    stream.flush()


def never_whole(text: str) -> None:
    """Ids of bytes that begin a character and never end it."""
    byte = next(id for id, piece in enumerate(TOKENIZER.pieces) if piece == b"\xf0")
    stream = Detokenizer(TOKENIZER)
    for _ in text:
        stream.push(byte)
    stream.flush()


def stopped(text: str) -> None:
    matcher = StopMatcher([(text * 2)[:1023] + "\0", "a" * 1000 + "b"])
    for letter in text:
        matcher.push(letter)


def typed(text: str) -> None:
    def lines() -> Iterator[str]:
        yield from ('"""', *text.split("\n"), '"""')

    given = lines()
    next_text(lambda prompt: next(given, None))


def prompted(template: ChatTemplate) -> Callable[[str], object]:
    def encode(text: str) -> object:
        talk = [{"role": "user", "content": text}, {"role": "assistant", "content": text, "reasoning": text}]
        return encode_spans(template.spans([*talk, {"role": "user", "content": text}], TOKENIZER), TOKENIZER)

    return encode


FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "encode": TOKENIZER.encode,
    "a stream of tokens": streamed,
    "a stream without a character": never_whole,
    "special tokens": lambda text: list(TOKENIZER.find_special(text)),
    "a thousand tokens that overlap": lambda text: list(MANY.find(text)),
    "placeholders of pictures": lambda text: [list(find_media(text)), list(split_media([Span(text, True)]))],
    "tool calls": read_calls,
    "a call's arguments": lambda text: read_calls(json.dumps({"name": "a", "arguments": text})),
    "an answer": by_letters(""),
    "an answer's call": by_letters("<tool_call>"),
    "an answer's text in a call": by_letters('<tool_call>{"name": "'),
    "an answer's reasoning": by_letters("<think>"),
    "stop strings": stopped,
    "a message": lambda text: parse_messages([{"role": "user", "content": text}]),
    "messages": lambda text: parse_messages([{"role": "user", "content": letter} for letter in text]),
    "tools": lambda text: check_tools([{text[:99]: text, "a": [*text]}]),
    "a plain prompt": prompted(PLAINLY),
    "a thinking prompt": prompted(THINKINGLY),
    "what ends a turn": lambda text: turn_ends([f"{ANSWER}{text}{NEXT}{text}"], MANY),
    "JSON": lambda text: parse_json(text.encode(), where="x"),
    "lines that are typed": typed,
    "what an error repeats": lambda text: (printable(text), shown(text), listed([text]), did_you_mean(text, ["demo"])),
    "what a terminal gets": lambda text: STEERING.sub("", text),
    "columns": lambda text: columns([["a", text], ["b", "c"]], 80),
}  # fmt: skip
FEW: Final = ("a", "<|", "\n", '\\"')
"""Enough for what looks at one character after the other, whichever they are."""
ALIKE: Final = {"a stream without a character", "stop strings", "messages", "tools", "a message"}
SIZE: Final = 1000
ENOUGH: Final = 0.01
"""Seconds of a long text from which on a comparison means something."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_four_times_the_text_takes_less_than_six_times_as_long(name: str) -> None:
    function = FUNCTIONS[name]

    def seconds(text: str) -> float:
        began = time.process_time()
        with suppress(ErnieRtError):  # most texts are no JSON
            function(text)
        return max(time.process_time() - began, 1e-6)

    seconds("warm")
    for unit in FEW if name in ALIKE else UNITS:
        for size in (SIZE, 8 * SIZE):  # what takes no time yet is told from a longer text
            short, long = ((unit * n)[:n] for n in (size, 4 * size))
            took = seconds(long)
            if took < ENOUGH:
                continue
            # The processor's time is counted, but others take its caches: the best of a few tells.
            ratios = [took / seconds(short)]
            while min(ratios) >= 6 and len(ratios) < 5:
                ratios.append(seconds(long) / seconds(short))
            assert min(ratios) < 6, (unit, size, ratios)
            break
