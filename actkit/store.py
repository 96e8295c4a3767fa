"""An activation store is a recording: a Zarr v3 group with one node per layer, opened by plain xarray too.

The life of a store is *plan → template → guarded blocks → complete*:

>>> import numpy as np
>>> plan = plan_store("acts.zarr", {"fc": ((10,), ("unit",))}, ids=["a", "b", "c"], block=2)
>>> plan.layers[0].chunks, plan.n_blocks
((2, 10), 2)

then ``with create_store(plan) as writer``, ``writer.write_block(0, {"fc": …})``, … ``writer.complete()``.

==========================  ===========================================================================
``zarr.json``               provenance, ids of layers in execution order, ``complete``, and a copy of every
                            node's metadata, sealed with its sha256
``stimulus``, labels        coordinates of the rows
``<layer>/activation``      ``(stimulus, unit)`` or ``(stimulus, channel, y, x)``; float32, or float16 after
                            subtracting ``<layer>/centre``; chunks of about 4 MiB, uncompressed, crc32c
==========================  ===========================================================================

``xarray.open_datatree(path, engine="zarr")`` opens a complete store without actkit; of a float16 layer it shows
``activation`` and ``centre``, whose sum is what was recorded.

This module is the public face. The parts: ``store_plan`` (arithmetic), ``store_files`` (what survives a kill),
``store_chunks`` (chunk files), ``store_layout`` (template and metadata), ``store_write``, ``store_read`` with
``store_lazy`` and ``store_stream``, ``store_verify``.

Processes that read or write stores must be *spawned*: forking after zarrs was used deadlocks the child.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actkit.errors import InputError
from actkit.store_plan import CHUNK_BYTES, LayerPlan, StoreDtype, StorePlan, plan_layer
from actkit.store_read import ActivationStore, open_store
from actkit.store_verify import Fault, verify_store
from actkit.store_write import StoreWriter, create_store, resume_store

__all__ = [
    "CHUNK_BYTES",
    "ActivationStore",
    "Fault",
    "LayerPlan",
    "StorePlan",
    "StoreWriter",
    "create_store",
    "open_store",
    "plan_layer",
    "plan_store",
    "resume_store",
    "store_from_arrays",
    "verify_store",
]


def plan_store(
    path: str | os.PathLike[str],
    layers: Mapping[str, tuple[Sequence[int], Sequence[str] | None]],
    ids: Iterable[str],
    block: int = 32,
    labels: Mapping[str, np.ndarray] | None = None,
    attrs: Mapping[str, Any] | None = None,
    identity: str = "",
    dtype: StoreDtype = "float32",
    chunk_bytes: int = CHUNK_BYTES,
) -> StorePlan:
    """Plan a store from shapes alone.

    Parameters
    ----------
    path : path
        Folder of the store.
    layers : mapping of str to (shape, dims)
        Per stimulus, in execution order; dims None names them by rank (see :func:`plan_layer`).
    ids : iterable of str
        Stimulus ids in row order; unique.
    block : int
        Stimuli per block.
    labels : mapping of str to array, optional
        One value per stimulus.
    attrs : mapping, optional
        Provenance; JSON-able.
    identity : str
        sha256 over everything that determines the stored bytes.
    dtype : {"float32", "float16"}
        How every layer is kept.
    chunk_bytes : int
        Target size of a chunk.

    Returns
    -------
    StorePlan
        Printable; nothing is written.
    """
    names = tuple(str(i) for i in ids)
    planned = tuple(
        plan_layer(name, shape, dims, len(names), block, dtype, chunk_bytes) for name, (shape, dims) in layers.items()
    )
    return StorePlan(
        path=Path(path),
        ids=names,
        labels={key: np.asarray(values) for key, values in (labels or {}).items()},
        layers=planned,
        block=block,
        attrs=dict(attrs or {}),
        identity=identity,
    )


def store_from_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    ids: Iterable[str] | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
    attrs: Mapping[str, Any] | None = None,
    dtype: StoreDtype = "float32",
    block: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    overwrite: bool = False,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> ActivationStore:
    """Make a complete store from arrays in memory: features of another tool, or a test's numbers.

    Parameters
    ----------
    path : path
        Folder of the store.
    arrays : mapping of str to ndarray
        Per layer, in the order to be kept, shape (stimuli, …). Converted to float32.
    ids : iterable of str, optional
        Stimulus ids; ``"0"``, ``"1"``, … by default.
    labels : mapping of str to array, optional
        One value per stimulus.
    attrs : mapping, optional
        Provenance; JSON-able.
    dtype : {"float32", "float16"}
        How it is kept; the centre of float16 is the mean over stimuli.
    block : int, optional
        Stimuli per block; 64 by default.
    chunk_bytes : int
        Target size of a chunk.
    overwrite : bool
        Replace a store that is there.
    dims : mapping of str to sequence of str, optional
        Names of a layer's dimensions, without ``stimulus``.

    Returns
    -------
    ActivationStore
        The store, opened. Its identity is a sha256 over ids, labels, layers, values and ``attrs``.

    Raises
    ------
    InputError
        If the arrays disagree about the number of stimuli, or are not numbers.
    """
    if not arrays:
        raise InputError("no arrays were given, so the store would have no layers; give at least one")
    checked = {}
    for name, array in arrays.items():
        values = np.asarray(array)
        if values.ndim == 0 or values.dtype.kind not in "fiub":
            raise InputError(
                f"layer {name!r} is an array of {values.dtype} with the shape {values.shape}; "
                "give numbers of shape (stimuli, …)"
            )
        checked[name] = values[:, None] if values.ndim == 1 else values
    lengths = {name: len(values) for name, values in checked.items()}
    n_stimuli = next(iter(lengths.values()))
    odd = next((name for name, length in lengths.items() if length != n_stimuli), None)
    if odd is not None:
        raise InputError(
            f"layer {odd!r} has {lengths[odd]} stimuli and {next(iter(lengths))!r} has {n_stimuli}; "
            "every layer needs one row per stimulus"
        )
    names = tuple(str(k) for k in range(n_stimuli)) if ids is None else tuple(str(i) for i in ids)
    if len(names) != n_stimuli:
        raise InputError(f"{len(names)} ids were given for {n_stimuli} rows; give one id per row")
    block = min(n_stimuli, 64) if block is None else block
    plan = plan_store(
        path,
        {name: (values.shape[1:], (dims or {}).get(name)) for name, values in checked.items()},
        names,
        block,
        labels,
        attrs,
        _identity_of(names, labels or {}, checked, attrs or {}, dtype),
        dtype,
        chunk_bytes,
    )
    with create_store(plan, overwrite=overwrite) as writer:
        if dtype == "float16":
            for name, values in checked.items():
                flat = values.reshape(n_stimuli, -1)
                finite = np.isfinite(flat)
                centre = np.where(finite, flat, 0).sum(0, dtype=np.float64) / np.maximum(finite.sum(0), 1)
                writer.set_centre(name, centre.astype(np.float32))
        for index in range(plan.n_blocks):
            start, stop = plan.block_rows(index)
            rows = {name: np.asarray(values[start:stop], dtype=np.float32) for name, values in checked.items()}
            writer.write_block(index, rows)
        return writer.complete()


def _identity_of(
    ids: Sequence[str],
    labels: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any],
    dtype: str,
) -> str:
    """Everything that determines the stored bytes, as one sha256.

    Parameters
    ----------
    ids : sequence of str
        Stimulus ids.
    labels : mapping of str to array
        Stimulus labels.
    arrays : mapping of str to ndarray
        Values per layer.
    attrs : mapping
        Provenance.
    dtype : str
        How values are kept.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    digest = hashlib.sha256()
    header = {
        "ids": list(ids),
        "labels": {name: [str(value) for value in np.asarray(values).tolist()] for name, values in labels.items()},
        "attrs": dict(attrs),
        "dtype": dtype,
        "layers": [[name, list(values.shape), values.dtype.str] for name, values in arrays.items()],
    }
    digest.update(json.dumps(header, sort_keys=True, default=str).encode())
    for values in arrays.values():
        step = max(1, (1 << 24) // max(1, values[:1].nbytes))
        for start in range(0, len(values), step):
            digest.update(np.ascontiguousarray(values[start : start + step]).tobytes())
    return digest.hexdigest()
