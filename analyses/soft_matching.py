"""Soft matching: units and neurons paired in shares by optimal transport, fitted on training stimuli, scored held out.

A plan moves mass from units to neurons at the cost ``1 - r`` of their centred tuning curves. Balanced, all units give
equally and all neurons take equally; with more units than neurons most of that mass has nowhere good to go: 400 units
of which 20 copy 20 neurons exactly score .11. So balanced plans are made here only between the neurons and pools of as
many units, drawn many times. Partial plans move a share of the mass, by default neurons / units: as much as one unit a
neuron.

Sources: Khosla & Williams (2024), Soft matching distance: a metric on neural representations that captures
single-neuron tuning; Kapoor, Williams & Khosla (2026) for the partial form. The scores on held-out stimuli are added
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.pool_comparison import draw_pools
from actkit.analyses.source import Layer
from actkit.analyses.unit_matching_kernel import Targets, match_layer, read_units
from actkit.analyses.unit_matching_setting import (
    MatchingOptions,
    Setting,
    correlate_rows,
    mean_over_folds,
    open_setting,
)
from actkit.compute import format_bytes, parse_bytes, spans
from actkit.compute import progress as progress_bar
from actkit.errors import InputError, require
from actkit.options import with_options
from actkit.results import describe

__all__ = ["SoftOptions", "soft_match", "transport_plan"]

_ENTRY = 80  # bytes that a solver takes for every pair of a unit and a neuron
_FEWEST = 100  # pools without which a balanced score would hang on the units that happened to be drawn


class SoftOptions(MatchingOptions):
    """Options of :func:`soft_match`."""

    balanced: bool = Field(
        False, description="Move all mass, between the neurons and pools of as many units; else a part of it."
    )
    mass: float | None = Field(
        None, gt=0, le=1, description="Share of all mass that a partial plan moves; by default neurons / units."
    )
    pool_size: int | None = Field(
        None, ge=1, description="Units of the pools that a partial plan is made from; all units at once by default."
    )
    n_draws: int = Field(100, ge=1, description="Pools drawn from every layer (balanced plans take 100 or more).")


@with_options(SoftOptions)
def soft_match(
    source: Any,
    responses: Any,
    groups: Any = None,
    labels: Any = None,
    reliability: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: SoftOptions,
) -> xr.Dataset:
    """Pair the units of each layer with neurons in shares, and score the plan on held-out stimuli.

    In every fold a plan T, units by neurons, of least cost ``sum(T * (1 - r))`` over the training correlations r is
    found; its score is ``sum(T * r) / sum(T)`` over the held-out ones. Every unit holds 1 / units of the mass and every
    neuron takes 1 / neurons at most. A partial plan moves what is cheapest: a neuron with several good units takes from
    all of them, and one without takes nothing, so the score is that of the best pairs; `share` tells them. Units and
    neurons that are constant over the training stimuli take no part.

    Only units that are among the ``mass * units`` best of some neuron can be in a partial plan (were another one used,
    a better one of that neuron would be free), so these alone are kept while the units stream by; the plan is exact.

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
        ``score`` and ``score_train`` (layer, draw), averaged over folds, with one draw for plans over all units;
        ``median_score`` (layer) over draws; ``r`` (layer, neuron), the held-out correlation of the neuron with its
        units, weighted by their mass, averaged over folds and draws (NaN without mass); ``share`` (layer, neuron), the
        part of the moved mass that the neuron takes; ``mass`` (layer), the part of all mass that is moved;
        ``share_matched`` (layer), the part of the neurons that take any. With reliabilities, ``score_corrected``
        (layer, draw) and ``r_corrected`` (layer, neuron), of correlations over the square root of the reliability,
        neurons above the floor alone.

    Raises
    ------
    InputError
        If ``mass`` or ``pool_size`` is given for balanced plans, a mass of 1 for unequal numbers of units and neurons,
        fewer than 100 pools for balanced plans, a layer has fewer usable units than a pool, plans do not fit the
        memory, or the input is one that ``match_units`` refuses.
    MissingExtraError
        If POT is not installed.
    LayerError
        If a layer does not exist.
    """
    require("ot", "matching", "soft matching")
    _check(options)
    setting = open_setting(
        source, responses, groups, labels, reliability, ids, options.layers, options.folds, options.seed
    )
    memory = parse_bytes(options.memory)
    found = [
        _layer(layer, setting, options, memory)
        for layer in progress_bar(setting.layers, desc="soft matching", unit="layer", enabled=progress)
    ]
    pooled = options.balanced or options.pool_size is not None
    size = int((setting.targets.norm > 0).all(axis=0).sum()) if options.balanced else options.pool_size
    return describe(
        _result(found, setting, options.floor),
        "soft_matching",
        options,
        setting.inputs(),
        **setting.attrs(),
        plan="balanced" if options.balanced else "partial",
        cost="1 - r of centred tuning curves",
        pool=f"{options.n_draws} pools of {size} units" if pooled else "all units",
        pool_size=size,
        n_draws=options.n_draws if pooled else 1,
        seed=options.seed,
    )


def transport_plan(r: np.ndarray, mass: float, units: int | None = None) -> np.ndarray:
    """Find the plan of least cost between units and neurons.

    Parameters
    ----------
    r : numpy.ndarray
        ``(rows, neurons)`` correlations of units, or of those that can be in the plan.
    mass : float
        Share of all mass that is moved, above 0; 1 only between equal numbers.
    units : int, optional
        How many units share the mass, the rows among them; as many as there are rows by default.

    Returns
    -------
    numpy.ndarray
        ``(rows, neurons)`` masses that sum to `mass`, those of a row to ``1 / units`` at most and those of a column to
        ``1 / neurons`` at most.

    Raises
    ------
    InputError
        If no plan is found.
    """
    rows, neurons = r.shape
    units = rows if units is None else units
    if rows == units == neurons and mass >= 1:
        # Between equal numbers a permutation is among the best plans (Birkhoff, 1946).
        from scipy.optimize import linear_sum_assignment

        plan = np.zeros(r.shape)
        plan[linear_sum_assignment(r, maximize=True)] = 1 / units
        return plan
    import ot

    # In multiples of a unit's mass, so that the solver's tolerances do not depend on how many units there are.
    moved = min(mass * units, rows)
    try:
        plan = ot.partial.partial_wasserstein(
            np.ones(rows), np.full(neurons, units / neurons), 1 - r, m=moved, numItermax=10**7
        )
    except ValueError as error:
        raise InputError(
            f"no transport plan of mass {mass:.3g} was found between {units} units and {neurons} neurons"
        ) from error
    return np.asarray(plan / units)


def _check(options: SoftOptions) -> None:
    """Refuse options that do not go together."""
    if not options.balanced:
        return
    for name, value in (("mass", options.mass), ("pool_size", options.pool_size)):
        if value is not None:
            raise InputError(
                f"{name}={value}: a balanced plan moves all mass between the neurons and pools of as many units; leave "
                f"{name} out, or use balanced=False"
            )
    if options.n_draws < _FEWEST:
        raise InputError(
            f"n_draws={options.n_draws}: the score of a balanced plan depends on the units drawn; use "
            f"n_draws={_FEWEST} or more"
        )


@dataclass(frozen=True)
class _Found:
    """Scores of one layer: (draws,) and (draws, neurons), averaged over folds; mass moved."""

    score: np.ndarray
    train: np.ndarray
    corrected: np.ndarray
    r: np.ndarray
    share: np.ndarray
    mass: float


def _layer(layer: Layer, setting: Setting, options: SoftOptions, memory: int) -> _Found:
    """Fit and score the plans of a layer."""
    neurons = np.flatnonzero((setting.targets.norm > 0).all(axis=0))
    if not len(neurons):
        raise InputError("every neuron is constant over some training stimuli, so there is nothing to match")
    size = len(neurons) if options.balanced else options.pool_size
    most = None if size is not None else options.mass or len(neurons) / layer.n_units
    usable, best = _candidates(layer, setting, neurons, most, memory)
    folds = list(range(len(setting.folds.parts)))
    ceiling = setting.ceiling(options.floor)
    ceiling = np.full(len(neurons), np.nan) if ceiling is None else ceiling[neurons]
    if size is None:
        counts = usable.sum(axis=1)
        masses = [_mass(layer, int(count), len(neurons), options.mass) for count in counts]
        scored = []
        for f in folds:
            _fits(layer, len(best[f]), len(neurons), memory)
            train, held_out = _correlations(layer, setting, best[f], neurons, [f], memory)
            scored.append([_score(train[0], held_out[0], masses[f], int(counts[f]), ceiling)])
        return _joined(scored, setting, neurons, float(np.mean(masses)))
    pool = np.flatnonzero(usable.all(axis=0))
    if len(pool) < size:
        raise InputError(
            f"layer {layer.name!r} has {len(pool)} units that vary over the training stimuli of every fold, and pools "
            f"of {size} are asked for; " + ("use balanced=False" if options.balanced else f"use pool_size={len(pool)}")
        )
    mass = 1.0 if options.balanced else _mass(layer, size, len(neurons), options.mass)
    _fits(layer, size, len(neurons), memory)
    if len(pool) == size:
        pools = np.arange(size)[None]  # every pool is the whole layer
    else:
        pools = draw_pools(len(pool), size, options.n_draws, options.seed)
    scored = [[] for _ in folds]
    at_once = max(1, memory // (16 * size * len(neurons) * len(folds)))
    for start in range(0, len(pools), at_once):
        units, place = np.unique(pool[pools[start : start + at_once]], return_inverse=True)
        train, held_out = _correlations(layer, setting, units, neurons, folds, memory)
        for members in place.reshape(-1, size):
            for f in folds:
                scored[f].append(_score(train[f, members], held_out[f, members], mass, size, ceiling))
    if len(pools) < options.n_draws:
        scored = [one * options.n_draws for one in scored]
    return _joined(scored, setting, neurons, mass)


def _mass(layer: Layer, units: int, neurons: int, mass: float | None) -> float:
    """The share of mass to be moved."""
    if not units:
        raise InputError(f"layer {layer.name!r} has no unit that varies over the training stimuli; leave it out")
    if mass is None:
        return min(units, neurons) / max(units, neurons)
    if mass >= 1 and units != neurons:
        raise InputError(
            f"mass={mass}: layer {layer.name!r} has {units} units for {neurons} neurons, and a plan that moves all "
            "mass scores their numbers more than their tuning; use balanced=True for pools of equal size, or mass=None "
            f"for {min(units, neurons) / max(units, neurons):.3g}"
        )
    return mass


def _fits(layer: Layer, units: int, neurons: int, memory: int) -> None:
    """Refuse plans that do not fit the memory."""
    if (need := _ENTRY * units * neurons) > memory:
        raise InputError(
            f"layer {layer.name!r}: a plan between {units} units and {neurons} neurons takes about "
            f"{format_bytes(need)}, more than memory={format_bytes(memory)!r}; draw pools with pool_size= (or "
            "balanced=True), move less mass, or give more memory"
        )


def _candidates(
    layer: Layer, setting: Setting, neurons: np.ndarray, mass: float | None, memory: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Which units vary, ``(folds, units)``, and for each fold those that can be in a plan of some mass."""
    n_folds = len(setting.folds.parts)
    usable = np.zeros((n_folds, layer.n_units), dtype=bool)
    count = 0 if mass is None else min(layer.n_units, int(np.ceil(mass * layer.n_units)) + 1)
    _fits(layer, count, len(neurons), memory)  # a plan holds this many units at least
    kept_r = [np.full((len(neurons), 0), -np.inf) for _ in range(n_folds)]
    kept_unit = [np.full((len(neurons), 0), -1) for _ in range(n_folds)]

    def visit(fold: int, index: np.ndarray, r: np.ndarray) -> None:
        here = r >= -1.5  # those that cannot be matched come with less
        usable[fold, index] |= here.all(axis=0)
        if not count:
            return
        together = np.concatenate([kept_r[fold], np.where(here, r, -np.inf)], axis=1)
        units = np.concatenate([kept_unit[fold], np.broadcast_to(index, here.shape)], axis=1)
        most = min(count, together.shape[1])
        top = np.argpartition(-together, most - 1, axis=1)[:, :most]
        kept_r[fold] = np.take_along_axis(together, top, 1)
        kept_unit[fold] = np.take_along_axis(units, top, 1)

    targets = Targets.of(setting.recorded.values[:, neurons], setting.folds)
    match_layer(layer, setting.rows, setting.folds, [targets], [False], memory, visit)
    return usable, [np.unique(unit[np.isfinite(r)]) for unit, r in zip(kept_unit, kept_r, strict=True)]


def _correlations(
    layer: Layer, setting: Setting, units: np.ndarray, neurons: np.ndarray, folds: list[int], memory: int
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate some units with the neurons over training and held-out stimuli, each ``(folds, units, neurons)``."""
    values, n = setting.targets.values[neurons], len(setting.rows)
    train = np.empty((len(folds), len(units), len(neurons)))
    held_out = np.empty_like(train)
    for start, stop in spans(len(units), max(1, memory // (64 * n))):
        columns = read_units(layer, setting.sorted_rows, units[start:stop], memory // 2)
        for k, f in enumerate(folds):
            learn, part = setting.folds.train(f), setting.folds.parts[f]
            train[k, start:stop] = correlate_rows(columns[:, learn], values[:, learn])
            held_out[k, start:stop] = correlate_rows(columns[:, part], values[:, part])
    return train, held_out


def _score(
    train: np.ndarray, held_out: np.ndarray, mass: float, units: int, ceiling: np.ndarray
) -> tuple[float, float, float, np.ndarray, np.ndarray]:
    """Fit a plan on training correlations: held-out score, training score, corrected score, r and share by neuron."""
    plan = transport_plan(train, mass, units)
    plan[plan < 1e-9 / units] = 0  # what the solver leaves behind
    taken = plan.sum(axis=0)
    moved = (plan * held_out).sum(axis=0)
    r = np.divide(moved, taken, out=np.full(len(taken), np.nan), where=taken > 0)
    train_score = float((plan * train).sum() / plan.sum())
    return _weighted(r, taken), train_score, _weighted(r / ceiling, taken), r, taken / taken.sum()


def _weighted(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of what is known."""
    known = np.isfinite(values) & (weights > 0)
    return float(values[known] @ weights[known] / weights[known].sum()) if known.any() else float("nan")


def _joined(scored: Sequence[Sequence[Any]], setting: Setting, neurons: np.ndarray, mass: float) -> _Found:
    """Average over folds, with neurons that took no part as NaN."""
    score, train, over, r, share = (
        np.array([[draw[k] for draw in fold] for fold in scored], dtype=np.float64) for k in range(5)
    )
    full = np.full((r.shape[1], setting.targets.norm.shape[1]), np.nan)
    wide, part = full.copy(), full.copy()
    wide[:, neurons], part[:, neurons] = mean_over_folds(r), share.mean(axis=0)
    return _Found(mean_over_folds(score), mean_over_folds(train), mean_over_folds(over), wide, part, mass)


_WORDS = {
    "score": "held-out score of the plan",
    "score_train": "score of the plan over the training stimuli",
    "score_corrected": "held-out score, correlations over the square root of the reliability",
    "median_score": "median over draws of the held-out score",
    "r": "held-out correlation with the neuron's units, weighted by mass",
    "r_corrected": "held-out correlation over the square root of the reliability",
    "share": "part of the moved mass that the neuron takes",
    "share_matched": "part of the neurons that take mass",
    "mass": "part of all mass that is moved",
    "reliability": "reliability of the neuron's average",
}


def _result(found: list[_Found], setting: Setting, floor: float) -> xr.Dataset:
    """Stack the layers."""
    score = np.stack([one.score for one in found])
    r, share = (np.stack([mean_over_folds(getattr(one, name)) for one in found]) for name in ("r", "share"))
    data: dict[str, tuple[tuple[str, ...], Any]] = {
        "score": (("layer", "draw"), score),
        "score_train": (("layer", "draw"), np.stack([one.train for one in found])),
        "median_score": (("layer",), np.median(score, axis=1)),
        "r": (("layer", "neuron"), r),
        "share": (("layer", "neuron"), share),
        "share_matched": (("layer",), np.array([(one[np.isfinite(one)] > 0).mean() for one in share])),
        "mass": (("layer",), np.array([one.mass for one in found])),
    }
    ceiling = setting.ceiling(floor)
    if ceiling is not None:
        data["reliability"] = (("neuron",), setting.reliability)
        data["score_corrected"] = (("layer", "draw"), np.stack([one.corrected for one in found]))
        data["r_corrected"] = (("layer", "neuron"), r / ceiling)
    return xr.Dataset(
        {name: (dims, values, {"long_name": _WORDS[name], "units": "1"}) for name, (dims, values) in data.items()},
        coords={**setting.coords(), "draw": np.arange(score.shape[1])},
    )
