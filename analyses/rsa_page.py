"""The parts of a page that every figure of an RSA result is made of: headline, legend, axes in inches, marks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.rsa_reading import ALPHA, ceiling, simulated

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND_MARKERS = {"model": "s", "control": "D"}
# Inches between the rows of a legend.
LEGEND_STEP = 0.235
_INCHES_PER_LETTER = 0.074  # of the usual text size, on average

Line = tuple[str, dict[str, Any], float]


def headline(result: xr.Dataset, title: str, notes: Sequence[str], width: float) -> list[Line]:
    """Break title and notes into lines.

    Parameters
    ----------
    result : xarray.Dataset
        The result; simulated data say so in the title.
    title : str
        The title.
    notes : sequence of str
        What stands below it, joined by semicolons.
    width : float
        Inches that a line can take.

    Returns
    -------
    list of tuple
        Words, how they are set, and inches down to the next line.
    """
    if simulated(result) and "simulated" not in title.lower():
        title += " (simulated data)"
    titles = textwrap.wrap(title, int(width / 0.105))
    lines = textwrap.wrap("; ".join(note for note in notes if note), int(width / 0.072))
    large, small = {"fontsize": 13, "fontweight": "bold"}, {"fontsize": 9.5, "color": plotting.SOFT}
    return [
        *((text, large, 0.26 if text is titles[-1] else 0.22) for text in titles),
        *((text, small, 0.25 if text is lines[-1] else 0.17) for text in lines),
    ]


LegendRow = tuple[list[Any], list[str]]


def legend_rows(entries: Sequence[tuple[Any, str]], width: float) -> list[LegendRow]:
    """Break legend entries into rows of limited width.

    Parameters
    ----------
    entries : sequence of tuple
        Handles and their words.
    width : float
        Inches that a row can take.

    Returns
    -------
    list of tuple
        Handles and words of each row.
    """
    rows: list[LegendRow] = []
    used = np.inf
    for handle, text in entries:
        length = len(text) * _INCHES_PER_LETTER + 0.42
        if used + length > width:
            rows.append(([], []))
            used = 0
        rows[-1][0].append(handle)
        rows[-1][1].append(text)
        used += length
    return rows


def head_height(head: Sequence[Line], key: Sequence[LegendRow]) -> float:
    """Add up what the head of a page takes.

    Parameters
    ----------
    head : sequence of tuple
        From :func:`headline`.
    key : sequence of tuple
        From :func:`legend_rows`.

    Returns
    -------
    float
        Inches, margins included.
    """
    return 0.15 + LEGEND_STEP * len(key) + sum(step for *_, step in head)


def draw_head(figure: Figure, head: Sequence[Line], key: Sequence[LegendRow], x: float) -> None:
    """Write headline and legend at the top of a page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The page.
    head : sequence of tuple
        From :func:`headline`.
    key : sequence of tuple
        From :func:`legend_rows`.
    x : float
        Inches from the left.
    """
    width, height = figure.get_size_inches()
    y = 0.1
    for words, settings, step in head:
        figure.text(x / width, 1 - y / height, words, va="top", ha="left", **settings)
        y += step
    for handles, labels in key:
        figure.legend(
            handles,
            labels,
            loc="upper left",
            ncols=len(labels),
            columnspacing=1.4,
            handletextpad=0.5,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.5,
            bbox_to_anchor=(x / width, 1 - y / height),
        )
        y += LEGEND_STEP


def axes_at(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes to a page at a place in inches.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The page.
    x, y : float
        Lower left corner, inches from the page's lower left.
    width, height : float
        Inches.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    wide, high = figure.get_size_inches()
    axes = figure.add_axes((x / wide, y / high, width / wide, height / high))
    axes.set_facecolor("none")  # lines that cross the page show through
    return axes


def mark_handle(face: str, marker: str = "s", **more: Any) -> Any:
    """Make a mark for a legend.

    Parameters
    ----------
    face : str
        Colour of its inside.
    marker : str
        Its shape.
    **more
        Other settings of the mark.

    Returns
    -------
    matplotlib.lines.Line2D
        The handle.
    """
    from matplotlib.lines import Line2D

    settings = {"linestyle": "", "color": plotting.SOFT, "markersize": 5.5, "markeredgewidth": 1.4, **more}
    return Line2D([], [], marker=marker, markerfacecolor=face, **settings)


def significance_handles(p: np.ndarray, means: np.ndarray, marker: str) -> list[tuple[Any, str]]:
    """Legend entries for what filled and hollow marks say.

    Parameters
    ----------
    p, means : numpy.ndarray
        p-values and scores of what is drawn, of one shape.
    marker : str
        Shape of the marks.

    Returns
    -------
    list of tuple
        Handles and words.
    """
    found: list[tuple[Any, str]] = []
    if (p < ALPHA).any():
        found.append((mark_handle(plotting.SOFT, marker), "p < .05"))
    if (p >= ALPHA).any():
        found.append((mark_handle("white", marker), "n.s."))
    if found and (np.isnan(p) & np.isfinite(means)).any():
        found.append((mark_handle("none", "_"), "not tested"))
    return found


def draw_marks(
    axes: Axes, x: np.ndarray, y: np.ndarray, p: np.ndarray, colour: str, marker: str, size: float, tested: bool
) -> None:
    """Draw filled marks where p < .05, hollow ones where not; a dash where nothing was tested, but other things were.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The axes.
    x, y, p : numpy.ndarray
        Places and p-values.
    colour, marker : str
        As matplotlib takes them.
    size : float
        Size of the marks in points.
    tested : bool
        Whether anything in the figure was tested.
    """
    untested = "_" if tested else marker
    for where, face, shape in (
        (p < ALPHA, colour, marker),
        (p >= ALPHA, "white", marker),
        (np.isnan(p), colour, untested),
    ):
        if where.any():
            axes.plot(
                x[where],
                y[where],
                shape,
                color=colour,
                markerfacecolor=face,
                markeredgewidth=1.4,
                markersize=size,
                zorder=4,
            )


def draw_ceiling(axes: Axes, result: xr.Dataset, label: bool) -> None:
    """Draw the grey band from the lower to the upper noise ceiling, level.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Axes with scores along y.
    result : xarray.Dataset
        An RSA or noise ceiling result; without a ceiling nothing is drawn.
    label : bool
        Write its limits above it.
    """
    found = ceiling(result)
    if found is None:
        return
    axes.axhspan(*found, color=plotting.BAND, linewidth=0, zorder=0)
    if label:
        axes.text(
            0.012,
            found[1],
            f"noise ceiling  {plotting.short(found[0])}–{plotting.short(found[1])}",
            transform=axes.get_yaxis_transform(),
            va="bottom",
            ha="left",
            fontsize=9,
            color="#4f4f4f",
        )
