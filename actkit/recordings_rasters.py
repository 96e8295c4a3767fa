"""Rasters of neurons recorded one after the other: a MATLAB file for each, in the Neural Decoding Toolbox's format.

Each file holds ``raster_data`` (trials × samples, spikes), ``raster_labels`` (a struct with a list for each label, one
entry a trial) and perhaps ``raster_site_info`` (what is known of the neuron). The k-th presentation of a stimulus to
one neuron has nothing to do with the k-th to another: they share no noise.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actkit.errors import DataError, InputError, nearest
from actkit.recordings_neurons import from_trials, validate_responses
from actkit.recordings_trials import RESERVED, bin_spikes, bins_of, id_texts, label_columns, listed

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_rasters"]

_ENDING = "_raster_data"
_EVENT = "alignment_event_time"  # the sample of the event, counted from 1


@dataclass(frozen=True)
class _Neuron:
    """One file: spikes of shape (trials, samples), labels of the trials, and what is known of the neuron."""

    name: str
    raster: npt.NDArray[Any]
    labels: dict[str, npt.NDArray[np.str_]]
    site: dict[str, Any]


def read_rasters(
    path: str | Path,
    *,
    stimulus: str | Sequence[str] | None = None,
    window: Sequence[float] | None = None,
    bin_ms: float | None = None,
    labels: str | Sequence[str] = (),
    onset: int | None = None,
    sample_ms: float = 1.0,
) -> xr.DataArray:
    """Count spikes in rasters in the format of the Neural Decoding Toolbox.

    Parameters
    ----------
    path : path
        A folder or a zip archive with a MATLAB file (v5) for each neuron.
    stimulus : str or sequence of str
        Label that says what was shown; of several the values are joined by a space (object and position, say).
    window : (float, float), optional
        Start and stop of the time in which spikes count, in milliseconds from onset, by default the whole raster; the
        start is inside, the stop is not.
    bin_ms : float, optional
        Width of time bins in milliseconds, which fill the window. By default the window is one count.
    labels : str or sequence of str
        Labels that become coordinates over ``stimulus``.
    onset : int, optional
        Position, counted from 0, of the sample at which the stimulus came on; by default the file's
        ``alignment_event_time``, which counts from 1.
    sample_ms : float
        Duration of a sample in milliseconds.

    Returns
    -------
    DataArray
        Counts of dims (stimulus, repetition, neuron[, time]) in spikes, NaN where a neuron has fewer presentations
        than another. Stimuli are in sorted order, neurons in that of their files' names, which are theirs without
        ``_raster_data``; numbers and texts of ``raster_site_info`` are coordinates over ``neuron``. ``time`` holds the
        centres of the bins in ms.

    Raises
    ------
    InputError
        If an option is missing, or names a label that the files do not have.
    DataError
        If there is no such file, one is damaged or of another format, or a label differs between trials of a stimulus.

    References
    ----------
    Meyers EM (2013). The neural decoding toolbox. Frontiers in Neuroinformatics 7, 8.
    """
    path, wanted, labels = Path(path), listed(stimulus), listed(labels)
    shown: list[npt.NDArray[np.str_]] = []
    columns: dict[str, list[npt.NDArray[np.str_]]] = {label: [] for label in labels}
    counted: list[xr.DataArray] = []
    sites: list[dict[str, Any]] = []
    bins: list[tuple[float, float]] = []
    for neuron in _neurons(path):
        _check_labels(neuron, wanted, labels, path)
        own, counts = _counts(neuron, window, bin_ms, onset, sample_ms, path)
        if bins and own != bins:
            raise InputError(
                f"{path}: the raster of {neuron.name!r} has another length than those before; give a window"
            )
        bins = own
        shown.append(np.array([" ".join(words) for words in zip(*(neuron.labels[k] for k in wanted), strict=True)]))
        counted.append(from_trials(counts, shown[-1], neurons=[neuron.name]))
        sites.append(neuron.site)
        for label in labels:
            columns[label].append(neuron.labels[label])
    if not counted:
        raise DataError(f"{path} holds no MATLAB file; give a folder or a zip archive with a raster for each neuron")
    trials = np.concatenate(shown)
    over_trials = {label: np.concatenate(parts) for label, parts in columns.items()}
    array = _side_by_side(counted, trials, label_columns(over_trials, trials, str(path)))
    if bin_ms is None:
        array = array.isel(time=0)
    else:
        centres = [(start + stop) / 2 for start, stop in bins]
        array = array.assign_coords(time=("time", centres, {"units": "ms", "long_name": "time"}))
    array.attrs = {
        "units": "spikes",
        "long_name": "spikes in a trial" if bin_ms is None else "spikes in a bin",
        "source": path.name,
        "window_start_ms": bins[0][0],
        "window_stop_ms": bins[-1][1],
        "bin_ms": bins[0][1] - bins[0][0],
    }
    return validate_responses(array.assign_coords(_site_coords(sites)))


def _neurons(path: Path) -> Iterator[_Neuron]:
    """The files, one after the other, by name."""
    if path.is_dir():
        for file in sorted(path.glob("*.mat")):
            yield _read(file.read_bytes(), path, file.name)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is neither a folder nor a zip archive that can be read: {error}") from error
    with archive:
        for member in sorted(archive.namelist(), key=lambda name: PurePosixPath(name).name):
            if member.endswith(".mat") and not PurePosixPath(member).name.startswith("."):
                yield _read(archive.read(member), path, PurePosixPath(member).name)


def _read(content: bytes, path: Path, member: str) -> _Neuron:
    """One neuron of a MATLAB file."""
    import scipy.io

    try:
        unit: dict[str, Any] = scipy.io.loadmat(io.BytesIO(content), simplify_cells=True)
    except NotImplementedError as error:
        raise DataError(f"{path}: {member} is of MATLAB's version 7.3; save it again with -v7") from error
    except Exception as error:  # scipy raises whatever the damaged bytes lead to
        raise DataError(f"{path}: {member} cannot be read as a MATLAB file: {error}") from error
    lacking = [key for key in ("raster_data", "raster_labels") if key not in unit]
    if lacking:
        held = ", ".join(key for key in unit if not key.startswith("__"))
        raise DataError(
            f"{path}: {member} has no {lacking[0]}, so it is no raster of the Neural Decoding Toolbox; it holds: {held}"
        )
    raster, labels, site = np.atleast_2d(unit["raster_data"]), unit["raster_labels"], unit.get("raster_site_info")
    if raster.ndim != 2 or raster.dtype.kind not in "biuf" or not isinstance(labels, dict):
        raise DataError(f"{path}: {member}: raster_data is no matrix of trials × samples, or raster_labels no struct")
    texts = {str(key): id_texts(np.atleast_1d(np.asarray(values))) for key, values in labels.items()}
    name = member.removesuffix(".mat").removesuffix(_ENDING)
    return _Neuron(name, raster, texts, site if isinstance(site, dict) else {})


def _check_labels(neuron: _Neuron, wanted: Sequence[str], labels: Sequence[str], path: Path) -> None:
    """Refuse labels that are not there, or do not fit the trials."""
    n_trials, n_samples = neuron.raster.shape
    if not wanted:
        raise InputError(
            f"{path}: say stimulus=...: the label, or labels, of trials that name what was shown. The file of "
            f"{neuron.name!r} holds: {n_trials} trials of {n_samples} samples, the labels {', '.join(neuron.labels)}"
        )
    for label in (*wanted, *labels):
        if label not in neuron.labels:
            raise InputError(f"{path}: {neuron.name!r} has no label {label!r}; {nearest(label, neuron.labels)}")
        if len(neuron.labels[label]) != n_trials:
            raise DataError(
                f"{path}: {neuron.name!r} has {n_trials} trials and {len(neuron.labels[label])} values of {label!r}"
            )


def _counts(
    neuron: _Neuron,
    window: Sequence[float] | None,
    bin_ms: float | None,
    onset: int | None,
    sample_ms: float,
    path: Path,
) -> tuple[list[tuple[float, float]], npt.NDArray[np.float64]]:
    """Bins in ms, and the counts of shape (trials, 1, bins)."""
    if onset is None:
        if _EVENT not in neuron.site:
            raise InputError(
                f"{path}: {neuron.name!r} does not say when the stimulus came on; give onset=..., counted from 0"
            )
        onset = int(neuron.site[_EVENT]) - 1
    whole = (-onset * sample_ms, (neuron.raster.shape[1] - onset) * sample_ms)
    bins = bins_of(whole if window is None else window, bin_ms)
    try:
        return bins, bin_spikes(neuron.raster, bins, onset=onset, sample=sample_ms)[:, None]
    except InputError as error:
        raise InputError(f"{path}, {neuron.name!r}: {error}") from None


def _side_by_side(
    counted: Sequence[xr.DataArray], trials: npt.NDArray[np.str_], labels: dict[str, npt.NDArray[Any]]
) -> xr.DataArray:
    """Recordings of one neuron each as one recording, stimuli in sorted order."""
    import xarray as xr

    stimuli = list(dict.fromkeys(trials.tolist()))
    order = np.argsort(stimuli)
    place = {stimuli[i]: row for row, i in enumerate(order)}
    most = max(array.sizes["repetition"] for array in counted)
    values = np.full((len(stimuli), most, len(counted), counted[0].sizes["time"]), np.nan)
    for j, array in enumerate(counted):
        rows = [place[stimulus] for stimulus in array["stimulus"].values.tolist()]
        values[rows, : array.sizes["repetition"], j] = array.values[:, :, 0]
    return xr.DataArray(
        values,
        dims=("stimulus", "repetition", "neuron", "time"),
        coords={
            "stimulus": np.array(stimuli)[order],
            "neuron": [str(array["neuron"].values[0]) for array in counted],
            **{label: ("stimulus", column[order]) for label, column in labels.items()},
        },
        name="spikes",
    )


def _site_coords(sites: Sequence[dict[str, Any]]) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """What every file says of its neuron, in one number or text."""
    shared = [key for key in sites[0] if all(isinstance(site.get(key), int | float | str) for site in sites)]
    return {
        f"neuron_{key}" if key in RESERVED else key: ("neuron", np.array([site[key] for site in sites]))
        for key in shared
        if key != _EVENT
    }
