"""Finding damage in a store: every planned file is read and held against its checksum."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from actkit.errors import ActkitError, StoreError
from actkit.store_chunks import ChunkTable
from actkit.store_files import METADATA, canonical_json, read_document
from actkit.store_layout import ACTIVATION, sealed
from actkit.store_plan import CHECKSUM_BYTES
from actkit.store_read import ActivationStore, finished_blocks, open_store
from actkit.store_stream import reading_threads


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a store.

    Attributes
    ----------
    layer : str
        The layer, or an empty string for what belongs to the whole store.
    rows : tuple of int
        First stimulus and end that are affected.
    file : str
        Path inside the store.
    what : str
        What is wrong, in words.
    """

    layer: str
    rows: tuple[int, int]
    file: str
    what: str

    def __str__(self) -> str:
        where = f"layer {self.layer!r}, stimuli {self.rows[0]} to {self.rows[1]}" if self.layer else "the whole store"
        return f"{where}: {self.file} {self.what}"


def verify_store(
    path: str | PathLike[str] | ActivationStore, progress: Callable[[int, int], None] | None = None
) -> list[Fault]:
    """Check that every file of a store exists and holds what was written.

    Every chunk file of every layer, centre, coordinate and label is read and checked (crc32c), every metadata
    document is held against the copy that was sealed at completion. Of an incomplete store, the blocks
    that its journal lists are checked.

    Parameters
    ----------
    path : path or ActivationStore
        The store.
    progress : callable, optional
        Called with the number of files checked and the number of all files.

    Returns
    -------
    list of Fault
        In the store's order; empty when it is sound.

    Raises
    ------
    StoreError
        If there is no store at the path.
    """
    folder = path.path if isinstance(path, ActivationStore) else Path(path)
    if not (folder / METADATA).exists():
        open_store(folder)  # says what is there instead
        raise StoreError(f"{folder} is not an activation store; check the path")
    faults, root = _check_root(folder)
    if root is None:
        return faults
    store = ActivationStore(folder, root)
    everything = (0, store.n_stimuli)
    if not store.complete:
        done = len(finished_blocks(folder, store.identity))
        what = f"says that the store is incomplete: {done} of {store._n_blocks} blocks are written"
        faults.append(Fault("", everything, METADATA, what))
    checks = list(_checks(store))
    with ThreadPoolExecutor(reading_threads(), thread_name_prefix="actkit-verify") as pool:
        for done, fault in enumerate(pool.map(lambda check: check(), checks), start=1):
            if fault is not None:
                faults.append(fault)
            if progress is not None:
                progress(done, len(checks))
    return faults


Check = Callable[[], Fault | None]


def _checks(store: ActivationStore) -> Iterator[Check]:
    """One check per file, in the store's order."""
    everything = (0, store.n_stimuli)
    sealed_documents = store._inside
    for node in ["stimulus", *store._label_variables]:
        yield _metadata_check(store, "", node, sealed_documents.get(node))
        yield _side_check(store, "", node, everything)
    done = None if store.complete else finished_blocks(store.path, store.identity)
    for layer in store.layers:
        node = store._nodes[layer]
        yield _metadata_check(store, layer, node, sealed_documents.get(node))
        yield _metadata_check(store, layer, f"{node}/{ACTIVATION}", sealed_documents.get(f"{node}/{ACTIVATION}"))
        try:
            known = store._layer(layer)
        except (ActkitError, OSError, KeyError, TypeError):
            continue  # its metadata is unreadable, which the checks above report
        sides = [*known.coords, *(["centre"] if known.dtype == "float16" else [])]
        for side in sides:
            yield _metadata_check(store, layer, f"{node}/{side}", sealed_documents.get(f"{node}/{side}"))
            if store.complete or side != "centre" or done:
                yield _side_check(store, layer, f"{node}/{side}", everything)
        table = known.table
        for i in range(table.grid[0]):
            if done is None or table.rows(i)[0] // store.block in done:
                for j in range(table.grid[1]):
                    yield _chunk_check(store, table, i, j)


def _chunk_check(store: ActivationStore, table: Any, i: int, j: int) -> Check:
    def check() -> Fault | None:
        if isinstance(table, ChunkTable):
            what, file = table.fault(i, j), table.path(i, j).relative_to(store.path).as_posix()
        else:
            file = table.folder.relative_to(store.path).as_posix()
            try:
                table.read(i, j)
                what = ""
            except StoreError as error:
                what = str(error)
        return Fault(table.layer, table.rows(i), file, what) if what else None

    return check


def _side_check(store: ActivationStore, layer: str, node: str, rows: tuple[int, int]) -> Check:
    """A coordinate, label or centre: one chunk file that ends in its checksum."""

    def check() -> Fault | None:
        try:
            document = store._document(node)
        except (ActkitError, OSError):
            return None  # reported by the metadata check
        name = ".".join(["c", *["0"] * len(document["shape"])])
        file = store.path / node / name
        try:
            content = file.read_bytes()
        except OSError as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            return Fault(layer, rows, f"{node}/{name}", what)
        what = ""
        if len(content) <= CHECKSUM_BYTES:  # nothing and its checksum would agree
            what = f"has only {len(content)} bytes"
        elif document["data_type"] != "string":
            expected = math.prod(document["shape"]) * np.dtype(document["data_type"]).itemsize + CHECKSUM_BYTES
            if len(content) != expected:
                what = f"has {len(content)} bytes instead of {expected}"
        if not what and google_crc32c.value(content[:-CHECKSUM_BYTES]) != int.from_bytes(
            content[-CHECKSUM_BYTES:], "little"
        ):
            what = "does not match its checksum"
        return Fault(layer, rows, f"{node}/{name}", what) if what else None

    return check


def _metadata_check(store: ActivationStore, layer: str, node: str, expected: dict[str, Any] | None) -> Check:
    """A node's own document must say, byte for byte, what the sealed root says about it."""

    def check() -> Fault | None:
        file, rows = f"{node}/{METADATA}", (0, store.n_stimuli)
        try:
            content = (store.path / file).read_bytes()
            document = json.loads(content)
        except FileNotFoundError:
            return Fault(layer, rows, file, "is missing")
        except ValueError:
            return Fault(layer, rows, file, "is not readable as JSON")
        if store.complete and expected is not None:
            own = {k: v for k, v in expected.items() if k != "consolidated_metadata"}
            if content != canonical_json(own):
                return Fault(layer, rows, file, "was changed after the store was completed")
        elif content != canonical_json(document):
            return Fault(layer, rows, file, "was changed")
        return None

    return check


def _check_root(folder: Path) -> tuple[list[Fault], dict[str, Any] | None]:
    """The root's document against its own seal; None when nothing else can be found through it."""
    try:
        root = read_document(folder / METADATA)
        ActivationStore(folder, root)
        rows = (0, int(root["attributes"]["n_stimuli"]))
    except (StoreError, KeyError, TypeError, AttributeError, ValueError):
        if "actkit_store" not in (folder / METADATA).read_bytes().decode(errors="replace"):
            open_store(folder)
        return [Fault("", (0, 0), METADATA, "is not readable, so nothing else could be checked")], None
    content = (folder / METADATA).read_bytes()
    expected = sealed(root) if root["attributes"]["complete"] else root
    if content != canonical_json(expected):
        return [Fault("", rows, METADATA, "was changed after the store was completed")], root
    return [], root
