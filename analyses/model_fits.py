"""Fit flexible models in closed form, many training sets at once.

A fit sees the components only through their moments on the training pairs: Q (components × components) and b
(components), the products of the components with one another and with the mean of the unit-norm subjects. The mean
score of the prediction Σθ_k RDM_k is then ``θᵀb / √(θᵀQθ)``, and its maximum is

- unconstrained weights: ``θ = Q⁻¹ b`` (least squares; the pseudo-inverse where components are dependent);
- non-negative weights: non-negative least squares on a factor of Q;
- a choice: the largest ``b_k / √Q_kk``;
- interpolation between neighbours: one stationary point in each segment.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

# Eigenvalues of Q (unit diagonal) below this share of the largest are dependence between components, not information.
_DEPENDENT = 1e-12
# Where the smallest eigenvalue is above this share of the largest, a linear solve is as good as a factorisation.
_REGULAR = 1e-8
_PIVOTS = 12  # exchanges before a problem is handed to the active-set solver


def fit(
    kind: str, moments: np.ndarray, target: np.ndarray, alive: np.ndarray | None = None, ridge: float = 0.0
) -> np.ndarray:
    """Find the weights whose prediction scores best in the mean over training subjects.

    Parameters
    ----------
    kind : {"weighted", "weighted_nonnegative", "selection", "interpolation"}
        What may be fitted.
    moments : numpy.ndarray
        Q, ``(batch, components, components)``: products of the components on the training pairs.
    target : numpy.ndarray
        b, ``(batch, targets, components)``: their products with the mean of the unit-norm training subjects; several
        sets of subjects may share the moments.
    alive : numpy.ndarray of bool, optional
        ``(batch, components)``: False for a component that is constant on the training pairs. It gets the weight 0.
    ridge : float
        Penalty on squared weights of unit-norm components, for weighted models.

    Returns
    -------
    numpy.ndarray
        ``(batch, targets, components)`` weights of the components as given. Their scale is arbitrary, except for
        interpolation (they sum to 1). NaN where nothing can be fitted.

    Notes
    -----
    Non-negative weights maximise the score: where every component correlates negatively with the data, the best
    direction in the cone is its best single component (the score is then convex on the simplex), not 0.

    References
    ----------
    Khaligh-Razavi & Kriegeskorte (2014), PLoS Computational Biology 10; Jozwik, Kriegeskorte & Mur (2016),
    Neuropsychologia 83; Lawson & Hanson (1974), Solving least squares problems.
    """
    diagonal = np.diagonal(moments, axis1=-2, axis2=-1)
    positive = np.asarray(diagonal > 0)
    living = positive if alive is None else positive & alive
    if kind == "interpolation":
        return _interpolated(moments, target, living)
    # Components at unit norm: weights do not depend on units, and the rank of Q can be judged.
    scale = np.where(living, 1.0 / np.sqrt(np.where(positive, diagonal, 1.0)), 0.0)
    b = np.where(living[:, None], target, 0.0) * scale[:, None]
    if kind == "selection":
        theta = one_hot(np.where(living[:, None], b, np.nan))
    else:
        both = living[:, :, None] & living[:, None, :]
        q = np.where(both, moments, 0.0) * scale[:, :, None] * scale[:, None, :]
        if ridge:
            q = q + ridge * np.eye(q.shape[-1]) * living[:, :, None]
        theta = _least_squares(q, b) if kind == "weighted" else _nonnegative(q, b, living)
    theta = theta * scale[:, None]
    lost = ~living.any(axis=-1, keepdims=True) | np.isnan(target).all(axis=-1)
    theta[lost] = np.nan
    return theta


def one_hot(scores: np.ndarray) -> np.ndarray:
    """Mark the largest score.

    Parameters
    ----------
    scores : numpy.ndarray
        ``(…, components)``; NaN is never chosen; the first of equal scores is.

    Returns
    -------
    numpy.ndarray
        ``(…, components)`` of 0 and 1; NaN where no score is defined.
    """
    best = np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=-1)
    chosen = np.zeros(scores.shape)
    np.put_along_axis(chosen, best[..., None], 1.0, axis=-1)
    chosen[np.isnan(scores).all(axis=-1)] = np.nan
    return chosen


def _eigen(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (0 where components are dependent) and eigenvectors of each Q."""
    finite = np.isfinite(q).all(axis=(-2, -1))
    values, vectors = np.linalg.eigh(np.where(finite[:, None, None], q, 0.0))
    return np.where(values > _DEPENDENT * values[:, -1:], values, 0.0), vectors


def _least_squares(q: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Unconstrained weights, of least norm where components are dependent."""
    values, vectors = _eigen(q)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
    return np.asarray(((b @ vectors) * inverse[:, None]) @ vectors.swapaxes(-2, -1))


def _nonnegative(q: np.ndarray, b: np.ndarray, living: np.ndarray) -> np.ndarray:
    """Non-negative weights: the minimum of ``θᵀQθ / 2 - bᵀθ`` over ``θ ≥ 0``."""
    values, vectors = _eigen(q)
    theta = one_hot(np.where(living[:, None], b, np.nan))  # what is left where no component has a positive score
    # Aims of one size, so that tolerances are relative.
    size = np.abs(b).max(axis=-1)
    open_ = (b > 0).any(axis=-1) & np.isfinite(size)
    which = np.argwhere(open_)
    if not len(which):
        return theta
    aim = b[open_] / size[open_][:, None]
    batch = which[:, 0]
    # A dead component has the equation θ = 0 of its own; its eigenvalue of Q, the smallest, does not count.
    full = q + np.eye(q.shape[-1]) * ~living[:, :, None]
    dead = np.minimum((~living).sum(axis=-1), q.shape[-1] - 1)
    smallest = np.take_along_axis(values, dead[:, None], axis=-1)[:, 0]
    regular = smallest[batch] > _REGULAR * values[batch, -1]
    solved = np.zeros(len(which), dtype=bool)
    found = np.zeros(aim.shape)
    found[regular], solved[regular] = _pivoted(full[batch[regular]], aim[regular])
    # The rest: NNLS of ‖Aθ - c‖ with AᵀA = Q and Aᵀc = b.
    root = np.sqrt(values)
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
    for k in np.flatnonzero(~solved):
        one = batch[k]
        factor = root[one][:, None] * vectors[one].T
        found[k] = nnls(factor, (aim[k] @ vectors[one]) * inverse[one], maxiter=30 * q.shape[-1])[0]
    theta[open_] = found
    return theta


def _pivoted(q: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Block principal pivoting on many regular problems: weights, and which problems are solved.

    The set of positive weights is guessed, solved for, and corrected by every weight below 0 and every component
    left out whose gradient is below 0, until there is none: then the conditions of the one minimum hold. Source: Kim &
    Park (2011), Fast nonnegative matrix factorization: an active-set-like method, SIAM J. Sci. Comput. 33.
    """
    theta = np.zeros(b.shape)
    solved = np.zeros(len(b), dtype=bool)
    passive = b > 0
    left = np.arange(len(b))
    identity = np.eye(b.shape[-1])
    for _ in range(_PIVOTS):
        inside = passive[left]
        system = np.where(inside[:, :, None] & inside[:, None, :], q[left], identity * ~inside[:, :, None])
        trial = np.linalg.solve(system, np.where(inside, b[left], 0.0)[..., None])[..., 0]
        gradient = (q[left] @ trial[..., None])[..., 0] - b[left]
        wrong = np.where(inside, trial < 0, gradient < -_DEPENDENT)
        done = ~wrong.any(axis=-1)
        theta[left[done]], solved[left[done]] = trial[done], True
        passive[left] ^= wrong
        left = left[~done]
        if not len(left):
            break
    return theta, solved


def _interpolated(q: np.ndarray, b: np.ndarray, living: np.ndarray) -> np.ndarray:
    """The best place on the line through the components: ends and the one stationary point of every segment.

    With A = Q_22, B = Q_12 − Q_22, C = Q_11 − 2 Q_12 + Q_22 and D = b_1 − b_2, the score
    ``(b_2 + D w) / √(A + 2 B w + C w²)`` has a zero slope at ``w = (D A − b_2 B) / (b_2 C − D B)`` only.
    """
    # A constant component adds nothing to the products, and alone it has no score (0 / 0).
    q = np.where(living[:, :, None] & living[:, None, :], q, 0.0)
    b = np.where(living[:, None], b, 0.0)
    first, second = np.arange(q.shape[-1] - 1), np.arange(1, q.shape[-1])
    a = q[:, second, second][:, None]
    mixed = q[:, first, second][:, None] - a
    c = q[:, first, first][:, None] - a - 2 * mixed
    b2 = b[:, :, second]
    slope = b[:, :, first] - b2
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = (slope * a - b2 * mixed) / (b2 * c - slope * mixed)
        inner = np.where((inner > 0) & (inner < 1), inner, 0.0)
        places = np.stack([np.zeros_like(inner), inner, np.ones_like(inner)], axis=-1)
        square = a[..., None] + 2 * mixed[..., None] * places + c[..., None] * places**2
        score = (b2[..., None] + slope[..., None] * places) / np.sqrt(square)
    score = np.where(np.isfinite(score), score, np.nan)
    flat = score.reshape(*score.shape[:2], -1)
    chosen = np.argmax(np.where(np.isnan(flat), -np.inf, flat), axis=-1)
    weight = np.take_along_axis(places.reshape(flat.shape), chosen[..., None], axis=-1)[..., 0]
    segment = chosen // places.shape[-1]
    theta = np.zeros(b.shape)
    np.put_along_axis(theta, segment[..., None], weight[..., None], axis=-1)
    np.put_along_axis(theta, segment[..., None] + 1, 1.0 - weight[..., None], axis=-1)
    theta[np.isnan(flat).all(axis=-1)] = np.nan
    return theta
