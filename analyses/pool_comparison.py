"""Layers and networks of different size, compared over equally many candidate units.

A larger layer offers every neuron more units to choose from, and so a better best one, even where its units are no
better. Drawing the same number of units from every layer, many times over, takes that advantage away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.source import Layer
from actkit.analyses.unit_matching_kernel import correlate_columns, match_layer, read_units
from actkit.analyses.unit_matching_setting import (
    MatchingOptions,
    Setting,
    bootstrap_interval,
    correlate_rows,
    mean_over_folds,
    open_setting,
)
from actkit.compute import parse_bytes, spans
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.options import with_options
from actkit.resampling import Stream, generator
from actkit.results import describe

__all__ = ["PoolsOptions", "draw_pools", "equalise_pools"]

_N_BOOTSTRAP = 1000


class PoolsOptions(MatchingOptions):
    """Options of :func:`equalise_pools`."""

    pool_size: int | None = Field(
        None, ge=1, description="Units drawn from every layer; as many as the smallest chosen layer has by default."
    )
    n_draws: int = Field(100, ge=1, description="Pools drawn from every layer.")


@with_options(PoolsOptions)
def equalise_pools(
    source: Any,
    responses: Any,
    groups: Any = None,
    labels: Any = None,
    reliability: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: PoolsOptions,
) -> xr.Dataset:
    """Match neurons with the best unit of pools of one size, drawn from every layer.

    Each pool is drawn without replacement from all units of the layer, those that never vary included, and the match
    is made anew in every fold: the unit of the pool with the largest training correlation, scored on held-out stimuli.
    All pools are served by one pass over the units. To compare networks, call it once for each with the `pool_size`
    that the smallest layer of any of them allows, the same folds and the same seed.

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray or mapping of name to array
        Units: a store of single units, or arrays whose first dim is ``stimulus``.
    responses : xarray.DataArray or numpy.ndarray
        Neurons: (stimulus, neuron), or (stimulus, repetition, neuron) padded with NaN.
    groups, labels : str, sequence or mapping, optional
        Stimuli that are never split between training and test, and categories that folds hold in equal shares.
    reliability : xarray.Dataset, xarray.DataArray or array_like, optional
        Reliability of each neuron's average.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        ``r`` (layer, draw, neuron), held-out correlation averaged over folds; ``median_r`` (layer, draw), its median
        over neurons; ``median_pooled`` (layer), mean of the medians over draws, with ``pooled_low`` and
        ``pooled_high``, the 95 % percentile interval of 1000 bootstrap samples of neurons; ``r_all`` (layer, neuron)
        and ``median_all`` (layer), the match with all units, as ``match_units`` gives it. With reliabilities,
        ``r_corrected`` (layer, neuron), the mean of `r` over draws divided by their square roots.

    Raises
    ------
    InputError
        If a layer has fewer units than the pool, or the input is one that ``match_units`` refuses.
    LayerError
        If a layer does not exist.
    """
    setting = open_setting(
        source, responses, groups, labels, reliability, ids, options.layers, options.folds, options.seed
    )
    smallest = min(setting.layers, key=lambda layer: layer.n_units)
    size = smallest.n_units if options.pool_size is None else options.pool_size
    if size > smallest.n_units:
        raise InputError(
            f"pool_size={size}: layer {smallest.name!r} has {smallest.n_units} units, and a pool is drawn without "
            f"replacement; use pool_size={smallest.n_units} or less, or leave the layer out"
        )
    memory = parse_bytes(options.memory)
    shape = (len(setting.layers), options.n_draws, len(setting.recorded.neurons))
    r, every = np.empty(shape), np.empty(shape[::2])
    for k, layer in enumerate(progress_bar(setting.layers, desc="drawing pools", unit="layer", enabled=progress)):
        pools = draw_pools(layer.n_units, size, options.n_draws, options.seed)
        r[k], every[k] = _layer(layer, setting, pools, memory)
    return describe(
        _result(r, every, setting, options),
        "pool_comparison",
        options,
        setting.inputs(),
        **setting.attrs(),
        pool_size=size,
        n_draws=options.n_draws,
        seed=options.seed,
    )


def draw_pools(n_units: int, size: int, n_draws: int, seed: int) -> np.ndarray:
    """Draw pools of units without replacement.

    Parameters
    ----------
    n_units, size : int
        Units to draw from, and units of a pool.
    n_draws : int
        Number of pools.
    seed : int
        Seed of the analysis; draw k is stream ``(seed, k + 1)``.

    Returns
    -------
    numpy.ndarray of int64
        ``(n_draws, size)``, each row ascending.
    """
    drawn = [generator(seed, k + 1, Stream.STIMULI).choice(n_units, size, replace=False) for k in range(n_draws)]
    return np.sort(np.array(drawn, dtype=np.int64), axis=1)


def _layer(layer: Layer, setting: Setting, pools: np.ndarray, memory: int) -> tuple[np.ndarray, np.ndarray]:
    """Held-out correlations, mean over folds: of the pools ``(draws, neurons)``, of all units ``(neurons,)``."""
    n_folds, n_neurons = setting.targets.norm.shape
    shape = (n_folds, len(pools), n_neurons)
    # Units that cannot be matched come with values below every correlation.
    best, unit = np.full(shape, -1.5), np.full(shape, -1)
    every = np.arange(n_neurons)

    def visit(fold: int, index: np.ndarray, r: np.ndarray) -> None:
        for k, pool in enumerate(pools):
            # Both are ascending; a block can leave out units, so that not all of the span are in it.
            members = pool[np.searchsorted(pool, index[0]) : np.searchsorted(pool, index[-1], side="right")]
            at = np.searchsorted(index, members)
            at = at[index[at] == members]
            if not len(at):
                continue
            part = r[:, at]
            first = part.argmax(axis=1)
            value = part[every, first]
            won = value > best[fold, k]
            best[fold, k, won] = value[won]
            unit[fold, k, won] = index[at[first[won]]]

    found = match_layer(layer, setting.rows, setting.folds, [setting.targets], [True], memory, visit)[0]
    assert found.columns is not None  # kept
    whole = correlate_columns(found.columns, setting.targets, setting.folds)[1]
    whole[found.unit < 0] = np.nan
    unit[np.broadcast_to((setting.targets.norm <= 0)[:, None], unit.shape)] = -1
    return mean_over_folds(_held_out(layer, setting, unit, memory)), mean_over_folds(whole)


def _held_out(layer: Layer, setting: Setting, unit: np.ndarray, memory: int) -> np.ndarray:
    """Correlate units ``(folds, draws, neurons)`` with their neurons over held-out stimuli, in double precision."""
    chosen, place = np.unique(unit, return_inverse=True)
    place = place.reshape(unit.shape)
    out = np.full(unit.shape, np.nan)
    n = len(setting.rows)
    for start, stop in spans(len(chosen), max(1, memory // (32 * n))):
        columns = read_units(layer, setting.sorted_rows, chosen[start:stop], memory // 2)
        for f, part in enumerate(setting.folds.parts):
            here = (place[f] >= start) & (place[f] < stop) & (unit[f] >= 0)
            r = correlate_rows(columns[:, part], setting.targets.values[:, part])
            _, neuron = np.nonzero(here)
            out[f][here] = r[place[f][here] - start, neuron]
    return out


_WORDS = {
    "r": "held-out correlation of the best unit of a pool",
    "median_r": "median over neurons, one pool",
    "median_pooled": "median over neurons, mean over pools",
    "pooled_low": "2.5 % point of the pooled median over bootstrap samples of neurons",
    "pooled_high": "97.5 % point of the pooled median over bootstrap samples of neurons",
    "r_all": "held-out correlation of the best of all units",
    "median_all": "median over neurons, all units",
    "r_corrected": "held-out correlation over the square root of the reliability, mean over pools",
    "reliability": "reliability of the neuron's average",
}


def _result(r: np.ndarray, every: np.ndarray, setting: Setting, options: PoolsOptions) -> xr.Dataset:
    """Sum up by layer."""
    median_r, median_all = np.full(r.shape[:2], np.nan), np.full(len(r), np.nan)
    low, high = np.full(len(r), np.nan), np.full(len(r), np.nan)
    for k in range(len(r)):
        known = np.isfinite(every[k]) & np.isfinite(r[k]).all(axis=0)
        if not known.any():
            continue
        values = r[k][:, known]
        median_r[k], median_all[k] = np.median(values, axis=1), np.median(every[k, known])

        def pooled(neurons: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            return np.asarray(np.median(values[:, neurons], axis=-1).mean(axis=0))

        low[k], high[k] = bootstrap_interval(pooled, int(known.sum()), _N_BOOTSTRAP, options.seed)
    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "r": (("layer", "draw", "neuron"), r),
        "median_r": (("layer", "draw"), median_r),
        "median_pooled": (("layer",), median_r.mean(axis=1)),
        "pooled_low": (("layer",), low),
        "pooled_high": (("layer",), high),
        "r_all": (("layer", "neuron"), every),
        "median_all": (("layer",), median_all),
    }
    ceiling = setting.ceiling(options.floor)
    if ceiling is not None:
        data["reliability"] = (("neuron",), np.asarray(setting.reliability))
        data["r_corrected"] = (("layer", "neuron"), r.mean(axis=1) / ceiling)
    return xr.Dataset(
        {name: (dims, values, {"long_name": _WORDS[name], "units": "1"}) for name, (dims, values) in data.items()},
        coords={**setting.coords(), "draw": np.arange(options.n_draws)},
    )
