"""Where stimuli are read from: files, zip members, arrays, open pictures. Used through `actkit.stimuli.Stimuli`."""

from __future__ import annotations

import os
import threading
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from actkit.errors import StimulusError
from actkit.images import WARNED, StimulusWarning, read_image, to_rgb


class Source(ABC):
    """Where stimuli come from: rows, as the source counts them. Pictures unless `arrays` says otherwise."""

    arrays = False

    @abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def label(self, row: int) -> str:
        """What messages call the row (a file name where there is one)."""

    @abstractmethod
    def content(self, row: int) -> bytes:
        """The bytes that make the row what it is."""

    def image(self, row: int) -> tuple[Image.Image, tuple[str, ...]]:
        """The row as RGB, and what was done to it."""
        return read_image(self.content(row), self.label(row))

    def raw(self, row: int) -> np.ndarray:
        """The row as numbers."""
        return np.asarray(self.image(row)[0])


class Files(Source):
    """Pictures in separate files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, row: int) -> str:
        """The file's path."""
        return str(self.paths[row])

    def content(self, row: int) -> bytes:
        """The file's bytes."""
        try:
            return self.paths[row].read_bytes()
        except OSError as error:
            raise StimulusError(f"stimulus {self.label(row)!r} cannot be read ({error.strerror or error})") from error


class Zip(Source):
    """Pictures inside a zip file, read without unpacking; one handle a process, guarded by a lock."""

    def __init__(self, path: Path, members: Sequence[str]) -> None:
        self.path = path
        self.members = list(members)
        self._lock = threading.Lock()
        self._handle: zipfile.ZipFile | None = None
        self._owner = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "members": self.members}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["members"])  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.members)

    def label(self, row: int) -> str:
        """The path of the zip file, then the member's name."""
        return f"{self.path}/{self.members[row]}"

    def content(self, row: int) -> bytes:
        """The member's bytes, unpacked in memory and checked against their CRC."""
        with self._lock:  # ZipFile counts its open members without a lock of its own
            # A forked child must not share the file position of its parent.
            if self._handle is None or self._owner != os.getpid():
                self._handle, self._owner = self._open(row), os.getpid()
            try:
                return self._handle.read(self.members[row])
            except Exception as error:  # BadZipFile, zlib.error, LZMAError, RuntimeError (encrypted): no common base
                raise StimulusError(
                    f"stimulus {self.label(row)!r} cannot be read from its zip file ({error}): the archive is damaged, "
                    "encrypted or packed in an unknown way; fetch or pack it again"
                ) from error

    def _open(self, row: int) -> zipfile.ZipFile:
        """Open the archive; it was there when the stimuli were listed."""
        try:
            return zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise StimulusError(f"stimulus {self.label(row)!r}: its zip file cannot be opened ({error})") from error

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is not None:
            handle.close()


class Array(Source):
    """Rows of one array: pictures if uint8 (n, H, W), (n, H, W, 1), (n, H, W, 3) or (n, H, W, 4), else plain arrays."""

    def __init__(self, array: np.ndarray, name: str) -> None:
        self.array = array
        self.name = name
        pictures = array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3, 4)))
        self.arrays = not pictures

    def __len__(self) -> int:
        return len(self.array)

    def label(self, row: int) -> str:
        """The set's name and the row number."""
        return f"{self.name}[{row}]"

    def content(self, row: int) -> bytes:
        """Type, shape and values of the row, little-endian: the same numbers count as the same everywhere."""
        values = self.array[row]
        values = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        return f"{values.dtype.str}{values.shape}".encode() + values.tobytes()

    def raw(self, row: int) -> np.ndarray:
        """The row as it is."""
        return self.array[row]

    def image(self, row: int) -> tuple[Image.Image, tuple[str, ...]]:
        """The row as RGB."""
        values = self.array[row]
        values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
        return to_rgb(Image.fromarray(np.ascontiguousarray(values)), self.label(row))


class Pictures(Source):
    """Pictures that are open already."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        self.images = list(images)

    def __len__(self) -> int:
        return len(self.images)

    def label(self, row: int) -> str:
        """The file it was opened from, or its position."""
        return getattr(self.images[row], "filename", "") or f"picture {row}"

    def content(self, row: int) -> bytes:
        """Size and pixels once treated: palettes and orientation lie outside the pixel bytes."""
        image, _ = self.image(row)
        return f"RGB{image.size}".encode() + image.tobytes()

    def image(self, row: int) -> tuple[Image.Image, tuple[str, ...]]:
        """The picture as RGB."""
        return to_rgb(self.images[row], self.label(row))


class Joined(Source):
    """Rows of several sources, one after the other."""

    def __init__(self, rows: Sequence[tuple[Source, int]]) -> None:
        self.rows = list(rows)
        self.arrays = bool(rows) and rows[0][0].arrays

    def __len__(self) -> int:
        return len(self.rows)

    def label(self, row: int) -> str:
        """What the row's own source calls it."""
        source, inner = self.rows[row]
        return source.label(inner)

    def content(self, row: int) -> bytes:
        """The bytes from the row's own source."""
        source, inner = self.rows[row]
        return source.content(inner)

    def raw(self, row: int) -> np.ndarray:
        """The numbers from the row's own source."""
        source, inner = self.rows[row]
        return source.raw(inner)

    def image(self, row: int) -> tuple[Image.Image, tuple[str, ...]]:
        """The picture from the row's own source."""
        source, inner = self.rows[row]
        return source.image(inner)


class Memory:
    """What was learned while reading: content hashes and treatments; shared by a set and its subsets."""

    def __init__(self) -> None:
        self.hashes: dict[int, bytes] = {}
        self.treatments: dict[str, set[int]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"hashes": self.hashes, "treatments": self.treatments}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.hashes, self.treatments = state["hashes"], state["treatments"]

    def note(self, row: int, treatments: Iterable[str], label: str) -> None:
        """Count the treatments of a row; the first of each kind that loses something warns."""
        for treatment in treatments:
            with self._lock:
                first = treatment not in self.treatments
                self.treatments.setdefault(treatment, set()).add(row)
            if first and treatment in WARNED:
                warnings.warn(
                    f"stimulus {label!r}: {treatment}. Said once; `stimuli.treatments` counts them all",
                    StimulusWarning,
                    stacklevel=4,
                )
