"""What the steps of a study of lesions do: segregation, its summary over seeds, and what top units prefer."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plugins
from actkit.errors import InputError, nearest
from actkit.results import atomic_write, save
from actkit.study_opening import call_progress
from actkit.units import UnitSet

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from actkit.study_plan import Step
    from actkit.study_steps import Doing
    from actkit.tasks import Task

ACCURACY_COLUMNS = ("group", "network", "task", "n_classes", "n_held_out", "held_out_accuracy", "chance")


def do_segregation(doing: Doing, step: Step) -> None:
    """Lesion the layers of one network, with the image sets of its own tasks.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``segregation``.
    """
    segregation = plugins.load("actkit.analyses", "segregation").segregation
    spec = step.detail["network"]
    network, sets = doing.shop.network(spec), doing.shop.image_sets(spec)
    # Two data sets may give two pictures the same id; of one data set, the same id is the same picture.
    apart = len({one.model_dump_json() for one in doing.shop.training_specs(spec).values()}) == len(sets)
    tasks = {
        which: [_named_apart(one.task(network, name, which), apart) for name, one in sets.items()]
        for which in ("selectivity", "ranking", "evaluation")
    }
    result = segregation(
        network,
        tasks["ranking"],
        tasks["evaluation"],
        list(step.detail["layers"]),
        selectivity=tasks["selectivity"],
        **call_progress(segregation, doing.shop.progress),
        options=step.detail["options"],
    )
    result = result.assign_attrs(network=spec.name)
    save(result, doing.out / step.outputs[0])
    atomic_write(doing.out / step.outputs[1], segregation_table(result).to_csv(index=False))


def _named_apart(task: Task, apart: bool) -> Task:
    """Put the name of the task in front of its images' ids."""
    if not apart or task.ids is None:
        return task
    return replace(task, ids=np.array([f"{task.name}/{one}" for one in task.ids.tolist()]))


def segregation_table(result: xr.Dataset) -> pd.DataFrame:
    """Lay the numbers of a segregation out that are one for each layer and masking.

    Parameters
    ----------
    result : xarray.Dataset
        What ``segregation`` returned.

    Returns
    -------
    pandas.DataFrame
        A row for each layer and masking: the index with its interval and null, and the four drops at its fraction,
        ``drop_A_ranking_B`` being what task A loses with the units that task B needs.
    """
    keep = ("layer", "masking")
    names = [name for name in result.data_vars if "layer" in result[name].dims and set(result[name].dims) <= set(keep)]
    short = result[names].reset_coords(drop=True)
    if "fraction" in result.dims and "drop" in result:
        at = int(np.argmin(np.abs(result["fraction"].values - float(result.attrs["fraction"]))))
        for ranking in result["ranking"].values.tolist():
            for task in result["task"].values.tolist():
                drop = result["drop"].isel(fraction=at).sel(ranking=ranking, task=task)
                short[f"drop_{task}_ranking_{ranking}"] = drop.reset_coords(drop=True)
    return short.to_dataframe().reset_index()


def do_accuracies(doing: Doing, step: Step) -> None:
    """Gather what the networks of a study learnt.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        The step of kind ``accuracies``.
    """
    import pandas as pd

    names = [id_.split(" ", 1)[1] for id_ in step.inputs]
    groups = {name: group for group, members in doing.plan.study.groups.items() for name in members}
    rows = [
        {"group": groups[name], "network": name, "task": task, **{key: about.get(key) for key in ACCURACY_COLUMNS[3:]}}
        for name in names
        for task, about in learnt(doing, name).items()
    ]
    atomic_write(doing.out / step.outputs[0], pd.DataFrame(rows, columns=list(ACCURACY_COLUMNS)).to_csv(index=False))


def learnt(doing: Doing, network: str) -> dict[str, dict[str, Any]]:
    """Read what a network says of the tasks it learnt.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    network : str
        Name of a network that was opened.

    Returns
    -------
    dict
        Task to its facts (accuracies, chance, numbers of classes and images); empty if there are none.
    """
    facts = json.loads((doing.out / doing.plan[f"network {network}"].outputs[0]).read_text(encoding="utf-8"))
    tasks = facts["provenance"].get("tasks")
    return tasks if isinstance(tasks, dict) else {}


def accuracies(doing: Doing, groups: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, float]]]:
    """Gather held-out accuracies by group of networks.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    groups : mapping of str to sequence of str
        Networks by group.

    Returns
    -------
    dict of str to list of dict
        For each network of a group, task to accuracy (0 to 1).
    """
    return {
        group: [
            {
                task: float(about["held_out_accuracy"])
                for task, about in learnt(doing, name).items()
                if about.get("held_out_accuracy") is not None
            }
            for name in names
        ]
        for group, names in groups.items()
    }


def decodings(doing: Doing, step: Step) -> dict[str, dict[str, list[float]]]:
    """Gather the decoding of held-out classes by group of networks, at one layer.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``segregation_seeds``.

    Returns
    -------
    dict
        Group to task to the accuracy of each network.

    Raises
    ------
    InputError
        If a decoding has no such layer.
    """
    layer = step.detail["decoding_layer"]
    found: dict[str, dict[str, list[float]]] = {}
    for group, tasks in step.detail["decoding"].items():
        for task, steps in tasks.items():
            values = found.setdefault(group, {}).setdefault(task, [])
            for name in steps:
                result = doing.result(name)
                known = [str(one) for one in result["layer"].values]
                if layer is not None and layer not in known:
                    raise InputError(f"decoding_layer: {name} has no layer {layer!r}; {nearest(layer, known)}")
                values.append(float(result["accuracy"].values[known.index(layer) if layer is not None else -1]))
    return found


def do_seeds(doing: Doing, step: Step) -> None:
    """Summarise the segregation over seeds, and set what was expected beside what was found.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``segregation_seeds``.
    """
    from actkit.results import to_table

    module = plugins.load("actkit.analyses", "segregation_seeds")
    groups = {group: [doing.result(name) for name in names] for group, names in step.detail["groups"].items()}
    result = module.segregation_seeds(groups, **step.detail["settings"])
    findings = importlib.import_module(f"{module.__package__}.segregation_findings").findings(
        result, accuracies(doing, step.detail["networks"]), decodings(doing, step)
    )
    save(result, doing.out / step.outputs[0])
    short = result.drop_dims([dim for dim in result.dims if dim not in ("group", "layer", "masking")])
    atomic_write(doing.out / step.outputs[1], to_table(short).to_csv(index=False))
    atomic_write(doing.out / step.outputs[2], findings.to_csv(index=False))


def do_feature_visualization(doing: Doing, step: Step) -> None:
    """Make images that drive the units which one task of a network needs most.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``feature_visualization``.
    """
    visualize = plugins.load("actkit.analyses", "feature_visualization").visualize
    units_of = plugins.load("actkit.analyses", "segregation").units_of_segregation
    detail = step.detail
    spec, task = detail["network"], detail["task"]
    chosen: UnitSet | None = None
    segregation = doing.result(detail["segregation"])
    for layer in detail["layers"]:
        n_units = int(segregation["n_units"].sel(layer=layer))
        units = units_of(segregation, layer, task, min(1.0, detail["top"] / n_units))
        chosen = units if chosen is None else chosen | units
    assert chosen is not None
    result = visualize(
        doing.shop.network(spec), chosen, **call_progress(visualize, doing.shop.progress), options=detail["options"]
    )
    question = f"the {detail['top']} units of each layer needed most for {task}"
    save(result.assign_attrs(network=spec.name, task=task, question=question), doing.out / step.outputs[0])
