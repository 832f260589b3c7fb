"""Strangers' chat templates, rendered in a child process that can be killed."""

from __future__ import annotations

import json
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import get_data
from typing import Any, Final, cast

from ernie_rt.errors import ErnieRtError, JsonError, TemplateError, TemplateLimitError
from ernie_rt.files import MIB
from ernie_rt.untrusted_json import parse_json
from ernie_rt.worker import Worker, folders_of

CPU_SECONDS: Final = 1.0
MEMORY_BYTES: Final = 256 * MIB
OUTPUT_BYTES: Final = 4 * MIB
OWN_BYTES: Final = MIB // 4
REPEATS: Final = 4
"""A template writes at most so many bytes of its own, and what it is given at most so often. Else it could make
millions of characters of a few words, and to encode them takes a hundred times as many bytes of memory."""
WALL_SECONDS: Final = 5.0
"""The last resort, for a child that waits instead of working; generous, since the machine may be busy."""
TEMPLATE_BYTES: Final = MIB
ANSWER_BYTES: Final = 6 * OUTPUT_BYTES + MIB
"""JSON spells a byte of output with up to six."""

SCRIPT: Final = Path(__file__).with_name("jinja_worker.py")
REINSTALL: Final = "Install ernie-rt with the sources of its modules, or encode the prompt yourself"
HINT: Final = "The checkpoint's chat_template is not to be trusted; encode the prompt yourself"


class Renderer:
    """Renders templates in a child process, which is started at the first and serves all that follow.

    One that exceeds a limit is ended, and the next rendering starts another, as it does when it has died. Threads take
    turns; a fork and a copy have a process of their own. It ends with this object, and with this process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._end: weakref.finalize[[], Renderer] | None = None
        if sys.platform != "win32":
            os.register_at_fork(after_in_child=_forgets(weakref.ref(self)))

    def __reduce__(self) -> tuple[type[Renderer], tuple[()]]:
        return Renderer, ()

    def render(self, template: str, contexts: Sequence[Mapping[str, Any]], where: str) -> list[str | None]:
        """Render `template` with each of `contexts` (JSON values), within 1 s, 256 MiB, and for all 4 MiB of output, or
        256 KiB and four times what they hold where that is less.

        The first must succeed, or TemplateError says why not; others may fail, which gives None. TemplateLimitError
        when a limit is exceeded. ErnieRtError where no process can be started. It has none of this one's open files,
        and of its environment variables those alone that it takes to start. No template leaves anything to the next.

        Windows limits no processor time, so that the clock is what stops a template after 5 s, and no memory; nor
        does macOS limit memory.
        """
        if len(template.encode()) > TEMPLATE_BYTES:
            raise TemplateLimitError(
                "the chat template is too large", where=where, expected=f"at most {TEMPLATE_BYTES} bytes"
            )
        request = {"template": template, "contexts": list(contexts), "cpu_seconds": CPU_SECONDS}
        given = len(json.dumps(request["contexts"]))
        request["output_bytes"] = min(OUTPUT_BYTES, OWN_BYTES + REPEATS * given)
        answer = self._ask(json.dumps(request).encode(), where)
        match answer:  # of a process that the template may have taken over
            case {"texts": [str(), *others] as texts} if all(text is None or isinstance(text, str) for text in others):
                return cast(list[str | None], texts)
            case {"errors": [str(reason), *_]}:
                raise TemplateError("the chat template fails", where=where, found=reason[:300])
        raise TemplateError("the chat template's process gave no answer", where=where, hint=HINT)

    def close(self) -> None:
        """End the process now rather than with this object; another rendering would start another."""
        with self._lock:
            self._stop()

    def _ask(self, request: bytes, where: str) -> Mapping[str, Any]:
        with self._lock:
            try:
                answer = self._exchange(request)
            except BaseException:
                self._stop()
                raise
            if answer is not None and "limit" not in answer:
                return answer
            expired, code = self._stop()
        if answer is not None:
            found = str(answer["limit"])
        elif expired:
            found = f"more than {WALL_SECONDS:g} s"
        elif code < 0:
            found = f"its process was ended by signal {-code}"
        else:
            raise TemplateError("the chat template's process gave no answer", where=where, hint=HINT)
        most = f"{REPEATS} times what it is given and {OWN_BYTES >> 10} KiB of output"
        limits = f"{CPU_SECONDS:g} s, {MEMORY_BYTES // MIB} MiB of memory, {most}"
        raise TemplateLimitError(
            "the chat template was stopped", where=where, expected=f"{limits} to be enough", found=found, hint=HINT
        )

    def _exchange(self, request: bytes) -> dict[str, Any] | None:
        """What the process answers; None when it ends instead. One that ends before it has read a request, as when it
        was killed while it had nothing to do, says nothing of the template: another is asked."""
        taken, data = self._running().ask(request, WALL_SECONDS, ANSWER_BYTES)
        if not taken:
            self._stop()
            _, data = self._running().ask(request, WALL_SECONDS, ANSWER_BYTES)
        try:
            answer = parse_json(data or b"", where="its answer", strict=False)
        except JsonError:
            return None
        return answer if isinstance(answer, dict) else None

    def _running(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(_script(), [str(MEMORY_BYTES), *folders_of("jinja2", "markupsafe")])
            self._end = weakref.finalize(self, self._worker.end)
        return self._worker

    def _stop(self) -> tuple[bool, int]:
        """End the process: whether its time was up, and its exit code."""
        ended = self._end() if self._end is not None else None
        self._worker = self._end = None
        return cast(tuple[bool, int], ended or (False, 0))

    def _forget(self) -> None:
        """In a fork, of which this is the only thread."""
        self._lock = threading.Lock()
        if self._worker is not None and self._end is not None:
            self._end.detach()
            self._worker.disown()
        self._worker = self._end = None


def _forgets(renderer: weakref.ref[Renderer]) -> Callable[[], None]:
    def forget() -> None:
        if (inherited := renderer()) is not None:
            inherited._forget()

    return forget


def _script() -> list[str]:
    """How Python is told to run the script: by its path or, where this package lies in an archive, by its text."""
    if SCRIPT.is_file():
        return [str(SCRIPT)]
    try:
        data = get_data("ernie_rt.text", SCRIPT.name)
    except OSError:
        data = None
    if data is None:
        raise ErnieRtError("the program that renders chat templates is not there", where=str(SCRIPT), hint=REINSTALL)
    return ["-c", data.decode()]
