"""Figures of representational similarity analysis: which one a result asks for, its caption and its description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit import plotting
from actkit.analyses import rsa_differences_plot, rsa_layers_plot, rsa_models_plot, time_resolved_plot
from actkit.analyses.rsa_models_plot import Style
from actkit.analyses.rsa_page import draw_ceiling
from actkit.analyses.rsa_reading import ceiling, check, chosen, kinds, simulated
from actkit.analyses.rsa_words import Test, count_words, data_words, measure
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["Kind", "alt_text", "caption", "count_words", "data_words", "kind_of", "plot", "plot_ceiling", "plot_narrow"]

Kind = Literal["auto", "layers", "models", "differences", "time"]


def kind_of(result: xr.Dataset, kind: Kind = "auto") -> str:
    """Settle which figure a result gets.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.rsa`` returned.
    kind : {"auto", "layers", "models", "differences", "time"}
        What is asked for; ``auto`` draws curves over time where the result has the dim ``time``, the layer curve where
        it has layers, and the model chart otherwise.

    Returns
    -------
    str
        One of the other four.

    Raises
    ------
    InputError
        If `result` is not an RSA result, `kind` is unknown, or the result cannot be drawn so.
    """
    check(result)
    known = ("auto", "layers", "models", "differences", "time")
    if kind not in known:
        raise InputError(f"kind is {kind!r}; choose one of {', '.join(map(repr, known))}")
    timed = "time" in result["mean"].dims
    if kind == "auto":
        return "time" if timed else "layers" if (kinds(result) == "layer").any() else "models"
    if timed != (kind == "time"):
        why = (
            f"the result has one score for each time; select a time (result.sel(time=…)) for kind={kind!r}"
            if timed
            else "the result has no dim time; compare with data that have one"
        )
        raise InputError(f"kind={kind!r} does not fit this result: {why}")
    return kind


def plot(
    result: xr.Dataset,
    *,
    kind: Kind = "auto",
    title: str | None = None,
    bands: Literal["error", "interval"] = "error",
    subjects: bool | None = None,
    references: bool = True,
    only: Sequence[str] | None = None,
    style: Style = "dots",
    test: Test = "auto",
    narrow: bool = False,
    **_unused: Any,
) -> Figure:
    """Draw how well each layer and each model explains the data.

    Four figures are to be had. The layer curve: layers along the depth of their network, models and controls beside
    them. The model chart: one row for each model, best first, with its subjects, the models that are significantly
    below the noise ceiling, and which models beat which. The matrix of the differences between all pairs. Curves over
    time. Filled marks are significantly above 0, hollow ones are not; the noise ceiling is the grey band behind
    everything.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.rsa`` returned.
    kind : {"auto", "layers", "models", "differences", "time"}
        Which figure; see :func:`kind_of`.
    title : str, optional
        Headline; the name of the data by default. "(simulated)" is added whenever the data are.
    bands : {"error", "interval"}
        One standard error, or the confidence interval.
    subjects : bool, optional
        Draw each subject thinly; by default where they can be told apart.
    references : bool
        Draw models and controls beside the layer curve.
    only : sequence of str, optional
        Draw these models or networks only; p-values stay corrected over all.
    style : {"dots", "bars"}
        Look of the model chart.
    test : {"auto", "permutation", "zero"}
        Which test filled marks show: the permutation test, or the t test against 0. ``auto`` takes the permutation
        test where it was run.
    narrow : bool
        For phones and single columns.

    Returns
    -------
    matplotlib.figure.Figure
        About 9 by 5 inches, or 5 inches wide if narrow.

    Raises
    ------
    InputError
        If `result` is not an RSA result, or an option does not fit it.
    """
    which = kind_of(result, kind)
    if style not in ("dots", "bars"):
        raise InputError(f"style is {style!r}; choose 'dots' or 'bars'")
    shown = chosen(result, only)
    with plotting.style():
        if which == "layers":
            return rsa_layers_plot.draw(
                shown, title=title, bands=bands, subjects=subjects, references=references, narrow=narrow, test=test
            )
        if which == "models":
            return rsa_models_plot.draw(
                shown, title=title, bands=bands, subjects=subjects, style=style, narrow=narrow, test=test
            )
        if which == "differences":
            return rsa_differences_plot.draw(shown, title=title, narrow=narrow)
        return time_resolved_plot.plot(shown, title=title, bands=bands, narrow=narrow, test=_time_test(test))


def plot_narrow(result: xr.Dataset, **options: Any) -> Figure:
    """Draw the figure for a phone or a single column; see :func:`plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.rsa`` returned.
    **options
        Those of :func:`plot`.

    Returns
    -------
    matplotlib.figure.Figure
        About 5 inches wide.
    """
    return plot(result, **{**options, "narrow": True})


def caption(
    result: xr.Dataset,
    *,
    kind: Kind = "auto",
    bands: Literal["error", "interval"] = "error",
    only: Sequence[str] | None = None,
    style: Style = "dots",
    test: Test = "auto",
    **_unused: Any,
) -> str:
    """Say in sentences what the figure shows: measure, errors, generalisation, tests and their corrections, ceiling.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.rsa`` returned.
    kind, bands, only, style, test
        As given to :func:`plot`.

    Returns
    -------
    str
        Plain text, about six sentences.

    Raises
    ------
    InputError
        If `result` is not an RSA result, or an option does not fit it.
    """
    which, shown = kind_of(result, kind), chosen(result, only)
    if which == "layers":
        return rsa_layers_plot.caption(shown, bands, test)
    if which == "models":
        return rsa_models_plot.caption(shown, bands, test, style)
    if which == "differences":
        return rsa_differences_plot.caption(shown)
    return time_resolved_plot.caption(shown, bands=bands, test=_time_test(test))


def _time_test(test: Test) -> time_resolved_plot.TimeTest:
    """The test over time that goes with a choice for the other figures."""
    if test == "zero":
        return "flip"
    return "permutation" if test == "permutation" else "auto"


def alt_text(result: xr.Dataset, *, kind: Kind = "auto", only: Sequence[str] | None = None, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.rsa`` returned.
    kind, only
        As given to :func:`plot`.

    Returns
    -------
    str
        One or two sentences.
    """
    figures = {
        "layers": rsa_layers_plot.alt_text,
        "models": rsa_models_plot.alt_text,
        "differences": rsa_differences_plot.alt_text,
        "time": time_resolved_plot.alt_text,
    }
    return figures[kind_of(result, kind)](chosen(result, only))


def plot_ceiling(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw a noise ceiling: each subject against the mean of the others, and the band between the two bounds.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.noise_ceiling`` returned: ``ceiling_lower``, ``ceiling_upper``, and, where it has them,
        ``ceiling_lower_subject`` by subject.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 6 by 3 inches.

    Raises
    ------
    InputError
        If the result has no ceilings.
    """
    found = ceiling(result)
    if found is None:
        raise InputError("the result has no noise ceiling (ceiling_lower, ceiling_upper), so there is nothing to draw")
    with plotting.style():
        figure = plotting.new_figure(6.2, 3.6)
        axes = figure.add_axes((0.85 / 6.2, 0.6 / 3.6, 5.15 / 6.2, 2.35 / 3.6))
        scores = _per_subject(result)
        if scores is not None:
            order = np.argsort(-scores, kind="stable")
            axes.plot(np.arange(len(scores)), scores[order], "o", color=plotting.COLOURS[0], markersize=6, zorder=3)
            axes.set_xticks(np.arange(len(scores)))
            names = result["subject"].values.astype(str)[order]
            slanted = max(map(len, names)) * 0.08 > 5.0 / len(names)
            axes.set_xticklabels(names, rotation=38 if slanted else 0, ha="right" if slanted else "center")
            axes.set_xlim(-0.6, len(scores) - 0.4)
        else:
            axes.set_xticks([])
        low = min(0.0, *(scores if scores is not None else [0.0]))
        high = max(found[1], *(scores if scores is not None else [0.0]))
        axes.set_ylim(low * 1.1, high * 1.15)
        draw_ceiling(axes, result, label=True)
        axes.set_ylabel(f"{measure(result)} with the\nmean of the others")
        words = title or f"Noise ceiling of {data_words(result)}" + ("  (simulated data)" if simulated(result) else "")
        figure.text(0.85 / 6.2, 1 - 0.1 / 3.6, words, va="top", fontsize=13, fontweight="bold")
        line = "dots: each subject against the mean of the others; band: lower to upper ceiling"
        figure.text(0.85 / 6.2, 1 - 0.36 / 3.6, line, va="top", fontsize=9.5, color=plotting.SOFT)
    return figure


def _per_subject(result: xr.Dataset) -> np.ndarray | None:
    """Each subject's similarity to the mean of the others."""
    for name in ("ceiling_lower_subject", "lower_subject", "lower"):
        if name in result.variables and result[name].dims == ("subject",):
            return np.asarray(result[name].values, dtype=float)
    return None
