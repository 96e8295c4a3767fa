"""Nulls of unit matching: stimuli permuted, the match made anew in every fold for each permutation.

Permuting only the held-out rows would leave the match to the true order and reject true nulls too often. Whole rows
move, so that correlations between neurons stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from actkit.analyses.unit_matching_folds import Folds
from actkit.analyses.unit_matching_kernel import Best, Targets
from actkit.compute import spans
from actkit.errors import InputError
from actkit.resampling import Stream, generator

__all__ = ["draw_orders", "null_targets", "null_values", "permutation_p"]

_WIDE = 512  # permuted neurons of one product


def draw_orders(n: int, count: int, labels: np.ndarray | None, groups: np.ndarray | None, seed: int) -> np.ndarray:
    """Draw orders of the stimuli.

    Parameters
    ----------
    n : int
        Number of stimuli.
    count : int
        Number of orders.
    labels : numpy.ndarray or None
        ``(n,)`` categories within which stimuli move; None: they move freely.
    groups : numpy.ndarray or None
        ``(n,)`` groups that move as a whole, into the place of a group of the same size (and the same categories).
    seed : int
        Seed of the analysis; order k is stream ``(seed, k)``, k from 1.

    Returns
    -------
    numpy.ndarray of int64
        ``(count, n)``: the stimulus whose responses each stimulus is given.

    Raises
    ------
    InputError
        If no stimulus can move.
    """
    words = np.zeros(n, dtype=np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    if groups is None:
        pools = [np.flatnonzero(words == word)[:, None] for word in np.unique(words)]
    else:
        alike: dict[tuple[int, ...], list[np.ndarray]] = {}
        for group in np.unique(groups):
            # Members in the order of their categories, so that equal groups exchange equal categories.
            members = np.flatnonzero(groups == group)
            members = members[np.argsort(words[members], kind="stable")]
            alike.setdefault(tuple(words[members].tolist()), []).append(members)
        pools = [np.stack(members) for members in alike.values()]
    if count and all(len(pool) < 2 for pool in pools):
        raise InputError(
            "no stimulus has another one of its category and group size to change places with, so there is no null; "
            "use null='free', coarser labels, or n_permutations=0"
        )
    orders = np.empty((count, n), dtype=np.int64)
    for draw in range(count):
        random = generator(seed, draw + 1, Stream.PERMUTATIONS)
        for pool in pools:
            orders[draw, pool] = pool[random.permutation(len(pool))]
    return orders


def null_targets(observed: Targets, orders: np.ndarray, folds: Folds) -> Iterator[Targets]:
    """Gather orders into wide sets of neurons.

    Parameters
    ----------
    observed : Targets
        The recorded neurons.
    orders : numpy.ndarray of int
        ``(k, n)`` orders of the stimuli.
    folds : Folds
        Stimuli sorted by fold.

    Yields
    ------
    Targets
        Some hundred permuted neurons at a time.
    """
    # Orders are over stimuli; the rows of Targets are sorted by fold.
    position = np.empty(len(folds.order), dtype=np.int64)
    position[folds.order] = np.arange(len(position))
    sorted_orders = position[orders[:, folds.order]]
    for start, stop in spans(len(orders), max(1, _WIDE // len(observed.values))):
        yield observed.permuted(sorted_orders[start:stop], folds)


def null_values(found: Sequence[Best], n_neurons: int) -> np.ndarray:
    """Held-out correlations under the null, averaged over folds as the observed ones are: over those that have one.

    Parameters
    ----------
    found : sequence of Best
        Matches of the permuted neurons.
    n_neurons : int
        Number of recorded neurons.

    Returns
    -------
    numpy.ndarray of float64
        ``(permutations, neurons)``; NaN where no fold has a value.
    """
    parts = [np.empty((0, n_neurons))]
    for best in found:
        known = np.isfinite(best.held_out)
        count, total = known.sum(axis=0), np.where(known, best.held_out, 0).sum(axis=0)
        parts.append(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0).reshape(-1, n_neurons))
    return np.concatenate(parts)


def permutation_p(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """One-sided p-values, the observed order counted among the permutations (Phipson & Smyth, 2010).

    Parameters
    ----------
    observed : numpy.ndarray
        ``(neurons,)``.
    null : numpy.ndarray
        ``(permutations, neurons)``.

    Returns
    -------
    numpy.ndarray of float64
        ``(1 + #{null >= observed}) / (1 + permutations)``, of permutations that have a value; NaN without permutations
        or an observed value.
    """
    if not len(null):
        return np.full(observed.shape, np.nan)
    p = (1 + (null >= observed).sum(axis=0)) / (1 + np.isfinite(null).sum(axis=0))
    return np.where(np.isnan(observed), np.nan, p)
