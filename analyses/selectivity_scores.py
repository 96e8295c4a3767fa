"""Scores of selectivity for two sets of stimuli: one labelling exactly, or many labellings at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

Measure = Literal["index", "d_prime", "t", "cliff_delta"]

LEAST = {"index": 1, "d_prime": 2, "t": 2, "cliff_delta": 1}
"""Stimuli that each side needs."""

THRESHOLDS = {"index": 1 / 3, "d_prime": 1.0, "t": 3.0, "cliff_delta": 0.5}
"""From where a unit counts as selective when nothing is tested: twice the response of the other side, means one pooled
standard deviation apart, means three standard errors apart, and a stimulus of the preferred side above one of the other
side in three pairs of four."""

_TINY = 1e-13  # of a unit's variance: below, a variance is rounding


def score(a: np.ndarray, b: np.ndarray, measure: Measure) -> np.ndarray:
    """Score units by their responses to two sets of stimuli.

    Parameters
    ----------
    a, b : numpy.ndarray
        ``(n_a, units)`` and ``(n_b, units)`` responses.
    measure : {"index", "d_prime", "t", "cliff_delta"}
        With m the means, v the unbiased variances: the index (m_a - m_b) / (m_a + m_b), responses from 0 up;
        d' = (m_a - m_b) / sqrt((v_a + v_b) / 2); Welch's t = (m_a - m_b) / sqrt(v_a / n_a + v_b / n_b); Cliff's delta
        P(a > b) - P(a < b), which is 2 AUC - 1 of the ROC curve.

    Returns
    -------
    numpy.ndarray of float64
        ``(units,)``; positive where `a` gives more. NaN where a unit responds alike to all stimuli, or there are too
        few; infinite d' and t where responses differ between the sides and not within.
    """
    n_a, n_b = len(a), len(b)
    if min(n_a, n_b) < LEAST[measure]:
        return np.full(a.shape[1], np.nan)
    low, high = np.minimum(a.min(axis=0), b.min(axis=0)), np.maximum(a.max(axis=0), b.max(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        if measure == "cliff_delta":
            ranks = stats.rankdata(np.concatenate([a, b]), axis=0)
            result = (2 * ranks[:n_a].sum(axis=0) - n_a * (n_a + 1)) / (n_a * n_b) - 1
        else:
            m_a, m_b = a.mean(axis=0), b.mean(axis=0)
            if measure == "index":
                result = (m_a - m_b) / (m_a + m_b)
            else:
                v_a, v_b = a.var(axis=0, ddof=1), b.var(axis=0, ddof=1)
                # Equal values have a mean that may be rounded, hence a variance that is not quite 0.
                v_a[a.min(axis=0) == a.max(axis=0)] = 0
                v_b[b.min(axis=0) == b.max(axis=0)] = 0
                spread = (v_a + v_b) / 2 if measure == "d_prime" else v_a / n_a + v_b / n_b
                result = (m_a - m_b) / np.sqrt(spread)
    return np.where(low == high, np.nan, result)


class ManyLabellings:
    """Score units under many labellings of the same stimuli, by matrix products.

    Parameters
    ----------
    responses : numpy.ndarray
        ``(n, units)`` responses to the stimuli of both sides.
    measure : {"index", "d_prime", "t", "cliff_delta"}
        As for :func:`score`.
    """

    def __init__(self, responses: np.ndarray, measure: Measure) -> None:
        self.measure = measure
        if measure == "cliff_delta":
            self.values = stats.rankdata(responses, axis=0)
        elif measure == "index":
            self.values = responses
        else:
            # Neither score sees shift and scale of a unit; without them, the sums of squares lose no digits.
            centred = responses - responses.mean(axis=0)
            spread = np.sqrt(np.mean(centred**2, axis=0))
            self.values = centred / np.where(spread > 0, spread, 1.0)
            self.squares = self.values**2

    def __call__(self, members: np.ndarray) -> np.ndarray:
        """Score every unit under every labelling.

        Parameters
        ----------
        members : numpy.ndarray of bool
            ``(labellings, n)``: the stimuli of side a; all others are side b.

        Returns
        -------
        numpy.ndarray of float64
            ``(labellings, units)``; NaN where there are too few stimuli on a side.
        """
        inside = members.astype(np.float64)
        n_a = inside.sum(axis=1)[:, None]
        n_b = members.shape[1] - n_a
        sum_a = inside @ self.values
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.measure == "cliff_delta":
                return (2 * sum_a - n_a * (n_a + 1)) / (n_a * n_b) - 1
            m_a, m_b = sum_a / n_a, (self.values.sum(axis=0) - sum_a) / n_b
            if self.measure == "index":
                return (m_a - m_b) / (m_a + m_b)
            squares = inside @ self.squares
            v_a = (squares - n_a * m_a**2) / (n_a - 1)
            v_b = (self.squares.sum(axis=0) - squares - n_b * m_b**2) / (n_b - 1)
            v_a, v_b = np.maximum(v_a, _TINY), np.maximum(v_b, _TINY)
            spread = (v_a + v_b) / 2 if self.measure == "d_prime" else v_a / n_a + v_b / n_b
            return np.where(np.minimum(n_a, n_b) < 2, np.nan, (m_a - m_b) / np.sqrt(spread))
