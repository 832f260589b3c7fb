"""A stranger's backend: a distribution of its own, 25 primitives, found by its entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ernie_rt.graph.primitives import PRIMITIVES

FILES = {
    "pyproject.toml": """
        [build-system]
        requires = ["setuptools"]
        build-backend = "setuptools.build_meta"
        [project]
        name = "tiny-backend"
        version = "1.0"
        [project.entry-points.ernie_rt]
        tiny = "tiny_backend"
        [tool.setuptools]
        packages = ["tiny_backend"]
    """,
    "tiny_backend/__init__.py": """
        from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl

        @hookimpl
        def ernie_rt_backends():
            return [BackendInfo("tiny", "tiny_backend.backend:Tiny", "25 primitives", {"cpu": ("float32",)})]
    """,
    "tiny_backend/backend.py": """
        import numpy as np
        from ernie_rt.backend import SimpleBackend

        def cache_update(k, v, state, write, context):
            state[write] = np.stack([k, v], 1)
            return state[context, 0], state[context, 1]

        def softmax(x):
            e = np.exp(x - x.max(-1, keepdims=True))
            return e / e.sum(-1, keepdims=True)

        class Tiny(SimpleBackend):
            functions = dict(
                cast=lambda x, dtype: x.astype(dtype), add=np.add, sub=np.subtract, mul=np.multiply, div=np.divide,
                affine=lambda x, scale, shift: x * scale + shift, clamp_min=lambda x, minimum: np.maximum(x, minimum),
                rsqrt=lambda x: 1 / np.sqrt(x), sigmoid=lambda x: 0.5 * np.tanh(0.5 * x) + 0.5, softmax=softmax,
                sum=lambda x, axis, keepdims: x.sum(axis, keepdims=keepdims), matmul=np.matmul,
                top_k=lambda x, k: np.argsort(-x, axis=-1, kind="stable")[..., :k], take_rows=lambda x, ids: x[ids],
                take_along=lambda x, ids: np.take_along_axis(x, ids, -1), equal=np.equal, less_equal=np.less_equal,
                one_hot=lambda ids, depth, dtype: (ids[..., None] == np.arange(depth)).astype(dtype),
                where=lambda mask, x, otherwise: np.where(mask, x, np.float32(otherwise)), logical_and=np.logical_and,
                reshape=lambda x, dims: x.reshape(dims), transpose=lambda x, perm: x.transpose(perm),
                slice=lambda x, axis, start, stop: x.take(range(start, stop), axis), cache_update=cache_update,
                concat=lambda a, b, axis: np.concatenate([a, b], axis),
            )
    """,
}

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


def dedent(text: str) -> str:
    lines = text.strip("\n").rstrip(" ").splitlines(keepends=True)
    return "".join(line[8:] if line.strip() else "\n" for line in lines)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose Python path leads to the installed distribution."""
    root = tmp_path_factory.mktemp("tiny-backend")
    for name, text in FILES.items():
        path = root / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
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
