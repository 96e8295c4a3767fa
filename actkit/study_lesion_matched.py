"""The step of a study that closes the loop: units matched with neurons are lesioned, and what a task loses measured."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from actkit import plugins
from actkit.errors import InputError, nearest
from actkit.results import atomic_write, fingerprint, save, to_table
from actkit.study_neuron_spec import NeuronStep, settled_recordings
from actkit.study_opening import call_progress
from actkit.study_recordings import recorded_labels, selected_recording
from actkit.study_spec import AnalysisStep, NetworkSpec, StimuliSpec, said_where
from actkit.study_words import slug

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from actkit.stimuli import Stimuli
    from actkit.study_plan import Builder, Plan, Step
    from actkit.study_steps import Doing
    from actkit.study_workshop import Workshop
    from actkit.tasks import Task

_DROPPED = ("stimulus", "random", "feature", "slot")
_FINDINGS = {
    "finding": "Finding",
    "held": "Held",
    "measured": "Measured",
    "expected": "Expected",
    "rule": "Judged by",
    "recording": "Recording",
    "network": "Network",
}
_FINDINGS_TEXT = """\
Units were matched with neurons on one half of the stimuli and taken away. Each row says whether that did more harm \
than taking away random units of the same layers that resemble the matched ones in mean activation, variance and map \
position. No layer is chosen by its score: effects are standardised by the layer's random sets and averaged over \
layers. Yes: at most one in twenty random sets does as much harm, also once what the sets' remaining differences \
explain is taken out; no: the matched units do no more harm than the random ones on average; undecided otherwise. The \
verdict is about these units of this network, these images and these neurons."""


class TaskSpec(StimuliSpec):
    """The task of a lesion: labelled images of their own."""

    label: str = Field(description="label that holds the right answer")
    name: str | None = Field(None, min_length=1, description="what the task is called, by default its data set")


class LesionMatchedStep(NeuronStep):
    """What a study's ``lesion_matched`` step takes beside the options of the analysis."""

    task: TaskSpec = Field(description="images that the network names: a data set or path, and the label")
    labels: str | None = Field(None, description="stimulus label: halves and folds hold its values alike")


def task_images(shop: Workshop, spec: TaskSpec, where: str) -> Stimuli:
    """Open the images of a task.

    Parameters
    ----------
    shop : Workshop
        What the study opened.
    spec : TaskSpec
        The item ``task``.
    where : str
        Place in the study file, for messages.

    Returns
    -------
    Stimuli
        Those that the item selects.

    Raises
    ------
    InputError
        If neither or both of a data set and a path are named, or there is no such label.
    """
    with said_where(f"{where}, task"):
        if (spec.dataset is None) == (spec.path is None):
            raise InputError("give one of `dataset: NAME` and `path: FOLDER`")
        images = shop._one_set(spec)
        if spec.label not in images.labels:
            raise InputError(f"{images.name!r} has no label {spec.label!r}; {nearest(spec.label, images.labels)}")
    return images


def made_task(shop: Workshop, spec: TaskSpec, network: NetworkSpec, where: str) -> Task:
    """Make the task of a network.

    Parameters
    ----------
    shop : Workshop
        What the study opened.
    spec : TaskSpec
        The item ``task``.
    network : NetworkSpec
        The network.
    where : str
        Place in the study file, for messages.

    Returns
    -------
    Task
        Labels that are whole numbers are output columns, and so are the classes that the network names as learnt by a
        task of this name; other labels, sorted, if the whole data set has as many as the network has outputs.

    Raises
    ------
    InputError
        If it is not known which output stands for which label.
    """
    import torch

    from actkit.layers import evaluating
    from actkit.tasks import make_task

    images = task_images(shop, spec, where)
    opened, name = shop.network(network), spec.name or str(spec.dataset or Path(str(spec.path)).stem)
    classes: list[Any] | None = None
    if np.asarray(images.labels[spec.label]).dtype.kind not in "iu" and not opened.provenance.get("classes"):
        whole = shop._one_set(spec.model_copy(update={"select": {}, "ids": [], "each": None}))
        classes = sorted(set(np.asarray(whole.labels[spec.label]).astype(str).tolist()))
        with evaluating(opened.module), torch.inference_mode():
            probe = opened.to_input(opened.prepare(images.raw(0))[None])
            outputs = int(opened.module(probe).shape[-1])
        if len(classes) != outputs:
            raise InputError(
                f"{where}, task, label: {spec.label!r} of {whole.name!r} has {len(classes)} values and "
                f"{network.name!r} {outputs} outputs, so it is not known which output stands for which value; name a "
                "label that holds the number of the output, from 0"
            )
    with said_where(f"{where}, task"):
        return make_task(opened, name, images, spec.label, classes)


def plan_lesion_matched(builder: Builder, analysis: AnalysisStep) -> None:
    """Plan the lesions of every network and recording of an item, each with its figure.

    Parameters
    ----------
    builder : Builder
        Takes the steps.
    analysis : AnalysisStep
        The item.

    Raises
    ------
    InputError
        If it does not fit the recordings, or the task has no such images or label.
    """
    shop, own, options = builder.workshop, analysis.own, analysis.options["lesion_matched"]
    images = task_images(shop, own.task, analysis.where)
    answers = np.asarray(images.labels[own.task.label])
    for name in settled_recordings(own, shop.study, analysis.where):
        responses = selected_recording(shop, name, own.select, analysis.where)
        label: dict[str, Any] = {}
        if own.labels is not None:
            label["labels"] = recorded_labels(shop, own.labels, responses, f"{analysis.where}, labels")
        for spec in builder.chosen(analysis):
            settings = options.model_dump()
            for key in ("layers", "readout"):
                if settings[key] is not None:
                    named = [settings[key]] if isinstance(settings[key], str) else settings[key]
                    shop.layers(spec, named, f"{analysis.where}, {key}")
            words = f"{spec.name} {name} {own.selection}".strip()
            object_ = builder.free("lesion_matched", f"{words} {settings['extent']}s")
            stem = f"lesion_matched_{slug(object_)}"
            step = builder.add(
                "lesion_matched",
                object_,
                ("stimuli", f"network {spec.name}", f"record {spec.name}"),
                (f"results/{stem}.nc", f"tables/{stem}.csv", f"tables/findings_{stem}.csv"),
                detail={
                    "network": spec, "recording": name, "select": own.select, "options": options, "task": own.task,
                    "label": own.labels, "where": f"{analysis.where}, {object_}",
                },
                options=builder.deciding(options),
                data=fingerprint(responses),
                task=[images.fingerprint, fingerprint(answers), own.task.name],
                **label,
            )  # fmt: skip
            detail = {"draw": "lesion_matched", "result": step.id, "where": analysis.where}
            builder.figures(step.id, (step.id,), stem, detail)


def do_lesion_matched(doing: Doing, step: Step) -> None:
    """Match, lesion, and set what was expected beside what was found.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``lesion_matched``.
    """
    shop, detail = doing.shop, step.detail
    module = plugins.load("actkit.analyses", "lesion_matched")
    run = module.lesion_matched
    spec = detail["network"]
    responses = selected_recording(shop, detail["recording"], detail["select"], detail["where"])
    labels = None
    if detail["label"] is not None:
        labels = recorded_labels(shop, detail["label"], responses, detail["where"])
    result = run(
        shop.network(spec),
        shop.store(spec.name),
        responses,
        made_task(shop, detail["task"], spec, detail["where"]),
        shop.stimuli,
        labels=labels,
        **call_progress(run, shop.progress),
        options=detail["options"],
    ).assign_attrs(network=spec.name, recording=detail["recording"])
    save(result, doing.out / step.outputs[0])
    short = result.drop_dims([dim for dim in _DROPPED if dim in result.dims])
    short = short.drop_vars([name for name in short.data_vars if "outcome" not in short[name].dims])
    atomic_write(doing.out / step.outputs[1], to_table(short).to_csv(index=False))
    table = importlib.import_module(f"{module.__package__}.matched_lesions_findings").findings(result)
    atomic_write(doing.out / step.outputs[2], table.to_csv(index=False))


def add_matched_findings(report: Any, out: Path, plan: Plan) -> None:
    """Add the tables of what lesions of matched units were expected to do and did.

    Parameters
    ----------
    report : Report
        Takes the section.
    out : Path
        Folder of the study.
    plan : Plan
        Its steps.
    """
    import pandas as pd

    tables = []
    for step in plan.steps:
        if step.kind != "lesion_matched":
            continue
        table = pd.read_csv(out / step.outputs[2], keep_default_na=False)
        counts = ", ".join(f"{word}: {n}" for word, n in table["held"].value_counts(sort=False).items())
        name = f"verdicts_{Path(step.outputs[2]).stem.removeprefix('findings_')}"
        title = step.id.removeprefix("lesion_matched ")
        tables.append((table[list(_FINDINGS)].rename(columns=_FINDINGS), name, f"{title}. {counts}."))
    if tables:
        report.add_section("Does the task need the matched units?", _FINDINGS_TEXT, tables=tables)


def matched_text(step: Step, doing: Doing) -> str:
    """Write what a reader should know before the figure of a lesion of matched units.

    Parameters
    ----------
    step : Step
        A step of kind ``figures``.
    doing : Doing
        The plan and what it opened.

    Returns
    -------
    str
        A paragraph.
    """
    from actkit.plotting import short

    result = doing.result(step.detail["result"])
    intact = result["intact"].mean("split")
    layers = [str(name) for name in result["layer"].values]
    low, high = int(result["n_units"].min()), int(result["n_units"].max())
    r = result["match_r"].mean("split").values
    said = ", ".join(f"{name} {short(float(value))}" for name, value in zip(layers, r, strict=True))
    return (
        f"{low if low == high else f'{low} to {high}'} {result.attrs['extent']}s a layer, matched with up to "
        f"{result.attrs['n_neurons']} neurons (median held-out correlation within the matching half: {said}). Intact, "
        f"the network names {float(intact.sel(outcome='accuracy')[0]):.1%} of {result.attrs['n_images']} images "
        f"({result.attrs['task']}; loss {short(float(intact.sel(outcome='loss')[0]))} nats)."
    )


def imbalance_table(result: xr.Dataset, step: Step) -> tuple[pd.DataFrame, str, str]:
    """Lay out how far matched and random units differ.

    Parameters
    ----------
    result : xarray.Dataset
        What ``lesion_matched`` returned.
    step : Step
        The step of kind ``figures`` that draws it.

    Returns
    -------
    tuple of DataFrame, str and str
        A row a layer, with the name and caption of the table.
    """
    import pandas as pd

    off = result["imbalance"].mean("split")
    table = pd.DataFrame(off.values, columns=off["feature"].values.astype(str)).dropna(axis=1, how="all")
    table.insert(0, "layer", off["layer"].values.astype(str))
    table["overlap"] = result["overlap"].mean("split").values
    words = (
        "Matched units less random ones in mean activation, variance and map position, in standard deviations over the "
        "layer, and the share of matched units in a random set; mean over splits."
    )
    return table.round(3), f"{slug(step.id.removeprefix('figures '))}_balance", words


def matched_numbers(result: xr.Dataset) -> list[dict[str, str]]:
    """Find the numbers of a lesion of matched units that a reader asks for first.

    Parameters
    ----------
    result : xarray.Dataset
        What ``lesion_matched`` returned.

    Returns
    -------
    list of dict
        Rows with ``data``, ``what``, ``value``, ``note``: for task loss and read-out, whether the excess is above 0.
    """
    package = plugins.load("actkit.analyses", "lesion_matched").__package__
    table = importlib.import_module(f"{package}.matched_lesions_findings").findings(
        result.sel(outcome=["loss", "rsa_readout"])
    )
    words = ("task loss above that of units like them", "geometry further from the neurons' than theirs")
    return [
        {
            "data": f"without {result.attrs['extent']}s that match {result.attrs['recording']}",
            "what": f"{result.attrs['network']}, {what}",
            "value": str(held),
            "note": str(measured).partition(";")[0],
        }
        for what, held, measured in zip(words, table["held"], table["measured"], strict=True)
    ]
