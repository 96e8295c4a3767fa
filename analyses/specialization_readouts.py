"""What measures of specialization have in common: recorded states, parts, answers that may be missing, read-outs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from pydantic import Field

from actkit.analyses.specialization_heads import Heads, HeadSettings, fit_heads
from actkit.analyses.threads import single_torch
from actkit.compute import parse_bytes, spans
from actkit.compute import progress as progress_bar
from actkit.errors import InputError
from actkit.options import Options

__all__ = [
    "NOT_ASKED",
    "ReadOutOptions",
    "Recorded",
    "chance_of",
    "check_asked",
    "classes_of",
    "parts_of",
    "read_outs",
    "read_states",
    "warn_same",
]

NOT_ASKED = -1
"""Number of the answer of a stimulus that a sub-task is not asked of."""


class ReadOutOptions(Options):
    """How read-outs of recorded states are trained, and when they count as knowing anything."""

    hidden: int = Field(30, ge=0, description="Hidden ReLU units of a read-out; 0: a linear one.")
    epochs: int = Field(10, ge=1, description="Passes over the training stimuli for the read-outs.")
    batch: int = Field(256, ge=2, description="Stimuli in a batch.")
    learning_rate: float = Field(1e-3, gt=0, description="Learning rate of AdamW for the read-outs.")
    weight_decay: float = Field(1e-5, ge=0, description="Weight decay of AdamW.")
    level: float = Field(
        0.99, gt=0.5, lt=1, description="S is defined where some part beats this quantile of guessing (binomial)."
    )
    memory: str = Field("1GB", description="Most memory for the states of networks handled together, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of read-outs, and of the stimuli held out.")


@dataclass(frozen=True)
class Recorded:
    """States of networks and the right answers.

    Attributes
    ----------
    states : numpy.ndarray of float32
        ``(network, stimulus, step, unit)``.
    labels : numpy.ndarray of str
        ``(network, stimulus, task)``, empty where a sub-task is not asked of a stimulus.
    networks : list of str
        Names.
    times : numpy.ndarray or None
        ``(step,)`` coordinates, where given.
    along : dict
        Further coordinates along the networks.
    """

    states: np.ndarray
    labels: np.ndarray
    networks: list[str]
    times: np.ndarray | None
    along: dict[str, Any]


def read_states(states: Any, labels: Mapping[str, Any]) -> Recorded:
    """Bring states to four dims and labels to three.

    Parameters
    ----------
    states : xarray.DataArray or numpy.ndarray
        (stimulus, unit), (stimulus, time, unit), or with a first dim of networks.
    labels : mapping of sub-task to labels
        ``(stimulus,)`` or ``(network, stimulus)``; None, NaN and empty words: not asked.

    Returns
    -------
    Recorded
        Copies where needed.

    Raises
    ------
    InputError
        If dims or shapes do not fit, states are not finite, or there are fewer than two sub-tasks.
    """
    names: list[str] | None = None
    times: np.ndarray | None = None
    along: dict[str, Any] = {}
    if isinstance(states, xr.DataArray):
        order = [dim for dim in ("network", "stimulus", "time", "unit") if dim in states.dims]
        if set(order) != set(states.dims) or not {"stimulus", "unit"} <= set(order):
            raise InputError(f"states have the dims {states.dims}; give (network,) stimulus, (time,) unit")
        states = states.transpose(*order)
        names = [str(name) for name in states["network"].values] if "network" in states.coords else None
        times = states["time"].values if "time" in states.coords else None
        along = {
            str(key): ("network", value.values)
            for key, value in states.coords.items()
            if value.dims == ("network",) and key != "network"
        }
        values = states.values
        values = values if "network" in order else values[None]
        values = values if "time" in order else values[:, :, None]
    else:
        values = np.asarray(states)
        if values.ndim not in (2, 3, 4):
            raise InputError(f"states have shape {values.shape}; give (stimulus, unit), or with time, or with networks")
        values = values[None, :, None] if values.ndim == 2 else values[None] if values.ndim == 3 else values
    values = np.asarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise InputError("states hold NaN or infinite values, from which nothing can be read; record them again")
    if len(labels) < 2:
        raise InputError(f"{len(labels)} sub-task divides nothing between parts; give labels of two at least")
    columns = []
    for name, given in labels.items():
        column = np.asarray(given)
        if column.shape not in ((values.shape[1],), values.shape[:2]):
            raise InputError(
                f"labels of {name!r} have shape {column.shape}, and there are {values.shape[1]} stimuli (of "
                f"{values.shape[0]} networks); give one label a stimulus"
            )
        columns.append(np.broadcast_to(_words(column), values.shape[:2]))
    networks = names or [str(number) for number in range(len(values))]
    return Recorded(values, np.stack(columns, axis=2), networks, times, along)


def _words(column: np.ndarray) -> np.ndarray:
    """Labels as words, empty where there is none."""
    import pandas as pd

    missing = pd.isna(column)
    return np.where(missing, "", column.astype(str))


def parts_of(parts: Mapping[str, Any], units: int) -> dict[str, np.ndarray]:
    """Unit indices of each part.

    Parameters
    ----------
    parts : mapping of part to units
        Indices, or a mask over all units.
    units : int
        Number of units that were recorded.

    Returns
    -------
    dict of str to numpy.ndarray of int
        In the order given.

    Raises
    ------
    InputError
        If there are fewer than two parts, or a part has no unit or one that does not exist.
    """
    if len(parts) < 2:
        raise InputError(f"{len(parts)} part has no other to differ from; give two at least")
    chosen = {}
    for name, given in parts.items():
        index = np.asarray(given)
        if index.dtype == bool and index.shape != (units,):
            raise InputError(f"part {str(name)!r} is a mask of {index.shape}, and there are {units} units; mark each")
        index = np.flatnonzero(index) if index.dtype == bool else np.unique(index.astype(np.int64))
        if not len(index):
            raise InputError(f"part {str(name)!r} has no unit, so it can know nothing; leave it out")
        if index[0] < 0 or index[-1] >= units:
            raise InputError(
                f"part {str(name)!r} has unit {index[[0, -1]].tolist()}, and units go from 0 to {units - 1}"
            )
        chosen[str(name)] = index
    return chosen


def classes_of(
    labels: np.ndarray, names: Sequence[str], known: list[np.ndarray] | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Classes of each sub-task, and labels as numbers.

    Parameters
    ----------
    labels : numpy.ndarray of str
        ``(network, stimulus, task)``, empty where not asked.
    names : sequence of str
        Sub-tasks.
    known : list of numpy.ndarray, optional
        Classes that are there already, which numbers then refer to.

    Returns
    -------
    classes : list of numpy.ndarray of str
        Of each sub-task.
    numbers : numpy.ndarray of int
        ``(network, stimulus, task)``, `NOT_ASKED` where there is no label.

    Raises
    ------
    InputError
        If a sub-task has fewer than two classes, or a label is not among the classes known.
    """
    classes, numbers = [], np.full(labels.shape, NOT_ASKED, dtype=np.int64)
    for k, name in enumerate(names):
        column = labels[:, :, k]
        asked = column != ""
        if known is None:
            found = np.unique(column[asked])
            if len(found) < 2:
                raise InputError(
                    f"all answers of sub-task {name!r} are {str(found[0])!r}; give stimuli of at least two classes"
                    if len(found)
                    else f"no stimulus has a label of sub-task {name!r}; give some, or leave it out"
                )
        else:
            found = known[k]
            if strange := sorted(set(np.unique(column[asked])) - set(found)):
                raise InputError(
                    f"the label {str(strange[0])!r} of sub-task {name!r} is not among those that read-outs learn; give "
                    "the same classes"
                )
        classes.append(found)
        numbers[:, :, k][asked] = np.searchsorted(found, column[asked])
    return classes, numbers


def warn_same(numbers: np.ndarray, names: Sequence[str], stacklevel: int = 4) -> None:
    """Say when two sub-tasks cannot be told apart.

    Parameters
    ----------
    numbers : numpy.ndarray of int
        ``(network, stimulus, task)``.
    names : sequence of str
        Sub-tasks.
    stacklevel : int
        Whose line the warning names.

    Warns
    -----
    UserWarning
        If two have the same answers wherever both are asked.
    """
    for a in range(len(names)):
        for b in range(a):
            both = (numbers[:, :, a] != NOT_ASKED) & (numbers[:, :, b] != NOT_ASKED)
            if both.any() and (numbers[:, :, a] == numbers[:, :, b])[both].all():
                warnings.warn(
                    f"the sub-tasks {names[b]!r} and {names[a]!r} have the same answers throughout, so no part can "
                    "know one without the other: S of read-outs is 0 by construction",
                    stacklevel=stacklevel,
                )


def check_asked(numbers: np.ndarray, names: Sequence[str], train: np.ndarray, test: np.ndarray) -> None:
    """Refuse sub-tasks that cannot be learnt or not be tested.

    Parameters
    ----------
    numbers : numpy.ndarray of int
        ``(network, stimulus, task)``.
    names : sequence of str
        Sub-tasks.
    train, test : numpy.ndarray of bool
        ``(stimulus,)``; an empty test asks for nothing.

    Raises
    ------
    InputError
        If a network has no stimulus with a label among the one or the other.
    """
    asked = numbers != NOT_ASKED
    for words, rows in (("to learn from", train), ("to be tested on", test)):
        if not rows.any():
            continue
        lacking = ~asked[:, rows].any(axis=1).all(axis=0)
        if lacking.any():
            name = names[int(np.flatnonzero(lacking)[0])]
            raise InputError(f"sub-task {name!r} has no labelled stimulus {words}; give another test=")


def chance_of(answers: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Share that guessing reaches: 1/K, or always saying what is most frequent (mean over networks).

    Parameters
    ----------
    answers : numpy.ndarray of int
        ``(network, stimulus, task)``; stimuli that are not asked do not count.
    counts : sequence of int
        Classes of each sub-task.

    Returns
    -------
    numpy.ndarray
        ``(task,)``.
    """
    chance = np.array([1 / count for count in counts])
    for k, count in enumerate(counts):
        asked = [one[one != NOT_ASKED] for one in answers[:, :, k]]
        shares = [np.bincount(one, minlength=count).max() / len(one) for one in asked]
        # Counts of balanced classes scatter in a sample; only a share that is out of that scatter can be exploited.
        n, top = min(len(one) for one in asked), float(np.mean(shares))
        if top > chance[k] + 4 * np.sqrt(chance[k] * (1 - chance[k]) / n):
            chance[k] = top
    return chance


def read_outs(
    states: np.ndarray,
    numbers: np.ndarray,
    counts: list[int],
    parts: Mapping[str, np.ndarray],
    train: np.ndarray,
    options: ReadOutOptions,
    progress: bool | None,
) -> Iterator[tuple[slice, Heads]]:
    """Train read-outs of every part, and one of all parts together, for groups of networks that fit in memory.

    Parameters
    ----------
    states : numpy.ndarray of float32
        ``(network, stimulus, step, unit)``.
    numbers : numpy.ndarray of int
        ``(network, stimulus, task)``.
    counts : list of int
        Classes of each sub-task.
    parts : mapping of part to numpy.ndarray of int
        Units.
    train : numpy.ndarray of bool
        ``(stimulus,)`` which train the read-outs.
    options : ReadOutOptions
        How.
    progress : bool or None
        Show a bar over groups.

    Yields
    ------
    rows : slice
        The networks.
    heads : Heads
        Their read-outs; views are the parts in their order, then all parts together.
    """
    networks, n, steps, units = states.shape
    views = torch.zeros(len(parts) + 1, units)
    for row, index in enumerate(parts.values()):
        views[row, index] = 1
    views[-1] = views[:-1].amax(dim=0)  # the joint read-out sees what any part sees
    settings = HeadSettings(
        options.hidden, options.epochs, options.batch, options.learning_rate, options.weight_decay, options.seed
    )
    # States, and for a batch the hidden units of every head with their gradients.
    cost = 4 * (n * steps * units + 4 * options.batch * steps * (len(parts) + 1) * len(counts) * (options.hidden + 10))
    rows = torch.from_numpy(np.flatnonzero(train))

    def fit(start: int, stop: int) -> Heads:
        x, y = torch.from_numpy(states[start:stop]), torch.from_numpy(numbers[start:stop])
        return fit_heads(x[:, rows], y[:, rows], counts, views, settings)

    # Networks share nothing, so they are trained side by side, each on one thread.
    with single_torch() as threads, ThreadPoolExecutor(threads) as pool:
        wide = max(1, min(parse_bytes(options.memory) // (cost * threads), -(-networks // threads)))
        chunks = list(spans(networks, wide))
        fitted = [pool.submit(fit, start, stop) for start, stop in chunks]
        bar = progress_bar(list(zip(chunks, fitted, strict=True)), desc="read-outs", unit="group", enabled=progress)
        for (start, stop), heads in bar:
            yield slice(start, stop), heads.result()
