"""onnxruntime-genai on a folder that `ernie-rt export onnx` wrote, in the process that is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime_genai as og

from ernie_rt.files import read_json

CONFIG = "genai_config.json"


class Genai:
    """An exported model on the CPU, each token the likeliest."""

    def __init__(self, folder: str, threads: int | None, max_context: int) -> None:
        config = og.Config(folder)
        if threads is not None:
            config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self._model = og.Model(config)
        self._context = max_context
        self._rest: tuple[Any, int] | None = None
        said = read_json(Path(folder, CONFIG))
        self.vocabulary = int(said["model"]["vocab_size"])
        self.facts: dict[str, Any] = {
            "name": f"onnxruntime-genai {Path(folder).name}",
            "backend": f"onnxruntime-genai {version('onnxruntime-genai')}",
            "device": "cpu",
        }

    def prefill(self, ids: Sequence[int], new: int) -> None:
        settings = og.GeneratorParams(self._model)
        length = len(ids) + new + 1
        settings.set_search_options(min_length=length, max_length=length, do_sample=False)  # past every end
        generator = og.Generator(self._model, settings)
        generator.append_tokens(list(ids))
        generator.generate_next_token()
        self._rest = generator, new

    def decode(self) -> None:
        assert self._rest is not None
        generator, new = self._rest
        for _ in range(new):
            generator.generate_next_token()
        self._rest = None

    def by_op(self, ids: Sequence[int]) -> Sequence[Mapping[str, Any]]:
        return ()

    def close(self) -> None:
        pass
