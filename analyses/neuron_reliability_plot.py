"""Figure of the reliability of neurons: every neuron with its interval, the floor, and the median."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (6.4, 4.3)  # inches


def _check(result: xr.Dataset) -> None:
    """Refuse what is no such result."""
    if not {"reliability", "usable", "ceiling"} <= set(getattr(result, "data_vars", ())):
        raise InputError(
            "this is not a reliability of neurons (reliability, usable, ceiling); give what neuron_reliability() "
            "returned"
        )


def plot(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw the reliability of every neuron, sorted, or over time where there are time bins.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.neuron_reliability.neuron_reliability` returned.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        6.4 by 4.3 inches. Whiskers are the result's intervals, hollow marks neurons below the floor (dashed). With time
        bins: the median over neurons, its quartiles as a band.

    Raises
    ------
    InputError
        If it is another result.
    """
    _check(result)
    with plotting.style():
        figure = plotting.new_figure(*_SIZE)
        axes = figure.add_axes((0.115, 0.135, 0.86, 0.665))
        (_over_time if "time" in result.dims else _sorted)(axes, result)
        axes.set_ylabel("Reliability ρ of the mean response")
        floor = float(result.attrs.get("floor", 0.0))
        axes.axhline(floor, color=plotting.SOFT, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
        _label(axes, floor, f"floor {plotting.short(floor)}", left=False, colour="#4f4f4f")
        headline = title or f"Reliability of {result.sizes['neuron']} neurons, {result.attrs.get('recording', '')}"
        figure.text(0.115, 0.975, headline.rstrip(", "), va="top", fontsize=13, fontweight="bold")
        figure.text(0.115, 0.905, _line(result), va="top", fontsize=9.5, color=plotting.SOFT)
    return figure


def _label(axes: Axes, y: float, text: str, *, left: bool, colour: str) -> None:
    """Name a level line: above it at the left, where marks are low, below it at the right, where they are high."""
    axes.annotate(
        text,
        (0.01 if left else 0.99, y),
        xytext=(0, 3 if left else -3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom" if left else "top",
        fontsize=9,
        color=colour,
    )


def _sorted(axes: Axes, result: xr.Dataset) -> None:
    """One mark for each neuron, from the least reliable to the most."""
    y = result["reliability"].values.astype(float)
    order = np.argsort(np.where(np.isnan(y), -np.inf, y), kind="stable")
    order = order[~np.isnan(y[order])]
    x = np.arange(1, len(order) + 1)
    ends = np.array([result[f"interval_{end}"].values[order] for end in ("low", "high")])
    axes.vlines(x, *ends, color=plotting.FAINT, linewidth=1.4, zorder=2)
    usable = result["usable"].values.astype(bool)[order]
    for chosen, face in ((usable, plotting.COLOURS[0]), (~usable, "white")):
        axes.plot(
            x[chosen],
            y[order][chosen],
            "o",
            color=plotting.COLOURS[0],
            markerfacecolor=face,
            markeredgewidth=1.2,
            markersize=4.5,
            zorder=3,
        )
    if len(order):
        middle = float(np.median(y[order]))
        axes.axhline(middle, color=plotting.COLOURS[1], linewidth=1.2, zorder=1)
        _label(axes, middle, f"median {plotting.short(middle)}", left=True, colour=plotting.COLOURS[1])
    axes.set_xlim(0, max(len(order), 1) + 1)
    axes.set_xlabel("Neuron, from the least reliable to the most")
    _limits(axes, np.append(ends[np.isfinite(ends)], y[order]))


def _over_time(axes: Axes, result: xr.Dataset) -> None:
    """Median over neurons with its quartiles, for every time bin."""
    rho = result["reliability"].transpose("time", "neuron").values.astype(float)
    rows = [row[~np.isnan(row)] for row in rho]
    low, middle, high = np.array([np.quantile(row, [0.25, 0.5, 0.75]) if row.size else [np.nan] * 3 for row in rows]).T
    time = result["time"].values
    axes.fill_between(time, low, high, color=plotting.COLOURS[0], alpha=0.2, linewidth=0)
    axes.plot(time, middle, color=plotting.COLOURS[0], marker="o", markersize=4.5)
    units = result["time"].attrs.get("units")
    axes.set_xlabel(f"Time ({units})" if units else "Time")
    _limits(axes, np.concatenate([low, high]))


def _limits(axes: Axes, values: np.ndarray) -> None:
    """From 0, or lower where values are, up to 1."""
    finite = values[np.isfinite(values)]
    axes.set_ylim(min(0.0, float(finite.min()) - 0.05) if finite.size else 0.0, 1.02)


def _middle(result: xr.Dataset) -> str:
    """Median reliability and ceiling in characters; a dash where nothing is known."""
    rho = result["reliability"].values.astype(float)
    rho = rho[~np.isnan(rho)]
    if not rho.size:
        return "no neuron has one"
    ceiling = np.sqrt(np.maximum(rho, 0))
    return f"median ρ {plotting.short(np.median(rho))}, ceiling on r {plotting.short(np.median(ceiling))}"


def _line(result: xr.Dataset) -> str:
    """Second line of the figure."""
    method = str(result.attrs.get("method", "")).replace("_", " ").replace("split half", "split-half")
    return f"{method}; {_middle(result)}; below the floor: {int((~result['usable'].values.astype(bool)).sum())}"


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows.

    Parameters
    ----------
    result : xarray.Dataset
        What ``neuron_reliability`` returned.

    Returns
    -------
    str
        Plain text with the estimator, its order of averaging, intervals and the floor.
    """
    import json

    _check(result)
    options = json.loads(str(result.attrs.get("options", "{}")))
    draws, share = int(options.get("n_draws", 0)), 100 * float(options.get("confidence", 0.95))
    count = result["n_stimuli"].values
    stimuli = f"{count.min()}" if count.min() == count.max() else f"{count.min()} to {count.max()}"
    text = [
        f"Reliability of the mean response over repetitions for {result.sizes['neuron']} neurons, over {stimuli} "
        f"stimuli with {float(result['mean_repetitions'].mean()):.1f} repetitions on average: "
        f"{result.attrs.get('estimator_note', '')}.",
        f"Over neurons: {_middle(result)}" + (" (all time bins)." if "time" in result.dims else " (line)."),
    ]
    if "time" in result.dims:
        text.append("The line is the median over neurons, the band its quartiles.")
    elif draws:
        text.append(f"Whiskers are {share:g} % percentile intervals of {draws} bootstrap draws over stimuli.")
    text.append(
        f"Scores of the {int((~result['usable'].values.astype(bool)).sum())} below the floor of "
        f"{plotting.short(float(result.attrs.get('floor', 0.0)))} (hollow) are not divided by it."
    )
    inflation = result["inflation"].values
    if np.nanmax(np.append(inflation, 1.0)) > 1.0005:
        excess = 100 * (float(np.nanmedian(inflation)) - 1)
        text.append(f"Repetitions were left out: r/√ρ is too large by {excess:.1f} % in the median.")
    return " ".join(text)


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``neuron_reliability`` returned.

    Returns
    -------
    str
        One sentence.
    """
    _check(result)
    rho = result["reliability"].values.astype(float)
    rho = rho[~np.isnan(rho)]
    kind = "Line over time" if "time" in result.dims else "Sorted dots"
    ends = f" from {plotting.short(rho.min())} to {plotting.short(rho.max())}" if rho.size else ""
    return f"{kind} of the reliability of {result.sizes['neuron']} neurons{ends}; {_middle(result)}."
