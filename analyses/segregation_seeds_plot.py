"""Figures of segregation over seeds: every trained network a dot, means with t intervals over networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from actkit import plotting
from actkit.analyses.segregation_panels import NULL, dots, layer_axis, legend, panels
from actkit.analyses.segregation_seed_values import seeds_of
from actkit.analyses.segregation_seeds_words import alt_text as alt_text
from actkit.analyses.segregation_seeds_words import caption as caption
from actkit.analyses.segregation_seeds_words import group_words
from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal[
    "index", "excess", "lesions", "curves", "shared", "selectivity", "accuracy", "decoding", "findings"
]  # fmt: skip
COMPETE = {"unmasked": "All outputs compete", "masked": "Each task's own outputs"}
_NEEDS = {
    "lesions": ("own_drop", "drops under lesions"),
    "curves": ("performance", "accuracies under lesions"),
    "shared": ("shared", "shared units"),
    "selectivity": ("rank_selectivity", "selectivity: give segregation() selectivity images"),
}
_DASHED = (0, (4, 2))


def plot(
    result: xr.Dataset,
    *,
    kind: Kind = "index",
    masking: str | None = None,
    layer: str | None = None,
    accuracies: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    decoding: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    table: pd.DataFrame | None = None,
    chance: float | Mapping[str, float] | None = None,
    title: str | None = None,
    **_unused: Any,
) -> Figure:
    """Draw a summary over seeds.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.segregation_seeds.segregation_seeds` returned.
    kind : str
        ``"index"``: index by layer beside the class-shuffled null; ``"excess"``: index minus null; ``"lesions"``: drops
        of both tasks in one layer under causal, selectivity and random lesions; ``"curves"``: accuracy by share of
        units silenced in one layer; ``"shared"``: shared units by layer with chance and ceiling; ``"selectivity"``:
        correlation of causal rank and selectivity by layer; ``"accuracy"`` and ``"decoding"``: networks by group;
        ``"findings"``: every claim with its interval and verdict.
    masking : {"unmasked", "masked"}, optional
        Which outputs compete; by default both.
    layer : str, optional
        Layer of lesions and curves; by default the late one named beforehand.
    accuracies, decoding : mapping, optional
        For the kinds of these names, as :func:`actkit.analyses.segregation_findings.findings` takes them.
    table : pandas.DataFrame, optional
        For ``"findings"``: what that function returned; by default it is called.
    chance : float or mapping of task or label to float, optional
        Chance accuracy, drawn in ``"accuracy"`` and ``"decoding"``.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 4 to 10 inches wide.

    Raises
    ------
    InputError
        If it is not a summary over seeds, a name is unknown, or the numbers of this kind are not there.
    """
    _check(result, kind, masking, layer)
    maskings = [str(name) for name in result["masking"].values] if masking is None else [masking]
    at = layer or str(result.attrs["late"])
    with plotting.style():
        if kind in ("index", "excess"):
            return _by_layer(result, kind, maskings, title)
        if kind == "shared":
            return _shared(result, title)
        if kind == "selectivity":
            return _selectivity(result, title)
        from actkit.analyses import segregation_seeds_panels as more

        if kind == "lesions":
            return more.lesions(result, maskings, at, title)
        if kind == "curves":
            return more.curves(result, maskings, at, title)
        if kind == "findings":
            if table is None:
                from actkit.analyses.segregation_findings import findings

                table = findings(result, accuracies, decoding)
            return more.findings_figure(table, float(result.attrs.get("level", 0.95)), title)
        values = _by_label(kind, accuracies, decoding)
        return more.networks(result, kind, values, chance, title)


def kinds_of(
    result: xr.Dataset,
    accuracies: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    decoding: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> list[str]:
    """List the figures that a summary has the numbers for.

    Parameters
    ----------
    result : xarray.Dataset
        What segregation_seeds() returned.
    accuracies, decoding : mapping, optional
        As for :func:`plot`.

    Returns
    -------
    list of str
        Kinds, in the order in which :func:`plot` describes them.
    """
    given = {
        "accuracy": any(one for ones in (accuracies or {}).values() for one in ones),
        "decoding": any(len(ones) for labels in (decoding or {}).values() for ones in labels.values()),
    }

    def has(kind: str) -> bool:
        name, _ = _NEEDS.get(kind, ("index", ""))
        return name in result and bool(np.isfinite(result[f"{name}_seeds"].values).any()) and given.get(kind, True)

    return [kind for kind in get_args(Kind) if has(kind)]


def _check(result: xr.Dataset, kind: str, masking: str | None, layer: str | None) -> None:
    """Refuse what cannot be drawn."""
    if "index_seeds" not in result or "n_networks" not in result:
        raise InputError("this is not a summary over seeds (index_seeds); give what segregation_seeds() returned")
    if kind not in get_args(Kind):
        raise InputError(f"there is no figure {kind!r} of a summary over seeds; {nearest(kind, get_args(Kind))}")
    for what, value in (("masking", masking), ("layer", layer)):
        known = [str(name) for name in result[what].values]
        if value is not None and value not in known:
            raise InputError(f"the summary has no {what} {value!r}; {nearest(value, known)}")
    name, words = _NEEDS.get(kind, ("index", ""))
    if name not in result:
        raise InputError(f"no result holds {words}, so there is no figure {kind!r} to draw")


def _by_label(
    kind: str,
    accuracies: Mapping[str, Sequence[Mapping[str, float]]] | None,
    decoding: Mapping[str, Mapping[str, Sequence[float]]] | None,
) -> dict[str, dict[str, np.ndarray]]:
    """Values of networks by task or label, then group."""
    if kind == "accuracy":
        from actkit.analyses.segregation_findings import accuracies_by_task

        values = accuracies_by_task(accuracies or {})
    else:
        values = {}
        for group, labels in (decoding or {}).items():
            for label, ones in labels.items():
                values.setdefault(str(label), {})[str(group)] = np.asarray(ones, dtype=np.float64)
    if not values:
        given = "accuracies" if kind == "accuracy" else "decoding"
        raise InputError(f"there are no values for the figure {kind!r}; give {given}=, group by group")
    return values


def colours(groups: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """Give each group a colour and a marker.

    Parameters
    ----------
    groups : sequence of str
        Groups, those of the summary first so that they look the same in all figures.

    Returns
    -------
    dict
        Group to colour and marker.
    """
    found = plotting.group_colours(list(dict.fromkeys(groups)))
    return {name: (colour, plotting.MARKERS[i % 7]) for i, (name, colour) in enumerate(found.items())}


def subtitle(result: xr.Dataset) -> str:
    """Say how many networks there are, and what the bars are.

    Parameters
    ----------
    result : xarray.Dataset
        The summary.

    Returns
    -------
    str
        The line below a headline.
    """
    counts = [int(value) for value in result["n_networks"].values]
    number = f"{counts[0]}" if len(set(counts)) == 1 else " and ".join(map(str, counts))
    each = " in each group" if len(counts) > 1 and len(set(counts)) == 1 else ""
    if max(counts) == 1:
        return "One trained network" + (each or "") + ": no interval"
    level = 100 * float(result.attrs.get("level", 0.95))
    return f"Dots: {number} trained networks{each}; marks and bars: mean, {level:g} % t interval"


def _late(panel: Axes, result: xr.Dataset, names: Sequence[str]) -> None:
    """Mark the layer that claims are judged at."""
    panel.axvline(
        list(names).index(str(result.attrs["late"])), color=plotting.FAINT, linewidth=0.8, linestyle=_DASHED, zorder=0.5
    )


def _late_words(result: xr.Dataset) -> str:
    return f"{result.attrs['late']}, named beforehand"


def _room(panel: Axes, share: float = 0.05) -> None:
    """Keep marks off the frame."""
    low, high = panel.get_ylim()
    panel.set_ylim(low - share * (high - low), high + share * (high - low))


def _by_layer(result: xr.Dataset, kind: str, maskings: Sequence[str], title: str | None) -> Figure:
    """The index with its null, or the excess, by layer: groups side by side."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = [str(name) for name in result["layer"].values]
    groups = [str(name) for name in result["group"].values]
    looks, n = colours(groups), len(groups)
    wide = max(3.7, 0.42 * len(names)) if len(maskings) > 1 else 5.4
    headline = title or ("Segregation by layer" if kind == "index" else "Segregation beyond the class-shuffled null")
    figure, places, left = panels(len(maskings), names, 2, wide, headline, subtitle(result))
    x = np.arange(len(names), dtype=float)
    step, saturated = 0.74 / n, 0
    for panel, masking in zip(places, maskings, strict=True):
        panel.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
        _late(panel, result, names)
        for number, group in enumerate(groups):
            one = result.sel(group=group, masking=masking)
            at = x + (number - (n - 1) / 2) * step
            if kind == "index":
                low, high = one["null_low"].values, one["null_high"].values
                panel.bar(at, high - low, 0.88 * step, bottom=low, color=NULL, linewidth=0, zorder=1.5)
                panel.hlines(
                    one["null_mean"].values,
                    at - 0.44 * step,
                    at + 0.44 * step,
                    color=plotting.SOFT,
                    linewidth=1.2,
                    zorder=2,
                )
            if kind == "index" and "n_saturated" in one:
                crossed = np.flatnonzero(one["n_saturated"].values > 0)
                saturated += len(crossed)
                tops = np.fmax(one["index_seeds"].max("model").values, one["null_high"].values)
                for i in crossed:
                    panel.annotate(
                        "×", (at[i], np.fmax(tops[i], one["index_high"].values[i])), xytext=(0, 2),
                        textcoords="offset points", ha="center", color=plotting.INK,
                    )  # fmt: skip
            _series(panel, result, kind, group, at - 0.06, looks[group], masking=masking)
        if len(maskings) > 1:
            panel.set_title(COMPETE.get(masking, masking), loc="left")
        layer_axis(panel, names, wide)
    _room(places[0], 0.03)
    places[0].set_ylabel("Segregation index S" if kind == "index" else "S minus mean of its null")
    key: tuple[list[Any], list[str]] = ([], [])
    if kind == "index":
        key = [Patch(color=NULL)], ["shuffled classes, 95 %"]
    key[0].append(Line2D([], [], color=plotting.FAINT, linestyle=_DASHED, linewidth=0.8))
    key[1].append(_late_words(result))
    if saturated:
        key[0].append(Line2D([], [], linestyle="", marker="x", color=plotting.INK, markersize=5))
        key[1].append("saturated in a network")
    legend(figure, left, [_group_key(result, groups, looks), key])
    return figure


def _group_key(
    result: xr.Dataset, groups: Sequence[str], looks: Mapping[str, tuple[Any, str]]
) -> tuple[list[Any], list[str]]:
    """Legend of groups."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=looks[group][0], marker=looks[group][1], markersize=6) for group in groups
    ]
    return handles, [group_words(result, group) for group in groups]


def _series(
    panel: Axes,
    result: xr.Dataset,
    name: str,
    group: str,
    at: np.ndarray,
    look: tuple[Any, str],
    *,
    apart: float = 0.13,
    filled: bool = True,
    line: str | tuple[int, tuple[int, ...]] = "-",
    **where: str,
) -> None:
    """One quantity of one group by layer; of one network the mark is the value and there are no dots."""
    some = result.sel({"group": group, **where})
    seeds = seeds_of(result, name, group, **where).T
    dots(
        panel, at, seeds if seeds.shape[1] > 1 else seeds[:, :0], some[name].values, some[f"{name}_low"].values,
        some[f"{name}_high"].values, look[0], marker=look[1], filled=filled, line=line, apart=apart,
    )  # fmt: skip


def _shared(result: xr.Dataset, title: str | None) -> Figure:
    """Shared units by layer with chance and ceiling, a panel a group."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = [str(name) for name in result["layer"].values]
    groups = [str(name) for name in result["group"].values]
    looks = colours(groups)
    wide = max(3.7, 0.42 * len(names)) if len(groups) > 1 else 5.4
    percent = f"{100 * float(result.attrs.get('fraction', 0.2)):g} %"
    halves = "shared_ceiling" in result and bool(np.isfinite(result["shared_ceiling"].values).any())
    figure, places, left = panels(
        len(groups), names, 2, wide, title or f"Units in the top {percent} of both tasks", subtitle(result)
    )
    x = np.arange(len(names), dtype=float)
    for panel, group in zip(places, groups, strict=True):
        _late(panel, result, names)
        one = result.sel(group=group)
        if "shared_null_low" in one:
            low, high = one["shared_null_low"].values, one["shared_null_high"].values
            panel.bar(x, high - low, 0.74, bottom=low, color=NULL, linewidth=0, zorder=1)
        if "shared_chance" in one:
            chance = one["shared_chance"].values
            panel.hlines(chance, x - 0.37, x + 0.37, color=plotting.SOFT, linewidth=1.2, zorder=2)
        if halves:
            panel.plot(x, one["shared_ceiling"].values, "_", color=plotting.INK, markersize=15, zorder=3)
            for values in seeds_of(result, "shared_ceiling", group):
                panel.plot(x + 0.3, values, "o", color=plotting.INK, markersize=2.4, alpha=0.5, markeredgewidth=0)
            if "shared_between" in one:
                panel.plot(
                    x, one["shared_between"].values, color=looks[group][0], marker=looks[group][1], markersize=4.5,
                    markerfacecolor="white", linewidth=1.0, linestyle=(0, (5, 2)), zorder=3,
                )  # fmt: skip
        _series(panel, result, "shared", group, x, looks[group], apart=0.16)
        panel.set_title(group_words(result, group), loc="left")
        layer_axis(panel, names, wide)
    places[0].set_ylim(-0.02, 1.02)
    places[0].set_ylabel("Share of top units in common")
    handles: list[Any] = [Line2D([], [], color=plotting.SOFT, marker="o", markersize=6), Patch(color=NULL)]
    blocks: list[tuple[list[Any], list[str]]] = [(handles, ["both rankings, all images", "chance, exact 95 %"])]
    if halves:
        blocks.append(
            (
                [
                    Line2D([], [], color=plotting.INK, linestyle="", marker="_", markersize=12),
                    Line2D([], [], color=plotting.SOFT, marker="o", markersize=4.5, markerfacecolor="white",
                           linewidth=1.0, linestyle=(0, (5, 2))),
                ],
                ["ceiling: same task, half the images", "both, half the images"],
            )
        )  # fmt: skip
    legend(figure, left, blocks)
    return figure


def _selectivity(result: xr.Dataset, title: str | None) -> Figure:
    """Correlation of causal rank with selectivity by layer, a panel a group."""
    from matplotlib.lines import Line2D

    names = [str(name) for name in result["layer"].values]
    groups = [
        str(name)
        for name in result["group"].values
        if np.isfinite(seeds_of(result, "rank_selectivity", str(name))).any()
    ]
    if not groups:
        raise InputError("the rank–selectivity correlation is undefined in all layers, so there is nothing to draw")
    wide = max(3.7, 0.42 * len(names)) if len(groups) > 1 else 5.4
    figure, places, left = panels(
        len(groups), names, len(groups), wide, title or "Are the units a task needs selective for it?", subtitle(result)
    )
    x = np.arange(len(names), dtype=float)
    blocks: list[tuple[list[Any], list[str]]] = []
    for number, (panel, group) in enumerate(zip(places, groups, strict=True)):
        panel.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
        _late(panel, result, names)
        handles: list[Any] = []
        for place, ranking in enumerate(map(str, result["ranking"].values)):
            look = plotting.COLOURS[2 + (2 * number + place) % 5], plotting.MARKERS[2 + place]
            _series(panel, result, "rank_selectivity", group, x + (place - 0.5) * 0.37 - 0.06, look, ranking=ranking)
            handles.append(Line2D([], [], color=look[0], marker=look[1], markersize=6))
        tasks = [str(name) for name in result["task_name"].sel(group=group).values]
        blocks.append(
            (handles, [f"{task.replace('_', ' ')} ({group_words(result, group, short=True)})" for task in tasks])
        )
        panel.set_title(group_words(result, group), loc="left")
        layer_axis(panel, names, wide)
    _room(places[0], 0.03)
    places[0].set_ylabel("Spearman ρ of causal rank\nand selectivity", linespacing=1.35)
    legend(figure, left, blocks)
    return figure
