"""How well speeds are foretold: rates are fitted to one model, and judged by another one's measurements.

    python benchmarks/prediction.py measure OUT --model 0.3B --backend onnx
    python benchmarks/prediction.py predict OUT --of 21B-A3B --by 0.3B
    python benchmarks/prediction.py measure OUT --model 21B-A3B --backend onnx
    python benchmarks/prediction.py judge OUT --of 21B-A3B

`measure` lets a backend run a model in several ways of holding weights, whole and as a slice of its first layers, in
turns, and keeps every measurement with the bandwidth that memory had. `predict` fits `Rates` to what is there of the
models named by `--by`, prints them, and writes down what they foretell of each configuration of another model: it
refuses where that model was measured already. `judge` holds the two together, at the bandwidth of each measurement.

The time of a token is what is read of weights and cache, over bandwidth and a share of it for each way of holding them,
and an overhead for a step and for each composite of the graph. That of a prompt is its FLOPs over a rate of each way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ernie_rt.files import write_atomic
from ernie_rt.graph.cost import Bindings, composites, flops, graph_cost, weights_read
from ernie_rt.graph.graph import Graph
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.planning.measuring import product_flops
from ernie_rt.weights.quantize import Quantization
from ernie_rt_bench.contenders import Given, ours
from ernie_rt_bench.models import find_model
from ernie_rt_bench.rounds import measure
from ernie_rt_bench.workload import Measurement, Workload

Held = str
"""How weights are held: "int4", "int8", or a dtype."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A model, or its first `layers`, on a backend that computes in `dtype`, perhaps quantised."""

    model: str
    layers: int | None
    backend: str
    dtype: Literal["float32", "bfloat16"]
    weights: Literal["int4", "int8"] | None

    def __str__(self) -> str:
        part = "" if self.layers is None else f", {self.layers} layers"
        return f"{self.model}{part}, {self.backend} {self.weights or self.dtype}"

    @property
    def graph(self) -> Graph:
        config = replace(find_model(self.model, self.layers).config)
        if self.weights is None:
            return build_graph(config, self.dtype)
        how = Quantization(4 if self.weights == "int4" else 8, layout="tiled")
        return build_graph(config, self.dtype, {weight.name: weight.storage for weight in how.weights(config)})


def configurations(model: str, backend: str) -> list[Configuration]:
    """What is measured: whole models where they fit 24 GB of memory, beside slices that tell layers from the rest."""
    slices: dict[tuple[str, str], list[int | None]] = {
        ("0.3B", "int4"): [None, 4], ("0.3B", "int8"): [None, 4], ("0.3B", ""): [None, 4],
        ("21B-A3B", "int4"): [None, 4], ("21B-A3B", "int8"): [4], ("21B-A3B", ""): [4, 2],
    }  # fmt: skip
    if backend == "eager":
        return [Configuration(model, layers, backend, "bfloat16", None) for layers in slices[model, ""]]
    ways: tuple[Literal["int4", "int8"], ...] = ("int4", "int8")
    return [Configuration(model, layers, backend, "float32", way) for way in ways for layers in slices[model, way]]


@dataclass(frozen=True, slots=True)
class Quantities:
    """What a step has to do: bytes of weights by how they are held, bytes of the cache, FLOPs, composites."""

    weights: Mapping[Held, int]
    cache: int
    flops: int
    composites: int


def quantities(graph: Graph, sizes: Bindings) -> Quantities:
    weights: dict[Held, int] = {}
    for node in graph.nodes:
        for weight, nbytes in weights_read(node, sizes):
            bits = getattr(weight.storage, "bits", None)
            held = weight.type.dtype if bits is None else f"int{bits}"
            weights[held] = weights.get(held, 0) + nbytes
    return Quantities(
        weights,
        graph_cost(graph, sizes).cache_bytes,
        sum(flops(node, sizes) for node in graph.nodes),
        sum(len(composites(node)) for node in graph.nodes),
    )


@dataclass(frozen=True, slots=True)
class Fitted:
    """Of one backend: shares of bandwidth by how weights are held and of the cache, overheads, and FLOPs a second of
    prompts, as a share of the peak that NumPy's products in float32 have."""

    shares: Mapping[Held, float]
    cache: float
    step_seconds: float
    node_seconds: float
    flops: Mapping[Held, float]

    def token(self, graph: Graph, context: int, bandwidth: float) -> float:
        """Seconds."""
        found = quantities(graph, {"N": 1, "C": context, "L": 1})
        read = sum(nbytes / self._share(held) for held, nbytes in found.weights.items()) + found.cache / self.cache
        return read / bandwidth + self.step_seconds + found.composites * self.node_seconds

    def prompt(self, graph: Graph, context: int, held: Held, peak: float) -> float:
        found = quantities(graph, {"N": context, "C": context, "L": 1})
        return found.flops / (peak * self.flops[held])

    def _share(self, held: Held) -> float:
        return self.shares.get(held, min(self.shares.values()))  # norms and routers are a thousandth of what is read


@dataclass(frozen=True, slots=True)
class Observed:
    """A configuration with its measurements, and the peak of NumPy's products around them."""

    configuration: Configuration
    measurements: Sequence[Measurement]
    peak: float

    @property
    def held(self) -> Held:
        return self.configuration.weights or self.configuration.dtype


def fit(observed: Sequence[Observed]) -> Fitted:
    """Least squares of relative errors, in which no part takes less time than nothing, or than memory allows."""
    rows: list[dict[str, float]] = []
    seconds: list[float] = []
    prompts: dict[Held, list[float]] = {}
    for each in observed:
        graph = each.configuration.graph
        for m in each.measurements:
            if m.kind == "prefill":
                found = quantities(graph, {"N": m.context, "C": m.context, "L": 1})
                prompts.setdefault(each.held, []).append(found.flops / m.seconds / each.peak)
                continue
            found = quantities(graph, {"N": 1, "C": m.context + m.tokens // 2, "L": 1})
            main = {held: nbytes for held, nbytes in found.weights.items() if held in ("int4", "int8", each.held)}
            row = {held: nbytes / m.bandwidth for held, nbytes in main.items()}
            rows.append(row | {"cache": found.cache / m.bandwidth, "step": 1.0, "node": float(found.composites)})
            seconds.append(m.seconds / m.tokens)
    names = sorted({name for row in rows for name in row})
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    scale, floor = np.array(seconds), np.array([0.0 if name in ("step", "node") else 1.0 for name in names])
    slack = non_negative(matrix / scale[:, None], (scale - matrix @ floor) / scale)
    costs = dict(zip(names, (slack + floor).tolist(), strict=True))
    step, node, cache = (costs.pop(name) for name in ("step", "node", "cache"))
    shares = {held: 1 / cost for held, cost in costs.items()}
    return Fitted(shares, 1 / cache, step, node, {held: statistics.median(each) for held, each in prompts.items()})


def non_negative(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Least squares without negative coefficients: the worst of them is nothing until there is none."""
    free = list(range(matrix.shape[1]))
    while True:
        found = np.zeros(matrix.shape[1])
        found[free] = np.linalg.lstsq(matrix[:, free], wanted, rcond=None)[0]
        if not free or found.min() >= 0:
            return found
        free.remove(int(found.argmin()))


def observe(model: str, backend: str, work: Path, contexts: Sequence[int], new: int, rounds: int) -> list[Observed]:
    """All configurations of a model on a backend, in turns."""
    wanted = configurations(model, backend)
    workload = Workload(tuple(contexts), new, rounds, 2)
    contenders = []
    for each in wanted:
        options: dict[str, Any] = {"device": "cpu", "dtype": each.dtype, "threads": workload.threads}
        contenders += ours([backend], Given(model, each.layers, each.weights, work, options), workload)
    before = product_flops()
    results = measure(contenders, workload, lambda what: print(what, file=sys.stderr))
    peak = (before + product_flops()) / 2
    return [Observed(each, result.measurements, peak) for each, result in zip(wanted, results, strict=True)]


def kept(out: Path, model: str) -> Iterator[Observed]:
    """What was measured of a model."""
    for path in sorted(out.glob(f"measured-{model}-*.json")):
        for told in json.loads(path.read_text("utf-8")):
            measurements = [Measurement(**each) for each in told["measurements"]]
            yield Observed(Configuration(**told["configuration"]), measurements, told["peak"])


def predict(out: Path, of: str, by: Iterable[str]) -> None:
    path = out / f"predicted-{of}.json"
    if any(out.glob(f"measured-{of}-*.json")):
        raise SystemExit(f"{of} was measured already; what is foretold is written down before that")
    known = [each for model in by for each in kept(out, model)]
    told = []
    for backend in sorted({each.configuration.backend for each in known}):
        found = fit([each for each in known if each.configuration.backend == backend])
        print(f"{backend}: {json.dumps(asdict(found))}")
        told += [
            {"configuration": asdict(each), "rates": asdict(found)} for each in configurations(of, backend)
        ]
        for each in configurations(of, backend):
            at = ", ".join(f"{1 / found.token(each.graph, 512, gbps * 1e9):.1f} at {gbps} GB/s" for gbps in (30, 55))
            print(f"  {each}: tokens/s after 512: {at}")
    _write(path, told)


def judge(out: Path, of: str) -> bool:
    """Whether each decode was foretold within a quarter."""
    right = True
    measured = {str(each.configuration): each for each in kept(out, of)}
    print(f"{'':40}{'foretold':>12}{'measured':>12}{'error':>10}")
    for told in json.loads((out / f"predicted-{of}.json").read_text("utf-8")):
        each = measured.get(str(Configuration(**told["configuration"])))
        if each is None:
            continue
        found, graph = Fitted(**told["rates"]), each.configuration.graph
        for kind in ("prefill", "decode"):
            for context in sorted({m.context for m in each.measurements}):
                ms = [m for m in each.measurements if (m.kind, m.context) == (kind, context)]
                if kind == "decode":
                    said = [1 / found.token(graph, context + m.tokens // 2, m.bandwidth) for m in ms]
                else:
                    said = [context / found.prompt(graph, context, each.held, each.peak) for _ in ms]
                error = statistics.median(a / m.speed - 1 for a, m in zip(said, ms, strict=True))
                right = right and (kind == "prefill" or abs(error) <= 0.25)
                name = f"{each.configuration}, {kind} {context}"
                speed = statistics.median(m.speed for m in ms)
                print(f"{name:40}{statistics.median(said):12.1f}{speed:12.1f}{error:+10.0%}")
    return right


def _write(path: Path, told: object) -> None:
    with write_atomic(path) as file:
        file.write(json.dumps(told, indent=1).encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("measure", "predict", "judge"))
    parser.add_argument("out", type=Path, help="a folder for measurements and predictions")
    parser.add_argument("--model", choices=("0.3B", "21B-A3B"), default="0.3B")
    parser.add_argument("--backend", choices=("onnx", "eager"), default="onnx")
    parser.add_argument("--of", choices=("0.3B", "21B-A3B"), default="21B-A3B")
    parser.add_argument("--by", action="append", help="a model; may be given again")
    parser.add_argument("--contexts", type=int, nargs="+", default=[256])
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where random weights are written, and kept")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.do == "judge":
        return 0 if judge(given.out, given.of) else 1
    if given.do == "predict":
        predict(given.out, given.of, given.by or ["0.3B"])
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        found = observe(
            given.model, given.backend, given.work or Path(scratch), given.contexts, given.new, given.rounds
        )
    _write(given.out / f"measured-{given.model}-{given.backend}.json", [asdict(each) for each in found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
