"""What lies beside the weights and the graph of an exported folder: written by the exporter, and held to it by whoever
checks the folder."""

from __future__ import annotations

import json
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from ernie_rt import files, writing
from ernie_rt.errors import BackendError, IntegrityError, TokenizerError
from ernie_rt.location import Located
from ernie_rt.text.added_files import TOKENIZER_CONFIG
from ernie_rt.untrusted_json import usable
from ernie_rt.weights.folder import BESIDE
from ernie_rt.weights.integrity import BESIDE_LIMIT, own_file
from ernie_rt.weights.manifest import MANIFEST, Manifest
from ernie_rt_onnx.genai import write_genai_files
from ernie_rt_onnx.portable import MODEL, TABLES

CONFIG: Final = "config.json"
TEMPLATE: Final = "chat_template.jinja"
PASSES: Final = 4
"""The first reads settings that it then writes, the second those, and the third has nothing to change."""
README: Final = "README.md"
GENAI: Final = ("genai_config.json", "tokenizer.json", TOKENIZER_CONFIG)
AWAY: Final = "Move it away"
CODE: Final = "auto_map"
"""The field by which transformers is told to run a repository's own code."""

RECIPE: Final = """\
# An ERNIE model for ONNX Runtime

Written by `ernie-rt export onnx`. `ernie-rt verify .` tells whether it is still what was written.

Left alone, ONNX Runtime keeps an id of the device and counts of use, to be sent to its maker. It looks for
`ORT_DISABLE_TELEMETRY` when it is imported, so set that first:

```python
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import numpy as np
import onnxruntime as ort

session = ort.InferenceSession("model.onnx")
ids = np.array([[0, 0, 1, 23, 45], [1, 7, 200, 31, 4]])  # two prompts, the first one padded
mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
past = {
    given.name: np.zeros((len(ids), given.shape[1], 0, given.shape[3]), np.DTYPE)
    for given in session.get_inputs()
    if given.name.startswith("past_key_values")
}
answers = []
for _ in range(8):
    logits, *present = session.run(None, {"input_ids": ids, "attention_mask": mask, **past})
    past = dict(zip(past, present))
    ids = logits[:, -1].argmax(-1)[:, None]  # the next token of each
    mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
    answers.append(ids[:, 0])
```

With onnxruntime-genai, where the folder has a tokenizer:

```python
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import onnxruntime_genai as og

model = og.Model(".")
```

If the model is a mixture of experts, and `pip install 'ernie-rt[onnx]'` found a C++ compiler, kernels of ernie-rt run
the experts from the mapped file, on a CPU, in float32 or float16:

```python
from ernie_rt_onnx import library_path

options = ort.SessionOptions()
options.register_custom_ops_library(str(library_path()))
session = ort.InferenceSession("model.onnx", options)
```
"""


def readme(dtype: str) -> str:
    """How to run a folder whose caches are of this dtype."""
    return RECIPE.replace("np.DTYPE", f"np.{dtype}" if dtype != "bfloat16" else 'np.dtype("bfloat16")')


def write_beside(located: Located, folder: Path) -> tuple[str, ...]:
    """Add to a folder, which has the config and the tokenizer's files of a model, what its runtimes need; what
    onnxruntime-genai will lack, in words.

    Made of the folder itself, so that whoever has it can make the same again.
    """
    config = files.read_json(folder / CONFIG)
    if CODE in config:
        kept = usable({name: value for name, value in config.items() if name != CODE})
        with writing.write_atomic(folder / CONFIG) as file:
            file.write(json.dumps(kept, ensure_ascii=False, indent=2).encode())
    template = Located(located.config, folder).template
    if template is not None:  # it may lie in the settings, which are about to be replaced
        with writing.write_atomic(folder / TEMPLATE) as file:
            file.write(template.source.encode())
    left_out: tuple[str, ...] = ()
    for _ in range(PASSES):
        made = _contents(folder)
        try:
            left_out = write_genai_files(Located(located.config, folder), folder, MODEL)
        except TokenizerError as error:
            return (f"onnxruntime-genai cannot run it without a tokenizer: {error}",)
        if _contents(folder) == made:
            return tuple(f"onnxruntime-genai has no {name}, which generation_config.json asks for" for name in left_out)
    raise BackendError(
        "the tokenizer's files for onnxruntime-genai become others each time they are made of themselves",
        where=str(located.folder),
        hint="Please report the model that does this",
    )


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: files.read_bytes(folder / name, BESIDE_LIMIT) for name in GENAI if (folder / name).exists()}


def check_names(names: Collection[str], manifest: Manifest, where: Path) -> None:
    """IntegrityError for files that no exporter writes, though a card speaks of them."""
    known = (*manifest.shards, MANIFEST, TABLES, *BESIDE, *GENAI)
    for name in names:
        if not any(fnmatch(name, pattern) for pattern in known):
            raise IntegrityError("this was not exported with the model", where=f"{where}/{name[:80]}", hint=AWAY)


def check_beside(located: Located, names: Collection[str], hint: str) -> None:
    """IntegrityError unless those of the files `names` that the exporter makes are what it makes of the others."""
    folder = located.folder
    assert folder is not None
    for name in names:
        settings = name.endswith(".json") and name not in ("tokenizer.json", MANIFEST)
        if settings and CODE in files.read_json(own_file(folder, name), limit=BESIDE_LIMIT):
            raise IntegrityError(
                f"{CODE} names code, to be run by whoever trusts it; the exporter writes none",
                where=str(folder / name),
                hint=hint,
            )
    with writing.temporary_folder() as place:
        made = Path(place)
        try:
            write_genai_files(located, made, MODEL)
        except TokenizerError as error:  # without a tokenizer the exporter writes none of these
            if GENAI[0] not in names:
                return
            read = [name for name in ("tokenizer.model", "tokenizer.json") if name in names]
            raise IntegrityError(
                "this was not exported with the model" + (f", whose {read[0]} cannot be read: {error}" if read else ""),
                where=str(folder / GENAI[0]),
                hint=hint if read else AWAY,
            ) from None
        wanted = _contents(made)
    for name, data in wanted.items():
        if name not in names or files.read_bytes(own_file(folder, name), BESIDE_LIMIT) != data:
            raise IntegrityError("not what ernie-rt writes for this model", where=str(folder / name), hint=hint)
