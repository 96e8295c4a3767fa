"""Representational dissimilarity matrices of a network's layers, streamed from a store in bounded memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.gram import WIDTH, Centring, GramSums, NonFiniteError, NumpyGram, OverflowInGramError, TorchGram
from actkit.compute import format_bytes, parse_bytes, spans
from actkit.compute import progress as progress_bar
from actkit.errors import InputError, LayerError, nearest
from actkit.options import Options, with_options
from actkit.recordings import rdm_dataset
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from actkit.store import ActivationStore

Method = Literal["correlation", "cosine", "euclidean", "sqeuclidean"]

_CENTRING: dict[str, Centring] = {
    "correlation": "pattern",
    "cosine": "none",
    "euclidean": "unit",
    "sqeuclidean": "unit",
}
# A pattern whose standard deviation is within this many rounding steps of its mean is constant, not patterned.
_ROUNDING_STEPS = 4
_NAMED = 20  # how many constant patterns of a layer are named
_HASHED = 2**24  # bytes of rows that are hashed at a time


class RdmOptions(Options):
    """Options of :func:`rdm`."""

    method: Method = Field("correlation", description="Dissimilarity between two patterns of activation.")
    layers: list[str] | None = Field(
        None, description="Layer names or patterns (* within a component, ** across dots); all layers by default."
    )
    memory: str = Field("1GB", description="Most memory to use for blocks and sums, such as '1GB'.")
    dtype: Literal["auto", "float32", "float64"] = Field(
        "auto",
        description="Precision of products within a block; 'auto' is float64 for float64 and integer arrays "
        "and float32 for stores and float32. Sums over blocks are always float64.",
    )
    device: str = Field(
        "auto",
        description="Where to compute: 'auto' follows the data (numpy, or the tensor's device), or a torch "
        "device such as 'cpu' or 'cuda'.",
    )


@dataclass(frozen=True)
class _Layer:
    """One layer to be reduced: its size and a way to read it in blocks of units."""

    name: str
    n_units: int
    double: bool  # values are float64 or integers
    itemsize: int
    blocks: Callable[[int], Iterator[Any]]  # bytes at most -> blocks (n_stimuli, width)
    device: str | None = None  # of a tensor


@dataclass(frozen=True)
class _Source:
    """What RDMs are made of: stimuli and layers."""

    ids: np.ndarray
    layers: list[_Layer]
    name: str
    fingerprint: Callable[[], str]
    labels: Mapping[str, np.ndarray]
    attrs: Mapping[str, Any]


@with_options(RdmOptions)
def rdm(
    source: Any, ids: Sequence[Any] | np.ndarray | None = None, progress: bool | None = None, *, options: RdmOptions
) -> xr.Dataset:
    """Compute the RDM of every layer.

    Blocks of units are read one after the other, and only n × n sums are kept, so that the width of a layer does not
    matter. With x_i the pattern of stimulus i over units:

    - ``correlation``: 1 − Pearson's r of x_i and x_j; 0 to 2;
    - ``cosine``: 1 − x_i·x_j / (|x_i| |x_j|); 0 to 2;
    - ``sqeuclidean``: |x_i − x_j|², and ``euclidean`` its root, in units of the activations (not divided by the number
      of units).

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray, torch.Tensor or mapping of name to array
        A store, or arrays whose first dim is ``stimulus``; further dims are flattened to units.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none; ``"0"``, ``"1"``, … by default.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        RDM dataset: ``dissimilarity`` (layer, pair) in float64, layers in execution order, with ``n_units`` and
        ``constant_patterns`` (layer). Correlation has no value for a constant pattern (a layer that is dead on an
        image), and cosine none for a pattern of zeros: these pairs are NaN, counted in ``constant_patterns``, and their
        stimuli named in the attribute ``constant_stimuli`` (JSON: layer to ids, the first 20).

    Raises
    ------
    InputError
        If values are NaN or infinite (naming layer and stimuli), there are fewer than two stimuli, correlation is asked
        for of a single unit, or the memory is too small for the sums.
    LayerError
        If a layer does not exist.
    """
    opened = _open(source, ids)
    chosen = _choose(opened.layers, options.layers)
    n = len(opened.ids)
    if n < 2:
        raise InputError(f"{opened.name!r} holds {n} stimulus; a dissimilarity needs at least 2")
    bar = progress_bar(chosen, desc="RDMs", unit="layer", enabled=progress)
    vectors = np.empty((len(chosen), n * (n - 1) // 2))
    constant: dict[str, np.ndarray] = {}
    for row, layer in enumerate(bar):
        vectors[row], flat = _rdm_of(layer, opened.ids, options)
        if len(flat):
            constant[layer.name] = flat
    result = rdm_dataset(
        vectors,
        [layer.name for layer in chosen],
        "layer",
        opened.ids,
        options.method,
        opened.name,
        coords={key: ("stimulus", values) for key, values in opened.labels.items()},
    )
    result["dissimilarity"].attrs.update(
        long_name=f"{options.method} dissimilarity",
        units="1" if options.method in ("correlation", "cosine") else "activation",
    )
    result["n_units"] = ("layer", np.array([layer.n_units for layer in chosen]), {"long_name": "units", "units": "1"})
    result["constant_patterns"] = (
        "layer",
        np.array([len(constant.get(layer.name, ())) for layer in chosen]),
        {"long_name": "stimuli without a defined dissimilarity", "units": "1"},
    )
    return describe(
        result,
        "rdm",
        options,
        {"source": opened.fingerprint()},
        **{key: value for key, value in opened.attrs.items() if key not in result.attrs},
        n_stimuli=n,
        constant_stimuli=json.dumps({k: [str(opened.ids[i]) for i in v[:_NAMED]] for k, v in constant.items()}),
    )


def _rdm_of(layer: _Layer, ids: np.ndarray, options: RdmOptions) -> tuple[np.ndarray, np.ndarray]:
    """One layer's RDM as a vector, and the stimuli whose pattern is constant."""
    n = len(ids)
    if options.method == "correlation" and layer.n_units < 2:
        raise InputError(
            f"layer {layer.name!r} has {layer.n_units} unit, and a correlation over one unit is undefined; "
            "use method='euclidean'"
        )
    if layer.n_units < 1:
        raise InputError(f"layer {layer.name!r} has no units, so it has no RDM; leave it out")
    dtype: Literal["float32", "float64"] = (
        ("float64" if layer.double else "float32") if options.dtype == "auto" else options.dtype
    )
    try:
        try:
            gram, means, n_units = _sums(layer, n, dtype, options)
        except OverflowInGramError:  # finite float32 values above 1e19 have no float32 square
            gram, means, n_units = _sums(layer, n, "float64", options)
    except NonFiniteError as error:
        raise _not_finite(layer, ids, error.rows) from None
    except OverflowInGramError:
        raise InputError(
            f"layer {layer.name!r} holds values whose squares exceed the range of float64; scale them down"
        ) from None
    return _dissimilarity(gram, means, n_units, options.method, float(np.finfo(dtype).eps))


def _sums(
    layer: _Layer, n: int, dtype: Literal["float32", "float64"], options: RdmOptions
) -> tuple[np.ndarray, np.ndarray, int]:
    """Stream a layer through the running products."""
    centring = _CENTRING[options.method]
    device = layer.device if options.device == "auto" else options.device
    sums: GramSums
    if device is None:
        sums = NumpyGram(n, centring, dtype)
    else:
        from actkit.compute import choose_device

        sums = TorchGram(n, centring, dtype, choose_device(device))
    blocks = layer.blocks(_block_bytes(layer, n, options.memory, np.dtype(dtype).itemsize))
    while (block := next(blocks, None)) is not None:
        sums.add(block)
        del block  # or it would still be held while the next one is read
    return sums.result()


def _block_bytes(layer: _Layer, n: int, memory: str, itemsize: int) -> int:
    """Share the memory: n × n sums and the working copy take theirs, blocks and reading ahead have the rest."""
    fixed = 4 * 8 * n * n  # running sums, a block's products, and their temporaries
    fixed += n * min(WIDTH, layer.n_units) * itemsize  # the working copy
    block = parse_bytes(memory) - fixed
    smallest = 2 * n * layer.itemsize
    if block < smallest:
        need = fixed + smallest
        raise InputError(
            f"memory={memory!r} is too small for layer {layer.name!r} with {n} stimuli: sums and the smallest block "
            f"need {format_bytes(need)}; give more than that"
        )
    return block


def _not_finite(layer: _Layer, ids: np.ndarray, rows: np.ndarray) -> InputError:
    """Name the stimuli with NaN or infinite activations."""
    shown = ", ".join(repr(str(ids[row])) for row in rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    return InputError(
        f"layer {layer.name!r} holds NaN or infinite activations for the stimuli {shown}: their dissimilarities would "
        "be NaN. Record the layer again in float32, or leave these stimuli out"
    )


def _dissimilarity(
    gram: np.ndarray, means: np.ndarray, n_units: int, method: Method, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn sums of products into a vector of dissimilarities, and name the patterns that have none."""
    n = len(gram)
    squares = np.diagonal(gram).copy()
    row, column = np.triu_indices(n, 1)
    products = gram[row, column]
    if method in ("euclidean", "sqeuclidean"):
        distance = np.maximum(squares[row] + squares[column] - 2 * products, 0.0)
        return (np.sqrt(distance) if method == "euclidean" else distance), np.empty(0, dtype=int)
    limit = n_units * (_ROUNDING_STEPS * eps * means) ** 2 if method == "correlation" else 0.0
    flat = np.flatnonzero(squares <= limit)
    squares[flat] = np.nan
    norm = np.sqrt(squares)
    similarity = np.clip(products / norm[row] / norm[column], -1.0, 1.0)
    return 1.0 - similarity, flat


# --------------------------------------------------------------------------------------------------------------------
# sources


def _open(source: Any, ids: Sequence[Any] | np.ndarray | None) -> _Source:
    """Read any source as stimuli and layers."""
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
    if _is_tensor(source) or isinstance(source, np.ndarray | list | tuple):
        return _from_arrays({"activation": source}, ids, "activation")
    raise InputError(
        f"cannot make RDMs of a {type(source).__name__}; give a store, its path, a DataArray, an array, or a mapping "
        "of layer names to arrays"
    )


def _from_store(store: ActivationStore) -> _Source:
    """The layers of an activation store."""

    def reader(layer: str) -> Callable[[int], Iterator[Any]]:
        def read(most: int) -> Iterator[Any]:
            for _, _, block in store.unit_blocks(layer, most):
                yield block
                del block

        return read

    attrs = dict(store.attrs)
    name = str(attrs.get("network") or attrs.get("name") or Path(str(store.path)).stem)
    layers = [_Layer(layer, int(store.n_units(layer)), False, 4, reader(layer)) for layer in store.layers]
    kept = {"network": name, "store": str(Path(str(store.path)).name)}
    return _Source(
        np.asarray(store.ids), layers, name, lambda: str(store.fingerprint), _labels(store.labels, len(store.ids)), kept
    )


def _labels(labels: Mapping[str, Any], n: int) -> dict[str, np.ndarray]:
    """Stimulus labels that can be coordinates of an RDM dataset."""
    columns = {str(key): np.asarray(values) for key, values in labels.items()}
    return {
        key: values
        for key, values in columns.items()
        if values.shape == (n,)
        and values.dtype.kind in "biufU"
        and key not in ("layer", "stimulus", "pair", "dissimilarity")
    }


def _is_tensor(value: Any) -> bool:
    """Tell a torch tensor without importing torch."""
    return type(value).__module__.startswith("torch") and hasattr(value, "detach")


def _from_arrays(arrays: Mapping[str, Any], ids: Sequence[Any] | np.ndarray | None, name: str) -> _Source:
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
        elif not _is_tensor(array):
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
                array = array.isel(stimulus=_order(own, shared))
            columns = {str(key): c.values for key, c in array.coords.items() if c.dims == ("stimulus",)}
            labels |= _labels(columns, len(own))
        layers.append((layer, array))
    n = layers[0][1].shape[0]
    shared = np.array([str(k) for k in range(n)]) if shared is None else shared
    for layer, array in layers:
        if array.shape[0] != len(shared):
            raise InputError(f"array {layer!r} has {array.shape[0]} rows, and there are {len(shared)} stimuli")
    read = [_array_layer(layer, array) for layer, array in layers]

    def content() -> str:
        return fingerprint({layer: _content(array) for layer, array in layers} | {"ids": shared})

    return _Source(shared, read, name, content, _labels(labels, n), {"network": name})


def _order(own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted id stands in `own`."""
    where = {value: position for position, value in enumerate(own.tolist())}
    return np.array([where[value] for value in wanted.tolist()])


def _content(array: Any) -> str:
    """Hash an array's dtype, shape and values, a few rows at a time: a lazily backed one may not fit in memory."""
    digest = hashlib.sha256(f"{array.dtype} {tuple(array.shape)}".removeprefix("torch.").encode())
    row_bytes = max(1, int(np.prod(array.shape[1:])) * 8)
    for start, stop in spans(array.shape[0], max(1, _HASHED // row_bytes)):
        rows = array[start:stop]
        if _is_tensor(rows):
            rows = rows.detach().cpu()
            rows = rows.float() if "bfloat16" in str(rows.dtype) else rows  # which numpy does not have
        values = np.asarray(rows)
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _array_layer(name: str, array: Any) -> _Layer:
    """An array as a layer, cut along its second dim; a lazily backed DataArray is read piece by piece."""
    kind = str(array.dtype).removeprefix("torch.")
    if kind.startswith(("complex", "<U", "object", "datetime", "timedelta")):
        raise InputError(f"array {name!r} has dtype {kind}; give real numbers")
    n, second = array.shape[:2]
    n_units = int(np.prod(array.shape[1:]))
    half = kind in ("float32", "float16", "bfloat16")
    itemsize = 4 if half else 8
    step_bytes = n * max(n_units // max(second, 1), 1) * itemsize

    def blocks(most: int) -> Iterator[Any]:
        step = max(1, most // (2 * step_bytes))  # a block, and a copy if it has to be converted
        for start in range(0, second, step):
            if _is_tensor(array):
                yield array[:, start : start + step].detach().reshape(n, -1)
            else:
                part = array[:, start : start + step]
                values = np.asarray(part.values if isinstance(part, xr.DataArray) else part).reshape(n, -1)
                if values.dtype == np.float16 or values.dtype.kind != "f":
                    values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
                yield values
                del part, values

    device = str(array.device) if _is_tensor(array) else None
    return _Layer(name, n_units, not half, itemsize, blocks, device=device)


def _choose(layers: Sequence[_Layer], patterns: Sequence[str] | None) -> list[_Layer]:
    """Select layers by name or pattern, in recorded order."""
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


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw the RDMs as panels.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`rdm` returned.
    **settings
        Further settings of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import rdm_plot

    return rdm_plot.plot(result, **settings)
