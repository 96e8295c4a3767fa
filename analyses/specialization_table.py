"""Modules and groups of filters in one table: parts from rankings, stimuli of several tasks together, S side by side.

Sources: parts as modules, Béna & Goodman (2025), Nature Communications 16:187; parts as the filters that each of two
tasks needs, Dobs, Martinez, Kell & Kanwisher (2022), Science Advances 8, eabl8913.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from actkit.errors import InputError
from actkit.units import UnitSet

__all__ = ["COLUMNS", "SHARED", "parts_of_sets", "pool_tasks", "recorded_units", "specialization_table"]

SHARED = "shared"
COLUMNS = (
    "network", "parts", "measure", "S", "low", "high", "raw_difference", "own", "other", "all_parts", "chance",
    "networks",
)  # fmt: skip


def parts_of_sets(sets: Mapping[str, UnitSet]) -> dict[str, UnitSet]:
    """Turn sets of units that overlap into parts that do not: those of each set alone, and those of two or more.

    Parameters
    ----------
    sets : mapping of task to UnitSet
        The units that each task needs most, say, ranked on images that measure nothing afterwards.

    Returns
    -------
    dict of str to UnitSet
        The sets' names, then ``"shared"``; parts without any unit are left out.

    Raises
    ------
    InputError
        If there are fewer than two sets, one is called ``"shared"``, or fewer than two parts remain.
    """
    if len(sets) < 2 or SHARED in sets:
        raise InputError(f"sets are {list(sets)}; give two or more, none called {SHARED!r}")
    names, parts = list(sets), {}
    common: UnitSet | None = None
    for number, name in enumerate(names):
        alone = sets[name]
        for place, other in enumerate(names):
            if place == number:
                continue
            alone = alone - sets[other]
            if place > number and len(both := sets[name] & sets[other]):
                common = both if common is None else common | both
        if len(alone):
            parts[name] = alone
    if common is not None:
        parts[SHARED] = common
    if len(parts) < 2:
        raise InputError(
            f"all units are in {next(iter(parts), 'no part')!r}, so there is nothing to compare; take fewer"
        )
    return parts


def recorded_units(parts: Mapping[str, UnitSet], layer: str, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Say where the units of parts stand in recorded values of a layer, laid out flat.

    Parameters
    ----------
    parts : mapping of part to UnitSet
        Units of the layer; a channel stands for all its positions.
    layer : str
        The layer.
    shape : sequence of int
        Shape of its values for one stimulus: (channel,) or (channel, y, x).

    Returns
    -------
    dict of str to numpy.ndarray of int
        For each part the places along the flat axis.

    Raises
    ------
    InputError
        If a part has units of other layers, or the shape is not that of the layer.
    """
    found = {}
    for name, units in parts.items():
        if set(units.layers) != {layer}:
            raise InputError(f"part {name!r} is of the layers {list(units.layers)}, and {layer!r} was recorded")
        mask = units.mask(layer)
        if mask.shape != tuple(shape)[: mask.ndim]:
            raise InputError(
                f"units of {layer!r} are marked over {mask.shape}, and its values have shape {tuple(shape)}"
            )
        mask = mask.reshape(*mask.shape, *[1] * (len(shape) - mask.ndim))
        found[name] = np.flatnonzero(np.broadcast_to(mask, tuple(shape)))
    return found


def pool_tasks(
    states: Mapping[str, np.ndarray], labels: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Put the stimuli of several tasks together, each asked of its own task alone.

    Parameters
    ----------
    states : mapping of task to numpy.ndarray
        ``(stimulus, …)`` recorded values, laid out flat.
    labels : mapping of task to labels
        ``(stimulus,)`` right answers.

    Returns
    -------
    states : numpy.ndarray
        ``(stimulus, unit)``, task after task.
    labels : dict of str to numpy.ndarray of object
        For each task ``(stimulus,)``, None for the stimuli of other tasks, as ``specialization()`` takes them.
    task : numpy.ndarray of str
        ``(stimulus,)`` whose stimuli they are.

    Raises
    ------
    InputError
        If tasks or numbers of stimuli or units differ.
    """
    if set(states) != set(labels):
        raise InputError(f"states are of {sorted(states)}, and labels of {sorted(labels)}; give both for every task")
    flat = {name: np.asarray(values).reshape(len(values), -1) for name, values in states.items()}
    for name, values in flat.items():
        if len(values) != len(labels[name]) or values.shape[1] != next(iter(flat.values())).shape[1]:
            raise InputError(
                f"states of {name!r} have shape {values.shape}, with {len(labels[name])} labels; give a label a "
                "stimulus and the same units"
            )
    owner = np.repeat(list(flat), [len(values) for values in flat.values()])
    columns = {}
    for name in flat:
        column = np.full(len(owner), None, dtype=object)
        column[owner == name] = list(np.asarray(labels[name]))
        columns[name] = column
    return np.concatenate(list(flat.values())), columns, owner


def specialization_table(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Set S of different networks and partitions side by side, by measure.

    Parameters
    ----------
    results : mapping of str to xarray.Dataset
        What to call each, and what ``specialization()``, ``summarise_sweep()`` or ``lesion_parts()`` returned.

    Returns
    -------
    pandas.DataFrame
        One row for each network (or cell of a sweep) and measure: ``network``, ``parts``, ``measure`` (of
        ``lesion_parts``: lesion), ``S`` at the last step, ``low`` and ``high`` (interval over seeds, where there are
        several), ``raw_difference``, ``own`` and ``other`` (what parts get right of the sub-task that has their name,
        or of the one in their place, and of the others, for correlation R; shared parts left out), ``all_parts`` (all
        parts read; intact for lesions), ``chance``, ``networks``.

    Raises
    ------
    InputError
        If a result is none of these.
    """
    rows: list[dict[str, Any]] = []
    for name, result in results.items():
        analysis = result.attrs.get("analysis")
        if analysis == "specialization":
            rows += _of_networks(name, result)
        elif analysis == "specialization_sweep":
            rows += _of_cells(name, result)
        elif analysis == "part_lesions":
            own, other = _own_and_other(result["accuracy"].transpose("part", "task"))
            rows.append(
                {"network": name, "parts": _named(result), "measure": "lesion", "S": float(result["S"]),
                 "raw_difference": float(result["raw_difference"]), "own": own, "other": other,
                 "all_parts": float(result["accuracy_all"].mean()), "chance": float(result["chance"].mean()),
                 "networks": 1}
            )  # fmt: skip
        else:
            raise InputError(
                f"{name!r} is a result of {analysis or 'no analysis'}; give those of specialization(), "
                "summarise_sweep() or lesion_parts()"
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _named(result: xr.Dataset) -> str:
    """Names of the parts."""
    return ", ".join(str(name) for name in result["part"].values)


def _own_and_other(accuracy: xr.DataArray) -> tuple[float, float]:
    """Means over parts of what they get right of their own sub-task, and of the others."""
    parts, tasks = ([str(name) for name in accuracy[dim].values] for dim in ("part", "task"))
    if set(parts) & set(tasks):
        places = [(m, tasks.index(part)) for m, part in enumerate(parts) if part in tasks]
    else:
        places = [(k, k) for k in range(min(len(parts), len(tasks)))]
    values = accuracy.values
    own = [values[m, k] for m, k in places]
    other = [values[m, j] for m, k in places for j in range(len(tasks)) if j != k]
    return float(np.mean(own)), float(np.mean(other))


def _of_networks(name: str, result: xr.Dataset) -> list[dict[str, Any]]:
    """Rows of a plain result."""
    rows = []
    for number in range(result.sizes["network"]):
        one = result.isel(network=number, time=-1)
        for measure in result["measure"].values.astype(str).tolist():
            here = one.sel(measure=measure)
            own, other = _own_and_other(here["accuracy"].transpose("part", "task"))
            many = result.sizes["network"] > 1
            rows.append(
                {"network": f"{name}, {one['network'].item()!s}" if many else name, "parts": _named(result),
                 "measure": measure, "S": float(here["S"]), "raw_difference": float(here["raw_difference"]),
                 "own": own, "other": other, "all_parts": float(here["accuracy_all"].mean()),
                 "chance": float(here["chance"].mean()), "networks": 1}
            )  # fmt: skip
    return rows


def _of_cells(name: str, result: xr.Dataset) -> list[dict[str, Any]]:
    """Rows of a sweep."""
    rows = []
    for cell in range(result.sizes["cell"]):
        one = result.isel(cell=cell)
        words = f"{name}, n = {int(one['cell_units'])}, p = {float(one['p']):.2g}, c = {float(one['cov_ratio']):g}"
        words += "" if bool(one["trained"]) else ", untrained"
        for measure in result["measure"].values.astype(str).tolist():
            here = one.sel(measure=measure)
            numbers = {key: float(here[key]) for key in ("S", "raw_difference", "own", "other")}
            rows.append(
                {"network": words, "parts": "modules", "measure": measure, "low": float(here["S_low"]),
                 "high": float(here["S_high"]), "all_parts": float(one["joint_accuracy"]),
                 "chance": float(result.attrs["chance"]), "networks": int(here["n_defined"]), **numbers}
            )  # fmt: skip
    return rows
