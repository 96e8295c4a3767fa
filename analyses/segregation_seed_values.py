"""What each trained network contributes to a summary over seeds, and how the values are summarised and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from actkit.statistics import satterthwaite_dof, t_interval

LEVEL = 0.95
ALPHA = 0.05
PLACES = ["first", "second"]
Data = dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]
_LAYER = ("layer",)
_INDEX = ("layer", "masking")
_RANKING = ("layer", "masking", "ranking")
_WORDS = {
    "index": "segregation index",
    "index_plain": "segregation index of plain drops",
    "index_half": "segregation index where each ranking costs its own task half",
    "excess": "segregation index minus the mean of its class-shuffled null",
    "own_drop": "drop of the task whose top units are silenced",
    "other_drop": "drop of the other task",
    "random_own": "drop of the task under lesions of as many random units",
    "matched_own": "drop of the task under lesions of as many random units like its own",
    "selective_own": "drop of the task whose most selective units are silenced",
    "selective_other": "drop of the other task under lesions by selectivity",
    "performance": "accuracy as a share of the intact network's",
    "intact": "share of images that the intact network names correctly",
    "shared": "share of top units that both tasks have in common",
    "shared_between": "share in common between the tasks, each on half of its images",
    "shared_ceiling": "share in common between halves for tasks with the same units",
    "shared_normalised": "shared units from chance (0) to the ceiling (1)",
    "rank_selectivity": "Spearman correlation of causal rank (1 the most needed) and selectivity",
}


def tasks(one: xr.Dataset) -> list[str]:
    """Name the two tasks of a result.

    Parameters
    ----------
    one : xarray.Dataset
        A segregation result.

    Returns
    -------
    list of str
        Two names.
    """
    names = one["task"].values if "task" in one.coords else one.attrs.get("tasks", PLACES)
    return [str(name) for name in names]


def quantities(one: xr.Dataset) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Take from one network's result what is summarised over seeds.

    Parameters
    ----------
    one : xarray.Dataset
        A segregation result; what it does not have is left out.

    Returns
    -------
    dict
        Name to dims and values.
    """
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}

    def take(dims: tuple[str, ...], *names: str, **renamed: str) -> None:
        for new, old in [*((name, name) for name in names), *renamed.items()]:
            if old in one:
                found[new] = (dims, np.asarray(one[old].transpose(*dims).values, dtype=np.float64))

    take(_INDEX, "index", "index_plain", "index_half", "excess", "null_mean", "null_low", "null_high", "p_corrected")
    take(_LAYER, "shared", "shared_between", "shared_ceiling", "shared_normalised", "shared_chance")
    take(_LAYER, shared_null_low="shared_low", shared_null_high="shared_high")
    take(("layer", "ranking"), "rank_selectivity")
    take(("masking", "task"), "intact")
    four = (*_RANKING, "task")
    own = np.arange(2)
    if "drop" in one and "fraction" in one.coords and "fraction" in one.attrs:
        at = int(np.argmin(np.abs(one["fraction"].values - float(one.attrs["fraction"]))))
        drop = one["drop"].transpose(*four, "fraction").values[..., at]
        found["own_drop"] = (_RANKING, drop[..., own, own])
        found["other_drop"] = (_RANKING, drop[..., own, 1 - own])
    if "selective_drop" in one:
        drop = one["selective_drop"].transpose(*four).values
        found["selective_own"] = (_RANKING, drop[..., own, own])
        found["selective_other"] = (_RANKING, drop[..., own, 1 - own])
    for name in ("random", "matched"):
        if f"{name}_drop" in one:
            # The ranking of a random lesion is the task that it is compared on.
            drop = one[f"{name}_drop"].transpose("layer", "masking", "task", "random").values
            found[f"{name}_own"] = (_RANKING, np.asarray(drop.mean(axis=-1), dtype=np.float64))
    if "accuracy" in one and "intact" in one:
        intact = one["intact"].transpose("masking", "task").values
        accuracy = one["accuracy"].transpose(*four, "fraction").values
        found["performance"] = ((*four, "fraction"), np.asarray(accuracy / intact[None, :, None, :, None]))
    if "saturated" in one:
        lost = one["saturated"].transpose(*_RANKING).values.any(axis=-1)
        found["saturated"] = (_INDEX, np.asarray(lost, dtype=np.float64))
    return found


def summary_of(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take the mean over trained networks with its t interval.

    Parameters
    ----------
    values : numpy.ndarray
        ``(network, …)``; where one is NaN, so is the mean.
    level : float
        Coverage.

    Returns
    -------
    tuple of numpy.ndarray
        ``(…)`` mean, standard error, lower and upper limit; all but the mean are NaN for one network.
    """
    n = len(values)
    mean = values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full_like(mean, np.nan)
    return mean, error, *t_interval(mean, error, n - 1, level)


def welch(a: np.ndarray, b: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare two groups of networks: difference of means with Welch's t interval.

    Parameters
    ----------
    a, b : numpy.ndarray
        ``(network, …)``; groups may differ in size and variance.
    level : float
        Coverage.

    Returns
    -------
    tuple of numpy.ndarray
        ``(…)`` mean of a minus mean of b, lower and upper limit; limits are NaN unless both have two networks.

    References
    ----------
    Welch (1947), The generalization of 'Student's' problem when several different population variances are involved,
    Biometrika 34.
    """
    gap = a.mean(axis=0) - b.mean(axis=0)
    if min(len(a), len(b)) < 2:
        return gap, np.full_like(gap, np.nan), np.full_like(gap, np.nan)
    parts = [(some.var(axis=0, ddof=1) / len(some), len(some) - 1.0) for some in (a, b)]
    total = parts[0][0] + parts[1][0]
    # Without any spread the degrees of freedom are 0 / 0, and the interval is a point whatever they are.
    dof = np.where(total > 0, satterthwaite_dof(total, list(parts), 1.0), len(a) + len(b) - 2.0)
    low, high = t_interval(gap, np.sqrt(total), dof, level)
    return gap, low, high


_MEANS_ONLY = ("null_mean", "null_low", "null_high", "shared_chance", "shared_null_low", "shared_null_high")
_MEAN_WORDS = {
    "null_mean": "mean over networks of the mean of the null",
    "null_low": "mean over networks of the 2.5 % quantile of the null",
    "null_high": "mean over networks of the 97.5 % quantile of the null",
    "shared_chance": "share that independent choices have in common",
    "shared_null_low": "2.5 % quantile of independent choices",
    "shared_null_high": "97.5 % quantile of independent choices",
}


def put(
    data: Data,
    key: str,
    dims: tuple[str, ...],
    stacked: Mapping[str, np.ndarray],
    most: int,
    level: float,
) -> None:
    """Summarise one quantity over the networks of each group, and add it to the data.

    Parameters
    ----------
    data : dict
        Name to dims, values and attributes; added to.
    key : str
        Name of the quantity.
    dims : tuple of str
        Its dims for one network.
    stacked : mapping of str to numpy.ndarray
        For each group ``(network, …)``.
    most : int
        Networks of the largest group.
    level : float
        Coverage of the intervals.
    """
    dims = ("group", *dims)
    if key in _MEANS_ONLY:
        mean = np.stack([some.mean(axis=0) for some in stacked.values()])
        data[key] = (dims, mean, {"long_name": _MEAN_WORDS[key], "units": "1"})
        return
    if key == "saturated":
        count = np.stack([some.sum(axis=0) for some in stacked.values()])
        data["n_saturated"] = (dims, count, {"long_name": "networks with a saturated ranking", "units": "1"})
        return
    if key == "p_corrected":
        count = np.stack([(some < ALPHA).sum(axis=0) for some in stacked.values()])
        data["n_significant"] = (dims, count, {"long_name": "networks with p_corrected < .05", "units": "1"})
        words = "p of each network, one-sided against shuffled classes, family-wise over layers"
    else:
        ends = {"": "mean over networks", "_error": "standard error", "_low": "lower limit", "_high": "upper limit"}
        found = [summary_of(some, level) for some in stacked.values()]
        for (end, what), values in zip(ends.items(), zip(*found, strict=True), strict=True):
            data[key + end] = (dims, np.stack(values), {"long_name": f"{_WORDS[key]}, {what}", "units": "1"})
        words = f"{_WORDS[key]} of each network"
    filled = np.full((len(stacked), most, *next(iter(stacked.values())).shape[1:]), np.nan)
    for i, some in enumerate(stacked.values()):
        filled[i, : len(some)] = some
    data[f"{key}_seeds"] = (
        (*dims, "model"),
        np.moveaxis(filled, 1, -1),
        {"long_name": words, "units": "1"},
    )


def compare(
    data: Data,
    names: Sequence[str],
    counts: Sequence[int],
    control: str,
    level: float,
) -> None:
    """Add the difference of each group to the control, for the index and the excess.

    Parameters
    ----------
    data : dict
        What :func:`put` collected; added to.
    names : sequence of str
        Groups.
    counts : sequence of int
        Networks in each.
    control : str
        The group that the others are compared with.
    level : float
        Coverage of the intervals.
    """
    place = names.index(control)
    for key in ("index", "excess"):
        seeds = np.moveaxis(data[f"{key}_seeds"][1], -1, 1)
        of = [seeds[i, :count] for i, count in enumerate(counts)]
        found = [
            welch(of[i], of[place], level) if i != place else (np.full(of[i].shape[1:], np.nan),) * 3
            for i in range(len(names))
        ]
        for end, values in zip(("", "_low", "_high"), zip(*found, strict=True), strict=True):
            what = {"": "difference of means", "_low": "lower limit", "_high": "upper limit"}[end]
            words = f"{_WORDS[key]} above that of {control}, {what}"
            data[f"{key}_above_control{end}"] = (
                ("group", *_INDEX), np.stack(values), {"long_name": words, "units": "1"},
            )  # fmt: skip


def seeds_of(summary: xr.Dataset, name: str, group: str, **where: str) -> np.ndarray:
    """Take the values of one group's networks.

    Parameters
    ----------
    summary : xarray.Dataset
        What segregation_seeds() returned.
    name : str
        Quantity, such as ``"index"``.
    group : str
        Name of the group.
    **where
        Coordinates, such as ``layer="conv5"``.

    Returns
    -------
    numpy.ndarray
        ``(network, …)``; empty where the summary lacks the quantity.
    """
    if f"{name}_seeds" not in summary:
        return np.empty(0)
    some = (
        summary[f"{name}_seeds"]
        .sel({"group": group, **where})
        .isel(model=slice(int(summary["n_networks"].sel(group=group))))
    )
    return np.asarray(some.transpose("model", ...).values, dtype=np.float64)
