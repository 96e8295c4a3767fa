"""Panels of the figures of specialization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.segregation_panels import legend
from actkit.analyses.specialization_sweep import over_seeds
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEADS = {"p": "Specialization against connections between modules", "Q": "Specialization against modularity",
          "covariance": "Specialization against the covariance of the digits"}  # fmt: skip
_LABELS = {"p": "p (share of connections, log)", "Q": "Structural modularity Q", "covariance": "Covariance ratio c"}
_ALONG = {"p": "p", "Q": "Q", "covariance": "cov_ratio"}
_DASHED = (0, (4, 2))
_MOST = 5  # kinds of networks that one panel of time courses can carry


def _grid(
    columns: int, wide: float, tall: tuple[float, float], top: float, gap: float = 0.35, right: float = 0.25
) -> tuple[Figure, np.ndarray, float]:
    """A figure of two rows of axes under a headline, in inches."""
    left, bottom, between = 0.85, 0.62, 0.22
    width = left + columns * wide + (columns - 1) * gap + right
    height = bottom + sum(tall) + between + top
    figure = plotting.new_figure(width, height)
    axes = np.empty((2, columns), dtype=object)
    for row in range(2):
        y = bottom if row else bottom + tall[1] + between
        for column in range(columns):
            place = ((left + column * (wide + gap)) / width, y / height, wide / width, tall[row] / height)
            share = axes[0, 0] if row == 0 else axes[1, 0]
            axes[row, column] = figure.add_axes(
                place, sharey=share if column else None, sharex=axes[0, column] if row else None
            )
            if column:
                axes[row, column].tick_params(labelleft=False)
            if row == 0:
                axes[row, column].tick_params(labelbottom=False)
    return figure, axes, left


def _head(figure: Figure, left: float, headline: str, line: str) -> None:
    """Headline and what stands below it in small."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - 0.1 / height, headline, va="top", fontsize=13, fontweight="bold")
    figure.text(left / width, 1 - 0.36 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)


def _legend(figure: Figure, left: float, handles: list[Any], words: list[str], columns: int | None = None) -> None:
    """One legend under the headline."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles, words, loc="upper left", ncols=columns or len(handles), borderpad=0, borderaxespad=0,
        handletextpad=0.5, columnspacing=1.5, handlelength=2.2, bbox_to_anchor=(left / width, 1 - 0.64 / height),
    )  # fmt: skip


def against(result: xr.Dataset, kind: str, title: str | None) -> Figure:
    """Draw S by measure against p, Q or covariance, and the task accuracy below.

    Parameters
    ----------
    result : xarray.Dataset
        What summarise_sweep() returned.
    kind : {"p", "Q", "covariance"}
        What stands along x.
    title : str or None
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        A column for each measure, a line for each size (and, against covariance, each number of connections).

    Raises
    ------
    InputError
        If no trained network can be shown.
    """
    from matplotlib.lines import Line2D

    measures = [str(name) for name in result["measure"].values]
    lines = _lines(result, kind)
    if not lines:
        raise InputError(f"the sweep has no trained networks to draw against {kind}; train some")
    figure, axes, left = _grid(len(measures), 2.75, (2.5, 1.35), 1.2)
    level = 100 * float(result.attrs.get("level", 0.95))
    _head(
        figure, left, title or _HEADS[kind],
        f"Mean over {result.sizes['seed']} seeds, {level:g} % t interval; task accuracy below"
        + ("; one connection stands at 1/n²" if kind == "p" else ""),
    )  # fmt: skip
    x = result[_ALONG[kind]].values.astype(float)
    for column, measure in enumerate(measures):
        top, low = axes[:, column]
        for number, (_, trained, before) in enumerate(lines):
            colour, marker = plotting.COLOURS[number % 7], plotting.MARKERS[number % 7]
            # Sizes side by side where they have the same x: intervals would cover each other.
            shift = (number - (len(lines) - 1) / 2) * (0.035 if kind == "p" else 0.008 if kind == "Q" else 0.012)
            for cells, filled in ((before, False), (trained, True)):
                if not len(cells):
                    continue
                order = cells[np.argsort(x[cells])]
                at = x[order] * 10**shift if kind == "p" else x[order] + shift
                for axes_, name in ((top, "S"), (low, "task_accuracy")):
                    values = result[f"{name}_seeds"]
                    values = values.sel(measure=measure) if name == "S" else values
                    _line(axes_, at, values.isel(cell=order).values, result, colour, marker, filled)
        top.set_title(measure.capitalize(), loc="left")
        low.set_xlabel(_LABELS[kind])
        top.axhline(0, color=plotting.FAINT, linewidth=0.8, zorder=0)
        if kind == "p":
            low.set_xscale("log")
            low.xaxis.set_major_formatter("{x:g}")
        low.axhline(float(result.attrs["chance"]), color=plotting.SOFT, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    axes[0, 0].set_ylabel("Specialization S")
    axes[1, 0].set_ylabel("Task\naccuracy")
    axes[0, 0].set_ylim(-0.05, max(1.08, axes[0, 0].get_ylim()[1] if axes[0, 0].get_ylim()[1] < 1.3 else 1.3))
    axes[1, 0].set_ylim(0, 1.02)
    handles: list[Any] = [
        Line2D([], [], color=plotting.COLOURS[k % 7], marker=plotting.MARKERS[k % 7], markersize=6, linewidth=1.6)
        for k in range(len(lines))
    ]
    words = [words for words, *_ in lines]
    if any(len(before) for *_, before in lines):
        handles.append(
            Line2D([], [], color=plotting.SOFT, marker="o", markersize=6, markerfacecolor="white", linewidth=1.1,
                   linestyle=_DASHED)
        )  # fmt: skip
        words.append("untrained")
    _legend(figure, left, handles, words)
    return figure


def _lines(result: xr.Dataset, kind: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Words, trained cells and untrained cells of every line."""
    trained = result["trained"].values.astype(bool)
    units, links = result["cell_units"].values, result["connections"].values
    c = result["cov_ratio"].values
    shown = np.ones(len(c), dtype=bool)
    found = []
    if kind == "covariance":
        for size, count in sorted(set(zip(units.tolist(), links.tolist(), strict=True))):
            here = (units == size) & (links == count)
            if len(np.unique(c[here & trained])) > 1:
                words = f"n = {size}, {count} connection{'s' * (count != 1)}"
                found.append((words, np.flatnonzero(here & trained), np.flatnonzero(here & ~trained)))
        return found
    shown &= c == float(result.attrs["plain_cov_ratio"])
    if kind == "p":
        shown &= result["p"].values > 0  # no place on a log axis
    for size in np.unique(units):
        here = shown & (units == size)
        if (here & trained).any():
            found.append((f"n = {size}", np.flatnonzero(here & trained), np.flatnonzero(here & ~trained)))
    return found


def _line(
    axes: Axes, x: np.ndarray, values: np.ndarray, result: xr.Dataset, colour: str, marker: str, filled: bool
) -> None:
    """Means over seeds (place, seed) with intervals."""
    mean, low, high, _ = over_seeds(values, float(result.attrs.get("level", 0.95)))
    error = np.nan_to_num(np.maximum(np.stack([mean - low, high - mean]), 0))
    alpha = 1.0 if filled else 0.75
    axes.errorbar(
        x, mean, yerr=error, fmt="none", ecolor=colour, elinewidth=1.3 if filled else 0.9, zorder=4, alpha=alpha
    )
    axes.plot(
        x, mean, color=colour, marker=marker, markersize=5.6, markeredgewidth=1.2, zorder=5, alpha=alpha,
        linewidth=1.6 if filled else 1.0, linestyle="-" if filled else _DASHED,
        markerfacecolor=colour if filled else "white",
    )  # fmt: skip


def dynamics(result: xr.Dataset, title: str | None, units: int | None = None) -> Figure:
    """Draw time courses of index and accuracies, a column for each lag.

    Parameters
    ----------
    result : xarray.Dataset
        What specialization_dynamics() returned.
    title : str or None
        Headline.
    units : int, optional
        Size; see :func:`shown_networks`.

    Returns
    -------
    matplotlib.figure.Figure
        Index above, accuracies below.

    Raises
    ------
    InputError
        If there is no such size.
    """
    from matplotlib.lines import Line2D

    groups = shown_networks(result, units)
    lags = [int(lag) for lag in result["lag"].values]
    since = result["since"].values.astype(float)
    figure, axes, left = _grid(len(lags), 1.9, (2.2, 1.7), 1.5, gap=0.3)
    _head(
        figure, left, title or "What modules know when images appear at different times",
        "Each column: lag, own minus other onset; mean over modules and networks, bands: 95 % t interval over networks",
    )  # fmt: skip
    chance = float(np.mean(result["chance"].values))
    known = np.isfinite(result["index"].values)
    ends = since[known.any(axis=(0, 1, 2))]
    for column, lag in enumerate(lags):
        top, low = axes[:, column]
        some = result.sel(lag=lag)
        for number, rows in enumerate(groups.values()):
            colour, marker = plotting.COLOURS[number], plotting.MARKERS[number]
            for panel, name, style in ((top, "index", "-"), (low, "own", "-"), (low, "other", _DASHED)):
                values = some[name].isel(network=rows).mean("part", skipna=False).transpose("since", "network").values
                mean, bottom, upper, _ = over_seeds(values)
                panel.fill_between(since, bottom, upper, color=colour, alpha=0.15, linewidth=0, zorder=2)
                panel.plot(
                    since, mean, color=colour, marker=marker, markersize=4.6, linewidth=1.6, linestyle=style, zorder=4,
                    markerfacecolor="white" if name == "other" else colour,
                )  # fmt: skip
            joint = some["joint"].isel(network=rows).mean("part").values
            top.plot(
                ends.max() + 0.75, np.nanmean(joint), "x", color=colour, markersize=6, markeredgewidth=1.6, zorder=5
            )
        top.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
        low.axhline(chance, color=plotting.SOFT, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        for panel in (top, low):
            panel.axvline(0, color=plotting.FAINT, linewidth=0.8, zorder=0)
            if ends.min() <= -lag <= ends.max() and lag:
                panel.axvline(-lag, color=plotting.FAINT, linewidth=0.8, linestyle=_DASHED, zorder=0)
        top.set_title(f"Lag {lag:+d}".replace("-", "−") if lag else "Lag 0", loc="left")
        low.set_xlim(ends.min() - 0.4, ends.max() + 1.15)
        low.set_xticks(np.arange(ends.min(), ends.max() + 1))
    axes[0, 0].set_ylabel("Index\n(own − other)/(own + other)", linespacing=1.3)
    axes[1, 0].set_ylabel("Accuracy")
    axes[0, 0].set_ylim(-1, 1)
    axes[1, 0].set_ylim(0, 1.02)
    axes[1, len(lags) // 2].set_xlabel("Steps since the own onset (dashed line: the other's onset)")
    soft: dict[str, Any] = {"color": plotting.SOFT, "linewidth": 1.6, "marker": "o", "markersize": 5}
    handles: list[Any] = [
        Line2D([], [], color=plotting.COLOURS[k], marker=plotting.MARKERS[k], markersize=5.5, linewidth=1.6)
        for k in range(len(groups))
    ]
    handles += [
        Line2D([], [], **soft),
        Line2D([], [], markerfacecolor="white", linestyle=_DASHED, **soft),
        Line2D([], [], color=plotting.SOFT, marker="x", markersize=6, markeredgewidth=1.6, linestyle="none"),
    ]
    words = ["own sub-task", "other sub-task", "all modules read, last step"]
    legend(figure, left, [(handles[: len(groups)], list(groups)), (handles[len(groups) :], words)])
    return figure


def shown_networks(result: xr.Dataset, units: int | None = None) -> dict[str, np.ndarray]:
    """Choose the networks whose time courses are drawn.

    Parameters
    ----------
    result : xarray.Dataset
        What specialization_dynamics() returned.
    units : int, optional
        Size; by default the middle one of those there are.

    Returns
    -------
    dict of str to numpy.ndarray of int
        By words, their numbers: trained networks of the size and the most frequent covariance, by p above 0, five at
        most, the sparsest and the densest among them. Without the coordinates units and p, all together.

    Raises
    ------
    InputError
        If there is no such size.
    """
    n = result.sizes["network"]
    if not {"units", "p"} <= set(result.coords):
        return {f"{n} network{'s' * (n != 1)}": np.arange(n)}
    here = np.ones(n, dtype=bool)
    if "trained" in result.coords and result["trained"].values.any():
        here = result["trained"].values.astype(bool)
    if "cov_ratio" in result.coords:
        values, counts = np.unique(result["cov_ratio"].values[here], return_counts=True)
        here = here & (result["cov_ratio"].values == values[np.flatnonzero(counts == counts.max())[-1]])
    sizes = np.unique(result["units"].values[here])
    size = sizes[len(sizes) // 2] if units is None else units
    here = here & (result["units"].values == size)
    if not here.any():
        raise InputError(f"there are no networks of {units} units; there are some of {sizes.tolist()}")
    shares = np.unique(result["p"].values[here])
    shares = shares[shares > 0] if (shares > 0).any() else shares
    if len(shares) > _MOST:
        shares = shares[np.rint(np.linspace(0, len(shares) - 1, _MOST)).astype(int)]
    found: dict[str, np.ndarray] = {}
    for share in shares:
        rows = np.flatnonzero(here & (result["p"].values == share))
        named = float(result["asked_p"].values[rows[0]]) if "asked_p" in result.coords else float(share)
        one = round(share * float(size) ** 2) == 1
        words = "one connection" if one else f"p = {named if named >= 0 else share:.2g}"
        found[f"n = {size:g}, {words}"] = rows
    return found


def matrix(one: xr.Dataset, title: str | None) -> Figure:
    """Draw what every part knows of every sub-task at the last step, a grid for each measure.

    Parameters
    ----------
    one : xarray.Dataset
        A specialization result of one network.
    title : str or None
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        Shares right with what is known beyond chance as colour; for correlation the corrected value itself.
    """
    measures = [str(name) for name in one["measure"].values]
    parts, tasks = [str(name) for name in one["part"].values], [str(name) for name in one["task"].values]
    cell = 0.72
    wide, tall = max(1.5, cell * len(tasks)), cell * len(parts)
    label = 0.3 + 0.085 * max(map(len, parts))
    below = plotting.label_depth(tasks, wide)
    left, gap, top, bottom, bar = 0.15 + label, 0.4, 1.0, below + 0.25, 0.8
    width = max(left + len(measures) * wide + (len(measures) - 1) * gap + bar, 5.2)
    height = bottom + tall + top
    figure = plotting.new_figure(width, height)
    _head(
        figure, 0.15, title or f"What each part knows: {one['network'].item()!s}",
        "Shares right; correlation: similarity of equal answers beyond any two; colour: 0 chance, 1 perfect",
    )  # fmt: skip
    known = one["known"].transpose("measure", "part", "task", "time").values[..., -1]
    seen = one["accuracy"].transpose("measure", "part", "task", "time").values[..., -1]
    image = None
    for column, measure in enumerate(measures):
        place = ((left + column * (wide + gap)) / width, bottom / height, wide / width, tall / height)
        axes = figure.add_axes(place)
        image = axes.imshow(known[column], vmin=0, vmax=1, cmap=plotting.SEQUENTIAL, aspect="auto")
        for m in range(len(parts)):
            for k in range(len(tasks)):
                value = known[column, m, k] if measure == "correlation" else seen[column, m, k]
                axes.text(
                    k, m, plotting.short(float(value)), ha="center", va="center", fontsize=10.5,
                    color="white" if known[column, m, k] < 0.55 else plotting.INK,
                )  # fmt: skip
        s = float(one["S"].sel(measure=measure).values[-1])
        axes.set_title(f"{measure.capitalize()}: S {plotting.short(s)}", loc="left")
        axes.set_xticks(range(len(tasks)))
        angle: dict[str, Any] = {"rotation": 38, "ha": "right", "rotation_mode": "anchor"} if below > 0.35 else {}
        axes.set_xticklabels(tasks, **angle)
        axes.set_yticks(range(len(parts)))
        axes.set_yticklabels(parts if not column else [])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    place = ((left + len(measures) * (wide + gap) - gap + 0.2) / width, bottom / height, 0.12 / width, tall / height)
    if image is not None:
        bar_axes = figure.add_axes(place)
        figure.colorbar(image, cax=bar_axes, ticks=[0, 0.5, 1])
        bar_axes.set_yticklabels(["0", ".5", "1"])
    return figure
