"""Figures of representational similarity analysis: layer curves, reference models, noise ceiling, and their caption."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit import plotting
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALPHA = 0.05

# What the error bands stand for, by what the result generalises to.
_SCOPE = {"subject": "subjects", "stimulus": "stimuli", "both": "subjects and stimuli"}
_TALL = 3.35  # inches, height of the axes
_KIND_MARKERS = {"model": "s", "control": "D"}


@dataclass(frozen=True)
class _Curve:
    """The layers of one network, in depth order."""

    network: str
    rows: np.ndarray
    layers: list[str]
    x: np.ndarray
    colour: str
    marker: str


def _attribute(result: xr.Dataset, *names: str, default: Any = None) -> Any:
    """Look a fact up in the attributes, then in the options that the result carries."""
    options = json.loads(result.attrs.get("options", "{}"))
    for name in names:
        for where in (result.attrs, options):
            if where.get(name) is not None and str(where[name]) != "":
                return where[name]
    return default


def _simulated(result: xr.Dataset) -> bool:
    """Whether the data are simulated."""
    return str(result.attrs.get("simulated", 0)).lower() in ("1", "true", "yes")


def _scope(result: xr.Dataset) -> str:
    """What the errors generalise to: subject, stimulus or both."""
    scope = str(_attribute(result, "generalise_to", default="subject"))
    return scope if scope in _SCOPE else "subject"


def _check(result: xr.Dataset) -> None:
    """Refuse what is not an RSA result."""
    missing = [name for name in ("mean", "kind") if name not in result.variables]
    if missing or "model" not in result.dims:
        raise InputError(
            f"this is not an RSA result: it lacks {', '.join(missing) or 'the dim model'}; give what actkit.rsa() "
            "returned"
        )


def _column(result: xr.Dataset, name: str) -> np.ndarray:
    """A variable along model as floats, NaN where the result has none."""
    if name not in result.variables:
        return np.full(result.sizes["model"], np.nan)
    return np.asarray(result[name].values, dtype=float)


def _errors(result: xr.Dataset) -> np.ndarray:
    """The standard errors that the result's generalisation calls for."""
    if "error" in result.variables:
        return _column(result, "error")
    return _column(result, "sem_subject" if _scope(result) == "subject" else "sem_stimulus")


def _curves(result: xr.Dataset) -> tuple[list[_Curve], bool]:
    """Sort layers into networks; True when all networks have the same layers, so that names can label the axis."""
    kinds = result["kind"].values.astype(str)
    layer_rows = np.flatnonzero(kinds == "layer")
    if not len(layer_rows):
        return [], False
    networks = result["network"].values.astype(str) if "network" in result.coords else np.full(len(kinds), "network")
    names = result["layer" if "layer" in result.coords else "model"].values.astype(str)
    position = _column(result, "position")
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
    values = _column(result, "mean")[rows]
    return None if np.isnan(values).all() else int(rows[int(np.nanargmax(values))])


def _references(result: xr.Dataset) -> np.ndarray:
    """Rows of models and controls, best first."""
    rows = np.flatnonzero(result["kind"].values.astype(str) != "layer")
    means = np.nan_to_num(_column(result, "mean")[rows], nan=-np.inf)
    return rows[np.argsort(-means, kind="stable")]


def _ceiling(result: xr.Dataset) -> tuple[float, float] | None:
    """Lower and upper noise ceiling, if the result has them."""
    if "ceiling_lower" not in result.variables or "ceiling_upper" not in result.variables:
        return None
    low, high = float(result["ceiling_lower"]), float(result["ceiling_upper"])
    return (low, high) if np.isfinite([low, high]).all() else None


def plot(
    result: xr.Dataset,
    *,
    title: str | None = None,
    bands: Literal["error", "interval"] = "error",
    subjects: bool | None = None,
    references: bool = True,
    narrow: bool = False,
    **_unused: Any,
) -> Figure:
    """Draw how well each layer and each reference model explains the data.

    Layers run along the depth of their network, one line per network, with a band of one standard error (or the
    confidence interval). Filled marks are significant, hollow ones are not. Models and controls stand at the right, on
    the same axis, best first. The noise ceiling is the grey band behind everything.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.rsa`` returned.
    title : str, optional
        Headline; the name of the data by default. "(simulated)" is added whenever the data are.
    bands : {"error", "interval"}
        One standard error, or the confidence interval.
    subjects : bool, optional
        Draw each subject's curve thinly; by default where there is one network and at most six subjects.
    references : bool
        Draw models and controls.
    narrow : bool
        Put models and controls below the curves instead of beside them: for phones and single columns.

    Returns
    -------
    matplotlib.figure.Figure
        About 11 by 5 inches, or 5 by 9 if narrow.

    Raises
    ------
    InputError
        If `result` is not an RSA result.
    """
    _check(result)
    curves, same = _curves(result)
    others = _references(result) if references or not curves else np.array([], dtype=int)
    with plotting.style():
        return _draw(result, curves, same, others, title=title, bands=bands, subjects=subjects, narrow=narrow)


def plot_narrow(result: xr.Dataset, **options: Any) -> Figure:
    """Draw the figure for a phone or a single column; see :func:`plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.rsa`` returned.
    **options
        Those of :func:`plot`.

    Returns
    -------
    matplotlib.figure.Figure
        About 5 inches wide.
    """
    return plot(result, **{**options, "narrow": True})


def _draw(
    result: xr.Dataset,
    curves: list[_Curve],
    same: bool,
    others: np.ndarray,
    *,
    title: str | None,
    bands: str,
    subjects: bool | None,
    narrow: bool,
) -> Figure:
    """Lay the figure out in inches and fill it."""
    half = _half_widths(result, bands)
    stacked = narrow and bool(curves) and len(others) > 0
    key = _legend(result, curves, others, 66 if narrow else (105 if len(others) and curves else 70))
    thinly = ["thin lines: single subjects"] if curves and _show_subjects(result, curves, subjects) else []
    head = _headline(result, title, bands, thinly, 5.0 if narrow else 10.0)
    names_wide = max([len(text) for text, *_ in _side_labels(result, curves, others)], default=0) * 0.07 + 0.25
    wide = (3.95 if narrow else 5.0) if curves else 0.0
    dots = max(0.3 + 0.17 * len(others), 0.8) if len(others) else 0.0
    below = plotting.label_depth(curves[0].layers, wide) if curves and same else 0.2
    left, gap, edge, bottom = 0.9, 0.2 if curves and len(others) else 0.0, 0.15, below + 0.35
    top = 0.15 + 0.235 * len(key) + sum(step for *_, step in head)
    if not curves:
        dots = max(dots, (5.0 if narrow else 6.2) - left - names_wide - edge)
    if stacked:
        dots = min(dots, max(3.95 - names_wide, 0.1 * len(others)))
        width = left + max(wide, dots + names_wide) + edge
    else:
        least = 5.0 if narrow else 6.2
        width = max(left + wide + gap + dots + (names_wide if len(others) else 0) + edge, least)
    under = _TALL + 0.55 if stacked else 0.0  # what the second panel takes, with its label
    height = under + bottom + top + _TALL
    figure = plotting.new_figure(width, height)
    limits = _limits(result, curves, others, half)
    panels = []
    if curves:
        main = figure.add_axes((left / width, (under + bottom) / height, wide / width, _TALL / height))
        panels.append(main)
    if len(others):
        x, y = (left, 0.4) if stacked else (left + wide + gap, bottom)
        side = figure.add_axes((x / width, y / height, dots / width, _TALL / height))
        panels.append(side)
    for axes in panels:
        axes.set_ylim(*limits)
        _draw_ceiling(axes, result, label=axes is panels[0])
        if limits[0] < 0:
            axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    if curves:
        _draw_curves(main, result, curves, same, half, wide, subjects)
    if len(others):
        _draw_references(side, result, curves, others, half, limits, dots, alone=stacked or not curves)
    for axes in panels if stacked else panels[:1]:
        axes.set_ylabel(
            f"RDM similarity to subjects\n(mean {plotting.measure_words(_measure(result))})", linespacing=1.35
        )
    x = 0.15 if narrow else left
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
        y += 0.235
    return figure


def _measure(result: xr.Dataset) -> str:
    """Name of the comparison measure."""
    return str(_attribute(result, "compare", default="similarity"))


def _half_widths(result: xr.Dataset, bands: str) -> np.ndarray:
    """Distances from the mean down and up to the ends of the band, ``(2, model)``."""
    means = _column(result, "mean")
    if bands == "interval":
        low, high = _column(result, "interval_low"), _column(result, "interval_high")
        return np.stack([np.clip(means - low, 0, None), np.clip(high - means, 0, None)])
    if bands != "error":
        raise InputError(f"bands is {bands!r}; choose 'error' (one standard error) or 'interval'")
    return np.stack([_errors(result)] * 2)


def _limits(result: xr.Dataset, curves: list[_Curve], others: np.ndarray, half: np.ndarray) -> tuple[float, float]:
    """A y range that holds bands and ceiling, and zero."""
    rows = np.concatenate([*(curve.rows for curve in curves), others]).astype(int)
    means, (down, up) = _column(result, "mean")[rows], np.nan_to_num(half[:, rows])
    ends = np.concatenate([means - down, means + up, [0.0], _ceiling(result) or []])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    room = (high - low) or 1.0
    return (low - 0.05 * room if low < 0 else 0.0), high + 0.075 * room


def _draw_ceiling(axes: Axes, result: xr.Dataset, label: bool) -> None:
    """The grey band from the lower to the upper noise ceiling."""
    ceiling = _ceiling(result)
    if ceiling is None:
        return
    axes.axhspan(*ceiling, color=plotting.BAND, linewidth=0, zorder=0)
    if label:
        axes.text(
            0.012,
            ceiling[1],
            f"noise ceiling  {plotting.short(ceiling[0])}–{plotting.short(ceiling[1])}",
            transform=axes.get_yaxis_transform(),
            va="bottom",
            ha="left",
            fontsize=9,
            color="#4f4f4f",
        )


def _draw_curves(
    axes: Axes,
    result: xr.Dataset,
    curves: list[_Curve],
    same: bool,
    half: np.ndarray,
    width: float,
    subjects: bool | None,
) -> None:
    """One line per network with its band and marks."""
    means, p_values = _column(result, "mean"), _column(result, "p_value")
    subjects = _show_subjects(result, curves, subjects)
    tested = bool(np.isfinite(p_values).any())
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
        _marks(axes, curve.x, y, p_values[curve.rows], curve.colour, curve.marker, 3.5 if many else 5.5, tested)
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


def _marks(
    axes: Axes, x: np.ndarray, y: np.ndarray, p: np.ndarray, colour: str, marker: str, size: float, tested: bool
) -> None:
    """Filled marks where p < .05, hollow ones where not; a dash where nothing was tested, but other things were."""
    untested = "_" if tested else marker
    for chosen, face, shape in (
        (p < ALPHA, colour, marker),
        (p >= ALPHA, "white", marker),
        (np.isnan(p), colour, untested),
    ):
        if chosen.any():
            axes.plot(
                x[chosen],
                y[chosen],
                shape,
                color=colour,
                markerfacecolor=face,
                markeredgewidth=1.4,
                markersize=size,
                zorder=4,
            )


def _reference_text(result: xr.Dataset, row: int) -> str:
    """Name and score of one reference model."""
    name = str(result["model"].values[row])
    if len(name) > 32:
        name = f"{name[:20]}…{name[-11:]}"
    return f"{name}  {plotting.short(_column(result, 'mean')[row], 3)}"


def _best(result: xr.Dataset, curves: list[_Curve]) -> tuple[float, str] | None:
    """Score and colour of the best layer of all networks."""
    means = _column(result, "mean")
    peaks = [(float(means[peak]), curve.colour) for curve in curves if (peak := _peak(result, curve.rows)) is not None]
    return max(peaks, key=lambda peak: peak[0], default=None)


def _side_labels(
    result: xr.Dataset, curves: list[_Curve], others: np.ndarray
) -> list[tuple[str, float, str, float | None, bool]]:
    """The names beside the dots: text, score, colour, number of its dot (None: the line of the best layer), bold."""
    means, kinds = _column(result, "mean"), result["kind"].values.astype(str)
    best = _best(result, curves)
    labels: list[tuple[str, float, str, float | None, bool]] = []
    for number, row in enumerate(others):
        if np.isfinite(means[row]):
            colour = plotting.SOFT if kinds[row] == "control" else plotting.INK
            bold = best is not None and means[row] > best[0]
            labels.append((_reference_text(result, row), float(means[row]), colour, float(number), bold))
    if best is not None and labels:
        labels.append((f"best layer  {plotting.short(best[0], 3)}", best[0], best[1], None, True))
    return labels


def _draw_references(
    axes: Axes,
    result: xr.Dataset,
    curves: list[_Curve],
    others: np.ndarray,
    half: np.ndarray,
    limits: tuple[float, float],
    width: float,
    alone: bool,
) -> None:
    """Models and controls as dots, best at the left, each led to its name at the right; the best layer as a line."""
    means, p_values = _column(result, "mean"), _column(result, "p_value")
    kinds = result["kind"].values.astype(str)
    tested = bool(np.isfinite(p_values).any())
    right = len(others) - 0.3
    axes.set_xlim(-0.7, right)
    best = _best(result, curves)
    if best is not None:
        axes.axhline(best[0], color=best[1], linewidth=1.3, linestyle=(0, (4, 2)), zorder=2)
    for number, row in enumerate(others):
        if np.isnan(means[row]):
            continue
        colour = plotting.SOFT if kinds[row] == "control" else plotting.INK
        axes.errorbar(number, means[row], yerr=half[:, [row]], color=colour, linewidth=1.3, zorder=3)
        marker = _KIND_MARKERS.get(kinds[row], "s")
        _marks(axes, np.array([number]), means[[row]], p_values[[row]], colour, marker, 5.5, tested)
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
    axes.set_xlabel("Reference models" if curves else "Models", loc="left")


def _legend(
    result: xr.Dataset, curves: list[_Curve], others: np.ndarray, most: int
) -> list[tuple[list[Any], list[str]]]:
    """Rows of the legend: networks with their peaks, then what the marks mean."""
    from matplotlib.lines import Line2D

    means = _column(result, "mean")
    entries: list[tuple[Any, str]] = []
    for curve in curves:
        handle = Line2D([], [], color=curve.colour, marker=curve.marker, markersize=5.5)
        peak = _peak(result, curve.rows)
        named = ""
        if peak is not None:
            layer = curve.layers[int(np.flatnonzero(curve.rows == peak)[0])]
            named = f"  (peak {plotting.short(means[peak], 3)} at {layer})"
        entries.append((handle, curve.network + named))
    rows = _wrap(entries, most)
    p_values = _column(result, "p_value")
    marks: list[tuple[Any, str]] = []
    shape = "o" if curves else "s"

    def mark(face: str, marker: str = shape, **more: Any) -> Any:
        settings = {"linestyle": "", "color": plotting.SOFT, "markersize": 5.5, "markeredgewidth": 1.4, **more}
        return Line2D([], [], marker=marker, markerfacecolor=face, **settings)

    if (p_values < ALPHA).any():
        marks.append((mark(plotting.SOFT), "p < .05"))
    if (p_values >= ALPHA).any():
        marks.append((mark("white"), "n.s."))
    if marks and (np.isnan(p_values) & np.isfinite(means)).any():
        marks.append((mark("none", "_"), "not tested"))
    if curves:
        marks.append((mark("none", "o", markersize=11, markeredgewidth=1.2), "highest layer (descriptive)"))
    kinds = set(result["kind"].values.astype(str)[others].tolist())
    for kind in ("model", "control"):
        if kind in kinds and len(kinds) + bool(curves) > 1:
            colour = plotting.INK if kind == "model" else plotting.SOFT
            marks.append((mark(colour, _KIND_MARKERS[kind], color=colour), kind))
    rows += _wrap(marks, most)
    return rows


def _wrap(entries: Sequence[tuple[Any, str]], most: int) -> list[tuple[list[Any], list[str]]]:
    """Break legend entries into rows of limited length."""
    rows: list[tuple[list[Any], list[str]]] = []
    used = most
    for handle, text in entries:
        length = len(text) + 6
        if used + length > most:
            rows.append(([], []))
            used = 0
        rows[-1][0].append(handle)
        rows[-1][1].append(text)
        used += length
    return rows


def count_words(result: xr.Dataset) -> str:
    """How many subjects and stimuli.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA or noise ceiling result.

    Returns
    -------
    str
        Text such as ``5 subjects, 92 stimuli``.
    """
    parts = []
    if "subject" in result.sizes:
        n = result.sizes["subject"]
        parts.append(f"{n} subject" + ("s" if n != 1 else ""))
    stimuli = _attribute(result, "n_stimuli", default=result.sizes.get("stimulus"))
    if stimuli:
        parts.append(f"{int(stimuli)} stimuli")
    return ", ".join(parts)


def _band_words(result: xr.Dataset, bands: str) -> str:
    """What the bands are, in a few words."""
    if bands == "interval":
        return f"95 % confidence interval over {_SCOPE[_scope(result)]}"
    return f"± 1 standard error over {_SCOPE[_scope(result)]}"


def data_words(result: xr.Dataset) -> str:
    """Name of the data, with IT as brain scientists write it.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA or noise ceiling result.

    Returns
    -------
    str
        The name for headlines.
    """
    words = str(_attribute(result, "data", "data_name", "name", default="data")).replace("_", " ").split(" ")
    return " ".join("IT" if word == "it" else word for word in words)


def _headline(
    result: xr.Dataset, title: str | None, bands: str, more: list[str], width: float
) -> list[tuple[str, dict[str, Any], float]]:
    """Title and what the bands are, broken into lines: words, how they are set, inches down to the next line."""
    layers = (result["kind"].values.astype(str) == "layer").any()
    words = title or f"Similarity to {data_words(result)}, {'layer by layer' if layers else 'model by model'}"
    if _simulated(result) and "simulated" not in words.lower():
        words += " (simulated data)"
    what = "bands" if layers else "bars"
    line = "; ".join(part for part in (count_words(result), f"{what}: {_band_words(result, bands)}", *more) if part)
    titles = textwrap.wrap(words, int(width / 0.105))
    lines = textwrap.wrap(line, int(width / 0.072))
    large, small = {"fontsize": 13, "fontweight": "bold"}, {"fontsize": 9.5, "color": plotting.SOFT}
    return [
        *((text, large, 0.26 if text is titles[-1] else 0.22) for text in titles),
        *((text, small, 0.25 if text is lines[-1] else 0.17) for text in lines),
    ]


def caption(result: xr.Dataset, *, bands: Literal["error", "interval"] = "error", **_unused: Any) -> str:
    """Say in sentences what the figure shows: measure, bands, generalisation, test, ceiling, peak, better references.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.rsa`` returned.
    bands : {"error", "interval"}
        As given to :func:`plot`.

    Returns
    -------
    str
        Plain text, about six sentences.

    Raises
    ------
    InputError
        If `result` is not an RSA result.
    """
    _check(result)
    curves, _ = _curves(result)
    others = _references(result)
    means, p_values = _column(result, "mean"), _column(result, "p_value")
    scope = _scope(result)
    who = f"{data_words(result)} ({count_words(result)})" if count_words(result) else data_words(result)
    simulated = "simulated data: " if _simulated(result) else ""
    text = [
        f"Mean {plotting.measure_words(_measure(result))} between model RDMs and the RDM of each subject; "
        f"{simulated}{who}."
    ]
    draws = _attribute(result, "n_draws")
    drawn = f" (bootstrap, {int(draws):,} draws)" if draws and scope != "subject" else ""
    reason = str(_attribute(result, "generalise_to_reason", default=""))
    text.append(f"Bands and bars are {_band_words(result, bands)}{drawn}{f'; {reason}' if reason else ''}.")
    if np.isfinite(p_values).any():
        permutations = _attribute(result, "n_permutations")
        test = _attribute(
            result,
            "test",
            default="one-sided stimulus-label permutation test of the subject mean, maximum statistic"
            + (f", {int(permutations):,} permutations" if permutations else ""),
        )
        text.append(f"Filled marks: p < .05, hollow: not; {test}.")
    else:
        text.append("No significance was tested.")
    missing = [str(name) for name in result["model"].values[np.isnan(means)]]
    if missing:
        text.append(f"Without a score, since their RDM is constant or incomplete: {', '.join(missing)}.")
    ceiling = _ceiling(result)
    if ceiling:
        low, high = (plotting.short(value, 3) for value in ceiling)
        text.append(
            f"The grey band is the noise ceiling, {low} to {high}: the range in which the best possible model would "
            "score, given how much the subjects differ."
        )
        passing = [str(name) for name in result["model"].values[means > ceiling[1]]]
        if passing and result.attrs.get("compare") == "spearman":
            text.append(
                f"Above it: {', '.join(passing)}. Spearman's upper ceiling holds for RDMs without ties; a model with "
                "very many can pass it, which Pearson and cosine rule out."
            )
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
    if curves and len(others):
        top = max(means[peak] for curve in curves if (peak := _peak(result, curve.rows)) is not None)
        above = [row for row in others if means[row] > top]
        if above:
            named = ", ".join(f"{result['model'].values[row]!s} ({plotting.short(means[row], 3)})" for row in above)
            text.append(
                f"{len(above)} of {len(others)} reference models "
                f"score{'s' if len(above) == 1 else ''} above every layer: {named}."
            )
        else:
            text.append(f"None of the {len(others)} reference models scores above the best layer.")
    return " ".join(text)


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.rsa`` returned.

    Returns
    -------
    str
        One or two sentences.
    """
    _check(result)
    curves, _ = _curves(result)
    means = _column(result, "mean")
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
    if len(others):
        parts.append("reference models: " + ", ".join(_reference_text(result, row) for row in others))
    return (
        f"{'Line chart' if curves else 'Dot chart'} of RDM similarity to {data_words(result)}. "
        + "; ".join(parts)
        + "."
    )


def plot_ceiling(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw a noise ceiling: each subject against the mean of the others, and the band between the two bounds.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.noise_ceiling`` returned: ``ceiling_lower``, ``ceiling_upper``, and, where it has them,
        ``ceiling_lower_subject`` by subject.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 6 by 3 inches.

    Raises
    ------
    InputError
        If the result has no ceilings.
    """
    ceiling = _ceiling(result)
    if ceiling is None:
        raise InputError("the result has no noise ceiling (ceiling_lower, ceiling_upper), so there is nothing to draw")
    with plotting.style():
        figure = plotting.new_figure(6.2, 3.6)
        axes = figure.add_axes((0.85 / 6.2, 0.6 / 3.6, 5.15 / 6.2, 2.35 / 3.6))
        scores = _per_subject(result)
        if scores is not None:
            order = np.argsort(-scores, kind="stable")
            axes.plot(np.arange(len(scores)), scores[order], "o", color=plotting.COLOURS[0], markersize=6, zorder=3)
            axes.set_xticks(np.arange(len(scores)))
            names = result["subject"].values.astype(str)[order]
            slanted = max(map(len, names)) * 0.08 > 5.0 / len(names)
            axes.set_xticklabels(names, rotation=38 if slanted else 0, ha="right" if slanted else "center")
            axes.set_xlim(-0.6, len(scores) - 0.4)
        else:
            axes.set_xticks([])
        low = min(0.0, *(scores if scores is not None else [0.0]))
        high = max(ceiling[1], *(scores if scores is not None else [0.0]))
        axes.set_ylim(low * 1.1, high * 1.15)
        _draw_ceiling(axes, result, label=True)
        axes.set_ylabel(f"{plotting.measure_words(_measure(result))} with the\nmean of the others")
        words = title or f"Noise ceiling of {data_words(result)}" + ("  (simulated data)" if _simulated(result) else "")
        figure.text(0.85 / 6.2, 1 - 0.1 / 3.6, words, va="top", fontsize=13, fontweight="bold")
        line = "dots: each subject against the mean of the others; band: lower to upper ceiling"
        figure.text(0.85 / 6.2, 1 - 0.36 / 3.6, line, va="top", fontsize=9.5, color=plotting.SOFT)
    return figure


def _per_subject(result: xr.Dataset) -> np.ndarray | None:
    """Each subject's similarity to the mean of the others."""
    for name in ("ceiling_lower_subject", "lower_subject", "lower"):
        if name in result.variables and result[name].dims == ("subject",):
            return np.asarray(result[name].values, dtype=float)
    return None
