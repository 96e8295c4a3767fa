"""Representational dissimilarity matrices, by every method, streamed from stores and arrays in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.dissimilarity import (
    BOUNDED,
    CROSS_VALIDATED,
    NORMALISED,
    POISSON,
    LayerRdm,
    Method,
    layer_rdm,
)
from actkit.analyses.noise_precision import Noise
from actkit.analyses.repeated import Recordings, Repetitions, open_recordings
from actkit.analyses.source import Layer, choose_layers
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import rdm_dataset
from actkit.results import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 20  # how many constant patterns of a layer are named
_NEED_REPETITIONS = ("mahalanobis", "crossnobis", "poisson_cv")


class RdmOptions(Options):
    """Options of :func:`rdm`."""

    method: Method = Field("correlation", description="Dissimilarity between two patterns of activation.")
    layers: list[str] | None = Field(
        None, description="Layer names or patterns (* within a component, ** across dots); all layers by default."
    )
    repetitions: Repetitions | None = Field(
        None,
        description="Where repeated observations of a stimulus come from; must be said for networks, which have none "
        "unless they are made. 'recorded' is the default for recorded neurons (dim 'neuron').",
    )
    stimuli: str | None = Field(
        None,
        description="Coordinate or store label that names the stimulus of each row, where rows are repetitions; the "
        "stimulus id by default.",
    )
    folds: str | None = Field(
        None,
        description="Coordinate or store label that names the parts of the data with independent noise, such as "
        "'session' or 'repetition'; needed by crossnobis and poisson_cv.",
    )
    noise: Noise = Field(
        "shrinkage_diag",
        description="Noise covariance of mahalanobis and crossnobis, from what repetitions leave of their mean: shrunk "
        "to its diagonal (Schäfer-Strimmer) or to the identity (Ledoit-Wolf), the variances alone, or none.",
    )
    scale: Literal["sum", "mean"] = Field(
        "sum",
        description="Distances are summed over units, or divided by their number (as rsatoolbox does); correlation and "
        "cosine have no scale.",
    )
    missing: Literal["auto", "refuse", "mask"] = Field(
        "auto",
        description="What NaN means: an error, or a unit that is missing and left out of the pairs concerned; 'auto' "
        "masks recorded neurons and refuses NaN in networks.",
    )
    prior_lambda: float = Field(1.0, gt=0, description="Rate of the prior of poisson and poisson_cv.")
    prior_weight: float = Field(0.1, gt=0, description="Weight of that prior, in observations.")
    memory: str = Field("1GB", description="Most memory to use for blocks and sums, such as '1GB'.")
    dtype: Literal["auto", "float32", "float64"] = Field(
        "auto",
        description="Precision of products within a block; 'auto' is float64 for float64 and integer arrays "
        "and float32 for stores and float32. Sums over blocks are always float64, and so is all of mahalanobis, "
        "crossnobis, poisson, poisson_cv and of data with missing values.",
    )
    device: str = Field(
        "auto",
        description="Where to compute: 'auto' follows the data (numpy, or the tensor's device), or a torch "
        "device such as 'cpu' or 'cuda'; for correlation, cosine, euclidean and sqeuclidean.",
    )


@with_options(RdmOptions)
def rdm(
    source: Any, ids: Sequence[Any] | np.ndarray | None = None, progress: bool | None = None, *, options: RdmOptions
) -> xr.Dataset:
    """Compute the RDM of every layer.

    Blocks of units are read one after the other, and only sums over units are kept (n × n, or T × T for T observations
    where a noise covariance is shrunk), so that the width of a layer does not matter. With x_i the mean pattern of
    stimulus i over its observations, p the number of units:

    - ``correlation``: 1 − Pearson's r of x_i and x_j; 0 to 2;
    - ``cosine``: 1 − x_i·x_j / (|x_i| |x_j|); 0 to 2;
    - ``sqeuclidean``: |x_i − x_j|², and ``euclidean`` its root;
    - ``mahalanobis``: (x_i − x_j) Σ⁻¹ (x_i − x_j)ᵀ with the noise covariance Σ; squared, and biased upwards by noise;
    - ``crossnobis``: the same without the bias (Walther et al. 2016): the mean of (x_if − x_jf) Σ⁻¹ (x_ig − x_jg)ᵀ
      over pairs of different folds f and g that hold both stimuli, x_if the mean in fold f. Its expectation is the
      distance of the true patterns, zero where they are equal, so estimates may be negative and are never clipped;
    - ``poisson``: Σ_c (a_ic − a_jc)(log a_ic − log a_jc), the symmetrised Kullback-Leibler divergence of Poisson rates
      a = (x + weight · rate) / (1 + weight) under a prior (Schütt et al. 2023);
    - ``poisson_cv``: the mean over ordered pairs of different folds of Σ_c (a_ifc − a_jfc)(log a_igc − log a_jgc).

    Two scales: ``"sum"`` is over units as written here. ``"mean"`` divides by p (the euclidean distance by √p), which
    is rsatoolbox's convention; its "euclidean" is ``sqeuclidean`` here with ``scale="mean"``.

    Σ comes from the residuals around each stimulus's mean (T − n degrees of freedom) and is one for all folds. A unit
    that never changes adds nothing; one that differs between stimuli but not between repetitions has no noise to
    be measured in, which is an error.

    With missing units (NaN) a pair of stimuli is compared over the units that both have (in both folds): sums are
    divided by their number and multiplied by p, correlations are over them alone, and Σ is restricted to them before it
    is inverted (the marginal covariance). Variances take each unit's own observations, shrunk covariances the complete
    observations.

    Parameters
    ----------
    source : store, path, xarray.DataArray, numpy.ndarray, torch.Tensor, mapping, or list of recordings
        A store, or arrays whose first dim is ``stimulus``, or a mapping of layer names to arrays; further dims are
        flattened to units. Repeated observations come as a dim ``repetition`` (padded with NaN), as rows along
        ``stimulus`` or ``observation`` whose ids repeat (`stimuli` names another coordinate), or as several stores: a
        list, or a mapping of names to stores, whose coordinate is ``repetition``.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none; ``"0"``, ``"1"``, … by default.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        RDM dataset: ``dissimilarity`` (layer, pair) in float64, layers in execution order, with ``n_units``,
        ``constant_patterns`` and ``undefined_pairs`` (layer). Correlation has no value for a constant pattern (a layer
        that is dead on an image), and cosine none for a pattern of zeros: these pairs are NaN, counted in
        ``constant_patterns``, and their stimuli named in the attribute ``constant_stimuli`` (JSON: layer to ids, the
        first 20). Where it applies: ``shrinkage`` (the intensity λ), ``silent_units`` and ``missing_values`` (layer),
        and the attributes ``n_observations``, ``fold_names`` and ``repetition_source``.

    Raises
    ------
    InputError
        If values are NaN or infinite (naming layer and stimuli) or negative (Poisson), there are fewer than two
        stimuli, correlation is asked for of a single unit, repetitions or folds are needed and not declared, there is
        no noise to normalise by, or the memory is too small for the sums.
    LayerError
        If a layer does not exist.

    References
    ----------
    Walther et al. (2016), Reliability of dissimilarity measures for multi-voxel pattern analysis, NeuroImage 137.
    Schütt, Kipnis, Diedrichsen & Kriegeskorte (2023), Statistical inference on representational geometries, eLife 12.
    """
    recordings = _checked(open_recordings(source, ids, options.stimuli), options)
    opened, design = recordings.source, recordings.design
    chosen = choose_layers(opened.layers, options.layers)
    n = len(opened.ids)
    if n < 2:
        raise InputError(f"{opened.name!r} holds {n} stimulus; a dissimilarity needs at least 2")
    masked = options.missing == "mask" or (options.missing == "auto" and recordings.kind == "recorded")
    bar = progress_bar(chosen, desc="RDMs", unit="layer", enabled=progress)
    with ThreadPoolExecutor(1) as pool:  # hashing the input takes as long as its sums, and leaves the other cores free
        told = pool.submit(opened.fingerprint)
        found = [layer_rdm(layer, opened.ids, design, options, masked) for layer in bar]
    result = rdm_dataset(
        np.stack([one.vector for one in found]),
        [layer.name for layer in chosen],
        "layer",
        opened.ids,
        options.method,
        opened.name,
        coords={key: ("stimulus", values) for key, values in opened.labels.items()},
    )
    result["dissimilarity"].attrs.update(long_name=f"{options.method} dissimilarity", units=_units(options))
    _count(result, chosen, found, options)
    named = {layer.name: one.constant for layer, one in zip(chosen, found, strict=True) if len(one.constant)}
    return describe(
        result,
        "rdm",
        options,
        {"source": told.result()},
        **{key: value for key, value in opened.attrs.items() if key not in result.attrs},
        n_stimuli=n,
        constant_stimuli=json.dumps({k: [str(opened.ids[i]) for i in v[:_NAMED]] for k, v in named.items()}),
        n_observations=None if design is None else design.n_rows,
        fold_names=list(design.folds) if design is not None and design.folds else None,
        repetition_source=None if design is None else _declared(recordings, options) or "averaged",
    )


def _declared(recordings: Recordings, options: RdmOptions) -> str | None:
    """Where repetitions come from: as the caller says, or recorded."""
    return options.repetitions or ("recorded" if recordings.kind == "recorded" else None)


def _checked(recordings: Recordings, options: RdmOptions) -> Recordings:
    """Refuse methods without the repetitions or folds that they need, and repetitions that nobody declared."""
    method, design = options.method, recordings.design
    if method == "mahalanobis" and options.noise == "none":
        raise InputError("method='mahalanobis' without noise is the squared distance; use method='sqeuclidean'")
    if options.folds is not None and method not in CROSS_VALIDATED:
        raise InputError(f"folds={options.folds!r} has no meaning for method={method!r}, which is not cross-validated")
    if method in _NEED_REPETITIONS and design is None:
        raise InputError(
            f"method={method!r} needs repeated observations of the stimuli, and every stimulus occurs once: a network "
            "gives one pattern a stimulus unless something varies it. Record it repeatedly (augmentation, dropout, "
            "seeds, added noise), give the recordings as a list of stores, and declare repetitions=…; or use "
            "method='sqeuclidean' or 'correlation'"
        )
    if design is None:
        return recordings
    declared = _declared(recordings, options)
    if declared is None and method in _NEED_REPETITIONS:
        raise InputError(
            f"method={method!r} on a network's repetitions depends on what was repeated, which is not declared; say "
            "repetitions='augmentation', 'dropout', 'seeds', 'noise' or, for recorded activity, 'recorded'"
        )
    if declared is None and not recordings.averaged and options.stimuli is None:
        twice = recordings.source.ids[design.unfolded.counts[0] > 1][:5]
        raise InputError(
            f"stimuli occur more than once ({', '.join(repr(str(value)) for value in twice)}): make their ids unique, "
            "or declare the rows as repetitions with repetitions='augmentation', 'recorded', …, to average them"
        )
    if method not in CROSS_VALIDATED:
        return recordings
    if options.folds is None:
        known = sorted(key for key in recordings.columns if key not in ("stimulus", options.stimuli))
        raise InputError(
            f"method={method!r} needs folds with independent noise, which the order of the data cannot tell; name the "
            f"coordinate that does with folds=… (there are: {', '.join(map(repr, known)) or 'none, add one'})"
        )
    return recordings.with_folds(options.folds)


def _units(options: RdmOptions) -> str:
    """Unit of measure of a dissimilarity."""
    if options.method in BOUNDED or (options.method in NORMALISED and options.noise != "none"):
        return "1"
    return "activation" if options.method in (*POISSON, "euclidean") else "activation²"


def _count(result: xr.Dataset, layers: Sequence[Layer], found: Sequence[LayerRdm], options: RdmOptions) -> None:
    """Add what was counted in each layer."""

    def add(name: str, values: Sequence[float], long_name: str) -> None:
        result[name] = ("layer", np.array(values), {"long_name": long_name, "units": "1"})

    add("n_units", [layer.n_units for layer in layers], "units")
    add("constant_patterns", [len(one.constant) for one in found], "stimuli without a defined dissimilarity")
    add("undefined_pairs", [int(np.isnan(one.vector).sum()) for one in found], "pairs without a dissimilarity")
    if options.method in NORMALISED and options.noise != "none":
        add("silent_units", [one.n_silent for one in found], "units that never change")
        if options.noise != "diagonal":
            add("shrinkage", [one.shrinkage for one in found], "shrinkage intensity of the noise covariance")
    if any(one.n_missing for one in found):
        add("missing_values", [one.n_missing for one in found], "missing values")


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw the RDMs as panels.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`rdm` returned.
    **settings
        Further settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import rdm_plot

    return rdm_plot.plot(result, **settings)
