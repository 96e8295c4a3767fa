"""Which models beat which: wings beside the rows of a chart, and the sentence that tells of their test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actkit.analyses.rsa_reading import ALPHA, column, pair_tests, scope
from actkit.analyses.rsa_words import SCOPE, correction_words, counted

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

Wing = tuple[int, list[int]]

DEEP = "#4f4f4f"  # of words and marks on the grey of the ceiling band
ABOVE = 0.06  # inches between the rows and the words over them
_MOST = 30  # columns that can be told apart


def wings_of(result: xr.Dataset, rows: np.ndarray) -> list[Wing]:
    """Find which models beat which.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    rows : numpy.ndarray of int
        Places along model, best first.

    Returns
    -------
    list of tuple
        For each model that is significantly better than others: its place among `rows`, and theirs. Empty where
        pairs were not tested or are too many to be seen.
    """
    p, means = pair_tests(result), column(result, "mean")
    if p is None or len(rows) > _MOST:
        return []
    wings: list[Wing] = []
    for place, row in enumerate(rows):
        beaten = [q for q in range(place + 1, len(rows)) if p[row, rows[q]] < ALPHA and means[row] > means[rows[q]]]
        if beaten:
            wings.append((place, beaten))
    return wings


def draw_wings(
    axes: Axes, wings: Sequence[Wing], colours: Sequence[str], feather: float, step: float, down: float
) -> None:
    """Draw a column for each better model: a dot in its own row, a tick in the row of each that it beats.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Axes beside the rows, as high as they are.
    wings : sequence of tuple
        From :func:`wings_of`.
    colours : sequence of str
        Of the rows.
    feather, step : float
        Inches between columns and between rows.
    down : float
        How far below the middle of its row a mark stands, in rows.
    """
    from matplotlib.transforms import blended_transform_factory

    n = len(colours)
    axes.set_xlim(0, axes.get_window_extent().width / axes.figure.dpi)
    axes.set_ylim(n - 0.5, -0.5)
    axes.axis("off")
    tick = min(0.045, 0.32 * feather)
    for number, (place, beaten) in enumerate(wings):
        x, colour = 0.2 + feather * (number + 0.5), colours[place]
        ends = [place + down, beaten[-1] + down]
        axes.plot([x, x], ends, color=colour, linewidth=0.8, alpha=0.55, zorder=2, solid_capstyle="butt")
        for other in beaten:
            y = [other + down] * 2
            axes.plot([x - tick, x + tick], y, color=colour, linewidth=2, zorder=3, solid_capstyle="butt")
        axes.plot(x, place + down, "o", color=colour, markersize=min(5.0, 40 * feather), markeredgewidth=0, zorder=4)
    axes.text(
        0.2 + max(feather * len(wings), 0.7) / 2,
        1 + ABOVE / (step * n),
        "better than",
        transform=blended_transform_factory(axes.transData, axes.transAxes),
        ha="center",
        va="bottom",
        fontsize=9,
        color=DEEP,
    )


def pair_sentences(result: xr.Dataset, winged: bool) -> list[str]:
    """Say in a caption how pairs of models were tested and how many differ.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    winged : bool
        Whether wings are drawn.

    Returns
    -------
    list of str
        None or one sentence.
    """
    p = pair_tests(result)
    if p is None:
        return []
    upper = p[np.triu_indices(len(p), 1)]
    n = int(np.isfinite(upper).sum())
    said = correction_words(result, counted(n, "pair of models"))
    what = (
        "A dot marks the better model, ticks below it those that it beats with p < .05" if winged else "Pairs of models"
    )
    return [
        f"{what}: two-sided t test of the difference, generalising to new {SCOPE[scope(result)]} ({said}); "
        f"{int((upper < ALPHA).sum())} of {counted(n, 'pair')} differ."
    ]
