"""The study file: what it may say, and messages that name file, step and key when it says something else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_origin

import yaml
from pydantic import Field

from actkit import plugins
from actkit.errors import ActkitError, InputError, nearest
from actkit.options import Options, parse

_NETWORK_KEYS = ("extractor", "name", "control", "record")
# What the part after the colon is called among an extractor's options: 'timm:resnet18', 'checkpoint:file.safetensors'.
_WHICH = ("model", "file", "path")
_ANALYSES = ("rdm", "rsa", "decoding")


class NetworkSpec(Options):
    """One network of a study."""

    extractor: str = Field(description="entry point that opens it, such as 'efficientnet_lite0' or 'timm:resnet18'")
    name: str = Field(description="name of its store, and of its curve in the figures")
    control: bool = Field(False, description="a control (pixels, Gabor energy, an untrained copy), drawn as one")
    record: dict[str, Any] = Field({}, description="recording options of this network alone")
    options: dict[str, Any] = Field({}, description="options of the extractor")


class StimuliSpec(Options):
    """One set of stimuli of a study; several are joined in the order given."""

    dataset: str | None = Field(None, description="a data set by name")
    path: str | None = Field(None, description="a folder, zip or table, relative to the study file")
    root: str | None = Field(None, description="where the data set's files lie, if not where fetch puts them")
    select: dict[str, Any] = Field({}, description="label: value or list of values to keep")
    ids: list[str] = Field([], description="ids to keep, in this order")
    each: int | None = Field(None, gt=0, description="at most this many stimuli, taken evenly over the order")
    options: dict[str, Any] = Field({}, description="options of a data set that is drawn rather than read")


class ModelSpec(Options):
    """Model RDMs to compare beside the layers."""

    label: str | None = Field(None, description="a stimulus label: 0 for the same value, 1 for different ones")
    groups: dict[str, list[Any]] = Field({}, description="values of the label merged into named groups")
    name: str | None = Field(None, description="name of the model, by default the label's")
    data: str | None = Field(None, description="a variable of the data set that holds model RDMs")
    only: list[str] = Field([], description="names of shipped model RDMs to take")
    leave_out: list[str] = Field([], description="names of shipped model RDMs to leave out")


class ObserversSpec(Options):
    """Simulated observers, whose truth is a mixture of model RDMs; everything they touch says that it is simulated."""

    truth: list[Any] = Field(min_length=1, description="model RDMs, written as in `models`")
    weights: list[float] | None = Field(None, description="one weight a model RDM, by default equal")
    n_subjects: int = Field(12, ge=1, description="how many observers")
    noise: float = Field(1.0, ge=0, description="standard deviation of each one's noise, that of the truth being 1")
    seed: int | None = Field(None, ge=0, description="seed of the noise, by default the study's")


class ReportSpec(Options):
    """What the report says beside the results."""

    title: str | None = Field(None, description="title of the report, by default the study's")
    text: str | None = Field(None, description="a paragraph that opens it")


class StudyHead(Options):
    """The top-level keys of a study file."""

    study: str = Field(min_length=1, description="name of the study, and of its folder of results")
    title: str | None = Field(None, description="one line for people")
    description: str | None = Field(None, description="what it asks, a paragraph for the report")
    seed: int = Field(0, ge=0, description="seed of every step that does not set its own")
    networks: list[Any] = Field(min_length=1, description="networks, side by side")
    stimuli: Any = Field(description="data set, path, or several to join")
    record: dict[str, Any] = Field({}, description="recording options")
    models: list[Any] = Field([], description="model RDMs that every comparison includes")
    simulate: dict[str, Any] = Field({}, description="simulated observers by name, to use as data")
    analyses: list[Any] = Field([], description="what to do with the recordings, in order")
    report: Any = Field(True, description="true, false, or title and text")


class StepOf(Options):
    """What every step takes."""

    networks: list[str] = Field([], description="networks of this step, by name; all by default")


class RdmStep(StepOf):
    """What a study's ``rdm`` step takes beside the options of `actkit.rdm`."""

    data: list[str] = Field([], description="measured RDMs to show beside the layers'")
    labels: str | None = Field(None, description="stimulus label that orders and colours the stimuli")


class RsaStep(StepOf):
    """What a study's ``rsa`` step takes beside the options of `actkit.rdm` and `actkit.rsa`."""

    data: list[str] = Field(min_length=1, description="RDM variables to compare with, one figure each")
    models: list[Any] = Field([], description="model RDMs of this step alone, added to the study's")
    charts: list[Literal["auto", "layers", "models", "differences"]] = Field(
        ["auto"],
        description="figures of each comparison: layers (curve), models (chart with pairwise tests), differences "
        "(matrix); auto chooses one",
    )


class DecodingStep(StepOf):
    """What a study's ``decoding`` step takes beside the options of `actkit.decode`."""

    labels: list[str] = Field(min_length=1, description="stimulus labels to decode, one figure each")


@dataclass(frozen=True)
class AnalysisStep:
    """One item of ``analyses``: which one, the study's own keys, and the options of each function behind it."""

    kind: str
    where: str
    own: Any
    options: Mapping[str, Options] = field(default_factory=dict)
    models: tuple[ModelSpec, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study file after every key has been checked."""

    name: str
    title: str
    description: str
    seed: int
    networks: tuple[NetworkSpec, ...]
    stimuli: tuple[StimuliSpec, ...]
    record: Mapping[str, Options]  # by network name
    models: tuple[ModelSpec, ...]
    observers: Mapping[str, tuple[ObserversSpec, tuple[ModelSpec, ...]]]
    analyses: tuple[AnalysisStep, ...]
    report: ReportSpec | None
    text: str
    source: str
    folder: Path


@contextmanager
def said_where(where: str) -> Iterator[None]:
    """Put the place in the study file in front of whatever goes wrong inside.

    Parameters
    ----------
    where : str
        File, step and key.
    """
    try:
        yield
    except ActkitError as error:
        if str(error).startswith(where):
            raise
        raise type(error)(f"{where}: {error}") from error


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key given twice (YAML itself would keep the last in silence)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Build a mapping, refusing repeated keys."""
    loader.flatten_mapping(node)
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice, on lines {seen[key]} and {line}; keep one", None
            )
        seen[key] = line
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


def load_study(study: str | os.PathLike[str] | Mapping[str, Any]) -> Study:
    """Read a study and check every key of it, before anything is computed.

    Parameters
    ----------
    study : str, path or mapping
        A YAML file, the name of a study that ships with actkit (``"demo"``, ``"kriegeskorte92"``), or the same
        content as a mapping.

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
    return _check(raw, source, folder, text)


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


def _check(raw: Any, source: str, folder: Path, text: str) -> Study:
    """Check the whole content of a study."""
    head = parse(StudyHead, _as_mapping(raw, source, "a study is a mapping that starts with `study: NAME`"), source)
    if any(char in head.study for char in '/\\:*?"<>|') or head.study.startswith("."):
        raise InputError(
            f'{source}, study: {head.study!r} names a folder of results, so it takes no /\\:*?"<>| or dot first'
        )
    networks = tuple(_network(item, f"{source}, networks, item {i}", folder) for i, item in enumerate(head.networks, 1))
    names = [network.name for network in networks]
    for i, name in enumerate(names, 1):
        if name in names[: i - 1]:
            raise InputError(
                f"{source}, networks, item {i}: the name {name!r} is taken by an earlier network; give `name: …`"
            )
    sets = head.stimuli if isinstance(head.stimuli, list) else [head.stimuli]
    if not sets:
        raise InputError(f"{source}, stimuli: the list is empty; name a data set or a folder")
    stimuli = tuple(
        _stimuli(item, f"{source}, stimuli" + (f", item {i}" if len(sets) > 1 else ""), folder)
        for i, item in enumerate(sets, 1)
    )
    models = tuple(_model(item, f"{source}, models, item {i}") for i, item in enumerate(head.models, 1))
    observers = {
        str(name): _observers(item, f"{source}, simulate, {name}", head.seed) for name, item in head.simulate.items()
    }
    analyses = tuple(_analysis(item, i, source, head.seed) for i, item in enumerate(head.analyses, 1))
    for step in analyses:
        for name in step.own.networks:
            if name not in names:
                raise InputError(f"{step.where}, networks: there is no network {name!r}; {nearest(name, names)}")
    report = head.report
    if isinstance(report, Mapping):
        report_spec: ReportSpec | None = parse(
            ReportSpec, _as_mapping(report, f"{source}, report", ""), f"{source}, report"
        )
    elif isinstance(report, bool):
        report_spec = ReportSpec() if report else None
    else:
        raise InputError(f"{source}, report: {report!r} is neither true, false nor a mapping with title and text")
    return Study(
        name=head.study,
        title=head.title or head.study,
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
    )


def _as_mapping(value: Any, where: str, cure: str) -> dict[str, Any]:
    """Refuse what is not a mapping with text keys."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {value!r} is not a mapping" + (f"; {cure}" if cure else ""))
    for key in value:
        if not isinstance(key, str):
            raise InputError(f"{where}: the key {key!r} is not text; write it in quotes")
    return dict(value)


def _network(item: Any, where: str, folder: Path) -> NetworkSpec:
    """Read one item of ``networks``."""
    values = {"extractor": item} if isinstance(item, str) else _as_mapping(item, where, "write {extractor: NAME}")
    if "extractor" not in values:
        raise InputError(f"{where}: `extractor: NAME` is missing; {nearest('', plugins.found('actkit.extractors'))}")
    own = {key: values[key] for key in _NETWORK_KEYS if key in values}
    options = {key: value for key, value in values.items() if key not in _NETWORK_KEYS}
    with said_where(f"{where}, extractor"):
        kind, settings = network_settings(str(own["extractor"]), options)
    model = next(iter(str(settings[key]) for key in _WHICH if isinstance(settings.get(key), str)), "")
    own.setdefault("name", re.sub(r"[^\w.+-]+", "-", model.rstrip("/").rsplit("/", 1)[-1]) or kind)
    declared = getattr(plugins.load("actkit.extractors", kind), "options_model", None)
    if declared is not None:
        if "file" in settings and (folder / str(settings["file"])).exists():
            settings["file"] = str(folder / str(settings["file"]))
        parse(declared, settings, where)
    spec = parse(NetworkSpec, {**own, "extractor": kind, "options": settings}, where)
    if any(char in spec.name for char in '/\\:*?"<>| ') or spec.name.startswith("."):
        raise InputError(
            f'{where}, name: {spec.name!r} also names files, so it takes no spaces, no /\\:*?"<>| and no dot first'
        )
    return spec


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


def _stimuli(item: Any, where: str, folder: Path) -> StimuliSpec:
    """Read one item of ``stimuli``: a name of a data set, a path, or a mapping."""
    if isinstance(item, str):
        if (folder / item).exists() or "/" in item or "\\" in item or Path(item).suffix:
            item = {"path": item}
        else:
            item = {"dataset": item}
    values = _as_mapping(item, where, "name a data set or a folder, or write {dataset: NAME} or {path: FOLDER}")
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
        {"label": item} if isinstance(item, str) else _as_mapping(item, where, "write {label: NAME} or {data: NAME}")
    )
    spec = parse(ModelSpec, values, where)
    if (spec.label is None) == (spec.data is None):
        raise InputError(f"{where}: give one of `label: NAME` (a stimulus label) and `data: NAME` (shipped model RDMs)")
    if spec.data is not None and (spec.groups or spec.name):
        raise InputError(f"{where}: `groups` and `name` go with `label`; model RDMs that ship bring their own names")
    return spec


def _observers(item: Any, where: str, seed: int) -> tuple[ObserversSpec, tuple[ModelSpec, ...]]:
    """Read one item of ``simulate``."""
    spec = parse(ObserversSpec, {"seed": seed, **_as_mapping(item, where, "write {truth: [{label: NAME}]}")}, where)
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
    values = _as_mapping({} if values is None else values, where, "write {option: value, …}")
    own_models: dict[str, type[StepOf]] = {"rdm": RdmStep, "rsa": RsaStep, "decoding": DecodingStep}
    own_model = own_models[kind]
    models = {
        name: options_model(name) for name in {"rdm": ["rdm"], "rsa": ["rdm", "rsa"], "decoding": ["decoding"]}[kind]
    }
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
    step_models = tuple(_model(m, f"{where}, models, item {i}") for i, m in enumerate(getattr(parsed, "models", []), 1))
    return AnalysisStep(kind, where, parsed, options, step_models)


def _record(head: StudyHead, networks: tuple[NetworkSpec, ...], source: str) -> dict[str, Options]:
    """Check the recording options of every network; a control records all its layers unless it says otherwise."""
    model = options_model("record")
    made = {}
    for i, network in enumerate(networks, 1):
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
        where = f"{source}, record" if not network.record else f"{source}, networks, item {i}, record"
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
        ``"record"``, ``"rdm"``, ``"rsa"``, ``"decoding"`` or ``"noise_ceiling"``.

    Returns
    -------
    callable
        The public function; it carries its options model as ``options_model``.
    """
    if name == "record":
        return plugins.load("actkit.engines", "record").extract
    return getattr(plugins.load("actkit.analyses", name), {"decoding": "decode"}.get(name, name))
