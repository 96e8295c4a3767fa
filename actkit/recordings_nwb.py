"""NWB files: the spikes of sorted units, counted in each trial, as a recording of neurons.

A file of Neurodata Without Borders keeps spike times by unit and trials by row, on one clock in seconds. Here trials
become stimuli and repetitions, units become neurons, and a trial outside the times at which a unit was observed is a
missing presentation, not a silent one.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actkit.errors import DataError, InputError, nearest, require
from actkit.recordings_neurons import from_trials
from actkit.recordings_trials import RESERVED, bin_spike_times, bins_of, chosen_rows, id_texts, label_columns, listed

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["nwb_contents", "read_nwb"]

_TOUCH_S = 1e-6  # intervals that meet within a microsecond are one


def read_nwb(
    path: str | Path,
    *,
    stimulus: str | None = None,
    window: Sequence[float] | None = None,
    bin_ms: float | None = None,
    table: str = "trials",
    align: str = "start_time",
    labels: str | Sequence[str] = (),
    where: Mapping[str, Sequence[Any]] | None = None,
    trials: Mapping[str, Sequence[Any]] | None = None,
    neuron: str = "id",
    sort: bool = False,
    drop_unobserved: bool = False,
) -> xr.DataArray:
    """Count the spikes of the units of an NWB file in each trial.

    Parameters
    ----------
    path : path
        The file.
    stimulus : str
        Column of the trials that says what was shown. Trials where it is empty or NaN are left out.
    window : (float, float)
        Start and stop of the time in which spikes count, in milliseconds from `align`; the start is inside, the stop
        is not. It may start before 0, and may reach into the next trial.
    bin_ms : float, optional
        Width of time bins in milliseconds; they must fill the window. By default the window is one count, and the
        recording has no ``time``.
    table : str
        Table of trials: ``trials``, or another table of intervals of the file.
    align : str
        Column of the trials with the time in seconds that counts as 0. Trials where it is NaN are left out.
    labels : str or sequence of str
        Further columns of the trials, each with one value for a stimulus, that become coordinates over ``stimulus``.
    where : mapping, optional
        Units to keep: columns and the values wanted, such as ``{"quality": ["good"]}``; ``id`` is a column too.
    trials : mapping, optional
        Trials to keep, in the same way, such as ``{"correct": [True]}``.
    neuron : str
        Column of the units that names them.
    sort : bool
        Sort the spike times of units that go back in time. That is right only where they are merely out of order; where
        the clock started anew, the later spikes belong to no trial.
    drop_unobserved : bool
        Leave out units and stimuli without a single observed trial, rather than refuse the file; the attribute
        ``left_out`` names them.

    Returns
    -------
    DataArray
        Counts of dims (stimulus, repetition, neuron[, time]) in spikes, stimuli in the order of first showing. NaN
        where ``obs_intervals`` of a unit do not hold the whole window of a trial, or the window meets the file's
        ``invalid_times``. Columns of the units (quality, depth and the like), ``electrode_group`` and ``region`` are
        coordinates over ``neuron``; one whose name has a meaning here gets another, so ``group`` becomes
        ``neuron_group``. ``time`` holds the centres of the
        bins in ms. Attributes: ``window_start_ms``, ``window_stop_ms``, ``bin_ms``, ``n_trials_left_out``, ``observed``
        (whether the file says when its units were observed), subject and session where known.

    Raises
    ------
    InputError
        If an option is missing or names what the file does not have; the message lists what it holds.
    DataError
        If it is no NWB file, has no units, no spike times or no trials, no trial is left, spike times go back in time,
        a unit or a stimulus was never observed, or a label differs between trials of a stimulus.
    MissingExtraError
        If pynwb is not installed.

    References
    ----------
    Rübel O, Tritt A, Ly R, et al. (2022). The Neurodata Without Borders ecosystem for neurophysiological data science.
    eLife 11, e78362.
    """
    path, labels = Path(path), listed(labels)
    with _opened(path) as nwb, _quiet():
        units, rows = _table_of_units(nwb, path), _table_of_trials(nwb, table, path)
        columns = _columns(rows)
        for option, name in (("stimulus", stimulus), ("window", window)):
            if name is None:
                raise InputError(f"{path}: say {option}=...: {_SAY[option]}. {_holds(nwb)}")
        assert stimulus is not None
        assert window is not None
        bins = bins_of(window, bin_ms)
        for name in (stimulus, align, *labels):
            if name not in columns:
                raise InputError(
                    f"{path}: the table {table!r} has no column {name!r}; {nearest(name, columns)}. {_holds(nwb)}"
                )
        shown, onsets = id_texts(columns[stimulus]), _seconds(columns[align], align, path)
        kept = chosen_rows(columns, trials, f"{path}, table {table!r}", len(onsets))
        usable = kept & np.isfinite(onsets) & (shown != "")
        if not usable.any():
            raise DataError(
                f"{path}: of {len(onsets)} trials in {table!r} none is left with a value of {stimulus!r} and of "
                f"{align!r}, so there is nothing to count; {_holds(nwb)}"
            )
        about = _columns(units)
        names = _names(about, neuron, path, _holds(nwb))
        wanted = np.flatnonzero(chosen_rows(about, where, f"{path}, units", len(names)))
        onsets, shown = onsets[usable], shown[usable]
        spans = onsets[:, None] + np.array([bins[0][0], bins[-1][1]]) / 1000
        counts = np.empty((len(onsets), len(wanted), len(bins)))
        observed = np.empty((len(onsets), len(wanted)), dtype=bool)
        valid = ~_meets(spans, _invalid_times(nwb))
        for j, unit in enumerate(wanted.tolist()):
            counts[:, j] = bin_spike_times(_spikes(units, unit, str(names[unit]), sort, path), onsets, bins)
            observed[:, j] = valid & _inside(spans, _observation(units, unit))
        attrs = _attributes(nwb, path, bins, bin_ms, align, "obs_intervals" in units.colnames)
        along = _unit_coords(nwb, units, about, wanted, neuron)
    counts[~observed] = np.nan
    attrs["n_trials_left_out"] = int((kept & ~usable).sum())
    keep_units, keep_trials = _observed_parts(observed, shown, names[wanted], drop_unobserved, attrs, path)
    counts = counts[keep_trials][:, keep_units]
    shown = shown[keep_trials]
    of_stimuli = {label: columns[label][usable][keep_trials] for label in labels}
    array = from_trials(
        counts if bin_ms is not None else counts[..., 0],
        shown,
        neurons=names[wanted][keep_units].tolist(),
        times=None if bin_ms is None else [(start + stop) / 2 for start, stop in bins],
        labels=label_columns(of_stimuli, shown, f"{path}, table {table!r}"),
        name="spikes",
        attrs=attrs,
    )
    return array.assign_coords({name: ("neuron", values[keep_units]) for name, values in along.items()})


_SAY = {
    "stimulus": "the column of the trials that names what was shown",
    "window": "(start, stop) of the time in which spikes count, in ms from the start of a trial",
}


def nwb_contents(path: str | Path) -> str:
    """Say in words what an NWB file holds: its units, its tables of trials, and their columns.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str
        A sentence.

    Raises
    ------
    DataError
        If it is no NWB file.
    MissingExtraError
        If pynwb is not installed.
    """
    with _opened(Path(path)) as nwb, _quiet():
        return _holds(nwb)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The session in an NWB file."""
    require("pynwb", "nwb", f"reading {path}")
    if not path.is_file():
        raise DataError(f"there is no file {path}" + (", only a folder of that name" if path.is_dir() else ""))
    with _quiet():
        from pynwb import NWBHDF5IO

    with contextlib.ExitStack() as stack:
        try:
            with _quiet():
                nwb = stack.enter_context(NWBHDF5IO(str(path), mode="r", load_namespaces=True)).read()
        except Exception as error:  # pynwb and hdmf raise whatever the bytes lead to
            raise DataError(f"{path} cannot be read as NWB: {error}") from error
        yield nwb


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what hdmf and pynwb say of themselves (cached namespaces, deprecations), and nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(hdmf|pynwb)(\.|$)")
        yield


def _holds(nwb: Any) -> str:
    """What a file holds, in words."""
    tables = _interval_tables(nwb)
    parts = [
        f"{len(nwb.units.id)} units (columns {', '.join(nwb.units.colnames)})" if nwb.units is not None else "no units",
        *(f"the table {name!r} (columns {', '.join(table.colnames)})" for name, table in tables.items()),
    ]
    return "The file holds: " + "; ".join(parts) + ("" if tables else "; no table of trials")


def _interval_tables(nwb: Any) -> dict[str, Any]:
    """Every table of intervals by its name."""
    own = {"trials": nwb.trials, "epochs": nwb.epochs}
    further = {str(name): table for name, table in (nwb.intervals or {}).items() if name != "invalid_times"}
    return {name: table for name, table in (own | further).items() if table is not None}


def _table_of_units(nwb: Any, path: Path) -> Any:
    """The units, with spike times."""
    if nwb.units is None or not len(nwb.units.id):
        raise DataError(
            f"{path} has no units, so there are no spikes to count; sort its spikes first, or read its signals with "
            f"pynwb and make a recording with actkit.recordings_neurons.from_trials. {_holds(nwb)}"
        )
    if "spike_times" not in nwb.units.colnames:
        raise DataError(f"{path}: its units have no spike_times, so there is nothing to count. {_holds(nwb)}")
    return nwb.units


def _table_of_trials(nwb: Any, table: str, path: Path) -> Any:
    """The table of trials asked for."""
    tables = _interval_tables(nwb)
    if not tables:
        raise DataError(
            f"{path} has no trials, so nobody can say what was shown when; add a table of intervals with pynwb "
            f"(NWBFile.add_trial), or count spikes with actkit.recordings_neurons.bin_spike_times. {_holds(nwb)}"
        )
    if table not in tables:
        raise InputError(f"{path} has no table {table!r}; {nearest(table, tables)}. {_holds(nwb)}")
    if not len(tables[table].id):
        raise DataError(f"{path}: its table {table!r} has no row, so no trial was run. {_holds(nwb)}")
    return tables[table]


def _columns(table: Any) -> dict[str, npt.NDArray[Any]]:
    """The columns of a table that have one number or text in a row, and its ids."""
    from pynwb.core import DynamicTableRegion, VectorIndex

    found: dict[str, npt.NDArray[Any]] = {"id": np.asarray(table.id[:])}
    indexed = {column.target.name for column in table.columns if isinstance(column, VectorIndex)}
    for column in table.columns:
        if isinstance(column, VectorIndex | DynamicTableRegion) or column.name in indexed:
            continue
        values = np.asarray(column.get(slice(None)))
        if values.ndim == 1 and values.dtype == object and all(isinstance(item, str | bytes) for item in values):
            values = id_texts(values)
        if values.ndim == 1 and values.dtype.kind in "biufU":
            found[str(column.name)] = values
    return found


def _seconds(values: npt.NDArray[Any], name: str, path: Path) -> npt.NDArray[np.float64]:
    """A column of times."""
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path}: the column {name!r} holds {values.dtype}, and a time to align to is in seconds")
    return values.astype(np.float64)


def _names(about: Mapping[str, npt.NDArray[Any]], column: str, path: Path, holds: str) -> npt.NDArray[np.str_]:
    """Names of the units."""
    if column not in about:
        raise InputError(f"{path}: units have no column {column!r} to be named by; {nearest(column, about)}. {holds}")
    return id_texts(about[column])


def _ragged(table: Any, name: str, row: int) -> npt.NDArray[Any]:
    """The values of a row of a column that holds several in each."""
    index = table[name]
    start = int(index.data[row - 1]) if row else 0
    return np.asarray(index.target.data[start : int(index.data[row])])


def _spikes(units: Any, unit: int, name: str, sort: bool, path: Path) -> npt.NDArray[np.float64]:
    """Spike times of a unit, in order."""
    times = _ragged(units, "spike_times", unit).astype(np.float64)
    if not np.isfinite(times).all():
        raise DataError(f"{path}: the unit {name!r} has a spike time that is no number; correct the file")
    back = np.flatnonzero(np.diff(times) < 0)
    if not len(back):
        return times
    if sort:
        return np.sort(times)
    at = int(back[0])
    raise DataError(
        f"{path}: the spike times of the unit {name!r} go back from {times[at]:g} s to {times[at + 1]:g} s; if they "
        "are merely out of order give sort=True, if the clock started anew there put the parts on one clock first"
    )


def _observation(units: Any, unit: int) -> npt.NDArray[np.float64] | None:
    """Times at which a unit was observed, joined where they meet; None where the file does not say."""
    if "obs_intervals" not in units.colnames:
        return None
    intervals = _ragged(units, "obs_intervals", unit).astype(np.float64).reshape(-1, 2)
    joined: list[list[float]] = []
    for start, stop in intervals[np.argsort(intervals[:, 0], kind="stable")].tolist():
        if joined and start <= joined[-1][1] + _TOUCH_S:
            joined[-1][1] = max(joined[-1][1], stop)
        else:
            joined.append([start, stop])
    return np.array(joined).reshape(-1, 2)


def _inside(spans: npt.NDArray[np.float64], intervals: npt.NDArray[np.float64] | None) -> npt.NDArray[np.bool_]:
    """Whether each span lies in one of the intervals, which are in order and apart."""
    if intervals is None:
        return np.ones(len(spans), dtype=bool)
    if not len(intervals):
        return np.zeros(len(spans), dtype=bool)
    last = np.searchsorted(intervals[:, 0], spans[:, 0] + _TOUCH_S, side="right") - 1
    ends = intervals[np.maximum(last, 0), 1]
    return np.asarray((last >= 0) & (spans[:, 1] <= ends + _TOUCH_S))


def _invalid_times(nwb: Any) -> npt.NDArray[np.float64]:
    """Times that the file says to leave out of any analysis."""
    table = nwb.invalid_times
    if table is None:
        return np.empty((0, 2))
    return np.column_stack([np.asarray(table[name].data[:], dtype=np.float64) for name in ("start_time", "stop_time")])


def _meets(spans: npt.NDArray[np.float64], intervals: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether each span overlaps any of the intervals."""
    starts, stops = spans[:, None, 0], spans[:, None, 1]
    return np.asarray(((starts < intervals[None, :, 1]) & (stops > intervals[None, :, 0])).any(axis=1))


def _observed_parts(
    observed: npt.NDArray[np.bool_],
    shown: npt.NDArray[np.str_],
    names: npt.NDArray[np.str_],
    drop: bool,
    attrs: dict[str, Any],
    path: Path,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Units and trials to keep: those of units and stimuli that were observed at all."""
    units = np.asarray(observed.any(axis=0))
    seen = set(shown[observed.any(axis=1)].tolist())
    trials = np.array([stimulus in seen for stimulus in shown.tolist()])
    lost = {"unit": names[~units].tolist(), "stimulus": list(dict.fromkeys(shown[~trials].tolist()))}
    if not units.any():
        raise DataError(
            f"{path}: no unit was observed in a whole window of any trial, by obs_intervals and invalid_times; choose "
            "another window, or look at whether trials and units are on one clock"
        )
    if not drop:
        for kind, missing in lost.items():
            if missing:
                more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
                raise DataError(
                    f"{path}: the {kind} {missing[0]!r}{more} was not observed in any trial, by obs_intervals and "
                    "invalid_times; give drop_unobserved=True to leave it out"
                )
    words = [f"{kind} {', '.join(missing)}" for kind, missing in lost.items() if missing]
    attrs |= {"left_out": "; ".join(words)} if words else {}
    return units, trials


def _unit_coords(
    nwb: Any, units: Any, about: Mapping[str, npt.NDArray[Any]], wanted: npt.NDArray[np.int64], neuron: str
) -> dict[str, npt.NDArray[Any]]:
    """Columns of the units as coordinates, with the place of their electrodes."""
    found = {
        (f"neuron_{name}" if name in RESERVED or name == "id" else name): values[wanted]
        for name, values in about.items()
        if name != neuron
    }
    places: dict[str, list[str]] = {}
    if "electrodes" in units.colnames and nwb.electrodes is not None:
        electrodes = _columns(nwb.electrodes)
        for coordinate, column in (("electrode_group", "group_name"), ("region", "location")):
            if column in electrodes:
                words = id_texts(electrodes[column])
                places[coordinate] = [
                    " / ".join(dict.fromkeys(words[_electrode_rows(units, int(unit))].tolist())) for unit in wanted
                ]
    elif "electrode_group" in units.colnames:
        groups = [units["electrode_group"].data[int(unit)] for unit in wanted]
        places = {"electrode_group": [str(g.name) for g in groups], "region": [str(g.location) for g in groups]}
    return {name: np.array(words) for name, words in places.items()} | found


def _electrode_rows(units: Any, unit: int) -> npt.NDArray[np.int64]:
    """Rows of the electrodes of a unit in the table of electrodes."""
    from pynwb.core import VectorIndex

    if isinstance(units["electrodes"], VectorIndex):
        return _ragged(units, "electrodes", unit).astype(np.int64)
    return np.atleast_1d(np.asarray(units["electrodes"].data[unit])).astype(np.int64)


def _attributes(
    nwb: Any, path: Path, bins: Sequence[tuple[float, float]], bin_ms: float | None, align: str, stated: bool
) -> dict[str, Any]:
    """What to know about the counts."""
    subject = nwb.subject
    known = {
        "subject": getattr(subject, "subject_id", None),
        "species": getattr(subject, "species", None),
        "session": nwb.session_id or nwb.identifier,
    }
    return {
        "units": "spikes",
        "long_name": "spikes in a trial" if bin_ms is None else "spikes in a bin",
        "source": path.name,
        **{name: str(value) for name, value in known.items() if value},
        "window_start_ms": bins[0][0],
        "window_stop_ms": bins[-1][1],
        "bin_ms": bins[0][1] - bins[0][0],
        "aligned_to": align,
        "observed": "by obs_intervals" if stated else "not stated in the file, every trial counts as recorded",
    }
