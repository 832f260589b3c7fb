"""`python -m ernie_rt` is `ernie-rt`."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the folder it was started in, which may be a stranger's model with a torch.py in it

import _thread
import signal
import threading
from typing import Final

AGAIN_SECONDS: Final = 0.01


def main() -> None:
    """Run the command line; Ctrl-C counts from here, before anything large is imported."""
    sys.unraisablehook = _unraisable
    try:
        from ernie_rt.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    """Ctrl-C that came where nothing can be raised, as within an import: it comes once more in a moment."""
    if isinstance(told.exc_value, KeyboardInterrupt):
        threading.Timer(AGAIN_SECONDS, _interrupt).start()
    else:
        sys.__unraisablehook__(told)


def _interrupt() -> None:
    main_thread = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main_thread is not None:
        signal.pthread_kill(main_thread, signal.SIGINT)  # which also wakes it
    else:
        _thread.interrupt_main()


if __name__ == "__main__":
    main()
