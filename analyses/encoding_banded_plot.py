"""Figure of banded ridge encoding: what each band explains of the neurons, and all of them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.encoding_parts_plot import Bar, ceiling_of, draw, limits, subject_of
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def _bars(result: xr.Dataset) -> list[Bar]:
    """A bar for the whole, and one for each band."""
    if "split" not in result or set(result["split"].dims) != {"band", "neuron"} or "band_weight" not in result:
        raise InputError(
            "this is not a banded encoding result (split by band and neuron); give what encode_banded() returned"
        )
    whole = result["explained_variance"].values.astype(float)
    median, low, high = (float(result[name]) for name in ("median_explained", "explained_low", "explained_high"))
    bars = [Bar("all bands together", whole, median, low, high, plotting.SOFT)]
    for number, band in enumerate(result["band"].values.tolist()):
        one = result.sel(band=band)
        median, low, high = (float(one[name]) for name in ("median_split", "split_low", "split_high"))
        values, colour = one["split"].values.astype(float), plotting.COLOURS[number % len(plotting.COLOURS)]
        bars.append(Bar(str(band), values, median, low, high, colour, number == 0))
    return bars


def plot(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw the share of variance that each band explains, in the prediction from all of them.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.encoding_banded.encode_banded` returned.
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
        If it is not a banded encoding result.
    """
    bars = _bars(result)
    line = (
        f"{result.sizes['neuron']} neurons, {int(result.attrs.get('n_stimuli', 0))} stimuli; bar: median, line: 95 % "
        "interval over neurons; dots: neurons"
    )
    headline = title or f"What {len(bars) - 1} feature spaces explain of {subject_of(result)}"
    return draw(bars, ceiling_of(result), headline, line, "Held-out share of variance explained")


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.encoding_banded.encode_banded` returned.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is not a banded encoding result.
    """
    bars = _bars(result)
    outside = limits(bars, ceiling_of(result))[2]
    attrs = result.attrs
    text = [
        f"Held-out share of variance (1 − squared error / squared deviation from the training mean) of "
        f"{result.sizes['neuron']} {subject_of(result)} that banded ridge regression explains from {len(bars) - 1} "
        f"bands together, and its split among bands by the product measure, which adds up neuron by neuron (medians do "
        f"not): {attrs.get('splitting', 'held-out stimuli')}, {int(attrs.get('n_stimuli', 0))} stimuli, "
        f"{int(attrs.get('n_candidates', 0))} candidate weights of bands, chosen for each neuron and fold in the "
        "training stimuli.",
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
    text.append("No significance was tested.")
    return " ".join(text)


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.encoding_banded.encode_banded` returned.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is not a banded encoding result.
    """
    bars = _bars(result)
    parts = [f"{bar.label} {plotting.short(bar.median) if np.isfinite(bar.median) else 'no score'}" for bar in bars]
    subject = subject_of(result)
    return f"Horizontal bars of the median share of variance of {subject} that is explained: {', '.join(parts)}."
