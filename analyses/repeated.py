"""Repeated observations of the same stimuli: which row of a recording shows which stimulus, in which fold.

Rows are observations. They come from a dim ``repetition`` (padded with NaN where a stimulus has fewer), from rows that
share a stimulus id or label, or from several recordings of the same stimuli, one a repetition. Folds, the parts whose
noise is independent, are named by a column of the rows and never taken from their order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from actkit.analyses.design import Design
from actkit.analyses.source import Layer, Source, array_layer, as_column, content_hash, is_tensor, open_source
from actkit.errors import InputError, nearest
from actkit.results import fingerprint

Repetitions = Literal["recorded", "augmentation", "dropout", "seeds", "noise"]

_ROWS = 2**26  # bytes of an array that are looked through at a time
_SHOWN = 5


@dataclass(frozen=True)
class Recordings:
    """A source whose rows may be repetitions.

    Attributes
    ----------
    source : Source
        Its ids are the n stimuli; the blocks of its layers have the T rows of `design`, or n rows without one.
    design : Design or None
        None where each row is a stimulus of its own.
    columns : mapping
        What is known of each row, ``(T,)``: what can name folds.
    kind : {"recorded", "network"}
        Whether the units are recorded neurons, whose repetitions need no declaration.
    averaged : bool
        Whether repetitions may be averaged without a declaration: there is a dim for them, or several recordings.
    """

    source: Source
    design: Design | None
    columns: Mapping[str, np.ndarray]
    kind: Literal["recorded", "network"]
    averaged: bool

    def with_folds(self, name: str) -> Recordings:
        """Take the folds from a column of the rows.

        Parameters
        ----------
        name : str
            The column.

        Returns
        -------
        Recordings
            The same with folds.

        Raises
        ------
        InputError
            If there is no such column, it has missing values, or names one fold only.
        """
        if self.design is None:
            raise InputError(f"folds={name!r}: every stimulus occurs once, so there is nothing to put into folds")
        if name not in self.columns:
            raise InputError(f"folds={name!r} is not a coordinate of the observations; {nearest(name, self.columns)}")
        column = self.columns[name]
        if column.dtype.kind == "f" and np.isnan(column).any():
            raise InputError(f"folds={name!r} is NaN for {int(np.isnan(column).sum())} observations; give each a fold")
        names, fold = np.unique(column, return_inverse=True)
        if len(names) < 2:
            raise InputError(
                f"folds={name!r} has the one value {str(names[0])!r}; a cross-validated distance needs 2 folds"
            )
        return replace(self, design=replace(self.design, fold=fold.ravel(), folds=tuple(map(str, names))))


def open_recordings(
    source: Any, ids: Sequence[Any] | np.ndarray | None = None, stimuli: str | None = None
) -> Recordings:
    """Read any source as rows of stimuli that may be repeated.

    Parameters
    ----------
    source : store, path, array, mapping, or sequence or mapping of recordings
        What :func:`~actkit.analyses.source.open_source` takes, one row a stimulus; arrays with a dim ``repetition``
        (NaN where a stimulus has fewer); arrays along ``stimulus`` or ``observation`` with ids that repeat; or several
        stores, paths or xarray objects over the same stimuli and units: a list, or a mapping of names to stores.
    ids : sequence of str, optional
        Ids of the rows of arrays that carry none.
    stimuli : str, optional
        Coordinate or store label that names the stimulus of each row; ``stimulus`` by default.

    Returns
    -------
    Recordings
        Rows of a stimulus that is missing throughout (NaN in every unit of every layer) are left out.

    Raises
    ------
    InputError
        If the source cannot be read, members differ in stimuli or units, or there is no such coordinate.
    """
    members = _members(source)
    if members is not None:
        if ids is not None:
            raise InputError("several recordings carry their own stimulus ids; leave ids out")
        return _grouped(_of_members(members), stimuli, averaged=True)
    arrays = _xarrays(source)
    kind: Literal["recorded", "network"] = "network"
    if arrays is not None:
        if any("neuron" in array.dims for array in arrays.values()):
            kind = "recorded"
        if any("repetition" in array.dims for array in arrays.values()):
            return replace(_grouped(_of_repetitions(arrays), stimuli, averaged=True), kind=kind)
        if any("observation" in array.dims for array in arrays.values()):
            return replace(_grouped(_of_observations(arrays), stimuli or "stimulus"), kind=kind)
    opened = open_source(source, ids)
    return replace(_grouped(_Rows(opened, dict(opened.labels) | {"stimulus": opened.ids}), stimuli), kind=kind)


@dataclass(frozen=True)
class _Rows:
    """Rows before they are grouped by stimulus, and what is known of each."""

    source: Source
    columns: Mapping[str, np.ndarray]


def _grouped(rows: _Rows, stimuli: str | None, averaged: bool = False) -> Recordings:
    """Group rows by stimulus, in order of first appearance."""
    if stimuli is not None and stimuli not in rows.columns:
        raise InputError(
            f"stimuli={stimuli!r} is not a coordinate of the observations; {nearest(stimuli, rows.columns)}"
        )
    names = rows.columns[stimuli or "stimulus"].astype(str)
    unique, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    stimulus, where = rank[inverse.ravel()], first[order]
    labels = {
        key: values[where]
        for key, values in rows.columns.items()
        if key not in ("stimulus", "repetition", stimuli) and (values == values[where][stimulus]).all()
    }
    repeated = len(unique) < len(names)
    source = replace(rows.source, ids=unique[order], labels=labels)
    design = Design(stimulus, len(unique), np.zeros(len(names), dtype=np.intp)) if repeated else None
    return Recordings(source, design, rows.columns, "network", averaged)


# --------------------------------------------------------------------------------------------------------------------
# several recordings, one a repetition


def _is_store(value: Any) -> bool:
    """Tell a store or a path of one."""
    return isinstance(value, str | os.PathLike) or (hasattr(value, "unit_blocks") and hasattr(value, "n_units"))


def _members(source: Any) -> dict[str, Any] | None:
    """Recordings that are repetitions of each other, by name; None if it is one recording."""
    if isinstance(source, Mapping) and source and all(_is_store(value) for value in source.values()):
        return {str(name): value for name, value in source.items()}
    if isinstance(source, list | tuple) and source:
        whole = [_is_store(value) or isinstance(value, xr.DataArray | xr.Dataset | Mapping) for value in source]
        if all(whole):
            return {str(number): value for number, value in enumerate(source)}
    return None


def _of_members(members: Mapping[str, Any]) -> _Rows:
    """Stack recordings of the same stimuli: all rows of the first, then of the next."""
    from actkit.store import open_store

    stores = {name: open_store(Path(v)) if isinstance(v, str | os.PathLike) else v for name, v in members.items()}
    weights = {str(getattr(store, "attrs", {}).get("weights_sha256", "")) for store in stores.values()}
    if len(weights) > 1:
        raise InputError(
            f"the {len(stores)} recordings are of networks with different weights: their units do not correspond, so "
            "they are no repetitions of each other. Record one network repeatedly, and compute RDMs of each otherwise"
        )
    opened = {name: open_source(store) for name, store in stores.items()}
    first, *others = opened.values()
    names = [layer.name for layer in first.layers]
    for name, other in list(opened.items())[1:]:
        sizes = {layer.name: layer.n_units for layer in other.layers}
        for layer in first.layers:
            if sizes.get(layer.name) != layer.n_units:
                raise InputError(
                    f"recording {name!r} has {sizes.get(layer.name, 'no')} units in layer {layer.name!r}, the first "
                    f"has {layer.n_units}; repetitions need the same units"
                )
        lacking = sorted(set(first.ids.tolist()) ^ set(other.ids.tolist()))
        if lacking:
            raise InputError(
                f"recording {name!r} has other stimuli than the first (not in both: "
                f"{', '.join(map(repr, lacking[:_SHOWN]))}); give recordings of the same stimuli"
            )
    by_name = [{layer.name: layer for layer in member.layers} for member in opened.values()]
    layers = [_stacked([layers[name] for layers in by_name]) for name in names]
    columns = {"stimulus": np.concatenate([member.ids for member in opened.values()])}
    for key in first.labels:
        if all(key in member.labels for member in others):
            columns[key] = np.concatenate([member.labels[key] for member in opened.values()])
    columns["repetition"] = np.repeat(np.array(list(opened)), [len(member.ids) for member in opened.values()])

    def content() -> str:
        return fingerprint({name: member.fingerprint() for name, member in opened.items()})

    return _Rows(Source(columns["stimulus"], layers, first.name, content, {}, first.attrs), columns)


def _stacked(members: Sequence[Layer]) -> Layer:
    """One layer of several recordings; blocks may be cut differently in each."""

    def blocks(most: int) -> Iterator[np.ndarray]:
        streams = [layer.blocks(max(1, most // (2 * len(members)))) for layer in members]
        held: list[np.ndarray] = [np.empty((0, 0))] * len(members)
        done, total = 0, members[0].n_units
        while done < total:
            held = [as_numpy(next(s)) if h.shape[1] == 0 else h for h, s in zip(held, streams, strict=True)]
            width = min(block.shape[1] for block in held)
            yield np.concatenate([block[:, :width] for block in held])
            held = [block[:, width:] for block in held]
            done += width

    first = members[0]
    double = any(layer.double for layer in members)
    return Layer(first.name, first.n_units, double, max(layer.itemsize for layer in members), blocks)


def as_numpy(block: Any) -> np.ndarray:
    """Bring a block to numpy, wherever it is.

    Parameters
    ----------
    block : numpy.ndarray or torch.Tensor
        Values.

    Returns
    -------
    numpy.ndarray
        The same values.
    """
    if not is_tensor(block):
        return np.asarray(block)
    block = block.detach().cpu()
    return np.asarray(block.float() if "bfloat16" in str(block.dtype) else block)  # which numpy does not have


# --------------------------------------------------------------------------------------------------------------------
# arrays with a dim of repetitions or observations


def _xarrays(source: Any) -> dict[str, xr.DataArray] | None:
    """The layers of a source that holds xarray objects only."""
    if isinstance(source, xr.DataArray):
        return {str(source.name or "activation"): source}
    if isinstance(source, xr.Dataset):
        return {str(name): source[name] for name in source.data_vars}
    if isinstance(source, Mapping) and source and all(isinstance(v, xr.DataArray) for v in source.values()):
        return {str(name): array for name, array in source.items()}
    return None


def _of_repetitions(arrays: Mapping[str, xr.DataArray]) -> _Rows:
    """Unfold stimulus × repetition to rows, without those that are NaN throughout."""
    first = next(iter(arrays.values()))
    made: dict[str, xr.DataArray] = {}
    for name, array in arrays.items():
        if not {"stimulus", "repetition"} <= set(array.dims):
            raise InputError(f"array {name!r} has the dims {array.dims}; all layers need stimulus and repetition")
        if array.ndim < 3:
            raise InputError(f"array {name!r} has the dims {array.dims}; it needs units beside them")
        array = array.transpose("stimulus", "repetition", ...)
        if array.shape[:2] != (first.sizes["stimulus"], first.sizes["repetition"]):
            raise InputError(
                f"array {name!r} has {array.shape[0]} stimuli × {array.shape[1]} repetitions, the first array has "
                f"{first.sizes['stimulus']} × {first.sizes['repetition']}; give arrays over the same ones"
            )
        for dim in ("stimulus", "repetition"):
            own = [array[dim].values.astype(str).tolist() if dim in array.coords else None for array in (first, array)]
            if own[0] != own[1]:
                raise InputError(f"array {name!r} has other values of {dim!r}, or another order, than the first array")
        made[name] = array
    n, repetitions = first.sizes["stimulus"], first.sizes["repetition"]
    columns = _columns(made.values(), ("stimulus", "repetition"), (n, repetitions))
    columns.setdefault("stimulus", np.repeat(np.arange(n).astype(str), repetitions))
    columns.setdefault("repetition", np.tile(np.arange(repetitions), n))
    layers = [array_layer(name, array, lead=2) for name, array in made.items()]
    kept = _present(layers, n * repetitions)
    if len(kept) < n * repetitions:
        layers = [_some_rows(layer, kept) for layer in layers]
        columns = {key: values[kept] for key, values in columns.items()}
    name = next(iter(made)) if len(made) == 1 else "arrays"

    def content() -> str:
        hashes: dict[str, Any] = {layer: content_hash(array) for layer, array in made.items()}
        return fingerprint(hashes | {f"coord {key}": values for key, values in columns.items()})

    return _Rows(Source(columns["stimulus"].astype(str), layers, name, content, {}, {"network": name}), columns)


def _of_observations(arrays: Mapping[str, xr.DataArray]) -> _Rows:
    """Rows along a dim ``observation``, whose stimulus is a coordinate."""
    for name, array in arrays.items():
        if "observation" not in array.dims:
            raise InputError(f"array {name!r} has the dims {array.dims}; all layers need the dim 'observation'")
    n = next(iter(arrays.values())).sizes["observation"]
    columns = _columns(arrays.values(), ("observation",), (n,))
    plain = {
        name: array.transpose("observation", ...).drop_vars(list(array.coords)).rename(observation="stimulus")
        for name, array in arrays.items()
    }
    opened = open_source(plain if len(plain) > 1 else next(iter(plain.values())).rename(next(iter(plain))))

    def content() -> str:
        return fingerprint({"values": opened.fingerprint()} | {f"coord {key}": v for key, v in columns.items()})

    return _Rows(replace(opened, fingerprint=content, labels={}), columns)


def _columns(arrays: Any, dims: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Coordinates along the rows' dims, one value a row."""
    columns: dict[str, np.ndarray] = {}
    for array in arrays:
        for key, coordinate in array.coords.items():
            if not coordinate.dims or not set(coordinate.dims) <= set(dims):
                continue
            values = as_column(coordinate.values)
            if values.dtype.kind not in "biufU":
                continue
            spread = xr.DataArray(values, dims=coordinate.dims).broadcast_like(xr.DataArray(np.empty(shape), dims=dims))
            columns[str(key)] = spread.transpose(*dims).values.ravel()
    return columns


def _present(layers: Sequence[Layer], n_rows: int) -> np.ndarray:
    """Rows with a value in any unit of any layer."""
    there = np.zeros(n_rows, dtype=bool)
    for layer in layers:
        for block in layer.blocks(_ROWS):
            there |= ~np.isnan(block).all(axis=1)
            if there.all():
                break
    if not there.any():
        raise InputError("every value is NaN, so there is nothing to compare")
    return np.flatnonzero(there)


def _some_rows(layer: Layer, rows: np.ndarray) -> Layer:
    """A layer without some of its rows."""

    def blocks(most: int) -> Iterator[np.ndarray]:
        for block in layer.blocks(max(1, most // 2)):
            yield block[rows]

    return replace(layer, blocks=blocks)
