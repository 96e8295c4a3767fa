"""MATLAB files, old (v5, through scipy) and new (v7.3, which is HDF5): one path syntax for both.

``"struct.field"`` names a field; on a struct array the field is collected over all its elements, whose shape comes
first: a 1 x 16 struct array with a 92 x 92 field gives (1, 16, 92, 92). Cell arrays are collected in the same way. Text
comes back as `str`. Nothing is executed: function handles and objects are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from actkit.errors import DataError, nearest

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5 (a v7.3 MATLAB file has its signature after a block of 512 bytes).

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool
        By signature, at byte 0 or 512.
    """
    with open(path, "rb") as file:
        head = file.read(520)
    return head[:8] == _HDF5_SIGNATURE or head[512:520] == _HDF5_SIGNATURE


def read_mat(path: Path, key: str) -> np.ndarray:
    """Read one variable, or one field of its structs, from a MATLAB file.

    Parameters
    ----------
    path : Path
        The file, v5 to v7.3.
    key : str
        Variable name, then field names, joined by dots.

    Returns
    -------
    numpy.ndarray
        Numbers or text in MATLAB's shape, the shape of struct and cell arrays first.

    Raises
    ------
    DataError
        If the file cannot be read, the key does not exist (nearest names are offered), or the elements collected
        differ in shape.
    """
    if is_hdf5(path):
        return _read_new(path, key)
    import scipy.io

    name, *fields = key.split(".")
    try:
        contents = scipy.io.loadmat(path, struct_as_record=True, squeeze_me=False, variable_names=[name])
        known = [entry[0] for entry in scipy.io.whosmat(path)] if name not in contents else []
    except Exception as error:  # scipy raises whatever the damaged bytes lead to
        raise DataError(f"{path} cannot be read as a MATLAB file: {error}") from error
    if name not in contents:
        raise DataError(f"{path} has no variable {name!r}; {nearest(name, known)}")
    value = contents[name]
    for field in fields:
        value = _field(value, field, path, key)
    return _collect(value, path, key)


def _field(value: Any, field: str, path: Path, key: str) -> np.ndarray:
    """A field of every element of a struct array; a cell array of structs counts as one struct array."""
    if isinstance(value, np.ndarray) and value.dtype == object and value.size:
        inner = [_field(element, field, path, key) for element in value.ravel()]
        made = np.empty(len(inner), dtype=object)
        made[:] = inner
        return made.reshape(value.shape)
    known = value.dtype.names if isinstance(value, np.ndarray) else None
    if not known:
        raise DataError(f"{path}: {key!r} asks for the field {field!r} of something that is no struct")
    if field not in known:
        raise DataError(f"{path}: {key!r}: the struct has no field {field!r}; {nearest(field, known)}")
    return value[field]


def _collect(value: Any, path: Path, key: str) -> np.ndarray:
    """Nested struct and cell arrays as one array of numbers or text."""
    if not isinstance(value, np.ndarray):
        raise DataError(f"{path}: {key!r} is a {type(value).__name__}, which holds no numbers or text")
    if value.dtype.names:
        raise DataError(f"{path}: {key!r} is a struct; add the field to the key: {', '.join(value.dtype.names)}")
    if value.dtype.kind in "US":
        texts = np.char.rstrip(value.astype(np.str_))
        return texts.reshape(()) if value.size == 1 else texts
    if value.dtype != object:
        return value
    parts = [_collect(element, path, key) for element in value.ravel()]
    if parts and all(part.dtype.kind in "US" for part in parts):
        parts = [part if part.size else np.array("") for part in parts]
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        shown = ", ".join(str(shape) for shape in sorted(shapes)[:4])
        raise DataError(f"{path}: the elements of {key!r} differ in shape ({shown}) and cannot be one array")
    return np.array(parts).reshape(value.shape + (parts[0].shape if parts else ()))


def _read_new(path: Path, key: str) -> np.ndarray:
    """Read from a v7.3 file: structs are groups, struct and cell arrays are arrays of references."""
    import h5py

    name, *fields = key.split(".")
    try:
        with h5py.File(path, "r") as file:
            known = [entry for entry in file if entry != "#refs#"]
            if name not in known:
                raise DataError(f"{path} has no variable {name!r}; {nearest(name, known)}")
            return _resolve(file, file[name], fields, path, key)
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as a MATLAB v7.3 file: {error}") from error


def _resolve(file: Any, node: Any, fields: list[str], path: Path, key: str) -> np.ndarray:
    """Follow fields and references down to numbers or text."""
    import h5py

    if isinstance(node, h5py.Group):
        if not fields:
            raise DataError(f"{path}: {key!r} is a struct; add the field to the key: {', '.join(node)}")
        if fields[0] not in node:
            raise DataError(f"{path}: {key!r}: the struct has no field {fields[0]!r}; {nearest(fields[0], node)}")
        return _resolve(file, node[fields[0]], fields[1:], path, key)
    if node.dtype == h5py.ref_dtype:
        references = np.asarray(node[()]).T  # MATLAB writes its arrays column by column
        parts = [_resolve(file, file[reference], fields, path, key) for reference in references.ravel()]
        collected = np.empty(len(parts), dtype=object)
        collected[:] = parts
        return _collect(collected.reshape(references.shape), path, key)
    if fields:
        raise DataError(f"{path}: {key!r} asks for the field {fields[0]!r} of something that is no struct")
    kind = node.attrs.get("MATLAB_class", b"")
    if node.attrs.get("MATLAB_empty", 0):
        shape = tuple(int(size) for size in node[()])
        return np.array("") if kind == b"char" else np.zeros(shape)
    values = np.asarray(node[()]).T
    if kind == b"char":
        rows = ["".join(chr(code) for code in row).rstrip() for row in np.atleast_2d(values)]
        return np.array(rows[0]) if len(rows) == 1 else np.array(rows)
    if kind == b"function_handle" or values.dtype.names:
        raise DataError(f"{path}: {key!r} is of a MATLAB class that holds no plain numbers or text")
    return values.astype(bool) if kind == b"logical" else values
