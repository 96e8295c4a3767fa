"""One layer and one split of `lesion_matched`: match, draw random sets, run every lesion, compare."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from actkit.analyses import matched_lesions_measure as geometry
from actkit.analyses.matched_sets import matched_sets
from actkit.analyses.selectivity_responses import Layout
from actkit.analyses.source import Layer
from actkit.analyses.unit_matching import match_units, units_of_matching
from actkit.analyses.unit_matching_folds import deal_folds
from actkit.errors import InputError
from actkit.resampling import Stream, bootstrap_weights, generator
from actkit.units import UnitSet

if TYPE_CHECKING:
    import torch

    from actkit.analyses.matched_lesions import MatchedLesionOptions
    from actkit.network import Network
    from actkit.tasks import Task

__all__ = ["FEATURES", "OUTCOMES", "Measured", "Split", "deal_halves", "measure", "same_pictures"]

OUTCOMES = ("loss", "accuracy", "rsa_layer", "rsa_readout")
FEATURES = ("mean", "variance", "y", "x")

_FEW, _MANY, _SHARE = 5, 10, 20  # neighbours: a twentieth of the layer between these
_NEAR = 0.02  # how far recorded and live activations may lie apart, of the largest: float16 is a thousandth


@dataclass(frozen=True)
class Split:
    """Stimuli, neurons and halves of one split.

    Attributes
    ----------
    source : object
        The network's activations.
    ids : list of str or None
        Stimulus ids of a source that carries none.
    rows : numpy.ndarray of int
        Row of the source of each recorded stimulus.
    neurons : xarray.DataArray
        ``(stimulus, neuron)`` averages.
    groups, labels : numpy.ndarray or None
        Group and category of each stimulus.
    first, second : numpy.ndarray of int
        Stimuli that units are matched on, and those that geometry is measured on.
    seed : int
        Seed of this split.
    """

    source: Any
    ids: list[str] | None
    rows: np.ndarray
    neurons: xr.DataArray
    groups: np.ndarray | None
    labels: np.ndarray | None
    first: np.ndarray
    second: np.ndarray
    seed: int


@dataclass(frozen=True)
class Measured:
    """What was found; values by outcome.

    Attributes
    ----------
    intact, lesioned, low, high : numpy.ndarray of float64
        ``(outcome,)``: the values, and the interval of the excess.
    random : numpy.ndarray of float64
        ``(outcome, random)`` without each random set.
    n_units, n_neurons : int
        Units lesioned, and neurons that they match.
    match_r, overlap : float
        Median held-out correlation of the matches, mean share of matched units in a random set.
    features : numpy.ndarray of float64
        ``(1 + random, feature)`` mean over the units of every set, the lesioned one first, from the layer's mean in
        standard deviations over the layer; NaN for features that the layer lacks.
    places : tuple of three numpy.ndarray of int
        Channel, y and x of the units, best matched first.
    method : str
        The way the sweep took.
    """

    intact: np.ndarray
    lesioned: np.ndarray
    low: np.ndarray
    high: np.ndarray
    random: np.ndarray
    n_units: int
    n_neurons: int
    match_r: float
    overlap: float
    features: np.ndarray
    places: tuple[np.ndarray, np.ndarray, np.ndarray]
    method: str


def deal_halves(
    n: int,
    n_splits: int,
    groups: np.ndarray | None,
    labels: np.ndarray | None,
    most: int | None,
    seed: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Deal stimuli into halves, groups whole.

    Parameters
    ----------
    n : int
        Number of stimuli.
    n_splits : int
        Number of splits: every deal serves twice, either half being matched on.
    groups, labels : numpy.ndarray or None
        Group and category of each stimulus.
    most : int or None
        At most so many of the second half, drawn at random.
    seed : int
        Seed.

    Returns
    -------
    list of two numpy.ndarray of int
        Sorted stimuli to match on and to evaluate.

    Raises
    ------
    InputError
        If there are too few stimuli or groups.
    """
    halves = []
    for number in range(n_splits):
        deal, swapped = divmod(number, 2)
        side = deal_folds(n, 2, groups, labels, seed + deal).number == 1 - swapped
        first, second = np.flatnonzero(~side), np.flatnonzero(side)
        if most is not None and len(second) > most:
            drawn = generator(seed, number, Stream.STIMULI).permutation(len(second))[:most]
            second = np.sort(second[drawn])
        halves.append((first, second))
    return halves


def same_pictures(inputs: torch.Tensor, task: Task, ids: list[str]) -> None:
    """Refuse a task whose images the neurons saw: a unit matched on a picture is chosen by it.

    Parameters
    ----------
    inputs : torch.Tensor
        Recorded stimuli, ready for the network.
    task : Task
        The task.
    ids : list of str
        Stimulus ids.

    Raises
    ------
    InputError
        If a stimulus is an image of the task, pixel by pixel after preprocessing, or shapes differ.
    """
    if inputs.shape[1:] != task.inputs.shape[1:]:
        raise InputError(
            f"images of task {task.name!r} have shape {tuple(task.inputs.shape[1:])} and the stimuli "
            f"{tuple(inputs.shape[1:])}; prepare both with the same network"
        )

    def digests(images: torch.Tensor) -> list[bytes]:
        return [hashlib.sha256(image.contiguous().numpy().tobytes()).digest() for image in images.detach().cpu()]

    seen = dict(zip(digests(inputs), ids, strict=True))
    common = [seen[digest] for digest in digests(task.inputs.to(inputs.dtype)) if digest in seen]
    if common:
        raise InputError(
            f"stimulus {common[0]!r} is an image of task {task.name!r} too ({len(common)} such), so the images that "
            "chose the units would also measure them; take the task's images from elsewhere"
        )


def measure(
    network: Network,
    layer: Layer,
    layout: Layout,
    split: Split,
    task: Task,
    inputs: torch.Tensor,
    options: MatchedLesionOptions,
) -> Measured:
    """Match, lesion and compare.

    Parameters
    ----------
    network : Network
        The network.
    layer : Layer
        The layer, as the source has it.
    layout : Layout
        Its layout.
    split : Split
        Stimuli and neurons.
    task : Task
        The task.
    inputs : torch.Tensor
        Recorded stimuli, ready for the network.
    options : MatchedLesionOptions
        What to do.

    Returns
    -------
    Measured
        Every outcome.

    Raises
    ------
    InputError
        See :func:`actkit.analyses.matched_lesions.lesion_matched`.
    LayerError
        If the read-out does not depend on the layer.
    """
    from actkit.replay import sweep
    from actkit.replay_outputs import open_at
    from actkit.tasks import image_losses

    channels = options.extent == "channel"
    units, n_neurons, match_r = _matched(layer, layout, split, options)
    like = geometry.activity(layer, layout, split.rows[split.first], channels, options.memory)
    single = not channels
    opened = open_at(network, layer.name, inputs[:1], single=single)
    ended = opened
    if options.readout is not None:
        ended = open_at(network, layer.name, inputs[:1], readout=options.readout, single=single)
    _check_activations(network, layer, layout, opened.shape, like.first, inputs[split.first[:1]])
    n = len(like.features)
    if 2 * len(units) > n:
        raise InputError(
            f"{len(units)} of {n} {options.extent}s are matched, so no random sets of others are left to compare with; "
            "take fewer with n_units= (the best matched ones) or minimum="
            + ("" if single else ", or lesion units instead of channels")
        )
    near = options.neighbours or min(max(_FEW, n // _SHARE), _MANY)
    sets, _ = matched_sets(like.features, units, options.n_random, split.seed, near, own=True, normal=True)
    lesions = [np.sort(units), *sets]
    fill = like.mean if options.mode == "mean" else None

    def score(logits: torch.Tensor, images: slice) -> Mapping[str, torch.Tensor]:
        loss, correct = image_losses(logits, task.targets[images])
        return {"loss": loss, "accuracy": correct}

    swept = sweep(
        opened.module,
        opened.layer,
        task.inputs,
        lesions,
        score,
        mode=options.mode,
        fill=fill,
        memory=options.memory,
        axis=opened.axis,
        progress=False,
    )
    if not np.isfinite(swept.values["loss"]).all():
        raise InputError("a loss is NaN or infinite without some units; lesion with mode='mean', or check the weights")
    alone = [geometry.single_units(one, layout) for one in lesions] if channels else lesions
    stands = fill if fill is None or single else _spread(fill, layout)
    kind, memory = options.dissimilarity, options.memory
    rdms = {
        "rsa_layer": geometry.layer_rdms(layer, split.rows[split.second], alone, stands, kind, memory),
        "rsa_readout": geometry.readout_rdms(ended, inputs[split.second], lesions, fill, kind, memory),
    }
    return Measured(
        **_outcomes(swept.intact, swept.values, rdms, split, options),
        n_units=len(units),
        n_neurons=n_neurons,
        match_r=match_r,
        overlap=float(np.mean([np.isin(one, units).mean() for one in sets])),
        features=_set_features(like, lesions),
        places=_places(units, layout, channels),
        method=swept.method,
    )


def _matched(
    layer: Layer, layout: Layout, split: Split, options: MatchedLesionOptions
) -> tuple[np.ndarray, int, float]:
    """Indices of the matched units (or channels), best first; their neurons, and how well these match."""
    some = split.first
    match = match_units(
        split.source,
        split.neurons.isel(stimulus=some),
        groups=None if split.groups is None else split.groups[some],
        labels=None if split.labels is None else split.labels[some],
        ids=split.ids,
        progress=False,
        layers=[layer.name],
        folds=options.folds,
        assignment=options.assignment,
        n_permutations=0 if options.alpha is None else options.n_permutations,
        memory=options.memory,
        seed=split.seed,
    )
    chosen: UnitSet = units_of_matching(match, layer.name, alpha=options.alpha, minimum=options.minimum)
    r = match["r_mean"].values[:, 0]
    fits = np.isfinite(r)
    if options.minimum is not None:
        fits &= np.nan_to_num(r, nan=-np.inf) >= options.minimum
    if options.alpha is not None:
        fits &= np.nan_to_num(match["p_corrected"].values[:, 0], nan=np.inf) <= options.alpha
    if options.extent == "channel":
        units = np.array(list(dict.fromkeys(chosen.channel.tolist())), dtype=np.int64)
    else:
        places = np.stack(layout.places(single=True), axis=1).tolist()
        where = {tuple(place): index for index, place in enumerate(places)}
        named = zip(chosen.channel.tolist(), chosen.y.tolist(), chosen.x.tolist(), strict=True)
        units = np.array([where[place] for place in named], dtype=np.int64)
    return units[: options.n_units], int(fits.sum()), float(np.median(r[fits]))


def _check_activations(
    network: Network, layer: Layer, layout: Layout, shape: tuple[int, ...], recorded: np.ndarray, image: torch.Tensor
) -> None:
    """Refuse activations of another network or picture: the units that are matched would not be those lesioned."""
    import torch

    from actkit.replay_outputs import open_at, outputs_without

    if int(np.prod(shape)) != layer.n_units or (len(shape) > 1 and layout.positions > 1 and layout.shape != shape):
        raise InputError(
            f"the source holds shape {layout.shape} and the network gives {shape}, so units cannot be told apart; "
            "record the layer again without reduction"
        )
    with torch.no_grad():
        own = next(iter(outputs_without(open_at(network, layer.name, image, readout=layer.name), image, [])))[2]
    live = own[0].cpu().numpy().astype(np.float64)
    apart = float(np.abs(live - recorded).max())
    if not apart <= _NEAR * max(float(np.abs(live).max()), np.finfo(float).tiny):
        raise InputError(
            f"the source's activations differ from the network's own by up to {apart:.3g} (of "
            f"{float(np.abs(live).max()):.3g}) for the same stimulus; give the recording of this network, with the "
            "same weights, preprocessing and stimuli"
        )


def _set_features(like: geometry.Activity, sets: list[np.ndarray]) -> np.ndarray:
    """Mean features of every set, standardised over the layer."""
    spread = like.features.std(axis=0)
    off = like.features - like.features.mean(axis=0)
    scaled = np.divide(off, spread, out=np.zeros_like(off), where=spread > 0)
    found = np.full((len(sets), len(FEATURES)), np.nan)
    for name, column in zip(like.names, scaled.T, strict=True):
        found[:, FEATURES.index(name)] = [column[one].mean() for one in sets]
    return found


def _spread(values: np.ndarray, layout: Layout) -> np.ndarray:
    """A channel's value at each of its positions, in the order of single units."""
    return np.tile(values, layout.positions) if layout.last else np.repeat(values, layout.positions)


def _places(units: np.ndarray, layout: Layout, channels: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Channel, y and x of each unit."""
    channel, y, x = layout.places(single=not channels)
    return channel[units], y[units], x[units]


def _outcomes(
    intact: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    rdms: Mapping[str, np.ndarray],
    split: Split,
    options: MatchedLesionOptions,
) -> dict[str, np.ndarray]:
    """Values of the intact, the lesioned and the randomly lesioned network, and the interval of the excess."""
    some = split.second
    groups = None if split.groups is None else split.groups[some]
    far = geometry.far_pairs(groups, len(some))
    neural = geometry.neural_rdm(split.neurons.values[some], options.dissimilarity)[far]
    weights = _draws(groups, len(some), options.n_bootstrap, split.seed)
    before, lesioned, random, low, high = [], [], [], [], []
    for outcome in OUTCOMES:
        if outcome in values:
            images = values[outcome]
            before.append(intact[outcome].mean())
            means = images.mean(axis=1)
            sign = 1 if outcome == "loss" else -1
            excess = geometry.mean_draws(sign * (images[0] - images[1:].mean(axis=0)), options.n_bootstrap, split.seed)
        else:
            vectors = rdms[outcome][:, far]
            scores = geometry.rsa(vectors, neural, options.compare)
            before.append(scores[0])
            means = scores[1:]
            drawn = geometry.rsa_draws(vectors[1:], neural, weights, far, options.compare)
            excess = drawn[:, 1:].mean(axis=1) - drawn[:, 0]
        lesioned.append(means[0])
        random.append(means[1:])
        ends = np.quantile(excess, [0.025, 0.975])
        low.append(ends[0])
        high.append(ends[1])
    named = {"intact": before, "lesioned": lesioned, "random": random, "low": low, "high": high}
    return {name: np.array(parts, dtype=np.float64) for name, parts in named.items()}


def _draws(groups: np.ndarray | None, n: int, count: int, seed: int) -> np.ndarray:
    """Bootstrap draws of stimuli ``(draws, n)``, of groups where there are any."""
    member = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    return bootstrap_weights(int(member.max()) + 1, count, seed)[:, member]
