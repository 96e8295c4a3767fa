"""Partial least squares regression of many neurons from a Gram matrix of stimuli.

PLS looks for directions in the space of units whose scores covary most with the neurons. Every such direction is a
combination of training patterns, w = Xᵀu, so that scores, deflation and predictions need only K = XXᵀ ``(n, n)``,
computed once for all components, splits and neurons. The leading singular vector of XᵀY is taken from the exact
eigenvectors of a neurons × neurons matrix: no inner iteration has to converge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actkit.analyses.encoding_ridge import centre

# A component whose covariance with the responses, relative to the first one's, falls below this is rounding error.
_LEAST = 1e-13


@dataclass(frozen=True)
class PLSFit:
    """Held-out predictions of partial least squares.

    Attributes
    ----------
    predicted : numpy.ndarray
        ``(n_test, n_neurons)``, in the unit of the responses.
    n_components : int
        Components in use: fewer than asked for where units and responses share no more.
    """

    predicted: np.ndarray
    n_components: int


@dataclass(frozen=True)
class PLSPath:
    """Held-out predictions with several numbers of components.

    Attributes
    ----------
    predicted : numpy.ndarray
        ``(n_counts, n_test, n_neurons)``.
    n_components : numpy.ndarray of int
        ``(n_counts,)`` components in use.
    """

    predicted: np.ndarray
    n_components: np.ndarray


def pls(gram: np.ndarray, responses: np.ndarray, train: np.ndarray, test: np.ndarray, components: int) -> PLSFit:
    """Predict held-out responses by PLS2 regression; units are centred and not scaled.

    With F the deflated responses, each component takes the leading eigenvector v of FᵀKF, u = Fv, the score
    t = Ku / |Ku|, and removes t from F and from both sides of K. The coefficients are ``U (TᵀKU)⁻¹ TᵀY`` with the K of
    the start. Here KF is kept instead of K, so that a component costs two products of K with one vector and one of
    neurons × neurons.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(n, n)`` inner products of the stimuli, in float64; any centring of the units.
    responses : numpy.ndarray
        ``(n, n_neurons)`` responses.
    train, test : numpy.ndarray of int
        Stimuli to learn from, and stimuli held out.
    components : int
        Components to extract, at most.

    Returns
    -------
    PLSFit
        Predictions, as those of ``sklearn.cross_decomposition.PLSRegression(components, scale=False)`` once its inner
        iteration has converged (its default tolerance stops earlier).

    References
    ----------
    Rännar, Lindgren, Geladi & Wold (1994), A PLS kernel algorithm for data sets with many variables and fewer objects,
    J. Chemometrics 8; Rosipal & Trejo (2001), JMLR 2 (coefficients).
    """
    path = pls_path(gram, responses, train, test, [components])
    return PLSFit(path.predicted[0], int(path.n_components[0]))


def pls_path(
    gram: np.ndarray, responses: np.ndarray, train: np.ndarray, test: np.ndarray, counts: Sequence[int]
) -> PLSPath:
    """Predict held-out responses by PLS2 with several numbers of components, from one extraction.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(n, n)`` inner products of the stimuli, in float64; any centring of the units.
    responses : numpy.ndarray
        ``(n, n_neurons)`` responses.
    train, test : numpy.ndarray of int
        Stimuli to learn from, and stimuli held out.
    counts : sequence of int
        Numbers of components.

    Returns
    -------
    PLSPath
        For each of the counts what :func:`pls` gives.
    """
    mean = responses[train].mean(axis=0)
    centred = responses[train] - mean
    components = max(counts)
    first = centre(gram, train, train)
    left = centred
    if centred.shape[1] > len(train):  # as few columns as the responses have dimensions: PLS ignores rotations of them
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        left = u * s
    product = first @ left
    scores = np.zeros((len(train), components))
    weights = np.zeros((len(train), components))
    beginning = 0.0
    done = 0
    for number in range(min(components, len(train) - 1)):
        share, direction = _leading(left.T @ product)
        beginning = max(beginning, share)
        if not share > _LEAST * beginning:
            break
        score = product @ direction
        before = scores[:, :number]
        score -= before @ (before.T @ score)  # orthogonal by construction; rounding adds up over components
        score /= np.linalg.norm(score)
        scores[:, number], weights[:, number] = score, left @ direction
        done = number + 1
        # K_a t with K deflated by all earlier scores, without forming K_a.
        image = first @ score
        image -= before @ (before.T @ image)
        loading = score @ left
        left = left - np.outer(score, loading)
        product = product - np.outer(image, loading)
        product -= np.outer(score, score @ product)
    predicted = np.tile(mean, (len(counts), len(test), 1))
    used = np.minimum(counts, done)
    if done:
        t, u = scores[:, :done], weights[:, :done]
        inner, right, left_out = t.T @ first @ u, t.T @ centred, centre(gram, train, test) @ u
        for number, k in enumerate(used.tolist()):
            predicted[number] += left_out[:, :k] @ np.linalg.solve(inner[:k, :k], right[:k])
    return PLSPath(predicted, used)


def _leading(matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Largest eigenvalue of a symmetric matrix and its eigenvector, both exact to rounding."""
    from scipy.linalg import eigh

    n = len(matrix)
    values, vectors = eigh((matrix + matrix.T) / 2, subset_by_index=[n - 1, n - 1])
    return float(values[0]), vectors[:, 0]
