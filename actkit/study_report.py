"""What a study tells: the key numbers for the terminal, and the sections of its report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import InputError
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
        rows.append(
            {
                "what": "noise ceiling",
                "value": f"{low:.3f} to {high:.3f}",
                "note": f"{result.attrs['n_subjects']} subjects",
            }
        )
    else:
        rows.append(
            {"what": "noise ceiling", "value": "none", "note": "one subject: agreement between subjects is unknown"}
        )
    kinds, networks = result["kind"].values.astype(str), result["network"].values.astype(str)
    groups = [("layer", name) for name in dict.fromkeys(networks[kinds == "layer"])] + [("model", ""), ("control", "")]
    for kind, network in groups:
        chosen = np.flatnonzero((kinds == kind) & ((networks == network) if network else True))
        means = result["mean"].values[chosen]
        if len(chosen) == 0 or np.isnan(means).all():
            continue
        best = int(chosen[int(np.nanargmax(means))])
        label = str(result["layer" if kind == "layer" else "model"].values[best])
        rows.append(
            {
                "what": f"best layer of {network}" if kind == "layer" else f"best {kind}",
                "value": f"{float(result['mean'][best]):.3f} ± {float(result['error'][best]):.3f}",
                "note": f"{label}, {p_words(float(result['p_value'][best]))}",
            }
        )
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
        "note": f"{result['layer'].values[best]}, chance {chance:.1%}, {result.attrs['n_held_out']} held-out stimuli",
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

    return pd.DataFrame(
        [{"Data": r["data"], "Number": r["what"], "Value": r["value"], "Note": r["note"]} for r in rows]
    )


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
    report = Report(
        study.report.title if study.report is not None and study.report.title else study.title, "\n\n".join(lead)
    )
    numbers = all_numbers(results)
    if numbers:
        report.add_section(
            "Key numbers",
            "The layer with the highest score is named for description: it was chosen on the data that score it.",
            tables=[
                (number_table(numbers), "key_numbers", "Key numbers: mean ± standard error, p as the figures state.")
            ],
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


class SavedFigure:
    """A figure as it lies on disk, for the report: what was drawn once is not drawn again.

    Parameters
    ----------
    stem : Path
        Path of the figure without suffix; an SVG and a PNG are there.
    """

    def __init__(self, stem: Path) -> None:
        self._stem = stem

    def get_size_inches(self) -> tuple[float, float]:
        """Read width and height from the SVG, which gives them in points."""
        head = self.content("svg")[:2000].decode("utf-8", "replace")
        found = re.search(r'<svg[^>]*?\swidth="([\d.]+)pt"[^>]*?\sheight="([\d.]+)pt"', head)
        if found is None:
            raise InputError(
                f"{self._stem}.svg does not start as a figure that actkit drew; delete it and run the study again"
            )
        return float(found[1]) / 72, float(found[2]) / 72

    def savefig(self, buffer: Any, format: str = "svg", **_unused: Any) -> None:  # noqa: A002 (matplotlib's name)
        """Give the bytes on disk, as matplotlib would write them."""
        buffer.write(self.content(format))

    def content(self, suffix: str) -> bytes:
        """Read the file of one format."""
        return self._stem.with_name(f"{self._stem.name}.{suffix}").read_bytes()


def _add_figures(report: Any, doing: Doing, step: Step) -> None:
    """Add the section of one figure step: what is shown, the figures, and the tables behind them."""
    from actkit.plotting import plot_narrow
    from actkit.study_steps import drawings

    figures, tables = [], []
    detail = step.detail
    drawn = drawings(doing, step)
    for drawing in drawn:
        stem = doing.out / drawing.stem
        text = stem.with_name(f"{stem.name}.txt").read_text(encoding="utf-8").strip()
        words, _, alt = text.rpartition("\n\n")
        narrow = None if detail["draw"] == "rdm" else plot_narrow(drawing.result, **drawing.options)
        figures.append((SavedFigure(stem), words, alt, narrow))
    made = detail.get("results") or ((detail["result"],) if detail["draw"] == "rsa" else ())
    for name in made:
        result = doing.result(name)
        short = result.drop_dims([dim for dim in ("subject", "stimulus") if dim in result.dims])
        table = f"{Path(doing.plan[name].outputs[0]).stem}_summary"
        tables.append((to_table(short), table, f"One row a layer, model or control ({name})."))
    # The measured RDMs of a step are drawn beside others, and it is they that say whether they are simulated.
    first: xr.Dataset = doing.result(made[0]) if made else drawn[0].result  # type: ignore[assignment]
    report.add_section(section_title(step, first), section_text(step, first, doing), figures, tables)


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
        return f"Decoding {result.attrs['label'].replace('_', ' ')}"
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
        missing = len(doing.shop.stimuli) - len(result["stimulus"])
        return f"{missing} stimuli have no {step.detail['labels']} and are left out." if missing else ""
    variable = step.detail["data"] if kind == "rdm" else doing.plan[step.detail["result"]].detail["data"]
    data = doing.shop.data(variable, "")
    sentences = [str(data.attrs[key]).strip().rstrip(".") for key in ("long_name", "note") if data.attrs.get(key)]
    sentences = [sentence[0].upper() + sentence[1:] + "." for sentence in sentences if sentence]
    if kind == "rdm":
        chosen = "the layer with the highest mean score" if step.detail["compared"] else "the last layer"
        people = (
            "mean of the subjects (of ranked dissimilarities)"
            if data.sizes[data["dissimilarity"].dims[0]] > 1
            else "RDM"
        )
        return f"The {people} beside one RDM of each network: of several layers, {chosen}."
    if is_simulated(data) and data.attrs.get("truth"):
        sentences.append(
            f"Simulated observers, not people: each sees the truth, {data.attrs['truth']}, with noise of its own of "
            f"{float(data.attrs['noise']):g} times its standard deviation. The model of the truth should reach the "
            "noise ceiling."
        )
    if len(data["stimulus"]) < len(doing.shop.stimuli):
        sentences.append(
            f"Compared over {len(data['stimulus'])} of the {len(doing.shop.stimuli)} stimuli, those with data."
        )
    if not np.isfinite(float(result["ceiling_lower"])) and "ceiling" not in " ".join(sentences):
        sentences.append(
            "With one RDM there is no agreement between subjects to measure, so there is no noise ceiling."
        )
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
        "name": stimuli.name,
        "number": len(stimuli),
        "order": stimuli.order,
        "sha256": stimuli.fingerprint,
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
