"""Figure of lesions of matched units: each effect against those of random sets like them, layer by layer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from actkit import plotting
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE, _TALL, _GAP = 2.05, 0.62, 0.42  # a panel, and the room below it, in inches
_LEFT, _RIGHT, _TOP, _BOTTOM, _BETWEEN = 0.95, 0.2, 1.36, 0.42, 0.3
_LEVEL, _UNBALANCED = 0.05, 0.25
_SHOWN = ("loss", "rsa_layer", "rsa_readout")
_TITLES = {
    "loss": "Rise in task loss\n(nats an image)",
    "accuracy": "Fall in accuracy",
    "rsa_layer": "Fall in correlation with\nneurons, lesioned layer",
    "rsa_readout": "Fall in correlation with\nneurons, {readout}",
}


def _check(result: xr.Dataset) -> xr.Dataset:
    """Refuse what is no lesion of matched units."""
    if result.attrs.get("analysis") != "lesion_matched" or "random_effect" not in result:
        raise InputError(
            "this is no lesion of matched units (effect, random_effect); give what lesion_matched() returned"
        )
    return result


def _readout(result: xr.Dataset) -> str:
    """The read-out in words."""
    name = str(result.attrs["readout"])
    return "network's output" if name == "output" else name


def _what(result: xr.Dataset) -> str:
    """What was lesioned."""
    return "channels of matched units" if result.attrs["extent"] == "channel" else "matched units"


def _p_words(p: float) -> str:
    """A p-value in few characters."""
    return f"p = {plotting.short(p, 3 if p < 0.095 else 2)}"


def plot(result: xr.Dataset, *, title: str | None = None) -> Figure:
    """Draw the effect of the matched units against the random sets', by layer and outcome.

    Parameters
    ----------
    result : xarray.Dataset
        What ``lesion_matched`` returned.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        A row a layer, about one inch tall; columns: task loss, geometry at the lesioned layer and at the read-out. A
        histogram of the random sets (of all splits), and a line for the matched units of each split.

    Raises
    ------
    InputError
        If it is not such a result.
    """
    result = _check(result)
    layers = [str(name) for name in result["layer"].values]
    width = _LEFT + len(_SHOWN) * _WIDE + (len(_SHOWN) - 1) * _BETWEEN + _RIGHT
    height = _TOP + len(layers) * (_TALL + _GAP) - _GAP + _BOTTOM
    front, labels = plotting.common_stem(layers)
    with plotting.style():
        figure = plotting.new_figure(width, height)
        for row in range(len(layers)):
            for column, outcome in enumerate(_SHOWN):
                left = _LEFT + column * (_WIDE + _BETWEEN)
                bottom = height - _TOP - row * (_TALL + _GAP) - _TALL
                axes = figure.add_axes((left / width, bottom / height, _WIDE / width, _TALL / height))
                _panel(axes, result.isel(layer=row).sel(outcome=outcome))
                if row == 0:
                    words = _TITLES[outcome].format(readout=_readout(result))
                    axes.set_title(words, fontsize=9.5, loc="left", pad=14)
            label = f"{labels[row]}\n{_count(result, row)}"
            figure.text(
                (_LEFT - 0.18) / width, (bottom + _TALL / 2) / height, label, ha="right", va="center", fontsize=9
            )
        _heading(figure, result, title, front, width, height)
    return figure


def _count(result: xr.Dataset, row: int) -> str:
    """How many units of a layer were lesioned."""
    numbers = result["n_units"].values[:, row]
    low, high = int(numbers.min()), int(numbers.max())
    word = "channels" if result.attrs["extent"] == "channel" else "units"
    return f"{low if low == high else f'{low}–{high}'} {word}"


def _heading(figure: Figure, result: xr.Dataset, title: str | None, front: str, width: float, height: float) -> None:
    """Headline, what it is of, and the key."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    attrs = result.attrs
    headline = title or f"Without the {_what(result)}: {attrs['network']}"
    figure.text(0.12 / width, 1 - 0.1 / height, headline, va="top", fontsize=13, fontweight="bold")
    line = f"{attrs['n_neurons']} neurons; {attrs['n_random']} random sets like the matched ones"
    line += f"; layers {front}*" if front else ""
    figure.text(0.12 / width, 1 - 0.36 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)
    handles = [
        Patch(color=plotting.FAINT, label="random sets"),
        Line2D([], [], color=plotting.COLOURS[1], linewidth=2, label="matched, corrected p ≤ .05"),
        Line2D([], [], color=plotting.COLOURS[0], linewidth=2, label="matched, not significant"),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.12 / width, 1 - 0.54 / height),
        ncols=3,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.3,
        columnspacing=1.3,
    )


def _panel(axes: Axes, one: xr.Dataset) -> None:
    """One layer and outcome."""
    random, effects = one["random_effect"].values.ravel(), one["effect"].values
    ends = np.concatenate([random, effects, [0.0]])
    span = float(np.ptp(ends)) or 1.0
    low, high = float(ends.min()) - 0.06 * span, float(ends.max()) + 0.06 * span
    axes.hist(
        random, np.linspace(low, high, int(np.clip(10 + len(random) // 5, 12, 40))).tolist(), color=plotting.FAINT
    )
    axes.axvline(0, color=plotting.SOFT, linewidth=0.8, linestyle=(0, (1, 2)))
    beyond = float(one["p_corrected"]) <= _LEVEL
    for effect in effects.tolist():
        axes.axvline(effect, color=plotting.COLOURS[1 if beyond else 0], linewidth=2)
    axes.set_xlim(low, high)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", labelsize=8)
    words = _p_words(float(one["p_combined"]))
    axes.text(1, 1.02, words, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=plotting.SOFT)


def caption(result: xr.Dataset) -> str:
    """Say in sentences what the figure shows: lesion, random sets, test, balance.

    Parameters
    ----------
    result : xarray.Dataset
        What ``lesion_matched`` returned.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is not such a result.
    """
    result = _check(result)
    attrs, options = result.attrs, json.loads(result.attrs["options"])
    value = "0" if options["mode"] == "zero" else "their mean over the matching half"
    splits = result.sizes["split"]
    n_first, n_second = (np.ravel(attrs[name]) for name in ("n_matching", "n_evaluation"))
    text = [
        f"Units of {attrs['network']} were matched with {attrs['n_neurons']} neurons ({attrs['recording']}) on "
        f"{int(n_first[0])} stimuli ({attrs['splitting']}), and the {_what(result)} set to {value}. Harm done (line) "
        f"beside that of {attrs['n_random']} random sets of as many {attrs['extent']}s of the layer that resemble them "
        "in mean activation, variance and map position (histogram).",
        f"Task: {attrs['n_images']} images of {attrs['task']}. Geometry: "
        f"{'Spearman' if options['compare'] == 'spearman' else 'Pearson'} correlation of the network's dissimilarities "
        f"with the neurons' on {int(n_second[0])} other stimuli; read-out: {_readout(result)}.",
        f"p: share of sets with as large an effect{', twice its median over splits' if splits > 1 else ''}; coloured "
        "where the false discovery rate over layers is at most .05.",
    ]
    text.append(_best(result))
    worst = float(np.nanmax(np.abs(result["imbalance"].values)))
    text.append(f"Matched and random sets differ by up to {plotting.short(worst)} standard deviations over the layer")
    text[-1] += (
        "; where that is much, see the adjusted excess (excess_adjusted, p_adjusted)." if worst > _UNBALANCED else "."
    )
    text.append(f"Random sets hold {plotting.short(100 * float(result['overlap'].mean()), 0)} % of the matched units.")
    return " ".join(text)


def _best(result: xr.Dataset) -> str:
    """The largest excess in loss, in units of the random sets' spread."""
    loss = result.sel(outcome="loss")
    spread = loss["random_sd"].mean("split").values
    excess = loss["excess_mean"].values
    top = int(np.argmax(np.divide(excess, spread, out=np.full_like(excess, -np.inf), where=spread > 0)))
    one, short = loss.isel(layer=top), plotting.short
    return (
        f"Largest excess in loss, in units of the random sets' spread, at {one['layer'].item()}: "
        f"{short(float(excess[top]), 3)} nats (95 % interval over images {short(float(one['excess_low'][0]), 3)} to "
        f"{short(float(one['excess_high'][0]), 3)}{', first split' if result.sizes['split'] > 1 else ''}), beside "
        f"a mean effect of {short(float(one['random_mean'].mean()), 3)} of the random sets."
    )


def alt_text(result: xr.Dataset) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``lesion_matched`` returned.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is not such a result.
    """
    result = _check(result)
    names = {
        "loss": "task loss",
        "rsa_layer": "geometry of the lesioned layer",
        "rsa_readout": "geometry of the read-out",
    }
    parts = []
    for outcome in _SHOWN:
        p = result["p_corrected"].sel(outcome=outcome).values
        beyond = [str(name) for name, one in zip(result["layer"].values, p, strict=True) if one <= _LEVEL]
        parts.append(f"{names[outcome]}: {', '.join(beyond) if beyond else 'no layer'}")
    return (
        f"Histograms of the effects of {result.attrs['n_random']} random sets, one for each of {result.sizes['layer']} "
        f"layer(s), with a line for the matched units. Lines beyond the random sets (corrected p ≤ .05): "
        f"{'; '.join(parts)}."
    )
