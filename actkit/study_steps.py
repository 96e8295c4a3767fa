"""What each kind of step of a study does; `actkit.study_jobs` decides which one runs when."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from actkit.recordings import leading_dim, rdm_dataset, select_stimuli
from actkit.results import atomic_write, load, save, to_table
from actkit.study_file import function, said_where
from actkit.study_lesion_matched import do_lesion_matched
from actkit.study_lesions import (
    accuracies,
    decodings,
    do_accuracies,
    do_feature_visualization,
    do_seeds,
    do_segregation,
)
from actkit.study_neurons import do_ceiling, do_control, do_encode, do_match, do_summary, do_transfer
from actkit.study_opening import call_progress
from actkit.study_plan import Plan, Step
from actkit.study_specialization import (
    do_dynamics,
    do_masks,
    do_modules,
    do_specialization,
    do_sweep,
    drawn_modules,
)
from actkit.study_words import has_value, label_word
from actkit.study_workshop import Workshop


class Doing:
    """What every step has at hand: the plan, the opened things, the folder and the results so far."""

    def __init__(self, plan: Plan, workshop: Workshop, command: str | None) -> None:
        self.plan = plan
        self.shop = workshop
        self.command = command
        self.out = plan.out

    def result(self, id_: str) -> xr.Dataset:
        """Load the result of an earlier step."""
        return load(self.out / self.plan[id_].outputs[0])


def _stimuli(doing: Doing, step: Step) -> None:
    """Write the ids and labels of the stimuli."""
    atomic_write(doing.out / step.outputs[0], doing.shop.stimuli.table().to_csv(index=False))


def _network(doing: Doing, step: Step) -> None:
    """Open (or train) a network and note what it is."""
    spec = step.detail["network"]
    network = doing.shop.network(spec)
    facts = {
        "name": spec.name,
        "extractor": spec.extractor,
        "options": spec.options,
        "fingerprint": network.fingerprint,
        "weights_sha256": network.weights_sha256,
        "preprocessing": network.preprocess_description,
        "preprocessing_sha256": network.preprocess_sha256,
        "provenance": network.provenance,
    }
    atomic_write(doing.out / step.outputs[0], json.dumps(facts, indent=1, default=str, sort_keys=True) + "\n")


def _record(doing: Doing, step: Step) -> None:
    """Record a network; a stopped recording goes on, one of something else is replaced."""
    extract = function("record")
    spec, options = step.detail["network"], step.detail["options"]
    network = doing.shop.network(spec)
    path = doing.shop.store_path(spec.name)
    changed = doing.shop.another_is_at(path, network, options)
    extract(
        network,
        doing.shop.stimuli,
        path,
        **call_progress(extract, doing.shop.progress),
        options=options.model_copy(update={"overwrite": changed, "resume": not changed}),
    )


def _rdm(doing: Doing, step: Step) -> None:
    """Turn a recording into RDMs named after the network."""
    rdm = function("rdm")
    spec = step.detail["network"]
    rdms = rdm(doing.shop.store(spec.name), **call_progress(rdm, doing.shop.progress), options=step.detail["options"])
    rdms.attrs |= {"name": spec.name, "network": spec.name} | ({"kind": "control"} if spec.control else {})
    labels = {key: ("stimulus", values) for key, values in doing.shop.stimuli.labels.items() if key not in rdms.dims}
    save(
        rdms.drop_vars(
            [name for name in rdms.coords if rdms[name].dims == ("stimulus",) and name != "stimulus"]
        ).assign_coords(labels),
        doing.out / step.outputs[0],
    )


def _rsa(doing: Doing, step: Step) -> None:
    """Compare layers, controls and models with the subjects."""
    rsa = function("rsa")
    detail = step.detail
    data = doing.shop.selected_data(detail["data"], detail["select"], detail["selection"], detail["where"])
    ids = data["stimulus"].values.astype(str)
    # Correlations between patterns do not depend on the other stimuli, so RDMs of all the stimuli can be cut to size.
    rdms = [as_candidate(select_stimuli(doing.result(name), ids)) for name in detail["rdms"]]
    models = doing.shop.models(detail["models"], ids, detail["where"], [] if detail["select"] else None)
    result = rsa([*rdms, *models], data, **call_progress(rsa, doing.shop.progress), options=detail["options"])
    _save_result(doing, step, result)


def as_candidate(rdms: xr.Dataset) -> xr.Dataset:
    """Let a control of one layer go by its own name, without that of its layer.

    Parameters
    ----------
    rdms : xarray.Dataset
        RDM dataset along ``layer``.

    Returns
    -------
    xarray.Dataset
        The same, or an RDM dataset along ``model``.
    """
    if rdms.attrs.get("kind") != "control" or rdms.sizes["layer"] > 1:
        return rdms
    return rdms.rename(layer="model").assign_coords(model=[str(rdms.attrs["network"])])


def _decoding(doing: Doing, step: Step) -> None:
    """Decode one label from every layer of one network."""
    decode = function("decoding")
    spec = step.detail["network"]
    store = doing.shop.store(spec.name)
    # The study's labels, not the store's: those are as they were when it was recorded.
    values = doing.shop.label(step.detail["column"], step.detail["where"])
    use = doing.shop.selected(step.detail["select"], step.detail["where"])
    rows = np.flatnonzero(use & np.array([has_value(value) for value in values.tolist()], dtype=bool))
    source = store if len(rows) == len(values) else {layer: store[layer].isel(stimulus=rows) for layer in store.layers}
    words = np.array([label_word(value) for value in values[rows].tolist()])
    labels = xr.DataArray(words, {"stimulus": store.ids[rows]}, "stimulus", step.detail["label"])
    result = decode(source, labels, **call_progress(decode, doing.shop.progress), options=step.detail["options"])
    _save_result(doing, step, result.assign_attrs(network=spec.name, n_without_label=int(use.sum()) - len(rows)))


def _save_result(doing: Doing, step: Step, result: xr.Dataset) -> None:
    """Save a result as netCDF and as a table."""
    save(result, doing.out / step.outputs[0])
    atomic_write(doing.out / step.outputs[1], to_table(result).to_csv(index=False))


@dataclass(frozen=True)
class Drawing:
    """One figure of a step.

    Attributes
    ----------
    stem : str
        Where it goes in the study's folder, without suffix.
    result : xarray.Dataset or dict
        What is drawn; results of several networks by name are drawn side by side.
    options : dict
        Options of the drawing.
    """

    stem: str
    result: xr.Dataset | dict[str, xr.Dataset]
    options: dict[str, Any]


def _figures(doing: Doing, step: Step) -> None:
    """Draw the figures of a step, each with a text of its caption and, below a blank line, its description."""
    from actkit.plotting import alt_text, caption, plot, save_figure

    for drawing in drawings(doing, step):
        save_figure(plot(drawing.result, **drawing.options), doing.out / drawing.stem)
        words = caption(drawing.result, **drawing.options), alt_text(drawing.result, **drawing.options)
        atomic_write(doing.out / f"{drawing.stem}.txt", "\n\n".join(words) + "\n")


def drawings(doing: Doing, step: Step) -> list[Drawing]:
    """List the figures of a step.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``figures``.

    Returns
    -------
    list of Drawing
        One entry a figure.
    """
    stems = list(dict.fromkeys(name.rpartition(".")[0] for name in step.outputs))
    detail = step.detail
    if detail["draw"] == "decoding":
        results = [doing.result(name) for name in drawn_decodings(doing.plan, detail["results"])]
        return [Drawing(stems[0], {result.attrs["network"]: result for result in results}, {})]
    if detail["draw"] == "rsa":
        result = doing.result(detail["result"])
        return [Drawing(stem, result, {"kind": chart}) for stem, chart in zip(stems, detail["charts"], strict=True)]
    if detail["draw"] == "neurons":
        chosen = zip(stems, detail["drawn"], strict=True)
        return [Drawing(stem, doing.result(result), dict(options)) for stem, (_, result, options) in chosen]
    if detail["draw"] == "modules":
        return [
            Drawing(stem, *drawn_modules(doing, step, kind)) for stem, kind in zip(stems, detail["kinds"], strict=True)
        ]
    if detail["draw"] in ("feature_visualization", "lesion_matched"):
        return [Drawing(stems[0], doing.result(detail["result"]), {})]
    if detail["draw"] in ("segregation", "segregation_seeds"):
        return lesion_drawings(doing, step, stems)
    shown = beside_data(doing, step) if "data" in detail else doing.result(detail["result"])
    common: dict[str, Any] = {"stimuli": doing.shop.stimuli, "labels": None}
    if detail["labels"] is not None:
        values = doing.shop.label(detail["labels"], detail["where"]).tolist()
        named = zip(doing.shop.stimuli.ids.tolist(), values, strict=True)
        labelled = {name: label_word(value) for name, value in named if has_value(value)}
        kept = [name for name in shown["stimulus"].values.tolist() if name in labelled]
        if len(kept) >= 3:  # of joined sets, those that the label is about
            shown, common["labels"] = select_stimuli(shown, kept), labelled
    return [Drawing(stems[0], shown, {**common, "view": "matrix"}), Drawing(stems[1], shown, {**common, "view": "map"})]


def drawn_decodings(plan: Plan, results: Sequence[str]) -> list[str]:
    """Choose which decodings one figure shows: of networks that differ in their seed alone, the first.

    Parameters
    ----------
    plan : Plan
        The steps.
    results : sequence of str
        Steps of kind ``decoding``.

    Returns
    -------
    list of str
        Some of them, in order.
    """
    first: dict[str, str] = {}
    for name in results:
        spec = plan[name].detail["network"]
        first.setdefault(spec.group or spec.name, name)
    return list(first.values())


def lesion_drawings(doing: Doing, step: Step, stems: list[str]) -> list[Drawing]:
    """List the figures of a segregation, of one network or over seeds.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``figures``.
    stems : list of str
        Where the figures go.

    Returns
    -------
    list of Drawing
        One entry a figure.
    """
    detail = step.detail
    result = doing.result(detail["result"])
    more: dict[str, Any] = {}
    if detail["draw"] == "segregation_seeds":
        summary = doing.plan[detail["result"]]
        more = {"accuracies": accuracies(doing, summary.detail["networks"]), "decoding": decodings(doing, summary)}
    drawn = []
    for stem, kind in zip(stems, detail["kinds"], strict=True):
        options = {"kind": kind, **more}
        if detail["draw"] == "segregation" and kind == "curves":
            options["layer"] = detail["layer"]
        drawn.append(Drawing(stem, result, options))
    return drawn


def beside_data(doing: Doing, step: Step) -> xr.Dataset:
    """Put the mean RDM of the subjects beside one RDM of each network.

    All dissimilarities are ranked: subjects before they are averaged, as in the noise ceiling of a rank correlation,
    since their scales may differ, and networks so that all can be seen on one scale. Of a network with several layers
    the one with the highest mean score is shown where the study compares them with these data, and the last one
    otherwise.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``figures`` that shows data.

    Returns
    -------
    xarray.Dataset
        RDM dataset along ``rdm``.
    """
    detail = step.detail
    data = doing.shop.data(detail["data"], detail["where"])
    dim, ids = leading_dim(data), data["stimulus"].values.astype(str)
    title = str(data.attrs["name"])
    n = data.sizes[dim]
    parts = [mean_rank(data["dissimilarity"].values)]
    names = [title if n == 1 else f"mean of {n} {dim}s"]
    compared = doing.result(detail["compared"]) if detail["compared"] else None
    for name in detail["rdms"]:
        rdms = select_stimuli(doing.result(name), ids)
        layers, network = rdms["layer"].values.astype(str), str(rdms.attrs["network"])
        best = len(layers) - 1
        if compared is not None and len(layers) > 1:
            rows = np.flatnonzero(compared["network"].values.astype(str) == network)
            scores = compared["mean"].values[rows]
            if not np.isnan(scores).all():
                best = int(np.flatnonzero(layers == str(compared["layer"].values[rows[int(np.nanargmax(scores))]]))[0])
        parts.append(mean_rank(rdms["dissimilarity"].values[best : best + 1]))
        names.append(network if len(layers) == 1 else f"{network} {layers[best]}")
    made = rdm_dataset(np.array(parts), names, "rdm", ids, "ranked", f"{title} and networks")
    return made.assign_attrs(analysis="rdm", **{key: data.attrs[key] for key in ("simulated",) if key in data.attrs})


def mean_rank(vectors: np.ndarray) -> np.ndarray:
    """Average RDMs after ranking each one's dissimilarities.

    Parameters
    ----------
    vectors : numpy.ndarray, shape (subjects, pairs)
        Dissimilarities.

    Returns
    -------
    numpy.ndarray, shape (pairs,)
        Mean rank, from 0 to 1.
    """
    from scipy.stats import rankdata

    return rankdata(vectors, axis=1, nan_policy="omit").mean(axis=0) / vectors.shape[1]


def _report(doing: Doing, step: Step) -> None:
    """Write the report."""
    from actkit.study_report import write_report

    write_report(doing, step)


_DO: dict[str, Callable[[Doing, Step], None]] = {
    "stimuli": _stimuli,
    "network": _network,
    "record": _record,
    "rdm": _rdm,
    "rsa": _rsa,
    "decoding": _decoding,
    "accuracies": do_accuracies,
    "segregation": do_segregation,
    "segregation_seeds": do_seeds,
    "feature_visualization": do_feature_visualization,
    "ceiling": do_ceiling,
    "match": do_match,
    "control": do_control,
    "encode": do_encode,
    "transfer": do_transfer,
    "neurons": do_summary,
    "lesion_matched": do_lesion_matched,
    "sweep": do_sweep,
    "specialization": do_specialization,
    "dynamics": do_dynamics,
    "masks": do_masks,
    "modules": do_modules,
    "figures": _figures,
    "report": _report,
}


def do(doing: Doing, step: Step) -> None:
    """Do one step.

    Parameters
    ----------
    doing : Doing
        The plan, the opened things and the folder.
    step : Step
        What to do; the results of its inputs are there already.

    Raises
    ------
    ActkitError
        Whatever the step raises, with its place in the study file.
    """
    with said_where(str(step.detail["where"])) if "where" in step.detail else contextlib.nullcontext():
        _DO[step.kind](doing, step)
