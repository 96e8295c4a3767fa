"""Figure of the matched-unit shuffle: own units against exchanged ones, by layer and neuron by neuron."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.unit_matching_frame import WIDE, headline
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TALL = 5.9  # inches


def _check(result: xr.Dataset) -> None:
    """Refuse what is no such result."""
    if not {"r_exchanged", "observed", "null_median"} <= set(getattr(result, "data_vars", ())):
        raise InputError(
            "this is not a matched-unit shuffle (r_exchanged, observed, null_median); give what "
            "shuffle_match() returned"
        )


def _layer(result: xr.Dataset, layer: str | None) -> int:
    """The layer named, or the one with the highest median."""
    names = [str(name) for name in result["layer"].values]
    if layer is None:
        return int(np.nanargmax(result["median_r"].values))
    if layer not in names:
        raise InputError(f"the result has no layer {layer!r}; there are: {', '.join(map(repr, names))}")
    return names.index(layer)


def plot(result: xr.Dataset, *, layer: str | None = None, title: str | None = None, **_unused: Any) -> Figure:
    """Draw own against exchanged units: medians by layer, and every pair of unit and neuron in one layer.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.match_shuffle.shuffle_match` returned.
    layer : str, optional
        Layer of the lower panels; by default the one with the highest median.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        6.5 by 5.9 inches. Above: the median of own units, and the band of 95 % of the exchanged ones. Below: the table
        of units by neurons, sorted by the neurons' own correlation, and own against mean exchanged correlation.

    Raises
    ------
    InputError
        If it is another result, or it has no such layer.
    """
    _check(result)
    names = [str(name) for name in result["layer"].values]
    at = _layer(result, layer)
    with plotting.style():
        figure = plotting.new_figure(WIDE, _TALL)
        depth = plotting.label_depth(names, 5.4)
        above = figure.add_axes((0.85 / WIDE, (3.35 + depth) / _TALL, 5.4 / WIDE, (1.65 - depth) / _TALL))
        _profile(above, result, names)
        table = figure.add_axes((0.85 / WIDE, 0.5 / _TALL, 2.15 / WIDE, 2.15 / _TALL))
        bar = figure.add_axes((3.06 / WIDE, 0.5 / _TALL, 0.09 / WIDE, 2.15 / _TALL))
        _table(figure, table, bar, result, at)
        _scatter(figure.add_axes((4.2 / WIDE, 0.5 / _TALL, 2.05 / WIDE, 2.15 / _TALL)), result, at)
        words = title or "Own units against those of other neurons"
        line = (
            f"{result.sizes['neuron']} neurons, units of {result.attrs.get('network', 'the network')}; held-out stimuli"
        )
        headline(figure, _TALL, words, line)
        figure.text(0.85 / WIDE, 2.78 / _TALL, names[at], va="bottom", fontsize=9.5, color=plotting.SOFT)
    return figure


def _profile(axes: Axes, result: xr.Dataset, names: list[str]) -> None:
    """Medians by layer with the band of the exchanged ones."""
    x = np.arange(len(names))
    low, high = np.quantile(result["null_median"].values, [0.025, 0.975], axis=1)
    label = "95 % of medians, units exchanged"
    axes.bar(x, high - low, 0.6, bottom=low, color=plotting.BAND, zorder=1.5, label=label)
    axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    axes.plot(x, result["median_r"].values, "o-", color=plotting.COLOURS[0], markersize=5.5, label="own unit, median")
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel("Median held-out r")
    front = plotting.label_layers(axes, list(range(len(names))), names, 5.4)
    axes.set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2, handlelength=1.5)


def _table(figure: Figure, axes: Axes, bar: Axes, result: xr.Dataset, at: int) -> None:
    """Every unit with every neuron: own pairs lie on the diagonal."""
    own = result["observed"].values[at]
    known = np.flatnonzero(np.isfinite(own))
    order = known[np.argsort(-own[known], kind="stable")]
    values = result["r_exchanged"].values[at][np.ix_(order, order)]
    most = float(np.nanmax(np.abs(values)))
    shown = axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest", aspect="auto")
    axes.set_xlabel("Neuron, by own r")
    axes.set_ylabel("Unit matched to neuron")
    axes.set_xticks([0, len(order) - 1], ["1", str(len(order))])
    axes.set_yticks([0, len(order) - 1], ["1", str(len(order))])
    figure.colorbar(shown, cax=bar)
    bar.set_title("r", fontsize=9, loc="left")


def _scatter(axes: Axes, result: xr.Dataset, at: int) -> None:
    """Own correlation against the mean of the exchanged ones; above the diagonal the own unit is better."""
    own, other, p = (result[name].values[at] for name in ("observed", "null_mean", "p_corrected"))
    ends = np.concatenate([own, other, [0.0]])
    ends = ends[np.isfinite(ends)]
    reach = (float(ends.min()) - 0.03, float(ends.max()) + 0.03)
    axes.plot(reach, reach, color=plotting.SOFT, linewidth=0.8, zorder=1)
    clear = p <= 0.05
    axes.plot(other[~clear], own[~clear], "o", markerfacecolor="white", color=plotting.SOFT, markersize=4.5)
    if clear.any():
        axes.plot(other[clear], own[clear], "o", color=plotting.COLOURS[0], markersize=4.5, label="p ≤ .05 (corrected)")
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.04, 1.0), borderaxespad=0.2, handlelength=1.0, handletextpad=0.3
        )
    axes.set_xlim(reach)
    axes.set_ylim(reach)
    axes.set_xlabel("r, others' units (mean)")
    axes.set_ylabel("r, own unit")


def caption(result: xr.Dataset, *, layer: str | None = None, **_unused: Any) -> str:
    """Say in sentences what the figure shows: exchanges, folds, tests.

    Parameters
    ----------
    result : xarray.Dataset
        What ``shuffle_match`` returned.
    layer : str, optional
        That given to :func:`plot`.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is another result, or it has no such layer.
    """
    _check(result)
    attrs, at = result.attrs, _layer(result, layer)
    p, n = result["p_corrected"].values[at], result.sizes["neuron"]
    return (
        f"Each of {n} neurons ({attrs.get('recording', 'recording')}) scored on held-out stimuli with the unit of "
        f"{attrs.get('network', 'the network')} matched to it on the training stimuli, and with the units matched to "
        f"the other neurons ({attrs.get('splitting', 'crossvalidated')}). Above: medians over neurons; bars hold 95 % "
        f"of {result.sizes['draw']} random exchanges in which no neuron keeps its unit "
        f"(p = {plotting.short(float(result['p_median'].values[at]), 3)} in {result['layer'].values[at]}, one-sided). "
        f"Below, {result['layer'].values[at]}: all pairs, own units on the diagonal; right, filled: the own unit beats "
        f"the others' with p ≤ .05 (rank among all neurons' units, false discovery rate; {int((p <= 0.05).sum())} of "
        f"{int(np.isfinite(p).sum())} neurons)."
    )


def alt_text(result: xr.Dataset, *, layer: str | None = None, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``shuffle_match`` returned.
    layer : str, optional
        That given to :func:`plot`.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is another result, or it has no such layer.
    """
    _check(result)
    at, short = _layer(result, layer), plotting.short
    own, null = float(result["median_r"].values[at]), float(result["null_median"].values[at].mean())
    return (
        f"Medians by layer of own and exchanged units; in {result['layer'].values[at]} {short(own)} against "
        f"{short(null)}. Below, a table of all units by all neurons of that layer and a scatter of own against "
        f"exchanged correlations, {int((result['observed'].values[at] > result['null_mean'].values[at]).sum())} of "
        f"{result.sizes['neuron']} neurons above the diagonal."
    )
