"""Compiled loops for Kendall's tau on many draws: concordant minus discordant pairs of pairs.

Arrays are those of :mod:`.rank_kernels`. After a change there, delete the compiled files of this module too: numba
looks at the file of a function alone, not at those that it calls.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actkit.analyses.rank_kernels import DIGIT, compact, compiled, enough, listed, ranks_of, sorted_keys

_STEPS = np.repeat(np.array([0, -1], dtype=np.int32), 64)


@compiled
def _dense(order: Any, low: Any, place: Any, weight: Any, out: Any) -> Any:
    """Number the distinct values among the pairs with weight; return how many, and the pairs of pairs not tied."""
    pairs = len(order)
    rank, last, group = -1, -1, 0
    total, ties = 0, 0
    for t in range(pairs):
        c = place[order[t]]
        x: Any = np.int64(weight[c])
        if x == 0:
            continue
        if low[t] != last:
            ties += group * (group - 1) // 2
            rank, last, group = rank + 1, low[t], 0
        out[c] = rank
        group += x
        total += x
    return rank + 1, total * (total - 1) // 2 - ties - group * (group - 1) // 2


@compiled
def _sequence(order: Any, low: Any, place: Any, weight: Any, out: Any) -> Any:
    """List the places of the pairs with weight in ascending order, ``~place`` where a new value begins."""
    pairs = len(order)
    size, last, group = 0, -1, 0
    total, ties = 0, 0
    for t in range(pairs):
        c = place[order[t]]
        x: Any = np.int64(weight[c])
        if x == 0:
            continue
        if low[t] != last:
            ties += group * (group - 1) // 2
            last, group = low[t], 0
            out[size] = ~c
        else:
            out[size] = c
        group += x
        total += x
        size += 1
    return total * (total - 1) // 2 - ties - group * (group - 1) // 2


@compiled
def _pooled_sequence(keys: Any, index_bits: Any, size: Any, weight: Any, out: Any) -> Any:
    """The same from sorted keys."""
    mask = (1 << index_bits) - 1
    last = np.int64(-1)
    total, ties, group = 0, 0, 0
    for t in range(size):
        c = np.int64(keys[t]) & mask
        value = np.int64(keys[t]) >> index_bits
        if value != last:
            ties += group * (group - 1) // 2
            last, group = value, 0
            out[t] = ~c
        else:
            out[t] = c
        group += weight[c]
        total += weight[c]
    return total * (total - 1) // 2 - ties - group * (group - 1) // 2


@compiled
def _concordance(sequence: Any, size: Any, rank: Any, distinct: Any, weight: Any, counter: Any) -> Any:
    """Concordant minus discordant pairs of pairs.

    Elements enter in the order of one RDM into a counter of the other's ranks; of those that entered before with a
    smaller value, ``less - greater`` are concordant beyond the discordant. A tie group is asked for first and entered
    after, so that ties count nothing. The counter keeps running sums at three levels (4096, 64 and 1 ranks): a question
    reads one number of each, an entry adds to the 64 neighbours in the two lower ones, in vector registers.
    """
    coarse_size = (distinct >> 12) + 1
    middle_size, fine_size = coarse_size << 6, ((distinct >> 6) + 1) << 6
    end = coarse_size + middle_size + fine_size
    coarse, middle = counter[:coarse_size], counter[coarse_size : coarse_size + middle_size]
    fine, same = counter[coarse_size + middle_size : end], counter[end : end + fine_size]
    counter[: end + fine_size] = 0
    entered, value = 0, 0
    start = 0
    while start < size:
        stop = start + 1
        while stop < size and sequence[stop] >= 0:
            stop += 1
        for t in range(start, stop):
            c = sequence[t]
            c ^= c >> 31  # undoes ~ where it was applied
            v = rank[c]
            less = np.int64(coarse[v >> 12]) + middle[v >> 6] + fine[v]
            value += np.int64(weight[c]) * (2 * less + same[v] - entered)
        for t in range(start, stop):
            c = sequence[t]
            c ^= c >> 31
            v = rank[c]
            x = weight[c]
            entered += x
            same[v] += x
            for k in range((v >> 12) + 1, coarse_size):
                coarse[k] += x
            # A window of the steps 0 … 0 -1 … -1 selects the ranks above, without a comparison.
            at = v >> 6
            block, step = middle[at & -64 : (at & -64) + 64], _STEPS[63 - (at & 63) : 127 - (at & 63)]
            for k in range(64):
                block[k] += x & step[k]
            block, step = fine[v & -64 : (v & -64) + 64], _STEPS[63 - (v & 63) : 127 - (v & 63)]
            for k in range(64):
                block[k] += x & step[k]
        start = stop
    return value


@compiled
def _tau(difference: Any, untied_first: Any, untied_second: Any, total: Any, all_pairs: Any) -> Any:
    """Tau from counts: over all pairs (tau-a) or over those that are not tied (tau-b)."""
    if untied_first == 0 or untied_second == 0:
        return np.nan
    if all_pairs:
        return float(difference) / (float(total) * (total - 1) / 2)
    return float(difference) / np.sqrt(float(untied_first) * float(untied_second))


@compiled
def kendall_scores(
    order: Any,
    low: Any,
    their_order: Any,
    their_low: Any,
    i: Any,
    j: Any,
    w: Any,
    all_pairs: Any,
    counter: Any,
    out: Any,
) -> None:
    """Tau of every model (`order`, `low`) with every subject (`their_…`), ``(draws, models, subjects)``."""
    models, pairs = order.shape
    subjects = len(their_order)
    place, weight = np.empty(pairs, np.int32), np.zeros(pairs + 1, np.int32)
    sequence = np.empty(pairs, np.int32)
    rank = np.empty((subjects, pairs), np.int32)
    distinct, untied = np.empty(subjects, np.int64), np.empty(subjects, np.int64)
    for d in range(len(w)):
        if not enough(w[d]):
            out[d] = np.nan
            continue
        size, total = compact(i, j, w[d], place, weight)
        for s in range(subjects):
            distinct[s], untied[s] = _dense(their_order[s], their_low[s], place, weight, rank[s])
        for k in range(models):
            varied = _sequence(order[k], low[k], place, weight, sequence)
            for s in range(subjects):
                difference = _concordance(sequence, size, rank[s], distinct[s], weight, counter)
                out[d, k, s] = _tau(difference, varied, untied[s], total, all_pairs)


@compiled
def kendall_ceilings(
    order: Any,
    low: Any,
    high: Any,
    tied: Any,
    i: Any,
    j: Any,
    w: Any,
    people: Any,
    all_pairs: Any,
    keys: Any,
    counter: Any,
    lower: Any,
    upper: Any,
) -> None:
    """Approximate ceilings of tau from pooled ranks; arguments as in `rank_ceilings`."""
    subjects, pairs = order.shape
    place, weight = np.empty(pairs, np.int32), np.zeros(pairs + 1, np.int32)
    cumulative = np.empty(pairs + 1, np.int32)
    counts = np.empty((1 << DIGIT) + 2, np.int32)
    ranks = np.empty((subjects, pairs + 1), np.int32)
    dense = np.empty((subjects, pairs), np.int32)
    sequence = np.empty(pairs, np.int32)
    distinct, untied = np.empty(subjects, np.int64), np.empty(subjects, np.int64)
    pooled, rest = np.empty(pairs, np.int64), np.empty(pairs, np.int64)
    for d in range(len(w)):
        if not enough(w[d]):
            lower[d], upper[d] = np.nan, np.nan
            continue
        size, total = compact(i, j, w[d], place, weight)
        for s in range(subjects):
            ranks_of(order[s], low[s], high[s], tied[s], place, weight, total, cumulative, ranks[s])
            distinct[s], untied[s] = _dense(order[s], low[s], place, weight, dense[s])
        for t in range(people.shape[1]):
            u = people[d, t]
            drawn, above, below = 0, 0.0, 0.0
            pooled[:size] = 0
            for s in range(subjects):
                if u[s] > 0:
                    drawn += 1
                    for e in range(size):
                        pooled[e] += u[s] * ranks[s, e]
            if drawn < 2:
                lower[d, t], upper[d, t] = np.nan, np.nan
                continue
            bits, swapped = sorted_keys(pooled, size, keys[0], keys[1], counts)
            varied = _pooled_sequence(keys[1 if swapped else 0], bits, size, weight, sequence)
            for s in range(subjects):
                if u[s] > 0:
                    difference = _concordance(sequence, size, dense[s], distinct[s], weight, counter)
                    above += _tau(difference, varied, untied[s], total, all_pairs)
            for s in range(subjects):
                if u[s] == 0:
                    continue
                for e in range(size):
                    rest[e] = pooled[e] - u[s] * ranks[s, e]
                bits, swapped = sorted_keys(rest, size, keys[0], keys[1], counts)
                varied = _pooled_sequence(keys[1 if swapped else 0], bits, size, weight, sequence)
                difference = _concordance(sequence, size, dense[s], distinct[s], weight, counter)
                below += _tau(difference, varied, untied[s], total, all_pairs)
            upper[d, t] = above / drawn
            lower[d, t] = below / drawn


@compiled
def paired_kendall(
    predictions: Any, order: Any, low: Any, i: Any, j: Any, w: Any, all_pairs: Any, counter: Any, out: Any
) -> None:
    """Tau of one prediction a draw with every subject, ``(draws, subjects)``."""
    subjects, pairs = order.shape
    place, weight = np.empty(pairs, np.int32), np.zeros(pairs + 1, np.int32)
    sequence, rank, values = np.empty(pairs, np.int32), np.empty(pairs, np.int32), np.empty(pairs)
    for d in range(len(w)):
        if not enough(w[d]):
            out[d] = np.nan
            continue
        size, total = compact(i, j, w[d], place, weight)
        listed(i, j, w[d], predictions[d], values)
        ascending = np.argsort(values[:size])
        ties, group = 0, 0
        for t in range(size):
            c = ascending[t]
            if t == 0 or values[c] != values[ascending[t - 1]]:
                ties += group * (group - 1) // 2
                group = 0
                sequence[t] = ~c
            else:
                sequence[t] = c
            group += weight[c]
        varied = total * (total - 1) // 2 - ties - group * (group - 1) // 2
        for s in range(subjects):
            distinct, untied = _dense(order[s], low[s], place, weight, rank)
            difference = _concordance(sequence, size, rank, distinct, weight, counter)
            out[d, s] = _tau(difference, varied, untied, total, all_pairs)


@compiled
def kendall_permuted(
    order: Any,
    low: Any,
    their_order: Any,
    their_low: Any,
    i: Any,
    j: Any,
    permutations: Any,
    all_pairs: Any,
    counter: Any,
    out: Any,
) -> None:
    """Mean tau over subjects whose stimuli are permuted alike, ``(permutations, models)``."""
    models, pairs = order.shape
    subjects, n = len(their_order), permutations.shape[1]
    place, moved = np.empty(pairs, np.int32), np.empty(pairs, np.int32)
    weight = np.ones(pairs + 1, np.int32)
    sequence, rank = np.empty((models, pairs), np.int32), np.empty((subjects, pairs), np.int32)
    varied = np.empty(models, np.int64)
    distinct, untied = np.empty(subjects, np.int64), np.empty(subjects, np.int64)
    for p in range(pairs):
        place[p] = p
    for k in range(models):
        varied[k] = _sequence(order[k], low[k], place, weight, sequence[k])
    for d in range(len(permutations)):
        for p in range(pairs):
            a, b = permutations[d, i[p]], permutations[d, j[p]]
            if a > b:
                a, b = b, a
            moved[a * (2 * n - a - 1) // 2 + b - a - 1] = p
        for s in range(subjects):
            distinct[s], untied[s] = _dense(their_order[s], their_low[s], moved, weight, rank[s])
        for k in range(models):
            value = 0.0
            for s in range(subjects):
                difference = _concordance(sequence[k], pairs, rank[s], distinct[s], weight, counter)
                value += _tau(difference, varied[k], untied[s], pairs, all_pairs)
            out[d, k] = value / subjects
