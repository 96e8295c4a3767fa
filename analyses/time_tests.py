"""Maximum-statistic tests of scores over models and time bins: sign flips of subjects, permutations of stimulus labels.

Two tests, because there are two questions, each with a null of its own:

- *Sign flips* ask about new subjects. Null: in the population of subjects, with these stimuli and models, every score
  is distributed symmetrically around 0. Then a subject's whole course of scores could as well have the other sign.
- *Label permutations* ask whether data and models agree about these stimuli. Null: which stimulus is which is
  exchangeable, in all subjects and bins at once. Then any relabelling of the model's stimuli is as good as the true
  one.

Both compare a score with the largest score of its family (models × time bins) under the null, which bounds the chance
of any false positive in the family, whatever the dependence between bins and models.

References
----------
Nichols & Holmes (2002), Nonparametric permutation tests for functional neuroimaging, Human Brain Mapping 15.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from actkit.analyses.comparison import Compare, permuted_scores, prepared
from actkit.analyses.measures import KENDALL, WHITENED, stimuli_of
from actkit.compute import progress as progress_bar
from actkit.compute import spans
from actkit.resampling import Stream, generator, permutations
from actkit.statistics import MaximumStatistic

_BLOCK = 500  # flips or permutations at a time; fixed, so that results do not depend on the machine
_SHUFFLED_VALUES = 8_000_000  # of permuted RDMs at a time, 64 MB
# Bootstrap draws of subjects number their streams from 0 and never get here.
_FLIPS = 2**63
_STREAM = 256  # flips that share a stream


def sign_flips(n_subjects: int, count: int, seed: int) -> tuple[np.ndarray, bool]:
    """List signs for the subjects: all combinations where they are few, random ones otherwise.

    Parameters
    ----------
    n_subjects : int
        Number of subjects.
    count : int
        Most combinations.
    seed : int
        Seed of the random ones.

    Returns
    -------
    signs : numpy.ndarray of float64
        ``(flips, subjects)`` of 1 and -1; row 0 is the observed one, all 1.
    exact : bool
        Whether all 2**subjects combinations are there, each once.
    """
    if n_subjects < 63 and 2**n_subjects <= count:
        numbers = np.arange(2**n_subjects)
        return 1.0 - 2.0 * ((numbers[:, None] >> np.arange(n_subjects)) & 1), True
    signs = np.ones((count, n_subjects))
    for start, stop in spans(count, _STREAM):  # a stream for each block: fewer flips are the first ones of more
        drawn = generator(seed, _FLIPS + start // _STREAM, Stream.SUBJECTS).integers(0, 2, size=(_STREAM, n_subjects))
        signs[start:stop] -= 2.0 * drawn[: stop - start]
    signs[0] = 1.0
    return signs, False


def flip_test(scores: np.ndarray, family: np.ndarray, n_flips: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Test the mean over subjects of every score against 0, one-sided, by flipping the signs of whole subjects.

    The statistic is t, so that a bin with noisy scores does not set the bar for the others. With q the sum of a
    score's squares, which no flip changes, t is an increasing function of sum / sqrt(q), the same one for all scores;
    so that is what is compared.

    Parameters
    ----------
    scores : numpy.ndarray
        ``(models, subjects, times)``; NaN in a subject leaves that model and bin undefined.
    family : numpy.ndarray
        ``(models,)`` name of the family of each model; all its bins belong to it.
    n_flips : int
        Most sign combinations, the observed one included; all of them where 2**subjects is no more.
    seed : int
        Seed of random combinations.

    Returns
    -------
    corrected, uncorrected : numpy.ndarray
        ``(models, times)`` p-values; NaN where a score is undefined, and throughout for a single subject.
    count : int
        Number of combinations used. No p-value can be below 1 / count.
    """
    n_models, n_subjects, n_times = scores.shape
    if n_subjects < 2 or n_flips < 1:
        nothing = np.full((n_models, n_times), np.nan)
        return nothing, nothing.copy(), 0
    values = scores.transpose(1, 0, 2).reshape(n_subjects, -1)
    length = np.sqrt(np.square(values).sum(axis=0))
    unit = np.divide(values, length, out=np.where(np.isnan(values), np.nan, 0.0), where=length > 0)
    unit[:, np.isnan(length)] = np.nan
    test = MaximumStatistic(unit.sum(axis=0), np.repeat(family, n_times))
    signs, _ = sign_flips(n_subjects, n_flips, seed)
    for start, stop in spans(len(signs), _BLOCK):
        test.add((signs[start:stop] @ unit).T)
    corrected, alone = test.p_values()
    return corrected.reshape(n_models, n_times), alone.reshape(n_models, n_times), test.count


def label_test(
    models: np.ndarray,
    data: np.ndarray,
    mean: np.ndarray,
    family: np.ndarray,
    n_permutations: int,
    seed: int,
    compare: Compare,
    progress: bool | None = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Test the subject-mean scores, one-sided, by permuting the stimulus labels.

    Each permutation is applied to all subjects, bins and models at once, so that their dependence stays.

    Parameters
    ----------
    models : numpy.ndarray
        ``(models, 1 or times, pairs)`` dissimilarities.
    data : numpy.ndarray
        ``(subjects, times, pairs)`` dissimilarities.
    mean : numpy.ndarray
        ``(models, times)`` observed subject-mean scores.
    family : numpy.ndarray
        ``(models,)`` name of the family of each model; all its bins belong to it.
    n_permutations : int
        Number of permutations, the observed labelling included; 0: no test.
    seed : int
        Seed of the permutations.
    compare : str
        The measure.
    progress : bool, optional
        Show a bar over the blocks.

    Returns
    -------
    corrected, uncorrected : numpy.ndarray
        ``(models, times)`` p-values; NaN where a score is undefined.
    """
    n_models, n_times = mean.shape
    n_stimuli = stimuli_of(data.shape[-1])
    test = MaximumStatistic(mean.ravel(), np.repeat(family, n_times))
    permuted = _Permuted(models, data, compare)
    blocks = list(spans(n_permutations, _BLOCK))
    for start, stop in progress_bar(blocks, desc="permutations", unit="block", enabled=progress):
        scores = permuted.scores(permutations(n_stimuli, stop - start, seed, start))
        test.add(scores.reshape(n_models * n_times, -1))
    corrected, alone = test.p_values()
    return corrected.reshape(mean.shape), alone.reshape(mean.shape)


class _Permuted:
    """Subject-mean scores of every model in every bin on permuted labels.

    Where a score is a scalar product of transformed RDMs, the mean over subjects is the product with the subjects'
    mean, and permuting the stimuli of one side permutes its transform. So the side with fewer RDMs is permuted: usually
    the models, of which there are fewer than bins. Kendall's tau has no such form, and is computed bin by bin.
    """

    def __init__(self, models: np.ndarray, data: np.ndarray, compare: Compare) -> None:
        self.models, self.data, self.compare = models, data, compare
        self.n_times = data.shape[1]
        if compare in KENDALL:
            return
        self.left = np.stack([_transformed(m, compare) for m in models])  # (models, 1 or times, pairs)
        right = np.stack([_transformed(subject, compare, dual=True) for subject in data])
        self.right = right.mean(axis=0)  # (times, pairs)
        self.known = ~np.isnan(self.left).any(axis=2)
        self.left = np.nan_to_num(self.left, nan=0.0)

    def scores(self, orders: np.ndarray) -> np.ndarray:
        """``(models, times, permutations)`` for a block of permutations."""
        if self.compare in KENDALL:
            return self._by_bin(orders)
        out = np.empty((len(self.left), self.n_times, len(orders)))
        moving = self.left.shape[1] > 1
        # (P left) · right = left · (P⁻¹ right): permuting the models needs the inverse order.
        fewer_models = not moving and len(self.left) <= self.n_times
        source = self.left[:, 0] if fewer_models else self.right
        used = np.argsort(orders, axis=1) if fewer_models else orders
        step = max(1, _SHUFFLED_VALUES // source.size)
        for start, stop in spans(len(orders), step):
            shuffled = _shuffle(source, used[start:stop])  # (rdms, permutations, pairs)
            if fewer_models:
                out[:, :, start:stop] = np.einsum("kfp,tp->ktf", shuffled, self.right, optimize=True)
            elif moving:
                out[:, :, start:stop] = np.einsum("ktp,tfp->ktf", self.left, shuffled, optimize=True)
            else:
                out[:, :, start:stop] = np.einsum("kp,tfp->ktf", self.left[:, 0], shuffled, optimize=True)
        out[~np.broadcast_to(self.known, out.shape[:2])] = np.nan
        return out

    def _by_bin(self, orders: np.ndarray) -> np.ndarray:
        bins: Iterator[np.ndarray] = (
            permuted_scores(self.models[:, min(t, self.models.shape[1] - 1)], self.data[:, t], orders, self.compare)
            for t in range(self.n_times)
        )
        return np.stack(list(bins), axis=1)


def _shuffle(vectors: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Reorder the stimuli of RDM vectors: ``(rdms, permutations, pairs)``."""
    n = orders.shape[1]
    row, column = np.triu_indices(n, 1)
    where = np.zeros((n, n), dtype=np.intp)
    where[row, column] = where[column, row] = np.arange(len(row))
    positions = where.ravel().take(orders[:, row] * n + orders[:, column])
    return np.take(vectors, positions, axis=1)


def _transformed(vectors: np.ndarray, compare: Compare, dual: bool = False) -> np.ndarray:
    """RDM vectors whose scalar products are the scores; NaN rows where an RDM has none.

    For the whitened measures one side is multiplied by the inverse covariance (`dual`) and both are divided by their
    length in that metric. In it, with r the row sums of an RDM of n stimuli and e its additive row and column effect,
    (n/2) e_i + Σ e / 2 = r_i, the dual of a vector d_ij is d_ij / 2 − (e_i + e_j) / 4 (Diedrichsen et al. 2021).
    """
    unit = prepared(vectors, compare)
    if compare == "rho-a":
        n = vectors.shape[1]
        ranks = prepared(vectors, "spearman")
        length = np.sqrt([_rank_variation(row) for row in vectors])
        return ranks * (length * np.sqrt(12 / (n**3 - n)))[:, None]
    if compare not in WHITENED:
        return unit
    n = stimuli_of(vectors.shape[1])
    row, column = np.triu_indices(n, 1)
    square = np.zeros((len(unit), n, n))
    square[:, row, column] = square[:, column, row] = unit
    sums = square.sum(axis=2)
    effect = (sums - sums.mean(axis=1, keepdims=True) / 2) / (n / 2)
    duals = unit / 2 - (effect[:, row] + effect[:, column]) / 4
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.sqrt(np.einsum("kp,kp->k", unit, duals))
        return (duals if dual else unit) / np.where(length > 0, length, np.nan)[:, None]


def _rank_variation(vector: np.ndarray) -> float:
    """Sum of squared centred mid-ranks: (N³ − N − Σ (t³ − t)) / 12 over ties of t."""
    n = len(vector)
    ties = np.unique(vector, return_counts=True)[1].astype(np.float64)
    return float((n**3 - n - (ties**3 - ties).sum()) / 12)
