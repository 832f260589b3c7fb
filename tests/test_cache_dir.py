"""`load(cache_dir=…)`: prompts go on from what an earlier process computed, and give the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ernie_rt.contract import ExecutableBase, SimpleExecutable, Step
from ernie_rt.errors import BackendError, OptionError, UnsafePathError, WriteError
from ernie_rt.loading import load
from ernie_rt.location import Located
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.session import Model
from ernie_rt.weights.synthetic import Synthetic
from support.configs import small

IDS = [int(number) for number in np.random.default_rng(0).integers(0, 61, 600)]
BACKENDS = pytest.mark.parametrize("backend", ["eager", "onnx", "reference"])
DTYPES = [
    ("eager", "bfloat16"),
    ("eager", "float32"),
    ("onnx", "float16"),
    ("onnx", "float32"),
    ("reference", "float64"),
]
ROWS = 1024


def model(backend: str, seed: int = 3, **options: Any) -> Model:
    config = small(max_position_embeddings=ROWS, head_dim=16)
    options = {"device": "cpu", "threads": 1, "max_sequences": 2, "max_batch_tokens": 256} | options
    return load(Located(config), weights=Synthetic(seed), backend=backend, **options)


def ask(loaded: Model, ids: Sequence[int] = IDS, new: int = 4, **options: Any) -> SequenceState:
    sequence = loaded.engine.submit(Request(tuple(ids), new, **options))
    list(loaded.engine.run(sequence))
    return sequence


def rows_of(loaded: Model, ids: Sequence[int]) -> np.ndarray:
    """The rows that the cache has of these tokens."""
    engine: Engine = loaded.engine
    found = engine._scheduler.rows.where(b"", np.array(ids, np.int32).view("V4"))
    assert found is not None
    data = engine._executable.read_rows(found)  # type: ignore[attr-defined]
    return np.array(data)


@pytest.mark.parametrize(("backend", "dtype"), DTYPES)
def test_rows_from_disk_are_those_that_were_computed(backend: str, dtype: str, tmp_path: Path) -> None:
    with model(backend, dtype=dtype) as plain:
        computed = ask(plain)
        rows = rows_of(plain, IDS)
    with model(backend, dtype=dtype, cache_dir=tmp_path / "cache", max_context=700) as first:
        assert ask(first).cached == 0
    with model(backend, dtype=dtype, cache_dir=tmp_path / "cache", max_context=900) as second:
        from_disk = ask(second)
        assert from_disk.cached == 512 and second.notes == ()
        assert from_disk.generated == computed.generated
        assert np.array_equal(rows_of(second, IDS), rows)
    assert rows[:, 0].any() and rows.shape[0] == 600


CHILD = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_cache_dir import IDS, model
with model("reference", cache_dir=Path(sys.argv[2])) as loaded:
    answer = loaded.engine.submit(__import__("ernie_rt.runtime.sequence", fromlist=["Request"]).Request(tuple(IDS), 4))
    list(loaded.engine.run(answer))
    print(json.dumps([answer.cached, answer.generated]))
"""


def test_another_process_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path / "cache")]
    (cached, first), (again, second) = (
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(2)
    )
    assert (cached, again) == (0, 512) and first == second


@pytest.mark.parametrize(
    "options", [{"seed": 4}, {"backend": "reference"}, {"dtype": "bfloat16"}, {"max_batch_tokens": 128}, {"threads": 2}]
)
def test_another_model_finds_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    with model("eager", cache_dir=tmp_path / "cache") as first:
        ask(first)
    with model(**{"backend": "eager", "cache_dir": tmp_path / "cache"} | options) as second:
        assert ask(second, IDS[:300], new=1).cached == 0
    with model("eager", cache_dir=tmp_path / "cache", graphs=True) as third:
        assert ask(third, new=1).cached == 512


def test_what_is_impossible_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cache_bytes bounds a cache on disk, and there is none"):
        model("eager", cache_bytes=1 << 30)
    with pytest.raises(OptionError, match="a cache on disk is there to be reused"):
        model("eager", cache_dir=tmp_path, reuse=False)
    with pytest.raises(OptionError, match="cache_bytes must be a whole number above 0"):
        model("eager", cache_dir=tmp_path, cache_bytes=0)
    with pytest.raises(OptionError, match=r"cache_bytes has too little room; expected at least .* for 512 tokens"):
        model("eager", cache_dir=tmp_path, cache_bytes=1000)
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UnsafePathError, match="others can write to"):
        model("eager", cache_dir=tmp_path / "open")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be made; found a file of that name"):
        model("eager", cache_dir=tmp_path / "file")
    with pytest.raises(WriteError, match="cannot be made"):
        model("eager", cache_dir="/proc/nothing")


def test_weights_without_a_fingerprint_are_refused(tmp_path: Path) -> None:
    class Nameless(Synthetic):
        fingerprint = None  # type: ignore[assignment]

    config = Located(small())
    with pytest.raises(OptionError, match="these have no fingerprint; found Nameless"):
        load(config, weights=Nameless(), backend="eager", device="cpu", cache_dir=tmp_path)


def test_a_backend_that_hands_out_no_rows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimpleExecutable, "read_rows", ExecutableBase.read_rows)

    def words(self: SimpleExecutable, rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), 3), np.float32)

    with pytest.raises(OptionError, match=r"ReferenceBackend on cpu\. Leave cache_dir out, or choose another backend"):
        model("reference", cache_dir=tmp_path)
    monkeypatch.setattr(SimpleExecutable, "read_rows", words)
    with pytest.raises(BackendError, match=r"expected uint8 \[0, bytes of a row\], of no row; found float32 \[0, 3\]"):
        model("reference", cache_dir=tmp_path)


@BACKENDS
def test_a_prompt_with_a_hole_is_what_it_should_be(backend: str) -> None:
    """The former text is computed, then its first part overwritten by the new one, and the tail computed behind it."""
    former, head, tail = IDS[:400], IDS[500:533], IDS[540:577]
    prompt = [*head, *former[33:], *tail]
    with model(backend, max_sequences=1) as loaded:
        ask(loaded, former, new=1)
        sequence = ask(loaded, prompt, new=4, reuse_after_change=True)
        ((start, stop),) = sequence.holes
        assert sequence.cached == 0 and 33 <= start <= 48 and 384 <= stop <= 400
        assert ask(loaded, prompt, new=4).cached == start  # who does not ask gets what was computed without
    with model(backend, max_sequences=1) as loaded:
        engine: Engine = loaded.engine
        run(engine, former, 0, len(former))
        run(engine, prompt, 0, start)
        logits = run(engine, prompt, stop, len(prompt))
        tokens = [int(logits.argmax())]
        for _ in range(3):
            logits = run(engine, [*prompt, *tokens], len(prompt) + len(tokens) - 1, len(prompt) + len(tokens))
            tokens.append(int(logits.argmax()))
    assert sequence.generated == tokens


def run(engine: Engine, ids: Sequence[int], start: int, stop: int) -> np.ndarray:
    """The logits after the last of these tokens, entered in steps of 256 into the first rows of the cache."""
    executable = engine._executable
    size = executable.cache.page_size
    result = None
    for at in range(start, stop, 256):
        new = np.array(ids[at : min(at + 256, stop)], np.int32)
        step = Step(
            ids=new,
            query_start=np.array([0, len(new)], np.int32),
            past=np.array([at], np.int32),
            tables=np.arange(-(-stop // size), dtype=np.int32)[None],
            page_size=size,
            seats=np.zeros(1, np.int32),
            rows=np.array([len(new) - 1], np.int32),
        )
        result = executable.submit(step).result()
    assert result is not None and result.logits is not None
    return np.asarray(result.logits[0])


def test_a_generation_says_what_was_reused(untrained: Path) -> None:
    with load(untrained, backend="eager", device="cpu", threads=1) as loaded:
        former = [*range(1, 200)]
        assert loaded.generate(former, max_new_tokens=1).not_cached == "nothing in the cache begins like the prompt"
        changed = [*former[:20], 7, *former[21:], 5]
        exact = loaded.generate(changed[:40], max_new_tokens=1)
        assert (exact.cached_tokens, exact.reused_after_change) == (20, 0)
        assert exact.not_cached == "the first difference from what is in the cache is at token 21 of 40"
        some = loaded.generate(changed, max_new_tokens=1, reuse_after_change=True)
        assert some.cached_tokens >= 20 and some.reused_after_change >= 128
        assert loaded.generate(former, max_new_tokens=1).not_cached == ""
        with pytest.raises(OptionError, match="reuse_after_change is not possible; expected True or False; found 1"):
            loaded.generate(former, reuse_after_change=1)  # type: ignore[call-overload]
        loaded.target = replace(loaded.target, deterministic=True)
        with pytest.raises(OptionError, match="follow from what was asked before, and the model is deterministic"):
            loaded.generate(former, reuse_after_change=True)
