"""Figures of decoding: accuracy by layer against chance, across conditions, confusions, and by number of units."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit import plotting
from actkit.analyses import decoding_panels
from actkit.analyses.classifiers import WORDS
from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

ALPHA = 0.05
Kind = Literal["accuracy", "confusion", "cross", "curve"]
_NEEDS = {"accuracy": "accuracy", "confusion": "confusion", "cross": "cross", "curve": "curve"}
_CURE = {"cross": "decode with condition=…", "curve": "decode with sizes=[…]", "confusion": "decode again"}
_TALL = 3.0  # inches, height of the axes


def _results(result: xr.Dataset | Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """One result or several, by the name of the curve."""
    import xarray as xr

    # A Dataset is a mapping too, of variables.
    if isinstance(result, xr.Dataset):
        named: dict[str, xr.Dataset] = {str(result.attrs.get("network", "network")): result}
    else:
        named = {str(name): one for name, one in result.items()}
    if not named:
        raise InputError("no decoding results were given, so there is nothing to draw")
    for name, one in named.items():
        if "accuracy" not in one or "chance" not in one:
            raise InputError(
                f"{name!r} is not a decoding result (accuracy, chance); give what actkit.decode() returned"
            )
    return named


def _one(result: xr.Dataset, kind: str, layer: str | None) -> int:
    """The layer of a figure of one layer: the one asked for, or the best; what the figure needs is there."""
    if kind not in _NEEDS:
        raise InputError(f"kind is {kind!r}; choose {', '.join(map(repr, _NEEDS))}")
    if _NEEDS[kind] not in result:
        raise InputError(f"this decoding has no {_NEEDS[kind]}; {_CURE[kind]}")
    names = [str(name) for name in result["layer"].values]
    if layer is None:
        return int(np.nanargmax(result["accuracy"].values))
    if layer not in names:
        raise InputError(f"the decoding has no layer {layer!r}; {nearest(layer, names)}")
    return names.index(layer)


def plot(
    result: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    kind: Kind = "accuracy",
    layer: str | None = None,
    title: str | None = None,
    **_unused: Any,
) -> Figure:
    """Draw the share of held-out stimuli decoded correctly, layer by layer, with chance as a line; or details of one.

    Parameters
    ----------
    result : xarray.Dataset or mapping of network name to Dataset
        What ``actkit.decode`` returned; several networks are drawn side by side.
    kind : {"accuracy", "confusion", "cross", "curve"}
        ``accuracy`` by layer; of one layer of the first network, the ``confusion`` matrix, accuracy by condition
        trained on and tested (``cross``), or the ``curve`` by number of units.
    layer : str, optional
        The layer of the other kinds; the one of the highest accuracy by default.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 6.5 by 4.5 inches. Bands are 95 % Wilson intervals over the held-out stimuli. Where the labels were
        permuted, filled marks are significant and hollow ones are not.

    Raises
    ------
    InputError
        If it is not a decoding result, or lacks what the figure shows.
    """
    named = _results(result)
    first = next(iter(named.values()))
    k = _one(first, kind, layer)
    if kind == "accuracy":
        with plotting.style():
            return _draw(named, title)
    name, classes = str(first["layer"].values[k]), [str(value) for value in first["shown"].values]
    line = f"{next(iter(named))}, {name}; {int(first.attrs.get('n_held_out', 0))} held-out stimuli"
    if kind == "confusion":
        headline = title or f"What is confused: {_label(first)}"
        return decoding_panels.matrices(_confusions(first, k), classes, classes, headline, line)
    if kind == "cross":
        conditions = [str(value) for value in first["train"].values]
        headline = title or f"Decoding {_label(first)} across {first.attrs.get('condition') or 'conditions'}"
        return decoding_panels.matrices(
            {"": first["cross"].values[k]}, conditions, conditions, headline, line, axis=("Trained on", "Tested on"),
            bar="Share decoded correctly",
        )  # fmt: skip
    lines = {"within conditions" if "curve_across" in first else name: first["curve"].values[k]}
    if "curve_across" in first:
        lines["across conditions"] = first["curve_across"].values[k]
    return decoding_panels.curves(
        lines, first["size"].values, float(first["chance"]), title or f"Decoding {_label(first)} by number of units",
        f"{line}; bands: standard deviation over {first.sizes['draw']} draws", across="Units",
        accuracy="Held-out stimuli\ndecoded correctly",
    )  # fmt: skip


def _confusions(result: xr.Dataset, k: int) -> dict[str, np.ndarray]:
    """Confusion matrices of a layer, within and across conditions where there are some."""
    values = result["confusion"].values[k]
    if "train" not in result["confusion"].dims:
        return {"": values}
    own = np.eye(len(values), dtype=bool)
    return {"Within conditions": values[own].mean(axis=0), "Across conditions": values[~own].mean(axis=0)}


def _draw(named: dict[str, xr.Dataset], title: str | None) -> Figure:
    """Lay out and fill the figure."""
    from matplotlib.lines import Line2D

    first = next(iter(named.values()))
    layers = [[str(name) for name in one["layer"].values] for one in named.values()]
    same = all(names == layers[0] for names in layers)
    wide = 5.4
    below = plotting.label_depth(layers[0], wide) if same else 0.2
    tested = any(np.isfinite(one["p_value"].values).any() for one in named.values() if "p_value" in one)
    rows = len(named) if len(named) > 1 else 0
    left, bottom, top = 0.85, below + 0.35, 0.68 + 0.235 * (rows + (1 if tested else 0))
    width, height = left + wide + 0.2, bottom + top + _TALL
    figure = plotting.new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, wide / width, _TALL / height))
    handles, words, low = [], [], 1.0
    for number, (name, one) in enumerate(named.items()):
        y = one["accuracy"].values.astype(float)
        n = len(y)
        x = np.arange(n) if same else (np.linspace(0, 1, n) if n > 1 else np.array([0.5]))
        colour, marker = plotting.COLOURS[number % 7], plotting.MARKERS[number % 7]
        ends = one["interval_low"].values.astype(float), one["interval_high"].values.astype(float)
        axes.fill_between(x, *ends, color=colour, alpha=0.2, linewidth=0, zorder=2)
        if n == 1:
            axes.plot([x[0]] * 2, [ends[0][0], ends[1][0]], color=colour, zorder=2)
        axes.plot(x, y, color=colour, zorder=3)
        p = one["p_value"].values.astype(float) if "p_value" in one else np.full(n, np.nan)
        # Filled means significant as soon as anything was tested; what was not gets a dash then.
        untested = "_" if tested else marker
        for chosen, face, shape in (
            (p < ALPHA, colour, marker),
            (p >= ALPHA, "white", marker),
            (np.isnan(p), colour, untested),
        ):
            axes.plot(
                x[chosen],
                y[chosen],
                shape,
                color=colour,
                markerfacecolor=face,
                markeredgewidth=1.4,
                markersize=5.5,
                zorder=4,
            )
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5.5))
        words.append(f"{name}  (highest {plotting.short(np.nanmax(y))} at {layers[number][int(np.nanargmax(y))]})")
        low = min(low, float(np.nanmin(ends[0])), float(one["chance"]))
    for chance in sorted({round(float(one["chance"]), 6) for one in named.values()}):
        axes.axhline(chance, color=plotting.SOFT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
        axes.text(
            0.988,
            chance,
            f"chance {plotting.short(chance)}",
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="bottom" if chance < 0.9 else "top",
            fontsize=9,
            color="#4f4f4f",
        )
    axes.set_ylim(0 if low < 0.4 else max(0.0, low - 0.08), 1.02)
    axes.set_ylabel("Held-out stimuli\ndecoded correctly", linespacing=1.35)
    if same:
        axes.set_xlim(-0.6, len(layers[0]) - 0.4)
        front = plotting.label_layers(axes, list(range(len(layers[0]))), layers[0], wide)
        axes.set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")
    else:
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xticklabels(["first layer", "¼", "½", "¾", "last layer"])
        axes.set_xlabel("Depth in the network")
    single = f" from {next(iter(named))}" if len(named) == 1 else ""
    headline = title or f"Decoding {_label(first)}{single}, layer by layer"
    figure.text(left / width, 1 - 0.1 / height, headline, va="top", fontsize=13, fontweight="bold")
    line = (
        f"{int(first.attrs.get('n_held_out', first.sizes.get('stimulus', 0)))} held-out stimuli; bands: 95 % interval"
    )
    figure.text(left / width, 1 - 0.36 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)
    blocks = [([handle], [word]) for handle, word in zip(handles, words, strict=True)] if rows else []
    if tested:
        mark: dict[str, Any] = {
            "linestyle": "",
            "marker": "o",
            "color": plotting.SOFT,
            "markersize": 5.5,
            "markeredgewidth": 1.4,
        }
        blocks.append(
            (
                [Line2D([], [], **mark), Line2D([], [], markerfacecolor="white", **mark)],
                ["p < .05", "n.s."],
            )
        )
    for number, (some, texts) in enumerate(blocks):
        figure.legend(
            some,
            texts,
            loc="upper left",
            ncols=len(some),
            borderpad=0,
            borderaxespad=0,
            handletextpad=0.5,
            handlelength=1.5,
            bbox_to_anchor=(left / width, 1 - (0.6 + 0.235 * number) / height),
        )
    return figure


def _label(result: xr.Dataset) -> str:
    """What is decoded."""
    return str(result.attrs.get("label", "labels")).replace("_", " ")


def caption(
    result: xr.Dataset | Mapping[str, xr.Dataset], *, kind: Kind = "accuracy", layer: str | None = None, **_unused: Any
) -> str:
    """Say in sentences what the figure shows: labels, splits, classifier, bands, chance, test.

    Parameters
    ----------
    result : xarray.Dataset or mapping of network name to Dataset
        What ``actkit.decode`` returned.
    kind : {"accuracy", "confusion", "cross", "curve"}
        Which figure.
    layer : str, optional
        The layer of the other kinds.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    named = _results(result)
    first = next(iter(named.values()))
    k = _one(first, kind, layer)
    classes = json.loads(first.attrs.get("classes", "{}"))
    classifier = WORDS.get(str(first.attrs.get("classifier")), str(first.attrs.get("classifier", "a classifier")))
    text = [
        f"Share of held-out stimuli whose {_label(first)} ({len(classes)} classes) is decoded correctly, "
        f"{'by layer' if kind == 'accuracy' else 'at ' + str(first['layer'].values[k])}: "
        f"{classifier}, {first.attrs.get('splitting', 'held-out stimuli')}; units are standardised on training stimuli "
        "alone.",
    ]
    chance = decoding_panels.chance_words(float(first["chance"]))
    ends = f"Chance ({chance}, dashed) is the share of the most frequent class."
    if kind != "accuracy":
        return " ".join([*text, *_details(first, kind, k), ends.replace(", dashed", "")])
    text.append(f"Bands are 95 % Wilson intervals over the {int(first.attrs.get('n_held_out', 0))} held-out stimuli.")
    text.append(ends)
    test = str(first.attrs.get("test", "none"))
    text.append("No significance was tested." if test == "none" else f"Filled marks: p < .05, hollow: not; {test}.")
    for name, one in named.items():
        y = one["accuracy"].values
        best = str(one["layer"].values[int(np.nanargmax(y))])
        text.append(f"Highest in {name}: {plotting.short(float(np.nanmax(y)))} at {best} (descriptive).")
    return " ".join(text)


def _details(result: xr.Dataset, kind: str, k: int) -> list[str]:
    """What figures of one layer show."""
    short = plotting.short
    if kind == "confusion":
        names = [str(value) for value in result["shown"].values]
        text = ["Rows are the classes shown, columns the classes decoded; rows add up to 1."]
        for where, values in _confusions(result, k).items():
            commonest = decoding_panels.top_confusions(values, names, names)
            text.append(f"Commonest{' ' + where.lower() if where else ''}: {commonest}.")
        return text
    if kind == "cross":
        p = float(result["p_across"].values[k])
        words = f"{short(float(result['accuracy'].values[k]))} within conditions"
        words += f", {short(float(result['across'].values[k]))} across them"
        if np.isfinite(p):
            words += f" (p = {short(p, 3)} against classes renamed in each condition, corrected over layers)"
        return [f"Trained in each condition and tested on the same held-out fold of each: {words}."]
    ends = f"{int(result['size'].values[0])} to {int(result['size'].values[-1])}"
    return [f"Random units, {ends}; bands are standard deviations over {result.sizes['draw']} draws."]


def alt_text(
    result: xr.Dataset | Mapping[str, xr.Dataset], *, kind: Kind = "accuracy", layer: str | None = None, **_unused: Any
) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset or mapping of network name to Dataset
        What ``actkit.decode`` returned.
    kind : {"accuracy", "confusion", "cross", "curve"}
        Which figure.
    layer : str, optional
        The layer of the other kinds.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    named = _results(result)
    first = next(iter(named.values()))
    k = _one(first, kind, layer)
    if kind != "accuracy":
        words = {"confusion": "Confusion matrix", "cross": "Matrix of conditions", "curve": "Curve by number of units"}
        shown = f"{words[kind]} of decoding {_label(first)} at {first['layer'].values[k]}"
        return f"{shown}. {_details(first, kind, k)[-1]}"
    parts = []
    for name, one in named.items():
        y = one["accuracy"].values
        parts.append(
            f"{name} goes from {plotting.short(float(y[0]))} in the first layer to {plotting.short(float(y[-1]))}"
            " in the last"
        )
    first = next(iter(named.values()))
    return (
        f"Line chart of decoding accuracy for {_label(first)}; chance is {plotting.short(float(first['chance']))}. "
        + "; ".join(parts)
        + "."
    )
