"""A token from each row of logits: docs/sampling.md, steps 3 to 5, without a sort.

Every filter keeps the best tokens down to a *border*, and which score that is can be found by counting. A row is cut
into chunks, a program each. Scores are put into bins by their depth below the best one: `split` counts and weighs each
bin, `gather` collects the scores of the one bin that the border falls in, and `settle` finds it among those by their
bits. This happens for top-k, and once more for min-p and top-p, whose limit depends on what top-k has left. Counts and
weights are whole numbers, so their sums depend on no order.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from ernie_rt_cudagraph.kernels.language import release, wait
from ernie_rt_cudagraph.kernels.order import NOTHING, number, ordered, ranked, ranked_id, ranked_number

BINS = tl.constexpr(32)
"""One for each unit of depth. A token that lies farther down weighs nothing, and no noise lifts it up to the best one:
noise lies between -3.2 and 22.9. One at depth 32 exactly may come to it by rounding, and is in the last bin."""
ALL = tl.constexpr(2**31 - 1)
LOWEST = tl.constexpr(-(2**31))
"""A border below every score."""
UNIT = tl.constexpr(2.0**30)
"""The weight of the best token."""
ROUNDING = tl.constexpr(2.0**52)
"""Added to a smaller number and taken away again, it leaves the nearest whole one, the even one of two."""


class Tiles(NamedTuple):
    chunk: int
    """Logits of a row that a program looks at: few enough that one row keeps many programs busy, and enough that they
    need not read the partial results of too many others."""
    block: int
    """Of these, how many are put into bins at a time. Threads keep sums of their own for each bin, in registers; so
    bins are the rows of what they compute, lest a score be weighed once more for each of them."""
    members: int
    """Scores of a bin that are looked at together, with a sum for each way."""
    ways: int
    """Parts that an interval of scores is cut into at a time."""


def tiles(vocabulary: int) -> Tiles:
    chunk = min(2048, max(128, triton.next_power_of_2(vocabulary)))
    return Tiles(chunk, block=128, members=512, ways=8)


@triton.jit
def find_largest(logits, knowns, largest, V, CHUNKS: tl.constexpr, CHUNK: tl.constexpr, PDL: tl.constexpr):
    """The largest logit of each chunk, ranked with its id: `largest [L, CHUNKS]`."""
    wait(PDL)
    release(PDL)
    row, chunk = tl.program_id(0), tl.program_id(1)
    ids = chunk * CHUNK + tl.arange(0, CHUNK)
    held = ids < _known(knowns, row, V)
    x = tl.load(logits + row.to(tl.int64) * V + ids, mask=ids < V, other=0.0)
    tl.store(largest + row * CHUNKS + chunk, tl.max(tl.where(held, ranked(x, ids), NOTHING), axis=0))


@triton.jit
def find_token(largest, tokens, COUNT: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """The id of what ranks highest of `largest [L, COUNT]`; -1 where that is no number."""
    wait(PDL)
    release(PDL)
    row = tl.program_id(0)
    each = tl.full((BLOCK,), NOTHING, tl.int64)
    for start in range(0, COUNT, BLOCK):
        places = start + tl.arange(0, BLOCK)
        each = tl.maximum(each, tl.load(largest + row * COUNT + places, mask=places < COUNT, other=NOTHING))
    rank = tl.max(each, axis=0)
    tl.store(tokens + row, tl.where(tl.abs(ranked_number(rank)) < float("inf"), ranked_id(rank), -1))


@triton.jit
def split(
    logits, largest, knowns, temperatures, top_ks, top_ps, min_ps, counts, weights, V,
    CHUNKS: tl.constexpr, MANY: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """How many scores of each chunk are in each bin, and what they weigh: `counts`, `weights` `[L, CHUNKS, BINS]`."""
    wait(PDL)
    release(PDL)
    row, chunk = tl.program_id(0), tl.program_id(1)
    known, temperature = _known(knowns, row, V), _temperature(temperatures, row)
    best, alive = _best(largest, row, temperature, CHUNKS, MANY)
    min_p = tl.load(min_ps + row)
    weighed = _is_weighed(tl.load(top_ps + row), min_p)
    if alive & (weighed | _is_counted(tl.load(top_ks + row), known)):
        bins = tl.arange(0, BINS)
        count, weight = tl.zeros((BINS, BLOCK), tl.int32), tl.zeros((BINS, BLOCK), tl.int64)
        for start in range(0, CHUNK, BLOCK):
            ids = chunk * CHUNK + start + tl.arange(0, BLOCK)
            scores = _scores(logits, row, ids, known, temperature, V)
            bin, held = _bins(scores, best)
            here = (bins[:, None] == bin) & held  # [BINS, BLOCK]
            count += here.to(tl.int32)
            if weighed:
                weight += tl.where(here, _weights(scores, best, min_p), 0)
        places = (row * CHUNKS + chunk) * BINS + bins
        tl.store(counts + places, tl.sum(count, axis=1))
        tl.store(weights + places, tl.sum(weight, axis=1))


@triton.jit
def gather(
    logits, largest, knowns, temperatures, top_ks, top_ps, min_ps, counts, weights, totals, members, V,
    CHUNKS: tl.constexpr, MANY: tl.constexpr, CHUNK: tl.constexpr, WEIGHED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The scores of the border's bin one after the other, in the order of their ids: `members [L, V]`, ordered."""
    wait(PDL)
    release(PDL)
    row, chunk = tl.program_id(0), tl.program_id(1)
    known, temperature = _known(knowns, row, V), _temperature(temperatures, row)
    best, alive = _best(largest, row, temperature, CHUNKS, MANY)
    top_k, top_p = tl.load(top_ks + row), tl.load(top_ps + row)
    counted, weighed = _is_counted(top_k, known), _is_weighed(top_p, tl.load(min_ps + row))
    if alive & (weighed if WEIGHED else counted):
        bin, _before, _limit = _border_bin(counts, weights, totals, row, top_k, top_p, counted, CHUNKS, MANY, WEIGHED)
        if bin < BINS:
            ids = chunk * CHUNK + tl.arange(0, CHUNK)
            scores = _scores(logits, row, ids, known, temperature, V)
            bin_of, held = _bins(scores, best)
            member = held & (bin_of == bin)
            place = _members_before(counts, row, chunk, bin, CHUNKS, MANY) + tl.cumsum(member.to(tl.int32), axis=0) - 1
            tl.store(members + row.to(tl.int64) * V + place, ordered(scores), mask=member)


@triton.jit
def settle(
    largest, knowns, temperatures, top_ks, top_ps, min_ps, counts, weights, members, totals, borders, V,
    CHUNKS: tl.constexpr, MANY: tl.constexpr, BLOCK: tl.constexpr, WAYS: tl.constexpr, WEIGHED: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """The border of each row, `borders [L, 3]`: its bin, its score, and how many of the scores that equal it are kept,
    ALL where none of them is left out. Counted, it is top-k's, and `totals [L]` is what the tokens weigh that it keeps;
    WEIGHED, it is the border of all filters.
    """
    wait(PDL)
    release(PDL)
    row = tl.program_id(0)
    known, temperature = _known(knowns, row, V), _temperature(temperatures, row)
    best, alive = _best(largest, row, temperature, CHUNKS, MANY)
    top_k, top_p, min_p = tl.load(top_ks + row), tl.load(top_ps + row), tl.load(min_ps + row)
    counted, weighed = _is_counted(top_k, known), _is_weighed(top_p, min_p)
    if alive & (weighed if WEIGHED else counted):
        bin, before, limit = _border_bin(counts, weights, totals, row, top_k, top_p, counted, CHUNKS, MANY, WEIGHED)
        border, kept = tl.full((), LOWEST, tl.int32), tl.full((), ALL, tl.int32)
        many = _members_before(counts, row, CHUNKS, bin, CHUNKS, MANY)
        scores = members + row.to(tl.int64) * V
        if bin < BINS:
            low, high = _bounds(scores, many, BLOCK)
            while low < high:  # the limit is reached from `low` on upwards, and not from above `high` on
                step = (high - low + WAYS - 1) // WAYS
                tried = low + step * (1 + tl.arange(0, WAYS))
                reached = before + _at_least(scores, many, tried, best, min_p, BLOCK, WAYS, WEIGHED) >= limit
                low += step * tl.sum(reached.to(tl.int64), axis=0)
                high = tl.minimum(high, low + step - 1)
            border = low.to(tl.int32)
            equal, above = _equal_and_above(scores, many, border, best, min_p, BLOCK, WEIGHED)
            each = _measures(border, best, min_p, WEIGHED)
            left = (limit - before - above + each - 1) // each  # of those at the border, how many begin below the limit
            kept = tl.where(left < equal, left, ALL).to(tl.int32)
        tl.store(borders + row * 3, bin)
        tl.store(borders + row * 3 + 1, border)
        tl.store(borders + row * 3 + 2, kept)
        if weighed and not WEIGHED:
            total = tl.sum(tl.where(tl.arange(0, BINS) < bin, _in_bins(weights, row, CHUNKS, MANY), 0), axis=0)
            if bin < BINS:
                equal, above = _equal_and_above(scores, many, border, best, min_p, BLOCK, True)
                total += above + tl.minimum(equal, kept) * _measures(border, best, min_p, True)
            tl.store(totals + row, total)


@triton.jit
def find_drawn(
    logits, largest, knowns, temperatures, top_ks, top_ps, min_ps, seeds, positions, counts, members, borders, drawn, V,
    CHUNKS: tl.constexpr, MANY: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Of the tokens that are kept the one that noise makes the largest, of each chunk: `drawn [L, CHUNKS]`, ranked."""
    wait(PDL)
    release(PDL)
    row, chunk = tl.program_id(0), tl.program_id(1)
    known, temperature = _known(knowns, row, V), _temperature(temperatures, row)
    best, alive = _best(largest, row, temperature, CHUNKS, MANY)
    rank = tl.full((), NOTHING, tl.int64)
    if alive:
        ids = chunk * CHUNK + tl.arange(0, CHUNK)
        scores = _scores(logits, row, ids, known, temperature, V)
        _bin, kept = _bins(scores, best)
        if _is_counted(tl.load(top_ks + row), known) | _is_weighed(tl.load(top_ps + row), tl.load(min_ps + row)):
            border, few = tl.load(borders + row * 3 + 1), tl.load(borders + row * 3 + 2)
            keys = ordered(scores)
            if few < ALL:
                bin = tl.load(borders + row * 3)
                before = _members_before(counts, row, chunk, bin, CHUNKS, MANY)
                scores_before = members + row.to(tl.int64) * V
                passed, _above = _equal_and_above(scores_before, before, border, best, 0.0, BLOCK, False)
                equal = keys == border
                kept &= (keys > border) | (equal & (passed + tl.cumsum(equal.to(tl.int32), axis=0) <= few))
            else:
                kept &= keys >= border
        if tl.max(kept.to(tl.int32), axis=0) > 0:
            if tl.load(temperatures + row) > 0:
                scores += _noise(chunk * (CHUNK // 4) + tl.arange(0, CHUNK // 4), seeds, positions, row)
            rank = tl.max(tl.where(kept, ranked(scores, ids), NOTHING), axis=0)
    tl.store(drawn + row * CHUNKS + chunk, rank)


@triton.jit
def _noise(groups, seeds, positions, row):
    """The Gumbel noise of ids, of four for each of the groups."""
    zeros = tl.zeros_like(groups)
    c0, c1, c2, c3 = tl.philox(tl.load(seeds + row), groups, zeros + tl.load(positions + row), zeros, zeros)
    words = tl.interleave(tl.interleave(c0, c2), tl.interleave(c1, c3))
    uniform = (words.to(tl.float64) + 0.5) * 2.0**-32
    return (-tl.log(-tl.log(uniform))).to(tl.float32)


@triton.jit
def _known(knowns, row, V):
    """How many ids, from the first on, a row chooses among: those that it knows and has a logit for."""
    return tl.minimum(tl.load(knowns + row), V)


@triton.jit
def _temperature(temperatures, row):
    """What logits are divided by: 1 where the choice is greedy."""
    temperature = tl.load(temperatures + row)
    return tl.where(temperature > 0, temperature, 1.0)


@triton.jit
def _scores(logits, row, ids, known, temperature, V):
    """The scores of some ids of a row; minus infinity where an id is not known."""
    x = tl.load(logits + row.to(tl.int64) * V + ids, mask=ids < V, other=0.0)  # of 16 bytes, as `known` allows none
    return tl.where(ids < known, tl.div_rn(x, temperature), -float("inf"))


@triton.jit
def _best(largest, row, temperature, CHUNKS: tl.constexpr, MANY: tl.constexpr):
    """The best score of a row, and whether it is one: not so in a row without a number to choose."""
    chunks = tl.arange(0, MANY)
    ranks = tl.load(largest + row * CHUNKS + chunks, mask=chunks < CHUNKS, other=NOTHING)
    best = tl.div_rn(ranked_number(tl.max(ranks, axis=0)), temperature)
    return best, tl.abs(best) < float("inf")


@triton.jit
def _bins(scores, best):
    """The bin of each score, and whether it has one."""
    depth = best - scores
    held = depth <= BINS
    return tl.minimum(tl.where(held, depth, 0.0).to(tl.int32), BINS - 1), held


@triton.jit
def _weights(scores, best, min_p):
    """The weights of scores, int64; 0 of those that min-p leaves out."""
    exact = tl.exp(scores.to(tl.float64) - best.to(tl.float64)) * UNIT
    whole = (exact + ROUNDING) - ROUNDING
    return tl.where(whole >= min_p * UNIT, whole, 0.0).to(tl.int64)


@triton.jit
def _measures(keys, best, min_p, WEIGHED: tl.constexpr):
    """What ordered scores count for: their weights, or 1 each; int64."""
    return _weights(number(keys), best, min_p) if WEIGHED else (keys * 0 + 1).to(tl.int64)


@triton.jit
def _is_counted(top_k, known):
    return (top_k > 0) & (top_k < known)


@triton.jit
def _is_weighed(top_p, min_p):
    return (top_p < 1) | (min_p > 0)


@triton.jit
def _in_bins(parts, row, CHUNKS: tl.constexpr, MANY: tl.constexpr):
    """What all chunks of a row have in each bin `[BINS]`."""
    chunks = tl.arange(0, MANY)
    places = (row * CHUNKS + chunks)[:, None] * BINS + tl.arange(0, BINS)
    return tl.sum(tl.load(parts + places, mask=(chunks < CHUNKS)[:, None], other=0), axis=0).to(tl.int64)


@triton.jit
def _border_bin(
    counts, weights, totals, row, top_k, top_p, counted,
    CHUNKS: tl.constexpr, MANY: tl.constexpr, WEIGHED: tl.constexpr,
):  # fmt: skip
    """The bin that a filter's border falls in (BINS: there is none), how much lies above that bin, and the limit: those
    tokens are kept above which less than that lies, in number or in weight.
    """
    if WEIGHED:
        held = _in_bins(weights, row, CHUNKS, MANY)
        total = tl.where(counted, tl.load(totals + row, mask=counted, other=0), tl.sum(held, axis=0))
        share = top_p * total.to(tl.float64)
        limit = share.to(tl.int64)
        limit += (limit.to(tl.float64) < share).to(tl.int64)  # what is below the share is below the next whole number
    else:
        held = _in_bins(counts, row, CHUNKS, MANY)
        limit = top_k.to(tl.int64)
    whole = tl.cumsum(held, axis=0) < limit  # bins that are kept, with more below them
    return tl.sum(whole.to(tl.int32), axis=0), tl.sum(tl.where(whole, held, 0), axis=0), limit


@triton.jit
def _members_before(counts, row, chunk, bin, CHUNKS: tl.constexpr, MANY: tl.constexpr):
    """How many scores of a bin lie in the chunks before one."""
    chunks = tl.arange(0, MANY)
    places = (row * CHUNKS + chunks) * BINS + bin
    return tl.sum(tl.load(counts + places, mask=(chunks < chunk) & (bin < BINS), other=0), axis=0)


@triton.jit
def _bounds(scores, many, BLOCK: tl.constexpr):
    """The lowest and the highest of some ordered scores, int64, which has room for their difference."""
    low, high = tl.full((BLOCK,), ALL, tl.int32), tl.full((BLOCK,), LOWEST, tl.int32)
    for start in range(0, many, BLOCK):
        places = start + tl.arange(0, BLOCK)
        low = tl.minimum(low, tl.load(scores + places, mask=places < many, other=ALL))
        high = tl.maximum(high, tl.load(scores + places, mask=places < many, other=LOWEST))
    return tl.min(low, axis=0).to(tl.int64), tl.max(high, axis=0).to(tl.int64)


@triton.jit
def _at_least(scores, many, tried, best, min_p, BLOCK: tl.constexpr, WAYS: tl.constexpr, WEIGHED: tl.constexpr):
    """How much of some ordered scores is at or above each that is tried `[WAYS]`."""
    much = tl.zeros((WAYS, BLOCK), tl.int64)
    for start in range(0, many, BLOCK):
        places = start + tl.arange(0, BLOCK)
        keys = tl.load(scores + places, mask=places < many, other=LOWEST)
        inside = (keys.to(tl.int64) >= tried[:, None]) & (places < many)  # [WAYS, BLOCK]
        much += tl.where(inside, _measures(keys, best, min_p, WEIGHED), 0)
    return tl.sum(much, axis=1)


@triton.jit
def _equal_and_above(scores, many, border, best, min_p, BLOCK: tl.constexpr, WEIGHED: tl.constexpr):
    """How many of some ordered scores are at the border, and how much is above it."""
    equal, above = tl.zeros((), tl.int32), tl.zeros((), tl.int64)
    for start in range(0, many, BLOCK):
        places = start + tl.arange(0, BLOCK)
        keys = tl.load(scores + places, mask=places < many, other=LOWEST)
        equal += tl.sum(((keys == border) & (places < many)).to(tl.int32), axis=0)
        above += tl.sum(tl.where(keys > border, _measures(keys, best, min_p, WEIGHED), 0), axis=0)
    return equal, above
