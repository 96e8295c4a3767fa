"""One-to-one matching: different units for different neurons, with the highest sum of training correlations.

With J neurons an optimal assignment exists that gives each neuron one of its own J best units: were a neuron given a
lesser one, one of its J best would be free, since only J - 1 are taken. So J candidates a neuron, kept while the units
stream by, solve the assignment over all units exactly.
"""

from __future__ import annotations

import numpy as np

from actkit.analyses.source import Layer
from actkit.analyses.unit_matching_folds import Folds
from actkit.analyses.unit_matching_kernel import Targets, match_layer, read_units
from actkit.errors import InputError

__all__ = ["one_to_one"]

_FORBIDDEN = -1e3  # a correlation that no assignment takes while another one is left


def one_to_one(
    layer: Layer, rows: np.ndarray, folds: Folds, targets: Targets, memory: int
) -> tuple[np.ndarray, np.ndarray]:
    """Give different neurons different units in every fold.

    Parameters
    ----------
    layer : Layer
        The layer; it is read twice.
    rows : numpy.ndarray of int
        ``(n,)`` row of the layer for each stimulus.
    folds : Folds
        Stimuli sorted by fold.
    targets : Targets
        The neurons.
    memory : int
        Bytes that blocks may take.

    Returns
    -------
    unit : numpy.ndarray of int64
        ``(folds, neurons)``; -1 for a neuron that is constant over the training stimuli.
    columns : numpy.ndarray of float64
        ``(folds, neurons, n)`` activations, rows sorted by fold.

    Raises
    ------
    InputError
        If there are fewer units that vary than neurons.
    """
    from scipy.optimize import linear_sum_assignment

    n_folds, n_neurons = targets.norm.shape
    kept_r = [np.full((n_neurons, 0), -np.inf) for _ in range(n_folds)]
    kept_unit = [np.full((n_neurons, 0), -1) for _ in range(n_folds)]

    def visit(fold: int, index: np.ndarray, r: np.ndarray) -> None:
        together = np.concatenate([kept_r[fold], r], axis=1)
        units = np.concatenate([kept_unit[fold], np.broadcast_to(index, r.shape)], axis=1)
        most = min(n_neurons, together.shape[1])
        top = np.argpartition(-together, most - 1, axis=1)[:, :most]
        kept_r[fold] = np.take_along_axis(together, top, 1)
        kept_unit[fold] = np.take_along_axis(units, top, 1)

    match_layer(layer, rows, folds, [targets], [False], memory, visit)
    unit = np.full((n_folds, n_neurons), -1)
    for f in range(n_folds):
        neurons = np.flatnonzero(targets.norm[f] > 0)
        usable = np.isfinite(kept_r[f][neurons])
        pool = np.unique(kept_unit[f][neurons][usable])
        if len(pool) < len(neurons):
            raise InputError(
                f"layer {layer.name!r} has {len(pool)} units that vary over the training stimuli of fold {f} for "
                f"{len(neurons)} neurons, so not every neuron can have a unit of its own; use assignment='best'"
            )
        score = np.full((len(neurons), len(pool)), _FORBIDDEN)
        row = np.nonzero(usable)[0]
        score[row, np.searchsorted(pool, kept_unit[f][neurons][usable])] = kept_r[f][neurons][usable]
        at, chosen = linear_sum_assignment(score, maximize=True)
        unit[f, neurons[at]] = pool[chosen]
    return unit, read_units(layer, rows[folds.order], unit, memory)
