"""The house style of figures, how a result finds its figure, and how figures are saved.

Figures are made without pyplot: nothing is shown, no global state changes, and every function returns a
:class:`matplotlib.figure.Figure` that can be saved with ``figure.savefig`` or :func:`save_figure`.
"""

from __future__ import annotations

import functools
import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import InputError
from actkit.results import atomic_write

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure
    from PIL.Image import Image

# Okabe and Ito, "Color Universal Design" (2008): told apart by colour-blind readers; yellow is left out (too light).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# A second cue beside colour, for prints in grey.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#222222"
SOFT = "#6b6b6b"
FAINT = "#b8b8b8"
BAND = "#e3e3e3"
SEQUENTIAL = "cividis"

_FONTS = ("Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")
_MEASURES = {
    "spearman": "Spearman ρ",
    "pearson": "Pearson r",
    "cosine": "cosine similarity",
    "kendall_tau_a": "Kendall τ-a",
    "rho_a": "Spearman ρ-a",
}


@functools.cache
def _font_families() -> list[str]:
    """The first font of the house list that is installed, then the one that ships with matplotlib."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    first = next((name for name in _FONTS if name in installed), "DejaVu Sans")
    return list(dict.fromkeys([first, "DejaVu Sans"]))


def settings() -> dict[str, Any]:
    """List the matplotlib settings of the house style.

    Returns
    -------
    dict
        For ``matplotlib.rc_context``; a fresh copy.
    """
    return {
        "font.family": _font_families(),
        "font.size": 10.5,
        "axes.titlesize": 10.5,
        "axes.labelsize": 10.5,
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
        "legend.fontsize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": SOFT,
        "axes.linewidth": 0.8,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.major.size": 3.0,
        "ytick.major.size": 3.0,
        "xtick.major.width": 0.8,
        "ytick.major.width": 0.8,
        "lines.linewidth": 2.0,
        "legend.frameon": False,
        "figure.dpi": 100.0,
        "savefig.dpi": 200.0,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "savefig.facecolor": "white",
        # Outlines: the figure looks the same in every viewer. The salt makes element ids, hence bytes, repeatable.
        "svg.fonttype": "path",
        "svg.hashsalt": "actkit",
        "pdf.fonttype": 42,
    }


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style; matplotlib's own settings come back at the end.

    Yields
    ------
    None
    """
    import matplotlib as mpl

    complete: dict[Any, Any] = {**mpl.rcParamsDefault, "backend": mpl.rcParams["backend"], **settings()}
    with mpl.rc_context(complete):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure that belongs to no window.

    Parameters
    ----------
    width, height : float
        Size in inches.

    Returns
    -------
    matplotlib.figure.Figure
        With an Agg canvas; call inside :func:`style`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def svg_bytes(figure: Figure) -> bytes:
    """Render a figure as SVG, the same bytes each time.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.

    Returns
    -------
    bytes
        The file's content, without a date.
    """
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def png_bytes(figure: Figure, dpi: float = 200) -> bytes:
    """Render a figure as PNG, the same bytes each time.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    dpi : float
        Dots per inch.

    Returns
    -------
    bytes
        The file's content, without a date.
    """
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save_figure(figure: Figure, stem: str | Path, dpi: float = 200) -> list[Path]:
    """Save a figure as SVG (for papers and slides) and as PNG (for everything else).

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    stem : path
        Path without suffix; folders are made if needed. A dot in the name is kept (``"layer.3"`` gives
        ``layer.3.svg``); the suffixes .svg and .png are taken off.
    dpi : float
        Dots per inch of the PNG.

    Returns
    -------
    list of Path
        The SVG, then the PNG.
    """
    stem = Path(stem)
    if stem.suffix.lower() in (".svg", ".png"):
        stem = stem.with_suffix("")
    return [
        atomic_write(stem.with_name(stem.name + ".svg"), svg_bytes(figure)),
        atomic_write(stem.with_name(stem.name + ".png"), png_bytes(figure, dpi)),
    ]


def plot(result: xr.Dataset | Mapping[str, xr.Dataset], **options: Any) -> Figure:
    """Draw a result: the analysis that made it knows how.

    Parameters
    ----------
    result : xarray.Dataset or mapping of name to Dataset
        What an analysis returned, or what :func:`actkit.load` read; several decoding results are drawn side by side.
    **options
        Handed to the analysis's own ``plot``, such as ``stimuli=``, ``labels=`` or ``title=``.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``.savefig(path)`` or :func:`save_figure`.

    Raises
    ------
    InputError
        If the Dataset does not say which analysis made it, or that analysis draws nothing.
    PluginError
        If that analysis is not installed.
    """
    return _of_analysis(result, "plot")(result, **options)


def caption(result: xr.Dataset | Mapping[str, xr.Dataset], **options: Any) -> str:
    """Write the caption of a result's figure: what is shown, error bands, numbers of subjects and draws, tests.

    Parameters
    ----------
    result : xarray.Dataset
        What an analysis returned.
    **options
        Those given to :func:`plot`.

    Returns
    -------
    str
        Plain sentences.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    return str(_of_analysis(result, "caption")(result, **options))


def alt_text(result: xr.Dataset | Mapping[str, xr.Dataset], **options: Any) -> str:
    """Describe a result's figure for readers who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What an analysis returned.
    **options
        Those given to :func:`plot`.

    Returns
    -------
    str
        One or two sentences.

    Raises
    ------
    InputError
        As for :func:`plot`.
    """
    return str(_of_analysis(result, "alt_text")(result, **options))


def plot_narrow(result: xr.Dataset | Mapping[str, xr.Dataset], **options: Any) -> Figure | None:
    """Draw a result for a phone or a single column, where its analysis has such a figure.

    Parameters
    ----------
    result : xarray.Dataset
        What an analysis returned.
    **options
        Those given to :func:`plot`.

    Returns
    -------
    matplotlib.figure.Figure or None
        None where the usual figure is all there is.

    Raises
    ------
    InputError
        If the Dataset does not say which analysis made it.
    """
    function = _of_analysis(result, "plot_narrow", needed=False)
    return None if function is None else function(result, **options)


def _of_analysis(result: xr.Dataset | Mapping[str, xr.Dataset], what: str, needed: bool = True) -> Any:
    """Find a function of the analysis that made a result: in ``<module>_plot`` beside its module, or in the module."""
    from actkit import plugins

    first = (
        next(iter(result.values()), None) if isinstance(result, Mapping) and not hasattr(result, "attrs") else result
    )
    analysis = getattr(first, "attrs", {}).get("analysis")
    if not analysis and "dissimilarity" in getattr(first, "variables", ()):
        analysis = "rdm"  # RDMs that came with a data set
    if not analysis:
        raise InputError(
            "this object has no attrs['analysis'], so nothing says how to draw it; give the Dataset that an analysis "
            "returned (operations that drop attributes can be told keep_attrs=True)"
        )
    module = plugins.load("actkit.analyses", str(analysis))
    beside = f"{module.__name__}_plot"
    if find_spec(beside) is not None and hasattr(importlib.import_module(beside), what):
        return getattr(importlib.import_module(beside), what)
    if hasattr(module, what):
        return getattr(module, what)
    if not needed:
        return None
    raise InputError(f"the analysis {analysis!r} has no {what}(); neither {module.__name__} nor {beside} defines one")


def measure_words(measure: str) -> str:
    """Name a measure of similarity as axis labels do.

    Parameters
    ----------
    measure : str
        Name in options and attributes, such as ``"spearman"``.

    Returns
    -------
    str
        ``"Spearman ρ"``; unknown names come back with blanks for underscores.
    """
    return _MEASURES.get(measure, measure.replace("_", " "))


def short(value: float, digits: int = 2) -> str:
    """Write a score in few characters.

    Parameters
    ----------
    value : float
        A number.
    digits : int
        Decimals.

    Returns
    -------
    str
        Without the leading zero and with a true minus: ``.31``, ``−.05``, ``1.00``.

    Examples
    --------
    >>> short(0.311, 3), short(-0.05), short(1.0)
    ('.311', '−.05', '1.00')
    """
    text = f"{abs(value):.{digits}f}"
    sign = "−" if value < 0 and float(text) != 0 else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def common_stem(names: Sequence[str]) -> tuple[str, list[str]]:
    """Split layer names into what they share and what tells them apart.

    Parameters
    ----------
    names : sequence of str
        Layer names such as ``"_blocks.3"``.

    Returns
    -------
    tuple
        The shared front up to its last dot (may be empty), and the rest of every name.

    Examples
    --------
    >>> common_stem(["_blocks.0", "_blocks.15"])
    ('_blocks.', ['0', '15'])
    >>> common_stem(["conv1", "conv2"])
    ('', ['conv1', 'conv2'])
    """
    names = list(names)
    parts = [name.split(".") for name in names]
    shared = 0
    while len(names) > 1 and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    front = "".join(part + "." for part in parts[0][:shared]) if parts else ""
    return front, [name[len(front) :] for name in names]


def label_layers(
    axes: Any, positions: Sequence[float], names: Sequence[str], width: float, keep: Sequence[int] = ()
) -> str:
    """Put layer names under an axis: as many as can be read, level if they fit and slanted otherwise.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The axes.
    positions : sequence of float
        Where the layers stand on the x axis.
    names : sequence of str
        Their names, in the order of `positions`.
    width : float
        Width of the axes in inches.
    keep : sequence of int
        Layers that must not be thinned away (the first and last are kept always).

    Returns
    -------
    str
        What the names share and the labels leave out (see :func:`common_stem`).
    """
    front, labels = common_stem(names)
    level, room = _level(labels, width)
    most = max(2, int(width / room))
    chosen = thin(len(labels), most, keep)
    axes.set_xticks([positions[i] for i in chosen])
    axes.set_xticks(list(positions), minor=True)
    axes.tick_params(axis="x", which="minor", length=2, width=0.6, color=FAINT)
    axes.set_xticklabels(
        [labels[i] for i in chosen],
        rotation=0 if level else 38,
        ha="center" if level else "right",
        rotation_mode="anchor" if not level else "default",
    )
    return front


def _level(labels: Sequence[str], width: float) -> tuple[bool, float]:
    """Whether labels can stand level under an axis, and the inches that each then takes."""
    longest = max(len(label) for label in labels)
    level = longest * 0.075 + 0.08 <= width / max(len(labels), 1) or longest <= 3
    return level, (longest * 0.075 + 0.1 if level else 0.2)


def label_depth(names: Sequence[str], width: float) -> float:
    """Tell how much room :func:`label_layers` needs under the axis.

    Parameters
    ----------
    names : sequence of str
        Layer names.
    width : float
        Width of the axes in inches.

    Returns
    -------
    float
        Inches, ticks included.
    """
    labels = common_stem(names)[1]
    return 0.2 if _level(labels, width)[0] else 0.22 + 0.6 * 0.07 * max(len(label) for label in labels)


def thin(n: int, most: int, keep: Sequence[int] = ()) -> list[int]:
    """Choose at most about `most` of n places: evenly spaced, with both ends and those to keep.

    Parameters
    ----------
    n : int
        Number of places.
    most : int
        How many there is room for.
    keep : sequence of int
        Places that must stay; a chosen neighbour that would touch one gives way.

    Returns
    -------
    list of int
        Sorted.

    Examples
    --------
    >>> thin(5, 10), thin(11, 6), thin(11, 6, keep=[5])
    ([0, 1, 2, 3, 4], [0, 2, 4, 6, 8, 10], [0, 2, 5, 8, 10])
    """
    if n <= most:
        return list(range(n))
    step = -(-(n - 1) // max(most - 1, 1))
    fixed = sorted({0, n - 1, *(int(i) for i in keep)})
    chosen = [i for i in range(0, n, step) if all(abs(i - j) >= step for j in fixed if j != i)]
    return sorted({*fixed, *chosen})


def spread(values: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Move labels apart as little as needed so that none overlap.

    Parameters
    ----------
    values : sequence of float
        Where the labels would like to stand.
    gap : float
        Least distance between neighbours.
    low, high : float
        Range to stay in; when the labels need more, the gap shrinks.

    Returns
    -------
    numpy.ndarray
        Places in the order of `values`; minimises the squared displacement (pool-adjacent-violators).
    """
    wanted = np.asarray(values, dtype=float)
    n = len(wanted)
    if n < 2:
        return np.clip(wanted, low, high)
    gap = min(gap, (high - low) / (n - 1))
    order = np.argsort(wanted, kind="stable")
    offsets = gap * np.arange(n)
    # Without the offsets the task is isotonic regression, whose solution pools neighbours that are out of order.
    blocks: list[tuple[float, int]] = []
    for target in wanted[order] - offsets:
        mean, size = float(target), 1
        while blocks and blocks[-1][0] >= mean:
            before, count = blocks.pop()
            mean, size = (mean * size + before * count) / (size + count), size + count
        blocks.append((mean, size))
    placed = np.clip(np.repeat([mean for mean, _ in blocks], [size for _, size in blocks]), low, high - offsets[-1])
    result = np.empty(n)
    result[order] = placed + offsets
    return result


def group_colours(groups: Sequence[str]) -> dict[str, Any]:
    """Give each category a colour.

    Parameters
    ----------
    groups : sequence of str
        The categories, unique, in the order in which they are shown.

    Returns
    -------
    dict
        Category to a matplotlib colour: the house palette up to seven, evenly spaced along a perceptually
        uniform map beyond (neighbours then look alike, which a legend has to tell apart). Stimuli without a label
        (the empty text) are grey and take no colour from the others.
    """
    import matplotlib as mpl

    named = [group for group in groups if group]
    if len(named) <= len(COLOURS):
        found: dict[str, Any] = dict(zip(named, COLOURS, strict=False))
    else:
        colours = mpl.colormaps["turbo"](np.linspace(0.04, 0.96, len(named)))
        found = {group: tuple(colour) for group, colour in zip(named, colours, strict=True)}
    return found | {group: "#b0b0b0" for group in groups if not group}


def thumbnail(image: Image | np.ndarray, size: int = 64) -> np.ndarray:
    """Shrink one stimulus to a small square picture.

    Parameters
    ----------
    image : PIL.Image.Image or numpy.ndarray
        A picture; arrays are ``(y, x)`` or ``(y, x, 3)`` uint8, or float arrays of any range (scaled to their own).
    size : int
        Side in pixels.

    Returns
    -------
    numpy.ndarray
        ``(size, size, 3)`` uint8, centred on white where the picture is not square.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling, fromarray

    if isinstance(image, np.ndarray):
        values = image
        if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in (1, 3):
            values = np.moveaxis(values, 0, 2)
        if values.ndim == 3 and values.shape[2] == 1:
            values = values[:, :, 0]
        if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
            raise InputError(f"a stimulus of shape {image.shape} is no picture; plot without stimuli=")
        if values.dtype != np.uint8:
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            values = np.nan_to_num((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
        image = fromarray(values)
    small = ImageOps.contain(image.convert("RGB"), (size, size), Resampling.LANCZOS)
    return np.asarray(ImageOps.pad(small, (size, size), color=(255, 255, 255)))


def thumbnails(stimuli: Any, ids: Sequence[str], size: int = 64) -> list[np.ndarray]:
    """Make the thumbnails of named stimuli.

    Parameters
    ----------
    stimuli : Stimuli or anything ``as_stimuli`` takes, or mapping of id to picture
        Where the pictures are.
    ids : sequence of str
        Which ones, in this order.
    size : int
        Side in pixels.

    Returns
    -------
    list of numpy.ndarray
        ``(size, size, 3)`` uint8 each.

    Raises
    ------
    InputError
        If an id has no picture.
    """
    if isinstance(stimuli, Mapping):
        missing = [name for name in ids if name not in stimuli]
        if missing:
            raise InputError(f"no picture for the stimulus {missing[0]!r} ({len(missing)} in all are missing)")
        return [thumbnail(stimuli[name], size) for name in ids]
    from actkit.stimuli import as_stimuli

    chosen = as_stimuli(stimuli).select(list(ids))
    is_array = bool(getattr(chosen, "is_array", False))
    return [thumbnail(np.asarray(chosen.raw(i)) if is_array else chosen.image(i), size) for i in range(len(ids))]


def stimulus_labels(result: xr.Dataset, labels: Any = None, stimuli: Any = None) -> np.ndarray | None:
    """Settle which category each stimulus of a result belongs to.

    Parameters
    ----------
    result : xarray.Dataset
        Has the coordinate ``stimulus``.
    labels : str, sequence, mapping or None
        Name of a coordinate of the result or of a label column of `stimuli`; or one label for each stimulus, in
        the result's order; or a mapping of id to label. None takes the result's own label coordinate if there is
        just one, else none.
    stimuli : Stimuli, optional
        Looked at for label columns.

    Returns
    -------
    numpy.ndarray of str or None
        One label for each stimulus.

    Raises
    ------
    InputError
        If labels are missing or their number does not fit.
    """
    ids = [str(i) for i in result["stimulus"].values]
    own = {str(k): v for k, v in result.coords.items() if v.dims == ("stimulus",) and str(k) != "stimulus"}
    columns = getattr(stimuli, "labels", {}) or {}
    if labels is None:
        if len(own) != 1:
            return None
        return next(iter(own.values())).values.astype(str)
    if isinstance(labels, str):
        if labels in own:
            return own[labels].values.astype(str)
        if labels in columns:
            by_id = dict(zip(map(str, stimuli.ids), columns[labels], strict=True))
            return np.array([str(by_id[i]) for i in ids])
        known = ", ".join(repr(name) for name in [*own, *columns]) or "none"
        raise InputError(f"there are no stimulus labels called {labels!r}; there are: {known}")
    if isinstance(labels, Mapping):
        missing = [i for i in ids if i not in labels]
        if missing:
            raise InputError(f"labels are missing for {len(missing)} stimuli, the first is {missing[0]!r}")
        return np.array([str(labels[i]) for i in ids])
    values = np.asarray(labels)
    if values.shape != (len(ids),):
        raise InputError(f"labels of shape {values.shape} do not fit {len(ids)} stimuli; give one for each")
    return values.astype(str)
