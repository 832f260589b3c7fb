"""Refuse an exported folder that would lead its reader astray: before ONNX Runtime, or onnx, opens anything.

What stock readers check differs from one to the other, and by where a tensor stands in the file, so all of it is read
here once, message by message whatever it means: no tensor is overlooked, wherever the format has room for one.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from ernie_rt import files
from ernie_rt.errors import InputError, IntegrityError
from ernie_rt.graph.types import DTYPES
from ernie_rt.weights.integrity import own_file
from ernie_rt_onnx.emitter import ELEMENT_TYPES, OPSETS
from ernie_rt_onnx.functions import DOMAIN
from ernie_rt_onnx.portable import AGAIN, MODEL

LIMIT: Final = files.MIB // 2
"""That of the 300B has 257 kB."""
MOST_MESSAGES: Final = 1 << 16
"""That of the 300B has 8,000. An empty one takes two bytes of the file, and five hundred of memory."""
DEEPEST: Final = 32
"""Levels of messages; in an exported model there are five."""
INITIALIZER: Final = r"graph\.initializer\[\d+\]"
"""The only tensors that may lie in other files."""
READS_FILES: Final = frozenset({"EPContext"})
"""Operators of ONNX Runtime that open a file which an attribute names."""
ITEM_SIZES: Final[Mapping[int, int]] = {number: DTYPES[dtype].size for dtype, number in ELEMENT_TYPES.items()}


def read_model(folder: Path) -> tuple[onnx.ModelProto, str]:
    """The model of an exported folder, and the sha256 of its file; IntegrityError for one that is not safe to open."""
    data = files.read_bytes(own_file(folder, MODEL), LIMIT)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        if "alloc failed" in str(error):  # as protobuf tells of memory that it could not have
            raise MemoryError(str(error)) from None
        raise IntegrityError("not an ONNX model", where=MODEL, found=str(error)[:200], hint=AGAIN) from None
    messages = list(_bounded(model))
    functions = {function.name for function in model.functions}
    for place, message in messages:
        _check(place, message, functions)
    sizes: dict[str, int] = {}
    for place, message in messages:
        if isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location):
            _check_external(place, message, folder, sizes)
    return model, hashlib.sha256(data).hexdigest()


def walk(message: Message, place: str = "") -> Iterator[tuple[str, Message]]:
    """A message and all those inside, each with its place, such as `graph.node[3].attribute[0].t`."""
    yield place, message
    for field, value in message.ListFields():
        name = f"{place}.{field.name}".removeprefix(".")
        if isinstance(value, Message):
            yield from walk(value, name)
        elif field.type == field.TYPE_MESSAGE:
            for number, child in enumerate(value):
                yield from walk(child, f"{name}[{number}]")


def _bounded(model: onnx.ModelProto) -> Iterator[tuple[str, Message]]:
    """`walk`, as far as a model of ours can go."""
    for number, (place, message) in enumerate(walk(model)):
        if number >= MOST_MESSAGES or place.count(".") >= DEEPEST:
            raise IntegrityError(
                "larger, or deeper, than any exported model",
                where=MODEL,
                expected=f"at most {MOST_MESSAGES} messages, {DEEPEST} levels deep",
                hint=AGAIN,
            )
        yield place, message


def _check(place: str, message: Message, functions: set[str]) -> None:
    """What may stand nowhere in a file."""
    where = f"{MODEL}, {place or 'model'}"
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise IntegrityError(
            "a field that the format does not have", where=where, found=f"number {unknown[0].field_number}", hint=AGAIN
        )
    for field, value in message.ListFields():
        texts = value if field.type == field.TYPE_STRING and not isinstance(value, str | bytes) else [value]
        if field.type == field.TYPE_STRING and any(isinstance(text, bytes) for text in texts):
            raise IntegrityError(f"the text in {field.name} is not UTF-8", where=where, hint=AGAIN)
    match message:
        case onnx.SparseTensorProto():
            raise IntegrityError(
                "a sparse tensor, which readers do not check as they do others", where=where, hint=AGAIN
            )
        case onnx.TensorProto() if message.external_data or message.data_location != onnx.TensorProto.DEFAULT:
            if not re.fullmatch(INITIALIZER, place):
                raise IntegrityError("only initializers of the graph may lie in other files", where=where, hint=AGAIN)
        case onnx.NodeProto():
            known = message.domain in OPSETS and message.op_type not in READS_FILES
            if not known or (message.domain == DOMAIN and message.op_type not in functions):
                raise IntegrityError(
                    f"operator {message.op_type[:80]!r} of domain {message.domain[:80]!r} is none of an exported model",
                    where=where,
                    expected=f"those of ONNX and com.microsoft, and functions of domain {DOMAIN} in the same file",
                    hint=AGAIN,
                )
        case onnx.FunctionProto() if message.domain != DOMAIN:
            raise IntegrityError(
                "a function of another domain", where=where, expected=DOMAIN, found=message.domain[:80]
            )
        case onnx.OperatorSetIdProto() if message.domain not in OPSETS:
            raise IntegrityError("operators of a foreign domain", where=where, found=message.domain[:80], hint=AGAIN)


def _check_external(place: str, tensor: onnx.TensorProto, folder: Path, sizes: dict[str, int]) -> None:
    """The tensor's bytes are a range of a file of the folder, and as many as its dims say; `sizes` of the files known
    so far."""
    where = f"{MODEL}, {place} {tensor.name[:80]!r}"
    said = {entry.key: entry.value for entry in tensor.external_data}
    if (
        tensor.data_location != onnx.TensorProto.EXTERNAL
        or len(said) != len(tensor.external_data)
        or said.keys() != {"location", "offset", "length"}
        or not all(re.fullmatch("[0-9]{1,18}", said[key]) for key in ("offset", "length"))
    ):
        raise IntegrityError(
            "an impossible place for a tensor", where=where, expected="location, offset and length",
            found=str(said)[:200], hint=AGAIN,
        )  # fmt: skip
    name = said["location"]
    try:
        if name not in sizes:
            sizes[name] = own_file(folder, name).stat().st_size
    except InputError as error:
        raise IntegrityError(
            f"external data: {error.what}", where=where, expected=error.expected, found=error.found or error.where,
            hint=error.hint or AGAIN,
        ) from None  # fmt: skip
    offset, length = int(said["offset"]), int(said["length"])
    if offset + length > sizes[name]:
        raise IntegrityError(
            f"the file {name} is shorter than the tensor's place in it",
            where=where,
            expected=f"{offset + length} bytes or more",
            found=sizes[name],
            hint=AGAIN,
        )
    dims = list(tensor.dims)
    wanted = math.prod(dims) * ITEM_SIZES.get(tensor.data_type, 0)
    if length != wanted or min(dims, default=0) < 0 or tensor.raw_data:
        raise IntegrityError(
            "the tensor's place has another length than its dims and dtype say",
            where=where,
            expected=f"{wanted} bytes of {dims}"[:200],
            found=length,
            hint=AGAIN,
        )
