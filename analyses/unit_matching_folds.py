"""Folds of stimuli for unit matching: whole groups, level categories, rows sorted by fold."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from actkit.errors import InputError
from actkit.resampling import Stream, generator

__all__ = ["Folds", "deal_folds"]


@dataclass(frozen=True)
class Folds:
    """Stimuli sorted by fold.

    Attributes
    ----------
    number : numpy.ndarray of int
        ``(n,)`` the fold in which each stimulus is held out.
    order : numpy.ndarray of int
        ``(n,)`` the stimuli, fold by fold.
    parts : list of slice
        Where each fold lies in `order`.
    """

    number: np.ndarray
    order: np.ndarray
    parts: list[slice]

    @classmethod
    def of(cls, number: np.ndarray) -> Folds:
        """Sort stimuli by fold.

        Parameters
        ----------
        number : numpy.ndarray of int
            ``(n,)`` fold of each stimulus, 0 to the number of folds less 1.

        Returns
        -------
        Folds
            Stimuli of one fold stay in their order.
        """
        edges = np.concatenate([[0], np.cumsum(np.bincount(number))]).tolist()
        parts = [slice(start, stop) for start, stop in pairwise(edges)]
        return cls(number, np.argsort(number, kind="stable"), parts)

    def train(self, fold: int) -> np.ndarray:
        """Positions in `order` that a fold learns from.

        Parameters
        ----------
        fold : int
            Its number.

        Returns
        -------
        numpy.ndarray of int
            Every position outside of the fold.
        """
        part = self.parts[fold]
        return np.concatenate([np.arange(part.start), np.arange(part.stop, len(self.order))])


def deal_folds(n: int, folds: int, groups: np.ndarray | None, labels: np.ndarray | None, seed: int) -> Folds:
    """Deal stimuli into folds: whole groups, categories in equal shares as far as the groups allow.

    Parameters
    ----------
    n : int
        Number of stimuli.
    folds : int
        Number of folds.
    groups, labels : numpy.ndarray or None
        ``(n,)`` group and category of each stimulus.
    seed : int
        Seed of the order in which groups are dealt.

    Returns
    -------
    Folds
        No group is in two of them.

    Raises
    ------
    InputError
        If there are fewer groups (or stimuli) than folds, or a fold would hold fewer than three stimuli.
    """
    _, member = np.unique(np.arange(n) if groups is None else groups, return_inverse=True)
    n_groups = int(member.max()) + 1 if n else 0
    what = "stimuli" if groups is None else "groups of stimuli"
    if n_groups < folds:
        raise InputError(f"{n_groups} {what} cannot fill {folds} folds; use folds={max(n_groups, 2)} or add stimuli")
    category = np.zeros(n, dtype=np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    sizes = np.bincount(member)
    _, first = np.unique(member, return_index=True)
    shuffled = generator(seed, 0, Stream.STIMULI).permutation(n_groups)
    # Large groups first, so that the small ones can level the folds.
    dealt = shuffled[np.lexsort((category[first][shuffled], -sizes[shuffled]))]
    held = np.zeros((int(category.max()) + 1, folds), dtype=np.int64)
    fold_of = np.empty(n_groups, dtype=np.int64)
    for group in dealt.tolist():
        kind = int(category[first[group]])
        fold = int(np.lexsort((held.sum(axis=0), held[kind]))[0])
        fold_of[group] = fold
        held[kind, fold] += sizes[group]
    number = fold_of[member]
    fewest = int(np.bincount(number, minlength=folds).min())
    if fewest < 3 or n - int(np.bincount(number, minlength=folds).max()) < 3:
        raise InputError(
            f"{n} stimuli in {folds} folds leave {fewest} stimuli in a fold, and a correlation needs three to hold "
            "out and three to learn from; use fewer folds or more stimuli"
        )
    return Folds.of(number)
