"""An exported folder that was changed, or that was made to lead its reader astray, is found out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
import onnx
import onnxruntime
from onnx import TensorProto, helper

import ernie_rt
from ernie_rt.errors import BackendError, InputError, IntegrityError, OptionError, UnsafePathError
from ernie_rt.export import ExportOptions, Verified, export, verify
from ernie_rt.location import locate
from ernie_rt.weights.manifest import MANIFEST
from ernie_rt.weights.stamps import Stamps
from ernie_rt_onnx.portable import CARD, MODEL, TABLES
from ernie_rt_onnx.static import LIMIT, read_model
from support.exports import WEIGHTS, Edit, card, forge, graph, node, read
from support.templates import PLAIN


@pytest.fixture(scope="module")
def exported_to_speak(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a tokenizer and settings, so that there is what onnxruntime-genai reads."""
    checkpoint = Path(shutil.copytree(untrained, tmp_path_factory.mktemp("speaking") / "checkpoint"))
    settings = {"auto_map": {"AutoTokenizer": ["code.py", None]}, "chat_template": PLAIN, "bos_token": "<s>"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((checkpoint / "config.json").read_text()) | {"auto_map": {"AutoConfig": "code.Config"}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    export(checkpoint, checkpoint.parent / "out")
    return checkpoint.parent / "out"


@pytest.fixture
def speaking(exported_to_speak: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_to_speak, tmp_path / "speaking"))


def test_a_whole_folder(checkpoint: Path, tmp_path: Path) -> None:
    written = export(checkpoint, tmp_path / "out")
    verified = verify(tmp_path / "out")
    assert dict(written.digests) == {MODEL: hashlib.sha256((tmp_path / "out" / MODEL).read_bytes()).hexdigest()}
    assert next(iter(verified.digests.items())) == next(iter(written.digests.items()))
    assert verified.digests == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "out").iterdir()
        if path.name != "README.md"
    }
    assert verified == Verified(verified.digests)
    numbers = verify(tmp_path / "out", numbers=True).figures
    assert numbers == export(checkpoint, tmp_path / "again", options=ExportOptions(verify=True)).figures
    assert numbers["logits"] < 1e-5


def test_the_text_of_a_model_that_sees(tmp_path: Path) -> None:
    """Which ids are chosen from is that of the text alone, as exported, though config.json speaks of pictures."""
    export("demo-vl", tmp_path / "out")
    assert verify(tmp_path / "out", numbers=True).figures["logits"] < 1e-5


def test_of_another_version(folder: Path) -> None:
    """What a folder says of its writer excuses nothing."""
    forge(folder, version="0.0.9")
    assert verify(folder).notes == ()
    forge(folder, swap_inputs, version="0.0.9\x1b[31m")
    with pytest.raises(IntegrityError, match="not the graph that ernie-rt makes") as caught:
        verify(folder)
    assert caught.value.hint is not None and "verify it with that version" in caught.value.hint
    assert "\x1b" not in str(caught.value)


def test_it_reads_every_byte_each_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No digest is believed because it is remembered; nor is one by who exports what is quantised already."""
    monkeypatch.setattr(Stamps, "recall", lambda *_: pytest.fail("a remembered digest was asked for"))
    verify(folder, numbers=True)
    export(folder, tmp_path / "again")


def link_away(path: Path) -> None:
    path.rename(path.parent.parent / path.name)
    path.symlink_to(Path("..") / path.name)


def link_hard(path: Path) -> None:
    os.link(path, path.parent.parent / path.name)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, TABLES, "config.json", MANIFEST])
def test_no_session_is_made_of_what_is_damaged(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One changed bit is found before ONNX Runtime is asked to run anything, and when a model is loaded."""
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    asked: list[str] = []
    monkeypatch.setattr("ernie_rt_onnx.verify.compare_apart", lambda *_: asked.append("verify"))
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: asked.append("load"))
    with pytest.raises(InputError):
        verify(folder, numbers=True)
    if name in (WEIGHTS, "config.json"):  # ernie-rt makes its own graph and tables
        with pytest.raises(InputError):
            ernie_rt.load(folder, backend="onnx").close()
    assert not asked


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, TABLES, "config.json", MANIFEST])
@pytest.mark.parametrize(
    "replace, message",
    [
        (link_away, "a link that leaves its folder"),
        (link_hard, "a hard link: by its other name"),
        (make_pipe, "not a regular file"),
        (Path.unlink, "no such file|not a folder that was exported"),
    ],
)
def test_files_that_are_no_files(name: str, replace: Callable[[Path], None], message: str, folder: Path) -> None:
    replace(folder / name)
    with pytest.raises((IntegrityError, UnsafePathError), match=message):
        verify(folder)


def test_a_readme_that_lies_elsewhere(folder: Path, tmp_path: Path) -> None:
    """Its text is ours, and whoever owns the other place may change it."""
    shutil.move(folder / "README.md", tmp_path / "ours.md")
    (folder / "README.md").symlink_to(tmp_path / "ours.md")
    with pytest.raises(UnsafePathError, match="a link that leaves its folder"):
        verify(folder)


def test_a_link_inside_leads_to_what_was_not_exported(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "elsewhere")
    (folder / WEIGHTS).symlink_to("elsewhere")
    with pytest.raises(IntegrityError, match="elsewhere: this was not exported with the model"):
        verify(folder)


def test_a_snapshot_of_the_hub_cache(exported: Path, tmp_path: Path) -> None:
    """There every file is a link to one in the repository's folder of blobs."""
    blobs, snapshot = tmp_path / "models--me--model" / "blobs", tmp_path / "models--me--model" / "snapshots" / "abc"
    shutil.copytree(exported, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / path.name)
    assert verify(snapshot).notes == ()


def unknown_field(model: onnx.ModelProto) -> None:
    model.graph.MergeFromString(bytes([0xFA, 0x7F, 1]) + b"x")


GRAPHS: dict[str, tuple[Edit, str]] = {
    "another domain": (lambda m: setattr(m.graph.node[3], "domain", "evil"), "'evil' is none of an exported model"),
    "in a function": (lambda m: setattr(m.functions[0].node[0], "domain", "ai.onnx.ml"), "is none of an exported"),
    "in a graph inside": (
        lambda m: m.graph.node.append(node(g=graph(onnx.NodeProto(op_type="Run", domain="x")))), "'Run' of domain 'x'",
    ),
    "a function that is not there": (lambda m: m.functions[0].ClearField("name"), "'QMoE' of domain 'ernie_rt'"),
    "an operator that opens files": (
        lambda m: m.graph.node.append(helper.make_node("EPContext", [], ["x"], domain="com.microsoft", embed_mode=0)),
        "'EPContext' of domain 'com.microsoft'",
    ),
    "a function for an operator": (lambda m: setattr(m.functions[0], "domain", ""), "another domain|QMoE"),
    "operators of another domain": (lambda m: m.opset_import.add(domain="evil", version=1), "a foreign domain"),
    "a field from the future": (unknown_field, "a field that the format does not have; found number 2047"),
    "no text": (lambda m: m.graph.MergeFromString(b"\x0a\x04\x1a\x02\xff\xfe"), "the text in name is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name: str, folder: Path) -> None:
    edit, message = GRAPHS[name]
    forge(folder, edit, version="0.0.9")
    with pytest.raises(IntegrityError, match=message):
        verify(folder)


def swap_inputs(model: onnx.ModelProto) -> None:
    inputs = next(n.input for n in model.graph.node if n.op_type == "Sub")
    inputs[0], inputs[1] = inputs[1], inputs[0]


SAME: dict[str, tuple[Edit, str]] = {
    "inputs": (swap_inputs, r"model\.onnx, graph\.node\[\d+\]: not the graph"),
    "a node more": (lambda m: m.graph.node.append(node(t=TensorProto())), r"model\.onnx, graph"),
    "the body of a function": (
        lambda m: setattr(m.functions[0].node[4], "op_type", "Mul"), r"model\.onnx, functions\[0\]\.node\[4\]: not the",
    ),
    "two tensors": (
        lambda m: m.graph.initializer[-1].external_data[1].MergeFrom(m.graph.initializer[-2].external_data[1]),
        r"initializer\[\d+\]\.external_data\[1\]: not the graph",
    ),
    "metadata": (lambda m: m.graph.metadata_props.add(key="a", value="b"), "not the graph that ernie-rt makes"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_what_no_digest_shows(name: str, folder: Path) -> None:
    """Somebody changed the graph and wrote a card to match; it is not what the exporter makes."""
    edit, message = SAME[name]
    forge(folder, edit)
    with pytest.raises(IntegrityError, match=message):
        verify(folder)


def test_tables_of_another_size(folder: Path) -> None:
    with (folder / TABLES).open("ab") as file:
        file.write(bytes(4096))
    forge(folder)
    with pytest.raises(IntegrityError, match="the tables of rope have another size; expected 16384; found 20480"):
        verify(folder)


def test_tables_as_long_as_a_config_claims(folder: Path) -> None:
    """They are measured before they are made."""
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 1 << 24}
    (folder / "config.json").write_text(json.dumps(config))
    size = 2 * (1 << 24) * 8 * 4

    def claim(model: onnx.ModelProto) -> None:
        for name in ("cos", "sin"):
            (tensor,) = (t for t in model.graph.initializer if t.external_data and t.name.endswith(name))
            tensor.dims[0] = 1 << 24
            for entry in tensor.external_data:
                entry.value = {"offset": "0", "length": str(size // 2)}.get(entry.key, entry.value)

    for edit, message in ((lambda model: None, "not the graph that ernie-rt makes"), (claim, "is shorter than the")):
        forge(folder, edit)
        tracemalloc.start()
        with pytest.raises(IntegrityError, match=message):
            verify(folder)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < size / 20


def test_other_tables(folder: Path) -> None:
    data = bytearray((folder / TABLES).read_bytes())
    data[4096 + 2] ^= 0x40
    (folder / TABLES).write_bytes(data)
    forge(folder)
    with pytest.raises(IntegrityError, match="not the tables of rope"):
        verify(folder)


def test_another_card(folder: Path) -> None:
    model = read(folder)
    said = json.loads(card(model))
    for key, value, message in (
        ("errors", {}, "something else of the model in 'errors'"),
        ("accuracy_level", 0, "something else of the model in 'accuracy_level'"),
        ("format", 2, "a card of another format"),
        ("files", {**said["files"], "added_tokens.json": "0" * 64}, "there is no such file"),
        ("files", {**said["files"], WEIGHTS: "0" * 64}, "its digest differs; expected sha256 0000"),
        ("files", {n: d for n, d in said["files"].items() if n != WEIGHTS}, "the card has no digest of a file"),
        ("files", {n: d for n, d in said["files"].items() if n != "config.json"}, "may be read as a part of it"),
        ("files", {**said["files"], "evil.so": "0" * 64}, "evil.so: this was not exported with the model"),
        ("files", [], "the card cannot be read"),
        ("graph", 7, "the card cannot be read"),
        ("graph", "0" * 64, "the graph is not the one that was written"),
    ):
        model.metadata_props[0].value = json.dumps({**said, key: value})
        (folder / MODEL).write_bytes(model.SerializeToString())
        with pytest.raises(IntegrityError, match=message):
            verify(folder)
    for cards in ([], [json.dumps(said)] * 2, ["{"], ["[]"]):
        del model.metadata_props[:]
        for value in cards:
            model.metadata_props.add(key=CARD, value=value)
        (folder / MODEL).write_bytes(model.SerializeToString())
        with pytest.raises(IntegrityError, match="card"):
            verify(folder)


def test_a_manifest_that_says_something_else(folder: Path) -> None:
    for edit, message in (
        (lambda m: m["shards"][WEIGHTS].update(sha256="0" * 64), "the card and the manifest differ"),
        (lambda m: m["plan"].update(dtype="int4"), "the manifest names no dtype of activations"),
        (lambda m: m["plan"].update(dtype="float16"), "not the graph that ernie-rt makes"),
    ):
        whole = (folder / MANIFEST).read_text()
        manifest = json.loads(whole)
        edit(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))
        forge(folder)
        with pytest.raises(IntegrityError, match=message):
            verify(folder)
        (folder / MANIFEST).write_text(whole)


def edited(name: str, edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        contents = json.loads((folder / name).read_text())
        edit(contents)
        (folder / name).write_text(json.dumps(contents, ensure_ascii=False, indent=2))

    return change


GENAI = "genai_config.json"
OPTIONS: dict[str, Any] = {"custom_ops_library": "x.so"}
BESIDE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another graph": (edited(GENAI, lambda c: c["model"]["decoder"].update(filename="other.onnx")), GENAI),
    "a library": (edited(GENAI, lambda c: c["model"]["decoder"].update(session_options=OPTIONS)), GENAI),
    "a provider's library": (
        edited(GENAI, lambda c: c["model"]["decoder"].update(session_options={"provider_options": [{"x": OPTIONS}]})),
        GENAI,
    ),
    "a file to write": (
        edited(GENAI, lambda c: c["model"]["decoder"].update(session_options={"enable_profiling": "/tmp/x"})), GENAI,
    ),
    "none for genai": (lambda folder: (folder / GENAI).unlink(), GENAI),
    "another tokenizer": (edited("tokenizer.json", lambda c: c["model"]["vocab"].update(zzz=7)), r"tokenizer\.json"),
    "an impossible tokenizer": (
        edited("tokenizer.json", lambda c: c.update(model=None)), r"genai_config\.json|tokenizer\.json",
    ),
    "other settings": (edited("tokenizer_config.json", lambda c: c.update(add_bos_token=True)), "tokenizer_config"),
    "another template": (edited("tokenizer_config.json", lambda c: c.update(chat_template="x")), "tokenizer_config"),
    "code": (edited("config.json", lambda c: c.update(auto_map={"AutoConfig": "evil.C"})), "config.json: auto_map"),
    "code beside": (lambda folder: (folder / "evil.py").write_text("1"), "evil.py: this was not exported"),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_the_graph(name: str, speaking: Path) -> None:
    """With every digest to match: it is not what the exporter makes of the rest."""
    change, message = BESIDE[name]
    change(speaking)
    forge(speaking)
    with pytest.raises(IntegrityError, match=message):
        verify(speaking)


def test_what_the_exporter_writes_beside(speaking: Path, tmp_path: Path) -> None:
    """It is what it makes again of the folder itself, and names no code."""
    assert verify(speaking).notes == ()
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((speaking / name).read_text())
    assert (speaking / "chat_template.jinja").read_text() == PLAIN
    export(speaking, tmp_path / "again")
    assert verify(tmp_path / "again").notes == ()
    for name in (GENAI, "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (speaking / name).read_bytes()


def test_a_config_for_genai_where_none_was_exported(folder: Path) -> None:
    """There is no tokenizer, so that the exporter wrote none."""
    (folder / GENAI).write_text(json.dumps({"model": {"decoder": {"filename": MODEL, "session_options": OPTIONS}}}))
    with pytest.raises(IntegrityError, match=r"genai_config\.json: this was not exported with the model"):
        verify(folder)
    forge(folder)
    with pytest.raises(IntegrityError, match=r"genai_config\.json: this was not exported with the model"):
        verify(folder)


def test_what_else_lies_there(folder: Path) -> None:
    assert verify(folder).notes == ()
    (folder / "README.md").write_text("mine")
    (folder / ".cache").mkdir()
    prefix = "no part of the model, and not checked: "
    assert verify(folder).notes == (f"{prefix}.cache", f"{prefix}README.md")
    for name in ("chat_template.jinja", "modeling.py", "model.onnx_data", "x.so"):
        (folder / name).write_text("{{ 1 }}")
        with pytest.raises(IntegrityError, match=f"{name}: .* may be read as a part of it"):
            verify(folder)
        (folder / name).unlink()


def test_what_is_no_model(folder: Path, tmp_path: Path) -> None:
    for data, message in ((b"", "no card"), (b"\xff\xff\xff", "not an ONNX model"), (bytes(LIMIT + 1), "too large")):
        (folder / MODEL).write_bytes(data)
        with pytest.raises(InputError, match=message):
            verify(folder)
    with pytest.raises(IntegrityError, match="not a folder that was exported"):
        verify(tmp_path / "nowhere")
    manifest = json.loads((folder / MANIFEST).read_text())
    for format, error, message in (
        (None, IntegrityError, r"model\.onnx: this was not exported with the model"),
        ("eager", OptionError, "backend 'eager' cannot verify what it exported; expected one of onnx"),
        ("nope", OptionError, "no backend 'nope'"),
    ):
        manifest["plan"]["format"] = format
        (folder / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(error, match=message):
            verify(folder)


NORMS = {
    "the first norm": (0, r"layers\.0\.\S*residual: the exported model does"),
    "the last norm": (-1, "logits: the exp"),
}


@pytest.mark.parametrize("name", NORMS)
def test_numbers_are_judged(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that computes something else is found out though nobody had compared it."""
    place, message = NORMS[name]

    def edit(model: onnx.ModelProto) -> None:
        norms = [a for n in model.graph.node for a in n.attribute if "Norm" in n.op_type and a.name == "epsilon"]
        norms[place].f = 0.5

    forge(folder, edit)
    monkeypatch.setattr("ernie_rt_onnx.verify._check_rebuilt", lambda *_: None)
    verify(folder)
    with pytest.raises(BackendError, match=message) as caught:
        verify(folder, numbers=True)
    assert caught.value.exit_code == 1


def test_numbers_have_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ernie_rt_onnx.apart.MEMORY", 64 << 20)
        patch.setattr("ernie_rt_onnx.apart.MEMORY_A_BYTE", 0)
        with pytest.raises(BackendError, match=r"the numbers could not be compared"):
            verify(folder, numbers=True)
    monkeypatch.setattr("ernie_rt_onnx.apart.SECONDS", 0.01)
    with pytest.raises(BackendError, match=r"could not be compared; expected at most 0 s .* takes longer than 0\."):
        verify(folder, numbers=True)


IN_LITTLE = """
import resource, sys
from pathlib import Path
from ernie_rt_onnx.static import read_model

status = Path("/proc/self/status").read_text()
used = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + (4 << 20), resource.getrlimit(resource.RLIMIT_DATA)[1]))
try:
    read_model(Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__)
"""
"""A process of its own has no memory that others have left."""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems set no limit of memory")
def test_a_graph_for_which_there_is_no_memory_is_not_called_broken(tmp_path: Path) -> None:
    model = onnx.ModelProto(graph=graph(*[onnx.NodeProto()] * (LIMIT // 3)))  # each of many times its bytes in memory
    (tmp_path / MODEL).write_bytes(model.SerializeToString())

    done = subprocess.run([sys.executable, "-c", IN_LITTLE, tmp_path], capture_output=True, text=True)
    assert done.stdout == "MemoryError\n", done.stderr
    with pytest.raises(IntegrityError, match="larger, or deeper"):
        read_model(tmp_path)


def test_numbers_where_they_cannot_be_had(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(checkpoint, tmp_path / "out", options=ExportOptions(dtype="bfloat16"))
    verify(tmp_path / "out")
    with pytest.raises(OptionError, match="numbers cannot be verified in bfloat16"):
        verify(tmp_path / "out", numbers=True)
    with pytest.raises(OptionError, match="numbers cannot be verified in bfloat16"):
        export(checkpoint, tmp_path / "other", options=ExportOptions(dtype="bfloat16", verify=True))
    for version in ("1.30.2", "?"):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        with pytest.raises(BackendError, match=r"Runtime is too old.*expected 1\.31 or newer; found") as caught:
            export(checkpoint, tmp_path / "other")
        assert caught.value.hint is not None and "pip install" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_requirement_is_the_minimum() -> None:
    from ernie_rt_onnx import ernie_rt_backends
    from ernie_rt_onnx.runtime import MINIMUM_RUNTIME

    (info,) = ernie_rt_backends()
    assert f"onnxruntime>={MINIMUM_RUNTIME} | onnxruntime-gpu>={MINIMUM_RUNTIME}" in info.requires


def test_a_model_is_built_from_its_weights_not_from_the_graph(folder: Path) -> None:
    """`ernie_rt.load` does not read model.onnx."""
    import ernie_rt

    (folder / MODEL).write_bytes(b"nonsense")
    with ernie_rt.load(locate(folder), backend="onnx", dtype="float32") as model:
        assert len(model.generate_ids([1, 2, 3], max_new_tokens=2, ignore_eos=True)) == 2
