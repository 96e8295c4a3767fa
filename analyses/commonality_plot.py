"""Figure of a commonality analysis: the total against the noise ceiling, and its parts over a table of memberships."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHARED = "#7d7d7d"
_TALL = 2.7  # inches, height of the bars
_ALPHA = 0.05
_NARROW = 7  # parts that a narrow figure has room for
_VARIANCE = {
    "spearman": "variance of ranks",
    "pearson": "variance of dissimilarities",
    "cosine": "squared dissimilarities",
    "whitened-pearson": "whitened variance",
    "whitened-cosine": "whitened squared dissimilarities",
}


def plot(result: xr.Dataset, *, title: str | None = None, narrow: bool = False, **_unused: Any) -> Figure:
    """Draw the total explained variance and the parts that sets explain alone and together.

    Parameters
    ----------
    result : xarray.Dataset
        What ``commonality`` returned.
    title : str, optional
        Headline.
    narrow : bool
        For a phone or a single column.

    Returns
    -------
    matplotlib.figure.Figure
        At the left the total in front of the squared noise ceiling, then one bar for each part; below every bar, filled
        dots name the sets that share it. Whiskers are the result's intervals, faint dots single subjects.
    """
    if "variance" not in result or "member" not in result:
        raise InputError("this is not a commonality result (variance, member); give what commonality() returned")
    with plotting.style():
        return _draw(result, title, narrow)


def plot_narrow(result: xr.Dataset, **options: Any) -> Figure:
    """Draw the parts for a phone or a single column; see :func:`plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What ``commonality`` returned.
    **options
        Those of :func:`plot`.

    Returns
    -------
    matplotlib.figure.Figure
        About 3.6 inches wide.
    """
    return plot(result, **{**options, "narrow": True})


def _draw(result: xr.Dataset, title: str | None, narrow: bool) -> Figure:
    """Lay the figure out: bars above, memberships below, sharing their columns."""
    import textwrap

    names = result["set"].values.astype(str).tolist()
    k, every = len(names), result.sizes["component"]
    shown = _largest(result["mean"].values, _NARROW) if narrow else np.arange(every)
    chosen = result.isel(component=shown)
    parts = len(shown)
    places = np.concatenate([[0.0], 1.7 + np.arange(parts)])
    longest = max(len(name) for name in names)
    left = min(max(0.75, 0.3 + 0.073 * longest), 1.3 if narrow else 2.4)
    column = min(0.56, (3.6 - left - 0.1) / (places[-1] + 1.2)) if narrow else 0.56
    wide = column * (places[-1] + 1.2)
    width = max(left + wide + 0.15, 3.6 if narrow else 4.6)
    head = title or f"What {_joined(names)} explain{'s' if k == 1 else ''} of {_data(result)}"
    head_lines = textwrap.wrap(head, int((width - 0.2) / 0.092))
    line = _line(result) + (f"; the {parts} largest of {every} parts" if parts < every else "")
    lines = textwrap.wrap(line, int((width - 0.2) / 0.063))
    top = 0.2 + 0.22 * len(head_lines) + 0.17 * len(lines)
    row = 0.24
    below = 0.12 + row * k + 0.22
    height = below + _TALL + top
    figure = plotting.new_figure(width, height)
    axes = figure.add_axes((left / width, below / height, wide / width, _TALL / height))
    members = figure.add_axes((left / width, 0.16 / height, wide / width, row * k / height))
    _bars(axes, chosen, places, 8 if narrow else 9)
    _memberships(members, chosen, places, names)
    for one in (axes, members):
        one.set_xlim(-0.6, places[-1] + 0.6)
    kind = _VARIANCE.get(str(result.attrs.get("compare")), "variance")
    axes.set_ylabel(f"Share of {kind}" if len(kind) < 26 or not narrow else "Share of variance")
    figure.text(
        0.12 / width,
        1 - 0.08 / height,
        "\n".join(head_lines),
        va="top",
        fontsize=13,
        fontweight="bold",
        linespacing=1.25,
    )
    figure.text(
        0.12 / width,
        1 - (0.14 + 0.22 * len(head_lines)) / height,
        "\n".join(lines),
        va="top",
        fontsize=9.5,
        color=plotting.SOFT,
        linespacing=1.3,
    )
    return figure


def _largest(values: np.ndarray, most: int) -> np.ndarray:
    """Which parts are largest, whatever their sign, in their own order."""
    return np.sort(np.argsort(-np.abs(values), kind="stable")[:most])


def _joined(names: list[str]) -> str:
    """Names in a row of words."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _data(result: xr.Dataset) -> str:
    """Name of the data, marked when simulated."""
    made = " (simulated data)" if str(result.attrs.get("simulated", 0)).lower() in ("1", "true") else ""
    return str(result.attrs.get("data", "the data")) + made


def _line(result: xr.Dataset) -> str:
    """The grey line below the headline."""
    n = int(result.attrs.get("n_subjects", result.sizes["subject"]))
    count = f"{n} subjects (dots)" if n != 1 else "1 subject"
    ceiling = "; grey band: squared noise ceiling" if np.isfinite(float(result["ceiling_lower"])) else ""
    star = "; * p < .05, unique part" if "*" in _stars(result) else ""
    whiskers = f"whiskers: 95 % interval, {_target(result)}"
    return f"{count}, {result.attrs.get('n_stimuli', '?')} stimuli; {whiskers}{ceiling}{star}"


def _target(result: xr.Dataset) -> str:
    """What the intervals speak of."""
    words = {"stimulus": "new stimuli", "subject": "new subjects", "both": "new subjects and stimuli"}
    return words.get(str(result.attrs.get("generalise_to")), "not stated")


def _bars(axes: Axes, result: xr.Dataset, places: np.ndarray, size: float) -> None:
    """The total and the parts, with whiskers, subjects and the ceiling."""
    from matplotlib.patches import Rectangle

    member = result["member"].values
    total = result.isel(subset=-1)
    values = np.concatenate([[float(total["r_squared_mean"])], result["mean"].values])
    low = np.concatenate([[float(total["r_squared_low"])], result["interval_low"].values])
    high = np.concatenate([[float(total["r_squared_high"])], result["interval_high"].values])
    single = np.vstack([total["r_squared"].values[None], result["variance"].values])
    colours = ["#3a3a3a"] + [
        plotting.COLOURS[int(np.flatnonzero(row)[0])] if row.sum() == 1 else _SHARED for row in member
    ]
    bounds = [float(result[name]) for name in ("ceiling_lower", "ceiling_upper")]
    if np.isfinite(bounds).all():
        axes.add_patch(
            Rectangle((-0.55, bounds[0]), 1.1, bounds[1] - bounds[0], color=plotting.BAND, linewidth=0, zorder=0)
        )
    for number, (x, value, colour) in enumerate(zip(places, values, colours, strict=True)):
        axes.bar(
            x,
            value,
            width=0.62,
            color=colour,
            alpha=0.88,
            zorder=2,
            hatch="////" if value < 0 else None,
            edgecolor="white" if value < 0 else colour,
            linewidth=0,
        )
        shift = np.linspace(-0.2, 0.2, single.shape[1]) if single.shape[1] > 1 else np.zeros(1)
        axes.plot(
            x + shift,
            single[number],
            "o",
            markersize=2.6,
            color="white",
            markeredgecolor="#555555",
            markeredgewidth=0.6,
            alpha=0.8,
            zorder=3,
        )
        if np.isfinite(low[number]):
            axes.plot([x, x], [low[number], high[number]], color=plotting.INK, linewidth=1.4, zorder=4)
    axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    ends = np.concatenate([low, high, single.ravel(), bounds, values])
    bottom, top = float(np.nanmin(np.append(ends, 0))), float(np.nanmax(np.append(ends, 0.02)))
    room = 0.13 * (top - bottom)
    marks = ["", *_stars(result)]
    for x, value, y, mark in zip(places, values, np.fmax(np.fmax(high, single.max(axis=1)), 0), marks, strict=True):
        text = plotting.short(value, 3 if abs(value) < 0.00995 else 2) + mark
        axes.text(x, y + 0.2 * room, text, ha="center", va="bottom", fontsize=size, zorder=5)
    axes.set_ylim(bottom - 0.25 * room * (bottom < 0), top + 1.1 * room)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def _stars(result: xr.Dataset) -> list[str]:
    """Mark the unique parts that passed their test."""
    member = result["member"].values
    if "p_unique" not in result:
        return [""] * len(member)
    passed = result["p_unique"].values < _ALPHA
    return ["*" if row.sum() == 1 and passed[row][0] else "" for row in member]


def _memberships(axes: Axes, result: xr.Dataset, places: np.ndarray, names: list[str]) -> None:
    """A dot for every set that shares a part, joined by a line."""
    member = np.vstack([np.ones((1, len(names)), dtype=bool), result["member"].values])
    rows = np.arange(len(names))
    for row in rows[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="#f3f3f3", linewidth=0, zorder=0)
    for number, (x, sets) in enumerate(zip(places, member, strict=True)):
        if number == 0:
            axes.text(x, (len(names) - 1) / 2, "all", ha="center", va="center", fontsize=9.5, color=plotting.INK)
            continue
        inside = rows[sets]
        axes.plot([x] * len(rows), rows, "o", color="#d3d3d3", markersize=5, zorder=1)
        alone = len(inside) == 1
        colour = plotting.COLOURS[int(inside[0])] if alone else _SHARED
        axes.plot([x] * len(inside), inside, "-o", color=colour, markersize=6.5, linewidth=1.8, zorder=2)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(rows, names)
    axes.tick_params(axis="y", length=0)
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows: the regressions, intervals, ceiling, negative parts, what is not tested.

    Parameters
    ----------
    result : xarray.Dataset
        What ``commonality`` returned.

    Returns
    -------
    str
        Plain text.
    """
    names = result["set"].values.astype(str).tolist()
    n = int(result.attrs.get("n_subjects", result.sizes["subject"]))
    counts = [int(count) for count in result["n_rdms"].values]
    listed = _joined([f"{name} ({c} RDM{'s' if c != 1 else ''})" for name, c in zip(names, counts, strict=True)])
    kind = _VARIANCE.get(str(result.attrs.get("compare")), "variance")
    total = float(result["r_squared_mean"].values[-1])
    text = [
        f"Share of the {kind} of {_data(result)} ({n} subject{'s' if n != 1 else ''}, "
        f"{result.attrs.get('n_stimuli')} stimuli) that regressions on {listed} explain, fitted to each subject: "
        f"{plotting.short(total)} in all, divided into what each combination of sets shares and no other set explains.",
        f"Whiskers: {result.attrs.get('interval', '95 % interval')}, for {_target(result)}. Small dots: subjects.",
    ]
    if np.isfinite(float(result["ceiling_lower"])):
        low, high = (plotting.short(float(result[name])) for name in ("ceiling_lower", "ceiling_upper"))
        text.append(f"Grey band: squared noise ceiling ({low} to {high}) of models with the same weights for everyone.")
    else:
        text.append("One subject: no noise ceiling.")
    negative = json.loads(result.attrs.get("negative", "[]"))
    if negative:
        text.append(
            f"Negative ({_joined(negative)}, hatched): together these sets explain more than the sum of what they "
            "explain alone (suppression)."
        )
    if "p_unique" in result:
        chance = ", ".join(
            f"{name} {plotting.short(float(value), 3)}"
            for name, value in zip(names, result["unique_chance"].values, strict=True)
        )
        text.append(
            f"Asterisks: p < .05, {result.attrs.get('test')}. R² is measured where its weights were fitted, so that "
            f"shuffled RDMs explain some variance too ({chance})."
        )
    else:
        text.append(
            "Not tested: R² is measured where its weights were fitted, so that unrelated sets explain some variance "
            "too, the more the more RDMs they hold."
        )
    return " ".join(text)


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``commonality`` returned.

    Returns
    -------
    str
        One or two sentences.
    """
    parts = zip(result["component"].values.astype(str), result["mean"].values, strict=True)
    listed = "; ".join(f"{name} {plotting.short(float(value))}" for name, value in parts)
    return (
        f"Bar chart of explained variance: {plotting.short(float(result['r_squared_mean'].values[-1]))} in all, of "
        f"which {listed}."
    )
