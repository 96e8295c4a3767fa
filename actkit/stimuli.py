"""Stimuli: an ordered, lazy, immutable list of pictures or arrays, each with an id that stays with it.

Ids are whole file stems (the name without its last suffix), unique, in an order that `Stimuli.order` states.
Pictures are read when asked for, as 8-bit RGB, by the table in `actkit.images`.
"""

from __future__ import annotations

import glob
import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

from actkit.errors import InputError, StimulusError, nearest
from actkit.images import BACKGROUND, is_picture
from actkit.stimulus_ids import (
    arrange,
    checked_column,
    checked_ids,
    member_pattern,
    numbered,
    refuse_missing,
    refuse_repeated,
    stems,
)
from actkit.stimulus_sources import Array, Files, Joined, Memory, Pictures, Source, Zip

if TYPE_CHECKING:
    import pandas as pd

_PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path", "stimulus_path")


class Stimuli:
    """Stimuli in a stated order: pictures (read lazily, as RGB) or rows of an array.

    Make one with `from_folder`, `from_zip`, `from_array`, `from_table` or `as_stimuli`.
    Indexing with an integer gives the stimulus; a slice, a mask or a list of positions gives a subset.

    Parameters
    ----------
    source
        Where the rows are read.
    ids : array-like of str, shape (n,)
        Unique, not empty.
    labels : mapping of str to array-like, shape (n,)
        Columns that describe the stimuli.
    name : str
        What the set is called.
    order : str
        A sentence that states the row order.

    Attributes
    ----------
    ids : numpy.ndarray of str, shape (n,)
        In row order; read-only.
    labels : dict of str to numpy.ndarray, shape (n,)
        Read-only columns.
    name : str
        What the set is called.
    order : str
        A sentence that states the row order.

    Examples
    --------
    >>> import numpy as np
    >>> grey = np.arange(4, dtype=np.uint8).reshape(4, 1, 1) * np.ones((1, 8, 8), np.uint8)
    >>> stimuli = Stimuli.from_array(grey, ids=["a", "b", "c", "d"], labels={"level": [0, 1, 2, 3]})
    >>> stimuli[1].getpixel((0, 0))
    (1, 1, 1)
    >>> stimuli[stimuli.labels["level"] > 1].ids.tolist()
    ['c', 'd']
    """

    def __init__(
        self,
        source: Source,
        ids: Any,
        labels: Mapping[str, Any] | None = None,
        name: str = "stimuli",
        order: str = "as given",
        *,
        _rows: np.ndarray | None = None,
        _memory: Memory | None = None,
    ) -> None:
        self._source = source
        self._rows = np.arange(len(source)) if _rows is None else _rows
        self._memory = _memory or Memory()
        self._fingerprint: str | None = None
        self.name = name
        self.order = order
        self.ids = checked_ids(ids)
        if len(self.ids) != len(self._rows):
            raise StimulusError(
                f"{name}: {len(self.ids)} ids were given for {len(self._rows)} stimuli; give one id a stimulus"
            )
        if len(set(self.ids.tolist())) < len(self.ids):
            refuse_repeated(self.ids, [source.label(int(row)) for row in self._rows])
        self.labels = {
            str(key): checked_column(values, len(self.ids), str(key)) for key, values in (labels or {}).items()
        }

    # ---------------------------------------------------------------- making

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        pattern: str = "**/*",
        labels_from_folders: bool | str = True,
        name: str | None = None,
    ) -> Stimuli:
        """Take the pictures of a folder, in natural order of their relative paths.

        Parameters
        ----------
        path : path
            The folder.
        pattern : str
            Which files, relative to the folder. With the default, files that are no pictures by their suffix are
            left out (`order` counts them); a pattern of your own takes every file it matches. Hidden files never count.
        labels_from_folders : bool or str
            Whether the sub-folder becomes a label where every file lies in one, and its name (True: ``"category"``).
        name : str, optional
            What to call the set; by default the folder's name.

        Returns
        -------
        Stimuli
            Ids are whole stems; where two folders hold the same stem, every id is the relative path without its last
            suffix (``"s1/1"``).

        Raises
        ------
        StimulusError
            If there is no such folder, no picture in it, or two files have one id.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise StimulusError(f"there is no folder {str(folder)!r} to take stimuli from")
        names = [
            PurePosixPath(Path(found).as_posix())
            for found in glob.glob(pattern, root_dir=folder, recursive=True)
            if (folder / found).is_file()
        ]
        kept, ids, labels, order = arrange(names, pattern == "**/*", labels_from_folders, str(folder), pattern)
        return cls(Files([folder / member for member in kept]), ids, labels, name or folder.resolve().name, order)

    @classmethod
    def from_zip(
        cls,
        path: str | os.PathLike[str],
        pattern: str = "**/*",
        labels_from_folders: bool | str = True,
        name: str | None = None,
    ) -> Stimuli:
        """Take the pictures of a zip file without unpacking it; otherwise as `from_folder`.

        Parameters
        ----------
        path : path
            The zip file.
        pattern : str
            Which members (``*`` stays in a folder, ``**/`` crosses folders).
        labels_from_folders : bool or str
            As in `from_folder`.
        name : str, optional
            What to call the set; by default the file's stem.

        Returns
        -------
        Stimuli
            Ids and order as in `from_folder`. Reading from several threads is safe.

        Raises
        ------
        StimulusError
            If the file is no zip file, holds no picture, or two members have one id.
        """
        archive = Path(path)
        try:
            with zipfile.ZipFile(archive) as opened:
                members = {
                    PurePosixPath(info.filename): info.filename for info in opened.infolist() if not info.is_dir()
                }
        except (OSError, zipfile.BadZipFile) as error:
            raise StimulusError(f"{str(archive)!r} cannot be opened as a zip file: {error}") from error
        matches = member_pattern(pattern)
        names = [
            member
            for member in members
            if matches(str(member)) and not any(part.startswith((".", "__MACOSX")) for part in member.parts)
        ]
        kept, ids, labels, order = arrange(names, pattern == "**/*", labels_from_folders, str(archive), pattern)
        return cls(Zip(archive, [members[member] for member in kept]), ids, labels, name or archive.stem, order)

    @classmethod
    def from_array(
        cls,
        array: Any,
        ids: Sequence[str] | np.ndarray | None = None,
        labels: Mapping[str, Any] | None = None,
        name: str = "array",
        order: str | None = None,
    ) -> Stimuli:
        """Take the rows of an array.

        Parameters
        ----------
        array : array-like, shape (n, …)
            uint8 of shape (n, H, W), (n, H, W, 1), (n, H, W, 3) or (n, H, W, 4): pictures. Any other number array,
            such as float (n, C, H, W) or (n, features): plain arrays, handed to the preprocessing row by row.
        ids : sequence of str, optional
            By default the zero-padded row numbers.
        labels : mapping of str to array-like, shape (n,)
            Columns that describe the stimuli.
        name : str
            What to call the set.
        order : str, optional
            A sentence on the row order.

        Returns
        -------
        Stimuli
            Rows as in the array, which is copied and then read-only.

        Raises
        ------
        InputError
            If the array holds no numbers or has one dimension only.
        """
        values = np.array(array)
        if values.ndim < 2 or values.dtype.kind not in "uif":
            raise InputError(
                f"stimuli from an array need numbers of shape (n, …), got {values.dtype} of shape {values.shape}"
            )
        values.setflags(write=False)
        given = ids is not None
        ids = numbered(len(values)) if ids is None else ids
        return cls(
            Array(values, name),
            ids,
            labels,
            name,
            order or f"rows as in the array{'' if given else ', ids are row numbers'}",
        )

    @classmethod
    def from_images(
        cls,
        images: Sequence[Image.Image],
        ids: Sequence[str] | None = None,
        labels: Mapping[str, Any] | None = None,
        name: str = "pictures",
    ) -> Stimuli:
        """Take pictures that are open already.

        Parameters
        ----------
        images : sequence of PIL.Image.Image
            Any mode; treated as files are.
        ids : sequence of str, optional
            By default the zero-padded positions.
        labels : mapping of str to array-like, shape (n,)
            Columns that describe the stimuli.
        name : str
            What to call the set.

        Returns
        -------
        Stimuli
            In the order given.
        """
        return cls(Pictures(images), numbered(len(images)) if ids is None else ids, labels, name, "as given")

    @classmethod
    def from_files(
        cls, paths: Sequence[str | os.PathLike[str]], labels: Mapping[str, Any] | None = None, name: str = "files"
    ) -> Stimuli:
        """Take a list of picture files, in the order given.

        Parameters
        ----------
        paths : sequence of path
            The files; ids are their stems, or the whole paths without last suffix where stems repeat.
        labels : mapping of str to array-like, shape (n,)
            Columns that describe the stimuli.
        name : str
            What to call the set.

        Returns
        -------
        Stimuli
            In the order given.

        Raises
        ------
        StimulusError
            If a file does not exist or two have one id.
        """
        files = [Path(path) for path in paths]
        refuse_missing([str(file) for file in files if not file.is_file()], "the list of files")
        ids, sentence = stems([PurePosixPath(file.as_posix()) for file in files], [str(file) for file in files])
        return cls(Files(files), ids, labels, name, f"as listed; {sentence}")

    @classmethod
    def from_table(
        cls,
        table: str | os.PathLike[str] | pd.DataFrame,
        path_column: str | None = None,
        id_column: str | None = None,
        root: str | os.PathLike[str] | None = None,
        name: str | None = None,
    ) -> Stimuli:
        """Take the pictures that a table lists, in the table's order; its other columns become labels.

        Parameters
        ----------
        table : path of a CSV or TSV file, or pandas.DataFrame
            One row a stimulus.
        path_column : str, optional
            The column of file names; by default the one called path, file, filename, image or the like.
        id_column : str, optional
            The column of ids; by default ids are the stems of the files.
        root : path, optional
            The folder or zip file that the names are relative to; by default the folder of the CSV file.
        name : str, optional
            What to call the set.

        Returns
        -------
        Stimuli
            In the table's order.

        Raises
        ------
        StimulusError
            If a column or a file does not exist, or an id repeats.
        """
        import pandas as pd

        if isinstance(table, pd.DataFrame):
            frame, where, base = table, "the table", Path()
        else:
            where, base = str(table), Path(table).parent
            try:
                frame = pd.read_csv(table, sep="\t" if Path(table).suffix.lower() == ".tsv" else ",")
            except (OSError, ValueError, UnicodeDecodeError) as error:
                raise StimulusError(f"{where!r} cannot be read as a table: {error}") from error
        columns = [str(column) for column in frame.columns]
        if path_column is None:
            path_column = next((c for c in columns if c.lower() in _PATH_COLUMNS), None)
            if path_column is None:
                raise StimulusError(
                    f"{where}: no column is called {' or '.join(_PATH_COLUMNS[:4])} (there are: {', '.join(columns)}); "
                    "name the column of file names with path_column"
                )
        for column in (path_column, id_column):
            if column is not None and column not in columns:
                raise StimulusError(f"{where} has no column {column!r}; {nearest(column, columns)}")
        blank = np.flatnonzero(frame[path_column].isna().to_numpy())
        if len(blank):
            raise StimulusError(f"{where}: row {int(blank[0]) + 1} has no file name in the column {path_column!r}")
        names = [str(value) for value in frame[path_column]]
        base = base if root is None else Path(root)
        source: Source
        if base.suffix.lower() == ".zip" and base.is_file():
            with zipfile.ZipFile(base) as opened:
                refuse_missing(sorted(set(names) - set(opened.namelist())), str(base))
            source = Zip(base, names)
        else:
            files = [base / member for member in names]
            refuse_missing([str(file) for file in files if not file.is_file()], where)
            source = Files(files)
        if id_column is None:
            ids, sentence = stems([PurePosixPath(Path(member).as_posix()) for member in names], names)
        else:
            ids, sentence = [str(value) for value in frame[id_column]], f"ids from the column {id_column!r}"
        labels = {str(c): frame[c].to_numpy() for c in frame.columns if str(c) not in (path_column, id_column)}
        default = "table" if isinstance(table, pd.DataFrame) else Path(table).stem
        return cls(source, ids, labels, name or default, f"rows as in {Path(where).name}; {sentence}")

    # --------------------------------------------------------------- reading

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kind = "arrays" if self.is_array else "pictures"
        labels = f", labels: {', '.join(self.labels)}" if self.labels else ""
        return f"<Stimuli {self.name!r}: {len(self)} {kind}{labels}; {self.order}>"

    def __iter__(self) -> Iterator[Image.Image | np.ndarray]:
        return (self.raw(row) for row in range(len(self)))

    @overload
    def __getitem__(self, key: int | np.integer) -> Image.Image | np.ndarray: ...

    @overload
    def __getitem__(self, key: slice | Sequence[int] | np.ndarray) -> Stimuli: ...

    def __getitem__(self, key: Any) -> Any:
        """Give one stimulus (integer) or a subset (slice, mask, positions)."""
        if isinstance(key, (int, np.integer)) and not isinstance(key, (bool, np.bool_)):
            return self.raw(int(key))
        if isinstance(key, str):
            raise InputError(f"stimuli are indexed by position, got the id {key!r}; use select([{key!r}])")
        return self._subset(key, "selected by position")

    @property
    def is_array(self) -> bool:
        """Whether the stimuli are plain arrays rather than pictures."""
        return self._source.arrays

    @property
    def treatments(self) -> dict[str, int]:
        """How many of the stimuli read so far needed which treatment (see `actkit.images`)."""
        mine = set(self._rows.tolist())
        counts = {treatment: len(rows & mine) for treatment, rows in self._memory.treatments.items()}
        return {treatment: count for treatment, count in counts.items() if count}

    def raw(self, i: int) -> Image.Image | np.ndarray:
        """Give what a network's preprocessing receives: the RGB picture, or the row of an array.

        Parameters
        ----------
        i : int
            Position; negative counts from the end.

        Returns
        -------
        PIL.Image.Image or numpy.ndarray
            The picture (8-bit RGB), or the row as it is in the array (read-only).

        Raises
        ------
        IndexError
            If there is no such position.
        StimulusError
            If the picture cannot be read.
        """
        if self.is_array:
            return self._source.raw(self._row(i))
        return self.image(i)

    def image(self, i: int) -> Image.Image:
        """Give a stimulus as an 8-bit RGB picture.

        Parameters
        ----------
        i : int
            Position; negative counts from the end.

        Returns
        -------
        PIL.Image.Image
            Mode RGB.

        Raises
        ------
        IndexError
            If there is no such position.
        StimulusError
            If the picture cannot be read, or the stimuli are plain arrays.
        """
        row = self._row(i)
        if self.is_array:
            raise StimulusError(
                f"{self.name}: the stimuli are arrays of shape {self._source.raw(row).shape}, not pictures; use raw(i)"
            )
        image, treatments = self._source.image(row)
        if treatments:
            self._memory.note(row, treatments, self._source.label(row))
        return image

    def thumbnails(self, size: int = 64, background: int = 255) -> np.ndarray:
        """Draw all stimuli small, for figures.

        Parameters
        ----------
        size : int
            Width and height in pixels.
        background : int
            The grey that fills up pictures that are not square, 0 to 255.

        Returns
        -------
        numpy.ndarray of uint8, shape (n, size, size, 3)
            Pictures fitted with their proportions kept. Arrays of shape (H, W), (1, H, W) or (3, H, W) are stretched
            from their least to their greatest value.

        Raises
        ------
        StimulusError
            If the stimuli are arrays that are no pictures (feature vectors).
        """
        drawn = np.full((len(self), size, size, 3), background, dtype=np.uint8)
        for i in range(len(self)):
            image = _stretched(np.asarray(self.raw(i)), self.name) if self.is_array else self.image(i)
            scale = size / max(image.size)
            width, height = (max(1, round(side * scale)) for side in image.size)
            method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
            small = np.asarray(image.resize((width, height), method))
            top, left = (size - height) // 2, (size - width) // 2
            drawn[i, top : top + height, left : left + width] = small
        return drawn

    # ------------------------------------------------------------- selecting

    def select(self, ids: Iterable[str]) -> Stimuli:
        """Take the stimuli of the given ids, in the order given.

        Parameters
        ----------
        ids : iterable of str
            Each at most once.

        Returns
        -------
        Stimuli
            The subset.

        Raises
        ------
        StimulusError
            If an id does not exist (nearest ids are named) or is asked for twice.
        """
        position = {identifier: i for i, identifier in enumerate(self.ids.tolist())}
        wanted = [str(identifier) for identifier in ([ids] if isinstance(ids, str) else ids)]
        missing = [identifier for identifier in wanted if identifier not in position]
        if missing:
            raise StimulusError(
                f"{self.name} has no stimulus {missing[0]!r}"
                + (f" (and {len(missing) - 1} more of the {len(wanted)} asked for)" if len(missing) > 1 else "")
                + f"; {nearest(missing[0], position)}"
            )
        return self._subset([position[identifier] for identifier in wanted], "selected by id")

    def with_ids(self, ids: Iterable[str]) -> Stimuli:
        """Give the stimuli other ids.

        Parameters
        ----------
        ids : iterable of str
            One a stimulus, in order, no id twice.

        Returns
        -------
        Stimuli
            The same pictures and labels.

        Raises
        ------
        StimulusError
            If an id repeats, is empty, or there are more or fewer than stimuli.
        """
        return Stimuli(
            self._source, list(ids), self.labels, self.name, self.order, _rows=self._rows, _memory=self._memory
        )

    def with_labels(self, **columns: Any) -> Stimuli:
        """Add or replace label columns.

        Parameters
        ----------
        **columns : array-like, shape (n,)
            Values by column name.

        Returns
        -------
        Stimuli
            The same stimuli with more labels.
        """
        made = self._subset(slice(None), None)
        made.labels.update({key: checked_column(values, len(self), key) for key, values in columns.items()})
        return made

    def table(self) -> pd.DataFrame:
        """Give ids and labels as a table.

        Returns
        -------
        pandas.DataFrame
            Column ``stimulus`` and one column a label.
        """
        import pandas as pd

        return pd.DataFrame({"stimulus": self.ids, **self.labels})

    # --------------------------------------------------------------- content

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over the ids, in order, and the bytes of every stimulus; read once, then remembered.

        Labels, names and places do not count: the same files elsewhere have the same fingerprint.
        """
        if self._fingerprint is None:
            total = hashlib.sha256(b"actkit stimuli 1")
            for i, identifier in enumerate(self.ids.tolist()):
                encoded = identifier.encode()
                total.update(len(encoded).to_bytes(8, "little") + encoded + self.content_hash(i))
            self._fingerprint = total.hexdigest()
        return self._fingerprint

    def content_hash(self, i: int) -> bytes:
        """Give the sha256 digest of one stimulus (file bytes, or type, shape and bytes of an array row).

        Parameters
        ----------
        i : int
            Position.

        Returns
        -------
        bytes
            32 bytes.
        """
        row = self._row(i)
        if row not in self._memory.hashes:
            self._memory.hashes[row] = hashlib.sha256(self._source.content(row)).digest()
        return self._memory.hashes[row]

    def content_groups(self) -> np.ndarray:
        """Number the stimuli by content, so that a split can keep identical ones on one side.

        Returns
        -------
        numpy.ndarray of int, shape (n,)
            Equal numbers for equal bytes, counted from 0 in order of appearance.
        """
        seen: dict[bytes, int] = {}
        return np.array([seen.setdefault(self.content_hash(i), len(seen)) for i in range(len(self))], dtype=np.int64)

    def duplicates(self) -> list[tuple[str, ...]]:
        """Find stimuli that are the same byte for byte under different ids.

        Returns
        -------
        list of tuple of str
            One tuple of ids a group of two or more, in row order.
        """
        groups: dict[int, list[str]] = {}
        for identifier, group in zip(self.ids.tolist(), self.content_groups().tolist(), strict=True):
            groups.setdefault(group, []).append(identifier)
        return [tuple(members) for members in groups.values() if len(members) > 1]

    # --------------------------------------------------------------- private

    def _row(self, i: int) -> int:
        """The source's row of a position."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.name} has {len(self)} stimuli, there is no position {i}")
        return int(self._rows[i])

    def _subset(self, key: Any, how: str | None) -> Stimuli:
        """The stimuli at a slice, mask or list of positions."""
        if not isinstance(key, slice):
            positions = np.asarray(key)
            if positions.size == 0:
                positions = positions.astype(np.int64).reshape(-1)
            if positions.ndim != 1 or positions.dtype.kind not in "bui":
                raise InputError(
                    f"stimuli are selected by integers, a slice or a mask, got {positions.dtype} of shape "
                    f"{positions.shape}"
                )
            if positions.dtype.kind == "b" and len(positions) != len(self):
                raise InputError(f"the mask has {len(positions)} entries for {len(self)} stimuli")
            key = positions
        original = self.order.partition(" from: ")[2] or self.order
        return Stimuli(
            self._source,
            self.ids[key],
            {name: values[key] for name, values in self.labels.items()},
            self.name,
            self.order if how is None else f"{how} from: {original}",
            _rows=self._rows[key],
            _memory=self._memory,
        )


def as_stimuli(obj: Any) -> Stimuli:
    """Make stimuli of whatever was given.

    Parameters
    ----------
    obj : Stimuli, data set, path, array, or list
        Stimuli; anything with ``.stimuli``; the path of a folder, a zip file, a CSV or TSV table, a ``.npy`` array or
        one picture; an array (see `Stimuli.from_array`); a list of paths or of PIL pictures.

    Returns
    -------
    Stimuli
        Unchanged where the input is one.

    Raises
    ------
    StimulusError
        If a path does not exist or is of no known kind.
    InputError
        If the object is of no known type.
    """
    if isinstance(obj, Stimuli):
        return obj
    if isinstance(getattr(obj, "stimuli", None), Stimuli):
        return obj.stimuli
    if isinstance(obj, (str, os.PathLike)):
        return _from_path(Path(obj))
    if isinstance(obj, np.ndarray):
        return Stimuli.from_array(obj)
    if type(obj).__module__.startswith("torch") and hasattr(obj, "numpy"):
        return Stimuli.from_array(obj.detach().cpu().numpy())
    if isinstance(obj, Sequence) and obj:
        if all(isinstance(item, (str, os.PathLike)) for item in obj):
            return Stimuli.from_files(obj)
        if all(isinstance(item, Image.Image) for item in obj):
            return Stimuli.from_images(obj)
    raise InputError(
        f"stimuli cannot be made of {type(obj).__name__}; give a folder, zip file, CSV table, array, a list of paths "
        "or of PIL pictures, or a Stimuli"
    )


def concatenate(sets: Sequence[Stimuli], name: str | None = None, source_label: str = "source") -> Stimuli:
    """Put several sets one after the other.

    Parameters
    ----------
    sets : sequence of Stimuli
        All pictures, or all arrays; no id twice.
    name : str, optional
        What to call the whole; by default the names joined by ``+``.
    source_label : str
        The label column that keeps each stimulus's set name.

    Returns
    -------
    Stimuli
        Labels are the union of columns; where a set lacks one, its stimuli get ``""`` (words) or NaN (numbers).

    Raises
    ------
    InputError
        If there is nothing to join, or pictures meet arrays.
    StimulusError
        If an id repeats.
    """
    if not sets:
        raise InputError("no stimuli were given to concatenate")
    if len({part.is_array for part in sets}) > 1:
        raise InputError("pictures and plain arrays cannot be one set: " + ", ".join(repr(part.name) for part in sets))
    labels: dict[str, Any] = {}
    for key in dict.fromkeys(key for part in sets for key in part.labels):
        kinds = [part.labels[key].dtype.kind for part in sets if key in part.labels]
        words = any(kind == "U" for kind in kinds)
        filler: Any = "" if words else np.nan
        columns = [part.labels.get(key, np.full(len(part), filler)) for part in sets]
        labels[key] = np.concatenate([column.astype(str) if words else column for column in columns])
    labels[source_label] = np.concatenate([np.full(len(part), part.name) for part in sets])
    rows = [(part._source, int(row)) for part in sets for row in part._rows]
    return Stimuli(
        Joined(rows),
        np.concatenate([part.ids for part in sets]),
        labels,
        name or "+".join(part.name for part in sets),
        "; then ".join(f"{part.name} ({part.order})" for part in sets),
    )


def _from_path(path: Path) -> Stimuli:
    """Stimuli of a path, by what lies there."""
    if path.is_dir():
        return Stimuli.from_folder(path)
    if not path.exists():
        raise StimulusError(f"there is nothing at {str(path)!r} to take stimuli from")
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return Stimuli.from_zip(path)
    if suffix in (".csv", ".tsv"):
        return Stimuli.from_table(path)
    if suffix == ".npy":
        try:
            return Stimuli.from_array(np.load(path, allow_pickle=False), name=path.stem)
        except (OSError, ValueError, EOFError) as error:
            raise StimulusError(f"{str(path)!r} cannot be read as an array: {error}") from error
    if is_picture(path):
        return Stimuli.from_files([path], name=path.stem)
    raise StimulusError(
        f"{str(path)!r} is no folder, zip file, CSV table, .npy array or picture, by its suffix {suffix!r}"
    )


def _stretched(values: np.ndarray, name: str) -> Image.Image:
    """A plain array as a picture, from its least to its greatest value."""
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = np.moveaxis(values, 0, -1)
    elif values.ndim != 2:
        raise StimulusError(f"{name}: arrays of shape {values.shape} are no pictures and have no thumbnail")
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    grey = np.full(values.shape, BACKGROUND, np.uint8)
    if high > low:
        grey = np.nan_to_num((values - low) * (255.0 / (high - low))).round().astype(np.uint8)
    return Image.fromarray(grey.squeeze(axis=2) if grey.shape[2:] == (1,) else grey).convert("RGB")
