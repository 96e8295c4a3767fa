"""How sure a segregation index is: two-level bootstrap over classes and images, and intervals over trained networks.

The bootstrap holds the network, its rankings and its lesions fixed: it generalises to other classes and images of the
same kind. Other trainings are a matter of several seeds
(:func:`actkit.analyses.segregation_seeds.segregation_seeds`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from actkit.analyses.segregation_indices import Outcomes, index_at_half, segregation_index
from actkit.compute import spans
from actkit.errors import InputError
from actkit.resampling import Stream, generator

Levels = Literal["both", "classes", "images"]
LEVEL = 0.95
_BUDGET = 2**27  # bytes of weights at a time


def two_level_weights(
    labels: Sequence[np.ndarray], n_draws: int, seed: int, start: int = 0, levels: Levels = "both"
) -> list[np.ndarray]:
    """Draw classes with replacement, and within every drawn class its images with replacement.

    A class that is drawn twice has its images drawn twice, independently. One draw serves everything that is computed
    from the same images, so that comparisons are paired.

    Parameters
    ----------
    labels : sequence of numpy.ndarray
        For each task ``(image,)``: the class of each image. Tasks are drawn apart.
    n_draws : int
        Number of draws.
    seed : int
        Seed; each draw has a Philox stream of its own.
    start : int
        Number of the first draw.
    levels : {"both", "classes", "images"}
        What is drawn: classes, then images (the paper); whole classes; images within the classes that there are.

    Returns
    -------
    list of numpy.ndarray of float64
        For each task ``(draw, image)``: how often each image counts.

    Notes
    -----
    The mean over a drawn class varies by its images although the observed class means, from which classes are drawn,
    already do: drawing both levels counts the noise of images twice and is on the safe side (Davison & Hinkley 1997,
    Bootstrap methods and their application, 3.8), by little where classes differ much or have many images.
    """
    plans = []
    for values in labels:
        index = np.unique(np.asarray(values), return_inverse=True)[1]
        rows = np.argsort(index, kind="stable")
        size = np.bincount(index)
        plans.append((rows, size, np.cumsum(size) - size))
    drawn = [np.empty((n_draws, len(values))) for values in labels]
    for draw in range(n_draws):
        random = generator(seed, start + draw, Stream.STIMULI)
        for weights, (rows, size, first) in zip(drawn, plans, strict=True):
            n = len(size)
            classes = np.arange(n) if levels == "images" else random.integers(0, n, size=n)
            sizes = size[classes]
            base = np.repeat(first[classes], sizes)
            if levels == "classes":
                within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            else:
                within = np.floor(random.random(int(sizes.sum())) * np.repeat(sizes, sizes)).astype(np.int64)
            weights[draw] = np.bincount(rows[base + within], minlength=len(rows))
    return drawn


@dataclass(frozen=True, eq=False)
class Draws:
    """Bootstrap draws of everything that is computed from one set of images.

    Attributes
    ----------
    drop, plain : numpy.ndarray
        ``(draw, …, ranking, task)``: drops relative to chance, and the paper's plain form.
    intact : numpy.ndarray
        ``(draw, task)`` intact accuracies.
    """

    drop: np.ndarray
    plain: np.ndarray
    intact: np.ndarray

    @property
    def index(self) -> np.ndarray:
        """``(draw, …)`` segregation index."""
        return segregation_index(self.drop)

    @property
    def index_plain(self) -> np.ndarray:
        """``(draw, …)`` segregation index of the plain drops."""
        return segregation_index(self.plain)

    def index_at_half(self, fractions: Sequence[float] | np.ndarray) -> np.ndarray:
        """``(draw, …)`` index at equal harm, where the axis before `ranking` is the fraction."""
        return index_at_half(np.moveaxis(self.drop, -3, -1), fractions)[0]


def bootstrap(
    outcomes: Outcomes,
    n_draws: int = 1000,
    seed: int = 0,
    levels: Levels = "both",
    weights: Sequence[np.ndarray] | None = None,
) -> Draws:
    """Resample classes and images, the same for intact and all lesioned results.

    Parameters
    ----------
    outcomes : Outcomes
        Per-image results.
    n_draws : int
        Number of draws.
    seed : int
        Seed.
    levels : {"both", "classes", "images"}
        As in :func:`two_level_weights`.
    weights : sequence of two numpy.ndarray, optional
        What :func:`two_level_weights` drew for these images, to save drawing it again.

    Returns
    -------
    Draws
        NaN in draws whose intact accuracy is not above chance.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for block in _blocks(outcomes, n_draws, seed, levels) if weights is None else [weights]:
        intact, _ = outcomes.accuracies(block)
        parts.append((outcomes.drops(block), outcomes.drops(block, plain=True), intact))
    return Draws(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def shared_weights(labels: Sequence[np.ndarray], n_draws: int, seed: int, levels: Levels) -> list[np.ndarray] | None:
    """Draw weights once for many layers, or leave it to each where they would take too much memory.

    Parameters
    ----------
    labels : sequence of two numpy.ndarray
        For each task the class of each image.
    n_draws, seed, levels
        As in :func:`two_level_weights`.

    Returns
    -------
    list of numpy.ndarray, or None
        None above 128 MiB.
    """
    if 8 * n_draws * sum(len(values) for values in labels) > _BUDGET:
        return None
    return two_level_weights(labels, n_draws, seed, 0, levels)


def _blocks(outcomes: Outcomes, n_draws: int, seed: int, levels: Levels) -> Iterator[list[np.ndarray]]:
    """Weights of some draws at a time, within a budget."""
    if n_draws < 1:
        raise InputError(f"{n_draws} bootstrap draws give no interval; ask for 1000")
    rows = max(1, _BUDGET // (8 * sum(len(values) for values in outcomes.labels)))
    for start, stop in spans(n_draws, rows):
        yield two_level_weights(outcomes.labels, stop - start, seed, start, levels)


def percentile_interval(draws: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the draws that are defined.

    Parameters
    ----------
    draws : numpy.ndarray
        ``(draw, …)``; NaN marks a draw without a value.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    tuple of numpy.ndarray
        ``(…)`` lower and upper limit; NaN where fewer than half the draws are defined.

    Raises
    ------
    InputError
        If the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"an interval has a level between 0 and 1, not {level}; 0.95 is usual")
    known = ~np.isnan(draws)
    usable = 2 * known.sum(axis=0) >= len(draws)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN slice", category=RuntimeWarning)
        low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(usable, low, np.nan), np.where(usable, high, np.nan)


def difference(a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
    """Test whether one network segregates two tasks more than another network does its own two.

    The paper's control compares faces and objects with two sets of faces. Their images are independent, so each draw
    of one is set against another draw of the other.

    Parameters
    ----------
    a, b : xarray.Dataset
        Results of :func:`actkit.analyses.segregation.segregation` with the same layers and number of draws.

    Returns
    -------
    xarray.Dataset
        Over (layer, masking): ``difference`` of the indices, ``interval_low``, ``interval_high``, and ``p_value``:
        one-sided for a > b, ``(1 + draws at most 0) / (1 + draws)``; ``excess_difference``: the same with each null
        mean subtracted.

    Raises
    ------
    InputError
        If layers or numbers of draws differ.
    """
    if list(a["layer"].values) != list(b["layer"].values):
        raise InputError("the two results have other layers, so their indices cannot be compared; use the same network")
    if a.sizes["draw"] != b.sizes["draw"]:
        raise InputError(f"{a.sizes['draw']} and {b.sizes['draw']} bootstrap draws do not pair; use the same n_draws")
    one = a["index_draws"].transpose("draw", "layer", "masking").values
    # With one seed and as many images, equal numbers are equal draws; the shift makes them independent.
    two = np.roll(b["index_draws"].transpose("draw", "layer", "masking").values, 1, axis=0)
    gap = one - two
    low, high = percentile_interval(gap)
    known = ~np.isnan(gap)
    p = (1 + (known & (gap <= 0)).sum(axis=0)) / (1 + known.sum(axis=0))
    dims = ("layer", "masking")
    return xr.Dataset(
        {
            "difference": (dims, (a["index"] - b["index"]).transpose(*dims).values),
            "interval_low": (dims, low),
            "interval_high": (dims, high),
            "p_value": (dims, p),
            "excess_difference": (dims, (a["excess"] - b["excess"]).transpose(*dims).values),
        },
        coords={"layer": a["layer"].values, "masking": a["masking"].values},
        attrs={"analysis": "segregation_difference", "n_draws": a.sizes["draw"]},
    )
