"""Export a model: write it in the format of a backend, for use without ernie-rt. And tell whether a folder that was
exported, or quantised, is what was written."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, Protocol

from ernie_rt import files
from ernie_rt.discovery.requirements import lack
from ernie_rt.errors import BackendError, IntegrityError, OptionError
from ernie_rt.files import Progress
from ernie_rt.graph.types import DType
from ernie_rt.host import PluginHost, blame
from ernie_rt.location import Located, locate
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.folder import BESIDE
from ernie_rt.weights.integrity import check_digests, check_others, digest_of, own_file
from ernie_rt.weights.manifest import MANIFEST, Manifest, check_undamaged, read_manifest
from ernie_rt.weights.quantize import Quantization
from ernie_rt.weights.quantized import QuantizedSource


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
    """What was written: the files with their sizes, figures by name, and remarks for a person to read.

    `digests` is the sha256, by name, of the file that tells this folder from all others.
    """

    files: Mapping[str, int]
    digests: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verified:
    """What was checked: the sha256 of each file by name, figures by name, and remarks for a person to read.

    The first of the `digests` is the one that `Exported` has: it tells this folder from all others. `unchecked` are the
    files of the model that nothing tells about: with any of them, the folder is not known to be what was written.
    """

    digests: Mapping[str, str]
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


class Exporter(Protocol):
    """What `BackendInfo.exporter` names.

    Writes the new folder `out`, or leaves nothing that is half written at its place. Its manifest `ernie_rt.json` says
    in its plan, under "format", the name of the backend.
    """

    def __call__(
        self, located: Located, out: Path, options: ExportOptions, progress: Progress | None = None
    ) -> Exported: ...


class Verifier(Protocol):
    """What `BackendInfo.verifier` names.

    Checks a folder in the backend's format without trusting anything in it; with `numbers` it runs the model as well,
    and compares it with the float64 reference. Raises IntegrityError, or another InputError, and BackendError when the
    model computes something else.
    """

    def __call__(self, folder: Path, numbers: bool = False, progress: Progress | None = None) -> Verified: ...


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
    located = ref if isinstance(ref, Located) else locate(ref)
    exporter: Exporter = _door(host or PluginHost(), backend, "exporter", "has no format to export to")
    with blame(backend):
        return exporter(located, Path(out), options or ExportOptions(), progress)


def verify(
    folder: str | Path, *, numbers: bool = False, host: PluginHost | None = None, progress: Progress | None = None
) -> Verified:
    """Check that an exported folder is what was written and safe to open, or a quantised one; with `numbers`, that an
    exported one computes what it should.

    Raises IntegrityError for a folder that is not, or another InputError for one that cannot be read at all, and
    BackendError when the model computes something else, or cannot be run here.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise IntegrityError(
            f"not a folder that was exported or quantised: no {MANIFEST} in it says what was written",
            where=str(folder),
            hint="`ernie-rt export onnx MODEL OUT` writes one, and `ernie-rt quantize`",
        )
    manifest = read_manifest(files.member(folder, MANIFEST, missing=IntegrityError))
    backend = manifest.plan.get("format")
    if not isinstance(backend, str):
        if numbers:
            raise OptionError(
                "a quantised folder has no graph whose numbers could be compared", hint="Leave --numbers out"
            )
        return _verify_quantized(folder, manifest, progress)
    verifier: Verifier = _door(host or PluginHost(), backend, "verifier", "cannot verify what it exported")
    with blame(backend):
        return verifier(folder, numbers, progress)


def _verify_quantized(folder: Path, manifest: Manifest, progress: Progress | None) -> Verified:
    """Names, shapes, sizes, every digest and every number; and that nothing else lies there."""
    again = "Fetch the folder again, or quantise the model again"
    beside = [path.name for path in sorted(folder.iterdir()) if any(fnmatch(path.name, each) for each in BESIDE)]
    unknown = () if manifest.beside is not None else tuple(beside)
    notes = check_others(folder, {MANIFEST, *manifest.digests, *unknown})
    check_digests(folder, manifest.digests, manifest.sizes, again, progress)
    with closing(QuantizedSource(folder, read_config(folder), manifest, reread=True)) as source:
        source.check_finite()
    check_undamaged(own_file(folder, MANIFEST))
    digests = {MANIFEST: digest_of(own_file(folder, MANIFEST)), **manifest.digests}
    return Verified(digests, notes=notes, unchecked=unknown)


def _door(host: PluginHost, backend: str, field: Literal["exporter", "verifier"], lacking: str) -> Any:
    """The function that a backend announces in this field, imported; OptionError when it announces none."""
    info = host.info(backend)
    name: str = getattr(info, field)
    if not name:
        able = sorted(name for name, known in host.backends.items() if getattr(known, field))
        raise OptionError(f"backend {backend!r} {lacking}", expected=f"one of {', '.join(able) or 'none'}")
    if (needs := lack(info)) is not None:
        raise BackendError(f"backend {backend!r} cannot be used: it {needs}", hint=info.hint or None)
    module, _, attribute = name.partition(":")
    with blame(backend):
        return getattr(importlib.import_module(module), attribute)
