"""The map of RSA over time: a row of colour for each model or layer, where curves would be too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actkit import plotting
from actkit.analyses.rsa_page import axes_at, draw_head, head_height, headline
from actkit.analyses.rsa_words import Marks, count_words, measure
from actkit.analyses.time_course import Course, bin_edges, draw_onset, time_label

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_map(result: xr.Dataset, course: Course, tests: Marks, title: str, narrow: bool) -> Figure:
    """Draw rows of colour over time, outlined where significant, a ring at each maximum.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result with the dim time.
    course : Course
        What is drawn.
    tests : Marks
        The test that is shown.
    title : str
        Headline.
    narrow : bool
        For phones and single columns.

    Returns
    -------
    matplotlib.figure.Figure
        About 8.5 by 6 inches, or 5 inches wide if narrow.
    """
    n = len(course.rows)
    step = float(np.clip(4.2 / n, 0.05, 0.26))
    _, short_names = plotting.common_stem(course.names) if not course.gaps else ("", course.names)
    left = min(0.25 + 0.072 * max(map(len, short_names)), 1.7 if narrow else 2.6)
    wide, tall, bottom = (4.75 - left if narrow else 6.3), step * n, 1.0
    width = left + wide + 0.25
    notes = [count_words(result)]
    if course.significant.any():
        notes.append("outlined: p < .05, corrected over time and models")
    elif tests.tested:
        notes.append("nowhere p < .05, corrected over time and models")
    notes.append("rings: maxima (descriptive)")
    head = headline(result, title, notes, width - 0.35)
    figure = plotting.new_figure(width, bottom + tall + head_height(head, []) + 0.1)
    axes = axes_at(figure, left, bottom, wide, tall)
    low, high = min(0.0, float(np.nanmin(course.mean))), float(np.nanmax(course.mean))
    edges = bin_edges(course.time)
    borders = np.arange(n + 1) - 0.5
    axes.set_facecolor("#d9d9d9")
    shown = axes.pcolormesh(
        edges, borders, course.mean, cmap=plotting.SEQUENTIAL, vmin=low, vmax=high, rasterized=True, linewidth=0
    )
    _outline(axes, course.significant, edges, borders)
    for place in range(n):
        peak = course.peak(place)
        if peak is not None and (course.significant[place, peak] or not tests.tested):
            axes.plot(
                course.time[peak],
                place,
                "o",
                markersize=float(np.clip(40 * step, 2.2, 5)),
                markerfacecolor="none",
                markeredgecolor="#c8102e",
                markeredgewidth=1.2,
            )
    draw_onset(axes, course, label=False, colour="white")
    for gap in course.gaps:
        axes.axhline(gap - 0.5, color="white", linewidth=2.5)
    keep = plotting.thin(n, max(2, int(tall / 0.15)))
    most = int((left - 0.2) / 0.07)
    axes.set_yticks(keep)
    axes.set_yticklabels(
        [name if len(name) <= most else f"{name[: most - 1]}…" for name in (short_names[place] for place in keep)],
        fontsize=9 if step > 0.14 else 8,
    )
    axes.tick_params(axis="y", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(time_label(result))
    bar = axes_at(figure, left, 0.4, min(2.6, wide), 0.1)
    figure.colorbar(shown, cax=bar, orientation="horizontal")
    bar.set_xlabel(f"RDM similarity to subjects (mean {measure(result)})", fontsize=9, labelpad=1)
    bar.locator_params(axis="x", nbins=4)
    draw_head(figure, head, [], 0.15)
    return figure


def _outline(axes: Axes, significant: np.ndarray, edges: np.ndarray, borders: np.ndarray) -> None:
    """Lines along the borders between bins that are significant and bins that are not."""
    from matplotlib.collections import LineCollection

    padded = np.pad(significant, 1)
    across, along = padded[:, 1:] != padded[:, :-1], padded[1:] != padded[:-1]
    lines = [[(edges[j], borders[i - 1]), (edges[j], borders[i])] for i, j in np.argwhere(across)]
    lines += [[(edges[j - 1], borders[i]), (edges[j], borders[i])] for i, j in np.argwhere(along)]
    axes.add_collection(LineCollection(lines, colors="white", linewidths=1.1, capstyle="projecting"), autolim=False)
