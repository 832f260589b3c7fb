"""What a step of decodes says to kernels, in buffers that keep their places on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ernie_rt.contract import Draws, Step

ALIGNMENT: Final = 16
TORCH_DTYPES: Final[Mapping[Any, torch.dtype]] = {
    np.int32: torch.int32, np.int64: torch.int64, np.float32: torch.float32, np.float64: torch.float64,
}  # fmt: skip
DRAWS: Final[Mapping[str, Any]] = {
    "known": np.int32, "temperature": np.float32, "top_k": np.int32, "top_p": np.float64, "min_p": np.float64,
    "seed": np.int64, "position": np.int32,
}  # fmt: skip
"""The arrays of a Draws, as a device has them: a seed's 64 bits are those of an int64."""

IDLE: Final = {"index": -1, "top_p": 1}
"""What is not 0 in a row of padding, beside its seats."""
EVERY_ROW: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Decodes:
    """The new tokens of a step that brings one for each sequence, as attention over the cache reads it; all int32.

    Rows from a step's last one to the end of the buffers are padding: their `index` is -1.
    """

    index: Tensor
    """The causal place of each new token in its sequence `[N]`."""
    seat: Tensor
    """The row of `tables` that is its sequence's `[N]`."""
    tables: Tensor
    """The pages of each seat `[S + 1, P]`; the last row is for padding."""
    page_size: int


@dataclass(frozen=True, slots=True)
class DeviceDraws:
    """How a token is chosen for each of L rows: the arrays of a Draws `[L]`, on the device."""

    known: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    seed: Tensor
    """int64, of the same 64 bits."""
    position: Tensor


class Packed:
    """Arrays by name that go to the device in one copy, and keep their places there."""

    def __init__(self, arrays: Mapping[str, tuple[Any, tuple[int, ...]]], device: torch.device) -> None:
        """`arrays` gives a dtype of NumPy's and a shape by name."""
        parts, size = {}, 0
        for name, (dtype, shape) in arrays.items():
            nbytes = math.prod(shape) * np.dtype(dtype).itemsize
            parts[name] = slice(size, size + nbytes)
            size += -(-nbytes // ALIGNMENT) * ALIGNMENT
        self._host, self._device = np.zeros(size, np.uint8), torch.zeros(size, dtype=torch.uint8, device=device)
        self.host = {
            name: self._host[parts[name]].view(dtype).reshape(shape) for name, (dtype, shape) in arrays.items()
        }
        self.device = {
            name: self._device[parts[name]].view(TORCH_DTYPES[dtype]).view(shape)
            for name, (dtype, shape) in arrays.items()
        }

    def send(self) -> None:
        """Have the device know what was written to the host's arrays, before the work that is submitted next."""
        self._device.copy_(staged(self._host, self._device.device), non_blocking=True)


class DecodeInputs:
    """All that changes from one step of decodes to the next, for as many rows as there may be sequences.

    Rows without a sequence are padding: they stand at place -1 of the last seat, bring token 0 and draw nothing.
    """

    def __init__(self, rows: int, seats: int, device: torch.device, *, columns: int = 1) -> None:
        """`columns` are those of a position."""
        names = {"ids": np.int32, "index": np.int32, "seat": np.int32, "drawn_seat": np.int64, **DRAWS}
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {name: (dtype, (rows,)) for name, dtype in names.items()}
        shapes |= {"positions": (np.int32, (rows, columns)), "live": (np.int32, (1,))}
        self._packed = Packed(shapes, device)
        self._idle_seat = seats
        self.live = self._packed.device["live"]
        """How many rows, from the first on, are tokens and no padding `[1]`."""

    def fill(self, step: Step) -> None:
        """Send what a step says; its sequences become the first rows."""
        assert step.draws is not None
        count, host = len(step.ids), self._packed.host
        seats = np.where(step.draws.known > 0, step.seats, self._idle_seat)
        said = {"ids": step.ids, "positions": step.input("positions"), "index": step.past}
        said |= {"seat": step.seats, "drawn_seat": seats}
        for name, array in (said | device_arrays(step.draws)).items():
            host[name][:count] = array
            host[name][count:] = IDLE.get(name, 0)
        host["seat"][count:] = host["drawn_seat"][count:] = self._idle_seat
        host["live"][0] = count
        self._packed.send()

    def clear(self) -> None:
        """Padding alone: whatever reads this has no effect."""
        for name, array in self._packed.host.items():
            array[:] = IDLE.get(name, 0)
        self._packed.host["seat"][:] = self._packed.host["drawn_seat"][:] = self._idle_seat
        self._packed.send()

    def all_live(self) -> None:
        """No row of the work that is submitted next is padding."""
        self.live.fill_(EVERY_ROW)

    def ids(self, rows: int, last: Tensor) -> Tensor:
        """The new tokens `[rows]`, what was drawn last for a seat where the step says so; `last [S + 1]`."""
        ids, seat = (self._packed.device[name][:rows] for name in ("ids", "seat"))
        return torch.where(ids < 0, last.index_select(0, seat), ids)

    def positions(self, rows: int) -> Tensor:
        """Of the new tokens `[rows, columns]`."""
        return self._packed.device["positions"][:rows]

    def decodes(self, rows: int, tables: Tensor, page_size: int) -> Decodes:
        device = self._packed.device
        return Decodes(device["index"][:rows], device["seat"][:rows], tables, page_size)

    def draws(self, rows: int) -> DeviceDraws:
        return DeviceDraws(**{name: self._packed.device[name][:rows] for name in DRAWS})

    def drawn_seat(self, rows: int) -> Tensor:
        """Whose last token each row draws `[rows]`, int64; nobody's where it draws none."""
        return self._packed.device["drawn_seat"][:rows]


class Tables:
    """The pages of each seat, on the device: rows are sent when they change."""

    def __init__(self, seats: int, pages: int, device: torch.device) -> None:
        self.device = torch.zeros(seats + 1, pages, dtype=torch.int32, device=device)
        self._sent = np.zeros((seats + 1, pages), np.int32)

    def update(self, step: Step) -> None:
        """Have the device know the pages of a step's sequences, before the step."""
        tables = np.maximum(step.tables, 0)  # -1 is no page yet
        width = tables.shape[1]
        changed = (self._sent[step.seats, :width] != tables).any(axis=1)
        if changed.any():
            seats, device = step.seats[changed], self.device.device
            self._sent[seats, :width] = tables[changed]
            self.device.index_copy_(0, to_device(seats.astype(np.int64), device), to_device(self._sent[seats], device))


def device_draws(draws: Draws, device: torch.device) -> DeviceDraws:
    """What says how tokens are chosen, on the device."""
    arrays = device_arrays(draws)
    packed = Packed({name: (DRAWS[name], array.shape) for name, array in arrays.items()}, device)
    for name, array in arrays.items():
        packed.host[name][:] = array
    packed.send()
    return DeviceDraws(**packed.device)


def device_arrays(draws: Draws) -> dict[str, npt.NDArray[Any]]:
    arrays = {field.name: getattr(draws, field.name) for field in fields(draws)}
    return arrays | {"seed": draws.seed.view(np.int64)}


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """A copy on the device; the host waits for nothing, and may write to the array at once."""
    return staged(array, device).to(device, non_blocking=True)


def staged(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """A copy in main memory, from where the device fetches it: PyTorch keeps it until it has."""
    tensor = torch.from_numpy(np.array(array, order="C"))
    return tensor.pin_memory() if device.type == "cuda" else tensor
