"""Figures of unit matching: held-out correlation by layer, one layer against its null, positions of matched units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit import plotting
from actkit.analyses.unit_matching_frame import WIDE, headline
from actkit.analyses.unit_matching_map_plot import map_alt_text, map_caption, plot_map
from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ASSIGNMENTS = {
    "best": "best unit of each neuron",
    "mutual": "mutually best units",
    "one_to_one": "one-to-one assignment",
}
Kind = Literal["layers", "null", "map"]
_NO_NULL = "this match was made without permutations, so it has no null; use match_units(..., n_permutations=999)"
_KINDS = ("layers", "null", "map")
_WIDE, _TALL = WIDE, 5.6  # inches


def _check(result: xr.Dataset) -> xr.Dataset:
    """Refuse what is no matching result."""
    if "r_mean" not in result or "null_median" not in result:
        raise InputError("this is not a matching result (r_mean, null_median); give what match_units() returned")
    if not np.isfinite(result["r_mean"].values).any():
        raise InputError("no neuron has a match, so there is nothing to draw; every neuron is constant or unpaired")
    return result


def plot(
    result: xr.Dataset,
    *,
    kind: Kind = "layers",
    layer: str | None = None,
    title: str | None = None,
    **_unused: Any,
) -> Figure:
    """Draw a match: its layers, one layer against its null, or the positions of the matched units.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.
    kind : {"layers", "null", "map"}
        Correlations by layer, with the best layer's neurons below; one layer's neurons and medians against their
        nulls; or the positions of the matched units on the feature maps.
    layer : str, optional
        Layer of the lower panel, of the null or of the map; by default the one with the highest median (all maps).
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        6.5 inches wide. ``layers``: above, one dot a neuron, the median over neurons as a line (with the correlations
        over their ceilings as a second one, where reliabilities were given), and the band of 95 % of the permuted
        medians; below, a histogram of one layer's neurons with the 99 % points of their nulls. ``null``: left, the
        neurons with the means and 99 % points of their nulls; right, the permuted medians and the observed one.
        ``map``: see :func:`actkit.analyses.unit_matching_map_plot.plot_map`.

    Raises
    ------
    InputError
        If it is not a matching result, the kind or the layer does not exist, or there is no null or map to draw.
    """
    _check_kind(kind)
    if kind == "map":
        return plot_map(_check(result), layer, title)
    if kind == "null":
        return _plot_null(_check(result), layer, title)
    result = _check(result)
    with plotting.style():
        figure = plotting.new_figure(_WIDE, _TALL)
        names = [str(name) for name in result["layer"].values]
        below = plotting.label_depth(names, 5.4)
        left, height = 0.85, 2.35 - below
        profile = figure.add_axes((left / _WIDE, (2.65 + below) / _TALL, 5.4 / _WIDE, (height - 0.25) / _TALL))
        histogram = figure.add_axes((left / _WIDE, 0.5 / _TALL, 5.4 / _WIDE, 1.45 / _TALL))
        _profile(profile, result, names)
        _histogram(histogram, result, names, _top(result, layer))
        words = title or f"Single units of {result.attrs.get('network', 'the network')} matched with neurons"
        headline(figure, _TALL, words, _line(result))
    return figure


def _profile(axes: Axes, result: xr.Dataset, names: list[str]) -> None:
    """Medians by layer over the neurons' dots, with the null's band."""
    r, x = result["r_mean"].values, np.arange(len(names))
    # Dots of a layer side by side in a fixed pattern: no two drawings of a result differ.
    aside = (np.arange(len(r)) * 0.618) % 1 * 0.5 - 0.25
    for k in range(len(names)):
        axes.plot(k + aside, r[:, k], ".", color=plotting.FAINT, markersize=3.5, zorder=2)
    null = result["null_median"].values
    if len(null):
        low, high = np.quantile(null, [0.025, 0.975], axis=0)
        half = 0.35
        for k in range(len(names)):
            label = "95 % of permuted medians" if k == 0 else None
            axes.fill_between(
                [k - half, k + half], low[k], high[k], color=plotting.BAND, linewidth=0, zorder=1, label=label
            )
    axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    marker: dict[str, Any] = {"markersize": 5.5, "zorder": 4}
    axes.plot(x, result["median_r"].values, "o-", color=plotting.COLOURS[0], label="median over neurons", **marker)
    if "r_corrected" in result:
        over = [np.median(column[np.isfinite(column)]) for column in result["r_corrected"].values.T]
        axes.plot(x, over, "s--", color=plotting.COLOURS[1], label="median of r / √reliability", **marker)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel("Held-out r")
    front = plotting.label_layers(axes, list(range(len(names))), names, 5.4)
    axes.set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.5, columnspacing=1.2
    )


def _line(result: xr.Dataset) -> str:
    """Neurons, assignment and folds in a line."""
    words = f"{result.sizes['neuron']} neurons; {_ASSIGNMENTS.get(str(result.attrs.get('assignment')), 'units')}"
    return f"{words}; held-out stimuli, {result.sizes['fold']} folds"


def _check_kind(kind: str) -> None:
    """Refuse kinds that do not exist."""
    if kind not in _KINDS:
        raise InputError(f"kind={kind!r} is not a figure of a match; {nearest(kind, _KINDS)}")


def _top(result: xr.Dataset, layer: str | None = None) -> int:
    """The layer named, or the one with the highest median."""
    names = [str(name) for name in result["layer"].values]
    if layer is not None and layer not in names:
        raise InputError(f"the result has no layer {layer!r}; {nearest(layer, names)}")
    return int(np.nanargmax(result["median_r"].values)) if layer is None else names.index(layer)


def _plot_null(result: xr.Dataset, layer: str | None, title: str | None) -> Figure:
    """One layer against its null: neurons, and medians."""
    top = _top(result, layer)
    if not result.sizes["permutation"]:
        raise InputError(_NO_NULL)
    names = [str(name) for name in result["layer"].values]
    tall = 3.9
    with plotting.style():
        figure = plotting.new_figure(_WIDE, tall)
        left = figure.add_axes((0.85 / _WIDE, 0.5 / tall, 3.0 / _WIDE, 1.95 / tall))
        right = figure.add_axes((4.45 / _WIDE, 0.5 / tall, 1.85 / _WIDE, 1.95 / tall))
        _histogram(left, result, names, top, means=True)
        null, observed = result["null_median"].values[:, top], float(result["median_r"].values[top])
        ends = np.concatenate([null, [observed]])
        right.hist(null, np.linspace(ends.min(), ends.max(), 31).tolist(), color=plotting.FAINT)
        right.axvline(observed, color=plotting.COLOURS[0], linewidth=2)
        p = plotting.short(float(result["p_median"].values[top]), 3)
        right.set_title(
            f"median {plotting.short(observed)}, p = {p}", fontsize=9.5, color=plotting.COLOURS[0], loc="right"
        )
        right.set_xlabel("Median held-out r")
        right.set_ylabel("Permutations")
        words = title or f"Matched units of {names[top]} against permuted stimuli"
        moved = "within categories" if result.attrs.get("null") == "within_category" else "freely"
        line = (
            f"{result.sizes['neuron']} neurons; {result.sizes['permutation']} permutations, {moved}; held-out stimuli"
        )
        headline(figure, tall, words, line)
    return figure


def _histogram(axes: Axes, result: xr.Dataset, names: list[str], top: int, means: bool = False) -> None:
    """Neurons of a layer, with the points that 99 % of their permutations stay below, and the means of these."""
    r, limit = result["r_mean"].values[:, top], result["null_99"].values[:, top]
    r = r[np.isfinite(r)]
    known = limit[np.isfinite(limit)]
    average = result["null_mean"].values[:, top]
    average = average[np.isfinite(average)] if means else average[:0]
    ends = np.concatenate([r, known, average, [0.0]])
    bins = np.linspace(np.floor(ends.min() * 20) / 20, np.ceil(ends.max() * 20) / 20 + 1e-9, 25).tolist()
    axes.hist(r, bins, color=plotting.COLOURS[0], alpha=0.85, label="neurons" if means else f"neurons, {names[top]}")
    if means:
        axes.hist(average, bins, color=plotting.FAINT, alpha=0.8, label="means of their nulls")
    if len(known):
        axes.hist(
            known, bins, histtype="step", color=plotting.COLOURS[1], linewidth=1.4, label="99 % points of their nulls"
        )
    axes.set_xlabel("Held-out r")
    axes.set_ylabel("Neurons")
    columns = 1 if means else 2
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=1.5)


def caption(result: xr.Dataset, *, kind: Kind = "layers", layer: str | None = None, **_unused: Any) -> str:
    """Say in sentences what the figure shows: match, folds, bands, test.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.
    kind, layer
        Those given to :func:`plot`.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    result = _check(result)
    _check_kind(kind)
    if kind == "map":
        return map_caption(result, layer)
    top = _top(result, layer)
    name, short = str(result["layer"].values[top]), plotting.short
    attrs = result.attrs
    pairs = (
        f"Held-out Pearson correlation between each of {result.sizes['neuron']} neurons "
        f"({attrs.get('recording', 'recording')}) and its unit of {attrs.get('network', 'the network')}, "
        f"{'in ' + name if kind == 'null' else 'by layer'} "
        f"({_ASSIGNMENTS.get(str(attrs.get('assignment')), 'units')}, chosen by the signed correlation over the "
        f"training stimuli; {attrs.get('splitting', 'crossvalidated')})."
    )
    if kind == "null":
        if not result.sizes["permutation"]:
            raise InputError(_NO_NULL)
        observed, p = (short(float(result[one].values[top]), k) for one, k in (("median_r", 2), ("p_median", 3)))
        return (
            f"{pairs} Left: neurons, mean over folds, with the means and the 99 % points of their nulls. Right: "
            f"medians over neurons under the null, and the observed one (line, {observed}, p = {p}, one-sided). "
            f"{_null_words(result, top, '')}"
        )
    text = [
        f"{pairs} Dots are neurons, mean over folds; the line is their median.",
        f"{'Highest at' if layer is None else 'At'} {name}: {short(float(result['median_r'].values[top]))} "
        "(descriptive); "
        f"the same unit in {short(100 * float(np.nanmean(result['stability'].values[:, top])), 1)} % "
        "of pairs of folds.",
    ]
    if "r_corrected" in result:
        divided = int(np.isfinite(result["r_corrected"].values[:, top]).sum())
        text.append(f"The dashed line divides r by the square root of the reliability ({divided} neurons at {name}).")
    if result.sizes["permutation"]:
        text.append(_null_words(result, top, "bands hold 95 % of its medians. "))
    else:
        text.append("No significance was tested.")
    return " ".join(text)


def _null_words(result: xr.Dataset, top: int, bands: str) -> str:
    """What was permuted, and how many neurons of a layer lie beyond."""
    name, short = str(result["layer"].values[top]), plotting.short
    moved = "within categories" if result.attrs.get("null") == "within_category" else "freely"
    beyond, p = 100 * float(result["share_beyond"].values[top]), result["p_corrected"].values[:, top]
    joint = f"; {bands}" if bands else ". "
    return (
        f"Null: stimuli permuted {moved} {result.sizes['permutation']} times, the match made anew in all folds each "
        f"time{joint}{short(beyond, 1)} % of the neurons lie above the 99 % point of their null at {name}, and "
        f"{int((p <= 0.05).sum())} have p ≤ .05 (one-sided, false discovery rate over neurons)."
    )


def alt_text(result: xr.Dataset, *, kind: Kind = "layers", layer: str | None = None, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.
    kind, layer
        Those given to :func:`plot`.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    result = _check(result)
    _check_kind(kind)
    if kind == "map":
        return map_alt_text(result, layer)
    median, names = result["median_r"].values, [str(name) for name in result["layer"].values]
    top, short = _top(result, layer), plotting.short
    r = result["r_mean"].values[:, top]
    span = f"from {short(float(np.nanmin(r)))} to {short(float(np.nanmax(r)))}"
    if kind == "null":
        if not result.sizes["permutation"]:
            raise InputError(_NO_NULL)
        return (
            f"Two histograms for {names[top]}: neurons {span}, beside their nulls; and permuted medians around "
            f"{short(float(result['null_median'].values[:, top].mean()))}, with the observed one at "
            f"{short(float(median[top]))}."
        )
    return (
        f"Dots and a line of held-out correlations by layer: the median goes from {short(float(median[0]))} in "
        f"{names[0]} to {short(float(median[-1]))} in {names[-1]}, highest in {names[_top(result)]}. Below, a "
        f"histogram of the neurons {'there' if layer is None else 'of ' + layer}, {span}."
    )
