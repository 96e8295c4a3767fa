"""What a study file may say of recorded neurons: the recordings, and the steps that set units beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from actkit.errors import InputError, nearest
from actkit.study_spec import SelectingStep, Study, as_mapping

CONTROLS = ("rotation", "pools", "shuffle", "location", "untrained")
"""Controls of a match, in the order of the report."""
NEURON_KINDS = ("ceiling", "match", "encode", "transfer")
"""Analyses of a study that are about recordings of neurons."""
_CURE = "write {rotation: {}, untrained: {network: NAME}}, or a list of names"


class NeuronStep(SelectingStep):
    """What every step about recorded neurons takes."""

    data: list[str] = Field([], description="recordings, by the names that `recordings` gives them; all by default")


class CeilingStep(NeuronStep):
    """What a study's ``ceiling`` step takes beside the options of `actkit.neuron_reliability`."""


class MatchStep(NeuronStep):
    """What a study's ``match`` step takes beside the options of `actkit.match_units`."""

    labels: str | None = Field(None, description="stimulus label: folds hold its values alike, the null keeps them")
    controls: dict[str, dict[str, Any]] = Field(
        {},
        description="rotation, pools, shuffle, location, untrained ({network: NAME}), each with the options of its "
        "function",
    )

    @field_validator("controls", mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple):
            value = {str(name): {} for name in value}
        if not isinstance(value, Mapping):
            raise ValueError(f"{value!r} is no list of controls; {_CURE}")
        found: dict[str, dict[str, Any]] = {}
        for name, given in value.items():
            if name not in CONTROLS:
                raise ValueError(f"there is no control {name!r}; {nearest(str(name), CONTROLS)}")
            if name == "untrained" and isinstance(given, str):
                given = {"network": given}
            found[name] = {} if given is None else as_mapping(given, name, _CURE)
        if "untrained" in found and not isinstance(found["untrained"].get("network"), str):
            raise ValueError("untrained: which network is not said; write untrained: {network: NAME}")
        return found


class EncodeStep(NeuronStep):
    """What a study's ``encode`` step takes beside the options of `actkit.encode`."""


class TransferStep(NeuronStep):
    """What a study's ``transfer`` step takes beside the options of the matched-population transfer."""

    labels: str = Field(description="stimulus label that is read from the neurons")


def settled_recordings(own: NeuronStep, study: Study, where: str) -> list[str]:
    """Settle which recordings a step is about.

    Parameters
    ----------
    own : NeuronStep
        The step's own keys.
    study : Study
        The study.
    where : str
        Place in the study file, for the message.

    Returns
    -------
    list of str
        Names under ``recordings``, in the order of the file.

    Raises
    ------
    InputError
        If the study has no recordings, or none of that name.
    """
    if not study.recordings:
        raise InputError(
            f"{where}: the study names no recordings of neurons; add `recordings: {{NAME: DATASET:VARIABLE}}`"
        )
    for name in own.data:
        if name not in study.recordings:
            raise InputError(
                f"{where}, data: there is no recording {name!r} under `recordings`; {nearest(name, study.recordings)}"
            )
    return [name for name in study.recordings if not own.data or name in own.data]


def read_recordings(items: Mapping[str, Any], source: str) -> dict[str, str]:
    """Read the mapping ``recordings`` of a study file.

    Parameters
    ----------
    items : mapping
        Name to a variable.
    source : str
        Name of the file, for messages.

    Returns
    -------
    dict of str to str
        Name to VARIABLE, DATASET:VARIABLE or a netCDF file.

    Raises
    ------
    InputError
        If a value is no text, or a name is taken twice but for characters that files cannot hold.
    """
    from actkit.study_words import slug

    found: dict[str, str] = {}
    for name, value in items.items():
        where = f"{source}, recordings, {name}"
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}: {value!r} names no recording; write DATASET:VARIABLE, or a netCDF file")
        if not slug(name):
            raise InputError(f"{where}: the name also names files, and {name!r} has no letter or digit; change it")
        alike = next((other for other in found if slug(other) == slug(name)), None)
        if alike is not None:
            raise InputError(f"{where}: files of {name!r} and {alike!r} would have the same names; change one")
        found[name] = value
    return found


def refuse_networks(names: Sequence[str], where: str) -> None:
    """Refuse networks at a step that is about recordings of neurons alone.

    Parameters
    ----------
    names : sequence of str
        What the step says under ``networks``.
    where : str
        Place in the study file, for the message.

    Raises
    ------
    InputError
        If there are any.
    """
    if names:
        raise InputError(
            f"{where}, networks: reliability is of the neurons alone, whatever the network; leave `networks` out"
        )
