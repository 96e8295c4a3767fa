"""What matched and random units are like, and what geometry is left without them: the numbers of `lesion_matched`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from actkit.analyses.selectivity_responses import Layout
from actkit.analyses.source import Layer
from actkit.compute import parse_bytes, spans
from actkit.errors import InputError
from actkit.resampling import bootstrap_weights

if TYPE_CHECKING:
    import torch

    from actkit.replay_outputs import Opened

__all__ = [
    "Activity",
    "activity",
    "far_pairs",
    "layer_rdms",
    "mean_draws",
    "neural_rdm",
    "readout_rdms",
    "rsa",
    "rsa_draws",
    "single_units",
]

Dissimilarity = Literal["correlation", "sqeuclidean"]
Compare = Literal["spearman", "pearson"]

_DRAWS = 64  # bootstrap draws in one product


@dataclass(frozen=True)
class Activity:
    """What every unit (or channel) of a layer is like on some stimuli.

    Attributes
    ----------
    features : numpy.ndarray of float64
        ``(unit, feature)``.
    names : list of str
        Names of the features: mean, variance and, in maps, y and x.
    mean : numpy.ndarray of float64
        ``(unit,)``.
    first : numpy.ndarray of float64
        Activation of every single unit for the first of the stimuli.
    """

    features: np.ndarray
    names: list[str]
    mean: np.ndarray
    first: np.ndarray


def activity(layer: Layer, layout: Layout, rows: np.ndarray, channels: bool, memory: str | int) -> Activity:
    """Describe every unit of a layer by its activity.

    Parameters
    ----------
    layer : Layer
        The layer.
    layout : Layout
        How its units belong to channels.
    rows : numpy.ndarray of int
        The stimuli, rows of the source.
    channels : bool
        Describe channels instead: mean and variance over stimuli and positions, and the centre of mass of the mean
        absolute map (the middle, for a silent channel).
    memory : str or int
        Budget for a block of units.

    Returns
    -------
    Activity
        Positions of maps in rows and columns, of sequences in tokens (``y``); none for dense layers.

    Raises
    ------
    InputError
        If an activation is NaN or infinite.
    """
    parts: list[np.ndarray] = []
    for block in layer.blocks(max(parse_bytes(memory) // 4, 1)):
        values = _host(block, rows)
        if not np.isfinite(values).all():
            raise InputError(
                f"layer {layer.name!r} holds NaN or infinite activations, which no unit resembles; record the layer "
                "again in float32, or leave those stimuli out"
            )
        parts.append(np.stack([values.mean(axis=0), values.var(axis=0), np.abs(values).mean(axis=0), values[0]]))
        del block, values
    mean, variance, size, first = np.concatenate(parts, axis=1)
    names = ["mean", "variance"]
    if not channels or layout.positions == 1:
        columns = [mean, variance]
        if layout.positions > 1:
            _, y, x = layout.places(single=True)
            columns += [y.astype(float), x.astype(float)][: 1 if layout.last else 2]
            names += ["y", "x"][: 1 if layout.last else 2]
        return Activity(np.stack(columns, axis=1), names, mean, first)
    mean, variance, size = (_by_channel(values, layout) for values in (mean, variance, size))
    columns = [mean.mean(axis=1), variance.mean(axis=1) + mean.var(axis=1)]
    for name, places in zip(("y", "x"), _coordinates(layout), strict=False):
        mass = size.sum(axis=1)
        middle = np.full(len(mass), places.mean())
        columns.append(np.divide(size @ places, mass, out=middle, where=mass > 0))
        names.append(name)
    return Activity(np.stack(columns, axis=1), names, columns[0], first)


def _host(block: object, rows: np.ndarray) -> np.ndarray:
    """Rows of a block of units, on the host, in float64."""
    values = block.detach().cpu().numpy() if hasattr(block, "detach") else np.asarray(block)
    return np.asarray(values[rows], dtype=np.float64)


def _by_channel(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Values of single units as (channel, position)."""
    return values.reshape(-1, layout.channels).T if layout.last else values.reshape(layout.channels, -1)


def _coordinates(layout: Layout) -> list[np.ndarray]:
    """Row and column (or token) of every position."""
    if layout.last:
        return [np.arange(layout.positions, dtype=np.float64)]
    return [places.ravel().astype(np.float64) for places in np.indices(layout.shape[1:])]


def single_units(channels: np.ndarray, layout: Layout) -> np.ndarray:
    """Name every position of channels as single units.

    Parameters
    ----------
    channels : numpy.ndarray of int
        Channels of the layer.
    layout : Layout
        Its layout.

    Returns
    -------
    numpy.ndarray of int
        Indices into the flattened layer.
    """
    return np.sort(_by_channel(np.arange(layout.channels * layout.positions), layout)[channels].ravel())


def far_pairs(groups: np.ndarray | None, n: int) -> np.ndarray:
    """Mark the pairs of stimuli that are no copies of one another.

    Parameters
    ----------
    groups : numpy.ndarray or None
        ``(n,)`` group of each stimulus.
    n : int
        Number of stimuli.

    Returns
    -------
    numpy.ndarray of bool
        ``(pairs,)`` in squareform order.
    """
    i, j = np.triu_indices(n, 1)
    return np.ones(len(i), dtype=bool) if groups is None else groups[i] != groups[j]


def _dissimilarities(gram: np.ndarray, sums: np.ndarray, n_units: int, kind: Dissimilarity, where: str) -> np.ndarray:
    """``(pairs,)`` from inner products of patterns and their sums over units."""
    i, j = np.triu_indices(len(gram), 1)
    if kind == "sqeuclidean":
        square = np.diag(gram)
        return np.maximum(square[i] + square[j] - 2 * gram[i, j], 0) / n_units
    covariance = gram - np.outer(sums, sums) / n_units
    scale = np.sqrt(np.maximum(np.diag(covariance), 0))
    flat = scale <= 1e-7 * np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    if flat.any():
        raise InputError(
            f"{where}: {int(flat.sum())} of {len(gram)} stimuli have the same value in every unit, and a correlation "
            "with such a pattern is undefined; use dissimilarity='sqeuclidean', or lesion fewer units"
        )
    return 1 - covariance[i, j] / (scale[i] * scale[j])


def neural_rdm(responses: np.ndarray, kind: Dissimilarity) -> np.ndarray:
    """Dissimilarities of the neurons' patterns.

    Parameters
    ----------
    responses : numpy.ndarray
        ``(stimulus, neuron)``.
    kind : {"correlation", "sqeuclidean"}
        Which dissimilarity.

    Returns
    -------
    numpy.ndarray of float64
        ``(pairs,)`` in squareform order.

    Raises
    ------
    InputError
        If a correlation is undefined.
    """
    values = np.asarray(responses, dtype=np.float64)
    return _dissimilarities(values @ values.T, values.sum(axis=1), values.shape[1], kind, "the neurons")


def layer_rdms(
    layer: Layer,
    rows: np.ndarray,
    sets: Sequence[np.ndarray],
    fill: np.ndarray | None,
    kind: Dissimilarity,
    memory: str | int,
) -> np.ndarray:
    """Dissimilarities of a layer's own patterns, intact and without each of several sets of units.

    Every set corrects the intact layer's inner products by its own columns, so that the layer is read once.

    Parameters
    ----------
    layer : Layer
        The layer.
    rows : numpy.ndarray of int
        The stimuli, rows of the source.
    sets : sequence of numpy.ndarray of int
        Single units that are silenced, sorted.
    fill : numpy.ndarray or None
        ``(unit,)`` what takes the place of each single unit; None for 0.
    kind : {"correlation", "sqeuclidean"}
        Which dissimilarity.
    memory : str or int
        Budget for a block of units.

    Returns
    -------
    numpy.ndarray of float64
        ``(1 + sets, pairs)``, the intact layer first.

    Raises
    ------
    InputError
        If a correlation is undefined.
    """
    n = len(rows)
    gram, total = np.zeros((n, n)), np.zeros(n)
    changes, totals = np.zeros((len(sets), n, n)), np.zeros((len(sets), n))
    start = 0
    for block in layer.blocks(max(parse_bytes(memory) // 4, 1)):
        values = _host(block, rows)
        stop = start + values.shape[1]
        gram += values @ values.T
        total += values.sum(axis=1)
        for number, units in enumerate(sets):
            inside = units[np.searchsorted(units, start) : np.searchsorted(units, stop)]
            if inside.size:
                gone = values[:, inside - start]
                stands = np.zeros(len(inside)) if fill is None else fill[inside]
                changes[number] += stands @ stands - gone @ gone.T
                totals[number] += stands.sum() - gone.sum(axis=1)
        start = stop
        del block, values
    whole = [_dissimilarities(gram, total, layer.n_units, kind, f"layer {layer.name!r}")]
    for number in range(len(sets)):
        where = f"layer {layer.name!r} without {len(sets[number])} units"
        left, sums = gram + changes[number], total + totals[number]
        whole.append(_dissimilarities(left, sums, layer.n_units, kind, where))
    return np.stack(whole)


def readout_rdms(
    opened: Opened,
    inputs: torch.Tensor,
    sets: Sequence[np.ndarray],
    fill: np.ndarray | None,
    kind: Dissimilarity,
    memory: str | int,
) -> np.ndarray:
    """Dissimilarities at a network's read-out, intact and without each of several sets of units.

    Parameters
    ----------
    opened : Opened
        The network, opened at the lesioned layer and ended at the read-out.
    inputs : torch.Tensor
        The stimuli, ready for the network.
    sets : sequence of numpy.ndarray of int
        Units or channels that are silenced, sorted.
    fill : numpy.ndarray or None
        What takes their place; None for 0.
    kind : {"correlation", "sqeuclidean"}
        Which dissimilarity.
    memory : str or int
        Budget; as many sets are run together as their read-outs fit in half of it.

    Returns
    -------
    numpy.ndarray of float64
        ``(1 + sets, pairs)``, the intact network first.

    Raises
    ------
    InputError
        If a correlation is undefined, or the read-out is not finite.
    """
    from actkit.replay_outputs import outputs_without

    settings = {"mode": "zero" if fill is None else "mean", "fill": fill, "memory": memory}
    width = next(iter(outputs_without(opened, inputs[:1], [], **settings)))[2].shape[1]  # type: ignore[arg-type]
    together = max(1, parse_bytes(memory) // 2 // (4 * len(inputs) * width) - 1)
    found: list[np.ndarray] = []
    for start, stop in spans(max(len(sets), 1), together):
        some = list(sets[start:stop])
        kept = np.empty((1 + len(some), len(inputs), width), dtype=np.float32)
        for number, images, outputs in outputs_without(opened, inputs, some, **settings):  # type: ignore[arg-type]
            kept[0 if number is None else 1 + number, images] = outputs.cpu().numpy()
        for number, patterns in enumerate(kept if start == 0 else kept[1:]):
            values = patterns.astype(np.float64)
            if not np.isfinite(values).all():
                raise InputError(
                    "the read-out holds NaN or infinite values; look for overflow, or lesion with mode='mean'"
                )
            where = "the read-out of the intact network" if start + number == 0 else "the read-out without units"
            found.append(_dissimilarities(values @ values.T, values.sum(axis=1), width, kind, where))
    return np.stack(found)


def _scored(vectors: np.ndarray, compare: Compare) -> np.ndarray:
    """Ranks, or the values themselves, centred on their mean."""
    from scipy.stats import rankdata

    values = rankdata(vectors, axis=-1) if compare == "spearman" else vectors
    return np.asarray(values - values.mean(axis=-1, keepdims=True))


def rsa(rdms: np.ndarray, neural: np.ndarray, compare: Compare) -> np.ndarray:
    """Correlate dissimilarities with the neurons'.

    Parameters
    ----------
    rdms : numpy.ndarray
        ``(k, pairs)``.
    neural : numpy.ndarray
        ``(pairs,)``.
    compare : {"spearman", "pearson"}
        Which correlation.

    Returns
    -------
    numpy.ndarray of float64
        ``(k,)``; 0 where all dissimilarities are equal, so that no geometry is left.
    """
    x, y = _scored(rdms, compare), _scored(neural, compare)
    return _over(x @ y, np.linalg.norm(x, axis=1) * np.linalg.norm(y), len(y))


def _over(shared: np.ndarray, spread: np.ndarray, pairs: int) -> np.ndarray:
    """A correlation; 0 where all dissimilarities are equal, so that no geometry is left to compare."""
    some = spread > 1e-12 * pairs
    return np.divide(shared, spread, out=np.zeros_like(shared), where=some)


def rsa_draws(
    rdms: np.ndarray, neural: np.ndarray, weights: np.ndarray, pairs: np.ndarray, compare: Compare
) -> np.ndarray:
    """Correlate dissimilarities with the neurons' in bootstrap draws of the stimuli.

    Spearman's ranks are those over all pairs, weighted in the draw; ranking anew in every draw differs by little and
    would cost a sort for each set and draw.

    Parameters
    ----------
    rdms : numpy.ndarray
        ``(k, pairs)``.
    neural : numpy.ndarray
        ``(pairs,)``.
    weights : numpy.ndarray of int
        ``(draws, n)`` how often a draw holds each stimulus.
    pairs : numpy.ndarray of bool
        Which of all n (n - 1) / 2 pairs, in squareform order, the dissimilarities are of.
    compare : {"spearman", "pearson"}
        Which correlation.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws, k)``.
    """
    x, y = _scored(rdms, compare).T, _scored(neural, compare)
    i, j = (index[pairs] for index in np.triu_indices(weights.shape[1], 1))
    parts = []
    for start, stop in spans(len(weights), _DRAWS):
        drawn = weights[start:stop].astype(np.float64)
        w = drawn[:, i] * drawn[:, j]
        mass = w.sum(axis=1, keepdims=True)
        my, mx = (w @ y)[:, None] / mass, (w @ x) / mass
        shared = w @ (x * y[:, None]) / mass - mx * my
        spread = (w @ x**2 / mass - mx**2) * ((w @ y**2)[:, None] / mass - my**2)
        parts.append(_over(shared, np.sqrt(np.maximum(spread, 0)), 1))
    return np.concatenate(parts)


def mean_draws(values: np.ndarray, n_draws: int, seed: int) -> np.ndarray:
    """Mean over images in bootstrap draws.

    Parameters
    ----------
    values : numpy.ndarray
        ``(images,)``.
    n_draws : int
        Number of draws.
    seed : int
        Seed; the same for values of the same images keeps them paired.

    Returns
    -------
    numpy.ndarray of float64
        ``(draws,)``.
    """
    return np.asarray(bootstrap_weights(len(values), n_draws, seed) @ values / len(values))
