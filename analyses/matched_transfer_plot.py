"""Figures of the transfer by matched populations: beside its references and controls, confusions, and the curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit import plotting
from actkit.analyses import decoding_panels
from actkit.analyses.classifiers import WORDS
from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["accuracy", "confusion", "curve"]
_TALL, _WIDE = 3.1, 5.4  # inches, the axes
_ALPHA = 0.05
_LINES = {
    "neurons": ("trained and tested on neurons", 2, "--"),
    "units": ("trained and tested on units", 1, "--"),
    "transfer": ("trained on units, tested on neurons", 0, "-"),
}
_CONTROLS = {
    "random": ("random units", plotting.COLOURS[3]),
    "match": ("permuted match", plotting.COLOURS[4]),
    "labels": ("permuted labels", plotting.SOFT),
}


def _check(result: xr.Dataset, kind: str) -> xr.Dataset:
    """Refuse what is no such result."""
    if not {"transfer", "units", "neurons", "null_match", "null_random"} <= set(getattr(result, "data_vars", ())):
        raise InputError("this is no transfer (transfer, units, neurons, null_match); give what transfer() returned")
    if kind not in ("accuracy", "confusion", "curve"):
        raise InputError(f"kind is {kind!r}; choose 'accuracy', 'confusion' or 'curve'")
    if kind == "curve" and "curve" not in result:
        raise InputError("this transfer has no curve; run it with sizes=[…]")
    return result


def _layer(result: xr.Dataset, layer: str | None) -> int:
    """The layer asked for, or the one of the best transfer."""
    names = [str(name) for name in result["layer"].values]
    if layer is None:
        return int(result["transfer"].values.argmax())
    if layer not in names:
        raise InputError(f"the transfer has no layer {layer!r}; {nearest(layer, names)}")
    return names.index(layer)


def _label(result: xr.Dataset) -> str:
    return str(result.attrs.get("label", "labels")).replace("_", " ")


def plot(
    result: xr.Dataset, *, kind: Kind = "accuracy", layer: str | None = None, title: str | None = None, **_unused: Any
) -> Figure:
    """Draw the transfer by layer with its references and controls, its confusions, or accuracy by number of neurons.

    Parameters
    ----------
    result : xarray.Dataset
        What ``transfer`` returned.
    kind : {"accuracy", "confusion", "curve"}
        Which figure.
    layer : str, optional
        The layer of confusions and curve; the one of the best transfer by default.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 6.5 by 4.9 inches. Whiskers of the transfer are 95 % Wilson intervals over held-out stimuli; bars are the
        means of the controls, their lines the middle 95 % of the draws.

    Raises
    ------
    InputError
        If it is no transfer, has no such layer, or there is no such kind.
    """
    result = _check(result, kind)
    line = f"{int(result.attrs.get('n_neurons', 0))} neurons, {int(result.attrs.get('n_stimuli', 0))} held-out stimuli"
    if kind == "accuracy":
        with plotting.style():
            return _profile(result, title or f"From matched units to neurons: {_label(result)}", line)
    k = _layer(result, layer)
    name = str(result["layer"].values[k])
    if kind == "confusion":
        panels = {
            "Units to neurons": result["confusion"].values[k, 0],
            "Neurons to neurons": result["confusion"].values[k, 2],
        }
        names = [str(value) for value in result["shown"].values]
        text = title or f"What the transfer confuses: {_label(result)}, {name}"
        return decoding_panels.matrices(panels, names, names, text, line)
    lines = {
        "units to neurons": result["curve"].values[k],
        "neurons to neurons": result["curve_neurons"].values[k],
    }
    draws = result.sizes["draw"]
    text = title or f"Transfer by number of neurons: {_label(result)}, {name}"
    line = f"{int(result.attrs.get('n_stimuli', 0))} held-out stimuli; bands: standard deviation over {draws} draws"
    return decoding_panels.curves(
        lines, result["size"].values, float(result["chance"]), text, line,
        accuracy="Held-out stimuli\ndecoded correctly",
    )  # fmt: skip


def _profile(result: xr.Dataset, title: str, line: str) -> Figure:
    """The transfer by layer."""
    names = [str(name) for name in result["layer"].values]
    left, below, top = 0.85, plotting.label_depth(names, _WIDE) + 0.35, 1.32
    width, height = left + _WIDE + 0.65, below + top + _TALL
    figure = plotting.new_figure(width, height)
    axes = figure.add_axes((left / width, below / height, _WIDE / width, _TALL / height))
    x = np.arange(len(names))
    bars = _controls(axes, result)
    marks = []
    for variable, (words, colour, dashes) in _LINES.items():
        y = result[variable].values
        shape: dict[str, Any] = {"color": plotting.COLOURS[colour], "linestyle": dashes, "zorder": 3}
        thin = variable != "transfer"
        face = "white" if thin else plotting.COLOURS[colour]
        marks += axes.plot(
            x, y, marker=plotting.MARKERS[colour], markersize=5.5, markerfacecolor=face, markeredgewidth=1.4,
            linewidth=1.4 if thin else 2.2, label=words, **shape,
        )  # fmt: skip
        if not thin:
            low, high = (result[f"interval_{end}"].sel(tested=variable).values for end in ("low", "high"))
            axes.vlines(x, low, high, color=plotting.COLOURS[colour], linewidth=1.6, zorder=3)
    axes.set_xlim(-0.6, len(names) - 0.4)
    drawn = [result[name].values.ravel() for name in (*_LINES, "interval_high", *(f"null_{c}" for c in _CONTROLS))]
    axes.set_ylim(0, 1.02 * decoding_panels.top_of(np.concatenate(drawn)))
    axes.set_ylabel("Held-out stimuli\ndecoded correctly", linespacing=1.35)
    decoding_panels.chance_line(axes, float(result["chance"]), beside=True)
    front = plotting.label_layers(axes, list(range(len(names))), names, _WIDE)
    axes.set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")
    decoding_panels.headline(figure, left, title, line)
    for row, handles in enumerate((marks[::-1], bars)):
        for column, handle in enumerate(handles):
            at = (left + (0 if column == 0 else (2.55 if row == 0 else 1.35) * column)) / width
            if row == 0 and column == 2:
                at = left / width
            lower = 0.62 + 0.2 * (row + (row == 0 and column == 2) + (row == 1))
            figure.legend(
                [handle], [str(handle.get_label())], loc="upper left", borderpad=0, borderaxespad=0, handlelength=1.7,
                handletextpad=0.5, bbox_to_anchor=(at, 1 - lower / height),
            )  # fmt: skip
    return figure


def _controls(axes: Axes, result: xr.Dataset) -> list[Any]:
    """Means of the controls as bars, the middle 95 % of the draws as lines."""
    handles = []
    for number, (name, (words, colour)) in enumerate(_CONTROLS.items()):
        null = result[f"null_{name}"].values
        x = np.arange(len(null)) + 0.22 * (number - 1)
        handles.append(axes.bar(x, null.mean(axis=1), 0.2, color=colour, alpha=0.4, label=words, zorder=1))
        axes.vlines(x, *np.quantile(null, [0.025, 0.975], axis=1), color=colour, linewidth=1.3, zorder=2)
    return handles


def caption(result: xr.Dataset, *, kind: Kind = "accuracy", layer: str | None = None, **_unused: Any) -> str:
    """Say in sentences what the figure shows: who learns, who is tested, controls, tests.

    Parameters
    ----------
    result : xarray.Dataset
        What ``transfer`` returned.
    kind : {"accuracy", "confusion", "curve"}
        Which figure.
    layer : str, optional
        The layer of confusions and curve.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    result = _check(result, kind)
    attrs, short = result.attrs, plotting.short
    k = _layer(result, layer if kind != "accuracy" else None)
    name = str(result["layer"].values[k])
    text = [
        f"Share of held-out stimuli whose {_label(result)} ({result.sizes['shown']} classes) is decoded by a "
        f"{WORDS.get(str(attrs.get('classifier')), 'linear classifier')} that learnt from the units of "
        f"{attrs.get('network', 'the network')} matched with {int(attrs.get('n_neurons', 0))} neurons "
        f"({attrs.get('recording', 'recording')}) and is tested on the neurons themselves; units and neurons are "
        f"standardised, and units matched, on training stimuli alone ({int(attrs.get('n_folds', 0))} folds, "
        f"{int(attrs.get('n_stimuli', 0))} stimuli).",
    ]
    if kind == "confusion":
        names = [str(value) for value in result["shown"].values]
        commonest = decoding_panels.top_confusions(result["confusion"].values[k, 0], names, names)
        text.append(
            f"{name}; rows are the classes shown, columns the classes decoded, rows add up to 1. "
            f"Commonest: {commonest}."
        )
    elif kind == "curve":
        text.append(
            f"{name}, random neurons of each number; bands are standard deviations over {result.sizes['draw']} draws."
        )
    else:
        text.append(
            "Dashed: the same classifier trained and tested on units, and on neurons. Whiskers are 95 % Wilson "
            f"intervals over stimuli. Bars are controls, means and middle 95 % of {result.sizes['permutation']} draws: "
            "as many random units of the layer, a permuted match, permuted training labels."
        )
    text.append(
        f"Chance ({decoding_panels.chance_words(float(result['chance']))}) is the share of the most frequent class."
    )
    scores = [short(float(result[v].values[k])) for v in _LINES]
    text.append(
        f"At {name}: transfer {scores[2]} (balanced {short(float(result['balanced'].values[k, 0]))}), units "
        f"{scores[1]}, neurons {scores[0]}; one-sided p against "
        + ", ".join(f"{_CONTROLS[c][0]} {short(float(result[f'p_{c}'].values[k]), 3)}" for c in _CONTROLS)
        + " (uncorrected; the layer with the best transfer is descriptive)."
    )
    return " ".join(text)


def alt_text(result: xr.Dataset, *, kind: Kind = "accuracy", layer: str | None = None, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``transfer`` returned.
    kind : {"accuracy", "confusion", "curve"}
        Which figure.
    layer : str, optional
        The layer of confusions and curve.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    result = _check(result, kind)
    short = plotting.short
    k = _layer(result, layer if kind != "accuracy" else None)
    name = str(result["layer"].values[k])
    if kind == "confusion":
        return (
            f"Two confusion matrices of {_label(result)} at {name}: from units to neurons, "
            f"{short(float(result['balanced'].values[k, 0]))} on the diagonal on average, and from neurons to neurons, "
            f"{short(float(result['balanced'].values[k, 2]))}."
        )
    if kind == "curve":
        parts = [
            f"{words} from {short(float(result[v].values[k, 0].mean()))} to "
            f"{short(float(result[v].values[k, -1].mean()))}"
            for v, words in (("curve", "transfer"), ("curve_neurons", "neurons alone"))
        ]
        ends = f"{result['size'].values[0]} to {result['size'].values[-1]}"
        return f"Accuracy of decoding {_label(result)} at {name} with {ends} neurons: {'; '.join(parts)}."
    y = result["transfer"].values
    return (
        f"Lines and bars by layer: transfer of {_label(result)} from matched units to neurons goes from "
        f"{short(float(y[0]))} in the first layer to {short(float(y[-1]))} in the last, highest in {name}; neurons "
        f"alone reach {short(float(result['neurons'].values[k]))} there, the controls "
        + ", ".join(
            f"{words} {short(float(result[f'null_{c}'].values[k].mean()))}" for c, (words, _) in _CONTROLS.items()
        )
        + f", chance is {decoding_panels.chance_words(float(result['chance']))}."
    )
