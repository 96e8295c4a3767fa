"""Banded ridge encoding: neurons predicted from several feature spaces at once, each with a penalty of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field, field_validator

from actkit.analyses.encoding_bands import Band, BandScores, band_grams, candidate_weights, crossvalidate, open_bands
from actkit.analyses.encoding_gram import warn_copies
from actkit.analyses.encoding_inference import median_interval
from actkit.analyses.encoding_recording import Problem, recorded_problem
from actkit.analyses.encoding_ridge import PENALTIES, ascending, warn_edges
from actkit.analyses.encoding_scores import about, divided, median_of_defined, score_variables
from actkit.analyses.neuron_reliability import FLOOR
from actkit.options import Options, with_options
from actkit.results import describe, fingerprint

__all__ = ["BandedOptions", "encode_banded"]


class BandedOptions(Options):
    """Options of :func:`encode_banded`."""

    layers: list[str] | None = Field(
        None,
        description="Where the bands are the layers of one source: names or patterns of those to take (* within a "
        "component, ** across dots); all by default.",
    )
    folds: int = Field(5, ge=2, description="Parts into which the stimuli are split; each is predicted from the rest.")
    inner_folds: int = Field(
        5, ge=2, description="Parts of the training stimuli, over which weights and penalties are chosen."
    )
    penalties: list[float] = Field(
        PENALTIES,
        min_length=1,
        description="Penalties to choose from, as multiples of the mean squared length of the centred training "
        "patterns, to which every band is scaled.",
    )
    n_candidates: int = Field(
        60,
        ge=1,
        description="Weights of the bands to choose from: equal ones, each band alone, and random ones from Dirichlet "
        "distributions with the concentrations 0.1 and 1 in turn.",
    )
    reliability_floor: float = Field(
        FLOOR, gt=0, le=1, description="Neurons below this reliability are reported and not corrected for noise."
    )
    keep_predictions: bool = Field(
        False, description="Keep the held-out predictions of every stimulus and neuron, whole and by band."
    )
    n_draws: int = Field(1000, ge=0, description="Bootstrap draws of neurons for the intervals of medians.")
    memory: str = Field("1GB", description="Most memory to use for blocks and products, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the folds, candidates and draws.")

    @field_validator("penalties")
    @classmethod
    def _ascending(cls, values: list[float]) -> list[float]:
        return ascending(values)


@with_options(BandedOptions)
def encode_banded(
    bands: Any,
    responses: xr.DataArray,
    reliability: Any = None,
    groups: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: BandedOptions,
) -> xr.Dataset:
    """Predict every neuron from several feature spaces (bands) together, on stimuli that the map has not seen.

    Ordinary ridge regression on layers put side by side shrinks all of them alike, so that wide or loud ones win. Here
    each neuron chooses how much each band counts, within the training stimuli of each fold: weights γ of the bands on
    the simplex and a penalty α, which is ridge regression with the penalty α / γ_b for band b. A weight of 0 leaves a
    band out.

    Parameters
    ----------
    bands : mapping, ActivationStore, path or xarray.Dataset
        Name of the band → array or DataArray (stimulus first), ``(store, layer)``, ``(store, [layer, ...])``, whose
        units stand side by side, or a store of a single layer; or one source, each layer of which is a band. Bands can
        come from different models. Stimuli that were not recorded are left out.
    responses : xarray.DataArray
        A recording with the dims (stimulus, repetition, neuron), or averages (stimulus, neuron); repetitions are
        averaged. Stimuli are aligned by id.
    reliability : xarray.Dataset, xarray.DataArray, mapping of neuron to number, or sequence, optional
        Reliability ρ of each neuron's average over repetitions (a ratio of variances). With it, scores are corrected
        for noise.
    groups : str, sequence or mapping, optional
        Stimuli of one group are never split between training and test, nor between inner folds; by default the
        coordinate ``group`` of the recording, where it has one.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the folds; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        By neuron: ``r``, ``r2``, ``explained_variance`` and ``r_fold`` (fold, neuron) of the whole prediction, as
        :func:`actkit.encode` defines them; ``split`` (band, neuron): the share of explained variance of each band by
        the product measure, which add up to ``explained_variance``; ``band_weight`` (band, fold, neuron): chosen γ;
        ``penalty`` (fold, neuron). ``median_explained``, ``explained_low``, ``explained_high``, and ``median_split``,
        ``split_low``, ``split_high`` (band): medians over neurons with 95 % bootstrap intervals over neurons. With
        reliability: ``reliability``, ``ceiling`` √ρ, ``r_corrected`` (r/√ρ), ``r2_corrected`` (r²/ρ),
        ``explained_variance_corrected`` and ``split_corrected`` (divided by ρ), NaN for neurons below the floor. With
        ``keep_predictions``: ``predicted`` (stimulus, neuron), and ``predicted_by_band`` (band, stimulus, neuron), what
        each band adds to the training mean.

    Raises
    ------
    InputError
        If a band has several layers and none was named, recorded stimuli are missing from a band, there are too few
        stimuli or groups for the folds, the recording has a time axis, reliabilities do not fit the neurons,
        activations are NaN or infinite, a band is reduced by principal components of the recorded stimuli, or the
        memory is too small.
    DataError
        If the recording is not valid, or a neuron lacks the response to a stimulus.
    LayerError
        If a layer does not exist.

    Warns
    -----
    UserWarning
        If chosen penalties lie at the edge of the grid, or copies of a stimulus are in different folds; see
        :func:`actkit.encode`.

    Notes
    -----
    Bands that correlate share what they both predict in proportions that the product measure sets; for what a band
    explains and no other does, see :func:`actkit.analyses.variance_partitioning.partition_variance`. With many bands,
    random candidates become few for the simplex: give more, at a cost that is proportional.

    References
    ----------
    Dupré la Tour, Eickenberg, Nunez-Elizalde & Gallant (2022), Feature-space selection with banded ridge regression,
    NeuroImage 264; Nunez-Elizalde, Huth & Gallant (2019), NeuroImage 197; product measure: Pratt (1987).
    """
    opened = open_bands(bands, ids, options.layers)
    candidates = candidate_weights(len(opened), options.n_candidates, options.seed)
    choices = len(candidates) * len(options.penalties)
    inner = options.inner_folds if choices > 1 else 0
    problem = recorded_problem(responses, reliability, groups, options.folds, inner, options.seed)
    grams, twins = band_grams(opened, problem.stimuli, options.memory)
    scores = crossvalidate(
        grams,
        problem,
        candidates,
        np.array(options.penalties),
        options.folds,
        options.inner_folds,
        options.seed,
        progress,
    )
    warn_edges(scores.low, scores.high, scores.r.size, "fold, neuron", options.penalties)
    warn_copies(twins, problem.test_fold, problem.stimuli)
    return describe(
        _collect(scores, opened, problem, options),
        "encoding_banded",
        options,
        {
            "responses": fingerprint(problem.averaged),
            **{f"band {band.name}": band.source.fingerprint() for band in opened},
        },
        bands=[band.name for band in opened],
        networks=[str(band.source.attrs.get("network", band.source.name)) for band in opened],
        **problem.attrs(options.folds, options.reliability_floor),
        n_candidates=len(candidates),
        interval=f"95 % percentile bootstrap of the median, {options.n_draws} draws of neurons, which it generalises "
        "to (stimuli and fits as they are)"
        if options.n_draws
        else None,
        seed=options.seed,
    )


def _collect(scores: BandScores, bands: list[Band], problem: Problem, options: BandedOptions) -> xr.Dataset:
    """Bring scores and choices into one Dataset."""
    rho, floor = problem.rho, options.reliability_floor
    split = scores.split / np.where(scores.spread > 0, scores.spread, np.nan)
    low, high = median_interval(split, options.n_draws, options.seed)
    both = ("band", "neuron")
    data: dict[str, Any] = dict(score_variables(scores.r, scores.error, scores.spread, rho, floor))
    whole = data["explained_variance"][1]
    ends = median_interval(whole, options.n_draws, options.seed)
    data |= {
        "split": (both, split, about("held-out share of variance explained, split by the product measure")),
        "median_explained": ((), median_of_defined(whole, axis=0), about("median over neurons of explained variance")),
        "explained_low": ((), ends[0], about("lower end of its 95 % interval")),
        "explained_high": ((), ends[1], about("upper end of its 95 % interval")),
        "median_split": ("band", median_of_defined(split, axis=1), about("median share over neurons")),
        "split_low": ("band", low, about("lower end of its 95 % interval")),
        "split_high": ("band", high, about("upper end of its 95 % interval")),
        "band_weight": (("band", "fold", "neuron"), scores.weights, about("weight of the band")),
        "penalty": (("fold", "neuron"), scores.penalty, about("penalty, multiple of the mean squared pattern length")),
    }
    if rho is not None:
        data["split_corrected"] = (both, divided(split, rho, floor), about("share of the noise-free variance"))
    if options.keep_predictions:
        data["predicted"] = (("stimulus", "neuron"), scores.predicted, {"long_name": "held-out prediction"})
        data["predicted_by_band"] = (
            ("band", "stimulus", "neuron"),
            scores.by_band,
            {"long_name": "what the band adds to the training mean"},
        )
    coords = {
        "band": [band.name for band in bands],
        "n_units": ("band", np.array([sum(layer.n_units for layer in band.layers) for band in bands])),
        "neuron": problem.neurons,
        "fold": np.arange(options.folds),
        "stimulus": problem.stimuli,
        "test_fold": ("stimulus", problem.test_fold),
    }
    return xr.Dataset(data, coords=coords)
