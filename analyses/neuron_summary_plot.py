"""Figures of a recording beside networks: the profile over layers, and the controls of the match."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from actkit import plotting
from actkit.analyses.neuron_summary import NULLS, series
from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["profile", "controls"]
_WIDE, _TALL = 6.5, 5.7  # inches
_LEFT, _ACROSS = 0.75, 5.55
_NARROW = 3.9
# Quantity: words, marker, line, filled.
_SCORES: dict[str, tuple[str, str, Any, bool]] = {
    "unit": ("best single unit", "o", "-", True),
    "unit_corrected": ("the same, r/√ρ", "o", "--", False),
    "linear": ("all units, {linear}", "^", "-", True),
    "linear_corrected": ("the same, r/√ρ", "^", "--", False),
}
_DASHES: tuple[Any, ...] = ("-", "--")  # of the first null and of a second one
_CONTROLS = {
    "unit": ("its own unit", "o", plotting.COLOURS[0]),
    "shuffle": ("another neuron's unit", "D", plotting.COLOURS[3]),
    "rotated": ("rotated channels", "s", plotting.COLOURS[1]),
    "pools": ("pools of equal size", "^", plotting.COLOURS[2]),
}


def plot(result: xr.Dataset, kind: Kind = "profile", *, title: str | None = None) -> Figure:
    """Draw one side of a summary.

    Parameters
    ----------
    result : xarray.Dataset
        What ``neuron_summary`` returned.
    kind : {"profile", "controls"}
        ``profile``: above, medians over neurons of the matched unit and of the linear map, layer by layer, each network
        in its colour; below, the share of neurons beyond the 99 % point of their null. ``controls``: the match of the
        first network beside its controls.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        6.5 inches wide.

    Raises
    ------
    InputError
        If it is no summary, there is no such kind, or nothing of that kind was measured.
    """
    return _plot(result, kind, title, _WIDE)


def plot_narrow(result: xr.Dataset, kind: Kind = "profile", *, title: str | None = None) -> Figure:
    """Draw the same for a phone.

    Parameters
    ----------
    result, kind, title
        As for :func:`plot`.

    Returns
    -------
    matplotlib.figure.Figure
        3.9 inches wide.
    """
    return _plot(result, kind, title, _NARROW)


def _plot(result: xr.Dataset, kind: str, title: str | None, wide: float) -> Figure:
    """Draw at a width."""
    networks = _check(result, kind)
    with plotting.style():
        if kind == "profile":
            return _profile_figure(result, networks, title, wide)
        return _controls_figure(result, networks, title, wide)


def _check(result: xr.Dataset, kind: str) -> list[str]:
    """Refuse what cannot be drawn; networks, those with controls first."""
    if result.attrs.get("analysis") != "neuron_summary":
        raise InputError("this is no summary of neurons; give what neuron_summary() returned")
    if kind not in get_args(Kind):
        raise InputError(f"kind={kind!r} is no figure of a summary of neurons; {nearest(kind, get_args(Kind))}")
    networks = list(dict.fromkeys(result["network"].values.tolist()))
    quantities = set(result["quantity"].values.tolist())
    needed = {"profile": {"unit", "linear"}, "controls": {"unit"}}[kind]
    if not quantities & needed:
        raise InputError(f"nothing was measured for kind={kind!r} (no {' or '.join(sorted(needed))})")
    return networks


def _layout(result: xr.Dataset, networks: list[str]) -> tuple[dict[str, dict[str, float]], list[str], bool]:
    """Place of each layer of each network on the axis; networks with other layers share relative depth."""
    layers: dict[str, list[str]] = {}
    for name in networks:
        use = result["network"].values == name
        pairs = dict(zip(result["layer"].values[use].tolist(), result["depth"].values[use].tolist(), strict=True))
        layers[name] = sorted(pairs, key=lambda layer: pairs[layer])
    first = layers[networks[0]]
    same = all(one == first for one in layers.values())
    places = {}
    for name, mine in layers.items():
        whole = 1 if same else max(len(mine) - 1, 1) / 4
        places[name] = {layer: k / whole for k, layer in enumerate(mine)}
    return places, first, same


def _axis(axes: Axes, names: list[str], same: bool, width: float) -> None:
    """Layers under an axis."""
    if same:
        front = plotting.label_layers(axes, list(range(len(names))), names, width)
        axes.set_xlabel(f"Layer{f' ({front}*)' if front else ''}, first to last")
        axes.set_xlim(-0.5, len(names) - 0.5)
    else:
        axes.set_xticks([0, 2, 4], ["first", "middle", "last"])
        axes.set_xlabel("Depth of the layer in its network")
        axes.set_xlim(-0.3, 4.3)


def _line(axes: Axes, table: pd.DataFrame, x: np.ndarray, colour: str, style: dict[str, Any]) -> None:
    """One quantity over layers, with the bars of its interval."""
    filled = style.pop("filled", True)
    known = table[["low", "high"]].notna().all(axis=1).to_numpy()
    axes.vlines(x[known], table["low"][known], table["high"][known], color=colour, linewidth=1.2, zorder=3)
    face = colour if filled else "white"
    axes.plot(x, table["value"], color=colour, markerfacecolor=face, markersize=5.2, zorder=4, **style)


def _colours(result: xr.Dataset, networks: list[str]) -> dict[str, str]:
    """Colour of each network: untrained twins in grey."""
    twins = result.attrs.get("untrained", [])
    twins = [twins] if isinstance(twins, str) else list(np.atleast_1d(twins))
    greys, colours = iter((plotting.SOFT, plotting.FAINT)), iter(plotting.COLOURS)
    return {name: next(greys, plotting.FAINT) if name in twins else next(colours) for name in networks}


def _head(figure: Figure, result: xr.Dataset, title: str, wide: float, tall: float) -> None:
    """Headline and the line below it."""
    n, stimuli = result.attrs.get("n_neurons"), result.attrs.get("n_stimuli")
    words = f"{result.attrs['recording']}: {n} neurons, {stimuli} stimuli, held out in turn"
    size = 13 if wide > _NARROW else 11
    figure.text(0.12 / wide, 1 - 0.1 / tall, title, va="top", fontsize=size, fontweight="bold")
    figure.text(0.12 / wide, 1 - 0.36 / tall, words, va="top", fontsize=9.5, color=plotting.SOFT)


def _profile_figure(result: xr.Dataset, networks: list[str], title: str | None, wide: float) -> Figure:
    """Medians over layers, and the share of neurons beyond their null."""
    from matplotlib.lines import Line2D

    places, names, same = _layout(result, networks)
    colours = _colours(result, networks)
    linear = str(result.attrs.get("linear", "linear"))
    drawn = [one for one in _SCORES if (result["quantity"].values == one).any()]
    nulls = [one for one in NULLS if (result["quantity"].values == f"beyond {one}").any()]
    across = wide - _LEFT - 0.2
    depth = plotting.label_depth(names, across) if same else 0.3
    key = 0.2 * (-(-len(drawn) // (2 if wide > _NARROW else 1)) + -(-len(networks) // 2)) + 0.1
    share = 1.75 if nulls else 0.0
    tall = 0.62 + key + 2.3 + 0.35 + depth + share + 0.15
    figure = plotting.new_figure(wide, tall)
    _head(figure, result, title or "Single units, and all units, beside neurons", wide, tall)
    lower = depth + 0.4
    top = figure.add_axes((_LEFT / wide, (lower + share) / tall, across / wide, 2.3 / tall))
    for number, name in enumerate(networks):
        shift = 0.06 * (number - (len(networks) - 1) / 2)
        for quantity in drawn:
            table = series(result, name, quantity)
            if len(table):
                x = np.array([places[name][layer] for layer in table["layer"]]) + shift
                _, marker, line, filled = _SCORES[quantity]
                _line(top, table, x, colours[name], {"marker": marker, "linestyle": line, "filled": filled})
        null = series(result, name, "null")
        for _, row in null.iterrows():
            at, half = places[name][row["layer"]], 0.3
            top.fill_between(
                [at - half, at + half], row["low"], row["high"], color=plotting.BAND, linewidth=0, zorder=1
            )
    top.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    top.set_ylabel("Median held-out r")
    keys = [Line2D([], [], color=colours[name], linewidth=3, label=name) for name in networks]
    keys += [
        Line2D([], [], color=plotting.INK, marker=_SCORES[q][1], linestyle=_SCORES[q][2], markersize=5.2,
               markerfacecolor=plotting.INK if _SCORES[q][3] else "white", label=_SCORES[q][0].format(linear=linear))
        for q in drawn
    ]  # fmt: skip
    top.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2 if wide > _NARROW else 1, borderaxespad=0.2,
        handlelength=2.2,
    )  # fmt: skip
    if not nulls:
        _axis(top, names, same, across)
        return figure
    top.tick_params(labelbottom=False)
    bottom = figure.add_axes((_LEFT / wide, lower / tall, across / wide, (share - 0.5) / tall), sharex=top)
    for name in networks:
        for kind, line in zip(nulls, _DASHES, strict=False):
            table = series(result, name, f"beyond {kind}")
            x = np.array([places[name][layer] for layer in table["layer"]])
            style = {"marker": "o", "linestyle": line, "filled": line == "-"}
            if len(table):
                _line(bottom, table, x, colours[name], style)
    bottom.axhline(0.01, color=plotting.SOFT, linewidth=0.8, linestyle=":", zorder=1)
    bottom.set_ylim(-0.04, 1.04)
    bottom.set_ylabel("Neurons beyond\n99 % of null")
    if len(nulls) > 1:
        lines = [
            Line2D([], [], color=plotting.INK, linestyle=line, marker="o", markersize=5.2,
                   markerfacecolor=plotting.INK if line == "-" else "white", label=NULLS[one])
            for one, line in zip(nulls, _DASHES, strict=False)
        ]  # fmt: skip
        bottom.legend(
            handles=lines, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2 if wide > _NARROW else 1,
            borderaxespad=0.1, handlelength=2.2,
        )  # fmt: skip
    _axis(bottom, names, same, across)
    return figure


def _controls_figure(result: xr.Dataset, networks: list[str], title: str | None, wide: float) -> Figure:
    """The match of the first network beside its controls, and beside the other networks."""
    network = networks[0]
    _, names, same = _layout(result, networks)
    lines = [(words, series(result, network, one), marker, colour)
             for one, (words, marker, colour) in _CONTROLS.items()]  # fmt: skip
    lines += [(f"unit of {name}", series(result, name, "unit"), "X", plotting.SOFT) for name in networks[1:] if same]
    lines = [line for line in lines if len(line[1])]
    across, columns = wide - _LEFT - 0.2, 2 if wide > _NARROW else 1
    depth = plotting.label_depth(names, across)
    tall = 0.62 + 0.2 * -(-len(lines) // columns) + 0.1 + 2.6 + depth + 0.4
    figure = plotting.new_figure(wide, tall)
    _head(figure, result, title or f"Controls of the match with {network}", wide, tall)
    axes = figure.add_axes((_LEFT / wide, (depth + 0.4) / tall, across / wide, 2.6 / tall))
    for number, (label, table, marker, colour) in enumerate(lines):
        at = np.array([names.index(one) for one in table["layer"]]) + 0.07 * (number - (len(lines) - 1) / 2)
        _line(axes, table, at, colour, {"marker": marker, "linestyle": "-", "label": label})
    axes.axhline(0, color=plotting.SOFT, linewidth=0.8, zorder=1)
    axes.set_ylabel("Median held-out r")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=2.2)
    _axis(axes, names, True, across)
    return figure


def caption(result: xr.Dataset, kind: Kind = "profile", **_unused: Any) -> str:
    """Say in sentences what the figure shows.

    Parameters
    ----------
    result : xarray.Dataset
        What ``neuron_summary`` returned.
    kind : {"profile", "controls"}
        Which figure.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    networks = _check(result, kind)
    attrs, quantities = result.attrs, set(result["quantity"].values.tolist())
    over = "Bars are 95 % bootstrap intervals over neurons, which speak of other neurons of this recording."
    if kind == "profile":
        text = [
            f"Median over neurons of the correlation with held-out responses of {attrs['recording']}"
            + (f" ({attrs['splitting']})" if attrs.get("splitting") else "")
            + ": the unit chosen for each neuron on the training stimuli, unscaled"
            + (f", and a linear map of all units ({attrs['linear']})." if attrs.get("linear") else "."),
            over,
        ]
        if any("corrected" in one for one in quantities):
            text.append("Open marks divide r by the square root of the neuron's reliability.")
        if "null" in quantities:
            text.append("Grey bands hold 95 % of the medians of matches with permuted stimuli.")
        shown = [NULLS[one] for one in NULLS if f"beyond {one}" in quantities]
        if shown:
            text.append(
                "Below: share of neurons above the 99th percentile of their own null "
                f"({'; '.join(shown)}), the match made anew for every permutation; dotted, the share that chance gives."
            )
        return " ".join(text)
    words = {
        "shuffle": "scored with the units of other neurons (bars: 95 % of the medians)",
        "rotated": "with randomly rotated channels, the same at every position (bars: range over rotations)",
        "pools": f"with pools of {attrs.get('pool_size', 'equally many')} units from every layer (bars: 95 % of pools)",
    }
    said = [one for name, one in words.items() if name in quantities]
    said += [f"with the unit of {name} instead" for name in networks[1:] if len(series(result, name, "unit"))]
    return (
        f"Median over neurons of {attrs['recording']} of the held-out correlation with the matched unit of "
        f"{networks[0]}" + (f"; the same {'; '.join(said)}." if said else ".") + " All other bars are 95 % bootstrap "
        "intervals over neurons, which speak of other neurons of this recording."
    )


def alt_text(result: xr.Dataset, kind: Kind = "profile", **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``neuron_summary`` returned.
    kind : {"profile", "controls"}
        Which figure.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    networks = _check(result, kind)
    shown = ("unit", "linear") if kind == "profile" else ("unit", "rotated", "shuffle")
    words = {"unit": "matched unit", "linear": str(result.attrs.get("linear", "linear map"))}
    said = []
    for name in networks if kind == "profile" else networks[:1]:
        for quantity in shown:
            values = series(result, name, quantity)["value"].to_numpy()
            if len(values):
                what = words.get(quantity) or _CONTROLS[quantity][0]
                said.append(f"{name}, {what}: {plotting.short(values[0])} in the first layer, "
                            f"{plotting.short(values[-1])} in the last")  # fmt: skip
    return f"Lines over {len(_layout(result, networks)[1])} layers. {'; '.join(said)}."
