"""A stranger's chat template, rendered in a child process that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import TemplateError, TemplateLimitError
from ernie_rt.files import MIB

CPU_SECONDS: Final = 1.0
MEMORY_BYTES: Final = 256 * MIB
OUTPUT_BYTES: Final = 4 * MIB
WALL_SECONDS: Final = 5.0
"""The last resort, for a child that waits instead of working; generous, since the machine may be busy."""
TEMPLATE_BYTES: Final = MIB

HINT: Final = "The checkpoint's chat_template is not to be trusted; encode the prompt yourself"


def render(template: str, contexts: Sequence[Mapping[str, Any]], where: str) -> list[str | None]:
    """Render `template` with each of `contexts` (JSON values), within 1 s, 256 MB and 4 MB of output for all.

    The first must succeed, or TemplateError says why not; others may fail, which gives None. TemplateLimitError when
    a limit is exceeded. The child has neither this process's environment variables nor its open files.
    """
    if len(template.encode()) > TEMPLATE_BYTES:
        raise TemplateLimitError(
            "the chat template is too large", where=where, expected=f"at most {TEMPLATE_BYTES} bytes"
        )
    request = {
        "template": template,
        "contexts": list(contexts),
        "cpu_seconds": CPU_SECONDS,
        "memory_bytes": MEMORY_BYTES,
        "output_bytes": OUTPUT_BYTES,
    }
    answer = _ask(json.dumps(request).encode(), where)
    limit, texts, errors = answer.get("limit"), answer.get("texts"), answer.get("errors")
    if limit is not None:
        raise _over(str(limit), where)
    if not isinstance(texts, list) or not isinstance(errors, list) or (not texts and not errors):
        raise TemplateError("the chat template's process gave no answer", where=where, hint=HINT)
    if not texts or texts[0] is None:
        raise TemplateError("the chat template fails", where=where, found=str(errors[0])[:300])
    return texts


def _ask(request: bytes, where: str) -> Mapping[str, Any]:
    worker = Path(__file__).with_name("jinja_worker.py")
    child = subprocess.Popen(
        [sys.executable, "-I", "-B", str(worker)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=worker.anchor,
        env={},
    )
    # JSON spells a character with up to six bytes.
    most = 6 * OUTPUT_BYTES + MIB
    clock = threading.Timer(WALL_SECONDS, child.kill)
    clock.start()
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        with child.stdout, child.stdin:
            try:
                child.stdin.write(request)
                child.stdin.close()
            except BrokenPipeError:  # it ended before it had read everything; its exit code says why
                pass
            data = child.stdout.read(most + 1)
    finally:
        clock.cancel()
        child.kill()
        code = child.wait()
    if len(data) > most:
        raise _over("its output has no end", where)
    try:
        answer = json.loads(data)
    except ValueError:
        if code < 0:
            raise _over(f"its process was ended by signal {-code}", where) from None
        answer = None
    if not isinstance(answer, dict):
        raise TemplateError("the chat template's process gave no answer", where=where, hint=HINT)
    return answer


def _over(what: str, where: str) -> TemplateLimitError:
    return TemplateLimitError(
        "the chat template was stopped",
        where=where,
        expected=f"{CPU_SECONDS:g} s, {MEMORY_BYTES // MIB} MiB and {OUTPUT_BYTES // MIB} MiB of output to be enough",
        found=what,
        hint=HINT,
    )
