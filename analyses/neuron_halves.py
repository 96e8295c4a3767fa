"""Halves of repetitions, their correlations for all neurons at once, and what those say of all repetitions together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from actkit.compute import spans
from actkit.resampling import Stream, generator

Halves = Literal["all", "even"]
Order = Literal["correct_then_mean", "mean_then_correct"]

# Permutations of stimulus labels number their streams from 0 and never get here.
_SPLITS = 2**63
_BLOCK = 2**17  # values of one half that are worked on at a time: they stay in the cache of one core


def patterns(present: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Gather the neurons whose repetitions are missing in the same places: they share their halves.

    Parameters
    ----------
    present : numpy.ndarray of bool
        ``(stimuli, repetitions, neurons)``.

    Yields
    ------
    shared : numpy.ndarray of bool
        ``(stimuli, repetitions)``.
    columns : numpy.ndarray of int
        The neurons that have it.
    """
    flat = present.reshape(-1, present.shape[2])
    packed = np.ascontiguousarray(np.packbits(flat, axis=0).T)
    found: dict[bytes, list[int]] = {}
    for column, row in enumerate(packed):
        found.setdefault(row.tobytes(), []).append(column)
    for columns in found.values():
        yield present[:, :, columns[0]], np.array(columns)


def half_masks(present: np.ndarray, n_splits: int, halves: Halves, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw random halves of the repetitions.

    Where every stimulus has all repetitions, a split is the same for all of them, so that what the repetitions of one
    run share stays in one half. Otherwise each stimulus is split by itself.

    Parameters
    ----------
    present : numpy.ndarray of bool
        ``(stimuli, repetitions)``.
    n_splits : int
        Number of splits.
    halves : {"all", "even"}
        ``"all"`` uses every repetition, the odd one in a random half; ``"even"`` leaves a random odd one out. A single
        repetition is in no half.
    seed : int
        Seed; split k always draws from stream k.

    Returns
    -------
    tuple of numpy.ndarray of bool
        ``(splits, stimuli, repetitions)`` each.
    """
    n, m = present.shape
    count = present.sum(axis=1)
    rows = 1 if bool(present.all()) else n
    keys = np.empty((n_splits, rows, m))
    longer = np.zeros((n_splits, rows), dtype=bool)
    for split in range(n_splits):
        random = generator(seed, _SPLITS + split, Stream.PERMUTATIONS)
        keys[split] = random.random((rows, m))
        longer[split] = random.random(rows) < 0.5
    # Missing repetitions come last in the order of the keys; a half is a range of that order, so no ranks are needed.
    keys = np.where(present[:rows], keys, 2.0)
    ordered = np.sort(keys, axis=2)
    few = count[:rows] // 2
    first = np.broadcast_to(few, longer.shape)
    last = 2 * first
    if halves == "all":
        odd = (count[:rows] % 2 == 1) & (count[:rows] > 1)
        first = first + (longer & odd)
        last = np.broadcast_to(np.where(odd, count[:rows], 2 * few), longer.shape)
    a = keys <= _at(ordered, first)
    b = (keys <= _at(ordered, last)) & ~a
    shape = (n_splits, n, m)
    return np.broadcast_to(a, shape), np.broadcast_to(b, shape)


def _at(ordered: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Largest key among the first `number` ones, below every key for none: ``(splits, stimuli, 1)``."""
    key = np.take_along_axis(ordered, np.maximum(number - 1, 0)[:, :, None], axis=2)
    return np.asarray(np.where(number[:, :, None] > 0, key, -1.0))


def left_out_masks(present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave one repetition out: in fold k each stimulus leaves out its repetition number k, counted round.

    Parameters
    ----------
    present : numpy.ndarray of bool
        ``(stimuli, repetitions)``.

    Returns
    -------
    tuple of numpy.ndarray of bool
        ``(folds, stimuli, repetitions)``: the one left out, and the others. As many folds as the stimulus shown most
        often has repetitions; stimuli shown once are in none.
    """
    count = present.sum(axis=1)
    folds = int(count.max())
    place = np.cumsum(present, axis=1) - 1
    target = np.arange(folds)[:, None] % np.maximum(count, 1)
    one = present & (place == target[:, :, None]) & (count > 1)[:, None]
    return one, present & ~one & (count > 1)[:, None]


def means(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean responses over the repetitions of one half.

    Parameters
    ----------
    values : numpy.ndarray
        ``(stimuli, repetitions, neurons)`` without NaN (0 where missing).
    mask : numpy.ndarray of bool
        ``(stimuli, repetitions)``; at least one in every row.

    Returns
    -------
    numpy.ndarray
        ``(stimuli, neurons)``.
    """
    weights = mask / mask.sum(axis=1, keepdims=True)
    return np.asarray(np.matmul(weights[:, None, :], values)[:, 0])


def correlations(values: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlate the mean responses of two halves over stimuli, for all splits and neurons at once.

    Parameters
    ----------
    values : numpy.ndarray
        ``(stimuli, repetitions, neurons)`` without NaN (0 where missing), near 0 on average.
    a, b : numpy.ndarray of bool
        ``(splits, stimuli, repetitions)``; at least one in every row.

    Returns
    -------
    numpy.ndarray
        ``(splits, neurons)``; NaN where a half is constant.
    """
    n, _, p = values.shape
    splits = len(a)
    sums = np.zeros((5, splits, p))
    step = max(1, _BLOCK // (splits * p))
    for start, stop in spans(n, step):
        block = values[start:stop]
        sides = []
        for mask in (a, b):
            part = np.ascontiguousarray(mask[:, start:stop].transpose(1, 0, 2), dtype=np.float64)
            part /= part.sum(axis=2, keepdims=True)
            sides.append(np.matmul(part, block))  # (stimuli, splits, neurons)
        x, y = sides
        sums[0] += x.sum(axis=0)
        sums[1] += y.sum(axis=0)
        for place, (u, v) in enumerate(((x, x), (y, y), (x, y)), start=2):
            sums[place] += np.einsum("isp,isp->sp", u, v)
    return correlation(sums, float(n))


def correlation(sums: np.ndarray, n: float | np.ndarray) -> np.ndarray:
    """Pearson's r from sums.

    Parameters
    ----------
    sums : numpy.ndarray
        ``(5, …)``: the sums of x, y, x², y² and xy.
    n : float or numpy.ndarray
        How many were summed, broadcastable.

    Returns
    -------
    numpy.ndarray
        ``(…)``; NaN where a side is constant but for rounding.
    """
    x, y, xx, yy, xy = sums
    varx, vary = xx - x * x / n, yy - y * y / n
    # A constant side leaves rounding errors of its squares, about 1e-16 of them.
    moves = (varx > 1e-13 * xx) & (vary > 1e-13 * yy)
    scale = np.sqrt(np.where(moves, varx * vary, 1.0))
    return np.where(moves, np.clip((xy - x * y / n) / scale, -1.0, 1.0), np.nan)


def reliability_of_all(
    r: np.ndarray, noise_a: float | np.ndarray, noise_b: float | np.ndarray, noise: float | np.ndarray
) -> np.ndarray:
    """Go from the correlation between two parts of the repetitions to the reliability of their mean over all of them.

    With λ the ratio of noise variance to signal variance in a single trial, two parts correlate by
    ``1 / √((1 + λ noise_a)(1 + λ noise_b))``; this is solved for λ, and the mean over all repetitions has the
    reliability ``1 / (1 + λ noise)``. With parts of equal length it is the formula of Spearman (1910) and Brown (1910)
    for ``noise_a / noise`` times the length.

    Parameters
    ----------
    r : numpy.ndarray
        Correlations between the parts.
    noise_a, noise_b, noise : float or numpy.ndarray
        Mean over stimuli of 1 / repetitions in either part and in all: unequal numbers count by their own noise.

    Returns
    -------
    numpy.ndarray
        Reliabilities, −1 to 1; for negative r minus the reliability of −r, so that pure noise averages to 0.
    """
    size = np.abs(np.asarray(r, dtype=np.float64))
    safe = np.where(size > 0, size, 1.0)
    product, total = np.multiply(noise_a, noise_b), np.add(noise_a, noise_b)
    constant = 1 - safe**-2  # of product λ² + total λ + constant = 0
    # This form of the root loses no digits where r is near 1 and λ near 0.
    ratio = -2 * constant / (total + np.sqrt(total**2 - 4 * product * constant))
    return np.where(size > 0, np.sign(r) / (1 + ratio * noise), r)


def components(filled: np.ndarray, present: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate reliability from variance components.

    Parameters
    ----------
    filled : numpy.ndarray
        ``(stimuli, repetitions, neurons)``, 0 where missing, near 0 on average.
    present : numpy.ndarray of bool
        ``(stimuli, repetitions)``; each stimulus at least once, one at least twice.
    weights : numpy.ndarray
        ``(draws, stimuli)`` bootstrap multiplicities.

    Returns
    -------
    tuple of numpy.ndarray
        Reliability ``(neurons,)`` of all stimuli and ``(draws, neurons)`` of every draw; NaN for constant neurons.
    """
    count = present.sum(axis=1).astype(np.float64)[:, None]
    average = filled.sum(axis=1) / count
    squares = np.where(present[:, :, None], (filled - average[:, None]) ** 2, 0.0).sum(axis=1)
    pooled = squares.sum(axis=0) / (count - 1).sum()
    noise = np.where(count > 1, squares / np.maximum(count - 1, 1), pooled) / count

    def share(w: np.ndarray, correction: float) -> np.ndarray:
        size = w.sum(axis=1, keepdims=True)
        one, two = w @ average, w @ average**2
        left = two - one**2 / size
        moves = (left > 1e-13 * two) & (size > 1)
        variance = correction * left / np.maximum(size - 1, 1)
        return np.where(moves, 1 - w @ noise / size / np.where(moves, variance, 1.0), np.nan)

    n = len(average)
    # A bootstrap's variance over stimuli is (n − 1) / n of the sample's on average.
    return share(np.ones((1, n)), 1.0)[0], share(weights, n / (n - 1))


def from_splits(r: np.ndarray, noise_a: np.ndarray, noise_b: np.ndarray, noise: np.ndarray, order: Order) -> np.ndarray:
    """Take the correlations of all splits to one reliability of all repetitions.

    Parameters
    ----------
    r : numpy.ndarray
        ``(splits, …)`` correlations between the parts.
    noise_a, noise_b, noise : numpy.ndarray
        ``(splits,)`` or ``(splits, draws)``: mean over stimuli of 1 / repetitions in either part and in all.
    order : {"correct_then_mean", "mean_then_correct"}
        Whether each split is corrected before the mean over splits, or the mean is.

    Returns
    -------
    numpy.ndarray
        ``(…)``; splits without r are left out.
    """
    if order == "mean_then_correct":
        r, noise_a, noise_b, noise = mean(r)[None], *(x.mean(axis=0)[None] for x in (noise_a, noise_b, noise))

    def like(x: np.ndarray) -> np.ndarray:
        return x.reshape(x.shape + (1,) * (r.ndim - x.ndim))

    return mean(reliability_of_all(r, like(noise_a), like(noise_b), like(noise)))


def mean(values: np.ndarray) -> np.ndarray:
    """Average over the first axis without the undefined.

    Parameters
    ----------
    values : numpy.ndarray
        ``(n, …)``.

    Returns
    -------
    numpy.ndarray
        ``(…)``; NaN where nothing is defined.
    """
    known = ~np.isnan(values)
    number = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def split_draws(
    filled: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    noise: np.ndarray,
    repeated: np.ndarray,
    weights: np.ndarray,
    shorter: bool,
    order: Order,
) -> np.ndarray:
    """Estimate the reliability in every bootstrap draw of stimuli, averaged over splits.

    Parameters
    ----------
    filled : numpy.ndarray
        ``(repeated stimuli, repetitions, neurons)``, 0 where missing, near 0 on average.
    a, b : numpy.ndarray of bool
        ``(splits, repeated stimuli, repetitions)``; at least one in every row.
    noise : numpy.ndarray
        ``(stimuli,)`` 1 / repetitions of every stimulus.
    repeated : numpy.ndarray of bool
        ``(stimuli,)`` the stimuli with two repetitions or more.
    weights : numpy.ndarray
        ``(draws, stimuli)`` multiplicities.
    shorter : bool
        Whether halves are taken to twice their length (even halves) instead of to all repetitions.
    order : {"correct_then_mean", "mean_then_correct"}
        See :func:`from_splits`.

    Returns
    -------
    numpy.ndarray
        ``(draws, neurons)``; NaN where a draw has fewer than three repeated stimuli.
    """
    n_columns = filled.shape[2]
    inside = weights[:, repeated]
    # A draw can miss the repeated stimuli where these are few; it is undefined then.
    size = np.where(inside.sum(axis=1) > 2, inside.sum(axis=1), np.nan)
    everything = weights @ noise / weights.sum(axis=1)
    r, halves = [], []
    for one, other in zip(a, b, strict=True):
        x, y = means(filled, one), means(filled, other)
        sums = inside @ np.concatenate([x, y, x * x, y * y, x * y], axis=1)
        parts = sums.reshape(len(weights), 5, n_columns).transpose(1, 0, 2)
        r.append(correlation(parts, size[:, None]))
        halves.append([inside @ (1 / mask.sum(axis=1)) / size for mask in (one, other)])
    noise_a, noise_b = np.array(halves).transpose(1, 0, 2)
    whole = noise_a / 2 if shorter else np.broadcast_to(everything, noise_a.shape)
    return from_splits(np.array(r), noise_a, noise_b, whole, order)
