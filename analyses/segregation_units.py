"""Units that two tasks share, and how selective the units are that a task needs.

Source: Dobs, Martinez, Kell & Kanwisher (2022), Science Advances 8, eabl8913, supplement: filters shared among the top
20 %, and the rank correlation of causal rank with selectivity over the top 50 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from actkit.analyses.segregation_pairs import maps_of
from actkit.analyses.selectivity_scores import score
from actkit.compute import spans
from actkit.errors import InputError
from actkit.tasks import Task
from actkit.units import round_half_up

_BATCH = 64


def top_order(scores: np.ndarray) -> np.ndarray:
    """Order units from the highest score to the lowest, ties by index.

    Parameters
    ----------
    scores : numpy.ndarray
        ``(unit,)`` or ``(…, unit)``.

    Returns
    -------
    numpy.ndarray of int64
        Of the same shape: unit indices.

    Raises
    ------
    InputError
        If a score is NaN: it has no place in an order.
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        where = int(np.argwhere(np.isnan(values))[0][-1])
        raise InputError(f"unit {where} has the score NaN, so it has no rank; find out why its loss is undefined")
    return np.argsort(-values, axis=-1, kind="stable")


@dataclass(frozen=True)
class SharedUnits:
    """How many units two tasks share among their top ones.

    Attributes
    ----------
    k, n : int
        Units in each top set, and units of the layer.
    share : float
        Share of the top units of one task that are among the other's.
    chance, low, high : float
        Expectation and exact 95 % interval for two independent choices (hypergeometric).
    p_more, p_fewer : float
        Probability that independent choices share at least, and at most, as many.
    reliability : tuple of two float
        Share that a task's top units have in common with its own, between rankings on disjoint halves of the images.
    ceiling : float
        What two tasks with the same units could reach between such halves: the geometric mean of both reliabilities.
    between : float
        Share between the two tasks, each on one half of its images, so that it carries the same noise as the ceiling.
    normalised : float
        ``(between - chance) / (ceiling - chance)``: 0 is chance, 1 as alike as the rankings are reliable. NaN without
        halves, or where the rankings are no more reliable than chance.
    """

    k: int
    n: int
    share: float
    chance: float
    low: float
    high: float
    p_more: float
    p_fewer: float
    reliability: tuple[float, float] = (np.nan, np.nan)
    ceiling: float = np.nan
    between: float = np.nan
    normalised: float = np.nan


def shared_units(
    a: np.ndarray, b: np.ndarray, fraction: float = 0.2, halves: tuple[np.ndarray, np.ndarray] | None = None
) -> SharedUnits:
    """Compare the top units of two tasks in one layer, with chance and a reliability ceiling.

    Parameters
    ----------
    a, b : numpy.ndarray
        ``(unit,)`` score of every unit for each task, the higher the more the task needs it.
    fraction : float
        Share of the units that counts as top, rounded half up.
    halves : tuple of two numpy.ndarray, optional
        For each task ``(split, 2, unit)``: the same scores on the two halves of several splits of its images.

    Returns
    -------
    SharedUnits
        Shares, chance, interval, ceiling and normalised value.

    Raises
    ------
    InputError
        If the scores do not fit or the fraction leaves no unit.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    n = len(first)
    if first.shape != (n,) or second.shape != (n,):
        raise InputError(f"scores of shapes {first.shape} and {second.shape} are not of the same units; give (unit,)")
    k = round_half_up(fraction * n)
    if not 1 <= k <= n:
        raise InputError(f"fraction {fraction} of {n} units is {k} units; choose one that gives 1 to {n}")
    common = _overlap(top_order(first)[:k], top_order(second)[:k])
    law = stats.hypergeom(n, k, k)
    found = {
        "k": k,
        "n": n,
        "share": common / k,
        "chance": k / n,
        "low": float(law.ppf(0.025)) / k,
        "high": float(law.ppf(0.975)) / k,
        "p_more": float(law.sf(common - 1)),
        "p_fewer": float(law.cdf(common)),
    }
    if halves is None:
        return SharedUnits(**found)  # type: ignore[arg-type]
    tops = [top_order(scores)[..., :k] for scores in halves]
    if any(top.ndim != 3 or top.shape[1] != 2 for top in tops) or tops[0].shape != tops[1].shape:
        raise InputError("halves must be (split, 2, unit) for both tasks, with as many splits")
    reliability = tuple(float(np.mean([_overlap(one[0], one[1]) / k for one in top])) for top in tops)
    pairs = [_overlap(x[i], y[j]) / k for x, y in zip(*tops, strict=True) for i in range(2) for j in range(2)]
    between, chance = float(np.mean(pairs)), k / n
    above = [max(value - chance, 0.0) for value in reliability]
    room = float(np.sqrt(above[0] * above[1]))
    return SharedUnits(
        **found,  # type: ignore[arg-type]
        reliability=(reliability[0], reliability[1]),
        ceiling=chance + room,
        between=between,
        normalised=(between - chance) / room if room > 0 else np.nan,
    )


def _overlap(a: np.ndarray, b: np.ndarray) -> int:
    """How many indices two sets share."""
    return len(np.intersect1d(a, b, assume_unique=True))


def rank_selectivity(scores: np.ndarray, selectivity: np.ndarray, fraction: float = 0.5) -> tuple[float, float, int]:
    """Correlate how much a task needs its top units with how selective they are for it.

    Parameters
    ----------
    scores : numpy.ndarray
        ``(unit,)`` loss increase of each unit's lesion.
    selectivity : numpy.ndarray
        ``(unit,)`` selectivity for the same task, the higher the more selective; NaN for silent units, which are left
        out.
    fraction : float
        Share of top units taken into account (the paper: half).

    Returns
    -------
    rho : float
        Spearman correlation between rank position (1 is the most needed) and selectivity: negative means that the
        units the task needs most are the most selective. NaN where either is constant.
    p_value : float
        Two-sided, from the t approximation.
    n : int
        Units that took part.

    Raises
    ------
    InputError
        If shapes disagree or fewer than three units are left.
    """
    values = np.asarray(selectivity, dtype=np.float64)
    order = top_order(scores)
    if values.shape != order.shape or order.ndim != 1:
        raise InputError(f"{values.shape} selectivities do not fit {order.shape} scores; give one of each per unit")
    top = order[: round_half_up(fraction * len(order))]
    place = np.arange(1, len(top) + 1)
    known = ~np.isnan(values[top])
    n = int(known.sum())
    if n < 3:
        raise InputError(f"{n} units with a selectivity are too few for a correlation; take a larger fraction")
    if np.ptp(values[top][known]) == 0:
        return np.nan, np.nan, n
    found = stats.spearmanr(place[known], values[top][known])
    return float(found.statistic), float(found.pvalue), n


def map_selectivity(module: torch.nn.Module, layer: str, tasks: Sequence[Task]) -> np.ndarray | None:
    """How much more each unit responds to one task's images than to the other's.

    A unit's response is the l2 norm of its map (its absolute value in a layer without maps); with m its mean over the
    images of a task the index is ``(m_a - m_b) / (m_a + m_b)``.

    Parameters
    ----------
    module : torch.nn.Module
        The network, in evaluation mode.
    layer : str
        Layer name.
    tasks : sequence of two Task
        Images of both tasks; targets do not matter.

    Returns
    -------
    numpy.ndarray of float64, or None
        ``(unit,)``, from -1 (task b alone) to 1 (task a alone), NaN for a unit that responds to all images alike. None
        where the layer's output is negative somewhere: a norm would count inhibition as a response.

    Raises
    ------
    LayerError
        If the layer does not exist or gives no tensor.
    """
    sides = []
    for task in tasks:
        norms = []
        for start, stop in spans(len(task), _BATCH):
            maps = maps_of(module, layer, task.inputs[start:stop]).to(torch.float64)
            if (maps < 0).any():
                return None
            norms.append(maps.flatten(2).norm(dim=2) if maps.ndim > 2 else maps)
        sides.append(torch.cat(norms).numpy())
    return score(sides[0], sides[1], "index")


def most_selective(selectivity: np.ndarray, k: int) -> np.ndarray:
    """The units that prefer a task most.

    Parameters
    ----------
    selectivity : numpy.ndarray
        ``(unit,)``, positive for the task; NaN counts as the least.
    k : int
        How many.

    Returns
    -------
    numpy.ndarray of int64
        Unit indices, ties by index.
    """
    return top_order(np.where(np.isnan(selectivity), -np.inf, selectivity))[:k]
