"""The questions of a selectivity analysis: which stimuli against which, their halves and their permutations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from actkit.analyses.selectivity_scores import LEAST, Measure
from actkit.errors import InputError, nearest
from actkit.resampling import Stream, generator

_SPLITS = 2**32  # numbers of the random streams of the splits, far from those of the permutations


@dataclass
class Contrast:
    """One question: some stimuli against others.

    Attributes
    ----------
    name : str
        The question in short, ``"face > object"``.
    preferred, other : str
        The two sides.
    a, b : numpy.ndarray of int
        Rows of the stimuli of either side.
    members : numpy.ndarray of bool, optional
        ``(permutations, len(rows))``: the stimuli of the first side; number 0 as observed.
    halves : list of tuple
        For each split: rows of either side in one half, then in the other.
    """

    name: str
    preferred: str
    other: str
    a: np.ndarray
    b: np.ndarray
    members: np.ndarray | None = None
    halves: list[tuple[np.ndarray, ...]] = field(default_factory=list)

    @property
    def rows(self) -> np.ndarray:
        """Rows of the stimuli of both sides, the first side first."""
        return np.concatenate([self.a, self.b])


def contrasts_of(y: np.ndarray, name: str, given: Sequence[str] | None, measure: Measure) -> list[Contrast]:
    """Turn labels into questions.

    Parameters
    ----------
    y : numpy.ndarray of str
        ``(n_stimuli,)``; the empty text where there is no label.
    name : str
        Name of the labels.
    given : sequence of str, optional
        Two sides, one (against all others), or every label against all others.
    measure : {"index", "d_prime", "t", "cliff_delta"}
        Decides how many stimuli are needed.

    Returns
    -------
    list of Contrast
        With their stimuli.

    Raises
    ------
    InputError
        If there is one class only, a label does not exist, sides share stimuli, or have too few.
    """
    known = [str(label) for label in np.unique(y) if label]
    if len(known) < 2:
        raise InputError(
            f"{name!r}: all labelled stimuli are {known[0] if known else ''!r}, so nothing can be preferred over "
            "anything; give labels with two classes or more"
        )

    def rows(side: str) -> np.ndarray:
        labels = [side] if side in known else [label.strip() for label in side.split("+")]
        for label in labels:
            if label not in known:
                raise InputError(f"contrast: {name!r} has no label {label!r}; {nearest(label, known)}")
        return np.flatnonzero(np.isin(y, labels))

    found = []
    if given is not None and len(given) == 2:
        a, b = rows(given[0]), rows(given[1])
        if (both := np.intersect1d(a, b)).size:
            raise InputError(
                f"contrast {given}: {len(both)} stimuli are on both sides; give sides without common labels"
            )
        found.append(Contrast(f"{given[0]} > {given[1]}", given[0], given[1], a, b))
    else:
        for side in known if given is None else given:
            a = rows(side)
            b = np.setdiff1d(np.flatnonzero(y != ""), a)
            # With two classes, all others are one class, which deserves its name.
            others = [label for label in known if (y[b] == label).any()]
            other = others[0] if len(others) == 1 else "all others"
            found.append(Contrast(f"{side} > {other}", side, other, a, b))
    for contrast in found:
        for side, chosen in ((contrast.preferred, contrast.a), (contrast.other, contrast.b)):
            if len(chosen) < LEAST[measure]:
                raise InputError(
                    f"contrast {contrast.name!r}: {side!r} has {len(chosen)} stimuli, and {measure} needs "
                    f"{LEAST[measure]} on each side; add stimuli or choose another contrast"
                )
    return found


def resample(
    contrast: Contrast, y: np.ndarray, groups: np.ndarray | None, n_splits: int, n_permutations: int, seed: int
) -> None:
    """Draw the halves and the permutations of a contrast.

    Parameters
    ----------
    contrast : Contrast
        Filled in.
    y : numpy.ndarray of str
        ``(n_stimuli,)`` labels, of which each half gets equal shares.
    groups : numpy.ndarray of str, optional
        ``(n_stimuli,)`` groups that stay whole.
    n_splits, n_permutations : int
        How many.
    seed : int
        Seed of the analysis.

    Raises
    ------
    InputError
        If permuting labels changes nothing.
    """
    rows = contrast.rows
    inside = np.arange(len(rows)) < len(contrast.a)
    own = np.arange(len(rows)) if groups is None else np.unique(groups[rows], return_inverse=True)[1]
    for split in range(n_splits):
        random = generator(seed, _SPLITS + split, Stream.PERMUTATIONS)
        first = np.zeros(len(rows), dtype=bool)
        # Labels in equal shares; a group goes where its first stimulus goes. Odd ones fall to either half.
        seen: set[int] = set()
        for label in np.unique(y[rows]):
            here = [g for g in np.unique(own[y[rows] == label]) if g not in seen]
            seen |= set(here)
            order = random.permutation(len(here))
            half = (len(here) + int(random.integers(0, 2))) // 2
            first |= np.isin(own, np.array(here)[order[:half]] if half else [])
        contrast.halves.append(
            (rows[first & inside], rows[first & ~inside], rows[~first & inside], rows[~first & ~inside])
        )
    if n_permutations < 1:
        return
    members = np.empty((n_permutations, len(rows)), dtype=bool)
    members[0] = inside
    whole = groups is None or all(len(np.unique(inside[own == g])) == 1 for g in np.unique(own))
    _, start = np.unique(own, return_index=True)
    for draw in range(1, n_permutations):
        random = generator(seed, draw, Stream.PERMUTATIONS)
        if whole:
            members[draw] = inside[start][random.permutation(len(start))][own]
        else:
            # One sort of random keys within groups: labels stay in their group.
            order = np.lexsort((random.random(len(rows)), own))
            members[draw, np.lexsort((np.arange(len(rows)), own))] = inside[order]
    if len(members) > 1 and (members == inside).all():
        raise InputError(
            "permuting labels within groups changes nothing, so there is no test; use n_permutations=0 or groups of "
            "mixed labels"
        )
    contrast.members = members
