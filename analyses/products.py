"""Distances that are products of differences: squared Euclidean, Mahalanobis, crossnobis and Poisson, streamed.

With two images A and B of each pattern (the pattern itself twice; or a rate and its logarithm), the distance of stimuli
i and j over units c is

    d_ij = Σ_c (A_ic − A_jc)(B_ic − B_jc),

and the cross-validated one averages Σ_c (A_ifc − A_jfc)(B_igc − B_jgc) over pairs of folds f ≠ g. Both come from sums
of products M_ij of A_i and B_j as M_ii + M_jj − M_ij − M_ji; over pairs of folds the sums are
Σ_{f≠g} A_f B_gᵀ = (Σ_f A_f)(Σ_g B_g)ᵀ − Σ_f A_f B_fᵀ, one product a fold. Only differences count, so the mean of each
unit is subtracted first, and nothing cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np

from actkit.analyses.design import Design
from actkit.analyses.noise_precision import noise_scale

# Bytes of rows in a working block: few enough to stay in the cache, enough for BLAS to be fast.
CACHE = 2**21
_STEPS = 16  # rounding steps that a sum of squares around the mean may be off


class MissingError(ValueError):
    """A block holds NaN (or infinite values, which `infinite` tells)."""

    def __init__(self, rows: np.ndarray, infinite: bool) -> None:
        super().__init__(f"{len(rows)} rows hold values that are not finite")
        self.rows, self.infinite = rows, infinite


class NegativeError(ValueError):
    """A block holds negative values; `rows` says where."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__(f"{len(rows)} rows hold negative values")
        self.rows = rows


@dataclass(frozen=True)
class Prior:
    """The prior of Poisson rates: `weight` observations of `rate`."""

    rate: float
    weight: float

    def shrink(self, means: np.ndarray) -> np.ndarray:
        """Posterior mean of rates ``(mean + weight · rate) / (1 + weight)``.

        Parameters
        ----------
        means : numpy.ndarray
            Mean rates.

        Returns
        -------
        numpy.ndarray
            The same shape, positive where rate and weight are.
        """
        return np.asarray((means + self.weight * self.rate) / (1 + self.weight))


class BlockSums(Protocol):
    """Running sums over units."""

    def add(self, rows: np.ndarray) -> None:
        """Take in a block, ``(T, width)`` float64."""


class ProductSums:
    """Distances of a complete design without missing values.

    Parameters
    ----------
    design : Design
        Rows; with folds the distances are cross-validated.
    normalise : bool
        Divide each unit by the standard deviation of its noise.
    prior : Prior, optional
        Compare Poisson rates with this prior, instead of the patterns themselves.
    """

    def __init__(self, design: Design, normalise: bool = False, prior: Prior | None = None) -> None:
        self.design, self.normalise, self.prior = design, normalise, prior
        n = design.n_stimuli
        self.sums = np.zeros((n, n))
        self.n_silent = 0

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
        NegativeError
            If a rate is negative.
        """
        centre = np.full(len(rows), 1 / len(rows)) @ rows  # by BLAS: faster than mean()
        if not np.isfinite(centre).all():
            refuse_missing(rows)
        if self.prior is None:
            rows = rows - centre
            if self.normalise:
                scale, silent = noise_scale(rows, self.design.residuals(rows), self.design.dof)
                rows *= scale
                self.n_silent += silent
            left = right = self.design.means(rows)
        else:
            if (rows < 0).any():
                raise NegativeError(np.flatnonzero((rows < 0).any(axis=1)))
            left, right = _rates(self.prior.shrink(self.design.means(rows)))
        self._take(left, right)

    def _take(self, left: np.ndarray, right: np.ndarray) -> None:
        """Add Σ_{f≠g} A_f B_gᵀ, or A Bᵀ without folds, of ``(F, n, width)`` images."""
        if len(left) == 1:
            self.sums += left[0] @ right[0].T
            return
        total = left.sum(axis=0)
        self.sums += total @ (total if left is right else right.sum(axis=0)).T
        for a, b in zip(left, right, strict=True):
            self.sums -= a @ b.T

    def distances(self) -> np.ndarray:
        """Give the distances.

        Returns
        -------
        numpy.ndarray
            ``(n, n)`` summed over units, averaged over pairs of folds.
        """
        n_folds = len(self.design.folds)
        sums = self.sums / (n_folds * (n_folds - 1)) if n_folds else self.sums
        own = np.diagonal(sums)
        return own[:, None] + own - sums - sums.T


def _rates(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rates and their logarithms, each without the mean over stimuli and folds, ``(F, n, width)``."""
    logs = np.log(rates)
    return rates - rates.mean(axis=(0, 1)), logs - logs.mean(axis=(0, 1))


class MaskedProductSums:
    """Distances over the values that there are: missing units, and stimuli that are missing from folds.

    A unit c counts for stimuli i and j in the folds f and g where all four means exist, and

        d_ij = p · Σ_{f≠g} Σ_c (A_ifc − A_jfc)(B_igc − B_jgc) / number of such (f, g, c),

    the mean over what there is times the number of units p, so that it is on the scale of a complete recording.

    Parameters
    ----------
    design, normalise, prior
        As of :class:`ProductSums`.
    """

    def __init__(self, design: Design, normalise: bool = False, prior: Prior | None = None) -> None:
        self.design, self.normalise, self.prior = design, normalise, prior
        n = design.n_stimuli
        self.sums, self.counts = np.zeros((n, n)), np.zeros((n, n))
        self.n_units = self.n_silent = self.n_missing = 0

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
        NegativeError
            If a rate is negative.
        """
        check_missing(rows)
        missing = np.isnan(rows)
        self.n_missing += int(missing.sum())
        self.n_units += rows.shape[1]
        there = ~missing.all(axis=0)  # a unit without any value counts nowhere
        rows = rows[:, there]
        if rows.shape[1] == 0:
            return
        if self.prior is None:
            rows = rows - np.nanmean(rows, axis=0)
            if self.normalise:
                rows = rows * self._scale(rows)
        elif (rows < 0).any():
            raise NegativeError(np.flatnonzero((rows < 0).any(axis=1)))
        means, counts = self.design.masked_means(rows)
        mask = (counts > 0).astype(np.float64)
        left = right = means
        if self.prior is not None:
            left, right = (image * mask for image in _rates(self.prior.shrink(means)))
        for f, g in fold_pairs(self.design, both_ways=left is not right):
            self._take(left[f], right[g], mask[f] * mask[g])

    def _scale(self, rows: np.ndarray) -> np.ndarray:
        means, counts = self.design.unfolded.masked_means(rows)
        there = ~np.isnan(rows)
        residuals = np.where(there, rows - means[0][self.design.stimulus], 0.0)
        dof = there.sum(axis=0) - (counts[0] > 0).sum(axis=0)
        scale, silent = noise_scale(rows, residuals, np.maximum(dof, 1))
        self.n_silent += silent
        return scale

    def _take(self, a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> None:
        a, b = a * mask, b * mask
        own = (a * b) @ mask.T
        across = a @ b.T
        self.sums += own + own.T - across - across.T
        self.counts += mask @ mask.T

    def distances(self) -> np.ndarray:
        """Give the distances.

        Returns
        -------
        numpy.ndarray
            ``(n, n)``, on the scale of all units; NaN where two stimuli share no unit in two folds.
        """
        found = np.full(self.sums.shape, np.nan)
        return np.divide(self.n_units * self.sums, self.counts, out=found, where=self.counts > 0)


def fold_pairs(design: Design, both_ways: bool) -> Iterator[tuple[int, int]]:
    """Name the pairs of folds that a distance averages over.

    Parameters
    ----------
    design : Design
        Rows.
    both_ways : bool
        Whether (f, g) and (g, f) differ.

    Yields
    ------
    tuple of int
        Two different folds; the one fold twice where there are no folds.
    """
    if not design.folds:
        yield 0, 0
        return
    for f in range(len(design.folds)):
        for g in range(0 if both_ways else f + 1, len(design.folds)):
            if f != g:
                yield f, g


def check_missing(rows: np.ndarray) -> None:
    """Refuse infinite values, which no mask can mean.

    Parameters
    ----------
    rows : numpy.ndarray
        ``(T, width)``.

    Raises
    ------
    MissingError
        If there are any.
    """
    infinite = np.isinf(rows)
    if infinite.any():
        raise MissingError(np.flatnonzero(infinite.any(axis=1)), True)


def refuse_missing(rows: np.ndarray) -> NoReturn:
    """Name the rows whose values are not finite.

    Parameters
    ----------
    rows : numpy.ndarray
        ``(T, width)``.

    Raises
    ------
    MissingError
        Of the rows with infinite values, or, where there are none, of those with NaN.
    """
    check_missing(rows)
    raise MissingError(np.flatnonzero(np.isnan(rows).any(axis=1)), False)


class MaskedSimilarity:
    """Correlation or cosine distance over the units that both patterns have.

    Pearson's r of stimuli i and j over their common units: means and variances are those over the common units, too.

    Parameters
    ----------
    design : Design
        Rows, averaged over repetitions unit by unit.
    centred : bool
        Correlation, instead of cosine.
    """

    def __init__(self, design: Design, centred: bool) -> None:
        self.design, self.centred = design.unfolded, centred
        n = design.n_stimuli
        self.products, self.squares, self.sums, self.counts = (np.zeros((n, n)) for _ in range(4))
        self.shift: np.ndarray | None = None
        self.largest = np.zeros(n)
        self.n_missing = self.n_silent = 0

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
        means, counts = self.design.masked_means(rows)
        values, mask = means[0], (counts[0] > 0).astype(np.float64)
        self.largest = np.maximum(self.largest, np.abs(values).max(axis=1, initial=0.0))
        if self.centred:
            if self.shift is None:  # anything near the mean will do: correlation does not depend on it
                self.shift = values.sum(axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
            values = (values - self.shift) * mask
        self.products += values @ values.T
        self.squares += (values * values) @ mask.T
        self.sums += values @ mask.T
        self.counts += mask @ mask.T

    def distances(self) -> np.ndarray:
        """Give the distances.

        Returns
        -------
        numpy.ndarray
            ``(n, n)``; NaN where a pattern is constant over the common units, or there are none.
        """
        products, squares = self.products, self.squares
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.centred:
                products = products - self.sums * self.sums.T / self.counts
                # Over the common units a pattern may be constant to rounding, of its values or of these sums.
                rounding = self.counts * (_STEPS * np.finfo(float).eps * self.largest[:, None]) ** 2
                rounding = np.maximum(rounding, _STEPS * np.finfo(float).eps * squares)
                squares = squares - self.sums**2 / self.counts
            squares = np.where(squares > (rounding if self.centred else 0.0), squares, np.nan)
            return 1.0 - np.clip(products / np.sqrt(squares) / np.sqrt(squares.T), -1.0, 1.0)


def working_units(n_rows: int, memory: float = np.inf) -> int:
    """Choose how many units a working block has.

    Parameters
    ----------
    n_rows : int
        T.
    memory : float
        Bytes that one block may take.

    Returns
    -------
    int
        At least 16.
    """
    return max(16, int(min(CACHE, memory)) // (8 * max(1, n_rows)))


def stream_into(
    sums: BlockSums, blocks: Iterator[np.ndarray], convert: Callable[[np.ndarray], np.ndarray], step: int
) -> None:
    """Send blocks through running sums, in working blocks that fit the cache.

    Parameters
    ----------
    sums : BlockSums
        What adds them up.
    blocks : iterator of numpy.ndarray
        ``(T, width)``; each is dropped before the next is asked for.
    convert : callable
        Brings a block to numpy.
    step : int
        Units in a working block.
    """
    while (block := next(blocks, None)) is not None:
        values = convert(block)
        del block
        for start in range(0, values.shape[1], step):
            sums.add(np.asarray(values[:, start : start + step], dtype=np.float64))
        del values
