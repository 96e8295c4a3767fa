"""The study file: what it may say, and messages that name file, step and key when it says something else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_origin

import yaml

from actkit import plugins
from actkit.errors import InputError, nearest
from actkit.options import Options, parse
from actkit.study_lesion_matched import LesionMatchedStep
from actkit.study_networks import lesion_networks, network_settings, read_networks, seen_networks
from actkit.study_neuron_spec import (
    NEURON_KINDS,
    CeilingStep,
    EncodeStep,
    MatchStep,
    TransferStep,
    read_recordings,
    refuse_networks,
    settled_recordings,
)
from actkit.study_quick import quick_form
from actkit.study_spec import (
    AnalysisStep,
    DecodingStep,
    FeatureVisualizationStep,
    ModelSpec,
    NetworkSpec,
    ObserversSpec,
    RdmStep,
    ReportSpec,
    RsaStep,
    SegregationStep,
    SelectingStep,
    StepOf,
    StimuliSpec,
    Study,
    StudyHead,
    as_mapping,
    said_where,
)
from actkit.study_specialization import SpecializationStep, checked

__all__ = [
    "Study",
    "function",
    "load_study",
    "network_settings",
    "options_model",
    "options_of",
    "said_where",
    "shipped",
]

# The analyses a study can name: their own keys, and the entry points whose options they take beside them.
_ANALYSES: dict[str, tuple[type[StepOf], tuple[str, ...]]] = {
    "rdm": (RdmStep, ("rdm",)),
    "rsa": (RsaStep, ("rdm", "rsa")),
    "decoding": (DecodingStep, ("decoding",)),
    "segregation": (SegregationStep, ("segregation",)),
    "feature_visualization": (FeatureVisualizationStep, ("feature_visualization",)),
    "ceiling": (CeilingStep, ("neuron_reliability",)),
    "match": (MatchStep, ("unit_matching",)),
    "encode": (EncodeStep, ("encoding",)),
    "transfer": (TransferStep, ("matched_transfer",)),
    "lesion_matched": (LesionMatchedStep, ("lesion_matched",)),
    "specialization": (SpecializationStep, ("specialization", "specialization_dynamics")),
}
_OF_RECORDINGS = ("rdm", "rsa", "decoding", "match", "encode", "transfer", "lesion_matched")
_HEAD = "a study is a mapping that starts with `study: NAME`"


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key given twice (YAML itself would keep the last in silence)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Build a mapping, refusing repeated keys; a key beside ``<<`` wins over the one that is merged in."""
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice, on lines {seen[key]} and {line}; keep one", None
            )
        seen[key] = line
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def shipped() -> dict[str, Path]:
    """Find the studies that ship with actkit.

    Returns
    -------
    dict of str to Path
        Name and file.
    """
    folder = Path(__file__).parent / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_study(study: str | os.PathLike[str] | Mapping[str, Any], quick: bool = False) -> Study:
    """Read a study and check every key of it, before anything is computed.

    Parameters
    ----------
    study : str, path or mapping
        A YAML file, the name of a study that ships with actkit (``"demo"``, ``"kriegeskorte92"``), or the same
        content as a mapping.
    quick : bool
        Its quick form: with what it says under ``quick`` in place of the same keys elsewhere.

    Returns
    -------
    Study
        The checked study.

    Raises
    ------
    InputError
        Naming file, step and key, with the nearest key that exists.
    """
    if isinstance(study, Mapping):
        raw: Any = dict(study)
        source, folder, text = "the study", Path.cwd(), yaml.safe_dump(_plain(raw), sort_keys=False, allow_unicode=True)
    else:
        path = Path(study)
        if not path.is_file():
            known = shipped()
            if str(study) not in known:
                raise InputError(
                    f"no study file {str(study)!r}, and no study of that name ships with actkit; "
                    f"{nearest(str(study), known)}"
                )
            path = known[str(study)]
        source, folder, text = path.name, path.resolve().parent, _read(path)
        try:
            raw = yaml.load(text, Loader=_Loader)  # noqa: S506 (a subclass of the safe loader)
        except yaml.YAMLError as error:
            raise InputError(f"{source} is not YAML that can be read: {_yaml_words(error)}") from None
    whole = _check(raw, source, folder, text, quick=False)
    if not quick and not raw.get("quick"):
        return whole
    # A mistake in the quick form is told as well to those who run the whole of it.
    short = _check(quick_form(raw, source), f"{source}, quick form", folder, text, quick=True)
    return short if quick else whole


def _read(path: Path) -> str:
    """Read a study file as text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8 ({error}); a study is a YAML file") from None


def _yaml_words(error: yaml.YAMLError) -> str:
    """Say a YAML error in one line with its place."""
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return place + (getattr(error, "problem", None) or str(error))


def _plain(value: Any) -> Any:
    """Turn tuples and mappings into what YAML writes plainly."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def _check(raw: Any, source: str, folder: Path, text: str, quick: bool) -> Study:
    """Check the whole content of a study."""
    head = parse(StudyHead, as_mapping(raw, source, _HEAD), source)
    if any(char in head.study for char in '/\\:*?"<>|') or head.study.startswith("."):
        raise InputError(
            f'{source}, study: {head.study!r} names a folder of results, so it takes no /\\:*?"<>| or dot first'
        )
    alone = [item for item in head.analyses if isinstance(item, Mapping) and "specialization" in item]
    if not head.networks and not alone:
        raise InputError(
            f"{source}: `networks` is missing; name one network at least, such as `networks: [efficientnet_lite0]`"
        )
    networks = read_networks(head.networks, source, folder, head.seed)
    sets = head.stimuli if isinstance(head.stimuli, list) else [head.stimuli]
    if head.stimuli is None:
        if any(network.recorded for network in networks):
            raise InputError(
                f"{source}: `stimuli` is missing; name a data set or a folder to record the networks on, or write "
                "`record: false` at those that are only trained and lesioned"
            )
        sets = []
    elif not sets:
        raise InputError(f"{source}, stimuli: the list is empty; name a data set or a folder")
    stimuli = tuple(
        _stimuli(item, f"{source}, stimuli" + (f", item {i}" if len(sets) > 1 else ""), folder)
        for i, item in enumerate(sets, 1)
    )
    models = tuple(_model(item, f"{source}, models, item {i}") for i, item in enumerate(head.models, 1))
    observers = {
        str(name): _observers(item, f"{source}, simulate, {name}", head.seed) for name, item in head.simulate.items()
    }
    recordings = read_recordings(head.recordings, source)
    analyses = tuple(_analysis(item, i, source, head.seed) for i, item in enumerate(head.analyses, 1))
    report = head.report
    if isinstance(report, Mapping):
        report_spec: ReportSpec | None = parse(
            ReportSpec, as_mapping(report, f"{source}, report", ""), f"{source}, report"
        )
    elif isinstance(report, bool):
        report_spec = ReportSpec() if report else None
    else:
        raise InputError(f"{source}, report: {report!r} is neither true, false nor a mapping with title and text")
    study = Study(
        name=head.study,
        title=(head.title or head.study) + (" (quick form)" if quick else ""),
        description=head.description or "",
        seed=head.seed,
        networks=networks,
        stimuli=stimuli,
        record=_record(head, networks, source),
        models=models,
        observers=observers,
        analyses=analyses,
        report=report_spec,
        text=text,
        source=source,
        folder=folder,
        quick=quick,
        recordings=recordings,
    )
    return replace(study, analyses=tuple(_chosen(step, study, analyses[:i]) for i, step in enumerate(analyses)))


def _chosen(step: AnalysisStep, study: Study, before: tuple[AnalysisStep, ...]) -> AnalysisStep:
    """Settle which networks a step is about; from here on its list holds single networks."""
    known = [*study.groups, *(spec.name for spec in study.networks if spec.group)]
    places = {"networks": step.own.networks, "singles": getattr(step.own, "singles", [])}
    places["control"] = [one for one in (getattr(step.own, "control", None),) if one is not None]
    for key, names in places.items():
        for name in names:
            if name not in known or (key != "networks" and name not in study.groups):
                among = known if key == "networks" else list(study.groups)
                raise InputError(f"{step.where}, {key}: there is no network {name!r}; {nearest(name, among)}")
    if step.kind in NEURON_KINDS:
        settled_recordings(step.own, study, step.where)
        twin = getattr(step.own, "controls", {}).get("untrained", {}).get("network")
        if twin is not None and twin not in {spec.name for spec in study.networks}:
            among = [spec.name for spec in study.networks]
            raise InputError(f"{step.where}, controls, untrained: there is no network {twin!r}; {nearest(twin, among)}")
    if step.kind == "specialization":
        checked(step.own, step.where)
        return step
    names = study.members(step.own.networks)
    if step.kind == "ceiling":
        refuse_networks(names, step.where)
    elif step.kind in _OF_RECORDINGS:
        unrecorded = {spec.name for spec in study.networks if not spec.recorded}
        if barred := [name for name in names if name in unrecorded]:
            raise InputError(
                f"{step.where}, networks: {barred[0]!r} is not recorded (`record: false`), and {step.kind} is about "
                "recordings; leave it out here, or record it"
            )
        names = names or [spec.name for spec in study.networks if spec.recorded]
        if not names:
            raise InputError(f"{step.where}: no network of the study is recorded, so there is nothing to analyse")
    elif step.kind == "segregation":
        names = lesion_networks(step, study, names)
    else:
        names = seen_networks(step, study, before, names)
    return replace(step, own=step.own.model_copy(update={"networks": names}))


def _stimuli(item: Any, where: str, folder: Path) -> StimuliSpec:
    """Read one item of ``stimuli``: a name of a data set, a path, or a mapping."""
    if isinstance(item, str):
        if (folder / item).exists() or "/" in item or "\\" in item or Path(item).suffix:
            item = {"path": item}
        else:
            item = {"dataset": item}
    values = as_mapping(item, where, "name a data set or a folder, or write {dataset: NAME} or {path: FOLDER}")
    own = {key: value for key, value in values.items() if key in StimuliSpec.model_fields}
    extra = {key: value for key, value in values.items() if key not in StimuliSpec.model_fields}
    if extra and "dataset" not in values:
        key = next(iter(extra))
        raise InputError(f"{where}: unknown option {key!r}; {nearest(key, StimuliSpec.model_fields)}")
    spec = parse(StimuliSpec, {**own, "options": {**own.get("options", {}), **extra}}, where)
    if (spec.dataset is None) == (spec.path is None):
        raise InputError(f"{where}: give one of `dataset: NAME` and `path: FOLDER`")
    if spec.path is not None and not (folder / spec.path).exists():
        raise InputError(
            f"{where}, path: there is nothing at {folder / spec.path}; paths count from the study file's folder"
        )
    return spec


def _model(item: Any, where: str) -> ModelSpec:
    """Read one item of ``models``."""
    values = (
        {"label": item} if isinstance(item, str) else as_mapping(item, where, "write {label: NAME} or {data: NAME}")
    )
    spec = parse(ModelSpec, values, where)
    if (spec.label is None) == (spec.data is None):
        raise InputError(f"{where}: give one of `label: NAME` (a stimulus label) and `data: NAME` (shipped model RDMs)")
    if spec.data is not None and (spec.groups or spec.name):
        raise InputError(f"{where}: `groups` and `name` go with `label`; model RDMs that ship bring their own names")
    return spec


def _observers(item: Any, where: str, seed: int) -> tuple[ObserversSpec, tuple[ModelSpec, ...]]:
    """Read one item of ``simulate``."""
    spec = parse(ObserversSpec, {"seed": seed, **as_mapping(item, where, "write {truth: [{label: NAME}]}")}, where)
    truth = tuple(_model(model, f"{where}, truth, item {i}") for i, model in enumerate(spec.truth, 1))
    return spec, truth


def _analysis(item: Any, number: int, source: str, seed: int) -> AnalysisStep:
    """Read one item of ``analyses``: its name and its options, which go to the functions that know them."""
    here = f"{source}, analyses, step {number}"
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise InputError(f"{here}: {item!r} is not one analysis with its options; write `- rsa: {{data: [NAME]}}`")
    kind, values = next(iter(item.items()))
    if kind not in _ANALYSES:
        raise InputError(f"{here}: there is no analysis {kind!r}; {nearest(str(kind), _ANALYSES)}")
    where = f"{here} ({kind})"
    values = as_mapping({} if values is None else values, where, "write {option: value, …}")
    own_model, behind = _ANALYSES[kind]
    models = {name: options_model(name) for name in behind}
    own = {key: value for key, value in values.items() if key in own_model.model_fields}
    rest = {key: value for key, value in values.items() if key not in own}
    for key in rest:
        known = [*own_model.model_fields, *(name for model in models.values() for name in model.model_fields)]
        if key not in known:
            raise InputError(f"{where}: unknown option {key!r}; {nearest(key, known)}")
    for name, field_ in own_model.model_fields.items():
        if isinstance(own.get(name), str) and get_origin(field_.annotation) is list:
            own[name] = [own[name]]
    options = {}
    for name, model in models.items():
        mine = {key: value for key, value in rest.items() if key in model.model_fields}
        if "seed" in model.model_fields:
            mine.setdefault("seed", seed)
        options[name] = parse(model, mine, where)
    parsed = parse(own_model, own, where)
    if isinstance(parsed, SelectingStep) and parsed.name is not None and not parsed.select:
        raise InputError(
            f"{where}, name: {parsed.name!r} names the stimuli that `select` chooses, and all take part; "
            "add select: {LABEL: VALUE}, or leave the name out"
        )
    step_models = tuple(_model(m, f"{where}, models, item {i}") for i, m in enumerate(getattr(parsed, "models", []), 1))
    return AnalysisStep(kind, where, parsed, options, step_models)


def _record(head: StudyHead, networks: tuple[NetworkSpec, ...], source: str) -> dict[str, Options]:
    """Check the recording options of every network; a control records all its layers unless it says otherwise."""
    model = options_model("record")
    made = {}
    for network in networks:
        values = dict(head.record)
        if (
            network.control
            and "layers" not in network.record
            and network.extractor.partition(":")[0]
            not in {other.extractor.partition(":")[0] for other in networks if not other.control}
        ):
            # The study's layer patterns are written for the networks under study; a pixel control has none of them.
            values.pop("layers", None)
            values.pop("types", None)
        where = f"{source}, record" if not network.record else f"{source}, networks, item {network.item}, record"
        values = (
            {"seed": head.seed, **values, **network.record}
            if "seed" in model.model_fields
            else {**values, **network.record}
        )
        for forbidden in ("overwrite", "resume"):
            if forbidden in values:
                raise InputError(
                    f"{where}: {forbidden!r} is decided by the study itself, which records what has changed"
                )
        if network.recorded:
            made[network.name] = parse(model, values, where)
    return made


def options_model(name: str) -> type[Options]:
    """Find the options model of an analysis, or of the recording engine.

    Parameters
    ----------
    name : str
        ``"record"``, or the entry point of an analysis.

    Returns
    -------
    type of Options
        The model that the function declares.
    """
    return options_of(function(name))


def options_of(made: Callable[..., Any]) -> type[Options]:
    """Read the options model that a public function declares.

    Parameters
    ----------
    made : callable
        A function with the decorator `actkit.options.with_options`.

    Returns
    -------
    type of Options
        Its model.
    """
    return made.options_model  # type: ignore[attr-defined]


def function(name: str) -> Callable[..., Any]:
    """Find the function behind a step by the name of its entry point.

    Parameters
    ----------
    name : str
        ``"record"``, or an analysis such as ``"rdm"``, ``"decoding"`` or ``"feature_visualization"``.

    Returns
    -------
    callable
        The public function; it carries its options model as ``options_model``.
    """
    if name == "record":
        return plugins.load("actkit.engines", "record").extract
    other = {
        "decoding": "decode",
        "encoding": "encode",
        "feature_visualization": "visualize",
        "matched_transfer": "transfer",
        "unit_matching": "match_units",
    }
    return getattr(plugins.load("actkit.analyses", name), other.get(name, name))
