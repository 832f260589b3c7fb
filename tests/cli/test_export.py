"""`ernie-rt export`."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
import numpy as np
import onnxruntime

import ernie_rt
from ernie_rt.location import locate
from ernie_rt.weights.hub import resolve
from support.commands import command


def test_the_demo(tmp_path: Path) -> None:
    """Exported, verified, and run from where it lies."""
    out = tmp_path / "out"
    ran = command("export", "onnx", "demo", out, "--weights", "int8", "--verify", "--threads", 1)
    assert ran.code == 0, ran.err
    header, *figures, size, digest = ran.out.splitlines()
    assert header == "relative rms error"
    errors = {name: float(value) for name, value in (line.split() for line in figures)}
    assert list(errors) == [
        "embed", *(f"layers.{i}.{part}.residual" for i in range(6) for part in ("attention", "mlp")),
        "logits", "weights",
    ]  # fmt: skip
    assert 0 < errors["layers.0.mlp.residual"] < errors["logits"] < 0.2 and 0.004 < errors["weights"] < 0.007
    assert size == f"{out}: {sum(path.stat().st_size for path in out.iterdir()):,} bytes"
    assert digest == f"model.onnx: sha256 {hashlib.sha256((out / 'model.onnx').read_bytes()).hexdigest()}"
    verified = command("verify", out)
    count = len([*out.iterdir()]) - 1  # README.md is no part of the model
    assert (verified.code, verified.out) == (0, f"{out}: all {count} files are as they were written\n{digest}\n")
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    feeds = {"input_ids": np.array([[7, 8]]), "attention_mask": np.ones((1, 2), np.int64)}
    feeds |= {each.name: np.zeros((1, 2, 0, 32), np.float32) for each in session.get_inputs()[2:]}
    logits = session.run(["logits"], feeds)[0][0, 0]
    known = locate("demo").known_ids
    assert known is not None and (logits[known:] == np.float32(-1e30)).all() and (logits[:known] > -1e3).all()
    assert known < len(logits) == 4032
    question = "How many grams are in 5 kilograms?"
    answers = {command("run", model, question, "--backend", "onnx").out for model in (out, "demo")}
    assert answers == {"5 kilograms = 5000 grams\n"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo as it is, and what was said of it as JSON. Nobody writes into it."""
    out = tmp_path_factory.mktemp("exported") / "out"
    return out, command("export", "onnx", resolve("demo"), out, "--json", "--threads", 1).out


def test_json(exported: tuple[Path, str]) -> None:
    out, told = exported
    found = json.loads(told)
    assert found["files"].keys() >= {"model.onnx", "genai_config.json", "tokenizer.json", "ernie_rt.json"}
    assert (found["figures"], found["notes"]) == ({}, [])
    verified = json.loads(command("verify", out, "--numbers", "--json").out)
    assert verified["sha256"].keys() == found["files"].keys() - {"README.md"}
    assert found["sha256"] == {"model.onnx": verified["sha256"]["model.onnx"]}
    assert verified["figures"]["logits"] < 1e-4 and verified["notes"] == []


def test_what_is_not_whole(exported: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(exported[0], tmp_path / "out")
    config = tmp_path / "out" / "genai_config.json"
    config.write_text(config.read_text().replace("top_k", "top_j"))
    ran = command("verify", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")
    assert f"{config}: the file is not the one that was written: its digest differs; expected sha256" in ran.err
    ran = command("verify", tmp_path)
    assert (ran.code, ran.out) == (2, "") and "not a folder that was exported" in ran.err


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (("onnx", "demo", "{there}"), "cannot be written; found File exists"),
        (("onnx", "demo", "{there}/no/where"), "cannot be written; found No such file or directory"),
        (("eager", "demo", "{out}"), "backend 'eager' has no format to export to; expected one of onnx"),
        (("nope", "demo", "{out}"), "no backend 'nope'; expected one of cudagraph, eager, onnx, reference"),
        (("onnx", "demo", "{out}", "--dtype", "int4"), "unknown dtype 'int4'"),
        (("onnx", "demo", "{out}", "--dtype", "float64"), "no ONNX graph computes in float64"),
        (("onnx", "demo", "{out}", "--weights", "int4", "--block", "128"), "choose a smaller block"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    there, out = tmp_path / "there", tmp_path / "out"
    there.mkdir()
    ran = command("export", *(text.format(there=there, out=out) for text in arguments))
    assert ran.code in (1, 2) and ran.out == "" and problem.lower() in ran.err.lower()
    assert [*tmp_path.iterdir()] == [there]


def test_a_head_that_differs_from_a_tied_embedding(with_own_head: Path, tmp_path: Path) -> None:
    ran = command("export", "onnx", with_own_head, tmp_path / "out", "--dtype", "float32", "--verify", "--threads", 1)
    assert ran.code == 0, ran.err
    assert "the stored head is used: it differs from the embedding, to which config.json ties it\n" in ran.err
    assert command("verify", tmp_path / "out", "--numbers").code == 0
    ids = [5, 77, 400, 123, 9]
    with (
        ernie_rt.load(tmp_path / "out", backend="onnx") as exported,
        ernie_rt.load(with_own_head, backend="reference", dtype="float32") as model,
    ):
        expected = model.logits(ids)
        assert np.abs(exported.logits(ids) - expected).max() < 1e-4 * expected.std()
