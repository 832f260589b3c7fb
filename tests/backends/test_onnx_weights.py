"""Where the numbers of the onnx backend lie: weights in mapped files, caches in memory of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from ernie_rt.contract import Place, Weight
from ernie_rt.errors import FileFormatError
from ernie_rt.graph.types import Plain, TensorType
from ernie_rt_onnx.emitter import Parameter
from ernie_rt_onnx.memory import zeros
from ernie_rt_onnx.weights import views


def parameter() -> Parameter:
    return Parameter(Weight("w", TensorType("float32", (4, 8)), Plain("float32")), "data", "float32", (8, 4))


def test_parameters_are_seen_where_they_lie(tmp_path: Path) -> None:
    numbers = np.arange(32, dtype=np.float32)
    (tmp_path / "w").write_bytes(bytes(64) + numbers.tobytes())
    found = views({"w": parameter()}, {"w": Place(tmp_path / "w", 64, numbers.nbytes)})["w"]
    np.testing.assert_array_equal(found, numbers.reshape(8, 4))
    assert not found.flags.writeable and not found.flags.owndata


def test_a_file_that_has_become_shorter(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(bytes(100))
    with pytest.raises(FileFormatError, match=r"has become shorter .*expected 192 bytes or more; found 100"):
        views({"w": parameter()}, {"w": Place(tmp_path / "w", 64, 128)})


@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 7), (2, 100, 128)])
def test_caches_begin_with_a_cache_line(shape: tuple[int, ...]) -> None:
    held = [zeros(shape, "float32") for _ in range(8)]
    assert all(array.ctypes.data % 64 == 0 and array.shape == shape and not array.any() for array in held)
    held[0][:] = 1
    assert not any(array.any() for array in held[1:])
