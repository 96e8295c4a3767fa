"""Stores whose rows stand for several stimuli: the mean activation over the images of a category, say."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actkit.errors import InputError, nearest
from actkit.recordings_trials import numbered
from actkit.results import fingerprint
from actkit.store_plan import LayerPlan, StorePlan, plan_layer
from actkit.store_read import ActivationStore, open_store
from actkit.store_write import create_store

__all__ = ["pool_store"]

_BLOCK = 32  # rows that are written at a time
_MOST_BYTES = 2**28  # of activations in memory at a time


def pool_store(
    store: ActivationStore | str | os.PathLike[str],
    rows: str | Sequence[Hashable] | npt.NDArray[Any],
    path: str | os.PathLike[str],
    *,
    ids: Sequence[str] | npt.NDArray[Any] | None = None,
    layers: Sequence[str] | None = None,
    overwrite: bool = False,
) -> ActivationStore:
    """Average a store over the stimuli that belong to one row of a recording.

    A recording whose rows are categories of ten images (`actkit.load_data("bonner2021_object2vec")`) can only be
    compared with a layer that has a row for each category. The new store is one like any other: its units are those of
    the layer, a layer that was reduced stays one, and it can be matched, encoded from and lesioned by.

    Parameters
    ----------
    store : ActivationStore or path
        A complete store of the single stimuli.
    rows : str or sequence
        The row that each stimulus belongs to: a label of the store, or one value for each stimulus in its order.
    path : path
        Folder of the new store.
    ids : sequence of str, optional
        The rows in the order wanted, by default in the order in which they first occur. Stimuli of other rows are left
        out.
    layers : sequence of str, optional
        Layers to keep, by default all.
    overwrite : bool
        Replace a store that is there.

    Returns
    -------
    ActivationStore
        The new store, opened. Its stimuli are the rows, each layer the mean over the stimuli of a row (added up in
        float64, kept in float32), with the label ``n_images`` and those labels that have one value within each row.
        Attributes are those of the store, with ``pooled_from``, its identity.

    Raises
    ------
    InputError
        If there is no such label, `rows` does not fit the stimuli, a row of `ids` has no stimulus, or there is no such
        layer.

    Examples
    --------
    >>> import tempfile
    >>> from actkit.store import store_from_arrays
    >>> folder = tempfile.mkdtemp()
    >>> images = store_from_arrays(f"{folder}/a.zarr", {"fc": np.array([[1.0], [3.0], [5.0]])}, ids=["x1", "x2", "y1"])
    >>> pooled = pool_store(images, ["x", "x", "y"], f"{folder}/b.zarr")
    >>> pooled.ids.tolist(), pooled.rows("fc").ravel().tolist()
    (['x', 'y'], [2.0, 5.0])
    """
    source = open_store(store)
    if isinstance(rows, str):
        if rows not in source.labels:
            raise InputError(f"the store has no label {rows!r} to pool by; {nearest(rows, source.labels)}")
        belongs = np.asarray(source.labels[rows]).astype(str)
    else:
        belongs = np.asarray(rows).astype(str)
    if belongs.shape != (len(source.ids),):
        raise InputError(
            f"there are {belongs.size} rows for {len(source.ids)} stimuli of the store; give one for each stimulus"
        )
    number, found = numbered(belongs)
    wanted = found if ids is None else np.asarray(ids).astype(str)
    place = {row: i for i, row in enumerate(found.tolist())}
    without = [row for row in wanted.tolist() if row not in place]
    if without:
        raise InputError(f"no stimulus belongs to the row {without[0]!r}; give its stimuli, or leave it out of ids")
    order = np.array([place[row] for row in wanted.tolist()], dtype=np.int64)
    members = [np.flatnonzero(number == row) for row in order]
    names = list(source.layers) if layers is None else [str(layer) for layer in layers]
    unknown = [name for name in names if name not in source]
    if unknown or not names:
        raise InputError(f"the store has no layer {(unknown or [''])[0]!r}; {nearest((unknown or [''])[0], source)}")
    plan = StorePlan(
        path=Path(path),
        ids=tuple(wanted.tolist()),
        labels=_labels(source, members) | {"n_images": np.array([len(own) for own in members])},
        layers=tuple(_layer(source, name, len(wanted)) for name in names),
        block=min(_BLOCK, len(wanted)),
        attrs={**dict(source.attrs), "pooled_from": str(source.fingerprint)},
        identity=fingerprint({"of": str(source.fingerprint), "rows": belongs, "ids": wanted, "layers": names}),
    )
    with create_store(plan, overwrite=overwrite) as writer:
        for index in range(plan.n_blocks):
            start, stop = plan.block_rows(index)
            writer.write_block(index, {name: _means(source, name, members[start:stop]) for name in names})
        return writer.complete()


def _layer(source: ActivationStore, name: str, n_rows: int) -> LayerPlan:
    """A layer of the new store: that of the old one, with its attributes and coordinates."""
    array, dims = source[name], source.dims(name)
    coords = {dim: array.coords[dim].values for dim in dims if dim in array.coords}
    return plan_layer(
        name, source.shape(name), dims, n_rows, min(_BLOCK, n_rows), attrs=source.layer_attrs(name), coords=coords
    )


def _labels(source: ActivationStore, members: Sequence[npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[Any]]:
    """Labels that have one value within each row."""
    kept = {}
    for label, values in source.labels.items():
        if all((values[own] == values[own[0]]).all() for own in members):
            kept[str(label)] = values[[own[0] for own in members]]
    return kept


def _means(source: ActivationStore, name: str, members: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    """Mean activation of each row, a span of units at a time."""
    rows = np.concatenate(members)
    sizes = np.array([len(own) for own in members])
    starts = np.cumsum(sizes) - sizes
    chunk = int(np.prod(source.chunks(name)[1:]))  # whole chunks, so that none is read twice
    width = max(1, _MOST_BYTES // (8 * len(rows) * chunk)) * chunk
    n_units = source.n_units(name)
    means = np.empty((len(members), n_units), dtype=np.float32)
    for start in range(0, n_units, width):
        stop = min(start + width, n_units)
        sums = np.add.reduceat(source.units(name, start, stop, rows), starts, axis=0, dtype=np.float64)
        means[:, start:stop] = sums / sizes[:, None]
    return means.reshape(len(members), *source.shape(name))
