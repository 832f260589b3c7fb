"""What is wrong with a file is named, with its line, before anything runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ernie_rt.errors import FileFormatError, OptionError
from ernie_rt_serve.batch import requests
from ernie_rt_serve.batch.requests import Checked, Ledger, check, waiting
from support.batches import request


def lines(*values: object) -> io.BytesIO:
    """A file of lines, each as JSON unless it is bytes."""
    return io.BytesIO(b"\n".join(v if isinstance(v, bytes) else json.dumps(v).encode() for v in values))


def checked(*values: object, skip_bad: bool = False) -> tuple[Checked, list[str], list[str]]:
    """What a check comes to, what it says, and the ids that wait then."""
    said: list[str] = []
    file = lines(*values)
    with Ledger() as ledger:
        result = check(file, "a.jsonl", ledger, skip_bad=skip_bad, say=said.append)
        return result, said, [each.custom_id for each in waiting(file, ledger)]


def test_a_file_that_is_fine() -> None:
    result, said, ids = checked(b"\xef\xbb\xbf" + json.dumps(request(0)).encode() + b"\r", b"", request(1, more=1), b"")
    assert result == Checked(2, "demo") and said == [] and ids == ["r0", "r1"]


DEEP = b'{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": '
BAD = {
    "truncated": (b'{"custom_id": "a"', "truncated"),
    "no object": ([], "Expected `object`"),
    "no id": ({"method": "POST"}, "custom_id"),
    "a number as id": (request(1, custom_id=1), "custom_id: Expected `str`"),
    "an empty id": (request(1, custom_id=""), "empty"),
    "a method": (request(1, method="GET"), "method: Not one of 'POST'"),
    "a path": (request(1, url="/v1/embeddings"), "url: Not one of '/v1/chat/completions', "),
    "a body": (request(1, body="hi"), "body: Expected `object`"),
    "a stream": (request(1, body={"stream": True}), "stream is true"),
    "half a surrogate": (b'{"custom_id": "\\ud800", "method": "POST", "url": "/v1/completions", "body": {}}', ""),
    "no UTF-8": (b'{"custom_id": "\xff", "method": "POST", "url": "/v1/completions", "body": {}}', ""),
    "depth": (b'{"custom_id": ' + b"[" * 100_000, ""),
    "a deep body": (DEEP + b"[" * 9999 + b"]" * 9999 + b"}", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_line_that_is_none(name: str) -> None:
    line, reason = BAD[name]
    with pytest.raises(FileFormatError) as caught:
        checked(request(0), b"", line, request(2))
    assert str(caught.value).startswith("a.jsonl: not every line is a request of its own; found line 3: ")
    assert reason in str(caught.value)
    result, said, ids = checked(request(0), b"", line, request(2), skip_bad=True)
    assert result.count == 2 and said[0].startswith("skipped line 3: ") and ids == ["r0", "r2"]


def test_an_id_that_stood_before() -> None:
    with pytest.raises(FileFormatError, match="line 3: the custom_id 'r0' is that of line 1"):
        checked(request(0), request(1), request(0))
    assert checked(request(0), request(1), request(0), skip_bad=True)[2] == ["r0", "r1"]


def test_many_wrong_lines_are_counted() -> None:
    with pytest.raises(FileFormatError, match=r"line 10: .*; and 15 more") as caught:
        checked(*[b"{"] * 25, request(0))
    assert "line 11" not in str(caught.value)
    said = checked(*[b"{"] * 25, request(0), skip_bad=True)[1]
    assert len(said) == 11 and said[-1] == "skipped 15 more"


def test_lines_that_are_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "LINE_LIMIT", 400)
    long = b'{"custom_id": "' + b"a" * 2000 + b'"}'
    assert checked(request(0), long, request(1), skip_bad=True)[2] == ["r0", "r1"]
    with pytest.raises(FileFormatError, match="line 2: longer than 400 B"):
        checked(request(0), long)


def test_nothing_to_answer() -> None:
    with pytest.raises(FileFormatError, match="holds no request"):
        checked(b"\n\n")
    with pytest.raises(FileFormatError, match="holds no request"):
        checked(b"{", skip_bad=True)


def test_one_model_answers_all() -> None:
    other = request(1, body={"model": "other"})
    with pytest.raises(OptionError, match="several models; found 2: 'demo', 'other'"):
        checked(request(0), other)
    assert checked(request(0, body={}))[0] == Checked(1, None)


def test_many_ids_are_told_apart() -> None:
    with Ledger() as ledger:
        assert [ledger.add(f"r{number}", number) for number in range(2000)] == [None] * 2000
        assert ledger.add("r1999", 2000) == 1999 and "r7" in ledger and "r2000" not in ledger
        assert ledger.answered("r7") and not ledger.answered("r7") and not ledger.answered("r2000")
        assert not ledger.waits("r7", 7) and ledger.waits("r8", 8) and not ledger.waits("r8", 9)


def test_the_file_may_be_absent(tmp_path: Path) -> None:
    from support.batches import Job, run

    with pytest.raises(FileFormatError, match="no such file"):
        run(Job(requests=tmp_path / "absent", answers=tmp_path / "a"))
    assert not (tmp_path / "a").exists()
