"""The steps of a study of recorded neurons: reliability, matches with controls, encoding, transfer, their summary."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actkit import plugins
from actkit.errors import InputError
from actkit.options import Options, parse
from actkit.results import fingerprint
from actkit.study_neuron_spec import NeuronStep, settled_recordings
from actkit.study_recordings import recorded_labels, selected_recording
from actkit.study_spec import AnalysisStep
from actkit.study_words import slug

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from actkit.study_plan import Builder, Step

# Controls of a match: the module beside that of the match, and its function.
_CONTROLS = {
    "rotation": ("unit_matching_controls", "compare_bases"),
    "pools": ("unit_matching_controls", "equalise_pools"),
    "shuffle": ("unit_matching_controls", "shuffle_match"),
    "location": ("unit_matching_location", "matched_locations"),
    "untrained": ("unit_matching_controls", "compare_matches"),
}
# Options of a match that its controls take over.
_SHARED = ("layers", "folds", "floor", "memory", "seed")


def control_function(name: str) -> Callable[..., xr.Dataset]:
    """Find the function behind a control of a match.

    Parameters
    ----------
    name : str
        rotation, pools, shuffle, location or untrained.

    Returns
    -------
    callable
        The function, with or without an ``options_model``.
    """
    module, function = _CONTROLS[name]
    beside = plugins.load("actkit.analyses", "unit_matching").__package__
    return getattr(importlib.import_module(f"{beside}.{module}"), function)


@dataclass
class Recorded:
    """What is planned about one recording (or some of its stimuli).

    Attributes
    ----------
    name : str
        The recording.
    own : NeuronStep
        The keys of the first step about it.
    where : str
        Place of that step in the study file.
    ceiling : str or None
        Step that measures reliability.
    averages : bool
        Whether a ceiling was asked for of all recordings, and this one holds averages alone.
    matches : dict of str to list of str
        Steps by network: the first is the match, further ones differ in their options.
    controls : dict of str to dict of str to str
        Network to control to step.
    encodings, transfers : dict of str to str
        Steps by network.
    """

    name: str
    own: NeuronStep
    where: str
    ceiling: str | None = None
    averages: bool = False
    matches: dict[str, list[str]] = field(default_factory=dict)
    controls: dict[str, dict[str, str]] = field(default_factory=dict)
    encodings: dict[str, str] = field(default_factory=dict)
    transfers: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is called."""
        return f"{self.name} {self.own.selection}".strip()

    @property
    def steps(self) -> list[str]:
        """All of its steps."""
        found = [self.ceiling] if self.ceiling else []
        found += [one for ids in self.matches.values() for one in ids]
        found += [one for ids in self.controls.values() for one in ids.values()]
        return [*found, *self.encodings.values(), *self.transfers.values()]


class NeuronPlanner:
    """Plans the steps about recordings of neurons.

    Parameters
    ----------
    builder : Builder
        Takes the steps.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.recorded: dict[tuple[str, str], Recorded] = {}

    def plan(self, analysis: AnalysisStep) -> None:
        """Plan one item of ``analyses``.

        Parameters
        ----------
        analysis : AnalysisStep
            Of kind ceiling, match, encode or transfer.

        Raises
        ------
        InputError
            If it does not fit the recordings.
        """
        make = {"ceiling": self._ceiling, "match": self._match, "encode": self._encode, "transfer": self._transfer}
        shop, own = self.builder.workshop, analysis.own
        names = settled_recordings(own, shop.study, analysis.where)
        for name in names:
            responses = selected_recording(shop, name, own.select, analysis.where)
            key = (name, json.dumps(own.select, sort_keys=True, default=str))
            about = self.recorded.setdefault(key, Recorded(name, own, analysis.where))
            make[analysis.kind](analysis, about, responses)
        if analysis.kind == "ceiling" and all(self.recorded[key].ceiling is None for key in self.recorded):
            raise InputError(f"{analysis.where}: {_AVERAGES.format(', '.join(names))}")

    def _ceiling(self, analysis: AnalysisStep, about: Recorded, responses: xr.DataArray) -> None:
        """Plan the reliability of a recording; one of averages has none."""
        from actkit.recordings_neurons import has_repetitions

        if not has_repetitions(responses):
            if analysis.own.data:
                raise InputError(
                    f"{analysis.where}, data: {_AVERAGES.format(about.name)}; without `data`, recordings that have "
                    "repetitions are measured and the report names the others"
                )
            about.averages = True
            return
        about.ceiling = about.ceiling or self._step("ceiling", about.title, (), analysis, about, responses).id

    def _match(self, analysis: AnalysisStep, about: Recorded, responses: xr.DataArray) -> None:
        """Plan the match of every network, then its controls."""
        controls = analysis.own.controls
        twin = controls.get("untrained", {}).get("network")
        label = self._label(analysis, responses)
        made = []
        for spec in self.builder.chosen(analysis):
            step = self._step(
                "match", f"{spec.name} {about.title}", (f"record {spec.name}",), analysis, about, responses, spec.name,
                **label,
            )  # fmt: skip
            about.matches.setdefault(spec.name, []).append(step.id)
            made.append((spec.name, step.id))
        for network, match in made:
            if network != twin:
                for name, given in controls.items():
                    self._control(name, dict(given), network, match, analysis, about, responses, label)

    def _control(
        self,
        name: str,
        given: dict[str, Any],
        network: str,
        match: str,
        analysis: AnalysisStep,
        about: Recorded,
        responses: xr.DataArray,
        label: Mapping[str, Any],
    ) -> None:
        """Plan one control of one match."""
        where = f"{analysis.where}, controls, {name}"
        twin, inputs = given.pop("network", None) if name == "untrained" else None, [match, f"record {network}"]
        if twin is not None:
            if twin not in about.matches:
                raise InputError(
                    f"{where}: {twin!r} is not matched with {about.title!r} here or before, so there is nothing to "
                    "compare with; write a match step of it above this one"
                )
            inputs = [match, about.matches[twin][0]]
        options = self._control_options(name, given, where, analysis.options["unit_matching"])
        if about.ceiling and twin is None:
            inputs.append(about.ceiling)
        object_ = self.builder.free("control", f"{name} {network} {about.title}")
        stem = f"{slug(name)}_{slug(object_.removeprefix(name))}"
        step = self.builder.add(
            "control",
            object_,
            tuple(inputs),
            (f"results/{stem}.nc",),
            detail={
                "control": name, "network": network, "match": match, "twin": inputs[1] if twin is not None else None,
                "options": options, "recording": about.name, "select": about.own.select, "ceiling": about.ceiling,
                "where": where, "label": analysis.own.labels,
            },
            options=None if options is None else self.builder.deciding(options),
            data=fingerprint(responses),
            control=name,
            **label,
        )  # fmt: skip
        about.controls.setdefault(network, {}).setdefault(name, step.id)

    def _control_options(self, name: str, given: dict[str, Any], where: str, match: Options) -> Options | None:
        """Read the options of a control; layers, folds and the like are those of the match unless it has its own."""
        model = getattr(control_function(name), "options_model", None)
        if model is None:
            if given:
                raise InputError(f"{where}: it takes no options, and {next(iter(given))!r} is given; leave it out")
            return None
        told = match.model_dump()
        shared = {key: told[key] for key in _SHARED if key in told and key in model.model_fields}
        return parse(model, {**shared, **given}, where)

    def _encode(self, analysis: AnalysisStep, about: Recorded, responses: xr.DataArray) -> None:
        """Plan the encoding of every network."""
        for spec in self.builder.chosen(analysis):
            step = self._step(
                "encode", f"{spec.name} {about.title}", (f"record {spec.name}",), analysis, about, responses, spec.name
            )
            about.encodings.setdefault(spec.name, step.id)

    def _transfer(self, analysis: AnalysisStep, about: Recorded, responses: xr.DataArray) -> None:
        """Plan the transfer of every network that was matched."""
        label = self._label(analysis, responses)
        for spec in self.builder.chosen(analysis):
            if spec.name not in about.matches:
                raise InputError(
                    f"{analysis.where}: {spec.name!r} is not matched with {about.title!r} before this step, and a "
                    "transfer goes by the matched units; write a match step above it, or name the networks and data "
                    "that are matched"
                )
            match = about.matches[spec.name][0]
            object_ = f"{spec.name} {about.title} {analysis.own.labels}"
            inputs = (f"record {spec.name}", match)
            step = self._step("transfer", object_, inputs, analysis, about, responses, spec.name, match=match, **label)
            about.transfers.setdefault(spec.name, step.id)

    def _label(self, analysis: AnalysisStep, responses: xr.DataArray) -> dict[str, Any]:
        """The labels of the recorded stimuli, for the key; nothing without."""
        label = analysis.own.labels
        if label is None:
            return {}
        return {"labels": recorded_labels(self.builder.workshop, label, responses, f"{analysis.where}, labels")}

    def _step(
        self,
        kind: str,
        base: str,
        inputs: Sequence[str],
        analysis: AnalysisStep,
        about: Recorded,
        responses: xr.DataArray,
        network: str | None = None,
        match: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Step:
        """Add the step of one analysis of one recording."""
        builder = self.builder
        options = next(iter(analysis.options.values()))
        object_ = builder.free(kind, base)
        stem = f"{kind}_{slug(object_)}"
        ceiling = about.ceiling if kind in ("match", "encode") else None
        return builder.add(
            kind,
            object_,
            ("stimuli", *inputs, *((ceiling,) if ceiling else ())),
            (f"results/{stem}.nc", f"tables/{stem}.csv"),
            detail={
                "network": network, "recording": about.name, "select": about.own.select, "options": options,
                "ceiling": ceiling, "match": match, "label": getattr(analysis.own, "labels", None),
                "where": f"{analysis.where}, {object_}",
            },
            options=builder.deciding(options),
            data=fingerprint(responses),
            attrs={key: str(value) for key, value in responses.attrs.items()},
            labels=None if labels is None else dict(labels),
        )  # fmt: skip

    def summarise(self) -> None:
        """Plan the summary of each recording, with its findings and figures; after all other analyses."""
        builder = self.builder
        for about in self.recorded.values():
            if not about.steps:  # averages whose ceiling was asked for, and nothing else
                continue
            detail = {
                "recording": about.name, "select": about.own.select, "selection": about.own.selection,
                "ceiling": about.ceiling, "averages": about.averages, "matches": about.matches,
                "controls": about.controls, "encodings": about.encodings, "transfers": about.transfers,
                "where": about.where,
            }  # fmt: skip
            content: dict[str, Any] = {key: value for key, value in detail.items() if key != "where"}
            stem = f"neurons_{slug(about.title)}"
            inputs = ("stimuli", *about.steps)
            outputs = (f"results/{stem}.nc", f"tables/{stem}.csv", f"tables/findings_{slug(about.title)}.csv")
            step = builder.add("neurons", about.title, inputs, outputs, detail=detail, **content)
            drawn = list(self._drawn(about, step.id))
            if not drawn:
                continue
            kinds = tuple(kind for kind, _, _ in drawn)
            builder.figures(
                step.id,
                (step.id, *about.steps),
                stem,
                {"draw": "neurons", "result": step.id, "drawn": tuple(drawn), "where": about.where},
                more=kinds[1:],
                kinds=kinds,
            )

    def _drawn(self, about: Recorded, summary: str) -> list[tuple[str, str, dict[str, Any]]]:
        """The figures of a recording: name, result and options of each."""
        drawn: list[tuple[str, str, dict[str, Any]]] = []
        if about.ceiling:
            drawn.append(("reliability", about.ceiling, {}))
        if about.matches:
            drawn.append(("profile", summary, {"kind": "profile"}))
            first = next((name for name in about.matches if name in about.controls), next(iter(about.matches)))
            match = about.matches[first][0]
            told = self.builder.steps[match].detail["options"].model_dump()
            permuted = told["n_permutations"] != 0 and told["assignment"] != "one_to_one"
            drawn.append(("match", match, {"kind": "null" if permuted else "layers"}))
            if any(about.controls.values()):
                drawn.append(("controls", summary, {"kind": "controls"}))
            if "location" in about.controls.get(first, {}):  # which needs a map too
                drawn.append(("map", match, {"kind": "map"}))
        for number, (network, step) in enumerate(about.transfers.items()):
            drawn.append(("transfer" if number == 0 else f"transfer_{slug(network)}", step, {}))
        return drawn


_AVERAGES = (
    "{} holds averages alone: noise cannot be told from signal in a mean, so there is no ceiling; name recordings with "
    "single presentations"
)
