"""Files that survive a kill, a power cut, a full disk and a second writer: syncing, journal, lock, reserve."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from actkit.errors import CorruptStoreError, DiskFullError, StoreError
from actkit.store_plan import StorePlan, size_text

try:
    import fcntl
except ImportError:  # not a POSIX system: no advisory locks
    fcntl = None  # type: ignore[assignment]

JOURNAL = "journal.jsonl"
RESERVE = "reserve"
METADATA = "zarr.json"
PARTIAL = ".partial"

_RESERVE_BYTES = 1 << 20  # for the journal's lines; the final metadata is added per layer
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


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


def read_document(file: Path) -> dict[str, Any]:
    """A metadata document of the store.

    Parameters
    ----------
    file : Path
        A ``zarr.json``.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    CorruptStoreError
        If it is not JSON.
    """
    try:
        document = json.loads(file.read_bytes())
    except ValueError as error:
        raise CorruptStoreError(
            f"the metadata {file} is not readable ({error}), so the store cannot be opened; record it again with "
            "overwrite=True"
        ) from error
    if not isinstance(document, dict):
        raise CorruptStoreError(f"the metadata {file} is not an object; record the store again with overwrite=True")
    return document


def root_document(path: Path) -> dict[str, Any]:
    """The root's metadata document."""
    return json.loads((path / METADATA).read_bytes())


def journal_lines(path: Path, identity: str) -> list[dict[str, Any]]:
    """Lines of a journal; torn, foreign and unreadable ones are as if they were not there.

    Parameters
    ----------
    path : Path
        The store.
    identity : str
        Lines of another identity do not count.

    Returns
    -------
    list of dict
        In the order written; empty without a journal.
    """
    try:
        content = (path / JOURNAL).read_bytes()
    except FileNotFoundError:
        return []
    lines = []
    for raw in content.split(b"\n")[:-1]:  # what follows the last line break is torn
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("identity") == identity:
            lines.append(line)
    return lines


def append_line(journal: int, line: Mapping[str, Any], text: str | None = None) -> None:
    """Add one line to the journal and wait until it is on disk."""
    content = ((text if text is not None else json.dumps(line)) + "\n").encode()
    while content:
        content = content[os.write(journal, content) :]
    os.fsync(journal)


def rewrite_journal(journal: int, plan: StorePlan, blocks: Mapping[int, Any], centres: list[str]) -> None:
    """Keep only what was found sound, in the file that is locked."""
    lines: list[dict[str, Any]] = [{"journal": 1, "identity": plan.identity}]
    lines += [{"centre": layer, "identity": plan.identity} for layer in centres]
    lines += [{"block": k, "note": note, "identity": plan.identity} for k, note in sorted(blocks.items())]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    # Truncating first is safe: a kill here only means that blocks are recorded again.
    os.ftruncate(journal, 0)
    while content:
        content = content[os.write(journal, content) :]
    os.fsync(journal)


def open_journal(folder: Path) -> int:
    """Open the journal, made if need be, and lock it."""
    handle = os.open(folder / JOURNAL, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A file system without locks (some network mounts) refuses with another error: go on unguarded there.
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(handle)
                raise locked_error(folder) from None
    return handle


def close_quietly(handle: int) -> None:
    """Close a file that may be closed already."""
    with suppress(OSError):
        os.close(handle)


def refuse_if_locked(folder: Path) -> None:
    """Fail if another writer holds a folder's journal."""
    if (folder / JOURNAL).exists():
        os.close(open_journal(folder))


def locked_error(path: Path) -> StoreError:
    """The answer to a second writer."""
    return StoreError(
        f"another process is writing {path}; two writers would destroy each other's files. Wait for it, end it, or "
        "choose another path"
    )


def write_reserve(folder: Path, plan: StorePlan) -> None:
    """Set space aside, so that a disk that fills up still has room for the journal and the final metadata."""
    wanted = _RESERVE_BYTES + sum(8192 + 4096 * len(layer.coords) for layer in plan.layers)
    file = folder / RESERVE
    if file.exists() and file.stat().st_size == wanted:
        return
    with open(file, "wb") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, wanted)
        except (AttributeError, OSError) as error:  # macOS has no such call, some file systems no such thing
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
            handle.write(bytes(wanted))


@contextmanager
def disk_full_is_clear(plan: StorePlan, needed: int) -> Iterator[None]:
    """Say what a full disk means for the store, whoever noticed it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError) or error.errno not in DISK_FULL:
            raise
        full = DiskFullError(
            f"the disk is full: {plan.path} needed {size_text(needed)} more and {size_text(plan.free)} are free. "
            "What was finished is kept: free some space and run the same command again (resume), or record with "
            "dtype='float16', a reducer or fewer layers to another path"
        )
        full.errno = errno.ENOSPC
        raise full from error
