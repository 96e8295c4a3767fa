"""netCDF files, Brain-Score style assemblies included: presentations become stimuli and repetitions.

An assembly is one variable over ``presentation`` and ``neuroid`` (and perhaps ``time_bin``) whose other coordinates
were levels of a MultiIndex and lie in the file as plain coordinates along those dims. Here ``presentation`` becomes
``stimulus`` by its image or stimulus id, and ``repetition`` where an id occurs more than once; ``neuroid`` becomes
``neuron``; ``time_bin`` becomes ``time``, the centres of the bins in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import DataError, nearest
from actkit.mat_files import is_hdf5

if TYPE_CHECKING:
    import xarray as xr

_STIMULUS_IDS = ("stimulus_id", "image_id", "stimulus", "image")
_REPETITIONS = ("repetition", "repetition_id", "trial")
_NEURON_IDS = ("neuroid_id", "neuron_id", "neuron")


def open_netcdf(path: str | Path) -> xr.Dataset:
    """Read a netCDF file, version 3 or 4, whole.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    xarray.Dataset
        In memory; the file is closed.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    import xarray as xr

    path = Path(path)
    try:
        engine = "h5netcdf" if is_hdf5(path) else "scipy"
        with xr.open_dataset(path, engine=engine) as opened:
            return opened.load()
    except Exception as error:  # backends raise whatever the damaged bytes lead to
        raise DataError(f"{path} cannot be read as netCDF: {error}") from error


def read_assembly(
    path: str | Path,
    key: str | None = None,
    stimulus: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
) -> xr.DataArray:
    """Read an assembly as an array over stimulus, repetition, neuron and time.

    Parameters
    ----------
    path : path
        The netCDF file.
    key : str, optional
        The variable; needed only where the file has several.
    stimulus : str, optional
        The coordinate of stimulus ids; by default ``stimulus_id`` or ``image_id``.
    where : mapping of str to sequence of str, optional
        Coordinates and the values to keep, such as ``{"region": ["IT"]}``.

    Returns
    -------
    xarray.DataArray
        Dims ``(stimulus[, repetition], neuron[, time])`` in the order of first appearance. Stimuli with fewer
        repetitions than others are filled up with NaN. Coordinates along presentations that are constant within
        each stimulus go with the stimulus; ``repetition`` is numbered from 0 within each stimulus.

    Raises
    ------
    DataError
        If there is no presentation or stimulus dim, no coordinate of ids, or `where` leaves nothing.

    Notes
    -----
    A ``time_bin`` of a single bin is dropped, its start and end kept as scalar coordinates.
    """
    dataset = open_netcdf(path)
    names = [str(name) for name in dataset.data_vars]
    if key is None and len(names) == 1:
        key = names[0]
    if key is None or key not in names:
        raise DataError(
            f"{path} {f'holds {len(names)} arrays, so it needs a key' if key is None else f'has no variable {key!r}'}; "
            f"{nearest(key or '', names)}"
        )
    array = _select(dataset[key], where or {}, path)
    array = array.rename({old: new for old, new in (("neuroid", "neuron"), ("time_bin", "time")) if old in array.dims})
    if "presentation" in array.dims:
        array = _by_stimulus(array, stimulus, path)
    if "stimulus" not in array.dims:
        raise DataError(f"{path}: {key!r} has the dims {array.dims}, none of them presentation or stimulus")
    array = _with_times(array)
    if "time" in array.dims and array.sizes["time"] == 1:
        array = array.isel(time=0).drop_vars("time", errors="ignore")
    return _with_neuron_ids(array.transpose("stimulus", ...))


def _with_times(array: xr.DataArray) -> xr.DataArray:
    """Give the time dim the centres of its bins."""
    edges = [f"time_bin_{side}" for side in ("start", "end")]
    if "time" not in array.dims or "time" in array.coords or any(edge not in array.coords for edge in edges):
        return array
    start, stop = (array[edge].values.astype(np.float64) for edge in edges)
    return array.assign_coords(time=("time", (start + stop) / 2, {"units": "ms", "long_name": "time"}))


def _select(array: xr.DataArray, keep: Mapping[str, Sequence[str]], path: str | Path) -> xr.DataArray:
    """Keep the rows whose coordinates have the wanted values."""
    for name, wanted in keep.items():
        if name not in array.coords or array[name].ndim != 1:
            known = [str(coord) for coord in array.coords]
            raise DataError(f"{path} has no coordinate {name!r} to select by; {nearest(name, known)}")
        values = array[name].values.astype(str)
        mask = np.isin(values, list(wanted))
        if not mask.any():
            raise DataError(f"{path}: no {name!r} is {' or '.join(wanted)}; {nearest(wanted[0], sorted(set(values)))}")
        array = array.isel({array[name].dims[0]: mask})
    return array


def _by_stimulus(array: xr.DataArray, stimulus: str | None, path: str | Path) -> xr.DataArray:
    """Turn presentations into stimuli, and repetitions where ids occur more than once."""
    import xarray as xr

    along = {str(name): array[name].values for name in array.coords if array[name].dims == ("presentation",)}
    candidates = _STIMULUS_IDS if stimulus is None else (stimulus,)
    found = next((name for name in candidates if name in along), None)
    if found is None:
        raise DataError(
            f"{path}: presentations have no coordinate {' or '.join(candidates)}; {nearest(candidates[0], along)}"
        )
    ids, row = _numbered(along[found].astype(str))
    counts = np.bincount(row)
    slot = np.empty(len(row), dtype=np.int64)
    order_name = next((name for name in _REPETITIONS if name in along), None)
    order = np.arange(len(row)) if order_name is None else np.argsort(along[order_name], kind="stable")
    filled = np.zeros(len(ids), dtype=np.int64)
    for i in order:
        slot[i] = filled[row[i]]
        filled[row[i]] += 1
    values = array.transpose("presentation", ...)
    rest = values.dims[1:]
    data = np.full(
        (len(ids), int(counts.max()), *values.shape[1:]), np.nan, dtype=np.result_type(values.dtype, np.float32)
    )
    data[row, slot] = values.values
    coords: dict[str, Any] = {"stimulus": ids, "repetition": np.arange(int(counts.max()))}
    first_rows = np.zeros(len(ids), dtype=np.int64)
    first_rows[row[::-1]] = np.arange(len(row))[::-1]
    for name, column in along.items():
        first = column[first_rows]
        same = all((a == b) or (a != a and b != b) for a, b in zip(first[row], column, strict=True))
        if name not in ("stimulus", "presentation", "repetition", found) and same:
            coords[name] = ("stimulus", _text(first))
    for coord in array.coords:
        if "presentation" not in array[coord].dims and str(coord) not in coords:
            coords[str(coord)] = (array[coord].dims, _text(array[coord].values))
    made = xr.DataArray(data, dims=("stimulus", "repetition", *rest), coords=coords, name=array.name, attrs=array.attrs)
    return made if counts.max() > 1 else made.isel(repetition=0, drop=True)


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in order of first appearance, and the number of each row."""
    seen: dict[str, int] = {}
    row = np.array([seen.setdefault(value, len(seen)) for value in values.tolist()], dtype=np.int64)
    return np.array(list(seen), dtype=np.str_), row


def _text(values: np.ndarray) -> np.ndarray:
    """Object arrays of text as text."""
    return values.astype(np.str_) if values.dtype == object else values


def _with_neuron_ids(array: xr.DataArray) -> xr.DataArray:
    """Give the neuron dim its ids as coordinate."""
    if "neuron" not in array.dims or "neuron" in array.coords:
        return array
    found = next((name for name in _NEURON_IDS if name in array.coords and array[name].dims == ("neuron",)), None)
    ids = np.arange(array.sizes["neuron"]).astype(str) if found is None else array[found].values.astype(np.str_)
    if len(set(ids.tolist())) < len(ids):  # ids that repeat (one per array, say) name nothing: keep them beside numbers
        ids = np.arange(len(ids)).astype(str)
    return array.assign_coords(neuron=("neuron", ids))
