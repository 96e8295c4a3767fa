"""IDX files, the format of MNIST: a header with the kind and the numbers of values, and the values, gzipped or not.

The format is that of http://yann.lecun.com/exdb/mnist: two zero bytes, a code for the kind of number, the number of
dims, the size of each dim as a 32-bit number, and the values in row order; every number has its highest byte first.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from actkit.data_specs.schema import IdxSpec
from actkit.errors import DataError
from actkit.stimuli import Stimuli

__all__ = ["idx_files", "idx_stimuli", "read_idx"]

_KINDS = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


def read_idx(path: str | Path) -> np.ndarray:
    """Read one IDX file.

    Parameters
    ----------
    path : path
        The file; gzipped ones are recognised by their first bytes.

    Returns
    -------
    numpy.ndarray
        Of the kind and shape that the header states, in the machine's byte order.

    Raises
    ------
    DataError
        If the file cannot be read, is no IDX file, or holds fewer or more values than its header says.
    """
    path = Path(path)
    try:
        with open(path, "rb") as raw:
            gzipped = raw.read(2) == _GZIP
        with gzip.open(path, "rb") if gzipped else open(path, "rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _KINDS or start[3] == 0:
                raise DataError(
                    f"{path} is no IDX file: it starts with the bytes {start.hex(' ') or '(none)'} and not with 00 00, "
                    "a kind of number (08 for bytes) and a number of dims; give the file as it was published"
                )
            sizes = file.read(4 * start[3])
            if len(sizes) < 4 * start[3]:
                raise DataError(f"{path} ends within its header; get the file anew")
            shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
            kind = np.dtype(_KINDS[start[2]])
            wanted = math.prod(shape) * kind.itemsize
            # No more is unpacked than the header calls for, and one byte that would be too many.
            values = file.read(wanted + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); it may be cut off or damaged: get the file anew") from error
    if len(values) != wanted:
        found = f"only {len(values)}" if len(values) < wanted else "more"
        raise DataError(
            f"{path} says that it holds {' × '.join(map(str, shape))} values, {wanted} bytes, and there are {found}; "
            "the file is cut off or damaged: get it anew"
        )
    return np.frombuffer(values, dtype=kind).reshape(shape).astype(kind.newbyteorder("="))


def idx_files(spec: IdxSpec, folder: Path) -> dict[str, Path]:
    """Find the files of a data set.

    Parameters
    ----------
    spec : IdxSpec
        Names of the files.
    folder : Path
        Where they lie.

    Returns
    -------
    dict of str to Path
        By name in the spec; with ``.gz`` where there is only that, and without where there is neither.
    """
    names = [*spec.images.values(), *spec.labels.values()]
    packed = {name: folder / f"{name}.gz" for name in names}
    return {
        name: folder / name if (folder / name).is_file() or not packed[name].is_file() else packed[name]
        for name in names
    }


def idx_stimuli(spec: IdxSpec, folder: Path, name: str, by_hand: str | None) -> Stimuli:
    """Make stimuli of pairs of IDX files, one of images and one of labels for each part of a data set.

    Parameters
    ----------
    spec : IdxSpec
        Names of the files and of the classes.
    folder : Path
        Where the files lie.
    name : str
        Name of the data set.
    by_hand : str or None
        How to get the files.

    Returns
    -------
    Stimuli
        Pictures, with their class under the label that the spec names and their part under ``split``.

    Raises
    ------
    DataError
        If a file is missing or damaged, images and labels differ in number, images are no bytes, or a label is the
        number of no class.
    """
    files = idx_files(spec, folder)
    for wanted, path in files.items():
        if not path.is_file():
            raise DataError(f"{name}: there is no {folder / wanted}, and none with .gz added. {by_hand or ''}".rstrip())
    pictures, classes, parts, ids = [], [], [], []
    for part in spec.images:
        images, labels = (read_idx(files[names[part]]) for names in (spec.images, spec.labels))
        if images.ndim != 3 or images.dtype != np.uint8:
            raise DataError(
                f"{files[spec.images[part]]} holds {images.dtype} of shape {images.shape}, and images are bytes "
                "(image, y, x); are the files of images and of labels swapped?"
            )
        if labels.shape != images.shape[:1]:
            raise DataError(
                f"{name}: there are {len(images)} images and labels of shape {labels.shape} for {part!r}; get both "
                f"files anew ({files[spec.images[part]].name}, {files[spec.labels[part]].name})"
            )
        pictures.append(images.transpose(0, 2, 1) if spec.transposed else images)
        classes.append(labels.astype(np.int64))
        parts += [part] * len(images)
        ids += [f"{name}_{part}_{row:06d}" for row in range(len(images))]
    if len({one.shape[1:] for one in pictures}) > 1:
        raise DataError(f"{name}: images of the parts differ in size: {[one.shape for one in pictures]}")
    numbers = np.concatenate(classes)
    named = numbers
    kept = np.ones(len(numbers), dtype=bool)
    if spec.classes is not None:
        place = numbers - spec.first_class
        if len(place) and (place.min() < 0 or place.max() >= len(spec.classes)):
            wrong = numbers[(place < 0) | (place >= len(spec.classes))][0]
            raise DataError(
                f"{name}: label {wrong} is the number of no class; they go from {spec.first_class} to "
                f"{spec.first_class + len(spec.classes) - 1}. Are these the files of another data set?"
            )
        named = np.array(spec.classes)[place]
        kept = ~np.isin(named, spec.leave_out)
    return Stimuli.from_array(
        np.concatenate(pictures)[kept],
        np.array(ids)[kept],
        {spec.label: named[kept], "split": np.array(parts)[kept]},
        name,
        f"as in the files, {' then '.join(spec.images)}",
    )
