"""Export a model: write it in the format of a backend, for use without ernie-rt."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ernie_rt.errors import BackendError, OptionError
from ernie_rt.graph.types import DType
from ernie_rt.host import PluginHost, blame, lack
from ernie_rt.location import Located, locate
from ernie_rt.weights.quantize import Quantization

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and in all."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a model is to be exported.

    `weights` None keeps them as they are, numbers in `dtype`; that is the dtype of activations too, the exporter's own
    choice when None. With `verify` the result is compared with the float64 reference before it is put in place.
    """

    weights: Quantization | None = None
    dtype: DType | None = None
    verify: bool = False
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the files with their sizes, figures by name, and remarks for a person to read."""

    files: Mapping[str, int]
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Exporter(Protocol):
    """What `BackendInfo.exporter` names.

    Writes the new folder `out`, or leaves nothing that is half written at its place.
    """

    def __call__(
        self, located: Located, out: Path, options: ExportOptions, progress: Progress | None = None
    ) -> Exported: ...


def export(
    ref: str | Path | Located,
    out: str | Path,
    backend: str = "onnx",
    options: ExportOptions | None = None,
    *,
    host: PluginHost | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a model into the new folder `out`, in the format of a backend.

    Raises OptionError for a backend that exports nothing, BackendError when it fails, WriteError, and what reading the
    model raises.
    """
    host = host or PluginHost()
    located = ref if isinstance(ref, Located) else locate(ref)
    return exporter(host, backend)(located, Path(out), options or ExportOptions(), progress)


def exporter(host: PluginHost, backend: str) -> Exporter:
    """The exporter of a backend, imported."""
    info = host.info(backend)
    if not info.exporter:
        able = sorted(name for name, known in host.backends.items() if known.exporter)
        raise OptionError(
            f"backend {backend!r} has no format to export to", expected=f"one of {', '.join(able) or 'none'}"
        )
    if (needs := lack(info)) is not None:
        raise BackendError(f"backend {backend!r} cannot export: it {needs}", hint=info.hint or None)
    module, _, attribute = info.exporter.partition(":")
    with blame(backend):
        found: Exporter = getattr(importlib.import_module(module), attribute)
    return found
