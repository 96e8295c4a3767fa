"""Reading a store: lazily as xarray, or in blocks of stimuli or of units in bounded memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from actkit.errors import CorruptStoreError, IncompleteStoreError, InputError, LayerError, StoreError, nearest
from actkit.store_chunks import ChunkTable, decode_float16
from actkit.store_files import METADATA, PARTIAL, journal_lines, read_document
from actkit.store_layout import ACTIVATION, CENTRE, SCHEMA, ZarrTable, open_array, table_of
from actkit.store_plan import layer_table, size_text
from actkit.store_stream import choose_steps, each_chunk, stream

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class _Layer:
    """What the metadata says about one layer."""

    name: str
    folder: Path
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    chunks: tuple[int, ...]
    attrs: dict[str, Any]
    coords: tuple[str, ...]
    table: ChunkTable | ZarrTable

    @property
    def n_units(self) -> int:
        return math.prod(self.shape)

    @property
    def rest(self) -> int:
        """Units per step of the first dimension: 1 for units, y × x for maps."""
        return math.prod(self.shape[1:])


class ActivationStore:
    """An activation store is a recording: one network's activations to one set of stimuli, layer by layer.

    Opening one reads its metadata and nothing else. ``store["layer"]`` is a lazily backed
    :class:`xarray.DataArray`; :meth:`rows`, :meth:`units`, :meth:`row_blocks` and :meth:`unit_blocks` give
    arrays of (stimuli, units), read from the chunk files that are needed, checksums verified on the way.
    Values are always float32: a float16 layer is decoded (its centre is added).

    A store may be pickled and opened in spawned processes. Do not fork a process that has read one through
    ``zarrs``: the child can deadlock.

    Attributes
    ----------
    path : Path
        The folder.
    ids : ndarray of str
        Stimulus ids in row order.
    labels : dict of str to ndarray
        Stimulus labels.
    layers : tuple of str
        Layer names in execution order.
    attrs : dict
        Provenance.
    identity : str
        sha256 over everything that determines the stored bytes.
    block : int
        Stimuli per block when it was written.
    complete : bool
        Whether every block is there.
    notes : list of dict
        Notes of the blocks, one entry per run of equal notes: ``first``, ``last``, ``note``.
    """

    def __init__(self, path: Path, root: Mapping[str, Any]) -> None:
        attributes = root["attributes"]
        self.path = path
        self.layers: tuple[str, ...] = tuple(entry["name"] for entry in attributes["layers"])
        self.attrs: dict[str, Any] = dict(attributes["provenance"])
        self.identity: str = attributes["identity"]
        self.n_stimuli: int = attributes["n_stimuli"]
        self.block: int = attributes["block"]
        self.complete: bool = attributes["complete"]
        self.notes: list[dict[str, Any]] = attributes.get("notes", [])
        self._label_variables: dict[str, str] = attributes["labels"]
        self._nodes = {entry["name"]: entry["node"] for entry in attributes["layers"]}
        self._inside: dict[str, Any] = root.get("consolidated_metadata", {}).get("metadata", {})
        self._known: dict[str, _Layer] = {}
        self._side: dict[str, np.ndarray] = {}

    # -- what is in it ------------------------------------------------------------------------------------------

    @property
    def ids(self) -> np.ndarray:
        """Stimulus ids in row order, shape (n_stimuli,)."""
        return self._side_array("stimulus")

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Stimulus labels by name, each of shape (n_stimuli,)."""
        return {label: self._side_array(variable) for variable, label in self._label_variables.items()}

    @property
    def fingerprint(self) -> str:
        """The identity: what analyses keep in their results."""
        return self.identity

    def shape(self, layer: str) -> tuple[int, ...]:
        """Shape of one stimulus' activation."""
        return self._layer(layer).shape

    def dims(self, layer: str) -> tuple[str, ...]:
        """Names of the dimensions of :meth:`shape`."""
        return self._layer(layer).dims

    def n_units(self, layer: str) -> int:
        """Number of values per stimulus."""
        return self._layer(layer).n_units

    def dtype(self, layer: str) -> np.dtype:
        """How a layer is kept on disk: float32 or float16. Reading always gives float32."""
        return np.dtype(self._layer(layer).dtype)

    def chunks(self, layer: str) -> tuple[int, ...]:
        """Chunk shape, stimuli first."""
        return self._layer(layer).chunks

    def layer_attrs(self, layer: str) -> dict[str, Any]:
        """Attributes of a layer."""
        return dict(self._layer(layer).attrs)

    def __contains__(self, layer: object) -> bool:
        return layer in self._nodes

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __repr__(self) -> str:
        state = "" if self.complete else ", incomplete"
        return f"<ActivationStore {str(self.path)!r}: {self.n_stimuli} stimuli, {len(self.layers)} layers{state}>"

    # -- reading ------------------------------------------------------------------------------------------------

    def __getitem__(self, layer: str) -> xr.DataArray:
        """One layer, lazily: values are read when they are asked for, and only the chunks they lie in.

        Parameters
        ----------
        layer : str
            Layer name.

        Returns
        -------
        xarray.DataArray
            Float32, dims ``stimulus`` and the layer's own, with ids, labels and unit coordinates.
        """
        import xarray as xr
        from xarray.core import indexing

        from actkit.store_lazy import LazyLayer

        known = self._layer(layer)
        backed = indexing.CopyOnWriteArray(cast(Any, indexing.LazilyIndexedArray(LazyLayer(self, layer))))
        coords: dict[str, Any] = {"stimulus": ("stimulus", self.ids)}
        coords |= {label: ("stimulus", values) for label, values in self.labels.items()}
        coords |= {dim: (dim, self._side_array(f"{self._nodes[layer]}/{dim}")) for dim in known.coords}
        variable = xr.Variable(("stimulus", *known.dims), backed, {"layer": layer, **known.attrs}, fastpath=True)
        return xr.Dataset({ACTIVATION: variable}, coords=coords)[ACTIVATION].rename(layer)

    def rows(self, layer: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Activations of consecutive stimuli.

        Parameters
        ----------
        layer : str
            Layer name.
        start, stop : int
            First stimulus and end; all by default.

        Returns
        -------
        ndarray
            Float32, shape (stop − start, units), units flattened in C order.

        Raises
        ------
        CorruptStoreError
            Naming layer, stimuli and file, if a chunk is missing or damaged.
        """
        start, stop = _span("stimuli", start, stop, self.n_stimuli)
        return self._read(layer, (start, stop), (0, self.n_units(layer)))

    def units(
        self, layer: str, start: int = 0, stop: int | None = None, rows: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Activations of consecutive units.

        Parameters
        ----------
        layer : str
            Layer name.
        start, stop : int
            First unit and end, in C order over the layer's shape; all by default.
        rows : sequence of int or bool mask, optional
            Stimuli wanted, in the order wanted; all by default.

        Returns
        -------
        ndarray
            Float32, shape (stimuli, stop − start).

        Raises
        ------
        CorruptStoreError
            Naming layer, stimuli and file, if a chunk is missing or damaged.
        """
        start, stop = _span("units", start, stop, self.n_units(layer))
        if rows is None:
            return self._read(layer, (0, self.n_stimuli), (start, stop))
        return self._gather(layer, self._row_numbers(rows), np.arange(start, stop))

    def row_blocks(self, layer: str, max_bytes: int, prefetch: bool = True) -> Iterator[tuple[int, int, np.ndarray]]:
        """All stimuli of a layer, a block of rows at a time, in bounded memory.

        Parameters
        ----------
        layer : str
            Layer name.
        max_bytes : int
            Bytes that blocks and reading buffers may take together, the block being read ahead included.
        prefetch : bool
            Read the next block while the caller works on this one.

        Yields
        ------
        start, stop : int
            First stimulus and end.
        block : ndarray
            Float32, shape (stop − start, units). Drop it before asking for the next to stay within ``max_bytes``.
        """
        known = self._layer(layer)
        steps = choose_steps(
            known.table, self.n_stimuli, known.n_units, known.table.chunk_rows, max_bytes, prefetch, "stimulus"
        )
        return stream(lambda span: self._read(layer, span, (0, known.n_units), steps.threads), self.n_stimuli, steps)

    def unit_blocks(self, layer: str, max_bytes: int, prefetch: bool = True) -> Iterator[tuple[int, int, np.ndarray]]:
        """All units of a layer, a block of columns at a time, in bounded memory.

        Blocks are whole chunk columns, so each chunk is read once; when not even one chunk column fits,
        columns are cut and their chunks are read once per part.

        Parameters
        ----------
        layer : str
            Layer name.
        max_bytes : int
            Bytes that blocks and reading buffers may take together, the block being read ahead included.
        prefetch : bool
            Read the next block while the caller works on this one.

        Yields
        ------
        start, stop : int
            First unit and end.
        block : ndarray
            Float32, shape (n_stimuli, stop − start). Drop it before asking for the next to stay within ``max_bytes``.
        """
        known = self._layer(layer)
        steps = choose_steps(known.table, known.n_units, self.n_stimuli, known.table.width, max_bytes, prefetch, "unit")
        return stream(lambda span: self._read(layer, (0, self.n_stimuli), span, steps.threads), known.n_units, steps)

    # -- for people ---------------------------------------------------------------------------------------------

    def info(self) -> str:
        """What was recorded, from what, and how it is kept, as text."""
        known = [self._layer(layer) for layer in self.layers]
        sizes = [math.prod(k.table.grid) * k.table.chunk_nbytes for k in known]
        state = (
            "complete" if self.complete else f"incomplete: {len(self._finished_blocks())} of {self._n_blocks} blocks"
        )
        lines = [
            f"store     {self.path} ({state})",
            f"stimuli   {self.n_stimuli}, {_listing(self.ids)}",
        ]
        for label, values in self.labels.items():
            kinds = len(np.unique(values))
            lines.append(f"          label {label!r}: {kinds} value{'s' * (kinds != 1)}")
        lines += [f"layers    {len(known)}, {size_text(sum(sizes))}", f"identity  {self.identity}"]
        if self.attrs:
            width = max(9, *(len(key) for key in self.attrs)) + 1
            lines += ["", "provenance"]
            lines += [f"  {key.ljust(width)}{_one_line(value)}" for key, value in self.attrs.items()]
        for run in self.notes:
            if run["note"]:
                lines.append(f"  blocks {run['first']} to {run['last']}: {_one_line(run['note'])}")
        rows = [(k.name, k.dims, k.shape, k.dtype, k.chunks, size) for k, size in zip(known, sizes, strict=True)]
        return "\n".join([*lines, "", layer_table(rows)])

    def tree(self) -> str:
        """The store as xarray and Zarr see it: groups and arrays with their dimensions, as text."""
        entries: list[tuple[str, list[str]]] = [("stimulus (stimulus)", [])]
        entries += [(f"{variable} (stimulus)", []) for variable in self._label_variables]
        for layer in self.layers:
            known = self._layer(layer)
            extent = ", ".join(
                f"{d} {s}" for d, s in zip(("stimulus", *known.dims), (self.n_stimuli, *known.shape), strict=True)
            )
            arrays = [f"{ACTIVATION} ({extent}) {known.dtype}"]
            if known.dtype == "float16":
                arrays.append(f"{CENTRE} ({', '.join(known.dims)}) float32")
            arrays += [f"{dim} ({dim})" for dim in known.coords]
            entries.append((self._nodes[layer], arrays))
        lines = [str(self.path)]
        for k, (name, arrays) in enumerate(entries):
            last = k == len(entries) - 1
            lines.append(f"{'└── ' if last else '├── '}{name}")
            for m, array in enumerate(arrays):
                lines.append(f"{'    ' if last else '│   '}{'└── ' if m == len(arrays) - 1 else '├── '}{array}")
        return "\n".join(lines)

    # -- inside -------------------------------------------------------------------------------------------------

    @property
    def _n_blocks(self) -> int:
        return math.ceil(self.n_stimuli / self.block)

    def _finished_blocks(self) -> set[int]:
        return finished_blocks(self.path, self.identity)

    def _document(self, node: str) -> dict[str, Any]:
        if node in self._inside:
            return self._inside[node]
        return read_document(self.path / node / METADATA)

    def _layer(self, layer: str) -> _Layer:
        if layer not in self._nodes:
            raise LayerError(f"layer {layer!r} is not in the store {self.path}; {nearest(str(layer), self.layers)}")
        if layer not in self._known:
            node = self._nodes[layer]
            folder = self.path / node
            document = self._document(f"{node}/{ACTIVATION}")
            attrs = {k: v for k, v in self._document(node)["attributes"].items() if k not in ("layer", "order")}
            shape = tuple(document["shape"][1:])
            dims = tuple(document["dimension_names"][1:])
            coords = tuple(dim for dim in dims if f"{node}/{dim}" in self._inside or (folder / dim).is_dir())
            chunks = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
            table = table_of(folder / ACTIVATION, layer, document)
            self._known[layer] = _Layer(layer, folder, shape, dims, document["data_type"], chunks, attrs, coords, table)
        return self._known[layer]

    def _side_array(self, variable: str) -> np.ndarray:
        """A coordinate, label or centre, read once."""
        if variable not in self._side:
            try:
                values: np.ndarray = np.asarray(open_array(self.path / variable)[...])
            except Exception as error:
                raise CorruptStoreError(
                    f"{self.path / variable} cannot be read ({error}); `actkit store verify` lists everything that is "
                    "damaged; record the store again with overwrite=True"
                ) from error
            if values.dtype.kind in "TO":
                values = np.array(values.tolist(), dtype="U")
            values.setflags(write=False)
            self._side[variable] = values
        return self._side[variable]

    def _centre(self, layer: str) -> np.ndarray | None:
        known = self._layer(layer)
        if known.dtype != "float16":
            return None
        return self._side_array(f"{self._nodes[layer]}/{CENTRE}").reshape(-1)

    def _row_numbers(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        numbers = np.asarray(rows)
        if numbers.dtype == bool:
            if numbers.shape != (self.n_stimuli,):
                raise InputError(f"the mask of stimuli has the shape {numbers.shape}; it needs ({self.n_stimuli},)")
            return np.flatnonzero(numbers)
        numbers = numbers.astype(np.intp)
        if numbers.ndim != 1 or (
            numbers.size and not (-self.n_stimuli <= numbers.min() <= numbers.max() < self.n_stimuli)
        ):
            raise InputError(
                f"rows must be a list of stimulus positions within {self.n_stimuli} stimuli; positions "
                f"{numbers.min() if numbers.size else ''} to {numbers.max() if numbers.size else ''} were given"
            )
        return numbers % self.n_stimuli

    def _read(
        self, layer: str, rows: tuple[int, int], units: tuple[int, int], threads: int | None = None
    ) -> np.ndarray:
        """A rectangle of the table of stimuli × units, decoded."""
        table, centre = self._layer(layer).table, self._centre(layer)
        out = np.empty((rows[1] - rows[0], units[1] - units[0]), np.float32)
        if not out.size:
            return out

        def fill(i: int, j: int) -> None:
            (r0, r1), (u0, u1) = table.rows(i), table.columns(j)
            first, end, left, right = max(r0, rows[0]), min(r1, rows[1]), max(u0, units[0]), min(u1, units[1])
            target = out[first - rows[0] : end - rows[0], left - units[0] : right - units[0]]
            if centre is None and (first, end, left, right) == (r0, r1, u0, u1):
                table.read_into(i, j, target)
                return
            stored = table.read(i, j)[first - r0 : end - r0, left - u0 : right - u0]
            if centre is None:
                target[...] = stored
            else:
                decode_float16(stored, centre[left:right], target)

        each_chunk(
            fill,
            range(rows[0] // table.chunk_rows, -(-rows[1] // table.chunk_rows)),
            range(units[0] // table.width, -(-units[1] // table.width)),
            threads,
            table.chunk_nbytes,
        )
        return out

    def _gather(self, layer: str, rows: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Any rows × any units, decoded; each chunk that is touched is read once."""
        table, centre = self._layer(layer).table, self._centre(layer)
        out = np.empty((len(rows), len(units)), np.float32)
        row_chunk, unit_chunk = rows // table.chunk_rows, units // table.width
        row_places = {int(i): np.flatnonzero(row_chunk == i) for i in np.unique(row_chunk)}
        unit_places = {int(j): _as_slice(np.flatnonzero(unit_chunk == j)) for j in np.unique(unit_chunk)}

        def fill(i: int, j: int) -> None:
            into_rows, into_units = row_places[i], unit_places[j]
            local_rows = rows[into_rows] - i * table.chunk_rows
            wanted = units[into_units]
            local_units = _as_slice(wanted - j * table.width)
            values = table.read(i, j)[local_rows][:, local_units]
            if centre is not None:
                values = values + centre[wanted]
            if isinstance(into_units, slice):
                out[into_rows, into_units] = values
            else:
                out[np.ix_(into_rows, into_units)] = values

        each_chunk(fill, list(row_places), list(unit_places), None, table.chunk_nbytes)
        return out


def open_store(path: str | os.PathLike[str] | ActivationStore, allow_incomplete: bool = False) -> ActivationStore:
    """Open a store; only metadata is read.

    Parameters
    ----------
    path : path or ActivationStore
        Folder of the store. A store that is already open is returned as it is.
    allow_incomplete : bool
        Open a store that is still being written, or was interrupted, to look at it. Blocks that are not
        there raise when they are read.

    Returns
    -------
    ActivationStore
        The store.

    Raises
    ------
    IncompleteStoreError
        If blocks are missing, saying how to resume.
    StoreError
        If the path is not a store.
    """
    if isinstance(path, ActivationStore):
        return path
    folder = Path(path)
    if not folder.is_dir():
        started = folder.with_name(folder.name + PARTIAL)
        hint = " (recording it was interrupted before the first block: record it again)" if started.exists() else ""
        raise StoreError(
            f"there is no store at {folder}{hint}; record one with actkit.extract(…, store={str(folder)!r})"
        )
    try:
        root = read_document(folder / METADATA)
    except FileNotFoundError:
        raise StoreError(f"{folder} is a folder without {METADATA}, not an activation store; check the path") from None
    attributes = root.get("attributes", {})
    if "actkit_store" not in attributes:
        raise StoreError(
            f"{folder} is a Zarr group but not an activation store; open it with xarray, or import its arrays with "
            "actkit.import_features()"
        )
    if attributes["actkit_store"] > SCHEMA:
        raise StoreError(
            f"{folder} has the store schema {attributes['actkit_store']}, this actkit reads up to {SCHEMA}; "
            "upgrade actkit"
        )
    try:
        store = ActivationStore(folder, root)
    except (KeyError, TypeError) as error:
        raise CorruptStoreError(
            f"the metadata {folder / METADATA} lacks {error}; it was changed or damaged. Run `actkit store verify`, or "
            "record the store again with overwrite=True"
        ) from error
    if not store.complete and not allow_incomplete:
        done = len(store._finished_blocks())
        raise IncompleteStoreError(
            f"{folder} is incomplete: {done} of {store._n_blocks} blocks are written. Run the same extraction again "
            "(resume=True, the default) to finish it, or open it with allow_incomplete=True to look at it"
        )
    return store


def finished_blocks(path: Path, identity: str) -> set[int]:
    """Blocks that the journal of an incomplete store lists.

    Parameters
    ----------
    path : Path
        The store.
    identity : str
        Lines of another identity do not count.

    Returns
    -------
    set of int
        Block numbers.
    """
    return {line["block"] for line in journal_lines(path, identity) if isinstance(line.get("block"), int)}


# ---------------------------------------------------------------------------------------------------------------
# Streaming
# ---------------------------------------------------------------------------------------------------------------


def _span(what: str, start: int, stop: int | None, total: int) -> tuple[int, int]:
    stop = total if stop is None else stop
    if not 0 <= start <= stop <= total:
        raise InputError(f"{what} {start} to {stop} are not within 0 to {total}; give 0 <= start <= stop <= {total}")
    return int(start), int(stop)


def _as_slice(numbers: np.ndarray) -> slice | np.ndarray:
    """Consecutive numbers as a slice, which numpy copies faster."""
    if len(numbers) and np.array_equal(numbers, np.arange(numbers[0], numbers[0] + len(numbers))):
        return slice(int(numbers[0]), int(numbers[0]) + len(numbers))
    return numbers


def _listing(ids: np.ndarray) -> str:
    names = [str(i) for i in ids[:3]]
    return ", ".join(names) + (f", … {ids[-1]}" if len(ids) > 3 else "")


def _one_line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "…"
