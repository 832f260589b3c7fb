from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime")
import onnxruntime as ort

from support.operators import NAMES, register


@pytest.fixture(params=NAMES)
def kernels(request: pytest.FixtureRequest) -> str:
    """The name of kernels that run here."""
    register(ort.SessionOptions(), request.param)
    return str(request.param)
