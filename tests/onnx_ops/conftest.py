from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime")

from support.operators import names


@pytest.fixture(params=names())
def kernels(request: pytest.FixtureRequest) -> str:
    """The name of kernels that run here; of none, where there is no library, tests are skipped."""
    return str(request.param)
