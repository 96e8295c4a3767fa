"""Banded ridge regression on Gram matrices: several feature spaces, weighed anew for every neuron.

Each band has its own penalty; what counts are their ratios and one common penalty. With K_b the inner products of band
b, divided by the mean squared length of its centred training patterns, and weights γ ≥ 0 that sum to 1, ridge
regression with the penalty α on ``K = Σ_b γ_b K_b`` is ridge regression on all units of all bands together in
which band b has the penalty α / γ_b. γ = 0 leaves a band out. Weights are searched at random on the simplex, α on a
grid, both by cross-validation within the training stimuli, and each neuron takes its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from actkit.analyses.encoding_gram import layer_gram, same_patterns
from actkit.analyses.encoding_recording import Problem
from actkit.analyses.encoding_ridge import (
    at_edges,
    centre,
    decompose,
    errors_of_the_mean,
    least,
    left_out_errors,
    places,
    scale_of,
)
from actkit.analyses.encoding_scores import correlation
from actkit.analyses.neuron_inputs import recorded_rows
from actkit.analyses.reducer_leak import check_reducer_leak
from actkit.analyses.source import Layer, Source, choose_layers, open_source
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.resampling import Stream, generator

_CANDIDATES = 2**62  # first number of the random streams of candidates; folds are dealt with the numbers from 0
_CONCENTRATIONS = (0.1, 1.0)  # of the Dirichlet distribution, in turn: near the corners, and all over the simplex
_BETTER = 1e-10  # relative difference of inner errors below which an earlier candidate is kept: rounding


@dataclass(frozen=True)
class Band:
    """One feature space.

    Attributes
    ----------
    name : str
        What it is called.
    layers : list of Layer
        Its layers, whose units stand side by side.
    source : Source
        Where they come from.
    given : object
        The source as it was given.
    """

    name: str
    layers: list[Layer]
    source: Source
    given: object


@dataclass(frozen=True)
class BandedFit:
    """Held-out predictions of banded ridge regression.

    Attributes
    ----------
    by_band : numpy.ndarray
        ``(n_bands, n_test, n_neurons)`` what each band adds to the mean; their sum and `mean` are the prediction.
    mean : numpy.ndarray
        ``(n_neurons,)`` mean over the training stimuli.
    weights : numpy.ndarray
        ``(n_bands, n_neurons)`` chosen weights γ.
    chosen : numpy.ndarray of int
        ``(n_neurons,)`` chosen penalties.
    errors : numpy.ndarray
        ``(n_penalties, n_neurons)`` inner errors of the chosen weights; NaN where there was nothing to choose.
    baseline : numpy.ndarray
        ``(n_neurons,)`` inner errors of the mean.
    """

    by_band: np.ndarray
    mean: np.ndarray
    weights: np.ndarray
    chosen: np.ndarray
    errors: np.ndarray
    baseline: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """Predictions ``(n_test, n_neurons)``, in the unit of the responses."""
        return np.asarray(self.mean + self.by_band.sum(axis=0))


def open_bands(bands: object, ids: Sequence[object] | np.ndarray | None, patterns: Sequence[str] | None) -> list[Band]:
    """Read bands: a source of which each layer is one, or a mapping of names to sources.

    Parameters
    ----------
    bands : mapping, ActivationStore, path or xarray.Dataset
        Name → array, DataArray, ``(source, layer)``, ``(source, [layer, ...])`` or a source of a single layer; or a
        source whose layers are the bands.
    ids : sequence of str or None
        Stimulus ids of arrays that carry none.
    patterns : sequence of str or None
        Of a source, the layers to take.

    Returns
    -------
    list of Band
        In the order given.

    Raises
    ------
    InputError
        If a band has several layers and none was named, or there is no band.
    """
    if isinstance(bands, xr.Dataset) or not isinstance(bands, Mapping):
        source = open_source(bands, ids)
        return [Band(layer.name, [layer], source, bands) for layer in choose_layers(source.layers, patterns)]
    if not bands:
        raise InputError("no bands were given; give at least one, such as {'conv1': (store, 'conv1')}")
    if patterns is not None:
        raise InputError("layers= chooses among the layers of one source; give (source, layer) for each band instead")
    opened = []
    for key, given in bands.items():
        name, wanted = str(key), None
        if isinstance(given, tuple):
            if len(given) != 2:
                raise InputError(f"band {name!r} is a tuple of {len(given)}; give (source, layer)")
            given, wanted = given[0], [given[1]] if isinstance(given[1], str) else list(given[1])
        carries = hasattr(given, "layer_attrs") or isinstance(given, str | Path)
        source = open_source(given, None if carries else ids)
        layers = choose_layers(source.layers, wanted)
        if wanted is None and len(layers) > 1:
            raise InputError(
                f"band {name!r} is a source of {len(layers)} layers, which may be far apart; name those that are the "
                "band, such as (source, 'conv1') or (source, ['conv1', 'conv2'])"
            )
        opened.append(Band(name, layers, source, given))
    return opened


def band_grams(bands: Sequence[Band], stimuli: Sequence[str], memory: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Inner products of the recorded stimuli in every band.

    Parameters
    ----------
    bands : sequence of Band
        The bands.
    stimuli : sequence of str
        The recorded stimuli.
    memory : str
        Most memory to use.

    Returns
    -------
    grams : list of numpy.ndarray
        ``(n, n)`` each.
    twins : numpy.ndarray of bool
        ``(n, n)`` stimuli that have the same pattern in every band.

    Raises
    ------
    InputError
        If stimuli are missing, a band is reduced by principal components of the stimuli, values are not finite, or the
        memory is too small.
    """
    grams: list[np.ndarray] = []
    twins = np.ones((len(stimuli), len(stimuli)), dtype=bool)
    for band in bands:
        rows = recorded_rows(band.source.ids, stimuli)
        check_reducer_leak(band.given, [layer.name for layer in band.layers], stimuli, "held out in some fold")
        gram = np.zeros_like(twins, dtype=np.float64)
        for layer in band.layers:
            # The bands' own matrices and, in the fit, their centred parts.
            gram += layer_gram(layer, rows, len(band.source.ids), stimuli, memory, held=2 * len(bands))
        twins &= same_patterns(gram)
        grams.append(gram)
    return grams, twins


def candidate_weights(n_bands: int, count: int, seed: int) -> np.ndarray:
    """Draw weights of the bands to choose from.

    Parameters
    ----------
    n_bands : int
        Number of bands.
    count : int
        Number of candidates, if there are two bands or more.
    seed : int
        Seed; candidate k is the same whatever the count.

    Returns
    -------
    numpy.ndarray
        ``(count, n_bands)``, rows that sum to 1: equal weights, each band alone, then draws from Dirichlet
        distributions with the concentrations 0.1 and 1 in turn.

    References
    ----------
    Dupré la Tour, Eickenberg, Nunez-Elizalde & Gallant (2022), Feature-space selection with banded ridge regression,
    NeuroImage 264 (random search).
    """
    if n_bands == 1:
        return np.ones((1, 1))
    fixed = [np.full(n_bands, 1 / n_bands), *np.eye(n_bands)]
    drawn = []
    for number in range(count - len(fixed)):
        random = generator(seed, _CANDIDATES + number, Stream.STIMULI)
        drawn.append(random.dirichlet(np.full(n_bands, _CONCENTRATIONS[number % len(_CONCENTRATIONS)])))
    return np.array([*fixed, *drawn])[:count]


def banded_ridge(
    grams: Sequence[np.ndarray],
    responses: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    candidates: np.ndarray,
    penalties: np.ndarray,
    inner: Sequence[np.ndarray] = (),
) -> BandedFit:
    """Predict held-out responses, each neuron with the weights of bands and the penalty that serve it best.

    One decomposition a candidate serves all penalties, inner folds and neurons; the inner errors are those of
    :func:`actkit.analyses.encoding_ridge.ridge`.

    Parameters
    ----------
    grams : sequence of numpy.ndarray
        For each band ``(n, n)`` inner products, in float64; any centring and scale.
    responses : numpy.ndarray
        ``(n, n_neurons)``.
    train, test : numpy.ndarray of int
        Stimuli to learn from, and stimuli held out.
    candidates : numpy.ndarray
        ``(n_candidates, n_bands)`` weights γ.
    penalties : numpy.ndarray
        Penalties α in ascending order, as multiples of the mean squared length of a training pattern.
    inner : sequence of numpy.ndarray of int
        Stimuli of each inner fold; needed with two candidates or penalties, or more.

    Returns
    -------
    BandedFit
        Predictions by band, and what was chosen. An earlier candidate is kept at a tie.

    References
    ----------
    Dupré la Tour et al. (2022), NeuroImage 264; Nunez-Elizalde, Huth & Gallant (2019), Voxelwise encoding models with
    non-spherical multivariate normal priors, NeuroImage 197 (banded ridge).
    """
    n_neurons, n_bands = responses.shape[1], len(grams)
    mean = responses[train].mean(axis=0)
    centred = responses[train] - mean
    scales = np.array([scale_of(gram, train) for gram in grams])
    unit = np.divide(1.0, scales, out=np.zeros(n_bands), where=scales > 0)
    # A constant band predicts nothing; what it would weigh belongs to the others, or penalties would mean other things.
    live = candidates * (scales > 0)
    candidates = live / np.where(live.sum(axis=1, keepdims=True) > 0, live.sum(axis=1, keepdims=True), 1.0)
    kernels = [centre(gram, train, train) * factor for gram, factor in zip(grams, unit, strict=True)]

    choosing = len(candidates) * len(penalties) > 1
    positions = places(train, inner)
    baseline = errors_of_the_mean(responses, train, inner) if choosing else np.full(n_neurons, np.nan)
    best = np.full(n_neurons, np.inf)
    errors = np.full((len(penalties), n_neurons), np.nan)
    chosen = np.zeros(n_neurons, dtype=np.int64)
    weights = np.zeros((n_bands, n_neurons))
    dual = np.zeros((len(train), n_neurons))
    for candidate in candidates:
        kernel = sum((share * one for share, one in zip(candidate, kernels, strict=True) if share > 0), 0.0)
        values, vectors = decompose(np.broadcast_to(kernel, (len(train), len(train))))
        projected = vectors.T @ centred
        if choosing:
            found = left_out_errors(values, vectors, projected, penalties, positions)
            at = least(found)
            lowest = found[at, np.arange(n_neurons)]
            better = lowest < best * (1 - _BETTER)
            better |= np.isinf(best)
            best[better], errors[:, better], chosen[better] = lowest[better], found[:, better], at[better]
        else:
            better = np.ones(n_neurons, dtype=bool)
        weights[:, better] = candidate[:, None]
        dual[:, better] = vectors @ (projected[:, better] / (values[:, None] + penalties[chosen[better]][None, :]))
    by_band = np.stack(
        [
            centre(gram, train, test) * factor @ (dual * share)
            for gram, factor, share in zip(grams, unit, weights, strict=True)
        ]
    )
    return BandedFit(by_band, mean, weights, chosen, errors, baseline)


def split_errors(by_band: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Split what a sum of predictions explains among its parts, by the product measure.

    Part b gets ``Σ (2 t p_b − p_b p)`` of the squared deviations ``Σ t²``, p being the sum of all parts: the shares add
    up to ``Σ t² − Σ (t − p)²``, what the whole explains. Of the product of two parts each gets the same. A share can be
    negative, for a band that works against the others.

    Parameters
    ----------
    by_band : numpy.ndarray
        ``(n_bands, n_test, n_neurons)`` parts of the prediction.
    deviation : numpy.ndarray
        ``(n_test, n_neurons)`` responses minus the training mean.

    Returns
    -------
    numpy.ndarray
        ``(n_bands, n_neurons)``.

    References
    ----------
    Pratt (1987), Dividing the indivisible, Proc. 2nd Tampere Conf. in Statistics; for banded ridge: Dupré la Tour et
    al. (2022), NeuroImage 264.
    """
    whole = by_band.sum(axis=0)
    return np.asarray((by_band * (2 * deviation - whole)).sum(axis=1))


@dataclass
class BandScores:
    """What crossvalidation of banded ridge regression gives.

    Attributes
    ----------
    r, penalty : numpy.ndarray
        ``(n_folds, n_neurons)`` held-out correlation and chosen penalty.
    weights : numpy.ndarray
        ``(n_bands, n_folds, n_neurons)`` chosen weights.
    error, spread : numpy.ndarray
        ``(n_neurons,)`` squared errors and squared deviations from the training mean, over all stimuli.
    split : numpy.ndarray
        ``(n_bands, n_neurons)`` what each band explains of `spread`; see :func:`split_errors`.
    predicted : numpy.ndarray
        ``(n_stimuli, n_neurons)`` held-out predictions.
    by_band : numpy.ndarray
        ``(n_bands, n_stimuli, n_neurons)`` what each band adds to the mean.
    low, high : int
        Choices at the lowest and highest penalty where a wider grid may help.
    """

    r: np.ndarray
    penalty: np.ndarray
    weights: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    split: np.ndarray
    predicted: np.ndarray
    by_band: np.ndarray
    low: int = 0
    high: int = 0


def crossvalidate(
    grams: Sequence[np.ndarray],
    problem: Problem,
    candidates: np.ndarray,
    penalties: np.ndarray,
    folds: int,
    inner_folds: int,
    seed: int,
    progress: bool | None = False,
) -> BandScores:
    """Predict every fold from the others, and score.

    Parameters
    ----------
    grams : sequence of numpy.ndarray
        ``(n, n)`` inner products of each band.
    problem : Problem
        Responses and folds.
    candidates : numpy.ndarray
        ``(n_candidates, n_bands)`` weights to choose from.
    penalties : numpy.ndarray
        Penalties to choose from.
    folds, inner_folds : int
        Numbers of folds.
    seed : int
        Seed of the inner folds.
    progress : bool, optional
        Show a bar over the folds.

    Returns
    -------
    BandScores
        Scores and choices.
    """
    y, n_bands = problem.y, len(grams)
    n_neurons = y.shape[1]
    scores = BandScores(
        r=np.full((folds, n_neurons), np.nan),
        penalty=np.full((folds, n_neurons), np.nan),
        weights=np.zeros((n_bands, folds, n_neurons)),
        error=np.zeros(n_neurons),
        spread=np.zeros(n_neurons),
        split=np.zeros((n_bands, n_neurons)),
        predicted=np.empty_like(y),
        by_band=np.empty((n_bands, *y.shape)),
    )
    for fold in progress_bar(range(folds), desc="encoding", unit="fold", enabled=progress):
        train, test = np.flatnonzero(problem.test_fold != fold), np.flatnonzero(problem.test_fold == fold)
        choosing = len(candidates) * len(penalties) > 1
        inner = problem.inner(train, fold, inner_folds, seed) if choosing else []
        fit = banded_ridge(grams, y, train, test, candidates, penalties, inner)
        predicted, deviation = fit.predicted, y[test] - fit.mean
        scores.r[fold] = correlation(predicted, y[test])
        scores.penalty[fold], scores.weights[:, fold] = penalties[fit.chosen], fit.weights
        scores.error += ((y[test] - predicted) ** 2).sum(axis=0)
        scores.spread += (deviation**2).sum(axis=0)
        scores.split += split_errors(fit.by_band, deviation)
        scores.predicted[test], scores.by_band[:, test] = predicted, fit.by_band
        low, high = at_edges(fit.chosen, fit.errors, fit.baseline, np.ptp(y[train], axis=0) > 0)
        scores.low, scores.high = scores.low + low, scores.high + high
    return scores
