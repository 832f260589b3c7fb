"""Folders written by the transformers of this process, each with what transformers itself makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import transformers

from support.saved.model import edit, logits, make_model, save_model
from support.saved.tokenizer import judge, make_tokenizer, read_back, save_tokenizer
from support.saved.told import Judged, Told
from support.saved.variation import ROWS, draw

IDS: Final = (1, 5, 77, 400, 1234, 9, 2999, 3, 250)


def write_all(where: Path, seeds: Iterable[int]) -> None:
    """For each seed: the folder `where/SEED/model`, and beside it `told.json` and `logits.npy`."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for seed in seeds:
        write(seed, where / str(seed)).write(where / str(seed))


def write(seed: int, where: Path) -> Told:
    """Write the folder of a seed and its logits into `where`, which is made, and say what transformers makes of it."""
    variation = draw(seed, int(transformers.__version__.split(".")[0]))
    folder = where / "model"
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(variation)
    model = make_model(variation, ROWS if tokenizer is None else len(tokenizer))
    save_model(model, variation, folder)
    judged = Judged()
    if tokenizer is not None:
        save_tokenizer(tokenizer, variation, folder)
        judged = judge(read_back(folder), variation)
    edit(folder, variation)
    rows, eos = model.config.vocab_size, model.config.eos_token_id
    ids = [id % rows for id in IDS]
    np.save(where / "logits.npy", logits(model, ids))
    biases = any(re.search(r"experts\.\d+\.\w+\.bias", name) for name, _ in model.named_parameters())
    return Told(transformers.__version__, variation, ids, rows, eos, biases, judged)
