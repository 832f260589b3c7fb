"""The backend that docs/backends.md shows: a distribution of its own, 25 primitives, found by its entry point."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ernie_rt.graph.primitives import PRIMITIVES

DOCS = Path(__file__).parents[2] / "docs" / "backends.md"

PROGRAM = """
import json, sys
import ernie_rt

folder, ids = sys.argv[1], json.loads(sys.argv[2])
told = {}
for backend in ("tiny", "reference"):
    with ernie_rt.load(folder, backend=backend, dtype="float32", max_context=64, max_sequences=2) as model:
        whole, short = model.logits_batch([ids, ids[:3]])
        told[backend] = {
            "ops": sorted({node.op for node in model.lowering.graph.nodes}),
            "logits": [whole.tolist(), model.logits(ids, chunk=2).tolist(), short.tolist()],
            "tokens": model.generate_batch([ids, ids[:2]], max_new_tokens=8, ignore_eos=True),
        }
print(json.dumps(told))
"""


def documented_files() -> dict[str, str]:
    """The files that docs/backends.md shows: code blocks that begin with a comment naming a path."""
    blocks = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose Python path leads to the installed distribution."""
    root = tmp_path_factory.mktemp("tiny-backend")
    files = documented_files()
    assert set(files) == {"pyproject.toml", "tiny_backend/__init__.py", "tiny_backend/backend.py"}
    for name, text in files.items():
        path = root / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # Without an index and with the build tools that are installed, so that nothing is fetched.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    run([*command, "--target", str(root / "site"), str(root / "source")], dict(os.environ))
    return os.environ | {"PYTHONPATH": str(root / "site"), "OMP_NUM_THREADS": "1"}


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_a_model_by_primitives_alone(environment: dict[str, str], demo: Path) -> None:
    ids = json.dumps([5, 9, 2, 40, 17, 33, 8])
    told: dict[str, Any] = json.loads(run([sys.executable, "-W", "error", "-c", PROGRAM, str(demo), ids], environment))
    tiny, reference = told["tiny"], told["reference"]
    assert set(tiny["ops"]) <= {op.name for op in PRIMITIVES}
    assert {"top_k", "one_hot", "cache_update"} <= set(tiny["ops"])
    for actual, exact in zip(tiny["logits"], reference["logits"], strict=True):
        difference = np.abs(np.array(actual) - np.array(exact)).max()
        assert 0 < difference < 2e-5 * np.sqrt(np.mean(np.square(exact)))
    assert tiny["tokens"] == reference["tokens"]


def test_it_is_listed(environment: dict[str, str]) -> None:
    program = "import sys; from ernie_rt.cli import main; sys.argv = ['ernie-rt', 'backends', '--json']; main()"
    listed = json.loads(run([sys.executable, "-c", program], environment))
    (tiny,) = (row for row in listed if row["name"] == "tiny")
    assert tiny["usable"] and tiny["summary"] == "25 primitives"
    assert {"eager", "reference"} <= {row["name"] for row in listed}
