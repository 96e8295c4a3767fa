"""Specialization over a sweep of networks: means over seeds with intervals, its fall with p, differences of sizes.

Source of the grid and of S: Béna & Goodman (2025), Nature Communications 16:187, whose figures show one network a cell.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field
from scipy.stats import rankdata

from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.results import describe, fingerprint
from actkit.statistics import t_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "SweepSummaryOptions",
    "connections_asked",
    "find_cell",
    "over_seeds",
    "rank_correlation",
    "summarise_sweep",
    "table",
]

_NEEDED = ("units", "p", "Q", "cov_ratio", "seed", "trained", "task_accuracy")
_WORDS = {
    "S": "specialization at the last step",
    "raw_difference": "parts' difference in plain accuracy (or R) at the last step",
    "own": "what parts get right of their own sub-task (correlation: R)",
    "other": "what parts get right of the others (correlation: R)",
    "S_time": "specialization",
    "joint_accuracy": "share right, all parts read, mean over sub-tasks",
    "task_accuracy": "share right in the networks' own task",
    "spearman": "Spearman correlation of p and S within a seed",
    "size_difference": "S of the smaller size minus that of the larger, same seed",
}


class SweepSummaryOptions(Options):
    """Options of :func:`summarise_sweep`."""

    level: float = Field(0.95, gt=0.5, lt=1, description="Coverage of the t intervals over seeds.")


@with_options(SweepSummaryOptions)
def summarise_sweep(result: xr.Dataset, *, options: SweepSummaryOptions) -> xr.Dataset:
    """Summarise the specialization of a sweep over its seeds.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`actkit.analyses.specialization.specialization` returned for all networks, sizes put together along
        ``network``, with the coordinates units, p, Q, cov_ratio, seed, trained and task_accuracy along it; and, if the
        sweep has them, asked_p (the p that was asked for; -k: exactly k connections) and connections.

    Returns
    -------
    xarray.Dataset
        Dim ``cell``: networks that differ in their seed alone, with coords units, p, Q, cov_ratio, trained and
        connections (between two modules, one way). For each quantity its mean over seeds, ``…_low`` and ``…_high``
        (t interval over seeds) and ``…_seeds`` (…, seed), NaN where a seed has no value: ``S``, ``raw_difference``,
        ``own`` and ``other`` (cell, measure), at the last step, own being the k-th sub-task of the k-th part;
        ``S_time`` (cell, measure, time); ``task_accuracy`` and ``joint_accuracy`` (cell). ``n_defined`` (cell,
        measure): seeds for which S is defined; the mean is over these.

        ``spearman`` (units, measure): rank correlation of p and S within each seed over the trained networks of the
        plain covariance with p above 0 (three values of p at least). ``size_difference`` (level, pair, measure): S of
        the smaller minus that of the larger size at equal p, paired by seed; ``level`` is what was asked for, -1 one
        connection, otherwise p.

        Attributes: ``plain_cov_ratio``, the covariance that most networks have; ``chance``, of the sub-tasks.

    Raises
    ------
    InputError
        If it is no such result, a coordinate is missing, or two networks are of one cell and seed.

    Notes
    -----
    Every interval is ``mean ± t · s/√n`` over seeds, which are independent networks. Seeds share the images, so it says
    nothing of other images. It may reach beyond 0 or 1, and where all seeds agree it is a point. In simulations with
    ten seeds, the 95 % interval covers the mean of symmetric distributions in 95 % of the cases, of skewed ones (Beta
    with a mean of .1 or .9) in 92 to 93 %, and of S that piles up at 0 or 1 (means of .02 or .98) in 86 to 91 %. With
    fewer seeds it was not simulated.
    """
    if result.attrs.get("analysis") != "specialization" or "S" not in result or "network" not in result["S"].dims:
        raise InputError("this is no specialization of networks; give what specialization() returned")
    missing = [name for name in _NEEDED if name not in result.coords]
    if missing:
        raise InputError(
            f"the result does not say {missing} of its networks; add them as coordinates along network, from the "
            "table of the sweep"
        )
    result = result.transpose("network", "measure", "part", "task", "time", ...)
    column = {name: np.asarray(result[name].values) for name in _NEEDED}
    links = (
        np.asarray(result["connections"].values, dtype=np.int64)
        if "connections" in result.coords
        else np.rint(column["p"] * column["units"] ** 2).astype(np.int64)
    )
    trained = column["trained"].astype(bool)
    keys = list(zip(~trained, -column["cov_ratio"], column["units"], links, strict=True))
    cells = sorted(set(keys))
    seeds = np.unique(column["seed"])
    rows = np.full((len(cells), len(seeds)), -1)
    for number, (key, seed) in enumerate(zip(keys, column["seed"], strict=True)):
        place = cells.index(key), int(np.searchsorted(seeds, seed))
        if rows[place] >= 0:
            names = result["network"].values[[rows[place], number]]
            raise InputError(
                f"{str(names[0])!r} and {str(names[1])!r} are of one cell and seed; give each network once"
            )
        rows[place] = number
    first = rows.max(axis=1)
    measures = [str(name) for name in result["measure"].values]
    data: dict[str, Any] = {}

    def put(name: str, dims: tuple[str, ...], values: np.ndarray) -> None:
        """Summarise values (…, seed)."""
        mean, low, high, _ = over_seeds(values, options.level)
        for end, what, some in (
            ("", "mean over seeds", mean), ("_low", "lower limit", low), ("_high", "upper limit", high),
        ):  # fmt: skip
            data[name + end] = (dims, some, {"long_name": f"{_WORDS[name]}, {what}", "units": "1"})
        data[f"{name}_seeds"] = ((*dims, "seed"), values, {"long_name": f"{_WORDS[name]}, by seed", "units": "1"})

    def by_cell(values: np.ndarray) -> np.ndarray:
        """``(network, …)`` to ``(cell, …, seed)``; NaN where there is no network."""
        found = np.where((rows >= 0).reshape(*rows.shape, *[1] * (values.ndim - 1)), values[rows], np.nan)
        return np.moveaxis(found, 1, -1)

    s = by_cell(result["S"].values)
    put("S_time", ("cell", "measure", "time"), s)
    put("S", ("cell", "measure"), s[:, :, -1])
    put("raw_difference", ("cell", "measure"), by_cell(result["raw_difference"].values[:, :, -1]))
    own, other = _own_and_other(result["accuracy"].values[..., -1])
    put("own", ("cell", "measure"), by_cell(own))
    put("other", ("cell", "measure"), by_cell(other))
    put(
        "joint_accuracy",
        ("cell",),
        by_cell(result["accuracy_all"].transpose("network", "task", "time").values[..., -1].mean(axis=1)),
    )
    put("task_accuracy", ("cell",), by_cell(column["task_accuracy"].astype(np.float64)))
    data["n_defined"] = (
        ("cell", "measure"), np.isfinite(s[:, :, -1]).sum(axis=-1),
        {"long_name": "seeds for which S is defined", "units": "1"},
    )  # fmt: skip
    values, counts = np.unique(column["cov_ratio"], return_counts=True)
    plain = float(values[np.flatnonzero(counts == counts.max())[-1]])
    sizes = np.unique(column["units"])
    shape = len(sizes), len(measures), len(seeds)
    spearman = np.full(shape, np.nan)
    of_cell = {name: column[name][first] for name in ("units", "p", "Q", "cov_ratio")}
    usable = trained[first] & (of_cell["cov_ratio"] == plain) & (links[first] > 0)
    for i, units in enumerate(sizes):
        here = np.flatnonzero(usable & (of_cell["units"] == units))
        spearman[i] = rank_correlation(of_cell["p"][here], s[here, :, -1])
    put("spearman", ("units", "measure"), spearman)
    asked = np.unique(np.asarray(result["asked_p"].values if "asked_p" in result.coords else column["p"], dtype=float))
    levels = np.array([one for one in asked if one != 0])
    coords = {
        **{name: ("cell", some) for name, some in of_cell.items() if name != "units"},
        "cell_units": ("cell", of_cell["units"]),
        "connections": ("cell", links[first]),
        "trained": ("cell", trained[first]),
        "seed": seeds,
        "measure": measures,
        "time": result["time"].values,
        "units": sizes,
        "level": levels,
    }
    summary = xr.Dataset(data, coords=coords)
    pairs = list(combinations(sizes.tolist(), 2))
    if pairs:
        gap = np.full((len(levels), len(pairs), len(measures), len(seeds)), np.nan)
        for i, level in enumerate(levels):
            for j, pair in enumerate(pairs):
                a, b = (find_cell(summary, units, float(level), plain) for units in pair)
                if a is not None and b is not None:
                    gap[i, j] = s[a, :, -1] - s[b, :, -1]
        put("size_difference", ("level", "pair", "measure"), gap)
        made = {name: data[name] for name in data if name.startswith("size_difference")}
        summary = summary.assign(made).assign_coords(pair=[f"{a} - {b}" for a, b in pairs])
    chance = float(np.mean(result["chance"].values))
    return describe(
        summary,
        "specialization_sweep",
        options,
        {"result": fingerprint(result["S"].values)},
        interval="t interval over seeds",
        level=options.level,
        plain_cov_ratio=plain,
        chance=chance,
        pairing=str(result.attrs.get("pairing", "")),
        n_test=int(result.attrs.get("n_test", 0)),
    )


def over_seeds(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take the mean over seeds with its t interval.

    Parameters
    ----------
    values : numpy.ndarray
        ``(…, seed)``; NaN where a seed has no value, which leaves it out.
    level : float
        Coverage.

    Returns
    -------
    tuple of numpy.ndarray
        ``(…)`` mean, lower and upper limit (NaN for fewer than two seeds), and number of seeds with a value.
    """
    values = np.asarray(values, dtype=np.float64)
    there = np.isfinite(values)
    n = there.sum(axis=-1)
    safe = np.where(n > 0, n, np.nan)
    mean = np.where(there, values, 0.0).sum(axis=-1) / safe
    off = np.where(there, values - mean[..., None], 0.0)
    error = np.sqrt((off**2).sum(axis=-1) / np.where(n > 1, n - 1, np.nan) / safe)
    low, high = t_interval(mean, error, n - 1, level)
    return mean, low, high, n


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman correlation along the first axis, of what is defined.

    Parameters
    ----------
    x : numpy.ndarray
        ``(n,)``.
    y : numpy.ndarray
        ``(n, …)``; NaN is left out.

    Returns
    -------
    numpy.ndarray
        ``(…)``; NaN with fewer than three values, or where one of the two does not vary.
    """
    flat = y.reshape(len(y), -1)
    out = np.full(flat.shape[1], np.nan)
    for k in range(flat.shape[1]):
        there = np.isfinite(flat[:, k])
        if there.sum() < 3:
            continue
        a, b = rankdata(x[there]), rankdata(flat[there, k])
        a, b = a - a.mean(), b - b.mean()
        length = math.sqrt(float((a**2).sum() * (b**2).sum()))
        out[k] = float(a @ b) / length if length > 0 else np.nan
    return out.reshape(y.shape[1:])


def connections_asked(p: float, units: int) -> int:
    """Number of connections that a p stands for in a size: ``floor(p n²)``, or k where p is -k.

    Parameters
    ----------
    p : float
        As asked for.
    units : int
        Units of a module.

    Returns
    -------
    int
        One way, between two modules.
    """
    return round(-p) if p < 0 else math.floor(p * units**2 + 1e-9)


def find_cell(
    summary: xr.Dataset, units: int, p: float, cov_ratio: float | None = None, trained: bool = True
) -> int | None:
    """Find the networks of a size, a p and a covariance.

    Parameters
    ----------
    summary : xarray.Dataset
        What :func:`summarise_sweep` returned.
    units : int
        Size.
    p : float
        As asked for; -k: exactly k connections. Of 10 units, 0.01 is one connection.
    cov_ratio : float, optional
        By default the plain one.
    trained : bool
        Whether they are trained.

    Returns
    -------
    int or None
        Number of the cell; None if there is none.
    """
    covariance = float(summary.attrs["plain_cov_ratio"]) if cov_ratio is None else cov_ratio
    links = connections_asked(p, int(units))
    if p > 0 and links < 1:
        return None
    here = (
        (summary["cell_units"].values == units)
        & (summary["connections"].values == links)
        & (summary["cov_ratio"].values == covariance)
        & (summary["trained"].values == trained)
    )
    return int(np.flatnonzero(here)[0]) if here.any() else None


def table(summary: xr.Dataset) -> pd.DataFrame:
    """Lay a summary out with one row for each cell and measure.

    Parameters
    ----------
    summary : xarray.Dataset
        What :func:`summarise_sweep` returned.

    Returns
    -------
    pandas.DataFrame
        ``units``, ``connections``, ``p``, ``Q``, ``cov_ratio``, ``trained``, ``measure``, then ``S``,
        ``raw_difference``, ``own``, ``other``, ``joint_accuracy`` and ``task_accuracy``, each with its limits,
        ``n_defined`` and ``seeds``.
    """
    import pandas as pd

    names = ("S", "raw_difference", "own", "other", "joint_accuracy", "task_accuracy")
    there = np.isfinite(summary["task_accuracy_seeds"].transpose("cell", "seed").values).sum(axis=1)
    rows = []
    for cell in range(summary.sizes["cell"]):
        one = summary.isel(cell=cell)
        about = {"units": int(one["cell_units"])}
        about |= {name: one[name].item() for name in ("connections", "p", "Q", "cov_ratio", "trained")}
        for measure in summary["measure"].values.astype(str).tolist():
            here = one.sel(measure=measure)
            values = {f"{name}{end}": float(here[f"{name}{end}"]) for name in names for end in ("", "_low", "_high")}
            rows.append(
                {**about, "measure": measure, **values, "n_defined": int(here["n_defined"]), "seeds": int(there[cell])}
            )
    return pd.DataFrame(rows)


def _own_and_other(accuracy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(network, measure, part, task)`` to the mean over the k-th sub-tasks of the k-th parts, and over the rest."""
    size = min(accuracy.shape[2:])
    square = accuracy[:, :, :size, :size]
    own = np.eye(size, dtype=bool)
    return square[:, :, own].mean(axis=-1), square[:, :, ~own].mean(axis=-1)


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw a summary; see :func:`actkit.analyses.specialization_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`summarise_sweep` returned.
    **settings
        Handed on.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    from actkit.analyses import specialization_plot

    return specialization_plot.plot(result, **settings)


def caption(result: xr.Dataset, **settings: Any) -> str:
    """Write the caption; see :func:`actkit.analyses.specialization_plot.caption`."""
    from actkit.analyses import specialization_plot

    return specialization_plot.caption(result, **settings)


def alt_text(result: xr.Dataset, **settings: Any) -> str:
    """Describe the figure; see :func:`actkit.analyses.specialization_plot.alt_text`."""
    from actkit.analyses import specialization_plot

    return specialization_plot.alt_text(result, **settings)
