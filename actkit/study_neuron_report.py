"""What a study of recorded neurons tells: its key numbers, its findings, and the section of each recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.study_lesion_report import number
from actkit.study_recordings import selected_recording
from actkit.study_words import selected_words

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from actkit.study_plan import Plan, Step
    from actkit.study_steps import Doing

_FINDINGS = {
    "finding": "Finding",
    "held": "Held",
    "measured": "Measured",
    "expected": "Expected",
    "rule": "Judged by",
    "source": "Source",
    "network": "Network",
}
_FINDINGS_TEXT = """\
Each row sets what is expected of a network whose single units resemble single neurons beside what was measured \
here. No layer is chosen by its score: each claim is about the mean over all layers recorded, and the layers stand \
one by one further down.

- Judged by an interval (95 %, in brackets): yes if it lies wholly on the expected side of the boundary, no if wholly \
on the other, undecided if it includes it.
- Judged by p: yes if it is .05 or less, no if the value lies on the other side of the mean of the draws, undecided \
otherwise; brackets then hold 95 % of the draws.

Intervals are over the neurons of one array, which share signals and an animal: they do not speak of other animals, \
images or trainings. That of two shares takes them as independent, which is wide for shares of the same stimuli. \
Verdicts are not corrected for their number. Of Arend et al. (2018) the abstract alone is the source: it gives no \
numbers, and none is claimed to be reproduced."""


def neuron_numbers(result: xr.Dataset) -> list[dict[str, str]]:
    """Find the numbers of a recording that a reader asks for first.

    Parameters
    ----------
    result : xarray.Dataset
        What ``neuron_summary`` returned.

    Returns
    -------
    list of dict
        Rows with ``data``, ``what``, ``value``, ``note``: for each network the layer with the highest median of its
        matched units, with the share of neurons above the 99 % point of their null there, and that of the linear map.
    """
    rows = []
    names = result["network"].values.astype(str)
    for network in dict.fromkeys(names.tolist()):
        for quantity, words in (("unit", "single unit"), ("linear", str(result.attrs.get("linear", "linear map")))):
            use = np.flatnonzero((names == network) & (result["quantity"].values.astype(str) == quantity))
            values = result["value"].values[use]
            if not len(use) or np.isnan(values).all():
                continue
            best = int(use[int(np.nanargmax(values))])
            low, high = float(result["low"][best]), float(result["high"][best])
            rows.append(
                {
                    "data": f"neurons of {result.attrs['recording']}",
                    "what": f"{network}, {words}",
                    "value": f"r {number(float(result['value'][best]))} ({number(low)} to {number(high)})",
                    "note": f"{result['layer'].values[best]}{_beyond(result, network, best, quantity)}",
                }
            )
    return rows


def _beyond(result: xr.Dataset, network: str, best: int, quantity: str) -> str:
    """Share of neurons beyond their null at a layer, in words."""
    if quantity != "unit":
        return ""
    here = (result["network"].values == network) & (result["layer"].values == result["layer"].values[best])
    said = []
    for kind, words in (("within_category", "within category"), ("free", "free")):
        row = np.flatnonzero(here & (result["quantity"].values == f"beyond {kind}"))
        if len(row):
            said.append(f"{float(result['value'][row[0]]):.0%} {words}")
    return f"; beyond the null: {', '.join(said)}" if said else ""


def add_neuron_findings(report: Any, out: Path, plan: Plan) -> None:
    """Add the tables of what was expected of the neurons and what was found.

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
        if step.kind == "neurons":
            table = pd.read_csv(out / step.outputs[2], keep_default_na=False)
            if not len(table):
                continue
            shown = table[list(_FINDINGS)].rename(columns=_FINDINGS)
            if table["network"].nunique() == 1:
                shown = shown.drop(columns="Network")
            counts = ", ".join(f"{word}: {n}" for word, n in table["held"].value_counts(sort=False).items())
            # Not the name of the step's own table, which holds more columns and stays as it is.
            name = f"verdicts_{Path(step.outputs[2]).stem.removeprefix('findings_')}"
            recording = step.id.removeprefix("neurons ")
            tables.append((shown, name, f"{recording}: what was expected and what was found ({counts})."))
    if tables:
        report.add_section("Findings in the neurons", _FINDINGS_TEXT, tables=tables)


def neuron_title(step: Step) -> str:
    """Write the headline of a recording's section.

    Parameters
    ----------
    step : Step
        A step of kind ``figures``.

    Returns
    -------
    str
        A few words.
    """
    return f"Neurons of {step.detail['result'].removeprefix('neurons ')}"


def neuron_text(step: Step, doing: Doing) -> str:
    """Write what a reader should know of a recording before its figures.

    Parameters
    ----------
    step : Step
        A step of kind ``figures``.
    doing : Doing
        The plan and what it opened.

    Returns
    -------
    str
        Paragraphs.
    """
    from actkit.recordings_neurons import has_repetitions, n_repetitions

    detail = doing.plan[step.detail["result"]].detail
    responses = selected_recording(doing.shop, detail["recording"], detail["select"], detail["where"])
    attrs, n = responses.attrs, responses.sizes["stimulus"]
    region, subject = attrs.get("region"), attrs.get("subject")
    head = f"{responses.sizes['neuron']} neurons" + (f" of {region}" if region else "")
    head += (f" of {subject}" if subject else "") + f", {n} stimuli"
    if detail["select"]:
        head += f" ({selected_words(detail['select'])})"
    if has_repetitions(responses):
        count = n_repetitions(responses).values
        head += f", {count.min():g} to {count.max():g} presentations of each ({count.mean():.1f} on average)"
    sentences = [str(attrs[key]).strip().rstrip(".") for key in ("long_name", "note") if attrs.get(key)]
    text = [f"{head}." + "".join(f" {one[0].upper()}{one[1:]}." for one in sentences if one)]
    if not has_repetitions(responses):
        text.append(
            "This recording holds averages alone: noise cannot be told from signal in a mean, so no reliability was "
            "estimated and correlations are not divided by a ceiling."
        )
    elif detail["ceiling"] is not None:
        result = doing.result(detail["ceiling"])
        rho = result["reliability"].values
        low, high = np.nanmin(rho), np.nanmax(rho)
        text.append(
            f"Reliability ρ of the mean over presentations ({result.attrs.get('estimator_note', '')}): median "
            f"{number(float(np.nanmedian(rho)))}, from {number(float(low))} to {number(float(high))} over neurons."
        )
    return "\n\n".join(text)


def neuron_tables(doing: Doing, step: Step) -> list[tuple[pd.DataFrame, str, str]]:
    """Lay the medians of a recording out for its section.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``figures``.

    Returns
    -------
    list of (DataFrame, name, caption)
        One table: a row for each network and layer, intervals in brackets.
    """
    import pandas as pd

    summary = doing.plan[step.detail["result"]]
    table = pd.read_csv(doing.out / summary.outputs[1])
    shown: dict[str, Any] = {"network": table["network"], "layer": table["layer"]}
    for name in table.columns[2:]:
        if not name.endswith((" low", " high")):
            shown[name] = [_cell(table, name, row) for row in range(len(table))]
    name = f"{Path(summary.outputs[1]).stem}_layers"
    words = (
        "One row a network and layer: medians over neurons of held-out r (95 % interval over neurons in brackets); "
        "shares of neurons beyond 99 % of their null, of folds with the same unit, and of stimuli read; rotated: mean "
        "and range over rotations. "
    )
    return [(pd.DataFrame(shown), name, f"{words}Each number in a column of its own: {summary.outputs[1]}.")]


def _cell(table: pd.DataFrame, name: str, row: int) -> str:
    """A value with its interval."""
    value = float(table[name].iloc[row])
    if not np.isfinite(value):
        return ""
    ends = [float(table[f"{name} {end}"].iloc[row]) if f"{name} {end}" in table else np.nan for end in ("low", "high")]
    return number(value) + (f" [{number(ends[0])}, {number(ends[1])}]" if np.isfinite(ends).all() else "")
