"""RDM datasets to and from ``rsatoolbox.rdm.RDMs`` without loss, RDM movies included.

rsatoolbox keeps a flat list of RDMs with columns of descriptors; an RDM for each subject and time bin is a row with a
``time`` descriptor. On the way out, what rsatoolbox has no place for (dims, units, further variables) goes into one
descriptor, ``actkit`` (JSON); on the way in, what an RDM dataset has no place for goes into one attribute,
``rsatoolbox`` (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from actkit.errors import InputError, nearest, require
from actkit.recordings_schema import LEADING_DIMS, VARIABLE, has_time, leading_dim, rdm_dataset, validate_rdms, words

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# Descriptors under which others keep what we call the names of subjects, in the order in which they are tried.
_NAMES = ("subject", "participant", "name")
_IDS = ("stimulus", "conds", "conditions", "index")


def to_rsatoolbox(rdms: xr.Dataset) -> RDMs:
    """Convert to ``rsatoolbox.rdm.RDMs`` without loss.

    Parameters
    ----------
    rdms : xarray.Dataset
        An RDM dataset. One with time bins becomes a movie: all bins of the first name, then of the next.

    Returns
    -------
    rsatoolbox.rdm.RDMs
        Names, times, coordinates and variables along the leading dim and time become ``rdm_descriptors``, those along
        ``stimulus`` become ``pattern_descriptors``, attributes become ``descriptors``; NaNs stay.

    Raises
    ------
    InputError
        If a coordinate or variable runs along other dims, which RDMs cannot carry.
    MissingExtraError
        If rsatoolbox is not installed.
    """
    require("rsatoolbox", "rsatoolbox", "conversion to rsatoolbox.rdm.RDMs")
    from rsatoolbox.rdm import RDMs

    dim = leading_dim(rdms, time=True)
    along = (dim, "time") if has_time(rdms) else (dim,)
    attrs = dict(rdms.attrs)
    measure = attrs.pop("measure", None)
    origin = json.loads(attrs.pop("rsatoolbox", "{}"))
    columns: dict[str, np.ndarray] = {}
    patterns: dict[str, np.ndarray] = {}
    noted: dict[str, Any] = {}
    for key, variable in rdms.variables.items():
        if key == VARIABLE or key in origin.get("made", ()):
            continue
        kind = "coordinate" if key in rdms.coords else "variable"
        note = {"dims": list(variable.dims), "kind": kind, "attrs": _coded_mapping(variable.attrs)}
        if variable.dims == ("stimulus",):
            patterns[_theirs(str(key), origin)] = _unpacked(str(key), variable.values, origin)
        elif variable.dims and set(variable.dims) <= set(along):
            flat = _spread(rdms, variable, along)
            columns[_theirs(str(key), origin)] = _unpacked(str(key), flat, origin)
        elif not variable.dims:
            note["value"] = _encoded(variable.values[()])
        else:
            raise InputError(
                f"{key!r} of RDMs {attrs.get('name', 'unnamed')!r} runs along {variable.dims}, and rsatoolbox has "
                f"columns along RDMs and along stimuli only; leave it out with .drop_vars({key!r})"
            )
        noted[str(key)] = note
    values = rdms[VARIABLE].values.reshape(-1, rdms.sizes["pair"]).copy()
    if origin:
        descriptors = {key: _decoded(value) for key, value in origin["descriptors"].items()}
        order = np.array(origin.get("order") or [], dtype=np.int64)
        if len(order) == len(values):
            values = values[order]
            columns = {key: column[order] for key, column in columns.items()}
        measure = None if origin.get("measure_none") else measure
    else:
        own = {"dim": dim, "noted": noted, "attrs": _coded_mapping(rdms[VARIABLE].attrs)}
        descriptors = {**attrs, "actkit": json.dumps(own)}
    return RDMs(
        values,
        dissimilarity_measure=measure,
        descriptors=descriptors,
        rdm_descriptors=columns,
        pattern_descriptors=patterns,
    )


def _spread(rdms: xr.Dataset, variable: xr.Variable, along: Sequence[str]) -> np.ndarray:
    """Repeat a column along the dims that it lacks: one value for each RDM of the flat list."""
    whole = variable.set_dims({dim: rdms.sizes[dim] for dim in along}).transpose(*along)
    return np.array(whole.values).reshape(-1)


def from_rsatoolbox(
    rdms: RDMs,
    dim: str | None = None,
    stimulus: str | None = None,
    names: str | None = None,
    name: str | None = None,
    time: str | Literal[False] | None = None,
) -> xr.Dataset:
    """Convert from ``rsatoolbox.rdm.RDMs`` without loss.

    Parameters
    ----------
    rdms : rsatoolbox.rdm.RDMs
        RDMs with descriptors.
    dim : {"layer", "subject", "model", "rdm"}, optional
        Leading dim. By default the one that :func:`to_rsatoolbox` noted, else ``"rdm"``.
    stimulus : str, optional
        Pattern descriptor that holds the ids. By default ``stimulus``, ``conds``, ``conditions`` or ``index``, the
        first that exists.
    names : str, optional
        RDM descriptor that holds the names. By default the one called like `dim`, else ``name`` (for movies also
        ``subject`` and ``participant``), where they are unique, else ``index``.
    name : str, optional
        Name of the dataset. By default the descriptor ``name``, else ``"rsatoolbox RDMs"``.
    time : str or False, optional
        RDM descriptor that holds the time bins of a movie. By default ``time``, where every name has the same times and
        each once. False keeps such a descriptor as an ordinary column.

    Returns
    -------
    xarray.Dataset
        An RDM dataset, with the dim ``time`` for a movie. Every descriptor is kept, so that :func:`to_rsatoolbox` gives
        back what came in.

    Raises
    ------
    InputError
        If a descriptor is named that does not exist, ids repeat (as in a bootstrap sample), or the named time bins do
        not form a grid with the names.
    """
    descriptors = dict(rdms.descriptors or {})
    if "actkit" in descriptors:
        return _from_ours(rdms, descriptors, name)
    return _Arrival(rdms, dim or "rdm", stimulus, names, name, time).dataset()


def _from_ours(rdms: RDMs, descriptors: dict[str, Any], name: str | None) -> xr.Dataset:
    """Restore what :func:`to_rsatoolbox` wrote, or what is left of it after a selection."""
    own = json.loads(str(descriptors.pop("actkit")))
    dim, noted = own["dim"], own["noted"]
    moving = "time" in noted and noted["time"]["dims"] == ["time"]
    columns = {key: np.asarray(column) for key, column in rdms.rdm_descriptors.items() if key in noted}
    grid = _grid(words(columns[dim]), columns["time"]) if moving else np.arange(rdms.n_rdm)[:, None]
    if grid is None:
        raise InputError(
            "these RDMs were a movie, and a selection left some names without some time bins; select whole bins or "
            "whole names, or take the descriptor 'actkit' away and convert with time=False"
        )
    values = np.asarray(rdms.dissimilarities)[grid]
    picked = {key: column[grid] for key, column in columns.items()}
    stimuli = rdms.pattern_descriptors
    result = rdm_dataset(
        values if moving else values[:, 0],
        picked[dim][:, 0],
        dim,
        stimuli["stimulus"],
        str(rdms.dissimilarity_measure),
        name or str(descriptors.get("name", "rsatoolbox RDMs")),
        time=picked["time"][0] if moving else None,
    )
    attrs = {**descriptors, "measure": rdms.dissimilarity_measure} if rdms.dissimilarity_measure else descriptors
    result.attrs = attrs if name is None else {**attrs, "name": name}
    result[VARIABLE].attrs = _decoded_mapping(own["attrs"])
    for key, note in noted.items():
        dims = tuple(note["dims"])
        if not dims:
            column = _decoded(note["value"])
        elif dims == ("stimulus",):
            column = np.asarray(stimuli[key])
        else:
            column = picked[key] if len(dims) == 2 else picked[key][0] if dims == ("time",) else picked[key][:, 0]
            column = column.T if dims == ("time", dim) else column
        made = (dims, column, _decoded_mapping(note["attrs"]))
        result = result.assign_coords({key: made}) if note["kind"] == "coordinate" else result.assign({key: made})
    return validate_rdms(result)


@dataclass
class _Arrival:
    """RDMs from elsewhere on their way into a dataset; collects what the way back will need."""

    rdms: Any
    dim: str
    stimulus: str | None
    names: str | None
    name: str | None
    time: str | Literal[False] | None
    renamed: dict[str, str] = field(default_factory=dict)
    packed: list[str] = field(default_factory=list)
    coords: dict[str, Any] = field(default_factory=dict)

    def dataset(self) -> xr.Dataset:
        """Convert."""
        theirs = self.rdms
        if self.dim not in LEADING_DIMS:
            raise InputError(f"RDMs cannot run along {self.dim!r}; {nearest(self.dim, LEADING_DIMS)}")
        time_key, names_key, grid = self._layout()
        ids_key = _descriptor(theirs.pattern_descriptors, self.stimulus, _IDS)
        moving = time_key is not None
        descriptors = dict(theirs.descriptors or {})
        title = self.name or str(descriptors.get("name", "rsatoolbox RDMs"))
        names = words(np.asarray(theirs.rdm_descriptors[names_key])[grid[:, 0]]) if names_key else [title]
        for key, column in theirs.rdm_descriptors.items():
            if key != time_key:
                self._take(str(key), column, names_key, grid)
        for key, column in theirs.pattern_descriptors.items():
            self._take(str(key), column, ids_key, None)
        made = [
            along
            for along, key, columns in (
                (self.dim, names_key, theirs.rdm_descriptors),
                ("stimulus", ids_key, theirs.pattern_descriptors),
            )
            if key != along or np.asarray(columns[key]).dtype.kind != "U"
        ]
        if time_key not in (None, "time"):
            self.renamed["time"] = str(time_key)
        flat = grid.ravel()
        origin = {
            "descriptors": _coded_mapping(descriptors),
            "made": made,
            "renamed": self.renamed,
            "packed": self.packed,
            "measure_none": theirs.dissimilarity_measure is None,
            "order": None if np.array_equal(flat, np.arange(len(flat))) else np.argsort(flat).tolist(),
        }
        values = np.asarray(theirs.dissimilarities)[grid]
        return rdm_dataset(
            values if moving else values[:, 0],
            names,
            self.dim,
            theirs.pattern_descriptors[ids_key],
            theirs.dissimilarity_measure or "unknown",
            title,
            coords=self.coords,
            time=np.asarray(theirs.rdm_descriptors[time_key])[grid[0]] if moving else None,
            rsatoolbox=json.dumps(origin),
        )

    def _layout(self) -> tuple[str | None, str | None, np.ndarray]:
        """Find time bins and names: their descriptors, and the row of the flat list for each (name, bin)."""
        columns = self.rdms.rdm_descriptors
        asked = _descriptor(columns, self.time, ("index",)) if isinstance(self.time, str) else None
        key = asked or ("time" if self.time is None and "time" in columns else None)
        if key is not None:
            times = np.asarray(columns[key])
            choices = [self.names] if self.names else [k for k in (self.dim, *_NAMES) if k in columns and k != key]
            for choice in choices:
                grid = _grid(words(columns[_descriptor(columns, choice, ())]), times)
                if grid is not None and (grid.shape[1] > 1 or asked):
                    return key, choice, grid
            # Without any names the rows may be the bins of one movie; beside names, times describe those.
            alone = _grid(np.zeros(len(times), dtype=str), times)
            if alone is not None and not choices and (alone.shape[1] > 1 or asked):
                return key, None, alone
            if asked:
                raise InputError(
                    f"the descriptor {asked!r} is no time axis of {', '.join(map(repr, choices)) or 'these RDMs'}: "
                    "times must be numbers, and every name needs each once; name the column of names with names=…"
                )
        unique = [k for k, column in columns.items() if len(set(map(str, column))) == len(column)]
        usual = [k for k in (self.dim, "name") if k in unique]
        return None, _descriptor(columns, self.names, (*usual, "index")), np.arange(self.rdms.n_rdm)[:, None]

    def _take(self, key: str, values: Any, key_used: str | None, grid: np.ndarray | None) -> None:
        """Make a coordinate of a descriptor, along RDMs (with their grid) or along stimuli."""
        home = self.dim if grid is not None else "stimulus"
        column = np.asarray(values) if _is_plain(values) else np.array([json.dumps(_encoded(v)) for v in values])
        if key == "index" and _is_plain(values) and np.array_equal(column, np.arange(len(column))):
            return  # rsatoolbox adds a counting index to everything by itself
        if key == key_used and key == home and column.dtype.kind == "U":
            return
        label = key
        while label in {self.dim, "stimulus", "pair", "time", VARIABLE} or label in self.coords:
            label += "_descriptor" if home == "stimulus" else f"_{home}"
        if label != key:
            self.renamed[label] = key
        if not _is_plain(values):
            self.packed.append(label)
        if grid is None:
            self.coords[label] = ("stimulus", column)
            return
        table = column[grid]
        if (table == table[:, :1]).all() or grid.shape[1] == 1:
            self.coords[label] = (self.dim, table[:, 0])
        elif (table == table[:1]).all():
            self.coords[label] = ("time", table[0])
        else:
            self.coords[label] = ((self.dim, "time"), table)


def _grid(names: np.ndarray, times: np.ndarray) -> np.ndarray | None:
    """The row of each (name, time): names as they come, times increasing. None unless each pair occurs once."""
    if times.dtype.kind not in "iuf" or not np.isfinite(times).all():
        return None
    order = list(dict.fromkeys(names.tolist()))
    bins = np.unique(times)
    if len(order) * len(bins) != len(times):
        return None
    grid = np.full((len(order), len(bins)), -1)
    row = np.array([order.index(value) for value in names.tolist()])
    grid[row, np.searchsorted(bins, times)] = np.arange(len(times))
    return None if (grid < 0).any() else grid


def _is_plain(values: Any) -> bool:
    """Tell whether a column is one flat array of numbers, flags or text: anything else is packed as JSON."""
    if isinstance(values, np.ndarray):
        return values.ndim == 1 and values.dtype.kind in "biufU"
    kinds = {type(value.item() if isinstance(value, np.generic) else value) for value in values}
    if kinds == {int}:
        return all(-(2**63) <= int(value) < 2**63 for value in values)  # larger ones would become floats or objects
    return len(kinds) == 1 and kinds <= {bool, float, str}


def _unpacked(key: str, column: np.ndarray, origin: Mapping[str, Any]) -> Any:
    """Give a packed column its values back."""
    if key not in origin.get("packed", ()):
        return column.copy()
    values = np.empty(len(column), dtype=object)
    values[:] = [_decoded(json.loads(str(value))) for value in column]
    return values


def _descriptor(columns: Mapping[str, Any], asked: str | None, usual: Sequence[str]) -> str:
    """Choose the descriptor that holds names or ids."""
    if asked is not None and asked not in columns:
        raise InputError(f"no descriptor called {asked!r}; {nearest(asked, map(str, columns))}")
    return asked if asked is not None else next(key for key in usual if key in columns)


def _theirs(key: str, origin: Mapping[str, Any]) -> str:
    """Give a descriptor its rsatoolbox name back."""
    return str(origin.get("renamed", {}).get(key, key))


def _coded_mapping(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Code every value of a mapping."""
    return {str(key): _encoded(value) for key, value in values.items()}


def _decoded_mapping(coded: Mapping[str, Any]) -> dict[str, Any]:
    """Read what :func:`_coded_mapping` wrote."""
    return {key: _decoded(value) for key, value in coded.items()}


def _encoded(value: Any) -> Any:
    """Write a descriptor so that JSON keeps its kind."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return {"array": value.tolist(), "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        return {"scalar": value.item(), "dtype": str(value.dtype)}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_encoded(item) for item in value]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": _coded_mapping(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return {"plain": value}
    raise InputError(
        f"descriptor {value!r} is of type {type(value).__name__}, which cannot be kept in a file; "
        "replace it by numbers, text or arrays"
    )


def _decoded(coded: Mapping[str, Any]) -> Any:
    """Read what :func:`_encoded` wrote."""
    kind, value = next(iter(coded.items()))
    if kind == "array":
        return np.array(value, dtype=coded["dtype"]).reshape(coded["shape"])
    if kind == "scalar":
        return np.dtype(coded["dtype"]).type(value)
    if kind == "mapping":
        return _decoded_mapping(value)
    if kind in ("list", "tuple"):
        items = [_decoded(item) for item in value]
        return items if kind == "list" else tuple(items)
    return value
