"""Tables of behavioural trials: columns, responses, labels and scores, for :mod:`actkit.analyses.behaviour`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field

from actkit.errors import InputError, nearest
from actkit.options import Options

_LEVEL = 0.95


class TrialOptions(Options):
    """Options of everything that reads a table of trials: :func:`confusion` and :func:`choice_rates`."""

    subject: str = Field("subject", description="Column that says who chose.")
    stimulus: str = Field("stimulus", description="Column that says which stimulus was shown.")
    response: str = Field("response", description="Column that says what was chosen.")
    missing: list[str] = Field(
        ["", "na"], description="Responses that count as no answer; NaN and None always do, in any column of responses."
    )


class ScoredOptions(TrialOptions):
    """Options of what scores trials as right or wrong."""

    unanswered: Literal["wrong", "left_out"] = Field(
        "wrong", description="Trials without an answer: scored as wrong, or left out."
    )
    seed: int = Field(0, ge=0, lt=2**64, description="Seed of splits and bootstrap draws.")


def read_trials(trials: Any) -> dict[str, np.ndarray]:
    """Columns of equal length.

    Parameters
    ----------
    trials : pandas.DataFrame, mapping of column to values, or xarray.Dataset
        One row a trial.

    Returns
    -------
    dict of str to numpy.ndarray
        The columns, each ``(n_trials,)``.

    Raises
    ------
    InputError
        If it is no table, is empty, or columns differ in length.
    """
    if isinstance(trials, pd.DataFrame):
        columns = {str(name): trials[name].to_numpy() for name in trials.columns}
    elif isinstance(trials, xr.Dataset):
        columns = {str(name): np.asarray(v.values) for name, v in trials.variables.items() if v.ndim == 1}
    elif isinstance(trials, Mapping):
        columns = {str(name): np.asarray(values) for name, values in trials.items()}
    else:
        raise InputError(
            f"trials of type {type(trials).__name__} cannot be read; give a DataFrame or a mapping of column to values"
        )
    lengths = {name: len(values) if values.ndim == 1 else -1 for name, values in columns.items()}
    if len(set(lengths.values())) > 1 or not lengths or min(lengths.values()) < 1:
        raise InputError(
            f"the columns of trials have the lengths {lengths}; give one value a trial in each, and trials"
        )
    return columns


def column(table: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Take a column of the table.

    Parameters
    ----------
    table : mapping of str to numpy.ndarray
        Columns of trials.
    name : str
        The column wanted.

    Returns
    -------
    numpy.ndarray
        Its values.

    Raises
    ------
    InputError
        If there is no such column.
    """
    if name not in table:
        raise InputError(f"the trials have no column {name!r}; {nearest(name, table)}")
    return table[name]


def as_words(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values as words, and which of them are missing.

    Parameters
    ----------
    values : numpy.ndarray
        A column.

    Returns
    -------
    text : numpy.ndarray of str
        Words; empty where missing.
    lacks : numpy.ndarray of bool
        Where a value is missing (NaN, None).
    """
    lacks = np.asarray(pd.isna(values))
    if values.dtype.kind == "f":  # 1.0 is the word "1": a column of whole numbers turns to floats where one is missing
        return np.array(["" if no else f"{value:.15g}" for value, no in zip(values, lacks, strict=True)]), lacks
    return np.array(["" if no else str(value) for value, no in zip(values.tolist(), lacks, strict=True)]), lacks


def word_column(table: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A column in which nothing may be missing.

    Parameters
    ----------
    table : mapping of str to numpy.ndarray
        Columns of trials.
    name : str
        The column wanted.

    Returns
    -------
    numpy.ndarray of str
        Its words.

    Raises
    ------
    InputError
        If there is no such column, or a value is missing.
    """
    values, lacks = as_words(column(table, name))
    if lacks.any():
        raise InputError(f"column {name!r} is empty in trial {int(lacks.argmax())}; fill it or leave the trial out")
    return values


def read_responses(table: Mapping[str, np.ndarray], options: TrialOptions) -> tuple[np.ndarray, np.ndarray]:
    """Responses, and which trials were answered.

    Parameters
    ----------
    table : mapping of str to numpy.ndarray
        Columns of trials.
    options : TrialOptions
        Which column, and what counts as no answer.

    Returns
    -------
    given : numpy.ndarray of str
        Responses.
    answered : numpy.ndarray of bool
        Which trials were answered.

    Raises
    ------
    InputError
        If there is no such column.
    """
    values, lacks = as_words(column(table, options.response))
    return values, ~(lacks | np.isin(values, options.missing))


def trial_labels(table: Mapping[str, np.ndarray], source: Any, what: str, options: TrialOptions) -> np.ndarray:
    """A label for each trial, from a column or by stimulus.

    Parameters
    ----------
    table : mapping of str to numpy.ndarray
        Columns of trials.
    source : str or mapping
        The name of a column, or a label by stimulus.
    what : str
        What the labels are called in messages.
    options : TrialOptions
        Which column holds the stimuli.

    Returns
    -------
    numpy.ndarray of str, shape (n_trials,)
        The labels.

    Raises
    ------
    InputError
        If there is no such column, or a stimulus has no label.
    """
    if isinstance(source, str):
        return word_column(table, source)
    if not isinstance(source, Mapping):
        raise InputError(
            f"{what} is a {type(source).__name__}; give the name of a column or a mapping of stimulus to label"
        )
    stimuli = word_column(table, options.stimulus)
    known = {str(key): str(label) for key, label in source.items()}
    lacking = sorted(set(stimuli.tolist()) - set(known))
    if lacking:
        raise InputError(f"{what}: {len(lacking)} stimuli have no label, the first is {lacking[0]!r}; give all")
    return np.array([known[name] for name in stimuli.tolist()])


def scored_trials(
    table: Mapping[str, np.ndarray], truth: Any, value: str | None, options: ScoredOptions
) -> tuple[np.ndarray, ...]:
    """Subjects, stimuli, the index of each by trial, a number for each trial, and whether it counts.

    Parameters
    ----------
    table : mapping of str to numpy.ndarray
        Columns of trials.
    truth : str, mapping or None
        The right answer, as in :func:`trial_labels`.
    value : str or None
        A column of numbers to use instead.
    options : ScoredOptions
        The columns, and what an unanswered trial counts.

    Returns
    -------
    tuple of numpy.ndarray
        Subjects; stimuli; the index of each by trial; the score of each trial; and whether it counts.

    Raises
    ------
    InputError
        If a column is missing or holds what is no number.
    """
    subjects, who = np.unique(word_column(table, options.subject), return_inverse=True)
    stimuli, what = np.unique(word_column(table, options.stimulus), return_inverse=True)
    if value is not None:
        score = np.asarray(pd.to_numeric(pd.Series(column(table, value)), errors="coerce"), dtype=np.float64)
        unread = np.isnan(score) & ~np.asarray(pd.isna(column(table, value)))
        if unread.any() or np.isinf(score).any():
            odd = column(table, value)[(unread | np.isinf(score)).argmax()]
            raise InputError(f"column {value!r} holds {odd!r}, which is no finite number; use truth=… for words")
        return subjects, stimuli, who, what, score, ~np.isnan(score)
    given, answered = read_responses(table, options)
    right = answered & (given == trial_labels(table, truth, "truth", options))
    used = answered if options.unanswered == "left_out" else np.ones(len(right), dtype=bool)
    return subjects, stimuli, who, what, right.astype(np.float64), used


def ratio(a: Any, b: Any) -> np.ndarray:
    """Divide, with NaN where the divisor is 0.

    Parameters
    ----------
    a, b : array_like
        Numbers that broadcast.

    Returns
    -------
    numpy.ndarray
        ``a / b`` in float64.
    """
    a, b = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)


def mean_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined; NaN where nothing is.

    Parameters
    ----------
    values : numpy.ndarray
        Numbers, NaN where undefined.

    Returns
    -------
    numpy.ndarray
        The mean over the last axis.
    """
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def percentiles(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentiles over the first axis; NaN without draws, and where one draw in ten or more is undefined.

    Parameters
    ----------
    draws : numpy.ndarray, shape (n_draws, …)
        Bootstrap draws.

    Returns
    -------
    low, high : numpy.ndarray
        The limits.
    """
    if not len(draws):
        return np.full(draws.shape[1:], np.nan), np.full(draws.shape[1:], np.nan)
    usable = np.isnan(draws).mean(axis=0) < 0.1
    filled = np.where(usable, draws, 0.0)
    tail = (1 - _LEVEL) / 2
    low, high = (np.where(usable, np.nanquantile(filled, q, axis=0), np.nan) for q in (tail, 1 - tail))
    return low, high


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation; NaN where it is undefined.

    Parameters
    ----------
    a, b : numpy.ndarray, shape (n,)
        Numbers.

    Returns
    -------
    float
        Their correlation.
    """
    if len(a) < 3:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(ratio(a @ b, np.sqrt((a @ a) * (b @ b))))
