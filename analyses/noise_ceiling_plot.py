"""Figures of a noise ceiling: subjects between the two bounds, bounds over time, and reliability within subjects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses import rsa_plot
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 6.2, 3.7
_LEFT = 0.85  # inches


def plot(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw a noise ceiling.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.noise_ceiling`` returned, between or within subjects, with or without time.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 6 by 4 inches.

    Raises
    ------
    InputError
        If the result has no ceiling.
    """
    within = "bound" in result.variables
    if not within and "time" not in result.dims:
        return rsa_plot.plot_ceiling(result, title=title)
    if not within and not np.isfinite(result["ceiling_lower"].values).any():
        raise InputError("the result has no noise ceiling (a single subject), so there is nothing to draw")
    kind = "Reliability within subjects: " if within else "Noise ceiling of "
    words = title or kind + rsa_plot.data_words(result)
    if result.attrs.get("simulated") and "simulated" not in words:
        words += " (simulated data)"
    with plotting.style():
        figure = plotting.new_figure(_WIDTH, _HEIGHT)
        axes = figure.add_axes((_LEFT / _WIDTH, 0.62 / _HEIGHT, (_WIDTH - _LEFT - 0.2) / _WIDTH, 2.4 / _HEIGHT))
        if within and "time" in result.dims:
            line = _reliability_over_time(axes, result)
        elif within:
            line = _reliability(axes, result)
        else:
            line = _ceiling_over_time(axes, result)
        axes.set_ylabel(_measure(result))
        figure.text(_LEFT / _WIDTH, 1 - 0.1 / _HEIGHT, words, va="top", fontsize=13, fontweight="bold")
        figure.text(_LEFT / _WIDTH, 1 - 0.37 / _HEIGHT, line, va="top", fontsize=9.5, color=plotting.SOFT)
    return figure


def _measure(result: xr.Dataset) -> str:
    """The measure as an axis names it."""
    return plotting.measure_words(str(result.attrs.get("compare", "similarity")))


def _reliability(axes: Axes, result: xr.Dataset) -> str:
    """Splits as faint dots, their mean, the reliability and the bound of each subject."""
    n = result.sizes["subject"]
    for place in range(n):
        r = result["split_half"].values[place]
        r = np.sort(r[~np.isnan(r)])
        # A fixed zigzag instead of random jitter: the same figure every time.
        shift = 0.16 * ((np.arange(len(r)) * 0.618) % 1 - 0.5)
        axes.plot(place + shift, r, "o", color=plotting.FAINT, markersize=2.2, markeredgewidth=0, zorder=1)
    x = np.arange(n)
    axes.plot(x, result["split_half_mean"].values, "o", color=plotting.COLOURS[0], markersize=6, label="halves (mean)")
    axes.plot(x, result["reliability"].values, "s", color=plotting.COLOURS[1], markersize=6, label="reliability ρ")
    axes.plot(x, result["bound"].values, "_", color=plotting.INK, markersize=18, markeredgewidth=2, label="bound √ρ")
    names = result["subject"].values.astype(str)
    slanted = max(map(len, names)) * 0.08 > 5.0 / n
    axes.set_xticks(x, names, rotation=38 if slanted else 0, ha="right" if slanted else "center")
    axes.set_xlim(-0.6, n - 0.4)
    _frame(axes, [result[k].values for k in ("split_half", "bound")])
    axes.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.13 if not slanted else -0.3), columnspacing=1.4)
    return f"grey: single splits of the {result.attrs.get('repetitions', 'repetitions')}"


def _reliability_over_time(axes: Axes, result: xr.Dataset) -> str:
    """Reliability (thin) and bound (thick) of each subject over time."""
    time = result["time"].values
    for place, name in enumerate(result["subject"].values.astype(str)):
        colour = plotting.COLOURS[place % len(plotting.COLOURS)]
        axes.plot(time, result["reliability"].values[place], color=colour, linewidth=1.0, linestyle="--")
        axes.plot(time, result["bound"].values[place], color=colour, label=name)
    _frame(axes, [result[k].values for k in ("reliability", "bound")])
    _time_axis(axes, result)
    if result.sizes["subject"] > 1:
        axes.legend(loc="best", ncols=2 if result.sizes["subject"] > 6 else 1)
    return "solid: bound √ρ on a noise-free model; dashed: split-half reliability ρ"


def _ceiling_over_time(axes: Axes, result: xr.Dataset) -> str:
    """The band between the ceilings, and each subject's lower ceiling as a faint line."""
    time = result["time"].values
    lower, upper = result["ceiling_lower"].values, result["ceiling_upper"].values
    single = result["ceiling_lower_subject"].transpose("subject", "time").values
    axes.plot(time, single.T, color=plotting.FAINT, linewidth=0.7, zorder=1)
    axes.fill_between(time, lower, upper, color=plotting.COLOURS[0], alpha=0.25, linewidth=0, zorder=2)
    axes.plot(time, lower, color=plotting.COLOURS[0], zorder=3)
    _frame(axes, [upper, single])
    _time_axis(axes, result)
    return "band: lower to upper ceiling; grey: each subject against the mean of the others"


def _frame(axes: Axes, values: list[np.ndarray]) -> None:
    """A y range that holds everything and zero, with a line there."""
    known = np.concatenate([np.ravel(v) for v in values])
    known = known[np.isfinite(known)]
    low, high = min(0.0, float(known.min(initial=0.0))), max(float(known.max(initial=0.0)), 0.1)
    axes.set_ylim(low * 1.1, high * 1.12)
    axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=0)


def _time_axis(axes: Axes, result: xr.Dataset) -> None:
    """Label the time axis, and mark the stimulus where 0 is within."""
    unit = str(result["time"].attrs.get("units", ""))
    axes.set_xlabel(f"Time ({unit})" if unit else "Time")
    time = result["time"].values
    axes.set_xlim(float(time.min()), float(time.max()) if len(time) > 1 else float(time.min()) + 1)
    if time.min() < 0 < time.max():
        axes.axvline(0, color=plotting.SOFT, linewidth=0.8, linestyle=":", zorder=0)


def _extent(values: np.ndarray) -> str:
    """A range in words."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "undefined"
    low, high = (plotting.short(float(f(known))) for f in (np.min, np.max))
    return low if low == high else f"{low} to {high}"


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.noise_ceiling`` returned.

    Returns
    -------
    str
        Plain text.
    """
    note = str(result.attrs.get("ceiling_note", ""))
    close = f" {note[:1].upper()}{note[1:]}." if note else ""
    about = f"{rsa_plot.data_words(result)} ({_measure(result)})"
    over = " over time" if "time" in result.dims else ""
    counts = rsa_plot.count_words(result)
    if "bound" in result.variables:
        splits = int(np.max(result["n_splits"].values))
        kind = str(result.attrs.get("repetitions", "repetitions"))
        rho, bound = (_extent(result[name].values) for name in ("reliability", "bound"))
        return (
            f"Reliability{over} of the RDMs of {about}, at most {splits} split{'s' if splits != 1 else ''} of the "
            f"{kind}: ρ {rho}, bound √ρ {bound}." + close
        )
    if over:
        lower, upper = (_extent(result[name].values) for name in ("ceiling_lower", "ceiling_upper"))
        return (
            f"Noise ceiling over time of {about}, {counts}: lower {lower}, upper {upper}, the range in which the best "
            "possible model would score. Grey: each subject against the mean of the others." + close
        )
    low, high = (plotting.short(float(result[name]), 3) for name in ("ceiling_lower", "ceiling_upper"))
    return (
        f"Noise ceiling of {rsa_plot.data_words(result)} ({counts}), {_measure(result)}: {low} to {high}, the range in "
        "which the best possible model would score. Dots: each subject against the mean of the others." + close
    )


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.noise_ceiling`` returned.

    Returns
    -------
    str
        One sentence.
    """
    data = rsa_plot.data_words(result)
    curve = "time" in result.dims
    if "bound" in result.variables:
        extent = _extent(result["bound"].values)
        form = "Curves over time" if curve else "Dot chart"
        return f"{form} of the split-half reliability of {data}, with bounds on a noise-free model of {extent}."
    if curve:
        return (
            f"Band of the noise ceiling of {data} over time, its lower limit {_extent(result['ceiling_lower'].values)}."
        )
    low, high = (plotting.short(float(result[name])) for name in ("ceiling_lower", "ceiling_upper"))
    return f"Dot chart of the subjects of {data} with a noise ceiling from {low} to {high}."
