"""From what each part knows of each sub-task to one number: chance correction, part indices, specialization S.

Source: Béna & Goodman, Dynamics of specialization in neural modules under resource constraints, Nature Communications
16:187 (2025), for two parts and two sub-tasks; the form for more is the mean over pairs of parts, which agrees with it.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.stats import binom

from actkit.errors import InputError

__all__ = ["beats_chance", "correct_for_chance", "part_index", "raw_difference", "specialization_of"]


def correct_for_chance(accuracy: np.ndarray, chance: np.ndarray | float) -> np.ndarray:
    """Rescale accuracies so that chance is 0 and perfection 1: ``clip((a − c) / (1 − c), 0, 1)``.

    The code published with the paper computes ``a − 0.1 / 0.9`` by the order of its operators, where this form was
    evidently meant.

    Parameters
    ----------
    accuracy : numpy.ndarray
        Shares of right answers.
    chance : numpy.ndarray or float
        Share that guessing reaches, broadcast against the accuracies.

    Returns
    -------
    numpy.ndarray
        From 0 to 1.

    Raises
    ------
    InputError
        If chance is not below 1.
    """
    chance = np.asarray(chance, dtype=np.float64)
    if not (chance < 1).all() or (chance < 0).any():
        raise InputError(f"chance of {float(np.max(chance)):g} leaves nothing to know; give a share from 0 to below 1")
    return np.clip((np.asarray(accuracy, dtype=np.float64) - chance) / (1 - chance), 0.0, 1.0)


def beats_chance(
    accuracy: np.ndarray, chance: np.ndarray | float, n: int | np.ndarray, level: float = 0.99
) -> np.ndarray:
    """Tell accuracies that guessing would not reach.

    Parameters
    ----------
    accuracy : numpy.ndarray
        Shares of right answers.
    chance : numpy.ndarray or float
        Share that guessing reaches.
    n : int or numpy.ndarray of int
        Number of answers, broadcast against the accuracies.
    level : float
        Guessing gives more right answers than the bound in at most ``1 - level`` of the cases (exact binomial).

    Returns
    -------
    numpy.ndarray of bool
        Whether there are more right answers than the bound.
    """
    bound = binom.ppf(level, n, np.asarray(chance, dtype=np.float64))
    return np.rint(np.asarray(accuracy, dtype=np.float64) * n) > bound


def part_index(known: np.ndarray) -> np.ndarray:
    """Say which of two sub-tasks a part knows: ``(M₀ − M₁) / (M₀ + M₁)``.

    Parameters
    ----------
    known : numpy.ndarray
        ``(…, part, 2)`` what each part knows of each sub-task, chance being 0.

    Returns
    -------
    numpy.ndarray
        ``(…, part)``: 1 only the first, -1 only the second, 0 both alike; NaN where it knows neither.

    Raises
    ------
    InputError
        If there are not two sub-tasks.
    """
    known = np.asarray(known, dtype=np.float64)
    if known.shape[-1] != 2:
        raise InputError(f"a part index is of two sub-tasks, and there are {known.shape[-1]}; use specialization_of")
    total = known.sum(axis=-1)
    return np.divide(known[..., 0] - known[..., 1], total, out=np.full(total.shape, np.nan), where=total != 0)


def specialization_of(known: np.ndarray, defined: np.ndarray | None = None) -> np.ndarray:
    """Specialization S: how differently parts divide what they know between the sub-tasks.

    Each part's row is divided by its sum, and S is half the absolute difference of two parts' rows, summed over
    sub-tasks (their total variation distance), mean over pairs of parts. For two parts and two sub-tasks it is
    ``|s(0) − s(1)| / 2`` with the indices of :func:`part_index`. A part that knows nothing divides evenly.

    Parameters
    ----------
    known : numpy.ndarray
        ``(…, part, sub-task)`` what each part knows of each sub-task, chance being 0.
    defined : numpy.ndarray of bool, optional
        ``(…)`` where S is defined; elsewhere it is NaN. By default where any part knows anything.

    Returns
    -------
    numpy.ndarray
        ``(…)``: 1 where every part knows one sub-task of its own, 0 where all are alike. Not clipped: with negative
        values (as correlations may have), S can exceed 1.

    Raises
    ------
    InputError
        If there are fewer than two parts or sub-tasks.
    """
    known = np.asarray(known, dtype=np.float64)
    if known.ndim < 2 or known.shape[-2] < 2 or known.shape[-1] < 2:
        raise InputError(
            f"specialization compares two parts and two sub-tasks at least, and there are {known.shape[-2:]}; give more"
        )
    total = known.sum(axis=-1, keepdims=True)
    even = np.full(known.shape, 1 / known.shape[-1])
    share = np.divide(known, total, out=even, where=total != 0)
    pairs = [
        np.abs(share[..., a, :] - share[..., b, :]).sum(axis=-1) / 2 for a, b in combinations(range(known.shape[-2]), 2)
    ]
    s = np.mean(pairs, axis=0)
    if defined is None:
        defined = (known != 0).any(axis=(-2, -1))
    return np.where(defined & np.isfinite(known).all(axis=(-2, -1)), s, np.nan)


def raw_difference(accuracy: np.ndarray) -> np.ndarray:
    """Difference of parts without any division, which stands beside S: what the parts differ by, in accuracy.

    Parameters
    ----------
    accuracy : numpy.ndarray
        ``(…, part, sub-task)`` as measured.

    Returns
    -------
    numpy.ndarray
        ``(…)`` half the absolute difference of two parts' rows, each less its mean over sub-tasks, summed over
        sub-tasks, mean over pairs of parts: ``|(a₀₀ − a₀₁) − (a₁₀ − a₁₁)| / 2`` for two of each.
    """
    accuracy = np.asarray(accuracy, dtype=np.float64)
    own = accuracy - accuracy.mean(axis=-1, keepdims=True)
    pairs = combinations(range(accuracy.shape[-2]), 2)
    return np.mean([np.abs(own[..., a, :] - own[..., b, :]).sum(axis=-1) / 2 for a, b in pairs], axis=0)
