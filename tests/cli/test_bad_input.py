"""What is wrong with a folder is one line that names the file or field: at once, without a traceback, and with no code
of the folder run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.commands import command
from support.hostile import INDEX, SINGLE, Break, copied, entry, image

SECONDS = 1.0
BYTES = 8 << 20
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture(scope="module", autouse=True)
def warm(untrained: Path) -> Iterator[None]:
    """Imports are not part of the second. The checkpoint that all folders link to stays as it is."""
    before = {path.name: path.read_bytes() for path in untrained.iterdir()}
    assert command("run", untrained, "hello", "-n", "2", "--backend", "reference").code == 0
    yield
    assert before == {path.name: path.read_bytes() for path in untrained.iterdir()}


@pytest.fixture
def folder(untrained: Path, tmp_path: Path) -> Path:
    return copied(untrained, tmp_path / "model")


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """A pipe that is opened would block for ever."""

    def late(*args: object) -> None:
        raise TimeoutError("blocked")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def check(folder: Path, *messages: str) -> None:
    """`ernie-rt run` refuses the folder with these words, quickly, and with little memory."""
    tracemalloc.start()
    try:
        began = time.process_time()
        ran = command("run", folder, "hello", "-n", "4")
        took, grown = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (ran.code, ran.out) == (2, ""), ran
    line = ran.err.removesuffix("\n")
    assert line.startswith("ernie-rt: ") and line.isprintable() and len(line) < 1000 + len(str(folder)), line
    for message in messages:
        assert message in line
    assert took < SECONDS and grown < BYTES


def text(name: str, content: str | bytes) -> Break:
    return lambda folder: replace(folder / name, content if isinstance(content, bytes) else content.encode())


def absent(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def cut(name: str, length: int) -> Break:
    return lambda folder: replace(folder / name, (folder / name).read_bytes()[:length])


def sparse(name: str, length: int) -> Break:
    def extend(folder: Path) -> None:
        replace(folder / name, b"")
        os.truncate(folder / name, length)

    return extend


def special(name: str, kind: str) -> Break:
    """Put what is no regular file of the folder where a file should be."""

    def put(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "zero":
                path.symlink_to("/dev/zero")
            case "loop":
                path.symlink_to(path)
            case "socket":
                here = Path.cwd()
                os.chdir(folder)  # a socket's path is short
                with socket.socket(socket.AF_UNIX) as server:
                    server.bind(name)
                os.chdir(here)

    return put


SPECIAL = {
    "pipe": "not a regular file; found a named pipe",
    "folder": "not a regular file; found a folder",
    "zero": "not a regular file; found a device",
    "loop": "cannot be opened",
    "socket": "not a regular file; found a socket",
}
FOREIGN = {
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "`git lfs pull`",
    ),
    "an HTML page": (b"<!DOCTYPE html><html><body>404</body></html>", "fetch the file again"),
    "a zip archive": (b"PK\x03\x04" + bytes(200), ".safetensors files"),
    "a pickle": (pickle.dumps({"weight": 1}), ".safetensors files"),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["config.json", SINGLE, "tokenizer.model", "added_tokens.json"])
def test_files_that_are_no_files(name: str, kind: str, folder: Path) -> None:
    special(name, kind)(folder)
    check(folder, f"/{name}: {SPECIAL[kind]}")


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["config.json", SINGLE, "tokenizer.model", "added_tokens.json"])
def test_files_of_another_kind(name: str, kind: str, folder: Path) -> None:
    content, hint = FOREIGN[kind]
    text(name, content)(folder)
    check(folder, f"/{name}: ", f"found {kind}. ", hint)


CONFIGS: dict[str, tuple[Break, str]] = {
    "empty": (text("config.json", ""), "malformed JSON; found Expecting value at line 1, column 1"),
    "cut": (cut("config.json", 300), "malformed JSON; found "),
    "prose": (text("config.json", "Dear reader,"), "malformed JSON"),
    "array": (text("config.json", "[1]"), "the top level is not an object; found list"),
    "deep": (text("config.json", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"), "nested too deeply"),
    "deep enough": (text("config.json", '{"a":' * 70 + "1" + "}" * 70), "nested more than 64 levels deep"),
    "UTF-16": (
        text("config.json", "{}".encode("utf-16")),
        "not UTF-8; found UTF-16, as Windows PowerShell",
    ),
    "large": (text("config.json", '{"a": "' + "x" * (1 << 20) + '"}'), "too large; expected at most 1048576 bytes"),
    "vast": (sparse("config.json", 1 << 40), "too large; expected at most 1048576 bytes; found 1099511627776"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_that_are_no_json_object(case: str, folder: Path) -> None:
    damage, message = CONFIGS[case]
    damage(folder)
    check(folder, f"{folder}/config.json: {message}")


UNUSABLE: dict[str, tuple[str, str]] = {
    "twice": ('"hidden_size": 1, "hidden_size": 2', "found the key 'hidden_size' occurs twice"),
    "NaN": ('"rope_theta": NaN', "rope_theta: impossible value; expected a number from 1 to 1e+12; found NaN is not a"),
    "Infinity": ('"rope_theta": -Infinity', "found -Infinity is not a JSON number"),
    "overflow": ('"rope_theta": 1e999', "found the number 1e999 is beyond float64"),
    "digits": ('"hidden_size": ' + "9" * 100_000, "hidden_size: impossible value"),
    "1e30": (f'"hidden_size": {10**30}', "found 1000000000"),
    "surrogate": ('"hidden_act": "\\ud800"', "hidden_act: not supported; expected silu or swish; found a lone"),
    "in a list": ('"eos_token_id": [2, NaN]', "eos_token_id: impossible value"),
    "in a section": ('"rope_parameters": {"rope_theta": 1, "rope_theta": 1}', "rope_theta: impossible value"),
    "a section": ('"rope_parameters": NaN', "rope_parameters: impossible value"),
    "an alias": ('"num_experts": NaN, "moe_num_experts": 8', "num_experts: "),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_values_of_fields_that_are_read(case: str, folder: Path) -> None:
    fields, message = UNUSABLE[case]
    replace(folder / "config.json", b'{"model_type": "ernie4_5_moe", %b}' % fields.encode())
    check(folder, "config.json: ", message)


FIELDS: list[tuple[dict[str, Any], str]] = [
    *(({"num_hidden_layers": n}, "num_hidden_layers: ") for n in (0, -1, 10**9, 2**64, 2.5, "4", True, [4], None)),
    *(({"hidden_size": n}, "hidden_size: ") for n in (0, -1, 2**63, 1e308, "1024", {})),
    *(({"head_dim": n}, "head_dim: ") for n in (0, 33, 10**6, -32)),
    *(({"vocab_size": n}, "vocab_size") for n in (0, 2, 10**12, "1000")),
    *(({"rope_theta": n}, "rope_theta: ") for n in (0, -1, 1e300, "x", False)),
    *(({"rms_norm_eps": n}, "rms_norm_eps: ") for n in (0, -1e-5, 1, "1e-5")),
    *(({"eos_token_id": n}, "eos_token_id") for n in (10**12, -2, 1000, "2", [2] * 1000, [2, None])),
    *(({"max_position_embeddings": n}, "max_position_embeddings: ") for n in (0, 2**40, -1)),
    *(({"moe_num_experts": n}, "moe_num_experts: ") for n in (0, 10**6, [], "8")),
    *(({"moe_k": n}, "moe_k") for n in (0, 9, 2**31, True)),
    *(({"moe_layer_interval": n}, "moe_layer_interval: ") for n in (0, -1)),
    *(({"torch_dtype": n}, "torch_dtype: ") for n in ("float64", "int8", 16, "__import__('os').abort()")),
    *(({"architectures": n}, "architectures: ") for n in ("Ernie", ["LlamaForCausalLM"], [1])),
    ({"num_attention_heads": 3}, "num_attention_heads, num_key_value_heads: "),
    ({"num_attention_heads": 10**9}, "num_attention_heads: "),
    ({"num_key_value_heads": 0}, "num_key_value_heads: "),
    ({"intermediate_size": 2**40}, "intermediate_size: "),
    (
        {"num_hidden_layers": 1024, "moe_num_experts": 128},
        "num_hidden_layers, moe_num_experts (num_experts): the model",
    ),
    ({"num_hidden_layers": 1000, "hidden_size": 65536, "intermediate_size": 1 << 20}, "impossibly large; expected at"),
    ({"moe_layer_start_index": 99}, "moe_layer_start_index, "),
    ({"moe_num_shared_experts": -1}, "moe_num_shared_experts: "),
    ({"moe_use_aux_free": "yes"}, "moe_use_aux_free: "),
    ({"moe_intermediate_size": 2**30}, "moe_intermediate_size: "),
    ({"compression_ratio": 0}, "compression_ratio: "),
    ({"tie_word_embeddings": "true"}, "tie_word_embeddings: "),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling.rope_type: not supported"),
    ({"rope_parameters": {"rope_theta": -1}}, "rope_parameters: rope_theta: "),
    ({"rope_parameters": [1]}, "rope_parameters: "),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: not supported"),
    ({"sliding_window": 128}, "sliding_window: not supported"),
    ({"hidden_act": "__import__('os').abort()"}, "hidden_act: not supported"),
    ({"quantization_config": {"bits": 4}}, "quantization_config: not supported"),
    ({"moe_gate": "sinkhorn"}, "moe_gate: not supported"),
    ({"num_experts": 9}, "num_experts: differs from moe_num_experts"),
    ({"model_type": "llama"}, "model_type: not a model that ernie-rt runs; expected ernie4_5, ernie4_5_moe"),
    ({"model_type": "x" * 100_000}, "model_type: not a model that ernie-rt runs"),
    ({"model_type": "\x1b[2J\n"}, "model_type: not a model that ernie-rt runs"),
    ({"model_type": None, "architectures": None}, "model_type: not a model that ernie-rt runs"),
    ({"model_type": ["ernie4_5_moe"]}, "model_type: not a model that ernie-rt runs"),
    ({"model_type": "ernie4_5"}, "a dense model with experts"),
    ({"model_type": "ernie4_5_moe_vl"}, "architectures: not a class of model_type ernie4_5_moe_vl"),
    ({"architectures": ["Ernie4_5_VLMoeForConditionalGeneration"]}, "architectures: not a class of model_type ernie4"),
]


def change(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    replace(folder / "config.json", json.dumps(config | fields).encode())


@pytest.mark.parametrize(("fields", "message"), FIELDS, ids=lambda value: str(value)[:60])
def test_impossible_fields(fields: dict[str, Any], message: str, folder: Path) -> None:
    if fields.get("model_type") == "ernie4_5":
        fields = fields | {"architectures": None}
    change(folder, **fields)
    check(folder, "ernie-rt: config.json: ", message)


def rewritten(change: Callable[[dict[str, np.ndarray[Any, Any]]], object]) -> Break:
    """Change the tensors of the single file."""

    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / SINGLE)
        change(tensors)
        (folder / SINGLE).unlink()
        save_file(tensors, folder / SINGLE)

    return rewrite


def alone(name: str, content: bytes) -> Break:
    """Put a file in the place of the weights."""

    def put(folder: Path) -> None:
        (folder / SINGLE).unlink()
        (folder / name).write_bytes(content)

    return put


NORM, EMBED = "model.norm.weight", "model.embed_tokens.weight"
WEIGHTS: dict[str, tuple[Break, str]] = {
    "absent": (absent(SINGLE), f"there are no weights; expected {SINGLE} or {INDEX}. Fetch the whole repository"),
    "alone": (absent("config.json"), "this is weights without their config.json. Fetch it from the repository"),
    "renamed": (lambda f: (f / SINGLE).rename(f / "weights.safetensors"), "there are no weights"),
    "torch pickle": (alone("pytorch_model.bin", pickle.dumps({})), "pickles, which can run code when opened"),
    "paddle pickle": (alone("model_state.pdparams", pickle.dumps({})), "found 1: 'model_state.pdparams'"),
    **{
        f"cut at {length}": (cut(SINGLE, length), f"/{SINGLE}: ")
        for length in (0, 4, 8, 100, 20_000, 1_000_000, 2_435_000)
    },
    "trailing bytes": (lambda f: replace(f / SINGLE, (f / SINGLE).read_bytes() + b"x"), "do not fill the file"),
    "zeros": (sparse(SINGLE, 1 << 40), "the header does not start with '{'"),
    "header beyond the file": (
        text(SINGLE, (1 << 62).to_bytes(8, "little") + b"{}"),
        "cut short; expected a header of",
    ),
    "header of prose": (text(SINGLE, image(b"Dear reader,")), "the header does not start with '{'"),
    "name twice": (
        text(SINGLE, image(b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 4, [1])).encode(),) * 2), b"1234")),
        "",
    ),
    "name with control characters": (text(SINGLE, image({"a\x1b[2J\n": entry(0, 4, [1])}, bytes(4))), "\\x1b[2J\\n"),
    "shape beyond the data": (text(SINGLE, image({"a": entry(0, 4, [1 << 40])}, bytes(4))), "an impossible entry"),
    "shape that wraps": (text(SINGLE, image({"a": entry(0, 4, [4194305, 4194305, 211106198978564])}, bytes(4))), ""),
    "no tensors": (text(SINGLE, image({})), "not the tensors of an ERNIE 4.5 model"),
    "another model": (text(SINGLE, image({"bert.x": entry(0, 4, [1])}, bytes(4))), "found 1: 'bert.x'"),
    "tensor missing": (rewritten(lambda t: t.pop(NORM)), f"tensors missing, 1: '{NORM}'"),
    "tensor left over": (rewritten(lambda t: t.update(stray=t[NORM])), "tensors left over, 1: 'stray'"),
    "wrong shape": (rewritten(lambda t: t.update({NORM: t[NORM][:-1]})), f"'{NORM} [127] instead of [128]'"),
    "wrong dtype": (rewritten(lambda t: t.update({NORM: np.ones(128, np.int64)})), f"'{NORM} I64'"),
    "fewer embeddings": (rewritten(lambda t: t.update({EMBED: t[EMBED][:-1]})), f"{EMBED} [999, 128] instead of [1000"),
    "larger vocabulary": (lambda f: change(f, vocab_size=2000), f"{EMBED} [1000, 128] instead of [2000, 128]"),
    "hostile vocabulary": (lambda f: change(f, vocab_size=1 << 18), f"{EMBED} [1000, 128] instead of [262144, 128]"),
    "more layers": (lambda f: change(f, num_hidden_layers=5), "tensors missing, 35: 'model.layers.4."),
    "fewer layers": (lambda f: change(f, num_hidden_layers=3), "tensors left over, 35: 'model.layers.3."),
    "wider": (lambda f: change(f, hidden_size=256), f"{EMBED} [1000, 128] instead of [1000, 256]"),
    "untied": (lambda f: change(f, tie_word_embeddings=False), "tensors missing, 1: 'lm_head.weight'"),
    "long context": (lambda f: change(f, max_position_embeddings=1 << 24, hidden_size=256), "instead of [1000, 256]"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(case: str, folder: Path) -> None:
    damage, message = WEIGHTS[case]
    damage(folder)
    check(folder, str(folder), message)


def shard(folder: Path) -> dict[str, Any]:
    """Split the weights into two shards and return their index, which is not written yet."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = sorted(tensors)
    parts = {ONE: names[: len(names) // 2], TWO: names[len(names) // 2 :]}
    for part, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / part)
    weight_map = {name: part for part, own in parts.items() for name in own}
    return {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}


def mapped(**changes: str | None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Change the map of an index; None removes a name."""

    def change(index: dict[str, Any]) -> dict[str, Any]:
        weight_map = {name: part for name, part in (index["weight_map"] | changes).items() if part is not None}
        return index | {"weight_map": weight_map}

    return change


INDEXES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "no map": (lambda i: {"metadata": {}}, f"/{INDEX}: weight_map is not an object"),
    "a map of numbers": (lambda i: {"weight_map": {"a": 1}}, f"/{INDEX}: weight_map is not an object"),
    "too many": (
        lambda i: {"weight_map": {f"t{n}": f"s{n}.safetensors" for n in range(20_000)}},
        f"/{INDEX}: too many shards; expected at most 512; found 20000",
    ),
    **{
        f"at {ascii(path)[:20]}": (mapped(**{NORM: path}), "a file name that could lead out of its folder; expected")
        for path in ("../outside", "/etc/passwd", "a/b", "..", ".", "", "C:\\x", "x\0y", "é.safetensors", "x" * 300)
    },
}
SHARDS: dict[str, tuple[Break, str]] = {
    "one absent": (absent(TWO), f"shards are missing, 1: '{TWO}'. The download is incomplete; resume it"),
    "both absent": (lambda f: [(f / name).unlink() for name in (ONE, TWO)], "shards are missing, 2: "),
    "cut": (cut(TWO, 9000), f"/{TWO}: "),
    "a pointer": (text(TWO, FOREIGN["a Git LFS pointer"][0]), f"/{TWO}: not a safetensors file; found a Git LFS"),
    "a pickle": (text(ONE, pickle.dumps([1])), f"/{ONE}: not a safetensors file; found a pickle"),
    **{f"a {kind}": (special(TWO, kind), f"/{TWO}: {message}") for kind, message in SPECIAL.items()},
    "in two": (
        lambda f: (
            save_file(load_file(f / ONE) | {NORM: np.ones(1, np.float32)}, f / ONE),
            (f / INDEX).write_text(json.dumps({"weight_map": {"a": ONE, "b": TWO}})),
        ),
        f"does not say which counts, 1: '{NORM}'",
    ),
    "an index of prose": (text(INDEX, "Dear reader,"), f"/{INDEX}: malformed JSON"),
    "an index with a key twice": (text(INDEX, '{"weight_map": {"a": "b", "a": "c"}}'), "the key 'a' occurs twice"),
    "a vast index": (sparse(INDEX, 1 << 40), f"/{INDEX}: too large; expected at most 4194304 bytes"),
    "an index in a pipe": (special(INDEX, "pipe"), f"/{INDEX}: not a regular file; found a named pipe"),
}


@pytest.fixture
def sharded(folder: Path) -> Path:
    (folder / INDEX).write_text(json.dumps(shard(folder)))
    return folder


def test_good_shards_run(sharded: Path) -> None:
    assert command("run", sharded, "hello", "-n", "2", "--backend", "reference").code == 0


WRONG: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "swapped": (mapped(**{NORM: ONE}), f"has tensors in another shard than they are, 1: '{NORM}'"),
    "unknown to the index": (mapped(**{NORM: None}), f"lacks tensors that a shard has, 1: '{NORM}'"),
    "unknown to the shards": (mapped(x=ONE), "has tensors that no shard has, 1: 'x'"),
    "in a shard that is not there": (mapped(x="model-3.safetensors"), "has tensors that no shard has, 1: 'x'"),
    "of another size": (lambda i: i | {"metadata": {"total_size": 1}}, "says a total_size of 1, the tensors have 2,4"),
    "long names": (mapped(**{"x" * 100_000: ONE}), "has tensors that no shard has, 1: 'xxxxxxxx"),
    "control characters": (mapped(**{"\x1b[2J\n": ONE}), r"'\x1b[2J\n'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_index_that_is_wrong_about_the_shards_is_said(case: str, sharded: Path) -> None:
    damage, message = WRONG[case]
    (sharded / INDEX).write_text(json.dumps(damage(json.loads((sharded / INDEX).read_text()))))
    outcome = command("run", sharded, "hello", "-n", "2", "--backend", "reference")
    assert outcome.code == 0 and f"\n{INDEX} " in f"\n{outcome.err}" and message in outcome.err
    assert len(max(outcome.err.splitlines(), key=len)) < 400


@pytest.mark.parametrize("case", INDEXES)
def test_indexes(case: str, sharded: Path) -> None:
    damage, message = INDEXES[case]
    (sharded / INDEX).write_text(json.dumps(damage(json.loads((sharded / INDEX).read_text()))))
    check(sharded, str(sharded), message)


@pytest.mark.parametrize("case", SHARDS)
def test_shards(case: str, sharded: Path) -> None:
    damage, message = SHARDS[case]
    damage(sharded)
    check(sharded, str(sharded), message)


TOKENIZERS: dict[str, tuple[Break, str]] = {
    "absent": (absent("tokenizer.model"), "there is no tokenizer; expected tokenizer.model or tokenizer.json"),
    "empty": (text("tokenizer.model", b""), "tokenizer.model: not a usable SentencePiece model"),
    "prose": (text("tokenizer.model", b"Dear reader,"), "tokenizer.model: not a usable SentencePiece model"),
    "zeros": (text("tokenizer.model", bytes(100_000)), "tokenizer.model: not a usable SentencePiece model"),
    "cut": (cut("tokenizer.model", 5_000), "tokenizer.model: not a usable SentencePiece model"),
    "vast": (sparse("tokenizer.model", 1 << 40), "tokenizer.model: too large; expected at most 8388608 bytes"),
    "too many pieces": (
        lambda f: change(f, vocab_size=990),
        "tokenizer.model: more tokens than the model has embeddings for; expected at most vocab_size = 990; found 1000",
    ),
    "added beyond the vocabulary": (
        text("added_tokens.json", '{"<x>": 1000}'),
        "added_tokens.json: an impossible added",
    ),
    "added at a taken place": (text("added_tokens.json", '{"<x>": 7}'), "added_tokens.json: an impossible added token"),
    "added by a string": (text("added_tokens.json", '{"<x>": "1"}'), "added_tokens.json: an impossible added token"),
    "a special token twice": (
        text("special_tokens_map.json", '{"sep_token": "a", "sep_token": "<mask:1>"}'),
        "special_tokens_map.json: sep_token: the key 'sep_token' occurs twice",
    ),
    "added NaN": (text("added_tokens.json", '{"<x>": NaN}'), "added_tokens.json: an impossible added token"),
    "added deep": (text("added_tokens.json", '{"a":' + "[" * 90_000 + "]" * 90_000 + "}"), "added_tokens.json: nested"),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_tokenizers(case: str, folder: Path) -> None:
    damage, message = TOKENIZERS[case]
    damage(folder)
    check(folder, str(folder), message)


def test_prompts_over_the_context(untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("the harbour " * 20_000)
    for arguments in (("x", "-n", "4097"), ("-f", tmp_path / "long.txt"), ("x", "-n", str(10**12))):
        began = time.process_time()
        ran = command("run", untrained, *arguments)
        assert time.process_time() - began < SECONDS
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "longer than the context; expected at most 4096 tokens; found " in ran.err
        assert "Shorten the prompt, or lower --max-new-tokens" in ran.err


def test_a_bad_folder_costs_no_backend(folder: Path) -> None:
    """In a process of its own: the weights are looked at before PyTorch is imported."""
    cut(SINGLE, 1000)(folder)
    program = (
        "import sys; from ernie_rt.cli import main\ntry:\n    main()\nexcept SystemExit as exit:\n"
        "    print({'torch', 'transformers', 'onnxruntime'} & sys.modules.keys(), exit.code)"
    )
    done = subprocess.run([sys.executable, "-c", program, "run", folder, "x"], capture_output=True, text=True)
    assert done.stdout == "set() 2\n" and f"/{SINGLE}: " in done.stderr


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 4])
def test_pickles_are_never_opened(protocol: int, folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    payload = pickle.dumps(Canary(canary), protocol)
    pickle.loads(payload)
    canary.unlink()  # it works
    for name in (SINGLE, "config.json", "tokenizer.model", "pytorch_model.bin", "model_state.pdparams"):
        broken = shutil.copytree(folder, tmp_path / f"{name}.folder", copy_function=os.link)
        if name not in (SINGLE, "config.json", "tokenizer.model"):
            (broken / SINGLE).unlink()
        replace(broken / name, payload)
        check(broken)
    assert not canary.exists()


def test_code_beside_a_model_is_never_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name in ("modeling_x", "configuration_x", "tokenization_x", "conftest", "sitecustomize", "setup"):
        (folder / f"{name}.py").write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()\n")
    good = command("run", folder, "hello", "-n", "2", "--backend", "reference")
    auto_map = {
        "AutoConfig": "configuration_x.Config",
        "AutoModelForCausalLM": "modeling_x.Model",
        "AutoTokenizer": ["tokenization_x.Tokenizer", None],
    }
    change(
        folder,
        auto_map=auto_map,
        custom_pipelines={"text-generation": {"impl": "modeling_x.Pipeline"}},
        _attn_implementation_internal="modeling_x/kernels:attention",
        trust_remote_code=True,
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map, "tokenizer_class": "Tokenizer"}))
    modules = set(sys.modules)
    ran = command("run", folder, "hello", "-n", "2", "--backend", "reference")
    assert (ran.code, ran.out) == (0, good.out)
    assert not canary.exists() and not {name for name in sys.modules.keys() - modules if name.endswith("_x")}
