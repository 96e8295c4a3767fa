"""Chunk files, read and written directly.

A layer is one Zarr v3 array with the codecs ``bytes`` (little endian) and ``crc32c``, without compression
or sharding. A chunk file is then nothing but the chunk's values in C order followed by their 4-byte
checksum. :class:`ChunkTable` reads and writes these files itself: it moves the bytes between the file and the
caller's memory in one copy, knows which file, layer and rows a bad checksum belongs to, and gets the operating
system's own error when a disk is full. Zarr and zarrs read the same files; a property test holds both to the
same values.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import google_crc32c
import numpy as np

from actkit.errors import CorruptStoreError
from actkit.store_plan import CHECKSUM_BYTES

_IOV_MAX = min(os.sysconf("SC_IOV_MAX"), 1024) if hasattr(os, "sysconf") else 16
# Read and summed in turns of this size: the checksum then finds the bytes in the cache of the core that read them.
_TURN_BYTES = 1 << 19
_DIRECT_ROW_BYTES = 8192  # shorter pieces cost more as separate vectors than as one copy through scratch memory
_ALIGNMENT = 4096  # of memory, offset and length in direct I/O; a multiple of every block size in common use
_PAST_CACHE_BYTES = 1 << 18  # smaller chunks gain nothing
_O_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux
_SCRATCH = threading.local()


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

    def write(self, i: int, j: int, values: np.ndarray, past_cache: bool = False) -> None:
        """Write one chunk file and sync it.

        Parameters
        ----------
        i, j : int
            Chunk row and column.
        values : ndarray
            The valid part of the chunk, shape (rows, columns), of the stored dtype.
        past_cache : bool
            Write past the operating system's page cache where the file system can (see `_write_past_cache`).
            The bytes are the same.

        Raises
        ------
        OSError
            As the operating system reports it (``ENOSPC`` on a full disk).
        """
        if past_cache and _O_DIRECT and self.chunk_nbytes >= _PAST_CACHE_BYTES and self._write_past_cache(i, j, values):
            return
        pieces = self._pieces(values)
        checksum = 0
        for piece in pieces:
            checksum = google_crc32c.extend(checksum, cast(bytes, piece))
        buffers = [_as_bytes(piece) for piece in pieces]
        buffers.append(memoryview(checksum.to_bytes(CHECKSUM_BYTES, "little")))
        handle = os.open(self.path(i, j), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            _write_all(handle, buffers)
            os.fsync(handle)
        finally:
            os.close(handle)

    def _write_past_cache(self, i: int, j: int, values: np.ndarray) -> bool:
        """Write one chunk file by direct I/O; False where the file system has none.

        A copy through the page cache costs the processor about as much as the network's own work on small
        machines, and pushes out what is worth keeping; here the disk reads the values from aligned memory.
        """
        rows, columns = values.shape
        size = self.chunk_nbytes - CHECKSUM_BYTES
        padded = -(-self.chunk_nbytes // _ALIGNMENT) * _ALIGNMENT
        memory = scratch(padded)
        chunk = memory[:size].view(self.dtype).reshape(self.chunk_rows, self.width)
        if values.shape != chunk.shape:
            chunk[...] = np.nan
        checksum = 0
        for row in range(self.chunk_rows):  # summed while the row is still in the cache of the core that copied it
            if row < rows:
                chunk[row, :columns] = values[row]
            checksum = google_crc32c.extend(checksum, cast(bytes, chunk[row]))
        memory[size : self.chunk_nbytes] = np.frombuffer(checksum.to_bytes(CHECKSUM_BYTES, "little"), np.uint8)
        memory[self.chunk_nbytes : padded] = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | _O_DIRECT
        try:
            handle = os.open(self.path(i, j), flags, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        try:
            written = os.write(handle, _as_bytes(memory[:padded]))
            if written != padded:  # the rest is not aligned any more: leave it to the ordinary way, which overwrites
                return False
            os.ftruncate(handle, self.chunk_nbytes)
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        finally:
            os.close(handle)
        return True

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
                f"layer {self.layer!r}, stimuli {start} to {stop}: the chunk file {self.path(i, j)} {fault}; its "
                "values cannot be trusted. `actkit store verify` lists everything that is damaged; record the store "
                "again with overwrite=True"
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
                _read_all(handle, [_as_bytes(piece) for piece in turn])
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
    """Give reusable memory of this thread: warm pages, so that a pass over a store does not fault in fresh ones.

    It begins on a page, as direct I/O needs it.

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
        held = np.frombuffer(mmap.mmap(-1, max(nbytes, 1)), np.uint8)
        _SCRATCH.memory = held
    return held[:nbytes]


def decode_float16(stored: np.ndarray, centre: np.ndarray, out: np.ndarray) -> None:
    """Widen float16 to float32 and add the centre, in place.

    numpy widens float16 one value at a time; here the bits are moved by whole-array integer operations
    (exponent and mantissa shifted, rescaled by 2^112, which is exact and right for subnormals too), about three
    times as fast. A property test holds it to ``stored.astype("float32") + centre``, bit by bit.

    Parameters
    ----------
    stored : ndarray
        Float16, shape (rows, units).
    centre : ndarray
        Float32, shape (units,).
    out : ndarray
        Float32, shape (rows, units); overwritten. Its last axis must be contiguous.
    """
    step = max(1, (1 << 17) // max(1, stored.shape[1] * 4))  # stay in the cache
    for start in range(0, len(stored), step):
        half, single = stored[start : start + step].view("u2"), out[start : start + step]
        magnitude = half & np.uint16(0x7FFF)
        if magnitude.size and magnitude.max() >= 0x7C00:  # infinities and NaN have no exponent to rescale
            with np.errstate(invalid="ignore"):
                np.add(stored[start : start + step], centre, out=single, dtype=np.float32)
            continue
        bits = single.view("u4")
        bits[...] = half
        bits &= np.uint32(0x8000)
        bits <<= np.uint32(16)
        wide = magnitude.astype("u4")
        wide <<= np.uint32(13)
        bits |= wide
        single *= np.float32(2.0**112)
        single += centre


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


def _as_bytes(piece: np.ndarray) -> memoryview:
    return memoryview(cast(Any, piece)).cast("B")


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
