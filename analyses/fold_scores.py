"""What cross-validation computes in a block of folds: fits on the training sets, scores and ceilings on the test sets.

A training or test set is a vector of stimulus multiplicities. The measures that are scalar products need only the
weighted products of all RDMs on both sets: a prediction Σθ_k RDM_k with subject s scores
``Σθ_k F_ks / √(θᵀ F θ · F_ss)``. Rank measures need the prediction itself, but only on the few pairs of the test fold:
these are gathered and ranked for many folds at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from actkit.analyses.comparison import Compare, forms, resample
from actkit.analyses.fold_ranks import of_fold, rank_scores
from actkit.analyses.measures import CENTRED, LINEAR, agreement, check_measure, stimuli_of
from actkit.analyses.model_fits import fit, one_hot
from actkit.analyses.models import FLEXIBLE
from actkit.errors import InputError, nearest

FIXED = "fixed"

# An RDM whose variance on a training set is below this share of that on all pairs is constant there.
_CONSTANT = 1e-12


@dataclass(frozen=True)
class Group:
    """A model and its components.

    Attributes
    ----------
    name : str
        Name of the model.
    kind : {"fixed", "weighted", "weighted_nonnegative", "selection", "interpolation"}
        What is fitted.
    rows : sequence of int
        Its rows of the array of all components: one for a fixed model.
    ridge : float
        Penalty on the weights; see :func:`~actkit.analyses.models.weighted`.
    """

    name: str
    kind: str
    rows: Sequence[int] | np.ndarray
    ridge: float = 0.0


@dataclass(frozen=True)
class Folds:
    """The folds of a block of draws.

    Attributes
    ----------
    stimuli, subjects : numpy.ndarray of int
        ``(draws, stimuli)`` and ``(draws, subjects)`` multiplicities.
    stimulus_fold, subject_fold : numpy.ndarray of int
        ``(draws, repeats, stimuli)`` and ``(draws, repeats, subjects)`` fold numbers; -1 for what was not drawn.
    stimulus_folds, subject_folds : int
        Number of folds.
    """

    stimuli: np.ndarray
    subjects: np.ndarray
    stimulus_fold: np.ndarray
    subject_fold: np.ndarray
    stimulus_folds: int
    subject_folds: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Draws, repeats and stimulus folds."""
        return (*self.stimulus_fold.shape[:2], self.stimulus_folds)

    def in_stimulus_fold(self) -> np.ndarray:
        """``(draws, repeats, stimulus folds, stimuli)`` membership."""
        return self.stimulus_fold[:, :, None] == np.arange(self.stimulus_folds)[:, None]

    def in_subject_fold(self) -> np.ndarray:
        """``(draws, repeats, subject folds, subjects)`` membership."""
        return self.subject_fold[:, :, None] == np.arange(self.subject_folds)[:, None]

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Multiplicities of the stimuli in training and in test, ``(sets, stimuli)`` each.

        Sets run over draws, repeats and stimulus folds. One fold is not split: both are the whole draw.
        """
        inside = self.in_stimulus_fold()
        counts = self.stimuli[:, None, None]
        test = np.where(inside, counts, 0).reshape(-1, self.stimuli.shape[1])
        if self.stimulus_folds == 1:
            return test, test
        return np.where(inside, 0, counts).reshape(test.shape), test

    def people(self) -> tuple[np.ndarray, np.ndarray]:
        """Multiplicities and fold numbers of the subjects, ``(sets, subjects)`` each."""
        shape = (*self.shape, self.subjects.shape[1])
        counts = np.broadcast_to(self.subjects[:, None, None], shape)
        fold = np.broadcast_to(self.subject_fold[:, :, None], shape)
        return counts.reshape(-1, shape[-1]), fold.reshape(-1, shape[-1])

    def training_people(self) -> np.ndarray:
        """Multiplicities of the subjects outside each subject fold, ``(sets, subject folds, subjects)``."""
        counts, fold = self.people()
        if self.subject_folds == 1:
            return counts[:, None]
        return np.where(fold[:, None] == np.arange(self.subject_folds)[:, None], 0, counts[:, None])


@dataclass(frozen=True)
class FoldScores:
    """Scores of a block of draws; subjects that a draw lacks have a value that means nothing.

    Attributes
    ----------
    score : numpy.ndarray
        ``(draws, repeats, models, subjects)``, each subject tested in its own fold, mean over stimulus folds.
    lower, upper : numpy.ndarray
        ``(draws, repeats, subjects)``.
    theta : list of numpy.ndarray or None
        ``(draws, repeats, stimulus folds, subject folds, components)`` weights of each model; None for fixed ones.
    """

    score: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    theta: list[np.ndarray | None]


@dataclass(frozen=True)
class Material:
    """The RDMs and models of a cross-validation, prepared once; made by :meth:`make`."""

    components: np.ndarray  # (components, pairs)
    data: np.ndarray  # (subjects, pairs)
    groups: tuple[Group, ...]
    rows: tuple[np.ndarray, ...]  # of each group
    compare: Compare
    workers: int | None
    device: str | None
    n_stimuli: int
    metric: Compare  # in which weights are fitted
    unit: np.ndarray = field(repr=False)  # (components + subjects, pairs), of unit variance (cosine: mean square)
    size: np.ndarray = field(repr=False)  # (components,): components = size * unit (+ a constant)

    @classmethod
    def make(
        cls,
        components: np.ndarray,
        data: np.ndarray,
        groups: Sequence[Group],
        compare: Compare,
        workers: int | None = None,
        device: str | None = None,
    ) -> Material:
        """Check and prepare.

        Parameters
        ----------
        components, data : numpy.ndarray
            ``(components, pairs)`` and ``(subjects, pairs)``.
        groups : sequence of Group
            The models.
        compare : str
            The measure.
        workers : int, optional
            Threads.
        device : str, optional
            Torch device for products of RDMs.

        Returns
        -------
        Material
            What :meth:`evaluate` works on.

        Raises
        ------
        InputError
            If shapes, kinds or rows do not fit, or RDMs have missing pairs where that cannot be.
        """
        check_measure(compare)
        components, data = np.asarray(components, dtype=np.float64), np.asarray(data, dtype=np.float64)
        if components.ndim != 2 or data.ndim != 2 or components.shape[1] != data.shape[1]:
            raise InputError(f"components {components.shape} and data {data.shape} are not (k, pairs) of equal pairs")
        if not len(data) or np.isnan(data).any():
            raise InputError("cross-validation needs subjects without missing pairs; leave the others out")
        rows = tuple(_rows(group, components) for group in groups)
        if not rows:
            raise InputError("no models were given to cross-validate; give at least one Group")
        metric = compare if compare in LINEAR else "pearson"
        unit, size = _unit_scale(np.concatenate([components, data]), metric in CENTRED)
        return cls(
            components,
            data,
            tuple(groups),
            rows,
            compare,
            workers,
            device,
            stimuli_of(data.shape[1]),
            metric,
            unit,
            size[: len(components)],
        )

    def largest(self) -> int:
        """Count the RDMs of the largest set of which all products are taken.

        Returns
        -------
        int
            Components of one bundle of models, and the subjects.
        """
        kinds = (
            [k for k, group in enumerate(self.groups) if (group.kind == FIXED) == fixed] for fixed in (True, False)
        )
        bundles = [bundle for members in kinds for bundle in self._bundles(members)]
        return max(sum(len(self.rows[k]) for k in bundle) for bundle in bundles) + len(self.data)

    def fits_to_all(self) -> list[tuple[str, str, np.ndarray]]:
        """Fit every flexible model to all pairs and subjects.

        Returns
        -------
        list of tuple
            Name, kind and ``(1, 1, components)`` weights of each flexible model.
        """
        weights = np.ones((1, self.n_stimuli), dtype=np.int64)
        thetas = self._fits(weights, np.ones((1, 1, len(self.data)), dtype=np.int64))
        return [
            (group.name, group.kind, theta)
            for group, theta in zip(self.groups, thetas, strict=True)
            if theta is not None
        ]

    def evaluate(self, folds: Folds) -> FoldScores:
        """Fit on every training set and score on every test set of a block of draws.

        Parameters
        ----------
        folds : Folds
            The folds.

        Returns
        -------
        FoldScores
            Scores, ceilings and weights.
        """
        train, test = folds.weights()
        thetas = self._fits(train, folds.training_people())
        if self.compare in LINEAR:
            score, lower, upper = self._linear(test, folds, thetas)
        else:
            counts, fold = folds.people()
            people = folds.training_people() if folds.subject_folds > 1 else None
            models = [(self.components[rows], theta) for rows, theta in zip(self.rows, thetas, strict=True)]
            score, lower, upper = rank_scores(models, self.data, test, counts, fold, people, self.compare, self.workers)
        # A missing pair leaves a model without scores, in folds that lack the pair too.
        lost = [k for k, rows in enumerate(self.rows) if np.isnan(self.components[rows]).any()]
        score[:, lost] = np.nan
        shape = folds.shape

        def over_folds(values: np.ndarray) -> np.ndarray:
            return values.reshape(*shape, *values.shape[1:]).mean(axis=2)

        return FoldScores(
            over_folds(score),
            over_folds(lower),
            over_folds(upper),
            [None if theta is None else theta.reshape(*shape, *theta.shape[1:]) for theta in thetas],
        )

    # ----------------------------------------------------------------------------------------------------- training

    def _fits(self, train: np.ndarray, people: np.ndarray) -> list[np.ndarray | None]:
        """Weights of each flexible model on each training set: ``(sets, subject sets, components)``."""
        thetas: list[np.ndarray | None] = [None] * len(self.groups)
        choices = self.compare not in LINEAR
        fitted = [
            k
            for k, group in enumerate(self.groups)
            if group.kind != FIXED and not (choices and group.kind == "selection")
        ]
        n_pairs = _n_pairs(train)
        for members, products in self._products(train, fitted):
            position = 0
            for k in members:
                rows = self.rows[k]
                own = slice(position, position + len(rows))
                position += len(rows)
                thetas[k] = self._fit(self.groups[k], rows, products, own, people, n_pairs)
        if choices:
            for k, group in enumerate(self.groups):
                if group.kind == "selection":
                    thetas[k] = self._choice(self.rows[k], train, people)
        return thetas

    def _fit(
        self, group: Group, rows: np.ndarray, products: np.ndarray, own: slice, people: np.ndarray, n_pairs: np.ndarray
    ) -> np.ndarray:
        """Weights of one flexible model from the products of its components and the subjects."""
        subjects = slice(products.shape[-1] - len(self.data), None)
        norms = np.diagonal(products, axis1=-2, axis2=-1)
        floor = _CONSTANT * n_pairs[:, None]
        length = np.sqrt(np.where(norms[:, subjects] > floor, norms[:, subjects], np.nan))
        # Components on one scale within the model: weights are of the RDMs as given, up to a common factor.
        size = self.size[rows] / self.size[rows].max()
        cross = products[:, own, subjects] / length[:, None] * size[:, None]
        moments = products[:, own, own] * (size[:, None] * size)
        target = _weighted_sum(people, cross)
        return fit(group.kind, moments, target, norms[:, own] > floor, group.ridge)

    def _choice(self, rows: np.ndarray, train: np.ndarray, people: np.ndarray) -> np.ndarray:
        """The component with the best mean training score, for measures without products."""
        drawn, back = np.unique(train, axis=0, return_inverse=True)
        score = resample(
            self.components[rows],
            self.data,
            drawn,
            None,
            self.compare,
            with_ceilings=False,
            workers=self.workers,
        ).score
        return one_hot(_weighted_sum(people, score[back.ravel()]))

    def _products(self, weights: np.ndarray, members: Sequence[int]) -> list[tuple[Sequence[int], np.ndarray]]:
        """Products of the components of some models and of the subjects, for each set of stimuli.

        Products between components of different models are of no use; they are left out where that saves work.
        """
        drawn, back = np.unique(weights, axis=0, return_inverse=True)
        subjects = np.arange(len(self.components), len(self.unit))
        return [
            (
                bundle,
                forms(
                    self.unit[np.concatenate([*(self.rows[k] for k in bundle), subjects])],
                    drawn,
                    self.metric,
                    workers=self.workers,
                    device=self.device,
                )[back.ravel()],
            )
            for bundle in self._bundles(members)
        ]

    def _bundles(self, members: Sequence[int]) -> list[list[int]]:
        """Take models together where products between them cost less than those of the subjects again and again."""
        sizes = np.array([len(self.rows[k]) for k in members])
        together = (sizes.sum() + len(self.data)) ** 2 <= np.square(sizes + len(self.data)).sum()
        return [list(members)] if together and len(members) else [[k] for k in members]

    # --------------------------------------------------------------------------------------------------------- test

    def _linear(
        self, test: np.ndarray, folds: Folds, thetas: Sequence[np.ndarray | None]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores and ceilings on the test sets, for measures that are scalar products."""
        counts, fold = folds.people()
        floor = _CONSTANT * _n_pairs(test)[:, None]
        score = np.empty((len(test), len(self.groups), len(self.data)))
        fixed = [k for k, group in enumerate(self.groups) if group.kind == FIXED]
        flexible = [k for k, group in enumerate(self.groups) if group.kind != FIXED]
        products = np.empty(0)
        for members, products in [*self._products(test, fixed), *self._products(test, flexible)]:
            subjects = slice(products.shape[-1] - len(self.data), None)
            norms = np.diagonal(products, axis1=-2, axis2=-1)
            own_norm = np.where(norms[:, subjects] > floor, norms[:, subjects], np.nan)
            position = 0
            for k in members:
                own = slice(position, position + len(self.rows[k]))
                position += len(self.rows[k])
                cross, square = products[:, own, subjects], products[:, own, own]
                theta = thetas[k]
                if theta is not None:
                    scaled = theta * self.size[self.rows[k]] / self.size[self.rows[k]].max()
                    bound = np.square(np.abs(scaled) @ np.sqrt(np.maximum(norms[:, own], 0.0))[..., None])[..., 0]
                    cross, square = scaled @ cross, ((scaled @ square) * scaled).sum(axis=-1)
                    # What remains where components cancel is rounding.
                    square = np.where(square > _CONSTANT * bound, square, np.nan)
                    cross, square = of_fold(cross, fold), of_fold(square[..., None], fold)
                else:
                    cross, square = cross[:, 0], np.where(square[:, 0] > floor, square[:, 0], np.nan)
                with np.errstate(invalid="ignore"):
                    score[:, k] = np.clip(cross / np.sqrt(square * own_norm), -1.0, 1.0)
            with np.errstate(invalid="ignore"):
                similar = products[:, subjects, subjects] / np.sqrt(own_norm[:, :, None] * own_norm[:, None])
        lower, upper = agreement(similar, counts)
        if folds.subject_folds > 1:
            lower = np.where(np.isnan(lower), np.nan, self._pooled(similar, folds.training_people(), fold))
        return score, lower, upper

    def _pooled(self, similar: np.ndarray, people: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Similarity of each subject with the pool of the training subjects of its fold, ``(sets, subjects)``."""
        together = people @ similar
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.clip(of_fold(together / np.sqrt((together * people).sum(axis=-1))[..., None], fold), -1.0, 1.0)


def _rows(group: Group, components: np.ndarray) -> np.ndarray:
    """Row numbers of a model's components, checked."""
    if group.kind != FIXED and group.kind not in FLEXIBLE:
        raise InputError(
            f"the model {group.name!r} is of the kind {group.kind!r}; {nearest(str(group.kind), (FIXED, *FLEXIBLE))}"
        )
    rows = np.asarray(group.rows, dtype=np.int64)
    if rows.ndim != 1 or not len(rows) or rows.min() < 0 or rows.max() >= len(components):
        raise InputError(f"the model {group.name!r} names rows {group.rows!r} of {len(components)} components")
    if group.kind == FIXED and len(rows) != 1:
        raise InputError(f"the fixed model {group.name!r} has {len(rows)} RDMs; give one, or make it a flexible model")
    if group.kind != FIXED and np.isnan(components[rows]).any():
        raise InputError(f"components of the flexible model {group.name!r} have missing pairs; leave them out")
    return rows


def _unit_scale(vectors: np.ndarray, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of unit variance (unit mean square), and what to multiply them by to get the given ones."""
    top = np.abs(vectors).max(axis=1, keepdims=True)
    unit = np.divide(vectors, top, out=np.zeros_like(vectors), where=(top > 0) | np.isnan(top))
    square = np.square(unit).mean(axis=1, keepdims=True)
    if centred:
        unit = unit - unit.mean(axis=1, keepdims=True)
    variance = np.square(unit).mean(axis=1, keepdims=True)
    varies = ~(variance <= _CONSTANT**2 * square)
    spread = np.sqrt(np.where(varies, variance, 1.0))
    return np.where(varies, unit / spread, 0.0), np.where(varies, top * spread, 0.0)[:, 0]


def _n_pairs(weights: np.ndarray) -> np.ndarray:
    """Number of pairs of different stimuli, copies counted, of each row of multiplicities."""
    counts = weights.astype(np.float64)
    return (counts.sum(axis=1) ** 2 - np.square(counts).sum(axis=1)) / 2


def _weighted_sum(people: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum over subjects: ``(sets, t, subjects)``, ``(sets, k, subjects)`` to ``(sets, t, k)``; NaN of others aside."""
    known = np.isfinite(values)
    by_subject = people.astype(np.float64)
    total = by_subject @ np.where(known, values, 0.0).swapaxes(1, 2)
    if known.all():
        return np.asarray(total)
    return np.where(by_subject @ (~known).swapaxes(1, 2).astype(np.float64) > 0, np.nan, total)
