"""The item `networks` of a study file: extractors with their options, and one network from several seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actkit import plugins
from actkit.errors import InputError, nearest
from actkit.options import parse
from actkit.study_spec import AnalysisStep, NetworkSpec, Study, as_mapping, said_where

_KEYS = ("extractor", "name", "control", "record", "seeds")
# What the part after the colon is called among an extractor's options: 'timm:resnet18', 'checkpoint:file.safetensors'.
_WHICH = ("model", "file", "path")


def read_networks(items: Sequence[Any], source: str, folder: Path, seed: int) -> tuple[NetworkSpec, ...]:
    """Read the list `networks` of a study file.

    Parameters
    ----------
    items : sequence
        What the file holds: names of extractors, or mappings.
    source : str
        Name of the file, for messages.
    folder : Path
        Folder of the file, from which paths count.
    seed : int
        Seed of the study, the first of a network from ``seeds: N``.

    Returns
    -------
    tuple of NetworkSpec
        In the order of the file; an item with ``seeds`` gives one for each, named NAME-seed0, NAME-seed1, …

    Raises
    ------
    InputError
        If an item cannot be read, or a name is taken.
    """
    specs: list[NetworkSpec] = []
    taken: set[str] = set()
    for number, item in enumerate(items, 1):
        where = f"{source}, networks, item {number}"
        read = _network(item, number, where, folder, seed)
        names = {name for spec in read for name in (spec.name, spec.group) if name is not None}
        for name in sorted(names & taken):
            raise InputError(f"{where}: the name {name!r} is taken by an earlier network; give `name: …`")
        taken |= names
        specs += read
    return tuple(specs)


def _network(item: Any, number: int, where: str, folder: Path, seed: int) -> list[NetworkSpec]:
    """Read one item of ``networks``."""
    values = {"extractor": item} if isinstance(item, str) else as_mapping(item, where, "write {extractor: NAME}")
    if "extractor" not in values:
        raise InputError(f"{where}: `extractor: NAME` is missing; {nearest('', plugins.found('actkit.extractors'))}")
    own = {key: values[key] for key in _KEYS if key in values}
    options = {key: value for key, value in values.items() if key not in _KEYS}
    with said_where(f"{where}, extractor"):
        kind, settings = network_settings(str(own["extractor"]), options)
    model = next((str(settings[key]) for key in _WHICH if isinstance(settings.get(key), str)), "")
    own.setdefault("name", re.sub(r"[^\w.+-]+", "-", model.rstrip("/").rsplit("/", 1)[-1]) or kind)
    declared = getattr(plugins.load("actkit.extractors", kind), "options_model", None)
    if declared is not None and "file" in settings and (folder / str(settings["file"])).exists():
        settings["file"] = str(folder / str(settings["file"]))
    if isinstance(own.get("record"), bool):
        own["recorded"] = own.pop("record")
    seeds = _seeds(own.pop("seeds"), where, kind, declared, settings, seed) if "seeds" in own else None
    if declared is not None:
        parse(declared, settings, where)
    spec = parse(NetworkSpec, {**own, "item": number, "extractor": kind, "options": settings}, where)
    if any(char in spec.name for char in '/\\:*?"<>| ') or spec.name.startswith("."):
        raise InputError(
            f'{where}, name: {spec.name!r} also names files, so it takes no spaces, no /\\:*?"<>| and no dot first'
        )
    if seeds is None:
        return [spec]
    return [
        spec.model_copy(
            update={"name": f"{spec.name}-seed{one}", "group": spec.name, "options": {**settings, "seed": one}}
        )
        for one in seeds
    ]


def _seeds(value: Any, where: str, kind: str, declared: Any, settings: Mapping[str, Any], seed: int) -> list[int]:
    """Read ``seeds``: how many, from the study's on, or which."""
    if declared is not None and "seed" not in declared.model_fields:
        raise InputError(f"{where}, seeds: the extractor {kind!r} takes no seed, so all of them would be the same")
    if "seed" in settings:
        raise InputError(f"{where}: seed and seeds are both given; keep one of them")
    listed = value if isinstance(value, list) else [value]
    if any(isinstance(one, bool) or not isinstance(one, int) for one in listed):
        raise InputError(f"{where}, seeds: {value!r} is neither a number of seeds nor a list of them")
    if not isinstance(value, list):
        if value < 1:
            raise InputError(f"{where}, seeds: {value} leaves no network; give 1 or more, or take the item out")
        return list(range(seed, seed + value))
    if not value or min(value) < 0 or len(set(value)) < len(value):
        raise InputError(f"{where}, seeds: {value!r} must hold at least one seed, each once and none below 0")
    return value


def tasks_with_sets(spec: NetworkSpec) -> list[str]:
    """Name the tasks of a network whose images are cut into sets.

    Parameters
    ----------
    spec : NetworkSpec
        A network of a study.

    Returns
    -------
    list of str
        In the order of the file; empty for a network that is not trained here.
    """
    tasks = spec.options.get("tasks")
    if not isinstance(tasks, Mapping):
        return []
    return [str(task) for task, entry in tasks.items() if isinstance(entry, Mapping) and "sets" in entry]


def lesion_networks(step: AnalysisStep, study: Study, names: Sequence[str]) -> list[str]:
    """Settle which networks a `segregation` step lesions.

    Parameters
    ----------
    step : AnalysisStep
        The step.
    study : Study
        The study.
    names : sequence of str
        Networks that the step names; none: those that can be.

    Returns
    -------
    list of str
        Names of networks.

    Raises
    ------
    InputError
        If one has not two tasks with image sets, or the control is not among them.
    """
    able = []
    for spec in study.networks:
        tasks = spec.options.get("tasks")
        if isinstance(tasks, Mapping) and len(tasks) == 2 and len(tasks_with_sets(spec)) == 2:
            able.append(spec.name)
        elif spec.name in names:
            found = tasks_with_sets(spec)
            raise InputError(
                f"{step.where}, networks: {spec.name!r} cannot be lesioned here: a segregation needs two tasks with "
                f"image sets of their own, and it has {len(found)} such of {len(tasks) if tasks else 'its'} tasks; "
                "write `tasks: {NAME: {dataset: …, sets: {training: …, selectivity: …, ranking: …, evaluation: …}}}`"
            )
    chosen = list(names) or able
    if not chosen:
        raise InputError(
            f"{step.where}: no network of the study has two tasks with image sets; write `tasks: {{NAME: {{dataset: …, "
            "sets: {training: …, selectivity: …, ranking: …, evaluation: …}}}` at one"
        )
    control = step.own.control
    if control is not None and not set(study.groups[control]) & set(chosen):
        raise InputError(f"{step.where}, control: {control!r} is not among the step's networks; add it to them")
    return chosen


def seen_networks(step: AnalysisStep, study: Study, before: Sequence[AnalysisStep], names: Sequence[str]) -> list[str]:
    """Settle which networks a `feature_visualization` step shows: those whose segregation comes before it.

    Parameters
    ----------
    step : AnalysisStep
        The step.
    study : Study
        The study.
    before : sequence of AnalysisStep
        The steps before it, settled or not.
    names : sequence of str
        Networks that the step names; none: the first one that is lesioned.

    Returns
    -------
    list of str
        Names of networks.

    Raises
    ------
    InputError
        If there is no segregation of one of them before.
    """
    lesioned: list[str] = []
    for other in before:
        if other.kind == "segregation":
            named = study.members(other.own.networks)
            lesioned += [name for name in lesion_networks(other, study, named) if name not in lesioned]
    for name in names:
        if name not in lesioned:
            raise InputError(
                f"{step.where}, networks: no segregation step before this one lesions {name!r}, so nothing says which "
                "units its tasks need; add it there"
            )
    if not lesioned:
        raise InputError(f"{step.where}: no segregation step comes before this one; it chooses the units to show")
    return list(names) or lesioned[:1]


def network_settings(text: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split ``EXTRACTOR:MODEL`` into the extractor and its options.

    Parameters
    ----------
    text : str
        ``"efficientnet_lite0"``, ``"timm:resnet18"``, ``"checkpoint:weights.safetensors"``.
    options : mapping
        The options given beside it.

    Returns
    -------
    tuple of str and dict
        Name of the extractor, and its options with the model (or file) among them.

    Raises
    ------
    InputError
        If there is no such extractor, it takes no model, or the model is given twice.
    """
    kind, sign, model = text.partition(":")
    known = plugins.found("actkit.extractors")
    if known and kind not in known:
        raise InputError(f"there is no extractor {kind!r}; {nearest(kind, known)}")
    settings = dict(options)
    if not sign:
        return kind, settings
    declared = getattr(plugins.load("actkit.extractors", kind), "options_model", None)
    fields = list(declared.model_fields) if declared is not None else list(_WHICH)
    which = next((key for key in _WHICH if key in fields), None)
    if which is None:
        raise InputError(f"{text!r}: the extractor {kind!r} takes no model after a colon; write {kind!r}")
    if which in settings:
        raise InputError(f"{text!r}: {which} is also given as an option ({settings[which]!r}); give it once")
    return kind, {which: model, **settings}
