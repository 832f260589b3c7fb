"""How well speeds are foretold: rates are fitted to one model, and judged by another one's measurements.

    python benchmarks/prediction.py measure OUT --model 0.3B --backend onnx
    python benchmarks/prediction.py predict OUT --of 21B-A3B --by 0.3B
    python benchmarks/prediction.py measure OUT --model 21B-A3B --backend onnx
    python benchmarks/prediction.py judge OUT --of 21B-A3B

`measure` lets a backend run a model in several ways of holding weights, whole and as a slice of its first layers, in
turns, and keeps every measurement with the bandwidth that memory had. `predict` fits `Rates` to what is there of the
models named by `--by`, prints them, and writes down what they foretell of each configuration of another model: it
refuses where that model was measured already. `judge` holds the two together, at the bandwidth of each measurement.

What is fitted is what ernie_rt/planning/speed.py predicts by: shares of bandwidth for each way of holding weights and
for the cache, overheads of a step and of each composite of the graph, and shares of peak FLOPs for prompts. What was
measured while others kept the processor busy is left out, unless nothing else is there of a configuration.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ernie_rt.cli.output import say
from ernie_rt.contract import Device, Rate, Rates
from ernie_rt.graph.cost import composites, graph_cost, weights_read
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import Plain
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.planning.limits import BATCH_TOKENS
from ernie_rt.planning.machine import this_machine, usable_cores
from ernie_rt.planning.speed import Predictor
from ernie_rt.weights.quantize import Quantization
from ernie_rt.writing import write_atomic
from ernie_rt_bench.contenders import Given, ours
from ernie_rt_bench.models import find_model
from ernie_rt_bench.report import DISTURBED
from ernie_rt_bench.rounds import measure
from ernie_rt_bench.workload import Contender, Measurement, Workload

GBPS: Final = (30.0, 55.0)
WITHIN: Final = 0.25

Held = str
"""How weights are held: "int4", "int8", or a dtype."""
STEP: Final = "step"
NODE: Final = "node"
CACHE: Final = "cache"
MAIN: Final = frozenset({"int4", "int8", CACHE})
"""What is fitted, beside the dtype of plain models: norms and routers of others are a thousandth of what is read."""


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
        config = find_model(self.model, self.layers).config
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
class Observed:
    """A configuration with its measurements, and the peaks that the machine had before them."""

    configuration: Configuration
    measurements: Sequence[Measurement]
    flops: Mapping[str, float]

    @property
    def held(self) -> Held:
        return self.configuration.weights or self.configuration.dtype

    @property
    def products(self) -> str:
        """What is multiplied where prompts are read."""
        return "int8" if self.configuration.weights else self.configuration.dtype


def quantities(graph: Graph, context: int) -> dict[str, float]:
    """What a token after so many has to do: bytes of weights by how they are held, of the cache, and composites."""
    sizes, found = {"N": 1, "C": context, "P": context, "L": 1}, dict[str, float]()
    for node in graph.nodes:
        for weight, nbytes in weights_read(node, sizes):
            held = weight.type.dtype if isinstance(weight.storage, Plain) else str(weight.storage).partition("/")[0]
            found[held] = found.get(held, 0.0) + nbytes
    overhead = {STEP: 1.0, NODE: float(sum(len(composites(node)) for node in graph.nodes))}
    return found | {CACHE: graph_cost(graph, sizes).cache_bytes} | overhead


def fit(observed: Sequence[Observed]) -> Rates:
    """Least squares of relative errors, in which no part takes less time than nothing, or than memory allows."""
    rows: list[dict[str, float]] = []
    seconds: list[float] = []
    prompts: dict[Held, list[float]] = {}
    products: dict[Held, str] = {}
    for each in observed:
        graph, products[each.held] = each.configuration.graph, each.products
        for m in each.measurements:
            if m.kind == "prefill":
                flops = graph_cost(graph, {"N": m.context, "C": m.context, "P": m.context, "L": 1}).flops
                prompts.setdefault(each.held, []).append(flops / m.seconds / each.flops[each.products])
                continue
            found = quantities(graph, m.context + m.tokens // 2)
            overhead = {name: found.pop(name) for name in (STEP, NODE)}
            read = {name: nbytes / m.bandwidth for name, nbytes in found.items() if name in MAIN or name == each.held}
            rows.append(read | overhead)
            seconds.append(m.seconds / m.tokens)
    names = sorted({name for row in rows for name in row})
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    scale, floor = np.array(seconds), np.array([0.0 if name in (STEP, NODE) else 1.0 for name in names])
    slack = non_negative(matrix / scale[:, None], (scale - matrix @ floor) / scale)
    costs = dict(zip(names, (slack + floor).tolist(), strict=True))
    step, node, cache = (costs.pop(name) for name in (STEP, NODE, CACHE))
    rates = {held: Rate(1 / costs[held], statistics.median(shares), products[held]) for held, shares in prompts.items()}
    return Rates(rates, 1 / cache, step, node, "benchmarks/prediction.py")


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
    workload = Workload(tuple(contexts), new, rounds, usable_cores())
    contenders: list[Contender] = []
    for each in wanted:
        options: dict[str, Any] = {"device": "cpu", "dtype": each.dtype, "threads": workload.threads}
        contenders += ours([backend], Given(model, each.layers, each.weights, work, options), workload)
    flops = this_machine().flops
    results = measure(contenders, workload, say)
    return [Observed(each, result.measurements, flops) for each, result in zip(wanted, results, strict=True)]


def kept(out: Path, model: str) -> Iterator[Observed]:
    """What was measured of a model."""
    for path in sorted(out.glob(f"measured-{model}-*.json")):
        for told in json.loads(path.read_text("utf-8")):
            every = [Measurement(**each) for each in told["measurements"]]
            measurements = [each for each in every if (each.others or 0.0) < DISTURBED] or every
            yield Observed(Configuration(**told["configuration"]), measurements, told["flops"])


def predict(out: Path, of: str, by: Iterable[str]) -> None:
    if any(out.glob(f"measured-{of}-*.json")):
        raise SystemExit(f"{of} was measured already; what is foretold is written down before that")
    known, told = [each for model in by for each in kept(out, model)], []
    for backend in sorted({each.configuration.backend for each in known}):
        mine = [each for each in known if each.configuration.backend == backend]
        rates = fit(mine)
        print(f"{backend}: {json.dumps(asdict(rates))}")
        for each in configurations(of, backend):
            told.append({"configuration": asdict(each), "rates": asdict(rates)})
            at = [1 / Predictor(each.graph, _device(mine[0].flops, gbps), rates).step(1, 512) for gbps in GBPS]
            print(f"  {each}: " + ", ".join(f"{x:.1f} tokens/s at {y:.0f} GB/s" for x, y in zip(at, GBPS, strict=True)))
    _write(out / f"predicted-{of}.json", told)


def judge(out: Path, of: str) -> bool:
    """Whether each decode was foretold within a quarter."""
    right = True
    measured = {str(each.configuration): each for each in kept(out, of)}
    print(f"{'':44}{'foretold':>12}{'measured':>12}{'error':>10}")
    for told in json.loads((out / f"predicted-{of}.json").read_text("utf-8")):
        each = measured.get(str(Configuration(**told["configuration"])))
        if each is None:
            continue
        said = told["rates"]
        rates = Rates(**{**said, "weights": {held: Rate(**rate) for held, rate in said["weights"].items()}})
        speeds: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for m in each.measurements:
            predictor = Predictor(each.configuration.graph, _device(each.flops, m.bandwidth / 1e9), rates)
            if m.kind == "prefill":
                speed = predictor.speed(m.context + 1, BATCH_TOKENS, m.context)
                assert speed is not None
                seconds = speed.prefill_seconds / m.context
            else:
                seconds = predictor.step(1, m.context + m.tokens // 2)
            speeds.setdefault((m.kind, m.context), []).append((1 / seconds, m.speed))
        for (kind, context), pairs in speeds.items():
            error = statistics.median(a / b - 1 for a, b in pairs)
            right = right and (kind == "prefill" or abs(error) <= WITHIN)
            foretold, found = (statistics.median(side) for side in zip(*pairs, strict=True))
            print(f"{f'{each.configuration}, {kind} {context}':44}{foretold:12.1f}{found:12.1f}{error:+10.0%}")
    return right


def _device(flops: Mapping[str, float], gbps: float) -> Device:
    return Device("this machine", "cpu", 0, gbps * 1e9, flops, "measured")


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
