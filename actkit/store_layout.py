"""The bytes of a store: the template of metadata and coordinates, and chunk files read and written directly.

A layer is one Zarr v3 array with the codecs ``bytes`` (little endian) and ``crc32c``, without compression
or sharding. A chunk file is then nothing but the chunk's values in C order followed by their 4-byte
checksum. :class:`ChunkTable` reads and writes these files itself: it moves the bytes between the file and the
caller's memory in one copy, knows which file, layer and rows a bad checksum belongs to, and gets the operating
system's own error when a disk is full. Zarr and zarrs read the same files; a property test holds both to the
same values.

Chunk keys are flat (``c.0.3``), so that a layer is one folder and one directory entry per chunk needs syncing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import google_crc32c
import numpy as np

from actkit.errors import CorruptStoreError, InputError
from actkit.store_plan import CHECKSUM_BYTES, LayerPlan, StorePlan, node_names

if TYPE_CHECKING:
    import zarr

SCHEMA = 1
JOURNAL = "journal.jsonl"
RESERVE = "reserve"
METADATA = "zarr.json"
PARTIAL = ".partial"
ACTIVATION = "activation"
CENTRE = "centre"

_IOV_MAX = min(os.sysconf("SC_IOV_MAX"), 1024) if hasattr(os, "sysconf") else 16
# Read and summed in turns of this size: the checksum then finds the bytes in the cache of the core that read them.
_TURN_BYTES = 1 << 19
_DIRECT_ROW_BYTES = 8192  # shorter pieces cost more as separate vectors than as one copy through scratch memory
_ZARR_LOCK = threading.RLock()
_ZARRS_PIPELINE = "zarrs.ZarrsCodecPipeline"
_PLAIN_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"
_SCRATCH = threading.local()


# ---------------------------------------------------------------------------------------------------------------
# Files that survive a power cut
# ---------------------------------------------------------------------------------------------------------------


def fsync_path(path: Path) -> None:
    """Make a file's content, or a folder's new, renamed and deleted entries, durable.

    Parameters
    ----------
    path : Path
        An existing file or folder.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems refuse to sync folders; they order directory operations themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file in one step: written beside it, synced, renamed over it.

    Parameters
    ----------
    path : Path
        The file.
    content : bytes
        Its new content.
    """
    beside = path.with_name(path.name + PARTIAL)
    with open(beside, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)
    fsync_path(path.parent)


def canonical_json(document: Any) -> bytes:
    """The one spelling of a metadata document, so that any changed byte of it can be noticed.

    Parameters
    ----------
    document : object
        JSON-able.

    Returns
    -------
    bytes
        Indented JSON with a line break at the end.
    """
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


# ---------------------------------------------------------------------------------------------------------------
# Chunk files
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkTable:
    """An array of a store seen as a table of raw chunk files: rows × flattened units.

    Attributes
    ----------
    folder : Path
        Folder of the Zarr array.
    layer : str
        Name for messages.
    n_rows, n_units : int
        Extent of the table.
    chunk_rows, width : int
        Extent of a chunk; edge chunks are kept whole on disk, filled with ``fill``.
    dtype : numpy.dtype
        Stored type, little endian.
    rank : int
        Dimensions of the Zarr array; the ones after the second are never cut.
    """

    folder: Path
    layer: str
    n_rows: int
    n_units: int
    chunk_rows: int
    width: int
    dtype: np.dtype
    rank: int

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of a chunk file, checksum included."""
        return self.chunk_rows * self.width * self.dtype.itemsize + CHECKSUM_BYTES

    @property
    def grid(self) -> tuple[int, int]:
        """Number of chunks along rows and along units."""
        return math.ceil(self.n_rows / self.chunk_rows), math.ceil(self.n_units / self.width)

    def name(self, i: int, j: int) -> str:
        """File name of a chunk."""
        return ".".join(["c", str(i), *([str(j)] if self.rank > 1 else []), *["0"] * (self.rank - 2)])

    def path(self, i: int, j: int) -> Path:
        """File of a chunk."""
        return self.folder / self.name(i, j)

    def rows(self, i: int) -> tuple[int, int]:
        """First and end row of a chunk row."""
        return i * self.chunk_rows, min((i + 1) * self.chunk_rows, self.n_rows)

    def columns(self, j: int) -> tuple[int, int]:
        """First and end unit of a chunk column."""
        return j * self.width, min((j + 1) * self.width, self.n_units)

    # -- writing ------------------------------------------------------------------------------------------------

    def write(self, i: int, j: int, values: np.ndarray) -> None:
        """Write one chunk file and sync it.

        Parameters
        ----------
        i, j : int
            Chunk row and column.
        values : ndarray
            The valid part of the chunk, shape (rows, columns), of the stored dtype.

        Raises
        ------
        OSError
            As the operating system reports it (``ENOSPC`` on a full disk).
        """
        pieces = self._pieces(values)
        checksum = 0
        for piece in pieces:
            checksum = google_crc32c.extend(checksum, cast(bytes, piece))
        buffers = [memoryview(piece).cast("B") for piece in pieces]
        buffers.append(memoryview(checksum.to_bytes(CHECKSUM_BYTES, "little")))
        handle = os.open(self.path(i, j), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            _write_all(handle, buffers)
            os.fsync(handle)
        finally:
            os.close(handle)

    def _pieces(self, values: np.ndarray) -> list[np.ndarray]:
        """Contiguous arrays that make up the chunk file, without a copy where rows are long."""
        rows, columns = values.shape
        whole = rows == self.chunk_rows and columns == self.width
        if whole and values.flags.c_contiguous:
            return [values.reshape(-1)]
        if (
            columns == self.width
            and values.strides[1] == values.itemsize
            and columns * values.itemsize >= _DIRECT_ROW_BYTES
        ):
            pieces = list(values)
            if rows < self.chunk_rows:
                pieces.append(np.full((self.chunk_rows - rows) * self.width, np.nan, self.dtype))
            return pieces
        chunk = np.full((self.chunk_rows, self.width), np.nan, self.dtype)
        chunk[:rows, :columns] = values
        return [chunk.reshape(-1)]

    # -- reading ------------------------------------------------------------------------------------------------

    def read_into(self, i: int, j: int, out: np.ndarray) -> None:
        """Read the valid part of one chunk straight into the caller's memory, checking it on the way.

        Parameters
        ----------
        i, j : int
            Chunk row and column.
        out : ndarray
            Shape (rows, columns) of the valid part; may be a slice of a larger array. Its dtype may differ
            from the stored one, which costs a second copy.

        Raises
        ------
        CorruptStoreError
            If the file is missing, has another size or fails its checksum.
        """
        rows, columns = out.shape
        direct = (
            out.dtype == self.dtype
            and columns == self.width
            and out.strides[1] == out.itemsize
            and (out.flags.c_contiguous or columns * out.itemsize >= _DIRECT_ROW_BYTES)
        )
        if not direct:
            out[...] = self.read(i, j)[:rows, :columns]
            return
        pieces = [out.reshape(-1)] if out.flags.c_contiguous else list(out)
        if rows < self.chunk_rows:
            pieces.append(scratch((self.chunk_rows - rows) * self.width * self.dtype.itemsize).view(self.dtype))
        self._read_pieces(i, j, pieces)

    def read(self, i: int, j: int) -> np.ndarray:
        """Read a whole chunk, fill included, into this thread's scratch memory, checking it.

        Parameters
        ----------
        i, j : int
            Chunk row and column.

        Returns
        -------
        ndarray
            Shape (chunk_rows, width). Valid until this thread reads again: copy what is kept.

        Raises
        ------
        CorruptStoreError
            If the file is missing, has another size or fails its checksum.
        """
        chunk = scratch(self.chunk_nbytes - CHECKSUM_BYTES).view(self.dtype)
        self._read_pieces(i, j, [chunk])
        return chunk.reshape(self.chunk_rows, self.width)

    def _read_pieces(self, i: int, j: int, pieces: Sequence[np.ndarray]) -> None:
        fault = self._try_read(self.path(i, j), pieces)
        if fault:
            start, stop = self.rows(i)
            raise CorruptStoreError(
                f"layer {self.layer!r}, stimuli {start} to {stop}: the chunk file {self.path(i, j)} {fault}; its values "
                "cannot be trusted. `actkit store verify` lists everything that is damaged; record the store again "
                "with overwrite=True"
            )

    def _try_read(self, path: Path, pieces: Sequence[np.ndarray]) -> str:
        """Fill the pieces from a file; what is wrong with it, or nothing."""
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        try:
            size = os.fstat(handle).st_size
            if size != self.chunk_nbytes:
                return f"has {size} bytes instead of {self.chunk_nbytes}"
            checksum = 0
            for turn in _turns(pieces):
                _read_all(handle, [memoryview(piece).cast("B") for piece in turn])
                for piece in turn:
                    checksum = google_crc32c.extend(checksum, cast(bytes, piece))
            tail = os.read(handle, CHECKSUM_BYTES)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        finally:
            os.close(handle)
        return "" if checksum == int.from_bytes(tail, "little") else "does not match its checksum"

    def fault(self, i: int, j: int) -> str:
        """What is wrong with a chunk file, in words; empty when it is sound.

        Parameters
        ----------
        i, j : int
            Chunk row and column.

        Returns
        -------
        str
            ``"is missing"``, ``"has 3 bytes instead of 8"``, ``"does not match its checksum"`` or ``""``.
        """
        return self._try_read(self.path(i, j), [scratch(self.chunk_nbytes - CHECKSUM_BYTES)])


def scratch(nbytes: int) -> np.ndarray:
    """This thread's reusable memory: warm pages, so that a pass over a store does not fault in fresh ones.

    Parameters
    ----------
    nbytes : int
        Bytes wanted.

    Returns
    -------
    ndarray
        Of uint8, overwritten by the thread's next call.
    """
    held = getattr(_SCRATCH, "memory", None)
    if held is None or held.nbytes < nbytes:
        held = np.empty(nbytes, np.uint8)
        _SCRATCH.memory = held
    return held[:nbytes]


def _write_all(handle: int, buffers: list[memoryview]) -> None:
    """Write buffers one after the other; a short write goes on where it stopped."""
    while buffers:
        written = os.writev(handle, buffers[:_IOV_MAX])
        buffers = _after(buffers, written)


def _read_all(handle: int, buffers: list[memoryview]) -> None:
    """Fill buffers one after the other from the start of a file."""
    while buffers:
        got = os.readv(handle, buffers[:_IOV_MAX])
        if not got:
            raise OSError(errno.EIO, "the file ended early")
        buffers = _after(buffers, got)


def _turns(pieces: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Contiguous arrays, cut and grouped into turns of about ``_TURN_BYTES``."""
    turn: list[np.ndarray] = []
    size = 0
    for piece in pieces:
        step = max(1, _TURN_BYTES // piece.itemsize)
        for start in range(0, len(piece), step):
            part = piece[start : start + step] if len(piece) > step else piece
            turn.append(part)
            size += part.nbytes
            if size >= _TURN_BYTES:
                yield turn
                turn, size = [], 0
    if turn:
        yield turn


def _after(buffers: list[memoryview], done: int) -> list[memoryview]:
    """What is left of buffers after the first ``done`` bytes."""
    for k, buffer in enumerate(buffers):
        if done < buffer.nbytes:
            return [buffer[done:], *buffers[k + 1 :]]
        done -= buffer.nbytes
    return []


# ---------------------------------------------------------------------------------------------------------------
# The template: all metadata and coordinates
# ---------------------------------------------------------------------------------------------------------------


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
                f"the stimulus labels {variables[variable]!r} and {label!r} would both be kept as {variable!r}; rename one"
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


def _put(group: zarr.Group, name: str, values: np.ndarray, dims: list[str], attrs: dict[str, Any] | None = None) -> None:
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
