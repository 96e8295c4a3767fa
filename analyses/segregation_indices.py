"""What a lesion of one task's units does to another task: drops, the segregation index and what it is read beside.

Everything here is a pure function of per-image results; axes named `ranking` and `task` have
length 2 and the same order, so that entry ``[0, 1]`` is what silencing the units of task 0 does to task 1.

Source: Dobs, Martinez, Kell & Kanwisher (2022), Brain-like functional specialization emerges spontaneously in deep
neural networks, Science Advances 8, eabl8913. The formula of the combined index is not in print; it is taken as the
mean over both rankings of own minus other drop, which lies between -1 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actkit.errors import InputError

SATURATED = 0.9
HALF = 0.5


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Which images of two tasks a network names correctly, intact and with the units of either task silenced.

    Attributes
    ----------
    intact : tuple of two numpy.ndarray
        For each task ``(image,)``: 1 where the intact network is right, else 0.
    lesioned : tuple of two numpy.ndarray
        For each task ``(…, ranking, image)``, the leading axes (layer, fraction, …) the same for both tasks.
    labels : tuple of two numpy.ndarray
        For each task ``(image,)``: the class of each image.
    chance : tuple of two float
        Accuracy of a guess in each task.

    Raises
    ------
    InputError
        If shapes disagree, or a value is not between 0 and 1.
    """

    intact: tuple[np.ndarray, np.ndarray]
    lesioned: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray, np.ndarray]
    chance: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for number in range(2):
            n = len(self.intact[number])
            shape = self.lesioned[number].shape
            if not n:
                raise InputError(f"task {number} has no images, so nothing can be lost in it; give at least one")
            if len(shape) < 2 or shape[-2:] != (2, n) or shape[:-1] != self.lesioned[0].shape[:-1]:
                raise InputError(
                    f"lesioned results of task {number} have shape {shape} for {n} images; give (…, 2 rankings, image) "
                    "with the same leading axes for both tasks"
                )
            if self.labels[number].shape != (n,):
                raise InputError(f"task {number} has {len(self.labels[number])} labels for {n} images; give one each")
            for values in (self.intact[number], self.lesioned[number]):
                # NaN fails both comparisons.
                if not ((values >= 0) & (values <= 1)).all():
                    raise InputError(
                        f"results of task {number} hold NaN or values outside 0 … 1, so its accuracy is undefined; "
                        "give 1 for right and 0 for wrong"
                    )
            if not 0 <= self.chance[number] < 1:
                raise InputError(f"chance of task {number} is {self.chance[number]}; give a share from 0 to below 1")

    def accuracies(self, weights: Sequence[np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Take the mean over images.

        Parameters
        ----------
        weights : sequence of two numpy.ndarray, optional
            For each task ``(draw, image)``: how often each image counts.

        Returns
        -------
        intact : numpy.ndarray of float64
            ``(task,)``, or ``(draw, task)`` with weights.
        lesioned : numpy.ndarray of float64
            ``(…, ranking, task)``, or ``(draw, …, ranking, task)``.
        """
        intact, lesioned = [], []
        for number in range(2):
            right = np.asarray(self.intact[number], dtype=np.float64)
            left = np.asarray(self.lesioned[number], dtype=np.float64)
            if weights is None:
                intact.append(right.mean())
                lesioned.append(left.mean(axis=-1))
                continue
            share = weights[number] / weights[number].sum(axis=1, keepdims=True)
            intact.append(share @ right)
            flat = share @ left.reshape(-1, left.shape[-1]).T
            lesioned.append(flat.reshape(len(share), *left.shape[:-1]))
        return np.stack(intact, axis=-1), np.stack(lesioned, axis=-1)

    def drops(self, weights: Sequence[np.ndarray] | None = None, plain: bool = False) -> np.ndarray:
        """Proportional drops of both tasks under both rankings.

        Parameters
        ----------
        weights : sequence of two numpy.ndarray, optional
            As in :meth:`accuracies`.
        plain : bool
            Whether to divide by the intact accuracy itself, as the paper does, not by its distance from chance.

        Returns
        -------
        numpy.ndarray of float64
            ``(…, ranking, task)``, with a leading ``draw`` axis where weights are given.
        """
        intact, lesioned = self.accuracies(weights)
        if weights is not None:
            intact = intact.reshape(len(intact), *[1] * (lesioned.ndim - 2), 2)
        return drops(intact, lesioned, 0.0 if plain else np.asarray(self.chance))


def drops(intact: np.ndarray | float, lesioned: np.ndarray | float, chance: np.ndarray | float = 0.0) -> np.ndarray:
    """Proportional drop of accuracy: ``D = (intact - lesioned) / (intact - chance)``.

    Parameters
    ----------
    intact, lesioned : numpy.ndarray or float
        Accuracies, of shapes that broadcast.
    chance : numpy.ndarray or float
        Accuracy of a guess; 0 gives the paper's plain form ``(intact - lesioned) / intact``.

    Returns
    -------
    numpy.ndarray of float64
        0: nothing is lost; 1: everything above chance; more than 1 where the lesioned network does worse than a guess.
        NaN where the intact accuracy is not above chance, as there is then nothing to lose.

    Examples
    --------
    >>> float(drops(0.9, 0.5, 0.1)), round(float(drops(0.9, 0.5)), 3)
    (0.5, 0.444)
    """
    before, after, guess = np.broadcast_arrays(
        np.asarray(intact, dtype=np.float64), np.asarray(lesioned, dtype=np.float64), np.asarray(chance, np.float64)
    )
    room = before - guess
    return np.divide(before - after, room, out=np.full(room.shape, np.nan), where=room > 0)


def _square(values: np.ndarray, tail: int = 0) -> np.ndarray:
    """Check that an array ends in (ranking, task) and `tail` further axes."""
    array = np.asarray(values, dtype=np.float64)
    end = array.ndim - tail
    if end < 2 or array.shape[end - 2 : end] != (2, 2):
        words = "(…, 2 rankings, 2 tasks" + (", fraction)" if tail else ")")
        raise InputError(f"drops have shape {array.shape}; an index needs {words}")
    return array


def segregation_index(drop: np.ndarray) -> np.ndarray:
    """Combined segregation index of two tasks a and b.

    ``S = [(D(a|a) - D(b|a)) + (D(b|b) - D(a|b))] / 2`` where ``D(t|r)`` is the drop of task t when the units of
    ranking r are silenced. Pairing the same four drops by task, ``D(a|a) - D(a|b)`` and ``D(b|b) - D(b|a)``, gives the
    same S. Its value without segregation is not 0: each ranking is chosen to hurt its own classes, so compare it with
    its class-shuffled null (:func:`actkit.analyses.segregation_nulls.null_test`).

    Parameters
    ----------
    drop : numpy.ndarray
        ``(…, ranking, task)``.

    Returns
    -------
    numpy.ndarray of float64
        ``(…)``.

    Raises
    ------
    InputError
        If the last two axes are not 2 × 2.

    Examples
    --------
    >>> float(segregation_index(np.array([[0.8, 0.1], [0.3, 0.6]])))
    0.5
    """
    return by_ranking(drop).mean(axis=-1)


def by_ranking(drop: np.ndarray) -> np.ndarray:
    """Own minus other drop of each ranking: ``D(a|a) - D(b|a)`` and ``D(b|b) - D(a|b)``.

    Parameters
    ----------
    drop : numpy.ndarray
        ``(…, ranking, task)``.

    Returns
    -------
    numpy.ndarray of float64
        ``(…, ranking)``.

    Raises
    ------
    InputError
        If the last two axes are not 2 × 2.
    """
    d = _square(drop)
    return np.stack([d[..., 0, 0] - d[..., 0, 1], d[..., 1, 1] - d[..., 1, 0]], axis=-1)


def by_task(drop: np.ndarray) -> np.ndarray:
    """Drop of each task under its own minus under the other ranking, as the paper's bootstrap pairs the four drops.

    Parameters
    ----------
    drop : numpy.ndarray
        ``(…, ranking, task)``.

    Returns
    -------
    numpy.ndarray of float64
        ``(…, task)``: ``D(a|a) - D(a|b)`` and ``D(b|b) - D(b|a)``.

    Raises
    ------
    InputError
        If the last two axes are not 2 × 2.
    """
    return by_ranking(np.swapaxes(_square(drop), -1, -2))


def index_at_half(
    drop: np.ndarray, fractions: Sequence[float] | np.ndarray, level: float = HALF
) -> tuple[np.ndarray, np.ndarray]:
    """Segregation where each ranking has first cost its own task half of its accuracy.

    At one fraction of units, layers differ in how much their lesions hurt at all; here they are compared at lesions
    that hurt the own task equally. Between two fractions the curves are taken as straight.

    Parameters
    ----------
    drop : numpy.ndarray
        ``(…, ranking, task, fraction)``.
    fractions : sequence of float
        Share of units silenced, increasing; 0 (no drop) is put in front where it is missing.
    level : float
        Own-task drop at which to compare.

    Returns
    -------
    index : numpy.ndarray of float64
        ``(…)``: mean over rankings of `level` minus the drop of the other task; NaN where a ranking never gets there.
    at : numpy.ndarray of float64
        ``(…, ranking)``: the fraction at which each gets there.

    Raises
    ------
    InputError
        If fractions do not increase or do not fit.
    """
    d = _square(drop, 1)
    x = np.asarray(fractions, dtype=np.float64)
    if x.shape != d.shape[-1:] or (np.diff(x) <= 0).any() or x[0] < 0:
        raise InputError(f"fractions {x.tolist()} must increase from 0 or more, one for each of {d.shape[-1]} lesions")
    if x[0] > 0:
        x = np.concatenate([[0.0], x])
        d = np.concatenate([np.zeros((*d.shape[:-1], 1)), d], axis=-1)
    own = np.stack([d[..., 0, 0, :], d[..., 1, 1, :]], axis=-2)
    other = np.stack([d[..., 0, 1, :], d[..., 1, 0, :]], axis=-2)
    reached = own >= level
    first = np.maximum(reached.argmax(axis=-1), 1)
    ends = [
        np.take_along_axis(values, place[..., None], -1)[..., 0]
        for values, place in ((own, first - 1), (own, first), (other, first - 1), (other, first))
    ]
    low, high, other_low, other_high = ends
    step = np.divide(level - low, high - low, out=np.zeros_like(low), where=high > low)
    got = reached.any(axis=-1)
    at = np.where(got, x[first - 1] + step * (x[first] - x[first - 1]), np.nan)
    there = np.where(got, other_low + step * (other_high - other_low), np.nan)
    return (level - there).mean(axis=-1), at


def saturated(drop: np.ndarray, level: float = SATURATED) -> np.ndarray:
    """Tell where a lesion destroys both tasks, so that no difference between them can show.

    Parameters
    ----------
    drop : numpy.ndarray
        ``(…, ranking, task)``.
    level : float
        Drop above which a task counts as lost.

    Returns
    -------
    numpy.ndarray of bool
        ``(…, ranking)``: both tasks drop by more than `level`.

    Raises
    ------
    InputError
        If the last two axes are not 2 × 2.
    """
    return np.asarray((_square(drop) > level).all(axis=-1))
