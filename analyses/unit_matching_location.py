"""Do the units that match the neurons of one array lie together in the map, as receptive fields of neighbours do?

The spread of the matched positions is set against that of the same match after the stimuli have changed places: a
permuted neuron finds some unit too, and some positions of a map win more often than others (corners that show nothing
never do), so that evenly drawn positions would be the wrong reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.neuron_inputs import read_responses
from actkit.analyses.source import label_column
from actkit.analyses.unit_matching import UnitMatchingOptions, match_units
from actkit.analyses.unit_matching_nulls import draw_orders
from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.results import describe, fingerprint

__all__ = ["LocationOptions", "matched_locations", "spread"]


class LocationOptions(Options):
    """Options of :func:`matched_locations`."""

    n_draws: int = Field(99, ge=1, description="Permutations of the stimuli, each with the match made anew.")
    memory: str = Field("500MB", description="Most memory to use for blocks of units, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the permutations.")


@with_options(LocationOptions)
def matched_locations(
    match: xr.Dataset,
    source: Any,
    responses: Any,
    labels: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: LocationOptions,
) -> xr.Dataset:
    """Compare how far apart matched units lie with the same after permutations of the stimuli.

    All neurons change places together, so that what they have in common with each other stays. The match of every
    permutation is made in the folds of the match, with all draws in one pass over the units.

    Parameters
    ----------
    match : xarray.Dataset
        What :func:`actkit.analyses.unit_matching.match_units` returned.
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray or mapping of name to array
        The units that were matched.
    responses : xarray.DataArray or numpy.ndarray
        The neurons that were matched.
    labels : str, sequence or mapping, optional
        Category of each stimulus, as it was given to the match; stimuli then change places within it.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        For the layers whose units have a place in a map: ``spread`` (layer), see :func:`spread`; ``null_spread``
        (layer, draw), the same after permutations; ``ratio`` (layer), the spread over the mean of the null;
        ``p_value`` (layer), one-sided, small where matched units lie together, the observed spread counted;
        ``ratio_mean`` and ``p_mean``, of the mean over layers of the ratios.

    Raises
    ------
    InputError
        If the match is none, no layer of it has a map, or its neurons or stimuli are not those of the responses.
    """
    if not {"unit", "y", "x", "fold_of_stimulus"} <= set(match.variables):
        raise InputError("match holds no positions of units; give what match_units() returned")
    mapped = [str(one) for one in match["layer"].values if (match["x"].sel(layer=one).values >= 0).any()]
    if not mapped:
        raise InputError("no layer of the match has a map, so its units have no place; leave this control out")
    told = json.loads(match.attrs["options"])
    recorded = read_responses(responses, [str(one) for one in match["stimulus"].values])
    neurons = [str(one) for one in match["neuron"].values]
    if recorded.neurons != neurons or recorded.ids != [str(one) for one in match["stimulus"].values]:
        raise InputError(
            f"the match is of {len(neurons)} neurons and {match.sizes['stimulus']} stimuli, and the responses are of "
            "others or in another order; give what was matched"
        )
    by_label = None if labels is None else label_column(labels, "labels", recorded.ids, recorded.columns)[1]
    groups = recorded.columns.get("group")
    kept = None if groups is None else np.unique(groups.astype(str), return_inverse=True)[1]
    orders = draw_orders(len(recorded.ids), options.n_draws, by_label, kept, options.seed)
    copies = [recorded.values[order] for order in orders]
    moved = xr.DataArray(
        np.concatenate(copies, axis=1),
        {"stimulus": recorded.ids, "neuron": [f"{k}/{name}" for k in range(options.n_draws) for name in neurons]},
        ("stimulus", "neuron"),
    )
    again = match_units(
        source,
        moved,
        groups=None if groups is None else dict(zip(recorded.ids, groups.tolist(), strict=True)),
        labels=None if by_label is None else dict(zip(recorded.ids, by_label.tolist(), strict=True)),
        ids=ids,
        progress=progress,
        options=UnitMatchingOptions(
            layers=mapped, folds=int(told["folds"]), n_permutations=0, memory=options.memory, seed=int(told["seed"])
        ),
    )
    sizes = json.loads(match.attrs["shapes"])
    observed = np.array([spread(match, name, sizes) for name in mapped])
    null = np.empty((len(mapped), options.n_draws))
    for draw in range(options.n_draws):
        part = again.isel(neuron=slice(draw * len(neurons), (draw + 1) * len(neurons)))
        null[:, draw] = [spread(part, name, sizes) for name in mapped]
    centre = null.mean(axis=1)
    ratio, null_ratio = observed / centre, null / centre[:, None]
    p = (1 + (null <= observed[:, None]).sum(axis=1)) / (1 + options.n_draws)
    words = "mean distance between matched units, share of the map's diagonal"
    result = xr.Dataset(
        {
            "spread": ("layer", observed, {"long_name": words, "units": "1"}),
            "null_spread": (("layer", "draw"), null, {"long_name": f"{words}, permuted", "units": "1"}),
            "ratio": ("layer", ratio, {"long_name": "spread over that of permuted stimuli", "units": "1"}),
            "p_value": ("layer", p, {"long_name": "p, one-sided", "units": "1"}),
            "ratio_mean": ((), float(ratio.mean()), {"long_name": "mean over layers of the ratio", "units": "1"}),
            "p_mean": (
                (),
                float((1 + (null_ratio.mean(axis=0) <= ratio.mean()).sum()) / (1 + options.n_draws)),
                {"long_name": "p of the mean over layers, one-sided", "units": "1"},
            ),
        },
        coords={"layer": mapped},
    )
    return describe(
        result,
        "unit_matching_location",
        options,
        {"match": fingerprint(match["unit"]), "responses": fingerprint(recorded.values)},
        network=match.attrs.get("network"),
        recording=recorded.name,
        null="within_category" if by_label is not None else "free",
        n_neurons=len(neurons),
        seed=options.seed,
    )


def spread(match: xr.Dataset, layer: str, shapes: Mapping[str, Sequence[int]]) -> float:
    """Mean distance between the matched units of two neurons, over pairs of neurons and over folds.

    Parameters
    ----------
    match : xarray.Dataset
        What ``match_units`` returned.
    layer : str
        A layer with a map.
    shapes : mapping of str to sequence of int
        Shape of each layer's activations for one stimulus, rows and columns last.

    Returns
    -------
    float
        As a share of the map's diagonal; NaN with fewer than two matched neurons.
    """
    rows, columns = shapes[layer][-2:]
    diagonal = float(np.hypot(rows - 1, columns - 1)) or 1.0
    place = np.stack([match[name].sel(layer=layer).transpose("fold", "neuron").values for name in ("y", "x")], axis=-1)
    distances = []
    for fold in place.astype(np.float64):
        kept = fold[fold[:, 0] >= 0]
        first, second = np.triu_indices(len(kept), 1)
        distances.append(np.hypot(*(kept[first] - kept[second]).T))
    joined = np.concatenate(distances)
    return float(joined.mean() / diagonal) if len(joined) else float("nan")
