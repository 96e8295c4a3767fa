"""Scores of held-out predictions, as every encoding model reports them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from actkit.analyses.neuron_reliability import noise_correct

Variables = dict[str, tuple[Sequence[str], np.ndarray, dict[str, str]]]


def correlation(predicted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Pearson correlation of columns.

    Parameters
    ----------
    predicted, observed : numpy.ndarray
        ``(n, n_neurons)``.

    Returns
    -------
    numpy.ndarray
        ``(n_neurons,)``; NaN where one of the two does not vary beyond rounding.
    """
    # Sums of products come from one sweep each, without an array of normalised values; held-out folds are correlated
    # by the thousand under permutations.
    means = predicted.mean(axis=0), observed.mean(axis=0)
    a, b = predicted - means[0], observed - means[1]
    squares = [np.einsum("ij,ij->j", one, one) for one in (a, b)]
    for square, mean in zip(squares, means, strict=True):
        # A spread of a few rounding steps is none.
        square[square <= 1e-24 * len(a) * mean**2 + np.finfo(float).tiny] = np.nan
    return np.clip(np.einsum("ij,ij->j", a, b) / np.sqrt(squares[0]) / np.sqrt(squares[1]), -1, 1)


def mean_of_defined(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over what is defined along an axis.

    Parameters
    ----------
    values : numpy.ndarray
        Scores, some of them NaN.
    axis : int
        The axis.

    Returns
    -------
    numpy.ndarray
        NaN where nothing is defined.
    """
    defined = np.isfinite(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def median_of_defined(values: np.ndarray, axis: int) -> np.ndarray:
    """Median over what is defined along an axis.

    Parameters
    ----------
    values : numpy.ndarray
        Scores, some of them NaN.
    axis : int
        The axis.

    Returns
    -------
    numpy.ndarray
        NaN where nothing is defined.
    """
    moved = np.moveaxis(values, axis, -1)
    answer = np.full(moved.shape[:-1], np.nan)
    some = np.isfinite(moved).any(axis=-1)
    if some.any():
        answer[some] = np.nanmedian(moved[some], axis=-1)
    return answer


def explained_variance(error: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Share of the held-out variance that predictions explain, 1 − squared error / squared deviation.

    Parameters
    ----------
    error : numpy.ndarray
        Squared errors summed over stimuli.
    spread : numpy.ndarray
        Squared deviations from the training mean, summed in the same way.

    Returns
    -------
    numpy.ndarray
        NaN for a neuron that does not vary.
    """
    return 1 - error / np.where(spread > 0, spread, np.nan)


def divided(share: np.ndarray, rho: np.ndarray, floor: float) -> np.ndarray:
    """Shares of variance as shares of what is not noise.

    Noise that is not in the training stimuli adds its variance to error and deviation alike, so that the share that the
    noise-free response would give is ``share / ρ`` exactly, for negative shares and for parts of a share too.

    Parameters
    ----------
    share : numpy.ndarray
        ``(..., n_neurons)`` shares of the variance of averages.
    rho : numpy.ndarray
        ``(n_neurons,)`` their reliability.
    floor : float
        Least reliability that is divided by.

    Returns
    -------
    numpy.ndarray
        As `share`; NaN below the floor.
    """
    usable = rho >= max(floor, np.finfo(np.float64).tiny)  # False for NaN
    return share / np.where(usable, rho, np.nan)


def about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit.

    Parameters
    ----------
    long_name : str
        What it is, in words.

    Returns
    -------
    dict
        ``long_name`` and ``units``.
    """
    return {"long_name": long_name, "units": "1"}


def score_variables(
    r_fold: np.ndarray,
    error: np.ndarray,
    spread: np.ndarray,
    rho: np.ndarray | None,
    floor: float,
    lead: tuple[str, ...] = (),
) -> Variables:
    """Lay out the scores that all encoding results share.

    Parameters
    ----------
    r_fold : numpy.ndarray
        ``(*lead, n_folds, n_neurons)`` correlations.
    error, spread : numpy.ndarray
        ``(*lead, n_neurons)`` squared errors and squared deviations over all folds.
    rho : numpy.ndarray or None
        ``(n_neurons,)`` reliabilities.
    floor : float
        Least reliability that is divided by.
    lead : tuple of str
        Dims before fold and neuron.

    Returns
    -------
    dict
        Variables for :class:`xarray.Dataset`.
    """
    both, every = (*lead, "neuron"), (*lead, "fold", "neuron")
    r, share = mean_of_defined(r_fold, axis=-2), explained_variance(error, spread)
    data: dict[str, Any] = {
        "r": (both, r, about("held-out correlation, mean over folds")),
        "r2": (both, r * np.abs(r), about("squared held-out correlation, with its sign")),
        "explained_variance": (both, share, about("held-out share of variance explained (1 − error / deviation)")),
        "r_fold": (every, r_fold, about("held-out correlation in each fold")),
    }
    if rho is not None:
        data |= {
            "reliability": ("neuron", rho, about("reliability of the average over repetitions")),
            "ceiling": ("neuron", np.sqrt(np.clip(rho, 0, None)), about("highest r of a model without noise, √ρ")),
            "r_corrected": (both, noise_correct(r, rho, floor=floor), about("noise-corrected correlation r/√ρ")),
            "r2_corrected": (
                both,
                noise_correct(r, rho, by="r2/rho", floor=floor),
                about("noise-corrected squared correlation r²/ρ"),
            ),
            "explained_variance_corrected": (
                both,
                divided(share, rho, floor),
                about("held-out share of the noise-free variance explained"),
            ),
        }
    return data
