"""Parts of the figures of decoding and of behaviour: matrices of shares, and curves by number of neurons or units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "chance_line",
    "chance_words",
    "curves",
    "headline",
    "matrices",
    "matrix_panel",
    "top_confusions",
    "top_of",
]

_MOST_NUMBERED = 12  # classes whose shares are written into the cells
_TALL, _WIDE = 3.0, 5.4  # inches, the axes of a curve
_LETTER = 0.078  # inches, the width of a letter of a tick label


def headline(figure: Figure, left: float, text: str, line: str) -> None:
    """Write a figure's headline and the line under it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    left : float
        Where they begin, in inches.
    text, line : str
        The headline, and the grey line.
    """
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - 0.1 / height, text, va="top", fontsize=13, fontweight="bold")
    figure.text(left / width, 1 - 0.36 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)


def chance_words(chance: float) -> str:
    """Write chance with as many digits as it needs.

    Parameters
    ----------
    chance : float
        Share of the most frequent class.

    Returns
    -------
    str
        ``".25"``, ``".125"``.
    """
    return plotting.short(chance, 2 if abs(round(chance, 2) - chance) < 1e-9 else 3)


def chance_line(axes: Axes, chance: float, beside: bool = False) -> None:
    """Draw chance as a dashed line with its value.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The axes, accuracy upwards.
    chance : float
        Share of the most frequent class.
    beside : bool
        Whether the value stands right of the axes, not in them.
    """
    axes.axhline(chance, color=plotting.SOFT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    axes.text(
        1.01 if beside else 0.988,
        chance,
        ("chance\n" if beside else "chance ") + chance_words(chance),
        transform=axes.get_yaxis_transform(),
        ha="left" if beside else "right",
        va="center" if beside else "bottom",
        fontsize=9,
        color="#4f4f4f",
    )


def matrix_panel(
    axes: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], ends: tuple[float, float] = (0, 1)
) -> Any:
    """Draw a matrix of shares, with numbers where there is room.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The axes.
    values : numpy.ndarray, shape (n_rows, n_columns)
        Shares; NaN stays white.
    rows, columns : sequence of str
        Names.
    ends : tuple of float
        Values at the two ends of the colours.

    Returns
    -------
    matplotlib.image.AxesImage
        For a bar of colours.
    """
    from matplotlib import colormaps

    colours = colormaps[plotting.SEQUENTIAL]
    image = axes.imshow(values, cmap=colours, vmin=ends[0], vmax=ends[1], aspect="auto", interpolation="nearest")
    if max(values.shape) <= _MOST_NUMBERED:
        for i, j in np.ndindex(*values.shape):
            if np.isfinite(values[i, j]):
                dark = (values[i, j] - ends[0]) / (ends[1] - ends[0]) < 0.55
                axes.text(
                    j,
                    i,
                    plotting.short(float(values[i, j])),
                    ha="center",
                    va="center",
                    fontsize=9 if values.shape[1] <= 8 else 7.5,
                    color="white" if dark else plotting.INK,
                )
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def top_of(values: np.ndarray) -> float:
    """Find where an axis of shares ends.

    Parameters
    ----------
    values : numpy.ndarray
        What is drawn; NaN is not.

    Returns
    -------
    float
        The next tenth above the largest value, 1 at most.
    """
    known = values[np.isfinite(values)]
    return float(min(1.0, np.floor(known.max() * 10 + 1) / 10)) if len(known) else 1.0


def matrices(
    panels: Mapping[str, np.ndarray],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    line: str,
    *,
    axis: tuple[str, str] = ("Class shown", "Class decoded"),
    bar: str = "Share of the class",
    ends: tuple[float, float] | None = None,
) -> Figure:
    """Draw up to three matrices of shares side by side.

    Parameters
    ----------
    panels : mapping of str to numpy.ndarray
        Title and ``(n_rows, n_columns)`` of each.
    rows, columns : sequence of str
        Names of both dims.
    title, line : str
        Headline of the figure, and the grey line under it.
    axis : tuple of str
        Names of the vertical and of the horizontal axis.
    bar : str
        What colours mean.
    ends : tuple of float, optional
        Values at the two ends of the colours; by default 0 and the next tenth above the largest.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    if ends is None:
        ends = (0.0, top_of(np.concatenate([values.ravel() for values in panels.values()])))
    with plotting.style():
        room = (3.6 if len(panels) == 1 else 2.9, 3.4 if len(panels) == 1 else 2.7)
        cell = max(len(columns), len(rows))
        wide, tall = (max(side, 0.2 * cell) for side in room)
        longest = max(len(name) for name in rows)
        level = max(len(name) for name in columns) * _LETTER + 0.06 <= wide / len(columns)
        below = 0.55 if level else 0.5 + 0.75 * _LETTER * max(len(name) for name in columns)
        left, gap, top = 0.55 + _LETTER * longest, 0.3, 0.75 + (0.25 if len(panels) > 1 else 0)
        width = max(left + len(panels) * wide + (len(panels) - 1) * gap + 0.95, 0.3 + 0.092 * len(title), 5.2)
        height = top + tall + below
        figure = plotting.new_figure(width, height)
        image: Any = None
        for number, (name, values) in enumerate(panels.items()):
            at = (left + number * (wide + gap)) / width
            axes = figure.add_axes((at, below / height, wide / width, tall / height))
            image = matrix_panel(axes, values, rows if number == 0 else [""] * len(rows), columns, ends)
            if not level:
                axes.set_xticklabels(columns, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_xlabel(axis[1])
            if number == 0:
                axes.set_ylabel(axis[0])
            if len(panels) > 1:
                axes.set_title(name, loc="left", fontsize=10.5)
        end = (left + len(panels) * wide + (len(panels) - 1) * gap + 0.15) / width
        scale = figure.add_axes((end, below / height, 0.12 / width, tall / height))
        figure.colorbar(image, cax=scale).set_label(bar)
        scale.tick_params(labelsize=8.5, length=2)
        scale.spines["outline"].set_visible(False)
        headline(figure, 0.15, title, line)
    return figure


def curves(
    lines: Mapping[str, np.ndarray],
    sizes: np.ndarray,
    chance: float,
    title: str,
    line: str,
    *,
    across: str = "Neurons",
    accuracy: str = "Held-out samples\ndecoded correctly",
) -> Figure:
    """Draw accuracy by number of neurons or units: the mean over draws, with their standard deviation as a band.

    Parameters
    ----------
    lines : mapping of str to numpy.ndarray
        Name and ``(n_sizes, n_draws)`` of each curve.
    sizes : numpy.ndarray of int
        Numbers of neurons or units.
    chance : float
        Share of the most frequent class.
    title, line : str
        Headline of the figure, and the grey line under it.
    across : str
        What is counted.
    accuracy : str
        Name of the vertical axis.

    Returns
    -------
    matplotlib.figure.Figure
        About 6.5 by 4.5 inches.
    """
    with plotting.style():
        left, below, top = 0.85, 0.55, 0.68 + 0.235 * (len(lines) > 1)
        width, height = left + _WIDE + 0.2, below + top + _TALL
        figure = plotting.new_figure(width, height)
        axes = figure.add_axes((left / width, below / height, _WIDE / width, _TALL / height))
        for number, (name, draws) in enumerate(lines.items()):
            colour, mean = plotting.COLOURS[number % 7], draws.mean(axis=1)
            if draws.shape[1] > 1:
                deviation = draws.std(axis=1, ddof=1)
                band = np.clip([mean - deviation, mean + deviation], 0, 1)
                axes.fill_between(sizes, *band, color=colour, alpha=0.2, linewidth=0, zorder=2)
            marker = plotting.MARKERS[number % 7]
            axes.plot(sizes, mean, color=colour, marker=marker, markersize=5.5, zorder=3, label=name)
        if sizes[-1] >= 10 * sizes[0] and len(sizes) > 2:
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.set_xlim(sizes[0] / 1.15, sizes[-1] * 1.15)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xlabel(across)
        axes.set_ylabel(accuracy, linespacing=1.35)
        axes.set_ylim(0, 1.02 * top_of(np.concatenate([draws.ravel() for draws in lines.values()])))
        chance_line(axes, chance)
        if len(lines) > 1:
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(0, 1.0),
                ncols=4,
                borderaxespad=0.2,
                handlelength=1.5,
                columnspacing=1.4,
            )
        headline(figure, left, title, line)
    return figure


def top_confusions(values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Name the commonest confusion of a matrix.

    Parameters
    ----------
    values : numpy.ndarray, shape (n_rows, n_columns)
        Shares.
    rows, columns : sequence of str
        Names.

    Returns
    -------
    str
        ``"dog taken for cat (.12)"``, or that there is none.
    """
    wrong = np.array([[a != b for b in columns] for a in rows])
    shares = np.where(wrong & np.isfinite(values), values, 0.0)
    if not shares.max() > 0:
        return "no confusions"
    i, j = divmod(int(shares.argmax()), shares.shape[1])
    return f"{rows[i]} taken for {columns[j]} ({plotting.short(float(shares[i, j]))})"
