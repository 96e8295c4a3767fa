"""What decoding from neurons samples: presentations or stimuli, their folds, and presentations in random places."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.analyses.classifiers import ABOUT, PENALTY, Classifier
from actkit.analyses.decoding_folds import check_conditions, deal
from actkit.errors import InputError
from actkit.options import Options
from actkit.recordings_neurons import average, has_repetitions

__all__ = ["NeuronDecodingOptions", "check_labels", "draw_samples", "presentations", "shuffled_presentations"]


class NeuronDecodingOptions(Options):
    """Options of :func:`actkit.analyses.decoding_neurons.decode_neurons`."""

    classifier: Classifier = Field("svm", description=ABOUT)
    penalty: float = Field(1.0, gt=0, description=PENALTY)
    hold_out: Literal["repetition", "stimulus"] = Field(
        "repetition",
        description="What training never sees: other presentations of the same stimuli (classes are the stimuli "
        "themselves), or other stimuli, averaged over their presentations (classes are categories).",
    )
    trials: Literal["pseudo", "simultaneous"] = Field(
        "pseudo",
        description="With hold_out='repetition': each neuron's presentations are shuffled by themselves (neurons "
        "recorded one after another), or presentations stay whole, and those that lack a neuron are left out.",
    )
    train_on: Literal["one", "others"] = Field(
        "one",
        description="With conditions: train in each one and test in each, or test in each and train in all others "
        "together (and, for comparison, in the same one).",
    )
    standardise: Literal["training", "condition"] = Field(
        "training",
        description="Whose mean and standard deviation scale the neurons: those of the samples trained on, or each "
        "condition's own, of its samples outside the held-out fold (no labels are used), which takes away shifts and "
        "gains between conditions.",
    )
    folds: int = Field(5, ge=2, description="Parts into which presentations or stimuli are split.")
    sizes: list[int] | None = Field(
        None, description="Numbers of neurons, for a curve: each draw takes random ones; all neurons by default."
    )
    n_draws: int = Field(10, ge=1, description="Draws of pseudo-trials, folds and neurons.")
    n_permutations: int = Field(
        0,
        ge=0,
        description="Permutations for the tests within and across conditions, the observed order included; 0: no test "
        "(each permutation fits every draw again).",
    )
    interval: Literal["samples", "neurons"] = Field(
        "samples",
        description="What 95 % intervals are for: other presentations or stimuli (Wilson's, over the held-out samples "
        "of one draw), or other neurons of the same population (jackknife over ten groups of neurons, ten times the "
        "work).",
    )
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of draws and permutations.")


def check_labels(y: np.ndarray, where: np.ndarray, groups: np.ndarray | None, options: NeuronDecodingOptions) -> None:
    """Refuse labels and conditions that leave nothing to decode.

    Parameters
    ----------
    y, where : numpy.ndarray of str
        Class and condition of each stimulus.
    groups : numpy.ndarray of str or None
        Its group.
    options : NeuronDecodingOptions
        What is held out, from which training set.

    Raises
    ------
    InputError
        If there is one class, a condition lacks a class, or a class is too small for the folds.
    """
    classes, conditions = np.unique(y), np.unique(where)
    if len(classes) < 2:
        raise InputError(
            f"all {len(y)} stimuli are {str(classes[0])!r}, so there is nothing to decode; give two classes"
        )
    check_conditions(y, where)
    if options.train_on == "others" and len(conditions) < 2:
        raise InputError("train_on='others' needs two conditions or more; give condition=…")
    if groups is not None and options.hold_out == "repetition":
        raise InputError("groups keep stimuli together, and presentations are held out; use hold_out='stimulus'")
    if options.hold_out == "stimulus":
        units = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
        for one in classes:
            n = len(np.unique(units[y == one]))
            if n < options.folds:
                raise InputError(
                    f"class {str(one)!r} has {n} {'groups' if groups is not None else 'stimuli'}, fewer than the "
                    f"{options.folds} folds; use fewer folds, or leave the class out"
                )


def presentations(recording: xr.DataArray, options: NeuronDecodingOptions) -> np.ndarray:
    """Take the responses of a recording as an array.

    Parameters
    ----------
    recording : xarray.DataArray
        A recording, or averages.
    options : NeuronDecodingOptions
        What is held out.

    Returns
    -------
    numpy.ndarray, shape (n_stimuli, n_repetitions, n_neurons)
        NaN where a presentation is missing; one repetition, the average, where stimuli are held out.

    Raises
    ------
    InputError
        If presentations are held out and there are none, or fewer than folds, or an average is missing.
    """
    if options.hold_out == "stimulus":
        mean = average(recording).values  # averages pass through
        if np.isnan(mean).any():
            s, k = np.argwhere(np.isnan(mean))[0]
            raise InputError(
                f"neuron {str(recording['neuron'].values[k])!r} has no response to the stimulus "
                f"{str(recording['stimulus'].values[s])!r}; leave out one of them"
            )
        return np.asarray(mean[:, None])
    if not has_repetitions(recording):
        raise InputError(
            "this recording has averages alone, so no presentation can be held out; use hold_out='stimulus'"
        )
    values = recording.values
    known = ~np.isnan(values)
    if options.trials == "simultaneous":
        known = np.broadcast_to(known.all(axis=2, keepdims=True), values.shape)
        values = np.where(known, values, np.nan)
    fewest = known.sum(axis=1)
    if fewest.min() < options.folds:
        s, k = np.unravel_index(int(fewest.argmin()), fewest.shape)
        raise InputError(
            f"the stimulus {str(recording['stimulus'].values[s])!r} has {int(fewest.min())} usable presentations "
            f"(neuron {str(recording['neuron'].values[k])!r}), fewer than the {options.folds} folds; use "
            "fewer folds, or leave out the neuron or the stimulus"
        )
    return np.asarray(values)


def draw_samples(
    values: np.ndarray,
    y: np.ndarray,
    where: np.ndarray,
    groups: np.ndarray | None,
    random: np.random.Generator,
    options: NeuronDecodingOptions,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the samples of one round.

    Parameters
    ----------
    values : numpy.ndarray, shape (n_stimuli, n_repetitions, n_neurons)
        Responses.
    y, where : numpy.ndarray of str
        Class and condition of each stimulus.
    groups : numpy.ndarray of str or None
        Its group.
    random : numpy.random.Generator
        Where presentations and folds are drawn from.
    options : NeuronDecodingOptions
        What is held out, and which presentations go together.

    Returns
    -------
    samples : numpy.ndarray, shape (n_samples, n_neurons)
        Responses.
    stimulus, fold : numpy.ndarray of int, shape (n_samples,)
        The stimulus and the fold of each.
    """
    n, _, p = values.shape
    if options.hold_out == "repetition":
        missing = np.isnan(values)
        m = int((~missing).sum(axis=1).min())
        width = 1 if options.trials == "simultaneous" else p
        keys = random.random((n, values.shape[1], width))
        keys = np.where(missing[:, :, :width], np.inf, keys)  # simultaneous: presentations are missing for all neurons
        order = np.argsort(keys, axis=1)[:, :m]
        taken = np.take_along_axis(values, np.broadcast_to(order, (n, m, p)), axis=1)
        return taken.reshape(n * m, p), np.repeat(np.arange(n), m), np.tile(np.arange(m) % options.folds, n)
    return values[:, 0], np.arange(n), deal(y, where, groups, options.folds, int(random.integers(2**31)))


def shuffled_presentations(values: np.ndarray, place: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Presentations in random places of their condition, neurons with the same gaps together.

    What neurons share at one moment stays together, so that the null keeps the correlation of their noise.

    Parameters
    ----------
    values : numpy.ndarray, shape (n_stimuli, n_repetitions, n_neurons)
        Responses, NaN where a presentation is missing.
    place : numpy.ndarray of int
        The condition of each stimulus.
    random : numpy.random.Generator
        Where the places come from.

    Returns
    -------
    numpy.ndarray, shape (n_stimuli, n_repetitions, n_neurons)
        The same responses; gaps stay where they are.
    """
    moved = values.copy()
    known = ~np.isnan(values)
    patterns, kind = np.unique(known.reshape(-1, known.shape[2]), axis=1, return_inverse=True)
    kind = kind.ravel()
    for one in range(patterns.shape[1]):
        neurons = np.flatnonzero(kind == one)
        here = patterns[:, one].reshape(known.shape[:2])
        for c in np.unique(place):
            stimulus, repetition = np.nonzero(here & (place == c)[:, None])
            order = random.permutation(len(stimulus))
            part = values[stimulus[order][:, None], repetition[order][:, None], neurons]
            moved[stimulus[:, None], repetition[:, None], neurons] = part
    return moved
