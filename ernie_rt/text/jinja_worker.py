"""The child process that renders strangers' chat templates: run as a script, with nothing of this package imported.

Its arguments are the bytes of memory that it may take and the folders that Jinja lies in. What is said either way is a
frame: a length, 4 bytes with the highest first, and so many bytes. An empty one tells that it is ready and, later, that
it has read a request, `{"template": text, "contexts": [...], "cpu_seconds": ..., "output_bytes": ...}` as JSON. The
answer is `{"texts": [text, or null where rendering failed, ...], "errors": [...]}` or `{"limit": what was exceeded}`,
unless the limit ends the process. Nothing but a template's compiled code is kept from one request to the next.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path += sys.argv[2:]

import json
import pprint  # noqa: F401
import signal
import textwrap  # noqa: F401  both loaded by filters, too late by then
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from types import CodeType
from typing import Any, BinaryIO, NoReturn

import jinja2
import jinja2.debug  # loaded when a template fails, too late by then
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, where touching an unsafe attribute is an error and not an undefined value that prints as ""."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__!r} object is unsafe")


class Generation(Extension):
    """`{% generation %}` marks an answer for training; rendering only looks through it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class OutputLimit(Exception):
    pass


def environment() -> Sandbox:
    """What chat templates are written for: blocks trimmed, `raise_exception`, `strftime_now`, a `tojson` for text."""
    env = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, Generation])
    for name in ("lipsum", "cycler", "joiner"):
        del env.globals[name]
    env.globals["raise_exception"] = _raise
    env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    env.filters["tojson"] = _to_json
    return env


@lru_cache(maxsize=1)
def compile_template(template: str) -> CodeType:
    """Python code, which any environment can run; raises whatever a template's constant expressions do."""
    return environment().compile(template)


def render(template: str, contexts: Iterable[dict[str, Any]], output_bytes: int) -> dict[str, Any]:
    """Render every context, all within `output_bytes` of UTF-8; a context that fails gives None and the reason."""
    try:
        env = environment()
        compiled = env.template_class.from_code(env, compile_template(template), env.make_globals(None))
    except (MemoryError, RecursionError) as error:
        return {"limit": type(error).__name__}
    except Exception as error:  # constant expressions are computed here already
        return {"texts": [], "errors": [_reason(error)]}
    texts: list[str | None] = []
    errors: list[str] = []
    left = output_bytes
    for context in contexts:
        try:
            parts = []
            for part in compiled.generate(context):
                left -= len(part.encode())
                if left < 0:
                    raise OutputLimit
                parts.append(part)
            texts.append("".join(parts))
        except OutputLimit:
            return {"limit": f"more than {output_bytes} bytes of output"}
        except (MemoryError, RecursionError, OverflowError) as error:  # the last is what a range too long raises
            return {"limit": type(error).__name__}
        except Exception as error:  # a template is a program: it can raise anything
            texts.append(None)
            errors.append(_reason(error))
    return {"texts": texts, "errors": errors}


def limit_resources(memory_bytes: int) -> None:
    """From here on this process has so much memory, where the system limits it, and writes and opens no file."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock is the only limit there
        return
    for name, value in (("AS", memory_bytes), ("FSIZE", 0), ("CORE", 0), ("NOFILE", 3)):
        # macOS lets nobody limit memory, some systems do not know of it; elsewhere a lower limit may be there already.
        with suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def limit_time(cpu_seconds: float) -> None:
    """The system ends this process when it works for so long from now on; never with 0."""
    with suppress(AttributeError, OSError):  # not every system, nor every container, has it: the clock is left
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


def answer(request: bytes) -> bytes:
    """What a request asks for, as JSON, within its limits."""
    try:
        asked = json.loads(request)
        limit_time(asked["cpu_seconds"])
        said = json.dumps(render(asked["template"], asked["contexts"], asked["output_bytes"])).encode()
        limit_time(0)
        return said
    except (MemoryError, RecursionError) as error:
        return json.dumps({"limit": type(error).__name__}).encode()


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer one request after the other until there are no more."""

    def say(data: bytes) -> None:
        answers.write(len(data).to_bytes(4, "big") + data)
        answers.flush()

    say(b"")
    while header := requests.read(4):
        request = requests.read(int.from_bytes(header, "big"))
        say(b"")
        say(answer(request))


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def main() -> None:
    if sys.platform != "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is meant for the parent
    # Whatever is loaded at first use, as codecs and the time zone are: from here on no file can be opened.
    environment().from_string("{{ [1, 'a\\n'] | tojson(indent=1) ~ strftime_now('%c') }}").render()
    limit_resources(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
