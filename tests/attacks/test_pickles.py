"""Files that run code when they are unpickled: under every name and through every door, none is."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.attempts import attempt, refused, refused_each
from support.hostile import DOORS, INDEX, SINGLE, Break, both, copied, put


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def zipped(payload: bytes) -> bytes:
    """As torch.save writes it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3")
    return data.getvalue()


def tarred(payload: bytes) -> bytes:
    """As torch.save wrote it long ago, and NeMo does."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        member = tarfile.TarInfo("../../pickle")
        member.size = len(payload)
        archive.addfile(member, io.BytesIO(payload))
    return data.getvalue()


def alone(name: str, content: bytes) -> Break:
    """In the place of the weights."""

    def replace(folder: Path) -> None:
        (folder / SINGLE).unlink()
        (folder / name).write_bytes(content)

    return replace


WRAPS = {
    **{f"protocol {number}": (lambda it, number=number: pickle.dumps(it, number)) for number in range(6)},  # type: ignore[misc]
    "an archive": lambda it: zipped(pickle.dumps(it)),
    "a tar file": lambda it: tarred(pickle.dumps(it)),
    "behind a length": lambda it: (len(pickle.dumps(it))).to_bytes(8, "little") + pickle.dumps(it),
    "behind a header": lambda it: (2).to_bytes(8, "little") + b"{}" + pickle.dumps(it),
}
WEIGHTS = ("pytorch_model.bin", "model_state.pdparams", "model.pt", "model.pth", "model.ckpt", "weights.pkl")
WEIGHED = (SINGLE, INDEX, "ernie_rt.json")
SPOKEN = (
    "config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json",
    "generation_config.json", "special_tokens_map.json",
)  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is not there, and is when a pickle is opened."""
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(Canary(path)))
    path.unlink()
    return path


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_pickles(name: str, canary: Path, untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    alone(name, pickle.dumps(Canary(canary)))(folder)
    for door in ("plan", "run", "quantize", "export"):
        if door != "plan":  # which is content with a config
            refused(DOORS[door], folder, "UnsafeCheckpointError", "pickles, which can run code when opened", name)
    attempt(DOORS["plan"], folder)
    assert not canary.exists()


def anew(untrained: Path) -> Break:
    """The good folder once more."""

    def copy(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        copied(untrained, folder)

    return copy


@pytest.mark.parametrize("wrap", WRAPS)
def test_pickles_under_any_name(wrap: str, canary: Path, untrained: Path, tmp_path: Path) -> None:
    payload = WRAPS[wrap](Canary(canary))
    for door, names in (("plan", WEIGHED), ("encode", SPOKEN)):
        cases = []
        for name in names:
            alone = (lambda folder: (folder / SINGLE).unlink()) if name == INDEX else (lambda folder: None)
            told = wrap.startswith("an archive") and name == SINGLE
            kind = "UnsafeCheckpointError" if told else "InputError"
            cases.append((both(anew(untrained), alone, put(name, payload)), kind, f"/{name}"))
        refused_each(DOORS[door], tmp_path / "model", cases)
    assert not canary.exists()


def test_pickles_beside_good_weights_are_not_looked_at(canary: Path, untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    for name in (*WEIGHTS, "training_args.bin", "optimizer.pt", "rng_state.pth", "tokenizer.pkl", "x.npy", "x.joblib"):
        put(name, pickle.dumps(Canary(canary)))(folder)
    for door in ("run", "quantize", "export"):
        fate = attempt(DOORS[door], folder)
        assert fate.kinds == () and not fate.acts
        assert not {*WEIGHTS} & {Path(path).name for path in fate.opened}
    assert not canary.exists()
