"""What an encoding model starts from: aligned stimuli and neurons, and folds that keep groups of stimuli whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from actkit.errors import DataError, InputError
from actkit.resampling import Stream, generator

_FEWEST = 3  # stimuli in a test fold; fewer have no correlation


def check_complete(y: np.ndarray, stimuli: Sequence[str], neurons: Sequence[str]) -> None:
    """Refuse averages with gaps: all neurons share one decomposition, hence one set of stimuli.

    Parameters
    ----------
    y : numpy.ndarray
        ``(n_stimuli, n_neurons)`` averages, NaN where there is none.
    stimuli, neurons : sequence of str
        Their names.

    Raises
    ------
    DataError
        If there is a NaN.
    """
    gaps = np.isnan(y)
    if gaps.any():
        stimulus, neuron = np.argwhere(gaps)[0]
        raise DataError(
            f"neuron {neurons[neuron]!r} has no response to stimulus {stimuli[stimulus]!r} ({int(gaps.sum())} such "
            "gaps in all), so neurons cannot share their training stimuli; drop those stimuli or neurons, such as "
            ".dropna('stimulus') on the averages"
        )


def recorded_rows(ids: Sequence[Any] | np.ndarray, stimuli: Sequence[str]) -> np.ndarray:
    """Find the recorded stimuli in a source.

    Parameters
    ----------
    ids : sequence of str
        Stimuli of the source.
    stimuli : sequence of str
        Stimuli of the recording.

    Returns
    -------
    numpy.ndarray of int
        ``(n_stimuli,)`` rows of the source.

    Raises
    ------
    InputError
        If a recorded stimulus is not in the source, or an id is there twice.
    """
    where = {str(identifier): row for row, identifier in enumerate(ids)}
    missing = [i for i in stimuli if i not in where]
    if missing:
        raise InputError(
            f"the source lacks {len(missing)} of {len(stimuli)} recorded stimuli (the first is {missing[0]!r}; its own "
            f"ids are like {str(ids[0])!r}), so they cannot be predicted; extract them, give ids=, or leave them out "
            "of the recording"
        )
    if len(where) < len(ids):
        raise InputError("the source holds a stimulus id twice, so its rows cannot be told apart; give ids that differ")
    return np.array([where[i] for i in stimuli])


def reliability_of(reliability: Any, neurons: Sequence[str]) -> np.ndarray:
    """Bring reliabilities to one number a neuron, aligned by name where there are names.

    Parameters
    ----------
    reliability : xarray.Dataset, xarray.DataArray, mapping of neuron to number, or sequence
        Reliabilities; a Dataset carries them as ``reliability``.
    neurons : sequence of str
        Neurons of the recording.

    Returns
    -------
    numpy.ndarray
        ``(n_neurons,)``; NaN where a reliability could not be estimated.

    Raises
    ------
    InputError
        If neurons have no reliability, the shape does not fit, or one is above 1.
    """
    if isinstance(reliability, xr.Dataset):
        if "reliability" not in reliability:
            raise InputError("this Dataset has no variable 'reliability'; give what neuron_reliability() returned")
        reliability = reliability["reliability"]
    if isinstance(reliability, xr.DataArray):
        if reliability.dims != ("neuron",):
            raise InputError(f"reliability has the dims {reliability.dims}; give one value along 'neuron'")
        if "neuron" in reliability.coords:
            names = reliability["neuron"].values.astype(str).tolist()
            reliability = dict(zip(names, reliability.values.tolist(), strict=True))
    if isinstance(reliability, Mapping):
        missing = [name for name in neurons if name not in reliability]
        if missing:
            raise InputError(f"{len(missing)} neurons have no reliability, the first is {missing[0]!r}; give all")
        reliability = [reliability[name] for name in neurons]
    rho = np.asarray(reliability, dtype=np.float64)
    if rho.shape != (len(neurons),):
        raise InputError(f"reliability has shape {rho.shape}, and there are {len(neurons)} neurons; give one for each")
    if (rho > 1 + 1e-9).any():
        worst = int(np.nanargmax(rho))
        raise InputError(
            f"the reliability of neuron {neurons[worst]!r} is {rho[worst]:.3g}, and a ratio of variances is 1 at most; "
            "give ρ itself, as a number from 0 to 1"
        )
    return rho


def deal(groups: np.ndarray, folds: int, seed: int, number: int) -> np.ndarray:
    """Deal whole groups in random order, each to the fold that has the fewest stimuli so far.

    Parameters
    ----------
    groups : numpy.ndarray
        ``(n_stimuli,)`` group of each stimulus.
    folds : int
        Number of folds.
    seed : int
        Seed of the analysis.
    number : int
        Number of the deal: 0 for the outer folds, 1 + fold for the inner ones.

    Returns
    -------
    numpy.ndarray of int
        ``(n_stimuli,)`` fold of each stimulus; without groups, sizes differ by one at most.
    """
    _, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)  # by first stimulus, so that the names of groups do not matter
    filled, fold_of = np.zeros(folds, dtype=np.int64), np.empty(len(first), dtype=np.int64)
    for group in order[generator(seed, number, Stream.STIMULI).permutation(len(first))]:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[inverse]


def check_folds(test_fold: np.ndarray, groups: np.ndarray, folds: int, inner_folds: int) -> None:
    """Refuse folds in which nothing can be correlated or chosen.

    Parameters
    ----------
    test_fold : numpy.ndarray of int
        ``(n_stimuli,)`` fold in which each stimulus is held out.
    groups : numpy.ndarray
        ``(n_stimuli,)`` groups.
    folds, inner_folds : int
        Numbers of folds; 0 inner folds: nothing is chosen.

    Raises
    ------
    InputError
        If a fold has fewer than three stimuli, or a training set has fewer groups than inner folds.
    """
    sizes = np.bincount(test_fold, minlength=folds)
    n_groups = len(np.unique(groups))
    if sizes.min() < _FEWEST:
        among = f" in {n_groups} groups" if n_groups < len(groups) else ""
        raise InputError(
            f"{len(groups)} stimuli{among} leave {sizes.min()} in one of {folds} folds, and a correlation needs "
            f"{_FEWEST}; use fewer folds or more stimuli"
        )
    fewest = min(len(np.unique(groups[test_fold != fold])) for fold in range(folds))
    if fewest < inner_folds:
        raise InputError(
            f"inner_folds={inner_folds}: a training set has {fewest} groups of stimuli only; use fewer inner folds, or "
            "give a single penalty"
        )
