"""Triton's interpreter in half of its time, and with an eye on where kernels read and write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import triton.runtime.interpreter as interpreter


def replace_once_a_launch(patch: pytest.MonkeyPatch) -> None:
    """Let the interpreter put its own functions in place of the language's once a launch for each module.

    It does so whenever a kernel calls a function, and spends more time on that than on the kernel.
    """
    replace, start, done = interpreter._patch_lang, interpreter.GridExecutor.__call__, set[int]()

    def replaced_once(function: Any) -> Any:
        module = id(function.__globals__)
        if module in done:
            return None
        done.add(module)
        return replace(function)

    def started(self: Any, *args: Any, **kwargs: Any) -> None:
        done.clear()
        start(self, *args, **kwargs)

    patch.setattr(interpreter, "_patch_lang", replaced_once)
    patch.setattr(interpreter.GridExecutor, "__call__", started)


def watch_bounds(patch: pytest.MonkeyPatch) -> None:
    """Let a kernel read and write nothing but the memory of the tensors that it was given."""
    given, builder = interpreter.GridExecutor._init_args_hst, interpreter.InterpreterBuilder
    load, store = builder.create_masked_load, builder.create_masked_store
    bounds: list[tuple[int, int]] = []

    def noted(self: Any, args: Any, kwargs: Any) -> Any:
        tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        bounds[:] = [(start, start + nbytes) for start, nbytes in storages.items()]
        return given(self, args, kwargs)

    def check(pointers: Any, mask: Any) -> None:
        at = pointers.data[np.broadcast_to(mask.data, pointers.data.shape).astype(bool)].astype(np.int64)
        size = pointers.get_element_ty().primitive_bitwidth // 8
        inside = np.zeros(at.shape, bool)
        for start, stop in bounds:
            inside |= (at >= start) & (at + max(size, 1) <= stop)
        assert inside.all(), "a kernel reaches beyond the tensors that it was given"

    def checked_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        check(pointers, mask)
        return load(self, pointers, mask, *rest)

    def checked_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        check(pointers, mask)
        return store(self, pointers, value, mask, *rest)

    patch.setattr(interpreter.GridExecutor, "_init_args_hst", noted)
    patch.setattr(builder, "create_masked_load", checked_load)
    patch.setattr(builder, "create_masked_store", checked_store)
