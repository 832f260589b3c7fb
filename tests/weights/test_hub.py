from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants, errors
from safetensors.numpy import save_file

from ernie_rt.errors import ModelNotFoundError, WriteError
from ernie_rt.graph.types import Plain
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.hub import DEMO, FILES, resolve
from ernie_rt.weights.manifest import MANIFEST, Manifest, Shard

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


def test_the_demo_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    (tmp_path / "demo").touch()
    assert resolve("demo") == resolve("Demo") == DEMO
    assert (DEMO / "config.json").is_file()


@pytest.mark.parametrize("name", ["demo", "0.3B"])
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
    with pytest.raises(ModelNotFoundError, match=r"no such model.*demo, 0\.3B, .*Check the spelling") as caught:
        resolve(ref)
    assert len(str(caught.value)) < 600


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelNotFoundError, match="this is weights alone; expected a folder"):
        resolve("model.safetensors")


@pytest.mark.parametrize(
    "without", ["config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json", "tokenizer.model"]
)
def test_a_partial_copy_is_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    store(cache, without=without)
    calls = replace_download(monkeypatch, lambda **_: cache)
    assert resolve(REPOSITORY) == cache
    assert calls == [{"revision": None, "allow_patterns": list(FILES)}]


def test_offline_without_a_copy() -> None:
    with pytest.raises(ModelNotFoundError, match=r"HF_HUB_OFFLINE forbids.*Unset HF_HUB_OFFLINE"):
        resolve(REPOSITORY)


def replace_download(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    """Answer calls of snapshot_download that may use the network; return the list of their arguments."""
    import huggingface_hub

    calls: list[dict[str, Any]] = []
    original = huggingface_hub.snapshot_download

    def download(repo: str, **arguments: Any) -> str:
        if arguments.get("local_files_only"):
            return original(repo, **arguments)
        calls.append(arguments)
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


def test_a_quantised_model_is_whole_with_all_its_files(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = store(cache, without="model.safetensors.index.json")
    shard = Shard(1, "0" * 64, {"head.norm": Plain("float32")}, {})
    replace_download(monkeypatch, lambda **_: cache)
    Manifest({}, {"model-00001-of-00001.safetensors": shard}).write(snapshot / MANIFEST)
    assert resolve(REPOSITORY) == snapshot
    Manifest({}, {"model-00001-of-00001.safetensors": shard, "more": shard}).write(snapshot / MANIFEST)
    assert resolve(REPOSITORY) == cache
