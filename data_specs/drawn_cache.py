"""Large sets of drawn pictures are kept in the user's cache, so that each is drawn once and not in every session.

A set is kept under a key of all that decides its pixels: the function, its options, the source files that draw, and the
versions of actkit and numpy. What is read is checked by sha256; whatever does not fit is drawn anew.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actkit import __version__
from actkit.results import atomic_write, fingerprint
from actkit.stimuli import Stimuli

SMALLEST, LARGEST = 2_000_000, 300_000_000
"""Pixels of the sets that are kept: smaller ones take seconds to draw, larger ones more than 0.9 GB to keep."""


def folder() -> Path:
    """Tell where drawn sets are kept.

    Returns
    -------
    Path
        The folder ``drawn`` in the user's cache folder of actkit; it need not exist, and may be deleted at any time.
    """
    from platformdirs import user_cache_path

    return user_cache_path("actkit") / "drawn"


def kept_stimuli(name: str, draw: Callable[..., Any], options: Mapping[str, Any], made: Callable[[], Any]) -> Stimuli:
    """Read drawn stimuli from the cache, or draw them and keep them if they are many.

    Parameters
    ----------
    name : str
        Name of the drawing function.
    draw : callable
        The function, which declares its options.
    options : mapping
        What it is called with.
    made : callable
        Draws: returns an object with ``stimuli``.

    Returns
    -------
    Stimuli
        The same whether they were kept or drawn.
    """
    key = _key(name, draw, options)
    path = folder() / f"{name}_{key[:32]}.npz"
    if (kept := _read(path, key)) is not None:
        return kept
    stimuli: Stimuli = made().stimuli
    height, width = np.asarray(stimuli.raw(0)).shape[:2]
    if SMALLEST <= len(stimuli) * height * width <= LARGEST:
        _write(path, key, stimuli)
    return stimuli


def _key(name: str, draw: Callable[..., Any], options: Mapping[str, Any]) -> str:
    """Hash all that decides what is drawn."""
    checked = draw.options_model(**options).model_dump(mode="json")  # type: ignore[attr-defined]
    return fingerprint(
        {"function": name, "options": checked, "code": _code(), "actkit": __version__, "numpy": np.__version__}
    )


@functools.cache
def _code() -> str:
    """Hash the source files that draw; they do not change while Python runs."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in (here / "rendering.py", *sorted(here.glob("rendered_*.py"))):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read(path: Path, key: str) -> Stimuli | None:
    """Read a kept set, or None where there is none that is whole and of this key."""
    try:
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if note["key"] != key:
            return None
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != note["sha256"]:
                return None
            file.seek(0)
            with np.load(file, allow_pickle=False) as kept:
                labels = {label: kept[f"label_{i}"] for i, label in enumerate(note["labels"])}
                return Stimuli.from_array(kept["pictures"], kept["ids"], labels, note["name"], note["order"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, key: str, stimuli: Stimuli) -> None:
    """Keep a set; where that is not possible it is drawn again next time, which is no reason to stop."""
    arrays: dict[str, Any] = {f"label_{i}": np.asarray(one) for i, one in enumerate(stimuli.labels.values())}
    arrays["pictures"] = np.stack([np.asarray(stimuli.raw(i)) for i in range(len(stimuli))])
    buffer = io.BytesIO()
    try:
        np.savez(buffer, ids=stimuli.ids, **arrays)
        content = buffer.getvalue()
        note = {
            "key": key,
            "sha256": hashlib.sha256(content).hexdigest(),
            "name": stimuli.name,
            "order": stimuli.order,
            "labels": list(stimuli.labels),
        }
        atomic_write(path, content)
        # The note last: what it speaks of is then there, and whole.
        atomic_write(path.with_suffix(".json"), json.dumps(note, indent=1) + "\n")
    except OSError:
        return
