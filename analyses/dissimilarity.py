"""One layer's dissimilarities, by any method, from rows that may be repetitions: choose the sums, stream, finish."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from actkit.analyses.design import Design
from actkit.analyses.gram import WIDTH, Centring, GramSums, NonFiniteError, NumpyGram, OverflowInGramError, TorchGram
from actkit.analyses.products import (
    MaskedProductSums,
    MaskedSimilarity,
    MissingError,
    NegativeError,
    Prior,
    ProductSums,
    stream_into,
    working_units,
)
from actkit.analyses.repeated import as_numpy
from actkit.analyses.source import Layer
from actkit.analyses.whitening import MaskedMahalanobis, whiten
from actkit.compute import format_bytes, parse_bytes
from actkit.errors import InputError

if TYPE_CHECKING:
    from actkit.analyses.rdm import RdmOptions

Method = Literal[
    "correlation", "cosine", "euclidean", "sqeuclidean", "mahalanobis", "crossnobis", "poisson", "poisson_cv"
]
CROSS_VALIDATED = ("crossnobis", "poisson_cv")
NORMALISED = ("mahalanobis", "crossnobis")
POISSON = ("poisson", "poisson_cv")
BOUNDED = ("correlation", "cosine")

_CENTRING: dict[str, Centring] = {
    "correlation": "pattern",
    "cosine": "none",
    "euclidean": "unit",
    "sqeuclidean": "unit",
}
# A pattern whose standard deviation is within this many rounding steps of its mean is constant, not patterned.
_ROUNDING_STEPS = 4
_NAMED = 5  # how many stimuli a message names


@dataclass(frozen=True)
class LayerRdm:
    """One layer's dissimilarities.

    Attributes
    ----------
    vector : numpy.ndarray
        ``(pairs,)`` in squareform order.
    constant : numpy.ndarray of int
        Stimuli whose pattern has no dissimilarity because it is constant.
    shrinkage : float
        Intensity λ of the noise covariance; NaN where none was estimated.
    n_missing, n_silent : int
        Values that were missing, and units that never change (where noise is normalised).
    """

    vector: np.ndarray
    constant: np.ndarray
    shrinkage: float = np.nan
    n_missing: int = 0
    n_silent: int = 0


def layer_rdm(layer: Layer, ids: np.ndarray, design: Design | None, options: RdmOptions, masked: bool) -> LayerRdm:
    """Compute one layer's RDM.

    Parameters
    ----------
    layer : Layer
        Blocks of units over the rows of `design`, or over one row a stimulus.
    ids : numpy.ndarray of str
        The n stimuli.
    design : Design or None
        Rows that repeat stimuli.
    options : RdmOptions
        Method, noise, prior, memory, precision and device.
    masked : bool
        Whether NaN is a missing value, and not an error.

    Returns
    -------
    LayerRdm
        The dissimilarities, and what was counted on the way.

    Raises
    ------
    InputError
        If values cannot be used, or the memory is too small.
    """
    if layer.n_units < 1:
        raise InputError(f"layer {layer.name!r} has no units, so it has no RDM; leave it out")
    if options.method == "correlation" and layer.n_units < 2:
        raise InputError(
            f"layer {layer.name!r} has {layer.n_units} unit, and a correlation over one unit is undefined; "
            "use method='euclidean'"
        )
    rows = _single(len(ids)) if design is None else design
    try:
        try:
            if options.method in _CENTRING:
                found = _of_patterns(layer, design, len(ids), options)
            else:
                found = _of_products(layer, rows, options)
        except (NonFiniteError, MissingError) as error:
            if not masked or getattr(error, "infinite", False):
                raise
            found = _of_masked(layer, rows, options)
    except (NonFiniteError, MissingError) as error:
        raise _not_finite(layer, ids[_stimuli(error, rows)], masked) from None
    except NegativeError as error:
        raise InputError(
            f"layer {layer.name!r} holds negative values for the stimuli {_named(ids[rows.stimulus[error.rows]])}: "
            "they are no rates, and a Poisson distance needs rates. Give counts or rates (not baseline-corrected or "
            "z-scored), or use method='crossnobis'"
        ) from None
    except InputError as error:
        raise InputError(f"layer {layer.name!r}: {error}") from None
    return replace(found, vector=_scaled(found.vector, layer, options))


def _single(n: int) -> Design:
    """One row a stimulus."""
    return Design(np.arange(n), n, np.zeros(n, dtype=np.intp))


def _scaled(vector: np.ndarray, layer: Layer, options: RdmOptions) -> np.ndarray:
    """Bring sums over units to the scale that was asked for."""
    if options.method in BOUNDED or options.scale == "sum":
        return vector
    return vector / (np.sqrt(layer.n_units) if options.method == "euclidean" else layer.n_units)


def _stimuli(error: NonFiniteError | MissingError, rows: Design) -> np.ndarray:
    """The stimuli of bad rows; averaged patterns are stimuli already."""
    return np.unique(error.rows if isinstance(error, NonFiniteError) else rows.stimulus[error.rows])


def _named(names: np.ndarray) -> str:
    """Name a few stimuli."""
    unique = list(dict.fromkeys(str(name) for name in names))
    more = f" and {len(unique) - _NAMED} more" if len(unique) > _NAMED else ""
    return ", ".join(map(repr, unique[:_NAMED])) + more


def _not_finite(layer: Layer, names: np.ndarray, masked: bool) -> InputError:
    """Name the stimuli with NaN or infinite activations."""
    if masked:
        return InputError(
            f"layer {layer.name!r} holds infinite values for the stimuli {_named(names)}: no distance is defined; "
            "mark missing values by NaN"
        )
    return InputError(
        f"layer {layer.name!r} holds NaN or infinite activations for the stimuli {_named(names)}: their "
        "dissimilarities would be NaN. Record the layer again in float32, leave these stimuli out, or take NaN for "
        "missing values with missing='mask'"
    )


# --------------------------------------------------------------------------------------------------------------------
# patterns: correlation, cosine, euclidean, sqeuclidean


def _of_patterns(layer: Layer, design: Design | None, n: int, options: RdmOptions) -> LayerRdm:
    """Dissimilarities of one pattern a stimulus, averaged over repetitions where there are any."""
    dtype: Literal["float32", "float64"] = (
        ("float64" if layer.double else "float32") if options.dtype == "auto" else options.dtype
    )
    patterns = layer if design is None else _averaged(layer, design.unfolded)
    try:
        try:
            gram, means, n_units = _sums(patterns, n, dtype, options)
        except OverflowInGramError:  # finite float32 values above 1e19 have no float32 square
            gram, means, n_units = _sums(patterns, n, "float64", options)
    except OverflowInGramError:
        raise InputError("values whose squares exceed the range of float64; scale them down") from None
    return _finished(gram, means, n_units, options.method, float(np.finfo(dtype).eps))


def _averaged(layer: Layer, design: Design) -> Layer:
    """A layer of mean patterns, averaged in float64 block by block."""

    def blocks(most: int) -> Iterator[np.ndarray]:
        for block in layer.blocks(max(1, most // 4)):
            values = as_numpy(block)
            means = design.means(np.asarray(values, dtype=np.float64))[0]
            del block, values
            yield means if layer.double else means.astype(np.float32)
            del means

    return replace(layer, blocks=blocks, device=None)


def _sums(
    layer: Layer, n: int, dtype: Literal["float32", "float64"], options: RdmOptions
) -> tuple[np.ndarray, np.ndarray, int]:
    """Stream a layer through the running products."""
    centring = _CENTRING[options.method]
    device = layer.device if options.device == "auto" else options.device
    sums: GramSums
    if device is None:
        sums = NumpyGram(n, centring, dtype)
    else:
        from actkit.compute import choose_device

        sums = TorchGram(n, centring, dtype, choose_device(device))
    # Running sums, a block's products, and their temporaries; and the working copy.
    fixed = 4 * 8 * n * n + n * min(WIDTH, layer.n_units) * np.dtype(dtype).itemsize
    blocks = layer.blocks(_block_bytes(layer, fixed, 2 * n * layer.itemsize, options.memory))
    while (block := next(blocks, None)) is not None:
        sums.add(block)
        del block  # or it would still be held while the next one is read
    return sums.result()


def _block_bytes(layer: Layer, fixed: int, smallest: int, memory: str) -> int:
    """Share the memory: sums and working copies take theirs, blocks and reading ahead have the rest."""
    block = parse_bytes(memory) - fixed
    if block < smallest:
        raise InputError(
            f"memory={memory!r} is too small: sums and the smallest block need {format_bytes(fixed + smallest)}; "
            "give more than that"
        )
    return block


def _finished(gram: np.ndarray, means: np.ndarray, n_units: int, method: str, eps: float) -> LayerRdm:
    """Turn sums of products into a vector of dissimilarities, and name the patterns that have none."""
    n = len(gram)
    squares = np.diagonal(gram).copy()
    row, column = np.triu_indices(n, 1)
    products = gram[row, column]
    if method in ("euclidean", "sqeuclidean"):
        distance = np.maximum(squares[row] + squares[column] - 2 * products, 0.0)
        return LayerRdm(np.sqrt(distance) if method == "euclidean" else distance, np.empty(0, dtype=int))
    limit = n_units * (_ROUNDING_STEPS * eps * means) ** 2 if method == "correlation" else 0.0
    flat = np.flatnonzero(squares <= limit)
    squares[flat] = np.nan
    norm = np.sqrt(squares)
    similarity = np.clip(products / norm[row] / norm[column], -1.0, 1.0)
    return LayerRdm(1.0 - similarity, flat)


# --------------------------------------------------------------------------------------------------------------------
# products of differences: mahalanobis, crossnobis, poisson, poisson_cv


def _of_products(layer: Layer, design: Design, options: RdmOptions) -> LayerRdm:
    """Distances of complete recordings, in float64."""
    _check_device(options)
    crossed = design if options.method in CROSS_VALIDATED else design.unfolded
    shrinkage, n_silent, n_missing = np.nan, 0, 0
    sums: ProductSums | MaskedProductSums
    if options.method in NORMALISED and options.noise in ("shrinkage_eye", "shrinkage_diag"):
        t = design.n_rows
        side = min(t, layer.n_units)
        # The sums of a wide layer, its eigenvectors and their work space; the rows of a narrow one, several times.
        most, step = _working(layer, design, 8 * (5 * side * side + 4 * t * side), options.memory)
        free = whiten(layer.blocks(most), as_numpy, design, layer.n_units, options.noise, step)
        shrinkage, n_silent = free.shrinkage, free.n_silent
        sums = ProductSums(crossed) if crossed.complete else MaskedProductSums(crossed)
        stream_into(sums, iter([free.rows]), as_numpy, step)
    else:
        normalise = options.method in NORMALISED and options.noise == "diagonal"
        prior = Prior(options.prior_lambda, options.prior_weight) if options.method in POISSON else None
        kind = ProductSums if crossed.complete else MaskedProductSums
        sums = kind(crossed, normalise, prior)
        most, step = _working(layer, design, 6 * 8 * design.n_stimuli**2, options.memory)
        stream_into(sums, layer.blocks(most), as_numpy, step)
        n_silent = sums.n_silent
        n_missing = getattr(sums, "n_missing", 0)
    return _upper(sums.distances(), shrinkage, n_missing, n_silent)


def _working(layer: Layer, design: Design, fixed: int, memory: str) -> tuple[int, int]:
    """Bytes for blocks, and units in a working block, beside sums of `fixed` bytes."""
    rows, cells = design.n_rows, design.counts.size
    copies = 8 * (5 * rows + 6 * cells)  # bytes a unit: the working block, residuals, means, masks
    share = max(0, parse_bytes(memory) - fixed) / 4  # a quarter for copies; the rest is read ahead
    step = min(layer.n_units, working_units(rows, share * 8 * rows / copies))
    return _block_bytes(layer, fixed + copies * step, 4 * rows * layer.itemsize, memory), step


def _check_device(options: RdmOptions) -> None:
    """Say where distances of repetitions are computed, before something else is expected."""
    if options.device not in ("auto", "cpu"):
        from actkit.compute import choose_device

        choose_device(options.device)  # a device that does not exist is told first
        raise InputError(
            f"method={options.method!r} is computed with numpy in float64; leave out device={options.device!r}"
        )


def _upper(distances: np.ndarray, shrinkage: float, n_missing: int, n_silent: int) -> LayerRdm:
    """A square of distances as a vector; nothing is clipped, since cross-validated distances may be negative."""
    vector = distances[np.triu_indices(len(distances), 1)]
    return LayerRdm(vector, np.empty(0, dtype=int), shrinkage, n_missing, n_silent)


# --------------------------------------------------------------------------------------------------------------------
# missing values


def _of_masked(layer: Layer, design: Design, options: RdmOptions) -> LayerRdm:
    """Dissimilarities over the values that there are, in float64."""
    _check_device(options)
    method = options.method
    crossed = design if method in CROSS_VALIDATED else design.unfolded
    sums: MaskedProductSums | MaskedSimilarity | MaskedMahalanobis
    fixed = 8 * 8 * design.n_stimuli**2
    if method in BOUNDED:
        sums = MaskedSimilarity(crossed, centred=method == "correlation")
    elif method in NORMALISED and options.noise in ("shrinkage_eye", "shrinkage_diag"):
        sums = MaskedMahalanobis(crossed, options.noise)
        fixed += 8 * layer.n_units * (3 * design.n_rows + 4 * crossed.counts.size)
    else:
        prior = Prior(options.prior_lambda, options.prior_weight) if method in POISSON else None
        sums = MaskedProductSums(crossed, method in NORMALISED and options.noise == "diagonal", prior)
    most, step = _working(layer, design, fixed, options.memory)
    stream_into(sums, layer.blocks(most), as_numpy, step)
    found = sums.distances()
    if method == "euclidean":
        found = np.sqrt(np.maximum(found, 0.0))
    elif method == "sqeuclidean":
        found = np.maximum(found, 0.0)
    result = _upper(found, getattr(sums, "shrinkage", np.nan), sums.n_missing, sums.n_silent)
    if not isinstance(sums, MaskedSimilarity):
        return result
    off = found.copy()
    np.fill_diagonal(off, np.nan)
    return replace(result, constant=np.flatnonzero(np.isnan(off).all(axis=1)))
