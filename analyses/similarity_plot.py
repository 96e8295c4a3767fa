"""Figure of layer similarity: a matrix of layers by layers with its scale."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_VALUES = 9  # up to this many layers a side, every value is written into its cell
_NAMES = ("similarity", "angle", "distance")
_IGNORES = {
    "cka": "offsets, rotations of the units and the scale of a layer",
    "cka_unbiased": "offsets, rotations of the units and the scale of a layer",
    "procrustes": "offsets, rotations of the units and the scale of a layer",
    "cca_mean": "offsets and all invertible linear maps of the units",
    "svcca": "offsets, rotations of the units and the scale of a layer",
    "pwcca": "offsets and the scale of a layer; directions are weighted by the units of the layer in the row",
}


def _values(result: xr.Dataset) -> xr.DataArray:
    """The matrix of a result."""
    for name in _NAMES:
        if name in result and result[name].dims == ("layer", "other_layer"):
            return result[name]
    raise InputError("this is not a similarity result (layer, other_layer); give what similarity() returned")


def plot(
    result: xr.Dataset,
    *,
    title: str | None = None,
    limits: tuple[float, float] | None = None,
    narrow: bool = False,
    **_unused: Any,
) -> Figure:
    """Draw the similarity of every layer with every layer.

    Parameters
    ----------
    result : xarray.Dataset
        What ``similarity`` returned.
    title : str, optional
        Headline.
    limits : tuple of float, optional
        Ends of the colour scale, to compare figures; by default 0 to 1 for similarities (lower where values are
        negative), and 0 to the largest for distances.
    narrow : bool
        For a phone or a single column.

    Returns
    -------
    matplotlib.figure.Figure
        Rows are the layers of the first network, from the top; columns those of the second. Layers without variation
        are hatched.
    """
    with plotting.style():
        return _draw(result, _values(result), title, limits, narrow)


def plot_narrow(result: xr.Dataset, **options: Any) -> Figure:
    """Draw the matrix for a phone or a single column; see :func:`plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What ``similarity`` returned.
    **options
        Those of :func:`plot`.

    Returns
    -------
    matplotlib.figure.Figure
        About 3.4 inches wide.
    """
    return plot(result, **{**options, "narrow": True})


def _draw(
    result: xr.Dataset, values: xr.DataArray, title: str | None, limits: tuple[float, float] | None, narrow: bool
) -> Figure:
    """Lay the matrix out with square cells, its labels and its scale."""
    import matplotlib as mpl

    matrix = values.values
    rows, columns = matrix.shape
    names = [values[dim].values.astype(str).tolist() for dim in ("layer", "other_layer")]
    (front, labels), (other_front, _) = (plotting.common_stem(side) for side in names)
    longest = max(len(label) for label in labels)
    left = min(0.66 + 0.075 * longest, 1.45 if narrow else 2.4)
    widest = (3.5 - left - 0.75) if narrow else 4.4
    cell = min(widest / max(rows, columns), 0.62)
    # A single row or column still has to carry a scale and a headline.
    across, down = max(cell * columns, 1.2 if narrow else 1.6), max(cell * rows, 0.9)
    bottom = 0.42 + plotting.label_depth(names[1], across)
    head, line = _words(result, values, title)
    width = max(left + across + 0.85, 3.5 if narrow else 0.3 + 0.1 * len(head))
    head, lines = _wrapped(head, line, width, narrow)
    top = 0.25 + 0.21 * head.count("\n") + 0.3 + 0.17 * len(lines)
    height = bottom + down + top
    figure = plotting.new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, across / width, down / height))
    low, high = limits or _limits(values)
    # Bright is alike, whichever way the numbers run.
    alike = values.name == "similarity"
    colours = mpl.colormaps[plotting.SEQUENTIAL if alike else f"{plotting.SEQUENTIAL}_r"].with_extremes(bad="#ececec")
    image = axes.imshow(matrix, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    _hatch(axes, matrix)
    if max(rows, columns) <= _VALUES and cell >= (0.3 if narrow else 0.36):
        _write(axes, matrix, image)
    for spine in axes.spines.values():
        spine.set_visible(False)
    plotting.label_layers(axes, list(range(columns)), names[1], across)
    chosen = plotting.thin(rows, max(2, int(down / 0.19)))
    most = int((left - 0.5) / 0.072)
    axes.set_yticks(chosen, [_shorten(labels[i], most) for i in chosen])
    axes.set_xlabel(_axis(result, "second", other_front))
    axes.set_ylabel(_axis(result, "first", front))
    # Where it stands beside the names by default depends on their width, and could be off the page.
    axes.yaxis.set_label_coords(-(left - 0.3) / across, 0.5)
    scale = figure.add_axes(((left + across + 0.14) / width, bottom / height, 0.12 / width, down / height))
    drawn = figure.colorbar(image, cax=scale)
    drawn.outline.set_visible(False)
    scale.tick_params(length=0, labelsize=9)
    figure.text(0.12 / width, 1 - 0.08 / height, head, va="top", fontsize=13, fontweight="bold", linespacing=1.25)
    figure.text(
        0.12 / width,
        1 - (0.36 + 0.21 * head.count("\n")) / height,
        "\n".join(lines),
        va="top",
        fontsize=9.5,
        color=plotting.SOFT,
        linespacing=1.3,
    )
    return figure


def _wrapped(head: str, line: str, width: float, narrow: bool) -> tuple[str, list[str]]:
    """Break headline and subtitle to the width of the figure."""
    import textwrap

    head = "\n".join(textwrap.wrap(head, int((width - 0.2) / 0.092))) if narrow else head
    return head, textwrap.wrap(line, int((width - 0.2) / 0.064))


def _words(result: xr.Dataset, values: xr.DataArray, title: str | None) -> tuple[str, str]:
    """Headline, and the grey line below it."""
    first, second = (str(result.attrs.get(key, "network")) for key in ("first", "second"))
    same = bool(result.attrs.get("same", 0)) or first == second
    headline = title or (f"Layers of {first}" if same else f"Layers of {first} and {second}")
    unit = str(values.attrs.get("units", "1"))
    measure = str(values.attrs.get("long_name", "similarity"))
    shown = measure + (f" in {'radians' if unit == 'rad' else f'units of the {unit}'}" if unit != "1" else "")
    sense = "1: same" if values.name == "similarity" else "0: same"
    line = f"{shown} ({sense}); {result.attrs.get('n_stimuli', '?')} stimuli"
    chance = _chance(result)
    return headline, line + (f"; unrelated layers: {chance}" if chance else "")


def _chance(result: xr.Dataset) -> str:
    """What unrelated layers score, where that is not 0; an empty text otherwise."""
    if "chance" not in result or str(result.attrs.get("method")) == "cka_unbiased":
        return ""
    values = result["chance"].values
    if not np.isfinite(values).any():
        return ""
    low, high = plotting.short(float(np.nanmin(values))), plotting.short(float(np.nanmax(values)))
    most = "" if str(result.attrs.get("method")) == "cka" else "at most "
    return most + (low if low == high else f"{low} to {high}")


def _limits(values: xr.DataArray) -> tuple[float, float]:
    """Ends of the colour scale."""
    matrix = values.values
    known = matrix[np.isfinite(matrix)]
    if not len(known):
        return 0.0, 1.0
    if values.name == "similarity":
        return min(0.0, float(known.min())), 1.0
    return 0.0, float(known.max()) or 1.0


def _hatch(axes: Axes, matrix: np.ndarray) -> None:
    """Hatch cells without a value."""
    from matplotlib.patches import Rectangle

    for i, j in np.argwhere(np.isnan(matrix)).tolist():
        corner = (j - 0.5, i - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor=plotting.FAINT, linewidth=0, zorder=3)
        )


def _write(axes: Axes, matrix: np.ndarray, image: AxesImage) -> None:
    """Write values into the cells, light on dark and dark on light."""
    shades = image.to_rgba(matrix)[..., :3] @ np.array([0.299, 0.587, 0.114])
    for i, j in np.argwhere(np.isfinite(matrix)).tolist():
        colour = "white" if shades[i, j] < 0.5 else plotting.INK
        axes.text(j, i, plotting.short(matrix[i, j]), ha="center", va="center", fontsize=8.5, color=colour)


def _axis(result: xr.Dataset, side: str, front: str) -> str:
    """Name one axis."""
    name = str(result.attrs.get(side, "network"))
    same = str(result.attrs.get("first")) == str(result.attrs.get("second"))
    start = "Layer" if same else f"{_shorten(name, 22)} layer"
    return f"{start}{f' ({front}*)' if front else ''}"


def _shorten(text: str, most: int) -> str:
    """Cut the middle out of a long name."""
    most = max(most, 5)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most - most // 2) :]}"


def caption(result: xr.Dataset, **_unused: Any) -> str:
    """Say in sentences what the figure shows: the measure, what it ignores, chance, and layers left out.

    Parameters
    ----------
    result : xarray.Dataset
        What ``similarity`` returned.

    Returns
    -------
    str
        Plain text.
    """
    values = _values(result)
    first, second = str(result.attrs.get("first")), str(result.attrs.get("second"))
    whose = f"of {first}" if first == second else f"of {first} (rows) and {second} (columns)"
    method = str(result.attrs.get("method"))
    measure = str(values.attrs.get("long_name"))
    ignored = _IGNORES.get(method, "offsets")
    if method == "procrustes" and "α = 0)" in measure:
        ignored = _IGNORES["cca_mean"]
    elif method == "procrustes" and values.attrs.get("units") == "activation":
        ignored = "offsets and rotations of the units, not the scale of a layer"
    text = [
        f"{measure[:1].upper()}{measure[1:]} between the layers {whose}, over {result.attrs.get('n_stimuli')} stimuli; "
        f"it ignores {ignored}."
    ]
    if method == "pwcca":
        text.append("The matrix is not symmetric.")
    chance = _chance(result)
    if chance:
        text.append(f"Layers with unrelated patterns of the same dimensions would score {chance} on average.")
    if "error" in result:
        errors = result["error"].values
        errors = errors[np.isfinite(errors) & (errors > 1e-12)]  # a layer with itself has none
        if len(errors):
            median = plotting.short(float(np.median(errors)), 3)
            text.append(f"Jackknife standard errors over stimuli: {median} in the median.")
    undefined = json.loads(result.attrs.get("undefined", "{}"))
    missing = sorted({name for names in undefined.values() for name in names})
    if missing:
        text.append(f"Hatched: {', '.join(missing)}, which does not vary over stimuli.")
    return " ".join(text)


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What ``similarity`` returned.

    Returns
    -------
    str
        One or two sentences.
    """
    values = _values(result)
    rows, columns = values.shape
    matrix = values.values.copy()
    if rows == columns and np.array_equal(matrix, matrix.T, equal_nan=True):
        np.fill_diagonal(matrix, np.nan)  # a layer with itself says nothing
    measure = str(values.attrs.get("long_name"))
    if not np.isfinite(matrix).any():
        return f"Heat map of {measure}, {rows} by {columns} layers."
    ends = [np.unravel_index(int(at(matrix)), matrix.shape) for at in (np.nanargmin, np.nanargmax)]
    words = [
        f"{plotting.short(matrix[i, j])} between {values['layer'].values[i]} and {values['other_layer'].values[j]}"
        for i, j in ends
    ]
    return f"Heat map of {measure}, {rows} by {columns} layers, from {words[0]} to {words[1]}."
