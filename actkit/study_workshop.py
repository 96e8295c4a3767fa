"""What the steps of a study share while it runs: the opened networks, stimuli, data and the code's own hash."""

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
from actkit.study_file import ModelSpec, NetworkSpec, StimuliSpec, Study, said_where

if TYPE_CHECKING:
    import xarray as xr

    from actkit.network import Network
    from actkit.options import Options
    from actkit.stimuli import Stimuli
    from actkit.store import ActivationStore


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


class Workshop:
    """Opens what a study names, each thing once and only when a step needs it.

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
        self._datasets: dict[str, Any] = {}
        self._data: dict[str, xr.Dataset] = {}
        self._keys: dict[str, str] = {}

    # ------------------------------------------------------------ stimuli

    @functools.cached_property
    def stimuli(self) -> Stimuli:
        """The stimuli of the study, joined in the order given."""
        from actkit.stimuli import concatenate

        many = len(self.study.stimuli) > 1
        sets = []
        for i, spec in enumerate(self.study.stimuli, 1):
            with said_where(f"{self.study.source}, stimuli" + (f", item {i}" if many else "")):
                sets.append(self._one_set(spec))
        if not many:
            return sets[0]
        with said_where(f"{self.study.source}, stimuli"):
            return concatenate(sets)

    def _one_set(self, spec: StimuliSpec) -> Stimuli:
        """Open one item of ``stimuli`` and keep what it selects."""
        from actkit.stimuli import as_stimuli

        if spec.dataset is not None:
            stimuli = self.dataset(spec).stimuli
        else:
            stimuli = as_stimuli(self.study.folder / str(spec.path))
        for label, wanted in spec.select.items():
            if label not in stimuli.labels:
                raise InputError(f"select: the stimuli have no label {label!r}; {nearest(label, stimuli.labels)}")
            values = wanted if isinstance(wanted, list) else [wanted]
            words = {label_word(value) for value in values}
            mask = np.array([label_word(value) in words for value in stimuli.labels[label].tolist()])
            unknown = words - {label_word(value) for value in stimuli.labels[label].tolist()}
            if unknown:
                known = sorted({label_word(value) for value in stimuli.labels[label].tolist()})
                raise InputError(f"select: no stimulus has {label} {min(unknown)!r}; {nearest(min(unknown), known)}")
            stimuli = stimuli[mask]
        if spec.ids:
            stimuli = stimuli.select(spec.ids)
        if spec.each is not None and len(stimuli) > spec.each:
            stimuli = stimuli[np.unique(np.linspace(0, len(stimuli) - 1, spec.each).round().astype(int))]
        if len(stimuli) == 0:
            raise InputError("select: no stimulus has all of these labels; loosen one of them")
        return stimuli

    def stimuli_key(self) -> str:
        """Hash the stimuli by content, order, ids and labels."""
        stimuli = self.stimuli
        return fingerprint(
            {"stimuli": stimuli.fingerprint, "labels": {k: np.asarray(v) for k, v in stimuli.labels.items()}}
        )

    def label(self, name: str, where: str) -> np.ndarray:
        """Find a label column of the stimuli.

        Parameters
        ----------
        name : str
            The label.
        where : str
            Place in the study file, for the message.

        Returns
        -------
        numpy.ndarray
            One value a stimulus.
        """
        labels = self.stimuli.labels
        if name not in labels:
            raise InputError(f"{where}: the stimuli have no label {name!r}; {nearest(name, labels)}")
        return labels[name]

    # --------------------------------------------------------------- data

    def dataset(self, spec: StimuliSpec) -> Any:
        """Load a data set, once for each set of options."""
        key = json.dumps([spec.dataset, spec.root, spec.options], sort_keys=True, default=str)
        if key not in self._datasets:
            root = self.study.folder / spec.root if spec.root is not None else None
            self._datasets[key] = load_dataset(str(spec.dataset), root, spec.options)
        return self._datasets[key]

    def datasets(self) -> list[Any]:
        """The data sets that the study's stimuli come from."""
        return list(
            {d.name: d for d in (self.dataset(s) for s in self.study.stimuli if s.dataset is not None)}.values()
        )

    def data(self, variable: str, where: str) -> xr.Dataset:
        """Find measured or model RDMs: a variable of the study's data sets, or ``DATASET:VARIABLE``, or a file.

        Parameters
        ----------
        variable : str
            The name as the study gives it.
        where : str
            Place in the study file, for the message.

        Returns
        -------
        xarray.Dataset
            An RDM dataset over those of the study's stimuli that were measured, in the study's order.
        """
        if variable not in self._data:
            with said_where(where):
                self._data[variable] = self._find_data(variable)
        return self._data[variable]

    def _find_data(self, variable: str) -> xr.Dataset:
        """Look a variable up and bring it to the study's stimuli by id."""
        from actkit.recordings import select_stimuli
        from actkit.results import load

        if variable in self.study.observers:
            return self._simulated(variable)
        if variable.endswith(".nc"):
            found = load(self.study.folder / variable)
        elif ":" in variable:
            name, _, variable = variable.partition(":")
            found = load_dataset(name, None, {})[variable]
        else:
            sets = [self.dataset(spec) for spec in self.study.stimuli if spec.dataset is not None]
            holding = [dataset for dataset in sets if variable in dataset.variables]
            if not holding:
                known = [*self.study.observers, *(name for dataset in sets for name in dataset.variables)]
                names = ", ".join(dataset.name for dataset in sets) or "the stimuli (which are a plain folder)"
                raise DataError(
                    f"{variable!r} is no variable of {names}" + (f"; {nearest(variable, known)}" if known else "")
                )
            found = holding[0][variable]
        there = set(found["stimulus"].values.astype(str).tolist())
        shared = [name for name in self.stimuli.ids.tolist() if name in there]
        if len(shared) < 3:
            raise DataError(
                f"{variable!r} and the study's stimuli share {len(shared)} ids, and a comparison needs at least 3; "
                f"its ids are like {next(iter(there))!r}, the study's like {self.stimuli.ids[0]!r}"
            )
        title = readable(str(found.attrs.get("name", variable)))
        return select_stimuli(found, shared).assign_attrs(name=title)

    def _simulated(self, name: str) -> xr.Dataset:
        """Simulate observers over the stimuli for which all parts of their truth are defined."""
        spec, truth = self.study.observers[name]
        where = f"{self.study.source}, simulate, {name}"
        defined = np.ones(len(self.stimuli), dtype=bool)
        for part in truth:
            if part.label is not None:
                values = self.label(part.label, f"{where}, truth").tolist()
                defined &= np.array([has_value(value) for value in values])
            else:
                measured = self.data(str(part.data), f"{where}, truth")["stimulus"].values
                defined &= np.isin(self.stimuli.ids, measured.astype(str))
        ids = self.stimuli.ids[defined]
        if len(ids) < 3:
            raise InputError(f"{where}, truth: {len(ids)} stimuli have all of its parts; at least 3 are needed")
        catalogue = plugins.load("actkit.data_specs", "actkit")
        simulate = importlib.import_module(f"{catalogue.__package__}.simulated").simulated_observers
        return simulate(
            self.models(truth, ids, where),
            n_subjects=spec.n_subjects,
            noise=spec.noise,
            seed=spec.seed or 0,
            weights=spec.weights,
            name=readable(name),
        )

    def models(self, specs: tuple[ModelSpec, ...], ids: np.ndarray, where: str) -> list[xr.Dataset]:
        """Make the model RDMs of a step.

        Parameters
        ----------
        specs : tuple of ModelSpec
            What the study names.
        ids : numpy.ndarray of str
            The stimuli of the comparison.
        where : str
            Place in the study file, for the message.

        Returns
        -------
        list of xarray.Dataset
            RDM datasets over `ids` with the leading dim ``model``.
        """
        from actkit.recordings import category_rdms, leading_dim, select_stimuli

        made = []
        place = {name: row for row, name in enumerate(self.stimuli.ids.tolist())}
        rows = np.array([place[str(name)] for name in ids])
        for spec in specs:
            if spec.label is not None:
                values = self.label(spec.label, f"{where}, models")[rows]
                with said_where(f"{where}, models, {spec.name or spec.label}"):
                    column = grouped(values, spec.groups) if spec.groups else values
                    made.append(category_rdms({spec.name or spec.label: column}, ids))
                continue
            rdms = self.data(str(spec.data), f"{where}, models")
            dim = leading_dim(rdms)
            names = [str(name) for name in rdms[dim].values]
            for key, listed in (("only", spec.only), ("leave_out", spec.leave_out)):
                for name in listed:
                    if name not in names:
                        raise InputError(f"{where}, models, {key}: {spec.data} has no {name!r}; {nearest(name, names)}")
            chosen = [n for n in names if n not in spec.leave_out and (n in spec.only or not spec.only)]
            kept = rdms.isel({dim: [names.index(name) for name in chosen]})
            made.append(select_stimuli(kept, ids).assign_attrs(kind="model"))
        return made

    # ------------------------------------------------------------ networks

    def network(self, spec: NetworkSpec) -> Network:
        """Open a network, once; an extractor that trains keeps what it learnt in the study's folder."""
        if spec.name not in self._networks:
            with said_where(self._place(spec)):
                self._networks[spec.name] = self._open(spec, {"cache": str(self.out / "networks")})
        return self._networks[spec.name]

    def _open(self, spec: NetworkSpec, more: Mapping[str, Any]) -> Network:
        """Open a network with what its extractor takes of the further options."""
        from actkit.network import open_network

        fields = self._fields(spec)
        extra = {
            key: value
            for key, value in {"name": spec.name, **more}.items()
            if key in fields and key not in spec.options
        }
        opener = plugins.load("actkit.extractors", spec.extractor)
        if self.is_trained(spec) and "data" in inspect.signature(opener).parameters:
            extra["data"] = self._training_data(spec)
        return open_network(spec.extractor, **spec.options, **extra, **call_progress(opener, self.progress))

    def _training_data(self, spec: NetworkSpec) -> dict[str, Stimuli]:
        """The stimuli that a network learns from, task by task; drawn once however many networks learn from them."""
        tasks = spec.options.get("tasks") or self._fields(spec).get("tasks") or {}
        specs = {}
        for task, entry in tasks.items():
            options = {"dataset": entry} if isinstance(entry, str) else dict(entry)
            specs[task] = StimuliSpec(dataset=options.pop("dataset", None), options=options)
        return {task: self.dataset(one).stimuli for task, one in specs.items()}

    def _place(self, spec: NetworkSpec) -> str:
        """Where a network stands in the study file."""
        number = [other.name for other in self.study.networks].index(spec.name) + 1
        return f"{self.study.source}, networks, item {number} ({spec.name})"

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
            with said_where(self._place(spec)):
                self._keys[spec.name] = (
                    self._training_key(spec) if self.is_trained(spec) else self.network(spec).fingerprint
                )
        return self._keys[spec.name]

    def _training_key(self, spec: NetworkSpec) -> str:
        """Hash what determines a training."""
        import torch

        options = {**self._fields(spec), **spec.options}
        how = {key: value for key, value in options.items() if key not in ("cache", "retrain", "name")}
        data = {
            task: {"stimuli": stimuli.fingerprint, "labels": {k: np.asarray(v) for k, v in stimuli.labels.items()}}
            for task, stimuli in self._training_data(spec).items()
        }
        return key_of(
            code=True,
            extractor=spec.extractor,
            options=how,
            data=data,
            torch=str(torch.__version__),
        )

    def recording(self, spec: NetworkSpec, options: Options) -> tuple[int, bool]:
        """Tell how large a recording will be, from a trial run, and whether it was begun.

        Of a network that has yet to be trained, an untrained copy is tried: its layers have the same shapes.

        Parameters
        ----------
        spec : NetworkSpec
            The network.
        options : Options
            Recording options.

        Returns
        -------
        tuple of int and bool
            Bytes of the whole store, and whether a part of this very recording is there.
        """
        path = self.store_path(spec.name)
        with tempfile.TemporaryDirectory() as folder:
            if self.is_trained(spec) and spec.name not in self._networks:
                short = spec.model_copy(update={"options": {**spec.options, "epochs": 0}})
                with said_where(self._place(spec)):
                    network = self._open(short, {"cache": folder})
                begun = path.exists()
            else:
                network = self.network(spec)
                begun = path.exists() and not self.another_is_at(path, network, options)
            plan = plugins.load("actkit.engines", "record").plan_extraction
            return int(plan(network, self.stimuli, Path(folder) / "planned.zarr", options=options).bytes), begun

    def another_is_at(self, path: Path, network: Network, options: Options) -> bool:
        """Tell whether the store at a path, whole or begun, is of something else than is to be recorded."""
        from actkit.errors import ActkitError
        from actkit.store import open_store

        if not path.exists():
            return False
        plan = plugins.load("actkit.engines", "record").plan_extraction
        try:
            there = open_store(path, allow_incomplete=True).identity
        except ActkitError:  # not a store that can be read: what is left of one
            return True
        return bool(there != plan(network, self.stimuli, path, options=options).identity)

    def store_path(self, name: str) -> Path:
        """The place of a network's store."""
        return self.out / "stores" / f"{name}.zarr"

    def store(self, name: str) -> ActivationStore:
        """Open the finished store of a network."""
        from actkit.store import open_store

        return open_store(self.store_path(name))


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


def has_value(value: Any) -> bool:
    """Tell whether a label is given; joined sets of stimuli lack each other's labels.

    Parameters
    ----------
    value : str, number or None
        One stimulus's label.

    Returns
    -------
    bool
        False for an empty text, None and NaN.
    """
    return value is not None and value != "" and value == value


_CAPITALS = {"it": "IT", "v1": "V1", "v2": "V2", "v4": "V4", "mt": "MT", "fmri": "fMRI", "meg": "MEG", "eeg": "EEG"}


def readable(name: str) -> str:
    """Write the name of a variable as people do.

    Parameters
    ----------
    name : str
        Such as ``"human_it"``.

    Returns
    -------
    str
        Such as ``"human IT"``.
    """
    return " ".join(_CAPITALS.get(word, word) for word in name.replace("_", " ").split())


def variable_name(variable: str) -> str:
    """Name a variable in steps and files, without the data set or folder it is in.

    Parameters
    ----------
    variable : str
        As a study gives it: a name, ``DATASET:VARIABLE`` or a file.

    Returns
    -------
    str
        The name alone.
    """
    return Path(variable).stem if variable.endswith(".nc") else variable.rpartition(":")[2]


def grouped(values: np.ndarray, groups: Mapping[str, list[Any]]) -> np.ndarray:
    """Merge the values of a label into named groups.

    Parameters
    ----------
    values : numpy.ndarray, shape (n,)
        The label of each stimulus.
    groups : mapping of str to list
        Name of a group to the values it takes in.

    Returns
    -------
    numpy.ndarray of str, shape (n,)
        The group of each stimulus.

    Raises
    ------
    InputError
        If a value belongs to no group or to two, or a group names a value that no stimulus has.
    """
    home: dict[str, str] = {}
    present = {label_word(value) for value in values.tolist()}
    for name, members in groups.items():
        for member in members:
            word = label_word(member)
            if word in home:
                raise InputError(f"groups: {word!r} stands in {home[word]!r} and in {name!r}; keep it in one")
            if word not in present:
                raise InputError(
                    f"groups, {name}: no stimulus has the value {word!r}; {nearest(word, sorted(present))}"
                )
            home[word] = name
    homeless = present - set(home)
    if homeless:
        raise InputError(f"groups: {min(homeless)!r} belongs to no group; give every value of the label a group")
    return np.array([home[label_word(value)] for value in values.tolist()], dtype=str)


def label_word(value: Any) -> str:
    """Write a label value so that YAML's true and 1, CSV's '1', and the 1.0 of joined sets are the same.

    Parameters
    ----------
    value : str, number or bool
        A label.

    Returns
    -------
    str
        The word.
    """
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


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
