"""More figures of segregation over seeds: lesions and curves in one layer, accuracies of networks, all findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.analyses.segregation_panels import dots, legend, panels
from actkit.analyses.segregation_seed_values import seeds_of, summary_of
from actkit.analyses.segregation_seeds_plot import COMPETE, colours, subtitle
from actkit.analyses.segregation_seeds_words import group_words

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

_LESIONS = (
    ("most needed", "own_drop", "other_drop"),
    ("most selective", "selective_own", "selective_other"),
    ("random", "random_own", None),
    ("random, matched", "matched_own", None),
)
VERDICTS = {"yes": "#009E73", "no": "#D55E00", "undecided": "#E69F00"}


def _columns(result: xr.Dataset) -> list[tuple[str, str, str]]:
    """Group, place of the ranking and its task, for every panel of a row."""
    return [
        (str(group), str(place), str(task))
        for group in result["group"].values
        for place, task in zip(result["ranking"].values, result["task_name"].sel(group=group).values, strict=True)
    ]


def lesions(result: xr.Dataset, maskings: Sequence[str], layer: str, title: str | None) -> Figure:
    """Draw the drops of both tasks under each kind of lesion.

    Parameters
    ----------
    result : xarray.Dataset
        The summary.
    maskings : sequence of str
        A row each.
    layer : str
        Layer that is lesioned.
    title : str or None
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        A column for each group and ranking.
    """
    from matplotlib.lines import Line2D

    kinds = [one for one in _LESIONS if one[1] in result and np.isfinite(result[one[1]].sel(layer=layer).values).any()]
    columns, looks = _columns(result), colours([str(name) for name in result["group"].values])
    percent = f"{100 * float(result.attrs.get('fraction', 0.2)):g} %"
    wide = max(1.5, 0.55 * len(kinds))
    names = [words for words, *_ in kinds]
    figure, places, left = panels(
        len(columns), names, 2, wide, title or f"What silencing {percent} of {layer} costs", subtitle(result),
        rows=len(maskings), tall=2.3,
    )  # fmt: skip
    x = np.arange(len(kinds), dtype=float)
    for number, panel in enumerate(places):
        masking = maskings[number // len(columns)]
        group, ranking, task = columns[number % len(columns)]
        colour, marker = looks[group]
        panel.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
        where = {"layer": layer, "masking": masking, "ranking": ranking}
        for i, (_, own, other) in enumerate(kinds):
            for name, filled, shift in ((own, True, -0.2), (other, False, 0.16)):
                if name is None or name not in result:
                    continue
                values = seeds_of(result, name, group, **where)
                if not np.isfinite(values).any():
                    continue
                _point(panel, x[i] + (shift if other else -0.04), values, result, colour, marker, filled)
        if number < len(columns):
            panel.set_title(
                f"{group_words(result, group, short=True)}:\nunits for {task.replace('_', ' ')}",
                loc="left",
                linespacing=1.25,
            )
        panel.set_xlim(-0.55, len(kinds) - 0.4)
        panel.set_xticks(x)
        if number // len(columns) == len(maskings) - 1:
            panel.set_xticklabels(names, rotation=38, ha="right", rotation_mode="anchor")
        if number % len(columns) == 0:
            panel.set_ylabel(f"Drop D\n({COMPETE.get(masking, masking).lower()})", linespacing=1.35)
    soft: dict[str, Any] = {
        "color": plotting.SOFT,
        "marker": "o",
        "linestyle": "",
        "markersize": 6,
        "markeredgewidth": 1.4,
    }
    legend(
        figure, left,
        [([Line2D([], [], **soft), Line2D([], [], markerfacecolor="white", **soft)],
          ["the task whose units are silenced", "the other task"])],
    )  # fmt: skip
    return figure


def _point(
    panel: Any,
    x: float,
    values: np.ndarray,
    result: xr.Dataset,
    colour: Any,
    marker: str,
    filled: bool,
    apart: float = 0.16,
) -> None:
    """One mean with interval and its networks."""
    mean, _, low, high = summary_of(values, float(result.attrs.get("level", 0.95)))
    seeds = values[None] if len(values) > 1 else values[None, :0]
    middle, bottom, top = (np.atleast_1d(value) for value in (mean, low, high))
    dots(panel, np.array([x]), seeds, middle, bottom, top, colour, marker=marker, filled=filled, apart=apart)


def curves(result: xr.Dataset, maskings: Sequence[str], layer: str, title: str | None) -> Figure:
    """Draw accuracy by share of units silenced.

    Parameters
    ----------
    result : xarray.Dataset
        The summary.
    maskings : sequence of str
        A row each.
    layer : str
        Layer that is lesioned.
    title : str or None
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        A column for each group and ranking.
    """
    from matplotlib.lines import Line2D

    columns, looks = _columns(result), colours([str(name) for name in result["group"].values])
    figure, places, left = panels(
        len(columns), [], 2, 1.9, title or f"Accuracy as units of {layer} are silenced",
        subtitle(result).replace("Dots:", "Thin lines:").replace("marks and bars: mean,", "marks: mean, bands:"),
        rows=len(maskings), tall=2.3,
    )  # fmt: skip
    x = np.concatenate([[0.0], result["fraction"].values]) * 100
    for number, panel in enumerate(places):
        masking = maskings[number // len(columns)]
        group, ranking, task = columns[number % len(columns)]
        colour, marker = looks[group]
        panel.axvline(
            100 * float(result.attrs.get("fraction", np.nan)),
            color=plotting.FAINT,
            linewidth=0.8,
            linestyle=(0, (4, 2)),
        )
        for place in map(str, result["task"].values):
            own = place == ranking
            where = {"layer": layer, "masking": masking, "ranking": ranking, "task": place}
            seeds = seeds_of(result, "performance", group, **where)
            seeds = np.concatenate([np.ones((len(seeds), 1)), seeds], axis=1)
            mean, _, low, high = summary_of(seeds, float(result.attrs.get("level", 0.95)))
            panel.fill_between(x, low, high, color=colour, alpha=0.22 if own else 0.12, linewidth=0, zorder=2)
            for one in seeds if len(seeds) > 1 else ():
                panel.plot(x, one, color=colour, alpha=0.3, linewidth=0.6, zorder=2.5)
            panel.plot(x, mean, color=colour, marker=marker, markersize=5, linewidth=1.5, zorder=3,
                       markerfacecolor=colour if own else "white", linestyle="-" if own else (0, (5, 2)))  # fmt: skip
        if number < len(columns):
            panel.set_title(
                f"{group_words(result, group, short=True)}:\nunits for {task.replace('_', ' ')}",
                loc="left",
                linespacing=1.25,
            )
        panel.set_xlim(-2, x[-1] + 2)
        if number // len(columns) == len(maskings) - 1:
            panel.set_xlabel("Units silenced (%)")
        if number % len(columns) == 0:
            panel.set_ylabel(f"Share of intact accuracy\n({COMPETE.get(masking, masking).lower()})", linespacing=1.35)
    places[0].set_ylim(bottom=min(0.0, places[0].get_ylim()[0]))
    soft: dict[str, Any] = {"color": plotting.SOFT, "marker": "o", "markersize": 5, "linewidth": 1.5}
    handles = [
        Line2D([], [], **soft),
        Line2D([], [], markerfacecolor="white", linestyle=(0, (5, 2)), **soft),
    ]
    legend(figure, left, [(handles, ["the task whose units are silenced", "the other task"])])
    return figure


def networks(
    result: xr.Dataset,
    kind: str,
    values: Mapping[str, Mapping[str, np.ndarray]],
    chance: float | Mapping[str, float] | None,
    title: str | None,
) -> Figure:
    """Draw accuracies of networks by group, a panel a task.

    Parameters
    ----------
    result : xarray.Dataset
        The summary, for the order and colours of groups.
    kind : {"accuracy", "decoding"}
        What the values are.
    values : mapping of label to mapping of group to numpy.ndarray
        ``(network,)`` accuracies.
    chance : float, mapping of label to float, or None
        Drawn dotted.
    title : str or None
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each task or set of held-out classes.
    """
    known = [str(name) for name in result["group"].values]
    looks = colours([*known, *(group for some in values.values() for group in some)])
    labels = list(values)
    wide = [max(1.0, 0.62 * len(values[label])) for label in labels]
    # Headline and subtitle need room whatever the number of panels.
    wide = [one * max(1.0, 4.4 / sum(wide)) for one in wide]
    level = 100 * float(result.attrs.get("level", 0.95))
    headline = title or ("Accuracy of the intact networks" if kind == "accuracy" else "Decoding of held-out classes")
    shown = [group for group in looks if any(group in some for some in values.values())]
    names = [group_words(result, group, short=True) for group in shown]
    line = f"Dots: trained networks; bars: {level:g} % t interval" + ("; dotted: chance" if chance is not None else "")
    figure, places, _ = panels(len(labels), names, 0, wide, headline, line, tall=2.4)
    for panel, label in zip(places, labels, strict=True):
        here = [group for group in looks if group in values[label]]
        for i, group in enumerate(here):
            _point(panel, i - 0.08, values[label][group], result, looks[group][0], looks[group][1], True, 0.2)
        guess = chance.get(label) if isinstance(chance, Mapping) else chance
        if guess is not None:
            panel.axhline(guess, color=plotting.SOFT, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        panel.set_xlim(-0.6, len(here) - 0.4)
        panel.set_xticks(range(len(here)))
        panel.set_xticklabels(
            [group_words(result, group, short=True) for group in here], rotation=38, ha="right", rotation_mode="anchor"
        )
        panel.set_title(label.replace("_", " "), loc="left")
    places[0].set_ylim(0, 1.02)
    places[0].set_ylabel("Accuracy")
    return figure


def findings_figure(table: pd.DataFrame, level: float, title: str | None) -> Figure:
    """Draw every claim with its interval, boundary and verdict.

    Parameters
    ----------
    table : pandas.DataFrame
        What :func:`actkit.analyses.segregation_findings.findings` returned.
    level : float
        Coverage of its intervals.
    title : str or None
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each claim.
    """
    n, pitch = len(table), 0.25
    words, wide, right, top, bottom = 5.3, 2.7, 2.9, 0.75, 0.45
    width, height = words + wide + right, top + n * pitch + bottom
    figure = plotting.new_figure(width, height)
    axes = figure.add_axes((words / width, bottom / height, wide / width, n * pitch / height))
    figure.text(0.15 / width, 1 - 0.1 / height, title or "What was expected, and what held", va="top", fontsize=13,
                fontweight="bold")  # fmt: skip
    line = f"Estimate and {100 * level:g} % t interval over networks; shaded: the side that the claim lies on"
    figure.text(0.15 / width, 1 - 0.36 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)
    y = np.arange(n)[::-1].astype(float)
    axes.set_ylim(-0.5, n - 0.5)
    last = ("", "")
    alike = table.groupby("finding")["group"].nunique()
    for place, (_, row) in zip(y, table.iterrows(), strict=True):
        held = str(row["held"])
        colour = VERDICTS.get(held, plotting.SOFT)
        if np.isfinite(row["estimate"]):
            axes.plot([row["boundary"]] * 2, [place - 0.32, place + 0.32], color=plotting.SOFT, linewidth=1.0, zorder=1)
            axes.plot([row["low"], row["high"]], [place] * 2, color=colour, linewidth=2.2, zorder=3)
            axes.plot(row["estimate"], place, "o", color=colour, markersize=6, zorder=4)
        start = (str(row["finding"]), str(row["group"]))
        named = start[0] + (f" ({start[1]})" if alike[start[0]] > 1 else "")
        named = "" if start == last else named
        last = start
        figure.text(0.15 / width, (bottom + (place + 0.5) * pitch) / height, named, va="center", fontsize=9.5)
        figure.text((words - 0.1) / width, (bottom + (place + 0.5) * pitch) / height, str(row["masking"]), va="center",
                    ha="right", fontsize=9, color=plotting.SOFT)  # fmt: skip
        measured = str(row["measured"]).split(";")[0] if np.isfinite(row["estimate"]) else ""
        figure.text((words + wide + 0.15) / width, (bottom + (place + 0.5) * pitch) / height, measured, va="center",
                    fontsize=9.5)  # fmt: skip
        figure.text((words + wide + 1.4) / width, (bottom + (place + 0.5) * pitch) / height, held, va="center",
                    fontsize=9.5, color=colour, fontweight="bold" if held in VERDICTS else "normal")  # fmt: skip
    # Ratios to an unreliable ranking can be any number; the text gives them, the axis stays readable.
    ends = axes.set_xlim(max(axes.get_xlim()[0], -1.15), min(axes.get_xlim()[1], 1.15))
    for place, (_, row) in zip(y, table.iterrows(), strict=True):
        if row["side"] and row["held"] != "no claim":
            edge = ends[1] if row["side"] == "above" else ends[0]
            axes.barh(place, edge - row["boundary"], 0.64, row["boundary"], color=plotting.BAND, linewidth=0, zorder=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Difference, or value")
    return figure
