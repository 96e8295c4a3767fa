"""Rows freed of correlated noise: observations in coordinates in which the shrunk noise covariance is the identity.

A layer of p units seen in T rows is first reduced to the coordinates of its row space (eigenvectors of the T × T Gram
matrix), which keep every product of rows, residuals included; a layer with fewer units than rows is taken as it is. In
these at most T coordinates the covariance α I + β RᵀR of residuals R is small, and one Cholesky factor whitens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import LinAlgError, cholesky, eigh, solve_triangular

from actkit.analyses.design import Design
from actkit.analyses.noise_precision import (
    NoiseCovariance,
    fourth_powers,
    intensity_diagonal,
    intensity_eye,
    noise_covariance,
    noise_scale,
)
from actkit.analyses.products import check_missing, fold_pairs, refuse_missing, stream_into
from actkit.errors import InputError

Shrinkage = Literal["shrinkage_eye", "shrinkage_diag"]


@dataclass(frozen=True)
class Whitened:
    """Rows in coordinates whose noise covariance is the identity.

    Attributes
    ----------
    rows : numpy.ndarray
        ``(T, r)``, r ≤ min(T, p).
    shrinkage : float
        The intensity λ.
    n_silent : int
        Units that never change.
    """

    rows: np.ndarray
    shrinkage: float
    n_silent: int


class RowSums:
    """What whitening needs of a layer: its Gram matrix or, with few units, the rows themselves.

    Parameters
    ----------
    design : Design
        Rows.
    n_units : int
        p.
    noise : {"shrinkage_eye", "shrinkage_diag"}
        For the second, units are scaled to unit noise.
    """

    def __init__(self, design: Design, n_units: int, noise: Shrinkage) -> None:
        self.design, self.n_units, self.noise = design, n_units, noise
        t = design.n_rows
        self.wide = n_units > t
        self.gram = np.zeros((t, t) if self.wide else (0, 0))
        self.kept: list[np.ndarray] = []
        self.fourth, self.n_silent = 0.0, 0

    def add(self, rows: np.ndarray) -> None:
        """Take in a block of units.

        Parameters
        ----------
        rows : numpy.ndarray
            ``(T, width)`` float64.

        Raises
        ------
        MissingError
            If a value is NaN or infinite.
        """
        centre = rows.mean(axis=0)
        if not np.isfinite(centre).all():
            refuse_missing(rows)
        rows = rows - centre
        if self.noise == "shrinkage_diag":
            residuals = self.design.residuals(rows)
            scale, silent = noise_scale(rows, residuals, self.design.dof)
            rows *= scale
            self.fourth += fourth_powers(residuals * scale)
            self.n_silent += silent
        if self.wide:
            self.gram += rows @ rows.T
        else:
            self.kept.append(rows.copy())

    def coordinates(self) -> np.ndarray:
        """Give the rows, or coordinates that have the same products.

        Returns
        -------
        numpy.ndarray
            ``(T, r)``.
        """
        if not self.wide:
            return np.concatenate(self.kept, axis=1)
        values, vectors = eigh(self.gram, check_finite=False)
        real = values > len(values) * np.finfo(float).eps * values[-1]
        return np.asarray(vectors[:, real] * np.sqrt(values[real]))

    def whitened(self) -> Whitened:
        """Estimate the noise, and free the rows of it.

        Returns
        -------
        Whitened
            Rows in at most min(T, p) coordinates.

        Raises
        ------
        InputError
            If there is no noise, or its covariance is singular.
        """
        rows = self.coordinates()
        residuals, dof, n = self.design.residuals(rows), self.design.dof, self.design.n_rows
        squares = np.einsum("ij,ij->i", residuals, residuals)
        if squares.sum() <= n * np.finfo(float).eps ** 2 * np.square(rows).sum():
            raise InputError(
                "the repetitions are identical, so there is no noise to normalise by; check that what is repeated "
                "varies this layer, or use noise='none'"
            )
        gram = residuals @ residuals.T if n <= rows.shape[1] else residuals.T @ residuals
        if self.noise == "shrinkage_eye":
            shrinkage, mean = intensity_eye(gram, squares, self.n_units)
            floor = shrinkage * mean * n / dof
        else:
            active = self.n_units - self.n_silent
            floor = shrinkage = intensity_diagonal(gram, squares, self.fourth, active, dof)
        covariance = (1 - shrinkage) / dof * residuals.T @ residuals
        covariance[np.diag_indices_from(covariance)] += floor
        try:
            factor = cholesky(covariance, lower=True, check_finite=False)
        except LinAlgError:
            factor = np.zeros((1, 1))
        pivots = np.square(np.diagonal(factor))
        if floor <= 0 and (self.wide or pivots.min() <= len(pivots) * np.finfo(float).eps * pivots.max()):
            raise InputError(
                f"the noise covariance is singular: shrinkage intensity {shrinkage:.3g} with {dof} degrees of freedom "
                f"for {self.n_units} units; use another noise, or record more repetitions"
            )
        free = solve_triangular(factor, rows.T, lower=True, check_finite=False).T
        return Whitened(free, shrinkage, self.n_silent)


class MaskedMahalanobis:
    """Noise-normalised distances with missing units: the covariance of the units that there are.

    The noise covariance is estimated from the complete rows. For each pair of stimuli (and folds) it is restricted to
    the units that all their means have, and then inverted: the precision of the marginal distribution. A block of the
    full precision matrix would be that of the conditional one, given units that were not seen.

    Parameters
    ----------
    design : Design
        Rows.
    noise : {"shrinkage_eye", "shrinkage_diag"}
        The estimator.
    """

    def __init__(self, design: Design, noise: Shrinkage) -> None:
        self.design, self.noise = design, noise
        self.kept: list[np.ndarray] = []
        self.n_missing = self.n_silent = 0
        self.shrinkage = np.nan
        self.active = np.empty(0, dtype=bool)

    def add(self, rows: np.ndarray) -> None:
        """Take in a block of units.

        Parameters
        ----------
        rows : numpy.ndarray
            ``(T, width)`` float64, NaN where missing.

        Raises
        ------
        MissingError
            If a value is infinite.
        """
        check_missing(rows)
        self.n_missing += int(np.isnan(rows).sum())
        self.kept.append(rows.copy())

    def distances(self) -> np.ndarray:
        """Give the distances.

        Returns
        -------
        numpy.ndarray
            ``(n, n)``, on the scale of all units; NaN where two stimuli share no unit in two folds.

        Raises
        ------
        InputError
            If there are too few complete rows.
        """
        rows = np.concatenate(self.kept, axis=1)
        n_units = rows.shape[1]
        rows = rows[:, ~np.isnan(rows).all(axis=0)]
        # A unit that never changes adds nothing to any distance, and counts among the units that there are.
        self.active = np.nanmax(rows, axis=0) > np.nanmin(rows, axis=0)
        self.n_silent = int((~self.active).sum())
        covariance = self._covariance(rows[:, self.active])
        means, counts = self.design.masked_means(rows - np.nanmean(rows, axis=0))
        n = self.design.n_stimuli
        sums, weights = np.zeros((n, n)), np.zeros((n, n))
        for f, g in fold_pairs(self.design, both_ways=False):
            self._take(means[f], means[g], (counts[f] > 0) & (counts[g] > 0), covariance, sums, weights)
        found = np.full((n, n), np.nan)
        return np.divide(n_units * sums, weights, out=found, where=weights > 0)

    def _covariance(self, rows: np.ndarray) -> NoiseCovariance:
        complete = ~np.isnan(rows).any(axis=1)
        stimulus = self.design.stimulus[complete]
        dof = len(stimulus) - len(np.unique(stimulus))
        if dof < 1:
            raise InputError(
                f"{int(complete.sum())} of {len(rows)} observations have a value in every unit, too few to estimate a "
                "noise covariance; use noise='diagonal', which takes each unit's own observations, or leave out the "
                "units that are missing most"
            )
        part = Design(stimulus, self.design.n_stimuli, np.zeros_like(stimulus))
        whole = rows[complete]
        residuals = part.residuals(whole - whole.mean(axis=0))
        covariance = noise_covariance(residuals, self.noise, dof)
        self.shrinkage = covariance.shrinkage
        return covariance

    def _take(
        self,
        a: np.ndarray,
        b: np.ndarray,
        mask: np.ndarray,
        covariance: NoiseCovariance,
        sums: np.ndarray,
        weights: np.ndarray,
    ) -> None:
        """Add one pair of folds; stimuli with the same missing units are taken together."""
        kinds, kind = np.unique(mask, axis=0, return_inverse=True)
        groups = [np.flatnonzero(kind.ravel() == k) for k in range(len(kinds))]
        for one, rows in enumerate(groups):
            for other, columns in enumerate(groups[one:], start=one):
                shared = kinds[one] & kinds[other]
                units = shared & self.active
                if not units.any():
                    continue
                both = np.union1d(rows, columns)
                part = covariance.marginal(units[self.active])
                products = part.products(a[both][:, units], b[both][:, units])
                own = np.diagonal(products)
                distance = own[:, None] + own - products - products.T
                r, c = np.searchsorted(both, rows), np.searchsorted(both, columns)
                block, size = distance[np.ix_(r, c)], float(shared.sum())
                sums[np.ix_(rows, columns)] += block
                weights[np.ix_(rows, columns)] += size
                if one != other:
                    sums[np.ix_(columns, rows)] += block.T
                    weights[np.ix_(columns, rows)] += size


def whiten(
    blocks: Iterator[np.ndarray],
    convert: Callable[[np.ndarray], np.ndarray],
    design: Design,
    n_units: int,
    noise: Shrinkage,
    step: int,
) -> Whitened:
    """Free a layer's rows of their noise, block by block.

    Parameters
    ----------
    blocks : iterator
        ``(T, width)`` blocks of units.
    convert : callable
        Brings a block to numpy.
    design : Design
        Rows.
    n_units : int
        Units of the layer.
    noise : {"shrinkage_eye", "shrinkage_diag"}
        The estimator.
    step : int
        Units in a working block.

    Returns
    -------
    Whitened
        Rows in at most min(T, p) coordinates.
    """
    sums = RowSums(design, n_units, noise)
    stream_into(sums, blocks, convert, step)
    return sums.whitened()
