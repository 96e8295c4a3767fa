"""The matched units as a set, to lesion or to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from actkit.errors import InputError, LayerError, nearest
from actkit.units import UnitSet

__all__ = ["units_of_matching"]


def units_of_matching(
    result: xr.Dataset,
    layers: Sequence[str] | str | None = None,
    *,
    neurons: Sequence[str] | str | None = None,
    fold: int | None = None,
    alpha: float | None = None,
    minimum: float | None = None,
) -> UnitSet:
    """Take the units that neurons were matched with.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.unit_matching.match_units` returned.
    layers : str or sequence of str, optional
        Layer names; all by default.
    neurons : str or sequence of str, optional
        Names of neurons; all by default. One name gives the units of that neuron.
    fold : int, optional
        The fold whose match is taken, so that its held-out stimuli stay untouched for what comes next. By default the
        unit that most folds chose, ties by index.
    alpha : float, optional
        Only neurons with a corrected p-value of at most this.
    minimum : float, optional
        Only neurons with at least this mean held-out correlation in the layer.

    Returns
    -------
    UnitSet
        By descending score, ties by layer and index. A unit that several neurons share is in it once; its score is the
        highest mean held-out correlation (with `fold`, the held-out correlation of that fold) among its neurons.

    Raises
    ------
    InputError
        If it is not a matching result, a neuron or the fold is not in it, p-values are asked for and there are none, or
        no neuron meets the conditions.
    LayerError
        If a layer is not in the result.
    """
    if result.attrs.get("analysis") != "unit_matching" or "unit" not in result:
        raise InputError("this is not a matching result; give what match_units() returned")
    names = [str(name) for name in result["layer"].values]
    known = [str(name) for name in result["neuron"].values]
    wanted = [layers] if isinstance(layers, str) else names if layers is None else [str(name) for name in layers]
    asked = [neurons] if isinstance(neurons, str) else known if neurons is None else [str(name) for name in neurons]
    for layer in wanted:
        if layer not in names:
            raise LayerError(f"the result has no layer {layer!r}; {nearest(layer, names)}")
    for neuron in asked:
        if neuron not in known:
            raise InputError(f"the result has no neuron {neuron!r}; {nearest(neuron, known)}")
    n_folds = result.sizes["fold"]
    if fold is not None and not 0 <= fold < n_folds:
        raise InputError(f"fold {fold} is not in the result, whose folds are 0 to {n_folds - 1}")
    if alpha is not None and not np.isfinite(result["p_corrected"].values).any():
        raise InputError(f"alpha={alpha}: the result has no p-values; match with n_permutations=999, or leave it out")
    best: dict[tuple[int, int], tuple[float, int, int, int]] = {}
    at = [known.index(neuron) for neuron in asked]
    unit, score, paired = result["unit"].values, result["r_mean"].values, np.isfinite(result["r"].values)
    p = result["p_corrected"].values
    places = [result[name].values for name in ("channel", "y", "x")]
    for k in (names.index(layer) for layer in wanted):
        for j in at:
            if fold is not None and not paired[j, fold, k]:
                continue
            value = float(score[j, k]) if fold is None else float(result["r"].values[j, fold, k])
            if np.isnan(value) or (alpha is not None and not p[j, k] <= alpha):
                continue
            if minimum is not None and not score[j, k] >= minimum:
                continue
            f = _modal(unit[j, :, k], paired[j, :, k]) if fold is None else fold
            key = (k, int(unit[j, f, k]))
            if key not in best or best[key][0] < value:
                channel, y, x = (int(place[j, f, k]) for place in places)
                best[key] = (value, channel, y, x)
    if not best:
        raise InputError(
            "no neuron meets the conditions "
            f"(alpha={alpha}, minimum={minimum}), so there are no units to take; choose milder ones"
        )
    order = sorted(best, key=lambda key: (-best[key][0], key))
    chosen = np.array([best[key][1:] for key in order])
    shapes = {name: shape for name, shape in json.loads(result.attrs["shapes"]).items() if name in wanted}
    which = f"fold {fold}" if fold is not None else f"most of {n_folds} folds"
    return UnitSet(
        layer=np.array([names[k] for k, _ in order]),
        channel=chosen[:, 0],
        y=chosen[:, 1],
        x=chosen[:, 2],
        score=np.array([best[key][0] for key in order]),
        question=(
            f"matched ({result.attrs['assignment']}) with {len(asked)} neurons of {result.attrs['recording']}, {which},"
            f" in {result.attrs['network']}"
        ),
        shapes=shapes,
    )


def _modal(units: np.ndarray, paired: np.ndarray) -> int:
    """A fold that chose the unit most folds chose, ties by index."""
    values, counts = np.unique(units[paired], return_counts=True)
    return int(np.flatnonzero((units == values[counts.argmax()]) & paired)[0])
