"""What a study file may say: its keys, each with its type and meaning, and the study that comes out when all fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from actkit.errors import ActkitError, InputError
from actkit.options import Options
from actkit.study_words import selected_words


class NetworkSpec(Options):
    """One network of a study."""

    extractor: str = Field(description="entry point that opens it, such as 'efficientnet_lite0' or 'timm:resnet18'")
    name: str = Field(description="name of its store, and of its curve in the figures")
    item: int = Field(1, ge=1, description="which item of `networks` it is, from 1")
    group: str | None = Field(None, description="the name that it shares with the same network from other seeds")
    control: bool = Field(False, description="a control (pixels, Gabor energy, an untrained copy), drawn as one")
    recorded: bool = Field(True, description="whether it is recorded (`record: false`: it is not)")
    record: dict[str, Any] = Field({}, description="recording options of this network alone")
    options: dict[str, Any] = Field({}, description="options of the extractor")


class StimuliSpec(Options):
    """One set of stimuli of a study; several are joined in the order given."""

    dataset: str | None = Field(None, description="a data set by name")
    path: str | None = Field(None, description="a folder, zip or table, relative to the study file")
    root: str | None = Field(None, description="where the data set's files lie, if not where fetch puts them")
    prefix: str | None = Field(
        None,
        min_length=1,
        description="put in front of every id, so that sets with like ids can be joined; measured data of the set "
        "follow",
    )
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
    networks: list[Any] = Field(
        [], description="networks, side by side; needed but where a `specialization` trains its own"
    )
    stimuli: Any = Field(None, description="data set, path, or several to join; needed where a network is recorded")
    record: dict[str, Any] = Field({}, description="recording options")
    models: list[Any] = Field([], description="model RDMs that every comparison includes")
    simulate: dict[str, Any] = Field({}, description="simulated observers by name, to use as data")
    recordings: dict[str, Any] = Field(
        {},
        description="recordings of neurons by name: DATASET:VARIABLE, a variable of the stimuli, or a file",
    )
    analyses: list[Any] = Field([], description="what to do with the recordings, in order")
    report: Any = Field(True, description="true, false, or title and text")
    quick: dict[str, Any] = Field({}, description="what is other in the quick form (`actkit run STUDY --quick`)")


class StepOf(Options):
    """What every step takes."""

    networks: list[str] = Field(
        [], description="networks of this step, by name, or all seeds of one by the name they share; all by default"
    )


class RdmStep(StepOf):
    """What a study's ``rdm`` step takes beside the options of `actkit.rdm`."""

    data: list[str] = Field([], description="measured RDMs to show beside the layers'")
    labels: str | None = Field(None, description="stimulus label that orders and colours the stimuli")


class SelectingStep(StepOf):
    """What a step takes that may be about some of the stimuli."""

    select: dict[str, Any] = Field({}, description="label: value or list of values; only these stimuli take part")
    name: str | None = Field(None, description="what to call them, by default their labels")

    @property
    def selection(self) -> str:
        """What the selected stimuli are called; empty if all take part."""
        if not self.select:
            return ""
        return self.name or selected_words(self.select)


class RsaStep(SelectingStep):
    """What a study's ``rsa`` step takes beside the options of `actkit.rdm` and `actkit.rsa`."""

    data: list[str] = Field(min_length=1, description="RDM variables to compare with, one figure each")
    models: list[Any] = Field([], description="model RDMs of this step alone, added to the study's")
    charts: list[Literal["auto", "layers", "models", "differences"]] = Field(
        ["auto"],
        description="figures of each comparison: layers (curve), models (chart with pairwise tests), differences "
        "(matrix); auto chooses one",
    )


class DecodingStep(SelectingStep):
    """What a study's ``decoding`` step takes beside the options of `actkit.decode`."""

    labels: list[str] = Field(min_length=1, description="stimulus labels to decode, one figure each")


class SegregationStep(StepOf):
    """What a study's ``segregation`` step takes beside the options of `actkit.analyses.segregation.segregation`."""

    layers: list[str] = Field(min_length=1, description="layers to lesion, by name or pattern")
    control: str | None = Field(None, description="group of networks trained on the same task twice, for comparison")
    singles: list[str] = Field([], description="groups of networks of one task, whose accuracies are compared")
    early: str | None = Field(None, description="layer where little segregation is expected; by default the first")
    late: str | None = Field(None, description="layer where much is expected; by default the last")
    decoding_layer: str | None = Field(
        None, description="layer from which held-out classes are decoded, for the findings; by default the last"
    )


class FeatureVisualizationStep(StepOf):
    """What a study's ``feature_visualization`` step takes beside the options of ``visualize``."""

    layers: list[str] = Field([], description="layers, by name or pattern; by default those of the segregation")
    top: int = Field(3, ge=1, description="units of each layer that each task needs most")


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
    quick: bool = False
    recordings: Mapping[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Names of networks by group; a network without seeds of its own is a group of one."""
        groups: dict[str, tuple[str, ...]] = {}
        for spec in self.networks:
            name = spec.group or spec.name
            groups[name] = (*groups.get(name, ()), spec.name)
        return groups

    def members(self, names: Sequence[str]) -> list[str]:
        """Write the groups among some names out, in the order of the file.

        Parameters
        ----------
        names : sequence of str
            Networks or groups.

        Returns
        -------
        list of str
            Networks, each once.
        """
        groups = self.groups
        wanted = {one for name in names for one in groups.get(name, (name,))}
        return [spec.name for spec in self.networks if spec.name in wanted]

    @property
    def default_folder(self) -> str:
        """Name of the folder that results go to unless another is asked for."""
        return f"actkit-{self.name}" + ("-quick" if self.quick else "")


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


def as_mapping(value: Any, where: str, cure: str) -> dict[str, Any]:
    """Refuse what is not a mapping with text keys.

    Parameters
    ----------
    value : object
        What the file holds.
    where : str
        Its place, for the message.
    cure : str
        What to write instead; may be empty.

    Returns
    -------
    dict
        A copy.

    Raises
    ------
    InputError
        Otherwise.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {value!r} is not a mapping" + (f"; {cure}" if cure else ""))
    for key in value:
        if not isinstance(key, str):
            raise InputError(f"{where}: the key {key!r} is not text; write it in quotes")
    return dict(value)
