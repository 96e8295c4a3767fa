"""What a study of lesions tells: its key numbers, its findings, and the sections of its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from actkit.study_plan import Plan, Step

_COMPETE = {"unmasked": "all outputs compete", "masked": "each task's own outputs"}
_FINDINGS = {
    "finding": "Finding",
    "held": "Held",
    "measured": "Measured",
    "expected": "Expected",
    "masking": "Outputs",
    "paper": "Paper",
    "group": "Networks",
}
_FINDINGS_TEXT = """\
Each row sets what Dobs et al. (2022) report, or what follows from it, beside what was measured here: a mean over \
networks trained from several seeds with its 95 % t interval. A finding held (yes) if the interval lies wholly on the \
expected side, did not hold (no) if wholly on the other, and is undecided if it includes the boundary. The layers were \
named before the run; the highest of all layers stands beside the value and decides nothing. Verdicts are not \
corrected for their number."""


def number(value: float) -> str:
    """Write a score as the figures do.

    Parameters
    ----------
    value : float
        May be NaN.

    Returns
    -------
    str
        Two decimals without the zero before the point; ``–`` for NaN.
    """
    from actkit.plotting import short

    return short(value) if np.isfinite(value) else "–"


def seeds_numbers(result: xr.Dataset) -> list[dict[str, str]]:
    """Find the numbers of a segregation over seeds that a reader asks for first.

    Parameters
    ----------
    result : xarray.Dataset
        What ``segregation_seeds`` returned.

    Returns
    -------
    list of dict
        Rows with ``data``, ``what``, ``value``, ``note``: the index of each group at the layer named beforehand, with
        its interval, null and excess.
    """
    late = str(result.attrs["late"])
    rows = []
    for masking in result["masking"].values.astype(str):
        for group in result["group"].values.astype(str):
            one = result.sel(group=group, masking=masking, layer=late)
            n = int(result["n_networks"].sel(group=group))
            ends = _interval(one, "index")
            rows.append(
                {
                    "data": f"segregation at {late}, {_COMPETE.get(masking, masking)}",
                    "what": group,
                    "value": number(float(one["index"])) + ends,
                    "note": f"null {number(float(one['null_mean']))}, excess {number(float(one['excess']))}"
                    f"{_interval(one, 'excess')}, {n} network{'s' if n > 1 else ''}",
                }
            )
    return rows


def _interval(one: xr.Dataset, name: str) -> str:
    """The t interval of a value, in words; nothing of one network."""
    low, high = float(one[f"{name}_low"]), float(one[f"{name}_high"])
    return f" ({number(low)} to {number(high)})" if np.isfinite(low) and np.isfinite(high) else ""


def accuracy_numbers(table: pd.DataFrame) -> list[dict[str, str]]:
    """Find the accuracies that a reader asks for first.

    Parameters
    ----------
    table : pandas.DataFrame
        The study's ``accuracies.csv``.

    Returns
    -------
    list of dict
        Rows with ``data``, ``what``, ``value``, ``note``: one a group of networks.
    """
    rows = []
    for group, mine in table.groupby("group", sort=False):
        parts, chances = [], []
        for task, some in mine.groupby("task", sort=False):
            values = some["held_out_accuracy"].to_numpy(dtype=float)
            spread = f" ({number(values.min())} to {number(values.max())})" if len(values) > 1 else ""
            mean = float(np.mean(values)) if len(values) else float("nan")
            parts.append(f"{task} {number(mean)}{spread}")
            chances.append(f"{task} {number(float(some['chance'].iloc[0]))}")
        n = mine["network"].nunique()
        rows.append(
            {
                "data": "held-out accuracy",
                "what": str(group),
                "value": ", ".join(parts),
                "note": (f"mean (range) of {n} networks, " if n > 1 else "") + f"chance {', '.join(chances)}",
            }
        )
    return rows


def read_accuracies(out: Path, plan: Plan) -> pd.DataFrame | None:
    """Read the accuracies of a study's networks.

    Parameters
    ----------
    out : Path
        Folder of the study.
    plan : Plan
        Its steps.

    Returns
    -------
    pandas.DataFrame or None
        None where no network of it was trained.
    """
    import pandas as pd

    step = next((step for step in plan.steps if step.kind == "accuracies"), None)
    if step is None:
        return None
    table = pd.read_csv(out / step.outputs[0], keep_default_na=False, na_values={"held_out_accuracy": [""]})
    return table if len(table) else None


def add_findings(report: Any, out: Path, plan: Plan) -> None:
    """Add the tables of what was expected and what was found.

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
        if step.kind == "segregation_seeds":
            table = pd.read_csv(out / step.outputs[2], keep_default_na=False)
            shown = table[[key for key in _FINDINGS if key in table]].rename(columns=_FINDINGS)
            counts = ", ".join(f"{word}: {n}" for word, n in table["held"].value_counts(sort=False).items())
            # Not the name of the step's own table, which holds more columns and stays as it is.
            name = Path(step.outputs[2]).stem.removeprefix("segregation_")
            tables.append((shown, name, f"What was expected and what was found ({counts})."))
    if tables:
        report.add_section("Findings", _FINDINGS_TEXT, tables=tables)


def add_accuracies(report: Any, table: pd.DataFrame) -> None:
    """Add the accuracies of the networks that the study trained.

    Parameters
    ----------
    report : Report
        Takes the section.
    table : pandas.DataFrame
        The study's ``accuracies.csv``.
    """
    names = {
        "group": "Group", "network": "Network", "task": "Task", "n_classes": "Classes", "n_held_out": "Images",
        "held_out_accuracy": "Accuracy", "chance": "Chance",
    }  # fmt: skip
    report.add_section(
        "What the networks learnt",
        "The share of images that each network names correctly, all its outputs competing, before any lesion; none of "
        "the images was trained on.",
        tables=[
            (table[list(names)].rename(columns=names), "network_accuracies", "Held-out accuracy of every network.")
        ],
    )


def lesion_title(step: Step, result: xr.Dataset) -> str | None:
    """Write the headline of a section on lesions.

    Parameters
    ----------
    step : Step
        A step of kind ``figures``.
    result : xarray.Dataset
        What it draws.

    Returns
    -------
    str or None
        None for figures of something else.
    """
    draw = step.detail["draw"]
    if draw == "segregation_seeds":
        again = step.detail["result"].removeprefix("segregation over seeds")
        return f"Segregation over networks{again and f',{again}'}"
    if draw == "segregation":
        return f"Segregation in {step.detail['result'].removeprefix('segregation ')}"
    if draw == "feature_visualization":
        return f"What the units needed most for {result.attrs['task']} prefer, in {result.attrs['network']}"
    return None


def lesion_text(step: Step, plan: Plan) -> str:
    """Write what a reader should know before a figure of lesions.

    Parameters
    ----------
    step : Step
        A step of kind ``figures``.
    plan : Plan
        The steps of the study.

    Returns
    -------
    str
        A paragraph; empty if there is nothing to add.
    """
    draw = step.detail["draw"]
    if draw == "segregation_seeds":
        early, late = (plan[step.detail["result"]].detail["settings"][key] for key in ("early", "late"))
        return (
            "Every dot is a network trained from a seed of its own, and intervals are over those networks: they speak "
            "of other trainings, not of other classes. The index is to be read beside the null of shuffled classes, "
            f"which is not 0. Layers named beforehand: {early} (early) and {late} (late)."
        )
    if draw == "segregation":
        spec = plan[step.detail["result"]].detail["network"]
        many = len(plan.study.groups.get(spec.group or "", ()))
        others = f" One of {many} networks that differ in their seed; the tables hold the others." if many > 1 else ""
        return f"Intervals hold this network fixed and are over its classes and images.{others}"
    return "Images made by gradient ascent, not stimuli: one image that drives a unit, of many that would."
