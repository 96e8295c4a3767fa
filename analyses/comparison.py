"""Compare RDMs by eight measures: on all stimuli, on many bootstrap draws at once, with the ceilings of each measure.

A bootstrap draw is a vector of multiplicities of the stimuli, w, or of the subjects, u. A pair of stimuli i < j counts
``w_i * w_j`` times and copies of one stimulus never pair; subjects count u times in means and in pooled RDMs, and a
subject is left out of a pooled RDM with all its copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from actkit.analyses import rank_draws
from actkit.analyses.comparison_parts import (
    as_counts,
    as_vectors,
    drawn_scores,
    everything_once,
    filled,
    linear_ceilings,
    matching,
    paired_linear,
    permutable,
    plain_ceilings,
    plain_scores,
    products,
    rank_ceilings,
    totals,
    whole_rows,
)
from actkit.analyses.measures import KENDALL, LINEAR, RANKED, Compare, check_measure, normalised, prepared, stimuli_of
from actkit.analyses.threads import in_blocks, single_blas
from actkit.errors import InputError

__all__ = [
    "Compare",
    "Resampled",
    "ceilings",
    "forms",
    "paired_scores",
    "permuted_scores",
    "prepared",
    "resample",
    "resampled_scores",
    "scores",
]

Target = Literal["stimulus", "subject", "both"]

_PERMUTED_VALUES = 8_000_000  # of shuffled RDMs at a time, 64 MB


@dataclass(frozen=True)
class Resampled:
    """Scores and ceilings on bootstrap draws.

    Attributes
    ----------
    score : numpy.ndarray
        ``(draws, models, subjects)`` every model with every subject on the stimuli of each draw; subject multiplicities
        do not enter. Without draws of stimuli: a read-only view that repeats the scores on all stimuli.
    full : numpy.ndarray
        ``(models, subjects)`` scores on all stimuli.
    subjects : numpy.ndarray or None
        ``(draws, subjects)`` multiplicities.
    lower, upper : dict of str to numpy.ndarray
        ``(draws,)`` ceilings, means over the distinct subjects drawn. Keys: ``"stimulus"`` (drawn stimuli, every
        subject once), ``"subject"`` (all stimuli, drawn subjects), ``"both"``. Empty if none were asked for. NaN for
        draws with fewer than three distinct stimuli, with a single distinct subject, or with a subject whose drawn
        dissimilarities are all equal.
    """

    score: np.ndarray
    full: np.ndarray
    subjects: np.ndarray | None
    lower: dict[str, np.ndarray] = field(default_factory=dict)
    upper: dict[str, np.ndarray] = field(default_factory=dict)

    def mean(self, target: Target) -> np.ndarray:
        """Mean score of each model over the subjects of each draw.

        Parameters
        ----------
        target : {"stimulus", "subject", "both"}
            What is drawn: stimuli (every subject once), subjects (on all stimuli; they count as often as they were
            drawn), or both.

        Returns
        -------
        numpy.ndarray of float64
            ``(draws, models)``; NaN where a drawn subject has no score.

        Raises
        ------
        InputError
            If subjects were not drawn.
        """
        if target == "stimulus":
            return self.score.mean(axis=2)
        if self.subjects is None:
            raise InputError(f"there are no draws of subjects, so no mean for {target!r}; give `subjects` to resample")
        share = self.subjects / self.subjects.sum(axis=1, keepdims=True)
        values = self.full if target == "subject" else self.score
        known = np.isfinite(values)
        subscripts = "ks,ds->dk" if target == "subject" else "dks,ds->dk"
        mean = np.einsum(subscripts, np.where(known, values, 0.0), share)
        if known.all():
            return mean
        return np.where(np.einsum(subscripts, (~known).astype(float), share) > 0, np.nan, mean)


def scores(models: np.ndarray, data: np.ndarray, compare: Compare) -> np.ndarray:
    """Compare every model with every subject.

    Parameters
    ----------
    models : numpy.ndarray
        ``(models, pairs)`` dissimilarities.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    compare : str
        The measure.

    Returns
    -------
    numpy.ndarray of float64
        ``(models, subjects)``; NaN where a side has no score (see :func:`prepared`).
    """
    check_measure(compare)
    models, data = matching(models, data)
    return plain_scores(models, data, compare)


def ceilings(data: np.ndarray, compare: Compare) -> tuple[np.ndarray, np.ndarray]:
    """Bound what any model can score with each subject.

    The upper bound compares a subject with the RDM that scores best over all subjects; the lower bound with the same
    made from the other subjects. That best RDM is the mean of the subjects' vectors scaled to unit length in the
    measure's own metric (cosine, Pearson after centring, whitened), and the ranks of the mean of the ranks for
    Spearman and rho-a. For Kendall's tau the ranks of the mean ranks are an approximation: the best order is
    NP-hard to find.

    Parameters
    ----------
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities without missing values.
    compare : str
        The measure.

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper ceiling of each subject, ``(subjects,)``. All NaN for a single subject: it has no others to be
        predicted from, and predicts itself perfectly.

    References
    ----------
    Nili et al. (2014), A toolbox for representational similarity analysis, PLoS Computational Biology 10.
    """
    data = as_vectors(data)
    check_measure(compare)
    return plain_ceilings(data, compare)


def resample(
    models: np.ndarray,
    data: np.ndarray,
    stimuli: np.ndarray | None,
    subjects: np.ndarray | None,
    compare: Compare,
    *,
    with_ceilings: bool = True,
    workers: int | None = None,
    device: str | None = None,
) -> Resampled:
    """Compare every model with every subject on bootstrap draws, with the ceilings of every draw.

    Parameters
    ----------
    models : numpy.ndarray
        ``(models, pairs)`` dissimilarities.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    stimuli : numpy.ndarray of int or None
        ``(draws, stimuli)`` multiplicities; None keeps all stimuli in every draw.
    subjects : numpy.ndarray of int or None
        ``(draws, subjects)`` multiplicities; None draws no subjects.
    compare : str
        The measure.
    with_ceilings : bool
        Compute the ceilings of the draws too.
    workers : int, optional
        Threads; by default one for each processor that this process may use. The numbers are the same for any.
    device : str, optional
        Torch device for the measures that are matrix products (Pearson, cosine, whitened); numpy by default.

    Returns
    -------
    Resampled
        Scores and ceilings.

    Raises
    ------
    InputError
        If the draws do not fit the RDMs, hold anything but counts, or there are neither stimuli nor subjects.

    References
    ----------
    Schütt et al. (2023), Statistical inference on representational geometries, eLife 12.
    """
    check_measure(compare)
    models, data = matching(models, data)
    everything = everything_once(models)
    if stimuli is None and subjects is None:
        raise InputError("neither stimuli nor subjects are drawn; give the multiplicities of one of them")
    drawn = None if stimuli is None else as_counts(stimuli, everything.shape[1], "stimuli")
    people = None if subjects is None else as_counts(subjects, len(data), "subjects")
    if drawn is not None and people is not None and len(drawn) != len(people):
        raise InputError(
            f"{len(drawn)} draws of stimuli and {len(people)} of subjects; a draw of both needs one of each"
        )
    full = plain_scores(models, data, compare)
    similar = None
    if drawn is None:
        assert people is not None
        score = np.broadcast_to(full, (len(people), *full.shape))
    else:
        score, similar = drawn_scores(models, data, drawn, compare, with_ceilings, workers, device)
    bounds = {}
    if with_ceilings and compare in LINEAR:
        bounds = linear_ceilings(data, similar, people, compare)
    elif with_ceilings:
        bounds = rank_ceilings(data, drawn, people, compare, workers)
    lower, upper = ({name: pair[side] for name, pair in bounds.items()} for side in (0, 1))
    return Resampled(score, full, people, lower, upper)


def paired_scores(
    predictions: np.ndarray, data: np.ndarray, weights: np.ndarray, compare: Compare, workers: int | None = None
) -> np.ndarray:
    """Compare another prediction on each draw with every subject, as cross-validation needs.

    Parameters
    ----------
    predictions : numpy.ndarray
        ``(draws, pairs)`` one RDM for each draw.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    weights : numpy.ndarray of int
        ``(draws, stimuli)`` multiplicities of the stimuli.
    compare : str
        The measure.
    workers : int, optional
        Threads.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws, subjects)``.
    """
    check_measure(compare)
    predictions, data = matching(predictions, data)
    drawn = as_counts(weights, stimuli_of(data.shape[1]), "stimuli")
    if len(drawn) != len(predictions):
        raise InputError(f"{len(predictions)} predictions for {len(drawn)} draws; give one for each draw")
    whole, known = whole_rows(predictions), whole_rows(data)
    x, y = filled(predictions, whole), filled(data, known)
    if compare in KENDALL:
        out = rank_draws.paired_kendall(x, y, drawn, compare, workers)
    elif compare in RANKED:
        cross, own, theirs = rank_draws.paired_forms(x, y, drawn, workers)
        out = normalised(cross[:, None], own[:, None], theirs, compare, totals(drawn))[:, 0]
    else:
        out = paired_linear(x, y, drawn, compare, workers)
    out[~whole] = np.nan
    out[:, ~known] = np.nan
    return out


def forms(
    vectors: np.ndarray,
    weights: np.ndarray | None,
    compare: Compare,
    workers: int | None = None,
    device: str | None = None,
) -> np.ndarray:
    """Bilinear form of every RDM with every other on each draw, in the units of the RDMs.

    The scores are ``F_ab / sqrt(F_aa * F_bb)`` (for rho-a ``12 F_ab / (N³ - N)`` with N pairs); sums of RDMs have the
    sums of forms (not for ranks, which are those of each RDM in each draw).

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(v, pairs)`` dissimilarities.
    weights : numpy.ndarray of int or None
        ``(draws, stimuli)`` multiplicities; None: one draw of all stimuli.
    compare : str
        A measure that is a scalar product: weighted products (cosine), of centred values (Pearson), of centred
        mid-ranks (Spearman, rho-a), whitened.
    workers : int, optional
        Threads.
    device : str, optional
        Torch device, as in :func:`resample`.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws, v, v)``; NaN for draws with fewer than three distinct stimuli and for RDMs with missing values.

    Raises
    ------
    InputError
        For Kendall's tau, which has no form.
    """
    check_measure(compare, without=KENDALL)
    vectors = as_vectors(vectors)
    everything = everything_once(vectors)
    drawn = everything if weights is None else as_counts(weights, everything.shape[1], "stimuli")
    whole = whole_rows(vectors)
    first, second = np.triu_indices(len(vectors))
    values = products(filled(vectors, whole), first, second, drawn, compare, workers, device)
    out = np.empty((len(drawn), len(vectors), len(vectors)))
    out[:, first, second] = out[:, second, first] = values.T
    out[:, ~whole] = np.nan
    out[:, :, ~whole] = np.nan
    return out


def resampled_scores(models: np.ndarray, data: np.ndarray, weights: np.ndarray, compare: Compare) -> np.ndarray:
    """Compare every model with every subject on bootstrap draws of the stimuli.

    Parameters
    ----------
    models : numpy.ndarray
        ``(models, pairs)`` dissimilarities.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    weights : numpy.ndarray of int
        ``(draws, stimuli)`` multiplicities of the stimuli.
    compare : str
        The measure.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws, models, subjects)``; NaN where a draw leaves no score: fewer than three distinct stimuli, or a model
        or subject whose drawn dissimilarities are all equal.
    """
    return resample(models, data, weights, None, compare, with_ceilings=False).score


def permuted_scores(
    models: np.ndarray, data: np.ndarray, permutations: np.ndarray, compare: Compare, workers: int | None = None
) -> np.ndarray:
    """Score every model against the subjects' mean after permuting the stimulus labels.

    The same permutation is applied for all models and all subjects. Where a score is a scalar product, the mean over
    subjects is the product with the mean of the normalised subjects, and only that one RDM is permuted.

    Parameters
    ----------
    models : numpy.ndarray
        ``(models, pairs)`` dissimilarities.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    permutations : numpy.ndarray of int
        ``(permutations, stimuli)``.
    compare : str
        The measure.
    workers : int, optional
        Threads.

    Returns
    -------
    numpy.ndarray of float64
        ``(models, permutations)`` subject-mean scores; NaN for a model without a score.
    """
    check_measure(compare)
    models, data = matching(models, data)
    shuffles = np.asarray(permutations, dtype=np.int64)
    if compare in KENDALL:
        whole = whole_rows(models)
        if not whole_rows(data).all():
            return np.full((len(models), len(shuffles)), np.nan)
        out = rank_draws.kendall_permuted(filled(models, whole), data, shuffles, compare, workers).T
        out[~whole] = np.nan
        return out
    mine, mean = permutable(models, data, compare)
    n = shuffles.shape[1]
    row, column = np.triu_indices(n, 1)
    square = np.zeros((n, n))
    square[row, column] = square[column, row] = mean
    flat = square.ravel()
    defined = whole_rows(mine)
    mine = mine[defined]
    out = np.full((len(models), len(shuffles)), np.nan)

    def block(start: int, stop: int) -> None:
        part = shuffles[start:stop]
        out[defined, start:stop] = mine @ flat.take(part[:, row] * n + part[:, column]).T

    with single_blas():
        in_blocks(block, len(shuffles), max(1, min(256, _PERMUTED_VALUES // len(row))), workers)
    return out
