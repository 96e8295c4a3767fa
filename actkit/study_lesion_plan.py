"""The steps of a study of lesions: segregation of each network, the summary over seeds, and what top units prefer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actkit.errors import InputError, nearest
from actkit.study_spec import AnalysisStep, NetworkSpec
from actkit.study_words import slug

if TYPE_CHECKING:
    from actkit.study_plan import Builder, Step

SEEDS_FIGURES = ("index", "shared", "lesions", "selectivity", "accuracy", "decoding")
"""Figures over seeds, in the order of the report."""
NETWORK_FIGURES = ("index", "curves", "drops", "shared")
"""Figures of one network."""
MOST_IMAGES = 48
"""Images that one figure of feature visualisation holds."""


@dataclass
class Lesioned:
    """One planned `segregation` item: its steps by network, and what the summary over seeds will need."""

    analysis: AnalysisStep
    steps: dict[str, str]
    layers: list[str]


def plan_segregation(builder: Builder, analysis: AnalysisStep) -> Lesioned:
    """Plan the segregation of every network of an item.

    Parameters
    ----------
    builder : Builder
        Takes the steps.
    analysis : AnalysisStep
        The item.

    Returns
    -------
    Lesioned
        For `plan_seeds` and `plan_feature_visualization`.

    Raises
    ------
    InputError
        If a layer does not exist, or networks that are compared have others.
    """
    shop, own, options = builder.workshop, analysis.own, analysis.options["segregation"]
    chosen = builder.chosen(analysis)
    layers: list[str] = []
    steps = {}
    for spec in chosen:
        found = shop.layers(spec, list(own.layers), f"{analysis.where}, layers")
        if layers and found != layers:
            raise InputError(
                f"{analysis.where}, layers: {spec.name!r} has {', '.join(found)} and {chosen[0].name!r} has "
                f"{', '.join(layers)}, so they cannot be compared; name layers that all of them have, or write one "
                "segregation step for each"
            )
        layers = found
        object_ = builder.free("segregation", spec.name)
        stem = f"segregation_{slug(object_)}"
        steps[spec.name] = builder.add(
            "segregation",
            object_,
            (f"network {spec.name}",),
            (f"results/{stem}.nc", f"tables/{stem}.csv"),
            detail={
                "network": spec,
                "layers": tuple(found),
                "options": options,
                "where": f"{analysis.where}, {spec.name}",
            },
            options=builder.deciding(options),
            layers=found,
            sets=shop.sets_key(spec),
        ).id
    for key in ("early", "late"):
        name = getattr(own, key)
        if name is not None and name not in layers:
            raise InputError(f"{analysis.where}, {key}: {name!r} is not among the layers; {nearest(name, layers)}")
    first: set[str] = set()
    for spec in chosen:  # of a group, one network is drawn on its own
        group = spec.group or spec.name
        if group not in first:
            first.add(group)
            name = steps[spec.name]
            builder.figures(
                name,
                (name,),
                slug(name),
                {
                    "draw": "segregation",
                    "result": name,
                    "kinds": NETWORK_FIGURES,
                    "layer": own.late or layers[-1],
                    "where": analysis.where,
                },
                more=NETWORK_FIGURES[1:],
                kinds=NETWORK_FIGURES,
                layer=own.late,
            )
    return Lesioned(analysis, steps, layers)


def plan_seeds(builder: Builder, lesioned: Lesioned) -> None:
    """Plan the summary over seeds, with its findings and figures; after all other analyses, since it reads decodings.

    Parameters
    ----------
    builder : Builder
        Takes the steps.
    lesioned : Lesioned
        What `plan_segregation` planned.
    """
    analysis, own = lesioned.analysis, lesioned.analysis.own
    study = builder.study
    specs = {spec.name: spec for spec in study.networks}
    groups: dict[str, list[str]] = {}
    for name in lesioned.steps:
        groups.setdefault(specs[name].group or name, []).append(name)
    alone = {name: list(study.groups[name]) for name in own.singles if name not in groups}
    decodings = _decodings(builder, {**groups, **alone}, specs)
    object_ = builder.free("segregation", "over seeds")
    stem = "segregation_seeds" + object_.removeprefix("over seeds").replace(" ", "_")
    settings = {
        "control": own.control,
        "early": own.early or lesioned.layers[0],
        "late": own.late or lesioned.layers[-1],
        "singles": list(own.singles),
    }
    needed = [
        *lesioned.steps.values(),
        *(f"network {name}" for names in {**groups, **alone}.values() for name in names),
        *(step for tasks in decodings.values() for steps in tasks.values() for step in steps),
    ]
    detail = {
        "groups": {group: tuple(lesioned.steps[name] for name in names) for group, names in groups.items()},
        "networks": {group: tuple(names) for group, names in {**groups, **alone}.items()},
        "decoding": decodings,
        "decoding_layer": own.decoding_layer,
        "settings": settings,
        "where": analysis.where,
    }
    step = builder.add(
        "segregation_seeds",
        object_,
        tuple(dict.fromkeys(needed)),
        (f"results/{stem}.nc", f"tables/{stem}.csv", f"tables/{stem.replace('_seeds', '_findings')}.csv"),
        detail=detail,
        id_=f"segregation {object_}",
        **{key: value for key, value in detail.items() if key != "where"},
    )
    kinds = tuple(kind for kind in SEEDS_FIGURES if kind != "decoding" or len(decodings) > 1)
    builder.figures(
        step.id,
        (step.id, *step.inputs),
        stem,
        {"draw": "segregation_seeds", "result": step.id, "kinds": kinds, "where": analysis.where},
        more=kinds[1:],
        kinds=kinds,
    )


def _decodings(
    builder: Builder, groups: dict[str, list[str]], specs: dict[str, NetworkSpec]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Find the decodings of a study that tell of a task: those of the label that holds the task's classes."""
    labels: dict[str, str] = {}
    for names in groups.values():
        for task, sets in builder.workshop.image_sets(specs[names[0]]).items():
            labels.setdefault(task, sets.label)
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    steps = [step for step in builder.steps.values() if step.kind == "decoding"]
    for group, names in groups.items():
        for task, label in labels.items():
            mine = [_decoding_of(steps, name, label) for name in names]
            if all(one is not None for one in mine):
                found.setdefault(group, {})[task] = tuple(one.id for one in mine if one is not None)
    return found


def _decoding_of(steps: list[Step], name: str, label: str) -> Step | None:
    """The first decoding of a label from a network."""
    for step in steps:
        if step.detail["network"].name == name and step.detail["label"] == label:
            return step
    return None


def plan_feature_visualization(builder: Builder, analysis: AnalysisStep, before: list[Lesioned]) -> None:
    """Plan the images that drive the units which each task needs most, one step and figure for each task.

    Parameters
    ----------
    builder : Builder
        Takes the steps.
    analysis : AnalysisStep
        The item.
    before : list of Lesioned
        What the segregation items before it planned.

    Raises
    ------
    InputError
        If a layer is not among those of the segregation, or the images do not fit one figure.
    """
    shop, own, options = builder.workshop, analysis.own, analysis.options["feature_visualization"]
    settings: dict[str, Any] = options.model_dump()
    for spec in builder.chosen(analysis):
        source = next(one for one in before if spec.name in one.steps)
        layers = shop.layers(spec, list(own.layers), f"{analysis.where}, layers") if own.layers else source.layers
        for layer in layers:
            if layer not in source.layers:
                raise InputError(
                    f"{analysis.where}, layers: {layer!r} is not lesioned in the segregation step before this one, so "
                    f"nothing says which of its units are needed; {nearest(layer, source.layers)}"
                )
        count = len(layers) * own.top * int(settings["n_seeds"])
        if count > MOST_IMAGES:
            raise InputError(
                f"{analysis.where}: {len(layers)} layers with {own.top} units and {settings['n_seeds']} images each "
                f"make {count} images, and a figure holds {MOST_IMAGES}; name fewer layers, or lower top or n_seeds"
            )
        for task in shop.image_sets(spec):
            object_ = builder.free("feature_visualization", f"{spec.name} {task}")
            stem = f"feature_visualization_{slug(object_)}"
            step = builder.add(
                "feature_visualization",
                object_,
                (f"network {spec.name}", source.steps[spec.name]),
                (f"results/{stem}.nc",),
                detail={
                    "network": spec,
                    "segregation": source.steps[spec.name],
                    "task": task,
                    "layers": tuple(layers),
                    "top": own.top,
                    "options": options,
                    "where": analysis.where,
                },
                options=builder.deciding(options),
                task=task,
                layers=layers,
                top=own.top,
            )
            builder.figures(
                step.id,
                (step.id,),
                stem,
                {"draw": "feature_visualization", "result": step.id, "where": analysis.where},
            )
