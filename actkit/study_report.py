"""What a study tells: the key numbers for the terminal, and the sections of its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.results import load, to_table

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from actkit.study import StudyRun
    from actkit.study_plan import Step
    from actkit.study_steps import Doing


def is_simulated(result: xr.Dataset) -> bool:
    """Tell whether a result rests on simulated data.

    Parameters
    ----------
    result : xarray.Dataset
        A result, or measured RDMs.

    Returns
    -------
    bool
        True if its attributes say so.
    """
    return str(result.attrs.get("simulated", 0)).lower() in ("1", "true", "yes")


def rsa_numbers(result: xr.Dataset) -> list[dict[str, str]]:
    """Find the numbers of a comparison that a reader asks for first.

    Parameters
    ----------
    result : xarray.Dataset
        What `actkit.rsa` returned.

    Returns
    -------
    list of dict
        Rows with ``data``, ``what``, ``value``, ``note``: the ceilings, the best layer of each network, the best
        model and the best control.
    """
    data = str(result.attrs.get("data", "data")) + (" (simulated)" if is_simulated(result) else "")
    rows = []
    low, high = float(result["ceiling_lower"]), float(result["ceiling_upper"])
    if np.isfinite(low) and np.isfinite(high):
        rows.append({"what": "noise ceiling", "value": f"{low:.3f} to {high:.3f}", "note": f"{result.attrs['n_subjects']} subjects"})
    else:
        rows.append({"what": "noise ceiling", "value": "none", "note": "one subject: agreement between subjects is unknown"})
    kinds, networks = result["kind"].values.astype(str), result["network"].values.astype(str)
    groups = [("layer", name) for name in dict.fromkeys(networks[kinds == "layer"])] + [("model", ""), ("control", "")]
    for kind, network in groups:
        chosen = np.flatnonzero((kinds == kind) & ((networks == network) if network else True))
        means = result["mean"].values[chosen]
        if len(chosen) == 0 or np.isnan(means).all():
            continue
        best = int(chosen[int(np.nanargmax(means))])
        label = str(result["layer" if kind == "layer" else "model"].values[best])
        rows.append({
            "what": f"best layer of {network}" if kind == "layer" else f"best {kind}",
            "value": f"{float(result['mean'][best]):.3f} ± {float(result['error'][best]):.3f}",
            "note": f"{label}, {p_words(float(result['p_value'][best]))}",
        })
    return [{"data": data, **row} for row in rows]


def p_words(p: float) -> str:
    """Write a p-value.

    Parameters
    ----------
    p : float
        NaN if there was no test.

    Returns
    -------
    str
        ``"p = .012"``, ``"p < .001"``, or ``"not tested"``.
    """
    if not np.isfinite(p):
        return "not tested"
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")


def decoding_numbers(result: xr.Dataset) -> dict[str, str]:
    """Find the numbers of a decoding that a reader asks for first.

    Parameters
    ----------
    result : xarray.Dataset
        What `actkit.decode` returned.

    Returns
    -------
    dict
        ``data``, ``what``, ``value``, ``note``.
    """
    best = int(np.argmax(result["accuracy"].values))
    accuracy, chance = float(result["accuracy"][best]), float(result["chance"])
    return {
        "data": f"decoding of {result.attrs['label']}",
        "what": f"best layer of {result.attrs['network']}",
        "value": f"{accuracy:.1%}",
        "note": f"{result['layer'].values[best]}, chance {chance:.1%}, {int(result.attrs['n_held_out'])} held-out stimuli",
    }


def all_numbers(results: dict[str, xr.Dataset]) -> list[dict[str, str]]:
    """Gather the key numbers of several results.

    Parameters
    ----------
    results : dict of str to xarray.Dataset
        Results by step.

    Returns
    -------
    list of dict
        Rows of one table.
    """
    rows: list[dict[str, str]] = []
    for result in results.values():
        if result.attrs.get("analysis") == "rsa":
            rows += rsa_numbers(result)
        elif result.attrs.get("analysis") == "decoding":
            rows.append(decoding_numbers(result))
    return rows


def key_numbers(done: StudyRun) -> list[str]:
    """Lay out the key numbers of a study for the terminal.

    Parameters
    ----------
    done : StudyRun
        A finished run.

    Returns
    -------
    list of str
        Lines of a table; empty if the study compares nothing.
    """
    rows = all_numbers(done.results)
    if not rows:
        return []
    keys = ("data", "what", "value", "note")
    widths = {key: max(len(row[key]) for row in rows) for key in keys}
    lines, last = [], None
    for row in rows:
        shown = {**row, "data": row["data"] if row["data"] != last else ""}
        last = row["data"]
        lines.append("  ".join(shown[key].ljust(widths[key]) for key in keys).rstrip())
    return lines


def number_table(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Make the key numbers a table for the report.

    Parameters
    ----------
    rows : list of dict
        From :func:`all_numbers`.

    Returns
    -------
    pandas.DataFrame
        One row a number.
    """
    import pandas as pd

    return pd.DataFrame([{"Data": r["data"], "Number": r["what"], "Value": r["value"], "Note": r["note"]} for r in rows])


def write_report(doing: Doing, step: Step) -> None:
    """Write the report of a study.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        The step of kind ``report``.
    """
    from actkit.report import Report, software_provenance

    study, plan = doing.plan.study, doing.plan
    results = {
        other.id: load(doing.out / other.outputs[0]) for other in plan.steps if other.kind in ("rsa", "decoding")
    }
    simulated = sorted({str(result.attrs.get("data")) for result in results.values() if is_simulated(result)})
    lead = [study.report.text if study.report is not None and study.report.text else study.description]
    if simulated:
        lead.append(
            f"The observers ({', '.join(simulated)}) are simulated: their truth was "
            "chosen, so this report shows that the method finds it, and nothing about brains or people."
        )
    report = Report(study.report.title if study.report is not None and study.report.title else study.title, "\n\n".join(lead))
    numbers = all_numbers(results)
    if numbers:
        report.add_section(
            "Key numbers",
            "The layer with the highest score is named for description: it was chosen on the data that score it.",
            tables=[(number_table(numbers), "key_numbers", "Key numbers: mean ± standard error, p as the figures state.")],
        )
    drawn = [other for other in plan.steps if other.kind == "figures"]
    for other in sorted(drawn, key=lambda other: ("rsa", "decoding", "rdm").index(other.detail["draw"])):
        _add_figures(report, doing, other)
    for name, facts in _provenance(doing).items():
        report.add_provenance(name, facts)
    for id_, result in results.items():
        report.add_provenance(id_, _question(result))
    report.add_provenance("Software", software_provenance(doing.command))
    report.write(doing.out / step.outputs[0])


def _add_figures(report: Any, doing: Doing, step: Step) -> None:
    """Add the section of one figure step: what is shown, the figures, and for a comparison its table."""
    from actkit.study_steps import drawings

    figures = []
    for drawing in drawings(doing, step):
        words, _, alt = (doing.out / f"{drawing.stem}.txt").read_text(encoding="utf-8").strip().rpartition("\n\n")
        figures.append((doing.shop.figure(drawing.stem, drawing.result, drawing.options), words, alt))
    result = doing.result(step.detail["result"]) if "result" in step.detail else drawing.result
    tables = []
    if step.detail["draw"] != "rdm":
        short = result.drop_dims([dim for dim in ("subject", "stimulus") if dim in result.dims])
        name = Path(doing.plan[step.detail["result"]].outputs[0]).stem
        tables = [(to_table(short), f"{name}_summary", "One row a layer, model or control, as in the figure.")]
    report.add_section(section_title(step, result), section_text(step, result, doing), figures, tables)


def section_title(step: Step, result: xr.Dataset) -> str:
    """Write the headline of a figure's section.

    Parameters
    ----------
    step : Step
        A step of kind ``figures``.
    result : xarray.Dataset
        What it draws.

    Returns
    -------
    str
        A few words.
    """
    kind = step.detail["draw"]
    suffix = " (simulated)" if is_simulated(result) else ""
    if kind == "rsa":
        return f"Compared with {result.attrs['data']}{suffix}"
    if kind == "decoding":
        return f"Decoding {result.attrs['label'].replace('_', ' ')} from {result.attrs['network']}"
    if "data" in step.detail:
        return f"RDMs: {result.attrs['name']}{suffix}"
    return f"RDMs of {result.attrs.get('network', 'the network')}, layer by layer"


def section_text(step: Step, result: xr.Dataset, doing: Doing) -> str:
    """Write what a reader should know before the figure.

    Parameters
    ----------
    step : Step
        A step of kind ``figures``.
    result : xarray.Dataset
        What it draws.
    doing : Doing
        The plan and what it opened.

    Returns
    -------
    str
        Paragraphs; empty if there is nothing to add.
    """
    kind = step.detail["draw"]
    if kind == "decoding":
        missing = int(result.attrs.get("n_without_label", 0))
        return f"{missing} stimuli have no {result.attrs['label']} and are left out." if missing else ""
    if kind == "rdm" and "data" not in step.detail:
        return ""
    variable = step.detail["data"] if kind == "rdm" else doing.plan[step.detail["result"]].detail["data"]
    data = doing.shop.data(variable, "")
    sentences = [str(data.attrs[key]).strip().rstrip(".") for key in ("long_name", "note") if data.attrs.get(key)]
    sentences = [sentence[0].upper() + sentence[1:] + "." for sentence in sentences if sentence]
    if kind == "rdm":
        chosen = "the layer with the highest mean score" if step.detail["compared"] else "the last layer"
        return f"The mean of the subjects (of ranked dissimilarities) beside one RDM of each network: of several layers, {chosen}."
    if len(data["stimulus"]) < len(doing.shop.stimuli):
        sentences.append(f"Compared over the {len(data['stimulus'])} of {len(doing.shop.stimuli)} stimuli that were measured.")
    if not np.isfinite(float(result["ceiling_lower"])):
        sentences.append("With one RDM there is no agreement between subjects to measure, so there is no noise ceiling.")
    return " ".join(sentences)


def _question(result: xr.Dataset) -> dict[str, Any]:
    """What a result was asked, from its attributes."""
    from actkit.report import result_provenance

    facts = result_provenance(result)
    return {**facts, "test": result.attrs.get("test"), "errors": result.attrs.get("generalise_to_reason")}


def _provenance(doing: Doing) -> dict[str, dict[str, Any]]:
    """What the results rest on: networks, recordings, stimuli and data."""
    groups: dict[str, dict[str, Any]] = {}
    for step in doing.plan.steps:
        if step.kind != "network":
            continue
        facts = json.loads((doing.out / step.outputs[0]).read_text(encoding="utf-8"))
        groups[f"Network {facts['name']}"] = {
            "extractor": facts["extractor"],
            "options": json.dumps(facts["options"]) if facts["options"] else "none",
            "sha256 of weights": facts["weights_sha256"],
            "preprocessing": facts["preprocessing"],
            **{key: value for key, value in facts["provenance"].items() if key not in ("extractor", "preprocessing")},
        }
    stimuli = doing.shop.stimuli
    groups["Stimuli"] = {
        "name": stimuli.name, "number": len(stimuli), "order": stimuli.order, "sha256": stimuli.fingerprint,
    }
    for dataset in doing.shop.datasets():
        groups[f"Data set {dataset.name}"] = {"licence": dataset.licence, "cite": "; ".join(dataset.citation)}
    groups["Study"] = {"file": doing.plan.study.source, "seed": doing.plan.study.seed}
    return groups


def report_results(paths: list[Path], out: Path, title: str) -> Path:
    """Put saved results into a report, each with its figure, table and provenance.

    Parameters
    ----------
    paths : list of Path
        netCDF files that analyses wrote.
    out : Path
        The HTML file.
    title : str
        Title of the report.

    Returns
    -------
    Path
        The HTML file.
    """
    from actkit.errors import InputError
    from actkit.report import Report, software_provenance

    results = {path.stem: load(path) for path in paths}
    for path, result in zip(paths, results.values(), strict=False):
        if not result.attrs.get("analysis"):
            raise InputError(f"{path} does not say which analysis made it; give files that rdm, rsa or decode wrote")
    if len(results) < len(paths):
        raise InputError("two results have files of the same name; rename one, since names become headlines")
    report = Report(title)
    numbers = all_numbers(results)
    if numbers:
        report.add_section("Key numbers", tables=[(number_table(numbers), "key_numbers", "Key numbers.")])
    for name, result in results.items():
        report.add_result(result, name.replace("_", " "), table=None if result.attrs["analysis"] == "rdm" else name)
    report.add_provenance("Software", software_provenance(None))
    return report.write(out)
