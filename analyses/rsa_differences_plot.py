"""The model-by-model matrix of an RSA result: differences of scores as colours, their tests as the size of the cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.rsa_page import LegendRow, axes_at, draw_head, head_height, headline, legend_rows, mark_handle
from actkit.analyses.rsa_reading import ALPHA, best_first, column, kinds, pair_tests
from actkit.analyses.rsa_words import (
    SCOPE,
    correction_words,
    count_words,
    counted,
    data_words,
    first_sentence,
    how_sentences,
    measure,
    names_of,
    null_sentences,
    scope,
    undefined_sentences,
)
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Purple to green: told apart by colour-blind readers, and neither end reads as good or bad.
_COLOURS = "PRGn"
_SIDE = {False: 5.2, True: 3.9}  # inches that the cells of a usual and of a narrow page may take
_SMALL = 0.42  # side of a cell that is not significant, in cells
_NUMBERS = 0.33  # inches; larger cells hold their number


@dataclass(frozen=True)
class _Matrix:
    """Differences and p-values of the models that have a score, in the order in which they are drawn."""

    rows: np.ndarray
    names: list[str]
    difference: np.ndarray
    p: np.ndarray | None
    gaps: list[int]  # places before which another network or kind begins

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def top(self) -> float:
        """The largest difference, which both ends of the colours stand for."""
        return float(np.nanmax(np.abs(self.difference), initial=0)) or 1.0


def _matrix(result: xr.Dataset) -> _Matrix:
    """Read the matrix: layers along the depth of their network, then models and controls, best last."""
    if "difference" not in result.variables:
        raise InputError(
            "the result has no differences between models (variable 'difference'), so there is no matrix to draw; give "
            "what actkit.rsa() returned"
        )
    means, kind = column(result, "mean"), kinds(result)
    scored = np.isfinite(means)
    networks = result["network"].values.astype(str) if "network" in result.coords else kind
    position = np.nan_to_num(column(result, "position"))
    groups = []
    for network in dict.fromkeys(networks[kind == "layer"].tolist()):
        rows = np.flatnonzero((kind == "layer") & (networks == network) & scored)
        groups.append(rows[np.argsort(position[rows], kind="stable")])
    groups.append(best_first(result, np.flatnonzero((kind != "layer") & scored))[::-1])
    groups = [rows for rows in groups if len(rows)]
    rows = np.concatenate(groups) if groups else np.array([], dtype=int)
    if len(rows) < 2:
        raise InputError(f"only {len(rows)} of {len(means)} models have a score; a matrix of differences takes two")
    difference = np.asarray(result["difference"].transpose("model", "other_model").values, dtype=float)
    p = pair_tests(result)
    names = names_of(result, rows, 30)
    return _Matrix(
        rows,
        names,
        difference[np.ix_(rows, rows)],
        None if p is None else p[np.ix_(rows, rows)],
        np.cumsum([len(group) for group in groups])[:-1].tolist(),
    )


def draw(result: xr.Dataset, *, title: str | None, narrow: bool) -> Figure:
    """Draw the lower triangle: each cell is its row's score minus its column's; names stand on the diagonal, for both.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result without time.
    title, narrow
        As :func:`actkit.analyses.rsa_plot.plot` takes them.

    Returns
    -------
    matplotlib.figure.Figure
        About 8 by 7 inches, or 5 inches wide if narrow.

    Raises
    ------
    InputError
        If fewer than two models have scores, or the result has no differences.
    """
    matrix = _matrix(result)
    side = _SIDE[narrow] if narrow else float(np.clip(0.11 * matrix.n, _SIDE[narrow], 7.0))
    for _ in range(2 if narrow else 1):  # names that pass the page's edge make the cells smaller
        step = float(min(side / matrix.n, 0.5))
        size = float(np.clip(step * 72 * 0.62, 7.0 if narrow else 7.5, 8.5 if narrow else 9.5))
        wide = [step * i + (len(name) + 6) * size * 0.0075 for i, name in enumerate(matrix.names)]
        beside = max(wide) - step * matrix.n + 0.1
        side = min(side, 4.65 - beside) if narrow else side
    side = step * matrix.n
    width = max(0.25 + side + beside + 0.1, 5.0 if narrow else 6.6)
    key = _legend(matrix, step, width - 0.3)
    words = title or f"Similarity to {data_words(result)}: differences between models"
    note = "cell: the model at the end of its row minus the model at the top of its column"
    named = len(_named(matrix, step, size))
    notes = [count_words(result), note, f"{named} of {matrix.n} models are named" if named < matrix.n else ""]
    head = headline(result, words, notes, width - 0.3)
    top, bottom = head_height(head, key) + 0.1, 0.68
    figure = plotting.new_figure(width, top + side + bottom)
    axes = axes_at(figure, 0.25, bottom, side, side)
    _draw_cells(axes, matrix, step)
    _draw_names(axes, result, matrix, step, size)
    _draw_scale(figure, result, matrix)
    draw_head(figure, head, key, 0.15)
    return figure


def _legend(matrix: _Matrix, step: float, width: float) -> list[LegendRow]:
    """What the size of a cell means."""
    if matrix.p is None:
        return []
    below = matrix.p[np.tril_indices(matrix.n, -1)]
    marks: list[tuple[Any, str]] = []
    if (below < ALPHA).any():
        marks.append(
            (
                mark_handle("#9a9a9a", "s", color="#9a9a9a", markersize=9),
                "full cell, bold: p < .05, corrected" if step >= _NUMBERS else "full cell: p < .05, corrected",
            )
        )
    if (below >= ALPHA).any():
        marks.append((mark_handle("#9a9a9a", "s", color="#9a9a9a", markersize=4), "small cell: n.s."))
    if np.isnan(below).any() and marks:
        marks.append((mark_handle("none", "x", markersize=4), "not tested"))
    return legend_rows(marks, width)


def _draw_cells(axes: Axes, matrix: _Matrix, step: float) -> None:
    """A square for each pair, large where the pair differs, with the difference in it where there is room."""
    import matplotlib as mpl
    from matplotlib.collections import PolyCollection

    row, col = np.tril_indices(matrix.n, -1)
    values = matrix.difference[row, col]
    p = np.full(len(row), 0.0) if matrix.p is None else matrix.p[row, col]
    numbers = step >= _NUMBERS
    small = 0.7 if numbers else _SMALL
    side = np.where(p < ALPHA, 0.94 if step > 0.1 else 1.0, small) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    squares = np.stack([col, row], axis=1)[:, None, :] + corners[None] * side[:, None, None]
    known = np.isfinite(values)
    colours = mpl.colormaps[_COLOURS](0.5 + 0.5 * values / matrix.top)
    if numbers:  # a pale tile under a number that is not significant, so that the significant ones stand out
        pale = known & ~(p < ALPHA)
        colours[pale, :3] = 0.45 * colours[pale, :3] + 0.55
    axes.add_collection(PolyCollection(squares[known], facecolors=colours[known], linewidths=0))
    untested = known & np.isnan(p)
    if untested.any() and not numbers:
        axes.plot(col[untested], row[untested], "x", color=plotting.SOFT, markersize=3, markeredgewidth=0.8)
    if numbers:
        for i in np.flatnonzero(known):
            strong = p[i] < ALPHA
            dark = strong and abs(values[i]) > 0.62 * matrix.top
            axes.text(
                col[i],
                row[i],
                plotting.short(values[i]),
                ha="center",
                va="center_baseline",
                fontsize=9 if step > 0.42 else 8,
                fontweight="bold" if strong else "normal",
                color="white" if dark else plotting.INK if strong else plotting.SOFT,
            )
    axes.set_xlim(-0.5, matrix.n - 0.5)
    axes.set_ylim(matrix.n - 0.5, -0.5)
    axes.axis("off")


def _draw_names(axes: Axes, result: xr.Dataset, matrix: _Matrix, step: float, size: float) -> None:
    """Names and scores on the diagonal: read along the row to its end, and up the column to its top."""
    means = column(result, "mean")[matrix.rows]
    for place in _named(matrix, step, size):
        axes.text(
            place - 0.38,
            place,
            f"{matrix.names[place]}  {plotting.short(means[place])}",
            ha="left",
            va="center",
            fontsize=size,
            color=plotting.INK,
        )
    for gap in matrix.gaps:
        axes.plot([-0.5, gap - 0.5], [gap - 0.5, gap - 0.5], color=plotting.INK, linewidth=0.8)
        axes.plot([gap - 0.5, gap - 0.5], [gap - 0.5, matrix.n - 0.5], color=plotting.INK, linewidth=0.8)


def _named(matrix: _Matrix, step: float, size: float) -> list[int]:
    """Places that have room for their names."""
    room = int(max(1, np.ceil(size * 1.2 / 72 / step)))
    return plotting.thin(matrix.n, max(2, matrix.n // room))


def _draw_scale(figure: Figure, result: xr.Dataset, matrix: _Matrix) -> None:
    """The colour bar, level below the matrix."""
    axes = axes_at(figure, 0.25, 0.42, 2.6, 0.1)
    axes.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=_COLOURS, extent=(-matrix.top, matrix.top, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([-matrix.top, 0, matrix.top])
    axes.set_xticklabels([plotting.short(-matrix.top), "0", plotting.short(matrix.top)])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(f"difference of mean {measure(result)}", fontsize=9, labelpad=1)


def caption(result: xr.Dataset) -> str:
    """Say in sentences what the matrix shows: differences, their test, its sides and correction.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    str
        Plain text.
    """
    matrix = _matrix(result)
    text = [
        first_sentence(result, f"Differences of mean {measure(result)} between models"),
        *how_sentences(result),
        "Each cell is the score of the model named at the right end of its row minus that of the model named at the "
        "top of its column; scores stand beside the names.",
    ]
    if kinds(result)[matrix.rows[0]] == "layer":
        text.append("Layers stand in the order of their depth.")
    text += undefined_sentences(result)
    if matrix.p is None:
        return " ".join([*text, "No difference was tested."])
    tested = matrix.p[np.tril_indices(matrix.n, -1)]
    count, of = int((tested < ALPHA).sum()), int(np.isfinite(tested).sum())
    said = correction_words(result, counted(of, "pair of models"))
    look = "Full cells" if _SIDE[False] / matrix.n < _NUMBERS else "Full cells with bold numbers"
    text.append(
        f"{look}: p < .05, two-sided t test of the difference, generalising to new {SCOPE[scope(result)]} ({said}); "
        f"{count} of {counted(of, 'pair')} differ."
    )
    return " ".join(text + null_sentences(result))


def alt_text(result: xr.Dataset) -> str:
    """Describe the matrix for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    str
        One or two sentences.
    """
    matrix = _matrix(result)
    at = np.unravel_index(int(np.nanargmax(matrix.difference)), matrix.difference.shape)
    words = (
        f"Matrix of the differences between {matrix.n} models of {data_words(result)}. The largest is "
        f"{plotting.short(matrix.difference[at], 3)}, {matrix.names[at[0]]} minus {matrix.names[at[1]]}."
    )
    if matrix.p is not None:
        count = int((matrix.p[np.tril_indices(matrix.n, -1)] < ALPHA).sum())
        words += f" {count} of {matrix.n * (matrix.n - 1) // 2} pairs differ significantly."
    return words
