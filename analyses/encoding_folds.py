"""Folds of encoding models, outer and inner, that keep groups of stimuli whole."""

from __future__ import annotations

import numpy as np

from actkit.errors import InputError
from actkit.resampling import Stream, generator

_FEWEST = 3  # stimuli in a test fold; fewer have no correlation


def deal(groups: np.ndarray, folds: int, seed: int, number: int) -> np.ndarray:
    """Deal whole groups in random order, each to the fold that has the fewest stimuli so far.

    Parameters
    ----------
    groups : numpy.ndarray
        ``(n_stimuli,)`` group of each stimulus.
    folds : int
        Number of folds.
    seed : int
        Seed of the analysis.
    number : int
        Number of the deal: 0 for the outer folds, 1 + fold for the inner ones.

    Returns
    -------
    numpy.ndarray of int
        ``(n_stimuli,)`` fold of each stimulus; without groups, sizes differ by one at most.
    """
    _, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)  # by first stimulus, so that the names of groups do not matter
    filled, fold_of = np.zeros(folds, dtype=np.int64), np.empty(len(first), dtype=np.int64)
    for group in order[generator(seed, number, Stream.STIMULI).permutation(len(first))]:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[inverse]


def check_folds(test_fold: np.ndarray, groups: np.ndarray, folds: int, inner_folds: int) -> None:
    """Refuse folds in which nothing can be correlated or chosen.

    Parameters
    ----------
    test_fold : numpy.ndarray of int
        ``(n_stimuli,)`` fold in which each stimulus is held out.
    groups : numpy.ndarray
        ``(n_stimuli,)`` groups.
    folds, inner_folds : int
        Numbers of folds; 0 inner folds: nothing is chosen.

    Raises
    ------
    InputError
        If a fold has fewer than three stimuli, or a training set has fewer groups than inner folds.
    """
    sizes = np.bincount(test_fold, minlength=folds)
    n_groups = len(np.unique(groups))
    if sizes.min() < _FEWEST:
        among = f" in {n_groups} groups" if n_groups < len(groups) else ""
        raise InputError(
            f"{len(groups)} stimuli{among} leave {sizes.min()} in one of {folds} folds, and a correlation needs "
            f"{_FEWEST}; use fewer folds or more stimuli"
        )
    fewest = min(len(np.unique(groups[test_fold != fold])) for fold in range(folds))
    if fewest < inner_folds:
        raise InputError(
            f"inner_folds={inner_folds}: a training set has {fewest} groups of stimuli only; use fewer inner folds, or "
            "give a single penalty"
        )
