"""The layout of a store: its template of metadata and coordinates, and how its arrays are found again.

Chunk keys are flat (``c.0.3``), so that a layer is one folder and one directory entry per chunk needs syncing.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import CorruptStoreError, InputError
from actkit.store_chunks import ChunkTable
from actkit.store_files import METADATA, canonical_json
from actkit.store_plan import LayerPlan, StorePlan, node_names

if TYPE_CHECKING:
    import zarr

SCHEMA = 1
ACTIVATION = "activation"
CENTRE = "centre"

_ZARR_LOCK = threading.RLock()
_ZARRS_PIPELINE = "zarrs.ZarrsCodecPipeline"
_PLAIN_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"


def template(plan: StorePlan) -> dict[str, bytes]:
    """Everything of a store that is known before the first block.

    Parameters
    ----------
    plan : StorePlan
        The plan.

    Returns
    -------
    dict of str to bytes
        Content of each file by its path inside the store: the metadata of every group and array, the
        coordinates and the labels. The root says ``complete: false``.
    """
    import zarr
    from zarr.storage import MemoryStore

    labels = label_variables(plan.labels)
    nodes = node_names([layer.name for layer in plan.layers], taken=["stimulus", *labels])
    attrs: dict[str, Any] = {
        "actkit_store": SCHEMA,
        "complete": False,
        "identity": plan.identity,
        "n_stimuli": plan.n_stimuli,
        "block": plan.block,
        "layers": [{"name": layer.name, "node": nodes[layer.name]} for layer in plan.layers],
        "labels": labels,
        "provenance": dict(plan.attrs),
    }
    if labels:
        attrs["coordinates"] = " ".join(labels)  # CF: makes them coordinates, not variables, wherever xarray opens it
    memory: dict[str, Any] = {}
    with _ZARR_LOCK, zarr.config.set({"codec_pipeline.path": _PLAIN_PIPELINE}):  # zarrs cannot write to memory
        root = zarr.create_group(MemoryStore(memory), attributes=attrs)
        _put(root, "stimulus", np.asarray(plan.ids, dtype=str), ["stimulus"])
        for variable, label in labels.items():
            _put(root, variable, label_values(label, plan.labels[label]), ["stimulus"], {"label": label})
        for order, layer in enumerate(plan.layers):
            group = root.create_group(
                nodes[layer.name], attributes={"layer": layer.name, "order": order, **dict(layer.attrs)}
            )
            group.create_array(
                ACTIVATION,
                shape=(plan.n_stimuli, *layer.shape),
                dtype=layer.dtype,
                chunks=layer.chunks,
                fill_value=float("nan"),
                dimension_names=["stimulus", *layer.dims],
                attributes=(
                    {"centred": True, "long_name": "activation minus centre; add the variable centre"}
                    if layer.dtype == "float16"
                    else {"long_name": "activation"}
                ),
                **_codecs(),
            )
            if layer.dtype == "float16":
                group.create_array(
                    CENTRE,
                    shape=layer.shape,
                    dtype="float32",
                    chunks=layer.shape,
                    fill_value=float("nan"),
                    dimension_names=list(layer.dims),
                    attributes={"long_name": "what was subtracted from each unit before rounding to float16"},
                    **_codecs(),
                )
            for dim, values in layer.coords.items():
                _put(group, dim, label_values(dim, values), [dim])
    files = {}
    for key, value in memory.items():
        content = bytes(value.to_bytes())
        files[key] = canonical_json(json.loads(content)) if key.rpartition("/")[2] == METADATA else content
    return files


def label_variables(labels: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Names under which stimulus labels are kept: no white space or slash, which CF and Zarr cannot carry.

    Parameters
    ----------
    labels : mapping
        Labels by name.

    Returns
    -------
    dict of str to str
        Variable name to label name.

    Raises
    ------
    InputError
        If a label is called like a dimension, or two become the same variable.
    """
    variables: dict[str, str] = {}
    for label in labels:
        variable = "_".join(str(label).replace("/", " ").split())
        if variable in ("stimulus", "unit", "channel", "y", "x", "time", "") or variable.startswith(("__", ".")):
            raise InputError(f"a stimulus label cannot be called {label!r}: the store uses that name; rename the label")
        if variable in variables:
            raise InputError(
                f"the stimulus labels {variables[variable]!r} and {label!r} would both be kept as {variable!r}; "
                "rename one"
            )
        variables[variable] = label
    return variables


def label_values(label: str, values: Any) -> np.ndarray:
    """Values of a label or coordinate in a type that Zarr specifies: text, bool, integer or float.

    Parameters
    ----------
    label : str
        Name for the message.
    values : array_like
        One-dimensional.

    Returns
    -------
    ndarray
        Objects and categories become text.
    """
    array = np.asarray(values)
    if array.dtype.kind in "OSUT":
        items = [item.decode() if isinstance(item, bytes) else str(item) for item in array.tolist()]
        return np.asarray(items, dtype=str)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(
            f"the label {label!r} has the dtype {array.dtype}; a store keeps text, bool, integers and floats"
        )
    return array.astype(array.dtype.newbyteorder("="))


def _codecs() -> dict[str, Any]:
    from zarr.codecs import Crc32cCodec

    return {
        "compressors": [Crc32cCodec()],
        "filters": None,
        "chunk_key_encoding": {"name": "default", "separator": "."},
        # An all-fill chunk must be a file too: a missing file reads silently as the fill value.
        "config": {"write_empty_chunks": True},
    }


def _put(
    group: zarr.Group, name: str, values: np.ndarray, dims: list[str], attrs: dict[str, Any] | None = None
) -> None:
    """A small array in one chunk."""
    text = values.dtype.kind == "U"
    array = group.create_array(
        name,
        shape=values.shape,
        # Text of any length: the one string type with a stable Zarr v3 specification, so nobody is warned.
        dtype=str if text else values.dtype,
        chunks=values.shape,
        fill_value="" if text else values.dtype.type(0),
        dimension_names=dims,
        attributes=attrs or {},
        **_codecs(),
    )
    array[...] = values.astype(object) if text else values


@contextmanager
def using_zarr() -> Iterator[None]:
    """Open arrays with the zarrs pipeline, which Zarr takes from a process-global setting when it opens them."""
    import zarr
    import zarrs  # noqa: F401 (the pipeline's module must be loaded)

    with _ZARR_LOCK, zarr.config.set({"codec_pipeline.path": _ZARRS_PIPELINE}):
        yield


def open_array(path: Path) -> zarr.Array:
    """Open one array of a store for reading through Zarr and zarrs.

    Parameters
    ----------
    path : Path
        Folder of the array.

    Returns
    -------
    zarr.Array
        Nothing is read yet.
    """
    import zarr

    with using_zarr():
        return zarr.open_array(path, mode="r")


def consolidated(root: dict[str, Any], nodes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The root's metadata with every node's inside, as Zarr's consolidated metadata has it.

    Written here because Zarr's own function rewrites the file in place and warns.

    Parameters
    ----------
    root : dict
        The root's own document.
    nodes : mapping of str to dict
        Document of each group and array by path.

    Returns
    -------
    dict
        The document of the complete store.
    """
    inside = {}
    for path in sorted(nodes, key=lambda path: (path.count("/"), path)):
        document = dict(nodes[path])
        if document["node_type"] == "group":
            document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {}}
        inside[path] = document
    entry = {"kind": "inline", "must_understand": False, "metadata": inside}
    return {
        "attributes": root["attributes"],
        "zarr_format": 3,
        "consolidated_metadata": entry,
        "node_type": "group",
    }


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A root document that carries its own sha256, so that damage to the metadata can be noticed.

    Parameters
    ----------
    document : dict
        The root's document.

    Returns
    -------
    dict
        With the attribute ``metadata_sha256``, taken over the document without it.
    """
    attributes = {key: value for key, value in document["attributes"].items() if key != "metadata_sha256"}
    bare = {**document, "attributes": attributes}
    attributes = {**attributes, "metadata_sha256": hashlib.sha256(canonical_json(bare)).hexdigest()}
    return {**document, "attributes": attributes}


def layer_table_of(folder: Path, layer: str, plan: LayerPlan, n_stimuli: int) -> ChunkTable:
    """The chunk files of a planned layer.

    Parameters
    ----------
    folder : Path
        The layer's group.
    layer : str
        Name for messages.
    plan : LayerPlan
        The layer.
    n_stimuli : int
        Rows.

    Returns
    -------
    ChunkTable
        Nothing is read.
    """
    return ChunkTable(
        folder / ACTIVATION,
        layer,
        n_stimuli,
        plan.n_units,
        plan.chunks[0],
        plan.width,
        np.dtype(plan.dtype).newbyteorder("<"),
        len(plan.chunks),
    )


def centre_table(folder: Path, layer: str, shape: Sequence[int]) -> ChunkTable:
    """The one chunk file of a layer's centre, as a table of one row.

    Parameters
    ----------
    folder : Path
        The layer's group.
    layer : str
        Name for messages.
    shape : sequence of int
        Shape of one stimulus' activation.

    Returns
    -------
    ChunkTable
        Nothing is read.
    """
    units = math.prod(shape)
    return ChunkTable(folder / CENTRE, f"{layer} (centre)", 1, units, 1, units, np.dtype("<f4"), len(shape))


def table_of(folder: Path, layer: str, document: Mapping[str, Any]) -> ChunkTable | ZarrTable:
    """How the chunks of an array are read: as raw files where the layout is actkit's own, else through Zarr.

    Parameters
    ----------
    folder : Path
        Folder of the array.
    layer : str
        Name for messages.
    document : mapping
        The array's metadata.

    Returns
    -------
    ChunkTable or object with the same reading methods
        Nothing is read.
    """
    shape = tuple(document["shape"])
    chunks = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
    if raw_layout(document):
        return ChunkTable(
            folder,
            layer,
            shape[0],
            math.prod(shape[1:]),
            chunks[0],
            math.prod(chunks[1:]),
            np.dtype(document["data_type"]).newbyteorder("<"),
            len(shape),
        )
    return ZarrTable(folder, layer, shape, chunks, np.dtype(document["data_type"]))


def raw_layout(document: Mapping[str, Any]) -> bool:
    """Whether an array's chunk files are plain values and a checksum, cut along the first two dimensions only."""
    codecs = [codec["name"] for codec in document["codecs"]]
    endian = document["codecs"][0].get("configuration", {}).get("endian", "little")
    key = document["chunk_key_encoding"]
    chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
    return (
        codecs == ["bytes", "crc32c"]
        and endian == "little"
        and document["data_type"] in ("float32", "float16")
        and document["chunk_grid"]["name"] == "regular"
        and (key["name"], key.get("configuration", {}).get("separator")) == ("default", ".")
        and list(chunks[2:]) == list(document["shape"][2:])
    )


class ZarrTable:
    """The reading half of ChunkTable for stores that another tool rewrote (compressed, sharded, rechunked)."""

    def __init__(
        self, folder: Path, layer: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.folder, self.layer, self.dtype, self.shape = folder, layer, dtype, shape
        self.n_rows, self.n_units = shape[0], math.prod(shape[1:])
        self.chunk_rows, self.columns_per_chunk = chunks[0], (chunks[1] if len(chunks) > 1 else 1)
        self.rest = math.prod(shape[2:])
        self.width = self.columns_per_chunk * self.rest
        self.chunk_nbytes = self.chunk_rows * self.width * dtype.itemsize
        self.grid = (math.ceil(self.n_rows / self.chunk_rows), math.ceil(self.n_units / self.width))
        self._array: Any = None

    def rows(self, i: int) -> tuple[int, int]:
        """First and end row of a chunk row."""
        return i * self.chunk_rows, min((i + 1) * self.chunk_rows, self.n_rows)

    def columns(self, j: int) -> tuple[int, int]:
        """First and end unit of a chunk column."""
        return j * self.width, min((j + 1) * self.width, self.n_units)

    def read(self, i: int, j: int) -> np.ndarray:
        """Read the valid part of a chunk, shape (rows, columns)."""
        if self._array is None:
            self._array = open_array(self.folder)
        (r0, r1), first = self.rows(i), j * self.columns_per_chunk
        try:
            values = self._array[r0:r1, first : first + self.columns_per_chunk]
        except Exception as error:
            raise CorruptStoreError(
                f"layer {self.layer!r}, stimuli {r0} to {r1}: {self.folder} cannot be read ({error}); record the store "
                "again with overwrite=True"
            ) from error
        return np.asarray(values).reshape(r1 - r0, -1)

    def read_into(self, i: int, j: int, out: np.ndarray) -> None:
        """Read the valid part of a chunk into the caller's memory."""
        out[...] = self.read(i, j)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}
