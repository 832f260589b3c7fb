"""Memory that sessions read and write where it lies, weights and caches: this process's, or a device's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper

from ernie_rt.contract import DType
from ernie_rt_onnx.emitter import IR_VERSION, OPSETS
from ernie_rt_onnx.provider import Provider

CACHE_LINE: Final = 64


@dataclass(frozen=True, slots=True)
class Buffer:
    """Numbers in memory of a device, for as long as there is their `owner`: an array, or a value of ONNX Runtime's."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int
    owner: Any
    device: str = "cpu"
    index: int = 0

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> Buffer:
        return cls(array.shape, array.dtype, array.ctypes.data, array)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, first: int, count: int) -> Buffer:
        """A part along the first axis, in the same memory."""
        shape = (count, *self.shape[1:])
        start = first * math.prod(self.shape[1:]) * self.dtype.itemsize
        return replace(self, shape=shape, address=self.address + start)

    def as_bytes(self) -> Buffer:
        return replace(self, shape=(self.nbytes,), dtype=np.dtype(np.uint8))

    def read_by(self, binding: ort.IOBinding, name: str) -> None:
        """Bind it as an input. What lies elsewhere than its reader wants it is copied at once."""
        binding.bind_input(name, self.device, self.index, self._type, self.shape, self.address)

    def written_by(self, binding: ort.IOBinding, name: str) -> None:
        """Bind it as an output."""
        binding.bind_output(name, self.device, self.index, self._type, self.shape, self.address)

    @property
    def _type(self) -> int:
        return int(helper.np_dtype_to_tensor_dtype(self.dtype))


class Memory(ABC):
    """Where weights and caches are for the sessions of a provider."""

    provider: Provider
    runs_library: bool
    """Whether its sessions take the library's operators."""

    available: int | None = None
    """Bytes that were left of it at first; None: it is main memory."""

    @abstractmethod
    def hands_over(self, dtype: DType) -> bool:
        """Whether a graph of this dtype is given its plain weights at every run, not copied, in place of constants."""

    @abstractmethod
    def hold(self, array: npt.NDArray[Any]) -> Buffer:
        """These numbers; the array is kept where it is memory of the device already."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Buffer: ...

    @abstractmethod
    def copy(self, cache: Buffer, source: int, destination: int, length: int) -> None:
        """Copy the first `length` rows of a slot, and perhaps more, of a cache `[slots, K, rows, D]`."""

    def numbers(self, cache: Buffer) -> npt.NDArray[Any] | None:
        """A cache as an array; None where it lies elsewhere than in this process's memory."""
        return None


class HostMemory(Memory):
    provider = Provider()
    runs_library = True

    def hands_over(self, dtype: DType) -> bool:
        return dtype == "float32"  # on the CPU ONNX Runtime widens others, those that are constant once

    def hold(self, array: npt.NDArray[Any]) -> Buffer:
        return Buffer.of(array)

    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Buffer:
        return Buffer.of(zeros(shape, dtype))

    def copy(self, cache: Buffer, source: int, destination: int, length: int) -> None:
        cache.owner[destination, :, :length] = cache.owner[source, :, :length]

    def numbers(self, cache: Buffer) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = cache.owner
        return array


class DeviceMemory(Memory):
    """A device's memory, filled a weight at a time, so that the host never has the whole model.

    It is that of a session of its own, which copies within it: what ONNX Runtime allocates outside of sessions it
    rounds up to powers of two.
    """

    runs_library = False

    def __init__(self, provider: Provider, available: int | None = None) -> None:
        self.provider = provider
        self.available = available
        types = [helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, ["bytes"]) for name in ("from", "to")]
        graph = helper.make_graph([helper.make_node("Identity", ["from"], ["to"])], "copy", types[:1], types[1:])
        opset = helper.make_opsetid("", OPSETS[""])
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        self._session = provider.start(model.SerializeToString(), ort.SessionOptions())
        self._binding = self._session.io_binding()

    def hands_over(self, dtype: DType) -> bool:
        return True

    def hold(self, array: npt.NDArray[Any]) -> Buffer:
        buffer = self._allocate(array.shape, array.dtype)
        # NumPy's bfloat16 is none that ONNX Runtime knows.
        buffer.owner.update_inplace(array.view(np.uint16) if array.dtype.itemsize == 2 else array)
        return buffer

    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Buffer:
        return self.hold(np.zeros(shape, dtype))

    def copy(self, cache: Buffer, source: int, destination: int, length: int) -> None:
        cache.rows(source, 1).as_bytes().read_by(self._binding, "from")
        cache.rows(destination, 1).as_bytes().written_by(self._binding, "to")
        self._session.run_with_iobinding(self._binding)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        device, index = self.provider.device, self.provider.index
        kind = int(helper.np_dtype_to_tensor_dtype(dtype))
        value = self._session.create_ortvalue_from_shape_and_type(list(shape), kind, device, index)
        return Buffer(shape, dtype, value.data_ptr(), value, device, index)


def zeros(shape: tuple[int, ...], dtype: DType) -> npt.NDArray[Any]:
    """An array that begins with a cache line: of one that does not, wide vectors lie across two, and are read in twice
    the time. Its memory is taken when it is first touched."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    flat = np.zeros(size + CACHE_LINE, np.uint8)
    start = -flat.ctypes.data % CACHE_LINE
    return flat[start : start + size].view(dtype).reshape(shape)
