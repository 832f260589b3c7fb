"""Export a model to ONNX: a folder that stock ONNX Runtime, onnxruntime-genai and ernie-rt run.

The graph is built from the lowering. Its weights are the folder's own safetensors files, which it points into; a file
of its own holds the tables of rope alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from ernie_rt import writing
from ernie_rt.contract import DType, Plain, Storage, Weight
from ernie_rt.errors import BackendError, OptionError
from ernie_rt.export import Exported, ExportOptions
from ernie_rt.files import Progress
from ernie_rt.location import TEXT_ALONE, Located
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.weights.folder import LESS, PROGRESS, Addition, Produce, write_quantized
from ernie_rt.weights.integrity import digest_of
from ernie_rt.weights.manifest import MANIFEST, Manifest, padding
from ernie_rt.weights.quantize import Converter, Quantizer
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.source import StoredSource
from ernie_rt_onnx.beside import GENAI, README, readme, write_beside
from ernie_rt_onnx.portable import DTYPES, MODEL, TABLES, build, seal
from ernie_rt_onnx.runtime import check_runtime
from ernie_rt_onnx.static import read_model
from ernie_rt_onnx.verify import check_runnable, verify_with


def export(located: Located, out: Path, options: ExportOptions, progress: Progress | None = None) -> Exported:
    """Write the folder: weights, graph, tokenizer files and genai_config.json. See `ernie_rt.export.Exporter`.

    Of a vision-language model it is the text alone, as of ERNIE's no other runtime knows more.
    """
    notes = () if located.config.sees is None else (TEXT_ALONE,)
    located = located.text_alone
    dtype = options.dtype or "float32"
    if dtype not in DTYPES:
        raise OptionError(f"no ONNX graph computes in {dtype}", expected=f"one of {', '.join(DTYPES)}")
    check_runtime()
    if options.verify:
        check_runnable(dtype)
    source = located.weights(reread=True)
    try:
        plan, weights, produce = _weights(source, located.config, dtype, options, progress)
        rest = _Rest(located, dtype, options.verify)
        manifest = write_quantized(out, located.folder, weights, plan, produce, progress, added=rest.addition)
    finally:
        source.close()
    sizes = {entry.name: entry.stat().st_size for entry in sorted(out.iterdir())}
    return Exported(sizes, rest.digests, rest.figures | _errors(manifest), (*notes, *source.notes, *rest.notes))


def _weights(
    source: StoredSource, config: ModelConfig, dtype: DType, options: ExportOptions, hashing: Progress | None
) -> tuple[dict[str, object], list[Weight], Produce]:
    """What the folder's manifest says it was made of, its weights with their storages, and what writes them."""
    plain = [weight for weight in build_graph(config, dtype, source.storages).weights if weight.storage.stored]
    plain = [replace(weight, storage=Plain(weight.type.dtype)) for weight in plain]
    added: dict[str, object] = {"format": "onnx", "dtype": dtype}
    if isinstance(source, QuantizedSource):
        if options.weights is not None:
            raise OptionError("the model is quantised already", hint="Leave --weights out, or export its checkpoint")
        weights = _packed(plain, source.storages)
        return {**source.manifest.plan, **added, "layout": "raw"}, weights, Converter(source)
    if options.weights is None:
        made = {"source": source.fingerprint(hashing), "weights": dtype, "layout": "raw"}
        return {**made, **added}, plain, Quantizer(source, search=False, threads=options.threads)
    how = options.weights
    if how.layout != "raw":
        raise OptionError("ONNX Runtime reads the layout raw alone", found=how.layout)
    storages = {weight.name: weight.storage for weight in how.weights(config, source.storages)}
    weights = _packed(plain, storages)
    produce = Quantizer(source, how.clip_search, options.threads)
    return {**how.plan(source.fingerprint(hashing)), **added}, weights, produce


def _packed(plain: Iterable[Weight], storages: Mapping[str, Storage]) -> list[Weight]:
    """Weights stored so where that packs them, in the layout that ONNX Runtime reads."""
    stored = [(weight, storages[weight.name]) for weight in plain]
    return [replace(w, storage=storage.laid_out("raw")) if storage.packed else w for w, storage in stored]


class _Rest:
    """What belongs into a folder beside its weights: what its runtimes need, and the graph."""

    def __init__(self, located: Located, dtype: DType, verify: bool) -> None:
        self._located = located
        self._dtype = dtype
        self._verify = verify
        self.digests: dict[str, str] = {}
        self.figures: dict[str, float] = {}
        self.notes: tuple[str, ...] = ()

    @property
    def addition(self) -> Addition:
        return Addition((MODEL, TABLES, README, *GENAI), self.beside, self.seal)

    def beside(self, folder: Path, manifest: Manifest) -> None:
        self.notes = write_beside(self._located, folder)

    def seal(self, folder: Path, manifest: Manifest) -> None:
        """Add the graph; BackendError when the model is not valid, and what verifying raises where that is wanted."""
        portable = build(self._located, self._dtype, manifest, folder)
        writing.check_room(folder, portable.table_bytes, folder, LESS)
        with writing.write_atomic(folder / TABLES) as data:
            for table in portable.tables:
                for piece in table.pieces():
                    data.write(piece.tobytes())
                data.write(bytes(padding(table.nbytes)))
        known = manifest.digests
        digests = known | {MANIFEST: digest_of(folder / PROGRESS), TABLES: digest_of(folder / TABLES)}
        seal(portable.model, manifest, dict(sorted(digests.items())))
        with writing.write_atomic(folder / MODEL) as file:
            file.write(portable.model.SerializeToString(deterministic=True))
        with writing.write_atomic(folder / README) as file:
            file.write(readme(self._dtype).encode())
        try:
            onnx.checker.check_model(str(folder / MODEL))
        except onnx.checker.ValidationError as error:
            raise BackendError("the exported model is not valid", where=MODEL, found=str(error)[:400]) from error
        self.digests = {MODEL: read_model(folder)[1]}
        if self._verify:
            self.figures = dict(verify_with(folder, PROGRESS, numbers=True).figures)


def _errors(manifest: Manifest) -> dict[str, float]:
    errors = manifest.errors.values()
    return {"weights": float(np.sqrt(np.mean(np.square(list(errors)))))} if errors else {}
