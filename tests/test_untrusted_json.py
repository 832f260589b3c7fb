from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt import files
from ernie_rt.errors import JsonError
from ernie_rt.untrusted_json import Unusable, parse_json, usable

BROKEN = {
    "deep arrays": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    "deep objects": (b'{"a":' * 200 + b"1" + b"}" * 200, "nested"),
    "not UTF-8": (b'{"a": "\xff"}', "UTF-8"),
    "UTF-16 by PowerShell": ('{"a": 1}'.encode("utf-16"), "UTF-16, as Windows PowerShell writes it. Save it as UTF-8"),
    "UTF-16, big end first": (b"\xfe\xff" + '{"a": 1}'.encode("utf-16-be"), "UTF-16"),
    "UTF-16 without its mark": ('{"a": 1}'.encode("utf-16-le"), "UTF-16"),
    "cut short": (b'{"a": ', "line 1, column 7"),
    "trailing": (b"{} {}", "Extra data"),
    "empty": (b"", "line 1"),
    "array": (b"[1]", "not an object"),
    "not a number": (b"NaN", "not an object"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "page": (b"<!DOCTYPE html><html>", "an HTML page"),
}
UNUSABLE = {
    "long integer": (b'{"a": ' + b"9" * 5000 + b"}", "the number 9{40}… is beyond float64"),
    "an integer of 309 digits": (b'{"a": 2' + b"0" * 308 + b"}", "the number 20{39}… is beyond float64"),
    "NaN": (b'{"a": NaN}', "NaN is not a JSON number"),
    "Infinity": (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
    "overflow": (b'{"a": 1e999}', "the number 1e999 is beyond float64"),
    "duplicate": (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
    "surrogate": (b'{"a": "\\ud800"}', "a lone surrogate in the text at 'a'"),
}
ELSEWHERE = {
    "in a list": (b'{"x": [1, NaN]}', "NaN"),
    "nested duplicate": (b'{"x": [{"a": 1, "a": 1}]}', "occurs twice"),
    "surrogate in a list": (b'{"x": ["\\udfff"]}', "surrogate"),
    "surrogate key": (b'{"\\udfff": 1}', "surrogate"),
    "surrogate behind numbers": (b'{"x": [[1, 2], {"y": "\\ud800"}]}', "surrogate"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_json_object_is_a_named_error_with_its_reason(tmp_path: Path, name: str) -> None:
    data, reason = BROKEN[name]
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(JsonError, match=reason) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [*UNUSABLE, *ELSEWHERE])
def test_a_strict_file_has_nothing_that_is_unusable(tmp_path: Path, name: str) -> None:
    data, reason = (UNUSABLE | ELSEWHERE)[name]
    path = tmp_path / "own.json"
    path.write_bytes(data)
    with pytest.raises(JsonError, match=reason) as caught:
        files.read_json(path, strict=True)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 400
    files.read_json(path)


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_value_is_refused_by_whoever_reads_it(tmp_path: Path, name: str) -> None:
    data, reason = UNUSABLE[name]
    path = tmp_path / "config.json"
    path.write_bytes(data[:-1] + b', "read": "this"}')
    found = files.read_json(path)
    assert found["read"] == "this"
    value = found["a"]
    assert isinstance(value, Unusable) and not isinstance(value, (int, float, str, bool)) and repr(value)
    uses = (bool, str, list, hash, lambda it: it == 1, lambda it: it != 1, lambda it: 1 in it, lambda it: it["x"])
    for use in uses:
        with pytest.raises(JsonError, match=f"config.json: a: {reason}"):
            use(value)
    assert usable(found) == {key: each for key, each in found.items() if key != "a"}


def test_usable_leaves_the_rest_as_it_is() -> None:
    data = b'{"x": [1, NaN, {"y": "\\ud800", "z": [null]}], "big": 1000000000000000000000000000000}'
    found = usable(parse_json(data, where="x", strict=False))
    assert found == {"x": [1, {"z": [None]}], "big": 10**30} and json.loads(json.dumps(found)) == found


def test_good_json_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    text = (
        '{"a": [1, -2.5e3, true, null, "文心 \\ud83d\\ude00"], "b": {"c": 18446744073709551615, "d": 1'
        + "0" * 30
        + "}}"
    )
    for mark in ("", "\ufeff"):
        path.write_text(mark + text, encoding="utf-8")
        expected = {"a": [1, -2500.0, True, None, "文心 😀"], "b": {"c": 2**64 - 1, "d": 10**30}}
        assert files.read_json(path, strict=True) == expected
    assert parse_json(b"[" * 10 + b"1" + b"]" * 10, where="x", depth=10)
    with pytest.raises(JsonError, match="nested"):
        parse_json(b"[" * 11 + b"1" + b"]" * 11, where="x", depth=10)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=20))
def test_whatever_python_writes_is_read(value: Any) -> None:
    written = json.dumps({"x": value, "\ud800": "\ud800"})
    read = parse_json(written.encode(), where="x", strict=False)
    assert read.keys() == {"x", "\ud800"}
    if "NaN" not in written and "Infinity" not in written:
        assert read["x"] == value
