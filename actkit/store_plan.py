"""What a store will hold, decided before the first byte is written: layers, chunks, bytes, files and free disk.

Everything here is arithmetic. Nothing touches the disk except :attr:`StorePlan.free`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from actkit.errors import DiskFullError, InputError

StoreDtype = Literal["float32", "float16"]

CHUNK_BYTES = 4 * 2**20
CHECKSUM_BYTES = 4
# What a file costs beside its bytes on a usual file system (half a block, an inode): enters the disk check only.
FILE_OVERHEAD = 4096
_SPATIAL_DIMS = ("unit", "channel", "y", "x", "time")


@dataclass(frozen=True)
class LayerPlan:
    """One layer of a store, before it exists.

    Attributes
    ----------
    name : str
        The layer's name in the network.
    shape : tuple of int
        Shape of one stimulus' activation, without the stimulus dimension.
    dims : tuple of str
        Names of ``shape``'s dimensions: ``("unit",)``, ``("channel", "y", "x")``.
    dtype : {"float32", "float16"}
        How it is kept on disk. ``float16`` keeps x minus the unit's centre.
    chunks : tuple of int
        Chunk shape, stimulus dimension first. Only the first two dimensions are cut.
    attrs : mapping
        Attributes of the layer (type, call, reducer); must be JSON-able.
    coords : mapping of str to ndarray
        Coordinates along ``dims``.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: StoreDtype
    chunks: tuple[int, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_units(self) -> int:
        """Number of values per stimulus."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes per stored value."""
        return np.dtype(self.dtype).itemsize

    @property
    def width(self) -> int:
        """Units in one chunk: the chunk's extent along the flattened units."""
        return math.prod(self.chunks[1:])

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of one chunk file, checksum included."""
        return math.prod(self.chunks) * self.itemsize + CHECKSUM_BYTES

    def grid(self, n_stimuli: int) -> tuple[int, int]:
        """Number of chunks along stimuli and along units."""
        return math.ceil(n_stimuli / self.chunks[0]), math.ceil(self.shape[0] / self.chunks[1])


@dataclass(frozen=True)
class StorePlan:
    """A whole store, before it exists: what will be written, where, and how much room it takes.

    Attributes
    ----------
    path : Path
        Folder of the store.
    ids : tuple of str
        Stimulus ids in row order; unique.
    labels : mapping of str to ndarray
        One value per stimulus: category, identity, …
    layers : tuple of LayerPlan
        In execution order.
    block : int
        Stimuli per block: the unit of writing, of resuming and of loss.
    attrs : mapping
        Provenance (weights, preprocessing, stimuli, versions, seeds); must be JSON-able.
    identity : str
        sha256 over everything that determines the stored bytes.
    """

    path: Path
    ids: tuple[str, ...]
    labels: Mapping[str, np.ndarray]
    layers: tuple[LayerPlan, ...]
    block: int
    attrs: Mapping[str, Any]
    identity: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "ids", tuple(str(i) for i in self.ids))
        object.__setattr__(self, "layers", tuple(self.layers))
        _check_plan(self)

    @property
    def n_stimuli(self) -> int:
        """Number of rows of every layer."""
        return len(self.ids)

    @property
    def n_blocks(self) -> int:
        """Number of blocks, the last one possibly shorter."""
        return math.ceil(self.n_stimuli / self.block)

    @property
    def bytes(self) -> int:
        """Bytes of all chunk files (edge chunks are kept whole) plus an estimate of the metadata."""
        return self.bytes_of_blocks(self.n_blocks) + self._side_bytes()

    @property
    def files(self) -> int:
        """Number of files: chunks, centres, coordinates and metadata."""
        return 2 + len(self.labels) * 2 + 1 + sum(self._layer_files(layer) for layer in self.layers)

    @property
    def free(self) -> int:
        """Bytes free on the disk that holds (or will hold) the store."""
        folder = self.path.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def block_rows(self, index: int) -> tuple[int, int]:
        """First row and end row of a block."""
        return index * self.block, min((index + 1) * self.block, self.n_stimuli)

    def bytes_of_blocks(self, n_blocks: int) -> int:
        """Bytes of the chunk files of that many leading blocks, over all layers."""
        rows = min(n_blocks * self.block, self.n_stimuli)
        return sum(math.prod(layer.grid(rows)) * layer.chunk_nbytes for layer in self.layers)

    def check_disk(self, needed: int | None = None, reusable: int = 0) -> None:
        """Refuse before starting when the store does not fit.

        Parameters
        ----------
        needed : int, optional
            Bytes still to be written; the whole plan by default.
        reusable : int
            Bytes that a store about to be replaced will give back.

        Raises
        ------
        DiskFullError
            Naming the bytes needed, the bytes free and the cures.
        """
        wanted = (self.bytes if needed is None else needed) + self.files * FILE_OVERHEAD
        free = self.free + reusable
        if wanted > free:
            raise DiskFullError(
                f"the store {self.path} needs {size_text(wanted)} ({self.n_stimuli} stimuli × {len(self.layers)} "
                f"layers) and the disk has {size_text(free)} free; nothing was written. Record fewer layers, use a "
                "reducer (reduce='mean' keeps one value per channel), keep dtype='float16' (half the bytes), or choose "
                "another disk"
            )

    def describe(self) -> str:
        """The plan as a table for people."""
        lines = [
            f"store    {self.path}",
            f"stimuli  {self.n_stimuli} in {self.n_blocks} block{'s' * (self.n_blocks != 1)} of {self.block}",
            f"size     {size_text(self.bytes)} in {self.files} files; {size_text(self.free)} free on this disk",
            "",
            layer_table(
                [
                    (layer.name, layer.dims, layer.shape, layer.dtype, layer.chunks, self._layer_bytes(layer))
                    for layer in self.layers
                ]
            ),
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe()

    def _layer_bytes(self, layer: LayerPlan) -> int:
        return math.prod(layer.grid(self.n_stimuli)) * layer.chunk_nbytes

    def _layer_files(self, layer: LayerPlan) -> int:
        centre = 2 if layer.dtype == "float16" else 0
        return 2 + math.prod(layer.grid(self.n_stimuli)) + centre + 2 * len(layer.coords)

    def _side_bytes(self) -> int:
        """Centres, coordinates and labels exactly enough, metadata (kept twice) by a rule of thumb."""
        side = sum(len(i.encode()) + 4 for i in self.ids)
        side += sum(np.asarray(values).nbytes for values in self.labels.values())
        for layer in self.layers:
            side += sum(np.asarray(values).nbytes for values in layer.coords.values())
            side += layer.n_units * 4 if layer.dtype == "float16" else 0
            side += 2 * (1500 * (2 + len(layer.coords)) + len(json.dumps(dict(layer.attrs), default=str)))
        return side + 8192 + len(json.dumps(dict(self.attrs), default=str))


def plan_layer(
    name: str,
    shape: Sequence[int],
    dims: Sequence[str] | None,
    n_stimuli: int,
    block: int,
    dtype: StoreDtype = "float32",
    chunk_bytes: int = CHUNK_BYTES,
    attrs: Mapping[str, Any] | None = None,
    coords: Mapping[str, np.ndarray] | None = None,
) -> LayerPlan:
    """Decide how one layer is cut into chunks.

    Chunks hold about ``chunk_bytes`` and are cut along stimuli and along units (channels for maps),
    so that row blocks and column blocks both read little more than they need. A chunk has as many rows
    as a block, unless one block of a single unit (channel) is already larger: then the largest divisor
    of the block that fits. The width divides the layer where a divisor lies between half and one and a
    half times the target; otherwise the layer is cut into equal widths with the remainder in the last.

    Parameters
    ----------
    name : str
        The layer's name.
    shape : sequence of int
        Shape of one stimulus' activation.
    dims : sequence of str or None
        Names of the dimensions. None names them by rank: 1 is ``unit``, 3 is ``channel, y, x``; any other
        rank is flattened to ``unit`` and keeps its shape as the attribute ``original_shape``.
    n_stimuli : int
        Number of rows.
    block : int
        Stimuli per block.
    dtype : {"float32", "float16"}
        How it is kept.
    chunk_bytes : int
        Target size of a chunk in bytes.
    attrs, coords : mapping, optional
        See :class:`LayerPlan`. ``unit`` or ``channel`` gets its index as coordinate when none is given.

    Returns
    -------
    LayerPlan
        The planned layer.

    Raises
    ------
    InputError
        If shape, dims, dtype or block cannot be used.

    Examples
    --------
    >>> plan_layer("fc", (4096,), ("unit",), n_stimuli=1000, block=64).chunks
    (64, 4096)
    >>> plan_layer("conv", (64, 112, 112), None, n_stimuli=1000, block=64).chunks
    (64, 1, 112, 112)
    """
    shape = tuple(int(size) for size in shape)
    attrs = dict(attrs or {})
    if dims is None:
        if len(shape) == 3:
            dims = ("channel", "y", "x")
        else:
            if len(shape) != 1:
                attrs["original_shape"] = list(shape)
                shape = (math.prod(shape),)
            dims = ("unit",)
    dims = tuple(dims)
    if len(dims) != len(shape) or len(set(dims)) != len(dims) or not set(dims) <= set(_SPATIAL_DIMS) or not dims:
        raise InputError(
            f"layer {name!r}: dims {dims} do not name the shape {shape}; give one distinct name of "
            f"{', '.join(_SPATIAL_DIMS)} per dimension, or dims=None to flatten to units"
        )
    if any(size < 1 for size in shape):
        raise InputError(f"layer {name!r} has the shape {shape}: an empty layer cannot be recorded; leave it out")
    if dtype not in ("float32", "float16"):
        raise InputError(f"layer {name!r}: dtype is {dtype!r}; a store keeps 'float32' or 'float16'")
    if n_stimuli < 1 or block < 1 or chunk_bytes < 1:
        raise InputError(
            f"layer {name!r}: n_stimuli={n_stimuli}, block={block}, chunk_bytes={chunk_bytes}; each must be at least 1"
        )
    coords = {key: np.asarray(values) for key, values in (coords or {}).items()}
    if dims[0] in ("unit", "channel") and dims[0] not in coords:
        coords[dims[0]] = np.arange(shape[0], dtype=np.int32)
    column_bytes = math.prod(shape[1:]) * np.dtype(dtype).itemsize
    rows = chunk_rows(n_stimuli, block, column_bytes, chunk_bytes)
    width = chunk_width(shape[0], max(1, chunk_bytes // (rows * column_bytes)))
    return LayerPlan(name, shape, dims, dtype, (rows, width, *shape[1:]), attrs, coords)


def chunk_rows(n_stimuli: int, block: int, column_bytes: int, chunk_bytes: int) -> int:
    """Rows of a chunk: the whole block, or its largest divisor for which a single column fits in a chunk.

    Parameters
    ----------
    n_stimuli, block : int
        Rows of the layer and of a block.
    column_bytes : int
        Bytes of one unit (channel) of one stimulus.
    chunk_bytes : int
        Target size of a chunk.

    Returns
    -------
    int
        At least 1; divides ``block`` unless there is only one block.
    """
    rows = min(block, n_stimuli)
    if rows * column_bytes <= chunk_bytes:
        return rows
    most = max(1, chunk_bytes // column_bytes)
    return max(divisor for divisor in range(1, min(most, rows) + 1) if rows % divisor == 0)


def chunk_width(total: int, target: int) -> int:
    """Columns of a chunk: near the target, and a divisor of the layer where there is one.

    Parameters
    ----------
    total : int
        Columns of the layer (units, or channels for maps).
    target : int
        Columns that fill a chunk.

    Returns
    -------
    int
        The divisor of ``total`` within half to one and a half times ``target`` that lies nearest to it;
        without one, ``total`` cut into equal parts of at most ``target``, the last a little narrower.

    Examples
    --------
    >>> chunk_width(4096, 1000), chunk_width(1009, 500), chunk_width(10, 500)
    (1024, 337, 10)
    """
    if total <= target * 3 // 2:
        # One and a half chunks are left in one, unless a divisor comes closer to the target.
        candidates = [total]
    else:
        candidates = []
    for parts in range(max(1, math.floor(total / (1.5 * target))), math.ceil(2 * total / target) + 1):
        if total % parts == 0 and target / 2 <= total // parts <= target * 1.5:
            candidates.append(total // parts)
    if candidates:
        return min(candidates, key=lambda width: (abs(math.log(width / target)), width))
    return math.ceil(total / math.ceil(total / target))


def node_names(layers: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Folder names for layers: the layer's name, escaped where a file system or Zarr would stumble.

    Parameters
    ----------
    layers : sequence of str
        Layer names.
    taken : sequence of str
        Names that are not free (coordinates of the root).

    Returns
    -------
    dict of str to str
        One distinct node name per layer.

    Examples
    --------
    >>> node_names(["features.0@1", "a/b", "stimulus"], taken=["stimulus"])
    {'features.0@1': 'features.0@1', 'a/b': 'a%2Fb', 'stimulus': 'stimulus%'}
    """
    used = {name.casefold() for name in (*taken, "zarr.json", "journal.jsonl", "reserve")}
    nodes: dict[str, str] = {}
    for layer in layers:
        # Case-insensitive file systems and names of dots or leading underscores are why this is not the identity.
        node = quote(layer, safe=" @,;:=+-_.()[]{}!$&'#~") or "%"
        if node.startswith("__") or node.strip(".") == "" or node.endswith(".partial"):
            node = "%" + node
        while node.casefold() in used:
            node += "%"
        used.add(node.casefold())
        nodes[layer] = node
    return nodes


def layer_table(rows: Sequence[tuple[str, Sequence[str], Sequence[int], str, Sequence[int], int]]) -> str:
    """Lay out layers as text: name, dims and shape, dtype, chunks, megabytes.

    Parameters
    ----------
    rows : sequence of (name, dims, shape, dtype, chunks, bytes)
        One per layer.

    Returns
    -------
    str
        Aligned columns under a heading, without a line break at the end.
    """
    cells = [("layer", "per stimulus", "dtype", "chunk", "size")]
    for name, dims, shape, dtype, chunks, nbytes in rows:
        sizes = ", ".join(f"{dim} {size}" for dim, size in zip(dims, shape, strict=True))
        cells.append((name, sizes, dtype, " × ".join(str(size) for size in chunks), size_text(nbytes)))
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    text = []
    for row in cells:
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:4], widths[:4], strict=True))
        text.append(f"{left}  {row[4].rjust(widths[4])}")
    return "\n".join(text)


def size_text(n: int) -> str:
    """Bytes for people: 3 significant digits, decimal units."""
    value, unit = float(n), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):  # noqa: B007 (the unit reached is used)
        if value < 999.5:
            break
        value /= 1000
    return f"{value:.3g} {unit}" if unit != "B" else f"{n} B"


def _check_plan(plan: StorePlan) -> None:
    """Refuse a plan that could not become a readable store."""
    if not plan.ids:
        raise InputError(f"the store {plan.path} would have no stimuli; give at least one")
    if len(set(plan.ids)) != len(plan.ids):
        seen: set[str] = set()
        twice = next(i for i in plan.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise InputError(
            f"the stimulus id {twice!r} occurs more than once; rows are found by id, so every id must be unique"
        )
    if not plan.layers:
        raise InputError(f"the store {plan.path} would have no layers; choose at least one")
    names = [layer.name for layer in plan.layers]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the layer {twice!r} is planned more than once; give every layer one name")
    if plan.block < 1:
        raise InputError(f"block is {plan.block}; a block holds at least one stimulus")
    for layer in plan.layers:
        if len(layer.chunks) != len(layer.shape) + 1 or tuple(layer.chunks[2:]) != tuple(layer.shape[1:]):
            raise InputError(
                f"layer {layer.name!r}: chunks {layer.chunks} must be (rows, columns, *rest) with the rest whole; "
                "use plan_layer()"
            )
        if plan.n_blocks > 1 and plan.block % layer.chunks[0]:
            raise InputError(
                f"layer {layer.name!r}: {layer.chunks[0]} chunk rows do not divide the block of {plan.block} stimuli, "
                "so two blocks would share a file; use plan_layer() with the same block"
            )
        for dim, values in layer.coords.items():
            if dim not in layer.dims or np.shape(values) != (layer.shape[layer.dims.index(dim)],):
                raise InputError(
                    f"layer {layer.name!r}: the coordinate {dim!r} of shape {np.shape(values)} does not fit "
                    f"{dict(zip(layer.dims, layer.shape, strict=True))}"
                )
    for label, values in plan.labels.items():
        if np.shape(values) != (plan.n_stimuli,):
            raise InputError(
                f"the label {label!r} has the shape {np.shape(values)}; it needs one value for each of the "
                f"{plan.n_stimuli} stimuli"
            )
    for what, attrs in (("attrs", plan.attrs), *((f"attrs of layer {p.name!r}", p.attrs) for p in plan.layers)):
        try:
            json.dumps(dict(attrs), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"{what} of the store {plan.path} cannot be kept as JSON: {error}") from None
