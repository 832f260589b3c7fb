"""The ONNX Runtime that is imported, and whether its operators mean what is meant here."""

from __future__ import annotations

from typing import Final

import onnxruntime as ort
from packaging.version import InvalidVersion, Version

from ernie_rt.errors import BackendError

MINIMUM_RUNTIME: Final = "1.31"
"""The ONNX Runtime with which the operators were seen to mean what is meant here."""


def check_runtime(minimum: str = MINIMUM_RUNTIME) -> None:
    """BackendError for an ONNX Runtime older than `minimum`.

    Package metadata are not enough: two distributions, onnxruntime and onnxruntime-gpu, bring the same package, and the
    one that was installed last is imported.
    """
    try:
        old = Version(ort.__version__) < Version(minimum)
    except InvalidVersion:
        old = True
    if old:
        raise BackendError(
            "this ONNX Runtime is too old: its operators may mean something else",
            where="onnxruntime",
            expected=f"{minimum} or newer",
            found=ort.__version__,
            hint="pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'ernie-rt[onnx]' (or '…[onnx-gpu]')",
        )
