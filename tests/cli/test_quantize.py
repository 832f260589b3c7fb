"""`ernie-rt quantize` and `ernie-rt convert`."""

from __future__ import annotations

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import ernie_rt
from ernie_rt.modeling.config import read_config
from ernie_rt.modeling.graphs import build_graphs
from ernie_rt.reference.backend import ReferenceBackend
from ernie_rt.weights.opening import open_weights
from support.commands import command
from support.vision_language import make_model


@pytest.fixture(scope="module")
def folders(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the untrained model quantised as `q`."""
    folder = tmp_path_factory.mktemp("quantize")
    ran = command("quantize", untrained, folder / "q", "--weights", "int4", "--threads", 1)
    assert ran.code == 0, ran.err
    (folder / "report").write_text(ran.out)
    return folder


def test_the_report(folders: Path) -> None:
    lines = (folders / "report").read_text().splitlines()
    assert lines[0] == "relative rms error of the weights"
    assert lines[1].split() == [
        "weight", "attention.qkv", "attention.out", "mlp.gate_up", "mlp.down", "mlp.experts.gate_up",
        "mlp.experts.down", "mlp.shared.gate_up", "mlp.shared.down",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[2:-2]] == ["embed", *(f"layers.{i}" for i in range(4)), "all"]
    assert lines[2].split()[1:] == ["0.51", "%"]
    assert 8.0 < float(lines[-3].split()[3]) < 8.5
    size = sum(path.stat().st_size for path in (folders / "q").glob("*.safetensors"))
    assert lines[-2] == f"{folders / 'q'}: {size:,} bytes"
    assert lines[-1] == command("verify", folders / "q").out.splitlines()[-1]
    assert lines[-1].startswith("ernie_rt.json: sha256 ")


def test_json_and_options(untrained: Path, folders: Path) -> None:
    ran = command(
        "quantize", untrained, folders / "q8", "--weights", "int8", "--block", 64, "--layout", "tiled",
        "--no-clip-search", "--json",
    )  # fmt: skip
    found = json.loads(ran.out)
    plan = found["plan"]
    assert (plan["weights"], plan["block"], plan["layout"], plan["clip_search"]) == ("int8", 64, "tiled", False)
    assert found["errors"]["layers.3.mlp.experts.down"] == pytest.approx(0.0059, rel=0.1)
    assert found["kinds"].keys() >= {"weight", "mlp.experts.down"}
    assert found["sha256"] == {"ernie_rt.json": sha256((folders / "q8" / "ernie_rt.json").read_bytes()).hexdigest()}
    assert found["nbytes"] == sum(path.stat().st_size for path in (folders / "q8").glob("*.safetensors"))
    searched = json.loads(
        command("quantize", untrained, folders / "q8s", "--weights", "int8", "--block", "64", "--json").out
    )
    assert searched["kinds"]["mlp.experts.down"] < found["kinds"]["mlp.experts.down"]


def test_convert_and_run(folders: Path) -> None:
    ran = command("convert", folders / "q", folders / "t", "--layout", "tiled", "--json")
    assert ran.code == 0 and json.loads(ran.out)["plan"]["layout"] == "tiled"
    back = command("convert", folders / "t", folders / "r", "--layout", "raw")
    assert back.out.splitlines()[:-2] == (folders / "report").read_text().splitlines()[:-2]
    answers = set()
    for name in ("q", "t", "r"):
        done = command(
            "run", folders / name, "The old teacher", "-n", 8, "--backend", "reference", "--dtype", "float32"
        )
        assert done.code == 0, done.err
        assert "iB of weights dequantised from int4/32" in done.err
        answers.add(done.out)
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("quantize", "{untrained}", "{here}/q", "--weights", "int4"), 1, "q: cannot be written; found File exists"),
        (("quantize", "{here}/q", "{here}/x", "--weights", "int4"), 2, "the model is quantised already"),
        (("convert", "{untrained}", "{here}/x", "--layout", "raw"), 2, "the model is not quantised"),
        (("convert", "{here}/q", "{here}/x", "--layout", "raw"), 2, "has the layout raw already"),
        (
            ("quantize", "{untrained}", "{here}/x", "--weights", "int4", "--block", "128"),
            2,
            "blocks of 128 do not divide",
        ),
        (("quantize", "{untrained}", "{here}/no/x", "--weights", "int8"), 1, "No such file or directory"),
        (("quantize", "{here}/nothing", "{here}/x", "--weights", "int8"), 2, "no such model"),
        (("quantize", "{untrained}", "{here}/x", "--weights", "int5"), 2, "int5"),
        (("quantize", "{untrained}", "{here}/x"), 2, "--weights"),
        (("quantize", "{untrained}", "", "--weights", "int4"), 2, "'.' does not name a new folder"),
        (("convert", "{here}/q", "/", "--layout", "tiled"), 2, "'/' does not name a new folder"),
        (("export", "onnx", "{untrained}", "."), 2, "'.' does not name a new folder"),
        (("quantize", "{untrained}", "{here}/x", "--weights", "int4", "--block", "48"), 2, "48"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refusals(folders: Path, untrained: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    before = sorted(folders.iterdir())
    ran = command(*(argument.format(untrained=untrained, here=folders) for argument in arguments))
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err and "Traceback" not in ran.err
    assert sorted(folders.iterdir()) == before


def test_an_edited_file(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "q", tmp_path / "q")
    path = tmp_path / "q" / "model-00003-of-00006.safetensors"
    data = bytearray(path.read_bytes())
    data[8192] ^= 0x10
    path.write_bytes(data)
    for arguments in (
        ("run", tmp_path / "q", "Hello"),
        ("convert", tmp_path / "q", tmp_path / "x", "--layout", "tiled"),
    ):
        ran = command(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert "model-00003-of-00006.safetensors: the file is not the one that was written" in ran.err
    assert not (tmp_path / "x").exists()


def test_run_quantises_once(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = (
        command("run", untrained, "hello", "--weights", "int4", "--backend", "eager", "--threads", 1, "-n", 3)
        for _ in range(2)
    )
    assert first.code == second.code == 0 and first.out == second.out
    assert re.search(r"quantising to int4: [\d.]+ [KM]iB, about \d+ s, once", first.err)
    assert "quantising" not in second.err and "dequantised from int4/32" in second.err
    assert len([*(tmp_path / "ernie-rt" / "quantized").iterdir()]) == 1


def test_the_backend_is_chosen_before_anything_is_quantised(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ran = command("run", untrained, "hello", "--weights", "int4", "--backend", "nonsense")
    assert ran.code == 2 and "no backend 'nonsense'" in ran.err and not (tmp_path / "ernie-rt").exists()
    monkeypatch.setattr(ReferenceBackend, "accepts", lambda self, storage, target: "tiled" in str(storage))
    command("run", untrained, "hello", "--weights", "int4", "--backend", "reference", "-n", 1)
    (folder,) = (tmp_path / "ernie-rt" / "quantized").iterdir()
    assert json.loads((folder / "ernie_rt.json").read_text())["plan"]["layout"] == "tiled"


def test_a_head_that_differs_from_a_tied_embedding(with_own_head: Path, tmp_path: Path) -> None:
    """It is used and said, wherever its folder leads."""
    note = "the stored head is used: it differs from the embedding, to which config.json ties it\n"
    quantised = command("quantize", with_own_head, tmp_path / "q", "--weights", "int8", "--threads", 1)
    assert quantised.code == 0 and note in quantised.err and "\nhead " in quantised.out
    assert command("convert", tmp_path / "q", tmp_path / "t", "--layout", "tiled").code == 0
    untied = shutil.copytree(with_own_head, tmp_path / "untied")
    config = json.loads((untied / "config.json").read_text()) | {"tie_word_embeddings": False}
    (untied / "config.json").write_text(json.dumps(config))
    assert command("quantize", untied, tmp_path / "uq", "--weights", "int8", "--threads", 1).code == 0
    ids, options = [5, 77, 400, 123, 9], {"backend": "reference", "dtype": "float32"}
    for own, other in ((with_own_head, untied), (tmp_path / "q", tmp_path / "uq"), (tmp_path / "t", tmp_path / "uq")):
        with ernie_rt.load(own, **options) as model, ernie_rt.load(other, **options) as expected:
            assert model.notes == (note.strip(),) and not expected.notes and not model.unused
            np.testing.assert_array_equal(model.logits(ids), expected.logits(ids))
    for more in ((), ("--weights", "int8")):
        assert note in command("run", with_own_head, "hello", "-n", 1, "--backend", "reference", *more).err


def test_an_interrupt_says_how_to_go_on(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("quantize", untrained, tmp_path / "out", "--weights", "int4")
    with monkeypatch.context() as patch:
        patch.setattr("ernie_rt.weights.folder._take_along", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        ran = command(*arguments)
    said = f"stopped; the same command goes on where it was, in {tmp_path}/out.partial\nernie-rt: interrupted\n"
    assert (ran.code, ran.out, ran.err) == (130, "", said)
    ran = command(*arguments[:-1], "int8")
    assert ran.code == 1 and "expected weights int8; found weights int4. Give what that one was given" in ran.err
    assert command(*arguments).code == 0


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that sees, by transformers."""
    folder = tmp_path_factory.mktemp("sighted") / "model"
    wide = {"moe_intermediate_size": [32, 64], "hidden_size": 64}
    make_model(tied=True, text=wide).save_pretrained(folder, save_original_format=False)
    return folder


def test_of_a_model_that_sees_both_pools_are_quantised_and_the_tower_is_not(sighted: Path, tmp_path: Path) -> None:
    ran = command("quantize", sighted, tmp_path / "q", "--weights", "int8", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert 0 < told["kinds"]["mlp.vision.experts.down"] < 0.01 and 0 < told["kinds"]["mlp.experts.down"] < 0.01
    assert not any(name.startswith("vision.") for name in told["errors"])
    config = read_config(tmp_path / "q")
    stored, source = open_weights(sighted, config), open_weights(tmp_path / "q", config)
    tower = build_graphs(config, "float32", stored.storages)["vision"]
    kept = {weight.name: weight for weight in tower.weights if weight.storage.stored}
    for weight in kept.values():
        before, after = (np.empty(weight.type.shape(), np.float32) for _ in range(2))
        stored.fill(weight, "data", before)
        source.fill(weight, "data", after)
        assert np.array_equal(before, after), weight.name
    assert sum(told["kept"]["bytes"].values()) == sum(weight.nbytes() for weight in kept.values())
    assert told["kept"]["bytes"].keys() == {"tower", "resampler"}
    said = command("convert", tmp_path / "q", tmp_path / "t", "--layout", "tiled").out
    assert f"tower {told['kept']['bytes']['tower']:,} bytes, resampler " in said
    assert "left as stored: they are few, and what they lose every token of a picture loses" in said


def test_the_text_of_a_model_that_sees_alone(sighted: Path, tmp_path: Path) -> None:
    ran = command("quantize", sighted, tmp_path / "text", "--weights", "int8", "--text-only", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["plan"]["text_only"] is True and told["kept"] is None
    source = open_weights(tmp_path / "text", read_config(tmp_path / "text"))
    assert not any("vision" in name for name in source.storages)
    ids = [5, 9, 2, 40]
    with (
        ernie_rt.load(tmp_path / "text", backend="reference") as alone,
        ernie_rt.load(sighted, backend="reference", text_only=True) as whole,
    ):
        assert alone.config.sees is None
        assert np.abs(alone.logits(ids) - whole.logits(ids)).max() < 0.1 * whole.logits(ids).std()
