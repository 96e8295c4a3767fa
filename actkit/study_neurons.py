"""What the steps of a study of recorded neurons do: reliability, matches, controls, encoding, transfer, summary."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from actkit import plugins
from actkit.results import atomic_write, save, to_table
from actkit.study_file import function
from actkit.study_neuron_plan import control_function
from actkit.study_opening import call_progress
from actkit.study_recordings import recorded_labels, selected_recording

if TYPE_CHECKING:
    import xarray as xr

    from actkit.study_plan import Step
    from actkit.study_steps import Doing

# Dims of a result that its table leaves out: one row stays for each neuron and layer.
_INNER = ("fold", "permutation", "stimulus", "draw", "rotation")


def _responses(doing: Doing, step: Step) -> xr.DataArray:
    """The recording that a step is about."""
    return selected_recording(doing.shop, step.detail["recording"], step.detail["select"], step.detail["where"])


def _labels(doing: Doing, step: Step, responses: xr.DataArray) -> dict[str, str] | None:
    """The label of each recorded stimulus, where the step has one."""
    label = step.detail["label"]
    return None if label is None else recorded_labels(doing.shop, label, responses, step.detail["where"])


def _ceiling(doing: Doing, step: Step) -> xr.Dataset | None:
    """The reliabilities that a step divides by."""
    return None if step.detail["ceiling"] is None else doing.result(step.detail["ceiling"])


def _save(doing: Doing, step: Step, result: xr.Dataset) -> None:
    """Save a result as netCDF, and a table of it where the step makes one."""
    named = {key: step.detail[key] for key in ("network", "recording") if step.detail.get(key)}
    result = result.assign_attrs(named)
    save(result, doing.out / step.outputs[0])
    if len(step.outputs) > 1:
        short = result.drop_dims([dim for dim in _INNER if dim in result.dims])
        atomic_write(doing.out / step.outputs[1], to_table(short).to_csv(index=False))


def do_ceiling(doing: Doing, step: Step) -> None:
    """Measure how reliable the neurons of a recording are.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``ceiling``.
    """
    _save(doing, step, function("neuron_reliability")(_responses(doing, step), options=step.detail["options"]))


def do_match(doing: Doing, step: Step) -> None:
    """Match the neurons of a recording with single units of a network.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``match``.
    """
    match = function("unit_matching")
    responses = _responses(doing, step)
    result = match(
        doing.shop.store(step.detail["network"]),
        responses,
        labels=_labels(doing, step, responses),
        reliability=_ceiling(doing, step),
        **call_progress(match, doing.shop.progress),
        options=step.detail["options"],
    )
    _save(doing, step, result)


def do_encode(doing: Doing, step: Step) -> None:
    """Predict the neurons of a recording from all units of each layer of a network.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``encode``.
    """
    encode = function("encoding")
    result = encode(
        doing.shop.store(step.detail["network"]),
        _responses(doing, step),
        reliability=_ceiling(doing, step),
        **call_progress(encode, doing.shop.progress),
        options=step.detail["options"],
    )
    _save(doing, step, result)


def do_transfer(doing: Doing, step: Step) -> None:
    """Read a label from the neurons with a classifier that has seen their matched units alone.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``transfer``.
    """
    transfer = function("matched_transfer")
    responses = _responses(doing, step)
    result = transfer(
        doing.result(step.detail["match"]),
        doing.shop.store(step.detail["network"]),
        responses,
        _labels(doing, step, responses),
        **call_progress(transfer, doing.shop.progress),
        options=step.detail["options"],
    )
    _save(doing, step, result.assign_attrs(label=step.detail["label"]))


def do_control(doing: Doing, step: Step) -> None:
    """Run one control of a match.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``control``.
    """
    detail = step.detail
    run = control_function(detail["control"])
    match = doing.result(detail["match"])
    # Each control takes what it needs of these, by the names of its parameters.
    given: dict[str, Any] = {"match": match, "first": match, "options": detail["options"]}
    if detail["twin"] is not None:
        given["second"] = doing.result(detail["twin"])
    else:
        responses = _responses(doing, step)
        given |= {
            "source": doing.shop.store(detail["network"]),
            "responses": responses,
            "labels": _labels(doing, step, responses),
            "reliability": _ceiling(doing, step),
            "progress": doing.shop.progress,
        }
    taken = set(inspect.signature(run).parameters) | ({"options"} if detail["options"] is not None else set())
    result = run(**{name: value for name, value in given.items() if name in taken})
    if detail["twin"] is not None:
        result = result.assign_attrs(twin=str(given["second"].attrs["network"]))
    _save(doing, step, result)


def do_summary(doing: Doing, step: Step) -> None:
    """Sum a recording up over its networks, and set what was expected beside what was found.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``neurons``.
    """
    detail = step.detail
    package = plugins.load("actkit.analyses", "unit_matching").__package__
    parts = importlib.import_module(f"{package}.neuron_summary")

    def read(ids: Any) -> Any:
        if isinstance(ids, str):
            return doing.result(ids)
        return {key: read(one) for key, one in ids.items()} if isinstance(ids, dict) else [read(one) for one in ids]

    evidence = parts.Evidence(
        recording=step.id.removeprefix("neurons "),
        matches=read(detail["matches"]),
        encodings=read(detail["encodings"]),
        transfers=read(detail["transfers"]),
        controls=read(detail["controls"]),
        seed=doing.plan.study.seed,
    )
    result = parts.neuron_summary(evidence)
    findings = importlib.import_module(f"{package}.neuron_findings").findings(evidence)
    save(result, doing.out / step.outputs[0])
    atomic_write(doing.out / step.outputs[1], parts.layer_table(result).to_csv(index=False))
    atomic_write(doing.out / step.outputs[2], findings.to_csv(index=False))
