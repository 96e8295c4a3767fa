"""Words of a study: labels as they are compared, variables as they are named, groups of values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actkit.errors import InputError, nearest


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


def selected_words(select: Mapping[str, Any]) -> str:
    """Say which stimuli a selection keeps.

    Parameters
    ----------
    select : mapping of str to value or list
        Labels and the values to keep.

    Returns
    -------
    str
        Such as ``"group natural object or artificial object, human"``; a label that is true or false stands alone.
    """
    words = []
    for label, wanted in select.items():
        if isinstance(wanted, bool):
            words.append(label if wanted else f"not {label}")
        else:
            values = wanted if isinstance(wanted, list) else [wanted]
            words.append(f"{label} {' or '.join(label_word(value) for value in values)}")
    return ", ".join(words)


def groups_among(values: np.ndarray, groups: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Keep of named groups what some of the stimuli have.

    Parameters
    ----------
    values : numpy.ndarray, shape (n,)
        The label of each of these stimuli.
    groups : mapping of str to list
        Name of a group to the values it takes in.

    Returns
    -------
    dict of str to list
        Without the values that none of them has.
    """
    present = {label_word(value) for value in values.tolist()}
    kept = {name: [one for one in members if label_word(one) in present] for name, members in groups.items()}
    return {name: members for name, members in kept.items() if members}


def labelled(labels: Mapping[str, np.ndarray], name: str, wanted: Any) -> np.ndarray:
    """Find the stimuli that have one of some values of a label.

    Parameters
    ----------
    labels : mapping of str to numpy.ndarray
        Columns of the stimuli.
    name : str
        The label.
    wanted : value or list of values
        What to look for.

    Returns
    -------
    numpy.ndarray of bool, shape (n,)
        Whether a stimulus has one of them.

    Raises
    ------
    InputError
        If there is no such label, or no stimulus has one of the values.
    """
    if name not in labels:
        raise InputError(f"select: the stimuli have no label {name!r}; {nearest(name, labels)}")
    words = {label_word(value) for value in (wanted if isinstance(wanted, list) else [wanted])}
    there = [label_word(value) for value in labels[name].tolist()]
    if unknown := words - set(there):
        raise InputError(
            f"select: no stimulus has {name} {min(unknown)!r}; {nearest(min(unknown), sorted(set(there)))}"
        )
    return np.array([word in words for word in there], dtype=bool)


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


def slug(text: str) -> str:
    """Make a file name of a step's name.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        Letters, digits, dots, dashes and underscores.
    """
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")
