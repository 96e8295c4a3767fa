"""Behaviour: choices per subject and stimulus, their agreement, their reliability, and what they are based on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field

from actkit.analyses.behaviour_trials import (
    ScoredOptions,
    TrialOptions,
    as_words,
    mean_defined,
    pearson,
    percentiles,
    ratio,
    read_responses,
    read_trials,
    scored_trials,
    trial_labels,
    word_column,
)
from actkit.analyses.reliability import spearman_brown
from actkit.compute import spans
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.resampling import Stream, bootstrap_weights, generator
from actkit.results import describe, fingerprint

_BLOCK = 256  # bootstrap draws held at a time


class ErrorConsistencyOptions(ScoredOptions):
    """Options of :func:`error_consistency`."""

    n_bootstrap: int = Field(1000, ge=0, description="Bootstrap draws of stimuli for the intervals; 0: none.")


class ShapeBiasOptions(TrialOptions):
    """Options of :func:`shape_bias`."""

    n_bootstrap: int = Field(1000, ge=0, description="Bootstrap draws of stimuli for the interval; 0: none.")
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of the bootstrap draws.")


class SplitHalfOptions(ScoredOptions):
    """Options of :func:`split_half`."""

    over: Literal["subject", "trial"] = Field(
        "subject", description="What is split: subjects, or the trials of each stimulus whoever made them."
    )
    n_splits: int = Field(100, ge=1, description="Random splits into halves.")


@with_options(TrialOptions)
def confusion(trials: Any, truth: str | Mapping[str, str], *, options: TrialOptions) -> xr.Dataset:
    """Count what was answered to the stimuli of each class.

    Parameters
    ----------
    trials : pandas.DataFrame, mapping of column to values, or xarray.Dataset
        One row a trial.
    truth : str or mapping
        The column of the right answer, or the right answer by stimulus.

    Returns
    -------
    xarray.Dataset
        Dims truth and response: ``count``; ``rate``, the share of the answered trials of a class (NaN where none was
        answered); ``n_unanswered`` (truth); ``accuracy``, the share of answered trials that are right.

    Raises
    ------
    InputError
        If a column is missing, columns differ in length, or a stimulus has no right answer.
    """
    table = read_trials(trials)
    right = trial_labels(table, truth, "truth", options)
    given, answered = read_responses(table, options)
    classes, row = np.unique(right, return_inverse=True)
    # The diagonal stays recognisable: classes come first and in the same order in both dims.
    extra = sorted(set(given[answered].tolist()) - set(classes.tolist()))
    responses = [*classes.tolist(), *extra]
    column = pd.Index(responses).get_indexer(given[answered])
    count = np.zeros((len(classes), len(responses)), dtype=np.int64)
    np.add.at(count, (row[answered], column), 1)
    total = count.sum(axis=1, keepdims=True)
    result = xr.Dataset(
        {
            "count": (("truth", "response"), count, _about("trials")),
            "rate": (("truth", "response"), ratio(count, total), _about("share of answered trials")),
            "n_unanswered": (
                "truth",
                np.bincount(row[~answered], minlength=len(classes)),
                _about("trials without answer"),
            ),
            "accuracy": ((), float(ratio(np.trace(count), total.sum())), _about("share of answered trials right")),
        },
        coords={"truth": classes, "response": np.array(responses)},
    )
    return _described(result, "confusion", options, table)


@with_options(TrialOptions)
def choice_rates(trials: Any, *, options: TrialOptions) -> xr.Dataset:
    """Count how often each response was given to each stimulus, over all subjects' trials.

    Parameters
    ----------
    trials : pandas.DataFrame, mapping of column to values, or xarray.Dataset
        One row a trial.

    Returns
    -------
    xarray.Dataset
        Dims stimulus and response: ``count``; ``rate``, the share of the stimulus' answered trials (NaN where none was
        answered); ``n_answered``, ``n_unanswered`` (stimulus).

    Raises
    ------
    InputError
        If a column is missing or columns differ in length.
    """
    table = read_trials(trials)
    given, answered = read_responses(table, options)
    stimuli, row = np.unique(word_column(table, options.stimulus), return_inverse=True)
    responses, column = np.unique(given[answered], return_inverse=True)
    count = np.zeros((len(stimuli), len(responses)), dtype=np.int64)
    np.add.at(count, (row[answered], column), 1)
    total = count.sum(axis=1)
    result = xr.Dataset(
        {
            "count": (("stimulus", "response"), count, _about("trials")),
            "rate": (("stimulus", "response"), ratio(count, total[:, None]), _about("share of answered trials")),
            "n_answered": ("stimulus", total, _about("answered trials")),
            "n_unanswered": (
                "stimulus",
                np.bincount(row[~answered], minlength=len(stimuli)),
                _about("trials without answer"),
            ),
        },
        coords={"stimulus": stimuli, "response": responses},
    )
    return _described(result, "choice_rates", options, table)


@with_options(ErrorConsistencyOptions)
def error_consistency(trials: Any, truth: str | Mapping[str, str], *, options: ErrorConsistencyOptions) -> xr.Dataset:
    """Measure whether two observers err on the same stimuli, beyond what their accuracies alone predict.

    Over the stimuli that both judged, with accuracies p and q: observed agreement c is the share of stimuli that both
    get right or both get wrong, agreement by chance is e = pq + (1 − p)(1 − q), and κ = (c − e) / (1 − e). κ keeps its
    sign: observers that err on different stimuli have κ < 0. A network joins as one more subject of the table.

    Parameters
    ----------
    trials : pandas.DataFrame, mapping of column to values, or xarray.Dataset
        One row a trial, at most one for each subject and stimulus.
    truth : str or mapping
        The column of the right answer, or the right answer by stimulus.

    Returns
    -------
    xarray.Dataset
        Dims subject and other: ``kappa``, ``observed``, ``expected``, ``n_common`` (stimuli judged by both),
        ``interval_low``, ``interval_high`` (95 % percentiles over bootstrap draws of stimuli); ``accuracy`` (subject);
        ``mean_kappa`` over the pairs of different subjects, with ``mean_low`` and ``mean_high``. κ is NaN on the
        diagonal, and where both observers are always right or both always wrong.

    Raises
    ------
    InputError
        If there are fewer than two subjects, or a subject judged a stimulus twice.

    References
    ----------
    Geirhos, Meding & Wichmann (2020), Beyond accuracy: quantifying trial-by-trial behaviour of CNNs and humans by
    measuring error consistency, NeurIPS 33 (equations 1 to 3); Cohen (1960).
    """
    table = read_trials(trials)
    subjects, stimuli, who, what, score, used = scored_trials(table, truth, None, options)
    if len(subjects) < 2:
        raise InputError(f"error consistency compares observers, and the table has {len(subjects)}; give two or more")
    judged = np.zeros((len(subjects), len(stimuli)))
    np.add.at(judged, (who[used], what[used]), 1.0)
    if judged.max() > 1:
        a, b = np.argwhere(judged > 1)[0]
        raise InputError(
            f"subject {str(subjects[a])!r} judged the stimulus {str(stimuli[b])!r} {int(judged[a, b])} times, and "
            "error consistency pairs single trials; keep one trial each, or give each run a subject name of its own"
        )
    right = np.zeros_like(judged)
    right[who[used], what[used]] = score[used]
    observed, expected, kappa, common = _kappa(right, judged, np.ones(len(stimuli)))
    upper = np.triu_indices(len(subjects), 1)
    draws = np.empty((options.n_bootstrap, *kappa.shape))
    for start, stop in spans(options.n_bootstrap, _BLOCK):
        weights = bootstrap_weights(len(stimuli), stop - start, options.seed, start)
        for row, weight in enumerate(weights):
            draws[start + row] = _kappa(right, judged, weight)[2]
    low, high = percentiles(draws)
    mean_low, mean_high = percentiles(mean_defined(draws[:, *upper]))
    pair = ("subject", "other")
    result = xr.Dataset(
        {
            "kappa": (pair, kappa, _about("error consistency (Cohen's kappa)")),
            "observed": (pair, observed, _about("share of stimuli both right or both wrong")),
            "expected": (pair, expected, _about("that share by chance")),
            "n_common": (pair, common.astype(np.int64), _about("stimuli judged by both")),
            "interval_low": (pair, low, _about("95 % bootstrap interval, lower limit")),
            "interval_high": (pair, high, _about("95 % bootstrap interval, upper limit")),
            "accuracy": ("subject", ratio(right.sum(axis=1), judged.sum(axis=1)), _about("share right")),
            "mean_kappa": ((), float(mean_defined(kappa[upper][None])[0]), _about("mean kappa over pairs")),
            "mean_low": ((), float(mean_low), _about("95 % bootstrap interval, lower limit")),
            "mean_high": ((), float(mean_high), _about("95 % bootstrap interval, upper limit")),
        },
        coords={"subject": subjects, "other": subjects},
    )
    return _described(result, "error_consistency", options, table)


def _kappa(right: np.ndarray, judged: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    """Observed and chance agreement, κ and the number of common stimuli, of all pairs of subjects."""
    weighted = right * weight
    wrong = judged - right
    common = (judged * weight) @ judged.T
    observed = ratio(weighted @ right.T + (wrong * weight) @ wrong.T, common)
    first = ratio(weighted @ judged.T, common)  # accuracy of the row's subject where the column's judged too
    expected = first * first.T + (1 - first) * (1 - first.T)
    kappa = ratio(observed - expected, np.where(1 - expected > 1e-12, 1 - expected, 0.0))
    np.fill_diagonal(kappa, np.nan)
    return observed, expected, kappa, common


@with_options(ShapeBiasOptions)
def shape_bias(
    trials: Any, shape: str | Mapping[str, str], texture: str | Mapping[str, str], *, options: ShapeBiasOptions
) -> xr.Dataset:
    """Measure whether images with the shape of one class and the texture of another are named by their shape.

    Bias = trials answered with the shape's class / trials answered with either class. Images whose two classes are
    equal say nothing and are left out, as are trials answered with a third class or not at all; both are counted.

    Parameters
    ----------
    trials : pandas.DataFrame, mapping of column to values, or xarray.Dataset
        One row a trial.
    shape, texture : str or mapping
        The column of the class that the shape (the texture) belongs to, or that class by stimulus.

    Returns
    -------
    xarray.Dataset
        ``shape_bias`` of all trials together with ``interval_low`` and ``interval_high`` (95 % percentiles over
        bootstrap draws of images); ``by_subject`` (subject) and their mean ``mean_over_subjects``; ``by_category``
        (category of the shape); ``by_subject_and_category`` (subject, category); ``cue_accuracy``, the share of all
        conflict trials answered with either class; ``n_shape``, ``n_texture``, ``n_other``, ``n_unanswered``,
        ``n_without_conflict``.

    Raises
    ------
    InputError
        If no trial shows a conflict.

    References
    ----------
    Geirhos, Rubisch, Michaelis, Bethge, Wichmann & Brendel (2019), ImageNet-trained CNNs are biased towards texture,
    ICLR.
    """
    table = read_trials(trials)
    of_shape = trial_labels(table, shape, "shape", options)
    of_texture = trial_labels(table, texture, "texture", options)
    given, answered = read_responses(table, options)
    conflict = of_shape != of_texture
    if not conflict.any():
        raise InputError(
            f"shape and texture are of the same class in all {len(conflict)} trials, so no choice tells them apart; "
            "give cue-conflict images"
        )
    by_shape = conflict & answered & (given == of_shape)
    by_texture = conflict & answered & (given == of_texture)
    subjects, who = np.unique(word_column(table, options.subject), return_inverse=True)
    stimuli, what = np.unique(word_column(table, options.stimulus), return_inverse=True)
    categories, kind = np.unique(of_shape, return_inverse=True)

    def counts(index: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.bincount(index[by_shape], minlength=n), np.bincount(index[by_texture], minlength=n)

    def bias(shapes: np.ndarray, textures: np.ndarray) -> np.ndarray:
        return ratio(shapes, shapes + textures)

    per_image = counts(what, len(stimuli))
    shown = np.unique(what[conflict])  # images without conflict are no part of the sample
    draws = np.empty(options.n_bootstrap)
    for start, stop in spans(options.n_bootstrap, _BLOCK):
        weights = bootstrap_weights(len(shown), stop - start, options.seed, start)
        draws[start:stop] = bias(weights @ per_image[0][shown], weights @ per_image[1][shown])
    low, high = percentiles(draws)
    by_subject = bias(*counts(who, len(subjects)))
    cells = (len(subjects), len(categories))
    by_both = bias(*(part.reshape(cells) for part in counts(who * cells[1] + kind, cells[0] * cells[1])))
    n_shape, n_texture = int(by_shape.sum()), int(by_texture.sum())
    n_unanswered = int((conflict & ~answered).sum())
    numbers = {
        "n_shape": n_shape,
        "n_texture": n_texture,
        "n_other": int(conflict.sum()) - n_shape - n_texture - n_unanswered,
        "n_unanswered": n_unanswered,
        "n_without_conflict": int((~conflict).sum()),
    }
    result = xr.Dataset(
        {
            "shape_bias": ((), float(bias(np.array(n_shape), np.array(n_texture))), _about("shape bias")),
            "interval_low": ((), float(low), _about("95 % bootstrap interval, lower limit")),
            "interval_high": ((), float(high), _about("95 % bootstrap interval, upper limit")),
            "by_subject": ("subject", by_subject, _about("shape bias")),
            "mean_over_subjects": ((), float(mean_defined(by_subject[None])[0]), _about("mean shape bias of subjects")),
            "by_category": ("category", bias(*counts(kind, len(categories))), _about("shape bias")),
            "by_subject_and_category": (("subject", "category"), by_both, _about("shape bias")),
            "cue_accuracy": ((), float((n_shape + n_texture) / conflict.sum()), _about("share answered with a cue")),
            **{name: ((), number, _about("trials")) for name, number in numbers.items()},
        },
        coords={"subject": subjects, "category": categories},
    )
    return _described(result, "shape_bias", options, table)


@with_options(SplitHalfOptions)
def split_half(
    trials: Any, truth: str | Mapping[str, str] | None = None, value: str | None = None, *, options: SplitHalfOptions
) -> xr.Dataset:
    """Estimate how reliable a behavioural score of each stimulus is, by correlating random halves.

    Over subjects, a stimulus' score is the mean over subjects of each one's mean, and halves hold different subjects.
    Over trials, it is the mean over trials, and each stimulus' trials are split by themselves, whoever made them: both
    halves then hold trials of the same people, and what these people see alike counts as signal in part.
    Spearman-Brown is applied to the r of every split, and then the mean is taken. An odd subject (or trial) is left out
    of each split at random, and the correction is for the full number.

    Parameters
    ----------
    trials : pandas.DataFrame, mapping of column to values, or xarray.Dataset
        One row a trial.
    truth : str or mapping, optional
        The column of the right answer, or the right answer by stimulus: the score is the share right.
    value : str, optional
        A column of numbers instead, of which the score is the mean; NaN: left out.

    Returns
    -------
    xarray.Dataset
        ``split_half`` (split): r; ``reliability``: mean of the corrected r; ``spread``: their standard deviation over
        splits (how much a single random split is off, no standard error); ``bound``: √reliability, 0 where negative;
        ``n_left_out`` (split): stimuli without a score in one half, left out of that split.

    Raises
    ------
    InputError
        If not exactly one of `truth` and `value` is given, or there are fewer than two subjects (for trials: no
        stimulus with two trials), or fewer than three stimuli.
    """
    if (truth is None) == (value is None):
        raise InputError(
            "split_half() scores either right answers (truth=…) or a column of numbers (value=…); give one"
        )
    table = read_trials(trials)
    subjects, stimuli, who, what, score, used = scored_trials(table, truth, value, options)
    if len(stimuli) < 3:
        raise InputError(f"{len(stimuli)} stimuli have no useful correlation between halves; give three or more")
    who, what, score = who[used], what[used], score[used]
    r, lost = np.empty(options.n_splits), np.empty(options.n_splits, dtype=np.int64)
    if options.over == "subject":
        if len(subjects) < 2:
            raise InputError("there is one subject, who cannot be split; use over='trial' or give more subjects")
        n, half = np.zeros((len(subjects), len(stimuli))), len(subjects) // 2
        total = np.zeros_like(n)
        np.add.at(n, (who, what), 1.0)
        np.add.at(total, (who, what), score)
        mean, known = np.where(n > 0, total / np.maximum(n, 1), 0.0), (n > 0).astype(np.float64)
        factor = len(subjects) / half
    else:
        n_trials = np.bincount(what, minlength=len(stimuli))
        if n_trials.max() < 2:
            raise InputError("no stimulus has two trials, so trials cannot be split; use over='subject'")
        split = n_trials >= 2
        factor = float(n_trials[split].mean() / (n_trials[split] // 2).mean())
    for k in range(options.n_splits):
        random = generator(options.seed, k, Stream.PERMUTATIONS)
        if options.over == "subject":
            order = random.permutation(len(subjects))
            a, b = (
                ratio(mean[part].sum(axis=0), known[part].sum(axis=0))
                for part in (order[:half], order[half : 2 * half])
            )
        else:
            order = np.lexsort((random.random(len(what)), what))
            place = np.empty(len(what), dtype=np.int64)
            place[order] = np.arange(len(what)) - (np.cumsum(n_trials) - n_trials)[what[order]]
            quota = (n_trials // 2)[what]
            parts = (place < quota, (place >= quota) & (place < 2 * quota))
            a, b = (
                ratio(np.bincount(what[p], score[p], len(stimuli)), np.bincount(what[p], minlength=len(stimuli)))
                for p in parts
            )
        both = np.isfinite(a) & np.isfinite(b)
        r[k], lost[k] = pearson(a[both], b[both]), int((~both).sum())
    whole = spearman_brown(r, factor)
    defined = whole[~np.isnan(whole)]
    rho = float(defined.mean()) if len(defined) else float("nan")
    result = xr.Dataset(
        {
            "split_half": ("split", r, _about("correlation between halves")),
            "reliability": ((), rho, _about("reliability (Spearman-Brown)")),
            "spread": ((), float(defined.std(ddof=1)) if len(defined) > 1 else np.nan, _about("deviation over splits")),
            "bound": ((), float(np.sqrt(max(rho, 0.0))) if len(defined) else np.nan, _about("bound of a model's r")),
            "n_left_out": ("split", lost, _about("stimuli left out")),
        }
    )
    return _described(
        result, "split_half", options, table, order="Spearman-Brown on every split, then the mean", factor=factor
    )


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def _described(
    result: xr.Dataset, measure: str, options: Options, table: Mapping[str, np.ndarray], **more: Any
) -> xr.Dataset:
    """Write the question into the result."""
    n_trials = len(next(iter(table.values())))
    inputs = {"trials": fingerprint({name: as_words(values)[0] for name, values in table.items()})}
    return describe(result, "behaviour", options, inputs, measure=measure, n_trials=n_trials, **more)
