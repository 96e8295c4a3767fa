"""Measures of ranks on many draws: sort every RDM once, then run the compiled loops over blocks of draws in threads."""

from __future__ import annotations

import numpy as np

from actkit.analyses.threads import in_blocks

_DRAWS = 8  # a block: draws that one thread takes at a time
_SETS = 32  # sets of subjects on one draw of stimuli that one thread takes at a time


class Ordered:
    """RDMs in ascending order.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(rdms, pairs)`` without missing values.

    Attributes
    ----------
    order, low, high : numpy.ndarray of int32
        ``(rdms, pairs)`` positions in ascending order; first position of each element's tie group, and the first after.
    tied : numpy.ndarray of bool
        ``(rdms,)`` whether values repeat.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        rdms, pairs = vectors.shape
        self.order = np.empty((rdms, pairs), dtype=np.int32)
        self.low = np.empty_like(self.order)
        self.high = np.empty_like(self.order)
        self.tied = np.empty(rdms, dtype=np.bool_)
        for k, vector in enumerate(vectors):
            order = np.argsort(vector, kind="stable")
            ordered = vector[order]
            first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
            stop = np.append(first[1:], pairs)
            self.order[k] = order
            self.low[k] = np.repeat(first, stop - first)
            self.high[k] = np.repeat(stop, stop - first)
            self.tied[k] = len(first) < pairs


def _ends(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The stimuli of each pair."""
    i, j = np.triu_indices(n, 1)
    return i.astype(np.int32), j.astype(np.int32)


def _keys(pairs: int, largest: int) -> np.ndarray:
    """Scratch for sorting sums of ranks of size up to `largest` with their positions: small where they fit."""
    bits = (2 * largest).bit_length() + pairs.bit_length()
    return np.empty((2, pairs), dtype=np.int32 if bits < 31 else np.int64)


def _total(w: np.ndarray) -> int:
    """Most pairs of a draw, copies counted."""
    return int(((w.sum(axis=1) ** 2 - np.square(w).sum(axis=1)) // 2).max(initial=0))


def _counter(pairs: int) -> np.ndarray:
    """Scratch for the running sums of Kendall's counts."""
    return np.empty(65 * ((pairs >> 12) + 1) + 2 * (pairs + 64), dtype=np.int32)


def rank_forms(
    vectors: np.ndarray, first: np.ndarray, second: np.ndarray, drawn: np.ndarray, workers: int | None = None
) -> np.ndarray:
    """Weighted products of centred mid-ranks.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(rdms, pairs)`` without missing values.
    first, second : numpy.ndarray of int
        ``(products,)`` the two RDMs of each product.
    drawn : numpy.ndarray of int64
        ``(draws, stimuli)`` multiplicities.
    workers : int, optional
        Threads.

    Returns
    -------
    numpy.ndarray of float64
        ``(products, draws)``; NaN for draws with fewer than three distinct stimuli.
    """
    from actkit.analyses import rank_kernels

    ordered = Ordered(vectors)
    i, j = _ends(drawn.shape[1])
    out = np.empty((len(first), len(drawn)))

    def block(start: int, stop: int) -> None:
        part = np.empty((len(first), stop - start))
        rank_kernels.rank_products(
            ordered.order, ordered.low, ordered.high, ordered.tied, i, j, drawn[start:stop], first, second, part
        )
        out[:, start:stop] = part

    in_blocks(block, len(drawn), _DRAWS, workers)
    return out


def rank_bounds(
    data: np.ndarray, drawn: np.ndarray, people: np.ndarray, compare: str, workers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ceilings of a measure of ranks, means over the distinct subjects drawn.

    Parameters
    ----------
    data : numpy.ndarray
        ``(subjects, pairs)`` without missing values.
    drawn : numpy.ndarray of int64
        ``(draws, stimuli)`` multiplicities.
    people : numpy.ndarray of int64
        ``(draws, sets, subjects)`` sets of multiplicities of the subjects for each draw of stimuli.
    compare : {"spearman", "rho-a", "tau-a", "tau-b"}
        The measure.
    workers : int, optional
        Threads.

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper ceilings, ``(draws, sets)``.
    """
    from actkit.analyses import kendall_kernels, rank_kernels

    ordered = Ordered(data)
    i, j = _ends(drawn.shape[1])
    n_draws, sets, _ = people.shape
    lower, upper = np.empty((2, n_draws, sets))
    largest = _total(drawn) * int(people.sum(axis=2).max(initial=1))
    pairs = data.shape[1]
    kendall = compare in ("tau-a", "tau-b")

    def bound(start: int, stop: int, first: int, last: int) -> None:
        rows = slice(start, stop), slice(first, last)
        part = np.empty((2, stop - start, last - first))
        shared = ordered.order, ordered.low, ordered.high, ordered.tied, i, j, drawn[start:stop]
        chosen, keys = np.ascontiguousarray(people[rows]), _keys(pairs, largest)
        if kendall:
            kendall_kernels.kendall_ceilings(*shared, chosen, compare == "tau-a", keys, _counter(pairs), *part)
        else:
            rank_kernels.rank_ceilings(*shared, chosen, compare == "rho-a", keys, *part)
        lower[rows], upper[rows] = part

    if n_draws == 1:
        in_blocks(lambda first, last: bound(0, 1, first, last), sets, _SETS, workers)
    else:
        in_blocks(lambda start, stop: bound(start, stop, 0, sets), n_draws, _DRAWS, workers)
    return lower, upper


def kendall_scores(
    models: np.ndarray, data: np.ndarray, drawn: np.ndarray, compare: str, workers: int | None = None
) -> np.ndarray:
    """Kendall's tau of every model with every subject.

    Parameters
    ----------
    models, data : numpy.ndarray
        ``(models, pairs)`` and ``(subjects, pairs)`` without missing values.
    drawn : numpy.ndarray of int64
        ``(draws, stimuli)`` multiplicities.
    compare : {"tau-a", "tau-b"}
        The measure.
    workers : int, optional
        Threads.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws, models, subjects)``.
    """
    from actkit.analyses import kendall_kernels

    ours, theirs = Ordered(models), Ordered(data)
    i, j = _ends(drawn.shape[1])
    out = np.empty((len(drawn), len(models), len(data)))

    def block(start: int, stop: int) -> None:
        kendall_kernels.kendall_scores(
            ours.order,
            ours.low,
            theirs.order,
            theirs.low,
            i,
            j,
            drawn[start:stop],
            compare == "tau-a",
            _counter(models.shape[1]),
            out[start:stop],
        )

    in_blocks(block, len(drawn), _DRAWS, workers)
    return out


def paired_forms(
    predictions: np.ndarray, data: np.ndarray, drawn: np.ndarray, workers: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products of centred mid-ranks of one prediction a draw with those of every subject.

    Parameters
    ----------
    predictions : numpy.ndarray
        ``(draws, pairs)`` without missing values.
    data : numpy.ndarray
        ``(subjects, pairs)`` without missing values.
    drawn : numpy.ndarray of int64
        ``(draws, stimuli)`` multiplicities.
    workers : int, optional
        Threads.

    Returns
    -------
    tuple of numpy.ndarray
        Products ``(draws, subjects)``, squares of the predictions ``(draws,)`` and of the subjects.
    """
    from actkit.analyses import rank_kernels

    ordered = Ordered(data)
    i, j = _ends(drawn.shape[1])
    cross, theirs = np.empty((2, len(drawn), len(data)))
    own = np.empty(len(drawn))

    def block(start: int, stop: int) -> None:
        rows = slice(start, stop)
        shared = ordered.order, ordered.low, ordered.high, ordered.tied, i, j
        rank_kernels.paired_products(predictions[rows], *shared, drawn[rows], cross[rows], own[rows], theirs[rows])

    in_blocks(block, len(drawn), _DRAWS, workers)
    return cross, own, theirs


def paired_kendall(
    predictions: np.ndarray, data: np.ndarray, drawn: np.ndarray, compare: str, workers: int | None = None
) -> np.ndarray:
    """Kendall's tau of one prediction a draw with every subject.

    Parameters
    ----------
    predictions, data, drawn, workers
        As in :func:`paired_forms`.
    compare : {"tau-a", "tau-b"}
        The measure.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws, subjects)``.
    """
    from actkit.analyses import kendall_kernels

    ordered = Ordered(data)
    i, j = _ends(drawn.shape[1])
    out = np.empty((len(drawn), len(data)))

    def block(start: int, stop: int) -> None:
        rows = slice(start, stop)
        kendall_kernels.paired_kendall(
            predictions[rows],
            ordered.order,
            ordered.low,
            i,
            j,
            drawn[rows],
            compare == "tau-a",
            _counter(data.shape[1]),
            out[rows],
        )

    in_blocks(block, len(drawn), _DRAWS, workers)
    return out


def kendall_permuted(
    models: np.ndarray, data: np.ndarray, permutations: np.ndarray, compare: str, workers: int | None = None
) -> np.ndarray:
    """Kendall's tau of every model with the subjects after permuting their stimuli, means over subjects.

    Parameters
    ----------
    models, data : numpy.ndarray
        ``(models, pairs)`` and ``(subjects, pairs)`` without missing values.
    permutations : numpy.ndarray of int64
        ``(permutations, stimuli)``.
    compare : {"tau-a", "tau-b"}
        The measure.
    workers : int, optional
        Threads.

    Returns
    -------
    numpy.ndarray of float64
        ``(permutations, models)``.
    """
    from actkit.analyses import kendall_kernels

    ours, theirs = Ordered(models), Ordered(data)
    i, j = _ends(permutations.shape[1])
    out = np.empty((len(permutations), len(models)))

    def block(start: int, stop: int) -> None:
        kendall_kernels.kendall_permuted(
            ours.order,
            ours.low,
            theirs.order,
            theirs.low,
            i,
            j,
            permutations[start:stop],
            compare == "tau-a",
            _counter(models.shape[1]),
            out[start:stop],
        )

    in_blocks(block, len(permutations), _DRAWS, workers)
    return out
