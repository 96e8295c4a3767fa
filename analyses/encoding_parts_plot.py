"""Bars of shares of variance: a median over neurons each, with its interval and the neurons beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actkit import plotting

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_ROW, _WIDE = 0.46, 4.6  # inches: one bar, the axes
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes
    ----------
    label : str
        What it is a share of.
    values : numpy.ndarray
        ``(n_neurons,)`` shares; NaN for a neuron without one.
    median, low, high : float
        Median over neurons and the ends of its interval (NaN: none).
    colour : str
        Its colour.
    apart : bool
        Whether a gap is left before it.
    """

    label: str
    values: np.ndarray
    median: float
    low: float
    high: float
    colour: str
    apart: bool = False


def ceiling_of(result: xr.Dataset) -> np.ndarray | None:
    """Take the reliabilities, which bound the share of variance that can be explained.

    Parameters
    ----------
    result : xarray.Dataset
        A banded encoding or a partition of variance.

    Returns
    -------
    numpy.ndarray or None
        ``(n_neurons,)`` from 0 to 1; None without reliabilities.
    """
    return np.clip(result["reliability"].values.astype(float), 0, 1) if "reliability" in result else None


def subject_of(result: xr.Dataset) -> str:
    """Say what is predicted.

    Parameters
    ----------
    result : xarray.Dataset
        A banded encoding or a partition of variance.

    Returns
    -------
    str
        Neurons, with their region where it is known.
    """
    region = result.attrs.get("region")
    return f"{region} neurons" if region else "neurons"


def limits(bars: Sequence[Bar], ceiling: np.ndarray | None) -> tuple[float, float, int]:
    """Choose the part of the axis that is drawn: without the last hundredth of neurons at either end.

    Parameters
    ----------
    bars : sequence of Bar
        What is drawn.
    ceiling : numpy.ndarray or None
        ``(n_neurons,)`` reliabilities.

    Returns
    -------
    low, high : float
        Ends of the axis; 0 is between them.
    outside : int
        Dots beyond them.
    """
    values = np.concatenate([bar.values[np.isfinite(bar.values)] for bar in bars] or [np.zeros(1)])
    fixed = [0.0, *(v for bar in bars for v in (bar.median, bar.low, bar.high) if np.isfinite(v))]
    if ceiling is not None and np.isfinite(ceiling).any():
        fixed.append(float(np.nanpercentile(ceiling, 75)))
    ends = np.percentile(values, [1, 99]) if len(values) else np.zeros(2)
    low, high = min(*fixed, float(ends[0])), max(*fixed, float(ends[1]), 1e-3)
    margin = 0.04 * (high - low)
    low, high = low - (margin if low < 0 else 0), high + margin
    return low, high, int(((values < low) | (values > high)).sum())


def draw(bars: Sequence[Bar], ceiling: np.ndarray | None, title: str, line: str, axis: str) -> Figure:
    """Draw horizontal bars from top to bottom.

    Parameters
    ----------
    bars : sequence of Bar
        What is drawn.
    ceiling : numpy.ndarray or None
        ``(n_neurons,)`` the highest share that a model without noise explains.
    title, line, axis : str
        Headline, the line below it, and the label of the axis.

    Returns
    -------
    matplotlib.figure.Figure
        Bars are medians, lines across their ends the intervals, dots neurons.
    """
    places: list[float] = []
    at = 0.0
    for bar in bars:
        at += 1.0 + (0.45 if bar.apart and places else 0.0)
        places.append(at)
    with plotting.style():
        longest = max(len(bar.label) for bar in bars)
        left, right = min(0.45 + 0.082 * longest, 3.4), 0.65
        tall, bottom, top = _ROW * (places[-1] + 0.25), 0.62, 0.95 if ceiling is not None else 0.75
        width, height = left + _WIDE + right, bottom + tall + top
        figure = plotting.new_figure(width, height)
        axes = figure.add_axes((left / width, bottom / height, _WIDE / width, tall / height))
        low, high, _ = limits(bars, ceiling)
        for bar, place in zip(bars, places, strict=True):
            axes.barh(place, bar.median, height=0.62, color=bar.colour, alpha=0.75, linewidth=0, zorder=2)
            known = bar.values[np.isfinite(bar.values)]
            jitter = (np.arange(len(known)) * _GOLDEN) % 1 - 0.5  # evenly spread, the same in every run
            size = 3.6 if len(known) <= 100 else 2.4
            axes.plot(
                known, place + 0.46 * jitter, ".", color=plotting.INK, alpha=0.4, markersize=size, mew=0, zorder=3
            )
            if np.isfinite(bar.low):
                axes.plot([bar.low, bar.high], [place] * 2, color=plotting.INK, linewidth=1.6, zorder=4)
                axes.plot([bar.low, bar.high], [place] * 2, "|", color=plotting.INK, markersize=7, mew=1.6, zorder=4)
            words = plotting.short(bar.median) if np.isfinite(bar.median) else "no score"
            axes.text(1.015, place, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9.5)
        axes.axvline(0, color=plotting.SOFT, linewidth=0.8, zorder=2.5)
        if ceiling is not None and np.isfinite(ceiling).any():
            lower, middle, upper = np.nanpercentile(ceiling, [25, 50, 75])
            axes.axvspan(lower, upper, color=plotting.BAND, linewidth=0, zorder=0.5)
            axes.axvline(middle, color=plotting.SOFT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
            axes.text(
                min(middle, high),
                1.01,
                f"noise ceiling {plotting.short(float(middle))}",
                transform=axes.get_xaxis_transform(),
                ha="right" if middle > 0.6 * high else "center",
                va="bottom",
                fontsize=9,
                color="#4f4f4f",
            )
        axes.set_xlim(low, high)
        axes.set_ylim(places[-1] + 0.65, 0.4)
        axes.set_yticks(places)
        axes.set_yticklabels([bar.label for bar in bars])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis)
        figure.text(0.12 / width, 1 - 0.1 / height, title, va="top", fontsize=13, fontweight="bold")
        figure.text(0.12 / width, 1 - 0.36 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)
    return figure
