"""Specialization: whether the parts of a network each know a sub-task of their own.

Source: Béna & Goodman, Dynamics of specialization in neural modules under resource constraints, Nature Communications
16:187 (2025); arXiv 2106.02626. The measures apply to any recorded states, partition and sub-tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field

from actkit.analyses.specialization_index import beats_chance, correct_for_chance, raw_difference, specialization_of
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
from actkit.analyses.specialization_similarity import similarity_of_parts
from actkit.errors import InputError
from actkit.options import with_options
from actkit.resampling import Stream, generator
from actkit.results import describe, fingerprint

__all__ = ["SpecializationOptions", "specialization"]

Measure = Literal["retraining", "ablation", "correlation"]


class SpecializationOptions(ReadOutOptions):
    """Options of :func:`specialization`."""

    measures: list[Measure] = Field(
        ["retraining", "ablation", "correlation"],
        min_length=1,
        description="retraining: a fresh read-out of each part; ablation: a read-out of all parts, with the others "
        "removed afterwards; correlation: how alike a part's states are when an answer is the same.",
    )
    held_out: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="Share of the stimuli that read-outs are tested on, where test= does not say which.",
    )


@with_options(SpecializationOptions)
def specialization(
    states: Any,
    labels: Mapping[str, Any],
    parts: Mapping[str, Sequence[int] | np.ndarray],
    test: Sequence[bool] | np.ndarray | None = None,
    decorrelated: tuple[Any, Mapping[str, Any]] | None = None,
    progress: bool | None = None,
    *,
    options: SpecializationOptions,
) -> xr.Dataset:
    """Measure what each part of a network knows of each sub-task, and how differently parts divide it.

    Parameters
    ----------
    states : xarray.DataArray or numpy.ndarray
        Recorded units: (stimulus, unit), (stimulus, time, unit), or with a first dim of networks
        (network, stimulus, time, unit). All networks have the same units; read-outs of all are trained together.
    labels : mapping of sub-task to labels
        Right answers: (stimulus,) or (network, stimulus). Two sub-tasks or more. None, NaN or an empty word: the
        sub-task is not asked of this stimulus (a face has no answer to which object it is).
    parts : mapping of part to units
        Indices of units, or a mask over them. Parts need not cover all units, and may overlap (a shared part).
    test : sequence of bool, optional
        Stimuli that read-outs are tested on, the others train them. By default a random share, whole ``held_out``.
    decorrelated : tuple of states and labels, optional
        Recorded while the sub-tasks' answers were independent of each other, for the correlation measure: the digits
        of other modules shuffled, say. By default the test stimuli as they are, which the result says.
    progress : bool, optional
        Show a bar over networks; by default only on a terminal.

    Returns
    -------
    xarray.Dataset
        Dims network, measure, part, task and time. ``known`` (network, measure, part, task, time): what a part knows,
        chance being 0: accuracies corrected for chance, ``(a − c)/(1 − c)`` clipped to 0 to 1; for correlation
        ``(R − B)/(1 − B)``, not clipped. ``S`` (network, measure, time): specialization; of read-outs NaN where no part
        beats chance in any sub-task (exact binomial bound). ``raw_difference`` (network, measure, time):
        the parts' difference in plain accuracy (or R), without any division. ``accuracy`` (network, measure, part,
        task, time) for retraining and ablation, and R for correlation; ``accuracy_all`` (network, task, time) of the
        read-out of all parts; ``baseline`` (network, part, task, time) B, of any two stimuli that the sub-task is
        asked of. ``chance`` (task): 1/K, or the share of the most frequent answer where that is higher; ``n_test``
        (network, task) test stimuli with an answer. Coordinates of the states along the networks stay.

    Raises
    ------
    InputError
        If shapes do not fit, there are fewer than two parts or sub-tasks, a sub-task has one class, a part has no
        unit, states are not finite, or no stimulus (with an answer) is left to train or to test on.

    Warns
    -----
    UserWarning
        If two sub-tasks have the same answers throughout: S is then 0 by construction for read-outs.

    References
    ----------
    Béna & Goodman (2025), Nature Communications 16:187.
    """
    recorded = read_states(states, labels)
    names = list(labels)
    chosen = parts_of(parts, recorded.states.shape[3])
    held_out = _test(test, recorded.states.shape[1], options)
    classes, numbers = classes_of(recorded.labels, names)
    counts = [len(one) for one in classes]
    check_asked(numbers, names, ~held_out, held_out)
    warn_same(numbers, names)
    measures = list(dict.fromkeys(options.measures))
    networks, _, steps, _ = recorded.states.shape
    shape = (networks, len(measures), len(chosen), len(names), steps)
    seen, known = np.full(shape, np.nan), np.full(shape, np.nan)
    everything = np.full((networks, len(names), steps), np.nan)
    baseline = np.full((networks, len(chosen), len(names), steps), np.nan)
    chance = chance_of(numbers[:, held_out], counts)
    n_test = (numbers[:, held_out] != NOT_ASKED).sum(axis=1)
    sharp = np.ones((networks, len(measures), steps), dtype=bool)
    if {"retraining", "ablation"} & set(measures):
        test_rows = torch.from_numpy(np.flatnonzero(held_out))
        for rows, heads in read_outs(recorded.states, numbers, counts, chosen, ~held_out, options, progress):
            shown = torch.from_numpy(recorded.states[rows])[:, test_rows]
            truth = torch.from_numpy(numbers[rows])[:, test_rows]
            retrained = heads.accuracy(shown, truth)
            everything[rows] = retrained[:, -1]
            for name in ("retraining", "ablation"):
                if name not in measures:
                    continue
                values = retrained[:, :-1]
                if name == "ablation":
                    ablated = [heads.accuracy(shown * view, truth)[:, -1] for view in heads.views[:-1]]
                    values = np.stack(ablated, axis=1)
                k = measures.index(name)
                seen[rows, k] = values
                known[rows, k] = correct_for_chance(values, chance[None, None, :, None])
                n = n_test[rows][:, None, :, None]
                better = beats_chance(values, chance[None, None, :, None], n, options.level)
                sharp[rows, k] = better.any(axis=(1, 2))
    if "correlation" in measures:
        k = measures.index("correlation")
        if decorrelated is None:
            free, answers = recorded.states[:, held_out], numbers[:, held_out]
        else:
            apart = read_states(*decorrelated)
            if apart.states.shape[0] != networks or apart.states.shape[2:] != recorded.states.shape[2:]:
                raise InputError(
                    f"decorrelated states have shape {apart.states.shape}, and the others {recorded.states.shape}; "
                    "give the same networks, times and units"
                )
            free, answers = apart.states, classes_of(apart.labels, list(decorrelated[1]))[1]
        for r in range(networks):
            same, base = similarity_of_parts(free[r], answers[r], list(chosen.values()))
            seen[r, k], baseline[r] = same, base
            known[r, k] = (same - base) / (1 - base)
    s = specialization_of(np.moveaxis(known, -1, 2), None)
    result = xr.Dataset(
        {
            "S": (("network", "measure", "time"), np.where(sharp, s, np.nan), _about("specialization")),
            "raw_difference": (
                ("network", "measure", "time"),
                raw_difference(np.moveaxis(seen, -1, 2)),
                _about("difference between parts, not divided"),
            ),
            "known": (_DIMS, known, _about("what a part knows, chance being 0")),
            "accuracy": (_DIMS, seen, _about("share right (correlation: mean correlation of equal answers)")),
            "accuracy_all": (("network", "task", "time"), everything, _about("share right, all parts read")),
            "baseline": (
                ("network", "part", "task", "time"),
                baseline,
                _about("mean correlation of any two states that are asked about"),
            ),
            "chance": ("task", chance, _about("share right by guessing")),
            "n_test": (("network", "task"), n_test, _about("test stimuli with an answer")),
        },
        coords={
            **recorded.along,
            "network": recorded.networks,
            "measure": measures,
            "part": list(chosen),
            "task": names,
            "time": np.arange(steps) if recorded.times is None else recorded.times,
        },
    )
    return describe(
        result,
        "specialization",
        options,
        {"states": fingerprint(recorded.states), "labels": fingerprint(recorded.labels)},
        n_train=int((~held_out).sum()),
        n_test=int(held_out.sum()),
        units=", ".join(f"{name}: {len(units)}" for name, units in chosen.items()),
        pairing="independent answers" if decorrelated is not None else "answers as recorded",
        seed=options.seed,
    )


_DIMS = ("network", "measure", "part", "task", "time")


def _test(test: Any, n: int, options: SpecializationOptions) -> np.ndarray:
    """Which stimuli test the read-outs."""
    if test is None:
        held_out = np.zeros(n, dtype=bool)
        order = generator(options.seed, 0, Stream.PERMUTATIONS).permutation(n)
        held_out[order[: round(n * options.held_out)]] = True
    else:
        held_out = np.asarray(test)
        if held_out.shape != (n,) or held_out.dtype != bool:
            raise InputError(f"test has shape {held_out.shape} of {held_out.dtype}; give one true or false a stimulus")
    if not held_out.any() or held_out.all():
        raise InputError(f"{int(held_out.sum())} of {n} stimuli are for the test, so nothing can be learnt and tested")
    return held_out


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}
