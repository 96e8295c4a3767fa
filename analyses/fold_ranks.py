"""Scores of predictions on test folds by rank measures: the few pairs of many folds are gathered, ranked and compared.

Copies of stimuli weigh their pairs, so ranks are weighted mid-ranks, kept doubled and centred as whole numbers:
ranks pooled over subjects are then whole numbers too, and tie exactly where they should.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from actkit.analyses.comparison import Compare, resample
from actkit.analyses.measures import KENDALL, normalised, stimuli_of
from actkit.compute import spans
from actkit.recordings import pair_positions

_VALUES = 1_000_000  # gathered dissimilarities at a time and thread, 8 MB; fixed, so that no number depends on it

Model = tuple[
    np.ndarray, np.ndarray | None
]  # components (k, pairs); weights (sets, subject folds, k), None: k = 1, fixed


def rank_scores(
    models: Sequence[Model],
    data: np.ndarray,
    test: np.ndarray,
    counts: np.ndarray,
    fold: np.ndarray,
    people: np.ndarray | None,
    compare: Compare,
    workers: int | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score predictions on test sets, with ceilings.

    Parameters
    ----------
    models : sequence of tuple
        Components ``(components, pairs)`` of each model and their weights ``(sets, subject folds, components)``; None
        for a fixed RDM.
    data : numpy.ndarray
        ``(subjects, pairs)``.
    test : numpy.ndarray of int
        ``(sets, stimuli)`` multiplicities.
    counts, fold : numpy.ndarray of int
        ``(sets, subjects)`` multiplicities and fold numbers (-1: not drawn).
    people : numpy.ndarray of int or None
        ``(sets, subject folds, subjects)`` multiplicities of the training subjects, whose pool is the lower ceiling;
        None leaves one subject out, with all its copies.
    compare : {"spearman", "rho-a", "tau-a", "tau-b"}
        The measure.
    workers : int or None
        Threads; the numbers are the same for any.

    Returns
    -------
    tuple of numpy.ndarray
        Scores ``(sets, models, subjects)``, lower and upper ceilings ``(sets, subjects)``.
    """
    alone = people is None
    if people is None:
        people = counts[:, None] * (1 - np.eye(len(data), dtype=np.int64))
    widest = max(2, int(np.count_nonzero(test, axis=1).max(initial=0)))
    rdms = len(data) + sum(1 if theta is None else theta.shape[1] for _, theta in models) + people.shape[1] + 1
    step = max(1, _VALUES // (rdms * widest * (widest - 1) // 2))

    def part(span: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        some = slice(*span)
        chosen = [(rdms, None if theta is None else theta[some]) for rdms, theta in models]
        return _part(chosen, data, test[some], counts[some], fold[some], people[some], compare, alone)

    blocks = list(spans(len(test), step))
    workers = workers or _processors()
    if workers == 1 or len(blocks) == 1:
        parts = [part(block) for block in blocks]
    else:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(part, blocks))
    score, lower, upper = (np.concatenate([values[k] for values in parts]) for k in range(3))
    single = (np.count_nonzero(counts, axis=1) < 2)[:, None]
    return score, np.where(single, np.nan, lower), np.where(single, np.nan, upper)


def _part(
    models: Sequence[Model],
    data: np.ndarray,
    test: np.ndarray,
    counts: np.ndarray,
    fold: np.ndarray,
    people: np.ndarray,
    compare: Compare,
    alone: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A few test sets: gather their pairs, predict, rank, compare."""
    # The drawn stimuli of each set come first; sets with fewer than the widest are filled up with weight 0.
    widest = max(2, int(np.count_nonzero(test, axis=1).max()))
    stimuli = np.argsort(test == 0, axis=1, kind="stable")[:, :widest]
    multiplicity = np.take_along_axis(test, stimuli, axis=1)
    i, j = np.triu_indices(widest, 1)
    pairs = pair_positions(stimuli_of(data.shape[1]), stimuli[:, i], stimuli[:, j])
    weights = (multiplicity[:, i] * multiplicity[:, j]).astype(np.float64)
    observed = data[:, pairs].swapaxes(0, 1)
    ranks = doubled_ranks(observed, weights[:, None])
    predictions = [_predicted(components, theta, pairs) for components, theta in models]
    rivals = np.concatenate([*predictions, people @ ranks, counts[:, None] @ ranks], axis=1)
    if compare in KENDALL:
        values = np.stack(
            [_kendall(*each, compare) for each in zip(rivals, observed, multiplicity, weights > 0, strict=True)]
        )
    else:
        values = _rank_products(doubled_ranks(rivals, weights[:, None]) / 2, ranks / 2, weights, compare)
    values[np.isnan(rivals).any(axis=2)] = np.nan
    ends = np.cumsum([0, *(p.shape[1] for p in predictions), people.shape[1], 1])
    *scores, lower, upper = (values[:, start:stop] for start, stop in pairwise(ends))
    score = np.stack([of_fold(value, fold) for value in scores], axis=1)
    return score, np.diagonal(lower, axis1=1, axis2=2) if alone else of_fold(lower, fold), upper[:, 0]


def _predicted(components: np.ndarray, theta: np.ndarray | None, pairs: np.ndarray) -> np.ndarray:
    """Predictions on the pairs of each set, ``(sets, subject folds, pairs)``.

    Summed component by component, so that pairs with equal components tie exactly (in a matrix product they may not).
    """
    if theta is None:
        return components[0][pairs][:, None]
    out = np.zeros((*theta.shape[:2], pairs.shape[1]))
    for k, component in enumerate(components):
        out += theta[:, :, k, None] * component[pairs][:, None]
    return out


def _rank_products(rivals: np.ndarray, data: np.ndarray, weights: np.ndarray, compare: Compare) -> np.ndarray:
    """Spearman or rho-a of centred mid-ranks, ``(sets, rivals, subjects)``."""
    weighted = rivals * weights[:, None]
    first = (weighted * rivals).sum(axis=-1)
    second = (np.square(data) * weights[:, None]).sum(axis=-1)
    return normalised(weighted @ data.swapaxes(1, 2), first, second, compare, weights.sum(axis=-1))


def _kendall(
    rivals: np.ndarray, data: np.ndarray, multiplicity: np.ndarray, present: np.ndarray, compare: Compare
) -> np.ndarray:
    """Kendall's tau on one test set, ``(rivals, subjects)``."""
    drawn = multiplicity[multiplicity > 0]
    if len(drawn) < 3:
        return np.full((len(rivals), len(data)), np.nan)
    return resample(
        rivals[:, present], data[:, present], drawn[None], None, compare, with_ceilings=False, workers=1
    ).score[0]


def doubled_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Twice the centred mid-ranks of weighted values, for many vectors at once.

    With C the cumulative weights in ascending order, the elements of a tie group that spans low … high of C have twice
    the mid-rank low + high + 1; minus N + 1, twice the mean rank of the N values.

    Parameters
    ----------
    values : numpy.ndarray
        ``(…, m)``.
    weights : numpy.ndarray
        ``(…, m)`` multiplicities, broadcast against the values; those of weight 0 do not count.

    Returns
    -------
    numpy.ndarray of float64
        ``(…, m)`` whole numbers.
    """
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    w = np.take_along_axis(np.broadcast_to(weights, values.shape), order, axis=-1)
    high = np.cumsum(w, axis=-1)
    total = high[..., -1:].copy()
    low = high - w
    first = np.ones(values.shape, dtype=bool)
    np.not_equal(ordered[..., 1:], ordered[..., :-1], out=first[..., 1:])
    last = np.ones_like(first)
    last[..., :-1] = first[..., 1:]
    # Cumulative weights never fall: the value at the start (end) of a tie group is a running maximum (minimum).
    low = np.maximum.accumulate(np.where(first, low, 0.0), axis=-1)
    high = np.minimum.accumulate(np.where(last, high, np.inf)[..., ::-1], axis=-1)[..., ::-1]
    out = np.empty(values.shape)
    np.put_along_axis(out, order, low + high - total, axis=-1)
    return out


def of_fold(values: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Take for each subject the row of its fold.

    Parameters
    ----------
    values : numpy.ndarray
        ``(sets, folds or 1, subjects or 1)``.
    fold : numpy.ndarray of int
        ``(sets, subjects)``; -1 takes any row.

    Returns
    -------
    numpy.ndarray
        ``(sets, subjects)``.
    """
    if values.shape[1] == 1:
        return np.broadcast_to(values[:, 0], fold.shape)
    wide = np.broadcast_to(values, (*values.shape[:2], fold.shape[1]))
    return np.take_along_axis(wide, np.maximum(fold, 0)[:, None], axis=1)[:, 0]


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
