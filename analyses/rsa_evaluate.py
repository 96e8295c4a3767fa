"""Scores of models on the data and on bootstrap draws: plain, freed of control RDMs, or cross-validated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from actkit.analyses.comparison import Compare, ceilings, forms, resample, scores
from actkit.analyses.crossvalidation import FoldPlan, cross_validate
from actkit.analyses.inference import LeaveOut, leave_one_out
from actkit.analyses.measures import KENDALL, stimuli_of
from actkit.analyses.moments import DRAW_BLOCK, PAIR_BLOCK
from actkit.analyses.partial import explained, partial_scores
from actkit.analyses.rsa_inputs import Candidates
from actkit.compute import progress as progress_bar
from actkit.compute import spans
from actkit.resampling import distinct

Target = Literal["stimulus", "subject", "both"]
TARGETS: tuple[Target, ...] = ("stimulus", "subject", "both")

# Forms of all vectors are kept for this many bytes of draws at a time.
_FORM_BYTES = 256 * 2**20
# Draws between two steps of the progress bar.
_DRAWS = 512
_SLOW_DRAWS = 128
# What results say of the order of sums: with other blocks, numbers differ in the last digits.
BLOCKS = f"blocks of {_DRAWS} draws ({_SLOW_DRAWS} for Kendall and cross-validation), {DRAW_BLOCK} × {PAIR_BLOCK} pairs"
# Without its last subject, the pool of a draw is empty up to rounding.
_ALONE = 1e-12


@dataclass(frozen=True)
class Evaluation:
    """Scores and ceilings on the full data, and on the draws of each kind.

    Draws are ``(draws, models)`` and ``(draws,)``; with repeated cross-validation ``(draws, repeats, models)`` and
    ``(draws, repeats)``. NaN marks what a draw leaves undefined.
    """

    score: np.ndarray  # (models, subjects)
    lower: np.ndarray  # (subjects,)
    upper: np.ndarray
    means: dict[str, np.ndarray]
    lowers: dict[str, np.ndarray]
    uppers: dict[str, np.ndarray]
    # Weights of the components of each flexible model: fitted to all data, and to each training set.
    weights: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    # Scores and ceilings without each stimulus and each subject, for models that are not fitted.
    leave_out: LeaveOut | None = None

    def draw_means(self, target: str) -> np.ndarray:
        """Subject-mean scores on the draws of one kind, repeats averaged, ``(draws, models)``."""
        means = self.means[target]
        return means.mean(axis=1) if means.ndim == 3 else means


def evaluate(
    candidates: Candidates,
    data: np.ndarray,
    stimuli: np.ndarray,
    subjects: np.ndarray,
    compare: Compare,
    workers: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Evaluate fixed models.

    Parameters
    ----------
    candidates : Candidates
        The models.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    stimuli, subjects : numpy.ndarray of int
        ``(draws, stimuli)`` and ``(draws, subjects)`` multiplicities.
    compare : str
        The measure.
    workers : int, optional
        Threads; all cores by default. The numbers do not depend on it.
    device : str, optional
        A torch device for the measures that are matrix products.
    progress : bool, optional
        Show a bar over blocks of draws; by default only on a terminal.

    Returns
    -------
    Evaluation
        Scores of all models.
    """
    vectors = candidates.fixed_vectors()
    lower, upper = ceilings(data, compare)
    n_draws = len(stimuli)
    means, lowers, uppers = _empty(n_draws, len(vectors))
    for start, stop in _blocks(n_draws, _SLOW_DRAWS if compare in KENDALL else _DRAWS, progress):
        drawn = resample(
            vectors, data, stimuli[start:stop], subjects[start:stop], compare, workers=workers, device=device
        )
        for kind in TARGETS:
            means[kind][start:stop] = drawn.mean(kind)
            if drawn.lower:  # none with a single subject
                lowers[kind][start:stop], uppers[kind][start:stop] = drawn.lower[kind], drawn.upper[kind]
    without = leave_one_out(vectors, data, compare, workers=workers)
    return Evaluation(scores(vectors, data, compare), lower, upper, means, lowers, uppers, leave_out=without)


def _empty(n_draws: int, n_models: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Room for mean scores and both ceilings of every kind of draw."""
    means = {str(kind): np.full((n_draws, n_models), np.nan) for kind in TARGETS}
    lowers, uppers = ({str(kind): np.full(n_draws, np.nan) for kind in TARGETS} for _ in range(2))
    return means, lowers, uppers


def _blocks(n_draws: int, step: int, progress: bool | None, desc: str = "draws") -> Iterator[tuple[int, int]]:
    """Blocks of draws of a fixed size, so that no number depends on the machine, with a bar over them."""
    return iter(progress_bar(list(spans(n_draws, step)), desc=desc, unit="block", enabled=progress))


def evaluate_partial(
    candidates: Candidates,
    data: np.ndarray,
    controls: np.ndarray,
    stimuli: np.ndarray,
    subjects: np.ndarray,
    compare: Compare,
    semi: bool,
    workers: int | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Evaluate fixed models freed of control RDMs.

    Parameters
    ----------
    candidates : Candidates
        The models.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    controls : numpy.ndarray
        ``(controls, pairs)`` RDMs whose share is taken out.
    stimuli, subjects : numpy.ndarray of int
        Multiplicities, as for :func:`evaluate`.
    compare : str
        A measure that is a scalar product: not tau.
    semi : bool
        Free the models only (semi-partial), not the subjects.
    workers : int, optional
        Threads.
    progress : bool, optional
        Show a bar over blocks of draws; by default only on a terminal.

    Returns
    -------
    Evaluation
        Partial scores, with ceilings that no model freed of the controls can pass.
    """
    vectors = candidates.fixed_vectors()
    n_models, n_subjects = len(vectors), len(data)
    whole = ~np.isnan(vectors).any(axis=1)
    rows = np.concatenate([vectors[whole], data, controls])
    n = int(whole.sum())
    people, taken_out = np.arange(n, n + n_subjects), np.arange(n + n_subjects, len(rows))

    def of(weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Scores (draws, models, subjects), and the products between the subjects' parts that models can reach."""
        products = forms(rows, weights, compare, workers=workers)
        partial = np.full((len(products), n_models, n_subjects), np.nan)
        partial[:, whole] = partial_scores(products, np.arange(n), taken_out, people, semi)
        between = partial_scores(products, people, taken_out, people, semi)
        if semi:  # of unit-norm subjects, freed of the controls: shorter than 1 by what the controls explain
            between = between * np.sqrt(1.0 - explained(products, taken_out, people))[..., None]
        return partial, between

    score, similar_of_all = of(None)
    everyone = np.ones(n_subjects)
    # A single subject has no others to be predicted from, and predicts itself perfectly: no ceiling.
    alone = np.full((2, n_subjects), np.nan)
    lower, upper = (side[0] for side in form_ceilings(similar_of_all, everyone[None])) if n_subjects > 1 else alone
    share = subjects / subjects.sum(axis=1, keepdims=True)
    low, high = _mean_ceilings(np.broadcast_to(similar_of_all, (len(subjects), n_subjects, n_subjects)), subjects)
    means, lowers, uppers = _empty(len(stimuli), n_models)
    means["subject"], lowers["subject"], uppers["subject"] = share @ score[0].T, low, high
    step = max(1, _FORM_BYTES // (8 * len(rows) ** 2))
    for start, stop in _blocks(len(stimuli), step, progress):
        drawn, similar = of(stimuli[start:stop])
        for kind, weights in (
            ("stimulus", np.broadcast_to(everyone, (stop - start, n_subjects))),
            ("both", subjects[start:stop]),
        ):
            means[kind][start:stop] = np.einsum("dks,ds->dk", drawn, weights / weights.sum(axis=1, keepdims=True))
            lowers[kind][start:stop], uppers[kind][start:stop] = _mean_ceilings(similar, weights)
    return Evaluation(score[0], lower, upper, means, lowers, uppers, leave_out=_without(of, similar_of_all, data))


def _without(
    of: Callable[[np.ndarray | None], tuple[np.ndarray, np.ndarray]], similar: np.ndarray, data: np.ndarray
) -> LeaveOut:
    """Leave out every stimulus and every subject in turn."""
    n = stimuli_of(data.shape[1])
    score, between = of(1 - np.eye(n, dtype=np.int64))
    low, high = _mean_ceilings(between, np.ones((n, len(data))))
    lower, upper = {"stimulus": low}, {"stimulus": high}
    if len(data) > 1:
        others = 1.0 - np.eye(len(data))
        lower["subject"], upper["subject"] = _mean_ceilings(
            np.broadcast_to(similar, (len(data), *similar.shape[1:])), others
        )
    return LeaveOut(score, lower, upper)


def form_ceilings(similar: np.ndarray, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the noise ceilings of each subject from the products between subjects.

    With R the products of the (freed) unit-norm subjects and u how often each counts, the sum of the subjects scores
    best: ``upper_s = (R u)_s / √(uᵀ R u)``; the lower ceiling is the same without subject s and all its copies.

    Parameters
    ----------
    similar : numpy.ndarray
        ``(draws, subjects, subjects)``.
    subjects : numpy.ndarray
        ``(draws, subjects)`` multiplicities.

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper ceilings, ``(draws, subjects)``; the lower one is NaN where a subject is alone.
    """
    own = np.diagonal(similar, axis1=1, axis2=2)
    together = np.einsum("dst,dt->ds", similar, subjects)
    whole = np.einsum("ds,ds->d", together, subjects)[:, None]
    rest = whole - 2 * subjects * together + subjects**2 * own
    with np.errstate(invalid="ignore", divide="ignore"):
        upper = together / np.sqrt(whole)
        lower = (together - subjects * own) / np.sqrt(np.where(rest > _ALONE * whole, rest, np.nan))
    return lower, upper


def _mean_ceilings(similar: np.ndarray, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ceilings of each draw, averaged over the different subjects that it holds; NaN with a single one."""
    lower, upper = form_ceilings(similar, subjects)
    present = subjects > 0
    count = distinct(subjects)
    low, high = (np.where(present, side, 0.0).sum(axis=1) / count for side in (lower, upper))
    alone = count < 2
    return np.where(alone, np.nan, low), np.where(alone, np.nan, high)


def evaluate_crossvalidated(
    candidates: Candidates,
    data: np.ndarray,
    plan: FoldPlan,
    stimuli: np.ndarray,
    subjects: np.ndarray,
    compare: Compare,
    target: Target,
    workers: int | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Evaluate models on stimuli and subjects that did not fit them.

    Parameters
    ----------
    candidates : Candidates
        Fixed and flexible models; all are tested on the same folds, so that they can be compared.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    plan : FoldPlan
        How stimuli and subjects are divided.
    stimuli, subjects : numpy.ndarray of int
        Multiplicities, as for :func:`evaluate`.
    compare : str
        The measure.
    target : {"stimulus", "subject", "both"}
        What is generalised to: only the draws it needs are made.
    workers : int, optional
        Threads.
    progress : bool, optional
        Show a bar over blocks of draws; by default only on a terminal.

    Returns
    -------
    Evaluation
        Cross-validated scores.
    """
    known = (candidates.vectors, candidates.groups, data)
    full = cross_validate(*known, plan, compare, workers=workers)
    once = replace(plan, full_repeats=1)  # all data are done above
    wanted = TARGETS if target == "both" else (target,)
    means: dict[str, np.ndarray] = {}
    lowers: dict[str, np.ndarray] = {}
    uppers: dict[str, np.ndarray] = {}
    for kind in wanted:
        parts = [
            cross_validate(
                *known,
                once,
                compare,
                stimuli=stimuli[start:stop] if kind != "subject" else None,
                subjects=subjects[start:stop] if kind != "stimulus" else None,
                first=start,
                workers=workers,
            )
            for start, stop in _blocks(len(stimuli), _SLOW_DRAWS, progress, f"draws ({kind})")
        ]
        for values, name in ((means, "score"), (lowers, "lower"), (uppers, "upper")):
            values[kind] = np.concatenate([getattr(part, name) for part in parts])
    return Evaluation(
        full.subject_score,
        full.subject_lower,
        full.subject_upper,
        means,
        lowers,
        uppers,
        {name: (full.theta[name], full.theta_folds[name]) for name in full.theta},
    )
