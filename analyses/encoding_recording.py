"""What every encoding analysis makes of a recording: aligned averages, their reliabilities, and the folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from actkit.analyses.encoding_folds import check_folds, deal
from actkit.analyses.neuron_inputs import check_complete, reliability_of
from actkit.analyses.source import label_column
from actkit.errors import InputError
from actkit.recordings_neurons import average, stimulus_groups


@dataclass(frozen=True)
class Problem:
    """Averages, reliabilities and folds.

    Attributes
    ----------
    y : numpy.ndarray
        ``(n_stimuli, n_neurons)`` averages over repetitions.
    stimuli, neurons : list of str
        Their names.
    rho : numpy.ndarray or None
        ``(n_neurons,)`` reliability.
    groups : numpy.ndarray of int
        ``(n_stimuli,)`` groups that are kept whole, numbered from 0.
    test_fold : numpy.ndarray of int
        ``(n_stimuli,)`` fold in which each stimulus is held out.
    averaged : xarray.DataArray
        The averages as they came.
    """

    y: np.ndarray
    stimuli: list[str]
    neurons: list[str]
    rho: np.ndarray | None
    groups: np.ndarray
    test_fold: np.ndarray
    averaged: xr.DataArray

    def inner(self, train: np.ndarray, fold: int, parts: int, seed: int) -> list[np.ndarray]:
        """Deal the training stimuli of an outer fold into parts.

        Parameters
        ----------
        train : numpy.ndarray of int
            The training stimuli.
        fold : int
            Number of the outer fold.
        parts : int
            Number of parts.
        seed : int
            Seed of the analysis.

        Returns
        -------
        list of numpy.ndarray of int
            Stimuli of each part, groups whole.
        """
        part = deal(self.groups[train], parts, seed, fold + 1)
        return [train[part == number] for number in range(parts)]

    def attrs(self, folds: int, floor: float) -> dict[str, Any]:
        """Attributes of a result.

        Parameters
        ----------
        folds : int
            Number of outer folds.
        floor : float
            Least reliability that is divided by.

        Returns
        -------
        dict
            Recording, region, splitting and counts.
        """
        n_groups = int(self.groups.max()) + 1
        whole = f", {n_groups} groups kept whole" if n_groups < len(self.y) else ""
        averaged = self.averaged
        return {
            "recording": str(averaged.name or averaged.attrs.get("name") or "recording"),
            "region": str(averaged.attrs["region"]) if "region" in averaged.attrs else None,
            "splitting": f"{folds}-fold crossvalidation over stimuli{whole}",
            "n_stimuli": len(self.y),
            "n_neurons": len(self.neurons),
            "n_below_floor": None if self.rho is None else int((~(self.rho >= floor)).sum()),
        }


def recorded_problem(
    responses: xr.DataArray, reliability: Any, groups: Any, folds: int, inner_folds: int, seed: int
) -> Problem:
    """Average a recording, align its reliabilities, and deal its stimuli.

    Parameters
    ----------
    responses : xarray.DataArray
        (stimulus, repetition, neuron), or averages (stimulus, neuron).
    reliability : object
        As for :func:`actkit.analyses.neuron_inputs.reliability_of`, or None.
    groups : str, sequence, mapping or None
        Stimuli that are never split; by default the coordinate ``group``.
    folds, inner_folds : int
        Numbers of folds; 0 inner folds: nothing is chosen.
    seed : int
        Seed of the folds.

    Returns
    -------
    Problem
        What is to be predicted.

    Raises
    ------
    InputError
        If there is a time axis, reliabilities or groups do not fit, or there are too few stimuli or groups.
    DataError
        If the recording is not valid or has gaps.
    """
    averaged = average(responses)
    if "time" in averaged.dims:
        raise InputError("the recording has a time axis; select a time or average a window, such as .mean('time')")
    y = np.asarray(averaged.transpose("stimulus", "neuron").values, dtype=np.float64)
    stimuli = [str(i) for i in averaged["stimulus"].values]
    neurons = [str(i) for i in averaged["neuron"].values]
    check_complete(y, stimuli, neurons)
    rho = None if reliability is None else reliability_of(reliability, neurons)
    if groups is None:
        words = stimulus_groups(averaged)
    else:
        columns = {str(k): c.values for k, c in averaged.coords.items() if c.dims == ("stimulus",)}
        words = label_column(groups, "groups", stimuli, columns)[1]
    by_group = np.unique(words, return_inverse=True)[1]
    test_fold = deal(by_group, folds, seed, 0)
    check_folds(test_fold, by_group, folds, inner_folds)
    return Problem(y, stimuli, neurons, rho, by_group, test_fold, averaged)
