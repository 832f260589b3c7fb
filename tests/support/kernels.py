"""What tests of cudagraph's kernels share: numbers, and how near a kernel comes to what its op means."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ernie_rt.reference.ops import MEANINGS


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32, scale: float = 1.0, mean: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (mean + scale * torch.randn(*shape, generator=generator)).to(dtype)


def meaning(op: str, *operands: Any, **attrs: Any) -> np.ndarray:
    """What an op gives in float64, of tensors, arrays, and what is absent."""
    return np.asarray(MEANINGS[op](*map(_exact, operands), **attrs))


def _exact(operand: Any) -> Any:
    if not isinstance(operand, Tensor):
        return operand
    return (operand.double() if operand.is_floating_point() else operand).numpy()


def check_near(found: Tensor, rough: Tensor, exact: np.ndarray) -> None:
    """A kernel's numbers are as near to the exact ones as those of eager's functions in the same dtype; of a few, where
    eager's may be near by luck, as near as numbers of the dtype are to one another."""
    assert found.dtype is rough.dtype
    assert found.shape == rough.shape == exact.shape
    size = np.sqrt(np.mean(exact**2))
    errors, usual = (np.abs(each.double().numpy() - exact) for each in (found, rough))
    assert np.sqrt(np.mean(usual**2)) <= 0.02 * size, "what it is compared with is itself wrong"
    luck = torch.finfo(found.dtype).eps / 2 * size if exact.size < 16 else 0.0
    allowed = 1.5 * max(np.sqrt(np.mean(usual**2)), luck) + 1e-6 * size
    assert np.sqrt(np.mean(errors**2)) <= allowed
    assert errors.max() <= 2 * max(usual.max(), luck) + 1e-5 * size
