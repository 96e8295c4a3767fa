"""Recordings of neurons: what they look like, how they are checked, averaged and made from trials.

A recording is an ``xarray.DataArray`` with the dims ``(stimulus, repetition, neuron)``, and ``time`` last where there
are several time bins, whose centres it holds in milliseconds from onset. Stimuli that were shown less often than others
are padded with NaN along ``repetition``. A recording of which only the means are left has no ``repetition``; how many
presentations each mean rests on is then the coordinate ``n_repetitions`` over ``stimulus`` or ``(stimulus, neuron)``,
if it is known at all. Where a row stands for several images (a category, say), ``stimulus`` holds the names of rows
and ``n_images`` counts the images of each. The coordinate ``stimulus`` holds the ids, ``neuron`` the names, and further
coordinates over ``stimulus`` hold labels; the one called ``group`` tells which stimuli must stay on one side of every
split (several copies of one image, say).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actkit.errors import DataError, InputError
from actkit.recordings_trials import bin_spike_times, bin_spikes, numbered, pool_stimuli

if TYPE_CHECKING:
    import xarray as xr

RECORDING_DIMS = ("stimulus", "repetition", "neuron", "time")
"""The dims of a recording in their order; ``repetition`` and ``time`` may be absent."""

__all__ = [
    "RECORDING_DIMS",
    "average",
    "bin_spike_times",
    "bin_spikes",
    "from_trials",
    "has_repetitions",
    "n_repetitions",
    "pool_stimuli",
    "stimulus_groups",
    "validate_responses",
]


def validate_responses(array: xr.DataArray) -> xr.DataArray:
    """Check a recording, and give it its order of dims and 64-bit values.

    Parameters
    ----------
    array : DataArray
        Responses with the dims ``stimulus`` and ``neuron``, and perhaps ``repetition`` and ``time``, in any order.
        Missing presentations are NaN.

    Returns
    -------
    DataArray
        The same recording as float64 of dims (stimulus[, repetition], neuron[, time]); coordinates and attributes
        are kept, ids and names as text. The one given is left as it is.

    Raises
    ------
    InputError
        If it is no DataArray, lacks a dim or has one too many, has no stimulus ids or neuron names, is empty, or does
        not hold real numbers.
    DataError
        If an id or a name occurs twice, a value is infinite, a neuron has no value at all, a stimulus has no
        presentation at all, a presentation lacks some of its time bins, or ``n_repetitions`` or ``n_images`` hold no
        counts.
    """
    import xarray as xr

    if not isinstance(array, xr.DataArray):
        raise InputError(
            "a recording is an xarray.DataArray with the dims stimulus, repetition, neuron, not a "
            f"{type(array).__name__}; actkit.recordings_neurons.from_trials makes one from trials"
        )
    absent = [dim for dim in ("stimulus", "neuron") if dim not in array.dims]
    unknown = [str(dim) for dim in array.dims if dim not in RECORDING_DIMS]
    if absent or unknown:
        fault = f"lacks the dim {absent[0]!r}" if absent else f"has the dim {unknown[0]!r}"
        raise InputError(
            f"this recording {fault}: its dims are {tuple(map(str, array.dims))}, and a recording has "
            "stimulus and neuron, and perhaps repetition and time; rename its dims or select along the one too many"
        )
    nameless = [dim for dim in ("stimulus", "neuron") if dim not in array.coords]
    if nameless:
        raise InputError(
            f"this recording has no coordinate {nameless[0]!r}, so its rows cannot be told apart; "
            f"assign_coords({nameless[0]}=...) with the {'ids' if nameless[0] == 'stimulus' else 'names'}"
        )
    if array.size == 0:
        raise InputError(f"this recording is empty: its sizes are {dict(array.sizes)}; give one value at least")
    if array.dtype.kind not in "fiub":
        raise InputError(f"responses are real numbers, not {array.dtype}; convert them")
    ordered = array.transpose(*(dim for dim in RECORDING_DIMS if dim in array.dims)).astype(np.float64)
    ordered = ordered.assign_coords({dim: _texts(ordered[dim].values) for dim in ("stimulus", "neuron")})
    for dim in ("stimulus", "neuron"):
        names, counts = np.unique(ordered[dim].values, return_counts=True)
        if counts.max() > 1:
            raise DataError(
                f"the {dim} {str(names[counts.argmax()])!r} occurs {counts.max()} times in this recording; names must "
                "tell its entries apart"
                + ("; presentations of one stimulus run along repetition" if dim == "stimulus" else "")
            )
    values = ordered.values
    if np.isinf(values).any():
        place = np.unravel_index(int(np.isinf(values).argmax()), values.shape)
        where = {str(dim): int(i) for dim, i in zip(ordered.dims, place, strict=True)}
        raise DataError(f"this recording has an infinite value at {where}; use NaN for what is missing")
    _check_presentations(ordered)
    return ordered


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Ids and names as text."""
    return values.astype(str)


def _check_presentations(array: xr.DataArray) -> None:
    """Refuse neurons and stimuli without a value, presentations in part, and counts that are none."""
    there = ~np.isnan(array.values)
    if "time" in array.dims:
        partly = there.any(axis=-1) & ~there.all(axis=-1)
        if partly.any():
            stimulus = array["stimulus"].values[np.argwhere(partly)[0][0]]
            raise DataError(
                f"a presentation of the stimulus {str(stimulus)!r} lacks some of its time bins; make the whole "
                "presentation NaN, or select times that all presentations have"
            )
        there = there[..., 0]
    for dim, axis in (("neuron", -1), ("stimulus", 0)):
        others = tuple(i for i in range(there.ndim) if i != axis % there.ndim)
        silent = ~there.any(axis=others)
        if silent.any():
            name = str(array[dim].values[silent.argmax()])
            raise DataError(
                f"the {dim} {name!r} has no value at all"
                + (f", and {silent.sum() - 1} more have none" if silent.sum() > 1 else "")
                + f"; leave it out with .sel({dim}=...) or .dropna({dim!r}, how='all')"
            )
    if "n_repetitions" in array.coords:
        counts = array.coords["n_repetitions"]
        numbers = counts.values
        if not set(counts.dims) <= {"stimulus", "neuron"}:
            raise DataError(f"n_repetitions runs along stimulus or (stimulus, neuron), not along {counts.dims}")
        # Counts may be means over neurons, so they need not be whole.
        if numbers.dtype.kind not in "fiu" or not np.isfinite(numbers).all() or (numbers < 0).any():
            raise DataError("n_repetitions holds numbers of presentations, 0 or more; correct or drop the coordinate")
    if "n_images" in array.coords:
        images = array.coords["n_images"]
        if images.dims != ("stimulus",) or images.dtype.kind not in "iu" or (images.values < 1).any():
            raise DataError("n_images counts the images that each stimulus stands for, 1 or more; correct or drop it")


def has_repetitions(array: xr.DataArray) -> bool:
    """Whether some stimulus was presented twice or more to some neuron, with single presentations kept.

    Parameters
    ----------
    array : DataArray
        A recording.

    Returns
    -------
    bool
        False for averages, whatever their ``n_repetitions`` says, and where every stimulus was shown once.

    Raises
    ------
    InputError, DataError
        As `validate_responses`.
    """
    array = validate_responses(array)
    return "repetition" in array.dims and bool((_counted(array) > 1).any())


def n_repetitions(array: xr.DataArray) -> xr.DataArray:
    """How many presentations of each stimulus each neuron has.

    Parameters
    ----------
    array : DataArray
        A recording. Without ``repetition`` its coordinate ``n_repetitions`` is the answer.

    Returns
    -------
    DataArray
        Counts of dims (stimulus, neuron); int64 where presentations are counted. 0 where a neuron missed a stimulus.

    Raises
    ------
    DataError
        If there are averages alone and no coordinate ``n_repetitions``.
    InputError, DataError
        As `validate_responses`.
    """
    array = validate_responses(array)
    if "repetition" in array.dims:
        return _counted(array)
    if "n_repetitions" not in array.coords:
        raise DataError(
            "this recording holds averages alone and no coordinate n_repetitions, so nobody knows how many "
            "presentations a mean rests on; give the single presentations, or assign_coords(n_repetitions=...)"
        )
    plane = array.isel(time=0, drop=True) if "time" in array.dims else array
    counts = plane.coords["n_repetitions"].reset_coords(drop=True).broadcast_like(plane.reset_coords(drop=True))
    return (
        counts.transpose("stimulus", "neuron").where(~plane.reset_coords(drop=True).isnull(), 0).rename("n_repetitions")
    )


def _counted(array: xr.DataArray) -> xr.DataArray:
    """Presentations counted in a checked recording that has them."""
    plane = array.isel(time=0, drop=True) if "time" in array.dims else array
    counts = plane.notnull().sum("repetition", dtype=np.int64).transpose("stimulus", "neuron")
    counts = counts.drop_vars("n_repetitions", errors="ignore").rename("n_repetitions")
    counts.attrs = {}  # the units of responses are not those of counts
    return counts


def average(array: xr.DataArray) -> xr.DataArray:
    """Mean over the presentations of each stimulus, missing ones left out.

    Parameters
    ----------
    array : DataArray
        A recording. One without ``repetition`` is checked and given back.

    Returns
    -------
    DataArray
        Means of dims (stimulus, neuron[, time]), NaN where a neuron missed a stimulus, with the coordinate
        ``n_repetitions`` of dims (stimulus, neuron).

    Raises
    ------
    InputError, DataError
        As `validate_responses`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> spikes = xr.DataArray([[[1.0], [3.0]], [[4.0], [np.nan]]], dims=("stimulus", "repetition", "neuron"),
    ...                       coords={"stimulus": ["cat", "cup"], "neuron": ["n1"]})
    >>> average(spikes).values.ravel().tolist()
    [2.0, 4.0]
    >>> n_repetitions(spikes).values.ravel().tolist()
    [2, 1]
    """
    array = validate_responses(array)
    if "repetition" not in array.dims:
        return array
    counts = _counted(array)
    sums = array.sum("repetition", skipna=True, keep_attrs=True)
    shown = counts.reset_coords(drop=True)
    means = sums / shown.where(shown > 0)
    means = means.transpose(*(dim for dim in RECORDING_DIMS if dim in means.dims))
    means.attrs, means.name = dict(array.attrs), array.name
    return means.assign_coords(n_repetitions=(("stimulus", "neuron"), counts.values))


def stimulus_groups(array: xr.DataArray) -> npt.NDArray[np.int64]:
    """Which stimuli must stay together in every split.

    Parameters
    ----------
    array : DataArray
        A recording, perhaps with the coordinate ``group`` over ``stimulus``.

    Returns
    -------
    ndarray
        A number for each stimulus, counted from 0 in the order in which groups first occur; without ``group``, each
        stimulus is a group of its own.

    Raises
    ------
    InputError
        If ``group`` does not run along ``stimulus``.
    """
    if "group" not in array.coords:
        return np.arange(array.sizes["stimulus"])
    column = array.coords["group"]
    if column.dims != ("stimulus",):
        raise InputError(f"the coordinate group runs along stimulus, not along {column.dims}")
    return numbered(column.values)[0]


def from_trials(
    counts: npt.ArrayLike,
    stimulus_of_trial: Sequence[Hashable] | npt.NDArray[Any],
    *,
    stimuli: Sequence[str] | None = None,
    neurons: Sequence[str] | None = None,
    times: npt.ArrayLike | None = None,
    labels: Mapping[str, npt.ArrayLike] | None = None,
    name: str = "responses",
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """A recording from trials in the order in which they were run.

    Parameters
    ----------
    counts : array_like
        Responses of shape (trial, neuron) or (trial, neuron, time). NaN where a neuron missed a trial.
    stimulus_of_trial : sequence
        The id of the stimulus shown in each trial.
    stimuli : sequence of str, optional
        Ids in the order wanted, by default that of first showing. Trials of other stimuli are left out.
    neurons : sequence of str, optional
        Names, by default ``"0"``, ``"1"``, ...
    times : array_like, optional
        The centre of each bin in milliseconds from onset.
    labels : mapping, optional
        Further columns over the stimuli, in their order; ``group`` is the one that splits respect.
    name : str
        Name of the array.
    attrs : mapping, optional
        Attributes such as units, region and subject.

    Returns
    -------
    DataArray
        The recording of dims (stimulus, repetition, neuron[, time]), as many repetitions as the stimulus shown most
        often has, NaN-padded. The k-th repetition of a stimulus is its k-th trial, for all neurons alike.

    Raises
    ------
    InputError
        If the shapes do not go together, or a stimulus in ``stimuli`` has no trial.
    InputError, DataError
        As `validate_responses`.
    """
    import xarray as xr

    values = np.asarray(counts)
    shown = np.asarray(stimulus_of_trial).astype(str)
    if values.ndim not in (2, 3) or values.dtype.kind not in "fiub":
        raise InputError(
            f"counts have the shape (trial, neuron[, time]) and are numbers, not {values.dtype} {values.shape}"
        )
    if shown.shape != values.shape[:1]:
        raise InputError(
            f"there are {values.shape[0]} trials and {shown.size} stimuli of trials; give one for each trial"
        )
    if not shown.size:
        raise InputError("there is no trial; a recording needs one at least")
    number, ids = numbered(shown)
    if stimuli is not None:
        wanted = [str(stimulus) for stimulus in stimuli]
        position = {identifier: i for i, identifier in enumerate(wanted)}
        without = [identifier for identifier in wanted if identifier not in set(ids.tolist())]
        if without:
            raise InputError(
                f"the stimulus {without[0]!r}"
                + (f" and {len(without) - 1} more" if len(without) > 1 else "")
                + " has no trial; leave it out of stimuli"
            )
        number = np.array([position.get(identifier, -1) for identifier in ids.tolist()], dtype=np.int64)[number]
        values, number, ids = values[number >= 0], number[number >= 0], np.array(wanted)
    order = np.argsort(number, kind="stable")
    presented = np.bincount(number, minlength=len(ids))
    repetition = np.empty(len(number), dtype=np.int64)
    repetition[order] = np.arange(len(number)) - np.repeat(np.cumsum(presented) - presented, presented)
    padded = np.full((len(ids), int(presented.max(initial=1)), *values.shape[1:]), np.nan)
    padded[number, repetition] = values
    names = [str(i) for i in range(values.shape[1])] if neurons is None else [str(neuron) for neuron in neurons]
    columns: dict[str, Any] = {"stimulus": ids, "neuron": names}
    columns |= {label: ("stimulus", np.asarray(column)) for label, column in (labels or {}).items()}
    if times is not None:
        columns["time"] = ("time", np.asarray(times), {"units": "ms", "long_name": "time"})
    dims = RECORDING_DIMS[: values.ndim + 1]
    try:
        array = xr.DataArray(padded, dims=dims, coords=columns, name=name, attrs=dict(attrs or {}))
    except ValueError as error:
        raise InputError(
            f"names, labels or times do not fit {dict(zip(dims, padded.shape, strict=True))}: {error}"
        ) from error
    return validate_responses(array)
