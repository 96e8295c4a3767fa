"""The steps of a study of modules: a sweep of networks trained together, what each module knows, and the findings."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from actkit import plugins
from actkit.compute import spans
from actkit.errors import InputError
from actkit.options import parse
from actkit.results import atomic_write, save
from actkit.study_opening import call_progress
from actkit.study_spec import AnalysisStep, StepOf, said_where
from actkit.study_words import slug

if TYPE_CHECKING:
    import xarray as xr

    from actkit.study_plan import Builder, Plan, Step
    from actkit.study_steps import Doing

_NETWORKS = 40  # networks whose states are in memory together
_HEADLINES = {"finding": "Finding", "held": "Held", "checks": "Checks", "measured": "Measured"}
_COLUMNS = {
    "finding": "Finding",
    "group": "Networks",
    "masking": "Measure",
    "held": "Held",
    "measured": "Measured",
    "expected": "Expected",
    "rule": "Judged by",
    "source": "Source",
}
_FINDINGS_TEXT = """\
The findings of Béna & Goodman (2025) and of its first version (2021) beside what these networks show. Intervals are \
over seeds; networks of one seed share their images, so cells are compared within seeds. Yes: the interval lies wholly \
on the expected side; no: wholly on the other; undecided if it holds the boundary. High specialization of networks \
that do not solve the task, or were never trained, says nothing about learning: accuracy and untrained value stand \
beside every S."""


class SpecializationStep(StepOf):
    """What a study's ``specialization`` step takes beside the options of the measures."""

    name: str = Field("modules", min_length=1, description="what to call the sweep")
    sweep: dict[str, Any] = Field(
        {}, description="options of the sweep: sizes, connections, seeds, task, data and training"
    )
    dynamics: bool = Field(True, description="also follow the modules over time under random onsets")
    masks: dict[str, Any] | None = Field(
        None,
        description="options of weight masks, and `seeds`, how many networks of each kind they are learnt for",
    )
    figures: list[str] = Field(
        ["p", "Q", "covariance", "dynamics"], description="figures: p, Q, covariance (where it varies), dynamics"
    )


def engine() -> Any:
    """The module that trains sweeps."""
    return plugins.load("actkit.engines", "modules")


def beside(module: Any, name: str) -> Any:
    """A module of the same room as another one."""
    return importlib.import_module(f"{module.__package__}.{name}")


def plan_specialization(builder: Builder, analysis: AnalysisStep) -> None:
    """Plan a sweep: training, measures, dynamics, masks, findings and figures.

    Parameters
    ----------
    builder : Builder
        Takes the steps.
    analysis : AnalysisStep
        The item.

    Raises
    ------
    InputError
        If networks are named, or an option of the sweep or the masks does not fit.
    DataError
        If the data set is not there.
    """
    own, study = analysis.own, builder.study
    made = engine()
    sweep_options = parse(made.SweepOptions, {"first_seed": study.seed, **own.sweep}, f"{analysis.where}, sweep")
    with said_where(f"{analysis.where}, sweep"):
        cells = made.cells_of(sweep_options)
        train, test = made.glyphs_of(sweep_options)
    object_ = builder.free("sweep", own.name)
    stem = slug(object_)
    count = len(cells) * (2 if sweep_options.untrained and sweep_options.epochs else 1)
    sweep = builder.add(
        "sweep",
        object_,
        (),
        (f"networks/{stem}.safetensors", f"networks/{stem}.safetensors.json", f"tables/{stem}.csv"),
        detail={"options": sweep_options, "where": f"{analysis.where}, sweep"},
        note=f"{count} networks trained here",
        content=made.sweep_key(sweep_options, train, test),
    )
    common = {"sweep": sweep.id, "where": analysis.where}
    options = analysis.options["specialization"]
    measured = builder.add(
        "specialization",
        object_,
        (sweep.id,),
        (f"results/specialization_{stem}.nc",),
        detail={**common, "options": options},
        options=builder.deciding(options),
    )
    parts = [measured.id]
    if own.dynamics:
        dynamics = analysis.options["specialization_dynamics"]
        parts.append(
            builder.add(
                "dynamics",
                object_,
                (sweep.id,),
                (f"results/dynamics_{stem}.nc",),
                detail={**common, "options": dynamics},
                options=builder.deciding(dynamics),
            ).id
        )
    if own.masks is not None:
        module = beside(plugins.load("actkit.analyses", "specialization"), "specialization_masks")
        given = {"seed": study.seed, **own.masks}
        seeds = given.pop("seeds", sweep_options.seeds)
        if not isinstance(seeds, int) or seeds < 1:
            raise InputError(f"{analysis.where}, masks, seeds: {seeds!r} is no number of networks; give 1 or more")
        masks = parse(module.WeightMaskOptions, given, f"{analysis.where}, masks")
        parts.append(
            builder.add(
                "masks",
                object_,
                (sweep.id,),
                (f"results/masks_{stem}.nc",),
                detail={**common, "options": masks, "seeds": seeds},
                options=builder.deciding(masks),
                seeds=seeds,
            ).id
        )
    found = builder.add(
        "modules",
        object_,
        tuple(parts),
        (f"results/modules_{stem}.nc", f"tables/modules_{stem}.csv", f"tables/findings_{stem}.csv"),
        detail={**common, "parts": tuple(parts)},
    )
    kinds = [kind for kind in own.figures if kind != "covariance" or len(set(sweep_options.cov_ratios)) > 1]
    kinds = [kind for kind in kinds if kind != "dynamics" or own.dynamics]
    detail = {"draw": "modules", "kinds": tuple(kinds), "result": found.id, "parts": tuple(parts), **common}
    if kinds:
        builder.figures(found.id, (found.id, *parts), f"modules_{stem}_{kinds[0]}", detail, more=tuple(kinds[1:]))


def do_sweep(doing: Doing, step: Step) -> None:
    """Train all networks of a sweep, and list them with their accuracies."""
    made = engine()
    path = doing.out / step.outputs[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    train = made.train_sweep
    # A training that was cut off goes on from its checkpoint, which lies beside what it will become.
    checkpoint = path.with_name(f"{path.stem}.checkpoint.safetensors")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have the same targets throughout", category=UserWarning)
        sweep = train(
            checkpoint=checkpoint, **call_progress(train, doing.shop.progress), options=step.detail["options"]
        )
    made.save_sweep(sweep, path)
    table = sweep.table().reset_coords().to_dataframe().reset_index()
    atomic_write(doing.out / step.outputs[2], table.to_csv(index=False))


def opened_sweep(doing: Doing, step: Step) -> Any:
    """The networks that an earlier step trained."""
    made, trained = engine(), doing.plan[step.detail["sweep"]]
    return made.load_sweep(doing.out / trained.outputs[0], *made.glyphs_of(trained.detail["options"]))


def chunks_of(sweep: Any, chosen: np.ndarray | None = None) -> Iterator[list[int]]:
    """Numbers of networks of one size, some at a time."""
    for _, rows in sweep.of_one_size():
        kept = [k for k in rows if chosen is None or chosen[k]]
        for start, stop in spans(len(kept), _NETWORKS):
            yield kept[start:stop]


def answers(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Sub-tasks of recorded pairs: the digit of each module."""
    return {f"digit {m}": labels[:, :, m] for m in range(labels.shape[2])}


def do_specialization(doing: Doing, step: Step) -> None:
    """Measure what each module knows of each digit, at every step."""
    import xarray as xr

    sweep, made = opened_sweep(doing, step), engine()
    record = beside(made, "modular_states").record_states
    parts_of_units = beside(made, "modular_parts").parts_of_units
    run = plugins.load("actkit.analyses", "specialization").specialization
    found, where = [], []
    for rows in chunks_of(sweep):
        networks = [sweep.networks[k] for k in rows]
        learnt, tested = record(networks, sweep.train, draw=0), record(networks, sweep.test, draw=0)
        # Correlation is of a module's states while the other digit is whatever it may be.
        free = record(networks, sweep.test, draw=1, cov_ratio=1.0)
        states = np.concatenate([learnt["state"].values, tested["state"].values], axis=1)
        labels = np.concatenate([learnt["label"].values, tested["label"].values], axis=1)
        test = np.arange(states.shape[1]) >= learnt.sizes["stimulus"]
        with warnings.catch_warnings():
            # Where the covariance is 0 both digits are the same by design, and S of read-outs is 0: that is a finding.
            warnings.filterwarnings("ignore", message=".*have the same answers throughout", category=UserWarning)
            found.append(
                run(
                    states,
                    answers(labels),
                    parts_of_units(networks[0].options),
                    test=test,
                    decorrelated=(free["state"].values, answers(free["label"].values)),
                    progress=False,
                    options=step.detail["options"],
                )
            )
        where += rows
    save(_joined(found, where, sweep, xr), doing.out / step.outputs[0])


def do_dynamics(doing: Doing, step: Step) -> None:
    """Follow the modules over time while their digits appear at random steps."""
    import xarray as xr

    sweep, made = opened_sweep(doing, step), engine()
    record = beside(made, "modular_states").record_states
    parts_of_units = beside(made, "modular_parts").parts_of_units
    run = plugins.load("actkit.analyses", "specialization_dynamics").specialization_dynamics
    plain = doing.plan[step.detail["sweep"]].detail["options"].cov_ratios[0]
    chosen = np.array([one.world.cov_ratio == plain for one in sweep.networks])
    found, where = [], []
    for rows in chunks_of(sweep, chosen):
        networks = [sweep.networks[k] for k in rows]
        learnt = record(networks, sweep.train, draw=0)
        moving = record(networks, sweep.test, draw=2, random_onsets=True)
        found.append(
            run(
                learnt["state"].values,
                answers(learnt["label"].values),
                moving["state"].values,
                answers(moving["label"].values),
                moving["onset"].values,
                parts_of_units(networks[0].options),
                progress=False,
                options=step.detail["options"],
            )
        )
        where += rows
    save(_joined(found, where, sweep, xr), doing.out / step.outputs[0])


def do_masks(doing: Doing, step: Step) -> None:
    """Learn which weights each digit needs, for the first seeds of every kind of network."""
    import xarray as xr

    sweep, made = opened_sweep(doing, step), engine()
    places = beside(made, "modular_parts")
    run = beside(plugins.load("actkit.analyses", "specialization"), "specialization_masks").weight_masks
    options = doing.plan[step.detail["sweep"]].detail["options"]
    last = options.first_seed + step.detail["seeds"]
    chosen = np.array(
        [one.options.seed < last and one.world.cov_ratio == options.cov_ratios[0] for one in sweep.networks]
    )
    found, where = [], []
    for rows in chunks_of(sweep, chosen):
        networks = [sweep.networks[k] for k in rows]
        images, labels = places.shown_images(networks, sweep.train)
        first = networks[0]
        found.append(
            run(
                [one.module() for one in networks],
                images,
                answers(labels),
                places.parts_of_weights(first.options, first.outputs, first.n_classes),
                places.module_names(first.options.modules),
                progress=False,
                options=step.detail["options"],
            )
        )
        where += rows
    save(_joined(found, where, sweep, xr), doing.out / step.outputs[0])


def _joined(found: list[Any], rows: list[int], sweep: Any, xr: Any) -> xr.Dataset:
    """Results of networks of all sizes along one dim, with what is known of each network."""
    table = sweep.table().isel(network=rows)
    parts = [one.drop_vars("network", errors="ignore") for one in found]
    joined = xr.concat(parts, "network", data_vars="minimal", coords="minimal", compat="override", join="outer")
    return joined.assign_coords({name: table[name] for name in table.coords}).assign_attrs(found[0].attrs)


def do_modules(doing: Doing, step: Step) -> None:
    """Average over seeds, and set what was expected beside what was found."""
    room = plugins.load("actkit.analyses", "specialization")
    results = {name.partition(" ")[0]: doing.result(name) for name in step.detail["parts"]}
    summary = beside(room, "specialization_sweep").summarise_sweep(results["specialization"])
    save(summary, doing.out / step.outputs[0])
    atomic_write(doing.out / step.outputs[1], beside(room, "specialization_sweep").table(summary).to_csv(index=False))
    judged = beside(room, "specialization_findings").findings(
        results["specialization"], results.get("dynamics"), results.get("masks")
    )
    atomic_write(doing.out / step.outputs[2], judged.to_csv(index=False))


def drawn_modules(doing: Doing, step: Step, kind: str) -> tuple[xr.Dataset, dict[str, Any]]:
    """Find what one figure of a sweep draws.

    Parameters
    ----------
    doing : Doing
        The plan and what it opened.
    step : Step
        A step of kind ``figures``.
    kind : str
        Which figure.

    Returns
    -------
    result : xarray.Dataset
        The summary over seeds, or the dynamics.
    options : dict
        Options of the drawing.
    """
    if kind == "dynamics":
        (name,) = (part for part in step.detail["parts"] if part.startswith("dynamics"))
        return doing.result(name), {"kind": kind}
    return doing.result(step.detail["result"]), {"kind": kind}


def add_module_findings(report: Any, plan: Plan) -> None:
    """Add the tables of what was expected of networks of modules, and whether it held.

    Parameters
    ----------
    report : Report
        Takes the sections.
    plan : Plan
        The steps of the study.
    """
    import pandas as pd

    for step in plan.steps:
        if step.kind != "modules":
            continue
        table = pd.read_csv(plan.out / step.outputs[2], keep_default_na=False)
        module = beside(plugins.load("actkit.analyses", "specialization"), "specialization_findings")
        ten = module.headlines(table)
        counts = ", ".join(f"{word}: {n}" for word, n in ten["held"].value_counts(sort=False).items())
        name = slug(step.id.removeprefix("modules "))
        tables = [
            (
                ten[list(_HEADLINES)].rename(columns=_HEADLINES),
                f"headlines_{name}",
                f"{counts}. A finding is held if every check of it that was tested says yes, and not if any says no.",
            ),
            (
                table[[key for key in _COLUMNS if key in table]].rename(columns=_COLUMNS),
                f"checks_{name}",
                "Every check: by networks and measure, as mean and t interval over seeds.",
            ),
        ]
        report.add_section("Which findings held?", _FINDINGS_TEXT, tables=tables)


def module_numbers(summary: xr.Dataset) -> list[dict[str, str]]:
    """Find the numbers of a sweep that a reader asks for first.

    Parameters
    ----------
    summary : xarray.Dataset
        What ``summarise_sweep`` returned.

    Returns
    -------
    list of dict
        Rows with ``data``, ``what``, ``value``, ``note``: S by read-outs of each size with the fewest and with the most
        connections, beside its untrained value and the task accuracy.
    """
    from actkit.plotting import short

    measure = "retraining" if "retraining" in summary["measure"].values else str(summary["measure"].values[0])
    one = summary.sel(measure=measure)
    plain = one["cov_ratio"].values == float(summary.attrs["plain_cov_ratio"])
    p, size, trained = one["p"].values, one["cell_units"].values, one["trained"].values.astype(bool)
    rows = []
    for units in np.unique(size):
        kind = plain & (size == units) & (p > 0)
        for number in (np.nanmin(p[kind]), np.nanmax(p[kind])) if kind.any() else ():
            found = np.flatnonzero(kind & trained & (p == number))
            if not len(found):
                continue
            at = int(found[0])
            low, high = float(one["S_low"][at]), float(one["S_high"][at])
            before = np.flatnonzero(kind & ~trained & (p == number))
            note = f"task accuracy {short(float(one['task_accuracy'][at]))}"
            note += f"; untrained {short(float(one['S'][before[0]]))}" if len(before) else ""
            rows.append(
                {
                    "data": f"modules of {int(units)} units",
                    "what": f"S by {measure}, p {number:.2g}",
                    "value": f"{short(float(one['S'][at]))} ({short(low)} to {short(high)})",
                    "note": note,
                }
            )
    return rows


def modules_text(step: Step, doing: Doing) -> str:
    """Write what a reader should know before the figures of a sweep.

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
    options = doing.plan[step.detail["sweep"]].detail["options"]
    table = doing.result(step.detail["parts"][0])
    trained = table.isel(network=np.flatnonzero(table["trained"].values))
    data = options.data or "digits that ship with a package"
    return (
        f"{trained.sizes['network']} networks of {options.modules} modules were trained on {data} "
        f"({options.epochs} epochs, {options.steps} steps an image, noise {options.noise:g}; task {options.task}), "
        f"{options.seeds} seeds of each kind; task accuracy {float(trained['task_accuracy'].min()):.2f} to "
        f"{float(trained['task_accuracy'].max()):.2f}. Controls are the same networks before training."
    )


def checked(step: Any, where: str) -> None:
    """Refuse networks at a step that trains its own.

    Parameters
    ----------
    step : StepOf
        The step's own keys.
    where : str
        Its place in the study file.

    Raises
    ------
    InputError
        If networks are named.
    """
    if step.networks:
        raise InputError(f"{where}, networks: the sweep trains its own networks; describe them under `sweep`")
    known = ("p", "Q", "covariance", "dynamics")
    for kind in step.figures:
        if kind not in known:
            raise InputError(f"{where}, figures: there is no figure {kind!r}; choose among {', '.join(known)}")
