"""Racing: find the top k units of an exhaustive one-shot ranking without showing every image to every unit.

Two things make it cheap. A gradient gives a first-order guess of every unit's effect on every image of the pool for
about two forward passes; only the difference between effect and guess is sampled. And most images hardly matter: the
pool is cut into strata by how much the guesses say an image can matter, and each round takes images from the strata
in proportion to their size times the spread that was seen in them.

After a round, the pool mean of a unit still in the race is uncertain only by the images not yet seen. A Bayesian
bootstrap within the strata, shared by all units because they saw the same images, and scaled by the finite-population
correction, gives joint draws of those means. Units are then accepted or rejected, the surest first, for as long as
the probability that all decisions so far cost more than the tolerated share of the top k stays below what may have
been spent by that round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from actkit.errors import InputError

Evaluate = Callable[[int, np.ndarray, np.ndarray], np.ndarray]

_DRAWS = 2000
# The posterior treats the units' sample means as if they were spread like the true ones; they are spread wider, which
# makes every gap look surer than it is. Factor and prior were set on shuffles of real losses (see the tests).
_INFLATION = 1.25
_PRIOR = 4.0  # images' worth of the spread over all units that each unit's own spread in a stratum is mixed with
_SURPRISE = 3.0  # images' worth of the next riskier stratum that the unseen of a stratum may hide
_FIRST = 64  # images of the first round, at least
_LEAST = 8  # images seen of every stratum, at least


@dataclass(frozen=True, eq=False)
class Race:
    """The outcome of a race.

    Attributes
    ----------
    chosen : numpy.ndarray of bool
        ``(units,)`` the k units found.
    mean, se : numpy.ndarray of float64
        ``(units,)`` estimated pool mean when the unit left the race, and its standard error (0 at the pool's end).
    images : numpy.ndarray of int64
        ``(units,)`` number of images that the unit saw.
    left : numpy.ndarray of int64
        ``(units,)`` round in which the unit left, from 0.
    weights : numpy.ndarray of float64
        ``(rounds, images)`` weight of each image in an estimate of a pool mean after each round, 0 for those not seen.
    strata : numpy.ndarray of int64
        ``(images,)`` stratum of each image.
    spent : float
        Estimated probability that fewer than the stated share of the top k agree with the exhaustive ranking.
    """

    chosen: np.ndarray
    mean: np.ndarray
    se: np.ndarray
    images: np.ndarray
    left: np.ndarray
    weights: np.ndarray
    strata: np.ndarray
    spent: float


def rounds_of(n_images: int, growth: float = 1.5, first: int | None = None) -> list[int]:
    """Number of images seen at the end of each round.

    Parameters
    ----------
    n_images : int
        Size of the pool.
    growth : float
        Factor between rounds, above 1.
    first : int, optional
        Images of the first round; by default a sixteenth of the pool, at least 64.

    Returns
    -------
    list of int
        Rising, the last is the whole pool.

    Examples
    --------
    >>> rounds_of(1000, growth=2)
    [64, 128, 256, 512, 1000]
    """
    if growth <= 1:
        raise InputError(f"growth {growth} would never reach the whole pool; give a factor above 1, such as 1.5")
    size = float(first if first is not None else max(_FIRST, ceil(n_images / 16)))
    sizes = []
    # A last step of a few images would cost a round and decide nothing.
    while size < n_images / 1.2:
        sizes.append(int(size))
        size *= growth
    return [*sizes, n_images]


def strata_of(guess: np.ndarray) -> np.ndarray:
    """Cut a pool of images into strata by how much they can matter.

    Parameters
    ----------
    guess : numpy.ndarray
        ``(units, images)`` guessed effect of each unit on each image.

    Returns
    -------
    numpy.ndarray of int64
        ``(images,)`` stratum, 0 for the images whose root mean square guess over units is largest. Strata double in
        size from eight images: in a well-trained network nearly all of the effect is in a few images, so that the
        effect of neighbours in rank differs by more than equal strata could bear. One stratum where nothing is
        guessed.
    """
    risk = np.sqrt(np.mean(np.square(guess), axis=0))
    n = len(risk)
    if not np.any(risk):
        return np.zeros(n, dtype=np.int64)
    strata = np.empty(n, dtype=np.int64)
    edges = _LEAST * 2 ** np.arange(max(1, int(np.log2(max(n / _LEAST, 1)))))
    strata[np.lexsort((np.arange(n), -risk))] = np.searchsorted(edges[edges <= n - _LEAST], np.arange(n), side="right")
    return strata


def race(
    evaluate: Evaluate,
    order: np.ndarray,
    k: int,
    rng: np.random.Generator,
    guess: np.ndarray,
    error: float = 0.05,
    agreement: float = 0.95,
    growth: float = 1.5,
) -> Race:
    """Find the top k units by mean value over a pool of images.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(round, units, images)`` returns the value of each of the units for the images, shape
        ``(len(units), len(images))``.
    order : numpy.ndarray of int
        ``(images,)`` random order of the pool.
    k : int
        How many units to find, from 1.
    rng : numpy.random.Generator
        Source of the posterior draws.
    guess : numpy.ndarray
        ``(units, images)`` a cheap guess at every value; zeros where there is none. It changes the cost, not what is
        estimated.
    error : float
        Probability that fewer than `agreement` of the k agree with the exhaustive ranking on the same pool.
    agreement : float
        Share of the k that must agree; ``floor((1 - agreement) k)`` may be wrong.
    growth : float
        Factor between the numbers of images of two rounds.

    Returns
    -------
    Race
        Exactly the exhaustive top k where no unit left before the pool's end.

    Raises
    ------
    InputError
        If k, error or agreement is out of range.

    Notes
    -----
    Successive elimination after Maron & Moore (1997, Artif Intell Rev 11:193) and Even-Dar, Mannor & Mansour (2006,
    J Mach Learn Res 7:1079), with joint draws in place of simultaneous bounds; the difference estimator under
    stratified sampling with Neyman's allocation is in Cochran (1977, Sampling Techniques, chapters 5 and 7). The
    stated probability is a posterior one: it is checked by simulation, not proved.
    """
    n_units, n_images = guess.shape
    if not 1 <= k <= n_units:
        raise InputError(f"cannot find the top {k} of {n_units} units; choose a number from 1 to {n_units}")
    for what, value in (("error", error), ("agreement", agreement)):
        if not 0 < value < 1:
            raise InputError(f"{what} {value} is not a probability between 0 and 1; give one such as 0.05 or 0.95")
    tolerated = floor((1 - agreement) * k + 1e-9)
    strata = strata_of(guess)
    sizes = rounds_of(n_images, growth)
    guessed = guess.mean(axis=1)
    rest = np.full((n_units, n_images), np.nan)  # value minus guess
    spread = np.ones(strata.max() + 1)  # before anything is seen, strata share the first round equally
    spread /= np.bincount(strata)
    active, seen = np.arange(n_units), np.zeros(n_images, dtype=bool)
    chosen = np.zeros(n_units, dtype=bool)
    mean, se = np.full(n_units, np.nan), np.zeros(n_units)
    images, left = np.zeros(n_units, dtype=np.int64), np.zeros(n_units, dtype=np.int64)
    weights = np.zeros((len(sizes), n_images))
    misses = np.zeros(tolerated + 2)  # probability of 0 … tolerated misses so far, and of more
    misses[0] = 1.0
    for number, size in enumerate(sizes):
        new = _next_images(seen, strata, order, spread, size)
        rest[np.ix_(active, new)] = evaluate(number, active, new) - guess[np.ix_(active, new)]
        seen[new] = True
        weights[number] = _weights(seen, strata)
        values = rest[np.ix_(active, np.flatnonzero(seen))]
        means = guessed[active] + values @ weights[number, seen]
        seats = k - int(chosen.sum())
        errors = np.zeros(len(active))
        if size == n_images:
            accepted = np.zeros(len(active), dtype=bool)
            accepted[np.lexsort((active, -means))[:seats]] = True
            leaving = np.ones(len(active), dtype=bool)
        else:
            allowed = error * (number + 1) / (len(sizes) - 1)
            deviations, errors, spread = _deviations(
                values, weights[number, seen], strata[seen], np.bincount(strata), rng
            )
            accepted, leaving, misses = _decide(means, deviations * _INFLATION, seats, allowed, misses)
        chosen[active[accepted]] = True
        out = active[leaving]
        mean[out], se[out], images[out], left[out] = means[leaving], errors[leaving], seen.sum(), number
        active = active[~leaving]
        if not len(active):
            break
    return Race(chosen, mean, se, images, left, weights[: number + 1], strata, float(misses[-1]))


def _next_images(seen: np.ndarray, strata: np.ndarray, order: np.ndarray, spread: np.ndarray, size: int) -> np.ndarray:
    """Images to look at so that ``size`` are seen: Neyman's allocation, at least a few of each stratum."""
    totals, have = np.bincount(strata), np.bincount(strata[seen], minlength=len(spread))
    want = np.maximum(have, np.minimum(_LEAST, totals)).astype(float)
    pull = totals * np.maximum(spread, 1e-6 * spread.max() + 1e-300)
    open_ = want < totals
    while (room := size - want.sum()) >= 1 and open_.any():  # fill in proportion; what is full hands on its share
        target = np.minimum(np.maximum(want, pull / pull[open_].sum() * (room + want[open_].sum())), totals)
        grown = np.where(open_, target, want)
        if grown.sum() - want.sum() < 1:
            break
        scale = min(1.0, room / (grown.sum() - want.sum()))
        want = want + scale * (grown - want)
        open_ = want < totals - 1e-9
    counts = np.floor(want + 1e-9).astype(np.int64)
    by_room = np.lexsort((np.arange(len(counts)), -(want - counts)))
    for stratum in np.resize(by_room, len(by_room) * 2 + size):  # what rounding left over
        if counts.sum() >= size:
            break
        counts[stratum] += counts[stratum] < totals[stratum]
    ordered = order[~seen[order]]
    return np.concatenate([ordered[strata[ordered] == s][: max(0, counts[s] - have[s])] for s in range(len(counts))])


def _weights(seen: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Weight of each image in the stratified mean: its stratum's share of the pool over the images seen of it."""
    totals, have = np.bincount(strata), np.bincount(strata[seen], minlength=strata.max() + 1)
    return np.where(seen, (totals / np.maximum(have, 1))[strata] / len(strata), 0.0)


def _deviations(
    values: np.ndarray, weights: np.ndarray, strata: np.ndarray, totals: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joint draws ``(draws, units)`` of pool mean minus estimate, wide on purpose; plain standard errors; spreads."""
    units = len(values)
    draws = np.zeros((_DRAWS, units))
    extra, plain = np.zeros(units), np.zeros(units)
    spread = np.zeros(len(totals))
    above = np.zeros((0, units))
    for stratum, total in enumerate(totals):
        here = strata == stratum
        part, n = values[:, here], int(here.sum())
        part = part - part.mean(axis=1, keepdims=True)
        pooled = float(np.mean(np.sum(part**2, axis=1))) / max(n - 1, 1)
        spread[stratum] = np.sqrt(pooled)
        surprising, above = above, part.T
        if n == total:
            continue
        share = n * float(weights[here][0])  # of the pool
        bootstrap = rng.standard_exponential((_DRAWS, n))
        bootstrap /= bootstrap.sum(axis=1, keepdims=True)
        scale = share * np.sqrt((1 - n / total) * (n + 1) / max(n - 1, 1))
        draws += scale * (bootstrap @ part.T)
        if len(surprising):
            # The unseen images may hold one like those that matter more: a rule of succession for rare surprises.
            lump = share * (1 - n / total) * _SURPRISE * rng.beta(1, n, _DRAWS)
            draws += lump[:, None] * surprising[rng.integers(0, len(surprising), _DRAWS)]
        plain += share**2 * (1 - n / total) / n * np.sum(part**2, axis=1) / max(n - 1, 1)
        # A unit whose few images of a stratum happen to agree is not thereby certain: part of the spread of all units.
        extra += share**2 * (1 - n / total) / n * pooled * _PRIOR / (n + _PRIOR)
    return draws + rng.standard_normal(draws.shape) * np.sqrt(extra), np.sqrt(plain), spread


def _decide(
    means: np.ndarray, deviations: np.ndarray, seats: int, allowed: float, misses: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which units to accept now, which leave (accepted or not), and the distribution of misses afterwards."""
    units = len(means)
    estimate = np.zeros(units, dtype=bool)
    estimate[np.lexsort((np.arange(units), -means))[:seats]] = True
    draws = means + deviations
    top = np.zeros(draws.shape, dtype=bool)
    if 0 < seats < units:
        np.put_along_axis(top, np.argpartition(-draws, seats - 1, axis=1)[:, :seats], True, axis=1)
    else:
        top[:] = seats > 0
    wrong = top != estimate
    doubt = wrong.mean(axis=0)
    # Where no draw disagrees, the distance from the boundary decides the order.
    ranked = np.sort(means)[::-1]
    edge = (ranked[seats - 1] + ranked[seats]) / 2 if 0 < seats < units else means.mean()
    order = np.lexsort((np.arange(units), -np.abs(means - edge), doubt))
    rejected_wrongly = np.cumsum((wrong & ~estimate)[:, order], axis=1, dtype=np.int32)
    accepted_wrongly = np.cumsum((wrong & estimate)[:, order], axis=1, dtype=np.int32)
    lost = np.maximum(rejected_wrongly, accepted_wrongly)
    best, after = 0, misses
    low, high = 1, units
    while low <= high:  # the risk rises with the number of decisions
        middle = (low + high) // 2
        candidate = _add(misses, lost[:, middle - 1])
        if candidate[-1] <= allowed:
            best, after, low = middle, candidate, middle + 1
        else:
            high = middle - 1
    leaving = np.zeros(units, dtype=bool)
    leaving[order[:best]] = True
    return leaving & estimate, leaving, after


def _add(misses: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Distribution of the sum of earlier misses and those of this round, everything above the last but one lumped."""
    most = len(misses) - 1
    now = np.bincount(np.minimum(lost, most), minlength=most + 1) / len(lost)
    full = np.convolve(misses, now)
    return np.append(full[:most], full[most:].sum())
