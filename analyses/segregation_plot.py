"""Figures of segregation: the index by layer with its null, cumulative lesions, the four drops, shared units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from actkit import plotting
from actkit.analyses.segregation_panels import NULL, layer_axis, legend, panels
from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

Kind = Literal["index", "curves", "drops", "shared"]
ALPHA = 0.05


def _results(result: xr.Dataset | Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """One result or several, by name."""
    import xarray as xr

    if isinstance(result, xr.Dataset):
        named = {" / ".join(map(str, result["task"].values)) if "task" in result else "": result}
    else:
        named = {str(name): one for name, one in result.items()}
    if not named:
        raise InputError("no segregation results were given, so there is nothing to draw")
    for name, one in named.items():
        if "index" not in one or "null_mean" not in one:
            raise InputError(
                f"{name!r} is not a segregation result (index, null_mean); give what segregation() returned"
            )
    layers = [list(one["layer"].values) for one in named.values()]
    if any(names != layers[0] for names in layers):
        raise InputError("the results have other layers, so they cannot share an axis; draw them apart")
    return named


def plot(
    result: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    kind: Kind = "index",
    masking: str | None = None,
    layer: str | None = None,
    title: str | None = None,
    **_unused: Any,
) -> Figure:
    """Draw a segregation result.

    Parameters
    ----------
    result : xarray.Dataset or mapping of name to Dataset
        What :func:`actkit.analyses.segregation.segregation` returned. Of several, the first is the one in question and
        the others are controls (the same task on two sets of images); kinds other than ``"index"`` draw the first.
    kind : {"index", "curves", "drops", "shared"}
        The index by layer with its interval and its null; accuracy by share of units silenced in one layer; the four
        drops by layer; shared top units by layer with chance and ceiling.
    masking : {"unmasked", "masked"}, optional
        Which outputs compete; by default both are drawn for the index, unmasked for the others.
    layer : str, optional
        Layer of the curves; by default the one of the highest excess.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 6.5 to 9 inches wide.

    Raises
    ------
    InputError
        If it is not a segregation result, or the kind, masking or layer is unknown.
    """
    named = _results(result)
    if kind not in get_args(Kind):
        raise InputError(f"there is no figure {kind!r} of a segregation result; {nearest(kind, get_args(Kind))}")
    first = next(iter(named.values()))
    known = [str(name) for name in first["masking"].values]
    if masking is not None and masking not in known:
        raise InputError(f"masking {masking!r} is unknown; {nearest(masking, known)}")
    if layer is not None and layer not in first["layer"].values:
        raise InputError(f"the result has no layer {layer!r}; {nearest(layer, map(str, first['layer'].values))}")
    with plotting.style():
        if kind == "index":
            return _index(named, known if masking is None else [masking], title)
        if kind == "curves":
            return _curves(first, masking or "unmasked", layer or best_layer(first, masking or "unmasked"), title)
        if kind == "drops":
            return _drops(first, masking or "unmasked", title)
        return _shared(first, title)


def best_layer(result: xr.Dataset, masking: str = "unmasked") -> str:
    """Find the layer whose index is furthest above its null.

    Parameters
    ----------
    result : xarray.Dataset
        A segregation result.
    masking : {"unmasked", "masked"}
        Which outputs compete.

    Returns
    -------
    str
        Layer name.
    """
    excess = result["excess"].sel(masking=masking).values
    return str(result["layer"].values[int(np.nanargmax(excess))])


def _names(result: xr.Dataset) -> list[str]:
    return [str(name) for name in result["layer"].values]


def _index(named: dict[str, xr.Dataset], maskings: list[str], title: str | None) -> Figure:
    """The index by layer, with interval and null."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    first = next(iter(named.values()))
    names = _names(first)
    wide = 3.6 if len(maskings) > 1 else 5.4
    percent = f"{100 * float(first.attrs.get('fraction', 0.2)):g} %"
    line = f"Top {percent} of units silenced; bars: 95 % interval, two-level bootstrap; grey: shuffled classes"
    tasks = " and ".join(map(str, first["task"].values))
    headline = title or ("Segregation by layer" if len(named) > 1 else f"Segregation of {tasks}")
    figure, places, left = panels(len(maskings), names, 2 if len(named) > 1 else 1, wide, headline, line)
    n = len(named)
    x = np.arange(len(names), dtype=float)
    handles: list[Any] = []
    for panel, masking in zip(places, maskings, strict=True):
        panel.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
        for number, one in enumerate(named.values()):
            some = one.sel(masking=masking)
            colour, marker = plotting.COLOURS[number % 7], plotting.MARKERS[number % 7]
            at = x + (number - (n - 1) / 2) * 0.26
            half = 0.34 if n == 1 else 0.12
            low, high = some["null_low"].values, some["null_high"].values
            panel.bar(at, high - low, 2 * half, bottom=low, color=NULL, linewidth=0, zorder=1.5)
            panel.hlines(some["null_mean"].values, at - half, at + half, color=plotting.SOFT, linewidth=1.2, zorder=2)
            y = some["index"].values
            error = np.stack([y - some["index_low"].values, some["index_high"].values - y])
            panel.errorbar(at, y, yerr=np.maximum(error, 0), fmt="none", ecolor=colour, elinewidth=1.3, zorder=3)
            panel.plot(at, y, color=colour, linewidth=1.2, alpha=0.6, zorder=3)
            p = some["p_corrected"].values
            for chosen, face in ((p < ALPHA, colour), (~(p < ALPHA), "white")):
                panel.plot(
                    at[chosen], y[chosen], marker, color=colour, markerfacecolor=face, markersize=6,
                    markeredgewidth=1.4, zorder=4,
                )  # fmt: skip
            lost = some["saturated"].values.any(axis=-1)
            top = np.fmax(some["index_high"].values, high)
            for place, value in zip(at[lost], top[lost], strict=True):
                panel.annotate(
                    "×", (place, value), xytext=(0, 2), textcoords="offset points", ha="center", color=plotting.INK
                )
            if panel is places[0]:
                handles.append(Line2D([], [], color=colour, marker=marker, markersize=6))
        if len(maskings) > 1:
            words = {"unmasked": "All outputs compete", "masked": "Each task's own outputs"}
            panel.set_title(words.get(masking, masking), loc="left")
        layer_axis(panel, names, wide)
    places[0].set_ylabel("Segregation index S")
    # Marks above the highest interval need room.
    low_end, high_end = places[0].get_ylim()
    places[0].set_ylim(low_end, high_end + 0.06 * (high_end - low_end))
    mark: dict[str, Any] = {
        "linestyle": "", "marker": "o", "color": plotting.SOFT, "markersize": 6, "markeredgewidth": 1.4,
    }  # fmt: skip
    key: tuple[list[Any], list[str]] = (
        [Patch(color=NULL), Line2D([], [], **mark), Line2D([], [], markerfacecolor="white", **mark)],
        ["null, central 95 %", "above null, p < .05", "n.s."],
    )
    if any(bool(one["saturated"].values.any()) for one in named.values()):
        key[0].append(Line2D([], [], linestyle="", marker="x", color=plotting.INK, markersize=5))
        key[1].append("saturated")
    legend(figure, left, ([(handles, list(named))] if n > 1 else []) + [key])
    return figure


def _curves(result: xr.Dataset, masking: str, layer: str, title: str | None) -> Figure:
    """Normalised accuracy by share of units silenced, one panel a ranking."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    some = result.sel(masking=masking, layer=layer)
    tasks = [str(name) for name in result["task"].values]
    intact = result["intact"].sel(masking=masking).values
    chance = result["chance"].sel(masking=masking).values
    line = f"{layer}, {_compete(masking)}; bands: 95 % interval; intact: " + ", ".join(
        f"{task} {plotting.short(value)}" for task, value in zip(tasks, intact, strict=True)
    )
    figure, places, left = panels(2, [], 1, 3.3, title or "Cumulative lesions", line)
    x = np.concatenate([[0.0], result["fraction"].values]) * 100
    at = 100 * float(result.attrs.get("fraction", np.nan))
    for number, panel in enumerate(places):
        panel.axvline(at, color=plotting.FAINT, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
        for t, task in enumerate(tasks):
            one = some.isel(ranking=number).sel(task=task)
            room = intact[t] - chance[t]
            # Limits of drops are limits of accuracies, up to the intact one's own error.
            values, low, high = (
                np.concatenate([[1.0], (intact[t] - one[name].values * room) / intact[t]])
                for name in ("drop", "drop_high", "drop_low")
            )
            colour = plotting.COLOURS[t]
            own = t == number
            panel.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
            panel.plot(x, values, color=colour, marker=plotting.MARKERS[t], markersize=5, zorder=3,
                       markerfacecolor=colour if own else "white", linestyle="-" if own else (0, (5, 2)))  # fmt: skip
            panel.axhline(chance[t] / intact[t], color=colour, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        random = some["random_drop"].values
        for t in range(2):
            accuracy = (intact[t] - random[t] * (intact[t] - chance[t])) / intact[t]
            low_high = np.nanquantile(accuracy, [0.025, 0.975])
            place = at + (-1.1 if t == 0 else 1.1)
            panel.plot([place] * 2, low_high, color=plotting.SOFT, linewidth=2.2, zorder=2.5, solid_capstyle="butt")
            panel.plot(place, np.nanmean(accuracy), plotting.MARKERS[t], color=plotting.SOFT, markersize=4, zorder=2.6)
        panel.set_title(f"Units needed for {tasks[number]}", loc="left")
        panel.set_xlabel("Units silenced (%)")
        panel.set_xlim(-2, x[-1] + 2)
    places[0].set_ylim(bottom=min(0.0, places[0].get_ylim()[0]))
    places[0].set_ylabel("Accuracy\n(share of intact)", linespacing=1.35)
    handles: list[Any] = [
        Line2D([], [], color=plotting.COLOURS[t], marker=plotting.MARKERS[t], markersize=5) for t in range(2)
    ]
    handles += [
        Line2D([], [], color=plotting.SOFT, linestyle=(0, (1, 2)), linewidth=0.9),
        Patch(color=plotting.SOFT),
    ]
    legend(figure, left, [(handles, [*tasks, "chance", "random units"])])
    return figure


def _compete(masking: str) -> str:
    return "all outputs compete" if masking == "unmasked" else "each task's own outputs"


def _drops(result: xr.Dataset, masking: str, title: str | None) -> Figure:
    """The four drops by layer, one panel a ranking."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    at = int(np.argmin(np.abs(result["fraction"].values - float(result.attrs["fraction"]))))
    some = result.sel(masking=masking).isel(fraction=at)
    tasks = [str(name) for name in result["task"].values]
    names, wide = _names(result), 3.6
    percent = f"{100 * float(result.attrs['fraction']):g} %"
    line = f"Top {percent} of units silenced, {_compete(masking)}; bars: 95 % interval"
    figure, places, left = panels(2, names, 1, wide, title or "What each lesion costs each task", line)
    x = np.arange(len(names), dtype=float)
    for number, panel in enumerate(places):
        panel.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
        low, high = np.nanquantile(some["random_drop"].isel(task=number).values, [0.025, 0.975], axis=-1)
        panel.bar(x, high - low, 0.7, bottom=low, color=NULL, linewidth=0, zorder=1.5)
        for t, task in enumerate(tasks):
            one = some.isel(ranking=number).sel(task=task)
            y = one["drop"].values
            error = np.maximum(np.stack([y - one["drop_low"].values, one["drop_high"].values - y]), 0)
            place = x + (-0.1 if t == 0 else 0.1)
            colour, own = plotting.COLOURS[t], t == number
            panel.errorbar(place, y, yerr=error, fmt="none", ecolor=colour, elinewidth=1.2, zorder=3)
            panel.plot(place, y, color=colour, marker=plotting.MARKERS[t], markersize=5.5, zorder=4,
                       markerfacecolor=colour if own else "white", linestyle="-" if own else (0, (5, 2)))  # fmt: skip
        panel.set_title(f"Units needed for {tasks[number]}", loc="left")
        layer_axis(panel, names, wide)
    places[0].set_ylabel("Drop D of accuracy\n(share of what is above chance)", linespacing=1.35)
    handles: list[Any] = [
        Line2D([], [], color=plotting.COLOURS[t], marker=plotting.MARKERS[t], markersize=5.5) for t in range(2)
    ]
    legend(figure, left, [([*handles, Patch(color=NULL)], [*tasks, "random units, own task"])])
    return figure


def _shared(result: xr.Dataset, title: str | None) -> Figure:
    """Shared top units by layer, with chance and ceiling."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names, wide = _names(result), 5.4
    percent = f"{100 * float(result.attrs['fraction']):g} %"
    tasks = " and ".join(map(str, result["task"].values))
    line = f"Share of the top {percent} for one task that is in the top {percent} for the other"
    figure, (axes,), left = panels(1, names, 2, wide, title or f"Units shared by {tasks}", line)
    x = np.arange(len(names), dtype=float)
    low, high = result["shared_low"].values, result["shared_high"].values
    axes.bar(x, high - low, 0.7, bottom=low, color=NULL, linewidth=0, zorder=1)
    axes.hlines(result["shared_chance"].values, x - 0.35, x + 0.35, color=plotting.SOFT, linewidth=1.2, zorder=2)
    handles: list[Any] = [Patch(color=NULL)]
    words = ["chance, exact 95 %"]
    if np.isfinite(result["shared_ceiling"].values).any():
        axes.plot(x, result["shared_ceiling"].values, "_", color=plotting.INK, markersize=16, zorder=3)
        axes.plot(x, result["shared_between"].values, color=plotting.COLOURS[1], marker="s", markersize=5,
                  markerfacecolor="white", linestyle=(0, (5, 2)), zorder=3)  # fmt: skip
        handles += [
            Line2D([], [], color=plotting.INK, linestyle="", marker="_", markersize=12),
            Line2D([], [], color=plotting.COLOURS[1], marker="s", markersize=5, markerfacecolor="white",
                   linestyle=(0, (5, 2))),
        ]  # fmt: skip
        words += ["ceiling, half the images", "tasks, half the images"]
    axes.plot(x, result["shared"].values, color=plotting.COLOURS[0], marker="o", markersize=6, zorder=4)
    handles.append(Line2D([], [], color=plotting.COLOURS[0], marker="o", markersize=6))
    words.append("all images")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("Share of top units in common")
    layer_axis(axes, names, wide)
    halves = [(handles[1:3], words[1:3])] if len(handles) > 2 else []
    legend(figure, left, [([handles[-1], handles[0]], [words[-1], words[0]]), *halves])
    return figure


def caption(result: xr.Dataset | Mapping[str, xr.Dataset], *, kind: Kind = "index", **_unused: Any) -> str:
    """Say in sentences what the figure shows and how to read it.

    Parameters
    ----------
    result : xarray.Dataset or mapping of name to Dataset
        What was drawn.
    kind : {"index", "curves", "drops", "shared"}
        Which figure.

    Returns
    -------
    str
        Plain text.
    """
    named = _results(result)
    first = next(iter(named.values()))
    tasks = [str(name) for name in first["task"].values]
    percent = f"{100 * float(first.attrs.get('fraction', 0.2)):g} %"
    if kind == "curves":
        return (
            f"Accuracy on {tasks[0]} and {tasks[1]}, as a share of the intact network's, when more and more of the "
            "units that one of the tasks needs most are silenced; filled marks: the task whose units they are. "
            "Dotted: chance. "
            f"Grey: as many random units ({percent}), mean and central 95 %."
        )
    if kind == "drops":
        return (
            f"Drop of each task, D = (intact − lesioned) / (intact − chance), when the {percent} of a layer's units "
            "that one task needs most are silenced; filled marks: that task. Grey: random lesions of as many "
            "units, central 95 %, on the task whose units they are compared with."
        )
    if kind == "shared":
        return (
            f"Share of the top {percent} of units that {tasks[0]} and {tasks[1]} have in common. Grey: two independent "
            "choices (hypergeometric). Rankings are noisy: the ceiling is what the same ranking has in common with "
            "itself on other images, to be compared with the tasks on half of their images."
        )
    text = [
        f"Segregation index S of {tasks[0]} and {tasks[1]} by layer: mean over both rankings of the own task's minus "
        f"the other task's drop when the top {percent} of units are silenced. Bars are 95 % percentile intervals over "
        f"{int(first.attrs.get('n_draws', 0))} draws of classes and images, for these trained networks. Without "
        f"segregation S is not 0: grey shows {int(first.attrs.get('n_null', 0))} shuffles of the classes between the "
        "tasks, ranked and lesioned anew. Filled marks lie above it (p < .05, family-wise over layers)."
    ]
    for name, one in named.items():
        best = best_layer(one)
        there = one.sel(layer=best, masking="unmasked")
        text.append(
            f"{name}: furthest above the null at {best}, S = {plotting.short(float(there['index']))} against "
            f"{plotting.short(float(there['null_mean']))} (p = {plotting.short(float(there['p_value']), 3)})."
        )
    return " ".join(text)


def alt_text(result: xr.Dataset | Mapping[str, xr.Dataset], *, kind: Kind = "index", **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset or mapping of name to Dataset
        What was drawn.
    kind : {"index", "curves", "drops", "shared"}
        Which figure.

    Returns
    -------
    str
        One or two sentences.
    """
    named = _results(result)
    what = {
        "index": "segregation index by layer beside its null",
        "curves": "accuracy by share of units silenced",
        "drops": "drop of each task by layer",
        "shared": "share of top units in common by layer",
    }[kind]
    parts = []
    for name, one in named.items():
        y = one["shared"].values if kind == "shared" else one["index"].sel(masking="unmasked").values
        measure = "shared units go" if kind == "shared" else "the index goes"
        parts.append(
            f"{name}: {measure} from {plotting.short(float(y[0]))} in the first layer to "
            f"{plotting.short(float(y[-1]))} in the last"
        )
    return f"Chart of the {what}. " + "; ".join(parts) + "."
