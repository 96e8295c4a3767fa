"""Captions and descriptions of the figures of segregation over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import InputError
from actkit.plotting import short as short_number

if TYPE_CHECKING:
    import xarray as xr

_SHOWS = {
    "index": "segregation index by layer beside its class-shuffled null",
    "excess": "segregation index minus the mean of its null by layer",
    "lesions": "drops of both tasks under causal, selectivity and random lesions",
    "curves": "accuracy by share of units silenced",
    "shared": "share of top units that both tasks have in common by layer",
    "selectivity": "rank–selectivity correlation by layer",
    "accuracy": "accuracies of the intact networks by group",
    "decoding": "accuracies of decoding held-out classes by group",
    "findings": "claims, each with its estimate, interval and verdict",
}


def group_words(result: xr.Dataset, group: str, short: bool = False) -> str:
    """Name a group as figures do.

    Parameters
    ----------
    result : xarray.Dataset
        The summary over seeds.
    group : str
        Name of the group.
    short : bool
        Only the name, without tasks.

    Returns
    -------
    str
        Blanks for underscores; the tasks, and whether it is the control, in brackets.
    """
    name = group.replace("_", " ")
    if short or group not in result["group"].values:
        return name
    tasks = " and ".join(str(task).replace("_", " ") for task in result["task_name"].sel(group=group).values)
    return f"{name}, the same-task control" if group == result.attrs.get("control") else f"{name} ({tasks})"


def _networks(result: xr.Dataset) -> str:
    """How many networks, and what the bars are."""
    parts = [f"{int(count)} of {group_words(result, str(group), short=True)}"
             for group, count in zip(result["group"].values, result["n_networks"].values, strict=True)]  # fmt: skip
    level = f"{100 * float(result.attrs.get('level', 0.95)):g} %"
    if int(result["n_networks"].max()) < 2:
        return f"Trained networks: {', '.join(parts)}; one network has no interval."
    return f"Dots are trained networks ({', '.join(parts)}); marks are means, bars {level} t intervals over networks."


def caption(result: xr.Dataset, *, kind: str = "index", layer: str | None = None, **_unused: Any) -> str:
    """Say in sentences what the figure shows and how to read it.

    Parameters
    ----------
    result : xarray.Dataset
        What was drawn.
    kind : str
        Which figure, as for plot().
    layer : str, optional
        Layer of lesions and curves; by default the late one.

    Returns
    -------
    str
        Plain text.
    """
    if kind not in _SHOWS:
        raise InputError(f"there is no figure {kind!r} of a summary over seeds; there are: {', '.join(_SHOWS)}")
    percent = f"{100 * float(result.attrs.get('fraction', 0.2)):g} %"
    late = str(result.attrs["late"])
    networks = _networks(result)
    if kind in ("index", "excess"):
        shuffles = f"{int(result.attrs['n_null'])} shuffles" if "n_null" in result.attrs else "shuffles"
        if kind == "index":
            first = (
                "Segregation index S by layer: mean over both rankings of the own task's minus the other task's drop "
                f"when the {percent} of a layer's units that one task needs most are silenced. Grey: {shuffles} of the "
                "classes between the tasks, ranked and lesioned anew; mean and central 95 %, averaged over networks. "
                "Without segregation S lies in the grey, not at 0. A cross marks layers where some lesion costs both "
                "tasks more than 90 % in some network."
            )
        else:
            first = (
                f"Segregation index minus the mean of its null ({shuffles} of the classes between the tasks), network "
                "by network; 0 is as much as classes shuffled between the tasks give."
            )
        return " ".join([first, networks, *_excess_words(result, late)])
    if kind == "lesions":
        return (
            f"Drop D = (intact − lesioned) / (intact − chance) when {percent} of the units of {layer or late} are "
            "silenced: those that the task needs most, those most selective for it (where measured), random ones, and "
            "random ones matched in activation, variance and position. Filled: the task whose units are silenced; "
            f"open: the other task. {networks}"
        )
    if kind == "curves":
        return (
            f"Accuracy as a share of the intact network's when more and more of the units of {layer or late} that one "
            "task needs most are silenced. Filled, solid: that task; open, dashed: the other. "
            + networks.replace("Dots are", "Thin lines are").replace("bars", "bands")
        )
    if kind == "shared":
        return (
            f"Share of the top {percent} of units that both tasks need. Grey: independent choices (hypergeometric, "
            "95 %). Rankings are noisy: the ceiling is what rankings of one task share between halves of the images, "
            f"to be compared with the open marks, the two tasks on half of their images. {networks}"
        )
    if kind == "selectivity":
        return (
            "Spearman correlation, over the half of the units that a task needs most, of causal rank (1 the most "
            "needed) with selectivity for the task. Below 0, the units that a task needs more are the more selective. "
            f"{networks}"
        )
    if kind == "findings":
        return (
            "Each claim with its estimate and t interval over networks (Welch's between groups of networks). A claim "
            f"held (yes) if the interval lies wholly on the expected side of its boundary, not (no) if wholly on the "
            f"other, and is undecided otherwise. The late layer ({late}) and the early one ({result.attrs['early']}) "
            "were named beforehand. Verdicts are not corrected for their number."
        )
    level = f"{100 * float(result.attrs.get('level', 0.95)):g} %"
    what = (
        "Accuracy of the intact networks on images that they were not trained on."
        if kind == "accuracy"
        else "Accuracy of decoding classes that no network was trained on."
    )
    return f"{what} Dots are trained networks; marks are means, bars {level} t intervals over networks."


def _excess_words(result: xr.Dataset, late: str) -> list[str]:
    """For each group: the excess at the late layer and in how many networks it is beyond chance."""
    words = []
    for group in map(str, result["group"].values):
        for masking in map(str, result["masking"].values):
            one = result.sel(group=group, layer=late, masking=masking)
            mean, low, high = (float(one[f"excess{end}"]) for end in ("", "_low", "_high"))
            interval = f" [{short_number(low)}, {short_number(high)}]" if np.isfinite(low) else ""
            if not np.isfinite(mean):
                words.append(f"{group_words(result, group, short=True)}, {masking}: undefined at {late}.")
                continue
            count = (
                f", p < .05 (family-wise over layers) in {int(one['n_significant'])} of {int(one['n_networks'])}"
                if "n_significant" in one
                else ""
            )
            words.append(
                f"{group_words(result, group, short=True)}, {masking}: {short_number(mean)}{interval} above its null "
                f"at {late}{count}."
            )
    return words


def alt_text(result: xr.Dataset, *, kind: str = "index", layer: str | None = None, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What was drawn.
    kind : str
        Which figure, as for plot().
    layer : str, optional
        Layer of lesions and curves; by default the late one.

    Returns
    -------
    str
        One or two sentences.
    """
    if kind not in _SHOWS:
        raise InputError(f"there is no figure {kind!r} of a summary over seeds; there are: {', '.join(_SHOWS)}")
    text = f"Chart of {_SHOWS[kind]}, every trained network a dot."
    if kind == "findings":
        return f"Chart of {_SHOWS[kind]}; the table of findings holds the same numbers."
    if kind in ("lesions", "curves"):
        return f"{text[:-1]}, in layer {layer or result.attrs['late']}."
    name = {"index": "index", "excess": "excess", "shared": "shared", "selectivity": "rank_selectivity"}.get(kind)
    if name is None or name not in result:
        return text
    some = result[name]
    some = some.sel(masking="unmasked") if "masking" in some.dims and "unmasked" in some["masking"].values else some
    parts = []
    for group in map(str, result["group"].values):
        values = some.sel(group=group).transpose("layer", ...).values.reshape(some.sizes["layer"], -1).mean(axis=1)
        parts.append(
            f"{group_words(result, group, short=True)} goes from {_number(values[0])} in the first layer to "
            f"{_number(values[-1])} in the last"
        )
    return f"{text} On average, {'; '.join(parts)}."


def _number(value: float) -> str:
    return short_number(float(value)) if np.isfinite(value) else "undefined"
