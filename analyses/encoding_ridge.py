"""Ridge regression of many neurons from a Gram matrix of stimuli, with a penalty for each neuron.

A linear map from a layer's units X ``(n, p)`` to neurons needs only the inner products K = XXᵀ of the stimuli: with the
eigenvectors V and eigenvalues λ of the centred K of the training stimuli, the prediction for other stimuli is
``ȳ + K* V diag(1 / (λ + α)) Vᵀ (Y − ȳ)``, for every penalty α from one decomposition. The number of units does not
matter any more, and the map is the one that ridge regression on the units themselves finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
    values, vectors = _decompose(centre(gram, train, train))
    weights = vectors.T @ (responses[train] - mean)
    baseline = np.full(responses.shape[1], np.nan)
    if len(penalties) > 1:
        place = np.full(len(gram), -1, dtype=np.int64)
        place[train] = np.arange(len(train))
        errors = _left_out_errors(values, vectors, weights, penalties, [place[fold] for fold in inner])
        baseline = _errors_of_the_mean(responses, train, inner)
        chosen = len(penalties) - 1 - np.argmin(errors[::-1], axis=0)  # the larger penalty at a tie
    else:
        errors = np.full((1, responses.shape[1]), np.nan)
        chosen = np.zeros(responses.shape[1], dtype=np.int64)
    coefficients = vectors @ (weights / (values[:, None] + penalties[chosen][None, :]))
    return RidgeFit(mean + centre(gram, train, test) @ coefficients, chosen, errors, baseline)


def _decompose(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of centred products, without the constant direction, which carries the mean."""
    # Moved above all others, the constant vector is split off exactly; left at 0 it would mix with the null space.
    lifted = gram + 2 * max(float(np.trace(gram)), np.finfo(np.float64).tiny) / len(gram)
    values, vectors = np.linalg.eigh(lifted)
    return np.clip(values[:-1], 0, None), vectors[:, :-1]


def _left_out_errors(
    values: np.ndarray, vectors: np.ndarray, weights: np.ndarray, penalties: np.ndarray, folds: Sequence[np.ndarray]
) -> np.ndarray:
    """Mean squared error of every penalty ``(n_penalties, n_neurons)``, over stimuli predicted from other folds."""
    errors = np.zeros((len(penalties), weights.shape[1]))
    for fold in folds:
        rows = vectors[fold]
        for number, penalty in enumerate(penalties):
            shrunk = rows / (values + penalty)
            residual = np.linalg.solve(shrunk @ rows.T, shrunk @ weights)
            errors[number] += np.einsum("ij,ij->j", residual, residual)
    return errors / len(vectors)


def _errors_of_the_mean(responses: np.ndarray, train: np.ndarray, inner: Sequence[np.ndarray]) -> np.ndarray:
    """Mean squared error ``(n_neurons,)`` of predicting each inner fold by the mean of the others."""
    total, error = responses[train].sum(axis=0), np.zeros(responses.shape[1])
    for fold in inner:
        rest = (total - responses[fold].sum(axis=0)) / (len(train) - len(fold))
        error += ((responses[fold] - rest) ** 2).sum(axis=0)
    return error / len(train)
