"""temporary"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.sampler import sample
from ernie_rt.sampling.state import SamplerState


@dataclass(frozen=True, eq=False)
class Draws:
    known: Any
    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any
    seed: Any
    position: Any

    @classmethod
    def greedy(cls, count: int, known: int) -> Draws:
        one = np.ones(count)
        return cls(
            np.full(count, known, np.int32),
            np.zeros(count, np.float32),
            np.zeros(count, np.int32),
            one,
            one * 0,
            np.zeros(count, np.uint64),
            np.zeros(count, np.int32),
        )

    def rows(self, which: Any, ahead: Any) -> Draws:
        taken = {f.name: getattr(self, f.name)[which] for f in fields(self)}
        taken["position"] = taken["position"] + ahead
        return Draws(**taken)


def draw(logits: Any, draws: Draws) -> Any:
    out = np.full(len(logits), -1, np.int32)
    for i, row in enumerate(logits):
        if draws.known[i] > 0:
            p = SamplingParams(
                temperature=float(draws.temperature[i]),
                top_k=int(draws.top_k[i]),
                top_p=float(draws.top_p[i]),
                min_p=float(draws.min_p[i]),
                seed=int(draws.seed[i]),
            )
            st = SamplerState(p, (), (), int(draws.known[i]))
            st.position = int(draws.position[i])
            try:
                out[i] = sample(row, st).token
            except Exception:
                pass
    return out
