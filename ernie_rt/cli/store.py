"""Conversations on disk."""

from __future__ import annotations

import os
import re
import secrets
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ernie_rt.cli.output import say
from ernie_rt.display import columns, did_you_mean, printable
from ernie_rt.errors import ErnieRtError, OptionError, WriteError
from ernie_rt.home import is_private, user_state
from ernie_rt.text.transcript import read_transcript, write_transcript

if TYPE_CHECKING:
    from ernie_rt.text.messages import Message

LISTED: Final = 20
"""Conversations that a list shows."""
SHOWN: Final = 60
"""Characters of a first message that a list shows."""


ELSEWHERE: Final = "Set XDG_STATE_HOME to a folder with room that can be written, or begin with --forget"


class Store:
    """Conversations, each kept in a file of its own as it grows, named by when it began, or saved under a name.

    `folder` is made when it is first needed; None keeps nothing by itself, and `reason` says why.
    """

    def __init__(self, folder: Path | None, reason: ErnieRtError | None = None) -> None:
        self.folder = folder
        self._reason = reason or OptionError(
            "names need the folder that --forget does without", hint="Give a path ending in .json"
        )
        self._complained = False
        self.begin()

    @property
    def history(self) -> Path | None:
        """The file of lines that were typed."""
        return None if self.folder is None else self.folder / "typed"

    def begin(self) -> None:
        """From now on it is another conversation; what was written of the last one stays."""
        self._name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{secrets.token_hex(2)}.json"
        self._mine: set[Path] = set()

    def keep(self, model: str, messages: list[Message]) -> None:
        """Write the conversation as it stands; a disk that does not take it is mentioned once."""
        if self.folder is None:
            return
        try:
            write_transcript(self._make() / self._name, model, messages, overwrite=True)
        except ErnieRtError as error:
            if not self._complained:
                error.hint = ELSEWHERE
                say(f"the conversation is not kept: {printable(str(error))}")
            self._complained = True

    def save(self, name: str, model: str, messages: list[Message]) -> Path:
        """Write the conversation under a name; a file that holds another one is left alone."""
        if not messages:
            raise OptionError("nothing to save", hint="Say something first")
        path = self._path(name, make=True)
        if path not in self._mine and os.path.lexists(path):
            raise WriteError("exists, and holds another conversation", where=str(path), hint="Choose another name")
        write_transcript(path, model, messages, overwrite=path in self._mine)
        self._mine.add(path)
        return path

    def load(self, name: str) -> tuple[Path, tuple[Message, ...]]:
        """Read a conversation; it goes on in a file of its own, so the one that was read stays as it is."""
        path = self._path(name) if name else self._latest()
        if name and not name.endswith(".json") and not path.exists():
            names = self.names()
            raise OptionError(
                f"no conversation {name!r} is kept here",
                where=str(self.folder),
                expected=", ".join(names[:8]) or "a path ending in .json",
                hint=f"{did_you_mean(name, names)}/list lists them",
            )
        messages = read_transcript(path)
        self.begin()
        return path, messages

    def kept(self) -> list[str]:
        """A line for each conversation on disk, the latest first: its name and how it begins."""
        files = self._files()
        shown = [[name, _beginning(path)] for name, path in islice(files.items(), LISTED)]
        older = [f"… and {len(files) - LISTED} older ones in {self.folder}"] if len(files) > LISTED else []
        return [*columns(shown).splitlines(), *older] if shown else []

    def names(self) -> list[str]:
        """The names of conversations on disk, the latest first."""
        return list(self._files())

    def _files(self) -> dict[str, Path]:
        """The conversations on disk but the present one, by name, the latest first."""
        found = [path for path in (self.folder.glob("*.json") if self.folder else ()) if path.name != self._name]
        return {path.stem: path for path in sorted(found, key=_changed, reverse=True)}

    def _path(self, name: str, make: bool = False) -> Path:
        if name.endswith(".json"):
            try:
                return Path(name).expanduser()
            except RuntimeError:  # nobody of that name has a home
                return Path(name)
        if not re.fullmatch(r"\w[\w. -]{0,99}", name):
            raise OptionError(
                "not a name for a conversation",
                expected="letters and digits, or a path ending in .json",
                found=repr(name[:40]),
            )
        if self.folder is None:
            raise self._reason
        return (self._make() if make else self.folder) / f"{name}.json"

    def _latest(self) -> Path:
        if self.folder is None:
            raise self._reason
        latest = next(iter(self._files().values()), None)
        if latest is None:
            raise OptionError(
                "no other conversation is kept here", where=str(self.folder), hint="/load takes a name or a path"
            )
        return latest

    def _make(self) -> Path:
        assert self.folder is not None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError("cannot be made", where=str(self.folder), found=error.strerror, hint=ELSEWHERE) from error
        return self.folder


def _beginning(path: Path) -> str:
    """What the first message of a conversation says, on one line."""
    try:
        said = next((message.text for message in read_transcript(path) if message.role == "user"), "")
    except ErnieRtError:
        return "(no conversation)"
    return printable(said if len(said) <= SHOWN else f"{said[:SHOWN]}…")


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it has gone meanwhile, or leads nowhere
        return 0.0


def user_store() -> Store:
    """Conversations in the user's own folder; where there is none nothing is kept, which is said."""
    try:
        folder = user_state() / "chat"
        if os.name == "posix" and os.path.lexists(folder) and not is_private(folder.lstat()):
            raise WriteError(
                "what is said is not kept in a folder that others can write to",
                where=str(folder),
                hint="Make it yours alone (`chmod go-w`), or set XDG_STATE_HOME to another",
            )
        return Store(folder)
    except (WriteError, OSError) as error:
        reason = error if isinstance(error, WriteError) else WriteError("cannot be opened", found=error.strerror)
        say(f"the conversation is not kept: {printable(str(reason))}")
        return Store(None, reason)
