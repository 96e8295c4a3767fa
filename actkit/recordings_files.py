"""Recordings of neurons in files: one call for every format, with the options of each.

What a format says of itself is read from the file: an NWB file has units and trials, a Brain-Score assembly has
presentations. What it does not say (which axis is which, where the ids are) is an option, and an error lists what the
file holds. Options can be written down beside the data, in a YAML file that then stands for the recording.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from actkit.array_files import Loader, contents, fit_dims, read_array
from actkit.errors import DataError, InputError, nearest
from actkit.recordings_assemblies import read_assembly
from actkit.recordings_neurons import from_trials, validate_responses
from actkit.recordings_nwb import read_nwb
from actkit.recordings_rasters import read_rasters
from actkit.recordings_tables import read_table_of_responses
from actkit.recordings_trials import id_texts, label_columns, listed

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Kind", "is_recording_file", "kind_of", "read_array_of_responses", "read_recording"]

Kind = Literal["nwb", "netcdf", "mat", "hdf5", "npy", "npz", "csv", "rasters", "yaml"]
"""Formats of recordings."""

_SUFFIXES: dict[str, Kind] = {
    ".nwb": "nwb", ".nc": "netcdf", ".cdf": "netcdf", ".mat": "mat", ".h5": "hdf5", ".hdf5": "hdf5", ".npy": "npy",
    ".npz": "npz", ".csv": "csv", ".tsv": "csv", ".zip": "rasters", ".yaml": "yaml", ".yml": "yaml",
}  # fmt: skip


def kind_of(path: str | Path) -> Kind:
    """Tell the format of a file by its name.

    Parameters
    ----------
    path : path
        The file, or the folder of rasters.

    Returns
    -------
    str
        One of `Kind`.

    Raises
    ------
    InputError
        If the suffix says nothing.
    """
    path = Path(path)
    if path.is_dir():
        return "rasters"
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{str(path)!r}: its suffix {suffix!r} names no format of recordings; give kind=..., one of "
            f"{', '.join(get_args(Kind))}"
        )
    return _SUFFIXES[suffix]


def is_recording_file(text: str | Path) -> bool:
    """Whether a text is the name of a file that `read_recording` reads, by its suffix.

    Parameters
    ----------
    text : str or path
        A name, as on the command line.

    Returns
    -------
    bool
        False for ``DATASET:VARIABLE``. Whether there is such a file is not looked at.
    """
    return Path(text).suffix.lower() in _SUFFIXES


def read_recording(path: str | Path, *, kind: Kind | None = None, **options: Any) -> xr.DataArray:
    r"""Read a recording of neurons from a file.

    Parameters
    ----------
    path : path
        The file. ``.nwb``; ``.nc`` (assemblies of Brain-Score, and recordings that xarray wrote); ``.mat`` (all
        versions), ``.h5``, ``.npy``, ``.npz``; ``.csv``, ``.tsv``; a folder or ``.zip`` of rasters in the format of the
        Neural Decoding Toolbox; or a ``.yaml`` of your own that names the file (``file: session.nwb``, relative to
        itself) and the options.
    kind : str, optional
        The format where the suffix does not tell: ``nwb``, ``netcdf``, ``mat``, ``hdf5``, ``npy``, ``npz``, ``csv``,
        ``rasters`` or ``yaml``.
    **options
        Options of the format: see `actkit.recordings_nwb.read_nwb`, `actkit.recordings_assemblies.read_assembly`,
        `read_array_of_responses` (MATLAB, HDF5 and numpy), `actkit.recordings_tables.read_table_of_responses` and
        `actkit.recordings_rasters.read_rasters`.

    Returns
    -------
    DataArray
        The checked recording of dims (stimulus[, repetition], neuron[, time]), missing presentations NaN, the file's
        name in its attribute ``source``.

    Raises
    ------
    InputError
        If the format has no such option, or one is missing; the message says what the file holds.
    DataError
        If the file is damaged, or what it holds is no recording.
    MissingExtraError
        If an NWB file is to be read and pynwb is not installed.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "rates.csv"
    >>> _ = file.write_text("stimulus,n1,n2\ncat,3,1\ncup,5,0\ncat,4,2\n")
    >>> read_recording(file).sel(stimulus="cat", neuron="n1").values.tolist()
    [3.0, 4.0]
    """
    path = Path(path)
    kind = kind_of(path) if kind is None else kind
    if kind == "yaml":
        if options:
            raise InputError(f"{path} says itself how its file is read; write {', '.join(options)} there")
        path, kind, options = _described(path)
    if kind not in _READERS:
        raise InputError(f"{path}: there is no format {kind!r}; {nearest(str(kind), [*_READERS, 'yaml'])}")
    if not path.exists():
        raise DataError(f"there is no file {str(path)!r}; give the path of a recording")
    reader = _READERS[kind]
    known = [name for name, given in inspect.signature(reader).parameters.items() if name not in ("path", "loader")]
    for name in options:
        if name not in known:
            raise InputError(
                f"{path} is read as {kind}, which has no option {name!r}; {nearest(name, known)}; its options are "
                f"{', '.join(known)}"
            )
    given = {"loader": kind, **options} if reader is read_array_of_responses else options
    array = validate_responses(reader(path, **given))
    array.attrs["source"] = path.name
    return array


def read_array_of_responses(
    path: str | Path,
    *,
    loader: Loader | None = None,
    key: str | None = None,
    dims: str | Sequence[str] | None = None,
    stimulus: str | Sequence[Any] | None = None,
    neuron: str | Sequence[Any] | None = None,
    time: str | Sequence[float] | None = None,
    labels: Mapping[str, str | Sequence[Any]] | None = None,
    neuron_labels: Mapping[str, str | Sequence[Any]] | None = None,
    first: int = 0,
    missing: float | None = None,
) -> xr.DataArray:
    """Read a recording from an array in a MATLAB, HDF5 or numpy file.

    Parameters
    ----------
    path : path
        The file.
    loader : {"mat", "hdf5", "npy", "npz"}, optional
        How to read it, by default by its suffix.
    key : str
        Where the responses are: ``variable`` or ``struct.field`` (MATLAB), ``group/dataset`` (HDF5), the array's name
        (npz; where there is one array it need not be said).
    dims : str or sequence of str
        The name of each axis, in the file's order: ``stimulus``, ``repetition``, ``neuron``, ``time``; or ``trial`` in
        place of the first two, for trials in the order in which they were run. MATLAB's axes of length one need no
        name. A file of one neuron may lack ``neuron``.
    stimulus : str or sequence
        Ids along ``stimulus`` (along ``trial``: what was shown in each): where the file holds them, or the ids
        themselves, or a format such as ``"image{:04d}"`` that numbers the rows. Whole numbers lose their decimal point.
    neuron : str or sequence, optional
        Names of the neurons in the same way; by default ``"0"``, ``"1"``, ...
    time : str or sequence of float, optional
        Centres of the bins in milliseconds from onset, in the same way.
    labels : mapping, optional
        Coordinates over ``stimulus`` (``group`` among them, and ``n_repetitions`` of averages): where the file holds
        each, or the values.
    neuron_labels : mapping, optional
        Coordinates over ``neuron`` in the same way, such as ``region``.
    first : int
        The number of the first row in formats: 1 where the file's rows belong to ``image0001``, ``image0002``, ...
    missing : float, optional
        A value that stands for a missing presentation, such as -1; NaN always does.

    Returns
    -------
    DataArray
        The recording.

    Raises
    ------
    InputError
        If `dims`, `key` or the ids are missing or do not fit; the message lists what the file holds.
    DataError
        If the file is damaged, or holds no recording.
    """
    import xarray as xr

    path = Path(path)
    found = kind_of(path) if loader is None else loader
    if found not in ("mat", "hdf5", "npy", "npz"):
        raise InputError(f"{path}: arrays are read from mat, hdf5, npy and npz, not from {found}")
    file = _ArrayFile(path, found, first)
    values = file.array(key, "key", "where the responses are")
    if dims is None:
        raise InputError(
            f"{path}: say dims=..., the name of each axis of its {' × '.join(map(str, values.shape))} values in their "
            "order, such as ['stimulus', 'repetition', 'neuron']"
        )
    named = listed(dims)
    known = ("stimulus", "repetition", "trial", "neuron", "time")
    wrong = [dim for dim in named if dim not in known or named.count(dim) > 1]
    if wrong or ("trial" in named) == ("stimulus" in named) or {"trial", "repetition"} <= set(named):
        raise InputError(
            f"{path}: dims are {named}; they are distinct names of {', '.join(known)}, with either stimulus or trial, "
            "and trial stands for stimulus and repetition"
        )
    values = fit_dims(values, len(named), f"{path}, {key}" if key else str(path))
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: {key or 'its array'} holds {values.dtype}, and responses are real numbers")
    values = values.astype(np.float64)
    if missing is not None:
        values[values == missing] = np.nan
    if "neuron" not in named:
        values, named = values[..., None], [*named, "neuron"]
    array = xr.DataArray(values, dims=named, name="responses")
    rows = "trial" if "trial" in named else "stimulus"
    shown = id_texts(file.column(stimulus, array.sizes[rows], "stimulus", rows, "the ids of its stimuli"))
    names = file.column(neuron, array.sizes["neuron"], "neuron", "neuron") if neuron is not None else None
    times = None
    if time is not None:
        if "time" not in named:
            raise InputError(
                f"{path}: time=... gives the centres of bins, and dims={named} has no 'time'; leave it out"
            )
        times = file.column(time, array.sizes["time"], "time", "time").astype(np.float64)
    columns = {
        name: file.column(where, array.sizes[rows], f"label {name!r}", rows) for name, where in (labels or {}).items()
    }
    along: dict[str, Any] = {
        name: ("neuron", file.column(where, array.sizes["neuron"], f"neuron label {name!r}", "neuron"))
        for name, where in (neuron_labels or {}).items()
    }
    neurons = [str(j) for j in range(array.sizes["neuron"])] if names is None else id_texts(names).tolist()
    if rows == "trial":
        ordered = array.transpose("trial", "neuron", ...).values
        labelled = label_columns(columns, shown, str(path))
        return from_trials(ordered, shown, neurons=neurons, times=times, labels=labelled).assign_coords(along)
    coords: dict[str, Any] = {"stimulus": shown, "neuron": neurons}
    coords |= {name: ("stimulus", column) for name, column in columns.items()} | along
    if times is not None:
        coords["time"] = ("time", times, {"units": "ms", "long_name": "time"})
    return validate_responses(array.assign_coords(coords))


class _ArrayFile:
    """A file of arrays: each is read by its name, and what is asked for in vain is answered with what there is."""

    def __init__(self, path: Path, loader: Any, first: int) -> None:
        self.path, self.loader, self.first = path, loader, first

    def array(self, key: str | None, option: str, what: str) -> npt.NDArray[Any]:
        """An array of the file."""
        held = contents(self.path, self.loader)
        if self.loader == "npy":
            if key is not None:
                raise InputError(f"{self.path} holds one array, without a name; leave {option}={key!r} out")
            return read_array(self.path, "npy")
        if key is None and len(held) == 1:
            key = next(iter(held))
        if key is None:
            listed = "; ".join(f"{name} ({shape})" for name, shape in held.items()) or "nothing"
            raise InputError(f"{self.path}: say {option}=..., {what}. The file holds: {listed}")
        return read_array(self.path, self.loader, key)

    def column(self, where: Any, size: int, option: str, dim: str, what: str = "") -> npt.NDArray[Any]:
        """Values along a dim: given, numbered by a format, or read from the file."""
        if where is None:
            held = "; ".join(f"{name} ({shape})" for name, shape in contents(self.path, self.loader).items() if name)
            raise InputError(
                f"{self.path}: say {option}=..., {what}: a list, a format such as 'image{{:04d}}' that numbers the "
                f"{size} rows" + (f", or where the file holds them. The file holds: {held}" if held else "")
            )
        if isinstance(where, str) and "{" in where:
            values = np.array([where.format(self.first + i) for i in range(size)])
        elif isinstance(where, str):
            if self.loader == "npy":
                raise InputError(f"{self.path} holds one array and no {where!r}; give {option} as a list or a format")
            values = np.ravel(read_array(self.path, self.loader, where))
        else:
            values = np.asarray(where)
        if values.shape != (size,):
            raise InputError(
                f"{self.path}: {option} has {values.size} values and there are {size} along {dim!r}; give one for each"
            )
        return values


def _described(path: Path) -> tuple[Path, Kind, dict[str, Any]]:
    """File, format and options that a YAML file names."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {error}") from error
    if isinstance(values, dict) and "stimuli" in values:
        raise InputError(f"{path} describes a whole data set; name a recording in it as {path}:VARIABLE")
    if not isinstance(values, dict) or not isinstance(values.get("file"), str):
        raise InputError(f"{path} names no recording; it needs the line `file: NAME`, and the options of its format")
    options = {str(name): value for name, value in values.items() if name not in ("file", "kind")}
    file = path.parent / values["file"]
    kind = values["kind"] if "kind" in values else kind_of(file)
    if kind == "yaml":
        raise InputError(f"{path} names {values['file']!r}, which only describes another file; name that one")
    return file, kind, options


_READERS: dict[str, Callable[..., xr.DataArray]] = {
    "nwb": read_nwb,
    "netcdf": read_assembly,
    "mat": read_array_of_responses,
    "hdf5": read_array_of_responses,
    "npy": read_array_of_responses,
    "npz": read_array_of_responses,
    "csv": read_table_of_responses,
    "rasters": read_rasters,
}
