"""Steps on the way to a recording: spikes counted in windows, and several stimuli pooled to the row they belong to."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["bin_spikes", "numbered", "pool_stimuli"]


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
