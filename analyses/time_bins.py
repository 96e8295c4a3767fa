"""RDMs of recordings with a time axis: responses averaged in sliding windows, one RDM for each window and subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.rdm import RdmOptions, rdm
from actkit.errors import InputError
from actkit.options import with_options
from actkit.recordings import VARIABLE, rdm_dataset, select_stimuli
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Recording = xr.DataArray | Mapping[str, xr.DataArray]

# Methods that take one pattern a stimulus, so that repetitions are averaged first.
AVERAGED = ("correlation", "cosine", "euclidean", "sqeuclidean")


class TimeRdmOptions(RdmOptions):
    """Options of :func:`time_rdms`."""

    window: float | None = Field(
        None, gt=0, description="Width of the windows in which responses are averaged, in units of the time axis."
    )
    step: float | None = Field(
        None, gt=0, description="Distance between the centres of windows; the width of a window by default."
    )


def bin_time(recording: xr.DataArray, window: float, step: float | None = None) -> xr.DataArray:
    """Average a recording in sliding windows of time.

    Windows are half-open, [start, start + window), the first starting at the first sample, and only whole windows are
    kept: a window that reaches beyond the last sample by more than the distance of two samples is left out.

    Parameters
    ----------
    recording : xarray.DataArray
        With a dim ``time`` and its coordinate.
    window : float
        Width, in units of the time axis.
    step : float, optional
        Distance between windows; `window` by default. A smaller one makes them overlap.

    Returns
    -------
    xarray.DataArray
        The same with ``time`` at the centres of the windows, in float64 (float32 stays float32). NaNs are left out of
        means; a window of NaNs only is NaN.

    Raises
    ------
    InputError
        If there is no time axis, or no window fits.
    """
    times = _times(recording)
    step = window if step is None else step
    if window <= 0 or step <= 0:
        raise InputError(f"windows of {window} every {step} are not positive; give widths in units of the time axis")
    sample = float(np.median(np.diff(times))) if len(times) > 1 else window
    starts = np.arange(times[0], times[-1] + sample * (1 + 1e-9), step)
    starts = starts[starts + window <= times[-1] + sample * (1 + 1e-9)]
    # Rounding of the sums of steps must not move a sample into the next window.
    edges = [np.searchsorted(times, [start - 1e-9 * sample, start + window - 1e-9 * sample]) for start in starts]
    kept = [(float(start), low, high) for start, (low, high) in zip(starts, edges, strict=True) if high > low]
    if not kept:
        raise InputError(
            f"no window of {window:g} fits into the {len(times)} samples from {times[0]:g} to {times[-1]:g}; make it "
            "smaller"
        )
    axis = recording.get_axis_num("time")
    values = np.moveaxis(np.asarray(recording.values), axis, -1)
    # Means of whole samples: the centre is that of the samples, not of the window's edges.
    centres = np.array([times[low:high].mean() for _, low, high in kept])
    out = np.stack([_mean(values[..., low:high]) for _, low, high in kept], axis=axis)
    binned = recording.isel(time=[0] * len(kept)).copy(data=out)
    return binned.assign_coords(time=("time", centres, dict(recording["time"].attrs)))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaNs; NaN where there is nothing else."""
    dtype = np.float32 if values.dtype == np.float32 else np.float64
    if values.dtype.kind != "f":
        return values.mean(axis=-1, dtype=dtype)
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=-1, dtype=np.float64)
    count = known.sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).astype(dtype)


def average_repetitions(recording: xr.DataArray) -> xr.DataArray:
    """Average the repetitions of every stimulus.

    Parameters
    ----------
    recording : xarray.DataArray
        With or without a dim ``repetition``; NaN marks a repetition that a stimulus lacks.

    Returns
    -------
    xarray.DataArray
        Without that dim.
    """
    if "repetition" not in recording.dims:
        return recording
    axis = recording.get_axis_num("repetition")
    values = _mean(np.moveaxis(np.asarray(recording.values), axis, -1))
    return recording.isel(repetition=0, drop=True).copy(data=values)


@with_options(TimeRdmOptions)
def time_rdms(recording: Recording, progress: bool | None = None, *, options: TimeRdmOptions) -> xr.Dataset:
    """Compute an RDM for each time bin and subject.

    Parameters
    ----------
    recording : xarray.DataArray or mapping of str to xarray.DataArray
        Dims ``stimulus``, ``time``, those of the responses (``neuron``, channels, …) and, if there are any,
        ``subject`` and ``repetition``. A mapping gives each subject an array of its own, with its own neurons; their
        stimuli are matched by id, and their times must be the same. Neurons without any value in a subject (padding)
        are left out.
    progress : bool, optional
        Show a bar; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        RDM dataset: ``dissimilarity`` (subject, time, pair), or along ``rdm`` for a recording without subjects, with
        ``constant_patterns`` (subject, time) and ``n_units`` (subject). For correlation, cosine and the euclidean
        distances, repetitions are averaged first; every bin is an :func:`actkit.rdm` of its own, so that noise and
        folds of the other methods are those of the bin.

    Raises
    ------
    InputError
        If there is no time axis, times or stimuli of subjects differ, or a bin has no RDM (see :func:`actkit.rdm`).
    """
    if options.layers is not None:
        raise InputError("layers= chooses layers of a network, and a recording has none; choose bins with .sel(time=…)")
    arrays, dim = _by_subject(recording)
    settings = {name: getattr(options, name) for name in RdmOptions.model_fields}
    parts: list[xr.Dataset] = []
    times: np.ndarray | None = None
    for subject, array in arrays.items():
        part = _movie(array, subject, options, settings, progress)
        if times is not None and not np.array_equal(times, part["time"].values):
            raise InputError(
                f"subject {subject!r} has other time bins than the subjects before; bring all to one time axis, with "
                "window=… or .sel(time=…)"
            )
        times = part["time"].values
        parts.append(part)
    first = parts[0]
    aligned = [first, *(select_stimuli(part, first["stimulus"].values) for part in parts[1:])]
    name = str(getattr(recording, "name", None) or "recording")
    result = rdm_dataset(
        np.stack([part[VARIABLE].values[0] for part in aligned]),
        list(arrays),
        dim,
        first["stimulus"].values,
        options.method,
        name,
        coords={str(k): ("stimulus", c.values) for k, c in first.coords.items() if c.dims == ("stimulus",)}
        | {"n_units": (dim, [part.attrs["n_units"] for part in parts])},
        time=first["time"],
    ).reset_coords("n_units")
    result["constant_patterns"] = (
        (dim, "time"),
        np.stack([part["constant_patterns"].values for part in parts]),
        {"long_name": "stimuli without a defined dissimilarity", "units": "1"},
    )
    result["n_units"].attrs.update(long_name="responses in a pattern", units="1")
    result[VARIABLE].attrs.update(first[VARIABLE].attrs)
    inputs = {str(subject): fingerprint(array) for subject, array in arrays.items()}
    return describe(result, "time_rdms", options, inputs, n_stimuli=result.sizes["stimulus"])


def _by_subject(recording: Recording) -> tuple[dict[str, xr.DataArray], str]:
    """One array for each subject, and the leading dim of the result."""
    if isinstance(recording, xr.DataArray):
        _times(recording)
        if "subject" not in recording.dims:
            return {str(recording.name or "recording"): recording}, "rdm"
        labels = recording["subject"].values if "subject" in recording.coords else range(recording.sizes["subject"])
        return {str(label): recording.isel(subject=k, drop=True) for k, label in enumerate(labels)}, "subject"
    if isinstance(recording, Mapping) and recording and all(isinstance(a, xr.DataArray) for a in recording.values()):
        for array in recording.values():
            _times(array)
        return {str(key): array for key, array in recording.items()}, "subject"
    raise InputError(
        f"a {type(recording).__name__} is no recording with a time axis; give a DataArray with the dims stimulus, time "
        "and neuron, or a mapping of subjects to such arrays"
    )


def _times(recording: xr.DataArray) -> np.ndarray:
    """The samples of the time axis, checked."""
    lacking = [dim for dim in ("stimulus", "time") if dim not in recording.dims]
    if lacking:
        raise InputError(
            f"recording {recording.name!r} has the dims {recording.dims} and lacks {' and '.join(lacking)}; rename the "
            "right ones"
        )
    if "time" not in recording.coords:
        raise InputError(f"recording {recording.name!r} has no coordinate 'time', so its bins have no times; add it")
    times = np.asarray(recording["time"].values)
    if times.dtype.kind not in "iuf" or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(f"the times of recording {recording.name!r} are not finite and increasing; sort the samples")
    return times.astype(np.float64)


def _movie(
    array: xr.DataArray, subject: str, options: TimeRdmOptions, settings: Mapping[str, Any], progress: bool | None
) -> xr.Dataset:
    """The RDMs of one subject over all bins."""
    if options.window is not None:
        array = bin_time(array, options.window, options.step)
    elif options.step is not None:
        raise InputError(f"step={options.step:g} needs a window to step with; give window=…")
    if options.method in AVERAGED:
        array = average_repetitions(array)
    units = [str(dim) for dim in array.dims if dim not in ("stimulus", "repetition", "time")]
    if units:
        array = _without_padding(array, units)
    times = array["time"].values
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    bins = {f"time {time:g} (bin {k})": array.isel(time=k, drop=True) for k, time in enumerate(times)}
    if not units:  # one response a stimulus
        bins = {key: each.expand_dims("neuron", -1) for key, each in bins.items()}
    found = rdm(bins, progress=progress, options=RdmOptions(**settings))
    movie = rdm_dataset(
        found[VARIABLE].values[None],
        [subject],
        "rdm",
        found["stimulus"].values,
        options.method,
        subject,
        coords={str(k): ("stimulus", c.values) for k, c in found.coords.items() if c.dims == ("stimulus",)},
        time=array["time"],
        n_units=int(found["n_units"].values[0]),
    )
    movie["constant_patterns"] = ("time", found["constant_patterns"].values)
    movie[VARIABLE].attrs.update(found[VARIABLE].attrs)
    return movie


def _without_padding(array: xr.DataArray, units: Sequence[str]) -> xr.DataArray:
    """Leave out neurons that have no value at all."""
    if len(units) > 1:
        return array
    empty = array.isnull().all([dim for dim in array.dims if dim != units[0]]).values
    if empty.all():
        raise InputError(f"recording {array.name!r} holds no values at all (all NaN); leave this subject out")
    return array.isel({units[0]: ~empty}) if empty.any() else array


def plot(result: xr.Dataset, *, most: int = 8, **settings: Any) -> Figure:
    """Draw the RDMs of a few bins as panels.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`time_rdms` returned.
    most : int
        Most bins that are drawn, evenly spaced.
    **settings
        Settings of :func:`actkit.analyses.rdm_plot.plot`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a bin, of the mean over subjects.
    """
    from actkit.analyses import rdm_plot

    return rdm_plot.plot(_panels(result, most), **settings)


def _panels(result: xr.Dataset, most: int) -> xr.Dataset:
    """Mean RDMs over subjects of evenly spaced bins, named by their times."""
    chosen = np.unique(np.linspace(0, result.sizes["time"] - 1, most).round().astype(int))
    shown = result.isel(time=chosen)
    unit = str(result["time"].attrs.get("units", ""))
    labels = [f"{time:g} {unit}".strip() for time in shown["time"].values]
    return rdm_dataset(
        shown[VARIABLE].values.mean(axis=0),
        labels,
        "rdm",
        shown["stimulus"].values,
        str(result.attrs["measure"]),
        str(result.attrs["name"]),
        coords={str(key): ("stimulus", c.values) for key, c in result.coords.items() if c.dims == ("stimulus",)},
    )


def caption(result: xr.Dataset, *, most: int = 8, **settings: Any) -> str:
    """Say in sentences what the figure shows.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`time_rdms` returned.
    most : int
        As in :func:`plot`.
    **settings
        Settings of the figure.

    Returns
    -------
    str
        Plain text.
    """
    from actkit.analyses import rdm_plot

    n, bins = len(result[VARIABLE]), result.sizes["time"]
    shown = min(most, bins)
    mean = f"Mean over {n} subjects; " if n > 1 else ""
    return f"{rdm_plot.caption(_panels(result, most), **settings)} {mean}{shown} of {bins} time bins are drawn."


def alt_text(result: xr.Dataset, **_unused: Any) -> str:
    """Describe the figure for a reader who cannot see it.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`time_rdms` returned.

    Returns
    -------
    str
        One sentence.
    """
    times = result["time"].values
    unit = str(result["time"].attrs.get("units", ""))
    span = f"{times[0]:g} to {times[-1]:g} {unit}".strip()
    return f"Dissimilarity matrices of {result.attrs.get('name', 'a recording')} in time bins from {span}."
