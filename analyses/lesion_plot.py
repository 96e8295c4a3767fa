"""Figure of a lesion's effect: accuracy and loss of every task, intact and lesioned."""

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

_TALL = 2.7
_NAMED = 3  # layers that the line under the headline names
_MODES = {
    "zero": "set to 0",
    "mean": "set to their mean over the reference",
    "permute": "given their values for another stimulus of the reference",
    "scale": "multiplied by {factor:g}",
}


def _check(result: xr.Dataset) -> None:
    """Refuse what is no effect of a lesion."""
    if result.attrs.get("analysis") != "lesion_effect" or "lesioned_accuracy" not in result:
        raise InputError(
            "this is not the effect of a lesion (intact_accuracy, lesioned_accuracy); give what "
            "actkit.lesion.lesion_effect() returned"
        )


def _lesion(result: xr.Dataset) -> str:
    """What was lesioned, in words."""
    counts = json.loads(result.attrs["lesioned_units"])
    if len(counts) > _NAMED:
        return f"{sum(counts.values())} units of {len(counts)} layers"
    return ", ".join(f"{count} of {layer}" for layer, count in counts.items()) or "no unit"


def _mode(result: xr.Dataset) -> str:
    options = json.loads(result.attrs["options"])
    return _MODES[options["mode"]].format(factor=options["factor"])


def plot(result: xr.Dataset, *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw accuracy and loss of every task, intact and lesioned.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.lesion.lesion_effect` returned.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels, about 7 inches wide with two tasks; each task twice, all outputs competing and its own only. Bars:
        one standard error over images.

    Raises
    ------
    InputError
        If it is not the effect of a lesion.
    """
    _check(result)
    with plotting.style():
        return _draw(result, title)


def _draw(result: xr.Dataset, title: str | None) -> Figure:
    """Lay out and fill the figure."""
    from matplotlib.lines import Line2D

    n = result.sizes["task"]
    left, gap, right, bottom, top = 0.85, 0.85, 0.25, 0.75, 0.98
    wide = max(2.3, 1.25 * n)
    width, height = left + 2 * wide + gap + right, bottom + _TALL + top
    figure = plotting.new_figure(width, height)
    for number, kind in enumerate(("accuracy", "loss")):
        place = ((left + number * (wide + gap)) / width, bottom / height, wide / width, _TALL / height)
        _panel(figure.add_axes(place), result, kind)
    headline = title or "What tasks lose by the lesion"
    figure.text(left / width, 1 - 0.1 / height, headline, va="top", fontsize=13, fontweight="bold")
    line = f"{_lesion(result)} {_mode(result)}; bars: standard error over images"
    figure.text(left / width, 1 - 0.36 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)
    mark: dict[str, Any] = {"linestyle": "", "marker": "o", "color": plotting.SOFT, "markersize": 6}
    handles: list[Any] = [
        Line2D([], [], markerfacecolor="white", markeredgewidth=1.4, **mark),
        Line2D([], [], **mark),
        Line2D([], [], color=plotting.SOFT, linestyle=(0, (1, 2)), linewidth=1.2),
    ]
    figure.legend(
        handles, ["intact", "lesioned", "chance"], loc="upper left", ncols=3, borderpad=0, borderaxespad=0,
        handletextpad=0.5, columnspacing=1.3, handlelength=1.6, bbox_to_anchor=(left / width, 1 - 0.62 / height),
    )  # fmt: skip
    return figure


def _panel(axes: Axes, result: xr.Dataset, kind: str) -> None:
    """Accuracy or loss: one pair of marks for each task and choice of outputs."""
    names = [str(name) for name in result["task"].values]
    columns = [str(name) for name in result["columns"].values]
    ticks, labels = [], []
    for t, name in enumerate(names):
        colour, marker = plotting.COLOURS[t % 7], plotting.MARKERS[t % 7]
        for c, column in enumerate(columns):
            x = t + (c - (len(columns) - 1) / 2) * 0.4
            some = result.isel(task=t).sel(columns=column)
            before, after = float(some[f"intact_{kind}"]), float(some[f"lesioned_{kind}"])
            axes.plot([x - 0.07, x + 0.07], [before, after], color=colour, linewidth=1.0, alpha=0.6, zorder=2)
            for at, value, which, face in (
                (x - 0.07, before, "intact", "white"),
                (x + 0.07, after, "lesioned", colour),
            ):
                error = float(np.nan_to_num(some[f"{which}_{kind}_se"]))
                axes.errorbar(at, value, yerr=error, fmt="none", ecolor=colour, elinewidth=1.3, zorder=3)
                axes.plot(
                    at, value, marker, color=colour, markerfacecolor=face, markersize=6, markeredgewidth=1.4, zorder=4
                )
            ticks.append(x)
            labels.append(column)
        if kind == "accuracy":
            chance = float(result["chance"].isel(task=t))
            axes.plot([t - 0.36, t + 0.36], [chance] * 2, color=plotting.SOFT, linestyle=(0, (1, 2)), linewidth=1.2)
        axes.annotate(
            name, (t, 0), xycoords=("data", "axes fraction"), xytext=(0, -22), textcoords="offset points",
            ha="center", va="top", fontsize=10.5, color=colour, fontweight="bold",
        )  # fmt: skip
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xticks(ticks, labels)
    axes.tick_params(axis="x", length=0)
    if kind == "accuracy":
        axes.set_ylim(0, 1.04)
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("Accuracy" if kind == "accuracy" else "Loss (nats)")
    axes.annotate(
        "outputs:", (0, 0), xycoords="axes fraction", xytext=(-6, -3.8), textcoords="offset points", ha="right",
        va="top", fontsize=9.5, color=plotting.SOFT,
    )  # fmt: skip


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows: units, mode, images, drops.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.lesion.lesion_effect` returned.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is not the effect of a lesion.
    """
    _check(result)
    network = f" of {result.attrs['network']}" if result.attrs.get("network") else ""
    text = [f"Top-1 accuracy and cross-entropy without {_lesion(result)}{network}, {_mode(result)}."]
    if result.attrs.get("question"):
        text.append(f"Units: {result.attrs['question']}.")
    images = ", ".join(f"{int(result['n_images'].sel(task=name))} of {name}" for name in result["task"].values)
    text.append(
        f"Images: {images}, the same with and without the lesion. All: every output of the network competes; own: the "
        "task's own outputs do. Bars: one standard error over images (of a drop, ±: from differences image by "
        "image). Chance is among the task's own outputs."
    )
    for name in result["task"].values:
        parts = []
        for column, words in (("all", "all outputs"), ("own", "own outputs")):
            some = result.sel(task=name, columns=column)
            share = float(some["proportional_drop"])
            of_chance = f", {100 * share:.0f} % of what was above chance" if np.isfinite(share) else ""
            drop, error = (plotting.short(float(some[key]), 3) for key in ("accuracy_drop", "accuracy_drop_se"))
            parts.append(f"{drop} ± {error} ({words}{of_chance})")
        text.append(f"Drop of accuracy, {name}: {'; '.join(parts)}.")
    return " ".join(text)


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.lesion.lesion_effect` returned.

    Returns
    -------
    str
        One sentence.

    Raises
    ------
    InputError
        If it is not the effect of a lesion.
    """
    _check(result)
    parts = []
    for name in result["task"].values:
        some = result.sel(task=name, columns="all")
        parts.append(
            f"{name} {plotting.short(float(some['intact_accuracy']))} intact and "
            f"{plotting.short(float(some['lesioned_accuracy']))} lesioned"
        )
    return f"Accuracy and loss of each task before and after silencing {_lesion(result)}; accuracy: {'; '.join(parts)}."
