"""The key numbers of a study: what a reader asks for first, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from actkit.results import load
from actkit.study_lesion_matched import matched_numbers
from actkit.study_lesion_report import accuracy_numbers, read_accuracies, seeds_numbers
from actkit.study_neuron_report import neuron_numbers
from actkit.study_specialization import module_numbers

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from actkit.study import StudyRun

NUMBERED = ("rsa", "decoding", "segregation_seeds", "neurons", "lesion_matched", "modules")
"""Kinds of steps that have key numbers."""


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


def all_numbers(
    results: dict[str, xr.Dataset], groups: Mapping[str, Sequence[str]] | None = None
) -> list[dict[str, str]]:
    """Gather the key numbers of several results.

    Parameters
    ----------
    results : dict of str to xarray.Dataset
        Results by step.
    groups : mapping of str to sequence of str, optional
        Networks that differ in their seed alone, by the name they share; their decodings make one row.

    Returns
    -------
    list of dict
        Rows of one table: neurons and segregation first.
    """
    first: list[dict[str, str]] = []
    rows: list[dict[str, str]] = []
    owner = {name: group for group, names in (groups or {}).items() for name in names if len(names) > 1}
    decoded: dict[tuple[str, str], list[xr.Dataset]] = {}
    for result in results.values():
        analysis = result.attrs.get("analysis")
        if analysis == "rsa":
            rows += rsa_numbers(result)
        elif analysis == "neuron_summary":
            first += neuron_numbers(result)
        elif analysis == "segregation_seeds":
            first += seeds_numbers(result)
        elif analysis == "specialization_sweep":
            first += module_numbers(result)
        elif analysis == "lesion_matched":
            rows += matched_numbers(result)
        elif analysis == "decoding":
            name = str(result.attrs["network"])
            decoded.setdefault((str(result.attrs["label"]), owner.get(name, name)), []).append(result)
    for (_, group), some in decoded.items():
        rows.append(decoding_numbers(some[0]) if len(some) == 1 else group_numbers(group, some))
    return [*first, *rows]


def group_numbers(group: str, results: Sequence[xr.Dataset]) -> dict[str, str]:
    """Find the number of a decoding from several networks that differ in their seed.

    Parameters
    ----------
    group : str
        The name they share.
    results : sequence of xarray.Dataset
        What `actkit.decode` returned for each, with the same layers.

    Returns
    -------
    dict
        ``data``, ``what``, ``value``, ``note``: mean and range at the layer of the highest mean.
    """
    values = np.array([result["accuracy"].values for result in results])
    best = int(np.argmax(values.mean(axis=0)))
    at = values[:, best]
    first = results[0]
    return {
        "data": f"decoding of {first.attrs['label']}",
        "what": f"best layer of {group}",
        "value": f"{at.mean():.1%} ({at.min():.1%} to {at.max():.1%})",
        "note": f"{first['layer'].values[best]}, chance {float(first['chance']):.1%}, mean (range) of {len(at)} "
        "networks",
    }


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
    results = {step.id: load(done.out / step.outputs[0]) for step in done.plan.steps if step.kind in NUMBERED}
    rows = all_numbers(results, done.plan.study.groups)
    table = read_accuracies(done.out, done.plan)
    if table is not None:
        rows += accuracy_numbers(table)
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
