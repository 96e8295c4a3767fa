"""What an RSA compares: model RDMs of networks, fixed and flexible models, over the stimuli of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import xarray as xr

from actkit.analyses.crossvalidation import FIXED, Group
from actkit.analyses.models import flexible_kind
from actkit.errors import InputError
from actkit.recordings import VARIABLE, align_rdms, leading_dim, validate_rdms
from actkit.results import fingerprint

Models = xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset]

_FAMILY = {"layer": "layers", "model": "models", "control": "controls"}
BEST_LAYER = "chosen layer"


@dataclass(frozen=True)
class Candidates:
    """All model RDMs of an analysis in one array, and what each model makes of them.

    A fixed model is one RDM; a flexible one (weighted, selection, interpolation) has several components.
    """

    vectors: np.ndarray  # (components, pairs)
    groups: tuple[Group, ...]  # one for each model: its name, how it is fitted, the rows of its components
    network: tuple[str, ...]
    layer: tuple[str, ...]
    kind: tuple[str, ...]
    position: tuple[int, ...]
    components: tuple[str, ...]  # names of the components

    @property
    def labels(self) -> list[str]:
        """Names of the models."""
        return [group.name for group in self.groups]

    @property
    def family(self) -> np.ndarray:
        """Family of each model, within which p-values are corrected."""
        return np.array([_FAMILY[kind] for kind in self.kind])

    @property
    def fitted(self) -> np.ndarray:
        """True for models with parameters, which only data that did not fit them can test."""
        return np.array([group.kind != FIXED for group in self.groups])

    def fixed_vectors(self) -> np.ndarray:
        """The RDM of each fixed model, ``(models, pairs)``; NaN for a flexible one."""
        out = np.full((len(self.groups), self.vectors.shape[1]), np.nan)
        for row, group in enumerate(self.groups):
            if group.kind == FIXED:
                out[row] = self.vectors[group.rows[0]]
        return out


def gather(models: Models, data: xr.Dataset, choose_layer: bool = False) -> tuple[Candidates, dict[str, str]]:
    """Bring all model RDMs to the data's stimuli, by id.

    Parameters
    ----------
    models : xarray.Dataset, list or mapping of them
        RDM datasets; those tagged by :mod:`actkit.analyses.models` are one flexible model each, any other holds a
        fixed model for each name along its leading dim.
    data : xarray.Dataset
        RDM dataset of subjects.
    choose_layer : bool
        Add to each network with two layers or more a model that chooses its best layer.

    Returns
    -------
    candidates : Candidates
        The models.
    inputs : dict of str to str
        Fingerprint of each input.

    Raises
    ------
    InputError
        If there are no models, a kind is unknown, stimuli differ or names repeat.
    """
    parts: list[tuple[str | None, xr.Dataset]]
    if isinstance(models, xr.Dataset):  # which is a Mapping too
        parts = [(None, models)]
    elif isinstance(models, Mapping):
        parts = [(str(name), cast(xr.Dataset, rdms)) for name, rdms in models.items()]
    else:
        parts = [(None, rdms) for rdms in models]
    if not parts:
        raise InputError("no models were given; give RDMs of layers (actkit.rdm) or of categories (category_rdms)")
    found = _Gathering()
    for key, rdms in parts:
        found.take(key, rdms, data)
    if choose_layer:
        found.add_best_layers()
    repeated = [label for label, count in Counter(group.name for group in found.groups).items() if count > 1]
    if repeated:
        raise InputError(
            f"models share a name: {', '.join(map(repr, repeated[:5]))}; give RDM datasets as a mapping with different "
            "names, or rename the models"
        )
    return found.candidates(), found.inputs


class _Gathering:
    """Collects models one dataset after the other."""

    def __init__(self) -> None:
        self.vectors: list[np.ndarray] = []
        self.groups: list[Group] = []
        self.network: list[str] = []
        self.layer: list[str] = []
        self.kind: list[str] = []
        self.position: list[int] = []
        self.components: list[str] = []
        self.inputs: dict[str, str] = {}
        self.count = 0

    def take(self, key: str | None, rdms: xr.Dataset, data: xr.Dataset) -> None:
        """Take in one dataset."""
        validate_rdms(rdms)
        dim = leading_dim(rdms)
        source = key or str(rdms.attrs.get("network") or rdms.attrs.get("name") or "models")
        flexible = flexible_kind(rdms) or FIXED
        usual = "layer" if dim == "layer" and flexible == FIXED else "model"
        kind = str(rdms.attrs.get("kind", usual))
        if kind == "rdm":  # what a variable of a data set is, not what it is for
            kind = usual
        if kind not in _FAMILY:
            raise InputError(f"RDMs of {source!r} have the kind {kind!r}; it is one of {', '.join(_FAMILY)}")
        _, aligned = align_rdms(data, rdms)
        vectors = aligned[VARIABLE].values.astype(np.float64)
        rows = range(self.count, self.count + len(vectors))
        self.vectors.append(vectors)
        self.count += len(vectors)
        self.components += [str(value) for value in rdms[dim].values]
        self.inputs[_free(f"models: {source}", self.inputs)] = fingerprint(rdms)
        if flexible != FIXED:
            name = key or str(rdms.attrs["name"])
            group = Group(name, flexible, tuple(rows), ridge=float(rdms.attrs.get("ridge", 0.0)))
            self._add(group, source, name, kind, 0)
            return
        for position, (row, value) in enumerate(zip(rows, rdms[dim].values, strict=True)):
            label = f"{source}/{value}" if dim == "layer" else str(value)
            self._add(Group(label, FIXED, (row,)), source, str(value), kind, position)

    def _add(self, group: Group, network: str, layer: str, kind: str, position: int) -> None:
        self.groups.append(group)
        self.network.append(network)
        self.layer.append(layer)
        self.kind.append(kind)
        self.position.append(position)

    def add_best_layers(self) -> None:
        """Add the model that chooses a layer, for every network that has a choice."""
        names = dict.fromkeys(n for n, kind in zip(self.network, self.kind, strict=True) if kind == "layer")
        choices = {
            name: [
                group.rows[0]
                for group, network, kind in zip(self.groups, self.network, self.kind, strict=True)
                if network == name and kind == "layer" and not np.isnan(self._row(group.rows[0])).any()
            ]
            for name in names
        }
        enough = {name: rows for name, rows in choices.items() if len(rows) > 1}
        if not enough:
            raise InputError(
                "choose_layer=True, but no network has two layers or more to choose from; give RDMs along the dim layer"
            )
        for name, rows in enough.items():
            self._add(Group(f"{name}/{BEST_LAYER}", "selection", tuple(rows)), name, BEST_LAYER, "model", 0)

    def _row(self, number: int) -> np.ndarray:
        for vectors in self.vectors:
            if number < len(vectors):
                return vectors[number]
            number -= len(vectors)
        raise IndexError(number)

    def candidates(self) -> Candidates:
        """Everything taken in."""
        return Candidates(
            np.concatenate(self.vectors),
            tuple(self.groups),
            tuple(self.network),
            tuple(self.layer),
            tuple(self.kind),
            tuple(self.position),
            tuple(self.components),
        )


def _free(name: str, taken: Mapping[str, str]) -> str:
    """Number a name that is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free
