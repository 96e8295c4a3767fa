"""Writing a store: template first, then block by block, each made durable before the journal says so.

The order of events is what makes a kill harmless:

1. The template (metadata, coordinates, journal) is built in ``<path>.partial`` and renamed to ``<path>``.
2. A block's chunk files are written and synced, then their folders, then one journal line, synced.
3. Completion writes the root's metadata, with ``complete: true`` and every node's inside, in one rename;
   only then does the journal go.

A chunk file that the journal does not vouch for is deleted on resuming, so a resumed store has the same bytes as
an uninterrupted one. One process writes a store at a time: it holds a lock on the journal.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import InputError, LayerError, StoreError, nearest
from actkit.store_chunks import ChunkTable
from actkit.store_files import (
    DISK_FULL,
    JOURNAL,
    METADATA,
    PARTIAL,
    RESERVE,
    append_line,
    canonical_json,
    close_quietly,
    disk_full_is_clear,
    fsync_path,
    journal_lines,
    locked_error,
    open_journal,
    refuse_if_locked,
    rewrite_journal,
    root_document,
    write_durably,
    write_reserve,
)
from actkit.store_layout import centre_table, consolidated, layer_table_of, sealed, template
from actkit.store_plan import LayerPlan, StorePlan

if TYPE_CHECKING:
    from actkit.store_read import ActivationStore

# A store of this size or more is written past the page cache: it would push everything else out, and copying it
# there costs the processor time that the network needs. A smaller one stays cached for the analysis that follows.
_PAST_CACHE_STORE_BYTES = 2 * 10**9

# Threads mostly wait for the disk: several waiting at once share one commit of its journal.
_WRITE_THREADS = 8


def create_store(plan: StorePlan, overwrite: bool = False) -> StoreWriter:
    """Begin a store: check the disk, write the template, take the lock.

    Parameters
    ----------
    plan : StorePlan
        What will be written.
    overwrite : bool
        Replace a store that is already there. Only a store is ever replaced, never another folder.

    Returns
    -------
    StoreWriter
        Ready for block 0.

    Raises
    ------
    StoreError
        If something is already at the path, or another process is writing there.
    DiskFullError
        If the plan does not fit the free disk; nothing is written then.
    """
    path, reusable = plan.path, 0
    if path.exists() or path.is_symlink():
        if not overwrite:
            raise StoreError(
                f"{path} already exists and would be overwritten; open it, resume it, or pass overwrite=True to "
                "replace it"
            )
        if not _is_store(path) and not (path.is_dir() and not any(path.iterdir())):
            raise StoreError(
                f"{path} exists and is not an activation store, so overwrite=True does not apply to it; "
                "choose another path or remove it yourself"
            )
        refuse_if_locked(path)
        reusable = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    plan.check_disk(reusable=reusable)
    beside = path.with_name(path.name + PARTIAL)
    replaced = path.with_name(path.name + ".replaced" + PARTIAL)
    path.parent.mkdir(parents=True, exist_ok=True)
    if beside.exists():
        refuse_if_locked(beside)
        shutil.rmtree(beside)
    shutil.rmtree(replaced, ignore_errors=True)
    files = template(plan)
    with disk_full_is_clear(plan, plan.bytes):
        try:
            beside.mkdir()
            journal = open_journal(beside)
        except FileExistsError:
            raise locked_error(path) from None
        try:
            _write_template(beside, files)
            append_line(journal, {"journal": 1, "identity": plan.identity})
            write_reserve(beside, plan)
            fsync_path(beside)
            if path.exists():
                os.replace(path, replaced)
            os.rename(beside, path)
            fsync_path(path.parent)
            shutil.rmtree(replaced, ignore_errors=True)
        except BaseException as error:
            close_quietly(journal)
            shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise locked_error(path) from None
            raise
    return StoreWriter(plan, journal, {}, frozenset())


def resume_store(plan: StorePlan) -> StoreWriter:
    """Go on with a store that was interrupted.

    Files of every block that the journal does not list are deleted first. A store whose template was never
    finished, or that does not exist yet, is begun. A complete store gives a writer with nothing left to do.

    Parameters
    ----------
    plan : StorePlan
        The plan of the interrupted store: the same identity, stimuli, layers and block.

    Returns
    -------
    StoreWriter
        Its ``done`` lists the blocks that need not be written again.

    Raises
    ------
    StoreError
        If the store belongs to another plan (naming what differs) or another process is writing it.
    DiskFullError
        If what is left to write does not fit the free disk.
    """
    path = plan.path
    if not path.exists():
        return create_store(plan)
    if not _is_store(path):
        raise StoreError(f"{path} exists and is not an activation store; choose another path")
    for stale in (path.with_name(path.name + PARTIAL), path.with_name(path.name + ".replaced" + PARTIAL)):
        if stale.exists():
            refuse_if_locked(stale)
            shutil.rmtree(stale)
    if root_document(path)["attributes"].get("complete"):
        return _nothing_left(plan)
    journal = open_journal(path)
    try:
        root = root_document(path)  # again, now that nobody else can change it
        _compare(plan, root["attributes"])
        if root["attributes"].get("complete"):
            os.close(journal)
            return _nothing_left(plan)
        blocks, centres = _read_journal(plan)
        blocks, centres = _sweep(plan, blocks, centres)
        plan.check_disk(needed=plan.bytes_of_blocks(plan.n_blocks) * (plan.n_blocks - len(blocks)) // plan.n_blocks)
        with disk_full_is_clear(plan, 0):
            rewrite_journal(journal, plan, blocks, centres)
            write_reserve(path, plan)
            fsync_path(path)
    except BaseException:
        close_quietly(journal)
        raise
    return StoreWriter(plan, journal, blocks, frozenset(centres))


def _nothing_left(plan: StorePlan) -> StoreWriter:
    """A writer for a store that is complete; a kill after the last step may have left the journal."""
    _compare(plan, root_document(plan.path)["attributes"])
    for leftover in (JOURNAL, RESERVE):
        (plan.path / leftover).unlink(missing_ok=True)
    return StoreWriter(plan, None, dict.fromkeys(range(plan.n_blocks)), frozenset(), finished=True)


class StoreWriter:
    """Writes the blocks of one store; made by :func:`create_store` or :func:`resume_store`.

    A context manager. Leaving it without :meth:`complete`, by an exception or not, keeps a store that can be
    resumed. Meant for one caller at a time; chunk files are written by a few threads underneath. Start other
    processes with *spawn*: a forked child would share the lock.

    Attributes
    ----------
    plan : StorePlan
        What is being written.
    past_cache : bool
        Whether chunk files go past the operating system's page cache, where it allows that; true for stores of
        2 GB or more. The bytes on disk do not depend on it.
    """

    def __init__(
        self,
        plan: StorePlan,
        journal: int | None,
        blocks: Mapping[int, Any],
        centres: frozenset[str],
        finished: bool = False,
    ) -> None:
        self.plan = plan
        self.past_cache = plan.bytes >= _PAST_CACHE_STORE_BYTES
        self._journal = journal
        self._blocks: dict[int, Any] = dict(blocks)
        self._finished = finished
        self._pool = ThreadPoolExecutor(_WRITE_THREADS, thread_name_prefix="actkit-store")
        nodes = {entry["name"]: entry["node"] for entry in root_document(plan.path)["attributes"]["layers"]}
        self._layers = {layer.name: layer for layer in plan.layers}
        self._tables = {
            layer.name: layer_table_of(plan.path / nodes[layer.name], layer.name, layer, plan.n_stimuli)
            for layer in plan.layers
        }
        self._centre_tables = {
            layer.name: centre_table(plan.path / nodes[layer.name], layer.name, layer.shape)
            for layer in plan.layers
            if layer.dtype == "float16"
        }
        self._centres: dict[str, np.ndarray] = {name: self._read_centre(name) for name in centres}

    @property
    def done(self) -> frozenset[int]:
        """Blocks that are on disk and in the journal."""
        return frozenset(self._blocks)

    @property
    def pending(self) -> tuple[int, ...]:
        """Blocks still to be written, in order."""
        return tuple(index for index in range(self.plan.n_blocks) if index not in self._blocks)

    def notes(self) -> dict[int, Any]:
        """The note of every finished block."""
        return dict(self._blocks)

    def centre(self, layer: str) -> np.ndarray | None:
        """The centre of a float16 layer, or None while it is not fixed.

        Parameters
        ----------
        layer : str
            A float16 layer.

        Returns
        -------
        ndarray or None
            Float32, the shape of one stimulus' activation. A resumed store keeps the centre it was begun with.
        """
        self._check_float16(layer)
        held = self._centres.get(layer)
        return None if held is None else held.reshape(self._layers[layer].shape).copy()

    def set_centre(self, layer: str, array: np.ndarray) -> None:
        """Fix what is subtracted from each unit of a float16 layer, once, before its first block.

        Parameters
        ----------
        layer : str
            A float16 layer.
        array : ndarray
            Finite, one value per unit, the shape of one stimulus' activation; usually the mean of the first block.

        Raises
        ------
        StoreError
            If the centre is already fixed, or blocks were written.
        InputError
            If the shape is wrong or a value is not finite.
        """
        self._check_open()
        self._check_float16(layer)
        if layer in self._centres:
            raise StoreError(
                f"the centre of layer {layer!r} is already fixed in {self.plan.path}; values on disk rely on it. "
                "Use writer.centre(layer) to get it"
            )
        plan = self._layers[layer]
        values = np.asarray(array, np.float32)
        if values.shape != plan.shape and values.shape != (plan.n_units,):
            raise InputError(f"the centre of layer {layer!r} has the shape {values.shape} instead of {plan.shape}")
        if not np.isfinite(values).all():
            raise InputError(
                f"the centre of layer {layer!r} holds values that are not finite, so no stimulus could be decoded; "
                "take the mean over finite values"
            )
        table = self._centre_tables[layer]
        with disk_full_is_clear(self.plan, table.chunk_nbytes):
            table.write(0, 0, np.ascontiguousarray(values.reshape(1, -1)))
            fsync_path(table.folder)
            self._log({"centre": layer, "identity": self.plan.identity})
        self._centres[layer] = values.reshape(-1).copy()

    def write_block(self, index: int, arrays: Mapping[str, np.ndarray], note: Mapping[str, Any] | None = None) -> None:
        """Write one block of all layers and make it durable.

        Parameters
        ----------
        index : int
            Block number; rows ``plan.block_rows(index)``. Blocks may come in any order, each once.
        arrays : mapping of str to ndarray
            For every planned layer the rows of the block, shape (rows, *layer shape), floating point. The
            values are used as they are: whether NaN is allowed is the recorder's decision.
        note : mapping, optional
            JSON-able facts about the block (the batch size that was used), kept in the store.

        Raises
        ------
        StoreError
            If the block does not fit the template, or was written before.
        DiskFullError
            If the disk is full. The block's files are removed; the store can be resumed.
        """
        self._check_open()
        flat = self._checked(index, arrays)
        line = {"block": index, "note": dict(note or {}), "identity": self.plan.identity}
        text = json.dumps(line)  # before anything is written: a note that is not JSON-able must not cost the block
        start, _ = self.plan.block_rows(index)
        tasks: list[tuple[ChunkTable, int, int]] = self._files_of_block(index)
        needed = sum(table.chunk_nbytes for table, _, _ in tasks)
        with disk_full_is_clear(self.plan, needed):
            futures: list[Future[None]] = []
            try:
                for table, i, j in tasks:
                    first, end = table.rows(i)
                    rows = slice(first - start, end - start)
                    futures.append(self._pool.submit(self._write_chunk, table, i, j, flat[table.layer][rows]))
                wait(futures)
                for future in futures:
                    future.result()
                for _ in self._pool.map(fsync_path, {table.folder for table in self._tables.values()}):
                    pass
                self._log(line, text)
            except BaseException:
                for future in futures:
                    future.cancel()
                wait(futures)
                for table, i, j in tasks:
                    table.path(i, j).unlink(missing_ok=True)
                raise
        self._blocks[index] = line["note"]

    def complete(self) -> ActivationStore:
        """Declare the store complete.

        Returns
        -------
        ActivationStore
            The store, opened.

        Raises
        ------
        StoreError
            If blocks are missing.
        """
        from actkit.store_read import open_store

        if not self._finished:
            self._check_open()
            if self.pending:
                raise StoreError(
                    f"{self.plan.path} lacks {len(self.pending)} of {self.plan.n_blocks} blocks "
                    f"(the first is {self.pending[0]}); write them before complete()"
                )
            root = root_document(self.plan.path)
            nodes = {
                str(file.parent.relative_to(self.plan.path).as_posix()): json.loads(file.read_bytes())
                for file in sorted(self.plan.path.rglob(METADATA))
                if file.parent != self.plan.path
            }
            root["attributes"]["complete"] = True
            root["attributes"]["notes"] = _runs(self._blocks)
            content = canonical_json(sealed(consolidated(root, nodes)))
            (self.plan.path / RESERVE).unlink(missing_ok=True)  # its space is kept for exactly this
            with disk_full_is_clear(self.plan, len(content)):
                write_durably(self.plan.path / METADATA, content)
            (self.plan.path / JOURNAL).unlink(missing_ok=True)
            fsync_path(self.plan.path)
            self._finished = True
        self.close()
        return open_store(self.plan.path)

    def close(self) -> None:
        """Release the lock; what is in the journal stays and can be resumed."""
        self._pool.shutdown(wait=True)
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    abort = close

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._finished:
            raise StoreError(f"{self.plan.path} is complete; nothing can be added. Record to another path")
        if self._journal is None:
            raise StoreError(f"the writer of {self.plan.path} is closed; call resume_store(plan) to go on")

    def _check_float16(self, layer: str) -> None:
        if layer not in self._layers:
            raise LayerError(f"layer {layer!r} is not in {self.plan.path}; {nearest(layer, self._layers)}")
        if layer not in self._centre_tables:
            raise InputError(f"layer {layer!r} is kept as float32 and has no centre; plan it as float16 to have one")

    def _read_centre(self, layer: str) -> np.ndarray:
        return self._centre_tables[layer].read(0, 0).reshape(-1).copy()

    def _checked(self, index: int, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The block as 2-D arrays, after holding it against the template."""
        if not 0 <= index < self.plan.n_blocks:
            raise StoreError(
                f"block {index} is not in the plan of {self.plan.path}: blocks are 0 to {self.plan.n_blocks - 1}"
            )
        if index in self._blocks:
            raise StoreError(f"block {index} of {self.plan.path} is already written; skip the blocks in writer.done")
        unknown = [name for name in arrays if name not in self._layers]
        missing = [name for name in self._layers if name not in arrays]
        if unknown:
            raise StoreError(f"block {index}: layer {unknown[0]!r} is not planned; {nearest(unknown[0], self._layers)}")
        if missing:
            raise StoreError(
                f"block {index} lacks {len(missing)} of {len(self._layers)} planned layers, the first {missing[0]!r}; "
                "every block carries every layer"
            )
        start, stop = self.plan.block_rows(index)
        flat = {}
        for name, layer in self._layers.items():
            array = np.asarray(arrays[name])
            allowed = {(stop - start, *layer.shape), (stop - start, layer.n_units)}
            if "original_shape" in layer.attrs:
                allowed.add((stop - start, *layer.attrs["original_shape"]))
            if array.shape not in allowed:
                raise StoreError(
                    f"block {index}, layer {name!r}: the array has the shape {array.shape}, the template says "
                    f"{(stop - start, *layer.shape)}; the layer's output must not change between batches"
                )
            if array.dtype.kind != "f" or array.dtype.itemsize > 4:
                raise StoreError(
                    f"block {index}, layer {name!r}: the array is {array.dtype}, which would be rounded unasked; "
                    "convert it to float32 first"
                )
            if layer.dtype == "float16" and name not in self._centres:
                raise StoreError(
                    f"layer {name!r} is kept as float16 and its centre is not fixed; call set_centre({name!r}, …) "
                    "before the first block"
                )
            flat[name] = array.reshape(stop - start, layer.n_units)
        return flat

    def _files_of_block(self, index: int) -> list[tuple[ChunkTable, int, int]]:
        return list(_files_of_block(self.plan, self._tables, index))

    def _write_chunk(self, table: ChunkTable, i: int, j: int, rows: np.ndarray) -> None:
        first, end = table.columns(j)
        values = rows[:, first:end]
        if table.layer in self._centres:
            values = _centred(table.layer, values, self._centres[table.layer][first:end])
        elif values.dtype != table.dtype:
            values = values.astype(table.dtype)
        table.write(i, j, values, self.past_cache)

    def _log(self, line: Mapping[str, Any], text: str | None = None) -> None:
        """One journal line; on a full disk the reserve is given up for it."""
        assert self._journal is not None
        try:
            append_line(self._journal, line, text)
        except OSError as error:
            if error.errno not in DISK_FULL or not (self.plan.path / RESERVE).exists():
                raise
            (self.plan.path / RESERVE).unlink(missing_ok=True)
            # A torn line may be there: begin on a new one, readers skip what they cannot parse.
            os.write(self._journal, b"\n")
            append_line(self._journal, line, text)


# ---------------------------------------------------------------------------------------------------------------
# The journal and what it vouches for
# ---------------------------------------------------------------------------------------------------------------


def _read_journal(plan: StorePlan) -> tuple[dict[int, Any], list[str]]:
    """Blocks with their notes, and layers whose centre is fixed."""
    blocks: dict[int, Any] = {}
    centres: list[str] = []
    names = {layer.name for layer in plan.layers}
    for line in journal_lines(plan.path, plan.identity):
        if isinstance(line.get("block"), int) and 0 <= line["block"] < plan.n_blocks:
            blocks[line["block"]] = line.get("note", {})
        elif line.get("centre") in names:
            centres.append(line["centre"])
    return blocks, centres


def _sweep(plan: StorePlan, blocks: Mapping[int, Any], centres: list[str]) -> tuple[dict[int, Any], list[str]]:
    """Delete every file that the journal does not vouch for; drop blocks whose files are not all there."""
    nodes = {entry["name"]: entry["node"] for entry in root_document(plan.path)["attributes"]["layers"]}
    tables = {
        layer.name: layer_table_of(plan.path / nodes[layer.name], layer.name, layer, plan.n_stimuli)
        for layer in plan.layers
    }
    centred = {
        layer.name: centre_table(plan.path / nodes[layer.name], layer.name, layer.shape)
        for layer in plan.layers
        if layer.dtype == "float16"
    }
    kept_centres = [name for name in centres if name in centred and _has_size(centred[name], 0, 0)]
    sizes = {
        name: {entry.name: entry.stat().st_size for entry in os.scandir(table.folder)} for name, table in tables.items()
    }
    kept = {}
    for index, note in blocks.items():
        files = list(_files_of_block(plan, tables, index))
        if len(kept_centres) == len(centred) and all(
            sizes[table.layer].get(table.name(i, j)) == table.chunk_nbytes for table, i, j in files
        ):
            kept[index] = note
    for name, table in tables.items():
        vouched = {METADATA} | {
            table.name(i, j) for index in kept for t, i, j in _files_of_block(plan, {name: table}, index)
        }
        for file in sizes[name]:
            if file not in vouched:
                (table.folder / file).unlink()
        fsync_path(table.folder)
    for name, table in centred.items():
        if name not in kept_centres:
            table.path(0, 0).unlink(missing_ok=True)
    for stale in plan.path.rglob("*" + PARTIAL):
        stale.unlink(missing_ok=True)
    return kept, kept_centres


def _files_of_block(
    plan: StorePlan, tables: Mapping[str, ChunkTable], index: int
) -> Iterator[tuple[ChunkTable, int, int]]:
    """Every chunk file of a block, in writing order."""
    start, stop = plan.block_rows(index)
    for table in tables.values():
        for i in range(start // table.chunk_rows, -(-stop // table.chunk_rows)):
            for j in range(table.grid[1]):
                yield table, i, j


def _has_size(table: ChunkTable, i: int, j: int) -> bool:
    try:
        return table.path(i, j).stat().st_size == table.chunk_nbytes
    except FileNotFoundError:
        return False


def _runs(blocks: Mapping[int, Any]) -> list[dict[str, Any]]:
    """Notes of blocks, one entry per run of equal notes: first block, last block, note."""
    runs: list[dict[str, Any]] = []
    for index in sorted(blocks):
        note = blocks[index]
        if runs and runs[-1]["note"] == note and runs[-1]["last"] == index - 1:
            runs[-1]["last"] = index
        else:
            runs.append({"first": index, "last": index, "note": note})
    return runs


# ---------------------------------------------------------------------------------------------------------------
# Small parts
# ---------------------------------------------------------------------------------------------------------------


def _centred(layer: str, values: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Subtract the centre and round to float16; an overflow is an error rather than a silent infinity."""
    difference = values - centre
    with np.errstate(over="ignore"):
        stored = difference.astype("<f2")
    infinite = (stored.view("<u2") & np.uint16(0x7FFF)) == 0x7C00  # numpy's own isinf takes float16 one at a time
    if infinite.any() and not np.array_equal(infinite, np.isinf(difference)):
        worst = float(np.abs(difference[np.isfinite(difference)]).max())
        raise StoreError(
            f"layer {layer!r} has values up to {worst:.6g} away from their unit's centre, beyond float16's 65504: they "
            "would become infinite. Record this layer as float32"
        )
    return stored


def _write_template(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write and sync all template files and their folders."""
    folders = {folder}
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        folders |= {parent for parent in file.parents if parent == folder or folder in parent.parents}
        file.write_bytes(content)
    with ThreadPoolExecutor(2 * _WRITE_THREADS, thread_name_prefix="actkit-template") as pool:
        for _ in pool.map(fsync_path, [*(folder / name for name in files), *folders]):
            pass


def _is_store(path: Path) -> bool:
    try:
        return "actkit_store" in root_document(path)["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _compare(plan: StorePlan, attrs: Mapping[str, Any]) -> None:
    """Refuse to resume a store of another plan, naming what differs."""
    differences = [] if attrs.get("identity") == plan.identity else ["identity"]
    recorded, planned = attrs.get("provenance", {}), json.loads(json.dumps(dict(plan.attrs)))
    for key in sorted({*recorded, *planned}):
        if recorded.get(key) != planned.get(key):
            differences.append(f"{key} (stored {_short(recorded.get(key))}, now {_short(planned.get(key))})")
    same_layers = [entry["name"] for entry in attrs.get("layers", [])] == [layer.name for layer in plan.layers]
    if not same_layers:
        differences.append(f"layers (stored {len(attrs.get('layers', []))}, now {len(plan.layers)})")
    for key, now in (("n_stimuli", plan.n_stimuli), ("block", plan.block)):
        if attrs.get(key) != now:
            differences.append(f"{key} (stored {attrs.get(key)}, now {now})")
    if not differences:
        files, nodes = template(plan), {entry["name"]: entry["node"] for entry in attrs["layers"]}
        for layer in plan.layers:
            key = f"{nodes[layer.name]}/activation/{METADATA}"
            if (plan.path / key).read_bytes() != files[key]:
                differences.append(f"shape, chunks or dtype of layer {layer.name!r}")
    if differences:
        raise StoreError(
            f"{plan.path} was recorded from something else and cannot be continued; it differs in: "
            f"{'; '.join(differences)}. Use overwrite=True to record it again, or another path"
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


__all__ = ["LayerPlan", "StorePlan", "StoreWriter", "create_store", "resume_store"]
