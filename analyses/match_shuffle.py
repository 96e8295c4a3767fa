"""Matched-unit shuffle: is a neuron's unit its own, or would the unit of any other neuron do as well?

Units that all follow one strong signal match every neuron, and the permutation of stimuli calls such matches
significant, which they are. Scoring each neuron with the units that were matched to other neurons asks for more: that
the correspondence be one of single neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.neuron_inputs import Recorded, read_responses, recorded_rows
from actkit.analyses.source import Layer, choose_layers, open_source
from actkit.analyses.unit_matching_folds import Folds
from actkit.analyses.unit_matching_kernel import read_units
from actkit.analyses.unit_matching_setting import correlate_rows, mean_over_folds, single_units
from actkit.compute import parse_bytes
from actkit.compute import progress as progress_bar
from actkit.errors import InputError, LayerError
from actkit.options import Options, with_options
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint
from actkit.statistics import corrected

__all__ = ["ShuffleOptions", "derangements", "shuffle_match"]

_SAME = 1e-3  # a match scored again on its own data differs by less


class ShuffleOptions(Options):
    """Options of :func:`shuffle_match`."""

    n_draws: int = Field(1000, ge=1, description="Random exchanges of units between neurons.")
    memory: str = Field("500MB", description="Most memory to use for blocks of units, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the exchanges.")


@with_options(ShuffleOptions)
def shuffle_match(
    match: xr.Dataset,
    source: Any,
    responses: Any,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: ShuffleOptions,
) -> xr.Dataset:
    """Score neurons with the units matched to other neurons, over the same held-out stimuli.

    In every fold the unit that was chosen for neuron k on the training stimuli is scored with neuron j on the held-out
    ones. A draw is a derangement: every neuron gets the unit of another one, the same other one in all folds.

    Parameters
    ----------
    match : xarray.Dataset
        What ``match_units`` returned, with ``assignment="best"`` or ``"one_to_one"``; its layers, folds and units are
        taken as they are.
    source, responses
        The units and neurons that were matched.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        ``r_exchanged`` (layer, matched, neuron), held-out correlation, averaged over folds, of the unit matched to the
        first neuron with the second one; its diagonal is ``observed`` (layer, neuron). ``p_value`` (layer, neuron),
        the share of units, the neuron's own among them, that do at least as well for it, over all other neurons' units
        (an enumeration: with J neurons it is 1/J at least); ``p_corrected``, its false discovery rate over the neurons
        of the layer. ``null_mean`` (layer, neuron), mean over the other neurons' units. ``median_r`` (layer) over
        neurons, ``null_median`` (layer, draw) and ``p_median`` (layer), one-sided, with the observed match among the
        draws. A unit that two neurons share counts for both as another neuron's.

    Raises
    ------
    InputError
        If it is not a matching result or one of mutual matches, source or responses are not those it was made from, or
        fewer than three neurons have units.
    LayerError
        If the source lacks a layer.
    """
    _check_match(match)
    if isinstance(source, str | Path):
        from actkit.store import open_store

        source = open_store(source)
    opened = open_source(source, ids)
    names = [str(name) for name in match["layer"].values]
    missing = [name for name in names if name not in {layer.name for layer in opened.layers}]
    if missing:
        raise LayerError(f"the source has no layer {missing[0]!r}, which was matched; give the source of the match")
    layers = {layer.name: layer for layer in choose_layers(opened.layers, names)}
    single_units(source, list(layers.values()))
    recorded = read_responses(responses, [str(i) for i in opened.ids])
    values, rows, folds = _aligned(match, recorded, opened.ids)
    exchanged = np.stack(
        [
            _layer(layers[name], rows, folds, values, match["unit"].sel(layer=name), parse_bytes(options.memory))
            for name in progress_bar(names, desc="exchanging", unit="layer", enabled=progress)
        ]
    )
    observed = np.diagonal(exchanged, axis1=1, axis2=2)
    expected = match["r_mean"].transpose("layer", "neuron").values
    if not np.allclose(observed, expected, atol=_SAME, equal_nan=True):
        raise InputError(
            "the units of this match, scored again, do not give its correlations (they differ by up to "
            f"{np.nanmax(np.abs(observed - expected)):.2g}); give the source and the responses that were matched"
        )
    return describe(
        _result(exchanged, match, options),
        "match_shuffle",
        options,
        {
            "match": fingerprint(match[["unit", "r"]]),
            "source": opened.fingerprint(),
            "responses": fingerprint(recorded.values),
        },
        **{
            key: match.attrs.get(key)
            for key in ("network", "recording", "region", "subject", "assignment", "splitting", "n_stimuli")
        },
        n_neurons=len(recorded.neurons),
        n_draws=options.n_draws,
        null="units exchanged between neurons, none keeping its own",
        seed=options.seed,
    )


def derangements(n: int, count: int, seed: int) -> np.ndarray:
    """Draw permutations that leave nothing in its place, every one as likely as any other.

    Parameters
    ----------
    n : int
        How many are exchanged, two or more.
    count : int
        Number of draws.
    seed : int
        Seed; draw k is stream ``(seed, k + 1)``.

    Returns
    -------
    numpy.ndarray of int64
        ``(count, n)``.

    Raises
    ------
    InputError
        If one alone cannot be exchanged.
    """
    if n < 2:
        raise InputError(f"{n} neuron(s) with a unit cannot exchange it; give at least two")
    drawn, here = np.empty((count, n), dtype=np.int64), np.arange(n)
    for k in range(count):
        random = generator(seed, k + 1, Stream.PERMUTATIONS)
        while True:  # one permutation in e has no fixed point
            order = random.permutation(n)
            if (order != here).all():
                break
        drawn[k] = order
    return drawn


def _check_match(match: xr.Dataset) -> None:
    """Refuse what holds no match of every neuron."""
    needed = ("unit", "r_mean", "r")
    if any(name not in match for name in needed) or "fold_of_stimulus" not in match.coords:
        raise InputError("this is not a matching result (unit, r, r_mean); give what match_units() returned")
    if match.attrs.get("assignment") == "mutual":
        raise InputError(
            "mutual matches leave neurons without a unit in some folds, so that units cannot be exchanged between "
            "them; use match_units(..., assignment='best')"
        )


def _aligned(match: xr.Dataset, recorded: Recorded, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, Folds]:
    """Responses (neurons, n) and rows of the source, sorted by the folds of the match."""
    neurons = [str(name) for name in match["neuron"].values]
    stimuli = [str(name) for name in match["stimulus"].values]
    if recorded.neurons != neurons:
        raise InputError(
            f"the responses have other neurons ({len(recorded.neurons)}, from {recorded.neurons[0]!r}) than the match "
            f"({len(neurons)}, from {neurons[0]!r}); give the responses that were matched"
        )
    if set(stimuli) != set(recorded.ids):
        raise InputError(
            f"the responses are to {len(recorded.ids)} stimuli and the match was made over {len(stimuli)} that are not "
            "the same; give the responses that were matched"
        )
    folds = Folds.of(np.asarray(match["fold_of_stimulus"].values))
    at = recorded_rows(recorded.ids, stimuli)
    return recorded.values[at][folds.order].T, recorded_rows(ids, stimuli)[folds.order], folds


def _layer(
    layer: Layer, rows: np.ndarray, folds: Folds, values: np.ndarray, unit: xr.DataArray, memory: int
) -> np.ndarray:
    """Held-out correlation of each neuron's unit with each neuron, mean over folds, ``(matched, neuron)``."""
    chosen = unit.transpose("fold", "neuron").values
    if int(chosen.max()) >= layer.n_units:
        raise InputError(
            f"layer {layer.name!r} has {layer.n_units} units, and unit {int(chosen.max())} was matched; give the "
            "source of the match"
        )
    found = np.empty((len(chosen), len(values), len(values)))
    columns = read_units(layer, rows, chosen, memory)
    for f, part in enumerate(folds.parts):
        found[f] = correlate_rows(columns[f][:, part], values[:, part])
        found[f, chosen[f] < 0] = np.nan
    # A neuron without a unit in a fold is scored with others' units only in the folds in which it has one.
    found = np.where((chosen < 0)[:, None, :], np.nan, found)
    return mean_over_folds(found)


_WORDS = {
    "r_exchanged": "held-out correlation of one neuron's unit with another neuron",
    "observed": "held-out correlation of the matched unit",
    "p_value": "p, share of all neurons' units that do at least as well",
    "p_corrected": "p, false discovery rate over the neurons of the layer",
    "null_mean": "mean held-out correlation of the other neurons' units",
    "median_r": "median over neurons of the held-out correlation",
    "null_median": "median over neurons, units exchanged",
    "p_median": "p of the median, one-sided, over random exchanges",
}


def _result(exchanged: np.ndarray, match: xr.Dataset, options: ShuffleOptions) -> xr.Dataset:
    """Sum up by neuron and layer."""
    n_layers, n = exchanged.shape[:2]
    p, null_mean = np.full((n_layers, n), np.nan), np.full((n_layers, n), np.nan)
    median, p_median = np.full(n_layers, np.nan), np.full(n_layers, np.nan)
    null_median = np.full((n_layers, options.n_draws), np.nan)
    for k, table in enumerate(exchanged):
        known = np.flatnonzero(np.isfinite(np.diagonal(table)))
        if len(known) < 3:
            raise InputError(
                f"layer {match['layer'].values[k]!r}: {len(known)} neurons have a unit, and an exchange between fewer "
                "than three has one outcome at most; leave the layer out or match more neurons"
            )
        table = table[np.ix_(known, known)]
        own, j = np.diagonal(table), len(known)
        # Equal units are equal up to rounding: a tie is no advantage.
        at_least = table >= own - 1e-9
        p[k, known] = at_least.sum(axis=0) / j
        null_mean[k, known] = (table.sum(axis=0) - own) / (j - 1)
        median[k] = np.median(own)
        orders = derangements(j, options.n_draws, options.seed)
        null_median[k] = np.median(table[orders, np.arange(j)], axis=1)
        p_median[k] = (1 + (null_median[k] >= median[k] - 1e-9).sum()) / (1 + options.n_draws)
    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "r_exchanged": (("layer", "matched", "neuron"), exchanged),
        "observed": (("layer", "neuron"), np.diagonal(exchanged, axis1=1, axis2=2).copy()),
        "p_value": (("layer", "neuron"), p),
        "p_corrected": (("layer", "neuron"), np.stack([corrected(row, "fdr") for row in p])),
        "null_mean": (("layer", "neuron"), null_mean),
        "median_r": (("layer",), median),
        "null_median": (("layer", "draw"), null_median),
        "p_median": (("layer",), p_median),
    }
    neurons = match["neuron"].values
    return xr.Dataset(
        {name: (dims, values, {"long_name": _WORDS[name], "units": "1"}) for name, (dims, values) in data.items()},
        coords={
            "layer": match["layer"].values,
            "neuron": neurons,
            "matched": neurons,
            "draw": np.arange(options.n_draws),
        },
    )
