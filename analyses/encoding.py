"""Encoding: how well the units of each layer, linearly combined, predict recorded neurons on held-out stimuli."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field, field_validator

from actkit.analyses.encoding_gram import layer_gram, same_patterns, warn_copies
from actkit.analyses.encoding_inference import (
    Over,
    median_interval,
    null_correlations,
    one_sided_p,
    resampled_correlations,
    resampled_median_interval,
)
from actkit.analyses.encoding_models import FoldModel
from actkit.analyses.encoding_recording import Problem, recorded_problem
from actkit.analyses.encoding_ridge import PENALTIES, ascending, warn_edges
from actkit.analyses.encoding_scores import about, correlation, mean_of_defined, median_of_defined, score_variables
from actkit.analyses.neuron_inputs import recorded_rows
from actkit.analyses.neuron_reliability import FLOOR
from actkit.analyses.reducer_leak import check_reducer_leak
from actkit.analyses.source import Layer, choose_layers, open_source
from actkit.analyses.unit_matching_nulls import draw_orders
from actkit.compute import progress as progress_bar
from actkit.options import Options, with_options
from actkit.results import describe, fingerprint
from actkit.statistics import corrected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INTERVALS: dict[Over, str] = {
    "neuron": "neurons, which it generalises to (stimuli and fits as they are)",
    "stimulus": "held-out stimuli, which it generalises to (neurons and fits as they are)",
    "both": "neurons and held-out stimuli, which it generalises to (fits as they are)",
}
_TEST = (
    "one-sided permutation test of each neuron's held-out r: whole rows of responses change places among stimuli "
    "(groups as a whole), {n} permutations beside the observed order; each redoes {what}; folds stay; false discovery "
    "rate over the neurons of a layer"
)
_REDONE = {
    "ridge": "the choice of penalties in the inner folds and the fit of every outer fold",
    "pls": "the choice of components, where there is one, and the fit of every outer fold",
}


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
        5, ge=2, description="Parts of the training stimuli, over which penalties or numbers of components are chosen."
    )
    penalties: list[float] = Field(
        PENALTIES,
        min_length=1,
        description="Ridge: penalties to choose from, as multiples of the mean squared length of the centred training "
        "patterns, so that one grid suits layers of any width; a single one is used as it is.",
    )
    components: int | list[int] = Field(
        25,
        description="PLS: number of components; of several, each fold takes the one with the lowest inner error, as a "
        "share of each neuron's variance, averaged over neurons: PLS has one number for all neurons.",
    )
    standardise_neurons: bool = Field(
        False,
        description="PLS: divide each neuron by its standard deviation over the training stimuli, so that loud neurons "
        "do not choose the components; ridge predictions do not depend on it.",
    )
    reliability_floor: float = Field(
        FLOOR, gt=0, le=1, description="Neurons below this reliability are reported and not corrected for noise."
    )
    keep_predictions: bool = Field(False, description="Keep the held-out predictions of every stimulus and neuron.")
    n_draws: int = Field(1000, ge=0, description="Bootstrap draws of the interval of each layer's median r.")
    interval_over: Over = Field(
        "neuron", description="What the interval resamples: neurons, held-out stimuli (without refitting), or both."
    )
    n_permutations: int = Field(
        0,
        ge=0,
        description="Permutations of the stimuli for a p-value of each neuron's r, with everything that depends on the "
        "responses fitted anew; 0: no test.",
    )
    memory: str = Field("1GB", description="Most memory to use for blocks and products, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the folds, draws and permutations.")

    @field_validator("penalties")
    @classmethod
    def _ascending(cls, values: list[float]) -> list[float]:
        return ascending(values)

    @field_validator("components")
    @classmethod
    def _counts(cls, value: int | list[int]) -> int | list[int]:
        counts = [value] if isinstance(value, int) else sorted(set(value))
        if not counts or counts[0] < 1:
            raise ValueError("there is at least one component")
        return counts if len(counts) > 1 else counts[0]

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of components to choose from."""
        return (self.components,) if isinstance(self.components, int) else tuple(self.components)

    @property
    def chooses(self) -> bool:
        """Whether inner folds are needed."""
        return len(self.penalties if self.model == "ridge" else self.counts) > 1


@dataclass
class _Scores:
    """What is kept of one layer; arrays over folds and neurons, the null over permutations and neurons."""

    r: np.ndarray
    penalty: np.ndarray
    components: np.ndarray
    predicted: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    null: np.ndarray
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
        (layer, fold) for PLS. ``median_r``, ``median_low``, ``median_high`` (layer): the median over neurons and its
        95 % bootstrap interval. With permutations: ``p_value``, ``p_corrected`` and ``null_99`` (layer, neuron),
        ``p_median`` (layer). With reliability: ``reliability`` and ``ceiling`` √ρ (neuron), ``r_corrected`` = r/√ρ,
        ``r2_corrected`` = r²/ρ and ``explained_variance_corrected``, NaN for neurons below the floor. With
        ``keep_predictions``: ``predicted`` (layer, stimulus, neuron). The coordinate ``test_fold`` (stimulus) says in
        which fold a stimulus was held out.

    Raises
    ------
    InputError
        If recorded stimuli are missing from the source, there are too few stimuli or groups for the folds, the
        recording has a time axis, reliabilities do not fit the neurons, activations are NaN or infinite, a layer is
        reduced by principal components of the recorded stimuli, permutations are asked for and no stimulus can change
        places, or the memory is too small.
    DataError
        If the recording is not valid, or a neuron lacks the response to a stimulus.
    LayerError
        If a layer does not exist.

    Warns
    -----
    UserWarning
        If the best penalty of a neuron is the lowest or highest of the grid, unless errors have levelled off there: at
        the highest within 1 % of the error of predicting the mean (a neuron that nothing predicts rightly takes it),
        at the lowest within 0.1 % of the next penalty's. If a fold takes the largest of several numbers of components.
        Or if stimuli with the same activations in every layer are in different folds.

    References
    ----------
    Schrimpf et al. (2020), Integrative benchmarking to advance neurally mechanistic models of human intelligence,
    Neuron 108 (PLS with 25 components); noise correction: Spearman (1904), Am. J. Psychol. 15; p-values: Phipson &
    Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9; intervals: Efron & Tibshirani (1993), An Introduction to the
    Bootstrap.
    """
    inner = options.inner_folds if options.chooses else 0
    problem = recorded_problem(responses, reliability, groups, options.folds, inner, options.seed)
    opened = open_source(source, ids)
    chosen = choose_layers(opened.layers, options.layers)
    rows = recorded_rows(opened.ids, problem.stimuli)
    check_reducer_leak(source, [layer.name for layer in chosen], problem.stimuli, "held out in some fold")
    n = len(problem.y)
    orders = draw_orders(n, options.n_permutations, None, problem.groups, options.seed)

    kept: list[_Scores] = []
    twins = np.ones((n, n), dtype=bool)
    for layer in progress_bar(chosen, desc="encoding", unit="layer", enabled=progress):
        gram = layer_gram(layer, rows, len(opened.ids), problem.stimuli, options.memory)
        twins &= same_patterns(gram)
        kept.append(_layer_scores(gram, problem, orders, options))
        del gram
    low, high = sum(scores.low for scores in kept), sum(scores.high for scores in kept)
    if options.model == "ridge":
        warn_edges(low, high, sum(s.r.size for s in kept), "layer, fold, neuron", options.penalties, stacklevel=4)
    elif high:
        warnings.warn(
            f"{high} of {len(kept) * options.folds} choices (layer, fold) took the largest number of components, "
            f"{options.counts[-1]}, so a larger one may be better; widen components=",
            stacklevel=3,
        )
    warn_copies(twins, problem.test_fold, problem.stimuli)
    test = _TEST.format(n=options.n_permutations, what=_REDONE[options.model]) if options.n_permutations else None
    interval = f"95 % percentile bootstrap of the median, {options.n_draws} draws of "
    return describe(
        _collect(kept, chosen, problem, options),
        "encoding",
        options,
        {"source": opened.fingerprint(), "responses": fingerprint(problem.averaged)},
        network=str(opened.attrs.get("network", opened.name)),
        model=options.model,
        **problem.attrs(options.folds, options.reliability_floor),
        n_stimuli_left_out=len(opened.ids) - n,
        interval=interval + _INTERVALS[options.interval_over] if options.n_draws else None,
        test=test,
        seed=options.seed,
    )


def _layer_scores(gram: np.ndarray, problem: Problem, orders: np.ndarray, options: EncodingOptions) -> _Scores:
    """Predict every fold from the others, and score; then the same with permuted responses."""
    y, folds = problem.y, options.folds
    scores = _Scores(
        r=np.full((folds, y.shape[1]), np.nan),
        penalty=np.full((folds, y.shape[1]), np.nan),
        components=np.zeros(folds, dtype=np.int64),
        predicted=np.empty_like(y),
        error=np.zeros(y.shape[1]),
        spread=np.zeros(y.shape[1]),
        null=np.empty((0, y.shape[1])),
    )
    null = np.empty((folds, len(orders), y.shape[1]))
    for fold in range(folds):
        train, test = np.flatnonzero(problem.test_fold != fold), np.flatnonzero(problem.test_fold == fold)
        inner = problem.inner(train, fold, options.inner_folds, options.seed) if options.chooses else []
        model = FoldModel(
            gram,
            train,
            test,
            options.model,
            np.array(options.penalties),
            options.counts,
            inner,
            options.standardise_neurons,
        )
        fit = model.fit(y)
        scores.penalty[fold], scores.components[fold] = fit.penalty, fit.components
        scores.low, scores.high = scores.low + fit.low, scores.high + fit.high
        scores.predicted[test] = fit.predicted
        scores.r[fold] = correlation(fit.predicted, y[test])
        scores.error += ((y[test] - fit.predicted) ** 2).sum(axis=0)
        scores.spread += ((y[test] - y[train].mean(axis=0)) ** 2).sum(axis=0)
        if len(orders):
            null[fold] = null_correlations(model, y, orders)
    if len(orders):
        scores.null = mean_of_defined(null, axis=0)
    return scores


def _collect(kept: list[_Scores], chosen: list[Layer], problem: Problem, options: EncodingOptions) -> xr.Dataset:
    """Bring the scores of all layers into one Dataset."""
    r_fold, error, spread = (np.stack([getattr(scores, name) for scores in kept]) for name in ("r", "error", "spread"))
    data: dict[str, Any] = dict(
        score_variables(r_fold, error, spread, problem.rho, options.reliability_floor, ("layer",))
    )
    every, r = ("layer", "fold", "neuron"), mean_of_defined(r_fold, axis=1)
    if options.model == "ridge":
        penalty = np.stack([scores.penalty for scores in kept])
        data["penalty"] = (every, penalty, about("penalty, multiple of the mean squared length of training patterns"))
    else:
        used = np.stack([scores.components for scores in kept])
        data["n_components"] = (("layer", "fold"), used, about("components in use"))
    data |= _medians(kept, r, problem, options)
    if options.n_permutations:
        data |= _tests(np.stack([scores.null for scores in kept], axis=1), r)
    if options.keep_predictions:
        values = np.stack([scores.predicted for scores in kept])
        data["predicted"] = (("layer", "stimulus", "neuron"), values, {"long_name": "held-out prediction"})
    coords = {
        "layer": [layer.name for layer in chosen],
        "n_units": ("layer", np.array([layer.n_units for layer in chosen])),
        "neuron": problem.neurons,
        "fold": np.arange(options.folds),
        "stimulus": problem.stimuli,
        "test_fold": ("stimulus", problem.test_fold),
    }
    return xr.Dataset(data, coords=coords)


def _medians(kept: list[_Scores], r: np.ndarray, problem: Problem, options: EncodingOptions) -> dict[str, Any]:
    """Medians over neurons, with their intervals."""
    if options.interval_over == "neuron":
        low, high = median_interval(r, options.n_draws, options.seed)
    else:
        ends = []
        for scores in kept:
            draws = resampled_correlations(
                scores.predicted, problem.y, problem.test_fold, problem.groups, options.n_draws, options.seed
            )
            ends.append(resampled_median_interval(draws, options.interval_over == "both", options.seed))
        low, high = np.array(ends).T
    return {
        "median_r": (
            ("layer",),
            median_of_defined(r, axis=1),
            about("median over neurons of held-out r"),
        ),
        "median_low": (("layer",), low, about("lower end of its 95 % interval")),
        "median_high": (("layer",), high, about("upper end of its 95 % interval")),
    }


def _tests(null: np.ndarray, r: np.ndarray) -> dict[str, Any]:
    """P-values from the null ``(permutations, layers, neurons)``."""
    both, p = ("layer", "neuron"), one_sided_p(r, null)
    median = one_sided_p(median_of_defined(r, axis=1), median_of_defined(null, axis=2))
    defined = np.where(np.isnan(null), -np.inf, null)
    top = np.quantile(defined, 0.99, axis=0, method="higher")
    return {
        "p_value": (both, p, about("p, one-sided permutation test of r")),
        "p_corrected": (both, np.stack([corrected(row, "fdr") for row in p]), about("p, false discovery rate")),
        "null_99": (both, np.where(np.isfinite(top), top, np.nan), about("99th percentile of the null")),
        "p_median": (("layer",), median, about("p, one-sided permutation test of the median r")),
    }


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
