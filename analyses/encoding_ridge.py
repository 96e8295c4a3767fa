"""Ridge regression of many neurons from a Gram matrix of stimuli, with a penalty for each neuron.

A linear map from a layer's units X ``(n, p)`` to neurons needs only the inner products K = XXᵀ of the stimuli: with the
eigenvectors V and eigenvalues λ of the centred K of the training stimuli, the prediction for other stimuli is
``ȳ + K* V diag(1 / (λ + α)) Vᵀ (Y − ȳ)``, for every penalty α from one decomposition. The number of units does not
matter any more, and the map is the one that ridge regression on the units themselves finds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Half decades around the mean squared length of a training pattern, which penalties are multiples of.
PENALTIES = [float(f"{10.0**k:.6g}") for k in np.arange(-5, 4.25, 0.5)]
# Relative difference in error that does not count at the highest penalty; a tenth of it at the lowest.
_NEAR = 0.01


def ascending(values: list[float]) -> list[float]:
    """Check a grid of penalties, for options models.

    Parameters
    ----------
    values : list of float
        The grid.

    Returns
    -------
    list of float
        The same.

    Raises
    ------
    ValueError
        If one is not positive and finite, or they do not go up.
    """
    if not all(0 < value < np.inf for value in values):
        raise ValueError("penalties are positive and finite")
    if any(b <= a for a, b in pairwise(values)):
        raise ValueError("penalties go up, each one once")
    return values


@dataclass(frozen=True)
class RidgeFit:
    """Held-out predictions of ridge regression.

    Attributes
    ----------
    predicted : numpy.ndarray
        ``(n_test, n_neurons)``, in the unit of the responses.
    chosen : numpy.ndarray of int
        ``(n_neurons,)``, which of the penalties each neuron took.
    errors : numpy.ndarray
        ``(n_penalties, n_neurons)``, mean squared error over the inner held-out stimuli; NaN with a single penalty,
        where there is nothing to choose.
    baseline : numpy.ndarray
        ``(n_neurons,)``, the same error of the mean over the other inner folds, which is the limit of endless penalty.
    """

    predicted: np.ndarray
    chosen: np.ndarray
    errors: np.ndarray
    baseline: np.ndarray


def centre(gram: np.ndarray, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products as they are when the units have the mean 0 over the training stimuli.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(n, n)`` inner products of the stimuli.
    train : numpy.ndarray of int
        The training stimuli.
    rows : numpy.ndarray of int
        The stimuli whose products with the training stimuli are wanted.

    Returns
    -------
    numpy.ndarray
        ``(n_rows, n_train)``; held-out rows are centred by the training mean too.
    """
    part = gram[np.ix_(rows, train)]
    mean = gram[np.ix_(train, train)].mean(axis=0)  # of each training stimulus with the mean pattern
    return part - part.mean(axis=1, keepdims=True) - mean + mean.mean()


def scale_of(gram: np.ndarray, train: np.ndarray) -> float:
    """Mean squared length of the centred training patterns, by which penalties are multiplied.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(n, n)`` inner products of the stimuli.
    train : numpy.ndarray of int
        The training stimuli.

    Returns
    -------
    float
        The mean of the diagonal of the centred products: with it, one grid of penalties suits layers of any width and
        any scale of activation. 0 for a layer that is constant over the training stimuli.
    """
    part = gram[np.ix_(train, train)]
    mean = float(np.trace(part) / len(train) - part.mean())
    # Rounding leaves about this much of a layer that does not change.
    return mean if mean > 1e-14 * float(np.abs(part).max()) * len(train) else 0.0


def ridge(
    gram: np.ndarray,
    responses: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    penalties: np.ndarray,
    inner: Sequence[np.ndarray] = (),
    basis: tuple[np.ndarray, np.ndarray] | None = None,
) -> RidgeFit:
    """Predict held-out responses, each neuron with the penalty that serves it best within the training stimuli.

    The inner cross-validation needs no further decomposition. Leaving out the stimuli h of the training set and fitting
    the rest (intercept included) changes their residuals from r_h to ``(I − H_hh)⁻¹ r_h``, H being the hat matrix of
    the whole training set; with ``G = (K + αI)⁻¹`` both are α times simpler things, ``r = α G (y − ȳ)`` and
    ``I − H = α (G − 11ᵀ/(αn))``, so that α cancels and small penalties lose no digits.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(n, n)`` inner products of the stimuli, in float64; any centring of the units.
    responses : numpy.ndarray
        ``(n, n_neurons)`` responses.
    train, test : numpy.ndarray of int
        Stimuli to learn from, and stimuli held out.
    penalties : numpy.ndarray
        Penalties α, positive, in ascending order, as they are added to the eigenvalues.
    inner : sequence of numpy.ndarray of int
        Stimuli of each inner fold, parts of `train` that together are `train`; needed with two penalties or more.
    basis : tuple of numpy.ndarray, optional
        What :func:`decompose` gives for the centred products of `train`, where it is known from other responses.

    Returns
    -------
    RidgeFit
        Predictions, and what was chosen.

    References
    ----------
    Hoerl & Kennard (1970), Technometrics 12; Saunders, Gammerman & Vovk (1998), Ridge regression learning algorithm in
    dual variables, ICML; leaving blocks out: Cook & Weisberg (1982), Residuals and Influence in Regression, section
    3.2 (for one case, PRESS: Allen 1974, Technometrics 16).
    """
    mean = responses[train].mean(axis=0)
    values, vectors = decompose(centre(gram, train, train)) if basis is None else basis
    weights = vectors.T @ (responses[train] - mean)
    baseline = np.full(responses.shape[1], np.nan)
    if len(penalties) > 1:
        errors = left_out_errors(values, vectors, weights, penalties, places(train, inner))
        baseline = errors_of_the_mean(responses, train, inner)
        chosen = least(errors)
    else:
        errors = np.full((1, responses.shape[1]), np.nan)
        chosen = np.zeros(responses.shape[1], dtype=np.int64)
    coefficients = vectors @ (weights / (values[:, None] + penalties[chosen][None, :]))
    return RidgeFit(mean + centre(gram, train, test) @ coefficients, chosen, errors, baseline)


def decompose(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of centred products, without the constant direction, which carries the mean.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(n_train, n_train)`` centred inner products.

    Returns
    -------
    values : numpy.ndarray
        ``(n_train - 1,)``, not negative, ascending.
    vectors : numpy.ndarray
        ``(n_train, n_train - 1)``.
    """
    # Moved above all others, the constant vector is split off exactly; left at 0 it would mix with the null space.
    lifted = gram + 2 * max(float(np.trace(gram)), np.finfo(np.float64).tiny) / len(gram)
    values, vectors = np.linalg.eigh(lifted)
    return np.clip(values[:-1], 0, None), vectors[:, :-1]


def places(train: np.ndarray, inner: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Where the stimuli of the inner folds stand among the training stimuli.

    Parameters
    ----------
    train : numpy.ndarray of int
        The training stimuli.
    inner : sequence of numpy.ndarray of int
        Parts of them.

    Returns
    -------
    list of numpy.ndarray of int
        Positions in `train`, for each part.
    """
    place = np.full(int(train.max()) + 1, -1, dtype=np.int64)
    place[train] = np.arange(len(train))
    return [place[fold] for fold in inner]


def least(errors: np.ndarray) -> np.ndarray:
    """Choose the penalty with the least error for each neuron, the larger one at a tie.

    Parameters
    ----------
    errors : numpy.ndarray
        ``(n_penalties, n_neurons)``.

    Returns
    -------
    numpy.ndarray of int
        ``(n_neurons,)``.
    """
    return len(errors) - 1 - np.argmin(errors[::-1], axis=0)


def left_out_errors(
    values: np.ndarray, vectors: np.ndarray, weights: np.ndarray, penalties: np.ndarray, folds: Sequence[np.ndarray]
) -> np.ndarray:
    """Mean squared error of every penalty, over stimuli predicted from other folds.

    Parameters
    ----------
    values, vectors : numpy.ndarray
        What :func:`decompose` gives.
    weights : numpy.ndarray
        ``(n_train - 1, n_neurons)`` centred responses in the coordinates of the eigenvectors.
    penalties : numpy.ndarray
        Penalties, as they are added to the eigenvalues.
    folds : sequence of numpy.ndarray of int
        Positions of the stimuli of each inner fold among the training stimuli.

    Returns
    -------
    numpy.ndarray
        ``(n_penalties, n_neurons)``.
    """
    errors = np.zeros((len(penalties), weights.shape[1]))
    for fold in folds:
        rows = vectors[fold]
        for number, penalty in enumerate(penalties):
            shrunk = rows / (values + penalty)
            residual = np.linalg.solve(shrunk @ rows.T, shrunk @ weights)
            errors[number] += np.einsum("ij,ij->j", residual, residual)
    return errors / len(vectors)


def errors_of_the_mean(responses: np.ndarray, train: np.ndarray, inner: Sequence[np.ndarray]) -> np.ndarray:
    """Mean squared error of predicting each inner fold by the mean of the others.

    Parameters
    ----------
    responses : numpy.ndarray
        ``(n, n_neurons)`` responses.
    train : numpy.ndarray of int
        The training stimuli.
    inner : sequence of numpy.ndarray of int
        Parts of them.

    Returns
    -------
    numpy.ndarray
        ``(n_neurons,)``.
    """
    total, error = responses[train].sum(axis=0), np.zeros(responses.shape[1])
    for fold in inner:
        rest = (total - responses[fold].sum(axis=0)) / (len(train) - len(fold))
        error += ((responses[fold] - rest) ** 2).sum(axis=0)
    return error / len(train)


def at_edges(chosen: np.ndarray, errors: np.ndarray, baseline: np.ndarray, varies: np.ndarray) -> tuple[int, int]:
    """Count neurons at the lowest and at the highest penalty for whom a wider grid may hold a better one.

    Parameters
    ----------
    chosen : numpy.ndarray of int
        ``(n_neurons,)`` chosen penalties.
    errors : numpy.ndarray
        ``(n_penalties, n_neurons)`` inner errors.
    baseline : numpy.ndarray
        ``(n_neurons,)`` inner errors of the mean.
    varies : numpy.ndarray of bool
        ``(n_neurons,)`` whether the neuron varies over the training stimuli.

    Returns
    -------
    tuple of int
        Neurons at the lowest and at the highest penalty, but for those whose errors have levelled off there.
    """
    if len(errors) < 2:
        return 0, 0
    # A neuron that nothing predicts wants endless penalty: at the mean's error, more of it changes nothing. Towards no
    # penalty errors level off too; where the whole grid is too high, a step makes most of the gain on the mean instead.
    as_mean = np.abs(errors[-1] - baseline) <= _NEAR * baseline
    step = errors[1] - errors[0]
    level = (step <= 0.1 * _NEAR * errors[1]) & (step <= 0.1 * (baseline - errors[0]))
    low, high = varies & (chosen == 0) & ~level, varies & (chosen == len(errors) - 1) & ~as_mean
    return int(low.sum()), int(high.sum())


def warn_edges(low: int, high: int, choices: int, of: str, penalties: Sequence[float], stacklevel: int = 4) -> None:
    """Say when the grid of penalties may have been too narrow.

    Parameters
    ----------
    low, high : int
        Choices at the lowest and at the highest penalty, as :func:`at_edges` counts them.
    choices : int
        All choices.
    of : str
        What there is a choice for.
    penalties : sequence of float
        The grid.
    stacklevel : int
        Calls between the warning and the user's line.

    Warns
    -----
    UserWarning
        If there are any at the edges.
    """
    if low + high:
        warnings.warn(
            f"of {choices} choices of a penalty ({of}), {low} took the lowest of the grid "
            f"({penalties[0]:g}) and {high} the highest ({penalties[-1]:g}), so better ones may lie "
            "outside; widen penalties=",
            stacklevel=stacklevel,
        )
