"""Figures of behaviour: confusion matrices, error consistency of pairs of observers, and shape bias by category."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses import decoding_panels
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DRAWN = ("confusion", "error_consistency", "shape_bias")
_WIDE = 4.6  # inches, the axes of the shape bias
_MOST = 3  # confusion matrices side by side


def _results(result: xr.Dataset | Mapping[str, xr.Dataset]) -> tuple[str, dict[str, xr.Dataset]]:
    """What was measured, and one result or several by name."""
    import xarray as xr

    # A Dataset is a mapping too, of variables.
    named = {"": result} if isinstance(result, xr.Dataset) else {str(name): one for name, one in result.items()}
    measures = {str(getattr(one, "attrs", {}).get("measure")) for one in named.values()}
    if len(measures) != 1 or not measures <= set(_DRAWN):
        raise InputError(
            f"there is no figure of {', '.join(sorted(measures)) or 'nothing'}; give one or several results of "
            "confusion(), error_consistency() or shape_bias()"
        )
    return measures.pop(), named


def plot(result: xr.Dataset | Mapping[str, xr.Dataset], *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw what was measured of choices.

    Parameters
    ----------
    result : xarray.Dataset or mapping of observer to Dataset
        What ``confusion``, ``error_consistency`` or ``shape_bias`` returned. Up to three confusions side by side; shape
        biases of several observers (people, networks) in one panel.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        The shape bias follows Geirhos et al. (2019): a row for each category, from all choices by texture at the left
        to all by shape at the right; large marks are an observer's categories, small ones its subjects, lines the bias
        over all trials with its 95 % bootstrap interval as a band.

    Raises
    ------
    InputError
        If it is none of these results.
    """
    measure, named = _results(result)
    first = next(iter(named.values()))
    if measure == "confusion":
        return _confusions(named, title)
    if measure == "error_consistency":
        names = [str(value) for value in first["subject"].values]
        low = float(min(0.0, np.nanmin(first["kappa"].values)))
        mean = plotting.short(float(first["mean_kappa"]))
        line = f"{len(names)} observers, {int(first['n_common'].max())} stimuli; mean κ {mean}{_interval(first)}"
        return decoding_panels.matrices(
            {"": first["kappa"].values}, names, names, title or "Do they err on the same stimuli?", line,
            axis=("Observer", "Observer"), bar="Error consistency κ",
            ends=(low, decoding_panels.top_of(first["kappa"].values)),
        )  # fmt: skip
    with plotting.style():
        return _shape_bias(named, title)


def _interval(result: xr.Dataset) -> str:
    """The interval of the mean consistency, where there is one."""
    low, high = float(result["mean_low"]), float(result["mean_high"])
    return f" ({plotting.short(low)} to {plotting.short(high)})" if np.isfinite(low) else ""


def _confusions(named: dict[str, xr.Dataset], title: str | None) -> Figure:
    """Up to three confusion matrices of the same classes."""
    first = next(iter(named.values()))
    truth, response = ([str(value) for value in first[dim].values] for dim in ("truth", "response"))
    if len(named) > _MOST:
        raise InputError(f"{len(named)} confusion matrices do not fit one figure; give {_MOST} at most")
    for name, one in named.items():
        if [str(v) for v in one["truth"].values] != truth or [str(v) for v in one["response"].values] != response:
            raise InputError(f"{name!r} has other classes than {next(iter(named))!r}; draw them by themselves")
    trials = " and ".join(str(int(one["count"].sum())) for one in named.values())
    line = f"{trials} answered trials; right in " + ", ".join(
        plotting.short(float(v["accuracy"])) for v in named.values()
    )
    panels = {name: one["rate"].values for name, one in named.items()}
    return decoding_panels.matrices(
        panels, truth, response, title or "What is answered to what", line, axis=("Class shown", "Answer"),
        bar="Share of answers",
    )  # fmt: skip


def _shape_bias(named: dict[str, xr.Dataset], title: str | None) -> Figure:
    """Shape bias of every category, in rows, of one or several observers."""
    categories = [str(value) for value in next(iter(named.values()))["category"].values]
    left, below, top = 0.35 + 0.078 * max(map(len, categories)), 0.55, 0.75 + 0.235 * (len(named) > 1)
    tall = max(1.6, 0.235 * len(categories))
    width, height = left + _WIDE + 0.3, below + tall + top
    figure = plotting.new_figure(width, height)
    axes = figure.add_axes((left / width, below / height, _WIDE / width, tall / height))
    for number, (name, one) in enumerate(named.items()):
        _observer(axes, name, one, number, categories)
    axes.set_yticks(range(len(categories)), categories)
    axes.set_ylim(len(categories) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(axis="y", color=plotting.BAND, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Share of choices by shape (of those by shape or texture)")
    for x, words, side in ((0, "← all by texture", "left"), (1, "all by shape →", "right")):
        axes.text(x, -0.7, words, ha=side, va="bottom", fontsize=9, color=plotting.SOFT)
    first = next(iter(named.values()))
    n = int(first["n_shape"] + first["n_texture"])
    line = f"{n} choices of {first.sizes['subject']} subjects" if len(named) == 1 else f"{len(named)} observers"
    decoding_panels.headline(figure, 0.15, title or "Shape or texture?", f"{line}; lines: all trials together")
    if len(named) > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0 + 0.2 / tall), ncols=4, borderaxespad=0, handletextpad=0.3,
            columnspacing=1.2,
        )  # fmt: skip
    return figure


def _observer(axes: Axes, name: str, one: xr.Dataset, number: int, categories: list[str]) -> None:
    """One observer: categories, subjects where they are several, and the bias over all trials."""
    if [str(value) for value in one["category"].values] != categories:
        raise InputError(f"{name!r} has other categories than the first result; draw them by themselves")
    colour, marker = plotting.COLOURS[number % 7], plotting.MARKERS[number % 7]
    rows = np.arange(len(categories))
    subjects = one["by_subject_and_category"].values
    if len(subjects) > 1:
        # Subjects of a category one below the other in a fixed pattern: no two drawings of a result differ.
        aside = (np.arange(len(subjects)) * 0.618) % 1 * 0.5 - 0.25
        for k, values in enumerate(subjects):
            axes.plot(values, rows + aside[k], ".", color=colour, alpha=0.45, markersize=5, markeredgewidth=0, zorder=2)
    label = name or None
    axes.plot(one["by_category"].values, rows, marker, color=colour, markersize=6, zorder=4, label=label)
    low, high = float(one["interval_low"]), float(one["interval_high"])
    if np.isfinite(low):
        axes.axvspan(low, high, color=colour, alpha=0.15, linewidth=0, zorder=1)
    axes.axvline(float(one["shape_bias"]), color=colour, linewidth=1.4, zorder=3)


def caption(result: xr.Dataset | Mapping[str, xr.Dataset], **_unused: Any) -> str:
    """Say in sentences what the figure shows: who chose, what is counted, intervals.

    Parameters
    ----------
    result : xarray.Dataset or mapping of observer to Dataset
        What ``confusion``, ``error_consistency`` or ``shape_bias`` returned.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is none of these results.
    """
    measure, named = _results(result)
    first, short = next(iter(named.values())), plotting.short
    if measure == "error_consistency":
        text = (
            f"Error consistency (Cohen's κ of right and wrong) of {first.sizes['subject']} observers, each pair over "
            "the stimuli that both judged: agreement beyond what their accuracies alone predict; negative where they "
            f"err on different stimuli. Mean over pairs {short(float(first['mean_kappa']))}"
        )
        interval = _interval(first)
        return f"{text}{interval[:-1] + ', 95 % bootstrap over stimuli)' if interval else ''}."
    if measure == "confusion":
        names = [[str(value) for value in first[dim].values] for dim in ("truth", "response")]
        parts = [
            f"{name + ': ' if name else ''}{short(float(one['accuracy']))} right, commonest confusion "
            f"{decoding_panels.top_confusions(one['rate'].values, *names)}, {int(one['n_unanswered'].sum())} trials "
            "unanswered"
            for name, one in named.items()
        ]
        return (
            "Share of the answered trials of a class that were given each answer; rows are the classes shown and add "
            f"up to 1. {'; '.join(parts)}."
        )
    parts = []
    for name, one in named.items():
        low, high = float(one["interval_low"]), float(one["interval_high"])
        limits = f" (95 % bootstrap over images {short(low, 3)} to {short(high, 3)})" if np.isfinite(low) else ""
        parts.append(f"{name + ': ' if name else ''}{short(float(one['shape_bias']), 3)}{limits}")
    return (
        "Images with the shape of one category and the texture of another: share of choices by shape among those by "
        "shape or texture, in rows by the category of the shape. Large marks: all trials of an observer; small ones: "
        f"its subjects; lines: all categories together. {'; '.join(parts)}. Other answers ({int(first['n_other'])} "
        f"trials) and missing ones ({int(first['n_unanswered'])}) are left out."
    )


def alt_text(result: xr.Dataset | Mapping[str, xr.Dataset], **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset or mapping of observer to Dataset
        What ``confusion``, ``error_consistency`` or ``shape_bias`` returned.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is none of these results.
    """
    measure, named = _results(result)
    first, short = next(iter(named.values())), plotting.short
    if measure == "error_consistency":
        kappa = first["kappa"].values
        return (
            f"Matrix of the error consistency of {len(kappa)} observers, from {short(float(np.nanmin(kappa)))} to "
            f"{short(float(np.nanmax(kappa)))}, mean {short(float(first['mean_kappa']))}."
        )
    if measure == "confusion":
        parts = [f"{name + ' ' if name else ''}{short(float(one['accuracy']))} right" for name, one in named.items()]
        return f"Confusion matrix of {first.sizes['truth']} classes: {'; '.join(parts)}."
    parts = []
    for name, one in named.items():
        values = one["by_category"].values
        lowest, highest = (str(one["category"].values[int(f(values))]) for f in (np.nanargmin, np.nanargmax))
        parts.append(
            f"{name + ' ' if name else ''}{short(float(one['shape_bias']), 3)}, from {short(float(np.nanmin(values)))} "
            f"for {lowest} to {short(float(np.nanmax(values)))} for {highest}"
        )
    return f"Points by category between choices by texture and choices by shape: {'; '.join(parts)}."
