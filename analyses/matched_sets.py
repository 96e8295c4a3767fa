"""Sets of random units that a lesion is compared with: as many, or as many that resemble the lesioned ones."""

from __future__ import annotations

import numpy as np

from actkit.errors import InputError
from actkit.resampling import Stream, generator

__all__ = ["matched_sets", "random_sets"]

# Random lesions number their streams from here, apart from permutations of the same seed.
_LESIONS = 2**61


def random_sets(n_units: int, k: int, count: int, seed: int) -> list[np.ndarray]:
    """Draw units at random, as many as a lesion has.

    Parameters
    ----------
    n_units : int
        Units of the layer.
    k : int
        Units in each set.
    count : int
        Number of sets.
    seed : int
        Seed; each set has a random stream of its own.

    Returns
    -------
    list of numpy.ndarray of int64
        Sorted indices; any unit can be drawn, those of the compared lesion too.

    Raises
    ------
    InputError
        If there are fewer units than a set needs.
    """
    if not 1 <= k <= n_units:
        raise InputError(f"{k} of {n_units} units cannot be drawn; choose 1 to {n_units}")
    return [
        np.sort(generator(seed, _LESIONS + number, Stream.PERMUTATIONS).permutation(n_units)[:k])
        for number in range(count)
    ]


def matched_sets(
    features: np.ndarray,
    units: np.ndarray,
    count: int,
    seed: int,
    neighbours: int = 5,
    own: bool = False,
    normal: bool = False,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw sets of units that resemble the lesioned ones, for instance in mean, variance and map position.

    Units are described by the ranks of their features, scaled alike. In random order every lesioned unit gets a
    partner: one of its nearest units that are not taken, drawn at random. Lesioned units are no partners, unless `own`
    is set.

    Parameters
    ----------
    features : numpy.ndarray
        ``(unit, feature)``, finite.
    units : numpy.ndarray of int
        The lesioned units, at most half of all.
    count : int
        Number of sets.
    seed : int
        Seed.
    neighbours : int
        Among how many nearest units to draw.
    own : bool
        Whether lesioned units can be drawn too, themselves beside their neighbours. Without chance differences between
        the lesioned units and their neighbours the lesioned set is then one more draw, and the share of draws that
        reach its effect is a p-value. Draws that leave the lesioned units out vary less about their mean than the
        lesioned set does (their variances are as ``n - 1`` to ``n + 1`` for n neighbours), so that with 5 neighbours
        some 9 % of tests at 5 % say yes by chance.
    normal : bool
        Whether ranks become normal scores, so that the few units at either end of a feature lie apart: for lesioned
        units at such an end, ranks leave up to five times the imbalance.

    Returns
    -------
    sets : list of numpy.ndarray of int64
        Sorted indices, as many as `units` in each; none of them in `units` unless `own` is set.
    imbalance : numpy.ndarray of float64
        ``(feature,)``: mean of lesioned minus of matched units (over all sets), in standard deviations over the layer:
        what the matching leaves.

    Raises
    ------
    InputError
        If more than half of the units are lesioned, or a feature is not finite.
    """
    values = np.asarray(features, dtype=np.float64)
    chosen = np.unique(units)
    if not np.isfinite(values).all():
        raise InputError("a unit's feature is NaN or infinite, so nothing resembles it; give finite features")
    if 2 * len(chosen) > len(values):
        raise InputError(f"{len(chosen)} of {len(values)} units leave too few others to match; lesion half at most")
    others = np.arange(len(values)) if own else np.setdiff1d(np.arange(len(values)), chosen)
    among = neighbours + 1 if own else neighbours
    nearest = _nearest(values, chosen, others, len(chosen) - 1 + among, normal)
    sets = []
    for number in range(count):
        random = generator(seed, 2 * _LESIONS + number, Stream.PERMUTATIONS)
        free = np.ones(len(others), dtype=bool)
        for row in random.permutation(len(chosen)):
            near = nearest[row][free[nearest[row]]][:among]
            free[near[random.integers(0, len(near))]] = False
        sets.append(others[~free])
    spread = values.std(axis=0)
    gap = values[chosen].mean(axis=0) - np.mean([values[one].mean(axis=0) for one in sets], axis=0)
    return sets, np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)


def _nearest(values: np.ndarray, chosen: np.ndarray, others: np.ndarray, most: int, normal: bool) -> np.ndarray:
    """For each chosen unit the places of its nearest others, as many as can be needed: the rest may all be taken."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    ranks = ndtri((ranks - 0.5) / len(values)) if normal else ranks / len(values)
    found = [
        np.argsort(((ranks[unit] - ranks[others]) ** 2).sum(axis=-1), kind="stable")[:most] for unit in chosen.tolist()
    ]
    return np.stack(found)
