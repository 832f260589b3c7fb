"""One safetensors file: headers made of right and impossible fields, and bytes that were changed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.weights.safetensors import BITS, HEADER_LIMIT, SafetensorsFile
from fuzz.mutations import BORDERS, TEXTS, changed, damaged, foreign, json_bytes, value
from fuzz.target import Attempt, Target

DTYPES = ("F32", "BF16", "F16", "F64", "U8", "I32", "BOOL", "U16", *BITS)
ODD_DTYPES = ("", "f32", "I3", "F32\0", "FLOAT", "F" * 300)
NAMES = ("a", "b", "c", "lm_head.weight", "model.layers.0.mlp.gate.weight")
NUMBERS = (0, 1, 2, 3, 4, 7, 64)


def entries(rng: Random) -> tuple[dict[str, Any], int]:
    """Tensors that lie one after the other, and their bytes in all."""
    header: dict[str, Any] = {}
    end = 0
    for name in rng.sample(NAMES, rng.randrange(5)):
        dtype = rng.choice(DTYPES)
        shape = [rng.choice(NUMBERS) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        bits = BITS[dtype] * math.prod(shape)
        if bits % 8 or bits > 1 << 16:
            shape, bits = [], 0 if BITS[dtype] % 8 else BITS[dtype]
            if not bits:
                shape = [0]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + bits // 8]}
    return header, end


def broken(rng: Random, header: dict[str, Any], name: str, nbytes: int) -> int:
    """Changes an entry so that it means something else or nothing; the bytes that the file is to have then."""
    entry = header[name]
    number = rng.choice((*BORDERS, -1, 10**30, 10**400, 0.5, 1.0, True, None, "1"))
    match rng.randrange(12):
        case 0:
            entry["dtype"] = rng.choice((*DTYPES, *ODD_DTYPES))
        case 1:
            entry["shape"] = [number] if not entry["shape"] else [*entry["shape"][1:], number]
        case 2:
            entry["shape"] += [1] * rng.choice((1, 60, 64, 65))
        case 3:
            entry["data_offsets"][rng.randrange(2)] = number
        case 4:
            entry["data_offsets"] = rng.choice(([], [0], [0, 1, 2], [4, 0], entry["data_offsets"][::-1]))
        case 5:
            header[rng.choice((*TEXTS, "x" * 257, "\x9b", "a\0"))] = header.pop(name)
        case 6:
            shift = rng.choice((-1, 1, 4, 8))
            entry["data_offsets"] = [place + shift for place in entry["data_offsets"]]
        case 7:
            header["__metadata__"] = rng.choice((value(rng), {"format": "pt"}, {"format": value(rng)}))
        case 8:
            entry[rng.choice(("x", "dtype2"))] = value(rng)
        case 9:
            begin = entry["data_offsets"][0]
            entry |= {"shape": rng.choice(([0, 1 << 63], [1 << 62, 0, 8])), "data_offsets": [begin, begin]}
        case 10:
            return max(0, nbytes + rng.choice((-8, -1, 1, 8, 4096)))
        case _:
            # A dtype that nobody knows is a range of bytes, which only reading it can refuse.
            entry["dtype"] = rng.choice(ODD_DTYPES)
    return nbytes


def image(header: bytes, nbytes: int, length: int | None = None) -> bytes:
    return (
        (len(header) if length is None else length).to_bytes(8, "little")
        + header
        + bytes(range(256)) * (nbytes // 256)
        + bytes(nbytes % 256)
    )


def drawn(rng: Random) -> bytes:
    """A file."""
    header, nbytes = entries(rng)
    match rng.randrange(10):
        case 0:
            return damaged(rng, image(json.dumps(header).encode(), nbytes))
        case 1:
            return rng.choice((foreign(rng), foreign(rng) + rng.randbytes(80), rng.randbytes(rng.randrange(40)), b""))
        case 2:
            length = rng.choice((*BORDERS, HEADER_LIMIT, HEADER_LIMIT + 1))
            return image(json.dumps(header).encode(), nbytes, min(length, (1 << 64) - 1))
        case 3 | 4:
            return image(json_bytes(rng, changed(rng, header or {"a": {}}, rng.randrange(1, 3))), nbytes)
        case 5:
            return image(json.dumps(header).encode(), nbytes)
    if not header:
        header, nbytes = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 4
    for name in rng.sample(list(header), min(len(header), rng.choice((1, 1, 2)))):
        nbytes = broken(rng, header, name, nbytes)
    return image(json_bytes(rng, header), nbytes)


def read(path: Path) -> None:
    """The file opened, each of its tensors read, and the whole of it."""
    file = SafetensorsFile(path)
    try:
        refused = []
        for name in file.tensors:
            try:
                file.array(name).tobytes()
            except Exception as error:
                refused.append(error)
            file.release(name)
        file.sha256()
        if refused:
            raise refused[0]
    finally:
        file.close()


def cut_while_it_is_read(path: Path) -> None:
    """Whoever reads beyond the end of a mapped file is killed by the system."""
    file = SafetensorsFile(path)
    try:
        os.truncate(path, 8)
        file.sha256()
    finally:
        file.close()


def start(scratch: Path) -> Attempt:
    path = scratch / "model.safetensors"

    def attempt(rng: Random) -> None:
        path.write_bytes(drawn(rng))
        cut_while_it_is_read(path) if rng.random() < 0.01 else read(path)

    return attempt


TARGET = Target("safetensors", ("ernie_rt.weights.safetensors",), start, share=9_000)
