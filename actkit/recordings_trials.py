"""Steps on the way to a recording: spikes counted in windows, and several stimuli pooled to the row they belong to."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actkit.errors import DataError, InputError, nearest

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "RESERVED",
    "bin_spike_times",
    "bin_spikes",
    "bins_of",
    "chosen_rows",
    "id_texts",
    "label_columns",
    "listed",
    "numbered",
    "pool_stimuli",
]

RESERVED = frozenset(
    {"stimulus", "repetition", "neuron", "time", "unit", "channel", "y", "x", "layer", "subject", "model", "fold"}
    | {"group", "n_repetitions", "n_images"}
)
"""Names that mean something in a recording or in what is made of it. A sorter's column ``group`` (good, noise) would
keep stimuli together in splits, so what a file says of its neurons gets another name: ``neuron_group``."""

# Half the time between two samples at 30 kHz is 17 µs; doubles resolve 0.01 µs in a recording of three years. A spike
# that lies on the edge of a bin stays on its own side in spite of the rounding of onset + edge.
_ROUNDING_S = 1e-7


def numbered(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Number values in the order in which they first occur.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Values that can be sorted.

    Returns
    -------
    numbers : ndarray of int64, shape (n,)
        Equal numbers for equal values, counted from 0.
    distinct : ndarray
        The value of each number.
    """
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place[inverse], distinct[order]


def listed(names: str | Sequence[str] | None) -> list[str]:
    """One name stands for a list of one.

    Parameters
    ----------
    names : str or sequence of str, optional
        Names, as an option gives them.

    Returns
    -------
    list of str
        The names; empty for None.
    """
    return [names] if isinstance(names, str) else [str(name) for name in names or []]


def id_texts(values: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Ids as text, whatever a file keeps them as.

    Parameters
    ----------
    values : array_like
        Texts, bytes or numbers.

    Returns
    -------
    ndarray of str
        Whole numbers without a decimal point, as MATLAB keeps them in doubles; ``""`` for NaN and None.

    Examples
    --------
    >>> id_texts([1.0, 2.5, float("nan")]).tolist()
    ['1', '2.5', '']
    """
    array = np.asarray(values)
    if array.dtype.kind in "iubU":
        return array.astype(np.str_)
    return np.array([_id_text(value) for value in array.ravel().tolist()], dtype=np.str_).reshape(array.shape)


def _id_text(value: Any) -> str:
    """One id as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def chosen_rows(
    columns: Mapping[str, npt.ArrayLike], where: Mapping[str, Sequence[Any]] | None, what: str, n: int
) -> npt.NDArray[np.bool_]:
    """Rows of a table that have the values wanted.

    Parameters
    ----------
    columns : mapping of str to array_like
        Columns by name, each of shape (n,).
    where : mapping of str to sequence, optional
        Columns and the values to keep; a row is kept that has one of them in each. Numbers and texts that look alike
        are the same.
    what : str
        What the table is called in messages.
    n : int
        Number of rows.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for rows that are kept.

    Raises
    ------
    InputError
        If there is no such column or no such value (the nearest are named), or no row is left.
    """
    mask = np.ones(n, dtype=bool)
    for name, wanted in (where or {}).items():
        if name not in columns:
            raise InputError(f"{what}: there is no column {name!r} to select by; {nearest(name, columns)}")
        values = [wanted] if isinstance(wanted, str | bytes) or not np.iterable(wanted) else list(wanted)
        words = id_texts(columns[name])
        own = np.isin(words, [str(id_texts([value])[0]) for value in values])
        if not own.any():
            shown = nearest(str(values[0]) if values else "", dict.fromkeys(words.tolist()))
            raise InputError(f"{what}: no {name!r} is {' or '.join(map(str, values)) or 'among none'}; {shown}")
        mask &= own
    if not mask.any():
        raise InputError(f"{what}: nothing has all of {dict(where or {})}; ask for less")
    return mask


def label_columns(
    columns: Mapping[str, npt.ArrayLike], stimulus_of_trial: npt.ArrayLike, what: str
) -> dict[str, npt.NDArray[Any]]:
    """Columns over trials as columns over stimuli.

    Parameters
    ----------
    columns : mapping of str to array_like
        A value for each trial.
    stimulus_of_trial : array_like of str
        The id of the stimulus of each trial.
    what : str
        Where they come from, for the message.

    Returns
    -------
    dict of str to ndarray
        A value for each stimulus, in the order in which stimuli first occur.

    Raises
    ------
    DataError
        If a column has several values for one stimulus.
    """
    number, ids = numbered(np.asarray(stimulus_of_trial).astype(str))
    first = np.unique(number, return_index=True)[1]
    found: dict[str, npt.NDArray[Any]] = {}
    for name, column in columns.items():
        values = np.asarray(column)
        values = id_texts(values) if values.dtype.kind in "OSU" else values
        kept = values[first]
        differ = np.flatnonzero((values != kept[number]) & ~((values != values) & (kept != kept)[number]))
        if len(differ):
            raise DataError(
                f"{what}: the column {name!r} has several values for the stimulus {str(ids[number[differ[0]]])!r}, so "
                "it is no label of stimuli; leave it out of labels"
            )
        found[name] = kept
    return found


def bin_spikes(
    raster: npt.ArrayLike,
    windows: Sequence[tuple[float, float]],
    *,
    onset: int = 0,
    sample: float = 1.0,
) -> npt.NDArray[np.float64]:
    """Count the spikes of a raster in windows of time.

    Parameters
    ----------
    raster : array_like
        Spikes in each sample, of shape (..., time); NaN where a trial was not recorded.
    windows : sequence of (float, float)
        Start and stop of each window in milliseconds from stimulus onset; the start is inside and the stop outside.
    onset : int
        Position, counted from 0, of the sample at which the stimulus came on.
    sample : float
        Duration of a sample in milliseconds.

    Returns
    -------
    ndarray
        Counts of shape (..., windows).

    Raises
    ------
    InputError
        If there is no window, one is empty, starts or stops between two samples or reaches beyond the raster, or
        ``sample`` is not above 0.

    Examples
    --------
    >>> bin_spikes([[0, 0, 1, 1, 0, 1]], [(0, 2), (2, 4)], onset=2).tolist()
    [[2.0, 1.0]]
    """
    spikes = np.asarray(raster)
    if spikes.ndim == 0 or spikes.dtype.kind not in "fiub":
        raise InputError(
            f"a raster holds numbers of spikes along time, last; this one is {spikes.dtype} {spikes.shape}"
        )
    if not sample > 0:
        raise InputError(f"sample is {sample!r}; a sample lasts more than 0 ms")
    if not windows:
        raise InputError("there is no window to count in; give [(start, stop)] in ms from onset")
    counts = np.empty((*spikes.shape[:-1], len(windows)))
    for i, (start, stop) in enumerate(windows):
        edges = np.array([start, stop], dtype=np.float64) / sample + onset
        first, last = (int(edge) for edge in np.rint(edges))
        if not np.allclose(edges, (first, last), rtol=0, atol=1e-6):
            raise InputError(f"the window ({start}, {stop}) ms begins or ends inside a sample of {sample} ms; move it")
        if not 0 <= first < last <= spikes.shape[-1]:
            begin, end = -onset * sample, (spikes.shape[-1] - onset) * sample
            raise InputError(
                f"the window ({start}, {stop}) ms does not lie in the raster, which runs from {begin:g} to {end:g} ms; "
                "a window's stop comes after its start"
            )
        counts[..., i] = spikes[..., first:last].sum(axis=-1, dtype=np.float64)
    return counts


def bin_spike_times(
    times: npt.ArrayLike, onsets: npt.ArrayLike, windows: Sequence[tuple[float, float]]
) -> npt.NDArray[np.float64]:
    """Count spikes in windows of time after the onset of each trial.

    Parameters
    ----------
    times : array_like, shape (n_spikes,)
        Times of one neuron's spikes in seconds, none before the one that precedes it.
    onsets : array_like, shape (n_trials,)
        Time of each trial's onset in seconds, on the same clock.
    windows : sequence of (float, float)
        Start and stop of each window in milliseconds from onset; the start is inside and the stop outside, to a tenth
        of a microsecond. Windows may overlap, and may start before the onset.

    Returns
    -------
    ndarray, shape (n_trials, n_windows)
        Counts: 0 where there is no spike, also where nothing was recorded; whoever knows when the neuron was observed
        makes those NaN.

    Raises
    ------
    InputError
        If there is no window, one does not stop after its start, a time or an onset is not finite, or spikes go back in
        time.

    Examples
    --------
    >>> bin_spike_times([0.98, 1.02, 1.07, 2.11], [1.0, 2.0], [(-50, 0), (0, 70), (70, 170)]).tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    """
    spikes, starts = np.asarray(times, dtype=np.float64), np.asarray(onsets, dtype=np.float64)
    edges = np.asarray(windows, dtype=np.float64)
    if spikes.ndim != 1 or starts.ndim != 1 or not (np.isfinite(spikes).all() and np.isfinite(starts).all()):
        raise InputError(
            f"spike times {spikes.shape} and onsets {starts.shape} are finite numbers of seconds along one dim; leave "
            "out what is missing"
        )
    if edges.ndim != 2 or edges.shape[1:] != (2,) or not len(edges):
        raise InputError("there is no window to count in; give [(start, stop)] in ms from onset")
    empty = np.flatnonzero(~(edges[:, 1] > edges[:, 0]))
    if len(empty):
        start, stop = edges[empty[0]]
        raise InputError(f"the window ({start:g}, {stop:g}) ms holds no time; a window's stop comes after its start")
    back = np.flatnonzero(np.diff(spikes) < 0)
    if len(back):
        at = int(back[0])
        raise InputError(
            f"spike times go back from {spikes[at]:g} s to {spikes[at + 1]:g} s at spike {at + 1}; sort them, if the "
            "clock did not start anew there"
        )
    bounds = starts[:, None, None] + edges / 1000 - _ROUNDING_S
    return np.diff(np.searchsorted(spikes, bounds), axis=-1)[..., 0].astype(np.float64)


def bins_of(window: Sequence[float], bin_ms: float | None = None) -> list[tuple[float, float]]:
    """Cut a window of time into bins.

    Parameters
    ----------
    window : (float, float)
        Start and stop in milliseconds from onset.
    bin_ms : float, optional
        Width of a bin in milliseconds; by default the window is one bin.

    Returns
    -------
    list of (float, float)
        Start and stop of each bin, in milliseconds.

    Raises
    ------
    InputError
        If the window is not two finite numbers with the stop after the start, or no whole number of bins fills it.

    Examples
    --------
    >>> bins_of((70, 170), 50)
    [(70.0, 120.0), (120.0, 170.0)]
    """
    try:
        start, stop = (float(edge) for edge in window)
    except (TypeError, ValueError):
        raise InputError(f"window is {window!r}; give its start and stop in ms from onset, such as (70, 170)") from None
    if not (np.isfinite(start) and np.isfinite(stop) and stop > start):
        raise InputError(
            f"the window ({start:g}, {stop:g}) ms holds no time; its stop comes after its start, in ms from onset"
        )
    if bin_ms is None:
        return [(start, stop)]
    number = (stop - start) / bin_ms if bin_ms > 0 else 0.0
    if round(number) < 1 or abs(number - round(number)) > 1e-6:
        raise InputError(
            f"bins of {bin_ms:g} ms do not fill the window ({start:g}, {stop:g}) ms; choose a width that divides its "
            f"{stop - start:g} ms"
        )
    edges = start + bin_ms * np.arange(round(number) + 1)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def pool_stimuli(
    array: xr.DataArray, rows: Sequence[Hashable] | npt.NDArray[Any], ids: Sequence[str] | None = None
) -> xr.DataArray:
    """Mean over the stimuli that one row of a recording stands for, such as the ten photographs of a category.

    Parameters
    ----------
    array : DataArray
        Values with the dim ``stimulus``: features of a layer for each photograph, say.
    rows : sequence
        For each stimulus, the id of the row that it belongs to.
    ids : sequence of str, optional
        The rows in the order wanted, by default in the order in which they first occur.

    Returns
    -------
    DataArray
        Means with the dims of `array`, whose ``stimulus`` holds the ids of rows; coordinates over stimuli are dropped,
        and ``n_images`` counts what each mean rests on.

    Raises
    ------
    InputError
        If there is no dim ``stimulus``, `rows` does not fit it, or a row of `ids` has no stimulus.
    """
    texts = np.asarray(rows).astype(str)
    size = array.sizes.get("stimulus")
    if size is None or texts.shape != (size,):
        raise InputError(
            f"there are {texts.size} rows for the stimuli of {dict(array.sizes)}; give one for each stimulus"
        )
    number, found = numbered(texts)
    wanted = found if ids is None else np.asarray(ids).astype(str)
    place = {row: i for i, row in enumerate(found.tolist())}
    without = [row for row in wanted.tolist() if row not in place]
    if without:
        raise InputError(f"no stimulus belongs to the row {without[0]!r}; give its stimuli, or leave it out of ids")
    kept = array.drop_vars([name for name, coord in array.coords.items() if "stimulus" in coord.dims])
    first = kept.transpose("stimulus", ...)
    members = np.bincount(number)
    starts = np.cumsum(members) - members
    sums = np.add.reduceat(first.values[np.argsort(number, kind="stable")], starts, axis=0, dtype=np.float64)
    means = sums / members.reshape(-1, *[1] * (first.ndim - 1))
    order = np.array([place[row] for row in wanted.tolist()], dtype=np.int64)
    pooled = first.isel(stimulus=np.zeros(len(order), dtype=np.int64)).copy(data=means[order])
    pooled = pooled.assign_coords(stimulus=wanted, n_images=("stimulus", members[order]))
    return pooled.transpose(*array.dims)
