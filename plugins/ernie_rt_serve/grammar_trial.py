"""The child process in which grammars are compiled first, since some take llguidance for ever: run as a script.

Its arguments are the folders that llguidance lies in. What is said either way is a frame, as to the process that
renders chat templates (ernie_rt/text/jinja_worker.py): an empty one when it is ready and when it has read a request,
`{"grammar": text, "limits": {...}}` as JSON, and one that says "done" if compiling took no more than a second of
processor time, and the memory that there may be. What is wrong with a grammar is said where it is used.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from typing import Final

CPU_SECONDS: Final = 1.0
MEMORY_BYTES: Final = 2 << 30


def limit_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # where the system limits none, the parent's clock is left
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def limit_time(cpu_seconds: float) -> None:
    """The system ends this process when it works for so long from now on, in llguidance too; never with 0."""
    with suppress(AttributeError, OSError):
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


def say(data: bytes) -> None:
    sys.stdout.buffer.write(len(data).to_bytes(4, "big") + data)
    sys.stdout.buffer.flush()


class Bytes:
    """The smallest vocabulary: every byte, and an end. A grammar takes as long with any other."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = 256
    tokens: Final = (*(bytes([byte]) for byte in range(256)), b"<end>")
    special_token_ids: Final = (256,)

    def __call__(self, text: object) -> tuple[int, ...]:
        return ()


def main() -> None:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    tokens = LLTokenizer(Bytes(), n_vocab=257, eos_token=256)  # type: ignore[arg-type]
    if sys.platform != "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is meant for the parent
    limit_memory()
    say(b"")
    while header := sys.stdin.buffer.read(4):
        request = json.loads(sys.stdin.buffer.read(int.from_bytes(header, "big")))
        say(b"")
        limit_time(CPU_SECONDS)
        LLMatcher(tokens, request["grammar"], log_level=0, limits=LLParserLimits(**request["limits"]))
        limit_time(0)
        say(b"done")


if __name__ == "__main__":
    sys.path += sys.argv[1:]
    main()
