"""Compare the numbers of an exported folder in a child process, which ends when it takes too much time or memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ernie_rt import files
from ernie_rt.contract import DType, Target
from ernie_rt.discovery.child import call
from ernie_rt.errors import BackendError, ErnieRtError, InputError, PluginError
from ernie_rt.location import Located
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.manifest import read_manifest
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt_onnx.backend import OnnxBackend
from ernie_rt_onnx.numbers import compare
from ernie_rt_onnx.portable import build
from ernie_rt_onnx.runtime import check_runtime
from ernie_rt_onnx.static import read_model

SECONDS: Final = 120.0
SECONDS_A_BYTE: Final = 5e-7
"""A slow core, memory that is swapped, and float64 for each number of some bits."""
MEMORY: Final = 4 << 30
MEMORY_A_BYTE: Final = 40
"""Of the largest file, a layer: int4 codes as float64 take 16 times as much, twice, and as float32 8 times, once or
twice. ONNX Runtime packs all weights once more."""


def compare_apart(folder: Path, manifest_name: str, dtype: DType, minimum: str) -> dict[str, float]:
    """What `compare` finds of a folder whose graph is known to be ours; BackendError when it takes too much."""
    check_runtime(minimum)
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    seconds = SECONDS + SECONDS_A_BYTE * sum(sizes)
    memory = MEMORY + MEMORY_A_BYTE * max(sizes) + 4 * sum(sizes)
    try:
        told, _ = call(
            "ernie_rt_onnx.apart:serve", str(folder.resolve()), manifest_name, dtype, str(memory),
            seconds=seconds, doing="comparing the numbers",
        )  # fmt: skip
    except PluginError as error:
        raise BackendError(
            "the numbers could not be compared",
            where=str(folder),
            expected=f"at most {seconds:.0f} s and {memory / 1e9:.1f} GB",
            found=error.what,
        ) from error
    if "figures" in told:
        return dict(told["figures"])
    kind = InputError if told.pop("input") else BackendError
    raise kind(told.pop("what"), **told)


def serve(folder: str, manifest_name: str, dtype: DType, memory: str) -> Mapping[str, Any]:
    """The child's part: the figures, or the error in its parts."""
    _limit(int(memory))
    try:
        return {"figures": _compare(Path(folder), manifest_name, dtype)}
    except MemoryError:
        return _told(BackendError("the numbers could not be compared: they take too much memory", where=folder))
    except ErnieRtError as error:
        return _told(error)


def _compare(folder: Path, manifest_name: str, dtype: DType) -> dict[str, float]:
    model, _ = read_model(folder)
    manifest = read_manifest(files.member(folder, manifest_name))
    located = Located(read_config(folder), folder).text_alone
    source = QuantizedSource(folder, located.config, manifest, reread=True)
    try:
        graph = build(located, dtype, manifest, folder).graph
        rounds = OnnxBackend().numerics(Target(("cpu",), dtype))
        known = located.known_ids or located.config.vocab_size
        return compare(model, folder, graph, source, rounds, dtype, known)
    finally:
        source.close()


def _limit(memory: int) -> None:
    """Bound what this process may take for itself, where the system can: mapped files do not count."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _told(error: ErnieRtError) -> dict[str, Any]:
    parts = {"where": error.where, "expected": error.expected, "found": error.found, "hint": error.hint}
    return {"what": error.what, "input": isinstance(error, InputError), **parts}
