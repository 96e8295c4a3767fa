"""The sections of a study's report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.errors import InputError
from actkit.results import load, to_table
from actkit.study_lesion_matched import add_matched_findings, imbalance_table, matched_text
from actkit.study_lesion_report import (
    accuracy_numbers,
    add_accuracies,
    add_findings,
    lesion_text,
    lesion_title,
    read_accuracies,
)
from actkit.study_neuron_report import add_neuron_findings, neuron_tables, neuron_text, neuron_title
from actkit.study_numbers import all_numbers, is_simulated, number_table
from actkit.study_specialization import add_module_findings, modules_text
from actkit.study_words import selected_words, slug

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from actkit.study_plan import Step
    from actkit.study_steps import Doing


MOST_TABLES = 4
# Of a segregation's table, what the report shows beside the drops.
_LESION_COLUMNS = (
    "group", "layer", "masking", "index", "index_low", "index_high", "null_mean", "null_low", "null_high", "excess",
    "excess_low", "excess_high", "p_corrected", "n_significant", "shared", "shared_chance", "shared_ceiling",
    "index_above_control", "n_saturated", "n_networks",
)  # fmt: skip
# Sections in the order of the report, by what is drawn in them.
_ORDER = (
    "neurons",
    "lesion_matched",
    "modules",
    "segregation_seeds",
    "segregation",
    "feature_visualization",
    "rsa",
    "decoding",
    "rdm",
)

# Kinds of steps whose question stands at the end of the report.
_SHOWN = (
    "rsa", "decoding", "segregation_seeds", "segregation", "feature_visualization", "ceiling", "match", "control",
    "encode", "transfer", "neurons", "lesion_matched", "specialization", "dynamics", "masks", "modules",
)  # fmt: skip


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
    results = {other.id: load(doing.out / other.outputs[0]) for other in plan.steps if other.kind in _SHOWN}
    simulated = sorted({str(result.attrs.get("data")) for result in results.values() if is_simulated(result)})
    lead = [study.report.text if study.report is not None and study.report.text else study.description]
    if simulated:
        lead.append(
            f"The observers ({', '.join(simulated)}) are simulated: their truth was "
            "chosen, so this report shows that the method finds it, and nothing about brains or people."
        )
    if study.quick:
        lead.insert(
            0,
            "This is the quick form of the study: with fewer networks, images or draws than the study itself, to see "
            "that everything runs. Its numbers are not the study's.",
        )
    report = Report(
        study.report.title if study.report is not None and study.report.title else study.title, "\n\n".join(lead)
    )
    table = read_accuracies(doing.out, plan)
    _add_numbers(report, results, table, study.groups)
    add_findings(report, doing.out, plan)
    add_neuron_findings(report, doing.out, plan)
    add_matched_findings(report, doing.out, plan)
    add_module_findings(report, plan)
    if table is not None:
        add_accuracies(report, table)
    drawn = [other for other in plan.steps if other.kind == "figures"]
    for other in sorted(drawn, key=lambda other: _ORDER.index(other.detail["draw"])):
        _add_figures(report, doing, other)
    for name, facts in _provenance(doing).items():
        report.add_provenance(name, facts)
    for id_, result in results.items():
        report.add_provenance(id_, _question(result))
    report.add_provenance("Software", software_provenance(doing.command))
    report.write(doing.out / step.outputs[0])


def _add_numbers(
    report: Any, results: dict[str, xr.Dataset], table: pd.DataFrame | None, groups: Mapping[str, Sequence[str]]
) -> None:
    """Add the numbers that a reader asks for first."""
    numbers = all_numbers(results, groups)
    scored = any(result.attrs.get("analysis") in ("rsa", "decoding", "neuron_summary") for result in results.values())
    segregated = any(result.attrs.get("analysis") == "segregation_seeds" for result in results.values())
    if not numbers:
        return
    if table is not None:
        numbers += accuracy_numbers(table)
    text = "The layer with the highest score is named for description: it was chosen on the data that score it."
    caption = "Key numbers: mean ± standard error, p as the figures state."
    if any(result.attrs.get("analysis") == "neuron_summary" for result in results.values()):
        caption = (
            "Key numbers: medians over neurons with 95 % intervals, and the share of neurons above the 99 % point of "
            "their null."
        )
    if any(result.attrs.get("analysis") == "lesion_matched" for result in results.values()):
        caption = "Key numbers, as the tables and figures below have them."
    if segregated:
        caption = "Key numbers: segregation as mean (t interval over networks); accuracies as mean (range)."
    report.add_section("Key numbers", text if scored else "", tables=[(number_table(numbers), "key_numbers", caption)])


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
    if detail["draw"] in ("segregation", "segregation_seeds"):
        tables.append(_csv(doing, detail["result"]))
    if detail["draw"] == "neurons":
        tables += neuron_tables(doing, step)
    if detail["draw"] == "lesion_matched":
        tables.append(imbalance_table(doing.result(detail["result"]), step))
    if len(made) > MOST_TABLES:
        tables.append(_joined(doing, step, made))
    else:
        for name in made:
            table = f"{Path(doing.plan[name].outputs[0]).stem}_summary"
            tables.append((_summary(doing.result(name)), table, f"One row a layer, model or control ({name})."))
    # The measured RDMs of a step are drawn beside others, and it is they that say whether they are simulated.
    first: xr.Dataset = doing.result(made[0]) if made else drawn[0].result  # type: ignore[assignment]
    report.add_section(section_title(step, first), section_text(step, first, doing), figures, tables)


def _summary(result: xr.Dataset) -> pd.DataFrame:
    """One row for each layer, model or control."""
    return to_table(result.drop_dims([dim for dim in ("subject", "stimulus") if dim in result.dims]))


def _csv(doing: Doing, name: str) -> tuple[pd.DataFrame, str, str]:
    """The table that a step wrote, for the report: of its many columns, those that the figures show."""
    import pandas as pd

    path = doing.out / doing.plan[name].outputs[1]
    table = pd.read_csv(path)
    columns = [str(column) for column in table.columns]
    shown = [column for column in columns if column in _LESION_COLUMNS or column.startswith("drop_")]
    caption = f"One row a layer and set of competing outputs ({name}). More columns: {doing.plan[name].outputs[1]}."
    return table[shown], f"{path.stem}_summary", caption


def _joined(doing: Doing, step: Step, made: tuple[str, ...]) -> tuple[pd.DataFrame, str, str]:
    """The results of many networks in one table."""
    import pandas as pd

    parts = []
    for name in made:
        result = doing.result(name)
        part = _summary(result)
        part.insert(0, "network", str(result.attrs["network"]))
        parts.append(part)
    caption = f"One row a network and layer ({len(made)} networks)."
    return pd.concat(parts, ignore_index=True), f"{slug(step.id.removeprefix('figures '))}_summary", caption


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
    if (title := lesion_title(step, result)) is not None:
        return title
    if kind == "neurons":
        return neuron_title(step)
    if kind == "modules":
        return "What each module knows"
    if kind == "lesion_matched":
        return f"Without matched units: {step.detail['result'].removeprefix('lesion_matched ')}"
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
    from actkit.study_steps import drawn_decodings

    kind = step.detail["draw"]
    if lesion_title(step, result) is not None:
        return lesion_text(step, doing.plan)
    if kind == "neurons":
        return neuron_text(step, doing)
    if kind == "lesion_matched":
        return matched_text(step, doing)
    if kind == "modules":
        return modules_text(step, doing)
    if kind == "decoding":
        missing = int(result.attrs.get("n_without_label", 0))
        first = doing.plan[step.detail["results"][0]].detail
        words = []
        if first["select"]:
            use = doing.shop.selected(first["select"], "")
            words.append(f"Of the {len(use)} stimuli, {int(use.sum())}: {selected_words(first['select'])}.")
        words += [f"{missing} of them have no {first['column']} and are left out."] if missing and words else []
        words += [f"{missing} stimuli have no {first['column']} and are left out."] if missing and not words else []
        if len(step.detail["results"]) > len(drawn_decodings(doing.plan, step.detail["results"])):
            words.append("Of networks that differ in their seed the first is drawn; the table holds all.")
        return " ".join(words)
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
    selection = "" if kind == "rdm" else doing.plan[step.detail["result"]].detail["selection"]
    if selection:
        sentences.append(_selection_words(doing.plan[step.detail["result"]], doing))
    elif len(data["stimulus"]) < len(doing.shop.stimuli):
        sentences.append(
            f"Compared over {len(data['stimulus'])} of the {len(doing.shop.stimuli)} stimuli, those with data."
        )
    if not np.isfinite(float(result["ceiling_lower"])) and "ceiling" not in " ".join(sentences):
        sentences.append(
            "With one RDM there is no agreement between subjects to measure, so there is no noise ceiling."
        )
    return " ".join(sentences)


def _selection_words(step: Step, doing: Doing) -> str:
    """Say which stimuli a comparison is about, and which models have nothing to say of them."""
    n = doing.shop.selected_data(step.detail["data"], step.detail["select"], "", "").sizes["stimulus"]
    words = f"Compared over {n} of the {len(doing.shop.stimuli)} stimuli: {selected_words(step.detail['select'])}."
    if left_out := step.detail["left_out"]:
        words += f" {', '.join(left_out)}: the same for every pair of these stimuli, so left out."
    return words


def _question(result: xr.Dataset) -> dict[str, Any]:
    """What a result was asked, from its attributes."""
    from actkit.report import result_provenance

    facts = result_provenance(result)
    return {**facts, "test": result.attrs.get("test"), "errors": result.attrs.get("generalise_to_reason")}


def _provenance(doing: Doing) -> dict[str, dict[str, Any]]:
    """What the results rest on: networks, recordings, stimuli and data."""
    groups: dict[str, dict[str, Any]] = {}
    for name, members in doing.plan.study.groups.items():
        files = [doing.out / doing.plan[f"network {one}"].outputs[0] for one in members]
        all_facts = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        groups[f"Network {name}"] = _network_facts(all_facts)
    if doing.plan.study.stimuli:
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


def _network_facts(networks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a network rests on; of one trained from several seeds, the facts of the first and the hashes of all."""
    facts = networks[0]
    weights = facts["weights_sha256"]
    options = facts["options"]
    if len(networks) > 1:
        weights = {f"seed {one['options'].get('seed')}": one["weights_sha256"] for one in networks}
        options = {key: value for key, value in options.items() if key != "seed"}
        options["seed"] = [one["options"].get("seed") for one in networks]
    more = {key: value for key, value in facts["provenance"].items() if key not in ("extractor", "preprocessing")}
    if len(networks) > 1:
        # These are of each network; the table of accuracies holds them all.
        more = {key: value for key, value in more.items() if key not in ("tasks", "weights")}
    return {
        "extractor": facts["extractor"],
        "options": json.dumps(options) if options else "none",
        "sha256 of weights": weights,
        "preprocessing": facts["preprocessing"],
        **more,
    }


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
