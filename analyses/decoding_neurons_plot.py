"""Figures of decoding from neurons: accuracy within and across conditions, confusions, and the curve by neurons."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit import plotting
from actkit.analyses import decoding_panels
from actkit.analyses.classifiers import WORDS
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["accuracy", "confusion", "curve"]
_ALPHA = 0.05


def _results(result: xr.Dataset | Mapping[str, xr.Dataset], kind: str) -> dict[str, xr.Dataset]:
    """One result or several, by name."""
    import xarray as xr

    # A Dataset is a mapping too, of variables.
    if isinstance(result, xr.Dataset):
        named = {WORDS.get(str(result.attrs.get("classifier")), "neurons"): result}
    else:
        named = {str(name): one for name, one in result.items()}
    if not named:
        raise InputError("no decoding results were given, so there is nothing to draw")
    for name, one in named.items():
        if not {"within", "across", "confusion", "chance"} <= set(getattr(one, "data_vars", ())):
            raise InputError(
                f"{name!r} is no result of decoding from neurons; give what actkit.decode_neurons() returned"
            )
    if kind not in ("accuracy", "confusion", "curve"):
        raise InputError(f"kind is {kind!r}; choose 'accuracy', 'confusion' or 'curve'")
    return named


def _crossed(result: xr.Dataset) -> bool:
    """Whether there are several conditions."""
    return bool(np.isfinite(result["across"].values).any())


def _headline(first: xr.Dataset, title: str | None) -> str:
    label = str(first.attrs.get("label", "labels")).replace("_", " ")
    return title or f"Decoding {label} from {int(first.attrs.get('n_neurons', 0))} neurons"


def _held_out(first: xr.Dataset) -> str:
    """What is held out, in words."""
    return "stimuli" if first.attrs.get("hold_out") == "stimulus" else "presentations"


def _draws(result: xr.Dataset) -> str:
    """How many draws, in words."""
    return f"{result.sizes['draw']} draw{'s' if result.sizes['draw'] > 1 else ''}"


def plot(
    result: xr.Dataset | Mapping[str, xr.Dataset], *, kind: Kind = "accuracy", title: str | None = None, **_unused: Any
) -> Figure:
    """Draw accuracies with chance and intervals, the confusion matrix, or accuracy by number of neurons.

    Parameters
    ----------
    result : xarray.Dataset or mapping of name to Dataset
        What ``decode_neurons`` returned; several results (classifiers, areas) side by side.
    kind : {"accuracy", "confusion", "curve"}
        ``accuracy``: marks within and across conditions, with their intervals, and for a single result the matrix of
        conditions trained on and tested. ``confusion``: shares of responses, within conditions and across them, of the
        first result. ``curve``: mean and standard deviation over draws by number of neurons.
    title : str, optional
        Headline.

    Returns
    -------
    matplotlib.figure.Figure
        About 6.5 by 4 inches.

    Raises
    ------
    InputError
        If it is no such result, or there is no such kind.
    """
    named = _results(result, kind)
    first = next(iter(named.values()))
    if kind == "confusion":
        panels = _confusions(first)
        names = [str(value) for value in first["shown"].values]
        return decoding_panels.matrices(panels, names, names, _headline(first, title), _line(named))
    if kind == "curve":
        lines: dict[str, np.ndarray] = {}
        for name, one in named.items():
            lead = f"{name}, " if len(named) > 1 else ""
            for where, draws in _by_draw(one).items():
                lines[f"{lead}{where}" if _crossed(one) else name] = draws
        sizes = first["size"].values
        if any(not np.array_equal(one["size"].values, sizes) for one in named.values()):
            raise InputError("the results have curves of other sizes; decode them with the same sizes")
        line = f"held-out {_held_out(first)}; bands: standard deviation over {_draws(first)}"
        text = _headline(first, title or f"Decoding {first.attrs.get('label', 'labels')} by number of neurons")
        return decoding_panels.curves(lines, sizes, float(first["chance"]), text, line)
    with plotting.style():
        return _accuracies(named, title)


def _by_draw(result: xr.Dataset) -> dict[str, np.ndarray]:
    """Accuracy ``(sizes, draws)`` within and across conditions."""
    own = _own(result)
    values = result["accuracy"].values
    parts = {"within conditions": values[:, :, own].mean(axis=-1)}
    if _crossed(result):
        parts["across conditions"] = values[:, :, ~own].mean(axis=-1)
    return parts


def _own(result: xr.Dataset) -> np.ndarray:
    """Which pairs of training and test are of one condition."""
    train, test = result["train"].values.astype(str), result["test"].values.astype(str)
    if result.attrs.get("train_on") == "others":
        return np.broadcast_to((train == "same")[:, None], (len(train), len(test)))
    return np.asarray(train[:, None] == test[None])


def _confusions(result: xr.Dataset) -> dict[str, np.ndarray]:
    """Confusion matrices within and across conditions; conditions count alike."""
    own, values = _own(result), result["confusion"].values
    if not _crossed(result):
        return {"": values[own].mean(axis=0)}
    return {"Within conditions": values[own].mean(axis=0), "Across conditions": values[~own].mean(axis=0)}


def _line(named: Mapping[str, xr.Dataset]) -> str:
    """The grey line: held-out samples, draws and what bars are."""
    first = next(iter(named.values()))
    words = f"{int(first.attrs.get('n_samples', 0))} held-out {_held_out(first)}, {_draws(first)}"
    return f"{next(iter(named))}; {words}" if len(named) == 1 else words


def _accuracies(named: Mapping[str, xr.Dataset], title: str | None) -> Figure:
    """Marks with intervals, and the matrix of conditions beside them where there is one result."""
    first = next(iter(named.values()))
    matrix = len(named) == 1 and _crossed(first)
    rows = [str(value) for value in first["train"].values]
    columns = [str(value) for value in first["test"].values]
    room = 0.5 + 0.078 * max(len(row) for row in rows) if matrix else 0
    side = max(2.3, 0.5 * len(columns)) if matrix else 0
    left, wide, tall, top = 0.85, (2.5 if matrix else 5.4), 2.6, 0.95
    below = 0.85 if matrix else 0.75
    width, height = left + wide + (0.35 + room + side) + 0.2, below + tall + top
    figure = plotting.new_figure(width, height)
    axes = figure.add_axes((left / width, below / height, wide / width, tall / height))
    _marks(axes, named)
    if matrix:
        axes.set_xticks([-0.12, 0.12], ["within", "across"])
        axes.set_xlim(-0.3, 0.3)
        axes.set_xlabel(str(first.attrs.get("condition") or "conditions").replace("_", " ").capitalize())
        at = (left + wide + 0.35 + room) / width
        panel = figure.add_axes((at, below / height, side / width, tall / height))
        values = first["mean"].isel(size=-1).values
        decoding_panels.matrix_panel(panel, values, rows, columns)
        if max(len(name) for name in columns) * 0.078 + 0.06 > side / len(columns):
            panel.set_xticklabels(columns, rotation=38, ha="right", rotation_mode="anchor")
        panel.set_ylabel("Trained on")
        panel.set_xlabel("Tested on")
        panel.set_title("Share decoded", loc="left", fontsize=10)
    decoding_panels.headline(figure, left, _headline(first, title), _line(named))
    over = "neurons" if first.attrs.get("interval") == "neurons" else _held_out(first)
    line = f"bars: 95 % interval over {over}"
    if any(one.sizes.get("permutation") for one in named.values()):
        line += "; filled: p ≤ .05"
    figure.text(left / width, 1 - 0.56 / height, line, va="top", fontsize=9.5, color=plotting.SOFT)
    return figure


def _marks(axes: Axes, named: Mapping[str, xr.Dataset]) -> None:
    """Accuracy within and across conditions of each result."""
    chance = float(next(iter(named.values()))["chance"])
    for number, one in enumerate(named.values()):
        for k, where in enumerate(("within", "across")):
            y = float(one[where].values[-1])
            if not np.isfinite(y):
                continue
            x = number + (-0.12 if k == 0 else 0.12) * _crossed(one)
            low, high = (float(one[f"{where}_{end}"].values[-1]) for end in ("low", "high"))
            p = float(one[f"p_{where}"].values[-1]) if f"p_{where}" in one else np.nan
            colour = plotting.COLOURS[k]
            axes.vlines(x, low, high, color=colour, linewidth=2, zorder=2)
            axes.plot(
                x,
                y,
                plotting.MARKERS[k],
                color=colour,
                markerfacecolor="white" if p > _ALPHA else colour,
                markeredgewidth=1.4,
                markersize=6.5,
                zorder=3,
                label=f"{where} conditions" if number == 0 and len(named) > 1 else None,
            )
            axes.annotate(plotting.short(y), (x, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_ylim(0, 1.05)
    axes.set_xlim(-0.5, len(named) - 0.5)
    axes.set_xticks(range(len(named)), ["\n".join(textwrap.wrap(name, max(8, 70 // len(named)))) for name in named])
    axes.set_ylabel("Held-out samples\ndecoded correctly", linespacing=1.35)
    decoding_panels.chance_line(axes, chance)
    if len(named) > 1 and any(_crossed(one) for one in named.values()):
        axes.legend(loc="lower left", bbox_to_anchor=(0.3, 0.99), ncols=2, borderaxespad=0.2, handletextpad=0.3)


def caption(result: xr.Dataset | Mapping[str, xr.Dataset], *, kind: Kind = "accuracy", **_unused: Any) -> str:
    """Say in sentences what the figure shows: labels, what is held out, scaling, intervals, chance, tests.

    Parameters
    ----------
    result : xarray.Dataset or mapping of name to Dataset
        What ``decode_neurons`` returned.
    kind : {"accuracy", "confusion", "curve"}
        Which figure.

    Returns
    -------
    str
        Plain text.

    Raises
    ------
    InputError
        If it is no such result, or there is no such kind.
    """
    named = _results(result, kind)
    first = next(iter(named.values()))
    attrs, short = first.attrs, plotting.short
    how = WORDS.get(str(attrs.get("classifier")), "a linear classifier")
    trained = "in all other conditions" if attrs.get("train_on") == "others" else "in each condition"
    text = [
        f"Share of held-out {_held_out(first)} whose {attrs.get('label', 'label')} ({first.sizes['shown']} classes) is "
        f"decoded correctly from {int(attrs.get('n_neurons', 0))} neurons ({attrs.get('recording', 'recording')}): "
        f"{how if len(named) == 1 else 'linear classifiers'}, neurons standardised on training samples alone, "
        f"{int(attrs.get('n_samples', 0))} samples in {'each of ' if first.sizes['draw'] > 1 else ''}{_draws(first)} "
        "of folds" + (f"; trained {trained} and tested on the same held-out fold of each." if _crossed(first) else ".")
    ]
    if kind == "curve":
        text.append(
            f"Each draw takes random neurons, {first.sizes['size']} sizes from {int(first['size'][0])} to "
            f"{int(first['size'][-1])}; bands are standard deviations over draws."
        )
    elif kind == "confusion":
        text.append("Rows are the classes shown, columns the classes decoded; rows add up to 1.")
        for where, values in _confusions(first).items():
            names = [str(value) for value in first["shown"].values]
            commonest = decoding_panels.top_confusions(values, names, names)
            text.append(f"Commonest{' ' + where.lower() if where else ''}: {commonest}.")
    else:
        over = (
            "neurons (jackknife over groups)" if attrs.get("interval") == "neurons" else f"{_held_out(first)} (Wilson)"
        )
        text.append(f"Bars are 95 % intervals over {over}.")
    text.append(
        f"Chance ({decoding_panels.chance_words(float(first['chance']))}) is the share of the most frequent class."
    )
    for name, one in named.items():
        words = f"{name}: {short(float(one['within'][-1]))} within conditions" if _crossed(one) else ""
        words = words or f"{name}: {short(float(one['within'][-1]))}"
        if _crossed(one):
            words += f", {short(float(one['across'][-1]))} across"
        if one.sizes.get("permutation"):
            words += f"; permutation tests of {one.sizes['permutation']} orders, one-sided: p = "
            words += short(float(one["p_within"][-1]), 3)
            if _crossed(one):
                words += f" within, {short(float(one['p_across'][-1]), 3)} across (names of classes permuted)"
        text.append(words + ".")
    if not first.sizes.get("permutation"):
        text.append("No significance was tested.")
    return " ".join(text)


def alt_text(result: xr.Dataset | Mapping[str, xr.Dataset], *, kind: Kind = "accuracy", **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset or mapping of name to Dataset
        What ``decode_neurons`` returned.
    kind : {"accuracy", "confusion", "curve"}
        Which figure.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        If it is no such result, or there is no such kind.
    """
    named = _results(result, kind)
    first = next(iter(named.values()))
    short, label = plotting.short, first.attrs.get("label", "labels")
    if kind == "confusion":
        parts = [
            f"{where.lower() or 'all'}: {short(float(np.trace(values)) / len(values))} on the diagonal on average"
            for where, values in _confusions(first).items()
        ]
        return f"Confusion matrix of decoding {label} from neurons; {'; '.join(parts)}."
    if kind == "curve":
        parts = [
            f"{name} {where} from {short(float(draws[0].mean()))} to {short(float(draws[-1].mean()))}"
            for name, one in named.items()
            for where, draws in _by_draw(one).items()
        ]
        ends = f"{int(first['size'][0])} to {int(first['size'][-1])}"
        return f"Accuracy of decoding {label} by number of neurons, {ends}: {'; '.join(parts)}."
    parts = [
        f"{name} {short(float(one['within'][-1]))}"
        + (f" within and {short(float(one['across'][-1]))} across conditions" if _crossed(one) else "")
        for name, one in named.items()
    ]
    chance = decoding_panels.chance_words(float(first["chance"]))
    return f"Marks with bars: accuracy of decoding {label} from neurons; chance is {chance}. {'; '.join(parts)}."
