"""Ablation of parts in a live network: which task survives when one part alone is left, without any retraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field

from actkit.analyses.specialization_index import beats_chance, correct_for_chance, raw_difference, specialization_of
from actkit.errors import InputError
from actkit.lesion import lesion_effect
from actkit.network import Network
from actkit.options import Options, with_options
from actkit.results import describe
from actkit.tasks import Task
from actkit.units import UnitSet

__all__ = ["PartLesionOptions", "lesion_parts"]


class PartLesionOptions(Options):
    """Options of :func:`lesion_parts`."""

    mode: Literal["zero", "mean"] = Field("zero", description="What takes the place of a lesioned unit's value.")
    columns: Literal["all", "own"] = Field(
        "own", description="Outputs that compete for an answer: all, or the task's own classes."
    )
    level: float = Field(
        0.99, gt=0.5, lt=1, description="S is defined where some part beats this quantile of guessing (binomial)."
    )
    batch: int = Field(64, ge=1, description="Images that are run together.")


@with_options(PartLesionOptions)
def lesion_parts(
    network: torch.nn.Module | Network,
    tasks: Sequence[Task],
    parts: Mapping[str, UnitSet],
    reference: Any = None,
    *,
    options: PartLesionOptions,
) -> xr.Dataset:
    """Measure every task with one part left, and with one part removed.

    The parts may be modules, or units that were ranked for each task on other images than those of `tasks`, with the
    shared ones as a part of their own. Units that are in no part are never lesioned.

    Parameters
    ----------
    network : torch.nn.Module or Network
        The network; it is left as it was.
    tasks : sequence of Task
        Two or more, on images that chose no part.
    parts : mapping of part to UnitSet
        Two or more; no unit may be in two of them.
    reference : ActivationStore or mapping of str to array, optional
        For the mode ``mean``.

    Returns
    -------
    xarray.Dataset
        Dims part and task. ``accuracy``: with all other parts lesioned; ``accuracy_without``: with the part lesioned;
        ``accuracy_all`` (task), intact; ``chance`` (task); ``known``: `accuracy` corrected for chance; ``S``: the
        specialization of that matrix, NaN where no part alone beats chance in any task; ``raw_difference``.

    Raises
    ------
    InputError
        If there are fewer than two parts or tasks, or a unit is in two parts.

    References
    ----------
    Béna & Goodman (2025), Nature Communications 16:187, for two modules; the lesions are those of `actkit.lesioned`.
    """
    names = list(parts)
    if len(names) < 2 or len(tasks) < 2:
        raise InputError(
            f"{len(names)} parts and {len(tasks)} tasks are nothing to specialise between; give two of each at least"
        )
    for a, first in enumerate(names):
        for second in names[:a]:
            if common := len(parts[first] & parts[second]):
                raise InputError(
                    f"{common} units are in both {second!r} and {first!r}, so neither can be left alone; make them a "
                    "part of their own (a & b, a - b, b - a)"
                )

    def measured(units: Sequence[UnitSet]) -> xr.Dataset:
        effect = lesion_effect(network, units, tasks, reference, mode=options.mode, batch=options.batch)
        return effect.sel(columns=options.columns)

    alone = [measured([parts[other] for other in names if other != name]) for name in names]
    without = [measured([parts[name]]) for name in names]
    titles = [str(name) for name in alone[0]["task"].values]
    accuracy = np.stack([one["lesioned_accuracy"].values for one in alone])
    n = np.array([len(task.targets) for task in tasks])
    count = np.array([len(task.classes) if task.classes is not None else 0 for task in tasks])
    chance = alone[0]["chance"].values.astype(float)
    if options.columns == "all" and (count > 0).any():
        chance = chance * count / max(int(count.sum()), 1)  # all tasks' columns compete
    sharp = np.stack([beats_chance(accuracy[:, k], chance[k], int(n[k]), options.level) for k in range(len(tasks))])
    known = correct_for_chance(accuracy, chance)
    result = xr.Dataset(
        {
            "accuracy": (("part", "task"), accuracy, _about("share right, this part alone left")),
            "accuracy_without": (
                ("part", "task"),
                np.stack([one["lesioned_accuracy"].values for one in without]),
                _about("share right, this part lesioned"),
            ),
            "accuracy_all": ("task", alone[0]["intact_accuracy"].values, _about("share right, intact")),
            "chance": ("task", chance, _about("share right by guessing")),
            "known": (("part", "task"), known, _about("what a part knows, chance being 0")),
            "S": ((), float(specialization_of(known, np.asarray(sharp.any()))), _about("specialization")),
            "raw_difference": ((), float(raw_difference(accuracy)), _about("difference between parts, not divided")),
        },
        coords={"part": names, "task": titles},
    )
    return describe(
        result,
        "part_lesions",
        options,
        {f"part {name}": units.fingerprint for name, units in parts.items()},
        network=network.name if isinstance(network, Network) else type(network).__name__,
        units=", ".join(f"{name}: {len(units)}" for name, units in parts.items()),
    )


def _about(long_name: str) -> dict[str, str]:
    """Attributes of a variable without a physical unit."""
    return {"long_name": long_name, "units": "1"}
