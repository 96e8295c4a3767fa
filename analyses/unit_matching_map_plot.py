"""Map of matched positions: where in the feature maps of each layer the units lie that neurons were matched with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actkit import plotting
from actkit.analyses.unit_matching_frame import WIDE, headline
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["map_alt_text", "map_caption", "matched_positions", "plot_map"]

_COLUMNS, _LEFT, _GAP = 4, 0.45, 0.35  # panels a row; inches


def matched_positions(result: xr.Dataset, layer: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Find where matched units lie, layer by layer.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.
    layer : str, optional
        One layer; by default all that have maps.

    Returns
    -------
    dict of str to tuple
        By layer: ``counts`` (rows, columns), the share of all matches (neurons by folds) at each position, which sum
        to 1; and ``chosen`` (neurons, 3), channel, row and column of the unit that most folds chose (ties by the lowest
        fold), -1 for a neuron without one.

    Raises
    ------
    InputError
        If the result has no such layer, or no layer has maps (channel, y, x) larger than one position.
    """
    shapes = json.loads(result.attrs.get("shapes", "{}"))
    names = [str(name) for name in result["layer"].values]
    if layer is not None and layer not in names:
        raise InputError(f"the result has no layer {layer!r}; there are: {', '.join(map(repr, names))}")
    found = {}
    for name in [layer] if layer is not None else names:
        shape = shapes.get(name, [])
        if len(shape) != 3 or shape[1] * shape[2] < 2:
            continue
        one = result.sel(layer=name)
        channel, y, x = (one[what].transpose("neuron", "fold").values for what in ("channel", "y", "x"))
        unit, paired = (
            one["unit"].transpose("neuron", "fold").values,
            np.isfinite(one["r"].transpose("neuron", "fold").values),
        )
        counts = np.zeros(tuple(shape[1:]))
        np.add.at(counts, (y[paired], x[paired]), 1)
        chosen = np.full((len(unit), 3), -1)
        for j in range(len(unit)):
            folds = np.flatnonzero(paired[j])
            if len(folds):
                fold = folds[np.argmax([(unit[j, folds] == unit[j, f]).sum() for f in folds])]
                chosen[j] = channel[j, fold], y[j, fold], x[j, fold]
        found[name] = counts / max(counts.sum(), 1), chosen
    if not found:
        raise InputError(
            "no layer of this match has a map of positions (channel, y, x), so there is nothing to locate; match "
            "layers of a convolution recorded with reduce='none'"
            if layer is None
            else f"layer {layer!r} has no map of positions (channel, y, x); leave layer= out for those that have one"
        )
    return found


def plot_map(result: xr.Dataset, layer: str | None = None, title: str | None = None) -> Figure:
    """Draw the positions of matched units on the feature map of each layer.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.
    layer : str, optional
        One layer; by default all that have maps.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        6.5 inches wide, four maps a row. Grey: the share of matches, over neurons and folds, at each position. Dots:
        neurons, at the unit most folds chose, moved aside a little where they coincide.

    Raises
    ------
    InputError
        If no layer has a map.
    """
    found = matched_positions(result, layer)
    names = list(found)
    columns = min(len(names), _COLUMNS) if len(names) > 1 else 1
    rows = -(-len(names) // columns)
    side = min((WIDE - _LEFT - 0.25 - _GAP * (columns - 1)) / columns, 3.6)
    tall = 0.72 + rows * (side + 0.5) + 0.1
    with plotting.style():
        figure = plotting.new_figure(WIDE, tall)
        for number, name in enumerate(names):
            left = _LEFT + (number % columns) * (side + _GAP)
            bottom = tall - 0.72 - (number // columns) * (side + 0.5) - 0.38 - side
            axes = figure.add_axes((left / WIDE, bottom / tall, side / WIDE, side / tall))
            _panel(axes, *found[name])
            used = len(np.unique(found[name][1][found[name][1][:, 0] >= 0, 0]))
            channels = json.loads(result.attrs["shapes"])[name][0]
            axes.set_title(f"{name}\n{used} of {channels} channels", fontsize=9, loc="left", pad=3)
        words = title or "Where in the image the matched units look"
        line = (
            f"{result.sizes['neuron']} neurons, {result.attrs.get('network', 'network')}; {result.sizes['fold']} folds"
        )
        headline(figure, tall, words, line, _LEFT)
    return figure


def _panel(axes: Axes, counts: np.ndarray, chosen: np.ndarray) -> None:
    """One feature map, row 0 on top as in the image."""
    axes.imshow(counts, cmap="Greys", vmin=0, vmax=1.6 * counts.max() or 1, interpolation="nearest", aspect="equal")
    known = chosen[chosen[:, 0] >= 0]
    # A fixed spiral within the cell: neurons of one position stay apart, and two drawings agree.
    k = np.arange(len(known))
    radius = 0.38 * np.sqrt((k * 0.618) % 1)
    axes.plot(
        known[:, 2] + radius * np.cos(2.4 * k),
        known[:, 1] + radius * np.sin(2.4 * k),
        "o",
        color=plotting.COLOURS[0],
        markersize=3.6,
        markeredgecolor="white",
        markeredgewidth=0.4,
    )
    rows, columns = counts.shape
    axes.set_xticks([0, columns - 1])
    axes.set_yticks([0, rows - 1])
    axes.tick_params(labelsize=8, length=2)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(plotting.FAINT)


def map_caption(result: xr.Dataset, layer: str | None = None) -> str:
    """Say in sentences what the map shows.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.
    layer : str, optional
        That given to :func:`plot_map`.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If no layer has a map.
    """
    found = matched_positions(result, layer)
    return (
        f"Positions, on the feature maps of {result.attrs.get('network', 'the network')}, of the units matched to "
        f"{result.sizes['neuron']} neurons ({result.attrs.get('recording', 'recording')}; row 0 is the top of the "
        f"image). Grey: share of matches over neurons and {result.sizes['fold']} folds, each map scaled to its own "
        f"highest; dots: neurons, at the unit that most folds chose, moved aside where they coincide. {_list(found)}."
    )


def map_alt_text(result: xr.Dataset, layer: str | None = None) -> str:
    """Describe the map for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.
    layer : str, optional
        That given to :func:`plot_map`.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If no layer has a map.
    """
    found = matched_positions(result, layer)
    return f"Feature maps with the positions of matched units as dots. {_list(found)}."


def _list(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Centre and number of channels of each layer."""
    parts: Sequence[str] = [_words(name, *one) for name, one in found.items()]
    return "; ".join(parts)


def _words(name: str, counts: np.ndarray, chosen: np.ndarray) -> str:
    """Where the matches of a layer are centred, as shares of the map's height and width."""
    rows, columns = (np.arange(size) + 0.5 for size in counts.shape)
    down = float(counts.sum(axis=1) @ rows) / len(rows)
    right = float(counts.sum(axis=0) @ columns) / len(columns)
    channels = len(np.unique(chosen[chosen[:, 0] >= 0, 0]))
    return f"{name}: {channels} channels, centred {100 * down:.0f} % down and {100 * right:.0f} % across the map"
