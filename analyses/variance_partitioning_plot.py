"""Figure of variance partitioning: unique and shared parts as bars, below the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.encoding_parts_plot import Bar, ceiling_of, draw, limits, subject_of
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_SHARED = "#8c8c8c"


def _bars(result: xr.Dataset) -> list[Bar]:
    """The whole, unique parts in the colours of their bands, shared parts in grey."""
    if "share" not in result or set(result["share"].dims) != {"part", "neuron"} or "member" not in result:
        raise InputError(
            "this is not a partition of variance (share by part and neuron); give what partition_variance() returned"
        )
    bands = [str(name) for name in result["band"].values]
    whole = result["explained_variance"].isel(subset=-1).values.astype(float)
    last = result.isel(subset=-1)
    median, low, high = (float(last[name]) for name in ("median_explained", "explained_low", "explained_high"))
    bars = [Bar("all bands together", whole, median, low, high, plotting.SOFT)]
    before = 0
    for part in range(result.sizes["part"]):
        one = result.isel(part=part)
        members = np.flatnonzero(one["member"].values)
        names = [bands[number] for number in members]
        if len(members) == 1:
            label, colour = f"{names[0]} alone", plotting.COLOURS[members[0] % len(plotting.COLOURS)]
        else:
            label, colour = f"shared: {' + '.join(names)}", _SHARED
            if len(members) == len(bands) > 2:
                label = "shared by all"
        median, low, high = (float(one[name]) for name in ("median_share", "share_low", "share_high"))
        bars.append(Bar(label, one["share"].values.astype(float), median, low, high, colour, len(members) != before))
        before = len(members)
    return bars


def plot(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw unique and shared parts of the explained variance.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.variance_partitioning.partition_variance` returned.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        Bars: medians over neurons, with 95 % intervals; dots: neurons; dashed with a grey band: median
        and quartiles of the reliability ρ, where it is known.

    Raises
    ------
    InputError
        If it is not a partition of variance.
    """
    bars = _bars(result)
    line = (
        f"{result.sizes['neuron']} neurons, {int(result.attrs.get('n_stimuli', 0))} stimuli; bar: median, line: 95 % "
        "interval over neurons; dots: neurons"
    )
    headline = title or f"Unique and shared variance of {subject_of(result)}"
    return draw(bars, ceiling_of(result), headline, line, "Held-out share of variance explained")


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.variance_partitioning.partition_variance` returned.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is not a partition of variance.
    """
    bars = _bars(result)
    outside = limits(bars, ceiling_of(result))[2]
    attrs = result.attrs
    how = {
        "banded": "banded ridge regression (weights of bands and penalty chosen by neuron in the training stimuli)",
        "ridge": "ridge regression on bands scaled to one size, with a penalty for each neuron",
    }.get(str(attrs.get("model")), "a linear map")
    text = [
        f"Held-out share of variance (1 − squared error / squared deviation from the training mean) of "
        f"{result.sizes['neuron']} {subject_of(result)} that {how} explains from all bands, and its parts by "
        "commonality analysis: what a band alone explains, and what only these bands share. The parts of a neuron add "
        f"up to the whole, medians do not: {attrs.get('splitting', 'held-out stimuli')}, "
        f"{int(attrs.get('n_stimuli', 0))} stimuli.",
        "Bars are medians over neurons, dots neurons" + (f" ({outside} outside the axis)." if outside else "."),
    ]
    if attrs.get("interval"):
        text.append(f"Lines: {attrs['interval']}.")
    if ceiling_of(result) is not None:
        text.append(
            "Dashed with a grey band: median and quartiles of the reliability ρ, the share that a model without noise "
            "explains."
        )
    text.append("; ".join(f"{bar.label} {plotting.short(bar.median)}" for bar in bars if np.isfinite(bar.median)) + ".")
    text.append(
        "Parts below 0 are kept: suppression, or a band that costs some prediction. No significance was tested."
    )
    return " ".join(text)


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.variance_partitioning.partition_variance` returned.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is not a partition of variance.
    """
    bars = _bars(result)
    parts = [f"{bar.label} {plotting.short(bar.median) if np.isfinite(bar.median) else 'no score'}" for bar in bars]
    return (
        f"Horizontal bars of the median unique and shared shares of the variance of {subject_of(result)}: "
        f"{', '.join(parts)}."
    )
