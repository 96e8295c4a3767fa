"""Ids, order and label columns of stimuli: the rules that `actkit.stimuli` applies to every kind of source."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import natsort
import numpy as np

from actkit.errors import StimulusError
from actkit.images import is_picture

_natural = natsort.natsort_keygen()


def natural_order(names: Sequence[str]) -> list[int]:
    """Sort path-like names as people do: folder by folder, numbers by value.

    Parameters
    ----------
    names : sequence of str
        Names with ``/`` between folders.

    Returns
    -------
    list of int
        Positions in sorted order; names that differ only in leading zeros are ordered as plain text.

    Examples
    --------
    >>> [["s10/1", "s2/10", "s2/9"][i] for i in natural_order(["s10/1", "s2/10", "s2/9"])]
    ['s2/9', 's2/10', 's10/1']
    """
    keys = [(tuple(_natural(part) for part in PurePosixPath(name).parts), name) for name in names]
    return sorted(range(len(keys)), key=keys.__getitem__)


def arrange(
    names: list[PurePosixPath], pictures_only: bool, labels_from_folders: bool | str, where: str, pattern: str
) -> tuple[list[PurePosixPath], list[str], dict[str, list[str]], str]:
    """Files to keep, sorted; their ids and folder labels; and the sentence on their order."""
    kept = [name for name in names if not pictures_only or is_picture(name)]
    if not kept:
        found = f"{len(names)} files, none of them a picture" if names else f"no file that matches {pattern!r}"
        raise StimulusError(f"{where!r} holds {found}: there are no stimuli to take")
    kept = [kept[i] for i in natural_order([str(name) for name in kept])]
    ids, sentence = stems(kept, [f"{where}/{name}" for name in kept])
    labels: dict[str, list[str]] = {}
    if labels_from_folders and all(len(name.parts) > 1 for name in kept):
        labels[labels_from_folders if isinstance(labels_from_folders, str) else "category"] = [
            str(name.parent) for name in kept
        ]
    left_out = len(names) - len(kept)
    order = f"sorted by relative path (natural order); {sentence}"
    return kept, ids, labels, order + (f"; {left_out} files that are no pictures were left out" if left_out else "")


def stems(names: Sequence[PurePosixPath], files: Sequence[str]) -> tuple[list[str], str]:
    """Ids of files: whole stems, or relative paths without last suffix for all where stems repeat."""
    short = [name.stem for name in names]
    if len(set(short)) == len(short):
        return short, "ids are file stems"
    ids = [str(name.with_suffix("")) if name.suffix else str(name) for name in names]
    refuse_repeated(checked_ids(ids), files)
    return ids, "ids are relative paths without their last suffix, because stems repeat between folders"


def member_pattern(pattern: str) -> Callable[[str], Any]:
    """A test for member names with the meaning of glob: ``*`` stays within a folder, ``**/`` crosses folders."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", pattern)
    words = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = "".join(
        words.get(piece, piece.replace("[!", "[^") if piece.startswith("[") else re.escape(piece)) for piece in pieces
    )
    return re.compile(expression).fullmatch


def checked_ids(values: Any) -> np.ndarray:
    """Ids as read-only text in one Unicode form (file systems differ in theirs)."""
    texts = [unicodedata.normalize("NFC", str(value)) for value in values]
    if "" in texts:
        raise StimulusError(f"the stimulus at position {texts.index('')} has an empty id; every stimulus needs one")
    made = np.array(texts, dtype=np.str_) if texts else np.empty(0, dtype="<U1")
    made.setflags(write=False)
    return made


def checked_column(values: Any, n: int, name: str) -> np.ndarray:
    """A label column: read-only numbers, booleans or text."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biufU":
        column = values.copy()
    else:
        items = list(values)
        blank = [item is None or item != item for item in items]  # NaN is the value that differs from itself
        if any(isinstance(item, str) for item in items):
            column = np.array(["" if b else str(item) for item, b in zip(items, blank, strict=True)], dtype=np.str_)
        else:
            column = np.array([np.nan if b else item for item, b in zip(items, blank, strict=True)])
    if column.shape != (n,):
        raise StimulusError(f"the label {name!r} has shape {column.shape} for {n} stimuli; give one value a stimulus")
    if column.dtype.kind not in "biufU":
        raise StimulusError(f"the label {name!r} holds {column.dtype} values; numbers, booleans and text can be kept")
    column.setflags(write=False)
    return column


def numbered(n: int) -> list[str]:
    """Zero-padded row numbers as ids."""
    return [f"{i:0{max(4, len(str(n - 1)))}d}" for i in range(n)]


def refuse_repeated(ids: np.ndarray, files: Sequence[str]) -> None:
    """Raise when an id repeats, naming what carries it."""
    seen: dict[str, int] = {}
    for i, identifier in enumerate(ids.tolist()):
        if identifier in seen:
            raise StimulusError(
                f"two stimuli have the id {identifier!r}: {files[seen[identifier]]} and {files[i]}. Ids keep rows, "
                "responses and RDMs together, so they must be unique: rename or remove one of the two"
            )
        seen[identifier] = i


def refuse_missing(missing: Sequence[str], where: str) -> None:
    """Raise when files that a list names do not exist."""
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise StimulusError(f"{where} names files that do not exist: {missing[0]!r}{more}")
