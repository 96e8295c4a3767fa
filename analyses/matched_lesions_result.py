"""Lay out what lesions of matched units did: effects, excess over random sets, tests, balance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from actkit.analyses.matched_lesions_split import FEATURES, OUTCOMES, Measured
from actkit.statistics import corrected

__all__ = ["adjust", "assemble"]

_BY_OUTCOME = {
    "intact": "of the intact network",
    "lesioned": "without the matched units",
    "effect": "harm done by the lesion",
    "random_mean": "mean effect of the random sets",
    "random_sd": "standard deviation of the effects of the random sets",
    "excess": "effect of the matched units less that of random ones",
    "excess_low": "lower end of the 95 % interval",
    "excess_high": "upper end of the 95 % interval",
    "p_value": "p, one-sided: random sets with as large an effect",
    "p_less": "p, one-sided: random sets with as small an effect",
}


def assemble(
    found: list[list[Measured]], layers: list[str], halves: Sequence[tuple[np.ndarray, np.ndarray]], ids: list[str]
) -> xr.Dataset:
    """Stack splits and layers, and sum up over splits.

    Parameters
    ----------
    found : list of list of Measured
        By split and layer.
    layers : list of str
        Names of the layers.
    halves : sequence of two numpy.ndarray of int
        Stimuli of each split that were matched on, and evaluated on.
    ids : list of str
        Stimulus ids.

    Returns
    -------
    xarray.Dataset
        As :func:`actkit.analyses.matched_lesions.lesion_matched` describes it.
    """

    def stacked(name: str) -> np.ndarray:
        return np.stack([np.stack([getattr(one, name) for one in split]) for split in found])

    flat, full = ("split", "layer"), ("split", "layer", "outcome")
    effect, random = stacked("intact") - stacked("lesioned"), stacked("intact")[..., None] - stacked("random")
    sign = np.where(np.array(OUTCOMES) == "loss", -1.0, 1.0)  # losses rise where the others fall
    effect, random = sign * effect, sign[:, None] * random
    n = random.shape[-1]
    # Rounding must not decide ties: accuracies of few images take few values.
    more = (random >= effect[..., None] - 1e-12).sum(axis=-1)
    less = (random <= effect[..., None] + 1e-12).sum(axis=-1)
    values = {
        "intact": stacked("intact"),
        "lesioned": stacked("lesioned"),
        "effect": effect,
        "random_mean": random.mean(axis=-1),
        "random_sd": random.std(axis=-1, ddof=1) if n > 1 else np.full(effect.shape, np.nan),
        "excess": effect - random.mean(axis=-1),
        "excess_low": stacked("low"),
        "excess_high": stacked("high"),
        "p_value": (1 + more) / (1 + n),
        "p_less": (1 + less) / (1 + n),
    }
    data: dict[str, Any] = {
        name: (full, value, {"long_name": _BY_OUTCOME[name], "units": "1"}) for name, value in values.items()
    }
    data["random_effect"] = ((*full, "random"), random, {"long_name": "effect of each random set", "units": "1"})
    data["excess_mean"] = (("layer", "outcome"), values["excess"].mean(axis=0))
    for name in ("p_value", "p_less"):
        p = values[name]
        both = p[0] if len(p) == 1 else np.minimum(1, 2 * np.median(p, axis=0))
        stem = name.removesuffix("_value")
        data[f"{stem}_combined"] = (("layer", "outcome"), both)
        fdr = np.stack([corrected(column, "fdr") for column in both.T], axis=-1)
        data[f"{stem}_corrected"] = (("layer", "outcome"), fdr)
    for name in ("n_units", "n_neurons", "match_r", "overlap"):
        data[name] = (flat, stacked(name))
    features = stacked("features")
    data["matched_features"] = ((*flat, "feature"), features[:, :, 0])
    data["random_features"] = ((*flat, "random", "feature"), features[:, :, 1:])
    data["imbalance"] = ((*flat, "feature"), features[:, :, 0] - features[:, :, 1:].mean(axis=2))
    adjusted = [[adjust(*of) for of in zip(*one, strict=True)] for one in zip(effect, random, features, strict=True)]
    residual = np.array([[one[1] for one in some] for some in adjusted])
    data["excess_adjusted"] = (full, np.array([[one[0] for one in some] for some in adjusted]))
    reaches = (residual >= residual[..., :1] - 1e-12).mean(axis=-1)
    data["p_adjusted"] = (full, np.where(np.isnan(residual[..., 0]), np.nan, reaches))
    slots = int(stacked("n_units").max())
    for place, name in enumerate(("channel", "y", "x")):
        padded = [
            [np.pad(one.places[place], (0, slots - one.n_units), constant_values=-1) for one in split]
            for split in found
        ]
        data[name] = ((*flat, "slot"), np.array(padded))
    for place, name in enumerate(("matched_on", "evaluated_on")):
        marks = np.zeros((len(halves), len(ids)), dtype=np.int8)
        for row, half in zip(marks, halves, strict=True):
            row[half[place]] = 1
        data[name] = (("split", "stimulus"), marks)
    coords = {
        "split": np.arange(len(found)),
        "layer": layers,
        "outcome": list(OUTCOMES),
        "feature": list(FEATURES),
        "stimulus": np.array(ids),
    }
    return xr.Dataset(data, coords=coords)


def adjust(effect: np.ndarray, random: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take out of the excess what the sets' remaining differences in activity and position explain.

    Parameters
    ----------
    effect : numpy.ndarray
        ``(outcome,)`` of the matched units.
    random : numpy.ndarray
        ``(outcome, random)`` of the random sets.
    features : numpy.ndarray
        ``(1 + random, feature)`` mean features of the sets, the matched one first; NaN columns are left out.

    Returns
    -------
    excess : numpy.ndarray
        ``(outcome,)``: the effect less the one that a linear fit to the random sets gives for the matched units'
        features. NaN with fewer than ten random sets a feature.
    residual : numpy.ndarray
        ``(outcome, 1 + random)``: of every set, the matched one first, in a fit to all of them alike, so that the
        matched set is one more draw by chance.
    """
    known = features[:, np.isfinite(features).all(axis=0)]
    every = np.concatenate([effect[None], random.T])
    if random.shape[1] < 10 * known.shape[1]:
        return np.full(effect.shape, np.nan), np.full(every.T.shape, np.nan)
    design = np.column_stack([np.ones(len(known)), known])
    slopes = np.linalg.lstsq(design[1:], random.T, rcond=None)[0]
    residual = every - design @ np.linalg.lstsq(design, every, rcond=None)[0]
    return effect - design[0] @ slopes, residual.T
