"""Who may use a server: API keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from starlette.requests import Request

from ernie_rt import Caller
from ernie_rt.errors import OptionError
from ernie_rt.files import read_bytes
from ernie_rt_serve.faults import Fault

Access = Literal["public", "key"]
"""Who may use a route: anybody, or who has a key. There is no default: each route says it."""

KEY_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a server, none of them kept: their digests, by which the log and the engine know them."""

    digests: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, keys: Iterable[str], where: str | None = None) -> Keys:
        """OptionError for a key that no header can carry, or where there is none; `where` is whence they come."""
        given = dict.fromkeys(keys)
        if not given:
            raise OptionError(
                "no API key", where=where, expected="at least one", hint="Leave the option out to serve without keys"
            )
        if not all(key and key.isascii() and key.isprintable() and " " not in key for key in given):
            raise OptionError(
                "an API key that no header can carry", where=where, expected="printable ASCII without spaces"
            )
        return cls(tuple(hashlib.sha256(key.encode()).digest() for key in given))

    @classmethod
    def read(cls, path: Path) -> Keys:
        """The keys of a file, one a line; empty lines and those that begin with # hold none."""
        try:
            lines = read_bytes(path, KEY_FILE_BYTES).decode().splitlines()
        except UnicodeDecodeError:
            raise OptionError("the file of API keys is not UTF-8", where=str(path)) from None
        return cls.of((line.strip() for line in lines if line.strip() and not line.startswith("#")), str(path))

    def __bool__(self) -> bool:
        return bool(self.digests)

    def tenant(self, headers: Mapping[str, str]) -> str | None:
        """Who asks, by the key in `Authorization: Bearer` or `x-api-key`: "" where no keys are needed, None for nobody.

        How long it takes says nothing of the keys: digests are compared, and all of them.
        """
        if not self.digests:
            return ""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        given = hashlib.sha256(key.encode("latin-1")).digest()
        equal = [digest for digest in self.digests if hmac.compare_digest(digest, given)]
        return equal[0].hex() if equal else None


NO_KEYS: Final = Keys()
"""Everybody may ask."""


def caller(request: Request, priority: int = 0, cache_salt: str | None = None) -> Caller:
    """Who asks. Prompts share what is cached with those of the same key or, where a salt is given, of the same salt.

    A Fault for who would overtake other keys by a `priority` of his own: they take turns.
    """
    tenant: str = request.state.tenant
    if tenant and priority < 0:
        raise Fault(400, "priority is less than 0, and keys take turns: nobody goes before others", "priority")
    salt = f"key {tenant}" if cache_salt is None else f"salt {cache_salt}"
    return Caller(tenant, priority, salt.encode())
