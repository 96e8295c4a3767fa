"""What `segregation` asks of a network: which units each task needs, and which images are right without them.

A sweep scores the output for every lesion. So that one pass serves the real tasks, masked and not, and every
pseudo-task of the null, an image's result is kept as the set of outputs that beat the right one, in bits: the image is
right among any set of allowed outputs if none of them is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from actkit.analyses.segregation_indices import top_order
from actkit.analyses.segregation_nulls import columns, pooled
from actkit.compute import parse_bytes, spans
from actkit.errors import InputError
from actkit.layers import capture, module_paths
from actkit.replay import sweep
from actkit.replay_lesion import channel_axis, find_site
from actkit.resampling import Stream, generator
from actkit.tasks import Task

RankBy = Literal["unmasked", "masked"]

# Sums of powers of two up to 2**47 are exact in float64.
_BITS = 48
_SPLITS = 2**61 + 2**60  # numbers of the random streams that halve images
_FEATURE_BATCH = 32


@dataclass(frozen=True, eq=False)
class Pair:
    """Two tasks, their images one after the other.

    Attributes
    ----------
    task : Task
        All images.
    of : numpy.ndarray of int
        ``(image,)``: 0 or 1, the task of each image.
    classes : tuple of two numpy.ndarray
        Output columns of each task.
    names : tuple of two str
        Names of the tasks.
    """

    task: Task
    of: np.ndarray
    classes: tuple[np.ndarray, np.ndarray]
    names: tuple[str, str]

    @classmethod
    def make(cls, tasks: Sequence[Task], what: str) -> Pair:
        """Pool two tasks.

        Parameters
        ----------
        tasks : sequence of two Task
            Tasks without a common class.
        what : str
            What they are for, for messages.

        Returns
        -------
        Pair
            Both.

        Raises
        ------
        InputError
            If there are not two, or they share a class.
        """
        if len(tasks) != 2 or not all(isinstance(task, Task) for task in tasks):
            raise InputError(f"{what}: segregation compares two tasks (actkit.tasks.Task); give exactly two")
        a, b = tasks
        if a.name == b.name:
            raise InputError(f"{what}: both tasks are called {a.name!r}, so results would mix; rename one")
        common = np.intersect1d(columns(a), columns(b))
        if common.size:
            raise InputError(
                f"{what}: output column {common[0]} belongs to {a.name!r} and to {b.name!r}, so their classes "
                "cannot be masked or shuffled; state the classes of each task"
            )
        of = np.repeat([0, 1], [len(a), len(b)])
        return cls(pooled(a, b), of, (columns(a), columns(b)), (a.name, b.name))

    def rows(self, number: int) -> np.ndarray:
        """Images of one task."""
        return np.flatnonzero(self.of == number)


def channels_of(module: torch.nn.Module, layer: str, inputs: torch.Tensor) -> int:
    """Count the channels of a layer's output.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Layer name.
    inputs : torch.Tensor
        Images; one is run.

    Returns
    -------
    int
        Channels that a sweep can silence.

    Raises
    ------
    LayerError
        If the layer does not exist or gives no tensor.
    """
    return _maps(module, layer, inputs[:1]).shape[1]


def unit_features(module: torch.nn.Module, layer: str, inputs: torch.Tensor) -> tuple[np.ndarray, list[str]]:
    """Describe every channel by its activity on images.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Layer name.
    inputs : torch.Tensor
        Images ready for the module.

    Returns
    -------
    features : numpy.ndarray of float64
        ``(unit, feature)``: mean and variance over images and positions; in layers with maps also the centre of mass
        (y, x, in positions) of the mean absolute map.
    names : list of str
        Names of the features.

    Raises
    ------
    LayerError
        If the layer does not exist or gives no tensor.
    """
    count = 0
    total = square = map_sum = np.zeros(1)
    shape: tuple[int, ...] = ()
    for start, stop in spans(len(inputs), _FEATURE_BATCH):
        maps = _maps(module, layer, inputs[start:stop]).to(torch.float64)
        shape = tuple(maps.shape[2:])
        flat = maps.reshape(*maps.shape[:2], -1)
        count += flat.shape[0] * flat.shape[2]
        total = total + flat.sum((0, 2)).numpy()
        square = square + (flat**2).sum((0, 2)).numpy()
        map_sum = map_sum + flat.abs().sum(0).numpy()
    mean = total / count
    found = [mean, np.maximum(square / count - mean**2, 0)]
    names = ["mean", "variance"]
    if len(shape) == 2:
        weight = map_sum.reshape(-1, *shape)
        mass = weight.sum(axis=(1, 2))
        for name, axis in (("y", 1), ("x", 2)):
            places = np.arange(weight.shape[axis], dtype=np.float64)
            along = weight.sum(axis=3 - axis) @ places
            # A silent unit has no place; the middle resembles no corner.
            found.append(np.divide(along, mass, out=np.full(len(mass), places.mean()), where=mass > 0))
            names.append(name)
    return np.stack(found, axis=1), names


def _maps(module: torch.nn.Module, layer: str, inputs: torch.Tensor) -> torch.Tensor:
    """Output of a layer on the CPU, (image, channel, …)."""
    like = next((p for p in module.parameters() if p.is_floating_point()), inputs)
    kept: list[torch.Tensor] = []
    with capture(module, [layer], lambda _, tensor: kept.append(tensor.detach().clone())) as forward:
        forward(inputs.to(like.device, like.dtype))
    return kept[0].movedim(channel_axis(module_paths(module)[find_site(module, layer).path], kept[0]), 1).cpu()


@dataclass(frozen=True, eq=False)
class Ranked:
    """How much each task needs each unit of a layer.

    Attributes
    ----------
    order : tuple of two numpy.ndarray
        For each task the ranked units, the most needed first.
    scores : numpy.ndarray
        ``(task, unit)`` loss increase in nats without the unit; for strategies without one, minus the rank position.
    halves : tuple of two numpy.ndarray or None
        For each task ``(split, 2, unit)``: the same from halves of its images.
    null_order : list of numpy.ndarray
        For every shuffle ``(2, unit)``.
    """

    order: tuple[np.ndarray, np.ndarray]
    scores: np.ndarray
    halves: tuple[np.ndarray, np.ndarray] | None
    null_order: list[np.ndarray]


def rank_one_shot(
    module: torch.nn.Module,
    layer: str,
    pair: Pair,
    n_units: int,
    shuffles: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    by: RankBy = "unmasked",
    n_splits: int = 10,
    seed: int = 0,
    memory: str = "1GB",
) -> Ranked:
    """Silence every unit alone, on the images of both tasks, and rank the units for each task and pseudo-task.

    A pseudo-task consists of the same images, so that its ranking costs no further pass: the loss of every image
    without every unit is known.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Layer name.
    pair : Pair
        The two tasks, ranking images.
    n_units : int
        Channels of the layer.
    shuffles : sequence of two arrays
        Classes of each pseudo-task.
    by : {"unmasked", "masked"}
        Whether the loss compares all outputs (the paper) or the task's own.
    n_splits : int
        Random class-stratified halvings of each task's images, for the reliability of the rankings.
    seed : int
        Seed of the halvings.
    memory : str
        Budget of the sweep.

    Returns
    -------
    Ranked
        Ties by index.

    Raises
    ------
    InputError
        If a loss is NaN.
    """
    targets = pair.task.targets
    # Each dealing of classes to tasks gives a mask per image: the outputs of the image's own task.
    dealings = [pair.classes, *shuffles] if by == "masked" else []
    score = _loss_score(targets, dealings)
    swept = sweep(module, layer, pair.task.inputs, [np.array([u]) for u in range(n_units)], score, memory=memory)
    increases = {name: swept.values[name] - swept.intact[name] for name in swept.values}
    for values in increases.values():
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise InputError(
                f"layer {layer!r}: the loss of image {int(bad[0][1])} is NaN or infinite without unit "
                f"{int(bad[0][0])}, so units cannot be ranked; look for NaN weights or overflow (run in float32)"
            )

    def scores(number: int, rows: np.ndarray) -> np.ndarray:
        return increases["loss" if by == "unmasked" else f"loss{number}"][:, rows].mean(axis=1)

    own = np.stack([scores(0, pair.rows(t)) for t in range(2)])
    halves = tuple(
        np.stack(
            [
                np.stack([scores(0, rows) for rows in _halves(targets, pair.rows(t), seed, 2 * split + t)])
                for split in range(n_splits)
            ]
        )
        for t in range(2)
    )
    null = [
        np.stack([top_order(scores(1 + k, np.flatnonzero(np.isin(targets, classes)))) for classes in both])
        for k, both in enumerate(shuffles)
    ]
    order = top_order(own)
    return Ranked((order[0], order[1]), own, (halves[0], halves[1]), null)


def _halves(targets: np.ndarray, rows: np.ndarray, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Halve images within their classes; odd ones alternate between the halves."""
    random = generator(seed, _SPLITS + number, Stream.PERMUTATIONS)
    shuffled = rows[random.permutation(len(rows))]
    by_class = shuffled[np.argsort(targets[shuffled], kind="stable")]
    return by_class[0::2], by_class[1::2]


def _loss_score(
    targets: np.ndarray, dealings: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Callable[[torch.Tensor, slice], Mapping[str, torch.Tensor]]:
    """Loss of every image: over all outputs, or for each dealing over the outputs of the image's own task."""
    wanted = torch.from_numpy(targets)

    def score(logits: torch.Tensor, images: slice) -> dict[str, torch.Tensor]:
        right = wanted[images].to(logits.device)
        values = logits.to(torch.float64)
        if not dealings:
            return {"loss": torch.nn.functional.cross_entropy(values, right, reduction="none")}
        found = {}
        for number, (first, second) in enumerate(dealings):
            side = torch.zeros(values.shape[1], dtype=torch.int64)
            side[torch.from_numpy(first)], side[torch.from_numpy(second)] = 1, 2
            side = side.to(logits.device)
            masked = values.masked_fill(side[None] != side[right][:, None], -torch.inf)
            found[f"loss{number}"] = torch.nn.functional.cross_entropy(masked, right, reduction="none")
        return found

    return score


def rank_by_strategy(
    network: Any,
    layer: str,
    tasks: Sequence[Task],
    n_units: int,
    pseudo: Sequence[tuple[Task, Task]],
    *,
    strategy: str,
    by: RankBy,
    most: float,
    seed: int,
    memory: str,
) -> Ranked:
    """Rank the units with any strategy of :func:`actkit.ranking.rank_units`; each pseudo-task costs a ranking.

    Parameters
    ----------
    network : Network or torch.nn.Module
        The network.
    layer : str
        Layer name.
    tasks : sequence of two Task
        Ranking images.
    n_units : int
        Channels of the layer.
    pseudo : sequence of two Task
        Pseudo-tasks.
    strategy : str
        As in `rank_units`.
    by : {"unmasked", "masked"}
        Which loss.
    most : float
        Share of the units that must be ranked.
    seed : int
        Seed.
    memory : str
        Budget.

    Returns
    -------
    Ranked
        Without halves; `scores` are minus the rank positions, units without a rank last.
    """
    from actkit.ranking import rank_units, units_of

    def order(pair: Sequence[Task]) -> tuple[np.ndarray, np.ndarray]:
        result = rank_units(
            network,
            layer,
            list(pair),
            strategy=strategy,
            fraction=most,
            stop=most,
            n_splits=0,
            masked="own" if by == "masked" else "all",
            seed=seed,
            memory=memory,
        )
        first, second = (np.asarray(units_of(result, task.name, fraction=most).channel) for task in pair)
        return first, second

    own = order(tasks)
    scores = np.full((2, n_units), -float(n_units))
    for row, units in zip(scores, own, strict=True):
        row[units] = -np.arange(len(units), dtype=np.float64)
    null = [np.stack(order(pair)) for pair in pseudo]
    return Ranked(own, scores, None, null)


class Beaten:
    """Score that keeps, for each image, the outputs that beat the right one, as bits.

    A larger logit beats a smaller one, and of equal ones the first: the image is right if nothing beats its target,
    just as with argmax.

    Parameters
    ----------
    targets : numpy.ndarray of int
        ``(image,)`` the right output.
    """

    def __init__(self, targets: np.ndarray) -> None:
        self._targets = torch.from_numpy(targets)

    def __call__(self, logits: torch.Tensor, images: slice) -> dict[str, torch.Tensor]:
        """Score a batch: ``bits0``, ``bits1``, …, 48 outputs each; NaN where an output is not finite."""
        right = self._targets[images].to(logits.device)[:, None]
        own = logits.gather(1, right)
        places = torch.arange(logits.shape[1], device=logits.device)[None]
        beats = ((logits > own) | ((logits == own) & (places < right))).cpu()
        # NaN beats nothing and would pass for right.
        broken = ~torch.isfinite(logits).all(1).cpu()
        found = {}
        for block, (start, stop) in enumerate(spans(logits.shape[1], _BITS)):
            power = 2.0 ** torch.arange(stop - start, dtype=torch.float64)
            bits = beats[:, start:stop].to(torch.float64) @ power
            found[f"bits{block}"] = bits.masked_fill(broken, torch.nan)
        return found


def right_among(bits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Tell which images are right when only some outputs compete.

    Parameters
    ----------
    bits : numpy.ndarray of int64
        ``(block, image)``: outputs that beat the right one.
    allowed : numpy.ndarray of int
        Outputs that compete; the right ones are among them.

    Returns
    -------
    numpy.ndarray of bool
        ``(image,)``.
    """
    right = np.ones(bits.shape[1], dtype=bool)
    for block, values in enumerate(bits):
        inside = allowed[(allowed >= block * _BITS) & (allowed < (block + 1) * _BITS)] - block * _BITS
        mask = np.int64(np.sum(np.int64(1) << inside.astype(np.int64))) if inside.size else np.int64(0)
        right &= (values & mask) == 0
    return right


def evaluate(
    module: torch.nn.Module,
    layer: str,
    task: Task,
    lesions: Sequence[np.ndarray],
    n_outputs: int,
    use: Callable[[int, np.ndarray], None],
    memory: str = "1GB",
) -> str:
    """Silence one set of units after another and hand on what each image's result is.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    layer : str
        Layer name.
    task : Task
        Images.
    lesions : sequence of numpy.ndarray
        Sets of channels.
    n_outputs : int
        Outputs of the network.
    use : callable
        ``use(number, bits)`` with the lesion's number, -1 for the intact network, and int64 ``(block, image)``.
    memory : str
        Budget; results of some lesions at a time fit in a quarter of it.

    Returns
    -------
    str
        The way the sweep took.

    Raises
    ------
    InputError
        If an output is NaN or infinite.
    """
    blocks = -(-n_outputs // _BITS)
    together = max(1, parse_bytes(memory) // 4 // (8 * blocks * len(task)))
    method = "none"
    for start, stop in spans(max(len(lesions), 1), together):
        swept = sweep(module, layer, task.inputs, list(lesions[start:stop]), Beaten(task.targets), memory=memory)
        method = swept.method
        names = [f"bits{block}" for block in range(blocks)]
        if start == 0:
            use(-1, _whole(np.stack([swept.intact[name] for name in names]), layer, "the intact network"))
        for row in range(len(lesions[start:stop])):
            bits = np.stack([swept.values[name][row] for name in names])
            use(start + row, _whole(bits, layer, f"lesion {start + row}"))
    return method


def _whole(bits: np.ndarray, layer: str, what: str) -> np.ndarray:
    """Bits as integers, refusing NaN."""
    bad = np.isnan(bits).any(axis=0)
    if bad.any():
        raise InputError(
            f"layer {layer!r}: {what} gives NaN or infinite outputs for image {int(bad.argmax())}, so no answer can be "
            "read; look for NaN weights or overflow"
        )
    return bits.astype(np.int64)
