"""The measures that compare RDMs, by their plain definitions, on one weighted set of pairs.

Pearson, cosine, Spearman, rho-a and the whitened measures are scalar products of transformed vectors: a bilinear form
``F(a, b)``, normalised by ``sqrt(F(a, a) F(b, b))`` (by a constant for rho-a). Kendall's two count the concordant
and discordant pairs of pairs. Stimuli carry multiplicities w; a pair i < j counts ``w_i * w_j`` times.

The functions here work on one draw at a time and keep full accuracy whatever the values. :mod:`.moments` and
:mod:`.rank_kernels` compute the same for many draws at once.

References
----------
Nili et al. (2014), A toolbox for representational similarity analysis, PLoS Computational Biology 10 (tau-a, ceilings).
Schütt et al. (2023), Statistical inference on representational geometries, eLife 12 (rho-a, the bootstrap).
Diedrichsen et al. (2021), Comparing representational geometries using whitened unbiased-distance-matrix similarity,
Neurons, Behavior, Data analysis, and Theory 5 (whitened measures).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from scipy import stats

from actkit.errors import InputError

Compare = Literal["spearman", "pearson", "cosine", "rho-a", "tau-a", "tau-b", "whitened-pearson", "whitened-cosine"]

MEASURES: tuple[str, ...] = get_args(Compare)
LINEAR = ("pearson", "cosine", "whitened-pearson", "whitened-cosine")
RANKED = ("spearman", "rho-a")
KENDALL = ("tau-a", "tau-b")
CENTRED = ("pearson", "whitened-pearson", *RANKED)
WHITENED = ("whitened-pearson", "whitened-cosine")

# A variance below this share of the second moment is rounding: the vector is constant.
CONSTANT = 1e-24


def check_measure(compare: str, without: tuple[str, ...] = ()) -> None:
    """Refuse an unknown measure, and those that a computation cannot serve.

    Parameters
    ----------
    compare : str
        Name of the measure.
    without : tuple of str
        Measures that do not apply.

    Raises
    ------
    InputError
        Naming the measures to choose from.
    """
    allowed = [name for name in MEASURES if name not in without]
    if compare in without:
        raise InputError(
            f"{compare!r} is no scalar product of RDMs, so it has no bilinear form; choose one of {', '.join(allowed)}"
        )
    if compare not in MEASURES:
        raise InputError(f"the measure {compare!r} does not exist; choose one of {', '.join(allowed)}")


def stimuli_of(pairs: int) -> int:
    """Number of stimuli n of RDM vectors with n(n - 1)/2 pairs.

    Parameters
    ----------
    pairs : int
        Length of the vectors.

    Returns
    -------
    int
        n.

    Raises
    ------
    InputError
        If no number of stimuli has that many pairs.
    """
    n = round((1 + np.sqrt(1 + 8 * pairs)) / 2)
    if n * (n - 1) // 2 != pairs:
        raise InputError(f"RDM vectors of {pairs} pairs belong to no number of stimuli; give n(n - 1)/2 values each")
    return n


def prepared(vectors: np.ndarray, compare: Compare) -> np.ndarray:
    """Bring RDM vectors to the scale on which they are compared.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(k, pairs)`` dissimilarities.
    compare : str
        The measure. For the whitened measures the vectors are only scaled (and centred for whitened Pearson): their
        metric is applied in the form.

    Returns
    -------
    numpy.ndarray of float64
        ``(k, pairs)`` rows of unit norm, of ranks for the rank measures, centred for all but the cosines. A row with a
        missing value, a constant row and, for the cosines, a row of zeros are all NaN: they have no score.
    """
    values = np.asarray(vectors, dtype=np.float64)
    whole = np.isfinite(values).all(axis=1)
    out = np.full(values.shape, np.nan)
    rows = values[whole]
    if not len(rows):
        return out
    if compare in RANKED or compare in KENDALL:
        rows = stats.rankdata(rows, axis=1)
    # Divided by the largest value first: squares of very small or very large dissimilarities leave the number range.
    top = np.abs(rows).max(axis=1, keepdims=True)
    rows = np.divide(rows, top, out=np.zeros_like(rows), where=top > 0)
    scale = np.square(rows).sum(axis=1)
    if compare not in ("cosine", "whitened-cosine"):
        rows = rows - rows.mean(axis=1, keepdims=True)
    squares = np.square(rows).sum(axis=1)
    norm = np.sqrt(np.where(squares > CONSTANT * scale, squares, np.nan))
    out[whole] = rows / norm[:, None]
    return out


def doubled_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank values that count several times each: twice the centred mid-ranks, which are whole numbers.

    With C the cumulative weights in ascending order, all elements of a tie group that spans C = low … high have the
    mid-rank (low + high + 1) / 2 among the N = sum of weights values, whose mean rank is (N + 1) / 2.

    Parameters
    ----------
    values : numpy.ndarray
        ``(k, m)``.
    weights : numpy.ndarray of int
        ``(m,)`` multiplicities.

    Returns
    -------
    numpy.ndarray of float64
        ``(k, m)``: low + high − N for each element.
    """
    out = np.empty(values.shape)
    for row, vector in zip(out, values, strict=True):
        order = np.argsort(vector, kind="stable")
        ordered = vector[order]
        cumulative = np.concatenate([[0.0], np.cumsum(weights[order])])
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        stop = np.append(first[1:], len(ordered))
        row[order] = np.repeat(cumulative[first] + cumulative[stop] - cumulative[-1], stop - first)
    return out


class Draw:
    """The pairs that one set of stimulus multiplicities leaves.

    Parameters
    ----------
    multiplicity : numpy.ndarray of int
        ``(stimuli,)``.

    Attributes
    ----------
    pairs : numpy.ndarray of int
        Positions in an RDM vector of the pairs with weight.
    weights : numpy.ndarray of float64
        Their weights.
    n_stimuli : int
        Number of distinct stimuli; below three nothing is compared.
    """

    def __init__(self, multiplicity: np.ndarray) -> None:
        n = len(multiplicity)
        taken = np.flatnonzero(multiplicity)
        self.n_stimuli = len(taken)
        self.multiplicity = multiplicity[taken].astype(np.float64)
        i, j = np.triu_indices(len(taken), 1)
        self._i, self._j = i, j
        a, b = taken[i], taken[j]
        self.pairs = a * (2 * n - a - 1) // 2 + b - a - 1
        self.weights = self.multiplicity[i] * self.multiplicity[j]

    @property
    def total(self) -> float:
        """Number of pairs, copies counted."""
        return float(self.weights.sum())

    def form(self, vectors: np.ndarray, compare: Compare) -> np.ndarray:
        """Bilinear form of RDM vectors on these pairs.

        Parameters
        ----------
        vectors : numpy.ndarray
            ``(v, pairs of all stimuli)``.
        compare : str
            A measure that has a form.

        Returns
        -------
        numpy.ndarray of float64
            ``(v, v)``; rows and columns of a vector that is constant (zero, for the cosines) on these pairs are zero
            on the diagonal and carry rounding elsewhere.
        """
        x = vectors[:, self.pairs]
        if compare in RANKED:
            x = doubled_ranks(x, self.weights) / 2
        if compare in ("pearson", "whitened-pearson"):
            raw = np.square(x) @ self.weights
            x = x - x[:, :1]  # near values lose less
            x = x - (x @ self.weights / self.total)[:, None]
            x[np.square(x) @ self.weights <= CONSTANT * raw] = 0
        out = (x * self.weights) @ x.T
        return self._whitened(x, out) if compare in WHITENED else out

    def _whitened(self, x: np.ndarray, products: np.ndarray) -> np.ndarray:
        """Form in the metric of the inverse covariance of squared distances between patterns with white noise.

        The RDM, zeros on its diagonal, is doubly centred by least squares: an additive row and column effect y is
        fitted to the pairs that exist, and what it leaves is compared. With r the row sums, the normal equations are
        (n/2 + 1 - w_i) y_i + sum_j w_j y_j / 2 = r_i.
        """
        w = self.multiplicity
        rows = np.zeros((len(x), len(w)))
        for k, vector in enumerate(x):
            rows[k] = np.bincount(self._i, vector * w[self._j], len(w)) + np.bincount(
                self._j, vector * w[self._i], len(w)
            )
        normal = np.diag(w.sum() / 2 + 1 - w) + w / 2
        effect = np.linalg.solve(normal, rows.T)
        out = products / 2 - (rows * w) @ effect / 4
        return (out + out.T) / 2

    def kendall(self, first: np.ndarray, second: np.ndarray, compare: Compare) -> np.ndarray:
        """Kendall's tau of every pair of vectors, by counting all pairs of pairs.

        Parameters
        ----------
        first, second : numpy.ndarray
            ``(a, pairs)`` and ``(b, pairs)``.
        compare : {"tau-a", "tau-b"}
            Concordant minus discordant over all pairs, or over the geometric mean of those not tied on each side.

        Returns
        -------
        numpy.ndarray of float64
            ``(a, b)``.
        """
        x, y = first[:, self.pairs], second[:, self.pairs]
        difference = np.zeros((len(x), len(y)))
        untied_x, untied_y = np.zeros(len(x)), np.zeros(len(y))
        for at, weight in enumerate(self.weights):
            later = self.weights[at + 1 :] * weight
            sign_x = np.sign(x[:, at + 1 :] - x[:, at : at + 1])
            sign_y = np.sign(y[:, at + 1 :] - y[:, at : at + 1])
            difference += (sign_x * later) @ sign_y.T
            untied_x += np.abs(sign_x) @ later
            untied_y += np.abs(sign_y) @ later
        with np.errstate(invalid="ignore", divide="ignore"):
            if compare == "tau-a":
                out = difference / (self.total * (self.total - 1) / 2)
                out[untied_x == 0] = np.nan
                out[:, untied_y == 0] = np.nan
                return out
            return difference / np.sqrt(np.outer(untied_x, untied_y))


def whitened_duals(vectors: np.ndarray) -> np.ndarray:
    """Vectors whose plain products with other RDMs are the whitened forms, on all stimuli once.

    Parameters
    ----------
    vectors : numpy.ndarray
        ``(v, pairs)``.

    Returns
    -------
    numpy.ndarray of float64
        ``(v, pairs)``: x/2 - (y_i + y_j)/4 with the row and column effects y of each RDM x.
    """
    n = stimuli_of(vectors.shape[1])
    i, j = np.triu_indices(n, 1)
    rows = np.stack([np.bincount(i, x, n) + np.bincount(j, x, n) for x in vectors])
    effect = (rows - rows.sum(axis=1, keepdims=True) / (2 * n)) * (2 / n)
    return vectors / 2 - (effect[:, i] + effect[:, j]) / 4


def normalised(
    cross: np.ndarray, first: np.ndarray, second: np.ndarray, compare: Compare, total: np.ndarray | float
) -> np.ndarray:
    """Turn forms into scores.

    Parameters
    ----------
    cross : numpy.ndarray
        ``(…, a, b)`` form of each of a vectors with each of b.
    first, second : numpy.ndarray
        ``(…, a)`` and ``(…, b)`` forms of each vector with itself.
    compare : str
        A measure with a form.
    total : numpy.ndarray or float
        ``(…)`` number of pairs N, copies counted; rho-a divides by (N³ − N) / 12.

    Returns
    -------
    numpy.ndarray of float64
        ``(…, a, b)`` in -1 … 1; NaN where a vector has no length.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt(first)[..., :, None] * np.sqrt(second)[..., None, :]
        lengths = np.where(lengths > 0, lengths, np.nan)
        if compare == "rho-a":
            n = np.asarray(total, dtype=np.float64)[..., None, None]
            return np.where(np.isnan(lengths), np.nan, np.clip(cross * (12 / (n**3 - n)), -1.0, 1.0))
        return np.clip(cross / lengths, -1.0, 1.0)


def agreement(similar: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ceilings of measures that are scalar products, from the similarities of the subjects with one another.

    The RDM that scores best with subjects of multiplicities u is the u-weighted mean of their vectors, each of unit
    length in the measure's metric. With R the similarities, subject s scores (R u)_s / sqrt(uᵀ R u) with it, and the
    same with u_s = 0 where it is left out with all its copies.

    Parameters
    ----------
    similar : numpy.ndarray
        ``(…, subjects, subjects)``.
    people : numpy.ndarray
        ``(…, subjects)`` multiplicities.

    Returns
    -------
    tuple of numpy.ndarray
        Lower and upper ceiling of each subject, ``(…, subjects)``; NaN for subjects that are not drawn, for all where a
        drawn subject has no score, and for all where a single distinct subject is drawn.
    """
    u = np.asarray(people, dtype=np.float64)
    own = np.diagonal(similar, axis1=-2, axis2=-1)
    lost = (np.isnan(own) & (u > 0)).any(axis=-1)
    if np.isnan(own).any():
        similar = np.nan_to_num(similar, nan=0.0)
        own = np.nan_to_num(own, nan=0.0)
    together = np.einsum("...st,...t->...s", similar, u)
    length = np.einsum("...s,...s->...", together, u)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        upper = together / np.sqrt(length)
        lower = (together - u * own) / np.sqrt(length - 2 * u * together + u * u * own)
    gone = (u == 0) | lost[..., None] | (np.count_nonzero(u, axis=-1) < 2)[..., None]
    return tuple(np.where(gone | ~np.isfinite(x), np.nan, np.clip(x, -1.0, 1.0)) for x in (lower, upper))  # type: ignore[return-value]


def over_drawn(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Mean over the distinct subjects that are drawn.

    Parameters
    ----------
    values : numpy.ndarray
        ``(…, subjects)``; only drawn subjects count.
    people : numpy.ndarray
        ``(…, subjects)`` multiplicities.

    Returns
    -------
    numpy.ndarray of float64
        ``(…)``.
    """
    drawn = np.asarray(people) > 0
    with np.errstate(invalid="ignore"):
        return np.where(drawn, values, 0.0).sum(axis=-1) / np.count_nonzero(drawn, axis=-1)
