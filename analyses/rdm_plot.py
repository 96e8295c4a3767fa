"""Figures of RDMs: matrices with their stimuli along the edge, and maps by multidimensional scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit import plotting
from actkit.errors import InputError
from actkit.recordings import leading_dim, squares

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Up to this many stimuli each one gets its own thumbnail along the edge; beyond, groups get examples.
_EACH = 24
_MOST = {"matrix": 12, "map": 6}


def plot(
    result: xr.Dataset,
    *,
    stimuli: Any = None,
    labels: Any = None,
    view: Literal["matrix", "map"] = "matrix",
    scale: Literal["percentile", "shared"] = "percentile",
    most: int | None = None,
    title: str | None = None,
    seed: int = 0,
) -> Figure:
    """Draw RDMs as matrices, or as maps of the stimuli.

    Parameters
    ----------
    result : xarray.Dataset
        RDM dataset: layers, subjects or models.
    stimuli : Stimuli, path or mapping of id to picture, optional
        Draws thumbnails: of each stimulus up to 24, of examples of each category beyond.
    labels : str, sequence or mapping, optional
        Categories: they order the stimuli and colour the edge. See :func:`actkit.plotting.stimulus_labels`.
    view : {"matrix", "map"}
        Dissimilarity matrices, or metric multidimensional scaling (which reports its stress).
    scale : {"percentile", "shared"}
        Colours show percentiles within each RDM, so that layers of different range can be compared; or the
        dissimilarities themselves on one scale for all.
    most : int
        Most panels, 12 matrices or 6 maps by default; of more RDMs an even choice is drawn, and the title says so.
    title : str, optional
        Headline.
    seed : int
        Seed of the scaling.

    Returns
    -------
    matplotlib.figure.Figure
        A grid of panels.

    Raises
    ------
    InputError
        If it is not an RDM dataset, or labels or pictures do not fit its stimuli.
    """
    leading_dim(result)
    most = _MOST.get(view, 1) if most is None else most
    if view == "map":
        from actkit.analyses.embedding import embed

        chosen, _ = _choose(result, most)
        maps = embed(chosen, seed=seed)
        maps.attrs["n_rdms"] = result.sizes[leading_dim(result)]
        return plot_maps(maps, stimuli=stimuli, labels=labels, title=title, most=most)
    if view != "matrix":
        raise InputError(f"view is {view!r}; choose 'matrix' or 'map'")
    if scale not in ("percentile", "shared"):
        raise InputError(f"scale is {scale!r}; choose 'percentile' or 'shared'")
    with plotting.style():
        return _draw_matrices(result, stimuli, labels, scale, most, title)


def _choose(result: xr.Dataset, most: int) -> tuple[xr.Dataset, str]:
    """An even choice of RDMs, and words that say so."""
    dim = leading_dim(result)
    n = result.sizes[dim]
    if most < 1:
        raise InputError(f"most is {most}; at least one panel is needed")
    if n <= most:
        return result, ""
    chosen = [0] if most == 1 else np.unique(np.linspace(0, n - 1, most).round().astype(int)).tolist()
    return result.isel({dim: chosen}), f"{len(chosen)} of {n} {dim}s, evenly spaced"


def percentiles(values: np.ndarray) -> np.ndarray:
    """Rank-transform a vector of dissimilarities.

    Parameters
    ----------
    values : numpy.ndarray
        ``(pairs,)``, NaN where there is no value.

    Returns
    -------
    numpy.ndarray
        Percentiles from 0 to 100, the mean of ties; NaN stays; a constant vector becomes 50.
    """
    from scipy.stats import rankdata

    result = np.full(values.shape, np.nan)
    kept = np.isfinite(values)
    n = int(kept.sum())
    if n:
        result[kept] = (rankdata(values[kept]) - 1) / (n - 1) * 100 if n > 1 else 50.0
    return result


def _order(groups: np.ndarray | None, n: int) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
    """Stimulus order by category (first seen first), and each category's first and last place."""
    if groups is None:
        return np.arange(n), []
    names = list(dict.fromkeys(groups.tolist()))
    rank = {name: number for number, name in enumerate(names)}
    order = np.argsort([rank[g] for g in groups], kind="stable")
    runs, start = [], 0
    for name in names:
        count = int((groups == name).sum())
        runs.append((name, start, start + count))
        start += count
    return order, runs


def _grid(k: int) -> tuple[int, int]:
    """Columns and rows for k panels."""
    columns = k if k <= 3 else (2 if k == 4 else min(4, -(-k // 2) if k < 8 else 4))
    return columns, -(-k // columns)


def _draw_matrices(result: xr.Dataset, stimuli: Any, labels: Any, scale: str, most: int, title: str | None) -> Figure:
    """Lay out and fill the matrix figure."""
    import matplotlib as mpl

    dim = leading_dim(result)
    groups = plotting.stimulus_labels(result, labels, stimuli)
    chosen, choice = _choose(result, most)
    ids = chosen["stimulus"].values.astype(str)
    n, k = len(ids), chosen.sizes[dim]
    order, runs = _order(groups, n)
    matrices = squares(chosen).astype(float)
    row, column = np.triu_indices(n, 1)
    if scale == "percentile":
        for matrix in matrices:
            matrix[row, column] = matrix[column, row] = percentiles(matrix[row, column])
        limits = (0.0, 100.0)
    else:
        upper = matrices[:, row, column]
        known = np.isfinite(upper).any()
        limits = (float(np.nanmin(upper)), float(np.nanmax(upper))) if known else (0.0, 1.0)
    for matrix in matrices:
        np.fill_diagonal(matrix, np.nan)
    matrices = matrices[:, order][:, :, order]

    columns, rows = _grid(k)
    side = {1: 4.6, 2: 3.3, 3: 2.6}.get(columns, 2.0)
    edge = _edge_width(stimuli, n, runs, side)
    legend = _legend_rows(runs, edge[1] + columns * (side + 0.25)) if runs and not edge[2] else []
    left, bottom, bar, between = edge[1] + 0.15, 0.3, 0.95, 0.22
    over = 0.34 if k > 1 else 0.14
    top = 0.6 - over + 0.2 + 0.22 * len(legend)
    width = max(left + columns * side + (columns - 1) * between + bar, 4.6)
    height = bottom + rows * (side + over) + top
    figure = plotting.new_figure(width, height)
    colours = mpl.colormaps[plotting.SEQUENTIAL].with_extremes(bad="white")
    names = chosen[dim].values.astype(str)
    image = None
    for number in range(k):
        x = left + (number % columns) * (side + between)
        y = height - top - (number // columns + 1) * (side + over) + 0.0
        axes = figure.add_axes((x / width, y / height, side / width, side / height))
        image = axes.imshow(
            matrices[number], cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest" if n < 400 else None
        )
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        for _, start, _stop in runs[1:]:
            axes.axhline(start - 0.5, color="white", linewidth=0.8)
            axes.axvline(start - 0.5, color="white", linewidth=0.8)
        if k > 1:
            axes.set_title(_shorten(names[number], int(side / 0.075)), loc="left", pad=4, fontsize=9.5)
        _draw_edge(axes, stimuli, ids[order], runs, side, first=number % columns == 0, names=bool(edge[2]))
    assert image is not None
    scale_axes = figure.add_axes(
        (
            (left + columns * side + (columns - 1) * between + 0.15) / width,
            (height - top - side - over) / height,
            0.12 / width,
            side / height,
        )
    )
    drawn = figure.colorbar(image, cax=scale_axes)
    drawn.outline.set_visible(False)
    scale_axes.tick_params(length=0, labelsize=9)
    if scale == "percentile":
        drawn.set_ticks([0, 50, 100], labels=["0", "50", "100 %"])
    measure = str(result.attrs.get("measure", "")).replace("_", " ")
    words = "percentile in each RDM" if scale == "percentile" else f"{measure} dissimilarity".strip()
    scale_axes.set_ylabel(words, fontsize=9, labelpad=2)
    single = f": {names[0]}" if k == 1 else ""
    parts = [f"{n} stimuli", f"{measure} dissimilarity" if measure else "", choice]
    _headline(
        figure,
        result,
        title or f"RDM{'s' if k > 1 else ''} of {_name(result)}{single}",
        "; ".join(p for p in parts if p),
        0.15,
        height,
    )
    _draw_legend(figure, legend, runs, 0.15 / width, height, marker="s")
    return figure


def _name(result: xr.Dataset) -> str:
    """Name of the RDMs for a headline."""
    return str(result.attrs.get("name") or "unnamed data")


def _headline(figure: Figure, result: xr.Dataset, title: str, line: str, left: float, height: float) -> None:
    """Title and one grey line below it."""
    if str(result.attrs.get("simulated", 0)).lower() in ("1", "true", "yes") and "simulated" not in title.lower():
        title += "  (simulated data)"
    x = left / figure.get_figwidth()
    figure.text(x, 1 - 0.08 / height, title, va="top", fontsize=13, fontweight="bold")
    figure.text(x, 1 - 0.34 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)


def _shorten(text: str, most: int) -> str:
    """Cut the middle out of a long name."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most - most // 2) :]}"


def _edge_width(stimuli: Any, n: int, runs: list[tuple[str, int, int]], side: float) -> tuple[float, float, bool]:
    """Inches for one thumbnail, inches left of a panel, and whether category names stand there."""
    if stimuli is not None and n <= _EACH:
        return side / n, side / n + (0.12 if runs else 0.05), False
    # Names fit beside their categories when every category is taller than a line of text.
    readable = bool(runs) and all((stop - start) / n * side >= 0.15 for _, start, stop in runs)
    if stimuli is not None:
        return 0.3, 0.5 if runs else 0.4, False
    if readable:
        return 0.0, 0.2 + 0.075 * min(max(len(name) for name, *_ in runs), 24), True
    return 0.0, 0.12 if runs else 0.0, False


def _draw_edge(
    axes: Axes, stimuli: Any, ids: np.ndarray, runs: list[tuple[str, int, int]], side: float, first: bool, names: bool
) -> None:
    """Category colours at the left and below; thumbnails or names at the left of each row of panels."""
    from matplotlib.patches import Rectangle

    n = len(ids)
    inch = n / side
    colours = plotting.group_colours([name for name, *_ in runs])
    for name, start, stop in runs:
        for corner, size in (
            ((-0.5 - 0.11 * inch, start - 0.5), (0.07 * inch, stop - start)),
            ((start - 0.5, n - 0.5 + 0.04 * inch), (stop - start, 0.07 * inch)),
        ):
            axes.add_patch(Rectangle(corner, *size, color=colours[name], linewidth=0, clip_on=False))
        if first and names:
            axes.text(
                -0.5 - 0.16 * inch, (start + stop - 1) / 2, _shorten(name, 24), ha="right", va="center", fontsize=9
            )
    if stimuli is None or not first:
        return
    beyond = -0.5 - (0.13 if runs else 0.03) * inch
    if n <= _EACH:
        shown = [(i, float(i), 1.0) for i in range(n)]
    else:
        shown = _examples(n, runs, inch * 0.3)
    pictures = plotting.thumbnails(stimuli, [str(ids[i]) for i, *_ in shown])
    for (_, centre, side_in_rows), picture in zip(shown, pictures, strict=True):
        axes.imshow(
            picture,
            extent=(beyond - side_in_rows, beyond, centre + side_in_rows / 2, centre - side_in_rows / 2),
            clip_on=False,
            interpolation="antialiased",
        )
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)


def _examples(n: int, runs: list[tuple[str, int, int]], size: float) -> list[tuple[int, float, float]]:
    """Which stimuli stand for the rest along the edge: index, place, size in rows; each beside its own row."""
    slots = max(2, int(n / (size * 1.05)))
    shown: list[tuple[int, float, float]] = []
    for _, start, stop in runs or [("", 0, n)]:
        count = min(max(1, int((stop - start) / n * slots)), stop - start)
        for j in range(count):
            index = start + int((j + 0.5) * (stop - start) / count)
            shown.append((index, float(index), size))
    # Small categories may crowd: their examples are moved apart, and leave out what still overlaps.
    places = plotting.spread([place for _, place, _ in shown], size * 1.05, size / 2 - 0.5, n - 0.5 - size / 2)
    if len(shown) > slots:
        keep = plotting.thin(len(shown), slots)
        places = plotting.spread([shown[i][1] for i in keep], size * 1.05, size / 2 - 0.5, n - 0.5 - size / 2)
        shown = [shown[i] for i in keep]
    return [(index, float(place), size) for (index, _, size), place in zip(shown, places, strict=True)]


def _legend_rows(runs: list[tuple[str, int, int]], width: float) -> list[list[str]]:
    """Category names broken into lines that fit the figure; at most five lines."""
    rows: list[list[str]] = []
    used = width
    for name, *_ in runs:
        need = 0.45 + 0.07 * len(_shorten(name, 24))
        if used + need > width + 0.6:
            rows.append([])
            used = 0.0
        rows[-1].append(name)
        used += need
    return rows[:5]


def _draw_legend(
    figure: Figure, rows: list[list[str]], runs: Sequence[tuple[str, int, int]], left: float, height: float, marker: str
) -> None:
    """Category colours under the headline."""
    from matplotlib.lines import Line2D

    colours = plotting.group_colours([name for name, *_ in runs])
    listed = sum(map(len, rows))
    for number, row in enumerate(rows):
        handles = [Line2D([], [], linestyle="", marker=marker, markersize=7, color=colours[name]) for name in row]
        words = [_shorten(name, 24) or "no label" for name in row]
        if number == len(rows) - 1 and listed < len(runs):
            words[-1] += f"  … {len(runs) - listed} more"
        figure.legend(
            handles,
            words,
            loc="upper left",
            bbox_to_anchor=(left, 1 - (0.55 + 0.22 * number) / height),
            ncols=len(row),
            borderpad=0,
            borderaxespad=0,
            handletextpad=0.2,
            columnspacing=1.0,
            handlelength=1.2,
        )


def plot_maps(
    result: xr.Dataset, *, stimuli: Any = None, labels: Any = None, title: str | None = None, most: int = 12
) -> Figure:
    """Draw maps of stimuli: near means similar.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.analyses.embedding.embed`` returned.
    stimuli : Stimuli, path or mapping of id to picture, optional
        Draws the stimuli themselves; dots otherwise.
    labels : str, sequence or mapping, optional
        Categories, shown as colours.
    title : str, optional
        Headline.
    most : int
        Most panels.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each RDM, with its stress.

    Raises
    ------
    InputError
        If `result` holds no maps, or labels or pictures do not fit.
    """
    if not {"x", "y", "stress"} <= set(map(str, result.variables)):
        raise InputError("the result holds no maps (x, y, stress); make them with actkit.analyses.embedding.embed()")
    with plotting.style():
        return _draw_maps(result, stimuli, labels, title, most)


def _draw_maps(result: xr.Dataset, stimuli: Any, labels: Any, title: str | None, most: int) -> Figure:
    """Lay out and fill the map figure."""
    dim = str(result["stress"].dims[0])
    total = int(result.attrs.get("n_rdms", result.sizes[dim]))
    if result.sizes[dim] > most:
        result = result.isel({dim: np.unique(np.linspace(0, result.sizes[dim] - 1, most).round().astype(int))})
    groups = plotting.stimulus_labels(result, labels, stimuli)
    ids = result["stimulus"].values.astype(str)
    n, k = len(ids), result.sizes[dim]
    _, runs = _order(groups, n)
    columns, rows = _grid(k)
    side = {1: 5.2, 2: 3.6, 3: 2.8}.get(columns, 2.3)
    between, left, bottom, over = 0.2, 0.15, 0.1, 0.32
    width = max(2 * left + columns * side + (columns - 1) * between, 4.6)
    legend = _legend_rows(runs, width - 0.6)
    top = 0.6 - over + 0.2 + 0.22 * len(legend)
    height = bottom + rows * (side + over) + top
    figure = plotting.new_figure(width, height)
    pictures = plotting.thumbnails(stimuli, list(ids)) if stimuli is not None else None
    colours = plotting.group_colours([name for name, *_ in runs])
    colour = [colours[group] for group in groups] if groups is not None else [plotting.COLOURS[0]] * n
    names = result[dim].values.astype(str)
    # Thumbnails take a fixed share of the panel's area, so that they neither vanish nor pile up.
    size = side * min(0.16, 0.62 / np.sqrt(n))
    for number in range(k):
        x = left + (number % columns) * (side + between)
        y = height - top - (number // columns + 1) * (side + over)
        axes = figure.add_axes((x / width, y / height, side / width, side / height))
        points = np.stack([result["x"].values[number], result["y"].values[number]], axis=1)
        points = points - np.nanmean(points, axis=0)
        reach = (float(np.nanmax(np.abs(points))) or 1.0) * (1 + size / side) * 1.03
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color("#dddddd")
        if pictures is None:
            dot = 6.5 if n <= 100 else (4.5 if n <= 400 else 2.5)
            for i in range(n):
                if np.isfinite(points[i, 0]):
                    axes.plot(*points[i], "o", color=colour[i], markersize=dot, alpha=0.85, markeredgewidth=0)
        else:
            _place_pictures(axes, points, pictures, colour if groups is not None else None, size / side * reach)
        left_out = int(result["n_left_out"].values[number]) if "n_left_out" in result else 0
        note = f"stress {plotting.short(float(result['stress'].values[number]))}"
        note += f", {left_out} left out" if left_out else ""
        axes.set_title(_shorten(names[number], int(side / 0.075) - len(note) - 2), loc="left", pad=4, fontsize=9.5)
        axes.set_title(note, loc="right", pad=4, fontsize=9, color=plotting.SOFT)
    measure = str(result.attrs.get("measure", "")).replace("_", " ")
    choice = f"{k} of {total} {dim}s" if total > k else ""
    parts = [f"{n} stimuli, near means similar", f"metric scaling of {measure} RDMs" if measure else "", choice]
    _headline(figure, result, title or f"Maps of {_name(result)}", "; ".join(p for p in parts if p), left, height)
    _draw_legend(figure, legend, runs, left / width, height, marker="o")
    return figure


def _place_pictures(
    axes: Axes, points: np.ndarray, pictures: list[np.ndarray], colours: list[Any] | None, half: float
) -> None:
    """Thumbnails centred on their points, framed in the colour of their category."""
    from matplotlib.patches import Rectangle

    limits = axes.get_xlim(), axes.get_ylim()
    for i, ((x, y), picture) in enumerate(zip(points, pictures, strict=True)):
        if not np.isfinite(x):
            continue
        axes.imshow(picture, extent=(x - half, x + half, y - half, y + half), interpolation="antialiased", zorder=2 + i)
        if colours is not None:
            axes.add_patch(
                Rectangle(
                    (x - half, y - half),
                    2 * half,
                    2 * half,
                    fill=False,
                    edgecolor=colours[i],
                    linewidth=1.3,
                    zorder=2 + i,
                )
            )
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def caption(
    result: xr.Dataset,
    *,
    view: Literal["matrix", "map"] = "matrix",
    scale: Literal["percentile", "shared"] = "percentile",
    labels: Any = None,
    stimuli: Any = None,
    most: int | None = None,
    seed: int = 0,
    **_unused: Any,
) -> str:
    """Say in sentences what the figure shows: measure, stimuli, order, colours, choice of panels.

    Parameters
    ----------
    result : xarray.Dataset
        An RDM dataset.
    view, scale, labels, stimuli, most, seed
        As given to :func:`plot`.

    Returns
    -------
    str
        Plain text.
    """
    most = _MOST.get(view, 1) if most is None else most
    if view == "map":
        from actkit.analyses.embedding import embed

        chosen, _ = _choose(result, most)
        maps = embed(chosen, seed=seed)
        maps.attrs["n_rdms"] = result.sizes[leading_dim(result)]
        return map_caption(maps, labels=labels, stimuli=stimuli)
    dim = leading_dim(result)
    groups = plotting.stimulus_labels(result, labels, stimuli)
    measure = str(result.attrs.get("measure", "")).replace("_", " ")
    _, choice = _choose(result, most)
    n = result.sizes["stimulus"]
    text = [f"Representational dissimilarity matrices of {_name(result)}: {n} stimuli, {measure} dissimilarity."]
    if choice:
        text.append(f"Shown are {choice}.")
    if groups is not None:
        text.append(f"Stimuli are ordered and marked by category ({len(set(groups.tolist()))} of them).")
    else:
        text.append("Stimuli are in the order of the recording.")
    if scale == "percentile":
        text.append(
            "Colours are percentiles of the dissimilarities within each matrix, so they compare patterns, not sizes."
        )
    else:
        text.append("Colours are the dissimilarities, on one scale for all matrices.")
    missing = np.isnan(result["dissimilarity"].values).any(axis=1)
    if missing.any():
        text.append(
            f"White off the diagonal: no value ({int(missing.sum())} of {len(missing)} {dim}s have such pairs)."
        )
    return " ".join(text)


def map_caption(result: xr.Dataset, *, labels: Any = None, stimuli: Any = None, **_unused: Any) -> str:
    """Say in sentences what the maps show.

    Parameters
    ----------
    result : xarray.Dataset
        What ``actkit.analyses.embedding.embed`` returned.
    labels, stimuli
        As given to :func:`plot_maps`.

    Returns
    -------
    str
        Plain text.
    """
    dim = str(result["stress"].dims[0])
    stress = result["stress"].values
    measure = str(result.attrs.get("measure", "")).replace("_", " ")
    values = plotting.short(float(stress[0]))
    if len(stress) > 1:
        values = f"{plotting.short(float(stress.min()))} to {plotting.short(float(stress.max()))}"
    groups = plotting.stimulus_labels(result, labels, stimuli)
    colours = " Colours mark the category." if groups is not None else ""
    turned = (
        f" Each {dim}'s map is turned onto the one before; axes have no meaning."
        if len(stress) > 1
        else (" Axes have no meaning.")
    )
    return (
        f"Stimuli of {_name(result)} placed so that distances in the plane match their {measure} dissimilarities "
        f"(metric multidimensional scaling; stress-1 {values}, where 0 is perfect).{colours}{turned}"
    )


def alt_text(result: xr.Dataset, *, view: Literal["matrix", "map"] = "matrix", **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        An RDM dataset.
    view : {"matrix", "map"}
        As given to :func:`plot`.

    Returns
    -------
    str
        One sentence.
    """
    dim = leading_dim(result)
    kind = "Dissimilarity matrices" if view == "matrix" else "Two-dimensional maps"
    names = result[dim].values.astype(str)
    which = names[0] if len(names) == 1 else f"{len(names)} {dim}s, from {names[0]} to {names[-1]}"
    return f"{kind} of {result.sizes['stimulus']} stimuli for {_name(result)}: {which}."
