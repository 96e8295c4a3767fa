"""Files of arrays: a file and a path inside it become a plain array. Nothing is unpickled, nothing is executed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actkit.errors import DataError, nearest
from actkit.mat_files import is_hdf5, read_mat

if TYPE_CHECKING:
    import pandas as pd

Loader = Literal["mat", "npy", "npz", "hdf5", "netcdf", "csv"]

_SUFFIXES: dict[str, Loader] = {
    ".mat": "mat", ".npy": "npy", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5",
    ".nc": "netcdf", ".cdf": "netcdf", ".csv": "csv", ".tsv": "csv",
}  # fmt: skip


def loader_for(path: str | Path, loader: Loader | None = None) -> Loader:
    """Choose the loader of a file.

    Parameters
    ----------
    path : path
        The file's name.
    loader : str, optional
        What the caller says; it wins over the suffix.

    Returns
    -------
    str
        ``mat``, ``npy``, ``npz``, ``hdf5``, ``netcdf`` or ``csv``.

    Raises
    ------
    DataError
        If neither says how to read it.
    """
    if loader is not None:
        return loader
    suffix = PurePath(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(f"no loader is known for {str(path)!r} by its suffix; name one with the key `loader`")
    return _SUFFIXES[suffix]


def contents(path: str | Path, loader: Loader) -> dict[str, str]:
    """List what a file holds, by the names under which `read_array` finds it.

    Parameters
    ----------
    path : path
        The file.
    loader : {"mat", "npy", "npz", "hdf5", "netcdf", "csv"}
        How to read it.

    Returns
    -------
    dict of str to str
        Names, and the shape or dims of each in words. A ``.npy`` file has one array, of the name ``""``.

    Raises
    ------
    DataError
        If the file does not exist or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if loader == "mat" and not is_hdf5(path):
        import scipy.io

        try:
            return {name: _shape_words(shape) for name, shape, _ in scipy.io.whosmat(path)}
        except Exception as error:  # scipy raises whatever the damaged bytes lead to
            raise DataError(f"{path} cannot be read as a MATLAB file: {error}") from error
    if loader in ("mat", "hdf5"):
        return _hdf5_contents(path, reverse=loader == "mat")
    if loader == "npy":
        return {"": _shape_words(_read_npy(path).shape)}
    if loader == "npz":
        return {name: _shape_words(_read_npz(path, name).shape) for name in _npz_names(path)}
    if loader == "netcdf":
        from actkit.recordings_assemblies import open_netcdf

        dataset = open_netcdf(path)
        return {str(name): f"({', '.join(map(str, array.dims))})" for name, array in dataset.data_vars.items()}
    frame = read_table(path)
    return {str(name): "numbers" if frame[name].dtype.kind in "biuf" else "text" for name in frame.columns}


def _shape_words(shape: Sequence[int]) -> str:
    """A shape in words: numbers with crosses, as people write it."""
    return " × ".join(map(str, shape)) if shape else "a single value"


def _hdf5_contents(path: Path, reverse: bool) -> dict[str, str]:
    """Names and shapes of the datasets of an HDF5 file; those of MATLAB lie there with their axes reversed."""
    import h5py

    found: dict[str, str] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
            found[name.replace("/", ".") if reverse else name] = _shape_words(
                item.shape[::-1] if reverse else item.shape
            )

    try:
        with h5py.File(path, "r") as file:
            file.visititems(note)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as HDF5: {error}") from error
    return found


def read_array(path: str | Path, loader: Loader, key: str | None = None) -> np.ndarray:
    """Read an array of numbers or text.

    Parameters
    ----------
    path : path
        The file.
    loader : {"mat", "npy", "npz", "hdf5", "netcdf", "csv"}
        How to read it.
    key : str, optional
        Path inside the file: ``struct.field`` (mat), array name (npz; needed if there are several), ``group/dataset``
        (hdf5), variable or coordinate (netcdf), column (csv; without one, all columns of numbers as a matrix).

    Returns
    -------
    numpy.ndarray
        Numbers or text, as they lie in the file.

    Raises
    ------
    DataError
        If the file does not exist or is damaged, or the key does not exist (nearest keys are offered).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if loader == "mat":
        return read_mat(path, _needed(path, key, "variable name"))
    if loader == "npy":
        return _read_npy(path)
    if loader == "npz":
        return _read_npz(path, key)
    if loader == "hdf5":
        return _read_hdf5(path, _needed(path, key, "path group/dataset"))
    if loader == "netcdf":
        return _read_netcdf(path, key)
    return _read_csv(path, key)


def read_table(path: str | Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV or TSV table with a header row.

    Parameters
    ----------
    path : path
        The file; tabs separate the columns of ``.tsv``, commas all others.
    text : sequence of str
        Columns that are kept as the text they are: ``007`` stays ``007``, and ``NA`` is a name. Those that the table
        does not have are no error.

    Returns
    -------
    pandas.DataFrame
        One row a line.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    import pandas as pd

    path = Path(path)
    try:
        sep = "\t" if path.suffix.lower() == ".tsv" else ","
        frame = pd.read_csv(path, sep=sep)
        if text:
            plain = pd.read_csv(path, sep=sep, usecols=lambda name: name in text, dtype=str, na_filter=False)
            frame = frame.assign(**{str(name): plain[name] for name in plain.columns})
        return frame
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error


def fit_dims(values: np.ndarray, n_dims: int, what: str) -> np.ndarray:
    """Drop axes of length one until an array has as many dims as were named.

    Parameters
    ----------
    values : numpy.ndarray
        As read; MATLAB has no vectors, so it puts axes of length one in front.
    n_dims : int
        How many dims there should be.
    what : str
        What it is called in messages.

    Returns
    -------
    numpy.ndarray
        Of `n_dims` dims. Leading axes of length one go first.

    Raises
    ------
    DataError
        If it has too few dims, or too few axes of length one.
    """
    shape = values.shape
    single = [axis for axis, size in enumerate(shape) if size == 1]
    extra = values.ndim - n_dims
    if extra < 0 or extra > len(single):
        raise DataError(f"{what} has the shape {shape} in its file, which does not fit the {n_dims} dims named for it")
    return values.squeeze(axis=tuple(single[:extra]))


def _needed(path: Path, key: str | None, what: str) -> str:
    """The key, which this kind of file cannot do without."""
    if key is None:
        raise DataError(f"to read {path} a key must be given, the {what}")
    return key


def _read_npy(path: Path) -> np.ndarray:
    """One array from a .npy file."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(_numpy_trouble(path, error)) from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise DataError(f"{path} holds several arrays; read it with the loader npz and a key")
    return loaded


def _npz_names(path: Path) -> list[str]:
    """The names of the arrays in a .npz file."""
    import zipfile

    try:
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            raise DataError(f"{path} holds a single array; read it with the loader npy")
        with opened:
            return list(opened.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(_numpy_trouble(path, error)) from error


def _read_npz(path: Path, key: str | None) -> np.ndarray:
    """One array from a .npz file."""
    import zipfile

    try:
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            raise DataError(f"{path} holds a single array; read it with the loader npy")
        with opened:
            if key is None and len(opened.files) == 1:
                key = opened.files[0]
            if key is None or key not in opened.files:
                asked = "needs a key" if key is None else f"has no array {key!r}"
                raise DataError(f"{path} {asked}; {nearest(key or '', opened.files)}")
            return opened[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(_numpy_trouble(path, error)) from error


def _numpy_trouble(path: Path, error: Exception) -> str:
    """Why a numpy file cannot be read; pickled objects are refused, since unpickling runs code."""
    if "allow_pickle" in str(error):
        return (
            f"{path} holds pickled objects, which could run code when read: save it as plain arrays of numbers or text"
        )
    return f"{path} cannot be read as numpy arrays, it is damaged or of another kind: {error}"


def _read_hdf5(path: Path, key: str) -> np.ndarray:
    """One dataset from an HDF5 file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            node = file.get(key)
            if not isinstance(node, h5py.Dataset):
                known: list[str] = []
                file.visititems(lambda name, item: known.append(name) if isinstance(item, h5py.Dataset) else None)
                raise DataError(f"{path} has no dataset {key!r}; {nearest(key, known)}")
            if h5py.check_string_dtype(node.dtype) is not None:
                return np.asarray(node.asstr()[()], dtype=np.str_)
            return np.asarray(node[()])
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as HDF5: {error}") from error


def _read_netcdf(path: Path, key: str | None) -> np.ndarray:
    """One variable or coordinate of a netCDF file."""
    from actkit.recordings_assemblies import open_netcdf

    dataset = open_netcdf(path)
    if key is None and len(dataset.data_vars) == 1:
        key = str(next(iter(dataset.data_vars)))
    if key is None or key not in dataset.variables:
        asked = "needs a key" if key is None else f"has no variable {key!r}"
        raise DataError(f"{path} {asked}; {nearest(key or '', [str(name) for name in dataset.variables])}")
    return _plain(dataset[key].values)


def _read_csv(path: Path, key: str | None) -> np.ndarray:
    """One column, or all columns of numbers, of a table."""
    frame = read_table(path)
    if key is None:
        numbers = frame.select_dtypes("number")
        if numbers.shape[1] == 0:
            raise DataError(f"{path} has no column of numbers; {nearest('', [str(c) for c in frame.columns])}")
        return numbers.to_numpy()
    if key not in frame.columns:
        raise DataError(f"{path} has no column {key!r}; {nearest(key, [str(column) for column in frame.columns])}")
    return _plain(frame[key].to_numpy())


def _plain(values: Any) -> np.ndarray:
    """Objects that are text as text."""
    values = np.asarray(values)
    if values.dtype == object:
        flat = [item.decode() if isinstance(item, bytes) else item for item in values.ravel()]
        if any(isinstance(item, str) for item in flat):
            return np.array([item if isinstance(item, str) else "" for item in flat], dtype=np.str_).reshape(
                values.shape
            )
    return values
