"""Which units each of two tasks needs, and each pseudo-task of the null: rankings for `segregation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from actkit.analyses.segregation_pairs import Pair
from actkit.analyses.segregation_units import top_order
from actkit.errors import InputError
from actkit.replay import sweep
from actkit.resampling import Stream, generator
from actkit.tasks import Task

RankBy = Literal["unmasked", "masked"]

_SPLITS = 2**61 + 2**60  # numbers of the random streams that halve images


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
