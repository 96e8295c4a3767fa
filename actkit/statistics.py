"""Standard errors, intervals and corrected p-values: small closed forms that the analyses share."""

from __future__ import annotations

import numpy as np
from scipy import stats

from actkit.errors import InputError


def standard_error(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Estimate the standard error of a mean over independent scores.

    Parameters
    ----------
    scores : numpy.ndarray
        Scores, one for each subject along `axis`.
    axis : int
        The axis of the subjects.

    Returns
    -------
    numpy.ndarray
        ``std(ddof=1) / sqrt(n)``; NaN for fewer than two subjects.
    """
    n = scores.shape[axis]
    if n < 2:
        return np.full(np.delete(scores.shape, axis), np.nan)
    return np.asarray(np.std(scores, axis=axis, ddof=1) / np.sqrt(n))


def variance_over_draws(draws: np.ndarray) -> np.ndarray:
    """Estimate the variance over bootstrap draws, leaving out the undefined ones.

    Parameters
    ----------
    draws : numpy.ndarray
        ``(draws, …)``; NaN marks a draw without a value.

    Returns
    -------
    numpy.ndarray
        ``(…)`` variance with ``ddof=1``; NaN where fewer than two draws are defined.
    """
    defined = ~np.isnan(draws)
    count = defined.sum(axis=0)
    filled = np.where(defined, draws, 0.0)
    mean = filled.sum(axis=0) / np.maximum(count, 1)
    squares = np.where(defined, (draws - mean) ** 2, 0.0).sum(axis=0)
    return np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan)


def small_sample(variance: np.ndarray, n: int) -> np.ndarray:
    """Correct a bootstrap variance for the size of the sample that was drawn from.

    Parameters
    ----------
    variance : numpy.ndarray
        Variance over bootstrap draws.
    n : int
        Number of stimuli or subjects that were resampled.

    Returns
    -------
    numpy.ndarray
        ``n / (n - 1)`` times the variance: a bootstrap of a mean has the variance of the sample, whose divisor is n.
    """
    return variance * (n / (n - 1)) if n > 1 else np.full_like(variance, np.nan)


def two_factor_variance(
    both: np.ndarray, subject: np.ndarray, stimulus: np.ndarray, n_subjects: int, n_stimuli: int
) -> np.ndarray:
    """Estimate the variance of a score that generalises to new subjects and new stimuli.

    Resampling both factors at once counts the noise of each measurement three times, and the sum of the two one-factor
    variances counts it twice; their difference estimates it once: ``2 (σ²_subject + σ²_stimulus) − σ²_both``. This is
    the form for small samples, in which each factor carries its own n / (n − 1).

    Parameters
    ----------
    both, subject, stimulus : numpy.ndarray
        Uncorrected bootstrap variances when both factors, subjects only, or stimuli only are resampled.
    n_subjects, n_stimuli : int
        Sample sizes.

    Returns
    -------
    numpy.ndarray
        At least each corrected one-factor variance, and at most the variance of resampling both.

    References
    ----------
    Schütt, Kipnis, Diedrichsen & Kriegeskorte (2023), Statistical inference on representational geometries, eLife 12.
    """
    a = small_sample(subject, n_subjects)
    b = small_sample(stimulus, n_stimuli)
    interaction = small_sample(small_sample(both - subject - stimulus, n_subjects), n_stimuli)
    return np.minimum(np.maximum(np.maximum(a + b - interaction, a), b), both)


def t_interval(mean: np.ndarray, error: np.ndarray, dof: int, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Put a t interval around a mean.

    Parameters
    ----------
    mean, error : numpy.ndarray
        Estimate and its standard error.
    dof : int
        Degrees of freedom.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper limit; NaN without degrees of freedom.

    Raises
    ------
    InputError
        If the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"an interval has a level between 0 and 1, not {level}; 0.95 is usual")
    reach = stats.t.ppf((1 + level) / 2, dof) if dof > 0 else np.nan
    return mean - reach * error, mean + reach * error


class MaximumStatistic:
    """Collect one-sided permutation p-values of many scores, corrected by the maximum over each family.

    The corrected p-value of a score is the share of permutations, the observed labelling among them, in which the
    largest score of its family is at least as large. This controls the family-wise error rate whatever the dependence
    between the scores. Source: Nichols & Holmes (2002), Nonparametric permutation tests for functional neuroimaging.

    Parameters
    ----------
    observed : numpy.ndarray
        ``(scores,)``; NaN for an undefined score, which takes no part.
    family : numpy.ndarray
        ``(scores,)`` name of the family of each score.
    """

    # Permutations that map an RDM onto itself give the observed score up to rounding, and must count as reaching it.
    _ROUNDING = 1e-10

    def __init__(self, observed: np.ndarray, family: np.ndarray) -> None:
        self.observed = np.asarray(observed, dtype=np.float64)
        self.family = np.asarray(family)
        self.defined = ~np.isnan(self.observed)
        self.count = 0
        self._alone = np.zeros(len(self.observed), dtype=np.int64)
        self._corrected = np.zeros(len(self.observed), dtype=np.int64)

    def add(self, scores: np.ndarray) -> None:
        """Count a block of permutations.

        Parameters
        ----------
        scores : numpy.ndarray
            ``(scores, permutations)``.
        """
        bar = (self.observed - self._ROUNDING)[:, None]
        self._alone += (scores >= bar).sum(axis=1)
        for name in np.unique(self.family):
            members = (self.family == name) & self.defined
            if members.any():
                self._corrected[members] += (scores[members].max(axis=0) >= bar[members]).sum(axis=1)
        self.count += scores.shape[1]

    def p_values(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the p-values of what was counted so far.

        Returns
        -------
        tuple of numpy.ndarray
            Corrected and uncorrected p-values, ``(scores,)``; NaN for an undefined score.
        """
        if self.count == 0:
            nothing = np.full(len(self.observed), np.nan)
            return nothing, nothing.copy()
        return (
            np.where(self.defined, self._corrected / self.count, np.nan),
            np.where(self.defined, self._alone / self.count, np.nan),
        )
