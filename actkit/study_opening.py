"""Opening what a study names: data sets, the image sets that its networks learn from, and the networks."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import __version__, plugins
from actkit.errors import DataError, InputError, nearest
from actkit.results import fingerprint
from actkit.study_spec import NetworkSpec, StimuliSpec, Study, said_where

if TYPE_CHECKING:
    from actkit.network import Network
    from actkit.stimuli import Stimuli

# The sets that decide what a network learns, and what is said of it; those that lesions need come later.
SETS_LEARNT = ("training", "evaluation")
_SETS = ("training", "selectivity", "ranking", "evaluation")
_SETS_CURE = "write {training: N, selectivity: N, ranking: N, evaluation: N}"


@functools.cache
def code_fingerprint() -> str:
    """Hash the code that computes results: actkit's version and every source file but the command line.

    A released version is one set of files; for someone who edits them, results of older code are stale.

    Returns
    -------
    str
        sha256 in hexadecimal.
    """
    digest = hashlib.sha256(__version__.encode())
    for package in ("actkit", "actkit.extractors", "actkit.analyses", "actkit.data_specs"):
        module = importlib.import_module(package)
        for folder in sorted(module.__path__):
            for path in sorted(Path(folder).glob("*.py")):
                if not path.name.startswith("cli"):
                    digest.update(f"{package}/{path.name}:".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def key_of(code: bool, **parts: Any) -> str:
    """Hash what a step depends on.

    Parameters
    ----------
    code : bool
        Whether every source file counts, or the version alone.
    **parts
        Plain values, mappings and lists of them, keys of other steps.

    Returns
    -------
    str
        sha256 in hexadecimal.
    """
    return fingerprint({"code": code_fingerprint() if code else __version__, **parts})


class Opener:
    """Opens data sets and networks, each once and only when a step needs it.

    Parameters
    ----------
    study : Study
        The checked study.
    out : Path
        Folder of everything the study makes.
    progress : bool, optional
        Show progress bars; by default where standard error is a terminal.
    """

    def __init__(self, study: Study, out: Path, progress: bool | None = None) -> None:
        self.study = study
        self.out = out
        self.progress = progress
        self._networks: dict[str, Network] = {}
        self._untrained: dict[str, Network] = {}
        self._datasets: dict[str, Any] = {}
        self._sets: dict[str, Any] = {}
        self._keys: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Give another process (`actkit.study_jobs`) what was read and drawn; networks it opens itself."""
        return {**self.__dict__, "_networks": {}, "_untrained": {}, "progress": False}

    def dataset(self, spec: StimuliSpec) -> Any:
        """Load a data set, once for each set of options."""
        key = json.dumps([spec.dataset, spec.root, spec.options], sort_keys=True, default=str)
        if key not in self._datasets:
            root = self.study.folder / spec.root if spec.root is not None else None
            self._datasets[key] = load_dataset(str(spec.dataset), root, spec.options)
        return self._datasets[key]

    def network(self, spec: NetworkSpec) -> Network:
        """Open a network, once; an extractor that trains keeps what it learnt in the study's folder."""
        if spec.name not in self._networks:
            with said_where(self.place(spec)):
                self._networks[spec.name] = self._open(spec, {"cache": str(self.out / "networks")})
        return self._networks[spec.name]

    def _open(self, spec: NetworkSpec, more: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> Network:
        """Open a network with what its extractor takes of the further options; `data` instead of what it learns."""
        from actkit.network import open_network

        fields = self._fields(spec)
        extra = {
            key: value
            for key, value in {"name": spec.name, **more}.items()
            if key in fields and key not in spec.options
        }
        if self._learns_from_data(spec):
            extra["data"] = self.training_data(spec) if data is None else data
        opener = plugins.load("actkit.extractors", spec.extractor)
        return open_network(spec.extractor, **spec.options, **extra, **call_progress(opener, self.progress))

    def training_specs(self, spec: NetworkSpec) -> dict[str, StimuliSpec]:
        """Name the data sets that a network learns from, task by task; none if it is not trained here.

        Parameters
        ----------
        spec : NetworkSpec
            The network.

        Returns
        -------
        dict of str to StimuliSpec
            Without the key ``sets``, which says how the network's tasks cut them.
        """
        if not self._learns_from_data(spec):
            return {}
        specs = {}
        for task, entry in self._tasks(spec).items():
            options = {"dataset": entry} if isinstance(entry, str) else dict(entry)
            options.pop("sets", None)
            specs[task] = StimuliSpec(dataset=options.pop("dataset", None), options=options)
        return specs

    def training_data(self, spec: NetworkSpec) -> dict[str, Any]:
        """Open what a network learns from: each data set once, however many networks learn from it.

        Parameters
        ----------
        spec : NetworkSpec
            A network that is trained here.

        Returns
        -------
        dict of str to Stimuli or ImageSets
            By task; image sets where the study asks for them.
        """
        found: dict[str, Any] = {}
        for task, one in self.training_specs(spec).items():
            entry = self._tasks(spec)[task]
            sets = entry.get("sets") if isinstance(entry, Mapping) else None
            with said_where(f"{self.place(spec)}, tasks, {task}"):
                stimuli = self.dataset(one).stimuli
                found[task] = stimuli if sets is None else self._cut(spec, task, one, stimuli, sets)
        return found

    def _cut(self, spec: NetworkSpec, task: str, one: StimuliSpec, stimuli: Stimuli, sets: Any) -> Any:
        """Cut the stimuli of a task into image sets, once for each way to cut them."""
        room = self._room(spec)
        columns = (self._label_of(spec, task), task, *room.LABEL_COLUMNS)
        label = next((name for name in columns if name in stimuli.labels), room.LABEL_COLUMNS[0])
        if not isinstance(sets, Mapping) or any(
            isinstance(number, bool) or not isinstance(number, int) for number in sets.values()
        ):
            raise InputError(f"sets: {sets!r} is no mapping of set to number of images; {_SETS_CURE}")
        key = json.dumps([one.dataset, one.options, sets, label], sort_keys=True, default=str)
        if key not in self._sets:
            self._sets[key] = room.image_sets(stimuli, label, sets, seed=int(one.options.get("seed", 0)))
        return self._sets[key]

    def image_sets(self, spec: NetworkSpec) -> dict[str, Any]:
        """Give the image sets of a network's tasks.

        Parameters
        ----------
        spec : NetworkSpec
            A network whose tasks all have ``sets``.

        Returns
        -------
        dict of str to ImageSets
            By task, in the order of the file.
        """
        return {task: data for task, data in self.training_data(spec).items() if hasattr(data, "ranking")}

    def sets_key(self, spec: NetworkSpec) -> str:
        """Hash the image sets of a network's tasks: what units are chosen by, and what lesions are measured on.

        Parameters
        ----------
        spec : NetworkSpec
            A network whose tasks all have ``sets``.

        Returns
        -------
        str
            sha256 in hexadecimal.
        """
        return fingerprint([[task, _content(data)] for task, data in self.image_sets(spec).items()])

    def _tasks(self, spec: NetworkSpec) -> Mapping[str, Any]:
        """What a network learns, as the study gives it or by default."""
        return spec.options.get("tasks") or self._fields(spec).get("tasks") or {}

    def _label_of(self, spec: NetworkSpec, task: str) -> str | None:
        """The label column that the study names for a task."""
        return (spec.options.get("labels") or {}).get(task)

    def _room(self, spec: NetworkSpec) -> Any:
        """The module of a network's extractor."""
        return importlib.import_module(plugins.load("actkit.extractors", spec.extractor).__module__)

    def _learns_from_data(self, spec: NetworkSpec) -> bool:
        """Whether a network is trained here on data that can be handed over."""
        opener = plugins.load("actkit.extractors", spec.extractor)
        return self.is_trained(spec) and "data" in inspect.signature(opener).parameters

    def untrained(self, spec: NetworkSpec) -> Network:
        """Open an untrained copy of a network, once for all its seeds: it has the layers, and their shapes.

        It is prepared with two images of each class, since all that counts is how many classes there are.

        Parameters
        ----------
        spec : NetworkSpec
            A network that is trained here.

        Returns
        -------
        Network
            In evaluation mode.
        """
        options = {key: value for key, value in spec.options.items() if key not in ("seed", "name", "n_train")}
        copy = spec.model_copy(update={"options": {**options, "epochs": 0}})
        key = json.dumps([spec.extractor, options], sort_keys=True, default=str)
        if key not in self._untrained:
            data = None
            if self._learns_from_data(spec):
                data = {task: self._few(spec, task, one) for task, one in self.training_data(spec).items()}
            with tempfile.TemporaryDirectory() as folder, said_where(self.place(spec)):
                self._untrained[key] = self._open(copy, {"cache": folder}, data)
        return self._untrained[key]

    def _few(self, spec: NetworkSpec, task: str, data: Any) -> Any:
        """Two images of each class of a task."""
        if hasattr(data, "ranking"):
            stimuli, label = data.training, data.label
        else:
            columns = (self._label_of(spec, task), task, *getattr(self._room(spec), "LABEL_COLUMNS", ()))
            label = next((name for name in columns if name in data.labels), None)
            if label is None:
                return data  # whose error the extractor words
            stimuli = data
        values = stimuli.labels[label].astype(str)
        use = np.ones(len(values), dtype=bool)
        if "split" in stimuli.labels:
            use = stimuli.labels["split"].astype(str) == "train"
        rows = [row for value in np.unique(values) for row in np.flatnonzero(use & (values == value))[:2]]
        few = stimuli[np.array(sorted(rows), dtype=int)]
        return few.with_labels(**{task: few.labels[label]}) if label not in ("split", task) else few

    def layers(self, spec: NetworkSpec, patterns: list[str], where: str) -> list[str]:
        """Find the layers of a network, without training it.

        Parameters
        ----------
        spec : NetworkSpec
            The network.
        patterns : list of str
            Names or patterns.
        where : str
            Place in the study file, for the message.

        Returns
        -------
        list of str
            Names, in the order they run.
        """
        network = self.untrained(spec) if self.is_trained(spec) else self.network(spec)
        with said_where(where):
            return list(network.select(patterns))

    def place(self, spec: NetworkSpec) -> str:
        """Where a network stands in the study file."""
        return f"{self.study.source}, networks, item {spec.item} ({spec.name})"

    def _fields(self, spec: NetworkSpec) -> dict[str, Any]:
        """Options that an extractor declares, with their defaults."""
        model = getattr(plugins.load("actkit.extractors", spec.extractor), "options_model", None)
        if model is None:
            return {}
        return {
            name: None if field.is_required() else field.get_default(call_default_factory=True)
            for name, field in model.model_fields.items()
        }

    def is_trained(self, spec: NetworkSpec) -> bool:
        """Whether opening a network means training it: its extractor then has the option ``cache``."""
        return "cache" in self._fields(spec)

    def network_key(self, spec: NetworkSpec) -> str:
        """Hash what decides a network's answers, without training it.

        A network that is read counts by its content (weights, preprocessing, code); one that is trained by what
        determines the training: options, data, code, and the version of torch.
        """
        if spec.name not in self._keys:
            with said_where(self.place(spec)):
                self._keys[spec.name] = (
                    self._training_key(spec) if self.is_trained(spec) else self.network(spec).fingerprint
                )
        return self._keys[spec.name]

    def _training_key(self, spec: NetworkSpec) -> str:
        """Hash what determines a training."""
        import torch

        options = {**self._fields(spec), **spec.options}
        how = {key: value for key, value in options.items() if key not in ("cache", "retrain", "name")}
        data = {task: _content(one, SETS_LEARNT) for task, one in self.training_data(spec).items()}
        return key_of(
            code=True,
            extractor=spec.extractor,
            options=how,
            data=data,
            torch=str(torch.__version__),
        )


def _content(data: Any, sets: tuple[str, ...] = _SETS) -> Any:
    """What tells stimuli, or some image sets of a task, from others: their pixels, ids and labels."""
    if hasattr(data, "ranking"):
        return {name: _content(getattr(data, name)) for name in sets} | {"label": data.label}
    return {"stimuli": data.fingerprint, "labels": {key: np.asarray(values) for key, values in data.labels.items()}}


def load_dataset(name: str, root: Path | None, options: Mapping[str, Any]) -> Any:
    """Load a data set from whichever installed catalogue knows it.

    Parameters
    ----------
    name : str
        The data set.
    root : path, optional
        Where its files lie.
    options : mapping
        Options of a data set that is drawn rather than read.

    Returns
    -------
    DataSet
        With ``stimuli``, ``variables`` and the variables by name.

    Raises
    ------
    DataError
        If no catalogue knows it.
    """
    if name.endswith((".yaml", ".yml")):  # a spec of one's own
        return plugins.load("actkit.data_specs", "actkit").load(name, root=root, **options)
    known: list[str] = []
    for entry in plugins.found("actkit.data_specs"):
        catalogue = plugins.load("actkit.data_specs", entry)
        if name in catalogue.names():
            return catalogue.load(name, root=root, **options)
        known += list(catalogue.names())
    raise DataError(f"no data set called {name!r}; {nearest(name, known)}")


def call_progress(function: Callable[..., Any], progress: bool | None) -> dict[str, Any]:
    """Give ``progress`` to the functions that take it.

    Parameters
    ----------
    function : callable
        A step's function.
    progress : bool or None
        What to give.

    Returns
    -------
    dict
        ``{"progress": …}`` or nothing.
    """
    return {"progress": progress} if "progress" in inspect.signature(function).parameters else {}
