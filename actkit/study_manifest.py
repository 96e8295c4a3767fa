"""The manifest of a study's folder: which steps are finished, and whether their outputs are as they were."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from actkit.errors import ActkitError

MANIFEST = "manifest.json"


def read_manifest(out: Path) -> dict[str, Any]:
    """Read what earlier runs left in a folder.

    Parameters
    ----------
    out : Path
        Folder of a study.

    Returns
    -------
    dict
        Step id to ``{"key", "outputs"}``; empty where there is none, or it cannot be read (all steps then run again).
    """
    try:
        steps = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return steps if isinstance(steps, dict) else {}


def output_hash(path: Path) -> str | None:
    """Hash an output: a file by its bytes, a store by its identity.

    Parameters
    ----------
    path : Path
        A file or a store.

    Returns
    -------
    str or None
        None if it is not there, or the store is incomplete.
    """
    if path.is_dir():
        from actkit.store import open_store

        try:
            return open_store(path).identity
        except ActkitError:
            return None
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
