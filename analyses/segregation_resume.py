"""Finished layers of a segregation study on disk, so that a killed study goes on with the next layer."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from actkit.analyses.segregation_layer import LayerResult
from actkit.analyses.segregation_units import SharedUnits
from actkit.errors import InputError
from actkit.results import atomic_write, fingerprint

_VALUE = "value "
_FORMAT = 1  # to be raised when what is kept of a layer changes


def finished(folder: str | Path | None, question: Mapping[str, Any], compute: Callable[[], LayerResult]) -> LayerResult:
    """Take a layer's result from disk, or compute it and keep it there.

    Parameters
    ----------
    folder : path or None
        Where results are kept; None keeps nothing.
    question : mapping
        Everything that decides the numbers; a result kept for another question is left alone.
    compute : callable
        Measures the layer.

    Returns
    -------
    LayerResult
        The same numbers either way.

    Raises
    ------
    InputError
        If the folder's name belongs to a file.
    """
    if folder is None:
        return compute()
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file, so finished layers cannot be kept in it; give a folder")
    digest = fingerprint({**question, "format": _FORMAT})
    path = place / f"segregation-{digest[:32]}.npz"
    try:
        return _unpacked(path.read_bytes(), digest)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there yet, or damaged by something else than a kill
    result = compute()
    atomic_write(path, _packed(result, digest))
    return result


def _packed(result: LayerResult, digest: str) -> bytes:
    """A result as the bytes of an npz file."""
    note = {"digest": digest, "n_units": result.n_units, "method": result.method, "shared": asdict(result.shared)}
    arrays = {one.name: getattr(result, one.name) for one in fields(result)}
    kept = {name: values for name, values in arrays.items() if isinstance(values, np.ndarray)}
    kept.update({_VALUE + name: values for name, values in result.values.items()})
    buffer = io.BytesIO()
    np.savez(buffer, note=np.array(json.dumps(note)), **kept)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpacked(content: bytes, digest: str) -> LayerResult:
    """The result in the bytes of an npz file; KeyError where it answers another question."""
    with np.load(io.BytesIO(content), allow_pickle=False) as kept:
        note = json.loads(str(kept["note"]))
        if note["digest"] != digest:
            raise KeyError(digest)
        arrays = {name: kept[name] for name in kept.files if name != "note"}
    shared = note["shared"]
    shared["reliability"] = tuple(shared["reliability"])
    values = {name.removeprefix(_VALUE): arrays.pop(name) for name in list(arrays) if name.startswith(_VALUE)}
    return LayerResult(
        n_units=note["n_units"], method=note["method"], shared=SharedUnits(**shared), values=values, **arrays
    )
