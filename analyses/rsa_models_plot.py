"""The model chart of an RSA result: one row a model, its subjects, the noise ceiling and the tests of all pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit import plotting
from actkit.analyses.rsa_page import (
    KIND_MARKERS,
    LegendRow,
    axes_at,
    draw_head,
    draw_marks,
    head_height,
    headline,
    legend_rows,
    mark_handle,
    significance_handles,
)
from actkit.analyses.rsa_reading import ALPHA, best_first, ceiling, column, half_widths, kinds, pair_tests
from actkit.analyses.rsa_wings import ABOVE, DEEP, Wing, draw_wings, pair_sentences, wings_of
from actkit.analyses.rsa_words import (
    Marks,
    Test,
    band_sentence,
    band_words,
    ceiling_sentences,
    correction_words,
    count_words,
    counted,
    data_words,
    first_sentence,
    how_sentences,
    marks_of,
    measure,
    name_of,
    names_of,
    null_sentences,
    shortened,
    undefined_sentences,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = Literal["dots", "bars"]

MOST = 40  # rows; more are a list, not a figure
_HAIR = "#ececec"
_LOWER = 0.17  # rows by which marks stand lower on narrow pages, where names are in the row above them
_MOST_SUBJECTS = 40


@dataclass(frozen=True)
class _Rows:
    """The models that are drawn, best first, and what is drawn of each."""

    rows: np.ndarray
    colours: list[str]
    wings: list[Wing]

    @property
    def n(self) -> int:
        return len(self.rows)


def draw(
    result: xr.Dataset,
    *,
    title: str | None,
    bands: str,
    subjects: bool | None,
    style: Style,
    narrow: bool,
    test: Test,
) -> Figure:
    """Draw a row for each model, best first: mean, error bar, subjects, ceiling, and which models beat which.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result without time.
    title, bands, subjects, style, narrow, test
        As :func:`actkit.analyses.rsa_plot.plot` takes them.

    Returns
    -------
    matplotlib.figure.Figure
        About 9 by 5 inches for 13 models, or 5 by 7 if narrow.

    Raises
    ------
    InputError
        If `bands` or `test` is unknown.
    """
    drawn, half, tests = _rows(result), half_widths(result, bands), marks_of(result, test)
    single = _show_subjects(result, subjects)
    letters = 30
    names = names_of(result, drawn.rows, letters + 4 if narrow or drawn.n > 16 else 2 * letters - 8)
    if not narrow and drawn.n <= 16:
        names = [_broken(name, letters) for name in names]
    step = 0.47 if narrow else float(np.clip(4.6 / max(drawn.n, 1), 0.22, 0.4))
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    left = 0.2 if narrow else 0.35 + 0.074 * longest
    feather = float(np.clip((1.1 if narrow else 2.6) / max(len(drawn.wings), 1), 0.06 if narrow else 0.09, 0.2))
    flank = 0.3 + max(feather * len(drawn.wings), 0.7) if drawn.wings else 0.0
    values = 0.0 if narrow else 0.5
    wide = 4.65 - flank if narrow else (4.6 if drawn.wings else 5.2)
    width = left + wide + values + flank + 0.15
    key = _legend(result, drawn, tests, single, width - (0.3 if narrow else 0.5))
    head = headline(
        result,
        title or f"Similarity to {data_words(result)}, model by model",
        _notes(result, drawn, bands, single),
        width - 0.3,
    )
    bottom, top, tall = 0.58, head_height(head, key) + (0.3 if ceiling(result) or drawn.wings else 0.08), step * drawn.n
    figure = plotting.new_figure(width, bottom + tall + top)
    main = axes_at(figure, left, bottom, wide, tall)
    _axes(main, result, drawn, half, single, narrow)
    down = _LOWER if narrow else 0.0
    _draw_ceiling(main, result, drawn, step, down)
    _draw_rows(main, result, drawn, half, tests, single, style, step, down)
    _draw_names(main, result, drawn, names, left, narrow, step)
    if drawn.wings:
        wings = axes_at(figure, left + wide + values, bottom, flank, tall)
        draw_wings(wings, drawn.wings, drawn.colours, feather, step, down)
    _hairlines(figure, drawn.n, bottom, step, width)
    draw_head(figure, head, key, 0.15)
    return figure


def _rows(result: xr.Dataset) -> _Rows:
    """Order models, colour them, and find which beat which."""
    rows = best_first(result, np.arange(result.sizes["model"]))[:MOST]
    kind = kinds(result)
    networks = result["network"].values.astype(str) if "network" in result.coords else kind
    order = list(dict.fromkeys(networks[kind == "layer"].tolist()))
    fixed = {"control": plotting.SOFT, "model": plotting.INK if order else plotting.COLOURS[0]}
    colours = [
        fixed.get(kind[row]) or plotting.COLOURS[order.index(networks[row]) % len(plotting.COLOURS)] for row in rows
    ]
    return _Rows(rows, colours, wings_of(result, rows))


def _show_subjects(result: xr.Dataset, asked: bool | None) -> bool:
    """Whether single subjects are drawn: as asked, else where there are several, and few enough to be seen."""
    n = result.sizes.get("subject", 0) if "score" in result.variables else 0
    return n > 1 and (n <= _MOST_SUBJECTS if asked is None else asked)


def _broken(name: str, letters: int) -> str:
    """A name in two lines where one is too long, broken where a reader would."""
    if len(name) <= letters:
        return name
    half = (len(name) + 1) // 2
    for marks in (" ", "/", "-.:_"):
        ends = [i + 1 for i, letter in enumerate(name) if letter in marks and len(name) - letters <= i + 1 <= letters]
        if ends:
            half = max(ends)
            break
    return f"{name[:half].rstrip()}\n{name[half:].lstrip()}"


def _notes(result: xr.Dataset, drawn: _Rows, bands: str, single: bool) -> list[str]:
    """What stands below the title."""
    notes = [count_words(result), f"bars: {band_words(result, bands)}"]
    if single:
        notes.append("small dots: single subjects")
    if drawn.n < result.sizes["model"]:
        notes.append(f"the best {drawn.n} of {result.sizes['model']} models")
    p = pair_tests(result)
    if p is not None and not drawn.wings and drawn.n > 1:
        significant = bool((p[np.ix_(drawn.rows, drawn.rows)] < ALPHA).any())
        notes.append("pairs: see kind='differences'" if significant else "no two models differ significantly")
    return notes


def _below(result: xr.Dataset) -> np.ndarray:
    """Which models are significantly below the lower ceiling."""
    return column(result, "p_below_ceiling_corrected") < ALPHA


def _legend(result: xr.Dataset, drawn: _Rows, tests: Marks, single: bool, width: float) -> list[LegendRow]:
    """What the marks mean."""
    from matplotlib.lines import Line2D

    rows = drawn.rows
    marks = [
        (handle, f"above 0, {words}" if words.startswith("p") else words)
        for handle, words in significance_handles(tests.p[rows], column(result, "mean")[rows], "o")
    ]
    if ceiling(result) and _below(result)[rows].any():
        marks.append(
            (mark_handle(DEEP, "<", color=DEEP, markersize=6, markeredgewidth=0), "below the ceiling, p < .05")
        )
    if drawn.wings:
        handle = Line2D([0], [0], color=plotting.SOFT, linewidth=1, marker="o", markersize=5)
        marks.append((handle, "better than each model with a tick, p < .05, corrected"))
    shown = dict.fromkeys(kinds(result)[rows].tolist())
    if len(shown) > 1 or "control" in shown:
        for kind in shown:
            if kind == "layer":
                found = zip(rows, drawn.colours, strict=True)
                networks = {str(result["network"].values[row]): c for row, c in found if kinds(result)[row] == "layer"}
                marks += [
                    (mark_handle(c, "o", color=c), f"layers of {shortened(name, 24)}") for name, c in networks.items()
                ]
            else:
                colour = next(c for row, c in zip(rows, drawn.colours, strict=True) if kinds(result)[row] == kind)
                marks.append((mark_handle(colour, KIND_MARKERS.get(kind, "s"), color=colour), kind))
    return legend_rows(marks, width)


def _axes(axes: Axes, result: xr.Dataset, drawn: _Rows, half: np.ndarray, single: bool, narrow: bool) -> None:
    """Scales and labels."""
    means = column(result, "mean")[drawn.rows]
    down, up = np.nan_to_num(half[:, drawn.rows])
    ends = [means - down, means + up, [0.0], ceiling(result) or []]
    if single:
        ends.append(result["score"].transpose("model", "subject").values[drawn.rows].ravel())
    values = np.concatenate(ends)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = (high - low) or 1.0
    axes.set_xlim(low - 0.03 * room if low < 0 else 0.0, high + 0.03 * room)
    axes.set_ylim(drawn.n - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=plotting.SOFT, linewidth=0.8, zorder=1, clip_on=False)
    axes.set_xlabel(f"RDM similarity to subjects (mean {measure(result)})")
    axes.locator_params(axis="x", nbins=5 if narrow else 7)


def _draw_ceiling(axes: Axes, result: xr.Dataset, drawn: _Rows, step: float, down: float) -> None:
    """The band between the ceilings, its limits above it, and an icicle at each model that is below."""
    found = ceiling(result)
    if found is None:
        return
    axes.axvspan(*found, color=plotting.BAND, linewidth=0, zorder=0)
    low, high = axes.get_xlim()
    middle = float((np.mean(found) - low) / (high - low))
    axes.text(
        min(max(middle, 0.2), 0.83),
        1 + ABOVE / (step * drawn.n),
        f"noise ceiling  {plotting.short(found[0])}–{plotting.short(found[1])}",
        transform=axes.transAxes,
        ha="center",
        va="bottom",
        fontsize=9,
        color=DEEP,
    )
    places = np.flatnonzero(_below(result)[drawn.rows])
    length = 0.09 / (axes.get_window_extent().width / axes.figure.dpi) * (high - low)
    tall = min(0.05 / step, 0.2)
    for place in places:
        corners = [found[0], found[0], found[0] - length], [place + down - tall, place + down + tall, place + down]
        axes.fill(*corners, color=DEEP, linewidth=0, zorder=2, clip_on=False)


def _draw_rows(
    axes: Axes,
    result: xr.Dataset,
    drawn: _Rows,
    half: np.ndarray,
    tests: Marks,
    single: bool,
    style: Style,
    step: float,
    down: float,
) -> None:
    """Means with error bars over the subjects' dots; on bars from zero if asked."""
    means, kind = column(result, "mean"), kinds(result)
    if single:
        scores = result["score"].transpose("model", "subject").values
        # Each subject keeps its height within the rows, so that a reader can follow one down the page.
        offsets = np.linspace(-0.2, 0.2, scores.shape[1]) * (1 - down)
    size = 7 if step > 0.25 else 5.5
    for place, (row, colour) in enumerate(zip(drawn.rows, drawn.colours, strict=True)):
        if np.isnan(means[row]):
            continue
        if style == "bars":
            axes.barh(place + down, means[row], height=0.62 - down, color=colour, alpha=0.28, linewidth=0, zorder=1)
        if single:
            axes.plot(
                scores[row],
                place + down + offsets,
                "o",
                color=colour,
                markersize=3.2,
                markeredgewidth=0,
                alpha=0.4,
                zorder=2,
            )
        axes.errorbar(means[row], place + down, xerr=half[:, [row]], color=colour, linewidth=2, zorder=3)
        shape = KIND_MARKERS["control"] if kind[row] == "control" else "o"
        y = np.array([place + down])
        draw_marks(axes, means[[row]], y, tests.p[[row]], colour, shape, size, tests.tested)


def _draw_names(
    axes: Axes, result: xr.Dataset, drawn: _Rows, names: list[str], left: float, narrow: bool, step: float
) -> None:
    """Names at the left and means at the right; on narrow pages both in the row, above the dots."""
    means = column(result, "mean")
    to_axes = axes.get_yaxis_transform()
    wide = axes.get_window_extent().width / axes.figure.dpi
    for place, (row, name) in enumerate(zip(drawn.rows, names, strict=True)):
        missing = bool(np.isnan(means[row]))
        colour = plotting.SOFT if missing else plotting.INK
        value = "no score" if missing else plotting.short(means[row])
        settings: dict[str, Any] = {"transform": to_axes, "color": colour, "linespacing": 1.0}
        if narrow:
            high = place - 0.5 + 0.1 / step
            settings["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
            axes.text(0, high, f"{name}  {value}", ha="left", va="center", fontsize=9, **settings)
            continue
        small = 9.5 if step >= 0.26 and "\n" not in name else 8.8
        axes.text(-0.12 / wide, place, name, ha="right", va="center", fontsize=small, **settings)
        if missing:
            axes.text(0.02, place, value, ha="left", va="center", fontsize=9, style="italic", **settings)
        else:
            axes.text(1 + 0.12 / wide, place, value, ha="left", va="center", fontsize=9.5, **settings)


def _hairlines(figure: Figure, n: int, bottom: float, step: float, width: float) -> None:
    """Thin lines between rows across the page, so that the eye keeps its row."""
    from matplotlib.lines import Line2D

    high = figure.get_size_inches()[1]
    for number in range(n + 1):
        y = (bottom + number * step) / high
        figure.add_artist(Line2D([0.15 / width, 1 - 0.15 / width], [y, y], color=_HAIR, linewidth=0.7, zorder=-1))


def caption(result: xr.Dataset, bands: str, test: Test, style: Style) -> str:
    """Say in sentences what the model chart shows: measure, bars, tests, their sides and corrections, ceiling.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    bands, test, style : str
        As given to the figure.

    Returns
    -------
    str
        Plain text.
    """
    drawn, tests = _rows(result), marks_of(result, test)
    n = result.sizes["model"]
    text = [first_sentence(result), *how_sentences(result), "Models stand in the order of their mean."]
    if drawn.n < n:
        text.append(f"Shown are the best {drawn.n} of {n}.")
    text.append(band_sentence(result, bands, "Error bars" if style == "bars" else "Bars"))
    if _show_subjects(result, None):
        text.append("Small dots are single subjects, each at the same height in every row.")
    if tests.tested:
        text.append(f"Filled marks: above 0 with p < .05, hollow: not; {tests.words}.")
    else:
        text.append("No significance against 0 was tested.")
    text += undefined_sentences(result) + ceiling_sentences(result)
    p_below = column(result, "p_below_ceiling_corrected")
    if ceiling(result) and np.isfinite(p_below).any():
        count = int((p_below < ALPHA).sum())
        said = correction_words(result, counted(int(np.isfinite(p_below).sum()), "model"))
        text.append(
            f"Triangles at the lower ceiling: the model is below it with p < .05 (one-sided t test, {said}); "
            f"{count} of {int(np.isfinite(p_below).sum())} are."
        )
    text += pair_sentences(result, bool(drawn.wings)) + null_sentences(result)
    return " ".join(text)


def alt_text(result: xr.Dataset) -> str:
    """Describe the model chart for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    str
        One or two sentences.
    """
    means = column(result, "mean")
    rows = [row for row in _rows(result).rows if np.isfinite(means[row])]
    found = ceiling(result)
    band = f" The noise ceiling runs from {plotting.short(found[0])} to {plotting.short(found[1])}." if found else ""
    scores = ", ".join(f"{name_of(result, row)}  {plotting.short(means[row], 3)}" for row in rows)
    return f"Dot chart of RDM similarity to {data_words(result)}, best first: {scores}.{band}"
