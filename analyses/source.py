"""What an analysis reads: stimuli and layers, from a store, its path, or arrays, in blocks of units."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from actkit.compute import spans
from actkit.errors import InputError, LayerError, nearest
from actkit.results import fingerprint

if TYPE_CHECKING:
    from actkit.store import ActivationStore

_HASHED = 2**24  # bytes of rows that are hashed at a time


@dataclass(frozen=True)
class Layer:
    """One layer to be reduced: its size and a way to read it in blocks of units.

    Attributes
    ----------
    name : str
        Name of the layer.
    n_units : int
        Units of one stimulus, further dims flattened.
    double : bool
        Whether the values are float64 or integers, so that float32 would lose digits.
    itemsize : int
        Bytes of one value of a block.
    blocks : callable
        Takes the most bytes that a block and what is read ahead may hold, and yields blocks ``(n_stimuli, width)`` of
        consecutive units, numpy arrays or tensors.
    device : str, optional
        Device of a tensor; None for everything else.
    """

    name: str
    n_units: int
    double: bool
    itemsize: int
    blocks: Callable[[int], Iterator[Any]]
    device: str | None = None


@dataclass(frozen=True)
class Source:
    """Stimuli and layers: what a store and arrays have in common.

    Attributes
    ----------
    ids : numpy.ndarray of str
        Stimulus ids, in the order of the rows of every layer.
    layers : list of Layer
        In execution order, or the order given.
    name : str
        What the source is called in figures and tables.
    fingerprint : callable
        Gives the hash of the content; computed only when asked for.
    labels : mapping
        Stimulus labels, each ``(n_stimuli,)``.
    attrs : mapping
        What a result should keep of where it came from.
    """

    ids: np.ndarray
    layers: list[Layer]
    name: str
    fingerprint: Callable[[], str]
    labels: Mapping[str, np.ndarray]
    attrs: Mapping[str, Any]


def open_source(source: Any, ids: Sequence[Any] | np.ndarray | None = None) -> Source:
    """Read any source as stimuli and layers.

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, xarray.Dataset, numpy.ndarray, torch.Tensor or mapping
        A store, or arrays whose first dim is ``stimulus``; further dims count as units. DataArrays that carry stimulus
        ids are aligned by them.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none; ``"0"``, ``"1"``, … by default.

    Returns
    -------
    Source
        Nothing is read yet, but for the metadata.

    Raises
    ------
    InputError
        If it is none of these, arrays have other stimuli than each other, or ids are given beside a store.
    """
    if isinstance(source, str | Path):
        from actkit.store import open_store

        source = open_store(source)
    if isinstance(source, xr.Dataset):
        source = {str(name): source[name] for name in source.data_vars}
    if isinstance(source, Mapping):
        return _from_arrays({str(name): array for name, array in source.items()}, ids, "arrays")
    if isinstance(source, xr.DataArray):
        name = str(source.name or "activation")
        return _from_arrays({name: source}, ids, name)
    if hasattr(source, "unit_blocks") and hasattr(source, "n_units"):
        if ids is not None:
            raise InputError("a store carries its own stimulus ids; leave ids out")
        return _from_store(source)
    if is_tensor(source) or isinstance(source, np.ndarray | list | tuple):
        return _from_arrays({"activation": source}, ids, "activation")
    raise InputError(
        f"cannot read layers from a {type(source).__name__}; give a store, its path, a DataArray, an array, or a "
        "mapping of layer names to arrays"
    )


def _from_store(store: ActivationStore) -> Source:
    """The layers of an activation store."""

    def reader(layer: str) -> Callable[[int], Iterator[Any]]:
        def read(most: int) -> Iterator[Any]:
            for _, _, block in store.unit_blocks(layer, most):
                yield block
                del block

        return read

    attrs = dict(store.attrs)
    name = str(attrs.get("network") or attrs.get("name") or Path(str(store.path)).stem)
    layers = [Layer(layer, int(store.n_units(layer)), False, 4, reader(layer)) for layer in store.layers]
    kept = {"network": name, "store": str(Path(str(store.path)).name)}
    return Source(
        np.asarray(store.ids), layers, name, lambda: str(store.fingerprint), _labels(store.labels, len(store.ids)), kept
    )


def _labels(labels: Mapping[str, Any], n: int) -> dict[str, np.ndarray]:
    """Stimulus labels that can be coordinates of an RDM dataset."""
    columns = {str(key): as_column(values) for key, values in labels.items()}
    return {
        key: values
        for key, values in columns.items()
        if values.shape == (n,)
        and values.dtype.kind in "biufU"
        and key not in ("layer", "stimulus", "pair", "dissimilarity")
    }


def as_column(values: Any) -> np.ndarray:
    """Bring labels to an array; strings that netCDF keeps as objects become plain strings.

    Parameters
    ----------
    values : array_like
        Labels.

    Returns
    -------
    numpy.ndarray
        The same labels.
    """
    column = np.asarray(values)
    if column.dtype == object and all(isinstance(value, str) for value in column.ravel().tolist()):
        return column.astype(str)
    return column


def label_column(values: Any, what: str, ids: list[str], columns: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """Bring labels, groups or a split to one word for each stimulus, and name them.

    Parameters
    ----------
    values : str, mapping, xarray.DataArray or array_like
        The name of one of `columns`, a value by stimulus id, an array along ``stimulus`` (aligned by id where it
        carries ids), or one value a stimulus in the order of `ids`.
    what : str
        What the values are called in messages: ``"labels"``, ``"groups"``, ``"split"``.
    ids : list of str
        The stimuli.
    columns : mapping of str to numpy.ndarray
        Labels that the recording carries.

    Returns
    -------
    name : str
        What the values are called in results.
    column : numpy.ndarray of str, shape (n_stimuli,)
        One word a stimulus.

    Raises
    ------
    InputError
        If there is no such label, a stimulus has no value, or the shape does not fit.
    """
    name = "label" if what == "labels" else what
    if isinstance(values, str):
        if values not in columns:
            raise InputError(
                f"{what}={values!r}: the recording has no such label; "
                + (nearest(values, columns) if columns else "it carries none, so give one value for each stimulus")
            )
        name, values = values, columns[values]
    elif isinstance(values, Mapping):
        missing = [i for i in ids if i not in values]
        if missing:
            raise InputError(f"{what}: {len(missing)} stimuli have no value, the first is {missing[0]!r}; give all")
        values = [values[i] for i in ids]
    elif isinstance(values, xr.DataArray):
        name = str(values.name or name)
        if values.dims != ("stimulus",):
            raise InputError(f"{what}: dims {values.dims} do not fit; give one value along 'stimulus'")
        if "stimulus" in values.coords:
            own = [str(i) for i in values["stimulus"].values]
            return name, label_column(dict(zip(own, values.values.tolist(), strict=True)), what, ids, columns)[1]
        values = values.values
    array = np.asarray(values)
    if array.shape != (len(ids),):
        raise InputError(f"{what}: shape {array.shape} does not fit {len(ids)} stimuli; give one value for each")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError(f"{what}: the stimulus {ids[int(np.isnan(array).argmax())]!r} has NaN; leave such stimuli out")
    return name, array.astype(str)


def is_tensor(value: Any) -> bool:
    """Tell a torch tensor without importing torch.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    bool
        Whether it is a tensor.
    """
    return type(value).__module__.startswith("torch") and hasattr(value, "detach")


def _from_arrays(arrays: Mapping[str, Any], ids: Sequence[Any] | np.ndarray | None, name: str) -> Source:
    """Named arrays over the same stimuli, aligned by id where they carry one."""
    if not arrays:
        raise InputError("no arrays were given; give at least one, such as {'fc': features}")
    shared: np.ndarray | None = None if ids is None else np.array([str(value) for value in ids])
    layers: list[tuple[str, Any]] = []
    labels: dict[str, np.ndarray] = {}
    for layer, array in arrays.items():
        own: np.ndarray | None = None
        if isinstance(array, xr.DataArray):
            if "stimulus" not in array.dims:
                raise InputError(f"array {layer!r} has the dims {array.dims} and no 'stimulus'; rename the right one")
            array = array.transpose("stimulus", ...)
            if "stimulus" in array.coords:
                own = array["stimulus"].values.astype(str)
        elif not is_tensor(array):
            array = np.asarray(array)
        if array.ndim < 2:
            raise InputError(f"array {layer!r} has shape {tuple(array.shape)}; it needs stimuli × units")
        if own is not None and ids is None:
            if shared is None:
                shared = own
            elif not np.array_equal(shared, own):
                lacking = sorted(set(shared.tolist()) ^ set(own.tolist()))
                if lacking:
                    raise InputError(
                        f"array {layer!r} has other stimuli than the arrays before it (not in both: "
                        f"{', '.join(map(repr, lacking[:5]))}); give arrays over the same stimuli"
                    )
                if len(set(own.tolist())) < len(own):
                    raise InputError(
                        f"array {layer!r} has the rows of repeated stimuli in another order than the arrays before it, "
                        "so they cannot be told apart; give all arrays in one order"
                    )
                array = array.isel(stimulus=_order(own, shared))
            columns = {str(key): c.values for key, c in array.coords.items() if c.dims == ("stimulus",)}
            labels |= _labels(columns, len(own))
        layers.append((layer, array))
    n = layers[0][1].shape[0]
    shared = np.array([str(k) for k in range(n)]) if shared is None else shared
    for layer, array in layers:
        if array.shape[0] != len(shared):
            raise InputError(f"array {layer!r} has {array.shape[0]} rows, and there are {len(shared)} stimuli")
    read = [array_layer(layer, array) for layer, array in layers]

    def content() -> str:
        return fingerprint({layer: content_hash(array) for layer, array in layers} | {"ids": shared})

    return Source(shared, read, name, content, _labels(labels, n), {"network": name})


def _order(own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted id stands in `own`."""
    where = {value: position for position, value in enumerate(own.tolist())}
    return np.array([where[value] for value in wanted.tolist()])


def content_hash(array: Any) -> str:
    """Hash an array's dtype, shape and values, a few rows at a time: a lazily backed one may not fit in memory.

    Parameters
    ----------
    array : numpy.ndarray, xarray.DataArray or torch.Tensor
        The array.

    Returns
    -------
    str
        sha256 in hexadecimal.
    """
    digest = hashlib.sha256(f"{array.dtype} {tuple(array.shape)}".removeprefix("torch.").encode())
    row_bytes = max(1, int(np.prod(array.shape[1:])) * 8)
    for start, stop in spans(array.shape[0], max(1, _HASHED // row_bytes)):
        rows = array[start:stop]
        if is_tensor(rows):
            rows = rows.detach().cpu()
            rows = rows.float() if "bfloat16" in str(rows.dtype) else rows  # which numpy does not have
        values = np.asarray(rows)
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def array_layer(name: str, array: Any, lead: int = 1) -> Layer:
    """Read an array as a layer, cut along the first dim of its units; a lazily backed DataArray is read in pieces.

    Parameters
    ----------
    name : str
        Name of the layer.
    array : numpy.ndarray, xarray.DataArray or torch.Tensor
        Rows first, then one or more dims of units.
    lead : int
        How many dims the rows have: 1 (stimulus), or 2 (stimulus, repetition), which become one in C order.

    Returns
    -------
    Layer
        The layer; nothing is read yet.

    Raises
    ------
    InputError
        If the values are not real numbers.
    """
    kind = str(array.dtype).removeprefix("torch.")
    if kind.startswith(("complex", "<U", "object", "datetime", "timedelta")):
        raise InputError(f"array {name!r} has dtype {kind}; give real numbers")
    n, cut = int(np.prod(array.shape[:lead])), array.shape[lead]
    n_units = int(np.prod(array.shape[lead:]))
    half = kind in ("float32", "float16", "bfloat16")
    itemsize = 4 if half else 8
    step_bytes = max(n, 1) * max(n_units // max(cut, 1), 1) * itemsize

    def blocks(most: int) -> Iterator[Any]:
        step = max(1, most // (2 * step_bytes))  # a block, and a copy if it has to be converted
        for start in range(0, cut, step):
            part = array[(slice(None),) * lead + (slice(start, start + step),)]
            if is_tensor(array):
                yield part.detach().reshape(n, -1)
            else:
                values = np.asarray(part.values if isinstance(part, xr.DataArray) else part).reshape(n, -1)
                if values.dtype == np.float16 or values.dtype.kind != "f":
                    values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
                yield values
                del values
            del part

    device = str(array.device) if is_tensor(array) else None
    return Layer(name, n_units, not half, itemsize, blocks, device=device)


def choose_layers(layers: Sequence[Layer], patterns: Sequence[str] | None) -> list[Layer]:
    """Select layers by name or pattern, in recorded order.

    Parameters
    ----------
    layers : sequence of Layer
        What there is.
    patterns : sequence of str or None
        Names, or patterns (``*`` within a component, ``**`` across dots); None for all.

    Returns
    -------
    list of Layer
        The layers chosen, in the order they came.

    Raises
    ------
    LayerError
        If there are none, or a pattern matches none.
    """
    if not layers:
        raise LayerError("the source holds no layers, so there is nothing to compare")
    if patterns is None:
        return list(layers)
    names = [layer.name for layer in layers]
    wanted: set[str] = set()
    for pattern in patterns:
        if pattern in names:
            found = {pattern}
        else:
            from actkit.layers import pattern_regex

            # A module that ran several times was recorded as name@0, name@1, …: its name means all calls.
            regex = pattern_regex(pattern)
            found = {name for name in names if regex.fullmatch(name) or regex.fullmatch(name.split("@")[0])}
        if not found:
            raise LayerError(f"no recorded layer matches {pattern!r}; {nearest(pattern, names)}")
        wanted |= found
    return [layer for layer in layers if layer.name in wanted]
