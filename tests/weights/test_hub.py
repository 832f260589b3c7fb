from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants, errors
from safetensors.numpy import save_file

from ernie_rt.errors import ConfigError, FileFormatError, ModelNotFoundError, UnsafePathError, WriteError
from ernie_rt.graph.types import Plain
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.hub import DEMO, DEMO_VL, FILES, model_name, resolve
from ernie_rt.weights.manifest import MANIFEST, Manifest, Shard
from support.commands import start

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "baidu/ERNIE-4.5-0.3B-PT"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def store(
    cache: Path,
    repository: str = REPOSITORY,
    revision: str = "main",
    without: str = "",
    tokenizer: str = "tokenizer.model",
) -> Path:
    """Put a model into the cache the way the hub's library lays it out."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    for folder in (home / "blobs", home / "refs", snapshot):
        folder.mkdir(parents=True)
    (home / "refs" / revision).write_text(COMMIT)
    save_file({"model.x": np.zeros(2, np.float32)}, home / "blobs" / "weights")
    (home / "blobs" / "config").write_text("{}")
    (home / "blobs" / "index").write_text('{"weight_map": {"model.x": "model-00001-of-00001.safetensors"}}')
    (home / "blobs" / "tokenizer").touch()
    names = {"config.json": "config", "model.safetensors.index.json": "index", tokenizer: "tokenizer"}
    for name, blob in (names | {"model-00001-of-00001.safetensors": "weights"}).items():
        if name != without:
            (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return snapshot


@pytest.mark.parametrize("ref", [REPOSITORY, f"{REPOSITORY}@main", f"{REPOSITORY}@{COMMIT}", "0.3B", "ERNIE-4.5-0.3B"])
def test_a_cached_model_needs_no_network(
    cache: Path, ref: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = store(cache)
    calls = replace_download(monkeypatch, lambda **_: cache)
    assert resolve(ref) == snapshot and calls == []
    with Checkpoint.open(snapshot) as checkpoint:
        assert set(checkpoint.tensors) == {"model.x"}
    assert capsys.readouterr().out == ""


def test_either_file_of_a_tokenizer_is_enough(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = store(cache, tokenizer="tokenizer.json")
    calls = replace_download(monkeypatch, lambda **_: cache)
    assert resolve(REPOSITORY) == snapshot and calls == []


def test_an_exact_id_outranks_a_family(cache: Path) -> None:
    store(cache)
    paddle = store(cache, "baidu/ERNIE-4.5-0.3B-Paddle")
    assert resolve("baidu/ERNIE-4.5-0.3B-Paddle") == paddle


@pytest.mark.parametrize("name, folder", [("demo", DEMO), ("demo-vl", DEMO_VL)])
def test_the_demos_come_along(name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert resolve(name) == resolve(name.title()) == folder
    assert (folder / "config.json").is_file() and model_name(folder) == name


@pytest.mark.parametrize("name", ["demo", "demo-vl", "0.3B"])
def test_a_folder_outranks_a_known_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ModelNotFoundError, match=r"outranks the known model.*config\.json.*another folder"):
        resolve(name)
    (tmp_path / name / "config.json").touch()
    assert resolve(name) == Path(name)


def test_a_file_hides_no_known_model(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "0.3B").touch()
    snapshot = store(cache)
    assert resolve("0.3B") == snapshot


def test_a_folder_is_itself(tmp_path: Path) -> None:
    folder = tmp_path / "baidu" / "ERNIE-4.5-0.3B-PT"
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    assert resolve(str(folder)) == folder
    assert resolve(REPOSITORY) == Path(REPOSITORY)


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "no-such-name",
        "/no/such/folder",
        "./absent",
        "../x/y",
        "a/b/c",
        "a b/c",
        "-x/y",
        "x" * 5000,
        "a\0b",
        "~nobody0/x",
    ],
)
def test_references_that_lead_nowhere(ref: str) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"no such model.*demo, demo-vl, 0\.3B, .*Check the spelling"
    ) as caught:
        resolve(ref)
    assert len(str(caught.value)) < 600


def test_the_name_of_a_vision_language_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_download(monkeypatch, lambda **_: cache)
    fetched: list[str] = []
    monkeypatch.setattr("ernie_rt.weights.hub._download", lambda id, revision: fetched.append(id) or cache)
    assert resolve("vl-28b-a3b-thinking") == cache and fetched == ["baidu/ERNIE-4.5-VL-28B-A3B-Thinking"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelNotFoundError, match="this is weights alone; expected a folder"):
        resolve("model.safetensors")


def test_shards_without_an_index_are_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = store(cache, without="model.safetensors.index.json")
    calls = replace_download(monkeypatch, lambda **_: cache)
    assert resolve(REPOSITORY) == snapshot and calls == []


@pytest.mark.parametrize("without", ["config.json", "model-00001-of-00001.safetensors", "tokenizer.model"])
def test_a_partial_copy_is_fetched_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, without: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store(cache, without=without)
    calls = replace_download(monkeypatch, lambda **_: cache)
    assert resolve(REPOSITORY) == cache
    assert calls == [
        {"revision": None, "allow_patterns": ["config.json"]},
        {"revision": None, "dry_run": True},
        {"revision": None, "allow_patterns": list(FILES)},
    ]
    assert capsys.readouterr().err == f"fetching {REPOSITORY}, 2.0 MiB, into {cache}\n"


def test_a_model_that_cannot_run_is_refused_before_its_weights_are_fetched(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for config, says in (
        ({"model_type": "ernie4_5", "quantization_config": {"quant_method": "awq"}}, "found 'awq'"),
        ({"model_type": "llama"}, "not a model that ernie-rt runs"),
    ):
        calls = replace_download(monkeypatch, lambda **_: cache, config=config)
        with pytest.raises(ConfigError, match=says):
            resolve(REPOSITORY)
        assert len(calls) == 2 and calls[1].get("dry_run")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["adapter_config.json", "adapter_model.safetensors", "README.md"], r"an adapter \(LoRA\).*Merge it"),
        (["config.json", "ERNIE-Q4_K_M.gguf"], "a GGUF model, for llama.cpp"),
        (["config.json", "onnx/model.onnx"], "an ONNX model that ernie-rt did not write"),
        (["README.md"], "a repository without a model that ernie-rt reads. It needs config.json and weights"),
    ],
)
def test_a_repository_is_named_for_what_it_is(
    cache: Path, names: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = replace_download(monkeypatch, lambda **_: cache, names=names)
    with pytest.raises(ModelNotFoundError, match=f"{REPOSITORY}: this is {says}"):
        resolve(REPOSITORY)
    assert len(calls) == 2


def test_a_disk_without_room_is_refused_before_anything_large_comes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = replace_download(monkeypatch, lambda **_: cache, nbytes=1 << 60)
    with pytest.raises(WriteError, match=r"too little room; expected 1.* TiB; found .*Set HF_HOME"):
        resolve(REPOSITORY)
    assert len(calls) == 2


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "binary", "path", "long", "empty", "link out"])
def test_a_branch_in_the_cache_that_leads_to_no_commit(cache: Path, kind: str) -> None:
    store(cache)
    branch = cache / f"models--{REPOSITORY.replace('/', '--')}" / "refs" / "main"
    branch.unlink()
    contents = {"binary": b"\xff\xfe" * 20, "path": b"../../../../etc", "long": b"0" * 200, "empty": b""}
    match kind:
        case "pipe":
            os.mkfifo(branch)
        case "device":
            branch.symlink_to("/dev/zero")
        case "folder":
            branch.mkdir()
        case "link out":
            branch.symlink_to("/etc/passwd")
        case _:
            branch.write_bytes(contents[kind])
    with pytest.raises((FileFormatError, UnsafePathError), match=r"refs/main: .*Remove it, and the model is looked up"):
        resolve(REPOSITORY)


def test_a_revision_stays_in_the_cache() -> None:
    for revision in ("a/../../x", "..", "a/.."):
        with pytest.raises(ModelNotFoundError, match="no such model"):
            resolve(f"{REPOSITORY}@{revision}")


@pytest.mark.parametrize(("name", "value"), [("HF_ENDPOINT", "http://["), ("HF_HUB_ETAG_TIMEOUT", "abc")])
def test_impossible_settings_of_the_library_are_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    out, err = (process := start("run", REPOSITORY, "hello")).communicate(timeout=60)
    assert (process.returncode, out) == (2, b"")
    assert err.startswith(b"ernie-rt: huggingface_hub cannot use one of its environment variables; found ")
    assert err.count(b"\n") == 1 and name.encode() in err


def test_offline_without_a_copy() -> None:
    with pytest.raises(ModelNotFoundError, match=r"HF_HUB_OFFLINE forbids.*Unset HF_HUB_OFFLINE"):
        resolve(REPOSITORY)


def replace_download(
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    config: dict[str, Any] | None = None,
    nbytes: int = 1 << 20,
    names: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Answer calls of snapshot_download that may use the network; return the list of their arguments.

    The repository has this config, and weights of so many bytes.
    """
    import huggingface_hub

    calls: list[dict[str, Any]] = []
    original = huggingface_hub.snapshot_download
    first = Path(constants.HF_HUB_CACHE).with_name("config alone")
    first.mkdir(exist_ok=True)
    (first / "config.json").write_text(json.dumps(config or {"model_type": "ernie4_5"}))

    def download(repo: str, **arguments: Any) -> Any:
        if arguments.get("local_files_only"):
            return original(repo, **arguments)
        calls.append(arguments)
        if arguments.get("allow_patterns") == ["config.json"]:
            answer(**arguments)
            return str(first)
        if arguments.get("dry_run"):
            sizes = {"config.json": None, "model.safetensors": nbytes, "tokenizer.model": 1 << 20, "x.gguf": 1 << 60}
            listed = {name: sizes.get(name) for name in names or sizes}
            return [SimpleNamespace(filename=n, file_size=size, will_download=True) for n, size in listed.items()]
        return str(answer(**arguments))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


RESPONSE: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.RepositoryNotFoundError("?", response=RESPONSE), "neither a folder nor a repository.*HF_TOKEN"),
        (errors.RevisionNotFoundError("?", response=RESPONSE), "no such revision"),
        (errors.GatedRepoError("?", response=RESPONSE), "restricted.*Accept its terms"),
        (errors.HFValidationError("?"), "nor a valid Hugging Face id"),
        (errors.LocalEntryNotFoundError("?"), "could not be reached.*Check the network"),
        (RuntimeError("a proxy"), "could not be reached; found RuntimeError: a proxy"),
        (OSError(errno.ENOSPC, "?"), "cache cannot be written; found No space left"),
    ],
)
def test_failed_downloads_are_named(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    def fail(**arguments: Any) -> None:
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    replace_download(monkeypatch, fail)
    with pytest.raises(WriteError if type(error) is OSError else ModelNotFoundError, match=reason):
        resolve("org/name@v1.0")


def test_the_nearest_known_repository_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**arguments: Any) -> None:
        raise errors.RepositoryNotFoundError("?", response=RESPONSE)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    replace_download(monkeypatch, fail)
    with pytest.raises(ModelNotFoundError, match=r"Did you mean 'baidu/ERNIE-4\.5-300B-A47B-PT'"):
        resolve("baidu/ERNIE-4.5-300B-A47B-TP@main")
    with pytest.raises(ModelNotFoundError, match="Did you mean 'demo'"):
        resolve("deom")


def test_a_quantised_model_is_whole_with_all_its_files(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = store(cache, without="model.safetensors.index.json")
    shard = Shard(1, "0" * 64, {"head.norm": Plain("float32")}, {})
    replace_download(monkeypatch, lambda **_: cache)
    Manifest({}, {"model-00001-of-00001.safetensors": shard}).write(snapshot / MANIFEST)
    assert resolve(REPOSITORY) == snapshot
    Manifest({}, {"model-00001-of-00001.safetensors": shard, "more": shard}).write(snapshot / MANIFEST)
    assert resolve(REPOSITORY) == cache


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub would fetch into a folder named ~ here, or fail with an error that names nothing."""

    def nowhere(*_: object, **__: object) -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", nowhere)
    with pytest.raises(WriteError, match=r"no home folder to fetch models into; .* Set HF_HOME to the path of"):
        resolve("org/model")
