"""What the steps of a study share while it runs: stimuli, labels, measured and model RDMs, and recordings."""

from __future__ import annotations

import functools
import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plugins
from actkit.errors import DataError, InputError, nearest
from actkit.results import fingerprint
from actkit.study_opening import Opener, call_progress, code_fingerprint, key_of, load_dataset
from actkit.study_recordings import find_recording, find_variable
from actkit.study_spec import ModelSpec, NetworkSpec, StimuliSpec, Study, said_where
from actkit.study_words import grouped, groups_among, has_value, label_word, labelled, readable, variable_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from actkit.network import Network
    from actkit.options import Options
    from actkit.stimuli import Stimuli
    from actkit.store import ActivationStore

__all__ = ["Workshop", "call_progress", "code_fingerprint", "key_of", "load_dataset", "variable_name"]


class Workshop(Opener):
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
        super().__init__(study, out, progress)
        self._data: dict[str, xr.Dataset] = {}
        self._recordings: dict[str, xr.DataArray] = {}
        self._sizes: dict[str, int] = {}

    # ------------------------------------------------------------ stimuli

    @functools.cached_property
    def stimuli(self) -> Stimuli:
        """The stimuli of the study, joined in the order given."""
        from actkit.stimuli import concatenate

        if not self.study.stimuli:
            raise InputError(f"{self.study.source}: the study names no stimuli, and a step needs some")
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
            stimuli = stimuli[labelled(stimuli.labels, label, wanted)]
        if spec.ids:
            stimuli = stimuli.select(spec.ids)
        if spec.each is not None and len(stimuli) > spec.each:
            stimuli = stimuli[np.unique(np.linspace(0, len(stimuli) - 1, spec.each).round().astype(int))]
        if len(stimuli) == 0:
            raise InputError("select: no stimulus has all of these labels; loosen one of them")
        return stimuli.with_ids(f"{spec.prefix}{one}" for one in stimuli.ids.tolist()) if spec.prefix else stimuli

    def stimuli_key(self) -> str:
        """Hash the stimuli by content, order, ids and labels."""
        stimuli = self.stimuli
        return fingerprint(
            {"stimuli": stimuli.fingerprint, "labels": {k: np.asarray(v) for k, v in stimuli.labels.items()}}
        )

    def selected(self, select: Mapping[str, Any], where: str) -> np.ndarray:
        """Find the stimuli that a step is about.

        Parameters
        ----------
        select : mapping of str to value or list
            Values of labels; all stimuli if it is empty.
        where : str
            Place in the study file, for the message.

        Returns
        -------
        numpy.ndarray of bool
            One value a stimulus.

        Raises
        ------
        InputError
            If there is no such label or value, or no stimulus has them all.
        """
        mask = np.ones(len(self.stimuli), dtype=bool)
        with said_where(where):
            for label, wanted in select.items():
                mask &= labelled(self.stimuli.labels, label, wanted)
            if not mask.any():
                raise InputError("select: no stimulus has all of these labels; loosen one of them")
        return mask

    def selected_data(self, variable: str, select: Mapping[str, Any], words: str, where: str) -> xr.Dataset:
        """Cut measured RDMs to the stimuli that a step is about.

        Parameters
        ----------
        variable : str
            The name as the study gives it.
        select : mapping of str to value or list
            Values of labels; all stimuli if it is empty.
        words : str
            What the selected stimuli are called; joins the name of the data.
        where : str
            Place in the study file, for the message.

        Returns
        -------
        xarray.Dataset
            As `data` returns it.

        Raises
        ------
        InputError
            If fewer than three of them were measured.
        """
        from actkit.recordings import select_stimuli

        data = self.data(variable, f"{where}, data")
        if not select:
            return data
        wanted = set(self.stimuli.ids[self.selected(select, where)].tolist())
        ids = [name for name in data["stimulus"].values.astype(str).tolist() if name in wanted]
        if len(ids) < 3:
            raise InputError(
                f"{where}, select: {len(ids)} of the {len(wanted)} stimuli have data in {variable!r}, and a "
                "comparison needs at least 3; select more"
            )
        return select_stimuli(data, ids).assign_attrs(name=f"{data.attrs['name']} ({words})")

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

    def datasets(self) -> list[Any]:
        """The data sets that the study's stimuli come from, and those that its networks learn from."""
        specs = [spec for spec in self.study.stimuli if spec.dataset is not None]
        specs += [one for network in self.study.networks for one in self.training_specs(network).values()]
        return list({dataset.name: dataset for dataset in map(self.dataset, specs)}.values())

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
        else:
            found = find_variable(self, variable)
        there = set(found["stimulus"].values.astype(str).tolist())
        shared = [name for name in self.stimuli.ids.tolist() if name in there]
        if len(shared) < 3:
            raise DataError(
                f"{variable!r} and the study's stimuli share {len(shared)} ids, and a comparison needs at least 3; "
                f"its ids are like {next(iter(there))!r}, the study's like {self.stimuli.ids[0]!r}"
            )
        title = readable(str(found.attrs.get("name", variable.rpartition(":")[2])))
        return select_stimuli(found, shared).assign_attrs(name=title)

    def recording_of(self, name: str) -> xr.DataArray:
        """Find a recording of neurons, once.

        Parameters
        ----------
        name : str
            One of the names under ``recordings``.

        Returns
        -------
        xarray.DataArray
            Over those of the study's stimuli that were recorded, in the study's order.
        """
        if name not in self._recordings:
            self._recordings[name] = find_recording(self, name)
        return self._recordings[name]

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

    def models(
        self, specs: tuple[ModelSpec, ...], ids: np.ndarray, where: str, left_out: list[str] | None = None
    ) -> list[xr.Dataset]:
        """Make the model RDMs of a step.

        Parameters
        ----------
        specs : tuple of ModelSpec
            What the study names.
        ids : numpy.ndarray of str
            The stimuli of the comparison.
        where : str
            Place in the study file, for the message.
        left_out : list of str, optional
            Of selected stimuli: takes the names of models that tell no two of them apart, which are left out. Without
            it such a label is refused.

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
                values, title = self.label(spec.label, f"{where}, models")[rows], spec.name or spec.label
                groups = spec.groups if left_out is None else groups_among(values, spec.groups)
                with said_where(f"{where}, models, {title}"):
                    column = grouped(values, groups) if groups else values
                    if left_out is not None and len({label_word(value) for value in column.tolist()}) in (1, len(ids)):
                        left_out.append(title)
                    else:
                        made.append(category_rdms({title: column}, ids))
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
            kept = select_stimuli(kept, ids).assign_attrs(kind="model")
            if left_out is not None:
                tells = np.array([np.unique(row[~np.isnan(row)]).size > 1 for row in kept["dissimilarity"].values])
                left_out += [name for name, one in zip(chosen, tells, strict=True) if not one]
                kept = kept.isel({dim: np.flatnonzero(tells)})
            if kept.sizes[dim]:
                made.append(kept)
        return made

    # ---------------------------------------------------------- recordings

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
        trained_later = self.is_trained(spec) and spec.name not in self._networks
        network = self.untrained(spec) if trained_later else self.network(spec)
        if trained_later:
            begun = path.exists()
        else:
            begun = path.exists() and not self.another_is_at(path, network, options)
        # Networks that differ in their seed alone are of one size.
        key = key_of(code=False, network=network.fingerprint, options=options.model_dump(mode="json"))
        if key not in self._sizes:
            plan = plugins.load("actkit.engines", "record").plan_extraction
            with tempfile.TemporaryDirectory() as folder:
                planned = plan(network, self.stimuli, Path(folder) / "planned.zarr", options=options)
            self._sizes[key] = int(planned.bytes)
        return self._sizes[key], begun

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
