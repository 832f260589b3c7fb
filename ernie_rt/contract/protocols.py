"""What a backend is: the contract between the core and whoever executes graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from ernie_rt.contract.step import Pending, Step
from ernie_rt.graph.graph import Node
from ernie_rt.graph.legalize import Accept, Lowering, Reject
from ernie_rt.graph.types import DType, Storage
from ernie_rt.weights.source import WeightSource


@dataclass(frozen=True, slots=True)
class Target:
    """What a model is compiled for: devices such as "cpu" or "cuda:0" (one, today), the activation dtype, threads.

    With `graphs` a backend may record steps and replay them, as CUDA graphs do; without, it runs each one anew.

    With `deterministic` what a step gives for a token follows, bit by bit, from that token and those before it in its
    sequence: not from how many of them enter with it, nor from other sequences, nor from where rows of the cache lie.

    With `watched` an executable keeps a record of what ran where, for `ExecutableBase.executed`; that takes time.
    """

    devices: tuple[str, ...]
    dtype: DType
    threads: int | None = None
    graphs: bool = True
    deterministic: bool = False
    watched: bool = False

    @property
    def device(self) -> str:
        (device,) = self.devices
        return device


MAX_PATCHES: Final = 24_708
"""Patches of the largest picture that the size rule leaves: 6,177 tokens."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a compiled model must be able to hold.

    `max_context` tokens a sequence (prompt and answer), `max_sequences` at once, `max_batch_tokens` new tokens a step,
    `memory_bytes` for weights and cache together (None: what the device has). `cache_tokens`, at least `max_context`,
    is how many tokens of all sequences together the cache is to hold (None: every sequence at its longest). A step of
    the graph `vision`, of a model that has one, takes in `max_patches`.
    """

    max_context: int
    max_sequences: int = 1
    max_batch_tokens: int = 512
    memory_bytes: int | None = None
    cache_tokens: int | None = None
    max_patches: int = MAX_PATCHES


@dataclass(frozen=True, slots=True)
class CacheShape:
    """How an executable keeps K and V rows.

    "paged": `pages` pages of `page_size` rows, handed to sequences in any order; a page whose rows are the same for
    several sequences may be in the tables of them all. "slots": `pages` contiguous regions of `page_size` rows, one a
    sequence, and the sequences at work always fill slots 0, 1, … without a gap; the engine moves one down with
    `Executable.copy` when a gap appears. Decodes that do not mix with prefills come in the order of their slots, 0 to
    n - 1.
    """

    kind: Literal["paged", "slots"]
    page_size: int
    pages: int


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Which steps an executable admits.

    At most `max_tokens` new tokens of `max_sequences` sequences. A sequence that brings one token is a decode, a prompt
    of one token and the last token of a longer one included; one that brings more is a prefill. At most `max_prefills`
    prefills come in a step (None: as many as fit), and decodes share it with them only when `mixed`. A decode may bring
    up to `max_drafts` more tokens, which are guesses.
    """

    max_tokens: int
    max_sequences: int
    mixed: bool = True
    max_prefills: int | None = None
    max_drafts: int = 0


@dataclass(frozen=True, slots=True)
class OpNumerics:
    """The dtypes that an op multiplies and accumulates in.

    `activations` says to what it rounds its activations where they meet a weight stored in blocks of integers: to int8,
    in the blocks of that weight, each by its largest; None, not at all.
    """

    compute: DType
    accumulate: DType
    activations: Literal["int8"] | None = None


@dataclass(frozen=True, slots=True)
class Numerics:
    """What arithmetic a backend promises: one rule for all ops, and the exceptions by op name."""

    default: OpNumerics
    ops: Mapping[str, OpNumerics] = field(default_factory=dict)

    def of(self, op: str) -> OpNumerics:
        return self.ops.get(op, self.default)


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Bytes of a model on its device, and what is to be said of them, in words.

    `available` is what the device has left for them (None: it is main memory, of which the core knows). Of the weights
    `mapped_bytes` are read where they lie in files: the system keeps what memory has room for, so they count against no
    limit. `experts_from_disk` is the share, 0 to 1, of the experts chosen so far that memory lacked (None: not known).
    """

    weight_bytes: int
    cache_bytes: int
    workspace_bytes: int = 0
    notes: tuple[str, ...] = ()
    available: int | None = None
    mapped_bytes: int = 0
    experts_from_disk: float | None = None

    @property
    def nbytes(self) -> int:
        """What is held: all but what is mapped."""
        return self.kept_bytes + self.workspace_bytes

    @property
    def kept_bytes(self) -> int:
        """Weights and cache: what a caller's limit bounds."""
        return self.held_weight_bytes + self.cache_bytes

    @property
    def held_weight_bytes(self) -> int:
        return self.weight_bytes - self.mapped_bytes


class Executable(Protocol):
    """A compiled model with its cache. One thread calls it at a time, and not always the same."""

    @property
    def cache(self) -> CacheShape:
        """How it keeps K and V rows, the same for as long as it lives.

        One sequence of `Limits.max_context` tokens fits at least. Where all do not, some wait, or are computed anew.
        """
        ...

    @property
    def admits(self) -> StepLimits:
        """Which steps it takes, the same for as long as it lives; no others are submitted.

        They may be narrower than the Limits, as long as every sequence gets on: at least one token of one sequence.
        """
        ...

    @property
    def ahead(self) -> int:
        """How many steps may be submitted before the result of the one before them is read.

        0: results carry logits, and the core samples. Else the executable draws tokens by `Step.draws` and remembers,
        by seat, the last one, for which a later step says LAST_DRAWN.
        """
        ...

    def submit(self, step: Step) -> Pending:
        """Begin a step. Steps and copies take effect in the order of the calls; a step's arrays never change."""
        ...

    def copy(self, source: int, destination: int, length: int) -> None:
        """Copy the first `length` rows of a page, or slot, to another, in every state that has a row for each token."""
        ...

    def memory(self) -> MemoryReport:
        """What it holds on its device: what `compile` held against the limits, weights and cache whole; and so far,
        what came from disk."""
        ...

    def close(self) -> None:
        """Give back what the executable holds; calling it twice is harmless."""
        ...


class Backend(Protocol):
    """An engine for graphs. Constructed without arguments, once, when it is first used."""

    def devices(self) -> tuple[str, ...]:
        """The devices of this machine that it can use, best first: ("cuda:0", "cpu")."""
        ...

    def claims(self, node: Node, target: Target) -> Accept | Reject:
        """Whether this node runs in one go on this target. Called for every node on the way down."""
        ...

    def accepts(self, storage: Storage, target: Target) -> bool:
        """Whether weights stored so can be handed over as they are; others are dequantised while they are filled.

        Asked of quantised storages alone: every backend takes Plain and RopeTable.
        """
        ...

    def numerics(self, target: Target) -> Numerics:
        """The arithmetic that it promises on this target, from which every tolerance of the conformance suite follows.

        The suite rounds so itself: what goes into and comes out of each primitive that a claimed op decomposes into to
        its `compute`, sums to its `accumulate`. What that misses of float64 is the op's noise, and the backend may be
        off by a small multiple of it. Promise what is really done, on any path: who promises finer fails, and nothing
        may be promised that is coarser than the target's dtype, nor sums coarser than products.
        """
        ...

    def bill(self, lowerings: Mapping[str, Lowering], target: Target, limits: Limits) -> MemoryReport:
        """What an executable compiled from these would hold, worked out without allocating it.

        What it would map counts as mapped; `compile` holds against the limits what the source has in no file.
        Of a bill that is too large the core hears before anything is loaded, and `auto` tries another backend.
        """
        ...

    def compile(
        self,
        lowerings: Mapping[str, Lowering],
        weights: WeightSource,
        target: Target,
        limits: Limits,
    ) -> Executable:
        """Load the weights into buffers of the backend's own and be ready to run every lowering by its name.

        The values that a lowering's `taps` name are to be in every StepResult of its graph.

        Raises CapacityError before any large allocation when model and cache exceed the limits or the device.
        """
        ...
