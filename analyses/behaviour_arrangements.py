"""Arrangements of stimuli by similarity on a plane, of all or of subsets, combined into one RDM a person."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from actkit.analyses.behaviour_trials import read_trials, word_column
from actkit.errors import DataError, InputError
from actkit.recordings import VARIABLE, pair_positions, rdm_dataset

__all__ = ["arrangement_rdm"]

_SMALL = 1e-20  # squared change of the estimate (of mean square 1) at which scaling has settled
_MOST = 100_000  # rounds


def arrangement_rdm(
    trials: Any,
    ids: Any = None,
    *,
    trial: str = "trial",
    stimulus: str = "stimulus",
    x: str = "x",
    y: str = "y",
    subject: str | None = None,
    name: str = "arrangements",
) -> xr.Dataset:
    """RDM of each person from stimuli arranged on a plane, in one trial or in many trials with subsets.

    The dissimilarities of a trial are distances on the screen, known up to the trial's own scale: people spread
    whatever they are given over the whole arena. Each trial is scaled so that its distances and the current estimate
    of the same pairs have equal sums of squares; the estimate is the average over trials, a pair weighing with its
    squared distance on the screen (placing errors are alike for near and far pairs, so that the signal-to-noise ratio
    grows with the distance); both steps are repeated until nothing changes. Pairs that were dropped on one spot
    whenever they were shown are 0.

    Parameters
    ----------
    trials : pandas.DataFrame, mapping of column to values, or xarray.Dataset
        One row for each stimulus of each trial; positions in the same unit in all trials.
    ids : sequence of str, optional
        All stimuli, in the order wanted; by default those shown, sorted.
    trial, stimulus, x, y : str
        Columns: the trial, the stimulus, and where it was put.
    subject : str, optional
        Column of the person; by default all trials are one person's.
    name : str
        What the RDMs are called.

    Returns
    -------
    xarray.Dataset
        An RDM dataset of dims subject (or rdm, without `subject`) and pair, root mean square 1; pairs never shown
        together are NaN. ``n_trials`` and ``evidence``, the sum of a pair's weights (squared units of the screen), of
        the same dims.

    Raises
    ------
    InputError
        If a column is missing, a stimulus stands in a trial twice or is not among the ids, a position is no number, or
        a trial has fewer than two stimuli.
    DataError
        If trials of a person share no pair with the others, so that their scale is unknown, or all positions of a
        person are one point.

    References
    ----------
    Kriegeskorte & Mur (2012), Inverse MDS: inferring dissimilarity structure from multiple item arrangements,
    Frontiers in Psychology 3.
    """
    table = read_trials(trials)
    shown = word_column(table, stimulus)
    known = np.unique(shown) if ids is None else np.array([str(value) for value in ids])
    if lacking := sorted(set(shown.tolist()) - set(known.tolist())):
        raise InputError(f"the stimulus {lacking[0]!r} was shown and is not among the ids; add it")
    order = np.argsort(known, kind="stable")
    where = order[np.searchsorted(known[order], shown)]
    points = np.stack([_numbers(table, x), _numbers(table, y)], axis=1)
    who = np.full(len(shown), name) if subject is None else word_column(table, subject)
    which = word_column(table, trial)
    people = np.unique(who)
    found = [_combine(which[who == one], where[who == one], points[who == one], known, str(one)) for one in people]
    vectors, count, evidence = (np.stack([each[k] for each in found]) for k in range(3))
    dim = "rdm" if subject is None else "subject"
    result = rdm_dataset(vectors, people, dim, known, "arrangement", name)
    dims = result[VARIABLE].dims
    return result.assign(
        n_trials=(dims, count, {"long_name": "trials showing both", "units": "1"}),
        evidence=(dims, evidence, {"long_name": "sum of squared distances on the screen", "units": "1"}),
    )


def _numbers(table: Any, column: str) -> np.ndarray:
    """A column of positions."""
    import pandas as pd

    if column not in table:
        word_column(table, column)  # which says what columns there are
    values = np.asarray(pd.to_numeric(pd.Series(table[column]), errors="coerce"), dtype=np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).argmax())
        raise InputError(f"column {column!r} holds '{table[column][bad]}' in row {bad}; positions are finite numbers")
    return values


def _combine(
    which: np.ndarray, where: np.ndarray, points: np.ndarray, known: np.ndarray, person: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One person's dissimilarities, number of trials and evidence of every pair."""
    names = np.unique(which)
    n_pairs = len(known) * (len(known) - 1) // 2
    distance = np.full((len(names), n_pairs), np.nan)
    for row, one in enumerate(names):
        rows = np.flatnonzero(which == one)
        if len(rows) < 2:
            raise InputError(f"trial {str(one)!r} of {person!r} shows {len(rows)} stimulus, so it has no distances")
        if len(set(where[rows].tolist())) < len(rows):
            twice = np.flatnonzero(np.bincount(where[rows]) > 1)[0]
            raise InputError(f"trial {str(one)!r} of {person!r} shows the stimulus {str(known[twice])!r} twice")
        i, j = np.triu_indices(len(rows), 1)
        pairs = pair_positions(len(known), where[rows[i]], where[rows[j]])
        distance[row, pairs] = np.linalg.norm(points[rows[i]] - points[rows[j]], axis=1)
    given = ~np.isnan(distance)
    if not np.nansum(distance) > 0:
        raise DataError(f"{person!r} put all stimuli on one spot in every trial, so no distances are known")
    _check_linked(distance, names, person)
    values = np.where(given, distance, 0.0)
    weights = values**2
    total = weights.sum(axis=0)
    size = np.sqrt(weights.sum(axis=1))
    unit = np.divide(values, size[:, None], out=np.zeros_like(values), where=size[:, None] > 0)
    estimate = _average(unit, weights, total)
    for _ in range(_MOST):
        scale = np.sqrt((given * estimate**2).sum(axis=1))
        after = _average(unit * scale[:, None], weights, total)
        change = float(((after - estimate) ** 2).mean())
        estimate = after
        if change < _SMALL:
            break
    else:
        raise DataError(
            f"the trials of {person!r} contradict each other so much that scaling them to one another does not settle; "
            "average the trials of the full set alone"
        )
    count = given.sum(axis=0)
    return np.where(count > 0, estimate, np.nan), count, total


def _average(values: np.ndarray, weights: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Weighted mean over trials, scaled to root mean square 1; pairs without evidence are 0."""
    mean = np.divide((values * weights).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(mean / np.sqrt((mean**2).sum() / max(1, int((total > 0).sum()))))


def _check_linked(distance: np.ndarray, names: np.ndarray, person: str) -> None:
    """Refuse trials whose scale nothing ties to that of the others."""
    from scipy.sparse.csgraph import connected_components

    given = (~np.isnan(distance) & (distance > 0)).astype(np.float64)
    usable = np.flatnonzero(given.any(axis=1))
    parts, part = connected_components(given[usable] @ given[usable].T > 0, directed=False)
    if parts > 1:
        apart = names[usable[part != np.bincount(part).argmax()]]
        raise DataError(
            f"trial {str(apart[0])!r} of {person!r} shares no pair of stimuli with the other trials, so that its scale "
            "cannot be told; leave it out, or make an RDM of it by itself"
        )
