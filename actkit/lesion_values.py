"""What takes the place of lesioned units: the values of each mode, from a reference recording where one is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import torch

from actkit.errors import InputError, LayerError, nearest
from actkit.results import fingerprint
from actkit.units import UnitSet

if TYPE_CHECKING:
    from actkit.store import ActivationStore

__all__ = ["Part", "Reference", "Values", "lesion_values", "recorded_shape", "reference_fingerprint"]

Reference: TypeAlias = Union["ActivationStore", Mapping[str, Any]]

_READ_BYTES = 64_000_000


@dataclass(frozen=True)
class Part:
    """Units of one layer that are written in one go: whole channels, or single positions.

    Attributes
    ----------
    index : tuple of numpy.ndarray
        Where they are in an output (stimuli, channels, …positions), the stimulus axis left out.
    fill : numpy.ndarray or None
        ``(k,)`` one value per channel or position, for ``mean``.
    rows : torch.Tensor or None
        ``(stimulus of the reference, k, …positions)``, for ``permute``.
    """

    index: tuple[np.ndarray, ...]
    fill: np.ndarray | None = None
    rows: torch.Tensor | None = None


@dataclass(frozen=True)
class _Layer:
    """A layer's units, apart by kind, and what the reference says of them."""

    channels: np.ndarray | None  # None: all, however many there are
    positions: tuple[np.ndarray, ...]
    shape: tuple[int, ...] | None = None  # of the reference, channels first
    fill: tuple[np.ndarray, np.ndarray] | None = None
    rows: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass(frozen=True)
class Values:
    """What a lesion writes.

    Attributes
    ----------
    mode : str
        The lesion's mode.
    factor : float
        For ``scale``.
    reference : str
        Fingerprint of the reference; empty where none is needed.
    layers : dict
        By layer name.
    """

    mode: str
    factor: float
    reference: str
    layers: dict[str, _Layer] = field(repr=False)

    def parts(self, name: str, shape: tuple[int, ...]) -> Iterator[Part]:
        """What to write into a layer's output.

        Parameters
        ----------
        name : str
            The layer.
        shape : tuple of int
            Of its output for one stimulus, channels first.

        Yields
        ------
        Part
            Whole channels first, then single positions, each only where there are any.

        Raises
        ------
        InputError
            If the reference has another shape.
        """
        layer = self.layers[name]
        if layer.shape is not None:
            enough = layer.shape == shape or (self.mode == "mean" and not layer.positions[0].size)
            if not enough or layer.shape[0] != shape[0]:
                raise InputError(
                    f"the reference holds layer {name!r} as {layer.shape} for one stimulus, and its output is {shape} "
                    f"(channels first), so {self.mode!r} has no values for it; record the layer whole with this network"
                )
        fill = layer.fill or (None, None)
        rows = layer.rows or (None, None)
        channels = np.arange(shape[0]) if layer.channels is None else layer.channels
        if channels.size:
            yield Part((channels,), fill[0], rows[0])
        if layer.positions[0].size:
            yield Part(layer.positions, fill[1], rows[1])


def recorded_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one stimulus' output as recordings have it.

    Parameters
    ----------
    shape : tuple of int
        Channels first.

    Returns
    -------
    tuple of int
        The same, but (position, channel) for a sequence.
    """
    return shape[::-1] if len(shape) == 2 else shape


def lesion_values(units: UnitSet, mode: str, reference: Reference | None, factor: float) -> Values:
    """Settle what a lesion writes, reading the reference where the mode needs one.

    Parameters
    ----------
    units : UnitSet
        What is lesioned.
    mode : {"zero", "mean", "permute", "scale"}
        The mode.
    reference : ActivationStore or mapping of str to array, optional
        Layer name to ``(stimulus, …)`` in recorded form.
    factor : float
        For ``scale``.

    Returns
    -------
    Values
        For the hooks.

    Raises
    ------
    LayerError
        If the reference lacks a layer.
    InputError
        If the reference is missing, too small, not finite, or does not hold a unit; or if the factor is not finite.
    """
    if not np.isfinite(factor):
        raise InputError(f"factor={factor} would make every output NaN or infinite; give a finite number")
    needed = mode in ("mean", "permute")
    if needed and reference is None:
        raise InputError(
            f"mode {mode!r} takes its values from a recording, and none is given; give reference=store (never the "
            "batch: a lesion must not depend on which images run together)"
        )
    layers = {}
    counts: dict[str, int] = {}
    for name in units.layers:
        mine = units.in_layer(name)
        split = _apart(mine)
        if not needed:
            layers[name] = _Layer(*split)
            continue
        assert reference is not None  # refused above
        if name not in reference:
            raise LayerError(f"the reference holds no layer {name!r}; {nearest(name, list(reference))}")
        layers[name], counts[name] = _from_reference(reference, mine, split, mode)
    if mode == "permute" and len(set(counts.values())) > 1:
        raise InputError(
            f"the layers of the reference hold different numbers of stimuli ({counts}); a donor is one stimulus for all"
        )
    return Values(mode, float(factor), reference_fingerprint(reference, layers) if needed else "", layers)


def _apart(units: UnitSet) -> tuple[np.ndarray | None, tuple[np.ndarray, ...]]:
    """Whole channels (None: all), and the positions that are not within them."""
    alone = units.y >= 0
    whole = bool((units.channel < 0).any())
    channels = np.unique(units.channel[~alone])
    left = alone & ~np.isin(units.channel, channels) & (not whole)
    axes = (units.channel, units.y, units.x) if (units.x[left] >= 0).any() else (units.channel, units.y)
    return None if whole else channels, tuple(axis[left] for axis in axes)


def _from_reference(
    reference: Reference, units: UnitSet, split: tuple[np.ndarray | None, tuple[np.ndarray, ...]], mode: str
) -> tuple[_Layer, int]:
    """A layer's values in the reference, and its number of stimuli."""
    name = units.layers[0]
    n, shape, blocks = _blocks(reference, name)
    units.check({name: shape})
    if n < (2 if mode == "permute" else 1):
        raise InputError(f"the reference holds {n} stimuli in layer {name!r}; {mode!r} needs more")
    known = units.shapes.get(name)
    # Sequences are recorded with channels last, except for one-dimensional convolutions.
    last = len(shape) == 2 and not (known == shape[::-1] != shape)
    first = (shape[1], shape[0]) if last else shape
    channels, positions = split
    chosen = np.arange(first[0]) if channels is None else channels
    single: tuple[Any, ...] = (slice(None), *positions)
    total = np.zeros(first)
    kept: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for block in blocks:
        values = block.reshape(-1, *shape)
        values = np.moveaxis(values, -1, 1) if last else values
        if not np.isfinite(values).all():
            raise InputError(f"layer {name!r} of the reference holds NaN or infinite values; record it again without")
        total += values.sum(0, dtype=np.float64)
        if mode == "permute":
            kept[0].append(values[:, chosen].copy())
            kept[1].append(values[single].copy())
    if mode == "permute":
        rows = tuple(torch.from_numpy(np.concatenate(part)) for part in kept)
        return _Layer(channels, positions, first, rows=(rows[0], rows[1])), n
    mean = total / n
    fill = (mean.reshape(first[0], -1).mean(1)[chosen], mean[positions] if positions[0].size else np.empty(0))
    return _Layer(channels, positions, first, fill=fill), n


def _blocks(reference: Reference, name: str) -> tuple[int, tuple[int, ...], Iterator[np.ndarray]]:
    """Number of stimuli, shape of one stimulus' output, and the rows, a block at a time."""
    if isinstance(reference, Mapping):
        array = np.asarray(reference[name])
        if array.ndim < 2 or array.dtype.kind not in "fiub":
            raise InputError(
                f"layer {name!r} of the reference is an array of {array.dtype} with shape {array.shape}; give numbers "
                "of shape (stimulus, …) as they are recorded"
            )
        return len(array), array.shape[1:], iter([array])
    store = reference
    rows = (block for _, _, block in store.row_blocks(name, _READ_BYTES))
    return store.n_stimuli, store.shape(name), rows


def reference_fingerprint(reference: Reference | None, layers: Iterable[str]) -> str:
    """What tells the reference of a lesion from another.

    Parameters
    ----------
    reference : ActivationStore or mapping of str to array
        The reference.
    layers : iterable of str
        The layers that are used; of a mapping, the others do not count.

    Returns
    -------
    str
        The store's identity, or a sha256 over the arrays; empty where there is no reference.
    """
    if isinstance(reference, Mapping):
        return fingerprint({name: np.asarray(reference[name]) for name in layers})
    return "" if reference is None else reference.fingerprint
