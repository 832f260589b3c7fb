"""What a hub answers, judged before huggingface_hub makes paths of it.

The library names files after what the server says: commits, ETags, digests, paths. A mirror may say anything, `../`
included, so each answer passes here first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from ernie_rt import files
from ernie_rt.errors import FileFormatError, JsonError, UnsafePathError
from ernie_rt.untrusted_json import parse_json

LISTING_LIMIT: Final = 64 * files.MIB
"""Bytes of an answer that is no file: some 200,000 files of a repository."""

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
ETAG: Final = re.compile(r'(W/)?"?[A-Za-z0-9][A-Za-z0-9._=-]{0,199}"?')
PATH: Final = re.compile(r"(?!/)(?!.*(^|/)\.{1,2}(/|$))(?!.*//)[^\\:\x00-\x1f\x7f]{1,1000}")
LARGEST: Final = 1 << 62


class Judged:
    """Makes HTTP clients for huggingface_hub that hand on what was judged alone."""

    def __init__(self, made: Callable[[], Any]) -> None:
        self._made = made

    def __call__(self) -> Any:
        client = self._made()
        send = client.send

        def judged(request: Any, *, stream: bool = False, **options: Any) -> Any:
            response = send(request, stream=True, **options)
            try:
                _check_headers(response)
                if not stream:
                    _read(response)
            except BaseException:
                response.close()
                raise
            return response

        client.send = judged
        return client


def judge_answers(hub: Any) -> None:
    """From now on whatever huggingface_hub asks in this process is judged, however its clients are made.

    UnsafePathError or FileFormatError is raised in the place of an answer that could lead it out of its folder.
    """
    made = hub.utils._http._GLOBAL_CLIENT_FACTORY  # an embedder's own may be set, which no public name tells
    if not isinstance(made, Judged):
        hub.set_client_factory(Judged(made))


def _check_headers(response: Any) -> None:
    names = {"X-Repo-Commit": COMMIT}
    if response.request.method == "HEAD":
        names |= {"ETag": ETAG, "X-Linked-ETag": ETAG}
    for name, form in names.items():
        for value in response.headers.get_list(name):
            _check(value, form, name, str(response.request.url))


def _read(response: Any) -> None:
    """Read an answer that is no file, however long it says it is, and judge what is told of files there."""
    where, content = str(response.request.url), bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > LISTING_LIMIT:
            raise FileFormatError(
                "a listing that is too large", where=where, expected=f"at most {LISTING_LIMIT} bytes", found="more"
            )
    response._content = bytes(content)  # as its own `read` would, which knows no limit
    if response.is_success and response.request.method == "GET":
        try:
            told = parse_json(bytes(content), where=where, strict=False)
        except JsonError as error:  # such as the page of a network that wants to be logged in to
            error.hint = "Check the network, and HF_ENDPOINT if it is set"
            raise
        for entry in told if isinstance(told, list) else [told]:
            if isinstance(entry, dict):
                _check_entry(entry, where)


def _check_entry(entry: dict[str, Any], where: str) -> None:
    """One of a listing, or a repository's own."""
    lfs = entry.get("lfs")
    lfs = lfs if isinstance(lfs, dict) else {}
    for told, key, form in (
        (entry, "sha", COMMIT),
        (entry, "path", PATH),
        (lfs, "oid", SHA256),
        (lfs, "sha256", SHA256),
    ):
        if key in told:
            _check(told[key], form, key, where)
    for told in (entry, lfs):
        size = told.get("size", 0)
        if type(size) is not int or not 0 <= size < LARGEST:
            raise FileFormatError("an impossible size", where=where, expected="bytes", found=repr(size)[:60])


def _check(value: object, form: re.Pattern[str], name: str, where: str) -> None:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise UnsafePathError(
            f"the hub answers with a name, as {name}, that could lead out of its folder",
            where=where,
            found=repr(value)[:200],
            hint="Fetch the model from another mirror, or unset HF_ENDPOINT",
        )
