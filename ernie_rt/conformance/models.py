"""Level 2: whole models, run as an engine runs them, every token's logits kept, and the experts that it was sent to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.cases import CaseWeights, ModelCase, words
from ernie_rt.conformance.pictures import placed
from ernie_rt.conformance.subject import Subject
from ernie_rt.contract.protocols import Executable, Limits
from ernie_rt.graph.legalize import Lowering
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.graphs import build_graphs
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.inputs import POSITIONS, PerToken
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.kept_rows import KeptRows
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.sampling.params import GREEDY, SamplingParams
from ernie_rt.vision.positions import rope_positions
from ernie_rt.weights.source import WeightSource

Array = npt.NDArray[Any]
Prompt = tuple[int, ...]

NEW_TOKENS: Final = 8
PICTURES: Final = ((3, 5, 6), (3, 20, 8), (4, 10, 9))
"""In which prompts of a checkpoint that sees there are placeholders, from which place on, and how many."""
MAX_LOGITS: Final = 1 << 26
"""How many logits of the oracle are kept at a time: half a gigabyte, and a few times that with what is made of them."""


@dataclass(frozen=True, slots=True)
class Specimen:
    """A model to examine: config, prompts, how many tokens to continue each by, and where its weights come from.

    It is compiled for so many `sequences` at once, and steps of so many tokens.
    """

    name: str
    config: ModelConfig
    prompts: tuple[Prompt, ...]
    new_tokens: int
    open: Callable[[], WeightSource]
    needs: tuple[str, ...] = ()
    sequences: int = 4
    batch_tokens: int = 96
    pictures: str = "pictures"
    """What the pictures in its prompts are drawn from."""

    @classmethod
    def of_case(cls, case: ModelCase, full: bool) -> Specimen:
        weights = CaseWeights(case)  # once, so that they are drawn once
        return cls(
            case.name, case.config, case.prompts(full), case.new_tokens, lambda: weights, case.needs, case.sequences,
            case.batch_tokens,
        )  # fmt: skip

    @classmethod
    def of_checkpoint(cls, name: str, config: ModelConfig, open: Callable[[], WeightSource], full: bool) -> Specimen:
        """A checkpoint, on prompts of random ids and pictures, no more of them than whose logits fit into memory."""
        longest = config.max_position_embeddings - NEW_TOKENS
        more = min(64, MAX_LOGITS // (256 * config.vocab_size)) if full else 0
        lengths = [min(n, longest) for n in (1, 2, 17, 40, 33) + (248,) * more]
        vocabulary = np.uint32(config.vocab_size)
        drawn = [words(f"checkpoint/prompt.{i}", n) % vocabulary for i, n in enumerate(lengths)]
        if config.sees is not None:
            for prompt, start, count in PICTURES:
                drawn[prompt][start : start + count] = config.sees.image_token_id
        prompts = tuple(tuple(ids.tolist()) for ids in drawn)
        needs = ("moe",) * (config.moe is not None) + ("biases",) * config.use_bias
        needs += ("vision",) * (config.sees is not None)
        return cls(name, config, prompts, NEW_TOKENS, open, needs)

    @property
    def routers(self) -> tuple[str, ...]:
        """The scopes of its routers; a model that sees has two in a layer."""
        layers = [f"layers.{i}.mlp" for i in range(self.config.num_hidden_layers) if self.config.is_moe_layer(i)]
        pools = ("route", "vision.route") if self.config.sees else ("route",)
        return tuple(f"{layer}.{pool}" for layer in layers for pool in pools)

    def shown(self, ids: Prompt) -> dict[str, Any]:
        """What a request of these ids brings beside them: its pictures, and the positions that they make."""
        if self.config.sees is None:
            return {}
        items = placed(f"{self.name}/{self.pictures}", self.config.sees.image_token_id, ids)
        positions = rope_positions(len(ids), [(start, item.merged) for start, item in items])
        return {
            "items": tuple(PlacedItem(start, item) for start, item in items),
            "inputs": {POSITIONS: PerToken(positions, "count")},
        }


@dataclass(frozen=True, slots=True)
class Told:
    """What the backend said on one prompt: the tokens `[T]` that entered, logits after each `[T, V]` (None when the run
    kept none), those that it chose, and the experts `[T, A]` by scope, where it shows them."""

    ids: Prompt
    logits: Array | None
    generated: tuple[int, ...]
    experts: Mapping[str, Array]

    @property
    def prompt(self) -> Prompt:
        """Those of the tokens that were given."""
        return self.ids[: len(self.ids) - max(len(self.generated) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Run:
    """A model, compiled and run on prompts."""

    lowering: Lowering
    told: tuple[Told, ...]


Drive = Callable[[Engine, Executable, list[Request]], list[SequenceState]]


def drive(engine: Engine, executable: Executable, requests: list[Request]) -> list[SequenceState]:
    """All requests at once, as far as they fit."""
    sequences = [engine.submit(request) for request in requests]
    for _ in engine.run(*sequences):
        pass
    return sequences


def run_model(
    subject: Subject,
    specimen: Specimen,
    *,
    batches: bool,
    taps: bool,
    chunk: int | None = None,
    drive: Drive = drive,
    prompts: Sequence[Prompt] | None = None,
    context: int | None = None,
    all_logits: bool = True,
    reuse: bool = False,
    sampling: SamplingParams = GREEDY,
    wrap: Callable[[Executable], Executable] = lambda executable: executable,
    kept: Callable[[Executable], KeptRows | None] = lambda executable: None,
) -> Run:
    """Compile a model and let it continue prompts, keeping all logits and, with `taps`, the routers' ids.

    `context` is what it is compiled for; None: what the prompts need. With `reuse` sequences that keep nothing find
    their beginnings in rows that others have left, and in those that `kept` has on disk.
    """
    prompts = specimen.prompts if prompts is None else prompts
    new = specimen.new_tokens
    graphs = build_graphs(specimen.config, subject.target.dtype)
    built = subject.build(*graphs.values(), taps=specimen.routers if taps else ())
    limits = Limits(
        context or max(map(len, prompts)) + new,
        min(len(prompts), specimen.sequences) if batches else 1,
        specimen.batch_tokens,
    )
    source = specimen.open()
    with subject.compiled(built, source, limits) as compiled:
        executable = wrap(compiled)
        requests = [
            Request(ids, new, all_logits=all_logits, chunk=chunk, sampling=sampling, taps=taps, **specimen.shown(ids))
            for ids in prompts
        ]
        engine = Engine(  # which encodes whatever is shown anew
            executable, limits.max_context, reuse=reuse, kept=kept(compiled), graphs=built.graphs, feature_bytes=0
        )
        sequences = drive(engine, executable, requests)
        engine.close()
    return Run(built.lowering, tuple(map(_told, sequences)))


def _told(sequence: SequenceState) -> Told:
    logits = np.concatenate(sequence.logits) if sequence.logits else None
    experts = {name: np.concatenate([step[name] for step in sequence.taps]) for name in (sequence.taps or [{}])[0]}
    return Told(tuple(sequence.tokens[: sequence.entered]), logits, tuple(sequence.generated), experts)
