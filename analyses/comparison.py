"""Compare RDMs: Spearman, Pearson and cosine, on all stimuli and on bootstrap draws, with the ceilings of each measure.

Every measure is a scalar product of normalised vectors of dissimilarities: ranks (centred, unit norm) for Spearman,
centred and unit norm for Pearson, unit norm for cosine. A bootstrap draw weighs each pair, so resampled scores are
ratios of weighted moments, and resampled ranks follow from one sort and a cumulative sum.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

from actkit.compute import spans
from actkit.resampling import pair_weights

Compare = Literal["spearman", "pearson", "cosine"]

# Fixed block sizes: results must not depend on the machine. 4096 pairs × 512 draws are 17 MB of pair weights.
_PAIR_BLOCK = 4096
_DRAW_BLOCK = 512
_RANK_BUFFER = 8_000_000  # values, 64 MB
_INDEX_LIMIT = 32_000_000  # values; above, index arrays are kept in half the memory

# A weighted variance below this share of the second moment is rounding: the vector is constant in that draw.
_CONSTANT = 1e-12


def prepared(vectors: np.ndarray, compare: Compare) -> np.ndarray:
    """Bring RDM vectors to the scale on which they are compared.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(k, pairs)`` dissimilarities.
    compare : {"spearman", "pearson", "cosine"}
        The measure.

    Returns
    -------
    numpy.ndarray of float64
        ``(k, pairs)`` rows of unit norm, centred for Spearman (ranks) and Pearson. A row with a missing value, a
        constant row (Spearman, Pearson) and a row of zeros (cosine) are all NaN: they have no score.
    """
    values = np.asarray(vectors, dtype=np.float64)
    whole = ~np.isnan(values).any(axis=1)
    out = np.full(values.shape, np.nan)
    rows = values[whole]
    if not len(rows):
        return out
    if compare == "spearman":
        rows = stats.rankdata(rows, axis=1)
    # Divided by the largest value first: squares of very small or very large dissimilarities leave the number range.
    top = np.abs(rows).max(axis=1, keepdims=True)
    rows = np.divide(rows, top, out=np.zeros_like(rows), where=top > 0)
    scale = np.square(rows).sum(axis=1)
    if compare != "cosine":
        rows = rows - rows.mean(axis=1, keepdims=True)
    squares = np.square(rows).sum(axis=1)
    varies = squares > _CONSTANT**2 * scale
    norm = np.sqrt(np.where(varies, squares, np.nan))
    out[whole] = rows / norm[:, None]
    return out


def scores(models: np.ndarray, data: np.ndarray, compare: Compare) -> np.ndarray:
    """Compare every model with every subject.

    Parameters
    ----------
    models : numpy.ndarray
        ``(models, pairs)`` dissimilarities.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    compare : {"spearman", "pearson", "cosine"}
        The measure.

    Returns
    -------
    numpy.ndarray of float64
        ``(models, subjects)``; NaN where a side has no score (see `prepared`).
    """
    with np.errstate(invalid="ignore"):
        return np.clip(prepared(models, compare) @ prepared(data, compare).T, -1.0, 1.0)


def ceilings(data: np.ndarray, compare: Compare) -> tuple[np.ndarray, np.ndarray]:
    """Bound what any model can score with each subject.

    The upper bound compares a subject with the RDM that scores best over all subjects; the lower bound with the same
    made from the other subjects. That best RDM is the mean of the unit-norm RDMs for cosine, of the z-scored RDMs for
    Pearson, and the ranks of the mean of the ranks for Spearman (not the ranks of the mean RDM).

    Parameters
    ----------
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities without missing values.
    compare : {"spearman", "pearson", "cosine"}
        The measure.

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper ceiling of each subject, ``(subjects,)``. All NaN for a single subject: it has no others to be
        predicted from, and predicts itself perfectly.

    References
    ----------
    Nili et al. (2014), A toolbox for representational similarity analysis, PLoS Computational Biology 10.
    """
    n_subjects = len(data)
    if n_subjects < 2:
        nothing = np.full(n_subjects, np.nan)
        return nothing, nothing.copy()
    unit = prepared(data, compare)
    if compare == "spearman":
        # Twice the mid-ranks are whole numbers, so that sums over subjects tie exactly where they should.
        ranks = np.rint(2 * stats.rankdata(np.asarray(data, dtype=np.float64), axis=1))
        total = ranks.sum(axis=0)
        upper = unit @ prepared(total[None], compare)[0]
        lower = np.array([unit[s] @ prepared((total - ranks[s])[None], compare)[0] for s in range(n_subjects)])
        return lower, upper
    similar = unit @ unit.T
    together = similar.sum(axis=1)
    own = np.diagonal(similar)
    with np.errstate(invalid="ignore", divide="ignore"):
        upper = together / np.sqrt(similar.sum())
        lower = (together - own) / np.sqrt(similar.sum() - 2 * together + own)
    return lower, upper


def resampled_scores(models: np.ndarray, data: np.ndarray, weights: np.ndarray, compare: Compare) -> np.ndarray:
    """Compare every model with every subject on bootstrap draws of the stimuli.

    Parameters
    ----------
    models : numpy.ndarray
        ``(models, pairs)`` dissimilarities.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    weights : numpy.ndarray of int
        ``(draws, stimuli)`` multiplicities of the stimuli. A pair i < j counts ``w_i * w_j`` times; copies never pair.
    compare : {"spearman", "pearson", "cosine"}
        The measure.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws, models, subjects)``; NaN where a draw leaves no score: fewer than three distinct stimuli, or a model
        or subject whose drawn dissimilarities are all equal.
    """
    n = weights.shape[1]
    row, column = np.triu_indices(n, 1)
    out = np.full((len(weights), len(models), len(data)), np.nan)
    usable = ~np.isnan(models).any(axis=1)
    if usable.any():
        function = _resampled_ranks if compare == "spearman" else _resampled_moments
        for start, stop in spans(len(weights), _DRAW_BLOCK):
            draws = function(models[usable], data, weights[start:stop], row, column, compare)
            draws[np.count_nonzero(weights[start:stop], axis=1) < 3] = np.nan
            out[start:stop, usable] = draws
    return out


def _resampled_moments(
    models: np.ndarray, data: np.ndarray, weights: np.ndarray, row: np.ndarray, column: np.ndarray, compare: Compare
) -> np.ndarray:
    """Pearson and cosine on a block of draws: weighted moments by matrix products, a block of pairs at a time."""
    n_models, n_subjects, n_draws = len(models), len(data), len(weights)
    # Scores keep their value under a change of scale (and, for Pearson, origin); moments of numbers near 1 round less.
    size = np.sqrt(len(row))
    m, d = ((np.nan_to_num(prepared(rdms, compare), nan=0.0) * size) for rdms in (models, data))
    cross = np.zeros((n_models * n_subjects, n_draws))
    square_m, sum_m = np.zeros((2, n_models, n_draws))
    square_d, sum_d = np.zeros((2, n_subjects, n_draws))
    total = np.zeros(n_draws)
    for start, stop in spans(len(row), _PAIR_BLOCK):
        w = pair_weights(weights, row[start:stop], column[start:stop])
        a, b = m[:, start:stop], d[:, start:stop]
        cross += (a[:, None] * b[None]).reshape(n_models * n_subjects, -1) @ w
        square_m += np.square(a) @ w
        square_d += np.square(b) @ w
        if compare == "pearson":
            sum_m += a @ w
            sum_d += b @ w
            total += w.sum(axis=0)
    by_subject = cross.reshape(n_models, n_subjects, n_draws)
    with np.errstate(invalid="ignore", divide="ignore"):
        if compare == "pearson":
            by_subject -= sum_m[:, None] * sum_d[None] / total
            var_m, var_d = square_m - sum_m**2 / total, square_d - sum_d**2 / total
        else:
            var_m, var_d = square_m, square_d
        var_m = np.where(var_m > _CONSTANT * square_m, var_m, np.nan)
        var_d = np.where(var_d > _CONSTANT * square_d, var_d, np.nan)
        result = by_subject / np.sqrt(var_m[:, None] * var_d[None])
    return np.clip(result, -1.0, 1.0).transpose(2, 0, 1)


class _Sorted:
    """One RDM sorted once, from which the mid-ranks of every draw follow by cumulative sums.

    With C the cumulative pair weights in sorted order, an element of a tie group that spans positions lo … hi − 1 has
    the weighted mid-rank (C[lo] + C[hi] + 1) / 2, and C[lo] + C[hi] − C[end] is twice its distance to the mean rank.
    """

    def __init__(self, vector: np.ndarray, index: type) -> None:
        n = len(vector)
        order = np.argsort(vector, kind="stable")
        ordered = vector[order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        group = np.repeat(np.arange(len(first)), np.diff(np.append(first, n)))
        self.order: np.ndarray = order.astype(index)
        self.low: np.ndarray = np.empty(n, dtype=index)
        self.low[order] = first[group]
        self.high: np.ndarray | None = None
        if len(first) < n:
            self.high = np.empty(n, dtype=index)
            self.high[order] = np.append(first[1:], n)[group]

    def ranks(self, w: np.ndarray, total: float, cumulative: np.ndarray, out: np.ndarray) -> None:
        """Write twice the centred mid-ranks of one draw to `out`; `cumulative` is scratch of one element more."""
        np.take(w, self.order, out=out, mode="clip")
        np.cumsum(out, out=cumulative[1:])
        np.take(cumulative, self.low, out=out, mode="clip")
        if self.high is None:  # C[hi] = C[lo] + w where nothing ties
            out *= 2
            out += w
        else:
            out += cumulative[self.high]
        out -= total


def _resampled_ranks(
    models: np.ndarray, data: np.ndarray, weights: np.ndarray, row: np.ndarray, column: np.ndarray, compare: Compare
) -> np.ndarray:
    """Spearman on a block of draws: exact weighted mid-ranks of every RDM, then one small matrix product a draw."""
    pairs, n_models, n_subjects = len(row), len(models), len(data)
    index = np.intp if pairs * (n_models + n_subjects) <= _INDEX_LIMIT else np.int32
    sorted_models = [_Sorted(vector, index) for vector in models]
    sorted_data = [_Sorted(vector, index) for vector in data]
    cumulative = np.zeros(pairs + 1)
    rank_d = np.empty((n_subjects, pairs))
    chunk = max(1, _RANK_BUFFER // pairs)
    rank_m = np.empty((min(chunk, n_models), pairs))
    result = np.full((len(weights), n_models, n_subjects), np.nan)
    for draw, multiplicity in enumerate(weights.astype(np.float64)):
        w = multiplicity[row] * multiplicity[column]
        total = w.sum()
        for s, rdm in enumerate(sorted_data):
            rdm.ranks(w, total, cumulative, rank_d[s])
        weighted = rank_d * w
        var_d = np.einsum("sp,sp->s", weighted, rank_d)
        for start, stop in spans(n_models, chunk):
            block = rank_m[: stop - start]
            for k in range(start, stop):
                sorted_models[k].ranks(w, total, cumulative, block[k - start])
            cross = block @ weighted.T
            np.square(block, out=block)
            norms = np.sqrt((block @ w)[:, None] * var_d)
            np.divide(cross, norms, out=result[draw, start:stop], where=norms > 0)
    return np.clip(result, -1.0, 1.0)


def permuted_scores(models: np.ndarray, data: np.ndarray, permutations: np.ndarray, compare: Compare) -> np.ndarray:
    """Score every model against the subjects' mean after permuting the stimulus labels.

    The same permutation is applied for all models and all subjects. Since every score is a scalar product, the mean
    over subjects is the product with the mean of the normalised subjects, and only that one RDM is permuted.

    Parameters
    ----------
    models : numpy.ndarray
        ``(models, pairs)`` dissimilarities.
    data : numpy.ndarray
        ``(subjects, pairs)`` dissimilarities.
    permutations : numpy.ndarray of int
        ``(permutations, stimuli)``.
    compare : {"spearman", "pearson", "cosine"}
        The measure.

    Returns
    -------
    numpy.ndarray of float64
        ``(models, permutations)`` subject-mean scores; NaN for a model without a score.
    """
    n = permutations.shape[1]
    row, column = np.triu_indices(n, 1)
    mean = prepared(data, compare).mean(axis=0)
    square = np.zeros((n, n))
    square[row, column] = square[column, row] = mean
    unit = prepared(models, compare)
    defined = ~np.isnan(unit).any(axis=1)
    unit = unit[defined]
    out = np.full((len(models), len(permutations)), np.nan)
    flat = square.ravel()
    for start, stop in spans(len(permutations), max(1, min(256, _RANK_BUFFER // len(row)))):
        block = permutations[start:stop]
        shuffled = flat.take(block[:, row] * n + block[:, column])
        out[defined, start:stop] = unit @ shuffled.T
    return out
