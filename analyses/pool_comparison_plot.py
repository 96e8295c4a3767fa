"""Figure of pools of one size: the match by layer when every layer offers equally many units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.unit_matching_frame import layer_panels
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def _check(result: xr.Dataset) -> None:
    """Refuse what is no such result."""
    if not {"median_pooled", "median_all", "median_r"} <= set(getattr(result, "data_vars", ())):
        raise InputError(
            "this is not a comparison of pools (median_pooled, median_all); give what equalise_pools() returned"
        )


def plot(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw medians over pools of one size, beside those over all units, by layer.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.pool_comparison.equalise_pools` returned.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        6.5 inches wide. Grey bars hold 95 % of the pools, thin ones the bootstrap interval over neurons; hollow marks
        are matches with all units, whose number stands above.

    Raises
    ------
    InputError
        If it is another result.
    """
    _check(result)
    names = [str(name) for name in result["layer"].values]
    x, size = np.arange(len(names)), int(result.attrs.get("pool_size", 0))
    with plotting.style():
        words = title or f"Single units of {result.attrs.get('network', 'the network')}, pools of one size"
        pools = f"{result.sizes['draw']} pools of {size:,} units a layer"
        line = f"{result.sizes['neuron']} neurons, held-out stimuli; {pools}"
        figure, (axes,) = layer_panels(names, (2.7,), words, line)
        low, high = np.nanquantile(result["median_r"].values, [0.025, 0.975], axis=1)
        axes.bar(x, high - low, 0.42, bottom=low, color=plotting.BAND, zorder=1.5, label="95 % of pools")
        axes.vlines(
            x, result["pooled_low"].values, result["pooled_high"].values, color=plotting.COLOURS[0], linewidth=1.4
        )
        axes.plot(
            x,
            result["median_pooled"].values,
            "o-",
            color=plotting.COLOURS[0],
            markersize=6,
            zorder=4,
            label=f"pools of {size:,}",
        )
        axes.plot(
            x,
            result["median_all"].values,
            "D",
            color=plotting.COLOURS[1],
            markerfacecolor="white",
            markersize=5.5,
            zorder=3,
            label="all units",
        )
        axes.set_ylabel("Median held-out r")
        bottom, top = axes.get_ylim()
        axes.set_ylim(min(bottom, 0), top + 0.1 * (top - min(bottom, 0)))
        for k, number in enumerate(result["n_units"].values):
            text = _count(int(number)) + (" units" if k == 0 else "")
            axes.annotate(
                text,
                (k, 1),
                (0, -3),
                ("data", "axes fraction"),
                "offset points",
                ha="center",
                va="top",
                fontsize=8.5,
                color=plotting.SOFT,
            )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.5)
    return figure


def _count(n: int) -> str:
    """Write a number of units in few characters."""
    return str(n) if n < 1000 else f"{n / 1000:.3g}k" if n < 10**6 else f"{n / 10**6:.3g}M"


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows: pools, folds, intervals.

    Parameters
    ----------
    result : xarray.Dataset
        What ``equalise_pools`` returned.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is another result.
    """
    _check(result)
    attrs = result.attrs
    return (
        f"Held-out Pearson correlation between each of {result.sizes['neuron']} neurons "
        f"({attrs.get('recording', 'recording')}) and the best unit of pools of {int(attrs['pool_size']):,} units, "
        f"drawn without replacement from every layer of {attrs.get('network', 'the network')}; median over neurons, "
        f"mean over {result.sizes['draw']} pools ({attrs.get('splitting', 'crossvalidated')}). Grey bars hold 95 % of "
        "the pools; lines are 95 % bootstrap intervals over neurons. Hollow marks: all units of the layer. No "
        "significance was tested."
    )


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``equalise_pools`` returned.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is another result.
    """
    _check(result)
    short = plotting.short
    parts = [
        f"{name}: {short(float(pooled))} in pools, {short(float(whole))} with all {int(n)} units"
        for name, pooled, whole, n in zip(
            result["layer"].values,
            result["median_pooled"].values,
            result["median_all"].values,
            result["n_units"].values,
            strict=True,
        )
    ]
    return f"Median held-out correlations by layer with pools of one size and with all units ({'; '.join(parts)})."
