"""Tables of responses: a row for each trial and a column for each neuron, or a row for each response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actkit.array_files import read_table
from actkit.errors import DataError, InputError, nearest
from actkit.recordings_neurons import RECORDING_DIMS, validate_responses
from actkit.recordings_trials import chosen_rows, id_texts, label_columns, listed, numbered

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_table_of_responses"]

_REPETITIONS = ("repetition", "trial")
_OF_STIMULI = ("group", "n_repetitions", "n_images")  # columns that a recording has over stimuli


def read_table_of_responses(
    path: str | Path,
    *,
    stimulus: str = "stimulus",
    repetition: str | None = None,
    neurons: str | Sequence[str] | None = None,
    neuron: str | None = None,
    value: str | None = None,
    time: str | None = None,
    labels: str | Sequence[str] = (),
    neuron_labels: str | Sequence[str] = (),
    where: Mapping[str, Sequence[Any]] | None = None,
) -> xr.DataArray:
    """Read a recording from a CSV or TSV table.

    Parameters
    ----------
    path : path
        The table, with a header row. Empty cells are missing.
    stimulus : str
        Column of stimulus ids, which are read as the text they are (``007`` stays ``007``).
    repetition : str, optional
        Column that numbers or orders the presentations of a stimulus; by default ``repetition`` or ``trial`` where the
        table has one, else rows of one stimulus are its presentations in the order of the table.
    neurons : str or sequence of str, optional
        A row for each presentation: the columns of the neurons, by default all that are not named otherwise.
    neuron : str, optional
        A row for each response: the column of the neurons' names, by default ``neuron`` where the table has one.
    value : str, optional
        A row for each response: the column of the responses, by default ``value``.
    time : str, optional
        A row for each response: the column of the bins' centres in milliseconds, by default ``time`` where the table
        has one.
    labels : str or sequence of str
        Columns that become coordinates over ``stimulus``; ``group``, ``n_repetitions`` and ``n_images`` always do.
    neuron_labels : str or sequence of str
        A row for each response: columns that become coordinates over ``neuron``.
    where : mapping, optional
        Rows to keep: columns and the values wanted, such as ``{"session": ["2"]}``.

    Returns
    -------
    DataArray
        The recording of dims (stimulus[, repetition], neuron[, time]), stimuli in the order in which they first occur.
        Without a column of repetitions and with one row a stimulus there is no ``repetition``: such a table may hold
        averages.

    Raises
    ------
    InputError
        If the table lacks a column; the message lists those it has.
    DataError
        If a response is there twice or is no number, a stimulus has no id, or a label differs within a stimulus.
    """
    import xarray as xr

    path = Path(path)
    header = [str(column) for column in read_table(path).columns]
    neuron, repetition = _by_default(neuron, ("neuron",), header), _by_default(repetition, _REPETITIONS, header)
    time = None if neuron is None else _by_default(time, ("time",), header)
    labels, neuron_labels = listed(labels), listed(neuron_labels)
    labels += [name for name in _OF_STIMULI if name in header and name not in labels]
    named = [stimulus, *(name for name in (repetition, neuron, time) if name is not None), *labels, *neuron_labels]
    for name in named:
        if name not in header:
            raise InputError(
                f"{path}: there is no column {name!r}; {nearest(name, header)}. The file holds the columns "
                f"{', '.join(header)}; name the one of the stimuli with stimulus=..., and so on"
            )
    frame = read_table(path, text=[stimulus] if neuron is None else [stimulus, neuron])
    columns: dict[str, npt.NDArray[Any]] = {name: frame[name].to_numpy() for name in header}
    if not len(frame):
        raise DataError(f"{path} has no row, so there is no response")
    kept = chosen_rows(columns, where, str(path), len(frame))
    columns = {name: column[kept] for name, column in columns.items()}
    shown = id_texts(columns[stimulus])
    if "" in shown:
        row = int(np.flatnonzero(kept)[(shown == "").argmax()])
        raise DataError(f"{path}: the column {stimulus!r} is empty in row {row + 1} of the data; write the id there")
    over_stimuli = label_columns({label: columns[label] for label in labels}, shown, str(path))
    if neuron is None:
        if neuron_labels or value is not None or time is not None:
            raise InputError(
                f"{path} has no column of neurons' names, so it has a row for each presentation, and no place for "
                "neuron_labels, value or time; name the column with neuron=... if it has one"
            )
        names = np.array(_neuron_columns(columns, neurons, [*named, *(where or {})], path))
        responses = np.column_stack([_numbers(columns[name], name, path) for name in names.tolist()]).ravel()
        rows, place = np.repeat(np.arange(len(shown)), len(names)), np.tile(np.arange(len(names)), len(shown))
    else:
        if neurons is not None:
            raise InputError(f"{path} has a row for each response; choose neurons with where={{{neuron!r}: [...]}}")
        value = "value" if value is None else value
        if value not in header:
            raise InputError(
                f"{path}: there is no column {value!r}; say value=..., the column of the responses. The file holds the "
                f"columns {', '.join(header)}"
            )
        responses, rows = _numbers(columns[value], value, path), np.arange(len(shown))
        place, names = numbered(id_texts(columns[neuron]))
    times, moments = None, np.zeros(len(rows), dtype=np.int64)
    if time is not None:
        times, moments = np.unique(_numbers(columns[time], time, path), return_inverse=True)
    number, ids = numbered(shown)
    n_times = 1 if times is None else len(times)
    order = None if repetition is None else columns[repetition][rows]
    slot = _slots(number[rows], place * n_times + moments, order)
    shape = (len(ids), int(slot.max()) + 1, len(names), n_times)
    at = np.ravel_multi_index((number[rows], slot, place, moments), shape)
    _refuse_copies(at, rows, columns, [name for name in (stimulus, repetition, neuron, time) if name], path)
    filled = np.full(shape, np.nan)
    filled.ravel()[at] = responses
    coords: dict[str, Any] = {"stimulus": ids, "neuron": names}
    coords |= {label: ("stimulus", column) for label, column in over_stimuli.items()}
    if neuron is not None:
        along = label_columns({name: columns[name] for name in neuron_labels}, id_texts(columns[neuron]), str(path))
        coords |= {name: ("neuron", column) for name, column in along.items()}
    if times is not None:
        coords["time"] = ("time", times, {"units": "ms", "long_name": "time"})
    array = xr.DataArray(filled, dims=RECORDING_DIMS, coords=coords, name="responses")
    array = array.isel(time=0) if times is None else array
    return validate_responses(array if repetition is not None or slot.max() else array.isel(repetition=0))


def _by_default(given: str | None, usual: Sequence[str], header: Sequence[str]) -> str | None:
    """The column named, or the usual one where the table has it."""
    return given if given is not None else next((name for name in usual if name in header), None)


def _numbers(column: npt.NDArray[Any], name: str, path: Path) -> npt.NDArray[np.float64]:
    """A column of numbers."""
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    word = next(str(item) for item in column.tolist() if isinstance(item, str))
    raise DataError(
        f"{path}: the column {name!r} holds {word!r}, which is no number; leave missing responses empty, and name "
        "columns of text under labels"
    )


def _neuron_columns(
    columns: Mapping[str, npt.NDArray[Any]], neurons: str | Sequence[str] | None, named: Sequence[str], path: Path
) -> list[str]:
    """The columns of the neurons."""
    if neurons is not None:
        wanted = listed(neurons)
        lacking = [name for name in wanted if name not in columns]
        if lacking:
            raise InputError(f"{path}: there is no column {lacking[0]!r} of a neuron; {nearest(lacking[0], columns)}")
        return wanted
    left = [name for name in columns if name not in named and name not in _REPETITIONS]
    if not left:
        raise InputError(f"{path}: no column is left for neurons; the file holds the columns {', '.join(columns)}")
    nameless = [name for name in left if name.startswith("Unnamed: ")]
    if nameless:
        raise InputError(
            f"{path}: a column has no name in the header (row numbers, perhaps) and would become a neuron; say "
            f"neurons=..., some of {', '.join(name for name in left if name not in nameless)}"
        )
    return left


def _slots(
    number: npt.NDArray[np.int64], series: npt.NDArray[np.int64], order: npt.NDArray[Any] | None
) -> npt.NDArray[np.int64]:
    """The repetition of each response: the rank of its number among those of the stimulus, else the table's order."""
    if order is None:
        group, rank = number * (int(series.max()) + 1) + series, np.arange(len(number))
    else:
        group, rank = number, np.unique(order, return_inverse=True)[1]
    # Pairs come out sorted by group and then by rank, so a pair's distance from its group's first is its place there.
    pairs, of = np.unique(np.column_stack([group, rank]), axis=0, return_inverse=True)
    _, first, own = np.unique(pairs[:, 0], return_index=True, return_inverse=True)
    slot: npt.NDArray[np.int64] = (np.arange(len(pairs)) - first[own])[np.ravel(of)]
    return slot


def _refuse_copies(
    at: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    columns: Mapping[str, npt.NDArray[Any]],
    by: Sequence[str],
    path: Path,
) -> None:
    """Refuse two rows for one response."""
    _, first, counts = np.unique(at, return_index=True, return_counts=True)
    if counts.max() > 1:
        row = int(rows[first[counts.argmax()]])
        words = ", ".join(f"{name} {columns[name][row]}" for name in by)
        raise DataError(
            f"{path} has {counts.max()} rows for {words}; number the presentations in a column and name it with "
            "repetition=..."
        )
