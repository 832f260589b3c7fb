"""Remembered digests: the sha256 of a file that nobody has written since it was hashed.

What the system says of a file stands for its content: a *stamp*. Whoever writes to a file moves its change time, which,
unlike the modification time, no program can set back. A digest is believed when the file has the stamp it had then.

- A file that was changed less than `SETTLED_NS` before it was hashed is not remembered: a clock that ticks as coarsely
  as that could give the next change the same time. So is one whose change lies in the future, as after a clock was set
  back, and one that changes while it is hashed.
- A copy that keeps its times, a rename over the file, a restored backup: another inode and another change time.
- The device is no part of it: on some file systems its number is another one after each start of the machine.
- Where the system keeps no change time (Windows), numbers no inodes, or somebody else can write to the store, nothing
  is remembered, and every file is hashed whenever it is opened.

What a stamp cannot tell: a disk that rots (`ernie-rt verify` reads every byte), a program that goes on writing through
a mapping it had when the file was hashed, a remote file system that makes its change times up, and root with the clock
at hand. `ERNIE_RT_STAMPS=0` has every file hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from ernie_rt import files, writing
from ernie_rt.errors import ErnieRtError, WriteError
from ernie_rt.home import is_private, user_cache

SWITCH: Final = "ERNIE_RT_STAMPS"
"""The environment variable that, set to 0, has nothing believed and nothing remembered."""

SETTLED_NS: Final = 3_000_000_000
"""How long a file must have been left alone before it was hashed: more than the two seconds of FAT, the coarsest."""

MOST: Final = 4096
"""Files that are remembered; the oldest ones are forgotten. The largest model has 122."""

ENTRY_LIMIT: Final = 1024
"""Bytes of an entry: it has a fourth of that."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the system says of a file that becomes another whenever its content does."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Stamps:
    """A folder of remembered digests, an entry for each file. What goes wrong with it means hashing again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_user(cls) -> Self | None:
        """The user's own; None where nothing can be remembered, or shall not be."""
        if os.environ.get(SWITCH) == "0" or os.name != "posix":
            return None
        try:
            return cls(user_cache() / "stamps")
        except WriteError:
            return None

    def recall(self, path: Path, stamp: Stamp) -> str | None:
        """The sha256 of the file at `path`, if it has this stamp and had it when it was hashed."""
        if not stamp.inode:
            return None
        try:
            entry = self._read(self._entry(path)) if Stamp.of(path.stat()) == stamp else {}
        except (OSError, ErnieRtError):
            return None
        digest = entry.pop("sha256", None)
        if entry == asdict(stamp) and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest):
            return digest
        return None

    def remember(self, path: Path, stamp: Stamp, sha256: str, began_ns: int) -> None:
        """Keep the digest of a file that was hashed from `began_ns` on, unless it may have changed meanwhile."""
        if not stamp.inode or began_ns - stamp.ctime_ns < SETTLED_NS:
            return
        with contextlib.suppress(OSError, ErnieRtError):
            if Stamp.of(path.stat()) != stamp:
                return
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._is_mine():
                self._forget_oldest()
                entry = self._entry(path)
                if entry.exists() and not entry.is_file():
                    entry.unlink()  # such as a pipe, which nobody but its owner can have put there
                with writing.write_atomic(entry, mode=0o600) as file:
                    file.write(json.dumps(asdict(stamp) | {"sha256": sha256}).encode())

    def _entry(self, path: Path) -> Path:
        key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
        return self.folder / f"{key}.json"

    def _is_mine(self) -> bool:
        status = self.folder.lstat()
        return stat.S_ISDIR(status.st_mode) and is_private(status)

    def _read(self, entry: Path) -> dict[str, object]:
        if not self._is_mine() or not is_private(entry.lstat()):
            return {}
        return files.read_json(entry, limit=ENTRY_LIMIT, depth=1, strict=True)

    def _forget_oldest(self) -> None:
        """Make room for one more; what killed processes left behind goes with the others."""
        mine = [each for each in os.scandir(self.folder) if re.match(r"\.?[0-9a-f]{64}\.json", each.name)]
        if len(mine) >= MOST:
            mine.sort(key=lambda each: each.stat(follow_symlinks=False).st_mtime_ns)
            for each in mine[: len(mine) - MOST * 3 // 4]:
                Path(each).unlink(missing_ok=True)
