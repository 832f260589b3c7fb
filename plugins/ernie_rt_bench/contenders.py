"""Who is measured: backends of ours, and other programs, each of which may be absent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ernie_rt.errors import BackendError, OptionError
from ernie_rt.vision.grid import MERGE
from ernie_rt_bench.peers import Peer
from ernie_rt_bench.peers.llama import LlamaBench, can_repack
from ernie_rt_bench.process import Process
from ernie_rt_bench.workload import Contender, Workload


@dataclass(frozen=True, slots=True)
class Given:
    """What a model is to be measured with: `work` is where random weights are written, `options` those of `load` that
    every backend gets."""

    model: str
    layers: int | None
    weights: str | None
    work: Path
    options: dict[str, Any]
    llama_bench: Path | None = None
    gguf: Sequence[Path] = ()
    exported: Path | None = None


def ours(backends: Sequence[str], given: Given, workload: Workload, prefix: Sequence[str] = ()) -> Iterator[Contender]:
    """A process for each backend."""
    for backend in backends:
        arguments = {
            "model": given.model,
            "layers": given.layers,
            "work": str(given.work),
            "weights": given.weights,
            "contexts": workload.contexts,
            "max_context": workload.longest,
            "max_patches": max(1, workload.picture_tokens * MERGE**2),
            "backend": backend,
            **given.options,
        }
        yield Process(f"ernie-rt {backend}", "ernie-rt", arguments, workload, prefix)


def peers(wanted: Sequence[Peer], given: Given, workload: Workload) -> Iterator[Contender]:
    """The other programs. OptionError or BackendError, saying how to get it, for one that is absent or has no file."""
    threads = given.options["threads"]
    for peer in wanted:
        match peer:
            case Peer.transformers:
                _check_package("transformers", "pip install 'ernie-rt[torch]' 'transformers>=5.23'")
                placing = {name: given.options[name] for name in ("device", "dtype")}
                arguments = {"model": given.model, "layers": given.layers, "contexts": workload.contexts, **placing}
                yield Process(peer, peer, {**arguments, "threads": threads}, workload)
            case Peer.llama:
                yield from _llama(given, workload)
            case Peer.genai:
                _check_package("onnxruntime_genai", "pip install onnxruntime-genai")
                folder = given.exported
                if folder is None or not (folder / "genai_config.json").is_file():
                    raise OptionError(
                        "onnxruntime-genai runs exported folders alone, and none was given",
                        found=None if folder is None else f"{folder}, which has no genai_config.json",
                        hint=f"Write one, `ernie-rt export onnx {given.model} OUT`, and give it as --exported OUT",
                    )
                arguments = {"folder": str(folder), "threads": threads, "max_context": workload.longest}
                yield Process(peer, peer, arguments, workload)


def _llama(given: Given, workload: Workload) -> Iterator[Contender]:
    program = given.llama_bench or shutil.which("llama-bench")
    if program is None or shutil.which(program) is None:
        raise BackendError(
            "llama.cpp is measured by its program llama-bench, which is not there",
            found=None if program is None else f"{program}, which is no program",
            hint="Build llama.cpp (https://github.com/ggml-org/llama.cpp) and give its --llama-bench PATH",
        )
    if not given.gguf:
        raise OptionError(
            "llama.cpp reads GGUF files alone, and none was given",
            hint="Convert the checkpoint by its convert_hf_to_gguf.py and llama-quantize, and give --gguf FILE",
        )
    for file in given.gguf:
        if not file.is_file():
            raise OptionError("no such file", where=str(file), expected="a GGUF file of the model")
        for repack in (True, False) if can_repack(Path(program)) else (None,):
            yield LlamaBench(Path(program), file, workload.threads, repack)


def _check_package(module: str, command: str) -> None:
    if find_spec(module) is None:
        name = module.replace("_", "-")
        raise BackendError(f"{name} is not installed", hint=f"Install it beside ernie-rt: {command}")
