"""Dynamics of specialization: what each module knows step by step when the sub-tasks' images appear at random times.

Source: Béna & Goodman, Dynamics of specialization in neural modules under resource constraints, Nature Communications
16:187 (2025). Read-outs learn from states with simultaneous onsets and are applied unchanged to states with random
ones; accuracies enter the index as they are, without correction for chance. The index is own minus other over their
sum, as in the first version of the paper (arXiv 2106.02626v1), so that one sign means the same in every module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from actkit.analyses.specialization_index import beats_chance, correct_for_chance, part_index
from actkit.analyses.specialization_readouts import (
    NOT_ASKED,
    ReadOutOptions,
    chance_of,
    check_asked,
    classes_of,
    parts_of,
    read_outs,
    read_states,
    warn_same,
)
from actkit.errors import InputError
from actkit.options import with_options
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DynamicsOptions", "specialization_dynamics"]

_TWO = 2


class DynamicsOptions(ReadOutOptions):
    """Options of :func:`specialization_dynamics`."""


@with_options(DynamicsOptions)
def specialization_dynamics(
    states: Any,
    labels: Mapping[str, Any],
    moving_states: Any,
    moving_labels: Mapping[str, Any],
    onsets: Any,
    parts: Mapping[str, Sequence[int] | np.ndarray],
    test: Sequence[bool] | np.ndarray | None = None,
    progress: bool | None = None,
    *,
    options: DynamicsOptions,
) -> xr.Dataset:
    """Follow what two parts know of two sub-tasks whose images appear at different times.

    The first sub-task is the first part's own, the second the second's: the digit that a module sees itself, say.

    Parameters
    ----------
    states : xarray.DataArray or numpy.ndarray
        Recorded while both images are there from the first step: (stimulus, time, unit), or with a first dim of
        networks. Read-outs learn from these, all steps together.
    labels : mapping of sub-task to labels
        Their answers: (stimulus,) or (network, stimulus). Two sub-tasks.
    moving_states, moving_labels
        Likewise, recorded with random onsets, of the same networks, steps and units, and other stimuli: a read-out
        that has learnt from an image is not tested on it.
    onsets : array of int
        (stimulus, task) or (network, stimulus, task): the step, counted from 0, at which the image of each sub-task
        appears.
    parts : mapping of part to units
        Two parts: indices of units, or a mask over them.
    test : sequence of bool, optional
        Stimuli of `states` that read-outs do not learn from; by default all learn.
    progress : bool, optional
        Show a bar over networks; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        By onset pair (dims network, part, task, onset_own, onset_other and time, the first onset being that of the
        part's own sub-task): ``accuracy``, shares of right answers as they are, ``known``, corrected for chance
        (clipped to 0 to 1), ``n_pair`` (network, part, onset_own, onset_other) stimuli, and ``accuracy_all`` (network,
        part, task, …) of the read-out of both parts. Along ``task``: own and other.

        Aligned to the part's own onset (dims network, part, lag and since, lag being own minus other onset, positive
        where the own image is late, and since steps since the own onset): ``own`` and ``other``, plain accuracies;
        ``index``, (own − other)/(own + other); ``own_known``, ``other_known`` and ``index_known``, the same after
        correction for chance, NaN where neither accuracy beats chance (exact binomial bound); ``n`` stimuli behind each
        number (0 where no onset pair reaches that step; accuracies are NaN there). ``joint`` (network, part, lag): the
        index of the read-out of both parts at the last step, ``joint_own`` and ``joint_other`` its accuracies,
        ``n_lag`` its stimuli. ``chance`` (sub_task). Coordinates of the states along the networks stay.

    Raises
    ------
    InputError
        If there are not two parts and two sub-tasks, shapes do not fit, an onset is outside the steps, or see
        :func:`actkit.analyses.specialization.specialization`.

    Notes
    -----
    Without chance correction the index of full specialization is (a − c)/(a + c): .8 for an accuracy of .9 and ten
    classes. A part that knows nothing has two accuracies near chance, hence an index near 0.

    References
    ----------
    Béna & Goodman (2025), Nature Communications 16:187.
    """
    learnt, moving = read_states(states, labels), read_states(moving_states, moving_labels)
    names, steps = list(labels), learnt.states.shape[2]
    chosen = parts_of(parts, learnt.states.shape[3])
    if len(names) != _TWO or len(chosen) != _TWO:
        raise InputError(
            f"{len(chosen)} parts and {len(names)} sub-tasks have no own and other one; give two of each, in one order"
        )
    if list(moving_labels) != names:
        raise InputError(f"moving_labels are of {list(moving_labels)}, and labels of {names}; give the same sub-tasks")
    if moving.states.shape[0] != learnt.states.shape[0] or moving.states.shape[2:] != learnt.states.shape[2:]:
        raise InputError(
            f"moving_states have shape {moving.states.shape}, and states {learnt.states.shape}; give the same "
            "networks, times and units"
        )
    begins = _onsets(onsets, moving.states.shape[:2], steps)
    train = _train(test, learnt.states.shape[1])
    classes, numbers = classes_of(learnt.labels, names)
    answers = classes_of(moving.labels, names, classes)[1]
    check_asked(numbers, names, train, np.zeros(0, dtype=bool))
    check_asked(answers, names, np.zeros(0, dtype=bool), np.ones(answers.shape[1], dtype=bool))
    if (answers == NOT_ASKED).any():
        raise InputError(
            "some stimuli with random onsets lack an answer; leave them out, so that both accuracies agree"
        )
    warn_same(numbers, names)
    counts = [len(one) for one in classes]
    chance = chance_of(answers, counts)
    levels = np.unique(begins)
    table = _Table(len(learnt.networks), levels, steps)
    for rows, heads in read_outs(learnt.states, numbers, counts, chosen, train, options, progress):
        shown, truth = torch.from_numpy(moving.states[rows]), torch.from_numpy(answers[rows])
        start = 0
        for right in heads.right(shown, truth):
            stop = start + right.shape[3]
            table.add(rows, right.numpy(), begins[rows, start:stop])
            start = stop
    result = table.dataset(chance, options.level)
    result = result.assign_coords(
        network=learnt.networks,
        part=list(chosen),
        time=np.arange(steps) if moving.times is None else moving.times,
        **(moving.along or learnt.along),
    )
    result["chance"] = ("sub_task", chance, _about("share right by guessing"))
    return describe(
        result.assign_coords(sub_task=names),
        "specialization_dynamics",
        options,
        {"states": fingerprint(learnt.states), "moving_states": fingerprint(moving.states)},
        n_train=int(train.sum()),
        n_test=int(moving.states.shape[1]),
        own=", ".join(f"{part}: {task}" for part, task in zip(chosen, names, strict=True)),
        seed=options.seed,
    )


def _onsets(onsets: Any, shape: tuple[int, ...], steps: int) -> np.ndarray:
    """``(network, stimulus, task)`` step at which each image appears."""
    begins = np.asarray(onsets)
    if begins.shape not in ((shape[1], _TWO), (*shape, _TWO)) or begins.dtype.kind not in "iu":
        raise InputError(
            f"onsets have shape {begins.shape} of {begins.dtype}; give whole steps, (stimulus, task) or (network, "
            f"stimulus, task), of {shape[1]} stimuli and 2 sub-tasks"
        )
    if begins.min() < 0 or begins.max() >= steps:
        raise InputError(
            f"onsets go from {begins.min()} to {begins.max()}, and steps from 0 to {steps - 1}; count steps from 0"
        )
    return np.broadcast_to(begins, (*shape, _TWO)).astype(np.int64)


def _train(test: Any, n: int) -> np.ndarray:
    """Which stimuli train the read-outs."""
    if test is None:
        return np.ones(n, dtype=bool)
    left_out = np.asarray(test)
    if left_out.shape != (n,) or left_out.dtype != bool:
        raise InputError(f"test has shape {left_out.shape} of {left_out.dtype}; give one true or false a stimulus")
    if left_out.all():
        raise InputError(f"all {n} stimuli are left out, so no read-out can learn; leave some in")
    return ~left_out


class _Table:
    """Counts of right answers by onset pair, part, sub-task and step."""

    def __init__(self, networks: int, levels: np.ndarray, steps: int) -> None:
        self.levels, self.steps = levels, steps
        # (network, onset of the first image, of the second, …): views are the parts, then both together.
        self.n = np.zeros((networks, len(levels), len(levels)), dtype=np.int64)
        self.right = np.zeros((networks, len(levels), len(levels), _TWO + 1, _TWO, steps))

    def add(self, rows: slice, right: np.ndarray, begins: np.ndarray) -> None:
        """Count answers (network, view, task, stimulus, step) of stimuli with onsets (network, stimulus, task)."""
        for i, j in product(range(len(self.levels)), repeat=2):
            here = (begins[:, :, 0] == self.levels[i]) & (begins[:, :, 1] == self.levels[j])
            self.n[rows, i, j] += here.sum(axis=1)
            self.right[rows, i, j] += np.einsum("rvqnt,rn->rvqt", right.astype(np.float64), here.astype(np.float64))

    def dataset(self, chance: np.ndarray, level: float) -> xr.Dataset:
        """Lay the counts out by onset pair, and aligned to each part's own onset."""
        networks, size = self.n.shape[:2]
        lags = np.unique(np.subtract.outer(self.levels, self.levels))
        since = np.arange(-self.levels.max(), self.steps - self.levels.min())
        shape = (networks, _TWO, _TWO, size, size, self.steps)
        right, right_all = np.zeros(shape), np.zeros(shape)
        n_pair = np.zeros((networks, _TWO, size, size), dtype=np.int64)
        aligned = np.zeros((networks, _TWO, _TWO, len(lags), len(since)))
        n = np.zeros((networks, _TWO, len(lags), len(since)), dtype=np.int64)
        joint = np.zeros((networks, _TWO, _TWO, len(lags)))
        n_lag = np.zeros((networks, _TWO, len(lags)), dtype=np.int64)
        for part in range(_TWO):
            # Own onset first, own sub-task first.
            counts = self.right if part == 0 else self.right.swapaxes(1, 2)[:, :, :, :, ::-1]
            n_pair[:, part] = self.n if part == 0 else self.n.swapaxes(1, 2)
            right[:, part] = np.moveaxis(counts[:, :, :, part], 3, 1)
            right_all[:, part] = np.moveaxis(counts[:, :, :, _TWO], 3, 1)
            for i, j in product(range(size), repeat=2):
                lag = int(np.searchsorted(lags, self.levels[i] - self.levels[j]))
                first = int(np.searchsorted(since, -self.levels[i]))
                span = slice(first, first + self.steps)
                aligned[:, part, :, lag, span] += right[:, part, :, i, j]
                n[:, part, lag, span] += n_pair[:, part, i, j][:, None]
                joint[:, part, :, lag] += right_all[:, part, :, i, j, -1]
                n_lag[:, part, lag] += n_pair[:, part, i, j]
        pairs = n_pair[:, :, None, :, :, None]
        of_part = np.stack([chance, chance[::-1]])  # (part, own and other)
        accuracy, everything = _share(right, pairs), _share(right_all, pairs)
        moved, last = _share(aligned, n[:, :, None]), _share(joint, n_lag[:, :, None])
        guess = of_part[None, :, :, None, None]
        # Asked only where there is a count; elsewhere the accuracy is NaN and so is all that follows.
        sharp = beats_chance(np.nan_to_num(moved), guess, np.maximum(n, 1)[:, :, None], level).any(axis=2)
        known = correct_for_chance(moved, guess)
        aligned_dims, pair_dims = ("network", "part", "lag", "since"), ("onset_own", "onset_other")
        every = ("network", "part", "task", *pair_dims, "time")
        joined = ("network", "part", "lag")
        return xr.Dataset(
            {
                "index": (aligned_dims, _index(moved), _about("own minus other accuracy, over their sum")),
                "own": (aligned_dims, moved[:, :, 0], _about("share right of the own sub-task")),
                "other": (aligned_dims, moved[:, :, 1], _about("share right of the other sub-task")),
                "index_known": (
                    aligned_dims,
                    np.where(sharp, _index(known), np.nan),
                    _about("own minus other over their sum, corrected for chance"),
                ),
                "own_known": (aligned_dims, known[:, :, 0], _about("own sub-task, chance being 0")),
                "other_known": (aligned_dims, known[:, :, 1], _about("other sub-task, chance being 0")),
                "n": (aligned_dims, n, _about("stimuli")),
                "joint": (joined, _index(last), _about("index of the read-out of both parts at the last step")),
                "joint_own": (joined, last[:, :, 0], _about("share right of the own sub-task, both parts read")),
                "joint_other": (joined, last[:, :, 1], _about("share right of the other sub-task, both parts read")),
                "n_lag": (joined, n_lag, _about("stimuli")),
                "accuracy": (every, accuracy, _about("share right by onset pair")),
                "known": (
                    every,
                    correct_for_chance(accuracy, guess[..., None]),
                    _about("what a part knows, chance being 0"),
                ),
                "accuracy_all": (every, everything, _about("share right by onset pair, both parts read")),
                "n_pair": (("network", "part", *pair_dims), n_pair, _about("stimuli")),
            },
            coords={
                "task": ["own", "other"],
                "onset_own": self.levels,
                "onset_other": self.levels,
                "lag": ("lag", lags, {"long_name": "own minus other onset", "units": "step"}),
                "since": ("since", since, {"long_name": "steps since the own onset", "units": "step"}),
            },
        )


def _share(right: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Right answers over answers; NaN without any."""
    total = np.broadcast_to(n, right.shape).astype(np.float64)
    return np.divide(right, total, out=np.full(right.shape, np.nan), where=total > 0)


def _index(own_and_other: np.ndarray) -> np.ndarray:
    """``(network, part, 2, …)`` to ``(network, part, …)``: own minus other over their sum."""
    return part_index(np.moveaxis(own_and_other, 2, -1))


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}


def plot(result: xr.Dataset, **settings: Any) -> Figure:
    """Draw time courses; see :func:`actkit.analyses.specialization_plot.plot`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`specialization_dynamics` returned.
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
