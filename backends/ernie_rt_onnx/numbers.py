"""Compare an exported model, run by stock ONNX Runtime, with the float64 reference, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort

from ernie_rt.conformance.metrics import OP_LIMIT
from ernie_rt.conformance.replay import replay
from ernie_rt.conformance.rounding import EPSILON, multiples
from ernie_rt.contract import DType, Graph, Numerics, Step, Value, WeightSource
from ernie_rt.errors import BackendError
from ernie_rt_onnx.genai import ATTENTION_MASK, INPUT_IDS, LOGITS
from ernie_rt_onnx.model import tensor

TOKENS: Final = 24
"""Of the prompt: random ids, so that experts differ from token to token."""
LAYER_ENDS: Final = ("embed", ".residual")


def compare(
    model: onnx.ModelProto,
    folder: Path,
    graph: Graph,
    source: WeightSource,
    numerics: Numerics,
    dtype: DType,
    vocab_size: int,
) -> dict[str, float]:
    """How far each layer's values and the last logits are from the oracle's: rms, over the rms of the oracle's.

    `graph` is the one that the model says, `folder` has its external data, and `source` its weights.
    Raises BackendError where a layer, or what makes logits of the last one, adds more than rounding explains. Each is
    given what the one before it has found, so that the whole can be off by no more than they add up to, and by experts
    that rounding chose.
    """
    ids = np.random.default_rng(0).integers(0, vocab_size, TOKENS, dtype=np.int32)
    taps = {
        node.outputs[-1].name: (node.scope, node.outputs[-1]) for node in graph.nodes if node.scope.endswith(LAYER_ENDS)
    }
    logits, values = _run(model, folder, ids, dtype, [value for _, value in taps.values()])
    found = {name: (taps[name][0], array) for name, array in values.items()}
    done = replay(graph, found, source, numerics.of, dtype, Step.whole([ids.tolist()]))
    wrong = next((piece for piece in done.pieces if piece.wrong), None)
    if wrong is not None:
        raise BackendError("the exported model does not compute what it should", where=wrong.scope, found=wrong.finding)
    exact, rounded = (lane[:vocab_size] for lane in done.from_last_tap)
    own = float(multiples(logits[None, :vocab_size], exact[None], rounded[None], EPSILON["float32"])[0])
    if not own <= OP_LIMIT:
        raise BackendError(
            "the exported model does not compute what it should",
            where=LOGITS,
            expected=f"at most {OP_LIMIT:g} times the noise of rounding, from the last layer on",
            found=f"{own:.3g} times",
        )
    drifts = {piece.scope: piece.drift for piece in done.pieces if piece.drift is not None}
    return drifts | {"logits": _distance(logits[:vocab_size], done.logits[:vocab_size])}


def _distance(logits: np.ndarray, oracle: np.ndarray) -> float:
    error, scale = (float(np.sqrt(np.mean(np.square(x)))) for x in (logits - oracle, oracle))
    if not np.isfinite(error):
        raise BackendError("the exported model gives NaN or infinite logits")
    return error / scale


def _run(
    model: onnx.ModelProto, folder: Path, ids: np.ndarray, dtype: DType, taps: list[Value]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The last token's logits `[V]` and the values asked for `[N, ..]`, of a prompt without a past."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    tapped.graph.output.extend(tensor(value.name, value.type) for value in taps)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = ort.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {INPUT_IDS: ids[None].astype(np.int64), ATTENTION_MASK: np.ones((1, len(ids)), np.int64)}
    for given in session.get_inputs():
        if given.name not in feeds:
            _, heads, _, size = given.shape
            feeds[given.name] = np.zeros((1, heads, 0, size), dtype)
    names = [value.name for value in taps]
    logits, *values = session.run([LOGITS, *names], feeds)
    return logits[0, 0].astype(np.float64), dict(zip(names, values, strict=True))
