"""Figure of feature visualisation: a grid of the images that drive units."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

MOST = 48
"""Images that one figure holds."""

_WIDE = 6  # columns where every unit has one image
_OBJECTIVES = {
    "l2": "the l2 norm of the positive part of the filter's map",
    "mean": "the mean of the filter's map",
    "centre": "the unit at the centre of the filter's map",
}


def _check(result: xr.Dataset) -> None:
    """Refuse what is no feature visualisation."""
    if result.attrs.get("analysis") != "feature_visualization" or "image" not in result:
        raise InputError("this is not a feature visualisation (image); give what visualize() returned")
    count = result.sizes["unit"] * result.sizes["draw"]
    if count > MOST:
        raise InputError(
            f"{count} images do not fit one figure, which holds {MOST}; choose units with result.isel(unit=...)"
        )


def _shown(pixels: np.ndarray) -> np.ndarray:
    """An image stretched to its own range, grey ones repeated for the three colours."""
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels - low) / ((high - low) or 1.0)
    return np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled[:, :, :3]


def _name(result: xr.Dataset, unit: int) -> str:
    """Which unit of its layer."""
    channel, y, x = (int(result[key].values[unit]) for key in ("channel", "y", "x"))
    if channel < 0:
        return "whole layer"
    place = f" at {y}, {x}" if x >= 0 else f" at {y}" if y >= 0 else ""
    return f"channel {channel}{place}"


def plot(result: xr.Dataset, *, title: str | None = None, size: float = 1.05, **_unused: Any) -> Figure:
    """Draw the images that drive units, layer by layer.

    Parameters
    ----------
    result : xarray.Dataset
        What ``visualize`` returned.
    title : str, optional
        Headline.
    size : float
        Side of an image in inches.

    Returns
    -------
    matplotlib.figure.Figure
        With several seeds one row a unit and one column a seed; with one seed, up to six units in a row, each layer
        starting a row. Every image is stretched to its own range of pixel values. Images that stayed noise are
        crossed out.

    Raises
    ------
    InputError
        If it is not a feature visualisation, or holds too many images.
    """
    _check(result)
    with plotting.style():
        return _draw(result, title, size)


def _draw(result: xr.Dataset, title: str | None, size: float) -> Figure:
    """Lay out and fill the figure."""
    owner = [str(layer) for layer in result["unit_layer"].values]
    layers = list(dict.fromkeys(owner))
    draws = result.sizes["draw"]
    most = max(owner.count(layer) for layer in layers)
    columns = draws if draws > 1 else min(_WIDE, most)
    gap, under, head = 0.08, 0.24, 0.34
    left, top = (1.25 if draws > 1 else 0.2), 0.78
    width = max(left + columns * (size + gap) + 0.15, 4.6)
    rows = {layer: owner.count(layer) if draws > 1 else math.ceil(owner.count(layer) / columns) for layer in layers}
    step = size + (gap if draws > 1 else under + gap)
    height = top + sum(head + count * step for count in rows.values()) + (0.3 if draws > 1 else 0.05)
    figure = plotting.new_figure(width, height)
    scores = result["score"].values if "score" in result.coords else np.full(len(owner), np.nan)
    y = height - top
    for layer in layers:
        figure.text(
            0.2 / width, (y - 0.06) / height, layer, va="top", fontsize=10.5, fontweight="bold", color=plotting.INK
        )
        y -= head
        mine = [unit for unit, name in enumerate(owner) if name == layer]
        for number, unit in enumerate(mine):
            label = _name(result, unit)
            if np.isfinite(scores[unit]):
                label += ("\n" if draws > 1 else ", ") + plotting.short(float(scores[unit]))
            down, along = (number, 0) if draws > 1 else divmod(number, columns)
            for draw in range(draws):
                place = left + (along + draw) * (size + gap)
                bottom = y - down * step - size
                axes = figure.add_axes((place / width, bottom / height, size / width, size / height))
                axes.imshow(_shown(result["image"].values[unit, draw]), interpolation="lanczos", aspect="auto")
                axes.set_xticks([])
                axes.set_yticks([])
                for spine in axes.spines.values():
                    spine.set_visible(False)
                if int(result["stuck"].values[unit, draw]):
                    axes.plot([0.05, 0.95], [0.05, 0.95], color="white", linewidth=2, transform=axes.transAxes)
                    axes.plot([0.05, 0.95], [0.95, 0.05], color="white", linewidth=2, transform=axes.transAxes)
                if draws == 1:
                    axes.set_xlabel(label.removeprefix("channel ") if size < 0.9 else label, fontsize=8.5, labelpad=3)
            if draws > 1:
                middle = y - down * step - size / 2
                figure.text(0.2 / width, middle / height, label, va="center", fontsize=9, linespacing=1.4)
        y -= rows[layer] * step
    if draws > 1:
        for draw in range(draws):
            place = left + draw * (size + gap) + size / 2
            figure.text(place / width, y / height, f"seed {draw + 1}", va="top", ha="center", fontsize=9.5)
    headline = title or "Images that drive units"
    figure.text(0.2 / width, 1 - 0.12 / height, headline, va="top", fontsize=13, fontweight="bold")
    line = f"{result.attrs.get('network', 'network')}, {result.sizes['step']} steps of gradient ascent"
    figure.text(0.2 / width, 1 - 0.41 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)
    return figure


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows: units, objective, regularisation, seeds.

    Parameters
    ----------
    result : xarray.Dataset
        What ``visualize`` returned.

    Returns
    -------
    str
        Plain text.
    """
    import json

    _check(result)
    options = json.loads(result.attrs["options"])
    text = [
        f"Images that drive {result.sizes['unit']} units of {result.attrs['network']}, made from noise by "
        f"{options['steps']} steps of gradient ascent on {_OBJECTIVES[options['objective']]} (units without a map: "
        f"their activation), {result.sizes['draw']} seed(s) each. Jitter up to {options['jitter']} pixels; Gaussian "
        f"blur of {options['blur']:g} pixels every {options['blur_every']} steps; norm penalty {options['penalty']:g}. "
        "Each image is stretched to its own range of pixel values.",
    ]
    if result.attrs.get("question"):
        text.append(f"Units: {result.attrs['question']}.")
    if "score" in result.coords and np.isfinite(result["score"].values).any():
        text.append("The number beside a unit is its score.")
    stuck = int(result["stuck"].values.sum())
    if stuck:
        text.append(f"{stuck} image(s) stayed noise, the gradient being 0 (crossed out).")
    text.append("One stimulus that drives a unit does not say what the unit is for.")
    return " ".join(text)


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``visualize`` returned.

    Returns
    -------
    str
        One or two sentences.
    """
    _check(result)
    owner = [str(layer) for layer in result["unit_layer"].values]
    counts = ", ".join(f"{owner.count(layer)} of {layer}" for layer in dict.fromkeys(owner))
    rise = np.median(result["final"].values - result["start"].values)
    return (
        f"Grid of synthetic images that drive units ({counts}), {result.sizes['draw']} for each; the median rise of "
        f"the objective from noise to image is {rise:.3g}."
    )
