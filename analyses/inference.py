"""Errors, intervals and tests of scores: against zero, between pairs of models and against the noise ceiling.

Three things can be generalised to, and each has its own variance and its own null hypothesis.

- **subject**: these stimuli, new subjects. The error is that of a mean over subjects, with S − 1 degrees of freedom.
- **stimulus**: these subjects, new stimuli. A score is made of pairs of stimuli, of which a bootstrap counts the noise
  of single pairs three times; the jackknife, which counts it twice, sets that right (`pair_corrected_variance`).
- **both**: the two variances added, and what both contain counted once.

Contrasts with a noise ceiling use the jackknife over each factor, added where both are generalised to: a bootstrap
that draws a subject twice predicts the others from fewer subjects, and overstates how much the ceiling varies.

Ceilings on draws and on left-out parts serve these variances only: the reported ceiling is that of the full data.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from actkit.analyses.comparison import Compare, resample
from actkit.analyses.contrasts import Dof, Draws, LeaveOut, Plan, Scores, Target, tested
from actkit.errors import InputError
from actkit.statistics import Correction, corrected

__all__ = ["NULLS", "WORDS", "Dof", "LeaveOut", "Target", "infer", "leave_one_out"]

WORDS = {"stimulus": "new stimuli", "subject": "new subjects", "both": "new subjects and stimuli"}
NULLS = {
    "subject": "the mean over the population of subjects, on these stimuli, is 0",
    "stimulus": "the expectation over the population of stimuli, for these subjects, is 0",
    "both": "the expectation over the populations of subjects and stimuli is 0",
}
_CORRECTIONS = {"fdr": "false discovery rate", "holm": "family-wise error rate (Holm)", "none": "not corrected"}


def leave_one_out(
    models: np.ndarray, data: np.ndarray, compare: Compare, target: Target = "both", *, workers: int | None = None
) -> LeaveOut:
    """Score all models without each stimulus, and compute the ceilings without each stimulus and each subject.

    Parameters
    ----------
    models : numpy.ndarray
        ``(models, pairs)`` dissimilarities of models that are not fitted to the data.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    compare : str
        The measure.
    target : {"stimulus", "subject", "both"}
        What will be generalised to: only that is left out.
    workers : int, optional
        Threads; the numbers are the same for any.

    Returns
    -------
    LeaveOut
        What :func:`infer` needs for jackknife variances. It costs as much as n draws of the stimuli.
    """
    score = None
    lower: dict[str, np.ndarray] = {}
    upper: dict[str, np.ndarray] = {}
    if target != "subject":
        n = round((1 + np.sqrt(1 + 8 * data.shape[1])) / 2)
        by_stimulus = resample(models, data, 1 - np.eye(n, dtype=np.int64), None, compare, workers=workers)
        score = by_stimulus.score
        lower["stimulus"], upper["stimulus"] = by_stimulus.lower["stimulus"], by_stimulus.upper["stimulus"]
    if target != "stimulus" and len(data) > 1:
        others = 1 - np.eye(len(data), dtype=np.int64)
        by_subject = resample(models[:1], data, None, others, compare, workers=workers)
        lower["subject"], upper["subject"] = by_subject.lower["subject"], by_subject.upper["subject"]
    return LeaveOut(score, lower, upper)


def infer(
    score: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    means: Draws,
    lowers: Draws,
    uppers: Draws,
    *,
    target: Target,
    n_subjects: int,
    n_stimuli: int,
    leave_out: LeaveOut | None = None,
    fitted: np.ndarray | None = None,
    dof: Dof = "satterthwaite",
    correction: Correction = "fdr",
    level: float = 0.95,
) -> xr.Dataset:
    """Give scores their errors, intervals and tests.

    Parameters
    ----------
    score : numpy.ndarray
        ``(models, subjects)`` on the full data (of fitted models: cross-validated).
    lower, upper : numpy.ndarray
        ``(subjects,)`` ceilings on the full data; NaN with a single subject.
    means : mapping of str to numpy.ndarray
        Subject-mean scores on bootstrap draws, ``(draws, models)``, or ``(draws, splits, models)`` for what is
        cross-validated in every draw. Keys: ``"stimulus"`` and ``"subject"`` when these are generalised to,
        all of ``"stimulus"``, ``"subject"`` and ``"both"`` (from the same draws of each) for both. Further keys
        are ignored.
    lowers, uppers : mapping of str to numpy.ndarray
        Mean ceilings on the same draws, ``(draws,)`` or ``(draws, splits)``.
    target : {"stimulus", "subject", "both"}
        What to generalise to.
    n_subjects, n_stimuli : int
        How many there are of each.
    leave_out : LeaveOut, optional
        Scores without each stimulus (:func:`leave_one_out`). Without it, and for fitted models, variances are those
        of the bootstrap, as in rsatoolbox: conservative where single pairs of stimuli dominate.
    fitted : numpy.ndarray of bool, optional
        ``(models,)`` models whose scores are cross-validated: the subjects' scores are not independent, and there
        are none without each stimulus. By default all if draws hold several splits, otherwise none.
    dof : {"satterthwaite", "conservative"}
        Degrees of freedom for both factors: estimated from the parts of the variance, or the smaller sample size
        minus 1. For one factor the two agree.
    correction : {"fdr", "holm", "none"}
        For the number of tests: of all models, and of all pairs of models.
    level : float
        Coverage of the intervals.

    Returns
    -------
    xarray.Dataset
        Along model: ``error``, ``dof``, ``interval_low``, ``interval_high``; ``p_zero``, ``p_zero_bootstrap``,
        ``p_zero_corrected`` (one-sided); ``ceiling_difference`` (mean minus lower ceiling) with
        ``ceiling_difference_error`` and ``ceiling_difference_dof``; ``p_below_ceiling``,
        ``p_below_ceiling_bootstrap``, ``p_below_ceiling_corrected`` (one-sided); ``ceiling_gap`` (upper ceiling
        minus mean) with ``ceiling_gap_low``, ``ceiling_gap_high`` and no test, since even the true model misses the
        upper ceiling; ``draws_used``. Along (model, other_model): ``difference`` (model minus other) with
        ``difference_error``, ``difference_dof``, ``p_difference``, ``p_difference_bootstrap``,
        ``p_difference_corrected`` (two-sided); NaN on the diagonal. Attributes name the null hypothesis, the
        variance and the correction.

        A cosine of unrelated RDMs without negative values is above 0, as every distance is: with cosine and whitened
        cosine ``p_zero`` does not test whether RDMs are related; differences and ceilings are tested all the same.

        Draws in which a contrast is undefined are left out for that contrast (``draws_used`` counts those of the
        scores). A contrast whose error is 0 or undefined has no p-value and takes no part in the correction.

    Raises
    ------
    InputError
        If a factor that is generalised to has fewer than two members, or a rule is unknown.

    References
    ----------
    Schütt, Kipnis, Diedrichsen & Kriegeskorte (2023), Statistical inference on representational geometries, eLife 12;
    Nili et al. (2014), A toolbox for representational similarity analysis, PLoS Computational Biology 10; Efron &
    Stein (1981), The jackknife estimate of variance, Annals of Statistics 9.
    """
    plan = _checked(Plan(target, n_subjects, n_stimuli, dof, level))
    values = Scores(np.asarray(score, dtype=np.float64), lower, upper, (means, lowers, uppers), leave_out, fitted)
    zero = tested(values.models(slice(None)), plan, "greater")
    below = tested(values.against("lower"), plan, "less")
    gap = tested(values.against("upper"), plan, "less")
    pairs = _pairs(values, plan)
    words = f"generalising to {WORDS[target]}"
    number = {"fdr": "false discovery rate", "holm": "family-wise error rate (Holm)", "none": "not corrected"}[
        correction
    ]
    one = ("model",)
    two = ("model", "other_model")
    variables = {
        "error": (one, zero.error, f"standard error, {words}"),
        "dof": (one, zero.dof, "degrees of freedom of the standard error"),
        "interval_low": (one, zero.low, f"{level:.0%} t interval, lower limit"),
        "interval_high": (one, zero.high, f"{level:.0%} t interval, upper limit"),
        "p_zero": (one, zero.p, f"p, score above 0 (one-sided t test, {words})"),
        "p_zero_bootstrap": (one, zero.p_bootstrap, f"p, score above 0 (one-sided bootstrap test, {words})"),
        "p_zero_corrected": (
            one,
            corrected(zero.p, correction),
            f"p, score above 0 (one-sided t test), over all models: {number}",
        ),
        "ceiling_difference": (one, below.estimate, "mean score minus lower noise ceiling"),
        "ceiling_difference_error": (one, below.error, f"standard error of the distance, {words}"),
        "ceiling_difference_dof": (one, below.dof, "degrees of freedom of that error"),
        "p_below_ceiling": (one, below.p, f"p, score below the lower noise ceiling (one-sided t test, {words})"),
        "p_below_ceiling_bootstrap": (
            one,
            below.p_bootstrap,
            f"p, score below the lower noise ceiling (one-sided bootstrap test, {words})",
        ),
        "p_below_ceiling_corrected": (
            one,
            corrected(below.p, correction),
            f"p, score below the lower noise ceiling (one-sided t test), over all models: {number}",
        ),
        "ceiling_gap": (one, -gap.estimate, "upper noise ceiling minus mean score (not tested)"),
        "ceiling_gap_low": (one, -gap.high, f"{level:.0%} t interval of that distance, lower limit"),
        "ceiling_gap_high": (one, -gap.low, f"{level:.0%} t interval of that distance, upper limit"),
        "draws_used": (one, zero.used, "bootstrap draws with a defined score"),
        "difference": (two, pairs["estimate"], "mean score of model minus that of other model"),
        "difference_error": (two, pairs["error"], f"standard error of the difference, {words}"),
        "difference_dof": (two, pairs["dof"], "degrees of freedom of that error"),
        "p_difference": (two, pairs["p"], f"p, scores differ (two-sided t test, {words})"),
        "p_difference_bootstrap": (two, pairs["p_bootstrap"], f"p, scores differ (two-sided bootstrap test, {words})"),
        "p_difference_corrected": (
            two,
            _corrected_pairs(pairs["p"], correction),
            f"p, scores differ (two-sided t test), over all pairs of models: {number}",
        ),
    }
    return xr.Dataset(
        {name: (dims, array, {"long_name": long, "units": "1"}) for name, (dims, array, long) in variables.items()},
        attrs={
            "null": f"scores and differences: {NULLS[target]}",
            "variance": _variance_words(plan, leave_out is not None),
            "dof_rule": dof,
            "correction": correction,
            "level": level,
        },
    )


def _checked(plan: Plan) -> Plan:
    """Refuse what cannot be generalised."""
    if plan.target not in WORDS:
        raise InputError(f"cannot generalise to {plan.target!r}; choose 'stimulus', 'subject' or 'both'")
    if plan.dof not in ("conservative", "satterthwaite"):
        raise InputError(f"dof {plan.dof!r} is unknown; it is 'satterthwaite' or 'conservative'")
    needed = {"subject": plan.n_subjects, "stimulus": plan.n_stimuli, "both": plan.least + 1}[plan.target]
    if needed < 2:
        raise InputError(
            f"cannot generalise to {WORDS[plan.target]} from {plan.n_subjects} subject(s) and {plan.n_stimuli} "
            "stimuli: a variance needs at least two; generalise to the other factor"
        )
    return plan


def _pairs(values: Scores, plan: Plan) -> dict[str, np.ndarray]:
    """Test every pair of models once, one model against all before it at a time; ``(models, models)`` each."""
    n = len(values.score)
    names = ("estimate", "error", "dof", "p", "p_bootstrap")
    out = {name: np.full((n, n), np.nan) for name in names}
    for model in range(1, n):
        result = tested(values.models(slice(0, model), model), plan, "two-sided")
        for name in names:
            row = getattr(result, name)
            out[name][model, :model] = row
            out[name][:model, model] = -row if name == "estimate" else row
    return out


def _corrected_pairs(p: np.ndarray, correction: Correction) -> np.ndarray:
    """Correct a symmetric matrix of p-values, each pair counted once."""
    row, column = np.triu_indices(len(p), 1)
    out = np.full(p.shape, np.nan)
    out[row, column] = out[column, row] = corrected(p[row, column], correction)
    return out


def _variance_words(plan: Plan, jackknifed: bool) -> str:
    """Say which variance the errors come from."""
    if plan.target == "subject":
        return "scores and differences: standard error of the mean over subjects; ceilings: " + (
            "jackknife over subjects" if jackknifed else "bootstrap over subjects, times n / (n - 1)"
        )
    if not jackknifed:
        return "bootstrap over stimuli, times n / (n - 1)" if plan.target == "stimulus" else "two-factor bootstrap"
    alone = "twice the jackknife minus the bootstrap variance over stimuli (each pair of stimuli counted once)"
    if plan.target == "stimulus":
        return f"scores and differences: {alone}; ceilings: jackknife over stimuli"
    return (
        f"scores and differences: squared standard error over subjects, plus {alone}, minus what both contain; "
        "ceilings: jackknife over subjects plus jackknife over stimuli"
    )
