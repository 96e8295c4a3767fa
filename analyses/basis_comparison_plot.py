"""Figure of the rotation control: medians in the native basis and in rotations of it, and the drop between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.unit_matching_frame import aside, layer_panels
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def _check(result: xr.Dataset) -> None:
    """Refuse what is no such result."""
    if not {"median_native", "median_rotated", "drop_low"} <= set(getattr(result, "data_vars", ())):
        raise InputError(
            "this is not a comparison of bases (median_native, median_rotated, drop); give what compare_bases() "
            "returned"
        )


def plot(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw native against rotated medians by layer, and their difference.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.basis_comparison.compare_bases` returned.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        6.5 inches wide. Above: the native median as a dot, that of every rotation as a small one. Below: the drop with
        its bootstrap interval over neurons, and p-values.

    Raises
    ------
    InputError
        If it is another result.
    """
    _check(result)
    names = [str(name) for name in result["layer"].values]
    rotated, native, x = result["median_rotated"].values, result["median_native"].values, np.arange(len(names))
    with plotting.style():
        words = title or f"Are the units of {result.attrs.get('network', 'the network')} privileged axes?"
        line = f"{result.sizes['neuron']} neurons, best unit on held-out stimuli; {rotated.shape[1]} rotations"
        figure, (above, below) = layer_panels(names, (2.1, 1.25), words, line)
        spread = aside(rotated.shape[1], 0.4)
        for k in range(len(names)):
            above.plot(
                k + spread,
                rotated[k],
                ".",
                color=plotting.COLOURS[1],
                alpha=0.65,
                markersize=5,
                markeredgewidth=0,
                zorder=2,
                label="channels rotated, each rotation" if k == 0 else None,
            )
        above.plot(x, native, "o-", color=plotting.COLOURS[0], markersize=6.5, zorder=4, label="native units")
        above.set_ylabel("Median held-out r")
        above.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2, handlelength=1.5)
        drop, low, high = (result[name].values for name in ("drop", "drop_low", "drop_high"))
        below.vlines(x, low, high, color=plotting.COLOURS[0], linewidth=1.6, zorder=3)
        below.plot(x, drop, "o", color=plotting.COLOURS[0], markersize=5.5, zorder=4)
        below.set_ylabel("Drop in r")
        ends = np.concatenate([low, high, [0.0]])
        ends = ends[np.isfinite(ends)]
        reach = max(float(np.ptp(ends)), 0.02)
        below.set_ylim(float(ends.min()) - 0.1 * reach, float(ends.max()) + 0.32 * reach)
        for k, p in enumerate(result["p_value"].values):
            if np.isfinite(p) and np.isfinite(high[k]):
                text = f"p = {plotting.short(float(p), 3)}" if len(names) <= 8 else plotting.short(float(p), 3)
                below.annotate(
                    text, (k, high[k]), (0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=8.5
                )
    return figure


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows: bases, folds, intervals, test.

    Parameters
    ----------
    result : xarray.Dataset
        What ``compare_bases`` returned.

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
    attrs, n = result.attrs, result.sizes["rotation"]
    text = (
        f"Held-out Pearson correlation between each of {result.sizes['neuron']} neurons "
        f"({attrs.get('recording', 'recording')}) and its best unit of {attrs.get('network', 'the network')}, median "
        f"over neurons, by layer ({attrs.get('splitting', 'crossvalidated')}). Small dots: the same after one of {n} "
        "random rotations of the channel basis, the same matrix at every position, with the match made anew. Below: "
        "native median less the mean of the rotated ones; bars are 95 % bootstrap intervals over neurons."
    )
    if np.isfinite(result["p_value"].values).any():
        return (
            f"{text} p: share of the {n + 1} bases whose median is at least the native one "
            f"(one-sided, uncorrected; {plotting.short(1 / (n + 1), 3)} is the smallest possible)."
        )
    return f"{text} Too few rotations for a test."


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``compare_bases`` returned.

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
    mean = result["median_rotated"].values.mean(axis=1)
    parts = [
        f"{name}: {short(float(native))} native, {short(float(rotated))} rotated"
        for name, native, rotated in zip(result["layer"].values, result["median_native"].values, mean, strict=True)
    ]
    above = int((result["drop_low"].values > 0).sum())
    return (
        f"Median held-out correlations by layer, native against rotated channels ({'; '.join(parts)}). Below, the "
        f"drop, whose interval lies above zero in {above} of {len(parts)} layers."
    )
