"""Figure of encoding: held-out correlation of every neuron by layer, below the noise ceiling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_MODELS = {"ridge": "ridge regression, a penalty for each neuron", "pls": "partial least squares"}
_TALL, _WIDE = 3.0, 5.4  # inches, the axes
_SMALL = 9.0


def _results(result: xr.Dataset | Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """One result or several, by the name of the curve."""
    import xarray as xr

    # A Dataset is a mapping too, of variables.
    if isinstance(result, xr.Dataset):
        named: dict[str, xr.Dataset] = {str(result.attrs.get("network", "network")): result}
    else:
        named = {str(name): one for name, one in result.items()}
    if not named:
        raise InputError("no encoding results were given, so there is nothing to draw")
    for name, one in named.items():
        if "r" not in one or set(one["r"].dims) != {"layer", "neuron"}:
            raise InputError(
                f"{name!r} is not an encoding result (r by layer and neuron); give what actkit.encode() returned"
            )
    return named


def _quartiles(result: xr.Dataset, variable: str = "r") -> np.ndarray:
    """Lower quartile, median and upper quartile over neurons, ``(3, n_layers)``; NaN for a layer without scores."""
    values = result[variable].transpose("layer", "neuron").values.astype(float)
    answer = np.full((3, len(values)), np.nan)
    for row, scores in enumerate(values):
        if np.isfinite(scores).any():
            answer[:, row] = np.nanpercentile(scores, [25, 50, 75])
    return answer


def _best(result: xr.Dataset) -> tuple[str, float] | None:
    """The layer with the highest median, and that median; None where no layer has scores."""
    median = _quartiles(result)[1]
    if not np.isfinite(median).any():
        return None
    best = int(np.nanargmax(median))
    return str(result["layer"].values[best]), float(median[best])


def plot(result: xr.Dataset | Mapping[str, xr.Dataset], *, title: str | None = None, **_unused: Any) -> Figure:
    """Draw the median held-out correlation over neurons, layer by layer, with quartiles and the noise ceiling.

    Parameters
    ----------
    result : xarray.Dataset or mapping of network name to Dataset
        What ``actkit.encode`` returned; several networks are drawn in one panel. The ceiling is that of the first
        result that has one.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 6.5 by 4.5 inches. Bands span the quartiles over neurons; the grey band is the same of the ceiling √ρ.
        With a single result, dots are neurons.

    Raises
    ------
    InputError
        If it is not an encoding result.
    """
    named = _results(result)
    with plotting.style():
        return _draw(named, title)


def _draw(named: dict[str, xr.Dataset], title: str | None) -> Figure:
    """Lay out and fill the figure."""
    from matplotlib.lines import Line2D

    first = next(iter(named.values()))
    layers = [[str(name) for name in one["layer"].values] for one in named.values()]
    same = all(names == layers[0] for names in layers)
    below = plotting.label_depth(layers[0], _WIDE) if same else 0.2
    rows = len(named) if len(named) > 1 else 0
    left, bottom, top = 0.85, below + 0.35, 0.68 + 0.235 * rows
    width, height = left + _WIDE + 0.2, bottom + top + _TALL
    figure = plotting.new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, _WIDE / width, _TALL / height))
    low = _ceiling(axes, named)
    handles, words = [], []
    for number, (name, one) in enumerate(named.items()):
        lower, median, upper = _quartiles(one)
        n = len(median)
        x = np.arange(n) if same else (np.linspace(0, 1, n) if n > 1 else np.array([0.5]))
        colour, marker = plotting.COLOURS[number % 7], plotting.MARKERS[number % 7]
        lowest = lower
        if not rows:
            values = one["r"].transpose("layer", "neuron").values.astype(float)
            axes.plot(x, values, ".", color=plotting.FAINT, markersize=4.5, zorder=1.5, markeredgewidth=0)
            lowest = values
        axes.fill_between(x, lower, upper, color=colour, alpha=0.2, linewidth=0, zorder=2)
        if n == 1:
            axes.plot([x[0]] * 2, [lower[0], upper[0]], color=colour, zorder=2)
        axes.plot(x, median, color=colour, marker=marker, markersize=5.5, zorder=4)
        if "median_low" in one:
            axes.vlines(x, one["median_low"], one["median_high"], color=colour, linewidth=1.4, zorder=4)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5.5))
        best = _best(one)
        words.append(name + (f"  (highest {plotting.short(best[1])} at {best[0]})" if best else "  (no scores)"))
        if np.isfinite(lowest).any():
            low = min(low, float(np.nanmin(lowest)))
    axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    axes.set_ylim(min(0.0, low - 0.05), 1.02)
    axes.set_ylabel("Predicted with recorded responses,\nheld-out Pearson r", linespacing=1.35)
    if same:
        axes.set_xlim(-0.6, len(layers[0]) - 0.4)
        front = plotting.label_layers(axes, list(range(len(layers[0]))), layers[0], _WIDE)
        axes.set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")
    else:
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xticklabels(["first layer", "¼", "½", "¾", "last layer"])
        axes.set_xlabel("Depth in the network")
    single = f" from {next(iter(named))}" if len(named) == 1 else ""
    headline = title or f"Predicting {_subject(first)}{single}"
    figure.text(left / width, 1 - 0.1 / height, headline, va="top", fontsize=13, fontweight="bold")
    dots = "; dots: neurons" if not rows else ""
    line = (
        f"{first.sizes['neuron']} neurons, {int(first.attrs.get('n_stimuli', 0))} stimuli; line: median, band: "
        f"quartiles over neurons{dots}"
    )
    figure.text(left / width, 1 - 0.36 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)
    for number, (handle, word) in enumerate(zip(handles, words, strict=True) if rows else []):
        figure.legend(
            [handle],
            [word],
            loc="upper left",
            borderpad=0,
            borderaxespad=0,
            handletextpad=0.5,
            handlelength=1.5,
            bbox_to_anchor=(left / width, 1 - (0.6 + 0.235 * number) / height),
        )
    return figure


def _ceiling(axes: Any, named: dict[str, xr.Dataset]) -> float:
    """Draw the noise ceiling of the first result that has one, and give the lowest value that must be seen."""
    ceiling = next((one["ceiling"].values.astype(float) for one in named.values() if "ceiling" in one), None)
    if ceiling is None or not np.isfinite(ceiling).any():
        return 0.0
    lower, median, upper = np.nanpercentile(ceiling, [25, 50, 75])
    axes.axhspan(lower, upper, color=plotting.BAND, linewidth=0, zorder=0.5)
    axes.axhline(median, color=plotting.SOFT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    axes.text(
        0.988,
        median,
        f"noise ceiling {plotting.short(median)}",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom" if median < 0.93 else "top",
        fontsize=_SMALL,
        color="#4f4f4f",
        zorder=5,
    )
    return min(0.0, float(lower))


def _subject(result: xr.Dataset) -> str:
    """What is predicted."""
    region = result.attrs.get("region")
    return f"{region} neurons" if region else "neurons"


def caption(result: xr.Dataset | Mapping[str, xr.Dataset], **_unused: Any) -> str:
    """Say in sentences what the figure shows: the map, splits, bands, ceiling, corrected values.

    Parameters
    ----------
    result : xarray.Dataset or mapping of network name to Dataset
        What ``actkit.encode`` returned.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is not an encoding result.
    """
    named = _results(result)
    first = next(iter(named.values()))
    model = str(first.attrs.get("model", "a linear map"))
    how = _MODELS.get(model, model)
    if model == "pls":
        counts = json.loads(first.attrs.get("options", "{}")).get("components", "several")
        if isinstance(counts, list):
            counts = f"one of {', '.join(map(str, counts))}"
            how += f", {counts} components, chosen for each fold in the training stimuli"
        else:
            how += f", {counts} components"
    text = [
        f"Pearson correlation of predicted with recorded responses of {first.sizes['neuron']} {_subject(first)} over "
        f"held-out stimuli, mean over folds, by layer: {how}; {first.attrs.get('splitting', 'held-out stimuli')}, "
        f"{int(first.attrs.get('n_stimuli', 0))} stimuli.",
        "Lines are medians, bands quartiles over neurons, without correction for noise.",
    ]
    if first.attrs.get("interval") and np.isfinite(first["median_low"]).any():
        text.append(f"Upright lines: {first.attrs['interval']}.")
    text.append(_test(named))
    ceiling = next((one for one in named.values() if "ceiling" in one), None)
    if ceiling is not None:
        text.append(
            f"Dashed with a grey band: median ({plotting.short(float(np.nanmedian(ceiling['ceiling'].values)))}) and "
            "quartiles of the noise ceiling √ρ, which a model without noise reaches, ρ being the reliability of a "
            "neuron's average over repetitions."
        )
    for name, one in named.items():
        best = _best(one)
        if best is None:
            text.append(f"{name} has no scores.")
            continue
        sentence = f"Highest median in {name}: {plotting.short(best[1])} at {best[0]} (descriptive)"
        if "r_corrected" in one and np.isfinite(one["r_corrected"].sel(layer=best[0])).any():
            corrected = float(np.nanmedian(one["r_corrected"].sel(layer=best[0]).values))
            left_out = int(one.attrs.get("n_below_floor", 0))
            without = f", {left_out} unreliable neurons left out" if left_out else ""
            sentence += f", {plotting.short(corrected)} after correction for noise (r/√ρ{without})"
        text.append(sentence + ".")
    return " ".join(text)


def _test(named: dict[str, xr.Dataset]) -> str:
    """What was tested, and how many neurons passed at the best layer."""
    tested = {name: one for name, one in named.items() if "p_corrected" in one}
    if not tested:
        return "No significance was tested."
    text = str(next(iter(tested.values())).attrs.get("test", "permutation test"))
    parts = []
    for name, one in tested.items():
        best = _best(one)
        if best is not None:
            p = one["p_corrected"].sel(layer=best[0]).values
            parts.append(f"{int((p < 0.05).sum())} of {int(np.isfinite(p).sum())} neurons at {best[0]} of {name}")
    passed = f" Corrected p < .05: {'; '.join(parts)}." if parts else ""
    return f"{text[0].upper()}{text[1:]}.{passed}"


def alt_text(result: xr.Dataset | Mapping[str, xr.Dataset], **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset or mapping of network name to Dataset
        What ``actkit.encode`` returned.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is not an encoding result.
    """
    named = _results(result)
    parts = []
    for name, one in named.items():
        median, best = _quartiles(one)[1], _best(one)
        ends = [plotting.short(float(value)) if np.isfinite(value) else "no score" for value in median[[0, -1]]]
        words = f"{name} goes from {ends[0]} in the first layer to {ends[1]} in the last"
        parts.append(words + (f", highest {plotting.short(best[1])} at {best[0]}" if best else ""))
    first = next(iter(named.values()))
    ceiling = (
        f" below a noise ceiling of {plotting.short(float(np.nanmedian(first['ceiling'].values)))}"
        if "ceiling" in first
        else ""
    )
    return f"Line chart of median held-out correlation of {_subject(first)} by layer{ceiling}. {'; '.join(parts)}."
