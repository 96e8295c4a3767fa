"""The parts of a comparison: checked input, scores on all stimuli and on draws, ceilings; see :mod:`.comparison`."""

from __future__ import annotations

import numpy as np

from actkit.analyses import moments, rank_draws
from actkit.analyses.measures import (
    KENDALL,
    LINEAR,
    RANKED,
    WHITENED,
    Compare,
    Draw,
    agreement,
    doubled_ranks,
    normalised,
    over_drawn,
    prepared,
    stimuli_of,
    whitened_duals,
)
from actkit.analyses.threads import in_blocks, single_blas
from actkit.errors import InputError

FEWEST = 3  # distinct stimuli that a comparison needs


def permutable(models: np.ndarray, data: np.ndarray, compare: Compare) -> tuple[np.ndarray, np.ndarray]:
    """Vectors whose plain products are the subject-mean scores, under any permutation of the stimuli.

    Parameters
    ----------
    models, data : numpy.ndarray
        ``(models, pairs)`` and ``(subjects, pairs)``.
    compare : str
        A measure that is a scalar product.

    Returns
    -------
    tuple of numpy.ndarray
        ``(models, pairs)`` and ``(pairs,)``; NaN for a model without a score.
    """
    if compare in WHITENED:
        metric: Compare = "pearson" if compare == "whitened-pearson" else "cosine"
        mine, theirs = prepared(models, metric), prepared(data, metric)
        duals = whitened_duals(theirs)
        theirs = duals / np.sqrt((duals * theirs).sum(axis=1, keepdims=True))
        mine = mine / np.sqrt((whitened_duals(mine) * mine).sum(axis=1, keepdims=True))
        return mine, theirs.mean(axis=0)
    mine, theirs = prepared(models, compare), prepared(data, compare)
    if compare == "rho-a":
        once = np.ones(data.shape[1])
        n = float(data.shape[1])
        own, other = (np.linalg.norm(doubled_ranks(x, once), axis=1, keepdims=True) / 2 for x in (models, data))
        return mine * own, (theirs * other).mean(axis=0) * (12 / (n**3 - n))
    return mine, theirs.mean(axis=0)


def matching(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check two sets of RDM vectors of the same stimuli.

    Parameters
    ----------
    first, second : numpy.ndarray
        ``(rdms, pairs)`` each.

    Returns
    -------
    tuple of numpy.ndarray
        Both as float64.

    Raises
    ------
    InputError
        If they have different numbers of pairs.
    """
    one, other = as_vectors(first), as_vectors(second)
    if one.shape[1] != other.shape[1]:
        raise InputError(f"RDM vectors of {one.shape[1]} and of {other.shape[1]} pairs; align their stimuli first")
    return one, other


def whole_rows(vectors: np.ndarray) -> np.ndarray:
    """Find the RDMs without a missing value.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(rdms, pairs)``.

    Returns
    -------
    numpy.ndarray of bool
        ``(rdms,)``.
    """
    return np.isfinite(vectors).all(axis=1)


def filled(vectors: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Put zeros for RDMs that have missing values.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(rdms, pairs)``.
    whole : numpy.ndarray of bool
        ``(rdms,)``.

    Returns
    -------
    numpy.ndarray of float64
        ``(rdms, pairs)``.
    """
    return np.ascontiguousarray(vectors if whole.all() else np.where(whole[:, None], vectors, 0.0))


def totals(drawn: np.ndarray) -> np.ndarray:
    """Count the pairs of each draw, with copies.

    Parameters
    ----------
    drawn : numpy.ndarray of int
        ``(draws, stimuli)`` multiplicities.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws,)``.
    """
    return (drawn.sum(axis=1) ** 2 - np.square(drawn).sum(axis=1)) / 2


def as_vectors(values: np.ndarray) -> np.ndarray:
    """Check RDM vectors: float64, of a length that belongs to a number of stimuli.

    Parameters
    ----------
    values : numpy.ndarray
        ``(rdms, pairs)``.

    Returns
    -------
    numpy.ndarray of float64
        The same.

    Raises
    ------
    InputError
        For another shape.
    """
    vectors = np.asarray(values, dtype=np.float64)
    if vectors.ndim != 2:
        raise InputError(f"RDM vectors have the shape {vectors.shape}; give (rdms, pairs)")
    stimuli_of(vectors.shape[1])
    return vectors


def everything_once(vectors: np.ndarray) -> np.ndarray:
    """Make the draw that holds every stimulus once.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(rdms, pairs)``.

    Returns
    -------
    numpy.ndarray of int64
        ``(1, stimuli)`` ones.
    """
    return np.ones((1, stimuli_of(vectors.shape[1])), dtype=np.int64)


def as_counts(values: np.ndarray, n: int, what: str) -> np.ndarray:
    """Check multiplicities.

    Parameters
    ----------
    values : numpy.ndarray
        ``(draws, n)``.
    n : int
        How many there are to draw from.
    what : str
        What is drawn, for messages.

    Returns
    -------
    numpy.ndarray of int64
        The same.

    Raises
    ------
    InputError
        For another shape, or values that are no counts.
    """
    given = np.asarray(values)
    if given.ndim != 2 or given.shape[1] != n:
        raise InputError(f"draws of {what} have the shape {given.shape}; the RDMs have {n} {what}: give (draws, {n})")
    counts = given.astype(np.int64)
    if (counts != given).any() or (counts < 0).any():
        raise InputError(f"draws of {what} hold values that are no counts; multiplicities are 0, 1, 2, …")
    return counts


def products(
    vectors: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    drawn: np.ndarray,
    compare: Compare,
    workers: int | None,
    device: str | None,
) -> np.ndarray:
    """Compute the forms of chosen pairs of RDMs.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(rdms, pairs)`` without missing values.
    first, second : numpy.ndarray of int
        ``(products,)`` the two RDMs of each.
    drawn : numpy.ndarray of int64
        ``(draws, stimuli)`` multiplicities.
    compare : str
        A measure that is a scalar product.
    workers : int or None
        Threads.
    device : str or None
        Torch device.

    Returns
    -------
    numpy.ndarray of float64
        ``(products, draws)``.
    """
    if compare in RANKED:
        return rank_draws.rank_forms(vectors, first, second, drawn, workers)
    return moments.weighted_forms(vectors, first, second, drawn, compare, workers, device)


def plain_scores(models: np.ndarray, data: np.ndarray, compare: Compare) -> np.ndarray:
    """Score every model with every subject on all stimuli.

    Parameters
    ----------
    models, data : numpy.ndarray
        ``(models, pairs)`` and ``(subjects, pairs)``.
    compare : str
        The measure.

    Returns
    -------
    numpy.ndarray of float64
        ``(models, subjects)``.
    """
    n_models = len(models)
    both = np.concatenate([models, data])
    whole = whole_rows(both)
    both = filled(both, whole)
    draw = Draw(everything_once(both)[0])
    if draw.n_stimuli < FEWEST:
        return np.full((n_models, len(data)), np.nan)
    if compare in KENDALL:
        out = rank_draws.kendall_scores(both[:n_models], both[n_models:], everything_once(both), compare)[0]
    else:
        with single_blas():
            form = draw.form(moments.rescaled(both)[0], compare)
        own = np.diagonal(form)
        out = normalised(form[:n_models, n_models:], own[:n_models], own[n_models:], compare, draw.total)
    out[~whole[:n_models]] = np.nan
    out[:, ~whole[n_models:]] = np.nan
    return out


def drawn_scores(
    models: np.ndarray,
    data: np.ndarray,
    drawn: np.ndarray,
    compare: Compare,
    with_similar: bool,
    workers: int | None,
    device: str | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Score every model with every subject on every draw.

    Parameters
    ----------
    models, data : numpy.ndarray
        ``(models, pairs)`` and ``(subjects, pairs)``.
    drawn : numpy.ndarray of int64
        ``(draws, stimuli)`` multiplicities.
    compare : str
        The measure.
    with_similar : bool
        Score the subjects with one another too, where the measure is a scalar product of RDMs.
    workers : int or None
        Threads.
    device : str or None
        Torch device.

    Returns
    -------
    tuple
        ``(draws, models, subjects)`` scores, and ``(draws, subjects, subjects)`` or None.
    """
    k, n = len(models), len(data)
    both = np.concatenate([models, data])
    whole = whole_rows(both)
    both = filled(both, whole)
    similar = None
    if compare in KENDALL:
        score = rank_draws.kendall_scores(both[:k], both[k:], drawn, compare, workers)
    else:
        rows, columns = np.triu_indices(n) if with_similar and compare in LINEAR else np.diag_indices(n)
        first = np.concatenate([np.repeat(np.arange(k), n), np.arange(k), k + rows])
        second = np.concatenate([np.tile(np.arange(k, k + n), k), np.arange(k), k + columns])
        values = products(both, first, second, drawn, compare, workers, device).T
        total = totals(drawn)
        theirs = values[:, k * n + k :]
        own = theirs[:, rows == columns]
        score = normalised(values[:, : k * n].reshape(-1, k, n), values[:, k * n : k * n + k], own, compare, total)
        if len(rows) > n or n == 1:
            form = np.empty((len(drawn), n, n))
            form[:, rows, columns] = form[:, columns, rows] = theirs
            similar = normalised(form, own, own, compare, total)
            similar[:, ~whole[k:]] = np.nan
            similar[:, :, ~whole[k:]] = np.nan
    score[:, ~whole[:k]] = np.nan
    score[:, :, ~whole[k:]] = np.nan
    return score, similar


def linear_ceilings(
    data: np.ndarray, similar: np.ndarray | None, people: np.ndarray | None, compare: Compare
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Bound the scores of a measure that is a scalar product of RDMs, on every draw.

    Parameters
    ----------
    data : numpy.ndarray
        ``(subjects, pairs)``.
    similar : numpy.ndarray or None
        ``(draws, subjects, subjects)`` what :func:`drawn_scores` gave.
    people : numpy.ndarray of int64 or None
        ``(draws, subjects)`` multiplicities.
    compare : str
        The measure.

    Returns
    -------
    dict of str to tuple of numpy.ndarray
        Lower and upper ceilings ``(draws,)`` by what is drawn.
    """
    once = np.ones((1, len(data)), dtype=np.int64)
    cases: list[tuple[str, np.ndarray, np.ndarray]] = []
    if similar is not None:
        cases.append(("stimulus", similar, once))
    if people is not None:
        cases.append(("subject", plain_scores(data, data, compare)[None], people))
    if similar is not None and people is not None:
        cases.append(("both", similar, people))
    out = {}
    for name, agreeing, drawn in cases:
        lower, upper = agreement(agreeing, drawn)
        out[name] = over_drawn(lower, drawn), over_drawn(upper, drawn)
    return out


def rank_ceilings(
    data: np.ndarray,
    drawn: np.ndarray | None,
    people: np.ndarray | None,
    compare: Compare,
    workers: int | None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Bound the scores of a measure of ranks on every draw: pooled ranks are sums of ranks, ranked again.

    Parameters
    ----------
    data : numpy.ndarray
        ``(subjects, pairs)``.
    drawn : numpy.ndarray of int64 or None
        ``(draws, stimuli)`` multiplicities.
    people : numpy.ndarray of int64 or None
        ``(draws, subjects)`` multiplicities.
    compare : str
        The measure.
    workers : int or None
        Threads.

    Returns
    -------
    dict of str to tuple of numpy.ndarray
        Lower and upper ceilings ``(draws,)`` by what is drawn.
    """
    whole = whole_rows(data)
    known = filled(data, whole)
    out: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    sets: dict[str, np.ndarray] = {}
    if drawn is not None:
        sets["stimulus"] = np.ones((len(drawn), len(data)), dtype=np.int64)
        if people is not None:
            sets["both"] = people
        lower, upper = rank_draws.rank_bounds(known, drawn, np.stack(list(sets.values()), axis=1), compare, workers)
        for number, name in enumerate(sets):
            out[name] = lower[:, number], upper[:, number]
    if people is not None:
        sets["subject"] = people
        lower, upper = rank_draws.rank_bounds(known, everything_once(data), people[None], compare, workers)
        out["subject"] = lower[0], upper[0]
    for name, u in sets.items():
        lost = (u[:, ~whole] > 0).any(axis=1)
        out[name] = np.where(lost, np.nan, out[name][0]), np.where(lost, np.nan, out[name][1])
    return out


def paired_linear(
    predictions: np.ndarray, data: np.ndarray, drawn: np.ndarray, compare: Compare, workers: int | None
) -> np.ndarray:
    """Score another prediction on each draw, by the plain definition.

    Parameters
    ----------
    predictions, data : numpy.ndarray
        ``(draws, pairs)`` and ``(subjects, pairs)`` without missing values.
    drawn : numpy.ndarray of int64
        ``(draws, stimuli)`` multiplicities.
    compare : str
        A measure that is a scalar product of RDMs.
    workers : int or None
        Threads.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws, subjects)``.
    """
    x, y = moments.rescaled(predictions)[0], moments.rescaled(data)[0]
    out = np.full((len(drawn), len(data)), np.nan)

    def block(start: int, stop: int) -> None:
        for d in range(start, stop):
            draw = Draw(drawn[d])
            if draw.n_stimuli >= FEWEST:
                form = draw.form(np.concatenate([x[d][None], y]), compare)
                own = np.diagonal(form)
                out[d] = normalised(form[:1, 1:], own[:1], own[1:], compare, draw.total)[0]

    with single_blas():
        in_blocks(block, len(drawn), 32, workers)
    return out


def plain_ceilings(data: np.ndarray, compare: Compare) -> tuple[np.ndarray, np.ndarray]:
    """Bound what any model can score with each subject on all stimuli.

    Parameters
    ----------
    data : numpy.ndarray
        ``(subjects, pairs)``.
    compare : str
        The measure.

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper ceiling of each subject, ``(subjects,)``.
    """
    n = len(data)
    nothing = np.full(n, np.nan)
    everything = everything_once(data)
    if n < 2 or everything.shape[1] < FEWEST or not whole_rows(data).all():
        return nothing, nothing.copy()
    if compare in LINEAR:
        return agreement(plain_scores(data, data, compare), np.ones(n, dtype=np.int64))
    ranks = doubled_ranks(data, np.ones(data.shape[1]))
    if (ranks == 0).all(axis=1).any():
        return nothing, nothing.copy()
    total = ranks.sum(axis=0)
    pooled = np.concatenate([total - ranks, total[None]])
    score = plain_scores(pooled, data, compare)
    return np.diagonal(score).copy(), score[-1].copy()
