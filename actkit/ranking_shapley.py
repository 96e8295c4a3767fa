"""Shapley values of channels: what a channel's loss costs, averaged over all that might have been lost before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from actkit.ranking_engine import Values
from actkit.resampling import Stream, generator

# Player permutations number their streams from here, away from permutations of labels, which start at 0.
_PLAYERS = 2**61

_CHUNK = 16  # nested coalitions a sweep: truncation is looked at in between


class Game(Protocol):
    """What silences a coalition of players and measures every image."""

    def __call__(self, tag: str, base: np.ndarray, players: np.ndarray) -> Values:
        """Measure ``base`` with the first 1, 2, … of ``players`` silenced too, ``(len(players), images)`` a measure."""


@dataclass(frozen=True, eq=False)
class Shapley:
    """Shapley values of one task.

    Attributes
    ----------
    values : dict of str to numpy.ndarray
        For each measure ``(players, images)``, the mean marginal change over the permutations.
    by_permutation : dict of str to numpy.ndarray
        For each measure ``(permutations, players)``, the mean over the images.
    squares : dict of str to numpy.ndarray
        For each measure ``(players,)``, the mean square over permutations and images.
    reached : numpy.ndarray of int64
        ``(permutations,)`` players whose marginal change was measured before the permutation was cut short.
    """

    values: Values
    by_permutation: Values
    squares: Values
    reached: np.ndarray


def shapley(
    game: Game, n_players: int, nothing: Values, n_permutations: int, seed: int, truncation: float, guide: str = "loss"
) -> Shapley:
    """Estimate Shapley values by walking through random permutations of the players.

    Parameters
    ----------
    game : callable
        Silences and measures, see :class:`Game`.
    n_players : int
        Number of players; player 0 counts like the others.
    nothing : dict of str to numpy.ndarray
        ``(images,)`` for each measure with nobody silenced.
    n_permutations : int
        How many permutations; permutation m is the same for every task and for any larger number.
    seed : int
        Seed, 0 included.
    truncation : float
        A walk ends once the mean of `guide` stays, for a whole chunk of players, within this share of the whole
        game's change (all players silenced against none) from its end. The rest of that change is dealt out to the
        players left, equally. 0 walks to the end always.
    guide : str
        Measure that decides on truncation.

    Returns
    -------
    Shapley
        With values that sum, over the players, to the change from nobody to everybody silenced, image by image.

    Notes
    -----
    Permutation sampling after Castro, Gómez & Tejada (2009, Comput Oper Res 36:1726); truncation after Ghorbani &
    Zou (2019, ICML; 2020, Neuron Shapley, NeurIPS), who give the rest nothing.
    """
    everybody = np.arange(n_players)
    # The last coalition of any order is everybody: measured once, as one step from everybody but the last.
    whole = {name: value[-1] for name, value in game("all", everybody[:-1], everybody[-1:]).items()}
    span = abs(float(whole[guide].mean() - nothing[guide].mean()))
    total = {name: np.zeros((n_players, len(value))) for name, value in nothing.items()}
    by_permutation = {name: np.zeros((n_permutations, n_players)) for name in nothing}
    squares = {name: np.zeros(n_players) for name in nothing}
    reached = np.full(n_permutations, n_players)
    for number in range(n_permutations):
        order = generator(seed, _PLAYERS + number, Stream.PERMUTATIONS).permutation(n_players)
        before = {name: np.asarray(value) for name, value in nothing.items()}
        for start in range(0, n_players, _CHUNK):
            players = order[start : start + _CHUNK]
            values = game(f"{number:05d}-{start:05d}", order[:start], players)
            for name, base in before.items():
                marginal = np.diff(values[name], axis=0, prepend=base[None])
                _count(total, by_permutation, squares, name, number, players, marginal)
            before = {name: values[name][-1] for name in before}
            rest = order[start + len(players) :]
            near = np.abs(values[guide].mean(axis=1) - whole[guide].mean()) <= truncation * span
            if truncation and len(rest) and near.all():
                for name, base in before.items():
                    marginal = np.broadcast_to((whole[name] - base) / len(rest), (len(rest), len(base)))
                    _count(total, by_permutation, squares, name, number, rest, marginal)
                reached[number] = start + len(players)
                break
    return Shapley(
        {name: value / n_permutations for name, value in total.items()},
        by_permutation,
        {name: value / n_permutations for name, value in squares.items()},
        reached,
    )


def _count(
    total: Values,
    by_permutation: Values,
    squares: Values,
    name: str,
    number: int,
    players: np.ndarray,
    marginal: np.ndarray,
) -> None:
    """Add the marginal changes ``(players, images)`` of one permutation."""
    total[name][players] += marginal
    by_permutation[name][number, players] = marginal.mean(axis=1)
    squares[name][players] += np.mean(np.square(marginal), axis=1)


def errors(result: Shapley, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of Shapley values.

    Parameters
    ----------
    result : Shapley
        The values.
    name : str
        Measure.

    Returns
    -------
    sampling : numpy.ndarray of float64
        ``(players,)`` error from the permutations alone, the images taken as they are; NaN for one permutation.
    both : numpy.ndarray of float64
        ``(players,)`` error from permutations and images, both taken as samples: the variances of a mean over two
        crossed random factors, their common part counted once (Owen 2007, Ann Appl Stat 1:386).
    """
    rows = result.by_permutation[name]
    images = result.values[name]
    m, n = len(rows), images.shape[1]
    if m < 2:
        nothing = np.full(images.shape[0], np.nan)
        return nothing, nothing
    mean = images.mean(axis=1)
    of_rows = np.sum((rows - mean) ** 2, axis=0) / (m - 1)
    of_images = np.sum((images - mean[:, None]) ** 2, axis=1) / max(n - 1, 1)
    # What neither factor explains, from the total sum of squares.
    sum_of_squares = m * n * (result.squares[name] - mean**2)
    rest = sum_of_squares - n * (m - 1) * of_rows - m * (n - 1) * of_images
    rest = np.maximum(rest / max((m - 1) * (n - 1), 1), 0)
    variance = of_rows / m + of_images / n - rest / (m * n)
    return np.sqrt(of_rows / m), np.sqrt(np.maximum(variance, np.maximum(of_rows / m, of_images / n)))
