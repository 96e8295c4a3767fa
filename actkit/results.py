"""What every result keeps (its question, in ``attrs``), and how results are hashed, saved, loaded and tabulated."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from actkit.options import Options


def describe(
    dataset: xr.Dataset, analysis: str, options: Options, inputs: Mapping[str, str], **more: Any
) -> xr.Dataset:
    """Write a result's question into its attributes.

    Parameters
    ----------
    dataset : xarray.Dataset
        The result.
    analysis : str
        Name of the analysis, which is also the entry point that plots it.
    options : Options
        The options it ran with.
    inputs : mapping of str to str
        Name of each input and its fingerprint.
    **more
        Further attributes (strings, numbers, lists of them; booleans are stored as 0 or 1).

    Returns
    -------
    xarray.Dataset
        The same data with ``analysis``, ``options`` (JSON), ``inputs`` (JSON), ``actkit_version`` and the rest.
    """
    from actkit import __version__

    attrs = {
        "analysis": analysis,
        "options": options.model_dump_json(),
        "inputs": json.dumps(dict(inputs), sort_keys=True),
        "actkit_version": __version__,
        **{name: _attribute(value) for name, value in more.items() if value is not None},
    }
    return dataset.assign_attrs(attrs)


def _attribute(value: Any) -> Any:
    """Bring a value into a form that netCDF attributes can hold."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, tuple | set):
        return list(value)
    return value


def fingerprint(value: Any) -> str:
    """Hash a value by content, the same on every machine and in every session.

    Parameters
    ----------
    value : str, bytes, number, None, array, xarray object, mapping or sequence
        What to hash. Arrays count with dtype, shape and bytes; xarray objects with names, dims, coordinates
        and values, not with attributes; mappings regardless of order.

    Returns
    -------
    str
        sha256 in hexadecimal.

    Raises
    ------
    InputError
        If the type has no content hash.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Add one value to a running hash, each with its kind and length so that neighbours cannot run together."""
    import xarray as xr

    if value is None or isinstance(value, bool | int | float | str | bytes | np.generic):
        item = value.item() if isinstance(value, np.generic) else value
        data = item if isinstance(item, bytes) else repr(item).encode()
        digest.update(f"{type(item).__name__}:{len(data)}:".encode() + data)
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "OUT":
            digest.update(f"strings:{value.shape}:".encode())
            for item in value.ravel():
                _feed(digest, item if item is None else str(item))
        else:
            digest.update(f"array:{value.dtype.str}:{value.shape}:".encode())
            digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, xr.DataArray):
        digest.update(f"dataarray:{value.dims}:".encode())
        _feed(digest, np.asarray(value.values))
        for name in sorted(map(str, value.coords)):
            _feed(digest, name)
            _feed(digest, np.asarray(value.coords[name].values))
    elif isinstance(value, xr.Dataset):
        digest.update(b"dataset:")
        for name in sorted(map(str, value.variables)):
            _feed(digest, name)
            digest.update(str(value.variables[name].dims).encode())
            _feed(digest, np.asarray(value.variables[name].values))
    elif isinstance(value, Mapping):
        digest.update(f"mapping:{len(value)}:".encode())
        for key in sorted(value, key=str):
            _feed(digest, str(key))
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"sequence:{len(value)}:".encode())
        for item in value:
            _feed(digest, item)
    else:
        raise InputError(f"a {type(value).__name__} has no fingerprint; give arrays, xarray objects or plain values")


def atomic_write(path: str | Path, content: str | bytes) -> Path:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Parameters
    ----------
    path : path
        The file; its folder is made if needed.
    content : str or bytes
        The content; text is written as UTF-8.

    Returns
    -------
    Path
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    # Not mkstemp: its files are private whatever the umask, and a result should be as readable as any other file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def save(dataset: xr.Dataset, path: str | Path) -> Path:
    """Save a result as netCDF-4, which xarray, MATLAB, R and Julia read.

    Parameters
    ----------
    dataset : xarray.Dataset
        The result.
    path : path
        The file, usually ``*.nc``.

    Returns
    -------
    Path
        The path. The file is replaced atomically.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        dataset.to_netcdf(temporary, engine="h5netcdf")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def load(path: str | Path) -> xr.Dataset:
    """Load a saved result into memory.

    Parameters
    ----------
    path : path
        A file written by `save`.

    Returns
    -------
    xarray.Dataset
        The result, with its question in ``attrs``.

    Raises
    ------
    InputError
        If there is no such file, or it is not netCDF.
    """
    import xarray as xr

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no result file at {path}")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            return opened.load()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a netCDF result: {error}") from error


# Dims along which a table would repeat all its other rows; `to_table(over=…)` asks for one of them.
_APART = ("draw", "pair", "other_model", "shown", "decoded", "permutation", "rotation")


def to_table(dataset: xr.Dataset, over: str | None = None) -> pd.DataFrame:
    """Lay a result out as one tidy table, a row for each combination of its dimensions.

    Variables of fewer dimensions repeat. Variables over ``draw``, ``pair`` or ``other_model`` are left out, since they
    would multiply the rows; `over` gives them a table of their own.

    Parameters
    ----------
    dataset : xarray.Dataset
        A result.
    over : str, optional
        Take only the variables along this dim: ``to_table(result, over="other_model")`` holds the tests between every
        two models of an RSA.

    Returns
    -------
    pandas.DataFrame
        Coordinates first, then variables.

    Raises
    ------
    InputError
        If the result has no variable along `over`.
    """
    if over is not None:
        names = [name for name in dataset.data_vars if over in dataset[name].dims]
        if not names:
            raise InputError(
                f"the result has no variable along {over!r}; its dims are {', '.join(map(str, dataset.dims))}"
            )
        dataset = dataset[names]
    elif any(dim not in _APART for dim in dataset.dims):
        dataset = dataset.drop_dims([dim for dim in _APART if dim in dataset.dims])
    table = dataset.to_dataframe() if dataset.dims else dataset.expand_dims("row").to_dataframe()
    table = table.reset_index()
    coordinates = [str(name) for name in dataset.coords if str(name) in table.columns]
    rest = [name for name in table.columns if name not in coordinates and name != "row"]
    return table[[*coordinates, *rest]]
