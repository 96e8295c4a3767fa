"""Figure of unit matching: held-out correlation by layer, and the best layer's distribution against its null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ASSIGNMENTS = {
    "best": "best unit of each neuron",
    "mutual": "mutually best units",
    "one_to_one": "one-to-one assignment",
}
_WIDE, _TALL = 6.5, 5.6  # inches


def _check(result: xr.Dataset) -> xr.Dataset:
    """Refuse what is no matching result."""
    if "r_mean" not in result or "null_median" not in result:
        raise InputError("this is not a matching result (r_mean, null_median); give what match_units() returned")
    if not np.isfinite(result["r_mean"].values).any():
        raise InputError("no neuron has a match, so there is nothing to draw; every neuron is constant or unpaired")
    return result


def plot(result: xr.Dataset, *, title: str | None = None) -> Figure:
    """Draw held-out correlations by layer, and their distribution over neurons.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 6.5 by 5.6 inches. Above: one dot a neuron, the median over neurons as a line (with the correlations over
        their ceilings as a second one, where reliabilities were given), and the band of 95 % of the permuted medians.
        Below: the layer with the highest median, a histogram of the neurons with the 99 % points of their nulls.

    Raises
    ------
    InputError
        If it is not a matching result.
    """
    result = _check(result)
    with plotting.style():
        figure = plotting.new_figure(_WIDE, _TALL)
        names = [str(name) for name in result["layer"].values]
        below = plotting.label_depth(names, 5.4)
        left, height = 0.85, 2.35 - below
        profile = figure.add_axes((left / _WIDE, (2.65 + below) / _TALL, 5.4 / _WIDE, (height - 0.25) / _TALL))
        histogram = figure.add_axes((left / _WIDE, 0.5 / _TALL, 5.4 / _WIDE, 1.45 / _TALL))
        _profile(profile, result, names)
        _histogram(histogram, result, names)
        headline = title or f"Single units of {result.attrs.get('network', 'the network')} matched with neurons"
        figure.text(left / _WIDE, 1 - 0.1 / _TALL, headline, va="top", fontsize=13, fontweight="bold")
        words = f"{result.sizes['neuron']} neurons; {_ASSIGNMENTS.get(str(result.attrs.get('assignment')), 'units')}"
        line = f"{words}; held-out stimuli, {result.sizes['fold']} folds"
        figure.text(left / _WIDE, 1 - 0.36 / _TALL, line, va="top", fontsize=9.5, color=plotting.SOFT)
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


def _top(result: xr.Dataset) -> int:
    """The layer with the highest median."""
    return int(np.nanargmax(result["median_r"].values))


def _histogram(axes: Axes, result: xr.Dataset, names: list[str]) -> None:
    """Neurons of the best layer, with the points that 99 % of their permutations stay below."""
    top = _top(result)
    r, limit = result["r_mean"].values[:, top], result["null_99"].values[:, top]
    r = r[np.isfinite(r)]
    known = limit[np.isfinite(limit)]
    ends = np.concatenate([r, known, [0.0]])
    bins = np.linspace(np.floor(ends.min() * 20) / 20, np.ceil(ends.max() * 20) / 20 + 1e-9, 25).tolist()
    axes.hist(r, bins, color=plotting.COLOURS[0], alpha=0.85, label=f"neurons, {names[top]}")
    if len(known):
        axes.hist(
            known, bins, histtype="step", color=plotting.COLOURS[1], linewidth=1.4, label="99 % points of their nulls"
        )
    axes.set_xlabel("Held-out r")
    axes.set_ylabel("Neurons")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2, handlelength=1.5)


def caption(result: xr.Dataset) -> str:
    """Say in sentences what the figure shows: match, folds, bands, test.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is not a matching result.
    """
    result = _check(result)
    top = _top(result)
    name, short = str(result["layer"].values[top]), plotting.short
    attrs = result.attrs
    text = [
        f"Held-out Pearson correlation between each of {result.sizes['neuron']} neurons "
        f"({attrs.get('recording', 'recording')}) and its unit of {attrs.get('network', 'the network')}, by layer "
        f"({_ASSIGNMENTS.get(str(attrs.get('assignment')), 'units')}, chosen by the signed correlation over the "
        f"training stimuli; {attrs.get('splitting', 'crossvalidated')}). Dots are neurons, mean over folds; "
        "the line is their median.",
        f"Highest at {name}: {short(float(result['median_r'].values[top]))} (descriptive); "
        f"the same unit in {short(100 * float(np.nanmean(result['stability'].values[:, top])), 1)} % "
        "of pairs of folds.",
    ]
    if "r_corrected" in result:
        divided = int(np.isfinite(result["r_corrected"].values[:, top]).sum())
        text.append(f"The dashed line divides r by the square root of the reliability ({divided} neurons at {name}).")
    if result.sizes["permutation"]:
        moved = "within categories" if attrs.get("null") == "within_category" else "freely"
        beyond, p = 100 * float(result["share_beyond"].values[top]), result["p_corrected"].values[:, top]
        text.append(
            f"Null: stimuli permuted {moved} {result.sizes['permutation']} times, the match made anew in all folds "
            f"each time; bands hold 95 % of its medians. {short(beyond, 1)} % of the neurons lie above the 99 % point "
            f"of their null at {name}, and {int((p <= 0.05).sum())} have p ≤ .05 (one-sided, false discovery rate "
            "over neurons)."
        )
    else:
        text.append("No significance was tested.")
    return " ".join(text)


def alt_text(result: xr.Dataset) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``match_units`` returned.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is not a matching result.
    """
    result = _check(result)
    median, names = result["median_r"].values, [str(name) for name in result["layer"].values]
    top, short = _top(result), plotting.short
    r = result["r_mean"].values[:, top]
    return (
        f"Dots and a line of held-out correlations by layer: the median goes from {short(float(median[0]))} in "
        f"{names[0]} to {short(float(median[-1]))} in {names[-1]}, highest in {names[top]}. Below, a histogram of the "
        f"neurons there, from {short(float(np.nanmin(r)))} to {short(float(np.nanmax(r)))}."
    )
