"""Resampling as weights, with a random stream for each draw: blocks, workers and resumed runs give the same draws.

A bootstrap draw of n stimuli is a vector of multiplicities w that sums to n. A pair of distinct stimuli i < j then
counts ``w_i * w_j`` times, and two copies of one stimulus never form a pair (their dissimilarity is 0 in every RDM,
which would make unrelated RDMs correlate).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from actkit.errors import InputError


class Stream(IntEnum):
    """What a random stream is for: streams of one seed and number stay apart from one another."""

    STIMULI = 0
    SUBJECTS = 1
    PERMUTATIONS = 2


def generator(seed: int, number: int, stream: Stream = Stream.STIMULI) -> np.random.Generator:
    """Open the random stream of one draw.

    Parameters
    ----------
    seed : int
        Seed of the analysis, 0 to 2**64 - 1.
    number : int
        Number of the draw, from 0.
    stream : Stream
        What is drawn.

    Returns
    -------
    numpy.random.Generator
        Philox keyed by (seed, number), its counter starting in a region of its own for each kind of stream. Source:
        Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3.

    Raises
    ------
    InputError
        If the seed or the number is negative or too large.
    """
    for what, value in (("seed", seed), ("draw number", number)):
        if not 0 <= value < 2**64:
            raise InputError(f"{what} {value} is outside 0 … 2**64 - 1; choose a non-negative integer")
    key = np.array([seed, number], dtype=np.uint64)
    counter = np.array([0, 0, 0, int(stream)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def bootstrap_weights(n: int, n_draws: int, seed: int, start: int = 0, stream: Stream = Stream.STIMULI) -> np.ndarray:
    """Draw bootstrap samples with replacement, as multiplicities.

    Parameters
    ----------
    n : int
        How many there are to draw from (stimuli or subjects), and how many each draw takes.
    n_draws : int
        Number of draws.
    seed : int
        Seed of the analysis.
    start : int
        Number of the first draw: ``bootstrap_weights(n, 3, s, start=2)`` gives the rows 2, 3 and 4 of any longer run.
    stream : Stream
        What is drawn.

    Returns
    -------
    numpy.ndarray of int64
        ``(n_draws, n)``; each row sums to n.

    Raises
    ------
    InputError
        If there is nothing to draw from.
    """
    if n < 1 or n_draws < 0:
        raise InputError(f"cannot draw {n_draws} samples out of {n}; both must be positive")
    weights = np.empty((n_draws, n), dtype=np.int64)
    for row in range(n_draws):
        weights[row] = np.bincount(generator(seed, start + row, stream).integers(0, n, size=n), minlength=n)
    return weights


def permutations(n: int, count: int, seed: int, start: int = 0) -> np.ndarray:
    """Draw permutations, of which number 0 is the identity.

    Counting the observed labelling among the permutations makes the test exact: its p-value cannot be 0.

    Parameters
    ----------
    n : int
        How many labels are permuted.
    count : int
        Number of permutations.
    seed : int
        Seed of the analysis.
    start : int
        Number of the first permutation.

    Returns
    -------
    numpy.ndarray of int64
        ``(count, n)``, each row a permutation of ``range(n)``.
    """
    rows = np.empty((count, n), dtype=np.int64)
    for row in range(count):
        number = start + row
        rows[row] = np.arange(n) if number == 0 else generator(seed, number, Stream.PERMUTATIONS).permutation(n)
    return rows


def pair_weights(weights: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Weigh the pairs of stimuli in every draw.

    Parameters
    ----------
    weights : numpy.ndarray
        ``(draws, n)`` multiplicities of the stimuli.
    i, j : numpy.ndarray of int
        ``(pairs,)`` the two distinct stimuli of each pair.

    Returns
    -------
    numpy.ndarray of float64
        ``(pairs, draws)``: ``w_i * w_j``.
    """
    columns = np.ascontiguousarray(weights.T, dtype=np.float64)
    return columns[i] * columns[j]


def distinct(weights: np.ndarray) -> np.ndarray:
    """Count how many different stimuli (or subjects) each draw holds.

    Parameters
    ----------
    weights : numpy.ndarray
        ``(draws, n)`` multiplicities.

    Returns
    -------
    numpy.ndarray of int
        ``(draws,)``.
    """
    return np.count_nonzero(weights, axis=1)
