"""Compiled loops for measures of ranks: weighted mid-ranks and pooled ranks on many draws.

Every RDM is sorted once. On a draw, one walk in that order gives each pair's rank, since ties and order never change:
only the weights do. All ranks are kept doubled and centred, so that they are whole numbers, their sums over subjects
tie exactly where they should, and products are exact while they stay below 2**53 (up to about 900 stimuli).

Arrays that several functions share: `order` (rdms, pairs) positions in ascending order, `low` and `high` (rdms, pairs)
the first position of each element's tie group and the first after it, `tied` (rdms,) whether there are any ties,
`i`, `j` (pairs,) the stimuli of each pair, `w` (draws, stimuli) multiplicities. `place` maps a pair to its position
among the pairs with weight, or to a spare last slot. The functions release the interpreter lock: run them in threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

DIGIT = 11  # bits a radix pass sorts by: 2048 counters stay in the first cache
_FEWEST = 3  # distinct stimuli that a comparison needs

compiled: Any = njit(cache=True, nogil=True)
# Sums may be taken in any order: that is what lets a loop use vector registers. The order is fixed when compiled.
summing: Any = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


@compiled
def enough(w: Any) -> Any:
    """Whether a draw has enough distinct stimuli."""
    found = 0
    for k in range(len(w)):
        found += w[k] > 0
    return found >= _FEWEST


@compiled
def compact(i: Any, j: Any, w: Any, place: Any, weight: Any) -> Any:
    """List the pairs with weight; return how many there are, and their total weight."""
    pairs = len(i)
    size = 0
    total = 0
    for p in range(pairs):
        x = w[i[p]] * w[j[p]]
        weight[size] = x
        place[p] = size if x > 0 else pairs
        size += x > 0
        total += x
    weight[pairs] = 0
    return size, total


@compiled
def ranks_of(
    order: Any, low: Any, high: Any, tied: Any, place: Any, weight: Any, total: Any, cumulative: Any, out: Any
) -> None:
    """Write the doubled centred mid-ranks of one RDM to the places of its pairs."""
    pairs = len(order)
    below = 0
    if not tied:
        for t in range(pairs):
            c = place[order[t]]
            x = weight[c]
            out[c] = 2 * below + x - total
            below += x
        return
    cumulative[0] = 0
    for t in range(pairs):
        below += weight[place[order[t]]]
        cumulative[t + 1] = below
    for t in range(pairs):
        out[place[order[t]]] = cumulative[low[t]] + cumulative[high[t]] - total


@summing
def _dot(first: Any, second: Any, size: Any) -> Any:
    """Scalar product of the leading elements."""
    value = 0.0
    for e in range(size):
        value += first[e] * second[e]
    return value


@compiled
def rank_products(
    order: Any, low: Any, high: Any, tied: Any, i: Any, j: Any, w: Any, first: Any, second: Any, out: Any
) -> None:
    """Weighted products of the centred mid-ranks of pairs of RDMs, ``(products, draws)``."""
    rdms, pairs = order.shape
    place, weight = np.empty(pairs, np.int32), np.zeros(pairs + 1, np.int32)
    cumulative = np.empty(pairs + 1, np.int32)
    ranks, weighted = np.empty((rdms, pairs + 1)), np.empty((rdms, pairs + 1))
    for d in range(len(w)):
        if not enough(w[d]):
            out[:, d] = np.nan
            continue
        size, total = compact(i, j, w[d], place, weight)
        for v in range(rdms):
            ranks_of(order[v], low[v], high[v], tied[v], place, weight, total, cumulative, ranks[v])
            for e in range(size):
                weighted[v, e] = ranks[v, e] * weight[e]
        for r in range(len(first)):
            out[r, d] = _dot(ranks[first[r]], weighted[second[r]], size) / 4


@compiled
def sorted_keys(values: Any, size: Any, keys: Any, spare: Any, counts: Any) -> Any:
    """Sort whole numbers with their positions; return the bits of a position, and whether the result is in `spare`.

    Keys hold the value above the position: a radix sort by the value's bits alone, stable, of as few passes as it has
    digits.
    """
    smallest, largest = values[0], values[0]
    for e in range(size):
        smallest = min(smallest, values[e])
        largest = max(largest, values[e])
    index_bits, bits = 0, 0
    while (size - 1) >> index_bits:
        index_bits += 1
    while (largest - smallest) >> bits:
        bits += 1
    for e in range(size):
        keys[e] = ((values[e] - smallest) << index_bits) | e
    passes = (bits + DIGIT - 1) // DIGIT
    if passes == 0:
        return index_bits, False
    digit = (bits + passes - 1) // passes
    mask = (1 << digit) - 1
    for number in range(passes):
        shift = index_bits + number * digit
        source, target = (keys, spare) if number % 2 == 0 else (spare, keys)
        counts[: mask + 2] = 0
        for e in range(size):
            counts[((source[e] >> shift) & mask) + 1] += 1
        for b in range(mask):
            counts[b + 1] += counts[b]
        for e in range(size):
            key = source[e]
            b = (key >> shift) & mask
            target[counts[b]] = key
            counts[b] += 1
    return index_bits, passes % 2 == 1


@compiled
def _ranked_product(keys: Any, index_bits: Any, size: Any, weight: Any, total: Any, target: Any) -> Any:
    """Walk sorted keys: product of their ranks with a weighted target, and the ranks' weighted sum of squares."""
    mask = (1 << index_bits) - 1
    product, square = 0.0, 0.0
    below, group, along = 0, 0, 0.0
    current = keys[0] >> index_bits
    for t in range(size):
        key = keys[t]
        value = key >> index_bits
        if value != current:
            rank = float(2 * below + group - total)
            product += rank * along
            square += rank * rank * group
            below += group
            group, along, current = 0, 0.0, value
        e = key & mask
        group += weight[e]
        along += target[e]
    rank = float(2 * below + group - total)
    return product + rank * along, square + rank * rank * group


@compiled
def rank_ceilings(
    order: Any,
    low: Any,
    high: Any,
    tied: Any,
    i: Any,
    j: Any,
    w: Any,
    people: Any,
    constant: Any,
    keys: Any,
    lower: Any,
    upper: Any,
) -> None:
    """Ceilings of Spearman and (`constant`: divided by a constant, not by lengths) rho-a, means over drawn subjects.

    `people` (draws, sets, subjects) holds sets of multiplicities for each draw of stimuli; `lower` and `upper` are
    (draws, sets). `keys` (2, pairs) is scratch of a type that holds the pooled ranks above a position.
    """
    subjects, pairs = order.shape
    place, weight = np.empty(pairs, np.int32), np.zeros(pairs + 1, np.int32)
    cumulative = np.empty(pairs + 1, np.int32)
    counts = np.empty((1 << DIGIT) + 2, np.int32)
    ranks = np.empty((subjects, pairs + 1), np.int32)
    share = np.empty((subjects, pairs + 1))
    pooled, rest, mean = np.empty(pairs, np.int64), np.empty(pairs, np.int64), np.empty(pairs)
    for d in range(len(w)):
        if not enough(w[d]):
            lower[d], upper[d] = np.nan, np.nan
            continue
        size, total = compact(i, j, w[d], place, weight)
        scale = 3.0 / (float(total) ** 3 - total)
        flat = np.zeros(subjects, np.bool_)
        for s in range(subjects):
            ranks_of(order[s], low[s], high[s], tied[s], place, weight, total, cumulative, ranks[s])
            square = 0.0
            for e in range(size):
                share[s, e] = float(ranks[s, e]) * weight[e]
                square += share[s, e] * ranks[s, e]
            flat[s] = square == 0
            if not constant and square > 0:
                share[s, :size] /= np.sqrt(square)
        for t in range(people.shape[1]):
            u = people[d, t]
            drawn, lost = 0, False
            pooled[:size] = 0
            mean[:size] = 0
            for s in range(subjects):
                if u[s] == 0:
                    continue
                drawn += 1
                lost = lost or flat[s]
                for e in range(size):
                    pooled[e] += u[s] * ranks[s, e]
                    mean[e] += share[s, e]
            if drawn < 2 or lost:
                lower[d, t], upper[d, t] = np.nan, np.nan
                continue
            bits, swapped = sorted_keys(pooled, size, keys[0], keys[1], counts)
            product, square = _ranked_product(keys[1 if swapped else 0], bits, size, weight, total, mean)
            upper[d, t] = product * (scale if constant else 1 / np.sqrt(square) if square > 0 else np.nan) / drawn
            bound = 0.0
            for s in range(subjects):
                if u[s] == 0:
                    continue
                for e in range(size):
                    rest[e] = pooled[e] - u[s] * ranks[s, e]
                bits, swapped = sorted_keys(rest, size, keys[0], keys[1], counts)
                product, square = _ranked_product(keys[1 if swapped else 0], bits, size, weight, total, share[s])
                bound += product * (scale if constant else 1 / np.sqrt(square) if square > 0 else np.nan)
            lower[d, t] = bound / drawn


@compiled
def listed(i: Any, j: Any, w: Any, prediction: Any, values: Any) -> None:
    """List the prediction on the pairs with weight."""
    size = 0
    for p in range(len(i)):
        if w[i[p]] * w[j[p]] > 0:
            values[size] = prediction[p]
            size += 1


@compiled
def paired_products(
    predictions: Any,
    order: Any,
    low: Any,
    high: Any,
    tied: Any,
    i: Any,
    j: Any,
    w: Any,
    cross: Any,
    own: Any,
    theirs: Any,
) -> None:
    """Products of the ranks of one prediction a draw with every subject's: (draws, subjects), with the squares."""
    subjects, pairs = order.shape
    place, weight = np.empty(pairs, np.int32), np.zeros(pairs + 1, np.int32)
    cumulative = np.empty(pairs + 1, np.int32)
    ranks, target, values = np.empty(pairs + 1), np.empty(pairs + 1), np.empty(pairs)
    for d in range(len(w)):
        if not enough(w[d]):
            cross[d], own[d], theirs[d] = np.nan, np.nan, np.nan
            continue
        size, total = compact(i, j, w[d], place, weight)
        listed(i, j, w[d], predictions[d], values)
        ascending = np.argsort(values[:size])
        start, below, square = 0, 0, 0.0
        while start < size:
            group, stop = 0, start
            while stop < size and values[ascending[stop]] == values[ascending[start]]:
                group += weight[ascending[stop]]
                stop += 1
            rank = float(2 * below + group - total)
            for t in range(start, stop):
                target[ascending[t]] = rank * weight[ascending[t]]
            square += rank * rank * group
            below += group
            start = stop
        own[d] = square / 4
        for s in range(subjects):
            ranks_of(order[s], low[s], high[s], tied[s], place, weight, total, cumulative, ranks)
            cross[d, s] = _dot(ranks, target, size) / 4
            square = 0.0
            for e in range(size):
                square += ranks[e] * ranks[e] * weight[e]
            theirs[d, s] = square / 4
