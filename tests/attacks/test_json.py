"""Bombs in every JSON file that a model's folder may have: refused by name, or read as far as anybody needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ernie_rt.export import export
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.quantize import Quantization, quantize_model
from support.attempts import attempt, refused, refused_each
from support.hostile import DOORS, INDEX, SINGLE, both, copied, put

DEEP = 100_000
MANY = "too many values"
BOMBS: dict[str, tuple[bytes, str]] = {
    "a hundred thousand lists deep": (b"[" * DEEP + b"]" * DEEP, "nested too deeply"),
    "a hundred thousand objects deep": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "nested too deeply"),
    "brackets that never close": (b'{"a":' + b"[" * DEEP, "nested too deeply"),
    "deeper than any file is": (b'{"a":' * 70 + b"1" + b"}" * 70, "nested more than 64 levels deep"),
    "a quarter of a million empty lists": (b'{"a":[' + b"[]," * 262_000 + b"[]]}", "too many values"),
    "half a million numbers": (b'{"a":[' + b"1," * 500_000 + b"1]}", "too many values"),
    "a string that never ends": (b'{"a": "' + b"x" * 500_000, "malformed JSON"),
    "escapes that never end": (b'{"a": "' + b'\\"' * 400_000, "malformed JSON"),
    "spaces": (b" " * 1_000_000, "malformed JSON"),
    "UTF-16": (b"\xff\xfe{\0}\0", "UTF-16"),
    "UTF-7": (b"+AHsAfQ-", "malformed JSON"),
    "no UTF-8": (b'{"\xc0\xaf": 1}', "not UTF-8"),
    "a surrogate in UTF-8": (b'{"\xed\xa0\x80": 1}', "not UTF-8"),
    "nothing": (b"", "malformed JSON"),
    "null": (b"null", "not an object"),
    "a number of a million digits": (b"1" * 1_000_000, ""),
    "two objects": (b"{}{}", "malformed JSON"),
    "a comment": (b"{} // {}", "malformed JSON"),
    "code": (b"__import__('os').abort()", "malformed JSON"),
}
FILES: dict[str, str] = {
    "config.json": "encode",
    "generation_config.json": "encode",
    "tokenizer_config.json": "encode",
    "added_tokens.json": "encode",
    "special_tokens_map.json": "encode",
    "tokenizer.json": "encode",
    INDEX: "plan",
    "ernie_rt.json": "plan",
}
"""And the door through which each is read first."""


@pytest.mark.parametrize("name", FILES)
def test_bombs(name: str, untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    if name == INDEX:
        (folder / SINGLE).rename(folder / "model-00001-of-00001.safetensors")
    cases = [(put(name, data), "InputError", words) for data, words in BOMBS.values()]
    if name == "tokenizer.json":  # there may be more values in this one
        cases = [(change, kind, words if words != MANY else "without a model") for change, kind, words in cases]
    refused_each(DOORS[FILES[name]], folder, cases, f"/{name}", size=1 << 20)


def test_a_tokenizer_json_of_too_many_values(untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    data = b'{"a":[' + b"[]," * 4_000_000 + b"[]]}"
    put("tokenizer.json", data)(folder)
    refused(DOORS["encode"], folder, "JsonError", "too many values", size=len(data))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "ernie_rt.json"])
def test_bombs_in_folders_that_are_verified(name: str, untrained: Path, tmp_path: Path) -> None:
    """They are read before their digests are: the graph is made of them."""
    if name == "tokenizer_config.json":
        export(untrained, tmp_path / "out")
    else:
        quantize_model(untrained, read_config(untrained), tmp_path / "out", Quantization(4))
    cases = [(put(name, data), "InputError", "") for data, _ in BOMBS.values()]
    refused_each(DOORS["verify"], tmp_path / "out", cases, f"/{name}", size=1 << 20)


UNUSABLE = b'{"x": NaN, "y": [Infinity, -Infinity], "z": 1e999, "v": %b, "w": 1, "w": 2, "s": "\\ud800"}' % (
    b"9" * 5000
)


@pytest.mark.parametrize("name", [name for name in FILES if name not in (INDEX, "ernie_rt.json", "tokenizer.json")])
def test_what_nobody_reads_may_be_what_json_libraries_write(name: str, untrained: Path, tmp_path: Path) -> None:
    """Numbers that are none, keys that occur twice, half a character: as long as no field of it is asked for."""
    folder = copied(untrained, tmp_path / "model")
    path = folder / name
    fields = path.read_bytes().strip()[1:] if path.exists() else b"}"
    put(name, UNUSABLE[:-1] + (b"," if fields != b"}" else b"") + fields)(folder)
    if name == "added_tokens.json":  # of which all are asked for
        refused(DOORS["encode"], folder, "TokenizerError", "an impossible added token")
        return
    fate = attempt(DOORS["encode"], folder)
    assert fate.kinds == () and fate.strays(folder) == []


@pytest.mark.parametrize("name", ["preprocessor_config.json", "generation_config.json"])
def test_bombs_of_a_model_that_sees(name: str, tmp_path: Path) -> None:
    import ernie_rt

    folder = copied(Path(ernie_rt.__file__).parent / "demo-vl", tmp_path / "model")
    cases = [(put(name, data), "JsonError", words) for data, words in BOMBS.values()]
    refused_each(DOORS["encode"], folder, cases, f"/{name}", size=1 << 20)


def test_an_adapter_that_is_a_bomb_is_an_adapter(tmp_path: Path, untrained: Path) -> None:
    """What says of which model it is one, is read to help, and must not harm."""
    folder = copied(untrained, tmp_path / "model")
    both(put("adapter_config.json", b"[" * DEEP), put("adapter_model.safetensors", b""))(folder)
    (folder / "config.json").unlink()
    refused(DOORS["encode"], folder, "ModelNotFoundError", "an adapter (LoRA), not a whole model")
    put("adapter_config.json", {"base_model_name_or_path": "\x1b]52;c;eA==\x07" * 50})(folder)
    refused(DOORS["encode"], folder, "ModelNotFoundError", r"\x1b]52")
