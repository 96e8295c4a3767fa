"""The identity of a store that is made from arrays: a sha256 over their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def identity_of(
    ids: Sequence[str],
    labels: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any],
    dtype: str,
) -> str:
    """Everything that determines the stored bytes, as one sha256.

    Parameters
    ----------
    ids : sequence of str
        Stimulus ids.
    labels : mapping of str to array
        Stimulus labels.
    arrays : mapping of str to ndarray
        Values per layer.
    attrs : mapping
        Provenance.
    dtype : str
        How values are kept.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    digest = hashlib.sha256()
    header = {
        "ids": list(ids),
        "labels": {name: [str(value) for value in np.asarray(values).tolist()] for name, values in labels.items()},
        "attrs": dict(attrs),
        "dtype": dtype,
        "layers": [[name, list(values.shape), values.dtype.str] for name, values in arrays.items()],
    }
    digest.update(json.dumps(header, sort_keys=True, default=str).encode())
    for values in arrays.values():
        step = max(1, (1 << 24) // max(1, values[:1].nbytes))
        for start in range(0, len(values), step):
            digest.update(np.ascontiguousarray(values[start : start + step]).tobytes())
    return digest.hexdigest()
