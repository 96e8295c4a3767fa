"""The adapter through which xarray indexes a layer of a store without reading it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

if TYPE_CHECKING:
    from actkit.store_read import ActivationStore


class LazyLayer(BackendArray):
    """One layer as an array that reads, and decodes, only the chunks that an index touches.

    Parameters
    ----------
    store : ActivationStore
        The store.
    layer : str
        A layer of it.
    """

    def __init__(self, store: ActivationStore, layer: str) -> None:
        self.store = store
        self.layer = layer
        self.shape = (store.n_stimuli, *store.shape(layer))
        self.dtype = np.dtype("float32")

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Values for one integer, slice or list of integers per dimension."""
        numbers = [np.atleast_1d(np.arange(size)[part]) for part, size in zip(key, self.shape, strict=True)]
        rest = math.prod(self.shape[2:])
        whole = all(np.array_equal(n, np.arange(size)) for n, size in zip(numbers[1:], self.shape[1:], strict=True))
        rows = numbers[0]
        if whole and len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            flat = self.store.rows(self.layer, int(rows[0]), int(rows[0]) + len(rows))
        else:
            units = (numbers[1][:, None] * rest + np.arange(rest)).reshape(-1)
            flat = self.store._gather(self.layer, rows, units)
        values = flat.reshape(len(rows), len(numbers[1]), *self.shape[2:])
        for axis, part in enumerate(key[2:], start=2):
            values = values[(slice(None),) * axis + (np.atleast_1d(numbers[axis]),)] if not _is_all(part) else values
        dropped = tuple(axis for axis, part in enumerate(key) if np.ndim(part) == 0 and not isinstance(part, slice))
        return values.reshape([size for axis, size in enumerate(values.shape) if axis not in dropped])


def _is_all(part: Any) -> bool:
    return isinstance(part, slice) and part == slice(None)
