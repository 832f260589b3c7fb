"""The child process that renders a stranger's chat template: run as a script, with nothing of this package imported.

Reads `{"template": text, "contexts": [...], "limits": {...}}` as JSON on standard input and writes, as JSON, either
`{"texts": [text, or null where rendering failed, ...], "errors": [...]}` or `{"limit": what was exceeded}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NoReturn

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


def render(template: str, contexts: Iterable[dict[str, Any]], output_bytes: int) -> dict[str, Any]:
    """Render every context, all within `output_bytes`; a context that fails gives None and the reason."""
    try:
        compiled = environment().from_string(template)
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


def limit_resources(cpu_seconds: float, memory_bytes: int) -> None:
    """From here on this process has so much processor time and memory, and writes and opens no file."""
    if sys.platform == "win32":  # the parent's clock is the only limit there
        return
    import resource
    import signal

    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    for kind, value in (
        (resource.RLIMIT_CPU, int(cpu_seconds) + 2),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        resource.setrlimit(kind, (value, value))


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def main(write: Callable[[str], object] = sys.stdout.write) -> None:
    request = json.load(sys.stdin)
    # Whatever is loaded at first use, as codecs and the time zone are: from here on no file can be opened.
    environment().from_string("{{ [1, 'a\\n'] | tojson(indent=1) ~ strftime_now('%c') }}").render()
    limit_resources(request["cpu_seconds"], request["memory_bytes"])
    try:
        answer = render(request["template"], request["contexts"], request["output_bytes"])
        write(json.dumps(answer))
    except MemoryError:
        write('{"limit": "MemoryError"}')


if __name__ == "__main__":
    main()
