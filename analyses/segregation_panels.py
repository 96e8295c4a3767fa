"""What the figures of segregation have in common: panels under a headline, legends, layers along x, values of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NULL = "#d4d4d4"
TALL = 2.9
"""Height of an axes in inches."""


def panels(
    columns: int,
    names: Sequence[str],
    legend_rows: int,
    wide: float | Sequence[float],
    headline: str,
    line: str,
    rows: int = 1,
    tall: float = TALL,
) -> tuple[Figure, list[Axes], float]:
    """Make a figure with a grid of axes, a headline above, room for the legend, and for layer names below.

    Parameters
    ----------
    columns : int
        Axes side by side.
    names : sequence of str
        Layers along x, whose names need room; empty for other axes.
    legend_rows : int
        Rows of the legend.
    wide : float or sequence of float
        Width of the axes in inches, of all or of each column.
    headline, line : str
        Title, and what stands below it in small.
    rows : int
        Axes above each other; only the lowest carry labels along x.
    tall : float
        Height of each axes in inches.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure.
    axes : list of matplotlib.axes.Axes
        Row by row, all with one y axis.
    left : float
        Left margin in inches, where headline and legend begin.
    """
    widths = [float(wide)] * columns if isinstance(wide, int | float) else [float(one) for one in wide]
    below = plotting.label_depth(names, min(widths)) if names else 0.2
    left, gap, right, between = 0.85, 0.35, 0.25, 0.4
    bottom, top = below + 0.4, 0.72 + 0.235 * legend_rows + (0.25 if columns > 1 or rows > 1 else 0.0)
    width = left + sum(widths) + (columns - 1) * gap + right
    height = bottom + rows * tall + (rows - 1) * between + top
    figure = plotting.new_figure(width, height)
    axes: list[Axes] = []
    for row in range(rows):
        for column in range(columns):
            x = left + sum(widths[:column]) + column * gap
            y = bottom + (rows - 1 - row) * (tall + between)
            place = (x / width, y / height, widths[column] / width, tall / height)
            axes.append(figure.add_axes(place, sharey=axes[0] if axes else None))
            if column:
                axes[-1].tick_params(labelleft=False)
            if row < rows - 1:
                axes[-1].tick_params(labelbottom=False)
    figure.text(left / width, 1 - 0.1 / height, headline, va="top", fontsize=13, fontweight="bold")
    figure.text(left / width, 1 - 0.36 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)
    return figure, axes, left


def legend(figure: Figure, left: float, blocks: Sequence[tuple[Sequence[Any], Sequence[str]]]) -> None:
    """Write rows of a legend under the headline.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    left : float
        Where it begins, in inches.
    blocks : sequence of (handles, words)
        One for each row.
    """
    width, height = figure.get_size_inches()
    for number, (handles, words) in enumerate(blocks):
        figure.legend(
            handles,
            words,
            loc="upper left",
            ncols=len(handles),
            borderpad=0,
            borderaxespad=0,
            handletextpad=0.5,
            columnspacing=1.3,
            handlelength=1.6,
            bbox_to_anchor=(left / width, 1 - (0.62 + 0.235 * number) / height),
        )


def layer_axis(axes: Axes, names: Sequence[str], wide: float) -> None:
    """Put layers along x.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The axes.
    names : sequence of str
        Layers, first to last.
    wide : float
        Width of the axes in inches.
    """
    axes.set_xlim(-0.6, len(names) - 0.4)
    front = plotting.label_layers(axes, list(range(len(names))), names, wide)
    axes.set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")


def dots(
    axes: Axes,
    x: np.ndarray,
    seeds: np.ndarray,
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    colour: Any,
    *,
    marker: str = "o",
    filled: bool = True,
    line: str | tuple[int, tuple[int, ...]] | None = None,
    apart: float = 0.09,
) -> None:
    """Draw means with their intervals, and the values of single networks beside them.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The axes.
    x : numpy.ndarray
        ``(place,)`` where the means stand.
    seeds : numpy.ndarray
        ``(place, network)``; NaN where there is none.
    mean, low, high : numpy.ndarray
        ``(place,)``; NaN limits draw no bar.
    colour : colour
        Of all.
    marker : str
        Of the mean.
    filled : bool
        Whether the mean's marker is filled.
    line : str or tuple, optional
        Style of a line through the means.
    apart : float
        How far to the right of the mean the single values stand, in units of x.
    """
    for values in seeds.T:
        axes.plot(
            x + apart, values, "o", color=colour, markersize=3.2, alpha=0.55, markeredgewidth=0, zorder=3.5
        )  # fmt: skip
    error = np.maximum(np.stack([mean - low, high - mean]), 0)
    axes.errorbar(x, mean, yerr=error, fmt="none", ecolor=colour, elinewidth=1.4, zorder=4)
    axes.plot(
        x, mean, color=colour, marker=marker, markersize=5.2, markeredgewidth=1.3, linewidth=1.3,
        markerfacecolor=colour if filled else "white", linestyle=line or "none", zorder=5,
    )  # fmt: skip
