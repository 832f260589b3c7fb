"""What an engine has done so far, and what it does now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from ernie_rt.runtime.sequence import Finish


@dataclass(slots=True)
class Counters:
    """What has been done since the engine was made.

    `steps` were submitted, with `batched` sequences in them altogether. Requests brought `prompt_tokens`, of which
    `cached_tokens` were found in the cache. `preemptions` took the rows of a sequence away. `failures` of steps ended
    the sequences in them. `vision_steps`, not among the `steps`, encoded `patches`; of `features_found` pictures and
    videos the features were there already. `finished` counts sequences by how they ended.
    """

    steps: int = 0
    batched: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    failures: int = 0
    vision_steps: int = 0
    patches: int = 0
    features_found: int = 0
    finished: dict[Finish, int] = field(default_factory=lambda: dict.fromkeys(get_args(Finish), 0))


@dataclass(frozen=True, slots=True)
class Stats:
    """`Counters`, and how things are now: `running` and `waiting` sequences, and the rows of the cache.

    Of `cache_rows`, `held_rows` belong to sequences at work; of the others some still hold what ended ones left.
    """

    running: int
    waiting: int
    cache_rows: int
    held_rows: int
    steps: int
    batched: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    preemptions: int
    failures: int
    vision_steps: int
    patches: int
    features_found: int
    finished: Mapping[Finish, int]
