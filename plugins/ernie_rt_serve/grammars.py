"""Constraints by llguidance: grammars, compiled for the tokens of one model, and walked by its sequences."""

from __future__ import annotations

import json
import re
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from ernie_rt.errors import CapacityError, OptionError
from ernie_rt.sampling.constraint import ConstraintState, Mask
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt.untrusted_json import is_text
from ernie_rt.worker import Worker, folders_of

LIMITS: Final[dict[str, Any]] = {
    "initial_lexer_fuel": 500_000, "step_lexer_fuel": 100_000, "step_max_items": 20_000, "max_lexer_states": 20_000,
    "max_grammar_size": 100_000, "verbose_errors": False,
}  # fmt: skip
"""Of one grammar. A mask within them takes at most some 20 ms, the states of a lexer some 40 MB."""
MAX_BYTES: Final = 65_536
WALL_SECONDS: Final = 10.0
"""The last resort, for a child that waits instead of working; generous, since the machine may be busy."""
KEPT: Final = 64
"""So many compiled grammars are remembered, those that were used last."""
MASK_THREADS: Final = 2
QUOTED: Final = re.compile(r"\n +\d+ \| .*|\n?<non-verbose/>", re.DOTALL)
"""What llguidance puts behind a message: the lines of the grammar, which the caller has."""


class Grammars:
    """Compiles grammars for one tokenizer, in whatever thread; used in a `with` block, or closed.

    A grammar is in llguidance's dialect of Lark. It is compiled in a child process first, which can be stopped.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._ids = len(tokenizer.pieces)
        self._tokens = LLTokenizer(_Vocabulary(tokenizer), n_vocab=self._ids + 1, eos_token=self._ids)  # type: ignore[arg-type]
        self._threads = ThreadPoolExecutor(MASK_THREADS, "masks")
        self._trials = _Trials()
        self.compiled = lru_cache(KEPT)(self._compile)
        """The grammar of a text; OptionError when it is none, or exceeds a limit."""

    def close(self) -> None:
        """End the child process and the threads; what was compiled cannot start any more."""
        self._trials.end()
        self._threads.shutdown()

    def __enter__(self) -> Grammars:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _compile(self, lark: str) -> Grammar:
        if not is_text(lark):
            raise OptionError("the format is not Unicode text", found="a lone surrogate")
        if len(lark.encode()) > MAX_BYTES:
            raise OptionError("the format is too large", expected=f"at most {MAX_BYTES:,} bytes as a grammar")
        self._trials.check(lark)
        # Tokens are chosen by the model alone, also where there is one spelling of what must come: no tokenizer asked.
        grammar = f'{lark}\n%llguidance {{"no_forcing": true}}'
        matcher = LLMatcher(self._tokens, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=_limits())
        if not matcher.is_error():
            matcher.compute_bitmask()  # what is too complex at the beginning is found here
        if matcher.is_error():
            message = QUOTED.sub("", matcher.get_error()).strip().replace("\n", " ")
            if message.startswith("NoExtension"):
                message = "nothing fits it"
            raise OptionError("the format cannot be used", found=message)
        return Grammar(matcher, self._ids, self._threads)


@dataclass(frozen=True, slots=True, eq=False)
class Grammar:
    """A constraint: the text is of this grammar."""

    matcher: LLMatcher
    ids: int
    threads: ThreadPoolExecutor

    def start(self) -> ConstraintState:
        return _State(self.matcher.deep_copy(), self.ids, self.threads)


class _State:
    """The masks are computed by threads, while the engine's own goes on."""

    def __init__(self, matcher: LLMatcher, ids: int, threads: ThreadPoolExecutor) -> None:
        self._matcher = matcher
        self._ids = ids
        self._threads = threads
        self._look()

    def mask(self) -> Mask:
        return self._mask.result()

    def accept(self, token: int) -> None:
        self._mask.result()  # which has the matcher until it is done
        if not self._matcher.consume_token(token):
            raise self._error()
        self._look()

    def _look(self) -> None:
        """See how things are, and begin the next mask; nobody may ask the matcher while that is computed."""
        self.may_end, self.complete = self._matcher.is_accepting(), self._matcher.is_stopped()
        self._mask: Future[Mask] = self._threads.submit(self._compute)

    def _compute(self) -> Mask:
        if self.complete:
            return np.zeros(0, np.bool_)
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise self._error()
        mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=self._ids, bitorder="little")
        return mask.view(np.bool_)

    def _error(self) -> CapacityError:
        return CapacityError(
            "the format is too complex to go on",
            found=QUOTED.sub("", self._matcher.get_error()).strip(),
            hint="Simplify the schema, regex or grammar",
        )


class _Vocabulary:
    """A tokenizer as llguidance asks for one: what each id adds to a text, and one id more, which ends it.

    That one is no token of the model. So masks say nothing of tokens that end an answer.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id = len(tokenizer.pieces)
        self.tokens = [*tokenizer.pieces, b"<end>"]
        self.special_token_ids = [*sorted(tokenizer.reserved.values()), self.eos_token_id]

    def __call__(self, text: str) -> Sequence[int]:
        """Asked for where a grammar forces a text, which those of `Grammars` leave to the model."""
        return ()


class _Trials:
    """A child process that compiles grammars: whatever is on its mind, it can be killed. Threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._end: weakref.finalize[[], _Trials] | None = None

    def check(self, grammar: str) -> None:
        """OptionError for a grammar that takes too long to compile, or too much memory."""
        request = json.dumps({"grammar": LLMatcher.grammar_from_lark(grammar), "limits": LIMITS}).encode()
        with self._lock:
            taken, done = self._running().ask(request, WALL_SECONDS, 4)
            if not taken:  # it died meanwhile: another is asked
                self._stop()
                taken, done = self._running().ask(request, WALL_SECONDS, 4)
            if done is None:
                self._stop()
                raise OptionError(
                    "the format takes too long to compile", expected="at most 1 s, and 2 GiB of memory",
                    hint="Simplify it: large `multipleOf`, and several `pattern` of one string, are hard",
                )  # fmt: skip

    def end(self) -> None:
        with self._lock:
            self._stop()

    def _running(self) -> Worker:
        if self._worker is None:
            script = Path(__file__).with_name("grammar_trial.py")
            self._worker = Worker([str(script)], folders_of("llguidance"), "compile a grammar", "ask for no format")
            self._end = weakref.finalize(self, self._worker.end)
        return self._worker

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._worker = self._end = None


def _limits() -> LLParserLimits:
    return LLParserLimits(**LIMITS)
