"""Exported models in ONNX Runtime, driven by hand: as it comes, and with the library of operators."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from ernie_rt_onnx.library import kernels, library_path
from support.exports import read
from support.operators import ours_that_ran


class Session:
    """A session of an exported folder, or of a changed `model` of it."""

    def __init__(self, folder: Path, model: onnx.ModelProto | None = None, with_library: bool = False) -> None:
        self._model = read(folder) if model is None else model
        self._with_library = with_library
        self._profiles = tempfile.TemporaryDirectory()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._profiles.name) / "profile")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        if with_library:
            options.register_custom_ops_library(str(library_path()))
        self.session = ort.InferenceSession(
            self._model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, ids: np.ndarray, mask: np.ndarray, past: dict[str, np.ndarray]) -> np.ndarray:
        """The last logits `[B, V]`; `past` is filled with what comes out."""
        for given in self.session.get_inputs()[2:]:
            _, heads, _, size = given.shape
            dtype = np.float16 if given.type == "tensor(float16)" else np.float32
            past.setdefault(given.name, np.zeros((len(ids), heads, 0, size), dtype))
        logits, *present = self.session.run(None, {"input_ids": ids, "attention_mask": mask, **past})
        past.update(zip(past, present, strict=True))
        return logits[:, 0]

    def logits(self, ids: list[int]) -> np.ndarray:
        return self(np.array([ids]), np.ones((1, len(ids)), np.int64), {})[0]

    def greedy(self, ids: list[int], count: int) -> list[int]:
        past: dict[str, np.ndarray] = {}
        given, found = ids, []
        for step in range(count):
            mask = np.ones((1, len(ids) + step), np.int64)
            given = [int(self(np.array([given]), mask, past)[0].argmax())]
            found += given
        return found

    def end(self) -> None:
        """See, too, that its experts, if it has any, were run by the library where there is one."""
        ran = ours_that_ran(Path(self.session.end_profiling()), self._model)
        assert ran == ({function.name for function in self._model.functions} if self._with_library else set())
        self._profiles.cleanup()


def sessions(folder: Path, model: onnx.ModelProto | None = None) -> Iterator[Session]:
    """Stock ONNX Runtime, then, where it was built, one with the library; what ran in each is seen when it ends."""
    for with_library in (False, True)[: 1 if kernels() is None else 2]:
        session = Session(folder, model, with_library)
        yield session
        session.end()
