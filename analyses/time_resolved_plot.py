"""RSA over time: a curve for each model with its significant stretches, or a map where curves would be too many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit import plotting
from actkit.analyses.rsa_page import axes_at, draw_head, head_height, headline
from actkit.analyses.rsa_reading import check, chosen, half_widths
from actkit.analyses.rsa_words import (
    Marks,
    band_sentence,
    band_words,
    count_words,
    data_words,
    first_sentence,
    measure,
    undefined_sentences,
)
from actkit.analyses.time_course import (
    Course,
    TimeTest,
    bin_edges,
    draw_onset,
    peak_words,
    read_course,
    tests_of,
    time_label,
)
from actkit.analyses.time_map import draw_map
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TALL = 3.1  # inches, height of the curves
_STRIP = 0.115  # inches, height of one model's row of significant stretches


def _over_time(result: xr.Dataset, only: Sequence[str] | None) -> xr.Dataset:
    """The chosen models with the dims in one order, sorted by time."""
    check(result)
    if "time" not in result["mean"].dims:
        raise InputError("the result has no dim time, so there is no course to draw; compare with data that have one")
    return chosen(result, only).sortby("time").transpose("model", ..., "time")


def plot(
    result: xr.Dataset,
    *,
    title: str | None = None,
    bands: Literal["error", "interval"] = "error",
    only: Sequence[str] | None = None,
    test: TimeTest = "auto",
    narrow: bool = False,
    **_unused: Any,
) -> Figure:
    """Draw scores over time: curves for up to seven models, a map of all of them beyond.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result with the dim time.
    title : str, optional
        Headline; the name of the data by default.
    bands : {"error", "interval"}
        One standard error, or the confidence interval of each bin.
    only : sequence of str, optional
        Draw these models or networks only; p-values stay corrected over all.
    test : {"auto", "flip", "permutation"}
        Which p-values mark significance: those that go with what the result generalises to, the sign flips of
        subjects, or the permutations of stimulus labels.
    narrow : bool
        For phones and single columns.

    Returns
    -------
    matplotlib.figure.Figure
        About 9 by 5 inches, or 5 inches wide if narrow.

    Raises
    ------
    InputError
        If the result has no time, or `bands` or `test` is unknown.
    """
    result = _over_time(result, only)
    tests = tests_of(result, test)
    course = read_course(result, tests)
    words = title or f"Similarity to {data_words(result)} over time"
    with plotting.style():
        if course.curves:
            return _draw_curves(result, course, tests, half_widths(result, bands), words, bands, narrow)
        return draw_map(result, course, tests, words, narrow)


def plot_narrow(result: xr.Dataset, **options: Any) -> Figure:
    """Draw the figure for a phone or a single column; see :func:`plot`.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result with the dim time.
    **options
        Those of :func:`plot`.

    Returns
    -------
    matplotlib.figure.Figure
        About 5 inches wide.
    """
    return plot(result, **{**options, "narrow": True})


def _draw_curves(
    result: xr.Dataset, course: Course, tests: Marks, half: np.ndarray, title: str, bands: str, narrow: bool
) -> Figure:
    """Curves with bands over a time-varying ceiling, names at their ends, significant stretches below."""
    strip = 0.12 + _STRIP * len(course.rows) if course.significant.any() else 0.0
    labels = [f"{name}\n{peak_words(result, course, i)}" for i, name in enumerate(course.names)]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    names = 0.55 + 0.075 * longest
    left, bottom = 0.9, 0.52
    wide = 3.95 if narrow else 6.3
    below = 0.36 * len(course.rows) if narrow else 0.0  # names stand below the figure on narrow pages
    width = left + wide + (0.15 if narrow else names)
    notes = [count_words(result), f"bands: {band_words(result, bands)}"]
    if strip:
        notes.append("lines below the curves: p < .05, corrected over time and models")
    elif tests.tested:
        notes.append("nowhere p < .05, corrected over time and models")
    head = headline(result, title, notes, width - 0.35)
    top = head_height(head, []) + 0.05
    figure = plotting.new_figure(width, below + bottom + strip + _TALL + top)
    axes = axes_at(figure, left, below + bottom + strip, wide, _TALL)
    limits = _limits(result, course, half)
    axes.set_ylim(*limits)
    _frame(axes, result, course, limits)
    for place, row in enumerate(course.rows):
        colour = plotting.COLOURS[place]
        mean, (down, up) = course.mean[place], half[:, row]
        axes.fill_between(course.time, mean - down, mean + up, color=colour, alpha=0.18, linewidth=0, zorder=2)
        axes.plot(course.time, mean, color=colour, linewidth=1.8, zorder=3)
        peak = course.peak(place)
        if peak is not None:
            axes.plot(
                course.time[peak], mean[peak], "o", color=colour, markerfacecolor="white", markersize=5.5, zorder=4
            )
    axes.set_ylabel(f"RDM similarity to subjects\n(mean {measure(result)})", linespacing=1.35)
    last = axes
    if strip:
        axes.tick_params(bottom=False, labelbottom=False)
        axes.spines["bottom"].set_visible(False)
        last = axes_at(figure, left, below + bottom, wide, strip)
        _draw_strip(last, course)
        last.set_xlim(axes.get_xlim())
    last.set_xlabel(time_label(result))
    if narrow:
        _names(axes_at(figure, left, 0.05, wide, below - 0.05), course, labels, wide)
    else:
        _names_beside(figure, course, labels, left + wide + 0.15, below + bottom + strip + _TALL, names - 0.15)
    draw_head(figure, head, [], 0.15)
    return figure


def _limits(result: xr.Dataset, course: Course, half: np.ndarray) -> tuple[float, float]:
    """A y range that holds bands, ceiling and zero."""
    down, up = np.nan_to_num(half[:, course.rows])
    ends = [course.mean - down, course.mean + up, np.zeros(1)]
    ends += [np.asarray(result[name].values, float) for name in _ceilings(result)]
    values = np.concatenate([end.ravel() for end in ends])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = (high - low) or 1.0
    return (low - 0.04 * room if low < 0 else 0.0), high + 0.07 * room


def _ceilings(result: xr.Dataset) -> list[str]:
    """Names of the ceilings over time, if the result has both and they are numbers."""
    names = ["ceiling_lower", "ceiling_upper"]
    whole = all(name in result.variables and result[name].dims == ("time",) for name in names)
    return names if whole and np.isfinite(result["ceiling_upper"].values.astype(float)).any() else []


def _frame(axes: Axes, result: xr.Dataset, course: Course, limits: tuple[float, float]) -> None:
    """Ceiling band, zero, the onset of the stimulus, and the range of time."""
    names = _ceilings(result)
    if names:
        low, high = (result[name].values.astype(float) for name in names)
        axes.fill_between(course.time, low, high, color=plotting.BAND, linewidth=0, zorder=0)
        at = int(np.nanargmax(high))
        right = course.time[at] > course.time.mean()
        axes.text(
            course.time[at],
            high[at] + 0.01 * (limits[1] - limits[0]),
            "noise ceiling",
            ha="right" if right else "left",
            va="bottom",
            fontsize=9,
            color="#4f4f4f",
        )
    if limits[0] < 0:
        axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    draw_onset(axes, course, label=True)
    pad = 0.01 * (course.time[-1] - course.time[0]) or 0.5
    axes.set_xlim(course.time[0] - pad, course.time[-1] + pad)


def _runs(significant: np.ndarray) -> list[tuple[int, int]]:
    """Runs of significant bins: the first bin, and the one after the last."""
    change = np.flatnonzero(np.diff(np.concatenate([[0], significant.astype(int), [0]])))
    return [(int(start), int(stop)) for start, stop in change.reshape(-1, 2)]


def _draw_strip(axes: Axes, course: Course) -> None:
    """A row of bars for each model, from the first to the last bin of each significant stretch."""
    edges = bin_edges(course.time)
    n = len(course.rows)
    for place in range(n):
        bars = [(edges[a], edges[b] - edges[a]) for a, b in _runs(course.significant[place])]
        axes.broken_barh(bars, (place + 0.2, 0.6), color=plotting.COLOURS[place], linewidth=0)
    axes.set_ylim(n, -0.12 / _STRIP)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _names_beside(figure: Figure, course: Course, labels: list[str], x: float, top: float, wide: float) -> None:
    """Names with their maxima at the right, highest first."""
    gap = min(0.42, _TALL / len(labels))
    _names(axes_at(figure, x, top - gap * len(labels), wide, gap * len(labels)), course, labels, wide)


def _names(axes: Axes, course: Course, labels: list[str], wide: float) -> None:
    """One name after the other, each beside a line of its colour."""
    axes.axis("off")
    axes.set_xlim(0, wide)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    for place, label in enumerate(labels):
        axes.plot([0, 0.2], [place, place], color=plotting.COLOURS[place])
        _two_lines(axes, 0.28, place, label, plotting.COLOURS[place])


def _two_lines(axes: Axes, x: float, y: float, label: str, colour: str) -> None:
    """A name in its colour, and its maximum in grey below."""
    name, peak = label.split("\n")
    settings: dict[str, Any] = {"xy": (x, y), "textcoords": "offset points", "ha": "left", "annotation_clip": False}
    axes.annotate(name, xytext=(0, 0), va="bottom", fontsize=9.5, color=colour, fontweight="bold", **settings)
    axes.annotate(peak, xytext=(0, -1), va="top", fontsize=8.8, color=plotting.SOFT, **settings)


def caption(
    result: xr.Dataset,
    *,
    bands: Literal["error", "interval"] = "error",
    only: Sequence[str] | None = None,
    test: TimeTest = "auto",
    **_unused: Any,
) -> str:
    """Say in sentences what the figure over time shows: measure, bands, test and what it is corrected over, maxima.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result with the dim time.
    bands, only, test
        As given to :func:`plot`.

    Returns
    -------
    str
        Plain text.
    """
    result = _over_time(result, only)
    tests = tests_of(result, test)
    course = read_course(result, tests)
    text = [
        first_sentence(result, f"Mean {measure(result)} between model RDMs and the RDM of each subject, at each time")
    ]
    if course.curves:
        text.append(band_sentence(result, bands, "Bands"))
    if tests.tested:
        mark = "Lines below the curves" if course.curves else "Outlined"
        text.append(f"{mark}: p < .05; {tests.words}.")
    else:
        text.append("No significance was tested.")
    text += undefined_sentences(result)
    if course.curves and _ceilings(result):
        text.append(
            "The grey band is the noise ceiling of each time: the range in which the best possible model would score, "
            "given how much the subjects differ."
        )
    peaks = [f"{name} {peak_words(result, course, i)}" for i, name in enumerate(course.names) if course.curves]
    if peaks:
        text.append(f"Maxima: {'; '.join(peaks)}.")
    text.append("Maxima and their times are descriptive.")
    return " ".join(text)


def alt_text(result: xr.Dataset, *, only: Sequence[str] | None = None, **_unused: Any) -> str:
    """Describe the figure over time for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result with the dim time.
    only : sequence of str, optional
        As given to :func:`plot`.

    Returns
    -------
    str
        One or two sentences.
    """
    result = _over_time(result, only)
    course = read_course(result, tests_of(result, "auto"))
    what = "Curves" if course.curves else "Map"
    peaks = "; ".join(f"{name}, {peak_words(result, course, i)}" for i, name in enumerate(course.names[:12]))
    more = f"; and {len(course.names) - 12} more" if len(course.names) > 12 else ""
    return f"{what} of RDM similarity to {data_words(result)} over time. Maxima: {peaks}{more}."
