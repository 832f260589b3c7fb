"""Triton's interpreter in half of its time, and with an eye on where kernels read and write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import triton.language.core as language
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


def compute_nothing_in_vain(patch: pytest.MonkeyPatch) -> None:
    """Let the interpreter leave out sums in 64 bits, which tell of overflows with its option `debug` alone, and make
    NumPy's dtypes and what it says of a shape once, not for each value."""
    options, of, made = interpreter.InterpreterOptions(sanitize_overflow=False), interpreter._get_np_dtype, {}
    assert not options.debug
    block, shapes = language.block_type.__init__, dict[tuple[int, ...], tuple[Any, int, str]]()

    def dtype(type: Any) -> Any:
        name = type.scalar.name
        if name not in made:
            made[name] = of(type)
        return made[name]

    def of_known_shape(self: Any, element: Any, shape: Any) -> None:
        sizes = tuple(getattr(size, "value", size) for size in shape)
        if sizes not in shapes:
            block(self, element, shape)
            shapes[sizes] = self.shape, self.numel, str(self.shape)
        self.element_ty = element
        self.shape, self.numel, said = shapes[sizes]
        self.name = f"<{said}, {element}>"

    patch.setattr(interpreter.interpreter_builder, "options", options)
    patch.setattr(interpreter, "_get_np_dtype", dtype)
    patch.setattr(language.block_type, "__init__", of_known_shape)


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
