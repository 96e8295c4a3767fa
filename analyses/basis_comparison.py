"""Are single units privileged? The match with a layer's units against the match with rotations of its channels.

A rotation of the channel basis keeps everything a linear readout can use and takes away what is special about the axes
themselves. The same matrix is applied at every position of the map, so that a rotated unit still sees one place of the
image. Rotating all units of a layer together would mix positions too: neurons with small receptive fields then always
prefer the native units, whether or not the channels are privileged.

Source: the comparison of native with rotated axes is that of Khosla, Williams, McDermott & Kanwisher (2024),
Privileged representational axes in biological and artificial neural networks; single-unit matches are used here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.selectivity_responses import Layout
from actkit.analyses.source import Layer
from actkit.analyses.unit_matching_kernel import TIE, Best, correlate_columns, match_layer
from actkit.analyses.unit_matching_setting import (
    MatchingOptions,
    Setting,
    bootstrap_interval,
    mean_over_folds,
    open_setting,
)
from actkit.compute import format_bytes, parse_bytes, spans
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.options import with_options
from actkit.resampling import Stream, generator
from actkit.results import describe

__all__ = ["BasesOptions", "channel_rotation", "compare_bases", "position_groups"]

_N_BOOTSTRAP = 1000


class BasesOptions(MatchingOptions):
    """Options of :func:`compare_bases`."""

    n_rotations: int = Field(
        20, ge=1, description="Random rotations; with fewer than 20 no p-value can reach .05 / 1.05, and none is given."
    )


@with_options(BasesOptions)
def compare_bases(
    source: Any,
    responses: Any,
    groups: Any = None,
    labels: Any = None,
    reliability: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: BasesOptions,
) -> xr.Dataset:
    """Match neurons with the units of each layer, and with those of its channel basis in random rotations.

    The units of every position, centred over the stimuli, are multiplied by one random orthogonal matrix over channels,
    drawn evenly from all (Haar), and the whole match is made again in every fold. Units are not rescaled first: a
    channel of large variance weighs as much in the rotated units as it does in distances between stimuli.

    If the axes of the layer are as good as any, the native basis is one more random rotation, and `p_value` is exact
    whatever the neurons have in common. The interval of the drop resamples neurons with the rotations as drawn, so it
    speaks of other neurons, not of other networks.

    Parameters
    ----------
    source : ActivationStore, path, xarray.DataArray, numpy.ndarray or mapping of name to array
        Units: a store of single units, or arrays whose first dim is ``stimulus``. Of three further dims the first is
        the channel, of two (token, feature) the last, and single units in one dim are their own channels.
    responses : xarray.DataArray or numpy.ndarray
        Neurons: (stimulus, neuron), or (stimulus, repetition, neuron) padded with NaN.
    groups, labels : str, sequence or mapping, optional
        Stimuli that are never split between training and test, and categories that folds hold in equal shares.
    reliability : xarray.Dataset, xarray.DataArray or array_like, optional
        Reliability of each neuron's average.
    ids : sequence of str, optional
        Stimulus ids of arrays that carry none.
    progress : bool, optional
        Show a bar over the layers; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        ``native`` (layer, neuron) and ``rotated`` (layer, rotation, neuron), held-out correlations averaged over folds
        (`native` is the ``r_mean`` of ``match_units``); ``median_native`` and ``median_rotated``, their medians over
        neurons; ``drop`` (layer), the native median less the mean of the rotated ones, with ``drop_low`` and
        ``drop_high``, the 95 % percentile interval of 1000 bootstrap samples of neurons; ``p_value`` (layer), the
        share of bases, the native one among them, whose median is at least the native one (NaN with fewer than 20
        rotations). With reliabilities, ``native_corrected`` and ``rotated_corrected``, divided by their square roots.

    Raises
    ------
    InputError
        If a layer has one channel or none (four and more dims), its channels at one position or a rotation do not fit
        the memory, or the input is one that ``match_units`` refuses.
    LayerError
        If a layer does not exist.
    """
    if isinstance(source, str | Path):
        from actkit.store import open_store

        source = open_store(source)
    setting = open_setting(
        source, responses, groups, labels, reliability, ids, options.layers, options.folds, options.seed
    )
    memory = parse_bytes(options.memory)
    for layer in setting.layers:
        _check(layer, setting.layouts[layer.name], _n_dims(source, layer.name), len(setting.opened.ids), memory)
    shape = (len(setting.layers), options.n_rotations, len(setting.recorded.neurons))
    native, rotated = np.empty(shape[::2]), np.empty(shape)
    for k, layer in enumerate(progress_bar(setting.layers, desc="rotating", unit="layer", enabled=progress)):
        native[k] = _native(layer, setting, memory)
        rotated[k] = _rotated(layer, setting, options.n_rotations, options.seed, memory)
    result = _result(native, rotated, setting, options)
    n, neurons = len(setting.rows), shape[2]
    cost = 0.0
    for layer in setting.layers:
        each = 2.0 * n * layer.n_units * neurons
        cost += each + options.n_rotations * (each + 2.0 * n * layer.n_units * setting.layouts[layer.name].channels)
    return describe(
        result,
        "basis_comparison",
        options,
        setting.inputs(),
        **setting.attrs(),
        rotation="of the channel basis, the same matrix at every position",
        channels=[setting.layouts[layer.name].channels for layer in setting.layers],
        n_rotations=options.n_rotations,
        cost=f"{cost:.3g} floating-point operations",
        seed=options.seed,
    )


def channel_rotation(n: int, number: int, seed: int) -> np.ndarray:
    """Draw a random orthogonal matrix, every one as likely as any other.

    Parameters
    ----------
    n : int
        Number of channels.
    number : int
        Number of the rotation, from 0.
    seed : int
        Seed of the analysis.

    Returns
    -------
    numpy.ndarray of float64
        ``(n, n)``, Haar distributed (reflections included): the QR decomposition of a Gaussian matrix with the signs
        of R's diagonal given to Q. Source: Mezzadri (2007), How to generate random matrices from the classical
        compact groups, Notices of the AMS 54.
    """
    # Number 0 of this stream stays free: folds and permutations of one seed begin there.
    q, r = np.linalg.qr(generator(seed, number + 1, Stream.STIMULI).standard_normal((n, n)))
    return np.asarray(q * np.where(np.diag(r) < 0, -1.0, 1.0))


def _n_dims(source: Any, layer: str) -> int:
    """Dims of one stimulus' activation."""
    if hasattr(source, "layer_attrs"):
        return len(source.layer_attrs(layer).get("original_shape") or source.shape(layer))
    array = source[layer] if hasattr(source, "keys") else source
    return np.ndim(array) - 1


def _check(layer: Layer, layout: Layout, n_dims: int, n: int, memory: int) -> None:
    """Refuse layers whose channels cannot be rotated."""
    if n_dims > 3:
        raise InputError(
            f"layer {layer.name!r} has {n_dims} dims a stimulus, of which none is known to be the channel, so there is "
            "no channel basis to rotate; give arrays (stimulus, channel, y, x), (stimulus, token, feature) or "
            "(stimulus, unit)"
        )
    if layout.channels < 2:
        raise InputError(
            f"layer {layer.name!r} has 1 channel, whose basis has no other rotation; leave the layer out, or, if its "
            "dims are not (channel, y, x), give an array in that order"
        )
    least = max(4 * n * layout.channels * layer.itemsize, 4 * 8 * layout.channels**2)
    if least > memory:
        raise InputError(
            f"layer {layer.name!r}: the {layout.channels} channels of one position over {n} stimuli and a rotation of "
            f"them do not fit memory={format_bytes(memory)!r}; give at least {format_bytes(least)!r}"
        )


def _native(layer: Layer, setting: Setting, memory: int) -> np.ndarray:
    """Held-out correlation of every neuron's best unit, mean over folds."""
    best = match_layer(layer, setting.rows, setting.folds, [setting.targets], [True], memory)[0]
    assert best.columns is not None  # kept
    held_out = correlate_columns(best.columns, setting.targets, setting.folds)[1]
    held_out[best.unit < 0] = np.nan
    return mean_over_folds(held_out)


def _rotated(layer: Layer, setting: Setting, n_rotations: int, seed: int, memory: int) -> np.ndarray:
    """The same for rotations, ``(rotations, neurons)``: positions in groups that fit, all rotations of a group."""
    layout = setting.layouts[layer.name]
    found: list[Best | None] = [None] * n_rotations
    for group in position_groups(layer, layout, len(setting.opened.ids), memory // 2):
        values = group[setting.rows]
        values -= values.mean(axis=0)
        rows = np.arange(len(values))
        for number in range(n_rotations):
            rotation = channel_rotation(layout.channels, number, seed).astype(values.dtype)
            turned = _turned_layer(layer, values, rotation)
            new = match_layer(turned, rows, setting.folds, [setting.targets], [False], memory // 2)[0]
            found[number] = new if found[number] is None else _better(found[number], new)
        del group, values
    held_out = [np.where(best.unit < 0, np.nan, best.held_out) for best in found if best is not None]
    return np.stack([mean_over_folds(one) for one in held_out])


def _better(first: Best | None, second: Best) -> Best:
    """Join the matches of two groups of positions; the earlier group keeps ties."""
    assert first is not None
    won = second.train > first.train + TIE
    return Best(
        np.where(won, second.train, first.train),
        np.where(won, second.unit, first.unit),
        np.where(won, second.held_out, first.held_out),
        None,
    )


def position_groups(layer: Layer, layout: Layout, n: int, memory: int) -> Iterator[np.ndarray]:
    """Read all channels of some positions at a time; a layer that fits the memory is read once.

    Parameters
    ----------
    layer : Layer
        The layer; it is read once for every group.
    layout : Layout
        How its units belong to channels.
    n : int
        Number of stimuli.
    memory : int
        Bytes that a group and what is read may take.

    Yields
    ------
    numpy.ndarray
        ``(n, width, channels)`` of consecutive positions.
    """
    kind = np.float64 if layer.double else np.float32
    width = max(1, memory // (2 * n * layout.channels * np.dtype(kind).itemsize))
    for start, stop in spans(layout.positions, width):
        group = np.empty((n, stop - start, layout.channels), dtype=kind)
        flat = group.reshape(n, -1)
        unit = 0
        for block in layer.blocks(max(memory // 2, 1)):
            host = block.detach().cpu() if hasattr(block, "detach") else block
            host = (host.double() if layer.double else host.float()).numpy() if hasattr(host, "detach") else host
            at = np.arange(unit, unit + host.shape[1])
            position, channel = (
                (at // layout.channels, at % layout.channels)
                if layout.last
                else (at % layout.positions, at // layout.positions)
            )
            inside = (position >= start) & (position < stop)
            into = (position[inside] - start) * layout.channels + channel[inside]
            flat[:, into] = host if inside.all() else host[:, inside]
            unit += host.shape[1]
            del block, host
        yield group


def _turned_layer(layer: Layer, values: np.ndarray, rotation: np.ndarray) -> Layer:
    """A group of positions as a layer of rotated units, made a few positions at a time."""
    n, positions, channels = values.shape

    def blocks(most: int) -> Iterator[np.ndarray]:
        for start, stop in spans(positions, max(1, most // (2 * n * channels * values.dtype.itemsize))):
            yield (values[:, start:stop] @ rotation).reshape(n, -1)

    return Layer(layer.name, positions * channels, layer.double, values.dtype.itemsize, blocks)


_WORDS = {
    "native": "held-out correlation of the best unit",
    "rotated": "held-out correlation of the best unit of a rotated channel basis",
    "median_native": "median over neurons, native basis",
    "median_rotated": "median over neurons, rotated basis",
    "drop": "native median less the mean of the rotated medians",
    "drop_low": "2.5 % point of the drop over bootstrap samples of neurons",
    "drop_high": "97.5 % point of the drop over bootstrap samples of neurons",
    "p_value": "p, share of bases with at least the native median",
    "native_corrected": "held-out correlation over the square root of the reliability, native basis",
    "rotated_corrected": "held-out correlation over the square root of the reliability, rotated basis",
    "reliability": "reliability of the neuron's average",
}


def _result(native: np.ndarray, rotated: np.ndarray, setting: Setting, options: BasesOptions) -> xr.Dataset:
    """Sum up by layer."""
    n_layers = len(native)
    median_native = np.full(n_layers, np.nan)
    median_rotated = np.full(rotated.shape[:2], np.nan)
    low, high = np.full(n_layers, np.nan), np.full(n_layers, np.nan)
    for k in range(n_layers):
        # A neuron that is constant in every training set has no match in any basis.
        known = np.isfinite(native[k]) & np.isfinite(rotated[k]).all(axis=0)
        if not known.any():
            continue
        one, others = native[k, known], rotated[k][:, known]
        median_native[k], median_rotated[k] = np.median(one), np.median(others, axis=1)

        def drop(neurons: np.ndarray, one: np.ndarray = one, others: np.ndarray = others) -> np.ndarray:
            turned = np.median(others[:, neurons], axis=-1).mean(axis=0)
            return np.asarray(np.median(one[neurons], axis=-1) - turned)

        low[k], high[k] = bootstrap_interval(drop, int(known.sum()), _N_BOOTSTRAP, options.seed)
    reached = (median_rotated >= median_native[:, None]).sum(axis=1)
    p = (1 + reached) / (1 + options.n_rotations)
    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "native": (("layer", "neuron"), native),
        "rotated": (("layer", "rotation", "neuron"), rotated),
        "median_native": (("layer",), median_native),
        "median_rotated": (("layer", "rotation"), median_rotated),
        "drop": (("layer",), median_native - median_rotated.mean(axis=1)),
        "drop_low": (("layer",), low),
        "drop_high": (("layer",), high),
        "p_value": (("layer",), np.where(np.isfinite(median_native) & (options.n_rotations >= 20), p, np.nan)),
    }
    ceiling = setting.ceiling(options.floor)
    if ceiling is not None:
        data["reliability"] = (("neuron",), np.asarray(setting.reliability))
        data["native_corrected"] = (("layer", "neuron"), native / ceiling)
        data["rotated_corrected"] = (("layer", "rotation", "neuron"), rotated / ceiling)
    return xr.Dataset(
        {name: (dims, values, {"long_name": _WORDS[name], "units": "1"}) for name, (dims, values) in data.items()},
        coords={**setting.coords(), "rotation": np.arange(options.n_rotations)},
    )
