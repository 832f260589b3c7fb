"""Features of pictures and videos: which are there, who waits for which, and what a step takes in of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final
from weakref import WeakValueDictionary

import numpy as np

from ernie_rt.contract.step import StepResult
from ernie_rt.graph.types import TensorType
from ernie_rt.runtime.inputs import Array
from ernie_rt.runtime.items import FEATURES, FEATURES_ROW, Features, FeaturesKey, PlacedItem
from ernie_rt.runtime.sequence import SequenceState
from ernie_rt.runtime.statistics import Counters

FEATURE_BYTES: Final = 512 << 20
"""What is kept of features for sequences to come: of the 28B 100,000 tokens, some 40 pictures of a whole screen."""


class Encoder:
    """Hands features to sequences, which hold them until they end. Of those that no sequence holds it keeps some, of at
    most `nbytes` together: the ones that were asked for longest ago give way.

    Sequences share them within a namespace alone, as they share rows: how long an answer takes tells nobody what
    somebody else has shown.
    """

    def __init__(self, taken: TensorType, max_patches: int, nbytes: int, counters: Counters) -> None:
        """`taken` is what the graph `main` takes in as features; a step has at most `max_patches`."""
        self._taken = taken
        self._max_patches = max_patches
        self._nbytes = nbytes
        self._counters = counters
        self._held: WeakValueDictionary[FeaturesKey, Features] = WeakValueDictionary()  # by any sequence, whole or not
        self._kept: OrderedDict[FeaturesKey, Features] = OrderedDict()  # whole ones; who was asked for last comes last

    def lacks(self, sequence: SequenceState) -> bool:
        """Whether features are missing of what a sequence has to compute: of its items that have not all their rows in
        the cache. From now on it holds those, whether they are whole or not."""
        for placed in sequence.request.items:
            if placed.item.digest not in sequence.features and not sequence.has_rows(placed.start, placed.stop):
                sequence.features[placed.item.digest] = self._of(placed, sequence.request.namespace)
        return not sequence.encoded

    def take(self, features: Features, result: StepResult) -> None:
        """The features of a piece, whose step is done."""
        features.take(result)
        if features.rows is not None and features.rows.nbytes <= self._nbytes:
            self._kept[features.key] = features
            while sum(each.rows.nbytes for each in self._kept.values() if each.rows is not None) > self._nbytes:
                self._kept.popitem(last=False)

    def forget(self) -> None:
        """Something went wrong: let nobody else wait for what was not whole yet."""
        self._held.clear()

    def cut(self, sequences: Sequence[SequenceState], spans: Sequence[tuple[int, int]]) -> dict[str, Array]:
        """What a step takes in whose sequences bring the tokens of these spans: the rows of their items behind a row of
        zeros, and for each token the number of its row, 0 for one of no item."""
        wide, width = self._taken.wide, self._taken.shape({"F": 1})[1:]
        rows: list[Array] = [np.zeros((1, *width), wide)]
        of_token = np.zeros(sum(stop - start for start, stop in spans), np.int32)
        count, token = 1, 0
        for sequence, (start, stop) in zip(sequences, spans, strict=True):
            for placed in sequence.request.items:
                first, last = max(start, placed.start), min(stop, placed.stop)
                if first >= last:
                    continue
                features = sequence.features[placed.item.digest].rows
                assert features is not None, "a step reaches into an item that is not encoded"
                rows.append(features[first - placed.start : last - placed.start].astype(wide))
                of_token[token + first - start : token + last - start] = np.arange(count, count + last - first)
                count += last - first
            token += stop - start
        return {FEATURES: np.concatenate(rows), FEATURES_ROW: of_token}

    def _of(self, placed: PlacedItem, namespace: bytes) -> Features:
        """Those of an item, perhaps not whole yet."""
        key = namespace, placed.item.digest
        features = self._kept.get(key) or self._held.get(key)
        if features is None:
            features = Features(placed.item, namespace, self._taken, self._max_patches)
        elif features.rows is not None:
            self._counters.features_found += 1
        if key in self._kept:
            self._kept.move_to_end(key)
        self._held[key] = features
        return features
