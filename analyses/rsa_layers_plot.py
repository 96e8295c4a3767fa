"""The layer curve of an RSA result: networks along their depth, reference models beside them, their caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.rsa_page import (
    KIND_MARKERS,
    LegendRow,
    axes_at,
    draw_ceiling,
    draw_head,
    draw_marks,
    head_height,
    headline,
    legend_rows,
    mark_handle,
    significance_handles,
)
from actkit.analyses.rsa_reading import best_first, ceiling, column, half_widths, kinds
from actkit.analyses.rsa_words import (
    Marks,
    Test,
    band_sentence,
    band_words,
    ceiling_sentences,
    count_words,
    data_words,
    first_sentence,
    how_sentences,
    marks_of,
    measure,
    name_of,
    shortened,
    undefined_sentences,
)
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TALL = 3.35  # inches, height of the axes


@dataclass(frozen=True)
class _Curve:
    """The layers of one network, in depth order."""

    network: str
    rows: np.ndarray
    layers: list[str]
    x: np.ndarray
    colour: str
    marker: str


def _curves(result: xr.Dataset) -> tuple[list[_Curve], bool]:
    """Sort layers into networks; True when all networks have the same layers, so that names can label the axis."""
    layer_rows = np.flatnonzero(kinds(result) == "layer")
    if not len(layer_rows):
        return [], False
    networks = (
        result["network"].values.astype(str)
        if "network" in result.coords
        else np.full(result.sizes["model"], "network")
    )
    names = result["layer" if "layer" in result.coords else "model"].values.astype(str)
    position = column(result, "position")
    found = []
    for network in dict.fromkeys(networks[layer_rows]):
        rows = layer_rows[networks[layer_rows] == network]
        if np.isfinite(position[rows]).all():
            rows = rows[np.argsort(position[rows], kind="stable")]
        found.append((network, rows, [names[row] for row in rows]))
    same = all(layers == found[0][2] for _, _, layers in found)
    curves = []
    for number, (network, rows, layers) in enumerate(found):
        n = len(rows)
        x = np.arange(n, dtype=float) if same else (np.linspace(0, 1, n) if n > 1 else np.array([0.5]))
        colour = plotting.COLOURS[number % len(plotting.COLOURS)]
        marker = plotting.MARKERS[number % len(plotting.MARKERS)]
        curves.append(_Curve(network, rows, layers, x, colour, marker))
    return curves, same


def _peak(result: xr.Dataset, rows: np.ndarray) -> int | None:
    """The row with the highest mean, or None if none is a number."""
    values = column(result, "mean")[rows]
    return None if np.isnan(values).all() else int(rows[int(np.nanargmax(values))])


def draw(
    result: xr.Dataset,
    *,
    title: str | None,
    bands: str,
    subjects: bool | None,
    references: bool,
    narrow: bool,
    test: Test,
) -> Figure:
    """Draw layers along the depth of their networks, and reference models beside or below them.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result without time.
    title, bands, subjects, references, narrow, test
        As :func:`actkit.analyses.rsa_plot.plot` takes them.

    Returns
    -------
    matplotlib.figure.Figure
        About 11 by 5 inches, or 5 by 9 if narrow.

    Raises
    ------
    InputError
        If the result has no layers.
    """
    curves, same = _curves(result)
    if not curves:
        raise InputError("the result has no layers (kind 'layer'), so there is no layer curve; use kind='models'")
    others = _references(result) if references else np.array([], dtype=int)
    half, tests = half_widths(result, bands), marks_of(result, test)
    stacked = narrow and len(others) > 0
    wide = 3.95 if narrow else 5.0
    key = _legend(result, curves, others, tests, 4.8 if narrow else (8.0 if len(others) else 5.3))
    notes = [count_words(result), f"bands: {band_words(result, bands)}"]
    if _show_subjects(result, curves, subjects):
        notes.append("thin lines: single subjects")
    words = title or f"Similarity to {data_words(result)}, layer by layer"
    head = headline(result, words, notes, 4.7 if narrow else 10.0 if len(others) else 6.0)
    names_wide = max([len(text) for text, *_ in _side_labels(result, curves, others)], default=0) * 0.07 + 0.25
    dots = max(0.3 + 0.17 * len(others), 0.8) if len(others) else 0.0
    below = plotting.label_depth(curves[0].layers, wide) if same else 0.2
    left, gap, edge, bottom, top = 0.9, 0.2 if len(others) else 0.0, 0.15, below + 0.35, head_height(head, key)
    if stacked:
        dots = min(dots, max(3.95 - names_wide, 0.1 * len(others)))
        width = left + max(wide, dots + names_wide) + edge
    else:
        width = max(left + wide + gap + dots + (names_wide if len(others) else 0) + edge, 5.0 if narrow else 6.2)
    under = _TALL + 0.55 if stacked else 0.0  # what the second panel takes, with its label
    figure = plotting.new_figure(width, under + bottom + top + _TALL)
    limits = _limits(result, curves, others, half)
    main = axes_at(figure, left, under + bottom, wide, _TALL)
    panels = [main]
    if len(others):
        x, y = (left, 0.4) if stacked else (left + wide + gap, bottom)
        panels.append(axes_at(figure, x, y, dots, _TALL))
    for axes in panels:
        axes.set_ylim(*limits)
        draw_ceiling(axes, result, label=axes is main)
        if limits[0] < 0:
            axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    _draw_curves(main, result, curves, same, half, wide, subjects, tests)
    if len(others):
        _draw_references(panels[1], result, curves, others, half, limits, dots, stacked, tests)
    for axes in panels if stacked else panels[:1]:
        axes.set_ylabel(f"RDM similarity to subjects\n(mean {measure(result)})", linespacing=1.35)
    draw_head(figure, head, key, 0.15 if narrow else left)
    return figure


def _references(result: xr.Dataset) -> np.ndarray:
    """Rows of models and controls, best first."""
    return best_first(result, np.flatnonzero(kinds(result) != "layer"))


def _limits(result: xr.Dataset, curves: list[_Curve], others: np.ndarray, half: np.ndarray) -> tuple[float, float]:
    """A y range that holds bands and ceiling, and zero."""
    rows = np.concatenate([*(curve.rows for curve in curves), others]).astype(int)
    means, (down, up) = column(result, "mean")[rows], np.nan_to_num(half[:, rows])
    ends = np.concatenate([means - down, means + up, [0.0], ceiling(result) or []])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    room = (high - low) or 1.0
    return (low - 0.05 * room if low < 0 else 0.0), high + 0.075 * room


def _draw_curves(
    axes: Axes,
    result: xr.Dataset,
    curves: list[_Curve],
    same: bool,
    half: np.ndarray,
    width: float,
    subjects: bool | None,
    tests: Marks,
) -> None:
    """One line per network with its band and marks."""
    means, p_values, tested = column(result, "mean"), tests.p, tests.tested
    subjects = _show_subjects(result, curves, subjects)
    many = sum(len(curve.rows) for curve in curves) > 120
    for curve in curves:
        y, (down, up) = means[curve.rows], half[:, curve.rows]
        if subjects:
            scores = result["score"].transpose("model", "subject").values[curve.rows]
            axes.plot(curve.x, scores, color=curve.colour, linewidth=0.8, alpha=0.35, zorder=2)
        axes.fill_between(curve.x, y - down, y + up, color=curve.colour, alpha=0.2, linewidth=0, zorder=2)
        axes.plot(curve.x, y, color=curve.colour, zorder=3)
        if len(curve.x) == 1:
            axes.errorbar(curve.x, y, yerr=half[:, curve.rows], color=curve.colour, zorder=3)
        draw_marks(axes, curve.x, y, p_values[curve.rows], curve.colour, curve.marker, 3.5 if many else 5.5, tested)
        peak = _peak(result, curve.rows)
        if peak is not None:
            at = int(np.flatnonzero(curve.rows == peak)[0])
            axes.plot(
                curve.x[at],
                means[peak],
                "o",
                markersize=13,
                markerfacecolor="none",
                markeredgecolor=curve.colour,
                markeredgewidth=1.3,
                zorder=5,
            )
    n = max(len(curve.x) for curve in curves)
    if same:
        axes.set_xlim(-0.6, n - 0.4)
        peaks = [int(np.flatnonzero(c.rows == p)[0]) for c in curves if (p := _peak(result, c.rows)) is not None]
        front = plotting.label_layers(axes, curves[0].x.tolist(), curves[0].layers, width, keep=peaks)
        axes.set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")
    else:
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xticklabels(["first layer", "¼", "½", "¾", "last layer"])
        axes.set_xlabel("Depth in the network")


def _show_subjects(result: xr.Dataset, curves: list[_Curve], asked: bool | None) -> bool:
    """Whether single subjects are drawn: as asked, else where few enough can be told apart."""
    if "score" not in result.variables:
        return False
    return (len(curves) == 1 and 1 < result.sizes.get("subject", 0) <= 6) if asked is None else asked


def _best(result: xr.Dataset, curves: list[_Curve]) -> tuple[float, str] | None:
    """Score and colour of the best layer of all networks."""
    means = column(result, "mean")
    peaks = [(float(means[peak]), curve.colour) for curve in curves if (peak := _peak(result, curve.rows)) is not None]
    return max(peaks, key=lambda peak: peak[0], default=None)


def _side_labels(
    result: xr.Dataset, curves: list[_Curve], others: np.ndarray
) -> list[tuple[str, float, str, float | None, bool]]:
    """The names beside the dots: text, score, colour, number of its dot (None: the line of the best layer), bold."""
    means, kind = column(result, "mean"), kinds(result)
    best = _best(result, curves)
    labels: list[tuple[str, float, str, float | None, bool]] = []
    for number, row in enumerate(others):
        if np.isfinite(means[row]):
            colour = plotting.SOFT if kind[row] == "control" else plotting.INK
            bold = best is not None and means[row] > best[0]
            labels.append((_reference_text(result, row), float(means[row]), colour, float(number), bold))
    if best is not None and labels:
        labels.append((f"best layer  {plotting.short(best[0], 3)}", best[0], best[1], None, True))
    return labels


def _reference_text(result: xr.Dataset, row: int) -> str:
    """Name and score of one reference model."""
    return f"{name_of(result, row)}  {plotting.short(column(result, 'mean')[row], 3)}"


def _draw_references(
    axes: Axes,
    result: xr.Dataset,
    curves: list[_Curve],
    others: np.ndarray,
    half: np.ndarray,
    limits: tuple[float, float],
    width: float,
    alone: bool,
    tests: Marks,
) -> None:
    """Models and controls as dots, best at the left, each led to its name at the right; the best layer as a line."""
    means, p_values, tested = column(result, "mean"), tests.p, tests.tested
    kind = kinds(result)
    right = len(others) - 0.3
    axes.set_xlim(-0.7, right)
    best = _best(result, curves)
    if best is not None:
        axes.axhline(best[0], color=best[1], linewidth=1.3, linestyle=(0, (4, 2)), zorder=2)
    for number, row in enumerate(others):
        if np.isnan(means[row]):
            continue
        colour = plotting.SOFT if kind[row] == "control" else plotting.INK
        axes.errorbar(number, means[row], yerr=half[:, [row]], color=colour, linewidth=1.3, zorder=3)
        marker = KIND_MARKERS.get(kind[row], "s")
        draw_marks(axes, np.array([number]), means[[row]], p_values[[row]], colour, marker, 5.5, tested)
    labels = _side_labels(result, curves, others)
    gap = (limits[1] - limits[0]) * 0.17 / _TALL
    places = plotting.spread([label[1] for label in labels], gap, limits[0] + gap / 2, limits[1] - gap / 2)
    # Beyond the axes, x is measured in inches, so that names stand at the same place for any number of dots.
    inch = (right + 0.7) / width
    for (text, score, colour, dot, bold), place in zip(labels, places, strict=True):
        line = [right if dot is None else dot, right, right + 0.14 * inch]
        axes.plot(
            line,
            [score, score, place],
            color=plotting.FAINT if dot is not None else colour,
            linewidth=0.7,
            zorder=1,
            clip_on=False,
        )
        axes.text(
            right + 0.18 * inch,
            place,
            text,
            va="center_baseline",
            ha="left",
            fontsize=9.5,
            color=colour,
            fontweight="bold" if bold else "normal",
        )
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(alone)
    axes.tick_params(left=alone, labelleft=alone)
    axes.set_xlabel("Reference models", loc="left")


def _legend(
    result: xr.Dataset, curves: list[_Curve], others: np.ndarray, tests: Marks, width: float
) -> list[LegendRow]:
    """Rows of the legend: networks with their peaks, then what the marks mean."""
    from matplotlib.lines import Line2D

    means = column(result, "mean")
    networks: list[tuple[Any, str]] = []
    for curve in curves:
        handle = Line2D([], [], color=curve.colour, marker=curve.marker, markersize=5.5)
        peak = _peak(result, curve.rows)
        named = ""
        if peak is not None:
            layer = curve.layers[int(np.flatnonzero(curve.rows == peak)[0])]
            named = f"  (peak {plotting.short(means[peak], 3)} at {shortened(layer, 24)})"
        networks.append((handle, shortened(curve.network, 32) + named))
    rows = np.concatenate([*(curve.rows for curve in curves), others]).astype(int)
    marks = significance_handles(tests.p[rows], means[rows], "o")
    marks.append((mark_handle("none", "o", markersize=11, markeredgewidth=1.2), "highest layer (descriptive)"))
    shown = set(kinds(result)[others].tolist())
    for kind in ("model", "control"):
        if kind in shown:
            colour = plotting.INK if kind == "model" else plotting.SOFT
            marks.append((mark_handle(colour, KIND_MARKERS[kind], color=colour), kind))
    return legend_rows(networks, width) + legend_rows(marks, width)


def caption(result: xr.Dataset, bands: str, test: Test) -> str:
    """Say in sentences what the layer curve shows: measure, bands, test, ceiling, peak, better references.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    bands, test : str
        As given to the figure.

    Returns
    -------
    str
        Plain text, about six sentences.
    """
    curves, _ = _curves(result)
    others = _references(result)
    means, tests = column(result, "mean"), marks_of(result, test)
    text = [first_sentence(result), *how_sentences(result), band_sentence(result, bands, "Bands and bars")]
    text.append(
        f"Filled marks: p < .05, hollow: not; {tests.words}." if tests.tested else "No significance was tested."
    )
    text += undefined_sentences(result) + ceiling_sentences(result)
    peaks = []
    for curve in curves:
        peak = _peak(result, curve.rows)
        if peak is not None:
            layer = curve.layers[int(np.flatnonzero(curve.rows == peak)[0])]
            peaks.append(f"{layer} of {curve.network} ({plotting.short(means[peak], 3)})")
    if peaks:
        text.append(
            f"Ringed: the highest layer, {'; '.join(peaks)}; this is descriptive, since the layer was chosen on the "
            "same data."
        )
    best = _best(result, curves)
    if best is not None and len(others):
        above = [row for row in others if means[row] > best[0]]
        if above:
            named = ", ".join(f"{result['model'].values[row]!s} ({plotting.short(means[row], 3)})" for row in above)
            text.append(
                f"{len(above)} of {len(others)} reference models "
                f"score{'s' if len(above) == 1 else ''} above every layer: {named}."
            )
        else:
            text.append(f"None of the {len(others)} reference models scores above the best layer.")
    return " ".join(text)


def alt_text(result: xr.Dataset) -> str:
    """Describe the layer curve for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    str
        One or two sentences.
    """
    curves, _ = _curves(result)
    means = column(result, "mean")
    parts = []
    for curve in curves:
        peak = _peak(result, curve.rows)
        if peak is None:
            continue
        values = means[curve.rows][np.isfinite(means[curve.rows])]
        layer = curve.layers[int(np.flatnonzero(curve.rows == peak)[0])]
        parts.append(
            f"{curve.network} goes from {plotting.short(values[0])} in the first layer to a maximum of "
            f"{plotting.short(means[peak])} at {layer} and ends at {plotting.short(values[-1])}"
        )
    others = _references(result)
    others = others[np.isfinite(means[others])]
    if len(others):
        parts.append("reference models: " + ", ".join(_reference_text(result, row) for row in others))
    return f"Line chart of RDM similarity to {data_words(result)}. {'; '.join(parts)}."
