"""A long text in windows that a model can take, each token predicted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ernie_rt.errors import OptionError, PromptError


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `begin` to `stop` of a text, of which those from `first` on are predicted, each from all before it in the
    window."""

    begin: int
    first: int
    stop: int


def windows(tokens: int, context: int, stride: int) -> Iterator[Window]:
    """Windows of `context` tokens, of which one begins every `stride` tokens, until the last one reaches the end.

    A window predicts what no window before it has: the first all its tokens but the first one, which nothing comes
    before, and every other one its last `stride` or, at the end of the text, fewer. With a stride of the context
    windows have nothing in common, and the first token of each is predicted by none.
    """
    if context < 2:
        raise OptionError("context is not possible", expected="at least 2 tokens", found=context)
    if not 1 <= stride <= context:
        raise OptionError("stride is not possible", expected=f"1 to {context}, the context", found=stride)
    if tokens < 2:
        raise PromptError("the text is too short to predict a token of it", expected="two tokens", found=tokens)
    predicted = 0
    for begin in range(0, tokens, stride):
        stop = min(begin + context, tokens)
        first = max(predicted, begin + 1)
        if first < stop:
            yield Window(begin, first, stop)
        predicted = stop
        if stop == tokens:
            return
