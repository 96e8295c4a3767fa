"""Similarity of representations in sample space: from centred n × n Gram matrices alone, whatever the number of units.

With X (n × p) and Y (n × q) centred over stimuli, K = XXᵀ and L = YYᵀ hold all that these measures use of them:
``‖XᵀY‖_F² = <K, L>`` and ``‖XᵀY‖_* = ‖K^½ L^½‖_*``, the sum of the singular values of an n × n matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from actkit.errors import InputError

Method = Literal["cka", "cka_unbiased", "procrustes", "cca_mean", "svcca", "pwcca"]
Express = Literal["similarity", "angle", "distance", "size_and_shape"]

CANONICAL = ("cca_mean", "svcca", "pwcca")
# A Gram matrix below this share of its size before some stimuli were left out is rounding: nothing varies any more.
_CONSTANT = 1e-13


@dataclass(frozen=True)
class Shape:
    """One representation by its singular value decomposition, without the units' side: K^½ up to a rotation.

    Attributes
    ----------
    axes : numpy.ndarray
        ``(n, r)`` orthonormal left singular vectors of the centred activations.
    values : numpy.ndarray
        ``(r,)`` singular values, falling.
    """

    axes: np.ndarray
    values: np.ndarray

    @property
    def scaled(self) -> np.ndarray:
        """``(n, r)`` axes times values: the activations but for a rotation of the units."""
        return self.axes * self.values


def centred(gram: np.ndarray) -> np.ndarray:
    """Centre Gram matrices: those of the activations minus the mean of every unit.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(…, n, n)``, symmetric.

    Returns
    -------
    numpy.ndarray
        ``H K H`` with ``H = I − 11ᵀ/n``; a copy.
    """
    mean = gram.mean(axis=-1)
    return gram - mean[..., :, None] - mean[..., None, :] + mean.mean(axis=-1)[..., None, None]


def unbiased(gram: np.ndarray) -> np.ndarray:
    """Centre Gram matrices without their diagonal (U-centring), in place.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(…, n, n)``, centred or not.

    Returns
    -------
    numpy.ndarray
        The same memory: diagonal 0, ``K_ij − r_i/(n−2) − r_j/(n−2) + r/((n−1)(n−2))`` elsewhere, with sums r over
        off-diagonal entries. Scalar products of such matrices are n(n−3) times the unbiased HSIC.

    References
    ----------
    Székely & Rizzo (2014), Partial distance correlation with methods for dissimilarities, Annals of Statistics 42; Song
    et al. (2012), Feature selection via dependence maximization, Journal of Machine Learning Research 13.
    """
    n = gram.shape[-1]
    diagonal = np.arange(n)
    gram[..., diagonal, diagonal] = 0.0
    rows = gram.sum(axis=-1)
    total = rows.sum(axis=-1)
    gram -= rows[..., :, None] / (n - 2)
    gram -= rows[..., None, :] / (n - 2)
    gram += (total / ((n - 1) * (n - 2)))[..., None, None]
    gram[..., diagonal, diagonal] = 0.0
    return gram


def alignment(first: np.ndarray, second: np.ndarray | None, debias: bool) -> np.ndarray:
    """Linear centred kernel alignment of every pair of representations.

    Parameters
    ----------
    first, second : numpy.ndarray
        ``(layers, n, n)`` centred Gram matrices, NaN for a layer without variation; None for the second compares the
        first with itself.
    debias : bool
        Use the unbiased estimator of all three terms, which can be negative.

    Returns
    -------
    numpy.ndarray
        ``(layers, other layers)``: ``<K, L> / (‖K‖ ‖L‖)``.

    References
    ----------
    Kornblith, Norouzi, Lee & Hinton (2019), Similarity of neural network representations revisited, ICML, equation 5;
    Nguyen, Raghu & Kornblith (2021), Do wide and deep networks learn the same things?, ICLR, equation 3 (unbiased).
    """

    def unit(grams: np.ndarray) -> np.ndarray:
        flat = (unbiased(grams.copy()) if debias else grams).reshape(len(grams), -1)
        norm = np.sqrt(np.einsum("lp,lp->l", flat, flat))
        return flat / np.where(norm > 0, norm, np.nan)[:, None]

    a = unit(first)
    return np.clip(a @ (a if second is None else unit(second)).T, -1.0, 1.0)


def chance_alignment(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean biased CKA over all assignments of one side's stimuli to the other's.

    Parameters
    ----------
    first, second : numpy.ndarray
        ``(layers, n, n)`` centred Gram matrices.

    Returns
    -------
    numpy.ndarray
        ``(layers, other layers)``: ``tr K tr L / ((n − 1) ‖K‖ ‖L‖)``, since the mean of a centred Gram matrix over
        permutations is ``tr L / (n − 1)`` times the centring matrix. Near 1 when both have many more dimensions than
        there are stimuli; for the unbiased form this mean is 0.
    """

    def share(grams: np.ndarray) -> np.ndarray:
        norm = np.sqrt(np.einsum("lij,lij->l", grams, grams))
        return np.trace(grams, axis1=1, axis2=2) / np.where(norm > 0, norm, np.nan)

    return np.outer(share(first), share(second)) / (first.shape[-1] - 1)


def decompose(gram: np.ndarray, eps: float) -> Shape | None:
    """Decompose a centred Gram matrix, leaving out what is rounding.

    Parameters
    ----------
    gram : numpy.ndarray
        ``(n, n)`` centred Gram matrix.
    eps : float
        Rounding step of the precision in which it was summed. Eigenvalues below ``n · eps`` times the largest are 0.

    Returns
    -------
    Shape or None
        None for a representation that does not vary (NaN or zero).
    """
    if not np.isfinite(gram).all():
        return None
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int((values > len(gram) * eps * max(values[0], 0.0)).sum()) if values[0] > 0 else 0
    return Shape(vectors[:, :rank], np.sqrt(values[:rank])) if rank else None


def leading(shape: Shape, variance: float, count: int | None) -> Shape:
    """Keep the leading principal components.

    Parameters
    ----------
    shape : Shape
        A representation.
    variance : float
        Share of the variance to keep at least; 1 keeps all components.
    count : int, optional
        Keep this many (or all there are) instead.

    Returns
    -------
    Shape
        With fewer components.
    """
    if count is None:
        share = np.cumsum(shape.values**2)
        # The tolerance keeps a share that is reached but for rounding from costing one more component.
        count = len(share) if variance >= 1 else int((share < (variance - 1e-12) * share[-1]).sum()) + 1
    return Shape(shape.axes[:, :count], shape.values[:count])


def whitened(shape: Shape, alpha: float) -> Shape:
    """Whiten the units in part: 1 leaves the covariance of the units as it is, 0 makes it the identity.

    Parameters
    ----------
    shape : Shape
        A representation.
    alpha : float
        0 to 1.

    Returns
    -------
    Shape
        Singular values ``alpha s + (1 − alpha) s̄`` with s̄ the root mean square of s, so that the scale of the
        activations does not matter.

    References
    ----------
    Williams, Kunz, Kornblith & Linderman (2021), Generalized shape metrics on neural representations, NeurIPS,
    equation 11, whose s is not divided by s̄.
    """
    scale = np.sqrt(np.mean(shape.values**2))
    return Shape(shape.axes, alpha * shape.values + (1 - alpha) * scale)


def nuclear_norm(first: np.ndarray, second: np.ndarray) -> float:
    """Sum of the singular values of the product of two representations over the same stimuli.

    Parameters
    ----------
    first, second : numpy.ndarray
        ``(n, r)`` and ``(n, s)``.

    Returns
    -------
    float
        ``‖XᵀY‖_*``: the scalar product of X and Y after the best rotation of the units.
    """
    return float(np.linalg.svd(first.T @ second, compute_uv=False).sum())


def check_room(first: list[Shape | None], second: list[Shape | None], names: tuple[list[str], list[str]]) -> None:
    """Refuse canonical correlations that are 1 whatever the data.

    Two subspaces of d and e dimensions within the n − 1 of centred stimuli share ``d + e − (n − 1)`` directions at
    least, which are canonical correlations of exactly 1, of unrelated data too.

    Parameters
    ----------
    first, second : list of Shape or None
        What is compared with what, reduced to the components to be used.
    names : tuple of list of str
        Names of the layers of each.

    Raises
    ------
    InputError
        Naming the two widest layers and how many components there is room for.
    """
    sizes = [[0 if shape is None else len(shape.values) for shape in side] for side in (first, second)]
    widest = [int(np.argmax(side)) for side in sizes]
    d, e = sizes[0][widest[0]], sizes[1][widest[1]]
    if not d or not e:
        return
    n = len(next(shape for shape in (*first, *second) if shape is not None).axes)
    if d + e > n - 1:
        a, b = (side[where] for side, where in zip(names, widest, strict=True))
        raise InputError(
            f"layers {a!r} ({d} dimensions) and {b!r} ({e}) together have more than the {n - 1} dimensions of {n} "
            f"stimuli, so {d + e - n + 1} of their canonical correlations are 1 whatever they represent. Keep fewer "
            f"principal components (components={max(1, (n - 1) // 4)} leaves room; {(n - 1) // 2} is the most), show "
            "more stimuli, or use method='procrustes' (with 0 < alpha < 1 for partial whitening) or 'cka'"
        )


def express_as(similarity: np.ndarray, express: Express, same: bool) -> np.ndarray:
    """Turn a normalised scalar product into the angle or the chord between two shapes.

    Parameters
    ----------
    similarity : numpy.ndarray
        Cosines.
    express : {"similarity", "angle", "distance"}
        What is wanted.
    same : bool
        Whether the diagonal compares each representation with itself: then it is 0, not the root of rounding.

    Returns
    -------
    numpy.ndarray
        ``s``, ``arccos s`` (radians) or ``√(2 − 2 s)``. Both distances obey the triangle inequality.
    """
    if express == "similarity":
        return similarity
    cosine = np.clip(similarity, -1.0, 1.0)
    values = np.arccos(cosine) if express == "angle" else np.sqrt(np.maximum(2 - 2 * cosine, 0.0))
    if same:
        diagonal = np.arange(len(values))
        values[diagonal, diagonal] = np.where(np.isnan(similarity[diagonal, diagonal]), np.nan, 0.0)
    return values


def without(grams: np.ndarray, stimulus: int) -> np.ndarray:
    """Leave one stimulus out of centred Gram matrices.

    Parameters
    ----------
    grams : numpy.ndarray
        ``(layers, n, n)``.
    stimulus : int
        Which one.

    Returns
    -------
    numpy.ndarray
        ``(layers, n − 1, n − 1)``, centred again; NaN for a layer in which nothing else varied.
    """
    kept = np.delete(np.arange(grams.shape[-1]), stimulus)
    smaller = centred(grams[:, kept[:, None], kept])
    size = np.trace(smaller, axis1=1, axis2=2)
    smaller[~(size > _CONSTANT * np.trace(grams, axis1=1, axis2=2))] = np.nan
    return smaller
