"""Export a model to ONNX: a folder that stock ONNX Runtime, onnxruntime-genai and ernie-rt run.

The graph is built from the lowering. Its weights are the folder's own safetensors files, which it points into; a file
of its own holds the tables of rope alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from ernie_rt import files
from ernie_rt.backend import Target
from ernie_rt.errors import BackendError, OptionError, TokenizerError
from ernie_rt.export import Exported, ExportOptions, Progress
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.legalize import legalize
from ernie_rt.graph.types import Blocks, DType, Plain, RopeTable, Weight
from ernie_rt.location import Located
from ernie_rt.model.config import ModelConfig
from ernie_rt.model.ernie45 import build_graph
from ernie_rt.weights.folder import Produce, write_quantized
from ernie_rt.weights.manifest import ALIGNMENT, Manifest, Shard, padding
from ernie_rt.weights.quantize import Converter, Quantizer
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.safetensors import SafetensorsFile
from ernie_rt.weights.source import CheckpointSource, fill_rope
from ernie_rt_onnx.backend import ACCURACY_LEVEL, OnnxBackend
from ernie_rt_onnx.emitter import Emitter
from ernie_rt_onnx.genai import write_genai_files
from ernie_rt_onnx.model import place, portable_model
from ernie_rt_onnx.verify import verify
from ernie_rt_onnx.weights import NUMPY

MODEL: Final = "model.onnx"
TABLES: Final = "model.onnx.data"
CARD: Final = "ernie_rt.card"
"""The key of the model's metadata under which a JSON object says what it was made of."""
MINIMUM_RUNTIME: Final = "1.31"
"""The ONNX Runtime with which the operators were seen to mean what is meant here."""

DTYPES: Final[tuple[DType, ...]] = ("float32", "float16", "bfloat16")


def export(located: Located, out: Path, options: ExportOptions, progress: Progress | None = None) -> Exported:
    """Write the folder: weights, graph, tokenizer files and genai_config.json. See `ernie_rt.export.Exporter`."""
    dtype = options.dtype or "float32"
    if dtype not in DTYPES:
        raise OptionError(f"no ONNX graph computes in {dtype}", expected=f"one of {', '.join(DTYPES)}")
    source = located.weights()
    try:
        plan, weights, produce = _weights(source, located.config, dtype, options)
        rest = _Rest(located, dtype, weights, options.verify)
        manifest = write_quantized(out, located.folder, weights, plan, produce, progress, rest.write)
    finally:
        source.close()
    sizes = {entry.name: entry.stat().st_size for entry in sorted(out.iterdir())}
    return Exported(sizes, rest.figures | _errors(manifest), rest.notes)


def _weights(
    source: CheckpointSource | QuantizedSource, config: ModelConfig, dtype: DType, options: ExportOptions
) -> tuple[dict[str, object], list[Weight], Produce]:
    """What the folder's manifest says it was made of, its weights with their storages, and what writes them."""
    plain = [weight for weight in build_graph(config, dtype).weights if not isinstance(weight.storage, RopeTable)]
    plain = [replace(weight, storage=Plain(weight.type.dtype)) for weight in plain]
    added: dict[str, object] = {"format": "onnx", "dtype": dtype, "version": version("ernie-rt")}
    if isinstance(source, QuantizedSource):
        if options.weights is not None:
            raise OptionError("the model is quantised already", hint="Leave --weights out, or export its checkpoint")
        stored = source.storages
        weights = [
            replace(weight, storage=replace(storage, layout="raw"))
            if isinstance(storage := stored[weight.name], Blocks)
            else weight
            for weight in plain
        ]
        return {**source.manifest.plan, **added, "layout": "raw"}, weights, Converter(source)
    if options.weights is None:
        made = {"source": source.fingerprint(), "weights": dtype, "layout": "raw"}
        return {**made, **added}, plain, Quantizer(source, search=False, threads=options.threads)
    how = options.weights
    if how.layout != "raw":
        raise OptionError("ONNX Runtime reads the layout raw alone", found=how.layout)
    storages = {weight.name: weight.storage for weight in how.weights(config)}
    weights = [
        replace(weight, storage=storage) if isinstance(storage := storages[weight.name], Blocks) else weight
        for weight in plain
    ]
    produce = Quantizer(source, how.clip_search, options.threads)
    return {**how.plan(source.fingerprint()), **added}, weights, produce


class _Rest:
    """What belongs into a folder beside its weights: the graph, and what its runtimes need."""

    def __init__(self, located: Located, dtype: DType, weights: list[Weight], verify: bool) -> None:
        self._located = located
        self._dtype = dtype
        self._weights = weights
        self._verify = verify
        self.figures: dict[str, float] = {}
        self.notes: tuple[str, ...] = ()

    def write(self, folder: Path, manifest: Manifest) -> None:
        """Add it; BackendError when the model is not valid or, where that is wanted, does not verify."""
        config = self._located.config
        known = self._located.known_ids or config.vocab_size
        graph = portable_graph(config, self._dtype, self._weights)
        bindings = {"P": config.max_position_embeddings}
        model, emitter = portable_model(graph, self._dtype, bindings, ACCURACY_LEVEL, known)
        _place_constants(model, emitter, folder, manifest.shards)
        model.metadata_props.add(key=CARD, value=json.dumps(_card(manifest)))
        with files.write_atomic(folder / MODEL) as file:
            file.write(model.SerializeToString())
        try:
            onnx.checker.check_model(str(folder / MODEL))
        except onnx.checker.ValidationError as error:
            raise BackendError("the exported model is not valid", where=MODEL, found=str(error)[:400]) from error
        self.notes = self._write_genai_files(folder)
        if self._verify:
            numerics = OnnxBackend().numerics(Target(("cpu",), self._dtype))
            source = QuantizedSource(folder, config, manifest)
            try:
                self.figures = verify(folder / MODEL, graph, source, numerics, self._dtype, known)
            finally:
                source.close()

    def _write_genai_files(self, folder: Path) -> tuple[str, ...]:
        """As far as there is a tokenizer; what onnxruntime-genai will lack, in words."""
        try:
            left_out = write_genai_files(self._located, folder, MODEL)
        except TokenizerError as error:
            return (f"onnxruntime-genai cannot run it without a tokenizer: {error}",)
        return tuple(f"onnxruntime-genai has no {name}, which generation_config.json asks for" for name in left_out)


def _card(manifest: Manifest) -> dict[str, object]:
    return {
        "format": 1,
        "weights": {name: shard.sha256 for name, shard in manifest.shards.items()},
        "minimum_onnxruntime": MINIMUM_RUNTIME,
        "accuracy_level": ACCURACY_LEVEL,
        "errors": manifest.errors,
    }


def portable_graph(config: ModelConfig, dtype: DType, weights: list[Weight]) -> Graph:
    """The lowered graph of weights with their storages."""
    backend, target = OnnxBackend(), Target(("cpu",), dtype)
    whole = build_graph(config, dtype, {weight.name: weight.storage for weight in weights})
    return legalize(whole, lambda node: backend.claims(node, target)).graph


def _place_constants(model: onnx.ModelProto, emitter: Emitter, folder: Path, shards: Mapping[str, Shard]) -> None:
    """Point each constant to its bytes, and write those that no file of weights has."""
    found: dict[str, tuple[str, int, int]] = {}
    for name in shards:
        file = SafetensorsFile(folder / name)
        found |= {key: (name, tensor.offset, tensor.nbytes) for key, tensor in file.tensors.items()}
        file.close()
    end = 0
    with files.write_atomic(folder / TABLES) as data:
        for constant in model.graph.initializer:
            if constant.data_location != onnx.TensorProto.EXTERNAL:
                continue
            parameter = emitter.parameters[constant.name]
            weight = parameter.weight
            if not isinstance(weight.storage, RopeTable):
                place(constant, *found[f"{weight.name}.{parameter.part}"])
                continue
            table = np.empty(parameter.dims, NUMPY[parameter.dtype])
            fill_rope(weight, weight.storage, table, ())
            place(constant, TABLES, end, table.nbytes)
            data.write(table.tobytes())
            data.write(bytes(padding(table.nbytes)))
            end += table.nbytes + padding(table.nbytes)
    assert end % ALIGNMENT == 0


def _errors(manifest: Manifest) -> dict[str, float]:
    errors = manifest.errors.values()
    return {"weights": float(np.sqrt(np.mean(np.square(list(errors)))))} if errors else {}
