"""What unit matching reads of a recording: averages by stimulus and neuron, in order, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from actkit.analyses.source import as_column
from actkit.errors import InputError, StimulusError
from actkit.recordings_neurons import average

__all__ = ["Recorded", "align", "read_responses", "reliability_of"]


@dataclass(frozen=True)
class Recorded:
    """Averaged responses.

    Attributes
    ----------
    values : numpy.ndarray of float64
        ``(n_stimuli, n_neurons)`` without missing values.
    ids, neurons : list of str
        Stimulus ids and names of neurons.
    columns : dict of str to numpy.ndarray
        Labels of the stimuli.
    name : str
        What the recording is called.
    attrs : dict
        Attributes of the recording.
    """

    values: np.ndarray
    ids: list[str]
    neurons: list[str]
    columns: dict[str, np.ndarray]
    name: str
    attrs: dict[str, Any]


def read_responses(responses: Any, ids: list[str]) -> Recorded:
    """Average a recording over its repetitions.

    Parameters
    ----------
    responses : xarray.DataArray or array_like
        (stimulus, neuron) or (stimulus, repetition, neuron); a bare array is (stimulus, neuron).
    ids : list of str
        Stimulus ids of a bare array's rows.

    Returns
    -------
    Recorded
        One value for each stimulus and neuron.

    Raises
    ------
    InputError
        If the dims do not fit, or a neuron has no response to a stimulus.
    DataError
        If the recording is not valid; see :func:`actkit.recordings_neurons.validate_responses`.
    """
    if not isinstance(responses, xr.DataArray):
        values = np.asarray(responses, dtype=np.float64)
        if values.ndim != 2 or len(values) != len(ids):
            raise InputError(
                f"responses: shape {values.shape} does not fit {len(ids)} stimuli; give (stimulus, neuron), or a "
                "DataArray with the dims stimulus, repetition and neuron"
            )
        coords = {"stimulus": ids, "neuron": [str(k) for k in range(values.shape[1])]}
        responses = xr.DataArray(values, dims=("stimulus", "neuron"), coords=coords)
    if "time" in responses.dims:
        raise InputError(
            f"responses have {responses.sizes['time']} time points, and a match is of one response a stimulus; "
            "average over a window first, such as responses.sel(time=slice(70, 170)).mean('time')"
        )
    means = average(responses).transpose("stimulus", "neuron")
    neurons = [str(name) for name in means["neuron"].values]
    stimuli = [str(i) for i in means["stimulus"].values]
    values = np.asarray(means.values, dtype=np.float64)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise InputError(
            f"neuron {neurons[column]!r} has no response to stimulus {stimuli[row]!r}, and all neurons are matched on "
            "the same stimuli; leave out the neuron or the stimulus"
        )
    columns = {
        str(key): as_column(coord.values)
        for key, coord in means.coords.items()
        if coord.dims == ("stimulus",) and key not in ("stimulus", "n_repetitions")
    }
    return Recorded(values, stimuli, neurons, columns, str(means.name or "recording"), dict(responses.attrs))


def align(ids: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Find the source's row of each recorded stimulus.

    Parameters
    ----------
    ids : sequence of str
        Stimuli of the source.
    wanted : sequence of str
        Stimuli of the recording.

    Returns
    -------
    numpy.ndarray of int64
        ``(len(wanted),)``; the source may hold further stimuli.

    Raises
    ------
    StimulusError
        If a stimulus is not in the source, or stands there twice.
    """
    where = {name: row for row, name in enumerate(ids)}
    if len(where) < len(ids):
        twice = next(name for row, name in enumerate(ids) if where[name] != row)
        raise StimulusError(f"stimulus {twice!r} stands twice in the source; give every stimulus once")
    missing = [name for name in wanted if name not in where]
    if missing:
        raise StimulusError(
            f"{len(missing)} of {len(wanted)} recorded stimuli are not in the source, the first is {missing[0]!r}; "
            "record activations for them, select the stimuli of the responses, or, where the rows have the same "
            "order, give ids=responses['stimulus'].values"
        )
    return np.array([where[name] for name in wanted], dtype=np.int64)


def reliability_of(reliability: Any, neurons: list[str]) -> np.ndarray:
    """Bring reliabilities into the order of the neurons.

    Parameters
    ----------
    reliability : xarray.Dataset, xarray.DataArray or array_like
        Reliability of each neuron's average; those with names are aligned by them.
    neurons : list of str
        Names of the neurons.

    Returns
    -------
    numpy.ndarray of float64
        ``(n_neurons,)``.

    Raises
    ------
    InputError
        If a neuron has none, or a value is above 1.
    """
    if isinstance(reliability, xr.Dataset):
        if "reliability" not in reliability:
            raise InputError("the Dataset has no variable 'reliability'; give what neuron_reliability() returned")
        reliability = reliability["reliability"]
    if isinstance(reliability, xr.DataArray) and "neuron" in reliability.coords:
        known = dict(zip(reliability["neuron"].values.astype(str).tolist(), reliability.values.tolist(), strict=True))
        missing = [name for name in neurons if name not in known]
        if missing:
            raise InputError(f"reliability: {len(missing)} neurons have none, the first is {missing[0]!r}; give all")
        reliability = [known[name] for name in neurons]
    values = np.asarray(reliability, dtype=np.float64)
    if values.shape != (len(neurons),):
        raise InputError(f"reliability: shape {values.shape} does not fit {len(neurons)} neurons; give one for each")
    if (values > 1).any():
        raise InputError(
            f"reliability {values.max():.3g} of neuron {neurons[int(np.nanargmax(values))]!r} is above 1; give the "
            "reliability of the average, a share of variance"
        )
    return values
