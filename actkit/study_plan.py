"""From a checked study to its steps: what each needs, what it makes, and whether that is already there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from actkit.compute import format_bytes
from actkit.options import Options
from actkit.results import fingerprint
from actkit.study_lesion_matched import plan_lesion_matched
from actkit.study_lesion_plan import Lesioned, plan_feature_visualization, plan_seeds, plan_segregation
from actkit.study_manifest import output_hash, read_manifest
from actkit.study_neuron_plan import NeuronPlanner
from actkit.study_neuron_spec import NEURON_KINDS
from actkit.study_opening import key_of
from actkit.study_spec import AnalysisStep, NetworkSpec, Study, said_where
from actkit.study_specialization import plan_specialization
from actkit.study_words import slug, variable_name
from actkit.study_workshop import Workshop

# Options that change how long a step takes and how it is shared out, not what comes out.
_HOW = ("memory", "workers", "overwrite", "resume")

State = Literal["done", "resume", "run"]
_STATE_WORDS = {"done": "there", "resume": "resume", "run": "to do"}


@dataclass(frozen=True)
class Step:
    """One step of a study.

    Attributes
    ----------
    id : str
        Kind and object: ``"record vgg16"``, ``"rsa judgements"``.
    kind : str
        What is done: stimuli, network, accuracies, record, rdm, rsa, decoding, segregation, segregation_seeds,
        feature_visualization, ceiling, match, control, encode, transfer, neurons, lesion_matched,
        sweep, specialization, dynamics, masks, modules, figures, report.
    inputs : tuple of str
        Ids of the steps it needs.
    outputs : tuple of str
        Files and stores it makes, relative to the folder of the study.
    key : str
        sha256 over the content of all that the outputs depend on.
    state : {"done", "resume", "run"}
        Whether the outputs are there, partly there, or to be computed.
    bytes : int or None
        Bytes of a recording.
    note : str
        What a reader of the plan should know.
    detail : mapping
        What the step works on, for the one who runs it.
    """

    id: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    key: str
    state: State = "run"
    bytes: int | None = None
    note: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Plan:
    """The steps of a study in the order they run, and the folder they fill."""

    study: Study
    out: Path
    steps: tuple[Step, ...]

    def __getitem__(self, id_: str) -> Step:
        """Find a step by its id."""
        return next(step for step in self.steps if step.id == id_)

    def describe(self) -> str:
        """Lay the plan out for people.

        Returns
        -------
        str
            A table: number, state, step, numbers of the steps it needs, what it makes.
        """
        number = {step.id: str(i) for i, step in enumerate(self.steps, 1)}
        rows = [("", "", "step", "needs", "makes")]
        for step in self.steps:
            made = ", ".join(_shown(step.outputs))
            if step.bytes:
                made += f" ({format_bytes(step.bytes)})"
            if step.note:
                made += f"; {step.note}"
            needs = " ".join(_shortened([number[name] for name in step.inputs]))
            rows.append((number[step.id], _STATE_WORDS[step.state], step.id, needs, made))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [f"{self.study.title} ({self.study.source}) into {self.out}"]
        for row in rows:
            cells = [
                row[0].rjust(widths[0]),
                *(cell.ljust(width) for cell, width in zip(row[1:4], widths[1:], strict=True)),
            ]
            lines.append("  ".join([*cells, row[4]]).rstrip())
        todo = sum(step.state != "done" for step in self.steps)
        recorded = sum(step.bytes or 0 for step in self.steps if step.state != "done")
        total = f"{len(self.steps)} steps, {todo} to do" if todo else f"{len(self.steps)} steps, all there"
        return "\n".join([*lines, total + (f", {format_bytes(recorded)} to record" if recorded else "")])


def _shown(outputs: tuple[str, ...]) -> list[str]:
    """Name outputs in few words: one of each stem."""
    stems: dict[str, list[str]] = {}
    for name in outputs:
        stem, dot, suffix = name.rpartition(".")
        stems.setdefault(stem if dot else name, []).append(suffix)
    return [f"{stem}.{'|'.join(suffixes)}" for stem, suffixes in stems.items()]


def _shortened(numbers: list[str], limit: int = 5) -> list[str]:
    """Name the inputs of a step; of many, the first and last."""
    return numbers if len(numbers) <= limit else [*numbers[: limit - 2], "…", numbers[-1]]


def make_plan(study: Study, out: Path, progress: bool | None = None) -> tuple[Plan, Workshop]:
    """Lay out the steps of a study and see which are already done.

    Parameters
    ----------
    study : Study
        The checked study.
    out : Path
        Folder of everything the study makes; it need not exist.
    progress : bool, optional
        Show progress bars.

    Returns
    -------
    tuple of Plan and Workshop
        The plan, and what was opened to make it.

    Raises
    ------
    ActkitError
        If something the study names is not there: a data set, a label, a layer.
    """
    workshop = Workshop(study, out, progress)
    steps = Builder(workshop).build()
    manifest = read_manifest(out)
    fresh: set[str] = set()
    marked = []
    for step in steps:
        entry = manifest.get(step.id)
        whole = (
            entry is not None
            and entry.get("key") == step.key
            and not any(name in fresh for name in step.inputs if step.kind == "report")
            and set(entry.get("outputs", {})) == set(step.outputs)
            and all(output_hash(out / name) == digest for name, digest in entry["outputs"].items())
        )
        if not whole:
            fresh.add(step.id)
            state: State = "run"
            size = None
            if step.kind == "record":
                with said_where(step.detail["where"]):
                    size, begun = workshop.recording(step.detail["network"], step.detail["options"])
                state = "resume" if begun else "run"
            step = replace(step, state=state, bytes=size)
        else:
            step = replace(step, state="done")
        marked.append(step)
    return Plan(study, out, tuple(marked)), workshop


class Builder:
    """Makes the steps one kind after the other; keys of later steps take in those of earlier ones."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.study = workshop.study
        self.steps: dict[str, Step] = {}

    def build(self) -> list[Step]:
        """Make all the steps."""
        if self.study.stimuli:
            self.add("stimuli", "", (), ("tables/stimuli.csv",), stimuli=self.workshop.stimuli_key())
        for spec in self.study.networks:
            self._network(spec)
        trained = [spec for spec in self.study.networks if self.workshop.training_specs(spec)]
        if trained:
            inputs = tuple(f"network {spec.name}" for spec in trained)
            self.add("accuracies", "", inputs, ("tables/accuracies.csv",), groups=[spec.group for spec in trained])
        makers: dict[str, Callable[[AnalysisStep], None]] = {
            "rdm": self._rdm_step,
            "rsa": self._rsa_step,
            "decoding": self._decoding_step,
        }
        lesioned: list[Lesioned] = []
        neurons = NeuronPlanner(self)
        for analysis in self.study.analyses:
            if analysis.kind in NEURON_KINDS:
                neurons.plan(analysis)
            elif analysis.kind == "segregation":
                lesioned.append(plan_segregation(self, analysis))
            elif analysis.kind == "lesion_matched":
                plan_lesion_matched(self, analysis)
            elif analysis.kind == "specialization":
                plan_specialization(self, analysis)
            elif analysis.kind == "feature_visualization":
                plan_feature_visualization(self, analysis, lesioned)
            else:
                makers[analysis.kind](analysis)
        for one in lesioned:
            plan_seeds(self, one)
        neurons.summarise()
        if self.study.report is not None:
            shown = tuple(step.id for step in self.steps.values() if step.kind != "rdm")
            self.add(
                "report",
                "",
                shown,
                ("report.html",),
                report=self.study.report.model_dump(),
                title=self.study.title,
                quick=self.study.quick,
                text=self.study.text,
            )
        return list(self.steps.values())

    def add(
        self,
        kind: str,
        object_: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        detail: Mapping[str, Any] | None = None,
        note: str = "",
        key: str | None = None,
        id_: str | None = None,
        **content: Any,
    ) -> Step:
        """Add one step; its key covers its inputs' keys and the content given. Its id is kind and object."""
        id_ = id_ or f"{kind} {object_}".strip()
        key = key or key_of(
            code=True, kind=kind, inputs=[self.steps[name].key for name in inputs], outputs=list(outputs), **content
        )
        self.steps[id_] = Step(id_, kind, inputs, outputs, key, note=note, detail=detail or {})
        return self.steps[id_]

    # ------------------------------------------------------------ recordings

    def _network(self, spec: NetworkSpec) -> None:
        """Plan to open, and perhaps train, one network, and to record it."""
        shop = self.workshop
        self.add(
            "network",
            spec.name,
            (),
            (f"networks/{spec.name}.json",),
            detail={"network": spec},
            note="trained here" if shop.is_trained(spec) else "",
            spec=spec.model_dump(include={"name", "extractor", "options"}),
            content=shop.network_key(spec),
        )
        if not spec.recorded:
            return
        options = self.study.record[spec.name]
        store = f"stores/{spec.name}.zarr"
        self.add(
            "record",
            spec.name,
            ("stimuli", f"network {spec.name}"),
            (store,),
            detail={
                "network": spec,
                "options": options,
                "where": f"{shop.place(spec)}, record",
            },
            # Not the code: a store answers for itself by its identity, and may have taken hours.
            key=key_of(
                code=False,
                network=shop.network_key(spec),
                stimuli=shop.stimuli.fingerprint,
                record=self.deciding(options),
            ),
        )

    # -------------------------------------------------------------- analyses

    def _rdms(self, analysis: AnalysisStep) -> tuple[str, ...]:
        """Plan the RDMs of every network, once for each set of options."""
        options = analysis.options["rdm"]
        names = []
        for spec in self.chosen(analysis):
            base = f"{spec.name} {options.model_dump().get('method', '')}".strip()
            object_, number = base, 1
            while (step := self.steps.get(f"rdm {object_}")) is not None and step.detail["options"] != options:
                number += 1
                object_ = f"{base} {number}"
            if step is None:
                self.add(
                    "rdm",
                    object_,
                    ("stimuli", f"record {spec.name}"),
                    (f"results/rdm_{slug(object_)}.nc",),
                    detail={"network": spec, "options": options, "where": analysis.where},
                    options=self.deciding(options),
                    control=spec.control,
                )
            names.append(f"rdm {object_}")
        return tuple(names)

    def _rdm_step(self, analysis: AnalysisStep) -> None:
        """Plan panels and maps of the RDMs: layer by layer, and the data's beside the layers that come nearest."""
        rdms = self._rdms(analysis)
        label = analysis.own.labels
        if label is not None:
            self.workshop.label(label, f"{analysis.where}, labels")
        common = {"draw": "rdm", "where": analysis.where, "labels": label}
        for name in rdms:
            # A control is one RDM as a rule, and stands beside the data.
            if not (self.steps[name].detail["network"].control and analysis.own.data):
                self.figures(
                    name, (name, "stimuli"), slug(name), {**common, "result": name}, more=("map",), labels=label
                )
        for variable in analysis.own.data:
            data = self.workshop.data(variable, f"{analysis.where}, data")
            name = variable_name(variable)
            compared = f"rsa {name}" if f"rsa {name}" in self.steps else None
            self.figures(
                f"rdm {name}",
                ("stimuli", *rdms, *((compared,) if compared else ())),
                f"rdm_{slug(name)}",
                {**common, "data": variable, "rdms": rdms, "compared": compared},
                more=("map",),
                labels=label,
                data=fingerprint(data),
                attrs={key: str(value) for key, value in data.attrs.items()},
            )

    def figures(
        self,
        name: str,
        inputs: tuple[str, ...],
        stem: str,
        detail: dict[str, Any],
        more: tuple[str, ...] = (),
        **content: Any,
    ) -> None:
        """Plan the figures of one result, `more` of them than one; each goes with a text of its caption."""
        free = self.free("figures", name)
        stem += slug(free.removeprefix(name)) and f"_{slug(free.removeprefix(name))}"
        stems = [f"figures/{stem}", *(f"figures/{stem}_{one}" for one in more)]
        outputs = tuple(f"{stem}.{suffix}" for stem in stems for suffix in ("svg", "png", "txt"))
        self.add("figures", free, inputs, outputs, detail=detail, **content)

    def _rsa_step(self, analysis: AnalysisStep) -> None:
        """Plan one comparison, with its figure and table, for each variable."""
        shop = self.workshop
        rdms = self._rdms(analysis)
        specs = (*self.study.models, *analysis.models)
        own = analysis.own
        for variable in own.data:
            data = shop.selected_data(variable, own.select, own.selection, analysis.where)
            ids = data["stimulus"].values
            left_out: list[str] | None = [] if own.select else None
            models = shop.models(specs, ids, analysis.where, left_out)
            object_ = self.free("rsa", f"{variable_name(variable)} {own.selection}".strip())
            stem = f"rsa_{slug(object_)}"
            name = self.add(
                "rsa",
                object_,
                ("stimuli", *rdms),
                (f"results/{stem}.nc", f"tables/{stem}.csv"),
                detail={
                    "data": variable,
                    "select": own.select,
                    "selection": own.selection,
                    "left_out": left_out or [],
                    "models": specs,
                    "options": analysis.options["rsa"],
                    "rdms": rdms,
                    "where": analysis.where,
                },
                options=self.deciding(analysis.options["rsa"]),
                data=fingerprint(data),
                attrs={key: str(value) for key, value in data.attrs.items()},
                models=[fingerprint(model) for model in models],
            ).id
            charts = tuple(dict.fromkeys(analysis.own.charts))
            detail = {"result": name, "draw": "rsa", "charts": charts, "where": analysis.where}
            self.figures(name, (name,), stem, detail, more=charts[1:], charts=charts)

    def _decoding_step(self, analysis: AnalysisStep) -> None:
        """Plan the decoding of each label from each network, one figure a label."""
        for label in analysis.own.labels:
            values = self.workshop.label(label, f"{analysis.where}, labels")
            # Of the label, the stimuli that take part: their labels are all that counts.
            own, made = analysis.own, []
            use = self.workshop.selected(own.select, analysis.where)
            shown = f"{label} ({own.selection})" if own.select else label
            taking_part: dict[str, Any] = {"select": use} if own.select else {}
            for spec in self.chosen(analysis):
                object_ = self.free("decoding", f"{spec.name} {label} {own.selection}".strip())
                stem = f"decoding_{slug(object_)}"
                made.append(
                    self.add(
                        "decoding",
                        object_,
                        ("stimuli", f"record {spec.name}"),
                        (f"results/{stem}.nc", f"tables/{stem}.csv"),
                        detail={
                            "network": spec,
                            "label": shown,
                            "column": label,
                            "select": own.select,
                            "options": analysis.options["decoding"],
                            "where": analysis.where,
                        },
                        options=self.deciding(analysis.options["decoding"]),
                        label=np.asarray(values),
                        **taking_part,
                    ).id
                )
            self.figures(
                f"decoding {label} {own.selection}".strip(),
                tuple(made),
                slug(f"decoding {label} {own.selection}"),
                {"results": tuple(made), "draw": "decoding", "where": analysis.where},
            )

    def chosen(self, analysis: AnalysisStep) -> list[NetworkSpec]:
        """Find the networks that a step is about, in the order of the file."""
        return [spec for spec in self.study.networks if spec.name in analysis.own.networks]

    def free(self, kind: str, base: str) -> str:
        """Number the object of a step if the same is asked for twice (with other options)."""
        object_, number = base, 1
        while f"{kind} {object_}" in self.steps:
            number += 1
            object_ = f"{base} {number}"
        return object_

    def deciding(self, options: Options) -> dict[str, Any]:
        """Take the options that a step's outputs depend on."""
        return {key: value for key, value in options.model_dump(mode="json").items() if key not in _HOW}
