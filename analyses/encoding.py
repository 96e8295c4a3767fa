"""Encoding: how well the units of each layer, linearly combined, predict recorded neurons on held-out stimuli."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field, field_validator

from actkit.analyses.encoding_folds import check_folds, deal
from actkit.analyses.encoding_pls import pls
from actkit.analyses.encoding_ridge import RidgeFit, ridge, scale_of
from actkit.analyses.neuron_inputs import check_complete, recorded_rows, reliability_of
from actkit.analyses.neuron_reliability import FLOOR, noise_correct
from actkit.analyses.source import Layer, choose_layers, label_column, open_source
from actkit.compute import format_bytes, parse_bytes
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings_neurons import average, stimulus_groups
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Half decades around the mean squared length of a training pattern, which penalties are multiples of.
_PENALTIES = [float(f"{10.0**k:.6g}") for k in np.arange(-5, 4.25, 0.5)]
_NEAR = 0.01  # relative difference in error that does not count at the highest penalty; a tenth of it at the lowest
_MATRICES = 6  # n × n matrices that are in memory together


class EncodingOptions(Options):
    """Options of :func:`encode`."""

    layers: list[str] | None = Field(
        None, description="Layer names or patterns (* within a component, ** across dots); all layers by default."
    )
    model: Literal["ridge", "pls"] = Field(
        "ridge",
        description="Linear map: ridge regression with a penalty for each neuron, or partial least squares (PLS2).",
    )
    folds: int = Field(5, ge=2, description="Parts into which the stimuli are split; each is predicted from the rest.")
    inner_folds: int = Field(
        5, ge=2, description="Ridge: parts of the training stimuli, over which the penalties are chosen."
    )
    penalties: list[float] = Field(
        _PENALTIES,
        min_length=1,
        description="Ridge: penalties to choose from, as multiples of the mean squared length of the centred training "
        "patterns, so that one grid suits layers of any width; a single one is used as it is.",
    )
    components: int = Field(25, ge=1, description="PLS: number of components.")
    standardise_neurons: bool = Field(
        False,
        description="PLS: divide each neuron by its standard deviation over the training stimuli, so that loud neurons "
        "do not choose the components; ridge predictions do not depend on it.",
    )
    reliability_floor: float = Field(
        FLOOR, gt=0, le=1, description="Neurons below this reliability are reported and not corrected for noise."
    )
    keep_predictions: bool = Field(False, description="Keep the held-out predictions of every stimulus and neuron.")
    memory: str = Field("1GB", description="Most memory to use for blocks and products, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the folds.")

    @field_validator("penalties")
    @classmethod
    def _ascending(cls, values: list[float]) -> list[float]:
        if not all(0 < value < np.inf for value in values):
            raise ValueError("penalties are positive and finite")
        if any(b <= a for a, b in pairwise(values)):
            raise ValueError("penalties go up, each one once")
        return values


@dataclass
class _Scores:
    """What is kept of one layer; arrays over folds and neurons."""

    r: np.ndarray
    penalty: np.ndarray
    components: np.ndarray
    predicted: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    low: int = 0
    high: int = 0


@with_options(EncodingOptions)
def encode(
    source: Any,
    responses: xr.DataArray,
    reliability: Any = None,
    groups: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: EncodingOptions,
) -> xr.Dataset:
    """Predict every neuron from every layer, on stimuli that the map has not seen.

    Units are centred by the training stimuli of each fold and not scaled, so that one matrix of inner products between
    stimuli (n × n, computed once, block by block) serves all folds, penalties, components and neurons of a layer, at
    whatever number of units. Penalties are chosen for each neuron by cross-validation within the training stimuli.

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray or mapping of name to array
        A store, or arrays whose first dim is ``stimulus``. Stimuli that were not recorded are left out.
    responses : xarray.DataArray
        A recording with the dims (stimulus, repetition, neuron), or averages (stimulus, neuron); repetitions are
        averaged. Stimuli are aligned by id.
    reliability : xarray.Dataset, xarray.DataArray, mapping of neuron to number, or sequence, optional
        Reliability ρ of each neuron's average over repetitions (a ratio of variances); a Dataset carries it as
        ``reliability``. With it, scores are corrected for noise.
    groups : str, sequence or mapping, optional
        Stimuli of one group (copies of one image, say) are never split between training and test, nor between inner
        folds; by default the coordinate ``group`` of the recording, where it has one.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        ``r`` (layer, neuron): Pearson correlation of predicted and recorded responses over held-out stimuli, the mean
        over the folds in which it is defined (``r_fold``; NaN where one side does not vary); ``r2``: its square, with
        the sign of r; ``explained_variance``: 1 − squared error / squared deviation from the training mean, summed over
        folds (negative where the mean predicts better); ``penalty`` (layer, fold, neuron) for ridge, ``n_components``
        (layer, fold) for PLS. With reliability: ``reliability`` and ``ceiling`` √ρ (neuron), ``r_corrected`` = r/√ρ and
        ``r2_corrected`` = r²/ρ, NaN for neurons below the floor. With ``keep_predictions``: ``predicted`` (layer,
        stimulus, neuron). The coordinate ``test_fold`` (stimulus) says in which fold a stimulus was held out.

    Raises
    ------
    InputError
        If recorded stimuli are missing from the source, there are too few stimuli or groups for the folds, the
        recording has a time axis, reliabilities do not fit the neurons, activations are NaN or infinite, or the memory
        is too small.
    DataError
        If the recording is not valid, or a neuron lacks the response to a stimulus.
    LayerError
        If a layer does not exist.

    Warns
    -----
    UserWarning
        If the best penalty of a neuron is the lowest or highest of the grid, unless errors have levelled off there: at
        the highest within 1 % of the error of predicting the mean (a neuron that nothing predicts rightly takes it),
        at the lowest within 0.1 % of the next penalty's. Or if stimuli with the same activations in every layer are in
        different folds.

    References
    ----------
    Schrimpf et al. (2020), Integrative benchmarking to advance neurally mechanistic models of human intelligence,
    Neuron 108 (PLS with 25 components); noise correction: Spearman (1904), Am. J. Psychol. 15.
    """
    averaged = average(responses)
    if "time" in averaged.dims:
        raise InputError("the recording has a time axis; select a time or average a window, such as .mean('time')")
    y = averaged.values
    stimuli = [str(i) for i in averaged["stimulus"].values]
    neurons = [str(i) for i in averaged["neuron"].values]
    check_complete(y, stimuli, neurons)
    opened = open_source(source, ids)
    chosen = choose_layers(opened.layers, options.layers)
    rows = recorded_rows(opened.ids, stimuli)
    rho = None if reliability is None else reliability_of(reliability, neurons)
    if groups is None:
        by_group = stimulus_groups(averaged)
    else:
        columns = {str(k): c.values for k, c in averaged.coords.items() if c.dims == ("stimulus",)}
        words = label_column(groups, "groups", stimuli, columns)[1]
        by_group = np.unique(words, return_inverse=True)[1]
    test_fold = deal(by_group, options.folds, options.seed, 0)
    inner = options.inner_folds if options.model == "ridge" and len(options.penalties) > 1 else 0
    check_folds(test_fold, by_group, options.folds, inner)

    kept: list[_Scores] = []
    twins = np.ones((len(y), len(y)), dtype=bool)
    for layer in progress_bar(chosen, desc="encoding", unit="layer", enabled=progress):
        gram = _gram(layer, rows, len(opened.ids), stimuli, options)
        twins &= _same(gram)
        kept.append(_layer_scores(gram, y, test_fold, by_group, options))
        del gram
    _warn_edges(kept, options)
    _warn_twins(twins, test_fold, stimuli)
    result = _collect(kept, chosen, stimuli, neurons, test_fold, rho, options)
    n_groups = len(np.unique(by_group))
    whole = f", {n_groups} groups kept whole" if n_groups < len(y) else ""
    return describe(
        result,
        "encoding",
        options,
        {"source": opened.fingerprint(), "responses": fingerprint(averaged)},
        network=str(opened.attrs.get("network", opened.name)),
        recording=str(averaged.name or averaged.attrs.get("name") or "recording"),
        region=str(averaged.attrs["region"]) if "region" in averaged.attrs else None,
        model=options.model,
        splitting=f"{options.folds}-fold crossvalidation over stimuli{whole}",
        n_stimuli=len(y),
        n_stimuli_left_out=len(opened.ids) - len(y),
        n_neurons=len(neurons),
        n_below_floor=None if rho is None else int((~(rho >= options.reliability_floor)).sum()),
        seed=options.seed,
    )


def _gram(layer: Layer, rows: np.ndarray, n: int, stimuli: list[str], options: EncodingOptions) -> np.ndarray:
    """Inner products of the stimuli, units centred over all of them (for rounding; folds centre again)."""
    if layer.n_units < 1:
        raise InputError(f"layer {layer.name!r} has no units to predict from; leave it out")
    budget, square, least = parse_bytes(options.memory), 8 * len(rows) ** 2, 8 * n
    if budget < _MATRICES * square + 4 * least:
        raise InputError(
            f"memory={options.memory!r} is too small for {len(rows)} stimuli: products and one block need "
            f"{format_bytes(_MATRICES * square + 4 * least)}; give at least that much"
        )
    gram = np.zeros((len(rows), len(rows)))
    for block in layer.blocks((budget - 2 * square) // 4):
        host = block.detach().cpu().double().numpy() if hasattr(block, "detach") else np.asarray(block)
        values = host[rows].astype(np.float64, copy=False)
        if not np.isfinite(values).all():
            bad = stimuli[int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])]
            raise InputError(
                f"layer {layer.name!r} holds NaN or infinite activations (stimulus {bad!r}), from which nothing can be "
                "predicted; record the layer again in float32, or leave these stimuli out"
            )
        mean = values.mean(axis=0)
        values = values - mean
        # A spread of a few rounding steps is none.
        values[:, np.abs(values).max(axis=0) <= 10 * np.finfo(np.float64).eps * np.abs(mean)] = 0.0
        gram += values @ values.T
    return gram


def _layer_scores(
    gram: np.ndarray, y: np.ndarray, test_fold: np.ndarray, groups: np.ndarray, options: EncodingOptions
) -> _Scores:
    """Predict every fold from the others, and score."""
    n_neurons, folds = y.shape[1], options.folds
    scores = _Scores(
        r=np.full((folds, n_neurons), np.nan),
        penalty=np.full((folds, n_neurons), np.nan),
        components=np.zeros(folds, dtype=np.int64),
        predicted=np.empty_like(y),
        error=np.zeros(n_neurons),
        spread=np.zeros(n_neurons),
    )
    grid = np.array(options.penalties)
    for fold in range(folds):
        train, test = np.flatnonzero(test_fold != fold), np.flatnonzero(test_fold == fold)
        scale, mean = scale_of(gram, train), y[train].mean(axis=0)
        if scale == 0:  # a layer that is constant over the training stimuli predicts the mean
            predicted = np.tile(mean, (len(test), 1))
        elif options.model == "ridge":
            inner: list[np.ndarray] = []
            if len(grid) > 1:
                part = deal(groups[train], options.inner_folds, options.seed, fold + 1)
                inner = [train[part == number] for number in range(options.inner_folds)]
            fit = ridge(gram, y, train, test, grid * scale, inner)
            predicted, scores.penalty[fold] = fit.predicted, grid[fit.chosen]
            low, high = _edges(fit, np.ptp(y[train], axis=0) > 0)
            scores.low, scores.high = scores.low + low, scores.high + high
        else:
            spread = y[train].std(axis=0) if options.standardise_neurons else np.ones(n_neurons)
            spread[spread == 0] = 1.0
            answer = pls(gram, y / spread, train, test, options.components)
            predicted, scores.components[fold] = answer.predicted * spread, answer.n_components
        scores.predicted[test] = predicted
        scores.r[fold] = _correlation(predicted, y[test])
        scores.error += ((y[test] - predicted) ** 2).sum(axis=0)
        scores.spread += ((y[test] - mean) ** 2).sum(axis=0)
    return scores


def _edges(fit: RidgeFit, varies: np.ndarray) -> tuple[int, int]:
    """Count neurons at the lowest and at the highest penalty for whom a wider grid may hold a better one."""
    if len(fit.errors) < 2:
        return 0, 0
    # A neuron that nothing predicts wants endless penalty: at the mean's error, more of it changes nothing. With more
    # units than stimuli, errors level off towards no penalty too.
    as_mean = np.abs(fit.errors[-1] - fit.baseline) <= _NEAR * fit.baseline
    level = fit.errors[1] - fit.errors[0] <= 0.1 * _NEAR * fit.errors[1]
    level &= fit.errors[0] < (1 - _NEAR) * fit.baseline
    low, high = varies & (fit.chosen == 0) & ~level, varies & (fit.chosen == len(fit.errors) - 1) & ~as_mean
    return int(low.sum()), int(high.sum())


def _correlation(predicted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Pearson correlation of columns; NaN where one of the two does not vary beyond rounding."""
    norms = []
    for values in (predicted, observed):
        centred = values - values.mean(axis=0)
        norm = np.linalg.norm(centred, axis=0)
        norm[norm <= 1e-12 * np.sqrt(len(values)) * np.abs(values).max(axis=0)] = np.nan
        norms.append(centred / norm)
    return np.clip((norms[0] * norms[1]).sum(axis=0), -1, 1)  # a NaN column sums to NaN


def _same(gram: np.ndarray) -> np.ndarray:
    """Pairs of stimuli whose patterns are equal up to the rounding of single precision."""
    length = np.diag(gram)
    total = length[:, None] + length[None, :]
    return (total - 2 * gram <= 1e-10 * total) | (total <= 1e-14 * max(float(length.mean()), 1e-300))


def _warn_edges(kept: Iterable[_Scores], options: EncodingOptions) -> None:
    """Say when the grid of penalties may have been too narrow."""
    kept = list(kept)
    low, high = sum(scores.low for scores in kept), sum(scores.high for scores in kept)
    if options.model != "ridge" or len(options.penalties) < 2 or not low + high:
        return
    fits = sum(scores.r.size for scores in kept)
    warnings.warn(
        f"of {fits} choices of a penalty (layer, fold, neuron), {low} took the lowest of the grid "
        f"({options.penalties[0]:g}) and {high} the highest ({options.penalties[-1]:g}), so better ones may lie "
        "outside; widen penalties=",
        stacklevel=4,
    )


def _warn_twins(twins: np.ndarray, test_fold: np.ndarray, stimuli: list[str]) -> None:
    """Say when copies of a stimulus are on both sides of a split."""
    across = np.triu(twins & (test_fold[:, None] != test_fold[None, :]), 1)
    if across.any() and not twins.all():  # all equal: a constant layer, not copies
        i, j = np.argwhere(across)[0]
        warnings.warn(
            f"{int(across.sum())} pairs of stimuli in different folds have the same activations in every layer (the "
            f"first: {stimuli[i]!r} and {stimuli[j]!r}), so held-out scores are too high if they are copies of one "
            "image; give groups=, or the coordinate 'group' of the recording",
            stacklevel=4,
        )


def _collect(
    kept: list[_Scores],
    chosen: list[Layer],
    stimuli: list[str],
    neurons: list[str],
    test_fold: np.ndarray,
    rho: np.ndarray | None,
    options: EncodingOptions,
) -> xr.Dataset:
    """Bring the scores of all layers into one Dataset."""
    r_fold = np.stack([scores.r for scores in kept])
    defined = np.isfinite(r_fold)
    count = defined.sum(axis=1)
    r = np.where(count > 0, np.where(defined, r_fold, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
    error, spread = (np.stack([getattr(scores, name) for scores in kept]) for name in ("error", "spread"))
    explained = 1 - error / np.where(spread > 0, spread, np.nan)
    both, every = ("layer", "neuron"), ("layer", "fold", "neuron")
    data: dict[str, Any] = {
        "r": (both, r, _about("held-out correlation, mean over folds")),
        "r2": (both, r * np.abs(r), _about("squared held-out correlation, with its sign")),
        "explained_variance": (both, explained, _about("held-out share of variance explained (1 − error / deviation)")),
        "r_fold": (every, r_fold, _about("held-out correlation in each fold")),
    }
    if options.model == "ridge":
        penalty = np.stack([scores.penalty for scores in kept])
        data["penalty"] = (every, penalty, _about("penalty, multiple of the mean squared length of training patterns"))
    else:
        used = np.stack([scores.components for scores in kept])
        data["n_components"] = (("layer", "fold"), used, _about("components in use"))
    if rho is not None:
        floor = options.reliability_floor
        data |= {
            "reliability": ("neuron", rho, _about("reliability of the average over repetitions")),
            "ceiling": ("neuron", np.sqrt(np.clip(rho, 0, None)), _about("highest r of a model without noise, √ρ")),
            "r_corrected": (both, noise_correct(r, rho, floor=floor), _about("noise-corrected correlation r/√ρ")),
            "r2_corrected": (
                both,
                noise_correct(r, rho, by="r2/rho", floor=floor),
                _about("noise-corrected squared correlation r²/ρ"),
            ),
        }
    if options.keep_predictions:
        values = np.stack([scores.predicted for scores in kept])
        data["predicted"] = (("layer", "stimulus", "neuron"), values, {"long_name": "held-out prediction"})
    coords = {
        "layer": [layer.name for layer in chosen],
        "n_units": ("layer", np.array([layer.n_units for layer in chosen])),
        "neuron": neurons,
        "fold": np.arange(options.folds),
        "stimulus": stimuli,
        "test_fold": ("stimulus", test_fold),
    }
    return xr.Dataset(data, coords=coords)


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def plot(result: xr.Dataset | Mapping[str, xr.Dataset], **settings: Any) -> Figure:
    """Draw held-out correlations by layer; see :func:`actkit.analyses.encoding_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset or mapping of network name to Dataset
        What :func:`encode` returned.
    **settings
        Further settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import encoding_plot

    return encoding_plot.plot(result, **settings)
