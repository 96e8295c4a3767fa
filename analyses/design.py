"""The design of a recording: which row shows which stimulus in which fold, and means over rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Design:
    """Which stimulus and which fold each row shows.

    Attributes
    ----------
    stimulus : numpy.ndarray of int
        ``(T,)`` stimulus of each row.
    n_stimuli : int
        n.
    fold : numpy.ndarray of int
        ``(T,)`` fold of each row; zeros without folds.
    folds : tuple of str
        Names of the F folds; empty without folds.
    """

    stimulus: np.ndarray
    n_stimuli: int
    fold: np.ndarray
    folds: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows T."""
        return len(self.stimulus)

    @property
    def dof(self) -> int:
        """Degrees of freedom of the residuals around the stimulus means."""
        return self.n_rows - len(np.unique(self.stimulus))

    @property
    def unfolded(self) -> Design:
        """The same rows in one fold."""
        return replace(self, fold=np.zeros_like(self.fold), folds=())

    @cached_property
    def counts(self) -> np.ndarray:
        """``(F, n)`` rows of each stimulus in each fold."""
        shape = max(1, len(self.folds)), self.n_stimuli
        return np.bincount(self._cell, minlength=shape[0] * shape[1]).reshape(shape)

    @property
    def complete(self) -> bool:
        """Whether every fold holds every stimulus."""
        return bool((self.counts > 0).all())

    @property
    def _cell(self) -> np.ndarray:
        return self.fold * self.n_stimuli + self.stimulus

    @cached_property
    def _order(self) -> np.ndarray | None:
        """The order that sorts the rows by fold and stimulus; None where they are."""
        cell = self._cell
        return None if (np.diff(cell) >= 0).all() else np.argsort(cell, kind="stable")

    @cached_property
    def _starts(self) -> np.ndarray:
        counts = self.counts.ravel()
        return (np.cumsum(counts) - counts)[counts > 0]

    def sums(self, rows: np.ndarray) -> np.ndarray:
        """Add up the rows of each stimulus in each fold.

        Parameters
        ----------
        rows : numpy.ndarray
            ``(T, width)``.

        Returns
        -------
        numpy.ndarray
            ``(F, n, width)``, zeros where there are none. A view of `rows` where each cell is one row in order.
        """
        ordered = rows if self._order is None else rows[self._order]
        counts = self.counts
        if (counts == 1).all():
            return ordered.reshape(*counts.shape, -1)
        totals = np.zeros((counts.size, rows.shape[1]), dtype=rows.dtype)
        totals[counts.ravel() > 0] = np.add.reduceat(ordered, self._starts, axis=0)
        return totals.reshape(*counts.shape, -1)

    def means(self, rows: np.ndarray) -> np.ndarray:
        """Average the rows of each stimulus in each fold.

        Parameters
        ----------
        rows : numpy.ndarray
            ``(T, width)`` finite values.

        Returns
        -------
        numpy.ndarray
            ``(F, n, width)``, zeros where there are none. A view of `rows` where each cell is one row in order.
        """
        counts = self.counts
        sums = self.sums(rows)
        return sums if (counts == 1).all() else sums / np.maximum(counts, 1)[..., None]

    def masked_means(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average what there is of each stimulus in each fold, unit by unit.

        Parameters
        ----------
        rows : numpy.ndarray
            ``(T, width)``, NaN where missing.

        Returns
        -------
        means, counts : numpy.ndarray
            ``(F, n, width)``: zeros where there is no value, and how many there were.
        """
        there = ~np.isnan(rows)
        counts = self.sums(there.astype(np.float64))
        return self.sums(np.where(there, rows, 0.0)) / np.maximum(counts, 1), counts

    def residuals(self, rows: np.ndarray) -> np.ndarray:
        """Subtract the mean over all rows of the same stimulus.

        Parameters
        ----------
        rows : numpy.ndarray
            ``(T, width)`` finite values.

        Returns
        -------
        numpy.ndarray
            ``(T, width)``.
        """
        return rows - self.unfolded.means(rows)[0][self.stimulus]
