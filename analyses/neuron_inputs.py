"""What analyses of neurons start from: averages by stimulus and neuron, their rows in a source, reliabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from actkit.analyses.source import as_column
from actkit.errors import DataError, InputError, StimulusError
from actkit.recordings_neurons import average

__all__ = ["Recorded", "averaged_source", "check_complete", "read_responses", "recorded_rows", "reliability_of"]


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


def check_complete(values: np.ndarray, stimuli: Sequence[str], neurons: Sequence[str]) -> None:
    """Refuse averages with gaps: neurons that share their stimuli share one fit.

    Parameters
    ----------
    values : numpy.ndarray
        ``(n_stimuli, n_neurons)`` averages, NaN where there is none.
    stimuli, neurons : sequence of str
        Their names.

    Raises
    ------
    DataError
        If there is a NaN.
    """
    gaps = np.isnan(values)
    if gaps.any():
        stimulus, neuron = np.argwhere(gaps)[0]
        raise DataError(
            f"neuron {neurons[neuron]!r} has no response to stimulus {stimuli[stimulus]!r} ({int(gaps.sum())} such "
            "gaps in all), and all neurons are fitted on the same stimuli; leave out those stimuli or neurons, such as "
            "with .dropna('stimulus') on the averages"
        )


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
        If the dims do not fit.
    DataError
        If a neuron has no response to a stimulus, or the recording is not valid; see
        :func:`actkit.recordings_neurons.validate_responses`.
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
    check_complete(values, stimuli, neurons)
    columns = {
        str(key): as_column(coord.values)
        for key, coord in means.coords.items()
        if coord.dims == ("stimulus",) and key not in ("stimulus", "n_repetitions")
    }
    return Recorded(values, stimuli, neurons, columns, str(means.name or "recording"), dict(responses.attrs))


def averaged_source(source: Any) -> Any:
    """Let a recording take the place of a layer: its neurons are units, its repetitions are averaged.

    Parameters
    ----------
    source : anything that units are read from
        A store, arrays, or a recording (stimulus, repetition, neuron), alone or in a dict.

    Returns
    -------
    anything
        Recordings averaged over their repetitions, which would count as units otherwise; the rest as it is.

    Raises
    ------
    DataError
        If a recording is not valid; see :func:`actkit.recordings_neurons.validate_responses`.
    """
    if isinstance(source, dict):
        return {name: averaged_source(one) for name, one in source.items()}
    if isinstance(source, xr.DataArray) and {"repetition", "neuron"} <= set(source.dims):
        return average(source)
    return source


def recorded_rows(ids: Sequence[Any] | np.ndarray, wanted: Sequence[str]) -> np.ndarray:
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
        If a recorded stimulus is not in the source, or an id stands there twice.
    """
    names = [str(name) for name in ids]
    where = {name: row for row, name in enumerate(names)}
    if len(where) < len(names):
        twice = next(name for row, name in enumerate(names) if where[name] != row)
        raise StimulusError(
            f"the source holds stimulus {twice!r} twice, so its rows cannot be told apart; give every stimulus once"
        )
    missing = [name for name in wanted if name not in where]
    if missing:
        raise StimulusError(
            f"{len(missing)} of {len(wanted)} recorded stimuli are not in the source, the first is {missing[0]!r} "
            f"(its own ids are like {names[0]!r}); record activations for them, leave them out of the responses, or, "
            "where the rows have the same order, give ids=responses['stimulus'].values"
        )
    return np.array([where[name] for name in wanted], dtype=np.int64)


def reliability_of(reliability: Any, neurons: Sequence[str]) -> np.ndarray:
    """Bring reliabilities to one number a neuron, aligned by name where there are names.

    Parameters
    ----------
    reliability : xarray.Dataset, xarray.DataArray, mapping of neuron to number, or sequence
        Reliabilities; a Dataset carries them as ``reliability``.
    neurons : sequence of str
        Neurons of the recording.

    Returns
    -------
    numpy.ndarray
        ``(n_neurons,)``; NaN where a reliability could not be estimated.

    Raises
    ------
    InputError
        If neurons have no reliability, the shape does not fit, or one is above 1.
    """
    if isinstance(reliability, xr.Dataset):
        if "reliability" not in reliability:
            raise InputError("this Dataset has no variable 'reliability'; give what neuron_reliability() returned")
        reliability = reliability["reliability"]
    if isinstance(reliability, xr.DataArray):
        if reliability.dims != ("neuron",):
            raise InputError(f"reliability has the dims {reliability.dims}; give one value along 'neuron'")
        if "neuron" in reliability.coords:
            names = reliability["neuron"].values.astype(str).tolist()
            reliability = dict(zip(names, reliability.values.tolist(), strict=True))
    if isinstance(reliability, Mapping):
        missing = [name for name in neurons if name not in reliability]
        if missing:
            raise InputError(f"{len(missing)} neurons have no reliability, the first is {missing[0]!r}; give all")
        reliability = [reliability[name] for name in neurons]
    rho = np.asarray(reliability, dtype=np.float64)
    if rho.shape != (len(neurons),):
        raise InputError(f"reliability has shape {rho.shape}, and there are {len(neurons)} neurons; give one for each")
    if (rho > 1 + 1e-9).any():
        worst = int(np.nanargmax(rho))
        raise InputError(
            f"the reliability of neuron {neurons[worst]!r} is {rho[worst]:.3g}, and a ratio of variances is 1 at most; "
            "give ρ itself, as a number from 0 to 1"
        )
    return rho
