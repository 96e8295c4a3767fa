"""Greedy ranking: which channel costs most once the ones before it are gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor

import numpy as np

from actkit.ranking_engine import Engine, Values, descending


@dataclass(eq=False)
class Greedy:
    """A greedy ranking of one task.

    Attributes
    ----------
    order : numpy.ndarray of int64
        Positions in ``engine.channels`` in the order in which they were silenced, ``(chosen,)``.
    step : numpy.ndarray of int64
        ``(channels,)`` iteration that chose the channel, from 0; -1 where none did.
    base : dict of str to numpy.ndarray
        For each measure ``(channels, images)``: each image with the channels of the earlier steps silenced, at the
        channel's own step (for channels never chosen: at the last step).
    lesioned : dict of str to numpy.ndarray
        The same with the channel silenced too.
    """

    order: np.ndarray
    step: np.ndarray
    base: Values = field(default_factory=dict)
    lesioned: Values = field(default_factory=dict)


def greedy(
    engine: Engine, count: int, group: int, guide: str = "loss", rows: np.ndarray | None = None, tag: str = "greedy"
) -> Greedy:
    """Silence the costliest channels one group after another, each judged with the earlier ones gone.

    Parameters
    ----------
    engine : Engine
        Network, layer and task.
    count : int
        How many channels to choose.
    group : int
        Channels a step. Members of a group are judged one by one; what they do together is not looked at.
    guide : str
        Measure that decides, the larger the costlier.
    rows : numpy.ndarray of int, optional
        Rows of the task; all by default.
    tag : str
        Name of the search in the journal.

    Returns
    -------
    Greedy
        Ties go to the lower index.

    Notes
    -----
    The conditional procedure of Dobs et al. (2022, Sci Adv 8:eabl8913), whose released code has groups of 1.6 % of a
    layer.
    """
    n = len(engine.channels)
    found = Greedy(np.empty(0, dtype=np.int64), np.full(n, -1))
    number = 0
    while len(found.order) < count:
        left = np.flatnonzero(found.step < 0)
        base = np.sort(engine.channels[found.order])
        values = engine.evaluate(f"{tag}{number:04d}", [engine.channels[[u]] for u in left], base, rows)
        for name in [name for name in values if not name.startswith("base_")]:
            for kept, part in ((found.base, values[f"base_{name}"]), (found.lesioned, values[name])):
                if name not in kept:
                    kept[name] = np.empty((n, part.shape[1]))
                kept[name][left] = part
        take = left[descending(values[guide].mean(axis=1))[: min(group, count - len(found.order))]]
        found.step[take] = number
        found.order = np.concatenate([found.order, take])
        number += 1
    return found


def group_size(group: int | float, n_channels: int) -> int:
    """Channels a greedy step.

    Parameters
    ----------
    group : int or float
        A number of channels, or below 1 a share of them.
    n_channels : int
        Channels that are ranked.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> [group_size(0.016, n) for n in (64, 128, 256, 512, 4096)]
    [1, 2, 4, 8, 65]
    """
    return max(1, floor(group * n_channels + 1e-9) if group < 1 else int(group))


def pairs(n_channels: int, count: int, group: int) -> int:
    """Number of candidates that a greedy search tries.

    Parameters
    ----------
    n_channels, count, group : int
        Channels, how many are chosen, and how many at a time.

    Returns
    -------
    int
        Candidates over all steps.

    Examples
    --------
    >>> pairs(512, 104, 8)
    6032
    """
    return sum(n_channels - chosen for chosen in range(0, count, group))
