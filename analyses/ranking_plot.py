"""Figure of a ranking: what each task loses without each unit, by rank and task against task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.errors import InputError, nearest
from actkit.units import round_half_up

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 6
"""Tasks that one figure holds."""

_BARS = 64  # units up to which every one has a mark and a bar; beyond, a line and a band
_NAMED = 3  # units of each task's top that the scatter names
_APART = 0.07  # least distance between two names, as a share of the axes
_TALL = 2.9
_STRATEGIES = {
    "one_shot": "each unit silenced alone",
    "greedy": "silenced one after another, the costliest first",
    "racing": "the top found by racing",
    "taylor": "first-order guess from gradients, nothing silenced",
    "shapley": "Shapley values: mean over random orders of losing units",
}


def _check(result: xr.Dataset) -> None:
    """Refuse what is no ranking."""
    if result.attrs.get("analysis") != "ranking" or not {"loss_increase", "loss_increase_masked"} & set(result):
        raise InputError("this is not a ranking (loss_increase, rank); give what actkit.rank_units() returned")


def _suffix(result: xr.Dataset, masked: bool | None) -> str:
    """Ending of the variables to draw: the ranking over all outputs where there is one, unless asked otherwise."""
    suffix = "_masked" if ("rank" not in result if masked is None else masked) else ""
    if f"rank{suffix}" not in result:
        raise InputError(
            f"the ranking has no 'rank{suffix}', so it cannot be drawn by it; leave masked= out, or rank with "
            f"masked={'own' if suffix else 'all'!r}"
        )
    return suffix


def _tasks(result: xr.Dataset, tasks: Sequence[str] | str | None, suffix: str) -> list[str]:
    """Tasks to draw."""
    known = [str(name) for name in result["task"].values]
    wanted = known if tasks is None else [tasks] if isinstance(tasks, str) else [str(name) for name in tasks]
    for name in wanted:
        if name not in known:
            raise InputError(f"the ranking has no task {name!r}; {nearest(name, known)}")
    if tasks is None:  # a task that owns all outputs has no masked ranking
        wanted = [name for name in wanted if (result[f"rank{suffix}"].sel(task=name).values > 0).all()]
    if not 1 <= len(wanted) <= MOST:
        raise InputError(f"{len(wanted)} tasks do not fit one figure; choose 1 to {MOST} with tasks=")
    return wanted


def _options(result: xr.Dataset) -> dict[str, Any]:
    return dict(json.loads(result.attrs["options"]))


def _top(result: xr.Dataset) -> int:
    """Units that count as the top."""
    return max(1, round_half_up(float(_options(result)["fraction"]) * result.sizes["unit"]))


def _in_top(result: xr.Dataset, task: str, suffix: str) -> np.ndarray:
    return np.asarray(result[f"rank{suffix}"].sel(task=task).values <= _top(result))


def plot(
    result: xr.Dataset,
    *,
    masked: bool | None = None,
    tasks: Sequence[str] | str | None = None,
    title: str | None = None,
    **_unused: Any,
) -> Figure:
    """Draw what each task loses without each unit.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.rank_units` returned.
    masked : bool, optional
        Whether to draw losses over the task's own classes; by default only where there are no others.
    tasks : str or sequence of str, optional
        Tasks, at most six; all by default. The first two make the scatter.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 5 inches wide, 8.9 with two tasks or more. Left: loss increase by the task's own rank with standard
        errors over images, the line of the intact network at 0, the top share shaded. Right: the increases of two
        tasks, unit by unit; not for greedy rankings, whose tasks lose units on top of different ones.

    Raises
    ------
    InputError
        If it is not a ranking, a task is unknown, or it has no ranking of this kind.
    """
    _check(result)
    suffix = _suffix(result, masked)
    names = _tasks(result, tasks, suffix)
    with plotting.style():
        return _draw(result, names, suffix, title)


def _draw(result: xr.Dataset, names: list[str], suffix: str, title: str | None) -> Figure:
    """Lay out and fill the figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    wide, square, left, gap = 3.6, _TALL, 0.85, 1.3
    bottom, top = 0.62, 0.98
    pair = _pair(result, names)
    width = left + wide + (gap + square + 0.25 if pair else 0.65)
    height = bottom + _TALL + top
    figure = plotting.new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, wide / width, _TALL / height))
    _by_rank(axes, result, names, suffix)
    if pair:
        beside = figure.add_axes(((left + wide + gap) / width, bottom / height, square / width, _TALL / height))
        _scatter(beside, result, pair, suffix)
    headline = title or f"Units of {result.attrs['layer']} that tasks need"
    figure.text(left / width, 1 - 0.1 / height, headline, va="top", fontsize=13, fontweight="bold")
    words = _STRATEGIES[str(_options(result)["strategy"])]
    figure.text(left / width, 1 - 0.36 / height, words, va="top", fontsize=9.5, color=plotting.SOFT)
    handles: list[Any] = [
        Line2D([], [], color=plotting.COLOURS[t], marker=plotting.MARKERS[t], markersize=5) for t in range(len(names))
    ]
    words_of = list(names)
    handles.append(Patch(color=plotting.BAND))
    words_of.append(f"top {_top(result)} of {result.sizes['unit']}")
    if pair:
        handles.append(Line2D([], [], linestyle="", marker="D", color=plotting.INK, markersize=5))
        words_of.append("top of both")
    figure.legend(
        handles, words_of, loc="upper left", ncols=len(handles), borderpad=0, borderaxespad=0, handletextpad=0.5,
        columnspacing=1.3, handlelength=1.6, bbox_to_anchor=(left / width, 1 - 0.62 / height),
    )  # fmt: skip
    return figure


def _pair(result: xr.Dataset, names: list[str]) -> list[str]:
    """The two tasks of the scatter; none where units were not measured alone."""
    return [] if len(names) < 2 or "step" in result else names[:2]


def _by_rank(axes: Axes, result: xr.Dataset, names: list[str], suffix: str) -> None:
    """Loss increase by the task's own rank."""
    from matplotlib.ticker import MaxNLocator

    n, k = result.sizes["unit"], _top(result)
    axes.axvspan(0.5, k + 0.5, color=plotting.BAND, linewidth=0, zorder=0)
    axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    for number, name in enumerate(names):
        some = result.sel(task=name)
        order = np.argsort(some[f"rank{suffix}"].values)
        x = np.arange(1, n + 1)
        y = some[f"loss_increase{suffix}"].values[order]
        error = np.nan_to_num(some[f"loss_increase_se{suffix}"].values[order])
        colour = plotting.COLOURS[number]
        if n <= _BARS:
            at = x + (number - (len(names) - 1) / 2) * min(0.3, 0.8 / len(names))
            axes.errorbar(at, y, yerr=error, fmt="none", ecolor=colour, elinewidth=1.0, zorder=2 + number)
            settled = x <= int(result.attrs.get("ordered", n))
            for chosen, face in ((settled, colour), (~settled, "white")):
                axes.plot(
                    at[chosen], y[chosen], plotting.MARKERS[number], color=colour, markerfacecolor=face,
                    markersize=4 if n <= 32 else 3, zorder=3 + number,
                )  # fmt: skip
        else:
            axes.fill_between(x, y - error, y + error, color=colour, alpha=0.25, linewidth=0, zorder=2)
            axes.plot(x, y, color=colour, linewidth=1.2, zorder=3 + number)
    axes.set_xlim(0.5 - 0.01 * n, n + 0.5 + 0.01 * n)
    ticks = [1, *(int(tick) for tick in MaxNLocator(5, integer=True).tick_values(1, n) if 1 < tick <= n)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xlabel("Rank of the unit, each task's own")
    axes.set_ylabel("Loss increase (nats)")
    axes.annotate(
        "no loss" if "step" in result else "intact", (1, 0), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize=9, color=plotting.SOFT,
    )  # fmt: skip


def _scatter(axes: Axes, result: xr.Dataset, pair: list[str], suffix: str) -> None:
    """The loss increases of two tasks, unit by unit."""
    x, y = (result[f"loss_increase{suffix}"].sel(task=name).values for name in pair)
    ex, ey = (np.nan_to_num(result[f"loss_increase_se{suffix}"].sel(task=name).values) for name in pair)
    first, second = (_in_top(result, name, suffix) for name in pair)
    axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    axes.axvline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    if len(x) <= _BARS:
        axes.errorbar(x, y, xerr=ex, yerr=ey, fmt="none", ecolor=plotting.FAINT, elinewidth=0.8, zorder=1.5)
    size = 5.0 if len(x) <= _BARS else 3.5
    kinds = (
        (~first & ~second, plotting.FAINT, "o", 0.7 * size),
        (first & ~second, plotting.COLOURS[0], plotting.MARKERS[0], size),
        (second & ~first, plotting.COLOURS[1], plotting.MARKERS[1], size),
        (first & second, plotting.INK, "D", size),
    )
    for chosen, colour, marker, side in kinds:
        axes.plot(x[chosen], y[chosen], marker, color=colour, markersize=side, zorder=3)
    extent = np.array([np.ptp(x) or 1.0, np.ptp(y) or 1.0])
    places = np.stack([x, y], axis=1) / extent
    named: list[int] = []
    for place in range(_NAMED):  # the first of both tasks before the second of either
        for name in pair:
            row = int(np.argsort(result[f"rank{suffix}"].sel(task=name).values)[place]) if place < len(x) else -1
            if row >= 0 and all(np.abs(places[row] - places[other]).max() > _APART for other in named):
                named.append(row)
    middle = 0.5 * (np.nanmin(x) + np.nanmax(x))
    for row in named:
        at_right = x[row] > middle
        axes.annotate(
            str(result["unit"].values[row]), (x[row], y[row]), xytext=(-4 if at_right else 4, 4),
            textcoords="offset points", fontsize=8, ha="right" if at_right else "left", color=plotting.INK, zorder=5,
        )  # fmt: skip
    axes.margins(0.08)
    axes.set_xlabel(f"Loss increase, {pair[0]} (nats)")
    axes.set_ylabel(f"Loss increase, {pair[1]} (nats)")


def caption(
    result: xr.Dataset, *, masked: bool | None = None, tasks: Sequence[str] | str | None = None, **_unused: Any
) -> str:
    """Say in sentences what the figure shows: layer, losses, images, strategy, reliability.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.rank_units` returned.
    masked : bool, optional
        As for :func:`plot`.
    tasks : str or sequence of str, optional
        As for :func:`plot`.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    _check(result)
    suffix = _suffix(result, masked)
    names = _tasks(result, tasks, suffix)
    n, k = result.sizes["unit"], _top(result)
    outputs = "the task's own outputs" if suffix else "all outputs"
    images = ", ".join(f"{int(result['n_images'].sel(task=name))} of {name}" for name in names)
    intact = "; ".join(
        f"{name}: loss {float(result[f'intact_loss{suffix}'].sel(task=name)):.3g}, accuracy "
        f"{plotting.short(float(result[f'intact_accuracy{suffix}'].sel(task=name)))}"
        for name in names
    )
    line = "Above 0: lost on top of earlier steps; intact network" if "step" in result else "At 0: the intact network"
    layer, network, note = (result.attrs[key] for key in ("layer", "network", "note"))
    text = [
        f"Mean increase of the cross-entropy over {outputs} when units of {layer} of {network} are silenced ({note}), "
        f"by each task's own ranking; images: {images}. Bars (bands where there are many units): one standard error of "
        f"the mean difference over images, the same for all units. {line} ({intact}). Shaded: the top {k} of {n}."
    ]
    if len(names) > 1:
        both = int((_in_top(result, names[0], suffix) & _in_top(result, names[1], suffix)).sum())
        common = f"{both} of the top {k} of {names[0]} and of {names[1]} are shared; by chance {k * k / n:.2g} would be"
        if _pair(result, names):
            text.append(f"Right: {names[0]} against {names[1]}, unit by unit; numbers name channels. {common}.")
        else:
            text.append(f"{common}.")
    text.append(_reliability(result, names, suffix))
    if int(result.attrs.get("approximate", 0)):
        text.append("The ranking is approximate: an exhaustive one can differ.")
    if int(result.attrs.get("ordered", n)) < n:
        settled = int(result.attrs["ordered"])
        text.append(f"Only the top {settled} are settled; the order of the rest is not (hollow marks).")
    return " ".join(text)


def _reliability(result: xr.Dataset, names: list[str], suffix: str) -> str:
    """How far halves of the images agree."""
    if f"top_overlap{suffix}" not in result:
        return "Its reliability was not measured."
    parts = [
        f"{name} {plotting.short(float(result[f'top_overlap{suffix}'].sel(task=name)))} and "
        f"{plotting.short(float(result[f'rank_correlation{suffix}'].sel(task=name)))}"
        for name in names
    ]
    chance = plotting.short(float(result.attrs["chance_overlap"]))
    return (
        "Reliability between rankings from disjoint halves of the images, share of the top in common (chance "
        f"{chance}) and Spearman correlation: {'; '.join(parts)}."
    )


def alt_text(
    result: xr.Dataset, *, masked: bool | None = None, tasks: Sequence[str] | str | None = None, **_unused: Any
) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.rank_units` returned.
    masked : bool, optional
        As for :func:`plot`.
    tasks : str or sequence of str, optional
        As for :func:`plot`.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    _check(result)
    suffix = _suffix(result, masked)
    names = _tasks(result, tasks, suffix)
    parts = []
    for name in names:
        values = result[f"loss_increase{suffix}"].sel(task=name).values
        unit = int(result["unit"].values[int(np.argmin(result[f"rank{suffix}"].sel(task=name).values))])
        parts.append(
            f"for {name} from {values.max():.2g} to {values.min():.2g} nats (median {np.median(values):.2g}), "
            f"channel {unit} ranked first"
        )
    text = f"Loss increase of each of {result.sizes['unit']} units of {result.attrs['layer']} by rank: "
    text += "; ".join(parts) + "."
    if _pair(result, names):
        x, y = (result[f"loss_increase{suffix}"].sel(task=name).values for name in names[:2])
        if x.std() > 0 and y.std() > 0:
            r = float(np.corrcoef(x, y)[0, 1])
            text += f" Beside it a scatter of {names[0]} against {names[1]}, correlation {plotting.short(r)}."
    return text
