"""Standard errors, intervals and corrected p-values: small closed forms that the analyses share."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

from actkit.errors import InputError

Correction = Literal["fdr", "holm", "none"]
Side = Literal["greater", "less", "two-sided"]

# What single pairs contribute is estimated with noise: below this share of the jackknife variance it is not believed.
_LEAST_SHARE = 1 / 3


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


def variance_over_splits(draws: np.ndarray) -> np.ndarray:
    """Estimate the variance over bootstrap draws that were cross-validated several times each.

    The mean of R random splits carries a share 1/R of the noise that the choice of the split adds, a single split all
    of it, so that ``(R · var_mean − var_1) / (R − 1)`` is free of it.

    Parameters
    ----------
    draws : numpy.ndarray
        ``(draws, splits, …)``; NaN marks a split without a value, and the draw is then left out.

    Returns
    -------
    numpy.ndarray
        ``(…)`` variance over draws; with one split the plain variance. Where the noise of the split drowns the rest and
        the difference is not positive, the variance of the mean stands, which is too large: an error of 0 would make
        everything significant.

    References
    ----------
    Schütt, Kipnis, Diedrichsen & Kriegeskorte (2023), Statistical inference on representational geometries, eLife 12.
    """
    repeats = draws.shape[1]
    whole = np.where(np.isnan(draws).any(axis=1, keepdims=True), np.nan, draws)
    of_mean = variance_over_draws(whole.mean(axis=1))
    if repeats == 1:
        return of_mean
    of_one = variance_over_draws(whole).mean(axis=0)
    without = (repeats * of_mean - of_one) / (repeats - 1)
    return np.where(without > 0, without, of_mean)


def jackknife_variance(values: np.ndarray) -> np.ndarray:
    """Estimate the variance of a statistic from its values with each observation left out in turn.

    Parameters
    ----------
    values : numpy.ndarray
        ``(n, …)`` the statistic without observation 0, 1, ….

    Returns
    -------
    numpy.ndarray
        ``(…)``: ``(n − 1) / n · Σ (θ₋ᵢ − mean)²``; for a mean the square of its standard error. NaN where a value is
        missing or there are fewer than two.

    References
    ----------
    Efron & Stein (1981), The jackknife estimate of variance, Annals of Statistics 9.
    """
    n = len(values)
    if n < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(np.square(values - values.mean(axis=0)).sum(axis=0) * ((n - 1) / n))


def jackknife_dof(values: np.ndarray) -> np.ndarray:
    """Estimate the degrees of freedom of a jackknife variance.

    A variance has the degrees of freedom 2 V² / var(V) (Satterthwaite). For n values of kurtosis κ that is about
    2 n / (κ − 1): n for normal values, fewer where single observations dominate. The kurtosis is estimated with the
    usual correction for small samples (unbiased for normal values).

    Parameters
    ----------
    values : numpy.ndarray
        ``(n, …)`` the statistic with each observation left out in turn.

    Returns
    -------
    numpy.ndarray
        ``(…)`` between 1 and n − 1; NaN where a value is missing.

    References
    ----------
    Satterthwaite (1946), An approximate distribution of estimates of variance components, Biometrics Bulletin 2.
    """
    n = len(values)
    squares = np.square(values - values.mean(axis=0))
    second, fourth = squares.mean(axis=0), np.square(squares).mean(axis=0)
    if n < 4:
        return np.where(np.isnan(second), np.nan, n - 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        biased = fourth / np.square(second) - 3
        kurtosis = 3 + (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * biased + 6)
        dof = np.where(kurtosis > 1, 2 * n / (kurtosis - 1), n - 1.0)
    return np.where(np.isnan(second), np.nan, np.clip(np.nan_to_num(dof, nan=n - 1.0), 1, n - 1))


def pair_corrected_variance(bootstrap: np.ndarray, jackknife: np.ndarray, n: int) -> np.ndarray:
    """Estimate the variance, over samples of stimuli, of a statistic made of pairs of stimuli.

    Such a statistic varies because stimuli differ (σ²) and because single pairs do (τ²). Leaving out stimuli counts
    the pairs twice, σ² + 2 τ² (Efron & Stein), and drawing them with replacement three times, σ² + 3 τ²: the variance
    of a product of two Poisson multiplicities is 3. Hence ``2 · jackknife − bootstrap`` is σ² + τ². Where pairs
    dominate (a model of categories with equally many members, unrelated to the data) the bootstrap alone rejects ten
    times too rarely.

    Parameters
    ----------
    bootstrap : numpy.ndarray
        Uncorrected variance over bootstrap draws of the stimuli.
    jackknife : numpy.ndarray
        Jackknife variance over the stimuli.
    n : int
        Number of stimuli.

    Returns
    -------
    numpy.ndarray
        At most the jackknife variance. Theory says at least half of it, which is kept to with 12 stimuli or fewer;
        with 18 or more a third is allowed, so that the noise of the two estimates is not cut off on one side.
    """
    least = min(max(6 / n, _LEAST_SHARE), 0.5) * jackknife
    return np.clip(2 * jackknife - small_sample(bootstrap, n), least, jackknife)


def crossed_variance(subject: np.ndarray, stimulus: np.ndarray, interaction: np.ndarray) -> np.ndarray:
    """Add the variances over subjects and over stimuli, counting what both contain once.

    Parameters
    ----------
    subject, stimulus : numpy.ndarray
        Variance of the mean score over samples of subjects, and over samples of stimuli.
    interaction : numpy.ndarray
        Variance of the mean score that differs between subjects and between stimuli, contained in both.

    Returns
    -------
    numpy.ndarray
        ``subject + stimulus − interaction``, at least each of the two.
    """
    return np.maximum(np.maximum(subject + stimulus - interaction, subject), stimulus)


def satterthwaite_dof(
    total: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray | float]], least: float
) -> np.ndarray:
    """Approximate the degrees of freedom of a sum of variances.

    Parameters
    ----------
    total : numpy.ndarray
        The sum, in which parts may also be subtracted.
    parts : list of (variance, degrees of freedom)
        What it is made of.
    least : float
        Lower bound of the result.

    Returns
    -------
    numpy.ndarray
        ``total² / Σ part² / dof``.

    References
    ----------
    Satterthwaite (1946), An approximate distribution of estimates of variance components, Biometrics Bulletin 2.
    """
    spread = np.sum([np.square(variance) / dof for variance, dof in parts], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.maximum(np.square(total) / spread, least)


def t_p_value(estimate: np.ndarray, error: np.ndarray, dof: np.ndarray | float, side: Side) -> np.ndarray:
    """Test an estimate against 0 by its standard error.

    Parameters
    ----------
    estimate, error : numpy.ndarray
        Estimate and standard error.
    dof : numpy.ndarray or float
        Degrees of freedom.
    side : {"greater", "less", "two-sided"}
        Which estimates speak against 0.

    Returns
    -------
    numpy.ndarray
        p-values; NaN where the error is 0 or undefined.
    """
    known = np.isfinite(error) & (error > 0)
    t = np.divide(estimate, error, out=np.full(np.shape(error), np.nan), where=known)
    if side == "two-sided":
        return np.asarray(2 * stats.t.sf(np.abs(t), dof))
    return np.asarray(stats.t.sf(t if side == "greater" else -t, dof))


def bootstrap_p_value(
    draws: np.ndarray, estimate: np.ndarray, error: np.ndarray, dof: np.ndarray | float, side: Side
) -> np.ndarray:
    """Test an estimate against 0 by the shape of its bootstrap distribution.

    The share of draws on the other side of 0 (``(1 + count) / (1 + draws)``) is a valid p-value only if the draws
    spread as much as the estimate does; here they are first centred on the estimate and scaled to its standard error.
    As the error is itself estimated, the tail probability of the normal distribution is then replaced by that of the
    t distribution at the same deviate (the expanded percentile interval).

    Parameters
    ----------
    draws : numpy.ndarray
        ``(draws, …)``; NaN marks a draw without a value.
    estimate, error : numpy.ndarray
        ``(…)`` estimate and standard error.
    dof : numpy.ndarray or float
        Degrees of freedom of the error.
    side : {"greater", "less", "two-sided"}
        Which estimates speak against 0.

    Returns
    -------
    numpy.ndarray
        ``(…)`` p-values, of which the smallest possible depends on the number of draws; NaN where the error is 0 or
        undefined or fewer than two draws are defined.

    References
    ----------
    Hesterberg (2015), What teachers should know about the bootstrap, The American Statistician 69.
    """
    known = ~np.isnan(draws)
    count = known.sum(axis=0)
    spread = np.sqrt(variance_over_draws(draws))
    usable = (count > 1) & (spread > 0) & (error > 0)
    centre = np.where(known, draws, 0.0).sum(axis=0) / np.maximum(count, 1)
    stretch = np.divide(error, spread, out=np.ones(np.shape(estimate)), where=usable)
    values = estimate + (draws - centre) * stretch

    def tail(beyond: np.ndarray) -> np.ndarray:
        share = (1 + (beyond & known).sum(axis=0)) / (1 + count)
        return np.asarray(stats.t.sf(stats.norm.isf(share), dof))

    with np.errstate(invalid="ignore"):
        below, above = tail(values <= 0), tail(values >= 0)
    both = np.minimum(2 * np.minimum(below, above), 1.0)
    return np.where(usable, {"greater": below, "less": above, "two-sided": both}[side], np.nan)


def corrected(p_values: np.ndarray, correction: Correction) -> np.ndarray:
    """Correct p-values for their number.

    Parameters
    ----------
    p_values : numpy.ndarray
        ``(tests,)``; NaN marks a test that was not made, which does not count.
    correction : {"fdr", "holm", "none"}
        False discovery rate (Benjamini & Hochberg), family-wise error rate (Holm), or none.

    Returns
    -------
    numpy.ndarray
        ``(tests,)`` corrected p-values.

    Raises
    ------
    InputError
        If the correction is unknown.
    """
    methods = {"fdr": "fdr_bh", "holm": "holm"}
    values = np.asarray(p_values, dtype=np.float64)
    if correction == "none":
        return values.copy()
    if correction not in methods:
        raise InputError(f"correction {correction!r} is unknown; it is one of 'fdr', 'holm' and 'none'")
    from statsmodels.stats.multitest import multipletests

    out = np.full(values.shape, np.nan)
    made = ~np.isnan(values)
    if made.any():
        out[made] = multipletests(values[made], method=methods[correction])[1]
    return out


def t_interval(
    mean: np.ndarray, error: np.ndarray, dof: np.ndarray | float, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Put a t interval around a mean.

    Parameters
    ----------
    mean, error : numpy.ndarray
        Estimate and its standard error.
    dof : numpy.ndarray or float
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
    reach = stats.t.ppf((1 + level) / 2, np.where(np.asarray(dof) > 0, dof, np.nan))
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
