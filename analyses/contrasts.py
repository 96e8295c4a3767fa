"""Variances of scores and of their contrasts: between pairs of models, and with the noise ceilings.

Every contrast is cut from the same scores, on the full data, on bootstrap draws and without each stimulus or subject,
so that what its parts share cancels. :func:`actkit.analyses.inference.infer` says which variance is taken when, and
why; all three ways to estimate one are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from actkit.statistics import (
    Side,
    bootstrap_p_value,
    crossed_variance,
    jackknife_dof,
    jackknife_variance,
    pair_corrected_variance,
    satterthwaite_dof,
    small_sample,
    standard_error,
    t_interval,
    t_p_value,
    two_factor_variance,
    variance_over_splits,
)

Target = Literal["stimulus", "subject", "both"]
Dof = Literal["conservative", "satterthwaite"]
Draws = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LeaveOut:
    """Scores and ceilings with one stimulus, or one subject, left out in turn.

    Attributes
    ----------
    score : numpy.ndarray or None
        ``(stimuli, models, subjects)`` scores without stimulus 0, 1, …, of the models that are not fitted.
    lower, upper : dict of str to numpy.ndarray
        Mean ceilings: ``"stimulus"`` ``(stimuli,)``, ``"subject"`` ``(subjects,)``.
    """

    score: np.ndarray | None
    lower: dict[str, np.ndarray]
    upper: dict[str, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What an inference generalises to, and from how many.

    Attributes
    ----------
    target : {"stimulus", "subject", "both"}
        What to generalise to.
    n_subjects, n_stimuli : int
        Sample sizes.
    dof : {"conservative", "satterthwaite"}
        Degrees of freedom when both are generalised to.
    level : float
        Coverage of intervals.
    """

    target: Target
    n_subjects: int
    n_stimuli: int
    dof: Dof
    level: float

    @property
    def least(self) -> int:
        """Degrees of freedom of the smaller sample."""
        return min(self.n_subjects, self.n_stimuli) - 1


@dataclass(frozen=True)
class Contrasts:
    """Some contrasts: their estimates and what their variances are made of; the last axis is always the contrasts.

    Attributes
    ----------
    estimate : numpy.ndarray
        ``(contrasts,)``.
    draws : dict of str to numpy.ndarray
        ``(draws, splits, contrasts)`` for each kind of draw.
    subjects : numpy.ndarray or None
        ``(subjects, contrasts)`` independent values that average to the estimate.
    without_stimulus, without_subject : numpy.ndarray or None
        ``(stimuli, contrasts)``, ``(subjects, contrasts)``.
    without_stimulus_by_subject : numpy.ndarray or None
        ``(stimuli, subjects, contrasts)``, where the contrast exists for single subjects.
    """

    estimate: np.ndarray
    draws: dict[str, np.ndarray]
    subjects: np.ndarray | None
    without_stimulus: np.ndarray | None
    without_stimulus_by_subject: np.ndarray | None
    without_subject: np.ndarray | None


@dataclass(frozen=True)
class Tested:
    """Errors and tests of some contrasts.

    Attributes
    ----------
    estimate, error, dof : numpy.ndarray
        ``(contrasts,)`` estimates, standard errors and their degrees of freedom.
    p, p_bootstrap : numpy.ndarray
        p-values of the t test and of the bootstrap test.
    low, high : numpy.ndarray
        Limits of the t interval.
    used : numpy.ndarray
        Defined draws.
    """

    estimate: np.ndarray
    error: np.ndarray
    dof: np.ndarray
    p: np.ndarray
    p_bootstrap: np.ndarray
    low: np.ndarray
    high: np.ndarray
    used: np.ndarray


class Scores:
    """All scores and ceilings, from which contrasts are cut.

    Parameters
    ----------
    score : numpy.ndarray
        ``(models, subjects)``.
    lower, upper : numpy.ndarray
        ``(subjects,)`` ceilings.
    draws : tuple of mapping
        Mean scores, lower and upper ceilings on draws, as :func:`actkit.analyses.inference.infer` takes them.
    leave_out : LeaveOut or None
        Scores and ceilings without each stimulus and subject.
    fitted : numpy.ndarray of bool or None
        ``(models,)`` which models are cross-validated; None: all if draws hold several splits, otherwise none.
    """

    def __init__(
        self,
        score: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        draws: tuple[Draws, Draws, Draws],
        leave_out: LeaveOut | None,
        fitted: np.ndarray | None,
    ) -> None:
        self.score = score
        self.mean = score.mean(axis=1)
        self.ceiling = {"lower": float(np.mean(lower)), "upper": float(np.mean(upper))}
        means, lowers, uppers = draws
        self.means = {kind: _splits(values, 3) for kind, values in means.items()}
        self.ceilings = {
            "lower": {kind: _splits(values, 2) for kind, values in lowers.items()},
            "upper": {kind: _splits(values, 2) for kind, values in uppers.items()},
        }
        if fitted is None:
            repeated = any(values.shape[1] > 1 for values in self.means.values())
            fitted = np.full(len(self.score), repeated)
        self.fitted = np.asarray(fitted, dtype=bool)
        self.left = leave_out
        self.without_stimulus: np.ndarray | None = None
        if leave_out is not None and leave_out.score is not None:
            self.without_stimulus = np.full((len(leave_out.score), *self.score.shape), np.nan)
            self.without_stimulus[:, ~self.fitted] = leave_out.score

    def models(self, first: slice, second: int | None = None) -> Contrasts:
        """Take scores, or differences of scores.

        Parameters
        ----------
        first : slice
            Models.
        second : int, optional
            Another model, from which each of `first` is subtracted.

        Returns
        -------
        Contrasts
            One for each model of `first`.
        """

        def cut(values: np.ndarray, axis: int) -> np.ndarray:
            chosen = np.take(values, np.arange(len(self.score))[first], axis=axis)
            return chosen if second is None else np.take(values, [second], axis=axis) - chosen

        # The subjects' scores of a fitted model depend on one another through the fit.
        alone = np.where(self.fitted[:, None], np.nan, self.score)
        out = None if self.without_stimulus is None else cut(self.without_stimulus, 1)
        return Contrasts(
            estimate=cut(self.mean, 0),
            draws={kind: cut(values, 2) for kind, values in self.means.items()},
            subjects=cut(alone, 0).T,
            without_stimulus=None if out is None else out.mean(axis=2),
            without_stimulus_by_subject=None if out is None else out.transpose(0, 2, 1),
            without_subject=None,
        )

    def against(self, bound: Literal["lower", "upper"]) -> Contrasts:
        """Subtract a ceiling from the mean score of every model.

        Parameters
        ----------
        bound : {"lower", "upper"}
            Which ceiling.

        Returns
        -------
        Contrasts
            One for each model.
        """
        ceilings = self.ceilings[bound]
        left = {} if self.left is None else (self.left.lower if bound == "lower" else self.left.upper)
        without_stimulus = without_subject = None
        if "stimulus" in left and self.without_stimulus is not None:
            without_stimulus = self.without_stimulus.mean(axis=2) - left["stimulus"][:, None]
        if "subject" in left:
            others = (self.score.sum(axis=1, keepdims=True) - self.score) / (self.score.shape[1] - 1)
            without_subject = np.where(self.fitted[:, None], np.nan, others).T - left["subject"][:, None]
        return Contrasts(
            estimate=self.mean - self.ceiling[bound],
            draws={kind: values - ceilings[kind][..., None] for kind, values in self.means.items() if kind in ceilings},
            subjects=None,
            without_stimulus=without_stimulus,
            without_stimulus_by_subject=None,
            without_subject=without_subject,
        )


def _splits(values: np.ndarray, ndim: int) -> np.ndarray:
    """Give draws that were not cross-validated repeatedly a dim of one split."""
    values = np.asarray(values, dtype=np.float64)
    return values if values.ndim == ndim else values[:, None]


def _prefer(better: np.ndarray | None, other: np.ndarray) -> np.ndarray:
    """Take the better estimate where it exists."""
    return other if better is None else np.where(np.isnan(better), other, better)


def _drawn_variance(contrasts: Contrasts, kind: str) -> np.ndarray:
    """Uncorrected bootstrap variance; NaN without draws of that kind."""
    if kind not in contrasts.draws or not len(contrasts.draws[kind]):
        return np.full(len(contrasts.estimate), np.nan)
    return variance_over_splits(contrasts.draws[kind])


def _subject_variance(contrasts: Contrasts, plan: Plan) -> np.ndarray:
    """Variance over samples of subjects: of a mean, by jackknife for ceilings, by bootstrap for what was fitted."""
    bootstrap = small_sample(_drawn_variance(contrasts, "subject"), plan.n_subjects)
    if contrasts.subjects is not None:
        return _prefer(np.square(standard_error(contrasts.subjects, axis=0)), bootstrap)
    if contrasts.without_subject is not None:
        return _prefer(jackknife_variance(contrasts.without_subject), bootstrap)
    return bootstrap


def _stimulus_variance(contrasts: Contrasts, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Variance over samples of stimuli and its degrees of freedom."""
    drawn = _drawn_variance(contrasts, "stimulus")
    bootstrap, dof = small_sample(drawn, plan.n_stimuli), np.full(len(drawn), float(plan.n_stimuli - 1))
    if contrasts.without_stimulus is None:
        return bootstrap, dof
    jackknife = jackknife_variance(contrasts.without_stimulus)
    if contrasts.without_stimulus_by_subject is not None:
        jackknife = _prefer(pair_corrected_variance(drawn, jackknife, plan.n_stimuli), jackknife)
    return _prefer(jackknife, bootstrap), _prefer(jackknife_dof(contrasts.without_stimulus), dof)


def _interaction(contrasts: Contrasts, plan: Plan) -> np.ndarray:
    """Variance that samples of subjects and samples of stimuli share; NaN where it is unknown.

    The jackknife over stimuli of each subject's deviation counts the noise of single pairs twice, the three bootstraps
    count it three times.
    """
    by_subject = contrasts.without_stimulus_by_subject
    if by_subject is None:
        return np.full(len(contrasts.estimate), np.nan)
    n = plan.n_subjects
    own = by_subject - by_subject.mean(axis=1, keepdims=True)
    jackknife = jackknife_variance(own).sum(axis=0) / (n * (n - 1))
    subject, stimulus, both = (_drawn_variance(contrasts, kind) for kind in ("subject", "stimulus", "both"))
    bootstrap = small_sample(small_sample(both - subject - stimulus, n), plan.n_stimuli)
    return np.clip(_prefer(2 * jackknife - bootstrap, jackknife / 2), jackknife / 2, jackknife)


def _both_variance(contrasts: Contrasts, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Variance over samples of subjects and stimuli, and its degrees of freedom."""
    subject = _subject_variance(contrasts, plan)
    stimulus, stimulus_dof = _stimulus_variance(contrasts, plan)
    shared = _interaction(contrasts, plan)
    ours = crossed_variance(subject, stimulus, np.nan_to_num(shared))
    drawn = [_drawn_variance(contrasts, kind) for kind in ("both", "subject", "stimulus")]
    if any(values.shape[1] > 1 for values in contrasts.draws.values()):
        # Freed of the noise of the splits, the variance of drawing both can fall below that of drawing one, which it
        # contains; it bounds the result from above, and would make it too small.
        drawn[0] = np.maximum(drawn[0], np.maximum(drawn[1], drawn[2]))
    theirs = two_factor_variance(drawn[0], drawn[1], drawn[2], plan.n_subjects, plan.n_stimuli)
    # Without the jackknife (fitted models) the three bootstraps have to do.
    jackknifed = contrasts.without_stimulus
    plain = np.ones(len(subject), dtype=bool) if jackknifed is None else np.isnan(jackknifed).any(axis=0)
    corner = small_sample(small_sample(drawn[0] - drawn[1] - drawn[2], plan.n_subjects), plan.n_stimuli)
    shared = np.where(plain, corner, np.nan_to_num(shared))
    variance = np.where(plain, theirs, ours)
    if plan.dof == "conservative":
        return variance, np.full(len(variance), float(plan.least))
    parts: list[tuple[np.ndarray, np.ndarray | float]] = [
        (subject, plan.n_subjects - 1.0),
        (stimulus, stimulus_dof),
        (shared, (plan.n_subjects - 1) * stimulus_dof),
    ]
    return variance, satterthwaite_dof(variance, parts, plan.least)


def _variance(contrasts: Contrasts, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Variance and degrees of freedom for what is generalised to."""
    if plan.target == "both":
        return _both_variance(contrasts, plan)
    if plan.target == "stimulus":
        return _stimulus_variance(contrasts, plan)
    return _subject_variance(contrasts, plan), np.full(len(contrasts.estimate), float(plan.n_subjects - 1))


def tested(contrasts: Contrasts, plan: Plan, side: Side) -> Tested:
    """Give contrasts their errors, intervals and tests against 0.

    Parameters
    ----------
    contrasts : Contrasts
        What to test.
    plan : Plan
        What to generalise to.
    side : {"greater", "less", "two-sided"}
        Which estimates speak against 0.

    Returns
    -------
    Tested
        Errors, intervals and p-values.
    """
    variance, dof = _variance(contrasts, plan)
    error = np.sqrt(variance)
    nothing = np.full((0, 1, len(error)), np.nan)
    draws = contrasts.draws.get(plan.target, nothing).mean(axis=1)
    low, high = t_interval(contrasts.estimate, error, dof, plan.level)
    return Tested(
        contrasts.estimate,
        error,
        np.where(np.isnan(error), np.nan, dof),
        t_p_value(contrasts.estimate, error, dof, side),
        bootstrap_p_value(draws, contrasts.estimate, error, dof, side),
        low,
        high,
        (~np.isnan(draws)).sum(axis=0),
    )
