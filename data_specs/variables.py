"""From a variable's spec to an xarray object: read, name the dims, transform, align with the stimuli, describe."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.array_files import fit_dims, loader_for, read_array, read_table
from actkit.data_specs.schema import CoordinateSpec, SourceSpec, Spec, Transform, VariableSpec
from actkit.errors import DataError, InputError, nearest

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Named:
    """Values with dims and coordinates; unlike xarray, two dims may both be ``stimulus`` (an RDM as a matrix)."""

    values: np.ndarray
    dims: tuple[str, ...]
    coords: Mapping[str, tuple[str, np.ndarray]]

    def axis(self, dim: str, what: str) -> int:
        """The axis of a dim, which must be there once."""
        if self.dims.count(dim) != 1:
            raise DataError(f"{what}: {dim!r} is {'there twice' if dim in self.dims else 'no dim'} of {self.dims}")
        return self.dims.index(dim)


def read_variable(name: str, spec: Spec, folder: Path, stimulus_ids: np.ndarray) -> xr.DataArray | xr.Dataset:
    """Read one variable of a data set.

    Parameters
    ----------
    name : str
        The variable's name in the spec.
    spec : Spec
        The data set's spec.
    folder : Path
        Where its files lie.
    stimulus_ids : numpy.ndarray of str, shape (n,)
        The ids of the stimuli, in order; the variable comes out in this order.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        An RDM dataset (see `actkit.recordings`) for the kind ``rdm``, else an array with the dims of the spec.
        ``attrs`` say data set, kind, units of measure, citation and licence.

    Raises
    ------
    DataError
        If the file lacks what the spec names, or shapes, names or stimuli do not fit.
    """
    variable = spec.variables[name]
    what = f"{spec.name}, variable {name!r}"
    source = variable.source
    assert source.file is not None  # drawn variables never come here
    file = spec.files[source.file]
    recording = None
    if source.read is not None:
        recording = _recording(folder / file.path, source.read, what)
        named = _named(recording)
    elif ((loader := loader_for(file.path, source.loader)) == "netcdf" and source.key is None) or source.region:
        named = _named(_assembly(folder / file.path, source))
    elif source.index is not None:
        named = _from_tidy(folder / file.path, source, what)
    else:
        named = _from_array(folder / file.path, variable, loader, what, stimulus_ids)
    for coordinate, coord in variable.coords.items():
        named = _with_coord(named, coordinate, coord, spec, source, folder, what)
    leading = variable.dims[0]
    names = None if variable.names is None else np.array(variable.names)
    before = leading in named.dims  # a dim that stacking makes gets its names afterwards
    if names is not None and before:
        named = _named_along(named, leading, names, what)
    for step in source.transforms:
        named = _TRANSFORMS[step.word](named, step, what)
    if names is not None and not before:
        named = _named_along(named, leading, names, what)
    attrs = {
        "data_set": spec.name,
        "variable": name,
        "kind": variable.kind,
        "long_name": variable.description,
        "units": variable.units,
        "licence": spec.licence,
        "citation": variable.citation or "; ".join(spec.citation),
        "file_sha256": file.sha256,
        **({"note": variable.note} if variable.note else {}),
        **variable.attrs,
    }
    if variable.kind == "rdm":
        return _as_rdms(named, variable, name, stimulus_ids, attrs, what)
    if recording is None:
        return _as_array(named, variable, name, stimulus_ids, attrs, what)
    said = {key: value for key, value in recording.attrs.items() if key not in ("units", "long_name")}
    array = _as_array(named, variable, name, stimulus_ids, said | attrs, what)
    if "time" in array.coords:
        array["time"].attrs.update({"units": "ms", "long_name": "time"})
    return array


def _from_array(path: Path, variable: VariableSpec, loader: Any, what: str, stimulus_ids: np.ndarray) -> Named:
    """Values from one array of a file, or from several put side by side along a new first dim."""
    source = variable.source
    dims = tuple(source.dims or variable.dims)
    keys: list[str | None] = [*source.key] if source.key else [None]
    if len(keys) == 1:
        values = fit_dims(read_array(path, loader, keys[0]), len(dims), what)
    else:
        parts = [fit_dims(read_array(path, loader, key), len(dims) - 1, f"{what}, {key}") for key in keys]
        if len({part.shape for part in parts}) > 1:
            raise DataError(f"{what}: the arrays of {', '.join(map(str, keys))} differ in shape")
        values = np.stack(parts)
    coords: dict[str, tuple[str, np.ndarray]] = {}
    if "stimulus" in dims:
        ids = stimulus_ids
        if source.stimulus_key is not None:
            ids = np.ravel(read_array(path, loader, source.stimulus_key)).astype(np.str_)
        coords["stimulus"] = ("stimulus", ids)
        if len(ids) != values.shape[dims.index("stimulus")]:
            raise DataError(
                f"{what}: the file has {values.shape[dims.index('stimulus')]} stimuli and there are {len(ids)} ids; "
                "name the ids in the file with stimulus_key if they are a subset"
            )
    return Named(values, dims, coords)


def _from_tidy(path: Path, source: SourceSpec, what: str) -> Named:
    """Values from a table with one row a value and a column for each dim."""
    index = dict(source.index or {})
    frame = read_table(path, text=list(index.values()))
    columns = [str(column) for column in frame.columns]
    along = {dim: coords for dim, coords in source.columns.items() if dim in index}
    if len(along) < len(source.columns):
        raise DataError(f"{what}: columns go along the dims of index: {', '.join(index)}")
    for column in (
        *index.values(),
        *(source.key or []),
        *(column for coords in along.values() for column in coords.values()),
    ):
        if column not in columns:
            raise DataError(f"{what}: {path} has no column {column!r}; {nearest(column, columns)}")
    if not source.key or len(source.key) != 1:
        raise DataError(f"{what}: a tidy table needs one key, the column of values")
    levels: list[np.ndarray] = []
    places: list[np.ndarray] = []
    dims = {column: dim for dim, column in index.items()}
    for column in index.values():
        texts = frame[column].astype(str).to_numpy().astype(np.str_)
        if dims[column] in source.pattern:
            texts = np.array([_matched(source.pattern[dims[column]], text, f"{what}, {column!r}") for text in texts])
        seen: dict[str, int] = {}
        places.append(np.array([seen.setdefault(text, len(seen)) for text in texts.tolist()], dtype=np.int64))
        levels.append(np.array(list(seen), dtype=np.str_))
    coords = {str(dim): (str(dim), level) for dim, level in zip(index, levels, strict=True)}
    for place, (dim, level) in zip(places, zip(index, levels, strict=True), strict=True):
        for name, column in along.get(dim, {}).items():
            coords[name] = (str(dim), _one_for_each(frame[column].to_numpy(), place, level, f"{what}, {column!r}"))
    if source.number is not None:
        repetition = frame.groupby(list(index.values()), sort=False, dropna=False).cumcount().to_numpy(np.int64)
        index[source.number] = ""
        places.append(repetition)
        levels.append(np.arange(repetition.max(initial=-1) + 1))
    shape = tuple(len(level) for level in levels)
    flat = np.ravel_multi_index(tuple(places), shape)
    if len(np.unique(flat)) < len(flat):
        raise DataError(
            f"{what}: {len(flat) - len(np.unique(flat))} rows of {path} repeat a combination of "
            f"{', '.join(index.values())}; add the column that tells them apart (a repetition) to index"
        )
    column_values = frame[source.key[0]].to_numpy()
    if column_values.dtype.kind in "biuf":
        values = np.full(int(np.prod(shape)), np.nan)
        values[flat] = column_values
    else:
        values = np.full(int(np.prod(shape)), "", dtype=object)
        values[flat] = column_values
        values = np.array([item if isinstance(item, str) else "" for item in values], dtype=np.str_)
    return Named(values.reshape(shape), tuple(index), coords)


def _one_for_each(column: np.ndarray, place: np.ndarray, level: np.ndarray, what: str) -> np.ndarray:
    """The value that a column has in all rows of each entry along a dim."""
    first = np.unique(place, return_index=True)[1]
    values = column[first]
    differ = np.flatnonzero(column != values[place])
    if len(differ):
        raise DataError(
            f"{what}: it has several values for {str(level[place[differ[0]]])!r}, so it does not go along it"
        )
    return values.astype(np.str_) if values.dtype == object else values


def _assembly(path: Path, source: SourceSpec) -> xr.DataArray:
    """A netCDF assembly."""
    from actkit.recordings_assemblies import read_assembly

    return read_assembly(path, source.key[0] if source.key else None, source.stimulus_key, source.region)


def _recording(path: Path, options: Mapping[str, Any], what: str) -> xr.DataArray:
    """A recording of neurons in a file of any format."""
    from actkit.recordings_files import read_recording

    try:
        return read_recording(path, **options)
    except InputError as error:  # the options are the spec's
        raise DataError(f"{what}: {error}") from error


def _named(array: xr.DataArray) -> Named:
    """Values, dims and the coordinates along one dim."""
    coords = {str(name): (str(coord.dims[0]), coord.values) for name, coord in array.coords.items() if coord.ndim == 1}
    return Named(array.values, tuple(str(dim) for dim in array.dims), coords)


def _with_coord(
    named: Named, name: str, coord: CoordinateSpec, spec: Spec, source: SourceSpec, folder: Path, what: str
) -> Named:
    """Add a coordinate that the spec declares."""
    size = named.values.shape[named.axis(coord.dim, what)]
    if coord.values is not None:
        values = np.array(coord.values)
    elif coord.format is not None:
        values = np.array([coord.format.format(i) for i in range(size)])
    else:
        file = spec.files[coord.file or source.file or ""]
        values = np.ravel(read_array(folder / file.path, loader_for(file.path, coord.loader), coord.key))
    if coord.pattern is not None:
        values = np.array(
            [_matched(coord.pattern, text, f"{what}, coordinate {name!r}") for text in values.astype(str)]
        )
    if coord.map is not None:
        texts = values.astype(str).tolist()
        lacking = sorted(set(texts) - set(coord.map))
        if lacking:
            raise DataError(f"{what}: the map of the coordinate {name!r} lacks {lacking[0]!r}")
        values = np.array([coord.map[text] for text in texts])
    if len(values) != size:
        raise DataError(f"{what}: the coordinate {name!r} has {len(values)} values for {size} along {coord.dim!r}")
    return replace(named, coords={**named.coords, name: (coord.dim, values)})


def _matched(pattern: str, text: str, what: str) -> str:
    """The first group of a pattern in a text, or the whole match."""
    found = re.search(pattern, text)
    if found is None:
        raise DataError(f"{what}: {text!r} does not match the pattern {pattern!r}")
    return found.group(1) if found.groups() else found.group(0)


def _named_along(named: Named, dim: str, names: np.ndarray, what: str) -> Named:
    """Give a dim its names."""
    size = named.values.shape[named.axis(dim, what)]
    if len(names) != size:
        raise DataError(f"{what}: {len(names)} names for {size} along {dim!r}")
    return replace(named, coords={**named.coords, dim: (dim, names)})


def _take(named: Named, dim: str, positions: np.ndarray) -> Named:
    """Positions along a dim, along both axes where there are two."""
    values = named.values
    for axis, own in enumerate(named.dims):
        if own == dim:
            values = np.take(values, positions, axis=axis)
    coords = {
        name: (along, column[positions] if along == dim else column) for name, (along, column) in named.coords.items()
    }
    return Named(values, named.dims, coords)


def _names_of(named: Named, dim: str, what: str) -> list[str]:
    """The names along a dim."""
    if dim not in named.dims:
        raise DataError(f"{what}: {dim!r} is no dim of {named.dims}")
    if dim not in named.coords:
        raise DataError(f"{what}: {dim!r} has no names to go by; give them under coords or names")
    return [str(value) for value in named.coords[dim][1]]


def _select(named: Named, step: Transform, what: str) -> Named:
    for dim, wanted in (step.select or {}).items():
        if dim not in named.dims:
            raise DataError(f"{what}: select: {dim!r} is no dim of {named.dims}")
        size = named.values.shape[named.dims.index(dim)]
        positions = []
        for item in wanted:
            if isinstance(item, str):
                names = _names_of(named, dim, what)
                if item not in names:
                    raise DataError(f"{what}: select: {dim!r} has no {item!r}; {nearest(item, names)}")
                positions.append(names.index(item))
            elif -size <= item < size:
                positions.append(item % size)
            else:
                raise DataError(f"{what}: select: {dim!r} has {size} entries, there is no position {item}")
        named = _take(named, dim, np.array(positions, dtype=np.int64))
    return named


def _drop(named: Named, step: Transform, what: str) -> Named:
    for dim, unwanted in (step.drop or {}).items():
        names = _names_of(named, dim, what)
        for item in unwanted:
            if item not in names:
                raise DataError(f"{what}: drop: {dim!r} has no {item!r}; {nearest(item, names)}")
        kept = [i for i, name in enumerate(names) if name not in unwanted]
        named = _take(named, dim, np.array(kept, dtype=np.int64))
    return named


def _rename(named: Named, step: Transform, what: str) -> Named:
    for dim, new in (step.rename or {}).items():
        names = _names_of(named, dim, what)
        for old in new:
            if old not in names:
                raise DataError(f"{what}: rename: {dim!r} has no {old!r}; {nearest(old, names)}")
        renamed = np.array([new.get(name, name) for name in names])
        named = replace(named, coords={**named.coords, dim: (dim, renamed)})
    return named


def _average(named: Named, step: Transform, what: str) -> Named:
    for dim in step.average or []:
        axis = named.axis(dim, what)
        there = ~np.isnan(named.values)
        counts = there.sum(axis=axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(there, named.values, 0).sum(axis=axis, dtype=np.float64) / counts
        dims = tuple(own for i, own in enumerate(named.dims) if i != axis)
        named = Named(values, dims, {name: pair for name, pair in named.coords.items() if pair[0] != dim})
    return named


def _stack(named: Named, step: Transform, what: str) -> Named:
    for new, old in (step.stack or {}).items():
        axes = [named.axis(dim, what) for dim in old]
        others = [axis for axis in range(named.values.ndim) if axis not in axes]
        sizes = [named.values.shape[axis] for axis in axes]
        values = named.values.transpose(*axes, *others).reshape(-1, *(named.values.shape[axis] for axis in others))
        places = np.indices(sizes).reshape(len(sizes), -1)
        coords: dict[str, tuple[str, np.ndarray]] = {}
        for name, (dim, column) in named.coords.items():
            if dim in old:
                coords[name] = (new, column[places[old.index(dim)]])  # type: ignore[arg-type]
            else:
                coords[name] = (dim, column)
        named = Named(values, (new, *(named.dims[axis] for axis in others)), coords)
    return named


def _transpose(named: Named, step: Transform, what: str) -> Named:
    order = step.transpose or []
    if sorted(order) != sorted(named.dims) or len(set(order)) < len(order):
        raise DataError(f"{what}: transpose: {order} is no order of the dims {named.dims}")
    return Named(named.values.transpose(*(named.dims.index(dim) for dim in order)), tuple(order), named.coords)


def _expand(named: Named, step: Transform, what: str) -> Named:
    for dim, name in (step.expand or {}).items():
        if dim in named.dims:
            raise DataError(f"{what}: expand: {dim!r} is already a dim of {named.dims}")
        coords = {**named.coords, dim: (dim, np.array([name]))}
        named = Named(named.values[..., None], (*named.dims, dim), coords)
    return named


def _one_minus(named: Named, step: Transform, what: str) -> Named:
    return replace(named, values=1.0 - named.values)


def _scale(named: Named, step: Transform, what: str) -> Named:
    return replace(named, values=named.values * float(step.scale or 0.0))


_TRANSFORMS: dict[str, Callable[[Named, Transform, str], Named]] = {
    "select": _select,
    "drop": _drop,
    "rename": _rename,
    "average": _average,
    "stack": _stack,
    "transpose": _transpose,
    "expand": _expand,
    "one_minus": _one_minus,
    "scale": _scale,
}


def _as_rdms(
    named: Named, variable: VariableSpec, name: str, stimulus_ids: np.ndarray, attrs: dict[str, Any], what: str
) -> xr.Dataset:
    """The RDM dataset of a variable, over the stimuli in their order."""
    from actkit.recordings import rdm_dataset, select_stimuli

    leading = variable.dims[0]
    shape = "stimulus" if named.dims.count("stimulus") == 2 else "pair"
    if named.dims not in ((leading, "pair"), (leading, "stimulus", "stimulus")):
        raise DataError(
            f"{what}: the transforms leave the dims {named.dims}; an RDM needs {leading} and then the pairs"
        )
    ids = named.coords["stimulus"][1] if shape == "stimulus" else stimulus_ids
    names = named.coords[leading][1] if leading in named.coords else np.arange(len(named.values)).astype(str)
    further = {
        key: (leading, column) for key, (dim, column) in named.coords.items() if dim == leading and key != leading
    }
    numbers = np.asarray(named.values)
    numbers = numbers if numbers.dtype == np.float32 else numbers.astype(np.float64)
    try:
        rdms = rdm_dataset(numbers, names, leading, ids, variable.measure or "", name, coords=further, **attrs)
        return select_stimuli(rdms, stimulus_ids)
    except InputError as error:
        raise DataError(f"{what} is not what its spec says: {error}") from error


def _as_array(
    named: Named, variable: VariableSpec, name: str, stimulus_ids: np.ndarray, attrs: dict[str, Any], what: str
) -> xr.DataArray:
    """The array of a variable, with its stimuli in their order."""
    import xarray as xr

    if sorted(named.dims) != sorted(variable.dims):
        raise DataError(f"{what}: reading and transforms leave the dims {named.dims}, the spec says {variable.dims}")
    array = xr.DataArray(named.values, dims=named.dims, coords=dict(named.coords), name=name, attrs=attrs)
    array = array.transpose(*variable.dims)
    if "stimulus" not in array.dims:
        return array
    own = {identifier: i for i, identifier in enumerate(array["stimulus"].values.astype(str).tolist())}
    missing = [identifier for identifier in stimulus_ids.tolist() if identifier not in own]
    if missing:
        raise DataError(
            f"{what} has no values for the stimulus {missing[0]!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + f"; {nearest(missing[0], own)}"
        )
    return array.isel(stimulus=[own[identifier] for identifier in stimulus_ids.tolist()])
