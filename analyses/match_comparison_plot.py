"""Figure of two matches of the same neurons: both by layer, and their paired difference with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.unit_matching_frame import aside, layer_panels
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_SCORES = {"r_mean": "r", "r_corrected": "r / √reliability"}


def _check(result: xr.Dataset) -> None:
    """Refuse what is no such result."""
    if not {"median_first", "median_second", "median_difference"} <= set(getattr(result, "data_vars", ())):
        raise InputError(
            "this is not a comparison of matches (median_first, median_second, median_difference); give what "
            "compare_matches() returned"
        )


def plot(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw the medians of both matches by layer, and their difference.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.match_comparison.compare_matches` returned.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        6.5 inches wide. Above: neurons as dots, medians as lines. Below: the difference of medians with its bootstrap
        interval over neurons, filled where its corrected p-value is at most .05.

    Raises
    ------
    InputError
        If it is another result.
    """
    _check(result)
    names = [str(name) for name in result["layer"].values]
    x, score = np.arange(len(names)), _SCORES.get(str(result.attrs.get("score")), "r")
    with plotting.style():
        words = title or "Two matches of the same neurons"
        line = f"{result.sizes['neuron']} neurons, best single unit on held-out stimuli"
        figure, (above, below) = layer_panels(names, (2.4, 1.25), words, line)
        for number, (one, step) in enumerate((("first", -0.17), ("second", 0.17))):
            colour, values = plotting.COLOURS[number], result[one].values
            spread = step + aside(values.shape[1], 0.24)
            for k in range(len(names)):
                above.plot(k + spread, values[k], ".", color=colour, alpha=0.45, markersize=4, markeredgewidth=0)
            label = str(result.attrs.get(one, one))
            above.plot(
                x + step, result[f"median_{one}"].values, plotting.MARKERS[number] + "-", color=colour, label=label
            )
        above.set_ylabel(f"Held-out {score}")
        above.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2, handlelength=1.5)
        value, low, high = (result[f"median_difference{end}"].values for end in ("", "_low", "_high"))
        below.vlines(x, low, high, color=plotting.COLOURS[6], linewidth=1.6, zorder=3)
        clear = result["p_median_corrected"].values <= 0.05
        for shown, fill in ((clear, plotting.COLOURS[6]), (~clear, "white")):
            below.plot(
                x[shown], value[shown], "o", color=plotting.COLOURS[6], markerfacecolor=fill, markersize=5.5, zorder=4
            )
        below.set_ylabel("Difference")
    return figure


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows: matches, folds, intervals, test.

    Parameters
    ----------
    result : xarray.Dataset
        What ``compare_matches`` returned.

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
    score = _SCORES.get(str(attrs.get("score")), "r")
    used = result["n_used"].values
    count = str(int(used.min())) if used.min() == used.max() else f"{int(used.min())} to {int(used.max())}"
    return (
        f"Held-out {score} of {count} neurons ({attrs.get('recording', 'recording')}) with their best units of "
        f"{attrs.get('first', 'the first network')} and {attrs.get('second', 'the second network')}, by layer "
        f"({attrs.get('splitting', 'crossvalidated')}). Dots are neurons, lines medians. Below: difference of the "
        "medians, first less second; bars are 95 % bootstrap intervals over neurons. Filled: p ≤ .05 (scores exchanged "
        f"within neurons {attrs.get('n_draws')} times, two-sided, false discovery rate over layers)."
    )


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``compare_matches`` returned.

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
        f"{name}: {short(float(one))} and {short(float(other))}"
        for name, one, other in zip(
            result["layer"].values, result["median_first"].values, result["median_second"].values, strict=True
        )
    ]
    return (
        f"Median held-out scores by layer of {result.attrs.get('first', 'the first')} and "
        f"{result.attrs.get('second', 'the second')} ({'; '.join(parts)}), with their differences below."
    )
