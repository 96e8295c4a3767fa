"""The schema of RDM datasets: how dissimilarities, names, ids and time bins are laid out, made and checked.

What may be done with a valid dataset (aligning, selecting, joining, converting) is in :mod:`actkit.recordings`, which
also offers everything that is defined here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from actkit.errors import InputError, nearest

VARIABLE = "dissimilarity"
LEADING_DIMS = ("layer", "subject", "model", "rdm")

# A matrix stored in float32 is symmetric to its own rounding, not exactly.
_SYMMETRY_TOLERANCE = 1e-6


def n_pairs(n_stimuli: int) -> int:
    """Count the pairs of distinct stimuli.

    Parameters
    ----------
    n_stimuli : int
        Number of stimuli.

    Returns
    -------
    int
        ``n (n - 1) / 2``.
    """
    return n_stimuli * (n_stimuli - 1) // 2


def pair_positions(n_stimuli: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Find where pairs stand in a vector of squareform order.

    Parameters
    ----------
    n_stimuli : int
        Number of stimuli.
    i, j : numpy.ndarray of int
        Stimulus numbers of each pair, ``i != j``, in either order.

    Returns
    -------
    numpy.ndarray of int64
        Positions, of the shape of `i`.
    """
    low = np.minimum(i, j).astype(np.int64)
    high = np.maximum(i, j).astype(np.int64)
    return n_stimuli * low - low * (low + 1) // 2 + high - low - 1


def to_vectors(squares_or_vectors: ArrayLike, n_stimuli: int, what: str = "RDM") -> np.ndarray:
    """Bring matrices or vectors of dissimilarities to vectors in squareform order.

    Parameters
    ----------
    squares_or_vectors : array_like
        ``(n, n)``, ``(k, n, n)``, ``(pairs,)`` or ``(k, pairs)``.
    n_stimuli : int
        Number of stimuli ``n``.
    what : str
        What the values are called in messages.

    Returns
    -------
    numpy.ndarray
        ``(k, pairs)``, float32 where the input is float32 and float64 otherwise. Always a copy.

    Raises
    ------
    InputError
        If the shape does not fit, or a matrix is not symmetric or its diagonal is not zero.
    """
    values = np.asarray(squares_or_vectors)
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise InputError(f"{what}: dissimilarities have dtype {values.dtype}, which is not numeric; give numbers")
    if np.iscomplexobj(values):
        raise InputError(f"{what}: dissimilarities are complex; give real numbers")
    values = np.array(values, dtype=np.float32 if values.dtype == np.float32 else np.float64)
    n = n_stimuli
    square = values.ndim >= 2 and values.shape[-2:] == (n, n) and values.ndim <= 3
    # A (k, pairs) array has the shape of one matrix only for k = pairs = n = 3: there symmetry decides.
    if square and values.ndim == 2 and n_pairs(n) == n and not _is_rdm(values):
        square = False
    if square:
        matrices = values.reshape(-1, n, n)
        for number, matrix in enumerate(matrices):
            _check_matrix(matrix, f"{what} {number}" if len(matrices) > 1 else what)
        row, column = np.triu_indices(n, 1)
        return matrices[:, row, column]
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.shape[1] != n_pairs(n):
        raise InputError(
            f"{what}: shape {np.shape(squares_or_vectors)} fits neither ({n}, {n}) matrices nor vectors of "
            f"{n_pairs(n)} pairs, as {n} stimuli need; check the stimulus ids or the array"
        )
    return values


def _is_rdm(matrix: np.ndarray) -> bool:
    """Tell whether one matrix is symmetric with a zero diagonal."""
    try:
        _check_matrix(matrix, "")
    except InputError:
        return False
    return True


def _check_matrix(matrix: np.ndarray, what: str) -> None:
    """Refuse a matrix that is not symmetric or has values on its diagonal."""
    scale = float(np.nanmax(np.abs(matrix), initial=0.0)) if not np.isnan(matrix).all() else 0.0
    missing = np.isnan(matrix)
    gap = np.abs(matrix - matrix.T)
    worst = float(np.nanmax(gap, initial=0.0)) if not np.isnan(gap).all() else 0.0
    if worst > _SYMMETRY_TOLERANCE * scale or (missing != missing.T).any():
        raise InputError(
            f"{what} is not symmetric: values differ by up to {worst:.3g} across the diagonal, so half of them would "
            "be dropped silently; average it with its transpose first if that is meant"
        )
    diagonal = np.nan_to_num(np.diagonal(matrix), nan=0.0)
    if np.abs(diagonal).max(initial=0.0) > _SYMMETRY_TOLERANCE * scale:
        raise InputError(
            f"{what} has values up to {np.abs(diagonal).max():.3g} on its diagonal, where a dissimilarity is 0; "
            "if these are similarities, subtract them from 1"
        )


def rdm_dataset(
    vectors_or_squares: ArrayLike,
    names: Sequence[Hashable] | np.ndarray,
    dim: str,
    stimulus_ids: Sequence[Hashable] | np.ndarray,
    measure: str,
    name: str,
    coords: Mapping[str, Any] | None = None,
    time: ArrayLike | xr.DataArray | None = None,
    time_units: str | None = None,
    **attrs: Any,
) -> xr.Dataset:
    """Make an RDM dataset.

    Parameters
    ----------
    vectors_or_squares : array_like
        ``(k, pairs)``, ``(k, n, n)``, ``(pairs,)`` or ``(n, n)``; with `time`, ``(k, times, pairs)`` or
        ``(k, times, n, n)``.
    names : sequence
        The k names along the leading dim: layers, subjects, models. Unique.
    dim : {"layer", "subject", "model", "rdm"}
        The leading dim.
    stimulus_ids : sequence
        The n ids, in the order of the rows. Unique.
    measure : str
        The dissimilarity, such as ``"correlation"``.
    name : str
        What the RDMs are called in figures and tables.
    coords : mapping, optional
        Further coordinates: name to values along the leading dim (length k) or along ``stimulus`` (length n), or an
        xarray-style ``(dim, values)`` pair, which is needed when k equals n (and for coordinates along ``time``).
    time : array_like, optional
        The centres of the time bins, increasing, of an RDM in each bin.
    time_units : str, optional
        Their unit, such as ``"ms"``; by default that of a DataArray given as `time`.
    **attrs
        Further attributes of the dataset, such as ``inputs`` or ``citation``.

    Returns
    -------
    xarray.Dataset
        A valid RDM dataset.

    Raises
    ------
    InputError
        If shapes, names or ids do not fit.

    Examples
    --------
    >>> from actkit.recordings import squares
    >>> rdms = rdm_dataset([[0.1, 0.9, 0.8]], ["V1"], "rdm", ["cat", "dog", "car"], "correlation", "example")
    >>> squares(rdms)[0, 0]
    array([0. , 0.1, 0.9])
    """
    if dim not in LEADING_DIMS:
        raise InputError(f"RDMs cannot run along {dim!r}; {nearest(dim, LEADING_DIMS)}")
    ids = words(stimulus_ids)
    labels = words(names)
    bins = None if time is None else time_coordinate(time, time_units)
    if bins is None:
        vectors = to_vectors(vectors_or_squares, len(ids), what=f"RDMs of {name!r}")
    else:
        vectors = _to_movies(vectors_or_squares, len(ids), bins.size, what=f"RDMs of {name!r}")
    if len(labels) != len(vectors):
        raise InputError(
            f"RDMs of {name!r}: {len(vectors)} RDMs and {len(labels)} names; give one name for each RDM along {dim!r}"
        )
    dims = (dim, "pair") if bins is None else (dim, "time", "pair")
    dataset = xr.Dataset(
        {VARIABLE: (dims, vectors, {"long_name": f"{measure} dissimilarity", "units": "1"})},
        coords={dim: labels, "stimulus": ids},
        attrs={"measure": str(measure), "name": str(name), **attrs},
    )
    if bins is not None:
        dataset = dataset.assign_coords(time=bins)
    for key, values in (coords or {}).items():
        if isinstance(values, tuple) and len(values) == 2 and _are_dims(values[0], dims):
            along, column = values[0], np.asarray(values[1])
        else:
            column = np.asarray(values)
            fits = [d for d, size in ((dim, len(labels)), ("stimulus", len(ids))) if column.shape[:1] == (size,)]
            if len(fits) != 1:
                raise InputError(
                    f"RDMs of {name!r}: coordinate {key!r} has length {column.shape[0] if column.ndim else 0}, which "
                    f"names no single dim ({dim}: {len(labels)}, stimulus: {len(ids)}); give it as (dim, values)"
                )
            along = fits[0]
        dataset = dataset.assign_coords({key: (along, column)})
    return validate_rdms(dataset)


def _are_dims(candidate: object, dims: Sequence[str]) -> bool:
    """Tell whether a value names dims that a coordinate may run along."""
    if isinstance(candidate, str):
        return candidate in (*dims[:-1], "stimulus")
    return isinstance(candidate, tuple) and bool(candidate) and set(candidate) <= set(dims[:-1])


def _to_movies(values: ArrayLike, n_stimuli: int, n_times: int, what: str) -> np.ndarray:
    """Bring an RDM for each name and time bin to ``(k, times, pairs)``."""
    array = np.asarray(values)
    square = array.ndim == 4 and array.shape[-2:] == (n_stimuli, n_stimuli)
    if not (square or array.ndim == 3) or array.shape[1] != n_times:
        raise InputError(
            f"{what}: shape {array.shape} is not (RDMs, {n_times} time bins, pairs) nor (RDMs, {n_times}, n, n); "
            "bring the axes into this order, or leave time out"
        )
    flat = to_vectors(array.reshape(-1, *array.shape[2:]), n_stimuli, what)
    return flat.reshape(array.shape[0], n_times, -1)


def time_coordinate(time: ArrayLike | xr.DataArray, units: str | None = None) -> xr.DataArray:
    """Make the coordinate of time bins.

    Parameters
    ----------
    time : array_like
        ``(times,)`` centres of the bins.
    units : str, optional
        Their unit; by default that of a DataArray, and without one the coordinate has none.

    Returns
    -------
    xarray.DataArray
        The values with ``long_name`` and ``units``.

    Raises
    ------
    InputError
        If times are not numbers, not finite or not increasing.
    """
    values = np.asarray(time)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise InputError(
            f"time has shape {values.shape} and dtype {values.dtype}; give one number for each bin, such as "
            "milliseconds after the stimulus"
        )
    if not np.isfinite(values).all() or (np.diff(values) <= 0).any():
        raise InputError(
            f"times are not finite and increasing ({', '.join(map(str, values[:6]))}, …), so bins would be drawn in "
            "the wrong order; sort the bins, and name each once"
        )
    attrs = dict(time.attrs) if isinstance(time, xr.DataArray) else {}
    attrs.setdefault("long_name", "time")
    if units is not None:
        attrs["units"] = units
    return xr.DataArray(values, dims="time", attrs=attrs)


def words(values: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Bring names or ids to one array of str.

    Parameters
    ----------
    values : sequence
        Names, ids or numbers.

    Returns
    -------
    numpy.ndarray of str
        Flat.
    """
    return np.array([str(value) for value in np.asarray(values).ravel().tolist()], dtype=str)


def has_time(rdms: xr.Dataset) -> bool:
    """Tell whether a dataset holds an RDM for each time bin.

    Parameters
    ----------
    rdms : xarray.Dataset
        An RDM dataset.

    Returns
    -------
    bool
        True for ``dissimilarity`` of dims ``(<leading>, time, pair)``.
    """
    return VARIABLE in rdms and "time" in rdms[VARIABLE].dims


def leading_dim(rdms: xr.Dataset, *, time: bool = False) -> str:
    """Name the dim along which a dataset holds its RDMs.

    Parameters
    ----------
    rdms : xarray.Dataset
        An RDM dataset.
    time : bool
        Whether an RDM for each time bin is welcome.

    Returns
    -------
    str
        ``"layer"``, ``"subject"``, ``"model"`` or ``"rdm"``.

    Raises
    ------
    InputError
        If it is not an RDM dataset, or has time bins that are not welcome.
    """
    if not isinstance(rdms, xr.Dataset) or VARIABLE not in rdms:
        kind = f"a Dataset with the variables {list(map(str, rdms))}" if isinstance(rdms, xr.Dataset) else type(rdms)
        raise InputError(
            f"expected an RDM dataset (variable {VARIABLE!r}), got {kind}; make one with actkit.rdm() or rdm_dataset()"
        )
    dims = rdms[VARIABLE].dims
    if len(dims) < 2 or dims[0] not in LEADING_DIMS or dims[1:] not in (("pair",), ("time", "pair")):
        raise InputError(
            f"{VARIABLE!r} has the dims {dims}; an RDM dataset has (one of {', '.join(LEADING_DIMS)}, then pair), or "
            "time between the two"
        )
    if len(dims) == 3 and not time:
        raise InputError(
            f"RDMs of {rdms.attrs.get('name', 'unnamed')!r} come in {rdms.sizes['time']} time bins, and here one RDM "
            f"for each {dims[0]} is needed; choose a bin with .sel(time=…, method='nearest')"
        )
    return str(dims[0])


def validate_rdms(rdms: xr.Dataset) -> xr.Dataset:
    """Check a dataset against the RDM schema.

    Parameters
    ----------
    rdms : xarray.Dataset
        What should be an RDM dataset.

    Returns
    -------
    xarray.Dataset
        The same dataset.

    Raises
    ------
    InputError
        Naming what does not fit: a missing variable or coordinate, repeated ids or names, times that do not increase, a
        pair count that does not belong to the stimuli, infinite values.
    """
    dim = leading_dim(rdms, time=True)
    title = f"RDMs of {rdms.attrs.get('name', 'unnamed')!r}"
    for coordinate in (dim, "stimulus"):
        if coordinate not in rdms.coords:
            raise InputError(f"{title}: the coordinate {coordinate!r} is missing, so rows cannot be matched by id")
        _check_unique(rdms[coordinate].values, title, coordinate)
    if has_time(rdms):
        if "time" not in rdms.coords:
            raise InputError(f"{title}: the coordinate 'time' is missing; give the centre of each bin")
        time_coordinate(rdms["time"])
    n, pairs = rdms.sizes["stimulus"], rdms.sizes["pair"]
    if n < 2:
        raise InputError(f"{title}: {n} stimulus; a dissimilarity needs at least 2")
    if pairs != n_pairs(n):
        raise InputError(f"{title}: {pairs} pairs do not belong to {n} stimuli, which have {n_pairs(n)}")
    values = rdms[VARIABLE].values
    if values.dtype.kind != "f":
        raise InputError(f"{title}: dissimilarities have dtype {values.dtype}; give float32 or float64")
    infinite = np.isinf(values).reshape(len(values), -1).any(axis=1)
    if infinite.any():
        named = ", ".join(repr(str(value)) for value in rdms[dim].values[infinite][:5])
        raise InputError(f"{title}: infinite dissimilarities in {named}; mark pairs without a value by NaN")
    return rdms


def _check_unique(values: np.ndarray, title: str, coordinate: str) -> None:
    """Refuse names or ids that occur twice."""
    unique, counts = np.unique(values, return_counts=True)
    if (counts > 1).any():
        repeated = ", ".join(repr(str(value)) for value in unique[counts > 1][:5])
        raise InputError(
            f"{title}: {coordinate} names occur more than once ({repeated}), so RDMs could not be aligned by id; "
            "make them unique"
        )
