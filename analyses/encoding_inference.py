"""How sure an encoding result is: bootstrap intervals of medians, and permutation tests of single neurons."""

from __future__ import annotations

from typing import Literal

import numpy as np

from actkit.analyses.encoding_models import FoldModel
from actkit.analyses.encoding_scores import correlation, median_of_defined
from actkit.compute import spans
from actkit.resampling import Stream, bootstrap_weights

Over = Literal["neuron", "stimulus", "both"]

LEVEL = 0.95
_STIMULI = 2**62  # first number of the draws of stimuli: folds are dealt with the numbers from 0
_COLUMNS = 1024  # permuted neurons that are fitted together


def median_interval(values: np.ndarray, n_draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of medians over neurons.

    Parameters
    ----------
    values : numpy.ndarray
        ``(..., n_neurons)`` scores; a neuron without a score is left out.
    n_draws : int
        Samples of neurons with replacement.
    seed : int
        Seed of the draws.

    Returns
    -------
    low, high : numpy.ndarray
        ``(...)`` ends of the 95 % intervals; NaN without draws or with fewer than two neurons.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    shape, rows = values.shape[:-1], values.reshape(-1, values.shape[-1])
    ends = np.full((2, len(rows)), np.nan)
    drawn: dict[int, np.ndarray] = {}
    for number, row in enumerate(rows):
        known = row[np.isfinite(row)]
        if len(known) < 2 or n_draws < 1:
            continue
        if len(known) not in drawn:
            drawn[len(known)] = _as_indices(bootstrap_weights(len(known), n_draws, seed, stream=Stream.SUBJECTS))
        ends[:, number] = _percentiles(np.median(known[drawn[len(known)]], axis=1))
    return ends[0].reshape(shape), ends[1].reshape(shape)


def resampled_correlations(
    predicted: np.ndarray, observed: np.ndarray, test_fold: np.ndarray, groups: np.ndarray, n_draws: int, seed: int
) -> np.ndarray:
    """Held-out correlations of resampled stimuli, whole groups together; the fits stay as they are.

    Parameters
    ----------
    predicted, observed : numpy.ndarray
        ``(n, n_neurons)`` held-out predictions and responses.
    test_fold : numpy.ndarray of int
        ``(n,)`` fold in which each stimulus was held out.
    groups : numpy.ndarray of int
        ``(n,)`` groups, numbered from 0.
    n_draws : int
        Samples of groups with replacement.
    seed : int
        Seed of the draws.

    Returns
    -------
    numpy.ndarray
        ``(n_draws, n_neurons)`` mean over folds of the correlation within the fold.
    """
    weights = bootstrap_weights(int(groups.max()) + 1, n_draws, seed, start=_STIMULI)[:, groups].astype(np.float64)
    total = np.zeros((n_draws, observed.shape[1]))
    count = np.zeros_like(total)
    for fold in np.unique(test_fold):
        rows = test_fold == fold
        w, x, y = weights[:, rows], predicted[rows], observed[rows]
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        size = np.maximum(w.sum(axis=1, keepdims=True), 1)
        mx, my = w @ x / size, w @ y / size
        vx, vy = w @ x**2 / size - mx**2, w @ y**2 / size - my**2
        # A draw of copies of one stimulus has no variance but for rounding, and no correlation.
        defined = (vx > 1e-12 * (x**2).mean(axis=0)) & (vy > 1e-12 * (y**2).mean(axis=0))
        r = (w @ (x * y) / size - mx * my) / np.sqrt(np.where(defined, vx * vy, 1.0))
        total += np.where(defined, np.clip(r, -1, 1), 0.0)
        count += defined
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def resampled_median_interval(r: np.ndarray, neurons_too: bool, seed: int) -> tuple[float, float]:
    """Interval of the median over neurons from resampled stimuli, and resampled neurons if wanted.

    Parameters
    ----------
    r : numpy.ndarray
        ``(n_draws, n_neurons)``, what :func:`resampled_correlations` gives.
    neurons_too : bool
        Whether neurons are drawn anew with every draw of stimuli.
    seed : int
        Seed of the draws of neurons.

    Returns
    -------
    low, high : float
        Ends of the 95 % interval.
    """
    if not len(r):
        return np.nan, np.nan
    if neurons_too:
        picked = _as_indices(bootstrap_weights(r.shape[1], len(r), seed, stream=Stream.SUBJECTS))
        r = np.take_along_axis(r, picked, axis=1)
    low, high = _percentiles(median_of_defined(r, axis=1))
    return float(low), float(high)


def null_correlations(model: FoldModel, responses: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Held-out correlations in one fold with permuted responses, everything that depends on the responses done anew.

    Parameters
    ----------
    model : FoldModel
        The fold.
    responses : numpy.ndarray
        ``(n, n_neurons)``.
    orders : numpy.ndarray of int
        ``(n_permutations, n)``: the stimulus whose responses each stimulus is given.

    Returns
    -------
    numpy.ndarray
        ``(n_permutations, n_neurons)``.
    """
    q, null = responses.shape[1], np.empty((len(orders), responses.shape[1]))
    # PLS components depend on all neurons together, so that its permutations cannot share a fit.
    wide = 1 if model.model == "pls" else max(1, _COLUMNS // q)
    for start, stop in spans(len(orders), wide):
        block = responses[orders[start:stop]]  # (permutations, n, neurons)
        columns = block.transpose(1, 0, 2).reshape(len(responses), -1)
        null[start:stop] = correlation(model.fit(columns).predicted, columns[model.test]).reshape(stop - start, q)
    return null


def one_sided_p(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """One-sided p-values, the observed order counted among the permutations.

    Parameters
    ----------
    observed : numpy.ndarray
        ``(...)`` scores.
    null : numpy.ndarray
        ``(n_permutations, ...)``; an undefined one counts as reaching the observed score.

    Returns
    -------
    numpy.ndarray
        ``(1 + #{null ≥ observed}) / (1 + n_permutations)``; NaN without an observed score.

    References
    ----------
    Phipson & Smyth (2010), Permutation p-values should never be zero, Stat. Appl. Genet. Mol. Biol. 9.
    """
    p = (1 + (~(null < observed)).sum(axis=0)) / (1 + len(null))
    return np.where(np.isnan(observed), np.nan, p)


def _as_indices(weights: np.ndarray) -> np.ndarray:
    """Multiplicities ``(n_draws, n)`` as the numbers of those drawn, ``(n_draws, n)``."""
    n = weights.shape[1]
    return np.repeat(np.tile(np.arange(n), len(weights)), weights.ravel()).reshape(len(weights), n)


def _percentiles(draws: np.ndarray) -> np.ndarray:
    """Ends of the interval ``(2,)``."""
    known = draws[np.isfinite(draws)]
    return np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(known) else np.full(2, np.nan)
