"""Similarity of layers to layers, within a network or between two: CKA, Procrustes shape distances and the CCA family.

Activations are streamed once into n × n Gram matrices; every measure is computed from those, so that the width of a
layer does not matter (projection-weighted CCA alone reads the activations a second time).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses import gram_similarity as sample_space
from actkit.analyses.gram_reading import LayerGrams, Reading, read_grams, unit_blocks
from actkit.analyses.gram_similarity import CANONICAL, Express, Method, Shape
from actkit.analyses.source import Source, choose_layers, open_source
from actkit.compute import progress as progress_bar
from actkit.errors import InputError, nearest
from actkit.options import Options, with_options
from actkit.results import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORDS = {
    "cka": "linear CKA",
    "cka_unbiased": "unbiased linear CKA",
    "procrustes": "Procrustes",
    "cca_mean": "mean canonical correlation",
    "svcca": "SVCCA",
    "pwcca": "projection-weighted CCA",
}


class SimilarityOptions(Options):
    """Options of :func:`similarity`."""

    method: Method = Field("cka", description="Measure that compares two layers.")
    express: Express = Field(
        "similarity",
        description="Give the similarity (1: same), or a distance that obeys the triangle inequality (0: same): "
        "the 'angle' between the shapes in radians, the chord 'distance', or Procrustes' 'size_and_shape' distance.",
    )
    alpha: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Procrustes only: 1 compares up to rotations of the units, 0 up to all invertible maps (CCA), and "
        "between them the units are whitened in part.",
    )
    variance: float | None = Field(
        None,
        gt=0,
        le=1,
        description="CCA family: share of the variance that the principal components kept must hold; "
        "by default .99 for svcca and all of it for the others.",
    )
    components: int | None = Field(
        None, ge=1, description="CCA family: number of principal components to keep of each layer, instead of a share."
    )
    layers: list[str] | None = Field(
        None, description="Layer names or patterns (* within a component, ** across dots); all layers by default."
    )
    other_layers: list[str] | None = Field(None, description="The same for the second source.")
    error: Literal["none", "jackknife"] = Field(
        "none", description="Standard error over stimuli: leave each stimulus out in turn (not for pwcca)."
    )
    memory: str = Field("2GB", description="Most memory to use for blocks and Gram matrices, such as '2GB'.")
    dtype: Literal["auto", "float32", "float64"] = Field(
        "auto",
        description="Precision of products within a block; 'auto' is float64, but for CKA of stores and float32 "
        "arrays, which does not amplify rounding. Sums over blocks are always float64.",
    )
    device: str = Field(
        "auto",
        description="Where to compute products: 'auto' follows the data (numpy, or the tensor's device), or a torch "
        "device such as 'cpu' or 'cuda'.",
    )


@with_options(SimilarityOptions)
def similarity(
    first: Any,
    second: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: SimilarityOptions,
) -> xr.Dataset:
    """Compare every layer with every layer, of one network or of two, over the same stimuli.

    With X and Y the activations (stimuli × units) minus the mean of every unit, of d and e dimensions:

    - ``cka``: linear centred kernel alignment ``‖XᵀY‖_F² / (‖XXᵀ‖_F ‖YYᵀ‖_F)``, 0 to 1. Unrelated layers do not score
      0, but more the more dimensions they have; ``chance`` gives how much. It equals the whitened cosine between
      squared euclidean RDMs;
    - ``cka_unbiased``: the same with unbiased estimators, 0 on average for unrelated layers, negative at times;
    - ``procrustes``: ``‖XᵀY‖_* / (‖X‖_F ‖Y‖_F)`` with the nuclear norm, the cosine after the best rotation of the
      units (also called normalised Bures similarity or fidelity), 0 to 1; with ``alpha`` below 1 after whitening in
      part, with 0 after whitening in full;
    - ``cca_mean``: mean of the min(d, e) canonical correlations; ``svcca``: the same between the principal components
      that hold 99 % of the variance; ``pwcca``: mean weighted by how much each canonical direction accounts for the
      units of the **first** layer, so that the result is not symmetric.

    All ignore the offset of units, rotations of units (but for pwcca) and the scale of a layer; canonical correlations
    without reduction, and Procrustes with alpha 0, ignore every invertible linear map. Those need d + e < n stimuli:
    beyond, some canonical correlations are 1 for any data, and the call is refused.

    Angles arccos s and chords √(2 − 2 s) are metrics for CKA and Procrustes; the mean canonical correlation of layers
    of different dimension has none, for which ``procrustes`` with ``alpha=0`` stands in. ``size_and_shape`` is
    Procrustes' ``√(‖X‖² + ‖Y‖² − 2 ‖XᵀY‖_*)``, in units of the activations, which depends on width and scale.

    Parameters
    ----------
    first : ActivationStore, path, xarray.DataArray, numpy.ndarray, torch.Tensor or mapping of name to array
        A store, or arrays whose first dim is ``stimulus``; further dims are flattened to units.
    second : the same, optional
        Another network over the same stimuli, which are matched by id. By default the first is compared with itself.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none; ``"0"``, ``"1"``, … by default. Not for stores.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        Dims ``layer`` and ``other_layer``, in execution order:

        - ``similarity``, ``angle`` or ``distance`` (layer, other_layer), NaN where a layer does not vary over stimuli
          (named in the attribute ``undefined``, JSON: dim to names);
        - ``chance`` (layer, other_layer), for similarities: what unrelated layers of this kind would score on average
          (CKA: the exact mean over permuted stimuli; mean canonical correlation: the root of its mean square over
          random rotations, an upper bound of the mean);
        - ``error`` (layer, other_layer), when asked for: jackknife standard error over stimuli;
        - ``dimensions`` (layer), ``other_dimensions`` (other_layer), of Procrustes and CCA: how many were compared;
        - ``n_units`` (layer), ``other_n_units`` (other_layer).

    Raises
    ------
    InputError
        If stimuli differ (naming them), there are too few, values are NaN or infinite, canonical correlations would be
        1 by construction, options do not go together, or the memory is too small.
    LayerError
        If a layer does not exist.

    References
    ----------
    Kornblith, Norouzi, Lee & Hinton (2019), ICML (CKA); Williams, Kunz, Kornblith & Linderman (2021), NeurIPS (shape
    metrics); Harvey, Larsen & Williams (2023), Duality of Bures and shape distances; Raghu, Gilmer, Yosinski &
    Sohl-Dickstein (2017), NeurIPS (SVCCA); Morcos, Raghu & Bengio (2018), NeurIPS (PWCCA); Diedrichsen, Berlot,
    Mur, Schütt, Shahbazi & Kriegeskorte (2020), Comparing representational geometries using whitened unbiased-distance-
    matrix similarity (CKA as a whitened cosine).
    """
    _check_options(options)
    carries = [_carries_ids(source) for source in (first, second) if source is not None]
    opened = open_source(first, None if carries[0] and not all(carries) else ids)
    other = None if second is None else open_source(second, None if carries[1] and not all(carries) else ids)
    if other is None and options.other_layers is not None:
        other = opened
    n = len(opened.ids)
    least = 3 + (options.method == "cka_unbiased") + (options.error == "jackknife")
    if n < least:
        left = " when one is left out" if options.error == "jackknife" else ""
        raise InputError(
            f"{opened.name!r} holds {n} stimuli, too few for {_WORDS[options.method]}{left}; give {least} or more"
        )
    chosen = choose_layers(opened.layers, options.layers)
    others = None if other is None else choose_layers(other.layers, options.other_layers)
    order = None if other is None else _order(opened, other)
    reading = Reading(options.dtype, options.method.startswith("cka"), options.device, options.memory)
    total = len(chosen) + len(others or ())
    a = read_grams(opened, chosen, total, reading, progress)
    b = a if other is None or others is None else read_grams(other, others, total, reading, progress)
    if order is not None and not np.array_equal(order, np.arange(n)):
        b = b.reordered(order)
    values, sizes = _compare(a, b, a.grams, b.grams, options, reading)
    name = "similarity" if options.express == "similarity" else "angle" if options.express == "angle" else "distance"
    result = xr.Dataset(
        {name: (("layer", "other_layer"), values, {"long_name": _long_name(options), "units": _units(options)})},
        coords={"layer": a.names, "other_layer": b.names},
    )
    for dim, prefix, side, size in (("layer", "", a, 0), ("other_layer", "other_", b, 1)):
        if sizes is not None:
            result[f"{prefix}dimensions"] = (dim, np.array(sizes[size]), {"long_name": "dimensions", "units": "1"})
        units = np.array([layer.n_units for layer in side.layers])
        result[f"{prefix}n_units"] = (dim, units, {"long_name": "units", "units": "1"})
    chance = _chance(a, b, sizes, options)
    if chance is not None:
        result["chance"] = (("layer", "other_layer"), *chance)
    if options.error == "jackknife":
        error = _jackknife(a, b, options, progress)
        result["error"] = (("layer", "other_layer"), error, {"long_name": "jackknife standard error over stimuli"})
        result["error"].attrs["units"] = _units(options)
    sides = (("layer", a), ("other_layer", b))
    undefined = {dim: [side.names[i] for i in np.flatnonzero(side.flat)] for dim, side in sides}
    inputs = {"first": opened.fingerprint()} | ({} if other is None else {"second": other.fingerprint()})
    return describe(
        result,
        "similarity",
        options,
        inputs,
        method=options.method,
        express=options.express,
        measure=_long_name(options),
        first=opened.name,
        second=_second_name(opened, other),
        same=b is a,
        n_stimuli=n,
        undefined=json.dumps(undefined),
    )


def _second_name(first: Source, second: Source | None) -> str:
    """Name the second source so that it is not taken for the first."""
    if second is None or second is first:
        return first.name
    return second.name if second.name != first.name else f"{second.name} (2)"


def _check_options(options: SimilarityOptions) -> None:
    """Refuse options that do not go together."""
    method, express = options.method, options.express
    if method in CANONICAL and express != "similarity":
        raise InputError(
            f"method={method!r} gives no {express}: means of canonical correlations over layers of different dimension "
            "violate the triangle inequality; use method='procrustes', alpha=0, which has the same invariances"
        )
    if express == "size_and_shape" and (method != "procrustes" or options.alpha != 1):
        raise InputError(
            "express='size_and_shape' is the Procrustes distance of the activations as they are; use it with "
            "method='procrustes' and alpha=1"
        )
    if method != "procrustes" and options.alpha != 1:
        raise InputError(f"alpha={options.alpha} whitens for method='procrustes'; with {method!r} leave it out")
    if method not in CANONICAL and (options.variance is not None or options.components is not None):
        raise InputError(
            f"variance and components reduce layers for {', '.join(CANONICAL)}; with method={method!r} leave them out"
        )
    if options.variance is not None and options.components is not None:
        raise InputError("variance and components both say how many principal components to keep; give one of them")
    if method == "pwcca" and options.error != "none":
        raise InputError("error='jackknife' would read all activations once a stimulus for pwcca; use another method")


def _carries_ids(source: Any) -> bool:
    """Whether a source is a store, which `ids` are not meant for."""
    return isinstance(source, str | Path) or hasattr(source, "unit_blocks")


def _order(first: Source, second: Source) -> np.ndarray:
    """Where each stimulus of the first stands in the second."""
    own, wanted = second.ids.tolist(), first.ids.tolist()
    lacking = [(second.name, sorted(set(wanted) - set(own))), (first.name, sorted(set(own) - set(wanted)))]
    for name, missing in lacking:
        if missing:
            shown = ", ".join(repr(str(value)) for value in missing[:5])
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise InputError(
                f"{name!r} lacks the stimuli {shown}{more}, so the two cannot be compared stimulus by stimulus; "
                f"{nearest(str(missing[0]), own if name == second.name else wanted)}"
            )
    where = {value: position for position, value in enumerate(own)}
    return np.array([where[value] for value in wanted])


def _compare(
    a: LayerGrams,
    b: LayerGrams,
    first: np.ndarray,
    second: np.ndarray,
    options: SimilarityOptions,
    reading: Reading | None = None,
) -> tuple[np.ndarray, tuple[list[int], list[int]] | None]:
    """All pairs of layers, from Gram matrices `first` and `second` of the two sides; and the dimensions compared."""
    same = b is a
    method = options.method
    if method in ("cka", "cka_unbiased"):
        values = sample_space.alignment(first, None if same else second, method == "cka_unbiased")
        return sample_space.express_as(values, options.express, same), None
    x = _reduced(a.shapes(first), options)
    y = x if same else _reduced(b.shapes(second), options)
    if method in CANONICAL or options.alpha == 0:
        sample_space.check_room(x, y, (a.names, b.names))
    sizes = ([0 if s is None else len(s.values) for s in x], [0 if s is None else len(s.values) for s in y])
    if method == "pwcca":
        assert reading is not None
        return _projection_weighted(a, x, y, reading), sizes
    values = _pairs(x, y, same, options)
    return (
        values if options.express == "size_and_shape" else sample_space.express_as(values, options.express, same)
    ), sizes


def _reduced(shapes: list[Shape | None], options: SimilarityOptions) -> list[Shape | None]:
    """Leading components for the CCA family, whitened in part for Procrustes."""
    if options.method in CANONICAL:
        usual = 0.99 if options.method == "svcca" else 1.0
        variance = usual if options.variance is None else options.variance
        return [None if s is None else sample_space.leading(s, variance, options.components) for s in shapes]
    if options.alpha == 1:
        return shapes
    return [None if s is None else sample_space.whitened(s, options.alpha) for s in shapes]


def _pairs(x: list[Shape | None], y: list[Shape | None], same: bool, options: SimilarityOptions) -> np.ndarray:
    """Procrustes or mean canonical correlation of every pair."""
    values = np.full((len(x), len(y)), np.nan)
    canonical = options.method in CANONICAL
    matrices = [[None if s is None else (s.axes if canonical else s.scaled) for s in side] for side in (x, y)]
    for i, one in enumerate(matrices[0]):
        for j, another in enumerate(matrices[1]):
            if one is None or another is None:
                continue
            if same and j < i:
                values[i, j] = values[j, i]
                continue
            norm = sample_space.nuclear_norm(one, another)
            if canonical:
                values[i, j] = norm / min(one.shape[1], another.shape[1])
                continue
            size, other = (float(np.square(matrix).sum()) for matrix in (one, another))
            if options.express == "size_and_shape":
                values[i, j] = 0.0 if same and i == j else np.sqrt(max(size + other - 2 * norm, 0.0))
            else:
                values[i, j] = norm / np.sqrt(size * other)
    return values if options.express == "size_and_shape" else np.clip(values, -1.0, 1.0)


def _projection_weighted(a: LayerGrams, x: list[Shape | None], y: list[Shape | None], reading: Reading) -> np.ndarray:
    """Canonical correlations, each weighted by ``Σ_j |h_i · x_j|`` over the units j of the first layer."""
    values = np.full((len(x), len(y)), np.nan)
    for i, (layer, shape) in enumerate(zip(a.layers, x, strict=True)):
        if shape is None:
            continue
        found = [(j, *_directions(shape, other)) for j, other in enumerate(y) if other is not None]
        if not found:
            continue
        stacked = np.concatenate([directions for _, directions, _ in found], axis=1).T
        weights = np.zeros(len(stacked))
        # A block, its copy in float64 and its products with all directions share what there is for blocks.
        n, n_layers = len(shape.axes), len(x) if y is x else len(x) + len(y)
        most = reading.block_bytes(layer, n, n_layers) // (4 + len(stacked) // n)
        for block in unit_blocks(layer, most):
            units = block.astype(np.float64) if isinstance(block, np.ndarray) else block.cpu().double().numpy()
            weights += np.abs(stacked @ (units - units.mean(axis=0))).sum(axis=1)
            del block
        start = 0
        for j, directions, correlations in found:
            stop = start + directions.shape[1]
            values[i, j] = np.average(correlations, weights=weights[start:stop])
            start = stop
    return values


def _directions(shape: Shape, other: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Canonical directions of the first over stimuli ``(n, min(d, e))``, and the canonical correlations."""
    left, correlations, _ = np.linalg.svd(shape.axes.T @ other.axes, full_matrices=False)
    return shape.axes @ left, np.minimum(correlations, 1.0)


def _chance(
    a: LayerGrams, b: LayerGrams, sizes: tuple[list[int], list[int]] | None, options: SimilarityOptions
) -> tuple[np.ndarray, dict[str, str]] | None:
    """What unrelated layers of this kind score, where there is a closed form."""
    if options.express != "similarity":
        return None
    words, units = "mean over permuted stimuli", "1"
    if options.method == "cka":
        values = sample_space.chance_alignment(a.grams, b.grams)
    elif options.method == "cka_unbiased":
        values = np.zeros((len(a.layers), len(b.layers)))
        values[a.flat], values[:, b.flat] = np.nan, np.nan
    elif options.method in ("cca_mean", "svcca") and sizes is not None:
        n = a.grams.shape[-1]
        d, e = (np.array(size, dtype=np.float64) for size in sizes)
        # E tr(P Q) = d e / (n − 1) for projections in random position: the sum of squared canonical correlations.
        values = np.sqrt(np.maximum(d[:, None], e[None]) / (n - 1))
        values[d == 0], values[:, e == 0] = np.nan, np.nan
        words = "root mean square of canonical correlations of unrelated layers"
    else:
        return None
    return values, {"long_name": f"chance level: {words}", "units": units}


def _jackknife(a: LayerGrams, b: LayerGrams, options: SimilarityOptions, progress: bool | None) -> np.ndarray:
    """Standard error over stimuli (Tukey): √((n − 1)/n Σ (θ₋ᵢ − mean)²)."""
    n = a.grams.shape[-1]
    kept = np.empty((n, len(a.layers), len(b.layers)))
    for stimulus in progress_bar(range(n), desc="jackknife", unit="stimulus", enabled=progress):
        first = sample_space.without(a.grams, stimulus)
        second = first if b is a else sample_space.without(b.grams, stimulus)
        kept[stimulus] = _compare(a, b, first, second, options)[0]
    return np.sqrt((n - 1) * kept.var(axis=0))


def _long_name(options: SimilarityOptions) -> str:
    """Name the measure as an axis label does."""
    words = _WORDS[options.method]
    if options.method == "procrustes" and options.alpha < 1:
        words += f" (whitened, α = {options.alpha:g})"
    form = {
        "similarity": "similarity" if options.method == "procrustes" else "",
        "angle": "angle",
        "distance": "chord distance",
        "size_and_shape": "size-and-shape distance",
    }[options.express]
    return f"{words} {form}".strip()


def _units(options: SimilarityOptions) -> str:
    """Physical unit of the values."""
    return {"angle": "rad", "size_and_shape": "activation"}.get(options.express, "1")


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw the layers × layers matrix; see :func:`actkit.analyses.similarity_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`similarity` returned.
    **settings
        Settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import similarity_plot

    return similarity_plot.plot(result, **settings)
