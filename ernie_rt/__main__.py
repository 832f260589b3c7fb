"""`python -m ernie_rt` is `ernie-rt`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C counts from here, before anything large is imported."""
    try:
        from ernie_rt.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
