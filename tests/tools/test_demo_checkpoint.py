"""The demo checkpoint: small, the same every time, made without heavy libraries, and readable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from ernie_rt.model.config import read_config
from ernie_rt.text.tokenizer import Tokenizer

SCRIPT = Path(__file__).parents[2] / "tools" / "demo_checkpoint.py"
RUN = (
    "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
    "assert not {'torch', 'transformers'} & sys.modules.keys()"
)


def write(folder: Path) -> dict[str, bytes]:
    done = subprocess.run([sys.executable, "-c", RUN, SCRIPT, folder], capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder}\n"
    assert "random" in done.stderr and "gibberish" in done.stderr
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_demo_checkpoint(tmp_path: Path) -> None:
    files = write(tmp_path / "one" / "model")
    assert list(files) == ["config.json", "model.safetensors", "tokenizer.model"]
    assert files == write(tmp_path / "two")
    assert sum(map(len, files.values())) < 4_000_000

    config = read_config(tmp_path / "two")
    tokenizer = Tokenizer.load(tmp_path / "two", config)
    assert tokenizer.vocab_size == config.vocab_size == 1000
    assert tokenizer.special == {0, 1, 2} and tokenizer.eos_ids == (2,)
    assert len(tokenizer.encode("The old teacher watches the harbour.")) < 12
    assert len(tokenizer.encode("1987")) == 4

    tensors = load_file(tmp_path / "two" / "model.safetensors")
    assert tensors["model.embed_tokens.weight"].shape == (config.vocab_size, config.hidden_size)
    assert "lm_head.weight" not in tensors
    for name, tensor in tensors.items():
        router = name.endswith(("mlp.gate.weight", "e_score_correction_bias"))
        assert tensor.dtype == (np.float32 if router else ml_dtypes.bfloat16), name
