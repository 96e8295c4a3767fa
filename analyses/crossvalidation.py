"""Cross-validation of models over stimuli and subjects, on all data and inside every bootstrap draw.

A flexible model is fitted on the subjects and stimuli outside a fold and scored with the subjects on the stimuli within
it; fixed models are scored on the same folds, so that all models answer the same question. Folds are made of the
distinct stimuli and subjects of a draw: copies stay together, in training or in the test. Everything that a fit sees of
a draw are weighted products of RDMs (:func:`~actkit.analyses.comparison.forms` with the fold's multiplicities set to 0,
or all others), so there is no RDM object and no optimiser in any loop.

Source: Schütt, Kipnis, Diedrichsen & Kriegeskorte (2023), Statistical inference on representational geometries,
eLife 12. Unlike rsatoolbox, ceilings are pooled on the test stimuli themselves, and without folds of subjects the lower
ceiling leaves one subject out (rsatoolbox then compares subjects with a pool that holds them: its upper ceiling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actkit.analyses.comparison import Compare
from actkit.analyses.fold_scores import FIXED, Folds, Group, Material
from actkit.compute import spans
from actkit.errors import InputError
from actkit.resampling import Stream, generator

__all__ = ["FIXED", "CrossValidated", "FoldPlan", "Group", "cross_validate", "default_folds", "fold_plan"]

# Products of RDMs, over all training sets that are computed together: 16 MB, and at most so many sets. Fixed, so that
# no number depends on the machine.
_PRODUCTS = 2_000_000
_MOST_SETS = 4096
_FEWEST = 3  # distinct stimuli in a test fold; fewer have no correlation
# Numbers of the random streams: far from those of permutations, of which nobody draws 2**63.
_FIRST_STREAM = 2**63


@dataclass(frozen=True)
class FoldPlan:
    """How stimuli and subjects are dealt to folds; see :func:`fold_plan`.

    Attributes
    ----------
    stimulus_folds, subject_folds : int
        Number of folds; 1: all are in training and test alike.
    repeats, full_repeats : int
        Random deals of each draw, and of all data.
    seed : int
        Seed of the deals.
    stimulus_groups, subject_groups : numpy.ndarray of int
        ``(stimuli,)`` and ``(subjects,)`` group numbers; a group is never cut.
    """

    stimulus_folds: int
    subject_folds: int
    repeats: int
    full_repeats: int
    seed: int
    stimulus_groups: np.ndarray
    subject_groups: np.ndarray

    @property
    def n_stimuli(self) -> int:
        """Number of stimuli."""
        return len(self.stimulus_groups)

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return len(self.subject_groups)

    def deal(
        self, number: int | None, stimuli: np.ndarray, subjects: np.ndarray, repeats: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Deal the distinct stimuli and subjects of one draw to folds.

        Parameters
        ----------
        number : int or None
            Number of the draw; None: all data.
        stimuli, subjects : numpy.ndarray of int
            ``(stimuli,)`` and ``(subjects,)`` multiplicities.
        repeats : int
            Number of deals; the first of a longer run are those of a shorter one.

        Returns
        -------
        tuple of numpy.ndarray of int
            ``(repeats, stimuli)`` and ``(repeats, subjects)`` fold numbers; -1 for what was not drawn.
        """
        stream = _FIRST_STREAM if number is None else _FIRST_STREAM + 1 + number
        rng = generator(self.seed, stream, Stream.PERMUTATIONS)
        deals = [
            (
                _dealt(rng, self.stimulus_groups, stimuli > 0, self.stimulus_folds),
                _dealt(rng, self.subject_groups, subjects > 0, self.subject_folds),
            )
            for _ in range(repeats)
        ]
        return np.stack([deal[0] for deal in deals]), np.stack([deal[1] for deal in deals])


def _dealt(rng: np.random.Generator, groups: np.ndarray, drawn: np.ndarray, folds: int) -> np.ndarray:
    """Deal drawn groups in random order to folds in turn, so that sizes differ by one group at most."""
    order = rng.permutation(groups.max() + 1)  # of all groups: the draw must not shift the stream
    present = np.bincount(groups[drawn], minlength=len(order)) > 0
    order = order[present[order]]
    fold = np.full(len(present), -1)
    fold[order] = np.arange(len(order)) % folds
    return np.where(drawn, fold[groups], -1)


def default_folds(n_stimuli: int, n_subjects: int, bootstrap: bool = True) -> tuple[int, int]:
    """Choose numbers of folds by the sizes of the sample, as rsatoolbox does.

    Parameters
    ----------
    n_stimuli, n_subjects : int
        Sample sizes.
    bootstrap : bool
        Count what a bootstrap draw keeps, ``1 - 1/e`` of the sample.

    Returns
    -------
    tuple of int
        Folds of stimuli (2 to 5, each with at least 3 stimuli) and of subjects (2 to 5; 1 for one subject).
    """
    share = 1 - 1 / np.e if bootstrap else 1.0
    stimuli = int(2 + np.searchsorted([12, 24, 40], share * n_stimuli, side="right"))
    subjects = int(2 + np.searchsorted([6, 12, 20], share * n_subjects, side="right"))
    return stimuli, subjects if n_subjects > 1 else 1


def fold_plan(
    n_stimuli: int,
    n_subjects: int,
    stimulus_folds: int | None = None,
    subject_folds: int | None = None,
    repeats: int = 2,
    seed: int = 0,
    *,
    full_repeats: int = 20,
    stimulus_groups: Sequence[object] | np.ndarray | None = None,
    subject_groups: Sequence[object] | np.ndarray | None = None,
) -> FoldPlan:
    """Plan the folds of a cross-validation.

    Parameters
    ----------
    n_stimuli, n_subjects : int
        Sample sizes.
    stimulus_folds, subject_folds : int, optional
        Number of folds; 1 does not split. By default :func:`default_folds`.
    repeats : int
        Random deals of every bootstrap draw: 2 or more let the variance that the deals add be taken out.
    seed : int
        Seed of the deals.
    full_repeats : int
        Random deals of all data, over which the reported scores are averaged.
    stimulus_groups, subject_groups : sequence, optional
        One label for each stimulus or subject; those with the same label (images of one object, members of one
        family) are always in the same fold.

    Returns
    -------
    FoldPlan
        The plan.

    Raises
    ------
    InputError
        If there are more folds than groups, fewer than three stimuli for each fold, or no repeats.

    Examples
    --------
    >>> plan = fold_plan(92, 16)
    >>> plan.stimulus_folds, plan.subject_folds
    (5, 3)
    """
    usual = default_folds(n_stimuli, n_subjects)
    stimulus_folds = usual[0] if stimulus_folds is None else stimulus_folds
    subject_folds = usual[1] if subject_folds is None else subject_folds
    if min(repeats, full_repeats) < 1:
        raise InputError(f"repeats={repeats} and full_repeats={full_repeats}; each must be 1 or more")
    items = _groups("stimulus_groups", stimulus_groups, n_stimuli)
    people = _groups("subject_groups", subject_groups, n_subjects)
    for what, folds, groups in (("stimulus_folds", stimulus_folds, items), ("subject_folds", subject_folds, people)):
        most = int(groups.max()) + 1
        if not 1 <= folds <= most:
            raise InputError(f"{what}={folds} with {most} to deal out; choose 1 (no split) to {most}")
    if stimulus_folds > 1 and n_stimuli < _FEWEST * stimulus_folds:
        raise InputError(
            f"{n_stimuli} stimuli in {stimulus_folds} folds leave fewer than {_FEWEST} in some, which have no "
            f"correlation; choose at most {n_stimuli // _FEWEST} folds"
        )
    return FoldPlan(stimulus_folds, subject_folds, repeats, full_repeats, seed, items, people)


def _groups(what: str, labels: Sequence[object] | np.ndarray | None, n: int) -> np.ndarray:
    """Number the groups; by default every one is its own."""
    if labels is None:
        return np.arange(n)
    words = np.asarray(labels).astype(str)
    if words.shape != (n,):
        raise InputError(f"{what} has shape {words.shape} for {n}; give one label for each")
    return np.unique(words, return_inverse=True)[1]


@dataclass(frozen=True)
class CrossValidated:
    """Cross-validated scores.

    Attributes
    ----------
    score : numpy.ndarray
        ``(draws, repeats, models)`` mean score over test folds and the subjects drawn (as often as drawn); NaN for
        draws that leave no full set of folds, and where a model has no score in some fold.
    lower, upper : numpy.ndarray
        ``(draws, repeats)`` ceilings on the same test folds, means over the subjects drawn (as often as drawn).
    subject_score : numpy.ndarray
        ``(models, subjects)`` on all data: mean over stimulus folds and the repeats in which all are defined.
    subject_lower, subject_upper : numpy.ndarray
        ``(subjects,)`` ceilings on all data, averaged alike.
    theta : dict of str to numpy.ndarray
        ``(components,)`` weights of each flexible model fitted to all data (to report, not to score), of unit norm;
        for interpolation they sum to 1.
    theta_folds : dict of str to numpy.ndarray
        ``(full_repeats, stimulus folds, subject folds, components)`` weights of the training sets of all data, of unit
        norm: how stable the weights are, how often each component is chosen.
    degenerate : int
        Number of draws without a full set of folds: fewer than three distinct stimuli for some fold, or fewer distinct
        subjects than folds.
    undefined : numpy.ndarray of int
        ``(models,)`` repeats on all data in which the model has no score in some fold (an RDM that is constant there).
    """

    score: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    subject_score: np.ndarray
    subject_lower: np.ndarray
    subject_upper: np.ndarray
    theta: dict[str, np.ndarray]
    theta_folds: dict[str, np.ndarray]
    degenerate: int
    undefined: np.ndarray


def cross_validate(
    components: np.ndarray,
    groups: Sequence[Group],
    data: np.ndarray,
    plan: FoldPlan,
    compare: Compare,
    stimuli: np.ndarray | None = None,
    subjects: np.ndarray | None = None,
    *,
    first: int = 0,
    workers: int | None = None,
    device: str | None = None,
) -> CrossValidated:
    """Score fixed and flexible models out of sample.

    The weights of weighted and interpolation models maximise the training score in the measure's own metric where that
    is a scalar product (Pearson, cosine, whitened), and the Pearson correlation for rank measures, which then only
    score the prediction. A choice among RDMs always maximises the measure itself.

    Parameters
    ----------
    components : numpy.ndarray
        ``(components, pairs)`` dissimilarities of all models.
    groups : sequence of Group
        The models: name, kind and rows of `components`.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities without missing values.
    plan : FoldPlan
        The folds; see :func:`fold_plan`.
    compare : str
        The measure.
    stimuli : numpy.ndarray of int, optional
        ``(draws, stimuli)`` multiplicities; None keeps all stimuli in every draw.
    subjects : numpy.ndarray of int, optional
        ``(draws, subjects)`` multiplicities; None keeps all subjects. Without both there are no draws.
    first : int
        Number of the first draw: blocks of a longer run give its numbers.
    workers : int, optional
        Threads; the numbers are the same for any.
    device : str, optional
        Torch device for products of RDMs (fits, and the scores of measures that are scalar products); numpy by default.

    Returns
    -------
    CrossValidated
        Scores and ceilings of the draws, and those of all data.

    Raises
    ------
    InputError
        If shapes do not fit, or a flexible model would be tested on its own training data (one fold of each).
    """
    material = Material.make(components, data, groups, compare, workers, device)
    _check(material, plan)
    draws = [len(counts) for counts in (stimuli, subjects) if counts is not None]
    if len(set(draws)) > 1:
        raise InputError(f"{draws[0]} draws of stimuli and {draws[1]} of subjects; a draw of both needs one of each")
    n_draws = draws[0] if draws else 0
    stimuli = _counts(stimuli, n_draws, plan.n_stimuli, "stimuli")
    subjects = _counts(subjects, n_draws, plan.n_subjects, "subjects")

    n_models = len(groups)
    score = np.full((n_draws, plan.repeats, n_models), np.nan)
    lower, upper = np.full((2, n_draws, plan.repeats), np.nan)
    valid = np.zeros(n_draws, dtype=bool)
    sets = min(_MOST_SETS, _PRODUCTS // material.largest() ** 2)
    step = max(1, sets // (plan.repeats * plan.stimulus_folds))
    for start, stop in spans(n_draws, step):
        w, u = stimuli[start:stop], subjects[start:stop]
        folds, valid[start:stop] = _folds(plan, range(first + start, first + stop), w, u, plan.repeats)
        part = material.evaluate(folds)
        share = u / u.sum(axis=1, keepdims=True)
        score[start:stop] = _over_subjects(part.score, share)
        lower[start:stop] = _over_subjects(part.lower[:, :, None], share)[..., 0]
        upper[start:stop] = _over_subjects(part.upper[:, :, None], share)[..., 0]
    for values in (score, lower, upper):
        values[~valid] = np.nan

    everything = np.ones((1, plan.n_stimuli), dtype=np.int64), np.ones((1, plan.n_subjects), dtype=np.int64)
    folds, complete = _folds(plan, [None], *everything, plan.full_repeats)
    whole = material.evaluate(folds)
    if not complete.all():
        for values in (whole.score, whole.lower, whole.upper):
            values[:] = np.nan
    return CrossValidated(
        score,
        lower,
        upper,
        _over_repeats(whole.score[0]),
        _over_repeats(whole.lower[0, :, None])[0],
        _over_repeats(whole.upper[0, :, None])[0],
        {name: _unit(theta, kind)[0, 0] for name, kind, theta in material.fits_to_all()},
        {
            group.name: _unit(theta, group.kind)[0]
            for group, theta in zip(groups, whole.theta, strict=True)
            if theta is not None
        },
        int((~valid).sum()),
        np.isnan(whole.score[0]).any(axis=2).sum(axis=0),
    )


def _check(material: Material, plan: FoldPlan) -> None:
    """Refuse what does not fit together, and tests on training data."""
    if material.n_stimuli != plan.n_stimuli or len(material.data) != plan.n_subjects:
        raise InputError(
            f"the plan deals {plan.n_stimuli} stimuli and {plan.n_subjects} subjects, and the RDMs have "
            f"{material.n_stimuli} and {len(material.data)}; make the plan for these RDMs"
        )
    flexible = [group.name for group in material.groups if group.kind != FIXED]
    if flexible and plan.stimulus_folds == plan.subject_folds == 1:
        raise InputError(
            f"the flexible model {flexible[0]!r} would be tested on the data that fitted it, where even noise scores "
            "above 0; use two or more folds of stimuli, of subjects or of both"
        )


def _counts(counts: np.ndarray | None, n_draws: int, n: int, what: str) -> np.ndarray:
    """Multiplicities of every draw; all ones where nothing is drawn."""
    if counts is None:
        return np.ones((n_draws, n), dtype=np.int64)
    values = np.asarray(counts)
    if values.ndim != 2 or values.shape[1] != n or values.dtype.kind not in "iu" or (values < 0).any():
        raise InputError(
            f"draws of {what} are counts of shape (draws, {n}), not {values.dtype} of shape {values.shape}; "
            "make them with bootstrap_weights()"
        )
    return values.astype(np.int64)


def _folds(
    plan: FoldPlan, numbers: Sequence[int | None] | range, stimuli: np.ndarray, subjects: np.ndarray, repeats: int
) -> tuple[Folds, np.ndarray]:
    """Deal the folds of a block of draws, and tell which draws have a full set."""
    dealt = [plan.deal(k, w, u, repeats) for k, w, u in zip(numbers, stimuli, subjects, strict=True)]
    items, people = np.stack([d[0] for d in dealt]), np.stack([d[1] for d in dealt])
    folds = Folds(stimuli, subjects, items, people, plan.stimulus_folds, plan.subject_folds)
    enough = (folds.in_stimulus_fold().sum(axis=-1) >= _FEWEST).all(axis=(1, 2))
    staffed = (folds.in_subject_fold().sum(axis=-1) >= 1).all(axis=(1, 2))
    return folds, enough & staffed


def _over_subjects(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mean over the subjects of each draw: ``(draws, repeats, models, subjects)`` to ``(draws, repeats, models)``."""
    weights = share[:, None, None]
    return np.where(weights > 0, values * weights, 0.0).sum(axis=-1)


def _over_repeats(values: np.ndarray) -> np.ndarray:
    """Mean over the repeats in which a model has a score with every subject: ``(models, subjects)``."""
    defined = ~np.isnan(values).any(axis=2, keepdims=True)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _unit(theta: np.ndarray, kind: str) -> np.ndarray:
    """Weights of unit norm; those of an interpolation already have a scale."""
    if kind == "interpolation":
        return theta
    norm = np.sqrt(np.square(theta).sum(axis=-1, keepdims=True))
    return np.divide(theta, norm, out=np.zeros_like(theta), where=norm != 0)
