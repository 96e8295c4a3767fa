"""What a segregation index is compared with: pseudo-tasks of shuffled classes, and lesions of random units.

A ranking is chosen to hurt its own classes, and under a shared softmax it does so even in a network without any
structure by tasks (a unit that raises the logits of some classes lowers the others' chances). The index of such a
network is therefore positive. Shuffling the classes between the two tasks, ranking and lesioning anew, shows how much
of it comes about this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from actkit.analyses.matched_sets import matched_sets, random_sets
from actkit.errors import InputError
from actkit.resampling import Stream, generator

if TYPE_CHECKING:
    from actkit.tasks import Task

__all__ = [
    "NullTest",
    "Scheme",
    "columns",
    "matched_sets",
    "null_test",
    "pooled",
    "pseudo_tasks",
    "random_sets",
    "shuffle_classes",
]

Scheme = Literal["half_of_each", "half_of_all", "permute"]


def shuffle_classes(
    a: np.ndarray, b: np.ndarray, seed: int, number: int, scheme: Scheme = "permute"
) -> tuple[np.ndarray, np.ndarray]:
    """Deal the classes of two tasks to two pseudo-tasks.

    Parameters
    ----------
    a, b : numpy.ndarray
        The classes (output columns) of each task.
    seed : int
        Seed.
    number : int
        Number of the shuffle, from 0; each has a random stream of its own.
    scheme : {"permute", "half_of_each", "half_of_all"}
        As many classes in each pseudo-task as in the real one, drawn from all, which makes the test exact where
        classes are exchangeable; half of each task's classes in either pseudo-task, so that neither resembles a real
        task (of odd numbers of classes, the larger part goes to either at random); or half of all classes, whatever
        their task (the paper's code).

    Returns
    -------
    tuple of two numpy.ndarray
        Sorted classes of each pseudo-task.

    Raises
    ------
    InputError
        If the tasks share a class, have too few, or the scheme is unknown.

    Notes
    -----
    The index depends on how many classes each task has, so halves suit only tasks of equal numbers: in 200 simulated
    networks without structure and with 16 and 6 classes, the 5 % test said yes in 16 % (half_of_each) and 21 %
    (half_of_all) of them, unmasked, but in 4 % with permute; with 10 and 10 classes all three were within error of 5 %.
    Tasks should also have as many images per class: otherwise the mix of images differs too.
    """
    one, two = np.unique(a), np.unique(b)
    common = np.intersect1d(one, two)
    if common.size:
        raise InputError(
            f"output column {common[0]} belongs to both tasks, so their classes cannot be shuffled; "
            "state the classes of each task"
        )
    if min(len(one), len(two)) < 2:
        raise InputError("a task of one class cannot be dealt to two pseudo-tasks; give two classes or more in each")
    random = generator(seed, number, Stream.PERMUTATIONS)
    if scheme == "half_of_each":
        first = []
        # Two odd numbers: one pseudo-task gets the larger part of one, the other that of the other.
        larger = int(random.integers(0, 2))
        for classes in (one, two):
            half = len(classes) // 2 + (larger if len(classes) % 2 else 0)
            larger = 1 - larger if len(classes) % 2 else larger
            first.append(random.permutation(classes)[:half])
        chosen = np.concatenate(first)
    else:
        every = random.permutation(np.concatenate([one, two]))
        if scheme == "half_of_all":
            chosen = every[: len(every) // 2]
        elif scheme == "permute":
            chosen = every[: len(one)]
        else:
            raise InputError(f"scheme {scheme!r} is unknown; use 'half_of_each', 'half_of_all' or 'permute'")
    rest = np.setdiff1d(np.concatenate([one, two]), chosen)
    return np.sort(chosen), rest


def pseudo_tasks(a: Task, b: Task, seed: int, number: int, scheme: Scheme = "permute") -> tuple[Task, Task]:
    """Make two tasks of the same images whose classes are dealt anew.

    Parameters
    ----------
    a, b : Task
        The real tasks of one network, with inputs of one shape.
    seed, number : int
        As in :func:`shuffle_classes`; the same numbers give the same classes for ranking and for evaluation images.
    scheme : {"permute", "half_of_each", "half_of_all"}
        As in :func:`shuffle_classes`.

    Returns
    -------
    tuple of two Task
        Named ``shuffle NUMBER a`` and ``shuffle NUMBER b``.

    Raises
    ------
    InputError
        If the tasks share a class or have too few.
    """
    both = pooled(a, b)
    made = []
    for letter, classes in zip("ab", shuffle_classes(columns(a), columns(b), seed, number, scheme), strict=True):
        rows = np.flatnonzero(np.isin(both.targets, classes))
        part = both.take(rows)
        made.append(type(a)(f"shuffle {number} {letter}", part.inputs, part.targets, classes, part.ids))
    return made[0], made[1]


def columns(task: Task) -> np.ndarray:
    """Output columns of a task: as it states them, else those of its images.

    Parameters
    ----------
    task : Task
        The task.

    Returns
    -------
    numpy.ndarray of int64
        Sorted.
    """
    return np.unique(task.targets if task.classes is None else task.classes)


def pooled(a: Task, b: Task) -> Task:
    """Put the images of two tasks into one, the first task's first.

    Parameters
    ----------
    a, b : Task
        Tasks of one network.

    Returns
    -------
    Task
        With the classes of both.

    Raises
    ------
    InputError
        If their inputs differ in shape.
    """
    import torch

    if a.inputs.shape[1:] != b.inputs.shape[1:]:
        raise InputError(
            f"inputs of {a.name!r} and {b.name!r} have shapes {tuple(a.inputs.shape[1:])} and "
            f"{tuple(b.inputs.shape[1:])}; prepare both with the same network"
        )
    ids = None if a.ids is None or b.ids is None else np.concatenate([a.ids, b.ids])
    return type(a)(
        f"{a.name} and {b.name}",
        torch.cat([a.inputs, b.inputs]),
        np.concatenate([a.targets, b.targets]),
        np.union1d(columns(a), columns(b)),
        ids,
    )


@dataclass(frozen=True, eq=False)
class NullTest:
    """An index beside its null distribution.

    Attributes
    ----------
    mean, low, high : numpy.ndarray
        Mean and central 95 % of the null.
    mean_error : numpy.ndarray
        Standard error of that mean, from the finite number of shuffles.
    excess : numpy.ndarray
        The index minus the null mean: what is claimed.
    p_value : numpy.ndarray
        ``(1 + nulls at least as large) / (1 + nulls)``, one-sided.
    p_corrected : numpy.ndarray
        The same for the largest distance from the mean over all entries: family-wise over layers.
    n : numpy.ndarray of int
        Null values that are defined.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean_error: np.ndarray
    excess: np.ndarray
    p_value: np.ndarray
    p_corrected: np.ndarray
    n: np.ndarray


def null_test(observed: np.ndarray, null: np.ndarray) -> NullTest:
    """Compare indices with those of shuffled classes.

    Parameters
    ----------
    observed : numpy.ndarray
        ``(…)`` the index, for instance per layer.
    null : numpy.ndarray
        ``(null, …)`` the index of every shuffle; all entries of a row come from the same shuffle. NaN where a
        pseudo-task was not above chance.

    Returns
    -------
    NullTest
        With p-values that cannot be 0: the observed classes count as one of the shuffles.

    Raises
    ------
    InputError
        If shapes do not fit or there is no shuffle.
    """
    value, draws = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if draws.ndim < 1 or not len(draws) or draws.shape[1:] != value.shape:
        raise InputError(f"null of shape {draws.shape} does not fit an index of shape {value.shape}; give (null, …)")
    known = ~np.isnan(draws)
    n = known.sum(axis=0)
    some = n > 0
    filled = np.where(known, draws, 0.0)
    mean = np.where(some, filled.sum(axis=0) / np.maximum(n, 1), np.nan)
    spread = np.where(known, (draws - mean) ** 2, 0.0).sum(axis=0) / np.maximum(n - 1, 1)
    error = np.where(n > 1, np.sqrt(spread / np.maximum(n, 1)), np.nan)
    # Rounding must not decide ties: the index of few images takes few values.
    reaches = known & (draws >= value - 1e-12)
    usable = some & ~np.isnan(value)
    p = np.where(usable, (1 + reaches.sum(axis=0)) / (1 + n), np.nan)
    low, high = _quantiles(draws)
    # Centred on a mean that counts the observed value as one of the shuffles, so that all are treated alike.
    centre = np.where(usable, (filled.sum(axis=0) + np.where(usable, value, 0.0)) / (1 + n), np.nan)
    off, off_null = value - centre, np.where(known, draws - centre, -np.inf)
    largest = off_null.reshape(len(draws), -1).max(axis=1)
    over = (largest.reshape(-1, *[1] * value.ndim) >= off - 1e-12).sum(axis=0)
    corrected = np.where(usable, (1 + over) / (1 + len(draws)), np.nan)
    return NullTest(mean, low, high, error, value - mean, p, corrected, n)


def _quantiles(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central 95 % of the defined values of each column."""
    flat = draws.reshape(len(draws), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    for column, values in enumerate(flat.T):
        known = values[~np.isnan(values)]
        if known.size:
            ends[:, column] = np.quantile(known, [0.025, 0.975])
    low, high = ends.reshape(2, *draws.shape[1:])
    return low, high
