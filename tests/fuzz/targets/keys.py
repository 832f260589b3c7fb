"""Files of API keys, and the headers in which somebody brings one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random
from typing import Final

from ernie_rt_serve.access import KEY_FILE_BYTES, Keys
from fuzz.mutations import TEXTS, damaged
from fuzz.target import Attempt, Target

KEYS: Final = ("sk-first", "sk-second", "x" * 300, "#", "key=value", "~!@")
LINES: Final = ("", " ", "\t", "# none", " # one", "a b", "é", "\x85", "\x0c", "\x1c", "\u2028", "\r", "\0", "\x7f")


def start(folder: Path) -> Attempt:
    path = folder / "keys"

    def attempt(rng: Random) -> None:
        given = rng.sample(KEYS, rng.randrange(4))
        odd = [rng.choice((*LINES, rng.choice(TEXTS))) for _ in range(rng.choice((0, 0, 1, 2)))]
        lines = [*given, *odd]
        rng.shuffle(lines)
        data = rng.choice(("\n", "\n", "\r\n", "\r")).join(lines).encode(errors="surrogatepass")
        match rng.randrange(12):
            case 0:
                data = damaged(rng, data)
            case 1:
                data = b"\xef\xbb\xbf" + data
            case 2:
                data = data.decode(errors="replace").encode("utf-16")
            case 3:
                data += b"\n#" + b"x" * rng.choice((KEY_FILE_BYTES - len(data) - 3, KEY_FILE_BYTES))
        path.unlink(missing_ok=True)
        if rng.random() < 0.02:
            path.symlink_to(rng.choice(("/dev/zero", "nowhere", "keys", folder)))
        else:
            path.write_bytes(data)
        keys = Keys.read(path)
        check(keys, data, rng)

    return attempt


def check(keys: Keys, data: bytes, rng: Random) -> None:
    """Nothing but a whole line of the file lets anybody in."""
    assert keys
    lines = {line.strip() for line in data.decode().splitlines()}
    key = rng.choice((*sorted(lines), "", "sk-", "sk-first ", "sk-firs", "SK-FIRST", "\xff", "x" * 5000))
    headers = rng.choice((
        {"authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key} "}, {"x-api-key": key},
        {"x-api-key": key + " "},
        {"authorization": f"Basic {key}", "x-api-key": key}, {"authorization": key},
        {"authorization": f"Bearer\t{key}"}, {},
    ))  # fmt: skip
    if not all(value.isascii() or value == "\xff" for value in headers.values()):
        return
    tenant = keys.tenant(headers)
    if tenant is not None:
        brought = {word for value in headers.values() for word in (value, value.split()[-1])}
        assert brought & lines - {""} and tenant in {hashlib.sha256(key.encode()).hexdigest() for key in lines}


TARGET = Target("keys", ("ernie_rt_serve.access",), start, share=1500)
