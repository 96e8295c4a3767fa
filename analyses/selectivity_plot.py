"""Figure of selectivity: the distribution of scores in every layer, and the share of units that are selective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

MOST = 6
"""Contrasts that one figure holds."""

_NAMES = {"index": "Selectivity index", "d_prime": "Selectivity d′", "t": "Welch's t", "cliff_delta": "Cliff's δ"}
_MEASURES = {
    "index": "the selectivity index (a − b) / (a + b) of mean responses",
    "d_prime": "d′, the difference of mean responses in pooled standard deviations",
    "t": "Welch's t of the responses",
    "cliff_delta": "Cliff's δ, P(a > b) − P(a < b), of the responses",
}
_BINS = 160
_GREY = "#d0d0d0"


def _check(result: xr.Dataset) -> None:
    """Refuse what is no selectivity result."""
    if result.attrs.get("analysis") != "selectivity" or "score" not in result or "share" not in result:
        raise InputError("this is not a selectivity result (score, share); give what actkit.selectivity() returned")
    if not np.isfinite(result["score"].values).any():
        raise InputError("no unit of the result has a finite score, so there is nothing to draw")


def _shown(result: xr.Dataset, contrasts: Any) -> list[int]:
    """Rows of the contrasts to draw: those asked for, or those with the most selective units."""
    names = [str(name) for name in result["contrast"].values]
    sides = [str(name) for name in result["preferred"].values]
    if contrasts is not None:
        wanted = [contrasts] if isinstance(contrasts, str) else [str(name) for name in contrasts]
        for name in wanted:
            if name not in names and name not in sides:
                raise InputError(f"the result has no contrast {name!r}; it has {', '.join(map(repr, names))}")
        rows = [names.index(name) if name in names else sides.index(name) for name in wanted]
    else:
        rows = sorted(np.argsort(-result["share"].values.mean(axis=1), kind="stable")[:MOST].tolist())
    if not 1 <= len(rows) <= MOST:
        raise InputError(f"{len(rows)} contrasts do not fit one figure; choose 1 to {MOST} with contrasts=")
    return rows


def _short(side: str, most: int = 32) -> str:
    """A side in few characters."""
    words = side.replace("_", " ").replace("+", " + ")
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def plot(result: xr.Dataset, *, contrasts: Any = None, title: str | None = None, **_unused: Any) -> Figure:
    """Draw how selectivity is distributed in every layer, and which share of the units is selective.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.selectivity`` returned.
    contrasts : str or sequence of str, optional
        Contrasts, or their preferred labels, at most six; by default those with the most selective units.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 7.5 inches wide. Above, one row a contrast: the scores of all units of a layer in grey, those of
        selective units in colour on the same scale. Below: the share of selective units, layer by layer.

    Raises
    ------
    InputError
        If it is not a selectivity result, or too many contrasts are asked for.
    """
    _check(result)
    with plotting.style():
        return _draw(result, _shown(result, contrasts), title)


def _draw(result: xr.Dataset, rows: list[int], title: str | None) -> Figure:
    """Lay out and fill the figure."""
    layers = [str(name) for name in result["layer"].values]
    n, one = len(layers), len(rows) == 1
    left, right, wide = 0.95, 0.25, 6.3
    tall, low_tall, gap = (2.7, 1.5, 0.3) if one else (1.2, 1.6, 0.28)
    below, top = plotting.label_depth(layers, wide) + 0.42, 0.98 if one else 1.12
    width = left + wide + right
    height = top + len(rows) * (tall + gap) + 0.12 + low_tall + below
    figure = plotting.new_figure(width, height)
    limits = _limits(result, rows)
    y = height - top
    for number, row in enumerate(rows):
        y -= tall
        axes = figure.add_axes((left / width, y / height, wide / width, tall / height))
        y -= gap
        _distribution(axes, result, row, limits, _colours(number, one))
        axes.set_xlim(-0.7, n - 0.3)
        axes.set_xticks(range(n), [""] * n)
        axes.tick_params(axis="x", length=2, color=plotting.FAINT)
        if one:
            axes.set_ylabel(_NAMES[str(result.attrs["measure"])])
        else:
            axes.plot(
                [0.008],
                [1.075],
                plotting.MARKERS[number % 7],
                color=_colours(number, one)[0],
                markersize=5,
                transform=axes.transAxes,
                clip_on=False,
            )
            axes.text(
                0.024,
                1.02,
                f"{_short(str(result['preferred'].values[row]))} > {_short(str(result['other'].values[row]))}",
                transform=axes.transAxes,
                va="bottom",
                fontsize=9.5,
                fontweight="bold",
                color=_colours(number, one)[0],
            )
    if not one:
        middle = (height - top + y + gap) / 2
        figure.text(
            0.2 / width,
            middle / height,
            _NAMES[str(result.attrs["measure"])],
            rotation=90,
            va="center",
            ha="center",
            fontsize=10.5,
        )
    y -= 0.12 + low_tall
    axes = figure.add_axes((left / width, y / height, wide / width, low_tall / height))
    _shares(axes, result, rows, one)
    axes.set_xlim(-0.7, n - 0.3)
    front = plotting.label_layers(axes, list(range(n)), layers, wide)
    axes.set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")
    figure.text(left / width, 1 - 0.12 / height, title or _headline(result, rows), va="top", fontsize=13, weight="bold")
    figure.text(left / width, 1 - 0.41 / height, _line(result, rows), va="top", fontsize=9.5, color=plotting.SOFT)
    _legend(figure, result, rows, (left / width, 1 - 0.64 / height))
    return figure


def _colours(number: int, one: bool) -> tuple[str, str]:
    """Colours of units that prefer the first side and the second."""
    return (plotting.COLOURS[0], plotting.COLOURS[1]) if one else (plotting.COLOURS[number % 7], "#9a9a9a")


def _limits(result: xr.Dataset, rows: list[int]) -> tuple[float, float]:
    """Range of the score axis: what is possible where that is bounded, otherwise all but the most extreme units."""
    if str(result.attrs["measure"]) in ("index", "cliff_delta"):
        return -1.0, 1.0
    scores = result["score"].values[rows]
    low, high = np.percentile(scores[np.isfinite(scores)], [0.05, 99.95])
    low, high = min(low, 0.0), max(high, 0.0)
    room = 0.04 * ((high - low) or 1.0)
    return float(low - room), float(high + room)


def _outside(result: xr.Dataset, rows: list[int]) -> int:
    """How many scores the axis leaves out."""
    low, high = _limits(result, rows)
    scores = result["score"].values[rows]
    return int(((scores < low) | (scores > high)).sum())


def _distribution(
    axes: Any, result: xr.Dataset, row: int, limits: tuple[float, float], colours: tuple[str, str]
) -> None:
    """A violin for every layer: all units in grey, the selective ones in colour on the same scale."""
    from scipy.ndimage import gaussian_filter1d

    owner = result["unit_layer"].values.astype(str)
    scores, flags = result["score"].values[row], result["selective"].values[row]
    edges = np.linspace(*limits, _BINS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    for place, layer in enumerate(result["layer"].values.astype(str)):
        mine = (owner == layer) & (scores >= limits[0]) & (scores <= limits[1])
        if not mine.any():
            continue
        values = scores[mine]
        # Silverman's rule, from the quartiles so that long tails do not flatten the middle.
        spread = np.subtract(*np.percentile(values, [75, 25])) / 1.34 or values.std()
        sigma = max(0.9 * spread * len(values) ** -0.2 / (edges[1] - edges[0]), 1.2)
        every = gaussian_filter1d(np.histogram(values, edges)[0].astype(float), sigma, mode="reflect")
        scale = 0.44 / every.max()
        for part, colour, order in ((None, _GREY, 2), (1, colours[0], 3), (-1, colours[1], 3)):
            shape = every
            if part is not None:
                chosen = values[flags[mine] == part]
                if not len(chosen):
                    continue
                shape = np.minimum(
                    gaussian_filter1d(np.histogram(chosen, edges)[0].astype(float), sigma, mode="reflect"), every
                )
            half = shape * scale
            seen = half > 0.004
            axes.fill_betweenx(middle, place - half, place + half, where=seen, color=colour, linewidth=0, zorder=order)
        axes.plot([place - 0.2, place + 0.2], [np.median(values)] * 2, color=plotting.INK, linewidth=1.1, zorder=4)
    room = 0.03 * (limits[1] - limits[0])
    axes.set_ylim(limits[0] - room, limits[1] + room)


def _shares(axes: Any, result: xr.Dataset, rows: list[int], one: bool) -> None:
    """Lines of the share of selective units."""
    x = np.arange(result.sizes["layer"])
    top = 0.0
    for number, row in enumerate(rows):
        lines = [("share", _colours(number, one)[0], number)]
        if one:
            lines.append(("share_opposite", _colours(number, one)[1], 1))
        for name, colour, mark in lines:
            values = result[name].values[row] * 100
            top = max(top, float(values.max()))
            axes.plot(
                x, values, color=colour, marker=plotting.MARKERS[mark % 7], markersize=4.5, clip_on=False, zorder=3
            )
    axes.set_ylim(0, max(1.0, top * 1.08))
    axes.set_ylabel("Selective\nunits (%)", linespacing=1.3)


def _legend(figure: Figure, result: xr.Dataset, rows: list[int], at: tuple[float, float]) -> None:
    """What the colours are."""
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=_GREY)]
    words = ["all units"]
    if len(rows) == 1:
        sides = str(result["preferred"].values[rows[0]]), str(result["other"].values[rows[0]])
        for number, side in enumerate(sides):
            handles.append(
                Line2D([], [], color=plotting.COLOURS[number], marker=plotting.MARKERS[number], markersize=5)
            )
            words.append(f"prefer {_short(side)}")
    else:
        handles.append(tuple(Patch(color=plotting.COLOURS[number % 7]) for number in range(min(len(rows), 4))))
        handles.append(Patch(color=_colours(0, False)[1]))
        words += ["prefer the class", "prefer the others"]
    handles.append(Line2D([], [], color=plotting.INK, linewidth=1.1))
    words.append("median")
    figure.legend(
        handles,
        words,
        loc="upper left",
        ncols=len(handles),
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
        borderpad=0,
        borderaxespad=0,
        handletextpad=0.5,
        handlelength=1.3,
        columnspacing=1.4,
        bbox_to_anchor=at,
    )


def _headline(result: xr.Dataset, rows: list[int]) -> str:
    """The title."""
    if len(rows) == 1:
        a, b = (_short(str(result[side].values[rows[0]]), 40) for side in ("preferred", "other"))
        return f"Selectivity: {a} against {b}"
    return f"Selectivity for {str(result.attrs.get('label', 'labels')).replace('_', ' ')}"


def _line(result: xr.Dataset, rows: list[int]) -> str:
    """The line under the title: numbers, and what selective means."""
    counts = f"{result.attrs['n_stimuli']} stimuli, {result.sizes['unit']:,} units"
    return f"{result.attrs['network']}, {counts}; selective: {_rule(result)}"


def _rule(result: xr.Dataset) -> str:
    """What makes a unit selective."""
    if int(result.attrs["n_permutations"]):
        words = {"fdr": "false discovery rate", "holm": "Holm's p", "none": "uncorrected p"}
        return f"{words[str(result.attrs['correction'])]} < {plotting.short(float(result.attrs['alpha']))}"
    return f"score beyond ±{plotting.short(float(result.attrs['threshold']))}"


def caption(result: xr.Dataset, *, contrasts: Any = None, **_unused: Any) -> str:
    """Say in sentences what the figure shows: measure, responses, stimuli, test, reliability.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.selectivity`` returned.
    contrasts : str or sequence of str, optional
        As for :func:`plot`.

    Returns
    -------
    str
        Plain text.
    """
    _check(result)
    rows = _shown(result, contrasts)
    layers = [str(name) for name in result["layer"].values]
    text = [
        f"Above, {_MEASURES[str(result.attrs['measure'])]} of every unit ({result.attrs['response']}), layer by layer: "
        "grey, all units; colour, selective units on the same scale; black, the median. Each layer is scaled to its "
        "own peak."
    ]
    sides = []
    for row in rows:
        a, b = str(result["preferred"].values[row]), str(result["other"].values[row])
        sides.append(f"{a} ({int(result['n_preferred'][row])} stimuli) against {b} ({int(result['n_other'][row])})")
    text.append("; ".join(sides) + ".")
    text.append(f"Below, the share of selective units. Selective: {_rule(result)}.")
    test = str(result.attrs["test"])
    if test == "none":
        text.append("No significance was tested.")
    else:
        chance = result["share_chance"].values[rows]
        text.append(
            f"{test[0].upper()}{test[1:]}. Under permuted labels {100 * float(np.nanmean(chance)):.2g} % of the units "
            f"score {plotting.short(float(result.attrs['threshold']))} or more, with the true labels "
            f"{100 * float(np.nanmean(result['share_beyond'].values[rows])):.2g} %."
        )
    for row in rows:
        share = result["share"].values[row]
        best = int(share.argmax())
        text.append(
            f"Most units preferring {result['preferred'].values[row]}: {100 * share[best]:.0f} % at {layers[best]} "
            "(descriptive)."
        )
    reliability = result["reliability"].values[rows]
    if np.isfinite(reliability).any():
        text.append(
            f"Reliability of the scores over units, between halves of the stimuli (Spearman-Brown): "
            f"{plotting.short(float(np.nanmin(reliability)))} to {plotting.short(float(np.nanmax(reliability)))}."
        )
    if outside := _outside(result, rows):
        text.append(f"{outside} scores lie outside the axis.")
    lost = int(result["n_undefined"].values[rows[0]].sum())
    if lost:
        text.append(f"{lost} units respond alike to all stimuli and have no score.")
    return " ".join(text)


def alt_text(result: xr.Dataset, *, contrasts: Any = None, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.selectivity`` returned.
    contrasts : str or sequence of str, optional
        As for :func:`plot`.

    Returns
    -------
    str
        One or two sentences.
    """
    _check(result)
    parts = []
    rows = _shown(result, contrasts)
    for row in rows:
        for name, side in (("share", "preferred"), ("share_opposite", "other")):
            if name == "share_opposite" and len(rows) > 1:
                continue
            share = 100 * result[name].values[row]
            parts.append(
                f"units that prefer {result[side].values[row]} go from {share[0]:.0f} % in the first layer to "
                f"{share[-1]:.0f} % in the last, with at most {share.max():.0f} %"
            )
    kind = _NAMES[str(result.attrs["measure"])].replace("Selectivity ", "")
    return (
        f"Violins of the {kind} of all units, layer by layer, above a line chart of selective units: "
        + "; ".join(parts)
        + "."
    )
