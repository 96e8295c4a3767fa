"""Unit matching: which single unit of a layer answers most like each recorded neuron, tested on other stimuli.

Source: Arend, Han, Schrimpf, Bashivan, Kar, Poggio, DiCarlo & Boix (2018), CBMM Memo 093, after whose principle (one
unit for each neuron, chosen on training stimuli by its signed correlation) this is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.selectivity_responses import Layout
from actkit.analyses.source import Layer
from actkit.analyses.unit_matching_assignment import one_to_one
from actkit.analyses.unit_matching_folds import Folds
from actkit.analyses.unit_matching_kernel import Targets, correlate_columns, match_layer
from actkit.analyses.unit_matching_nulls import draw_orders, null_targets, null_values, permutation_p
from actkit.analyses.unit_matching_setting import MatchingOptions, open_setting
from actkit.analyses.unit_matching_units import units_of_matching
from actkit.compute import parse_bytes
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.options import with_options
from actkit.results import describe
from actkit.statistics import corrected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["UnitMatchingOptions", "alt_text", "caption", "match_units", "plot", "units_of_matching"]

_DEFAULT_PERMUTATIONS = 999


class UnitMatchingOptions(MatchingOptions):
    """Options of :func:`match_units`."""

    assignment: Literal["best", "mutual", "one_to_one"] = Field(
        "best",
        description="Each neuron's best unit (several neurons may share one); only pairs in which the neuron is also "
        "the unit's best; or different units for different neurons with the highest sum of correlations.",
    )
    n_permutations: int | None = Field(
        None,
        ge=0,
        description="Permutations of the stimuli beside the observed order, each with the match made anew in all "
        "folds; 999 by default, 0 for one-to-one assignments, which have no permutation null.",
    )
    null: Literal["within_category", "free"] | None = Field(
        None,
        description="Stimuli change places within their category (tests for more than category tuning) or freely; "
        "within_category where labels are given, else free.",
    )


@with_options(UnitMatchingOptions)
def match_units(
    source: Any,
    responses: Any,
    groups: Any = None,
    labels: Any = None,
    reliability: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: UnitMatchingOptions,
) -> xr.Dataset:
    """Match every neuron with a single unit of each layer, and score the match on held-out stimuli.

    In each fold a neuron is given the unit with the largest signed Pearson correlation over the training stimuli; the
    score is the correlation of that unit, unscaled, with the neuron over the held-out stimuli. The training correlation
    of the best of M unrelated units is near ``sqrt(2 ln M / n)``; the held-out one is centred on 0. Units are read
    once, in blocks, for all folds and all permutations together.

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray or mapping of name to array
        Units: a store of single units, or arrays whose first dim is ``stimulus``. A second recording will
        do, for a match from animal to animal; its repetitions are averaged.
    responses : xarray.DataArray or numpy.ndarray
        Neurons: (stimulus, neuron), or (stimulus, repetition, neuron) padded with NaN, which is averaged over
        repetitions. A DataArray with stimulus ids is aligned by them; a bare array has the order of the source.
    groups : str, sequence or mapping, optional
        Stimuli of one group (copies of an image) are never split between training and test, and move as a whole in
        permutations. By default the label ``group`` of the responses or of the source, if there is one.
    labels : str, sequence or mapping, optional
        Category of each stimulus: folds hold them in equal shares, and the null moves stimuli within them.
    reliability : xarray.Dataset, xarray.DataArray or array_like, optional
        Reliability of each neuron's average (a Dataset's variable ``reliability``).
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        By neuron, fold and layer: ``r``, held-out signed correlation; ``r_train``; ``unit``, index of the unit (-1:
        none, for a neuron that is constant over the training stimuli), with its ``channel``, ``y`` and ``x`` (-1:
        every position); ``mutual``, 1 where no other neuron correlates more with the unit.
        By neuron and layer: ``r_mean`` over folds; ``r_corrected``, divided by the square root of the reliability (NaN
        below the floor); ``stability`` and ``channel_stability``, share of pairs of folds that chose the same unit and
        channel; ``p_value`` (one-sided permutation test of ``r_mean``) and ``p_corrected`` (false discovery rate over
        the neurons of the layer); ``null_mean`` and ``null_99``, mean and 99th percentile of the null.
        By layer: ``median_r``, the median of ``r_mean`` over neurons, ``p_median`` against the null's medians,
        ``share_beyond`` of neurons above their ``null_99``. ``null_median`` by permutation and layer. By neuron and
        fold: ``best_layer``, the number of the layer with the highest training correlation, and ``r_best_layer``, held
        out. With ``assignment="mutual"``, ``r`` is NaN for pairs that are not mutual, and p-values are those of the
        best match.

    Raises
    ------
    InputError
        If stimuli of the responses are not in the source, responses or activations are NaN or infinite, there are
        fewer stimuli (or groups) than folds, a layer was reduced by projection or PCA and has no units, permutations
        are asked for a one-to-one assignment.
    DataError
        If the recording is not valid, a neuron is NaN throughout, or one lacks the response to a stimulus.
    LayerError
        If a layer does not exist.

    References
    ----------
    Arend et al. (2018), CBMM Memo 093; Li et al. (2016), Convergent learning, ICLR (one-to-one assignment).
    """
    at = open_setting(source, responses, groups, labels, reliability, ids, options.layers, options.folds, options.seed)
    count, null = _null(options, at.labels is not None)
    n, neurons = len(at.rows), at.recorded.neurons
    orders = draw_orders(n, count, at.labels if null == "within_category" else None, at.groups, options.seed)
    shuffled = list(null_targets(at.targets, orders, at.folds))
    found = [
        _layer(layer, at.layouts[layer.name], at.rows, at.folds, at.targets, shuffled, options)
        for layer in progress_bar(at.layers, desc="matching", unit="layer", enabled=progress)
    ]
    result = _result(found, neurons, at.recorded.ids, at.layers, at.folds, at.reliability, options.floor)
    operations = 2 * n * len(neurons) * sum(layer.n_units for layer in at.layers)
    return describe(
        result,
        "unit_matching",
        options,
        at.inputs(),
        **at.attrs(),
        assignment=options.assignment,
        n_permutations=count,
        null=null if count else "none",
        cost=f"{operations * (1 + count):.3g} floating-point operations, {operations:.3g} of them for the match",
        seed=options.seed,
    )


def _null(options: UnitMatchingOptions, labelled: bool) -> tuple[int, str]:
    """How many permutations, and of which kind."""
    null = options.null or ("within_category" if labelled else "free")
    if null == "within_category" and not labelled and options.n_permutations != 0:
        raise InputError("null='within_category' needs the category of each stimulus; give labels=, or use null='free'")
    if options.assignment == "one_to_one":
        if options.n_permutations:
            raise InputError(
                f"n_permutations={options.n_permutations}: one-to-one assignments have no permutation null, whose "
                "every permutation would solve an assignment over all units; use n_permutations=0, or "
                "assignment='best' for p-values"
            )
        return 0, null
    return (_DEFAULT_PERMUTATIONS if options.n_permutations is None else options.n_permutations), null


def _layer(
    layer: Layer,
    layout: Layout,
    rows: np.ndarray,
    folds: Folds,
    targets: Targets,
    shuffled: list[Targets],
    options: UnitMatchingOptions,
) -> dict[str, np.ndarray]:
    """Match one layer: arrays (neurons, folds) or (neurons,), and the null (permutations, neurons)."""
    memory = parse_bytes(options.memory)
    if layer.n_units < 1:
        raise InputError(f"layer {layer.name!r} has no units to match; leave it out")
    if options.assignment == "one_to_one":
        unit, columns = one_to_one(layer, rows, folds, targets, memory)
        null = np.empty((0, unit.shape[1]))
    else:
        every = [targets, *shuffled]
        keep = [True] + [False] * len(shuffled)
        best = match_layer(layer, rows, folds, every, keep, memory)
        assert best[0].columns is not None  # the first set keeps its columns
        unit, columns = best[0].unit, best[0].columns
        for one, permuted in zip(best[1:], shuffled, strict=True):
            # No score where the neuron is silent, as for the observed order: otherwise the null of sparse neurons is
            # too narrow.
            one.held_out[(one.unit < 0) | (permuted.norm_out == 0)] = np.nan
        null = null_values(best[1:], unit.shape[1])
    train, held_out, mutual = correlate_columns(columns, targets, folds)
    held_out[unit < 0] = train[unit < 0] = np.nan
    mean = _mean(held_out)
    found = {"p_value": permutation_p(mean, null), "null": null}
    if options.assignment == "mutual":
        held_out = np.where(mutual, held_out, np.nan)
        mean = _mean(held_out)
    places = dict(zip(("channel", "y", "x"), layout.places(single=True), strict=True))
    found |= {name: np.where(unit >= 0, at[np.maximum(unit, 0)], -1).T for name, at in places.items()}
    return found | {
        "r": held_out.T,
        "r_train": train.T,
        "unit": unit.T,
        "mutual": mutual.T.astype(np.int8),
        "r_mean": mean,
        "stability": _agreement(unit),
        "channel_stability": _agreement(found["channel"].T),
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over folds, of those that have a value."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _agreement(chosen: np.ndarray) -> np.ndarray:
    """Share of pairs of folds that chose the same; NaN where a fold chose nothing."""
    first, second = np.triu_indices(len(chosen), 1)
    share = (chosen[first] == chosen[second]).mean(axis=0)
    return np.where((chosen < 0).any(axis=0), np.nan, share)


_WORDS = {
    "r": "held-out correlation of the matched unit",
    "r_train": "correlation over the training stimuli",
    "unit": "index of the matched unit",
    "channel": "channel of the matched unit",
    "y": "row (or token) of the matched unit",
    "x": "column of the matched unit",
    "mutual": "1 where the neuron is also the best of its unit",
    "r_mean": "held-out correlation, mean over folds",
    "r_corrected": "held-out correlation over the square root of the reliability",
    "reliability": "reliability of the neuron's average",
    "stability": "share of pairs of folds with the same unit",
    "channel_stability": "share of pairs of folds with the same channel",
    "p_value": "p, one-sided permutation test",
    "p_corrected": "p, false discovery rate over the neurons of the layer",
    "null_mean": "mean of the null",
    "null_99": "99th percentile of the null",
    "median_r": "median over neurons of the held-out correlation",
    "p_median": "p of the median, one-sided permutation test",
    "share_beyond": "share of neurons above the 99th percentile of their null",
    "null_median": "median over neurons, permuted",
    "best_layer": "number of the layer with the highest training correlation",
    "r_best_layer": "held-out correlation in that layer",
}


def _result(
    found: list[dict[str, np.ndarray]],
    neurons: list[str],
    ids: list[str],
    layers: Sequence[Layer],
    folds: Folds,
    rho: np.ndarray | None,
    floor: float,
) -> xr.Dataset:
    """Stack the layers and sum them up."""
    full, flat = ("neuron", "fold", "layer"), ("neuron", "layer")
    by_fold = ("r", "r_train", "unit", "channel", "y", "x", "mutual")
    data: dict[str, tuple[Any, np.ndarray]] = {
        name: (full, np.stack([one[name] for one in found], axis=-1)) for name in by_fold
    }
    for name in ("r_mean", "stability", "channel_stability", "p_value"):
        data[name] = (flat, np.stack([one[name] for one in found], axis=-1))
    null = np.stack([one["null"] for one in found], axis=-1)  # (permutations, neurons, layers)
    r = data["r_mean"][1]
    data["p_corrected"] = (flat, np.stack([corrected(column, "fdr") for column in data["p_value"][1].T], axis=-1))
    defined = np.isfinite(null).any(axis=0)
    data["null_mean"] = (flat, _mean(null))
    data["null_99"] = (flat, np.full(r.shape, np.nan))
    data["null_99"][1][defined] = np.nanquantile(null[:, defined], 0.99, axis=0)
    known = np.isfinite(r)
    data["median_r"] = (("layer",), np.array([_median(r[:, k]) for k in range(r.shape[1])]))
    medians = np.array([[_median(row[known[:, k], k]) for k in range(r.shape[1])] for row in null])
    medians = medians.reshape(len(null), r.shape[1])
    data["null_median"] = (("permutation", "layer"), medians)
    data["p_median"] = (("layer",), permutation_p(data["median_r"][1], medians))
    beyond = np.where(known, r > data["null_99"][1], np.nan)
    shares = [np.nan if not (len(null) and known[:, k].any()) else np.nanmean(beyond[:, k]) for k in range(r.shape[1])]
    data["share_beyond"] = (("layer",), np.array(shares))
    train = np.where(np.isnan(data["r_train"][1]), -np.inf, data["r_train"][1])
    best = train.argmax(axis=2)
    data["best_layer"] = (("neuron", "fold"), best)
    data["r_best_layer"] = (("neuron", "fold"), np.take_along_axis(data["r"][1], best[:, :, None], 2)[:, :, 0])
    if rho is not None:
        ceiling = np.where(rho >= max(floor, np.finfo(float).tiny), np.sqrt(np.maximum(rho, 0)), np.nan)
        data["reliability"] = (("neuron",), rho)
        data["r_corrected"] = (flat, r / ceiling[:, None])
    variables = {
        name: (dims, values, {"long_name": _WORDS[name], "units": "1"}) for name, (dims, values) in data.items()
    }
    return xr.Dataset(
        variables,
        coords={
            "neuron": np.array(neurons),
            "fold": np.arange(len(folds.parts)),
            "layer": [layer.name for layer in layers],
            "stimulus": np.array(ids),
            "fold_of_stimulus": ("stimulus", folds.number),
            "n_units": ("layer", np.array([layer.n_units for layer in layers])),
        },
    )


def _median(values: np.ndarray) -> float:
    """Median of what is known."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def plot(result: xr.Dataset, *, title: str | None = None, **options: Any) -> Figure:
    """Draw held-out correlations by layer, and their distribution against the null.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`match_units` returned.
    title : str, optional
        Headline.
    **options
        Options of :func:`actkit.analyses.unit_matching_plot.plot`: ``kind`` and ``layer``.

    Returns
    -------
    matplotlib.figure.Figure
        See :func:`actkit.analyses.unit_matching_plot.plot`.
    """
    from actkit.analyses.unit_matching_plot import plot as draw

    return draw(result, title=title, **options)


def caption(result: xr.Dataset, **options: Any) -> str:
    """Say in sentences what the figure shows.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`match_units` returned.
    **options
        Options of :func:`actkit.analyses.unit_matching_plot.plot`: ``kind`` and ``layer``.

    Returns
    -------
    str
        Plain text.
    """
    from actkit.analyses.unit_matching_plot import caption as words

    return words(result, **options)


def alt_text(result: xr.Dataset, **options: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`match_units` returned.
    **options
        Options of :func:`actkit.analyses.unit_matching_plot.plot`: ``kind`` and ``layer``.

    Returns
    -------
    str
        One or two sentences.
    """
    from actkit.analyses.unit_matching_plot import alt_text as words

    return words(result, **options)
