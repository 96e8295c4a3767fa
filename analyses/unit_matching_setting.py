"""What every comparison of units with neurons starts from: layers, averaged responses, folds and targets, aligned."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from actkit.analyses.neuron_inputs import Recorded, averaged_source, read_responses, recorded_rows, reliability_of
from actkit.analyses.neuron_reliability import FLOOR
from actkit.analyses.selectivity_responses import Layout, open_responses
from actkit.analyses.source import Layer, Source, choose_layers, label_column
from actkit.analyses.unit_matching_folds import Folds, deal_folds
from actkit.analyses.unit_matching_kernel import Targets
from actkit.compute import spans
from actkit.errors import InputError
from actkit.options import Options
from actkit.resampling import Stream, generator
from actkit.results import fingerprint

__all__ = [
    "MatchingOptions",
    "Setting",
    "bootstrap_interval",
    "correlate_rows",
    "mean_over_folds",
    "open_setting",
    "single_units",
]

_AT_ONCE = 64  # bootstrap samples


class MatchingOptions(Options):
    """What every comparison of units with neurons takes."""

    layers: list[str] | None = Field(
        None, description="Layer names or patterns (* within a component, ** across dots); all layers by default."
    )
    folds: int = Field(5, ge=2, description="Parts into which the stimuli are split.")
    floor: float = Field(
        FLOOR, ge=0, le=1, description="Reliability below which a neuron's correlation is not divided by its ceiling."
    )
    memory: str = Field("500MB", description="Most memory to use for blocks of units and for plans, such as '1GB'.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the folds, and of everything that is drawn.")


@dataclass(frozen=True)
class Setting:
    """Layers and neurons over the same stimuli.

    Attributes
    ----------
    opened : Source
        Stimuli and layers.
    layouts : dict of str to Layout
        How the units of each layer belong to channels.
    layers : list of Layer
        The layers chosen.
    recorded : Recorded
        Averaged responses.
    rows : numpy.ndarray of int
        ``(n_stimuli,)`` row of the layers for each recorded stimulus.
    groups, labels : numpy.ndarray of str or None
        ``(n_stimuli,)`` group and category of each stimulus.
    reliability : numpy.ndarray or None
        ``(n_neurons,)``.
    folds : Folds
        Stimuli sorted by fold; the same as those of ``match_units`` with the same seed.
    targets : Targets
        The neurons, ready for a pass over units.
    """

    opened: Source
    layouts: dict[str, Layout]
    layers: list[Layer]
    recorded: Recorded
    rows: np.ndarray
    groups: np.ndarray | None
    labels: np.ndarray | None
    reliability: np.ndarray | None
    folds: Folds
    targets: Targets

    @property
    def sorted_rows(self) -> np.ndarray:
        """Rows of the layers, fold by fold."""
        return self.rows[self.folds.order]

    def ceiling(self, floor: float) -> np.ndarray | None:
        """Highest correlation that a noiseless model reaches with each neuron.

        Parameters
        ----------
        floor : float
            Reliability below which a neuron has none.

        Returns
        -------
        numpy.ndarray or None
            ``(n_neurons,)`` square roots of the reliability, NaN below the floor; None without reliabilities.
        """
        if self.reliability is None:
            return None
        high = self.reliability >= max(floor, np.finfo(float).tiny)
        return np.where(high, np.sqrt(np.where(high, self.reliability, 1.0)), np.nan)

    def inputs(self) -> dict[str, str]:
        """Hash what went in.

        Returns
        -------
        dict of str to str
            Fingerprint by name.
        """
        return {
            "source": self.opened.fingerprint(),
            "responses": fingerprint(self.recorded.values),
            "groups": fingerprint(self.groups),
            "labels": fingerprint(self.labels),
            "reliability": fingerprint(self.reliability),
        }

    def attrs(self) -> dict[str, Any]:
        """Say what was compared, as attributes of a result.

        Returns
        -------
        dict
            Network, recording, numbers of stimuli and neurons, splitting and shapes of the layers.
        """
        n, folds = len(self.rows), len(self.folds.parts)
        splitting = f"{folds}-fold crossvalidation over {n} stimuli"
        if self.groups is not None:
            splitting += f", {len(np.unique(self.groups))} groups kept whole"
        if self.labels is not None:
            splitting += f", stratified by {len(np.unique(self.labels))} categories"
        return {
            "network": str(self.opened.attrs.get("network", self.opened.name)),
            "recording": self.recorded.name,
            "region": self.recorded.attrs.get("region"),
            "subject": self.recorded.attrs.get("subject"),
            "splitting": splitting,
            "n_stimuli": n,
            "n_neurons": len(self.recorded.neurons),
            "shapes": json.dumps({layer.name: list(self.layouts[layer.name].shape) for layer in self.layers}),
        }

    def coords(self) -> dict[str, Any]:
        """Name layers, neurons and stimuli, as coordinates of a result.

        Returns
        -------
        dict
            ``layer``, ``n_units`` by layer, ``neuron``, ``stimulus`` and ``fold_of_stimulus``.
        """
        return {
            "layer": [layer.name for layer in self.layers],
            "n_units": ("layer", np.array([layer.n_units for layer in self.layers])),
            "neuron": np.array(self.recorded.neurons),
            "stimulus": np.array(self.recorded.ids),
            "fold_of_stimulus": ("stimulus", self.folds.number),
        }


def open_setting(
    source: Any,
    responses: Any,
    groups: Any,
    labels: Any,
    reliability: Any,
    ids: Sequence[Any] | np.ndarray | None,
    layers: Sequence[str] | None,
    folds: int,
    seed: int,
) -> Setting:
    """Read units and neurons, align them, and deal their stimuli into folds.

    Parameters
    ----------
    source, responses, groups, labels, reliability, ids
        As for :func:`actkit.analyses.unit_matching.match_units`.
    layers : sequence of str or None
        Names or patterns of layers.
    folds : int
        Number of folds.
    seed : int
        Seed of the folds.

    Returns
    -------
    Setting
        Nothing of the units is read yet.

    Raises
    ------
    InputError
        If stimuli do not fit each other or the folds, or a layer has no single units.
    DataError
        If the recording is not valid or has gaps.
    LayerError
        If a layer does not exist.
    """
    if isinstance(source, str | Path):
        from actkit.store import open_store

        source = open_store(source)
    opened, layouts = open_responses(averaged_source(source), ids)
    chosen = choose_layers(opened.layers, layers)
    single_units(source, chosen)
    recorded = read_responses(responses, [str(i) for i in opened.ids])
    rows = recorded_rows(opened.ids, recorded.ids)
    columns = {**{key: column[rows] for key, column in opened.labels.items()}, **recorded.columns}
    if groups is None and "group" in columns:
        groups = "group"
    by_group = None if groups is None else label_column(groups, "groups", recorded.ids, columns)[1]
    by_label = None if labels is None else label_column(labels, "labels", recorded.ids, columns)[1]
    rho = None if reliability is None else reliability_of(reliability, recorded.neurons)
    dealt = deal_folds(len(rows), folds, by_group, by_label, seed)
    targets = Targets.of(recorded.values, dealt)
    return Setting(opened, layouts, chosen, recorded, rows, by_group, by_label, rho, dealt, targets)


def single_units(source: Any, layers: Sequence[Layer]) -> None:
    """Refuse layers without single units: coordinates of a projection are mixtures of all of them.

    Parameters
    ----------
    source : object
        A store, or arrays, which are taken to hold units.
    layers : sequence of Layer
        The layers chosen.

    Raises
    ------
    InputError
        If a layer was reduced by projection or PCA, or is empty.
    """
    for layer in layers:
        if layer.n_units < 1:
            raise InputError(f"layer {layer.name!r} has no units to match; leave it out")
        kind = source.layer_attrs(layer.name).get("reduced", "none") if hasattr(source, "layer_attrs") else "none"
        if kind in ("projection", "pca"):
            raise InputError(
                f"layer {layer.name!r} was reduced by {kind}, so it has no single units to match; record it again with "
                "reduce='none' (or reduce='mean' to match channels)"
            )


def correlate_rows(units: np.ndarray, neurons: np.ndarray) -> np.ndarray:
    """Correlate every unit with every neuron.

    Parameters
    ----------
    units : numpy.ndarray of float64
        ``(units, n)`` activations.
    neurons : numpy.ndarray of float64
        ``(neurons, n)`` responses to the same stimuli.

    Returns
    -------
    numpy.ndarray of float64
        ``(units, neurons)`` Pearson correlations; 0 for a constant unit, which predicts nothing, NaN for a constant
        neuron.
    """
    varies, known = np.ptp(units, axis=1) > 0, np.ptp(neurons, axis=1) > 0
    x, y = units - units.mean(axis=1, keepdims=True), neurons - neurons.mean(axis=1, keepdims=True)
    x = np.divide(x, np.linalg.norm(x, axis=1, keepdims=True), out=np.zeros_like(x), where=varies[:, None])
    y = np.divide(y, np.linalg.norm(y, axis=1, keepdims=True), out=np.full_like(y, np.nan), where=known[:, None])
    return np.asarray(x @ y.T)


def mean_over_folds(values: np.ndarray) -> np.ndarray:
    """Average over folds that have a value.

    Parameters
    ----------
    values : numpy.ndarray
        ``(folds, …)``.

    Returns
    -------
    numpy.ndarray
        ``(…)``; NaN where no fold has a value.
    """
    known = np.isfinite(values)
    count = known.sum(axis=0)
    return np.divide(
        np.where(known, values, 0).sum(axis=0), count, out=np.full(values.shape[1:], np.nan), where=count > 0
    )


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray], n_neurons: int, n_draws: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Bound a statistic over neurons by the percentile bootstrap; neurons count as independent.

    Parameters
    ----------
    statistic : callable
        Takes samples of neurons by number, ``(samples, n_neurons)`` with repeats, and gives one value a sample.
    n_neurons : int
        How many neurons there are.
    n_draws : int
        Bootstrap samples of neurons.
    seed : int
        Seed; draw k is stream ``(seed, k + 1)``.
    level : float
        Coverage.

    Returns
    -------
    low, high : float
        Limits.
    """
    drawn = np.empty(n_draws)
    for start, stop in spans(n_draws, _AT_ONCE):
        streams = [generator(seed, draw + 1, Stream.SUBJECTS) for draw in range(start, stop)]
        samples = [random.integers(0, n_neurons, n_neurons) for random in streams]
        drawn[start:stop] = statistic(np.array(samples))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
