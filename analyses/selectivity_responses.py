"""Responses of units and filters, a few at a time: what selectivity is computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from actkit.analyses.source import Layer, Source, open_source
from actkit.errors import InputError

Reduce = Literal["l2", "mean", "max", "none"]

# A float16 store keeps the distance from the unit's mean to 11 bits, so that a rectified 0 may come back below 0.
_HALF_STEP = 2.0**-10


@dataclass(frozen=True)
class Layout:
    """How the units of a layer, flattened, belong to channels.

    Attributes
    ----------
    shape : tuple of int
        Shape of one stimulus' activation.
    channels : int
        Number of channels: filters of a convolution, features of a token, units of a dense layer.
    positions : int
        How many units each channel has.
    last : bool
        Whether the channel is the last axis (tokens × features) instead of the first.
    half : bool
        Whether the values were kept in float16.
    """

    shape: tuple[int, ...]
    channels: int
    positions: int
    last: bool = False
    half: bool = False

    @classmethod
    def of(cls, shape: Sequence[int], dims: Sequence[str] = (), half: bool = False) -> Layout:
        """Tell the layout from a shape.

        Parameters
        ----------
        shape : sequence of int
            Shape of one stimulus' activation: ``(unit,)``, ``(channel, y, x)`` or ``(token, feature)``.
        dims : sequence of str
            Names of its dimensions, where they have any.
        half : bool
            Whether the values were kept in float16.

        Returns
        -------
        Layout
            Two unnamed dimensions are tokens and features; four and more are single units.
        """
        shape = tuple(int(size) for size in shape)
        if len(shape) == 2 and tuple(dims[:1]) == ("channel",):
            shape = (*shape, 1)  # a map of one column: two bare dimensions stand for tokens and features
        if len(shape) == 3:
            return cls(shape, shape[0], math.prod(shape[1:]), half=half)
        if len(shape) == 2:
            return cls(shape, shape[1], shape[0], last=True, half=half)
        return cls((math.prod(shape),), math.prod(shape), 1, half=half)

    def places(self, single: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Name the units as :class:`actkit.units.UnitSet` does.

        Parameters
        ----------
        single : bool
            Name every position by itself, not whole channels.

        Returns
        -------
        tuple of numpy.ndarray of int64
            ``channel``, ``y`` and ``x``, in the order of the responses; -1 for every position.
        """
        if not single or self.positions == 1:
            none = np.full(self.channels, -1, dtype=np.int64)
            return np.arange(self.channels), none, none.copy()
        at = np.indices(self.shape).reshape(len(self.shape), -1).astype(np.int64)
        return (at[1], at[0], np.full(at.shape[1], -1)) if self.last else (at[0], at[1], at[2])


def open_responses(source: Any, ids: Sequence[Any] | np.ndarray | None) -> tuple[Source, dict[str, Layout]]:
    """Read a source, and how the units of its layers belong to channels.

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, xarray.Dataset, numpy.ndarray, torch.Tensor or mapping
        As for :func:`actkit.analyses.source.open_source`.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.

    Returns
    -------
    Source
        Stimuli and layers.
    dict of str to Layout
        The layout of each layer.

    Raises
    ------
    InputError
        If the source cannot be read.
    """
    if isinstance(source, str | Path):
        from actkit.store import open_store

        source = open_store(source)
    opened = open_source(source, ids)
    if hasattr(source, "layer_attrs"):
        layouts = {}
        for name in source.layers:
            shape = source.layer_attrs(name).get("original_shape") or source.shape(name)
            if math.prod(shape) != source.n_units(name):
                shape = source.shape(name)  # reduced after it was flattened
            layouts[name] = Layout.of(shape, half=source.dtype(name) == np.float16)
        return opened, layouts
    if isinstance(source, Mapping):  # a Dataset is one too
        arrays = {str(name): array for name, array in source.items()}
    else:
        arrays = {opened.layers[0].name: source}
    return opened, {name: _array_layout(array) for name, array in arrays.items()}


def _array_layout(array: Any) -> Layout:
    """The layout of an array whose first dim is the stimulus."""
    if isinstance(array, xr.DataArray):
        array = array.transpose("stimulus", ...)
        return Layout.of(array.shape[1:], [str(dim) for dim in array.dims[1:]])
    return Layout.of(tuple(np.shape(array))[1:])


def response_blocks(
    layer: Layer, layout: Layout, ids: Sequence[str], reduce: Reduce, rectify: bool, nonnegative: bool, memory: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Read the responses of a layer's channels (or single units), some at a time.

    Parameters
    ----------
    layer : Layer
        The layer.
    layout : Layout
        How its units belong to channels.
    ids : sequence of str
        Stimulus ids, for messages.
    reduce : {"l2", "mean", "max", "none"}
        What one number a channel's map becomes. A channel of a single unit responds with its activation.
    rectify : bool
        Set negative activations to 0 first.
    nonnegative : bool
        Refuse negative activations.
    memory : int
        Bytes that blocks may take.

    Yields
    ------
    first : int
        Number of the first channel (or unit) of the block.
    responses : numpy.ndarray of float64
        ``(n_stimuli, width)``.

    Raises
    ------
    InputError
        If activations are NaN, infinite, or negative where that is refused; if the memory is too small.
    """
    blocks = _checked(layer, layout, ids, rectify, nonnegative, max(memory // 4, 1))
    n = len(ids)
    if layout.positions == 1 or reduce == "none":
        start = 0
        for block in blocks:
            yield start, block
            start += block.shape[1]
        return
    step, start_value = _REDUCTIONS[reduce]
    if layout.last:
        yield 0, _over_tokens(blocks, layout, n, reduce, memory)
        return
    width = max(1, memory // (32 * n))
    sums = np.full((n, min(width, layout.channels)), start_value)
    first = unit = 0
    for block in blocks:
        done = 0
        while done < block.shape[1]:
            # The channels that this block still touches and the finished ones that fit.
            room = (first + sums.shape[1]) * layout.positions - unit
            part = block[:, done : done + room]
            begin = unit // layout.positions
            edges = np.arange(begin + 1, -(-(unit + part.shape[1]) // layout.positions)) * layout.positions - unit
            found = step(part, np.concatenate([[0], edges]).astype(np.intp))
            columns = slice(begin - first, begin - first + found.shape[1])
            sums[:, columns] = _JOIN[reduce](sums[:, columns], found)
            done += part.shape[1]
            unit += part.shape[1]
            if unit == (first + sums.shape[1]) * layout.positions:
                yield first, _finished(sums, reduce, layout.positions)
                first += sums.shape[1]
                sums = np.full((n, min(width, layout.channels - first)), start_value)
        del block


def _checked(
    layer: Layer, layout: Layout, ids: Sequence[str], rectify: bool, nonnegative: bool, most: int
) -> Iterator[np.ndarray]:
    """Blocks of units in float64, refused where selectivity would have no meaning."""
    for block in layer.blocks(most):
        host = block.detach().cpu().numpy() if hasattr(block, "detach") else block
        values = np.array(host, dtype=np.float64)
        if not np.isfinite(values).all():
            bad = ids[int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])]
            raise InputError(
                f"layer {layer.name!r} holds NaN or infinite activations (stimulus {bad!r}), whose selectivity is "
                "undefined; record the layer again in float32, or leave these stimuli out"
            )
        if rectify:
            np.maximum(values, 0, out=values)
        elif nonnegative and values.size and (lowest := float(values.min())) < 0:
            if not layout.half or lowest < -_HALF_STEP * float(values.max()):
                bad = ids[int(np.flatnonzero((values == lowest).any(axis=1))[0])]
                raise InputError(
                    f"layer {layer.name!r} holds negative activations ({lowest:.3g} for stimulus {bad!r}); the index "
                    "(a - b) / (a + b) is bounded by -1 and 1 for responses from 0 up only. Record the layer after "
                    "its non-linearity, use measure='d_prime', or rectify=True"
                )
            np.maximum(values, 0, out=values)
        yield values
        del block, values


def _sum_squares(part: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Sum of squares between edges."""
    return np.asarray(np.add.reduceat(part * part, edges, axis=1))


_REDUCTIONS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], float]] = {
    "l2": (_sum_squares, 0.0),
    "mean": (lambda part, edges: np.add.reduceat(part, edges, axis=1), 0.0),
    "max": (lambda part, edges: np.maximum.reduceat(part, edges, axis=1), -np.inf),
}
_JOIN: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"l2": np.add, "mean": np.add, "max": np.maximum}


def _finished(sums: np.ndarray, reduce: str, positions: int) -> np.ndarray:
    """Turn what was collected over a map into the response."""
    return np.sqrt(sums) if reduce == "l2" else sums / positions if reduce == "mean" else sums


def _over_tokens(blocks: Iterator[np.ndarray], layout: Layout, n: int, reduce: str, memory: int) -> np.ndarray:
    """Reduce over tokens: every feature is complete only after the last token."""
    if 8 * n * layout.channels > memory:
        raise InputError(
            f"the {layout.channels} features of {n} stimuli do not fit the memory of {memory} bytes; give at least "
            f"{8 * n * layout.channels}"
        )
    sums = np.full((n, layout.channels), _REDUCTIONS[reduce][1])
    unit = 0
    for block in blocks:
        done = 0
        while done < block.shape[1]:
            feature = unit % layout.channels
            part = block[:, done : done + layout.channels - feature]
            columns = slice(feature, feature + part.shape[1])
            sums[:, columns] = _JOIN[reduce](sums[:, columns], part * part if reduce == "l2" else part)
            done += part.shape[1]
            unit += part.shape[1]
    return _finished(sums, reduce, layout.positions)
